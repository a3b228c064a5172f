//! Maintenance: removes entries or gives them back, reschedules after the clock was put back, keeps the bounds, shrinks the
//! file, and probes whether writing works.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, SqliteConnection, query, query_as, query_scalar};

use super::{
    ClaimToken, Inbox, InboxError,
    activity::Counted,
    bounds::{Bounds, CHUNK, CHUNKS, GONE_KEPT, Space, free_to_keep},
    record::{database, execute, json},
};
use crate::domain::{KeyedHash, RowId};

pub(super) const PURGE_DONE: &str = "DELETE FROM entry WHERE seq IN (SELECT seq FROM entry WHERE state = 'done' AND updated_at < ? LIMIT ?)";
pub(super) const PURGE_GONE: &str = "DELETE FROM entry WHERE seq IN (SELECT seq FROM entry WHERE outcome = 'gone' AND updated_at < ? LIMIT ?)";
pub(super) const REMOVE_OLDEST: &str = "
    DELETE FROM entry WHERE seq IN (
        SELECT seq FROM entry WHERE state = 'done' ORDER BY updated_at LIMIT ?
    )";

const PURGE_PEOPLE: &str = "
    DELETE FROM person
    WHERE used_at < ? AND hash NOT IN (SELECT person FROM entry WHERE person IS NOT NULL)";

const FORGET: [&str; 3] = [
    "DELETE FROM entry
     WHERE row_id IN (SELECT value FROM json_each(?1)) OR person IN (SELECT value FROM json_each(?2))",
    "DELETE FROM person WHERE hash IN (SELECT value FROM json_each(?2))",
    FORGET_INDEXED,
];
const FORGET_INDEXED: &str =
    "DELETE FROM contact_index WHERE hash IN (SELECT unhex(value) FROM json_each(?2))";
/// Claimed entries stay, since they are being worked on.
const REMOVE: &str = "
    DELETE FROM entry
    WHERE row_id IN (SELECT value FROM json_each(?1)) AND state <> 'claimed'";
/// Claimed, or with a write that may still land: without its entry the row would be synced once more beside it.
const AT_WORK: &str = "
    SELECT count(*) FROM entry
    WHERE (row_id IN (SELECT value FROM json_each(?1)) OR person IN (SELECT value FROM json_each(?2)))
        AND (
            state = 'claimed'
            OR (
                progress ->> '$.intent' IS NOT NULL
                AND coalesce(unixepoch(progress ->> '$.intent.decisive_from') >= ?3, true)
            )
        )";

const PAGES: &str = "
    SELECT page_count, freelist_count, page_size
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
/// The most pages that are given back at a time: some 4 MB.
const GIVE_BACK: i64 = 1_000;
/// An upper bound of the number of entries, from both ends of the table.
const AT_MOST: &str =
    "SELECT coalesce((SELECT max(seq) FROM entry) - (SELECT min(seq) FROM entry) + 1, 0)";
const ENTRIES: &str = "SELECT count(*) FROM entry";

impl Inbox {
    /// Deletes `done` entries, their history, and people not used since. Answers how many entries.
    pub async fn purge_done(&self, before: Timestamp) -> Result<u64, InboxError> {
        let mut purged = 0;
        loop {
            let removed = self.purge_some(before).await?;
            purged += removed;
            if removed < u64::from(CHUNK) {
                return Ok(purged);
            }
        }
    }

