//! Death at every point of a sync: before and after each write to the inbox, before and after each request.
//!
//! Real processes, really dead. The points are not kept by hand: the commits are counted up until a process lives to
//! the end, the requests are those of a sync in which nothing goes wrong.

use std::time::Duration;

use futures::{StreamExt, stream};
use sandbox::{
    AmoQuirks, Fault, Kind, Point, When,
    scenario::{Case, Missing, Scenario},
};
use tripwire_sync::domain::DieAt;

use crate::{
    program::{Launch, Program, until, until_drained},
    support::{Wishes, World},
};

/// Services at once.
const PARALLEL: usize = 6;
/// Nobody has that many commits in a sync: something repeats without end.
const MOST_COMMITS: u64 = 60;

const CASES: [Case; 4] = [
    Case::OpenBeforeTarget,
    Case::NoDeal,
    Case::MissingContact,
    Case::OnTarget,
];

fn prepare(cases: &[Case]) -> (World, Scenario) {
    let world = World::prepare(Wishes {
        amo: AmoQuirks::patient(),
        time_scale: 0.01,
        missing: Missing::Create,
        sweep_every: Some(Duration::from_hours(1)),
        requests_per_second: 7,
        ..Wishes::default()
    });
    let scenario = Scenario::of_cases(
        5,
        cases.iter().copied(),
        &world.sandbox.amo,
        &world.sandbox.postgrest,
        &world.setting,
    );
    (world, scenario)
}

fn launch(world: &World, die_at: Option<DieAt>) -> Program {
    let launch = Launch::in_world(world, &["serve"]).with("AMOCRM_MISSING_CONTACT", "create");
    let launch = match die_at {
        Some(DieAt {
            commit,
            committed: false,
        }) => launch.with("TRIPWIRE_DIE_AT", format!("before:{commit}")),
        Some(DieAt {
            commit,
            committed: true,
        }) => launch.with("TRIPWIRE_DIE_AT", format!("after:{commit}")),
        None => launch,
    };
    launch.spawn()
}

/// A process that lives finishes what a dead one began. Answers what is wrong then.
async fn finish(world: &World, scenario: &Scenario, what: &str) -> Vec<String> {
    let mut program = launch(world, None);
    program.until_logged("sweep.done", |_| true).await;
    until(&format!("all rows done after {what}"), || {
        scenario.remaining() == 0
    })
    .await;
    // Nor does it do anything more after that.
    let inbox = world.guest().await;
    until_drained(&inbox).await;
    inbox.close().await;
    program.signal("TERM");
    let ended = program.ended().await;
    let mut wrong = scenario.verify();
    wrong.extend(world.sandbox.amo.protocol_errors());
    if ended.code != Some(0) {
        wrong.push(format!("the survivor ended with {:?}", ended.code));
    }
    wrong
        .iter()
        .map(|wrong| format!("{what}: {wrong}"))
        .collect()
}

/// `None`: the process lived to the end of its work.
async fn die_at_commit(cases: &[Case], at: DieAt) -> Option<Vec<String>> {
    let (world, scenario) = prepare(cases);
    let mut program = launch(&world, Some(at));
    tokio::select! {
        () = program.until_ended() => {}
        () = until("all rows done", || scenario.remaining() == 0) => {
            program.signal("TERM");
            program.until_ended().await;
        }
    }
    let ended = program.ended().await;
    if ended.code == Some(0) {
        return None;
    }
    let what = format!(
        "{cases:?}, death {} commit {}",
        if at.committed { "after" } else { "before" },
        at.commit
    );
    Some(finish(&world, &scenario, &what).await)
}

async fn death_at_every_commit(cases: &'static [Case]) {
    let mut wrong = Vec::new();
    for committed in [false, true] {
        let mut died = 0;
        let mut deaths = stream::iter(1..=MOST_COMMITS)
            .map(|commit| die_at_commit(cases, DieAt { commit, committed }))
            .buffered(PARALLEL);
        while let Some(Some(found)) = deaths.next().await {
            died += 1;
            wrong.extend(found);
        }
        assert!(died >= 6, "a sync has more commits than {died}");
        assert!(died < MOST_COMMITS, "no end");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_survives_death_at_every_commit() {
    death_at_every_commit(&[Case::OpenBeforeTarget]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_survives_death_at_every_commit() {
    death_at_every_commit(&[Case::NoDeal]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_contact_survives_death_at_every_commit() {
    death_at_every_commit(&[Case::MissingContact]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_survives_death_at_every_commit() {
    death_at_every_commit(&CASES).await;
}

/// A request is held back, before or after its server has acted on it, and the process is killed. `then` comes between
/// the death and the next life.
async fn die_at_request(
    cases: &[Case],
    point: Point,
    when: When,
    then: impl Fn(&World),
) -> Vec<String> {
    let what = format!("{cases:?}, death {when:?} {point:?}");
    let (world, scenario) = prepare(cases);
    let held_back = Fault::once(point, Kind::Hang(when));
    world.sandbox.faults().add(held_back);
    let program = launch(&world, None);
    until(&what, || world.sandbox.faults().unmet().is_empty()).await;
    program.signal("KILL");
    program.ended().await;
    then(&world);
    finish(&world, &scenario, &what).await
}

async fn death_at_every_request(cases: &'static [Case], then: impl Fn(&World) + Copy) {
    let (world, scenario) = prepare(cases);
    let undisturbed = finish(&world, &scenario, "nothing").await;
    assert_eq!(undisturbed, Vec::<String>::new());
    let points = crate::faults::points(&world.sandbox.requests());
    assert!(
        points.len() > 6,
        "a sync has more requests than {}",
        points.len()
    );

    let deaths = points
        .into_iter()
        .flat_map(|point| [When::Before, When::After].map(|when| (point.clone(), when)));
    let wrong: Vec<Vec<String>> = stream::iter(deaths)
        .map(|(point, when)| die_at_request(cases, point, when, then))
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    let wrong = wrong.concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn nothing_more(_: &World) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_survives_death_at_every_request() {
    death_at_every_request(&[Case::OpenBeforeTarget], nothing_more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_survives_death_at_every_request() {
    death_at_every_request(&[Case::NoDeal], nothing_more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_contact_survives_death_at_every_request() {
    death_at_every_request(&[Case::MissingContact], nothing_more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_survives_death_at_every_request() {
    death_at_every_request(&CASES, nothing_more).await;
}

/// Its disk is gone; the table and the CRM still know enough.
fn lose_the_inbox(world: &World) {
    for ending in ["", "-wal", "-shm"] {
        let path = format!("{}{ending}", world.inbox_path().display());
        if std::path::Path::new(&path).exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_inbox_and_the_sweep_finish_every_row_without_doubling() {
    let cases = &[Case::OpenBeforeTarget, Case::NoDeal, Case::OnTarget];
    death_at_every_request(cases, lose_the_inbox).await;
}
