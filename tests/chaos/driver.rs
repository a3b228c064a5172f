//! One round of chaos: the real binary between both sandboxes, killed and stopped and lied to, and in the end every
//! row must be right.
//!
//! The sandboxes live in the driver's process, so they remember what a killed service did. Everything that is decided
//! is decided by the seed; when exactly a request meets it is up to the machine.

pub(crate) mod inspect;
mod plan;
mod report;
pub(crate) mod service;

pub(crate) use self::{
    plan::Plan,
    report::{Figures, Report},
};
use std::{
    cell::Cell,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use sandbox::{
    AmoQuirks, Fault, Kind, Page, Point, PostgrestQuirks, RandomFaults, Recorded, Sandbox, Server,
    When,
    scenario::{Missing, Scenario, Setting},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep, sleep_until},
};
use tripwire_sync::{
    domain::{Clock, RowId, SystemClock, WebhookSecret},
    http::signature,
    inbox::{Inbox, Role, State},
};

use self::{
    plan::{Aim, Arrival, Held, TIME_SCALE, Upset},
    service::Service,
};

const SECRET: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=";
/// What the trigger gives `net.http_post`.
const POST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a state is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often to look whether a moment has come.
const GLANCE: Duration = Duration::from_millis(10);
/// How long to lie in wait for the request that a process is to die at.
const AMBUSH: Duration = Duration::from_secs(3);
/// After the last upset; reached only when something hangs.
const PATIENCE: Duration = Duration::from_mins(2);
/// Looks of the sweep after everything was right, at which it must stay right.
const SWEEPS: usize = 2;

/// Why a round cannot go on.
type Broken = String;

struct Round<'a> {
    plan: &'a Plan,
    sandbox: Sandbox,
    scenario: Scenario,
    /// As inserted.
    rows: Vec<(RowId, Value)>,
    began: Instant,
    /// Of the latest process that listened.
    address: Cell<SocketAddr>,
    http: reqwest::Client,
    secret: WebhookSecret,
}

/// What became of one webhook.
#[derive(Debug)]
struct Posted {
    row: RowId,
    at: Timestamp,
    /// `None`: nobody answered in time.
    status: Option<u16>,
}

/// Plays one round to its end.
pub(crate) async fn play(binary: &Path, plan: &Plan) -> Report {
    let folder = tempfile::tempdir().expect("a folder for the inbox");
    let mut round = Round::prepare(plan);
    let mut service = Service::new(binary, folder.path(), round.environment(folder.path()));
    let mut figures = Figures {
        rounds: 1,
        rows: plan.rows,
        ..Figures::default()
    };

    let mut violations = round.go(&mut service, &mut figures).await;
    if let Err(error) = service.kill() {
        violations.push(format!("SIGKILL: {error}"));
    }
    violations.extend(inspect::requests(&round.sandbox, &mut figures));
    let wrong = round.scenario.verify();
    figures.wrong = wrong.len();
    violations.extend(wrong);
    let logs = service.logs();
    violations.extend(inspect::pace(&logs, &mut figures));
    violations.extend(inspect::logs(&logs));
    figures.took = round.began.elapsed();
    round.sandbox.stop().await;

    let kept = (!violations.is_empty()).then(|| keep(folder, &round.sandbox));
    Report {
        plan: plan.clone(),
        figures,
        violations,
        kept,
    }
}

/// Leaves everything to look at that a round has made.
fn keep(folder: TempDir, sandbox: &Sandbox) -> PathBuf {
    let path = folder.keep();
    inspect::write_requests(&sandbox.requests(), &path.join("requests.log"))
        .expect("room for the record");
    path
}

