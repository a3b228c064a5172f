//! An outside watcher hears of the service only while all is well.

use std::{sync::Arc, time::Duration};

use actix_web::{App, HttpResponse, HttpServer, http::header::LOCATION, web};
use serde_json::json;
use tokio::sync::watch;
use tripwire_sync::{
    app::{OutsideWatcher, Settings},
    inbox::PAUSED,
};

use crate::support::{PATIENCE, Wishes, World};

/// A server that counts how often it is asked, and answers with a redirect if it is told to.
struct Watcher {
    url: String,
    asked: watch::Receiver<Asked>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    heartbeats: usize,
    followed: usize,
}

impl Watcher {
    fn start(redirects: bool) -> Self {
        let (asked, receiver) = watch::channel(Asked::default());
        let asked = web::Data::from(Arc::new(asked));
        let server = HttpServer::new(move || {
            let heartbeat = move |asked: web::Data<watch::Sender<Asked>>| async move {
                asked.send_modify(|asked| asked.heartbeats += 1);
                if redirects {
                    let elsewhere = (LOCATION, "/elsewhere");
                    return HttpResponse::Found().insert_header(elsewhere).finish();
                }
                HttpResponse::Ok().finish()
            };
            let elsewhere = |asked: web::Data<watch::Sender<Asked>>| async move {
                asked.send_modify(|asked| asked.followed += 1);
                HttpResponse::Ok().finish()
            };
            App::new()
                .app_data(asked.clone())
                .route("/push/secret-id", web::get().to(heartbeat))
                .route("/elsewhere", web::get().to(elsewhere))
        });
        let server = server.workers(1).disable_signals();
        let server = server.bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/push/secret-id?status=up", server.addrs()[0]);
        tokio::spawn(server.run());
        Self {
            url,
            asked: receiver,
        }
    }

    async fn until_asked(&mut self, times: usize) {
        let wait = self.asked.wait_for(|asked| asked.heartbeats >= times);
        let wait = tokio::time::timeout(PATIENCE, wait).await;
        assert!(wait.is_ok(), "it is not asked for the time number {times}");
    }

    fn settings(&self, world: &World) -> Settings {
        Settings {
            outside_watcher: Some(OutsideWatcher {
                url: self.url.as_str().into(),
                every: Duration::from_millis(2),
            }),
            ..world.settings()
        }
    }
}

/// Has the engine come round.
async fn deliver(world: &World) {
    let row = world.insert(&json!({}));
    assert_eq!(world.deliver(row).await, 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watcher_is_told_again_and_again_while_the_engine_comes_round() {
    let mut watcher = Watcher::start(false);
    let mut world = World::prepare(Wishes::brisk());
    world.launch_with(watcher.settings(&world)).await;
    for times in 1..=3 {
        watcher.until_asked(times).await;
        deliver(&world).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_silence_until_the_resume() {
    let mut watcher = Watcher::start(false);
    let mut world = World::prepare(Wishes::brisk());
    let paused_at = jiff::Timestamp::UNIX_EPOCH;
    world.launch().await;
    world.inbox().set_state(PAUSED, &paused_at).await.unwrap();
    world.stop().await;

    world.launch_with(watcher.settings(&world)).await;
    world.until_sync_is("paused").await;
    for _ in 0..3 {
        deliver(&world).await;
    }
    assert_eq!(watcher.asked.borrow().heartbeats, 0);
    world.inbox().clear_state(PAUSED).await.unwrap();
    watcher.until_asked(1).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_sends_nothing_is_silent() {
    let watcher = Watcher::start(false);
    let mut world = World::prepare(Wishes {
        hold: true,
        ..Wishes::brisk()
    });
    world.launch_with(watcher.settings(&world)).await;
    world.until_sync_is("holding").await;
    for _ in 0..3 {
        deliver(&world).await;
    }
    world.stop().await;
    assert_eq!(watcher.asked.borrow().heartbeats, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed() {
    let mut watcher = Watcher::start(true);
    let mut world = World::prepare(Wishes::brisk());
    world.launch_with(watcher.settings(&world)).await;
    for times in 1..=2 {
        watcher.until_asked(times).await;
        deliver(&world).await;
    }
    world.stop().await;
    assert_eq!(watcher.asked.borrow().followed, 0);
}
