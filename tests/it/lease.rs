//! One syncs, all accept: services with inboxes of their own on one project and one account.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sandbox::{
    AmoQuirks, Fault, Kind, Point, PostgrestQuirks, Recorded, Server, When,
    postgrest::LeaseFunction,
    scenario::{Case, Scenario},
};
use secrecy::SecretString;
use serde_json::json;
use tripwire_sync::{
    app::{App, Settings},
    domain::{HaltCause, RowId, SyncState, SystemClock},
    inbox::{Arrival, Outcome, PAUSED, Source, State},
};
use uuid::Uuid;

use crate::{
    program::{Launch, Service, until},
    support::{EMAIL, NowForTests, PATIENCE, Wishes, World, metrics, rows_of, sending},
};

const FIRST: &str = "token-of-the-first";
const SECOND: &str = "token-of-the-second";

/// One of several services in this process.
pub(crate) struct Node {
    pub(crate) app: App,
}

impl Node {
    pub(crate) async fn launch(settings: Settings) -> Self {
        let app = App::start(settings, Arc::new(SystemClock), metrics())
            .await
            .unwrap();
        Self { app }
    }

    pub(crate) fn state(&self) -> SyncState {
        *self.app.status.borrow()
    }

    pub(crate) async fn until_it_is(&self, wished: impl Fn(SyncState) -> bool) {
        let mut status = self.app.status.clone();
        let reached = tokio::time::timeout(PATIENCE, status.wait_for(|state| wished(*state))).await;
        assert!(reached.is_ok(), "it stays {:?}", self.state());
    }

    pub(crate) async fn until_working(&self) {
        self.until_it_is(|state| state == SyncState::Working).await;
    }

    pub(crate) async fn until_another_works(&self) {
        let held_by_another = true;
        self.until_it_is(|state| state == SyncState::Standby { held_by_another })
            .await;
    }

    pub(crate) async fn deliver(&self, world: &World, row: RowId) {
        let id = format!("msg_{}", Uuid::new_v4().simple());
        let url = format!("http://{}", self.app.address);
        let status = world.deliver_to(&url, row, &id).await.unwrap();
        assert_eq!(status, 202);
    }

    pub(crate) async fn until_done(&self, row: RowId) {
        let mut settled = self.app.settled.clone();
        let look = async {
            loop {
                settled.mark_unchanged();
                let entry = self.app.inbox.entry(row).await.unwrap();
                if let Some(entry) = entry.filter(|entry| entry.state == State::Done) {
                    return entry;
                }
                settled.changed().await.unwrap();
            }
        };
        let entry = tokio::time::timeout(PATIENCE, look).await.unwrap();
        let done = [Some(Outcome::Synced), Some(Outcome::AlreadyLinked)];
        assert!(done.contains(&entry.outcome), "{entry:?}");
    }

    pub(crate) async fn stop(self) {
        self.app.run_until(std::future::ready(())).await.unwrap();
    }

    pub(crate) async fn die(self) {
        self.app.die().await;
    }
}

fn world(time_scale: f64) -> World {
    prepare(Wishes {
        time_scale,
        ..Wishes::brisk()
    })
}

/// Both services have tokens of their own for amoCRM, and the second one for PostgREST too.
pub(crate) fn prepare(wishes: Wishes) -> World {
    let world = World::prepare(wishes);
    for token in [FIRST, SECOND] {
        world.sandbox.amo.add_token(token);
    }
    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.jwt = Some(SECOND.to_owned()));
    world
}

pub(crate) fn first(world: &World) -> Settings {
    let mut settings = world.settings();
    settings.inbox_path = world.folder().join("first.db");
    sending(&mut settings).amocrm.token = SecretString::from(FIRST);
    settings
}

pub(crate) fn second(world: &World) -> Settings {
    let mut settings = world.settings();
    settings.inbox_path = world.folder().join("second.db");
    sending(&mut settings).amocrm.token = SecretString::from(SECOND);
    settings.supabase.jwt = Some(SecretString::from(SECOND));
    settings
}

pub(crate) async fn pair(world: &World) -> (Node, Node) {
    let holder = Node::launch(first(world)).await;
    holder.until_working().await;
    let standby = Node::launch(second(world)).await;
    standby.until_another_works().await;
    (holder, standby)
}

