//! Every setting, as README, `.env.example` and `serve --help` tell it.

use std::fmt::Write as _;

/// What holds where a setting is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// The service does not start without it.
    Needed,
    /// The feature is off, or another setting decides.
    Off,
    /// Spelt as in the environment.
    Is(&'static str),
    /// Told in `.env.example` alone: too long for a table.
    Long(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub name: &'static str,
    pub unset: Unset,
    pub meaning: &'static str,
    /// Shown beside a problem, and in `.env.example` where there is no default.
    pub example: &'static str,
}

/// Settings about one thing.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    pub title: &'static str,
    pub settings: &'static [Setting],
}

macro_rules! settings {
    ($($title:literal { $($name:ident = $unset:expr, $meaning:literal, $example:literal;)* })*) => {
        $($(pub(super) const $name: &str = stringify!($name);)*)*

        pub const GROUPS: &[Group] = &[$(Group {
            title: $title,
            settings: &[$(Setting {
                name: $name,
                unset: $unset,
                meaning: $meaning,
                example: $example,
            },)*],
        },)*];

        /// The names of all settings, and of those that are only there to be warned of. [`hooks`](super::hooks) has more.
        pub(super) const NAMES: &[&str] = &[
            $($($name,)*)*
            AMOCRM_CLIENT_ID,
            AMOCRM_CLIENT_SECRET,
            AMOCRM_REDIRECT_URI,
            AMOCRM_REFRESH_TOKEN,
        ];
    };
}

use Unset::{Is, Long, Needed, Off};

settings! {
    "Needed" {
        WEBHOOK_SECRET = Needed,
            "secret; `whsec_…`, made by `tripwire-sync secret`, the same as in Supabase Vault. Several, with spaces between: any may sign",
            "whsec_<base64>, made by `tripwire-sync secret`";
        SUPABASE_URL = Needed,
            "`https://….supabase.co`, without `/rest/v1`",
            "https://abcdefghijklmnopqrst.supabase.co";
        SUPABASE_KEY = Needed,
            "secret; the publishable key with `SUPABASE_JWT`, or a secret key (`sb_secret_…`; a legacy `service_role` key) alone",
            "sb_publishable_… with SUPABASE_JWT, or sb_secret_…, from the dashboard: Project Settings, API Keys";
        SYNC_SINCE = Needed,
            "the day of going live (UTC) or an RFC 3339 time: older rows are left alone",
            "2026-12-01 or 2026-12-01T09:00:00+05:00";
        AMOCRM_SUBDOMAIN = Needed,
            "the part before `.amocrm.ru`",
            "school, if you work at https://school.amocrm.ru";
        AMOCRM_ACCESS_TOKEN = Needed,
            "secret; the long-lived token of an integration of your own",
            "eyJ…, the long-lived token of your integration";
        AMOCRM_TRIPWIRE_PIPELINE_ID = Needed,
            "the pipeline, from `tripwire-sync pipelines`; others are not touched",
            "7412398, listed by `tripwire-sync pipelines`";
        AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID = Needed,
            "the stage that a deal is brought to, from `tripwire-sync pipelines`; may be 142 (won)",
            "61830474, listed by `tripwire-sync pipelines`";
    }
    "amoCRM" {
        AMOCRM_ENABLED = Is("true"),
            "`false`: events are stored and nothing is sent; the other `AMOCRM_…` may then be missing",
            "true or false";
        AMOCRM_BASE_URL = Off,
            "another host than `https://{subdomain}.amocrm.ru`",
            "https://school.kommo.com";
        AMOCRM_MISSING_CONTACT = Is("wait"),
            "when no contact has the student's e-mail: wait for one, or `create` contact and deal",
            "wait or create";
        AMOCRM_REUSE_CLOSED_DAYS = Is("90"),
            "a deal closed at most so many days before the row was made is the same purchase",
            "90";
        AMOCRM_REQUESTS_PER_SECOND = Is("6"),
            "1 to 7: never more than this many in any 1.05 s",
            "6";
        AMOCRM_BATCH_SIZE = Is("50"),
            "items in one write, 1 to 250",
            "50";
        AMOCRM_CONTACT_SCAN = Is("true"),
            "`false`: keep no index of the account's contacts, and search for those of an import one by one",
            "true or false";
        NOTE_TEMPLATE = Long("\"✅ Доступ к Tripwire предоставлен: {full_name}\\nЛогин: {email}\""),
            "the note; may name `{full_name}` `{email}` `{phone}` `{manager_name}` `{price}` `{generated_password}` `{row_id}`; `\\n` is a new line",
            "'Доступ предоставлен: {full_name}\\nЛогин: {email}'";
    }
    "Rows" {
        SETTLE_DELAY = Is("5s"),
            "no write about a row before it is this old: the dashboard sometimes takes one back",
            "5s";
        RECONCILE_INTERVAL = Is("5m"),
            "how often to go through all rows without a deal; the newest are looked for every 15 s; `0`: neither",
            "5m, or 0 for no sweeps";
        SUPABASE_JWT = Off,
            "secret; the token of the role `tripwire_sync` (`tripwire-sync jwt`); `SUPABASE_KEY` may then be the publishable key",
            "eyJ….eyJ….…, made by `tripwire-sync jwt`";
    }
    "Receiver" {
        WEBHOOK_TOLERANCE = Is("5m"),
            "greatest difference between the signed time and our clock",
            "5m";
        WEBHOOK_BEARER_TOKEN = Off,
            "secret; for the dashboard's own unsigned Database Webhooks; 24 characters or more; may replace `WEBHOOK_SECRET`",
            "a random text of 24 characters or more, without spaces";
        BIND_ADDR = Is("0.0.0.0:8080"),
            "where events are taken",
            "0.0.0.0:8080";
        PORT = Off,
            "replaces the port of `BIND_ADDR`",
            "8080";
        METRICS_ADDR = Is("127.0.0.1:9464"),
            "where `/metrics` is, and `/readyz` with reasons and hints",
            "127.0.0.1:9464";
    }
    "Operator page" {
        ADMIN_TOKEN = Off,
            "secret; 16 characters or more: the operator page `/admin` and its API are on, with this token",
            "a random text of 16 characters or more, without spaces";
        VIEWER_TOKEN = Off,
            "secret; another one: shows the page without its buttons",
            "another random text of 16 characters or more, without spaces";
    }
    "Inbox" {
        DATABASE_URL = Is("sqlite://data/inbox.db"),
            "the inbox: a file on a lasting volume",
            "sqlite://data/inbox.db or sqlite:///data/inbox.db";
        RETENTION_DAYS = Is("90"),
            "done entries are removed after so many days",
            "90";
    }
    "Alerts and log" {
        TELEGRAM_BOT_TOKEN = Off,
            "secret; alerts: the token of a bot made with @BotFather; goes with `TELEGRAM_CHAT_ID`",
            "123456789:AA…, from @BotFather";
        TELEGRAM_CHAT_ID = Off,
            "the chat that the bot writes to: a number, or `@name` of a channel",
            "-1001234567890 or @channel";
        TELEGRAM_BASE_URL = Is("https://api.telegram.org"),
            "another host, for a relay or a test",
            "https://api.telegram.org";
        DIGEST = Is("weekly"),
            "a summary by Telegram, Mondays at 9:00 (`TIME_ZONE`); or `daily`, or `off`",
            "weekly, daily or off";
        SELF_TEST = Is("daily"),
            "the database sends a test event, and an alert tells if none arrives; or `off`",
            "daily or off";
        HEARTBEAT_URL = Off,
            "secret; an outside watcher (healthchecks.io, Uptime Kuma push), asked while all is well",
            "https://hc-ping.com/…";
        HEARTBEAT_INTERVAL = Is("5m"),
            "how often, from `1m`",
            "5m";
        TIME_ZONE = Off,
            "an IANA name: the zone of the times that people read (commands, Telegram); without it the machine's. Log and `--json` are in UTC",
            "Asia/Almaty";
        LOG_FORMAT = Is("json"),
            "or `pretty`, which is the default on a terminal",
            "json or pretty";
        RUST_LOG = Is("info"),
            "what is logged",
            "info,tripwire_sync=debug";
    }
}

