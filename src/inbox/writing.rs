//! Whether what is written now reaches the disk.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::{InboxFault, SyncState};

/// What became of the latest writes. While they fail, the writer tries one each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    Works,
    Fails {
        since: Timestamp,
        /// Writes have failed for so long that only a person can help.
        is_lasting: bool,
    },
    /// Writes work, and the bounds of the inbox are reached: new rows are refused.
    Full {
        since: Timestamp,
    },
    /// The opened file is not at its place any more: writes are lost with it.
    Lost {
        since: Timestamp,
    },
}

impl Writing {
    /// The state after a write. `failing_for`: the time since the first failure in a row; `None`: the write worked.
    pub(super) fn next(
        self,
        failing_for: Option<Duration>,
        lasting_after: Duration,
        now: Timestamp,
    ) -> Self {
        let Some(failing_for) = failing_for else {
            return match self {
                Self::Full { .. } => self,
                Self::Works | Self::Fails { .. } | Self::Lost { .. } => Self::Works,
            };
        };
        let since = match self {
            Self::Works | Self::Full { .. } => now,
            Self::Fails { since, .. } => since,
            Self::Lost { .. } => return self,
        };
        Self::Fails {
            since,
            is_lasting: failing_for >= lasting_after,
        }
    }

    /// The state after a look at the bounds.
    pub(super) fn bounded(self, is_full: bool, now: Timestamp) -> Self {
        match (self, is_full) {
            (Self::Works, true) => Self::Full { since: now },
            (Self::Full { .. }, false) => Self::Works,
            (Self::Works | Self::Full { .. } | Self::Fails { .. } | Self::Lost { .. }, _) => self,
        }
    }

    /// Why deliveries are not stored, and since when. A failure of writes is a fault only once it lasts.
    #[must_use]
    pub fn fault(self) -> Option<(InboxFault, Timestamp)> {
        match self {
            Self::Fails {
                since,
                is_lasting: true,
            } => Some((InboxFault::Unwritable, since)),
            Self::Lost { since } => Some((InboxFault::FileLost, since)),
            Self::Full { since } => Some((InboxFault::Full, since)),
            Self::Works | Self::Fails { .. } => None,
        }
    }

    /// Whether the latest write reached the disk.
    pub(super) fn reaches_the_disk(self) -> bool {
        matches!(self, Self::Works | Self::Full { .. })
    }

    /// The final state: the process has to end.
    pub(super) fn lost(self, now: Timestamp) -> Self {
        match self {
            Self::Works | Self::Full { .. } | Self::Fails { .. } => Self::Lost { since: now },
            Self::Lost { .. } => self,
        }
    }

    /// The state of the service. An inbox that takes no writes outranks any state of the engine: no delivery is accepted,
    /// and no request is sent that cannot be recorded.
    #[must_use]
    pub fn over(self, engine: SyncState) -> SyncState {
        match (self.fault(), engine) {
            // The engine works off what there is: where it cannot, that is the cause.
            (Some((InboxFault::Full, since)), SyncState::Starting | SyncState::Working) => {
                SyncState::InboxFull { since }
            }
            (None | Some((InboxFault::Full, _)), _) => engine,
            (Some((fault, since)), _) => SyncState::Inbox { fault, since },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn writes_that_fail_for_a_minute_are_the_state_of_the_service() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let fails = |since, is_lasting| Writing::Fails {
            since: at(since),
            is_lasting,
        };
        let full = |since| Writing::Full { since: at(since) };
        let seconds = |n| Some(Duration::from_secs(n));
        let table = [
            (Writing::Works, None, 10, Writing::Works),
            (Writing::Works, seconds(0), 10, fails(10, false)),
            (fails(10, false), seconds(59), 69, fails(10, false)),
            (fails(10, false), seconds(60), 70, fails(10, true)),
            // The machine's clock was put back meanwhile.
            (fails(10, false), seconds(60), 5, fails(10, true)),
            (fails(10, true), seconds(3600), 3610, fails(10, true)),
            (fails(10, false), None, 11, Writing::Works),
            (fails(10, true), None, 80, Writing::Works),
            (full(10), None, 80, full(10)),
            (full(10), seconds(0), 20, fails(20, false)),
        ];
        for (before, failing_for, now, expected) in table {
            let next = before.next(failing_for, MINUTE, at(now));
            assert_eq!(next, expected, "{before:?} {failing_for:?}");
        }
    }

    #[test]
    fn a_full_inbox_is_told_as_long_as_writes_work() {
        let (since, now) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(9).unwrap());
        let full = Writing::Full { since };
        let fails = Writing::Fails {
            since,
            is_lasting: false,
        };
        for (before, is_full, expected) in [
            (Writing::Works, true, Writing::Full { since: now }),
            (Writing::Works, false, Writing::Works),
            (full, true, full),
            (full, false, Writing::Works),
            (fails, true, fails),
            (fails, false, fails),
        ] {
            assert_eq!(
                before.bounded(is_full, now),
                expected,
                "{before:?} {is_full}"
            );
        }
        assert_eq!(full.over(SyncState::Working).into_str(), "inbox_full");
        assert_eq!(full.over(SyncState::Holding), SyncState::Holding);
        assert!(full.reaches_the_disk() && !fails.reaches_the_disk());
    }

    #[test]
    fn only_what_lasts_outranks_the_engine() {
        let since = Timestamp::UNIX_EPOCH;
        let engine = SyncState::Paused { since };
        let shown = |is_lasting| Writing::Fails { since, is_lasting }.over(engine);
        assert_eq!(Writing::Works.over(engine), engine);
        assert_eq!(shown(false), engine);
        assert_eq!(shown(true).into_str(), "inbox");
        assert_eq!(Writing::Works.lost(since).over(engine).into_str(), "inbox");
    }
}
