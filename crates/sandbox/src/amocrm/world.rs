//! The state of the account, and changes to it without the API: those of the school's own people.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};

use crate::{Clock, ContactId, DealId, NoteId, PipelineId, StageId};

use super::{
    AmoQuirks,
    records::{
        Contact, Deal, Field, FieldValue, Note, Pipeline, PipelineIds, Stage, multi_field,
        phone_number,
    },
    search_index::SearchIndex,
};

const ACCOUNT_ID: i64 = 31_415_926;

/// Each kind counts in a range of its own, so that a mix-up of ids shows.
#[derive(Debug, Clone)]
struct NextIds {
    contact: i64,
    deal: i64,
    note: i64,
    pipeline: i64,
    stage: i64,
}

/// Contacts, deals, notes, pipelines and the rules that hold between them.
#[derive(Debug, Clone)]
pub struct World {
    pub(super) quirks: AmoQuirks,
    /// What a client did that the documents forbid, in words.
    pub protocol_errors: Vec<String>,
    pub(super) clock: Clock,
    /// The id of the account.
    pub account_id: i64,
    pub(super) base_url: String,
    pub(crate) contacts: BTreeMap<ContactId, Contact>,
    pub(crate) deals: BTreeMap<DealId, Deal>,
    pub(crate) notes: BTreeMap<NoteId, Note>,
    pub(super) pipelines: Vec<Pipeline>,
    search_index: SearchIndex,
    next: NextIds,
    rng: SmallRng,
}

impl World {
    #[must_use]
    pub fn new(quirks: AmoQuirks, clock: Clock) -> Self {
        Self {
            quirks,
            protocol_errors: Vec::new(),
            clock,
            account_id: ACCOUNT_ID,
            base_url: String::new(),
            contacts: BTreeMap::new(),
            deals: BTreeMap::new(),
            notes: BTreeMap::new(),
            pipelines: Vec::new(),
            search_index: SearchIndex::default(),
            next: NextIds {
                contact: 5_100_001,
                deal: 9_200_001,
                note: 71_000_001,
                pipeline: 3_301,
                stage: 44_001,
            },
            rng: SmallRng::seed_from_u64(0x000a_3005_eed0),
        }
    }

