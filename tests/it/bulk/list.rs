//! Many are found in the account's list of contacts, and nobody is overlooked in it.

use std::time::Duration;

use jiff::SignedDuration;
use sandbox::{DealId, StageId, school::Missing};
use serde_json::json;
use tripwire_sync::{
    domain::RowId,
    inbox::{Arrival, Source},
    sync::schedule::Tempo,
};

use super::{assert_right, backfill, email, import_day, launch, together};
use crate::support::{NAME, Wishes, World, has_missed_twice, rows_of};

/// All at once, and live.
async fn arrive(world: &World, rows: &[RowId]) {
    let arrivals = rows.iter().map(|row| Arrival {
        row: *row,
        source: Source::Sweep,
    });
    world.inbox().store(arrivals.collect()).await.unwrap();
}

/// Requests for pages of the list of contacts, not for contacts by id.
fn pages(world: &World, order: &str) -> usize {
    let pages = world.requests_to("contacts.list").into_iter();
    pages.filter(|it| it.param(order).is_some()).count()
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
    let further = 30..33;
    for n in further.clone() {
        world.student(&email(n));
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

    // The changes would cost more than the fifth that may be spent on a list.
    let rows = further.map(|n| world.insert(&json!({"email": email(n)})));
    let rows: Vec<RowId> = rows.collect();
    backfill(&world, rows.iter().copied()).await;
    for row in rows {
        world.until_synced_once(row).await;
    }
    assert_eq!(pages(&world, "order[updated_at]"), 1);
    assert_eq!(world.asked("contacts.search"), 3);
}

/// The list has cost all that it may, so each five of them can only pay for their own page.
#[tokio::test]
async fn a_few_after_a_few_are_found_in_the_list_that_is_remembered() {
    const MANY: usize = 25;
    let mut world = World::prepare(together());
    let deals: Vec<DealId> = (0..MANY + 15).map(|n| world.student(&email(n))).collect();
    world.setting.add_crowd(&world.sandbox.amo, 1, 900);
    let insert = |n: usize| world.insert(&json!({"email": email(n)}));
    let mut rows: Vec<RowId> = (0..MANY).map(insert).collect();
    launch(&mut world, 1.0).await;
    for row in &rows {
        world.until_synced_once(*row).await;
    }
    assert_eq!(pages(&world, "order[id]"), MANY / 5);

    for round in 0..3 {
        let first = MANY + round * 5;
        let few: Vec<RowId> = (first..first + 5)
            .map(|n| world.insert(&json!({"email": email(n)})))
            .collect();
        arrive(&world, &few).await;
        for row in &few {
            world.until_synced_once(*row).await;
        }
        rows.extend(few);
        assert_eq!(pages(&world, "order[updated_at]"), round + 1);
    }
    for (row, deal) in rows.iter().zip(&deals) {
        assert_eq!(world.until_synced_once(*row).await, *deal);
    }
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

    // A few are not worth a new reading.
    let few = students(&world, "few", 10);
    backfill(&world, few.iter().map(|(row, _)| *row)).await;
    for (row, deal) in few {
        assert_eq!(world.until_synced_once(row).await, deal);
    }
    assert_eq!(world.asked("contacts.search"), 40);
    assert_eq!(pages(&world, "order[id]"), read);

    let newest = students(&world, "newest", 40);
    backfill(&world, newest.iter().map(|(row, _)| *row)).await;
    for (row, deal) in newest {
        assert_eq!(world.until_synced_once(row).await, deal);
    }
    assert_eq!(world.asked("contacts.search"), 40);
    // 1,180 contacts.
    assert!(pages(&world, "order[id]") >= read + 5);
}

/// Of whom the whole list has nothing, its changes tell a minute later: for all of them together.
#[tokio::test]
async fn who_is_missing_from_an_import_is_looked_for_again_without_a_search() {
    const FOUND: usize = 30;
    const MISSING: usize = 10;
    const SCALE: f64 = 0.1;
    let phone = |n: usize| format!("+7 701 000 00 {n:02}");
    let mut world = World::prepare(together());
    for n in 0..FOUND {
        world.student(&email(n));
    }
    let rows: Vec<RowId> = (0..FOUND + MISSING)
        .map(|n| world.insert(&json!({"email": email(n), "phone": phone(n)})))
        .collect();
    let has_phone_alone = |world: &World, n: usize| {
        let amo = &world.sandbox.amo;
        let contact = amo.world(|amo| amo.add_contact(NAME, &[], &[&phone(n)]));
        world.deal(contact, world.setting.before[0])
    };
    let mut found = vec![(FOUND, has_phone_alone(&world, FOUND))];
    launch(&mut world, SCALE).await;
    world.until_settled(rows.len()).await;
    assert_eq!(world.asked("contacts.search"), 0);
    let at_once = Tempo::scaled(SCALE).second_look / 4;
    let at_once = i64::try_from(at_once.as_millis()).unwrap();
    for row in &rows[FOUND..] {
        let due_at = world.entry(*row).await.unwrap().due_at;
        assert_eq!(due_at.as_millisecond() % at_once, 0);
    }

    // Others are made between both looks.
    found.push((FOUND + 1, has_phone_alone(&world, FOUND + 1)));
    found.push((FOUND + 2, world.student(&email(FOUND + 2))));
    for (n, deal) in &found {
        assert_eq!(world.until_synced_once(rows[*n]).await, *deal);
    }
    let hour = SignedDuration::try_from(Tempo::scaled(SCALE).list_for).unwrap();
    for row in &rows[FOUND + found.len()..] {
        let entry = world.until(*row, "missed twice", has_missed_twice).await;
        let until_next = entry.due_at.duration_since(entry.updated_at);
        assert!(
            until_next <= hour,
            "{until_next:?}: by another reading, or a search"
        );
    }

    let searches = world.requests_to("contacts.search");
    let mut sought: Vec<_> = searches.iter().map(|it| it.param("query")).collect();
    sought.sort();
    let by_phone = [Some("7010000030"), Some("7010000031")];
    assert_eq!(sought, by_phone, "who may have the phone");
    assert_eq!(pages(&world, "order[id]"), 1);
    let lists = world.requests_to("contacts.list").into_iter();
    let changes = lists.filter(|it| it.param("order[updated_at]").is_some());
    // By the list, and once more for who is made a moment ago.
    assert_eq!(changes.filter(|it| it.at < searches[0].at).count(), 2);
}

#[tokio::test]
async fn whom_neither_list_nor_its_changes_show_is_made_after_the_second_look() {
    const ROWS: usize = 30;
    const SCALE: f64 = 0.05;
    let mut world = World::prepare(Wishes {
        missing: Missing::Create,
        ..together()
    });
    let rows: Vec<RowId> = (0..ROWS)
        .map(|n| {
            world.insert(&json!({"email": email(n), "phone": format!("+7 701 000 00 {n:02}")}))
        })
        .collect();
    launch(&mut world, SCALE).await;
    for (n, row) in rows.iter().enumerate() {
        let deal = world.until_synced_once(*row).await;
        assert_eq!(world.deals_of(&email(n)), [deal]);
    }
    let listed = world.requests_to("contacts.list")[0].at;
    let made = world.requests_to("leads.complex")[0].at;
    assert!(made - listed >= Tempo::scaled(SCALE).second_look);
    // By phone, and by e-mail once more before the create.
    assert_eq!(world.asked("contacts.search"), 2 * ROWS);
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

/// Alone the first could not afford the list: those who come while it is read pay for the rest.
#[tokio::test]
async fn the_first_of_an_import_do_not_search_while_many_more_are_on_their_way() {
    const FIRST: usize = 30;
    const ALL: usize = 120;
    let mut wishes = together();
    wishes.amo.latency = Duration::from_millis(200);
    let mut world = World::prepare(wishes);
    let deals: Vec<DealId> = (0..ALL).map(|n| world.student(&email(n))).collect();
    // All students are at its end, on the thirteenth page.
    world.setting.add_crowd(&world.sandbox.amo, 1, 3_000);
    let insert = |n: usize| world.insert(&json!({"email": email(n)}));
    let mut rows: Vec<RowId> = (0..FIRST).map(insert).collect();
    launch(&mut world, 1.0).await;
    world.until_asked("contacts.list", 1, |_| true).await;

    let more: Vec<RowId> = (FIRST..ALL)
        .map(|n| world.insert(&json!({"email": email(n)})))
        .collect();
    arrive(&world, &more).await;
    rows.extend(more);
    for (row, deal) in rows.iter().zip(&deals) {
        assert_eq!(world.until_synced_once(*row).await, *deal);
    }
    assert_eq!(world.asked("contacts.search"), 0);
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
    backfill(&world, rows_of(&school).into_iter()).await;
    world.until_asked("contacts.list", 3, |_| true).await;

    let rows: Vec<RowId> = (0..30)
        .map(|n| world.insert(&json!({"email": email(n)})))
        .collect();
    arrive(&world, &rows).await;
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
