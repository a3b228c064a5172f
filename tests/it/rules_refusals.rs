//! Lasting refusals: of one row, which is set aside, or of all rows, for which sending stops.

use std::{collections::HashSet, time::Duration};

use futures::{StreamExt, stream};
use sandbox::{Fault, Kind, Page, Point, When, postgrest::Policies};
use serde_json::json;
use tripwire_sync::{
    domain::{Halt, HaltCause, Operation, RowId, SyncState},
    inbox::{HALT, REFUSALS, RELEASED, State},
};

use crate::support::{Wishes, World};

/// Worlds at once: each mostly waits.
const PARALLEL: usize = 8;

const MOVE: &str = "leads.update";
const CREATE: &str = "leads.create";
const NOTE: &str = "notes.create";
const WRITE_BACK: &str = "rows.update";
const SEARCH: &str = "contacts.search";
const DEALS: &str = "leads.list";
const NOTES: &str = "notes.list";

fn email(n: usize) -> String {
    format!("student{n}@example.kz")
}

fn answer(code: u16, page: Page) -> Kind {
    Kind::Status {
        when: When::Before,
        code,
        page,
        retry_after: None,
    }
}

/// A question or a write to amoCRM, or the write back.
#[derive(Debug, Clone)]
struct Refusal {
    route: &'static str,
    kind: Kind,
}

impl Refusal {
    fn operation(&self) -> Operation {
        match self.route {
            MOVE => Operation::Move,
            CREATE => Operation::Create,
            NOTE => Operation::Note,
            SEARCH => Operation::Search,
            DEALS => Operation::ReadDeals,
            NOTES => Operation::ReadNotes,
            _ => Operation::WriteBack,
        }
    }

    fn cause(&self) -> HaltCause {
        match self.operation() {
            Operation::WriteBack => HaltCause::SupabaseWriteBack,
            _ => HaltCause::AmocrmAccount,
        }
    }

    fn point(&self) -> Point {
        match self.operation() {
            Operation::WriteBack => Point::postgrest(self.route),
            _ => Point::amo(self.route),
        }
    }
}

/// Every operation with answers that do not pass by themselves.
fn refusals() -> Vec<Refusal> {
    let of_supabase = [
        answer(400, Page::Code("23514")),
        answer(409, Page::Code("23505")),
        answer(500, Page::Code("42P17")),
        answer(400, Page::Code("P0001")),
        answer(500, Page::Code("54001")),
        answer(500, Page::Html),
        answer(404, Page::Html),
    ];
    let of_amocrm = [
        answer(400, Page::Json),
        answer(404, Page::Html),
        answer(500, Page::Html),
        answer(422, Page::Code("244")),
    ];
    let routes = [MOVE, CREATE, NOTE, SEARCH, DEALS, NOTES].into_iter();
    let of_amocrm = routes.flat_map(|route| {
        let kinds = of_amocrm.clone().into_iter();
        kinds.map(move |kind| Refusal { route, kind })
    });
    let of_supabase = of_supabase.into_iter().map(|kind| Refusal {
        route: WRITE_BACK,
        kind,
    });
    of_amocrm.chain(of_supabase).collect()
}

async fn each<F: Future<Output = ()>>(worlds: Vec<F>) {
    stream::iter(worlds)
        .for_each_concurrent(PARALLEL, |world| world)
        .await;
}

/// Students whose deal is to be moved, or to be created. The text by which the requests about the n-th are known.
fn student(world: &World, n: usize, route: &str) -> (RowId, String) {
    let email = email(n);
    let contact = world.contact(&email);
    let about = match route {
        MOVE | DEALS => world.deal(contact, world.setting.before[0]).to_string(),
        CREATE => format!("Student {n} of many"),
        SEARCH => {
            world.deal(contact, world.setting.before[0]);
            email.clone()
        }
        NOTES => world.deal(contact, world.setting.target).to_string(),
        _ => {
            world.deal(contact, world.setting.before[0]);
            String::new()
        }
    };
    let name = format!("Student {n} of many");
    let row = world.insert(&json!({ "email": email, "full_name": name }));
    let about = match route {
        NOTE => row_mark(row),
        WRITE_BACK => row.to_string(),
        _ => about,
    };
    (row, about)
}

/// How a note names its row.
fn row_mark(row: RowId) -> String {
    row.reference()
}

