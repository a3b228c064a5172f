//! Whether anything may be sent: pause, halts and the stop of the process, in one place.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    lease::{Lease, LeaseStatus},
    rules::timings::Timings,
};
use crate::{
    domain::{Backoff, Halt, HaltCause, KeyedHash, Operation, RowId, SharedClock, Side, SyncState},
    inbox::{HALT, Inbox, InboxError, PAUSED},
};

const AMOCRM_FINGERPRINT: &str = "amocrm_settings";
const SUPABASE_FINGERPRINT: &str = "supabase_settings";

/// Failures of one cause count together only when they are this close.
const FAILURES_WITHIN: Duration = Duration::from_mins(15);

/// Whether a new cause replaces a halt. A ban replaces every other cause, since it must not be probed. A refused login
/// replaces a halt that is probed by rows.
fn outranks(cause: HaltCause, halt: &Halt) -> bool {
    match cause {
        HaltCause::AmocrmForbidden => halt.cause != HaltCause::AmocrmForbidden,
        HaltCause::AmocrmToken | HaltCause::AmocrmPayment => halt.is_tried_by_a_row(),
        _ => false,
    }
}

fn probe_pause(timings: &Timings, cause: HaltCause, probes: u32) -> Option<Duration> {
    let growing: Backoff = match (cause, cause.side()) {
        (HaltCause::AmocrmForbidden, _) => return None,
        // Frequent probes lead to no ban here: no refused login is repeated for an account that moved or a right that
        // is missing.
        (HaltCause::AmocrmAccount, _) | (_, Side::Supabase) => timings.supabase_probe,
        (_, Side::Amocrm) => timings.amocrm_probe,
    };
    Some(growing.after(probes))
}

/// When a halt is to be probed. A time further away than its pause was stored before the clock was put back: the probe
/// is due now.
pub(super) fn probe_due(halt: &Halt, timings: &Timings, now: Timestamp) -> Option<Timestamp> {
    let due = halt.next_probe?;
    let pause = probe_pause(timings, halt.cause, halt.probes)?;
    let latest = now.checked_add(pause).unwrap_or(Timestamp::MAX);
    Some(if due > latest { now } else { due })
}

/// Why nothing new may begin: the first reason that holds, in this order. [`state_of`] keeps the same order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    Stopping,
    Halted {
        halt: Halt,
        /// The service is paused as well, so the halt is not probed.
        is_paused: bool,
    },
    Paused {
        since: Timestamp,
    },
    /// The lease is not ours, or its term has not begun.
    Standby,
}

impl Blocked {
    /// The reason that is stored, whatever the lease says.
    #[must_use]
    pub fn stored(halt: Option<Halt>, paused: Option<Timestamp>) -> Option<Self> {
        match (halt, paused) {
            (Some(halt), paused) => Some(Self::Halted {
                halt,
                is_paused: paused.is_some(),
            }),
            (None, Some(since)) => Some(Self::Paused { since }),
            (None, None) => None,
        }
    }
}

/// The state that the service reports.
#[must_use]
pub fn state_of(stored: Option<&Blocked>, lease: LeaseStatus) -> SyncState {
    match stored {
        Some(Blocked::Halted { halt, .. }) => SyncState::Halted {
            cause: halt.cause,
            since: halt.since,
            next_probe: halt.next_probe,
        },
        Some(Blocked::Paused { since }) => SyncState::Paused { since: *since },
        Some(Blocked::Stopping | Blocked::Standby) | None => match lease {
            LeaseStatus::Unknown => SyncState::Starting,
            LeaseStatus::Alone | LeaseStatus::Ours => SyncState::Working,
            LeaseStatus::Unconfirmed => SyncState::Standby {
                held_by_another: false,
            },
            LeaseStatus::Theirs => SyncState::Standby {
                held_by_another: true,
            },
        },
    }
}

#[derive(Debug)]
pub struct Sending {
    inbox: Inbox,
    clock: SharedClock,
    timings: Timings,
    lease: Lease,
    stop: CancellationToken,
    known: Mutex<Known>,
    state: watch::Sender<SyncState>,
}

