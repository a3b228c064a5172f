//! An inbox that takes no writes, or whose file is removed, replaced or moved while the service runs.

use std::{fs, path::Path, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tripwire_sync::{
    domain::{InboxFault, Lang},
    inbox::Writing,
};

use crate::{
    alerts::Bot,
    program::{Launch, Service},
    support::{EMAIL, NowForTests, Wishes, World},
};

/// Something that a well-behaved process would not do to the file.
async fn tamper(world: &World, statement: &str) {
    let options = SqliteConnectOptions::new().filename(world.inbox_path());
    let mut conn = options.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_record_fails_is_not_sent() {
    // What cannot be stored, and the writes that were sent before it.
    let choice = "NEW.progress LIKE '%\"choice\":{%'";
    let intent_of_a_note = "NEW.progress LIKE '%\"intent\":{\"write\":\"note\"%'";
    for (unstorable, sent) in [(choice, &[][..]), (intent_of_a_note, &["leads.update"])] {
        let world = World::start(Wishes::brisk()).await;
        // As a full disk does it: the statement fails, and SQLite undoes the whole transaction.
        let full = format!(
            "CREATE TRIGGER full BEFORE UPDATE ON entry WHEN NEW.state = 'claimed' AND {unstorable}
             BEGIN SELECT RAISE(ROLLBACK, 'full'); END"
        );
        tamper(&world, &full).await;
        world.student(EMAIL);
        let row = world.insert(&json!({}));
        let mut writing = world.inbox().writing();
        assert_eq!(world.deliver(row).await, 202);

        for _ in 0..3 {
            let fails = writing.wait_for(|it| *it != Writing::Works);
            fails.await.unwrap();
            let works = writing.wait_for(|it| *it == Writing::Works);
            works.await.unwrap();
        }
        let routes: Vec<_> = world.amo_writes().into_iter().map(|it| it.route).collect();
        assert_eq!(routes, sent, "{unstorable}");

        tamper(&world, "DROP TRIGGER full").await;
        world.until_synced_once(row).await;
    }
}

/// The page and the metrics must not say that a service works that has lost the lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_another_service_has_is_told_although_it_cannot_be_recorded() {
    let mut world = World::prepare(Wishes::brisk());
    let mut settings = world.settings();
    settings.timings.inbox_lasting = Duration::from_hours(1);
    world.launch_with(settings).await;
    world.until_sync_is("working").await;
    tamper(
        &world,
        "CREATE TRIGGER full BEFORE INSERT ON state WHEN NEW.key = 'lease' BEGIN SELECT RAISE(ABORT, 'full'); END",
    )
    .await;
    let until = Timestamp::now_for_tests() + SignedDuration::from_hours(1);
    let postgrest = world.sandbox.postgrest.clone();
    postgrest.set_lease(Some(("another", until)));
    world.until_sync_is("standby").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_inbox_is_told_and_ends_the_process_and_the_next_one_finds_every_row() {
    let losses: [fn(&Path); 3] = [
        |folder| fs::remove_file(folder.join("inbox.db")).unwrap(),
        |folder| {
            fs::copy(folder.join("inbox.db"), folder.join("other")).unwrap();
            fs::rename(folder.join("other"), folder.join("inbox.db")).unwrap();
        },
        |folder| fs::rename(folder, folder.with_extension("old")).unwrap(),
    ];
    for lose in losses {
        let world = World::prepare(Wishes {
            sweep_every: Some(Duration::from_hours(1)),
            ..Wishes::default()
        });
        let mut bot = Bot::start().await;
        let folder = world.folder().join("data");
        let launch = || {
            Launch::in_world(&world, &["serve"])
                .with(
                    "DATABASE_URL",
                    format!("sqlite://{}", folder.join("inbox.db").display()),
                )
                .with("TELEGRAM_BOT_TOKEN", "123456:token")
                .with("TELEGRAM_CHAT_ID", "-100500")
                .with("TELEGRAM_BASE_URL", &bot.url)
        };
        let service = Service::launch(launch()).await;
        service.until_sync_is("working").await;
        world.student(EMAIL);
        let row = world.insert(&json!({}));

        lose(&folder);
        let status = service.deliver(&world, row).await;
        assert!(matches!(status, None | Some(503)), "{status:?}");
        let ended = service.program.ended().await;
        ended.assert_code(1);
        assert!(ended.err.contains("inbox.lost"), "{}", ended.err);
        assert!(
            ended.err.contains("replaced or moved while it was open"),
            "{}",
            ended.err
        );
        let mut next = Service::launch(launch()).await;
        bot.until_said(InboxFault::FileLost.hint(Lang::Russian))
            .await;

        next.until_synced(row).await;
        next.stop().await.assert_code(0);
        world.assert_noted_once(row, world.deals_of(EMAIL)[0]);
    }
}
