use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counts how often a loop has come round. Clones share the count.
///
/// A count, not a time: after a suspend of the machine every time stamp would look old.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// The loop has come round, with success or with an error.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
