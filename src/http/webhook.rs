//! `POST /webhooks/supabase`: verify the raw bytes, parse, store, and only then answer.
//!
//! The sender neither retries nor reads the answer. The sweep finds rows whose delivery is refused or lost here.

use std::{
    mem::discriminant,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderMap},
    },
    web,
};
use serde::Deserialize;
use serde_json::{Value, error::Category, json};
use tokio::{sync::Semaphore, time::timeout_at};
use tracing::info;
use uuid::Uuid;

use super::{
    HttpState,
    connection::{Connection, LIMIT},
    problem,
    signature::{Credentials, Proof, SignatureError},
};
use crate::{
    domain::{Chain, Nonce, RowId},
    inbox::{Arrival, InboxError, Source, Stored},
};

/// Our trigger sends some 200 bytes.
pub const LONGEST_BODY: usize = 16 * 1024;

/// The dashboard's own hook sends a whole row, and a token that is verified before the body is read.
const LONGEST_WITH_TOKEN: usize = 256 * 1024;

/// How many bodies of a worker may be longer than [`LONGEST_BODY`] at a time; others wait.
const LONG_BODIES: usize = 16;

const RETRY_AFTER_SECONDS: u32 = 30;

const SCHEMA: &str = "public";
const TABLE: &str = "tripwire_users";

/// Every outcome counts from zero, so that the first of its kind is seen as a change.
pub(super) fn register_metrics() {
    for outcome in [
        "accepted",
        "duplicate",
        "ignored",
        "test",
        "refused_signature",
        "refused_stale",
        "malformed",
        "too_large",
        "unsupported_type",
        "unavailable",
    ] {
        metrics::counter!("tripwire_webhooks_total", "outcome" => outcome).increment(0);
    }
}

/// Room for the bodies of senders with a right token.
#[derive(Debug)]
pub(super) struct LongBodies(Semaphore);

impl Default for LongBodies {
    fn default() -> Self {
        Self(Semaphore::new(LONG_BODIES))
    }
}

pub(super) async fn receive(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<HttpState>,
    long_bodies: web::Data<LongBodies>,
) -> HttpResponse {
    let started = Instant::now();
    let headers = request.headers();
    let connection = request.conn_data();

    let result = take(&state, headers, payload, &long_bodies, connection).await;
    let outcome = match &result {
        Ok(receipt) => receipt.verdict.outcome(),
        Err(error) => error.outcome(),
    };
    metrics::counter!("tripwire_webhooks_total", "outcome" => outcome).increment(1);
    match result {
        Ok(receipt) => {
            receipt.log(started.elapsed());
            receipt.verdict.answer()
        }
        Err(error) => {
            let answer = error.answer();
            let client = request.peer_addr().map(|address| address.ip());
            state.refusals.note(error, client);
            answer
        }
    }
}

async fn take(
    state: &HttpState,
    headers: &HeaderMap,
    payload: web::Payload,
    long_bodies: &LongBodies,
    connection: Option<&Connection>,
) -> Result<Receipt, WebhookError> {
    let credentials = state.verifier.credentials(headers);
    let longest = match credentials {
        Ok(Credentials::Token) => LONGEST_WITH_TOKEN,
        Ok(Credentials::Signed(_)) | Err(_) => LONGEST_BODY,
    };
    // The head is checked first: a body that it rules out is not read.
    let length = announced_length(headers);
    if length.is_some_and(|length| length > longest) {
        return Err(WebhookError::TooLarge { longest });
    }
    if !is_json(headers) {
        return Err(WebhookError::UnsupportedType);
    }
    let credentials = credentials?;

    let deadline = connection.map_or_else(latest, Connection::deadline);
    let body = async {
        // Held until the body is read, parsed and stored.
        let permit = if longest > LONGEST_BODY && length.is_none_or(|it| it > LONGEST_BODY) {
            long_bodies.0.acquire().await.ok()
        } else {
            None
        };
        let body = payload.to_bytes_limited(longest).await;
        (permit, body)
    };
    let (_permit, body) = timeout_at(deadline, body)
        .await
        .map_err(|_| WebhookError::TooSlow)?;
    let body = body
        .map_err(|_| WebhookError::TooLarge { longest })?
        .map_err(|_| WebhookError::Incomplete)?;
    if let Some(connection) = connection {
        connection.received();
    }

    let proof = state
        .verifier
        .verify(credentials, &body, state.clock.now())?;
    if let Some(connection) = connection {
        connection.verified();
    }
    accept(state, proof, &body).await
}

