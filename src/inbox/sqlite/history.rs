//! The story of each row, line by line.

use std::collections::HashSet;

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::record::{database, json};
use crate::{domain::RowId, inbox::InboxError};

/// Lines kept of a row's history: a row that is looked up daily for three months has about a hundred.
const HISTORY_KEPT: i64 = 200;

/// Appends one line to the history of each row; its number is the entry's count of events, raised before.
pub(super) async fn tell<'a>(
    conn: &mut SqliteConnection,
    now: Timestamp,
    lines: impl Iterator<Item = (RowId, &'a str)>,
) -> Result<(), InboxError> {
    let lines: Vec<(RowId, &str)> = lines.collect();
    if lines.is_empty() {
        return Ok(());
    }
    // CROSS JOIN is SQLite's way to say in which order to loop.
    sqlx::query(
        "INSERT INTO history (entry, nr, at, text)
         SELECT entry.seq, entry.events, ?2, line.value ->> 1
         FROM json_each(?1) AS line CROSS JOIN entry ON entry.row_id = line.value ->> 0",
    )
    .bind(json("history", &lines)?)
    .bind(now.as_millisecond())
    .execute(conn)
    .await
    .map_err(database("write history"))?;
    Ok(())
}

/// One line was added to each, so one falls off the end of each.
pub(super) async fn drop_old_history(
    conn: &mut SqliteConnection,
    rows: &HashSet<RowId>,
) -> Result<(), InboxError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM history WHERE (entry, nr) IN (
             SELECT entry.seq, entry.events - ?2
             FROM json_each(?1) AS told CROSS JOIN entry ON entry.row_id = told.value
         )",
    )
    .bind(json("rows", rows)?)
    .bind(HISTORY_KEPT)
    .execute(conn)
    .await
    .map_err(database("shorten history"))?;
    Ok(())
}
