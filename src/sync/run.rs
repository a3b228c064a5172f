//! One run: entries that were claimed together, cut into batches.
//!
//! A run holds one entry when little happens and thousands on an import day; the steps are the same. Batches overlap, so
//! that amoCRM is asked as often as it allows: while one writes back to its rows, the next writes to amoCRM, and a third
//! reads.

use std::{cmp::Reverse, collections::HashSet, mem, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Context,
    batch::{Batch, Treatment},
    contacts::FEW,
    failure::Asked,
    row::{Attempt, InHand, Loaded},
    steps::{rows, undo},
    sync_batch,
};
use crate::inbox::{Claim, InboxError, Step};

/// Batches of a run under way at once, from their first read to their last row.
const PARALLEL_BATCHES: usize = 4;
/// Batches of all runs that may ask amoCRM at once. With more, the data of a batch would be too old when its turn
/// comes.
pub(super) const ASKING_BATCHES: usize = 2;
/// Rows of the canary batch, which goes ahead in a long run: an error that concerns all rows shows on these.
const CANARY: usize = 50;
pub(super) const SMALLEST_BATCH: usize = 50;
/// A batch is read at once and written in parts, so the rows of a larger one would mostly wait. Its contacts fit into
/// two reads by id, although some people have two.
const LARGEST_BATCH: usize = 480;
/// The reads of a batch: contacts and deals, each in two requests if one does not hold them.
const READS: usize = 4;

/// When a batch may ask amoCRM, and when it may write.
#[derive(Debug)]
pub(super) struct Turn {
    /// Dropped when a batch of a long run has nothing more to ask: then the next one may.
    pub(super) asking: Option<OwnedSemaphorePermit>,
    /// Of the canary batch. Dropped when it has finished, or has failed to.
    pub(super) finished: Option<DropGuard>,
    /// Cancelled when the canary batch has finished; this batch waits for that before it writes.
    pub(super) canary: Option<CancellationToken>,
}

/// Takes every entry of a claim to its end. After an error some are still claimed.
pub(super) async fn sync_claim(
    ctx: &Arc<Context>,
    claim: Claim,
    treatment: Treatment,
) -> Result<(), InboxError> {
    let Claim { token, entries, .. } = claim;
    let is_long = entries.len() > FEW as usize;
    let amocrm = &ctx.amocrm;
    let whole = Batch {
        ctx: Arc::clone(ctx),
        amocrm: if is_long {
            amocrm.in_background()
        } else {
            amocrm.clone()
        },
        token,
        started: Instant::now(),
        rows: Arc::new(entries.iter().map(|entry| entry.row).collect()),
        is_long,
        treatment,
    };
    let claimed: Vec<Box<Attempt>> = entries.into_iter().map(Attempt::new).collect();
    let (to_be_undone, claimed) = claimed
        .into_iter()
        .partition(|attempt| attempt.progress.is_to_be_undone());
    let loaded = whole.settle(rows::load(&whole, claimed).await?).await?;
    let unmatched = loaded.iter().filter(|row| !has_choice(row)).count();
    let _sought = ctx.index.seek(unmatched);
    if unmatched > FEW as usize {
        // The index is brought up to date before the first batch is cut.
        ctx.index_is_ready(&whole.amocrm, whole.started, unmatched)
            .await?;
    }
    // One request for the pipeline serves all batches. After an error that passes, each batch asks again.
    if loaded.len() > FEW as usize
        && ctx.sending.blocked().is_none()
        && let Err(failure) = ctx.pipeline(ctx.timings.pipelines_for).await
    {
        ctx.classify(&failure, Asked::NOTHING).await?;
    }
    let mut outcome = Ok(());
    for pass in cut(&whole, loaded) {
        let batches = stream::unfold(pass, next_batch);
        let mut at_work = batches
            .map(|(batch, turn, rows)| async move { sync_batch(&batch, turn, rows).await })
            .buffer_unordered(PARALLEL_BATCHES)
            .boxed();
        while let Some(ended) = at_work.next().await {
            outcome = outcome.and(ended);
        }
    }
    // Behind those whose students wait.
    outcome.and(take_back(&whole, to_be_undone).await)
}

/// Undoes moves, the last one first, in batches whose deals are written soon after they are read.
async fn take_back(whole: &Batch, mut attempts: Vec<Box<Attempt>>) -> Result<(), InboxError> {
    attempts.sort_by_key(|it| Reverse(it.progress.moved.map(|moved| moved.at)));
    while !attempts.is_empty() {
        let rest = attempts.split_off(attempts.len().min(2 * SMALLEST_BATCH));
        let batch = Batch {
            amocrm: whole.ctx.amocrm.in_background(),
            rows: Arc::new(attempts.iter().map(InHand::id).collect()),
            ..whole.clone()
        };
        let ended = undo::undo(&batch, std::mem::replace(&mut attempts, rest)).await?;
        batch.end(ended).await?;
    }
    Ok(())
}

