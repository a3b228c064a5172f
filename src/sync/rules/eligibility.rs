//! What a row's own state says, before amoCRM is asked for anything. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::timings::Timings;
use crate::{
    domain::{Email, NotOneEmail},
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

/// What reading the row gave.
#[derive(Debug, Clone, Copy)]
pub enum RowRead<'a> {
    Present {
        row: &'a Row,
        /// By PostgREST's clock.
        read_at: Timestamp,
    },
    /// A control read returned some row, so this one is missing and not merely hidden.
    Absent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Eligibility {
    Proceed(Email),
    End(Settlement),
}

pub(in crate::sync) const STATUSES_SKIPPED: [&str; 2] = ["blocked", "inactive"];

/// Decides whether a row is synced now, and records in `progress` since when it is absent.
pub fn eligibility(
    rules: &RowRules,
    timings: &Timings,
    entry: Known,
    progress: &mut Progress,
    row_read: RowRead<'_>,
    now: Timestamp,
) -> Eligibility {
    let (row, read_at) = match row_read {
        RowRead::Present { row, read_at } => {
            progress.absent_since = None;
            (row, read_at)
        }
        RowRead::Absent => return absent(timings, progress, now),
    };

    // A create in doubt is looked for first: the deal in the row may be the one that it made.
    if let Some(filled) = &row.deal_id
        && !matches!(progress.step, Step::Creating(_))
        && !is_moved_again(progress, filled)
    {
        return Eligibility::End(already_filled(progress, filled));
    }
    // A row with a write to amoCRM is finished, whatever its status is by now.
    if !progress.step.has_written() {
        let status = row
            .status
            .as_deref()
            .unwrap_or_default()
            .trim()
            .to_lowercase();
        if STATUSES_SKIPPED.contains(&status.as_str()) {
            return Eligibility::End(Settlement::Done(Outcome::Skipped));
        }
        if !entry.is_asked_for && row.created_at.is_some_and(|at| at < rules.since) {
            return Eligibility::End(Settlement::Done(Outcome::TooOld));
        }
    }
    let delay = rules.settle_delay;
    if let Some(due_at) = row
        .created_at
        .and_then(|created_at| settles_at(delay, created_at, read_at, entry.stored_at, now))
    {
        return Eligibility::End(Settlement::Again {
            due_at,
            failed: false,
            reason: None,
        });
    }
    match Email::parse(row.email.as_deref().unwrap_or_default()) {
        Ok(email) => Eligibility::Proceed(email),
        Err(why) => Eligibility::End(Settlement::Parked {
            reason: match why {
                NotOneEmail::None | NotOneEmail::Unsound => "в строке нет правильного e-mail",
                NotOneEmail::Several => "в строке несколько e-mail: оставьте один",
            }
            .to_owned(),
        }),
    }
}

/// A person has said `retry` after an undo, so the deal in the row is moved forward again.
fn is_moved_again(progress: &Progress, filled: &str) -> bool {
    let deal = progress.step.choice().map(|choice| choice.deal.to_string());
    progress.undo == Some(Undo::Again) && deal.as_deref() == Some(filled.trim())
}

fn absent(timings: &Timings, progress: &mut Progress, now: Timestamp) -> Eligibility {
    let since = since(&mut progress.absent_since, now);
    let gone_at = later(since, timings.second_look);
    Eligibility::End(if now >= gone_at {
        Settlement::Done(Outcome::Gone)
    } else {
        Settlement::Again {
            due_at: gone_at,
            failed: false,
            reason: Some("строка не найдена, будет проверена ещё раз".to_owned()),
        }
    })
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

pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