impl<'a> Round<'a> {
    fn prepare(plan: &'a Plan) -> Self {
        outbound::install_crypto_provider();
        let amo = AmoQuirks {
            time_scale: TIME_SCALE,
            ..AmoQuirks::default()
        };
        let postgrest = PostgrestQuirks {
            time_scale: TIME_SCALE,
            ..PostgrestQuirks::default()
        };
        let sandbox = Sandbox::start(amo, postgrest).expect("ports for the sandboxes");
        let mut setting = Setting::build(&sandbox.amo);
        if plan.target_is_won {
            setting = setting.targeting_won();
        }
        if plan.missing == Missing::Create {
            setting = setting.creating_missing();
        }
        let scenario = Scenario::mixed(
            plan.seed,
            plan.rows,
            &sandbox.amo,
            &sandbox.postgrest,
            &setting,
        );
        // The scenario knows what must become of its rows; they appear in the table in their own time.
        let take = |row| sandbox.postgrest.delete_row(row).unwrap_or_default();
        let rows = scenario
            .students
            .iter()
            .map(|student| (RowId::new(student.row), Value::Object(take(student.row))))
            .collect();
        Self {
            plan,
            sandbox,
            scenario,
            rows,
            began: Instant::now(),
            address: Cell::new(SocketAddr::from(([127, 0, 0, 1], 1))),
            http: reqwest::Client::builder()
                .timeout(POST_TIMEOUT)
                .no_proxy()
                .build()
                .expect("an HTTP client"),
            secret: WebhookSecret::parse(SECRET).expect("a sound secret"),
        }
    }

    fn environment(&self, folder: &Path) -> Vec<(&'static str, String)> {
        let Setting {
            pipeline, target, ..
        } = self.scenario.setting;
        let missing = match self.plan.missing {
            Missing::Wait => "wait",
            Missing::Create => "create",
        };
        vec![
            ("BIND_ADDR", "127.0.0.1:0".to_owned()),
            ("METRICS_ADDR", "127.0.0.1:0".to_owned()),
            ("WEBHOOK_SECRET", SECRET.to_owned()),
            ("SUPABASE_URL", self.sandbox.postgrest.url()),
            ("SUPABASE_KEY", self.sandbox.postgrest.key()),
            ("SYNC_SINCE", "2020-01-01".to_owned()),
            ("SETTLE_DELAY", "0s".to_owned()),
            ("RECONCILE_INTERVAL", "2s".to_owned()),
            ("AMOCRM_BASE_URL", self.sandbox.amo.url()),
            ("AMOCRM_ACCESS_TOKEN", self.sandbox.amo.token()),
            ("AMOCRM_TRIPWIRE_PIPELINE_ID", pipeline.to_string()),
            ("AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID", target.to_string()),
            ("AMOCRM_MISSING_CONTACT", missing.to_owned()),
            (
                "AMOCRM_REQUESTS_PER_SECOND",
                self.plan.requests_per_second.to_string(),
            ),
            ("AMOCRM_BATCH_SIZE", self.plan.batch_size.to_string()),
            (
                "DATABASE_URL",
                format!("sqlite://{}", folder.join(service::INBOX).display()),
            ),
            ("LOG_FORMAT", "json".to_owned()),
            ("RUST_LOG", "tripwire_sync=debug".to_owned()),
            ("TRIPWIRE_TIME_SCALE", TIME_SCALE.to_string()),
        ]
    }

    /// Answers what went wrong on the way; what is wrong in the end is looked at afterwards.
    async fn go(&mut self, service: &mut Service, figures: &mut Figures) -> Vec<String> {
        let mut violations = Vec::new();
        let posts = match self.storm(service, figures).await {
            Ok(posts) => posts,
            Err(broken) => return vec![broken],
        };
        figures.count_posts(posts.iter().map(|post| post.status));
        let ended = match self.until_all_is_right(service).await {
            Ok(()) => service.terminate().await,
            Err(broken) => Err(broken),
        };
        match ended {
            Ok(status) if status.success() => {}
            Ok(status) => violations.push(format!("SIGTERM is answered with {status}")),
            Err(broken) => violations.push(broken),
        }
        violations.extend(inspect::inbox(&self.inbox(service).await, &posts, figures).await);
        violations
    }

