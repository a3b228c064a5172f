//! A client that may send only with leave.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{DealId, NewNote, Permit};

/// Valid so many times.
#[derive(Debug)]
struct Valid(AtomicUsize);

impl Valid {
    fn times(times: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(times)))
    }
}

impl Permit for Valid {
    fn is_valid(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        self.0.fetch_update(set, fetch, less).is_ok()
    }
}

fn client(server: &Server, permit: Arc<Valid>) -> AmoCrm {
    AmoCrm::permitted(settings(&server.url), clock(), permit).unwrap()
}

async fn add_note(client: &AmoCrm) -> AmoError {
    let text = "Bought".to_owned();
    let deal = DealId::new(901);
    let added = client.add_notes(&[NewNote { deal, text }], soon()).await;
    added.expect_err("the server has no answer")
}

#[tokio::test]
async fn without_a_permit_nothing_is_sent() {
    let server = Server::start([]).await;
    let client = client(&server, Valid::times(0));
    let searched = client.search_contacts("ann@x.org").await;
    assert!(matches!(searched, Err(AmoError::NotPermitted)));
    let error = add_note(&client).await;
    assert!(matches!(error, AmoError::NotPermitted), "{error:?}");
    assert!(error.was_not_applied());
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_permit_that_ends_while_its_owner_waits_for_a_turn_is_of_no_use() {
    let server = Server::start([]).await;
    // Asked for when it comes, and again when its turn has come.
    let error = add_note(&client(&server, Valid::times(1))).await;
    assert!(matches!(error, AmoError::NotPermitted), "{error:?}");
    assert!(server.seen().is_empty());
}
