//! Which rows: what is looked at, left alone, waited for and given up.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, ToSpan};
use sandbox::postgrest::Policies;
use serde_json::json;
use tripwire_sync::{
    domain::{Clock, RowId, SystemClock},
    inbox::{Entry, Outcome, Revival, State, Step},
};
use uuid::Uuid;

use crate::support::{EMAIL, NowForTests, Wishes, World};

/// Scaled by a hundred: the minute between two looks.
const SECOND_LOOK: Duration = Duration::from_millis(600);

/// Our own clock, gone wrong.
#[derive(Debug)]
struct AnHourAhead;

impl Clock for AnHourAhead {
    fn now(&self) -> Timestamp {
        SystemClock.now() + 1.hour()
    }
}

#[tokio::test]
async fn an_insert_alone_brings_its_student_into_step() {
    let world = World::start(Wishes::brisk()).await;
    let deal = world.student(EMAIL);
    world.connect_trigger();
    let row = world.insert(&json!({}));

    assert_eq!(world.until_synced_once(row).await, deal);
}

#[tokio::test]
async fn a_row_settles_by_the_clock_of_postgrest_and_not_by_ours() {
    let delay = Duration::from_millis(900);
    let mut world = World::prepare(Wishes {
        settle_delay: delay,
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    });
    world.student(EMAIL);
    let created_at = Timestamp::now_for_tests();
    let row = world.insert(&json!({"created_at": created_at}));

    let settings = world.settings();
    world.launch_at(settings, Arc::new(AnHourAhead)).await;
    world.until_synced_once(row).await;

    let first = world.sandbox.amo.requests()[0].time;
    assert!(
        first >= created_at + delay,
        "asked at {first}, created at {created_at}"
    );
}

#[tokio::test]
async fn a_blocked_or_inactive_row_is_skipped() {
    let world = World::start(Wishes::brisk()).await;
    world.student(EMAIL);
    for status in ["blocked", "inactive", " Blocked "] {
        let row = world.insert(&json!({"status": status}));
        assert_eq!(world.deliver(row).await, 202);
        world.until_done(row, Outcome::Skipped).await;
    }
    assert_eq!(world.sandbox.amo.requests().len(), 0);
}

#[tokio::test]
async fn a_row_from_before_the_day_of_going_live_is_too_old_and_one_without_a_date_is_not() {
    let now = Timestamp::now_for_tests();
    let world = World::start(Wishes {
        since: now - 24.hours(),
        ..Wishes::brisk()
    })
    .await;
    world.student(EMAIL);

    let old = world.insert(&json!({"created_at": now - 25.hours()}));
    world.deliver(old).await;
    world.until_done(old, Outcome::TooOld).await;
    assert_eq!(world.sandbox.amo.requests().len(), 0);

    let undated = world.insert(&json!({"created_at": null}));
    world.deliver(undated).await;
    world.until_synced_once(undated).await;
}

#[tokio::test]
async fn a_row_that_has_a_deal_already_leaves_the_crm_untouched() {
    let world = World::start(Wishes::brisk()).await;
    world.student(EMAIL);
    let row = world.insert(&json!({"amocrm_deal_id": "77"}));
    world.deliver(row).await;

    world.until_done(row, Outcome::AlreadyLinked).await;
    assert_eq!(world.sandbox.amo.requests().len(), 0);
    assert_eq!(world.column(row, "amocrm_deal_id").unwrap(), "77");
}

#[tokio::test]
async fn a_row_is_gone_after_two_looks_a_minute_apart() {
    let world = World::start(Wishes::brisk()).await;
    world.insert(&json!({}));
    let row = RowId::new(Uuid::new_v4());
    world.deliver(row).await;
    world.until_done(row, Outcome::Gone).await;

    let reads = world.requests_to("rows.read");
    let looks: Vec<_> = reads
        .iter()
        .filter(|read| {
            read.param("id")
                .is_some_and(|id| id.contains(&row.to_string()))
        })
        .map(|read| read.at)
        .collect();
    assert!(looks.len() >= 2, "{looks:?}");
    let apart = *looks.last().unwrap() - looks[0];
    assert!(apart >= SECOND_LOOK, "{apart:?}");
    assert_eq!(world.sandbox.amo.requests().len(), 0);
}

