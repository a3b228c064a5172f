//! The real binary, killed, stopped and lied to. `scripts/chaos` does it with more rows, and for longer.

#[path = "../chaos/driver.rs"]
pub(crate) mod driver;

use std::path::Path;

use driver::Plan;

const BINARY: &str = env!("CARGO_BIN_EXE_tripwire-sync");
/// Four kills, one stop and a stretch of 429 in three quarters of a minute.
const ROWS: usize = 60;
const SEED: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_comes_right_once_however_often_the_service_is_killed() {
    let report = driver::play(Path::new(BINARY), &Plan::draw(SEED, ROWS)).await;
    assert!(report.violations.is_empty(), "{report}");
    let figures = &report.figures;
    assert_eq!((figures.kills, figures.stops), (4, 1), "{report}");
    assert!(figures.acknowledged > 0 && figures.swept > 0, "{report}");
}

#[test]
fn a_plan_is_drawn_from_its_seed_alone() {
    let drawn = |seed| format!("{:?}", Plan::draw(seed, 500));
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}
