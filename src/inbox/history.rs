//! The history of each row, line by line.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::SqliteConnection;

use super::{
    InboxError,
    record::{database, json},
};

/// Lines kept of a row's history: a row that is looked up daily for three months has about a hundred.
const KEPT: i64 = 200;

/// An entry by its key, the number of its newest event, and the line about it.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a>(pub(super) i64, pub(super) i64, pub(super) &'a str);

/// Appends these lines. Each pushes an old one out once the history of its entry is long.
pub(super) async fn append(
    conn: &mut SqliteConnection,
    now: Timestamp,
    lines: &[Line<'_>],
) -> Result<(), InboxError> {
    if lines.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO history (entry, nr, at, text)
         SELECT value ->> 0, value ->> 1, ?2, value ->> 2 FROM json_each(?1)",
    )
    .bind(json("history", lines)?)
    .bind(now.as_millisecond())
    .execute(&mut *conn)
    .await
    .map_err(database("write history"))?;

    let old = lines.iter().map(|Line(entry, nr, _)| (*entry, nr - KEPT));
    let old: Vec<(i64, i64)> = old.filter(|(_, nr)| *nr > 0).collect();
    if old.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM history
         WHERE (entry, nr) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))",
    )
    .bind(json("history", &old)?)
    .execute(conn)
    .await
    .map(drop)
    .map_err(database("shorten history"))
}
