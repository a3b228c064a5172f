//! amoCRM's records and the parameters of calls, as far as this client uses them.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use jiff::Timestamp;

use crate::{ContactId, DealId, Email, NoteId, Phone, PipelineId, StageId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: i64,
    pub name: String,
    pub subdomain: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    pub id: PipelineId,
    pub name: String,
    pub is_archive: bool,
    /// Those that could be read.
    pub stages: Vec<Stage>,
    pub is_whole: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub id: StageId,
    pub name: String,
    pub sort: i64,
    /// The incoming ("unsorted") stage cannot be a target.
    pub is_unsorted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    pub id: ContactId,
    /// Every sound address in its EMAIL values.
    pub emails: Vec<Email>,
    /// Whether there is any EMAIL value at all, sound or not.
    pub has_email: bool,
    pub phones: Vec<Phone>,
    /// Ids only; deleted deals and deals of other pipelines may be among them.
    pub deals: Vec<DealId>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deal {
    pub id: DealId,
    pub name: String,
    pub pipeline: PipelineId,
    pub stage: StageId,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub is_deleted: bool,
    pub contacts: Vec<ContactId>,
    pub main_contact: Option<ContactId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub id: NoteId,
    pub deal: DealId,
    pub text: String,
}

/// Items of an answer that could not be read: they are unknown, never missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// The ids of unreadable items, if readable; for notes, the ids of their deals.
    pub ids: BTreeSet<i64>,
    /// Some had no readable id: each may have been any.
    pub without_id: bool,
}

impl Unreadable {
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.ids.is_empty() && !self.without_id
    }

    /// Whether an item with this id, which is not in the answer, may be an unreadable one.
    #[must_use]
    pub fn may_be(&self, id: i64) -> bool {
        self.without_id || self.ids.contains(&id)
    }

    pub fn extend(&mut self, other: Self) {
        self.ids.extend(other.ids);
        self.without_id |= other.without_id;
    }
}

/// What was read, and what could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    pub items: Vec<T>,
    pub unreadable: Unreadable,
}

impl<T> Found<T> {
    pub(super) fn nothing() -> Self {
        Self {
            items: Vec::new(),
            unreadable: Unreadable::default(),
        }
    }
}

/// As [`Found`], by id.
#[derive(Debug, Clone)]
pub struct ById<K, T> {
    pub items: HashMap<K, T>,
    pub unreadable: Unreadable,
}

impl<K: Eq + Hash, T> ById<K, T> {
    #[must_use]
    pub fn get(&self, id: &K) -> Option<&T> {
        self.items.get(id)
    }
}

impl<K, T> Default for ById<K, T> {
    fn default() -> Self {
        Self {
            items: HashMap::new(),
            unreadable: Unreadable::default(),
        }
    }
}

/// The hits of a full-text search. A hit is not a match: the caller has to compare.
#[derive(Debug, Clone)]
pub struct Search {
    pub hits: Vec<Contact>,
    /// `false`: cut off at the page cap, so a miss is unknown, not missing.
    pub complete: bool,
    /// If there are any, a miss is unknown too.
    pub unreadable: Unreadable,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page {
    pub contacts: Vec<Contact>,
    pub unreadable: Unreadable,
    /// No page follows.
    pub is_last: bool,
    /// The page names a next one. If not, that proves nothing: the link is sometimes missing although there is more.
    pub names_next: bool,
    /// amoCRM's time of the answer (`Date`), if it was sent.
    pub date: Option<Timestamp>,
}

/// Where a deal goes. Pipeline and stage always travel together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub pipeline: PipelineId,
    pub stage: StageId,
}

#[derive(Debug, Clone)]
pub struct NewDeal {
    pub name: String,
    pub price: Option<i64>,
    pub contact: ContactId,
}

/// A deal with a contact that does not exist yet.
#[derive(Debug, Clone)]
pub struct NewDealAndContact {
    pub deal_name: String,
    pub price: Option<i64>,
    pub contact_name: String,
    pub email: Email,
    /// As the row has it.
    pub phone: Option<String>,
}

#[derive(Debug, Clone)]
pub struct NewNote {
    pub deal: DealId,
    pub text: String,
}
