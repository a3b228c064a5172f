//! `undo`: deals that the service moved go back, once, and stay there.

use std::time::Duration;

use futures::{StreamExt, stream};
use sandbox::{Fault, Kind, Point, StageId, When};
use serde_json::{Value, json};
use tripwire_sync::{
    domain::{DealId, DieAt, Halt, HaltCause, RowId},
    inbox::{Arrival, Entry, HALT, Outcome, Placed, Source, State, Undo, UndoLeft},
};

use crate::{
    program::{Ended, Launch, Service, until, until_drained},
    support::{EMAIL, Wishes, World},
};

const PARALLEL: usize = 6;

/// For services in this process and in others.
fn in_both() -> Wishes {
    Wishes {
        requests_per_second: 7,
        ..Wishes::brisk()
    }
}

/// A world with one student whose deal was moved.
async fn synced(world: &World) -> (RowId, DealId) {
    let deal = world.student(EMAIL);
    let row = world.insert(&json!({}));
    assert_eq!(world.deliver(row).await, 202);
    assert_eq!(world.until_synced_once(row).await, deal);
    (row, DealId::new(deal.get()))
}

fn stage(world: &World, deal: DealId) -> StageId {
    world.stage(sandbox::DealId::new(deal.get()))
}

fn people_move(world: &World, deal: DealId, to: StageId) {
    let pipeline = world.setting.pipeline;
    let deal = sandbox::DealId::new(deal.get());
    let moved = world
        .sandbox
        .amo
        .world(|world| world.move_deal(deal, pipeline, to));
    moved.unwrap();
}

fn moves(world: &World) -> usize {
    let writes = world.amo_writes();
    let to_deals = writes.iter().filter(|it| it.route == "leads.update");
    to_deals.count()
}

fn is_left(entry: &Entry, why: UndoLeft) {
    assert_eq!(entry.outcome, Some(Outcome::Synced), "{entry:?}");
    assert_eq!(entry.progress.undo, Some(Undo::Left(why)), "{entry:?}");
}

/// The deal is back, with its one note, and the row keeps the deal's id.
fn assert_undone(world: &World, row: RowId, deal: DealId) {
    assert_eq!(stage(world, deal), world.setting.before[0]);
    assert_eq!(world.column(row, "amocrm_deal_id"), Some(deal.to_string()));
    world.assert_noted_once(row, sandbox::DealId::new(deal.get()));
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
}

async fn ask(world: &World, row: RowId) -> u64 {
    world.inbox().undo(vec![row]).await.unwrap()
}

// ---- the engine ----

#[tokio::test]
async fn a_moved_deal_goes_back_and_only_a_retry_moves_it_again() {
    let world = World::start(Wishes::brisk()).await;
    let (row, deal) = synced(&world).await;

    assert_eq!(ask(&world, row).await, 1);
    world.until_done(row, Outcome::Undone).await;
    assert_undone(&world, row, deal);
    assert_eq!(moves(&world), 2);

    // Nor does a row that was emptied let it go forward.
    world.sandbox.postgrest.update_row(row, |columns| {
        columns.insert("amocrm_deal_id".to_owned(), Value::Null);
    });
    let backfill = world.inbox().begin_backfill().await.unwrap();
    for source in [
        Source::Webhook {
            delivery: "again".to_owned(),
        },
        Source::Sweep,
        Source::Backfill(backfill),
    ] {
        let arrivals = vec![Arrival { row, source }];
        world.inbox().store(arrivals).await.unwrap();
        let entry = world.inbox().entry(row).await.unwrap().unwrap();
        assert_eq!(entry.outcome, Some(Outcome::Undone));
    }
    assert_eq!(ask(&world, row).await, 0);
    world.sandbox.postgrest.update_row(row, |columns| {
        columns.insert("amocrm_deal_id".to_owned(), json!(deal.to_string()));
    });

    assert_eq!(world.inbox().retry(vec![row]).await.unwrap(), 1);
    assert_eq!(world.until_synced_once(row).await.get(), deal.get());
    assert_eq!(moves(&world), 3);

    // The second move has an origin of its own.
    assert_eq!(ask(&world, row).await, 1);
    world.until_done(row, Outcome::Undone).await;
    assert_undone(&world, row, deal);
}

