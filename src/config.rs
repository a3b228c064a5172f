//! Settings: read from the environment (and an `.env` file) once, checked whole, and typed from there on.
//!
//! Nothing else reads the environment. Problems name variables, never values: some are secret, and a person who
//! mistook one variable for another has put a secret where none belongs.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use secrecy::SecretString;
use url::Url;

use self::reader::{Absent, Reader};
pub use self::{
    env_file::{EnvFile, settings_with_meanings},
    reader::{ConfigErrors, Problem},
    variable::{GROUPS, Group, Setting, Unset, help},
};
use crate::{
    domain::{
        DigestEvery, MissingContact, NoteTemplate, PipelineId, StageId, TelegramBot, TestHooks,
        WebhookSecret, Wording,
    },
    telemetry::LogFormat,
};

mod env_file;
mod environment;
mod hooks;
mod parse;
mod reader;
mod suggest;
mod variable;

#[cfg(test)]
mod tests;

#[derive(Debug, Clone)]
pub struct Config {
    pub bind_addr: SocketAddr,
    pub metrics_addr: SocketAddr,
    pub webhook: WebhookAuth,
    pub supabase: SupabaseConfig,
    /// The time of going live.
    pub sync_since: Timestamp,
    pub settle_delay: Duration,
    /// `None`: no sweeps.
    pub reconcile_interval: Option<Duration>,
    /// `None`: events are stored, and nothing is sent.
    pub amocrm: Option<AmocrmConfig>,
    pub note_template: NoteTemplate,
    pub inbox_path: PathBuf,
    pub retention: Duration,
    /// `None`: no alerts.
    pub telegram: Option<TelegramBot>,
    /// `None`: no digests.
    pub digest: Option<DigestEvery>,
    /// Whether the database sends a test event once a day.
    pub self_test: bool,
    /// `None`: no outside watcher.
    pub heartbeat: Option<HeartbeatConfig>,
    /// Of the times that people read.
    pub zone: TimeZone,
    pub log: LogConfig,
    /// `None`: no operator page.
    pub admin: Option<AdminConfig>,
    pub hooks: TestHooks,
    /// Settings that look wrong but do not prevent a start. Names only, no values.
    pub warnings: Vec<Wording>,
}

/// What proves a delivery genuine. There is a secret or a bearer token, or both.
#[derive(Debug, Clone)]
pub struct WebhookAuth {
    pub secrets: Vec<WebhookSecret>,
    pub bearer: Option<SecretString>,
    pub tolerance: Duration,
}

/// The tokens of the operator page.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    pub admin_token: SecretString,
    /// Shows the page without its buttons.
    pub viewer_token: Option<SecretString>,
}

/// The outside watcher.
#[derive(Debug, Clone)]
pub struct HeartbeatConfig {
    pub url: SecretString,
    pub every: Duration,
}

#[derive(Debug, Clone)]
pub struct SupabaseConfig {
    /// The project's URL, without `/rest/v1`.
    pub url: Url,
    pub key: SecretString,
    pub jwt: Option<SecretString>,
}

#[derive(Debug, Clone)]
pub struct AmocrmConfig {
    pub base_url: Url,
    pub token: SecretString,
    pub pipeline: PipelineId,
    pub stage: StageId,
    pub missing_contact: MissingContact,
    /// How long before the row's creation a deal may have been closed and still be the same purchase.
    pub reuse_closed: Duration,
    /// 1 to 7.
    pub requests_per_second: u32,
    /// 1 to 250.
    pub batch_size: usize,
    /// Whether an index of the account's contacts may be kept.
    pub contact_scan: bool,
}

/// What is enough to ask amoCRM something: for commands that help to find the other settings.
#[derive(Debug, Clone)]
pub struct AmocrmAccess {
    pub base_url: Url,
    pub token: SecretString,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    pub format: LogFormat,
    pub filter: String,
}

