//! One item of an answer that cannot be read: unknown, never missing, and no harm to the others.

use std::time::Duration;

use futures::{StreamExt, stream};
use sandbox::{DealId, Fault, Item, Kind, Point, Spoilt, scenario::Missing};
use serde_json::json;
use tripwire_sync::{
    domain::RowId,
    inbox::{Revival, State},
};

use crate::support::{Wishes, World};

/// Worlds at once: each mostly waits.
const PARALLEL: usize = 8;

/// A deal to move, one to make for a contact, one to make with its contact; and a row that an earlier life has noted.
fn emails() -> [&'static str; 4] {
    [
        "move@example.kz",
        "deal@example.kz",
        "both@example.kz",
        "noted@example.kz",
    ]
}

fn students(world: &World) -> Vec<RowId> {
    world.student(emails()[0]);
    world.contact(emails()[1]);
    let noted = world.contact(emails()[3]);
    let deal = world.deal(noted, world.setting.target);
    let rows: Vec<RowId> = emails()
        .map(|email| world.insert(&json!({ "email": email, "phone": null })))
        .into();
    let mark = format!("✅\n[{}]", rows[3].reference());
    world
        .sandbox
        .amo
        .world(|world| world.add_note(deal, "common", &mark));
    rows
}

/// No student has two contacts, two deals or two notes, whatever became of the rows.
fn assert_nothing_twice(world: &World, rows: &[RowId], what: &str) {
    for (email, row) in emails().into_iter().zip(rows) {
        let contacts = world
            .sandbox
            .amo
            .world(|world| world.contacts_with_email(email).count());
        assert!(contacts <= 1, "{what}: {contacts} contacts of {email}");
        let deals = world.deals_of(email).len();
        assert!(deals <= 1, "{what}: {deals} deals of {email}");
        let mark = format!("[{}]", row.reference());
        let ours = |deal: &DealId| {
            let notes = world.notes(*deal);
            notes.iter().filter(|text| text.ends_with(&mark)).count()
        };
        let notes: usize = world.deals_of(email).iter().map(ours).sum();
        assert!(notes <= 1, "{what}: {notes} notes of {email}");
    }
}

async fn spoils_nothing(route: &'static str, place: usize, how: Spoilt) {
    let what = format!("{route} {place} {how:?}");
    let mut world = World::prepare(Wishes {
        missing: Missing::Create,
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    });
    let rows = students(&world);
    let item = Item::At(place);
    let spoilt = Kind::Spoilt { item, how };
    let fault = Fault::always(Point::amo(route), spoilt);
    world.sandbox.faults().add(fault);
    world.launch().await;
    for row in &rows {
        let is_at_rest = |state| matches!(state, State::Done | State::Parked | State::Waiting);
        world
            .until(*row, "at rest", |entry| {
                is_at_rest(entry.state) || entry.attempts > 6
            })
            .await;
    }
    assert_nothing_twice(&world, &rows, &what);

    world.sandbox.faults().clear();
    let guest = world.guest().await;
    guest.revive(Revival::AllParked).await.unwrap();
    for row in &rows {
        world.until_synced_once(*row).await;
    }
    assert_nothing_twice(&world, &rows, &what);
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_unreadable_item_in_any_answer_makes_nothing_twice_and_loses_nothing() {
    let routes = [
        "contacts.search",
        "contacts.list",
        "leads.list",
        "notes.list",
        "leads.update",
        "leads.create",
        "leads.complex",
        "notes.create",
    ];
    let hows = [Spoilt::Null, Spoilt::AllButTheId, Spoilt::All];
    let worlds = routes.into_iter().flat_map(|route| {
        hows.into_iter().flat_map(move |how| {
            [0, 1].map(move |place| Box::pin(spoils_nothing(route, place, how)))
        })
    });
    stream::iter(worlds)
        .for_each_concurrent(PARALLEL, |world| world)
        .await;
}

/// The others of the same answers go on while it lasts.
#[tokio::test]
async fn an_unreadable_deal_holds_up_its_own_row_alone_and_is_parked_by_name() {
    let mut world = World::prepare(Wishes {
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    });
    let rows: Vec<_> = (0..6)
        .map(|n| {
            let email = format!("s{n}@example.kz");
            let deal = world.student(&email);
            (world.insert(&json!({ "email": email })), deal)
        })
        .collect();
    let (bad, deal) = rows[2];
    let spoilt = Kind::Spoilt {
        item: Item::WithId(deal.get()),
        how: Spoilt::AllButTheId,
    };
    world
        .sandbox
        .faults()
        .add(Fault::always(Point::amo("leads.list"), spoilt));
    world.launch().await;
    for (row, _) in &rows {
        if *row != bad {
            world.until_synced_once(*row).await;
        }
    }
    let reason = world.until_state(bad, State::Parked).await.reason.unwrap();
    assert!(reason.contains(&format!("сделка {deal}")), "{reason}");
}

/// A stage whose place cannot be read may stand before the target: its deal is not taken for one that is further on.
#[tokio::test]
async fn a_deal_on_a_stage_that_cannot_be_read_is_not_left_where_it_stands() {
    let world = World::start(Wishes::brisk()).await;
    let contact = world.contact("ann@example.kz");
    let stage = world.setting.before[1];
    let deal = world.deal(contact, stage);
    let spoilt = Kind::SpoiltStage { id: stage.get() };
    world
        .sandbox
        .faults()
        .add(Fault::always(Point::amo("pipelines.list"), spoilt));
    let row = world.insert(&json!({ "email": "ann@example.kz" }));
    world.deliver(row).await;

    let reason = world.until_state(row, State::Parked).await.reason.unwrap();
    assert!(reason.contains(&format!("этап {stage}")), "{reason}");
    assert_eq!(world.stage(deal), stage);
}