    /// From the first row to the last upset.
    async fn storm(
        &mut self,
        service: &mut Service,
        figures: &mut Figures,
    ) -> Result<Vec<Posted>, Broken> {
        self.start(service).await?;
        self.began = Instant::now();
        self.luck(0);
        let (posts, upset) = tokio::join!(self.arrive(), self.upset(service, figures));
        upset?;
        // Not long before the end, so that whatever is left has to come right by itself.
        let few = self.rows.len() / 20;
        until(PATIENCE, LOOK, || self.scenario.remaining() <= few).await;
        self.sandbox.faults().clear();
        Ok(posts)
    }

    /// Both neighbours fail from now on, each by its own luck.
    fn luck(&self, stretch: u64) {
        let faults = self.sandbox.faults();
        faults.clear();
        for (server, luck) in [
            (Server::Amo, self.plan.amo_luck),
            (Server::Postgrest, self.plan.postgrest_luck),
        ] {
            faults.random(
                server,
                RandomFaults {
                    seed: luck.seed.wrapping_add(stretch),
                    ..luck
                },
            );
        }
    }

    async fn start(&self, service: &mut Service) -> Result<(), Broken> {
        service.spawn()?;
        let address = service.listening().await?;
        self.address.set(address);
        Ok(())
    }

    // ---- rows and webhooks ----

    async fn arrive(&self) -> Vec<Posted> {
        let mut under_way = JoinSet::new();
        for (at, arrival) in &self.plan.arrivals {
            sleep_until(self.began + *at).await;
            match arrival {
                Arrival::Insert(rows) => {
                    for (_, row) in &self.rows[rows.clone()] {
                        self.sandbox.postgrest.insert_row(row);
                    }
                }
                Arrival::Post { row, delivery } => {
                    let row = self.rows[*row].0;
                    let request = self.webhook(row, *delivery);
                    under_way.spawn(async move {
                        let status = request
                            .send()
                            .await
                            .ok()
                            .map(|answer| answer.status().as_u16());
                        Posted {
                            row,
                            at: SystemClock.now(),
                            status,
                        }
                    });
                }
            }
        }
        under_way.join_all().await
    }

    /// One try, as `pg_net` makes it; signed when it is made.
    fn webhook(&self, row: RowId, delivery: u32) -> reqwest::RequestBuilder {
        let id = format!("msg_{row}_{delivery}");
        let now = SystemClock.now();
        let body = format!(
            "{{\"type\": \"INSERT\", \"table\": \"tripwire_users\", \"record\": {{\"id\": \"{row}\"}}, \"schema\": \"public\", \"old_record\": null}}"
        );
        self.http
            .post(format!("http://{}/webhooks/supabase", self.address.get()))
            .header("content-type", "application/json")
            .header(signature::ID, &id)
            .header(signature::TIMESTAMP, now.as_second().to_string())
            .header(
                signature::SIGNATURE,
                signature::sign(&self.secret, &id, now, body.as_bytes()),
            )
            .body(body)
    }

    // ---- upsets ----

    /// Plays the plan. Each pause is as long as the plan wants the outage to be: it waits for nothing.
    async fn upset(&self, service: &mut Service, figures: &mut Figures) -> Result<(), Broken> {
        for (at, upset) in &self.plan.upsets {
            sleep_until(self.began + *at).await;
            match *upset {
                Upset::Kill { aim, down_for } => {
                    self.kill(service, aim, down_for).await?;
                    figures.kills += 1;
                }
                Upset::Stop { held, lasting } => {
                    self.stop(service, held, lasting).await?;
                    figures.stops += 1;
                }
                Upset::Refusals { lasting } => {
                    let too_many = Kind::Status {
                        when: When::Before,
                        code: 429,
                        page: Page::Html,
                        retry_after: None,
                    };
                    self.sandbox
                        .faults()
                        .add(Fault::always(Point::any(Server::Amo), too_many));
                    sleep(lasting).await;
                    self.luck(1);
                }
            }
            service.lives()?;
        }
        Ok(())
    }

