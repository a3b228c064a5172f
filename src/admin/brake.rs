//! Wrong tokens slow down all next tries a little, and lock no visitor out.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

/// A try waits this long for each wrong one before it.
const STEP: Duration = Duration::from_millis(100);
/// Wrong tries that count: a try waits two seconds at most.
const MOST: u32 = 20;
/// After each such time one wrong try is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);
/// Tries that may wait at a time.
const WAITING: usize = 64;

/// The wrong tries that still count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wrong {
    tries: u32,
    since: Instant,
}

impl Wrong {
    fn at(self, now: Instant) -> Self {
        let steps = now.saturating_duration_since(self.since).as_secs() / FORGOTTEN_AFTER.as_secs();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        Self {
            tries: self.tries.saturating_sub(steps),
            since: self.since + FORGOTTEN_AFTER.saturating_mul(steps.min(self.tries)),
        }
    }

    fn and_one_more(self, now: Instant) -> Self {
        let before = self.at(now);
        let since = if before.tries == 0 { now } else { before.since };
        Self {
            tries: (before.tries + 1).min(MOST),
            since,
        }
    }

    fn delay(self) -> Duration {
        STEP * self.tries
    }
}

#[derive(Debug)]
pub(super) struct Brake {
    wrong: Mutex<Option<Wrong>>,
    waiting: Semaphore,
}

impl Default for Brake {
    fn default() -> Self {
        Self {
            wrong: Mutex::default(),
            waiting: Semaphore::new(WAITING),
        }
    }
}

impl Brake {
    /// Waits as the wrong tries of late demand, also for a right token. While too many wait, a try goes on at once: a right
    /// token must not be locked out by a crowd of wrong ones.
    pub(super) async fn hold(&self) {
        let delay = {
            let wrong = *self.wrong.lock();
            wrong.map(|wrong| wrong.at(Instant::now()).delay())
        };
        if let Some(delay) = delay
            && let Ok(_place) = self.waiting.try_acquire()
        {
            sleep(delay).await;
        }
    }

    /// Counts a wrong try. Returns whether it is the first one for a while.
    pub(super) fn wrong(&self) -> bool {
        let now = Instant::now();
        let mut wrong = self.wrong.lock();
        let before = wrong.unwrap_or(Wrong {
            tries: 0,
            since: now,
        });
        *wrong = Some(before.and_one_more(now));
        before.at(now).tries == 0
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    async fn held(brake: &Brake) -> Duration {
        let begun = Instant::now();
        brake.hold().await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn each_wrong_try_slows_the_next_ones_down_to_a_bound_and_is_forgotten() {
        let brake = Brake::default();
        assert_eq!(held(&brake).await, Duration::ZERO);
        assert!(brake.wrong());
        assert!(!brake.wrong());
        let near = |held: Duration, expected: Duration| {
            let over = held.checked_sub(expected).unwrap();
            assert!(over < Duration::from_millis(5), "{held:?} {expected:?}");
        };
        near(held(&brake).await, STEP * 2);
        for _ in 0..100 {
            brake.wrong();
        }
        near(held(&brake).await, Duration::from_secs(2));
        advance(FORGOTTEN_AFTER * 10).await;
        near(held(&brake).await, STEP * 10);
        advance(FORGOTTEN_AFTER * 20).await;
        assert_eq!(held(&brake).await, Duration::ZERO);
        assert!(brake.wrong());
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_that_waits_does_not_hold_up_the_next_try() {
        let brake = Brake::default();
        brake.wrong();
        let crowd = (0..WAITING).map(|_| brake.waiting.try_acquire().unwrap());
        let crowd: Vec<_> = crowd.collect();
        assert_eq!(held(&brake).await, Duration::ZERO);
        drop(crowd);
        assert!(held(&brake).await >= STEP);
    }
}
