//! The inbox in a SQLite file: how it is opened and held.

pub(super) mod copy;
mod files;
pub(super) mod mode;
pub(super) mod replace;
pub(super) mod space;

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use sqlx::{
    ConnectOptions, Connection, SqliteConnection, SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::time::Instant;

use self::files::Files;
use super::{Hasher, InboxError, Role, activity, maintenance};
use crate::domain::SharedClock;

static MIGRATOR: Migrator = sqlx::migrate!("src/inbox/migrations/sqlite");

/// How long to wait for another process that writes; its transactions take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// `SQLITE_BUSY`
const LOCKED: i32 = 5;
const LOCKED_PAUSE: Duration = Duration::from_millis(10);

const READERS: u32 = 2;

/// The write-ahead log is written into the file when it has this many pages of 4 KiB: 64 MB. The commit that brings it about
/// waits for that, and so do the events behind it: with SQLite's usual 1,000 pages one in ten of a burst, with these fewer than
/// one in a hundred.
/// A second connection that does it beside the commits would be faster, and dangerous: it may go on with a log that was removed,
/// and write that over the file.
const CHECKPOINT_PAGES: &str = "16000";

/// An opened file, not in use yet.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) link: Link,
    pub(super) readers: SqlitePool,
    pub(super) hasher: Hasher,
    pub(super) last_event: Option<Timestamp>,
    /// Held by an owner as long as it lives.
    pub(super) lock: Option<File>,
}

/// `replaces`: a damaged file is set aside, and a new one takes its place. For an owner.
pub(super) async fn open(
    path: &Path,
    role: Role,
    replaces: bool,
    clock: &SharedClock,
) -> Result<Opened, InboxError> {
    let lock = match role {
        Role::Owner => Some(own(path)?),
        Role::Guest if replace::is_begun(path).is_ok_and(|is_begun| is_begun) => {
            return Err(cannot_open(path, HALF_REPLACED));
        }
        Role::Guest => None,
    };
    // Empty and owned: its owner is just making it.
    let may_judge = || lock.is_some() || matches!(try_lock(path, LOCK), Ok(Some(_)));
    let opened = if is_emptied(path) && may_judge() {
        Err(Damaged::new(EMPTIED).into())
    } else {
        open_file(path, role, clock).await
    };
    let opened = match opened {
        Err(cause) if replaces && cause.is::<Damaged>() => {
            tracing::error!(error = %cause, "inbox.damaged");
            open_new(path, clock).await
        }
        opened => opened,
    };
    let opened = opened.map_err(|cause| cannot_open(path, cause))?;
    if let Some(lock) = &lock {
        mark_used(lock).map_err(|source| cannot_open(path, source))?;
    }
    Ok(Opened { lock, ..opened })
}

async fn open_new(path: &Path, clock: &SharedClock) -> Result<Opened, Cause> {
    let replaced = replace::begin(path, clock.now()).await?;
    replace::complete(path)?;
    tracing::error!(
        is_whole = replaced.is_whole,
        parked = replaced.parked,
        others = replaced.others,
        kept_as = replaced.kept_as,
        "inbox.replaced"
    );
    open_file(path, Role::Owner, clock).await
}

const HALF_REPLACED: &str =
    "a damaged file is being replaced: start the service, which completes that";

const EMPTIED: &str = "it is empty";

/// SQLite takes an empty file for a new one. An owner that has opened the file once marks the lock.
fn is_emptied(path: &Path) -> bool {
    let length = |path: &Path| path.metadata().map(|file| file.len()).ok();
    length(path) == Some(0) && length(&sibling(path, LOCK)).is_some_and(|length| length > 0)
}

/// Marks the file as used: from now on an empty file counts as damaged.
fn mark_used(mut lock: &File) -> io::Result<()> {
    if lock.metadata()?.len() == 0 {
        lock.write_all(b"used\n")?;
        lock.sync_all()?;
    }
    Ok(())
}

/// Takes the owner's lock, and completes what an earlier owner has begun.
fn own(path: &Path) -> Result<File, InboxError> {
    make_folder(path).map_err(|source| cannot_open(path, source))?;
    let lock = try_lock(path, LOCK)?.ok_or_else(|| InboxError::AlreadyOwned {
        path: path.to_owned(),
    })?;
    replace::complete(path).map_err(|source| cannot_open(path, source))?;
    Ok(lock)
}

async fn open_file(path: &Path, role: Role, clock: &SharedClock) -> Result<Opened, Cause> {
    make_folder(path)?;
    private_file(path)?;
    if role == Role::Owner {
        mode::close_to_others(path);
        read_schema(path).await.map_err(Damaged::or)?;
    }
    let options = plain(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES);
    let mut link = Link::new(options.clone());
    let prepared = prepare(&mut link, role, clock).await;
    let (hasher, last_event) = match prepared {
        Ok(prepared) => prepared,
        Err(cause) => {
            link.let_go().await;
            return Err(Damaged::or(cause));
        }
    };

    // Connections for looking keep no journal mode of their own: a read-only one could not set it.
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(plain(path).read_only(true));
    Ok(Opened {
        link,
        readers,
        hasher,
        last_event,
        lock: None,
    })
}

