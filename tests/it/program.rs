//! The real program as a child process: what it is given, what it says, how it ends.

use std::{
    fmt::Display,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use tokio::sync::watch;
use tripwire_sync::{
    domain::RowId,
    inbox::{Inbox, State},
};
use uuid::Uuid;

use crate::support::{PATIENCE, SECRET, World};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tripwire-sync");

/// Between two looks at what tells nobody that it has changed.
const GLANCE: Duration = Duration::from_millis(2);

/// A command line and everything that it gets to see: nothing of our own environment.
pub(crate) struct Launch(Command);

impl Launch {
    /// In `folder`, which is where an `.env` would be.
    pub(crate) fn new(folder: &Path, args: &[&str]) -> Self {
        Self::of(Path::new(BINARY), folder, args)
    }

    pub(crate) fn of(binary: &Path, folder: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(binary);
        command.args(args).current_dir(folder).env_clear();
        Self(command)
    }

    /// Everything that a service, or a command beside it, needs to work with this world.
    pub(crate) fn in_world(world: &World, args: &[&str]) -> Self {
        Self::new(world.folder(), args).settings(world)
    }

    pub(crate) fn settings(self, world: &World) -> Self {
        let wishes = &world.wishes;
        let sweep_every = wishes.sweep_every.unwrap_or_default();
        self.with("BIND_ADDR", "127.0.0.1:0")
            .with("METRICS_ADDR", "127.0.0.1:0")
            .with("WEBHOOK_SECRET", SECRET)
            .with("SUPABASE_URL", world.sandbox.postgrest.url())
            .with("SUPABASE_KEY", world.sandbox.postgrest.key())
            .with("SYNC_SINCE", wishes.since)
            .with("TIME_ZONE", "UTC")
            .with(
                "SETTLE_DELAY",
                format!("{}ms", wishes.settle_delay.as_millis()),
            )
            .with(
                "RECONCILE_INTERVAL",
                format!("{}ms", sweep_every.as_millis()),
            )
            .with("AMOCRM_BASE_URL", world.sandbox.amo.url())
            .with("AMOCRM_ACCESS_TOKEN", world.sandbox.amo.token())
            .with("AMOCRM_TRIPWIRE_PIPELINE_ID", world.setting.pipeline)
            .with("AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID", world.setting.target)
            .with("AMOCRM_REQUESTS_PER_SECOND", wishes.requests_per_second)
            .with("AMOCRM_BATCH_SIZE", wishes.batch_size)
            .with("NOTE_TEMPLATE", wishes.note)
            .with(
                "DATABASE_URL",
                format!("sqlite://{}", world.inbox_path().display()),
            )
            .with("TRIPWIRE_TIME_SCALE", wishes.time_scale)
            // A scaled day is short.
            .with("SELF_TEST", "off")
    }

    pub(crate) fn with(mut self, name: &str, value: impl Display) -> Self {
        self.0.env(name, value.to_string());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.0.env_remove(name);
        self
    }

    pub(crate) fn spawn(mut self) -> Program {
        let mut child = self
            .0
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, output) = watch::channel(Said::default());
        let out = child.stdout.take().unwrap();
        let err = child.stderr.take().unwrap();
        let also_said = said.clone();
        thread::spawn(move || listen(out, &said, |said| &mut said.out));
        thread::spawn(move || listen(err, &also_said, |said| &mut said.err));
        Program { child, output }
    }

    /// Waits for its end.
    pub(crate) async fn run(self) -> Ended {
        self.spawn().ended().await
    }
}

/// Lines until now.
#[derive(Debug, Default, Clone)]
struct Said {
    out: Vec<String>,
    err: Vec<String>,
}

/// Until the other end is closed, which is when the program has ended.
fn listen(pipe: impl Read, said: &watch::Sender<Said>, to: impl Fn(&mut Said) -> &mut Vec<String>) {
    for line in BufReader::new(pipe).split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        said.send_modify(|said| to(said).push(line));
    }
}

/// It runs. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    output: watch::Receiver<Said>,
}

/// It has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None`: by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Everything that it said.
    pub(crate) fn words(&self) -> String {
        format!("{}\n{}", self.out, self.err)
    }

    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{self:#?}");
    }
}

