//! Files that are removed, replaced or moved while they are open.

use std::fs;

use super::*;

impl Fixture {
    /// One of the inbox's files.
    fn file(&self, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("inbox.db{suffix}"))
    }

    async fn until_lost(&self) {
        let mut writing = self.inbox.writing();
        let lost = writing.wait_for(|it| matches!(it, Writing::Lost { .. }));
        lost.await.unwrap();
    }
}

/// What may become of the files.
type Loss = fn(&Fixture);

const LOSSES: [(&str, Loss); 6] = [
    ("the file is removed", |t| {
        fs::remove_file(t.path()).unwrap();
    }),
    ("the file is moved", |t| {
        fs::rename(t.path(), t.file(".old")).unwrap();
    }),
    ("the file is replaced by its own copy", |t| {
        fs::copy(t.path(), t.file(".copy")).unwrap();
        fs::rename(t.file(".copy"), t.path()).unwrap();
    }),
    ("the folder is moved", |t| {
        let folder = t.folder.path();
        fs::rename(folder, folder.with_extension("old")).unwrap();
    }),
    ("the lock is removed", |t| {
        fs::remove_file(t.file(".lock")).unwrap();
    }),
    ("the log is removed", |t| {
        fs::remove_file(t.file("-wal")).unwrap();
    }),
];

#[tokio::test]
async fn nothing_is_acknowledged_that_goes_into_a_lost_file() {
    for (what, lose) in LOSSES {
        let t = Fixture::new().await;
        t.store([delivered(1)]).await;
        lose(&t);

        let stored = t.inbox.store(vec![delivered(2)]).await;
        assert!(
            matches!(stored, Err(InboxError::Database { .. })),
            "{what}: {stored:?}"
        );
        assert!(t.inbox.is_lost() && !t.inbox.accepts(), "{what}");
        t.inbox.close().await;
        drop(fs::remove_dir_all(t.folder.path().with_extension("old")));
    }
}

#[tokio::test]
async fn a_lost_file_is_noticed_without_a_write() {
    for (_, lose) in LOSSES {
        let t = Fixture::new().await;
        t.store([delivered(1)]).await;
        lose(&t);
        t.until_lost().await;
        drop(fs::remove_dir_all(t.folder.path().with_extension("old")));
    }
}

#[tokio::test]
async fn what_is_put_back_meanwhile_is_lost_all_the_same() {
    let t = Fixture::new().await;
    fs::rename(t.path(), t.file(".old")).unwrap();
    assert!(t.inbox.store(vec![delivered(1)]).await.is_err());
    fs::rename(t.file(".old"), t.path()).unwrap();
    assert!(t.inbox.store(vec![delivered(2)]).await.is_err());
    assert!(t.inbox.is_lost());
}

#[tokio::test]
async fn a_connection_that_is_made_anew_makes_no_file() {
    let t = Fixture::new().await;
    t.fill_the_disk().await;
    assert!(t.inbox.store(vec![delivered(1)]).await.is_err());
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(t.file(suffix)).ok();
    }

    assert!(t.inbox.store(vec![delivered(2)]).await.is_err());
    t.inbox.close().await;
    assert!(!t.path().exists());
}

/// With one entry, which is in the log.
async fn after_a_failed_write() -> Fixture {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    t.fill_the_disk().await;
    assert!(t.inbox.store(vec![delivered(2)]).await.is_err());
    t
}

#[tokio::test]
async fn a_clean_stop_leaves_no_log() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    t.state_of(1).await;
    assert!(t.file("-wal").exists());
    t.inbox.close().await;
    assert!(!t.file("-wal").exists());
}

/// On a full disk the log would keep the room that the next writes need.
#[tokio::test]
async fn after_a_failed_write_the_log_is_in_the_file() {
    let t = after_a_failed_write().await;
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("inbox.db");
    fs::copy(t.path(), &alone).unwrap();
    let alone = Inbox::open(&alone, Role::Owner, t.clock.clone())
        .await
        .unwrap();
    assert_eq!(alone.entries(None, 9).await.unwrap().len(), 1);
    alone.close().await;
}

/// As a person does who makes room on a full disk.
#[tokio::test]
async fn a_log_that_is_removed_after_writes_have_failed_is_missed() {
    let t = after_a_failed_write().await;
    assert!(!t.inbox.is_lost());
    fs::remove_file(t.file("-wal")).unwrap();

    assert!(t.inbox.store(vec![delivered(3)]).await.is_err());
    assert!(t.inbox.is_lost());
}

/// SQLite removes the log by its name when a file is closed.
#[tokio::test]
async fn an_inbox_that_has_taken_the_place_of_a_lost_one_keeps_its_log() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    // The readers too.
    t.state_of(1).await;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        fs::remove_file(t.file(suffix)).unwrap();
    }
    let next = t.open(Role::Owner).await.unwrap();
    next.store(vec![delivered(2)]).await.unwrap();

    t.until_lost().await;
    t.inbox.close().await;

    assert!(t.file("-wal").exists());
    next.store(vec![delivered(3)]).await.unwrap();
    let entries = next.entries(None, 9).await.unwrap();
    assert_eq!(entries.len(), 2);
    next.close().await;
    let again = t.open(Role::Owner).await.unwrap();
    assert_eq!(again.entries(None, 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_well_behaved_neighbour_does_is_no_loss() {
    let t = Fixture::new().await;
    let guest = t.open(Role::Guest).await.unwrap();
    t.store([delivered(1)]).await;
    guest.store(vec![delivered(2)]).await.unwrap();
    guest.close().await;
    t.tamper("PRAGMA wal_checkpoint(TRUNCATE)").await;
    t.tamper("VACUUM").await;
    t.store([delivered(3)]).await;
    // A connection of its own after an error.
    t.fill_the_disk().await;
    assert!(t.inbox.store(vec![delivered(4)]).await.is_err());
    t.tamper("DROP TRIGGER full").await;
    t.store([delivered(4)]).await;
    t.store([delivered(5)]).await;
    assert!(t.inbox.accepts());
}
