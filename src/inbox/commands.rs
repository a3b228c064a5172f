//! The commands: what changes the inbox. Each runs in the transaction of its group and is answered after the commit, so its
//! answer means *on disk*. The [writer](super::writer) rolls back a command that fails.
//!
//! Many entries travel as one JSON array, so that five hundred of them cost as many statements as one.

pub(super) mod store;

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{FromRow, SqliteConnection, query, query_as, query_scalar};
use tokio::sync::{mpsc, oneshot};

use super::{
    Arrival, BackfillId, Claim, ClaimToken, Entry, Fact, Inbox, InboxError, Lane, Mark, Outcome,
    REFUSALS, RELEASED, Revival, Settled, Settlement, State, Stored, Undo, UndoLeft,
    history::{self, Line},
    hourly,
    maintenance::{beyond_a_step, latest_rest, release},
    queries::LIVE_DUE,
    record::{EntryRecord, ProgressColumns, Query, database, execute, json},
    writer::{Command, Handover, Turn},
};
use crate::domain::{ContactId, DealId, KeyedHash, Refusals, RowId};

const RECORD_UNREADABLE: &str =
    "Не удалось прочитать запись о ходе работы: возможно, её сделала другая версия сервиса";

/// Waiting for a contact is no failure: the attempts of an entry that waited begin at zero.
pub(super) const CLAIM: &str = "
    UPDATE entry SET
        state = 'claimed', claim = (SELECT n + 1 FROM counter WHERE name = 'claim'), updated_at = ?1,
        pending_since = CASE state WHEN 'waiting' THEN ?1 ELSE pending_since END,
        attempts = CASE state WHEN 'waiting' THEN 0 ELSE attempts END
    WHERE seq IN (
        SELECT seq FROM entry
        WHERE state IN ('pending', 'waiting') AND lane = ?2 AND due_at <= ?1
            AND row_id NOT IN (SELECT value FROM json_each(?4))
        ORDER BY due_at, seq LIMIT ?3
    )
    RETURNING *";

/// In the order of the list.
pub(super) const CLAIM_ONE_OF: &str = "
    UPDATE entry SET
        state = 'claimed', claim = (SELECT n + 1 FROM counter WHERE name = 'claim'), updated_at = ?1
    WHERE seq = (
        SELECT entry.seq FROM json_each(?2) AS wanted JOIN entry ON entry.row_id = wanted.value
        WHERE +entry.state = 'pending' AND (+entry.due_at <= ?1 OR NOT ?3)
        ORDER BY wanted.key LIMIT 1
    )
    RETURNING *";

/// The `+` keeps SQLite from scanning the whole array for each claimed entry: with five thousand entries that took a minute.
/// A time in the future stays: by it [`SETTLE`] tells that the clock was put back.
pub(super) const CHECKPOINT: &str = "
    UPDATE entry SET
        progress = mark.progress, person = mark.person, phone = mark.phone, contact = mark.contact,
        crm_open = mark.crm_open, updated_at = max(entry.updated_at, ?3)
    FROM (
        SELECT
            value ->> 'row' AS row_id, value ->> 'progress' AS progress, value ->> 'person' AS person,
            value ->> 'phone' AS phone, value ->> 'contact' AS contact, value ->> 'crm_open' AS crm_open
        FROM json_each(?1)
    ) AS mark
    WHERE entry.row_id = mark.row_id AND +entry.claim = ?2 AND +entry.state = 'claimed'
    RETURNING row_id, seq, events";

const REMEMBER_PERSON: &str = "
    INSERT INTO person (hash, contact, deal, used_at)
    SELECT value ->> 0, value ->> 1, value ->> 2, ?2 FROM json_each(?1) WHERE true
    ON CONFLICT (hash) DO UPDATE SET contact = excluded.contact, deal = excluded.deal, used_at = excluded.used_at";

