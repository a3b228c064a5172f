//! Every fault, at every request that a sync makes.
//!
//! The points are not kept by hand: a sync without faults is recorded, and each of its requests is met by each kind of
//! fault in turn. Whatever happens, in the end every row has its one deal on its stage, its one note, and its deal's id.

use std::{collections::HashMap, fmt, time::Duration};

use futures::{StreamExt, stream};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use sandbox::{
    AmoQuirks, Fault, Item, Kind, Page, Point, Recorded, Server, Spoilt, When,
    scenario::{Case, Missing, Scenario},
};
use tripwire_sync::{
    app::Settings,
    inbox::{Revival, State},
    sync::rules::timings::Timings,
};

use crate::support::{PATIENCE, Wishes, World, sending};

/// Worlds at once: each mostly waits.
const PARALLEL: usize = 16;
const SCALE: f64 = 0.01;
/// Later than any answer, earlier than `late_commit` says.
const LATE: Duration = Duration::from_secs(25);

/// What is synced, each kind of write alone and all of them in one bulk.
#[derive(Debug, Clone, Copy)]
struct Situation {
    name: &'static str,
    cases: &'static [Case],
}

const MOVE: Situation = Situation {
    name: "move",
    cases: &[Case::OpenBeforeTarget],
};
const CREATE: Situation = Situation {
    name: "create",
    cases: &[Case::NoDeal],
};
const LEAVE: Situation = Situation {
    name: "leave",
    cases: &[Case::OnTarget],
};
const NEW_CONTACT: Situation = Situation {
    name: "new contact",
    cases: &[Case::MissingContact],
};
const BULK: Situation = Situation {
    name: "bulk",
    cases: &[
        Case::OpenBeforeTarget,
        Case::OpenBeforeTarget,
        Case::OpenBeforeTarget,
        Case::NoDeal,
        Case::NoDeal,
        Case::NoDeal,
        Case::MissingContact,
        Case::MissingContact,
        Case::OnTarget,
        Case::TwoContacts,
        Case::LostAndOpen,
    ],
};

/// Enough for the list of contacts to be read, a canary batch, a batch behind it and a further row of a person, with
/// several batches of each write.
const IMPORT: Situation = Situation {
    name: "import",
    cases: &IMPORT_CASES,
};

const IMPORT_CASES: [Case; 64] = {
    let mut cases = [Case::OpenBeforeTarget; 64];
    let mut at = 0;
    while at < cases.len() {
        cases[at] = match at % 16 {
            3 | 11 => Case::NoDeal,
            5 => Case::OnTarget,
            7 => Case::TwoContacts,
            9 => Case::MissingContact,
            13 => Case::RecentlyLostOnly,
            15 => Case::SecondRow,
            _ => Case::OpenBeforeTarget,
        };
        at += 1;
    }
    cases
};

/// The n-th request to a route.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    server: Server,
    route: &'static str,
    nth: u32,
    is_write: bool,
}

impl Place {
    fn point(&self) -> Point {
        let route = Some(self.route.to_owned());
        Point {
            route,
            ..Point::any(self.server)
        }
        .nth(self.nth)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} #{}", self.server, self.route, self.nth)
    }
}

fn places(requests: &[Recorded]) -> Vec<Place> {
    let mut counts = HashMap::new();
    requests
        .iter()
        .filter(|request| !is_renewal(request, requests))
        .map(|request| {
            let nth = counts.entry((request.server, request.route)).or_insert(0);
            *nth += 1;
            Place {
                server: request.server,
                route: request.route,
                nth: *nth,
                is_write: request.is_write,
            }
        })
        .collect()
}

/// The lease is asked for once before anything else; how often it is renewed is up to the machine, and whatever becomes
/// of that is the business of `lease`.
fn is_renewal(request: &Recorded, requests: &[Recorded]) -> bool {
    let first = requests.iter().find(|it| it.route == request.route);
    request.route == "rpc.lease" && first.is_some_and(|first| first.number != request.number)
}

/// Each request of a recorded sync, as a point for a fault.
pub(crate) fn points(requests: &[Recorded]) -> Vec<Point> {
    places(requests).iter().map(Place::point).collect()
}

fn status(when: When, code: u16, page: Page, retry_after: Option<u64>) -> Kind {
    Kind::Status {
        when,
        code,
        page,
        retry_after,
    }
}