impl Config {
    /// Everything that the service needs. `is_terminal`: whether a person is reading the log.
    pub fn load(is_terminal: bool) -> Result<Self, ConfigErrors> {
        let mut config = Self::from_vars(&environment::variables()?, is_terminal)?;
        config.warnings.extend(environment::exposed());
        Ok(config)
    }

    /// Only where the inbox is: for commands that need nothing else but the zone of the times that they print.
    pub fn load_inbox_path() -> Result<PathBuf, ConfigErrors> {
        Self::inbox_path_from_vars(&environment::variables()?)
    }

    /// Only how to reach amoCRM, whether or not sending is on.
    pub fn load_amocrm() -> Result<AmocrmAccess, ConfigErrors> {
        Self::amocrm_from_vars(&environment::variables()?)
    }

    /// Only how to reach Supabase.
    pub fn load_supabase() -> Result<SupabaseConfig, ConfigErrors> {
        Self::supabase_from_vars(&environment::variables()?)
    }

    /// Only the secrets that sign deliveries; there need not be any yet.
    pub fn load_webhook_secrets() -> Result<Vec<WebhookSecret>, ConfigErrors> {
        Self::webhook_secrets_from_vars(&environment::variables()?)
    }

    /// What is wrong with the form of one value, as far as that can be told without the others.
    #[must_use]
    pub fn wrong_form(name: &str, value: &str) -> Option<Problem> {
        let alone = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let problems = Self::from_vars(&alone, false).err()?.problems;
        problems
            .into_iter()
            .find(|problem| problem.variable == name && !problem.is_missing)
    }

    /// Reports every problem of form at once.
    pub fn from_vars(
        vars: &BTreeMap<String, String>,
        is_terminal: bool,
    ) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(vars);
        let config = read(&mut reader, is_terminal);
        suggest::point_out(&mut reader);
        let warnings = std::mem::take(&mut reader.warnings);
        let config = reader.finish(config)?;
        Ok(Self { warnings, ..config })
    }

    pub fn inbox_path_from_vars(vars: &BTreeMap<String, String>) -> Result<PathBuf, ConfigErrors> {
        part(vars, |reader| {
            let (path, zone) = (inbox_path(reader), zone(reader));
            zone.and(path)
        })
    }

    pub fn webhook_secrets_from_vars(
        vars: &BTreeMap<String, String>,
    ) -> Result<Vec<WebhookSecret>, ConfigErrors> {
        part(vars, |reader| {
            reader.or(variable::WEBHOOK_SECRET, parse::webhook_secrets, Vec::new())
        })
    }

    pub fn supabase_from_vars(
        vars: &BTreeMap<String, String>,
    ) -> Result<SupabaseConfig, ConfigErrors> {
        part(vars, supabase)
    }

    /// `None`: no alerts.
    pub fn telegram_from_vars(
        vars: &BTreeMap<String, String>,
    ) -> Result<Option<TelegramBot>, ConfigErrors> {
        let mut reader = Reader::new(vars);
        let telegram = telegram(&mut reader);
        reader.finish(telegram)
    }

    pub fn amocrm_from_vars(vars: &BTreeMap<String, String>) -> Result<AmocrmAccess, ConfigErrors> {
        part(vars, |reader| {
            let base_url = amocrm_base_url(reader, true);
            let token = amocrm_token(reader, true);
            let (base_url, token) = (base_url?, token?);
            Ok(AmocrmAccess { base_url, token })
        })
    }
}

/// Reads some of the settings, and points out the names that look like one of these.
fn part<T>(
    vars: &BTreeMap<String, String>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Absent>,
) -> Result<T, ConfigErrors> {
    let mut reader = Reader::new(vars);
    let value = read(&mut reader);
    suggest::point_out(&mut reader);
    reader.finish(value)
}

/// The language that the person at the terminal has chosen.
#[must_use]
pub fn locale() -> Option<String> {
    environment::first_of(&["LC_ALL", "LC_MESSAGES", "LANG"])
}

