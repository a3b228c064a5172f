//! Shared by all HTTP clients: the crypto provider, trusted certificates, a client without redirects, repeats or proxies,
//! limits of an answer, `Retry-After`, log and metrics of a request, and a clock.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use jiff::{Timestamp, fmt::rfc2822};
use reqwest::{
    Response,
    header::{DATE, HeaderMap, RETRY_AFTER},
};

/// Shorter than what servers usually allow (60 to 75 s): a write on a connection that the server is just closing
/// ends as "no answer".
const IDLE: Duration = Duration::from_secs(30);

/// Makes ring the provider of the whole process. May be called again and again.
pub fn install_crypto_provider() {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The base of every HTTP client here: HTTP/1 over pooled connections, without redirects, repeats or proxies, so that one
/// call is one request.
///
/// `extra_roots` are PEM bundles, trusted beside the system's own authorities.
pub fn client_builder(
    user_agent: &str,
    connect_timeout: Duration,
    extra_roots: &[Vec<u8>],
) -> Result<reqwest::ClientBuilder, reqwest::Error> {
    install_crypto_provider();
    let mut roots = Vec::new();
    for bundle in extra_roots {
        roots.extend(reqwest::Certificate::from_pem_bundle(bundle)?);
    }
    Ok(reqwest::Client::builder()
        .user_agent(user_agent)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .http1_only()
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(IDLE)
        .tls_certs_merge(roots))
}

/// Why a request brought no answer; without its URL.
#[derive(Debug)]
pub enum Failure {
    /// No connection; nothing was sent. `untrusted` = the certificate was refused.
    NotSent {
        untrusted: bool,
        source: reqwest::Error,
    },
    /// Sent, but no (whole) answer came.
    NoAnswer { source: reqwest::Error },
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let source = error.without_url();
        if source.is_connect() || source.is_builder() {
            Self::NotSent {
                untrusted: is_untrusted(&source),
                source,
            }
        } else {
            Self::NoAnswer { source }
        }
    }
}

/// Whether the request failed because the peer's certificate was refused.
fn is_untrusted(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // The source of an `io::Error` skips the error that it wraps.
        cause = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

/// As much of a body as was wanted and came.
#[derive(Debug)]
pub enum Body {
    Whole(Vec<u8>),
    /// Longer than allowed.
    Cut(Vec<u8>),
    Broken {
        so_far: Vec<u8>,
        failure: Failure,
    },
}

impl Body {
    /// The bytes that were read, for a body that only explains an error.
    #[must_use]
    pub fn prefix(self) -> Vec<u8> {
        match self {
            Self::Whole(body) | Self::Cut(body) | Self::Broken { so_far: body, .. } => body,
        }
    }
}

pub async fn read_up_to(response: &mut Response, longest: usize) -> Body {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Body::Whole(body),
            Ok(Some(chunk)) if body.len() + chunk.len() > longest => {
                body.extend_from_slice(&chunk[..longest - body.len()]);
                return Body::Cut(body);
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) => {
                return Body::Broken {
                    so_far: body,
                    failure: error.into(),
                };
            }
        }
    }
}

/// The longest wait, even if the peer names a longer one: a mistaken header must not stop a client for a day.
pub const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// `Retry-After`: seconds or an HTTP date, at most [`LONGEST_WAIT`].
#[must_use]
pub fn retry_after(headers: &HeaderMap, clock: &dyn Clock) -> Option<Duration> {
    let named = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let wait = seconds(named).or_else(|| {
        // The wait is counted by the peer's clock if its time is known, since the machine's may be wrong.
        let now = date(headers).unwrap_or_else(|| clock.now());
        let wait = http_date(named)?.duration_since(now);
        Some(Duration::try_from(wait).unwrap_or_default())
    })?;
    Some(wait.min(LONGEST_WAIT))
}

/// A number of seconds; absurdly many are as long as a [`Duration`] can be.
#[must_use]
pub fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().parse().ok()?;
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// The peer's clock when it answered.
#[must_use]
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn http_date(text: &str) -> Option<Timestamp> {
    let parser = rfc2822::DateTimeParser::new().relaxed_weekday(true);
    parser.parse_timestamp(text.trim()).ok()
}

/// Puts a request that is over into the log and the metrics, which never see a URL.
///
/// `peer` is the name in the log, `metrics` is what the names of the metrics begin with, `status` is the answer's status or
/// why there is none. By `request_id` the peer finds the request again.
pub fn log_request(
    peer: &'static str,
    metrics: &'static str,
    route: &'static str,
    status: String,
    took: Duration,
    request_id: Option<&str>,
) {
    // The target is the service's own, so that a filter for the service includes its requests.
    tracing::debug!(
        target: "tripwire_sync::outbound",
        route,
        status,
        duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        request_id,
        "asked {peer}"
    );
    metrics::counter!(format!("{metrics}_requests_total"), "route" => route, "status" => status)
        .increment(1);
}

/// Wall-clock time, passed in so that tests can set it.
pub trait Clock: fmt::Debug + Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

pub type SharedClock = Arc<dyn Clock>;

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn a_date_counts_with_any_weekday_and_no_other_text_does() {
        let at = "1994-11-06T08:49:37Z".parse().ok();
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", at),
            ("Mon, 06 Nov 1994 08:49:37 GMT", at),
            ("yesterday", None),
        ] {
            let headers = HeaderMap::from_iter([(DATE, HeaderValue::from_static(text))]);
            assert_eq!(date(&headers), expected, "{text}");
        }
    }
}
