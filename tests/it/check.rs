//! `check`: what it says of a world where nothing is wrong, and of each where something is.

use std::time::Duration;

use sandbox::{EventFate, PostgrestQuirks};
use tripwire_sync::{
    domain::RowId,
    inbox::{Arrival, Source},
};
use uuid::Uuid;

use crate::{
    commands::{command, json_of, waiting_row},
    program::Launch,
    support::{SECRET, Wishes, World},
};

/// Vault as the SQL of `setup-sql` fills it.
pub(crate) fn set_up(world: &World) {
    world.sandbox.postgrest.quirks(|quirks| {
        quirks.behind.vault_url = Some("https://sync.example.org/webhooks/supabase".to_owned());
        quirks.behind.vault_secret = Some(SECRET.to_owned());
    });
}

/// The line about this.
pub(crate) fn about(out: &str, what: &str) -> Option<String> {
    let what = format!("{what:<9}");
    let is_it = |line: &&str| line.get(9..).is_some_and(|rest| rest.starts_with(&what));
    out.lines().find(is_it).map(str::to_owned)
}

const OTHER_SECRET: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMi0wMDAyLTAwMDI=";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_finds_nothing_wrong_where_nothing_is() {
    let world = World::prepare(Wishes::default());
    set_up(&world);
    waiting_row(&world);
    let check = command(&world, &["check"]).await;
    check.assert_code(0);
    let complaints: Vec<_> = check
        .out
        .lines()
        .filter(|line| !line.starts_with("ok ") && !line.starts_with("advice "))
        .collect();
    assert_eq!(complaints, Vec::<&str>::new());
    let asked = world.sandbox.postgrest.requests().len();
    assert!(asked <= 7, "{asked} requests");
    for line in [
        "ok       settings   all of sound form",
        "advice   key        this key may do anything in the project; recommended: the role tripwire_sync, which may only do \
         this work (docs/supabase.md, step 4)",
        "ok       rights     the role service_role may read the table and write the deal's id",
        "ok       trigger    fires on INSERT only",
        "ok       pg_net     0.20.4",
        "ok       vault      events go to https://sync.example.org/webhooks/supabase",
        "ok       vault      signs with the secret that WEBHOOK_SECRET holds",
        "ok       lease      it is free: no service is syncing right now",
        "ok       events     the inbox is empty",
        "ok       supabase   table tripwire_users, columns: id, email, full_name, created_at, amocrm_deal_id, phone, \
         price, status, amocrm_contact_id",
        "ok       supabase   rows to sync since SYNC_SINCE: 1",
        "ok       stage      pipeline «Tripwire», stage «Купил продукт»",
    ] {
        assert!(
            check.out.lines().any(|have| have == line),
            "{line}\n{}",
            check.out
        );
    }
    assert!(
        check
            .out
            .contains("\nok       inbox      it takes 0 MiB, and "),
        "{}",
        check.out
    );
    assert!(
        check.out.contains("\nok       amocrm     account «"),
        "{}",
        check.out
    );
    assert!(
        check
            .out
            .contains("\nok       event      a test event came from the database to the service"),
        "{}",
        check.out
    );
    assert!(!world.inbox_path().exists(), "it only looks");
    assert!(
        world
            .sandbox
            .requests()
            .iter()
            .all(|request| !request.is_write),
        "it only looks"
    );

    let arrivals: Vec<_> = world
        .sandbox
        .amo
        .requests()
        .iter()
        .map(|request| request.at)
        .collect();
    assert!(arrivals.len() > 1, "{arrivals:?}");
    for pair in arrivals.windows(2) {
        assert!(
            pair[1] - pair[0] >= Duration::from_secs(1),
            "{:?}",
            pair[1] - pair[0]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_in_one_line_what_is_wrong_and_what_to_do() {
    struct Trouble {
        name: &'static str,
        value: &'static str,
        what: &'static str,
        words: &'static [&'static str],
    }
    let world = World::prepare(Wishes::default());
    set_up(&world);
    for Trouble {
        name,
        value,
        what,
        words,
    } in [
        Trouble {
            name: "AMOCRM_ACCESS_TOKEN",
            value: "wrong-token-value",
            what: "amocrm",
            words: &["(401", "AMOCRM_ACCESS_TOKEN"],
        },
        Trouble {
            name: "AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID",
            value: "4711",
            what: "stage",
            words: &[
                "4711",
                "Купил продукт",
                "Связались",
                "tripwire-sync pipelines",
            ],
        },
        Trouble {
            name: "AMOCRM_TRIPWIRE_PIPELINE_ID",
            value: "4712",
            what: "stage",
            words: &["4712", "Tripwire", "tripwire-sync pipelines"],
        },
        Trouble {
            name: "SUPABASE_KEY",
            value: "wrong-key-value",
            what: "supabase",
            words: &["(401", "SUPABASE_KEY"],
        },
    ] {
        let check = Launch::in_world(&world, &["check", "--json"])
            .with(name, value)
            .run()
            .await;
        check.assert_code(1);
        let findings = json_of(&check);
        let failed: Vec<_> = findings
            .as_array()
            .unwrap()
            .iter()
            .filter(|line| line["state"] == "failed")
            .collect();
        let [line] = failed[..] else {
            panic!("{name}: {findings:#}")
        };
        assert_eq!(line["what"], what, "{name}");
        for word in words {
            assert!(
                line["text"].as_str().unwrap().contains(word),
                "{name}: {word} in {line}"
            );
        }
        assert!(!check.words().contains("-value"), "{check:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_a_column_that_is_missing() {
    let world = World::prepare(Wishes::default());
    let missing = vec!["amocrm_deal_id".to_owned()];
    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.absent_columns = missing);
    for has_doctor in [true, false] {
        world
            .sandbox
            .postgrest
            .quirks(|quirks| quirks.behind.has_doctor = has_doctor);
        let check = command(&world, &["check"]).await;
        check.assert_code(1);
        let failed: Vec<_> = check
            .out
            .lines()
            .filter(|line| line.starts_with("failed "))
            .collect();
        let [column, lookalike] = failed[..] else {
            panic!("{check:#?}");
        };
        assert!(column.ends_with(" amocrm_deal_id"), "{column}");
        assert!(
            lookalike.contains("another project of the same school has a table of this name"),
            "{lookalike}"
        );
    }
}

type Fault = fn(&mut PostgrestQuirks);

/// Each with the beginning of its line, and the exit code.
const FAULTS: [(Fault, &str, i32); 16] = [
    (
        |it| it.behind.has_doctor = false,
        "warning  database   the service's SQL has not been run",
        0,
    ),
    (
        |it| it.behind.has_trigger = false,
        "warning  trigger    no trigger",
        0,
    ),
    (
        |it| it.behind.trigger_is_insert_only = false,
        "failed   trigger    fires on more",
        1,
    ),
    (
        |it| it.behind.pg_net = None,
        "failed   pg_net     not switched on",
        1,
    ),
    (
        |it| it.behind.vault_secret = None,
        "failed   vault      tripwire_webhook_secret is missing",
        1,
    ),
    (
        |it| it.behind.vault_secret = Some(OTHER_SECRET.to_owned()),
        "failed   vault      the database signs with a secret",
        1,
    ),
    (
        |it| it.behind.vault_url = Some("https://sync.example.org".to_owned()),
        "warning  vault      events go to",
        0,
    ),
    (
        |it| it.behind.clock_ahead = 400,
        "failed   clock      the database is +4",
        1,
    ),
    (
        |it| it.behind.unwritable_columns = vec!["amocrm_deal_id".to_owned()],
        "failed   rights     the role service_role may not write",
        1,
    ),
    (
        |it| it.behind.is_current = false,
        "warning  database   the SQL in this project is an older one",
        0,
    ),
    (
        |it| "bigint".clone_into(&mut it.behind.id_type),
        "failed   database   tripwire_users.id is bigint",
        1,
    ),
    (
        |it| it.behind.event = EventFate::Unknown,
        "warning  event      not tried: the database has no test event",
        0,
    ),
    (
        |it| it.behind.event = EventFate::Failed("Couldn't connect to server".to_owned()),
        "failed   event      the test event was sent to https://sync.example.org/webhooks/supabase and did not arrive",
        1,
    ),
    (
        |it| {
            it.behind.event = EventFate::Queued {
                ahead: 4_000,
                sent_a_look: 100,
            };
        },
        "warning  event      the test event is queued and waits behind ",
        0,
    ),
    (
        |it| it.behind.event = EventFate::TooSoon,
        "warning  event      not tried: other test events were under way",
        0,
    ),
    (
        |it| it.behind.dashboard_webhooks = vec!["crm".to_owned()],
        "warning  trigger    the dashboard has webhooks of its own",
        0,
    ),
];

/// Each fault is one that the database tells of; what is told of each is `cli::check::doctor`'s to test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tells_what_only_the_database_knows() {
    let world = World::prepare(Wishes::default());
    set_up(&world);
    waiting_row(&world);
    let fault = |change: Fault| {
        world.sandbox.postgrest.quirks(|quirks| {
            let before = quirks.clone();
            change(quirks);
            before
        })
    };
    for (change, start, code) in FAULTS {
        let before = fault(change);
        let check = Launch::in_world(&world, &["check"])
            .with("AMOCRM_ENABLED", false)
            .with("RECONCILE_INTERVAL", "5m")
            .run()
            .await;
        check.assert_code(code);
        let found = check.out.lines().filter(|line| line.starts_with(start));
        assert_eq!(found.count(), 1, "{start}: {check:#?}");
        assert!(!check.words().contains("whsec_"), "{check:#?}");
        let asked = world.sandbox.postgrest.requests().len();
        let quiet = Launch::in_world(&world, &["check", "--no-event"])
            .with("AMOCRM_ENABLED", false)
            .run()
            .await;
        assert_eq!(about(&quiet.out, "event"), None, "{quiet:#?}");
        let asked_of_it = &world.sandbox.postgrest.requests()[asked..];
        assert!(
            asked_of_it
                .iter()
                .all(|request| !request.route.starts_with("rpc.test")),
            "{asked_of_it:#?}"
        );
        world.sandbox.postgrest.quirks(|quirks| *quirks = before);
    }
}

/// The whole inbox is counted, and its newest rows are looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tells_how_the_rows_of_the_inbox_came() {
    let world = World::prepare(Wishes::default());
    set_up(&world);
    let inbox = world.guest().await;
    let store = async |rows: usize, source: fn(usize) -> Source| {
        let arrivals = (0..rows).map(|n| Arrival {
            row: RowId::new(Uuid::new_v4()),
            source: source(n),
        });
        inbox.store(arrivals.collect()).await.unwrap();
    };
    let events = async || {
        let check = command(&world, &["check", "--no-event"]).await;
        about(&check.out, "events").unwrap_or_else(|| panic!("{check:#?}"))
    };
    let event: fn(usize) -> Source = |n| Source::Webhook {
        delivery: format!("msg_{n}"),
    };
    store(2, |_| Source::Sweep).await;
    let none = events().await;
    assert!(
        none.starts_with("ok       events     none of the 2 rows"),
        "{none}"
    );
    store(1, |_| Source::Sweep).await;
    let silent = events().await;
    assert!(
        silent.starts_with("warning  events     none of the 3 rows"),
        "{silent}"
    );

    store(5_452, event).await;
    let heard = events().await;
    assert!(
        heard.starts_with(
            "ok       events     5452 of 5455 rows in the inbox were told of by an event"
        ),
        "{heard}"
    );
    store(1_001, |_| Source::Sweep).await;
    let silent = events().await;
    assert!(
        silent.starts_with("warning  events     5452 of 6456 rows"),
        "{silent}"
    );
    assert!(
        silent.contains("the 1001 rows since then arrived without an event"),
        "{silent}"
    );
    inbox.close().await;
}

