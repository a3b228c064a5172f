//! The program as a process: signals, kills, isolation, what it says and what it never says.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all, stream};
use sandbox::{Fault, Kind, Point, Server, When, scenario::Scenario};
use serde_json::{Value, json};
use tripwire_sync::{domain::RowId, inbox::State};

use crate::{
    program::{Launch, Service, until, until_drained},
    support::{SECRET, Wishes, World, rows_of},
};

/// What a stop may take: less than Fly's `kill_timeout`, and than what people wait.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Two of every kind.
const ROWS: usize = 28;

/// Small writes, and each takes a while: there is always one in flight.
fn busy() -> World {
    let wishes = Wishes {
        time_scale: 0.05,
        batch_size: 1,
        ..Wishes::default()
    };
    let world = World::prepare(wishes);
    world
        .sandbox
        .amo
        .quirks(|quirks| quirks.latency = Duration::from_millis(30));
    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.latency = Duration::from_millis(10));
    world
}

fn scenario(world: &World) -> Scenario {
    let sandbox = &world.sandbox;
    Scenario::mixed(5, ROWS, &sandbox.amo, &sandbox.postgrest, &world.setting)
}

/// It takes deliveries and does nothing about them, so that the next one finds them all at once.
async fn start_holding(world: &World) -> Service {
    let holding = Launch::in_world(world, &["serve"]).with("AMOCRM_ENABLED", false);
    Service::launch(holding).await
}

/// The rows that it acknowledged.
async fn deliver_all(service: &Service, world: &World, rows: &[RowId]) -> Vec<RowId> {
    stream::iter(rows)
        .map(|row| async move { (*row, service.deliver(world, *row).await) })
        .buffer_unordered(8)
        .filter_map(|(row, status)| async move { (status == Some(202)).then_some(row) })
        .collect()
        .await
}

fn writes(world: &World) -> usize {
    let requests = world.sandbox.requests();
    requests
        .iter()
        .filter(|request| request.is_write && request.server == Server::Amo)
        .count()
}

