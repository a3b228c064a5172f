//! The test event: the database sends one as its trigger does, and tells what has become of it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Supabase, SupabaseError, doctor::is_no_function_of_ours};
use crate::domain::Nonce;

const SEND: &str = "tripwire_sync_test_event";
const LOOK: &str = "tripwire_sync_test_result";

/// The longest reason that is passed on, in characters; the function's own are shorter.
const LONGEST_REASON: usize = 120;

/// `pg_net`'s id of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct RequestId(i64);

/// What the database did when it was asked for a test event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestEvent {
    Queued(RequestId),
    /// Vault cannot be read, or lacks a usable secret or address.
    NotSigned {
        why: String,
    },
    /// `pg_net` did not take it.
    NotQueued {
        why: String,
    },
    /// Another was sent less than ten seconds ago.
    TooSoon,
    /// There is no such function, or the role may not call it: the SQL in the database is an older one.
    NoFunction,
}

/// What has become of a test event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TestResult {
    /// So many requests wait before it.
    Queued { ahead: u64 },
    /// It was sent, and this is what `pg_net` has noted.
    Answered {
        /// `None`: no answer came.
        status: Option<u16>,
        timed_out: bool,
        /// libcurl's words.
        error: Option<String>,
        /// The first 200 characters of the body.
        content: Option<String>,
    },
    /// Neither queued nor answered, or another test event was sent since.
    #[serde(other)]
    Unknown,
}

impl Supabase {
    /// Has the database send a test event. One request.
    pub async fn send_test_event(&self, nonce: Nonce) -> Result<TestEvent, SupabaseError> {
        let transport = &self.shared.transport;
        let asked = json!({ "nonce": nonce }).to_string();
        let request = transport.request(self.shared.api.rpc(SEND, asked));
        let answer = transport.exchange("test_event", request).await?;
        if let Some(refused) = refused(&answer.body) {
            return Ok(refused);
        }
        match transport.judge(answer) {
            Ok(answer) => serde_json::from_slice(&answer.body)
                .map(TestEvent::Queued)
                .map_err(|_| SupabaseError::Malformed {
                    what: "no id of a request",
                }),
            Err(error) if is_no_function_of_ours(&error) => Ok(TestEvent::NoFunction),
            Err(error) => Err(error),
        }
    }

    /// Asks what has become of a test event. One request.
    pub async fn test_result(&self, id: RequestId) -> Result<TestResult, SupabaseError> {
        let transport = &self.shared.transport;
        let asked = json!({ "id": id.0 }).to_string();
        let request = transport.request(self.shared.api.rpc(LOOK, asked));
        let answer = transport.ask("test_result", request).await?;
        serde_json::from_slice(&answer.body).map_err(|_| SupabaseError::Malformed {
            what: "not the result of a test event",
        })
    }
}

/// A refusal of the function itself, by its own error codes. The HTTP status may be any.
fn refused(body: &[u8]) -> Option<TestEvent> {
    let error: Value = serde_json::from_slice(body).ok()?;
    let why = || {
        let message = error["message"].as_str().unwrap_or_default();
        message.chars().take(LONGEST_REASON).collect()
    };
    match error["code"].as_str()? {
        "TW001" => Some(TestEvent::NotSigned { why: why() }),
        "TW002" => Some(TestEvent::NotQueued { why: why() }),
        "TW003" => Some(TestEvent::TooSoon),
        _ => None,
    }
}