/// Finds a damaged header, by a connection that is closed before any file is renamed. A connection that fails while it is
/// configured closes later, and would remove the log of a new file.
async fn read_schema(path: &Path) -> Result<(), Cause> {
    let mut conn = plain(path).connect().await?;
    let read = sqlx::query("SELECT count(*) FROM sqlite_schema")
        .execute(&mut conn)
        .await;
    let closed = conn.close().await;
    read?;
    Ok(closed?)
}

/// Options for a connection that does not read the file when it is opened.
///
/// A statement about many entries keeps a journal of its own. By default SQLite puts it into a file in the machine's folder for
/// temporary files, which a container that is mounted read-only does not have.
fn plain(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("temp_store", "memory")
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn cannot_open(path: &Path, source: impl Into<Cause>) -> InboxError {
    InboxError::Open {
        path: path.to_owned(),
        source: source.into().into(),
    }
}

/// Readable by its owner alone, as the files are.
fn make_folder(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
    }
    Ok(())
}

/// Readable by its owner alone: the file names every student's row and its state. SQLite gives its side files the same mode.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The lock of the owner.
pub(super) const LOCK: &str = ".lock";
/// The lock of the command that sends to amoCRM beside the owner.
pub(super) const COMMAND_LOCK: &str = ".command";
/// The write-ahead log.
const LOG: &str = "-wal";

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Takes the lock of this name; `None`: another process has it. The lock is a file beside the inbox: on the inbox itself, closing
/// any handle would release SQLite's own locks.
pub(super) fn try_lock(path: &Path, suffix: &str) -> Result<Option<File>, InboxError> {
    let file = private_file(&sibling(path, suffix)).map_err(|source| cannot_open(path, source))?;
    // A command run by root must not leave a file that the service's account cannot open. For other accounts `fchown` fails.
    #[cfg(unix)]
    if let Ok(inbox) = path.metadata() {
        use std::os::unix::fs::{MetadataExt, fchown};
        let _ = fchown(&file, Some(inbox.uid()), Some(inbox.gid()));
    }
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(cannot_open(path, source)),
    }
}

/// SQLite found the file damaged. Its words name pages and tables, no content.
#[derive(Debug, thiserror::Error)]
#[error(
    "the file is damaged ({0}): put a copy back, or start the service, which sets the file aside and begins a new one"
)]
struct Damaged(String);

/// `SQLITE_CORRUPT` and `SQLITE_NOTADB`.
const DAMAGE: [i32; 2] = [11, 26];

impl Damaged {
    /// On one line, as errors are shown.
    fn new(found: &str) -> Self {
        let lines: Vec<&str> = found.lines().map(str::trim).collect();
        Self(lines.join(" "))
    }

    fn or(cause: Cause) -> Cause {
        let first: &(dyn std::error::Error + 'static) = cause.as_ref();
        let damage = std::iter::successors(Some(first), |error| error.source())
            .filter_map(<dyn std::error::Error>::downcast_ref)
            .filter(|error| plain_code(error).is_some_and(|code| DAMAGE.contains(&code)))
            .find_map(sqlx::Error::as_database_error)
            .map(|error| Self::new(error.message()));
        damage.map_or(cause, Into::into)
    }
}

async fn prepare(
    link: &mut Link,
    role: Role,
    clock: &SharedClock,
) -> Result<(Hasher, Option<Timestamp>), Cause> {
    let path = link.options.get_filename().to_owned();
    let conn = link.conn().await?;
    if role == Role::Owner {
        let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&mut *conn)
            .await?;
        if found != "ok" {
            return Err(Damaged::new(&found).into());
        }
        if let Err(error) = space::let_it_shrink(conn, &path).await {
            // It works on as it is, and uses free pages again.
            tracing::warn!(%error, "inbox.cannot_shrink");
        }
    }

    // Under one write lock, so that two processes that make the file at the same moment take turns.
    let mut transaction = conn.begin_with("BEGIN IMMEDIATE").await?;
    MIGRATOR.run(&mut *transaction).await?;
    let key = hash_key(&mut transaction).await?;
    let last_event = activity::last_event(&mut transaction).await?;
    if role == Role::Owner {
        let voided = maintenance::release(&mut transaction, clock.now(), clock.now(), None).await?;
        if voided > 0 {
            tracing::info!(entries = voided, "claims of a former process are void");
        }
    }
    transaction.commit().await?;
    if role == Role::Owner {
        // Alone, since it may be about all entries: within a transaction it would keep a journal of them in memory.
        maintenance::reschedule(conn, clock.now()).await?;
    }

