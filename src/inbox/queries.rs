//! The queries: what can be asked of the inbox. They run on the read-only connections, beside the writer.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{FromRow, query_as, sqlite::SqliteRow};

use super::{
    BackfillId, Counts, Entry, Heard, HistoryLine, Inbox, InboxError, Known, OpenWork, Outcome,
    PlacedFor, State, Stuck, Synced, Tally, history,
    record::{EntryRecord, Query, database, json, timestamp},
};
use crate::domain::{ContactId, DealId, KeyedHash, RowId};

pub(super) const STATES_OF: &str =
    "SELECT row_id, state FROM entry WHERE row_id IN (SELECT value FROM json_each(?1))";

pub(super) const TALLY: &str = "
    SELECT state, outcome, count(*), sum(due_at <= ?2), min(due_at) FROM entry
    WHERE backfill = ?1 GROUP BY state, outcome";

/// The newest of each state are taken from the index, so that years of `done` entries are not read.
pub(super) const ENTRIES: &str = "
    SELECT * FROM entry
    WHERE seq IN (
        SELECT seq FROM (
            SELECT * FROM (SELECT seq, updated_at FROM entry WHERE state = 'pending' ORDER BY updated_at DESC, seq DESC LIMIT ?1 + ?2)
            UNION ALL
            SELECT * FROM (SELECT seq, updated_at FROM entry WHERE state = 'claimed' ORDER BY updated_at DESC, seq DESC LIMIT ?1 + ?2)
            UNION ALL
            SELECT * FROM (SELECT seq, updated_at FROM entry WHERE state = 'waiting' ORDER BY updated_at DESC, seq DESC LIMIT ?1 + ?2)
            UNION ALL
            SELECT * FROM (SELECT seq, updated_at FROM entry WHERE state = 'parked' ORDER BY updated_at DESC, seq DESC LIMIT ?1 + ?2)
            UNION ALL
            SELECT * FROM (SELECT seq, updated_at FROM entry WHERE state = 'done' ORDER BY updated_at DESC, seq DESC LIMIT ?1 + ?2)
        )
        ORDER BY updated_at DESC, seq DESC LIMIT ?1 OFFSET ?2
    )
    ORDER BY updated_at DESC, seq DESC";

pub(super) const ENTRIES_IN_STATE: &str = "
    SELECT * FROM entry
    WHERE seq IN (SELECT seq FROM entry WHERE state = ?3 ORDER BY updated_at DESC, seq DESC LIMIT ?1 OFFSET ?2)
    ORDER BY updated_at DESC, seq DESC";

/// By a deal or a contact that was chosen for a row.
pub(super) const ENTRIES_WITH: &str = "
    SELECT * FROM entry
    WHERE seq IN (SELECT seq FROM entry WHERE chosen_deal = ?1 UNION SELECT seq FROM entry WHERE contact = ?1)
    ORDER BY updated_at DESC LIMIT 100";

/// Not of an entry whose move was undone.
pub(super) const PLACED: &str = "
    SELECT
        row_id, chosen_deal, updated_at,
        iif(progress ->> '$.placed' = 'moved' AND progress ->> '$.moved.deal' = chosen_deal, progress ->> '$.moved.at', NULL)
    FROM entry
    WHERE chosen_deal IN (SELECT value FROM json_each(?1))
        AND progress ->> '$.placed' IS NOT NULL AND coalesce(progress ->> '$.undo', '') NOT IN ('back', 'again')";

const HISTORY: &str = "
    SELECT at, text FROM history
    WHERE entry = (SELECT seq FROM entry WHERE row_id = ?1) ORDER BY nr";

const HEARD: &str = "
    SELECT
        count(*), count(delivery), max(stored_at) FILTER (WHERE delivery IS NOT NULL),
        count(*) FILTER (
            WHERE backfill IS NULL
              AND seq > coalesce((SELECT max(seq) FROM entry WHERE delivery IS NOT NULL), 0))
    FROM entry";

pub(super) const PARKED_AFTER: &str = "
    SELECT row_id, reason, updated_at FROM entry WHERE state = 'parked' AND updated_at > ?1
    ORDER BY updated_at, seq";

pub(super) const PENDING_SINCE: &str = "
    SELECT row_id, reason, pending_since FROM entry
    WHERE state IN ('pending', 'claimed') AND pending_since <= ?1 AND lane = 'live'
    ORDER BY pending_since, seq LIMIT ?2";

