//! A row on its way through the steps: [`RowAt`] a stage, whose type says what is known of the row there.
//!
//! ```text
//! Attempt ─▶ Loaded ─▶ Matched ─▶ Chosen ─▶ Placed ─▶ Noted ─▶ Ended
//! claimed    the row   contacts   a deal,   the deal  the note
//!            was read  are known  or a plan stands    is there
//! ```
//!
//! A step takes rows of one stage and gives those that went on to the next one, and those whose attempt has ended.

use amocrm::{Contact, Deal};
use jiff::Timestamp;
use tokio::time::Instant;

use super::locks::{LockKey, PersonLock, PersonLocks};
use crate::{
    domain::{DealId, Email, KeyedHash, Phone, RowId},
    inbox::{
        Choice, CreateFor, Entry, Fact, Known, Mark, Outcome, Progress, Settlement, Undo, UndoLeft,
    },
    supabase::Row,
};

/// A claimed entry in the middle of an attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) entry: Entry,
    pub(super) progress: Progress,
    pub(super) history: Vec<Fact>,
    /// Keep other rows off this person and these contacts.
    locks: Vec<PersonLock>,
}

impl Attempt {
    /// Boxed, since an attempt moves from list to list.
    pub(super) fn new(entry: Entry) -> Box<Self> {
        Box::new(Self {
            progress: entry.progress.clone(),
            entry,
            history: Vec::new(),
            locks: Vec::new(),
        })
    }

    pub(super) fn row(&self) -> RowId {
        self.entry.row
    }

    pub(super) fn log(&mut self, fact: Fact) {
        self.history.push(fact);
    }

    /// The deal of this row, once there is one.
    pub(super) fn deal(&self) -> Option<DealId> {
        Some(self.progress.step.choice()?.deal)
    }

    /// The contact and deal to record for the person's next row.
    fn known(&self) -> Option<(KeyedHash, Known)> {
        let choice = self.progress.step.choice()?;
        let known = Known {
            contact: choice.contact?,
            deal: choice.deal,
        };
        Some((self.progress.person?, known))
    }

    pub(super) fn mark(&self) -> Mark {
        // The deal that an undo moves back is no choice for the person's next row.
        let is_choice = !self.progress.is_to_be_undone();
        Mark {
            row: self.row(),
            progress: self.progress.clone(),
            person: is_choice.then(|| self.known()).flatten(),
        }
    }

    /// `false`: another row of this process has the lock.
    pub(super) fn lock(&mut self, locks: &PersonLocks, key: LockKey) -> bool {
        if self.locks.iter().any(|lock| lock.key() == key) {
            return true;
        }
        let lock = locks.take(key);
        let is_taken = lock.is_some();
        self.locks.extend(lock);
        is_taken
    }
}

/// An attempt that is over. Its locks are held until its end is stored.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) attempt: Box<Attempt>,
    pub(super) settlement: Settlement,
    /// Of the row in Supabase, if it was read.
    pub(super) created_at: Option<Timestamp>,
}

impl Ended {
    /// The entry will not be tried again by itself.
    pub(super) fn is_decided(&self) -> bool {
        !matches!(self.settlement, Settlement::Again { .. })
    }

    /// The row has its deal id, and the undo that was asked for before follows in an attempt of its own.
    pub(super) fn before_an_undo(mut self, now: Timestamp) -> Self {
        let progress = &mut self.attempt.progress;
        match self.settlement {
            Settlement::Done(Outcome::Synced) if progress.undo == Some(Undo::After) => {
                progress.undo = Some(Undo::Asked);
                self.settlement = Settlement::Again {
                    due_at: now,
                    failed: false,
                    reason: None,
                };
            }
            Settlement::Done(_) if progress.undo == Some(Undo::After) => {
                progress.undo = Some(Undo::Left(UndoLeft::NotSynced));
            }
            _ => {}
        }
        self
    }

    /// The attempt in one line of the row's history.
    pub(super) fn facts(&self) -> Vec<Fact> {
        let mut facts = self.attempt.history.clone();
        facts.push((&self.settlement).into());
        facts
    }
}

/// The rows that go on, and those whose attempt has ended.
#[derive(Debug)]
pub(super) struct StepResult<T> {
    pub(super) next: Vec<T>,
    pub(super) ended: Vec<Ended>,
}

impl<T> Default for StepResult<T> {
    fn default() -> Self {
        Self {
            next: Vec::new(),
            ended: Vec::new(),
        }
    }
}

impl<T> StepResult<T> {
    /// Begins with the ends of an earlier part of the step.
    pub(super) fn after<U>(step: StepResult<U>) -> (Self, Vec<U>) {
        let ended = step.ended;
        let next = Vec::new();
        (Self { next, ended }, step.next)
    }

    /// Takes over the ends of a part of the step, and passes its rows on.
    pub(super) fn keep<U>(&mut self, part: StepResult<U>) -> Vec<U> {
        self.ended.extend(part.ended);
        part.next
    }

