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
