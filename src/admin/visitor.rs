//! The sender of a request: which role its cookie or token proves, and in which language it reads.

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderMap},
};

use super::{
    Failure, Shared,
    session::{Role, Session},
};
use crate::{
    http,
    words::{Lang, Reader},
};

pub(super) const COOKIE: &str = "tripwire_admin";

/// A person with a session.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) session: Session,
    pub(super) reader: Reader,
}

impl Visitor {
    /// `None`: no cookie, or one whose session has ended.
    pub(super) fn of(request: &HttpRequest, admin: &Shared) -> Option<Self> {
        let session = session(request, admin)?;
        http::verified(request);
        Some(Self {
            session,
            reader: reader(request, admin),
        })
    }

    pub(super) fn is_admin(&self) -> bool {
        self.session.role == Role::Admin
    }

    /// Fails unless the visitor may change something, and the form is one of this session and this page.
    pub(super) fn may_change(&self, request: &HttpRequest, mark: &str) -> Result<(), Failure> {
        self.sent_form(request, mark)?;
        if self.is_admin() {
            Ok(())
        } else {
            Err(Failure::Forbidden)
        }
    }

    /// Fails unless the form is one of this session and this page.
    pub(super) fn sent_form(&self, request: &HttpRequest, mark: &str) -> Result<(), Failure> {
        if comes_from_elsewhere(request.headers()) || !self.session.is_form_mark(mark) {
            return Err(Failure::StaleForm);
        }
        Ok(())
    }
}

/// The session that the cookie of a request proves.
fn session(request: &HttpRequest, admin: &Shared) -> Option<Session> {
    let cookie = request.cookie(COOKIE)?;
    admin.keys.session(cookie.value(), admin.clock().now())
}

/// The role of a program, by its token, or by a cookie where nothing is changed. `Err`: neither.
pub(super) async fn role_of_program(
    request: &HttpRequest,
    admin: &Shared,
    may_use_cookie: bool,
) -> Option<Role> {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let role = if let Some(authorization) = authorization {
        let token = authorization.to_str().ok()?;
        let (scheme, token) = token.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        role_of_token(token.trim(), admin).await
    } else if may_use_cookie {
        session(request, admin).map(|session| session.role)
    } else {
        None
    };
    if role.is_some() {
        http::verified(request);
    }
    role
}

/// The role of a token, after the delay that wrong ones have earned.
pub(super) async fn role_of_token(token: &str, admin: &Shared) -> Option<Role> {
    admin.brake.hold().await;
    let role = admin.keys.role_of(token);
    if role.is_none() && admin.brake.wrong() {
        tracing::warn!("admin.wrong_token");
    }
    role
}

pub(super) fn reader(request: &HttpRequest, admin: &Shared) -> Reader {
    let languages = request.headers().get(header::ACCEPT_LANGUAGE);
    let languages = languages.and_then(|it| it.to_str().ok());
    Reader {
        lang: lang(languages.unwrap_or_default()),
        zone: admin.zone.clone(),
    }
}

/// By `Accept-Language`: Russian where it is wanted before English.
fn lang(accepted: &str) -> Lang {
    let weight = |name: &str| {
        let weights = accepted.split(',').filter_map(|item| {
            let (language, weight) = item.split_once(';').unwrap_or((item, "q=1"));
            let language = language.trim().split('-').next().unwrap_or_default();
            let weight = weight.trim().strip_prefix("q=")?.parse::<f32>().ok()?;
            language.eq_ignore_ascii_case(name).then_some(weight)
        });
        weights.fold(0.0, f32::max)
    };
    if weight("ru") > weight("en") {
        Lang::Russian
    } else {
        Lang::English
    }
}

/// Whether a browser says that another site has sent the request. Behind `Referrer-Policy: no-referrer` a form's own `Origin`
/// is `null`, and then says nothing.
pub(super) fn comes_from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site")) {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(header::ORIGIN).filter(|origin| *origin != "null") else {
        return false;
    };
    let host = origin.split_once("://").map(|(_, host)| host);
    host.is_none() || host != text(header::HOST)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn the_language_is_the_browsers() {
        for (accepted, expected) in [
            ("ru-RU,ru;q=0.9,en-US;q=0.8,en;q=0.7", Lang::Russian),
            ("ru", Lang::Russian),
            ("kk-KZ, ru;q=0.8, en;q=0.5", Lang::Russian),
            ("en-US,en;q=0.9,ru;q=0.8", Lang::English),
            ("en;q=0.2, RU;q=0.3", Lang::Russian),
            ("de,fr;q=0.5", Lang::English),
            ("ru;q=nonsense", Lang::English),
            ("", Lang::English),
        ] {
            assert_eq!(lang(accepted), expected, "{accepted}");
        }
    }

    #[test]
    fn a_form_of_another_site_is_told_from_ours() {
        for (headers, elsewhere) in [
            (vec![], false),
            (vec![("sec-fetch-site", "same-origin")], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("sec-fetch-site", "same-site")], true),
            (vec![("sec-fetch-site", "cross-site")], true),
            (vec![("origin", "null")], false),
            (
                vec![("origin", "null"), ("sec-fetch-site", "cross-site")],
                true,
            ),
            (
                vec![("origin", "https://a.example"), ("host", "a.example")],
                false,
            ),
            (
                vec![("origin", "https://b.example"), ("host", "a.example")],
                true,
            ),
            (vec![("origin", "https://b.example")], true),
            (vec![("origin", "a.example"), ("host", "a.example")], true),
        ] {
            let map = headers.iter().map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            });
            let mut found = HeaderMap::new();
            for (name, value) in map {
                found.insert(name, value);
            }
            assert_eq!(comes_from_elsewhere(&found), elsewhere, "{headers:?}");
        }
    }
}
