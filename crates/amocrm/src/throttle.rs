//! The throttle of all requests to amoCRM: first come, first served, at the rate of [`Pace`].

mod pace;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::Refusal;

pub(super) use pace::LONGEST_PAUSE;
use pace::Pace;

/// How many send stamps are remembered.
const STAMPS: usize = 4096;

#[derive(Debug)]
pub(super) struct Throttle {
    state: Mutex<State>,
    /// The holder of this lock is next; the others wait for it (tokio's mutex is fair).
    next: tokio::sync::Mutex<()>,
    /// The queue of background requests: only its head waits in the common queue.
    background: tokio::sync::Mutex<()>,
    /// Those in line, the next one included.
    in_line: AtomicUsize,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    /// Since a refusal, all requests are turned away until [`Throttle::reset`].
    refusal: Option<Refusal>,
    stamps: VecDeque<Instant>,
    /// How many requests were sent.
    sent: u64,
}

/// Why there is no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// It would come after the moment by which the request has to begin.
    TooLate,
    /// An earlier request was refused, in a way that this one would be too.
    Refused(Refusal),
}

/// Leave to send one request, now.
#[derive(Debug)]
#[must_use = "a turn is used up once it is given"]
pub(super) struct Turn<'a> {
    throttle: &'a Throttle,
    number: u64,
}

impl Throttle {
    pub(super) fn new(rate: NonZeroU32, assume_full_window: bool) -> Self {
        Self {
            state: Mutex::new(State {
                pace: Pace::new(rate, assume_full_window, Instant::now()),
                refusal: None,
                stamps: VecDeque::new(),
                sent: 0,
            }),
            next: tokio::sync::Mutex::new(()),
            background: tokio::sync::Mutex::new(()),
            in_line: AtomicUsize::new(0),
        }
    }

    /// Waits for a turn. Dropping the future leaves the queue and uses up no turn: a turn is taken only in the moment in which
    /// it is given. At most one background request is ahead of any other request.
    pub(super) async fn acquire(
        &self,
        is_background: bool,
        begin_by: Option<Instant>,
    ) -> Result<Turn<'_>, Denied> {
        let _head = if is_background {
            Some(in_time(begin_by, &self.background).await?)
        } else {
            None
        };
        let asked = Instant::now();
        let place = Place::take(&self.in_line);
        if let Some(limit) = begin_by
            && self.state.lock().pace.turn_after(place.ahead, asked, limit) > limit
        {
            return Err(Denied::TooLate);
        }
        let _next = in_time(begin_by, &self.next).await?;
        loop {
            let ready = {
                let mut state = self.state.lock();
                if let Some(refusal) = state.refusal {
                    return Err(Denied::Refused(refusal));
                }
                let now = Instant::now();
                let ready = state.pace.ready_at(now).max(now);
                if begin_by.is_some_and(|limit| ready > limit) {
                    return Err(Denied::TooLate);
                }
                if ready == now {
                    let number = state.pace.take(asked, now);
                    return Ok(Turn {
                        throttle: self,
                        number,
                    });
                }
                ready
            };
            // The loop checks again after the sleep, since a 429 may have come meanwhile. Only the end of a slow time makes
            // a turn come earlier, by too little to wake for.
            sleep_until(ready).await;
        }
    }

    /// A 429 for the request sent at `sent_at`.
    pub(super) fn slow_down(&self, sent_at: Instant, named: Option<Duration>) {
        self.state
            .lock()
            .pace
            .refused(sent_at, Instant::now(), named);
    }

    /// Turns away all requests, those in the queue too, until [`Throttle::reset`].
    pub(super) fn turn_away(&self, refusal: Refusal) {
        self.state.lock().refusal = Some(refusal);
    }

    pub(super) fn is_turning_away(&self) -> bool {
        self.state.lock().refusal.is_some()
    }

    pub(super) fn reset(&self) {
        self.state.lock().refusal = None;
    }

    /// See [`Pace::leave_to_others`].
    pub(super) fn leave_to_others(&self, sends: usize) {
        self.state
            .lock()
            .pace
            .leave_to_others(sends, Instant::now());
    }

    /// Any other answer than a 429.
    pub(super) fn answered(&self, sent_at: Instant) {
        self.state.lock().pace.answered(sent_at);
    }

    pub(super) fn requests_sent(&self) -> u64 {
        self.state.lock().sent
    }

    pub(super) fn stamps(&self) -> Vec<Instant> {
        self.state.lock().stamps.iter().copied().collect()
    }
}

impl Turn<'_> {
    /// Must be called right before sending: the time of sending counts, not that of the turn.
    pub(super) fn sent(self) -> Instant {
        let mut state = self.throttle.state.lock();
        let now = Instant::now();
        state.pace.sent(self.number, now);
        if state.stamps.len() == STAMPS {
            state.stamps.pop_front();
        }
        state.stamps.push_back(now);
        state.sent += 1;
        now
    }
}

/// Waits for the head of a queue, until `begin_by` at the latest.
async fn in_time(
    begin_by: Option<Instant>,
    queue: &tokio::sync::Mutex<()>,
) -> Result<tokio::sync::MutexGuard<'_, ()>, Denied> {
    match begin_by {
        None => Ok(queue.lock().await),
        Some(limit) => timeout_at(limit, queue.lock())
            .await
            .map_err(|_| Denied::TooLate),
    }
}

/// A place in the line, left when dropped.
struct Place<'a> {
    in_line: &'a AtomicUsize,
    ahead: usize,
}

impl<'a> Place<'a> {
    fn take(in_line: &'a AtomicUsize) -> Self {
        let ahead = in_line.fetch_add(1, Ordering::Relaxed);
        Self { in_line, ahead }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.in_line.fetch_sub(1, Ordering::Relaxed);
    }
}
