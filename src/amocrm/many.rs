//! Reads of any number of ids: as many a request as fit, side by side under the throttle.

use std::{collections::HashMap, hash::Hash};

use futures::future::join_all;

use super::{AmoCrm, AmoError, Contact, Deal, IDS_PER_READ, Note};
use crate::domain::{ContactId, DealId};

impl AmoCrm {
    /// As [`AmoCrm::contacts`], of any number.
    pub async fn all_contacts(
        &self,
        ids: &[ContactId],
    ) -> Result<HashMap<ContactId, Contact>, AmoError> {
        let mut reads = Vec::new();
        for ids in ids.chunks(IDS_PER_READ) {
            reads.push(self.contacts(ids));
        }
        by_id(join_all(reads).await, |contact| contact.id)
    }

    /// As [`AmoCrm::deals`], of any number.
    pub async fn all_deals(&self, ids: &[DealId]) -> Result<HashMap<DealId, Deal>, AmoError> {
        let mut reads = Vec::new();
        for ids in ids.chunks(IDS_PER_READ) {
            reads.push(self.deals(ids));
        }
        by_id(join_all(reads).await, |deal| deal.id)
    }

    /// As [`AmoCrm::notes`], of any number.
    pub async fn all_notes(&self, deals: &[DealId]) -> Result<Vec<Note>, AmoError> {
        let mut reads = Vec::new();
        for ids in deals.chunks(IDS_PER_READ) {
            reads.push(self.notes(ids));
        }
        let mut notes = Vec::new();
        for answer in join_all(reads).await {
            notes.extend(answer?);
        }
        Ok(notes)
    }
}

fn by_id<K: Eq + Hash, T>(
    answers: Vec<Result<Vec<T>, AmoError>>,
    id: impl Fn(&T) -> K,
) -> Result<HashMap<K, T>, AmoError> {
    let mut found = HashMap::new();
    for answer in answers {
        found.extend(answer?.into_iter().map(|item| (id(&item), item)));
    }
    Ok(found)
}
