//! The one task that writes. It takes all waiting commands, runs them in one transaction, and answers only after the commit:
//! a burst costs few fsyncs, and an answer means *on disk*.
//!
//! No other task holds its connection and no caller can cancel it, so no transaction is left open half-way.

mod command;

use std::{
    mem,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use sqlx::SqliteConnection;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use self::command::{Change, Effects, Reply, stores};
pub(super) use self::command::{Command, Turn, change};
use super::{
    Activity, Claim, ClaimToken, InboxError, Writing,
    bounds::{self, Bounds, Space},
    maintenance,
    sqlite::Link,
};
use crate::domain::{DieAt, Heartbeat, SharedClock};

/// Commands that may wait: about a second's work of this writer on a slow disk.
pub(super) const MAX_WAITING: usize = 10_000;

/// Commands taken into one transaction.
const MAX_GROUP: usize = 512;

/// How often to look for changes by other processes, and whether writing works again.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Writes that fail for longer than this do not pass by themselves.
const LASTING_AFTER: Duration = Duration::from_mins(1);

/// What all handles may know of the writer.
#[derive(Debug)]
pub(super) struct Signals {
    pub(super) writing: watch::Sender<Writing>,
    /// How long writes fail before that is called lasting.
    pub(super) lasting_after: OnceLock<Duration>,
    /// Something was stored, lifted, revived or given back, here or by another process.
    pub(super) changed: Notify,
    pub(super) heartbeat: Heartbeat,
    /// Where a test wants the writer to hang.
    pub(super) hangs: AtomicBool,
    activity: Mutex<Activity>,
    /// Transactions committed.
    pub(super) commits: AtomicU64,
    death: Death,
}

impl Signals {
    pub(super) fn new(last_event: Option<Timestamp>) -> Self {
        let activity = Activity {
            event: last_event,
            ..Activity::default()
        };
        Self {
            writing: watch::Sender::new(Writing::Works),
            lasting_after: OnceLock::new(),
            changed: Notify::new(),
            heartbeat: Heartbeat::default(),
            hangs: AtomicBool::new(false),
            activity: Mutex::new(activity),
            commits: AtomicU64::new(0),
            death: Death::default(),
        }
    }

    pub(super) fn activity(&self) -> Activity {
        *self.activity.lock()
    }

    pub(super) fn change_activity(&self, change: impl FnOnce(&mut Activity)) {
        change(&mut self.activity.lock());
    }

    pub(super) fn die_at(&self, at: DieAt) {
        // Only the first plan counts.
        let _ = self.death.at.set(at);
    }
}

/// Claims that did not reach their callers; the writer gives them back.
pub(super) type Orphans = Arc<Mutex<Vec<ClaimToken>>>;

/// A claim on its way to its caller. If it gets lost (the caller went away, the commit failed), its entries would stay claimed
/// until the next start, so it reports itself.
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
        self.orphans.lock().extend(lost);
    }
}

#[derive(Debug)]
pub(super) struct Writer {
    link: Link,
    commands: mpsc::Receiver<Command>,
    clock: SharedClock,
    signals: Arc<Signals>,
    orphans: Orphans,
    closers: Vec<Reply<()>>,
    /// Since when writes have failed, by the monotonic clock.
    failing_from: Option<Instant>,
    /// The latest time seen.
    latest: Timestamp,
    bounds: Bounds,
    next_bounds: Instant,
}

impl Writer {
    pub(super) fn new(
        link: Link,
        commands: mpsc::Receiver<Command>,
        clock: SharedClock,
        signals: Arc<Signals>,
        bounds: Bounds,
    ) -> Self {
        Self {
            link,
            commands,
            latest: clock.now(),
            clock,
            signals,
            orphans: Orphans::default(),
            closers: Vec::new(),
            bounds,
            next_bounds: Instant::now(),
            failing_from: None,
        }
    }

