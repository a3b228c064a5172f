//! Durability: kills, failures within a group, other processes, a file that cannot be written.

use futures::future::join_all;

use super::*;

/// Runs in a runtime of its own, which is then dropped with all its tasks and connections: what a kill leaves behind.
fn until_killed<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_claims_do_not() {
    let (disk, token) = until_killed(async {
        let t = Fixture::new().await;
        t.store((1..=50).map(delivered).collect::<Vec<_>>()).await;
        let claim = t.inbox.claim(10, None).await.unwrap().unwrap();
        let marks = vec![mark(2, chosen(5))];
        t.inbox.checkpoint(claim.token, marks).await.unwrap();
        t.inbox.settle(claim.token, vec![done(1)]).await.unwrap();
        (t.abandoned(), claim.token)
    });
    until_killed(async move {
        disk.0.advance(MINUTE);
        let t = Fixture::on(disk).await;
        let counts = t.inbox.counts().await.unwrap().by_state;
        assert_eq!(
            counts,
            HashMap::from([(State::Done, 1), (State::Pending, 49)])
        );
        let entry = t.entry(2).await;
        assert_eq!((entry.due_at, entry.progress), (t.now(), chosen(5)));

        let lost = t.inbox.settle(token, vec![done(2)]).await;
        assert!(matches!(lost, Err(InboxError::ClaimLost { .. })));
        assert!(t.claim().await.token.0 > token.0, "no token is used again");
    });
}

#[test]
fn a_kill_in_the_middle_of_a_burst_loses_nothing_that_was_acknowledged() {
    let (disk, acknowledged) = until_killed(async {
        let t = Fixture::new().await;
        let (told, mut acknowledged) = mpsc::unbounded_channel();
        for n in 0..2000 {
            let (inbox, told) = (t.inbox.clone(), told.clone());
            tokio::spawn(async move {
                if inbox.store(vec![delivered(n)]).await.is_ok() {
                    told.send(n).unwrap();
                }
            });
        }
        let mut before_the_kill = Vec::new();
        acknowledged.recv_many(&mut before_the_kill, 100).await;
        // The spawned tasks end with the runtime, with all that they hold.
        (t.abandoned(), before_the_kill)
    });
    assert!(!acknowledged.is_empty());
    until_killed(async move {
        let t = Fixture::on(disk).await;
        for n in acknowledged {
            assert_eq!(t.state_of(n).await, State::Pending);
        }
    });
}

#[tokio::test]
async fn a_closed_inbox_has_written_everything_and_takes_nothing_more() {
    let t = Fixture::new().await;
    let burst = (1..=20).map(|n| t.inbox.store(vec![delivered(n)]));
    let (stored, ()) = tokio::join!(join_all(burst), t.inbox.close());
    assert!(stored.iter().all(Result::is_ok));

    assert!(!t.inbox.accepts());
    let late = t.inbox.store(vec![delivered(99)]).await;
    assert!(matches!(late, Err(InboxError::Closed)));
    let look = t.inbox.entry(row(1)).await;
    assert!(matches!(look, Err(InboxError::Closed)));
    let log = t.folder.path().join("inbox.db-wal");
    assert!(!log.exists(), "the log is folded into the file");
    t.inbox.close().await;

    // The old handle is still there; only its lock is gone.
    let again = t.open(Role::Owner).await.unwrap();
    let counts = again.counts().await.unwrap();
    assert_eq!(counts.by_state, HashMap::from([(State::Pending, 20)]));
}

#[tokio::test]
async fn a_burst_is_stored_once_each_in_few_commits() {
    let t = Fixture::new().await;
    let before = t.inbox.shared.signals.commits.load(Ordering::Relaxed);
    // 150 rows, the first fifty of them twice.
    let burst = (0..200).map(|n| t.inbox.store(vec![delivered(n % 150)]));
    let stored: Vec<Stored> = join_all(burst)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    let commits = t.inbox.shared.signals.commits.load(Ordering::Relaxed) - before;

    assert_eq!(stored[..150], [Stored::New; 150]);
    assert_eq!(stored[150..], [Stored::Duplicate; 50]);
    assert!(commits <= 4, "{commits} commits");
    let counts = t.inbox.counts().await.unwrap();
    assert_eq!(counts.by_state, HashMap::from([(State::Pending, 150)]));
}

