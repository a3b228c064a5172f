//! Our clock is not theirs, and somebody may set it while we run.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use sandbox::{DealId, Fault, Kind, Point, When, scenario::Missing};
use serde_json::json;
use tripwire_sync::{
    domain::{Clock, RowId, SystemClock},
    inbox::{Arrival, Entry, Outcome, Source, State},
};

use crate::support::{EMAIL, NAME, NowForTests, Wishes, World, has_missed_twice, metrics};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The machine's clock, set wrong by so much.
#[derive(Debug)]
pub(crate) struct Wrong(Mutex<SignedDuration>);

impl Wrong {
    pub(crate) fn by(offset: SignedDuration) -> Arc<Self> {
        Arc::new(Self(Mutex::new(offset)))
    }

    fn set(&self, offset: SignedDuration) {
        *self.0.lock().unwrap() = offset;
    }
}

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        SystemClock.now() + *self.0.lock().unwrap()
    }
}

/// A service whose clock is off by `offset`.
async fn start(wishes: Wishes, offset: SignedDuration) -> (World, Arc<Wrong>) {
    let mut world = World::prepare(wishes);
    let clock = Wrong::by(offset);
    let settings = world.settings();
    world.launch_at(settings, clock.clone()).await;
    (world, clock)
}

/// As a sweep does: a delivery would be refused as stale.
async fn tell(world: &World, row: RowId) {
    let source = Source::Sweep;
    let arrivals = vec![Arrival { row, source }];
    world.inbox().store(arrivals).await.unwrap();
}

fn sweeping() -> Wishes {
    Wishes {
        sweep_every: Some(Duration::from_millis(100)),
        ..Wishes::brisk()
    }
}

// ---- off by a little, off by more ----

#[tokio::test]
async fn two_minutes_off_either_way_delivers_settles_and_syncs_as_ever() {
    for minutes in [-2, 2] {
        let delay = Duration::from_millis(800);
        let wishes = Wishes {
            settle_delay: delay,
            ..Wishes::brisk()
        };
        let (world, _) = start(wishes, SignedDuration::from_mins(minutes)).await;
        world.student(EMAIL);
        let created_at = Timestamp::now_for_tests();
        let row = world.insert(&json!({"created_at": created_at}));
        assert_eq!(world.deliver(row).await, 202, "{minutes} minutes");
        world.until_synced_once(row).await;

        let first = world.sandbox.amo.requests()[0].time;
        assert!(first >= created_at + delay, "{minutes} minutes: {first}");
    }
}

