//! A kill at every interesting moment: one deal, one note, the right stage, the row patched.

use std::{fs, path::PathBuf, time::Duration};

use sandbox::{DealId, Fault, Kind, Point, When, scenario::Missing};
use serde_json::{Value, json};
use tripwire_sync::{
    domain::{Clock, RowId, SystemClock},
    inbox::{Entry, Inbox, Outcome, PAUSED, REPLACED, Replaced, State},
};

use crate::support::{EMAIL, Wishes, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Student {
    WithDeal,
    OnTarget,
    WithoutDeal,
    Unknown,
}

/// Kills the service while a request hangs, before or after it had its effect, and starts it again.
async fn killed_at(student: Student, point: Point, when: When) {
    let what = format!("{student:?} killed at {point:?} {when:?}");
    let mut world = World::start(Wishes {
        missing: Missing::Create,
        ..Wishes::brisk()
    })
    .await;
    match student {
        Student::WithDeal => drop(world.student(EMAIL)),
        Student::OnTarget => {
            let contact = world.contact(EMAIL);
            world.deal(contact, world.setting.target);
        }
        Student::WithoutDeal => drop(world.contact(EMAIL)),
        Student::Unknown => {}
    }
    let route = point.route.clone().unwrap();
    world
        .sandbox
        .faults()
        .add(Fault::once(point, Kind::Hang(when)));
    let row = world.insert(&json!({}));
    assert_eq!(world.deliver(row).await, 202);
    world.until_asked(&route, 1, |it| it.fault.is_some()).await;
    world.die().await;
    world.sandbox.faults().clear();
    world.launch().await;

    let deal = world.until_synced_once(row).await;
    assert_eq!(world.deals_of(EMAIL), [deal], "{what}");
    let contacts = world
        .sandbox
        .amo
        .world(|world| world.contacts_with_email(EMAIL).count());
    assert_eq!(contacts, 1, "{what}");
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
}

#[tokio::test]
async fn a_kill_while_reading_loses_nothing() {
    let read = When::Before;
    killed_at(Student::WithDeal, Point::postgrest("rows.read"), read).await;
    killed_at(Student::WithDeal, Point::amo("contacts.search"), read).await;
    killed_at(Student::WithDeal, Point::amo("leads.list"), read).await;
    killed_at(Student::WithDeal, Point::amo("pipelines.list"), read).await;
    killed_at(Student::WithoutDeal, Point::amo("contacts.list"), read).await;
    killed_at(Student::OnTarget, Point::amo("notes.list"), read).await;
}

#[tokio::test]
async fn a_kill_around_the_move_moves_and_notes_once() {
    killed_at(Student::WithDeal, Point::amo("leads.update"), When::Before).await;
    killed_at(Student::WithDeal, Point::amo("leads.update"), When::After).await;
}

#[tokio::test]
async fn a_kill_around_the_create_makes_one_deal() {
    killed_at(
        Student::WithoutDeal,
        Point::amo("leads.create"),
        When::Before,
    )
    .await;
    killed_at(
        Student::WithoutDeal,
        Point::amo("leads.create"),
        When::After,
    )
    .await;
}

#[tokio::test]
async fn a_kill_around_the_create_with_contact_makes_one_of_each() {
    killed_at(Student::Unknown, Point::amo("leads.complex"), When::Before).await;
    killed_at(Student::Unknown, Point::amo("leads.complex"), When::After).await;
}

#[tokio::test]
async fn a_kill_around_the_note_makes_one_note() {
    killed_at(Student::WithDeal, Point::amo("notes.create"), When::Before).await;
    killed_at(Student::WithDeal, Point::amo("notes.create"), When::After).await;
}

#[tokio::test]
async fn a_kill_around_the_write_back_repeats_no_step() {
    killed_at(
        Student::WithDeal,
        Point::postgrest("rows.update"),
        When::Before,
    )
    .await;
    killed_at(
        Student::WithDeal,
        Point::postgrest("rows.update"),
        When::After,
    )
    .await;
    killed_at(
        Student::Unknown,
        Point::postgrest("rows.update"),
        When::After,
    )
    .await;
}

/// The second kill comes while the first one's traces are looked for.
#[tokio::test]
async fn a_second_kill_while_recovering_changes_nothing() {
    let mut world = World::start(Wishes::brisk()).await;
    world.contact(EMAIL);
    let row = world.insert(&json!({}));
    let hang = |route: &str, when| Fault::once(Point::amo(route), Kind::Hang(when));
    world
        .sandbox
        .faults()
        .add(hang("leads.create", When::After));
    world.deliver(row).await;
    world
        .until_asked("leads.create", 1, |it| it.fault.is_some())
        .await;
    world.die().await;
    for route in ["contacts.list", "leads.list", "notes.create"] {
        let before = world.asked(route);
        world.sandbox.faults().add(hang(route, When::After));
        world.launch().await;
        world.until_asked(route, before + 1, |_| true).await;
        world
            .until_asked(route, 1, |it| it.fault.is_some() && it.status.is_none())
            .await;
        world.die().await;
    }
    world.sandbox.faults().clear();
    world.launch().await;

    let deal = world.until_synced_once(row).await;
    assert_eq!(world.deals_of(EMAIL), [deal]);
    assert_eq!(world.asked("leads.create"), 1);
    assert_eq!(world.asked("notes.create"), 1);
}

/// The row gets a deal id while our create is in doubt: of the deal that the create made, or of another one.
async fn filled_while_in_doubt(student: Student, when: When, is_the_made: bool) -> (Entry, DealId) {
    let mut world = World::start(Wishes {
        missing: Missing::Create,
        ..Wishes::brisk()
    })
    .await;
    let route = match student {
        Student::Unknown => "leads.complex",
        _ => "leads.create",
    };
    if student != Student::Unknown {
        world.contact(EMAIL);
    }
    let hang = Fault::once(Point::amo(route), Kind::Hang(when));
    world.sandbox.faults().add(hang);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_asked(route, 1, |it| it.fault.is_some()).await;
    world.die().await;
    world.sandbox.faults().clear();

    let made = world.deals_of(EMAIL);
    assert_eq!(made.len(), usize::from(when == When::After));
    let filled = if is_the_made {
        made[0]
    } else {
        world.student("manager@example.kz")
    };
    world.sandbox.postgrest.update_row(row, |row| {
        row.insert("amocrm_deal_id".into(), filled.to_string().into());
    });
    world.launch().await;
    let is_at_its_end = |entry: &Entry| [State::Done, State::Parked].contains(&entry.state);
    let entry = world.until(row, "at its end", is_at_its_end).await;
    assert_eq!(world.deals_of(EMAIL), made);
    assert_eq!(world.asked(route), 1);
    assert_eq!(world.asked("notes.create"), 0);
    (entry, filled)
}

#[tokio::test]
async fn a_create_in_doubt_is_looked_for_though_the_row_has_a_deal_by_now() {
    for student in [Student::WithoutDeal, Student::Unknown] {
        let (entry, _) = filled_while_in_doubt(student, When::After, true).await;
        assert_eq!(entry.outcome, Some(Outcome::Synced), "{entry:?}");

        let (entry, _) = filled_while_in_doubt(student, When::Before, false).await;
        assert_eq!(entry.outcome, Some(Outcome::AlreadyLinked), "{entry:?}");

        let (entry, filled) = filled_while_in_doubt(student, When::After, false).await;
        let reason = entry.reason.unwrap();
        let beginning = format!("в строке сделка {filled}, а сервис обработал сделку ");
        assert!(reason.starts_with(&beginning), "{reason}");
    }
}

// ---- the inbox file is another one ----

/// The rows' deal ids are lost too, so that the service must find out what it has done for them.
fn forget_deals(world: &World, rows: &[RowId]) {
    for row in rows {
        world.sandbox.postgrest.update_row(*row, |row| {
            row.insert("amocrm_deal_id".into(), Value::Null);
        });
    }
}

fn sweeping() -> Wishes {
    Wishes {
        missing: Missing::Create,
        sweep_every: Some(Duration::from_hours(1)),
        ..Wishes::brisk()
    }
}

#[tokio::test]
async fn a_damaged_inbox_is_replaced_and_after_a_minute_and_a_resume_nothing_is_doubled() {
    for makes_deal in [false, true] {
        let mut world = World::start(sweeping()).await;
        if makes_deal {
            world.contact(EMAIL);
        } else {
            world.student(EMAIL);
        }
        let row = world.insert(&json!({}));
        world.deliver(row).await;
        let deal = world.until_synced_once(row).await;
        world.stop().await;

        let mut file = fs::read(world.inbox_path()).unwrap();
        file[..100].fill(0);
        fs::write(world.inbox_path(), file).unwrap();
        forget_deals(&world, &[row]);
        let before = world.sandbox.amo.requests().len();
        let damaged_at = SystemClock.now();
        world.launch().await;
        world.until_sync_is("paused").await;
        let replaced: Replaced = world.inbox().state(REPLACED).await.unwrap().unwrap();
        assert!(!replaced.is_whole);
        assert!(world.folder().join(replaced.kept_as).exists());
        world.guest().await.clear_state(PAUSED).await.unwrap();

        assert_eq!(world.until_synced_once(row).await, deal);
        assert_eq!(world.deals_of(EMAIL), [deal]);
        let requests = world.sandbox.amo.requests();
        let first = requests.get(before);
        let minute = world.settings().timings.lease.after_replacement;
        let pause = first.unwrap().time.duration_since(damaged_at);
        assert!(Duration::try_from(pause).unwrap() >= minute, "{pause:?}");
    }
}

#[tokio::test]
async fn a_copy_that_is_put_back_doubles_nothing_and_rows_that_came_after_it_are_found() {
    let mut world = World::start(sweeping()).await;
    let insert = |n| world.insert(&json!({ "email": format!("student{n}@example.kz") }));
    let before = insert(0);
    world.deliver(before).await;
    let first = world.until_synced_once(before).await;
    let copy = world.folder().join("copy.db");
    Inbox::copy(&world.inbox_path(), &copy).await.unwrap();
    let after = insert(1);
    world.deliver(after).await;
    let second = world.until_synced_once(after).await;
    world.stop().await;

    // As docs/operation.md tells.
    for suffix in ["-wal", "-shm"] {
        let mut name = world.inbox_path().into_os_string();
        name.push(suffix);
        let _ = fs::remove_file(PathBuf::from(name));
    }
    fs::rename(&copy, world.inbox_path()).unwrap();
    forget_deals(&world, &[before, after]);
    let unheard = world.insert(&json!({ "email": "student2@example.kz" }));
    world.launch().await;

    world.until_synced_once(unheard).await;
    for (row, n, deal) in [(before, 0, first), (after, 1, second)] {
        assert_eq!(world.until_synced_once(row).await, deal);
        assert_eq!(world.deals_of(&format!("student{n}@example.kz")), [deal]);
    }
}
