//! The inbox: one entry per row, kept on disk from the moment a webhook is acknowledged until its row is in step.
//!
//! ```text
//!              store                claim                 settle
//!   webhook ──────────▶ pending ───────────▶ claimed ─┬──────────▶ done(outcome)
//!   sweep                  ▲                          ├──────────▶ pending (again, later)
//!                          │ revive                   ├──────────▶ waiting (for a contact)
//!                          └──────────────────────────┴──────────▶ parked (for a person)
//! ```
//!
//! Every change to a claimed entry is guarded by its claim and must hit exactly one row.
//! The inbox holds ids, progress and keyed hashes: no names, e-mails, phones or passwords.

mod bounds;
mod command;
mod entry;
mod hasher;
mod progress;
mod sqlite;
mod writer;
mod writing;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::SqlitePool;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};

use self::{
    bounds::Bounds,
    sqlite::views,
    writer::{Command, Handover, Reply, Signals, Writer},
};
pub use self::{
    command::CommandTurn,
    entry::{
        Arrival, BackfillId, Claim, ClaimToken, Counts, Entry, Event, Heard, Known, Lane, Mark,
        OpenWork, Outcome, Revival, Settled, Settlement, Source, State, Stored, Stuck, Tally,
        Wanted,
    },
    hasher::Hasher,
    progress::{Choice, DailySearches, Intent, Placed, Progress},
    writing::Writing,
};
use crate::domain::{Heartbeat, KeyedHash, RowId, SharedClock};

/// Keys of the engine's own state. Commands read them, and write the first two and the last, from another process.
pub const PAUSED: &str = "paused_since";
pub const HALT: &str = "halt";
/// The refusals that are not decided yet.
pub const REFUSALS: &str = "refusals";
/// Rows that a person lets go on although they are held or in doubt; the engine takes them from there.
pub const RELEASED: &str = "released";

/// What became of a damaged file, as [`Replaced`].
pub const REPLACED: &str = "inbox_replaced";

