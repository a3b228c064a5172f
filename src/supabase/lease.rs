//! The lease: of all services that accept events, one works on amoCRM.

use std::time::Duration;

use serde_json::json;

use super::{Supabase, SupabaseError, wire};

const FUNCTION: &str = "tripwire_sync_lease";

/// The answer to a request for the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseAnswer {
    Granted,
    /// Another service holds the lease. After a release: this service did not hold it.
    Refused,
    /// There is no such function: the migration was not applied.
    NoFunction,
}

impl Supabase {
    /// Takes or renews the lease for so many seconds from now; 0 gives it back.
    pub async fn lease(
        &self,
        holder: &str,
        seconds: u32,
        within: Duration,
    ) -> Result<LeaseAnswer, SupabaseError> {
        let transport = &self.shared.transport;
        let asked = json!({ "holder": holder, "seconds": seconds }).to_string();
        let mut request = transport.request(self.shared.api.rpc(FUNCTION, asked));
        *request.timeout_mut() = Some(within);
        match transport.ask("lease", request).await {
            Ok(answer) => match serde_json::from_slice(&answer.body) {
                Ok(true) => Ok(LeaseAnswer::Granted),
                Ok(false) => Ok(LeaseAnswer::Refused),
                Err(_) => Err(SupabaseError::Malformed {
                    what: "neither true nor false",
                }),
            },
            Err(error) if wire::is_missing_function(&error) => Ok(LeaseAnswer::NoFunction),
            Err(error) => Err(error),
        }
    }
}
