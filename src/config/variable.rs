//! Every setting, as README, `.env.example` and `serve --help` tell it.

use std::fmt::Write as _;

use crate::domain::{Lang, Wording};

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

#[derive(Debug, Clone)]
pub struct Setting {
    pub name: &'static str,
    pub unset: Unset,
    pub meaning: Wording,
    /// Shown beside a problem.
    pub example: Wording,
}

/// Settings about one thing.
#[derive(Debug, Clone)]
pub struct Group {
    pub title: Wording,
    pub settings: &'static [Setting],
}

macro_rules! settings {
    ($($title:literal, $in_russian:literal { $($name:ident = $unset:expr, $meaning:literal, $meaning_in_russian:literal, $example:expr;)* })*) => {
        $($(pub(super) const $name: &str = stringify!($name);)*)*

        pub const GROUPS: &[Group] = &[$(Group {
            title: fixed($title, $in_russian),
            settings: &[$(Setting {
                name: $name,
                unset: $unset,
                meaning: fixed($meaning, $meaning_in_russian),
                example: $example,
            },)*],
        },)*];

        /// The names of all settings, and of those that are only there to be warned of. [`hooks`](super::hooks) has more.
        pub(super) const NAMES: &[&str] = &[$($($name,)*)* OAUTH[0], OAUTH[1], OAUTH[2], OAUTH[3]];
    };
}

use Unset::{Is, Long, Needed, Off};

const fn fixed(english: &'static str, russian: &'static str) -> Wording {
    Wording::fixed(english, russian)
}

const fn same(text: &'static str) -> Wording {
    Wording::same(text)
}

