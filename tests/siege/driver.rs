//! Attacks of strangers on the real binary, beside senders that must not notice.
//!
//! Everything stays on 127.0.0.1. An attack ends by itself: when the senders have sent what they are to send, or when
//! its time is up.

use std::{
    fmt, fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime,
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{Instant, interval, sleep, timeout},
};
use tripwire_sync::{
    domain::{Clock, RowId, SystemClock, WebhookSecret},
    http::signature,
    inbox::{Inbox, Role},
};
use uuid::Uuid;

use super::service::{INBOX, Service};

const SECRET: &str = "whsec_c2llZ2UtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDEtMDAx";

/// What the process may hold at its peak.
pub(crate) const MOST_MEMORY: u64 = 100 << 20;

/// For the attackers to have come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A sender that has lost so many events need not lose more.
const ENOUGH_FAILURES: usize = 3;

/// Before an attacker comes back.
const BREATH: Duration = Duration::from_millis(50);

/// What strangers do. None of them knows the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Unsigned bodies of 250 KB.
    Bodies,
    /// Heads that look signed, with the longest body that is read, but for its last byte.
    HalfBodies,
    /// The head of a chunked request, and nothing more.
    ChunkedHeads,
    /// A whole chunked request, and hundreds more in the same breath, whose answers are not read.
    ChunkedCrowds,
    /// One whole request, then a second head, a byte a second.
    SecondHeads,
    /// Requests without end, whose answers are not read.
    NeverRead,
    /// Connections without a byte.
    Silent,
    /// Deliveries with a wrong signature, as fast as they are refused.
    Forged,
    /// No HTTP at all.
    Noise,
}

impl Attack {
    pub(crate) const ALL: [Self; 9] = [
        Self::Bodies,
        Self::HalfBodies,
        Self::ChunkedHeads,
        Self::ChunkedCrowds,
        Self::SecondHeads,
        Self::NeverRead,
        Self::Silent,
        Self::Forged,
        Self::Noise,
    ];

