//! The form of each value. An error continues a sentence that begins with the variable's name, and never quotes the value.

use std::{
    borrow::Cow, fmt::Display, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration,
};

use jiff::{
    Timestamp,
    civil::Date,
    tz::{self, TimeZone},
};
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;
use url::Url;

use crate::domain::{NoteTemplate, WebhookSecret, Wording};

pub(super) const DAY: Duration = Duration::from_hours(24);

type Form<T> = Result<T, Wording>;

fn wrong<T>(
    english: impl Into<Cow<'static, str>>,
    russian: impl Into<Cow<'static, str>>,
) -> Form<T> {
    Err(Wording::new(english, russian))
}

const PLACEHOLDER: Wording = Wording::fixed(
    "still holds the placeholder of the instructions",
    "осталось значение-образец из инструкции",
);

/// Refuses `your_access_token_here` and its kin.
fn no_placeholder(text: &str) -> Form<()> {
    let text = text.to_lowercase();
    let is_one = ["your_", "your-", "changeme", "change_me", "change-me"]
        .iter()
        .any(|mark| text.contains(mark))
        || text.ends_with("_here")
        || text.ends_with("-here")
        || (text.starts_with('<') && text.ends_with('>'))
        || text.chars().all(|c| c == 'x');
    if is_one { Err(PLACEHOLDER) } else { Ok(()) }
}

/// One of these words, in upper or lower case.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&str) -> Form<T> {
    move |text| {
        let found = words
            .iter()
            .find(|(word, _)| text.eq_ignore_ascii_case(word));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let names = names.join(", ");
            Wording::new(
                format!("is none of these: {names}"),
                format!("допустимые значения: {names}"),
            )
        })
    }
}

pub(super) fn address(text: &str) -> Form<SocketAddr> {
    text.parse().or_else(|_| {
        wrong(
            "is not an IP address with a port",
            "нужен IP-адрес с портом",
        )
    })
}

pub(super) fn number<T>(least: T, most: T) -> impl Fn(&str) -> Form<T>
where
    T: FromStr + PartialOrd + Display,
{
    move |text| match text.parse() {
        Ok(number) if (&least..=&most).contains(&&number) => Ok(number),
        _ => wrong(
            format!("is not a whole number from {least} to {most}"),
            format!("нужно целое число от {least} до {most}"),
        ),
    }
}

pub(super) fn days(least: u32) -> impl Fn(&str) -> Form<Duration> {
    move |text| Ok(DAY * number(least, 36_500)(text)?)
}

pub(super) fn truth(text: &str) -> Form<bool> {
    match text.to_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => wrong("is neither true nor false", "нужно true или false"),
    }
}

pub(super) fn duration(text: &str) -> Form<Duration> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    match humantime::parse_duration(text) {
        Ok(_) if text.contains('M') => wrong(
            "has the unit M, which means months: m is minutes",
            "единица M означает месяцы: минуты пишутся m",
        ),
        Ok(duration) if duration <= DAY * 366 => Ok(duration),
        Ok(_) => wrong("is longer than a year", "больше года"),
        Err(_) if text.bytes().all(|b| b.is_ascii_digit()) => wrong(
            "lacks its unit: s, m, h or d",
            "не хватает единицы: s, m, h или d",
        ),
        Err(_) => wrong("is not a length of time", "нужна длительность"),
    }
}

pub(super) fn positive_duration(text: &str) -> Form<Duration> {
    match duration(text)? {
        Duration::ZERO => wrong(
            "has to be longer than nothing",
            "длительность должна быть больше нуля",
        ),
        duration => Ok(duration),
    }
}

/// A name, as `Asia/Almaty`; its data is in the binary.
pub(super) fn time_zone(text: &str) -> Form<TimeZone> {
    // An unknown zone has a name too, and is no zone.
    match TimeZone::get(text) {
        Ok(zone) if !zone.is_unknown() => Ok(zone),
        _ => match nearest_zone(text) {
            Some(name) => wrong(
                format!("is not the name of a time zone: was {name} meant?"),
                format!("такого часового пояса нет: имелся в виду {name}?"),
            ),
            None => wrong(
                "is not the name of a time zone, as in the IANA list",
                "нужно имя часового пояса из списка IANA",
            ),
        },
    }
}

/// By the whole name, or by the city alone.
fn nearest_zone(text: &str) -> Option<String> {
    let text = text.to_lowercase().replace(' ', "_");
    let slips = (text.len() / 4).min(2);
    let distance = |name: &str| {
        let name = name.to_lowercase();
        let city = name.rsplit('/').next().unwrap_or_default();
        let whole = strsim::damerau_levenshtein(&text, &name);
        whole.min(strsim::damerau_levenshtein(&text, city))
    };
    tz::db()
        .available()
        .map(|name| (distance(name.as_str()), name.to_string()))
        .filter(|(distance, _)| *distance <= slips)
        .min()
        .map(|(_, name)| name)
}

