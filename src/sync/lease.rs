//! One syncs, all accept: of all services on one Supabase project, one works on amoCRM, whatever their inboxes.
//!
//! The database lends the lease for 80 s at a time, and it is renewed every 15 s. It counts from before it was asked for,
//! by whichever clock says that more time has passed. No request begins in its last 50 s: a write waits 20 s for its
//! answer, and amoCRM may carry it out up to 30 s after its gateway gave up. So when a lease runs out nothing of its
//! holder's can land any more, the next one may begin at once, and what it sees is the whole truth: a look that shows
//! no note, and no deal, is decisive. That is also why nobody needs to know whether a lease was given back or ran out.
//!
//! Until then a new holder waits at most 80 s, and 5 s more until it asks again.
//!
//! What a lease does not look at: a service keeps it, and takes it, also while it is paused or halted. Whoever paused it
//! wants nothing sent, and an account that has forbidden one service would ban the other. Only a service that holds
//! (`AMOCRM_ENABLED=false`) never asks.

mod state;
mod task;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use amocrm::Permit;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::Instant};

pub use self::state::LeaseStatus;
use self::state::{LeaseState, Moment};
pub(super) use self::{state::Opening, task::LeaseTask};
use super::rules::timings::{LeaseTimings, Timings};
use crate::{
    domain::{Chain, SharedClock},
    inbox::{Inbox, InboxError, REPLACED, Replaced},
    supabase::LeaseAnswer,
};

/// Keys of the engine's own state in the inbox.
pub const HOLDER: &str = "lease_holder";
pub const LEASE: &str = "lease";
const LAST_END: &str = "lease_last_end";

/// How this service stood last, for who looks into its inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    #[serde(rename = "standing")]
    pub status: LeaseStatus,
    pub since: Timestamp,
    /// From then on its absence is an outage.
    pub was_ever_there: bool,
}

/// How the last life of this service ended. Not stored, or `AtWork`: in the middle of its work, perhaps of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    AtWork,
    Clean,
    /// It gave the lease back, was not answered, and must not take it before that has happened or never will.
    Unanswered {
        at: Timestamp,
    },
}

/// What this service is to know before it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recalled {
    /// Under this name it holds the lease.
    holder: String,
    not_before: Option<Timestamp>,
}

/// A handle on what this process knows of the lease; clones share it.
#[derive(Debug, Clone)]
pub struct Lease {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The database is asked for it.
    is_asked_for: bool,
    timings: LeaseTimings,
    /// How long after its gateway gave up amoCRM may still carry out a write.
    late_commit: Duration,
    clock: SharedClock,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    lease: LeaseState,
    /// Whether the last answer was a refusal that a person has to see to.
    is_refused: bool,
    /// Until then a write without an answer may still be carried out.
    doubt_until: Option<Instant>,
    recorded: Option<Record>,
}

impl Lease {
    #[must_use]
    pub fn new(timings: &Timings, clock: SharedClock) -> Self {
        Self::of(timings, clock, true)
    }

    fn of(timings: &Timings, clock: SharedClock, is_asked_for: bool) -> Self {
        Self {
            shared: Arc::new(Shared {
                is_asked_for,
                timings: timings.lease,
                late_commit: timings.late_commit,
                clock,
                state: Mutex::new(State {
                    lease: LeaseState::new(timings.lease),
                    is_refused: false,
                    doubt_until: None,
                    recorded: None,
                }),
                changed: Notify::new(),
            }),
        }
    }

    /// Whether a request to amoCRM, or a write back, may begin now.
    #[must_use]
    pub fn allows(&self) -> bool {
        let now = self.now();
        self.state().lease.allows(now)
    }

    #[must_use]
    pub fn status(&self) -> LeaseStatus {
        let now = self.now();
        self.state().lease.status(now)
    }

    /// Whether it has to be asked for.
    pub(super) fn is_asked_for(&self) -> bool {
        self.shared.is_asked_for
    }

    /// Begins the term that was granted, if one was. To be called when no run is at work: what was decided in an
    /// earlier term, between which and now another may have worked, is not carried out in this one.
    pub(super) fn open(&self) -> Option<Opening> {
        let now = self.now();
        self.state().lease.open(now)
    }

    /// When what we may do changes by itself.
    pub(super) fn changes_in(&self) -> Option<Duration> {
        let now = self.now();
        self.state().lease.changes_in(now)
    }

    /// Completes when an answer has changed how we stand. For one waiter.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Whether the database refuses to say who has it.
    pub(super) fn is_refused(&self) -> bool {
        self.state().is_refused
    }

    /// A request to amoCRM has failed in such a way that it may still be carried out.
    pub(super) fn doubt(&self) {
        self.doubt_for(self.shared.late_commit);
    }

