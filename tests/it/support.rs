//! The real service, in this process, between both sandboxes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use amocrm::Target;
use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusHandle;
use sandbox::{
    AmoQuirks, ContactId, DealId, PostgrestQuirks, Recorded, Sandbox, Server, StageId,
    WebhookTarget,
    scenario::{Missing, Scenario, Setting},
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;
use tripwire_sync::{
    app::{App, Sending, Settings},
    domain::{
        self, Backoff, MissingContact, NoteTemplate, RowId, SharedClock, SystemClock, TestHooks,
        WebhookSecret,
    },
    http::{Verifier, signature},
    inbox::{Entry, Inbox, Outcome, Role, State},
    supabase,
    sync::{
        self, Maintenance, rules::deal::Rules, rules::eligibility::RowRules,
        rules::timings::Timings,
    },
    telemetry,
};
use uuid::Uuid;

pub(crate) const SECRET: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=";
pub(crate) const EMAIL: &str = "aigerim@example.kz";
pub(crate) const NAME: &str = "Айгерим Омарова";
pub(crate) const NOTE: &str = "✅ Доступ к Tripwire предоставлен: {full_name}\nЛогин: {email}";

/// Far longer than anything takes that minds the throttle; reached only when something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// The same where the throttle is out of the way.
const BRISK_PATIENCE: Duration = Duration::from_secs(20);

/// What a test may want otherwise than usual.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    pub(crate) amo: AmoQuirks,
    pub(crate) postgrest: PostgrestQuirks,
    /// Of the engine's durations; the sandbox's late commits follow.
    pub(crate) time_scale: f64,
    pub(crate) missing: Missing,
    /// Bought means won.
    pub(crate) target_is_won: bool,
    pub(crate) since: Timestamp,
    pub(crate) settle_delay: Duration,
    pub(crate) sweep_every: Option<Duration>,
    pub(crate) requests_per_second: u32,
    pub(crate) batch_size: usize,
    pub(crate) contact_scan: bool,
    pub(crate) hold: bool,
    pub(crate) note: &'static str,
}

impl Default for Wishes {
    /// A patient amoCRM, a hundredth of all waits, no sweeps but the first.
    fn default() -> Self {
        Self {
            amo: AmoQuirks::patient(),
            postgrest: PostgrestQuirks::default(),
            time_scale: 0.01,
            missing: Missing::Wait,
            target_is_won: false,
            since: Timestamp::UNIX_EPOCH,
            settle_delay: Duration::ZERO,
            sweep_every: None,
            requests_per_second: 7,
            batch_size: 50,
            contact_scan: true,
            hold: false,
            note: NOTE,
        }
    }
}

impl Wishes {
    /// For tests about rules and not about pace: the throttle is out of the way.
    pub(crate) fn brisk() -> Self {
        Self {
            requests_per_second: BRISK,
            ..Self::default()
        }
    }

    fn is_brisk(&self) -> bool {
        self.requests_per_second >= BRISK
    }

    fn timings(&self) -> Timings {
        let mut timings = Timings::scaled(self.time_scale);
        if self.is_brisk() {
            // What is kept long for the throttle's sake, and a quarter of an hour that is nine seconds still.
            timings.fresh_for = Duration::from_millis(1_200);
            timings.begin_within = Duration::from_millis(600);
            timings.amocrm_probe = Backoff {
                first: Duration::from_millis(300),
                longest: Duration::from_secs(1),
            };
            timings.supabase_probe = Backoff {
                first: Duration::from_millis(150),
                longest: Duration::from_millis(600),
            };
        }
        timings
    }
}

/// Requests a second, far more than any test sends.
const BRISK: u32 = 1_000;

/// Of a service that sends.
pub(crate) fn sending(settings: &mut Settings) -> &mut Sending {
    settings.sending.as_mut().unwrap()
}

/// The service with its neighbours.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    pub(crate) setting: Setting,
    pub(crate) wishes: Wishes,
    folder: TempDir,
    app: Option<App>,
    http: reqwest::Client,
}

impl World {
    /// Both sandboxes and the running service.
    pub(crate) async fn start(wishes: Wishes) -> Self {
        let mut world = Self::prepare(wishes);
        world.launch().await;
        world
    }

