//! Creates of deals that were given up as never carried out. Each is looked for once more, since amoCRM may be very late.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, query, query_as};

use super::{
    CreateFor, Fact, Inbox, InboxError,
    history::{self, Line},
    record::{database, execute, json, timestamp},
};
use crate::domain::{DealId, KeyedHash, RowId};

const GIVE_UP: &str = "
    INSERT INTO given_up (entry, name, made_for, look_at)
    SELECT seq, value ->> 1, value ->> 2, ?2
    FROM json_each(?1) JOIN entry ON entry.row_id = value ->> 0
    WHERE true
    ON CONFLICT (entry, name) DO UPDATE SET
        made_for = excluded.made_for, look_at = excluded.look_at, found_at = NULL, deal = NULL, late = NULL";

pub(super) const GIVEN_UP_DUE: &str = "
    SELECT row_id, name, made_for, look_at FROM given_up JOIN entry ON seq = entry
    WHERE look_at IS NOT NULL AND (look_at <= ?1 OR look_at > ?2)
    ORDER BY look_at LIMIT ?3";

pub(super) const NEXT_LOOK: &str =
    "SELECT min(look_at), max(look_at) FROM given_up WHERE look_at IS NOT NULL";

pub(super) const DOUBLED_AFTER: &str = "
    SELECT row_id, deal, late, found_at FROM given_up JOIN entry ON seq = entry
    WHERE found_at > ?1 AND deal IS NOT NULL ORDER BY found_at LIMIT ?2";

/// A look that was planned anew meanwhile has another time.
const OF_LOOK: &str =
    "entry = (SELECT seq FROM entry WHERE row_id = ?1) AND name = ?2 AND look_at = ?3";

/// A create that was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenUp {
    pub row: RowId,
    /// Keyed hash of the exact name of the deal.
    pub name: KeyedHash,
    pub made_for: CreateFor,
}

/// What the last look has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LateDeals {
    None,
    /// Not known yet: to be looked for again.
    Unknown,
    /// The create was carried out after all. `deal`: the one that the row has.
    Found {
        deal: Option<DealId>,
        late: Vec<DealId>,
    },
}

/// A row with more than one deal, because a create was carried out after it was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubled {
    pub row: RowId,
    /// The deal that the row has.
    pub deal: DealId,
    pub late: Vec<DealId>,
    pub found_at: Timestamp,
}

/// Row, name, contact of the deal.
type Columns = (RowId, KeyedHash, String);

impl Inbox {
    /// Plans a last look for these creates. To be stored before their entries forget them.
    pub async fn give_up(
        &self,
        given_up: Vec<GivenUp>,
        look_at: Timestamp,
    ) -> Result<(), InboxError> {
        if given_up.is_empty() {
            return Ok(());
        }
        let columns = given_up.into_iter().map(|it| {
            let made_for = json("the contact of a deal", &it.made_for)?;
            Ok((it.row, it.name, made_for))
        });
        let columns = json(
            "given up creates",
            &columns.collect::<Result<Vec<Columns>, InboxError>>()?,
        )?;
        self.write(move |turn| {
            Box::pin(async move {
                let planned = query(GIVE_UP).bind(columns).bind(look_at.as_millisecond());
                execute(turn.conn, "give up creates", planned)
                    .await
                    .map(drop)
            })
        })
        .await
    }

    /// Those to be looked for now, each with the time of its look. A time more than `pause` away was stored before the clock was
    /// put back.
    pub async fn given_up_due(
        &self,
        now: Timestamp,
        pause: Duration,
        limit: u32,
    ) -> Result<Vec<(GivenUp, Timestamp)>, InboxError> {
        let latest = now.saturating_add(pause).unwrap_or(Timestamp::MAX);
        let query = query_as(GIVEN_UP_DUE)
            .bind(now.as_millisecond())
            .bind(latest.as_millisecond())
            .bind(limit);
        let due: Vec<(RowId, KeyedHash, String, i64)> =
            self.read("list given up creates", query).await?;
        let due = due.into_iter().map(|(row, name, made_for, look_at)| {
            let corrupt = |_| InboxError::Corrupt {
                what: "a create that was given up",
            };
            let made_for = serde_json::from_str(&made_for).map_err(corrupt)?;
            let given_up = GivenUp {
                row,
                name,
                made_for,
            };
            Ok((given_up, timestamp(look_at)?))
        });
        due.collect()
    }

