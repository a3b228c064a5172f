//! What closes a row: its note, and the deal's id written back.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    bulk::{self, Kind, Sent},
    failure::{Failure, Verdict},
    intents::{has_our_note, hidden_notes},
    note::note,
    slice::{Members, Slice, distinct},
    triage::id_only,
};
use crate::{
    amocrm::NewNote,
    domain::{DealId, NoteId, Operation},
    inbox::{InboxError, Intent, Outcome, Placed, Settlement},
    supabase::WriteBack,
};

/// With a tenth of a second a call they write 320 rows a second. amoCRM lets 100 through, but a slice's rows are ready all
/// at once, and the last ones of a run are waited for. PostgREST's pool of ten is not in the way: of that time a row
/// holds a connection for a millisecond.
pub(super) const PARALLEL_WRITE_BACKS: usize = 32;

impl Slice {
    // ---- note ----

    pub(super) async fn note(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |work| {
            work.progress.placed.is_some() && !work.progress.noted && work.progress.intent.is_none()
        });
        self.find_earlier_notes(&mine).await?;
        // The way here may have taken as long as a row stays fresh.
        self.refresh_rows(&mine).await?;
        let mine = self.beginning(&mine, |work| !work.progress.noted);
        if mine.is_empty() {
            return Ok(());
        }

        let begin_by = Instant::now() + self.ctx.tempo.begin_within;
        let decisive_from = self.begin_writes(&mine);
        for &i in &mine {
            self.works[i].progress.intent = Some(Intent::Note { decisive_from });
        }
        self.checkpoint(&mine).await?;

        let begun = Instant::now().into_std();
        let template = &self.ctx.settings.note;
        let items = self.items(&mine, |work| {
            Some(NewNote {
                deal: work.chosen()?,
                text: note(template, work.row.as_ref()?),
            })
        });
        let amocrm = self.amocrm.clone();
        let request = |notes: Vec<NewNote>, latest| {
            let (amocrm, begin_by) = (amocrm.clone(), begin_by.min(latest));
            async move { amocrm.add_notes(&notes, begin_by).await }
        };
        let sent = bulk::write(&self.ctx.batch_size, Kind::NOTE, items, request).await;
        for Sent { keys, answer } in sent {
            match answer {
                Ok(made) => self.note_added(made, begun).await?,
                Err(error) => self.write_failed(Operation::Note, &keys, error).await?,
            }
        }
        let noted: Members = mine
            .into_iter()
            .filter(|&i| self.works[i].in_run())
            .collect();
        self.checkpoint(&noted).await
    }

    async fn note_added(
        &mut self,
        answers: Vec<(usize, Option<NoteId>)>,
        begun: std::time::Instant,
    ) -> Result<(), InboxError> {
        for (i, made) in answers {
            if made.is_some() {
                let work = &mut self.works[i];
                work.progress.noted = true;
                work.progress.intent = None;
                work.tell("noted");
                let row = work.id();
                self.ctx.worked(Operation::Note, row, begun).await?;
            } else {
                let reason = "amoCRM не подтвердила примечание";
                self.apply(i, &Verdict::Retry { after: None }, reason);
            }
        }
        Ok(())
    }

    /// A deal that needed no move may have been noted in an earlier life of ours, whose inbox is lost; one that an earlier
    /// attempt put in its place, by another service that had the lease since then.
    async fn find_earlier_notes(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let left = self.beginning(members, |work| {
            work.progress.placed == Some(Placed::Left) || work.entry.progress.placed.is_some()
        });
        let deals = distinct(left.iter().filter_map(|&i| self.works[i].chosen()));
        if deals.is_empty() {
            return Ok(());
        }
        let notes = match self.amocrm.all_notes(&deals).await {
            Ok(notes) => notes,
            Err(error) => {
                let failure = Failure::from(error);
                return self.fail(Some(Operation::ReadNotes), &left, &failure).await;
            }
        };
        self.answered(Operation::ReadNotes, &left).await?;
        for &i in &left {
            let work = &mut self.works[i];
            if has_our_note(&notes.items, work.chosen(), work.id()) {
                work.progress.noted = true;
                work.tell("our note was there already");
            } else if let Some(what) = hidden_notes(&notes, work.chosen()) {
                self.unreadable(i, &what);
            }
        }
        let found: Members = left
            .into_iter()
            .filter(|&i| self.works[i].progress.noted)
            .collect();
        self.checkpoint(&found).await
    }

    // ---- write back ----

    pub(super) async fn write_back(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |work| work.progress.noted);
        let mut write_backs = Vec::new();
        for i in mine {
            let Some(choice) = &self.works[i].progress.choice else {
                continue;
            };
            let (row, contact) = (self.works[i].id(), choice.contact);
            let Some(deal) = choice.deal else { continue };
            let (ctx, is_probe) = (Arc::clone(&self.ctx), self.is_probe);
            write_backs.push(async move {
                let _turn = ctx.write_backs.acquire().await;
                // Once write backs have been found to be refused for all rows, no other is tried.
                if ctx.gate.closed().is_some() && !is_probe {
                    return (i, deal, None);
                }
                let begun = Instant::now().into_std();
                let answer = ctx.supabase.write_back(row, deal, contact).await;
                (i, deal, Some((begun, answer)))
            });
        }
        let now = self.now();
        // Each answer when it comes: a refusal stops those that have yet to begin.
        let mut answers = stream::iter(write_backs).buffer_unordered(PARALLEL_WRITE_BACKS);
        while let Some((i, deal, answer)) = answers.next().await {
            match answer {
                Some((begun, Ok(WriteBack::Written))) => {
                    self.works[i].end(Settlement::Done(Outcome::Synced));
                    let row = self.works[i].id();
                    self.ctx.worked(Operation::WriteBack, row, begun).await?;
                }
                Some((_, Ok(WriteBack::NoRow))) => self.why_no_row(i, deal).await?,
                Some((_, Err(error))) => {
                    let failure = Failure::from(error);
                    self.fail(Some(Operation::WriteBack), &[i], &failure)
                        .await?;
                }
                None => self.works[i].again_at(now, "sending stopped"),
            }
        }
        Ok(())
    }

    /// No row matched: filled by somebody, gone, or not ours to change.
    async fn why_no_row(&mut self, i: usize, deal: DealId) -> Result<(), InboxError> {
        let row = self.works[i].id();
        let read = match self.ctx.supabase.rows(&[row]).await {
            Ok(read) => read.rows.into_iter().next(),
            Err(error) => {
                let failure = Failure::from(error);
                return self.fail(Some(Operation::Read), &[i], &failure).await;
            }
        };
        match read {
            Some(read) => match read.deal_id {
                Some(filled) if filled.trim() == deal.to_string() => {
                    self.works[i].end(Settlement::Done(Outcome::Synced));
                }
                Some(filled) => {
                    let reason = format!(
                        "в строке сделка {}, а мы работали со сделкой {deal}",
                        id_only(&filled)
                    );
                    self.works[i].park(reason);
                }
                None => {
                    let (verdict, reason) = self.ctx.write_back_matched_nothing(row).await?;
                    self.apply(i, &verdict, &reason);
                }
            },
            None => match self.ctx.supabase.can_see_any_row().await {
                Ok(true) => self.works[i].end(Settlement::Done(Outcome::Gone)),
                Ok(false) => self.no_row_is_visible(&[i]).await?,
                Err(error) => {
                    let failure = Failure::from(error);
                    self.fail(None, &[i], &failure).await?;
                }
            },
        }
        Ok(())
    }
}
