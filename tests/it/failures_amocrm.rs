//! What amoCRM is like when it is asked too much, and when somebody rebuilds the pipeline under our feet.

use std::{sync::Arc, time::Duration};

use sandbox::{
    Fault, Kind, Page, Point, StageId, When,
    amocrm::{Pipeline, Stage},
    scenario::Missing,
};
use serde_json::json;
use tripwire_sync::{
    domain::{HaltCause, RowId, SyncState, SystemClock},
    inbox::{HALT, Revival, State, Step},
};

use crate::support::{EMAIL, Wishes, World, sending};

fn students(world: &World, count: usize, has_deal: bool) -> Vec<RowId> {
    (0..count)
        .map(|n| {
            let email = format!("student{n}@example.kz");
            if has_deal {
                world.student(&email);
            } else {
                world.contact(&email);
            }
            world.insert(&json!({"email": email}))
        })
        .collect()
}

fn together() -> Wishes {
    Wishes {
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    }
}

fn halted_by(world: &World) -> Option<HaltCause> {
    match *world.app().status.borrow() {
        SyncState::Halted { cause, .. } => Some(cause),
        _ => None,
    }
}

fn change_pipeline(world: &World, change: impl FnOnce(&mut Pipeline)) {
    let pipeline = world.setting.pipeline;
    let changed = world
        .sandbox
        .amo
        .world(|world| world.set_pipeline(pipeline, change));
    assert!(changed.is_some());
}

/// A stage of the school's own, at this place in the pipeline.
fn add_stage(world: &World, sort: i64) -> StageId {
    let id = StageId::new(90_000 + sort);
    change_pipeline(world, |pipeline| {
        pipeline.stages.push(Stage {
            id,
            name: "Новый этап".to_owned(),
            sort,
            is_unsorted: false,
        });
    });
    id
}

const BEFORE_TARGET: i64 = 35;
const AFTER_TARGET: i64 = 45;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_429_pauses_everything_and_then_takes_one_from_the_rate() {
    const ROWS: usize = 14;
    let mut world = World::prepare(Wishes {
        requests_per_second: 7,
        ..together()
    });
    let rows = students(&world, ROWS, true);
    world.sandbox.faults().add(Fault::once(
        Point::amo("contacts.search").nth(4),
        Kind::Status {
            when: When::Before,
            code: 429,
            page: Page::Html,
            retry_after: None,
        },
    ));
    world.launch().await;
    for row in rows {
        world.until_synced_once(row).await;
    }

    let requests = world.sandbox.amo.requests();
    let refused = requests
        .iter()
        .find(|request| request.status == Some(429))
        .unwrap();
    let stamps: Vec<_> = world
        .app()
        .amocrm
        .as_ref()
        .unwrap()
        .send_stamps()
        .into_iter()
        .map(tokio::time::Instant::into_std)
        .collect();
    // Those that had gone before the answer came are not to blame.
    let pause = stamps
        .windows(2)
        .map(|pair| (pair[1] - pair[0], pair[1]))
        .find(|(gap, _)| *gap >= Duration::from_secs(1));
    let (_, resumed) = pause.expect("nobody sends for a second");
    assert!(resumed > refused.at);
    let in_flight = stamps
        .iter()
        .filter(|at| **at > refused.at && **at < resumed)
        .count();
    assert!(in_flight <= 4, "{in_flight} sent after the refusal");

    let slow: Vec<_> = stamps.into_iter().filter(|at| *at >= resumed).collect();
    assert!(slow.len() >= ROWS, "the rest of the run");
    for window in slow.windows(7) {
        let span = window[6] - window[0];
        assert!(span > Duration::from_secs(1), "seven requests in {span:?}");
    }
}

/// Nobody has bought anything yet, or will for days.
async fn launch_inspecting(world: &mut World, every: Duration) {
    let mut settings = world.settings();
    sending(&mut settings).sync.inspect_every = Some(every);
    settings.timings.amocrm_probe.first = HOUR;
    world.launch_with(settings).await;
}

