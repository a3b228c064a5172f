//! How and when rows were found.

use super::*;

impl Fixture {
    async fn found(&self) -> [(&'static str, u64); 4] {
        self.inbox.counters().await.unwrap().found
    }
}

fn short_swept(n: u128) -> Arrival {
    Arrival {
        row: row(n),
        source: Source::ShortSweep,
    }
}

#[tokio::test]
async fn a_row_counts_once_by_how_it_was_first_found_also_by_another_process_and_after_a_restart() {
    let t = Fixture::new().await;
    t.store([delivered(1), delivered(2), swept(2), swept(3)])
        .await;
    t.store([short_swept(4), delivered(4), swept(1)]).await;
    let guest = t.open(Role::Guest).await.unwrap();
    guest
        .store(vec![backfilled(1), backfilled(5)])
        .await
        .unwrap();
    guest.close().await;
    let found = [
        ("event", 2),
        ("short_sweep", 1),
        ("sweep", 1),
        ("backfill", 1),
    ];
    assert_eq!(t.found().await, found);

    // An entry that is opened again was known.
    t.settled(done(6)).await;
    assert_eq!(t.store([swept(6)]).await, [Stored::Reopened]);
    let t = Fixture::on(t.abandoned()).await;
    let found = [("event", 3), found[1], found[2], found[3]];
    assert_eq!(t.found().await, found);
}

#[tokio::test]
async fn the_time_of_the_last_event_outlives_a_restart_and_a_sweep_changes_it_not() {
    let t = Fixture::new().await;
    assert_eq!(t.inbox.activity(), Activity::default());
    t.store([swept(1)]).await;
    assert_eq!(t.inbox.activity().event, None);

    let first = t.now();
    t.store([delivered(2)]).await;
    assert_eq!(t.inbox.activity().event, Some(first));
    t.clock.advance(MINUTE);
    t.store([swept(3)]).await;
    t.inbox.swept(Sweep::Short);
    assert_eq!(t.inbox.activity().event, Some(first));
    assert_eq!(t.inbox.activity().any_sweep(), Some(t.now()));

    // The event of a known row.
    let second = t.now();
    t.store([delivered(2)]).await;
    let t = Fixture::on(t.abandoned()).await;
    t.clock.advance(MINUTE);
    let activity = t.inbox.activity();
    assert_eq!((activity.event, activity.any_sweep()), (Some(second), None));
}

#[tokio::test]
async fn an_event_that_could_not_be_stored_is_none() {
    let t = Fixture::new().await;
    t.fill_the_disk().await;
    assert!(t.inbox.store(vec![delivered(1)]).await.is_err());
    assert_eq!(t.inbox.activity().event, None);
}

#[tokio::test]
async fn the_size_of_the_contact_index_is_known_without_counting_it() {
    let t = Fixture::new().await;
    let contact = |id| ContactId::new(id);
    let indexed = |known_by: &[(u8, i64)]| Indexed {
        contacts: known_by.iter().map(|(_, id)| contact(*id)).collect(),
        known_by: known_by
            .iter()
            .map(|(it, id)| (hash(*it), contact(*id)))
            .collect(),
    };
    let size = async || t.inbox.counters().await.unwrap().indexed;
    assert_eq!(size().await, 0);
    let page = indexed(&[(10, 1), (11, 1), (10, 2), (12, 3), (12, 3)]);
    t.inbox.index_contacts(page, "coverage", &1).await.unwrap();
    assert_eq!(size().await, 4);
    // Both hashes of the first contact are replaced by one.
    let page = indexed(&[(13, 1)]);
    t.inbox.index_contacts(page, "coverage", &2).await.unwrap();
    assert_eq!(size().await, 3);
    let gone = vec![(hash(12), contact(3)), (hash(99), contact(3))];
    t.inbox.forget_indexed(gone).await.unwrap();
    assert_eq!(size().await, 2);
    let forgotten = t.inbox.forget(Vec::new(), vec![hash(10)]).await.unwrap();
    assert_eq!((forgotten, size().await), (Some(1), 1));
    t.inbox.drop_contact_index("coverage").await.unwrap();
    assert_eq!(size().await, 0);
}
