//! What a claim is and what may be done under one. Run by the writer alone, inside its transaction: a verb that fails is
//! rolled back by it.
//!
//! Many entries travel as one JSON array, so that five hundred of them cost as many statements as one.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use sqlx::SqliteConnection;

use super::{
    history::{drop_old_history, tell},
    record::{EntryRecord, ProgressColumns, database, json, row_id},
};
use crate::{
    domain::{ContactId, DealId, KeyedHash, RowId},
    inbox::{
        Claim, ClaimToken, Entry, InboxError, Lane, Mark, Outcome, Revival, Settled, Settlement,
        State, Wanted,
    },
};

const RECORD_UNREADABLE: &str =
    "Запись о ходе работы не читается: возможно, её сделала другая версия сервиса";

/// Waiting for a contact is not failing: whoever waited begins anew.
pub(in crate::inbox) const CLAIM: &str = "
    UPDATE entry SET
        state = 'claimed', claim = ?1, updated_at = ?2,
        pending_since = CASE state WHEN 'waiting' THEN ?2 ELSE pending_since END,
        attempts = CASE state WHEN 'waiting' THEN 0 ELSE attempts END,
        opened_at_work = CASE state
            WHEN 'waiting' THEN (SELECT n FROM counter WHERE name = 'work') ELSE opened_at_work END
    WHERE seq IN (
        SELECT seq FROM entry
        WHERE state IN ('pending', 'waiting') AND lane = ?3 AND due_at <= ?2
            AND row_id NOT IN (SELECT value FROM json_each(?5))
        ORDER BY due_at, seq LIMIT ?4
    )
    RETURNING *";

/// In the order of the list.
pub(in crate::inbox) const CLAIM_ONE_OF: &str = "
    UPDATE entry SET state = 'claimed', claim = ?1, updated_at = ?2
    WHERE seq = (
        SELECT entry.seq FROM json_each(?3) AS wanted JOIN entry ON entry.row_id = wanted.value
        WHERE +entry.state = 'pending' AND (+entry.due_at <= ?2 OR NOT ?4)
        ORDER BY wanted.key LIMIT 1
    )
    RETURNING *";

pub(in crate::inbox) async fn claim(
    conn: &mut SqliteConnection,
    now: Timestamp,
    wanted: &Wanted,
) -> Result<Option<Claim>, InboxError> {
    let last: i64 = sqlx::query_scalar("SELECT n FROM counter WHERE name = 'claim'")
        .fetch_one(&mut *conn)
        .await
        .map_err(database("read the last claim"))?;
    let token = ClaimToken(last + 1);

    for lane in [Lane::Live, Lane::Backfill] {
        let records = match wanted {
            Wanted::Due { only, .. } if only.is_some_and(|only| only != lane) => continue,
            Wanted::Due { limit, not, .. } => {
                claim_due(conn, lane, token, now, *limit, not).await?
            }
            Wanted::OneOf { rows, is_due } if lane == Lane::Live => {
                claim_one_of(conn, token, now, rows, *is_due).await?
            }
            Wanted::OneOf { .. } => continue,
        };
        let entries = readable(conn, now, records).await?;
        if entries.is_empty() {
            continue;
        }
        sqlx::query("UPDATE counter SET n = ? WHERE name = 'claim'")
            .bind(token.0)
            .execute(conn)
            .await
            .map_err(database("number a claim"))?;
        return Ok(Some(Claim {
            token,
            lane,
            entries,
        }));
    }
    Ok(None)
}

async fn claim_due(
    conn: &mut SqliteConnection,
    lane: Lane,
    token: ClaimToken,
    now: Timestamp,
    limit: u32,
    not: &[RowId],
) -> Result<Vec<EntryRecord>, InboxError> {
    let mut records: Vec<EntryRecord> = sqlx::query_as(CLAIM)
        .bind(token.0)
        .bind(now.as_millisecond())
        .bind(lane)
        .bind(limit)
        .bind(json("rows", &not)?)
        .fetch_all(conn)
        .await
        .map_err(database("claim entries"))?;
    records.sort_unstable_by_key(|record| (record.due_at, record.seq));
    Ok(records)
}

async fn claim_one_of(
    conn: &mut SqliteConnection,
    token: ClaimToken,
    now: Timestamp,
    rows: &[RowId],
    is_due: bool,
) -> Result<Vec<EntryRecord>, InboxError> {
    sqlx::query_as(CLAIM_ONE_OF)
        .bind(token.0)
        .bind(now.as_millisecond())
        .bind(json("rows", &rows)?)
        .bind(is_due)
        .fetch_all(conn)
        .await
        .map_err(database("claim an entry"))
}

