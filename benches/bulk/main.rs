//! How fast an import goes, how little it asks of amoCRM, and how soon one student is done; see `scripts/bench`.
//!
//! The real program stands between both sandboxes, at seven requests a second. A measurement counts only if every row
//! came right, once, and amoCRM never answered 429. Beside it, in the same run, goes a plan that takes the rows one by
//! one, as a first integration usually does.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot go on says so by panicking"
)]

mod import;
mod memory;
mod one_by_one;
mod receiver;
mod single;
mod stand;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use futures::{future::join_all, join};
use sandbox::scenario::IMPORT_DAY;
use tokio::sync::Barrier;

use self::{
    import::{Figures, Import, Rows, span},
    memory::Backfilled,
};

/// What amoCRM allows.
const REQUESTS_PER_SECOND: u32 = 7;
/// An account far too large to be read for so few: rows, and contacts for each.
const IN_VAIN: (usize, usize) = (300, 400);
/// Of a neighbour that is not on this machine.
const FAR: Duration = Duration::from_millis(100);

/// Imports of students, one student, and the same one by one
#[derive(Debug, Parser)]
struct Options {
    /// Measure the receiver, and nothing else
    #[arg(value_enum)]
    only: Option<Only>,
    /// Rows of an import
    #[arg(long, value_delimiter = ',', default_value = "100,1000,5000,20000")]
    rows: Vec<usize>,
    /// Contacts in the account for each row
    #[arg(long, value_delimiter = ',', default_value = "2,10,40")]
    accounts: Vec<usize>,
    /// Only with neighbours that answer at once
    #[arg(long)]
    near: bool,
    /// Rows of the backfill whose memory is measured; 0: none
    #[arg(long, default_value_t = 50_000)]
    memory: usize,
    /// How the rows come
    #[arg(long, value_enum, default_value = "coming")]
    rows_are: Rows,
    /// The index of the account's contacts before the first row comes
    #[arg(long, value_enum, default_value = "empty")]
    index: Index,
    /// Items in one write
    #[arg(long, default_value_t = 50)]
    batch_size: usize,
    /// Without the import into an account that is not worth being listed
    #[arg(long)]
    skip_in_vain: bool,
    /// Imports measured side by side; the backfill is measured beside them. Where the machine has no room for so many, they
    /// delay each other's requests, and amoCRM counts late ones as too many
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// `cargo bench` says it
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Index {
    Empty,
    Filled,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Only {
    Receiver,
}

#[tokio::main]
async fn main() -> ExitCode {
    outbound::install_crypto_provider();
    let options = Options::parse();
    match measure(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            drop(writeln!(io::stderr(), "bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Answers whether everything came right.
async fn measure(options: &Options) -> io::Result<bool> {
    let mut out = io::stdout();
    if let Some(Only::Receiver) = options.only {
        writeln!(out, "{}", receiver::run().await)?;
        return Ok(true);
    }
    writeln!(out, "{REQUESTS_PER_SECOND} requests a second; {}\n", mix())?;

    let yardstick = one_by_one::run().await;
    writeln!(out, "one by one: {yardstick}\n")?;

    let latencies = if options.near {
        vec![Duration::ZERO]
    } else {
        vec![Duration::ZERO, FAR]
    };
    let plan = plan(options, &latencies);
    let jobs = options.jobs.max(1);
    let at_first = jobs.min(plan.len()) + usize::from(options.memory > 0);
    let ready = Arc::new(Barrier::new(at_first));
    let imports = imports(&plan, jobs, Arc::clone(&ready));
    let (mut measured, backfilled) = join!(imports, backfill(options, &ready));
    let in_vain: Vec<(Import, Figures)> = measured
        .extract_if(.., |(import, _)| {
            (import.rows, import.contacts_per_row) == IN_VAIN
        })
        .collect();
    let mut wrong = Vec::new();
    for latency in &latencies {
        let of_these: Vec<_> = measured
            .iter()
            .filter(|(import, _)| import.latency == *latency)
            .collect();
        writeln!(out, "neighbours that take {} ms\n", latency.as_millis())?;
        writeln!(out, "{HEAD}")?;
        for (import, figures) in &of_these {
            writeln!(out, "{}", figures.row(*import, &yardstick))?;
            wrong.extend(figures.wrong.iter().map(|it| format!("{import}: {it}")));
        }
        writeln!(out)?;
    }
    let of = |scan: bool| in_vain.iter().find(|(import, _)| import.scan == scan);
    if let (Some((_, with)), Some((_, without))) = (of(true), of(false)) {
        writeln!(out, "{}\n", compare(with, without))?;
        wrong.extend(with.wrong.iter().chain(&without.wrong).cloned());
    }
    if let Some(backfilled) = &backfilled {
        writeln!(out, "{backfilled}\n")?;
        wrong.extend(backfilled.wrong.iter().cloned());
    }

    writeln!(
        out,
        "one student, from the event to the row (no settle delay)\n"
    )?;
    for latency in latencies {
        writeln!(out, "{}", single::run(latency).await)?;
    }
    for line in &wrong {
        writeln!(out, "WRONG: {line}")?;
    }
    Ok(wrong.is_empty())
}

const HEAD: &str = "\
| rows | contacts | time | rows a minute | requests a row | peak memory | one by one | times as fast |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |";

/// What the rows are, and where their contacts lie.
fn mix() -> String {
    let shares = IMPORT_DAY.map(|(case, share)| format!("{share} {case}"));
    format!(
        "of a hundred rows: {}. Their contacts lie evenly spread in the account",
        shares.join(", ")
    )
}

/// Those that take long first, so that they go together.
fn plan(options: &Options, latencies: &[Duration]) -> Vec<Import> {
    let mut plan: Vec<Import> = Vec::new();
    for latency in latencies {
        for rows in &options.rows {
            for contacts_per_row in &options.accounts {
                plan.push(Import {
                    rows: *rows,
                    contacts_per_row: *contacts_per_row,
                    latency: *latency,
                    scan: true,
                    rows_are: options.rows_are,
                    is_filled: options.index == Index::Filled,
                    batch_size: options.batch_size,
                });
            }
        }
    }
    if !options.skip_in_vain {
        plan.extend([in_vain(true), in_vain(false)]);
    }
    plan.sort_by_key(|import| std::cmp::Reverse(import.contacts()));
    plan
}

/// `ready`: of the first that are measured side by side.
async fn imports(plan: &[Import], jobs: usize, mut ready: Arc<Barrier>) -> Vec<(Import, Figures)> {
    let mut measured: Vec<(Import, Figures)> = Vec::new();
    for group in plan.chunks(jobs) {
        let end = Arc::new(Barrier::new(group.len()));
        let figures = group
            .iter()
            .map(|import| import.measure_apart(Arc::clone(&ready), Arc::clone(&end)));
        let figures = join_all(figures).await;
        for (import, figures) in group.iter().zip(figures) {
            eprint_progress(*import, &figures);
            measured.push((*import, figures));
        }
        ready = Arc::new(Barrier::new(jobs.min(plan.len() - measured.len())));
    }
    measured.sort_by_key(|(import, _)| (import.rows, import.contacts_per_row));
    measured
}

/// An import into an account far too large for it, and what it costs without an index.
fn in_vain(scan: bool) -> Import {
    let (rows, contacts_per_row) = IN_VAIN;
    Import {
        rows,
        contacts_per_row,
        latency: Duration::ZERO,
        scan,
        rows_are: Rows::Coming,
        is_filled: false,
        batch_size: 50,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of requests")]
fn compare(with: &Figures, without: &Figures) -> String {
    let (rows, contacts_per_row) = IN_VAIN;
    format!(
        "{rows} rows among {} contacts: {} requests, {} without an index: {:.2} times as many",
        rows * contacts_per_row,
        with.requests,
        without.requests,
        with.requests as f64 / without.requests as f64,
    )
}

async fn backfill(options: &Options, ready: &Barrier) -> Option<Backfilled> {
    if options.memory == 0 {
        return None;
    }
    Some(memory::run(options.memory, ready).await)
}

fn eprint_progress(import: Import, figures: &Figures) {
    let (took, routes) = (span(figures.took), figures.routes());
    drop(writeln!(io::stderr(), "bench: {import}: {took}; {routes}"));
    for wrong in &figures.wrong {
        drop(writeln!(io::stderr(), "bench: {import}: WRONG: {wrong}"));
    }
}
