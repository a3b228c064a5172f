use amocrm::{Pipeline, Stage};
use jiff::Timestamp;

use super::*;
use crate::{
    domain::{ContactId, DealId, KeyedHash, PipelineId, RowId},
    inbox::{Choice, Lane, Progress, Step, Why},
};

const FROM: i64 = 10;
const TO: i64 = 20;

fn moved() -> Move {
    Move {
        deal: DealId::new(1),
        pipeline: PipelineId::new(5),
        from: StageId::new(FROM),
        to: StageId::new(TO),
        at: Timestamp::UNIX_EPOCH,
    }
}

fn choice() -> Choice {
    Choice {
        fingerprint: KeyedHash::new([0; 16]),
        contact: Some(ContactId::new(3)),
        deal: DealId::new(1),
        why: Why::Open,
    }
}

fn noted(how: Placed) -> Step {
    Step::Noted {
        choice: choice(),
        how,
    }
}

fn placed(how: Placed, note_resolve_after: Option<Timestamp>) -> Step {
    Step::Placed {
        choice: choice(),
        how,
        note_resolve_after,
    }
}

fn entry(state: State, outcome: Option<Outcome>, step: Step, moved: Option<Move>) -> Entry {
    let at = Timestamp::UNIX_EPOCH;
    Entry {
        row: RowId::new(uuid::Uuid::nil()),
        lane: Lane::Live,
        state,
        due_at: at,
        attempts: 0,
        delivery: None,
        outcome,
        backfill: None,
        reason: None,
        progress: Progress {
            step,
            moved,
            ..Progress::default()
        },
        stored_at: at,
        updated_at: at,
    }
}

#[test]
fn what_can_be_undone_is_a_finished_move_of_a_known_origin() {
    use Outcome::{AlreadyLinked, Gone, Synced, Undone};
    use Placed::{Created, Left as Stood, Moved};
    use State::{Done, Parked, Pending, Waiting};
    use UndoLeft as Left;
    let other = Move {
        deal: DealId::new(2),
        ..moved()
    };
    let in_flight = Some(Timestamp::UNIX_EPOCH);
    let table = [
        (Done, Some(Synced), noted(Moved), Some(moved()), Ok(())),
        // Another service has noted the deal and filled the row.
        (
            Done,
            Some(Synced),
            placed(Moved, None),
            Some(moved()),
            Ok(()),
        ),
        // The deal's id is yet to be written.
        (Pending, None, noted(Moved), Some(moved()), Ok(())),
        (Parked, None, noted(Moved), Some(moved()), Ok(())),
        (
            Pending,
            None,
            placed(Moved, None),
            Some(moved()),
            Err(Left::NotFinished),
        ),
        (
            Done,
            Some(Synced),
            placed(Moved, in_flight),
            Some(moved()),
            Err(Left::NotFinished),
        ),
        (
            Pending,
            None,
            Step::Chosen(choice()),
            Some(moved()),
            Err(Left::NotFinished),
        ),
        (Waiting, None, Step::Begun, None, Err(Left::NotFinished)),
        (
            Done,
            Some(Undone),
            noted(Moved),
            None,
            Err(Left::AlreadyUndone),
        ),
        (
            Done,
            Some(Synced),
            noted(Moved),
            None,
            Err(Left::OriginUnknown),
        ),
        (
            Done,
            Some(Synced),
            noted(Moved),
            Some(other),
            Err(Left::OriginUnknown),
        ),
        (Done, Some(Synced), noted(Stood), None, Err(Left::NotMoved)),
        (Done, Some(Synced), noted(Created), None, Err(Left::Created)),
        (
            Done,
            Some(AlreadyLinked),
            Step::Begun,
            None,
            Err(Left::NotSynced),
        ),
        (
            Done,
            Some(Gone),
            noted(Moved),
            Some(moved()),
            Err(Left::NotSynced),
        ),
    ];
    for (state, outcome, step, moved, expected) in table {
        let entry = entry(state, outcome, step, moved);
        assert_eq!(undoable(&entry).map(drop), expected, "{entry:?}");
    }

    let mut again = entry(State::Pending, None, noted(Placed::Moved), Some(moved()));
    again.progress.undo = Some(Undo::Again);
    assert_eq!(undoable(&again), Err(UndoLeft::NotFinished));
}

