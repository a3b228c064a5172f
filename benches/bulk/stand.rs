//! The real program between both sandboxes.

#[expect(dead_code, reason = "the chaos driver does more with it")]
#[path = "../../tests/chaos/service.rs"]
mod service;

use std::{fs, net::SocketAddr, num::NonZeroU32, path::Path, pin::pin, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusBuilder;
use sandbox::{AmoQuirks, PostgrestQuirks, Recorded, Sandbox, WebhookTarget, scenario::Setting};
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::interval;
use tripwire_sync::{
    app::{App, Settings},
    config::Config,
    domain::{RowId, SystemClock},
    inbox::{Arrival, Source},
};

use self::service::Service;
use crate::REQUESTS_PER_SECOND;

pub(crate) const SECRET: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=";

pub(crate) struct Stand {
    pub(crate) sandbox: Sandbox,
    pub(crate) setting: Setting,
    environment: Vec<(&'static str, String)>,
    running: Option<Running>,
    folder: TempDir,
}

struct Running {
    address: SocketAddr,
    service: Service,
}

/// Both neighbours, answering after `latency`.
pub(crate) fn neighbours(latency: Duration) -> (Sandbox, Setting) {
    let amo = AmoQuirks {
        latency,
        ..AmoQuirks::default()
    };
    let postgrest = PostgrestQuirks {
        latency,
        ..PostgrestQuirks::default()
    };
    let sandbox = Sandbox::start(amo, postgrest).expect("two free ports");
    let setting = Setting::build(&sandbox.amo);
    (sandbox, setting)
}

impl Stand {
    /// With a running service that has looked for rows already and found none.
    pub(crate) async fn set(
        latency: Duration,
        settle_delay: &str,
        further: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let mut stand = Self::prepare(latency, settle_delay, further);
        stand.launch().await;
        stand
    }

    /// The service is not running yet.
    pub(crate) fn prepare(
        latency: Duration,
        settle_delay: &str,
        further: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let (sandbox, setting) = neighbours(latency);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut environment = environment(&sandbox, &setting, folder.path(), settle_delay);
        environment.extend(further);
        Self {
            sandbox,
            setting,
            environment,
            running: None,
            folder,
        }
    }

    pub(crate) async fn launch(&mut self) {
        let binary = Path::new(env!("CARGO_BIN_EXE_tripwire-sync"));
        let mut service = Service::new(binary, self.folder.path(), self.environment.clone());
        service.spawn().expect("the service starts");
        let address = service.listening().await.expect("the service listens");
        self.running = Some(Running { address, service });
    }

    /// Has the service's own engine fill the index, in this process and at a rate that no account allows: it is wanted by rows
    /// without a contact, which are gone afterwards.
    pub(crate) async fn fill_the_index(&self) {
        const MANY: usize = 21;
        let (amo, postgrest) = (&self.sandbox.amo, &self.sandbox.postgrest);
        let quirks = amo.quirks(|quirks| std::mem::replace(quirks, AmoQuirks::patient()));
        let variables = self.environment.iter().cloned();
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let config = Config::from_vars(&variables.collect(), false).expect("sound settings");
        let mut settings = Settings::from_config(&config);
        settings.maintenance.sweep_every = None;
        let sending = settings.sending.as_mut().expect("settings to send with");
        sending.amocrm.requests_per_second = NonZeroU32::new(1_000).expect("not zero");
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let app = App::start(settings, Arc::new(SystemClock), metrics);
        let app = app.await.expect("the engine starts");
        let rows: Vec<RowId> = (0..MANY)
            .map(|n| {
                let row = json!({ "email": format!("wants{n}@example.kz") });
                RowId::new(postgrest.insert_row(&row))
            })
            .collect();
        let arrivals = rows.iter().map(|row| Arrival {
            row: *row,
            source: Source::Sweep,
        });
        let stored = app.inbox.store(arrivals.collect()).await;
        stored.expect("the inbox takes them");
        let is_change =
            |it: &Recorded| it.param("order[updated_at]").is_some() && it.status.is_some();
        // A look for the contacts of these rows reads the changes too, and says nothing of the filling.
        for changes in 1.. {
            self.sandbox.until(changes, is_change).await;
            let coverage: Option<Value> = app
                .inbox
                .state("contact_index")
                .await
                .expect("the inbox can be read");
            if coverage.is_some_and(|it| it["filling"] == "complete") {
                break;
            }
        }
        let forgotten = app.inbox.remove(rows.clone()).await;
        forgotten.expect("the inbox forgets them");
        app.run_until(std::future::ready(()))
            .await
            .expect("it stops");
        for row in rows {
            postgrest.delete_row(row);
        }
        amo.quirks(|now| *now = quirks);
    }

    /// From now on the service hears of every new row.
    pub(crate) fn tell_of_inserts(&self) {
        let running = self.running.as_ref().expect("a running service");
        self.sandbox.postgrest.on_insert(WebhookTarget {
            url: format!("http://{}/webhooks/supabase", running.address),
            secret: SecretString::from(SECRET),
        });
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.as_ref().expect("a running service").address
    }

    pub(crate) fn peak_kib(&self) -> u64 {
        let pid = self.running.as_ref().and_then(|it| it.service.pid());
        pid.map(peak_kib).unwrap_or_default()
    }

    /// Until so many ids were written into their rows. Sees meanwhile that the service lives, each `glance`.
    pub(crate) async fn until_written_back(&mut self, rows: usize, glance: Duration) {
        let sandbox = self.sandbox.clone();
        let is_written = |it: &Recorded| it.route == "rows.update" && it.status == Some(200);
        let mut written = pin!(sandbox.until(rows, is_written));
        let mut glances = interval(glance);
        loop {
            tokio::select! {
                () = &mut written => return,
                _ = glances.tick() => self.check_alive(),
            }
        }
    }

    fn check_alive(&mut self) {
        let running = self.running.as_mut().expect("a running service");
        running.service.lives().expect("the service lives");
    }

    pub(crate) async fn end(mut self) {
        let running = self.running.as_mut().expect("a running service");
        let stopped = running.service.terminate().await;
        stopped.expect("it stops in order");
        self.sandbox.stop().await;
    }
}

/// The most memory that a process has had resident so far, in KiB.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let peak = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    peak.unwrap_or_default()
}

pub(crate) fn environment(
    sandbox: &Sandbox,
    setting: &Setting,
    folder: &Path,
    settle_delay: &str,
) -> Vec<(&'static str, String)> {
    let database = format!("sqlite://{}", folder.join(service::INBOX).display());
    vec![
        ("BIND_ADDR", "127.0.0.1:0".to_owned()),
        ("METRICS_ADDR", "127.0.0.1:0".to_owned()),
        ("WEBHOOK_SECRET", SECRET.to_owned()),
        ("SUPABASE_URL", sandbox.postgrest.url()),
        ("SUPABASE_KEY", sandbox.postgrest.key()),
        ("SYNC_SINCE", "2020-01-01".to_owned()),
        ("SETTLE_DELAY", settle_delay.to_owned()),
        ("AMOCRM_BASE_URL", sandbox.amo.url()),
        ("AMOCRM_ACCESS_TOKEN", sandbox.amo.token()),
        ("AMOCRM_TRIPWIRE_PIPELINE_ID", setting.pipeline.to_string()),
        (
            "AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID",
            setting.target.to_string(),
        ),
        (
            "AMOCRM_REQUESTS_PER_SECOND",
            REQUESTS_PER_SECOND.to_string(),
        ),
        ("DATABASE_URL", database),
        ("LOG_FORMAT", "json".to_owned()),
    ]
}