/// Reads the entries of the period only. An entry whose undo ended later was synced before.
pub(super) const SYNCED: &str = "
    SELECT
        count(delivery), count(*) FILTER (WHERE delivery IS NULL AND backfill IS NULL),
        count(*) FILTER (WHERE delivery IS NULL AND backfill IS NOT NULL),
        max(updated_at - stored_at) FILTER (WHERE backfill IS NULL)
    FROM entry
    WHERE state = 'done' AND updated_at > ?1 AND updated_at <= ?2 AND outcome = 'synced'
        AND iif(json_valid(progress), progress ->> '$.undo', NULL) IS NULL";

/// Among the newest entries: these are found by their key, however many there are.
pub(super) const WITHOUT_EVENT: &str = "
    SELECT count(*) FROM entry
    WHERE seq > (SELECT max(seq) FROM entry) - 1000
        AND delivery IS NULL AND backfill IS NULL AND stored_at > ?1 AND stored_at <= ?2";

/// A time that cannot be read counts as long ago. An entry with such a write is open work.
pub(super) const UNRESOLVED_SINCE: &str = "
    SELECT row_id FROM entry INDEXED BY entry_crm_open
    WHERE crm_open = 1 AND state <> 'done' AND state <> 'parked' AND progress ->> '$.intent' IS NOT NULL
        AND coalesce(unixepoch(progress ->> '$.intent.decisive_from') <= ?1, true)
    LIMIT ?2";

/// One look into the index per lane.
pub(super) const NEXT_DUE: &str = "
    SELECT min(due_at) FROM (
        SELECT min(due_at) AS due_at FROM entry WHERE state IN ('pending', 'waiting') AND lane = 'live'
        UNION ALL
        SELECT min(due_at) FROM entry WHERE state IN ('pending', 'waiting') AND lane = 'backfill'
    )";

pub(super) const LIVE_DUE: &str = "
    SELECT count(*) FROM (
        SELECT 1 FROM entry
        WHERE state IN ('pending', 'waiting') AND lane = 'live' AND due_at <= ?1 LIMIT ?2
    )";

/// The condition repeats both states of the partial index: else SQLite would not use it.
pub(super) const UNMATCHED: &str = "
    SELECT count(*) FROM (
        SELECT 1 FROM entry
        WHERE state IN ('pending', 'waiting') AND lane IN ('live', 'backfill') AND state = 'pending' AND contact IS NULL
        LIMIT ?1
    )";

/// A parked entry blocks no other row: its writes have landed long ago, and a look finds them.
pub(super) const OPEN_WORK: &str = "
    SELECT row_id, person, contact FROM entry INDEXED BY entry_crm_open
    WHERE crm_open = 1 AND state <> 'done' AND state <> 'parked'
    ORDER BY seq";

const MISSING_SINCE: &str = "
    SELECT min(since), max(since) FROM (
        SELECT coalesce(progress ->> 'missed_since', strftime('%FT%TZ', stored_at / 1000, 'unixepoch')) AS since
        FROM entry WHERE state = 'waiting' AND json_valid(progress)
    )";

pub(super) const AWAITED: &str = "SELECT person, phone FROM entry WHERE state = 'waiting'";

impl Inbox {
    pub async fn entry(&self, row: RowId) -> Result<Option<Entry>, InboxError> {
        let query = query_as("SELECT * FROM entry WHERE row_id = ?").bind(row.to_string());
        let found = self.read_entries("read an entry", query).await?;
        Ok(found.into_iter().next())
    }

    /// The states of those rows that have an entry.
    pub async fn states_of(&self, rows: Vec<RowId>) -> Result<HashMap<RowId, State>, InboxError> {
        let query = query_as(STATES_OF).bind(json("rows", &rows)?);
        let found = self.read("look rows up", query).await?;
        Ok(found.into_iter().collect())
    }

