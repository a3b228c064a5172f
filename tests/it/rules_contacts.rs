//! Which contact: exact e-mail, phone, waiting for somebody to make one, making one.

use std::time::Duration;

use sandbox::{AmoQuirks, ContactId, Fault, Kind, Point, scenario::Missing};
use serde_json::json;
use tripwire_sync::{
    domain::RowId,
    inbox::{Outcome, State},
};

use crate::support::{EMAIL, NAME, Wishes, World, has_missed_twice};

const PHONE: &str = "+7 (701) 234-56-78";
const SAME_PHONE: &str = "8 701 234 56 78";

/// Scaled by a hundred: the minute between two looks.
const SECOND_LOOK: Duration = Duration::from_millis(600);

fn creating() -> Wishes {
    Wishes {
        missing: Missing::Create,
        ..Wishes::brisk()
    }
}

/// The search learns of nobody new while the test lasts.
fn with_index_lag(wishes: Wishes) -> Wishes {
    Wishes {
        amo: AmoQuirks {
            index_lag: Duration::from_mins(10),
            ..AmoQuirks::patient()
        },
        ..wishes
    }
}

/// A manager makes a contact this moment.
fn manager_creates(world: &World, email: &str) -> ContactId {
    world
        .sandbox
        .amo
        .world(|world| world.create_contact(NAME, &[email], &[]))
}

fn with_phone(world: &World, emails: &[&str], phone: &str) -> ContactId {
    world
        .sandbox
        .amo
        .world(|world| world.add_contact(NAME, emails, &[phone]))
}

#[tokio::test]
async fn the_exact_email_is_found_among_lookalikes_however_it_is_written() {
    let world = World::start(Wishes::brisk()).await;
    let lookalikes = [
        "maigerim@example.kz",
        "aigerim@example.kz.org",
        "aigerim@example.kzz",
    ];
    let others: Vec<_> = lookalikes.map(|email| world.student(email)).into();
    let right = world.student("  AigeRim@Example.KZ ");
    let row = world.insert(&json!({"email": " AIGERIM@example.kz\n"}));
    world.deliver(row).await;

    assert_eq!(world.until_synced_once(row).await, right);
    for deal in others {
        assert_eq!(world.stage(deal), world.setting.before[0]);
    }
}

#[tokio::test]
async fn the_deals_of_all_contacts_with_the_email_count() {
    let world = World::start(Wishes::brisk()).await;
    let (first, second) = (world.contact(EMAIL), world.contact(EMAIL));
    let pipeline = world.setting.other_pipeline;
    let stage = world.setting.other_stage;
    world
        .sandbox
        .amo
        .world(|world| world.add_deal(&[first], pipeline, stage, "Курс"));
    let deal = world.deal(second, world.setting.before[1]);
    let row = world.insert(&json!({}));
    world.deliver(row).await;

    assert_eq!(world.until_synced_once(row).await, deal);
    assert_eq!(
        world.column(row, "amocrm_contact_id"),
        Some(second.to_string()),
        "the contact of the deal"
    );
}

#[tokio::test]
async fn rows_whose_contacts_appear_are_synced_by_one_look_for_all() {
    const ROWS: usize = 12;
    let world = World::start(with_index_lag(Wishes::brisk())).await;
    let mut rows = Vec::new();
    for n in 0..ROWS {
        let row = world.insert(&json!({"email": format!("student{n}@example.kz")}));
        world.deliver(row).await;
        rows.push(row);
    }
    for row in &rows {
        world.until(*row, "missed twice", has_missed_twice).await;
    }

    let before = world.sandbox.amo.requests().len();
    for n in 0..ROWS {
        manager_creates(&world, &format!("student{n}@example.kz"));
    }
    for row in &rows {
        world.until_synced_once(*row).await;
    }
    let requests = world.sandbox.amo.requests().len() - before;
    // One search each in the attempt that finds them; everything else is for all together.
    assert!(requests <= ROWS + 20, "{requests} requests");
}