fn halt_of(world: &World) -> Option<HaltCause> {
    match *world.app().status.borrow() {
        SyncState::Halted { cause, .. } => Some(cause),
        _ => None,
    }
}

/// As it is stored, which is a moment after it is in force.
async fn stored_halt(world: &World) -> Halt {
    world.until_sync_is("halted").await;
    loop {
        if let Some(halt) = world.inbox().state(HALT).await.unwrap() {
            return halt;
        }
        tokio::task::yield_now().await;
    }
}

async fn one_of_many_is_set_aside(refusal: Refusal) {
    let world = World::start(Wishes::brisk()).await;
    let (bad, about) = student(&world, 0, refusal.route);
    world.sandbox.faults().add(Fault::always(
        refusal.point().about(&about),
        refusal.kind.clone(),
    ));
    world.deliver(bad).await;
    let is_refused = |it: &sandbox::Recorded| it.fault.is_some();
    world.until_asked(refusal.route, 1, is_refused).await;
    let good: Vec<RowId> = (1..4)
        .map(|n| student(&world, n, refusal.route).0)
        .collect();
    for row in &good {
        world.deliver(*row).await;
    }
    for row in good {
        world.until_synced_once(row).await;
    }
    let entry = world.until_state(bad, State::Parked).await;
    assert_eq!(halt_of(&world), None, "{refusal:?}");
    assert!(entry.reason.is_some(), "{refusal:?}");
    assert_eq!(entry.progress.step.resolve_after(), None, "{refusal:?}");
    let left: serde_json::Value = world.inbox().state(REFUSALS).await.unwrap().unwrap();
    assert_eq!(left["refused"], json!([]), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_one_row_sets_that_row_aside() {
    each(
        refusals()
            .into_iter()
            .map(one_of_many_is_set_aside)
            .collect(),
    )
    .await;
}

async fn all_are_refused(refusal: Refusal) {
    let world = World::start(Wishes::brisk()).await;
    world
        .sandbox
        .faults()
        .add(Fault::always(refusal.point(), refusal.kind.clone()));
    let mut rows = Vec::new();
    for n in 0..5 {
        let (row, _) = student(&world, n, refusal.route);
        world.deliver(row).await;
        rows.push(row);
        // The next one comes when this one has been refused: rows that begin together are ahead together.
        if n < 2 {
            world
                .until(row, "refused", |entry| entry.attempts > 0)
                .await;
        }
    }
    world.until_sync_is("halted").await;
    assert_eq!(halt_of(&world), Some(refusal.cause()), "{refusal:?}");
    let halt = stored_halt(&world).await;
    assert_eq!(halt.operation, Some(refusal.operation()));
    let named: HashSet<_> = halt.rows.iter().copied().collect();
    assert_eq!(named.len(), 3, "{refusal:?}: {halt:?}");

    // Probes try its three rows, each in turn, and no other.
    let asked = world.asked(refusal.route);
    world
        .until_asked(refusal.route, asked + 3, |it| it.fault.is_some())
        .await;
    let ahead: HashSet<String> = world
        .amo_writes()
        .iter()
        .flat_map(|write| write.items().to_vec())
        .map(|item| format!("{}{}{}", item["id"], item["entity_id"], item["name"]))
        .collect();
    let writes_of_a_row =
        if refusal.operation() == Operation::WriteBack || refusal.operation() == Operation::Note {
            2
        } else {
            1
        };
    assert!(ahead.len() <= 3 * writes_of_a_row, "{refusal:?}: {ahead:?}");
    for row in &rows {
        let state = world.entry(*row).await.unwrap().state;
        assert!(
            matches!(state, State::Pending | State::Claimed),
            "{refusal:?}: {state:?}"
        );
    }

    world.sandbox.faults().clear();
    world.until_sync_is("working").await;
    for row in rows {
        world.until_synced_once(row).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_for_all_rows_stops_sending_after_three_and_parks_none() {
    each(refusals().into_iter().map(all_are_refused).collect()).await;
}

/// In an import too: one row spoils nothing, and is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_import_only_the_refused_rows_are_set_aside() {
    const ROWS: usize = 120;
    let worlds = [MOVE, CREATE, NOTE, WRITE_BACK].map(|route| async move {
        let mut world = World::prepare(Wishes {
            sweep_every: Some(Duration::from_hours(9)),
            ..Wishes::brisk()
        });
        let students: Vec<_> = (0..ROWS).map(|n| student(&world, n, route)).collect();
        let bad: Vec<RowId> = [7, 90].map(|n: usize| students[n].0).into();
        for n in [7, 90] {
            let refusal = Refusal {
                route,
                kind: answer(400, Page::Json),
            };
            let about = refusal.point().about(&students[n].1);
            world
                .sandbox
                .faults()
                .add(Fault::always(about, refusal.kind));
        }
        world.launch().await;
        for (row, _) in &students {
            if !bad.contains(row) {
                world.until_synced_once(*row).await;
            }
        }
        // The last one in doubt is decided by the next purchase.
        let (next, _) = student(&world, ROWS, route);
        world.deliver(next).await;
        world.until_synced_once(next).await;
        for row in bad {
            world.until_state(row, State::Parked).await;
        }
        assert_eq!(halt_of(&world), None);
    });
    each(worlds.into()).await;
}

/// A trigger of the project's own leaves one row as it is, without a word.
#[tokio::test]
async fn a_row_that_no_write_back_changes_is_set_aside() {
    let world = World::start(Wishes::brisk()).await;
    let (bad, _) = student(&world, 0, WRITE_BACK);
    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.unchangeable_rows = vec![bad.into()]);
    world.deliver(bad).await;
    world
        .until(bad, "refused", |entry| entry.attempts > 0)
        .await;
    let (good, _) = student(&world, 1, WRITE_BACK);
    world.deliver(good).await;
    world.until_synced_once(good).await;
    let reason = world.until_state(bad, State::Parked).await.reason.unwrap();
    assert!(reason.contains("ничего не меняет"), "{reason}");
    assert_eq!(halt_of(&world), None);
}

/// The streak is on disk, and has no time limit.
#[tokio::test]
async fn a_restart_forgets_no_refusal() {
    let mut world = World::start(Wishes::brisk()).await;
    let refused = answer(400, Page::Code("23514"));
    let point = Point::postgrest(WRITE_BACK);
    world.sandbox.faults().add(Fault::always(point, refused));
    for n in 0..3 {
        assert_eq!(halt_of(&world), None);
        let (row, _) = student(&world, n, WRITE_BACK);
        world.deliver(row).await;
        world
            .until(row, "refused", |entry| entry.attempts > 0 || n == 2)
            .await;
        if n < 2 {
            world.stop().await;
            world.launch().await;
        }
    }
    world.until_sync_is("halted").await;
    assert_eq!(halt_of(&world), Some(HaltCause::SupabaseWriteBack));
}

#[tokio::test]
async fn a_halt_ends_when_a_person_sets_one_of_its_rows_aside() {
    let world = World::start(Wishes::brisk()).await;
    let mut bad = Vec::new();
    for n in 0..3 {
        let (row, about) = student(&world, n, WRITE_BACK);
        let point = Point::postgrest(WRITE_BACK).about(&about);
        let refused = answer(400, Page::Code("23514"));
        world.sandbox.faults().add(Fault::always(point, refused));
        world.deliver(row).await;
        bad.push(row);
    }
    world.until_sync_is("halted").await;
    let (good, _) = student(&world, 3, WRITE_BACK);
    world.deliver(good).await;

    world.park(bad[0]).await;
    world.until_synced_once(good).await;
    for row in bad {
        world.until_state(row, State::Parked).await;
    }
    assert_eq!(halt_of(&world), None);
}

/// Three bad rows in a row stop the scenario; after a `resume` the others go first.
#[tokio::test]
async fn after_a_resume_the_refused_rows_come_last() {
    let world = World::start(Wishes::brisk()).await;
    let mut bad = Vec::new();
    for n in 0..3 {
        let (row, about) = student(&world, n, MOVE);
        let point = Point::amo(MOVE).about(&about);
        let refused = answer(400, Page::Json);
        world.sandbox.faults().add(Fault::always(point, refused));
        world.deliver(row).await;
        bad.push(row);
    }
    world.until_sync_is("halted").await;
    let (good, _) = student(&world, 3, MOVE);
    world.deliver(good).await;
    world.guest().await.clear_state(HALT).await.unwrap();

    world.until_synced_once(good).await;
    for row in bad {
        world.until_state(row, State::Parked).await;
    }
}

// ---- 403 ----

fn asked_and_forbidden(world: &World, route: &str) -> usize {
    let requests = world.requests_to(route);
    let forbidden = requests.iter().filter(|it| it.status == Some(403));
    forbidden.count()
}

fn forbidden() -> Kind {
    Kind::status(When::Before, 403)
}

/// One deal that the token's user may not touch, or a firewall that dislikes one text.
#[tokio::test]
async fn a_row_that_amocrm_forbids_is_held_after_a_resume_and_set_aside_in_the_end() {
    for route in [MOVE, CREATE, NOTE, SEARCH] {
        let world = World::start(Wishes::brisk()).await;
        let (bad, about) = student(&world, 0, route);
        let point = Point::amo(route).about(&about);
        world
            .sandbox
            .faults()
            .add(Fault::always(point, forbidden()));
        world.deliver(bad).await;
        world.until_sync_is("halted").await;
        let halt = stored_halt(&world).await;
        assert_eq!(
            (halt.cause, halt.rows),
            (HaltCause::AmocrmForbidden, vec![bad])
        );

        world.guest().await.clear_state(HALT).await.unwrap();
        world.until_sync_is("working").await;
        let refused = asked_and_forbidden(&world, route);
        let (good, _) = student(&world, 1, MOVE);
        world.deliver(good).await;
        world.until_synced_once(good).await;
        assert_eq!(halt_of(&world), None, "{route}: held, not tried first");
        world.until_state(bad, State::Parked).await;
        assert_eq!(asked_and_forbidden(&world, route), refused + 1, "{route}");
        assert_eq!(halt_of(&world), None, "{route}");

        // The next 403 stops everything, whatever it is about.
        let (next, about) = student(&world, 2, MOVE);
        let point = Point::amo(MOVE).about(&about);
        world
            .sandbox
            .faults()
            .add(Fault::always(point, forbidden()));
        world.deliver(next).await;
        world.until_sync_is("halted").await;
    }
}

#[tokio::test]
async fn a_held_row_that_a_person_retries_goes_on_at_once() {
    let world = World::start(Wishes::brisk()).await;
    let (row, _) = student(&world, 0, MOVE);
    world
        .sandbox
        .faults()
        .add(Fault::once(Point::amo(MOVE), forbidden()));
    world.deliver(row).await;
    world.until_sync_is("halted").await;
    let guest = world.guest().await;
    guest.clear_state(HALT).await.unwrap();
    world.until_sync_is("working").await;
    assert_eq!(world.asked(MOVE), 1);

    guest.set_state(RELEASED, &[row]).await.unwrap();
    guest
        .revive(tripwire_sync::inbox::Revival::Rows(vec![row]))
        .await
        .unwrap();
    world.until_synced_once(row).await;
}

/// The row's operation has worked while a person asked for it: a later refusal is a new doubt.
#[tokio::test]
async fn a_wish_for_a_row_that_is_not_in_doubt_is_not_kept_for_a_later_doubt() {
    let world = World::start(Wishes::brisk()).await;
    let (row, _) = student(&world, 0, MOVE);
    let guest = world.guest().await;
    guest.set_state(RELEASED, &[row]).await.unwrap();
    let (other, _) = student(&world, 1, MOVE);
    world.deliver(other).await;
    world.until_synced_once(other).await;
    let kept: Option<Vec<RowId>> = world.inbox().state(RELEASED).await.unwrap();
    assert_eq!(kept, None);
}

// ---- the account, the table ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_not_there_stops_sending_at_the_first_request() {
    let kinds = [
        Kind::Redirect,
        answer(404, Page::Html),
        Kind::HtmlOk,
        answer(301, Page::Empty),
    ];
    each(
        kinds
            .map(|kind| async move {
                let world = World::prepare(Wishes::brisk());
                let mut world = world;
                let any = Point::any(sandbox::Server::Amo);
                world.sandbox.faults().add(Fault::always(any, kind.clone()));
                world.launch().await;
                let (row, _) = student(&world, 0, MOVE);
                world.deliver(row).await;
                world.until_sync_is("halted").await;
                assert_eq!(halt_of(&world), Some(HaltCause::AmocrmAccount), "{kind:?}");
                world.sandbox.faults().clear();
                world.until_synced_once(row).await;
            })
            .into(),
    )
    .await;
}

/// The pipeline, read again, has the stage: the refusal is this deal's own.
#[tokio::test]
async fn a_deal_that_may_not_stand_on_the_stage_is_set_aside() {
    let world = World::start(Wishes::brisk()).await;
    let (bad, about) = student(&world, 0, MOVE);
    let refused = answer(400, Page::Code("NotSupportedChoice"));
    let point = Point::amo(MOVE).about(&about);
    world.sandbox.faults().add(Fault::always(point, refused));
    world.deliver(bad).await;
    world
        .until(bad, "refused", |entry| entry.attempts > 0)
        .await;
    let (good, _) = student(&world, 1, MOVE);
    world.deliver(good).await;
    world.until_synced_once(good).await;
    world.until_state(bad, State::Parked).await;
    assert_eq!(halt_of(&world), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_its_own_policy_makes_unreadable_stops_sending_at_once() {
    let answers = [
        answer(400, Page::Code("42P17")),
        answer(500, Page::Code("42P17")),
        answer(500, Page::Code("54001")),
        answer(400, Page::Code("P0001")),
    ];
    each(
        answers
            .map(|refused| async move {
                let world = World::start(Wishes::brisk()).await;
                world.sandbox.faults().add(Fault::always(
                    Point::postgrest("rows.read"),
                    refused.clone(),
                ));
                let (row, _) = student(&world, 0, MOVE);
                world.deliver(row).await;
                world.until_sync_is("halted").await;
                assert_eq!(
                    halt_of(&world),
                    Some(HaltCause::SupabaseDatabase),
                    "{refused:?}"
                );
                world.sandbox.faults().clear();
                world.until_synced_once(row).await;
            })
            .into(),
    )
    .await;
}

/// A policy that raises an error for one row fails every read of that row, also together with others.
#[tokio::test]
async fn a_row_that_cannot_be_read_is_set_aside_and_the_others_go_on() {
    let mut world = World::start(Wishes {
        hold: true,
        ..Wishes::brisk()
    })
    .await;
    let students: Vec<_> = (0..40).map(|n| student(&world, n, MOVE).0).collect();
    let bad = [students[0], students[11]];
    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.raising_rows = bad.map(Into::into).into());
    for row in &students {
        world.deliver(*row).await;
    }
    world.stop().await;
    world.wishes.hold = false;
    world.launch().await;
    for row in students {
        if !bad.contains(&row) {
            world.until_synced_once(row).await;
        }
    }
    for row in bad {
        let entry = world.until_state(row, State::Parked).await;
        assert!(entry.reason.unwrap().contains("P0001"));
    }
    assert_eq!(halt_of(&world), None);
}

/// There is no new purchase: the sweep notices that it sees no row.
#[tokio::test]
async fn a_policy_that_hides_all_rows_is_told_without_a_student() {
    let world = World::start(Wishes {
        sweep_every: Some(Duration::from_millis(50)),
        ..Wishes::brisk()
    })
    .await;
    let (row, _) = student(&world, 0, MOVE);
    world.deliver(row).await;
    world.until_synced_once(row).await;
    let policies = |policies| {
        world
            .sandbox
            .postgrest
            .quirks(|quirks| quirks.policies = policies);
    };
    policies(Policies::HideAll);
    world.until_sync_is("halted").await;
    assert_eq!(halt_of(&world), Some(HaltCause::SupabaseKey));
    policies(Policies::Open);
    world.until_sync_is("working").await;
}

/// A right that is missing needs no second row to be believed.
#[tokio::test]
async fn a_missing_right_to_write_stops_sending_at_the_first_row() {
    let world = World::start(Wishes::brisk()).await;
    world.sandbox.postgrest.quirks(|quirks| {
        let unwritable = &mut quirks.behind.unwritable_columns;
        unwritable.push("amocrm_deal_id".to_owned());
    });
    let (row, _) = student(&world, 0, MOVE);
    world.deliver(row).await;
    world.until_sync_is("halted").await;
    assert_eq!(halt_of(&world), Some(HaltCause::SupabaseWriteBack));
    let halt = stored_halt(&world).await;
    assert_eq!(halt.rows, [row]);
    assert!(halt.detail.contains("UPDATE"), "{}", halt.detail);
    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.behind.unwritable_columns.clear());
    world.until_synced_once(row).await;
}