#[tokio::test]
async fn a_deal_that_people_have_moved_since_is_left() {
    let world = World::start(Wishes::brisk()).await;
    let (row, deal) = synced(&world).await;
    let (origin, target) = (world.setting.before[0], world.setting.target);
    for stands in [world.setting.before[1], origin] {
        people_move(&world, deal, stands);
        assert_eq!(ask(&world, row).await, 1);
        let left = world
            .until(row, "left", |entry| {
                matches!(entry.progress.undo, Some(Undo::Left(_))) && entry.state == State::Done
            })
            .await;
        is_left(&left, UndoLeft::MovedSince);
        assert_eq!(stage(&world, deal), stands);
        assert_eq!(moves(&world), 1);
    }

    // It stands on the target again, so it goes back.
    people_move(&world, deal, target);
    assert_eq!(ask(&world, row).await, 1);
    world.until_done(row, Outcome::Undone).await;
    assert_undone(&world, row, deal);
}

#[tokio::test]
async fn what_the_service_did_not_move_is_not_taken_up() {
    let world = World::start(Wishes::brisk()).await;
    let contact = world.contact(EMAIL);
    let stood = world.deal(contact, world.setting.target);
    world.contact("made@example.kz");
    for email in [EMAIL, "made@example.kz"] {
        let row = world.insert(&json!({ "email": email }));
        assert_eq!(world.deliver(row).await, 202);
        world.until_synced_once(row).await;
        assert_eq!(ask(&world, row).await, 0);
        let entry = world.inbox().entry(row).await.unwrap().unwrap();
        assert_eq!((entry.state, entry.progress.undo), (State::Done, None));
    }
    assert_eq!(world.stage(stood), world.setting.target);
}

#[tokio::test]
async fn a_row_without_its_deal_id_gets_it_before_the_deal_goes_back() {
    let world = World::start(Wishes::brisk()).await;
    let deal = world.student(EMAIL);
    world.sandbox.faults().add(Fault::always(
        Point::postgrest("rows.update"),
        Kind::server_error(When::Before),
    ));
    let row = world.insert(&json!({}));
    assert_eq!(world.deliver(row).await, 202);
    world
        .until(row, "noted", |entry| {
            entry.attempts > 0 && entry.progress.step.is_noted() && entry.state == State::Pending
        })
        .await;
    let is_asked = async || ask(&world, row).await == 1;
    while !is_asked().await {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.stage(deal), world.setting.target);
    world.sandbox.faults().clear();

    world.until_done(row, Outcome::Undone).await;
    assert_undone(&world, row, DealId::new(deal.get()));
}

#[tokio::test]
async fn a_way_back_whose_answer_was_lost_is_recognised_and_not_repeated() {
    let world = World::start(Wishes::brisk()).await;
    let (row, deal) = synced(&world).await;
    let lost = Kind::server_error(When::After);
    let lost = Fault::once(Point::amo("leads.update"), lost);
    world.sandbox.faults().add(lost);

    assert_eq!(ask(&world, row).await, 1);
    world.until_done(row, Outcome::Undone).await;
    assert_undone(&world, row, deal);
    assert_eq!(moves(&world), 2);
}

#[tokio::test]
async fn a_way_back_that_amocrm_rejects_leaves_the_deal_and_halts_nothing() {
    let world = World::start(Wishes::brisk()).await;
    let (row, deal) = synced(&world).await;
    let rejected = Kind::status(When::Before, 400);
    let rejected = Fault::once(Point::amo("leads.update"), rejected);
    world.sandbox.faults().add(rejected);

    assert_eq!(ask(&world, row).await, 1);
    let left = world
        .until(row, "left", |entry| {
            matches!(entry.progress.undo, Some(Undo::Left(_))) && entry.state == State::Done
        })
        .await;
    is_left(&left, UndoLeft::Refused);
    assert_eq!(stage(&world, deal), world.setting.target);
    let next = "next@example.kz";
    world.student(next);
    let row = world.insert(&json!({ "email": next }));
    assert_eq!(world.deliver(row).await, 202);
    world.until_synced_once(row).await;
}