settings! {
    "Needed", "Обязательные" {
        WEBHOOK_SECRET = Needed,
            "secret; `whsec_…`, made by `tripwire-sync secret`, the same as in Supabase Vault. Several, with spaces between: any may sign",
            "секрет; `whsec_…`, создаётся командой `tripwire-sync secret`, тот же, что в Supabase Vault. Несколько — через пробел: подписывать может любой",
            fixed("whsec_<base64>, made by `tripwire-sync secret`", "whsec_<base64>, создаёт `tripwire-sync secret`");
        SUPABASE_URL = Needed,
            "`https://….supabase.co`, without `/rest/v1`",
            "`https://….supabase.co`, без `/rest/v1`",
            same("https://abcdefghijklmnopqrst.supabase.co");
        SUPABASE_KEY = Needed,
            "secret; the publishable key with `SUPABASE_JWT`, or a secret key (`sb_secret_…`; a legacy `service_role` key) alone",
            "секрет; публичный ключ вместе с `SUPABASE_JWT` или один секретный ключ (`sb_secret_…`; ключ `service_role` старого образца)",
            fixed("sb_publishable_… with SUPABASE_JWT, or sb_secret_…, from the dashboard: Project Settings, API Keys", "sb_publishable_… вместе с SUPABASE_JWT или sb_secret_…, из панели: Project Settings, API Keys");
        SYNC_SINCE = Needed,
            "the day of going live (UTC) or an RFC 3339 time: older rows are left alone",
            "день запуска (UTC) или время по RFC 3339: более ранние строки сервис не трогает",
            fixed("2026-12-01 or 2026-12-01T09:00:00+05:00", "2026-12-01 или 2026-12-01T09:00:00+05:00");
        AMOCRM_SUBDOMAIN = Needed,
            "the part before `.amocrm.ru`",
            "часть адреса перед `.amocrm.ru`",
            fixed("school, if you work at https://school.amocrm.ru", "school, если аккаунт открывается по адресу https://school.amocrm.ru");
        AMOCRM_ACCESS_TOKEN = Needed,
            "secret; the long-lived token of an integration of your own",
            "секрет; долгосрочный токен вашей собственной интеграции",
            fixed("eyJ…, the long-lived token of your integration", "eyJ…, долгосрочный токен вашей интеграции");
        AMOCRM_TRIPWIRE_PIPELINE_ID = Needed,
            "the pipeline, from `tripwire-sync pipelines`; others are not touched",
            "воронка, номер из `tripwire-sync pipelines`; другие сервис не трогает",
            fixed("7412398, listed by `tripwire-sync pipelines`", "7412398, есть в выводе `tripwire-sync pipelines`");
        AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID = Needed,
            "the stage that a deal is brought to, from `tripwire-sync pipelines`; may be 142 (won)",
            "этап, на который переносится сделка, номер из `tripwire-sync pipelines`; может быть 142 (успешно реализовано)",
            fixed("61830474, listed by `tripwire-sync pipelines`", "61830474, есть в выводе `tripwire-sync pipelines`");
    }
    "amoCRM", "amoCRM" {
        AMOCRM_ENABLED = Is("true"),
            "`false`: events are stored and nothing is sent; the other `AMOCRM_…` may then be missing",
            "`false`: события сохраняются, и ничего не отправляется; остальные `AMOCRM_…` тогда не обязательны",
            fixed("true or false", "true или false");
        AMOCRM_BASE_URL = Off,
            "another host than `https://{subdomain}.amocrm.ru`",
            "другой хост вместо `https://{subdomain}.amocrm.ru`",
            same("https://school.kommo.com");
        AMOCRM_MISSING_CONTACT = Is("wait"),
            "when no contact has the student's e-mail: wait for one, or `create` contact and deal",
            "если контакта с e-mail ученика нет: `wait` — ожидать его, `create` — создать контакт и сделку",
            fixed("wait or create", "wait или create");
        AMOCRM_REUSE_CLOSED_DAYS = Is("90"),
            "a deal closed at most so many days before the row was made is the same purchase",
            "сделка, закрытая не раньше чем за столько дней до создания строки, — та же покупка",
            same("90");
        AMOCRM_REQUESTS_PER_SECOND = Is("6"),
            "1 to 7: never more than this many in any 1.05 s",
            "от 1 до 7: за любые 1,05 с запросов не больше",
            same("6");
        AMOCRM_BATCH_SIZE = Is("50"),
            "items in one write, 1 to 250",
            "элементов в одной записи, от 1 до 250",
            same("50");
        AMOCRM_CONTACT_SCAN = Is("true"),
            "`false`: keep no index of the account's contacts, and search for those of an import one by one",
            "`false`: не вести указатель контактов аккаунта и искать контакты при импорте по одному",
            fixed("true or false", "true или false");
        NOTE_TEMPLATE = Long("\"✅ Доступ к Tripwire предоставлен: {full_name}\\nЛогин: {email}\""),
            "the note; may name `{full_name}` `{email}` `{phone}` `{manager_name}` `{price}` `{generated_password}` `{row_id}`; `\\n` is a new line",
            "текст примечания; подстановки `{full_name}` `{email}` `{phone}` `{manager_name}` `{price}` `{generated_password}` `{row_id}`; `\\n` — новая строка",
            same("'Доступ предоставлен: {full_name}\\nЛогин: {email}'");
    }
    "Rows", "Строки" {
        SETTLE_DELAY = Is("5s"),
            "no write about a row before it is this old: the dashboard sometimes takes one back",
            "до этого возраста строки сервис ничего о ней не записывает: панель иногда отменяет вставку",
            same("5s");
        RECONCILE_INTERVAL = Is("5m"),
            "how often to go through all rows without a deal; the newest are looked for every 15 s; `0`: neither",
            "как часто проверять все строки без сделки; самые новые проверяются каждые 15 с; `0`: не проверять",
            fixed("5m, or 0 for no sweeps", "5m или 0 без сверок");
        SUPABASE_JWT = Off,
            "secret; the token of the role `tripwire_sync` (`tripwire-sync jwt`); `SUPABASE_KEY` may then be the publishable key",
            "секрет; токен роли `tripwire_sync` (`tripwire-sync jwt`); `SUPABASE_KEY` тогда может быть публичным ключом",
            fixed("eyJ….eyJ….…, made by `tripwire-sync jwt`", "eyJ….eyJ….…, создаёт `tripwire-sync jwt`");
    }
    "Receiver", "Приём событий" {
        WEBHOOK_TOLERANCE = Is("5m"),
            "greatest difference between the signed time and our clock",
            "наибольшая разница между подписанным временем и часами сервиса",
            same("5m");
        WEBHOOK_BEARER_TOKEN = Off,
            "secret; for the dashboard's own unsigned Database Webhooks; 24 characters or more; may replace `WEBHOOK_SECRET`",
            "секрет; для собственных вебхуков панели, без подписи; от 24 символов; может заменить `WEBHOOK_SECRET`",
            fixed("a random text of 24 characters or more, without spaces", "случайный текст от 24 символов, без пробелов");
        BIND_ADDR = Is("0.0.0.0:8080"),
            "where events are taken",
            "где сервис принимает события",
            same("0.0.0.0:8080");
        PORT = Off,
            "replaces the port of `BIND_ADDR`",
            "заменяет порт в `BIND_ADDR`",
            same("8080");
        METRICS_ADDR = Is("127.0.0.1:9464"),
            "where `/metrics` is, and `/readyz` with reasons and hints",
            "где доступны `/metrics` и `/readyz` с причинами и подсказками",
            same("127.0.0.1:9464");
    }
    "Operator page", "Страница оператора" {
        ADMIN_TOKEN = Off,
            "secret; 16 characters or more: the operator page `/admin` and its API are on, with this token",
            "секрет; от 16 символов: включает страницу оператора `/admin` и её API, вход по этому токену",
            fixed("a random text of 16 characters or more, without spaces", "случайный текст от 16 символов, без пробелов");
        VIEWER_TOKEN = Off,
            "secret; another one: shows the page without its buttons",
            "секрет; другой токен: показывает страницу без кнопок",
            fixed("another random text of 16 characters or more, without spaces", "другой случайный текст от 16 символов, без пробелов");
    }
    "Inbox", "Очередь" {
        DATABASE_URL = Is("sqlite://data/inbox.db"),
            "the inbox: a file on a lasting volume",
            "очередь: файл на постоянном диске",
            fixed("sqlite://data/inbox.db or sqlite:///data/inbox.db", "sqlite://data/inbox.db или sqlite:///data/inbox.db");
        RETENTION_DAYS = Is("90"),
            "done entries are removed after so many days",
            "через столько дней готовые записи удаляются",
            same("90");
    }
    "Alerts and log", "Оповещения и лог" {
        TELEGRAM_BOT_TOKEN = Off,
            "secret; alerts: the token of a bot made with @BotFather; goes with `TELEGRAM_CHAT_ID`",
            "секрет; оповещения: токен бота, созданного в @BotFather; нужен вместе с `TELEGRAM_CHAT_ID`",
            fixed("123456789:AA…, from @BotFather", "123456789:AA…, от @BotFather");
        TELEGRAM_CHAT_ID = Off,
            "the chat that the bot writes to: a number, or `@name` of a channel",
            "чат, куда пишет бот: число или `@имя` канала",
            fixed("-1001234567890 or @channel", "-1001234567890 или @channel");
        TELEGRAM_BASE_URL = Is("https://api.telegram.org"),
            "another host, for a relay or a test",
            "другой хост, для прокси или теста",
            same("https://api.telegram.org");
        DIGEST = Is("weekly"),
            "a summary by Telegram, Mondays at 9:00 (`TIME_ZONE`); or `daily`, or `off`",
            "сводка в Telegram по понедельникам в 9:00 (`TIME_ZONE`); или `daily`, или `off`",
            fixed("weekly, daily or off", "weekly, daily или off");
        SELF_TEST = Is("daily"),
            "the database sends a test event, and an alert tells if none arrives; or `off`",
            "база шлёт проверочное событие, и если оно не пришло, приходит оповещение; или `off`",
            fixed("daily or off", "daily или off");
        HEARTBEAT_URL = Off,
            "secret; an outside watcher (healthchecks.io, Uptime Kuma push), asked while all is well",
            "секрет; внешний мониторинг (healthchecks.io, Uptime Kuma push): сервис обращается к нему, пока всё в порядке",
            same("https://hc-ping.com/…");
        HEARTBEAT_INTERVAL = Is("5m"),
            "how often, from `1m`",
            "как часто, от `1m`",
            same("5m");
        TIME_ZONE = Off,
            "an IANA name: the zone of the times that people read (commands, Telegram); without it the machine's. Log and `--json` are in UTC",
            "имя IANA: часовой пояс для времени, которое читают люди (команды, Telegram); без неё — пояс машины. Лог и `--json` в UTC",
            same("Asia/Almaty");
        LOG_FORMAT = Is("json"),
            "or `pretty`, which is the default on a terminal",
            "или `pretty`, так по умолчанию в терминале",
            fixed("json or pretty", "json или pretty");
        RUST_LOG = Is("info"),
            "what is logged",
            "что попадает в лог",
            same("info,tripwire_sync=debug");
    }
}

/// Of features that this version does not have.
pub(super) const OAUTH: [&str; 4] = [
    "AMOCRM_CLIENT_ID",
    "AMOCRM_CLIENT_SECRET",
    "AMOCRM_REDIRECT_URI",
    "AMOCRM_REFRESH_TOKEN",
];

pub(super) fn example(name: &str) -> Option<Wording> {
    let mut settings = GROUPS.iter().flat_map(|group| group.settings);
    let ours = settings.find(|setting| setting.name == name)?;
    Some(ours.example.clone())
}

/// All settings with their defaults, for a terminal.
#[must_use]
pub fn help(lang: Lang) -> String {
    let mut text = lang
        .pick(
            "Settings, from the environment or a file `.env` in the working folder:\n",
            "Настройки — переменные окружения или файл `.env` в текущей папке:\n",
        )
        .to_owned();
    for group in GROUPS {
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n{}", group.title.in_lang(lang));
        for setting in group.settings {
            let default = match setting.unset {
                Needed | Off => String::new(),
                Is(value) | Long(value) => format!(" [{value}]"),
            };
            let meaning = setting.meaning.in_lang(lang);
            let _ = writeln!(text, "  {}{default}\n      {meaning}", setting.name);
        }
    }
    text
}
