//! What the engine does beside its runs: inspect the target, sweep, look for awaited contacts, probe a halt, keep the
//! contact index. Each job runs in a task of its own, since it may have to wait for a neighbour.

use std::{sync::Arc, time::Duration};

use amocrm::{AmoError, Refusal};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};

use super::{
    Context,
    failure::{Asked, Chain, Failure},
    rules::timings::{Timings, later},
    sending::{Blocked, probe_due},
};
use crate::{
    domain::{Disposition, Halt, HaltCause, Operation, Side},
    inbox::InboxError,
};

/// The longest pause after a probe that the inbox has spoilt.
const PROBE_AGAIN: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    Inspect,
    Sweep,
    ShortSweep,
    Look,
    Probe,
    Index,
    LateCreates,
}

impl Job {
    const ALL: [Self; 7] = [
        Self::Inspect,
        Self::Sweep,
        Self::ShortSweep,
        Self::Look,
        Self::Probe,
        Self::Index,
        Self::LateCreates,
    ];
}

/// When a job runs next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Plan {
    // By the monotonic clock: if the wall clock were put back, the job would be late by as much.
    pub(super) next: Option<Instant>,
    /// Failures in a row.
    pub(super) failed: u32,
}

impl Plan {
    /// At once, and then after each `every`; `None`: never.
    pub(super) fn each(every: Option<Duration>) -> Self {
        Self {
            next: every.map(|_| Instant::now()),
            failed: 0,
        }
    }

    /// After `every`, and then after each.
    fn after(every: Option<Duration>) -> Self {
        Self {
            next: every.map(|every| Instant::now() + every),
            failed: 0,
        }
    }

    /// `pause`: after a failure, of `longest` at most. A time that was planned while the job was at work stays.
    pub(super) fn ended(
        &mut self,
        pause: Option<Duration>,
        every: Option<Duration>,
        longest: Option<Duration>,
    ) {
        self.failed = pause.map_or(0, |_| self.failed.saturating_add(1));
        let pause = pause.map(|pause| pause.min(longest.unwrap_or(pause)));
        let next = pause.or(every).map(|pause| Instant::now() + pause);
        self.next = self.next.or(next);
    }
}

/// A job that has ended. Its failure was handled, but for the pause after it.
pub(super) type Done = (Job, Result<(), Failure>);

#[derive(Debug)]
pub(super) struct PeriodicJobs {
    ctx: Arc<Context>,
    tasks: JoinSet<Done>,
    at_work: Vec<Job>,
    /// Of each job. One that is due for a reason of its own, as a look is for rows that wait, is planned only after a
    /// failure, and waits until then.
    plans: [Plan; Job::ALL.len()],
}