    /// Both sandboxes; the service is not running yet.
    pub(crate) fn prepare(mut wishes: Wishes) -> Self {
        outbound::install_crypto_provider();
        wishes.amo.time_scale = wishes.time_scale;
        wishes.postgrest.time_scale = wishes.time_scale;
        let sandbox = Sandbox::start(wishes.amo, wishes.postgrest.clone()).unwrap();
        let mut setting = Setting::build(&sandbox.amo);
        if wishes.target_is_won {
            setting = setting.targeting_won();
        }
        if wishes.missing == Missing::Create {
            setting = setting.creating_missing();
        }
        Self {
            sandbox,
            setting,
            wishes,
            folder: tempfile::tempdir().unwrap(),
            app: None,
            http: reqwest::Client::new(),
        }
    }

    pub(crate) async fn launch(&mut self) {
        let settings = self.settings();
        self.launch_with(settings).await;
    }

    pub(crate) async fn launch_with(&mut self, settings: Settings) {
        self.launch_at(settings, Arc::new(SystemClock)).await;
    }

    /// With a clock of the test's own.
    pub(crate) async fn launch_at(&mut self, settings: Settings, clock: SharedClock) {
        assert!(self.app.is_none(), "it is running");
        let app = App::start(settings, clock, metrics()).await.unwrap();
        self.app = Some(app);
    }

    /// What the service is started with. Tests may change it and start an `App` of their own.
    pub(crate) fn settings(&self) -> Settings {
        let wishes = &self.wishes;
        let timings = wishes.timings();
        let note = NoteTemplate::parse(wishes.note).unwrap();
        Settings {
            bind_addr: any_port(),
            metrics_addr: any_port(),
            verifier: Verifier {
                secrets: vec![secret()],
                token: None,
                tolerance: Duration::from_mins(5),
            },
            inbox_path: self.inbox_path(),
            supabase: supabase::Settings {
                project_url: self.sandbox.postgrest.url().parse().unwrap(),
                key: SecretString::from(self.sandbox.postgrest.key()),
                jwt: None,
                note_columns: note.columns(),
                largest_answer: supabase::LARGEST_ANSWER,
                connect_timeout: Duration::from_secs(5),
                timeout: timings.read_timeout.max(Duration::from_secs(2)),
                extra_roots: Vec::new(),
            },
            maintenance: Maintenance {
                rows: RowRules {
                    since: wishes.since,
                    settle_delay: wishes.settle_delay,
                },
                sweep_every: wishes.sweep_every,
                sweep_after_another: true,
                retention: Duration::from_hours(2160),
            },
            sending: (!wishes.hold).then(|| self.sending(&timings, note)),
            timings,
            hooks: TestHooks::default(),
            tokens: Vec::new(),
            telegram: None,
            outside_watcher: None,
            self_test: None,
            operator_page: None,
            tells_systemd: false,
        }
    }

    fn sending(&self, timings: &Timings, note: NoteTemplate) -> Sending {
        let wishes = &self.wishes;
        Sending {
            amocrm: amocrm::Settings {
                base_url: self.sandbox.amo.url().parse().unwrap(),
                token: SecretString::from(self.sandbox.amo.token()),
                requests_per_second: wishes.requests_per_second.try_into().unwrap(),
                // Not scaled: a slow machine must not look like a silent neighbour.
                timeouts: amocrm::Timeouts {
                    connect: Duration::from_secs(5),
                    read: timings.read_timeout.max(Duration::from_secs(2)),
                    write: timings.write_timeout.max(Duration::from_secs(2)),
                },
                assume_full_window: false,
                extra_roots: Vec::new(),
                user_agent: domain::USER_AGENT,
                metrics: "tripwire_amocrm",
            },
            sync: sync::Settings {
                rules: Rules {
                    target: self.target(),
                    reuse_closed: Duration::from_hours(2160),
                },
                missing_contact: match wishes.missing {
                    Missing::Wait => MissingContact::Wait,
                    Missing::Create => MissingContact::Create,
                },
                note,
                batch_size: wishes.batch_size,
                contact_scan: wishes.contact_scan,
                // So that every request is about a student.
                inspect_every: None,
                amocrm_fingerprint: self.sandbox.amo.token().into(),
                supabase_fingerprint: self.sandbox.postgrest.key().into(),
            },
        }
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            pipeline: domain::PipelineId::new(self.setting.pipeline.get()),
            stage: domain::StageId::new(self.setting.target.get()),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn inbox_path(&self) -> PathBuf {
        self.folder.path().join("inbox.db")
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().expect("the service is not running")
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.app().inbox
    }

    /// A second process beside the service, as the command line is.
    pub(crate) async fn guest(&self) -> Inbox {
        Inbox::open(&self.inbox_path(), Role::Guest, Arc::new(SystemClock))
            .await
            .unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.app().address)
    }

