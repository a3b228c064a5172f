//! Contacts of many rows are found in the index of the account's contacts, and no contact is overlooked by it.

use std::time::{Duration, Instant};

use sandbox::{
    AmoQuirks, ContactId, DealId, Fault, Item, Kind, Point, Recorded, Spoilt, StageId,
    scenario::{Case, Missing, Scenario},
};
use serde_json::json;
use tripwire_sync::{
    domain::RowId,
    inbox::{Arrival, Source, State},
    sync::rules::timings::Timings,
};

use super::{assert_right, backfill, email, import_day, launch, together};
use crate::support::{NAME, Wishes, World, rows_of};

/// As the real account allows: the filling takes its share, and the searches have the rest.
fn at_the_real_rate() -> Wishes {
    Wishes {
        requests_per_second: 7,
        ..together()
    }
}

/// All at once, and live.
async fn arrive(world: &World, rows: &[RowId]) {
    let arrivals = rows.iter().map(|row| Arrival {
        row: *row,
        source: Source::Sweep,
    });
    world.inbox().store(arrivals.collect()).await.unwrap();
}

fn is_change(request: &Recorded) -> bool {
    request.param("order[updated_at]").is_some()
}

fn is_page(request: &Recorded) -> bool {
    request.param("order[id]") == Some("asc")
}

/// Requests for pages of all contacts.
fn pages(world: &World) -> usize {
    let lists = world.requests_to("contacts.list");
    lists.iter().filter(|it| is_page(it)).count()
}

/// Requests for pages of changed contacts.
fn changes(world: &World) -> usize {
    let lists = world.requests_to("contacts.list");
    lists.iter().filter(|it| is_change(it)).count()
}

/// Imports students of their own until none of an import is searched for: the index is complete and current.
async fn fill(world: &World) {
    const MANY: usize = 21;
    let began = Instant::now();
    for round in 0.. {
        assert!(
            began.elapsed() < Duration::from_mins(1),
            "the index does not answer"
        );
        let searched = world.asked("contacts.search");
        let of = format!("filler{round}-{}-", world.sandbox.requests().len());
        let students = students(world, &of, MANY);
        arrive(world, &rows(&students)).await;
        until_each_has_its_deal(world, &students).await;
        if world.asked("contacts.search") == searched {
            return;
        }
    }
}

/// Students with a deal each, and the rows about them.
fn students(world: &World, of: &str, count: usize) -> Vec<(RowId, DealId)> {
    let named = (0..count).map(|n| format!("{of}{n}@example.kz"));
    named
        .map(|email| {
            let deal = world.student(&email);
            (world.insert(&json!({"email": email})), deal)
        })
        .collect()
}

async fn until_each_has_its_deal(world: &World, students: &[(RowId, DealId)]) {
    for (row, deal) in students {
        assert_eq!(world.until_synced_once(*row).await, *deal);
    }
}

fn rows(students: &[(RowId, DealId)]) -> Vec<RowId> {
    students.iter().map(|(row, _)| *row).collect()
}

/// A contact that was made long ago and has not changed since.
fn old_contact(world: &World, email: &str) -> ContactId {
    let contact = world.contact(email);
    let long_ago = jiff::Timestamp::from_second(1_700_000_000).unwrap();
    world.sandbox.amo.world(|amo| {
        amo.set_contact(contact, |contact| {
            contact.created_at = long_ago;
            contact.updated_at = long_ago;
        })
    });
    contact
}

#[tokio::test]
async fn an_import_is_found_in_the_index_once_that_is_filled() {
    const ROWS: usize = 300;
    let mut world = World::prepare(at_the_real_rate());
    world.setting.add_crowd(&world.sandbox.amo, 1, ROWS);
    let scenario = import_day(&world, ROWS);
    launch(&mut world, 1.0).await;
    world.until_settled(ROWS).await;

    assert_right(&scenario);
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
    // 610 contacts.
    assert_eq!(pages(&world), 3);
    let searches = world.asked("contacts.search");
    assert!(searches < ROWS / 5, "{searches} searches");
}

