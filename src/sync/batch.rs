//! Rows that go through the steps together: what they share, how their failures are told apart, how their ends are stored.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use amocrm::{AmoCrm, AmoError, ById, Contact, Deal};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Context,
    failure::{Asked, Chain, Failure, Verdict},
    report,
    row::{Ended, InHand, StepResult},
    rules::timings::{GIVEN_UP_AFTER, later},
    sending::Blocked,
};
use crate::{
    domain::{ContactId, DealId, Operation, RowId},
    inbox::{ClaimToken, Fact, InboxError, Mark, Settled, Settlement},
};

/// A row is parked after this many attempts, over some minutes, whose answers cannot be read.
const UNREADABLE_TRIES: u32 = 5;

/// In a batch of a long run: the throttle limits the rate, so more in flight would only hold memory.
const PARALLEL_SEARCHES: usize = 8;
/// In a batch of a short run: its requests have no background priority, so more of them would delay another batch's
/// writes, which must begin soon after its reads.
const PARALLEL_SEARCHES_OF_FEW: usize = 4;

/// How the entries of a claim are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    Usual,
    /// One row, which has been refused before. It may write although an operation is in doubt.
    Alone,
    /// As [`Treatment::Alone`], and no other run may begin beside it.
    Exclusive,
    /// As [`Treatment::Exclusive`], during a halt, to find out whether the halt is over.
    Probe,
}

impl Treatment {
    pub(super) fn is_alone(self) -> bool {
        self != Self::Usual
    }
}

/// What the rows of a batch share.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) ctx: Arc<Context>,
    /// With background priority when the run is a long one.
    pub(super) amocrm: AmoCrm,
    pub(super) token: ClaimToken,
    pub(super) started: Instant,
    /// The rows that the batch began with.
    pub(super) rows: Arc<HashSet<RowId>>,
    /// The run has more than `contacts::FEW` rows.
    pub(super) is_long: bool,
    pub(super) treatment: Treatment,
}

impl Batch {
    pub(super) fn now(&self) -> Timestamp {
        self.ctx.clock.now()
    }

    pub(super) fn parallel_searches(&self) -> usize {
        if self.is_long {
            PARALLEL_SEARCHES
        } else {
            PARALLEL_SEARCHES_OF_FEW
        }
    }

    /// Why no step may begin.
    fn blocked(&self) -> Option<Blocked> {
        let blocked = self.ctx.sending.blocked()?;
        let is_probed = self.treatment == Treatment::Probe
            && matches!(
                blocked,
                Blocked::Halted {
                    is_paused: false,
                    ..
                }
            );
        (!is_probed).then_some(blocked)
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked().is_some()
    }

    /// Passes on the rows of a step that is about to begin, or ends all of them if sending is blocked.
    pub(super) fn begin<T: InHand>(&self, rows: Vec<T>) -> StepResult<T> {
        self.again_if(self.is_blocked(), &Fact::SendingStopped, rows)
    }

    /// While an operation is in doubt, no batch begins its searches or its writes to amoCRM: rows go one at a time.
    pub(super) fn stay_back<T: InHand>(&self, rows: Vec<T>) -> StepResult<T> {
        let is_to_wait = !self.treatment.is_alone() && self.ctx.doubts.is_in_doubt();
        self.again_if(is_to_wait, &Fact::OneAtATime, rows)
    }

    fn again_if<T: InHand>(&self, is_to_end: bool, why: &Fact, rows: Vec<T>) -> StepResult<T> {
        let now = self.now();
        let again = |row: T| row.again_at(now, why.clone());
        let (ended, next) = if is_to_end {
            (rows, Vec::new())
        } else {
            (Vec::new(), rows)
        };
        StepResult {
            next,
            ended: ended.into_iter().map(again).collect(),
        }
    }

