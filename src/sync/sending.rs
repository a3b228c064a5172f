//! Whether anything may be sent: pause, halts and the stop of the process, in one place.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    lease::{Lease, LeaseStatus},
    rules::timings::Timings,
};
use crate::{
    domain::{Backoff, Halt, HaltCause, KeyedHash, Operation, RowId, SharedClock, Side, SyncState},
    inbox::{HALT, Inbox, InboxError, PAUSED, StoredState},
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

/// One halt that began once, whatever was added to it since.
fn is_same(one: Option<&Halt>, other: Option<&Halt>) -> bool {
    let begin = |halt: &Halt| (halt.cause, halt.since);
    one.map(begin) == other.map(begin)
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
    /// Held while the halt goes to the inbox or comes from it.
    exchange: tokio::sync::Mutex<()>,
    state: watch::Sender<SyncState>,
}

#[derive(Debug, Default)]
struct Known {
    paused: Option<Timestamp>,
    /// In force at once, even if the inbox cannot store it.
    halt: Option<Halt>,
    /// The halt in the inbox, as this process left it or read it last. If it changes there, a person has ended it.
    stored: Option<Halt>,
    failures: HashMap<HaltCause, Vec<Instant>>,
}

impl Known {
    fn put(&mut self, halt: Option<Halt>) {
        self.halt = halt;
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
            exchange: tokio::sync::Mutex::default(),
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
        let known = self.known.lock();
        Blocked::stored(known.halt.clone(), known.paused)
    }

    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.known.lock().halt.is_some()
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
        let exchange = self.exchange.lock().await;
        self.write_halt().await?;
        let paused = self.inbox.state(PAUSED).await?;
        let halt: Option<Halt> = self.inbox.state(HALT).await?;
        let resumed = {
            let mut known = self.known.lock();
            known.paused = paused;
            // A halt that has begun since is written over the one that a person has ended.
            let is_news = known.halt == known.stored && known.stored != halt;
            if is_news {
                known.stored.clone_from(&halt);
                known.put(halt);
            }
            is_news && known.halt.is_none()
        };
        drop(exchange);
        if resumed {
            tracing::info!("sync.resumed");
        }
        self.publish();
        Ok(resumed)
    }

    /// Lets a stored halt be probed at once when the settings of its neighbour have changed since it began. Only a
    /// person can end a halt over a 403.
    pub async fn settings_are(&self, side: Side, fingerprint: KeyedHash) -> Result<(), InboxError> {
        let keys: &[&str; 2] = match side {
            Side::Amocrm => &[AMOCRM_FINGERPRINT, HALT],
            Side::Supabase => &[SUPABASE_FINGERPRINT, HALT],
        };
        let next_probe = Some(self.clock.now());
        // In one change, so that a halt which a person ends meanwhile stays ended.
        let compare = move |state: &mut StoredState| {
            if state.get(keys[0])? == Some(fingerprint) {
                return Ok(());
            }
            state.set(keys[0], Some(&fingerprint))?;
            match state.get::<Halt>(HALT)? {
                Some(halt)
                    if halt.cause.side() == side && halt.cause != HaltCause::AmocrmForbidden =>
                {
                    state.set(HALT, Some(&Halt { next_probe, ..halt }))
                }
                _ => Ok(()),
            }
        };
        self.inbox.change_state(keys, compare).await
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
            let mut known = self.known.lock();
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
            let mut known = self.known.lock();
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
            known.put(Some(halt.clone()));
            halt
        };
        let named: Vec<String> = halt.rows.iter().map(ToString::to_string).collect();
        tracing::error!(
            cause = cause.into_str(),
            operation = operation.map(|it| it.into_str()),
            detail = %halt.detail,
            rows = named.join(" "),
            "sync.halted"
        );
        // Published after it is stored, so that a `resume` in response ends it.
        let stored = self.store().await;
        self.publish();
        stored
    }

    /// Names these rows in a ban in force: their requests were in flight when it began.
    pub async fn name_banned(&self, rows: Vec<RowId>) -> Result<(), InboxError> {
        {
            let mut known = self.known.lock();
            let ban = known.halt.as_mut();
            let Some(ban) = ban.filter(|halt| halt.cause == HaltCause::AmocrmForbidden) else {
                return Ok(());
            };
            ban.rows = rows;
        }
        self.store().await
    }

    /// The probe of a halt has failed: the next one comes later, unless a person has ended the halt or another halt has
    /// replaced it.
    pub async fn probe_failed(&self, halt: &Halt) -> Result<(), InboxError> {
        let probes = halt.probes.saturating_add(1);
        let pause = probe_pause(&self.timings, halt.cause, probes);
        let next_probe = pause.and_then(|pause| self.clock.now().checked_add(pause).ok());
        {
            let mut known = self.known.lock();
            if known.halt.as_ref() != Some(halt) {
                return Ok(());
            }
            // In memory first: if the inbox cannot be written, the neighbour must not be asked again at once.
            known.put(Some(Halt {
                probes,
                next_probe,
                ..halt.clone()
            }));
        }
        let stored = self.store().await;
        self.publish();
        stored
    }

    /// The probe of a halt has succeeded.
    pub async fn lift(&self, halt: &Halt) -> Result<(), InboxError> {
        let exchange = self.exchange.lock().await;
        let is_in_force = {
            let known = self.known.lock();
            [&known.halt, &known.stored].map(Option::as_ref) == [Some(halt); 2]
        };
        if !is_in_force {
            return Ok(());
        }
        let ended = halt.clone();
        let end = move |state: &mut StoredState| {
            let is_there = state.get::<Halt>(HALT)?.as_ref() == Some(&ended);
            if is_there {
                state.set::<Halt>(HALT, None)?;
            }
            Ok(is_there)
        };
        if !self.inbox.change_state(&[HALT], end).await? {
            return Ok(());
        }
        {
            let mut known = self.known.lock();
            known.stored = None;
            if known.halt.as_ref() == Some(halt) {
                known.put(None);
            }
        }
        drop(exchange);
        tracing::info!(cause = halt.cause.into_str(), "sync.recovered");
        self.publish();
        Ok(())
    }

    /// Brings the halt in force to the inbox.
    async fn store(&self) -> Result<(), InboxError> {
        let _exchange = self.exchange.lock().await;
        self.write_halt().await
    }

    /// Writes the halt in force over the one in the inbox, unless that is the same halt and a person has ended it
    /// meanwhile: then what was added is dropped, and the next look at the inbox finds the end. The caller holds `exchange`.
    async fn write_halt(&self) -> Result<(), InboxError> {
        let (halt, stored) = {
            let known = self.known.lock();
            (known.halt.clone(), known.stored.clone())
        };
        if halt == stored {
            return Ok(());
        }
        let is_new = !is_same(halt.as_ref(), stored.as_ref());
        let (written, expected) = (halt.clone(), stored.clone());
        let write = move |state: &mut StoredState| {
            let may_write = is_new || state.get::<Halt>(HALT)? == expected;
            if may_write {
                state.set(HALT, written.as_ref())?;
            }
            Ok(may_write)
        };
        let is_written = self.inbox.change_state(&[HALT], write).await?;
        let mut known = self.known.lock();
        if is_written {
            known.stored = halt;
        } else if known.halt == halt {
            known.put(stored);
        }
        Ok(())
    }

    fn publish(&self) {
        let state = state_of(self.stored().as_ref(), self.lease.status());
        self.state.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
    }
}

#[cfg(test)]
mod tests;
