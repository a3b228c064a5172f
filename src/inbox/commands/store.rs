//! The command `store`: what an arrival is to the entry of its row.

use std::collections::{HashMap, HashSet, hash_map::Entry as Slot};

use super::{Changed, change};
use crate::{
    domain::RowId,
    inbox::{
        Arrival, BackfillId, Fact, InboxError, Source, Stored,
        activity::Counted,
        history,
        history::Line,
        record::{execute, json},
        writer::Turn,
    },
};

/// Takes arrivals in order: each makes an entry, opens one that is done, or changes nothing. A delivery opens no entry that
/// is done, and nothing opens one that a person had undone.
///
/// An opened entry keeps its completed steps and forgets that row or contact were missing, since the row was just seen. A
/// sweep leaves the entry in its lane; a backfill moves it to the backfill lane. `opened_at_work` is no longer read.
pub(in crate::inbox) const OPEN: &str = "
    INSERT INTO entry (
        row_id, lane, state, due_at, delivery, backfill, stored_at, updated_at, pending_since, opened_at_work, events
    )
    SELECT
        value ->> 0, iif(value ->> 2 IS NULL, 'live', 'backfill'), 'pending', ?2, value ->> 1, value ->> 2, ?2, ?2, ?2,
        0, 1
    FROM json_each(?1) WHERE true ORDER BY key
    ON CONFLICT (row_id) DO UPDATE SET
        state = 'pending', due_at = ?2, lane = iif(excluded.backfill IS NULL, entry.lane, 'backfill'),
        backfill = coalesce(excluded.backfill, entry.backfill), attempts = 0, outcome = NULL, reason = NULL,
        progress = json_remove(entry.progress, '$.absent_since', '$.missed_since', '$.daily_searches', '$.undo'),
        updated_at = ?2, pending_since = ?2, events = entry.events + 1
    WHERE entry.state = 'done' AND entry.outcome <> 'undone' AND excluded.delivery IS NULL
    RETURNING row_id, seq, events";

/// Adds facts of later arrivals to their entries: the first delivery, and the last backfill that asked for the row. Times
/// and states do not change.
pub(in crate::inbox) const HEAR: &str = "
    UPDATE entry SET
        delivery = coalesce(entry.delivery, heard.delivery), backfill = coalesce(heard.backfill, entry.backfill)
    FROM (
        SELECT value ->> 0 AS row_id, value ->> 1 AS delivery, value ->> 2 AS backfill FROM json_each(?1)
    ) AS heard
    WHERE entry.row_id = heard.row_id AND (entry.delivery IS NULL OR heard.backfill IS NOT NULL)";

/// A pending entry of a backfill becomes a live one when a delivery of its row arrives. One that is to be undone stays behind
/// the live ones. A time in the future stays: by it the entry is seen to be scheduled before the clock was put back.
pub(in crate::inbox) const LIFT: &str = "
    UPDATE entry SET lane = 'live', updated_at = max(updated_at, ?2)
    WHERE row_id IN (SELECT value FROM json_each(?1)) AND +lane = 'backfill' AND +state = 'pending'
        AND coalesce(iif(json_valid(progress), progress ->> '$.undo', NULL), '') NOT IN ('asked', 'sent')";

/// Row, delivery, backfill.
type Columns<'a> = (RowId, Option<&'a str>, Option<i64>);

fn columns(arrival: &Arrival) -> Columns<'_> {
    match &arrival.source {
        Source::Webhook { delivery } => (arrival.row, Some(delivery), None),
        Source::Sweep | Source::ShortSweep => (arrival.row, None, None),
        Source::Backfill(BackfillId(backfill)) => (arrival.row, None, Some(*backfill)),
    }
}

/// Answers each arrival as if they had come one after the other.
pub(in crate::inbox) async fn store(
    turn: &mut Turn<'_>,
    arrivals: &[Arrival],
) -> Result<Vec<Stored>, InboxError> {
    turn.effects.is_about_entries = true;
    let columns: Vec<Columns<'_>> = arrivals.iter().map(columns).collect();
    let open = sqlx::query_as(OPEN)
        .bind(json("arrivals", &columns)?)
        .bind(turn.now.as_millisecond());
    let mut opened = change(turn.conn, "store arrivals", open).await?;
    let is_any_opened = !opened.is_empty();

    let mut stored = Vec::with_capacity(arrivals.len());
    let mut openings: Vec<(Changed, [Fact; 1])> = Vec::with_capacity(opened.len());
    let mut heard: HashMap<RowId, Columns<'_>> = HashMap::new();
    let mut lifting: HashSet<RowId> = HashSet::new();
    let mut counted = Counted::default();
    let mut is_event = false;
    for (arrival, (row, delivery, backfill)) in arrivals.iter().zip(columns) {
        is_event |= delivery.is_some();
        match opened.entry(row) {
            Slot::Occupied(entry) if entry.get().stored() == Stored::New || delivery.is_none() => {
                let entry = entry.remove();
                stored.push(entry.stored());
                if entry.stored() == Stored::New {
                    counted.found(&arrival.source);
                }
                let fact = match (delivery, backfill) {
                    (Some(delivery), _) => Fact::Delivery(delivery.to_owned()),
                    (None, Some(_)) => Fact::Backfill,
                    (None, None) => Fact::Sweep,
                };
                openings.push((entry, [fact]));
            }
            slot => {
                stored.push(Stored::Duplicate);
                if delivery.is_some() || backfill.is_some() {
                    let (_, first, last) = heard.entry(row).or_insert((row, None, None));
                    *first = first.or(delivery);
                    *last = backfill.or(*last);
                }
                // A delivery that arrived while the entry was done does not change its lane.
                if delivery.is_some() && matches!(slot, Slot::Vacant(_)) {
                    lifting.insert(row);
                }
            }
        }
    }
    let lines: Vec<Line<'_>> = openings.iter().map(|(it, facts)| it.line(facts)).collect();
    history::append(turn.conn, turn.now, &lines).await?;
    if is_event {
        counted.event(turn.now);
    }
    counted.store(turn.conn).await?;
    hear(turn, heard.into_values().collect()).await?;
    let is_any_lifted = lift(turn, &lifting).await?;
    if is_event {
        turn.effects.last_event = Some(turn.now);
    }
    turn.effects.wakes |= is_any_opened || is_any_lifted;
    Ok(stored)
}

async fn hear(turn: &mut Turn<'_>, heard: Vec<Columns<'_>>) -> Result<(), InboxError> {
    if heard.is_empty() {
        return Ok(());
    }
    let hear = sqlx::query(HEAR).bind(json("arrivals", &heard)?);
    execute(turn.conn, "note further arrivals", hear)
        .await
        .map(drop)
}

/// Answers whether there was such an entry.
async fn lift(turn: &mut Turn<'_>, lifting: &HashSet<RowId>) -> Result<bool, InboxError> {
    if lifting.is_empty() {
        return Ok(false);
    }
    let lift = sqlx::query(LIFT)
        .bind(json("rows", lifting)?)
        .bind(turn.now.as_millisecond());
    Ok(execute(turn.conn, "lift an entry", lift).await? > 0)
}
