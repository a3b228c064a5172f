//! Attacks on the real binary, one after the other; see `scripts/siege`.

#![expect(
    clippy::expect_used,
    reason = "a driver that cannot go on says so by panicking"
)]

#[path = "../tests/siege/driver.rs"]
mod driver;
#[expect(dead_code, reason = "chaos stops and continues it as well")]
#[path = "../tests/chaos/service.rs"]
mod service;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use driver::{Attack, MOST_MEMORY, Report, Siege};

/// What a machine of the smallest size has.
const MEMORY: u64 = 256 << 20;

/// As `pg_net`.
const PATIENCE: Duration = Duration::from_secs(5);

/// What signed deliveries may take meanwhile, 99 of 100 of them.
const SLOWEST: Duration = Duration::from_secs(1);

/// Attacks the service from 127.0.0.1, and says whether its senders noticed
#[derive(Debug, Parser)]
struct Options {
    /// Of each attack
    #[arg(long, default_value_t = 60)]
    seconds: usize,
    #[arg(long, default_value_t = 3000)]
    attackers: usize,
    /// Each sends a signed delivery a second over a connection that it keeps
    #[arg(long, default_value_t = 200)]
    senders: usize,
    /// One attack; without it, all of them
    #[arg(long)]
    attack: Option<String>,
    /// Without a control group of 256 MB, which needs root
    #[arg(long)]
    unlimited: bool,
    /// The service; by default the one that was built beside this program
    #[arg(long)]
    binary: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match attacks(&Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            drop(writeln!(io::stderr(), "siege: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn attacks(options: &Options) -> Result<bool, String> {
    let binary = match &options.binary {
        Some(path) => path.canonicalize(),
        None => std::env::current_exe()
            .and_then(|path| path.with_file_name("../tripwire-sync").canonicalize()),
    };
    let binary = binary.map_err(|error| error.to_string())?;
    let is_asked = |attack: &Attack| {
        let name = format!("{attack:?}");
        options.attack.as_ref().is_none_or(|asked| *asked == name)
    };
    let asked: Vec<Attack> = Attack::ALL.into_iter().filter(is_asked).collect();
    if asked.is_empty() {
        return Err(format!("the attacks are {:?}", Attack::ALL));
    }
    let mut all_held = true;
    for attack in asked {
        let siege = Siege {
            attack,
            attackers: options.attackers,
            senders: options.senders,
            deliveries: options.seconds,
            pace: Some(Duration::from_secs(1)),
            patience: PATIENCE,
            descriptors: None,
            memory: (!options.unlimited).then_some(MEMORY),
        };
        let report = driver::lay(&binary, &siege).await?;
        let held = held(&report);
        let verdict = if held { "held" } else { "FELL" };
        writeln!(io::stdout(), "{verdict} {report}").map_err(|error| error.to_string())?;
        all_held &= held;
    }
    Ok(all_held)
}

fn held(report: &Report) -> bool {
    report.died.is_none()
        && report.lost.is_empty()
        && report.forgotten == 0
        && report.percentile(99) <= SLOWEST
        && report.memory <= MOST_MEMORY
        && report.group_memory.is_none_or(|bytes| bytes <= MOST_MEMORY)
}
