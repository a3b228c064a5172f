//! A change to the inbox: what it does within the transaction of its group, and how it is answered after the commit.

use std::{iter::Peekable, mem, sync::Arc, time::Duration, vec};

use jiff::Timestamp;
use sqlx::SqliteConnection;
use tokio::sync::oneshot;

use super::{Handover, Orphans};
use crate::{
    domain::{KeyedHash, RowId},
    inbox::{
        Arrival, BackfillId, ClaimToken, InboxError, Mark, Revival, Settled, Stored, Wanted,
        bounds::GONE_KEPT,
        sqlite::{store::store, upkeep, verbs},
    },
};

pub(in crate::inbox) type Reply<T> = oneshot::Sender<Result<T, InboxError>>;

/// A change, and where its answer goes.
#[derive(Debug)]
pub(in crate::inbox) enum Command {
    Store(Vec<Arrival>, Reply<Vec<Stored>>),
    Claim(Wanted, Reply<Option<Handover>>),
    Checkpoint(ClaimToken, Vec<Mark>, Reply<()>),
    Settle(ClaimToken, Vec<Settled>, Reply<()>),
    Revive(Revival, Reply<u64>),
    Release(ClaimToken, Timestamp, Reply<()>),
    Park(Vec<RowId>, Reply<u64>),
    BeginBackfill(Reply<BackfillId>),
    SetState(&'static str, String, Reply<()>),
    ClearState(&'static str, Reply<()>),
    AddWorkingTime(Duration, Reply<()>),
    PurgeDone(Timestamp, Reply<u64>),
    Forget(Vec<RowId>, Vec<KeyedHash>, Reply<u64>),
    /// Write what waits, close the file, end.
    Close(Reply<()>),
}

/// Sends the answer of one command, once it is known whether its group was committed.
pub(super) type Answer = Box<dyn FnOnce(Result<(), Arc<sqlx::Error>>) + Send>;

/// What a group brings about once it is committed.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) wakes: bool,
    pub(super) work: Option<i64>,
    /// A command met a database error of its own, although its group was committed.
    pub(super) ailing: bool,
}

/// Runs one command, or all the stores that follow each other, and answers whether it failed.
pub(super) async fn run(
    conn: &mut SqliteConnection,
    now: Timestamp,
    command: Command,
    following: &mut Peekable<vec::IntoIter<Command>>,
    orphans: &Orphans,
    effects: &mut Effects,
) -> (Answer, bool) {
    match command {
        Command::Store(arrivals, reply) => {
            let (arrivals, replies) = merge_stores(arrivals, reply, following);
            let outcome = store(conn, now, &arrivals).await;
            effects.wakes |= outcome.as_ref().is_ok_and(|(_, wakes)| *wakes);
            effects.note(&outcome);
            let failed = outcome.is_err();
            let outcome = outcome.map(|(stored, _)| stored);
            (
                Box::new(|committed| answer_stores(replies, outcome, committed)),
                failed,
            )
        }
        Command::Claim(wanted, reply) => {
            let outcome = verbs::claim(conn, now, &wanted).await;
            let handover = |claim| Handover {
                claim: Some(claim),
                orphans: Arc::clone(orphans),
            };
            effects.answer(reply, outcome.map(|claim| claim.map(handover)))
        }
        Command::Checkpoint(token, marks, reply) => {
            let outcome = verbs::checkpoint(conn, now, token, &marks).await;
            effects.answer(reply, outcome)
        }
        Command::Settle(token, ends, reply) => {
            let outcome = verbs::settle(conn, now, token, &ends).await;
            effects.answer(reply, outcome)
        }
        Command::Revive(whom, reply) => {
            let outcome = verbs::revive(conn, now, &whom).await;
            effects.wakes |= outcome.as_ref().is_ok_and(|revived| *revived > 0);
            effects.answer(reply, outcome)
        }
        Command::Release(token, due_at, reply) => {
            let outcome = verbs::release(conn, now, due_at, &[token]).await;
            effects.wakes |= outcome.is_ok();
            effects.answer(
                reply,
                outcome.map_err(|source| InboxError::Database {
                    what: "give entries back",
                    source,
                }),
            )
        }
        Command::Park(rows, reply) => {
            let outcome = verbs::park(conn, now, &rows).await;
            effects.wakes |= outcome.as_ref().is_ok_and(|parked| *parked > 0);
            effects.answer(reply, outcome)
        }
        Command::BeginBackfill(reply) => {
            let outcome = upkeep::begin_backfill(conn).await;
            effects.answer(reply, outcome)
        }
        Command::SetState(key, value, reply) => {
            let outcome = upkeep::set_state(conn, key, &value).await;
            effects.answer(reply, outcome)
        }
        Command::ClearState(key, reply) => {
            let outcome = upkeep::clear_state(conn, key).await;
            effects.answer(reply, outcome)
        }
        Command::AddWorkingTime(by, reply) => {
            let outcome = upkeep::add_working_time(conn, by).await;
            effects.work = outcome.as_ref().ok().copied().or(effects.work);
            effects.answer(reply, outcome.map(drop))
        }
        Command::PurgeDone(before, reply) => {
            let gone_before = now.saturating_sub(GONE_KEPT).unwrap_or(Timestamp::MIN);
            let outcome = upkeep::purge_done(conn, before, gone_before).await;
            effects.answer(reply, outcome)
        }
        Command::Forget(rows, people, reply) => {
            let outcome = upkeep::forget(conn, &rows, &people).await;
            effects.answer(reply, outcome)
        }
        // Handled by the writer itself, which must remember whom to tell.
        Command::Close(reply) => effects.answer(reply, Ok(())),
    }
}

/// How many arrivals of a merged store are whose.
type StoreReplies = Vec<(usize, Reply<Vec<Stored>>)>;

fn merge_stores(
    mut arrivals: Vec<Arrival>,
    reply: Reply<Vec<Stored>>,
    following: &mut Peekable<vec::IntoIter<Command>>,
) -> (Vec<Arrival>, StoreReplies) {
    let mut replies = vec![(arrivals.len(), reply)];
    while let Some(Command::Store(..)) = following.peek() {
        if let Some(Command::Store(more, reply)) = following.next() {
            replies.push((more.len(), reply));
            arrivals.extend(more);
        }
    }
    (arrivals, replies)
}

fn answer_stores(
    replies: StoreReplies,
    outcome: Result<Vec<Stored>, InboxError>,
    committed: Result<(), Arc<sqlx::Error>>,
) {
    let outcome = outcome.map_err(shared);
    let mut rest = match (committed, outcome) {
        (Err(error), _) | (Ok(()), Err(error)) => {
            for (_, reply) in replies {
                let _ = reply.send(Err(not_written(&error)));
            }
            return;
        }
        (Ok(()), Ok(stored)) => stored,
    };
    for (count, reply) in replies {
        let later = rest.split_off(count);
        // A receiver that has hung up will be sent the row again, and told that it is a duplicate.
        let _ = reply.send(Ok(mem::replace(&mut rest, later)));
    }
}

impl Effects {
    fn note<T>(&mut self, outcome: &Result<T, InboxError>) {
        self.ailing |= matches!(outcome, Err(InboxError::Database { .. }));
    }

