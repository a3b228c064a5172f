//! Many rows at once: what they cost, that nobody is mistaken on the way, and that somebody of this minute goes first.

use std::time::Duration;

use serde_json::json;
use tripwire_sync::{
    domain::{DealId, RowId, StageId},
    inbox::{Arrival, Source},
    sandbox::{
        AmoQuirks, Fault, Kind, Point, Recorded, Server, When,
        school::{Case, School},
    },
    sync::schedule::Tempo,
};

use crate::support::{EMAIL, NAME, Wishes, World};

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
    settings.tempo = Tempo::scaled(time_scale);
    world.launch_with(settings).await;
}

fn email(n: usize) -> String {
    format!("student{n}@example.kz")
}

/// Requests for pages of the list of contacts, not for contacts by id.
fn pages(world: &World, order: &str) -> usize {
    let pages = world.requests_to("contacts.list").into_iter();
    pages.filter(|it| it.param(order).is_some()).count()
}

fn assert_right(school: &School) {
    let wrong = school.verify();
    assert!(
        wrong.is_empty(),
        "{} wrong: {:?}",
        wrong.len(),
        wrong.first()
    );
}

fn import_day(world: &World, rows: usize) -> School {
    let (amo, postgrest) = (&world.sandbox.amo, &world.sandbox.postgrest);
    School::import_day(7, rows, amo, postgrest, &world.setting)
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
async fn an_import_is_found_in_the_list_and_nobody_is_searched_for() {
    const ROWS: usize = 600;
    let mut world = World::prepare(together());
    world.setting.add_crowd(&world.sandbox.amo, 1, ROWS);
    let school = import_day(&world, ROWS);
    launch(&mut world, 1.0).await;
    world.until_settled(ROWS).await;

    assert_right(&school);
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
    assert_eq!(world.asked("contacts.search"), 0);
    // 1,225 contacts, and a page far down.
    assert_eq!(pages(&world, "order[id]"), 6);
    let requests = world.sandbox.amo.requests().len();
    assert!(requests < ROWS / 10, "{requests} requests");
}

#[tokio::test]
async fn a_list_that_was_read_is_remembered_and_only_its_changes_are_asked_for() {
    let mut world = World::prepare(together());
    let older = |n: usize| format!("older{n}@example.kz");
    let mut rows: Vec<RowId> = Vec::new();
    for n in 0..60 {
        world.student(&older(n));
        rows.push(world.insert(&json!({"email": older(n)})));
    }
    // Newer than all of them, so the list has to be read to its end.
    world.setting.add_crowd(&world.sandbox.amo, 1, 600);
    launch(&mut world, 1.0).await;
    for row in rows {
        world.until_synced_once(row).await;
    }
    let read = pages(&world, "order[id]");

    let deals: Vec<DealId> = (0..30).map(|n| world.student(&email(n))).collect();
    let rows: Vec<RowId> = (0..30)
        .map(|n| world.insert(&json!({"email": email(n)})))
        .collect();
    backfill(&world, rows.iter().copied()).await;
    for (row, deal) in rows.iter().zip(&deals) {
        assert_eq!(world.until_synced_once(*row).await, *deal);
    }
    assert_eq!(
        pages(&world, "order[id]"),
        read,
        "the list is not read again"
    );
    assert_eq!(pages(&world, "order[updated_at]"), 1);
    assert_eq!(world.asked("contacts.search"), 0);
}

/// More contacts have changed than the list has pages for: it still tells who was there, and is read anew for the next.
#[tokio::test]
async fn who_is_not_in_a_list_that_is_behind_is_searched_for_and_the_next_read_it_anew() {
    let mut world = World::prepare(together());
    let students = |world: &World, of: &str, count: usize| -> Vec<(RowId, DealId)> {
        let named = (0..count).map(|n| format!("{of}{n}@example.kz"));
        named
            .map(|email| {
                let deal = world.student(&email);
                (world.insert(&json!({"email": email})), deal)
            })
            .collect()
    };
    let older = students(&world, "older", 60);
    world.setting.add_crowd(&world.sandbox.amo, 1, 240);
    launch(&mut world, 1.0).await;
    for (row, deal) in older {
        assert_eq!(world.until_synced_once(row).await, deal);
    }
    let read = pages(&world, "order[id]");

    let newer = students(&world, "newer", 30);
    for n in 0..800 {
        world.contact(&format!("stranger{n}@example.kz"));
    }
    backfill(&world, newer.iter().map(|(row, _)| *row)).await;
    for (row, deal) in newer {
        assert_eq!(world.until_synced_once(row).await, deal);
    }
    assert_eq!(world.asked("contacts.search"), 30);
    assert_eq!(pages(&world, "order[id]"), read);
    assert!(pages(&world, "order[updated_at]") <= read);

    let newest = students(&world, "newest", 40);
    backfill(&world, newest.iter().map(|(row, _)| *row)).await;
    for (row, deal) in newest {
        assert_eq!(world.until_synced_once(row).await, deal);
    }
    assert_eq!(world.asked("contacts.search"), 30);
    // 1,170 contacts.
    assert!(pages(&world, "order[id]") >= read + 5);
}

/// The events of an import come one after the other: it is one import all the same, and no time is lost while its rows settle.
#[tokio::test]
async fn while_rows_settle_the_list_is_read_for_all_of_them() {
    const ROWS: usize = 120;
    let settle_delay = Duration::from_secs(4);
    let mut world = World::prepare(Wishes {
        settle_delay,
        ..Wishes::brisk()
    });
    let deals: Vec<DealId> = (0..ROWS).map(|n| world.student(&email(n))).collect();
    // All students are at its end.
    world.setting.add_crowd(&world.sandbox.amo, 1, 1_000);
    launch(&mut world, 1.0).await;
    let began = std::time::Instant::now();
    let rows: Vec<RowId> = (0..ROWS)
        .map(|n| world.insert(&json!({"email": email(n)})))
        .collect();
    for row in &rows {
        world.deliver(*row).await;
    }
    for (row, deal) in rows.iter().zip(&deals) {
        assert_eq!(world.until_synced_once(*row).await, *deal);
    }

    // But for the very first, which fall due a few at a time.
    let searches = world.asked("contacts.search");
    assert!(searches < ROWS / 2, "{searches} searches");
    let lists = world.requests_to("contacts.list").into_iter();
    let mut pages = lists.filter(|it| it.param("order[id]").is_some());
    let first = pages.next().unwrap();
    assert!(first.at < began + settle_delay, "{:?}", first.at - began);
    // Five, and looks for the end as far as more and more rows would pay for it.
    let pages = 1 + pages.count();
    assert!(pages < 5 + 5, "{pages} pages");
}

#[tokio::test]
async fn without_the_list_everybody_is_searched_for() {
    let mut world = World::prepare(Wishes {
        contact_scan: false,
        ..together()
    });
    let school = import_day(&world, 60);
    launch(&mut world, 0.1).await;
    world.until_settled(60).await;

    assert_right(&school);
    assert_eq!(pages(&world, "order[id]"), 0);
    assert!(world.asked("contacts.search") >= 58);
}

/// The list is too long to be read to its end, and an older contact of the same student has the deal that counts.
#[tokio::test]
async fn of_a_list_read_in_part_an_older_contact_with_the_open_deal_is_not_overlooked() {
    const ROWS: usize = 40;
    let mut world = World::prepare(together());
    let elders: Vec<DealId> = (0..3).map(|n| world.student(&email(n))).collect();
    // Far more than fifty contacts for each row.
    world.setting.add_crowd(&world.sandbox.amo, 1, 3_000);
    let lost = world.contact(&email(0));
    world.deal(lost, StageId::LOST);
    let won = world.contact(&email(1));
    world.deal(won, StageId::WON);
    world.contact(&email(2));
    let deals: Vec<DealId> = elders
        .into_iter()
        .chain((3..ROWS).map(|n| world.student(&email(n))))
        .collect();
    let rows: Vec<RowId> = (0..ROWS)
        .map(|n| world.insert(&json!({"email": email(n)})))
        .collect();
    launch(&mut world, 0.1).await;

    for (row, deal) in rows.iter().zip(&deals) {
        assert_eq!(world.until_synced_once(*row).await, *deal);
    }
    assert_eq!(world.asked("leads.create"), 0);
    assert_eq!(world.asked("contacts.search"), 3, "of forty");
    let read = pages(&world, "order[id]");
    assert!((1..=ROWS / 5).contains(&read), "{read} pages");
}

#[tokio::test]
async fn a_contact_that_the_list_named_and_that_is_gone_is_searched_for() {
    let mut wishes = together();
    wishes.amo.latency = Duration::from_millis(100);
    let mut world = World::prepare(wishes);
    let deals: Vec<DealId> = (0..30).map(|n| world.student(&email(n))).collect();
    let rows: Vec<RowId> = (0..30)
        .map(|n| world.insert(&json!({"email": email(n)})))
        .collect();
    launch(&mut world, 0.1).await;
    world
        .until_asked("contacts.list", 1, |it| it.status.is_some())
        .await;
    // Two contacts become one: the deal goes over to the other, which has the e-mail from now on.
    let moved = world.sandbox.amo.world(|world| {
        let old = world.contacts_with_email(&email(7)).next().unwrap().id;
        world.delete_contact(old);
        let merged = world.add_contact(NAME, &[&email(7)], &[]);
        world.set_deal(deals[7], |deal| deal.contacts = vec![merged]);
        world.set_contact(merged, |contact| contact.deals.push(deals[7]));
        merged
    });

    for (row, deal) in rows.iter().zip(&deals) {
        assert_eq!(world.until_synced_once(*row).await, *deal);
    }
    assert_eq!(world.asked("contacts.search"), 1);
    assert_eq!(
        world.column(rows[7], "amocrm_contact_id"),
        Some(moved.to_string())
    );
}

#[tokio::test]
async fn further_rows_of_a_person_come_right_in_the_same_run() {
    let mut world = World::prepare(together());
    let cases = [Case::OpenBeforeTarget, Case::SecondRow].repeat(20);
    let (amo, postgrest) = (&world.sandbox.amo, &world.sandbox.postgrest);
    let school = School::of_cases(3, cases, amo, postgrest, &world.setting);
    launch(&mut world, 0.1).await;
    world.until_settled(40).await;

    assert_right(&school);
    assert_eq!(world.asked("leads.update"), 1);
    assert_eq!(world.asked("notes.create"), 2);
}

#[tokio::test]
async fn batches_halve_when_a_gateway_gives_up_on_one() {
    let mut world = World::prepare(together());
    let (amo, postgrest) = (&world.sandbox.amo, &world.sandbox.postgrest);
    let cases = vec![Case::OpenBeforeTarget; 40];
    let school = School::of_cases(3, cases, amo, postgrest, &world.setting);
    let moves = Point::amo("leads.update");
    let gives_up = Kind::status(When::Before, 504);
    world.sandbox.faults().add(Fault::once(moves, gives_up));
    launch(&mut world, 0.1).await;
    world.until_settled(40).await;

    assert_right(&school);
    let sizes = |route: &str| -> Vec<usize> {
        let sent = world.requests_to(route);
        sent.iter().map(|it| it.items().len()).collect()
    };
    let moves = sizes("leads.update");
    assert_eq!(moves[0], 40);
    assert!(moves[1..].iter().all(|size| *size <= 20), "{moves:?}");
    assert!(sizes("notes.create").iter().all(|size| *size <= 20));
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
    let school = import_day(&world, ROWS);
    let deals: Vec<DealId> = (0..LIVE).map(|n| world.student(&email(n))).collect();
    world.launch().await;
    backfill(&world, school.pupils.iter().map(|pupil| pupil.row)).await;
    world.until_asked("contacts.list", 1, |_| true).await;

    let mut began = Vec::new();
    for (n, deal) in deals.iter().enumerate() {
        let row = world.insert(&json!({"email": email(n)}));
        began.push(std::time::Instant::now());
        world.deliver(row).await;
        assert_eq!(world.until_synced_once(row).await, *deal);
    }
    let left = school.remaining();
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
        school.remaining(),
        0,
        "and the import goes on to its end beside them"
    );
}

