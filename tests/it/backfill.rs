//! `backfill`: rows from before the day of going live, beside a service or without one.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use sandbox::{
    Fault, Kind, Page, Point, Server, When,
    scenario::{Case, Scenario},
};
use serde_json::{Value, json};
use tripwire_sync::{
    domain::{Halt, HaltCause, RowId},
    inbox::{Arrival, HALT, Outcome, Placed, Source, State},
};
use uuid::Uuid;

use crate::{
    program::{Ended, Launch, Program, Service, until, until_drained},
    support::{EMAIL, NowForTests, Wishes, World},
};

/// All rows are older than the day of going live, unless they have no time.
fn before_going_live() -> Wishes {
    Wishes {
        since: Timestamp::now_for_tests() + SignedDuration::from_hours(1),
        ..Wishes::default()
    }
}

fn backfill(world: &World, more: &[&str]) -> Launch {
    Launch::in_world(world, &[&["backfill"], more].concat())
}

async fn totals(world: &World, more: &[&str], code: i32) -> Value {
    let ended = backfill(world, &[&["--yes", "--json"], more].concat())
        .run()
        .await;
    ended.assert_code(code);
    json_of(&ended)
}

fn json_of(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

fn scenario(world: &World, rows: usize) -> Scenario {
    let sandbox = &world.sandbox;
    Scenario::mixed(7, rows, &sandbox.amo, &sandbox.postgrest, &world.setting)
}

/// A row of a student whose deal is yet to be moved.
fn old_row(world: &World, email: &str, created_at: &str) -> RowId {
    world.student(email);
    world.insert(&json!({ "email": email, "created_at": created_at }))
}

fn is_synced(world: &World, row: RowId) -> bool {
    world.column(row, "amocrm_deal_id").is_some()
}

fn amo_writes(world: &World) -> usize {
    world.amo_writes().len()
}

/// Once the index of contacts is filled, rows without a contact have their second look minutes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_after_the_second_look_of_rows_that_the_index_lacks() {
    /// More than are searched for one by one.
    const ROWS: usize = 21;
    const LACKING: usize = 4;
    let world = World::prepare(before_going_live());
    let run = async || {
        let backfill = backfill(&world, &["--yes", "--json"]);
        let ended = backfill
            .with("AMOCRM_MISSING_CONTACT", "create")
            .run()
            .await;
        ended.assert_code(0);
        json_of(&ended)
    };
    let created_at = "2026-02-10T00:00:00Z";
    for n in 0..ROWS {
        old_row(&world, &format!("filler{n}@example.kz"), created_at);
    }
    run().await;
    let email = |n| format!("new{n}@example.kz");
    for n in LACKING..ROWS {
        old_row(&world, &email(n), created_at);
    }
    for n in 0..LACKING {
        let phone = format!("+7 701 000 00 {n:02}");
        let columns = json!({"email": email(n), "phone": phone, "created_at": created_at});
        world.insert(&columns);
    }
    let searched = world.asked("contacts.search");
    let totals = run().await;

    assert_eq!(totals["done"], json!({"synced": ROWS}), "{totals}");
    for n in 0..ROWS {
        assert_eq!(world.deals_of(&email(n)).len(), 1, "{n}");
    }
    // By e-mail, by phone, by the beginning, and by e-mail once more before the create; the first look asked the index.
    assert_eq!(world.asked("contacts.search"), searched + 4 * LACKING);
}

