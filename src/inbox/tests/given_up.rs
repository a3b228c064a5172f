//! Creates that were given up, and the last look for them.

use super::*;
use crate::domain::DealId;

const PAUSE: Duration = Duration::from_mins(10);

fn given_up(n: u128, name: u8) -> GivenUp {
    GivenUp {
        row: row(n),
        name: KeyedHash::new([name; 16]),
        made_for: CreateFor::Contact {
            contact: ContactId::new(5),
            after_deal: DealId::new(6),
        },
    }
}

impl Fixture {
    async fn due(&self) -> Vec<GivenUp> {
        let due = self.inbox.given_up_due(self.now(), PAUSE, 99).await;
        due.unwrap()
            .into_iter()
            .map(|(given_up, _)| given_up)
            .collect()
    }

    async fn next(&self) -> Option<Timestamp> {
        self.inbox.next_late_look(self.now(), PAUSE).await.unwrap()
    }

    async fn give_up(&self, creates: &[GivenUp]) -> Timestamp {
        let at = self.now() + PAUSE;
        self.inbox.give_up(creates.to_vec(), at).await.unwrap();
        at
    }
}

#[tokio::test]
async fn a_create_that_was_given_up_is_due_once_after_its_pause_also_after_a_restart() {
    let t = Fixture::new().await;
    t.store([swept(1), swept(2)]).await;
    assert_eq!(t.next().await, None);
    let creates = [given_up(1, 1), given_up(1, 2), given_up(2, 1)];
    // A death before the entry forgets its create leads here once more. A row without an entry is left out.
    t.give_up(&creates[..1]).await;
    let at = t
        .give_up(&[creates[0], creates[1], creates[2], given_up(9, 1)])
        .await;
    assert_eq!((t.due().await, t.next().await), (vec![], Some(at)));

    t.clock.advance(PAUSE);
    let t = Fixture::on(t.abandoned()).await;
    t.clock.advance(PAUSE);
    assert_eq!(t.due().await, creates);
    let (again, later) = (LateDeals::Unknown, t.now() + PAUSE);
    let found = LateDeals::Found {
        deal: Some(DealId::new(70)),
        late: vec![DealId::new(60)],
    };
    let results = vec![
        (creates[0], at, LateDeals::None),
        (creates[1], at, again),
        (creates[2], at, found),
    ];
    t.inbox.looked_late(results, later).await.unwrap();
    assert_eq!((t.due().await, t.next().await), (vec![], Some(later)));

    let doubled = t.inbox.doubled_after(Timestamp::MIN, 9).await.unwrap();
    let expected = Doubled {
        row: row(2),
        deal: DealId::new(70),
        late: vec![DealId::new(60)],
        found_at: t.now(),
    };
    assert_eq!(doubled, [expected]);
    assert_eq!(t.inbox.doubled_after(t.now(), 9).await.unwrap(), []);
    let history = t.inbox.history(row(2)).await.unwrap();
    assert_eq!(
        history.last().unwrap().facts,
        [Fact::LateDeal(DealId::new(60))]
    );
}

#[tokio::test]
async fn a_look_that_was_planned_anew_outlives_the_result_of_the_former_one() {
    let t = Fixture::new().await;
    t.store([swept(1), swept(2), swept(3)]).await;
    let creates = [given_up(1, 1), given_up(2, 1), given_up(3, 1)];
    let former = t.give_up(&creates).await;
    t.clock.advance(PAUSE);
    assert_eq!(t.due().await, creates);
    // Meanwhile the same creates are given up once more.
    let anew = t.give_up(&creates).await;
    let late = vec![DealId::new(60)];
    let results = vec![
        (creates[0], former, LateDeals::None),
        (creates[1], former, LateDeals::Unknown),
        (creates[2], former, LateDeals::Found { deal: None, late }),
    ];
    let later = anew + PAUSE;
    t.inbox.looked_late(results, later).await.unwrap();

    assert_eq!((t.due().await, t.next().await), (vec![], Some(anew)));
    t.clock.advance(PAUSE);
    assert_eq!(t.due().await, creates);
    let history = t.inbox.history(row(3)).await.unwrap();
    assert!(
        !history
            .iter()
            .any(|line| line.facts == [Fact::LateDeal(DealId::new(60))])
    );
}

#[tokio::test]
async fn a_look_is_not_put_off_for_long_when_the_clock_is_put_back() {
    let t = Fixture::new().await;
    t.store([swept(1)]).await;
    let far = t.now() + Duration::from_hours(9);
    t.inbox.give_up(vec![given_up(1, 1)], far).await.unwrap();
    assert_eq!(t.next().await, Some(t.now()));
    assert_eq!(t.due().await, [given_up(1, 1)]);
}

#[tokio::test]
async fn a_forgotten_row_leaves_no_trace_of_its_creates() {
    let t = Fixture::new().await;
    t.store([swept(1)]).await;
    let at = t.give_up(&[given_up(1, 1)]).await;
    t.inbox.forget(vec![row(1)], Vec::new()).await.unwrap();
    let due = t.inbox.given_up_due(at, PAUSE, 9).await.unwrap();
    assert_eq!(due, []);
    assert_eq!(t.next().await, None);
}