/// Drained, everything where it must be, and nothing twice.
async fn assert_all_right(service: Service, world: &World, scenario: &Scenario) {
    let inbox = world.guest().await;
    until_drained(&inbox).await;
    assert_eq!(scenario.verify(), Vec::<String>::new());
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
    let parked = inbox.entries(Some(State::Parked), 10).await.unwrap();
    assert!(parked.is_empty(), "{parked:?}");
    inbox.close().await;
    service.stop().await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_middle_ends_in_order_and_a_restart_finishes_the_rest() {
    let world = busy();
    let scenario = scenario(&world);
    let rows = rows_of(&scenario);
    let holding = start_holding(&world).await;
    assert_eq!(deliver_all(&holding, &world, &rows).await.len(), ROWS);
    holding.stop().await.assert_code(0);
    assert!(world.sandbox.amo.requests().is_empty(), "it was to hold");

    let service = Service::start(&world).await;
    until("the fourth write is on its way", || writes(&world) >= 4).await;

    let began = Instant::now();
    service.stop().await.assert_code(0);
    assert!(began.elapsed() < STOP_WITHIN, "{:?}", began.elapsed());

    let left = world.guest().await;
    let counts = left.counts().await.unwrap();
    left.close().await;
    let count = |state| counts.by_state.get(&state).copied().unwrap_or(0);
    assert_eq!(count(State::Claimed), 0, "{counts:?}");
    assert!(
        count(State::Pending) > 0,
        "it was to stop in the middle: {counts:?}"
    );

    let service = Service::start(&world).await;
    assert_all_right(service, &world, &scenario).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_amocrm_keeps_an_answer_back_leaves_the_intent_and_the_note_stays_one() {
    let world = World::prepare(Wishes::default());
    let row = one_row(&world);
    let hang = Kind::Hang(When::After);
    world
        .sandbox
        .faults()
        .add(Fault::once(Point::amo("notes.create"), hang));
    // In real time, where an answer is waited for longer than a stop may take.
    let launch = Launch::in_world(&world, &["serve"]).with("TRIPWIRE_TIME_SCALE", 1);
    let service = Service::launch(launch).await;
    assert_eq!(service.deliver(&world, row).await, Some(202));
    until("the note is on its way", || {
        world.asked("notes.create") == 1
    })
    .await;

    let began = Instant::now();
    let ended = service.stop().await;
    ended.assert_code(0);
    assert!(began.elapsed() < STOP_WITHIN, "{:?}", began.elapsed());
    assert!(ended.err.contains("sync.grace_is_over"), "{}", ended.err);
    assert_eq!(world.column(row, "amocrm_deal_id"), None);

    let mut service = Service::start(&world).await;
    service.until_synced(row).await;
    service.stop().await.assert_code(0);
    assert_eq!(
        world.asked("notes.create"),
        1,
        "it looks before it writes again"
    );
    let notes = world.sandbox.amo.world(|account| account.notes().count());
    assert_eq!(notes, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_loses_nothing_that_it_acknowledged_and_doubles_nothing() {
    let world = busy();
    let scenario = scenario(&world);
    let rows = rows_of(&scenario);

    // In the middle of the deliveries.
    let service = start_holding(&world).await;
    let mut acknowledged = deliver_all(&service, &world, &rows[..8]).await;
    assert_eq!(acknowledged.len(), 8);
    let (last, ()) = tokio::join!(deliver_all(&service, &world, &rows[8..]), async {
        until("some more are stored", || stored(&service) >= 12).await;
        service.program.signal("KILL");
    });
    assert!(
        last.len() < ROWS - 8,
        "it was to die before the last delivery"
    );
    acknowledged.extend(last);
    drop(service);

    let inbox = world.guest().await;
    for row in &acknowledged {
        assert!(
            inbox.entry(*row).await.unwrap().is_some(),
            "{row} was acknowledged"
        );
    }
    inbox.close().await;
    let service = start_holding(&world).await;
    assert_eq!(deliver_all(&service, &world, &rows).await.len(), ROWS);
    service.kill().await;

    // On the way of the first write of a life, of the second, and so on.
    for nth in 1..=5 {
        let before = writes(&world);
        let service = Service::start(&world).await;
        until("the next write is on its way", || {
            writes(&world) >= before + nth
        })
        .await;
        service.kill().await;
    }
    assert!(scenario.remaining() > 0, "it was to die before the end");

    let service = Service::start(&world).await;
    assert_all_right(service, &world, &scenario).await;
}

fn stored(service: &Service) -> usize {
    service
        .program
        .count_logged("webhook.receive", |line| line["outcome"] == "accepted")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_service_stops_at_once_on_either_signal_also_with_connections_open() {
    for signal in ["TERM", "INT"] {
        let world = World::prepare(Wishes::default());
        let service = Service::start(&world).await;
        service.until_sync_is("working").await;
        // Both pages have been looked at, and our client keeps its connections.
        service.metrics().await;
        service.readiness().await;

        let began = Instant::now();
        service.program.signal(signal);
        let Service { program, .. } = service;
        program.ended().await.assert_code(0);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{signal}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_that_hangs_ends_the_process_with_an_error_that_names_it() {
    for (hang_at, enabled, part) in [
        ("writer", true, "the writer of the inbox"),
        ("engine", true, "the engine"),
        ("engine", false, "the engine"),
    ] {
        let world = World::prepare(Wishes::default());
        let ended = Launch::in_world(&world, &["serve"])
            .with("TRIPWIRE_HANG_AT", hang_at)
            .with("AMOCRM_ENABLED", enabled)
            .run()
            .await;
        ended.assert_code(1);
        let lines: Vec<Value> = ended.err.lines().filter_map(parse).collect();
        let last = lines.iter().find(|line| line["message"] == "service.hangs");
        assert_eq!(last.map(|line| &line["part"]), Some(&json!(part)));
    }
}

fn parse(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_service_on_the_same_inbox_is_refused() {
    let world = World::prepare(Wishes::default());
    let first = Service::start(&world).await;

    let second = Launch::in_world(&world, &["serve"]).run().await;
    second.assert_code(1);
    let line = format!(
        "the inbox {} is in use by another process of this service",
        world.inbox_path().display()
    );
    assert!(
        second.err.lines().any(|have| have == line),
        "{}",
        second.err
    );

    first.readiness().await;
    first.stop().await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_tell_of_one_synced_row_as_soon_as_it_is() {
    let world = World::prepare(Wishes::default());
    let mut service = Service::start(&world).await;
    let row = one_row(&world);
    assert_eq!(service.deliver(&world, row).await, Some(202));
    service.until_synced(row).await;

    let metrics = service.metrics().await;
    for line in [
        r#"tripwire_webhooks_total{outcome="accepted"} 1"#,
        r#"tripwire_webhooks_total{outcome="refused_signature"} 0"#,
        r#"tripwire_attempts_total{outcome="synced"} 1"#,
        r#"tripwire_inbox_entries{state="done"} 1"#,
        r#"tripwire_inbox_entries{state="pending"} 0"#,
        "tripwire_inbox_oldest_pending_seconds 0",
        r#"tripwire_sync_state{state="working"} 1"#,
        r#"tripwire_sync_state{state="halted"} 0"#,
        "tripwire_insert_to_write_back_seconds_count 1",
    ] {
        assert!(
            metrics.lines().any(|have| have == line),
            "{line}\n{metrics}"
        );
    }
    let counted: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("tripwire_amocrm_requests_total{route="))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    let asked = world.sandbox.amo.requests().len();
    assert!(
        asked > 0 && counted.to_string() == asked.to_string(),
        "{asked} requests\n{metrics}"
    );
}

/// A student with a contact and a deal on the first stage.
fn one_row(world: &World) -> RowId {
    let setting = &world.setting;
    world.sandbox.amo.world(|account| {
        let contact = account.add_contact("Айгерим Омарова", &["aigerim@example.kz"], &[]);
        account.add_deal(
            &[contact],
            setting.pipeline,
            setting.before[0],
            "Заявка с сайта",
        );
    });
    world.insert(&json!({}))
}

/// Every library too.
const EVERYTHING: &str = "trace,actix_http=trace,actix_server=trace,actix_web=trace,hyper=trace,hyper_util=trace,\
                          reqwest=trace,rustls=trace,sqlx=trace";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_of_any_level_has_anything_personal_or_secret_in_it() {
    let levels = ["debug", "trace", EVERYTHING];
    let [debug, _, everything] = join_all(levels.map(log_of_a_bad_day))
        .await
        .try_into()
        .unwrap();
    assert!(
        debug.contains("asked amoCRM") && debug.contains("asked Supabase"),
        "{debug}"
    );
    assert!(everything.contains("\"level\":\"TRACE\""), "{everything}");
}

/// What is said about one row that meets one failure of each kind: errors quote more than successes do.
async fn log_of_a_bad_day(level: &str) -> String {
    let world = World::prepare(Wishes {
        note: "{full_name} {email} {phone} {generated_password}",
        ..Wishes::default()
    });
    let setting = &world.setting;
    world.sandbox.amo.world(|account| {
        let (emails, phones) = (["Zvezdochka@example.kz"], ["+77019998877"]);
        let contact = account.add_contact("Снежана Ёлкина", &emails, &phones);
        account.add_deal(
            &[contact],
            setting.pipeline,
            setting.before[0],
            "Заявка с сайта",
        );
    });
    let faults = world.sandbox.faults();
    let rejected = Kind::BulkRejected {
        others_applied: false,
        bad_index: 0,
    };
    for (at, kind) in [
        (Point::amo("contacts.search"), Kind::Reset(When::Before)),
        (Point::amo("leads.list"), Kind::MalformedJson),
        (Point::amo("leads.update"), rejected),
        (Point::amo("notes.create"), Kind::HtmlOk),
        (Point::postgrest("rows.read").nth(2), Kind::MalformedJson),
        (Point::postgrest("rows.update"), Kind::Reset(When::Before)),
    ] {
        faults.add(Fault::once(at, kind));
    }

    let launch = Launch::in_world(&world, &["serve"])
        .with("RUST_LOG", level)
        .with("HEARTBEAT_URL", "http://127.0.0.1:9/push/watcher-Zz99");
    let mut service = Service::launch(launch).await;
    let row = world.insert(&json!({
        "email": "zvezdochka@example.kz", "full_name": "Снежана Ёлкина",
        "phone": "+7 701 999 88 77", "generated_password": "pass-Zm9v-77",
    }));
    assert_eq!(service.deliver(&world, row).await, Some(202));
    service.until_synced(row).await;
    assert!(faults.unmet().is_empty(), "{:?}", faults.unmet());

    let refused = service.program.until_logged("heartbeat.refused", |_| true);
    refused.await;
    let words = service.stop().await.words();
    let (token, key) = (world.sandbox.amo.token(), world.sandbox.postgrest.key());
    for secret in [
        "vezdochka",
        "Снежана",
        "Ёлкина",
        "%D0%",
        "9998877",
        "999 88 77",
        "999+88+77",
        "Zm9v",
        "Zz99",
        &token,
        &key,
        SECRET.trim_start_matches("whsec_"),
        "/api/v4/",
        "/rest/v1/",
        "query=",
    ] {
        let line = words.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} at {level}");
    }
    words
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_sees_nothing_of_where_it_runs_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join(".env"),
        "SUPABASE_URL=http://127.0.0.1:9\nAMOCRM_ACCESS_TOKEN=from-the-file\nthis line = cannot be read\n",
    )
    .unwrap();
    let hostile = |args: &[&str]| {
        let mut launch =
            Launch::new(folder.path(), args).with("TMPDIR", temporary.path().display());
        for (name, value) in [
            ("AMOCRM_BASE_URL", "http://127.0.0.1:9"),
            ("AMOCRM_SUBDOMAIN", "not a subdomain"),
            ("AMOCRM_ACCESS_TOKEN", "from-the-environment"),
            ("AMOCRM_ENABLED", "false"),
            ("AMOCRM_REQUESTS_PER_SECOND", "1"),
            ("SUPABASE_URL", "http://127.0.0.1:9"),
            ("SUPABASE_KEY", "wrong"),
            ("DATABASE_URL", "sqlite://left-behind.db"),
            ("BIND_ADDR", "192.0.2.1:1"),
            ("WEBHOOK_SECRET", "whsec_wrong"),
            ("NOTE_TEMPLATE", "{unknown}"),
            ("SETTLE_DELAY", "1h"),
            ("TRIPWIRE_TIME_SCALE", "7"),
            ("RUST_LOG", "trace"),
            ("HTTP_PROXY", "http://127.0.0.1:9"),
            ("http_proxy", "http://127.0.0.1:9"),
            ("HTTPS_PROXY", "http://127.0.0.1:9"),
            ("ALL_PROXY", "http://127.0.0.1:9"),
            ("all_proxy", "http://127.0.0.1:9"),
        ] {
            launch = launch.with(name, value);
        }
        launch
    };

    let one = hostile(&["demo"]).run().await;
    one.assert_code(0);
    for words in [
        "Айгерим Омарова",
        "stage «Купил продукт»",
        "PostgREST sweep: rows without a deal's id",
        "PostgREST read the row",
        "amoCRM    move the deal",
        "| ✅ Доступ",
        "amocrm_deal_id",
        "Done in",
    ] {
        assert!(one.out.contains(words), "{words}\n{one:#?}");
    }
    assert_eq!(one.err, "");

    let many = hostile(&["demo", "--rows", "24"]).run().await;
    many.assert_code(0);
    assert!(many.out.contains("24/24"), "{many:#?}");
    assert_eq!(many.err, "");

    let mut interrupted = hostile(&["demo", "--rows", "2000"]).spawn();
    interrupted.until_said("2000 rows inserted").await;
    interrupted.signal("INT");
    interrupted.ended().await.assert_code(1);

    assert_eq!(names_in(folder.path()), [".env"]);
    assert_eq!(names_in(temporary.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_that_is_kept_prints_its_operator_page_which_has_one_student_of_each_kind() {
    outbound::install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Launch::new(folder.path(), &["demo", "--keep"]).spawn();
    demo.until_said("webhook secret").await;
    let said = demo.said();
    let beside = |label: &str| {
        let mut lines = said.lines().map(str::trim_start);
        let value = lines.find_map(|line| line.strip_prefix(label));
        value.unwrap_or_else(|| panic!("no {label}: {said}")).trim()
    };
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for (label, role) in [("its token", "admin"), ("view only", "viewer")] {
        let state = http
            .get(format!("{}/api/state", beside("operator page")))
            .bearer_auth(beside(label))
            .send()
            .await
            .unwrap();
        assert_eq!(state.status(), 200, "{role}");
        let state: Value = serde_json::from_str(&state.text().await.unwrap()).unwrap();
        assert_eq!(state["role"], role);
        for kind in ["done", "parked", "waiting"] {
            assert_eq!(state["counts"][kind], 1, "{state}");
        }
    }
    demo.signal("INT");
    let ended = demo.ended().await;
    ended.assert_code(0);
    // That one row is parked is logged as an error, as ever.
    assert_eq!(ended.err.matches("ERROR").count(), 1, "{ended:#?}");
    assert!(ended.err.contains("outcome=\"parked\""), "{ended:#?}");
}

/// No Docker engine is needed: the check is a line for a shell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_check_of_the_image_tells_a_service_from_none() {
    let image = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile")).unwrap();
    let image = image.replace("\\\n", "");
    let check = image
        .lines()
        .find_map(|line| line.strip_prefix("HEALTHCHECK ")?.split_once(" CMD "))
        .map(|(_, check)| check.to_owned());
    let check = check.expect("there is a check");
    let world = World::prepare(Wishes::default());
    let service = Service::start(&world).await;
    let address = service.url.strip_prefix("http://").unwrap().to_owned();
    let port = address.rsplit(':').next().unwrap().to_owned();
    let is_healthy = |settings: &[(&str, &str)]| {
        let check = Command::new("/bin/sh")
            .args(["-c", &check])
            .env_remove("PORT")
            .env_remove("BIND_ADDR")
            .envs(settings.iter().copied())
            .output();
        check.unwrap().status.success()
    };

    assert!(is_healthy(&[("BIND_ADDR", &address)]));
    assert!(is_healthy(&[("PORT", &port)]));
    assert!(is_healthy(&[("BIND_ADDR", "[::]:1"), ("PORT", &port)]));
    service.stop().await.assert_code(0);
    assert!(!is_healthy(&[("BIND_ADDR", &address)]));
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn everything_that_is_missing_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = Launch::new(folder.path(), &["serve"]).run().await;
    nothing.assert_code(2);
    for name in [
        "WEBHOOK_SECRET",
        "SUPABASE_URL",
        "SUPABASE_KEY",
        "SYNC_SINCE",
        "AMOCRM_SUBDOMAIN",
        "AMOCRM_ACCESS_TOKEN",
        "AMOCRM_TRIPWIRE_PIPELINE_ID",
        "AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID",
    ] {
        assert!(
            nothing.err.contains(&format!("\n  {name} is not set")),
            "{name}\n{}",
            nothing.err
        );
    }
    assert!(
        nothing.err.starts_with("8 settings are wrong or missing:"),
        "{}",
        nothing.err
    );
    assert_eq!(names_in(folder.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_or_misspelt_setting_is_named_and_no_value_is_shown() {
    let world = World::prepare(Wishes::default());
    let wrong = Launch::in_world(&world, &["serve"])
        .without("SETTLE_DELAY")
        .with("SETTLE_DELEY", "5s")
        .with("WEBHOOK_SECRET", "whsec_tooshortvalue")
        .with("SUPABASE_KEY", "key with a-gap-inside")
        .with("AMOCRM_ACCESS_TOKEN", "token with a-gap-inside")
        .with("AMOCRM_BATCH_SIZE", "5000")
        .run()
        .await;
    wrong.assert_code(2);
    for words in [
        "SETTLE_DELEY",
        "SETTLE_DELAY",
        "WEBHOOK_SECRET",
        "SUPABASE_KEY",
        "AMOCRM_ACCESS_TOKEN",
        "AMOCRM_BATCH_SIZE",
    ] {
        assert!(wrong.err.contains(words), "{words}\n{}", wrong.err);
    }
    for value in ["tooshort", "a-gap-inside", "5000"] {
        assert!(!wrong.words().contains(value), "{value}\n{}", wrong.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_line_of_the_log_says_what_runs_and_where_it_sends() {
    let world = World::prepare(Wishes::default());
    world.student("aigerim@example.kz");
    let row = world.insert(&json!({ "email": "aigerim@example.kz" }));
    // The names are known once the pipelines were read.
    for (pipeline, stage) in [
        (json!(null), json!(null)),
        (json!("Tripwire"), json!("Купил продукт")),
    ] {
        let mut service = Service::start(&world).await;
        let started = service.program.until_logged("service.started", |_| true);
        let started = started.await;
        let version = started["version"].as_str().unwrap();
        assert!(version.starts_with(env!("CARGO_PKG_VERSION")), "{version}");
        // The host, where it is none of amoCRM's.
        assert_eq!(started["account"], "127.0.0.1");
        assert_eq!(started["pipeline.id"], world.setting.pipeline.get());
        assert_eq!(started["stage.id"], world.setting.target.get());
        assert_eq!(started["pipeline.name"], pipeline, "{started}");
        assert_eq!(started["stage.name"], stage, "{started}");
        if pipeline.is_null() {
            assert_eq!(service.deliver(&world, row).await, Some(202));
            service.until_synced(row).await;
        }
        service.stop().await.assert_code(0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_starts_from_exactly_what_the_sandbox_prints() {
    let folder = tempfile::tempdir().unwrap();
    outbound::install_crypto_provider();
    let mut sandbox = Launch::new(folder.path(), &["sandbox", "--rows", "4"]).spawn();
    sandbox.until_said("SYNC_SINCE=").await;
    let settings = folder.path().join(".env");
    fs::write(&settings, sandbox.said()).unwrap();
    fs::set_permissions(&settings, fs::Permissions::from_mode(0o644)).unwrap();

    // Free ports: the default ones may be in use on this machine.
    let serve = Launch::new(folder.path(), &["serve"])
        .with("BIND_ADDR", "127.0.0.1:0")
        .with("METRICS_ADDR", "127.0.0.1:0");
    let mut service = Service::launch(serve).await;
    let warned =
        |line: &String| line.contains("settings.warning") && line.contains("chmod 600 .env");
    let warned = service.program.log().iter().any(warned);
    assert!(warned, "{:#?}", service.program.log());
    let is_synced = |line: &serde_json::Value| line["outcome"] == "synced";
    service
        .program
        .until_logged("sync.attempt", is_synced)
        .await;
    service.stop().await.assert_code(0);

    // An invalid secret is refused before any setting is printed.
    let wrong = [
        "sandbox",
        "--webhook-url",
        "http://127.0.0.1:9",
        "--secret",
        "whsec_x",
    ];
    Launch::new(folder.path(), &wrong)
        .run()
        .await
        .assert_code(1);
}