/// The zone of the person at the terminal. A wrong one counts as not set here: each function that loads settings for a command
/// which prints times reports it.
#[must_use]
pub fn time_zone() -> TimeZone {
    let vars = environment::variables().unwrap_or_default();
    zone(&mut Reader::new(&vars)).unwrap_or_else(|Absent| machine_zone())
}

/// Where people see the account, if the settings say it.
#[must_use]
pub fn amocrm_url() -> Option<Url> {
    let vars = environment::variables().ok()?;
    amocrm_base_url(&mut Reader::new(&vars), false).ok()
}

/// By `TZ`, else `/etc/localtime`, else UTC.
#[must_use]
pub fn machine_zone() -> TimeZone {
    let zone = TimeZone::system();
    if zone.is_unknown() {
        TimeZone::UTC
    } else {
        zone
    }
}

fn zone(reader: &mut Reader<'_>) -> Result<TimeZone, Absent> {
    let zone = reader.optional(variable::TIME_ZONE, parse::time_zone)?;
    Ok(zone.unwrap_or_else(machine_zone))
}

/// Every part is read before the first `?`, so that nothing stops at the first problem.
fn read(reader: &mut Reader<'_>, is_terminal: bool) -> Result<Config, Absent> {
    use DigestEvery::{Day, Week};
    use variable::{
        DIGEST, METRICS_ADDR, NOTE_TEMPLATE, RECONCILE_INTERVAL, RETENTION_DAYS, SELF_TEST,
        SETTLE_DELAY, SYNC_SINCE,
    };

    let bind_addr = bind_addr(reader);
    let metrics_addr = reader.or(METRICS_ADDR, parse::address, ([127, 0, 0, 1], 9464).into());
    let webhook = webhook(reader);
    let supabase = supabase(reader);
    let sync_since = reader.required(SYNC_SINCE, parse::time);
    let settle_delay = reader.or(SETTLE_DELAY, parse::duration, Duration::from_secs(5));
    let reconcile_interval = reader.or(RECONCILE_INTERVAL, parse::duration, Duration::from_mins(5));
    let amocrm = amocrm(reader);
    let note_template = reader.or(NOTE_TEMPLATE, parse::note_template, NoteTemplate::default());
    let inbox_path = inbox_path(reader);
    let retention = reader.or(RETENTION_DAYS, parse::days(1), parse::DAY * 90);
    let telegram = telegram(reader);
    let digests = [("weekly", Some(Week)), ("daily", Some(Day)), ("off", None)];
    let digest = reader.or(DIGEST, parse::one_of(&digests), Some(Week));
    let is_daily = parse::one_of(&[("daily", true), ("off", false)]);
    let self_test = reader.or(SELF_TEST, is_daily, true);
    let heartbeat = heartbeat(reader);
    let zone = zone(reader);
    let log = log(reader, is_terminal);
    let admin = admin(reader);
    let hooks = hooks::read(reader);

    Ok(Config {
        bind_addr: bind_addr?,
        metrics_addr: metrics_addr?,
        webhook: webhook?,
        supabase: supabase?,
        sync_since: sync_since?,
        settle_delay: settle_delay?,
        reconcile_interval: Some(reconcile_interval?).filter(|interval| !interval.is_zero()),
        amocrm: amocrm?,
        note_template: note_template?,
        inbox_path: inbox_path?,
        retention: retention?,
        telegram: telegram?,
        digest: digest?,
        self_test: self_test?,
        heartbeat: heartbeat?,
        zone: zone?,
        log: log?,
        admin: admin?,
        hooks: hooks?,
        warnings: Vec::new(),
    })
}