/// The deadline of a request without a [`Connection`].
fn latest() -> tokio::time::Instant {
    tokio::time::Instant::now() + LIMIT
}

fn announced_length(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

async fn accept(state: &HttpState, proof: Proof<'_>, body: &[u8]) -> Result<Receipt, WebhookError> {
    let delivery = match proof {
        Proof::Signature { id } => id.to_owned(),
        Proof::Token => format!("bearer-{}", Uuid::new_v4()),
    };
    let verdict = match parse(body)? {
        Event::Inserted(row) => store(state, row, delivery.clone()).await?,
        // Else a test event would be accepted while every other event is refused.
        Event::Test(_) if !state.inbox.accepts() => return Err(WebhookError::NotAccepting),
        Event::Test(nonce) => Verdict::Tested(nonce),
        Event::Other(why) => Verdict::Ignored(why),
    };
    Ok(Receipt { delivery, verdict })
}

async fn store(state: &HttpState, row: RowId, delivery: String) -> Result<Verdict, WebhookError> {
    let arrival = Arrival {
        row,
        source: Source::Webhook { delivery },
    };
    let stored = state.inbox.store(vec![arrival]).await?;
    Ok(if stored.contains(&Stored::Duplicate) {
        Verdict::Duplicate(row)
    } else {
        Verdict::Accepted(row)
    })
}

/// A delivery that we believe, and what became of it.
#[derive(Debug)]
struct Receipt {
    delivery: String,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Accepted(RowId),
    Duplicate(RowId),
    /// Nothing is stored for a test event.
    Tested(Nonce),
    Ignored(NotOurs),
}

impl Receipt {
    fn log(&self, took: Duration) {
        let delivery = &self.delivery;
        let outcome = self.verdict.outcome();
        let duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        match self.verdict {
            Verdict::Accepted(row) | Verdict::Duplicate(row) => {
                info!(delivery, %row, outcome, duration_ms, "webhook.receive");
            }
            Verdict::Tested(nonce) => {
                info!(delivery, %nonce, outcome, duration_ms, "webhook.receive");
            }
            Verdict::Ignored(why) => {
                let reason = why.as_str();
                info!(delivery, reason, outcome, duration_ms, "webhook.receive");
            }
        }
    }
}

impl Verdict {
    /// The `status` of the answer, and the label it is counted under.
    fn outcome(self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Duplicate(_) => "duplicate",
            Self::Tested(_) => "test",
            Self::Ignored(_) => "ignored",
        }
    }

    fn answer(self) -> HttpResponse {
        let status = self.outcome();
        match self {
            Self::Accepted(_) | Self::Duplicate(_) => {
                HttpResponse::Accepted().json(json!({ "status": status }))
            }
            Self::Tested(nonce) => {
                HttpResponse::Ok().json(json!({ "status": status, "nonce": nonce }))
            }
            Self::Ignored(why) => {
                HttpResponse::Ok().json(json!({ "status": status, "reason": why.as_str() }))
            }
        }
    }
}

/// Why a delivery was not taken. No variant quotes the sender.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebhookError {
    #[error("the body is longer than {longest} bytes")]
    TooLarge { longest: usize },
    #[error("the content type is not application/json")]
    UnsupportedType,
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("the body broke off")]
    Incomplete,
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// The last write of the inbox has failed: a test event is answered as an insert would be.
    #[error("the inbox cannot be written")]
    NotAccepting,
}

