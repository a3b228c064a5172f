use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Deserialize;

/// The unverified claims of a JWT: to inform a person, never to grant rights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenClaims {
    pub role: Option<String>,
    /// The project that a legacy key of Supabase belongs to.
    pub project: Option<String>,
    pub expires_at: Option<Timestamp>,
}

/// A person has to replace a token before it ends, and may be on holiday.
const SOON: Duration = Duration::from_hours(24 * 30);

/// The end of a configured token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenEnd {
    /// Of the setting.
    pub name: &'static str,
    pub expires_at: Timestamp,
}

impl TokenEnd {
    /// `None`: not a JWT, or one without an end.
    #[must_use]
    pub fn read(name: &'static str, token: &str) -> Option<Self> {
        let expires_at = TokenClaims::read(token)?.expires_at?;
        Some(Self { name, expires_at })
    }

    /// Nothing when it has ended.
    #[must_use]
    pub fn left(self, now: Timestamp) -> Duration {
        let left = self.expires_at.duration_since(now);
        left.try_into().unwrap_or_default()
    }

    #[must_use]
    pub fn is_soon(self, now: Timestamp) -> bool {
        self.left(now) < SOON
    }
}

#[derive(Deserialize)]
struct Claims {
    role: Option<String>,
    #[serde(rename = "ref")]
    project: Option<String>,
    /// Seconds; some mint fractions.
    exp: Option<f64>,
}

impl TokenClaims {
    /// `None`: the text is no JWT.
    #[must_use]
    pub fn read(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        let claims = BASE64_URL_SAFE_NO_PAD
            .decode(claims.trim_end_matches('='))
            .ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        if parts.next().is_some() {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a float saturates")]
        let seconds = |exp: f64| exp as i64;
        Some(Self {
            role: claims.role,
            project: claims.project,
            expires_at: claims
                .exp
                .and_then(|exp| Timestamp::from_second(seconds(exp)).ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(claims);
        format!("eyJhbGciOiJIUzI1NiJ9.{claims}.c2lnbmF0dXJl")
    }

    #[test]
    fn role_project_and_end_are_read() {
        let claims = token(r#"{"role":"anon","ref":"abc","iss":"supabase","exp":1795341300}"#);
        assert_eq!(
            TokenClaims::read(&claims),
            Some(TokenClaims {
                role: Some("anon".to_owned()),
                project: Some("abc".to_owned()),
                expires_at: Some("2026-11-22T09:55:00Z".parse().unwrap()),
            })
        );
        // amoCRM's have other claims, and no end is possible too.
        let none = Some(TokenClaims::default());
        assert_eq!(TokenClaims::read(&token(r#"{"aud":"x"}"#)), none);
        assert_eq!(TokenClaims::read(&token(r#"{"exp":1e300}"#)), none);
    }

    #[test]
    fn an_end_is_soon_within_thirty_days() {
        let end = TokenEnd::read("SUPABASE_JWT", &token(r#"{"exp":1795341300}"#)).unwrap();
        for (now, days, is_soon) in [
            ("2026-10-23T09:55:00Z", 30, false),
            ("2026-10-23T09:55:01Z", 29, true),
            ("2026-11-23T00:00:00Z", 0, true),
        ] {
            let now = now.parse().unwrap();
            let left = end.left(now).as_secs() / (24 * 3600);
            assert_eq!((left, end.is_soon(now)), (days, is_soon), "{now}");
        }
        assert_eq!(TokenEnd::read("SUPABASE_JWT", &token("{}")), None);
    }

    #[test]
    fn what_is_no_token_says_nothing() {
        for text in [
            "",
            "sb_secret_0123",
            "a.b",
            "a.b.c",
            "a.e30.c.d",
            &token("[]"),
        ] {
            assert_eq!(TokenClaims::read(text), None, "{text}");
        }
    }
}
