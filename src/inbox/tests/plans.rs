//! Queries that run often must not read the whole table.

use sqlx::Row;

use super::*;
use crate::inbox::{
    commands::{self, store},
    contact_index, given_up, hourly, maintenance, queries,
};

#[tokio::test]
async fn entries_meant_by_row_are_looked_up_one_by_one() {
    let t = Fixture::new().await;
    for statement in [
        store::HEAR,
        store::LIFT,
        commands::CHECKPOINT,
        commands::SETTLE,
        commands::REVIVE_ROWS,
        commands::REVIVE_SUSPECTS,
        commands::PARK,
        commands::UNDO,
        commands::WITHDRAW,
        commands::CLAIM_ONE_OF,
    ] {
        let plan = plan_of(&t, statement).await;
        let by_row = "SEARCH entry USING INDEX sqlite_autoindex_entry_1 (row_id=?)";
        assert!(
            plan.iter().any(|step| step == by_row),
            "{plan:#?}\nin {statement}"
        );
    }
}

#[tokio::test]
async fn frequent_questions_do_not_read_the_whole_table() {
    let t = Fixture::new().await;
    for statement in [
        store::OPEN,
        commands::CLAIM,
        commands::REVIVE_PARKED,
        commands::REVIVE_WAITING,
        queries::ENTRIES,
        queries::ENTRIES_IN_STATE,
        queries::ENTRIES_WITH,
        queries::PLACED,
        queries::PARKED_AFTER,
        queries::PENDING_SINCE,
        queries::UNRESOLVED_SINCE,
        queries::WITHOUT_EVENT,
        queries::SYNCED,
        queries::NEXT_DUE,
        queries::LIVE_DUE,
        queries::UNMATCHED,
        queries::OPEN_WORK,
        queries::AWAITED,
        queries::STATES_OF,
        queries::TALLY,
        hourly::LOOK,
        hourly::HOURS,
        given_up::GIVEN_UP_DUE,
        given_up::NEXT_LOOK,
        given_up::DOUBLED_AFTER,
        maintenance::RESCHEDULE,
        maintenance::PURGE_DONE,
        maintenance::PURGE_GONE,
        maintenance::REMOVE_OLDEST,
    ] {
        for step in plan_of(&t, statement).await {
            let is_scan = step.starts_with("SCAN entry") || step.starts_with("SCAN given_up");
            let whole_table = is_scan && !step.contains("USING");
            assert!(!whole_table, "{step}\nin {statement}");
        }
    }
}

#[tokio::test]
async fn contacts_are_looked_up_in_the_index_one_by_one() {
    let t = Fixture::new().await;
    let plan = plan_of(&t, contact_index::LOOK_UP).await;
    let by_hash = "SEARCH contact_index USING PRIMARY KEY (hash=?)";
    assert!(plan.iter().any(|step| step == by_hash), "{plan:#?}");
}

async fn plan_of(t: &Fixture, statement: &str) -> Vec<String> {
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
    let plan = sqlx::query(explain).fetch_all(&mut t.connect().await).await;
    plan.unwrap()
        .iter()
        .map(|step| step.get("detail"))
        .collect()
}
