//! `tripwire_sync_test_event()` and `tripwire_sync_test_result()`. A test sets how far a test event comes.

use serde_json::json;

use super::{
    super::server::{Reply, Request},
    Behind, State,
    commands::{JSON, function_missing},
    error,
};

/// How far a test event comes, at most. It comes less far if Vault or `pg_net` is not set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventFate {
    /// The service verifies it, and its answer is on record.
    Verified,
    /// Something answers with this status and body.
    Answered { status: u16, content: String },
    /// The error that libcurl tells.
    Failed(String),
    /// `pg_net` does not take it: an SQLSTATE.
    NotQueued(String),
    /// The event waits behind `ahead` requests, of which `sent_a_look` are sent between two looks.
    Queued { ahead: u64, sent_a_look: u64 },
    /// It left the queue without an answer.
    Lost,
    /// Another one was sent a moment ago.
    TooSoon,
    /// The functions are those of older SQL.
    Unknown,
}

const REQUEST: u64 = 7;

impl State {
    pub(super) fn send_test_event(&mut self, request: &Request) -> Reply {
        let behind = &self.quirks.behind;
        let raised = |code: &str, message: &str| error(400, code, message, None);
        let body = request.json().unwrap_or_default();
        let Some(nonce) = body["nonce"].as_str() else {
            return raised("22023", "nonce must be 32 hex digits");
        };
        match &behind.event {
            EventFate::Unknown => function_missing("tripwire_sync_test_event"),
            _ if !behind.has_doctor => function_missing("tripwire_sync_test_event"),
            EventFate::TooSoon => raised(
                "TW003",
                "another test event was sent less than ten seconds ago",
            ),
            _ if behind.is_unsigned() => raised("TW001", "Vault has no usable entries"),
            _ if behind.pg_net.is_none() => raised("TW002", "SQLSTATE 3F000"),
            EventFate::NotQueued(code) => raised("TW002", &format!("SQLSTATE {code}")),
            _ => {
                self.test_event = Some(nonce.to_owned());
                Reply::new(200, JSON, REQUEST.to_string())
            }
        }
    }

    pub(super) fn test_result(&mut self) -> Reply {
        let answered = |status: Option<u16>, error: Option<&str>, content: Option<&str>| json!({"state": "answered", "status": status, "timed_out": false, "error": error, "content": content});
        let result = match (&mut self.quirks.behind.event, &self.test_event) {
            (EventFate::Verified, Some(nonce)) => {
                let content = json!({ "status": "test", "nonce": nonce }).to_string();
                answered(Some(200), None, Some(&content))
            }
            (EventFate::Answered { status, content }, Some(_)) => {
                answered(Some(*status), None, Some(content))
            }
            (EventFate::Failed(error), Some(_)) => answered(None, Some(error), None),
            (EventFate::Queued { ahead, sent_a_look }, Some(_)) => {
                *ahead = ahead.saturating_sub(*sent_a_look);
                json!({ "state": "queued", "ahead": ahead })
            }
            _ => json!({ "state": "unknown" }),
        };
        Reply::new(200, JSON, result.to_string())
    }
}

impl Behind {
    fn is_unsigned(&self) -> bool {
        self.vault_secret.is_none() || self.vault_url.is_none() || self.vault_error.is_some()
    }
}
