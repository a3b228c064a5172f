//! A pause and its end hold for all services on a project; other commands are for the service that syncs.

use std::time::Duration;

use sandbox::{Fault, Kind, Point, Recorded, When};
use serde_json::json;
use tripwire_sync::{
    domain::{HaltCause, RowId, SyncState},
    inbox::State,
    sync::lease::HOLDER,
};

use crate::{
    lease::{Node, first, pair, prepare, second},
    program::{Ended, Launch, until},
    support::{EMAIL, Wishes, World},
};

/// On the inbox of one of the services.
async fn command(world: &World, inbox: &str, args: &[&str]) -> Ended {
    let path = world.folder().join(inbox);
    let database = format!("sqlite://{}", path.display());
    let launch = Launch::in_world(world, args).with("DATABASE_URL", database);
    // The throttle of a world for tests is none that the settings allow.
    let launch = launch.with("AMOCRM_REQUESTS_PER_SECOND", 7);
    launch.run().await
}

/// Both services have asked for the pause again, more than once each.
async fn until_asked_again(world: &World) {
    let asked = world.asked("rpc.pause");
    until("the services have asked again", || {
        world.asked("rpc.pause") > asked + 20
    })
    .await;
}

fn is_paused(state: SyncState) -> bool {
    matches!(state, SyncState::Paused { .. })
}

fn world() -> World {
    prepare(Wishes {
        time_scale: 0.01,
        sweep_every: Some(Duration::from_millis(300)),
        ..Wishes::brisk()
    })
}

