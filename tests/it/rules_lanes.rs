//! Who goes first: a purchase of this minute beside a long backfill.

use std::time::Duration;

use sandbox::{DealId, Fault, Kind, Point, Recorded, When};
use serde_json::json;
use tripwire_sync::{
    domain::{RowId, SystemClock},
    inbox::{Arrival, Source, State},
};

use crate::support::{EMAIL, Wishes, World, sending};

async fn backfill(world: &World, row: RowId) {
    let source = Source::Backfill(world.inbox().begin_backfill().await.unwrap());
    let arrivals = vec![Arrival { row, source }];
    world.inbox().store(arrivals).await.unwrap();
}

/// The live row is not settled when it comes, so it must be come back to, while a backfill is at work and more waits.
#[tokio::test]
async fn a_live_row_is_come_back_to_in_time_while_a_backfill_is_at_work() {
    let mut world = World::prepare(Wishes {
        settle_delay: Duration::from_millis(300),
        ..Wishes::brisk()
    });
    let mut settings = world.settings();
    sending(&mut settings).amocrm.timeouts.read = Duration::from_mins(1);
    world
        .launch_at(settings, std::sync::Arc::new(SystemClock))
        .await;
    let long_ago = json!("2026-01-01T00:00:00Z");
    let [first, second] = ["one@example.kz", "two@example.kz"]
        .map(|email| world.insert(&json!({"email": email, "created_at": long_ago})));
    let search = Point::amo("contacts.search");
    world
        .sandbox
        .faults()
        .add(Fault::once(search, Kind::Hang(When::Before)));
    backfill(&world, first).await;
    world
        .until_asked("contacts.search", 1, |it| it.fault.is_some())
        .await;
    backfill(&world, second).await;

    world.student(EMAIL);
    let live = world.insert(&json!({}));
    let began = std::time::Instant::now();
    world.deliver(live).await;
    world.until_synced_once(live).await;
    let took = began.elapsed();

    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(world.entry(first).await.unwrap().state, State::Claimed);
    assert_eq!(world.entry(second).await.unwrap().state, State::Pending);
}

/// Three rows are at work, each in a run of its own, when many more fall due: those go together, not twenty by twenty.
#[tokio::test]
async fn many_rows_go_together_beside_small_runs_that_are_at_work() {
    let mut world = World::prepare(Wishes::brisk());
    let mut settings = world.settings();
    sending(&mut settings).amocrm.timeouts.read = Duration::from_mins(1);
    let clock = std::sync::Arc::new(SystemClock);
    world.launch_at(settings, clock).await;
    for at_work in 1..=3 {
        let search = Point::amo("contacts.search");
        let hang = Fault::once(search, Kind::Hang(When::Before));
        world.sandbox.faults().add(hang);
        let row = world.insert(&json!({"email": format!("slow{at_work}@example.kz")}));
        world.deliver(row).await;
        world
            .until_asked("contacts.search", at_work, |it| it.fault.is_some())
            .await;
    }

    let student = |n: usize| {
        let email = format!("student{n}@example.kz");
        world.student(&email);
        world.insert(&json!({ "email": email }))
    };
    let rows: Vec<RowId> = (0..100).map(student).collect();
    let arrivals = rows.iter().map(|row| Arrival {
        row: *row,
        source: Source::Webhook {
            delivery: format!("msg_{row}"),
        },
    });
    world.inbox().store(arrivals.collect()).await.unwrap();
    for row in rows {
        world.until_synced_once(row).await;
    }

    let moves = world.asked("leads.update");
    assert!(moves <= 3, "{moves} writes for two batches of fifty");
}

/// Three large runs are at work, and the place that is left is for a few.
#[tokio::test]
async fn more_than_a_few_wait_until_there_is_a_place_for_all_of_them() {
    let mut world = World::prepare(Wishes {
        contact_scan: false,
        ..Wishes::brisk()
    });
    let mut settings = world.settings();
    sending(&mut settings).amocrm.timeouts.read = Duration::from_secs(3);
    let clock = std::sync::Arc::new(SystemClock);
    world.launch_at(settings, clock).await;
    let mut rows = Vec::new();
    for runs in 1..=4 {
        let first = rows.len();
        if runs < 4 {
            let search = Point::amo("contacts.search");
            let hang = Fault::once(search, Kind::Hang(When::Before));
            world.sandbox.faults().add(hang);
        }
        rows.extend((first..first + 30).map(|n| {
            let email = format!("student{n}@example.kz");
            world.student(&email);
            world.insert(&json!({ "email": email }))
        }));
        let arrivals = rows[first..].iter().map(|row| Arrival {
            row: *row,
            source: Source::Sweep,
        });
        world.inbox().store(arrivals.collect()).await.unwrap();
        if runs < 4 {
            let is_held = |it: &Recorded| it.fault.is_some();
            world.until_asked("contacts.search", runs, is_held).await;
        }
    }
    for row in &rows {
        world.until_synced_once(*row).await;
    }

    // Those that had to wait.
    let last: Vec<DealId> = (90..120)
        .flat_map(|n| world.deals_of(&format!("student{n}@example.kz")))
        .collect();
    let moves = world.requests_to("leads.update");
    let is_of_last = |it: &&Recorded| {
        let mut items = it.items().iter();
        items.any(|item| last.iter().any(|deal| item["id"] == deal.get()))
    };
    let sizes: Vec<usize> = moves
        .iter()
        .filter(is_of_last)
        .map(|it| it.items().len())
        .collect();
    // Taken a few at a time, they would have been twenty at most.
    assert!(sizes.iter().any(|size| *size > 20), "{sizes:?}");
}
