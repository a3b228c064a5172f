//! Creates that were given up: a look that counts found none, so another create may have followed. Should amoCRM carry
//! the first one out later than the engine allows for, there are two deals. A last look ten minutes later tells a person.

use std::collections::HashMap;

use amocrm::{AmoError, Contact, Deal};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    Context,
    batch::distinct,
    contacts::index::known_by,
    failure::Failure,
    rules::eligibility::later,
    steps::recover::{is_named, newest_contacts},
};
use crate::{
    domain::{ContactId, DealId, KeyedHash, RowId},
    inbox::{Create, CreateFor, Fact, InboxError, Progress, State},
};

/// Keys of the engine's own state in the inbox.
const GIVEN_UP: &str = "creates_given_up";
pub const DOUBLED: &str = "deals_doubled";

/// The most that are kept: as many as the rows of one run. The oldest ones are dropped.
const KEPT: usize = 5_000;
/// The most creates that one look is about.
const AT_ONCE: usize = 250;
/// The most doubled deals that are kept for the alert.
const DOUBLED_KEPT: usize = 100;

/// A create that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct GivenUp {
    row: RowId,
    person: Option<KeyedHash>,
    made_for: CreateFor,
    /// Keyed hash of the exact name of the deal.
    name: KeyedHash,
    look_at: Timestamp,
}

/// A create was carried out after it had been given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubled {
    pub row: RowId,
    /// The deal that the row has now.
    pub deal: Option<DealId>,
    pub late: Vec<DealId>,
    pub at: Timestamp,
}

/// The creates that were given up, in memory and in the inbox.
#[derive(Debug, Default)]
pub(super) struct LateCreates {
    known: Mutex<Vec<GivenUp>>,
}

impl Context {
    /// Takes over what a former process has stored.
    pub(super) async fn recall_late_creates(&self) -> Result<(), InboxError> {
        let stored = match self.inbox.state(GIVEN_UP).await {
            // In the form of another version: the looks are left out.
            Err(InboxError::Corrupt { .. }) => None,
            stored => stored?,
        };
        *self.late_creates.known.lock().await = stored.unwrap_or_default();
        Ok(())
    }

    /// Plans the last look for a create that is given up. To be called before the entry forgets the create.
    pub(super) async fn give_up(
        &self,
        row: RowId,
        progress: &Progress,
        create: &Create,
    ) -> Result<(), InboxError> {
        let given_up = GivenUp {
            row,
            person: progress.person,
            made_for: create.made_for,
            name: create.name,
            look_at: later(self.now(), self.timings.late_look),
        };
        let mut known = self.late_creates.known.lock().await;
        // A death after this leads here once more.
        known.retain(|it| (it.row, it.name) != (row, create.name));
        known.push(given_up);
        let too_many = known.len().saturating_sub(KEPT);
        known.drain(..too_many);
        self.store_late_creates(known).await
    }

    /// When the next look is due; `None`: no create was given up.
    pub(super) async fn late_look_due(&self) -> Option<Timestamp> {
        let known = self.late_creates.known.lock().await;
        known.iter().map(|it| self.look_at(it)).min()
    }

    /// A time further away than the full pause was stored before the clock was put back.
    fn look_at(&self, given_up: &GivenUp) -> Timestamp {
        let now = self.now();
        if given_up.look_at > later(now, self.timings.late_look) {
            now
        } else {
            given_up.look_at
        }
    }

    /// Looks for the creates whose look is due.
    pub(super) async fn look_for_late_creates(&self) -> Result<Result<(), Failure>, InboxError> {
        let mut due = self.late_creates.known.lock().await.clone();
        let now = self.now();
        due.retain(|it| self.look_at(it) <= now);
        due.truncate(AT_ONCE);
        let found = match self.find_late_deals(&due).await {
            Ok(found) => found,
            Err(error) => return Ok(Err(Failure::from(error))),
        };
        for given_up in &due {
            let entry = self.inbox.entry(given_up.row).await?;
            let found = found.get(&given_up.row).map_or(&[][..], Vec::as_slice);
            let verdict = entry.map_or(LateLook::Nothing, |entry| {
                let deal = entry.progress.step.choice().map(|choice| choice.deal);
                verdict(entry.state, deal, found)
            });
            if let LateLook::Doubled { deal, late } = &verdict {
                self.tell_doubled(given_up.row, *deal, late).await?;
            }
            let mut known = self.late_creates.known.lock().await;
            match verdict {
                LateLook::Again => {
                    let same = known.iter_mut().find(|it| *it == given_up);
                    if let Some(it) = same {
                        it.look_at = later(now, self.timings.late_look);
                    }
                }
                LateLook::Nothing | LateLook::Doubled { .. } => known.retain(|it| it != given_up),
            }
            self.store_late_creates(known).await?;
        }
        Ok(Ok(()))
    }