#[tokio::test]
async fn a_filled_index_answers_later_imports_for_a_page_of_changes_each() {
    let mut world = World::prepare(together());
    world.setting.add_crowd(&world.sandbox.amo, 1, 300);
    launch(&mut world, 1.0).await;
    fill(&world).await;
    let (read, searched) = (pages(&world), world.asked("contacts.search"));

    // Made after the index was filled.
    let newer = students(&world, "newer", 40);
    let changed = changes(&world);
    arrive(&world, &rows(&newer)).await;
    until_each_has_its_deal(&world, &newer).await;
    assert_eq!(changes(&world), changed + 1);

    // What a process knows, the next one knows too.
    world.stop().await;
    let newest = students(&world, "newest", 40);
    launch(&mut world, 1.0).await;
    until_each_has_its_deal(&world, &newest).await;
    // The rows of the first sweep may be two runs.
    assert!(changes(&world) <= changed + 3);
    assert_eq!(pages(&world), read, "nothing is read again");
    assert_eq!(world.asked("contacts.search"), searched);
}

#[tokio::test]
async fn a_few_rows_are_searched_for_whatever_the_index_knows() {
    let mut world = World::prepare(together());
    launch(&mut world, 1.0).await;
    fill(&world).await;
    let (changed, searched) = (changes(&world), world.asked("contacts.search"));
    let few = students(&world, "few", 20);
    arrive(&world, &rows(&few)).await;
    until_each_has_its_deal(&world, &few).await;
    assert_eq!(world.asked("contacts.search"), searched + 20);
    assert_eq!(changes(&world), changed);
}

/// A widget that edits every contact at night is normal.
#[tokio::test]
async fn an_index_that_has_fallen_behind_is_not_asked_until_it_has_caught_up() {
    let mut world = World::prepare(together());
    launch(&mut world, 0.01).await;
    fill(&world).await;
    let (read, searched) = (pages(&world), world.asked("contacts.search"));

    let newer = students(&world, "newer", 21);
    for n in 0..22 * 250 {
        world.contact(&format!("stranger{n}@example.kz"));
    }
    backfill(&world, rows(&newer).into_iter()).await;
    until_each_has_its_deal(&world, &newer).await;
    assert_eq!(world.asked("contacts.search"), searched + 21);

    // In the background, from the newest change back to what is known.
    fill(&world).await;
    assert_eq!(pages(&world), read);
}

#[tokio::test]
async fn a_contact_that_the_index_names_and_that_is_gone_is_searched_for() {
    let mut world = World::prepare(together());
    launch(&mut world, 1.0).await;
    let student = |n: usize| format!("student{n}@example.kz");
    let deals: Vec<DealId> = (0..30).map(|n| world.student(&student(n))).collect();
    fill(&world).await;
    let searched = world.asked("contacts.search");
    // Two contacts become one, long ago by its own word: the deal goes over to the other, which has the e-mail from now on.
    let old = world.sandbox.amo.world(|amo| {
        let mut same = amo.contacts_with_email("student7@example.kz");
        same.next().unwrap().id
    });
    let merged = old_contact(&world, "student7@example.kz");
    world.sandbox.amo.world(|amo| {
        amo.delete_contact(old);
        amo.set_deal(deals[7], |deal| deal.contacts = vec![merged]);
        amo.set_contact(merged, |contact| contact.deals.push(deals[7]));
    });
    // Another gave its e-mail away.
    let renamed = world.sandbox.amo.world(|amo| {
        let mut same = amo.contacts_with_email("student8@example.kz");
        same.next().unwrap().id
    });
    let heir = old_contact(&world, "student8@example.kz");
    world.sandbox.amo.world(|amo| {
        amo.set_deal(deals[8], |deal| deal.contacts = vec![heir]);
        amo.set_contact(heir, |contact| contact.deals.push(deals[8]));
        amo.set_contact(renamed, |contact| {
            contact.fields[0].values[0].value = "other@example.kz".to_owned();
            contact.deals.clear();
        });
    });

    let insert = |n: usize| world.insert(&json!({"email": student(n)}));
    let students: Vec<(RowId, DealId)> = (0..30).map(insert).zip(deals).collect();
    arrive(&world, &rows(&students)).await;
    until_each_has_its_deal(&world, &students).await;
    assert_eq!(world.asked("contacts.search"), searched + 1);
    let contact = |row| world.column(row, "amocrm_contact_id");
    assert_eq!(contact(students[7].0), Some(merged.to_string()));
    assert_eq!(contact(students[8].0), Some(heir.to_string()));
}

/// An e-mail has two contacts: the older one's open deal counts before the newer one's lost one.
#[tokio::test]
async fn all_contacts_of_an_e_mail_are_in_the_index() {
    let mut world = World::prepare(together());
    let students = students(&world, "student", 25);
    for (n, stage) in [(0, StageId::LOST), (1, StageId::WON)] {
        let second = world.contact(&format!("student{n}@example.kz"));
        world.deal(second, stage);
    }
    launch(&mut world, 1.0).await;
    fill(&world).await;
    world.stop().await;
    launch(&mut world, 1.0).await;
    arrive(&world, &rows(&students)).await;
    until_each_has_its_deal(&world, &students).await;
    assert_eq!(world.asked("leads.create"), 0);
}

