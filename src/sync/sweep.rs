//! The sweep: finds rows without a deal id, also those that no webhook has announced.

use jiff::Timestamp;

use super::{Context, failure::Failure};
use crate::{
    domain::RowId,
    inbox::{self, Arrival, Inbox, Source, Stored},
    supabase::{Period, Supabase, SupabaseError},
};

/// A walk over all unsynced rows of a period, afresh each time, until an empty page: PostgREST cuts pages silently. First
/// those without a deal id, then those whose deal id is a blank text.
#[derive(Debug)]
pub struct Walk {
    supabase: Supabase,
    period: Period,
    place: Place,
    /// The rows without a deal id have been walked; those with a blank one follow.
    is_of_blank: bool,
}

impl Walk {
    #[must_use]
    pub fn new(supabase: Supabase, period: Period) -> Self {
        Self {
            supabase,
            period,
            place: Place::default(),
            is_of_blank: false,
        }
    }

    /// The next page in id order; an empty one is the end. After an error the same page may be asked for again.
    pub async fn next_page(&mut self) -> Result<Vec<RowId>, SupabaseError> {
        let mut page = Vec::new();
        if !self.is_of_blank {
            page = self
                .supabase
                .unsynced(self.period, self.place.after)
                .await?;
            if page.is_empty() {
                self.is_of_blank = true;
                self.place.after = None;
            }
        }
        if self.is_of_blank {
            let (period, after) = (self.period, self.place.after);
            page = self.supabase.unsynced_blank(period, after).await?;
        }
        self.place.come_to(&page)?;
        Ok(page)
    }
}

/// A walk ends after this many rows: a server whose pages never end would fill the inbox with made-up ids. The next
/// walk passes over the rows that are synced by then.
const MOST_ROWS: usize = 1_000_000;

/// How far a walk has come.
#[derive(Debug, Default)]
struct Place {
    after: Option<RowId>,
    rows: usize,
}

impl Place {
    /// Moves past a page. A page out of order, or one that begins where the walk has been, is an error: the rows behind
    /// it would be skipped silently.
    fn come_to(&mut self, page: &[RowId]) -> Result<(), SupabaseError> {
        let what = |what| Err(SupabaseError::Malformed { what });
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            return Ok(());
        };
        if self.after.is_some_and(|after| *first <= after) {
            return what("a page of rows that does not go on");
        }
        if !page.is_sorted() {
            return what("rows without their order");
        }
        self.rows = self.rows.saturating_add(page.len());
        if self.rows > MOST_ROWS {
            return what("a million rows without an end");
        }
        self.after = Some(*last);
        Ok(())
    }
}

impl Context {
    /// Stores the newest rows without a deal id that the inbox does not know, and re-opens none. One request when there is
    /// nothing new. A row whose transaction took longer than the overlap, and one without a time, is left to the sweep.
    pub(super) async fn short_sweep(&self) -> Result<(), Failure> {
        let since = self.maintenance.rows.since;
        let overlap = self.timings.short_sweep_overlap;
        let since = match *self.swept_until.lock() {
            Some(last) => since.max(last.checked_sub(overlap).unwrap_or(since)),
            None => since,
        };
        let period = Period {
            with_undated: false,
            ..Period::since(since)
        };
        let (mut asked_at, mut seen, mut new) = (None, 0, 0);
        while seen < MOST_ROWS {
            let (page, read_at) = self.supabase.latest_unsynced(period, seen).await?;
            asked_at = asked_at.or(Some(read_at));
            seen += page.len();
            let known = self.inbox.states_of(page.clone()).await?;
            let unknown = page.into_iter().filter(|row| !known.contains_key(row));
            let found = |row| Arrival {
                row,
                source: Source::ShortSweep,
            };
            let unknown: Vec<Arrival> = unknown.map(found).collect();
            if unknown.is_empty() {
                break;
            }
            new += unknown.len();
            // The oldest first, as they would have been told of.
            self.inbox
                .store(unknown.into_iter().rev().collect())
                .await?;
        }
        *self.swept_until.lock() = asked_at;
        self.inbox.swept(inbox::Sweep::Short);
        if new > 0 {
            tracing::info!(new, "sweep.short");
        }
        Ok(())
    }

