use proptest::prelude::*;

use super::*;
use crate::domain::SystemClock;

const SECOND: Duration = Duration::from_secs(1);

fn timings() -> LeaseTimings {
    Timings::default().lease
}

fn lease() -> LeaseState {
    LeaseState::new(timings())
}

/// Instants counted in seconds from a beginning.
#[derive(Clone, Copy)]
struct Clocks(Moment);

impl Clocks {
    fn start() -> Self {
        Self(Moment {
            mono: Instant::now(),
            wall: Timestamp::UNIX_EPOCH,
        })
    }

    fn at(self, seconds: u64) -> Moment {
        self.apart(seconds, i64::try_from(seconds).unwrap())
    }

    fn apart(self, mono: u64, wall: i64) -> Moment {
        Moment {
            mono: self.0.mono + Duration::from_secs(mono),
            wall: self.0.wall + jiff::SignedDuration::from_secs(wall),
        }
    }
}

/// Asked at 0, granted at 1, and in use.
fn ours(clocks: Clocks) -> LeaseState {
    let mut lease = lease();
    lease.answered(LeaseAnswer::Granted, clocks.at(0), clocks.at(1));
    lease.open(clocks.at(1)).unwrap();
    lease
}

#[test]
fn a_lease_outlasts_whatever_its_holder_has_begun_and_another_has_it_within_90_seconds() {
    let all = Timings::default();
    let timings = all.lease;
    assert_eq!(timings.reserve, all.write_timeout + all.late_commit);
    // Renewed in time even when one answer does not come.
    assert!(timings.renew_after + timings.timeout + timings.retry.first < timings.usable());
    // Dead right after a renewal; asked for in vain right before it ran out.
    assert!(timings.lasting() + timings.poll + timings.timeout <= Duration::from_secs(90));
    // The database is not asked more often than it can bear.
    assert!(timings.poll >= 5 * SECOND && timings.retry.first >= SECOND);
}

#[test]
fn a_scaled_lease_keeps_its_order_and_whole_seconds() {
    for scale in [0.001, 0.01, 0.05, 0.1, 0.5, 1.0] {
        let timings = Timings::scaled(scale).lease;
        assert!(timings.seconds >= 3, "{scale}");
        assert!(timings.renew_after * 2 <= timings.usable(), "{scale}");
        assert!(timings.poll < timings.renew_after, "{scale}");
    }
}

#[test]
fn a_lease_counts_from_before_it_was_asked_for_and_its_end_is_not_used() {
    let clocks = Clocks::start();
    for (at, is_allowed) in [(1, true), (29, true), (30, false), (80, false)] {
        assert_eq!(ours(clocks).allows(clocks.at(at)), is_allowed, "{at}");
    }
}

#[test]
fn the_clock_that_says_that_more_time_has_passed_decides() {
    let clocks = Clocks::start();
    let table = [
        (20, 20, true),
        // A machine that was suspended; a clock that was put forward.
        (2, 120, false),
        // A clock that was put back.
        (29, -3_600, true),
        (30, -3_600, false),
    ];
    for (mono, wall, is_allowed) in table {
        let now = clocks.apart(mono, wall);
        assert_eq!(ours(clocks).allows(now), is_allowed, "{mono} {wall}");
    }
}

#[test]
fn a_renewal_goes_on_where_it_is_and_one_that_comes_too_late_begins_anew() {
    let clocks = Clocks::start();
    let mut lease = ours(clocks);
    lease.answered(LeaseAnswer::Granted, clocks.at(15), clocks.at(16));
    assert!(lease.allows(clocks.at(44)));
    assert!(!lease.allows(clocks.at(45)));

    // No other service can have had the lease: the next term begins once the work of this one is over.
    lease.answered(LeaseAnswer::Granted, clocks.at(50), clocks.at(51));
    assert_eq!(lease.status(clocks.at(51)), LeaseStatus::Ours);
    assert!(!lease.allows(clocks.at(51)));
    let opening = lease.open(clocks.at(52)).unwrap();
    assert!(!opening.after_another);
    assert!(lease.allows(clocks.at(52)));
}

#[test]
fn an_answer_that_was_long_on_its_way_allows_nothing() {
    let clocks = Clocks::start();
    let mut lease = ours(clocks);
    // Asked in time, read two minutes later: the process stood still.
    lease.answered(LeaseAnswer::Granted, clocks.at(15), clocks.at(135));
    assert_eq!(lease.status(clocks.at(135)), LeaseStatus::Unconfirmed);
    assert_eq!(lease.open(clocks.at(135)), None);
    assert!(!lease.allows(clocks.at(135)));
}