/// The filling reads pages by number: a contact that is deleted from a page that was read moves another one from the next
/// page over its edge.
#[tokio::test]
async fn a_contact_that_was_hidden_during_the_filling_is_found_by_the_second_look() {
    const SCALE: f64 = 0.01;
    let mut wishes = at_the_real_rate();
    wishes.amo.latency = Duration::from_millis(150);
    let mut world = World::prepare(wishes);
    let first = old_contact(&world, "first-of-all@example.kz");
    for n in 1..250 {
        old_contact(&world, &format!("older{n}@example.kz"));
    }
    let hidden = old_contact(&world, "hidden@example.kz");
    let deal = world.deal(hidden, world.setting.before[0]);
    for n in 0..260 {
        old_contact(&world, &format!("newer{n}@example.kz"));
    }
    launch(&mut world, SCALE).await;
    let others = students(&world, "student", 21);
    arrive(&world, &rows(&others)).await;
    world
        .until_asked("contacts.list", 1, |it| is_page(it) && it.status.is_some())
        .await;
    world.sandbox.amo.world(|amo| amo.delete_contact(first));
    until_each_has_its_deal(&world, &others).await;
    world
        .until_asked("contacts.list", 1, |it| {
            is_change(it) && it.status.is_some()
        })
        .await;

    let mut later = students(&world, "later", 25);
    later.push((world.insert(&json!({"email": "hidden@example.kz"})), deal));
    let searched = world.asked("contacts.search");
    arrive(&world, &rows(&later)).await;
    until_each_has_its_deal(&world, &later).await;
    assert_eq!(world.asked("contacts.search"), searched + 1);
}

/// Contacts on a page of the filling.
const EACH: usize = 250;

/// The contacts of an account, in the middle of whose filling the service has died.
async fn die_while_it_is_filled(world: &mut World) -> Vec<ContactId> {
    let old = (0..8 * EACH).map(|n| old_contact(world, &format!("old{n}@example.kz")));
    let old = old.collect();
    launch(world, 1.0).await;
    let first = students(world, "first", 21);
    arrive(world, &rows(&first)).await;
    world
        .until_asked("contacts.list", 4, |it| is_page(it) && it.status.is_some())
        .await;
    world.die().await;
    old
}

#[tokio::test]
async fn a_filling_goes_on_after_a_restart_and_overlooks_no_contact() {
    let mut world = World::prepare(at_the_real_rate());
    let old = die_while_it_is_filled(&mut world).await;
    let before = world.asked("contacts.list");
    // The next page begins behind what is known.
    world.sandbox.amo.world(|amo| {
        for contact in &old[..EACH] {
            amo.delete_contact(*contact);
        }
    });
    let known = (EACH..8 * EACH).step_by(60);
    let deals: Vec<(usize, DealId)> = known
        .map(|n| (n, world.deal(old[n], world.setting.before[0])))
        .collect();
    launch(&mut world, 1.0).await;
    // No import needs it: it goes on in the background.
    let is_read = |it: &Recorded| is_change(it) && it.status.is_some();
    world.until_asked("contacts.list", 1, is_read).await;
    let lists = world.requests_to("contacts.list");
    let is_first = |it: &&Recorded| is_page(it) && it.param("page") == Some("1");
    let anew = lists[before..].iter().find(is_first);
    assert!(anew.is_none(), "it does not begin anew");
    let insert = |n: usize| world.insert(&json!({"email": format!("old{n}@example.kz")}));
    let sought: Vec<(RowId, DealId)> = deals.iter().map(|(n, deal)| (insert(*n), *deal)).collect();
    fill(&world).await;
    let searched = world.asked("contacts.search");
    arrive(&world, &rows(&sought)).await;
    until_each_has_its_deal(&world, &sought).await;
    assert_eq!(world.asked("contacts.search"), searched);
}

