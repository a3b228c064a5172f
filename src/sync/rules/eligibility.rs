//! What a row's own state says, before amoCRM is asked for anything. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::timings::{Timings, later};
use crate::{
    domain::{DealId, Email, NotOneEmail},
    inbox::{Outcome, Progress, Settlement, Step, Undo},
    supabase::Row,
};

/// Which rows are synced.
#[derive(Debug, Clone, Copy)]
pub struct RowRules {
    /// Rows created earlier are left alone unless a person asks for them.
    pub since: Timestamp,
    /// No write before the row is this old: the manager's backend may still remove it.
    pub settle_delay: Duration,
}

/// What the entry knows of its row without reading it.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// A person asked for it by a backfill.
    pub is_asked_for: bool,
    /// When we learnt of the row.
    pub stored_at: Timestamp,
}

pub(in crate::sync) const STATUSES_SKIPPED: [&str; 2] = ["blocked", "inactive"];

/// The e-mail of a row that is to be synced now, else how its attempt ends. `read_at`: by PostgREST's clock.
pub fn eligibility(
    rules: &RowRules,
    entry: Known,
    progress: &mut Progress,
    row: &Row,
    read_at: Timestamp,
    now: Timestamp,
) -> Result<Email, Settlement> {
    progress.absent_since = None;
    if let Some(filled) = &row.deal_id
        && !is_in_doubt(progress, filled)
        && !is_moved_again(progress, filled)
    {
        return Err(already_filled(progress, filled));
    }
    // A row with a write to amoCRM is finished, whatever its status is by now.
    if !progress.has_written() {
        if is_skipped(row) {
            return Err(Settlement::Done(Outcome::Skipped));
        }
        if !entry.is_asked_for && row.created_at.is_some_and(|at| at < rules.since) {
            return Err(Settlement::Done(Outcome::TooOld));
        }
    }
    let delay = rules.settle_delay;
    if let Some(due_at) = row
        .created_at
        .and_then(|created_at| settles_at(delay, created_at, read_at, entry.stored_at, now))
    {
        return Err(Settlement::Again {
            due_at,
            failed: false,
            reason: None,
        });
    }
    Email::parse(row.email.as_deref().unwrap_or_default()).map_err(|why| Settlement::Parked {
        reason: match why {
            NotOneEmail::None | NotOneEmail::Unsound => "в строке нет правильного e-mail",
            NotOneEmail::Several => "в строке несколько e-mail: оставьте один",
        }
        .to_owned(),
    })
}

/// What amoCRM holds decides about the row: its deal may be the one that a create in doubt has made, or another one than a move
/// in doubt has moved.
fn is_in_doubt(progress: &Progress, filled: &str) -> bool {
    let is_another = |deal: DealId| deal.to_string() != filled.trim();
    matches!(progress.step, Step::Creating(_))
        || progress
            .move_in_doubt()
            .is_some_and(|it| is_another(it.deal))
}

/// No student is made of such a row.
pub(in crate::sync) fn is_skipped(row: &Row) -> bool {
    let status = row.status.as_deref().unwrap_or_default();
    STATUSES_SKIPPED.contains(&status.trim().to_lowercase().as_str())
}

/// A person has said `retry` after an undo, so the deal in the row is moved forward again.
fn is_moved_again(progress: &Progress, filled: &str) -> bool {
    let deal = progress.step.choice().map(|choice| choice.deal.to_string());
    progress.undo == Some(Undo::Again) && deal.as_deref() == Some(filled.trim())
}

/// How the attempt ends when a control read returned some row, so that this one is missing and not merely hidden. Records
/// in `progress` since when it is absent.
pub fn absent(timings: &Timings, progress: &mut Progress, now: Timestamp) -> Settlement {
    let since = since(&mut progress.absent_since, now);
    let gone_at = later(since, timings.second_look);
    if now >= gone_at {
        return Settlement::Done(Outcome::Gone);
    }
    Settlement::Again {
        due_at: gone_at,
        failed: false,
        reason: Some("строка не найдена, будет проверена ещё раз".to_owned()),
    }
}

/// The time of the first look, which is stored in `first`. A time in the future was stored before the clock was put
/// back, and is set to now.
pub(in crate::sync) fn since(first: &mut Option<Timestamp>, now: Timestamp) -> Timestamp {
    *first.insert(first.map_or(now, |at| at.min(now)))
}

/// What becomes of a row that has a deal id.
pub(in crate::sync) fn already_filled(progress: &Progress, filled: &str) -> Settlement {
    let ours = progress.step.choice().map(|choice| choice.deal);
    let ours = match ours {
        Some(deal) if deal.to_string() == filled.trim() => {
            return Settlement::Done(Outcome::Synced);
        }
        Some(deal) if progress.step.has_written() => deal,
        _ => return Settlement::Done(Outcome::AlreadyLinked),
    };
    // The column is free text: only what looks like an id is repeated.
    let filled = filled.trim();
    let is_id = filled.len() <= 20 && filled.bytes().all(|byte| byte.is_ascii_digit());
    let filled = if is_id { filled } else { "(не число)" };
    let reason = format!("в строке сделка {filled}, а сервис обработал сделку {ours}");
    Settlement::Parked { reason }
}

/// From when on the row has settled, by our clock; `None` when it has.
///
/// The age of a row is measured by the database's clock, which has dated it. The age of a row from the future (a local
/// time without its zone, a chosen date) counts from when its entry was stored.
fn settles_at(
    delay: Duration,
    created_at: Timestamp,
    read_at: Timestamp,
    stored_at: Timestamp,
    now: Timestamp,
) -> Option<Timestamp> {
    let (since, at) = if created_at > read_at {
        if stored_at > now {
            // The clock was put back since: how long ago that was is unknown.
            return None;
        }
        (stored_at, now)
    } else {
        (created_at, read_at)
    };
    let left = Duration::try_from(at.duration_until(later(since, delay))).ok()?;
    (!left.is_zero()).then(|| later(now, left))
}

#[cfg(test)]
mod tests;
