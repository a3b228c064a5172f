use std::sync::Arc;

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use super::*;
use crate::{domain::SystemClock, inbox::Role};

async fn gate() -> (Gate, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let inbox = Inbox::open(&folder.path().join("inbox.db"), Role::Owner, clock.clone())
        .await
        .unwrap();
    let (state, _) = watch::channel(SyncState::Starting);
    let stop = CancellationToken::new();
    let tempo = Tempo::default();
    let lease = Lease::alone(&tempo, clock.clone());
    let gate = Gate::new(inbox, clock, tempo, lease, stop, state);
    (gate, folder)
}

async fn halt_by(gate: &Gate, cause: HaltCause) {
    gate.halt(cause, String::new(), None, Vec::new())
        .await
        .unwrap();
}

async fn halt(gate: &Gate) {
    halt_by(gate, HaltCause::AmocrmForbidden).await;
}

fn is_halted(gate: &Gate) -> bool {
    matches!(gate.closed(), Some(Closed::Halted { .. }))
}

#[tokio::test]
async fn a_halt_is_not_taken_for_ended_while_it_is_being_stored() {
    let (gate, folder) = gate().await;
    let file = SqliteConnectOptions::new().filename(folder.path().join("inbox.db"));
    let mut other = file.connect().await.unwrap();
    let lock = sqlx::query("BEGIN IMMEDIATE").execute(&mut other);
    lock.await.unwrap();

    let reading = async {
        // Several times as many reads as a refresh needs; only then can the halt reach the disk.
        for _ in 0..20 {
            assert_eq!(gate.inbox.state::<Halt>(HALT).await.unwrap(), None);
        }
        other.close().await.unwrap();
    };
    let ((), resumed, ()) = tokio::join!(halt(&gate), gate.refresh(), reading);

    assert!(!resumed.unwrap(), "nobody has resumed");
    assert!(is_halted(&gate));
    assert!(!gate.refresh().await.unwrap());
    assert!(is_halted(&gate));
}

#[tokio::test]
async fn a_halt_that_somebody_clears_is_ended() {
    let (gate, _folder) = gate().await;
    halt(&gate).await;
    gate.inbox.clear_state(HALT).await.unwrap();

    assert!(gate.refresh().await.unwrap());
    assert_eq!(gate.closed(), None);
}

async fn stored(gate: &Gate) -> Halt {
    gate.inbox.state(HALT).await.unwrap().unwrap()
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
        let (gate, _folder) = gate().await;
        let before = KeyedHash::new([1; 16]);
        gate.settings_are(side, before).await.unwrap();
        halt_by(&gate, cause).await;
        let halt = stored(&gate).await;

        gate.settings_are(side, before).await.unwrap();
        assert_eq!(stored(&gate).await, halt, "nothing has changed");

        gate.settings_are(side, KeyedHash::new([2; 16]))
            .await
            .unwrap();
        let due = stored(&gate).await.next_probe;
        let is_due = due.is_some_and(|at| at <= gate.clock.now());
        assert_eq!(is_due, is_probed, "{cause:?}, {side:?}");
        assert!(is_probed || due == halt.next_probe, "{cause:?}, {side:?}");
    }
}

#[tokio::test]
async fn a_403_takes_the_place_of_any_other_halt_and_none_takes_its() {
    let (gate, _folder) = gate().await;
    for cause in [
        HaltCause::AmocrmToken,
        HaltCause::AmocrmForbidden,
        HaltCause::SupabaseKey,
    ] {
        halt_by(&gate, cause).await;
    }

    let halt = stored(&gate).await;
    assert_eq!(halt.cause, HaltCause::AmocrmForbidden);
    assert_eq!(halt.next_probe, None);
}

/// A halt that ended by itself was once taken for a person's `resume` at every look, until a restart.
#[tokio::test]
async fn only_what_a_person_ends_counts_as_resumed_and_only_once() {
    let (gate, _folder) = gate().await;
    halt_by(&gate, HaltCause::SupabaseKey).await;
    let halt = stored(&gate).await;
    gate.lift(&halt).await.unwrap();
    for _ in 0..3 {
        assert!(!gate.refresh().await.unwrap());
    }

    halt_by(&gate, HaltCause::SupabaseKey).await;
    gate.inbox.clear_state(HALT).await.unwrap();
    assert!(gate.refresh().await.unwrap());
    for _ in 0..3 {
        assert!(!gate.refresh().await.unwrap());
    }
}

#[tokio::test]
async fn failures_without_a_row_stop_sending_only_when_several_come_together() {
    let (gate, _folder) = gate().await;
    let cause = HaltCause::SupabaseKey;
    for (n, stops) in [(1, false), (2, false), (3, true), (4, true)] {
        let stopped = gate.strike(cause, 3, String::new()).await.unwrap();
        assert_eq!(stopped, stops, "{n}");
    }
    assert!(is_halted(&gate));
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