/// A school whose manager may not run SQL: no line says that nothing comes, and none fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboards_own_webhooks_are_no_failure() {
    let world = World::prepare(Wishes::default());
    waiting_row(&world);
    let check = async || {
        let launch = Launch::in_world(&world, &["check"])
            .without("WEBHOOK_SECRET")
            .with(
                "WEBHOOK_BEARER_TOKEN",
                "a-long-random-text-of-the-dashboard",
            )
            .with("RECONCILE_INTERVAL", "5m")
            .with("AMOCRM_ENABLED", false);
        let check = launch.run().await;
        check.assert_code(0);
        check.out
    };
    world.sandbox.postgrest.quirks(|quirks| {
        quirks.behind.has_trigger = false;
        quirks.behind.dashboard_webhooks = vec!["crm".to_owned()];
    });
    let out = check().await;
    assert!(
        out.contains("\nok       event      not tried: the dashboard's own webhooks"),
        "{out}"
    );
    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.behind.has_doctor = false);
    let out = check().await;
    assert!(
        out.contains("events come by the dashboard's own webhooks alone"),
        "{out}"
    );
    assert!(!out.contains("no event comes"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_judges_the_token_and_works_with_it_alone() {
    let world = World::prepare(Wishes::default());
    set_up(&world);
    waiting_row(&world);
    std::fs::write(
        world.folder().join("key"),
        "a-legacy-secret-of-a-project-40-letters!",
    )
    .unwrap();
    for (time, line) in [
        ("365d", "ok       token      SUPABASE_JWT is good until "),
        ("29d", "warning  token      SUPABASE_JWT is good until "),
    ] {
        let args = ["jwt", "--key-file", "key", "--expires-in", time];
        let token = Launch::new(world.folder(), &args).run().await.out;
        world.sandbox.postgrest.quirks(|quirks| {
            quirks.key = "sb_publishable_sandbox".to_owned();
            quirks.jwt = Some(token.clone());
        });
        let check = Launch::in_world(&world, &["check"])
            .with("AMOCRM_ENABLED", false)
            .with("SUPABASE_JWT", &token)
            .run()
            .await;
        check.assert_code(0);
        assert!(
            check.out.lines().any(|have| have.starts_with(line)),
            "{check:#?}"
        );
        assert!(
            check.out.contains("the role tripwire_sync may read"),
            "{check:#?}"
        );
        assert!(!check.words().contains(&token), "{check:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_language_is_that_of_the_locale() {
    let world = World::prepare(Wishes::default());
    let spoken = async |locale: &[(&str, &str)]| {
        let mut launch = Launch::in_world(&world, &["check"]).with("AMOCRM_ENABLED", false);
        for (name, value) in locale {
            launch = launch.with(name, value);
        }
        launch.run().await.out
    };
    let (russian, english) = ("у всех правильный вид", "all of sound form");
    for (locale, words) in [
        (&[("LANG", "ru_RU.UTF-8")][..], russian),
        (&[("LANG", "en_US.UTF-8")], english),
        (&[], english),
        (&[("LANG", "ru_RU.UTF-8"), ("LC_ALL", "C")], english),
    ] {
        let out = spoken(locale).await;
        assert!(out.contains(words), "{locale:?}: {out}");
    }
}
