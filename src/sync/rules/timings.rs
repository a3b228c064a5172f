//! Every duration of the engine, and the arithmetic over them.

use std::time::Duration;

use jiff::Timestamp;

use crate::{domain::Backoff, inbox::DailySearches};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// The pause after the inbox itself failed.
pub(in crate::sync) const INBOX_TROUBLE: Duration = SECOND;

/// A row waits for its contact until this many daily searches were in vain. Searches are counted, not days: a clock
/// that is set wrong for a while adds one search at most.
pub(crate) const DAILY_SEARCHES: u32 = 90;

/// Failed attempts after which an entry is parked: with the pauses between them they take seven days, halts not
/// counted.
pub(crate) const GIVEN_UP_AFTER: u32 = 158;

/// The time that the requests of one batch need at the full rate, with a margin.
const THROTTLED: Duration = Duration::from_secs(3);

/// All durations of the engine. One factor scales them for tests with real processes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timings {
    /// A row or deal read longer ago than this is read again before anything is written.
    pub fresh_for: Duration,
    /// A write is not begun later than this after its intent was stored.
    pub begin_within: Duration,
    /// The longest wait for the answer to a write.
    pub write_timeout: Duration,
    /// The longest wait for the answer to a read.
    pub read_timeout: Duration,
    pub connect_timeout: Duration,
    /// How long after its gateway gave up amoCRM may still carry out a write.
    pub late_commit: Duration,
    /// How long after a create was given up its deal is looked for a last time.
    pub late_look: Duration,
    /// Between two looks that must both find nothing: for a row that is gone, for a contact that is missing.
    pub second_look: Duration,
    /// As [`Timings::second_look`], for a contact that only the index has missed: the second looks of an import, a search
    /// each, then come when it is over. 20,000 rows take three and a half minutes.
    pub second_look_after_index: Duration,
    /// The pause while another row works on the same person.
    pub person_busy: Duration,
    pub retry: Backoff,
    /// How often the contact of each waiting row is searched for by itself.
    pub search_waiting: Duration,
    /// How far looks at changed contacts overlap.
    pub look_overlap: Duration,
    /// How often the newest rows are looked for, beside the sweep of all.
    pub short_sweep_every: Duration,
    /// How far a short sweep reaches back behind the one before: most transactions that insert rows are shorter.
    pub short_sweep_overlap: Duration,
    pub amocrm_probe: Backoff,
    pub supabase_probe: Backoff,
    /// How long pipelines and stages are taken as known.
    pub pipelines_for: Duration,
    /// How long `check` waits for the answer to a test event.
    pub test_event: Duration,
    /// How long the inbox must take no writes before the service reports that as its state.
    pub inbox_lasting: Duration,
    /// How long a stopping service waits for what is in flight.
    pub grace: Duration,
    pub lease: LeaseTimings,
    scale: f64,
}

impl Default for Timings {
    fn default() -> Self {
        Self::scaled(1.0)
    }
}

impl Timings {
    /// The real durations times `scale`. Not scaled are the grace of a stop and, below [`THROTTLED`], the times within
    /// which requests must get through the throttle, which is never scaled.
    #[must_use]
    pub fn scaled(scale: f64) -> Self {
        let d = |real: Duration| real.mul_f64(scale);
        Self {
            fresh_for: d(10 * SECOND).max(THROTTLED),
            begin_within: d(10 * SECOND).max(THROTTLED),
            write_timeout: d(20 * SECOND),
            read_timeout: d(30 * SECOND),
            connect_timeout: d(5 * SECOND),
            late_commit: d(30 * SECOND),
            late_look: d(10 * MINUTE),
            second_look: d(MINUTE),
            second_look_after_index: d(5 * MINUTE),
            person_busy: d(SECOND),
            retry: Backoff {
                first: d(5 * SECOND),
                longest: d(HOUR),
            },
            search_waiting: d(DAY),
            look_overlap: d(10 * MINUTE),
            short_sweep_every: d(15 * SECOND),
            short_sweep_overlap: d(5 * MINUTE),
            amocrm_probe: Backoff {
                first: d(15 * MINUTE),
                longest: d(6 * HOUR),
            },
            supabase_probe: Backoff {
                first: d(MINUTE),
                longest: d(15 * MINUTE),
            },
            pipelines_for: d(HOUR),
            test_event: d(10 * SECOND),
            inbox_lasting: d(MINUTE),
            grace: 6 * SECOND,
            lease: LeaseTimings::scaled(scale),
            scale,
        }
    }

    /// For a dry run: what was read stays fresh, since nothing is written, and a second look follows at once.
    #[must_use]
    pub fn of_a_dry_run(self) -> Self {
        Self {
            fresh_for: HOUR,
            begin_within: HOUR,
            second_look: SECOND,
            second_look_after_index: SECOND,
            ..self
        }
    }

    /// The second look for a missing contact is due within this time, the rounding by [`Timings::together`] included.
    #[must_use]
    pub fn second_look_within(&self) -> Duration {
        self.second_look_after_index + self.second_look
    }