const HOUR: Duration = Duration::from_hours(1);

/// What a failure of the inspection means is asked of the account, which does not answer.
#[tokio::test]
async fn a_question_after_a_failed_job_holds_up_no_row() {
    let mut world = World::prepare(Wishes::brisk());
    let no_api = Kind::status(When::Before, 404);
    let faults = world.sandbox.faults();
    faults.add(Fault::once(Point::amo("pipelines.list"), no_api));
    faults.add(Fault::once(Point::amo("account"), Kind::Hang(When::Before)));
    let mut settings = world.settings();
    sending(&mut settings).sync.inspect_every = Some(HOUR);
    sending(&mut settings).amocrm.timeouts.read = HOUR;
    world.launch_with(settings).await;
    world
        .until_asked("account", 1, |it| it.fault.is_some())
        .await;

    world.student(EMAIL);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_synced_once(row).await;
}

#[tokio::test]
async fn a_mistake_is_told_at_the_start_without_a_student() {
    let mut world = World::prepare(Wishes::brisk());
    let token = world.sandbox.amo.token();
    let mut settings = world.settings();
    sending(&mut settings).sync.inspect_every = Some(HOUR);
    world.sandbox.amo.set_token("another");
    world.launch_with(settings).await;
    world.until_sync_is("halted").await;
    assert_eq!(halted_by(&world), Some(HaltCause::AmocrmToken));
    world.sandbox.amo.set_token(&token);
    world.until_sync_is("working").await;

    let mut world = World::prepare(Wishes::brisk());
    change_pipeline(&world, |pipeline| pipeline.is_archive = true);
    launch_inspecting(&mut world, HOUR).await;
    world.until_sync_is("halted").await;
    assert_eq!(halted_by(&world), Some(HaltCause::AmocrmStage));

    // Somebody believes it to be mended.
    world.guest().await.clear_state(HALT).await.unwrap();
    world.until_asked("pipelines.list", 2, |_| true).await;
    world.until_sync_is("halted").await;
}

#[tokio::test]
async fn a_token_that_dies_is_told_within_the_hour_without_a_student() {
    let hour = Duration::from_millis(100);
    let mut world = World::prepare(Wishes::brisk());
    launch_inspecting(&mut world, hour).await;
    world.until_asked("pipelines.list", 3, |_| true).await;
    let asked = world.requests_to("pipelines.list");
    assert!(asked[1].at - asked[0].at >= hour);
    assert!(asked[2].at - asked[1].at >= hour);
    world.sandbox.amo.set_token("another");
    world.until_sync_is("halted").await;
    assert_eq!(halted_by(&world), Some(HaltCause::AmocrmToken));
}

/// What was known of the pipeline is void, for the students too.
#[tokio::test]
async fn after_a_resume_without_a_remedy_no_deal_is_moved() {
    let mut world = World::prepare(Wishes::brisk());
    launch_inspecting(&mut world, Duration::from_millis(100)).await;
    world
        .until_asked("pipelines.list", 1, |it| it.status.is_some())
        .await;
    change_pipeline(&world, |pipeline| pipeline.is_archive = true);
    world.until_sync_is("halted").await;
    for row in students(&world, 3, true) {
        world.deliver(row).await;
        let asked = world.asked("pipelines.list");
        world.guest().await.clear_state(HALT).await.unwrap();
        world
            .until_asked("pipelines.list", asked + 1, |_| true)
            .await;
        world.until_sync_is("halted").await;
    }
    assert_eq!(world.amo_writes().len(), 0);
}

#[tokio::test]
async fn what_amocrm_does_not_answer_is_looked_at_again_soon() {
    let mut world = World::prepare(Wishes::brisk());
    let silent = Kind::status(When::Before, 503);
    let pipelines = Point::amo("pipelines.list");
    world.sandbox.faults().add(Fault::once(pipelines, silent));
    launch_inspecting(&mut world, HOUR).await;
    world
        .until_asked("pipelines.list", 1, |it| it.status == Some(200))
        .await;
    assert_eq!(halted_by(&world), None);
}

