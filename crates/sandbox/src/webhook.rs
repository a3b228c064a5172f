//! The insert trigger and `pg_net`: a signed delivery for every insert, sent once, never again.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{lock, postgrest::reference};

/// Where deliveries go.
#[derive(Debug, Clone)]
pub struct WebhookTarget {
    pub url: String,
    /// `whsec_…`
    pub secret: SecretString,
}

/// What became of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub row: Uuid,
    /// `webhook-id`
    pub id: String,
    /// `None`: no answer came in time.
    pub status: Option<u16>,
}

/// `pg_net` sends at most a batch at a time.
const AT_ONCE: usize = 128;
/// What the trigger gives `net.http_post`.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(crate) struct Sender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    target: WebhookTarget,
    client: reqwest::Client,
    slots: Semaphore,
    under_way: TaskTracker,
    sent: AtomicU64,
    deliveries: Mutex<Vec<Delivery>>,
}

impl Sender {
    pub(crate) fn new(target: WebhookTarget) -> Self {
        // The first caller in the process installs the crypto provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self(Arc::new(Inner {
            target,
            client: client(),
            slots: Semaphore::new(AT_ONCE),
            under_way: TaskTracker::new(),
            sent: AtomicU64::new(0),
            deliveries: Mutex::default(),
        }))
    }

    /// Does not wait.
    pub(crate) fn send(&self, row: Uuid, created_at: &Value, now: Timestamp) {
        let sender = self.clone();
        let created_at = created_at.clone();
        self.0.under_way.spawn(async move {
            sender.deliver(row, &created_at, now).await;
        });
    }

    pub(crate) async fn deliver(&self, row: Uuid, created_at: &Value, now: Timestamp) -> Delivery {
        let inner = &self.0;
        let number = inner.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let id = format!("msg_{}_{number}", reference(row));
        let body = payload(row, created_at);
        let timestamp = now.as_second();
        let signature = sign(&inner.target.secret, &id, timestamp, &body);

        let slot = inner.slots.acquire().await;
        let answer = inner
            .client
            .post(&inner.target.url)
            .timeout(TIMEOUT)
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body)
            .send()
            .await;
        drop(slot);
        let delivery = Delivery {
            row,
            id,
            status: answer.ok().map(|answer| answer.status().as_u16()),
        };
        lock(&inner.deliveries).push(delivery.clone());
        delivery
    }

    pub(crate) async fn all(&self) -> Vec<Delivery> {
        let inner = &self.0;
        inner.under_way.close();
        inner.under_way.wait().await;
        inner.under_way.reopen();
        lock(&inner.deliveries).clone()
    }
}

/// A client without a proxy, even if the environment names one: deliveries stay on this machine.
#[expect(clippy::expect_used, reason = "as in `reqwest::Client::new`")]
fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client without settings of its own")
}

/// The very text that Postgres makes of the trigger's jsonb.
fn payload(row: Uuid, created_at: &Value) -> String {
    jsonb_text(&json!({
        "type": "INSERT", "table": "tripwire_users", "schema": "public",
        "record": {"id": row.to_string(), "created_at": created_at}, "old_record": null,
    }))
}

/// Keys by length, then by bytes; a space after every comma and colon.
fn jsonb_text(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| (key.len(), key.as_bytes()));
            let fields: Vec<String> = fields
                .into_iter()
                .map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), jsonb_text(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(jsonb_text).collect();
            format!("[{}]", items.join(", "))
        }
        plain => plain.to_string(),
    }
}

fn sign(secret: &SecretString, id: &str, timestamp: i64, body: &str) -> String {
    // Without a usable secret the signature is wrong, and the receiver says so.
    let key = key_of(secret.expose_secret()).unwrap_or_default();
    let signature = hmac(&key, &format!("{id}.{timestamp}.{body}"));
    format!("v1,{}", STANDARD.encode(signature))
}

/// The key that a `whsec_…` stands for. `None`: the trigger takes no such secret.
fn key_of(secret: &str) -> Option<Vec<u8>> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_")?).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// What the database shows of a secret in place of it. `None`: it is no secret.
pub(crate) fn fingerprint(secret: &str) -> Option<String> {
    let hash = hmac(&key_of(secret)?, "tripwire-sync doctor");
    let first = hash.iter().take(8);
    Some(first.fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    // A key of any length will do.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|mac| mac.chain_update(text).finalize().into_bytes().to_vec())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_what_postgres_writes() {
        let row: Uuid = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        let created_at = json!("2026-11-22T09:39:56.123456+00:00");
        assert_eq!(
            payload(row, &created_at),
            r#"{"type": "INSERT", "table": "tripwire_users", "record": {"id": "00000000-0000-4000-8000-000000000001", "created_at": "2026-11-22T09:39:56.123456+00:00"}, "schema": "public", "old_record": null}"#
        );
    }

    #[test]
    fn the_signature_is_that_of_the_standard() {
        let body = jsonb_text(&json!({
            "type": "INSERT", "table": "tripwire_users", "schema": "public", "old_record": null,
            "record": {"id": "00000000-0000-4000-8000-000000000002", "email": "ivan@example.com",
                "full_name": "Иван «Пётр» Ёлкин \"😀\"", "amocrm_deal_id": null},
        }));
        let secret = SecretString::from("whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMi0wMDAyLTAwMDI=");
        assert_eq!(
            sign(&secret, "msg_tw_0002", 1_795_330_123, &body),
            "v1,+gJNcVTWWaNnTBh820YExm8YJHhi3/k9Fk7zBRTla1A="
        );
    }
}