    /// How long after its intent was stored a write may still land. After that a look that finds nothing resolves it.
    #[must_use]
    pub fn resolve_delay(&self) -> Duration {
        self.begin_within + self.write_timeout + self.late_commit
    }

    /// The pause before the next attempt: doubling, with up to a quarter more by `jitter` (0 to 1), and never shorter
    /// than the peer asked for.
    #[must_use]
    pub fn backoff(&self, failed_attempts: u32, asked: Option<Duration>, jitter: f64) -> Duration {
        self.retry.with_jitter(failed_attempts, asked, jitter)
    }

    /// The next of the instants at which rows of an import become due together, so that one look serves them. It is
    /// later than `at`, by a quarter of [`Timings::second_look`] at most.
    #[must_use]
    pub fn together(&self, at: Timestamp) -> Timestamp {
        let every = i64::try_from(self.second_look.as_millis() / 4).unwrap_or(i64::MAX);
        let every = every.max(1);
        let next = at.as_millisecond().div_euclid(every).saturating_add(1);
        Timestamp::from_millisecond(next.saturating_mul(every)).unwrap_or(at)
    }

    /// Counts a search that found no contact, if it is the next day's. Searches in between do not count: the first ones
    /// of a row, those that `retry` asks for, those after a clock was put back. Returns whether the row is given up.
    #[must_use]
    pub fn searched_in_vain(&self, searches: &mut DailySearches, now: Timestamp) -> bool {
        let tomorrow = later(now, self.search_waiting);
        let next_from = match searches.next_from {
            Some(from) if from <= now => {
                searches.in_vain = searches.in_vain.saturating_add(1);
                tomorrow
            }
            // A time that is further away was stored before the clock was put back.
            Some(from) => from.min(tomorrow),
            None => tomorrow,
        };
        searches.next_from = Some(next_from);
        searches.in_vain >= DAILY_SEARCHES
    }

    /// How often the list of changed contacts is looked at for all waiting rows together, by the age of the youngest.
    #[must_use]
    pub fn look_every(&self, youngest: Duration) -> Duration {
        let real = if youngest < HOUR.mul_f64(self.scale) {
            2 * MINUTE
        } else if youngest < DAY.mul_f64(self.scale) {
            15 * MINUTE
        } else if youngest < (7 * DAY).mul_f64(self.scale) {
            2 * HOUR
        } else {
            DAY
        };
        real.mul_f64(self.scale)
    }
}

/// All durations of the lease.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeaseTimings {
    /// The length of the lease that the database is asked for.
    pub seconds: u32,
    /// The end of the lease, in which no request begins: as long as a write may take to land.
    pub reserve: Duration,
    /// From one grant to the next request for the lease.
    pub renew_after: Duration,
    /// How often the lease is asked for while another service has it.
    pub poll: Duration,
    /// How often the lease is asked for while the database has no such function.
    pub poll_alone: Duration,
    /// The longest wait for an answer.
    pub timeout: Duration,
    /// The longest wait for an answer when the lease is given back.
    pub give_back_within: Duration,
    /// How long after that the database may still carry the request out: as long as PostgREST waits for a connection
    /// and a statement may run.
    pub given_back_late: Duration,
    /// From the replacement of a damaged inbox to the first request to amoCRM: writes of the former process have landed by
    /// then, a person has had the time to pause, and another service may have taken the lease.
    pub after_replacement: Duration,
    /// The pauses after no answer.
    pub retry: Backoff,
    /// The pauses after a refusal that a person has to see to.
    pub refused: Backoff,
}

impl LeaseTimings {
    /// The real durations times `scale`, but not too short: the database counts in whole seconds, and a slow machine
    /// would lose a very short lease.
    #[must_use]
    pub fn scaled(scale: f64) -> Self {
        let d = |seconds: u32| (seconds * SECOND).mul_f64(scale);
        let renew_after = d(15).max(SECOND / 2);
        Self {
            seconds: u32::try_from(d(80).as_millis().div_ceil(1_000))
                .unwrap_or(u32::MAX)
                .max(3),
            reserve: d(50),
            renew_after,
            poll: d(5).max(SECOND / 20),
            poll_alone: d(60),
            timeout: d(5).max(SECOND),
            give_back_within: d(2).max(SECOND),
            given_back_late: d(20),
            after_replacement: d(60),
            retry: Backoff {
                first: d(1),
                longest: renew_after,
            },
            refused: Backoff {
                first: d(1),
                longest: d(60),
            },
        }
    }

    #[must_use]
    pub fn lasting(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// How long requests may begin, from when the lease was asked for.
    #[must_use]
    pub fn usable(&self) -> Duration {
        self.lasting().saturating_sub(self.reserve)
    }
}

/// The time `by` after `at`.
pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_look_is_decisive_after_a_minute() {
        assert_eq!(Timings::default().resolve_delay(), MINUTE);
    }

