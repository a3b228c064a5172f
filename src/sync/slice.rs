//! Entries that go through the steps side by side, each step in bulk.
//!
//! hold people ─▶ find contacts ─▶ read deals ─▶ decide ─▶ move or create ─▶ note ─▶ write back ─▶ settle
//!
//! Every step takes the entries that are still in the run, and ends those that need not, or cannot, go on.

use std::{collections::HashSet, sync::Arc};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Context,
    failure::{Asked, Failure, Verdict},
    gate::Closed,
    triage::later,
    work::Work,
};
use crate::{
    amocrm::AmoCrm,
    domain::{Operation, RowId},
    inbox::{ClaimToken, InboxError, Mark, Settled, Settlement},
};

pub(super) struct Slice {
    pub(super) ctx: Arc<Context>,
    /// Lets others go first when the run is a long one.
    pub(super) amocrm: AmoCrm,
    pub(super) token: ClaimToken,
    pub(super) works: Vec<Box<Work>>,
    pub(super) started: Instant,
    /// Of a run of many.
    pub(super) is_long: bool,
    /// One row, which may write although an operation is in doubt.
    pub(super) is_alone: bool,
    /// Tries in a halt whether it is over.
    pub(super) is_probe: bool,
    /// The others of its run write nothing before it is over.
    pub(super) leads: Option<DropGuard>,
    pub(super) follows: Option<CancellationToken>,
}

/// So often a row is tried whose answers cannot be read, over some minutes.
const UNREADABLE_TRIES: u32 = 5;

/// Positions of entries in the slice.
pub(super) type Members = Vec<usize>;

impl Slice {
    /// An error leaves entries unsettled: [`Slice::give_back`] returns them.
    pub(super) async fn go(&mut self) -> Result<(), InboxError> {
        let all: Members = (0..self.works.len()).collect();
        let _leads = self.leads.take();
        let turn = self.take_turn().await;
        self.hold_people(&all).await?;
        self.find_contacts(&all).await?;
        self.refresh_rows(&all).await?;
        self.read_deals(&all).await?;
        self.resolve_intents(&all).await?;
        self.decide(&all).await?;
        self.follow().await;
        self.stay_back();
        self.move_deals(&all).await?;
        self.create_deals(&all).await?;
        self.note(&all).await?;
        // The next slice may ask amoCRM while this one writes to its rows.
        drop(turn);
        self.write_back(&all).await?;
        self.settle().await
    }

    /// Waits until a slice of many may ask amoCRM.
    async fn take_turn(&self) -> Option<OwnedSemaphorePermit> {
        let turns = self.is_long.then(|| Arc::clone(&self.ctx.turns))?;
        turns.acquire_owned().await.ok()
    }

    /// Waits until the first slice has come through to its rows, or has failed to.
    async fn follow(&self) {
        if let Some(first) = &self.follows {
            first.cancelled().await;
        }
    }

    /// A question about these rows was answered.
    pub(super) async fn answered(
        &self,
        operation: Operation,
        members: &[usize],
    ) -> Result<(), InboxError> {
        if self.ctx.doubts.are_none() {
            return Ok(());
        }
        for &i in members {
            let (row, begun) = (self.works[i].id(), self.started.into_std());
            self.ctx.worked(operation, row, begun).await?;
        }
        Ok(())
    }

    /// While an operation is in doubt, no batch begins its writes to amoCRM: rows go one at a time.
    pub(super) fn stay_back(&mut self) {
        if self.is_alone || !self.ctx.doubts.is_in_doubt() {
            return;
        }
        let now = self.now();
        for work in self.works.iter_mut().filter(|work| work.in_run()) {
            work.again_at(now, "an operation is in doubt: rows go one at a time");
        }
    }

    /// Why nothing new may begin, for these rows.
    pub(super) fn closed(&self) -> Option<Closed> {
        let closed = self.ctx.gate.closed()?;
        let is_probed = self.is_probe && matches!(closed, Closed::Halted(_));
        (!is_probed).then_some(closed)
    }

