use super::*;
use crate::{
    domain::{ContactId, KeyedHash},
    inbox::Indexed,
};

const COVERAGE: &str = "coverage";

fn hash(n: u8) -> KeyedHash {
    KeyedHash::new([n; 16])
}

fn contact(id: i64) -> ContactId {
    ContactId::new(id)
}

fn indexed(contacts: &[i64], known_by: &[(u8, i64)]) -> Indexed {
    let known_by = known_by.iter().map(|(it, id)| (hash(*it), contact(*id)));
    Indexed {
        contacts: contacts.iter().copied().map(contact).collect(),
        known_by: known_by.collect(),
    }
}

async fn found(t: &Fixture, hashes: &[u8]) -> Vec<(u8, Vec<i64>)> {
    let wanted = hashes.iter().copied().map(hash).collect();
    let answers = t.inbox.indexed(wanted).await.unwrap();
    let of = |n: &u8| {
        let contacts = answers.get(&hash(*n))?;
        Some((*n, contacts.iter().map(|id| id.get()).collect()))
    };
    hashes.iter().filter_map(of).collect()
}

#[tokio::test]
async fn a_contact_that_is_indexed_again_replaces_all_that_was_known_of_it() {
    let t = Fixture::new().await;
    let page = indexed(&[1, 2, 3], &[(10, 1), (11, 1), (10, 2), (12, 3), (12, 3)]);
    let stored = t.inbox.index_contacts(page, COVERAGE, &1);
    stored.await.unwrap();
    assert_eq!(
        found(&t, &[10, 11, 12, 13]).await,
        [(10, vec![1, 2]), (11, vec![1]), (12, vec![3])]
    );

    // The first has another e-mail, the third has none any more.
    let page = indexed(&[1, 3], &[(13, 1)]);
    let stored = t.inbox.index_contacts(page, COVERAGE, &2);
    stored.await.unwrap();
    assert_eq!(
        found(&t, &[10, 11, 12, 13]).await,
        [(10, vec![2]), (13, vec![1])]
    );
    assert_eq!(t.inbox.state::<u8>(COVERAGE).await.unwrap(), Some(2));
}

#[tokio::test]
async fn an_entry_of_the_index_is_forgotten_and_the_whole_is_dropped_with_its_coverage() {
    let t = Fixture::new().await;
    let page = indexed(&[1, 2], &[(10, 1), (10, 2), (11, 2)]);
    let stored = t.inbox.index_contacts(page, COVERAGE, &1);
    stored.await.unwrap();
    let gone = vec![(hash(10), contact(2)), (hash(11), contact(1))];
    t.inbox.forget_indexed(gone).await.unwrap();
    assert_eq!(found(&t, &[10, 11]).await, [(10, vec![1]), (11, vec![2])]);

    t.inbox.drop_contact_index(COVERAGE).await.unwrap();
    assert_eq!(found(&t, &[10, 11]).await, []);
    assert_eq!(t.inbox.state::<u8>(COVERAGE).await.unwrap(), None);
}