/// Everything that can go wrong with one request, and pass.
fn kinds(place: &Place) -> Vec<Kind> {
    let mut kinds = vec![
        Kind::Reset(When::Before),
        Kind::Reset(When::After),
        Kind::Hang(When::Before),
        Kind::Hang(When::After),
        status(When::Before, 429, Page::Html, None),
        status(When::Before, 429, Page::Json, None),
        status(When::Before, 429, Page::Html, Some(1)),
        Kind::MalformedJson,
        Kind::HtmlOk,
    ];
    for code in [500, 502, 503, 504] {
        kinds.push(status(When::Before, code, Page::Html, None));
        kinds.push(status(When::After, code, Page::Html, None));
    }
    if place.is_write {
        kinds.extend([
            Kind::LateCommit { delay: LATE },
            Kind::NoContent,
            Kind::ShortAnswer,
            Kind::NoRequestIds,
        ]);
    }
    // A refusal that lasts as far as its answer tells, and an item that cannot be read.
    kinds.push(status(When::Before, 400, Page::Json, None));
    if place.server == Server::Amo {
        let item = Item::At(0);
        kinds.extend([Spoilt::Null, Spoilt::AllButTheId].map(|how| Kind::Spoilt { item, how }));
    }
    if place.is_write && place.server == Server::Amo {
        kinds.extend([true, false].map(|others_applied| Kind::BulkRejected {
            others_applied,
            bad_index: 0,
        }));
    }
    kinds
}

/// Short enough to wait for, with the order that the rules rest on: begun, answered, committed, decisive.
fn timings() -> Timings {
    let ms = Duration::from_millis;
    let mut timings = Timings::scaled(SCALE);
    timings.fresh_for = ms(600);
    timings.begin_within = ms(600);
    timings.write_timeout = ms(250);
    timings.read_timeout = ms(250);
    timings
}

pub(crate) fn prepare(cases: &[Case]) -> (World, Scenario) {
    let world = World::prepare(Wishes {
        amo: AmoQuirks::patient(),
        time_scale: SCALE,
        missing: Missing::Create,
        sweep_every: Some(Duration::from_hours(1)),
        requests_per_second: 1_000,
        batch_size: if cases.len() > BULK.cases.len() {
            10
        } else {
            50
        },
        ..Wishes::default()
    });
    let scenario = Scenario::of_cases(
        3,
        cases.iter().copied(),
        &world.sandbox.amo,
        &world.sandbox.postgrest,
        &world.setting,
    );
    (world, scenario)
}

pub(crate) fn settings(world: &World) -> Settings {
    let mut settings = world.settings();
    settings.timings = timings();
    sending(&mut settings).amocrm.timeouts.read = settings.timings.read_timeout;
    sending(&mut settings).amocrm.timeouts.write = settings.timings.write_timeout;
    settings.supabase.timeout = settings.timings.read_timeout;
    settings
}

async fn launch(world: &mut World) {
    let settings = settings(world);
    world.launch_with(settings).await;
}

/// The requests of a sync in which nothing goes wrong.
async fn recorded(situation: Situation) -> Vec<Place> {
    let (mut world, scenario) = prepare(situation.cases);
    launch(&mut world).await;
    until_all_done(&world, &scenario, "no fault").await;
    let places = places(&world.sandbox.requests());
    world.stop().await;
    places
}

/// Waits until every row's entry is done; parked ones are a person's business, who tries them again.
pub(crate) async fn until_all_done(world: &World, scenario: &Scenario, what: &str) {
    let rows = scenario.students.len() as u64;
    let mut settled = world.app().settled.clone();
    let wait = async {
        loop {
            settled.mark_unchanged();
            let counts = world.inbox().counts().await.unwrap();
            let of = |state| counts.by_state.get(&state).copied().unwrap_or(0);
            if of(State::Done) == rows {
                return;
            }
            if of(State::Parked) > 0 && of(State::Parked) + of(State::Done) == rows {
                world.inbox().revive(Revival::AllParked).await.unwrap();
            }
            settled.changed().await.unwrap();
        }
    };
    let done = tokio::time::timeout(PATIENCE, wait).await;
    assert!(
        done.is_ok(),
        "{what}: {:#?}",
        world.inbox().entries(None, 20).await
    );
}

