//! What can be asked of the inbox. Run on the read-only connections, beside the writer.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use sqlx::SqlitePool;

use super::record::{EntryRecord, database, json, keyed_hash, row_id, timestamp};
use crate::{
    domain::{ContactId, DealId, KeyedHash, RowId},
    inbox::{
        BackfillId, Counts, Entry, Event, Heard, InboxError, Known, Lane, OpenWork, Outcome, State,
        Stuck, Tally,
    },
};

pub(in crate::inbox) async fn entry(
    pool: &SqlitePool,
    row: RowId,
) -> Result<Option<Entry>, InboxError> {
    sqlx::query_as::<_, EntryRecord>("SELECT * FROM entry WHERE row_id = ?")
        .bind(row.to_string())
        .fetch_optional(pool)
        .await
        .map_err(database("read an entry"))?
        .map(Entry::try_from)
        .transpose()
}

pub(in crate::inbox) const STATES_OF: &str =
    "SELECT row_id, state FROM entry WHERE row_id IN (SELECT value FROM json_each(?1))";

pub(in crate::inbox) async fn states_of(
    pool: &SqlitePool,
    rows: &[RowId],
) -> Result<HashMap<RowId, State>, InboxError> {
    let found: Vec<(String, State)> = sqlx::query_as(STATES_OF)
        .bind(json("rows", rows)?)
        .fetch_all(pool)
        .await
        .map_err(database("look rows up"))?;
    found
        .into_iter()
        .map(|(row, state)| Ok((row_id(&row)?, state)))
        .collect()
}

pub(in crate::inbox) const TALLY: &str = "
    SELECT state, outcome, count(*), sum(due_at <= ?2), min(due_at) FROM entry
    WHERE backfill = ?1 GROUP BY state, outcome";

pub(in crate::inbox) async fn tally(
    pool: &SqlitePool,
    backfill: BackfillId,
    soon: Timestamp,
) -> Result<Tally, InboxError> {
    let groups: Vec<(State, Option<Outcome>, i64, i64, i64)> = sqlx::query_as(TALLY)
        .bind(backfill.0)
        .bind(soon.as_millisecond())
        .fetch_all(pool)
        .await
        .map_err(database("count a backfill"))?;
    let mut tally = Tally::default();
    for (state, outcome, count, due_soon, first_due) in groups {
        tally.by_end.insert((state, outcome), count.unsigned_abs());
        match state {
            State::Waiting => tally.waiting_briefly = due_soon.unsigned_abs(),
            State::Pending => tally.next_due = Some(timestamp(first_due)?),
            State::Claimed | State::Parked | State::Done => {}
        }
    }
    Ok(tally)
}

/// Newest change first. The inner query needs the index only, so that years of `done` entries are not read.
const ENTRIES: &str = "
    SELECT * FROM entry
    WHERE seq IN (SELECT seq FROM entry ORDER BY updated_at DESC, seq DESC LIMIT ?1)
    ORDER BY updated_at DESC, seq DESC";

const ENTRIES_IN_STATE: &str = "
    SELECT * FROM entry WHERE state = ?2 ORDER BY updated_at DESC, seq DESC LIMIT ?1";

pub(in crate::inbox) async fn entries(
    pool: &SqlitePool,
    state: Option<State>,
    limit: u32,
) -> Result<Vec<Entry>, InboxError> {
    let query = match state {
        None => sqlx::query_as::<_, EntryRecord>(ENTRIES).bind(limit),
        Some(state) => sqlx::query_as(ENTRIES_IN_STATE).bind(limit).bind(state),
    };
    let records = query
        .fetch_all(pool)
        .await
        .map_err(database("list its entries"))?;
    records.into_iter().map(Entry::try_from).collect()
}

/// Since when the longest and the shortest waiting entries have missed their contact.
const MISSING_SINCE: &str = "
    SELECT min(since), max(since) FROM (
        SELECT coalesce(progress ->> 'missed_since', strftime('%FT%TZ', stored_at / 1000, 'unixepoch')) AS since
        FROM entry WHERE state = 'waiting' AND json_valid(progress)
    )";

pub(in crate::inbox) async fn missing_since(
    pool: &SqlitePool,
) -> Result<Option<(Timestamp, Timestamp)>, InboxError> {
    let (longest, shortest): (Option<String>, Option<String>) = sqlx::query_as(MISSING_SINCE)
        .fetch_one(pool)
        .await
        .map_err(database("see since when entries wait"))?;
    let Some((longest, shortest)) = longest.zip(shortest) else {
        return Ok(None);
    };
    let time = |text: String| {
        text.parse().map_err(|_| InboxError::Corrupt {
            what: "missed_since",
        })
    };
    Ok(Some((time(longest)?, time(shortest)?)))
}

