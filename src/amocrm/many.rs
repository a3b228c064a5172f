//! Reads of any number of ids: as many a request as fit, side by side under the throttle.

use std::hash::Hash;

use futures::future::join_all;

use super::{AmoCrm, AmoError, ById, Contact, Deal, Found, IDS_PER_READ, Note};
use crate::domain::{ContactId, DealId};

impl AmoCrm {
    /// As [`AmoCrm::contacts`], of any number.
    pub async fn all_contacts(
        &self,
        ids: &[ContactId],
    ) -> Result<ById<ContactId, Contact>, AmoError> {
        let mut reads = Vec::new();
        for ids in ids.chunks(IDS_PER_READ) {
            reads.push(self.contacts(ids));
        }
        by_id(join_all(reads).await, |contact| contact.id)
    }

    /// As [`AmoCrm::deals`], of any number.
    pub async fn all_deals(&self, ids: &[DealId]) -> Result<ById<DealId, Deal>, AmoError> {
        let mut reads = Vec::new();
        for ids in ids.chunks(IDS_PER_READ) {
            reads.push(self.deals(ids));
        }
        by_id(join_all(reads).await, |deal| deal.id)
    }

    /// As [`AmoCrm::notes`], of any number.
    pub async fn all_notes(&self, deals: &[DealId]) -> Result<Found<Note>, AmoError> {
        let mut reads = Vec::new();
        for ids in deals.chunks(IDS_PER_READ) {
            reads.push(self.notes(ids));
        }
        let mut notes = Found::nothing();
        for answer in join_all(reads).await {
            let answer = answer?;
            notes.items.extend(answer.items);
            notes.unreadable.extend(answer.unreadable);
        }
        Ok(notes)
    }
}

fn by_id<K: Eq + Hash, T>(
    answers: Vec<Result<Found<T>, AmoError>>,
    id: impl Fn(&T) -> K,
) -> Result<ById<K, T>, AmoError> {
    let mut found = ById::default();
    for answer in answers {
        let answer = answer?;
        let items = answer.items.into_iter().map(|item| (id(&item), item));
        found.items.extend(items);
        found.unreadable.extend(answer.unreadable);
    }
    Ok(found)
}
