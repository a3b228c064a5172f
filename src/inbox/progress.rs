//! What is done and decided for one row: which deal, how far its writes came, and which of them may be in flight.

mod stored;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{ContactId, DealId, KeyedHash, PipelineId, StageId};
use stored::StoredStep;

/// What is done and decided for one row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Keyed hash of the row's e-mail, once it was read.
    pub person: Option<KeyedHash>,
    /// Keyed hash of the row's phone, if it has a usable one.
    pub phone: Option<KeyedHash>,
    /// When the row was first found absent while other rows could be read.
    pub absent_since: Option<Timestamp>,
    /// When no contact was first found for the row.
    pub missed_since: Option<Timestamp>,
    pub daily_searches: DailySearches,
    #[serde(flatten)]
    pub step: Step,
    /// The last move of a deal for this row. Stored before the move is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved: Option<Move>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<Undo>,
    /// amoCRM rejected a bulk write that this entry was part of: it is sent alone from now on.
    pub alone: bool,
    /// How often an answer that it needs could not be read.
    pub unreadable: u32,
}

/// How far a row has come in amoCRM. A write that may be in flight belongs to the step that it ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredStep", into = "StoredStep")]
pub enum Step {
    /// No deal is chosen.
    #[default]
    Begun,
    /// This deal is to be used. Nothing is written for the row.
    Chosen(Choice),
    /// The create may be in flight: its answer is not known (yet).
    Creating(Create),
    /// The deal is in its place.
    Placed {
        choice: Choice,
        how: Placed,
        /// `Some`: the note may be in flight. The time is that of [`Create::resolve_after`].
        note_resolve_after: Option<Timestamp>,
    },
    /// The note is on the deal.
    Noted { choice: Choice, how: Placed },
}

/// The deal of a row, stored before the first write and never decided again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Keyed hash of e-mail and phone at the time of the choice: if it changes before the first write, decide anew.
    pub fingerprint: KeyedHash,
    pub contact: Option<ContactId>,
    pub deal: DealId,
    pub why: Why,
}

/// A move of a deal inside its pipeline: where the deal came from. Entries of an earlier version have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub deal: DealId,
    pub pipeline: PipelineId,
    pub from: StageId,
    pub to: StageId,
    /// When it was about to be sent.
    pub at: Timestamp,
}

/// How far a person's wish to undo the move has come. An entry whose deal is back keeps its other steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Asked for before the deal's id was in its row: the id is written first.
    After,
    Asked,
    /// The way back may be in flight.
    Sent,
    /// The deal stands where it came from.
    Back,
    /// `retry` after `Back`: the deal is to be moved forward again.
    Again,
    Left(UndoLeft),
}

/// Why a move is not undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoLeft {
    /// The inbox has no such entry (any more).
    Unknown,
    NotFinished,
    /// The entry ended without a deal of ours.
    NotSynced,
    /// The deal stood at or after the target.
    NotMoved,
    /// amoCRM cannot delete a deal.
    Created,
    /// An earlier version moved the deal.
    OriginUnknown,
    AlreadyUndone,
    /// People moved the deal, or another row has it in its place since.
    MovedSince,
    DealGone,
    /// The stage that the deal came from is no stage that a deal can be moved to.
    StageGone,
    /// amoCRM rejects the way back.
    Refused,
    /// Another machine does the syncing, and does not know of the wish.
    Withdrawn,
}

/// A create that was about to be sent. Resolved by looking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// As in [`Choice`].
    pub fingerprint: KeyedHash,
    pub made_for: CreateFor,
    /// Keyed hash of the exact name of the deal.
    pub name: KeyedHash,
    /// From this time on (our clock), an empty look proves that the write did not happen and will not.
    pub resolve_after: Timestamp,
}

/// The contact of the deal to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreateFor {
    /// A contact that is there.
    Contact {
        contact: ContactId,
        /// The highest deal id known for the contact before the write: a lost create has a higher one.
        after_deal: DealId,
    },
    /// A contact that is made with the deal.
    NewContact {
        /// The highest contact id of the account before the write, for the same purpose.
        after_contact: ContactId,
    },
}

/// The rule that picked a deal, the best one first; or why one is made. An earlier version stored the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    #[serde(alias = "recorded for this person")]
    Recorded,
    Open,
    #[serde(alias = "recently closed, on the target stage")]
    ClosedOnTarget,
    #[serde(alias = "recently won")]
    ClosedWon,
    #[serde(alias = "recently lost")]
    ClosedLost,
    #[serde(alias = "no usable deal")]
    NoDeal,
    #[serde(alias = "no contact")]
    NoContact,
}

/// How the deal came to stand where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placed {
    Moved,
    /// It stood at or after the target already.
    Left,
    Created,
}

/// The searches of a waiting row, one a day. Entries of an earlier version have none, and begin at zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DailySearches {
    /// How many found no contact.
    pub in_vain: u32,
    /// From this time on (our clock), a search counts for the next day.
    pub next_from: Option<Timestamp>,
}

impl Create {
    #[must_use]
    pub fn why(&self) -> Why {
        match self.made_for {
            CreateFor::Contact { .. } => Why::NoDeal,
            CreateFor::NewContact { .. } => Why::NoContact,
        }
    }

    /// The deal was made, or found; with its contact, if that was made with it.
    #[must_use]
    pub fn made(&self, deal: DealId, contact: Option<ContactId>) -> Step {
        let contact = match self.made_for {
            CreateFor::Contact { contact, .. } => Some(contact),
            CreateFor::NewContact { .. } => contact,
        };
        Step::Placed {
            choice: Choice {
                fingerprint: self.fingerprint,
                contact,
                deal,
                why: self.why(),
            },
            how: Placed::Created,
            note_resolve_after: None,
        }
    }
}

