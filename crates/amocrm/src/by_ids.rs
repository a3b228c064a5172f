//! Reads of any number of ids: as many a request as fit, side by side under the throttle.

use std::hash::Hash;

use futures::future::{BoxFuture, join_all};

use crate::{AmoCrm, AmoError, ById, Contact, ContactId, Deal, DealId, Found, IDS_PER_READ, Note};

type Answer<'a, T> = BoxFuture<'a, Result<Found<T>, AmoError>>;

impl AmoCrm {
    /// As [`AmoCrm::contacts`], of any number.
    pub async fn all_contacts(
        &self,
        ids: &[ContactId],
    ) -> Result<ById<ContactId, Contact>, AmoError> {
        let ask = |ids: Vec<ContactId>| -> Answer<'_, Contact> {
            Box::pin(async move { self.contacts(&ids).await })
        };
        let found = all(ids, ContactId::get, ask).await?;
        Ok(by_id(found, |contact| contact.id))
    }

    /// As [`AmoCrm::deals`], of any number.
    pub async fn all_deals(&self, ids: &[DealId]) -> Result<ById<DealId, Deal>, AmoError> {
        let ask = |ids: Vec<DealId>| -> Answer<'_, Deal> {
            Box::pin(async move { self.deals(&ids).await })
        };
        let found = all(ids, DealId::get, ask).await?;
        Ok(by_id(found, |deal| deal.id))
    }

    /// As [`AmoCrm::notes`], of any number.
    pub async fn all_notes(&self, deals: &[DealId]) -> Result<Found<Note>, AmoError> {
        let ask = |ids: Vec<DealId>| -> Answer<'_, Note> {
            Box::pin(async move { self.notes(&ids).await })
        };
        all(deals, DealId::get, ask).await
    }
}

async fn all<'a, K: Copy, T>(
    ids: &[K],
    number: impl Fn(K) -> i64,
    ask: impl Fn(Vec<K>) -> Answer<'a, T>,
) -> Result<Found<T>, AmoError> {
    let mut reads = Vec::new();
    for ids in ids.chunks(IDS_PER_READ) {
        reads.push(narrowed(ids, &number, &ask));
    }
    let mut all = Found::nothing();
    for answer in join_all(reads).await {
        let answer = answer?;
        all.items.extend(answer.items);
        all.unreadable.extend(answer.unreadable);
    }
    Ok(all)
}

/// The most requests to find the id of an item that has no readable one.
const NARROWING: usize = 32;

/// Reads ids. If an item of the answer has no readable id, reads the ids again in halves until the id of that item is found:
/// else every id without an answer would be unknown.
async fn narrowed<'a, K: Copy, T>(
    ids: &[K],
    number: impl Fn(K) -> i64,
    ask: impl Fn(Vec<K>) -> Answer<'a, T>,
) -> Result<Found<T>, AmoError> {
    let mut all = Found::nothing();
    let mut left = vec![ids];
    let mut asked = 0;
    while let Some(ids) = left.pop() {
        let found = ask(ids.to_vec()).await?;
        asked += 1;
        if found.unreadable.without_id && ids.len() > 1 && asked < NARROWING {
            let (first, second) = ids.split_at(ids.len() / 2);
            left.extend([second, first]);
            continue;
        }
        all.items.extend(found.items);
        match ids {
            [id] if found.unreadable.without_id => {
                all.unreadable.ids.insert(number(*id));
            }
            _ => all.unreadable.extend(found.unreadable),
        }
    }
    Ok(all)
}

fn by_id<K: Eq + Hash, T>(found: Found<T>, id: impl Fn(&T) -> K) -> ById<K, T> {
    let items = found.items.into_iter().map(|item| (id(&item), item));
    ById {
        items: items.collect(),
        unreadable: found.unreadable,
    }
}