/// If the clock was put back since the entry was claimed, the time of its next attempt may be by the former clock, so it
/// becomes due now, as in [`RESCHEDULE`](super::maintenance::RESCHEDULE).
/// An entry that is found too old while a backfill asks for it becomes pending again: its age is no reason any more.
pub(super) const SETTLE: &str = "
    UPDATE entry SET
        state = iif(settled.outcome = 'too_old' AND entry.backfill IS NOT NULL, 'pending', settled.state), claim = NULL,
        due_at = iif(entry.updated_at > ?5, ?3, min(coalesce(settled.due_at, entry.due_at), ?4)),
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
    RETURNING row_id, seq, events";

/// Parks entries for the command `park`. The service itself parks an entry by settling its claim.
pub(super) const PARK: &str = "
    UPDATE entry SET state = 'parked', reason = 'отложено вручную', updated_at = ?2, events = events + 1
    WHERE row_id IN (SELECT value FROM json_each(?1)) AND +state IN ('pending', 'waiting')
    RETURNING row_id, seq, events";

macro_rules! revive {
    ($whom:literal) => {
        concat!(
            "UPDATE entry SET state = 'pending', due_at = ?2, updated_at = ?2, events = events + 1, attempts = 0,
                pending_since = CASE state WHEN 'pending' THEN pending_since ELSE ?2 END,
                outcome = NULL, lane = iif(state = 'done', 'live', lane),
                progress = iif(state = 'done', json_set(progress, '$.undo', 'again'), progress)
             WHERE ",
            $whom,
            " RETURNING row_id, seq, events"
        )
    };
}

pub(super) const REVIVE_ROWS: &str = revive!(
    "row_id IN (SELECT value FROM json_each(?1))
        AND (+state IN ('pending', 'waiting', 'parked') OR +state = 'done' AND outcome = 'undone')"
);

/// Only moves of a known origin, and no entry with a write in flight. The statement repeats the rule of
/// `sync::rules::undo`, since an entry may have changed since a command read it. An undo that was begun goes on.
pub(super) const UNDO: &str = "
    UPDATE entry SET
        state = 'pending', lane = 'backfill', due_at = ?2, updated_at = ?2, pending_since = ?2, events = events + 1,
        attempts = 0, outcome = NULL, reason = NULL,
        progress = CASE
            WHEN progress ->> '$.undo' IN ('after', 'asked', 'sent') THEN progress
            ELSE json_set(progress, '$.undo', iif(state = 'done', 'asked', 'after'))
        END
    WHERE row_id IN (SELECT value FROM json_each(?1))
        AND (+state IN ('pending', 'parked') AND progress ->> '$.noted' OR +state = 'done' AND outcome = 'synced')
        AND progress ->> '$.placed' = 'moved' AND progress ->> '$.moved.deal' = progress ->> '$.choice.deal'
        AND progress ->> '$.intent' IS NULL AND coalesce(progress ->> '$.undo', '') <> 'again'
    RETURNING row_id, seq, events";

/// Takes back the wishes for which no request was sent. What was done is done again.
pub(super) const WITHDRAW: &str = "
    UPDATE entry SET
        state = iif(progress ->> '$.undo' = 'asked', 'done', state),
        outcome = iif(progress ->> '$.undo' = 'asked', 'synced', outcome),
        progress = iif(
            progress ->> '$.undo' = 'asked', json_set(progress, '$.undo', json('{\"left\":\"withdrawn\"}')),
            json_remove(progress, '$.undo')
        ),
        updated_at = iif(progress ->> '$.undo' = 'asked', ?2, max(updated_at, ?2)), events = events + 1
    WHERE row_id IN (SELECT value FROM json_each(?1)) AND +state = 'pending'
        AND iif(json_valid(progress), progress ->> '$.undo', NULL) IN ('asked', 'after')
    RETURNING row_id, seq, events";
pub(super) const REVIVE_SUSPECTS: &str =
    revive!("row_id IN (SELECT value FROM json_each(?1)) AND +state = 'pending'");
pub(super) const REVIVE_PARKED: &str = revive!("state = 'parked'");
pub(super) const REVIVE_WAITING: &str = revive!(
    "state = 'waiting' AND (person IN (SELECT value FROM json_each(?1)) OR phone IN (SELECT value FROM json_each(?1)))"
);