async fn readable(
    conn: &mut SqliteConnection,
    now: Timestamp,
    records: Vec<EntryRecord>,
) -> Result<Vec<Entry>, InboxError> {
    let mut entries = Vec::with_capacity(records.len());
    for record in records {
        let seq = record.seq;
        match Entry::try_from(record) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                tracing::error!(entry.seq = seq, %error, "an entry cannot be read: parked");
                park_unreadable(conn, now, seq).await?;
            }
        }
    }
    Ok(entries)
}

/// One bad entry must not keep the others from being claimed for ever.
async fn park_unreadable(
    conn: &mut SqliteConnection,
    now: Timestamp,
    seq: i64,
) -> Result<(), InboxError> {
    sqlx::query(
        "UPDATE entry SET state = 'parked', claim = NULL, reason = ?2, updated_at = ?3 WHERE seq = ?1",
    )
    .bind(seq)
    .bind(RECORD_UNREADABLE)
    .bind(now.as_millisecond())
    .execute(conn)
    .await
    .map_err(database("park an entry"))?;
    Ok(())
}

/// Claims that nobody holds: their answer never reached anyone.
pub(in crate::inbox) async fn release(
    conn: &mut SqliteConnection,
    now: Timestamp,
    due_at: Timestamp,
    tokens: &[ClaimToken],
) -> Result<(), sqlx::Error> {
    for token in tokens {
        sqlx::query(
            "UPDATE entry SET state = 'pending', claim = NULL, due_at = ?2, updated_at = ?3
             WHERE state = 'claimed' AND claim = ?1",
        )
        .bind(token.0)
        .bind(due_at.as_millisecond())
        .bind(now.as_millisecond())
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Whoever held these claims is gone: only an owner may ask, who has the lock.
pub(in crate::inbox) async fn void_claims(
    conn: &mut SqliteConnection,
    now: Timestamp,
) -> Result<u64, InboxError> {
    let voided = sqlx::query(
        "UPDATE entry SET state = 'pending', claim = NULL, due_at = ?1, updated_at = ?1
         WHERE state = 'claimed'",
    )
    .bind(now.as_millisecond())
    .execute(conn)
    .await
    .map_err(database("void the claims of a former process"))?;
    Ok(voided.rows_affected())
}

/// The `+` keeps SQLite from walking all claimed entries, and the whole array for each: five thousand took a minute.
pub(in crate::inbox) const CHECKPOINT: &str = "
    UPDATE entry SET
        progress = mark.progress, person = mark.person, phone = mark.phone, contact = mark.contact,
        crm_open = mark.crm_open, updated_at = ?3
    FROM (
        SELECT
            value ->> 'row' AS row_id, value ->> 'progress' AS progress, value ->> 'person' AS person,
            value ->> 'phone' AS phone, value ->> 'contact' AS contact, value ->> 'crm_open' AS crm_open
        FROM json_each(?1)
    ) AS mark
    WHERE entry.row_id = mark.row_id AND +entry.claim = ?2 AND +entry.state = 'claimed'
    RETURNING row_id";

const REMEMBER_PERSON: &str = "
    INSERT INTO person (hash, contact, deal, used_at)
    SELECT value ->> 'hash', value ->> 'contact', value ->> 'deal', ?2 FROM json_each(?1) WHERE true
    ON CONFLICT (hash) DO UPDATE SET contact = excluded.contact, deal = excluded.deal, used_at = excluded.used_at";

#[derive(Debug, Serialize)]
struct MarkColumns {
    row: RowId,
    #[serde(flatten)]
    progress: ProgressColumns,
}

#[derive(Debug, Serialize)]
struct PersonColumns {
    hash: KeyedHash,
    contact: ContactId,
    deal: DealId,
}

pub(in crate::inbox) async fn checkpoint(
    conn: &mut SqliteConnection,
    now: Timestamp,
    token: ClaimToken,
    marks: &[Mark],
) -> Result<(), InboxError> {
    // Two marks of one row in one call: the later one knows more.
    let latest: HashMap<RowId, &Mark> = marks.iter().map(|mark| (mark.row, mark)).collect();
    let columns = latest
        .values()
        .map(|mark| {
            Ok(MarkColumns {
                row: mark.row,
                progress: (&mark.progress).try_into()?,
            })
        })
        .collect::<Result<Vec<_>, InboxError>>()?;
    let hit: Vec<String> = sqlx::query_scalar(CHECKPOINT)
        .bind(json("marks", &columns)?)
        .bind(token.0)
        .bind(now.as_millisecond())
        .fetch_all(&mut *conn)
        .await
        .map_err(database("store progress"))?;
    require_each_once(latest.into_keys(), &hit)?;

    let people: Vec<PersonColumns> = marks
        .iter()
        .filter_map(|mark| mark.person)
        .map(|(hash, known)| PersonColumns {
            hash,
            contact: known.contact,
            deal: known.deal,
        })
        .collect();
    if !people.is_empty() {
        sqlx::query(REMEMBER_PERSON)
            .bind(json("people", &people)?)
            .bind(now.as_millisecond())
            .execute(conn)
            .await
            .map_err(database("remember a person"))?;
    }
    Ok(())
}

/// No entry rests longer: a time that was reckoned before the clock was put back, or that a neighbour named, may be years
/// away. A daily search fits in.
pub(in crate::inbox) const LONGEST_REST: Duration = Duration::from_hours(25);

/// Asked for by a backfill while it was found too old: that is no reason any more, so it is looked at again.
pub(in crate::inbox) const SETTLE: &str = "
    UPDATE entry SET
        state = iif(settled.outcome = 'too_old' AND entry.backfill IS NOT NULL, 'pending', settled.state), claim = NULL,
        due_at = min(coalesce(settled.due_at, entry.due_at), ?4),
        outcome = iif(settled.outcome = 'too_old' AND entry.backfill IS NOT NULL, NULL, settled.outcome),
        reason = settled.reason, attempts = attempts + settled.failed, progress = settled.progress,
        person = settled.person, phone = settled.phone, contact = settled.contact, crm_open = settled.crm_open,
        updated_at = ?3, events = events + 1
    FROM (
        SELECT
            value ->> 'row' AS row_id, value ->> 'state' AS state, value ->> 'due_at' AS due_at,
            value ->> 'outcome' AS outcome, value ->> 'reason' AS reason, value ->> 'failed' AS failed,
            value ->> 'progress' AS progress, value ->> 'person' AS person, value ->> 'phone' AS phone,
            value ->> 'contact' AS contact, value ->> 'crm_open' AS crm_open
        FROM json_each(?1)
    ) AS settled
    WHERE entry.row_id = settled.row_id AND +entry.claim = ?2 AND +entry.state = 'claimed'
    RETURNING row_id";

#[derive(Debug, Serialize)]
struct SettledColumns<'a> {
    row: RowId,
    state: State,
    due_at: Option<i64>,
    outcome: Option<Outcome>,
    reason: Option<&'a str>,
    failed: bool,
    #[serde(flatten)]
    progress: ProgressColumns,
}

impl<'a> TryFrom<&'a Settled> for SettledColumns<'a> {
    type Error = InboxError;

    fn try_from(settled: &'a Settled) -> Result<Self, InboxError> {
        let (state, due_at, outcome, reason, failed) = match &settled.settlement {
            Settlement::Done(outcome) => (State::Done, None, Some(*outcome), None, false),
            Settlement::Again {
                due_at,
                failed,
                reason,
            } => (
                State::Pending,
                Some(*due_at),
                None,
                reason.as_deref(),
                *failed,
            ),
            Settlement::Waiting { due_at, reason } => (
                State::Waiting,
                Some(*due_at),
                None,
                Some(reason.as_str()),
                false,
            ),
            Settlement::Parked { reason } => {
                (State::Parked, None, None, Some(reason.as_str()), false)
            }
        };
        Ok(Self {
            row: settled.row,
            state,
            due_at: due_at.map(Timestamp::as_millisecond),
            outcome,
            reason,
            failed,
            progress: (&settled.progress).try_into()?,
        })
    }
}

