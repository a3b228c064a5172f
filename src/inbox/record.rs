//! How entries lie in the table.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use sqlx::{
    Decode, Sqlite, SqliteConnection, Type,
    error::BoxDynError,
    query::QueryAs,
    sqlite::{SqliteArguments, SqliteTypeInfo, SqliteValueRef},
};

use super::{BackfillId, Entry, InboxError, Lane, Outcome, Progress, State};
use crate::domain::{ContactId, KeyedHash, RowId};

/// A statement with all its values, and what its rows are read as.
pub(super) type Query<T> = QueryAs<'static, Sqlite, T, SqliteArguments>;

/// Types that are stored as text.
macro_rules! stored_as_text {
    ($($name:ty),*) => {$(
        impl Type<Sqlite> for $name {
            fn type_info() -> SqliteTypeInfo {
                <str as Type<Sqlite>>::type_info()
            }
        }

        impl<'r> Decode<'r, Sqlite> for $name {
            fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
                Ok(<&str as Decode<'r, Sqlite>>::decode(value)?.parse()?)
            }
        }
    )*};
}

stored_as_text!(RowId, KeyedHash);

/// One row of the table `entry`.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct EntryRecord {
    pub(super) seq: i64,
    row_id: String,
    lane: Lane,
    state: State,
    pub(super) due_at: i64,
    attempts: u32,
    delivery: Option<String>,
    outcome: Option<Outcome>,
    backfill: Option<i64>,
    reason: Option<String>,
    progress: String,
    stored_at: i64,
    updated_at: i64,
}

impl TryFrom<EntryRecord> for Entry {
    type Error = InboxError;

    fn try_from(record: EntryRecord) -> Result<Self, InboxError> {
        Ok(Self {
            row: (record.row_id.parse()).map_err(|_| InboxError::Corrupt { what: "row id" })?,
            lane: record.lane,
            state: record.state,
            due_at: timestamp(record.due_at)?,
            attempts: record.attempts,
            delivery: record.delivery,
            outcome: record.outcome,
            backfill: record.backfill.map(BackfillId),
            reason: record.reason,
            progress: serde_json::from_str(&record.progress)
                .map_err(|_| InboxError::Corrupt { what: "progress" })?,
            stored_at: timestamp(record.stored_at)?,
            updated_at: timestamp(record.updated_at)?,
        })
    }
}

/// Progress as it is written: the JSON, and the columns that others are compared by.
#[derive(Debug, Serialize)]
pub(super) struct ProgressColumns {
    pub(super) progress: String,
    person: Option<KeyedHash>,
    phone: Option<KeyedHash>,
    pub(super) contact: Option<ContactId>,
    pub(super) crm_open: bool,
}

impl TryFrom<&Progress> for ProgressColumns {
    type Error = InboxError;

    fn try_from(progress: &Progress) -> Result<Self, InboxError> {
        Ok(Self {
            progress: json("progress", progress)?,
            person: progress.person,
            phone: progress.phone,
            contact: progress.step.contact(),
            crm_open: progress.is_open(),
        })
    }
}

pub(super) fn timestamp(milliseconds: i64) -> Result<Timestamp, InboxError> {
    Timestamp::from_millisecond(milliseconds).map_err(|_| InboxError::Corrupt { what: "time" })
}

pub(super) fn json<T: Serialize + ?Sized>(
    what: &'static str,
    value: &T,
) -> Result<String, InboxError> {
    serde_json::to_string(value).map_err(|_| InboxError::Corrupt { what })
}

/// Runs a statement that has no rows. Answers how many rows of its table it has changed.
pub(super) async fn execute(
    conn: &mut SqliteConnection,
    what: &'static str,
    statement: sqlx::query::Query<'_, Sqlite, SqliteArguments>,
) -> Result<u64, InboxError> {
    let done = statement.execute(conn).await.map_err(database(what))?;
    Ok(done.rows_affected())
}

/// For `map_err`: a value that cannot be decoded is a corrupt value, any other error is one of the database.
pub(super) fn database(what: &'static str) -> impl FnOnce(sqlx::Error) -> InboxError {
    move |source| match source {
        sqlx::Error::ColumnDecode { .. } => InboxError::Corrupt { what },
        sqlx::Error::PoolClosed => InboxError::Closed,
        source => InboxError::Database {
            what,
            source: Arc::new(source),
        },
    }
}
