//! Authenticates a delivery: Standard Webhooks 1.0 over the raw bytes, or the static token of a dashboard webhook.

use std::time::Duration;

use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::domain::WebhookSecret;

pub const ID: &str = "webhook-id";
pub const TIMESTAMP: &str = "webhook-timestamp";
pub const SIGNATURE: &str = "webhook-signature";

/// Senders use some 40 bytes.
const LONGEST_ID: usize = 256;

/// During a replacement of the secret, a sender signs twice. A delivery with many signatures would only cost time.
const MOST_SIGNATURES: usize = 8;

/// Why a delivery is not believed. Carries nothing that the sender wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("it carries neither a signature nor a token")]
    Unsigned,
    #[error("the header {header} is missing")]
    Missing { header: &'static str },
    #[error("the header {header} is there more than once")]
    Repeated { header: &'static str },
    #[error("the header {header} is not plain text")]
    NotText { header: &'static str },
    #[error(
        "webhook-id is empty, longer than {LONGEST_ID} bytes, not visible ASCII, or holds a dot"
    )]
    BadId,
    #[error("webhook-timestamp is not one to twelve digits")]
    BadTimestamp,
    #[error("none of its signatures is of version v1")]
    UnknownVersion,
    #[error("it is signed, but no WEBHOOK_SECRET is set")]
    NoSecret,
    #[error("no signature matches: another secret, or changed on the way")]
    WrongSignature,
    #[error("it was signed {} s ago, which is too long", .by.as_secs())]
    TooOld { by: Duration },
    #[error("it was signed {} s in the future, which is too far", .by.as_secs())]
    TooNew { by: Duration },
    #[error("it is unsigned, and no WEBHOOK_BEARER_TOKEN is set")]
    NoToken,
    #[error("its bearer token is another one")]
    WrongToken,
}

/// What proved that a delivery is genuine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof<'a> {
    /// The `webhook-id` is part of what was signed.
    Signature {
        id: &'a str,
    },
    Token,
}

/// Verifies deliveries.
#[derive(Debug, Clone)]
pub struct Verifier {
    /// Any of them may sign, so that a secret can be replaced without losing deliveries.
    pub secrets: Vec<WebhookSecret>,
    /// Of the dashboard's own Database Webhooks, which cannot sign.
    pub token: Option<SecretString>,
    /// Greatest difference between the signed time and ours, both ways.
    pub tolerance: Duration,
}

/// The proof in the head of a delivery. A token is already verified; a signature needs the body.
#[derive(Debug, Clone, Copy)]
pub enum Credentials<'a> {
    Signed(SignedHeaders<'a>),
    Token,
}

impl Verifier {
    /// Checks the head alone. A delivery with any `webhook-…` header is accepted only by its signature, even if it carries a
    /// token.
    pub fn credentials<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Result<Credentials<'a>, SignatureError> {
        if [ID, TIMESTAMP, SIGNATURE]
            .iter()
            .any(|name| headers.contains_key(*name))
        {
            return SignedHeaders::of(headers).map(Credentials::Signed);
        }
        if !headers.contains_key(AUTHORIZATION) {
            return Err(SignatureError::Unsigned);
        }
        let expected = self.token.as_ref().ok_or(SignatureError::NoToken)?;
        let given = bearer(only(headers, "authorization")?).ok_or(SignatureError::Unsigned)?;
        if is_same_token(expected, given) {
            Ok(Credentials::Token)
        } else {
            Err(SignatureError::WrongToken)
        }
    }

    pub fn verify<'a>(
        &self,
        credentials: Credentials<'a>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Proof<'a>, SignatureError> {
        match credentials {
            Credentials::Signed(signed) => {
                verify(&self.secrets, &signed, body, now, self.tolerance)?;
                Ok(Proof::Signature { id: signed.id })
            }
            Credentials::Token => Ok(Proof::Token),
        }
    }
}

