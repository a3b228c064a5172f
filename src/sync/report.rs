//! The log line and the metrics of an attempt that is over.

use std::time::Duration;

use jiff::Timestamp;
use tracing::Level;

use super::row::Ended;
use crate::{
    domain::DealId,
    inbox::{Fact, Outcome, Settlement},
};

/// Logs the one line of an attempt, which `docs/operation.md` documents.
pub(super) fn attempt(ended: &Ended, duration: Duration, now: Timestamp) {
    let Ended {
        attempt,
        settlement: end,
        created_at,
    } = ended;
    let outcome = match attempt.history.last() {
        Some(Fact::UndoLeft(_)) => "left",
        _ => outcome_name(end),
    };
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
    match level(end, attempt.entry.reason.as_deref(), &attempt.history) {
        Level::ERROR => line!(error),
        Level::WARN => line!(warn),
        Level::INFO => line!(info),
        _ => line!(debug),
    }
}

/// An attempt that sent nothing and left its entry as it was is logged at DEBUG alone: each waiting row has one a day.
/// `before`: the reason that the entry waited for until now.
fn level(end: &Settlement, before: Option<&str>, history: &[Fact]) -> Level {
    match end {
        Settlement::Parked { .. } => Level::ERROR,
        Settlement::Again { failed: true, .. } => Level::WARN,
        Settlement::Done(_) => Level::INFO,
        Settlement::Waiting { reason, .. } if before != Some(reason.as_str()) => Level::INFO,
        _ if history.iter().any(Fact::is_write) => Level::INFO,
        Settlement::Again { .. } | Settlement::Waiting { .. } => Level::DEBUG,
    }
}

fn outcome_name(end: &Settlement) -> &'static str {
    match end {
        Settlement::Done(outcome) => outcome.into_str(),
        Settlement::Again { failed: true, .. } => "retry",
        Settlement::Again { failed: false, .. } => "later",
        Settlement::Waiting { .. } => "waiting",
        Settlement::Parked { .. } => "parked",
    }
}

#[cfg(test)]
mod tests;
