//! The one task that writes. It takes whatever waits, runs it in one transaction, and answers only after the commit:
//! a burst costs few fsyncs, and an answer means *on disk*.
//!
//! Nobody else holds its connection and nobody can cancel it, so no transaction is ever left open half-way.

use std::{
    iter::Peekable,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
    vec,
};

use jiff::Timestamp;
use sqlx::SqliteConnection;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval},
};

use super::{
    Arrival, BackfillId, Claim, ClaimToken, InboxError, Lane, Mark, Revival, Settled, Stored,
    sqlite::{Link, store::store, upkeep, verbs},
};
use crate::domain::{DieAt, KeyedHash, RowId, SharedClock};

/// Commands that may wait: about a second's work of this writer on a slow disk.
pub(super) const MAX_WAITING: usize = 10_000;

/// Commands taken into one transaction.
const MAX_GROUP: usize = 512;

/// How often to look for changes by other processes, and whether writing works again.
const LOOK_AROUND: Duration = Duration::from_secs(1);

pub(super) type Reply<T> = oneshot::Sender<Result<T, InboxError>>;

/// A change, and where its answer goes.
#[derive(Debug)]
pub(super) enum Command {
    Store(Vec<Arrival>, Reply<Vec<Stored>>),
    Claim(u32, Option<Lane>, Reply<Option<Handover>>),
    Checkpoint(ClaimToken, Vec<Mark>, Reply<()>),
    Settle(ClaimToken, Vec<Settled>, Reply<()>),
    Revive(Revival, Reply<u64>),
    BeginBackfill(Reply<BackfillId>),
    SetState(&'static str, String, Reply<()>),
    ClearState(&'static str, Reply<()>),
    AddWorkingTime(Duration, Reply<()>),
    PurgeDone(Timestamp, Reply<u64>),
    Forget(Vec<RowId>, Vec<KeyedHash>, Reply<u64>),
    /// Write what waits, close the file, end.
    Close(Reply<()>),
}

/// What the writer tells everybody without being asked.
#[derive(Debug)]
pub(super) struct Signals {
    /// Whether the last group reached the disk.
    pub(super) accepts: watch::Sender<bool>,
    /// Something was stored, lifted, revived or given back, here or by another process.
    pub(super) changed: Notify,
    /// The working clock, in microseconds.
    pub(super) work: AtomicI64,
    /// Transactions committed.
    pub(super) commits: AtomicU64,
    death: Death,
}

impl Signals {
    pub(super) fn new(work: i64) -> Self {
        Self {
            accepts: watch::Sender::new(true),
            changed: Notify::new(),
            work: AtomicI64::new(work),
            commits: AtomicU64::new(0),
            death: Death::default(),
        }
    }

    #[cfg(feature = "sandbox")]
    pub(super) fn die_at(&self, at: DieAt) {
        // Only the first plan counts: one dies once.
        let _ = self.death.at.set(at);
    }
}

/// Claims that nobody took; the writer gives them back.
pub(super) type Orphans = Arc<Mutex<Vec<ClaimToken>>>;

/// A claim on its way to whoever asked. If it gets lost (the caller went away, the commit failed) its entries would lie
/// claimed until the next start, so it reports itself.
#[derive(Debug)]
pub(super) struct Handover {
    claim: Option<Claim>,
    orphans: Orphans,
}

impl Handover {
    pub(super) fn taken(mut self) -> Option<Claim> {
        self.claim.take()
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        let lost = self.claim.take().map(|claim| claim.token);
        lock(&self.orphans).extend(lost);
    }
}

fn lock(orphans: &Orphans) -> MutexGuard<'_, Vec<ClaimToken>> {
    orphans.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the answer of one command, once it is known whether its group was committed.
type Answer = Box<dyn FnOnce(Result<(), Arc<sqlx::Error>>) + Send>;

/// What a group brings about once it is committed.
#[derive(Debug, Default)]
struct Effects {
    wakes: bool,
    work: Option<i64>,
    /// A command met a database error of its own, although its group was committed.
    ailing: bool,
}

#[derive(Debug)]
pub(super) struct Writer {
    link: Link,
    commands: mpsc::Receiver<Command>,
    clock: SharedClock,
    signals: Arc<Signals>,
    orphans: Orphans,
    closers: Vec<Reply<()>>,
    /// The latest time seen.
    latest: Timestamp,
}

impl Writer {
    pub(super) fn new(
        link: Link,
        commands: mpsc::Receiver<Command>,
        clock: SharedClock,
        signals: Arc<Signals>,
    ) -> Self {
        Self {
            link,
            commands,
            latest: clock.now(),
            clock,
            signals,
            orphans: Orphans::default(),
            closers: Vec::new(),
        }
    }

    /// Ends when asked to close, or when the last handle is gone; what was sent before is written.
    pub(super) async fn run(mut self) {
        let mut look_around = interval(LOOK_AROUND);
        look_around.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut group = Vec::with_capacity(MAX_GROUP);
        loop {
            // Only waiting is raced here, never a database call.
            let taken = tokio::select! {
                taken = self.commands.recv_many(&mut group, MAX_GROUP) => Some(taken),
                _ = look_around.tick() => None,
            };
            match taken {
                Some(0) => break,
                Some(_) => self.write(mem::take(&mut group)).await,
                None => self.look_around().await,
            }
            if !self.closers.is_empty() {
                self.commands.close();
            }
        }
        if !lock(&self.orphans).is_empty() {
            self.write(Vec::new()).await;
        }
        self.signals.accepts.send_replace(false);
        self.link.close().await;
        for closer in self.closers {
            // Whoever asked may have gone: the file is closed all the same.
            let _ = closer.send(Ok(()));
        }
    }

    /// Writes a group and answers it. An empty one only shows whether writing works.
    async fn write(&mut self, group: Vec<Command>) {
        let is_about_entries = group.iter().any(Command::is_about_entries);
        let mut commands = group.into_iter().peekable();
        let mut answers = Vec::new();
        let mut effects = Effects::default();
        let orphans = mem::take(&mut *lock(&self.orphans));
        let committed = self
            .transact(
                &mut commands,
                is_about_entries,
                &orphans,
                &mut answers,
                &mut effects,
            )
            .await
            .map_err(Arc::new);
        if is_about_entries {
            self.signals.death.after_commit();
        }
        match &committed {
            Ok(()) => {
                self.signals.commits.fetch_add(1, Ordering::Relaxed);
                if let Some(work) = effects.work {
                    self.signals.work.store(work, Ordering::Relaxed);
                }
                if effects.wakes || !orphans.is_empty() {
                    self.signals.changed.notify_one();
                }
            }
            Err(error) => {
                tracing::error!(%error, "the inbox could not be written");
                self.link.drop_connection();
                lock(&self.orphans).extend(orphans);
                for command in commands {
                    self.closers.extend(command.refuse(error));
                }
            }
        }
        self.signals
            .accepts
            .send_replace(committed.is_ok() && !effects.ailing);
        for answer in answers {
            answer(committed.clone());
        }
    }

    /// One transaction. An `Err` is everybody's: nothing of the group is on disk, or nobody knows.
    async fn transact(
        &mut self,
        commands: &mut Peekable<vec::IntoIter<Command>>,
        is_about_entries: bool,
        orphans: &[ClaimToken],
        answers: &mut Vec<Answer>,
        effects: &mut Effects,
    ) -> Result<(), sqlx::Error> {
        let now = self.clock.now();
        let conn = self.link.conn().await?;
        execute(conn, "BEGIN IMMEDIATE").await?;
        verbs::release(conn, now, orphans).await?;
        if commands.peek().is_none() {
            upkeep::probe(conn).await?;
        }
        while commands.peek().is_some() {
            // A command that fails must not undo its neighbours.
            execute(conn, "SAVEPOINT command").await?;
            let failed = match commands.next() {
                None => false,
                Some(Command::Close(reply)) => {
                    self.closers.push(reply);
                    false
                }
                Some(command) => {
                    let (answer, failed) =
                        run(conn, now, command, commands, &self.orphans, effects).await;
                    answers.push(answer);
                    failed
                }
            };
            if failed {
                execute(conn, "ROLLBACK TO command").await?;
            }
            execute(conn, "RELEASE command").await?;
        }
        if is_about_entries {
            self.signals.death.before_commit();
        }
        execute(conn, "COMMIT").await
    }

    /// What nobody sends a command for: writing that works again, claims to give back, a clock that was put back,
    /// changes by other processes.
    async fn look_around(&mut self) {
        if let Err(error) = self.look_at_the_clock().await {
            tracing::warn!(%error, "the inbox could not be scheduled anew");
            self.link.drop_connection();
        }
        if !*self.signals.accepts.borrow() || !lock(&self.orphans).is_empty() {
            self.write(Vec::new()).await;
        }
        match self.link.look_for_others().await {
            Ok(None) => {}
            Ok(Some(work)) => {
                self.signals.work.store(work, Ordering::Relaxed);
                self.signals.changed.notify_one();
            }
            Err(error) => {
                tracing::warn!(%error, "the inbox could not be looked at");
                self.link.drop_connection();
            }
        }
    }
}

impl Writer {
    async fn look_at_the_clock(&mut self) -> Result<(), sqlx::Error> {
        let now = self.clock.now();
        if now.saturating_add(upkeep::STEP).unwrap_or(Timestamp::MAX) >= self.latest {
            self.latest = self.latest.max(now);
            return Ok(());
        }
        // An error leaves `latest` as it is: the next look tries again.
        if upkeep::reschedule(self.link.conn().await?, now).await? > 0 {
            self.signals.changed.notify_one();
        }
        self.latest = now;
        Ok(())
    }
}

async fn execute(conn: &mut SqliteConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(conn).await.map(drop)
}

/// Runs one command, or all the stores that follow each other, and answers whether it failed.
async fn run(
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
        Command::Claim(limit, only, reply) => {
            let outcome = verbs::claim(conn, now, limit, only).await;
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
            let outcome = upkeep::purge_done(conn, before).await;
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
    /// Answers a command that was not reached before its group failed. Closing does not fail: answers whom to tell.
    fn refuse(self, error: &Arc<sqlx::Error>) -> Option<Reply<()>> {
        fn send<T>(reply: Reply<T>, error: &Arc<sqlx::Error>) {
            let _ = reply.send(Err(not_written(error)));
        }
        match self {
            Self::Store(_, reply) => send(reply, error),
            Self::Claim(_, _, reply) => send(reply, error),
            Self::BeginBackfill(reply) => send(reply, error),
            Self::Revive(_, reply) | Self::PurgeDone(_, reply) | Self::Forget(_, _, reply) => {
                send(reply, error);
            }
            Self::Checkpoint(_, _, reply)
            | Self::Settle(_, _, reply)
            | Self::SetState(_, _, reply)
            | Self::ClearState(_, reply)
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

impl Command {
    /// Whether it brings, takes or moves entries.
    fn is_about_entries(&self) -> bool {
        matches!(
            self,
            Self::Store(..) | Self::Claim(..) | Self::Checkpoint(..) | Self::Settle(..)
        )
    }
}

/// The crash that a test may plan for one of the commits that are about entries.
#[derive(Debug, Default)]
struct Death {
    at: OnceLock<DieAt>,
    commits: AtomicU64,
}

impl Death {
    fn before_commit(&self) {
        let commit = self.commits.load(Ordering::Relaxed) + 1;
        self.die_if_planned(DieAt {
            commit,
            committed: false,
        });
    }

    fn after_commit(&self) {
        let commit = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        self.die_if_planned(DieAt {
            commit,
            committed: true,
        });
    }

    fn die_if_planned(&self, here: DieAt) {
        if self.at.get() == Some(&here) {
            std::process::abort();
        }
    }
}