/// A student with a deal, whose event has come.
async fn buys(world: &World, node: &Node) -> RowId {
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    node.deliver(world, row).await;
    row
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_on_one_machine_stops_the_one_that_syncs_and_a_resume_on_another_ends_it() {
    let world = world();
    let (holder, standby) = pair(&world).await;

    let paused = command(&world, "second.db", &["pause"]).await;
    paused.assert_code(0);
    assert!(paused.out.contains("for all services"), "{paused:?}");
    holder.until_it_is(is_paused).await;
    standby.until_it_is(is_paused).await;
    let row = buys(&world, &holder).await;

    // A machine that comes later and takes over has never heard of it.
    holder.stop().await;
    standby.stop().await;
    let later = Node::launch(first(&world)).await;
    later.until_it_is(is_paused).await;
    let third = Node::launch({
        let mut settings = second(&world);
        settings.inbox_path = world.folder().join("third.db");
        settings
    })
    .await;
    third.until_it_is(is_paused).await;
    later.die().await;
    let name: Option<String> = third.app.inbox.state(HOLDER).await.unwrap();
    until("the third takes over", || {
        name.is_some() && world.sandbox.postgrest.lease_holder() == name
    })
    .await;
    assert!(is_paused(third.state()));
    assert_eq!(world.asked("deals.update"), 0);

    let resumed = command(&world, "third.db", &["resume"]).await;
    resumed.assert_code(0);
    third.until_working().await;
    until("the row has its deal", || {
        world.column(row, "amocrm_deal_id").is_some()
    })
    .await;
    third.stop().await;
}

/// amoCRM answers the first search with this status.
async fn halted(world: &World, status: u16, cause: HaltCause) -> (Node, Node, RowId) {
    let (holder, standby) = pair(world).await;
    let refused = Kind::status(When::Before, status);
    let faults = world.sandbox.faults();
    faults.add(Fault::always(Point::amo("contacts.search"), refused));
    let row = buys(world, &holder).await;
    let is_it = |state| matches!(state, SyncState::Halted { cause: why, .. } if why == cause);
    holder.until_it_is(is_it).await;
    faults.clear();
    (holder, standby, row)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_on_a_standby_ends_the_halt_of_the_service_that_syncs() {
    let world = world();
    let (holder, standby, row) = halted(&world, 402, HaltCause::AmocrmPayment).await;
    command(&world, "second.db", &["resume"])
        .await
        .assert_code(0);
    holder.until_working().await;
    holder.until_done(row).await;
    holder.stop().await;
    standby.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_on_a_standby_ends_no_403_and_names_the_service_that_has_it() {
    let world = world();
    let (holder, standby, _) = halted(&world, 403, HaltCause::AmocrmForbidden).await;
    let name = world.sandbox.postgrest.lease_holder().unwrap();
    let resumed = command(&world, "second.db", &["resume"]).await;
    resumed.assert_code(0);
    assert!(
        resumed.out.contains("403") && resumed.out.contains(&name),
        "{resumed:?}"
    );
    until_asked_again(&world).await;
    assert!(matches!(holder.state(), SyncState::Halted { .. }));

    command(&world, "first.db", &["resume"])
        .await
        .assert_code(0);
    holder.until_working().await;
    holder.stop().await;
    standby.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_function_a_pause_holds_for_one_service_and_says_so() {
    let world = world();
    let quirks = |has_pause| {
        let postgrest = &world.sandbox.postgrest;
        postgrest.quirks(|quirks| quirks.has_pause = has_pause);
    };
    quirks(false);
    let (holder, standby) = pair(&world).await;
    let paused = command(&world, "second.db", &["pause"]).await;
    paused.assert_code(0);
    assert!(paused.out.contains("tripwire_sync_pause"), "{paused:?}");
    standby.until_it_is(is_paused).await;
    let row = buys(&world, &holder).await;
    holder.until_done(row).await;

    // The migration is applied while the services run.
    quirks(true);
    command(&world, "second.db", &["pause"])
        .await
        .assert_code(0);
    holder.until_it_is(is_paused).await;
    holder.stop().await;
    standby.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_the_database_does_not_take_holds_here_and_the_command_fails() {
    let world = world();
    let (holder, standby) = pair(&world).await;
    let down = || {
        Fault::always(
            Point::postgrest("rpc.pause"),
            Kind::server_error(When::Before),
        )
    };
    let faults = world.sandbox.faults();
    faults.add(down());
    let paused = command(&world, "first.db", &["pause"]).await;
    paused.assert_code(1);
    assert!(paused.err.contains("run the command again"), "{paused:?}");
    holder.until_it_is(is_paused).await;
    faults.clear();

    // The database never heard of it, and so ends nothing.
    until_asked_again(&world).await;
    assert!(is_paused(holder.state()));
    assert_eq!(world.sandbox.postgrest.last_pause(), None);
    command(&world, "first.db", &["resume"])
        .await
        .assert_code(0);
    holder.until_working().await;
    holder.stop().await;
    standby.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_cannot_learn_of_a_pause_begins_no_term_but_goes_on_with_its_own() {
    let world = world();
    let down = || {
        Fault::always(
            Point::postgrest("rpc.pause"),
            Kind::server_error(When::Before),
        )
    };
    let faults = world.sandbox.faults();
    faults.add(down());
    let node = Node::launch(first(&world)).await;
    let row = buys(&world, &node).await;
    until("it has asked often", || world.asked("rpc.pause") > 5).await;
    assert!(world.sandbox.amo.requests().is_empty());

    faults.clear();
    node.until_done(row).await;
    // Asked after the grant, so that a pause that came before it is known.
    let requests = world.sandbox.requests();
    let is_told = |it: &Recorded| it.route == "rpc.pause" && it.status == Some(200);
    let told = requests.iter().position(is_told).unwrap();
    let routes: Vec<_> = requests[..=told].iter().map(|it| it.route).collect();
    assert!(routes.ends_with(&["rpc.lease", "rpc.pause"]), "{routes:?}");
    faults.add(down());
    let asked = world.asked("rpc.pause");
    until("the pause is not told", || world.asked("rpc.pause") > asked).await;
    world.student("another@example.kz");
    let row = world.insert(&json!({ "email": "another@example.kz" }));
    node.deliver(&world, row).await;
    node.until_done(row).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_standby_other_commands_name_the_service_that_syncs_and_do_nothing() {
    let world = world();
    let (holder, standby) = pair(&world).await;
    let name = world.sandbox.postgrest.lease_holder().unwrap();
    // No contact: it waits.
    let row = world.insert(&json!({ "email": "nobody@example.kz" }));
    standby.deliver(&world, row).await;
    let id = row.to_string();
    for args in [
        &["park", &id][..],
        &["retry", &id],
        &["retry", "--parked"],
        &["undo", &id, "--yes"],
        &["backfill", "--yes"],
        &["backfill", "--dry-run"],
    ] {
        let refused = command(&world, "second.db", args).await;
        refused.assert_code(1);
        assert!(refused.err.contains(&name), "{args:?}: {refused:?}");
        let entry = standby.app.inbox.entry(row).await.unwrap().unwrap();
        assert_eq!(
            (entry.state, entry.backfill),
            (State::Pending, None),
            "{args:?}"
        );
    }
    let listed = command(&world, "second.db", &["entries"]).await;
    listed.assert_code(0);
    assert!(listed.out.contains(&name), "{listed:?}");

    // What it knows of a person is forgotten here, and the other machine is named.
    let forgotten = command(&world, "second.db", &["forget", &id]).await;
    forgotten.assert_code(0);
    assert!(forgotten.err.contains(&name), "{forgotten:?}");
    assert!(standby.app.inbox.entry(row).await.unwrap().is_none());

    // Once it runs no more, its inbox is like any other.
    standby.stop().await;
    command(&world, "second.db", &["retry", "--parked"])
        .await
        .assert_code(0);
    holder.stop().await;
}