/// So the first after a start waits for no more than the others.
#[tokio::test]
async fn the_pipelines_are_known_before_the_first_student_comes() {
    let mut world = World::prepare(Wishes::brisk());
    launch_inspecting(&mut world, HOUR).await;
    world
        .until_asked("pipelines.list", 1, |it| it.status.is_some())
        .await;
    for row in students(&world, 3, true) {
        world.deliver(row).await;
        world.until_synced_once(row).await;
    }
    assert_eq!(world.asked("pipelines.list"), 1);
}

/// The target vanishes while we believe that we know the pipeline: nothing is parked, nothing goes on.
async fn target_vanishes(missing: Missing, has_deal: bool) {
    let world = World::start(Wishes {
        missing,
        ..Wishes::brisk()
    })
    .await;
    // The pipeline is known from now on.
    world.student("first@example.kz");
    let first = world.insert(&json!({"email": "first@example.kz"}));
    world.deliver(first).await;
    world.until_synced_once(first).await;

    let target = world.setting.target;
    change_pipeline(&world, |pipeline| {
        pipeline.stages.retain(|stage| stage.id != target);
    });
    if has_deal {
        world.student(EMAIL);
    } else if missing == Missing::Wait {
        world.contact(EMAIL);
    }
    let before = world.amo_writes().len();
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_sync_is("halted").await;
    assert_eq!(halted_by(&world), Some(HaltCause::AmocrmStage));
    let asked = world.asked("pipelines.list");
    world
        .until_asked("pipelines.list", asked + 1, |_| true)
        .await;
    assert_eq!(
        halted_by(&world),
        Some(HaltCause::AmocrmStage),
        "after a probe"
    );
    let entry = world.until_state(row, State::Pending).await;
    assert_eq!(entry.attempts, 0);
    assert_eq!(world.amo_writes().len(), before + 1, "the refused one only");

    change_pipeline(&world, |pipeline| {
        pipeline.stages.push(Stage {
            id: target,
            name: "Купил продукт".to_owned(),
            sort: 40,
            is_unsorted: false,
        });
    });
    world.until_synced_once(row).await;
}

#[tokio::test]
async fn a_target_that_vanished_halts_and_parks_no_row() {
    target_vanishes(Missing::Wait, true).await;
    target_vanishes(Missing::Wait, false).await;
    target_vanishes(Missing::Create, false).await;
}

#[tokio::test]
async fn a_bulk_whose_target_vanished_is_not_refused_item_by_item() {
    for has_deal in [true, false] {
        let mut world = World::prepare(together());
        let target = world.setting.target;
        let rows = students(&world, 20, has_deal);
        // Between the look at the pipelines and the write.
        world
            .sandbox
            .amo
            .quirks(|quirks| quirks.latency = Duration::from_millis(100));
        world.launch().await;
        world
            .until_asked("pipelines.list", 1, |it| it.status.is_some())
            .await;
        change_pipeline(&world, |pipeline| {
            pipeline.stages.retain(|stage| stage.id != target);
        });
        world.until_sync_is("halted").await;
        assert_eq!(halted_by(&world), Some(HaltCause::AmocrmStage));
        assert!(world.amo_writes().len() <= 2, "{:?}", world.amo_writes());

        world
            .sandbox
            .amo
            .quirks(|quirks| quirks.latency = Duration::ZERO);
        change_pipeline(&world, |pipeline| {
            pipeline.stages.push(Stage {
                id: target,
                name: "Купил продукт".to_owned(),
                sort: 40,
                is_unsorted: false,
            });
        });
        for row in rows {
            world.until_synced_once(row).await;
        }
    }
}

