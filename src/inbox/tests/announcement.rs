//! A command that announces itself to the service beside it.

use super::*;

#[tokio::test]
async fn a_command_is_noticed_until_it_has_ended() {
    let t = Fixture::new().await;
    let guest = t.open(Role::Guest).await.unwrap();
    assert!(!t.inbox.is_command_at_work().await.unwrap());

    let turn = guest.announce_command().await.unwrap().unwrap();
    assert!(!guest.is_command_noticed().await.unwrap());
    assert!(t.inbox.is_command_at_work().await.unwrap());
    t.inbox.notice_command().await.unwrap();
    assert!(guest.is_command_noticed().await.unwrap());
    assert!(t.inbox.is_command_at_work().await.unwrap());

    guest.end_command(turn).await.unwrap();
    assert!(!t.inbox.is_command_at_work().await.unwrap());
    // The service notices too late.
    t.inbox.notice_command().await.unwrap();
    assert!(!guest.is_command_noticed().await.unwrap());
    guest.close().await;
}

/// The lock ends with the process, the announcement does not.
#[tokio::test]
async fn what_a_dead_command_announced_is_taken_back() {
    let t = Fixture::new().await;
    let guest = t.open(Role::Guest).await.unwrap();
    let turn = guest.announce_command().await.unwrap().unwrap();
    t.inbox.notice_command().await.unwrap();
    drop(turn);
    assert!(!t.inbox.is_command_at_work().await.unwrap());
    assert!(!guest.is_command_noticed().await.unwrap());

    // The next command is not mistaken for the dead one.
    let turn = guest.announce_command().await.unwrap().unwrap();
    assert!(!guest.is_command_noticed().await.unwrap());
    assert!(t.inbox.is_command_at_work().await.unwrap());
    guest.end_command(turn).await.unwrap();
    guest.close().await;
}

#[tokio::test]
async fn one_command_at_a_time() {
    let t = Fixture::new().await;
    let first = t.open(Role::Guest).await.unwrap();
    let second = t.open(Role::Guest).await.unwrap();
    let turn = first.announce_command().await.unwrap().unwrap();
    t.inbox.notice_command().await.unwrap();

    assert!(second.announce_command().await.unwrap().is_none());
    assert!(t.inbox.is_command_at_work().await.unwrap());
    first.end_command(turn).await.unwrap();

    let turn = second.announce_command().await.unwrap().unwrap();
    // The former one was noticed; this one is yet to be.
    assert!(!second.is_command_noticed().await.unwrap());
    second.end_command(turn).await.unwrap();
    assert!(!t.inbox.is_command_at_work().await.unwrap());
    first.close().await;
    second.close().await;
}
