//! The operator page and its JSON API, below `/admin` on the public port: how the service is, where a student is, and the
//! buttons.
//!
//! A person logs in with a token and gets a signed cookie; a program sends the token with each request. The page works without
//! scripts, and loads nothing from elsewhere.

mod actions;
mod api;
mod brake;
mod chart;
mod overview;
mod pages;
mod search;
mod session;
mod views;
mod visitor;

use std::sync::Arc;

use actix_web::{
    Error, HttpResponse, ResponseError,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    error::InternalError,
    guard,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
    middleware::{Next, from_fn},
    web,
};
use jiff::tz::TimeZone;
use secrecy::SecretString;
use tokio::sync::Notify;
use url::Url;

use self::{brake::Brake, session::Keys};
use crate::{
    domain::{SharedClock, SyncState, SyncStatus},
    http::problem,
    inbox::{Inbox, InboxError},
    sync::pause::Switch,
};

/// A form or a search is much shorter.
const LONGEST_BODY: usize = 8 * 1024;

/// All that the page loads is its own.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

#[derive(Debug, Clone)]
pub struct Settings {
    pub admin_token: SecretString,
    /// Shows the page without its buttons.
    pub viewer_token: Option<SecretString>,
    /// Where people see deals and contacts; `None`: there are no links.
    pub amocrm: Option<Url>,
    /// Of the times on the page.
    pub zone: TimeZone,
}

/// What the page shows, and what its buttons act on.
#[derive(Debug, Clone)]
pub struct Service {
    pub switch: Switch,
    pub status: SyncStatus,
    /// Begins a sweep at once.
    pub sweep_now: Arc<Notify>,
}

/// The page of one service. Clones share it.
#[derive(Debug, Clone)]
pub struct Admin {
    shared: web::Data<Shared>,
}

#[derive(Debug)]
struct Shared {
    keys: Keys,
    brake: Brake,
    amocrm: Option<Url>,
    zone: TimeZone,
    service: Service,
}

impl Shared {
    fn inbox(&self) -> &Inbox {
        &self.service.switch.inbox
    }

    fn clock(&self) -> &SharedClock {
        &self.service.switch.clock
    }

    /// The state of the service: the engine's, or the inbox's where that has one.
    fn state(&self) -> SyncState {
        let writing = *self.inbox().writing().borrow();
        writing.over(*self.service.status.borrow())
    }
}

impl Admin {
    #[must_use]
    pub fn new(settings: &Settings, service: Service) -> Self {
        Self {
            shared: web::Data::new(Shared {
                keys: Keys::new(&settings.admin_token, settings.viewer_token.as_ref()),
                brake: Brake::default(),
                amocrm: settings.amocrm.clone(),
                zone: settings.zone.clone(),
                service,
            }),
        }
    }

    /// Adds the page to a server.
    pub fn routes(&self, cfg: &mut web::ServiceConfig) {
        let form = web::FormConfig::default()
            .limit(LONGEST_BODY)
            .error_handler(|error, _| malformed(&error));
        let json = web::JsonConfig::default()
            .limit(LONGEST_BODY)
            .error_handler(|error, _| malformed(&error));
        let path = web::PathConfig::default().error_handler(|_, _| {
            let answer = problem(StatusCode::NOT_FOUND, "there is nothing at this address");
            InternalError::from_response("path", answer).into()
        });
        let query = web::QueryConfig::default().error_handler(|error, _| malformed(&error));
        let admin = web::scope("/admin")
            .app_data(self.shared.clone())
            .app_data(form)
            .app_data(json)
            .app_data(path)
            .app_data(query)
            .wrap(from_fn(guarded))
            .service(web::scope("/api").configure(api::routes))
            .configure(pages::routes);
        cfg.service(admin);
    }
}

/// A body or a query that cannot be read. The answer says no more, since the text may hold an e-mail.
fn malformed(error: &impl ResponseError) -> Error {
    let (status, detail) = match error.status_code() {
        StatusCode::PAYLOAD_TOO_LARGE => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
        _ => (StatusCode::BAD_REQUEST, "the request cannot be read"),
    };
    InternalError::from_response("malformed", problem(status, detail)).into()
}

/// `GET` and `HEAD`.
fn look() -> actix_web::Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Each answer tells the browser what the page may do: nothing from elsewhere, in no frame, kept nowhere.
async fn guarded(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let mut response = next.call(request).await?;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Why a request was not carried out.
#[derive(Debug)]
enum Failure {
    Inbox,
    NotFound,
    /// The visitor may not do this.
    Forbidden,
    /// The form does not come from this page, or from an earlier session.
    StaleForm,
    /// What is asked for is neither an id nor an e-mail.
    NotUnderstood,
    /// Another service syncs; its name.
    OnStandby(String),
    /// amoCRM has answered with 403, and the person was not asked about that.
    Forbidding,
}

impl From<InboxError> for Failure {
    fn from(error: InboxError) -> Self {
        tracing::warn!(%error, "admin.inbox");
        Self::Inbox
    }
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Self::Inbox => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Forbidden | Self::StaleForm => StatusCode::FORBIDDEN,
            Self::NotUnderstood => StatusCode::BAD_REQUEST,
            Self::OnStandby(_) | Self::Forbidding => StatusCode::CONFLICT,
        }
    }

    /// What happened, in English and Russian.
    fn texts(&self) -> (&'static str, &'static str) {
        match self {
            Self::Inbox => (
                "the inbox does not answer; try again",
                "очередь не отвечает; попробуйте ещё раз",
            ),
            Self::NotFound => (
                "there is nothing at this address: a done entry is removed after a while",
                "по этому адресу ничего нет: готовые записи со временем удаляются",
            ),
            Self::Forbidden => (
                "with this token the page can be seen, and nothing can be changed",
                "с этим токеном страницу можно только смотреть",
            ),
            Self::StaleForm => (
                "the form is out of date: open the page again",
                "форма устарела: откройте страницу заново",
            ),
            Self::NotUnderstood => (
                "this is neither the id of a row, nor an e-mail address, nor the number of a deal or contact",
                "это не номер строки, не адрес e-mail и не номер сделки или контакта",
            ),
            Self::Forbidding => (
                "amoCRM has forbidden access (403), and asking on may make that permanent: nothing was done; look at the halt first",
                "amoCRM закрыла доступ (403), и новые запросы могут сделать это постоянным: ничего не сделано; сначала посмотрите причину остановки",
            ),
            Self::OnStandby(_) => (
                "this service stands by, and another one syncs; nothing was done",
                "этот сервис в резерве, синхронизирует другой; ничего не сделано",
            ),
        }
    }

    /// The service that syncs, where that is the reason.
    fn holder(&self) -> Option<&str> {
        match self {
            Self::OnStandby(holder) if !holder.is_empty() => Some(holder),
            _ => None,
        }
    }
}

type Handled = Result<HttpResponse, Failure>;

#[cfg(test)]
mod tests;