pub(in crate::inbox) async fn entries_of(
    pool: &SqlitePool,
    key: KeyedHash,
) -> Result<Vec<Entry>, InboxError> {
    let records: Vec<EntryRecord> =
        sqlx::query_as("SELECT * FROM entry WHERE ?1 IN (person, phone) ORDER BY seq")
            .bind(key.to_string())
            .fetch_all(pool)
            .await
            .map_err(database("list a person's entries"))?;
    records.into_iter().map(Entry::try_from).collect()
}

pub(in crate::inbox) async fn history(
    pool: &SqlitePool,
    row: RowId,
) -> Result<Vec<Event>, InboxError> {
    let lines: Vec<(i64, String)> = sqlx::query_as(
        "SELECT at, text FROM history
         WHERE entry = (SELECT seq FROM entry WHERE row_id = ?) ORDER BY nr",
    )
    .bind(row.to_string())
    .fetch_all(pool)
    .await
    .map_err(database("read a history"))?;
    lines
        .into_iter()
        .map(|(at, text)| {
            let at = timestamp(at)?;
            Ok(Event { at, text })
        })
        .collect()
}

pub(in crate::inbox) async fn counts(pool: &SqlitePool) -> Result<Counts, InboxError> {
    let rows: Vec<(State, i64, i64)> =
        sqlx::query_as("SELECT state, count(*), min(pending_since) FROM entry GROUP BY state")
            .fetch_all(pool)
            .await
            .map_err(database("count its entries"))?;

    let oldest_pending = rows
        .iter()
        .filter(|(state, ..)| matches!(state, State::Pending | State::Claimed))
        .map(|(_, _, since)| *since)
        .min()
        .map(timestamp)
        .transpose()?;
    let by_state = rows
        .into_iter()
        .map(|(state, count, _)| (state, count.unsigned_abs()))
        .collect();
    Ok(Counts {
        by_state,
        oldest_pending,
    })
}

const HEARD: &str = "
    SELECT
        count(*), count(delivery), max(stored_at) FILTER (WHERE delivery IS NOT NULL),
        count(*) FILTER (
            WHERE backfill IS NULL
              AND seq > coalesce((SELECT max(seq) FROM entry WHERE delivery IS NOT NULL), 0))
    FROM entry";

pub(in crate::inbox) async fn heard(pool: &SqlitePool) -> Result<Heard, InboxError> {
    let (entries, by_delivery, last, since_by_sweep): (i64, i64, Option<i64>, i64) =
        sqlx::query_as(HEARD)
            .fetch_one(pool)
            .await
            .map_err(database("count its deliveries"))?;
    Ok(Heard {
        entries: entries.unsigned_abs(),
        by_delivery: by_delivery.unsigned_abs(),
        last_by_delivery: last.map(timestamp).transpose()?,
        since_by_sweep: since_by_sweep.unsigned_abs(),
    })
}

pub(in crate::inbox) const PARKED_AFTER: &str = "
    SELECT row_id, reason, updated_at FROM entry WHERE state = 'parked' AND updated_at > ?1
    ORDER BY updated_at, seq";

pub(in crate::inbox) async fn parked_after(
    pool: &SqlitePool,
    after: Timestamp,
) -> Result<Vec<Stuck>, InboxError> {
    let rows = sqlx::query_as(PARKED_AFTER)
        .bind(after.as_millisecond())
        .fetch_all(pool)
        .await
        .map_err(database("list what was parked"))?;
    rows.into_iter().map(stuck).collect()
}

pub(in crate::inbox) const PENDING_SINCE: &str = "
    SELECT row_id, reason, pending_since FROM entry
    WHERE state IN ('pending', 'claimed') AND pending_since <= ?1 AND lane = 'live'
    ORDER BY pending_since, seq LIMIT ?2";

pub(in crate::inbox) async fn pending_since(
    pool: &SqlitePool,
    until: Timestamp,
    limit: u32,
) -> Result<Vec<Stuck>, InboxError> {
    let rows = sqlx::query_as(PENDING_SINCE)
        .bind(until.as_millisecond())
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(database("list what is late"))?;
    rows.into_iter().map(stuck).collect()
}

fn stuck((row, reason, since): (String, Option<String>, i64)) -> Result<Stuck, InboxError> {
    Ok(Stuck {
        row: row_id(&row)?,
        reason,
        since: timestamp(since)?,
    })
}