impl Program {
    /// The first line of its log, from the beginning, that is about `event` and as wished.
    pub(crate) async fn until_logged(
        &mut self,
        event: &str,
        wished: impl Fn(&Value) -> bool,
    ) -> Value {
        let find = |said: &Said| {
            let lines = said.err.iter().filter_map(|line| parse(line));
            lines
                .into_iter()
                .find(|line| line["message"] == event && wished(line))
        };
        let logged = async {
            let said = self.output.wait_for(|said| find(said).is_some()).await;
            said.ok().and_then(|said| find(&said))
        };
        match tokio::time::timeout(PATIENCE, logged).await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("it ended without logging {event}: {:#?}", self.log()),
            Err(elapsed) => panic!("it does not log {event}, {elapsed}: {:#?}", self.log()),
        }
    }

    /// Waits for words on its standard output.
    pub(crate) async fn until_said(&mut self, words: &str) {
        let said = self
            .output
            .wait_for(|said| said.out.iter().any(|line| line.contains(words)));
        let heard = tokio::time::timeout(PATIENCE, said)
            .await
            .is_ok_and(|said| said.is_ok());
        assert!(
            heard,
            "it does not say {words}: {:#?}",
            self.output.borrow()
        );
    }

    /// How many lines of its log are about `event` and as wished.
    pub(crate) fn count_logged(&self, event: &str, wished: impl Fn(&Value) -> bool) -> usize {
        let said = self.output.borrow();
        let lines = said.err.iter().filter_map(|line| parse(line));
        lines
            .filter(|line| line["message"] == event && wished(line))
            .count()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on its standard output.
    pub(crate) fn said(&self) -> String {
        self.output.borrow().out.join("\n")
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.output.borrow().err.clone()
    }

    /// `TERM`, `INT`, `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        // Every shell has `kill`; not every machine has it as a program.
        let pid = self.child.id().to_string();
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid])
            .status();
        assert!(status.unwrap().success());
    }

    /// Completes when it has ended.
    pub(crate) async fn until_ended(&mut self) {
        // Both listeners let go of their channel then.
        while self.output.changed().await.is_ok() {}
    }

    pub(crate) async fn ended(mut self) -> Ended {
        let waited = tokio::time::timeout(PATIENCE, self.until_ended()).await;
        assert!(
            waited.is_ok(),
            "it does not end: {:#?}",
            self.output.borrow()
        );
        let status = self.child.wait().unwrap();
        let said = self.output.borrow();
        Ended {
            code: status.code(),
            out: said.out.join("\n"),
            err: said.err.join("\n"),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn parse(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok()
}

/// A running `serve`.
pub(crate) struct Service {
    pub(crate) program: Program,
    pub(crate) url: String,
    pub(crate) metrics_url: String,
    http: reqwest::Client,
}

impl Service {
    pub(crate) async fn start(world: &World) -> Self {
        Self::launch(Launch::in_world(world, &["serve"])).await
    }

    /// Waits until it takes deliveries.
    pub(crate) async fn launch(launch: Launch) -> Self {
        let mut program = launch.spawn();
        let started = program.until_logged("service.started", |_| true).await;
        let address =
            |name: &str| -> SocketAddr { started[name].as_str().unwrap().parse().unwrap() };
        let service = Self {
            url: format!("http://{}", address("address")),
            metrics_url: format!("http://{}", address("metrics_address")),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            program,
        };
        service.readiness().await;
        service
    }

    async fn get(&self, url: &str) -> reqwest::Response {
        let answer = self.http.get(url).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{url}");
        answer
    }

    /// What `/readyz` says on the address of the metrics.
    pub(crate) async fn readiness(&self) -> Value {
        let answer = self.get(&format!("{}/readyz", self.metrics_url)).await;
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    pub(crate) async fn until_sync_is(&self, state: &str) {
        let look = async {
            while self.readiness().await["sync"]["state"] != state {
                tokio::time::sleep(GLANCE).await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, look).await;
        assert!(reached.is_ok(), "never {state}: {:#?}", self.program.log());
    }

    pub(crate) async fn metrics(&self) -> String {
        let url = format!("{}/metrics", self.metrics_url);
        self.get(&url).await.text().await.unwrap()
    }

    /// As the trigger delivers. `None`: it ended before it had answered.
    pub(crate) async fn deliver(&self, world: &World, row: RowId) -> Option<u16> {
        let id = format!("msg_{}", Uuid::new_v4().simple());
        world.deliver_to(&self.url, row, &id).await.ok()
    }

    pub(crate) async fn until_synced(&mut self, row: RowId) {
        self.until_outcome(row, "synced").await;
    }

    /// Waits until an attempt for the row has ended so.
    pub(crate) async fn until_outcome(&mut self, row: RowId, outcome: &str) {
        let row = row.to_string();
        self.program
            .until_logged("sync.attempt", |line| {
                line["row.id"] == row.as_str() && line["outcome"] == outcome
            })
            .await;
    }

    pub(crate) async fn stop(self) -> Ended {
        self.program.signal("TERM");
        self.program.ended().await
    }

    pub(crate) async fn kill(self) -> Ended {
        self.program.signal("KILL");
        let ended = self.program.ended().await;
        assert_eq!(ended.code, None, "{ended:#?}");
        ended
    }
}

/// Waits for something in a sandbox, which tells nobody.
pub(crate) async fn until(what: &str, mut wished: impl FnMut() -> bool) {
    let look = async {
        while !wished() {
            tokio::time::sleep(GLANCE).await;
        }
    };
    let reached = tokio::time::timeout(PATIENCE, look).await;
    assert!(reached.is_ok(), "it never was so: {what}");
}

/// Waits until nothing in an inbox is pending or claimed any more.
pub(crate) async fn until_drained(inbox: &Inbox) {
    let look = async {
        loop {
            let counts = inbox.counts().await.unwrap();
            let open = [State::Pending, State::Claimed];
            if open
                .iter()
                .all(|state| counts.by_state.get(state).is_none_or(|count| *count == 0))
            {
                return;
            }
            tokio::time::sleep(GLANCE).await;
        }
    };
    let drained = tokio::time::timeout(PATIENCE, look).await;
    assert!(drained.is_ok(), "not drained: {:?}", inbox.counts().await);
}
