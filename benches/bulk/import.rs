//! Many rows at once, all told about by the trigger.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use sandbox::{Server, scenario::Scenario};
use tokio::{runtime, sync::Barrier};

use crate::{one_by_one::Yardstick, stand::Stand};

/// As `pg_net` sends a batch.
const DELIVERIES_AT_ONCE: usize = 128;
/// How often to see whether the service lives.
const GLANCE: Duration = Duration::from_secs(2);
const SEED: u64 = 20_261_122;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Import {
    pub(crate) rows: usize,
    pub(crate) contacts_per_row: usize,
    pub(crate) latency: Duration,
    /// Whether the service may keep an index of the account's contacts.
    pub(crate) scan: bool,
    pub(crate) rows_are: Rows,
    /// The index is filled before the first row comes.
    pub(crate) is_filled: bool,
    /// Items in one write.
    pub(crate) batch_size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Rows {
    /// Told of within seconds of their insert.
    Coming,
    /// Older than the settle delay when the service hears of them.
    Settled,
}

#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) rows: usize,
    /// From the first event to the last row's write back, settle delay included.
    pub(crate) took: Duration,
    pub(crate) requests: usize,
    by_route: BTreeMap<&'static str, usize>,
    peak_kib: u64,
    pub(crate) wrong: Vec<String>,
}

impl Import {
    pub(crate) fn contacts(&self) -> usize {
        self.rows * self.contacts_per_row
    }

    /// On threads of its own. Those that are measured together begin together, once all of them are prepared: making an
    /// account would delay the others' requests.
    pub(crate) async fn measure_apart(self, ready: Arc<Barrier>, end: Arc<Barrier>) -> Figures {
        let apart = tokio::task::spawn_blocking(move || {
            let runtime = runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("threads");
            runtime.block_on(self.measure(&ready, &end))
        });
        apart.await.expect("a measurement to its end")
    }

    async fn measure(self, ready: &Barrier, end: &Barrier) -> Figures {
        let further = [
            ("AMOCRM_CONTACT_SCAN", self.scan.to_string()),
            ("AMOCRM_BATCH_SIZE", self.batch_size.to_string()),
        ];
        let mut stand = Stand::prepare(self.latency, "5s", further);
        if self.rows_are == Rows::Settled {
            stand.setting = stand.setting.with_settled_rows();
        }
        if !self.is_filled {
            stand.launch().await;
        }
        let (amo, postgrest) = (stand.sandbox.amo.clone(), stand.sandbox.postgrest.clone());
        let crowd = self.contacts() - self.rows;
        let scenario =
            Scenario::import_day_among(SEED, self.rows, crowd, &amo, &postgrest, &stand.setting);
        if self.is_filled {
            stand.fill_the_index().await;
            stand.launch().await;
        }
        stand.tell_of_inserts();
        let awaited = scenario.remaining();

        ready.wait().await;
        let began = Instant::now();
        stream::iter(&scenario.students)
            .map(|student| postgrest.deliver(student.row))
            .buffer_unordered(DELIVERIES_AT_ONCE)
            .for_each(|_| async {})
            .await;
        stand.until_written_back(awaited, GLANCE).await;

        end.wait().await;
        let peak_kib = stand.peak_kib();
        let figures = self.figures(&stand, &scenario, began, peak_kib);
        stand.end().await;
        figures
    }

    fn figures(self, stand: &Stand, scenario: &Scenario, began: Instant, peak_kib: u64) -> Figures {
        let requests = stand.sandbox.requests();
        let write_backs = requests.iter().filter(|it| it.route == "rows.update");
        let ended = write_backs.map(|it| it.at).max().unwrap_or(began);
        let mut figures = Figures {
            rows: self.rows,
            took: ended.duration_since(began),
            requests: 0,
            by_route: BTreeMap::new(),
            peak_kib,
            wrong: scenario.verify(),
        };
        // Whoever has no contact is looked for again a minute later, while others are still being measured.
        let asked = requests
            .iter()
            .filter(|it| it.server == Server::Amo && (began..=ended).contains(&it.at));
        for request in asked {
            figures.requests += 1;
            *figures.by_route.entry(request.route).or_default() += 1;
            if request.status == Some(429) {
                let after = span(request.at.duration_since(began));
                figures.wrong.push(format!(
                    "amoCRM answered 429 to {} after {after}",
                    request.route
                ));
            }
        }
        figures
    }
}

impl Figures {
    #[expect(clippy::cast_precision_loss, reason = "counts of rows and requests")]
    pub(crate) fn row(&self, import: Import, yardstick: &Yardstick) -> String {
        let took = self.took.as_secs_f64();
        let rows = self.rows as f64;
        let slow = yardstick.time_for(self.rows).as_secs_f64();
        format!(
            "| {} | {} | {} | {:.0} | {:.3} | {:.0} MiB | {} | {:.0}× |",
            self.rows,
            import.contacts(),
            span(self.took),
            rows / took * 60.0,
            self.requests as f64 / rows,
            self.peak_kib as f64 / 1024.0,
            span(yardstick.time_for(self.rows)),
            slow / took,
        )
    }

    /// What was asked of amoCRM, by route.
    pub(crate) fn routes(&self) -> String {
        let routes = self.by_route.iter();
        let counted: Vec<String> = routes
            .map(|(route, count)| format!("{route} {count}"))
            .collect();
        counted.join(", ")
    }
}

/// For people.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else if seconds < 7200.0 {
        format!("{:.1} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rows,
            contacts_per_row,
            latency,
            scan,
            rows_are,
            is_filled,
            batch_size,
        } = self;
        let millis = latency.as_millis();
        let index = match (scan, is_filled) {
            (false, _) => ", no index",
            (true, false) => "",
            (true, true) => ", index filled",
        };
        write!(
            f,
            "{rows} rows ({rows_are:?}), {contacts_per_row}× contacts, {millis} ms, {batch_size} a write{index}"
        )
    }
}