    fn doubt_for(&self, time: Duration) {
        let mut state = self.state();
        let until = Some(Instant::now() + time);
        state.doubt_until = state.doubt_until.max(until);
    }

    fn is_in_doubt(&self) -> bool {
        let until = self.state().doubt_until;
        until.is_some_and(|until| until > Instant::now())
    }

    fn answered(&self, answer: LeaseAnswer, asked: Moment) {
        let now = self.now();
        let (before, after) = {
            let mut state = self.state();
            state.is_refused = false;
            let before = state.lease.status(now);
            state.lease.answered(answer, asked, now);
            (before, state.lease.status(now))
        };
        if before != after {
            self.shared.changed.notify_one();
        }
    }

    /// Whether the function was ever there.
    fn is_known(&self) -> bool {
        self.state().lease.was_ever_there()
    }

    fn timings(&self) -> &LeaseTimings {
        &self.shared.timings
    }

    /// `is_refused`: in a way that a person has to see to.
    fn unanswered(&self, is_refused: bool) {
        let mut state = self.state();
        state.is_refused = is_refused;
        state.lease.unanswered();
        drop(state);
        self.shared.changed.notify_one();
    }

    /// A lease for work that is not shared: it is never asked for, and allows everything.
    #[must_use]
    pub fn alone(timings: &Timings, clock: SharedClock) -> Self {
        let lease = Self::of(timings, clock, false);
        lease.answered(LeaseAnswer::NoFunction, lease.now());
        lease.open();
        lease
    }

    /// What an earlier life has left in the inbox. The name lives there, so that a restart goes on at once.
    pub(super) async fn recall(&self, inbox: &Inbox) -> Result<Recalled, InboxError> {
        let record: Option<Record> = inbox.state(LEASE).await?;
        if record.is_some_and(|record| record.was_ever_there) {
            self.state().lease.remember();
        }
        let mut not_before = None;
        let holder = if let Some(holder) = inbox.state(HOLDER).await? {
            match inbox.state(LAST_END).await? {
                Some(End::Clean) => {}
                Some(End::Unanswered { at }) => {
                    not_before = Some(self.soon_after(at, self.shared.timings.given_back_late));
                }
                Some(End::AtWork) | None => self.doubt_for(self.shared.timings.reserve),
            }
            holder
        } else {
            let holder = format!("{:032x}", rand::random::<u128>());
            inbox.set_state(HOLDER, &holder).await?;
            holder
        };
        inbox.set_state(LAST_END, &End::AtWork).await?;
        let replaced: Option<Replaced> = inbox.state(REPLACED).await?;
        let look_first = self.shared.timings.after_replacement;
        let replaced = replaced.map(|replaced| self.soon_after(replaced.at, look_first));
        let not_before = not_before.max(replaced);
        Ok(Recalled { holder, not_before })
    }

    /// Not later than it can have been meant, if the clock was put back since.
    fn soon_after(&self, at: Timestamp, pause: Duration) -> Timestamp {
        let at = at.min(self.shared.clock.now());
        at.checked_add(pause).unwrap_or(at)
    }

    async fn ended(&self, inbox: &Inbox, end: End) {
        if let Err(error) = inbox.set_state(LAST_END, &end).await {
            tracing::error!(error = %Chain(&error), "sync.inbox");
        }
    }

    /// Stores how we stand, where that has changed, and tells it.
    pub(super) async fn record(&self, inbox: &Inbox) -> Result<(), InboxError> {
        let now = self.now();
        let (last, status, was_ever_there) = {
            let mut state = self.state();
            let status = state.lease.status(now);
            (state.recorded, status, state.lease.was_ever_there())
        };
        let is_known =
            last.is_some_and(|last| (last.status, last.was_ever_there) == (status, was_ever_there));
        if status == LeaseStatus::Unknown || is_known {
            return Ok(());
        }
        let record = Record {
            status,
            since: now.wall,
            was_ever_there,
        };
        inbox.set_state(LEASE, &record).await?;
        self.state().recorded = Some(record);
        match status {
            LeaseStatus::Unknown => {}
            LeaseStatus::Ours => tracing::info!("lease.taken"),
            LeaseStatus::Theirs => tracing::info!("lease.held_by_another"),
            LeaseStatus::Unconfirmed => tracing::warn!("lease.unconfirmed"),
            LeaseStatus::Alone => tracing::warn!(
                "lease.no_function: apply the migration, or two services may work at once"
            ),
        }
        Ok(())
    }

    fn now(&self) -> Moment {
        Moment {
            mono: Instant::now(),
            wall: self.shared.clock.now(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit for Lease {
    fn is_valid(&self) -> bool {
        self.allows()
    }
}
