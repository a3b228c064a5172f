//! The service while nothing is sent (`AMOCRM_ENABLED=false`): it has no client for amoCRM.

use std::sync::Arc;

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
#[derive(Debug)]
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
            sweeps.next = None;
            let (since, every) = (self.maintenance.rows.since, self.maintenance.sweep_every);
            let swept = sweep(&self.inbox, &self.supabase, since).await;
            let pause = swept.err().map(|failure| {
                failure.log();
                rest_after(&failure, sweeps.failed, &self.timings, (self.jitter)())
            });
            sweeps.ended(pause, every, every);
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
}
