//! One request to amoCRM: its turn, the sending, the status first, the body second.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use outbound::{Body, Failure, date, log_request, read_up_to};
use reqwest::{
    Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, LOCATION},
};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;
use url::{Url, form_urlencoded::byte_serialize};

use crate::{
    AmoError, DealId, Permit, Problem, Refusal, Settings, SharedClock, Timeouts,
    throttle::{Denied, LONGEST_PAUSE, Throttle},
    wire,
};

/// A page of 250 contacts with many fields is about 1 MB.
const LONGEST_ANSWER: usize = 8 << 20;
const LONGEST_PROBLEM: usize = 64 << 10;
/// Some milliseconds of work.
const LONG_TO_DECODE: usize = 32 << 10;

#[derive(Debug)]
pub(super) struct Transport {
    http: reqwest::Client,
    base_url: Url,
    token: SecretString,
    timeouts: Timeouts,
    pub(super) throttle: Throttle,
    permit: Arc<dyn Permit>,
    clock: SharedClock,
    metrics: &'static str,
}

/// A question.
#[derive(Debug)]
pub(super) struct Read<'a> {
    /// The name of the call in metrics and logs, which never see a URL.
    pub(super) route: &'static str,
    /// Below `/api/v4/`.
    pub(super) path: &'a str,
    pub(super) query: &'a [(&'a str, String)],
    /// Background priority: lets other requests go first.
    pub(super) is_background: bool,
}

/// A change.
#[derive(Debug)]
pub(super) struct Write<'a> {
    pub(super) route: &'static str,
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) body: Value,
    /// The deals in the order of the request, where amoCRM names them by id in its problems.
    pub(super) deals: &'a [DealId],
    pub(super) begin_by: Instant,
    /// Background priority: lets other requests go first.
    pub(super) is_background: bool,
}

impl Transport {
    pub(super) fn new(
        settings: Settings,
        clock: SharedClock,
        permit: Arc<dyn Permit>,
    ) -> Result<Self, reqwest::Error> {
        let http = outbound::client_builder(
            settings.user_agent,
            settings.timeouts.connect,
            &settings.extra_roots,
        )?
        .build()?;
        // Says now what every request would say: an address without a host, a token that no header can carry.
        http.get(settings.base_url.clone())
            .bearer_auth(settings.token.expose_secret())
            .build()
            .map_err(reqwest::Error::without_url)?;
        Ok(Self {
            http,
            base_url: settings.base_url,
            token: settings.token,
            timeouts: settings.timeouts,
            throttle: Throttle::new(settings.requests_per_second, settings.assume_full_window),
            permit,
            clock,
            metrics: settings.metrics,
        })
    }

