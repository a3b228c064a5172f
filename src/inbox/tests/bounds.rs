//! How much the inbox holds, and what goes first.

use super::{
    super::bounds::{Bounds, CHUNK, CHUNKS, Space},
    *,
};
use crate::inbox::maintenance::make_room;

const HOUR: Duration = Duration::from_hours(1);

fn entries(entries: u64) -> Bounds {
    Bounds {
        entries,
        ..Bounds::DEFAULT
    }
}

fn bytes(bytes: u64) -> Bounds {
    Bounds {
        bytes,
        ..Bounds::DEFAULT
    }
}

impl Fixture {
    /// Stores these rows and ends their attempts, a minute after the last ones.
    async fn ended(&self, rows: std::ops::Range<u128>, end: impl Fn(u128) -> Settled) {
        self.clock.advance(MINUTE);
        self.store(rows.clone().map(delivered).collect::<Vec<_>>())
            .await;
        let claim = self.inbox.claim(100_000, None).await.unwrap().unwrap();
        let ends = rows.map(end).collect();
        self.inbox.settle(claim.token, ends).await.unwrap();
    }

    async fn room(&self, bounds: Bounds) -> Space {
        let mut link = sqlite::open(
            &self.path(),
            Role::Guest,
            false,
            &(self.clock.clone() as SharedClock),
        )
        .await
        .unwrap()
        .link;
        make_room(link.conn().await.unwrap(), bounds).await.unwrap()
    }

    async fn count(&self, state: State) -> u64 {
        let counts = self.inbox.counts().await.unwrap().by_state;
        counts.get(&state).copied().unwrap_or(0)
    }

    /// With bounds from the next start on.
    async fn bounded(self, bounds: Bounds) -> Self {
        self.inbox.close().await;
        let clock = self.clock.clone() as SharedClock;
        let opened = sqlite::open(&self.path(), Role::Owner, false, &clock)
            .await
            .unwrap();
        let inbox = Inbox::of(&self.path(), opened, clock, bounds);
        Self { inbox, ..self }
    }

    async fn until_full(&self, is_full: bool) {
        let mut writing = self.inbox.writing();
        let told = writing.wait_for(|writing| matches!(writing, Writing::Full { .. }) == is_full);
        told.await.unwrap();
    }
}

#[tokio::test]
async fn gone_rows_are_purged_after_a_day_and_other_done_ones_at_the_end_of_their_retention() {
    let t = Fixture::new().await;
    let gone = |n| end(n, Settlement::Done(Outcome::Gone));
    t.ended(1..2, gone).await;
    t.ended(2..3, done).await;
    t.clock.advance(23 * HOUR);
    t.ended(3..4, gone).await;
    let retention = t.now() - 90 * 24 * HOUR;
    assert_eq!(t.inbox.purge_done(retention).await.unwrap(), 0);
    t.clock.advance(2 * HOUR);
    assert_eq!(t.inbox.purge_done(retention).await.unwrap(), 1);
    assert_eq!(t.inbox.entry(row(1)).await.unwrap(), None);
    assert_eq!(t.count(State::Done).await, 2);
    // A retention of less than a day also applies to removed rows.
    let retention = t.now() - HOUR;
    assert_eq!(t.inbox.purge_done(retention).await.unwrap(), 2);
}

#[tokio::test]
async fn within_its_bounds_nothing_is_removed() {
    let t = Fixture::new().await;
    t.ended(0..100, done).await;
    assert_eq!(t.room(entries(100)).await, Space::Enough);
    assert_eq!(t.room(Bounds::DEFAULT).await, Space::Enough);
    assert_eq!(t.count(State::Done).await, 100);
}

#[tokio::test]
async fn the_oldest_finished_entries_go_first_and_unfinished_ones_never() {
    let t = Fixture::new().await;
    t.ended(0..20, parked).await;
    t.ended(20..30, |n| waiting(n, Timestamp::MAX)).await;
    t.ended(30..2_030, done).await;
    t.ended(2_030..2_060, |n| end(n, Settlement::Done(Outcome::Gone)))
        .await;
    t.store((3_000..3_020).map(delivered).collect::<Vec<_>>())
        .await;

    assert_eq!(t.room(entries(1_500)).await, Space::Enough);
    assert_eq!(t.count(State::Parked).await, 20);
    assert_eq!(t.count(State::Waiting).await, 10);
    assert_eq!(t.count(State::Pending).await, 20);
    let left = t.count(State::Done).await;
    assert!((1_000..=1_375).contains(&left), "{left}");
    assert_eq!(t.state_of(2_059).await, State::Done);
    assert_eq!(t.inbox.entry(row(30)).await.unwrap(), None);
    assert_eq!(t.story(30).await, []);

    assert_eq!(t.room(entries(49)).await, Space::Full);
    assert_eq!(t.count(State::Done).await, 0);
    assert_eq!(t.count(State::Pending).await, 20);
    assert_eq!(t.room(entries(50)).await, Space::Enough);
}

#[tokio::test]
async fn of_far_too_many_one_look_removes_a_part() {
    let t = Fixture::new().await;
    let part = u128::from(CHUNK * CHUNKS);
    t.ended(0..part + 500, done).await;
    assert_eq!(t.room(entries(10)).await, Space::Clearing);
    assert_eq!(t.count(State::Done).await, 500);
    assert_eq!(t.room(entries(10)).await, Space::Enough);
}

#[tokio::test]
async fn the_file_counts_without_its_free_pages() {
    let t = Fixture::new().await;
    t.ended(0..3_000, done).await;
    t.inbox.close().await;
    let size = std::fs::metadata(t.path()).unwrap().len();
    assert_eq!(t.room(bytes(size)).await, Space::Enough);
    assert_eq!(t.room(bytes(size * 2 / 3)).await, Space::Enough);
    let t = Fixture {
        inbox: t.open(Role::Owner).await.unwrap(),
        ..t
    };
    let left = t.count(State::Done).await;
    assert!((1_000..=2_000).contains(&left), "{left}");
    assert_eq!(t.room(bytes(1_000)).await, Space::Full);
}

#[tokio::test]
async fn a_full_inbox_refuses_rows_until_there_is_room() {
    let t = Fixture::new().await;
    t.store((0..10).map(delivered).collect::<Vec<_>>()).await;
    let t = t.bounded(entries(9)).await;
    t.until_full(true).await;
    assert!(!t.inbox.accepts());
    for arrival in [delivered(99), swept(99), backfilled(99)] {
        let stored = t.inbox.store(vec![arrival]).await;
        assert!(matches!(stored, Err(InboxError::Full)), "{stored:?}");
    }
    // The engine works on, which makes room.
    let claim = t.claim().await;
    let ends = (0..10).map(done).collect();
    t.inbox.settle(claim.token, ends).await.unwrap();

    let t = t.bounded(entries(9)).await;
    t.until_full(false).await;
    assert_eq!(t.store([delivered(99)]).await, [Stored::New]);
}
