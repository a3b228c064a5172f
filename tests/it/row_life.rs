//! What people do to a row, its contact and its deal while we are at work on it.

use std::time::Duration;

use sandbox::{ContactId, DealId, Fault, Kind, Point, StageId, When, scenario::Missing};
use serde_json::json;
use tripwire_sync::{
    domain::RowId,
    inbox::{Entry, Outcome, State, Step},
};

use crate::support::{EMAIL, NAME, Wishes, World};

const OTHER: &str = "other@example.kz";

/// From now on every request to this route fails, and has no effect.
fn break_route(world: &World, point: Point) {
    world
        .sandbox
        .faults()
        .add(Fault::always(point, Kind::server_error(When::Before)));
}

fn mend(world: &World) {
    world.sandbox.faults().clear();
}

/// The next request to this route is held back: until it is given up, or the service dies.
fn hold(world: &World, route: &str, when: When) {
    world
        .sandbox
        .faults()
        .add(Fault::once(Point::amo(route), Kind::Hang(when)));
}

fn set_email(world: &World, row: RowId, email: &str) {
    world.sandbox.postgrest.update_row(row, |row| {
        row.insert("email".to_owned(), json!(email));
    });
}

fn manager_moves(world: &World, deal: DealId, stage: StageId) {
    let pipeline = world.setting.pipeline;
    world
        .sandbox
        .amo
        .world(|world| world.move_deal(deal, pipeline, stage))
        .unwrap();
}

async fn deliver(world: &World, columns: serde_json::Value) -> RowId {
    let row = world.insert(&columns);
    assert_eq!(world.deliver(row).await, 202);
    row
}

fn has_tried(entry: &Entry, step: impl Fn(&Entry) -> bool) -> bool {
    entry.attempts > 0 && step(entry)
}

async fn until_moved(world: &World, row: RowId) -> Entry {
    world
        .until(row, "moved", |entry| {
            has_tried(entry, |entry| entry.progress.step.placed().is_some())
        })
        .await
}

async fn until_noted(world: &World, row: RowId) -> Entry {
    world
        .until(row, "noted", |entry| {
            has_tried(entry, |entry| entry.progress.step.is_noted())
        })
        .await
}

// ---- the row ----

#[tokio::test]
async fn a_row_removed_between_two_steps_gets_no_note_any_more() {
    let world = World::start(Wishes::brisk()).await;
    let deal = world.student(EMAIL);
    break_route(&world, Point::amo("notes.create"));
    let row = deliver(&world, json!({})).await;
    until_moved(&world, row).await;
    // Somebody else is still there: it is this row that is gone.
    world.insert(&json!({"email": OTHER, "amocrm_deal_id": "1"}));
    world.sandbox.postgrest.delete_row(row).unwrap();
    mend(&world);

    world.until_done(row, Outcome::Gone).await;
    assert_eq!(world.notes(deal), Vec::<String>::new());
}

#[tokio::test]
async fn an_email_corrected_after_the_choice_and_before_any_write_is_another_student() {
    let world = World::start(Wishes::brisk()).await;
    let wrong = world.student(EMAIL);
    let right = world.student(OTHER);
    break_route(&world, Point::amo("leads.update"));
    let row = deliver(&world, json!({})).await;
    world
        .until(row, "chosen", |entry| {
            has_tried(entry, |entry| entry.progress.step != Step::Begun)
        })
        .await;
    set_email(&world, row, OTHER);
    mend(&world);

    assert_eq!(world.until_synced_once(row).await, right);
    assert_eq!(world.stage(wrong), world.setting.before[0]);
    assert_eq!(world.notes(wrong), Vec::<String>::new());
}

