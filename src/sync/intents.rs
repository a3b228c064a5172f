//! What an interrupted attempt may have left behind: writes whose answers never came are looked for, and forgotten only
//! once an empty look is decisive.

use std::sync::Arc;

use super::{
    failure::Failure,
    fate::Look,
    note::{as_sent, is_ours},
    people::UNREADABLE_SEARCH,
    slice::{Members, Slice, distinct},
    work::Work,
};
use crate::{
    amocrm::{AmoError, Contact, Deal, Found, Note, Unreadable},
    domain::{ContactId, DealId, Operation, RowId},
    inbox::{InboxError, Intent, Placed},
};

const CREATES: [Operation; 2] = [Operation::Create, Operation::CreateWithContact];

/// Pages of the newest contacts that are searched for one that we may have made.
const NEWEST_PAGES: u32 = 4;

impl Slice {
    /// Looks for what a write, whose answer never came, may have left behind.
    pub(super) async fn resolve_intents(&mut self, members: &[usize]) -> Result<(), InboxError> {
        self.resolve_notes(members).await?;
        self.resolve_creates(members).await?;
        self.resolve_creates_with_contact(members).await
    }

    async fn resolve_notes(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |work| {
            matches!(work.progress.intent, Some(Intent::Note { .. }))
        });
        let deals = distinct(mine.iter().filter_map(|&i| self.works[i].chosen()));
        if deals.is_empty() {
            return Ok(());
        }
        // What is seen is older than the answer that tells it.
        let look = Look::begin(&self.ctx);
        let notes = match self.amocrm.all_notes(&deals).await {
            Ok(notes) => notes,
            Err(error) => {
                let failure = Failure::from(error);
                return self.fail(Some(Operation::ReadNotes), &mine, &failure).await;
            }
        };
        self.answered(Operation::ReadNotes, &mine).await?;
        let ctx = Arc::clone(&self.ctx);
        for &i in &mine {
            let work = &mut self.works[i];
            let Some(Intent::Note { decisive_from }) = work.progress.intent else {
                continue;
            };
            if has_our_note(&notes.items, work.chosen(), work.id()) {
                work.tell("the note of an earlier attempt was found");
                work.progress.noted = true;
                work.progress.intent = None;
                ctx.landed(work.id(), &[Operation::Note]).await?;
            } else if let Some(what) = hidden_notes(&notes, work.chosen()) {
                self.unreadable(i, &what);
            } else if let Some(until) = ctx.fate_is_open_until(work.id(), decisive_from, look) {
                work.progress.intent = Some(Intent::Note {
                    decisive_from: until,
                });
                work.again_at(until, "the fate of a note is open");
            } else {
                work.progress.intent = None;
                if let Some(reason) = ctx.doubts.look().blamed(work.id(), &[Operation::Note]) {
                    work.park(reason);
                }
            }
        }
        let resolved: Members = self.in_run(&mine).collect();
        self.checkpoint(&resolved).await
    }

    async fn resolve_creates(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |work| {
            open_create(work).is_some_and(|(contact, _)| contact.is_some())
        });
        let contacts = distinct(mine.iter().filter_map(|&i| open_create(&self.works[i])?.0));
        if contacts.is_empty() {
            return Ok(());
        }
        let look = Look::begin(&self.ctx);
        let found = match self.amocrm.all_contacts(&contacts).await {
            Ok(found) => found,
            Err(error) => {
                let failure = Failure::from(error);
                return self
                    .fail(Some(Operation::ReadContacts), &mine, &failure)
                    .await;
            }
        };
        self.answered(Operation::ReadContacts, &mine).await?;
        let mut lost = Vec::new();
        for i in mine {
            let Some(id) = open_create(&self.works[i]).and_then(|(contact, _)| contact) else {
                continue;
            };
            match found.get(&id) {
                None if found.unreadable.may_be(id.get()) => {
                    self.unreadable(i, &format!("контакт {id}"));
                }
                contact => lost.push((i, contact.cloned())),
            }
        }
        self.recover_creates(look, lost).await
    }

    async fn resolve_creates_with_contact(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |work| {
            open_create(work).is_some_and(|(contact, _)| contact.is_none())
        });
        if mine.is_empty() {
            return Ok(());
        }
        let after = mine
            .iter()
            .filter_map(|&i| open_create(&self.works[i])?.1)
            .min();
        let look = Look::begin(&self.ctx);
        let newest = match self.newest_contacts(after).await {
            Ok(newest) => newest,
            Err(error) => {
                let failure = Failure::from(error);
                return self
                    .fail(Some(Operation::ReadNewest), &mine, &failure)
                    .await;
            }
        };
        let mut lost = Vec::new();
        for i in mine {
            let mut same = self.works[i].matching(newest.items.iter().cloned());
            if same.is_empty() {
                let email = self.works[i].email.clone();
                let Some(email) = email else { continue };
                match self.amocrm.search_email(&email).await {
                    Ok(found) => {
                        self.answered(Operation::Search, &[i]).await?;
                        same = self.works[i].matching(found.hits);
                        let may_be_hidden =
                            !newest.unreadable.is_none() || !found.unreadable.is_none();
                        if same.is_empty() && may_be_hidden {
                            self.unreadable(i, UNREADABLE_SEARCH);
                            continue;
                        }
                    }
                    Err(error) => {
                        let failure = Failure::from(error);
                        self.fail(Some(Operation::Search), &[i], &failure).await?;
                        continue;
                    }
                }
            }
            same.sort_by_key(|contact| contact.id);
            lost.push((i, same.pop()));
        }
        self.recover_creates(look, lost).await
    }

    /// The newest contacts down to one that was there before, as far as the page cap reaches.
    async fn newest_contacts(&self, after: Option<ContactId>) -> Result<Found<Contact>, AmoError> {
        let mut newest = Vec::new();
        let mut unreadable = Unreadable::default();
        for page in 1..=NEWEST_PAGES {
            let read = self.amocrm.newest_contacts(page).await?;
            let reached = read
                .contacts
                .last()
                .is_none_or(|last| after.is_some_and(|after| last.id <= after));
            newest.extend(read.contacts);
            let is_new = |id: &i64| after.is_none_or(|after| *id > after.get());
            unreadable.without_id |= read.unreadable.without_id;
            unreadable
                .ids
                .extend(read.unreadable.ids.into_iter().filter(is_new));
            if reached || read.is_last {
                break;
            }
        }
        Ok(Found {
            items: newest,
            unreadable,
        })
    }

    /// For each entry, the deal among its contact's that an unanswered create has made.
    async fn recover_creates(
        &mut self,
        look: Look,
        lost: Vec<(usize, Option<Contact>)>,
    ) -> Result<(), InboxError> {
        let members: Members = lost.iter().map(|(i, _)| *i).collect();
        let ids = distinct(
            lost.iter()
                .flat_map(|(i, contact)| self.newer_deals(*i, contact.as_ref())),
        );
        let deals = match self.amocrm.all_deals(&ids).await {
            Ok(deals) => deals,
            Err(error) => {
                let failure = Failure::from(error);
                return self
                    .fail(Some(Operation::ReadDeals), &members, &failure)
                    .await;
            }
        };
        self.answered(Operation::ReadDeals, &members).await?;
        for (i, contact) in lost {
            let newer = self.newer_deals(i, contact.as_ref());
            let is_unknown =
                |id: &&DealId| deals.get(id).is_none() && deals.unreadable.may_be(id.get());
            if let Some(id) = newer.iter().find(is_unknown) {
                self.unreadable(i, &format!("сделка {id}"));
                continue;
            }
            let mut made: Vec<&Deal> = newer
                .into_iter()
                .filter_map(|id| deals.get(&id))
                .filter(|deal| self.is_the_created(i, deal))
                .collect();
            made.sort_by_key(|deal| deal.id);
            let deal = match made.as_slice() {
                [] => None,
                [one] => Some(one.id),
                several => {
                    let ids: Vec<_> = several.iter().map(|deal| deal.id).collect();
                    let notes = match self.amocrm.all_notes(&ids).await {
                        Ok(notes) => notes,
                        Err(error) => {
                            let failure = Failure::from(error);
                            self.fail(Some(Operation::ReadNotes), &[i], &failure)
                                .await?;
                            continue;
                        }
                    };
                    let row = self.works[i].id();
                    let ours = ids
                        .iter()
                        .copied()
                        .find(|id| has_our_note(&notes.items, Some(*id), row));
                    ours.or(ids.first().copied())
                }
            };
            if deal.is_some() {
                let row = self.works[i].id();
                self.ctx.landed(row, &CREATES).await?;
            }
            self.create_resolved(i, look, contact.map(|contact| contact.id), deal);
        }
        let resolved: Members = self.in_run(&members).collect();
        self.checkpoint(&resolved).await
    }

    fn newer_deals(&self, i: usize, contact: Option<&Contact>) -> Vec<DealId> {
        let Some(Intent::Create { after_deal, .. }) = self.works[i].progress.intent else {
            return Vec::new();
        };
        contact
            .map(|c| {
                c.deals
                    .iter()
                    .copied()
                    .filter(|id| *id > after_deal)
                    .collect()
            })
            .unwrap_or_default()
    }

    fn is_the_created(&self, i: usize, deal: &Deal) -> bool {
        let Some(Intent::Create { name, .. }) = self.works[i].progress.intent else {
            return false;
        };
        deal.pipeline == self.ctx.settings.rules.target.pipeline
            && [&deal.name, &as_sent(&deal.name)]
                .into_iter()
                .any(|read| self.ctx.name_hash(read) == name)
    }

    fn create_resolved(
        &mut self,
        i: usize,
        look: Look,
        contact: Option<ContactId>,
        deal: Option<DealId>,
    ) {
        let now = self.now();
        let ctx = Arc::clone(&self.ctx);
        let work = &mut self.works[i];
        let row = work.id();
        let Some(Intent::Create { decisive_from, .. }) = work.progress.intent.as_mut() else {
            return;
        };
        let open_until = ctx.fate_is_open_until(row, *decisive_from, look);
        if let Some(until) = open_until {
            *decisive_from = until;
        }
        if let (Some(deal), Some(choice)) = (deal, work.progress.choice.as_mut()) {
            choice.deal = Some(deal);
            choice.contact = choice.contact.or(contact);
            work.progress.placed = Some(Placed::Created);
            work.progress.intent = None;
            work.tell(format!("the deal {deal} of an earlier attempt was found"));
        } else if let Some(until) = open_until {
            work.again_at(until, "the fate of a create is open");
        } else {
            work.progress.intent = None;
            work.progress.choice = None;
            if let Some(reason) = ctx.doubts.look().blamed(row, &CREATES) {
                work.park(reason);
            }
            work.again_at(now, "an earlier create never happened, choosing anew");
        }
    }
}

/// The contact and the highest earlier contact of a create whose answer is open.
fn open_create(work: &Work) -> Option<(Option<ContactId>, Option<ContactId>)> {
    let Some(Intent::Create { after_contact, .. }) = work.progress.intent else {
        return None;
    };
    Some((work.progress.choice.as_ref()?.contact, after_contact))
}

/// The notes of the deal that could not be read, one of which may be ours.
pub(super) fn hidden_notes(notes: &Found<Note>, deal: Option<DealId>) -> Option<String> {
    let deal = deal.filter(|deal| notes.unreadable.may_be(deal.get()))?;
    Some(format!("примечание к сделке {deal}"))
}

pub(super) fn has_our_note(notes: &[Note], deal: Option<DealId>, row: RowId) -> bool {
    notes
        .iter()
        .any(|note| Some(note.deal) == deal && is_ours(&note.text, row))
}