#[tokio::test]
async fn an_archived_pipeline_halts_and_its_return_is_noticed() {
    let mut world = World::prepare(Wishes::brisk());
    let mut settings = world.settings();
    // As after an hour.
    settings.timings.pipelines_for = Duration::ZERO;
    world.launch_at(settings, Arc::new(SystemClock)).await;
    world.student(EMAIL);
    change_pipeline(&world, |pipeline| pipeline.is_archive = true);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_sync_is("halted").await;
    assert_eq!(halted_by(&world), Some(HaltCause::AmocrmStage));
    assert_eq!(world.amo_writes().len(), 0);
    world.until_state(row, State::Pending).await;

    change_pipeline(&world, |pipeline| pipeline.is_archive = false);
    world.until_synced_once(row).await;
}

#[tokio::test]
async fn a_stage_added_meanwhile_is_learnt_once_and_counts_by_its_place() {
    let world = World::start(Wishes::brisk()).await;
    world.student("first@example.kz");
    let first = world.insert(&json!({"email": "first@example.kz"}));
    world.deliver(first).await;
    world.until_synced_once(first).await;
    assert_eq!(world.asked("pipelines.list"), 1);

    let early = add_stage(&world, BEFORE_TARGET);
    let late = add_stage(&world, AFTER_TARGET);
    let cases = [
        ("early@example.kz", early, world.setting.target),
        ("late@example.kz", late, late),
        ("early-too@example.kz", early, world.setting.target),
    ];
    for (email, stands, expected) in cases {
        let contact = world.contact(email);
        let deal = world.deal(contact, stands);
        let row = world.insert(&json!({"email": email}));
        world.deliver(row).await;
        world.until_state(row, State::Done).await;
        assert_eq!(world.stage(deal), expected, "{email}");
        world.assert_noted_once(row, deal);
        assert_eq!(world.asked("pipelines.list"), 2, "{email}");
    }
}

/// The deal is chosen, its move has failed, and a manager puts it on a stage that we have never seen.
#[tokio::test]
async fn a_chosen_deal_on_a_stage_added_meanwhile_is_moved_by_its_place_too() {
    for (sort, is_moved) in [(BEFORE_TARGET, true), (AFTER_TARGET, false)] {
        let world = World::start(Wishes::brisk()).await;
        let deal = world.student(EMAIL);
        world.sandbox.faults().add(Fault::always(
            Point::amo("leads.update"),
            Kind::server_error(When::Before),
        ));
        let row = world.insert(&json!({}));
        world.deliver(row).await;
        world
            .until(row, "chosen", |entry| {
                entry.progress.step != Step::Begun && entry.attempts > 0
            })
            .await;
        let stage = add_stage(&world, sort);
        let pipeline = world.setting.pipeline;
        world
            .sandbox
            .amo
            .world(|world| world.move_deal(deal, pipeline, stage));
        world.sandbox.faults().clear();

        world.until_state(row, State::Done).await;
        let expected = if is_moved {
            world.setting.target
        } else {
            stage
        };
        assert_eq!(world.stage(deal), expected);
        world.assert_noted_once(row, deal);
    }
}

/// The pauses between 158 failures take seven days; here they take seconds.
#[tokio::test]
async fn a_row_that_keeps_failing_is_parked_in_the_end_with_the_last_reason() {
    let world = World::start(Wishes {
        time_scale: 0.000_01,
        ..Wishes::brisk()
    })
    .await;
    world.student(EMAIL);
    let fails = Kind::status(When::Before, 503);
    let fault = Fault::always(Point::amo("contacts.search"), fails);
    world.sandbox.faults().add(fault);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    let parked = world.until_state(row, State::Parked).await;
    assert_eq!(
        parked.reason.as_deref(),
        Some("не удаётся обработать слишком долго: сбой amoCRM (503)")
    );
    assert_eq!(world.asked("contacts.search"), 158);

    world.sandbox.faults().clear();
    let guest = world.guest().await;
    guest.revive(Revival::AllParked).await.unwrap();
    world.until_synced_once(row).await;
}
