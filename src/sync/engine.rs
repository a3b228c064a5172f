//! The loop around the runs: when to claim and when to rest.

use std::{pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};

use super::{
    Context, Parts,
    batch::Treatment,
    contacts::FEW,
    failure::Chain,
    lease::{LeaseTask, Opening},
    periodic::PeriodicJobs,
    rules::timings::later,
    run::sync_claim,
    sending::{Blocked, probe_due},
};
use crate::{
    domain::{Halt, Heartbeat, RowId, SharedClock, Side},
    inbox::{Claim, Inbox, InboxError, Lane},
};

/// The most entries of one run.
const RUN: u32 = 5_000;
/// Runs at work at once: a new purchase need not wait until an earlier run ends.
const PARALLEL_RUNS: usize = 4;
/// A probed row looks for its write in doubt, chooses a deal anew, and writes: each may take a pass.
const PASSES_OF_A_PROBE: u32 = 3;
/// The longest rest of the engine while all runs are at work.
const BUSY_GLANCE: Duration = Duration::from_millis(500);
/// The longest rest of the engine.
pub(super) const HOUSEKEEPING: Duration = Duration::from_secs(15);
/// How often done entries past their retention are removed.
pub(super) const PURGE_EVERY: Duration = Duration::from_hours(1);

/// The engine: one per inbox.
#[derive(Debug)]
pub struct Engine {
    ctx: Arc<Context>,
    runs: JoinSet<AtWork>,
    large_at_work: usize,
    backfill_at_work: bool,
    exclusive_at_work: bool,
    jobs: PeriodicJobs,
    lease: Option<LeaseTask>,
    next_purge: Instant,
}

/// What a run takes up.
#[derive(Debug, Clone, Copy)]
struct AtWork {
    is_backfill: bool,
    is_large: bool,
}