#[tokio::test]
async fn a_contact_without_email_is_taken_by_phone_after_the_second_miss() {
    let world = World::start(Wishes::brisk()).await;
    let contact = with_phone(&world, &[], SAME_PHONE);
    let deal = world.deal(contact, world.setting.before[0]);
    let row = world.insert(&json!({"phone": PHONE}));
    world.deliver(row).await;
    let entry = world.until_state(row, State::Waiting).await;
    assert!(entry.progress.missed_since.is_some());

    assert_eq!(world.until_synced_once(row).await, deal);
    let searches = world.requests_to("contacts.search");
    let by_phone = searches
        .iter()
        .find(|it| it.param("query") == Some("7012345678"))
        .unwrap();
    assert!(by_phone.at - searches[0].at >= SECOND_LOOK);
}

/// What a search shows of a contact is confirmed in the main store before a deal is made for it.
#[tokio::test]
async fn a_deal_that_the_search_does_not_show_yet_is_not_made_again() {
    let world = World::start(Wishes::brisk()).await;
    let contact = with_phone(&world, &[], SAME_PHONE);
    let deal = world.deal(contact, world.setting.before[0]);
    let stale = Fault::always(Point::amo("contacts.search"), Kind::WithoutDeals);
    world.sandbox.faults().add(stale);
    let row = world.insert(&json!({"phone": PHONE}));
    world.deliver(row).await;

    assert_eq!(world.until_synced_once(row).await, deal);
    assert_eq!(world.asked("leads.create"), 0);
}

#[tokio::test]
async fn a_contact_once_found_by_phone_is_the_persons_though_it_has_no_email() {
    let world = World::start(creating()).await;
    let contact = with_phone(&world, &[], SAME_PHONE);
    let deal = world.deal(contact, world.setting.before[0]);
    let first = world.insert(&json!({"phone": PHONE}));
    world.deliver(first).await;
    assert_eq!(world.until_synced_once(first).await, deal);

    // Without the record nothing would lead from the e-mail to the contact, and another would be made.
    let second = world.insert(&json!({"phone": null}));
    world.deliver(second).await;
    world.until_state(second, State::Done).await;

    assert_eq!(
        world.column(second, "amocrm_deal_id"),
        Some(deal.to_string())
    );
    assert_eq!(world.asked("leads.complex"), 0);
}

#[tokio::test]
async fn a_phone_is_not_enough_when_two_have_it_or_its_owner_has_another_email() {
    let world = World::start(Wishes::brisk()).await;
    let twins = [
        with_phone(&world, &[], SAME_PHONE),
        with_phone(&world, &[], PHONE),
    ];
    let other = with_phone(&world, &["another@example.kz"], "+7 702 000 00 01");
    let unsound = with_phone(&world, &["no e-mail"], "+7 702 000 00 02");
    let deals: Vec<_> = twins
        .into_iter()
        .chain([other, unsound])
        .map(|contact| world.deal(contact, world.setting.before[0]))
        .collect();
    let people = [
        ("one@example.kz", PHONE),
        ("two@example.kz", "87020000001"),
        ("three@example.kz", "87020000002"),
    ];
    for (email, phone) in people {
        let row = world.insert(&json!({"email": email, "phone": phone}));
        world.deliver(row).await;
        world.until(row, "missed twice", has_missed_twice).await;
    }

    assert_eq!(
        world.asked("contacts.search"),
        9,
        "twice by e-mail, once by phone"
    );
    assert_eq!(world.amo_writes().len(), 0);
    for deal in deals {
        assert_eq!(world.stage(deal), world.setting.before[0]);
    }
}

#[tokio::test]
async fn a_missing_contact_without_phone_is_made_at_once_together_with_its_deal() {
    let world = World::start(creating()).await;
    let row = world.insert(&json!({"email": "New@Example.kz", "price": 7000}));
    world.deliver(row).await;

    let deal = world.until_synced_once(row).await;
    assert_eq!(world.asked("leads.complex"), 1);
    assert_eq!(world.asked("leads.create"), 0);
    let contact = world.sandbox.amo.world(|world| {
        let made = world.deal(deal).unwrap().clone();
        assert_eq!(
            (made.name.as_str(), made.price),
            ("Tripwire - Айгерим Омарова", 7000)
        );
        let contact = world.contact(made.contacts[0]).unwrap();
        assert_eq!(contact.name, NAME);
        assert_eq!(contact.emails(), ["new@example.kz"]);
        contact.id
    });
    assert_eq!(
        world.column(row, "amocrm_contact_id"),
        Some(contact.to_string())
    );
    let requests = world.sandbox.requests();
    let (first, last) = (requests.first().unwrap(), requests.last().unwrap());
    assert!(last.at - first.at < SECOND_LOOK, "at once");
}