    /// From now on an insert posts its webhook, like the trigger.
    pub(crate) fn connect_trigger(&self) {
        self.sandbox.postgrest.on_insert(WebhookTarget {
            url: format!("{}/webhooks/supabase", self.url()),
            secret: SecretString::from(SECRET),
        });
    }

    /// A row as the manager's dashboard makes it; the given columns replace the usual ones.
    pub(crate) fn insert(&self, columns: &Value) -> RowId {
        let mut row = json!({
            "id": Uuid::new_v4(),
            "email": EMAIL,
            "full_name": NAME,
            "phone": null,
            "price": 5000,
            "status": "active",
            "created_at": Timestamp::now_for_tests(),
        });
        for (name, value) in columns.as_object().unwrap() {
            row[name] = value.clone();
        }
        RowId::new(self.sandbox.postgrest.insert_row(&row))
    }

    /// Delivers a row's webhook as the trigger signs it. Answers the status.
    pub(crate) async fn deliver(&self, row: RowId) -> u16 {
        self.deliver_as(row, &format!("msg_{}", Uuid::new_v4().simple()))
            .await
    }

    pub(crate) async fn deliver_as(&self, row: RowId, id: &str) -> u16 {
        self.deliver_to(&self.url(), row, id).await.unwrap()
    }