    /// Whole seconds, as amoCRM counts.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_second(self.clock.now().as_second()).unwrap_or_default()
    }

    pub(super) fn protocol_error(&mut self, text: impl Into<String>) {
        self.protocol_errors.push(text.into());
    }

    // The account before the service starts.

    pub fn add_pipeline(&mut self, name: &str, stages: &[&str]) -> PipelineIds {
        let id = PipelineId::new(next(&mut self.next.pipeline));
        let unsorted = StageId::new(next(&mut self.next.stage));
        let mut all = vec![Stage {
            id: unsorted,
            name: "Неразобранное".to_owned(),
            sort: 10,
            is_unsorted: true,
        }];
        let mut ids = Vec::new();
        for (stage, sort) in stages.iter().zip((20..).step_by(10)) {
            let stage_id = StageId::new(next(&mut self.next.stage));
            ids.push(stage_id);
            all.push(Stage {
                id: stage_id,
                name: (*stage).to_owned(),
                sort,
                is_unsorted: false,
            });
        }
        let closed = [
            (StageId::WON, "Успешно реализовано", 10_000),
            (StageId::LOST, "Закрыто и не реализовано", 11_000),
        ];
        all.extend(closed.map(|(id, name, sort)| Stage {
            id,
            name: name.to_owned(),
            sort,
            is_unsorted: false,
        }));
        self.pipelines.push(Pipeline {
            id,
            name: name.to_owned(),
            is_archive: false,
            stages: all,
        });
        PipelineIds {
            id,
            unsorted,
            stages: ids,
        }
    }

    /// A contact that has been there for long: the search finds it at once.
    pub fn add_contact(&mut self, name: &str, emails: &[&str], phones: &[&str]) -> ContactId {
        let fields = [("Email", "EMAIL", emails), ("Телефон", "PHONE", phones)]
            .into_iter()
            .filter(|(_, _, values)| !values.is_empty())
            .map(|(name, code, values)| multi_field(name, code, values))
            .collect();
        self.insert_contact(name, fields, Duration::ZERO)
    }

    /// Adds a new contact, as a manager does now: the search finds it after the lag.
    pub fn create_contact(&mut self, name: &str, emails: &[&str], phones: &[&str]) -> ContactId {
        let id = self.add_contact(name, emails, phones);
        let visible_at = self.index_time(self.quirks.index_lag);
        if let Some(contact) = self.contacts.get_mut(&id) {
            contact.index[0].0 = visible_at;
        }
        id
    }

    /// A text field of the school's own; the search looks there too.
    pub fn add_text_field(&mut self, id: ContactId, name: &str, text: &str) -> Option<()> {
        self.set_contact(id, |contact| {
            contact.fields.push(Field {
                name: name.to_owned(),
                code: None,
                values: vec![FieldValue {
                    value: text.to_owned(),
                    enum_code: None,
                }],
            });
        })
    }

    /// Sets a contact as it is wanted, its times too; the search knows at once. `None`: no such contact.
    pub fn set_contact<R>(
        &mut self,
        id: ContactId,
        set: impl FnOnce(&mut Contact) -> R,
    ) -> Option<R> {
        let contact = self.contacts.get_mut(&id)?;
        let result = set(contact);
        let text = contact.index_text();
        self.search_index.add(id, &text);
        contact.index = vec![(Timestamp::MIN, text)];
        Some(result)
    }

    /// A manager edits a contact this moment: changed now, in the index after the lag. `None`: no such contact.
    pub fn edit_contact<R>(
        &mut self,
        id: ContactId,
        edit: impl FnOnce(&mut Contact) -> R,
    ) -> Option<R> {
        let now = self.now();
        let visible_at = self.index_time(self.quirks.index_lag);
        let contact = self.contacts.get_mut(&id)?;
        let result = edit(contact);
        contact.updated_at = now;
        let text = contact.index_text();
        self.search_index.add(id, &text);
        contact.index.push((visible_at, text));
        Some(result)
    }

    /// A deal on a stage, linked with its contacts; the first is the main one.
    pub fn add_deal(
        &mut self,
        contacts: &[ContactId],
        pipeline: PipelineId,
        stage: StageId,
        name: &str,
    ) -> DealId {
        let now = self.now();
        self.insert_deal(Deal {
            id: DealId::new(0),
            name: name.to_owned(),
            price: 0,
            pipeline,
            stage,
            contacts: contacts.to_vec(),
            tags: Vec::new(),
            created_at: now,
            updated_at: now,
            closed_at: stage.is_closed().then_some(now),
            is_deleted: false,
        })
    }

    /// Sets a deal as it is wanted, its times too. `None`: no such deal.
    pub fn set_deal<R>(&mut self, id: DealId, set: impl FnOnce(&mut Deal) -> R) -> Option<R> {
        self.deals.get_mut(&id).map(set)
    }

    /// A manager moves a deal this moment. `None`: no such deal.
    pub fn move_deal(&mut self, id: DealId, pipeline: PipelineId, stage: StageId) -> Option<()> {
        let now = self.now();
        let deal = self.deals.get_mut(&id).filter(|deal| !deal.is_deleted)?;
        deal.pipeline = pipeline;
        if deal.stage != stage {
            deal.closed_at = match (stage.is_closed(), deal.stage.is_closed()) {
                (true, true) => deal.closed_at,
                (true, false) => Some(now),
                (false, _) => None,
            };
        }
        deal.stage = stage;
        deal.updated_at = now;
        Some(())
    }

    /// The id stays in its contacts. `None`: no such deal.
    pub fn delete_deal(&mut self, id: DealId) -> Option<()> {
        let now = self.now();
        self.set_deal(id, |deal| {
            deal.is_deleted = true;
            deal.updated_at = now;
        })
    }

    /// `None`: no such contact.
    pub fn delete_contact(&mut self, id: ContactId) -> Option<()> {
        self.contacts.get_mut(&id)?.is_deleted = true;
        Some(())
    }

    pub fn add_note(&mut self, deal: DealId, note_type: &str, text: &str) -> NoteId {
        let id = NoteId::new(next(&mut self.next.note));
        let note = Note {
            id,
            deal,
            note_type: note_type.to_owned(),
            text: text.to_owned(),
            created_at: self.now(),
        };
        self.notes.insert(id, note);
        id
    }

    // Looking.

    /// Also a deleted one.
    #[must_use]
    pub fn deal(&self, id: DealId) -> Option<&Deal> {
        self.deals.get(&id)
    }

    /// Also a deleted one.
    #[must_use]
    pub fn contact(&self, id: ContactId) -> Option<&Contact> {
        self.contacts.get(&id)
    }

    #[must_use]
    pub fn pipeline(&self, id: PipelineId) -> Option<&Pipeline> {
        self.pipelines.iter().find(|pipeline| pipeline.id == id)
    }

    /// `None`: no such pipeline.
    pub fn set_pipeline<R>(
        &mut self,
        id: PipelineId,
        set: impl FnOnce(&mut Pipeline) -> R,
    ) -> Option<R> {
        let found = self.pipelines.iter_mut().find(|it| it.id == id);
        found.map(set)
    }

    pub fn deals(&self) -> impl Iterator<Item = &Deal> {
        self.deals.values().filter(|deal| !deal.is_deleted)
    }

    pub fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.contacts.values().filter(|contact| !contact.is_deleted)
    }

    pub fn notes(&self) -> impl Iterator<Item = &Note> {
        self.notes.values()
    }

    pub fn notes_of(&self, deal: DealId) -> impl Iterator<Item = &Note> {
        self.notes.values().filter(move |note| note.deal == deal)
    }

    /// Trimmed and without regard to case.
    pub fn contacts_with_email(&self, email: &str) -> impl Iterator<Item = &Contact> {
        let wanted = email.trim().to_lowercase();
        self.contacts().filter(move |contact| {
            let mut emails = contact.emails().into_iter();
            emails.any(|email| email.trim().to_lowercase() == wanted)
        })
    }

    // What the API's own rules build on.

    pub(super) fn insert_contact(
        &mut self,
        name: &str,
        fields: Vec<Field>,
        lag: Duration,
    ) -> ContactId {
        let id = ContactId::new(next(&mut self.next.contact));
        let now = self.now();
        let mut contact = Contact {
            id,
            name: name.to_owned(),
            fields,
            deals: Vec::new(),
            created_at: now,
            updated_at: now,
            is_deleted: false,
            index: Vec::new(),
        };
        let visible_at = if lag.is_zero() {
            Timestamp::MIN
        } else {
            self.index_time(lag)
        };
        let text = contact.index_text();
        self.search_index.add(id, &text);
        contact.index.push((visible_at, text));
        self.contacts.insert(id, contact);
        id
    }

    pub(super) fn insert_deal(&mut self, mut deal: Deal) -> DealId {
        deal.id = DealId::new(next(&mut self.next.deal));
        for contact in &deal.contacts {
            if let Some(contact) = self.contacts.get_mut(contact) {
                contact.deals.push(deal.id);
            }
        }
        let id = deal.id;
        self.deals.insert(id, deal);
        id
    }

    fn index_time(&self, lag: Duration) -> Timestamp {
        let now = self.clock.now();
        now.saturating_add(lag).unwrap_or(Timestamp::MAX)
    }

    /// The full-text search: contacts with the text in any field, once the index has it.
    pub(super) fn search(&self, query: &str) -> Vec<ContactId> {
        let query = query.to_lowercase();
        let now = self.clock.now();
        let fuzzy = self.quirks.fuzzy_query;
        let number = phone_number(&query);
        let mut candidates: BTreeSet<ContactId> = self.search_index.find(query.trim()).collect();
        candidates.extend(
            number
                .iter()
                .flat_map(|number| self.search_index.find(number)),
        );
        candidates
            .into_iter()
            .filter_map(|id| self.contacts.get(&id))
            .filter(|contact| !contact.is_deleted && contact.is_hit(&query, now, fuzzy))
            .map(|contact| contact.id)
            .collect()
    }

    pub(super) fn shuffled<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        if self.quirks.shuffle_answers {
            items.shuffle(&mut self.rng);
        }
        items
    }
}

fn next(id: &mut i64) -> i64 {
    let this = *id;
    // Ids have gaps, as in an account with other clients.
    *id += 2;
    this
}