impl Step {
    /// The chosen deal.
    #[must_use]
    pub fn deal(&self) -> Option<DealId> {
        Some(self.choice()?.deal)
    }

    /// The chosen deal, and why it was chosen.
    #[must_use]
    pub fn choice(&self) -> Option<&Choice> {
        match self {
            Self::Begun | Self::Creating(_) => None,
            Self::Chosen(choice) | Self::Placed { choice, .. } | Self::Noted { choice, .. } => {
                Some(choice)
            }
        }
    }

    #[must_use]
    pub fn contact(&self) -> Option<ContactId> {
        match self {
            Self::Creating(Create {
                made_for: CreateFor::Contact { contact, .. },
                ..
            }) => Some(*contact),
            _ => self.choice()?.contact,
        }
    }

    /// Why this deal, or why one is made.
    #[must_use]
    pub fn why(&self) -> Option<Why> {
        match self {
            Self::Creating(create) => Some(create.why()),
            _ => Some(self.choice()?.why),
        }
    }

    #[must_use]
    pub fn placed(&self) -> Option<Placed> {
        match self {
            Self::Placed { how, .. } | Self::Noted { how, .. } => Some(*how),
            Self::Begun | Self::Chosen(_) | Self::Creating(_) => None,
        }
    }

    #[must_use]
    pub fn is_noted(&self) -> bool {
        matches!(self, Self::Noted { .. })
    }

    /// From this time on, an empty look for the write in flight proves that it did not happen.
    #[must_use]
    pub fn resolve_after(&self) -> Option<Timestamp> {
        match self {
            Self::Creating(create) => Some(create.resolve_after),
            Self::Placed {
                note_resolve_after, ..
            } => *note_resolve_after,
            Self::Begun | Self::Chosen(_) | Self::Noted { .. } => None,
        }
    }

    /// Replaces the time of [`Step::resolve_after`].
    pub fn set_resolve_after(&mut self, from: Timestamp) {
        match self {
            Self::Creating(create) => create.resolve_after = from,
            Self::Placed {
                note_resolve_after: Some(resolve_after),
                ..
            } => *resolve_after = from,
            Self::Begun | Self::Chosen(_) | Self::Placed { .. } | Self::Noted { .. } => {}
        }
    }

    /// Records that the write in flight was certainly not carried out: no look for it is needed.
    pub fn forget_write(&mut self) {
        match self {
            Self::Creating(_) => *self = Self::Begun,
            Self::Placed {
                note_resolve_after, ..
            } => *note_resolve_after = None,
            Self::Begun | Self::Chosen(_) | Self::Noted { .. } => {}
        }
    }

    /// The chosen deal is in its place. A note that is there stays.
    pub fn place(&mut self, how: Placed) {
        match self {
            Self::Chosen(choice) => {
                *self = Self::Placed {
                    choice: choice.clone(),
                    how,
                    note_resolve_after: None,
                };
            }
            Self::Placed { how: known, .. } | Self::Noted { how: known, .. } => *known = how,
            Self::Begun | Self::Creating(_) => {}
        }
    }

    /// Records that the note is about to be sent.
    pub fn begin_note(&mut self, resolve_after: Timestamp) {
        if let Self::Placed {
            note_resolve_after, ..
        } = self
        {
            *note_resolve_after = Some(resolve_after);
        }
    }

    /// The note is on the deal.
    pub fn note(&mut self) {
        if let Self::Placed { choice, how, .. } = self {
            *self = Self::Noted {
                choice: choice.clone(),
                how: *how,
            };
        }
    }

    /// Whether writes to amoCRM may still follow for the chosen deal: no other entry may work on this person.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self, Self::Begun | Self::Noted { .. })
    }

    /// Something of this row has, or may have, reached amoCRM.
    #[must_use]
    pub fn has_written(&self) -> bool {
        !matches!(self, Self::Begun | Self::Chosen(_))
    }
}

impl Progress {
    /// The move of the chosen deal, if it was sent and no answer says what has become of it.
    #[must_use]
    pub fn move_in_doubt(&self) -> Option<Move> {
        let Step::Chosen(choice) = &self.step else {
            return None;
        };
        self.moved.filter(|it| it.deal == choice.deal)
    }

    /// As [`Step::has_written`], for all writes of the entry.
    #[must_use]
    pub fn has_written(&self) -> bool {
        self.step.has_written() || self.move_in_doubt().is_some()
    }

    /// As [`Step::is_open`], for all writes of the entry.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.step.is_open() || self.undo == Some(Undo::Sent)
    }

    /// The next attempt moves the deal back, and does nothing else.
    #[must_use]
    pub fn is_to_be_undone(&self) -> bool {
        matches!(self.undo, Some(Undo::Asked | Undo::Sent))
    }

    /// The move that put the deal in its place, if this entry moved it and knows from where.
    #[must_use]
    pub fn placing_move(&self) -> Option<Move> {
        let deal = self.step.choice()?.deal;
        let is_moved = self.step.placed() == Some(Placed::Moved);
        self.moved.filter(|it| is_moved && it.deal == deal)
    }

    /// The part of the progress that is valid under another hash key. A choice without a write is made anew. A lost create
    /// is then found as a deal of the contact.
    #[must_use]
    pub fn without_hashes(self) -> Self {
        let step = match self.step {
            Step::Begun | Step::Chosen(_) | Step::Creating(_) => Step::Begun,
            step @ (Step::Placed { .. } | Step::Noted { .. }) => step,
        };
        Self {
            person: None,
            phone: None,
            step,
            ..self
        }
    }
}
