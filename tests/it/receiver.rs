//! The receiver on a bad machine: no space left, a folder that is not ours, a damaged file, clients that dawdle.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use jiff::Timestamp;
use sandbox::DealId;
use serde_json::{Value, json};
use tripwire_sync::{
    domain::{InboxFault, Lang, RowId, SystemClock},
    http::signature,
    inbox::{Inbox, Role},
};

use crate::{
    alerts::Bot,
    program::{BINARY, Ended, Launch, Service, until_drained},
    support::{EMAIL, NowForTests, PATIENCE, Wishes, World, body_of, secret},
};

fn succeeds(program: &str, args: &[&str]) -> bool {
    let done = Command::new(program).args(args).output();
    done.is_ok_and(|done| done.status.success())
}

fn we_are_root() -> bool {
    let user = Command::new("id").arg("-u").output().unwrap();
    user.stdout == b"0\n"
}

struct Answer {
    status: u16,
    content_type: String,
    body: Value,
}

/// Signed as the trigger does.
async fn deliver(service: &Service, row: RowId) -> Answer {
    let (id, now, body) = (
        format!("msg_{row}"),
        Timestamp::now_for_tests(),
        body_of(row),
    );
    let signature = signature::sign(&secret(), &id, now, body.as_bytes());
    let request = client()
        .post(format!("{}/webhooks/supabase", service.url))
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", now.as_second().to_string())
        .header("webhook-signature", signature)
        .body(body);
    answer(request).await
}

async fn ready(service: &Service) -> Answer {
    answer(client().get(format!("{}/readyz", service.url))).await
}