// ---- which rows ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_from_before_going_live_are_synced_without_a_service() {
    let world = World::prepare(before_going_live());
    let scenario = scenario(&world, 28);

    let totals = totals(&world, &[], 0).await;

    assert_eq!(scenario.verify(), Vec::<String>::new());
    let expected = json!({
        "end": "drained", "backfill": 1, "rows": 28, "done": { "synced": 26 }, "waiting": 2, "parked": 0, "open": 0, "elsewhere": 0,
        "before": { "waiting": 0, "parked": 0 }, "seconds": totals["seconds"],
    });
    assert_eq!(totals, expected);
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_rows_of_the_period_are_touched() {
    let world = World::prepare(before_going_live());
    let row = |email, created_at: Value| {
        world.insert(&json!({ "email": email, "created_at": created_at }))
    };
    let inside = [
        row("first@example.kz", json!("2026-02-01T00:00:00Z")),
        row("last@example.kz", json!("2026-02-28T23:59:59.9Z")),
    ];
    let outside = [
        row("early@example.kz", json!("2026-01-31T23:59:59.9Z")),
        row("late@example.kz", json!("2026-03-01T00:00:00Z")),
        row("undated@example.kz", Value::Null),
        world.insert(&json!({ "created_at": "2026-02-10T00:00:00Z", "status": "blocked" })),
        world.insert(&json!({ "created_at": "2026-02-10T00:00:00Z", "amocrm_deal_id": "77" })),
    ];

    let february = ["--since", "2026-02-01", "--until", "2026-02-28"];
    let totals = totals(&world, &february, 0).await;

    assert_eq!(
        (&totals["rows"], &totals["waiting"]),
        (&json!(2), &json!(2))
    );
    let inbox = world.guest().await;
    for row in inside {
        assert!(inbox.entry(row).await.unwrap().is_some());
    }
    for row in outside {
        assert_eq!(inbox.entry(row).await.unwrap(), None);
    }
    inbox.close().await;
}

/// Neither its own sweep nor an earlier row of the list makes it more than one; the row that is parked uses up nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_row_at_most_is_one_row() {
    let world = World::prepare(Wishes {
        sweep_every: Some(Duration::from_millis(100)),
        ..Wishes::default()
    });
    let mut rows: Vec<RowId> = (0..3)
        .map(|n| {
            old_row(
                &world,
                &format!("student{n}@example.kz"),
                "2026-02-10T00:00:00Z",
            )
        })
        .collect();
    // The walk goes by id.
    rows.sort();
    let synced = || {
        rows.iter()
            .map(|row| is_synced(&world, *row))
            .collect::<Vec<_>>()
    };

    let one = totals(&world, &["--limit", "1"], 0).await;
    assert_eq!(
        (&one["rows"], &one["done"]),
        (&json!(1), &json!({ "synced": 1 }))
    );
    assert_eq!(synced(), [true, false, false]);

    world.sandbox.postgrest.update_row(rows[1], |row| {
        row.insert("email".to_owned(), "no address".into());
    });
    let parked = totals(&world, &["--limit", "1"], 1).await;
    assert_eq!((&parked["rows"], &parked["parked"]), (&json!(1), &json!(1)));

    let next = totals(&world, &["--limit", "1"], 0).await;
    assert_eq!(synced(), [true, false, true]);
    assert_eq!(
        (&next["rows"], &next["before"]["parked"]),
        (&json!(1), &json!(1))
    );

    let nothing = backfill(&world, &["--yes"]).run().await;
    nothing.assert_code(0);
    assert!(nothing.out.contains("parked before"), "{nothing:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_nothing_to_do_it_says_so() {
    let world = World::prepare(before_going_live());
    let nothing = backfill(&world, &[]).run().await;
    nothing.assert_code(0);
    assert!(nothing.out.contains("nothing to do"), "{nothing:#?}");
    assert!(!world.inbox_path().exists());
}

// ---- asking ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_to_ask_it_warns_and_refuses() {
    let world = World::prepare(before_going_live());
    let row = old_row(&world, EMAIL, "2026-02-10T00:00:00Z");

    let refused = backfill(&world, &[]).run().await;

    refused.assert_code(2);
    for words in ["automations", "--yes", "rows without a deal: 1"] {
        assert!(refused.err.contains(words), "{words}: {refused:#?}");
    }
    assert!(!is_synced(&world, row) && !world.inbox_path().exists());
    assert!(world.sandbox.amo.requests().is_empty());

    let russian = backfill(&world, &[])
        .with("LANG", "ru_RU.UTF-8")
        .run()
        .await;
    assert!(russian.err.contains("автоматизации"), "{russian:#?}");
    for wrong in [
        &["--since", "yesterday"][..],
        &["--until", "31.01.2026"],
        &["--limit", "0"],
        &["--since", "2026-02-02", "--until", "2026-02-01"],
    ] {
        backfill(&world, wrong).run().await.assert_code(2);
    }
    let off = backfill(&world, &["--yes"]).with("AMOCRM_ENABLED", false);
    off.run().await.assert_code(2);
}