impl Inbox {
    /// Answers each arrival in its place. `Busy` instead of waiting when too many wait already.
    pub async fn store(&self, arrivals: Vec<Arrival>) -> Result<Vec<Stored>, InboxError> {
        if arrivals.is_empty() {
            return Ok(Vec::new());
        }
        if self.is_full() {
            return Err(InboxError::Full);
        }
        let (reply, answer) = oneshot::channel();
        self.shared
            .commands
            .try_send(Command::Store(arrivals, reply))
            .map_err(|refused| match refused {
                mpsc::error::TrySendError::Full(_) => InboxError::Busy,
                mpsc::error::TrySendError::Closed(_) => InboxError::Closed,
            })?;
        answer.await.unwrap_or(Err(InboxError::Closed))
    }

    /// `only`: this lane; else the live one if anything is due in it. None of the rows `not`. `None` when nothing is due; with
    /// `or_nothing` also if more than `limit` live rows are due.
    pub async fn claim_but(
        &self,
        limit: u32,
        only: Option<Lane>,
        or_nothing: bool,
        not: Vec<RowId>,
    ) -> Result<Option<Claim>, InboxError> {
        let not = json("rows", &not)?;
        let lanes = only.map_or(vec![Lane::Live, Lane::Backfill], |only| vec![only]);
        let handover = self.write(move |turn| {
            Box::pin(async move {
                if or_nothing {
                    let due: u32 = query_scalar(LIVE_DUE)
                        .bind(turn.now.as_millisecond())
                        .bind(limit.saturating_add(1))
                        .fetch_one(&mut *turn.conn)
                        .await
                        .map_err(database("count what is due"))?;
                    if due > limit {
                        return Ok(None);
                    }
                }
                for lane in lanes {
                    let due = query_as(CLAIM).bind(turn.now.as_millisecond());
                    let due = due.bind(lane).bind(limit).bind(not.clone());
                    let claimed = claim(turn, lane, due).await?;
                    if claimed.is_some() {
                        return Ok(claimed);
                    }
                }
                Ok(None)
            })
        });
        Ok(handover.await?.and_then(Handover::taken))
    }

    /// Claims the first of these rows that is pending, and due if `is_due`. `None` when there is none.
    pub async fn claim_one_of(
        &self,
        rows: Vec<RowId>,
        is_due: bool,
    ) -> Result<Option<Claim>, InboxError> {
        if rows.is_empty() {
            return Ok(None);
        }
        let rows = json("rows", &rows)?;
        let handover = self.write(move |turn| {
            let first = query_as(CLAIM_ONE_OF).bind(turn.now.as_millisecond());
            Box::pin(claim(turn, Lane::Live, first.bind(rows).bind(is_due)))
        });
        Ok(handover.await?.and_then(Handover::taken))
    }

