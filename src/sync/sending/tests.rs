use std::sync::Arc;

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use super::*;
use crate::{domain::SystemClock, inbox::Role};

async fn sending() -> (Sending, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let inbox = Inbox::open(&folder.path().join("inbox.db"), Role::Owner, clock.clone())
        .await
        .unwrap();
    let (state, _) = watch::channel(SyncState::Starting);
    let stop = CancellationToken::new();
    let timings = Timings::default();
    let lease = Lease::alone(&timings, clock.clone());
    let sending = Sending::new(inbox, clock, timings, lease, stop, state);
    (sending, folder)
}

async fn halt_by(sending: &Sending, cause: HaltCause) {
    sending
        .halt(cause, String::new(), None, Vec::new())
        .await
        .unwrap();
}

async fn halt(sending: &Sending) {
    halt_by(sending, HaltCause::AmocrmForbidden).await;
}

fn is_halted(sending: &Sending) -> bool {
    matches!(sending.blocked(), Some(Blocked::Halted { .. }))
}

#[tokio::test]
async fn a_halt_is_not_taken_for_ended_while_it_is_being_stored() {
    let (sending, folder) = sending().await;
    let file = SqliteConnectOptions::new().filename(folder.path().join("inbox.db"));
    let mut other = file.connect().await.unwrap();
    let lock = sqlx::query("BEGIN IMMEDIATE").execute(&mut other);
    lock.await.unwrap();

    let reading = async {
        // Several times as many reads as a refresh needs; only then can the halt reach the disk.
        for _ in 0..20 {
            assert_eq!(sending.inbox.state::<Halt>(HALT).await.unwrap(), None);
        }
        other.close().await.unwrap();
    };
    let ((), resumed, ()) = tokio::join!(halt(&sending), sending.refresh(), reading);

    assert!(!resumed.unwrap(), "nobody has resumed");
    assert!(is_halted(&sending));
    assert!(!sending.refresh().await.unwrap());
    assert!(is_halted(&sending));
}

#[tokio::test]
async fn a_halt_that_another_process_clears_is_ended() {
    let (sending, _folder) = sending().await;
    halt(&sending).await;
    sending.inbox.clear_state(HALT).await.unwrap();

    assert!(sending.refresh().await.unwrap());
    assert_eq!(sending.blocked(), None);
}

/// What is added to a halt was once written over the end of it.
#[tokio::test]
async fn nothing_that_is_added_to_a_halt_brings_it_back_after_a_person_ended_it() {
    let rows = vec![RowId::new(uuid::Uuid::from_u128(1))];
    for cause in [HaltCause::AmocrmForbidden, HaltCause::SupabaseKey] {
        let (sending, folder) = sending().await;
        halt_by(&sending, cause).await;
        let halt = stored(&sending).await;
        let path = folder.path().join("inbox.db");
        let guest = Inbox::open(&path, Role::Guest, Arc::new(SystemClock)).await;
        guest.unwrap().clear_state(HALT).await.unwrap();

        if cause == HaltCause::AmocrmForbidden {
            sending.name_banned(rows.clone()).await.unwrap();
        } else {
            sending.probe_failed(&halt).await.unwrap();
        }
        sending.lift(&halt).await.unwrap();
        assert_eq!(sending.inbox.state::<Halt>(HALT).await.unwrap(), None);
        assert!(sending.refresh().await.unwrap(), "{cause:?}: a person did");
        assert_eq!(sending.blocked(), None, "{cause:?}");
    }
}

#[tokio::test]
async fn a_halt_that_begins_before_the_end_of_another_was_seen_stays() {
    let (sending, _folder) = sending().await;
    halt_by(&sending, HaltCause::SupabaseKey).await;
    sending.inbox.clear_state(HALT).await.unwrap();
    halt(&sending).await;
    assert!(!sending.refresh().await.unwrap());
    assert!(is_halted(&sending));
    assert_eq!(stored(&sending).await.cause, HaltCause::AmocrmForbidden);
}

async fn stored(sending: &Sending) -> Halt {
    sending.inbox.state(HALT).await.unwrap().unwrap()
}

#[tokio::test]
async fn changed_settings_let_every_halt_be_probed_at_once_but_a_403() {
    for (cause, side, is_probed) in [
        (HaltCause::AmocrmToken, Side::Amocrm, true),
        (HaltCause::AmocrmStage, Side::Amocrm, true),
        (HaltCause::AmocrmToken, Side::Supabase, false),
        (HaltCause::SupabaseKey, Side::Supabase, true),
        (HaltCause::AmocrmForbidden, Side::Amocrm, false),
    ] {
        let (sending, _folder) = sending().await;
        let before = KeyedHash::new([1; 16]);
        sending.settings_are(side, before).await.unwrap();
        halt_by(&sending, cause).await;
        let halt = stored(&sending).await;

        sending.settings_are(side, before).await.unwrap();
        assert_eq!(stored(&sending).await, halt, "nothing has changed");

        sending
            .settings_are(side, KeyedHash::new([2; 16]))
            .await
            .unwrap();
        let due = stored(&sending).await.next_probe;
        let is_due = due.is_some_and(|at| at <= sending.clock.now());
        assert_eq!(is_due, is_probed, "{cause:?}, {side:?}");
        assert!(is_probed || due == halt.next_probe, "{cause:?}, {side:?}");
    }
}

#[tokio::test]
async fn a_403_takes_the_place_of_any_other_halt_and_none_takes_its() {
    let (sending, _folder) = sending().await;
    for cause in [
        HaltCause::AmocrmToken,
        HaltCause::AmocrmForbidden,
        HaltCause::SupabaseKey,
    ] {
        halt_by(&sending, cause).await;
    }

    let halt = stored(&sending).await;
    assert_eq!(halt.cause, HaltCause::AmocrmForbidden);
    assert_eq!(halt.next_probe, None);
}

/// A halt that ended by itself was once taken for a person's `resume` at every look, until a restart.
#[tokio::test]
async fn only_what_a_person_ends_counts_as_resumed_and_only_once() {
    let (sending, _folder) = sending().await;
    halt_by(&sending, HaltCause::SupabaseKey).await;
    let halt = stored(&sending).await;
    sending.lift(&halt).await.unwrap();
    for _ in 0..3 {
        assert!(!sending.refresh().await.unwrap());
    }

    halt_by(&sending, HaltCause::SupabaseKey).await;
    sending.inbox.clear_state(HALT).await.unwrap();
    assert!(sending.refresh().await.unwrap());
    for _ in 0..3 {
        assert!(!sending.refresh().await.unwrap());
    }
}

#[tokio::test]
async fn failures_without_a_row_stop_sending_only_when_several_come_together() {
    let (sending, _folder) = sending().await;
    let cause = HaltCause::SupabaseKey;
    for (n, stops) in [(1, false), (2, false), (3, true), (4, true)] {
        let stopped = sending
            .record_failure(cause, 3, String::new())
            .await
            .unwrap();
        assert_eq!(stopped, stops, "{n}");
    }
    assert!(is_halted(&sending));
}

/// Written by a version that named one row.
#[test]
fn a_halt_of_an_earlier_version_is_read() {
    let stored = serde_json::json!({
        "cause": "supabase_write_back",
        "since": "2026-11-01T00:00:00Z",
        "probes": 2,
        "next_probe": "2026-11-01T00:04:00Z",
        "detail": "запись amocrm_deal_id не проходит",
        "row": "00000000-0000-0000-0000-000000000001",
    });
    let halt: Halt = serde_json::from_value(stored).unwrap();
    assert_eq!((halt.probes, halt.operation), (2, None));
    assert_eq!(halt.rows, []);
}
