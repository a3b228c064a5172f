//! Years of rows at once: how much memory the backfill of them takes.

use std::{
    fmt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sandbox::scenario::Scenario;
use tokio::{sync::Barrier, time::interval};

use crate::{import::span, stand};

const GLANCE: Duration = Duration::from_millis(500);
const SEED: u64 = 20_261_122;

pub(crate) struct Backfilled {
    rows: usize,
    took: Duration,
    peak_kib: u64,
    pub(crate) wrong: Vec<String>,
}

/// `tripwire-sync backfill` by itself, on an empty inbox, in an account with two contacts for each row.
pub(crate) async fn run(rows: usize, ready: &Barrier) -> Backfilled {
    let (sandbox, setting) = stand::neighbours(Duration::ZERO);
    let (amo, postgrest) = (&sandbox.amo, &sandbox.postgrest);
    let scenario = Scenario::import_day_among(SEED, rows, rows, amo, postgrest, &setting);
    let folder = tempfile::tempdir().expect("a temporary folder");
    ready.wait().await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_tripwire-sync"))
        .args(["backfill", "--yes"])
        .env_clear()
        .envs(stand::environment(&sandbox, &setting, folder.path(), "5s"))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    let began = Instant::now();
    let mut peak_kib = 0;
    let mut glances = interval(GLANCE);
    let status = loop {
        peak_kib = stand::peak_kib(child.id()).max(peak_kib);
        if let Some(status) = child.try_wait().expect("a child of ours") {
            break status;
        }
        glances.tick().await;
    };
    let took = began.elapsed();
    let mut wrong = scenario.verify();
    if !status.success() {
        wrong.push(format!("the backfill ended with {status}"));
    }
    sandbox.stop().await;
    Backfilled {
        rows,
        took,
        peak_kib,
        wrong,
    }
}

impl fmt::Display for Backfilled {
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, took) = (self.rows, span(self.took));
        let mib = self.peak_kib as f64 / 1024.0;
        write!(
            f,
            "backfill of {rows} rows: {took}, at most {mib:.0} MiB resident"
        )
    }
}
