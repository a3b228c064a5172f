//! Reads of any number of ids: as many a request as fit, side by side under the throttle.

use std::{collections::HashSet, hash::Hash};

use futures::future::join_all;
use serde::de::DeserializeOwned;

use crate::{
    AmoCrm, AmoError, ById, Contact, ContactId, Deal, DealId, Found, IDS_PER_READ, Note, Query,
    Simulation, Unreadable, alive,
    wire::{self, Items},
};

/// Most pages of a list about [`IDS_PER_READ`] ids: 100 notes on every deal.
const MOST_PAGES: u32 = 100;
/// The most requests to find the id of an item that has no readable one.
const NARROWING: usize = 32;

/// A list that amoCRM filters by ids.
pub(super) struct List {
    route: &'static str,
    path: &'static str,
    /// The parameter that names an id.
    filter: &'static str,
    /// The other parameters.
    more: &'static [(&'static str, &'static str)],
}

const CONTACTS: List = List {
    route: "contacts.by_id",
    path: "contacts",
    filter: "filter[id][]",
    more: &[("with", "leads")],
};
pub(super) const DEALS: List = List {
    route: "deals.by_id",
    path: "leads",
    filter: "filter[id][]",
    more: &[("with", "contacts")],
};
const NOTES: List = List {
    route: "notes.by_deal",
    path: "leads/notes",
    filter: "filter[entity_id][]",
    more: &[("filter[note_type][]", "common"), ("order[id]", "asc")],
};

impl AmoCrm {
    /// Missing contacts are simply absent. Main store, not the search index.
    pub async fn all_contacts(
        &self,
        ids: &[ContactId],
    ) -> Result<ById<ContactId, Contact>, AmoError> {
        let numbers = ids.iter().map(|id| id.get()).collect();
        let found = self.by_ids::<wire::Contacts>(&CONTACTS, numbers).await?;
        let mut contacts: Vec<Contact> = alive(found.items).collect();
        if let Some(simulation) = &self.simulation {
            simulation.add_contacts(ids, &mut contacts);
        }
        Ok(by_id(contacts, found.unreadable, |contact| contact.id))
    }

    /// Deleted and missing deals are absent.
    pub async fn all_deals(&self, ids: &[DealId]) -> Result<ById<DealId, Deal>, AmoError> {
        let numbers = ids.iter().map(|id| id.get()).collect();
        let found = self.by_ids::<wire::Deals>(&DEALS, numbers).await?;
        let mut deals: Vec<Deal> = found.items.into_iter().map(Deal::from).collect();
        deals.retain(|deal| !deal.is_deleted);
        if let Some(simulation) = &self.simulation {
            simulation.add_deals(ids, &mut deals);
        }
        Ok(by_id(deals, found.unreadable, |deal| deal.id))
    }

    /// All plain notes of these deals.
    pub async fn all_notes(&self, deals: &[DealId]) -> Result<Found<Note>, AmoError> {
        let numbers = deals.iter().map(|id| id.get()).collect();
        let found = self.by_ids::<wire::Notes>(&NOTES, numbers).await?;
        let mut notes: Vec<Note> = found.items.into_iter().map(Note::from).collect();
        if let Some(simulation) = &self.simulation {
            simulation.add_notes_of(deals, &mut notes);
        }
        Ok(Found {
            items: notes,
            unreadable: found.unreadable,
        })
    }

    /// What amoCRM has of these ids. Nothing is sent without ids: an empty filter would match the whole account.
    async fn by_ids<E>(&self, list: &List, mut ids: Vec<i64>) -> Result<Found<E::Item>, AmoError>
    where
        E: Items + DeserializeOwned,
    {
        if self.simulation.is_some() {
            ids.retain(|id| *id < Simulation::FIRST);
        }
        let reads = ids.chunks(IDS_PER_READ);
        let reads = reads.map(|ids| self.narrowed::<E>(list, ids));
        let mut all = Found::nothing();
        for answer in join_all(reads).await {
            let answer = answer?;
            all.items.extend(answer.items);
            all.unreadable.extend(answer.unreadable);
        }
        Ok(all)
    }

    /// Reads ids. If an item of the answer has no readable id, reads the ids again in halves until the id of that item is
    /// found: else every id without an answer would be unknown.
    async fn narrowed<E>(&self, list: &List, ids: &[i64]) -> Result<Found<E::Item>, AmoError>
    where
        E: Items + DeserializeOwned,
    {
        let mut all = Found::nothing();
        let mut left = vec![ids];
        let mut asked = 0;
        while let Some(ids) = left.pop() {
            let found = self.all_pages::<E>(list, ids).await?;
            asked += 1;
            if found.unreadable.without_id && ids.len() > 1 && asked < NARROWING {
                let (first, second) = ids.split_at(ids.len() / 2);
                left.extend([second, first]);
                continue;
            }
            all.items.extend(found.items);
            match ids {
                [id] if found.unreadable.without_id => {
                    all.unreadable.ids.insert(*id);
                }
                _ => all.unreadable.extend(found.unreadable),
            }
        }
        Ok(all)
    }

    /// All pages about at most [`IDS_PER_READ`] ids. Each item is checked: if amoCRM ignores the filter, it answers with the
    /// whole account.
    pub(super) async fn all_pages<E>(
        &self,
        list: &List,
        ids: &[i64],
    ) -> Result<Found<E::Item>, AmoError>
    where
        E: Items + DeserializeOwned,
    {
        let filter = ids.iter().map(|id| (list.filter, id.to_string()));
        let more = list.more.iter();
        let more = more.map(|(name, value)| (*name, (*value).to_owned()));
        let query: Query = filter.chain(more).collect();
        let is_asked_for = |item: &E::Item| ids.contains(&E::key(item));
        let mut all = Found::nothing();
        let mut known = HashSet::new();
        for page in 1..=MOST_PAGES {
            let found = self
                .page::<E>(list.route, list.path, query.clone(), page)
                .await?;
            let mut brings_more = !found.unreadable.is_none();
            for item in &found.items {
                brings_more |= known.insert(E::id(item));
            }
            if !brings_more && !found.is_last {
                return Err(AmoError::Malformed {
                    what: "a page that brings nothing new",
                });
            }
            let is_obeyed = found.items.iter().all(is_asked_for)
                && found.unreadable.ids.iter().all(|id| ids.contains(id));
            let items = found.items.into_iter();
            all.items.extend(items.filter(is_asked_for));
            all.unreadable.extend(found.unreadable);
            if found.is_last {
                return Ok(all);
            }
            if !is_obeyed {
                return Err(AmoError::Malformed {
                    what: "a list that ignores its filter",
                });
            }
        }
        Err(AmoError::Malformed {
            what: "a list without an end",
        })
    }
}

fn by_id<K: Eq + Hash, T>(
    items: Vec<T>,
    unreadable: Unreadable,
    id: impl Fn(&T) -> K,
) -> ById<K, T> {
    let items = items.into_iter().map(|item| (id(&item), item));
    ById {
        items: items.collect(),
        unreadable,
    }
}
