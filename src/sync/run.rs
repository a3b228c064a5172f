//! One run: entries that were claimed together, cut into batches.
//!
//! A run holds one entry when little happens and thousands on an import day; the steps are the same. Batches overlap, so
//! that amoCRM is asked as often as it allows: while one writes back to its rows, the next writes to amoCRM, and a third
//! reads.

use std::{
    collections::HashSet,
    mem,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Context,
    batch::{Batch, at_once},
    failure::Asked,
    list::Expected,
    row::{Attempt, Ended, InHand, Listed, Loaded},
    scan::FEW,
    steps::rows,
    sync_batch,
};
use crate::inbox::{Claim, InboxError, Lane};

/// Batches of a run under way at once, from their first read to their last row.
const PARALLEL_BATCHES: usize = 4;
/// Batches of all runs that may ask amoCRM, so that none of them gets a turn too late for what it has read.
pub(super) const ASKING_BATCHES: usize = 2;
/// The first rows of a run of many go ahead alone: what is wrong with everything shows on these.
const CANARY: usize = 50;
const SMALLEST_BATCH: usize = 50;
/// What a batch holds is read at once and written in parts: more would mostly wait.
const LARGEST_BATCH: usize = 500;
/// A batch reads contacts and deals, twice if they do not fit into one request.
const READS: usize = 4;

/// How the entries of a claim are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    Usual,
    /// One row, which may write although an operation is in doubt.
    Alone,
    /// One row, which tries in a halt whether it is over.
    Probe,
}

/// Whether a batch waits for the first one of its run before it writes.
#[derive(Debug)]
pub(super) enum Turn {
    /// Dropped when the canary batch has finished, or has failed to; the other batches wait for it.
    Canary {
        _finished: DropGuard,
    },
    Behind(CancellationToken),
    Free,
}

/// Takes every entry of a claim to its end. After an error some are still claimed.
pub(super) async fn sync_claim(
    ctx: &Arc<Context>,
    claim: Claim,
    treatment: Treatment,
) -> Result<(), InboxError> {
    let Claim {
        token,
        lane,
        entries,
    } = claim;
    let is_long = entries.len() > FEW;
    let amocrm = &ctx.amocrm;
    let whole = Batch {
        ctx: Arc::clone(ctx),
        amocrm: if is_long {
            amocrm.patient()
        } else {
            amocrm.clone()
        },
        token,
        started: Instant::now(),
        rows: Arc::new(entries.iter().map(|entry| entry.row).collect()),
        is_long,
        is_alone: treatment != Treatment::Usual,
        is_probe: treatment == Treatment::Probe,
    };
    let claimed: Vec<Box<Attempt>> = entries.into_iter().map(Attempt::new).collect();
    let expected = Expected::of(ctx, lane, claimed.len());
    let loaded = rows::load(&whole, claimed).await?;
    if loaded.ended.iter().any(Ended::is_put_off) {
        ctx.some_are_young.store(true, Ordering::Relaxed);
    }
    let mut loaded = whole.settle(loaded).await?;
    look_up(ctx, &mut loaded, lane, expected).await?;
    // One asks for all batches. What is wrong with it and passes, each of them will be told.
    if loaded.len() > FEW
        && ctx.gate.closed().is_none()
        && let Err(Some(failure)) = ctx.pipeline(ctx.tempo.pipelines_for).await?
    {
        ctx.judge(&failure, Asked::NOTHING).await?;
    }
    let mut outcome = Ok(());
    for pass in cut(&whole, loaded) {
        let batches = pass
            .into_iter()
            .map(|(batch, turn, rows)| async move { sync_batch(&batch, turn, rows).await });
        for ended in at_once(PARALLEL_BATCHES, batches.collect()).await {
            outcome = outcome.and(ended);
        }
    }
    outcome
}

/// Looks rows up that have yet to be matched with a contact in the account's list of contacts.
async fn look_up(
    ctx: &Arc<Context>,
    rows: &mut [Loaded],
    lane: Lane,
    expected: Expected,
) -> Result<(), InboxError> {
    let unmatched = rows.iter_mut();
    let unmatched = unmatched.filter(|row| row.attempt.progress.choice.is_none());
    ctx.look_up_in_the_list(unmatched.collect(), lane, expected)
        .await
}

type Pass = Vec<(Batch, Turn, Vec<Loaded>)>;

/// Further rows of a person go in a pass of their own, which finds what the first has made. A row that has begun goes
/// before others of the same person.
fn cut(whole: &Batch, mut rows: Vec<Loaded>) -> Vec<Pass> {
    rows.sort_by_key(|row| !row.attempt.progress.crm_work_is_open());
    let is_long = rows.len() > FEW;
    let mut people = HashSet::new();
    let (first, further): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| {
        let person = row.attempt.progress.person;
        person.is_none_or(|person| people.insert(person))
    });
    let free = |(batch, rows)| (batch, Turn::Free, rows);
    let mut first: Pass = batches_of(whole, first, is_long)
        .into_iter()
        .map(free)
        .collect();
    if let [(_, canary, _), rest @ ..] = first.as_mut_slice()
        && !rest.is_empty()
    {
        let has_finished = CancellationToken::new();
        for (_, turn, _) in rest {
            *turn = Turn::Behind(has_finished.clone());
        }
        *canary = Turn::Canary {
            _finished: has_finished.drop_guard(),
        };
    }
    let further = batches_of(whole, further, is_long).into_iter().map(free);
    vec![first, further.collect()]
}

fn batches_of(whole: &Batch, rows: Vec<Loaded>, is_long: bool) -> Vec<(Batch, Vec<Loaded>)> {
    // Each row that is searched for takes a request: a batch of many would be old before it writes.
    let (known, sought): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| {
        row.attempt.progress.choice.is_some() || matches!(row.listed, Listed::Wholly(_))
    });
    let ctx = &whole.ctx;
    let large = batch_size(
        ctx.amocrm.requests_per_second(),
        ctx.settings.batch_size,
        ctx.tempo.fresh_for,
    );
    let amocrm = if is_long {
        ctx.amocrm.patient()
    } else {
        ctx.amocrm.clone()
    };
    let mut batches = Vec::new();
    for (mut rows, size) in [(known, large), (sought, SMALLEST_BATCH)] {
        while !rows.is_empty() {
            let size = if batches.is_empty() { CANARY } else { size };
            let rest = rows.split_off(rows.len().min(size));
            let rows = mem::replace(&mut rows, rest);
            let batch = Batch {
                amocrm: amocrm.clone(),
                rows: Arc::new(rows.iter().map(InHand::id).collect()),
                is_long,
                ..whole.clone()
            };
            batches.push((batch, rows));
        }
    }
    batches
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
            (7, 50, 500),
            (6, 50, 500),
            (3, 50, 150),
            (1, 50, 50),
            (7, 250, 500),
            (7, 10, 130),
            (7, 1, 50),
        ];
        for (rate, items, rows) in table {
            assert_eq!(size(rate, items), rows, "{rate} a second, {items} a write");
        }
    }
}
