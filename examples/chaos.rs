//! Rounds of chaos against the real binary, for as long as told; see `scripts/chaos`.

#![expect(
    clippy::expect_used,
    reason = "a driver that cannot go on says so by panicking"
)]

#[path = "../tests/chaos/driver.rs"]
mod driver;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use driver::{Figures, Plan};
use tokio::signal::unix::{SignalKind, signal};

/// Kills, stops and lies to the service while rows come in, and says whether every row came right, once
#[derive(Debug, Parser)]
struct Options {
    /// Rounds with fresh seeds for so long; without it, two rounds: a stage as the target, then won
    #[arg(long)]
    minutes: Option<u64>,
    /// Of the first round
    #[arg(long)]
    seed: Option<u32>,
    /// Rows of a round
    #[arg(long, default_value_t = 500)]
    rows: usize,
    /// The service; by default the one that was built beside this program
    #[arg(long)]
    binary: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let mut terminate = signal(SignalKind::terminate()).expect("a handler for SIGTERM");
    // Dropping the round kills the service.
    tokio::select! {
        all_right = rounds(&options) => match all_right {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                drop(writeln!(io::stderr(), "chaos: {error}"));
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => ExitCode::from(130),
        _ = terminate.recv() => ExitCode::from(143),
    }
}

/// Answers whether everything came right.
async fn rounds(options: &Options) -> io::Result<bool> {
    let binary = match &options.binary {
        Some(path) => path.canonicalize()?,
        None => std::env::current_exe()?
            .with_file_name("../tripwire-sync")
            .canonicalize()?,
    };
    let began = Instant::now();
    let mut all = Figures::default();
    let mut violations = 0;
    // 32 bits are enough to be different, and short enough to be typed.
    let mut seed = u64::from(options.seed.unwrap_or_else(rand::random));
    loop {
        let report = driver::play(&binary, &Plan::draw(seed, options.rows)).await;
        writeln!(io::stdout(), "{report}\n")?;
        violations += report.violations.len();
        all += &report.figures;
        let is_over = match options.minutes {
            Some(minutes) => began.elapsed() >= Duration::from_secs(minutes * 60),
            None => all.rounds == 2,
        };
        if is_over {
            break;
        }
        seed = match options.minutes {
            Some(_) => u64::from(rand::random::<u32>()),
            // The same neighbours' luck, the other kind of target.
            None => seed ^ 1,
        };
    }
    writeln!(io::stdout(), "in all\n{all}")?;
    writeln!(io::stdout(), "{violations} violations")?;
    Ok(violations == 0)
}
