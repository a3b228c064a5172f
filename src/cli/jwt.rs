//! `jwt`: makes the token that gives the service the role `tripwire_sync`, and no other.
//!
//! The operator's machine signs the token: the service has no setting for a key that can sign tokens.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::Args;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use self::key::SigningKey;
use super::{CommandError, Outcome, clock, terminal::Terminal};

mod key;

/// The role of our migration.
pub(super) const ROLE: &str = "tripwire_sync";
/// `PostgREST` refuses a token issued in its future, and the operator's clock may be fast.
const ISSUED_BEFORE: Duration = Duration::from_mins(5);
/// Ten years, as long as Supabase's own legacy keys.
const LONGEST: Duration = Duration::from_hours(24 * 3_653);
/// No key is longer; an endless pipe would be.
const LONGEST_KEY: u64 = 64 << 10;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// File with the project's legacy JWT secret, or with a private ES256 key (JWK, or PKCS#8 in PEM).
    /// Without it the key is read from a pipe, or asked for. Never an argument: those are seen by others and remembered
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,
    /// How long the token is good for. Shorter limits what a stolen one is worth; the day before it ends a person has to
    /// make another, or nothing is synced. `check` warns 30 days ahead
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = lifetime)]
    expires_in: Duration,
    /// The key's id in the dashboard, when the key itself does not tell (PEM)
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time < Duration::from_mins(1) => Err("is shorter than a minute".to_owned()),
        Ok(time) if time > LONGEST => Err("is longer than ten years".to_owned()),
        Ok(time) => Ok(time),
        Err(_) => Err("is not a length of time, like 365d or 12h".to_owned()),
    }
}

pub(super) fn run(options: &Options, terminal: &mut Terminal) -> Outcome {
    let key = match &options.key_file {
        Some(path) => from_file(path)?,
        None if io::stdin().is_terminal() => from_person(terminal)?,
        None => from(io::stdin())?,
    };
    let key = match SigningKey::parse(key.expose_secret(), options.kid.as_deref()) {
        Ok(key) => key,
        Err(error) => {
            terminal.complain(&terminal.pick(error.to_string(), error.in_russian()));
            return Err(CommandError::Misused);
        }
    };
    let now = clock().now();
    let Ok(expires_at) = now.checked_add(options.expires_in) else {
        return Err(CommandError::Misused);
    };
    let token = mint(&key, now, expires_at)?;

    terminal.say(&token)?;
    for line in about(&key, expires_at, terminal) {
        terminal.complain(&line);
    }
    Ok(())
}

fn about(key: &SigningKey, expires_at: Timestamp, terminal: &Terminal) -> Vec<String> {
    let none = terminal.pick("none", "нет");
    let kid = key.kid().unwrap_or(none);
    let algorithm = key.algorithm();
    let until = terminal.reader().time(expires_at);
    let head = terminal.pick(
        format!("role {ROLE}, {algorithm}, kid {kid}, good until {until}"),
        format!("роль {ROLE}, {algorithm}, kid {kid}, действует до {until}"),
    );
    let todo = terminal.pick(
        "Give it to the service as SUPABASE_JWT. SUPABASE_KEY may then be the publishable key (sb_publishable_…).",
        "Передайте его сервису как SUPABASE_JWT. SUPABASE_KEY тогда может быть публичным ключом (sb_publishable_…).",
    );
    vec![head, todo.to_owned()]
}

/// Header, claims and signature.
fn mint(
    key: &SigningKey,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<String, key::SigningFailed> {
    let mut header = BTreeMap::from([("alg", json!(key.algorithm())), ("typ", "JWT".into())]);
    if let Some(kid) = key.kid() {
        header.insert("kid", kid.into());
    }
    let issued_at = now.checked_sub(ISSUED_BEFORE).unwrap_or(now);
    let claims = BTreeMap::from([
        ("role", json!(ROLE)),
        ("iss", "tripwire-sync".into()),
        ("iat", issued_at.as_second().into()),
        ("exp", expires_at.as_second().into()),
    ]);
    let part = |part: &BTreeMap<_, _>| BASE64_URL_SAFE_NO_PAD.encode(json!(part).to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = key.sign(signed.as_bytes())?;
    Ok(format!(
        "{signed}.{}",
        BASE64_URL_SAFE_NO_PAD.encode(signature)
    ))
}

fn from_file(path: &Path) -> io::Result<SecretString> {
    let file = std::fs::File::open(path).and_then(from);
    file.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn from(reader: impl Read) -> io::Result<SecretString> {
    let mut text = String::new();
    reader.take(LONGEST_KEY).read_to_string(&mut text)?;
    Ok(text.into())
}

/// Not shown while it is pasted. A JWK may be printed over several lines.
fn from_person(terminal: &mut Terminal) -> io::Result<SecretString> {
    terminal.complain(terminal.pick(
        "Paste the project's JWT secret, or a private key as JWK, and press Enter (it is not shown):",
        "Вставьте JWT-секрет проекта или закрытый ключ (JWK) и нажмите Enter (на экране его не будет):",
    ));
    let mut text = String::new();
    loop {
        let line = rpassword::read_password()?;
        text.push_str(&line);
        if line.is_empty() || key::is_whole(&text) {
            return Ok(text.into());
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests;