/// Why the inbox could not do what was asked. The receiver answers 503, the engine tries again.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    #[error("the inbox {path} is in use by another process of this service")]
    AlreadyOwned { path: PathBuf },
    #[error("the inbox {path} cannot be opened")]
    Open {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the inbox could not {what}")]
    Database {
        what: &'static str,
        source: sqlx::Error,
    },
    /// Something stored cannot be read back.
    #[error("the inbox holds a value of {what} that cannot be read")]
    Corrupt { what: &'static str },
    /// Another process holds the entry now: whatever this one knew is void.
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
        source: Box<dyn std::error::Error + Send + Sync>,
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
    lock: Mutex<Option<File>>,
}

impl Inbox {
    /// Must be called inside a tokio runtime, which the inbox then lives on.
    pub async fn open(path: &Path, role: Role, clock: SharedClock) -> Result<Self, InboxError> {
        let opened = sqlite::open(path, role, &clock).await?;
        Ok(Self::of(path, opened, clock, Bounds::DEFAULT))
    }

    /// As an owner, for the service: a damaged file must not keep it from taking deliveries. See [`Replaced`].
    pub async fn open_or_replace(path: &Path, clock: SharedClock) -> Result<Self, InboxError> {
        let opened = sqlite::open_or_replace(path, &clock).await?;
        Ok(Self::of(path, opened, clock, Bounds::DEFAULT))
    }

    fn of(path: &Path, opened: sqlite::Opened, clock: SharedClock, bounds: Bounds) -> Self {
        let signals = Arc::new(Signals::new(opened.work));
        let (commands, waiting) = mpsc::channel(writer::MAX_WAITING);
        let runtime = Handle::current();
        runtime.spawn(Writer::new(opened.link, waiting, clock, Arc::clone(&signals), bounds).run());
        Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                commands,
                signals,
                readers: opened.readers,
                runtime,
                hasher: opened.hasher,
                lock: Mutex::new(opened.lock),
            }),
        }
    }

    /// Copies the inbox, beside its owner if it has one, to a file that does not exist. Answers the size of the copy.
    pub async fn copy(from: &Path, to: &Path) -> Result<u64, InboxError> {
        sqlite::copy::copy(from, to).await
    }

    /// The files of the inbox that others than their owner may open, with their modes.
    #[must_use]
    pub fn open_to_others(path: &Path) -> Vec<(PathBuf, u32)> {
        sqlite::mode::open_to_others(path)
    }

    /// Whether some process is the owner of this file.
    pub fn is_owned(path: &Path) -> Result<bool, InboxError> {
        match sqlite::lock(path) {
            Ok(_) => Ok(false),
            Err(InboxError::AlreadyOwned { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Ends the process at a commit, as a crash would.
    #[cfg(feature = "sandbox")]
    pub fn die_at(&self, at: crate::domain::DieAt) {
        self.shared.signals.die_at(at);
    }

    /// Lets the writer hang.
    #[cfg(feature = "sandbox")]
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

    // The five verbs. Their answer means that the change is on disk.

    /// Answers each arrival in its place. `Busy` instead of waiting when too many wait already.
    pub async fn store(&self, arrivals: Vec<Arrival>) -> Result<Vec<Stored>, InboxError> {
        if arrivals.is_empty() {
            return Ok(Vec::new());
        }
        if self.is_full() {
            return Err(InboxError::Full);
        }
        let (reply, answer) = oneshot::channel();
        self.shared
            .commands
            .try_send(Command::Store(arrivals, reply))
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => InboxError::Busy,
                mpsc::error::TrySendError::Closed(_) => InboxError::Closed,
            })?;
        answer.await.unwrap_or(Err(InboxError::Closed))
    }

    /// `only`: this lane; else the live one if anything is due in it. `None` when nothing is due.
    pub async fn claim(&self, limit: u32, only: Option<Lane>) -> Result<Option<Claim>, InboxError> {
        self.claim_but(limit, only, Vec::new()).await
    }

    /// As [`Inbox::claim`], and none of these rows.
    pub async fn claim_but(
        &self,
        limit: u32,
        only: Option<Lane>,
        not: Vec<RowId>,
    ) -> Result<Option<Claim>, InboxError> {
        let wanted = Wanted::Due { limit, only, not };
        let handover = self.write(|reply| Command::Claim(wanted, reply)).await?;
        Ok(handover.and_then(Handover::taken))
    }

    /// Claims the first of these rows that is pending, and due if `is_due`. `None` when there is none.
    pub async fn claim_one_of(
        &self,
        rows: Vec<RowId>,
        is_due: bool,
    ) -> Result<Option<Claim>, InboxError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let wanted = Wanted::OneOf { rows, is_due };
        let handover = self.write(|reply| Command::Claim(wanted, reply)).await?;
        Ok(handover.and_then(Handover::taken))
    }

    pub async fn checkpoint(&self, token: ClaimToken, marks: Vec<Mark>) -> Result<(), InboxError> {
        self.write(|reply| Command::Checkpoint(token, marks, reply))
            .await
    }

    pub async fn settle(&self, token: ClaimToken, ends: Vec<Settled>) -> Result<(), InboxError> {
        self.write(|reply| Command::Settle(token, ends, reply))
            .await
    }

    /// Gives back the entries that are still claimed. What was stored of them stays.
    pub async fn release(&self, token: ClaimToken, due_at: Timestamp) -> Result<(), InboxError> {
        self.write(|reply| Command::Release(token, due_at, reply))
            .await
    }

    /// Answers how many are pending now that were not, or not yet due.
    pub async fn revive(&self, whom: Revival) -> Result<u64, InboxError> {
        self.write(|reply| Command::Revive(whom, reply)).await
    }

    /// Sets these rows aside for a person, unless they are done, parked already, or claimed. Answers how many.
    pub async fn park(&self, rows: Vec<RowId>) -> Result<u64, InboxError> {
        self.write(|reply| Command::Park(rows, reply)).await
    }

    /// The number under which a person now asks for rows.
    pub async fn begin_backfill(&self) -> Result<BackfillId, InboxError> {
        self.write(Command::BeginBackfill).await
    }

    // Looking.

    pub async fn entry(&self, row: RowId) -> Result<Option<Entry>, InboxError> {
        self.read(|file| async move { views::entry(&file, row).await })
            .await
    }

    /// Of those among these rows that have an entry.
    pub async fn states_of(&self, rows: Vec<RowId>) -> Result<HashMap<RowId, State>, InboxError> {
        self.read(|file| async move { views::states_of(&file, &rows).await })
            .await
    }

    /// `soon`: see [`Tally::waiting_briefly`].
    pub async fn tally(&self, backfill: BackfillId, soon: Timestamp) -> Result<Tally, InboxError> {
        self.read(move |file| async move { views::tally(&file, backfill, soon).await })
            .await
    }

    /// The newest change first.
    pub async fn entries(
        &self,
        state: Option<State>,
        limit: u32,
    ) -> Result<Vec<Entry>, InboxError> {
        self.read(move |file| async move { views::entries(&file, state, limit).await })
            .await
    }

    /// Everything kept of one person, by e-mail or phone hash.
    pub async fn entries_of(&self, person: KeyedHash) -> Result<Vec<Entry>, InboxError> {
        self.read(move |file| async move { views::entries_of(&file, person).await })
            .await
    }

    /// The oldest line first.
    pub async fn history(&self, row: RowId) -> Result<Vec<Event>, InboxError> {
        self.read(move |file| async move { views::history(&file, row).await })
            .await
    }

    pub async fn counts(&self) -> Result<Counts, InboxError> {
        self.read(|file| async move { views::counts(&file).await })
            .await
    }

    /// Reads every entry: for a command, not for a page.
    pub async fn heard(&self) -> Result<Heard, InboxError> {
        self.read(|file| async move { views::heard(&file).await })
            .await
    }

    /// Parked later than `after`, the first one first.
    pub async fn parked_after(&self, after: Timestamp) -> Result<Vec<Stuck>, InboxError> {
        self.read(move |file| async move { views::parked_after(&file, after).await })
            .await
    }

    /// Pending or claimed since `until` or longer, the oldest first; those of a backfill are not missed by anybody.
    pub async fn pending_since(
        &self,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Stuck>, InboxError> {
        self.read(move |file| async move { views::pending_since(&file, until, limit).await })
            .await
    }

    /// When the next pending or waiting entry falls due.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, InboxError> {
        self.read(|file| async move { views::next_due(&file).await })
            .await
    }

    /// How many live entries are due; counts to `limit` at most.
    pub async fn live_due(&self, now: Timestamp, limit: u32) -> Result<u32, InboxError> {
        self.read(move |file| async move { views::live_due(&file, now, limit).await })
            .await
    }

    /// How many pending entries of a lane fall due by then and have no contact yet.
    pub async fn unmatched(&self, until: Timestamp, lane: Lane) -> Result<u64, InboxError> {
        self.read(move |file| async move { views::unmatched(&file, until, lane).await })
            .await
    }

    /// Unfinished entries with open CRM work.
    pub async fn open_work(&self) -> Result<Vec<OpenWork>, InboxError> {
        self.read(|file| async move { views::open_work(&file).await })
            .await
    }

    pub async fn people(
        &self,
        keys: Vec<KeyedHash>,
    ) -> Result<HashMap<KeyedHash, Known>, InboxError> {
        self.read(|file| async move { views::people(&file, &keys).await })
            .await
    }

    /// Since when the longest and the shortest waiting entries have missed their contact; `None` when nothing waits.
    pub async fn missing_since(&self) -> Result<Option<(Timestamp, Timestamp)>, InboxError> {
        self.read(|file| async move { views::missing_since(&file).await })
            .await
    }

    /// E-mail and phone hashes of all waiting entries.
    pub async fn awaited(&self) -> Result<HashSet<KeyedHash>, InboxError> {
        self.read(|file| async move { views::awaited(&file).await })
            .await
    }

    // The engine's own state: one JSON value per key.

    pub async fn state<T: DeserializeOwned + Send + 'static>(
        &self,
        key: &'static str,
    ) -> Result<Option<T>, InboxError> {
        self.read(move |file| async move { views::state(&file, key).await })
            .await?
            .map(|json| serde_json::from_str(&json))
            .transpose()
            .map_err(|_| InboxError::Corrupt { what: key })
    }

    pub async fn set_state<T: Serialize>(
        &self,
        key: &'static str,
        value: &T,
    ) -> Result<(), InboxError> {
        let json = serde_json::to_string(value).map_err(|_| InboxError::Corrupt { what: key })?;
        self.write(|reply| Command::SetState(key, json, reply))
            .await
    }

    pub async fn clear_state(&self, key: &'static str) -> Result<(), InboxError> {
        self.write(|reply| Command::ClearState(key, reply)).await
    }

    /// Time that the service has spent running un-halted, over all restarts.
    #[must_use]
    pub fn working_clock(&self) -> Duration {
        let microseconds = self.shared.signals.work.load(Ordering::Relaxed);
        Duration::from_micros(microseconds.unsigned_abs())
    }

    pub async fn add_working_time(&self, by: Duration) -> Result<(), InboxError> {
        self.write(|reply| Command::AddWorkingTime(by, reply)).await
    }

    // Care of the file.

    /// Deletes `done` entries, their history, and people not used since. Answers how many entries.
    pub async fn purge_done(&self, before: Timestamp) -> Result<u64, InboxError> {
        let mut purged = 0;
        loop {
            let removed = self
                .write(|reply| Command::PurgeDone(before, reply))
                .await?;
            purged += removed;
            if removed < u64::from(bounds::CHUNK) {
                return Ok(purged);
            }
        }
    }

    /// Removes every trace of these rows and of these people (e-mail hashes). Entries that are claimed stay: try again.
    pub async fn forget(
        &self,
        rows: Vec<RowId>,
        people: Vec<KeyedHash>,
    ) -> Result<u64, InboxError> {
        self.write(|reply| Command::Forget(rows, people, reply))
            .await
    }

    /// Completes when something was stored or revived since the last call (by this process, or noticed by polling).
    /// For one waiter.
    pub async fn changed(&self) {
        self.shared.signals.changed.notified().await;
    }

    /// Whether the last write reached the disk: what `/readyz` tells. Never touches the database.
    #[must_use]
    pub fn accepts(&self) -> bool {
        !self.shared.commands.is_closed() && *self.shared.signals.writing.borrow() == Writing::Works
    }

    /// Whether new rows are refused because nothing finished is left to make room for them.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(*self.writing().borrow(), Writing::Full { .. })
    }

    /// Tells every change in whether writing works.
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

    /// How long writes fail before that is the state of the service: a minute, unless a test wants less. Only the first call
    /// counts.
    pub fn call_it_lasting_after(&self, pause: Duration) {
        let _ = self.shared.signals.lasting_after.set(pause);
    }

    /// Writes what waits and closes the file.
    pub async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        // Spawned, so that it is done to its end whatever becomes of the caller.
        let closed = self.shared.runtime.spawn(async move {
            // First, so that the writer's connection is the last one, which folds the log into the file.
            shared.readers.close().await;
            let (reply, answer) = oneshot::channel();
            // A writer that has ended is closed already.
            if shared.commands.send(Command::Close(reply)).await.is_ok() {
                let _ = answer.await;
            }
            let mut lock = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            *lock = None;
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "closing the inbox failed");
        }
    }

    /// Waits for room: what the engine has learnt must not be lost because deliveries pour in.
    async fn write<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, InboxError> {
        let (reply, answer) = oneshot::channel();
        self.shared
            .commands
            .send(command(reply))
            .await
            .map_err(|_| InboxError::Closed)?;
        answer.await.unwrap_or(Err(InboxError::Closed))
    }

    /// In a task of its own: a caller that goes away must not cancel a database call.
    async fn read<T, F>(&self, view: impl FnOnce(SqlitePool) -> F) -> Result<T, InboxError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, InboxError>> + Send + 'static,
    {
        let reading = view(self.shared.readers.clone());
        let read = self.shared.runtime.spawn(reading).await;
        read.unwrap_or(Err(InboxError::Closed))
    }
}