/// Of features that this version does not have.
pub(super) const AMOCRM_CLIENT_ID: &str = "AMOCRM_CLIENT_ID";
pub(super) const AMOCRM_CLIENT_SECRET: &str = "AMOCRM_CLIENT_SECRET";
pub(super) const AMOCRM_REDIRECT_URI: &str = "AMOCRM_REDIRECT_URI";
pub(super) const AMOCRM_REFRESH_TOKEN: &str = "AMOCRM_REFRESH_TOKEN";

pub(super) const OAUTH: [&str; 4] = [
    AMOCRM_CLIENT_ID,
    AMOCRM_CLIENT_SECRET,
    AMOCRM_REDIRECT_URI,
    AMOCRM_REFRESH_TOKEN,
];

pub(super) fn example(name: &str) -> &'static str {
    let mut settings = GROUPS.iter().flat_map(|group| group.settings);
    let ours = settings.find(|setting| setting.name == name);
    ours.map_or("", |setting| setting.example)
}

/// All settings with their defaults, for a terminal.
#[must_use]
pub fn help() -> String {
    let mut text =
        "Settings, from the environment or a file `.env` in the working folder:\n".to_owned();
    for group in GROUPS {
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n{}", group.title);
        for setting in group.settings {
            let default = match setting.unset {
                Needed | Off => String::new(),
                Is(value) | Long(value) => format!(" [{value}]"),
            };
            let _ = writeln!(
                text,
                "  {}{default}\n      {}",
                setting.name, setting.meaning
            );
        }
    }
    text
}
