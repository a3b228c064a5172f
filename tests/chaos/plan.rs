//! What befalls the service in one round, and when: all drawn from the seed before the round begins.

use std::{ops::Range, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use sandbox::{RandomFaults, scenario::Missing};

/// Of the engine's durations, and of the sandboxes' late commits.
pub(crate) const TIME_SCALE: f64 = 0.05;

/// An import, a busy manager, a single sale.
const CHUNKS: [usize; 9] = [1, 1, 1, 2, 3, 5, 12, 25, 50];
/// About what six requests a second allow for.
const TIME_PER_ROW: Duration = Duration::from_millis(250);
const ROWS_PER_KILL: usize = 50;
const FEWEST_KILLS: usize = 4;

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) rows: usize,
    pub(crate) target_is_won: bool,
    pub(crate) missing: Missing,
    pub(crate) requests_per_second: u32,
    pub(crate) batch_size: usize,
    /// By time.
    pub(crate) arrivals: Vec<(Duration, Arrival)>,
    /// One after the other; a late one does not make the next one later.
    pub(crate) upsets: Vec<(Duration, Upset)>,
    pub(crate) amo_luck: RandomFaults,
    pub(crate) postgrest_luck: RandomFaults,
}

/// Rows are named by their place in the scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    Insert(Range<usize>),
    /// One call by `pg_net`. Deliveries of one row with the same number have the same `webhook-id`.
    Post {
        row: usize,
        delivery: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upset {
    /// SIGKILL, then a start after a while.
    Kill { aim: Aim, down_for: Duration },
    /// SIGSTOP while the answer to a read is outstanding, then SIGCONT.
    Stop { held: Held, lasting: Duration },
    /// amoCRM answers everything with 429.
    Refusals { lasting: Duration },
}

/// In which moment a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    Anywhere,
    /// A write to amoCRM has happened, its answer has not gone out.
    AfterWrite,
    /// A write to amoCRM is on its way, and will not happen.
    BeforeWrite,
    /// The deal's id is in the row, the answer has not gone out.
    AfterWriteBack,
    /// So long after its start; before that, it died anywhere.
    Starting(Duration),
}

/// What becomes of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    ForEver,
    /// It comes while the process stands still.
    For(Duration),
}

impl Plan {
    pub(crate) fn draw(seed: u64, rows: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let span = TIME_PER_ROW * u32::try_from(rows).unwrap_or(u32::MAX);
        let arrivals = arrivals(&mut rng, rows, span);
        let upsets = upsets(&mut rng, rows, span);
        Self {
            seed,
            rows,
            target_is_won: seed % 2 == 1,
            missing: if seed / 2 % 2 == 1 {
                Missing::Create
            } else {
                Missing::Wait
            },
            requests_per_second: rng.random_range(6..=7),
            // Small ones mean many writes, and so many chances for each to go wrong.
            batch_size: [5, 10, 50][rng.random_range(0..3)],
            arrivals,
            upsets,
            amo_luck: RandomFaults {
                drop_answer_after_write: 0.05,
                drop_before: 0.01,
                server_error: 0.015,
                server_error_after_write: 0.015,
                late_commit: 0.02,
                late_commit_delay: Duration::from_secs(10),
                short_answer: 0.02,
                malformed: 0.005,
                html_ok: 0.005,
                ..RandomFaults::none(seed)
            },
            postgrest_luck: RandomFaults {
                drop_answer_after_write: 0.01,
                drop_before: 0.02,
                server_error: 0.05,
                server_error_after_write: 0.01,
                malformed: 0.01,
                ..RandomFaults::none(!seed)
            },
        }
    }
}

fn arrivals(rng: &mut SmallRng, rows: usize, span: Duration) -> Vec<(Duration, Arrival)> {
    let chunks = chunks(rng, rows);
    let mut moments: Vec<Duration> = chunks.iter().map(|_| part_of(rng, span)).collect();
    moments.sort_unstable();
    let mut arrivals = Vec::new();
    for (at, rows) in moments.into_iter().zip(chunks) {
        arrivals.push((at, Arrival::Insert(rows.clone())));
        for row in rows {
            for (delay, delivery) in deliveries(rng) {
                arrivals.push((at + delay, Arrival::Post { row, delivery }));
            }
        }
    }
    arrivals.sort_by_key(|(at, _)| *at);
    arrivals
}

fn chunks(rng: &mut SmallRng, rows: usize) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let mut next = 0;
    while next < rows {
        let size = CHUNKS[rng.random_range(0..CHUNKS.len())].min(rows - next);
        chunks.push(next..next + size);
        next += size;
    }
    chunks
}

/// A fifth of the rows are never told about, a tenth twice or thrice.
fn deliveries(rng: &mut SmallRng) -> Vec<(Duration, u32)> {
    let copies = match rng.random_range(0..10) {
        0 | 1 => 0,
        2 => rng.random_range(2..=3),
        _ => 1,
    };
    let mut deliveries = Vec::new();
    for copy in 0..copies {
        let within = Duration::from_millis(if copy == 0 { 200 } else { 3_000 });
        deliveries.push((part_of(rng, within), rng.random_range(0..=copy)));
    }
    deliveries
}

fn upsets(rng: &mut SmallRng, rows: usize, span: Duration) -> Vec<(Duration, Upset)> {
    let kills = (rows / ROWS_PER_KILL).max(FEWEST_KILLS);
    let mut upsets: Vec<Upset> = (1..kills).map(|_| kill(rng)).collect();
    upsets.push(Upset::Stop {
        held: if rng.random_bool(0.5) {
            Held::ForEver
        } else {
            Held::For(scaled(rng.random_range(3..20)))
        },
        lasting: scaled(rng.random_range(61..80)),
    });
    upsets.shuffle(rng);
    // A kill comes after it: the slow minutes after a 429 are not scaled, and end with the process.
    let middle = rng.random_range(1..upsets.len());
    upsets.insert(
        middle,
        Upset::Refusals {
            lasting: scaled(60),
        },
    );
    upsets.push(kill(rng));

    let slot = span.mul_f64(1.1) / u32::try_from(upsets.len()).unwrap_or(u32::MAX);
    let timed = (0_u32..).zip(upsets);
    timed
        .map(|(number, upset)| (slot * number + part_of(rng, slot), upset))
        .collect()
}

fn kill(rng: &mut SmallRng) -> Upset {
    let aim = match rng.random_range(0..8) {
        0 | 1 => Aim::Anywhere,
        2 | 3 => Aim::AfterWrite,
        4 => Aim::BeforeWrite,
        5 | 6 => Aim::AfterWriteBack,
        _ => Aim::Starting(Duration::from_millis(rng.random_range(0..400))),
    };
    let down_for = Duration::from_millis(if rng.random_bool(0.5) {
        0
    } else {
        rng.random_range(0..1_500)
    });
    Upset::Kill { aim, down_for }
}

fn scaled(seconds: u64) -> Duration {
    Duration::from_secs(seconds).mul_f64(TIME_SCALE)
}

fn part_of(rng: &mut SmallRng, whole: Duration) -> Duration {
    whole.mul_f64(rng.random())
}