#[tokio::test]
async fn a_full_queue_refuses_deliveries_and_lets_the_engine_wait() {
    let t = Fixture::new().await;
    t.store([delivered(0)]).await;
    let claim = t.claim().await;
    let crowd = writer::MAX_WAITING as u128;
    let burst = (1..=crowd + 1).map(|n| t.inbox.store(vec![delivered(n)]));
    let settle = t.inbox.settle(claim.token, vec![done(0)]);
    // The writer gets no turn before all of these have been polled once.
    let (stored, settled) = tokio::join!(join_all(burst), settle);
    let (taken, refused): (Vec<_>, Vec<_>) = stored.into_iter().partition(Result::is_ok);
    assert_eq!(taken.len() as u128, crowd);
    assert!(matches!(refused[..], [Err(InboxError::Busy)]));
    settled.unwrap();
}

#[tokio::test]
async fn a_lost_claim_does_not_undo_its_neighbours() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    let claim = t.claim().await;
    let nobodys = ClaimToken(claim.token.0 + 1000);
    let before = t.inbox.shared.signals.commits.load(Ordering::Relaxed);

    let (stored, lost, settled, also_stored) = tokio::join!(
        t.inbox.store(vec![delivered(2)]),
        t.inbox.settle(nobodys, vec![parked(1)]),
        t.inbox.settle(claim.token, vec![done(1)]),
        t.inbox.store(vec![delivered(3)]),
    );

    assert!(matches!(lost, Err(InboxError::ClaimLost { .. })));
    assert_eq!(stored.unwrap(), [Stored::New]);
    assert_eq!(also_stored.unwrap(), [Stored::New]);
    settled.unwrap();
    let commits = t.inbox.shared.signals.commits.load(Ordering::Relaxed) - before;
    assert_eq!(commits, 1, "all four went in one group");
    assert_eq!(t.state_of(1).await, State::Done);
    assert_eq!(t.state_of(2).await, State::Pending);
    assert_eq!(t.state_of(3).await, State::Pending);
}

#[tokio::test]
async fn entries_claimed_for_a_caller_that_left_are_given_back() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    let mut claiming = Box::pin(t.inbox.claim(9, None));
    assert!(futures::poll!(&mut claiming).is_pending());
    t.inbox.clear_state("nothing").await.unwrap();
    assert_eq!(t.state_of(1).await, State::Claimed);

    // The answer is there, and is never looked at.
    drop(claiming);
    t.inbox.clear_state("nothing").await.unwrap();
    assert_eq!(t.state_of(1).await, State::Pending);

    let gone = futures::FutureExt::now_or_never(t.inbox.claim(9, None));
    assert!(gone.is_none());
    t.inbox.clear_state("nothing").await.unwrap();
    t.inbox.clear_state("nothing").await.unwrap();
    assert_eq!(t.state_of(1).await, State::Pending);
}

/// As a full disk does it: the statement fails, and SQLite undoes the whole transaction.
const DISK_FULL: &str = "
    CREATE TRIGGER full_entry BEFORE INSERT ON entry BEGIN SELECT RAISE(ROLLBACK, 'full'); END;
    CREATE TRIGGER full_state BEFORE INSERT ON state BEGIN SELECT RAISE(ROLLBACK, 'full'); END;
    CREATE TRIGGER full_counter BEFORE UPDATE ON counter BEGIN SELECT RAISE(ROLLBACK, 'full'); END;";