fn deal(pipeline: i64, stage: StageId, is_deleted: bool) -> Deal {
    let at = Timestamp::UNIX_EPOCH;
    Deal {
        id: DealId::new(1),
        name: String::new(),
        pipeline: PipelineId::new(pipeline),
        stage,
        created_at: at,
        updated_at: at,
        closed_at: None,
        is_deleted,
        contacts: Vec::new(),
        main_contact: None,
    }
}

fn pipeline(stages: &[(i64, bool)], is_archive: bool) -> Pipeline {
    let stage = |&(id, is_unsorted): &(i64, bool)| Stage {
        id: StageId::new(id),
        name: String::new(),
        sort: id,
        is_unsorted,
    };
    Pipeline {
        id: PipelineId::new(5),
        name: String::new(),
        is_archive,
        stages: stages.iter().map(stage).collect(),
        is_whole: true,
    }
}

#[test]
fn only_a_deal_that_stands_where_we_put_it_goes_back() {
    let pipelines = [pipeline(&[(FROM, false), (TO, false)], false)];
    let at = |stage| Some(deal(5, StageId::new(stage), false));
    let table = [
        (at(TO), false, WayBack::Move),
        (at(TO), true, WayBack::Move),
        // Ours only if we have sent it.
        (at(FROM), true, WayBack::Arrived),
        (at(FROM), false, WayBack::Leave(UndoLeft::MovedSince)),
        (at(30), false, WayBack::Leave(UndoLeft::MovedSince)),
        (at(30), true, WayBack::Leave(UndoLeft::MovedSince)),
        (
            Some(deal(6, StageId::new(TO), false)),
            false,
            WayBack::Leave(UndoLeft::MovedSince),
        ),
        (
            Some(deal(5, StageId::new(TO), true)),
            false,
            WayBack::Leave(UndoLeft::DealGone),
        ),
        (None, true, WayBack::Leave(UndoLeft::DealGone)),
    ];
    for (deal, is_sent, expected) in table {
        let found = way_back(&moved(), is_sent, deal.as_ref(), &pipelines, true);
        assert_eq!(found, expected, "{deal:?} {is_sent}");
    }
}

#[test]
fn a_deal_goes_back_only_to_a_stage_that_is_there() {
    let standing = deal(5, StageId::new(TO), false);
    let way = |moved: &Move, pipelines: &[Pipeline], is_whole| {
        way_back(moved, false, Some(&standing), pipelines, is_whole)
    };
    let gone = WayBack::Leave(UndoLeft::StageGone);
    let without = [pipeline(&[(TO, false)], false)];
    assert_eq!(way(&moved(), &without, true), gone);
    assert_eq!(way(&moved(), &without, false), WayBack::StageUnknown);
    assert_eq!(way(&moved(), &[], true), gone);
    let unsorted = [pipeline(&[(FROM, true), (TO, false)], false)];
    assert_eq!(way(&moved(), &unsorted, true), gone);
    let archived = [pipeline(&[(FROM, false), (TO, false)], true)];
    assert_eq!(way(&moved(), &archived, true), gone);
    let lost = Move {
        from: StageId::LOST,
        ..moved()
    };
    assert_eq!(way(&lost, &without, true), WayBack::Move);
}

#[test]
fn a_deal_is_another_rows_once_that_row_has_it_in_its_place() {
    let ours = RowId::new(uuid::Uuid::from_u128(1));
    let another = RowId::new(uuid::Uuid::from_u128(2));
    let moved = moved();
    for (row, deal, seconds, expected) in [
        (another, 1, 1, true),
        (another, 1, 0, false),
        (another, 1, -1, false),
        (another, 2, 1, false),
        (ours, 1, 1, false),
    ] {
        let placed = PlacedFor {
            row,
            deal: DealId::new(deal),
            at: moved.at + jiff::SignedDuration::from_secs(seconds),
        };
        assert_eq!(
            is_placed_later(&moved, ours, &[placed]),
            expected,
            "{placed:?}"
        );
    }
}
