//! Which moves can be undone, and what is done with the deal. Pure.

use amocrm::{Deal, Pipeline};

use crate::{
    domain::{RowId, StageId},
    inbox::{Entry, Move, Outcome, Placed, PlacedFor, State, Undo, UndoLeft},
};

/// What an entry's own record says. `Ok`: the deal has to be looked at, and goes back if it stands where we put it.
pub fn undoable(entry: &Entry) -> Result<Move, UndoLeft> {
    let progress = &entry.progress;
    let is_ended = match (entry.state, entry.outcome) {
        (State::Done, Some(Outcome::Undone)) => return Err(UndoLeft::AlreadyUndone),
        (State::Done, Some(Outcome::Synced)) => true,
        (State::Done, _) => return Err(UndoLeft::NotSynced),
        (State::Pending | State::Claimed | State::Waiting | State::Parked, _) => false,
    };
    let is_written = is_ended || progress.step.is_noted();
    if !is_written || progress.step.resolve_after().is_some() || progress.undo == Some(Undo::Again)
    {
        return Err(UndoLeft::NotFinished);
    }
    match progress.step.placed() {
        Some(Placed::Moved) => progress.placing_move().ok_or(UndoLeft::OriginUnknown),
        Some(Placed::Left) => Err(UndoLeft::NotMoved),
        Some(Placed::Created) => Err(UndoLeft::Created),
        None => Err(UndoLeft::NotSynced),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayBack {
    Move,
    /// An earlier request, whose answer was lost, has moved the deal back.
    Arrived,
    Leave(UndoLeft),
    /// The part of the pipelines that could not be read may hold the stage.
    StageUnknown,
}

/// What to do with a deal that was read a moment ago; `None`: amoCRM does not know it. `is_sent`: a request of ours may
/// have moved it back already.
#[must_use]
pub fn way_back(
    moved: &Move,
    is_sent: bool,
    deal: Option<&Deal>,
    pipelines: &[Pipeline],
    pipelines_are_whole: bool,
) -> WayBack {
    let Some(deal) = deal.filter(|deal| !deal.is_deleted) else {
        return WayBack::Leave(UndoLeft::DealGone);
    };
    if deal.pipeline != moved.pipeline {
        return WayBack::Leave(UndoLeft::MovedSince);
    }
    if deal.stage == moved.from && is_sent {
        return WayBack::Arrived;
    }
    if deal.stage != moved.to {
        return WayBack::Leave(UndoLeft::MovedSince);
    }
    let pipeline = pipelines.iter().find(|it| it.id == moved.pipeline);
    let stage = pipeline.and_then(|it| it.stages.iter().find(|stage| stage.id == moved.from));
    match (pipeline, stage) {
        // The two closing stages are in every pipeline.
        _ if moved.from == StageId::WON || moved.from == StageId::LOST => WayBack::Move,
        (Some(pipeline), Some(stage)) if !pipeline.is_archive && !stage.is_unsorted => {
            WayBack::Move
        }
        (_, None) if !pipelines_are_whole => WayBack::StageUnknown,
        _ => WayBack::Leave(UndoLeft::StageGone),
    }
}

/// Whether another row has the deal in its place since the move: that row would lose the stage if the move were undone.
#[must_use]
pub fn is_placed_later(moved: &Move, row: RowId, placed: &[PlacedFor]) -> bool {
    let of_another = |it: &&PlacedFor| it.deal == moved.deal && it.row != row;
    placed.iter().filter(of_another).any(|it| it.at > moved.at)
}

#[cfg(test)]
mod tests;