impl PeriodicJobs {
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        let mut plans = [Plan::default(); Job::ALL.len()];
        plans[Job::Inspect as usize] = Plan::each(ctx.settings.inspect_every);
        plans[Job::Sweep as usize] = Plan::each(ctx.maintenance.sweep_every);
        // The sweep comes at once.
        plans[Job::ShortSweep as usize] = Plan::after(short_sweep_every(&ctx));
        Self {
            plans,
            ctx,
            tasks: JoinSet::new(),
            at_work: Vec::new(),
        }
    }

    /// Begins the jobs that are due, and returns when the next one will be. A job that cannot be planned does not hold
    /// up the others.
    pub(super) async fn begin_what_is_due(
        &mut self,
        blocked: Option<&Blocked>,
    ) -> Option<Timestamp> {
        let mut next = Vec::new();
        for job in Job::ALL {
            let due = self.due(job, blocked).await.unwrap_or_else(|error| {
                tracing::error!(error = %Chain(&error), "sync.inbox");
                None
            });
            // Read after the due time, so that a job that is due at once is not in the future.
            let now = self.ctx.now();
            match due {
                Some(due) if due > now => next.push(due),
                Some(_) if !self.at_work.contains(&job) => self.begin(job, blocked),
                Some(_) | None => {}
            }
        }
        next.into_iter().min()
    }

    /// Plans a sweep, also where sweeps are off.
    pub(super) fn sweep_now(&mut self) {
        // Also while one is at work, which may be past the newest rows.
        self.plan(Job::Sweep).next = Some(Instant::now());
    }

    /// Plans a sweep: another service has worked, and may have known of rows that we do not.
    pub(super) fn take_over(&mut self) {
        if self.ctx.maintenance.sweep_after_another {
            self.sweep_now();
        }
    }

    fn plan(&mut self, job: Job) -> &mut Plan {
        &mut self.plans[job as usize]
    }

    /// When the job is due; `None`: not by now.
    async fn due(
        &self,
        job: Job,
        blocked: Option<&Blocked>,
    ) -> Result<Option<Timestamp>, InboxError> {
        let (ctx, planned) = (&self.ctx, self.plans[job as usize].next);
        let planned = planned.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            later(ctx.now(), left)
        });
        let due = match (job, blocked) {
            (Job::Inspect, None) => return Ok(planned),
            (Job::Sweep | Job::ShortSweep, _) => return Ok(planned.filter(|_| may_sweep(blocked))),
            (Job::Look, None) => ctx.next_look().await?,
            (Job::LateCreates, None) => ctx.late_look_due().await?,
            (Job::Index, _) => ctx.index_due().await?,
            (Job::Probe, Some(blocked)) => ctx.probe_due(blocked),
            (Job::Inspect | Job::Look | Job::LateCreates, Some(_)) | (Job::Probe, None) => None,
        };
        Ok(due.map(|due| due.max(planned.unwrap_or(due))))
    }

    fn begin(&mut self, job: Job, blocked: Option<&Blocked>) {
        let ctx = Arc::clone(&self.ctx);
        let halt = match blocked {
            Some(Blocked::Halted { halt, .. }) => Some(halt.clone()),
            _ => None,
        };
        self.plan(job).next = None;
        self.at_work.push(job);
        self.tasks.spawn(async move {
            let result = match job {
                Job::Inspect => ctx.inspect().await,
                Job::Sweep => ctx.sweep().await,
                Job::ShortSweep => ctx.short_sweep().await,
                Job::Look => ctx.look().await,
                Job::Probe => match halt {
                    Some(halt) => ctx.probe(&halt).await.map_err(Failure::from),
                    None => Ok(()),
                },
                Job::Index => ctx.keep_index().await,
                Job::LateCreates => ctx.look_for_late_creates().await,
            };
            match result {
                Ok(()) => (job, Ok(())),
                Err(failure) => (job, Err(ctx.job_failed(job, failure).await)),
            }
        });
    }

    /// Completes when a job has ended; `None` when none is at work. The result is for [`PeriodicJobs::ended`].
    pub(super) async fn next_end(&mut self) -> Option<Result<Done, JoinError>> {
        self.tasks.join_next().await
    }

    /// Plans the next time of a job that has ended.
    ///
    /// # Panics
    /// When the job panicked.
    pub(super) fn ended(&mut self, ended: Result<Done, JoinError>) {
        let (job, result) = match ended {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return,
        };
        self.at_work.retain(|at_work| *at_work != job);
        let pause = result.err().map(|failure| {
            let (failed, timings) = (self.plan(job).failed, self.ctx.timings);
            rest_after(&failure, failed, &timings, (self.ctx.jitter)())
        });
        let sweep_every = self.ctx.maintenance.sweep_every;
        let (every, longest) = match job {
            Job::Inspect => (
                self.ctx.settings.inspect_every,
                self.ctx.settings.inspect_every,
            ),
            Job::Sweep => (sweep_every, sweep_every),
            Job::ShortSweep => (short_sweep_every(&self.ctx), sweep_every),
            // A halt that is over, and cannot be ended because of the inbox, is to end soon after.
            Job::Probe => (None, Some(PROBE_AGAIN)),
            Job::Look | Job::Index | Job::LateCreates => (None, None),
        };
        self.plan(job).ended(pause, every, longest);
        if job == Job::Inspect && self.ctx.sending.blocked().is_some() {
            // If the inspection itself caused the halt, it runs again right after `resume`.
            self.plan(job).next = Some(Instant::now());
        }
    }

    /// Aborts the jobs. Each of them can be repeated.
    pub(super) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

