//! The verb `store`: what an arrival is to the entry of its row.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::Serialize;
use sqlx::SqliteConnection;

use super::{
    history::{drop_old_history, tell},
    record::{database, json, row_id},
};
use crate::{
    domain::RowId,
    inbox::{Arrival, BackfillId, InboxError, Lane, Source, Stored},
};

pub(in crate::inbox) const INSERT_NEW: &str = "
    INSERT INTO entry (row_id, lane, state, due_at, delivery, stored_at, updated_at, pending_since, opened_at_work, events)
    SELECT
        arrival.value ->> 'row', arrival.value ->> 'lane', 'pending', ?2, arrival.value ->> 'delivery', ?2, ?2, ?2,
        (SELECT n FROM counter WHERE name = 'work'), 1
    FROM json_each(?1) AS arrival
    WHERE true
    ON CONFLICT (row_id) DO NOTHING
    RETURNING row_id";

/// The completed steps stay, what was found missing does not: the row was just seen.
pub(in crate::inbox) const REOPEN: &str = "
    UPDATE entry SET
        state = 'pending', due_at = ?2, lane = coalesce(arrival.lane, entry.lane), attempts = 0, outcome = NULL,
        reason = NULL, progress = json_remove(progress, '$.absent_since', '$.missed_since', '$.daily_searches'), updated_at = ?2,
        pending_since = ?2, opened_at_work = (SELECT n FROM counter WHERE name = 'work'), events = events + 1
    FROM (SELECT value ->> 'row' AS row_id, value ->> 'lane' AS lane FROM json_each(?1)) AS arrival
    WHERE entry.row_id = arrival.row_id AND +entry.state = 'done'
    RETURNING row_id";

pub(in crate::inbox) const LIFT: &str = "
    UPDATE entry SET lane = 'live', updated_at = ?2
    WHERE row_id IN (SELECT value FROM json_each(?1)) AND +lane = 'backfill' AND +state = 'pending'";

/// A delivery of an entry that a sweep or a backfill brought; neither its time nor its state changes.
pub(in crate::inbox) const TOLD_OF: &str = "
    UPDATE entry SET delivery = told.delivery
    FROM (SELECT value ->> 0 AS row_id, value ->> 1 AS delivery FROM json_each(?1)) AS told
    WHERE entry.row_id = told.row_id AND entry.delivery IS NULL";

/// Whatever state the entry is in, and however it is heard of later: it was asked for.
pub(in crate::inbox) const ASK_FOR: &str = "
    UPDATE entry SET backfill = asked.backfill
    FROM (SELECT value ->> 0 AS row_id, value ->> 1 AS backfill FROM json_each(?1)) AS asked
    WHERE entry.row_id = asked.row_id";

#[derive(Debug, Serialize)]
struct Opening<'a> {
    row: RowId,
    lane: Option<Lane>,
    delivery: Option<&'a str>,
    text: String,
}

/// Answers each arrival as if they had come one after the other, and whether anything is there to be claimed sooner.
pub(in crate::inbox) async fn store(
    conn: &mut SqliteConnection,
    now: Timestamp,
    arrivals: &[Arrival],
) -> Result<(Vec<Stored>, bool), InboxError> {
    let mut seen = HashSet::new();
    let firsts: Vec<Opening<'_>> = arrivals
        .iter()
        .filter(|arrival| seen.insert(arrival.row))
        .map(new_entry)
        .collect();
    let new = open(conn, INSERT_NEW, now, &firsts).await?;
    let mut answers = HashMap::new();
    for (index, arrival) in arrivals.iter().enumerate() {
        if new.contains(&arrival.row) {
            answers.entry(arrival.row).or_insert((index, Stored::New));
        }
    }

    let mut seen = HashSet::new();
    let sightings: Vec<(usize, Opening<'_>)> = arrivals
        .iter()
        .enumerate()
        .filter(|(_, arrival)| !new.contains(&arrival.row))
        .filter_map(|(index, arrival)| Some((index, reopened_entry(arrival)?)))
        .filter(|(_, opening)| seen.insert(opening.row))
        .collect();
    let (indexes, openings): (Vec<usize>, Vec<Opening<'_>>) = sightings.into_iter().unzip();
    let reopened = open(conn, REOPEN, now, &openings).await?;
    for (index, opening) in indexes.into_iter().zip(&openings) {
        if reopened.contains(&opening.row) {
            answers.insert(opening.row, (index, Stored::Reopened));
        }
    }
    drop_old_history(conn, &reopened).await?;

    ask_for(conn, arrivals).await?;
    let lifted = hear_again(conn, now, arrivals, &answers).await?;
    let stored = arrivals
        .iter()
        .enumerate()
        .map(|(index, arrival)| match answers.get(&arrival.row) {
            Some((at, stored)) if *at == index => *stored,
            _ => Stored::Duplicate,
        })
        .collect();
    Ok((stored, lifted || !answers.is_empty()))
}

fn new_entry(arrival: &Arrival) -> Opening<'_> {
    let (lane, delivery, text) = match &arrival.source {
        Source::Webhook { delivery } => (
            Lane::Live,
            Some(delivery.as_str()),
            format!("delivery {delivery}"),
        ),
        Source::Sweep => (Lane::Live, None, "sweep".to_owned()),
        Source::Backfill(_) => (Lane::Backfill, None, "backfill".to_owned()),
    };
    Opening {
        row: arrival.row,
        lane: Some(lane),
        delivery,
        text,
    }
}

/// A sweep leaves the entry in its lane; a person who asks for a backfill wants it in that one.
fn reopened_entry(arrival: &Arrival) -> Option<Opening<'_>> {
    let (lane, text) = match &arrival.source {
        Source::Webhook { .. } => return None,
        Source::Sweep => (None, "sweep"),
        Source::Backfill(_) => (Some(Lane::Backfill), "backfill"),
    };
    Some(Opening {
        row: arrival.row,
        lane,
        delivery: None,
        text: text.to_owned(),
    })
}

