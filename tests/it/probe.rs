//! `check --probe` against a sandbox with one habit or another.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use futures::future::join_all;
use sandbox::{AmoQuirks, Fault, Kind, Point, When};

use crate::{
    commands::{command, json_of},
    program::Ended,
    support::{EMAIL, Wishes, World},
};

/// An account with two pages of contacts, a deleted deal, and a student that the service has synced.
async fn school() -> World {
    let mut world = World::start(Wishes::default()).await;
    world.setting.add_crowd(&world.sandbox.amo, 1, 300);
    let student = world.student(EMAIL);
    let row = world.insert(&serde_json::json!({}));
    assert_eq!(world.deliver(row).await, 202);
    assert_eq!(world.until_synced_once(row).await, student);
    world.stop().await;
    world.sandbox.amo.world(|amo| {
        let ids: Vec<_> = amo.contacts().map(|contact| contact.id).collect();
        for (second, id) in (1..).zip(&ids) {
            amo.set_contact(*id, |contact| {
                contact.updated_at += Duration::from_secs(second);
            });
        }
        let newest = amo.contact(ids[ids.len() - 2]).unwrap().deals[0];
        amo.delete_deal(newest);
    });
    world
}

fn states(probe: &Ended) -> BTreeMap<String, String> {
    let findings = json_of(probe);
    let text = |it: &serde_json::Value| it.as_str().unwrap().to_owned();
    let findings = findings.as_array().unwrap().iter();
    findings
        .map(|it| (text(&it["what"]), text(&it["state"])))
        .collect()
}

/// No more than ten requests, one a second, and none a write.
fn assert_gentle(world: &World, before: usize) {
    let requests = &world.sandbox.amo.requests()[before..];
    assert!(
        (1..=10).contains(&requests.len()),
        "{} requests",
        requests.len()
    );
    assert!(
        requests.iter().all(|it| !it.is_write && it.method == "GET"),
        "{requests:#?}"
    );
    // Of all together: on a busy machine one arrives late and the next in time.
    let (first, last) = (&requests[0], &requests[requests.len() - 1]);
    let seconds = u32::try_from(requests.len() - 1).unwrap();
    assert!(last.at - first.at >= Duration::from_secs(1) * seconds);
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_reads_tell_what_documents_leave_open_and_name_nobody() {
    let world = school().await;
    let before = world.sandbox.amo.requests().len();
    let probe = command(&world, &["check", "--probe"]).await;
    probe.assert_code(0);
    assert_gentle(&world, before);
    assert_eq!(
        world.sandbox.amo.requests().len() - before,
        10,
        "the whole account is worth ten"
    );
    let states: Vec<&str> = probe
        .out
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(states[0], "tripwire-sync");
    assert_eq!(states[1..14], ["confirmed"; 13], "{}", probe.out);
    assert!(
        probe
            .out
            .contains("13 confirmed, 0 contradicted, 0 could not be told"),
        "{}",
        probe.out
    );

    let (people, ids) = world.sandbox.amo.world(|amo| {
        let people: Vec<String> = amo
            .contacts()
            .flat_map(|it| {
                it.emails()
                    .into_iter()
                    .map(str::to_owned)
                    .chain([it.name.clone()])
            })
            .collect();
        let contacts = amo.contacts().map(|it| it.id.get());
        let ids: Vec<i64> = contacts.chain(amo.deals().map(|it| it.id.get())).collect();
        (people, ids)
    });
    let words = probe.words();
    assert!(people.iter().all(|it| !words.contains(it)), "{words}");
    assert!(
        ids.iter().all(|id| !words.contains(&id.to_string())),
        "{words}"
    );
}

type Habit = (fn(&World), &'static [(&'static str, &'static str)], i32);

const HABITS: &[Habit] = &[
    (
        |world| world.sandbox.amo.quirks(|it| it.next_link_missing = true),
        &[("next_link", "contradicted")],
        0,
    ),
    (
        |world| world.sandbox.amo.quirks(|it| it.time_filter = false),
        &[("time_filter", "contradicted")],
        0,
    ),
    (
        |world| world.sandbox.amo.quirks(|it| it.keeps_deleted_ids = false),
        &[("deleted_deals", "unknown")],
        0,
    ),
    (
        |world| {
            world
                .sandbox
                .amo
                .quirks(|it| it.index_lag = Duration::from_mins(10));
            world
                .sandbox
                .amo
                .world(|amo| amo.create_contact("Новая", &["new@example.kz"], &[]));
        },
        &[("search", "unknown")],
        0,
    ),
    // The sandbox itself complains of so long an address, so this one comes from in front of it.
    (
        |world| {
            let kind = Kind::status(When::Before, 414);
            let at = Point::amo("contacts.list").nth(6);
            world.sandbox.faults().add(Fault { at, kind, times: 1 });
        },
        &[("many_ids", "contradicted")],
        1,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_habit_of_amocrm_turns_its_finding() {
    let probes = HABITS.iter().map(async |(habit, turned, code)| {
        let world = school().await;
        habit(&world);
        let before = world.sandbox.amo.requests().len();
        let probe = command(&world, &["check", "--probe", "--json"]).await;
        probe.assert_code(*code);
        assert_gentle(&world, before);
        let mut states = states(&probe);
        states.retain(|_, state| state != "confirmed");
        let turned: BTreeMap<String, String> = turned
            .iter()
            .map(|(what, state)| ((*what).to_owned(), (*state).to_owned()))
            .collect();
        assert_eq!(states, turned, "{probe:#?}");
    });
    join_all(probes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_account_and_one_that_refuses_are_told() {
    let world = World::prepare(Wishes {
        amo: AmoQuirks::patient(),
        ..Wishes::default()
    });
    let probe = command(&world, &["check", "--probe", "--json"]).await;
    probe.assert_code(0);
    let states = states(&probe);
    assert_eq!(
        states.values().filter(|state| *state == "unknown").count(),
        12,
        "{states:?}"
    );
    assert_gentle(&world, 0);

    // Nothing is asked after a refusal.
    let before = world.sandbox.amo.requests().len();
    world.sandbox.amo.set_token("another");
    let probe = crate::program::Launch::in_world(&world, &["check", "--probe"])
        .with("AMOCRM_ACCESS_TOKEN", "wrong-token-value")
        .run()
        .await;
    probe.assert_code(1);
    assert!(probe.err.contains("(401)"), "{probe:#?}");
    assert_eq!(world.sandbox.amo.requests().len() - before, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_assumption_is_explained() {
    let world = World::prepare(Wishes::default());
    let probe = command(&world, &["check", "--probe", "--json"]).await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/assumptions.md");
    let document = fs::read_to_string(path).unwrap();
    let states = states(&probe);
    assert_eq!(states.len(), 13);
    for name in states.keys() {
        assert!(document.contains(&format!("| `{name}` | ")), "{name}");
    }
}