    async fn on(self, mut stream: TcpStream) -> std::io::Result<()> {
        let post = "POST /webhooks/supabase HTTP/1.1\r\nhost: x\r\ncontent-type: application/json";
        let get = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
        let forged = format!(
            "{post}\r\nwebhook-id: m\r\nwebhook-timestamp: {}\r\nwebhook-signature: v1,AAAA",
            SystemClock.now().as_second()
        );
        match self {
            Self::Bodies => {
                let head = format!("{post}\r\ncontent-length: 250000\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&vec![b' '; 250_000]).await?;
                until_closed(&mut stream).await
            }
            Self::HalfBodies => {
                let head = format!("{forged}\r\ncontent-length: 16384\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&[b' '; 16_383]).await?;
                until_closed(&mut stream).await
            }
            Self::ChunkedHeads => {
                let head = "POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).await?;
                until_closed(&mut stream).await
            }
            Self::ChunkedCrowds => {
                let first =
                    "POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
                let crowd = [first, &get.repeat(500)].concat();
                stream.write_all(crowd.as_bytes()).await?;
                // Long enough to be cut off; the answers stay where they are.
                sleep(Duration::from_secs(12)).await;
                Ok(())
            }
            Self::SecondHeads => {
                stream.write_all(get.as_bytes()).await?;
                loop {
                    stream.write_all(b"G").await?;
                    sleep(Duration::from_secs(1)).await;
                }
            }
            Self::NeverRead => {
                let requests = get.repeat(100);
                loop {
                    stream.write_all(requests.as_bytes()).await?;
                }
            }
            Self::Silent => until_closed(&mut stream).await,
            Self::Forged => {
                let request = format!("{forged}\r\ncontent-length: 2\r\n\r\n{{}}");
                let mut answer = [0; 1024];
                loop {
                    stream.write_all(request.as_bytes()).await?;
                    if stream.read(&mut answer).await? == 0 {
                        return Ok(());
                    }
                }
            }
            Self::Noise => {
                stream.write_all(b"\x16\x03\x01 hello\r\n\r\n").await?;
                until_closed(&mut stream).await
            }
        }
    }
}

async fn until_closed(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut answer = [0; 1024];
    while stream.read(&mut answer).await? > 0 {}
    Ok(())
}

#[derive(Debug, Clone)]
pub(crate) struct Siege {
    pub(crate) attack: Attack,
    pub(crate) attackers: usize,
    pub(crate) senders: usize,
    /// Of each sender, over a connection that it keeps.
    pub(crate) deliveries: usize,
    /// Between two deliveries; `None`: one follows the other.
    pub(crate) pace: Option<Duration>,
    /// How long a sender waits for its answer: then the event is lost.
    pub(crate) patience: Duration,
    /// The service's limit of open files, from which it takes the number of its places.
    pub(crate) descriptors: Option<usize>,
    /// The service runs in a control group of so many bytes.
    pub(crate) memory: Option<u64>,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Report {
    attack: Attack,
    /// Connections that the attackers opened.
    pub(crate) connections: usize,
    pub(crate) accepted: usize,
    /// What happened to deliveries that were not answered with 202.
    pub(crate) lost: Vec<String>,
    /// Accepted, and not in the inbox.
    pub(crate) forgotten: usize,
    took: Vec<Duration>,
    /// The process's own pages, at their peak.
    pub(crate) memory: u64,
    /// Of the control group, with the kernel's buffers of its sockets.
    pub(crate) group_memory: Option<u64>,
    log_bytes: u64,
    lasted: Duration,
    pub(crate) died: Option<String>,
}

impl Report {
    /// What so many of a hundred deliveries did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let last = self.took.len().saturating_sub(1);
        let at = (self.took.len() * percent / 100).min(last);
        self.took.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn log_bytes_a_second(&self) -> u64 {
        self.log_bytes / self.lasted.as_secs().max(1)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = self
            .group_memory
            .map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        write!(
            f,
            "{:<13} {:>7} connections, {:>6} accepted, {} lost, {} forgotten, p50 {} ms, p99 {} ms, \
             longest {} ms, memory {} MiB (group {group}), log {} B/s",
            format!("{:?}", self.attack),
            self.connections,
            self.accepted,
            self.lost.len(),
            self.forgotten,
            self.percentile(50).as_millis(),
            self.percentile(99).as_millis(),
            self.percentile(100).as_millis(),
            self.memory >> 20,
            self.log_bytes_a_second(),
        )?;
        if let Some(died) = &self.died {
            write!(f, ", DIED: {died}")?;
        }
        if let Some(first) = self.lost.first() {
            write!(f, ", first lost: {first}")?;
        }
        Ok(())
    }
}

pub(crate) async fn lay(binary: &Path, siege: &Siege) -> Result<Report, String> {
    let folder = TempDir::new().map_err(|error| error.to_string())?;
    let group = siege.memory.map(Group::new).transpose()?;
    let wrapped = wrap(binary, folder.path(), siege.descriptors, group.as_ref())?;
    let mut service = Service::new(&wrapped, folder.path(), environment());
    service.spawn()?;
    let address = service.listening().await?;

    let (opened, mut first_wave) = watch::channel(0);
    let mut attackers = JoinSet::new();
    for _ in 0..siege.attackers {
        attackers.spawn(attacker(siege.attack, address, opened.clone()));
    }
    // Every attacker has come once before the first sender does.
    let come = first_wave.wait_for(|opened| *opened >= siege.attackers);
    timeout(PATIENCE, come)
        .await
        .map_err(|_| "the attackers cannot connect".to_owned())?
        .map_err(|error| error.to_string())?;

    let begun = Instant::now();
    let sending = siege.clone();
    let sent = spawn_blocking(move || senders(address, &sending))
        .await
        .map_err(|error| error.to_string())??;
    let lasted = begun.elapsed();
    let died = service.lives().err();
    let memory = service.pid().map_or(0, peak_memory);
    let group_memory = group.as_ref().map(Group::peak);
    attackers.shutdown().await;
    if died.is_none() {
        service.terminate().await?;
    }

    let mut accepted = Vec::new();
    let (mut lost, mut took) = (Vec::new(), Vec::new());
    for delivery in sent.into_iter().flatten() {
        took.push(delivery.took);
        match delivery.status {
            Ok(202) => accepted.push(delivery.row),
            Ok(status) => lost.push(format!("answered {status}")),
            Err(error) => lost.push(error),
        }
    }
    took.sort_unstable();
    Ok(Report {
        attack: siege.attack,
        connections: *opened.borrow(),
        accepted: accepted.len(),
        lost,
        forgotten: forgotten(&folder.path().join(INBOX), accepted).await?,
        took,
        memory,
        group_memory,
        log_bytes: fs::metadata(service.log(1)).map_or(0, |log| log.len()),
        lasted,
        died,
    })
}

async fn forgotten(inbox: &Path, accepted: Vec<RowId>) -> Result<usize, String> {
    let clock = Arc::new(SystemClock);
    let inbox = Inbox::open(inbox, Role::Guest, clock)
        .await
        .map_err(|error| error.to_string())?;
    let count = accepted.len();
    let stored = inbox.states_of(accepted).await;
    inbox.close().await;
    Ok(count - stored.map_err(|error| error.to_string())?.len())
}

/// It stores what it is sent, and has no neighbours.
fn environment() -> Vec<(&'static str, String)> {
    [
        ("BIND_ADDR", "127.0.0.1:0"),
        ("METRICS_ADDR", "127.0.0.1:0"),
        ("WEBHOOK_SECRET", SECRET),
        ("SUPABASE_URL", "http://127.0.0.1:9"),
        ("SUPABASE_KEY", "sb_secret_siege-0000000000000000"),
        ("SYNC_SINCE", "2026-01-01T00:00:00Z"),
        ("RECONCILE_INTERVAL", "0"),
        ("AMOCRM_ENABLED", "false"),
        ("DATABASE_URL", "sqlite://inbox.db"),
        ("LOG_FORMAT", "json"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

/// A script that starts the service within its limits.
fn wrap(
    binary: &Path,
    folder: &Path,
    descriptors: Option<usize>,
    group: Option<&Group>,
) -> Result<PathBuf, String> {
    let group = group.map(|group| group.path.join("cgroup.procs"));
    let script = [
        "#!/bin/sh\nset -e\n".to_owned(),
        group.map_or_else(String::new, |file| {
            format!("echo $$ > {}\n", file.display())
        }),
        descriptors.map_or_else(String::new, |files| format!("ulimit -n {files}\n")),
        format!("exec {} \"$@\"\n", binary.display()),
    ]
    .concat();
    let path = folder.join("start");
    let written = fs::write(&path, script)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o700)));
    written.map_err(|error| error.to_string())?;
    Ok(path)
}

/// Resident at its peak, in bytes.
fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| {
        let kib = line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?;
        kib.trim().parse::<u64>().ok()
    });
    peak.unwrap_or_default() * 1024
}

/// A control group that limits memory. Only root makes one.
struct Group {
    path: PathBuf,
    peak: &'static str,
}

impl Group {
    fn new(bytes: u64) -> Result<Self, String> {
        let (root, limit, peak) = if Path::new("/sys/fs/cgroup/memory").exists() {
            (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.max_usage_in_bytes",
            )
        } else {
            ("/sys/fs/cgroup", "memory.max", "memory.peak")
        };
        let path = Path::new(root).join(format!("siege-{}", Uuid::new_v4()));
        fs::create_dir(&path)
            .and_then(|()| fs::write(path.join(limit), bytes.to_string()))
            .map_err(|error| format!("no control group ({error}): this needs root"))?;
        Ok(Self { path, peak })
    }

