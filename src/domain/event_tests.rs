//! Test events of the service itself: when one is due, and what their results say about the way of the events.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

/// The part of the way that a test event did not come past. `into_str`: the name used in logs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum EventFault {
    /// The trigger on the table is missing, switched off, or not ours.
    NoTrigger,
    NotSigned,
    /// `pg_net` did not take it.
    NotQueued,
    /// `pg_net` sends nothing.
    NotSent,
    /// It left the queue, and no answer was noted.
    NoAnswerNoted,
    Unreachable,
    Refused(u16),
    /// Something else than the service answered.
    AnotherServer,
}

impl EventFault {
    /// For a person, in Russian.
    #[must_use]
    pub fn hint(self) -> String {
        match self {
            Self::NoTrigger => "На таблице tripwire_users нет триггера tripwire_sync_notify, или он выключен".to_owned(),
            Self::NotSigned => {
                "База не подписала проверочное событие: в Vault нет секрета или адреса либо Vault недоступен".to_owned()
            }
            Self::NotQueued => "pg_net не принял проверочное событие".to_owned(),
            Self::NotSent => "pg_net ничего не отправляет".to_owned(),
            Self::NoAnswerNoted => {
                "Проверочное событие ушло из очереди pg_net, а ответа нет: базу перезапустили или таблицы pg_net очистили"
                    .to_owned()
            }
            Self::Unreachable => {
                "Проверочное событие не дошло: по адресу из Vault сервис недоступен".to_owned()
            }
            Self::Refused(401) => {
                "Сервис отклонил проверочное событие (401): WEBHOOK_SECRET не совпадает с секретом в Vault или расходятся часы"
                    .to_owned()
            }
            Self::Refused(status) => format!("На проверочное событие получен ответ {status}"),
            Self::AnotherServer => "По адресу из Vault отвечает не этот сервис".to_owned(),
        }
    }
}

/// The result of one test event. `into_str`: the name used in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum EventTest {
    Arrived,
    Failed(EventFault),
    /// Nothing is known: Supabase did not answer, or the event waits behind others that are being sent.
    Undecided,
    /// The database cannot send one.
    NotPossible,
}

/// Test events that failed, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFailure {
    pub since: Timestamp,
    /// Of the last one.
    pub fault: EventFault,
    times: u32,
    /// Rows had arrived without an event.
    rows_were_silent: bool,
}

/// All durations of the test events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTestTimings {
    /// From the start of the service to the first look, so that the receiver can be reached.
    pub first_after: Duration,
    /// Between two looks whether one is due.
    pub look_every: Duration,
    /// Between two that arrive.
    pub day: Duration,
    /// After one that failed or was not decided.
    pub again_after: Duration,
    /// Between two that silent rows ask for.
    pub rows_gap: Duration,
    /// A row without an event for so long is silent.
    pub silent_after: Duration,
    /// How long the result is waited for.
    pub patience: Duration,
}

impl EventTestTimings {
    #[must_use]
    pub fn scaled(scale: f64, patience: Duration) -> Self {
        let d = |real: Duration| real.mul_f64(scale);
        Self {
            first_after: d(Duration::from_mins(5)),
            look_every: d(Duration::from_secs(30)),
            day: d(Duration::from_hours(24)),
            again_after: d(Duration::from_mins(30)),
            rows_gap: d(Duration::from_mins(10)),
            silent_after: d(Duration::from_mins(2)),
            patience,
        }
    }
}

/// Whether events arrive, as far as test events and real ones have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    Arrive,
    Unknown,
    Fail(EventFailure),
}

impl Events {
    #[must_use]
    pub fn failure(self) -> Option<EventFailure> {
        match self {
            Self::Fail(failure) => Some(failure),
            Self::Arrive | Self::Unknown => None,
        }
    }
}

/// What the test events have shown so far. Stored in the inbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventTests {
    /// When the last one ended.
    last: Option<Timestamp>,
    /// When the last one ended that told something.
    decided: Option<Timestamp>,
    /// The last one has to be repeated soon.
    is_open: bool,
    failure: Option<EventFailure>,
}

impl EventTests {
    /// So many silent rows are worth a test event.
    pub const SILENT_ROWS: u32 = 3;

    /// Rows that were stored earlier prove nothing: a test event has told more since.
    #[must_use]
    pub fn rows_count_from(&self) -> Option<Timestamp> {
        self.decided
    }

    /// Whether one is to be sent. `daily`: also without any reason. `rows_are_silent`: enough rows came
    /// without an event since [`EventTests::rows_count_from`].
    #[must_use]
    pub fn is_due(
        &self,
        now: Timestamp,
        daily: bool,
        rows_are_silent: bool,
        timings: &EventTestTimings,
    ) -> bool {
        let Some(last) = self.last.filter(|last| *last <= now) else {
            // None yet, or the clock was put back.
            return daily || rows_are_silent || self.is_open;
        };
        let has_passed = |pause| last.checked_add(pause).is_ok_and(|due| due <= now);
        (self.is_open && has_passed(timings.again_after))
            || (daily && has_passed(timings.day))
            || (rows_are_silent && has_passed(timings.rows_gap))
    }

    /// `last_event`: when the newest real event came. Failures before it prove nothing any more.
    pub fn ended(
        &mut self,
        test: EventTest,
        now: Timestamp,
        rows_are_silent: bool,
        last_event: Option<Timestamp>,
    ) {
        let before = self.failure_since(last_event);
        self.last = Some(now);
        self.is_open = matches!(test, EventTest::Failed(_) | EventTest::Undecided);
        if test != EventTest::Undecided {
            self.decided = Some(now);
        }
        self.failure = match (test, before) {
            (EventTest::Arrived, _) => None,
            (EventTest::NotPossible | EventTest::Undecided, before) => before,
            (EventTest::Failed(fault), before) => Some(EventFailure {
                since: before.map_or(now, |before| before.since),
                fault,
                times: before.map_or(1, |before| before.times.saturating_add(1)),
                rows_were_silent: rows_are_silent
                    || before.is_some_and(|before| before.rows_were_silent),
            }),
        };
    }