/// The three headers of a signed delivery, each there once and of sound form.
#[derive(Debug, Clone, Copy)]
pub struct SignedHeaders<'a> {
    id: &'a str,
    /// As received: these very characters were signed.
    timestamp: &'a str,
    /// The same, as a number of at most twelve digits.
    unix_seconds: i64,
    signatures: &'a str,
}

impl<'a> SignedHeaders<'a> {
    pub fn of(headers: &'a HeaderMap) -> Result<Self, SignatureError> {
        let text = |header| {
            only(headers, header)?
                .to_str()
                .map_err(|_| SignatureError::NotText { header })
        };
        Self::new(text(ID)?, text(TIMESTAMP)?, text(SIGNATURE)?)
    }

    pub fn new(
        id: &'a str,
        timestamp: &'a str,
        signatures: &'a str,
    ) -> Result<Self, SignatureError> {
        if !is_sane_id(id) {
            return Err(SignatureError::BadId);
        }
        let sound = (1..=12).contains(&timestamp.len())
            && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let unix_seconds = timestamp
            .parse()
            .ok()
            .filter(|_| sound)
            .ok_or(SignatureError::BadTimestamp)?;
        Ok(Self {
            id,
            timestamp,
            unix_seconds,
            signatures,
        })
    }
}

/// Dots separate what is signed (`id.timestamp.body`): with one in the id, two deliveries could have one signature.
fn is_sane_id(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'.';
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(is_allowed)
}

fn only<'a>(
    headers: &'a HeaderMap,
    header: &'static str,
) -> Result<&'a HeaderValue, SignatureError> {
    let mut values = headers.get_all(header);
    let value = values.next().ok_or(SignatureError::Missing { header })?;
    match values.next() {
        None => Ok(value),
        Some(_) => Err(SignatureError::Repeated { header }),
    }
}

/// Checks the signature before the age, so that a wrong secret and a late delivery are told apart.
pub fn verify(
    secrets: &[WebhookSecret],
    headers: &SignedHeaders<'_>,
    body: &[u8],
    now: Timestamp,
    tolerance: Duration,
) -> Result<(), SignatureError> {
    let mut signatures = headers
        .signatures
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .take(MOST_SIGNATURES)
        .peekable();
    if signatures.peek().is_none() {
        return Err(SignatureError::UnknownVersion);
    }
    if secrets.is_empty() {
        return Err(SignatureError::NoSecret);
    }

    let macs: Vec<_> = secrets
        .iter()
        .map(|secret| mac(secret, headers.id, headers.timestamp, body))
        .collect();
    let is_genuine = signatures
        .filter_map(|signature| BASE64_STANDARD.decode(signature).ok())
        .any(|signature| {
            macs.iter()
                .any(|mac| mac.clone().verify_slice(&signature).is_ok())
        });
    if !is_genuine {
        return Err(SignatureError::WrongSignature);
    }

    let now = now.as_second();
    let by = Duration::from_secs(now.abs_diff(headers.unix_seconds));
    if by <= tolerance {
        Ok(())
    } else if headers.unix_seconds < now {
        Err(SignatureError::TooOld { by })
    } else {
        Err(SignatureError::TooNew { by })
    }
}

/// One entry for `webhook-signature`.
#[must_use]
pub fn sign(secret: &WebhookSecret, id: &str, timestamp: Timestamp, body: &[u8]) -> String {
    let mac = mac(secret, id, &timestamp.as_second().to_string(), body);
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    format!("v1,{signature}")
}

fn mac(secret: &WebhookSecret, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC is defined for keys of any length")]
    let mac = Hmac::<Sha256>::new_from_slice(secret.key()).expect("HMAC takes a key of any length");
    mac.chain_update(id)
        .chain_update(".")
        .chain_update(timestamp)
        .chain_update(".")
        .chain_update(body)
}

/// The credentials of `Authorization: Bearer …`; the scheme may be in any case.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// Hashes first, so that the comparison takes as long for every length.
fn is_same_token(expected: &SecretString, given: &[u8]) -> bool {
    let expected = Sha256::digest(expected.expose_secret());
    expected.ct_eq(&Sha256::digest(given)).into()
}

#[cfg(test)]
mod tests;