fn bind_addr(reader: &mut Reader<'_>) -> Result<SocketAddr, Absent> {
    use variable::{BIND_ADDR, PORT};

    let addr = reader.optional(BIND_ADDR, parse::address);
    let port = reader.optional(PORT, parse::number::<u16>(0, u16::MAX));
    let (addr, port) = (addr?, port?);
    if let (Some(addr), Some(port)) = (addr, port)
        && addr.port() != port
    {
        reader.warn(Wording::fixed(
            "PORT and BIND_ADDR name different ports: PORT is used",
            "в PORT и BIND_ADDR разные порты: используется PORT",
        ));
    }
    let mut bind_addr = addr.unwrap_or_else(|| ([0, 0, 0, 0], 8080).into());
    if let Some(port) = port {
        bind_addr.set_port(port);
    }
    Ok(bind_addr)
}

fn webhook(reader: &mut Reader<'_>) -> Result<WebhookAuth, Absent> {
    use variable::{WEBHOOK_BEARER_TOKEN, WEBHOOK_SECRET, WEBHOOK_TOLERANCE};

    let secrets = reader.optional(WEBHOOK_SECRET, parse::webhook_secrets);
    let bearer = reader.optional(WEBHOOK_BEARER_TOKEN, parse::bearer_token);
    let tolerance = reader.or(
        WEBHOOK_TOLERANCE,
        parse::positive_duration,
        Duration::from_mins(5),
    );
    if let (Ok(None), Ok(None)) = (&secrets, &bearer) {
        reader.missing(
            WEBHOOK_SECRET,
            Wording::fixed(
                "is not set, and neither is WEBHOOK_BEARER_TOKEN: no delivery could be accepted",
                "не задана, как и WEBHOOK_BEARER_TOKEN: сервис не смог бы принять ни одного вебхука",
            ),
        );
        return Err(Absent);
    }
    Ok(WebhookAuth {
        secrets: secrets?.unwrap_or_default(),
        bearer: bearer?,
        tolerance: tolerance?,
    })
}

fn supabase(reader: &mut Reader<'_>) -> Result<SupabaseConfig, Absent> {
    use variable::{SUPABASE_JWT, SUPABASE_KEY, SUPABASE_URL};

    let url = reader.required(SUPABASE_URL, parse::supabase_url);
    let key = reader.required(SUPABASE_KEY, parse::secret);
    let jwt = reader.optional(SUPABASE_JWT, parse::jwt);
    if let Ok(url) = &url {
        warn_of_clear_text(reader, SUPABASE_URL, url);
    }
    let is_publishable = reader
        .text(SUPABASE_KEY)
        .is_some_and(|key| key.starts_with("sb_publishable_"));
    if is_publishable && reader.text(SUPABASE_JWT).is_none() {
        reader.warn(Wording::fixed(
            "SUPABASE_KEY is a publishable key and SUPABASE_JWT is not set: it can hardly read the table",
            "SUPABASE_KEY — публичный ключ, а SUPABASE_JWT не задана: прочитать таблицу, скорее всего, не удастся",
        ));
    }
    Ok(SupabaseConfig {
        url: url?,
        key: key?,
        jwt: jwt?,
    })
}

fn amocrm(reader: &mut Reader<'_>) -> Result<Option<AmocrmConfig>, Absent> {
    use MissingContact::{Create, Wait};
    use variable::{
        AMOCRM_BATCH_SIZE, AMOCRM_CONTACT_SCAN, AMOCRM_ENABLED, AMOCRM_MISSING_CONTACT,
        AMOCRM_REQUESTS_PER_SECOND, AMOCRM_REUSE_CLOSED_DAYS, AMOCRM_TRIPWIRE_PIPELINE_ID,
        AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID,
    };

    let is_enabled = reader.or(AMOCRM_ENABLED, parse::truth, true);
    // Settings are checked even while `AMOCRM_ENABLED=false`, so that a wrong one is found before sending is switched on.
    let is_needed = is_enabled.unwrap_or(true);
    let base_url = amocrm_base_url(reader, is_needed);
    let token = amocrm_token(reader, is_needed);
    let pipeline = reader.needed(AMOCRM_TRIPWIRE_PIPELINE_ID, parse::amocrm_id, is_needed);
    let stage = reader.needed(AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID, parse::amocrm_id, is_needed);
    let missing_contact = parse::one_of(&[("wait", Wait), ("create", Create)]);
    let missing_contact = reader.or(AMOCRM_MISSING_CONTACT, missing_contact, Wait);
    let reuse_closed = reader.or(AMOCRM_REUSE_CLOSED_DAYS, parse::days(0), parse::DAY * 90);
    let requests_per_second = reader.or(AMOCRM_REQUESTS_PER_SECOND, parse::number(1, 7), 6);
    let batch_size = reader.or(AMOCRM_BATCH_SIZE, parse::number(1, 250), 50);
    let contact_scan = reader.or(AMOCRM_CONTACT_SCAN, parse::truth, true);

    if !is_enabled? {
        return Ok(None);
    }
    Ok(Some(AmocrmConfig {
        base_url: base_url?,
        token: token?,
        pipeline: PipelineId::new(pipeline?),
        stage: StageId::new(stage?),
        missing_contact: missing_contact?,
        reuse_closed: reuse_closed?,
        requests_per_second: requests_per_second?,
        batch_size: batch_size?,
        contact_scan: contact_scan?,
    }))
}