    /// When the next of these looks is due. `pause`: see [`Inbox::given_up_due`].
    pub async fn next_late_look(
        &self,
        now: Timestamp,
        pause: Duration,
    ) -> Result<Option<Timestamp>, InboxError> {
        let found: Vec<(Option<i64>, Option<i64>)> =
            self.read("plan a late look", query_as(NEXT_LOOK)).await?;
        let Some((Some(first), Some(last))) = found.first().copied() else {
            return Ok(None);
        };
        let latest = now.saturating_add(pause).unwrap_or(Timestamp::MAX);
        if last > latest.as_millisecond() {
            return Ok(Some(now));
        }
        timestamp(first).map(Some)
    }

    /// Stores what the looks of these times have found, each late deal with a line in the history of its row. A look that was
    /// planned anew meanwhile stays.
    pub async fn looked_late(
        &self,
        results: Vec<(GivenUp, Timestamp, LateDeals)>,
        again_at: Timestamp,
    ) -> Result<(), InboxError> {
        self.write(move |turn| {
            Box::pin(async move {
                for (GivenUp { row, name, .. }, look_at, late) in results {
                    let statement = match &late {
                        LateDeals::None => format!("DELETE FROM given_up WHERE {OF_LOOK}"),
                        LateDeals::Unknown => {
                            format!("UPDATE given_up SET look_at = ?4 WHERE {OF_LOOK}")
                        }
                        LateDeals::Found { .. } => format!(
                            "UPDATE given_up SET look_at = NULL, found_at = ?4, deal = ?5, late = ?6 WHERE {OF_LOOK}"
                        ),
                    };
                    let statement = AssertSqlSafe(statement);
                    let stored = query(statement)
                        .bind(row.to_string())
                        .bind(name.to_string())
                        .bind(look_at.as_millisecond());
                    let stored = match &late {
                        LateDeals::None => stored,
                        LateDeals::Unknown => stored.bind(again_at.as_millisecond()),
                        LateDeals::Found { deal, late } => stored
                            .bind(turn.now.as_millisecond())
                            .bind(deal.map(DealId::get))
                            .bind(json("late deals", late)?),
                    };
                    let stored = execute(turn.conn, "store a late look", stored).await?;
                    if let LateDeals::Found { late, .. } = late
                        && stored > 0
                    {
                        let facts: Vec<Fact> = late.into_iter().map(Fact::LateDeal).collect();
                        let numbered = query_as(
                            "UPDATE entry SET events = events + 1 WHERE row_id = ? RETURNING seq, events",
                        );
                        let numbered: Option<(i64, i64)> = numbered
                            .bind(row.to_string())
                            .fetch_optional(&mut *turn.conn)
                            .await
                            .map_err(database("number a line"))?;
                        let line = numbered.map(|(seq, nr)| Line(seq, nr, &facts));
                        history::append(turn.conn, turn.now, line.as_slice()).await?;
                    }
                }
                Ok(())
            })
        })
        .await
    }

    /// The rows that were found doubled after this time, the first one first.
    pub async fn doubled_after(
        &self,
        after: Timestamp,
        limit: u32,
    ) -> Result<Vec<Doubled>, InboxError> {
        let query = query_as(DOUBLED_AFTER)
            .bind(after.as_millisecond())
            .bind(limit);
        let found: Vec<(RowId, i64, String, i64)> = self.read("list doubled deals", query).await?;
        let found = found.into_iter().map(|(row, deal, late, found_at)| {
            let corrupt = |_| InboxError::Corrupt { what: "late deals" };
            Ok(Doubled {
                row,
                deal: DealId::new(deal),
                late: serde_json::from_str(&late).map_err(corrupt)?,
                found_at: timestamp(found_at)?,
            })
        });
        found.collect()
    }
}
