//! What systemd hears of the real process, over a real socket.

use std::{os::unix::net::UnixDatagram, path::PathBuf, sync::Mutex};

use jiff::Timestamp;
use serde_json::json;
use tripwire_sync::inbox::PAUSED;

use crate::{
    program::{Launch, Service},
    support::{NowForTests, PATIENCE, Wishes, World},
};

/// The socket that systemd would listen at.
struct Systemd {
    path: PathBuf,
    socket: UnixDatagram,
    heard: Mutex<Vec<String>>,
}

impl Systemd {
    fn listen(world: &World) -> Self {
        let path = world.folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let heard = Mutex::default();
        Self {
            path,
            socket,
            heard,
        }
    }

    fn launch(&self, world: &World) -> Launch {
        Launch::in_world(world, &["serve"])
            .with("NOTIFY_SOCKET", self.path.display())
            .with("WATCHDOG_USEC", 180_000_000)
    }

    /// Waits for this message.
    fn until(&self, message: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length = self.socket.recv(&mut buffer).unwrap();
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            self.heard
                .lock()
                .unwrap()
                .extend(lines.iter().map(|&line| line.to_owned()));
            if lines.contains(&message) {
                return;
            }
        }
    }

    /// Everything until now, also what was not waited for.
    fn all(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            let mut heard = self.heard.lock().unwrap();
            heard.extend(text.lines().map(str::to_owned));
        }
        self.heard.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_hears_readiness_each_state_the_loops_and_the_stop() {
    let world = World::prepare(Wishes::default());
    let systemd = Systemd::listen(&world);
    let service = Service::launch(systemd.launch(&world)).await;
    systemd.until("READY=1");
    systemd.until("STATUS=working");
    systemd.until("WATCHDOG=1");

    let guest = world.guest().await;
    guest
        .set_state(PAUSED, &Timestamp::now_for_tests())
        .await
        .unwrap();
    guest.close().await;
    systemd.until("STATUS=paused");
    // The engine comes round again for a new row.
    let row = world.insert(&json!({}));
    assert_eq!(service.deliver(&world, row).await, Some(202));
    systemd.until("WATCHDOG=1");

    service.stop().await.assert_code(0);
    let heard = systemd.all();
    assert_eq!(
        heard.first().map(String::as_str),
        Some("READY=1"),
        "{heard:?}"
    );
    let last = heard.iter().rposition(|line| line == "STOPPING=1");
    assert!(last.is_some(), "{heard:?}");
    assert_eq!(heard.iter().filter(|line| *line == "READY=1").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_that_hangs_sends_no_further_sign_of_life() {
    for hang_at in ["writer", "engine"] {
        let world = World::prepare(Wishes::default());
        let systemd = Systemd::listen(&world);
        let ended = systemd
            .launch(&world)
            .with("TRIPWIRE_HANG_AT", hang_at)
            .run()
            .await;
        ended.assert_code(1);
        let heard = systemd.all();
        let signs = heard.iter().filter(|line| *line == "WATCHDOG=1").count();
        // The writer comes round once before it hangs; 120 ticks follow.
        assert!(signs <= 1, "{hang_at}: {heard:?}");
        assert!(heard.iter().any(|line| line == "READY=1"), "{heard:?}");
    }
}