    pub(super) async fn sweep(&self) -> Result<(), Failure> {
        let seen = sweep(&self.inbox, &self.supabase, self.maintenance.rows.since).await?;
        // Either no row is unsynced, or a policy hides all rows: the answer is the same.
        if seen == 0 && matches!(self.supabase.can_see_any_row().await, Ok(false)) {
            self.see_why_no_row().await?;
        }
        Ok(())
    }
}

/// Stores all rows created at `since` or later that have no deal id. Returns how many there are.
pub(super) async fn sweep(
    inbox: &Inbox,
    supabase: &Supabase,
    since: Timestamp,
) -> Result<usize, Failure> {
    let (mut seen, mut new, mut reopened) = (0, 0, 0);
    let mut walk = Walk::new(supabase.clone(), Period::since(since));
    loop {
        let page = walk.next_page().await?;
        if page.is_empty() {
            break;
        }
        seen += page.len();
        let found = |row| Arrival {
            row,
            source: Source::Sweep,
        };
        let arrivals = page.into_iter().map(found);
        for stored in inbox.store(arrivals.collect()).await? {
            match stored {
                // No webhook had told us about it.
                Stored::New => new += 1,
                Stored::Reopened => reopened += 1,
                Stored::Duplicate => {}
            }
        }
    }
    tracing::info!(seen, new, reopened, "sweep.done");
    inbox.swept(inbox::Sweep::All);
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: impl IntoIterator<Item = usize>) -> Vec<RowId> {
        let id = |n| RowId::new(uuid::Uuid::from_u128(n as u128));
        ids.into_iter().map(id).collect()
    }

    /// Walks until an error, or an empty page. Answers what ended it, and after how many rows.
    fn walk(page: fn(usize) -> Vec<RowId>) -> (Option<&'static str>, usize) {
        let mut place = Place::default();
        for n in 0.. {
            let rows = page(n);
            match place.come_to(&rows) {
                Ok(()) if rows.is_empty() => return (None, place.rows),
                Ok(()) => {}
                Err(SupabaseError::Malformed { what }) => return (Some(what), place.rows),
                Err(error) => panic!("{error}"),
            }
        }
        unreachable!()
    }

    #[test]
    fn a_walk_ends_whatever_the_pages_are() {
        type Pages = fn(usize) -> Vec<RowId>;
        let stands = Some("a page of rows that does not go on");
        let table: [(&str, Pages, _, usize); 8] = [
            ("nothing", |_| ids([]), None, 0),
            (
                "two pages",
                |n| ids((n * 9..n * 9 + 9).filter(|id| *id < 18)),
                None,
                18,
            ),
            (
                "one row a page",
                |n| ids((n..=n).filter(|id| *id < 7)),
                None,
                7,
            ),
            ("the same page for ever", |_| ids(0..1000), stands, 1000),
            ("the same row for ever", |_| ids([5]), stands, 1),
            ("an overlap", |n| ids(n * 9..n * 9 + 10), stands, 10),
            (
                "no order",
                |_| ids([3, 1, 2]),
                Some("rows without their order"),
                0,
            ),
            (
                "new rows for ever",
                |n| ids(n * 1000..n * 1000 + 1000),
                Some("a million rows without an end"),
                MOST_ROWS + 1000,
            ),
        ];
        for (what, page, end, rows) in table {
            assert_eq!(walk(page), (end, rows), "{what}");
        }
    }

    /// The keys are compared as Postgres compares them: byte by byte.
    #[test]
    fn ids_are_in_the_order_of_their_bytes() {
        let texts = [
            "00000000-0000-0000-0000-0000000000ff",
            "0f000000-0000-0000-0000-000000000000",
            "80000000-0000-0000-0000-000000000000",
            "ffffffff-0000-0000-0000-000000000000",
        ];
        let ids: Vec<RowId> = texts.map(|text| text.parse().unwrap()).into();
        assert!(ids.is_sorted());
    }
}
