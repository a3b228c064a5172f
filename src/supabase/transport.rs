//! One request, one answer: keys, sizes, the log and the count of what was asked.

use jiff::Timestamp;
use outbound::{Body, Failure, log_request, read_up_to};
use reqwest::{
    Client, Request,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::{Settings, SupabaseError, bridge, wire};
use crate::domain::{SharedClock, USER_AGENT};

/// Only the code of an error is read.
const LARGEST_ERROR_BODY: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Transport {
    client: Client,
    keys: HeaderMap,
    largest_answer: usize,
    clock: SharedClock,
}

/// A whole answer with any status.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Transport {
    pub(super) fn new(
        settings: &Settings,
        rest_url: &str,
        clock: SharedClock,
    ) -> Result<Self, reqwest::Error> {
        let client =
            outbound::client_builder(USER_AGENT, settings.connect_timeout, &settings.extra_roots)?
                .timeout(settings.timeout)
                .build()?;
        let keys = keys(&client, rest_url, settings).map_err(reqwest::Error::without_url)?;
        Ok(Self {
            client,
            keys,
            largest_answer: settings.largest_answer,
            clock,
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn request(&self, query: postgrest::Builder) -> Request {
        let mut request = bridge::request(&self.client, query);
        request.headers_mut().extend(self.keys.clone());
        request
    }

    /// The answer to a request that succeeded.
    pub(super) async fn ask(
        &self,
        route: &'static str,
        request: Request,
    ) -> Result<Answer, SupabaseError> {
        self.judge(self.exchange(route, request).await?)
    }

    /// The answer to a change. An old PostgREST answers one that matches nothing with 404 and an empty array.
    pub(super) async fn change(
        &self,
        route: &'static str,
        request: Request,
    ) -> Result<Answer, SupabaseError> {
        let answer = self.exchange(route, request).await?;
        if answer.status == 404 && answer.body.trim_ascii() == b"[]" {
            return Ok(answer);
        }
        self.judge(answer)
    }

    pub(super) fn judge(&self, answer: Answer) -> Result<Answer, SupabaseError> {
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        let retry_after = outbound::retry_after(&answer.headers, &*self.clock);
        let told = wire::told(&answer.body);
        Err(wire::failure(answer.status, told, retry_after))
    }

    /// The answer with any status.
    pub(super) async fn exchange(
        &self,
        route: &'static str,
        request: Request,
    ) -> Result<Answer, SupabaseError> {
        let begun = Instant::now();
        let outcome = self.receive(request).await;
        let status = match &outcome {
            Ok(answer) => answer.status.to_string(),
            Err(SupabaseError::NotSent { .. }) => "not_sent".to_owned(),
            Err(SupabaseError::TooLarge) => "too_large".to_owned(),
            Err(_) => "no_answer".to_owned(),
        };
        let took = begun.elapsed();
        log_request("Supabase", "tripwire_supabase", route, status, took, None);
        outcome
    }

    async fn receive(&self, request: Request) -> Result<Answer, SupabaseError> {
        let sent = self.client.execute(request).await;
        let mut response = sent.map_err(Failure::from)?;
        let status = response.status();
        let largest = if status.is_success() {
            self.largest_answer
        } else {
            LARGEST_ERROR_BODY
        };
        let body = match read_up_to(&mut response, largest).await {
            Body::Cut(_) if status.is_success() => return Err(SupabaseError::TooLarge),
            // A body that was cut is no JSON, and counts as such.
            Body::Whole(body) | Body::Cut(body) => body,
            Body::Broken { failure, .. } => return Err(failure.into()),
        };
        Ok(Answer {
            status: status.as_u16(),
            headers: std::mem::take(response.headers_mut()),
            body,
        })
    }
}

/// `apikey` always. `Authorization` only for a JWT, ours or a legacy key: an opaque key there is refused.
fn keys(client: &Client, rest_url: &str, settings: &Settings) -> Result<HeaderMap, reqwest::Error> {
    let key = settings.key.expose_secret();
    let bearer = match &settings.jwt {
        Some(jwt) => Some(jwt.expose_secret()),
        None if is_jwt(key) => Some(key),
        None => None,
    };
    // A request that is never sent: what cannot be a URL or a header is found out here.
    let mut request = client.get(rest_url).header("apikey", key);
    if let Some(bearer) = bearer {
        request = request.bearer_auth(bearer);
    }
    let mut keys = std::mem::take(request.build()?.headers_mut());
    for value in keys.values_mut() {
        value.set_sensitive(true);
    }
    Ok(keys)
}

fn is_jwt(key: &str) -> bool {
    key.starts_with("eyJ") && key.split('.').count() == 3
}

/// As a parameter: the builder's own `limit` is a `Range` header.
pub(super) fn limit(mut request: Request, rows: u32) -> Request {
    request
        .url_mut()
        .query_pairs_mut()
        .append_pair("limit", &rows.to_string());
    request
}

/// Passes over so many rows.
pub(super) fn offset(mut request: Request, rows: usize) -> Request {
    if rows > 0 {
        request
            .url_mut()
            .query_pairs_mut()
            .append_pair("offset", &rows.to_string());
    }
    request
}

/// Instead of what the builder prefers.
pub(super) fn prefer(mut request: Request, preferences: &'static str) -> Request {
    request
        .headers_mut()
        .insert("prefer", HeaderValue::from_static(preferences));
    request
}

impl From<Failure> for SupabaseError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent { untrusted, source } => Self::NotSent { untrusted, source },
            Failure::NoAnswer { source } => Self::NoAnswer { source },
        }
    }
}