    link.look_for_others().await?;
    link.hold_the_log().await?;
    Ok((Hasher::new(&key), last_event))
}

/// The first process that opens the file makes it.
async fn hash_key(conn: &mut SqliteConnection) -> Result<[u8; 32], Cause> {
    let fresh: [u8; 32] = rand::random();
    sqlx::query("INSERT INTO hash_key (id, key) VALUES (1, ?) ON CONFLICT DO NOTHING")
        .bind(fresh.as_slice())
        .execute(&mut *conn)
        .await?;
    let key: Vec<u8> = sqlx::query_scalar("SELECT key FROM hash_key")
        .fetch_one(conn)
        .await?;
    Ok(key.as_slice().try_into()?)
}

/// While another process turns a new file to write-ahead logging, SQLite says "locked" at once instead of waiting.
async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let give_up = Instant::now() + BUSY_TIMEOUT;
    loop {
        match options.connect().await {
            Err(error) if plain_code(&error) == Some(LOCKED) && Instant::now() < give_up => {
                tokio::time::sleep(LOCKED_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

/// SQLite's primary result code of an error.
fn plain_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

async fn let_go_of(conn: Option<SqliteConnection>) {
    if let Some(conn) = conn {
        let _ = conn.close().await;
    }
}

/// The one connection that writes, made anew after an error.
#[derive(Debug)]
pub(super) struct Link {
    options: SqliteConnectOptions,
    files: Files,
    conn: Option<SqliteConnection>,
    /// Open from the start to the end, and never used. SQLite removes the log with the last connection: while this one is open,
    /// a log that is missing was not removed by SQLite.
    anchor: Option<SqliteConnection>,
    /// `PRAGMA data_version` as last seen: it moves when another connection changes the file.
    version: Option<i64>,
}

impl Link {
    fn new(options: SqliteConnectOptions) -> Self {
        Self {
            files: Files::new(options.get_filename().to_owned()),
            options,
            conn: None,
            anchor: None,
            version: None,
        }
    }

    /// From now on the log is watched as the other files are.
    async fn hold_the_log(&mut self) -> Result<(), sqlx::Error> {
        let path = self.options.get_filename().to_owned();
        let mut anchor = plain(&path).read_only(true).connect().await?;
        // The first statement opens the log.
        sqlx::query("SELECT count(*) FROM sqlite_schema")
            .execute(&mut anchor)
            .await?;
        self.anchor = Some(anchor);
        Ok(())
    }

    pub(super) async fn conn(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        let conn = if let Some(conn) = self.conn.take() {
            conn
        } else {
            // A file that was replaced is not opened: the acknowledged entries are in the former one.
            self.look_at_files()?;
            connect(&self.options).await?
        };
        Ok(self.conn.insert(conn))
    }

    /// After an error the state of the transaction is unknown. A new connection has none.
    pub(super) fn drop_connection(&mut self) {
        let conn = self.conn.take();
        if self.files.are_lost() {
            // On close, SQLite would remove the log of this name, which may belong to another file by now. The process ends
            // soon.
            std::mem::forget((conn, self.anchor.take()));
        }
        self.version = None;
    }

    /// Writes the log into the file, so that the log begins anew: on a full disk what it takes is room for the next writes.
    /// Best effort: what is in the log is on disk.
    pub(super) async fn fold_the_log(&mut self) {
        let folded = async {
            let conn = self.conn().await?;
            sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
                .execute(conn)
                .await
        };
        if let Err(error) = folded.await {
            tracing::warn!(%error, "the log could not be written into the inbox");
            self.drop_connection();
        }
    }

    /// Checks that the writes are in the files of these names.
    pub(super) fn look_at_files(&mut self) -> Result<(), sqlx::Error> {
        Ok(self.files.look(self.anchor.is_some())?)
    }

    pub(super) fn are_files_lost(&self) -> bool {
        self.files.are_lost()
    }

    /// Whether another process has changed the file since the last call.
    pub(super) async fn look_for_others(&mut self) -> Result<bool, sqlx::Error> {
        let version = sqlx::query_scalar("PRAGMA data_version")
            .fetch_one(self.conn().await?)
            .await?;
        // The version of a new connection cannot be compared, so it counts as a change by another process.
        Ok(self.version.replace(version) != Some(version))
    }

    /// Closes without a word: the file cannot be used, and may be about to be renamed.
    async fn let_go(mut self) {
        let_go_of(self.anchor.take()).await;
        let_go_of(self.conn.take()).await;
    }

    /// Best effort: all acknowledged writes are on disk already.
    pub(super) async fn close(mut self) {
        if self.are_files_lost() {
            return;
        }
        // First, so that the other one is the last and leaves no log.
        let_go_of(self.anchor.take()).await;
        self.fold_the_log().await;
        let_go_of(self.conn.take()).await;
    }
}
