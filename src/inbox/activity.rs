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

const INDEXED: &str = "contact_index";

const LAST_EVENT: &str = "last_event";

/// A number is added to; of the last event the time is kept.
const COUNT: &str = "
    INSERT INTO counter (name, n) SELECT key, value FROM json_each(?1) WHERE true
    ON CONFLICT (name) DO UPDATE SET n = iif(name = 'last_event', excluded.n, counter.n + excluded.n)";

/// Changes to counters, by their names.
#[derive(Debug, Default, Serialize)]
pub(super) struct Counted(HashMap<&'static str, i64>);

impl Counted {
    /// Of a row that the inbox did not know.
    pub(super) fn found(&mut self, source: &Source) {
        let name = match source {
            Source::Webhook { .. } => "found_event",
            Source::ShortSweep => "found_short_sweep",
            Source::Sweep => "found_sweep",
            Source::Backfill(_) => "found_backfill",
        };
        *self.0.entry(name).or_default() += 1;
    }

    pub(super) fn event(&mut self, at: Timestamp) {
        self.0.insert(LAST_EVENT, at.as_millisecond());
    }

    /// Hashes that were added to the contact index, less those that were removed.
    pub(super) fn indexed(change: i64) -> Self {
        Self(HashMap::from([(INDEXED, change)]))
    }

    pub(super) async fn store(self, conn: &mut SqliteConnection) -> Result<(), InboxError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let count = query(COUNT).bind(json("counters", &self)?);
        execute(conn, "count", count).await.map(drop)
    }
}

pub(super) async fn last_event(
    conn: &mut SqliteConnection,
) -> Result<Option<Timestamp>, sqlx::Error> {
    let stored: Option<(i64,)> = query_as("SELECT n FROM counter WHERE name = 'last_event'")
        .fetch_optional(conn)
        .await?;
    Ok(stored.and_then(|(at,)| Timestamp::from_millisecond(at).ok()))
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
            indexed: count(INDEXED),
        })
    }
}
