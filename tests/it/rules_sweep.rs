//! The sweep: no row is forgotten, whoever failed to tell us of it.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use sandbox::{Fault, Kind, Page, Point, PostgrestQuirks, Recorded, When};
use serde_json::{Value, json};
use tripwire_sync::{
    domain::RowId,
    inbox::{Outcome, State},
};

use crate::support::{EMAIL, NowForTests, Wishes, World};

fn sweeping() -> Wishes {
    Wishes {
        sweep_every: Some(Duration::from_millis(200)),
        ..Wishes::brisk()
    }
}

#[tokio::test]
async fn rows_whose_webhooks_never_came_are_found_at_start_and_later() {
    let mut world = World::prepare(sweeping());
    let deal = world.student(EMAIL);
    let early = world.insert(&json!({}));
    world.launch().await;
    assert_eq!(world.until_synced_once(early).await, deal);

    let late = world.insert(&json!({"email": "late@example.kz"}));
    world.student("late@example.kz");
    // It has no entry that could settle yet.
    world
        .until_asked("rows.update", 2, |it| it.status == Some(200))
        .await;
    world.until_synced_once(late).await;
}

#[tokio::test]
async fn a_page_cap_of_seven_hides_no_row() {
    let mut wishes = sweeping();
    wishes.postgrest = PostgrestQuirks {
        max_rows: 7,
        ..PostgrestQuirks::default()
    };
    let mut world = World::prepare(wishes);
    let rows: Vec<RowId> = (0..30)
        .map(|n| {
            let email = format!("student{n}@example.kz");
            world.student(&email);
            world.insert(&json!({"email": email}))
        })
        .collect();
    world.launch().await;
    for row in rows {
        world.until_synced_once(row).await;
    }
}

#[tokio::test]
async fn a_sweep_leaves_out_what_is_not_ours() {
    let now = Timestamp::now_for_tests();
    let mut world = World::prepare(Wishes {
        since: now - 24.hours(),
        ..sweeping()
    });
    world.student(EMAIL);
    let others = [
        json!({"status": "blocked"}),
        json!({"status": "inactive"}),
        json!({"created_at": now - 25.hours()}),
        json!({"amocrm_deal_id": "77"}),
    ]
    .map(|columns| world.insert(&columns));
    let ours = world.insert(&json!({"created_at": null}));
    world.launch().await;
    world.until_synced_once(ours).await;

    for row in others {
        assert_eq!(world.entry(row).await, None);
    }
}

#[tokio::test]
async fn a_done_entry_of_an_unsynced_row_is_reopened_with_its_steps_kept() {
    let world = World::start(sweeping()).await;
    let deal = world.student(EMAIL);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_synced_once(row).await;
    let writes = world.amo_writes().len();
    world.sandbox.postgrest.update_row(row, |row| {
        row.insert("amocrm_deal_id".into(), Value::Null);
    });

    world
        .until_asked("rows.update", 2, |it| it.status == Some(200))
        .await;
    assert_eq!(world.until_synced_once(row).await, deal);
    assert_eq!(world.amo_writes().len(), writes, "no step is taken again");
}

#[tokio::test]
async fn a_row_that_was_skipped_is_synced_once_its_status_allows() {
    let world = World::start(sweeping()).await;
    world.student(EMAIL);
    let row = world.insert(&json!({"status": "blocked"}));
    world.deliver(row).await;
    world.until_done(row, Outcome::Skipped).await;
    world.sandbox.postgrest.update_row(row, |row| {
        row.insert("status".into(), "active".into());
    });

    world
        .until_asked("rows.update", 1, |it| it.status == Some(200))
        .await;
    world.until_synced_once(row).await;
}

