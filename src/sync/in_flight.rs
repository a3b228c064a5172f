//! From when on a look that finds nothing resolves a write in doubt: the write never happened and never will.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Context, rules::timings::later};
use crate::domain::RowId;

/// The writes of this process that may still land, by the monotonic clock. If the wall clock were put forward, a stored
/// time would be reached early, and a write that is still in flight would be repeated.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<RowId, Instant>>);

impl InFlight {
    pub(super) fn begin(&self, rows: impl IntoIterator<Item = RowId>, decided_at: Instant) {
        let mut in_flight = self.0.lock();
        let now = Instant::now();
        in_flight.retain(|_, at| *at > now);
        in_flight.extend(rows.into_iter().map(|row| (row, decided_at)));
    }

    /// No write of the row can land any more.
    pub(super) fn end(&self, row: RowId) {
        self.0.lock().remove(&row);
    }

    fn left(&self, row: RowId, look: Look) -> Option<Duration> {
        let at = *self.0.lock().get(&row)?;
        Some(at.saturating_duration_since(look.at))
    }
}

/// When a look was asked for. Its answer may show a state as old as this.
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
    /// Until when a row's write is in doubt; `None` once the look resolves it.
    ///
    /// For a write of a former process only the stored time counts. A time further away than the full delay was stored
    /// before the clock was put back, so it is cut to that delay.
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
