//! A damaged file at the start of the service: it is set aside, and a new file with what can be read of it takes its place.
//!
//! A death at any point loses nothing that was read:
//! 1. The new file is built beside the damaged one, under a name of its own, and synced.
//! 2. It is renamed to `….new-<time>`. While a file of that name exists, no start opens the inbox before it has done the rest.
//! 3. The damaged file and its side files are renamed to `….damaged-<time>`. SQLite would play an old log into a new file.
//! 4. The new file is renamed to the inbox.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File},
    io,
    path::Path,
};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteJournalMode, SqliteSynchronous},
};

use super::{Cause, MIGRATOR, hash_key, plain, private_file, sibling};
use crate::{
    domain::{Halt, Refusals, RowId},
    inbox::{
        Entry, Fact, HALT, PAUSED, REFUSALS, REPLACED, Replaced, State,
        commands::set_state,
        record::{EntryRecord, ProgressColumns},
    },
};

/// How many damaged files are kept.
const KEPT: usize = 2;
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];
const PAGE: u32 = 500;

/// What is done once the new file is complete, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::inbox) enum Step {
    LogAside,
    IndexAside,
    FileAside,
    Placed,
}

impl Step {
    pub(in crate::inbox) const ALL: [Self; 4] = [
        Self::LogAside,
        Self::IndexAside,
        Self::FileAside,
        Self::Placed,
    ];
}

/// Whether an earlier start has died within a replacement that must be completed.
pub(super) fn is_begun(path: &Path) -> io::Result<bool> {
    Ok(!stamps(path, ".new-")?.is_empty())
}

/// Completes what an earlier start has begun.
pub(super) fn complete(path: &Path) -> io::Result<()> {
    let Some(stamp) = stamps(path, ".new-")?.pop_last() else {
        return Ok(());
    };
    for step in Step::ALL {
        step.take(path, &stamp)?;
    }
    remove_old(path)
}

