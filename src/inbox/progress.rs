//! What is done and decided for one row: which deal, how far its writes came, and which of them may be in flight.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{ContactId, DealId, KeyedHash};

/// The deal that a row was matched with, stored before the first write and never decided again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Keyed hash of e-mail and phone at the time of the choice: if it changes before the first write, decide anew.
    pub fingerprint: KeyedHash,
    /// `None` = a new contact is to be made with the deal.
    pub contact: Option<ContactId>,
    /// `None` = the deal is still to be created.
    pub deal: Option<DealId>,
    pub why: Why,
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

/// A write that was about to be sent; its answer is not known (yet). Resolved by looking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "write")]
pub enum Intent {
    Create {
        /// From when on an empty look proves that the write never happened and never will (our clock).
        decisive_from: Timestamp,
        /// Keyed hash of the exact name of the deal.
        name: KeyedHash,
        /// The highest deal id known for the contact before the write: a lost create has a higher one.
        after_deal: DealId,
        /// The highest contact id of the account before the write, when a contact is made with the deal.
        after_contact: Option<ContactId>,
    },
    Note {
        /// As above.
        decisive_from: Timestamp,
    },
}

/// The searches of a waiting row, one for each day. What an earlier version stored has none, and begins to count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DailySearches {
    /// How many found no contact.
    pub in_vain: u32,
    /// From when on the next search is the next day's (our clock).
    pub next_from: Option<Timestamp>,
}

/// What is done and decided for one row. Stored as JSON.
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
    pub choice: Option<Choice>,
    pub placed: Option<Placed>,
    pub noted: bool,
    pub intent: Option<Intent>,
    /// amoCRM rejected a bulk write that this entry was part of: it is sent alone from now on.
    pub alone: bool,
    /// How often an answer that it needs could not be read.
    pub unreadable: u32,
}

impl Progress {
    /// A deal is chosen and amoCRM may still be written to for it: no other entry may work on this person.
    #[must_use]
    pub fn crm_work_is_open(&self) -> bool {
        self.choice.is_some() && !self.noted
    }

    /// Something of this row has, or may have, reached amoCRM.
    #[must_use]
    pub fn has_written(&self) -> bool {
        self.placed.is_some() || self.noted || self.intent.is_some()
    }

    /// What stays true under another hash key. A choice of which nothing is done is made anew; a lost create is then found as
    /// a deal of the contact.
    #[must_use]
    pub fn without_hashes(self) -> Self {
        let is_begun = self.placed.is_some() || self.noted;
        Self {
            person: None,
            phone: None,
            choice: self.choice.filter(|_| is_begun),
            intent: self
                .intent
                .filter(|intent| matches!(intent, Intent::Note { .. })),
            ..self
        }
    }

    /// From now on, an empty look for the open write is decisive from then.
    pub fn is_decisive_from(&mut self, from: Timestamp) {
        match self.intent.as_mut() {
            Some(Intent::Create { decisive_from, .. } | Intent::Note { decisive_from }) => {
                *decisive_from = from;
            }
            None => {}
        }
    }

    /// A write that was certainly not carried out leaves nothing to look for, and a create nothing chosen.
    pub fn forget_intent(&mut self) {
        if let Some(Intent::Create { .. }) = self.intent.take() {
            self.choice = None;
        }
    }
}
