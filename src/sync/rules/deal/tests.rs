use amocrm::Stage;
use proptest::prelude::*;

use super::*;
use crate::domain::{PipelineId, StageId};

const OURS: PipelineId = PipelineId::new(31);
const OTHER: PipelineId = PipelineId::new(32);
const NEW: StageId = StageId::new(311);
const BOUGHT: StageId = StageId::new(312);
const LESSONS: StageId = StageId::new(313);
const ANN: ContactId = ContactId::new(501);
const BOB: ContactId = ContactId::new(502);
const DAY: i64 = 86_400;
/// When the row was created.
const BOUGHT_ON: i64 = 1_700_000_000;

fn pipeline() -> Pipeline {
    let stage = |id, sort, is_unsorted| Stage {
        id,
        name: String::new(),
        sort,
        is_unsorted,
    };
    let stages = vec![
        stage(StageId::new(310), 10, true),
        stage(NEW, 20, false),
        stage(BOUGHT, 30, false),
        stage(LESSONS, 40, false),
        stage(StageId::WON, 10_000, false),
        stage(StageId::LOST, 11_000, false),
    ];
    Pipeline {
        id: OURS,
        name: "Tripwire".into(),
        is_archive: false,
        is_whole: true,
        stages,
    }
}

fn rules(stage: StageId) -> Rules {
    Rules {
        target: Target {
            pipeline: OURS,
            stage,
        },
        reuse_closed: Duration::from_hours(2160),
    }
}

fn at(days_from_purchase: i64) -> Timestamp {
    Timestamp::from_second(BOUGHT_ON + days_from_purchase * DAY).unwrap()
}

fn deal(id: i64, stage: StageId) -> Deal {
    Deal {
        id: DealId::new(id),
        name: String::new(),
        pipeline: OURS,
        stage,
        created_at: at(-200),
        updated_at: at(-1),
        closed_at: stage.is_closed().then(|| at(-1)),
        is_deleted: false,
        contacts: vec![ANN],
        main_contact: Some(ANN),
    }
}

fn deciding(rules: Rules, deals: &[Deal], recorded: Option<i64>) -> Decision {
    let situation = Situation {
        contacts: &[ANN, BOB],
        deals,
        recorded: recorded.map(DealId::new),
        row_created_at: at(0),
    };
    decide(&rules, &situation)
}

fn picks(id: i64, why: Why) -> Decision {
    Decision::Use {
        deal: DealId::new(id),
        why,
    }
}