fn may_sweep(blocked: Option<&Blocked>) -> bool {
    match blocked {
        Some(Blocked::Halted { halt, .. }) => halt.cause.side() != Side::Supabase,
        // The holder of the lease sweeps. A service that takes the lease over sweeps at once.
        Some(Blocked::Standby) => false,
        Some(Blocked::Stopping | Blocked::Paused { .. }) | None => true,
    }
}

/// The pause after a failure.
pub(super) fn rest_after(
    failure: &Failure,
    failed: u32,
    timings: &Timings,
    jitter: f64,
) -> Duration {
    let asked = match failure.disposition() {
        Disposition::Retry { after } => after,
        Disposition::Halt { .. } | Disposition::Refused => None,
    };
    timings.backoff(failed, asked, jitter)
}

/// `None`: sweeps are off.
fn short_sweep_every(ctx: &Context) -> Option<Duration> {
    let every = ctx.timings.short_sweep_every;
    ctx.maintenance.sweep_every.map(|_| every)
}

impl Context {
    /// Handles the failure of a job, which may take a request to a neighbour. Returns what the pause after it depends on.
    async fn job_failed(&self, job: Job, failure: Failure) -> Failure {
        if job == Job::ShortSweep {
            // The sweep and the rows tell whether a refusal concerns all rows: so often asked, each short trouble of
            // Supabase would be met several times.
            failure.log();
            return failure;
        }
        match self.classify(&failure, Asked::NOTHING).await {
            Ok(_) => failure,
            Err(error) => {
                let of_the_inbox = Failure::from(error);
                of_the_inbox.log();
                of_the_inbox
            }
        }
    }

    /// Asks the neighbour whether a halt is over.
    async fn probe(&self, halt: &Halt) -> Result<(), InboxError> {
        if halt.cause.side() == Side::Amocrm {
            self.amocrm.reset();
        }
        let is_over = self.is_over(halt).await?;
        tracing::info!(cause = halt.cause.into_str(), is_over, "sync.probe");
        if is_over {
            self.sending.lift(halt).await
        } else {
            self.sending.probe_failed(halt).await
        }
    }

    async fn is_over(&self, halt: &Halt) -> Result<bool, InboxError> {
        let asked = match (halt.cause, halt.cause.side()) {
            (HaltCause::AmocrmStage, _) => self.pipeline(Duration::ZERO).await.map(drop),
            (_, Side::Amocrm) => self.amocrm.account().await.map(drop).map_err(Failure::from),
            (_, Side::Supabase) => {
                let columns = self.supabase.probe().await;
                return Ok(columns.is_ok_and(|columns| columns.missing.is_empty())
                    && if halt.operation == Some(Operation::Read) {
                        self.can_read_again(&halt.rows).await?
                    } else {
                        self.may_read().await
                    }
                    && !self.lease.is_refused());
            }
        };
        // A 403 is classified as a ban, so that no other probe follows.
        if let Err(
            failure @ (Failure::Amocrm(AmoError::Refused(Refusal::Forbidden)) | Failure::Inbox(_)),
        ) = &asked
        {
            self.classify(failure, Asked::NOTHING).await?;
        }
        Ok(asked.is_ok())
    }

    /// When a halt is to be probed.
    fn probe_due(&self, blocked: &Blocked) -> Option<Timestamp> {
        match blocked {
            // The engine itself probes a halt that is tried by a row.
            Blocked::Halted { halt, .. } if halt.is_tried_by_a_row() => None,
            // Only the holder of the lease may probe amoCRM.
            Blocked::Halted {
                halt,
                is_paused: false,
            } if halt.cause.side() == Side::Supabase || self.lease.allows() => {
                probe_due(halt, &self.timings, self.now())
            }
            _ => None,
        }
    }

    /// Lets a halt be probed when the settings that it may be about have changed.
    pub(super) async fn compare_settings(&self) -> Result<(), InboxError> {
        let hasher = self.inbox.hasher();
        let amocrm = self.settings.amocrm_fingerprint.expose_secret();
        let fingerprint = hasher.text("amocrm settings", amocrm);
        self.sending.settings_are(Side::Amocrm, fingerprint).await?;
        let supabase = self.settings.supabase_fingerprint.expose_secret();
        let fingerprint = hasher.text("supabase settings", supabase);
        self.sending.settings_are(Side::Supabase, fingerprint).await
    }
}