/// A date is its midnight in UTC.
pub(super) fn time(text: &str) -> Form<Timestamp> {
    if text.len() == "2026-12-01".len() {
        let date: Date = text.parse().or_else(|_| not_a_time())?;
        let midnight = date.to_zoned(TimeZone::UTC).or_else(|_| not_a_time())?;
        return Ok(midnight.timestamp());
    }
    text.parse().or_else(|_| not_a_time())
}

fn not_a_time<T>() -> Form<T> {
    wrong(
        "is neither a date nor a time with its offset",
        "нужна дата или время со смещением от UTC",
    )
}

pub(super) fn webhook_secrets(text: &str) -> Form<Vec<WebhookSecret>> {
    no_placeholder(text)?;
    let texts: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|text| !text.is_empty())
        .collect();
    if texts.is_empty() {
        return wrong("holds no secret", "нет ни одного секрета");
    }
    let mut secrets = Vec::new();
    for (position, secret) in texts.iter().enumerate() {
        match WebhookSecret::parse(secret) {
            Ok(secret) => secrets.push(secret),
            Err(error) if texts.len() == 1 => {
                let in_russian = error.in_russian();
                return wrong(
                    format!("is no secret: {error}"),
                    format!("это не секрет: {in_russian}"),
                );
            }
            Err(error) => {
                let (position, count) = (position + 1, texts.len());
                let in_russian = error.in_russian();
                return wrong(
                    format!("no. {position} of {count} is no secret: {error}"),
                    format!("значение {position} из {count} — не секрет: {in_russian}"),
                );
            }
        }
    }
    Ok(secrets)
}

/// Anything that can travel in a header.
pub(super) fn secret(text: &str) -> Form<SecretString> {
    no_placeholder(text)?;
    if text.to_lowercase().starts_with("bearer ") {
        return wrong(
            "begins with the word Bearer: only what follows is wanted",
            "начинается со слова Bearer: нужно только то, что после него",
        );
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong(
            "holds a space or a letter that no token has",
            "есть пробел или символ, которого в токене не бывает",
        );
    }
    Ok(text.into())
}

/// The number of guesses is not limited, so only the length of the token protects it: 24 random letters cannot be guessed.
pub(super) fn bearer_token(text: &str) -> Form<SecretString> {
    token(text, 24)
}

/// Wrong tries are slowed down.
pub(super) fn page_token(text: &str) -> Form<SecretString> {
    token(text, 16)
}

fn token(text: &str, shortest: usize) -> Form<SecretString> {
    let secret = secret(text)?;
    if text.len() < shortest {
        return wrong(
            format!("is shorter than {shortest} characters: it could be guessed"),
            format!("короче {shortest} символов: такое значение можно подобрать"),
        );
    }
    Ok(secret)
}

/// An address whose path or query only the owner knows.
pub(super) fn secret_url(text: &str) -> Form<SecretString> {
    no_placeholder(text)?;
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "https" | "http") && url.has_host() => {
            Ok(String::from(url).into())
        }
        Ok(_) => wrong(
            "does not begin with https://",
            "должно начинаться с https://",
        ),
        Err(_) => wrong("is not a URL", "нужен URL"),
    }
}

/// The engine comes round four times a minute: more often than once a minute tells nothing new.
pub(super) fn heartbeat_interval(text: &str) -> Form<Duration> {
    match duration(text)? {
        every if every < Duration::from_mins(1) => {
            wrong("is shorter than a minute", "меньше минуты")
        }
        every => Ok(every),
    }
}

pub(super) fn jwt(text: &str) -> Form<SecretString> {
    let secret = secret(text)?;
    let has_parts = text.split('.').filter(|part| !part.is_empty()).count() == 3;
    if !text.starts_with("eyJ") || !has_parts {
        return wrong(
            "is not a JWT: three parts with dots between, the first begins with eyJ",
            "нужен JWT: три части через точку, первая начинается с eyJ",
        );
    }
    Ok(secret)
}

/// A URL without a path.
pub(super) fn base_url(text: &str) -> Form<Url> {
    let url = url(text)?;
    if url.path() != "/" {
        return wrong(
            "has a path after the host: only https:// and the host are wanted",
            "после имени хоста есть путь: нужны только https:// и хост",
        );
    }
    Ok(url)
}

