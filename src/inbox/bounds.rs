//! How much the inbox may hold. The volume that it lies on is small, and a holder of the secret can send ids without end.

use std::time::Duration;

/// How long the entry of a row that was removed from the table is kept: no delivery or sweep names such a row again.
pub(super) const GONE_KEPT: Duration = Duration::from_hours(24);

/// How often the bounds are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Finished entries removed in one transaction, during which a delivery waits.
pub(super) const CHUNK: u32 = 1_000;
/// Chunks in one look.
pub(super) const CHUNKS: u32 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Of the file, without its free pages.
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

impl Bounds {
    pub(super) const DEFAULT: Self = Self {
        bytes: 500_000_000,
        entries: 1_000_000,
    };

    /// Down to this finished entries are removed, so that not every new row removes one.
    pub(super) fn with_room(self) -> Self {
        let part = |bound: u64| bound - bound / 20;
        Self {
            bytes: part(self.bytes),
            entries: part(self.entries),
        }
    }
}

/// How many free pages a file of so many keeps for the entries to come, a tenth of them or a megabyte. The others are given
/// back to the disk.
pub(super) fn free_to_keep(pages: i64) -> i64 {
    (pages / 10).max(256)
}

/// The result of a look at the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Enough,
    /// Finished entries are still to be removed.
    Clearing,
    /// Nothing finished is left.
    Full,
}
