//! Writes that are not about one entry: the engine's own state, the working clock, what is removed.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::record::{database, json};
use crate::{
    domain::{KeyedHash, RowId},
    inbox::{BackfillId, InboxError},
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

/// History goes with its entry (a foreign key); a person of an entry that stays is still in use.
pub(in crate::inbox) async fn purge_done(
    conn: &mut SqliteConnection,
    before: Timestamp,
) -> Result<u64, InboxError> {
    let purged = sqlx::query("DELETE FROM entry WHERE state = 'done' AND updated_at < ?")
        .bind(before.as_millisecond())
        .execute(&mut *conn)
        .await
        .map_err(database("purge done entries"))?;
    sqlx::query(
        "DELETE FROM person
         WHERE used_at < ? AND hash NOT IN (SELECT person FROM entry WHERE person IS NOT NULL)",
    )
    .bind(before.as_millisecond())
    .execute(conn)
    .await
    .map_err(database("purge people"))?;
    Ok(purged.rows_affected())
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