impl Engine {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let ctx = Arc::new(Context::new(parts));
        let now = Instant::now();
        Self {
            jobs: PeriodicJobs::new(Arc::clone(&ctx)),
            ctx,
            lease: None,
            runs: JoinSet::new(),
            large_at_work: 0,
            backfill_at_work: false,
            exclusive_at_work: false,
            next_purge: now,
        }
    }

    /// Works until stopped. Returns when the runs in flight have finished. A run that takes longer than the grace is
    /// aborted, and its writes stay on record as intents.
    ///
    /// # Panics
    /// When a run or the lease task panicked: the process must not live on with claimed entries that no run works on.
    pub async fn work(mut self) {
        while let Err(error) = self.begin().await {
            self.ctx.heartbeat.beat();
            if self.ctx.trouble(&error).await {
                return;
            }
        }
        let ctx = Arc::clone(&self.ctx);
        while !ctx.sending.is_stopping() {
            // A stop cancels the turn. What the turn has asked of the inbox is carried out all the same.
            let turn = tokio::select! {
                turn = self.turn() => turn,
                () = ctx.sending.stopping() => break,
            };
            ctx.heartbeat.beat();
            match turn {
                Ok(rest) => self.rest(rest).await,
                Err(error) => {
                    if ctx.trouble(&error).await {
                        break;
                    }
                }
            }
        }
        let grace = Instant::now() + self.ctx.timings.grace;
        let mut is_clean = true;
        self.jobs.stop().await;
        while !self.runs.is_empty() {
            match tokio::time::timeout_at(grace, self.runs.join_next()).await {
                Ok(Some(joined)) => self.joined(joined),
                Ok(None) => break,
                Err(_) => {
                    tracing::warn!(runs = self.runs.len(), "sync.grace_is_over");
                    self.runs.shutdown().await;
                    is_clean = false;
                }
            }
        }
        if let Some(lease) = self.lease.take() {
            lease.end(is_clean).await;
        }
        // The next process reads this status.
        let kept = self.ctx.lease.record(&self.ctx.inbox).await;
        kept.unwrap_or_else(|error| tracing::warn!(error = %Chain(&error), "sync.inbox"));
    }

    async fn begin(&mut self) -> Result<(), InboxError> {
        let ctx = &self.ctx;
        ctx.compare_settings().await?;
        // First, so that a person who ends a halt from now on is seen to have resumed.
        ctx.sending.refresh().await?;
        ctx.doubts.recall(ctx.sending.is_halted()).await?;
        ctx.recall_index().await?;
        if self.lease.is_none() && ctx.lease.is_asked_for() {
            let recalled = ctx.lease.recall(&ctx.inbox).await?;
            self.lease = Some(LeaseTask::begin(Arc::clone(ctx), recalled));
        }
        Ok(())
    }

    /// Begins what is due now, and returns when something will be due next.
    async fn turn(&mut self) -> Result<Option<Timestamp>, InboxError> {
        self.open_term();
        // Before the state is published: what a command or the page reads of the lease must not lag behind it. It may while the
        // inbox takes no writes.
        let recorded = self.ctx.lease.record(&self.ctx.inbox).await;
        if self.ctx.sending.refresh().await? {
            self.ctx.amocrm.reset();
            self.ctx.begin_anew().await?;
        }
        recorded?;
        self.ctx.review_doubts().await?;
        self.leave_room_for_a_command().await;
        self.keep_house().await?;
        let blocked = self.ctx.sending.blocked();
        let mut next: Vec<Timestamp> = Vec::new();
        let lease_changes = self.ctx.lease.changes_in();
        next.extend(lease_changes.map(|pause| later(self.ctx.now(), pause)));
        next.extend(self.jobs.begin_what_is_due(blocked.as_ref()).await);
        match &blocked {
            None => next.extend(self.claim_what_is_due().await?),
            Some(Blocked::Halted {
                halt,
                is_paused: false,
            }) => next.extend(self.probe_by_a_row(halt)),
            Some(_) => {}
        }
        Ok(next.into_iter().min())
    }

    /// Leaves part of the request rate to a command beside this service, since amoCRM counts its requests with ours. An
    /// error of the inbox must not hold up the rows: a command is then assumed to be at work.
    async fn leave_room_for_a_command(&self) {
        let Context { inbox, amocrm, .. } = &*self.ctx;
        let is_at_work = inbox.is_command_at_work().await.unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "sync.command");
            true
        });
        amocrm.leave_to_others(usize::from(is_at_work));
        if is_at_work && let Err(error) = inbox.notice_command().await {
            tracing::warn!(error = %Chain(&error), "sync.command");
        }
    }

    /// Begins a term of the lease, but not before the runs of an earlier term have ended.
    fn open_term(&mut self) {
        if !self.runs.is_empty() {
            return;
        }
        if let Some(Opening {
            after_another: true,
        }) = self.ctx.lease.open()
        {
            self.jobs.take_over();
        }
    }

    /// Sleeps until `next`, a change in the inbox, a wish for a sweep, the end of a run or a job, or the stop.
    async fn rest(&mut self, next: Option<Timestamp>) {
        // With all runs at work nothing can be claimed: changes, such as a pause, are then seen by polling.
        let may_claim = self.runs.len() < PARALLEL_RUNS;
        let longest = if may_claim { HOUSEKEEPING } else { BUSY_GLANCE };
        let until = next.map_or(longest, |at| {
            Duration::try_from(at.duration_since(self.ctx.now()))
                .unwrap_or_default()
                .min(longest)
        });
        let ctx = Arc::clone(&self.ctx);
        tokio::select! {
            () = tokio::time::sleep(until) => {}
            () = ctx.inbox.changed(), if may_claim => {}
            () = ctx.sending.stopping() => {}
            () = ctx.lease.changed() => {}
            () = ctx.sweep_now.notified() => self.jobs.sweep_now(),
            error = died(&mut self.lease) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => tracing::error!(%error, "lease.ended"),
            },
            Some(joined) = self.runs.join_next() => self.joined(joined),
            Some(ended) = self.jobs.next_end() => self.jobs.ended(ended),
        }
    }

    fn joined(&mut self, joined: Result<AtWork, tokio::task::JoinError>) {
        match joined {
            Ok(run) => {
                self.backfill_at_work &= !run.is_backfill;
                self.large_at_work -= usize::from(run.is_large);
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }

    // ---- runs ----

    async fn claim_what_is_due(&mut self) -> Result<Option<Timestamp>, InboxError> {
        let refusals = self.ctx.doubts.look();
        if refusals.is_empty() {
            return self.claim_many(Vec::new()).await;
        }
        let inbox = self.ctx.inbox.clone();
        let is_exclusive_at_work = self.exclusive_at_work && !self.runs.is_empty();
        if is_exclusive_at_work {
            return Ok(None);
        }
        // A refused row goes in a run of its own. Suspects go at once, beside others.
        if self.runs.len() < PARALLEL_RUNS
            && let Some(claim) = inbox.claim_one_of(refusals.suspects(), true).await?
        {
            self.spawn(claim, Treatment::Alone);
        }
        let soon = later(self.ctx.now(), self.ctx.timings.person_busy);
        if refusals.is_in_doubt() {
            if self.runs.is_empty() {
                let mut claim = inbox.claim_but(1, None, false, refusals.rows()).await?;
                if claim.is_none() {
                    claim = inbox.claim_one_of(refusals.in_doubt(), true).await?;
                }
                if let Some(claim) = claim {
                    self.spawn(claim, Treatment::Exclusive);
                }
            }
            return Ok(Some(soon));
        }
        let due = self.claim_many(refusals.rows()).await?;
        if self.runs.is_empty()
            && refusals.held_may_go()
            && let Some(claim) = inbox.claim_one_of(refusals.held().to_vec(), true).await?
        {
            self.spawn(claim, Treatment::Exclusive);
        }
        // A refused row that is due, but may not be claimed yet, must not make the engine spin.
        Ok(due.map(|due| due.max(soon)))
    }

    fn spawn(&mut self, claim: Claim, treatment: Treatment) {
        let run = AtWork {
            is_backfill: claim.lane == Lane::Backfill,
            is_large: claim.entries.len() > FEW as usize,
        };
        self.exclusive_at_work = treatment == Treatment::Exclusive;
        self.backfill_at_work |= run.is_backfill;
        self.large_at_work += usize::from(run.is_large);
        let ctx = Arc::clone(&self.ctx);
        self.runs.spawn(async move {
            run_to_the_end(&ctx, claim, treatment).await;
            run
        });
    }

    /// Claims all due entries except those of these rows, as long as another run may begin.
    async fn claim_many(&mut self, but: Vec<RowId>) -> Result<Option<Timestamp>, InboxError> {
        while self.runs.len() < PARALLEL_RUNS {
            // One place is kept for a run of a few live rows, so that it is soon free again. If more rows are due, they
            // wait for another place: claimed a few at a time, each would be searched for by itself.
            let is_for_few = self.large_at_work + 1 == PARALLEL_RUNS;
            let may_backfill = !is_for_few && !self.backfill_at_work;
            let only = (!may_backfill).then_some(Lane::Live);
            let limit = if is_for_few { FEW } else { RUN };
            let claim = self
                .ctx
                .inbox
                .claim_but(limit, only, is_for_few, but.clone());
            let Some(claim) = claim.await? else {
                return self.next_due(!may_backfill).await;
            };
            self.spawn(claim, Treatment::Usual);
        }
        Ok(None)
    }

    /// Probes a halt by taking one of its rows, in rotation, through its steps. Returns when the probe is due.
    fn probe_by_a_row(&mut self, halt: &Halt) -> Option<Timestamp> {
        let now = self.ctx.now();
        if !halt.is_tried_by_a_row() || !self.ctx.lease.allows() || !self.runs.is_empty() {
            return None;
        }
        let due = probe_due(halt, &self.ctx.timings, now);
        if due.is_none_or(|due| due > now) {
            return due;
        }
        let mut rows = halt.rows.clone();
        let turn = usize::try_from(halt.probes).unwrap_or_default() % rows.len();
        rows.rotate_left(turn);
        let (ctx, halt) = (Arc::clone(&self.ctx), halt.clone());
        self.exclusive_at_work = true;
        self.runs.spawn(async move {
            if let Err(error) = probe(&ctx, &halt, rows).await {
                ctx.trouble(&error).await;
            }
            AtWork {
                is_backfill: false,
                is_large: false,
            }
        });
        None
    }

    async fn next_due(&self, only_live: bool) -> Result<Option<Timestamp>, InboxError> {
        let due = self.ctx.inbox.next_due().await?;
        if !only_live {
            return Ok(due);
        }
        // The earliest due row may be one of the backfill that waits for a run to end, and not for the clock. A live
        // row behind it may fall due at any time.
        let soon = later(self.ctx.now(), self.ctx.timings.person_busy);
        Ok(due.map(|due| due.max(soon)))
    }

    // ---- keeping house ----

    async fn keep_house(&mut self) -> Result<(), InboxError> {
        if self.next_purge > Instant::now() {
            return Ok(());
        }
        self.next_purge = Instant::now() + PURGE_EVERY;
        let ctx = &self.ctx;
        let purging = purge(&ctx.inbox, &ctx.clock, ctx.maintenance.retention);
        beating(&ctx.heartbeat, purging).await
    }
}

/// Removes done entries that are older than `retention`, and keeps the numbers of this hour.
pub(super) async fn purge(
    inbox: &Inbox,
    clock: &SharedClock,
    retention: Duration,
) -> Result<(), InboxError> {
    let before = clock.now().checked_sub(retention);
    let purged = inbox.purge_done(before.unwrap_or(Timestamp::MIN)).await?;
    if purged > 0 {
        tracing::info!(purged, "inbox.purged");
    }
    inbox.keep_hour().await
}

/// Beats until `waiting` completes.
pub(super) async fn beating<T>(heartbeat: &Heartbeat, waiting: impl Future<Output = T>) -> T {
    let mut waiting = pin!(waiting);
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    loop {
        tokio::select! {
            done = &mut waiting => return done,
            _ = tick.tick() => heartbeat.beat(),
        }
    }
}

async fn died(lease: &mut Option<LeaseTask>) -> JoinError {
    match lease {
        Some(lease) => lease.died().await,
        None => std::future::pending().await,
    }
}

/// Probes a halt by the first of these rows that is pending.
async fn probe(ctx: &Arc<Context>, halt: &Halt, mut rows: Vec<RowId>) -> Result<(), InboxError> {
    if halt.cause.side() == Side::Amocrm {
        ctx.amocrm.reset();
    }
    for pass in 0..PASSES_OF_A_PROBE {
        let claim = ctx.inbox.claim_one_of(rows, pass > 0).await?;
        let Some(claim) = claim else { break };
        rows = claim.entries.iter().map(|entry| entry.row).collect();
        run_to_the_end(ctx, claim, Treatment::Probe).await;
    }
    ctx.review_doubts().await?;
    let is_over = ctx.is_decided_halt(halt);
    tracing::info!(cause = halt.cause.into_str(), is_over, "sync.probe");
    if !is_over {
        ctx.sending.probe_failed(halt).await?;
    }
    Ok(())
}

/// Takes the entries of a claim through their steps. After an error the entries that are still claimed are released,
/// however long the inbox takes to accept that.
async fn run_to_the_end(ctx: &Arc<Context>, claim: Claim, treatment: Treatment) {
    let token = claim.token;
    let Err(error) = sync_claim(ctx, claim, treatment).await else {
        return;
    };
    tracing::error!(error = %Chain(&error), "sync.run_broken_off");
    let due_at = later(ctx.now(), ctx.timings.retry.first);
    while let Err(error) = ctx.inbox.release(token, due_at).await {
        if ctx.trouble(&error).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_slow_neighbour_is_no_hang() {
        let heartbeat = Heartbeat::default();
        let five_minutes = Duration::from_mins(5);
        beating(&heartbeat, tokio::time::sleep(five_minutes)).await;
        // One beat for each quarter of a minute.
        assert!(heartbeat.count() >= 20, "{heartbeat:?}");
    }
}