// ---- looking first ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_writes_nothing_and_foresees_what_the_run_then_does() {
    let world = World::prepare(before_going_live());
    let scenario = scenario(&world, Case::ALL.len());
    // The second row of a student whose deal the first one moves, and one that nobody can do anything about.
    let twins = [Case::OpenBeforeTarget, Case::NoDeal]
        .map(|case| RowId::new(scenario.of(case).next().unwrap().row));
    for row in twins {
        let email = world.column(row, "email").unwrap();
        world.insert(&json!({ "email": email }));
    }
    let bad = world.insert(&json!({ "email": "no address" }));

    let ended = backfill(&world, &["--dry-run", "--json"]).run().await;

    ended.assert_code(0);
    assert!(ended.err.contains("this takes about"), "{}", ended.err);
    let requests = world.sandbox.requests();
    assert!(
        requests.iter().all(|request| !request.is_write),
        "{requests:#?}"
    );
    assert!(!world.inbox_path().exists());
    let asked: Vec<_> = requests
        .iter()
        .filter(|request| request.server == Server::Amo)
        .map(|request| request.at)
        .collect();
    for pair in asked.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_secs(1), "{asked:?}");
    }

    let foreseen = json_of(&ended);
    totals(&world, &[], 1).await;

    let inbox = world.guest().await;
    let mut sum = BTreeMap::<String, u64>::new();
    for would in foreseen["rows"].as_array().unwrap() {
        let row: RowId = would["row"].as_str().unwrap().parse().unwrap();
        let entry = inbox.entry(row).await.unwrap().unwrap();
        let placed = entry.progress.step.placed();
        let became = match (entry.state, placed) {
            (State::Done, Some(Placed::Moved)) => "move",
            (State::Done, Some(Placed::Left)) => "leave",
            (State::Done, Some(Placed::Created)) => "create",
            (State::Waiting, None) => "wait",
            (State::Parked, None) => "park",
            _ => panic!("{entry:?}"),
        };
        *sum.entry(became.to_owned()).or_default() += 1;
        // Who of two rows of one student comes first is not said before.
        let email = world.column(row, "email").unwrap();
        let is_alone = !twins
            .iter()
            .any(|twin| world.column(*twin, "email").unwrap() == email);
        if is_alone {
            assert_eq!(would["would"], became, "{would} {entry:?}");
            if let (Some(deal), Some(choice)) =
                (would["deal"].as_i64(), entry.progress.step.choice())
            {
                assert_eq!(choice.deal.get(), deal, "{would}");
            }
        }
    }
    assert_eq!(foreseen["would"], json!(sum));
    assert_eq!(
        foreseen["rows"].as_array().unwrap().len(),
        Case::ALL.len() + 3
    );
    assert_eq!(
        inbox.entry(bad).await.unwrap().unwrap().state,
        State::Parked
    );
    inbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_knows_a_contact_however_its_address_is_written() {
    let world = World::prepare(before_going_live());
    let written = [
        "mailto:s0@example.kz;",
        "Анна <s1@example.kz>, other@example.kz",
        "s2@exam\u{ad}ple.kz",
        "s3@xn--80atdl2c.xn--p1ai",
    ];
    for (email, written) in [
        "s0@example.kz",
        "s1@example.kz",
        "s2@example.kz",
        "s3@школа.рф",
    ]
    .iter()
    .zip(written)
    {
        world.student(written);
        world.insert(&json!({ "email": email }));
    }

    let dry = backfill(&world, &["--dry-run", "--json"]).with("AMOCRM_MISSING_CONTACT", "create");
    let ended = dry.run().await;

    ended.assert_code(0);
    assert_eq!(json_of(&ended)["would"], json!({ "move": written.len() }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_foresees_that_a_row_that_is_too_large_is_parked_and_goes_on() {
    // Such a row takes its time.
    let world = World::prepare(Wishes {
        time_scale: 1.0,
        ..before_going_live()
    });
    let huge = "я".repeat(17 << 19);
    let mut rows = Vec::new();
    for (n, name) in ["Анна", &huge, "Боб"].into_iter().enumerate() {
        let email = format!("s{n}@example.kz");
        world.student(&email);
        // The largest one is whatever row comes first.
        let id = Uuid::from_u128(if n == 1 { 1 } else { n as u128 + 2 });
        rows.push(world.insert(&json!({ "id": id, "email": email, "full_name": name })));
    }

    let ended = backfill(&world, &["--dry-run", "--json"]).run().await;

    ended.assert_code(0);
    let foreseen = json_of(&ended);
    assert_eq!(foreseen["would"], json!({ "move": 2, "park": 1 }));
    let parked = foreseen["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["would"] == "park");
    assert_eq!(parked.unwrap()["row"], json!(rows[1]));
}

/// With and without a phone; and what stands in the inbox already is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_foresees_contacts_that_are_made_and_what_was_begun() {
    let world = World::prepare(before_going_live());
    let really = async |world: &World| {
        let run = backfill(world, &["--yes"]).with("AMOCRM_MISSING_CONTACT", "create");
        run.run().await.assert_code(0);
    };
    let known = world.student(EMAIL);
    let first = world.insert(&json!({}));
    really(&world).await;
    let linked = world.column(first, "amocrm_deal_id");
    assert_eq!(linked, Some(known.to_string()));

    let again = world.insert(&json!({}));
    let without_phone = world.insert(&json!({ "email": "new@example.kz" }));
    let with_phone =
        world.insert(&json!({ "email": "newer@example.kz", "phone": "+7 701 000 00 01" }));
    let second = world.insert(&json!({ "email": "new@example.kz" }));
    let before = world.sandbox.requests().len();
    let dry = backfill(&world, &["--dry-run", "--json"]).with("AMOCRM_MISSING_CONTACT", "create");
    let ended = dry.run().await;
    ended.assert_code(0);
    let asked = world.sandbox.requests().split_off(before);
    assert!(asked.iter().all(|request| !request.is_write), "{asked:#?}");

    let foreseen = json_of(&ended);
    let of = |row: RowId| {
        let rows = foreseen["rows"].as_array().unwrap();
        let mut rows = rows.iter().filter(|it| it["row"] == json!(row));
        rows.next().unwrap().clone()
    };
    assert_eq!(of(again)["would"], "leave");
    assert_eq!(of(again)["deal"], json!(known.get()));
    assert_eq!(of(with_phone)["would"], "create_with_contact");
    let mut twins = [
        of(without_phone)["would"].clone(),
        of(second)["would"].clone(),
    ];
    twins.sort_by_key(ToString::to_string);
    assert_eq!(twins, [json!("create_with_contact"), json!("leave")]);

    really(&world).await;
    assert_eq!(world.deals_of("new@example.kz").len(), 1);
    assert_eq!(world.deals_of("newer@example.kz").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_leaves_the_inbox_alone_and_asks_before_it_takes_long() {
    let world = World::prepare(before_going_live());
    let parked = world.insert(&json!({ "email": "no address" }));
    totals(&world, &[], 1).await;
    let inbox = world.guest().await;
    let before = inbox.entries(None, 10).await.unwrap();

    let deal = world.student(EMAIL);
    let row = world.insert(&json!({}));
    // As in a container that is mounted read-only.
    let dry = backfill(&world, &["--dry-run"]).with("TMPDIR", "/dev/null");
    let ended = dry.run().await;
    ended.assert_code(0);
    for file in std::fs::read_dir(world.inbox_path().parent().unwrap()).unwrap() {
        let name = file.unwrap().file_name();
        assert!(name.to_string_lossy().starts_with("inbox.db"), "{name:?}");
    }
    let line = ended
        .out
        .lines()
        .find(|line| line.starts_with(&row.to_string()));
    let line = line.unwrap_or_else(|| panic!("{ended:#?}"));
    for words in [
        "move the deal",
        &deal.to_string(),
        "«Заявка» → «Купил продукт»",
    ] {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert!(!ended.out.contains(&parked.to_string()), "{ended:#?}");
    assert!(ended.out.contains("parked already"), "{ended:#?}");
    assert_eq!(inbox.entries(None, 10).await.unwrap(), before);
    inbox.close().await;

    for n in 0..130 {
        world.insert(&json!({ "email": format!("student{n}@example.kz") }));
    }
    let asked = world.sandbox.amo.requests().len();
    // It asks before it waits for the command that is asking amoCRM, and so takes no room meanwhile.
    let inbox = world.guest().await;
    let turn = inbox.announce_command().await.unwrap().unwrap();
    let long = backfill(&world, &["--dry-run"]).run().await;
    long.assert_code(2);
    inbox.end_command(turn).await.unwrap();
    assert!(
        long.err.contains("3 min") && long.err.contains("--limit"),
        "{long:#?}"
    );

    // A 403 is told before the question.
    let forbidden = Halt {
        cause: HaltCause::AmocrmForbidden,
        since: Timestamp::UNIX_EPOCH,
        probes: 0,
        next_probe: None,
        detail: String::new(),
        operation: None,
        rows: Vec::new(),
    };
    inbox.set_state(HALT, &forbidden).await.unwrap();
    let long = backfill(&world, &["--dry-run"]).run().await;
    long.assert_code(1);
    assert!(
        long.err.contains("403") && !long.err.contains("--limit"),
        "{long:#?}"
    );
    assert_eq!(world.sandbox.amo.requests().len(), asked);
}

// ---- beside a service ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_service_one_budget_holds_and_live_rows_go_first() {
    let world = World::prepare(before_going_live());
    let scenario = scenario(&world, 56);
    let mut service = Service::start(&world).await;
    let mut watching = backfill(&world, &["--yes"]).spawn();
    until("the backfill is at work", || amo_writes(&world) > 0).await;

    // Without a time it counts as new; without a contact it is not among what the scenario expects.
    let live = world.insert(&json!({ "created_at": null }));
    assert_eq!(service.deliver(&world, live).await, Some(202));
    let id = live.to_string();
    let program = &mut service.program;
    program
        .until_logged("sync.attempt", |line| line["row.id"] == id.as_str())
        .await;
    assert!(scenario.remaining() > 0, "the live row was to go first");

    watching.until_ended().await;
    let ended = watching.ended().await;
    ended.assert_code(0);
    assert!(
        ended.err.contains("a service is running on this inbox"),
        "{ended:#?}"
    );
    assert!(ended.out.contains("56/56"), "{ended:#?}");
    assert_eq!(scenario.verify(), Vec::<String>::new());
    let most = world.sandbox.amo.max_in_any_second();
    assert!(most <= 7, "{most} in one second");
    service.stop().await.assert_code(0);
}

/// What is told of why nothing moves, and that it goes on without the service in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_gone_for_good_is_not_waited_for() {
    let world = World::prepare(before_going_live());
    let service = Service::start(&world).await;
    Launch::in_world(&world, &["pause"])
        .run()
        .await
        .assert_code(0);
    let row = old_row(&world, EMAIL, "2026-02-10T00:00:00Z");
    let mut watching = backfill(&world, &["--yes"]).spawn();
    watching.until_said("paused: `tripwire-sync resume`").await;

    service.stop().await.assert_code(0);
    watching.until_said("the service has stopped").await;
    // Then it is at work itself, and as paused as the service was.
    until_owned(&world, &mut watching).await;
    assert!(!is_synced(&world, row));
    let refused = Launch::in_world(&world, &["serve"]).run().await;
    refused.assert_code(1);
    assert!(
        refused.err.contains("is in use by another process"),
        "{refused:#?}"
    );

    Launch::in_world(&world, &["resume"])
        .run()
        .await
        .assert_code(0);
    watching.ended().await.assert_code(0);
    assert!(is_synced(&world, row));
}

async fn until_owned(world: &World, program: &mut Program) {
    let path = world.inbox_path();
    until("somebody owns the inbox", || {
        tripwire_sync::inbox::Inbox::is_owned(&path).unwrap()
    })
    .await;
    let words = "no service is running on this inbox";
    until("it says so", || {
        program.log().iter().any(|line| line.contains(words))
    })
    .await;
}

// ---- interrupted ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_and_run_again_it_doubles_nothing() {
    let world = World::prepare(before_going_live());
    let scenario = scenario(&world, 28);
    for life in 1..=2 {
        let before = amo_writes(&world);
        let program = backfill(&world, &["--yes"]).spawn();
        until("it writes", || amo_writes(&world) > before).await;
        program.signal("KILL");
        assert_eq!(program.ended().await.code, None);
        assert!(
            scenario.remaining() > 0,
            "life {life} was to end before its work"
        );
    }

    let totals = totals(&world, &[], 0).await;

    assert_eq!(totals["end"], "drained");
    assert_eq!(scenario.verify(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_it_ends_in_order_and_a_service_finishes_the_rest() {
    let world = World::prepare(before_going_live());
    let scenario = scenario(&world, 56);
    let program = backfill(&world, &["--yes"]).spawn();
    until("it writes", || amo_writes(&world) > 0).await;
    program.signal("INT");
    let ended = program.ended().await;
    ended.assert_code(1);
    assert!(ended.err.contains("stays in the inbox"), "{ended:#?}");
    assert!(ended.out.contains("not finished"), "{ended:#?}");
    assert!(scenario.remaining() > 0);

    let service = Service::start(&world).await;
    let inbox = world.guest().await;
    until_drained(&inbox).await;
    inbox.close().await;
    assert_eq!(scenario.verify(), Vec::<String>::new());
    service.stop().await.assert_code(0);
}

// ---- asked for, and then told of ----

#[tokio::test]
async fn a_row_asked_for_by_a_backfill_is_synced_whichever_source_tells_of_it_later() {
    let mut world = World::prepare(Wishes {
        hold: true,
        ..before_going_live()
    });
    let asked = old_row(&world, "asked@example.kz", "2026-02-10T00:00:00Z");
    let unasked = old_row(&world, "unasked@example.kz", "2026-02-10T00:00:00Z");
    world.launch().await;
    let source = Source::Backfill(world.inbox().begin_backfill().await.unwrap());
    let arrivals = vec![Arrival { row: asked, source }];
    world.inbox().store(arrivals).await.unwrap();
    for row in [asked, unasked] {
        assert_eq!(world.deliver(row).await, 202);
    }
    world.stop().await;
    world.wishes.hold = false;
    world.launch().await;

    world.until_synced_once(asked).await;
    world.until_done(unasked, Outcome::TooOld).await;
}

/// The canary is refused, and there is no other row that could tell whose fault it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_stays_in_doubt_is_named_and_not_waited_for() {
    let world = World::prepare(before_going_live());
    let row = old_row(&world, EMAIL, "2026-02-01T00:00:00Z");
    let refused = Kind::Status {
        when: When::Before,
        code: 400,
        page: Page::Json,
        retry_after: None,
    };
    world
        .sandbox
        .faults()
        .add(Fault::always(Point::amo("leads.update"), refused));

    let totals = totals(&world, &["--limit", "1"], 1).await;

    assert_eq!(
        (&totals["end"], &totals["open"], &totals["parked"]),
        (&json!("in_doubt"), &json!(1), &json!(0))
    );
    let inbox = world.guest().await;
    let entry = inbox.entry(row).await.unwrap().unwrap();
    assert_eq!(entry.state, State::Pending);
    assert!(entry.reason.unwrap().contains("400"));
    inbox.close().await;
}
