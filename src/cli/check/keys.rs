//! What the keys say of themselves: their kind, their role, their end.

use jiff::Timestamp;
use url::Url;

use super::findings::{Findings, Mark};
use crate::{
    cli::jwt::ROLE,
    domain::{TokenClaims, TokenEnd},
};

/// What Supabase is asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Key {
    /// `sb_secret_…`
    Secret,
    /// `sb_publishable_…`
    Publishable,
    /// A JWT: a legacy key, or something that was taken for one.
    Legacy(TokenClaims),
    /// Any other text: a self-hosted project may use its own kind of key.
    Other,
}

impl Key {
    pub(in crate::cli) fn of(text: &str) -> Self {
        if text.starts_with("sb_secret_") {
            Self::Secret
        } else if text.starts_with("sb_publishable_") {
            Self::Publishable
        } else {
            TokenClaims::read(text).map_or(Self::Other, Self::Legacy)
        }
    }
}

/// Checks key and token as far as possible without a request.
pub(in crate::cli) fn judge(
    key: &Key,
    token: Option<&TokenClaims>,
    project: &Url,
    now: Timestamp,
    findings: &mut Findings,
) {
    if let Key::Legacy(claims) = key
        && let Some(of) = &claims.project
        && is_other_project(project, of)
    {
        findings.on("key").bad(
            format!("SUPABASE_KEY belongs to the project {of}, SUPABASE_URL is another one"),
            format!("SUPABASE_KEY от проекта {of}, а SUPABASE_URL указывает на другой"),
        );
    }
    if let Some(token) = token {
        judge_token(token, now, findings);
        if let Key::Secret = key {
            findings.on("key").advise(
                "SUPABASE_KEY is a secret key, which SUPABASE_JWT does not need: a publishable key (sb_publishable_…) would do, and can do nothing alone",
                "SUPABASE_KEY — секретный ключ, хотя вместе с SUPABASE_JWT достаточно публичного (sb_publishable_…), который сам по себе не даёт прав",
            );
        }
        return;
    }
    match key {
        Key::Secret => recommend(findings),
        Key::Publishable => findings.on("key").bad(
            "SUPABASE_KEY is the publishable key, which may not read the table: set SUPABASE_JWT too (`tripwire-sync jwt`), or a secret key instead",
            "SUPABASE_KEY — публичный ключ, прочитать таблицу с ним нельзя: задайте ещё SUPABASE_JWT (`tripwire-sync jwt`) или возьмите секретный ключ",
        ),
        Key::Legacy(claims) => judge_legacy(claims, now, findings),
        Key::Other => findings.on("key").good(
            "SUPABASE_KEY is of an unknown kind: taken as it is",
            "тип ключа SUPABASE_KEY не распознан: ключ используется как есть",
        ),
    }
}

fn judge_legacy(claims: &TokenClaims, now: Timestamp, findings: &mut Findings) {
    match claims.role.as_deref() {
        Some("service_role") => {
            recommend(findings);
            findings.on("key").warn(
                "SUPABASE_KEY is a legacy key; Supabase is to switch these off (announced for the end of 2026): make a secret key in Project Settings, API Keys",
                "SUPABASE_KEY — ключ старого образца; Supabase их отключает (объявлено на конец 2026 года): создайте секретный ключ в Project Settings, API Keys",
            );
        }
        Some(ROLE) => findings.on("key").bad(
            "SUPABASE_KEY holds the token of the role tripwire_sync: put it into SUPABASE_JWT, and the publishable key here",
            "в SUPABASE_KEY токен роли tripwire_sync: его место в SUPABASE_JWT, а здесь нужен публичный ключ",
        ),
        role => findings.on("key").bad(
            format!("SUPABASE_KEY is the key of the role {0}, which may not do this work: take a secret key, or SUPABASE_JWT beside it", role.unwrap_or("-")),
            format!("SUPABASE_KEY — ключ роли {0}, прав для этой работы у неё нет: возьмите секретный ключ или добавьте SUPABASE_JWT", role.unwrap_or("-")),
        ),
    }
    judge_end(end("SUPABASE_KEY", claims), now, findings);
}

fn judge_token(token: &TokenClaims, now: Timestamp, findings: &mut Findings) {
    match token.role.as_deref() {
        Some(ROLE) => {}
        Some("service_role") => recommend(findings),
        role => {
            let role = role.unwrap_or("-");
            let mark = if matches!(role, "anon" | "authenticated" | "-") {
                Mark::Bad
            } else {
                Mark::Warning
            };
            let text = findings.reader.pick(
                format!("SUPABASE_JWT is a token of the role {role}, not of {ROLE}: make one with `tripwire-sync jwt`"),
                format!("SUPABASE_JWT — токен роли {role}, а не {ROLE}: создайте другой командой `tripwire-sync jwt`"),
            );
            findings.on("key").add(mark, text);
        }
    }
    judge_end(end("SUPABASE_JWT", token), now, findings);
}

fn recommend(findings: &mut Findings) {
    findings.on("key").advise(
        "this key may do anything in the project; recommended: the role tripwire_sync, which may only do this work (docs/supabase.md, step 4)",
        "этот ключ даёт все права в проекте; лучше роль tripwire_sync, у которой есть только нужные (docs/supabase.md, шаг 4)",
    );
}

fn end(name: &'static str, claims: &TokenClaims) -> Option<TokenEnd> {
    let expires_at = claims.expires_at?;
    Some(TokenEnd { name, expires_at })
}

/// Whether a token still lives, and for how long.
pub(super) fn judge_end(end: Option<TokenEnd>, now: Timestamp, findings: &mut Findings) {
    let Some(end) = end else {
        return;
    };
    let mut section = findings.on("token");
    let name = end.name;
    let day = section.reader.day(end.expires_at);
    let left = end.left(now);
    if left.is_zero() {
        section.bad(
            format!("{name} expired on {day}: make another and restart the service"),
            format!("срок {name} истёк {day}: создайте новый и перезапустите сервис"),
        );
        return;
    }
    let days = left.as_secs() / (24 * 3600);
    let text = section.reader.pick(
        format!("{name} is good until {day}, for {days} more days"),
        format!("{name} действует до {day}, ещё {days} дн."),
    );
    if end.is_soon(now) {
        let todo = section.reader.pick(
            "make another in time, or nothing is synced from then on",
            "создайте новый заранее, иначе после этого дня отправка остановится",
        );
        section.add(Mark::Warning, format!("{text}: {todo}"));
    } else {
        section.add(Mark::Good, text);
    }
}

/// Only hosted projects carry their name in the address.
fn is_other_project(url: &Url, project: &str) -> bool {
    url.host_str()
        .and_then(|host| host.strip_suffix(".supabase.co"))
        .is_some_and(|name| name != project)
}

#[cfg(test)]
mod tests;