#[tokio::test]
async fn an_empty_answer_to_a_filling_that_goes_on_is_not_its_end() {
    let mut world = World::prepare(at_the_real_rate());
    let old = die_while_it_is_filled(&mut world).await;
    // The first page that is read again begins with a known contact; what follows it is answered with nothing.
    let next = world.asked("contacts.list") + 2;
    let nothing = Fault::once(Point::amo("contacts.list").nth(2), Kind::NoContent);
    world.sandbox.faults().add(nothing);
    launch(&mut world, 1.0).await;
    world
        .until_asked("contacts.list", next, |it| it.status.is_some())
        .await;
    let searched = world.asked("contacts.search");
    let insert = |n: usize| world.insert(&json!({"email": format!("old{n}@example.kz")}));
    let sought: Vec<(RowId, DealId)> = (old.len() - 25..old.len())
        .map(|n| (insert(n), world.deal(old[n], world.setting.before[0])))
        .collect();
    arrive(&world, &rows(&sought)).await;
    until_each_has_its_deal(&world, &sought).await;
    assert!(world.asked("contacts.search") >= searched + 25);
    assert_eq!(changes(&world), 0, "it is not complete");
}

#[tokio::test]
async fn the_index_of_another_account_is_not_used() {
    let mut world = World::prepare(together());
    launch(&mut world, 1.0).await;
    fill(&world).await;
    world.stop().await;
    let read = pages(&world);
    world.sandbox.amo.world(|amo| amo.account_id += 1);
    launch(&mut world, 1.0).await;
    let students = students(&world, "student", 30);
    arrive(&world, &rows(&students)).await;
    until_each_has_its_deal(&world, &students).await;
    world
        .until_asked("contacts.list", read + 1, |it| {
            is_page(it) && it.status.is_some()
        })
        .await;
}

/// As after an update or a downgrade.
#[tokio::test]
async fn an_index_that_another_version_has_stored_is_filled_anew() {
    let mut world = World::prepare(together());
    launch(&mut world, 1.0).await;
    fill(&world).await;
    let read = pages(&world);
    let guest = world.guest().await;
    guest
        .set_state("contact_index", &json!({"version": 2}))
        .await
        .unwrap();
    guest.close().await;
    world.stop().await;
    launch(&mut world, 1.0).await;
    fill(&world).await;
    assert!(pages(&world) > read);
}

#[tokio::test]
async fn an_account_with_an_unreadable_contact_has_no_index_and_every_row_is_searched_for() {
    let mut world = World::prepare(together());
    let spoilt = Kind::Spoilt {
        item: Item::At(0),
        how: Spoilt::AllButTheId,
    };
    let list = Fault::always(Point::amo("contacts.list"), spoilt);
    world.sandbox.faults().add(list);
    launch(&mut world, 1.0).await;
    for round in ["first", "second", "third"] {
        let students = students(&world, round, 25);
        arrive(&world, &rows(&students)).await;
        until_each_has_its_deal(&world, &students).await;
        // A restart does not forget it.
        if round == "second" {
            world.stop().await;
            launch(&mut world, 1.0).await;
        }
    }
    assert_eq!(world.asked("contacts.search"), 75);
    let lists = world.requests_to("contacts.list").into_iter();
    let begun = lists.filter(|it| it.param("page") == Some("1"));
    assert_eq!(
        begun.count(),
        1,
        "it is not tried again before a day is over"
    );
}

/// Nothing after a page that names a next one is not the end of the account.
#[tokio::test]
async fn a_server_that_tires_of_long_lists_leaves_the_account_without_an_index() {
    let mut world = World::prepare(together());
    world.setting.add_crowd(&world.sandbox.amo, 1, 600);
    let second_page = Point::amo("contacts.list").nth(2);
    let nothing = Fault::once(second_page, Kind::NoContent);
    world.sandbox.faults().add(nothing);
    launch(&mut world, 1.0).await;
    for round in ["first", "second"] {
        let students = students(&world, round, 25);
        arrive(&world, &rows(&students)).await;
        until_each_has_its_deal(&world, &students).await;
    }
    assert_eq!(world.asked("contacts.search"), 50);
    assert_eq!(changes(&world), 0, "it is not complete");
}

#[tokio::test]
async fn without_the_index_every_row_is_searched_for_and_what_is_left_of_it_is_removed() {
    let mut world = World::prepare(together());
    launch(&mut world, 1.0).await;
    fill(&world).await;
    world.stop().await;
    let (read, searched) = (world.asked("contacts.list"), world.asked("contacts.search"));
    world.wishes.contact_scan = false;
    launch(&mut world, 0.1).await;
    let others = students(&world, "student", 40);
    arrive(&world, &rows(&others)).await;
    until_each_has_its_deal(&world, &others).await;
    assert_eq!(world.asked("contacts.list"), read);
    assert_eq!(world.asked("contacts.search"), searched + 40);

    world.stop().await;
    world.wishes.contact_scan = true;
    launch(&mut world, 0.1).await;
    let others = students(&world, "other", 40);
    arrive(&world, &rows(&others)).await;
    until_each_has_its_deal(&world, &others).await;
    let is_filled_anew = |it: &Recorded| is_page(it) && it.param("page") == Some("1");
    world.until_asked("contacts.list", 2, is_filled_anew).await;
}

