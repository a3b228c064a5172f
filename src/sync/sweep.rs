//! The sweep: rows without a deal id, whoever forgot to tell us about them.

use super::{Context, failure::Failure};
use crate::{
    domain::RowId,
    inbox::{Arrival, InboxError, Source, Stored},
};

/// What a sweep saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub seen: u64,
    /// Rows that no webhook had told us about.
    pub new: u64,
    pub reopened: u64,
}

impl Context {
    /// Walks over all unsynced rows, afresh each time, until an empty page: PostgREST cuts pages silently.
    pub(super) async fn sweep(&self) -> Result<Result<Swept, Failure>, InboxError> {
        let mut swept = Swept::default();
        let mut after: Option<RowId> = None;
        loop {
            let page = match self
                .supabase
                .unsynced(self.settings.rows.since, after)
                .await
            {
                Ok(page) => page,
                Err(error) => return Ok(Err(Failure::from(error))),
            };
            let Some(last) = page.last() else { break };
            if after.is_some_and(|after| *last <= after) {
                tracing::warn!("sweep.page_repeats");
                break;
            }
            after = Some(*last);
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
        tracing::info!(
            seen = swept.seen,
            new = swept.new,
            reopened = swept.reopened,
            "sweep.done"
        );
        Ok(Ok(swept))
    }
}
