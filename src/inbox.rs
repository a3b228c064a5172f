//! The inbox: one entry per row, kept on disk from the moment a webhook is acknowledged until its row is in step.
//!
//! ```text
//!              store                claim                 settle
//!   webhook ──────────▶ pending ───────────▶ claimed ─┬──────────▶ done(outcome)
//!   sweep                  ▲                          ├──────────▶ pending (again, later)
//!                          │ revive                   ├──────────▶ waiting (for a contact)
//!                          └──────────────────────────┴──────────▶ parked (for a person)
//!
//!   undo: done(synced) ──────▶ pending ──▶ claimed ──▶ done(undone), or done(synced) if the deal is left where it stands
//!   retry: done(undone) ─────▶ pending
//! ```
//!
//! Every change to a claimed entry is guarded by its claim and must hit exactly one row.
//! The inbox holds ids, progress and keyed hashes: no names, e-mails, phones or passwords.

mod activity;
mod announcement;
mod bounds;
mod commands;
mod contact_index;
mod entry;
mod given_up;
mod hasher;
mod history;
mod hourly;
mod maintenance;
mod names;
mod progress;
mod queries;
mod record;
mod sqlite;
mod writer;
mod writing;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};

pub use self::{
    activity::{Activity, Counters, Sweep},
    announcement::CommandTurn,
    commands::StoredState,
    contact_index::Indexed,
    entry::{
        Arrival, BackfillId, Claim, ClaimToken, Counts, Entry, Heard, Known, Lane, Mark, OpenWork,
        Outcome, PlacedFor, Revival, Settled, Settlement, Source, State, Stored, Stuck, Synced,
        Tally,
    },
    given_up::{Doubled, GivenUp, LateDeals},
    hasher::Hasher,
    history::{Fact, HistoryLine},
    hourly::Hour,
    names::Names,
    progress::{
        Choice, Create, CreateFor, DailySearches, Move, Placed, Progress, Step, Undo, UndoLeft, Why,
    },
    writing::Writing,
};
use self::{
    bounds::Bounds,
    writer::{Command, Signals, Turn, Writer},
};
use crate::domain::{Heartbeat, RowId, SharedClock};

/// Keys of the engine's own state. Commands read them, and write the first two and the last, from another process.
pub const PAUSED: &str = "paused_since";
pub const HALT: &str = "halt";
/// The refusals that are not decided yet.
pub const REFUSALS: &str = "refusals";
/// Rows that a person lets go on although they are held or in doubt; the engine takes them from there.
pub const RELEASED: &str = "released";

/// What the service's own test events have shown, as [`EventTests`](crate::domain::EventTests).
pub const EVENT_TESTS: &str = "event_tests";

/// What became of a damaged file, as [`Replaced`].
pub const REPLACED: &str = "inbox_replaced";

/// Why the inbox could not do what was asked. The receiver answers 503, the engine tries again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InboxError {
    #[error("the inbox {path} is in use by another process of this service")]
    AlreadyOwned { path: PathBuf },
    #[error("the inbox {path} cannot be opened")]
    Open {
        path: PathBuf,
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    #[error("the inbox could not {what}")]
    Database {
        what: &'static str,
        source: Arc<sqlx::Error>,
    },
    /// Something stored cannot be read back.
    #[error("the inbox holds a value of {what} that cannot be read")]
    Corrupt { what: &'static str },
    /// Another process holds the entry now: the caller's view of it is void.
    #[error("the claim on row {row} is lost")]
    ClaimLost { row: RowId },
    /// So many writes wait that taking one more would promise what the disk cannot keep.
    #[error("the inbox has too much waiting to be written")]
    Busy,
    /// The bounds are reached, and nothing finished is left that could be removed.
    #[error("the inbox is full: what it holds is unfinished")]
    Full,
    #[error("the inbox is closed")]
    Closed,
    #[error("the inbox could not be copied to {to}")]
    Copy {
        to: PathBuf,
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

/// How a process uses the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Claims and syncs: takes the OS lock; claims of a former process are void.
    Owner,
    /// Enqueues and watches beside an owner.
    Guest,
}

/// A damaged file was set aside at a start, and this inbox took its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    pub at: Timestamp,
    /// Halt, pause, refusals and all unfinished entries could be read. If not, the new inbox began paused.
    pub is_whole: bool,
    /// How many parked entries were carried over.
    pub parked: u64,
    /// How many other unfinished ones.
    pub others: u64,
    /// The name of the damaged file, beside the inbox.
    pub kept_as: String,
}

/// The room on the disk of the inbox, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// What the service's account may still use.
    pub free: u64,
    /// What the inbox takes with its write-ahead log.
    pub size: u64,
}

/// A handle on the inbox; clones share it.
#[derive(Debug, Clone)]
pub struct Inbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    commands: mpsc::Sender<Command>,
    signals: Arc<Signals>,
    readers: SqlitePool,
    /// Where the inbox was opened: an actix worker's own runtime may end in the middle of a read.
    runtime: Handle,
    hasher: Hasher,
    clock: SharedClock,
    lock: Mutex<Option<File>>,
}

impl Inbox {
    /// Must be called inside a tokio runtime, which the inbox then lives on.
    pub async fn open(path: &Path, role: Role, clock: SharedClock) -> Result<Self, InboxError> {
        // Boxed, since a replacement would make the future of every command large.
        let opened = Box::pin(sqlite::open(path, role, false, &clock)).await?;
        Ok(Self::of(path, opened, clock, Bounds::DEFAULT))
    }