    /// To a service at `url`, which may be a process of its own, and end before it has answered.
    pub(crate) async fn deliver_to(
        &self,
        url: &str,
        row: RowId,
        id: &str,
    ) -> Result<u16, reqwest::Error> {
        let body = body_of(row);
        let now = Timestamp::now_for_tests();
        let answer = self
            .http
            .post(format!("{url}/webhooks/supabase"))
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now.as_second().to_string())
            .header(
                "webhook-signature",
                signature::sign(&secret(), id, now, body.as_bytes()),
            )
            .body(body)
            .send()
            .await?;
        Ok(answer.status().as_u16())
    }

    pub(crate) async fn entry(&self, row: RowId) -> Option<Entry> {
        self.inbox().entry(row).await.unwrap()
    }

    fn patience(&self) -> Duration {
        if self.wishes.is_brisk() {
            BRISK_PATIENCE
        } else {
            PATIENCE
        }
    }

    /// Waits until the entry of a row is as wished. Answers it.
    pub(crate) async fn until(
        &self,
        row: RowId,
        what: &str,
        wished: impl Fn(&Entry) -> bool,
    ) -> Entry {
        let mut settled = self.app().settled.clone();
        let look = async {
            loop {
                settled.mark_unchanged();
                if let Some(entry) = self.entry(row).await
                    && wished(&entry)
                {
                    return entry;
                }
                // Every settled attempt changes it; nothing else is worth a look.
                settled.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(self.patience(), look).await {
            Ok(entry) => entry,
            Err(elapsed) => panic!(
                "row {row} is not {what}, {elapsed}: {:?}",
                self.entry(row).await
            ),
        }
    }

    /// Parks a row as a person does. A claimed row cannot be parked: the next settled attempt gives it back.
    pub(crate) async fn park(&self, row: RowId) {
        let guest = self.guest().await;
        let mut settled = self.app().settled.clone();
        let parked = async {
            settled.mark_unchanged();
            while guest.park(vec![row]).await.unwrap() == 0 {
                settled.changed().await.unwrap();
            }
        };
        let patience = tokio::time::timeout(self.patience(), parked).await;
        patience.expect("the row can be parked");
    }

    pub(crate) async fn until_state(&self, row: RowId, state: State) -> Entry {
        self.until(row, &format!("{state:?}"), |entry| entry.state == state)
            .await
    }

    /// Waits until so many rows have come to an end, or wait for their contact.
    pub(crate) async fn until_settled(&self, rows: usize) {
        let mut settled = self.app().settled.clone();
        let ends = [State::Done, State::Waiting, State::Parked];
        loop {
            settled.mark_unchanged();
            let counts = self.inbox().counts().await.unwrap();
            let ended = ends.iter().filter_map(|end| counts.by_state.get(end));
            if ended.sum::<u64>() >= rows as u64 {
                return;
            }
            let change = tokio::time::timeout(self.patience(), settled.changed()).await;
            assert!(change.is_ok(), "stands still: {counts:?}");
        }
    }

    /// Waits until nothing is pending or claimed any more.
    pub(crate) async fn until_drained(&self) {
        self.until_none_is(&[State::Pending, State::Claimed]).await;
    }

    pub(crate) async fn until_none_is(&self, states: &[State]) {
        let mut settled = self.app().settled.clone();
        let look = async {
            loop {
                settled.mark_unchanged();
                let counts = self.inbox().counts().await.unwrap();
                if states
                    .iter()
                    .all(|state| counts.by_state.get(state).copied().unwrap_or(0) == 0)
                {
                    return;
                }
                settled.changed().await.unwrap();
            }
        };
        let drained = tokio::time::timeout(self.patience(), look).await;
        assert!(
            drained.is_ok(),
            "some are {states:?} still: {:?}",
            self.inbox().counts().await
        );
    }

    /// Waits until the engine reports a state with this name.
    pub(crate) async fn until_sync_is(&self, name: &str) {
        let mut status = self.app().status.clone();
        let reached = tokio::time::timeout(
            self.patience(),
            status.wait_for(|state| state.into_str() == name),
        )
        .await;
        assert!(
            reached.is_ok(),
            "the engine never was {name}: {:?}",
            *self.app().status.borrow()
        );
    }

    /// Stops as on SIGTERM.
    pub(crate) async fn stop(&mut self) {
        self.app
            .take()
            .unwrap()
            .run_until(std::future::ready(()))
            .await
            .unwrap();
    }

    /// Ends as on SIGKILL, as far as one process can play it.
    pub(crate) async fn die(&mut self) {
        self.app.take().unwrap().die().await;
        // Runs that were cut off let go of the inbox a moment later; a dead process has by the time of the next one.
        let path = format!("{}.lock", self.inbox_path().display());
        let lock = std::fs::File::open(path).unwrap();
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        while lock.try_lock().is_err() {
            tick.tick().await;
        }
    }

    /// The value of a column, as text.
    pub(crate) fn column(&self, row: RowId, name: &str) -> Option<String> {
        let row = self.sandbox.postgrest.row(row)?;
        row.get(name)?.as_str().map(str::to_owned)
    }

    /// How many requests went to a route of amoCRM's.
    pub(crate) fn asked(&self, route: &str) -> usize {
        self.requests_to(route).len()
    }

    /// The requests to a route of either neighbour, in the order of arrival.
    pub(crate) fn requests_to(&self, route: &str) -> Vec<Recorded> {
        let mut requests = self.sandbox.requests();
        requests.retain(|request| request.route == route);
        requests
    }

    /// Waits until so many requests of a route are as wished.
    pub(crate) async fn until_asked(
        &self,
        route: &str,
        count: usize,
        wished: impl Fn(&Recorded) -> bool,
    ) {
        let is_wished = |it: &Recorded| it.route == route && wished(it);
        let look = self.sandbox.until(count, is_wished);
        let asked = tokio::time::timeout(self.patience(), look).await;
        assert!(asked.is_ok(), "{route}: {:?}", self.requests_to(route));
    }

    /// Every change that amoCRM was asked for.
    pub(crate) fn amo_writes(&self) -> Vec<Recorded> {
        let mut requests = self.sandbox.requests();
        requests.retain(|request| request.server == Server::Amo && request.is_write);
        requests
    }

    /// A contact that has been there for long.
    pub(crate) fn contact(&self, email: &str) -> ContactId {
        self.sandbox
            .amo
            .world(|world| world.add_contact(NAME, &[email], &[]))
    }

    /// A contact's deal on a stage of our pipeline.
    pub(crate) fn deal(&self, contact: ContactId, stage: StageId) -> DealId {
        let pipeline = self.setting.pipeline;
        self.sandbox
            .amo
            .world(|world| world.add_deal(&[contact], pipeline, stage, "Заявка с сайта"))
    }

    /// A contact with a deal that has yet to reach the target.
    pub(crate) fn student(&self, email: &str) -> DealId {
        let contact = self.contact(email);
        self.deal(contact, self.setting.before[0])
    }

    pub(crate) fn stage(&self, deal: DealId) -> StageId {
        self.sandbox
            .amo
            .world(|world| world.deal(deal).unwrap().stage)
    }

    pub(crate) fn notes(&self, deal: DealId) -> Vec<String> {
        self.sandbox
            .amo
            .world(|world| world.notes_of(deal).map(|note| note.text.clone()).collect())
    }

    /// The deals of whoever has this e-mail, the lowest id first.
    pub(crate) fn deals_of(&self, email: &str) -> Vec<DealId> {
        self.sandbox.amo.world(|world| {
            let contacts: Vec<_> = world.contacts_with_email(email).map(|it| it.id).collect();
            let deals = world.deals();
            deals
                .filter(|deal| deal.contacts.iter().any(|it| contacts.contains(it)))
                .map(|deal| deal.id)
                .collect()
        })
    }

    pub(crate) async fn until_done(&self, row: RowId, outcome: Outcome) -> Entry {
        let entry = self.until_state(row, State::Done).await;
        assert_eq!(
            entry.outcome,
            Some(outcome),
            "{:?}",
            self.inbox().history(row).await
        );
        entry
    }

    /// The row is in step: its deal on the target with one note of its own, its id in the row, nothing else made.
    pub(crate) async fn until_synced_once(&self, row: RowId) -> DealId {
        self.until_done(row, Outcome::Synced).await;
        let deal = self.column(row, "amocrm_deal_id").unwrap();
        let deal = DealId::new(deal.parse().unwrap());
        assert_eq!(self.stage(deal), self.setting.target, "the stage of {deal}");
        self.assert_noted_once(row, deal);
        deal
    }

    pub(crate) fn assert_noted_once(&self, row: RowId, deal: DealId) {
        let mark = format!("[{}]", row.reference());
        let noted: Vec<DealId> = self.sandbox.amo.world(|world| {
            let ours = world.notes().filter(|note| note.text.ends_with(&mark));
            ours.map(|note| note.deal).collect()
        });
        assert_eq!(noted, [deal], "notes for {row}");
    }
}

/// The rows of a scenario, by the ids of the service.
pub(crate) fn rows_of(scenario: &Scenario) -> Vec<RowId> {
    let rows = scenario.students.iter().map(|student| student.row);
    rows.map(RowId::new).collect()
}

/// Its contact is awaited from now on.
pub(crate) fn has_missed_twice(entry: &Entry) -> bool {
    entry.state == State::Waiting
        && entry.reason.as_deref() == Some("ожидает контакт с таким e-mail в amoCRM")
}

/// The delivery of a row, in the very text that Postgres gives its jsonb.
pub(crate) fn body_of(row: RowId) -> String {
    format!(
        "{{\"type\": \"INSERT\", \"table\": \"tripwire_users\", \"record\": {{\"id\": \"{row}\"}}, \"schema\": \"public\", \"old_record\": null}}"
    )
}

pub(crate) fn secret() -> WebhookSecret {
    WebhookSecret::parse(SECRET).unwrap()
}

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// One recorder serves all apps of a process.
pub(crate) fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| telemetry::install_metrics().unwrap())
        .clone()
}

/// The real time: sandboxes and service share it.
pub(crate) trait NowForTests {
    fn now_for_tests() -> Self;
}

impl NowForTests for Timestamp {
    fn now_for_tests() -> Self {
        tripwire_sync::domain::Clock::now(&SystemClock)
    }
}