fn scenario(world: &World, rows: usize) -> Scenario {
    let cases = [Case::OpenBeforeTarget, Case::NoDeal, Case::OnTarget];
    let cases = cases.into_iter().cycle().take(rows);
    let sandbox = &world.sandbox;
    Scenario::of_cases(7, cases, &sandbox.amo, &sandbox.postgrest, &world.setting)
}

fn assert_right(world: &World, scenario: &Scenario) {
    assert_eq!(scenario.verify(), Vec::<String>::new());
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
    let of_postgrest = world.sandbox.postgrest.protocol_errors();
    assert_eq!(of_postgrest, Vec::<String>::new());
}

pub(crate) fn requests_of(world: &World, token: &str, server: Server) -> Vec<Recorded> {
    let mut requests = world.sandbox.requests();
    requests.retain(|it| it.server == server && it.token.as_deref() == Some(token));
    requests
}

fn lease_requests(world: &World) -> Vec<Recorded> {
    world.requests_to("rpc.lease")
}

// ---- two services ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_services_one_syncs_and_both_accept() {
    let began = Instant::now();
    let world = prepare(Wishes {
        sweep_every: Some(Duration::from_millis(300)),
        ..Wishes::brisk()
    });
    let (holder, standby) = pair(&world).await;
    let scenario = scenario(&world, 12);
    for (n, row) in rows_of(&scenario).into_iter().enumerate() {
        let to = if n % 2 == 0 { &holder } else { &standby };
        to.deliver(&world, row).await;
    }
    until("every row has its deal", || scenario.remaining() == 0).await;
    for row in rows_of(&scenario) {
        holder.until_done(row).await;
    }
    assert_right(&world, &scenario);

    // It keeps what it accepted, and asks nobody for anything but the lease.
    let counts = standby.app.inbox.counts().await.unwrap();
    assert_eq!(counts.by_state.get(&State::Pending), Some(&6));
    assert!(requests_of(&world, SECOND, Server::Amo).is_empty());
    let asked = requests_of(&world, SECOND, Server::Postgrest);
    let about_lease = |it: &Recorded| ["rpc.lease", "rpc.pause"].contains(&it.route);
    assert!(asked.iter().all(about_lease), "{asked:?}");
    // And nobody asks for that once a row.
    let asked = asked.iter().filter(|it| it.route == "rpc.lease").count();
    let renewed = lease_requests(&world).len() - asked;
    let renewals = began.elapsed().as_millis() / 500 + 2;
    assert!(u128::try_from(renewed).unwrap() <= renewals, "{renewed}");
    holder.stop().await;
    standby.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_holder_dies_the_other_syncs_what_either_has_accepted() {
    let world = world(0.01);
    let (holder, standby) = pair(&world).await;
    // Each finds out about one kind of row that the other has not been told of.
    let before = scenario(&world, 6);
    let rows = rows_of(&before);
    for row in &rows[..3] {
        standby.deliver(&world, *row).await;
    }
    world.sandbox.faults().add(Fault::always(
        Point::any(Server::Amo),
        Kind::Hang(When::After),
    ));
    for row in &rows[3..] {
        holder.deliver(&world, *row).await;
    }
    until("it is at work", || {
        !requests_of(&world, FIRST, Server::Amo).is_empty()
    })
    .await;
    holder.die().await;
    world.sandbox.faults().clear();

    // No sweeps are set; taking over is worth one all the same.
    standby.until_working().await;
    for row in rows {
        standby.until_done(row).await;
    }
    assert_right(&world, &before);
    standby.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_clean_stop_the_other_goes_on_at_the_next_look() {
    // 16 s until a lease runs out, a second between two looks.
    let world = world(0.2);
    let (holder, standby) = pair(&world).await;
    holder.stop().await;
    let began = Instant::now();
    standby.until_working().await;
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    standby.deliver(&world, row).await;
    standby.until_done(row).await;
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    let sent = requests_of(&world, SECOND, Server::Amo)[0].at;
    let given_back = lease_requests(&world)
        .into_iter()
        .find(|it| it.body["seconds"] == 0)
        .unwrap();
    assert!(
        sent.duration_since(given_back.at) >= Duration::from_millis(1_050),
        "the account's second may be used up"
    );
    standby.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_holder_that_is_started_again_goes_on_at_once() {
    let world = world(0.2);
    let (holder, standby) = pair(&world).await;
    let name = world.sandbox.postgrest.lease_holder().unwrap();
    holder.die().await;
    let began = Instant::now();
    let holder = Node::launch(first(&world)).await;
    holder.until_working().await;
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(world.sandbox.postgrest.lease_holder(), Some(name));
    let held_by_another = true;
    assert_eq!(standby.state(), SyncState::Standby { held_by_another });
    standby.stop().await;
    holder.stop().await;
}

/// The second service notes the deal of the row, and dies before the row tells of it.
async fn note_and_die(world: &World, row: RowId) {
    let faults = world.sandbox.faults();
    faults.add(Fault::always(
        Point::postgrest("rows.update"),
        Kind::Hang(When::Before),
    ));
    let other = Node::launch(second(world)).await;
    other.deliver(world, row).await;
    until("the row is to be told", || world.asked("rows.update") > 0).await;
    other.die().await;
    faults.clear();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deal_that_the_other_has_noted_meanwhile_is_not_noted_again() {
    let world = world(0.01);
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    // The first moves the deal and gets no further.
    let faults = world.sandbox.faults();
    let refused = Kind::status(When::Before, 429);
    faults.add(Fault::always(Point::amo("notes.create"), refused));
    let holder = Node::launch(first(&world)).await;
    holder.deliver(&world, row).await;
    until("it is refused", || world.asked("notes.create") > 0).await;
    holder.stop().await;
    faults.clear();
    note_and_die(&world, row).await;

    let holder = Node::launch(first(&world)).await;
    holder.until_done(row).await;
    let notes = world.sandbox.amo.world(|account| account.notes().count());
    assert_eq!(notes, 1);
    holder.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deal_whose_create_is_in_doubt_and_that_the_other_has_noted_is_not_noted_again() {
    let world = world(0.01);
    world.contact(EMAIL);
    let row = world.insert(&json!({}));
    // The first makes the deal and dies before it is told so.
    let hang = Fault::once(Point::amo("leads.create"), Kind::Hang(When::After));
    world.sandbox.faults().add(hang);
    let holder = Node::launch(first(&world)).await;
    holder.deliver(&world, row).await;
    until("the deal is made", || world.deals_of(EMAIL).len() == 1).await;
    holder.die().await;
    note_and_die(&world, row).await;

    let holder = Node::launch(first(&world)).await;
    holder.until_done(row).await;
    let notes = world.sandbox.amo.world(|account| account.notes().count());
    assert_eq!((world.deals_of(EMAIL).len(), notes), (1, 1));
    holder.stop().await;
}

// ---- giving back ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_may_still_land_keeps_the_lease_until_it_runs_out() {
    // Late commits are half a minute, scaled; the stop comes within a second.
    let world = world(0.1);
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    let holder = Node::launch(first(&world)).await;
    holder.until_working().await;
    let late = Kind::LateCommit {
        delay: Duration::from_secs(25),
    };
    let fault = Fault::once(Point::amo("notes.create"), late);
    world.sandbox.faults().add(fault);
    holder.deliver(&world, row).await;
    until("the note is under way", || world.asked("notes.create") == 1).await;
    let began = Instant::now();
    holder.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3), "too slow to tell");
    assert!(world.sandbox.postgrest.lease_holder().is_some());
    let asked = lease_requests(&world);
    assert!(asked.iter().all(|it| it.body["seconds"] != 0));

    let other = Node::launch(second(&world)).await;
    other.until_another_works().await;
    other.deliver(&world, row).await;
    other.until_done(row).await;
    let notes = world.sandbox.amo.world(|account| account.notes().count());
    assert_eq!(notes, 1, "the late one is found");
    other.stop().await;
    assert_eq!(world.sandbox.postgrest.lease_holder(), None);
}

// ---- what the lease does not look at ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_paused_or_forbidden_keeps_the_lease() {
    for is_paused in [true, false] {
        let world = world(0.01);
        let (holder, standby) = pair(&world).await;
        if is_paused {
            let now = Timestamp::now_for_tests();
            holder.app.inbox.set_state(PAUSED, &now).await.unwrap();
        } else {
            let forbidden = Kind::status(When::Before, 403);
            let fault = Fault::always(Point::any(Server::Amo), forbidden);
            world.sandbox.faults().add(fault);
            world.student(EMAIL);
            let row = world.insert(&json!({}));
            holder.deliver(&world, row).await;
        }
        holder
            .until_it_is(|state| ["paused", "halted"].contains(&state.into_str()))
            .await;
        // Eight renewals are more than a whole lease.
        let before = lease_requests(&world).len();
        let renewals = || {
            let asked = lease_requests(&world).into_iter().skip(before);
            asked.filter(|it| it.token.is_none()).count()
        };
        until("it is renewed", || renewals() >= 8).await;
        let held_by_another = true;
        assert_eq!(standby.state(), SyncState::Standby { held_by_another });
        assert!(requests_of(&world, SECOND, Server::Amo).is_empty());
        standby.stop().await;
        holder.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_asks_for_no_lease() {
    let world = world(0.01);
    let mut holding = first(&world);
    holding.sending = None;
    let holding = Node::launch(holding).await;
    holding
        .until_it_is(|state| state == SyncState::Holding)
        .await;
    let other = Node::launch(second(&world)).await;
    other.until_working().await;
    holding.stop().await;
    let asked = lease_requests(&world);
    assert!(asked.iter().all(|it| it.token.is_some()), "{asked:?}");
    other.stop().await;
}

// ---- what the database may answer ----

async fn answering(lease: LeaseFunction) -> World {
    World::start(Wishes {
        postgrest: PostgrestQuirks {
            lease,
            ..PostgrestQuirks::default()
        },
        ..Wishes::brisk()
    })
    .await
}

fn set(world: &World, lease: LeaseFunction) {
    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.lease = lease);
}

async fn until_halted(world: &World, cause: HaltCause) {
    world.until_sync_is("halted").await;
    let state = *world.app().status.borrow();
    let is_it = matches!(state, SyncState::Halted { cause: found, .. } if found == cause);
    assert!(is_it, "{state:?}");
}

#[tokio::test]
async fn without_the_function_it_works_alone_until_there_is_one() {
    let mut world = answering(LeaseFunction::Missing).await;
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    assert_eq!(world.deliver(row).await, 202);
    world.until_synced_once(row).await;
    assert_eq!(world.sandbox.postgrest.lease_holder(), None);

    // The migration is applied; from now on its absence is an outage, also after a restart.
    set(&world, LeaseFunction::Present);
    until("it takes the lease", || {
        world.sandbox.postgrest.lease_holder().is_some()
    })
    .await;
    world.stop().await;
    set(&world, LeaseFunction::Missing);
    world.launch().await;
    until_halted(&world, HaltCause::SupabaseSchema).await;
    let before = world.sandbox.amo.requests().len();
    let second = world.insert(&json!({"email": "second@example.kz"}));
    world.student("second@example.kz");
    assert_eq!(world.deliver(second).await, 202);
    assert_eq!(world.sandbox.amo.requests().len(), before);

    set(&world, LeaseFunction::Present);
    world.until_synced_once(second).await;
}

#[tokio::test]
async fn a_key_that_may_not_ask_for_the_lease_halts_until_it_may() {
    let world = answering(LeaseFunction::Denied).await;
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    assert_eq!(world.deliver(row).await, 202);
    until_halted(&world, HaltCause::SupabaseKey).await;
    // Probes, which see that all else is well, do not end it.
    let probes = || {
        let reads = world.requests_to("rows.read").into_iter();
        reads.filter(|it| it.param("select") == Some("id")).count()
    };
    until("it is probed", || probes() >= 2).await;
    assert_eq!(world.app().status.borrow().into_str(), "halted");
    assert!(world.sandbox.amo.requests().is_empty());

    set(&world, LeaseFunction::Present);
    world.until_synced_once(row).await;
}

#[tokio::test]
async fn a_lease_that_another_has_is_waited_for() {
    let world = World::prepare(Wishes::brisk());
    let until = Timestamp::now_for_tests() + jiff::SignedDuration::from_hours(1);
    let postgrest = world.sandbox.postgrest.clone();
    postgrest.set_lease(Some(("somebody", until)));
    let mut world = world;
    world.launch().await;
    world.until_sync_is("standby").await;
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    assert_eq!(world.deliver(row).await, 202);
    let asked = lease_requests(&world).len();
    world.until_asked("rpc.lease", asked + 3, |_| true).await;
    assert!(world.sandbox.amo.requests().is_empty());

    postgrest.set_lease(None);
    world.until_synced_once(row).await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_asked_for_again() {
    let mut world = World::prepare(Wishes::brisk());
    let faults = world.sandbox.faults();
    for (nth, kind) in (1..).zip([
        Kind::Hang(When::After),
        Kind::server_error(When::Before),
        Kind::HtmlOk,
        Kind::Reset(When::After),
    ]) {
        faults.add(Fault::once(Point::postgrest("rpc.lease").nth(nth), kind));
    }
    world.launch().await;
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    assert_eq!(world.deliver(row).await, 202);
    world.until_synced_once(row).await;
    assert!(world.sandbox.faults().unmet().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_renewal_in_the_middle_of_a_bulk_it_stops_in_time_and_goes_on_after_it() {
    // One request at a time is on its way for half a minute.
    let world = prepare(Wishes {
        amo: AmoQuirks {
            latency: Duration::from_millis(20),
            ..AmoQuirks::patient()
        },
        batch_size: 1,
        requests_per_second: 7,
        ..Wishes::default()
    });
    let settings = first(&world);
    let terms = settings.timings.lease;
    let usable = Duration::from_secs(terms.seconds.into()).saturating_sub(terms.reserve);
    let scenario = scenario(&world, 30);
    let holder = Node::launch(settings).await;
    let arrivals = rows_of(&scenario).into_iter().map(|row| Arrival {
        row,
        source: Source::Sweep,
    });
    holder.app.inbox.store(arrivals.collect()).await.unwrap();
    until("it writes", || world.amo_writes().len() >= 3).await;
    let down = Fault::always(
        Point::postgrest("rpc.lease"),
        Kind::server_error(When::Before),
    );
    world.sandbox.faults().add(down);
    let held_by_another = false;
    holder
        .until_it_is(|state| state == SyncState::Standby { held_by_another })
        .await;
    let asked = lease_requests(&world).len();
    world.until_asked("rpc.lease", asked + 4, |_| true).await;

    let granted = lease_requests(&world)
        .into_iter()
        .rfind(|it| it.status == Some(200))
        .unwrap();
    let last = world.sandbox.amo.requests().pop().unwrap();
    let used = last.at.duration_since(granted.at);
    // As long as a request may be on its way on a busy machine.
    assert!(used <= usable + Duration::from_millis(500), "{used:?}");
    assert!(scenario.remaining() > 0, "it was to stop in the middle");
    let failed = holder.app.inbox.entries(None, 100).await.unwrap();
    assert!(failed.iter().all(|entry| entry.attempts == 0), "no blame");

    world.sandbox.faults().clear();
    holder.until_working().await;
    until("every row has its deal", || scenario.remaining() == 0).await;
    for row in rows_of(&scenario) {
        holder.until_done(row).await;
    }
    assert_right(&world, &scenario);
    holder.stop().await;
}

// ---- real processes ----

/// Small writes, each of which takes a while, at a twentieth of all waits.
fn busy() -> World {
    let world = prepare(Wishes {
        time_scale: 0.05,
        batch_size: 1,
        amo: AmoQuirks {
            latency: Duration::from_millis(30),
            ..AmoQuirks::default()
        },
        ..Wishes::default()
    });
    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.latency = Duration::from_millis(10));
    world
}

fn process(world: &World, token: &str) -> Launch {
    let inbox = world.folder().join(format!("{token}.db"));
    Launch::in_world(world, &["serve"])
        .with("AMOCRM_ACCESS_TOKEN", token)
        .with("DATABASE_URL", format!("sqlite://{}", inbox.display()))
}

fn writes_of(world: &World, token: &str) -> usize {
    let requests = requests_of(world, token, Server::Amo);
    requests.iter().filter(|it| it.is_write).count()
}

async fn two_processes(world: &World) -> (Service, Service) {
    let holder = Service::launch(process(world, FIRST)).await;
    holder.until_sync_is("working").await;
    let standby = Service::launch(process(world, SECOND)).await;
    standby.until_sync_is("standby").await;
    (holder, standby)
}

/// The first one stands still in the middle of its work for two minutes, scaled.
async fn stand_still_after(writes: usize) {
    let world = busy();
    let (holder, standby) = two_processes(&world).await;
    let scenario = scenario(&world, 24);
    for row in rows_of(&scenario) {
        assert_eq!(holder.deliver(&world, row).await, Some(202));
    }
    until("it writes", || writes_of(&world, FIRST) >= writes).await;
    holder.program.signal("STOP");
    let stopped = Instant::now();
    until("the other has taken over", || {
        writes_of(&world, SECOND) >= 2
    })
    .await;
    let taken_over = requests_of(&world, SECOND, Server::Amo)[0].number;
    tokio::time::sleep_until((stopped + Duration::from_secs(6)).into()).await;
    assert!(scenario.remaining() > 0, "it was to wake in the middle");
    holder.program.signal("CONT");
    holder.until_sync_is("standby").await;

    until("every row has its deal", || scenario.remaining() == 0).await;
    let late: Vec<_> = requests_of(&world, FIRST, Server::Amo)
        .into_iter()
        .filter(|it| it.number > taken_over)
        .collect();
    assert!(late.is_empty(), "{late:#?}");
    assert_right(&world, &scenario);

    // It comes again, with an inbox full of what is done by now.
    standby.stop().await.assert_code(0);
    holder.until_sync_is("working").await;
    let path = world.folder().join(format!("{FIRST}.db"));
    let clock = Arc::new(SystemClock);
    let role = tripwire_sync::inbox::Role::Guest;
    let inbox = tripwire_sync::inbox::Inbox::open(&path, role, clock)
        .await
        .unwrap();
    crate::program::until_drained(&inbox).await;
    inbox.close().await;
    assert_right(&world, &scenario);
    holder.stop().await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_stood_still_writes_nothing_before_it_has_the_lease_again() {
    tokio::join!(stand_still_after(1), stand_still_after(6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_the_other_process_takes_over_and_says_how_it_stands() {
    let world = busy();
    let (holder, mut standby) = two_processes(&world).await;
    let readiness = standby.readiness().await;
    assert_eq!(readiness["sync"]["held_by_another"], true, "{readiness}");
    assert!(readiness["sync"]["hint"].is_string(), "{readiness}");
    let metrics = standby.metrics().await;
    for line in [
        r#"tripwire_sync_state{state="standby"} 1"#,
        r#"tripwire_sync_state{state="working"} 0"#,
    ] {
        assert!(metrics.lines().any(|have| have == line), "{metrics}");
    }
    let entries = async |token: &str| {
        let inbox = world.folder().join(format!("{token}.db"));
        let url = format!("sqlite://{}", inbox.display());
        let command = Launch::new(world.folder(), &["entries"]).with("DATABASE_URL", url);
        command.run().await.out
    };
    assert!(entries(SECOND).await.contains("standby: another service"));
    assert!(entries(FIRST).await.contains("this service syncs"));

    let scenario = scenario(&world, 9);
    for (n, row) in rows_of(&scenario).into_iter().enumerate() {
        let to = if n % 2 == 0 { &holder } else { &standby };
        assert_eq!(to.deliver(&world, row).await, Some(202));
    }
    until("it writes", || writes_of(&world, FIRST) >= 2).await;
    holder.kill().await;
    let killed = Instant::now();
    let taken = standby.program.until_logged("lease.taken", |_| true).await;
    assert_eq!(taken["level"], "INFO");
    // 90 s, scaled, and what a busy machine may need.
    let took = killed.elapsed();
    assert!(took < Duration::from_millis(4_500 + 2_000), "{took:?}");
    until("every row has its deal", || scenario.remaining() == 0).await;
    assert_right(&world, &scenario);
    standby.stop().await.assert_code(0);
}
