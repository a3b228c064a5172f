//! Many rows at once: what they cost, that nobody is mistaken on the way, and that somebody of this minute goes first.

mod index;

use std::time::Duration;

use jiff::Timestamp;
use sandbox::{
    AmoQuirks, DealId, Fault, Kind, Point, Recorded, Server, When,
    scenario::{Case, Scenario},
};
use serde_json::json;
use tripwire_sync::{
    domain::RowId,
    inbox::{Arrival, Fact, PAUSED, Source, State},
    sync::rules::timings::Timings,
};

use crate::support::{EMAIL, Wishes, World, rows_of};

/// All rows are there before the service, so that one run takes them together.
fn together() -> Wishes {
    Wishes {
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    }
}

/// With the real order of times: what was read stays fresh for longer than a busy machine takes.
async fn launch(world: &mut World, time_scale: f64) {
    let mut settings = world.settings();
    settings.timings = Timings::scaled(time_scale);
    world.launch_with(settings).await;
}

fn email(n: usize) -> String {
    format!("student{n}@example.kz")
}

fn assert_right(scenario: &Scenario) {
    let wrong = scenario.verify();
    assert!(
        wrong.is_empty(),
        "{} wrong: {:?}",
        wrong.len(),
        wrong.first()
    );
}

fn import_day(world: &World, rows: usize) -> Scenario {
    let (amo, postgrest) = (&world.sandbox.amo, &world.sandbox.postgrest);
    Scenario::import_day(7, rows, amo, postgrest, &world.setting)
}

async fn backfill(world: &World, rows: impl Iterator<Item = RowId>) {
    let source = Source::Backfill(world.inbox().begin_backfill().await.unwrap());
    let arrivals = rows.map(|row| Arrival {
        row,
        source: source.clone(),
    });
    world.inbox().store(arrivals.collect()).await.unwrap();
}

#[tokio::test]
async fn further_rows_of_a_person_come_right_in_the_same_run() {
    let mut world = World::prepare(together());
    let cases = [Case::OpenBeforeTarget, Case::SecondRow].repeat(20);
    let (amo, postgrest) = (&world.sandbox.amo, &world.sandbox.postgrest);
    let scenario = Scenario::of_cases(3, cases, amo, postgrest, &world.setting);
    launch(&mut world, 0.1).await;
    world.until_settled(40).await;

    assert_right(&scenario);
    assert_eq!(world.asked("leads.update"), 1);
    assert_eq!(world.asked("notes.create"), 2);
}

#[tokio::test]
async fn a_batch_of_moves_that_a_gateway_gives_up_on_is_split_and_sent_again() {
    let mut world = World::prepare(together());
    let (amo, postgrest) = (&world.sandbox.amo, &world.sandbox.postgrest);
    let cases = vec![Case::OpenBeforeTarget; 40];
    let scenario = Scenario::of_cases(3, cases, amo, postgrest, &world.setting);
    let moves = Point::amo("leads.update");
    let gives_up = Kind::status(When::Before, 504);
    world.sandbox.faults().add(Fault::once(moves, gives_up));
    launch(&mut world, 0.1).await;
    world.until_settled(40).await;

    assert_right(&scenario);
    let sizes = |route: &str| -> Vec<usize> {
        let sent = world.requests_to(route);
        sent.iter().map(|it| it.items().len()).collect()
    };
    // At once: the values are absolute.
    assert_eq!(sizes("leads.update"), [40, 20, 20]);
    assert!(sizes("notes.create").iter().all(|size| *size <= 20));
    for student in scenario.of(Case::OpenBeforeTarget) {
        let entry = world.entry(RowId::new(student.row)).await.unwrap();
        assert_eq!(entry.attempts, 0, "{entry:?}");
    }
}

/// A 504 does not tell whether deals or notes were made.
#[tokio::test]
async fn creates_and_notes_that_a_gateway_gave_up_on_are_looked_for_before_any_goes_again() {
    for (route, operation) in [("leads.create", "deals"), ("notes.create", "notes")] {
        for (when, again) in [(When::Before, vec![20, 20]), (When::After, vec![])] {
            let mut world = World::prepare(together());
            let (amo, postgrest) = (&world.sandbox.amo, &world.sandbox.postgrest);
            let cases = vec![Case::NoDeal; 40];
            let scenario = Scenario::of_cases(3, cases, amo, postgrest, &world.setting);
            let gives_up = Fault::once(Point::amo(route), Kind::status(when, 504));
            world.sandbox.faults().add(gives_up);
            launch(&mut world, 0.02).await;
            world.until_settled(40).await;

            assert_right(&scenario);
            let sent = world.requests_to(route);
            let sizes: Vec<usize> = sent.iter().map(|it| it.items().len()).collect();
            assert_eq!(sizes, [vec![40], again].concat(), "{operation} {when:?}");
        }
    }
}

/// Rows that are found together, each to be searched for, thrice as fast as amoCRM allows.
fn searched_for(rows: usize) -> (World, Vec<RowId>) {
    let world = World::prepare(Wishes {
        requests_per_second: 21,
        contact_scan: false,
        ..together()
    });
    let insert = |n| {
        world.student(&email(n));
        world.insert(&json!({"email": email(n)}))
    };
    let rows = (0..rows).map(insert).collect();
    (world, rows)
}

