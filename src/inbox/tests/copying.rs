//! A copy beside the owner, and the rights on the files.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn files(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap();
    files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn a_copy_holds_what_was_stored_and_opens_as_an_inbox() {
    let t = Fixture::new().await;
    t.settled(parked(1)).await;
    t.inbox.set_state(HALT, &1).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy.db");
    let bytes = Inbox::copy(&t.path(), &to).await.unwrap();
    assert_eq!(fs::metadata(&to).unwrap().len(), bytes);
    assert_eq!(mode(&to), 0o600);
    assert_eq!(files(folder.path()), ["copy.db"]);
    // The owner has noticed nothing.
    t.store([delivered(2)]).await;

    let copy = Inbox::open(&to, Role::Owner, t.clock.clone())
        .await
        .unwrap();
    assert_eq!(
        copy.hasher().text("t", "x"),
        t.inbox.hasher().text("t", "x")
    );
    assert_eq!(copy.state(HALT).await.unwrap(), Some(1));
    assert_eq!(copy.entry(row(1)).await.unwrap(), Some(t.entry(1).await));
    assert_eq!(copy.entry(row(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_copy_in_the_middle_of_a_burst_is_whole() {
    let t = Fixture::new().await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("copy.db");
    let burst = (0..500).map(|n| t.inbox.store(vec![delivered(n)]));
    let path = t.path();
    let (stored, copied) = tokio::join!(futures::future::join_all(burst), Inbox::copy(&path, &to));
    assert!(stored.iter().all(Result::is_ok));
    copied.unwrap();
    Inbox::open(&to, Role::Owner, t.clock.clone())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_copy_overwrites_nothing_and_leaves_nothing_half_after_an_error() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken.db");
    fs::write(&taken, "something of value").unwrap();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
    for to in [
        &taken,
        &link,
        &t.path(),
        &folder.path().join("no/folder.db"),
    ] {
        let copied = Inbox::copy(&t.path(), to).await;
        assert!(matches!(copied, Err(InboxError::Copy { .. })), "{copied:?}");
    }
    assert_eq!(fs::read_to_string(&taken).unwrap(), "something of value");

    let damaged = folder.path().join("damaged.db");
    fs::write(&damaged, "no inbox ".repeat(1_000)).unwrap();
    let copied = Inbox::copy(&damaged, &folder.path().join("copy.db")).await;
    let Err(InboxError::Copy { source, .. }) = copied else {
        panic!("{copied:?}");
    };
    assert!(source.to_string().contains("damaged"), "{source}");
    let mut left = files(folder.path());
    left.sort_unstable();
    assert_eq!(left, ["damaged.db", "link.db", "taken.db"]);
}

#[tokio::test]
async fn an_owner_takes_the_rights_of_others_away_and_a_guest_does_not() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    t.inbox.close().await;
    let table = [
        (0o644, 0o600),
        (0o666, 0o600),
        (0o640, 0o600),
        (0o600, 0o600),
    ];
    for (before, after) in table {
        fs::set_permissions(t.path(), fs::Permissions::from_mode(before)).unwrap();
        let guest = t.open(Role::Guest).await.unwrap();
        guest.close().await;
        assert_eq!(mode(&t.path()), before);
        let open = Inbox::open_to_others(&t.path());
        assert_eq!(
            open.iter().any(|(file, _)| *file == t.path()),
            before != after
        );

        let owner = t.open(Role::Owner).await.unwrap();
        owner.store(vec![delivered(2)]).await.unwrap();
        assert_eq!(mode(&t.path()), after);
        assert_eq!(Inbox::open_to_others(&t.path()), []);
        owner.close().await;
    }
}
