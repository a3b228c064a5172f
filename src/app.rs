//! The composition root: the only place that knows every part, and the one that starts and stops them.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    num::NonZeroU32,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use actix_web::web::ServiceConfig;
use amocrm::{AmoCrm, Simulation, Target};
use futures::{FutureExt as _, future::BoxFuture};
use metrics_exporter_prometheus::PrometheusHandle;
use rand::RngExt as _;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    admin::{self, Admin},
    alerts,
    config::{Config, SupabaseConfig},
    domain::{
        EventTestTimings, HangAt, Heartbeat, SharedClock, SyncState, SyncStatus, TestHooks,
        TokenEnd, USER_AGENT,
    },
    http::{self, HttpState, MetricsPage, RefusalLog, Verifier},
    inbox::{Inbox, InboxError},
    supabase::{self, Supabase},
    sync::{
        self, Engine, Hold, Jitter, Maintenance, Parts, lease::Lease, pause::Switch,
        rules::deal::Rules, rules::eligibility::RowRules, rules::timings::Timings,
    },
};

use outside_watcher::Signs;
use watchdog::{Loop, Watchdog};
pub use worker::Worker;

mod destination;
mod outside_watcher;
mod self_test;
mod systemd;
mod watchdog;
mod worker;

pub use outside_watcher::OutsideWatcher;
pub use self_test::SelfTest;

/// Enough for a burst of `pg_net`, on the smallest machine.
const HTTP_WORKERS: usize = 2;
/// How long the alert about a lost inbox may take before the process ends.
const LAST_ALERT: Duration = Duration::from_secs(20);
/// How long the last requests have, once the engine has stopped.
const HTTP_GRACE: Duration = Duration::from_secs(2);

/// How long the writer or the engine may take to come round. Their waits are shorter: a busy file 5 s, a rest 15 s.
const HANG_AFTER: Duration = Duration::from_mins(2);

/// What the service is told to be.
#[derive(Debug, Clone)]
pub struct Settings {
    pub bind_addr: SocketAddr,
    pub metrics_addr: SocketAddr,
    pub verifier: Verifier,
    pub inbox_path: PathBuf,
    pub supabase: supabase::Settings,
    pub maintenance: Maintenance,
    /// `None`: deliveries are stored, and nothing is sent.
    pub sending: Option<Sending>,
    pub timings: Timings,
    pub hooks: TestHooks,
    /// The configured tokens that have an end.
    pub tokens: Vec<TokenEnd>,
    /// `None`: no alert is sent.
    pub telegram: Option<alerts::Settings>,
    /// `None`: no outside watcher.
    pub outside_watcher: Option<OutsideWatcher>,
    /// `None`: no test event can be sent.
    pub self_test: Option<SelfTest>,
    /// `None`: there is no operator page.
    pub operator_page: Option<admin::Settings>,
    /// Whether systemd, if it has started this process, is told of the service.
    pub tells_systemd: bool,
}

