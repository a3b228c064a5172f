//! Creates that were given up: a look that counts found none, so another create may have followed. Should amoCRM carry
//! the first one out later than the engine allows for, there are two deals. A last look ten minutes later tells a person.

use std::collections::HashMap;

use amocrm::{AmoError, Contact, Deal, Email};
use jiff::Timestamp;

use super::{
    Context,
    batch::{distinct, is_unknown},
    failure::Failure,
    rules::contact::with_email,
    rules::timings::later,
    steps::recover::is_named,
};
use crate::{
    domain::{ContactId, DealId, RowId},
    inbox::{CreateFor, GivenUp, InboxError, LateDeals, State},
    supabase::Row,
};

/// The most creates that one look is about: each may cost a search.
const AT_ONCE: u32 = 50;

impl Context {
    /// When the next look is due; `None`: no create was given up.
    pub(super) async fn late_look_due(&self) -> Result<Option<Timestamp>, InboxError> {
        let pause = self.timings.late_look;
        self.inbox.next_late_look(self.now(), pause).await
    }

    /// Looks for the creates whose look is due.
    pub(super) async fn look_for_late_creates(&self) -> Result<(), Failure> {
        let (now, pause) = (self.now(), self.timings.late_look);
        let due = self.inbox.given_up_due(now, pause, AT_ONCE).await?;
        let (due, look_at): (Vec<_>, Vec<_>) = due.into_iter().unzip();
        let ids = distinct(due.iter().map(|it| it.row));
        let rows = self.supabase.rows(&ids).await?.rows;
        let rows: HashMap<RowId, Row> = rows.into_iter().map(|row| (row.id, row)).collect();
        let found = self.find_late_deals(&due, &rows).await?;
        let mut results = Vec::new();
        for ((given_up, look_at), found) in due.into_iter().zip(look_at).zip(found) {
            let Some(entry) = self.inbox.entry(given_up.row).await? else {
                continue;
            };
            let chosen = entry.progress.step.choice().map(|choice| choice.deal);
            // A service or a person may have filled the row with a deal that this entry does not know.
            let in_row = rows.get(&given_up.row).and_then(|row| row.deal_id.as_ref());
            let in_row = in_row.and_then(|id| id.trim().parse().ok().map(DealId::new));
            let late = late_deals(entry.state, chosen.or(in_row), found);
            if let LateDeals::Found { deal, late } = &late {
                let deal = deal.map(DealId::get);
                for late in late {
                    tracing::error!(row.id = %given_up.row, deal.id = deal, late = late.get(), "sync.late_deal");
                }
            }
            results.push((given_up, look_at, late));
        }
        self.inbox.looked_late(results, later(now, pause)).await?;
        Ok(())
    }

    /// For each of them, the deals that it may have made; `None`: something of the answer cannot be read.
    async fn find_late_deals(
        &self,
        due: &[GivenUp],
        rows: &HashMap<RowId, Row>,
    ) -> Result<Vec<Option<Vec<DealId>>>, AmoError> {
        let mut deals_of = Vec::new();
        for given_up in due {
            deals_of.push(match given_up.made_for {
                CreateFor::Contact {
                    contact,
                    after_deal,
                } => {
                    let found = self.amocrm.all_contacts(&[contact]).await?;
                    let is_unknown = is_unknown(&found, &contact, ContactId::get);
                    let contacts = found.items.into_values().collect();
                    (!is_unknown).then(|| deals_after(contacts, Some(after_deal)))
                }
                CreateFor::NewContact { after_contact } => {
                    let row = rows.get(&given_up.row);
                    let email = row.and_then(|row| Email::parse(row.email.as_deref()?).ok());
                    match email {
                        // Without its e-mail nothing can be looked for.
                        None => Some(Vec::new()),
                        Some(email) => {
                            let found = self.amocrm.search_email(&email).await?;
                            let is_known = found.complete && found.unreadable.is_none();
                            let mut contacts = with_email(&email, found.hits);
                            contacts.retain(|contact| contact.id > after_contact);
                            is_known.then(|| deals_after(contacts, None))
                        }
                    }
                }
            });
        }
        let ids = distinct(deals_of.iter().flatten().flatten().copied());
        let read = self.amocrm.all_deals(&ids).await?;
        let made = |(given_up, deals): (&GivenUp, Option<Vec<DealId>>)| {
            let mut deals = deals?;
            let is_readable = |id: &DealId| !is_unknown(&read, id, DealId::get);
            if !deals.iter().all(is_readable) {
                return None;
            }
            let is_named = |deal: &Deal| is_named(self, given_up.name, deal);
            deals.retain(|id| read.items.get(id).is_some_and(is_named));
            Some(deals)
        };
        Ok(due.iter().zip(deals_of).map(made).collect())
    }
}

fn deals_after(contacts: Vec<Contact>, after: Option<DealId>) -> Vec<DealId> {
    let deals = contacts.into_iter().flat_map(|it| it.deals);
    deals.filter(|id| Some(*id) > after).collect()
}

/// `deal`: the one that the row has now. `found`: those that the create may have made.
fn late_deals(state: State, deal: Option<DealId>, found: Option<Vec<DealId>>) -> LateDeals {
    let is_open = !matches!(state, State::Done | State::Parked);
    let Some(mut late) = found else {
        return LateDeals::Unknown;
    };
    if deal.is_none() && is_open {
        // It may choose the late deal yet.
        return LateDeals::Unknown;
    }
    late.retain(|it| Some(*it) != deal);
    if late.is_empty() {
        LateDeals::None
    } else {
        LateDeals::Found { deal, late }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deal_beside_the_rows_own_is_late() {
        let ids = |ids: &[i64]| ids.iter().map(|id| DealId::new(*id)).collect::<Vec<_>>();
        let found = |deal: Option<i64>, late: &[i64]| LateDeals::Found {
            deal: deal.map(DealId::new),
            late: ids(late),
        };
        let table = [
            (State::Done, Some(7), &[][..], LateDeals::None),
            (State::Done, Some(7), &[7], LateDeals::None),
            (State::Done, Some(7), &[6, 7], found(Some(7), &[6])),
            (State::Done, Some(7), &[6], found(Some(7), &[6])),
            (State::Pending, Some(7), &[7, 8], found(Some(7), &[8])),
            (State::Parked, None, &[], LateDeals::None),
            // The only deal of the row: found, and not doubled.
            (State::Parked, None, &[6], found(None, &[6])),
            (State::Pending, None, &[6], LateDeals::Unknown),
            (State::Claimed, None, &[], LateDeals::Unknown),
            (State::Waiting, None, &[], LateDeals::Unknown),
        ];
        for (state, deal, made, expected) in table {
            let late = late_deals(state, deal.map(DealId::new), Some(ids(made)));
            assert_eq!(late, expected, "{state:?} {deal:?} {made:?}");
            let unreadable = late_deals(state, deal.map(DealId::new), None);
            assert_eq!(unreadable, LateDeals::Unknown);
        }
    }
}
