//! Writes the deal's id into the row.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    super::{
        batch::{Batch, Treatment},
        row::{Ended, InHand, Noted},
        rules::eligibility::already_filled,
    },
    rows::none_is_visible,
};
use crate::{
    domain::Operation,
    inbox::{Fact, InboxError, Outcome, Settlement},
    supabase::WriteBack,
};

/// At a tenth of a second a call, 320 rows a second. amoCRM lets 100 through, but the rows of a batch are ready all at
/// once, and a run waits for its last ones. PostgREST's pool of ten is no limit: a call holds a connection for a
/// millisecond of its time.
pub(crate) const PARALLEL_WRITE_BACKS: usize = 32;

/// Writes the ids back. It is the last step: every row ends.
pub(crate) async fn fill(batch: &Batch, rows: Vec<Noted>) -> Result<Vec<Ended>, InboxError> {
    let step = batch.begin(rows);
    let mut ended = step.ended;
    let write_backs = step.next.into_iter().map(|row| {
        let (ctx, is_probe) = (Arc::clone(&batch.ctx), batch.treatment == Treatment::Probe);
        async move {
            let _turn = ctx.write_backs.acquire().await;
            // After a refusal of write backs for all rows, no further one is tried.
            if ctx.sending.blocked().is_some() && !is_probe {
                return (row, None);
            }
            let begun = Instant::now().into_std();
            let answer = ctx
                .supabase
                .write_back(row.id(), row.stage.deal, row.stage.contact);
            let answer = answer.await;
            (row, Some((begun, answer)))
        }
    });
    let now = batch.now();
    // Each answer is handled when it comes: a refusal stops the write backs that have yet to begin.
    let mut answers = stream::iter(write_backs).buffer_unordered(PARALLEL_WRITE_BACKS);
    while let Some((row, answer)) = answers.next().await {
        match answer {
            Some((begun, Ok(WriteBack::Written))) => {
                let id = row.id();
                ended.push(row.end(Settlement::Done(Outcome::Synced)));
                batch.ctx.worked(Operation::WriteBack, id, begun).await?;
            }
            Some((_, Ok(WriteBack::NoRow))) => ended.extend(why_no_row(batch, row).await?),
            Some((_, Err(error))) => {
                ended.extend(batch.fail(Operation::WriteBack, vec![row], error).await?);
            }
            None => ended.push(row.again_at(now, Fact::SendingStopped)),
        }
    }
    Ok(ended)
}

/// Finds out why no row matched: a person has filled it, it is gone, or we may not change it.
async fn why_no_row(batch: &Batch, row: Noted) -> Result<Vec<Ended>, InboxError> {
    let read = match batch.ctx.supabase.rows(&[row.id()]).await {
        Ok(read) => read.rows.into_iter().next(),
        Err(error) => return batch.fail(Operation::Read, vec![row], error).await,
    };
    let ended = match read.map(|read| read.deal_id) {
        Some(Some(filled)) => {
            let settlement = already_filled(&row.attempt().progress, &filled);
            row.end(settlement)
        }
        Some(None) => {
            let refused = batch.ctx.write_back_matched_nothing(row.id()).await?;
            let (verdict, reason) = refused;
            batch.end_by(row, &verdict, &reason)
        }
        None => match batch.ctx.supabase.can_see_any_row().await {
            Ok(true) => row.end(Settlement::Done(Outcome::Gone)),
            Ok(false) => return none_is_visible(batch, vec![row]).await,
            Err(error) => return batch.fail(None, vec![row], error).await,
        },
    };
    Ok(vec![ended])
}
