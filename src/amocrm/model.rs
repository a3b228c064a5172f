//! What amoCRM holds and is asked for, as far as this service needs to know.

use jiff::Timestamp;

use crate::domain::{ContactId, DealId, Email, NoteId, Phone, PipelineId, StageId};

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
    pub stages: Vec<Stage>,
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
    /// Empty for notes that are not plain text.
    pub text: String,
}

/// The hits of a full-text search. The caller compares: a hit is not a match.
#[derive(Debug, Clone)]
pub struct Search {
    pub hits: Vec<Contact>,
    /// `false`: cut off at the page cap, so a miss is unknown, not missing.
    pub complete: bool,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page {
    pub contacts: Vec<Contact>,
    /// No page follows.
    pub is_last: bool,
    /// A next one is named. That none is proves nothing: it is sometimes missing although there is more.
    pub names_next: bool,
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