    pub(super) async fn read<T: DeserializeOwned + Send + 'static>(
        &self,
        read: &Read<'_>,
    ) -> Result<Answered<T>, AmoError> {
        let mut url = self.url(read.path);
        url.set_query(query(read.query).as_deref());
        let request = self
            .request(Method::GET, url, self.timeouts.read)
            .build()
            .map_err(failure)?;
        let answer = self
            .exchange(read.route, request, read.is_background, None)
            .await?;
        let date = answer.date;
        let value = match answer.status {
            StatusCode::NO_CONTENT => None,
            status if status.is_success() => Some(decode(answer.body).await?),
            // An unknown path under the API says so in JSON; a page in HTML is some other server.
            StatusCode::NOT_FOUND if wire::is_json_or_empty(&answer.body) => None,
            StatusCode::NOT_FOUND => return Err(AmoError::Unexpected { status: 404 }),
            status => {
                let sent = (read.query, self.token.expose_secret());
                return Err(rejected(status, wire::problem(&answer.body, &[], &sent)));
            }
        };
        Ok(Answered { value, date })
    }

    pub(super) async fn write<T: DeserializeOwned>(
        &self,
        write: &Write<'_>,
    ) -> Result<T, AmoError> {
        let request = self
            .request(
                write.method.clone(),
                self.url(write.path),
                self.timeouts.write,
            )
            .header(CONTENT_TYPE, "application/json")
            .body(write.body.to_string())
            .build()
            .map_err(failure)?;
        let begin_by = Some(write.begin_by);
        let answer = self
            .exchange(write.route, request, write.is_background, begin_by)
            .await?;
        if answer.status.is_success() {
            wire::decode(&answer.body)
        } else {
            let sent = (&write.body, self.token.expose_secret());
            let problem = wire::problem(&answer.body, write.deals, &sent);
            Err(rejected(answer.status, problem))
        }
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base_url.clone();
        let root = self.base_url.path().trim_end_matches('/');
        url.set_path(&format!("{root}/api/v4/{path}"));
        url.set_query(None);
        url
    }

    fn request(&self, method: Method, url: Url, timeout: Duration) -> reqwest::RequestBuilder {
        self.http
            .request(method, url)
            .bearer_auth(self.token.expose_secret())
            .timeout(timeout)
    }

    /// Waits for a turn, sends, counts. Returns a success, or a 4xx about the content of the request.
    async fn exchange(
        &self,
        route: &'static str,
        request: Request,
        is_background: bool,
        begin_by: Option<Instant>,
    ) -> Result<Answer, AmoError> {
        // Without a valid permit, the request does not wait for a turn.
        self.permitted()?;
        let asked = Instant::now();
        let turn = self.throttle.acquire(is_background, begin_by).await;
        let metrics = self.metrics;
        metrics::histogram!(format!("{metrics}_throttle_wait_seconds")).record(asked.elapsed());
        let turn = turn.map_err(AmoError::from)?;
        // Checked again right before sending: the wait, or a suspend of the process, may have taken any time.
        self.permitted()?;
        let sent_at = turn.sent();

        let (mut status, mut request_id) = (String::new(), None);
        let result = match self.http.execute(request).await {
            Ok(response) => {
                status = response.status().as_u16().to_string();
                // amoCRM's support finds a call by it.
                let id = response.headers().get("x-request-id");
                let id = id.and_then(|value| value.to_str().ok());
                request_id = id.map(|id| id.chars().take(64).collect::<String>());
                self.settle(response, sent_at).await
            }
            Err(error) => Err(failure(error)),
        };

        let took = sent_at.elapsed();
        let status = match &result {
            Err(AmoError::NotSent { .. }) => "not_sent".to_owned(),
            Err(AmoError::NoAnswer { .. }) => "no_answer".to_owned(),
            _ => status,
        };
        metrics::histogram!(format!("{metrics}_request_seconds"), "route" => route).record(took);
        let request_id = request_id.as_deref();
        log_request("amoCRM", metrics, route, status, took, request_id);
        result
    }

    /// Judges the status first, then the body: the body of a gateway is often HTML.
    async fn settle(&self, mut response: Response, sent_at: Instant) -> Result<Answer, AmoError> {
        let status = response.status();
        let date = date(response.headers());
        if status == StatusCode::TOO_MANY_REQUESTS {
            // No other request is sent while the body, which may name a longer wait, is still being read.
            self.throttle.slow_down(sent_at, None);
            let body = read_up_to(&mut response, LONGEST_PROBLEM).await.prefix();
            let retry_after = self.retry_after(response.headers(), &body);
            self.throttle.slow_down(sent_at, retry_after);
            return Err(AmoError::Throttled { retry_after });
        }
        self.throttle.answered(sent_at);
        match status {
            StatusCode::UNAUTHORIZED => Err(self.refused(Refusal::Unauthorized)),
            StatusCode::PAYMENT_REQUIRED => Err(self.refused(Refusal::PaymentRequired)),
            StatusCode::FORBIDDEN => Err(self.refused(Refusal::Forbidden)),
            status if status.is_success() => {
                match read_up_to(&mut response, LONGEST_ANSWER).await {
                    Body::Whole(body) => Ok(Answer { status, date, body }),
                    Body::Cut(_) => Err(AmoError::Malformed {
                        what: "an endless answer",
                    }),
                    Body::Broken { failure, .. } => Err(failure.into()),
                }
            }
            // The gateway's own time-out says nothing about what was sent.
            StatusCode::REQUEST_TIMEOUT => Err(AmoError::Unexpected {
                status: status.as_u16(),
            }),
            status if status.is_client_error() => Ok(Answer {
                status,
                date,
                body: read_up_to(&mut response, LONGEST_PROBLEM).await.prefix(),
            }),
            status if status.is_server_error() => Err(AmoError::Server {
                status: status.as_u16(),
            }),
            status if status.is_redirection() && status != StatusCode::NOT_MODIFIED => {
                Err(AmoError::Moved {
                    status: status.as_u16(),
                    host: self.moved_to(response.headers()),
                })
            }
            status => Err(AmoError::Unexpected {
                status: status.as_u16(),
            }),
        }
    }

    /// The host of a redirect, if it is another one.
    fn moved_to(&self, headers: &HeaderMap) -> Option<String> {
        let location = headers.get(LOCATION)?.to_str().ok()?;
        let host = self.base_url.join(location).ok()?.host_str()?.to_owned();
        (Some(host.as_str()) != self.base_url.host_str()).then_some(host)
    }

    fn permitted(&self) -> Result<(), AmoError> {
        if self.permit.is_valid() {
            Ok(())
        } else {
            Err(AmoError::NotPermitted)
        }
    }

    fn refused(&self, refusal: Refusal) -> AmoError {
        self.throttle.turn_away(refusal);
        refusal.into()
    }

    /// The header's, else the body's.
    fn retry_after(&self, headers: &HeaderMap, body: &[u8]) -> Option<Duration> {
        outbound::retry_after(headers, &*self.clock)
            .or_else(|| wire::retry_after(body))
            .map(|wait| wait.min(LONGEST_PAUSE))
    }
}