#[tokio::test]
async fn a_failed_group_fails_all_its_callers_and_the_writer_recovers_by_itself() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    t.tamper(DISK_FULL).await;

    let (state, stored, claimed) = tokio::join!(
        t.inbox.clear_state("halt"),
        t.inbox.store(vec![delivered(2)]),
        t.inbox.claim(9, None),
    );

    for failed in [state.err(), stored.err(), claimed.err()] {
        assert!(matches!(failed, Some(InboxError::Database { .. })));
    }
    assert!(!t.inbox.accepts());
    assert_eq!(t.state_of(1).await, State::Pending);
    assert_eq!(t.inbox.entry(row(2)).await.unwrap(), None);

    t.tamper("DROP TRIGGER full_entry; DROP TRIGGER full_state; DROP TRIGGER full_counter")
        .await;
    let mut writing = t.inbox.writing();
    let works = writing.wait_for(|writing| *writing == Writing::Works);
    works.await.unwrap();
    assert!(t.inbox.accepts());
    assert_eq!(t.store([delivered(2)]).await, [Stored::New]);
    let claim = t.claim().await;
    assert_eq!(rows_of(&claim.entries), [row(1), row(2)]);
}

#[tokio::test]
async fn an_inbox_that_cannot_be_written_can_be_closed() {
    let t = Fixture::new().await;
    t.tamper(DISK_FULL).await;
    let (stored, ()) = tokio::join!(t.inbox.store(vec![delivered(1)]), t.inbox.close());
    assert!(matches!(stored, Err(InboxError::Database { .. })));
    let late = t.inbox.store(vec![delivered(1)]).await;
    assert!(matches!(late, Err(InboxError::Closed)));
}

#[tokio::test]
async fn the_inbox_stays_unready_while_writing_fails() {
    let t = Fixture::new().await;
    t.tamper(DISK_FULL).await;
    assert!(t.inbox.store(vec![delivered(1)]).await.is_err());

    // The command has nothing to remove, so its success would not prove that writing works.
    assert!(t.inbox.clear_state("nothing").await.is_err());
    assert!(!t.inbox.accepts());
}

#[tokio::test]
async fn writes_that_fail_for_long_are_told_until_one_works() {
    let t = Fixture::new().await;
    t.inbox.call_it_lasting_after(Duration::from_millis(1));
    t.tamper(DISK_FULL).await;
    assert!(t.inbox.store(vec![delivered(1)]).await.is_err());
    let since = t.now();
    let mut writing = t.inbox.writing();
    let lasting = Writing::Fails {
        since,
        is_lasting: true,
    };
    // The probe of each second is a try.
    writing.wait_for(|it| *it == lasting).await.unwrap();

    t.tamper("DROP TRIGGER full_entry; DROP TRIGGER full_state; DROP TRIGGER full_counter")
        .await;
    let works = writing.wait_for(|it| *it == Writing::Works);
    works.await.unwrap();
    t.store([delivered(1)]).await;
}

#[tokio::test]
async fn a_commit_that_fails_undoes_the_group_and_the_next_one_starts_clean() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    // A deferred constraint is checked at the commit, and leaves the transaction open when it fails.
    t.tamper(
        "CREATE TABLE promise (entry INTEGER REFERENCES entry (seq) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER broken AFTER INSERT ON entry BEGIN INSERT INTO promise VALUES (-1); END",
    )
    .await;

    let (stored, claimed) = tokio::join!(t.inbox.store(vec![delivered(2)]), t.inbox.claim(9, None));
    assert!(matches!(stored, Err(InboxError::Database { .. })));
    assert!(matches!(claimed, Err(InboxError::Database { .. })));
    assert!(!t.inbox.accepts());
    assert_eq!(t.state_of(1).await, State::Pending);

    t.tamper("DROP TRIGGER broken").await;
    assert_eq!(t.store([delivered(2)]).await, [Stored::New]);
    assert!(t.inbox.accepts());
    assert_eq!(rows_of(&t.claim().await.entries), [row(1), row(2)]);
}

