//! The log line and the metrics of an attempt that is over.

use std::time::Duration;

use jiff::Timestamp;

use super::row::Ended;
use crate::{
    domain::DealId,
    inbox::{Outcome, Settlement},
};

/// Logs the one line of an attempt, which `docs/operation.md` documents.
pub(super) fn attempt(ended: &Ended, duration: Duration, now: Timestamp) {
    let Ended {
        attempt,
        settlement: end,
        created_at,
    } = ended;
    let outcome = outcome_name(end);
    metrics::counter!("tripwire_attempts_total", "outcome" => outcome).increment(1);
    if let (Settlement::Done(Outcome::Synced), Some(created_at)) = (end, created_at) {
        let took = now.duration_since(*created_at).as_secs_f64();
        metrics::histogram!("tripwire_insert_to_write_back_seconds").record(took.max(0.0));
    }
    let (next_attempt, reason) = match end {
        Settlement::Again { due_at, reason, .. } => (Some(*due_at), reason.as_deref()),
        Settlement::Waiting { due_at, reason } => (Some(*due_at), Some(reason.as_str())),
        Settlement::Parked { reason } => (None, Some(reason.as_str())),
        Settlement::Done(_) => (None, None),
    };
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                row.id = %attempt.row(),
                deal.id = attempt.deal().map(DealId::get),
                delivery.id = attempt.entry.delivery,
                outcome,
                attempt = attempt.entry.attempts.saturating_add(1),
                duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
                next_attempt = next_attempt.map(|at| at.to_string()),
                reason,
                "sync.attempt"
            )
        };
    }
    match end {
        Settlement::Parked { .. } => line!(error),
        Settlement::Again { failed: true, .. } => line!(warn),
        Settlement::Again { .. } | Settlement::Waiting { .. } | Settlement::Done(_) => line!(info),
    }
}

fn outcome_name(end: &Settlement) -> &'static str {
    match end {
        Settlement::Done(outcome) => outcome.as_str(),
        Settlement::Again { failed: true, .. } => "retry",
        Settlement::Again { failed: false, .. } => "later",
        Settlement::Waiting { .. } => "waiting",
        Settlement::Parked { .. } => "parked",
    }
}