impl WebhookError {
    /// The label it is counted under.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::UnsupportedType => "unsupported_type",
            Self::TooSlow | Self::Incomplete | Self::Malformed(_) => "malformed",
            Self::Signature(SignatureError::TooOld { .. } | SignatureError::TooNew { .. }) => {
                "refused_stale"
            }
            Self::Signature(_) => "refused_signature",
            Self::Inbox(_) | Self::NotAccepting => "unavailable",
        }
    }

    /// Whether both are of one kind: their details do not count.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Signature(this), Self::Signature(that)) => {
                discriminant(this) == discriminant(that)
            }
            (Self::Malformed(this), Self::Malformed(that)) => {
                discriminant(this) == discriminant(that)
            }
            _ => discriminant(self) == discriminant(other),
        }
    }

    /// Whether the fault is the service's own.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Inbox(_) | Self::NotAccepting)
    }

    /// What the log says of it.
    pub(super) fn reason(&self) -> String {
        Chain(self).to_string()
    }

    fn answer(&self) -> HttpResponse {
        match self {
            Self::TooLarge { .. } => problem(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is longer than 16 KiB, or 256 KiB with a bearer token",
            ),
            Self::UnsupportedType => problem(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the content type is not application/json",
            ),
            Self::TooSlow => problem(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
            Self::Incomplete | Self::Malformed(_) => problem(
                StatusCode::BAD_REQUEST,
                "the body is not whole, or is no event of tripwire_users",
            ),
            Self::Signature(_) => problem(
                StatusCode::UNAUTHORIZED,
                "the delivery is not signed with the secret of this service, or too long ago",
            ),
            Self::Inbox(_) | Self::NotAccepting => {
                let mut answer = problem(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the event is not stored: send it again later",
                );
                let headers = answer.headers_mut();
                headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
                answer
            }
        }
    }
}

/// The content of a verified delivery.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Inserted(RowId),
    /// `tripwire_sync_test_event` sent it: the answer repeats its nonce.
    Test(Nonce),
    Other(NotOurs),
}

/// Why an event is none of our business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotOurs {
    Schema,
    Table,
    Type,
}

impl NotOurs {
    fn as_str(self) -> &'static str {
        match self {
            Self::Schema => "another schema",
            Self::Table => "another table",
            Self::Type => "not an insert",
        }
    }
}

/// What is wrong with the body of a genuine delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// The parser's own message quotes the body, so only the place is kept.
    #[error("the body is not JSON (column {column})")]
    NotJson { column: usize },
    #[error("the body is not an event of Supabase (column {column})")]
    NotAnEvent { column: usize },
    #[error("record.id is missing or not a uuid")]
    NoRowId,
    #[error("record.nonce is missing or not 32 hex digits")]
    NoNonce,
}

/// `{"type":"INSERT","table":"tripwire_users","schema":"public","record":{"id":…},"old_record":null}`; a dashboard hook
/// sends every column, and `record` is null for a delete.
#[derive(Deserialize)]
struct Payload {
    r#type: String,
    schema: String,
    table: String,
    record: Option<Record>,
}

/// Rows of other tables come by too, so a member may be anything until the table is known.
#[derive(Deserialize)]
struct Record {
    id: Option<Value>,
    nonce: Option<Value>,
}

fn parse(body: &[u8]) -> Result<Event, Malformed> {
    let payload: Payload = serde_json::from_slice(body).map_err(|error| {
        let column = error.column();
        match error.classify() {
            Category::Syntax | Category::Eof | Category::Io => Malformed::NotJson { column },
            Category::Data => Malformed::NotAnEvent { column },
        }
    })?;
    if payload.schema != SCHEMA {
        return Ok(Event::Other(NotOurs::Schema));
    }
    if payload.table != TABLE {
        return Ok(Event::Other(NotOurs::Table));
    }
    let record = payload.record;
    match payload.r#type.as_str() {
        "INSERT" => record
            .and_then(|record| record.id?.as_str()?.parse().ok())
            .map(Event::Inserted)
            .ok_or(Malformed::NoRowId),
        "TEST" => record
            .and_then(|record| record.nonce?.as_str()?.parse().ok())
            .map(Event::Test)
            .ok_or(Malformed::NoNonce),
        _ => Ok(Event::Other(NotOurs::Type)),
    }
}

#[cfg(test)]
mod tests;
