//! The service while nothing is sent (`AMOCRM_ENABLED=false`): it has no client for amoCRM.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Jitter, Maintenance,
    engine::{HOUSEKEEPING, PURGE_EVERY, beating, purge},
    failure::Chain,
    lease,
    periodic::{Plan, rest_after},
    rules::timings::Timings,
    sweep::sweep,
};
use crate::{
    domain::{Heartbeat, SharedClock, SyncState},
    inbox::Inbox,
    supabase::Supabase,
};

/// Sweeps for rows that no event has announced, and removes done entries past their retention.
pub struct Hold {
    pub inbox: Inbox,
    pub supabase: Supabase,
    pub clock: SharedClock,
    pub maintenance: Maintenance,
    pub timings: Timings,
    pub jitter: Jitter,
    pub stop: CancellationToken,
    /// A person wants a sweep at once.
    pub sweep_now: Arc<Notify>,
    /// Beats every quarter of a minute at least.
    pub heartbeat: Heartbeat,
    pub state: watch::Sender<SyncState>,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("maintenance", &self.maintenance)
            .finish_non_exhaustive()
    }
}

impl Hold {
    /// Works until it is told to stop.
    pub async fn work(self) {
        self.state.send_replace(SyncState::Holding);
        if let Err(error) = lease::forget_status(&self.inbox).await {
            tracing::error!(error = %Chain(&error), "sync.inbox");
        }
        let mut sweeps = Plan::each(self.maintenance.sweep_every);
        let mut next_purge = Instant::now();
        while !self.stop.is_cancelled() {
            self.heartbeat.beat();
            // What was asked of the inbox is carried out although its answer is dropped.
            tokio::select! {
                () = beating(&self.heartbeat, self.turn(&mut sweeps, &mut next_purge)) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    async fn turn(&self, sweeps: &mut Plan, next_purge: &mut Instant) {
        self.notice_command().await;
        if *next_purge <= Instant::now() {
            *next_purge = Instant::now() + PURGE_EVERY;
            if let Err(error) = purge(&self.inbox, &self.clock, self.maintenance.retention).await {
                tracing::error!(error = %Chain(&error), "sync.inbox");
            }
        }
        if sweeps.next.is_some_and(|next| next <= Instant::now()) {
            let pause = self.sweep(sweeps.failed).await;
            sweeps.ended(pause, self.maintenance.sweep_every);
        }
        let rest = Instant::now() + HOUSEKEEPING;
        let until = sweeps.next.map_or(rest, |next| next.min(rest));
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = self.inbox.changed() => {}
            () = self.sweep_now.notified() => sweeps.next = Some(Instant::now()),
        }
    }

    /// Answers a command, which waits for this before it asks amoCRM with settings of its own.
    async fn notice_command(&self) {
        let noticed = async {
            if self.inbox.is_command_at_work().await? {
                self.inbox.notice_command().await?;
            }
            Ok::<_, crate::inbox::InboxError>(())
        };
        if let Err(error) = noticed.await {
            tracing::warn!(error = %Chain(&error), "sync.command");
        }
    }

    /// Returns the pause after a failure; `None` after a success.
    async fn sweep(&self, failed: u32) -> Option<Duration> {
        let swept = sweep(&self.inbox, &self.supabase, self.maintenance.rows.since).await;
        rest_after(swept, failed, &self.timings, &self.jitter)
    }
}
