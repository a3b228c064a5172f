//! Who may see the page: tokens, the signed cookie that stands for one, and the mark in each form of a session.
//!
//! The keys are derived from the tokens, so a new token ends all its sessions, and nothing is stored.

use std::{fmt, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use strum::IntoStaticStr;
use subtle::ConstantTimeEq;

/// How long a session lasts.
pub(super) const LASTS: Duration = Duration::from_hours(12);

#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(super) enum Role {
    /// Sees everything and changes nothing.
    Viewer,
    Admin,
}

/// A session that the cookie of a request proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) role: Role,
    /// The mark of its forms: a form without it comes from elsewhere.
    pub(super) form_mark: String,
}

/// A token, and the key that signs for it.
struct Key {
    token: [u8; 32],
    signing: Hmac<Sha256>,
}

impl Key {
    fn new(token: &SecretString) -> Self {
        let token = token.expose_secret();
        let mut derived = mac(token.as_bytes());
        derived.update(b"operator page");
        Self {
            token: Sha256::digest(token).into(),
            signing: mac(&derived.finalize().into_bytes()),
        }
    }

    fn sign(&self, purpose: &str, text: &str) -> Hmac<Sha256> {
        let mut signing = self.signing.clone();
        signing.update(purpose.as_bytes());
        signing.update(b":");
        signing.update(text.as_bytes());
        signing
    }

    fn signature(&self, purpose: &str, text: &str) -> String {
        let signature = self.sign(purpose, text).finalize().into_bytes();
        BASE64_URL_SAFE_NO_PAD.encode(signature)
    }

    fn is_signed(&self, purpose: &str, text: &str, signature: &str) -> bool {
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature);
        signature.is_ok_and(|it| self.sign(purpose, text).verify_slice(&it).is_ok())
    }
}

#[expect(
    clippy::expect_used,
    reason = "HMAC pads or hashes the key: no length is refused"
)]
fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// The tokens of the page. Shows none of them.
pub(super) struct Keys {
    admin: Key,
    viewer: Option<Key>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    pub(super) fn new(admin: &SecretString, viewer: Option<&SecretString>) -> Self {
        Self {
            admin: Key::new(admin),
            viewer: viewer.map(Key::new),
        }
    }

    fn of(&self, role: Role) -> Option<&Key> {
        match role {
            Role::Admin => Some(&self.admin),
            Role::Viewer => self.viewer.as_ref(),
        }
    }

    /// Whose token this is. The time that the answer takes tells nothing of the tokens: digests are compared, and all of
    /// them.
    pub(super) fn role_of(&self, token: &str) -> Option<Role> {
        let token: [u8; 32] = Sha256::digest(token).into();
        let is_admin: bool = self.admin.token.ct_eq(&token).into();
        let viewer = self.viewer.as_ref();
        let is_viewer = viewer.is_some_and(|viewer| viewer.token.ct_eq(&token).into());
        match (is_admin, is_viewer) {
            (true, _) => Some(Role::Admin),
            (false, true) => Some(Role::Viewer),
            (false, false) => None,
        }
    }

    /// The cookie of a new session. `None`: the role has no token.
    pub(super) fn cookie(&self, role: Role, now: Timestamp, random: [u8; 16]) -> Option<String> {
        let key = self.of(role)?;
        let ends_at = now.checked_add(LASTS).ok()?.as_second();
        let random = BASE64_URL_SAFE_NO_PAD.encode(random);
        let text = format!("{}.{ends_at}.{random}", role.into_str());
        let signature = key.signature("session", &text);
        Some(format!("{text}.{signature}"))
    }

    /// The session of a cookie. `None`: it has ended, or the cookie is not of this page and its present token.
    pub(super) fn session(&self, cookie: &str, now: Timestamp) -> Option<Session> {
        let (text, signature) = cookie.rsplit_once('.')?;
        let mut parts = text.split('.');
        let role = match parts.next()? {
            "admin" => Role::Admin,
            "viewer" => Role::Viewer,
            _ => return None,
        };
        let ends_at: i64 = parts.next()?.parse().ok()?;
        let key = self.of(role)?;
        let is_ours = key.is_signed("session", text, signature);
        (is_ours && now.as_second() < ends_at).then(|| Session {
            role,
            form_mark: key.signature("form", text),
        })
    }
}