/// A gateway gives up on a request for two deals, which is carried out, and amoCRM turns both halves away.
fn give_up_and_turn_away(world: &World) {
    let point = Point::amo("leads.update");
    let gives_up = Fault::once(point.clone(), Kind::status(When::After, 504));
    let turned_away = Fault {
        at: point.nth(2),
        kind: Kind::status(When::Before, 429),
        times: 2,
    };
    world.sandbox.faults().add(turned_away);
    world.sandbox.faults().add(gives_up);
}

#[tokio::test]
async fn moves_that_a_gateway_gave_up_on_are_recognised_although_their_halves_were_turned_away() {
    let mut world = World::prepare(Wishes {
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    });
    let rows: Vec<(RowId, DealId)> = [EMAIL, "other@example.kz"]
        .map(|email| {
            let deal = world.student(email);
            let row = world.insert(&json!({ "email": email }));
            (row, DealId::new(deal.get()))
        })
        .into();
    give_up_and_turn_away(&world);
    world.launch().await;
    for (row, _) in &rows {
        let entry = world.until_done(*row, Outcome::Synced).await;
        assert_eq!(entry.progress.step.placed(), Some(Placed::Moved));
    }
    assert_eq!(world.sandbox.faults().unmet(), []);

    give_up_and_turn_away(&world);
    let asked = rows.iter().map(|(row, _)| *row).collect();
    assert_eq!(world.inbox().undo(asked).await.unwrap(), 2);
    for (row, deal) in rows {
        world.until_done(row, Outcome::Undone).await;
        assert_undone(&world, row, deal);
    }
    assert_eq!(world.sandbox.faults().unmet(), []);
}