/// What is needed to send.
#[derive(Debug, Clone)]
pub struct Sending {
    pub amocrm: amocrm::Settings,
    pub sync: sync::Settings,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Inbox(#[from] InboxError),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the watchdog cannot be started")]
    Watchdog(#[source] io::Error),
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// A part of the service ended before it was told to stop.
#[derive(Debug, thiserror::Error)]
pub enum Died {
    #[error("{part} ended by itself")]
    Part { part: &'static str },
    #[error("the inbox file was removed, replaced or moved while it was open")]
    InboxLost,
}

impl Settings {
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let timings = Timings::scaled(config.hooks.time_scale);
        let note = config.note_template.clone();
        let supabase = supabase_settings(&config.supabase, note.columns(), &timings);
        let sending = config.amocrm.as_ref().map(|amocrm| {
            let target = Target {
                pipeline: amocrm.pipeline,
                stage: amocrm.stage,
            };
            let client = amocrm_settings(
                amocrm.base_url.clone(),
                amocrm.token.clone(),
                amocrm.requests_per_second,
                &timings,
            );
            let sync = sync::Settings {
                rules: Rules {
                    target,
                    reuse_closed: amocrm.reuse_closed,
                },
                missing_contact: amocrm.missing_contact,
                note,
                batch_size: amocrm.batch_size,
                contact_scan: amocrm.contact_scan,
                inspect_every: Some(timings.pipelines_for),
                amocrm_fingerprint: amocrm_fingerprint(&client, target),
                supabase_fingerprint: supabase_fingerprint(&supabase),
            };
            Sending {
                amocrm: client,
                sync,
            }
        });
        Self {
            bind_addr: config.bind_addr,
            metrics_addr: config.metrics_addr,
            verifier: Verifier {
                secrets: config.webhook.secrets.clone(),
                token: config.webhook.bearer.clone(),
                tolerance: config.webhook.tolerance,
            },
            inbox_path: config.inbox_path.clone(),
            supabase,
            maintenance: Maintenance {
                rows: RowRules {
                    since: config.sync_since,
                    settle_delay: config.settle_delay,
                },
                sweep_every: config.reconcile_interval,
                sweep_after_another: true,
                retention: config.retention,
            },
            sending,
            timings,
            hooks: config.hooks,
            self_test: (!config.webhook.secrets.is_empty()).then(|| SelfTest {
                daily: config.self_test,
                takes_bearer: config.webhook.bearer.is_some(),
                timings: EventTestTimings::scaled(config.hooks.time_scale, timings.test_event),
            }),
            tokens: token_ends(config),
            operator_page: config.admin.as_ref().map(|admin| admin::Settings {
                admin_token: admin.admin_token.clone(),
                viewer_token: admin.viewer_token.clone(),
                amocrm: config.amocrm.as_ref().map(|it| it.base_url.clone()),
                zone: config.zone.clone(),
            }),
            tells_systemd: true,
            outside_watcher: config.heartbeat.as_ref().map(|heartbeat| OutsideWatcher {
                url: heartbeat.url.clone(),
                every: heartbeat.every,
            }),
            telegram: config.telegram.as_ref().map(|bot| alerts::Settings {
                bot: bot.clone(),
                tokens: token_ends(config),
                zone: config.zone.clone(),
                digests: config.digest.map(|every| alerts::Schedule {
                    every,
                    zone: config.zone.clone(),
                }),
                pace: alerts::Pace::scaled(config.hooks.time_scale),
            }),
        }
    }

    /// For an engine that works off the rows that a command names: no sweep, and no inspection of amoCRM.
    #[must_use]
    pub fn without_periodic_jobs(mut self) -> Self {
        self.maintenance.sweep_every = None;
        self.maintenance.sweep_after_another = false;
        if let Some(sending) = &mut self.sending {
            sending.sync.inspect_every = None;
        }
        self
    }
}

/// Takes its thread with it, as a deadlock does.
fn block_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

/// The configured tokens that have an end.
#[must_use]
pub fn token_ends(config: &Config) -> Vec<TokenEnd> {
    let supabase = &config.supabase;
    let mut tokens = vec![match &supabase.jwt {
        Some(jwt) => ("SUPABASE_JWT", jwt),
        None => ("SUPABASE_KEY", &supabase.key),
    }];
    if let Some(amocrm) = &config.amocrm {
        tokens.push(("AMOCRM_ACCESS_TOKEN", &amocrm.token));
    }
    tokens
        .into_iter()
        .filter_map(|(name, token)| TokenEnd::read(name, token.expose_secret()))
        .collect()
}

pub(crate) fn supabase_settings(
    config: &SupabaseConfig,
    note_columns: Vec<&'static str>,
    timings: &Timings,
) -> supabase::Settings {
    supabase::Settings {
        project_url: config.url.clone(),
        key: config.key.clone(),
        jwt: config.jwt.clone(),
        note_columns,
        largest_answer: supabase::LARGEST_ANSWER,
        connect_timeout: timings.connect_timeout,
        timeout: timings.read_timeout,
        extra_roots: Vec::new(),
    }
}

pub(crate) fn amocrm_settings(
    base_url: Url,
    token: SecretString,
    requests_per_second: u32,
    timings: &Timings,
) -> amocrm::Settings {
    amocrm::Settings {
        base_url,
        token,
        requests_per_second: NonZeroU32::new(requests_per_second).unwrap_or(NonZeroU32::MIN),
        timeouts: amocrm::Timeouts {
            connect: timings.connect_timeout,
            read: timings.read_timeout,
            write: timings.write_timeout,
        },
        assume_full_window: true,
        extra_roots: Vec::new(),
        user_agent: USER_AGENT,
        metrics: "tripwire_amocrm",
    }
}

fn amocrm_fingerprint(amocrm: &amocrm::Settings, target: Target) -> SecretString {
    let settings = format!(
        "{}\n{}\n{}\n{}",
        amocrm.base_url,
        amocrm.token.expose_secret(),
        target.pipeline,
        target.stage
    );
    settings.into()
}

fn supabase_fingerprint(supabase: &supabase::Settings) -> SecretString {
    let jwt = supabase
        .jwt
        .as_ref()
        .map_or("", ExposeSecret::expose_secret);
    let settings = format!(
        "{}\n{}\n{jwt}",
        supabase.project_url,
        supabase.key.expose_secret()
    );
    settings.into()
}

/// What works on the inbox beside the receiver, not begun yet, with the handles that the other parts keep.
struct Works {
    work: BoxFuture<'static, ()>,
    /// `None`: nothing is sent.
    amocrm: Option<AmoCrm>,
    lease: Lease,
    status: SyncStatus,
    settled: watch::Receiver<u64>,
    heartbeat: Heartbeat,
    stop: CancellationToken,
    /// Begins a sweep at once.
    sweep_now: Arc<Notify>,
}

impl Works {
    fn new(
        supabase: supabase::Settings,
        maintenance: Maintenance,
        sending: Option<Sending>,
        timings: &Timings,
        inbox: &Inbox,
        clock: &SharedClock,
        simulation: Option<Simulation>,
    ) -> Result<Self, StartError> {
        let mut supabase = Supabase::new(supabase, clock.clone()).map_err(StartError::Client)?;
        let stop = CancellationToken::new();
        let sweep_now = Arc::new(Notify::new());
        let (state, status) = watch::channel(SyncState::Starting);
        let (settled, count) = watch::channel(0);
        let heartbeat = Heartbeat::default();
        let jitter: Jitter = || rand::rng().random_range(0.0..1.0);
        let (work, amocrm, lease) = if let Some(sending) = sending {
            let (lease, client) = match simulation {
                None => {
                    let lease = Lease::new(timings, clock.clone());
                    let permit = Arc::new(lease.clone());
                    let client = AmoCrm::permitted(sending.amocrm, clock.clone(), permit);
                    (lease, client)
                }
                Some(simulation) => {
                    supabase = supabase.simulated();
                    let client = AmoCrm::simulated(sending.amocrm, clock.clone(), simulation);
                    (Lease::alone(timings, clock.clone()), client)
                }
            };
            let client = client.map_err(StartError::Client)?;
            let engine = Engine::new(Parts {
                inbox: inbox.clone(),
                amocrm: client.clone(),
                supabase,
                clock: clock.clone(),
                maintenance,
                settings: sending.sync,
                timings: *timings,
                jitter,
                lease: lease.clone(),
                stop: stop.clone(),
                sweep_now: Arc::clone(&sweep_now),
                heartbeat: heartbeat.clone(),
                state,
                settled,
            });
            (engine.work().boxed(), Some(client), lease)
        } else {
            let hold = Hold {
                inbox: inbox.clone(),
                supabase,
                clock: clock.clone(),
                maintenance,
                timings: *timings,
                jitter,
                stop: stop.clone(),
                sweep_now: Arc::clone(&sweep_now),
                heartbeat: heartbeat.clone(),
                state,
            };
            // It asks for no lease.
            let lease = Lease::alone(timings, clock.clone());
            (hold.work().boxed(), None, lease)
        };
        Ok(Self {
            work,
            amocrm,
            lease,
            status,
            settled: count,
            heartbeat,
            stop,
            sweep_now,
        })
    }
}

/// What the alerts ask of it.
#[derive(Debug)]
struct Running {
    amocrm: Option<AmoCrm>,
    lease: Lease,
}

impl alerts::Service for Running {
    fn holds_lease(&self) -> Option<bool> {
        self.lease.is_held()
    }

    fn requests_sent(&self) -> u64 {
        self.amocrm.as_ref().map_or(0, AmoCrm::requests_sent)
    }
}

/// They look on, and no other part waits for them.
#[derive(Debug)]
struct Onlookers {
    alerts: Option<JoinHandle<()>>,
    outside_watcher: Option<JoinHandle<()>>,
    self_test: Option<JoinHandle<()>>,
}

impl Onlookers {
    fn start(
        works: &Works,
        telegram: Option<&alerts::Settings>,
        outside_watcher: Option<OutsideWatcher>,
        self_test: Option<(SelfTest, supabase::Settings)>,
        inbox: &Inbox,
        clock: &SharedClock,
    ) -> Result<Self, StartError> {
        let watch = |alerts| {
            let (status, stop) = (works.status.clone(), works.stop.clone());
            let running = Arc::new(Running {
                amocrm: works.amocrm.clone(),
                lease: works.lease.clone(),
            });
            alerts::Watch::new(alerts, inbox.clone(), status, clock.clone(), running, stop)
        };
        let watch = telegram.map(watch).transpose();
        let watch = watch.map_err(StartError::Client)?;
        let signs = Signs {
            engine: works.heartbeat.clone(),
            status: works.status.clone(),
            writing: inbox.writing(),
        };
        let self_test = match self_test {
            None => None,
            Some((self_test, supabase)) => {
                let supabase = Supabase::new(supabase, clock.clone());
                let parts = self_test::Parts {
                    inbox: inbox.clone(),
                    supabase: supabase.map_err(StartError::Client)?,
                    clock: clock.clone(),
                    lease: works.lease.clone(),
                    stop: works.stop.clone(),
                };
                Some(self_test.start(parts))
            }
        };
        let outside_watcher = outside_watcher.map(|it| it.start(signs, works.stop.clone()));
        Ok(Self {
            outside_watcher: outside_watcher.transpose().map_err(StartError::Client)?,
            self_test,
            alerts: watch.map(|watch| tokio::spawn(watch.work())),
        })
    }
}

fn watch_loops(
    inbox: &Inbox,
    engine: Heartbeat,
    hooks: TestHooks,
    hangs: Arc<AtomicBool>,
    tells_systemd: bool,
) -> Result<Watchdog, StartError> {
    // In the order in which they wait for each other.
    let loops = vec![
        Loop::new("the writer of the inbox", inbox.heartbeat()),
        Loop::new("the engine", engine),
    ];
    // A test that lets a loop hang does not wait for two minutes.
    let hang_after = match hooks.hang_at {
        Some(_) => HANG_AFTER.mul_f64(hooks.time_scale),
        None => HANG_AFTER,
    };
    let came_round = if tells_systemd && systemd::is_watching() {
        systemd::loops_came_round
    } else {
        || {}
    };
    Watchdog::start(loops, hang_after, hangs, came_round).map_err(StartError::Watchdog)
}

async fn open_inbox(settings: &Settings, clock: &SharedClock) -> Result<Inbox, StartError> {
    let inbox = Inbox::open_or_replace(&settings.inbox_path, clock.clone()).await?;
    inbox.call_it_lasting_after(settings.timings.inbox_lasting);
    if let Some(at) = settings.hooks.die_at {
        inbox.die_at(at);
    }
    if settings.hooks.hang_at == Some(HangAt::Writer) {
        inbox.hang();
    }
    Ok(inbox)
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let cannot = |source| StartError::Listen { address, source };
    let listener = http::bind(address).map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    Ok((listener, bound))
}

/// What the operator page adds to the public server; nothing if there is none.
fn operator_page(
    page: Option<admin::Settings>,
    switch: Switch,
    status: &SyncStatus,
    sweep_now: Arc<Notify>,
) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let service = admin::Service {
        switch,
        status: status.clone(),
        sweep_now,
    };
    let page = page.map(|page| Admin::new(&page, service));
    move |cfg| {
        if let Some(page) = &page {
            page.routes(cfg);
        }
    }
}

/// The running service.
#[derive(Debug)]
pub struct App {
    pub address: SocketAddr,
    pub metrics_address: SocketAddr,
    pub inbox: Inbox,
    /// `None`: nothing is sent.
    pub amocrm: Option<AmoCrm>,
    pub status: SyncStatus,
    /// Counts settled attempts.
    pub settled: watch::Receiver<u64>,
    stop: CancellationToken,
    engine: JoinHandle<()>,
    onlookers: Onlookers,
    systemd: Option<JoinHandle<()>>,
    refusals: RefusalLog,
    http: Served,
    metrics: Served,
    _watchdog: Watchdog,
}

#[derive(Debug)]
struct Served {
    handle: actix_web::dev::ServerHandle,
    task: JoinHandle<io::Result<()>>,
}

impl Served {
    fn spawn(server: actix_web::dev::Server) -> Self {
        Self {
            handle: server.handle(),
            task: tokio::spawn(server),
        }
    }

    /// Lets requests in flight end, but does not wait for idle connections for long.
    async fn stop(self) {
        let graceful = self.handle.stop(true);
        if tokio::time::timeout(HTTP_GRACE, graceful).await.is_err() {
            self.handle.stop(false).await;
        }
    }
}

impl App {
    /// Opens the inbox, listens, and begins to work.
    pub async fn start(
        settings: Settings,
        clock: SharedClock,
        metrics: PrometheusHandle,
    ) -> Result<Self, StartError> {
        let hooks = settings.hooks;
        let inbox = open_inbox(&settings, &clock).await?;
        // The engine meets the trouble of an inbox, and logs it.
        let names = inbox.names().await.unwrap_or_default();
        let sending = settings.sending.clone();
        let supabase = settings.supabase.clone();
        let switch = Switch {
            inbox: inbox.clone(),
            supabase: Supabase::new(supabase.clone(), clock.clone()).map_err(StartError::Client)?,
            clock: clock.clone(),
            timeout: settings.timings.lease.timeout,
        };
        let works = Works::new(
            settings.supabase,
            settings.maintenance,
            settings.sending,
            &settings.timings,
            &inbox,
            &clock,
            None,
        )?;
        let (listener, address) = listen(settings.bind_addr)?;
        let (metrics_listener, metrics_address) = listen(settings.metrics_addr)?;

        let onlookers = Onlookers::start(
            &works,
            settings.telegram.as_ref(),
            settings.outside_watcher,
            settings.self_test.map(|self_test| (self_test, supabase)),
            &inbox,
            &clock,
        )?;
        let Works {
            work,
            amocrm,
            status,
            settled,
            heartbeat,
            stop,
            sweep_now,
            ..
        } = works;
        let refusals = RefusalLog::start();
        let hangs = Arc::new(AtomicBool::new(false));
        let watchdog = watch_loops(
            &inbox,
            heartbeat,
            hooks,
            Arc::clone(&hangs),
            settings.tells_systemd,
        )?;
        let http_state = HttpState {
            hangs,
            inbox: inbox.clone(),
            verifier: settings.verifier,
            clock: clock.clone(),
            sync_status: status.clone(),
            refusals: refusals.clone(),
        };
        let page = MetricsPage {
            handle: metrics,
            inbox: inbox.clone(),
            clock,
            sync_status: status.clone(),
            tokens: settings.tokens,
        };
        let serve = |source| StartError::Listen { address, source };
        let pages = operator_page(settings.operator_page, switch, &status, sweep_now);
        let http =
            Served::spawn(http::serve(listener, http_state, HTTP_WORKERS, pages).map_err(serve)?);
        let metrics = Served::spawn(http::serve_metrics(metrics_listener, page).map_err(serve)?);
        let work = async move {
            if hooks.hang_at == Some(HangAt::Engine) {
                block_for_ever();
            }
            work.await;
        };
        destination::log_start(sending.as_ref(), &names, address, metrics_address);
        let systemd = settings
            .tells_systemd
            .then(|| systemd::start(status.clone(), inbox.writing(), stop.clone()));
        Ok(Self {
            address,
            metrics_address,
            inbox,
            amocrm,
            status,
            settled,
            stop,
            engine: tokio::spawn(work),
            onlookers,
            systemd,
            refusals,
            http,
            metrics,
            _watchdog: watchdog,
        })
    }

    /// Ends as a killed process would: at once, with nothing finished or given back.
    pub async fn die(self) {
        self.engine.abort();
        let Onlookers {
            alerts,
            outside_watcher,
            self_test,
        } = self.onlookers;
        let tasks = [alerts, outside_watcher, self_test, self.systemd];
        for task in tasks.into_iter().flatten() {
            task.abort();
            let _ = task.await;
        }
        self.http.handle.stop(false).await;
        self.metrics.handle.stop(false).await;
        // Joined, so that no task works on. How a task ended does not matter.
        let _ = (
            self.engine.await,
            self.http.task.await,
            self.metrics.task.await,
        );
        // Runs are aborted with the engine, but may hold the inbox a moment longer; a dead process holds nothing.
        self.inbox.close().await;
    }

    /// Works until `signal`, or until a part dies, which is an error; then stops in order.
    pub async fn run_until(mut self, signal: impl Future<Output = ()>) -> Result<(), Died> {
        let died = tokio::select! {
            () = signal => None,
            () = self.inbox.lost() => None,
            _ = &mut self.engine => Some("the engine"),
            _ = &mut self.http.task => Some("the receiver"),
            _ = &mut self.metrics.task => Some("the metrics page"),
        };
        let is_lost = self.inbox.is_lost();
        if is_lost && let Some(mut alerts) = self.onlookers.alerts.take() {
            // The alerts end by themselves once they have sent, or tried to send, that the inbox is lost. Deliveries are
            // refused meanwhile.
            if tokio::time::timeout(LAST_ALERT, &mut alerts).await.is_err() {
                self.onlookers.alerts = Some(alerts);
            }
        }
        tracing::info!("service.stopping");
        // Deliveries are taken to the last moment: the inbox outlives both the engine and the receiver.
        self.stop.cancel();
        if let Some(systemd) = self.systemd {
            // It is told first, and how that went changes nothing.
            let _ = systemd.await;
        }
        let engine_ended_well = died == Some("the engine") || self.engine.await.is_ok();
        if let Some(alerts) = self.onlookers.alerts
            && alerts.await.is_err()
        {
            tracing::error!("alerts.ended");
        }
        tokio::join!(self.http.stop(), self.metrics.stop());
        self.refusals.flush();
        self.inbox.close().await;
        tracing::info!("service.stopped");
        match died {
            _ if is_lost => Err(Died::InboxLost),
            Some(part) => Err(Died::Part { part }),
            None if !engine_ended_well => Err(Died::Part { part: "the engine" }),
            None => Ok(()),
        }
    }
}
