//! Moves deals back to the stages that they came from, because a person asks for it.

use std::collections::BTreeMap;

use amocrm::{AmoError, Found, Pipeline, Refusal, Target};
use tokio::time::Instant;

use super::{
    super::{
        batch::Batch,
        bulk::{self, Failed, Item, Sent},
        row::{Attempt, Ended, InHand, StepResult},
        rules::undo::{WayBack, is_placed_later, way_back},
    },
    people,
};
use crate::{
    domain::{DealId, Operation},
    inbox::{Fact, InboxError, Move, Outcome, Settlement, Undo, UndoLeft},
};

const UNDONE_ALONE: &str = "amoCRM отклонила возврат нескольких сделок: дальше по одной";

/// An entry whose move is to be undone.
struct Undoing {
    attempt: Box<Attempt>,
    moved: Move,
}

impl InHand for Undoing {
    fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    fn attempt_mut(&mut self) -> &mut Attempt {
        &mut self.attempt
    }

    fn end(self, settlement: Settlement) -> Ended {
        self.attempt.end(settlement)
    }
}

impl Undoing {
    /// The request of this attempt was certainly not carried out. An earlier attempt's request may have been.
    fn not_sent(&mut self) {
        self.attempt.progress.undo = self.attempt.entry.progress.undo;
    }

    fn undone(mut self) -> Ended {
        let Move { from, to, .. } = self.moved;
        self.attempt.log(Fact::MovedBack { from: to, to: from });
        // A later move forward has an origin of its own.
        self.attempt.progress.moved = None;
        self.attempt.progress.undo = Some(Undo::Back);
        self.end(Settlement::Done(Outcome::Undone))
    }
}

/// The entry is as it was before.
fn left(mut attempt: Box<Attempt>, why: UndoLeft) -> Ended {
    attempt.log(Fact::UndoLeft(why));
    attempt.progress.undo = Some(Undo::Left(why));
    attempt.end(Settlement::Done(Outcome::Synced))
}

/// Takes these entries to their end. Their rows are not read: they have their deal ids.
pub(crate) async fn undo(
    batch: &Batch,
    entries: Vec<Box<Attempt>>,
) -> Result<Vec<Ended>, InboxError> {
    let StepResult { next, mut ended } = people::lock(batch, entries).await?;
    let mut rows = Vec::new();
    for attempt in next {
        match attempt.progress.placing_move() {
            Some(moved) => rows.push(Undoing { attempt, moved }),
            None => ended.push(left(attempt, UndoLeft::OriginUnknown)),
        }
    }
    if rows.is_empty() {
        return Ok(ended);
    }
    let read_at = Instant::now();
    let rows = standing_where_we_put_them(batch, rows, &mut ended).await?;
    let step = batch.stay_back(rows);
    ended.extend(step.ended);
    let step = batch.begin(step.next);
    ended.extend(step.ended);
    send(batch, step.next, read_at, &mut ended).await?;
    Ok(ended)
}

/// Reads stages and deals, and ends the rows whose deal stays where it stands.
async fn standing_where_we_put_them(
    batch: &Batch,
    rows: Vec<Undoing>,
    ended: &mut Vec<Ended>,
) -> Result<Vec<Undoing>, InboxError> {
    let Found {
        items: pipelines,
        unreadable,
    } = match batch.amocrm.pipelines().await {
        Ok(pipelines) => pipelines,
        Err(error) => {
            ended.extend(batch.fail(None, rows, error).await?);
            return Ok(Vec::new());
        }
    };
    let is_whole = unreadable.is_none() && pipelines.iter().all(|it: &Pipeline| it.is_whole);
    let asked = batch.read_deals(rows, |row| vec![row.moved.deal], ended);
    let Some((rows, found)) = asked.await? else {
        return Ok(Vec::new());
    };
    let deals = rows.iter().map(|row| row.moved.deal).collect();
    let placed = batch.ctx.inbox.placed(deals).await?;
    let mut standing = Vec::new();
    for row in rows {
        let is_sent = row.attempt.progress.undo == Some(Undo::Sent);
        let deal = found.get(&row.moved.deal);
        match way_back(&row.moved, is_sent, deal, &pipelines, is_whole) {
            WayBack::Move if is_placed_later(&row.moved, row.id(), &placed) => {
                ended.push(left(row.attempt, UndoLeft::MovedSince));
            }
            WayBack::Move => standing.push(row),
            WayBack::Arrived => ended.push(row.undone()),
            WayBack::Leave(why) => ended.push(left(row.attempt, why)),
            WayBack::StageUnknown => {
                let what = format!("этап {}", row.moved.from);
                ended.push(batch.unreadable(row, &what));
            }
        }
    }
    Ok(standing)
}

/// Stores that the deals may be on their way back, and sends them: those of one stage together.
async fn send(
    batch: &Batch,
    mut rows: Vec<Undoing>,
    read_at: Instant,
    ended: &mut Vec<Ended>,
) -> Result<(), InboxError> {
    for row in &mut rows {
        row.attempt.progress.undo = Some(Undo::Sent);
    }
    batch.checkpoint(&rows).await?;
    let begin_by = read_at + batch.ctx.timings.fresh_for;
    let mut by_stage: BTreeMap<_, Vec<Undoing>> = BTreeMap::new();
    for row in rows {
        let stage = (row.moved.pipeline, row.moved.from);
        by_stage.entry(stage).or_default().push(row);
    }
    for ((pipeline, stage), rows) in by_stage {
        let target = Target { pipeline, stage };
        let items = rows.into_iter().map(|row| Item {
            body: row.moved.deal,
            begin_by,
            goes_alone: row.attempt.progress.alone,
            row,
        });
        let request = |deals: Vec<DealId>, begin_by| {
            let amocrm = batch.amocrm.clone();
            async move { amocrm.move_deals(&deals, target, begin_by).await }
        };
        let sizes = &batch.ctx.batch_size;
        for sent in bulk::write(sizes, Operation::Move, items.collect(), request).await {
            ended.extend(answered(batch, sent).await?);
        }
    }
    Ok(())
}

async fn answered(batch: &Batch, sent: Sent<Undoing, DealId>) -> Result<Vec<Ended>, InboxError> {
    let Failed {
        mut rows,
        error,
        may_have_landed,
    } = match sent {
        Ok(answers) => {
            let ended = answers.into_iter().map(|(row, answer)| match answer {
                Some(_) => row.undone(),
                // The next attempt looks where the deal stands.
                None => batch.retry(row, "amoCRM не подтвердила возврат сделки"),
            });
            return Ok(ended.collect());
        }
        Err(failed) => failed,
    };
    // What amoCRM says of the way back to some stage tells nothing of the moves to the target: no row is in doubt, and
    // nothing halts.
    if matches!(error, AmoError::Rejected { .. }) {
        let now = batch.now();
        let is_alone = rows.len() == 1 && !may_have_landed;
        let rejected = |mut row: Undoing| {
            if is_alone {
                return left(row.attempt, UndoLeft::Refused);
            }
            row.attempt.progress.alone = true;
            row.again_at(now, Fact::Failed(UNDONE_ALONE.to_owned()))
        };
        return Ok(rows.into_iter().map(rejected).collect());
    }
    if error.was_not_applied() && !may_have_landed {
        rows.iter_mut().for_each(Undoing::not_sent);
    }
    // After a 403 the rows are held. A ban would come for any of them again.
    let operation =
        matches!(error, AmoError::Refused(Refusal::Forbidden)).then_some(Operation::Move);
    batch.fail(operation, rows, error).await
}
