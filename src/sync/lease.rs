//! The lease: of all services on one Supabase project, one at a time works on amoCRM, whatever their inboxes. All of
//! them accept deliveries.
//!
//! The database grants the lease for 80 s at a time, and its holder renews it every 15 s. A lease counts from before it
//! was asked for, by whichever clock says that more time has passed. No request begins in its last 50 s: a write waits
//! 20 s for its answer, and amoCRM may carry it out up to 30 s after its gateway gave up. So when a lease runs out, no
//! write of its holder can land any more. The next holder may begin at once, and a look that shows no note and no deal
//! resolves a write in doubt. This holds whether the lease was given back or ran out.
//!
//! A new holder waits at most 80 s for a lease to run out, and 5 s more until it asks again.
//!
//! A service keeps the lease, and takes it, also while it is paused or halted: a pause means that nothing is to be
//! sent, and an account that has forbidden one service would ban the other. Only a service with `AMOCRM_ENABLED=false`
//! never asks.

mod state;
mod task;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use amocrm::Permit;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::Instant};

pub use self::state::LeaseStatus;
use self::state::{LeaseState, Moment};
pub(super) use self::{state::Opening, task::LeaseTask};
use super::{
    pause::held_by,
    rules::timings::{LeaseTimings, Timings},
};
use crate::{
    domain::{Chain, SharedClock},
    inbox::{Inbox, InboxError, REPLACED, Replaced},
    supabase::LeaseAnswer,
};

/// Keys of the engine's own state in the inbox.
pub const HOLDER: &str = "lease_holder";
pub const LEASE: &str = "lease";
const LAST_END: &str = "lease_last_end";

/// The status that this service stored last, for commands that read its inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    #[serde(rename = "standing")]
    pub status: LeaseStatus,
    pub since: Timestamp,
    /// The database had the function once: its absence is now an outage.
    pub was_ever_there: bool,
}

/// Whether the service on this inbox is running and stands by for another one, and the other one's name; empty if the database
/// has not told it.
pub async fn standby(inbox: &Inbox) -> Result<Option<String>, InboxError> {
    let record: Option<Record> = inbox.state(LEASE).await?;
    let is_theirs = record.is_some_and(|record| record.status == LeaseStatus::Theirs);
    if !is_theirs || !Inbox::is_owned(inbox.path())? {
        return Ok(None);
    }
    Ok(Some(held_by(inbox).await?.unwrap_or_default()))
}

/// How the last process of this service ended. Not stored, or `AtWork`: in the middle of its work, perhaps of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    AtWork,
    Clean,
    /// The process gave the lease back and got no answer. The next one must not take the lease while that request may
    /// still be carried out.
    Unanswered {
        at: Timestamp,
    },
}