fn refused_as_stale() -> u64 {
    let page = metrics().render();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("tripwire_webhooks_total{outcome=\"refused_stale\"} "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn ten_minutes_off_either_way_is_refused_as_stale_and_the_sweep_finds_the_row() {
    for (n, minutes) in (1..).zip([-10, 10]) {
        let (world, _) = start(sweeping(), SignedDuration::from_mins(minutes)).await;
        world.student(EMAIL);
        let row = world.insert(&json!({}));
        assert_eq!(world.deliver(row).await, 401, "{minutes} minutes");
        assert_eq!(refused_as_stale(), n, "{minutes} minutes");
        world.until_synced_once(row).await;
    }
}

// ---- put back ----

#[tokio::test]
async fn retries_and_sweeps_go_on_after_the_clock_was_put_back_a_day() {
    let (world, clock) = start(sweeping(), DAY).await;
    world.student(EMAIL);
    world.student("second@example.kz");
    world.sandbox.faults().add(Fault::always(
        Point::amo("leads.update"),
        Kind::server_error(When::Before),
    ));
    let row = world.insert(&json!({}));
    world.until(row, "tried", |entry| entry.attempts > 0).await;
    clock.set(SignedDuration::ZERO);
    world.sandbox.faults().clear();
    world.until_synced_once(row).await;

    let second = world.insert(&json!({"email": "second@example.kz"}));
    world.until_synced_once(second).await;
}

#[tokio::test]
async fn a_restart_with_the_clock_put_back_a_day_leaves_nothing_lying() {
    let (mut world, _) = start(sweeping(), DAY).await;
    world.student(EMAIL);
    world.sandbox.faults().add(Fault::always(
        Point::amo("leads.update"),
        Kind::server_error(When::Before),
    ));
    let row = world.insert(&json!({}));
    world.until(row, "tried", |entry| entry.attempts > 0).await;
    world.stop().await;
    world.sandbox.faults().clear();
    world.launch().await;
    world.until_synced_once(row).await;
}

#[tokio::test]
async fn a_contact_that_appears_is_noticed_after_the_clock_was_put_back_a_day() {
    let (world, clock) = start(sweeping(), DAY).await;
    let row = world.insert(&json!({}));
    world
        .until(row, "waiting for long", |entry| {
            entry.state == State::Waiting
                && entry.reason.as_deref() == Some("ожидает контакт с таким e-mail в amoCRM")
        })
        .await;
    let looks = world.asked("contacts.list");
    world
        .until_asked("contacts.list", looks + 1, |_| true)
        .await;
    clock.set(SignedDuration::ZERO);
    // One search comes at once, since the row is due anew; the contact appears after it.
    let searches = world.asked("contacts.search");
    world
        .until_asked("contacts.search", searches + 1, |it| it.status.is_some())
        .await;
    world.until_state(row, State::Waiting).await;
    let contact = world
        .sandbox
        .amo
        .world(|world| world.create_contact(NAME, &[EMAIL], &[]));
    world.deal(contact, world.setting.before[0]);
    world.until_synced_once(row).await;
}

#[tokio::test]
async fn a_halt_is_probed_after_the_clock_was_put_back_a_day() {
    for is_supabase in [true, false] {
        let (world, clock) = start(sweeping(), DAY).await;
        world.student(EMAIL);
        let token = world.sandbox.amo.token();
        if is_supabase {
            let paused = Kind::status(When::Before, 540);
            let reads = Point::postgrest("rows.read");
            world.sandbox.faults().add(Fault::always(reads, paused));
        } else {
            world.sandbox.amo.set_token("another");
        }
        let row = world.insert(&json!({}));
        tell(&world, row).await;
        world.until_sync_is("halted").await;
        // Its next attempt is stored by the clock as it is yet.
        world.until_state(row, State::Pending).await;
        clock.set(SignedDuration::ZERO);
        world.sandbox.faults().clear();
        world.sandbox.amo.set_token(&token);
        world.until_synced_once(row).await;
    }
}

/// A row is gone when it was absent twice, a minute apart, by whichever clock.
#[tokio::test]
async fn a_row_that_is_gone_is_given_up_after_the_clock_was_put_back_a_day() {
    let (world, clock) = start(sweeping(), DAY).await;
    world.insert(&json!({"email": "other@example.kz", "amocrm_deal_id": "1"}));
    let row = world.insert(&json!({}));
    world.sandbox.postgrest.delete_row(row).unwrap();
    tell(&world, row).await;
    world
        .until(row, "absent once", |entry| {
            entry.progress.absent_since.is_some()
        })
        .await;
    clock.set(SignedDuration::ZERO);
    world.until_done(row, Outcome::Gone).await;
}

// ---- rows that wait for their contact ----

/// Sets the clock, on which the row is searched for, and stored as still waiting.
async fn until_searched_at(
    world: &World,
    row: RowId,
    clock: &Wrong,
    offset: SignedDuration,
) -> Entry {
    let searches = world.asked("contacts.search");
    clock.set(offset);
    world
        .until_asked("contacts.search", searches + 1, |it| it.status.is_some())
        .await;
    world.until_state(row, State::Waiting).await
}

#[tokio::test]
async fn a_clock_a_year_ahead_for_a_while_parks_no_waiting_row_and_delays_none() {
    let (world, clock) = start(sweeping(), SignedDuration::ZERO).await;
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    let entry = world.until(row, "missed twice", has_missed_twice).await;
    assert_eq!(entry.progress.daily_searches.in_vain, 0);

    let entry = until_searched_at(&world, row, &clock, 365 * DAY).await;
    assert_eq!(entry.progress.daily_searches.in_vain, 1);
    let entry = until_searched_at(&world, row, &clock, SignedDuration::ZERO).await;
    assert_eq!(entry.progress.daily_searches.in_vain, 1, "not another day");
    let tomorrow = Timestamp::now_for_tests() + DAY;
    assert!(entry.due_at < tomorrow);
    assert!(entry.progress.daily_searches.next_from < Some(tomorrow));

    world.student(EMAIL);
    world.until_synced_once(row).await;
}

#[tokio::test]
async fn a_clock_that_was_decades_behind_parks_no_waiting_row() {
    let (world, clock) = start(sweeping(), -20_000 * DAY).await;
    let row = world.insert(&json!({}));
    tell(&world, row).await;
    world.until(row, "missed twice", has_missed_twice).await;

    let entry = until_searched_at(&world, row, &clock, SignedDuration::ZERO).await;
    assert_eq!(entry.progress.daily_searches.in_vain, 1);
    world.student(EMAIL);
    clock.set(DAY);
    world.until_synced_once(row).await;
}

// ---- writes whose answer never came ----

#[derive(Debug, Clone, Copy)]
enum Write {
    Note,
    Create,
    CreateWithContact,
}

impl Write {
    const ALL: [Self; 3] = [Self::Note, Self::Create, Self::CreateWithContact];

    fn route(self) -> &'static str {
        match self {
            Self::Note => "notes.create",
            Self::Create => "leads.create",
            Self::CreateWithContact => "leads.complex",
        }
    }

    fn wishes(self) -> Wishes {
        let missing = match self {
            Self::Note | Self::Create => Missing::Wait,
            Self::CreateWithContact => Missing::Create,
        };
        Wishes {
            missing,
            ..sweeping()
        }
    }

    /// Meets `kind` at its write. Answers the row, once that has happened.
    async fn meet(self, world: &World, kind: Kind) -> RowId {
        match self {
            Self::Note => {
                world.student(EMAIL);
            }
            Self::Create => {
                world.contact(EMAIL);
            }
            Self::CreateWithContact => {}
        }
        world
            .sandbox
            .faults()
            .add(Fault::once(Point::amo(self.route()), kind));
        let row = world.insert(&json!({}));
        world
            .until_asked(self.route(), 1, |it| it.fault.is_some())
            .await;
        row
    }

    async fn assert_done_once(self, world: &World, row: RowId) {
        let deal: DealId = world.until_synced_once(row).await;
        assert_eq!(world.deals_of(EMAIL), [deal], "{self:?}");
        assert_eq!(world.sandbox.amo.late_commits(), 0, "{self:?}");
    }
}

/// Lands when half of the time in which it still may is over.
const LATE: Kind = Kind::LateCommit {
    delay: Duration::from_secs(80),
};

#[tokio::test]
async fn a_clock_put_forward_a_day_does_not_repeat_a_write_that_may_still_land() {
    for write in Write::ALL {
        let (world, clock) = start(write.wishes(), SignedDuration::ZERO).await;
        let row = write.meet(&world, LATE).await;
        clock.set(DAY);
        write.assert_done_once(&world, row).await;
        assert_eq!(world.asked(write.route()), 1, "{write:?}");
    }
}

#[tokio::test]
async fn a_clock_put_back_a_day_delays_no_write_that_never_happened() {
    for write in Write::ALL {
        for restarts in [false, true] {
            let (mut world, clock) = start(write.wishes(), DAY).await;
            let row = write.meet(&world, Kind::server_error(When::Before)).await;
            world
                .until(row, "open", |entry| {
                    entry.attempts > 0 && entry.progress.step.resolve_after().is_some()
                })
                .await;
            clock.set(SignedDuration::ZERO);
            if restarts {
                world.die().await;
                world.launch().await;
            }
            write.assert_done_once(&world, row).await;
            assert_eq!(world.asked(write.route()), 2, "{write:?}");
        }
    }
}

/// The row is blocked while the move of its deal meets `kind`.
async fn blocked_during_a_move(world: &World, kind: Kind) -> (RowId, DealId) {
    let deal = world.student(EMAIL);
    let update = Point::amo("leads.update");
    world.sandbox.faults().add(Fault::once(update, kind));
    let row = world.insert(&json!({}));
    world
        .until_asked("leads.update", 1, |it| it.fault.is_some())
        .await;
    world.sandbox.postgrest.update_row(row, |row| {
        row.insert("status".to_owned(), json!("blocked"));
    });
    (row, deal)
}

#[tokio::test]
async fn a_clock_put_forward_a_day_gives_up_no_move_that_may_still_land() {
    let wishes = Wishes {
        time_scale: 0.05,
        ..sweeping()
    };
    let (world, clock) = start(wishes, SignedDuration::ZERO).await;
    // Before the last moment, and after the first look.
    let delay = Duration::from_secs(50);
    let (row, deal) = blocked_during_a_move(&world, Kind::LateCommit { delay }).await;
    clock.set(DAY);
    assert_eq!(world.until_synced_once(row).await, deal);
}

#[tokio::test]
async fn a_clock_put_back_a_day_holds_up_no_row_whose_move_never_happened() {
    let (mut world, _) = start(sweeping(), DAY).await;
    let (row, deal) = blocked_during_a_move(&world, Kind::Hang(When::Before)).await;
    world.die().await;
    world.launch().await;
    world.until_done(row, Outcome::Skipped).await;
    assert_eq!(world.stage(deal), world.setting.before[0]);
}