#[test]
fn what_another_had_is_begun_a_second_later_and_looked_over() {
    let clocks = Clocks::start();
    let mut refused = lease();
    refused.answered(LeaseAnswer::Refused, clocks.at(0), clocks.at(0));
    let mut stopped = ours(clocks);
    assert!(!stopped.allows(clocks.at(99)));
    for lease in [&mut refused, &mut stopped] {
        lease.answered(LeaseAnswer::Granted, clocks.at(100), clocks.at(100));
        assert_eq!(lease.open(clocks.at(101)), None, "within the same second");
        assert_eq!(lease.changes_in(clocks.at(101)).unwrap().as_millis(), 50);
        let opening = lease.open(clocks.at(102)).unwrap();
        assert!(opening.after_another);
        assert_eq!(lease.open(clocks.at(103)), None, "once");
    }
}

#[test]
fn a_refusal_ends_it_at_once() {
    let clocks = Clocks::start();
    let mut lease = ours(clocks);
    lease.answered(LeaseAnswer::Refused, clocks.at(2), clocks.at(3));
    assert_eq!(lease.status(clocks.at(3)), LeaseStatus::Theirs);
    assert!(!lease.allows(clocks.at(3)));
}

#[test]
fn without_the_function_it_works_alone_unless_the_function_was_ever_there() {
    let clocks = Clocks::start();
    for is_answered_at_once in [true, false] {
        let mut alone = lease();
        if !is_answered_at_once {
            alone.unanswered();
        }
        alone.answered(LeaseAnswer::NoFunction, clocks.at(0), clocks.at(0));
        alone.open(clocks.at(0)).unwrap();
        assert!(alone.allows(clocks.at(1_000_000)));
        // The migration is applied while it runs.
        alone.answered(LeaseAnswer::Granted, clocks.at(10), clocks.at(10));
        assert!(alone.allows(clocks.at(10)), "in the middle of its work");
        alone.answered(LeaseAnswer::NoFunction, clocks.at(11), clocks.at(11));
        assert!(!alone.allows(clocks.at(41)));
    }

    let mut lease = lease();
    lease.remember();
    lease.answered(LeaseAnswer::NoFunction, clocks.at(0), clocks.at(0));
    assert_eq!(lease.open(clocks.at(0)), None);
    assert!(!lease.allows(clocks.at(0)));
}

/// Earlier versions have stored records in this form.
#[test]
fn the_record_is_read_as_it_was_always_stored() {
    let stored = r#"{"standing":"ours","since":"2026-11-22T10:00:00Z","was_ever_there":true}"#;
    let record: Record = serde_json::from_str(stored).unwrap();
    assert_eq!(record.status, LeaseStatus::Ours);
    assert_eq!(serde_json::to_string(&record).unwrap(), stored);
}

#[tokio::test]
async fn the_name_lives_in_the_inbox_and_each_inbox_has_its_own() {
    let mut names = Vec::new();
    for _ in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.db");
        let mut lives = Vec::new();
        for _ in 0..2 {
            let clock = Arc::new(SystemClock);
            let role = crate::inbox::Role::Owner;
            let inbox = Inbox::open(&path, role, clock.clone()).await.unwrap();
            let lease = Lease::new(&Timings::default(), clock);
            lives.push(lease.recall(&inbox).await.unwrap().holder);
            inbox.close().await;
        }
        assert_eq!(lives[0], lives[1]);
        names.push(lives.remove(0));
    }
    assert_ne!(names[0], names[1]);
}

#[tokio::test]
async fn how_the_last_life_ended_decides_what_the_next_one_may_do() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let path = folder.path().join("inbox.db");
    let role = crate::inbox::Role::Owner;
    let inbox = Inbox::open(&path, role, clock.clone()).await.unwrap();
    let at = crate::domain::Clock::now(&SystemClock);
    let late = timings().given_back_late;
    let table = [
        // The first process.
        (None, false, None),
        // The last process died.
        (Some(End::AtWork), true, None),
        (Some(End::Clean), false, None),
        (
            Some(End::Unanswered { at }),
            false,
            at.checked_add(late).ok(),
        ),
    ];
    for (end, is_in_doubt, not_before) in table {
        if let Some(end) = end {
            inbox.set_state(LAST_END, &end).await.unwrap();
        }
        let lease = Lease::new(&Timings::default(), clock.clone());
        let recalled = lease.recall(&inbox).await.unwrap();
        assert_eq!(lease.is_in_doubt(), is_in_doubt, "{end:?}");
        assert_eq!(recalled.not_before, not_before, "{end:?}");
        let stored: Option<End> = inbox.state(LAST_END).await.unwrap();
        assert_eq!(stored, Some(End::AtWork), "until it ends");
    }
}

