//! Which deal: reading candidates, deciding, confirming a miss.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;

use super::{
    decide::{Decision, Situation, Why, decide, stage_is_unknown},
    failure::{Failure, Verdict},
    list::Listed,
    people::{SEARCH_CUT_OFF, UNREADABLE_SEARCH},
    slice::{Members, Slice, distinct},
    work::Work,
};
use crate::{
    amocrm::{Contact, Pipeline},
    domain::{ContactId, DealId, Operation},
    inbox::{Choice, InboxError},
};

/// A create that was decided but not begun. Not stored: a later attempt decides anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    Create {
        contact: ContactId,
        after_deal: DealId,
    },
    /// `after_contact` is filled in by the confirming look.
    CreateWithContact { after_contact: Option<ContactId> },
}

impl Work {
    /// The deals worth reading for this entry.
    fn candidates(&self) -> Vec<DealId> {
        if let Some(choice) = &self.progress.choice {
            choice
                .deal
                .filter(|_| !self.progress.noted)
                .into_iter()
                .collect()
        } else {
            let recorded = self.recorded.map(|known| known.deal);
            distinct(
                self.contacts
                    .iter()
                    .flat_map(|contact| contact.deals.iter().copied())
                    .chain(recorded),
            )
        }
    }
}

impl Slice {
    pub(super) async fn read_deals(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |work| !work.candidates().is_empty());
        let wanted = mine
            .iter()
            .map(|&i| (i, self.works[i].candidates()))
            .collect();
        self.read_deals_of(wanted).await?;
        for i in mine {
            if self.works[i].in_run() {
                self.check_chosen(i);
            }
        }
        Ok(())
    }

    /// Reads deals by id, a hundred a request, and adds them to the entries that asked for them.
    async fn read_deals_of(&mut self, wanted: Vec<(usize, Vec<DealId>)>) -> Result<(), InboxError> {
        let asked_at = tokio::time::Instant::now();
        let ids = distinct(wanted.iter().flat_map(|(_, ids)| ids.iter().copied()));
        let found = match self.amocrm.all_deals(&ids).await {
            Ok(found) => found,
            Err(error) => {
                let members: Members = wanted.iter().map(|(i, _)| *i).collect();
                let failure = Failure::from(error);
                return self
                    .fail(Some(Operation::ReadDeals), &members, &failure)
                    .await;
            }
        };
        let members: Members = wanted.iter().map(|(i, _)| *i).collect();
        self.answered(Operation::ReadDeals, &members).await?;
        for (i, ids) in wanted {
            let is_unknown =
                |id: &&DealId| found.get(id).is_none() && found.unreadable.may_be(id.get());
            if let Some(id) = ids.iter().find(is_unknown) {
                self.unreadable(i, &format!("сделка {id}"));
                continue;
            }
            let work = &mut self.works[i];
            work.read_at = work.read_at.min(asked_at);
            work.deals
                .extend(ids.iter().filter_map(|id| found.get(id).cloned()));
        }
        Ok(())
    }

    /// A chosen deal that vanished or left the pipeline is not ours to write to.
    fn check_chosen(&mut self, i: usize) {
        let pipeline = self.ctx.settings.rules.target.pipeline;
        let now = self.now();
        let work = &mut self.works[i];
        let Some(chosen) = work.chosen() else {
            return;
        };
        if work
            .deals
            .iter()
            .any(|deal| deal.id == chosen && deal.pipeline == pipeline)
        {
            return;
        }
        if work.progress.has_written() {
            work.park(format!(
                "сделка {chosen} удалена или ушла из воронки после нашей записи"
            ));
        } else {
            work.progress.choice = None;
            work.again_at(now, "the chosen deal is gone, choosing anew");
        }
    }

    // ---- deciding ----

    pub(super) async fn decide(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |work| {
            work.progress.choice.is_none() && !work.contacts.is_empty()
        });
        // A target that cannot be used is found before anything is chosen or made for it.
        let known_for = self.ctx.tempo.pipelines_for;
        self.pipeline(known_for, &mine).await?;
        self.search_the_doubtful(&mine).await?;
        let mut to_create = Members::new();
        for &i in &mine {
            if self.works[i].in_run() && !self.choose(i) {
                to_create.push(i);
            }
        }
        self.confirm_creates(&to_create).await?;
        self.confirm_new_contacts(members).await?;
        let chosen: Members = self
            .in_run(&mine)
            .filter(|&i| self.works[i].progress.choice.is_some())
            .collect();
        self.checkpoint(&chosen).await
    }

    /// The configured pipeline, read again when a deal stands on a stage that we have never seen; `None` when the
    /// members' attempt ended over it.
    pub(super) async fn know_the_stages(
        &mut self,
        mine: &[usize],
    ) -> Result<Option<Pipeline>, InboxError> {
        let known_for = self.ctx.tempo.pipelines_for;
        let Some(pipeline) = self.pipeline(known_for, mine).await? else {
            return Ok(None);
        };
        let is_new = |i: usize| {
            self.works[i]
                .deals
                .iter()
                .any(|deal| stage_is_unknown(&pipeline, deal))
        };
        if self.in_run(mine).any(is_new) {
            return self.pipeline(Duration::ZERO, mine).await;
        }
        Ok(Some(pipeline))
    }

    /// The configured pipeline; `None` when the members' attempt ended over it.
    async fn pipeline(
        &mut self,
        age: Duration,
        members: &[usize],
    ) -> Result<Option<Pipeline>, InboxError> {
        if self.in_run(members).next().is_none() {
            return Ok(None);
        }
        match self.ctx.pipeline(age).await? {
            Ok(pipeline) => Ok(Some(pipeline)),
            Err(failure) => {
                let mine: Members = self.in_run(members).collect();
                if let Some(failure) = failure {
                    self.fail(None, &mine, &failure).await?;
                } else {
                    let now = self.now();
                    for i in mine {
                        self.works[i].again_at(now, "the target stage is not usable");
                    }
                }
                Ok(None)
            }
        }
    }

    /// Of a list that was not read to its end, an open deal is good enough: whatever other contact the person has, no
    /// rule prefers a closed deal, or a new one. A closed deal or none is not: the open one may be that other contact's.
    async fn search_the_doubtful(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let is_doubtful = |&i: &usize| {
            matches!(self.works[i].listed, Listed::Partly(_))
                && !matches!(
                    self.decision(i),
                    Decision::Use {
                        why: Why::Recorded | Why::Open,
                        ..
                    }
                )
        };
        let doubtful: Members = self.in_run(members).filter(is_doubtful).collect();
        if doubtful.is_empty() {
            return Ok(());
        }
        let mut unread = Vec::new();
        for (i, found) in self.search_all(&doubtful).await {
            if found.is_ok() {
                self.answered(Operation::Search, &[i]).await?;
            }
            let found = match found {
                Ok(found) if found.complete && found.unreadable.is_none() => found,
                Ok(found) if found.complete => {
                    self.unreadable(i, UNREADABLE_SEARCH);
                    continue;
                }
                Ok(_) => {
                    self.works[i].park(SEARCH_CUT_OFF);
                    continue;
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    self.fail(Some(Operation::Search), &[i], &failure).await?;
                    continue;
                }
            };
            let work = &mut self.works[i];
            let read = work.candidates();
            let mut contacts = std::mem::take(&mut work.contacts);
            let listed: Vec<_> = contacts.iter().map(|contact| contact.id).collect();
            let others = work.matching(found.hits).into_iter();
            contacts.extend(others.filter(|other| !listed.contains(&other.id)));
            work.contacts_read_at = None;
            self.hold_contacts(i, contacts);
            let mut new = self.works[i].candidates();
            new.retain(|id| !read.contains(id));
            unread.push((i, new));
        }
        self.leave_begun_contacts(&doubtful).await?;
        unread.retain(|(i, new)| !new.is_empty() && self.works[*i].in_run());
        if unread.is_empty() {
            return Ok(());
        }
        self.read_deals_of(unread).await
    }

    fn decision(&self, i: usize) -> Decision {
        let work = &self.works[i];
        let contacts: Vec<_> = work.contacts.iter().map(|contact| contact.id).collect();
        let situation = Situation {
            contacts: &contacts,
            deals: &work.deals,
            recorded: work.recorded.map(|known| known.deal),
            row_created_at: work
                .row
                .as_ref()
                .and_then(|row| row.created_at)
                .unwrap_or_else(|| self.now()),
        };
        decide(&self.ctx.settings.rules, &situation)
    }

    /// `false`: there is no deal to use.
    fn choose(&mut self, i: usize) -> bool {
        let Decision::Use { deal, why } = self.decision(i) else {
            return false;
        };
        let fingerprint = self.works[i].fingerprint(&self.ctx);
        let work = &mut self.works[i];
        let of_deal = work.deals.iter().find(|found| found.id == deal);
        let contact = of_deal
            .and_then(|deal| deal.main_contact)
            .or(work.contacts.first().map(|contact| contact.id));
        work.tell(format!("deal {deal} chosen: {why}"));
        work.deals.retain(|found| found.id == deal);
        work.progress.choice = Some(Choice {
            fingerprint,
            contact,
            deal: Some(deal),
            why: why.to_string(),
        });
        true
    }

    /// Before a create, the miss is confirmed in the main store: somebody may have made a deal just now.
    async fn confirm_creates(&mut self, to_create: &[usize]) -> Result<(), InboxError> {
        let half = self.ctx.tempo.fresh_for / 2;
        let (confirmed, mine): (Members, Members) = self
            .beginning(to_create, |_| true)
            .into_iter()
            .partition(|&i| self.works[i].is_confirmed(half));
        // Read in the main store a moment ago: that was the confirming look.
        for i in confirmed {
            self.works[i].plan_create();
        }
        let ids = distinct(
            mine.iter()
                .flat_map(|&i| self.works[i].contacts.iter().map(|contact| contact.id)),
        );
        if ids.is_empty() {
            return Ok(());
        }
        let fresh = match self.amocrm.all_contacts(&ids).await {
            Ok(fresh) => fresh,
            Err(error) => {
                let failure = Failure::from(error);
                return self
                    .fail(Some(Operation::ReadContacts), &mine, &failure)
                    .await;
            }
        };
        self.answered(Operation::ReadContacts, &mine).await?;
        let mut unread = Vec::new();
        for &i in &mine {
            let is_unknown = |contact: &&Contact| {
                fresh.get(&contact.id).is_none() && fresh.unreadable.may_be(contact.id.get())
            };
            if let Some(contact) = self.works[i].contacts.iter().find(is_unknown) {
                let what = format!("контакт {}", contact.id);
                self.unreadable(i, &what);
                continue;
            }
            let work = &mut self.works[i];
            let read: HashSet<DealId> = if work.read_at.elapsed() > half {
                work.deals.clear();
                HashSet::new()
            } else {
                work.candidates().into_iter().collect()
            };
            let still: Vec<_> = work
                .contacts
                .iter()
                .filter_map(|contact| fresh.get(&contact.id).cloned())
                .collect();
            if still.is_empty() {
                // The index still answers with somebody who is gone; it has to catch up first.
                self.apply(
                    i,
                    &Verdict::Retry { after: None },
                    "контакт из поиска уже удалён",
                );
                continue;
            }
            work.contacts = still;
            let new: Vec<_> = work
                .candidates()
                .into_iter()
                .filter(|id| !read.contains(id))
                .collect();
            if !new.is_empty() {
                unread.push((i, new));
            }
        }
        // The way here may have taken as long as what was read stays fresh.
        self.refresh_rows(&mine).await?;
        if !unread.is_empty() {
            self.read_deals_of(unread).await?;
        }
        for i in mine {
            if self.works[i].in_run() && !self.choose(i) {
                self.works[i].plan_create();
            }
        }
        Ok(())
    }

    /// Before a contact is made with its deal: nobody among the newest, and one more search.
    async fn confirm_new_contacts(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |work| {
            matches!(
                work.plan,
                Some(Plan::CreateWithContact {
                    after_contact: None
                })
            )
        });
        if mine.is_empty() {
            return Ok(());
        }
        let newest = match self.amocrm.newest_contacts(1).await {
            Ok(page) => page,
            Err(error) => {
                let failure = Failure::from(error);
                return self
                    .fail(Some(Operation::ReadNewest), &mine, &failure)
                    .await;
            }
        };
        self.answered(Operation::ReadNewest, &mine).await?;
        // What the search may not show yet. An older contact it shows, if that is this person's.
        let lag = self.ctx.tempo.look_overlap;
        let shown_until = self.now().checked_sub(lag).unwrap_or(Timestamp::MIN);
        let is_old = |contact: &&Contact| contact.created_at < shown_until;
        let oldest = newest
            .contacts
            .iter()
            .filter(is_old)
            .map(|it| it.id.get())
            .max();
        let is_new = |id: &i64| oldest.is_none_or(|oldest| *id > oldest);
        let may_hide_any = newest.unreadable.without_id || newest.unreadable.ids.iter().any(is_new);
        let newest = newest.contacts;
        let highest = newest
            .iter()
            .map(|contact| contact.id)
            .max()
            .unwrap_or(ContactId::new(0));
        for (i, found) in self.search_all(&mine).await {
            if found.is_ok() {
                self.answered(Operation::Search, &[i]).await?;
            }
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    let failure = Failure::from(error);
                    self.fail(Some(Operation::Search), &[i], &failure).await?;
                    continue;
                }
            };
            let work = &mut self.works[i];
            if !work
                .matching(newest.iter().cloned().chain(found.hits))
                .is_empty()
                || !found.complete
            {
                let reason = "контакт тем временем появился";
                self.apply(i, &Verdict::Retry { after: None }, reason);
            } else if may_hide_any || !found.unreadable.is_none() {
                self.unreadable(i, UNREADABLE_SEARCH);
            } else {
                work.plan = Some(Plan::CreateWithContact {
                    after_contact: Some(highest),
                });
            }
        }
        // Searching for a whole slice may have taken as long as a row stays fresh.
        self.refresh_rows(&mine).await
    }
}

impl Work {
    fn is_confirmed(&self, fresh_for: Duration) -> bool {
        self.contacts_read_at
            .is_some_and(|at| at.elapsed() < fresh_for)
    }

    fn plan_create(&mut self) {
        let newest = self
            .contacts
            .iter()
            .max_by_key(|contact| (contact.updated_at, contact.id));
        let highest = self
            .contacts
            .iter()
            .flat_map(|contact| contact.deals.iter().copied())
            .max();
        self.plan = newest.map(|contact| Plan::Create {
            contact: contact.id,
            after_deal: highest.unwrap_or(DealId::new(0)),
        });
    }
}