/// What this service has to know before it asks for the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recalled {
    /// The name under which this service holds the lease.
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
    /// Whether the database is asked for the lease.
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
        self.shared.state.lock().lease.allows(now)
    }

    #[must_use]
    pub fn status(&self) -> LeaseStatus {
        let now = self.now();
        self.shared.state.lock().lease.status(now)
    }

    /// Whether this service is the one that works, or the only one. `None`: not known now.
    #[must_use]
    pub fn is_held(&self) -> Option<bool> {
        match self.status() {
            LeaseStatus::Ours | LeaseStatus::Alone => Some(true),
            LeaseStatus::Theirs => Some(false),
            LeaseStatus::Unknown | LeaseStatus::Unconfirmed => None,
        }
    }

    /// Whether the lease has to be asked for.
    pub(super) fn is_asked_for(&self) -> bool {
        self.shared.is_asked_for
    }

    /// Begins the term that was granted, if one was. To be called when no run is at work: another service may have
    /// worked since an earlier term, so decisions of that term must not be carried out in this one.
    pub(super) fn open(&self) -> Option<Opening> {
        let now = self.now();
        self.shared.state.lock().lease.open(now)
    }

    /// The time until what this service may do changes without an answer.
    pub(super) fn changes_in(&self) -> Option<Duration> {
        let now = self.now();
        self.shared.state.lock().lease.changes_in(now)
    }

    /// Wakes the waiter of [`Self::changed`].
    fn wake(&self) {
        self.shared.changed.notify_one();
    }

    /// Completes when an answer has changed the status, or what the inbox holds. For one waiter.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Whether the database refuses to say which service has the lease.
    pub(super) fn is_refused(&self) -> bool {
        self.shared.state.lock().is_refused
    }

    /// A request to amoCRM has failed in such a way that it may still be carried out.
    pub(super) fn doubt(&self) {
        self.doubt_for(self.shared.late_commit);
    }

    fn doubt_for(&self, time: Duration) {
        let mut state = self.shared.state.lock();
        let until = Some(Instant::now() + time);
        state.doubt_until = state.doubt_until.max(until);
    }

    fn is_in_doubt(&self) -> bool {
        let until = self.shared.state.lock().doubt_until;
        until.is_some_and(|until| until > Instant::now())
    }

    fn answered(&self, answer: LeaseAnswer, asked: Moment) {
        let now = self.now();
        let (before, after) = {
            let mut state = self.shared.state.lock();
            state.is_refused = false;
            let before = state.lease.status(now);
            state.lease.answered(answer, asked, now);
            (before, state.lease.status(now))
        };
        if before != after {
            self.shared.changed.notify_one();
        }
    }

    /// Whether the database ever had the function.
    fn is_known(&self) -> bool {
        self.shared.state.lock().lease.was_ever_there()
    }

    fn timings(&self) -> &LeaseTimings {
        &self.shared.timings
    }

    /// `is_refused`: in a way that a person has to see to.
    fn unanswered(&self, is_refused: bool) {
        let mut state = self.shared.state.lock();
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

    /// Reads what an earlier process has left in the inbox. The holder's name is stored there, so that a restarted
    /// service goes on at once.
    pub(super) async fn recall(&self, inbox: &Inbox) -> Result<Recalled, InboxError> {
        let record: Option<Record> = inbox.state(LEASE).await?;
        if record.is_some_and(|record| record.was_ever_there) {
            self.shared.state.lock().lease.remember();
        }
        let mut not_before = None;
        let known: Option<String> = inbox.state(HOLDER).await?;
        let last_end: Option<End> = inbox.state(LAST_END).await?;
        match last_end {
            Some(End::Clean) => {}
            Some(End::Unanswered { at }) => {
                not_before = Some(self.soon_after(at, self.shared.timings.given_back_late));
            }
            // Without a name this inbox has never worked.
            None if known.is_none() => {}
            Some(End::AtWork) | None => self.doubt_for(self.shared.timings.reserve),
        }
        let machine = rustix::system::uname();
        let machine = machine.nodename().to_string_lossy();
        let holder = holder_name(known.as_deref(), last_end, &machine, rand::random());
        if known.as_ref() != Some(&holder) {
            inbox.set_state(HOLDER, &holder).await?;
        }
        inbox.set_state(LAST_END, &End::AtWork).await?;
        let replaced: Option<Replaced> = inbox.state(REPLACED).await?;
        let look_first = self.shared.timings.after_replacement;
        let replaced = replaced.map(|replaced| self.soon_after(replaced.at, look_first));
        let not_before = not_before.max(replaced);
        Ok(Recalled { holder, not_before })
    }

    /// The time `pause` after `at`. If the clock was put back since, `at` is in the future, and the time counts from
    /// now.
    fn soon_after(&self, at: Timestamp, pause: Duration) -> Timestamp {
        let at = at.min(self.shared.clock.now());
        at.checked_add(pause).unwrap_or(at)
    }

    async fn ended(&self, inbox: &Inbox, end: End) {
        if let Err(error) = inbox.set_state(LAST_END, &end).await {
            tracing::error!(error = %Chain(&error), "sync.inbox");
        }
    }

    /// Stores and logs the status if it has changed.
    pub(super) async fn record(&self, inbox: &Inbox) -> Result<(), InboxError> {
        let now = self.now();
        let (last, status, was_ever_there) = {
            let mut state = self.shared.state.lock();
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
        self.shared.state.lock().recorded = Some(record);
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
}

/// A service that holds asks for no lease: commands must not take it for a standby.
pub(super) async fn forget_status(inbox: &Inbox) -> Result<(), InboxError> {
    let Some(record) = inbox.state::<Record>(LEASE).await? else {
        return Ok(());
    };
    let status = LeaseStatus::Unknown;
    inbox.set_state(LEASE, &Record { status, ..record }).await
}

/// The name under which this service holds the lease: the machine's name, which people know, and a number.
///
/// A restarted service keeps its name and so its lease. A copy of the inbox on a machine of another name gets a name of its
/// own: two services of one name would both hold the lease.
fn holder_name(known: Option<&str>, last_end: Option<End>, machine: &str, random: u64) -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let machine: String = machine.chars().filter(is_plain).take(100).collect();
    let is_its_own = |known: &str| {
        let number = known
            .strip_prefix(&machine)
            .and_then(|rest| rest.strip_prefix('/'));
        number.is_some()
    };
    match known {
        Some(known) if is_its_own(known) => known.to_owned(),
        // A name given by an earlier version. The database may still keep the lease for it.
        Some(known) if !known.contains('/') && last_end != Some(End::Clean) => known.to_owned(),
        _ => format!("{machine}/{random:016x}"),
    }
}

impl Permit for Lease {
    fn is_valid(&self) -> bool {
        self.allows()
    }
}
