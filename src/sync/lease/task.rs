//! Asks for the lease and the pause repeatedly, in a task of its own, since no run may delay a renewal. A pause is stored in
//! the inbox before the answer about the lease is used.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    task::{JoinError, JoinSet},
    time::Instant,
};

use super::{
    super::{Context, failure::Chain, pause},
    End, Lease, LeaseStatus, Recalled,
};
use crate::{
    domain::{Disposition, HaltCause},
    inbox::InboxError,
    supabase::{LeaseAnswer, SupabaseError},
};

/// The task, and the channel that ends it.
#[derive(Debug)]
pub(in crate::sync) struct LeaseTask {
    task: JoinSet<()>,
    /// Whether to give the lease back.
    end: Option<oneshot::Sender<bool>>,
}

impl LeaseTask {
    pub(in crate::sync) fn begin(ctx: Arc<Context>, recalled: Recalled) -> Self {
        let (end, ended) = oneshot::channel();
        let mut task = JoinSet::new();
        task.spawn(keep(ctx, recalled, ended));
        Self {
            task,
            end: Some(end),
        }
    }

    /// Completes only if the task has died.
    pub(in crate::sync) async fn died(&mut self) -> JoinError {
        loop {
            match self.task.join_next().await {
                Some(Err(error)) => return error,
                // The task ends without an error only in `end`, which consumes `self`.
                Some(Ok(())) | None => std::future::pending().await,
            }
        }
    }

    /// To be called once the process is stopping. `is_clean`: no write is at work any more.
    pub(in crate::sync) async fn end(mut self, is_clean: bool) {
        if let Some(end) = self.end.take() {
            // The send fails only if the task has died.
            let _ = end.send(is_clean);
        }
        while self.task.join_next().await.is_some() {}
    }
}

async fn keep(ctx: Arc<Context>, recalled: Recalled, ended: oneshot::Receiver<bool>) {
    let Recalled { holder, not_before } = recalled;
    if let Some(at) = not_before {
        let pause = Duration::try_from(ctx.now().duration_until(at)).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = ctx.sending.stopping() => {}
        }
    }
    let mut asking = Asking::default();
    while !ctx.sending.is_stopping() {
        let next = ask(&ctx, &holder, &mut asking).await;
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = ctx.sending.stopping() => {}
        }
    }
    let is_clean = ended.await.unwrap_or(false);
    if !is_clean || ctx.lease.is_in_doubt() {
        tracing::info!("lease.kept: a write without an answer may still land");
        return;
    }
    let end = give_back(&ctx, &holder).await;
    ctx.lease.ended(&ctx.inbox, end).await;
}

async fn give_back(ctx: &Context, holder: &str) -> End {
    let lease = &ctx.lease;
    // In these two states the database may still keep the lease for us.
    if !matches!(lease.status(), LeaseStatus::Ours | LeaseStatus::Unconfirmed) {
        return End::Clean;
    }
    let within = lease.timings().give_back_within;
    match ctx.supabase.lease(holder, 0, within).await {
        Ok(_) => {
            tracing::info!("lease.given_back");
            End::Clean
        }
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "lease.not_given_back");
            match error {
                SupabaseError::NotSent { .. } => End::Clean,
                _ => End::Unanswered { at: ctx.now() },
            }
        }
    }
}

/// What is kept from one request to the next.
#[derive(Debug, Default)]
struct Asking {
    failed: u32,
    /// The database had no function of the pause: it is asked for again then.
    pause_from: Option<Instant>,
}

/// Asks once for the lease and the pause. Returns when to ask again.
async fn ask(ctx: &Context, holder: &str, asking: &mut Asking) -> Instant {
    let lease = &ctx.lease;
    let timings = lease.timings();
    let is_ours = lease.status() == LeaseStatus::Ours;
    let asked = lease.now();
    let request = ctx.supabase.lease(holder, timings.seconds, timings.timeout);
    let (answer, paused) = if is_ours {
        let skips = asking.pause_from.is_some_and(|at| Instant::now() < at);
        tokio::join!(request, learn_of_pause(ctx, asking, skips))
    } else {
        let answer = request.await;
        // Asked after the lease was granted: a pause that came before is known before the term begins. If the lease is not
        // answered, that failure counts alone.
        let is_granted = matches!(answer, Ok(LeaseAnswer::Granted));
        let is_early = asking.pause_from.is_some_and(|at| Instant::now() < at);
        let skips = answer.is_err() || !is_granted && is_early;
        (answer, learn_of_pause(ctx, asking, skips).await)
    };
    if let Err(unknown) = paused
        && answer.is_ok()
    {
        tracing::warn!(error = %Chain(&unknown), "pause.unknown");
        let pause = after_unknown(ctx, &unknown, &mut asking.failed, is_ours).await;
        // A service that does not know of a pause must not begin a term. A term that has begun goes on.
        if !is_ours {
            return Instant::now() + pause;
        }
    }
    let failed = &mut asking.failed;
    let pause = match answer {
        Ok(LeaseAnswer::NoFunction) if lease.is_known() => {
            let detail = "в Supabase нет функции tripwire_sync_lease, а раньше она была";
            record_failure(ctx, HaltCause::SupabaseSchema, 3, detail.to_owned()).await;
            failing(lease, failed, true, None)
        }
        Ok(answer) => {
            *failed = 0;
            lease.answered(answer, asked);
            match answer {
                LeaseAnswer::Granted => return asked.mono + timings.renew_after,
                LeaseAnswer::Refused => timings.poll,
                LeaseAnswer::NoFunction => timings.poll_alone,
            }
        }
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "lease.not_answered");
            let detail = detail("tripwire_sync_lease", &error);
            let pause = after_error(ctx, &error, detail).await;
            failing(lease, failed, pause.is_refused, pause.asked)
        }
    };
    Instant::now() + pause
}