#[tokio::test]
async fn a_deal_gets_the_rounded_price_and_the_note_what_the_row_says() {
    let world = World::start(Wishes {
        note: "{full_name}: {price} 🎉",
        ..creating()
    })
    .await;
    for (n, (price, said, rounded)) in [
        (json!("145.90"), "145.90", 146),
        (json!(0.4), "0.4", 0),
        (json!("4990,50"), "4990,50", 4991),
        (json!(7000), "7000", 7000),
    ]
    .into_iter()
    .enumerate()
    {
        let row = world.insert(&json!({
            "email": format!("s{n}@example.kz"), "price": price, "full_name": "Анна\n🦊 Ли",
        }));
        world.deliver(row).await;
        let deal = world.until_synced_once(row).await;
        let note = format!("Анна\n Ли: {said}\n[{}]", row.reference());
        assert_eq!(world.notes(deal), [note]);
        world.sandbox.amo.world(|world| {
            let deal = world.deal(deal).unwrap();
            assert_eq!(
                (deal.name.as_str(), deal.price),
                ("Tripwire - Анна Ли", rounded)
            );
            assert_eq!(world.contact(deal.contacts[0]).unwrap().name, "Анна Ли");
        });
    }
}

#[tokio::test]
async fn a_missing_contact_with_a_phone_is_made_after_the_second_miss() {
    let world = World::start(creating()).await;
    let row = world.insert(&json!({"phone": PHONE}));
    world.deliver(row).await;

    let deal = world.until_synced_once(row).await;
    let searched = world.requests_to("contacts.search")[0].at;
    let made = world.requests_to("leads.complex");
    assert_eq!(made.len(), 1);
    assert!(made[0].at - searched >= SECOND_LOOK);
    world.sandbox.amo.world(|world| {
        let contact = world.deal(deal).unwrap().contacts[0];
        assert_eq!(world.contact(contact).unwrap().phones(), [PHONE]);
    });
}

#[tokio::test]
async fn a_contact_that_the_search_does_not_know_yet_is_not_made_again() {
    let world = World::start(with_index_lag(creating())).await;
    let contact = manager_creates(&world, EMAIL);
    let row = world.insert(&json!({}));
    world.deliver(row).await;

    let deal = world.until_synced_once(row).await;
    assert_eq!(world.asked("leads.complex"), 0);
    assert_eq!(world.deals_of(EMAIL), [deal]);
    assert_eq!(
        world.column(row, "amocrm_contact_id"),
        Some(contact.to_string())
    );
}

/// Each confirming search takes a moment; together they must not take longer than what they confirm stays fresh.
#[tokio::test]
async fn many_missing_contacts_are_made_although_amocrm_is_slow() {
    let mut wishes = creating();
    wishes.amo.latency = Duration::from_millis(80);
    wishes.sweep_every = Some(Duration::from_hours(9));
    let mut world = World::prepare(wishes);
    let rows: Vec<RowId> = (0..30)
        .map(|n| world.insert(&json!({"email": format!("student{n}@example.kz")})))
        .collect();
    world.launch().await;
    for row in &rows {
        world.until_synced_once(*row).await;
    }
    assert_eq!(
        world.asked("leads.complex"),
        1,
        "all together, and only once"
    );
}

#[tokio::test]
async fn a_search_cut_off_by_its_page_cap_is_parked_and_not_taken_for_a_miss() {
    let world = World::start(creating()).await;
    world.sandbox.amo.world(|world| {
        for n in 0..1_001 {
            world.add_contact("Двойник", &[&format!("x{n}.{EMAIL}")], &[]);
        }
    });
    let row = world.insert(&json!({}));
    world.deliver(row).await;

    let entry = world.until_state(row, State::Parked).await;
    let reason = entry.reason.unwrap();
    assert!(reason.contains("поиск не закончен"), "{reason}");
    assert_eq!(world.amo_writes().len(), 0);
}