async fn open(
    conn: &mut SqliteConnection,
    statement: &'static str,
    now: Timestamp,
    openings: &[Opening<'_>],
) -> Result<HashSet<RowId>, InboxError> {
    if openings.is_empty() {
        return Ok(HashSet::new());
    }
    let opened: Vec<String> = sqlx::query_scalar(statement)
        .bind(json("arrivals", openings)?)
        .bind(now.as_millisecond())
        .fetch_all(&mut *conn)
        .await
        .map_err(database("store arrivals"))?;
    let opened: HashSet<RowId> = opened
        .iter()
        .map(|row| row_id(row))
        .collect::<Result<_, _>>()?;

    let lines = openings
        .iter()
        .filter(|opening| opened.contains(&opening.row))
        .map(|opening| (opening.row, opening.text.as_str()));
    tell(conn, now, lines).await?;
    Ok(opened)
}

async fn ask_for(conn: &mut SqliteConnection, arrivals: &[Arrival]) -> Result<(), InboxError> {
    let asked: HashMap<RowId, i64> = arrivals
        .iter()
        .filter_map(|arrival| match arrival.source {
            Source::Backfill(BackfillId(backfill)) => Some((arrival.row, backfill)),
            Source::Webhook { .. } | Source::Sweep => None,
        })
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    let asked: Vec<(RowId, i64)> = asked.into_iter().collect();
    sqlx::query(ASK_FOR)
        .bind(json("rows", &asked)?)
        .execute(conn)
        .await
        .map(drop)
        .map_err(database("ask for rows"))
}

/// Deliveries of entries that were there before them. Each entry keeps the first; and one that a backfill brought, and
/// that is still pending, goes before others now. Answers whether there was such a one.
async fn hear_again(
    conn: &mut SqliteConnection,
    now: Timestamp,
    arrivals: &[Arrival],
    opened: &HashMap<RowId, (usize, Stored)>,
) -> Result<bool, InboxError> {
    let mut firsts: HashMap<RowId, &str> = HashMap::new();
    let mut lifting: HashSet<RowId> = HashSet::new();
    for (index, arrival) in arrivals.iter().enumerate() {
        let Source::Webhook { delivery } = &arrival.source else {
            continue;
        };
        match opened.get(&arrival.row) {
            // It is this very delivery that brought the entry.
            Some((opened_at, Stored::New)) if *opened_at >= index => continue,
            // It came while the entry was still done.
            Some((opened_at, _)) if *opened_at >= index => {}
            Some(_) | None => _ = lifting.insert(arrival.row),
        }
        firsts.entry(arrival.row).or_insert(delivery);
    }
    if firsts.is_empty() {
        return Ok(false);
    }
    let firsts: Vec<(RowId, &str)> = firsts.into_iter().collect();
    sqlx::query(TOLD_OF)
        .bind(json("deliveries", &firsts)?)
        .execute(&mut *conn)
        .await
        .map_err(database("note a delivery"))?;
    let lifted = sqlx::query(LIFT)
        .bind(json("rows", &lifting)?)
        .bind(now.as_millisecond())
        .execute(conn)
        .await
        .map_err(database("lift an entry"))?;
    Ok(lifted.rows_affected() > 0)
}