#[derive(Debug, Default)]
struct Known {
    paused: Option<Timestamp>,
    halt: Option<Halt>,
    /// The halt is persisted. If it vanishes from disk, a person has ended it.
    is_stored: bool,
    /// Counts changes of the halt by this process, so that a read that began before a change is not taken for news.
    changes: u64,
    failures: HashMap<HaltCause, Vec<Instant>>,
}

impl Known {
    fn set(&mut self, halt: Option<Halt>, is_stored: bool) {
        self.halt = halt;
        self.is_stored = is_stored;
        self.changes = self.changes.wrapping_add(1);
        self.failures.clear();
    }
}

impl Sending {
    #[must_use]
    pub fn new(
        inbox: Inbox,
        clock: SharedClock,
        timings: Timings,
        lease: Lease,
        stop: CancellationToken,
        state: watch::Sender<SyncState>,
    ) -> Self {
        Self {
            inbox,
            clock,
            timings,
            lease,
            stop,
            known: Mutex::default(),
            state,
        }
    }

    /// Why work in hand must stop at its next step; `None` if it may go on.
    #[must_use]
    pub fn blocked(&self) -> Option<Blocked> {
        if self.stop.is_cancelled() {
            return Some(Blocked::Stopping);
        }
        self.stored()
            .or_else(|| (!self.lease.allows()).then_some(Blocked::Standby))
    }

    fn stored(&self) -> Option<Blocked> {
        let known = self.known();
        Blocked::stored(known.halt.clone(), known.paused)
    }

    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Completes when the process is to stop.
    pub async fn stopping(&self) {
        self.stop.clone().cancelled_owned().await;
    }

    /// Takes over what is stored: another process may have paused or resumed. `true`: a halt was ended.
    pub async fn refresh(&self) -> Result<bool, InboxError> {
        let (changes, unstored) = {
            let known = self.known();
            (
                known.changes,
                known.halt.clone().filter(|_| !known.is_stored),
            )
        };
        if let Some(halt) = unstored {
            self.store(&halt).await?;
        }
        let paused = self.inbox.state(PAUSED).await?;
        let halt: Option<Halt> = self.inbox.state(HALT).await?;
        let resumed = {
            let mut known = self.known();
            known.paused = paused;
            let is_news = known.changes == changes && known.halt != halt;
            // A halt that this process has not stored yet cannot have been ended by a person.
            let resumed = is_news && known.is_stored && halt.is_none();
            if is_news {
                let is_stored = halt.is_some();
                known.set(halt, is_stored);
            }
            resumed
        };
        if resumed {
            tracing::info!("sync.resumed");
        }
        self.publish();
        Ok(resumed)
    }

    /// Lets a stored halt be probed at once when the settings of its neighbour have changed since it began. Only a
    /// person can end a halt over a 403.
    pub async fn settings_are(&self, side: Side, fingerprint: KeyedHash) -> Result<(), InboxError> {
        let key = match side {
            Side::Amocrm => AMOCRM_FINGERPRINT,
            Side::Supabase => SUPABASE_FINGERPRINT,
        };
        if self.inbox.state(key).await? == Some(fingerprint) {
            return Ok(());
        }
        let halt: Option<Halt> = self.inbox.state(HALT).await?;
        if let Some(halt) = halt
            .filter(|halt| halt.cause.side() == side && halt.cause != HaltCause::AmocrmForbidden)
        {
            let next_probe = Some(self.clock.now());
            self.inbox
                .set_state(HALT, &Halt { next_probe, ..halt })
                .await?;
        }
        self.inbox.set_state(key, &fingerprint).await
    }

    /// Counts a failure that no entry is to blame for. `true`: sending has stopped.
    pub async fn record_failure(
        &self,
        cause: HaltCause,
        patience: u32,
        detail: String,
    ) -> Result<bool, InboxError> {
        let enough = usize::try_from(patience).unwrap_or(usize::MAX);
        {
            let mut known = self.known();
            if known
                .halt
                .as_ref()
                .is_some_and(|halt| !outranks(cause, halt))
            {
                return Ok(true);
            }
            let now = Instant::now();
            let failures = known.failures.entry(cause).or_default();
            failures.retain(|at| now.duration_since(*at) < FAILURES_WITHIN);
            failures.push(now);
            if failures.len() < enough {
                return Ok(false);
            }
        }
        self.halt(cause, detail, None, Vec::new()).await?;
        Ok(true)
    }

