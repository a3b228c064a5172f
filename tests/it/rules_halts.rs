//! When nothing may be sent: a refusal of either neighbour, a pause, a hold; and how each ends.

use std::time::Duration;

use sandbox::{Fault, Kind, Point, Server, When};
use serde_json::json;
use tripwire_sync::{
    domain::{Halt, HaltCause, RowId, SyncState},
    inbox::{Entry, HALT, PAUSED, RELEASED, State},
};

use crate::support::{EMAIL, NowForTests, Wishes, World, sending};

/// So many searches are under way at once; whoever is refused last was sent before the first refusal was read.
const IN_FLIGHT: usize = 8;

fn students(world: &World, count: usize) -> Vec<RowId> {
    (0..count)
        .map(|n| {
            let email = format!("student{n}@example.kz");
            world.student(&email);
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

fn amo_requests(world: &World) -> usize {
    world.sandbox.amo.requests().len()
}

/// Everybody is pending as if nothing had been tried.
async fn all_keep_their_attempts(world: &World, rows: &[RowId]) {
    for row in rows {
        let untouched = |entry: &Entry| entry.state == State::Pending && entry.attempts == 0;
        world
            .until(*row, "pending and not to blame", untouched)
            .await;
    }
}

async fn end_halt(world: &World) {
    world.guest().await.clear_state(HALT).await.unwrap();
}

/// A halt that probes end: refused, stopped at once, kept over a restart, over when amoCRM is well again.
async fn recovers_by_probe(cause: HaltCause, status: u16) {
    let mut world = World::prepare(together());
    let rows = students(&world, 30);
    let refused = Kind::status(When::Before, status);
    let any = Point::any(Server::Amo);
    world.sandbox.faults().add(Fault::always(any, refused));
    world.launch().await;
    world.until_sync_is("halted").await;
    assert_eq!(halted_by(&world), Some(cause));
    all_keep_their_attempts(&world, &rows).await;
    let first_probe = world.asked("account");
    let sent = amo_requests(&world) - first_probe;
    assert!(sent <= IN_FLIGHT, "{sent} requests");

    world.stop().await;
    let before = amo_requests(&world);
    world.launch().await;
    world.until_sync_is("halted").await;
    world
        .until_asked("account", first_probe + 2, |it| it.status.is_some())
        .await;
    let searches = amo_requests(&world) - before - (world.asked("account") - first_probe);
    assert_eq!(searches, 0, "only probes");
    assert_eq!(halted_by(&world), Some(cause));

    world.sandbox.faults().clear();
    world.until_sync_is("working").await;
    for row in rows {
        world.until_synced_once(row).await;
    }
}

#[tokio::test]
async fn a_401_stops_all_sending_until_a_probe_is_let_in() {
    recovers_by_probe(HaltCause::AmocrmToken, 401).await;
}

#[tokio::test]
async fn a_402_stops_all_sending_until_it_is_paid() {
    recovers_by_probe(HaltCause::AmocrmPayment, 402).await;
}

/// A run of many asks for the pipelines once for all.
#[tokio::test]
async fn a_token_that_only_the_question_for_all_meets_is_told_too() {
    for status in [401, 402, 403] {
        let mut world = World::prepare(Wishes {
            contact_scan: false,
            ..together()
        });
        students(&world, 30);
        let refused = Kind::status(When::Before, status);
        let pipelines = Point::amo("pipelines.list");
        world.sandbox.faults().add(Fault::once(pipelines, refused));
        world.launch().await;
        world.until_sync_is("halted").await;
        assert_eq!(world.amo_writes().len(), 0, "{status}");
    }
}

#[tokio::test]
async fn a_403_is_never_probed_and_ends_when_a_person_resumes() {
    let mut world = World::prepare(together());
    let rows = students(&world, 30);
    world.sandbox.amo.ban();
    world.launch().await;
    world.until_sync_is("halted").await;
    assert_eq!(halted_by(&world), Some(HaltCause::AmocrmForbidden));
    all_keep_their_attempts(&world, &rows).await;
    let sent = amo_requests(&world);
    assert!(sent <= IN_FLIGHT, "{sent} requests");
    let halt: Halt = world.inbox().state(HALT).await.unwrap().unwrap();
    assert_eq!(halt.next_probe, None);

    world.sandbox.amo.lift_ban();
    world.stop().await;
    world.launch().await;
    world.until_sync_is("halted").await;
    let late = world.insert(&json!({}));
    world.student(EMAIL);
    assert_eq!(world.deliver(late).await, 202, "still accepted");
    assert_eq!(amo_requests(&world), sent, "not even a probe");

    end_halt(&world).await;
    world.until_sync_is("working").await;
    for row in rows {
        world.until_synced_once(row).await;
    }
    world.until_synced_once(late).await;
}

#[tokio::test]
async fn a_403_in_the_middle_of_writes_leaves_no_double_behind() {
    for route in ["leads.update", "leads.create", "notes.create"] {
        let mut world = World::prepare(together());
        let rows = students(&world, 6);
        world.contact(EMAIL);
        let creates = world.insert(&json!({}));
        let forbidden = Kind::status(When::Before, 403);
        world
            .sandbox
            .faults()
            .add(Fault::once(Point::amo(route), forbidden));
        world.launch().await;
        world.until_sync_is("halted").await;
        let entry = world.until_state(creates, State::Pending).await;
        assert_eq!(
            (entry.attempts, entry.progress.step.resolve_after()),
            (0, None),
            "{route}"
        );

        // Rows of the refused request are held until a write works for another row: here a person lets them go.
        let halt: Halt = world.inbox().state(HALT).await.unwrap().unwrap();
        assert!(!halt.rows.is_empty(), "{route}");
        end_halt(&world).await;
        let guest = world.guest().await;
        guest.set_state(RELEASED, &halt.rows).await.unwrap();
        for row in rows {
            world.until_synced_once(row).await;
        }
        let deal = world.until_synced_once(creates).await;
        assert_eq!(world.deals_of(EMAIL), [deal], "{route}");
    }
}

#[tokio::test]
async fn an_unknown_stage_stops_all_sending_and_recovers_when_it_is_there() {
    let world = World::start(Wishes::brisk()).await;
    let deal = world.student(EMAIL);
    let (pipeline, target) = (world.setting.pipeline, world.setting.target);
    let stages = world.sandbox.amo.world(|world| {
        let take = |pipeline: &mut sandbox::amocrm::Pipeline| {
            let all = pipeline.stages.clone();
            pipeline.stages.retain(|stage| stage.id != target);
            all
        };
        world.set_pipeline(pipeline, take).unwrap()
    });
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_sync_is("halted").await;
    assert_eq!(halted_by(&world), Some(HaltCause::AmocrmStage));
    all_keep_their_attempts(&world, &[row]).await;
    let halt: Halt = world.inbox().state(HALT).await.unwrap().unwrap();
    assert!(halt.detail.contains(&target.to_string()), "{}", halt.detail);
    assert_eq!(world.amo_writes().len(), 0);

    world
        .sandbox
        .amo
        .world(|world| world.set_pipeline(pipeline, |it| it.stages = stages));
    assert_eq!(world.until_synced_once(row).await, deal);
}

#[tokio::test]
async fn changed_settings_let_a_halt_be_probed_once_at_the_next_start() {
    let mut world = World::prepare(Wishes::brisk());
    world.student(EMAIL);
    // Far longer than the test: what recovers does so because the settings changed.
    let patient = |world: &World| {
        let mut settings = world.settings();
        settings.timings.amocrm_probe.first = Duration::from_hours(1);
        settings.timings.amocrm_probe.longest = Duration::from_hours(1);
        settings
    };
    let clock = || std::sync::Arc::new(tripwire_sync::domain::SystemClock);
    let wrong = patient(&world);
    world.sandbox.amo.set_token("the new one");
    world.launch_at(wrong.clone(), clock()).await;
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_sync_is("halted").await;
    assert_eq!(world.asked("account"), 0);

    world.stop().await;
    world.launch_at(wrong, clock()).await;
    world.until_sync_is("halted").await;
    assert_eq!(world.asked("account"), 0, "nothing has changed");

    world.stop().await;
    let right = patient(&world);
    world.launch_at(right, clock()).await;
    world.until_synced_once(row).await;
    assert_eq!(world.asked("account"), 1);
}

#[tokio::test]
async fn a_pause_keeps_everything_and_a_resume_sends_it() {
    let world = World::start(Wishes::brisk()).await;
    let guest = world.guest().await;
    let now = jiff::Timestamp::now_for_tests();
    guest.set_state(PAUSED, &now).await.unwrap();
    world.until_sync_is("paused").await;
    let rows = students(&world, 3);
    for row in &rows {
        assert_eq!(world.deliver(*row).await, 202);
    }
    assert_eq!(amo_requests(&world), 0);

    guest.clear_state(PAUSED).await.unwrap();
    for row in rows {
        world.until_synced_once(row).await;
    }
}

#[tokio::test]
async fn a_hold_stores_what_comes_and_sends_nothing_and_is_stronger_than_resume() {
    let mut world = World::start(Wishes {
        hold: true,
        ..together()
    })
    .await;
    let rows = students(&world, 3);
    for row in &rows {
        assert_eq!(world.deliver(*row).await, 202);
    }
    end_halt(&world).await;
    world.guest().await.clear_state(PAUSED).await.unwrap();
    world.until_sync_is("holding").await;
    world.stop().await;
    assert_eq!(amo_requests(&world), 0);

    world.wishes.hold = false;
    world.launch().await;
    for row in rows {
        world.until_synced_once(row).await;
    }
}

#[tokio::test]
async fn a_refused_supabase_key_stops_the_crm_too_and_recovers() {
    let world = World::start(Wishes::brisk()).await;
    let deal = world.student(EMAIL);
    let key = world.sandbox.postgrest.key();
    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.key = "another".to_owned());
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_sync_is("halted").await;
    assert_eq!(halted_by(&world), Some(HaltCause::SupabaseKey));
    assert_eq!(amo_requests(&world), 0);

    world.sandbox.postgrest.quirks(|quirks| quirks.key = key);
    assert_eq!(world.until_synced_once(row).await, deal);
}

/// Nothing of the engine's own may wait longer than a stop allows.
#[tokio::test]
async fn a_stop_does_not_wait_for_a_probe_that_hangs() {
    let mut world = World::prepare(Wishes::brisk());
    let mut settings = world.settings();
    sending(&mut settings).amocrm.timeouts.read = Duration::from_mins(1);
    let clock = std::sync::Arc::new(tripwire_sync::domain::SystemClock);
    world.launch_at(settings, clock).await;
    world.sandbox.amo.set_token("revoked");
    let hang = Kind::Hang(When::Before);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_sync_is("halted").await;
    world.sandbox.amo.set_token("sandbox-token");
    world
        .sandbox
        .faults()
        .add(Fault::once(Point::amo("account"), hang));
    world
        .until_asked("account", 1, |it| it.fault.is_some())
        .await;

    let began = std::time::Instant::now();
    world.stop().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
}