#[tokio::test]
async fn a_sweep_wakes_neither_waiting_nor_parked_entries() {
    let world = World::start(sweeping()).await;
    let waiting = world.insert(&json!({}));
    let parked = world.insert(&json!({"email": null}));
    for (row, state) in [(waiting, State::Waiting), (parked, State::Parked)] {
        world.deliver(row).await;
        world.until_state(row, state).await;
    }
    let sweeps = |world: &World| {
        let mut reads = world.requests_to("rows.read");
        reads.retain(|read| read.param("amocrm_deal_id").is_some() || read.param("or").is_some());
        reads.len()
    };
    let before = sweeps(&world);
    let attempts = world.inbox().history(parked).await.unwrap().len();
    while sweeps(&world) < before + 3 {
        let reads = world.asked("rows.read");
        world.until_asked("rows.read", reads + 1, |_| true).await;
    }
    assert_eq!(world.entry(parked).await.unwrap().state, State::Parked);
    assert_eq!(world.inbox().history(parked).await.unwrap().len(), attempts);
}

/// Deliveries of many rows are read together, and the answer is cut off.
#[tokio::test]
async fn a_row_cut_off_by_the_page_cap_is_not_gone() {
    let mut wishes = Wishes::brisk();
    wishes.postgrest.max_rows = 7;
    wishes.hold = true;
    let mut world = World::start(wishes).await;
    let mut rows = Vec::new();
    for n in 0..30 {
        let email = format!("student{n}@example.kz");
        world.student(&email);
        let row = world.insert(&json!({"email": email}));
        world.deliver(row).await;
        rows.push(row);
    }
    let absent = RowId::new(uuid::Uuid::new_v4());
    world.deliver(absent).await;
    world.stop().await;
    world.wishes.hold = false;
    world.launch().await;

    for row in rows {
        world.until_synced_once(row).await;
        let story = world.inbox().history(row).await.unwrap();
        assert!(
            story
                .iter()
                .all(|line| !format!("{line:?}").contains("строки нет")),
            "{story:?}"
        );
    }
    world.until_done(absent, Outcome::Gone).await;
}

/// A form or an import leaves blanks where no deal id is.
#[tokio::test]
async fn rows_whose_deal_id_is_blank_are_found_without_an_event() {
    let mut world = World::prepare(sweeping());
    let rows: Vec<RowId> = ["", " ", "\t\r\n", "\u{a0}\u{3000}"]
        .into_iter()
        .enumerate()
        .map(|(n, blank)| {
            let email = format!("student{n}@example.kz");
            world.student(&email);
            world.insert(&json!({ "email": email, "amocrm_deal_id": blank }))
        })
        .collect();
    let kept = world.insert(&json!({ "email": "x@example.kz", "amocrm_deal_id": "later" }));
    world.launch().await;
    for row in rows {
        world.until_synced_once(row).await;
    }
    assert_eq!(world.entry(kept).await, None);
}

/// A column of numbers has no blanks, and an older PostgREST cannot be asked for them.
#[tokio::test]
async fn a_project_that_cannot_be_asked_for_blanks_is_swept_all_the_same() {
    for (status, code) in [(404, "42883"), (400, "PGRST100")] {
        let mut world = World::prepare(sweeping());
        let refused = Kind::Status {
            when: When::Before,
            code: status,
            page: Page::Code(code),
            retry_after: None,
        };
        let blank = Point::postgrest("rows.read").about("match");
        world.sandbox.faults().add(Fault::always(blank, refused));
        world.student(EMAIL);
        let row = world.insert(&json!({}));
        world.launch().await;
        world.until_synced_once(row).await;
        let swept = world.requests_to("rows.read").len();
        world.until_asked("rows.read", swept + 4, |_| true).await;
        assert_eq!(world.app().status.borrow().into_str(), "working", "{code}");
    }
}

// ---- short sweeps ----

/// The sweep of all rows comes at the start and not again.
fn sweeping_once() -> Wishes {
    Wishes {
        sweep_every: Some(Duration::from_hours(1)),
        ..Wishes::brisk()
    }
}

fn is_short(request: &Recorded) -> bool {
    request.param("order") == Some("created_at.desc,id.desc") && request.status.is_some()
}

fn short_sweeps(world: &World) -> usize {
    let requests = world.requests_to("rows.read");
    requests.iter().filter(|it| is_short(it)).count()
}

