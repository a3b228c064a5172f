//! What a person at the terminal asks, beside a service or before there is one.

use std::time::Duration;

use serde_json::{Value, json};
use tripwire_sync::domain::{RowId, WebhookSecret};

use crate::{
    program::{Ended, Launch, Service, until},
    support::{Wishes, World},
};

async fn command(world: &World, args: &[&str]) -> Ended {
    Launch::in_world(world, args).run().await
}

fn json_of(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

fn asked_amocrm(world: &World) -> usize {
    world.sandbox.amo.requests().len()
}

/// A student without a contact: nothing is written about her.
fn waiting_row(world: &World) -> RowId {
    world.insert(&json!({ "email": "nobody@example.kz" }))
}

// ---- check ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_finds_nothing_wrong_where_nothing_is() {
    let world = World::prepare(Wishes::default());
    waiting_row(&world);
    let check = command(&world, &["check"]).await;
    check.assert_code(0);
    for line in [
        "ok       settings   all of sound form",
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
        check.out.contains("\nok       amocrm     account «"),
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
    let check = command(&world, &["check"]).await;
    check.assert_code(1);
    let line = check
        .out
        .lines()
        .find(|line| line.starts_with("failed   supabase"))
        .unwrap();
    assert!(line.ends_with(" amocrm_deal_id"), "{line}");
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
    let (russian, english) = ("все заданы верно по форме", "all of sound form");
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

// ---- pipelines, secret ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_shows_ids_beside_names() {
    let world = World::prepare(Wishes::default());
    // Before the ids are known, nothing else is set either.
    let launch = |args: &[&str]| {
        Launch::new(world.folder(), args)
            .with("AMOCRM_BASE_URL", world.sandbox.amo.url())
            .with("AMOCRM_ACCESS_TOKEN", world.sandbox.amo.token())
    };
    let table = launch(&["pipelines"]).run().await;
    table.assert_code(0);
    let (pipeline, stage) = (world.setting.pipeline, world.setting.target);
    let line = table
        .out
        .lines()
        .find(|line| line.contains("Купил продукт"))
        .unwrap();
    let cells: Vec<_> = line.split_whitespace().collect();
    let (pipeline_id, stage_id) = (pipeline.to_string(), stage.to_string());
    assert_eq!(
        cells,
        [
            pipeline_id.as_str(),
            "Tripwire",
            &stage_id,
            "Купил",
            "продукт"
        ]
    );
    assert!(
        table.out.starts_with("PIPELINE_ID  pipeline "),
        "{}",
        table.out
    );

    let list = json_of(&launch(&["pipelines", "--json"]).run().await);
    let tripwire = list
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["id"] == json!(pipeline))
        .unwrap();
    let stages = tripwire["stages"].as_array().unwrap();
    assert!(
        stages
            .iter()
            .any(|it| it["id"] == json!(stage) && it["name"] == "Купил продукт"),
        "{stages:?}"
    );

    let refused = launch(&["pipelines"])
        .with("AMOCRM_ACCESS_TOKEN", "wrong-token-value")
        .run()
        .await;
    refused.assert_code(1);
    assert!(
        refused.err.contains("401") && !refused.words().contains("wrong-token"),
        "{refused:#?}"
    );
}

#[tokio::test]
async fn secret_makes_another_good_one_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let secret = async || {
        let ended = Launch::new(folder.path(), &["secret"]).run().await;
        ended.assert_code(0);
        ended.out
    };
    let (one, other) = (secret().await, secret().await);
    for secret in [&one, &other] {
        assert!(secret.starts_with("whsec_"), "{secret}");
        assert!(WebhookSecret::parse(secret).is_ok(), "{secret}");
        assert_eq!(secret.len(), "whsec_".len() + 44, "32 bytes in base64");
    }
    assert_ne!(one, other);
}

#[tokio::test]
async fn an_unknown_command_is_a_usage_error_and_help_is_none() {
    let folder = tempfile::tempdir().unwrap();
    Launch::new(folder.path(), &["sreve"])
        .run()
        .await
        .assert_code(2);
    Launch::new(folder.path(), &[]).run().await.assert_code(2);
    Launch::new(folder.path(), &["--help"])
        .run()
        .await
        .assert_code(0);
}