    /// Returns how many entries it removed: [`CHUNK`] at most, so that no delivery waits long for the writer; fewer if none
    /// is left. History is removed with its entry (a foreign key). A person of an entry that stays is still in use.
    async fn purge_some(&self, before: Timestamp) -> Result<u64, InboxError> {
        self.write(move |turn| {
            Box::pin(async move {
                let gone_before = turn.now.saturating_sub(GONE_KEPT);
                let gone_before = gone_before.unwrap_or(Timestamp::MIN);
                let mut purged: u64 = 0;
                for (statement, before) in [(PURGE_DONE, before), (PURGE_GONE, gone_before)] {
                    let left = u64::from(CHUNK).saturating_sub(purged);
                    let purge = query(statement)
                        .bind(before.as_millisecond())
                        .bind(i64::try_from(left).unwrap_or(0));
                    purged += execute(turn.conn, "purge done entries", purge).await?;
                }
                if purged < u64::from(CHUNK) {
                    let purge = query(PURGE_PEOPLE).bind(before.as_millisecond());
                    execute(turn.conn, "purge people", purge).await?;
                }
                Ok(purged)
            })
        })
        .await
    }

    /// Removes these entries, unless they are claimed.
    pub async fn remove(&self, rows: Vec<RowId>) -> Result<(), InboxError> {
        let rows = json("rows", &rows)?;
        self.write(move |turn| {
            Box::pin(async move {
                let remove = query(REMOVE).bind(rows);
                execute(turn.conn, "remove entries", remove).await.map(drop)
            })
        })
        .await
    }

    /// Removes these rows and these people (hashes of e-mails), and returns how many records are gone. Phones stay in the
    /// contact index, which would else claim that no contact has them. `None`: a row is at work, or a write of it may still
    /// land; nothing is removed.
    pub async fn forget(
        &self,
        rows: Vec<RowId>,
        people: Vec<KeyedHash>,
    ) -> Result<Option<u64>, InboxError> {
        let (rows, people) = (json("rows", &rows)?, json("people", &people)?);
        self.write(move |turn| {
            Box::pin(async move {
                let at_work: i64 = query_scalar(AT_WORK)
                    .bind(&rows)
                    .bind(&people)
                    .bind(turn.now.as_second())
                    .fetch_one(&mut *turn.conn)
                    .await
                    .map_err(database("forget"))?;
                if at_work > 0 {
                    return Ok(None);
                }
                let mut forgotten = 0;
                for statement in FORGET {
                    let forget = query(statement).bind(&rows).bind(&people);
                    let done = execute(turn.conn, "forget", forget).await?;
                    if statement == FORGET_INDEXED {
                        let done = i64::try_from(done).unwrap_or(i64::MAX);
                        Counted::indexed(-done).store(turn.conn).await?;
                    }
                    forgotten += done;
                }
                Ok(Some(forgotten))
            })
        })
        .await
    }
}

/// Gives back what these claims hold, or all claims if none is named. Answers how many entries.
pub(super) async fn release(
    conn: &mut SqliteConnection,
    now: Timestamp,
    due_at: Timestamp,
    claims: Option<&[ClaimToken]>,
) -> Result<u64, sqlx::Error> {
    let claims = claims.map(|claims| claims.iter().map(|it| it.0).collect::<serde_json::Value>());
    let released = query(
        "UPDATE entry SET state = 'pending', claim = NULL, due_at = iif(updated_at > ?4, ?1, min(?3, ?5)), updated_at = ?1
         WHERE state = 'claimed' AND (?2 IS NULL OR claim IN (SELECT value FROM json_each(?2)))",
    )
    .bind(now.as_millisecond())
    .bind(claims.map(|claims| claims.to_string()))
    .bind(due_at.as_millisecond())
    .bind(beyond_a_step(now).as_millisecond())
    .bind(latest_rest(now).as_millisecond())
    .execute(conn)
    .await?;
    Ok(released.rows_affected())
}

/// Entries scheduled before the clock was put back would rest too long, so they become due now. An early attempt does no
/// harm: the row is read before anything is written for it. An entry at work becomes due when its attempt ends.
pub(super) const RESCHEDULE: &str = "
    UPDATE entry SET due_at = ?1, updated_at = ?1
    WHERE state IN ('pending', 'waiting') AND updated_at > ?2";

/// Smaller corrections of the clock are normal.
const STEP: Duration = Duration::from_secs(5);