#[tokio::test]
async fn an_email_corrected_after_the_move_changes_nothing_and_is_not_remembered_for_the_other() {
    let world = World::start(Wishes::brisk()).await;
    let first = world.student(EMAIL);
    break_route(&world, Point::amo("notes.create"));
    let row = deliver(&world, json!({})).await;
    until_moved(&world, row).await;
    let second = world.student(OTHER);
    set_email(&world, row, OTHER);
    mend(&world);
    assert_eq!(world.until_synced_once(row).await, first);
    assert_eq!(world.stage(second), world.setting.before[0]);

    // The next purchase of the other one is the other one's.
    let next = deliver(&world, json!({"email": OTHER})).await;
    assert_eq!(world.until_synced_once(next).await, second);
}

/// What people do to a row while the answer to the move of its deal is lost.
#[derive(Debug, Clone, Copy)]
enum Change {
    Email,
    Blocked,
    /// Another deal's id is filled in.
    Linked,
    /// The id of the deal itself, as by another service.
    LinkedToIt,
}

/// The move, whose answer never comes, is carried out or not; the row changes before anyone knows.
async fn changed_during_a_move(change: Change, is_carried_out: bool) -> (World, RowId, DealId) {
    let world = World::start(Wishes::brisk()).await;
    let deal = world.student(EMAIL);
    let when = if is_carried_out {
        When::After
    } else {
        When::Before
    };
    hold(&world, "leads.update", when);
    let row = deliver(&world, json!({})).await;
    world
        .until_asked("leads.update", 1, |it| it.fault.is_some())
        .await;
    world.sandbox.postgrest.update_row(row, |row| {
        let (column, value) = match change {
            Change::Email => ("email", json!(OTHER)),
            Change::Blocked => ("status", json!("blocked")),
            Change::Linked => ("amocrm_deal_id", json!("1")),
            Change::LinkedToIt => ("amocrm_deal_id", json!(deal.to_string())),
        };
        row.insert(column.to_owned(), value);
    });
    (world, row, deal)
}

#[tokio::test]
async fn a_row_that_changes_while_its_move_is_in_doubt_is_finished_if_the_move_was_carried_out() {
    for change in [Change::Email, Change::Blocked] {
        let (world, row, deal) = changed_during_a_move(change, true).await;
        assert_eq!(world.until_synced_once(row).await, deal, "{change:?}");
        assert_eq!(world.stage(deal), world.setting.target);
        assert_eq!(world.requests_to("leads.update").len(), 1);

        let others = world.student(OTHER);
        let next = deliver(&world, json!({"email": OTHER})).await;
        assert_eq!(world.until_synced_once(next).await, others, "{change:?}");
    }
    let (world, row, deal) = changed_during_a_move(Change::Linked, true).await;
    let entry = world.until_state(row, State::Parked).await;
    assert!(entry.reason.unwrap().contains(&deal.to_string()));
    let moved = entry.progress.placing_move().map(|it| it.deal.get());
    assert_eq!(moved, Some(deal.get()), "where it came from is kept");
}