#[tokio::test]
async fn a_command_that_fails_by_itself_leaves_its_neighbours_alone() {
    let t = Fixture::new().await;
    t.tamper("CREATE TRIGGER sick BEFORE INSERT ON state BEGIN SELECT RAISE(ABORT, 'sick'); END")
        .await;
    let (sick, stored) = tokio::join!(
        t.inbox.set_state("halt", &1),
        t.inbox.store(vec![delivered(1)]),
    );
    assert!(matches!(sick, Err(InboxError::Database { .. })));
    assert_eq!(stored.unwrap(), [Stored::New]);
    assert!(!t.inbox.accepts());
    t.store([delivered(2)]).await;
    assert!(t.inbox.accepts());
}

#[tokio::test]
async fn changed_remembers_what_happened_before_it_was_asked() {
    let t = Fixture::new().await;
    let is_quiet = || futures::FutureExt::now_or_never(t.inbox.changed()).is_none();
    assert!(is_quiet());
    t.store([delivered(1), delivered(2)]).await;
    assert!(!is_quiet());
    assert!(is_quiet(), "each change wakes once");

    t.store([delivered(1)]).await;
    assert!(is_quiet(), "a duplicate is no change");
    let claim = t.claim().await;
    let ends = vec![done(1), parked(2)];
    t.inbox.settle(claim.token, ends).await.unwrap();
    assert!(is_quiet(), "the engine knows what it settled");
    t.store([swept(1)]).await;
    assert!(!is_quiet());
    t.inbox.revive(Revival::AllParked).await.unwrap();
    assert!(!is_quiet());
    t.inbox.revive(Revival::AllParked).await.unwrap();
    assert!(is_quiet(), "nobody was left to revive");
}

#[tokio::test]
async fn a_second_owner_is_refused_until_the_first_lets_go() {
    let t = Fixture::new().await;
    let clone = t.inbox.clone();
    let refused = t.open(Role::Owner).await;
    assert!(matches!(refused, Err(InboxError::AlreadyOwned { path }) if path == t.path()));

    let disk = t.abandoned();
    let path = disk.1.path().join("inbox.db");
    let refused = Inbox::open(&path, Role::Owner, disk.0.clone()).await;
    assert!(matches!(refused, Err(InboxError::AlreadyOwned { .. })));

    drop(clone);
    Fixture::on(disk).await;
}

#[tokio::test]
async fn a_guest_stores_beside_the_owner_and_the_owner_notices() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    t.inbox.changed().await;
    let claim = t.claim().await;
    let guest = t.open(Role::Guest).await.unwrap();
    assert_eq!(t.state_of(1).await, State::Claimed, "a guest voids nothing");
    assert_eq!(
        guest.hasher().text("t", "x"),
        t.inbox.hasher().text("t", "x")
    );

    assert_eq!(
        guest.store(vec![backfilled(2)]).await.unwrap(),
        [Stored::New]
    );
    t.inbox.changed().await;
    assert_eq!(t.state_of(2).await, State::Pending);
    t.inbox.settle(claim.token, vec![done(1)]).await.unwrap();
    assert_eq!(
        guest.entry(row(1)).await.unwrap().unwrap().state,
        State::Done
    );
    guest.close().await;
    assert_eq!(t.store([delivered(3)]).await, [Stored::New]);
}

#[tokio::test]
async fn two_processes_may_make_the_file_at_the_same_moment() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::UNIX_EPOCH);
    let path = folder.path().join("inbox.db");
    let (owner, guest) = tokio::join!(
        Inbox::open(&path, Role::Owner, clock.clone()),
        Inbox::open(&path, Role::Guest, clock.clone()),
    );
    let hashes = [owner, guest].map(|inbox| inbox.unwrap().hasher().text("t", "x"));
    assert_eq!(hashes[0], hashes[1]);
}

