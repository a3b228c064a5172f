//! What Supabase is like on a bad day, and what each of its moods means for the rows: again, or a halt.

use std::{fmt, time::Duration};

use futures::{StreamExt, stream};
use sandbox::{Fault, Kind, Page, Point, Recorded, Server, When};
use serde_json::json;
use tripwire_sync::{
    domain::{HaltCause, RowId, SyncState},
    inbox::State,
};

use crate::support::{EMAIL, PATIENCE, Wishes, World};

/// Worlds at once: each mostly waits.
const PARALLEL: usize = 16;
/// So many refusals of one kind make a halt.
const STRIKES: u32 = 3;

const READ: &str = "rows.read";
const WRITE_BACK: &str = "rows.update";

/// An answer instead of the rows, or to a write back.
#[derive(Clone, Copy)]
struct Mood {
    status: u16,
    page: Page,
}

impl Mood {
    fn kind(self) -> Kind {
        Kind::Status {
            when: When::Before,
            code: self.status,
            page: self.page,
            retry_after: None,
        }
    }
}

impl fmt::Display for Mood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.status, self.page)
    }
}

fn mood(status: u16, page: Page) -> Mood {
    Mood { status, page }
}

fn fault(world: &World, route: &str, mood: Mood, times: u32) {
    let at = Point::postgrest(route);
    let kind = mood.kind();
    world.sandbox.faults().add(Fault { at, kind, times });
}

fn faulted(world: &World, route: &str) -> Vec<Recorded> {
    let mut requests = world.requests_to(route);
    requests.retain(|request| request.server == Server::Postgrest && request.fault.is_some());
    requests
}

fn halted_by(world: &World) -> Option<HaltCause> {
    match *world.app().status.borrow() {
        SyncState::Halted { cause, .. } => Some(cause),
        _ => None,
    }
}

async fn each<F: Future<Output = ()>>(moods: Vec<F>) {
    stream::iter(moods)
        .for_each_concurrent(PARALLEL, |mood| mood)
        .await;
}