async fn until_short_sweeps(world: &World, more: usize) {
    let wanted = short_sweeps(world) + more;
    world.until_asked("rows.read", wanted, is_short).await;
}

#[tokio::test]
async fn a_row_whose_event_was_lost_is_found_by_the_next_short_sweep() {
    let world = World::start(sweeping_once()).await;
    until_short_sweeps(&world, 1).await;
    let deal = world.student(EMAIL);
    let row = world.insert(&json!({}));
    until_short_sweeps(&world, 2).await;
    assert_eq!(world.until_synced_once(row).await, deal);

    let sweeps = world.requests_to("rows.read").into_iter();
    let sweeps =
        sweeps.filter(|it| it.param("order") == Some("id.asc") && it.param("id").is_none());
    assert_eq!(
        sweeps.count(),
        2,
        "those without a deal id and those with a blank one"
    );
}

/// Were it not so, each would have the rows that wait for a contact worked on again.
#[tokio::test]
async fn a_short_sweep_reopens_nothing_and_is_one_request_when_nothing_is_new() {
    let world = World::start(sweeping_once()).await;
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_synced_once(row).await;
    world.sandbox.postgrest.update_row(row, |row| {
        row.insert("amocrm_deal_id".into(), Value::Null);
    });
    let before = world.requests_to("rows.read").len();
    until_short_sweeps(&world, 4).await;
    assert_eq!(world.entry(row).await.unwrap().state, State::Done);
    let since = world.requests_to("rows.read").split_off(before);
    assert!(since.iter().all(is_short), "the row is not read again");
    assert!(since.iter().all(|it| it.param("offset").is_none()));
}

#[tokio::test]
async fn a_short_sweep_reads_on_while_a_page_brings_unknown_rows() {
    let mut wishes = sweeping_once();
    wishes.postgrest = PostgrestQuirks {
        max_rows: 3,
        ..PostgrestQuirks::default()
    };
    let world = World::start(wishes).await;
    until_short_sweeps(&world, 1).await;
    let row = |n: usize| {
        let email = format!("student{n}@example.kz");
        world.student(&email);
        json!({"email": email})
    };
    let rows: Vec<RowId> = (0..7).map(|n| world.insert(&row(n))).collect();
    for row in rows {
        world.until_synced_once(row).await;
    }
    let deepest = |it: &Recorded| is_short(it) && it.param("offset") == Some("6");
    world.until_asked("rows.read", 1, deepest).await;
}

#[tokio::test]
async fn a_row_that_was_created_long_before_its_commit_is_left_to_the_sweep() {
    let mut world = World::start(sweeping_once()).await;
    until_short_sweeps(&world, 1).await;
    world.student(EMAIL);
    let created_at = Timestamp::now_for_tests() - 10.minutes();
    let late = world.insert(&json!({"created_at": created_at}));
    let undated = world.insert(&json!({"email": "undated@example.kz", "created_at": null}));
    until_short_sweeps(&world, 3).await;
    for row in [late, undated] {
        assert_eq!(world.entry(row).await, None);
    }
    world.stop().await;
    world.launch().await;
    world.until_synced_once(late).await;
}

#[tokio::test]
async fn without_sweeps_no_short_one_is_made_and_while_supabase_is_halted_neither() {
    let world = World::start(Wishes::brisk()).await;
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_synced_once(row).await;
    assert_eq!(short_sweeps(&world), 0);

    let mut world = World::prepare(sweeping_once());
    let refused = Kind::status(When::Before, 401);
    let reads = Fault::always(Point::postgrest("rows.read"), refused);
    world.sandbox.faults().add(reads);
    world.launch().await;
    world.until_sync_is("halted").await;
    let before = short_sweeps(&world);
    let is_probe = |it: &Recorded| it.param("order").is_none();
    let probes = world
        .requests_to("rows.read")
        .iter()
        .filter(|it| is_probe(it))
        .count();
    world.until_asked("rows.read", probes + 3, is_probe).await;
    assert_eq!(short_sweeps(&world), before);
}