fn amocrm_base_url(reader: &mut Reader<'_>, is_needed: bool) -> Result<Url, Absent> {
    use variable::{AMOCRM_BASE_URL, AMOCRM_SUBDOMAIN};

    let base_url = reader.optional(AMOCRM_BASE_URL, parse::base_url);
    let is_needed = is_needed && reader.text(AMOCRM_BASE_URL).is_none();
    let account = reader.needed(AMOCRM_SUBDOMAIN, parse::amocrm_subdomain, is_needed);
    let Some(base_url) = base_url? else {
        return account;
    };
    warn_of_clear_text(reader, AMOCRM_BASE_URL, &base_url);
    Ok(base_url)
}

fn amocrm_token(reader: &mut Reader<'_>, is_needed: bool) -> Result<SecretString, Absent> {
    use variable::{AMOCRM_ACCESS_TOKEN, OAUTH};

    let has_oauth = OAUTH.iter().any(|name| reader.text(name).is_some());
    if has_oauth && is_needed && reader.text(AMOCRM_ACCESS_TOKEN).is_none() {
        reader.missing(
            AMOCRM_ACCESS_TOKEN,
            Wording::fixed(
                "is not set, and OAuth (AMOCRM_CLIENT_ID and the like) is not supported by this version: \
                 make a long-lived token in the integration's settings",
                "не задана, а OAuth (AMOCRM_CLIENT_ID и подобные) эта версия не поддерживает: \
                 создайте долгосрочный токен в настройках интеграции",
            ),
        );
        return Err(Absent);
    }
    if has_oauth {
        reader.warn(Wording::fixed(
            "OAuth is not supported by this version: AMOCRM_CLIENT_ID and the like are not used",
            "OAuth эта версия не поддерживает: AMOCRM_CLIENT_ID и подобные не используются",
        ));
    }
    reader.needed(AMOCRM_ACCESS_TOKEN, parse::secret, is_needed)
}

fn inbox_path(reader: &mut Reader<'_>) -> Result<PathBuf, Absent> {
    reader.or(
        variable::DATABASE_URL,
        parse::sqlite_path,
        PathBuf::from("data/inbox.db"),
    )
}