    /// Ends when asked to close, or when the last handle is gone; what was sent before is written.
    pub(super) async fn run(mut self) {
        let mut look_around = interval(LOOK_AROUND);
        look_around.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut group = Vec::with_capacity(MAX_GROUP);
        loop {
            self.signals.heartbeat.beat();
            if self.signals.hangs.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            // `select!` drops only waits here, never a database call.
            let taken = tokio::select! {
                taken = self.commands.recv_many(&mut group, MAX_GROUP) => Some(taken),
                _ = look_around.tick() => None,
            };
            match taken {
                Some(0) => break,
                Some(_) => {
                    let changes = self.changes(group.drain(..));
                    if !changes.is_empty() {
                        self.write(changes).await;
                    }
                }
                None => self.look_around().await,
            }
            if !self.closers.is_empty() {
                self.commands.close();
            }
        }
        if !self.orphans.lock().is_empty() {
            self.write(Vec::new()).await;
        }
        self.link.close().await;
        for closer in self.closers {
            // A caller may have gone: the file is closed all the same.
            let _ = closer.send(Ok(()));
        }
    }

    /// What the commands of a group come to; closing comes last.
    fn changes(&mut self, group: impl Iterator<Item = Command>) -> Vec<Box<dyn Change>> {
        let (mut arrivals, mut replies) = (Vec::new(), Vec::new());
        let mut changes = Vec::new();
        for command in group {
            match command {
                Command::Store(more, reply) => {
                    replies.push((more.len(), reply));
                    arrivals.extend(more);
                }
                Command::Change(change) => changes.push(change),
                Command::Close(reply) => self.closers.push(reply),
            }
        }
        if !replies.is_empty() {
            changes.insert(0, stores(arrivals, replies));
        }
        changes
    }

    /// Writes a group and answers it. An empty one only shows whether writing works.
    async fn write(&mut self, mut changes: Vec<Box<dyn Change>>) {
        let orphans = mem::take(&mut *self.orphans.lock());
        let mut effects = Effects::default();
        let written = self.transact(&mut changes, &orphans, &mut effects).await;
        if effects.is_about_entries {
            self.signals.death.pass(true);
        }
        let works = written.is_ok() && !effects.is_ailing;
        let committed = match written {
            Ok(()) => {
                self.signals.commits.fetch_add(1, Ordering::Relaxed);
                if effects.last_event.is_some() {
                    self.signals
                        .change_activity(|it| it.event = effects.last_event);
                }
                if effects.wakes || !orphans.is_empty() {
                    self.signals.changed.notify_one();
                }
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the inbox could not be written");
                self.link.drop_connection();
                self.link.fold_the_log().await;
                self.orphans.lock().extend(orphans);
                Err(InboxError::Database {
                    what: "write to its file",
                    source: Arc::new(error),
                })
            }
        };
        self.tell_whether_writing_works(works);
        for change in changes {
            change.answer(committed.clone());
        }
    }

    fn tell_whether_writing_works(&mut self, works: bool) {
        let now = self.clock.now();
        if self.link.are_files_lost() {
            let is_news = self.signals.writing.send_if_modified(|writing| {
                let before = *writing;
                *writing = before.lost(now);
                *writing != before
            });
            if is_news {
                tracing::error!("inbox.lost");
            }
            return;
        }
        let failing_for = if works {
            self.failing_from = None;
            None
        } else {
            let from = self.failing_from.get_or_insert_with(Instant::now);
            Some(from.elapsed())
        };
        let lasting_after = self.signals.lasting_after.get().copied();
        let lasting_after = lasting_after.unwrap_or(LASTING_AFTER);
        self.signals.writing.send_if_modified(|writing| {
            let before = *writing;
            *writing = before.next(failing_for, lasting_after, now);
            *writing != before
        });
    }