    /// Returns whatever is still claimed, with what is known of it by now.
    pub(super) async fn give_back(&mut self) -> Result<(), InboxError> {
        let soon = later(self.now(), self.ctx.tempo.retry_first);
        for work in self.works.iter_mut().filter(|work| work.in_run()) {
            work.again_at(soon, "run broken off");
        }
        self.settle().await
    }

    /// Another process holds this row now: whatever we know of it is void.
    pub(super) fn let_go(&mut self, row: RowId) {
        for work in self.works.iter_mut().filter(|work| work.id() == row) {
            work.is_settled = true;
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.ctx.clock.now()
    }

    pub(super) fn in_run<'s>(&'s self, members: &'s [usize]) -> impl Iterator<Item = usize> + 's {
        members.iter().copied().filter(|&i| self.works[i].in_run())
    }

    /// The entries of a step that is about to begin: none once sending has been stopped.
    pub(super) fn beginning(
        &mut self,
        members: &[usize],
        wanted: impl Fn(&Work) -> bool,
    ) -> Members {
        let mine: Members = self
            .in_run(members)
            .filter(|&i| wanted(&self.works[i]))
            .collect();
        if self.closed().is_none() {
            return mine;
        }
        let now = self.now();
        for &i in &mine {
            self.works[i].again_at(now, "sending stopped");
        }
        Vec::new()
    }

    /// Ends entries for which the operation failed, as the client that saw the error says. `None`: the question was about
    /// no entry.
    ///
    /// When it was refused for several at once, the first one stands for them, and the others go alone after it.
    pub(super) async fn fail(
        &mut self,
        operation: Option<Operation>,
        members: &[usize],
        failure: &Failure,
    ) -> Result<(), InboxError> {
        let rows: Vec<RowId> = members.iter().map(|&i| self.works[i].id()).collect();
        let asked = Asked {
            operation,
            // A 403 to a question about no row is no row's.
            rows: if operation.is_some() { &rows } else { &[] },
            is_alone: self.goes_alone(operation, members),
        };
        let verdict = self.ctx.judge(failure, asked).await?;
        let reason = failure.reason();
        let verdict = match verdict {
            Verdict::Park if operation.is_none() => Verdict::Retry { after: None },
            // A look that is refused for this row will not tell what became of a write: a person must.
            Verdict::Park if operation.is_some_and(|it| !it.is_write()) => Verdict::SetAside,
            // Together with others it may have been refused for their sake.
            Verdict::Park | Verdict::SetAside if members.len() > 1 => Verdict::NotItsFault,
            verdict => verdict,
        };
        let of_others = match verdict {
            Verdict::InDoubt => Verdict::NotItsFault,
            verdict => verdict,
        };
        for (place, &i) in members.iter().enumerate() {
            let verdict = if place == 0 { &verdict } else { &of_others };
            self.apply(i, verdict, &reason);
        }
        Ok(())
    }

    /// Whether the request, and the attempt, were about this one row: successes of others in the same batch are answered
    /// before they can speak for it.
    fn goes_alone(&self, operation: Option<Operation>, members: &[usize]) -> bool {
        let is_only_row = self.is_alone || self.is_probe || self.works.len() == 1;
        members.len() == 1 && (is_only_row || operation == Some(Operation::WriteBack))
    }

    pub(super) fn apply(&mut self, i: usize, verdict: &Verdict, reason: &str) {
        let now = self.now();
        let ctx = Arc::clone(&self.ctx);
        let work = &mut self.works[i];
        match verdict {
            Verdict::NotItsFault => work.again_at(later(now, ctx.tempo.person_busy), reason),
            Verdict::SetAside => work.park(reason),
            // A write whose fate is open is looked for first.
            Verdict::Park if work.progress.intent.is_none() => work.park(reason),
            Verdict::Park | Verdict::InDoubt => {
                work.progress.alone = true;
                let attempts = work.entry.attempts;
                let pause = ctx.tempo.backoff(attempts, None, (ctx.jitter)());
                work.end(Settlement::Again {
                    due_at: later(now, pause),
                    failed: true,
                    reason: Some(reason.to_owned()),
                });
            }
            Verdict::Retry { after } => {
                let age = ctx
                    .inbox
                    .working_clock()
                    .saturating_sub(work.entry.opened_at_work);
                // A write whose fate is open is looked for first.
                if age > ctx.tempo.park_after && work.progress.intent.is_none() {
                    work.park(format!("не удаётся слишком долго: {reason}"));
                } else {
                    let pause = ctx
                        .tempo
                        .backoff(work.entry.attempts, *after, (ctx.jitter)());
                    work.end(Settlement::Again {
                        due_at: later(now, pause),
                        failed: true,
                        reason: Some(reason.to_owned()),
                    });
                }
            }
        }
    }

    /// What the row needs was answered, and cannot be read: it is unknown, never missing. Tried some times, then parked.
    pub(super) fn unreadable(&mut self, i: usize, what: &str) {
        let reason = format!("ответ amoCRM не читается: {what}");
        let progress = &mut self.works[i].progress;
        progress.unreadable = progress.unreadable.saturating_add(1);
        if progress.unreadable < UNREADABLE_TRIES {
            self.apply(i, &Verdict::Retry { after: None }, &reason);
        } else {
            progress.unreadable = 0;
            // An open write stays on record, and is looked for when a person retries.
            self.works[i].park(reason);
        }
    }

    // ---- storing ----

    /// Stores progress before the run goes on.
    pub(super) async fn checkpoint(&self, members: &[usize]) -> Result<(), InboxError> {
        if members.is_empty() {
            return Ok(());
        }
        let marks = members
            .iter()
            .map(|&i| {
                let work = &self.works[i];
                Mark {
                    row: work.id(),
                    progress: work.progress.clone(),
                    person: work.known(),
                }
            })
            .collect();
        self.ctx.inbox.checkpoint(self.token, marks).await
    }

    /// Stores the ends reached so far, and lets go of their people.
    pub(super) async fn settle(&mut self) -> Result<(), InboxError> {
        let ended: Members = (0..self.works.len())
            .filter(|&i| !self.works[i].in_run() && !self.works[i].is_settled)
            .collect();
        if ended.is_empty() {
            return Ok(());
        }
        let ends = ended
            .iter()
            .filter_map(|&i| {
                let work = &self.works[i];
                Some(Settled {
                    row: work.id(),
                    progress: work.progress.clone(),
                    settlement: work.ending().cloned()?,
                    event: work.event(),
                })
            })
            .collect();
        self.ctx.inbox.settle(self.token, ends).await?;
        self.ctx.is_decided(&self.decided(&ended)).await?;
        let count = u64::try_from(ended.len()).unwrap_or(u64::MAX);
        for i in ended {
            self.report(i);
            self.works[i].settled();
        }
        self.ctx
            .settled
            .send_modify(|settled| *settled = settled.wrapping_add(count));
        Ok(())
    }
}

impl Slice {
    /// Those of the ended rows that will not be tried again by themselves.
    fn decided(&self, ended: &[usize]) -> Vec<RowId> {
        let is_decided = |i: &&usize| match self.works[**i].ending() {
            Some(Settlement::Again { .. }) | None => false,
            Some(Settlement::Done(_) | Settlement::Waiting { .. } | Settlement::Parked { .. }) => {
                true
            }
        };
        let decided = ended.iter().filter(is_decided);
        decided.map(|&i| self.works[i].id()).collect()
    }
}

/// Awaits all, at most `limit` of them at a time.
pub(super) async fn at_once<F: Future>(limit: usize, futures: Vec<F>) -> Vec<F::Output> {
    stream::iter(futures)
        .buffer_unordered(limit)
        .collect()
        .await
}

/// Distinct values, in order of appearance.
pub(super) fn distinct<T: Copy + Eq + std::hash::Hash>(
    values: impl IntoIterator<Item = T>,
) -> Vec<T> {
    let mut seen = HashSet::new();
    values
        .into_iter()
        .filter(|value| seen.insert(*value))
        .collect()
}