    async fn kill(
        &self,
        service: &mut Service,
        aim: Aim,
        down_for: Duration,
    ) -> Result<(), Broken> {
        let any_write = || Point::any(Server::Amo).writes();
        match aim {
            Aim::Anywhere => {}
            Aim::AfterWrite => self.ambush(any_write(), Kind::Hang(When::After)).await,
            Aim::BeforeWrite => self.ambush(any_write(), Kind::Hang(When::Before)).await,
            Aim::AfterWriteBack => {
                self.ambush(Point::postgrest("rows.update"), Kind::Hang(When::After))
                    .await;
            }
            Aim::Starting(age) => {
                end(service)?;
                service.spawn()?;
                sleep(age).await;
            }
        }
        end(service)?;
        sleep(down_for).await;
        self.start(service).await
    }

    async fn stop(&self, service: &Service, held: Held, lasting: Duration) -> Result<(), Broken> {
        let latency = |latency| {
            self.sandbox.amo.quirks(|quirks| quirks.latency = latency);
        };
        match held {
            Held::ForEver => {
                self.ambush(Point::any(Server::Amo).reads(), Kind::Hang(When::Before))
                    .await;
            }
            Held::For(time) => {
                latency(time);
                self.next_read().await;
            }
        }
        service.halt()?;
        latency(Duration::ZERO);
        sleep(lasting).await;
        service.go_on()
    }

    /// Comes back when a request has met the fault, or when none comes.
    async fn ambush(&self, at: Point, kind: Kind) {
        let faults = self.sandbox.faults();
        let others = faults.unmet().len();
        faults.add(Fault::once(at, kind));
        until(AMBUSH, GLANCE, || faults.unmet().len() <= others).await;
    }

    async fn next_read(&self) {
        let reads = || {
            self.sandbox
                .amo
                .requests()
                .iter()
                .filter(|request| !request.is_write)
                .count()
        };
        let before = reads();
        until(AMBUSH, GLANCE, || reads() > before).await;
    }

    // ---- the end ----

    /// Right, and still right after some more sweeps.
    async fn until_all_is_right(&self, service: &mut Service) -> Result<(), Broken> {
        let inbox = self.inbox(service).await;
        let limit = Instant::now() + PATIENCE;
        let mut ticks = interval(LOOK);
        let mut right_since = None;
        while Instant::now() < limit {
            ticks.tick().await;
            service.lives()?;
            let counts = inbox
                .counts()
                .await
                .map_err(|error| format!("the inbox: {error}"))?;
            let of = |state| counts.by_state.get(&state).copied().unwrap_or(0);
            let settled = of(State::Done) + of(State::Waiting) + of(State::Parked);
            let is_right = settled == self.rows.len() as u64
                && self.scenario.remaining() == 0
                && self.sandbox.amo.late_commits() == 0;
            if !is_right {
                right_since = None;
                continue;
            }
            let sweeps = self.sweeps();
            if sweeps >= *right_since.get_or_insert(sweeps) + SWEEPS {
                return Ok(());
            }
        }
        let counts = inbox
            .counts()
            .await
            .map_err(|error| format!("the inbox: {error}"))?;
        let counts: Vec<String> = counts
            .named()
            .map(|(state, count)| format!("{state} {count}"))
            .collect();
        let remaining = self.scenario.remaining();
        Err(format!(
            "not settled after {PATIENCE:?}: {remaining} rows without a deal id; {}",
            counts.join(", ")
        ))
    }

    fn sweeps(&self) -> usize {
        let requests = self.sandbox.postgrest.requests();
        let is_sweep = |request: &&Recorded| {
            request.route == "rows.read" && request.param("amocrm_deal_id") == Some("is.null")
        };
        requests.iter().filter(is_sweep).count()
    }

    /// Opened late: a second process in it would spare a killed one's successor the repair of the file.
    async fn inbox(&self, service: &Service) -> Inbox {
        let opened = Inbox::open(&service.inbox(), Role::Guest, Arc::new(SystemClock)).await;
        opened.expect("the inbox can be opened")
    }
}

fn end(service: &mut Service) -> Result<(), Broken> {
    service.kill().map_err(|error| format!("SIGKILL: {error}"))
}

async fn until(limit: Duration, every: Duration, is_reached: impl Fn() -> bool) {
    let limit = Instant::now() + limit;
    let mut ticks = interval(every);
    while !is_reached() && Instant::now() < limit {
        ticks.tick().await;
    }
}