// ---- the inbox ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_inbox_nothing_is_made_and_the_path_is_named() {
    let world = World::prepare(Wishes::default());
    for args in [
        &["entries"][..],
        &["pause"],
        &["resume"],
        &["retry", "--parked"],
    ] {
        let ended = command(&world, args).await;
        ended.assert_code(1);
        assert!(
            ended
                .err
                .contains(&world.inbox_path().display().to_string()),
            "{ended:#?}"
        );
        assert!(!world.inbox_path().exists(), "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_listed_beside_a_running_service() {
    let world = World::prepare(Wishes::default());
    let mut service = Service::start(&world).await;
    let row = waiting_row(&world);
    assert_eq!(service.deliver(&world, row).await, Some(202));
    until_outcome(&mut service, row, "waiting").await;

    let table = command(&world, &["entries"]).await;
    table.assert_code(0);
    let line = table
        .out
        .lines()
        .find(|line| line.starts_with(&row.to_string()))
        .unwrap();
    assert!(line.contains(" waiting "), "{line}");
    assert!(
        table.out.ends_with("waiting 1, parked 0, done 0"),
        "{}",
        table.out
    );

    let list = json_of(&command(&world, &["entries", "--json", "--state", "waiting"]).await);
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!(
        (&list[0]["row"], &list[0]["state"]),
        (&json!(row), &json!("waiting"))
    );
    let none = json_of(&command(&world, &["entries", "--json", "--state", "parked"]).await);
    assert_eq!(none, json!([]));
    service.stop().await.assert_code(0);
}

async fn until_outcome(service: &mut Service, row: RowId, outcome: &str) {
    let row = row.to_string();
    service
        .program
        .until_logged("sync.attempt", |line| {
            line["row.id"] == row.as_str() && line["outcome"] == outcome
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_service_obeys_pause_and_resume() {
    let world = World::prepare(Wishes::default());
    let mut service = Service::start(&world).await;
    service.until_sync_is("working").await;
    command(&world, &["pause"]).await.assert_code(0);
    service.until_sync_is("paused").await;

    let row = waiting_row(&world);
    assert_eq!(service.deliver(&world, row).await, Some(202));
    assert_eq!(asked_amocrm(&world), 0);

    command(&world, &["resume"]).await.assert_code(0);
    until_outcome(&mut service, row, "waiting").await;
    service.until_sync_is("working").await;
    assert!(asked_amocrm(&world) > 0);
    service.stop().await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_service_tries_parked_rows_again_when_told_to() {
    let world = World::prepare(Wishes::default());
    let mut service = Service::start(&world).await;
    let row = world.insert(&json!({ "email": "not an address" }));
    assert_eq!(service.deliver(&world, row).await, Some(202));
    until_outcome(&mut service, row, "parked").await;

    // The manager puts it right.
    world.sandbox.postgrest.update_row(row, |row| {
        row.insert("email".to_owned(), "nobody@example.kz".into());
    });
    let retry = command(&world, &["retry", "--parked"]).await;
    retry.assert_code(0);
    assert_eq!(retry.out, "to be tried again: 1");
    until_outcome(&mut service, row, "waiting").await;

    let id = row.to_string();
    let again = command(&world, &["retry", &id]).await;
    again.assert_code(0);
    assert_eq!(again.out, "to be tried again: 1");
    command(&world, &["retry", "not-a-row"])
        .await
        .assert_code(2);
    command(&world, &["retry"]).await.assert_code(2);
    service.stop().await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_command_asks_amocrm_while_it_has_forbidden_us() {
    let world = World::prepare(Wishes::default());
    let service = Service::start(&world).await;
    world.sandbox.amo.ban();
    let row = waiting_row(&world);
    assert_eq!(service.deliver(&world, row).await, Some(202));
    service.until_sync_is("halted").await;
    // Even when it would work again: somebody has to say so.
    world.sandbox.amo.lift_ban();
    let before = asked_amocrm(&world);

    let check = command(&world, &["check"]).await;
    check.assert_code(1);
    assert!(
        check
            .out
            .contains("failed   amocrm     sending has been stopped since"),
        "{}",
        check.out
    );
    let pipelines = command(&world, &["pipelines"]).await;
    pipelines.assert_code(1);
    assert!(
        pipelines.err.contains("tripwire-sync resume"),
        "{pipelines:#?}"
    );
    for args in [&["entries"][..], &["pause"], &["retry", "--parked"]] {
        command(&world, args).await.assert_code(0);
    }
    assert_eq!(asked_amocrm(&world), before);

    command(&world, &["resume"]).await.assert_code(0);
    service.until_sync_is("working").await;
    until("the service asks again", || asked_amocrm(&world) > before).await;
    service.stop().await.assert_code(0);
    command(&world, &["pipelines"]).await.assert_code(0);
}