/// At amoCRM's rate the searches of a batch take eight seconds.
#[tokio::test]
async fn a_pause_ends_the_searches_of_the_batches_at_work() {
    const ROWS: usize = 100;
    /// Of two batches, eight each.
    const BEGUN: usize = 16;
    let (mut world, _) = searched_for(ROWS);
    launch(&mut world, 0.1).await;
    world.until_asked("contacts.search", 5, |_| true).await;
    let inbox = world.inbox().clone();
    inbox
        .set_state(PAUSED, &Timestamp::UNIX_EPOCH)
        .await
        .unwrap();
    world.until_sync_is("paused").await;
    let asked = world.asked("contacts.search");
    world.until_none_is(&[State::Claimed]).await;
    let more = world.asked("contacts.search") - asked;
    assert!(more <= BEGUN, "{more}");
    assert_eq!(world.amo_writes().len(), 0);

    inbox.clear_state(PAUSED).await.unwrap();
    world.until_settled(ROWS).await;
    for n in 0..ROWS {
        let deal = world.deals_of(&email(n))[0];
        assert_eq!(world.notes(deal).len(), 1, "{n}");
    }
}

/// Its rows would be searched for and put back, and the row that is to go alone would wait for that.
#[tokio::test]
async fn after_a_refusal_no_further_batch_of_the_run_begins() {
    const ROWS: usize = 160;
    /// The first batch, and the one that searches beside it.
    const BEGUN: usize = 100;
    let (mut world, rows) = searched_for(ROWS);
    // The sweep finds them in the order of their ids.
    let first = (0..ROWS).min_by_key(|n| rows[*n]).unwrap();
    let about = world.deals_of(&email(first))[0].to_string();
    let move_it = Point::amo("leads.update").about(&about);
    let refused = Kind::status(When::Before, 400);
    world.sandbox.faults().add(Fault::always(move_it, refused));
    launch(&mut world, 0.1).await;
    world.until_settled(ROWS).await;

    let mut searched = 0;
    for (n, row) in rows.iter().enumerate() {
        let history = world.inbox().history(*row).await.unwrap();
        let put_back = history
            .iter()
            .filter(|line| line.facts.contains(&Fact::OneAtATime));
        let mut first_facts = put_back.filter_map(|line| line.facts.first());
        searched += usize::from(first_facts.any(|fact| *fact != Fact::OneAtATime));
        let deal = world.deals_of(&email(n))[0];
        assert_eq!(world.notes(deal).len(), usize::from(n != first), "{n}");
    }
    assert!(searched <= BEGUN, "{searched}");
}

// ---- somebody of this minute ----

/// At the real pace, while thousands are imported: at any time, a live row is begun to be written within five seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_row_overtakes_an_import_at_any_time_of_it() {
    const ROWS: usize = 900;
    const LIVE: usize = 6;
    let mut world = World::prepare(Wishes {
        amo: AmoQuirks {
            latency: Duration::from_millis(50),
            ..AmoQuirks::patient()
        },
        time_scale: 1.0,
        requests_per_second: 7,
        ..Wishes::default()
    });
    world.setting.add_crowd(&world.sandbox.amo, 1, ROWS);
    let scenario = import_day(&world, ROWS);
    let deals: Vec<DealId> = (0..LIVE).map(|n| world.student(&email(n))).collect();
    world.launch().await;
    backfill(&world, rows_of(&scenario).into_iter()).await;
    world.until_asked("contacts.list", 1, |_| true).await;

    let mut began = Vec::new();
    for (n, deal) in deals.iter().enumerate() {
        let row = world.insert(&json!({"email": email(n)}));
        began.push(std::time::Instant::now());
        world.deliver(row).await;
        assert_eq!(world.until_synced_once(row).await, *deal);
    }
    let left = scenario.remaining();
    assert!(
        left > 0,
        "the import was over before the last live row came"
    );

    let moves = world.requests_to("leads.update");
    for (began, deal) in began.iter().zip(&deals) {
        let is_its = |it: &&Recorded| it.items().iter().any(|item| item["id"] == deal.get());
        let write = moves.iter().find(is_its).unwrap();
        let took = write.at - *began;
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    world.until_settled(ROWS + LIVE).await;
    assert_eq!(
        scenario.remaining(),
        0,
        "and the import goes on to its end beside them"
    );
}

/// Each is a round trip that somebody waits for.
#[tokio::test]
async fn one_row_takes_four_round_trips_to_amocrm_and_two_to_postgrest() {
    let world = World::start(Wishes::brisk()).await;
    // The columns and the pipelines are asked for once, by whoever comes first.
    world.student("first@example.kz");
    let first = world.insert(&json!({"email": "first@example.kz"}));
    world.deliver(first).await;
    world.until_synced_once(first).await;

    world.student(EMAIL);
    let before = world.sandbox.requests().len();
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_synced_once(row).await;
    let asked: Vec<_> = world.sandbox.requests()[before..]
        .iter()
        .map(|it| (it.server, it.route))
        .collect();
    assert_eq!(
        asked,
        [
            (Server::Postgrest, "rows.read"),
            (Server::Amo, "contacts.search"),
            (Server::Amo, "leads.list"),
            (Server::Amo, "leads.update"),
            (Server::Amo, "notes.create"),
            (Server::Postgrest, "rows.update"),
        ]
    );
}
