//! How many items go into one bulk write.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::slice::Slice;
use crate::amocrm::AmoError;

/// So many full batches in a row come through before they grow again.
const GROWS_AFTER: u32 = 8;

/// Halved when a gateway gives up on a batch, and doubled again as they come through.
#[derive(Debug)]
pub(super) struct BatchSize {
    full: usize,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    size: usize,
    in_a_row: u32,
}

impl BatchSize {
    pub(super) fn new(full: usize) -> Self {
        let full = full.max(1);
        Self {
            full,
            now: Mutex::new(Now {
                size: full,
                in_a_row: 0,
            }),
        }
    }

    pub(super) fn now(&self) -> usize {
        self.lock().size
    }

    fn was_too_big(&self, items: usize) {
        let mut now = self.lock();
        now.size = now.size.min((items / 2).max(1));
        now.in_a_row = 0;
    }

    fn came_through(&self, items: usize) {
        let mut now = self.lock();
        if items < now.size {
            return;
        }
        now.in_a_row += 1;
        if now.in_a_row >= GROWS_AFTER {
            now.size = (now.size * 2).min(self.full);
            now.in_a_row = 0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slice {
    /// Learns from what became of a bulk write.
    pub(super) fn weigh<T>(&self, items: usize, answer: &Result<T, AmoError>) {
        match answer {
            Ok(_) => self.ctx.batch_size.came_through(items),
            Err(error) if error.is_too_big() => {
                self.ctx.batch_size.was_too_big(items);
                tracing::warn!(size = self.ctx.batch_size.now(), "sync.batches_halved");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_halve_with_each_that_was_too_big_and_grow_back_as_they_come_through() {
        let size = BatchSize::new(50);
        size.was_too_big(50);
        size.was_too_big(25);
        assert_eq!(size.now(), 12);
        // Small ones prove nothing.
        for _ in 0..100 {
            size.came_through(11);
        }
        assert_eq!(size.now(), 12);
        let mut seen = Vec::new();
        for _ in 0..4 * GROWS_AFTER {
            size.came_through(size.now());
            seen.push(size.now());
        }
        seen.dedup();
        assert_eq!(seen, [12, 24, 48, 50]);
    }

    #[test]
    fn one_item_is_never_halved_and_those_sent_before_the_halving_halve_once() {
        let size = BatchSize::new(50);
        for _ in 0..3 {
            size.was_too_big(50);
        }
        assert_eq!(size.now(), 25);
        for _ in 0..9 {
            size.was_too_big(size.now());
        }
        assert_eq!(size.now(), 1);
    }
}