/// What it shows, deals, recorded, decision with target 312, decision with target 142.
type Case = (&'static str, Vec<Deal>, Option<i64>, Decision, Decision);

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn the_rules_pick_in_their_order_whether_the_target_is_won_or_not() {
    let updated = |id, stage, days| Deal {
        updated_at: at(days),
        ..deal(id, stage)
    };
    let closed = |id, stage, days| Deal {
        closed_at: Some(at(days)),
        ..deal(id, stage)
    };
    let (won, lost) = (StageId::WON, StageId::LOST);

    let same =
        |what, deals, recorded, decision| -> Case { (what, deals, recorded, decision, decision) };
    let table: Vec<Case> = vec![
        same("no deal at all", vec![], None, Decision::Create),
        same("an open one", vec![deal(1, NEW)], None, picks(1, Why::Open)),
        same(
            "an open one before a won one",
            vec![deal(2, won), deal(1, NEW)],
            None,
            picks(1, Why::Open),
        ),
        same(
            "the open one changed last",
            vec![updated(1, NEW, -2), updated(2, NEW, -9)],
            None,
            picks(1, Why::Open),
        ),
        same(
            "the higher id of two changed together",
            vec![deal(1, NEW), deal(2, NEW)],
            None,
            picks(2, Why::Open),
        ),
        (
            "a recently won one: it is on the target when the target is 142",
            vec![deal(1, won), deal(2, lost)],
            None,
            picks(1, Why::ClosedWon),
            picks(1, Why::ClosedOnTarget),
        ),
        same(
            "a recently lost one",
            vec![deal(2, lost)],
            None,
            picks(2, Why::ClosedLost),
        ),
        same(
            "closed 90 days before the purchase still counts",
            vec![closed(1, lost, -90)],
            None,
            picks(1, Why::ClosedLost),
        ),
        same(
            "closed 91 days before does not",
            vec![closed(1, won, -91), closed(2, lost, -91)],
            None,
            Decision::Create,
        ),
        same(
            "closed after the purchase counts",
            vec![closed(1, lost, 5)],
            None,
            picks(1, Why::ClosedLost),
        ),
        same(
            "without a closing time the last change counts",
            vec![Deal {
                closed_at: None,
                updated_at: at(-91),
                ..deal(1, lost)
            }],
            None,
            Decision::Create,
        ),
        same(
            "the recorded one before a newer open one",
            vec![deal(1, NEW), deal(2, NEW)],
            Some(1),
            picks(1, Why::Recorded),
        ),
        same(
            "the recorded one though lost, if recently",
            vec![deal(1, lost), deal(2, NEW)],
            Some(1),
            picks(1, Why::Recorded),
        ),
        same(
            "not the recorded one when closed long ago",
            vec![closed(1, won, -91), deal(2, NEW)],
            Some(1),
            picks(2, Why::Open),
        ),
        same(
            "never a deal of another pipeline",
            vec![Deal {
                pipeline: OTHER,
                ..deal(1, NEW)
            }],
            Some(1),
            Decision::Create,
        ),
        same(
            "never a deleted one",
            vec![Deal {
                is_deleted: true,
                ..deal(1, NEW)
            }],
            Some(1),
            Decision::Create,
        ),
        same(
            "never a deal of somebody else",
            vec![Deal {
                contacts: vec![ContactId::new(999)],
                ..deal(1, NEW)
            }],
            Some(1),
            Decision::Create,
        ),
        same(
            "a deal of any of the contacts",
            vec![Deal {
                contacts: vec![BOB],
                ..deal(1, NEW)
            }],
            None,
            picks(1, Why::Open),
        ),
    ];
    for (what, deals, recorded, with_custom, with_won) in table {
        assert_eq!(
            deciding(rules(BOUGHT), &deals, recorded),
            with_custom,
            "{what}, target 312"
        );
        assert_eq!(
            deciding(rules(won), &deals, recorded),
            with_won,
            "{what}, target 142"
        );
    }
}

#[test]
fn a_deal_goes_forward_or_stays() {
    use Placement::{Leave, Move};
    // (stage, with target 312, with target 142)
    let table = [
        (StageId::new(310), Move, Move),
        (NEW, Move, Move),
        (BOUGHT, Leave, Move),
        (LESSONS, Leave, Move),
        (StageId::new(777), Leave, Leave),
        (StageId::WON, Leave, Leave),
        (StageId::LOST, Move, Move),
    ];
    for (stage, with_custom, with_won) in table {
        let deal = deal(1, stage);
        assert_eq!(
            placement(rules(BOUGHT).target, &pipeline(), &deal),
            with_custom,
            "{stage}, target 312"
        );
        assert_eq!(
            placement(rules(StageId::WON).target, &pipeline(), &deal),
            with_won,
            "{stage}, target 142"
        );
    }
}

#[test]
fn an_unusable_target_is_named() {
    let all = [
        pipeline(),
        Pipeline {
            id: OTHER,
            is_archive: true,
            ..pipeline()
        },
    ];
    let problem = |pipeline, stage| target_problem(&all, Target { pipeline, stage });
    assert_eq!(problem(OURS, BOUGHT), None);
    assert_eq!(problem(OURS, StageId::WON), None);
    let expect = [
        (problem(PipelineId::new(1), BOUGHT), "воронки 1 нет"),
        (problem(OTHER, BOUGHT), "в архиве"),
        (problem(OURS, StageId::new(777)), "этапа 777 нет"),
        (problem(OURS, StageId::new(310)), "Неразобранное"),
        (problem(OURS, StageId::LOST), "143"),
    ];
    for (problem, part) in expect {
        assert!(
            problem.as_deref().is_some_and(|text| text.contains(part)),
            "{problem:?} should say {part}"
        );
    }
}

#[test]
fn a_new_stage_is_noticed_in_our_pipeline_only() {
    assert!(stage_is_unknown(&pipeline(), &deal(1, StageId::new(777))));
    assert!(!stage_is_unknown(&pipeline(), &deal(1, NEW)));
    assert!(!stage_is_unknown(
        &pipeline(),
        &Deal {
            pipeline: OTHER,
            ..deal(1, StageId::new(777))
        }
    ));
}

prop_compose! {
    fn any_deal()(
        id in 1_i64..40,
        stage in prop::sample::select(vec![310_i64, 311, 312, 313, 777, 142, 143]),
        ours in prop::bool::weighted(0.8),
        is_deleted in prop::bool::weighted(0.1),
        contact in prop::sample::select(vec![501_i64, 502, 999]),
        updated in -300_i64..10,
        closed in prop::option::of(-300_i64..10),
    ) -> Deal {
        let stage = StageId::new(stage);
        Deal {
            pipeline: if ours { OURS } else { OTHER },
            is_deleted,
            contacts: vec![ContactId::new(contact)],
            updated_at: at(updated),
            closed_at: closed.map(at),
            ..deal(id, stage)
        }
    }
}

fn is_usable(rules: &Rules, deal: &Deal) -> bool {
    let recent = deal.closed_at.unwrap_or(deal.updated_at) >= at(-90);
    !deal.is_deleted
        && deal.pipeline == rules.target.pipeline
        && (deal.contacts.contains(&ANN) || deal.contacts.contains(&BOB))
        && (!deal.stage.is_closed() || recent)
}

proptest! {
    #[test]
    fn what_must_never_happen(
        deals in prop::collection::vec(any_deal(), 0..12),
        recorded in prop::option::of(1_i64..40),
        target in prop::sample::select(vec![312_i64, 142]),
    ) {
        let rules = rules(StageId::new(target));
        match deciding(rules, &deals, recorded) {
            // Never a create although a usable deal exists.
            Decision::Create => prop_assert!(!deals.iter().any(|deal| is_usable(&rules, deal))),
            Decision::Use { deal: id, why } => {
                // Never a deal of another pipeline, of another contact, deleted, or of an older purchase.
                prop_assert!(deals.iter().any(|deal| deal.id == id && is_usable(&rules, deal)));
                // Never a closed deal while an open one exists, unless it is the one on record.
                let open = deals.iter().any(|deal| !deal.stage.is_closed() && is_usable(&rules, deal));
                prop_assert!(!open || matches!(why, Why::Open | Why::Recorded));
            }
        }
    }

    #[test]
    fn a_move_never_goes_backwards(
        deal in any_deal(),
        target in prop::sample::select(vec![311_i64, 312, 313, 142]),
    ) {
        let rules = rules(StageId::new(target));
        if placement(rules.target, &pipeline(), &deal) == Placement::Move && deal.stage != StageId::LOST {
            let stands = sort_of(&pipeline(), deal.stage);
            prop_assert!(stands.is_some_and(|stands| Some(stands) < sort_of(&pipeline(), rules.target.stage)));
        }
    }

    #[test]
    fn the_order_of_the_answer_does_not_matter(
        deals in prop::collection::vec(any_deal(), 0..8),
        recorded in prop::option::of(1_i64..40),
    ) {
        let mut unique = deals;
        unique.sort_by_key(|deal| deal.id);
        unique.dedup_by_key(|deal| deal.id);
        let forward = deciding(rules(BOUGHT), &unique, recorded);
        unique.reverse();
        prop_assert_eq!(forward, deciding(rules(BOUGHT), &unique, recorded));
    }
}