    pub(super) fn push(&mut self, result: Result<T, Ended>) {
        match result {
            Ok(row) => self.next.push(row),
            Err(ended) => self.ended.push(ended),
        }
    }
}

/// A row in any stage.
pub(super) trait InHand: Sized + Send {
    fn attempt(&self) -> &Attempt;
    fn attempt_mut(&mut self) -> &mut Attempt;
    fn end(self, settlement: Settlement) -> Ended;

    fn id(&self) -> RowId {
        self.attempt().row()
    }

    /// Back to pending, without counting a failure.
    fn again_at(mut self, due_at: Timestamp, why: Fact) -> Ended {
        self.attempt_mut().log(why);
        self.end(Settlement::Again {
            due_at,
            failed: false,
            reason: None,
        })
    }

    fn park(self, reason: impl Into<String>) -> Ended {
        let reason = reason.into();
        self.end(Settlement::Parked { reason })
    }
}

impl InHand for Box<Attempt> {
    fn attempt(&self) -> &Attempt {
        self
    }

    fn attempt_mut(&mut self) -> &mut Attempt {
        self
    }

    fn end(self, settlement: Settlement) -> Ended {
        Ended {
            attempt: self,
            settlement,
            created_at: None,
        }
    }
}

/// A row that was read and is to be synced, and what is known of it at its stage.
#[derive(Debug)]
pub(super) struct RowAt<S> {
    pub(super) attempt: Box<Attempt>,
    pub(super) row: Row,
    pub(super) email: Email,
    /// When the data was read that the next write relies on.
    pub(super) read_at: Instant,
    pub(super) stage: S,
}

pub(super) type Loaded = RowAt<()>;
pub(super) type Matched = RowAt<Contacts>;
pub(super) type Chosen = RowAt<DealChoice>;
/// The deal is in its place.
pub(super) type Placed = RowAt<DealId>;
/// Our note is on the deal.
pub(super) type Noted = RowAt<Choice>;

impl<S> RowAt<S> {
    /// The row, and what its stage knew of it.
    pub(super) fn apart(self) -> (Loaded, S) {
        let Self {
            attempt,
            row,
            email,
            read_at,
            stage,
        } = self;
        let row = RowAt {
            attempt,
            row,
            email,
            read_at,
            stage: (),
        };
        (row, stage)
    }

    /// The row at another stage.
    pub(super) fn map<T>(self, stage: impl FnOnce(S) -> T) -> RowAt<T> {
        let (row, before) = self.apart();
        RowAt {
            attempt: row.attempt,
            row: row.row,
            email: row.email,
            read_at: row.read_at,
            stage: stage(before),
        }
    }

    /// As [`RowAt::map`], where what the stage knew is no longer needed.
    pub(super) fn to<T>(self, stage: T) -> RowAt<T> {
        self.map(|_| stage)
    }
}

impl<S: Send> InHand for RowAt<S> {
    fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    fn attempt_mut(&mut self) -> &mut Attempt {
        &mut self.attempt
    }

    fn end(self, settlement: Settlement) -> Ended {
        Ended {
            attempt: self.attempt,
            settlement,
            created_at: self.row.created_at,
        }
    }
}

pub(super) fn phone_of(row: &Row) -> Option<Phone> {
    row.phone.as_deref().and_then(Phone::parse)
}

/// The contacts that are this person; at least one.
#[derive(Debug)]
pub(super) struct Contacts {
    pub(super) found: Vec<Contact>,
    /// When they were read by id, in the main store; `None`: a search has found them.
    pub(super) read_at: Option<Instant>,
    /// The contact and deal that were used for this person before.
    pub(super) recorded: Option<Known>,
}

/// The deal is known, or will be made.
#[derive(Debug)]
pub(super) enum DealChoice {
    Existing(Deal),
    New(CreateFor),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::ContactId,
        inbox::{Lane, Placed, State, Step, Why},
    };

    #[test]
    fn an_undo_does_not_record_its_deal_for_the_persons_next_row() {
        let at = Timestamp::UNIX_EPOCH;
        let hash = KeyedHash::new([1; 16]);
        let choice = Choice {
            fingerprint: hash,
            contact: Some(ContactId::new(3)),
            deal: DealId::new(4),
            why: Why::Open,
        };
        let how = Placed::Moved;
        let entry = Entry {
            row: RowId::new(uuid::Uuid::nil()),
            lane: Lane::Live,
            state: State::Claimed,
            due_at: at,
            attempts: 0,
            delivery: None,
            outcome: None,
            backfill: None,
            reason: None,
            progress: Progress {
                person: Some(hash),
                step: Step::Noted { choice, how },
                ..Progress::default()
            },
            stored_at: at,
            updated_at: at,
        };
        let mut attempt = Attempt::new(entry);
        for (undo, is_recorded) in [
            (None, true),
            (Some(Undo::Asked), false),
            (Some(Undo::Sent), false),
            (Some(Undo::Again), true),
        ] {
            attempt.progress.undo = undo;
            let person = attempt.mark().person;
            assert_eq!(person.is_some(), is_recorded, "{undo:?}");
        }
    }
}