    /// Stores progress of claimed entries.
    pub async fn checkpoint(&self, token: ClaimToken, marks: Vec<Mark>) -> Result<(), InboxError> {
        // Two marks of one row in one call: the later one knows more.
        let latest: HashMap<RowId, &Mark> = marks.iter().map(|mark| (mark.row, mark)).collect();
        let columns = latest.values().map(|mark| {
            let (row, progress) = (mark.row, (&mark.progress).try_into()?);
            Ok(MarkColumns { row, progress })
        });
        let columns = json("marks", &columns.collect::<Result<Vec<_>, InboxError>>()?)?;
        let rows: Vec<RowId> = latest.into_keys().collect();
        let people = marks.iter().filter_map(|mark| mark.person);
        let people = people.map(|(hash, known)| (hash, known.contact, known.deal));
        let people: Vec<(KeyedHash, ContactId, DealId)> = people.collect();
        self.write(move |turn| {
            Box::pin(async move {
                turn.effects.is_about_entries = true;
                let marked = query_as(CHECKPOINT)
                    .bind(columns)
                    .bind(token.0)
                    .bind(turn.now.as_millisecond());
                let mut marked = change(turn.conn, "store progress", marked).await?;
                for row in rows {
                    take(&mut marked, row)?;
                }
                if !people.is_empty() {
                    let remember = query(REMEMBER_PERSON)
                        .bind(json("people", &people)?)
                        .bind(turn.now.as_millisecond());
                    execute(turn.conn, "remember a person", remember).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Ends attempts: gives these entries back, each with a line for its history.
    pub async fn settle(&self, token: ClaimToken, ends: Vec<Settled>) -> Result<(), InboxError> {
        let columns = ends.iter().map(SettledColumns::try_from);
        let columns = json("settled entries", &columns.collect::<Result<Vec<_>, _>>()?)?;
        let synced = Settlement::Done(Outcome::Synced);
        // An entry whose undo has left the deal was synced before.
        let is_new = |end: &&Settled| !matches!(end.progress.undo, Some(Undo::Left(_)));
        let synced = ends.iter().filter(|end| end.settlement == synced);
        let synced = synced.filter(is_new).count();
        self.write(move |turn| {
            Box::pin(async move {
                turn.effects.is_about_entries = true;
                let settled = query_as(SETTLE)
                    .bind(columns)
                    .bind(token.0)
                    .bind(turn.now.as_millisecond())
                    .bind(latest_rest(turn.now).as_millisecond())
                    .bind(beyond_a_step(turn.now).as_millisecond());
                let mut settled = change(turn.conn, "settle entries", settled).await?;
                let lines = ends
                    .iter()
                    .map(|end| Ok(take(&mut settled, end.row)?.line(&end.facts)))
                    .collect::<Result<Vec<_>, InboxError>>()?;
                history::append(turn.conn, turn.now, &lines).await?;
                hourly::count_synced(turn.conn, turn.now, synced).await
            })
        })
        .await
    }

    /// Returns how many entries became pending or due.
    pub async fn revive(&self, whom: Revival) -> Result<u64, InboxError> {
        let (statement, keys, fact) = match whom {
            Revival::Suspects(rows) => {
                (REVIVE_SUSPECTS, json("rows", &rows)?, Fact::WorksForAnother)
            }
            Revival::Rows(rows) => (REVIVE_ROWS, json("rows", &rows)?, Fact::Retry),
            Revival::AllParked => (REVIVE_PARKED, "[]".to_owned(), Fact::Retry),
            Revival::Waiting(keys) => (REVIVE_WAITING, json("people", &keys)?, Fact::ContactSeen),
        };
        self.move_unclaimed(statement, keys, fact).await
    }

    /// Makes these rows due for a person. Returns how many entries became pending or due.
    pub async fn retry(&self, rows: Vec<RowId>) -> Result<u64, InboxError> {
        self.let_go(&rows).await?;
        self.revive(Revival::Rows(rows)).await
    }

    /// Asks the engine to let these rows go on: a row that is held or in doubt would wait although it is due.
    pub async fn let_go(&self, rows: &[RowId]) -> Result<(), InboxError> {
        let rows = rows.to_vec();
        let add = move |state: &mut StoredState| {
            let refusals: Refusals = state.get(REFUSALS)?.unwrap_or_default();
            let named = refusals.rows();
            let mut released: Vec<RowId> = state.get(RELEASED)?.unwrap_or_default();
            released.extend(rows.iter().filter(|row| named.contains(row)));
            if released.is_empty() {
                return Ok(());
            }
            state.set(RELEASED, Some(&released))
        };
        self.change_state(&[REFUSALS, RELEASED], add).await
    }

    /// Asks the owner to move these rows' deals back. Answers how many entries are to be undone.
    pub async fn undo(&self, rows: Vec<RowId>) -> Result<u64, InboxError> {
        self.move_unclaimed(UNDO, json("rows", &rows)?, Fact::Undo)
            .await
    }

    /// Takes back what [`Inbox::undo`] has asked for, where no request was sent yet. Answers for how many entries.
    pub async fn withdraw_undo(&self, rows: Vec<RowId>) -> Result<u64, InboxError> {
        let fact = Fact::UndoLeft(UndoLeft::Withdrawn);
        self.move_unclaimed(WITHDRAW, json("rows", &rows)?, fact)
            .await
    }

    /// Gives back the entries that are still claimed. What was stored of them stays.
    pub async fn release(&self, token: ClaimToken, due_at: Timestamp) -> Result<(), InboxError> {
        self.write(move |turn| {
            Box::pin(async move {
                let released = release(turn.conn, turn.now, due_at, Some(&[token])).await;
                turn.effects.is_about_entries = true;
                turn.effects.wakes |= released.as_ref().is_ok_and(|released| *released > 0);
                released.map(drop).map_err(database("give entries back"))
            })
        })
        .await
    }

    /// Sets these rows aside for a person, unless they are done, parked already, or claimed. Answers how many.
    pub async fn park(&self, rows: Vec<RowId>) -> Result<u64, InboxError> {
        self.move_unclaimed(PARK, json("rows", &rows)?, Fact::ParkedByHand)
            .await
    }

    async fn move_unclaimed(
        &self,
        statement: &'static str,
        keys: String,
        fact: Fact,
    ) -> Result<u64, InboxError> {
        self.write(move |turn| {
            Box::pin(async move {
                let moved = query_as(statement)
                    .bind(keys)
                    .bind(turn.now.as_millisecond());
                let moved = change(turn.conn, "move entries", moved).await?;
                let facts = [fact];
                let lines: Vec<Line<'_>> = moved.values().map(|it| it.line(&facts)).collect();
                history::append(turn.conn, turn.now, &lines).await?;
                turn.effects.wakes |= !moved.is_empty();
                Ok(moved.len() as u64)
            })
        })
        .await
    }

    /// The number under which a person now asks for rows.
    pub async fn begin_backfill(&self) -> Result<BackfillId, InboxError> {
        self.write(|turn| {
            Box::pin(async move {
                query_scalar("UPDATE counter SET n = n + 1 WHERE name = 'backfill' RETURNING n")
                    .fetch_one(&mut *turn.conn)
                    .await
                    .map(BackfillId)
                    .map_err(database("number a backfill"))
            })
        })
        .await
    }

    /// See [`Inbox::state`].
    pub async fn set_state<T: Serialize>(
        &self,
        key: &'static str,
        value: &T,
    ) -> Result<(), InboxError> {
        let json = json(key, value)?;
        self.write(move |turn| Box::pin(async move { set_state(turn.conn, key, &json).await }))
            .await
    }

    /// Reads these keys and writes them as `change` leaves them; no other change comes in between.
    pub async fn change_state<T: Send + 'static>(
        &self,
        keys: &'static [&'static str],
        change: impl FnOnce(&mut StoredState) -> Result<T, InboxError> + Send + 'static,
    ) -> Result<T, InboxError> {
        self.write(move |turn| {
            Box::pin(async move {
                let mut state = StoredState::default();
                for key in keys {
                    let json = query_scalar("SELECT json FROM state WHERE key = ?").bind(*key);
                    let json = json.fetch_optional(&mut *turn.conn).await;
                    if let Some(json) = json.map_err(database("read its state"))? {
                        state.0.insert(key, json);
                    }
                }
                let before = state.0.clone();
                let changed = change(&mut state)?;
                for key in keys {
                    match (before.get(key), state.0.get(key)) {
                        (before, after) if before == after => {}
                        (_, Some(json)) => set_state(turn.conn, key, json).await?,
                        (_, None) => clear_state(turn.conn, key).await?,
                    }
                }
                Ok(changed)
            })
        })
        .await
    }

    pub async fn clear_state(&self, key: &'static str) -> Result<(), InboxError> {
        self.write(move |turn| Box::pin(clear_state(turn.conn, key)))
            .await
    }
}

/// Parts of the engine's own state, as JSON.
#[derive(Debug, Default)]
pub struct StoredState(BTreeMap<&'static str, String>);

impl StoredState {
    pub fn get<T: DeserializeOwned>(&self, key: &'static str) -> Result<Option<T>, InboxError> {
        let value = self.0.get(key).map(|json| serde_json::from_str(json));
        value
            .transpose()
            .map_err(|_| InboxError::Corrupt { what: key })
    }

    /// `None`: clears the key.
    pub fn set<T: Serialize>(
        &mut self,
        key: &'static str,
        value: Option<&T>,
    ) -> Result<(), InboxError> {
        match value {
            Some(value) => self.0.insert(key, json(key, value)?),
            None => self.0.remove(key),
        };
        Ok(())
    }
}

/// Hands over the entries that this statement claims. An entry that cannot be read is parked: else it would block the others
/// for ever.
async fn claim(
    turn: &mut Turn<'_>,
    lane: Lane,
    statement: Query<EntryRecord>,
) -> Result<Option<Handover>, InboxError> {
    let mut records = statement
        .fetch_all(&mut *turn.conn)
        .await
        .map_err(database("claim entries"))?;
    turn.effects.is_about_entries |= !records.is_empty();
    records.sort_unstable_by_key(|record| (record.due_at, record.seq));
    let mut entries = Vec::with_capacity(records.len());
    for record in records {
        let seq = record.seq;
        match Entry::try_from(record) {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                tracing::error!(entry.seq = seq, %error, "an entry cannot be read: parked");
                let park = query(
                    "UPDATE entry SET state = 'parked', claim = NULL, reason = ?2 WHERE seq = ?1",
                );
                let park = park.bind(seq).bind(RECORD_UNREADABLE);
                execute(turn.conn, "park an entry", park).await?;
            }
        }
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let token = query_scalar("UPDATE counter SET n = n + 1 WHERE name = 'claim' RETURNING n")
        .fetch_one(&mut *turn.conn)
        .await
        .map(ClaimToken)
        .map_err(database("number a claim"))?;
    Ok(Some(turn.hand_over(Claim {
        token,
        lane,
        entries,
    })))
}

/// An entry that a statement has changed, and the number of its newest event.
#[derive(Debug, FromRow)]
struct Changed {
    row_id: RowId,
    seq: i64,
    events: i64,
}

impl Changed {
    fn line<'a>(&self, facts: &'a [Fact]) -> Line<'a> {
        Line(self.seq, self.events, facts)
    }

    /// For an entry that an arrival has opened.
    fn stored(&self) -> Stored {
        if self.events == 1 {
            Stored::New
        } else {
            Stored::Reopened
        }
    }
}

async fn change(
    conn: &mut SqliteConnection,
    what: &'static str,
    statement: Query<Changed>,
) -> Result<HashMap<RowId, Changed>, InboxError> {
    let changed = statement.fetch_all(conn).await.map_err(database(what))?;
    Ok(changed.into_iter().map(|it| (it.row_id, it)).collect())
}

/// Each row must have been changed exactly once.
fn take(changed: &mut HashMap<RowId, Changed>, row: RowId) -> Result<Changed, InboxError> {
    changed.remove(&row).ok_or(InboxError::ClaimLost { row })
}

pub(super) async fn set_state(
    conn: &mut SqliteConnection,
    key: &'static str,
    value: &str,
) -> Result<(), InboxError> {
    let write = query(
        "INSERT INTO state (key, json) VALUES (?, ?)
         ON CONFLICT (key) DO UPDATE SET json = excluded.json",
    )
    .bind(key)
    .bind(value);
    execute(conn, "write its state", write).await.map(drop)
}

pub(super) async fn clear_state(
    conn: &mut SqliteConnection,
    key: &'static str,
) -> Result<(), InboxError> {
    let clear = query("DELETE FROM state WHERE key = ?").bind(key);
    execute(conn, "clear its state", clear).await.map(drop)
}

#[derive(Debug, Serialize)]
struct MarkColumns {
    row: RowId,
    #[serde(flatten)]
    progress: ProgressColumns,
}

#[derive(Debug, Serialize)]
struct SettledColumns<'a> {
    row: RowId,
    state: State,
    due_at: Option<i64>,
    outcome: Option<Outcome>,
    reason: Option<&'a String>,
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
            } => (State::Pending, Some(due_at), None, reason.as_ref(), *failed),
            Settlement::Waiting { due_at, reason } => {
                (State::Waiting, Some(due_at), None, Some(reason), false)
            }
            Settlement::Parked { reason } => (State::Parked, None, None, Some(reason), false),
        };
        Ok(Self {
            row: settled.row,
            state,
            due_at: due_at.map(|at| at.as_millisecond()),
            outcome,
            reason,
            failed,
            progress: (&settled.progress).try_into()?,
        })
    }
}