pub(super) fn supabase_url(text: &str) -> Form<Url> {
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        return of_the_database();
    }
    let url = url(text)?;
    let host = url.host_str().unwrap_or_default();
    if host.ends_with(".pooler.supabase.com")
        || (host.starts_with("db.") && host.ends_with(".supabase.co"))
    {
        return of_the_database();
    }
    if url.host_str() == Some("supabase.com") {
        return wrong(
            "is the dashboard's address: the project's own ends with .supabase.co",
            "это адрес панели: адрес проекта оканчивается на .supabase.co",
        );
    }
    if url.path().contains("/rest/v1") {
        return wrong(
            "ends with /rest/v1: the service adds this itself",
            "оканчивается на /rest/v1: это сервис добавляет сам",
        );
    }
    Ok(url)
}

fn of_the_database<T>() -> Form<T> {
    wrong(
        "is the address of the database: wanted is the project's, which begins with https://",
        "это адрес базы данных: нужен адрес проекта, он начинается с https://",
    )
}

fn url(text: &str) -> Form<Url> {
    no_placeholder(text)?;
    let Ok(url) = Url::parse(text) else {
        return wrong("is not a URL", "нужен URL");
    };
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
        return wrong(
            "does not begin with https://",
            "должно начинаться с https://",
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("holds a user name or password", "в адресе имя или пароль");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong("has a ? or # part", "в адресе есть часть после ? или #");
    }
    Ok(url)
}

/// `school` of `https://school.amocrm.ru`
pub(super) fn amocrm_subdomain(text: &str) -> Form<Url> {
    no_placeholder(text)?;
    if text.contains(['.', '/', ':']) {
        return wrong(
            "is more than the first word of the account's address (else set AMOCRM_BASE_URL)",
            "нужна только первая часть адреса аккаунта (иначе задайте AMOCRM_BASE_URL)",
        );
    }
    let is_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if !text.bytes().all(is_label) || text.len() > 63 {
        return wrong(
            "is not the first word of an address: letters, digits and hyphens",
            "нужна первая часть адреса: латинские буквы, цифры и дефисы",
        );
    }
    base_url(&format!("https://{text}.amocrm.ru"))
}

pub(super) fn amocrm_id(text: &str) -> Form<i64> {
    // The numbers of the instructions that came with the dashboard.
    if matches!(text, "123456" | "789012") {
        return Err(PLACEHOLDER);
    }
    no_placeholder(text)?;
    match text.parse() {
        Ok(id) if id > 0 => Ok(id),
        _ => wrong(
            "is not an id: a positive whole number",
            "нужен номер: целое число больше нуля",
        ),
    }
}

pub(super) fn sqlite_path(text: &str) -> Form<PathBuf> {
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        return wrong(
            "is a Postgres database, which this version does not support",
            "это база Postgres, которую эта версия не поддерживает",
        );
    }
    let Some(path) = text.strip_prefix("sqlite:") else {
        return wrong("does not begin with sqlite:", "должно начинаться с sqlite:");
    };
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.contains(":memory:") {
        return wrong(
            "is in memory: what was accepted would be lost",
            "это база в памяти: принятое потерялось бы",
        );
    }
    if path.contains(['?', '#']) {
        return wrong(
            "has a ? or # part, which is not understood here",
            "есть часть после ? или #, здесь она не нужна",
        );
    }
    if path.is_empty() || path.ends_with('/') {
        return wrong("names no file", "не указан файл");
    }
    Ok(path.into())
}

pub(super) fn telegram_token(text: &str) -> Form<SecretString> {
    let secret = secret(text)?;
    match text.split_once(':') {
        Some((bot, key))
            if !bot.is_empty() && !key.is_empty() && bot.bytes().all(|b| b.is_ascii_digit()) =>
        {
            Ok(secret)
        }
        _ => wrong(
            "is not a bot's token: a number, a colon and letters",
            "нужен токен бота: число, двоеточие и буквы",
        ),
    }
}

pub(super) fn chat_id(text: &str) -> Form<String> {
    let is_channel = text.strip_prefix('@').is_some_and(|name| !name.is_empty());
    if is_channel || text.parse::<i64>().is_ok() {
        return Ok(text.to_owned());
    }
    wrong(
        "is neither a number nor the @name of a channel",
        "нужно число или @имя канала",
    )
}

/// In a file of settings a new line is written `\n`.
pub(super) fn note_template(text: &str) -> Form<NoteTemplate> {
    NoteTemplate::parse(&text.replace("\\n", "\n")).map_err(|unknown| {
        let in_russian = unknown.in_russian();
        Wording::new(unknown.to_string(), in_russian)
    })
}

pub(super) fn log_filter(text: &str) -> Form<String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => wrong("is not a log filter", "нужен фильтр лога"),
    }
}
