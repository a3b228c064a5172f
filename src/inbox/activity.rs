//! How and when rows were found: for metrics and for `/readyz`.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use sqlx::{SqliteConnection, query, query_as};

use super::{
    Inbox, InboxError, Source,
    record::{execute, json},
};

/// When rows were last looked for and heard of. `None`: never, as far as is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// The newest event that was stored, also one of a known row. Outlives a restart.
    pub event: Option<Timestamp>,
    /// The last short sweep that was completed since the start.
    pub short_sweep: Option<Timestamp>,
    /// The last sweep that was completed since the start.
    pub sweep: Option<Timestamp>,
}

impl Activity {
    /// The last sweep of either kind.
    #[must_use]
    pub fn any_sweep(self) -> Option<Timestamp> {
        self.short_sweep.max(self.sweep)
    }
}

/// A completed sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// The newest rows.
    Short,
    All,
}

/// Numbers that only grow, and the size of the contact index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// Rows that the inbox did not know, by how they were first found. They outlive a restart, and rows of a backfill that
    /// another process has stored are among them.
    pub found: [(&'static str, u64); 4],
    /// Hashes in the contact index.
    pub indexed: u64,
}

/// The names of the ways to find a row, each with its counter.
const FOUND: [(&str, &str); 4] = [
    ("event", "found_event"),
    ("short_sweep", "found_short_sweep"),
    ("sweep", "found_sweep"),
    ("backfill", "found_backfill"),
];

const COUNT_FOUND: &str = "
    UPDATE counter SET n = counter.n + found.value
    FROM (SELECT key, value FROM json_each(?1)) AS found WHERE counter.name = found.key";

const COUNT_INDEXED: &str = "UPDATE counter SET n = n + ? WHERE name = 'contact_index'";

const HEARD: &str = "
    INSERT INTO counter (name, n) VALUES ('last_event', ?1) ON CONFLICT (name) DO UPDATE SET n = excluded.n";

const LAST_EVENT: &str = "SELECT n FROM counter WHERE name = 'last_event'";

/// The numbers of rows to be counted, by the names of their counters.
#[derive(Debug, Default, Serialize)]
pub(super) struct Found(HashMap<&'static str, u64>);

impl Found {
    pub(super) fn add(&mut self, source: &Source) {
        let name = match source {
            Source::Webhook { .. } => "found_event",
            Source::ShortSweep => "found_short_sweep",
            Source::Sweep => "found_sweep",
            Source::Backfill(_) => "found_backfill",
        };
        *self.0.entry(name).or_default() += 1;
    }

    pub(super) async fn store(self, conn: &mut SqliteConnection) -> Result<(), InboxError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let count = query(COUNT_FOUND).bind(json("counters", &self)?);
        execute(conn, "count rows", count).await.map(drop)
    }
}

pub(super) async fn heard(conn: &mut SqliteConnection, at: Timestamp) -> Result<(), InboxError> {
    let hear = query(HEARD).bind(at.as_millisecond());
    execute(conn, "note an event", hear).await.map(drop)
}

pub(super) async fn last_event(
    conn: &mut SqliteConnection,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let stored: Option<(i64,)> = query_as(LAST_EVENT).fetch_optional(conn).await?;
    Ok(stored.and_then(|(at,)| Timestamp::from_millisecond(at).ok()))
}

/// `change`: hashes that were added to the contact index, less those that were removed.
pub(super) async fn count_indexed(
    conn: &mut SqliteConnection,
    change: i64,
) -> Result<(), InboxError> {
    let count = query(COUNT_INDEXED).bind(change);
    execute(conn, "count the contact index", count)
        .await
        .map(drop)
}

impl Inbox {
    /// Never touches the database.
    #[must_use]
    pub fn activity(&self) -> Activity {
        self.shared.signals.activity()
    }

    /// A sweep was completed just now.
    pub fn swept(&self, sweep: Sweep) {
        let now = self.shared.clock.now();
        self.shared.signals.change_activity(|activity| match sweep {
            Sweep::Short => activity.short_sweep = Some(now),
            Sweep::All => activity.sweep = Some(now),
        });
    }

    pub async fn counters(&self) -> Result<Counters, InboxError> {
        let query = query_as("SELECT name, n FROM counter");
        let counters: Vec<(String, i64)> = self.read("read its counters", query).await?;
        let counters: HashMap<String, i64> = counters.into_iter().collect();
        let count = |name: &str| counters.get(name).map_or(0, |n| n.unsigned_abs());
        Ok(Counters {
            found: FOUND.map(|(found_by, name)| (found_by, count(name))),
            indexed: count("contact_index"),
        })
    }
}