#[tokio::test]
async fn after_a_replaced_inbox_nothing_is_asked_for_a_minute_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let clock = crate::domain::TestClock::at("2026-11-22T10:00:00Z".parse().unwrap());
    let path = folder.path().join("inbox.db");
    let role = crate::inbox::Role::Owner;
    let inbox = Inbox::open(&path, role, clock.clone()).await.unwrap();
    let replaced = |at: &str| Replaced {
        at: at.parse().unwrap(),
        is_whole: true,
        parked: 0,
        others: 0,
        kept_as: String::new(),
    };
    let table = [
        ("2026-11-22T10:00:00Z", "2026-11-22T10:01:00Z"),
        ("2026-11-22T09:59:30Z", "2026-11-22T10:00:30Z"),
        ("2026-11-01T00:00:00Z", "2026-11-01T00:01:00Z"),
        // The clock was put back since.
        ("2027-01-01T00:00:00Z", "2026-11-22T10:01:00Z"),
    ];
    for (at, not_before) in table {
        inbox.set_state(REPLACED, &replaced(at)).await.unwrap();
        for _ in 0..2 {
            let lease = Lease::new(&Timings::default(), clock.clone());
            let recalled = lease.recall(&inbox).await.unwrap();
            assert_eq!(recalled.not_before, not_before.parse().ok(), "{at}");
        }
    }
}

// ---- random steps of two services ----

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Time passes for both services.
    Wait(u64),
    /// This service stands still, and its monotonic clock with it.
    Suspend(usize, u64),
    SetForward(usize, u64),
    Ask(usize),
    /// The request reaches the database.
    Arrive(usize),
    /// The answer reaches the service.
    Hear(usize),
    /// Request or answer is lost.
    Lose(usize),
    Open(usize),
    Write(usize),
    /// All steps from a request for the lease to a write.
    Begin(usize),
    /// The service gives the lease back and starts anew, if no write of its own can land any more.
    Restart(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..2_usize;
    let step = prop_oneof![
        4 => (0..20_000_u64).prop_map(Step::Wait),
        1 => (0..200_000_u64).prop_map(Step::Wait),
        1 => (who.clone(), 0..200_000_u64).prop_map(|(who, ms)| Step::Suspend(who, ms)),
        1 => (who.clone(), 0..200_000_u64).prop_map(|(who, ms)| Step::SetForward(who, ms)),
        6 => who.clone().prop_map(Step::Ask),
        6 => who.clone().prop_map(Step::Arrive),
        6 => who.clone().prop_map(Step::Hear),
        1 => who.clone().prop_map(Step::Lose),
        6 => who.clone().prop_map(Step::Open),
        12 => who.clone().prop_map(Step::Begin),
        8 => who.clone().prop_map(Step::Write),
        1 => who.prop_map(Step::Restart),
    ];
    prop::collection::vec(step, 1..150)
}

#[derive(Clone, Copy)]
enum Request {
    OnItsWay(Moment),
    Answered(Moment, LeaseAnswer),
}

struct Service {
    lease: LeaseState,
    suspended: u64,
    put_forward: u64,
    request: Option<Request>,
    opened_at: u64,
    /// When the last of its writes has landed at the latest.
    landed_at: u64,
}

impl Service {
    fn new() -> Self {
        Self {
            lease: lease(),
            suspended: 0,
            put_forward: 0,
            request: None,
            opened_at: 0,
            landed_at: 0,
        }
    }
}

struct Model {
    start: Moment,
    now: u64,
    held: Option<(usize, u64)>,
    services: [Service; 2],
    writes: usize,
}

impl Model {
    fn moment(&self, who: usize) -> Moment {
        let service = &self.services[who];
        let mono = Duration::from_millis(self.now - service.suspended);
        let wall = Duration::from_millis(self.now + service.put_forward);
        Moment {
            mono: self.start.mono + mono,
            wall: self.start.wall + wall,
        }
    }

