//! An inbox that takes no writes.

use serde_json::json;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tripwire_sync::inbox::Writing;

use crate::support::{EMAIL, Wishes, World};

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