/// More than are searched for in any case, while the list is read for a backfill that is worth all of it.
#[tokio::test]
async fn some_of_this_minute_do_not_wait_for_a_list_that_is_read_for_a_backfill() {
    const ROWS: usize = 300;
    let mut world = World::prepare(Wishes {
        requests_per_second: 50,
        ..Wishes::brisk()
    });
    let school = import_day(&world, ROWS);
    let deals: Vec<DealId> = (0..30).map(|n| world.student(&email(n))).collect();
    world.setting.add_crowd(&world.sandbox.amo, 1, 9_000);
    launch(&mut world, 1.0).await;
    backfill(&world, school.pupils.iter().map(|pupil| pupil.row)).await;
    world.until_asked("contacts.list", 3, |_| true).await;

    let rows: Vec<RowId> = (0..30)
        .map(|n| world.insert(&json!({"email": email(n)})))
        .collect();
    let live = rows.iter().map(|row| Arrival {
        row: *row,
        source: Source::Sweep,
    });
    world.inbox().store(live.collect()).await.unwrap();
    for (row, deal) in rows.iter().zip(&deals) {
        assert_eq!(world.until_synced_once(*row).await, *deal);
    }
    let left = school.remaining();
    assert!(left > ROWS * 9 / 10, "the list is still being read: {left}");
    assert_eq!(world.asked("contacts.search"), 30);
    world.until_settled(ROWS + 30).await;
    assert_eq!(school.remaining(), 0);
    assert_eq!(world.asked("contacts.search"), 30);
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
