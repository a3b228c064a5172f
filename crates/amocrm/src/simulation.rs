//! Simulated writes, for a dry run: writes are answered from memory. Reads go to amoCRM, and include the changes of the
//! simulated writes.

use std::{collections::HashMap, sync::Arc};

use crate::{
    Contact, ContactId, Deal, DealId, NewDeal, NewDealAndContact, NewNote, Note, NoteId, Phone,
    SharedClock, StageId, Target,
};
use parking_lot::Mutex;

/// What simulated writes have changed; clones share it.
#[derive(Debug, Clone)]
pub struct Simulation {
    clock: SharedClock,
    changes: Arc<Mutex<Changes>>,
}

#[derive(Debug, Default)]
struct Changes {
    made: i64,
    deals: HashMap<DealId, Deal>,
    contacts: HashMap<ContactId, Contact>,
    moved: HashMap<DealId, Target>,
    notes: Vec<Note>,
    /// Of all deals that were read: where they stand in amoCRM.
    stages: HashMap<DealId, StageId>,
}

impl Changes {
    fn next_id(&mut self) -> i64 {
        self.made += 1;
        Simulation::FIRST + self.made
    }
}

impl Simulation {
    /// Higher than any id of amoCRM's, so that simulated records are the newest.
    pub(super) const FIRST: i64 = 1 << 52;

    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            changes: Arc::default(),
        }
    }

    /// The stage on which a deal stands in amoCRM, if it was read.
    #[must_use]
    pub fn stage_in_amocrm(&self, deal: DealId) -> Option<StageId> {
        self.changes.lock().stages.get(&deal).copied()
    }

    #[must_use]
    pub fn is_made_deal(&self, deal: DealId) -> bool {
        deal.get() >= Self::FIRST
    }

    #[must_use]
    pub fn is_made_contact(&self, contact: ContactId) -> bool {
        contact.get() >= Self::FIRST
    }

    // ---- reads ----

    /// Adds the simulated contacts among these ids, and to all contacts the deals that were made for them.
    pub(super) fn add_contacts(&self, ids: &[ContactId], contacts: &mut Vec<Contact>) {
        let made = |id| self.changes.lock().contacts.get(id).cloned();
        contacts.extend(ids.iter().filter_map(made));
        self.with_made_deals(contacts);
    }

    /// Sets the stages of simulated moves, and adds the simulated deals among these ids.
    pub(super) fn add_deals(&self, ids: &[DealId], deals: &mut Vec<Deal>) {
        self.with_moves(deals);
        let made = |id| self.changes.lock().deals.get(id).cloned();
        deals.extend(ids.iter().filter_map(made));
    }

    pub(super) fn add_notes_of(&self, deals: &[DealId], notes: &mut Vec<Note>) {
        let changes = self.changes.lock();
        let made = changes.notes.iter();
        notes.extend(made.filter(|note| deals.contains(&note.deal)).cloned());
    }

    /// A contact also has the deals that were made for it.
    pub(super) fn with_made_deals(&self, contacts: &mut [Contact]) {
        let changes = self.changes.lock();
        for contact in contacts {
            let made = changes.deals.values();
            let of_contact = made.filter(|deal| deal.contacts.contains(&contact.id));
            let mut ids: Vec<DealId> = of_contact.map(|deal| deal.id).collect();
            ids.retain(|id| !contact.deals.contains(id));
            contact.deals.extend(ids);
        }
    }

    /// The contacts that were made and have this e-mail or phone.
    pub(super) fn hits(&self, text: &str) -> Vec<Contact> {
        let changes = self.changes.lock();
        let made = changes.contacts.values();
        made.filter(|contact| {
            let mut emails = contact.emails.iter();
            emails.any(|email| email.as_str() == text)
                || contact.phones.iter().any(|phone| phone.as_str() == text)
        })
        .cloned()
        .collect()
    }

    /// Sets the stages of simulated moves.
    pub(super) fn with_moves(&self, deals: &mut [Deal]) {
        let now = self.clock.now();
        let mut changes = self.changes.lock();
        for deal in deals {
            changes.stages.insert(deal.id, deal.stage);
            if let Some(target) = changes.moved.get(&deal.id) {
                deal.pipeline = target.pipeline;
                deal.stage = target.stage;
                deal.updated_at = now;
                deal.closed_at = target.stage.is_closed().then_some(now);
            }
        }
    }

    // ---- writes ----

    pub(super) fn move_deals(&self, deals: &[DealId], target: Target) -> Vec<Option<DealId>> {
        let mut changes = self.changes.lock();
        changes.moved.extend(deals.iter().map(|id| (*id, target)));
        deals.iter().copied().map(Some).collect()
    }

    pub(super) fn create_deals(&self, deals: &[NewDeal], target: Target) -> Vec<Option<DealId>> {
        let made = deals
            .iter()
            .map(|deal| self.make(&deal.name, deal.contact, target));
        made.map(Some).collect()
    }

    pub(super) fn create_deals_and_contacts(
        &self,
        deals: &[NewDealAndContact],
        target: Target,
    ) -> Vec<Option<(DealId, ContactId)>> {
        let now = self.clock.now();
        let made = deals.iter().map(|new| {
            let id = ContactId::new(self.changes.lock().next_id());
            let contact = Contact {
                id,
                emails: vec![new.email.clone()],
                has_email: true,
                phones: new.phone.iter().filter_map(|it| Phone::parse(it)).collect(),
                deals: Vec::new(),
                created_at: now,
                updated_at: now,
            };
            self.changes.lock().contacts.insert(id, contact);
            let deal = self.make(&new.deal_name, id, target);
            self.with_deal(id, deal);
            (deal, id)
        });
        made.map(Some).collect()
    }

    pub(super) fn add_notes(&self, notes: &[NewNote]) -> Vec<Option<NoteId>> {
        let mut changes = self.changes.lock();
        let mut ids = Vec::with_capacity(notes.len());
        for note in notes {
            let id = NoteId::new(changes.next_id());
            changes.notes.push(Note {
                id,
                deal: note.deal,
                text: note.text.clone(),
            });
            ids.push(Some(id));
        }
        ids
    }

    fn make(&self, name: &str, contact: ContactId, target: Target) -> DealId {
        let now = self.clock.now();
        let mut changes = self.changes.lock();
        let id = DealId::new(changes.next_id());
        let deal = Deal {
            id,
            name: name.to_owned(),
            pipeline: target.pipeline,
            stage: target.stage,
            created_at: now,
            updated_at: now,
            closed_at: target.stage.is_closed().then_some(now),
            is_deleted: false,
            contacts: vec![contact],
            main_contact: Some(contact),
        };
        changes.deals.insert(id, deal);
        id
    }

    fn with_deal(&self, contact: ContactId, deal: DealId) {
        if let Some(contact) = self.changes.lock().contacts.get_mut(&contact) {
            contact.deals.push(deal);
        }
    }
}
