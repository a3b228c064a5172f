//! What a person at the terminal asks, beside a service or before there is one.

use std::{iter, sync::Arc, time::Duration};

use sandbox::scenario::{Case, Scenario};
use serde_json::{Value, json};
use tripwire_sync::{
    domain::{RowId, SystemClock, WebhookSecret},
    inbox::{Inbox, Role},
};

use crate::{
    check::set_up,
    program::{Ended, Launch, Service, until, until_drained},
    support::{Wishes, World, rows_of},
};

pub(crate) async fn command(world: &World, args: &[&str]) -> Ended {
    Launch::in_world(world, args).run().await
}

pub(crate) fn json_of(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

fn asked_amocrm(world: &World) -> usize {
    world.sandbox.amo.requests().len()
}

/// A student without a contact: nothing is written about her.
pub(crate) fn waiting_row(world: &World) -> RowId {
    world.insert(&json!({ "email": "nobody@example.kz" }))
}

// ---- backup ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_copies_the_inbox_beside_the_service_and_overwrites_nothing() {
    let world = World::prepare(Wishes::default());
    let row = waiting_row(&world);
    let none = command(&world, &["backup", "copy.db"]).await;
    none.assert_code(1);
    let mut service = Service::start(&world).await;
    service.deliver(&world, row).await;
    command(&world, &["backup", "copy.db"]).await.assert_code(0);
    let again = command(&world, &["backup", "copy.db"]).await;
    again.assert_code(1);
    assert!(again.err.contains("exists already"), "{again:#?}");

    let copy = world.folder().join("copy.db").display().to_string();
    let entries = Launch::in_world(&world, &["entries", "--json"])
        .with("DATABASE_URL", format!("sqlite://{copy}"))
        .run()
        .await;
    assert_eq!(json_of(&entries)[0]["row"], json!(row));
    service.program.signal("TERM");
    service.program.until_ended().await;
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
async fn jwt_prints_the_token_alone_and_says_the_rest_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let key = "a-legacy-secret-of-a-project-40-letters!";
    std::fs::write(folder.path().join("key"), format!("{key}\n")).unwrap();
    let launch = |args: &[&str]| Launch::new(folder.path(), args);

    let ended = launch(&["jwt", "--key-file", "key", "--expires-in", "90d"])
        .run()
        .await;
    ended.assert_code(0);
    assert_eq!(ended.out.split('.').count(), 3, "{ended:#?}");
    for word in ["tripwire_sync", "HS256", "SUPABASE_JWT", " UTC"] {
        assert!(ended.err.contains(word), "{word}: {ended:#?}");
    }
    assert!(!ended.words().contains(key), "{ended:#?}");
    assert!(!ended.err.contains(&ended.out), "{ended:#?}");

    // Nothing in the pipe; no such file; a time that is none.
    let empty = launch(&["jwt"]).run().await;
    empty.assert_code(2);
    assert_eq!(empty.out, "");
    let missing = launch(&["jwt", "--key-file", "nowhere"]).run().await;
    missing.assert_code(1);
    assert!(missing.err.contains("nowhere"), "{missing:#?}");
    launch(&["jwt", "--key-file", "key", "--expires-in", "0s"])
        .run()
        .await
        .assert_code(2);
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
    service.until_outcome(row, "waiting").await;

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
    service.until_outcome(row, "waiting").await;
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
    service.until_outcome(row, "parked").await;

    // The manager puts it right.
    world.sandbox.postgrest.update_row(row, |row| {
        row.insert("email".to_owned(), "nobody@example.kz".into());
    });
    let which = command(&world, &["retry"]).await;
    which.assert_code(2);
    for word in ["Parked: 1", "retry --parked", "entries --state parked"] {
        assert!(which.err.contains(word), "{which:#?}");
    }
    let retry = command(&world, &["retry", "--parked"]).await;
    retry.assert_code(0);
    assert_eq!(retry.out, "to be tried again: 1");
    service.until_outcome(row, "waiting").await;

    let id = row.to_string();
    let again = command(&world, &["retry", &id]).await;
    again.assert_code(0);
    assert_eq!(again.out, "to be tried again: 1");
    command(&world, &["retry", "not-a-row"])
        .await
        .assert_code(2);
    let which = command(&world, &["retry"]).await;
    which.assert_code(2);
    assert!(which.err.contains("None is parked"), "{which:#?}");
    service.stop().await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_student_is_forgotten_by_e_mail_and_by_row() {
    let world = World::prepare(Wishes {
        sweep_every: Some(Duration::from_hours(1)),
        ..Wishes::default()
    });
    let mut service = Service::start(&world).await;
    let emails = ["one@example.kz", "two@example.kz"];
    let rows = emails.map(|email| {
        world.student(email);
        world.insert(&json!({ "email": email }))
    });
    for row in rows {
        assert_eq!(service.deliver(&world, row).await, Some(202));
        service.until_outcome(row, "synced").await;
    }
    let written = world.amo_writes().len();
    for whom in ["ONE@example.kz", &rows[1].to_string()] {
        let forgotten = command(&world, &["forget", whom]).await;
        forgotten.assert_code(0);
        assert!(forgotten.out.contains("Supabase"), "{forgotten:#?}");
        // Nothing is left to forget.
        command(&world, &["forget", whom]).await.assert_code(1);
        command(&world, &["explain", whom]).await.assert_code(1);
    }
    for email in emails {
        command(&world, &["forget", email]).await.assert_code(1);
    }
    command(&world, &["forget", "neither"]).await.assert_code(2);
    service.stop().await.assert_code(0);

    // The first sweep takes up no row with a deal id.
    let mut service = Service::start(&world).await;
    service.program.until_logged("sweep.done", |_| true).await;
    let left = json_of(&command(&world, &["entries", "--json"]).await);
    assert_eq!(left, json!([]));
    assert_eq!(world.amo_writes().len(), written);
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
    let probe = command(&world, &["check", "--probe"]).await;
    probe.assert_code(1);
    assert!(probe.err.contains("tripwire-sync resume"), "{probe:#?}");
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

/// The service's runs may go on sending while its engine takes no turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_for_which_the_service_makes_no_room_sends_nothing() {
    let world = World::prepare(Wishes::default());
    set_up(&world);
    let path = world.inbox_path();
    let owner = Inbox::open(&path, Role::Owner, Arc::new(SystemClock));
    let owner = owner.await.unwrap();
    let ended = command(&world, &["pipelines"]).await;
    ended.assert_code(1);
    assert!(ended.err.contains("has made no room"), "{ended:#?}");
    let check = command(&world, &["check", "--no-event"]).await;
    assert!(check.out.contains("not asked"), "{check:#?}");
    assert_eq!(asked_amocrm(&world), 0);
    owner.close().await;

    command(&world, &["pipelines"]).await.assert_code(0);
}

/// amoCRM counts what a command asks together with what the service asks: at the highest rate there would be an eighth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_an_import_at_the_highest_rate_commands_send_no_eighth_request() {
    let wishes = Wishes {
        requests_per_second: 7,
        batch_size: 1,
        ..Wishes::default()
    };
    let world = World::prepare(wishes);
    set_up(&world);
    let cases = iter::repeat_n(Case::OpenBeforeTarget, 40);
    let sandbox = &world.sandbox;
    let scenario = Scenario::of_cases(15, cases, &sandbox.amo, &sandbox.postgrest, &world.setting);
    let service = Service::start(&world).await;
    let deliveries = rows_of(&scenario)
        .into_iter()
        .map(|row| service.deliver(&world, row));
    futures::future::join_all(deliveries).await;
    until("the import is at work", || asked_amocrm(&world) > 10).await;

    let (first, second) = tokio::join!(
        command(&world, &["pipelines"]),
        command(&world, &["check", "--no-event"]),
    );
    for ended in [first, second] {
        ended.assert_code(0);
    }
    assert!(scenario.remaining() > 0, "they were to meet");
    until("all is done", || scenario.remaining() == 0).await;
    let most = world.sandbox.amo.max_in_any_second();
    assert!(most <= 7, "{most} in one second");
    // And afterwards the whole rate is the service's again.
    let inbox = world.guest().await;
    until_drained(&inbox).await;
    assert!(!inbox.is_command_noticed().await.unwrap());
    inbox.close().await;
    service.stop().await.assert_code(0);
    assert_eq!(scenario.verify(), Vec::<String>::new());
}