    #[test]
    fn the_backoff_doubles_to_an_hour_and_never_undercuts_the_peer() {
        let timings = Timings::default();
        let table = [
            (0, 5),
            (1, 10),
            (2, 20),
            (5, 160),
            (9, 2_560),
            (10, 3_600),
            (1_000, 3_600),
        ];
        for (attempts, seconds) in table {
            assert_eq!(
                timings.backoff(attempts, None, 0.0),
                seconds * SECOND,
                "{attempts}"
            );
        }
        assert_eq!(timings.backoff(0, None, 1.0), Duration::from_millis(6_250));
        assert_eq!(timings.backoff(0, Some(5 * MINUTE), 0.0), 5 * MINUTE);
        assert_eq!(timings.backoff(3, Some(SECOND), 0.0), 40 * SECOND);
    }

    #[test]
    fn an_entry_is_given_up_after_about_seven_days_of_failures() {
        let timings = Timings::default();
        let pauses = |jitter| -> Duration {
            let attempts = 0..GIVEN_UP_AFTER - 1;
            attempts.map(|n| timings.backoff(n, None, jitter)).sum()
        };
        assert!(pauses(0.0) > 6 * DAY, "{:?}", pauses(0.0));
        assert!(pauses(0.5) > 6 * DAY + 22 * HOUR, "{:?}", pauses(0.5));
        assert!(pauses(0.5) < 7 * DAY + 2 * HOUR, "{:?}", pauses(0.5));
        assert!(pauses(1.0) < 8 * DAY, "{:?}", pauses(1.0));
    }

    #[test]
    fn probes_grow_from_a_quarter_of_an_hour_to_six_hours() {
        let probe = Timings::default().amocrm_probe;
        assert_eq!(
            [0, 1, 4, 5, 99].map(|n| probe.after(n).as_secs() / 60),
            [15, 30, 240, 360, 360]
        );
    }

    #[test]
    fn looks_for_waiting_rows_thin_out_with_age() {
        let timings = Timings::default();
        let ages = [SECOND, HOUR, DAY, 8 * DAY];
        assert_eq!(
            ages.map(|age| timings.look_every(age).as_secs() / 60),
            [2, 15, 120, 1_440]
        );
    }

    /// Days since the first search, in its hours; then how many searches have counted by then.
    #[test]
    fn one_search_a_day_counts_whatever_the_clock_does() {
        let timings = Timings::default();
        let year = 365 * 24;
        let table: [(&str, &[i64], u32); 9] = [
            ("the first", &[0], 0),
            ("an hour later", &[0, 1], 0),
            ("a day each", &[0, 24, 48], 2),
            ("between two days, by hand", &[0, 12, 24, 36, 47], 1),
            ("after a month without the service", &[0, 720, 744], 2),
            ("a year ahead for a while", &[0, 24, year, year + 1, 25], 2),
            ("and a day after that", &[0, 24, year, 25, 49], 3),
            ("a year ahead at first", &[year, 0, 24], 1),
            ("a year behind for a while", &[0, 24, 25 - year, 48], 2),
        ];
        for (what, hours, counted) in table {
            let mut searches = DailySearches::default();
            for hour in hours {
                let now = Timestamp::from_second(1_800_000_000 + hour * 3_600).unwrap();
                assert!(!timings.searched_in_vain(&mut searches, now), "{what}");
            }
            assert_eq!(searches.in_vain, counted, "{what}");
        }
    }

    #[test]
    fn a_row_is_given_up_at_the_ninetieth_daily_search_in_vain_and_not_before() {
        let timings = Timings::default();
        let mut searches = DailySearches::default();
        for day in 0..=90 {
            let now = Timestamp::from_second(day * 86_400).unwrap();
            let is_given_up = timings.searched_in_vain(&mut searches, now);
            assert_eq!(is_given_up, day == 90, "{day}");
        }
    }

    #[test]
    fn who_falls_due_within_a_quarter_of_a_minute_is_due_together() {
        let timings = Timings::default();
        let table = [
            (0, 15_000),
            (1, 15_000),
            (14_999, 15_000),
            (15_000, 30_000),
            (61_234, 75_000),
            (-1, 0),
        ];
        for (at, together) in table {
            let at = Timestamp::from_millisecond(at).unwrap();
            assert_eq!(timings.together(at).as_millisecond(), together, "{at}");
        }
        let at = Timestamp::from_millisecond(1_001).unwrap();
        let soon = Timings::scaled(0.001).together(at);
        assert_eq!(soon.as_millisecond(), 1_005);
        assert_eq!(Timings::scaled(0.0).together(at).as_millisecond(), 1_002);
        assert_eq!(timings.together(Timestamp::MAX), Timestamp::MAX);
    }

    #[test]
    fn a_scale_touches_every_pause_alike() {
        let timings = Timings::scaled(0.1);
        assert_eq!(timings.resolve_delay(), THROTTLED + 5 * SECOND);
        assert_eq!(timings.backoff(1, None, 0.0), SECOND);
        assert_eq!(timings.look_every(HOUR), 90 * SECOND);
    }
}