/// One look into the index per lane.
pub(in crate::inbox) const NEXT_DUE: &str = "
    SELECT min(due_at) FROM (
        SELECT min(due_at) AS due_at FROM entry WHERE state IN ('pending', 'waiting') AND lane = 'live'
        UNION ALL
        SELECT min(due_at) FROM entry WHERE state IN ('pending', 'waiting') AND lane = 'backfill'
    )";

pub(in crate::inbox) async fn next_due(pool: &SqlitePool) -> Result<Option<Timestamp>, InboxError> {
    sqlx::query_scalar::<_, Option<i64>>(NEXT_DUE)
        .fetch_one(pool)
        .await
        .map_err(database("find what is due next"))?
        .map(timestamp)
        .transpose()
}

pub(in crate::inbox) const LIVE_DUE: &str = "
    SELECT count(*) FROM (
        SELECT 1 FROM entry
        WHERE state IN ('pending', 'waiting') AND lane = 'live' AND due_at <= ?1 LIMIT ?2
    )";

pub(in crate::inbox) async fn live_due(
    pool: &SqlitePool,
    now: Timestamp,
    limit: u32,
) -> Result<u32, InboxError> {
    sqlx::query_scalar(LIVE_DUE)
        .bind(now.as_millisecond())
        .bind(limit)
        .fetch_one(pool)
        .await
        .map_err(database("count what is due"))
}

/// Names both states of the index, or it would not be used.
pub(in crate::inbox) const UNMATCHED: &str = "
    SELECT count(*) FROM entry
    WHERE state IN ('pending', 'waiting') AND state = 'pending' AND lane = ?1 AND due_at <= ?2 AND contact IS NULL";

pub(in crate::inbox) async fn unmatched(
    pool: &SqlitePool,
    until: Timestamp,
    lane: Lane,
) -> Result<u64, InboxError> {
    let count: i64 = sqlx::query_scalar(UNMATCHED)
        .bind(lane)
        .bind(until.as_millisecond())
        .fetch_one(pool)
        .await
        .map_err(database("count those without a contact"))?;
    Ok(count.unsigned_abs())
}

/// Parked entries hold nobody up: whatever they wrote has landed long ago, and is found by looking.
pub(in crate::inbox) const OPEN_WORK: &str = "
    SELECT row_id, person, contact FROM entry INDEXED BY entry_crm_open
    WHERE crm_open = 1 AND state <> 'done' AND state <> 'parked'
    ORDER BY seq";

pub(in crate::inbox) async fn open_work(pool: &SqlitePool) -> Result<Vec<OpenWork>, InboxError> {
    let rows: Vec<(String, Option<String>, Option<i64>)> = sqlx::query_as(OPEN_WORK)
        .fetch_all(pool)
        .await
        .map_err(database("list open work"))?;
    rows.into_iter()
        .map(|(row, person, contact)| {
            Ok(OpenWork {
                row: row_id(&row)?,
                person: person.as_deref().map(keyed_hash).transpose()?,
                contact: contact.map(ContactId::new),
            })
        })
        .collect()
}

pub(in crate::inbox) async fn people(
    pool: &SqlitePool,
    keys: &[KeyedHash],
) -> Result<HashMap<KeyedHash, Known>, InboxError> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT hash, contact, deal FROM person WHERE hash IN (SELECT value FROM json_each(?))",
    )
    .bind(json("people", keys)?)
    .fetch_all(pool)
    .await
    .map_err(database("look people up"))?;
    rows.into_iter()
        .map(|(hash, contact, deal)| {
            let known = Known {
                contact: ContactId::new(contact),
                deal: DealId::new(deal),
            };
            Ok((keyed_hash(&hash)?, known))
        })
        .collect()
}

pub(in crate::inbox) const AWAITED: &str =
    "SELECT person, phone FROM entry WHERE state = 'waiting'";

pub(in crate::inbox) async fn awaited(pool: &SqlitePool) -> Result<HashSet<KeyedHash>, InboxError> {
    let rows: Vec<(Option<String>, Option<String>)> = sqlx::query_as(AWAITED)
        .fetch_all(pool)
        .await
        .map_err(database("list who is awaited"))?;
    rows.iter()
        .flat_map(|(person, phone)| [person, phone])
        .flatten()
        .map(|hash| keyed_hash(hash))
        .collect()
}

pub(in crate::inbox) async fn state(
    pool: &SqlitePool,
    key: &'static str,
) -> Result<Option<String>, InboxError> {
    sqlx::query_scalar("SELECT json FROM state WHERE key = ?")
        .bind(key)
        .fetch_optional(pool)
        .await
        .map_err(database("read its state"))
}
