//! The history of each row, line by line.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;

use super::{
    InboxError, Outcome, Settlement, UndoLeft, Why,
    record::{execute, json},
};
use crate::domain::{DealId, StageId};

/// Lines kept of a row's history: a row that is looked up daily for three months has about a hundred.
const KEPT: i64 = 200;

/// One line of a row's history: an arrival, a command, or an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    pub at: Timestamp,
    /// In the order in which they happened.
    pub facts: Vec<Fact>,
}

/// What happened to an entry. The name of a variant is its name on disk. Ids, rules and error classes only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A delivery told of the row; its `webhook-id`.
    Delivery(String),
    Sweep,
    Backfill,
    /// Read from a damaged inbox.
    CarriedOver,

    Retry,
    ParkedByHand,
    /// The operation that was refused for the row works for another one.
    WorksForAnother,
    ContactSeen,

    ContactByPhone,
    ContactByBeginning,
    DealChosen(DealId, Why),
    /// As an earlier version tells it, which did not keep the stages.
    Moved,
    MovedFrom {
        from: StageId,
        to: StageId,
    },
    DealCreated(DealId),
    /// A person asked for the undo.
    Undo,
    MovedBack {
        from: StageId,
        to: StageId,
    },
    UndoLeft(UndoLeft),
    Noted,
    /// The deal of an earlier attempt, whose answer was lost.
    DealFound(DealId),
    /// As `DealFound`.
    NoteFound,
    /// Made before this entry, or by another service.
    NoteWasThere,

    SendingStopped,
    OneAtATime,
    PersonUnknown,
    PersonAtWork,
    PersonUnfinished,
    ContactAtWork,
    ContactUnfinished,
    IndexBehind,
    TargetUnusable,
    EmailChanged,
    /// The choice was made for another e-mail or phone.
    PersonChanged,
    DealGone,
    CreateNeverHappened,
    MoveNeverHappened,
    /// The deal of a create that was given up as never carried out.
    LateDeal(DealId),
    MoveInDoubt,
    CreateInDoubt,
    NoteInDoubt,
    BrokenOff,
    /// A failure that is not the row's fault, in Russian.
    Failed(String),

    Done(Outcome),
    Again(Option<String>),
    Waiting(String),
    Parked(String),

    /// A whole line in the words of an earlier version.
    #[serde(skip)]
    Earlier(String),
}

impl Fact {
    /// A request was sent that changes something in amoCRM.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Moved
                | Self::MovedFrom { .. }
                | Self::DealCreated(_)
                | Self::Noted
                | Self::MoveInDoubt
                | Self::CreateInDoubt
                | Self::NoteInDoubt
        )
    }
}

impl From<&Settlement> for Fact {
    fn from(settlement: &Settlement) -> Self {
        match settlement {
            Settlement::Done(outcome) => Self::Done(*outcome),
            Settlement::Again { reason, .. } => Self::Again(reason.clone()),
            Settlement::Waiting { reason, .. } => Self::Waiting(reason.clone()),
            Settlement::Parked { reason } => Self::Parked(reason.clone()),
        }
    }
}

/// The facts of a line as it is stored.
pub(super) fn read(text: String) -> Vec<Fact> {
    serde_json::from_str(&text).unwrap_or_else(|_| vec![Fact::Earlier(text)])
}

/// An entry by its key, the number of its newest event, and what happened.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a>(pub(super) i64, pub(super) i64, pub(super) &'a [Fact]);

/// Appends these lines. Each pushes an old one out once the history of its entry is long.
pub(super) async fn append(
    conn: &mut SqliteConnection,
    now: Timestamp,
    lines: &[Line<'_>],
) -> Result<(), InboxError> {
    if lines.is_empty() {
        return Ok(());
    }
    let write = sqlx::query(
        "INSERT INTO history (entry, nr, at, text)
         SELECT value ->> 0, value ->> 1, ?2, value ->> 2 FROM json_each(?1)",
    )
    .bind(json("history", lines)?)
    .bind(now.as_millisecond());
    execute(conn, "write history", write).await?;

    let old = lines.iter().map(|Line(entry, nr, _)| (*entry, nr - KEPT));
    let old: Vec<(i64, i64)> = old.filter(|(_, nr)| *nr > 0).collect();
    if old.is_empty() {
        return Ok(());
    }
    let shorten = sqlx::query(
        "DELETE FROM history
         WHERE (entry, nr) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))",
    )
    .bind(json("history", &old)?);
    execute(conn, "shorten history", shorten).await.map(drop)
}
