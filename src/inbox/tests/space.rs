//! The room that the inbox takes.

use std::fs;

use super::*;

#[tokio::test]
async fn the_space_is_told_for_an_inbox_and_before_there_is_one() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    let space = Inbox::space(&t.path()).unwrap();
    let length = |name: &str| fs::metadata(t.folder.path().join(name)).unwrap().len();
    assert_eq!(space.size, length("inbox.db") + length("inbox.db-wal"));
    assert!(space.free > 0);

    let absent = t.folder.path().join("not/yet/inbox.db");
    let before = Inbox::space(&absent).unwrap();
    assert_eq!(before.size, 0);
    assert!(before.free > 0);
    // A relative path, as in the default settings.
    assert!(
        Inbox::space(std::path::Path::new("no-such-inbox.db"))
            .unwrap()
            .free
            > 0
    );
}

/// Of the file, in the mode in which it was made.
async fn pragma(t: &Fixture, name: &str) -> i64 {
    let statement = AssertSqlSafe(format!("PRAGMA {name}"));
    let mut conn = t.connect().await;
    sqlx::query_scalar(statement)
        .fetch_one(&mut conn)
        .await
        .unwrap()
}

/// Retention has removed so many entries with their histories.
async fn after_a_purge(entries: u64) -> Fixture {
    let t = Fixture::new().await;
    let rows = || 0..u128::from(entries);
    t.store(rows().map(delivered).collect::<Vec<_>>()).await;
    let claim = t.inbox.claim(100_000, None).await.unwrap().unwrap();
    let ends = rows().map(done).collect();
    t.inbox.settle(claim.token, ends).await.unwrap();
    let t = t.reopened().await;
    t.clock.advance(MINUTE);
    assert_eq!(t.inbox.purge_done(t.now()).await.unwrap(), entries);
    t
}

impl Fixture {
    /// The log is carried over into the file at the close.
    async fn reopened(self) -> Self {
        self.inbox.close().await;
        let inbox = self.open(Role::Owner).await.unwrap();
        Self { inbox, ..self }
    }

    async fn give_back(&self) -> bool {
        let clock = self.clock.clone() as SharedClock;
        let mut link = sqlite::open(&self.path(), Role::Guest, false, &clock)
            .await
            .unwrap()
            .link;
        let more = maintenance::give_back(link.conn().await.unwrap()).await;
        link.close().await;
        more.unwrap()
    }
}

#[tokio::test]
async fn after_a_purge_the_file_shrinks_a_part_at_a_time() {
    let t = after_a_purge(12_000).await;
    let before = Inbox::space(&t.path()).unwrap().size;
    let mut parts = 1;
    while t.give_back().await {
        parts += 1;
    }
    // A thousand pages at a time, and the rest.
    assert!((2..10).contains(&parts), "{parts}");
    let t = t.reopened().await;
    let after = Inbox::space(&t.path()).unwrap().size;
    assert!(after < before / 4, "{before} bytes, then {after}");
    assert_eq!(pragma(&t, "freelist_count").await, 256);
    // The inbox works on.
    assert_eq!(t.store([delivered(1)]).await, [Stored::New]);
}

#[tokio::test]
async fn the_writer_gives_space_back_by_itself() {
    let t = after_a_purge(4_000).await.reopened().await;
    let size = || fs::metadata(t.path()).unwrap().len();
    let before = size();
    // Its first look comes right after the start.
    let shrunk = tokio::time::timeout(MINUTE, async {
        while size() > before * 2 / 3 {
            t.store([delivered(1)]).await;
        }
    });
    shrunk.await.unwrap();
}

#[tokio::test]
async fn a_file_of_an_earlier_version_is_rewritten_once_at_a_start_and_can_shrink_then() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    t.inbox.close().await;
    t.tamper("PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = NONE; VACUUM;")
        .await;
    assert_eq!(pragma(&t, "auto_vacuum").await, 0);
    // A command beside the service does not rewrite the file.
    t.open(Role::Guest).await.unwrap().close().await;
    assert_eq!(pragma(&t, "auto_vacuum").await, 0);

    let t = t.reopened().await;
    assert_eq!(pragma(&t, "auto_vacuum").await, 2);
    assert_eq!(t.state_of(1).await, State::Pending);
}

#[tokio::test]
async fn a_rewrite_that_was_cut_off_is_begun_again_only_when_a_person_says_so() {
    let t = Fixture::new().await;
    t.inbox.close().await;
    t.tamper("PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = NONE; VACUUM;")
        .await;
    let marker = t.path().with_file_name("inbox.db.rewriting");
    fs::write(&marker, "").unwrap();

    let t = t.reopened().await;
    assert_eq!(pragma(&t, "auto_vacuum").await, 0);
    assert!(marker.exists());
    assert_eq!(t.store([delivered(1)]).await, [Stored::New]);

    fs::remove_file(&marker).unwrap();
    let t = t.reopened().await;
    assert_eq!(pragma(&t, "auto_vacuum").await, 2);
    assert!(!marker.exists());
}
