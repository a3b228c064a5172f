//! The last `pause` or `resume`: kept beside the lease, so that it holds for all services on the project.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{Supabase, SupabaseError, wire};

const FUNCTION: &str = "tripwire_sync_pause";

/// What the database tells of pause and lease.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PauseAnswer {
    /// `None`: there was no pause and no resume yet.
    pub last: Option<LastPause>,
    /// The name of the service that holds the lease.
    pub held_by: Option<String>,
}

/// The last pause or resume.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct LastPause {
    /// `false`: a resume.
    pub is_paused: bool,
    /// By the database's clock. Each one is later than the one before.
    pub changed_at: Timestamp,
    /// How long ago that was when the database answered.
    pub seconds_ago: f64,
}

impl Supabase {
    /// Pauses (`true`) or resumes (`false`) all services, or only asks (`None`). Answers `None` if there is no such
    /// function: the migration was not applied.
    pub async fn pause(
        &self,
        paused: Option<bool>,
        within: Duration,
    ) -> Result<Option<PauseAnswer>, SupabaseError> {
        let transport = &self.shared.transport;
        // A question names no argument: a null is not understood by every server.
        let asked = paused.map_or(json!({}), |paused| json!({ "paused": paused }));
        let asked = asked.to_string();
        let mut request = transport.request(self.shared.api.rpc(FUNCTION, asked));
        *request.timeout_mut() = Some(within);
        match transport.ask("pause", request).await {
            Ok(answer) => {
                let answer = serde_json::from_slice(&answer.body);
                answer.map(Some).map_err(|_| SupabaseError::Malformed {
                    what: "not what the function of the pause says",
                })
            }
            Err(error) if wire::is_missing_function(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
