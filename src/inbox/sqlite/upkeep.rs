//! Writes that are not about one entry: the engine's own state, the working clock, what is removed.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::record::{database, json};
use crate::{
    domain::{KeyedHash, RowId},
    inbox::{
        BackfillId, InboxError,
        bounds::{Bounds, CHUNK, CHUNKS, Space},
    },
};

pub(in crate::inbox) async fn set_state(
    conn: &mut SqliteConnection,
    key: &'static str,
    value: &str,
) -> Result<(), InboxError> {
    sqlx::query(
        "INSERT INTO state (key, json) VALUES (?, ?)
         ON CONFLICT (key) DO UPDATE SET json = excluded.json",
    )
    .bind(key)
    .bind(value)
    .execute(conn)
    .await
    .map_err(database("write its state"))?;
    Ok(())
}

pub(in crate::inbox) async fn clear_state(
    conn: &mut SqliteConnection,
    key: &'static str,
) -> Result<(), InboxError> {
    sqlx::query("DELETE FROM state WHERE key = ?")
        .bind(key)
        .execute(conn)
        .await
        .map_err(database("clear its state"))?;
    Ok(())
}

pub(in crate::inbox) async fn begin_backfill(
    conn: &mut SqliteConnection,
) -> Result<BackfillId, InboxError> {
    sqlx::query_scalar("UPDATE counter SET n = n + 1 WHERE name = 'backfill' RETURNING n")
        .fetch_one(conn)
        .await
        .map(BackfillId)
        .map_err(database("number a backfill"))
}

/// What was scheduled before the clock was put back would lie for as long: it is due now. Too early does no harm, whoever
/// claims an entry looks before anything is written. Answers how many there were.
pub(in crate::inbox) const RESCHEDULE: &str = "
    UPDATE entry SET due_at = ?1, updated_at = ?1
    WHERE state IN ('pending', 'waiting') AND updated_at > ?2";

/// Clocks are set right by less than this all the time.
pub(in crate::inbox) const STEP: Duration = Duration::from_secs(5);

pub(in crate::inbox) async fn reschedule(
    conn: &mut SqliteConnection,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    let latest = now.saturating_add(STEP).unwrap_or(Timestamp::MAX);
    let rescheduled = sqlx::query(RESCHEDULE)
        .bind(now.as_millisecond())
        .bind(latest.as_millisecond())
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

/// Answers the new reading in microseconds.
pub(in crate::inbox) async fn add_working_time(
    conn: &mut SqliteConnection,
    by: Duration,
) -> Result<i64, InboxError> {
    sqlx::query_scalar("UPDATE counter SET n = n + ? WHERE name = 'work' RETURNING n")
        .bind(i64::try_from(by.as_micros()).unwrap_or(i64::MAX))
        .fetch_one(conn)
        .await
        .map_err(database("add working time"))
}

pub(in crate::inbox) const PURGE_DONE: &str = "DELETE FROM entry WHERE seq IN (SELECT seq FROM entry WHERE state = 'done' AND updated_at < ? LIMIT ?)";
pub(in crate::inbox) const PURGE_GONE: &str = "DELETE FROM entry WHERE seq IN (SELECT seq FROM entry WHERE outcome = 'gone' AND updated_at < ? LIMIT ?)";
pub(in crate::inbox) const REMOVE_OLDEST: &str = "
    DELETE FROM entry WHERE seq IN (
        SELECT seq FROM entry WHERE state = 'done' ORDER BY updated_at LIMIT ?
    )";

const PAGES: &str = "
    SELECT page_count, freelist_count, page_size
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
/// Both ends of the table, without what lies between.
const AT_MOST: &str =
    "SELECT coalesce((SELECT max(seq) FROM entry) - (SELECT min(seq) FROM entry) + 1, 0)";
const ENTRIES: &str = "SELECT count(*) FROM entry";

/// Answers how many it removed: [`CHUNK`] at most, so that no delivery waits long for the writer. Fewer are the last.
/// History goes with its entry (a foreign key); a person of an entry that stays is still in use.
pub(in crate::inbox) async fn purge_done(
    conn: &mut SqliteConnection,
    before: Timestamp,
    gone_before: Timestamp,
) -> Result<u64, InboxError> {
    let mut purged: u64 = 0;
    for (statement, before) in [(PURGE_DONE, before), (PURGE_GONE, gone_before)] {
        purged += sqlx::query(statement)
            .bind(before.as_millisecond())
            .bind(i64::try_from(u64::from(CHUNK).saturating_sub(purged)).unwrap_or(0))
            .execute(&mut *conn)
            .await
            .map_err(database("purge done entries"))?
            .rows_affected();
    }
    if purged >= u64::from(CHUNK) {
        return Ok(purged);
    }
    sqlx::query(
        "DELETE FROM person
         WHERE used_at < ? AND hash NOT IN (SELECT person FROM entry WHERE person IS NOT NULL)",
    )
    .bind(before.as_millisecond())
    .execute(conn)
    .await
    .map_err(database("purge people"))?;
    Ok(purged)
}

/// Removes the oldest finished entries while the inbox is over its bounds.
pub(in crate::inbox) async fn make_room(
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
        let chunk = sqlx::query(REMOVE_OLDEST)
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
    let (pages, free, size): (i64, i64, i64) = sqlx::query_as(PAGES).fetch_one(&mut *conn).await?;
    let bytes = (pages - free).max(0).unsigned_abs() * size.unsigned_abs();
    if bytes > bounds.bytes {
        return Ok(true);
    }
    // Entries are counted only when there may be too many of them.
    for statement in [AT_MOST, ENTRIES] {
        let entries: i64 = sqlx::query_scalar(statement).fetch_one(&mut *conn).await?;
        if entries.unsigned_abs() <= bounds.entries {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes every trace of these; claimed entries stay, since somebody is at work on them.
pub(in crate::inbox) async fn forget(
    conn: &mut SqliteConnection,
    rows: &[RowId],
    people: &[KeyedHash],
) -> Result<u64, InboxError> {
    let people = json("people", people)?;
    let forgotten = sqlx::query(
        "DELETE FROM entry
         WHERE (row_id IN (SELECT value FROM json_each(?1)) OR person IN (SELECT value FROM json_each(?2)))
           AND state <> 'claimed'",
    )
    .bind(json("rows", rows)?)
    .bind(&people)
    .execute(&mut *conn)
    .await
    .map_err(database("forget entries"))?;
    sqlx::query("DELETE FROM person WHERE hash IN (SELECT value FROM json_each(?))")
        .bind(&people)
        .execute(conn)
        .await
        .map_err(database("forget people"))?;
    Ok(forgotten.rows_affected())
}

/// A write of no other use: shows whether writing works again.
pub(in crate::inbox) async fn probe(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE counter SET n = n + 1 WHERE name = 'probe'")
        .execute(conn)
        .await
        .map(drop)
}