/// The index alone is no proof: phone, newest contacts and a search follow before anything is made.
#[tokio::test]
async fn a_contact_that_the_index_lacks_is_made_after_the_second_look_and_a_search() {
    const ROWS: usize = 25;
    const SCALE: f64 = 0.01;
    let mut world = World::prepare(Wishes {
        missing: Missing::Create,
        ..together()
    });
    launch(&mut world, SCALE).await;
    fill(&world).await;
    let searched = world.asked("contacts.search");
    let rows: Vec<RowId> = (0..ROWS)
        .map(|n| {
            world.insert(&json!({"email": email(n), "phone": format!("+7 701 000 00 {n:02}")}))
        })
        .collect();
    let began = Instant::now();
    arrive(&world, &rows).await;
    for (n, row) in rows.iter().enumerate() {
        let deal = world.until_synced_once(*row).await;
        assert_eq!(world.deals_of(&email(n)), [deal]);
    }
    let made = world.requests_to("leads.complex")[0].at;
    assert!(made - began >= Timings::scaled(SCALE).second_look_after_index);
    // By e-mail, by phone, by the beginning, and by e-mail once more before the create.
    assert_eq!(world.asked("contacts.search"), searched + 4 * ROWS);
}

/// Of rows without a contact the index also knows that no contact without an e-mail has their phone.
#[tokio::test]
async fn a_missing_contact_costs_one_search_of_its_own_and_one_more_if_its_phone_is_known() {
    const SCALE: f64 = 0.01;
    const ROWS: usize = 25;
    let phone = |n: usize| format!("+7 701 000 00 {n:02}");
    let mut world = World::prepare(together());
    let amo = &world.sandbox.amo;
    let contact = amo.world(|amo| amo.add_contact(NAME, &[], &[&phone(7)]));
    let deal = world.deal(contact, world.setting.before[0]);
    launch(&mut world, SCALE).await;
    fill(&world).await;
    let searched = world.asked("contacts.search");
    let rows: Vec<RowId> = (0..ROWS)
        .map(|n| world.insert(&json!({"email": email(n), "phone": phone(n)})))
        .collect();
    arrive(&world, &rows).await;
    for row in &rows {
        world.until_state(*row, State::Waiting).await;
    }
    assert_eq!(
        world.asked("contacts.search"),
        searched,
        "at first the index alone"
    );
    assert_eq!(world.until_synced_once(rows[7]).await, deal);
    let is_decided = |it: &Recorded| it.status.is_some();
    world
        .until_asked("contacts.search", searched + ROWS + 1, is_decided)
        .await;
}

/// While thousands of a backfill are searched for and the index is filled for them.
#[tokio::test]
async fn a_live_row_does_not_wait_for_the_filling() {
    const ROWS: usize = 300;
    let mut world = World::prepare(Wishes {
        amo: AmoQuirks {
            latency: Duration::from_millis(50),
            ..AmoQuirks::patient()
        },
        ..at_the_real_rate()
    });
    let (amo, postgrest) = (&world.sandbox.amo, &world.sandbox.postgrest);
    let cases = vec![Case::OpenBeforeTarget; ROWS];
    let scenario = Scenario::of_cases(3, cases, amo, postgrest, &world.setting);
    world.setting.add_crowd(amo, 1, 9_000);
    launch(&mut world, 1.0).await;
    backfill(&world, rows_of(&scenario).into_iter()).await;
    world.until_asked("contacts.list", 3, |_| true).await;

    let live = students(&world, "live", 3);
    for (row, deal) in &live {
        let began = Instant::now();
        arrive(&world, &[*row]).await;
        assert_eq!(world.until_synced_once(*row).await, *deal);
        let moves = world.requests_to("leads.update");
        let is_its = |it: &&Recorded| it.items().iter().any(|item| item["id"] == deal.get());
        let took = moves.iter().find(is_its).unwrap().at - began;
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    assert!(scenario.remaining() > ROWS / 2, "the filling is not over");
}
