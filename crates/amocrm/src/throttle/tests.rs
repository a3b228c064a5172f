mod queue;

use std::{num::NonZeroU32, time::Duration};

use proptest::prelude::*;
use tokio::time::Instant;

use super::pace::{BURST, GROWS_EVERY, LONGEST_PAUSE, Pace, WINDOW};

fn rate(per_window: u32) -> NonZeroU32 {
    NonZeroU32::new(per_window).unwrap()
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// The line in front of the pace: arrivals are served in order, each as early as allowed.
struct Line {
    pace: Pace,
    start: Instant,
    last: Instant,
}

impl Line {
    fn new(per_window: u32, assume_full_window: bool) -> Self {
        let start = Instant::now();
        Self {
            pace: Pace::new(rate(per_window), assume_full_window, start),
            start,
            last: start,
        }
    }

    /// Answers when the arrival's turn came, since the start.
    fn serve(&mut self, arrival: Duration) -> Duration {
        let asked = self.start + arrival;
        let mut at = self.last.max(asked);
        while self.pace.ready_at(at) > at {
            at = self.pace.ready_at(at);
        }
        self.pace.take(asked, at);
        self.last = at;
        at - self.start
    }

    fn serve_all(&mut self, arrivals: &[Duration]) -> Vec<Duration> {
        arrivals.iter().map(|at| self.serve(*at)).collect()
    }
}

fn assert_within_window(sends: &[Duration], rate: usize) {
    let mut sends = sends.to_vec();
    sends.sort();
    for pair in sends.windows(rate + 1) {
        let span = pair[rate].saturating_sub(pair[0]);
        assert!(span >= WINDOW, "{} sends within {span:?}", rate + 1);
    }
}

#[test]
fn after_a_burst_of_four_sends_are_spaced_evenly() {
    let sends = Line::new(6, false).serve_all(&[Duration::ZERO; 10]);
    let expected = [0, 0, 0, 0, 175, 350, 1050, 1225, 1400, 1575].map(ms);
    assert_eq!(sends, expected);
}

#[test]
fn a_lone_request_after_idleness_waits_for_nothing() {
    let arrivals = [ms(0), ms(1100), ms(2200), ms(9000)];
    assert_eq!(Line::new(1, false).serve_all(&arrivals), arrivals);
}

#[test]
fn a_burst_is_not_lost_to_the_moment_between_asking_and_going() {
    let mut line = Line::new(7, false);
    let asked = line.start;
    let now = asked + ms(1);
    for _ in 0..BURST {
        assert!(line.pace.ready_at(now) <= now);
        line.pace.take(asked, now);
    }
    assert!(line.pace.ready_at(now) > now);
}

#[test]
fn idleness_earns_a_new_burst() {
    let mut line = Line::new(6, false);
    line.serve_all(&[Duration::ZERO; 10]);
    let later = ms(5000);
    assert_eq!(line.serve_all(&[later; 4]), [later; 4]);
}

#[test]
fn a_moment_lost_between_asking_and_going_is_not_waiting() {
    let start = Instant::now();
    let mut pace = Pace::new(rate(6), false, start);
    for request in 1..=4 {
        let asked = start + ms(10) * request;
        let now = asked + ms(1);
        assert!(pace.ready_at(now) <= now, "request {request} of the burst");
        pace.take(asked, now);
    }
}

#[test]
fn late_wake_ups_do_not_add_up() {
    let mut line = Line::new(6, false);
    let mut last = Duration::ZERO;
    for number in 1..=600 {
        let turn = line.serve(Duration::ZERO);
        last = turn + ms(1);
        line.last = line.start + last;
        line.pace.sent(number, line.last);
    }
    // 599 intervals, and one such moment in every window.
    assert!(last < ms(175 * 599 + 110), "{last:?}");
}

#[test]
fn a_process_that_starts_assumes_a_full_window() {
    let sends = Line::new(6, true).serve_all(&[Duration::ZERO; 3]);
    assert_eq!(sends, [1050, 1225, 1400].map(ms));
}

#[test]
fn a_full_window_at_the_start_is_forgotten_after_the_window() {
    let later = ms(1050);
    assert_eq!(Line::new(6, true).serve_all(&[later; 4]), [later; 4]);
}

#[test]
fn pauses_grow_with_every_429_in_a_row() {
    let mut line = Line::new(6, false);
    let mut at = Duration::ZERO;
    for expected in [1, 2, 4, 8, 16, 32, 32] {
        let sent = line.serve(at);
        line.pace
            .refused(line.start + sent, line.start + sent + ms(50), None);
        at = line.serve(sent + ms(60));
        assert_eq!(at, sent + ms(50) + Duration::from_secs(expected));
    }
}

#[test]
fn requests_in_flight_together_meet_one_refusal() {
    let mut line = Line::new(6, false);
    let sent = line.serve_all(&[Duration::ZERO; 4])[3];
    for answered in [40, 50, 60, 70] {
        let now = line.start + ms(answered);
        line.pace.refused(line.start + sent, now, None);
    }
    assert_eq!(line.serve(ms(80)), ms(1070));
}

#[test]
fn an_answer_ends_the_row_of_429s() {
    let mut line = Line::new(6, false);
    let first = line.start + line.serve(Duration::ZERO);
    line.pace.refused(first, first, None);
    let second = line.start + line.serve(Duration::ZERO);
    line.pace.answered(second);
    let third = line.start + line.serve(Duration::ZERO);
    line.pace.refused(third, third, None);
    let fourth = line.start + line.serve(Duration::ZERO);
    assert_eq!(fourth - third, ms(1000).max(WINDOW / 3));
}

#[test]
fn an_answer_to_an_older_request_does_not_end_the_row_of_429s() {
    let mut line = Line::new(6, false);
    let first = line.start + line.serve(Duration::ZERO);
    line.pace.refused(first, first, None);
    line.pace.answered(first);
    let second = line.start + line.serve(Duration::ZERO);
    line.pace.refused(second, second, None);
    assert_eq!(
        line.start + line.serve(Duration::ZERO),
        second + Duration::from_secs(2)
    );
}

#[test]
fn a_named_wait_is_kept_and_clamped() {
    let named = |seconds| {
        let mut line = Line::new(6, false);
        line.serve(Duration::ZERO);
        let named = Some(Duration::from_secs(seconds));
        line.pace.refused(line.start, line.start, named);
        line.serve(Duration::ZERO)
    };
    assert_eq!(named(300), Duration::from_mins(5));
    assert_eq!(named(86_400), LONGEST_PAUSE);
    assert_eq!(
        named(0),
        Duration::from_secs(1),
        "never shorter than our own"
    );
}

/// A 429 at `at` for a request sent at `sent`, both since the start; the pause is a second.
fn refuse(line: &mut Line, sent: Duration, at: Duration) {
    line.pace.refused(line.start + sent, line.start + at, None);
    line.pace.answered(line.start + at + ms(1));
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_429_takes_one_from_the_rate_and_each_calm_minute_gives_one_back() {
    for (full, slower) in [(7, 6), (6, 5), (2, 1), (1, 1)] {
        let mut line = Line::new(full, false);
        refuse(&mut line, ms(0), ms(0));
        let resumes = line.start + seconds(1);
        assert_eq!(line.pace.rate(line.start), slower);
        assert_eq!(line.pace.rate(resumes + GROWS_EVERY - ms(1)), slower);
        assert_eq!(line.pace.rate(resumes + GROWS_EVERY), full as usize);
        assert_eq!(line.pace.rate(resumes + 9 * GROWS_EVERY), full as usize);
    }
}

#[test]
fn a_429_within_a_minute_of_another_halves_the_rate() {
    let mut line = Line::new(7, false);
    let mut at = Duration::ZERO;
    let rates = [6, 3, 1, 1];
    for rate in rates {
        refuse(&mut line, at, at);
        assert_eq!(line.pace.rate(line.start + at), rate);
        // The minute begins when sending does.
        at += seconds(60);
    }
    at += seconds(1);
    let grown = (0..8).map(|minute| line.pace.rate(line.start + at + minute * GROWS_EVERY));
    assert_eq!(grown.collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 7, 7]);
}

#[test]
fn a_429_a_calm_minute_after_another_takes_one_of_what_has_grown() {
    let mut line = Line::new(7, false);
    for (at, rate) in [(0, 6), (30, 3), (100, 3), (170, 3), (300, 4), (3_000, 6)] {
        refuse(&mut line, seconds(at), seconds(at));
        assert_eq!(line.pace.rate(line.start + seconds(at)), rate, "{at}");
    }
}

/// Requests that were in flight together are one refusal, however late an answer comes.
#[test]
fn a_late_429_of_the_same_moment_slows_no_request_further() {
    for late in [0, 10, 1_200, 25_000] {
        let mut line = Line::new(7, false);
        refuse(&mut line, ms(100), ms(200));
        refuse(&mut line, ms(50), ms(200 + late));
        assert_eq!(
            line.pace.rate(line.start + seconds(30)),
            6,
            "{late} ms late"
        );
    }
}

#[test]
fn after_a_pause_there_is_no_burst() {
    let mut line = Line::new(6, false);
    line.pace.refused(line.start, line.start, None);
    let sends = line.serve_all(&[Duration::ZERO; 4]);
    assert_eq!(sends, [1000, 1210, 1420, 1630].map(ms));
}

/// Times of arrival: mostly close together, sometimes after a rest.
fn arrivals() -> impl Strategy<Value = Vec<Duration>> {
    let gap = prop_oneof![4 => Just(0), 3 => 0..200u64, 1 => 200..3000u64];
    proptest::collection::vec(gap, 1..150).prop_map(|gaps| {
        let mut at = 0;
        let sum = gaps.into_iter().map(|gap| {
            at += gap;
            ms(at)
        });
        sum.collect()
    })
}

proptest! {
    #[test]
    fn never_more_than_the_rate_in_any_window(
        per_window in 1..12u32, full in any::<bool>(), arrivals in arrivals(),
    ) {
        let sends = Line::new(per_window, full).serve_all(&arrivals);
        assert_within_window(&sends, per_window as usize);
        if full {
            prop_assert!(sends[0] >= WINDOW || arrivals[0] > Duration::ZERO);
            prop_assert!(sends.iter().all(|at| *at >= WINDOW));
        }
    }

    #[test]
    fn never_more_than_four_at_once(per_window in 1..12u32, arrivals in arrivals()) {
        let sends = Line::new(per_window, false).serve_all(&arrivals);
        for run in sends.windows(BURST as usize + 1) {
            prop_assert!(run[BURST as usize] > run[0]);
        }
    }

    /// A request waits one interval for each request ahead; the window may add its own length once.
    #[test]
    fn under_backlog_the_rate_is_used_in_full(per_window in 1..12u32, arrivals in arrivals()) {
        let sends = Line::new(per_window, false).serve_all(&arrivals);
        let interval = WINDOW / per_window;
        let mut since = 0;
        for at in 0..sends.len() {
            if sends[at] == arrivals[at] {
                since = at;
            }
            let ahead = u32::try_from(at - since).unwrap();
            let latest = sends[since] + interval * ahead + WINDOW;
            prop_assert!(sends[at] <= latest, "{at}: {:?} after {latest:?}", sends[at]);
        }
    }

    #[test]
    fn a_backlog_from_rest_never_falls_behind_the_rate(per_window in 1..12u32, count in 1..100u32) {
        let mut line = Line::new(per_window, false);
        for position in 0..count {
            let latest = WINDOW * position / per_window + ms(1);
            prop_assert!(line.serve(Duration::ZERO) <= latest);
        }
    }

    #[test]
    fn the_window_counts_from_when_requests_really_went(
        per_window in 1..8u32,
        requests in proptest::collection::vec((0..400u64, 0..40u64), 1..80),
    ) {
        let mut line = Line::new(per_window, false);
        let (mut arrival, mut sends) = (Duration::ZERO, Vec::new());
        for (gap, delay) in requests {
            arrival += ms(gap);
            let sent = line.serve(arrival) + ms(delay);
            line.pace.sent(sends.len() as u64 + 1, line.start + sent);
            sends.push(sent);
        }
        assert_within_window(&sends, per_window as usize);
    }

    #[test]
    fn a_429_stops_every_request_and_then_a_lower_rate_holds(
        per_window in 1..8u32, before in 1..20usize, after in 1..60usize, named in 2..30u64, twice in any::<bool>(),
    ) {
        let mut line = Line::new(per_window, false);
        let sent = line.serve_all(&vec![Duration::ZERO; before])[before - 1];
        let (mut now, pause) = (line.start + sent + ms(30), seconds(named));
        line.pace.refused(line.start + sent, now, Some(pause));
        let mut rate = (per_window as usize - 1).max(1);
        if twice {
            let sent = line.start + line.serve(Duration::ZERO);
            now = sent + ms(30);
            line.pace.refused(sent, now, Some(pause));
            rate = (rate / 2).max(1);
        }
        let sends = line.serve_all(&vec![Duration::ZERO; after]);
        prop_assert_eq!(line.start + sends[0], now + pause);
        let slow: Vec<_> = sends.iter().copied().filter(|at| *at < sends[0] + GROWS_EVERY).collect();
        assert_within_window(&slow, rate);
    }

    #[test]
    fn no_history_of_429s_raises_the_rate_above_what_is_set_or_ends_sending(
        per_window in 1..8u32, refusals in proptest::collection::vec((0..400u64, 0..30u64), 0..12),
    ) {
        let mut line = Line::new(per_window, false);
        let mut at = Duration::ZERO;
        for (gap, late) in refusals {
            at += seconds(gap);
            refuse(&mut line, at, at + seconds(late));
            for after in [0, 1, 59, 61, 200] {
                let rate = line.pace.rate(line.start + at + seconds(late + after));
                prop_assert!((1..=per_window as usize).contains(&rate));
            }
        }
        let calm = LONGEST_PAUSE + per_window * GROWS_EVERY;
        prop_assert_eq!(line.pace.rate(line.start + at + seconds(30) + calm), per_window as usize);
    }

    #[test]
    fn the_foreseen_turn_is_the_turn_that_comes(
        per_window in 1..8u32, arrivals in arrivals(), ahead in 0..30usize,
    ) {
        let mut line = Line::new(per_window, false);
        line.serve_all(&arrivals);
        let now = line.last;
        let far = now + Duration::from_hours(1);
        let foreseen = line.pace.turn_after(ahead, now, far);
        let mut turn = now;
        for _ in 0..=ahead {
            turn = line.start + line.serve(now - line.start);
        }
        prop_assert_eq!(foreseen, turn);
    }
}

/// From the time at which room is left to another process, for any requests before and after.
#[test]
fn what_is_left_to_others_is_never_used() {
    proptest!(|(
        per_window in 1_u32..=7,
        left in 0_usize..=8,
        before in prop::collection::vec(0_u64..3_000, 0..40),
        after in prop::collection::vec(0_u64..6_000, 1..60),
        refused_at in prop::option::of(0_u64..3_000),
    )| {
        let mut line = Line::new(per_window, false);
        let mut before: Vec<Duration> = before.into_iter().map(ms).collect();
        before.sort();
        line.serve_all(&before);
        if let Some(at) = refused_at {
            let at = line.start + ms(at);
            line.pace.refused(at, at, None);
        }
        let made_at = (line.last - line.start).max(ms(3_000));
        line.pace.leave_to_others(left, line.start + made_at);

        let mut after: Vec<Duration> = after.into_iter().map(|at| made_at + ms(at)).collect();
        after.sort();
        let sends = line.serve_all(&after);
        let most = usize::try_from(per_window).unwrap().saturating_sub(left).max(1);
        assert_within_window(&sends, most);

        // The other process used its whole share right before it ended.
        let ended_at = line.last - line.start;
        line.pace.leave_to_others(0, line.last);
        let more = line.serve_all(&vec![ended_at; 2 * BURST as usize]);
        let others = std::iter::repeat_n(ended_at, left);
        let sends: Vec<Duration> = sends.into_iter().chain(others).chain(more).collect();
        assert_within_window(&sends, most.saturating_add(left));
        prop_assert_eq!(line.pace.rate(line.last + LONGEST_PAUSE + per_window * GROWS_EVERY), per_window as usize);
    });
}