impl Session {
    pub(super) fn is_form_mark(&self, mark: &str) -> bool {
        self.form_mark.as_bytes().ct_eq(mark.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMIN: &str = "the-token-of-the-operator";
    const VIEWER: &str = "the-token-of-the-viewers";

    fn keys(admin: &str, viewer: Option<&str>) -> Keys {
        Keys::new(&admin.into(), viewer.map(Into::into).as_ref())
    }

    fn now() -> Timestamp {
        "2026-11-30T09:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_token_has_one_role() {
        let both = keys(ADMIN, Some(VIEWER));
        for (token, role) in [
            (ADMIN, Some(Role::Admin)),
            (VIEWER, Some(Role::Viewer)),
            ("", None),
            ("the-token-of-the-operato", None),
            ("the-token-of-the-operator ", None),
        ] {
            assert_eq!(both.role_of(token), role, "{token}");
        }
        assert_eq!(keys(ADMIN, None).role_of(VIEWER), None);
    }

    #[test]
    fn a_session_ends_after_twelve_hours() {
        let keys = keys(ADMIN, None);
        let cookie = keys.cookie(Role::Admin, now(), [7; 16]).unwrap();
        for (after, is_there) in [(0, true), (12 * 3600 - 1, true), (12 * 3600, false)] {
            let then = now() + Duration::from_secs(after);
            assert_eq!(keys.session(&cookie, then).is_some(), is_there, "{after}");
        }
    }

    #[test]
    fn a_new_token_ends_the_sessions_of_the_old_one() {
        let before = keys(ADMIN, Some(VIEWER));
        let [admin, viewer] =
            [Role::Admin, Role::Viewer].map(|role| before.cookie(role, now(), [7; 16]).unwrap());
        for (after, admin_stays, viewer_stays) in [
            (keys(ADMIN, Some(VIEWER)), true, true),
            (
                keys("another-token-of-the-operator", Some(VIEWER)),
                false,
                true,
            ),
            (
                keys(ADMIN, Some("another-token-of-the-viewers")),
                true,
                false,
            ),
            (keys(ADMIN, None), true, false),
        ] {
            assert_eq!(after.session(&admin, now()).is_some(), admin_stays);
            assert_eq!(after.session(&viewer, now()).is_some(), viewer_stays);
        }
    }

    #[test]
    fn a_cookie_that_was_changed_is_worth_nothing() {
        let keys = keys(ADMIN, Some(VIEWER));
        let cookie = keys.cookie(Role::Viewer, now(), [7; 16]).unwrap();
        assert_eq!(keys.session(&cookie, now()).unwrap().role, Role::Viewer);
        let ends = now().as_second() + 12 * 3600;
        for forged in [
            cookie.replace("viewer", "admin"),
            cookie.replace(&ends.to_string(), &(ends + 1).to_string()),
            cookie.replacen("Bw", "Bx", 1),
            cookie[..cookie.len() - 1].to_owned(),
            format!("{cookie}A"),
            String::new(),
            "...".to_owned(),
            "admin.99999999999.x.".to_owned(),
        ] {
            assert_eq!(keys.session(&forged, now()), None, "{forged}");
        }
    }

    #[test]
    fn each_session_has_a_form_mark_of_its_own() {
        let keys = keys(ADMIN, None);
        let session = |random| {
            let cookie = keys.cookie(Role::Admin, now(), [random; 16]).unwrap();
            (keys.session(&cookie, now()).unwrap(), cookie)
        };
        let ((one, cookie), (other, _)) = (session(1), session(2));
        assert!(one.is_form_mark(&one.form_mark));
        assert!(!one.is_form_mark(&other.form_mark) && !one.is_form_mark(""));
        // What signs a cookie is no mark of a form.
        assert!(!cookie.contains(&one.form_mark));
    }
}
