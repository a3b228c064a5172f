//! What the writer is asked to do.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use sqlx::SqliteConnection;
use tokio::sync::oneshot;

use super::{Handover, Orphans};
use crate::inbox::{Arrival, Claim, InboxError, Stored, commands::store::store};

pub(in crate::inbox) type Reply<T> = oneshot::Sender<Result<T, InboxError>>;

pub(in crate::inbox) enum Command {
    /// Those of one group are one change.
    Store(Vec<Arrival>, Reply<Vec<Stored>>),
    Change(Box<dyn Change>),
    /// Write what waits, close the file, end.
    Close(Reply<()>),
}

/// A change to the inbox: it runs in the transaction of its group, and is answered after the commit.
pub(in crate::inbox) trait Change: Send {
    /// Returns whether its writes shall stay.
    fn run<'t>(&'t mut self, turn: &'t mut Turn<'_>) -> BoxFuture<'t, bool>;

    /// `committed`: whether its group is on disk. A change that was not reached before its group failed has not run.
    fn answer(self: Box<Self>, committed: Result<(), InboxError>);
}

/// What a change works with.
pub(in crate::inbox) struct Turn<'w> {
    pub(in crate::inbox) conn: &'w mut SqliteConnection,
    pub(in crate::inbox) now: Timestamp,
    pub(in crate::inbox) effects: &'w mut Effects,
    pub(super) orphans: &'w Orphans,
}

impl Turn<'_> {
    pub(in crate::inbox) fn hand_over(&self, claim: Claim) -> Handover {
        Handover {
            claim: Some(claim),
            orphans: Arc::clone(self.orphans),
        }
    }
}

/// What a group brings about once it is committed.
#[derive(Debug, Default)]
pub(in crate::inbox) struct Effects {
    /// An entry can be claimed sooner than before.
    pub(in crate::inbox) wakes: bool,
    /// A change brings, takes or moves entries.
    pub(in crate::inbox) is_about_entries: bool,
    /// When an event was stored.
    pub(in crate::inbox) last_event: Option<Timestamp>,
    /// A change met a database error of its own, although its group was committed.
    pub(super) is_ailing: bool,
}

struct Asked<T, W, A> {
    /// Until it has run.
    work: Option<W>,
    outcome: Option<Result<T, InboxError>>,
    answer: A,
}

/// A change that does this work, and gives its outcome to `answer`.
pub(in crate::inbox) fn change<T, W, A>(work: W, answer: A) -> Box<dyn Change>
where
    T: Send + 'static,
    W: for<'t> FnOnce(&'t mut Turn<'_>) -> BoxFuture<'t, Result<T, InboxError>> + Send + 'static,
    A: FnOnce(Result<T, InboxError>) + Send + 'static,
{
    Box::new(Asked {
        work: Some(work),
        outcome: None,
        answer,
    })
}

impl<T, W, A> Change for Asked<T, W, A>
where
    T: Send,
    W: for<'t> FnOnce(&'t mut Turn<'_>) -> BoxFuture<'t, Result<T, InboxError>> + Send,
    A: FnOnce(Result<T, InboxError>) + Send,
{
    fn run<'t>(&'t mut self, turn: &'t mut Turn<'_>) -> BoxFuture<'t, bool> {
        Box::pin(async move {
            let Some(work) = self.work.take() else {
                return false;
            };
            let outcome = work(turn).await;
            let is_ailing = matches!(outcome, Err(InboxError::Database { .. }));
            turn.effects.is_ailing |= is_ailing;
            self.outcome.insert(outcome).is_ok()
        })
    }

    fn answer(self: Box<Self>, committed: Result<(), InboxError>) {
        let outcome = self.outcome.unwrap_or(Err(InboxError::Closed));
        (self.answer)(committed.and(outcome));
    }
}

/// All stores of a group. A sender that has hung up sends its row again, which is then a duplicate.
pub(super) fn stores(
    arrivals: Vec<Arrival>,
    replies: Vec<(usize, Reply<Vec<Stored>>)>,
) -> Box<dyn Change> {
    let answer = |outcome: Result<Vec<Stored>, InboxError>| {
        let mut stored = outcome.map(Vec::into_iter);
        for (count, reply) in replies {
            let part = match &mut stored {
                Ok(stored) => Ok(stored.take(count).collect()),
                Err(error) => Err(error.clone()),
            };
            let _ = reply.send(part);
        }
    };
    change(
        move |turn| Box::pin(async move { store(turn, &arrivals).await }),
        answer,
    )
}