/// Why this service does not know whether it is paused.
#[derive(Debug, thiserror::Error)]
enum PauseUnknown {
    #[error("the database does not tell of a pause")]
    Database(#[from] SupabaseError),
    #[error("the database has no function tripwire_sync_pause, and had one")]
    NoFunction,
    #[error("the inbox does not take what the database tells of a pause")]
    Inbox(#[from] InboxError),
}

/// Asks for the pause, unless that is skipped, and stores it or its end.
async fn learn_of_pause(
    ctx: &Context,
    asking: &mut Asking,
    skips: bool,
) -> Result<(), PauseUnknown> {
    if skips {
        return Ok(());
    }
    let timings = ctx.lease.timings();
    let asked = ctx.now();
    let Some(answer) = ctx.supabase.pause(None, timings.timeout).await? else {
        if pause::is_known(&ctx.inbox).await? {
            return Err(PauseUnknown::NoFunction);
        }
        asking.pause_from = Some(Instant::now() + timings.poll_alone);
        return Ok(());
    };
    asking.pause_from = None;
    if pause::carry_out(&ctx.inbox, &answer, asked).await? {
        ctx.lease.wake();
    }
    Ok(())
}

/// Returns the pause before the next request. Only a lasting failure counts while the lease is ours.
async fn after_unknown(
    ctx: &Context,
    unknown: &PauseUnknown,
    failed: &mut u32,
    is_ours: bool,
) -> Duration {
    let failure = match unknown {
        PauseUnknown::Database(error) => {
            after_error(ctx, error, detail("tripwire_sync_pause", error)).await
        }
        PauseUnknown::NoFunction => {
            let detail = "в Supabase нет функции tripwire_sync_pause, а раньше она была";
            record_failure(ctx, HaltCause::SupabaseSchema, 3, detail.to_owned()).await;
            Failing {
                is_refused: true,
                asked: None,
            }
        }
        PauseUnknown::Inbox(_) => Failing::default(),
    };
    if is_ours {
        return Duration::ZERO;
    }
    failing(&ctx.lease, failed, failure.is_refused, failure.asked)
}

fn detail(function: &str, error: &SupabaseError) -> String {
    let reason = super::super::failure::supabase_reason(error);
    format!("{function}: {reason}")
}

/// How a request failed.
#[derive(Debug, Default)]
struct Failing {
    is_refused: bool,
    /// The pause that the database has asked for.
    asked: Option<Duration>,
}

/// Counts a lasting failure towards a halt.
async fn after_error(ctx: &Context, error: &SupabaseError, detail: String) -> Failing {
    match error.disposition() {
        Disposition::Halt { cause, patience } => {
            record_failure(ctx, cause, patience, detail).await;
            Failing {
                is_refused: true,
                asked: None,
            }
        }
        Disposition::Retry { after } => Failing {
            is_refused: false,
            asked: after,
        },
        Disposition::Refused => Failing::default(),
    }
}

/// The pause after a failure.
fn failing(lease: &Lease, failed: &mut u32, is_refused: bool, asked: Option<Duration>) -> Duration {
    let timings = lease.timings();
    lease.unanswered(is_refused);
    let pauses = if is_refused {
        timings.refused
    } else {
        timings.retry
    };
    let pause = pauses.after(*failed);
    *failed = failed.saturating_add(1);
    pause.max(asked.unwrap_or_default())
}

async fn record_failure(ctx: &Context, cause: HaltCause, patience: u32, detail: String) {
    if let Err(error) = ctx.sending.record_failure(cause, patience, detail).await {
        tracing::error!(error = %Chain(&error), "sync.inbox");
    }
}
