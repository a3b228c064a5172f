//! In English, and in `--json`.

use super::{Lang, between, moved};
use crate::inbox::{Fact, Names, UndoLeft, Why};

pub(super) fn fact(fact: &Fact, names: &Names) -> String {
    let words = match fact {
        Fact::Delivery(delivery) => return format!("delivery {delivery}"),
        Fact::Sweep => "sweep",
        Fact::Backfill => "backfill",
        Fact::CarriedOver => "carried over from a damaged inbox",
        Fact::Retry => "retry",
        Fact::ParkedByHand => "parked by hand",
        Fact::WorksForAnother => "works for another row",
        Fact::ContactSeen => "contact seen",
        Fact::ContactByPhone => "contact found by phone",
        Fact::ContactByBeginning => "contact found by the beginning of its e-mail",
        Fact::DealChosen(deal, rule) => return format!("deal {deal} chosen: {}", why(*rule)),
        Fact::Moved => "moved",
        Fact::MovedFrom { from, to } => return moved(*from, *to, names, Lang::English),
        Fact::Undo => "undo",
        Fact::MovedBack { from, to } => {
            return format!("moved back {}", between(*from, *to, names, Lang::English));
        }
        Fact::UndoLeft(left) => return format!("not undone: {}", undo_left(*left)),
        Fact::DealCreated(deal) => return format!("deal {deal} created"),
        Fact::Noted => "noted",
        Fact::DealFound(deal) => return format!("the deal {deal} of an earlier attempt was found"),
        Fact::NoteFound => "the note of an earlier attempt was found",
        Fact::NoteWasThere => "the note was there already",
        Fact::SendingStopped => "sending stopped",
        Fact::OneAtATime => "an operation is in doubt: rows go one at a time",
        Fact::PersonUnknown => "the person is not known",
        Fact::PersonAtWork => "another row of this person is at work",
        Fact::PersonUnfinished => "another row of this person is not finished",
        Fact::ContactAtWork => "another row of this contact is at work",
        Fact::ContactUnfinished => "another row of this contact is not finished",
        Fact::IndexBehind => "the contact index has fallen behind",
        Fact::TargetUnusable => "the target stage is not usable",
        Fact::EmailChanged => "the e-mail changed on the way",
        Fact::PersonChanged => "e-mail or phone changed, choosing anew",
        Fact::DealGone => "the chosen deal is gone, choosing anew",
        Fact::CreateNeverHappened => "an earlier create never happened, choosing anew",
        Fact::MoveNeverHappened => "an earlier move never happened, choosing anew",
        Fact::LateDeal(deal) => {
            return format!("the earlier create was carried out after all: deal {deal}");
        }
        Fact::MoveInDoubt => "the fate of a move is open",
        Fact::CreateInDoubt => "the fate of a create is open",
        Fact::NoteInDoubt => "the fate of a note is open",
        Fact::BrokenOff => "run broken off",
        Fact::Done(outcome) => return format!("done: {}", outcome.into_str()),
        Fact::Again(None) => "again",
        Fact::Again(Some(reason)) => return format!("again: {reason}"),
        Fact::Waiting(reason) => return format!("waiting: {reason}"),
        Fact::Parked(reason) => return format!("parked: {reason}"),
        Fact::Failed(told) | Fact::Earlier(told) => told,
    };
    words.to_owned()
}

pub(super) fn undo_left(left: UndoLeft) -> &'static str {
    match left {
        UndoLeft::Unknown => "the inbox does not know the row, or not any more",
        UndoLeft::NotFinished => "the row is not finished",
        UndoLeft::NotSynced => "the service moved no deal for the row",
        UndoLeft::NotMoved => "the deal stood at or after the target already",
        UndoLeft::Created => "the service created the deal, and amoCRM cannot delete deals",
        UndoLeft::OriginUnknown => {
            "an earlier version moved the deal, and did not store where it came from"
        }
        UndoLeft::AlreadyUndone => "undone already",
        UndoLeft::MovedSince => "people have moved the deal since, or a later row uses it",
        UndoLeft::DealGone => "the deal was deleted",
        UndoLeft::StageGone => "no deal can be moved to the stage that it came from",
        UndoLeft::Refused => "amoCRM rejects the way back",
        UndoLeft::Withdrawn => "another machine does the syncing, so the wish is withdrawn",
    }
}

pub(super) fn why(why: Why) -> &'static str {
    match why {
        Why::Recorded => "recorded for this person",
        Why::Open => "open",
        Why::ClosedOnTarget => "recently closed, on the target stage",
        Why::ClosedWon => "recently won",
        Why::ClosedLost => "recently lost",
        Why::NoDeal => "no usable deal",
        Why::NoContact => "no contact",
    }
}
