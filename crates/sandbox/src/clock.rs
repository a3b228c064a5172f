use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;

use super::lock;

/// The time that the emulators go by.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's own.
    Machine,
    /// It stands still until it is advanced; clones share it.
    Set(Arc<Mutex<Timestamp>>),
}

impl Clock {
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self::Set(Arc::new(Mutex::new(now)))
    }

    /// The machine's clock cannot be advanced.
    pub fn advance(&self, by: Duration) {
        if let Self::Set(now) = self {
            let mut now = lock(now);
            *now = now.saturating_add(by).unwrap_or(Timestamp::MAX);
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::Machine => Timestamp::now(),
            Self::Set(now) => *lock(now),
        }
    }
}
