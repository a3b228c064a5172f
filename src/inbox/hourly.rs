//! The last 31 days, hour by hour: how many rows were synced, and how many waited and were parked.

use jiff::Timestamp;
use sqlx::{SqliteConnection, query, query_as};

use super::{
    Inbox, InboxError,
    record::{Query, execute},
};

const MILLISECONDS: i64 = 3_600_000;

/// Hours that are kept.
const KEPT: i64 = 31 * 24;

const COUNT: &str = "
    INSERT INTO hourly (hour, synced) VALUES (?1, ?2)
    ON CONFLICT (hour) DO UPDATE SET synced = synced + excluded.synced";

/// Reads the unfinished entries in the index.
pub(super) const LOOK: &str = "
    INSERT INTO hourly (hour, waiting, parked)
    SELECT ?1, count(*) FILTER (WHERE state <> 'parked'), count(*) FILTER (WHERE state = 'parked')
    FROM entry WHERE state IN ('pending', 'claimed', 'waiting', 'parked')
    ON CONFLICT (hour) DO UPDATE SET waiting = excluded.waiting, parked = excluded.parked";

const FORGET: &str = "DELETE FROM hourly WHERE hour <= ?1";

pub(super) const HOURS: &str =
    "SELECT hour, synced, waiting, parked FROM hourly WHERE hour > ?1 ORDER BY hour LIMIT 1000";

/// What is known of an hour in which something was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hour {
    pub from: Timestamp,
    pub synced: u64,
    /// Neither done nor parked, when that was last looked at in this hour. `None`: it was not.
    pub waiting: Option<u64>,
    /// As `waiting`.
    pub parked: Option<u64>,
}

fn hour_of(at: Timestamp) -> i64 {
    at.as_millisecond().div_euclid(MILLISECONDS)
}

/// Counts rows that were synced just now.
pub(super) async fn count_synced(
    conn: &mut SqliteConnection,
    now: Timestamp,
    synced: usize,
) -> Result<(), InboxError> {
    if synced == 0 {
        return Ok(());
    }
    let synced = i64::try_from(synced).unwrap_or(i64::MAX);
    let count = query(COUNT).bind(hour_of(now)).bind(synced);
    execute(conn, "count what was synced", count)
        .await
        .map(drop)
}

impl Inbox {
    /// Keeps how many entries wait and are parked, for this hour, and drops what is older than 31 days.
    pub async fn keep_hour(&self) -> Result<(), InboxError> {
        self.write(|turn| {
            Box::pin(async move {
                let hour = hour_of(turn.now);
                for statement in [query(LOOK).bind(hour), query(FORGET).bind(hour - KEPT)] {
                    execute(turn.conn, "keep the numbers of an hour", statement).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// The hours of the 31 days before `now` of which something is known, the oldest first.
    pub async fn hours(&self, now: Timestamp) -> Result<Vec<Hour>, InboxError> {
        let query: Query<(i64, i64, Option<i64>, Option<i64>)> =
            query_as(HOURS).bind(hour_of(now) - KEPT);
        let hours = self.read("read the numbers of its hours", query).await?;
        let hour = |(hour, synced, waiting, parked): (i64, i64, Option<i64>, Option<i64>)| {
            let from = Timestamp::from_millisecond(hour.saturating_mul(MILLISECONDS));
            Ok(Hour {
                from: from.map_err(|_| InboxError::Corrupt { what: "hour" })?,
                synced: synced.unsigned_abs(),
                waiting: waiting.map(i64::unsigned_abs),
                parked: parked.map(i64::unsigned_abs),
            })
        };
        hours.into_iter().map(hour).collect()
    }
}