    /// Records that the operation worked for these rows.
    pub(super) async fn answered<'a, T: InHand + 'a>(
        &self,
        operation: Operation,
        rows: impl IntoIterator<Item = &'a T>,
    ) -> Result<(), InboxError> {
        if self.ctx.doubts.are_none() {
            return Ok(());
        }
        let begun = self.started.into_std();
        let ids: Vec<RowId> = rows.into_iter().map(InHand::id).collect();
        for row in ids {
            self.ctx.worked(operation, row, begun).await?;
        }
        Ok(())
    }

    /// Sends a request about these rows, and returns the rows with its answer. If the request fails, all of the rows
    /// end.
    pub(super) async fn ask<T: InHand, A>(
        &self,
        operation: Operation,
        rows: Vec<T>,
        request: impl Future<Output = Result<A, AmoError>>,
        ended: &mut Vec<Ended>,
    ) -> Result<Option<(Vec<T>, A)>, InboxError> {
        match request.await {
            Ok(answer) => {
                self.answered(operation, &rows).await?;
                Ok(Some((rows, answer)))
            }
            Err(error) => {
                ended.extend(self.fail(operation, rows, error).await?);
                Ok(None)
            }
        }
    }

    /// Reads the deals that these rows name. A row ends if one of its deals cannot be read.
    pub(super) async fn read_deals<T: InHand>(
        &self,
        rows: Vec<T>,
        ids: impl Fn(&T) -> Vec<DealId>,
        ended: &mut Vec<Ended>,
    ) -> Result<Option<(Vec<T>, HashMap<DealId, Deal>)>, InboxError> {
        let wanted = distinct(rows.iter().flat_map(&ids));
        let request = self.amocrm.all_deals(&wanted);
        let asked = self.ask(Operation::ReadDeals, rows, request, ended).await?;
        Ok(asked.map(|(rows, found)| {
            let unreadable = |row: &T| {
                let mut ids = ids(row).into_iter();
                let id = ids.find(|id| is_unknown(&found, id, DealId::get))?;
                Some(format!("сделка {id}"))
            };
            (self.readable(rows, unreadable, ended), found.items)
        }))
    }

    /// As [`Batch::read_deals`], of contacts.
    pub(super) async fn read_contacts<T: InHand>(
        &self,
        rows: Vec<T>,
        ids: impl Fn(&T) -> Vec<ContactId>,
        ended: &mut Vec<Ended>,
    ) -> Result<Option<(Vec<T>, HashMap<ContactId, Contact>)>, InboxError> {
        let wanted = distinct(rows.iter().flat_map(&ids));
        let request = self.amocrm.all_contacts(&wanted);
        let asked = self.ask(Operation::ReadContacts, rows, request, ended);
        Ok(asked.await?.map(|(rows, found)| {
            let unreadable = |row: &T| {
                let mut ids = ids(row).into_iter();
                let id = ids.find(|id| is_unknown(&found, id, ContactId::get))?;
                Some(format!("контакт {id}"))
            };
            (self.readable(rows, unreadable, ended), found.items)
        }))
    }

    /// Ends the rows for which something could not be read, and returns the others.
    fn readable<T: InHand>(
        &self,
        rows: Vec<T>,
        unreadable: impl Fn(&T) -> Option<String>,
        ended: &mut Vec<Ended>,
    ) -> Vec<T> {
        let mut readable = Vec::new();
        for row in rows {
            match unreadable(&row) {
                Some(what) => ended.push(self.unreadable(row, &what)),
                None => readable.push(row),
            }
        }
        readable
    }