/// The batches of one pass: they overlap.
struct Pass<'a> {
    whole: &'a Batch,
    /// These rows need no search, so their batches may be large.
    begun: Vec<Loaded>,
    unmatched: Vec<Loaded>,
    /// Cancelled when the canary batch has finished; the others wait for that.
    canary: Option<CancellationToken>,
    is_first: bool,
    is_long: bool,
}

/// Further rows of a person go in a pass of their own, which finds what the first has made. A row that has begun goes
/// before others of the same person.
fn cut(whole: &Batch, mut rows: Vec<Loaded>) -> [Pass<'_>; 2] {
    rows.sort_by_key(|row| !row.attempt.progress.step.is_open());
    let is_long = rows.len() > FEW as usize;
    let mut people = HashSet::new();
    let (first, further): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| {
        let person = row.attempt.progress.person;
        person.is_none_or(|person| people.insert(person))
    });
    [(first, Some(CancellationToken::new())), (further, None)].map(|(rows, canary)| {
        let (begun, unmatched) = rows.into_iter().partition(has_choice);
        Pass {
            whole,
            begun,
            unmatched,
            canary,
            is_first: true,
            is_long,
        }
    })
}

fn has_choice(row: &Loaded) -> bool {
    row.attempt.progress.step != Step::Begun
}

/// Waits until another batch may ask amoCRM, and cuts it then: how large it may be depends on whether the contact index can
/// be used by that time.
async fn next_batch(mut pass: Pass<'_>) -> Option<((Batch, Turn, Vec<Loaded>), Pass<'_>)> {
    if pass.begun.is_empty() && pass.unmatched.is_empty() {
        return None;
    }
    let turns = pass.is_long.then(|| Arc::clone(&pass.whole.ctx.turns));
    let asking = match turns {
        Some(turns) => turns.acquire_owned().await.ok(),
        None => None,
    };
    Some((pass.cut_batch(asking), pass))
}

impl Pass<'_> {
    fn cut_batch(&mut self, asking: Option<OwnedSemaphorePermit>) -> (Batch, Turn, Vec<Loaded>) {
        let ctx = &self.whole.ctx;
        let is_begun = !self.begun.is_empty();
        // Each search takes a request, so the data of a large batch would be too old before it writes.
        let size = if self.is_first {
            CANARY
        } else if is_begun || ctx.index.is_usable() {
            batch_size(
                ctx.amocrm.requests_per_second(),
                ctx.batch_size.now(),
                ctx.timings.fresh_for,
            )
        } else {
            SMALLEST_BATCH
        };
        let rows = if is_begun {
            &mut self.begun
        } else {
            &mut self.unmatched
        };
        let rest = rows.split_off(rows.len().min(size));
        let rows = mem::replace(rows, rest);
        let canary = self.canary.clone();
        let (finished, canary) = if mem::take(&mut self.is_first) {
            (canary.map(CancellationToken::drop_guard), None)
        } else {
            (None, canary)
        };
        let turn = Turn {
            asking,
            finished,
            canary,
        };
        let batch = Batch {
            amocrm: if self.is_long {
                ctx.amocrm.in_background()
            } else {
                ctx.amocrm.clone()
            },
            rows: Arc::new(rows.iter().map(InHand::id).collect()),
            is_long: self.is_long,
            ..self.whole.clone()
        };
        (batch, turn, rows)
    }
}

/// Two batches take turns at amoCRM; what each reads is to be written within half the time that it stays fresh.
fn batch_size(requests_per_second: usize, items: usize, fresh_for: Duration) -> usize {
    let millis = usize::try_from(fresh_for.as_millis()).unwrap_or(usize::MAX);
    let requests = requests_per_second.saturating_mul(millis) / (2 * ASKING_BATCHES * 1_000);
    let rows = items.saturating_mul(requests.saturating_sub(READS));
    rows.clamp(SMALLEST_BATCH, LARGEST_BATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_as_large_as_its_reads_stay_fresh() {
        let size = |rate, items| batch_size(rate, items, Duration::from_secs(10));
        let table = [
            (7, 50, 480),
            (6, 50, 480),
            (3, 50, 150),
            (1, 50, 50),
            (7, 250, 480),
            (7, 10, 130),
            (7, 1, 50),
        ];
        for (rate, items, rows) in table {
            assert_eq!(size(rate, items), rows, "{rate} a second, {items} a write");
        }
    }
}
