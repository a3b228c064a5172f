//! Bulk writes to amoCRM: one way for moves, creates and notes.
//!
//! Each row goes in with its item and comes back with its answer. The client pairs answers with items by `request_id` (moves
//! by the deal's id), whatever their order.

use std::{iter, mem, time::Duration};

use amocrm::{AmoError, COMPLEX_PER_WRITE};
use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::Operation;

/// How long the batches stay smaller after a gateway has given up on one.
const HALVED_FOR: Duration = Duration::from_mins(10);

/// How many items go into one bulk write: halved for a while each time a gateway gives up on a batch (504).
#[derive(Debug)]
pub(super) struct BatchSize {
    full: usize,
    /// The smaller size, and until when.
    halved: Mutex<Option<(usize, Instant)>>,
}

impl BatchSize {
    pub(super) fn new(full: usize) -> Self {
        Self {
            full: full.max(1),
            halved: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> usize {
        let halved = self.halved.lock().filter(|it| it.1 > Instant::now());
        halved.map_or(self.full, |(size, _)| size)
    }

    /// A gateway has given up on a batch of so many items. A single one says nothing of the size, and an outage must not
    /// bring it down to one.
    fn was_too_big(&self, items: usize) {
        if items < 2 {
            return;
        }
        let least = (self.full / 8).max(1);
        let size = self.now().min((items / 2).max(least));
        *self.halved.lock() = Some((size, Instant::now() + HALVED_FOR));
        tracing::warn!(size, "sync.batches_halved");
    }
}

/// The most items that amoCRM takes in one write, beside the batch size.
fn most(operation: Operation) -> usize {
    match operation {
        Operation::CreateWithContact => COMPLEX_PER_WRITE,
        _ => usize::MAX,
    }
}

/// The values of a move are absolute, so a batch whose fate is unknown may be sent again without a look.
fn may_repeat(operation: Operation) -> bool {
    operation == Operation::Move
}

#[derive(Debug, Clone)]
pub(super) struct Item<R, T> {
    pub(super) row: R,
    pub(super) body: T,
    /// Its batch is not begun later.
    pub(super) begin_by: Instant,
    /// It spoilt a batch before.
    pub(super) goes_alone: bool,
}

/// The rows of one request, each with its answer (`None`: its item is not in the answer), or with the failure.
pub(super) type Sent<R, M> = Result<Vec<(R, Option<M>)>, Failed<R>>;

#[derive(Debug)]
pub(super) struct Failed<R> {
    pub(super) rows: Vec<R>,
    pub(super) error: AmoError,
    /// A gateway gave up on an earlier request for these rows: that one may be carried out, whatever became of this one.
    pub(super) may_have_landed: bool,
}

/// Sends all items in batches, side by side. `request` answers for each of its items, in their order.
///
/// A batch that a gateway gives up on (504) is split and sent again if the write may be repeated.
pub(super) async fn write<R, T, M, F>(
    sizes: &BatchSize,
    operation: Operation,
    items: Vec<Item<R, T>>,
    request: impl Fn(Vec<T>, Instant) -> F,
) -> Vec<Sent<R, M>>
where
    T: Clone,
    F: Future<Output = Result<Vec<Option<M>>, AmoError>>,
{
    let begin = |batch: Vec<Item<R, T>>, may_have_landed: bool| {
        let begin_by = batch.iter().map(|item| item.begin_by).min();
        let bodies = batch.iter().map(|item| item.body.clone()).collect();
        let answer = request(bodies, begin_by.unwrap_or_else(Instant::now));
        async move { (batch, may_have_landed, answer.await) }
    };
    let size = sizes.now().min(most(operation));
    let batches = batches(items, size).into_iter();
    let mut at_work: FuturesUnordered<_> = batches.map(|batch| begin(batch, false)).collect();
    let mut sent = Vec::new();
    while let Some((mut batch, may_have_landed, answer)) = at_work.next().await {
        if answer.as_ref().is_err_and(AmoError::is_too_big) {
            sizes.was_too_big(batch.len());
        }
        match answer {
            Err(error) if error.is_too_big() && may_repeat(operation) && batch.len() > 1 => {
                let rest = batch.split_off(batch.len() / 2);
                at_work.push(begin(batch, true));
                at_work.push(begin(rest, true));
            }
            Err(error) => sent.push(Err(Failed {
                rows: rows(batch).collect(),
                error,
                may_have_landed,
            })),
            Ok(made) => {
                // An answer that is too short has left items out.
                let made = made.into_iter().chain(iter::repeat_with(|| None));
                sent.push(Ok(rows(batch).zip(made).collect()));
            }
        }
    }
    sent
}

fn rows<R, T>(items: Vec<Item<R, T>>) -> impl Iterator<Item = R> {
    items.into_iter().map(|item| item.row)
}

/// Batches of at most `size` items; an item that goes alone is one by itself.
fn batches<R, T>(items: Vec<Item<R, T>>, size: usize) -> Vec<Vec<Item<R, T>>> {
    let mut batches = Vec::new();
    let mut together = Vec::new();
    for item in items {
        if item.goes_alone {
            batches.push(vec![item]);
            continue;
        }
        together.push(item);
        if together.len() >= size.max(1) {
            batches.push(mem::take(&mut together));
        }
    }
    if !together.is_empty() {
        batches.push(together);
    }
    batches
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn items(count: u32) -> Vec<Item<u32, u32>> {
        let item = |n| Item {
            row: n,
            body: 100 + n,
            begin_by: Instant::now(),
            goes_alone: false,
        };
        (0..count).map(item).collect()
    }

    fn too_big() -> AmoError {
        AmoError::Server { status: 504 }
    }

    #[tokio::test]
    async fn each_answer_comes_with_the_row_of_its_item() {
        let mut items = items(7);
        items[1].goes_alone = true;
        let answer = |bodies: Vec<u32>, _| async move {
            Ok(bodies
                .into_iter()
                .map(|it| (it != 105).then_some(it))
                .collect())
        };
        let sent = write(&BatchSize::new(3), Operation::Move, items, answer).await;
        let answers: Vec<_> = sent.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.len(), 3, "{answers:?}");
        assert!(answers.contains(&vec![(1, Some(101))]), "{answers:?}");
        let mut answers: Vec<_> = answers.into_iter().flatten().collect();
        answers.sort_unstable();
        let expected = (0..7).map(|n| (n, (n != 5).then_some(100 + n)));
        assert_eq!(answers, expected.collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_batch_that_is_too_big_is_split_until_it_comes_through() {
        let sizes = BatchSize::new(50);
        let requests = RefCell::new(Vec::new());
        let answer = |bodies: Vec<u32>, _| {
            requests.borrow_mut().push(bodies.len());
            async move {
                if bodies.len() > 13 {
                    return Err(too_big());
                }
                Ok(bodies.into_iter().map(Some).collect())
            }
        };
        let sent = write(&sizes, Operation::Move, items(50), answer).await;
        let answers = sent.into_iter().flat_map(Result::unwrap);
        let mut rows: Vec<_> = answers.map(|(row, _)| row).collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..50).collect::<Vec<_>>());
        assert_eq!(requests.into_inner(), [50, 25, 25, 12, 13, 12, 13]);
        assert_eq!(sizes.now(), 12);
    }

    #[tokio::test]
    async fn a_batch_that_may_not_be_repeated_is_sent_once() {
        let sizes = BatchSize::new(50);
        let requests = RefCell::new(0);
        let answer = |_: Vec<u32>, _| {
            *requests.borrow_mut() += 1;
            async { Err::<Vec<Option<u32>>, _>(too_big()) }
        };
        let sent = write(&sizes, Operation::Note, items(20), answer).await;
        assert_eq!((sent.len(), *requests.borrow()), (1, 1));
        assert_eq!(sent[0].as_ref().unwrap_err().rows.len(), 20);
        // The items that prove to be absent go again in half batches.
        assert_eq!(sizes.now(), 10);
    }

    /// The whole batch may be carried out yet.
    #[tokio::test]
    async fn a_half_that_was_not_sent_after_all_is_still_in_doubt() {
        let answer = |bodies: Vec<u32>, _| async move {
            Err::<Vec<Option<u32>>, _>(if bodies.len() > 2 {
                too_big()
            } else {
                AmoError::TooLate
            })
        };
        for (count, is_in_doubt) in [(4, true), (2, false)] {
            let sent = write(&BatchSize::new(50), Operation::Move, items(count), answer).await;
            let failed: Vec<_> = sent.into_iter().map(Result::unwrap_err).collect();
            let of_all =
                |it: &Failed<u32>| it.error.was_not_applied() && it.may_have_landed == is_in_doubt;
            assert!(failed.iter().all(of_all), "{failed:?}");
            assert_eq!(failed.len(), count as usize / 2);
        }
    }

    #[tokio::test]
    async fn a_single_item_is_not_split() {
        let answer = |_: Vec<u32>, _| async { Err::<Vec<Option<u32>>, _>(too_big()) };
        let sent = write(&BatchSize::new(50), Operation::Move, items(1), answer).await;
        assert!(sent.len() == 1 && sent[0].is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_begins_as_early_as_its_most_urgent_item_must() {
        let mut items = items(3);
        let urgent = Instant::now() - std::time::Duration::from_secs(1);
        items[2].begin_by = urgent;
        let begun = RefCell::new(Vec::new());
        let answer = |bodies: Vec<u32>, begin_by| {
            begun.borrow_mut().push(begin_by);
            async move { Ok(bodies.into_iter().map(Some).collect::<Vec<_>>()) }
        };
        write(&BatchSize::new(50), Operation::Move, items, answer).await;
        assert_eq!(begun.into_inner(), [urgent]);
    }

    #[tokio::test(start_paused = true)]
    async fn batches_halve_with_each_that_was_too_big_and_are_full_again_after_a_while() {
        let size = BatchSize::new(50);
        size.was_too_big(50);
        size.was_too_big(25);
        assert_eq!(size.now(), 12);
        tokio::time::advance(HALVED_FOR / 2).await;
        size.was_too_big(12);
        tokio::time::advance(HALVED_FOR.mul_f64(0.99)).await;
        assert_eq!(size.now(), 6);
        tokio::time::advance(HALVED_FOR.mul_f64(0.02)).await;
        assert_eq!(size.now(), 50);
    }

    #[test]
    fn batches_halve_once_for_those_sent_before_and_neither_one_item_nor_an_outage_makes_them_tiny()
    {
        let size = BatchSize::new(50);
        size.was_too_big(1);
        assert_eq!(size.now(), 50);
        for _ in 0..3 {
            size.was_too_big(50);
        }
        assert_eq!(size.now(), 25);
        for _ in 0..9 {
            size.was_too_big(size.now());
        }
        assert_eq!(size.now(), 6);
        let size = BatchSize::new(1);
        size.was_too_big(2);
        assert_eq!(size.now(), 1);
    }
}
