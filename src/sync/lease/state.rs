//! What a lease allows at which instant: the pure part.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::super::rules::timings::LeaseTimings;
use crate::supabase::LeaseAnswer;

/// Between the last request of a former holder and our first: the former holder may have used up the rate of the
/// current second. Not scaled, as the throttle is not.
const FULL_WINDOW: Duration = Duration::from_millis(1_050);

/// An instant by both clocks: the monotonic one may stand still while the machine is suspended, the other can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) mono: Instant,
    pub(super) wall: Timestamp,
}

impl Moment {
    /// The time since `earlier`, by the clock that says more.
    pub(super) fn since(self, earlier: Self) -> Duration {
        let wall = Duration::try_from(self.wall.duration_since(earlier.wall)).unwrap_or_default();
        self.mono.saturating_duration_since(earlier.mono).max(wall)
    }
}

/// What this service knows of the lease, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseStatus {
    /// Not answered yet.
    Unknown,
    /// The database has no such function, and never had: there is no other service to take turns with.
    Alone,
    Ours,
    /// The lease was ours, or may have become ours, and the database has not confirmed it in time.
    Unconfirmed,
    /// Another service has the lease.
    Theirs,
}

/// A term begins now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sync) struct Opening {
    /// Another service may have worked since our last term, and may know of rows that we do not.
    pub(in crate::sync) after_another: bool,
}

/// What this process knows of the lease.
#[derive(Debug)]
pub(super) struct LeaseState {
    timings: LeaseTimings,
    status: LeaseStatus,
    /// Taken before sending the request that was last granted: the lease cannot have begun earlier.
    asked: Option<Moment>,
    /// The granted term has begun: no work of an earlier term is left.
    is_open: bool,
    after_another: bool,
    opens_at: Option<Instant>,
    was_ever_there: bool,
}

impl LeaseState {
    pub(super) fn new(timings: LeaseTimings) -> Self {
        Self {
            timings,
            status: LeaseStatus::Unknown,
            asked: None,
            is_open: false,
            after_another: false,
            opens_at: None,
            was_ever_there: false,
        }
    }

    /// An earlier process of this service has called the function.
    pub(super) fn remember(&mut self) {
        self.was_ever_there = true;
    }

    pub(super) fn was_ever_there(&self) -> bool {
        self.was_ever_there
    }

    /// The status now. A lease that has run out allows nothing until a new term begins, whatever is answered meanwhile.
    pub(super) fn status(&mut self, now: Moment) -> LeaseStatus {
        if self.status == LeaseStatus::Ours && self.left(now).is_zero() {
            self.status = LeaseStatus::Unconfirmed;
            self.is_open = false;
        }
        self.status
    }

    /// Whether a request may begin now.
    pub(super) fn allows(&mut self, now: Moment) -> bool {
        matches!(self.status(now), LeaseStatus::Ours | LeaseStatus::Alone) && self.is_open
    }

    /// For how long a request may still begin.
    pub(super) fn left(&self, now: Moment) -> Duration {
        let used = self.asked.map_or(Duration::MAX, |asked| now.since(asked));
        self.timings.usable().saturating_sub(used)
    }

    /// The database has not answered.
    pub(super) fn unanswered(&mut self) {
        if self.status == LeaseStatus::Unknown {
            self.status = LeaseStatus::Unconfirmed;
        }
    }

    /// The database has answered what was asked at `asked`.
    pub(super) fn answered(&mut self, answer: LeaseAnswer, asked: Moment, now: Moment) {
        let before = self.status(now);
        match answer {
            LeaseAnswer::Granted => {
                self.was_ever_there = true;
                let continues = matches!(before, LeaseStatus::Ours | LeaseStatus::Alone);
                if !continues {
                    self.after_another = self.may_have_been_anothers(before, now);
                    self.opens_at = self.after_another.then(|| now.mono + FULL_WINDOW);
                    self.is_open = false;
                }
                self.status = LeaseStatus::Ours;
                self.asked = Some(asked);
            }
            LeaseAnswer::Refused => {
                self.was_ever_there = true;
                self.status = LeaseStatus::Theirs;
                self.is_open = false;
            }
            LeaseAnswer::NoFunction => {
                let is_first = matches!(before, LeaseStatus::Unknown | LeaseStatus::Unconfirmed);
                if is_first && !self.was_ever_there {
                    self.status = LeaseStatus::Alone;
                }
            }
        }
    }

    fn may_have_been_anothers(&self, before: LeaseStatus, now: Moment) -> bool {
        let since = self.asked.map(|asked| now.since(asked));
        match before {
            LeaseStatus::Theirs => true,
            // While the database kept the lease for us, no other service could have it.
            LeaseStatus::Unconfirmed => since.is_none_or(|since| since >= self.timings.lasting()),
            LeaseStatus::Unknown | LeaseStatus::Alone | LeaseStatus::Ours => false,
        }
    }

    /// Begins the term that was granted. To be called when no work of an earlier term is left.
    pub(super) fn open(&mut self, now: Moment) -> Option<Opening> {
        let is_ours = matches!(self.status(now), LeaseStatus::Ours | LeaseStatus::Alone);
        if !is_ours || self.is_open || self.opens_at.is_some_and(|at| at > now.mono) {
            return None;
        }
        self.is_open = true;
        self.opens_at = None;
        Some(Opening {
            after_another: std::mem::take(&mut self.after_another),
        })
    }

    /// The time until what this service may do changes without an answer.
    pub(super) fn changes_in(&mut self, now: Moment) -> Option<Duration> {
        if self.status(now) != LeaseStatus::Ours {
            return None;
        }
        let opens_in = self
            .opens_at
            .filter(|_| !self.is_open)
            .map(|at| at.saturating_duration_since(now.mono));
        Some(opens_in.unwrap_or(Duration::MAX).min(self.left(now)))
    }
}
