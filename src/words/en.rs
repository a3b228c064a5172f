//! In English, and in `--json`.

use super::{Lang, between, moved};
use crate::{
    domain::{HaltCause, InboxFault, SyncState},
    inbox::{Fact, Names, UndoLeft, Why},
};

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
        Fact::LateDeal(deal) => {
            return format!("the earlier create was carried out after all: deal {deal}");
        }
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

/// As [`SyncState::hint`].
pub(super) fn hint(state: SyncState) -> Option<&'static str> {
    Some(match state {
        SyncState::Starting | SyncState::Working => return None,
        SyncState::Standby {
            held_by_another: true,
        } => {
            "Another service syncs: this one accepts events, and goes on by itself if that one stops"
        }
        SyncState::Standby {
            held_by_another: false,
        } => {
            "Supabase does not confirm the lease (tripwire_sync_lease): sending goes on by itself once it answers"
        }
        SyncState::Holding => {
            "Sending is switched off by AMOCRM_ENABLED=false: rows are kept, and go once it is switched on"
        }
        SyncState::Paused { .. } => {
            "Sending was paused by hand, or after the inbox was damaged: `tripwire-sync resume` goes on"
        }
        SyncState::Halted { cause, .. } => halt(cause),
        SyncState::Inbox { fault, .. } => inbox(fault),
        SyncState::InboxFull { .. } => inbox(InboxFault::Full),
    })
}

fn inbox(fault: InboxFault) -> &'static str {
    match fault {
        InboxFault::Unwritable => {
            "The inbox (inbox.db) cannot be written: make room on the disk, check its mode and the rights; events are taken again by themselves"
        }
        InboxFault::Full => {
            "The inbox (inbox.db) has reached its bounds and holds no done entry that could be removed: look at what is parked (tripwire-sync entries --state parked) and at what waits; events are taken again by themselves"
        }
        InboxFault::FileLost => {
            "The inbox (inbox.db) was removed, replaced or moved while it was open: the service ends, and opens what it finds there at its start. If the file is whole, put it back while the service is stopped"
        }
    }
}

fn halt(cause: HaltCause) -> &'static str {
    match cause {
        HaltCause::AmocrmToken => {
            "amoCRM does not take the token: make a new one, put it into the settings, and start the service again"
        }
        HaltCause::AmocrmPayment => {
            "The amoCRM subscription is not paid: once it is, sending goes on by itself"
        }
        HaltCause::AmocrmForbidden => {
            "amoCRM has forbidden access (403): find out why from amoCRM's support, then run tripwire-sync resume"
        }
        HaltCause::AmocrmStage => {
            "Pipeline or stage of the settings cannot be used: compare their ids with those of tripwire-sync pipelines"
        }
        HaltCause::AmocrmAccount => {
            "amoCRM refuses all rows: check the account's address (AMOCRM_SUBDOMAIN), its plan, and the rights of the user whose token it is. To set one row aside: tripwire-sync park <row>"
        }
        HaltCause::SupabaseKey => {
            "Supabase does not take the key, or refuses a right: check SUPABASE_KEY and SUPABASE_JWT, and the grant and policy for SELECT"
        }
        HaltCause::SupabaseSchema => {
            "Supabase lacks a table or a column: run the SQL of `tripwire-sync setup-sql`"
        }
        HaltCause::SupabaseProject => {
            "The Supabase project is stopped, not paid, read-only, or answers unlike Supabase: check SUPABASE_URL, and the project in Supabase's dashboard"
        }
        HaltCause::SupabaseDatabase => {
            "A policy, a trigger or a function of the database itself breaks off the reading of the table: mend it in Supabase's dashboard (SQL Editor; more in Logs, Postgres)"
        }
        HaltCause::SupabaseWriteBack => {
            "Supabase does not let the deal id be written: give the role the grant and the policy for UPDATE, and check the table's triggers and constraints. To set one row aside: tripwire-sync park <row>"
        }
    }
}