    /// `soon`: see [`Tally::waiting_briefly`].
    pub async fn tally(&self, backfill: BackfillId, soon: Timestamp) -> Result<Tally, InboxError> {
        let query = query_as(TALLY).bind(backfill.0).bind(soon.as_millisecond());
        let groups: Vec<(State, Option<Outcome>, i64, i64, i64)> =
            self.read("count a backfill", query).await?;
        let mut tally = Tally::default();
        for (state, outcome, count, due_soon, first_due) in groups {
            tally.by_end.insert((state, outcome), count.unsigned_abs());
            match state {
                State::Waiting => tally.waiting_briefly = due_soon.unsigned_abs(),
                State::Pending | State::Claimed | State::Parked | State::Done => {}
            }
            if state == State::Pending || state == State::Waiting && due_soon > 0 {
                let due = timestamp(first_due)?;
                tally.next_due = Some(tally.next_due.map_or(due, |earlier| earlier.min(due)));
            }
        }
        Ok(tally)
    }

    /// The newest change first.
    pub async fn entries(
        &self,
        state: Option<State>,
        limit: u32,
    ) -> Result<Vec<Entry>, InboxError> {
        self.entries_from(state, 0, limit).await
    }

    /// As [`Inbox::entries`], without the first `skip`.
    pub async fn entries_from(
        &self,
        state: Option<State>,
        skip: u32,
        limit: u32,
    ) -> Result<Vec<Entry>, InboxError> {
        let query = match state {
            None => query_as(ENTRIES).bind(limit).bind(skip),
            Some(state) => {
                let query = query_as(ENTRIES_IN_STATE).bind(limit).bind(skip);
                query.bind(state)
            }
        };
        self.read_entries("list its entries", query).await
    }

    /// The entries for which this deal, or this contact, was chosen: the newest hundred.
    pub async fn entries_with(&self, deal_or_contact: i64) -> Result<Vec<Entry>, InboxError> {
        let query = query_as(ENTRIES_WITH).bind(deal_or_contact);
        self.read_entries("look for a deal or contact", query).await
    }

    /// The entries of those rows that have one, in no order.
    pub async fn entries_of_rows(&self, rows: &[RowId]) -> Result<Vec<Entry>, InboxError> {
        let query =
            query_as("SELECT * FROM entry WHERE row_id IN (SELECT value FROM json_each(?1))")
                .bind(json("rows", rows)?);
        self.read_entries("look entries up", query).await
    }

    /// For which rows these deals stand in their place.
    pub async fn placed(&self, deals: Vec<DealId>) -> Result<Vec<PlacedFor>, InboxError> {
        let query = query_as(PLACED).bind(json("deals", &deals)?);
        let found = self.read("look for the rows of deals", query).await?;
        let placed = |(row, deal, changed, moved): (RowId, i64, i64, Option<String>)| {
            let moved = moved.and_then(|at| at.parse().ok());
            Ok(PlacedFor {
                row,
                deal: DealId::new(deal),
                at: moved.map_or_else(|| timestamp(changed), Ok)?,
            })
        };
        found.into_iter().map(placed).collect()
    }

    /// The rows of one backfill that no later one has asked for. Entries that cannot be read are left out.
    pub async fn entries_of_backfill(
        &self,
        backfill: BackfillId,
    ) -> Result<Vec<Entry>, InboxError> {
        let query =
            query_as("SELECT * FROM entry WHERE backfill = ?1 ORDER BY seq").bind(backfill.0);
        self.read_legible("list a backfill's entries", query).await
    }

    /// Entries whose deal the service moved or made, changed at `since` or later. Reads every such entry. Entries that
    /// cannot be read are left out.
    pub async fn placed_since(&self, since: Timestamp) -> Result<Vec<Entry>, InboxError> {
        let query = query_as(
            "SELECT * FROM entry
             WHERE updated_at >= ?1
                AND iif(json_valid(progress), progress ->> '$.placed', NULL) IN ('moved', 'created')
             ORDER BY seq",
        )
        .bind(since.as_millisecond());
        self.read_legible("list what was moved", query).await
    }

    /// Everything kept of one person, by e-mail or phone hash.
    pub async fn entries_of(&self, person: KeyedHash) -> Result<Vec<Entry>, InboxError> {
        let query = query_as("SELECT * FROM entry WHERE ?1 IN (person, phone) ORDER BY seq")
            .bind(person.to_string());
        self.read_entries("list a person's entries", query).await
    }

    /// The oldest line first.
    pub async fn history(&self, row: RowId) -> Result<Vec<HistoryLine>, InboxError> {
        let query = query_as(HISTORY).bind(row.to_string());
        let lines: Vec<(i64, String)> = self.read("read a history", query).await?;
        let line = |(at, text)| {
            let (at, facts) = (timestamp(at)?, history::read(text));
            Ok(HistoryLine { at, facts })
        };
        lines.into_iter().map(line).collect()
    }