    /// As the function of the migration answers.
    fn lend(&mut self, who: usize) -> LeaseAnswer {
        if self
            .held
            .is_some_and(|(by, until)| by != who && until > self.now)
        {
            return LeaseAnswer::Refused;
        }
        self.held = Some((who, self.now + u64::from(timings().seconds) * 1_000));
        LeaseAnswer::Granted
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => self.now += ms,
            Step::Suspend(who, ms) => {
                self.now += ms;
                self.services[who].suspended += ms;
            }
            Step::SetForward(who, ms) => self.services[who].put_forward += ms,
            Step::Ask(who) => {
                let asked = self.moment(who);
                let request = &mut self.services[who].request;
                request.get_or_insert(Request::OnItsWay(asked));
            }
            Step::Arrive(who) => {
                if let Some(Request::OnItsWay(asked)) = self.services[who].request {
                    let answer = self.lend(who);
                    self.services[who].request = Some(Request::Answered(asked, answer));
                }
            }
            Step::Hear(who) => {
                let now = self.moment(who);
                let service = &mut self.services[who];
                if let Some(Request::Answered(asked, answer)) = service.request {
                    service.lease.answered(answer, asked, now);
                    service.request = None;
                }
            }
            Step::Lose(who) => self.services[who].request = None,
            Step::Open(who) => {
                let now = self.moment(who);
                let service = &mut self.services[who];
                if service.lease.open(now).is_some() {
                    service.opened_at = self.now;
                }
            }
            Step::Write(who) => self.write(who),
            Step::Begin(who) => {
                for step in [
                    Step::Ask(who),
                    Step::Arrive(who),
                    Step::Hear(who),
                    Step::Wait(1_050),
                    Step::Open(who),
                    Step::Write(who),
                ] {
                    self.take(step);
                }
            }
            Step::Restart(who) => {
                if self.held.is_some_and(|(by, _)| by == who)
                    && self.services[who].landed_at <= self.now
                {
                    self.held = None;
                    let landed_at = self.services[who].landed_at;
                    self.services[who] = Service {
                        landed_at,
                        ..Service::new()
                    };
                }
            }
        }
    }

    fn write(&mut self, who: usize) {
        let now = self.moment(who);
        if !self.services[who].lease.allows(now) {
            return;
        }
        let other = &self.services[1 - who];
        assert!(
            other.landed_at <= self.services[who].opened_at,
            "what the other began lands after our first look"
        );
        let reserve = u64::try_from(timings().reserve.as_millis()).unwrap();
        self.services[who].landed_at = self.now + reserve;
        self.writes += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn all_that_another_began_has_landed_before_a_term_begins(steps in steps()) {
        let mut model = Model {
            start: Clocks::start().0,
            now: 0,
            held: None,
            services: [Service::new(), Service::new()],
            writes: 0,
        };
        for step in steps {
            model.take(step);
        }
    }
}

#[test]
fn both_get_their_turn_in_the_model() {
    let mut model = Model {
        start: Clocks::start().0,
        now: 0,
        held: None,
        services: [Service::new(), Service::new()],
        writes: 0,
    };
    for who in [0, 1, 0] {
        model.take(Step::Begin(who));
        model.take(Step::Wait(80_000));
    }
    assert_eq!(model.writes, 3);
}

#[test]
fn a_restart_keeps_the_name_and_another_machine_takes_its_own() {
    let name = |known, last_end, machine| holder_name(known, last_end, machine, 0xbeef);
    let end = End::Unanswered {
        at: Timestamp::UNIX_EPOCH,
    };
    let ends = [None, Some(End::Clean), Some(End::AtWork), Some(end)];
    let earlier = "0123456789abcdef0123456789abcdef";
    for last_end in ends {
        assert_eq!(name(None, last_end, "vm-1"), "vm-1/000000000000beef");
        let kept = Some("vm-1/0000000000000001");
        assert_eq!(name(kept, last_end, "vm-1"), "vm-1/0000000000000001");
        // A copy of the inbox, and a machine whose name begins alike.
        for other in ["vm-2", "vm", "vm-1-2", ""] {
            let expected = format!("{other}/000000000000beef");
            assert_eq!(name(kept, last_end, other), expected, "{last_end:?}");
        }
        let is_kept = last_end != Some(End::Clean);
        assert_eq!(
            name(Some(earlier), last_end, "vm-1") == earlier,
            is_kept,
            "{last_end:?}"
        );
    }
    let long = "м\n\"'".repeat(9) + "x".repeat(300).as_str();
    assert_eq!(
        name(None, None, &long),
        format!("{}/000000000000beef", "x".repeat(100))
    );
}