/// Meets one sync with these faults. Answers what is wrong in the end.
async fn meet(situation: Situation, faults: &[(Place, Kind)]) -> Vec<String> {
    let (mut world, scenario) = prepare(situation.cases);
    for (place, kind) in faults {
        world
            .sandbox
            .faults()
            .add(Fault::once(place.point(), kind.clone()));
    }
    launch(&mut world).await;
    let what = format!("{}: {}", situation.name, told(faults));
    until_all_done(&world, &scenario, &what).await;
    // A commit may come late; whoever repeated before it came has doubled.
    while world.sandbox.amo.late_commits() > 0 {
        tokio::task::yield_now().await;
    }
    let mut wrong = scenario.verify();
    wrong.extend(world.sandbox.amo.protocol_errors());
    // Where batches overlap, a bulk write more or less depends on which of them comes first: a later request may not come at all.
    let always_comes = |(place, _): &(Place, Kind)| scenario.students.len() < 20 || place.nth == 1;
    if let [only] = faults
        && always_comes(only)
        && !world.sandbox.faults().unmet().is_empty()
    {
        wrong.push("the fault met no request".to_owned());
    }
    world.stop().await;
    wrong
        .iter()
        .map(|wrong| format!("{what}: {wrong}"))
        .collect()
}

fn told(faults: &[(Place, Kind)]) -> String {
    let told: Vec<String> = faults
        .iter()
        .map(|(place, kind)| format!("{place} {kind:?}"))
        .collect();
    told.join(" and ")
}

async fn every_fault_at_every_request(situation: Situation) {
    let mut cases = Vec::new();
    for place in recorded(situation).await {
        for kind in kinds(&place) {
            cases.push(vec![(place.clone(), kind)]);
        }
    }
    let count = cases.len();
    let wrong = meet_all(situation, cases).await;
    assert!(
        wrong.is_empty(),
        "{} of {count} went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

async fn meet_all(situation: Situation, cases: Vec<Vec<(Place, Kind)>>) -> Vec<String> {
    let runs = stream::iter(cases).map(|faults| async move { meet(situation, &faults).await });
    runs.buffer_unordered(PARALLEL)
        .collect::<Vec<_>>()
        .await
        .concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moved_deal_survives_every_single_fault() {
    every_fault_at_every_request(MOVE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_created_deal_survives_every_single_fault() {
    every_fault_at_every_request(CREATE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deal_that_needs_no_move_survives_every_single_fault() {
    every_fault_at_every_request(LEAVE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deal_with_a_new_contact_survives_every_single_fault() {
    every_fault_at_every_request(NEW_CONTACT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_run_survives_every_single_fault() {
    every_fault_at_every_request(BULK).await;
}

/// Of a whole import, which has some hundred requests: each request meets some kinds, each kind some requests of every
/// sort, writes to amoCRM eight times as many as the others. All of them take no longer than a bulk does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_survives_faults_in_every_part_of_it() {
    let places = recorded(IMPORT).await;
    let pages = places.iter().filter(|it| it.route == "contacts.list");
    assert!(pages.count() >= 3, "a page, and contacts by id");
    let mut cases = Vec::new();
    for (at, place) in places.iter().enumerate() {
        let one_in = if place.is_write && place.server == Server::Amo {
            3
        } else {
            24
        };
        for (nr, kind) in kinds(place).into_iter().enumerate() {
            if (at + nr) % one_in == 0 {
                cases.push(vec![(place.clone(), kind)]);
            }
        }
    }
    let count = cases.len();
    let wrong = meet_all(IMPORT, cases).await;
    assert!(
        wrong.is_empty(),
        "{} of {count} went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Pairs per situation.
const PAIRS: usize = 40;
/// Another seed finds other pairs; this one is fixed so that a red run stays red.
const SEED: u64 = 20_261_122;

/// Two faults at once, drawn from the same points.
async fn random_pairs(situation: Situation) {
    let places = recorded(situation).await;
    let mut rng = SmallRng::seed_from_u64(SEED);
    let mut draw = || {
        let place = places[rng.random_range(0..places.len())].clone();
        let mut kinds = kinds(&place);
        let kind = kinds.swap_remove(rng.random_range(0..kinds.len()));
        (place, kind)
    };
    let cases = std::iter::repeat_with(|| vec![draw(), draw()])
        .take(PAIRS)
        .collect();
    let wrong = meet_all(situation, cases).await;
    assert!(
        wrong.is_empty(),
        "seed {SEED}, {} went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pairs_of_faults_are_survived_too() {
    for situation in [MOVE, CREATE, LEAVE, NEW_CONTACT, BULK] {
        random_pairs(situation).await;
    }
}