    /// For each row, the deals that the create may have made.
    async fn find_late_deals(
        &self,
        due: &[GivenUp],
    ) -> Result<HashMap<RowId, Vec<DealId>>, AmoError> {
        let ids = due.iter().filter_map(|it| match it.made_for {
            CreateFor::Contact { contact, .. } => Some(contact),
            CreateFor::NewContact { .. } => None,
        });
        let mut contacts: HashMap<ContactId, Contact> = HashMap::new();
        let ids = distinct(ids);
        if !ids.is_empty() {
            contacts = self.amocrm.all_contacts(&ids).await?.items;
        }
        let after = due.iter().filter_map(|it| match it.made_for {
            CreateFor::NewContact { after_contact } => Some(after_contact),
            CreateFor::Contact { .. } => None,
        });
        let mut newest = Vec::new();
        if let Some(after) = after.min() {
            newest = newest_contacts(&self.amocrm, Some(after)).await?.items;
        }
        let deals_of = |given_up: &GivenUp| -> Vec<DealId> {
            match given_up.made_for {
                CreateFor::Contact {
                    contact,
                    after_deal,
                } => {
                    let deals = contacts.get(&contact).into_iter().flat_map(|it| &it.deals);
                    deals.copied().filter(|id| *id > after_deal).collect()
                }
                CreateFor::NewContact { after_contact } => {
                    let is_of_person = |contact: &&Contact| {
                        let known_by = known_by(self.inbox.hasher(), contact);
                        let is_same = given_up.person.is_some_and(|it| known_by.contains(&it));
                        contact.id > after_contact && is_same
                    };
                    let contacts = newest.iter().filter(is_of_person);
                    contacts.flat_map(|it| it.deals.iter().copied()).collect()
                }
            }
        };
        let deals = distinct(due.iter().flat_map(deals_of));
        let mut read: HashMap<DealId, Deal> = HashMap::new();
        if !deals.is_empty() {
            read = self.amocrm.all_deals(&deals).await?.items;
        }
        let made = |given_up: &GivenUp| {
            let deals = deals_of(given_up).into_iter();
            let is_made = |id: &DealId| {
                let deal = read.get(id);
                deal.is_some_and(|deal| is_named(self, given_up.name, deal))
            };
            (given_up.row, deals.filter(is_made).collect())
        };
        Ok(due.iter().map(made).collect())
    }

    async fn tell_doubled(
        &self,
        row: RowId,
        deal: Option<DealId>,
        late: &[DealId],
    ) -> Result<(), InboxError> {
        for late in late {
            tracing::error!(
                row.id = %row,
                deal.id = deal.map(DealId::get),
                late = late.get(),
                "sync.doubled"
            );
            self.inbox.tell(row, Fact::LateDeal(*late)).await?;
        }
        let mut doubled: Vec<Doubled> = self.inbox.state(DOUBLED).await?.unwrap_or_default();
        doubled.push(Doubled {
            row,
            deal,
            late: late.to_vec(),
            at: self.now(),
        });
        let too_many = doubled.len().saturating_sub(DOUBLED_KEPT);
        doubled.drain(..too_many);
        self.inbox.set_state(DOUBLED, &doubled).await
    }

    async fn store_late_creates(
        &self,
        known: MutexGuard<'_, Vec<GivenUp>>,
    ) -> Result<(), InboxError> {
        self.inbox.set_state(GIVEN_UP, &*known).await
    }
}

/// What the last look says.
#[derive(Debug, PartialEq, Eq)]
enum LateLook {
    Nothing,
    /// The row has no deal yet, so it is not known which of the deals is its own.
    Again,
    Doubled {
        deal: Option<DealId>,
        late: Vec<DealId>,
    },
}

/// `deal`: the one that the row has now. `found`: those that the create that was given up may have made.
fn verdict(state: State, deal: Option<DealId>, found: &[DealId]) -> LateLook {
    let is_open = !matches!(state, State::Done | State::Parked);
    if deal.is_none() && is_open {
        return LateLook::Again;
    }
    let late: Vec<DealId> = found
        .iter()
        .copied()
        .filter(|it| Some(*it) != deal)
        .collect();
    if late.is_empty() {
        LateLook::Nothing
    } else {
        LateLook::Doubled { deal, late }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deal_beside_the_rows_own_is_one_too_many() {
        let ids = |ids: &[i64]| ids.iter().map(|id| DealId::new(*id)).collect::<Vec<_>>();
        let doubled = |deal: Option<i64>, late: &[i64]| LateLook::Doubled {
            deal: deal.map(DealId::new),
            late: ids(late),
        };
        let table = [
            (State::Done, Some(7), &[][..], LateLook::Nothing),
            (State::Done, Some(7), &[7], LateLook::Nothing),
            (State::Done, Some(7), &[6, 7], doubled(Some(7), &[6])),
            (State::Done, Some(7), &[6], doubled(Some(7), &[6])),
            // Filled by a person meanwhile: no deal of ours.
            (State::Done, None, &[6], doubled(None, &[6])),
            (State::Parked, None, &[], LateLook::Nothing),
            (State::Parked, None, &[6], doubled(None, &[6])),
            // It may choose the late deal yet.
            (State::Pending, None, &[6], LateLook::Again),
            (State::Claimed, None, &[], LateLook::Again),
            (State::Waiting, None, &[], LateLook::Again),
            (State::Pending, Some(7), &[7, 8], doubled(Some(7), &[8])),
        ];
        for (state, deal, found, expected) in table {
            let said = verdict(state, deal.map(DealId::new), &ids(found));
            assert_eq!(said, expected, "{state:?} {deal:?} {found:?}");
        }
    }
}
