//! Queries that run often must not read the whole table.

use sqlx::Row;

use super::*;
use crate::inbox::sqlite::{store, upkeep, verbs, views};

#[tokio::test]
async fn entries_meant_by_row_are_looked_up_one_by_one() {
    let t = Fixture::new().await;
    for statement in [
        store::REOPEN,
        store::LIFT,
        verbs::CHECKPOINT,
        verbs::SETTLE,
        verbs::REVIVE_ROWS,
        verbs::REVIVE_SUSPECTS,
        verbs::PARK,
        verbs::CLAIM_ONE_OF,
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
        store::ASK_FOR,
        store::TOLD_OF,
        verbs::CLAIM,
        verbs::REVIVE_PARKED,
        verbs::REVIVE_WAITING,
        views::PARKED_AFTER,
        views::PENDING_SINCE,
        views::NEXT_DUE,
        views::LIVE_DUE,
        views::UNMATCHED,
        views::OPEN_WORK,
        views::AWAITED,
        views::STATES_OF,
        views::TALLY,
        upkeep::RESCHEDULE,
        upkeep::PURGE_DONE,
        upkeep::PURGE_GONE,
        upkeep::REMOVE_OLDEST,
    ] {
        for step in plan_of(&t, statement).await {
            let whole_table = step.starts_with("SCAN entry") && !step.contains("USING");
            assert!(!whole_table, "{step}\nin {statement}");
        }
    }
}

async fn plan_of(t: &Fixture, statement: &str) -> Vec<String> {
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
    let plan = sqlx::query(explain).fetch_all(&mut t.connect().await).await;
    plan.unwrap()
        .iter()
        .map(|step| step.get("detail"))
        .collect()
}
