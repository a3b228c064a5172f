//! One run: entries that were claimed together.
//!
//! read rows ─▶ look up in the list of contacts ─▶ vanguard ─▶ slices, side by side ─▶ further rows of the same people
//!
//! A run holds one entry when little happens and thousands on an import day; the steps are the same. Slices overlap, so
//! that amoCRM is asked as often as it allows: while one writes back to its rows, the next writes to amoCRM, and a third
//! reads.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    failure::Asked,
    list::{Expected, Listed},
    scan::FEW,
    slice::{Members, Slice, at_once},
    work::Work,
};
use crate::{
    domain::RowId,
    inbox::{Claim, ClaimToken, InboxError, Lane},
};

/// Slices of a run under way at once, from their first read to their last row.
const PARALLEL_SLICES: usize = 4;
/// Slices of all runs that may ask amoCRM, so that none of them gets a turn too late for what it has read.
pub(super) const ASKING_SLICES: usize = 2;
/// The first rows of a run of many go ahead alone: what is wrong with everything shows on these.
const VANGUARD: usize = 50;
const SMALLEST_SLICE: usize = 50;
/// What a slice holds is read at once and written in parts: more would mostly wait.
const LARGEST_SLICE: usize = 500;
/// A slice reads contacts and deals, twice if they do not fit into one request.
const READS: usize = 4;

pub(super) struct Run {
    ctx: Arc<Context>,
    token: ClaimToken,
    lane: Lane,
    started: Instant,
    is_alone: bool,
    is_probe: bool,
    /// At first all entries; then one after the other, each with rows of different people.
    rounds: Vec<Vec<Slice>>,
}

impl Run {
    /// `is_alone`: one row, which may write although an operation is in doubt. `is_probe`: this one tries whether a halt is over.
    pub(super) fn new(ctx: Arc<Context>, claim: Claim, is_alone: bool, is_probe: bool) -> Self {
        let mut run = Self {
            ctx,
            token: claim.token,
            lane: claim.lane,
            started: Instant::now(),
            is_alone,
            is_probe,
            rounds: Vec::new(),
        };
        // Boxed: a thousand bytes each, which go from list to list.
        let entries = claim.entries.into_iter();
        let works: Vec<_> = entries.map(|entry| Box::new(Work::new(entry))).collect();
        let is_long = works.len() > FEW;
        run.rounds = vec![vec![run.slice(works, is_long)]];
        run
    }

    /// Takes every entry to its end. An error leaves entries unsettled: [`Run::give_back`] returns them.
    pub(super) async fn go(&mut self) -> Result<(), InboxError> {
        let mut left = Vec::new();
        let (ctx, lane) = (Arc::clone(&self.ctx), self.lane);
        for whole in self.slices() {
            let all: Members = (0..whole.works.len()).collect();
            let expected = Expected::of(&ctx, lane, all.len());
            whole.read_rows(&all).await?;
            whole.settle().await?;
            if whole.works.iter().any(|work| work.is_put_off()) {
                ctx.some_are_young.store(true, Ordering::Relaxed);
            }
            whole.look_up_in_the_list(lane, expected).await?;
            left.extend(whole.works.extract_if(.., |work| work.in_run()));
        }
        // One asks for all slices. What is wrong with it and passes, each of them will be told.
        if left.len() > FEW
            && self.ctx.gate.closed().is_none()
            && let Err(Some(failure)) = self.ctx.pipeline(ctx.tempo.pipelines_for).await?
        {
            ctx.judge(&failure, Asked::NOTHING).await?;
        }
        self.rounds = self.cut(left);

        let mut outcome = Ok(());
        for round in &mut self.rounds {
            let mut slices = Vec::new();
            for slice in round {
                slices.push(slice.go());
            }
            for ended in at_once(PARALLEL_SLICES, slices).await {
                outcome = outcome.and(ended);
            }
        }
        outcome
    }

