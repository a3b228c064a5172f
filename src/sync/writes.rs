//! Putting the deal in its place: moves and creates. Each step is stored when it is done.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    bulk::{self, Item, Kind, Sent},
    deals::Plan,
    decide::{Placement, placement, stage_is_unknown},
    failure::{Failure, Verdict},
    note::{contact_name, deal_name},
    slice::{Members, Slice, distinct},
    triage::later,
    work::Work,
};
use crate::{
    amocrm::{AmoError, Deal, NewDeal, NewDealAndContact, Pipeline},
    domain::{ContactId, DealId, Operation, Price},
    inbox::{Choice, InboxError, Intent, Placed},
};

impl Work {
    /// The row, or a deal, read longer ago than `fresh_for` when this comes is read again first.
    fn fresh_until(&self, fresh_for: Duration) -> Instant {
        self.read_at + fresh_for
    }
}

impl Slice {
    /// What goes into a bulk write for these entries.
    pub(super) fn items<T>(
        &self,
        members: &[usize],
        body: impl Fn(&Work) -> Option<T>,
    ) -> Vec<Item<usize, T>> {
        let fresh_for = self.ctx.tempo.fresh_for;
        let item = |&i: &usize| {
            let work = &self.works[i];
            Some(Item {
                key: i,
                body: body(work)?,
                begin_by: work.fresh_until(fresh_for),
                goes_alone: work.progress.alone,
            })
        };
        members.iter().filter_map(item).collect()
    }

    /// Answers from when on an empty look will prove that a write never happened.
    pub(super) fn begin_writes(&self, members: &[usize]) -> Timestamp {
        let after = self.ctx.tempo.decisive_after();
        let rows = members.iter().map(|&i| self.works[i].id());
        self.ctx.in_flight.begin(rows, Instant::now() + after);
        later(self.now(), after)
    }

    // ---- move ----

    pub(super) async fn move_deals(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |work| {
            work.progress.placed.is_none()
                && work.progress.intent.is_none()
                && work.chosen().is_some()
        });
        let Some(pipeline) = self.know_the_stages(&mine).await? else {
            return Ok(());
        };
        let target = self.ctx.settings.rules.target;
        let mut to_move = Members::new();
        for &i in &mine {
            let work = &mut self.works[i];
            match work
                .deals
                .iter()
                .find(|deal| Some(deal.id) == work.chosen())
            {
                Some(deal) if stage_cannot_be_read(&pipeline, deal) => {
                    let what = format!("этап {}", deal.stage);
                    self.unreadable(i, &what);
                }
                Some(deal) if placement(target, &pipeline, deal) == Placement::Leave => {
                    work.progress.placed = Some(Placed::Left);
                }
                Some(_) => to_move.push(i),
                None => {}
            }
        }