    /// Opens the inbox as its owner, for the service: a damaged file must not prevent deliveries. See [`Replaced`].
    pub async fn open_or_replace(path: &Path, clock: SharedClock) -> Result<Self, InboxError> {
        let opened = sqlite::open(path, Role::Owner, true, &clock).await?;
        Ok(Self::of(path, opened, clock, Bounds::DEFAULT))
    }

    fn of(path: &Path, opened: sqlite::Opened, clock: SharedClock, bounds: Bounds) -> Self {
        let signals = Arc::new(Signals::new(opened.last_event));
        let (commands, waiting) = mpsc::channel(writer::MAX_WAITING);
        let runtime = Handle::current();
        let writer_signals = Arc::clone(&signals);
        let writer = Writer::new(opened.link, waiting, clock.clone(), writer_signals, bounds);
        runtime.spawn(writer.run());
        Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                commands,
                signals,
                readers: opened.readers,
                runtime,
                hasher: opened.hasher,
                clock,
                lock: Mutex::new(opened.lock),
            }),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Copies the inbox, beside its owner if it has one, to a file that does not exist. Answers the size of the copy.
    pub async fn copy(from: &Path, to: &Path) -> Result<u64, InboxError> {
        sqlite::copy::copy(from, to).await
    }

    /// The size of the inbox and the free space of its disk. Opens no file, so it works beside an owner, for a damaged file,
    /// and before there is a file.
    pub fn space(path: &Path) -> io::Result<DiskSpace> {
        sqlite::space::space(path)
    }

    /// As [`Inbox::space`], in a thread that may wait for the disk.
    pub async fn disk_space(&self) -> io::Result<DiskSpace> {
        let path = self.shared.path.clone();
        let asked = self
            .shared
            .runtime
            .spawn_blocking(move || Self::space(&path));
        asked.await.map_err(io::Error::other)?
    }

    /// The files of the inbox that other accounts may open, with their modes.
    #[must_use]
    pub fn open_to_others(path: &Path) -> Vec<(PathBuf, u32)> {
        sqlite::mode::open_to_others(path)
    }

    /// Whether some process is the owner of this file.
    pub fn is_owned(path: &Path) -> Result<bool, InboxError> {
        Ok(sqlite::try_lock(path, sqlite::LOCK)?.is_none())
    }

    /// Ends the process at a commit, as a crash would.
    pub fn die_at(&self, at: crate::domain::DieAt) {
        self.shared.signals.die_at(at);
    }

    /// Lets the writer hang.
    pub fn hang(&self) {
        self.shared.signals.hangs.store(true, Ordering::Relaxed);
    }

    /// Beats each time that the writer comes round, which is once a second at least.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        self.shared.signals.heartbeat.clone()
    }

    #[must_use]
    pub fn hasher(&self) -> &Hasher {
        &self.shared.hasher
    }

    /// Completes when something was stored or revived since the last call (by this process, or noticed by polling).
    /// For one waiter.
    pub async fn changed(&self) {
        self.shared.signals.changed.notified().await;
    }

    /// Completes [`Inbox::changed`]: for a change of the state that its waiter must not overlook.
    pub fn wake(&self) {
        self.shared.signals.changed.notify_one();
    }

    /// Whether the last write reached the disk, for `/readyz`. Never touches the database.
    #[must_use]
    pub fn accepts(&self) -> bool {
        !self.shared.commands.is_closed() && *self.shared.signals.writing.borrow() == Writing::Works
    }

    /// Whether new rows are refused because no finished entry is left to make room for them.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(*self.writing().borrow(), Writing::Full { .. })
    }

    /// Whether writing works, and every change of that.
    #[must_use]
    pub fn writing(&self) -> watch::Receiver<Writing> {
        self.shared.signals.writing.subscribe()
    }

    /// Whether the file that was opened was removed, replaced or moved since.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(*self.writing().borrow(), Writing::Lost { .. })
    }

    /// Completes when the file that was opened was removed, replaced or moved.
    pub async fn lost(&self) {
        let mut writing = self.writing();
        let lost = writing.wait_for(|writing| matches!(writing, Writing::Lost { .. }));
        // The sender lives as long as this handle.
        let _ = lost.await;
    }

    /// Sets for how long writes must fail before the state of the service says so: a minute, unless a test sets less. Only
    /// the first call counts.
    pub fn call_it_lasting_after(&self, pause: Duration) {
        let _ = self.shared.signals.lasting_after.set(pause);
    }

    /// Writes what waits and closes the file.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        // Spawned, so that closing completes even if the caller is dropped.
        let closed = self.shared.runtime.spawn(async move {
            // First, so that the writer's connection is the last one, which folds the log into the file.
            shared.readers.close().await;
            let (reply, answer) = oneshot::channel();
            // A writer that has ended is closed already.
            if shared.commands.send(Command::Close(reply)).await.is_ok() {
                let _ = answer.await;
            }
            *shared.lock.lock() = None;
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "closing the inbox failed");
        }
    }

    /// Waits for room in the queue, so that many deliveries cannot make a write of the engine fail.
    async fn write<T, W>(&self, work: W) -> Result<T, InboxError>
    where
        T: Send + 'static,
        W: for<'t> FnOnce(&'t mut Turn<'_>) -> BoxFuture<'t, Result<T, InboxError>>
            + Send
            + 'static,
    {
        let (reply, answer) = oneshot::channel();
        // A caller that has gone changes nothing: what is written stays written.
        let change = writer::change(work, |outcome| drop(reply.send(outcome)));
        let sent = self.shared.commands.send(Command::Change(change)).await;
        sent.map_err(|_| InboxError::Closed)?;
        answer.await.unwrap_or(Err(InboxError::Closed))
    }
}