/// Decodes a long answer on a thread of its own. On this thread, decoding could delay a request that has its turn: it would
/// arrive close to the next one, and the limit per second counts arrivals.
async fn decode<T: DeserializeOwned + Send + 'static>(body: Vec<u8>) -> Result<T, AmoError> {
    if body.len() < LONG_TO_DECODE {
        return wire::decode(&body);
    }
    match tokio::task::spawn_blocking(move || wire::decode(&body)).await {
        Ok(decoded) => decoded,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(AmoError::Malformed {
            what: "an answer that nobody was left to read",
        }),
    }
}

/// The brackets of names stay as they are: encoded, 250 ids would not fit into a URL.
fn query(pairs: &[(&str, String)]) -> Option<String> {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| {
            let value: String = byte_serialize(value.as_bytes()).collect();
            format!("{name}={value}")
        })
        .collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}

/// What a question brought.
pub(super) struct Answered<T> {
    /// `None`: nothing was found.
    pub(super) value: Option<T>,
    /// amoCRM's clock (`Date`).
    pub(super) date: Option<Timestamp>,
}

/// A success, or a 4xx whose body says what was wrong.
struct Answer {
    status: StatusCode,
    date: Option<Timestamp>,
    body: Vec<u8>,
}

impl From<Denied> for AmoError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::TooLate => Self::TooLate,
            // The request was not sent. The 403 was the answer to another request, and counts for that one alone.
            Denied::Refused(Refusal::Forbidden) => Self::TurnedAway,
            Denied::Refused(refusal) => refusal.into(),
        }
    }
}

fn failure(error: reqwest::Error) -> AmoError {
    Failure::from(error).into()
}

fn rejected(status: StatusCode, problem: Problem) -> AmoError {
    AmoError::Rejected {
        status: status.as_u16(),
        problem,
    }
}
