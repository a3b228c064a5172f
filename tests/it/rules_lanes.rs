//! Who goes first: a purchase of this minute beside a long backfill.

use std::time::Duration;

use serde_json::json;
use tripwire_sync::{
    domain::{RowId, SystemClock},
    inbox::{Arrival, Source, State},
    sandbox::{Fault, Kind, Point, When},
};

use crate::support::{EMAIL, Wishes, World};

async fn backfill(world: &World, row: RowId) {
    let source = Source::Backfill;
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
    settings.amocrm.timeouts.read = Duration::from_mins(1);
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