    pub async fn counts(&self) -> Result<Counts, InboxError> {
        let query =
            query_as("SELECT state, count(*), min(pending_since) FROM entry GROUP BY state");
        let groups: Vec<(State, i64, i64)> = self.read("count its entries", query).await?;
        let mut counts = Counts::default();
        for (state, count, since) in groups {
            counts.by_state.insert(state, count.unsigned_abs());
            if matches!(state, State::Pending | State::Claimed) {
                let since = timestamp(since)?;
                let oldest = counts.oldest_pending.get_or_insert(since);
                *oldest = since.min(*oldest);
            }
        }
        Ok(counts)
    }

    /// Reads every entry: for a command, not for a page.
    pub async fn heard(&self) -> Result<Heard, InboxError> {
        let heard = self.read_one("count its deliveries", query_as(HEARD));
        let (entries, by_delivery, last, since_by_sweep): (i64, i64, Option<i64>, i64) =
            heard.await?;
        Ok(Heard {
            entries: entries.unsigned_abs(),
            by_delivery: by_delivery.unsigned_abs(),
            last_by_delivery: last.map(timestamp).transpose()?,
            since_by_sweep: since_by_sweep.unsigned_abs(),
        })
    }

    /// Parked later than `after`, the first one first.
    pub async fn parked_after(&self, after: Timestamp) -> Result<Vec<Stuck>, InboxError> {
        let query = query_as(PARKED_AFTER).bind(after.as_millisecond());
        self.read_stuck("list what was parked", query).await
    }