#[tokio::test]
async fn writers_of_two_processes_take_turns() {
    let t = Fixture::new().await;
    let guest = t.open(Role::Guest).await.unwrap();
    let ours = (0..100).map(|n| t.inbox.store(vec![delivered(n)]));
    let theirs = (50..150).map(|n| guest.store(vec![backfilled(n)]));
    let (ours, theirs) = tokio::join!(join_all(ours), join_all(theirs));
    let new = ours
        .into_iter()
        .chain(theirs)
        .map(Result::unwrap)
        .filter(|stored| *stored == [Stored::New])
        .count();
    assert_eq!(new, 150);
}

#[tokio::test]
async fn hashes_stay_the_same_over_a_restart() {
    let t = Fixture::new().await;
    let before = t.inbox.hasher().text("t", "x");
    t.inbox.close().await;
    let again = t.open(Role::Owner).await.unwrap();
    assert_eq!(again.hasher().text("t", "x"), before);

    let other = Fixture::new().await;
    assert_ne!(other.inbox.hasher().text("t", "x"), before);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_reported_as_such() {
    let t = Fixture::new().await;
    let path = t.folder.path().join("other.db");
    std::fs::write(
        &path,
        "not a database, though long enough to look like one".repeat(100),
    )
    .unwrap();
    let opened = Inbox::open(&path, Role::Owner, t.clock.clone()).await;
    let Err(InboxError::Open { source, .. }) = opened else {
        panic!("{opened:?}");
    };
    assert!(source.to_string().contains("not a database"), "{source}");
}

#[tokio::test]
async fn a_damaged_file_is_found_at_the_start() {
    let t = Fixture::new().await;
    t.store((0..500).map(delivered).collect::<Vec<_>>()).await;
    t.inbox.close().await;
    let mut bytes = std::fs::read(t.path()).unwrap();
    // The root pages of tables and indexes stay, some leaves behind them do not.
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4 * 4096].fill(0xA5);
    std::fs::write(t.path(), bytes).unwrap();

    let opened = t.open(Role::Owner).await;
    let Err(InboxError::Open { source, .. }) = opened else {
        panic!("{opened:?}");
    };
    assert!(source.to_string().contains("damaged"), "{source}");
}

#[cfg(unix)]
#[tokio::test]
async fn folder_and_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let t = Fixture::new().await;
    let folder = t.folder.path().join("data/deep");
    let path = folder.join("inbox.db");
    let inbox = Inbox::open(&path, Role::Owner, t.clock.clone())
        .await
        .unwrap();
    inbox.store(vec![delivered(1)]).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for name in ["inbox.db", "inbox.db-wal", "inbox.db.lock"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
}

/// Of the connection that writes.
async fn pragma(t: &Fixture, name: &str) -> String {
    let clock = t.clock.clone() as SharedClock;
    let opened = sqlite::open(&t.path(), Role::Guest, false, &clock).await;
    let mut link = opened.unwrap().link;
    let query = AssertSqlSafe(format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"));
    let value = sqlx::query_scalar(query).fetch_one(link.conn().await.unwrap());
    value.await.unwrap()
}

#[tokio::test]
async fn an_acknowledged_write_was_synced() {
    let t = Fixture::new().await;
    assert_eq!(pragma(&t, "synchronous").await, "2");
    assert_eq!(pragma(&t, "journal_mode").await, "wal");
}

/// A container that is mounted read-only has no folder for temporary files.
#[tokio::test]
async fn journals_of_statements_are_kept_in_memory() {
    let t = Fixture::new().await;
    assert_eq!(pragma(&t, "temp_store").await, "2");
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_take_its_delivery_along() {
    let t = Fixture::new().await;
    let gone = futures::FutureExt::now_or_never(t.inbox.store(vec![delivered(1)]));
    assert!(gone.is_none());
    assert_eq!(t.store([delivered(1)]).await, [Stored::Duplicate]);
}