    fn peak(&self) -> u64 {
        let peak = fs::read_to_string(self.path.join(self.peak)).unwrap_or_default();
        peak.trim().parse().unwrap_or_default()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its process has ended by then.
        let _ = fs::remove_dir(&self.path);
    }
}

async fn attacker(attack: Attack, address: SocketAddr, opened: watch::Sender<usize>) {
    loop {
        if let Ok(stream) = TcpStream::connect(address).await {
            opened.send_modify(|opened| *opened += 1);
            // However it ended: the next one.
            let _ = attack.on(stream).await;
        }
        sleep(BREATH).await;
    }
}

#[derive(Debug)]
struct Delivery {
    row: RowId,
    status: Result<u16, String>,
    took: Duration,
}

type Sent = Vec<Delivery>;

/// They are another machine: what the attackers do to the runtime of their own does not hold them up.
fn senders(address: SocketAddr, siege: &Siege) -> Result<Vec<Sent>, String> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let all = (0..siege.senders).map(|_| sender(address, siege.clone()));
    Ok(runtime.block_on(join_all(all)))
}

/// Keeps its connection as long as the service does, and sends nothing twice.
async fn sender(address: SocketAddr, siege: Siege) -> Sent {
    let Siege {
        deliveries,
        pace,
        patience,
        ..
    } = siege;
    let secret = WebhookSecret::parse(SECRET).expect("a sound secret");
    let mut ticks = pace.map(interval);
    let mut connection = None;
    let mut sent = Sent::new();
    let mut failures = 0;
    while sent.len() < deliveries && failures < ENOUGH_FAILURES {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let row = RowId::new(Uuid::new_v4());
        let body = json!({
            "type": "INSERT", "table": "tripwire_users", "schema": "public",
            "record": { "id": row }, "old_record": null,
        })
        .to_string();
        let now = SystemClock.now();
        let id = format!("msg_{row}");
        let signature = signature::sign(&secret, &id, now, body.as_bytes());
        let request = format!(
            "POST /webhooks/supabase HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             webhook-id: {id}\r\nwebhook-timestamp: {}\r\nwebhook-signature: {signature}\r\n\
             content-length: {}\r\n\r\n{body}",
            now.as_second(),
            body.len()
        );
        let began = Instant::now();
        let status = match timeout(patience, deliver(address, &mut connection, &request)).await {
            Ok(status) => status.map_err(|error| error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        };
        if status.is_err() {
            connection = None;
            failures += 1;
        }
        let took = began.elapsed();
        sent.push(Delivery { row, status, took });
    }
    sent
}

async fn deliver(
    address: SocketAddr,
    connection: &mut Option<TcpStream>,
    request: &str,
) -> std::io::Result<u16> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => TcpStream::connect(address).await?,
    };
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // Bodies are short JSON objects, which end with the brace.
    while !answer.ends_with(b"}") {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    if !answer.contains("connection: close") {
        *connection = Some(stream);
    }
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}