    /// Live entries that have been pending or claimed since `until` or longer, the oldest first.
    pub async fn pending_since(
        &self,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Stuck>, InboxError> {
        let query = query_as(PENDING_SINCE)
            .bind(until.as_millisecond())
            .bind(limit);
        self.read_stuck("list what is late", query).await
    }

    /// The rows that were synced in this period, as far as the inbox still holds them. The period ends at `until`.
    pub async fn synced(&self, after: Timestamp, until: Timestamp) -> Result<Synced, InboxError> {
        let query = query_as(SYNCED)
            .bind(after.as_millisecond())
            .bind(until.as_millisecond());
        let (by_event, by_sweep, by_backfill, longest): (i64, i64, i64, Option<i64>) =
            self.read_one("count what was synced", query).await?;
        let milliseconds = |longest: i64| Duration::from_millis(longest.max(0).unsigned_abs());
        Ok(Synced {
            by_event: by_event.unsigned_abs(),
            by_sweep: by_sweep.unsigned_abs(),
            by_backfill: by_backfill.unsigned_abs(),
            longest: longest.map(milliseconds),
        })
    }

    /// How many rows of this period no event has told of, of the newest thousand entries. The period ends at `until`.
    pub async fn without_event(
        &self,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<u32, InboxError> {
        let query = query_as(WITHOUT_EVENT)
            .bind(after.as_millisecond())
            .bind(until.as_millisecond());
        let (count,) = self.read_one("count rows without an event", query).await?;
        Ok(count)
    }

    /// Unfinished entries with a write that an empty look could have resolved at `until` or earlier.
    pub async fn unresolved_since(
        &self,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<RowId>, InboxError> {
        let query = query_as(UNRESOLVED_SINCE)
            .bind(until.as_second())
            .bind(limit);
        let rows: Vec<(RowId,)> = self.read("list writes in doubt", query).await?;
        Ok(rows.into_iter().map(|(row,)| row).collect())
    }

    /// When the next pending or waiting entry falls due.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, InboxError> {
        let query = query_as(NEXT_DUE);
        let (due_at,): (Option<i64>,) = self.read_one("find what is due next", query).await?;
        due_at.map(timestamp).transpose()
    }

    /// How many pending entries have no contact yet; counts to `limit` at most. Entries that have yet to settle count.
    pub async fn unmatched(&self, limit: u32) -> Result<u32, InboxError> {
        let query = query_as(UNMATCHED).bind(limit);
        let (count,) = self
            .read_one("count those without a contact", query)
            .await?;
        Ok(count)
    }

    /// Unfinished entries with open CRM work.
    pub async fn open_work(&self) -> Result<Vec<OpenWork>, InboxError> {
        let found = self.read("list open work", query_as(OPEN_WORK)).await?;
        let work = |(row, person, contact): (RowId, Option<KeyedHash>, Option<i64>)| OpenWork {
            row,
            person,
            contact: contact.map(ContactId::new),
        };
        Ok(found.into_iter().map(work).collect())
    }

    pub async fn people(
        &self,
        keys: Vec<KeyedHash>,
    ) -> Result<HashMap<KeyedHash, Known>, InboxError> {
        let query = query_as(
            "SELECT hash, contact, deal FROM person WHERE hash IN (SELECT value FROM json_each(?))",
        )
        .bind(json("people", &keys)?);
        let found = self.read("look people up", query).await?;
        let known = |(hash, contact, deal): (KeyedHash, i64, i64)| {
            let (contact, deal) = (ContactId::new(contact), DealId::new(deal));
            (hash, Known { contact, deal })
        };
        Ok(found.into_iter().map(known).collect())
    }

    /// Since when the longest and the shortest waiting entries have missed their contact; `None` when nothing waits.
    pub async fn missing_since(&self) -> Result<Option<(Timestamp, Timestamp)>, InboxError> {
        let found = self.read_one("see since when entries wait", query_as(MISSING_SINCE));
        let (longest, shortest): (Option<String>, Option<String>) = found.await?;
        let time = |text: String| {
            text.parse().map_err(|_| InboxError::Corrupt {
                what: "missed_since",
            })
        };
        match longest.zip(shortest) {
            None => Ok(None),
            Some((longest, shortest)) => Ok(Some((time(longest)?, time(shortest)?))),
        }
    }

    /// E-mail and phone hashes of all waiting entries.
    pub async fn awaited(&self) -> Result<HashSet<KeyedHash>, InboxError> {
        let found: Vec<(Option<KeyedHash>, Option<KeyedHash>)> =
            self.read("list awaited people", query_as(AWAITED)).await?;
        let hashes = found.into_iter().flat_map(<[_; 2]>::from);
        Ok(hashes.flatten().collect())
    }

    /// The engine's own state: one JSON value per key.
    pub async fn state<T: DeserializeOwned>(
        &self,
        key: &'static str,
    ) -> Result<Option<T>, InboxError> {
        let query = query_as("SELECT json FROM state WHERE key = ?").bind(key);
        let found: Vec<(String,)> = self.read("read its state", query).await?;
        let value = found.first().map(|(json,)| serde_json::from_str(json));
        value
            .transpose()
            .map_err(|_| InboxError::Corrupt { what: key })
    }

    async fn read_entries(
        &self,
        what: &'static str,
        query: Query<EntryRecord>,
    ) -> Result<Vec<Entry>, InboxError> {
        let records = self.read(what, query).await?;
        records.into_iter().map(Entry::try_from).collect()
    }

    /// As [`Inbox::read_entries`]; the entries that cannot be read do not hide the others.
    async fn read_legible(
        &self,
        what: &'static str,
        query: Query<EntryRecord>,
    ) -> Result<Vec<Entry>, InboxError> {
        let records = self.read(what, query).await?;
        let entries = records.into_iter().map(Entry::try_from);
        Ok(entries.filter_map(Result::ok).collect())
    }

    async fn read_stuck(
        &self,
        what: &'static str,
        query: Query<(RowId, Option<String>, i64)>,
    ) -> Result<Vec<Stuck>, InboxError> {
        let records = self.read(what, query).await?;
        let stuck = |(row, reason, since)| {
            let since = timestamp(since)?;
            Ok(Stuck { row, reason, since })
        };
        records.into_iter().map(stuck).collect()
    }

    /// For a query that always has one row.
    async fn read_one<T>(&self, what: &'static str, query: Query<T>) -> Result<T, InboxError>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin + 'static,
    {
        let mut rows = self.read(what, query).await?;
        rows.pop().ok_or(InboxError::Corrupt { what })
    }

    /// In a task of its own: a caller that goes away must not cancel a database call.
    pub(super) async fn read<T>(
        &self,
        what: &'static str,
        query: Query<T>,
    ) -> Result<Vec<T>, InboxError>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin + 'static,
    {
        let readers = self.shared.readers.clone();
        let reading = async move { query.fetch_all(&readers).await.map_err(database(what)) };
        let read = self.shared.runtime.spawn(reading).await;
        read.unwrap_or(Err(InboxError::Closed))
    }
}
