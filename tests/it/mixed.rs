//! The main job, on every kind of student at once.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use sandbox::{AmoQuirks, RandomFaults, Server, scenario::Scenario};
use tripwire_sync::{domain::RowId, inbox::State};

use crate::support::{Wishes, World};

const ROWS: usize = 200;
const CONNECTIONS: usize = 16;

/// Two hundred rows, each delivered one to three times in random order over sixteen connections, while amoCRM limits to
/// seven a second and loses three answers in a hundred after it has acted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_mixed_rows_come_right_once_within_the_limit() {
    let world = World::start(Wishes {
        amo: AmoQuirks {
            index_lag: Duration::ZERO,
            ..AmoQuirks::default()
        },
        time_scale: 0.1,
        requests_per_second: 7,
        ..Wishes::default()
    })
    .await;
    world.sandbox.faults().random(
        Server::Amo,
        RandomFaults {
            drop_answer_after_write: 0.03,
            ..RandomFaults::none(7)
        },
    );
    let scenario = Scenario::mixed(
        7,
        ROWS,
        &world.sandbox.amo,
        &world.sandbox.postgrest,
        &world.setting,
    );

    let answers = deliver_in_disorder(&world, &rows(&world)).await;
    assert_eq!(
        answers.keys().copied().collect::<Vec<_>>(),
        [202],
        "every delivery is accepted: {answers:?}"
    );
    world.until_drained().await;

    assert_eq!(scenario.verify(), Vec::<String>::new());
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
    let parked = world
        .inbox()
        .entries(Some(State::Parked), 10)
        .await
        .unwrap();
    assert!(parked.is_empty(), "{parked:?}");

    let refused = world
        .sandbox
        .amo
        .requests()
        .iter()
        .filter(|request| request.status == Some(429))
        .count();
    assert_eq!(refused, 0, "answered with 429");
    let stamps = world.app().amocrm.as_ref().unwrap().send_stamps();
    assert_eq!(
        stamps.len(),
        world.sandbox.amo.requests().len(),
        "the stamps are those of the whole run"
    );
    for window in stamps.windows(8) {
        let span = window[7] - window[0];
        assert!(
            span > Duration::from_secs(1),
            "eight requests within {span:?}"
        );
    }
}

fn rows(world: &World) -> Vec<RowId> {
    let ids = world.sandbox.postgrest.rows();
    ids.iter()
        .map(|row| row["id"].as_str().unwrap().parse().unwrap())
        .collect()
}

/// Answers how often each status came.
async fn deliver_in_disorder(world: &World, rows: &[RowId]) -> BTreeMap<u16, usize> {
    let mut rng = SmallRng::seed_from_u64(11);
    let mut deliveries: Vec<RowId> = Vec::new();
    for row in rows {
        deliveries.extend(std::iter::repeat_n(*row, rng.random_range(1..=3)));
    }
    deliveries.shuffle(&mut rng);
    let share = deliveries.len().div_ceil(CONNECTIONS);
    let connections = deliveries.chunks(share).map(|share| async move {
        let mut answers = Vec::new();
        for row in share {
            answers.push(world.deliver(*row).await);
        }
        answers
    });
    let mut count = BTreeMap::new();
    for status in join_all(connections).await.into_iter().flatten() {
        *count.entry(status).or_default() += 1;
    }
    count
}
