//! One student at a time, while nothing else happens.

use std::{fmt, time::Duration};

use sandbox::{
    Server,
    scenario::{Case, Scenario},
};
use tokio::time::{Instant, interval_at};

use crate::stand::Stand;

const STUDENTS: usize = 20;
/// One student in this time, so that each finds the window of the throttle empty.
const EACH: Duration = Duration::from_secs(2);

pub(crate) struct Latency {
    neighbours: Duration,
    /// After a start: it finds nothing known yet, of the columns for example.
    first: Duration,
    /// All others, sorted.
    took: Vec<Duration>,
    amo_requests: usize,
    postgrest_requests: usize,
}

/// Students with an open deal before the target: found, moved, noted, written back.
pub(crate) async fn run(latency: Duration) -> Latency {
    let mut stand = Stand::set(latency, "0s", []).await;
    let (amo, postgrest) = (stand.sandbox.amo.clone(), stand.sandbox.postgrest.clone());
    stand.tell_of_inserts();
    // A process that starts takes the throttle's window for full.
    let mut turns = interval_at(Instant::now() + EACH, EACH);
    let mut took = Vec::new();
    let before = stand.sandbox.requests().len();
    for seed in 0..STUDENTS as u64 {
        turns.tick().await;
        let began = Instant::now();
        let scenario = Scenario::of_cases(
            seed,
            [Case::OpenBeforeTarget],
            &amo,
            &postgrest,
            &stand.setting,
        );
        stand.until_written_back(took.len() + 1, EACH).await;
        took.push(began.elapsed());
        assert_eq!(scenario.remaining(), 0, "another row was written to");
    }
    let asked = stand.sandbox.requests().split_off(before);
    let of = |server: Server| asked.iter().filter(|it| it.server == server).count();
    let (amo_requests, postgrest_requests) = (of(Server::Amo), of(Server::Postgrest));
    stand.end().await;
    let first = took.remove(0);
    took.sort();
    Latency {
        neighbours: latency,
        first,
        took,
        amo_requests,
        postgrest_requests,
    }
}

impl fmt::Display for Latency {
    #[expect(clippy::cast_precision_loss, reason = "a few requests")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = self.took[self.took.len() / 2].as_millis();
        let most = self.took[self.took.len() - 1].as_millis();
        let each = |requests: usize| requests as f64 / STUDENTS as f64;
        write!(
            f,
            "neighbours that take {} ms: median {median} ms, at most {most} ms, of {}, and {} ms of the first after a \
             start; {:.1} requests to amoCRM and {:.1} to Supabase each",
            self.neighbours.as_millis(),
            self.took.len(),
            self.first.as_millis(),
            each(self.amo_requests),
            each(self.postgrest_requests),
        )
    }
}
