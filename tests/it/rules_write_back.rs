//! The deal's id into the row: filled by somebody else, refused by a policy, a column that is not there.

use std::time::Duration;

use sandbox::{Fault, Kind, Point, PostgrestQuirks, When, postgrest::Policies};
use serde_json::{Value, json};
use tripwire_sync::{
    domain::{HaltCause, RowId, SyncState},
    inbox::{Outcome, State},
};

use crate::support::{EMAIL, Wishes, World};

fn fill(world: &World, row: RowId, deal: &str) {
    world.sandbox.postgrest.update_row(row, |row| {
        row.insert("amocrm_deal_id".into(), Value::from(deal));
    });
}

/// Somebody fills the row while our write back is on its way.
async fn filled_meanwhile(filled_with: impl Fn(&str) -> String) -> (World, RowId, String) {
    let mut wishes = Wishes::brisk();
    wishes.postgrest.latency = Duration::from_millis(100);
    let world = World::start(wishes).await;
    let deal = world.student(EMAIL).to_string();
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_asked("rows.update", 1, |_| true).await;
    fill(&world, row, &filled_with(&deal));
    (world, row, deal)
}

#[tokio::test]
async fn a_row_filled_with_another_deal_on_the_way_is_parked_and_both_are_named() {
    let (world, row, ours) = filled_meanwhile(|_| "77001".to_owned()).await;
    let entry = world.until_state(row, State::Parked).await;
    let reason = entry.reason.unwrap();
    assert!(
        reason.contains("77001") && reason.contains(&ours),
        "{reason}"
    );
    assert_eq!(world.column(row, "amocrm_deal_id").unwrap(), "77001");
}

#[tokio::test]
async fn a_row_filled_with_our_deal_on_the_way_is_done() {
    let (world, row, ours) = filled_meanwhile(str::to_owned).await;
    world.until_done(row, Outcome::Synced).await;
    assert_eq!(world.column(row, "amocrm_deal_id").unwrap(), ours);
}

#[tokio::test]
async fn a_row_removed_on_the_way_is_gone_and_stops_no_other_row() {
    let mut wishes = Wishes::brisk();
    wishes.postgrest.latency = Duration::from_millis(100);
    let world = World::start(wishes).await;
    world.student(EMAIL);
    let row = world.insert(&json!({}));
    let other = world.insert(&json!({"email": "other@example.kz", "amocrm_deal_id": "5"}));
    world.deliver(row).await;
    world.until_asked("rows.update", 1, |_| true).await;
    world.sandbox.postgrest.delete_row(row);

    world.until_done(row, Outcome::Gone).await;
    world.deliver(other).await;
    world.until_done(other, Outcome::AlreadyLinked).await;
}

#[tokio::test]
async fn a_row_filled_by_a_person_between_two_attempts_is_parked_unless_the_deal_is_ours() {
    for ours in [true, false] {
        let world = World::start(Wishes::brisk()).await;
        let deal = world.student(EMAIL).to_string();
        let write_back = Point::postgrest("rows.update");
        let busy = Kind::server_error(When::Before);
        world.sandbox.faults().add(Fault::always(write_back, busy));
        let row = world.insert(&json!({}));
        world.deliver(row).await;
        world
            .until(row, "noted", |entry| {
                entry.progress.step.is_noted() && entry.attempts > 0
            })
            .await;
        fill(&world, row, if ours { &deal } else { "77001" });

        if ours {
            world.until_done(row, Outcome::Synced).await;
        } else {
            let reason = world.until_state(row, State::Parked).await.reason.unwrap();
            assert!(
                reason.contains("77001") && reason.contains(&deal),
                "{reason}"
            );
        }
    }
}