#[tokio::test]
async fn a_changed_email_is_looked_for_anew_while_waiting() {
    let world = World::start(Wishes::brisk()).await;
    world.student(EMAIL);
    let row = world.insert(&json!({"email": "typo@example.kz"}));
    world.deliver(row).await;
    world.until_state(row, State::Waiting).await;
    world.sandbox.postgrest.update_row(row, |row| {
        row.insert("email".into(), EMAIL.into());
    });

    world.until_done(row, Outcome::Synced).await;
}

#[tokio::test]
async fn a_contact_is_found_whatever_stands_around_its_address() {
    let world = World::start(creating()).await;
    let written = [
        "mailto:s0@example.kz",
        "s1@example.kz,",
        "Анна Ли <s2@example.kz>",
        "other@example.org; s3@example.kz",
        "s4@example.kz/other@example.org",
        "other@example.org\ns5@example.kz",
        "\u{feff}s6@example.kz\u{200b}",
    ];
    for (n, written) in written.iter().enumerate() {
        let deal = world.student(written);
        let row = world.insert(&json!({"email": format!("s{n}@example.kz")}));
        world.deliver(row).await;
        assert_eq!(world.until_synced_once(row).await, deal, "{written:?}");
    }
    assert_eq!(world.asked("contacts.search"), written.len());
}

#[tokio::test]
async fn an_address_with_an_invisible_character_inside_is_found_by_its_beginning() {
    let world = World::start(creating()).await;
    for (written, visible, beginning) in [
        ("aigerim@exam\u{ad}ple.kz", "aigerim@example.kz", "aigerim"),
        (
            "boris.li@\u{200b}example.kz",
            "boris.li@example.kz",
            "boris.li",
        ),
        ("cy@examp\u{2060}le.kz", "cy@example.kz", "cy@exa"),
    ] {
        let deal = world.student(written);
        let row = world.insert(&json!({"email": visible}));
        world.deliver(row).await;
        assert_eq!(world.until_synced_once(row).await, deal, "{written:?}");
        let searches = world.requests_to("contacts.search");
        assert_eq!(searches.last().unwrap().param("query"), Some(beginning));
    }
    // At the first look, and not in the lists of new and changed contacts.
    assert_eq!(world.asked("contacts.list"), 0);
}

#[tokio::test]
async fn an_address_that_is_a_part_of_anothers_is_not_the_others() {
    let world = World::start(creating()).await;
    world.student("no-s@example.kz; xs@example.kz");
    world.student("s@example.kz.org, s.s@example.kz");
    let row = world.insert(&json!({"email": "s@example.kz"}));
    world.deliver(row).await;

    world.until_synced_once(row).await;
    assert_eq!(world.asked("leads.complex"), 1);
}

#[tokio::test]
async fn a_rows_address_is_searched_for_and_written_as_cleaned() {
    let world = World::start(creating()).await;
    let written = [
        "mailto:S0@Example.KZ",
        "s1@example.kz,",
        "Анна Ли <s2@example.kz>",
        "s3@exam\u{ad}ple.kz\u{200b}",
        "s4@example.kz, S4@example.kz",
    ];
    for (n, written) in written.iter().enumerate() {
        let row = world.insert(&json!({"email": written}));
        world.deliver(row).await;
        let deal = world.until_synced_once(row).await;
        let clean = format!("s{n}@example.kz");
        world.sandbox.amo.world(|world| {
            let contact = world.deal(deal).unwrap().contacts[0];
            assert_eq!(world.contact(contact).unwrap().emails(), [clean.as_str()]);
        });
        let searches = world.requests_to("contacts.search");
        assert!(searches.iter().any(|it| it.param("query") == Some(&clean)));
    }
}

#[tokio::test]
async fn the_two_spellings_of_a_domain_are_one_person() {
    let world = World::start(creating()).await;
    for (in_amocrm, in_row) in [
        ("анна@школа.рф", "анна@xn--80atdl2c.xn--p1ai"),
        ("boris@xn--80atdl2c.xn--p1ai", "boris@Школа.РФ"),
        ("cy@bücher.example", "cy@xn--bcher-kva.example"),
    ] {
        let deal = world.student(in_amocrm);
        let row = world.insert(&json!({"email": in_row}));
        world.deliver(row).await;
        assert_eq!(world.until_synced_once(row).await, deal, "{in_row}");
    }
}