#[tokio::test]
async fn a_row_that_changes_while_its_move_is_in_doubt_is_another_one_if_the_move_never_happened() {
    let changes = [
        Change::Email,
        Change::Blocked,
        Change::Linked,
        Change::LinkedToIt,
    ];
    for change in changes {
        let (world, row, deal) = changed_during_a_move(change, false).await;
        let outcome = match change {
            Change::Email => {
                world.student(OTHER);
                Outcome::Synced
            }
            Change::LinkedToIt => Outcome::Synced,
            Change::Blocked => Outcome::Skipped,
            Change::Linked => Outcome::AlreadyLinked,
        };
        world.until_done(row, outcome).await;
        assert_eq!(world.stage(deal), world.setting.before[0], "{change:?}");
        assert_eq!(world.notes(deal), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_row_removed_and_made_anew_finds_its_deal_and_is_noted_again() {
    for has_deal in [true, false] {
        let world = World::start(Wishes::brisk()).await;
        if has_deal {
            world.student(EMAIL);
        } else {
            world.contact(EMAIL);
        }
        let first = deliver(&world, json!({})).await;
        let deal = world.until_synced_once(first).await;
        world.sandbox.postgrest.delete_row(first).unwrap();

        let second = deliver(&world, json!({})).await;
        assert_eq!(world.until_synced_once(second).await, deal);
        assert_eq!(world.deals_of(EMAIL), [deal]);
        assert_eq!(world.notes(deal).len(), 2, "other access data each time");
    }
}

#[tokio::test]
async fn two_rows_of_one_email_at_the_same_moment_share_one_deal() {
    for (missing, has_contact) in [
        (Missing::Wait, true),
        (Missing::Create, true),
        (Missing::Create, false),
    ] {
        let mut wishes = Wishes {
            missing,
            ..Wishes::brisk()
        };
        wishes.amo.index_lag = Duration::from_millis(300);
        wishes.amo.latency = Duration::from_millis(20);
        let world = World::start(wishes).await;
        if has_contact {
            world.contact(EMAIL);
        }
        let rows = [world.insert(&json!({})), world.insert(&json!({}))];
        let (first, second) = tokio::join!(world.deliver(rows[0]), world.deliver(rows[1]));
        assert_eq!((first, second), (202, 202));

        let deal = world.until_synced_once(rows[0]).await;
        assert_eq!(world.until_synced_once(rows[1]).await, deal);
        assert_eq!(world.deals_of(EMAIL), [deal], "{missing:?}");
        let contacts = world.sandbox.amo.world(|world| world.contacts().count());
        assert_eq!(contacts, 1, "{missing:?}");
    }
}

#[tokio::test]
async fn two_rows_whose_phone_leads_to_one_contact_share_one_deal() {
    let world = World::start(Wishes::brisk()).await;
    let phone = "+7 701 234 56 78";
    let contact = world
        .sandbox
        .amo
        .world(|world| world.add_contact(NAME, &[], &[phone]));
    let rows = [EMAIL, OTHER].map(|email| world.insert(&json!({"email": email, "phone": phone})));
    let (first, second) = tokio::join!(world.deliver(rows[0]), world.deliver(rows[1]));
    assert_eq!((first, second), (202, 202));

    let deal = world.until_synced_once(rows[0]).await;
    assert_eq!(world.until_synced_once(rows[1]).await, deal);
    let deals = world
        .sandbox
        .amo
        .world(|world| world.contact(contact).unwrap().deals.clone());
    assert_eq!(deals, [deal]);
}

// ---- the manager, at the same time ----

/// Makes contact and deal by hand, as one does: the search learns of it later.
fn manager_makes_both(world: &World) -> (ContactId, DealId) {
    let contact = world
        .sandbox
        .amo
        .world(|world| world.create_contact(NAME, &[EMAIL], &[]));
    (contact, world.deal(contact, world.setting.before[0]))
}

#[tokio::test]
async fn a_contact_and_deal_made_by_hand_while_we_look_are_used() {
    for missing in [Missing::Wait, Missing::Create] {
        let mut wishes = Wishes {
            missing,
            ..Wishes::brisk()
        };
        wishes.amo.index_lag = Duration::from_millis(400);
        wishes.amo.latency = Duration::from_millis(100);
        let world = World::start(wishes).await;
        let row = deliver(&world, json!({})).await;
        world
            .until_asked("contacts.search", 1, |it| it.status.is_some())
            .await;
        let (_, deal) = manager_makes_both(&world);

        assert_eq!(world.until_synced_once(row).await, deal, "{missing:?}");
        assert_eq!(world.deals_of(EMAIL), [deal], "{missing:?}");
        assert_eq!(world.asked("leads.complex"), 0, "{missing:?}");
    }
}

/// What a manager may do with a deal, where it stands then, and whether we have yet to move it.
fn moves_of_a_manager(world: &World) -> [(&'static str, StageId, bool); 4] {
    [
        ("goes on", world.setting.beyond[0], false),
        ("wins", StageId::WON, false),
        ("loses", StageId::LOST, true),
        ("starts anew", world.setting.before[1], true),
    ]
}

/// Our move never arrived, and when we try again the deal stands elsewhere.
#[tokio::test]
async fn a_deal_that_a_manager_moves_before_we_could_is_judged_by_where_it_stands() {
    for n in 0..4 {
        let world = World::start(Wishes::brisk()).await;
        let (what, stage, is_moved) = moves_of_a_manager(&world)[n];
        let deal = world.student(EMAIL);
        hold(&world, "leads.update", When::Before);
        let row = deliver(&world, json!({})).await;
        world
            .until_asked("leads.update", 1, |it| it.fault.is_some())
            .await;
        manager_moves(&world, deal, stage);

        world.until_done(row, Outcome::Synced).await;
        let expected = if is_moved {
            world.setting.target
        } else {
            stage
        };
        assert_eq!(world.stage(deal), expected, "{what}");
        world.assert_noted_once(row, deal);
        assert_eq!(world.deals_of(EMAIL), [deal], "{what}");
    }
}

/// What we moved is the manager's from then on, also while the note or the row still fails.
#[tokio::test]
async fn a_deal_that_a_manager_moves_after_us_is_never_moved_again() {
    for point in [Point::amo("notes.create"), Point::postgrest("rows.update")] {
        for n in 0..4 {
            let mut world = World::start(Wishes::brisk()).await;
            let (what, stage, _) = moves_of_a_manager(&world)[n];
            let deal = world.student(EMAIL);
            break_route(&world, point.clone());
            let row = deliver(&world, json!({})).await;
            if point.route.as_deref() == Some("rows.update") {
                until_noted(&world, row).await;
            } else {
                until_moved(&world, row).await;
            }
            manager_moves(&world, deal, stage);
            // Nor does a new process move it.
            world.die().await;
            mend(&world);
            world.launch().await;

            world.until_done(row, Outcome::Synced).await;
            assert_eq!(world.stage(deal), stage, "{what}");
            assert_eq!(world.asked("leads.update"), 1, "{what}");
            world.assert_noted_once(row, deal);
        }
    }
}

/// The choice is on disk before the first write: whatever looks better afterwards is not touched.
#[tokio::test]
async fn death_after_the_move_of_one_deal_never_moves_the_other() {
    for when in [When::Before, When::After] {
        let mut world = World::start(Wishes::brisk()).await;
        let contact = world.contact(EMAIL);
        let deals = [0, 1].map(|n| world.deal(contact, world.setting.before[n]));
        hold(&world, "leads.update", when);
        let row = deliver(&world, json!({})).await;
        world
            .until_asked("leads.update", 1, |it| it.fault.is_some())
            .await;
        let chosen = world.entry(row).await.unwrap().progress;
        let chosen = DealId::new(chosen.step.choice().unwrap().deal.get());
        let other = deals.into_iter().find(|deal| *deal != chosen).unwrap();
        world.die().await;
        // Now the other one is the newest, and further on.
        manager_moves(&world, other, world.setting.before[1]);
        let stood = world.stage(other);
        world.launch().await;

        assert_eq!(world.until_synced_once(row).await, chosen);
        assert_eq!(world.stage(other), stood);
        assert_eq!(world.notes(other), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_new_deal_made_by_hand_while_ours_is_on_its_way_does_not_become_a_second_choice() {
    let mut world = World::start(Wishes::brisk()).await;
    let contact = world.contact(EMAIL);
    hold(&world, "leads.create", When::After);
    let row = deliver(&world, json!({})).await;
    world
        .until_asked("leads.create", 1, |it| it.fault.is_some())
        .await;
    let ours = world.deals_of(EMAIL)[0];
    world.die().await;
    let by_hand = world.deal(contact, world.setting.before[0]);
    world.launch().await;

    assert_eq!(world.until_synced_once(row).await, ours);
    assert_eq!(world.deals_of(EMAIL), [ours, by_hand]);
    assert_eq!(world.stage(by_hand), world.setting.before[0]);
    assert_eq!(world.asked("leads.create"), 1);
}