pub(in crate::inbox) async fn settle(
    conn: &mut SqliteConnection,
    now: Timestamp,
    token: ClaimToken,
    ends: &[Settled],
) -> Result<(), InboxError> {
    let columns = ends
        .iter()
        .map(SettledColumns::try_from)
        .collect::<Result<Vec<_>, _>>()?;
    let latest = now.saturating_add(LONGEST_REST).unwrap_or(Timestamp::MAX);
    let hit: Vec<String> = sqlx::query_scalar(SETTLE)
        .bind(json("settled entries", &columns)?)
        .bind(token.0)
        .bind(now.as_millisecond())
        .bind(latest.as_millisecond())
        .fetch_all(&mut *conn)
        .await
        .map_err(database("settle entries"))?;
    require_each_once(ends.iter().map(|end| end.row), &hit)?;

    let lines = ends.iter().map(|end| (end.row, end.event.as_str()));
    tell(conn, now, lines).await?;
    drop_old_history(conn, &ends.iter().map(|end| end.row).collect()).await
}

/// Every change must hit exactly one row, and every row that was hit must have been meant.
fn require_each_once(meant: impl Iterator<Item = RowId>, hit: &[String]) -> Result<(), InboxError> {
    let mut hit: HashSet<RowId> = hit
        .iter()
        .map(|row| row_id(row))
        .collect::<Result<_, _>>()?;
    for row in meant {
        if !hit.remove(&row) {
            return Err(InboxError::ClaimLost { row });
        }
    }
    Ok(())
}

