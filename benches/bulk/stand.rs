//! The real program between both sandboxes.

#[expect(dead_code, reason = "the chaos driver does more with it")]
#[path = "../../tests/chaos/service.rs"]
mod service;

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use sandbox::{AmoQuirks, PostgrestQuirks, Sandbox, WebhookTarget, school::Setting};
use secrecy::SecretString;
use tempfile::TempDir;

use self::service::Service;
use crate::REQUESTS_PER_SECOND;

const SECRET: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=";

pub(crate) struct Stand {
    pub(crate) sandbox: Sandbox,
    pub(crate) setting: Setting,
    address: SocketAddr,
    service: Service,
    _folder: TempDir,
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
        let (sandbox, setting) = neighbours(latency);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut environment = environment(&sandbox, &setting, folder.path(), settle_delay);
        environment.extend(further);
        let binary = Path::new(env!("CARGO_BIN_EXE_tripwire-sync"));
        let mut service = Service::new(binary, folder.path(), environment);
        service.spawn().expect("the service starts");
        let address = service.listening().await.expect("the service listens");
        Self {
            sandbox,
            setting,
            address,
            service,
            _folder: folder,
        }
    }

    /// From now on the service hears of every new row.
    pub(crate) fn tell_of_inserts(&self) {
        self.sandbox.postgrest.on_insert(WebhookTarget {
            url: format!("http://{}/webhooks/supabase", self.address),
            secret: SecretString::from(SECRET),
        });
    }

    pub(crate) fn peak_kib(&self) -> u64 {
        self.service.pid().map(peak_kib).unwrap_or_default()
    }

    pub(crate) fn check_alive(&mut self) {
        self.service.lives().expect("the service lives");
    }

    pub(crate) async fn end(mut self) {
        self.service.terminate().await.expect("it stops in order");
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