    /// Ends rows for which the operation failed, as the failure's verdict says. `None`: the request was about no row.
    ///
    /// If a refusal of several rows at once leaves them in doubt, the first row is held in doubt for all of them. The
    /// others are tried again, one at a time.
    pub(super) async fn fail<T: InHand>(
        &self,
        operation: impl Into<Option<Operation>>,
        rows: Vec<T>,
        failure: impl Into<Failure>,
    ) -> Result<Vec<Ended>, InboxError> {
        let (operation, failure) = (operation.into(), failure.into());
        let ids: Vec<RowId> = rows.iter().map(InHand::id).collect();
        let asked = Asked {
            operation,
            // A 403 to a request about no row blames no row.
            rows: if operation.is_some() { &ids } else { &[] },
            is_alone: self.goes_alone(operation, rows.len()),
        };
        let verdict = self.ctx.classify(&failure, asked).await?;
        let reason = failure.reason();
        let verdict = match verdict {
            Verdict::Park if operation.is_none() => Verdict::Retry { after: None },
            // If a read is refused for this row, no read can resolve its write in doubt: a person must.
            Verdict::Park if operation.is_some_and(|it| !it.is_write()) => Verdict::SetAside,
            // A request about several rows may have been refused because of any one of them.
            Verdict::Park | Verdict::SetAside if rows.len() > 1 => Verdict::NotItsFault,
            verdict => verdict,
        };
        let of_others = match verdict {
            Verdict::InDoubt => Verdict::NotItsFault,
            verdict => verdict,
        };
        let ended = rows.into_iter().enumerate().map(|(place, row)| {
            let verdict = if place == 0 { &verdict } else { &of_others };
            self.end_by(row, verdict, &reason)
        });
        Ok(ended.collect())
    }

    /// Whether the request and the attempt were about one row only. Requests for other rows of a batch begin before the
    /// refusal is known, so their success proves nothing about it.
    fn goes_alone(&self, operation: Option<Operation>, rows: usize) -> bool {
        let is_only_row = self.treatment.is_alone() || self.rows.len() == 1;
        rows == 1 && (is_only_row || operation == Some(Operation::WriteBack))
    }

    pub(super) fn end_by<T: InHand>(&self, mut row: T, verdict: &Verdict, reason: &str) -> Ended {
        let now = self.now();
        let timings = &self.ctx.timings;
        let attempts = row.attempt().entry.attempts;
        let has_open_write = row.attempt().progress.step.resolve_after().is_some();
        let after = match verdict {
            Verdict::NotItsFault => {
                let failed = Fact::Failed(reason.to_owned());
                return row.again_at(later(now, timings.person_busy), failed);
            }
            Verdict::SetAside => return row.park(reason),
            // A write in doubt is resolved before the row is parked.
            Verdict::Park if !has_open_write => return row.park(reason),
            Verdict::Park | Verdict::InDoubt => {
                row.attempt_mut().progress.alone = true;
                None
            }
            Verdict::Retry { after } => {
                if attempts.saturating_add(1) >= GIVEN_UP_AFTER && !has_open_write {
                    return row.park(format!("не удаётся обработать слишком долго: {reason}"));
                }
                *after
            }
        };
        let pause = timings.backoff(attempts, after, (self.ctx.jitter)());
        row.end(Settlement::Again {
            due_at: later(now, pause),
            failed: true,
            reason: Some(reason.to_owned()),
        })
    }

    /// Ends the row as after an error that is retried.
    pub(super) fn retry<T: InHand>(&self, row: T, reason: &str) -> Ended {
        self.end_by(row, &Verdict::Retry { after: None }, reason)
    }

    /// The answer for the row cannot be read, so what it holds is unknown, never missing. The row is retried, and
    /// parked after [`UNREADABLE_TRIES`].
    pub(super) fn unreadable<T: InHand>(&self, mut row: T, what: &str) -> Ended {
        let reason = format!("ответ amoCRM не удалось прочитать: {what}");
        let progress = &mut row.attempt_mut().progress;
        progress.unreadable = progress.unreadable.saturating_add(1);
        if progress.unreadable < UNREADABLE_TRIES {
            return self.retry(row, &reason);
        }
        progress.unreadable = 0;
        // A write in doubt stays on record, and is looked for when a person retries the row.
        row.park(reason)
    }

    // ---- storing ----

    /// Stores progress before the rows go on.
    pub(super) async fn checkpoint<T: InHand>(&self, rows: &[T]) -> Result<(), InboxError> {
        if rows.is_empty() {
            return Ok(());
        }
        let marks = rows.iter().map(|row| row.attempt().mark()).collect();
        self.ctx.inbox.checkpoint(self.token, marks).await
    }

