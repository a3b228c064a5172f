//! From when on an empty look proves that a write, whose answer never came, never happened and never will.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Context, rules::eligibility::later};
use crate::domain::RowId;

/// The writes of this process that may still land. Kept by the monotonic clock: were the machine's own put forward, a
/// stored time would be reached early, and a copy that is still on its way would be doubled.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<RowId, Instant>>);

impl InFlight {
    pub(super) fn begin(&self, rows: impl IntoIterator<Item = RowId>, decided_at: Instant) {
        let mut in_flight = self.lock();
        let now = Instant::now();
        in_flight.retain(|_, at| *at > now);
        in_flight.extend(rows.into_iter().map(|row| (row, decided_at)));
    }

    /// Nothing more can land.
    pub(super) fn end(&self, row: RowId) {
        self.lock().remove(&row);
    }

    fn left(&self, row: RowId, look: Look) -> Option<Duration> {
        let at = *self.lock().get(&row)?;
        Some(at.saturating_duration_since(look.at))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RowId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a look was asked for. What it shows is older than the answer that tells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    at: Instant,
    now: Timestamp,
}

impl Look {
    pub(super) fn begin(ctx: &Context) -> Self {
        Self {
            at: Instant::now(),
            now: ctx.now(),
        }
    }
}

impl Context {
    /// Until when the fate of a row's write is open; `None` once it is decided.
    ///
    /// For a write of a former process only the stored time counts. One that is further away than it can have been
    /// when it was stored was stored before the clock was put back.
    pub(super) fn may_land_until(
        &self,
        row: RowId,
        resolve_after: Timestamp,
        look: Look,
    ) -> Option<Timestamp> {
        let left = self.in_flight.left(row, look).unwrap_or_else(|| {
            Duration::try_from(look.now.duration_until(resolve_after))
                .unwrap_or_default()
                .min(self.timings.resolve_delay())
        });
        (!left.is_zero()).then(|| later(look.now, left))
    }
}