/// A person's word: what the service itself parks is settled under its claim.
const PARKED_BY_HAND: &str = "отложено вручную";

pub(in crate::inbox) const PARK: &str = "
    UPDATE entry SET state = 'parked', reason = ?3, updated_at = ?2, events = events + 1
    WHERE row_id IN (SELECT value FROM json_each(?1)) AND +state IN ('pending', 'waiting')
    RETURNING row_id";

pub(in crate::inbox) async fn park(
    conn: &mut SqliteConnection,
    now: Timestamp,
    rows: &[RowId],
) -> Result<u64, InboxError> {
    let parked: Vec<String> = sqlx::query_scalar(PARK)
        .bind(json("rows", rows)?)
        .bind(now.as_millisecond())
        .bind(PARKED_BY_HAND)
        .fetch_all(&mut *conn)
        .await
        .map_err(database("park entries"))?;
    let parked: HashSet<RowId> = parked
        .iter()
        .map(|row| row_id(row))
        .collect::<Result<_, _>>()?;
    tell(conn, now, parked.iter().map(|row| (*row, "parked by hand"))).await?;
    drop_old_history(conn, &parked).await?;
    Ok(u64::try_from(parked.len()).unwrap_or(u64::MAX))
}

macro_rules! revive {
    ($whom:literal) => {
        concat!(
            "UPDATE entry SET state = 'pending', due_at = ?2, updated_at = ?2, events = events + 1, attempts = 0,
                pending_since = CASE state WHEN 'pending' THEN pending_since ELSE ?2 END,
                opened_at_work = (SELECT n FROM counter WHERE name = 'work')
             WHERE ",
            $whom,
            " RETURNING row_id"
        )
    };
}

pub(in crate::inbox) const REVIVE_ROWS: &str = revive!(
    "row_id IN (SELECT value FROM json_each(?1)) AND +state IN ('pending', 'waiting', 'parked')"
);
pub(in crate::inbox) const REVIVE_SUSPECTS: &str =
    revive!("row_id IN (SELECT value FROM json_each(?1)) AND +state = 'pending'");
pub(in crate::inbox) const REVIVE_PARKED: &str = revive!("state = 'parked'");
pub(in crate::inbox) const REVIVE_WAITING: &str = revive!(
    "state = 'waiting' AND (person IN (SELECT value FROM json_each(?1)) OR phone IN (SELECT value FROM json_each(?1)))"
);

pub(in crate::inbox) async fn revive(
    conn: &mut SqliteConnection,
    now: Timestamp,
    whom: &Revival,
) -> Result<u64, InboxError> {
    let (statement, keys, text) = match whom {
        Revival::Suspects(rows) => (
            REVIVE_SUSPECTS,
            json("rows", rows)?,
            "works for another row",
        ),
        Revival::Rows(rows) => (REVIVE_ROWS, json("rows", rows)?, "retry"),
        Revival::AllParked => (REVIVE_PARKED, "[]".to_owned(), "retry"),
        Revival::Waiting(keys) => (REVIVE_WAITING, json("people", keys)?, "contact seen"),
    };
    let revived: Vec<String> = sqlx::query_scalar(statement)
        .bind(keys)
        .bind(now.as_millisecond())
        .fetch_all(&mut *conn)
        .await
        .map_err(database("revive entries"))?;
    let revived: HashSet<RowId> = revived
        .iter()
        .map(|row| row_id(row))
        .collect::<Result<_, _>>()?;
    tell(conn, now, revived.iter().map(|row| (*row, text))).await?;
    drop_old_history(conn, &revived).await?;
    Ok(u64::try_from(revived.len()).unwrap_or(u64::MAX))
}