    /// Stops sending, unless it is stopped already. `operation`: what is refused for these rows.
    pub async fn halt(
        &self,
        cause: HaltCause,
        detail: String,
        operation: Option<Operation>,
        rows: Vec<RowId>,
    ) -> Result<(), InboxError> {
        let since = self.clock.now();
        let halt = {
            let mut known = self.known();
            if known
                .halt
                .as_ref()
                .is_some_and(|halt| !outranks(cause, halt))
            {
                return Ok(());
            }
            let next_probe = probe_pause(&self.timings, cause, 0)
                .and_then(|pause| since.checked_add(pause).ok());
            let halt = Halt {
                cause,
                since,
                probes: 0,
                next_probe,
                detail,
                operation,
                rows,
            };
            // In force at once, even if the inbox cannot store it.
            known.set(Some(halt.clone()), false);
            halt
        };
        let named: Vec<String> = halt.rows.iter().map(ToString::to_string).collect();
        tracing::error!(
            cause = cause.as_str(),
            operation = operation.map(Operation::as_str),
            detail = %halt.detail,
            rows = named.join(" "),
            "sync.halted"
        );
        // Published after it is stored, so that a `resume` in response ends it.
        let stored = self.store(&halt).await;
        self.publish();
        stored
    }

    /// Names these rows in a ban in force: their requests were in flight when it began.
    pub async fn name_banned(&self, rows: Vec<RowId>) -> Result<(), InboxError> {
        let (ban, is_stored) = {
            let known = self.known();
            (known.halt.clone(), known.is_stored)
        };
        let Some(ban) = ban.filter(|halt| halt.cause == HaltCause::AmocrmForbidden) else {
            return Ok(());
        };
        // A person has ended the ban meanwhile: storing its rows must not bring it back.
        if is_stored && !self.is_in_force(&ban).await? {
            return Ok(());
        }
        let named = Halt { rows, ..ban };
        self.known().set(Some(named.clone()), false);
        self.store(&named).await
    }

    async fn store(&self, halt: &Halt) -> Result<(), InboxError> {
        self.inbox.set_state(HALT, halt).await?;
        let mut known = self.known();
        if known.halt.as_ref() == Some(halt) {
            known.is_stored = true;
            known.changes = known.changes.wrapping_add(1);
        }
        Ok(())
    }

    /// The probe of a halt has failed: the next one comes later, unless a person has ended the halt or another halt has
    /// replaced it.
    pub async fn probe_failed(&self, halt: &Halt) -> Result<(), InboxError> {
        let probes = halt.probes.saturating_add(1);
        let pause = probe_pause(&self.timings, halt.cause, probes);
        let next_probe = pause.and_then(|pause| self.clock.now().checked_add(pause).ok());
        let later = Halt {
            probes,
            next_probe,
            ..halt.clone()
        };
        if !self.is_in_force(halt).await? {
            return Ok(());
        }
        // In memory first: if the inbox cannot be written, the neighbour must not be asked again at once.
        self.known().set(Some(later.clone()), false);
        self.publish();
        self.store(&later).await
    }

    /// The probe of a halt has succeeded.
    pub async fn lift(&self, halt: &Halt) -> Result<(), InboxError> {
        if !self.is_in_force(halt).await? {
            return Ok(());
        }
        self.inbox.clear_state(HALT).await?;
        self.known().set(None, false);
        tracing::info!(cause = halt.cause.as_str(), "sync.recovered");
        self.publish();
        Ok(())
    }

    async fn is_in_force(&self, halt: &Halt) -> Result<bool, InboxError> {
        let stored: Option<Halt> = self.inbox.state(HALT).await?;
        Ok(stored.as_ref() == Some(halt) && self.known().halt.as_ref() == Some(halt))
    }

    fn publish(&self) {
        let state = state_of(self.stored().as_ref(), self.lease.status());
        self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