fn telegram(reader: &mut Reader<'_>) -> Result<Option<TelegramBot>, Absent> {
    use variable::{TELEGRAM_BASE_URL, TELEGRAM_BOT_TOKEN, TELEGRAM_CHAT_ID};

    let token = reader.optional(TELEGRAM_BOT_TOKEN, parse::telegram_token);
    let chat_id = reader.optional(TELEGRAM_CHAT_ID, parse::chat_id);
    let base_url = reader.optional(TELEGRAM_BASE_URL, parse::base_url);
    match (
        reader.text(TELEGRAM_BOT_TOKEN),
        reader.text(TELEGRAM_CHAT_ID),
    ) {
        (Some(_), None) => reader.missing(
            TELEGRAM_CHAT_ID,
            Wording::fixed(
                "is not set, though TELEGRAM_BOT_TOKEN is: the bot has no chat to write to",
                "не задана, хотя TELEGRAM_BOT_TOKEN задана: боту некуда писать",
            ),
        ),
        (None, Some(_)) => reader.missing(
            TELEGRAM_BOT_TOKEN,
            Wording::fixed(
                "is not set, though TELEGRAM_CHAT_ID is: there is no bot to write",
                "не задана, хотя TELEGRAM_CHAT_ID задана: писать некому",
            ),
        ),
        (Some(_), Some(_)) | (None, None) => {}
    }
    let base_url = match base_url? {
        Some(base_url) => base_url,
        None => parse::base_url("https://api.telegram.org").map_err(|_| Absent)?,
    };
    warn_of_clear_text(reader, TELEGRAM_BASE_URL, &base_url);
    let both = token?.zip(chat_id?);
    Ok(both.map(|(token, chat_id)| TelegramBot {
        token,
        chat_id,
        base_url,
    }))
}

fn heartbeat(reader: &mut Reader<'_>) -> Result<Option<HeartbeatConfig>, Absent> {
    let url = reader.optional(variable::HEARTBEAT_URL, parse::secret_url);
    let five_minutes = Duration::from_mins(5);
    let every = reader.or(
        variable::HEARTBEAT_INTERVAL,
        parse::heartbeat_interval,
        five_minutes,
    );
    let every = every?;
    Ok(url?.map(|url| HeartbeatConfig { url, every }))
}

fn admin(reader: &mut Reader<'_>) -> Result<Option<AdminConfig>, Absent> {
    use variable::{ADMIN_TOKEN, VIEWER_TOKEN};

    let admin_token = reader.optional(ADMIN_TOKEN, parse::page_token);
    let viewer_token = reader.optional(VIEWER_TOKEN, parse::page_token);
    let (admin, viewer) = (reader.text(ADMIN_TOKEN), reader.text(VIEWER_TOKEN));
    if admin.is_none() && viewer.is_some() {
        reader.missing(
            ADMIN_TOKEN,
            Wording::fixed(
                "is not set, though VIEWER_TOKEN is: there is an operator page only with ADMIN_TOKEN",
                "не задана, хотя VIEWER_TOKEN задана: без ADMIN_TOKEN страницы оператора нет",
            ),
        );
    } else if viewer_token.as_ref().is_ok_and(Option::is_some) && admin == viewer {
        reader.note(
            VIEWER_TOKEN,
            Wording::fixed(
                "is the same as ADMIN_TOKEN: every viewer could press the buttons",
                "совпадает с ADMIN_TOKEN: кнопки были бы доступны каждому зрителю",
            ),
            false,
        );
    }
    let (admin_token, viewer_token) = (admin_token?, viewer_token?);
    Ok(admin_token.map(|admin_token| AdminConfig {
        admin_token,
        viewer_token,
    }))
}

fn log(reader: &mut Reader<'_>, is_terminal: bool) -> Result<LogConfig, Absent> {
    use LogFormat::{Json, Pretty};

    let usual = if is_terminal { Pretty } else { Json };
    let format = parse::one_of(&[("json", Json), ("pretty", Pretty)]);
    let format = reader.or(variable::LOG_FORMAT, format, usual);
    let filter = reader.or(variable::RUST_LOG, parse::log_filter, "info".to_owned());
    Ok(LogConfig {
        format: format?,
        filter: filter?,
    })
}

fn warn_of_clear_text(reader: &mut Reader<'_>, name: &str, url: &Url) {
    let is_local = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() == "http" && !is_local {
        reader.warn(Wording::new(
            format!("{name} begins with http://: keys and all that is sent travel unencrypted"),
            format!(
                "{name} начинается с http://: ключи и всё, что отправляется, идут без шифрования"
            ),
        ));
    }
}