/// What was written at a later time than this was written before the clock was put back.
pub(super) fn beyond_a_step(now: Timestamp) -> Timestamp {
    now.saturating_add(STEP).unwrap_or(Timestamp::MAX)
}

/// The longest rest of an entry. A time computed before the clock was put back, or named by a neighbour, may be years away.
/// The rest of a daily search is shorter.
pub(super) const LONGEST_REST: Duration = Duration::from_hours(25);

pub(super) fn latest_rest(now: Timestamp) -> Timestamp {
    now.saturating_add(LONGEST_REST).unwrap_or(Timestamp::MAX)
}

/// Answers how many entries were rescheduled.
pub(super) async fn reschedule(
    conn: &mut SqliteConnection,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    let rescheduled = query(RESCHEDULE)
        .bind(now.as_millisecond())
        .bind(beyond_a_step(now).as_millisecond())
        .execute(conn)
        .await?
        .rows_affected();
    if rescheduled > 0 {
        tracing::warn!(
            entries = rescheduled,
            "the clock was put back: all are due now"
        );
    }
    Ok(rescheduled)
}

/// Removes the oldest finished entries while the inbox is over its bounds.
pub(super) async fn make_room(
    conn: &mut SqliteConnection,
    bounds: Bounds,
) -> Result<Space, sqlx::Error> {
    if !is_over(conn, bounds).await? {
        return Ok(Space::Enough);
    }
    let mut removed = 0;
    let mut space = Space::Clearing;
    for _ in 0..CHUNKS {
        if !is_over(conn, bounds.with_room()).await? {
            space = Space::Enough;
            break;
        }
        let chunk = query(REMOVE_OLDEST)
            .bind(CHUNK)
            .execute(&mut *conn)
            .await?
            .rows_affected();
        removed += chunk;
        if chunk == 0 {
            let is_full = is_over(conn, bounds).await?;
            space = if is_full { Space::Full } else { Space::Enough };
            break;
        }
    }
    if removed > 0 {
        tracing::warn!(removed, "inbox.cleared");
    }
    Ok(space)
}

async fn is_over(conn: &mut SqliteConnection, bounds: Bounds) -> Result<bool, sqlx::Error> {
    let (pages, free, size): (i64, i64, i64) = query_as(PAGES).fetch_one(&mut *conn).await?;
    let bytes = (pages - free).max(0).unsigned_abs() * size.unsigned_abs();
    if bytes > bounds.bytes {
        return Ok(true);
    }
    // Entries are counted only when there may be too many of them.
    for statement in [AT_MOST, ENTRIES] {
        let entries: i64 = query_scalar(statement).fetch_one(&mut *conn).await?;
        if entries.unsigned_abs() <= bounds.entries {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives free pages back to the disk, a part of them at a time, so that no delivery waits long. Answers whether more are to
/// be given back. A file that cannot shrink keeps its free pages for new entries.
pub(super) async fn give_back(conn: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let (pages, free, _): (i64, i64, i64) = query_as(PAGES).fetch_one(&mut *conn).await?;
    let excess = free - free_to_keep(pages);
    if excess <= 0 {
        return Ok(false);
    }
    let part = excess.min(GIVE_BACK);
    // A pragma takes no bound value.
    query(AssertSqlSafe(format!("PRAGMA incremental_vacuum({part})")))
        .execute(&mut *conn)
        .await?;
    let (pages, left, _): (i64, i64, i64) = query_as(PAGES).fetch_one(&mut *conn).await?;
    if left < free && left > free_to_keep(pages) {
        return Ok(true);
    }
    // The file itself shrinks when the log is carried over into it.
    query("PRAGMA wal_checkpoint(PASSIVE)")
        .execute(conn)
        .await?;
    Ok(false)
}

/// A write of no other use: shows whether writing works again.
pub(super) async fn probe(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    query("UPDATE counter SET n = n + 1 WHERE name = 'probe'")
        .execute(conn)
        .await
        .map(drop)
}
