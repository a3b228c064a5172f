//! The entries of the inbox, and the types of its commands and answers.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray, VariantNames};

use super::{history::Fact, progress::Progress};
use crate::domain::{ContactId, DealId, KeyedHash, RowId};

/// The live lane holds new purchases and goes first. The backfill lane holds rows of an explicit backfill.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub enum Lane {
    Live,
    Backfill,
}

/// How we learnt of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A signed delivery; its `webhook-id` is kept so that the logs of both sides can be joined.
    Webhook { delivery: String },
    /// As `Sweep`, among the newest rows.
    ShortSweep,
    /// Seen in the table without a deal id: re-opens a `done` entry, its completed steps stay.
    Sweep,
    /// As `Sweep`, asked for by a person; may be older than `SYNC_SINCE`.
    Backfill(BackfillId),
}

/// One explicit backfill, by its number in this inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackfillId(pub(crate) i64);

impl BackfillId {
    #[must_use]
    pub fn number(self) -> i64 {
        self.0
    }
}

impl std::fmt::Display for BackfillId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub row: RowId,
    pub source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    New,
    /// It was `done` and is pending again.
    Reopened,
    Duplicate,
}

#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    sqlx::Type,
    IntoStaticStr,
    EnumString,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum State {
    Pending,
    Claimed,
    Waiting,
    Parked,
    Done,
}

/// How an entry ended. `into_str`: the name on disk, in logs, metrics and answers.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    sqlx::Type,
    IntoStaticStr,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Outcome {
    /// The deal is in place, noted, and its id is in the row.
    Synced,
    /// The row had a deal id before we touched anything.
    AlreadyLinked,
    /// The row's status says that this student is not to be synced.
    Skipped,
    /// Created before `SYNC_SINCE`, and no `backfill` asked for it.
    TooOld,
    /// The row was removed.
    Gone,
    /// A person had the move undone: the deal is back, and the row keeps its id. No sweep or backfill opens the entry.
    Undone,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub row: RowId,
    pub lane: Lane,
    pub state: State,
    pub due_at: Timestamp,
    /// Failed attempts since the entry was opened; the backoff grows with it.
    pub attempts: u32,
    /// `webhook-id` of the first delivery of the row, if any.
    pub delivery: Option<String>,
    pub outcome: Option<Outcome>,
    /// The last backfill that asked for the row, if any did.
    pub backfill: Option<BackfillId>,
    /// Why it waits, is parked, or last failed. Russian, no personal data.
    pub reason: Option<String>,
    pub progress: Progress,
    pub stored_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Proof that this process holds the entries of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimToken(pub(crate) i64);

/// Entries claimed together, oldest first. All are of one lane: a live row must not wait for the work of a backfill.
#[derive(Debug)]
pub struct Claim {
    pub token: ClaimToken,
    pub lane: Lane,
    pub entries: Vec<Entry>,
}

/// How the entries of an inbox came to be known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    pub entries: u64,
    /// Entries with a delivery, before or after a sweep found the row.
    pub by_delivery: u64,
    /// When the newest of these was stored.
    pub last_by_delivery: Option<Timestamp>,
    /// Entries stored after the newest one with a delivery, without those of backfills.
    pub since_by_sweep: u64,
}

/// The rows that were synced in a period, by what told of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Synced {
    /// An event came, perhaps later than a sweep.
    pub by_event: u64,
    pub by_sweep: u64,
    pub by_backfill: u64,
    /// The longest time from the first word of a row to its end, without backfills.
    pub longest: Option<Duration>,
}

/// Progress to be stored for a claimed entry.
#[derive(Debug, Clone)]
pub struct Mark {
    pub row: RowId,
    pub progress: Progress,
    /// What to remember of the person, in the same transaction.
    pub person: Option<(KeyedHash, Known)>,
}

/// The contact and deal that we last used for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub contact: ContactId,
    pub deal: DealId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    Done(Outcome),
    /// Back to pending. `failed` counts an attempt.
    Again {
        due_at: Timestamp,
        failed: bool,
        reason: Option<String>,
    },
    /// For a contact; looked up again at `due_at`, or earlier when the contact is seen.
    Waiting {
        due_at: Timestamp,
        reason: String,
    },
    Parked {
        reason: String,
    },
}

/// The end of an attempt.
#[derive(Debug, Clone)]
pub struct Settled {
    pub row: RowId,
    pub progress: Progress,
    pub settlement: Settlement,
    /// One line for the row's history.
    pub facts: Vec<Fact>,
}

/// Which entries become pending before their time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revival {
    /// These rows, unless claimed or `done`; what was undone is done again.
    Rows(Vec<RowId>),
    AllParked,
    /// These rows, if they are pending: what was refused for them works for another row.
    Suspects(Vec<RowId>),
    /// Waiting entries of these people, by e-mail or phone hash.
    Waiting(Vec<KeyedHash>),
}

/// A deal that stands in its place for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedFor {
    pub row: RowId,
    pub deal: DealId,
    /// When the deal was moved. If it was not, or the time is not known: the last change of the entry, which is later.
    pub at: Timestamp,
}

/// An unfinished entry that has chosen a deal: its person and contact are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenWork {
    pub row: RowId,
    pub person: Option<KeyedHash>,
    pub contact: Option<ContactId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub by_state: HashMap<State, u64>,
    /// Since when the oldest unfinished entry has been pending or claimed. Time spent parked, or waiting for a contact, does
    /// not count.
    pub oldest_pending: Option<Timestamp>,
}

/// What has become of the rows of one backfill by now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// An outcome is there where the state is `done`.
    pub by_end: HashMap<(State, Option<Outcome>), u64>,
    /// How many entries that wait for a contact are looked up again by the time given.
    pub waiting_briefly: u64,
    /// When the first of those that are pending or wait briefly falls due.
    pub next_due: Option<Timestamp>,
}

/// An entry that makes no progress, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    pub row: RowId,
    /// Russian, no personal data.
    pub reason: Option<String>,
    pub since: Timestamp,
}

impl Counts {
    /// Every state with its number, the empty ones too.
    pub fn each(&self) -> impl Iterator<Item = (State, u64)> {
        State::VARIANTS
            .iter()
            .map(|&state| (state, self.by_state.get(&state).copied().unwrap_or(0)))
    }

    /// As [`Counts::each`], by the states' names.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.each().map(|(state, count)| (state.into_str(), count))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Logs, metrics, answers and the inbox hold these names, so each stays as it is.
    #[test]
    fn the_names_of_states_and_outcomes_are_these() {
        assert_eq!(
            json!(State::VARIANTS),
            json!(["pending", "claimed", "waiting", "parked", "done"])
        );
        for state in State::VARIANTS {
            assert_eq!(json!(state), state.into_str());
        }
        assert_eq!(
            Outcome::VARIANTS,
            [
                "synced",
                "already_linked",
                "skipped",
                "too_old",
                "gone",
                "undone",
            ]
        );
    }
}