    /// Runs one transaction. After an `Err` the group is not on disk, or it is unknown whether it is.
    async fn transact(
        &mut self,
        changes: &mut [Box<dyn Change>],
        orphans: &[ClaimToken],
        effects: &mut Effects,
    ) -> Result<(), sqlx::Error> {
        let now = self.clock.now();
        let works = self.signals.writing.borrow().reaches_the_disk();
        let conn = self.link.conn().await?;
        execute(conn, "BEGIN IMMEDIATE").await?;
        if !orphans.is_empty() {
            maintenance::release(conn, now, now, Some(orphans)).await?;
        }
        // While writing fails, a change that has nothing to write would succeed and prove nothing.
        if changes.is_empty() || !works {
            maintenance::probe(conn).await?;
        }
        // A change that fails must not undo the others of its group. A single change needs no savepoint: it is undone with
        // the transaction.
        let is_alone = changes.len() == 1 && orphans.is_empty() && works;
        let mut end = "COMMIT";
        for change in changes {
            if !is_alone {
                execute(conn, "SAVEPOINT change").await?;
            }
            let mut turn = Turn {
                conn,
                now,
                effects,
                orphans: &self.orphans,
            };
            let stays = change.run(&mut turn).await;
            if is_alone {
                end = if stays { "COMMIT" } else { "ROLLBACK" };
                continue;
            }
            if !stays {
                execute(conn, "ROLLBACK TO change").await?;
            }
            execute(conn, "RELEASE change").await?;
        }
        if effects.is_about_entries {
            self.signals.death.pass(false);
        }
        execute(conn, end).await?;
        self.link.look_at_files()
    }

    /// The periodic work of the writer: probes writing that failed, gives back lost claims, looks for a clock that was put
    /// back and for changes by other processes.
    async fn look_around(&mut self) {
        if let Err(error) = self.look_at_the_clock().await {
            tracing::warn!(%error, "the inbox could not be scheduled anew");
            self.link.drop_connection();
        }
        if let Err(error) = self.look_at_the_bounds().await {
            tracing::warn!(%error, "the inbox could not be kept within its bounds");
            self.link.drop_connection();
        }
        let works = self.signals.writing.borrow().reaches_the_disk();
        if !works || !self.orphans.lock().is_empty() {
            self.write(Vec::new()).await;
        }
        match self.link.look_for_others().await {
            Ok(false) => {}
            Ok(true) => self.signals.changed.notify_one(),
            Err(error) => {
                tracing::warn!(%error, "the inbox could not be looked at");
                self.link.drop_connection();
            }
        }
        if self.link.look_at_files().is_err() {
            // Handled as a failed write.
            self.write(Vec::new()).await;
        }
    }

    async fn look_at_the_bounds(&mut self) -> Result<(), sqlx::Error> {
        if self.next_bounds > Instant::now() {
            return Ok(());
        }
        self.next_bounds = Instant::now() + bounds::LOOK_EVERY;
        let conn = self.link.conn().await?;
        let space = maintenance::make_room(conn, self.bounds).await?;
        // Pages that cannot be given back now are used again.
        let gives_back_more = maintenance::give_back(conn).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "inbox.cannot_shrink");
            false
        });
        if space == Space::Clearing || gives_back_more {
            self.next_bounds = Instant::now();
        }
        let now = self.clock.now();
        self.signals.writing.send_if_modified(|writing| {
            let before = mem::replace(writing, writing.bounded(space == Space::Full, now));
            match (before, *writing) {
                (Writing::Works, Writing::Full { .. }) => tracing::error!("inbox.full"),
                (Writing::Full { .. }, Writing::Works) => tracing::info!("inbox.has_room"),
                _ => {}
            }
            before != *writing
        });
        Ok(())
    }

    async fn look_at_the_clock(&mut self) -> Result<(), sqlx::Error> {
        let now = self.clock.now();
        if maintenance::beyond_a_step(now) >= self.latest {
            self.latest = self.latest.max(now);
            return Ok(());
        }
        // An error leaves `latest` as it is: the next look tries again.
        if maintenance::reschedule(self.link.conn().await?, now).await? > 0 {
            self.signals.changed.notify_one();
        }
        self.latest = now;
        Ok(())
    }
}

async fn execute(conn: &mut SqliteConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(conn).await.map(drop)
}

/// The crash that a test may plan for one of the commits that are about entries.
#[derive(Debug, Default)]
struct Death {
    at: OnceLock<DieAt>,
    commits: AtomicU64,
}

impl Death {
    /// Passes one side of a commit.
    fn pass(&self, committed: bool) {
        let before = self
            .commits
            .fetch_add(u64::from(committed), Ordering::Relaxed);
        let here = DieAt {
            commit: before + 1,
            committed,
        };
        if self.at.get() == Some(&here) {
            std::process::abort();
        }
    }
}
