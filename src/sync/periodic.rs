//! What the engine does beside its runs: inspect the target, sweep, look for awaited contacts, probe a halt, keep the
//! contact index. Each job runs in a task of its own, since it may have to wait for a neighbour.

use std::{sync::Arc, time::Duration};

use amocrm::AmoError;
use jiff::Timestamp;
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};

use super::{
    Context, Jitter,
    failure::{Asked, Chain, Failure, Verdict},
    rules::eligibility::later,
    rules::timings::{INBOX_TROUBLE, Timings},
    sending::{Blocked, probe_due},
};
use crate::{
    domain::{Disposition, Halt, HaltCause, Operation, Side},
    inbox::InboxError,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Inspect,
    Sweep,
    ShortSweep,
    Look,
    Probe,
    Index,
    LateCreates,
}

/// When a job runs next.
#[derive(Debug, Default)]
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

    /// `pause`: after a failure.
    pub(super) fn ended(&mut self, pause: Option<Duration>, every: Option<Duration>) {
        self.failed = pause.map_or(0, |_| self.failed.saturating_add(1));
        let next = match (pause, every) {
            (Some(pause), Some(every)) => Some(pause.min(every)),
            (pause, every) => pause.or(every),
        };
        self.next = next.map(|pause| Instant::now() + pause);
    }
}

/// How a job ended.
#[derive(Debug)]
pub(super) struct Done {
    job: Job,
    result: Result<Result<(), Failure>, InboxError>,
}

#[derive(Debug)]
pub(super) struct PeriodicJobs {
    ctx: Arc<Context>,
    tasks: JoinSet<Done>,
    at_work: Vec<Job>,
    inspection: Plan,
    sweep: Plan,
    /// A sweep was asked for while one was at work.
    sweep_again: bool,
    short_sweep: Plan,
    /// Planned only after a failure: a look that is due waits until then.
    look: Plan,
    index: Plan,
    late_creates: Plan,
}

