//! Every variable that means something to us, with an example to show to a person.

macro_rules! variables {
    ($($name:ident = $example:literal,)*) => {
        $(pub(super) const $name: &str = stringify!($name);)*

        /// All names.
        pub(super) const NAMES: &[&str] = &[
            $($name,)*
            #[cfg(feature = "sandbox")]
            TRIPWIRE_TIME_SCALE,
            #[cfg(feature = "sandbox")]
            TRIPWIRE_DIE_AT,
            #[cfg(feature = "sandbox")]
            TRIPWIRE_HANG_AT,
        ];

        pub(super) fn example(name: &str) -> &'static str {
            match name {
                $($name => $example,)*
                #[cfg(feature = "sandbox")]
                TRIPWIRE_TIME_SCALE => "0.1",
                #[cfg(feature = "sandbox")]
                TRIPWIRE_DIE_AT => "before:3 or after:3",
                #[cfg(feature = "sandbox")]
                TRIPWIRE_HANG_AT => "writer or engine",
                _ => "",
            }
        }
    };
}

variables! {
    BIND_ADDR = "0.0.0.0:8080",
    METRICS_ADDR = "127.0.0.1:9464",
    PORT = "8080",
    WEBHOOK_SECRET = "whsec_<base64>, made by `tripwire-sync secret`",
    WEBHOOK_TOLERANCE = "5m",
    WEBHOOK_BEARER_TOKEN = "a random text of 24 characters or more, without spaces",
    SUPABASE_URL = "https://abcdefghijklmnopqrst.supabase.co",
    SUPABASE_KEY = "sb_publishable_… with SUPABASE_JWT, or sb_secret_…, from the dashboard: Project Settings, API Keys",
    SUPABASE_JWT = "eyJ….eyJ….…, made by `tripwire-sync jwt`",
    SYNC_SINCE = "2026-12-01 or 2026-12-01T09:00:00+05:00",
    SETTLE_DELAY = "5s",
    RECONCILE_INTERVAL = "5m, or 0 for no sweeps",
    AMOCRM_ENABLED = "true or false",
    AMOCRM_SUBDOMAIN = "school, if you work at https://school.amocrm.ru",
    AMOCRM_BASE_URL = "https://school.amocrm.ru",
    AMOCRM_ACCESS_TOKEN = "eyJ…, the long-lived token of your integration",
    AMOCRM_CLIENT_ID = "",
    AMOCRM_CLIENT_SECRET = "",
    AMOCRM_REDIRECT_URI = "",
    AMOCRM_REFRESH_TOKEN = "",
    AMOCRM_TRIPWIRE_PIPELINE_ID = "7412398, listed by `tripwire-sync pipelines`",
    AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID = "61830474, listed by `tripwire-sync pipelines`",
    AMOCRM_MISSING_CONTACT = "wait or create",
    AMOCRM_REUSE_CLOSED_DAYS = "90",
    AMOCRM_REQUESTS_PER_SECOND = "6",
    AMOCRM_BATCH_SIZE = "50",
    AMOCRM_CONTACT_SCAN = "true or false",
    NOTE_TEMPLATE = "'Доступ предоставлен: {full_name}\\nЛогин: {email}'",
    DATABASE_URL = "sqlite://data/inbox.db or sqlite:///data/inbox.db",
    RETENTION_DAYS = "90",
    ADMIN_TOKEN = "a long random text without spaces",
    TELEGRAM_BOT_TOKEN = "123456789:AA…, from @BotFather",
    TELEGRAM_CHAT_ID = "-1001234567890 or @channel",
    TELEGRAM_BASE_URL = "https://api.telegram.org",
    LOG_FORMAT = "json or pretty",
    RUST_LOG = "info,tripwire_sync=debug",
}

#[cfg(feature = "sandbox")]
pub(super) const TRIPWIRE_TIME_SCALE: &str = "TRIPWIRE_TIME_SCALE";
#[cfg(feature = "sandbox")]
pub(super) const TRIPWIRE_DIE_AT: &str = "TRIPWIRE_DIE_AT";
#[cfg(feature = "sandbox")]
pub(super) const TRIPWIRE_HANG_AT: &str = "TRIPWIRE_HANG_AT";

/// Checked for form, and read by nobody yet.
pub(super) const UNUSED: [&str; 1] = [ADMIN_TOKEN];

/// Understood, and not supported yet.
pub(super) const OAUTH: [&str; 4] = [
    AMOCRM_CLIENT_ID,
    AMOCRM_CLIENT_SECRET,
    AMOCRM_REDIRECT_URI,
    AMOCRM_REFRESH_TOKEN,
];