#[tokio::test]
async fn a_missing_update_policy_stops_crm_writes_until_it_is_mended() {
    let mut wishes = Wishes::brisk();
    wishes.postgrest.policies = Policies::NoUpdate;
    let world = World::start(wishes).await;
    let deal = world.student(EMAIL);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_sync_is("halted").await;
    let state = *world.app().status.borrow();
    assert!(
        matches!(
            state,
            SyncState::Halted {
                cause: HaltCause::SupabaseWriteBack,
                ..
            }
        ),
        "{state:?}"
    );
    let entry = world.until_state(row, State::Pending).await;
    assert_eq!((entry.attempts, entry.progress.step.is_noted()), (0, true));

    let second = world.insert(&json!({"email": "second@example.kz"}));
    let untouched = world.student("second@example.kz");
    world.deliver(second).await;
    // The probe tries the write back that was refused.
    let probes = world.asked("rows.update");
    world
        .until_asked("rows.update", probes + 2, |it| it.status.is_some())
        .await;
    assert_eq!(world.stage(untouched), world.setting.before[0]);
    assert_eq!(
        world.amo_writes().len(),
        2,
        "the move and the note of the first"
    );

    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.policies = Policies::Open);
    world.until_sync_is("working").await;
    assert_eq!(world.until_synced_once(row).await, deal);
    assert_eq!(world.until_synced_once(second).await, untouched);
}

#[tokio::test]
async fn many_rows_under_a_missing_update_policy_are_moved_no_further_than_one_batch() {
    let mut wishes = Wishes {
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    };
    wishes.postgrest.policies = Policies::NoUpdate;
    let mut world = World::prepare(wishes);
    let rows: Vec<RowId> = (0..120)
        .map(|n| {
            let email = format!("student{n}@example.kz");
            world.student(&email);
            world.insert(&json!({"email": email}))
        })
        .collect();
    world.launch().await;
    world.until_sync_is("halted").await;
    let moved = |request: &sandbox::Recorded| request.items().len();
    let moved: usize = world.requests_to("leads.update").iter().map(moved).sum();
    assert!(moved <= 50, "{moved} deals moved");

    world
        .sandbox
        .postgrest
        .quirks(|quirks| quirks.policies = Policies::Open);
    for row in rows {
        world.until_synced_once(row).await;
    }
}

#[tokio::test]
async fn the_contact_is_written_back_only_where_the_table_has_a_column_for_it() {
    for absent in [false, true] {
        let world = World::start(Wishes {
            postgrest: PostgrestQuirks {
                absent_columns: absent
                    .then(|| "amocrm_contact_id".to_owned())
                    .into_iter()
                    .collect(),
                ..PostgrestQuirks::default()
            },
            ..Wishes::brisk()
        })
        .await;
        let contact = world.contact(EMAIL);
        let row = world.insert(&json!({}));
        world.deliver(row).await;
        world.until_synced_once(row).await;

        let patches = world.requests_to("rows.update");
        assert_eq!(patches.len(), 1);
        let sent = patches[0].body.get("amocrm_contact_id").cloned();
        assert_eq!(sent, (!absent).then(|| contact.to_string().into()));
    }
}

#[tokio::test]
async fn the_main_contact_of_the_deal_is_written_back() {
    let world = World::start(Wishes::brisk()).await;
    let parent = world.contact("parent@example.kz");
    let student = world.contact(EMAIL);
    let (pipeline, stage) = (world.setting.pipeline, world.setting.before[0]);
    world
        .sandbox
        .amo
        .world(|world| world.add_deal(&[parent, student], pipeline, stage, "Заявка"));
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_synced_once(row).await;

    assert_eq!(
        world.column(row, "amocrm_contact_id"),
        Some(parent.to_string())
    );
}

#[tokio::test]
async fn a_blank_deal_id_is_none_and_is_written_over() {
    let world = World::start(Wishes::brisk()).await;
    for (n, blank) in ["", " ", "\t\r\n", "\u{a0}"].into_iter().enumerate() {
        let email = format!("s{n}@example.kz");
        let deal = world.student(&email);
        let row = world.insert(&json!({ "email": email, "amocrm_deal_id": blank }));
        world.deliver(row).await;
        assert_eq!(world.until_synced_once(row).await, deal, "{blank:?}");
    }
    // A text that is not blank is kept.
    let row = world.insert(&json!({ "amocrm_deal_id": "later" }));
    world.deliver(row).await;
    world.until_drained().await;
    assert_eq!(
        world.column(row, "amocrm_deal_id").as_deref(),
        Some("later")
    );
}