#[tokio::test]
async fn a_row_that_comes_back_between_two_looks_is_synced() {
    let world = World::start(Wishes::brisk()).await;
    world.insert(&json!({}));
    world.student(EMAIL);
    let id = Uuid::new_v4();
    let row = RowId::new(id);
    world.deliver(row).await;
    world
        .until(row, "missed once", |entry| {
            entry.progress.absent_since.is_some()
        })
        .await;
    world.insert(&json!({"id": id}));

    world.until_synced_once(row).await;
}

#[tokio::test]
async fn rows_that_a_policy_hides_are_not_gone() {
    let world = World::start(Wishes::brisk()).await;
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.policies = Policies::HideAll);
    world.deliver(row).await;
    world.until_sync_is("halted").await;
    let halted = world.app().status.borrow().into_str();
    assert_eq!(
        halted, "halted",
        "the database says that the policy is missing"
    );
    let entry = world.until_state(row, State::Pending).await;
    assert_eq!((entry.attempts, entry.progress.absent_since), (0, None));

    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.policies = Policies::Open);
    world.until_synced_once(row).await;
}

#[tokio::test]
async fn a_row_without_an_email_is_parked_and_never_searched_for() {
    let world = World::start(Wishes::brisk()).await;
    world.student(EMAIL);
    let none = "в строке нет правильного e-mail";
    let several = "в строке несколько e-mail: оставьте один";
    for (email, reason) in [
        (json!(null), none),
        (json!(""), none),
        (json!("  "), none),
        (json!("айгерим"), none),
        (json!("a@b"), none),
        (json!("a@@example.kz"), none),
        (json!("\u{200b}"), none),
        (json!(format!("{}@example.kz", "a".repeat(70_000))), none),
        (json!("a@example.kz, b@example.kz"), several),
        (json!("a@example.kz/b@example.kz"), several),
        (json!("a@example.kz b@example.kz"), several),
    ] {
        let before = world.sandbox.amo.requests().len();
        let row = world.insert(&json!({"email": email, "phone": "+7 701 234 56 78"}));
        world.deliver(row).await;
        let entry = world.until_state(row, State::Parked).await;
        assert_eq!(entry.reason.as_deref(), Some(reason));
        assert_eq!(world.sandbox.amo.requests().len(), before, "{reason}");

        world
            .sandbox
            .postgrest
            .update_row(row, |row| row.insert("email".into(), EMAIL.into()));
        world
            .inbox()
            .revive(Revival::Rows(vec![row]))
            .await
            .unwrap();
        world.until_synced_once(row).await;
    }
}

#[tokio::test]
async fn rows_that_are_too_large_hide_no_others() {
    const LARGEST: usize = 64 << 10;
    let mut world = World::prepare(Wishes {
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    });
    // Together too large for one answer, and by itself.
    let [wide, huge] = [LARGEST / 3, LARGEST + 1].map(|bytes| "a".repeat(bytes));
    let mut rows = Vec::new();
    let names = [&wide, "Анна", &wide, &huge, "Боб", &wide, "Ли"];
    for (n, &name) in names.iter().enumerate() {
        let email = format!("student{n}@example.kz");
        world.student(&email);
        // The largest one is whatever row comes first.
        let id = Uuid::from_u128(if name == huge { 1 } else { n as u128 + 2 });
        rows.push(world.insert(&json!({ "id": id, "email": email, "full_name": name })));
    }
    let mut settings = world.settings();
    settings.supabase.largest_answer = LARGEST;
    world.launch_at(settings, Arc::new(SystemClock)).await;
    for (n, row) in rows.iter().enumerate() {
        if n != 3 {
            world.until_synced_once(*row).await;
        }
    }
    let tried = |entry: &Entry| entry.attempts > 0 && entry.reason.is_some();
    let entry = world.until(rows[3], "tried", tried).await;
    let reason = entry.reason.unwrap_or_default();
    assert!(reason.contains("строка слишком велика"), "{reason}");
    assert_eq!(entry.progress.step, Step::Begun);
}