/// Passing trouble: tried again and again, longer than any halt has patience for, and nobody is told.
async fn is_tried_again(route: &str, mood: Mood) {
    const TIMES: u32 = 5;
    let world = World::start(Wishes::brisk()).await;
    world.student(EMAIL);
    fault(&world, route, mood, TIMES);

    let row = world.insert(&json!({}));
    assert_eq!(world.deliver(row).await, 202);
    let entry = world
        .until(row, "tried often", |entry| entry.attempts >= TIMES)
        .await;
    assert_eq!(halted_by(&world), None, "{mood} at {route}");
    let reason = entry.reason.unwrap_or_default();
    assert!(
        reason.contains(&mood.status.to_string()),
        "{mood} at {route}: {reason}"
    );

    world.until_synced_once(row).await;
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_by_itself_is_tried_again_without_a_halt() {
    let mut moods: Vec<Mood> = [520, 521, 522, 523, 524, 525, 544]
        .map(|status| mood(status, Page::Html))
        .into();
    moods.extend([
        mood(500, Page::Code("57014")),
        mood(500, Page::Code("55P03")),
        mood(500, Page::Code("40P01")),
        mood(503, Page::Code("PGRST001")),
        mood(503, Page::Code("PGRST002")),
        mood(503, Page::Code("53300")),
        mood(503, Page::Empty),
        mood(504, Page::Code("PGRST003")),
        mood(408, Page::Empty),
        mood(429, Page::Html),
    ]);
    let points = moods
        .into_iter()
        .flat_map(|mood| [READ, WRITE_BACK].map(|route| is_tried_again(route, mood)));
    each(points.collect()).await;
}

#[tokio::test]
async fn a_project_that_names_a_time_is_not_asked_before_it() {
    let world = World::start(Wishes::brisk()).await;
    world.student(EMAIL);
    world.sandbox.faults().add(Fault::once(
        Point::postgrest(READ),
        Kind::Status {
            when: When::Before,
            code: 503,
            page: Page::Code("PGRST002"),
            retry_after: Some(1),
        },
    ));
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_synced_once(row).await;

    let reads = world.requests_to(READ);
    let pause = reads[1].at - reads[0].at;
    assert!(pause >= Duration::from_secs(1), "{pause:?}");
}

/// Lasting trouble: a halt after a few strikes, amoCRM is left alone, and all goes on by itself once it is over.
async fn halts(mood: Mood, cause: HaltCause) {
    let world = World::start(Wishes::brisk()).await;
    world.student(EMAIL);
    world.student("second@example.kz");
    fault(&world, READ, mood, u32::MAX);

    let first = world.insert(&json!({}));
    assert_eq!(world.deliver(first).await, 202);
    world.until_sync_is("halted").await;
    assert_eq!(halted_by(&world), Some(cause), "{mood}");
    let refused = faulted(&world, READ).len();
    assert!(refused >= 3, "{mood}: {refused} refusals are no few");

    // What comes now is stored, and waits.
    let second = world.insert(&json!({"email": "second@example.kz"}));
    assert_eq!(world.deliver(second).await, 202);
    // Probes go on, and find nothing better.
    world
        .until_asked(READ, refused + 2, |read| read.fault.is_some())
        .await;
    assert_eq!(halted_by(&world), Some(cause), "{mood}: after a probe");
    for row in [first, second] {
        let entry = world.entry(row).await.unwrap();
        assert_eq!(entry.state, State::Pending);
        assert!(entry.attempts < STRIKES, "{mood}: {}", entry.attempts);
    }
    assert_eq!(world.sandbox.amo.requests().len(), 0, "{mood}");

    world.sandbox.faults().clear();
    world.until_synced_once(first).await;
    world.until_synced_once(second).await;
    world.until_sync_is("working").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_must_mend_halts_and_ends_by_itself_once_mended() {
    let moods = [
        (mood(540, Page::Html), HaltCause::SupabaseProject),
        (mood(540, Page::Empty), HaltCause::SupabaseProject),
        (mood(402, Page::Html), HaltCause::SupabaseProject),
        (mood(405, Page::Code("25006")), HaltCause::SupabaseProject),
        (mood(401, Page::Empty), HaltCause::SupabaseKey),
        (mood(401, Page::Html), HaltCause::SupabaseKey),
        (mood(401, Page::Code("PGRST301")), HaltCause::SupabaseKey),
        (mood(401, Page::Code("PGRST303")), HaltCause::SupabaseKey),
        (mood(401, Page::Code("22023")), HaltCause::SupabaseKey),
        (mood(401, Page::Code("42501")), HaltCause::SupabaseKey),
        (mood(403, Page::Code("42501")), HaltCause::SupabaseKey),
        (mood(404, Page::Code("PGRST205")), HaltCause::SupabaseSchema),
        (mood(404, Page::Code("42P01")), HaltCause::SupabaseSchema),
    ];
    each(moods.map(|(mood, cause)| halts(mood, cause)).into()).await;
}

/// A schema cache that lags behind a migration.
async fn is_behind_for_a_moment(route: &str, mood: Mood) {
    let world = World::start(Wishes::brisk()).await;
    world.student(EMAIL);
    fault(&world, route, mood, STRIKES - 1);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_synced_once(row).await;
    assert_eq!(halted_by(&world), None);
    assert!(
        world.sandbox.faults().unmet().is_empty(),
        "{mood} at {route}"
    );
}

#[tokio::test]
async fn a_schema_cache_that_is_behind_for_a_moment_causes_no_halt() {
    let unknown_table = mood(404, Page::Code("PGRST205"));
    let unknown_column = mood(400, Page::Code("PGRST204"));
    is_behind_for_a_moment(READ, unknown_table).await;
    is_behind_for_a_moment(WRITE_BACK, unknown_table).await;
    is_behind_for_a_moment(WRITE_BACK, unknown_column).await;
}

fn lose_column(world: &World, column: &str) {
    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.absent_columns.push(column.to_owned()));
}

/// A service that has learnt the table's columns.
async fn acquainted() -> World {
    let world = World::start(Wishes::brisk()).await;
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_synced_once(row).await;
    world.student("second@example.kz");
    world
}

#[tokio::test]
async fn a_column_that_vanished_is_missed_only_if_nothing_goes_without_it() {
    for column in ["phone", "price", "status", "amocrm_contact_id"] {
        let world = acquainted().await;
        lose_column(&world, column);
        let row = world.insert(&json!({"email": "second@example.kz"}));
        world.deliver(row).await;
        world.until_synced_once(row).await;
        let attempts = world.entry(row).await.unwrap().attempts;
        assert_eq!(attempts, 0, "without {column} nothing fails");
    }
    for column in ["email", "full_name", "created_at", "amocrm_deal_id"] {
        let world = acquainted().await;
        lose_column(&world, column);
        let asked = world.sandbox.amo.requests().len();
        let row = world.insert(&json!({"email": "second@example.kz"}));
        world.deliver(row).await;
        world.until_sync_is("halted").await;
        assert_eq!(halted_by(&world), Some(HaltCause::SupabaseSchema));
        assert_eq!(world.sandbox.amo.requests().len(), asked, "{column}");

        world
            .sandbox
            .postgrest
            .quirks(|quirks| quirks.absent_columns.clear());
        world.until_synced_once(row).await;
    }
}

/// Reads work, the write back does not: after three rows no more deals are moved whose rows cannot tell of it.
async fn is_refused_only_the_write_back(mood: Mood, cause: HaltCause) {
    let world = World::start(Wishes::brisk()).await;
    fault(&world, WRITE_BACK, mood, u32::MAX);
    let mut rows = Vec::new();
    for n in 0..4 {
        let email = format!("student{n}@example.kz");
        world.student(&email);
        let row = world.insert(&json!({ "email": email }));
        if n == 3 {
            world.until_sync_is("halted").await;
        }
        assert_eq!(world.deliver(row).await, 202);
        if n < 2 {
            world.until(row, "refused", |it| it.attempts > 0).await;
        }
        rows.push(row);
    }
    assert_eq!(halted_by(&world), Some(cause), "{mood}");
    let written = world.amo_writes().len();
    assert_eq!(written, 6, "{mood}: the moves and notes of three");

    let refused = faulted(&world, WRITE_BACK).len();
    // Probes that only read would find nothing wrong.
    world
        .until_asked(WRITE_BACK, refused + 2, |patch| patch.fault.is_some())
        .await;
    assert_eq!(halted_by(&world), Some(cause), "{mood}: after a probe");
    assert_eq!(world.amo_writes().len(), written, "{mood}");

    world.sandbox.faults().clear();
    for row in rows {
        world.until_synced_once(row).await;
    }
}

const REFUSALS: [(Mood, HaltCause); 4] = [
    (
        Mood {
            status: 403,
            page: Page::Code("42501"),
        },
        HaltCause::SupabaseWriteBack,
    ),
    (
        Mood {
            status: 401,
            page: Page::Code("PGRST303"),
        },
        HaltCause::SupabaseKey,
    ),
    (
        Mood {
            status: 405,
            page: Page::Code("25006"),
        },
        HaltCause::SupabaseProject,
    ),
    (
        Mood {
            status: 540,
            page: Page::Html,
        },
        HaltCause::SupabaseProject,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_write_back_halts_until_that_very_write_back_works() {
    each(
        REFUSALS
            .map(|(mood, cause)| is_refused_only_the_write_back(mood, cause))
            .into(),
    )
    .await;
}

/// The rows of a bulk, in the inbox before the service starts.
async fn bulk(world: &mut World, count: usize) -> Vec<RowId> {
    let rows = (0..count)
        .map(|n| {
            let email = format!("student{n}@example.kz");
            world.student(&email);
            world.insert(&json!({"email": email}))
        })
        .collect();
    world.launch().await;
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_whose_write_back_is_refused_writes_nothing_more_to_the_crm() {
    for (mood, cause) in REFUSALS {
        let mut world = World::prepare(Wishes {
            sweep_every: Some(Duration::from_hours(9)),
            ..Wishes::brisk()
        });
        fault(&world, WRITE_BACK, mood, u32::MAX);
        let rows = bulk(&mut world, 120).await;
        world.until_sync_is("halted").await;
        assert_eq!(halted_by(&world), Some(cause), "{mood}");
        let refused = faulted(&world, WRITE_BACK)[0].number;
        world
            .until_asked(WRITE_BACK, 12, |patch| patch.number > refused)
            .await;
        let after: Vec<_> = world
            .amo_writes()
            .into_iter()
            .filter(|write| write.number > refused)
            .collect();
        assert!(after.is_empty(), "{mood}: {after:?}");

        world.sandbox.faults().clear();
        tokio::time::timeout(PATIENCE, world.until_drained())
            .await
            .unwrap();
        for row in rows {
            world.until_synced_once(row).await;
        }
    }
}
