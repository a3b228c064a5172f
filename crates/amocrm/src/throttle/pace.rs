//! When the next request may be sent. Pure: callers pass the time.

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use tokio::time::Instant;

/// amoCRM counts 7 requests a second. Its seconds begin at other times than ours, hence the margin.
pub(crate) const WINDOW: Duration = Duration::from_millis(1050);
/// After idle time so many requests may be sent at once. Those that follow are spaced evenly.
pub(crate) const BURST: u32 = 4;
/// The longest pause, even if amoCRM names a longer one: a mistaken header must not stop the client for a day.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_mins(10);
/// After so long without a 429 one more request a window is allowed, up to the rate that is set.
pub(super) const GROWS_EVERY: Duration = Duration::from_mins(1);
/// Pauses grow 1, 2, 4 … 32 s: one more second was seen to be not enough (reference, section 3).
const MOST_DOUBLINGS: u32 = 5;

#[derive(Debug, Clone)]
pub(super) struct Pace {
    started: Instant,
    full_rate: usize,
    /// Sends of each window that are left to another process.
    left_to_others: usize,
    /// The latest sends, oldest first, never more than `full_rate`.
    sends: VecDeque<Instant>,
    /// All sends so far: the number of the latest one.
    count: u64,
    /// When the burst is whole again (the "theoretical arrival time" of a leaky bucket).
    rested_at: Instant,
    paused_until: Option<Instant>,
    /// The rate at the end of the latest pause.
    slowed_to: usize,
    /// 429s in a row; those that were in flight together count once.
    refusals: u32,
    /// The time of the latest counted 429.
    refused_at: Option<Instant>,
}

impl Pace {
    /// `assume_full_window`: another process with the same token, such as the one before a restart, may have used up the
    /// last second.
    pub(super) fn new(rate: NonZeroU32, assume_full_window: bool, now: Instant) -> Self {
        let full_rate = usize::try_from(rate.get()).unwrap_or(usize::MAX);
        let mut pace = Self {
            started: now,
            full_rate,
            left_to_others: 0,
            sends: VecDeque::new(),
            count: 0,
            rested_at: now,
            paused_until: None,
            slowed_to: full_rate,
            refusals: 0,
            refused_at: None,
        };
        if assume_full_window {
            pace.sends.extend(std::iter::repeat_n(now, full_rate));
            pace.rested_at = now + pace.interval(now) * pace.burst(now);
        }
        pace
    }

    /// Sends allowed in any [`WINDOW`] at this moment.
    pub(super) fn rate(&self, now: Instant) -> usize {
        let allowed = self.allowed(now);
        allowed.saturating_sub(self.left_to_others).max(1)
    }

    /// The rate that amoCRM has accepted, for all processes together.
    fn allowed(&self, now: Instant) -> usize {
        let calm = self
            .paused_until
            .map_or(Duration::ZERO, |until| now.saturating_duration_since(until));
        let grown = calm.as_secs() / GROWS_EVERY.as_secs();
        let grown = usize::try_from(grown).unwrap_or(usize::MAX);
        self.slowed_to.saturating_add(grown).min(self.full_rate)
    }

    /// From now on so many sends of each window are another process's; one is always ours. What it gives back counts as
    /// sent now, since it may have been.
    pub(super) fn leave_to_others(&mut self, sends: usize, now: Instant) {
        let given_back = self.left_to_others.saturating_sub(sends);
        self.left_to_others = sends;
        for _ in 0..given_back {
            self.take(now, now);
        }
    }

    fn interval(&self, now: Instant) -> Duration {
        WINDOW / u32::try_from(self.rate(now)).unwrap_or(u32::MAX)
    }

    fn burst(&self, now: Instant) -> u32 {
        u32::try_from(self.rate(now)).unwrap_or(BURST).min(BURST)
    }

    /// The time, past or future, from which the next send is allowed in the present state.
    pub(super) fn ready_at(&self, now: Instant) -> Instant {
        let credit = self.interval(now) * (self.burst(now) - 1);
        let spaced = self.rested_at.checked_sub(credit).unwrap_or(self.started);
        let window = self
            .sends
            .len()
            .checked_sub(self.rate(now))
            .map_or(self.started, |oldest| self.sends[oldest] + WINDOW);
        let paused = self.paused_until.unwrap_or(self.started);
        spaced.max(window).max(paused)
    }

    /// Uses up a turn at `now`, for a request that has waited since `asked`. Returns the number of the send.
    pub(super) fn take(&mut self, asked: Instant, now: Instant) -> u64 {
        let (interval, burst) = (self.interval(now), self.burst(now));
        let ready = self.ready_at(now);
        if ready > asked {
            // A request that was held back by the window or a pause shows no idle time, so no new burst is allowed.
            self.rested_at = self.rested_at.max(ready + interval * (burst - 1));
        }
        self.rested_at = self.rested_at.max(now) + interval;
        if self.sends.len() == self.full_rate {
            self.sends.pop_front();
        }
        self.sends.push_back(now);
        self.count += 1;
        self.count
    }

    /// The send of that number went out at `now`, a little after its turn was taken.
    pub(super) fn sent(&mut self, number: u64, now: Instant) {
        let age = usize::try_from(self.count - number).unwrap_or(usize::MAX);
        if let Some(index) = self.sends.len().checked_sub(age.saturating_add(1)) {
            self.sends[index] = self.sends[index].max(now);
        }
    }

    /// When a newcomer's turn would come with `ahead` others before it. Stops counting once past `limit`.
    pub(super) fn turn_after(&self, ahead: usize, now: Instant, limit: Instant) -> Instant {
        let mut pace = self.clone();
        let mut at = now.max(pace.ready_at(now));
        for _ in 0..ahead {
            if at > limit {
                break;
            }
            pace.take(now, at);
            at = at.max(pace.ready_at(at));
        }
        at
    }

    /// A 429 for the request sent at `sent_at`: all sending pauses, then goes on more slowly. The first takes one
    /// from the rate; one that comes before the rate has begun to grow again halves it.
    pub(super) fn refused(&mut self, sent_at: Instant, now: Instant, named: Option<Duration>) {
        if self.refused_at.is_none_or(|before| sent_at > before) {
            let allowed = self.allowed(now);
            let came_soon = self
                .paused_until
                .is_some_and(|until| sent_at < until + GROWS_EVERY);
            let slower = if came_soon { allowed / 2 } else { allowed - 1 };
            self.slowed_to = slower.max(1);
            self.refused_at = Some(now);
            self.refusals = self.refusals.saturating_add(1);
        }
        let doublings = self.refusals.saturating_sub(1).min(MOST_DOUBLINGS);
        let growing = Duration::from_secs(1 << doublings);
        let pause = named.unwrap_or(growing).max(growing).min(LONGEST_PAUSE);
        let until = self
            .paused_until
            .map_or(now + pause, |before| before.max(now + pause));
        self.paused_until = Some(until);
    }

    /// The request sent at `sent_at` was answered, and not with a 429.
    pub(super) fn answered(&mut self, sent_at: Instant) {
        if self.refused_at.is_some_and(|at| sent_at > at) {
            self.refusals = 0;
        }
    }
}