impl Step {
    pub(in crate::inbox) fn take(self, path: &Path, stamp: &str) -> io::Result<()> {
        let suffix = match self {
            Self::LogAside => "-wal",
            Self::IndexAside => "-shm",
            Self::FileAside => "",
            Self::Placed => {
                sync_folder(path)?;
                fs::rename(sibling(path, &format!(".new-{stamp}")), path)?;
                return sync_folder(path);
            }
        };
        let aside = sibling(path, &format!(".damaged-{stamp}{suffix}"));
        match fs::rename(sibling(path, suffix), aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The caller holds the owner's lock. To be followed by [`complete`].
pub(in crate::inbox) async fn begin(path: &Path, now: Timestamp) -> Result<Replaced, Cause> {
    let carried = Carried::read(path, now).await;
    let stamp = now.strftime("%Y%m%dT%H%M%S%.3fZ").to_string();
    let replaced = carried.report(path, now, &stamp);
    let building = sibling(path, ".building");
    build(&building, &carried, &replaced, now).await?;
    fs::rename(&building, sibling(path, &format!(".new-{stamp}")))?;
    sync_folder(path)?;
    Ok(replaced)
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// A renamed file may have its old name again after a power cut, unless its folder is synced.
pub(in crate::inbox) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

/// The times at the ends of the names of the inbox's siblings of one kind.
fn stamps(path: &Path, kind: &str) -> io::Result<BTreeSet<String>> {
    let Some(name) = path.file_name() else {
        return Ok(BTreeSet::new());
    };
    let prefix = format!("{}{kind}", name.to_string_lossy());
    let mut stamps = BTreeSet::new();
    for file in fs::read_dir(folder(path))? {
        let name = file?.file_name();
        let stamp = name.to_string_lossy();
        if let Some(stamp) = stamp.strip_prefix(&prefix) {
            let stamp = stamp.trim_end_matches("-wal").trim_end_matches("-shm");
            if is_stamp(stamp) {
                stamps.insert(stamp.to_owned());
            }
        }
    }
    Ok(stamps)
}

/// `20261122T100000.000Z`. A file with any other ending was not made by the service.
fn is_stamp(text: &str) -> bool {
    const FORM: &str = "00000000T000000.000Z";
    text.len() == FORM.len()
        && text
            .bytes()
            .zip(FORM.bytes())
            .all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                _ => byte == form,
            })
}

fn remove_old(path: &Path) -> io::Result<()> {
    let stamps = stamps(path, ".damaged-")?;
    for stamp in stamps.into_iter().rev().skip(KEPT) {
        for suffix in SUFFIXES {
            remove(&sibling(path, &format!(".damaged-{stamp}{suffix}")))?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What could be read of a damaged file.
#[derive(Debug, Default)]
struct Carried {
    halt: Option<Halt>,
    paused: Option<Timestamp>,
    refusals: Option<Refusals>,
    /// The unfinished ones.
    entries: Vec<Entry>,
    /// The state and all unfinished entries could be read.
    is_whole: bool,
}

impl Carried {
    async fn read(path: &Path, now: Timestamp) -> Self {
        let mut carried = match Self::try_read(path).await {
            Ok(carried) => carried,
            Err(error) => {
                tracing::debug!(error, "nothing of the damaged inbox can be read");
                Self::default()
            }
        };
        if !carried.is_whole {
            // A halt after a 403 may be lost, so the new inbox begins paused: only a person may resume.
            carried.paused.get_or_insert(now);
        }
        carried
    }

    async fn try_read(path: &Path) -> Result<Self, Cause> {
        let mut conn = plain(path).connect().await?;
        let mut carried = Self {
            is_whole: true,
            ..Self::default()
        };
        match stored_state(&mut conn).await {
            Ok(state) => carried.take_state(&state),
            Err(_) => carried.is_whole = false,
        }
        let (entries, is_whole) = unfinished(&mut conn).await;
        carried.entries = entries;
        carried.is_whole &= is_whole;
        // The file is set aside even if closing it fails.
        let _ = conn.close().await;
        Ok(carried)
    }

    fn take_state(&mut self, state: &[(String, String)]) {
        let is_sound = |(key, json): &(String, String)| {
            // A key with a damaged letter may have been that of the halt.
            key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                && serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok()
        };
        self.is_whole &= state.iter().all(is_sound);
        self.halt = self.value(state, HALT);
        self.paused = self.value(state, PAUSED);
        self.refusals = self.value(state, REFUSALS);
    }

    fn value<T: DeserializeOwned>(&mut self, state: &[(String, String)], key: &str) -> Option<T> {
        let (_, json) = state.iter().find(|(found, _)| found == key)?;
        let value = serde_json::from_str(json).ok();
        self.is_whole &= value.is_some();
        value
    }

    /// The rows of the halt and of refusals that have no entry. Probes and retries use them, so each must get one.
    fn named_rows(&self) -> Vec<RowId> {
        let mut known: HashSet<RowId> = self.entries.iter().map(|entry| entry.row).collect();
        let halted = self.halt.iter().flat_map(|halt| halt.rows.clone());
        let refused = self.refusals.iter().flat_map(Refusals::rows);
        let rows = halted.chain(refused);
        rows.filter(|row| known.insert(*row)).collect()
    }

    fn report(&self, path: &Path, at: Timestamp, stamp: &str) -> Replaced {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let count = |is: fn(State) -> bool| {
            let entries = self.entries.iter().filter(|entry| is(entry.state));
            entries.count() as u64
        };
        Replaced {
            at,
            is_whole: self.is_whole,
            parked: count(|state| state == State::Parked),
            others: count(|state| state != State::Parked),
            kept_as: format!("{name}.damaged-{stamp}"),
        }
    }
}

async fn stored_state(conn: &mut SqliteConnection) -> Result<Vec<(String, String)>, Cause> {
    let found: String = sqlx::query_scalar("PRAGMA quick_check('state')")
        .fetch_one(&mut *conn)
        .await?;
    if found != "ok" {
        return Err(found.into());
    }
    Ok(sqlx::query_as("SELECT key, json FROM state")
        .fetch_all(conn)
        .await?)
}

const FORWARD: &str = "
    SELECT * FROM entry WHERE seq > ?1 AND +state <> 'done' ORDER BY seq LIMIT ?2";
const BACKWARD: &str = "
    SELECT * FROM entry WHERE seq < ?1 AND +state <> 'done' ORDER BY seq DESC LIMIT ?2";

/// Reads from both ends of the table up to the damage. `true`: all entries were read.
async fn unfinished(conn: &mut SqliteConnection) -> (Vec<Entry>, bool) {
    let (mut records, mut is_whole) = scan(conn, FORWARD, i64::MIN).await;
    if !is_whole {
        records.extend(scan(conn, BACKWARD, i64::MAX).await.0);
    }
    let mut seen = HashSet::new();
    let mut entries = Vec::with_capacity(records.len());
    for record in records {
        match Entry::try_from(record) {
            Ok(entry) if seen.insert(entry.row) => entries.push(entry),
            Ok(_) => {}
            Err(_) => is_whole = false,
        }
    }
    (entries, is_whole)
}

async fn scan(
    conn: &mut SqliteConnection,
    statement: &'static str,
    mut from: i64,
) -> (Vec<EntryRecord>, bool) {
    let mut records: Vec<EntryRecord> = Vec::new();
    let mut limit = PAGE;
    loop {
        let page: Result<Vec<EntryRecord>, _> = sqlx::query_as(statement)
            .bind(from)
            .bind(limit)
            .fetch_all(&mut *conn)
            .await;
        match page {
            Ok(page) => {
                let Some(last) = page.last().map(|last| last.seq) else {
                    return (records, true);
                };
                // In a damaged table a scan may run in a circle.
                let is_ahead = if statement == FORWARD {
                    last > from
                } else {
                    last < from
                };
                if !is_ahead {
                    return (records, false);
                }
                from = last;
                records.extend(page);
            }
            // The entries right before the damage are read one by one.
            Err(_) if limit > 1 => limit = 1,
            Err(_) => return (records, false),
        }
    }
}

async fn build(
    path: &Path,
    carried: &Carried,
    replaced: &Replaced,
    now: Timestamp,
) -> Result<(), Cause> {
    for suffix in ["", "-journal"] {
        remove(&sibling(path, suffix))?;
    }
    private_file(path)?;
    let mut conn = plain(path)
        // One file until it is complete: two could not be renamed at once.
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await?;
    let mut transaction = conn.begin().await?;
    MIGRATOR.run(&mut *transaction).await?;
    hash_key(&mut transaction).await?;
    fill(&mut transaction, carried, replaced, now).await?;
    transaction.commit().await?;
    conn.close().await?;
    File::open(path)?.sync_all()?;
    Ok(())
}

async fn fill(
    conn: &mut SqliteConnection,
    carried: &Carried,
    replaced: &Replaced,
    now: Timestamp,
) -> Result<(), Cause> {
    let state = [
        (HALT, serde_json::to_value(&carried.halt)?),
        (PAUSED, serde_json::to_value(carried.paused)?),
        (REFUSALS, serde_json::to_value(&carried.refusals)?),
        (REPLACED, serde_json::to_value(replaced)?),
    ];
    for (key, value) in state.iter().filter(|(_, value)| !value.is_null()) {
        set_state(conn, key, &value.to_string()).await?;
    }
    for entry in &carried.entries {
        insert(conn, entry, now).await?;
    }
    for row in carried.named_rows() {
        sqlx::query(
            "INSERT INTO entry (row_id, lane, state, due_at, stored_at, updated_at, pending_since, opened_at_work, events)
             VALUES (?1, 'live', 'pending', ?2, ?2, ?2, ?2, 0, 1)",
        )
        .bind(row.to_string())
        .bind(now.as_millisecond())
        .execute(&mut *conn)
        .await?;
    }
    sqlx::query("INSERT INTO history (entry, nr, at, text) SELECT seq, events, ?, ? FROM entry")
        .bind(now.as_millisecond())
        .bind(serde_json::to_string(&[Fact::CarriedOver])?)
        .execute(&mut *conn)
        .await?;
    // The number of a backfill that is to come is none of those that entries name.
    sqlx::query(
        "UPDATE counter SET n = coalesce((SELECT max(backfill) FROM entry), 0)
         WHERE name = 'backfill'",
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A parked entry stays parked. Any other becomes due now, since its reason to wait may be gone.
async fn insert(conn: &mut SqliteConnection, entry: &Entry, now: Timestamp) -> Result<(), Cause> {
    let is_parked = entry.state == State::Parked;
    let state = if is_parked {
        entry.state
    } else {
        State::Pending
    };
    let progress = entry.progress.clone().without_hashes();
    let columns = ProgressColumns::try_from(&progress)?;
    sqlx::query(
        "INSERT INTO entry (
             row_id, lane, state, due_at, delivery, reason, progress, contact, crm_open, stored_at, updated_at,
             pending_since, opened_at_work, events, backfill
         ) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?4, 0, 1, ?12)",
    )
    .bind(entry.row.to_string())
    .bind(entry.lane)
    .bind(state)
    .bind(now.as_millisecond())
    .bind(&entry.delivery)
    .bind(entry.reason.as_ref().filter(|_| is_parked))
    .bind(columns.progress)
    .bind(columns.contact.map(crate::domain::ContactId::get))
    .bind(columns.crm_open)
    .bind(entry.stored_at.min(now).as_millisecond())
    .bind(entry.updated_at.min(now).as_millisecond())
    .bind(entry.backfill.map(|id| id.0))
    .execute(conn)
    .await?;
    Ok(())
}