    /// A single failure proves that events do not arrive only together with rows that no event has told of. A failure from
    /// before `since` proves nothing: another service may have tested meanwhile.
    #[must_use]
    pub fn shown(&self, last_event: Option<Timestamp>, since: Timestamp) -> Events {
        let Some(failure) = self.failure_since(last_event) else {
            return Events::Arrive;
        };
        let is_proven = failure.times > 1 || failure.rows_were_silent;
        if is_proven && self.last.is_some_and(|last| last >= since) {
            Events::Fail(failure)
        } else {
            Events::Unknown
        }
    }

    /// The failures in a row since the last real event.
    fn failure_since(&self, last_event: Option<Timestamp>) -> Option<EventFailure> {
        self.failure.filter(|_| last_event <= self.decided)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: EventTest = EventTest::Failed(EventFault::NotSent);

    fn minute(n: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + n * 60).unwrap()
    }

    fn after(tests: &[(i64, EventTest, bool)]) -> EventTests {
        let mut state = EventTests::default();
        for (at, test, rows_are_silent) in tests {
            state.ended(*test, minute(*at), *rows_are_silent, None);
        }
        state
    }

    #[test]
    fn a_test_event_is_due_daily_soon_after_a_failure_and_when_rows_are_silent() {
        use EventTest::{Arrived, NotPossible, Undecided};
        let timings = EventTestTimings::scaled(1.0, Duration::ZERO);
        // The last result, the minute from which one is due: daily, not daily, with silent rows.
        let never = i64::MAX;
        let table = [
            (None, 0, never, 0),
            (Some(Arrived), 1_440, never, 10),
            (Some(NotPossible), 1_440, never, 10),
            (Some(FAILED), 30, 30, 10),
            (Some(Undecided), 30, 30, 10),
        ];
        for (last, daily, off, silent) in table {
            let last: Vec<_> = last.map(|test| (0, test, false)).into_iter().collect();
            let state = after(&last);
            for at in [0, 9, 10, 29, 30, 1_439, 1_440] {
                let is_due = |daily, rows| state.is_due(minute(at), daily, rows, &timings);
                let told = [
                    is_due(true, false),
                    is_due(false, false),
                    is_due(false, true),
                ];
                assert_eq!(
                    told,
                    [at >= daily, at >= off, at >= silent],
                    "{last:?} {at}"
                );
            }
        }
        // The clock was put back by a year.
        let state = after(&[(0, Arrived, false)]);
        assert!(state.is_due(minute(-525_600), true, false, &timings));
    }

    #[test]
    fn events_are_in_trouble_after_two_failures_or_one_that_silent_rows_asked_for() {
        use EventTest::{Arrived, NotPossible, Undecided};
        type Tests = &'static [(i64, EventTest, bool)];
        let table: [(Tests, Option<i64>); 10] = [
            (&[], None),
            (&[(0, Arrived, true)], None),
            (&[(0, FAILED, false)], None),
            (&[(0, FAILED, false), (30, FAILED, false)], Some(0)),
            (&[(0, FAILED, true)], Some(0)),
            (&[(0, FAILED, false), (10, FAILED, true)], Some(0)),
            (&[(0, FAILED, false), (30, Arrived, false)], None),
            (
                &[
                    (0, FAILED, false),
                    (30, Arrived, false),
                    (60, FAILED, false),
                ],
                None,
            ),
            (
                &[
                    (0, FAILED, true),
                    (30, Undecided, false),
                    (60, FAILED, false),
                ],
                Some(0),
            ),
            (&[(0, FAILED, true), (30, NotPossible, false)], Some(0)),
        ];
        for (tests, since) in table {
            let shown = after(tests).shown(None, minute(0));
            let failing_since = shown.failure().map(|failure| failure.since);
            assert_eq!(failing_since, since.map(minute), "{tests:?}");
        }
        let old = after(&[(0, FAILED, true), (30, FAILED, true)]);
        assert!(old.shown(None, minute(30)).failure().is_some());
        assert_eq!(old.shown(None, minute(31)), Events::Unknown);
    }

    #[test]
    fn only_an_event_later_than_the_last_failure_shows_that_events_arrive() {
        let at = |n| Some(minute(n));
        let mut tests = after(&[(0, FAILED, false), (30, FAILED, false)]);
        let failing_since = |tests: &EventTests, event| match tests.shown(event, minute(0)) {
            Events::Fail(failure) => Some(failure.since),
            Events::Arrive | Events::Unknown => None,
        };
        // A straggler between two failures.
        assert_eq!(failing_since(&tests, at(10)), at(0));
        assert_eq!(tests.shown(at(31), minute(0)), Events::Arrive);
        assert_eq!(tests.shown(at(31), minute(99)), Events::Arrive);

        // Failures in a row are counted anew after an event.
        tests.ended(FAILED, minute(60), false, at(31));
        assert_eq!(tests.shown(at(31), minute(0)), Events::Unknown);
        tests.ended(EventTest::NotPossible, minute(70), false, at(31));
        assert_eq!(tests.shown(at(31), minute(0)), Events::Unknown);
        tests.ended(FAILED, minute(90), false, at(31));
        assert_eq!(failing_since(&tests, at(31)), at(60));
        tests.ended(EventTest::NotPossible, minute(99), false, at(95));
        assert_eq!(tests.shown(at(95), minute(0)), Events::Arrive);
    }
}