        let begun = Instant::now().into_std();
        let deals = self.items(&to_move, Work::chosen);
        let amocrm = self.amocrm.clone();
        let request = |deals: Vec<DealId>, begin_by| {
            let amocrm = amocrm.clone();
            async move { amocrm.move_deals(&deals, target, begin_by).await }
        };
        let sent = bulk::write(&self.ctx.batch_size, Kind::MOVE, deals, request).await;
        for Sent {
            keys: batch,
            answer,
        } in sent
        {
            match answer {
                Ok(moved) => self.moved(&moved, begun).await?,
                Err(error @ AmoError::Rejected { .. }) if batch.len() > 1 => {
                    if error.is_about_stage() && self.target_is_gone(&batch).await? {
                        continue;
                    }
                    self.move_one_by_one(&batch, &pipeline).await?;
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    self.fail(Some(Operation::Move), &batch, &failure).await?;
                }
            }
        }
        let placed: Members = mine
            .into_iter()
            .filter(|&i| self.works[i].progress.placed.is_some())
            .collect();
        self.checkpoint(&placed).await
    }

    /// Whether pipeline and stage, read again, are not the account's any more; then sending has stopped.
    async fn target_is_gone(&mut self, members: &[usize]) -> Result<bool, InboxError> {
        if !matches!(self.ctx.pipeline(Duration::ZERO).await?, Err(None)) {
            return Ok(false);
        }
        for &i in members {
            let reason = "the target stage is not usable";
            self.apply(i, &Verdict::NotItsFault, reason);
        }
        Ok(true)
    }

    async fn moved(
        &mut self,
        answers: &[(usize, Option<DealId>)],
        begun: std::time::Instant,
    ) -> Result<(), InboxError> {
        for &(i, answer) in answers {
            if answer.is_some() {
                let work = &mut self.works[i];
                work.progress.placed = Some(Placed::Moved);
                work.tell("moved");
                let row = work.id();
                self.ctx.worked(Operation::Move, row, begun).await?;
            } else {
                // Absolute values: the next attempt reads where the deal stands, and moves it again if need be.
                self.apply(
                    i,
                    &Verdict::Retry { after: None },
                    "amoCRM не подтвердила перенос сделки",
                );
            }
        }
        Ok(())
    }

    /// After a rejected bulk move: each deal is looked at again, and moved alone if it still needs it.
    async fn move_one_by_one(
        &mut self,
        batch: &[usize],
        pipeline: &Pipeline,
    ) -> Result<(), InboxError> {
        let target = self.ctx.settings.rules.target;
        let ids = distinct(batch.iter().filter_map(|&i| self.works[i].chosen()));
        let looked_at = Instant::now();
        let standing = match self.amocrm.all_deals(&ids).await {
            Ok(standing) => standing,
            Err(error) => {
                let failure = Failure::from(error);
                return self.fail(Some(Operation::ReadDeals), batch, &failure).await;
            }
        };
        for &i in batch {
            let Some(id) = self.works[i].chosen() else {
                continue;
            };
            let Some(deal) = standing
                .get(&id)
                .filter(|deal| deal.pipeline == target.pipeline)
            else {
                let reason = "сделка исчезла перед переносом";
                self.apply(i, &Verdict::Retry { after: None }, reason);
                continue;
            };
            if deal.stage == target.stage {
                // The bulk move, or a person, has moved it.
                self.works[i].progress.placed = Some(Placed::Moved);
                self.works[i].tell("moved");
                continue;
            }
            if stage_cannot_be_read(pipeline, deal) {
                self.unreadable(i, &format!("этап {}", deal.stage));
                continue;
            }
            if placement(target, pipeline, deal) == Placement::Leave {
                self.works[i].progress.placed = Some(Placed::Left);
                continue;
            }
            if self.beginning(&[i], |_| true).is_empty() {
                continue;
            }
            self.works[i].read_at = looked_at;
            let begin_by = self.works[i].fresh_until(self.ctx.tempo.fresh_for);
            let begun = Instant::now().into_std();
            match self.amocrm.move_deals(&[id], target, begin_by).await {
                Ok(answer) => {
                    let moved = answer.first().copied().flatten();
                    self.moved(&[(i, moved)], begun).await?;
                }
                Err(error) => {
                    let failure = Failure::from(error);
                    self.fail(Some(Operation::Move), &[i], &failure).await?;
                    self.stay_back();
                }
            }
        }
        Ok(())
    }

    // ---- create ----

    pub(super) async fn create_deals(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |work| {
            work.plan.is_some() && work.progress.choice.is_none()
        });
        if mine.is_empty() {
            return Ok(());
        }
        let begin_by = Instant::now() + self.ctx.tempo.begin_within;
        let decisive_from = self.begin_writes(&mine);
        for &i in &mine {
            self.intend_create(i, decisive_from);
        }
        self.checkpoint(&mine).await?;

        let (with_contact, for_contact): (Members, Members) = mine
            .iter()
            .partition(|&&i| matches!(self.works[i].plan, Some(Plan::CreateWithContact { .. })));
        self.send_creates(&for_contact, begin_by).await?;
        self.send_creates_with_contact(&with_contact, begin_by)
            .await?;

        let known: Members = mine
            .into_iter()
            .filter(|&i| self.works[i].in_run())
            .collect();
        self.checkpoint(&known).await
    }

    fn intend_create(&mut self, i: usize, decisive_from: Timestamp) {
        let fingerprint = self.works[i].fingerprint(&self.ctx);
        let name = self.works[i]
            .row
            .as_ref()
            .map(deal_name)
            .unwrap_or_default();
        let name = self.ctx.name_hash(&name);
        let work = &mut self.works[i];
        let (contact, after_deal, after_contact) = match work.plan {
            Some(Plan::Create {
                contact,
                after_deal,
            }) => (Some(contact), after_deal, None),
            Some(Plan::CreateWithContact { after_contact }) => {
                (None, DealId::new(0), after_contact)
            }
            None => return,
        };
        let why = if contact.is_some() {
            "no usable deal"
        } else {
            "no contact"
        };
        work.progress.choice = Some(Choice {
            fingerprint,
            contact,
            deal: None,
            why: why.to_owned(),
        });
        work.progress.intent = Some(Intent::Create {
            decisive_from,
            name,
            after_deal,
            after_contact,
        });
    }

    async fn send_creates(
        &mut self,
        members: &[usize],
        begin_by: Instant,
    ) -> Result<(), InboxError> {
        let target = self.ctx.settings.rules.target;
        let begun = Instant::now().into_std();
        let deals = self.items(members, Work::new_deal);
        let amocrm = self.amocrm.clone();
        let request = |deals: Vec<NewDeal>, latest| {
            let (amocrm, begin_by) = (amocrm.clone(), begin_by.min(latest));
            async move { amocrm.create_deals(&deals, target, begin_by).await }
        };
        let sent = bulk::write(&self.ctx.batch_size, Kind::CREATE, deals, request).await;
        for Sent { keys, answer } in sent {
            match answer {
                Ok(made) => {
                    let made = made
                        .into_iter()
                        .map(|(i, deal)| (i, deal.map(|it| (it, None))));
                    self.created(Operation::Create, made.collect(), begun)
                        .await?;
                }
                Err(error) => self.write_failed(Operation::Create, &keys, error).await?,
            }
        }
        Ok(())
    }

    async fn send_creates_with_contact(
        &mut self,
        members: &[usize],
        begin_by: Instant,
    ) -> Result<(), InboxError> {
        let target = self.ctx.settings.rules.target;
        let begun = Instant::now().into_std();
        let deals = self.items(members, Work::new_deal_and_contact);
        let amocrm = self.amocrm.clone();
        let request = |deals: Vec<NewDealAndContact>, latest| {
            let (amocrm, begin_by) = (amocrm.clone(), begin_by.min(latest));
            async move {
                amocrm
                    .create_deals_and_contacts(&deals, target, begin_by)
                    .await
            }
        };
        let sent = bulk::write(
            &self.ctx.batch_size,
            Kind::CREATE_WITH_CONTACT,
            deals,
            request,
        )
        .await;
        let operation = Operation::CreateWithContact;
        for Sent { keys, answer } in sent {
            match answer {
                Ok(made) => {
                    let pair = |(deal, contact)| (deal, Some(contact));
                    let made = made.into_iter().map(|(i, made)| (i, made.map(pair)));
                    self.created(operation, made.collect(), begun).await?;
                }
                Err(error) => self.write_failed(operation, &keys, error).await?,
            }
        }
        Ok(())
    }

    async fn created(
        &mut self,
        operation: Operation,
        answers: Vec<Created>,
        begun: std::time::Instant,
    ) -> Result<(), InboxError> {
        for (i, answer) in answers {
            let Some((deal, contact)) = answer else {
                self.apply(
                    i,
                    &Verdict::Retry { after: None },
                    "amoCRM не подтвердила создание сделки",
                );
                continue;
            };
            let work = &mut self.works[i];
            if let Some(choice) = work.progress.choice.as_mut() {
                choice.deal = Some(deal);
                choice.contact = contact.or(choice.contact);
            }
            work.progress.placed = Some(Placed::Created);
            work.progress.intent = None;
            work.tell(format!("deal {deal} created"));
            let row = work.id();
            self.ctx.worked(operation, row, begun).await?;
        }
        Ok(())
    }

    /// A create or a note that failed: what is certain closes the intent, what is not leaves it to be looked for.
    pub(super) async fn write_failed(
        &mut self,
        operation: Operation,
        batch: &[usize],
        error: AmoError,
    ) -> Result<(), InboxError> {
        let now = self.now();
        let ctx = Arc::clone(&self.ctx);
        let rejected = matches!(error, AmoError::Rejected { .. });
        let not_applied = error.was_not_applied() || (rejected && batch.len() == 1);
        for &i in batch {
            let row = self.works[i].id();
            let progress = &mut self.works[i].progress;
            if not_applied {
                progress.forget_intent();
            } else if rejected {
                // Some of the batch may have been carried out, but nothing more can land: look at once, then go alone.
                progress.alone = true;
                progress.is_decisive_from(now);
                ctx.in_flight.end(row);
            }
        }
        let failure = Failure::from(error);
        self.fail(Some(operation), batch, &failure).await
    }
}

/// A row, with the deal and the contact that were made for it; `None`: not in the answer.
type Created = (usize, Option<(DealId, Option<ContactId>)>);

/// Its place in the pipeline is unknown because the answer about the pipeline could not be read in whole.
fn stage_cannot_be_read(pipeline: &Pipeline, deal: &Deal) -> bool {
    !pipeline.is_whole && stage_is_unknown(pipeline, deal)
}

impl Work {
    fn new_deal(&self) -> Option<NewDeal> {
        let row = self.row.as_ref()?;
        let contact = self.progress.choice.as_ref()?.contact?;
        Some(NewDeal {
            name: deal_name(row),
            price: row.price.as_ref().and_then(Price::whole),
            contact,
        })
    }

    fn new_deal_and_contact(&self) -> Option<NewDealAndContact> {
        let row = self.row.as_ref()?;
        let email = self.email.clone()?;
        Some(NewDealAndContact {
            deal_name: deal_name(row),
            price: row.price.as_ref().and_then(Price::whole),
            contact_name: contact_name(row),
            email,
            phone: row.phone.clone().filter(|phone| !phone.trim().is_empty()),
        })
    }
}