impl PeriodicJobs {
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        Self {
            inspection: Plan::each(ctx.settings.inspect_every),
            sweep: Plan::each(ctx.maintenance.sweep_every),
            sweep_again: false,
            // The sweep comes at once.
            short_sweep: Plan::after(short_sweep_every(&ctx)),
            look: Plan::default(),
            index: Plan::default(),
            late_creates: Plan::default(),
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
        let dues = [
            (Job::Inspect, self.inspection_due(blocked)),
            (Job::Sweep, self.sweep_due(&self.sweep, blocked)),
            (Job::ShortSweep, self.sweep_due(&self.short_sweep, blocked)),
            (Job::Look, self.look_due(blocked).await),
            (Job::Probe, self.probe_due(blocked)),
            (Job::Index, self.index_due().await),
            (Job::LateCreates, self.late_look_due(blocked).await),
        ];
        // Read after the due times, so that a job that is due at once is not in the future.
        let now = self.ctx.now();
        let mut next = Vec::new();
        for (job, due) in dues {
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
        self.sweep.next = Some(Instant::now());
        // One that is at work may be past the newest rows.
        self.sweep_again = self.at_work.contains(&Job::Sweep);
    }

    /// Plans a sweep: another service has worked, and may have known of rows that we do not.
    pub(super) fn take_over(&mut self) {
        if self.ctx.maintenance.sweep_after_another {
            self.sweep.next = Some(Instant::now());
        }
    }

    fn inspection_due(&self, blocked: Option<&Blocked>) -> Option<Timestamp> {
        self.inspection
            .next
            .filter(|_| blocked.is_none())
            .map(|at| self.by_the_clock(at))
    }

    fn sweep_due(&self, plan: &Plan, blocked: Option<&Blocked>) -> Option<Timestamp> {
        let is_off = match blocked {
            Some(Blocked::Halted { halt, .. }) => halt.cause.side() == Side::Supabase,
            // The holder of the lease sweeps. A service that takes the lease over sweeps at once.
            Some(Blocked::Standby) => true,
            Some(Blocked::Stopping | Blocked::Paused { .. }) | None => false,
        };
        plan.next
            .filter(|_| !is_off)
            .map(|at| self.by_the_clock(at))
    }

    async fn look_due(&self, blocked: Option<&Blocked>) -> Option<Timestamp> {
        if blocked.is_some() {
            return None;
        }
        self.not_before(&self.look, self.ctx.next_look().await)
    }

    async fn index_due(&self) -> Option<Timestamp> {
        self.not_before(&self.index, self.ctx.index_due().await)
    }

    async fn late_look_due(&self, blocked: Option<&Blocked>) -> Option<Timestamp> {
        if blocked.is_some() {
            return None;
        }
        self.not_before(&self.late_creates, self.ctx.late_look_due().await)
    }

    /// When a job is due, but not before its pause after a failure is over.
    fn not_before(
        &self,
        plan: &Plan,
        due: Result<Option<Timestamp>, InboxError>,
    ) -> Option<Timestamp> {
        let due = due.unwrap_or_else(|error| {
            tracing::error!(error = %Chain(&error), "sync.inbox");
            None
        });
        due.map(|due| plan.next.map_or(due, |at| self.by_the_clock(at).max(due)))
    }

    fn probe_due(&self, blocked: Option<&Blocked>) -> Option<Timestamp> {
        match blocked {
            // The engine itself probes a halt that is tried by a row.
            Some(Blocked::Halted { halt, .. }) if halt.is_tried_by_a_row() => None,
            // Only the holder of the lease may probe amoCRM.
            Some(Blocked::Halted {
                halt,
                is_paused: false,
            }) if halt.cause.side() == Side::Supabase || self.ctx.lease.allows() => {
                probe_due(halt, &self.ctx.timings, self.ctx.now())
            }
            _ => None,
        }
    }

    fn by_the_clock(&self, at: Instant) -> Timestamp {
        later(self.ctx.now(), at.saturating_duration_since(Instant::now()))
    }

    fn begin(&mut self, job: Job, blocked: Option<&Blocked>) {
        let ctx = Arc::clone(&self.ctx);
        let halt = match blocked {
            Some(Blocked::Halted { halt, .. }) => Some(halt.clone()),
            _ => None,
        };
        self.at_work.push(job);
        self.tasks.spawn(async move {
            let result = match job {
                Job::Inspect => ctx.inspect().await,
                Job::Sweep => ctx.sweep().await,
                Job::ShortSweep => ctx.short_sweep().await,
                Job::Look => ctx.look().await.map(|found| found.map(|_| ())),
                Job::Probe => match halt {
                    Some(halt) => ctx.probe(&halt).await.map(Ok),
                    None => Ok(Ok(())),
                },
                Job::Index => ctx.keep_index().await,
                Job::LateCreates => ctx.look_for_late_creates().await,
            };
            Done { job, result }
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
    pub(super) async fn ended(&mut self, ended: Result<Done, JoinError>) {
        let Done { job, result } = match ended {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return,
        };
        self.at_work.retain(|at_work| *at_work != job);
        match job {
            Job::Inspect => {
                let every = self.ctx.settings.inspect_every;
                let pause = self.pause_after(result, self.inspection.failed).await;
                self.inspection.ended(pause, every);
                if self.ctx.sending.blocked().is_some() {
                    // If the inspection itself caused the halt, it runs again right after `resume`.
                    self.inspection.next = Some(Instant::now());
                }
            }
            Job::Sweep => {
                let every = self.ctx.maintenance.sweep_every;
                let pause = self.pause_after(result, self.sweep.failed).await;
                self.sweep.ended(pause, every);
                if std::mem::take(&mut self.sweep_again) {
                    self.sweep.next = Some(Instant::now());
                }
            }
            Job::ShortSweep => {
                let every = short_sweep_every(&self.ctx);
                // The sweep and the rows tell whether a refusal concerns all rows: so often asked, each short trouble of
                // Supabase would be met several times.
                let pause = rest_after(
                    result,
                    self.short_sweep.failed,
                    &self.ctx.timings,
                    &self.ctx.jitter,
                );
                let longest = self.ctx.maintenance.sweep_every;
                self.short_sweep.ended(pause, pause.and(longest));
                self.short_sweep.next = self
                    .short_sweep
                    .next
                    .or(every.map(|it| Instant::now() + it));
            }
            Job::Look => {
                let pause = self.pause_after(result, self.look.failed).await;
                self.look.ended(pause, None);
            }
            Job::Index => {
                let pause = self.pause_after(result, self.index.failed).await;
                self.index.ended(pause, None);
            }
            Job::LateCreates => {
                let pause = self.pause_after(result, self.late_creates.failed).await;
                self.late_creates.ended(pause, None);
            }
            Job::Probe => {
                self.pause_after(result, 0).await;
            }
        }
    }

    /// The pause after a failure; `None` after a success.
    async fn pause_after(
        &self,
        result: Result<Result<(), Failure>, InboxError>,
        failed: u32,
    ) -> Option<Duration> {
        let judged = match result {
            Ok(Ok(())) => return None,
            Ok(Err(failure)) => self.ctx.classify(&failure, Asked::NOTHING).await,
            Err(error) => Err(error),
        };
        let asked = match judged {
            Ok(Verdict::Retry { after }) => after,
            Ok(Verdict::NotItsFault | Verdict::InDoubt | Verdict::Park | Verdict::SetAside) => None,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "sync.inbox");
                Some(INBOX_TROUBLE)
            }
        };
        let jitter = (self.ctx.jitter)();
        Some(self.ctx.timings.backoff(failed, asked, jitter))
    }

    /// Aborts the jobs. Each of them can be repeated.
    pub(super) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// The pause after a failure that is logged and counts towards no halt. `None`: all went well.
pub(super) fn rest_after<T>(
    result: Result<Result<T, Failure>, InboxError>,
    failed: u32,
    timings: &Timings,
    jitter: &Jitter,
) -> Option<Duration> {
    let asked = match result {
        Ok(Ok(_)) => return None,
        Ok(Err(failure)) => {
            tracing::warn!(error = %Chain(&failure), "sync.request_failed");
            match failure.disposition() {
                Disposition::Retry { after } => after,
                Disposition::Halt { .. } | Disposition::Refused => None,
            }
        }
        Err(error) => {
            tracing::error!(error = %Chain(&error), "sync.inbox");
            Some(INBOX_TROUBLE)
        }
    };
    Some(timings.backoff(failed, asked, jitter()))
}

/// `None`: sweeps are off.
fn short_sweep_every(ctx: &Context) -> Option<Duration> {
    let every = ctx.timings.short_sweep_every;
    ctx.maintenance.sweep_every.map(|_| every)
}

impl Context {
    /// Asks the neighbour whether a halt is over.
    async fn probe(&self, halt: &Halt) -> Result<(), InboxError> {
        if halt.cause.side() == Side::Amocrm {
            self.amocrm.reset();
        }
        let is_over = self.is_over(halt).await?;
        tracing::info!(cause = halt.cause.as_str(), is_over, "sync.probe");
        if is_over {
            self.sending.lift(halt).await
        } else {
            self.sending.probe_failed(halt).await
        }
    }

    async fn is_over(&self, halt: &Halt) -> Result<bool, InboxError> {
        Ok(match halt.cause {
            HaltCause::AmocrmToken
            | HaltCause::AmocrmPayment
            | HaltCause::AmocrmForbidden
            | HaltCause::AmocrmAccount => match self.amocrm.account().await {
                Ok(_) => true,
                Err(error) => self.probe_was_refused(error).await?,
            },
            HaltCause::AmocrmStage => match self.pipeline(Duration::ZERO).await? {
                Ok(_) => true,
                Err(Some(Failure::Amocrm(error))) => self.probe_was_refused(error).await?,
                Err(_) => false,
            },
            HaltCause::SupabaseWriteBack
            | HaltCause::SupabaseKey
            | HaltCause::SupabaseSchema
            | HaltCause::SupabaseProject
            | HaltCause::SupabaseDatabase => {
                let columns = self.supabase.probe().await;
                columns.is_ok_and(|columns| columns.missing.is_empty())
                    && if halt.operation == Some(Operation::Read) {
                        self.can_read_again(&halt.rows).await?
                    } else {
                        self.may_read().await
                    }
                    && !self.lease.is_refused()
            }
        })
    }

    /// Returns `false`: the halt is not over. A 403 is classified as a ban, so that no other probe follows.
    async fn probe_was_refused(&self, error: AmoError) -> Result<bool, InboxError> {
        if matches!(error, AmoError::Forbidden) {
            self.classify(&Failure::from(error), Asked::NOTHING).await?;
        }
        Ok(false)
    }

    /// Lets a halt be probed when the settings that it may be about have changed.
    pub(super) async fn compare_settings(&self) -> Result<(), InboxError> {
        let hasher = self.inbox.hasher();
        let amocrm = &self.settings.amocrm_fingerprint;
        let fingerprint = hasher.text("amocrm settings", amocrm);
        self.sending.settings_are(Side::Amocrm, fingerprint).await?;
        let supabase = &self.settings.supabase_fingerprint;
        let fingerprint = hasher.text("supabase settings", supabase);
        self.sending.settings_are(Side::Supabase, fingerprint).await
    }
}