    fn answer<T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        outcome: Result<T, InboxError>,
    ) -> (Answer, bool) {
        self.note(&outcome);
        let failed = outcome.is_err();
        let answer: Answer = Box::new(move |committed| {
            let outcome = committed.map_err(|error| not_written(&error)).and(outcome);
            // Whoever asked may have gone: what is written stays written.
            let _ = reply.send(outcome);
        });
        (answer, failed)
    }
}

impl Command {
    /// Whether it brings, takes or moves entries.
    pub(super) fn is_about_entries(&self) -> bool {
        matches!(
            self,
            Self::Store(..)
                | Self::Claim(..)
                | Self::Checkpoint(..)
                | Self::Settle(..)
                | Self::Release(..)
        )
    }

    /// Answers a command that was not reached before its group failed. Closing does not fail: answers whom to tell.
    pub(super) fn refuse(self, error: &Arc<sqlx::Error>) -> Option<Reply<()>> {
        fn send<T>(reply: Reply<T>, error: &Arc<sqlx::Error>) {
            let _ = reply.send(Err(not_written(error)));
        }
        match self {
            Self::Store(_, reply) => send(reply, error),
            Self::Claim(_, reply) => send(reply, error),
            Self::BeginBackfill(reply) => send(reply, error),
            Self::Revive(_, reply)
            | Self::Park(_, reply)
            | Self::PurgeDone(_, reply)
            | Self::Forget(_, _, reply) => {
                send(reply, error);
            }
            Self::Checkpoint(_, _, reply)
            | Self::Settle(_, _, reply)
            | Self::SetState(_, _, reply)
            | Self::ClearState(_, reply)
            | Self::Release(_, _, reply)
            | Self::AddWorkingTime(_, reply) => send(reply, error),
            Self::Close(reply) => return Some(reply),
        }
        None
    }
}

/// One error for many: each gets an own one that carries the same cause.
fn not_written(error: &Arc<sqlx::Error>) -> InboxError {
    InboxError::Database {
        what: "write to its file",
        source: sqlx::Error::Io(std::io::Error::other(Arc::clone(error))),
    }
}

fn shared(error: InboxError) -> Arc<sqlx::Error> {
    Arc::new(match error {
        InboxError::Database { source, .. } => source,
        other => sqlx::Error::Io(std::io::Error::other(other)),
    })
}
