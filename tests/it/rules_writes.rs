//! What is sent, and that it happens once: whatever becomes of the answer.

use std::time::Duration;

use jiff::Timestamp;
use sandbox::{DealId, Fault, Kind, Page, Point, When, scenario::Missing};
use serde_json::{Value, json};
use tripwire_sync::{
    domain::RowId,
    inbox::{Fact, Outcome, State, Step},
};

use crate::support::{EMAIL, NAME, PATIENCE, Wishes, World, sending};

/// Every request is on its way long enough for somebody to come in between.
const IN_BETWEEN: Duration = Duration::from_millis(150);

/// All rows are there before the service, so that one run takes them together.
fn together() -> Wishes {
    Wishes {
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    }
}

fn email(n: usize) -> String {
    format!("student{n}@example.kz")
}

fn fault(world: &World, route: &str, kind: Kind) {
    let fault = Fault::once(Point::amo(route), kind);
    world.sandbox.faults().add(fault);
}

#[tokio::test]
async fn a_moved_deal_gets_the_stage_and_the_note_and_nothing_else() {
    let world = World::start(Wishes::brisk()).await;
    let deal = world.student(EMAIL);
    let row = world.insert(&json!({"price": 9000, "generated_password": "s3cret"}));
    world.deliver(row).await;
    assert_eq!(world.until_synced_once(row).await, deal);

    let text = format!(
        "✅ Доступ к Tripwire предоставлен: {NAME}\nЛогин: {EMAIL}\n[{}]",
        row.reference()
    );
    assert_eq!(world.notes(deal), [text]);
    let writes: Vec<Value> = world.amo_writes().into_iter().map(|it| it.body).collect();
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert_eq!(
        writes[0],
        json!([{
            "id": deal,
            "pipeline_id": world.setting.pipeline,
            "status_id": world.setting.target,
        }])
    );
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
    assert_eq!(
        world.sandbox.postgrest.protocol_errors(),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn three_deliveries_make_one_note() {
    let world = World::start(Wishes::brisk()).await;
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.deliver(row).await;
    world.until_synced_once(row).await;
    let before = world.sandbox.requests().len();
    assert_eq!(world.deliver(row).await, 202);
    world.until_drained().await;

    world.until_synced_once(row).await;
    assert_eq!(
        world.sandbox.requests().len(),
        before,
        "a webhook re-opens nothing"
    );
}

#[tokio::test]
async fn a_lost_inbox_repeats_no_note() {
    for makes_deal in [false, true] {
        let mut world = World::start(Wishes::brisk()).await;
        if makes_deal {
            world.contact(EMAIL);
        } else {
            world.student(EMAIL);
        }
        let row = world.insert(&json!({}));
        world.deliver(row).await;
        let deal = world.until_synced_once(row).await;

        world.stop().await;
        for file in std::fs::read_dir(world.inbox_path().parent().unwrap()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        world.sandbox.postgrest.update_row(row, |row| {
            row.insert("amocrm_deal_id".into(), Value::Null);
        });
        world.launch().await;
        world.deliver(row).await;

        assert_eq!(world.until_synced_once(row).await, deal);
        assert_eq!(world.deals_of(EMAIL), [deal]);
    }
}

// ---- the answer is lost ----

/// Whatever happens to the answer of a write that was carried out, now or a little later: it is found, not repeated.
fn lost_answers() -> Vec<Kind> {
    vec![
        Kind::Reset(When::After),
        Kind::status(When::After, 504),
        Kind::LateCommit {
            delay: Duration::from_secs(25),
        },
        Kind::MalformedJson,
        Kind::HtmlOk,
        Kind::NoContent,
        Kind::ShortAnswer,
    ]
}

/// Answers how many requests each of the rows took.
async fn a_lost_answer(route: &str, kind: Kind, missing: Missing, has_deal: bool) {
    let world = World::start(Wishes {
        missing,
        ..Wishes::brisk()
    })
    .await;
    if has_deal {
        world.student(EMAIL);
    } else if missing == Missing::Wait {
        world.contact(EMAIL);
    }
    fault(&world, route, kind.clone());
    let row = world.insert(&json!({}));
    world.deliver(row).await;

    let deal = world.until_synced_once(row).await;
    assert_eq!(world.sandbox.faults().unmet(), [], "{route} {kind:?}");
    assert_eq!(world.deals_of(EMAIL), [deal], "{route} {kind:?}");
    let contacts = world
        .sandbox
        .amo
        .world(|world| world.contacts_with_email(EMAIL).count());
    assert_eq!(contacts, 1, "{route} {kind:?}");
    assert_eq!(world.sandbox.amo.late_commits(), 0, "{route} {kind:?}");
    let sent = world.asked(route);
    assert_eq!(sent, 1, "{route} {kind:?}: found, not sent again");
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_is_found_and_not_repeated() {
    for kind in lost_answers() {
        a_lost_answer("leads.create", kind, Missing::Wait, false).await;
    }
}

#[tokio::test]
async fn a_create_with_contact_whose_answer_is_lost_is_found_and_not_repeated() {
    for kind in lost_answers() {
        a_lost_answer("leads.complex", kind, Missing::Create, false).await;
    }
}

#[tokio::test]
async fn a_note_whose_answer_is_lost_is_found_and_not_repeated() {
    for kind in lost_answers() {
        a_lost_answer("notes.create", kind, Missing::Wait, true).await;
    }
}

/// What is not promised: amoCRM carries the create out long after its gateway gave up. The doubled deal is told.
#[tokio::test]
async fn a_create_that_lands_after_it_was_given_up_is_told_ten_minutes_later() {
    let routes = [
        ("leads.create", Missing::Wait),
        ("leads.complex", Missing::Create),
    ];
    for (route, missing) in routes {
        let mut world = World::prepare(Wishes {
            missing,
            ..Wishes::brisk()
        });
        if missing == Missing::Wait {
            world.contact(EMAIL);
        }
        let very_late = Kind::LateCommit {
            delay: Duration::from_mins(4),
        };
        fault(&world, route, very_late);
        world.launch().await;
        let row = world.insert(&json!({}));
        world.deliver(row).await;
        let entry = world.until_state(row, State::Done).await;
        let deal = entry.progress.step.choice().unwrap().deal;

        // The process that has given the create up may be gone by then.
        world.stop().await;
        world.launch().await;
        let doubled = async || {
            let inbox = world.inbox();
            inbox.doubled_after(Timestamp::MIN, 9).await.unwrap()
        };
        let look = async {
            let mut told = doubled().await;
            while told.is_empty() {
                tokio::task::yield_now().await;
                told = doubled().await;
            }
            told
        };
        let told = tokio::time::timeout(PATIENCE, look).await.unwrap();

        let [told] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!((told.row, told.deal), (row, deal), "{route}");
        let all = world.sandbox.amo.world(|account| {
            let deals = account.deals().map(|deal| deal.id.get());
            deals.collect::<Vec<_>>()
        });
        let late: Vec<i64> = told.late.iter().map(|it| it.get()).collect();
        assert!(
            late.len() == 1 && all.len() == 2 && all.contains(&late[0]),
            "{route}: {all:?}"
        );
        let history = world.inbox().history(row).await.unwrap();
        let facts = history.iter().flat_map(|line| &line.facts);
        let lines = facts
            .filter(|fact| matches!(fact, Fact::LateDeal(_)))
            .count();
        assert_eq!(lines, 1, "{route}: {history:?}");

        // Looked for once.
        let next = world
            .inbox()
            .next_late_look(Timestamp::MAX, Duration::ZERO)
            .await;
        assert_eq!(next.unwrap(), None, "{route}");
    }
}

#[tokio::test]
async fn a_move_whose_answer_is_lost_is_found_and_not_repeated() {
    let kinds = lost_answers().into_iter();
    // A move carries no intent: one that commits late is sent again, to the same stage.
    for kind in kinds.filter(|kind| !matches!(kind, Kind::LateCommit { .. })) {
        a_lost_answer("leads.update", kind, Missing::Wait, true).await;
    }
}

#[tokio::test]
async fn a_write_that_never_happened_is_repeated_once_no_copy_can_land_any_more() {
    let routes = [
        ("leads.create", Missing::Wait, false),
        ("leads.complex", Missing::Create, false),
        ("notes.create", Missing::Wait, true),
    ];
    for (route, missing, has_deal) in routes {
        let world = World::start(Wishes {
            missing,
            ..Wishes::brisk()
        })
        .await;
        if has_deal {
            world.student(EMAIL);
        } else if missing == Missing::Wait {
            world.contact(EMAIL);
        }
        fault(&world, route, Kind::Reset(When::Before));
        let row = world.insert(&json!({}));
        world.deliver(row).await;

        let deal = world.until_synced_once(row).await;
        assert_eq!(world.deals_of(EMAIL), [deal], "{route}");
        let sent = world.requests_to(route);
        assert_eq!(sent.len(), 2, "{route}");
        let pause = sent[1].at - sent[0].at;
        let decisive = world.settings().timings.resolve_delay();
        // The intent was stored a moment before the first was sent.
        let slack = Duration::from_millis(200);
        assert!(pause + slack >= decisive, "{route}: again after {pause:?}");
    }
}

#[tokio::test]
async fn a_429_closes_the_intent_and_nothing_is_doubled() {
    let routes = [
        ("leads.create", Missing::Wait),
        ("leads.complex", Missing::Create),
        ("notes.create", Missing::Wait),
    ];
    for (route, missing) in routes {
        let world = World::start(Wishes {
            missing,
            ..Wishes::brisk()
        })
        .await;
        if missing == Missing::Wait {
            world.contact(EMAIL);
        }
        fault(&world, route, Kind::status(When::Before, 429));
        let row = world.insert(&json!({}));
        world.deliver(row).await;
        let entry = world
            .until(row, "refused", |entry| entry.attempts == 1)
            .await;
        assert_eq!(entry.progress.step.resolve_after(), None, "{route}");

        let deal = world.until_synced_once(row).await;
        assert_eq!(world.deals_of(EMAIL), [deal], "{route}");
        assert_eq!(world.asked(route), 2, "{route}");
    }
}

#[tokio::test]
async fn an_amocrm_that_cannot_be_reached_is_tried_again() {
    let mut world = World::prepare(Wishes::brisk());
    world.student(EMAIL);
    let mut settings = world.settings();
    // Bound and let go: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    sending(&mut settings).amocrm.base_url = format!("http://{address}").parse().unwrap();
    let clock = std::sync::Arc::new(tripwire_sync::domain::SystemClock);
    world.launch_at(settings, clock).await;
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    let entry = world.until(row, "tried", |entry| entry.attempts >= 3).await;
    assert_eq!(entry.reason.as_deref(), Some("нет соединения с amoCRM"));

    world.stop().await;
    world.launch().await;
    world.until_synced_once(row).await;
}

// ---- bulk writes of which a part fails ----

/// Rows with a contact each; a deal too, if wished.
fn students(world: &World, count: usize, with_deal: bool) -> Vec<RowId> {
    (0..count)
        .map(|n| {
            let contact = world.contact(&email(n));
            if with_deal {
                world.deal(contact, world.setting.before[0]);
            }
            world.insert(&json!({"email": email(n)}))
        })
        .collect()
}

async fn all_synced_once(world: &World, rows: &[RowId]) {
    for (n, row) in rows.iter().enumerate() {
        let deal = world.until_synced_once(*row).await;
        assert_eq!(world.deals_of(&email(n)), [deal]);
    }
}

#[tokio::test]
async fn short_answers_to_bulk_writes_are_completed_by_looking() {
    for (route, with_deal) in [
        ("leads.update", true),
        ("leads.create", false),
        ("notes.create", true),
    ] {
        let mut world = World::prepare(together());
        let rows = students(&world, 5, with_deal);
        fault(&world, route, Kind::ShortAnswer);
        world.launch().await;

        all_synced_once(&world, &rows).await;
        assert_eq!(world.asked(route), 1, "{route}: all had been carried out");
        assert_eq!(world.requests_to(route)[0].items().len(), 5, "{route}");
    }
}

#[tokio::test]
async fn a_deal_deleted_before_a_bulk_move_is_decided_anew_and_the_others_are_moved() {
    let mut wishes = together();
    wishes.amo.latency = IN_BETWEEN;
    let mut world = World::prepare(wishes);
    let rows = students(&world, 4, true);
    let victim = world.deals_of(&email(2))[0];
    world.launch().await;
    world
        .until_asked("leads.list", 1, |it| it.status.is_some())
        .await;
    world.sandbox.amo.world(|world| world.delete_deal(victim));

    all_synced_once(&world, &rows).await;
    assert_eq!(world.requests_to("leads.update")[0].status, Some(400));
}

#[tokio::test]
async fn a_deal_deleted_between_move_and_note_is_parked_and_the_others_are_noted_once() {
    let mut wishes = together();
    wishes.amo.latency = IN_BETWEEN;
    let mut world = World::prepare(wishes);
    let rows = students(&world, 4, true);
    let victim = world.deals_of(&email(2))[0];
    world.launch().await;
    world
        .until_asked("leads.update", 1, |it| it.status.is_some())
        .await;
    world.sandbox.amo.world(|world| world.delete_deal(victim));

    let entry = world.until_state(rows[2], State::Parked).await;
    assert_parked_without_personal_data(&entry.reason.unwrap());
    for n in [0, 1, 3] {
        world.until_synced_once(rows[n]).await;
    }
    assert_eq!(world.notes(victim), Vec::<String>::new());
}

fn assert_parked_without_personal_data(reason: &str) {
    let lower = reason.to_lowercase();
    for personal in ["student", "example", "айгерим", "омарова"] {
        assert!(!lower.contains(personal), "{reason}");
    }
}

#[tokio::test]
async fn a_bulk_create_with_one_bad_item_makes_the_good_ones_once() {
    for good_are_saved in [false, true] {
        let mut wishes = together();
        wishes.amo.latency = IN_BETWEEN;
        wishes.amo.rejected_bulk_saves_others = good_are_saved;
        let mut world = World::prepare(wishes);
        let rows = students(&world, 4, false);
        world.launch().await;
        // The confirming look; then the contact goes.
        world
            .until_asked("contacts.list", 1, |it| it.status.is_some())
            .await;
        world.sandbox.amo.world(|world| {
            let victim = world.contacts_with_email(&email(2)).next().unwrap().id;
            world.delete_contact(victim)
        });

        let entry = world.until_state(rows[2], State::Waiting).await;
        assert!(entry.progress.alone, "it spoilt a batch");
        for n in [0, 1, 3] {
            let deal = world.until_synced_once(rows[n]).await;
            assert_eq!(world.deals_of(&email(n)), [deal], "saved: {good_are_saved}");
        }
        assert_eq!(world.requests_to("leads.create")[0].status, Some(400));
    }
}

/// The contact was deleted between the look and the write: looked at anew, the row waits for another.
#[tokio::test]
async fn a_create_for_a_contact_that_vanished_decides_anew() {
    let mut wishes = Wishes::brisk();
    wishes.amo.latency = IN_BETWEEN;
    let world = World::start(wishes).await;
    let contact = world.contact(EMAIL);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world
        .until_asked("contacts.list", 1, |it| it.status.is_some())
        .await;
    world
        .sandbox
        .amo
        .world(|world| world.delete_contact(contact));

    let entry = world.until_state(row, State::Waiting).await;
    assert_eq!(entry.progress.step.resolve_after(), None);
    assert_eq!(entry.progress.step, Step::Begun);
    assert_eq!(world.asked("leads.create"), 1);
}

#[tokio::test]
async fn of_a_bulk_refused_as_a_whole_only_what_is_refused_alone_is_parked() {
    let mut world = World::prepare(together());
    let rows = students(&world, 5, false);
    let name = "Айгерим Без Сделки";
    world.sandbox.postgrest.update_row(rows[1], |row| {
        row.insert("full_name".into(), name.into());
    });
    let refused = Kind::Status {
        when: When::Before,
        code: 400,
        page: Page::Code("NotSupportedChoice"),
        retry_after: None,
    };
    let creates = Point::amo("leads.create").about(name);
    world.sandbox.faults().add(Fault::always(creates, refused));
    world.launch().await;
    for (n, row) in rows.iter().enumerate().filter(|(n, _)| *n != 1) {
        world.until_done(*row, Outcome::Synced).await;
        assert_eq!(world.deals_of(&email(n)).len(), 1);
    }
    // If the refused row had its turn after the others, only a later student tells that it is the row's.
    let later = "later@example.kz";
    world.contact(later);
    let later = world.insert(&json!({ "email": later }));
    world.deliver(later).await;
    world.until_done(later, Outcome::Synced).await;
    let parked = world.until_state(rows[1], State::Parked).await;
    let reason = parked.reason.unwrap();
    assert!(
        reason.contains("NotSupportedChoice") && reason.contains("400"),
        "{reason}"
    );
    assert_eq!(world.deals_of(&email(1)), Vec::<DealId>::new());
    assert_parked_without_personal_data(&reason);
}

/// Two requests take longer than what was read stays fresh: it is read again, and the writes come through.
#[tokio::test]
async fn a_slow_amocrm_holds_up_no_student_for_ever() {
    let mut wishes = Wishes::brisk();
    wishes.amo.latency = Duration::from_millis(650);
    let world = World::start(wishes).await;
    let fresh_for = world.settings().timings.fresh_for;
    assert!(world.wishes.amo.latency * 2 > fresh_for);
    let (pipeline, stage) = (world.setting.other_pipeline, world.setting.other_stage);
    let contact = world.contact(EMAIL);
    world
        .sandbox
        .amo
        .world(|world| world.add_deal(&[contact], pipeline, stage, "Курс"));
    let creates = world.insert(&json!({}));
    let contact = world.contact("target@example.kz");
    world.deal(contact, world.setting.target);
    let stands = world.insert(&json!({"email": "target@example.kz"}));
    for row in [creates, stands] {
        world.deliver(row).await;
    }

    world.until_synced_once(creates).await;
    world.until_synced_once(stands).await;
    assert_eq!(world.asked("leads.create"), 1);
}