    /// As [`Batch::checkpoint`], of progress that amoCRM's answers have brought: retries until the inbox has stored it.
    pub(super) async fn keep<T: InHand>(&self, rows: &[T]) -> Result<(), InboxError> {
        let marks: Vec<Mark> = rows.iter().map(|row| row.attempt().mark()).collect();
        let store = |marks| self.ctx.inbox.checkpoint(self.token, marks);
        match self.until_stored(marks, |mark| mark.row, store).await? {
            // The row goes no further, and the others are released.
            Some(row) => Err(InboxError::ClaimLost { row }),
            None => Ok(()),
        }
    }

    /// Stores the ends of a step, releases their person locks, and returns the other rows.
    pub(super) async fn settle<T>(&self, step: StepResult<T>) -> Result<Vec<T>, InboxError> {
        self.end(step.ended).await?;
        Ok(step.next)
    }

    pub(super) async fn end(&self, ended: Vec<Ended>) -> Result<(), InboxError> {
        let now = self.now();
        let ended: Vec<Ended> = ended
            .into_iter()
            .map(|end| end.before_an_undo(now))
            .collect();
        let ends = ended.iter().map(|end| Settled {
            row: end.attempt.row(),
            progress: end.attempt.progress.clone(),
            settlement: end.settlement.clone(),
            facts: end.facts(),
        });
        let store = |ends| self.ctx.inbox.settle(self.token, ends);
        self.until_stored(ends.collect(), |end| end.row, store)
            .await?;
        let decided = ended.iter().filter(|end| end.is_decided());
        let decided: Vec<RowId> = decided.map(|end| end.attempt.row()).collect();
        self.ctx.is_decided(&decided).await?;
        for end in &ended {
            report::attempt(end, self.started.elapsed(), self.now());
        }
        let count = u64::try_from(ended.len()).unwrap_or(u64::MAX);
        drop(ended);
        self.ctx
            .settled
            .send_modify(|settled| *settled = settled.wrapping_add(count));
        Ok(())
    }

    /// Retries until the inbox has stored these items, or the service stops. A row that another process has claimed
    /// meanwhile is left out, since what this one knows of it is void. Returns the last such row.
    async fn until_stored<T: Clone, F>(
        &self,
        mut items: Vec<T>,
        row_of: impl Fn(&T) -> RowId,
        store: impl Fn(Vec<T>) -> F,
    ) -> Result<Option<RowId>, InboxError>
    where
        F: Future<Output = Result<(), InboxError>>,
    {
        let mut lost = None;
        while !items.is_empty() {
            match store(items.clone()).await {
                Ok(()) => break,
                Err(error @ InboxError::ClaimLost { row }) => {
                    tracing::error!(row.id = %row, error = %Chain(&error), "sync.claim_lost");
                    lost = Some(row);
                    items.retain(|item| row_of(item) != row);
                }
                Err(error) => {
                    if self.ctx.trouble(&error).await {
                        return Err(error);
                    }
                }
            }
        }
        Ok(lost)
    }
}

/// Awaits all, at most `limit` of them at a time.
pub(super) async fn at_once<F: Future>(
    limit: usize,
    futures: impl IntoIterator<Item = F>,
) -> Vec<F::Output> {
    stream::iter(futures)
        .buffer_unordered(limit)
        .collect()
        .await
}

/// Distinct values, in order of appearance.
pub(super) fn distinct<T: Copy + Eq + Hash>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    let values = values.into_iter();
    values.filter(|value| seen.insert(*value)).collect()
}

/// The answer lacks the item, which may be one of those that could not be read.
pub(super) fn is_unknown<K: Copy + Eq + Hash, T>(
    found: &ById<K, T>,
    id: &K,
    number: impl Fn(K) -> i64,
) -> bool {
    found.get(id).is_none() && found.unreadable.may_be(number(*id))
}