async fn until_ready_says(service: &Service, wished: impl Fn(&Answer) -> bool) {
    let look = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while !wished(&ready(service).await) {
            tick.tick().await;
        }
    };
    let patience = tokio::time::timeout(PATIENCE, look).await;
    patience.expect("it says so in time");
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    Answer {
        status: answer.status().as_u16(),
        content_type: answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned(),
        body: serde_json::from_str(&answer.text().await.unwrap()).unwrap(),
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

// ---- no space left ----

/// Where the inbox is, and how its space runs out.
enum Disk {
    /// A file system of its own, small enough to be filled.
    Small(PathBuf),
    /// Where nothing may be mounted: the process may not write to any file.
    Limited(PathBuf),
}

impl Disk {
    fn small_in(world: &World) -> Self {
        let folder = world.folder().join("disk");
        fs::create_dir(&folder).unwrap();
        let path = folder.to_str().unwrap();
        let options = ["-t", "tmpfs", "-o", "size=1m,mode=700", "none", path];
        if we_are_root() && succeeds("mount", &options) {
            Self::Small(folder)
        } else {
            Self::Limited(folder)
        }
    }

    fn limited_in(world: &World) -> Self {
        Self::Limited(world.folder().to_owned())
    }

    fn inbox(&self) -> PathBuf {
        let (Self::Small(folder) | Self::Limited(folder)) = self;
        folder.join("inbox.db")
    }

    fn fill(&self, service: &Service) {
        match self {
            Self::Small(folder) => {
                let mut ballast = fs::File::create(folder.join("ballast")).unwrap();
                while ballast.write_all(&[0; 512]).is_ok() {}
            }
            Self::Limited(_) => limit_files(service, "0:"),
        }
    }

    fn free(&self, service: &Service) {
        match self {
            Self::Small(folder) => fs::remove_file(folder.join("ballast")).unwrap(),
            Self::Limited(_) => limit_files(service, "unlimited:"),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Small(folder) = self {
            // The service may still be on its way out; lazily, so that nothing stays mounted.
            succeeds("umount", &["-l", folder.to_str().unwrap()]);
        }
    }
}

/// The soft limit of a running process: `size:`.
fn limit_files(service: &Service, size: &str) {
    let pid = service.program.pid().to_string();
    let limit = format!("--fsize={size}");
    assert!(succeeds("prlimit", &["--pid", &pid, &limit]), "{limit}");
}

async fn survives_a_full_disk(world: World, disk: Disk) {
    world.student(EMAIL);
    let mut bot = Bot::start().await;
    // A write beyond the limit is also signalled, which ends whoever does not ignore it; a real disk does not.
    let script = "trap '' XFSZ; exec \"$0\" serve";
    let launch = Launch::of(
        Path::new("/bin/sh"),
        world.folder(),
        &["-c", script, BINARY],
    )
    .settings(&world)
    .with(
        "DATABASE_URL",
        format!("sqlite://{}", disk.inbox().display()),
    )
    .with("TELEGRAM_BOT_TOKEN", "123456:token")
    .with("TELEGRAM_CHAT_ID", "-100500")
    .with("TELEGRAM_BASE_URL", &bot.url);
    let mut service = Service::launch(launch).await;
    let first = world.insert(&json!({}));
    assert_eq!(deliver(&service, first).await.status, 202);
    service.until_synced(first).await;

    disk.fill(&service);
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    while refused.len() < 3 {
        assert!(accepted.len() < 500, "the disk is not full");
        let email = format!("student{}@example.kz", accepted.len() + refused.len());
        world.student(&email);
        let row = world.insert(&json!({"email": email}));
        let answer = deliver(&service, row).await;
        match answer.status {
            202 => accepted.push(row),
            503 => {
                assert_eq!(answer.content_type, "application/problem+json");
                assert_eq!(answer.body["status"], 503);
                refused.push(row);
            }
            status => panic!("{status}"),
        }
    }
    let answer = ready(&service).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body["inbox"], "unavailable");
    until_ready_says(&service, |it| it.body["sync"]["state"] == "inbox").await;
    let metrics = service.metrics().await;
    for line in [
        "tripwire_inbox_accepts 0",
        "tripwire_sync_state{state=\"inbox\"} 1",
        "tripwire_sync_state{state=\"working\"} 0",
    ] {
        assert!(metrics.lines().any(|have| have == line), "{metrics}");
    }
    bot.until_said(InboxFault::Unwritable.hint(Lang::Russian))
        .await;

    disk.free(&service);
    until_ready_says(&service, |it| it.status == 200).await;
    bot.until_said("файл очереди снова записывается").await;

    let inbox = Inbox::open(&disk.inbox(), Role::Guest, Arc::new(SystemClock))
        .await
        .unwrap();
    for row in &refused {
        assert_eq!(inbox.entry(*row).await.unwrap(), None, "it was refused");
    }
    for row in &accepted {
        assert!(
            inbox.entry(*row).await.unwrap().is_some(),
            "it was accepted"
        );
    }
    for row in &refused {
        assert_eq!(deliver(&service, *row).await.status, 202);
    }
    until_drained(&inbox).await;
    inbox.close().await;
    service.stop().await.assert_code(0);
    for row in accepted.iter().chain(&refused) {
        let deal = world.column(*row, "amocrm_deal_id").unwrap();
        world.assert_noted_once(*row, DealId::new(deal.parse().unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_deliveries_and_is_noticed_when_it_is_freed() {
    let world = World::prepare(Wishes::default());
    let disk = Disk::small_in(&world);
    survives_a_full_disk(world, disk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_grow_refuses_deliveries_until_it_may() {
    let world = World::prepare(Wishes::default());
    let disk = Disk::limited_in(&world);
    survives_a_full_disk(world, disk).await;
}

// ---- a folder that is not ours, a file that is damaged ----

/// Starts it as somebody to whom modes apply, from where everybody may read it.
async fn serve_unprivileged(world: &World, inbox: &Path) -> Ended {
    fs::set_permissions(world.folder(), Permissions::from_mode(0o755)).unwrap();
    let launch = if we_are_root() {
        let binary = world.folder().join("tripwire-sync");
        fs::copy(BINARY, &binary).unwrap();
        fs::set_permissions(&binary, Permissions::from_mode(0o755)).unwrap();
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let command = [&nobody[..], &[binary.to_str().unwrap(), "serve"]].concat();
        Launch::of(Path::new("setpriv"), world.folder(), &command)
    } else {
        Launch::new(world.folder(), &["serve"])
    };
    launch
        .settings(world)
        .with("DATABASE_URL", format!("sqlite://{}", inbox.display()))
        .run()
        .await
}

#[tokio::test]
async fn a_folder_or_file_that_may_not_be_written_is_told_at_the_start() {
    let world = World::prepare(Wishes::default());
    let folder = world.folder().join("closed");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("there.db");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
    let deeper = folder.join("deeper").join("inbox.db");
    for inbox in [folder.join("inbox.db"), file, deeper] {
        let ended = serve_unprivileged(&world, &inbox).await;
        ended.assert_code(1);
        let line = format!("the inbox {} cannot be opened: ", inbox.display());
        let told = ended.err.lines().find(|have| have.contains(&line));
        assert!(
            told.is_some_and(|told| told.contains("ermission denied")),
            "{}",
            ended.err
        );
    }
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_damaged_inbox_keeps_no_start_from_taking_events_and_the_old_file_is_kept() {
    let world = World::prepare(Wishes::default());
    let path = world.inbox_path();
    let service = Service::start(&world).await;
    for _ in 0..40 {
        let row = world.insert(&json!({"email": null}));
        assert_eq!(deliver(&service, row).await.status, 202);
    }
    service.stop().await.assert_code(0);
    let whole = fs::read(&path).unwrap();

    let mut leaves = whole.clone();
    let middle = leaves.len() / 2 / 4096 * 4096;
    leaves[middle..middle + 4 * 4096].fill(0xA5);
    let mut head = whole.clone();
    head[..4096].fill(0xA5);
    let cut = whole[..whole.len() / 2].to_vec();
    for (what, bytes) in [("leaves", leaves), ("head", head), ("cut", cut)] {
        fs::write(&path, &bytes).unwrap();
        if what != "leaves" {
            let told = Launch::in_world(&world, &["entries"]).run().await;
            told.assert_code(1);
            assert!(
                told.err.contains("the file is damaged"),
                "{what}: {told:#?}"
            );
            assert_eq!(fs::read(&path).unwrap(), bytes, "{what}");
        }
        let service = Service::start(&world).await;
        let row = world.insert(&json!({"email": null}));
        assert_eq!(deliver(&service, row).await.status, 202, "{what}");
        assert_eq!(service.program.count_logged("inbox.replaced", |_| true), 1);
        service.stop().await.assert_code(0);
        let names = fs::read_dir(world.folder()).unwrap();
        let names = names.map(|file| file.unwrap().path());
        let is_kept = |path: &PathBuf| {
            path.to_str().unwrap().contains(".damaged-") && fs::read(path).unwrap() == bytes
        };
        assert_eq!(
            names.filter(is_kept).count(),
            1,
            "{what}: nothing is made worse"
        );
    }
    fs::write(&path, &whole).unwrap();
    Service::start(&world).await.stop().await.assert_code(0);
}

// ---- clients that dawdle ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_dribbling_clients_do_not_keep_two_hundred_deliveries_waiting() {
    const IDLE: usize = 500;
    const DRIBBLING: usize = 50;
    let world = World::prepare(Wishes {
        hold: true,
        ..Wishes::default()
    });
    let service = Service::start(&world).await;
    let address = service.url.strip_prefix("http://").unwrap().to_owned();
    let connect = || TcpStream::connect(&address).unwrap();
    let idle: Vec<TcpStream> = (0..IDLE).map(|_| connect()).collect();
    let dribbling: Vec<TcpStream> = (0..DRIBBLING).map(|_| connect()).collect();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let dribbler = std::thread::spawn(move || {
        let head = b"POST /webhooks/supabase HTTP/1.1\r\nhost: example.kz\r\nx: ";
        let mut bytes = head.iter().copied().chain(std::iter::repeat(b'x'));
        while stopped.recv_timeout(Duration::from_millis(50))
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            let byte = [bytes.next().unwrap()];
            for mut client in &dribbling {
                // It may have been cut off.
                drop(client.write(&byte));
            }
        }
        dribbling
    });

    let rows: Vec<RowId> = (0..200).map(|_| world.insert(&json!({}))).collect();
    let answers = join_all(rows.iter().map(|row| deliver(&service, *row))).await;
    assert!(answers.iter().all(|answer| answer.status == 202));

    // Whoever dribbles on is cut off before long.
    let began = Instant::now();
    stop.send(()).unwrap();
    let mut dribbling = dribbler.join().unwrap();
    let client = &mut dribbling[0];
    client
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    let mut rest = Vec::new();
    // A reset says the same as an end.
    let ended = client.read_to_end(&mut rest);
    assert!(
        ended.is_ok() || ended.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock),
        "still connected after {:?}",
        began.elapsed()
    );
    assert!(!String::from_utf8_lossy(&rest).contains(" 202 "));
    drop(idle);
    service.stop().await.assert_code(0);
}
