//! The test event: the database sends one as its trigger does, and tells what has become of it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Supabase, SupabaseError, doctor::is_no_function_of_ours};
use crate::domain::{EventFault, EventTest, Nonce};

const SEND: &str = "tripwire_sync_test_event";
const LOOK: &str = "tripwire_sync_test_result";

/// The longest reason that is passed on, in characters; the function's own are shorter.
const LONGEST_REASON: usize = 120;

/// How many times the answer is looked for within the patience.
const LOOKS: u32 = 20;

/// `pg_net`'s id of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct RequestId(i64);

/// What has become of a test event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TestResult {
    /// So many requests wait before it.
    Queued { ahead: u64 },
    /// It was sent, and this is what `pg_net` has noted.
    Answered(Noted),
    /// Neither queued nor answered, or another test event was sent since.
    #[serde(other)]
    Unknown,
}

/// What `pg_net` has noted of a request that it has sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Noted {
    /// `None`: no answer came.
    pub status: Option<u16>,
    pub timed_out: bool,
    /// libcurl's words.
    pub error: Option<String>,
    /// The first 200 characters of the body.
    pub content: Option<String>,
}

/// How far a test event came.
#[derive(Debug, Clone, PartialEq)]
pub enum Journey {
    /// There is no such function, or the role may not call it: the SQL in the database is an older one.
    NoFunction,
    /// Another was sent less than ten seconds ago; or others were under way all the time.
    TooSoon,
    /// Vault cannot be read, or lacks a usable secret or address.
    NotSigned {
        why: String,
    },
    /// `pg_net` did not take it.
    NotQueued {
        why: String,
    },
    /// `pg_net` has not sent it yet.
    Queued {
        ahead: u64,
        is_moving: bool,
    },
    /// It left the queue, and `pg_net` has noted no answer.
    Lost,
    Answered {
        noted: Noted,
        after: Duration,
    },
}

impl Journey {
    #[must_use]
    pub fn result(&self, nonce: Nonce) -> EventTest {
        EventTest::Failed(match self {
            Self::NoFunction => return EventTest::NotPossible,
            Self::TooSoon
            | Self::Queued {
                is_moving: true, ..
            } => return EventTest::Undecided,
            Self::NotSigned { .. } => EventFault::NotSigned,
            Self::NotQueued { .. } => EventFault::NotQueued,
            Self::Queued { .. } => EventFault::NotSent,
            Self::Lost => EventFault::NoAnswerNoted,
            Self::Answered { noted, .. } => match noted.status {
                None => EventFault::Unreachable,
                Some(200) => match Answer::read(noted.content.as_deref(), nonce) {
                    Answer::Ours | Answer::Older => return EventTest::Arrived,
                    Answer::Another => EventFault::AnotherServer,
                },
                Some(status) => EventFault::Refused(status),
            },
        })
    }
}

/// What a 200 says of the server that answered a test event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The service repeats the nonce of an event that it has verified. The nonce is in the event, so this is no proof against
    /// a server that means to deceive.
    Ours,
    /// An older version of the service, which verifies test events and ignores them.
    Older,
    Another,
}

impl Answer {
    #[must_use]
    pub fn read(content: Option<&str>, nonce: Nonce) -> Self {
        let answer: Value = content
            .and_then(|content| serde_json::from_str(content).ok())
            .unwrap_or_default();
        if answer["status"] == "test" && answer["nonce"] == nonce.to_string() {
            Self::Ours
        } else if answer["status"] == "ignored" {
            Self::Older
        } else {
            Self::Another
        }
    }
}

impl Supabase {
    /// Has the database send a test event, and waits for its answer as long as `patience`.
    pub async fn try_test_event(
        &self,
        nonce: Nonce,
        patience: Duration,
    ) -> Result<Journey, SupabaseError> {
        let pause = patience / LOOKS;
        let give_up_at = Instant::now() + patience + pause;
        let request = loop {
            match self.send_test_event(nonce).await? {
                Ok(request) => break request,
                Err(Journey::TooSoon) if Instant::now() < give_up_at => sleep(pause).await,
                Err(journey) => return Ok(journey),
            }
        };

        let sent_at = Instant::now();
        let mut first_ahead = None;
        loop {
            let result = self.test_result(request).await?;
            let is_late = sent_at.elapsed() >= patience;
            match result {
                TestResult::Answered(noted) => {
                    let after = sent_at.elapsed();
                    return Ok(Journey::Answered { noted, after });
                }
                TestResult::Queued { ahead } => {
                    let first = *first_ahead.get_or_insert(ahead);
                    if is_late {
                        let is_moving = ahead < first;
                        return Ok(Journey::Queued { ahead, is_moving });
                    }
                }
                TestResult::Unknown if is_late => return Ok(Journey::Lost),
                TestResult::Unknown => {}
            }
            sleep(pause).await;
        }
    }

    /// Has the database send a test event. One request. `Err` inside `Ok`: the event was not queued.
    pub async fn send_test_event(
        &self,
        nonce: Nonce,
    ) -> Result<Result<RequestId, Journey>, SupabaseError> {
        let transport = &self.shared.transport;
        let asked = json!({ "nonce": nonce }).to_string();
        let request = transport.request(self.shared.api.rpc(SEND, asked));
        let answer = transport.exchange("test_event", request).await?;
        if let Some(refused) = refused(&answer.body) {
            return Ok(Err(refused));
        }
        match transport.judge(answer) {
            Ok(answer) => {
                serde_json::from_slice(&answer.body)
                    .map(Ok)
                    .map_err(|_| SupabaseError::Malformed {
                        what: "no id of a request",
                    })
            }
            Err(error) if is_no_function_of_ours(&error) => Ok(Err(Journey::NoFunction)),
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
fn refused(body: &[u8]) -> Option<Journey> {
    let error: Value = serde_json::from_slice(body).ok()?;
    let why = || {
        let message = error["message"].as_str().unwrap_or_default();
        message.chars().take(LONGEST_REASON).collect()
    };
    match error["code"].as_str()? {
        "TW001" => Some(Journey::NotSigned { why: why() }),
        "TW002" => Some(Journey::NotQueued { why: why() }),
        "TW003" => Some(Journey::TooSoon),
        _ => None,
    }
}