    /// Returns whatever is still claimed, with what is known of it by now.
    pub(super) async fn give_back(&mut self) -> Result<(), InboxError> {
        for slice in self.slices() {
            slice.give_back().await?;
        }
        Ok(())
    }

    /// Another process holds this row now: whatever we know of it is void.
    pub(super) fn let_go(&mut self, row: RowId) {
        for slice in self.slices() {
            slice.let_go(row);
        }
    }

    fn slices(&mut self) -> impl Iterator<Item = &mut Slice> {
        self.rounds.iter_mut().flatten()
    }

    fn slice(&self, works: Vec<Box<Work>>, is_long: bool) -> Slice {
        let amocrm = &self.ctx.amocrm;
        Slice {
            ctx: Arc::clone(&self.ctx),
            amocrm: if is_long {
                amocrm.patient()
            } else {
                amocrm.clone()
            },
            is_long,
            is_alone: self.is_alone,
            is_probe: self.is_probe,
            token: self.token,
            works,
            started: self.started,
            leads: None,
            follows: None,
        }
    }

    /// Further rows of a person go in a round of their own, which finds what the first has made. Whoever has begun goes
    /// before anybody else of the same person.
    fn cut(&self, mut works: Vec<Box<Work>>) -> Vec<Vec<Slice>> {
        let is_long = works.len() > FEW;
        works.sort_by_key(|work| !work.progress.crm_work_is_open());
        let mut people = HashSet::new();
        let (first, further): (Vec<_>, Vec<_>) = works
            .into_iter()
            .partition(|work| work.progress.person.is_none_or(|who| people.insert(who)));

        let mut round = self.slices_of(first, is_long);
        if let [vanguard, rest @ ..] = round.as_mut_slice() {
            let has_come_through = CancellationToken::new();
            for slice in rest {
                slice.follows = Some(has_come_through.clone());
            }
            vanguard.leads = Some(has_come_through.drop_guard());
        }
        vec![round, self.slices_of(further, is_long)]
    }

    fn slices_of(&self, works: Vec<Box<Work>>, is_long: bool) -> Vec<Slice> {
        // Whoever is searched for takes a request: a slice of many would be old before it writes.
        let (known, sought): (Vec<_>, Vec<_>) = works.into_iter().partition(|work| {
            work.progress.choice.is_some() || matches!(work.listed, Listed::Wholly(_))
        });
        let large = slice_size(
            self.ctx.amocrm.requests_per_second(),
            self.ctx.settings.batch_size,
            self.ctx.tempo.fresh_for,
        );
        let mut slices = Vec::new();
        for (works, size) in [(known, large), (sought, SMALLEST_SLICE)] {
            let mut works = works.into_iter().peekable();
            while works.peek().is_some() {
                let size = if slices.is_empty() { VANGUARD } else { size };
                let slice = works.by_ref().take(size).collect();
                slices.push(self.slice(slice, is_long));
            }
        }
        slices
    }
}

/// Two slices take turns at amoCRM; what each reads is to be written within half the time that it stays fresh.
fn slice_size(requests_per_second: usize, batch_size: usize, fresh_for: Duration) -> usize {
    let millis = usize::try_from(fresh_for.as_millis()).unwrap_or(usize::MAX);
    let requests = requests_per_second.saturating_mul(millis) / (2 * ASKING_SLICES * 1_000);
    let rows = batch_size.saturating_mul(requests.saturating_sub(READS));
    rows.clamp(SMALLEST_SLICE, LARGEST_SLICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_as_large_as_its_reads_stay_fresh() {
        let size = |rate, batch| slice_size(rate, batch, Duration::from_secs(10));
        let table = [
            (7, 50, 500),
            (6, 50, 500),
            (3, 50, 150),
            (1, 50, 50),
            (7, 250, 500),
            (7, 10, 130),
            (7, 1, 50),
        ];
        for (rate, batch, rows) in table {
            assert_eq!(size(rate, batch), rows, "{rate} a second, {batch} a batch");
        }
    }
}