/// The first request may be carried out yet. The later ones never are.
#[tokio::test]
async fn what_is_turned_away_says_nothing_of_an_earlier_request() {
    let world = World::start(Wishes::brisk()).await;
    let deal = DealId::new(world.student(EMAIL).get());
    let row = world.insert(&json!({}));
    let lose_one_and_turn_away = || {
        let point = Point::amo("leads.update");
        let lost = Fault::once(point.clone(), Kind::server_error(When::Before));
        let turned_away = Kind::status(When::Before, 429);
        let turned_away = Fault::always(point.nth(2), turned_away);
        world.sandbox.faults().add(turned_away);
        world.sandbox.faults().add(lost);
    };
    let is_turned_away = |entry: &Entry| entry.attempts >= 2 && entry.state == State::Pending;

    lose_one_and_turn_away();
    assert_eq!(world.deliver(row).await, 202);
    let entry = world.until(row, "turned away", is_turned_away).await;
    let moved = entry.progress.moved.unwrap();
    let target = world.setting.target.get();
    assert_eq!((moved.deal, moved.to.get()), (deal, target));
    world.sandbox.faults().clear();
    world.until_synced_once(row).await;

    lose_one_and_turn_away();
    assert_eq!(ask(&world, row).await, 1);
    let entry = world.until(row, "turned away", is_turned_away).await;
    assert_eq!(entry.progress.undo, Some(Undo::Sent));
    world.sandbox.faults().clear();
    world.until_done(row, Outcome::Undone).await;
    assert_undone(&world, row, deal);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_back_that_amocrm_forbids_is_held_and_set_aside_and_the_command_does_not_wait_for_it()
{
    let world = World::start(in_both()).await;
    let (row, deal) = synced(&world).await;
    let point = Point::amo("leads.update").about(&deal.to_string());
    let forbidden = Kind::status(When::Before, 403);
    world.sandbox.faults().add(Fault::always(point, forbidden));
    let command = undo(&world, &[&row.to_string(), "--yes", "--json"]).spawn();
    world.until_sync_is("halted").await;
    let halt: Option<Halt> = world.inbox().state(HALT).await.unwrap();
    let halt = halt.unwrap();
    assert_eq!(
        (halt.cause, halt.rows),
        (HaltCause::AmocrmForbidden, vec![row])
    );

    let guest = world.guest().await;
    guest.clear_state(HALT).await.unwrap();
    guest.close().await;
    let ended = command.ended().await;
    ended.assert_code(1);
    assert_eq!(json_of(&ended)["end"], "in_doubt", "{ended:#?}");

    let next = "next@example.kz";
    world.student(next);
    let good = world.insert(&json!({ "email": next }));
    assert_eq!(world.deliver(good).await, 202);
    world.until_synced_once(good).await;
    let parked = world.until_state(row, State::Parked).await;
    assert_eq!(parked.progress.undo, Some(Undo::Asked));
    assert_eq!(stage(&world, deal), world.setting.target);
    assert_eq!(world.app().status.borrow().into_str(), "working");

    world.sandbox.faults().clear();
    assert_eq!(world.inbox().retry(vec![row]).await.unwrap(), 1);
    world.until_done(row, Outcome::Undone).await;
    assert_undone(&world, row, deal);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deal_that_a_later_row_uses_stays_where_it_stands() {
    let mut world = World::start(in_both()).await;
    let (row, deal) = synced(&world).await;
    let later = world.insert(&json!({}));
    assert_eq!(world.deliver(later).await, 202);
    let entry = world.until_done(later, Outcome::Synced).await;
    assert_eq!(entry.progress.step.placed(), Some(Placed::Left));
    assert_eq!(entry.progress.step.choice().unwrap().deal, deal);

    let guest = world.guest().await;
    world.stop().await;
    let id = row.to_string();
    let ended = undo(&world, &[&id, "--dry-run", "--json"]).run().await;
    ended.assert_code(0);
    assert_eq!(json_of(&ended)["totals"], json!({ "left": 1 }));
    let ended = undo(&world, &[&id, "--yes", "--json"]).run().await;
    ended.assert_code(0);
    assert_eq!(json_of(&ended)["totals"], json!({ "left": 1 }));
    is_left(
        &guest.entry(row).await.unwrap().unwrap(),
        UndoLeft::MovedSince,
    );
    guest.close().await;
    assert_eq!(stage(&world, deal), world.setting.target);
    assert_eq!(moves(&world), 1);
}

/// Another service has filled the row before the note was there.
#[tokio::test]
async fn a_deal_without_our_note_goes_back_and_a_retry_moves_it_again() {
    let world = World::start(Wishes::brisk()).await;
    let deal = DealId::new(world.student(EMAIL).get());
    let row = world.insert(&json!({}));
    let turned_away = Kind::status(When::Before, 429);
    let turned_away = Fault::always(Point::amo("notes.create"), turned_away);
    world.sandbox.faults().add(turned_away);
    assert_eq!(world.deliver(row).await, 202);
    world
        .until(row, "moved", |entry| {
            entry.attempts > 0 && entry.progress.step.placed() == Some(Placed::Moved)
        })
        .await;
    world.sandbox.postgrest.update_row(row, |columns| {
        columns.insert("amocrm_deal_id".to_owned(), json!(deal.to_string()));
    });
    let entry = world.until_done(row, Outcome::Synced).await;
    assert!(!entry.progress.step.is_noted(), "{entry:?}");
    world.sandbox.faults().clear();

    assert_eq!(ask(&world, row).await, 1);
    world.until_done(row, Outcome::Undone).await;
    assert_eq!(stage(&world, deal), world.setting.before[0]);
    assert_eq!(world.inbox().retry(vec![row]).await.unwrap(), 1);
    world.until_done(row, Outcome::Synced).await;
    assert_eq!(stage(&world, deal), world.setting.target);
}

#[tokio::test]
async fn ways_back_go_behind_the_rows_of_the_same_run() {
    let mut world = World::start(Wishes::brisk()).await;
    let (row, deal) = synced(&world).await;
    world.stop().await;
    let other = "other@example.kz";
    let other_deal = world.student(other);
    let other = world.insert(&json!({ "email": other }));
    let guest = world.guest().await;
    assert_eq!(guest.undo(vec![row]).await.unwrap(), 1);
    let source = Source::Backfill(guest.begin_backfill().await.unwrap());
    let arrivals = vec![Arrival { row: other, source }];
    guest.store(arrivals).await.unwrap();
    guest.close().await;
    world.launch().await;
    world.until_done(row, Outcome::Undone).await;
    world.until_synced_once(other).await;
    let updates = world.requests_to("leads.update");
    let moved: Vec<Value> = updates
        .iter()
        .map(|it| it.items()[0]["id"].clone())
        .collect();
    assert_eq!(moved, [json!(deal), json!(other_deal.get()), json!(deal)]);
}

/// The intent is stored, and the request is on its way or has been carried out.
#[tokio::test]
async fn a_kill_around_the_way_back_moves_the_deal_back_once() {
    for when in [When::Before, When::After] {
        let mut world = World::start(Wishes::brisk()).await;
        let (row, deal) = synced(&world).await;
        let held_back = Fault::once(Point::amo("leads.update"), Kind::Hang(when));
        world.sandbox.faults().add(held_back);
        assert_eq!(ask(&world, row).await, 1);
        world
            .until_asked("leads.update", 1, |it| it.fault.is_some())
            .await;
        world.die().await;
        world.sandbox.faults().clear();
        world.launch().await;

        world.until_done(row, Outcome::Undone).await;
        assert_undone(&world, row, deal);
    }
}

// ---- death at every commit ----

/// `false`: the process lived to the end of its work.
async fn dies_at(at: DieAt) -> bool {
    let mut world = World::start(in_both()).await;
    let (row, deal) = synced(&world).await;
    assert_eq!(ask(&world, row).await, 1);
    world.stop().await;
    let point = if at.committed { "after" } else { "before" };
    let mut program = Launch::in_world(&world, &["serve"])
        .with("TRIPWIRE_DIE_AT", format!("{point}:{}", at.commit))
        .spawn();
    let is_back = || stage(&world, deal) == world.setting.before[0];
    let guest = world.guest().await;
    let done = async {
        until("the deal is back", is_back).await;
        until_drained(&guest).await;
    };
    tokio::select! {
        () = program.until_ended() => {}
        () = done => {
            program.signal("TERM");
            program.until_ended().await;
        }
    }
    guest.close().await;
    let died = program.ended().await.code != Some(0);
    if died {
        world.launch().await;
        world.until_done(row, Outcome::Undone).await;
    }
    assert_undone(&world, row, deal);
    died
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_survives_death_at_every_commit() {
    for committed in [false, true] {
        let mut deaths = stream::iter(1..60)
            .map(|commit| dies_at(DieAt { commit, committed }))
            .buffered(PARALLEL);
        let mut died = 0;
        while deaths.next().await == Some(true) {
            died += 1;
        }
        // Commits that come together are one.
        assert!((1..59).contains(&died), "commits: {died}");
    }
}

// ---- the command ----

fn undo(world: &World, more: &[&str]) -> Launch {
    Launch::in_world(world, &[&["undo"], more].concat())
}

fn json_of(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

fn state_of(world: &World) -> (usize, Vec<StageId>) {
    let stages = world
        .sandbox
        .amo
        .world(|amo| amo.deals().map(|deal| deal.stage).collect());
    (world.amo_writes().len(), stages)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_names_its_number_and_is_undone_by_it_without_a_service() {
    let since = jiff::Timestamp::from_second(4_000_000_000).unwrap();
    let world = World::prepare(Wishes {
        since,
        ..Wishes::default()
    });
    let rows: Vec<RowId> = (0..3)
        .map(|n| {
            let email = format!("student{n}@example.kz");
            world.student(&email);
            world.insert(&json!({ "email": email, "created_at": "2026-02-10T00:00:00Z" }))
        })
        .collect();
    let made = "made@example.kz";
    world.contact(made);
    world.insert(&json!({ "email": made, "created_at": "2026-02-10T00:00:00Z" }));
    let ended = Launch::in_world(&world, &["backfill", "--yes", "--json"])
        .run()
        .await;
    ended.assert_code(0);
    assert!(ended.err.contains("undo --backfill 1"), "{ended:#?}");
    assert_eq!(json_of(&ended)["backfill"], 1);

    let before = state_of(&world);
    let ended = undo(&world, &["--backfill", "1", "--dry-run", "--json"])
        .run()
        .await;
    ended.assert_code(0);
    let totals = json_of(&ended)["totals"].clone();
    assert_eq!(totals, json!({ "to_undo": 3, "left": 1 }));
    assert_eq!(state_of(&world), before, "a dry run writes nothing");
    let inbox = world.guest().await;
    for row in &rows {
        let entry = inbox.entry(*row).await.unwrap().unwrap();
        assert_eq!(
            (entry.outcome, entry.progress.undo),
            (Some(Outcome::Synced), None)
        );
    }
    inbox.close().await;

    // No terminal can be asked.
    undo(&world, &["--backfill", "1"])
        .run()
        .await
        .assert_code(2);
    assert_eq!(state_of(&world), before);

    let ended = undo(&world, &["--backfill", "1", "--yes", "--json"])
        .run()
        .await;
    ended.assert_code(0);
    let value = json_of(&ended);
    assert_eq!(value["totals"], json!({ "undone": 3, "left": 1 }));
    assert!(ended.err.contains("keeps its deal id"), "{ended:#?}");
    for row in &rows {
        let deal: i64 = world
            .column(*row, "amocrm_deal_id")
            .unwrap()
            .parse()
            .unwrap();
        assert_undone(&world, *row, DealId::new(deal));
    }

    let again = undo(&world, &["--backfill", "1", "--yes", "--json"])
        .run()
        .await;
    again.assert_code(0);
    assert_eq!(json_of(&again)["totals"], json!({ "left": 4 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_service_a_student_is_undone_by_e_mail_and_the_moves_of_a_time_by_it() {
    let world = World::prepare(Wishes::default());
    let first = world.student(EMAIL);
    let other = "other@example.kz";
    let second = world.student(other);
    let mut service = Service::start(&world).await;
    for email in [EMAIL, other] {
        let row = world.insert(&json!({ "email": email }));
        service.deliver(&world, row).await;
        service.until_synced(row).await;
    }
    let inbox = world.guest().await;
    until_drained(&inbox).await;
    inbox.close().await;

    let ended = undo(&world, &[EMAIL, "--yes"]).run().await;
    ended.assert_code(0);
    assert!(ended.out.contains("moved back"), "{ended:#?}");
    assert!(!ended.words().contains(EMAIL), "{ended:#?}");
    assert_eq!(world.stage(first), world.setting.before[0]);
    assert_eq!(world.stage(second), world.setting.target);

    let none = ["--since", "2001-01-01", "--until", "2001-12-31", "--yes"];
    let ended = undo(&world, &none).run().await;
    ended.assert_code(0);
    assert_eq!(world.stage(second), world.setting.target);
    let ended = undo(&world, &["--since", "2001-01-01", "--yes", "--json"])
        .run()
        .await;
    ended.assert_code(0);
    assert_eq!(json_of(&ended)["totals"]["undone"], 1);
    assert_eq!(world.stage(second), world.setting.before[0]);

    let unknown = RowId::new(uuid::Uuid::nil()).to_string();
    let ended = undo(&world, &[&unknown, "--yes"]).run().await;
    ended.assert_code(1);
    for misused in [
        &[][..],
        &["--until", "2026-01-01"],
        &[EMAIL, "--backfill", "1"],
    ] {
        undo(&world, misused).run().await.assert_code(2);
    }
    service.stop().await.assert_code(0);
}

/// A request of the command's own engine is held back, and the command is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_and_run_again_it_moves_each_deal_back_once() {
    let mut world = World::start(in_both()).await;
    let (row, deal) = synced(&world).await;
    world.stop().await;
    let held_back = Fault::once(Point::amo("leads.update"), Kind::Hang(When::After));
    world.sandbox.faults().add(held_back);
    let id = row.to_string();
    let program = undo(&world, &[&id, "--yes"]).spawn();
    until("it writes", || world.sandbox.faults().unmet().is_empty()).await;
    program.signal("KILL");
    program.ended().await;

    let ended = undo(&world, &[&id, "--yes"]).run().await;
    ended.assert_code(0);
    assert_undone(&world, row, deal);
    assert_eq!(moves(&world), 2);
}
