//! The sweep: rows without a deal id, whoever forgot to tell us about them.

use super::{Context, failure::Failure};
use crate::{
    domain::RowId,
    inbox::{Arrival, InboxError, Source, Stored},
    supabase::{Period, Supabase, SupabaseError},
};

/// What a sweep saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub seen: u64,
    /// Rows that no webhook had told us about.
    pub new: u64,
    pub reopened: u64,
}

/// A walk over all unsynced rows of a period, afresh each time, until an empty page: PostgREST cuts pages silently. First
/// those without a deal id, then those whose deal id is a blank text.
#[derive(Debug)]
pub struct Walk {
    supabase: Supabase,
    period: Period,
    after: Option<RowId>,
    /// Those without a deal id are behind us, those with a blank one ahead.
    is_of_blank: bool,
}

impl Walk {
    #[must_use]
    pub fn new(supabase: Supabase, period: Period) -> Self {
        Self {
            supabase,
            period,
            after: None,
            is_of_blank: false,
        }
    }

    /// The next page in id order; an empty one is the end. After an error the same page may be asked for again.
    pub async fn next_page(&mut self) -> Result<Vec<RowId>, SupabaseError> {
        let mut page = Vec::new();
        if !self.is_of_blank {
            page = self.supabase.unsynced(self.period, self.after).await?;
            if page.is_empty() {
                self.is_of_blank = true;
                self.after = None;
            }
        }
        if self.is_of_blank {
            let (period, after) = (self.period, self.after);
            page = self.supabase.unsynced_blank(period, after).await?;
        }
        let Some(last) = page.last() else {
            return Ok(page);
        };
        if self.after.is_some_and(|after| *last <= after) {
            tracing::warn!("sweep.page_repeats");
            return Ok(Vec::new());
        }
        self.after = Some(*last);
        Ok(page)
    }
}

impl Context {
    pub(super) async fn sweep(&self) -> Result<Result<Swept, Failure>, InboxError> {
        let mut swept = Swept::default();
        let period = Period::since(self.settings.rows.since);
        let mut walk = Walk::new(self.supabase.clone(), period);
        loop {
            let page = match walk.next_page().await {
                Ok(page) => page,
                Err(error) => return Ok(Err(Failure::from(error))),
            };
            if page.is_empty() {
                break;
            }
            swept.seen += page.len() as u64;
            let arrivals = page
                .into_iter()
                .map(|row| Arrival {
                    row,
                    source: Source::Sweep,
                })
                .collect();
            for stored in self.inbox.store(arrivals).await? {
                match stored {
                    Stored::New => swept.new += 1,
                    Stored::Reopened => swept.reopened += 1,
                    Stored::Duplicate => {}
                }
            }
            if self.gate.is_stopping() {
                break;
            }
        }
        // Nothing to do, or nothing to see: a policy that hides all rows answers the same.
        if swept.seen == 0 && matches!(self.supabase.can_see_any_row().await, Ok(false)) {
            self.see_why_no_row().await?;
        }
        tracing::info!(
            seen = swept.seen,
            new = swept.new,
            reopened = swept.reopened,
            "sweep.done"
        );
        Ok(Ok(swept))
    }
}
