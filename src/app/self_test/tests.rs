//! Test events under a clock that a test sets, before a stand-in of the database's functions.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

use super::*;
use crate::{
    domain::{Clock as _, EventFailure, Events, RowId, TestClock},
    inbox::{Arrival, Role, Source},
    supabase::{LARGEST_ANSWER, Settings},
    sync::rules::timings::Timings,
};

const MINUTE: Duration = Duration::from_mins(1);

/// What the database answers.
#[derive(Debug, Clone)]
struct Database {
    has_functions: bool,
    /// What `pg_net` noted.
    status: u16,
    trigger: Value,
}

struct Scene {
    database: Arc<Mutex<Database>>,
    /// Test events that were asked for.
    asked: Arc<AtomicUsize>,
    clock: Arc<TestClock>,
    started: Timestamp,
    parts: Parts,
    test: SelfTest,
    rows: u128,
    _server: MockServer,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new(daily: bool) -> Self {
        outbound::install_crypto_provider();
        let good = json!({ "present": true, "enabled": true, "ours": true });
        let database = Arc::new(Mutex::new(Database {
            has_functions: true,
            status: 200,
            trigger: good,
        }));
        let asked = Arc::new(AtomicUsize::new(0));
        let server = MockServer::start().await;
        let responder = {
            let (database, asked) = (Arc::clone(&database), Arc::clone(&asked));
            let nonce = Mutex::new(Value::Null);
            move |request: &Request| {
                let database = database.lock().unwrap().clone();
                let answer =
                    |status, body: Value| ResponseTemplate::new(status).set_body_json(body);
                if !database.has_functions {
                    return answer(404, json!({ "code": "PGRST202", "message": "no function" }));
                }
                match request.url.path().rsplit('/').next().unwrap() {
                    "tripwire_sync_test_event" => {
                        asked.fetch_add(1, Ordering::Relaxed);
                        let body: Value = request.body_json().unwrap();
                        *nonce.lock().unwrap() = body["nonce"].clone();
                        answer(200, json!(7))
                    }
                    "tripwire_sync_test_result" => {
                        let content = json!({ "status": "test", "nonce": *nonce.lock().unwrap() });
                        let result = json!({
                            "state": "answered", "status": database.status, "timed_out": false,
                            "error": null, "content": content.to_string(),
                        });
                        answer(200, result)
                    }
                    _ => answer(200, json!({ "version": 2, "trigger": database.trigger })),
                }
            }
        };
        Mock::given(any())
            .respond_with(responder)
            .mount(&server)
            .await;

        let clock = TestClock::at("2026-11-22T10:00:00Z".parse().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.db");
        let settings = Settings {
            project_url: server.uri().parse().unwrap(),
            key: "key".into(),
            jwt: None,
            note_columns: Vec::new(),
            largest_answer: LARGEST_ANSWER,
            connect_timeout: MINUTE,
            timeout: MINUTE,
            extra_roots: Vec::new(),
        };
        Self {
            database,
            asked,
            started: clock.now(),
            parts: Parts {
                inbox: Inbox::open(&path, Role::Owner, clock.clone())
                    .await
                    .unwrap(),
                supabase: Supabase::new(settings, clock.clone()).unwrap(),
                clock: clock.clone(),
                lease: Lease::alone(&Timings::default(), clock.clone()),
                stop: CancellationToken::new(),
            },
            clock,
            test: SelfTest {
                daily,
                takes_bearer: false,
                timings: EventTestTimings::scaled(1.0, Duration::ZERO),
            },
            rows: 0,
            _server: server,
            _folder: folder,
        }
    }

    fn database(&self, change: impl FnOnce(&mut Database)) {
        change(&mut self.database.lock().unwrap());
    }

    /// Rows that a sweep finds a second later.
    async fn find(&mut self, count: u128) {
        self.clock.advance(Duration::from_secs(1));
        let rows = self.rows..self.rows + count;
        self.rows += count;
        let arrival = |n| Arrival {
            row: RowId::new(uuid::Uuid::from_u128(n)),
            source: Source::Sweep,
        };
        let arrivals = rows.map(arrival).collect();
        self.parts.inbox.store(arrivals).await.unwrap();
    }

    /// Answers how many test events were asked for, and the trouble that is known then.
    async fn look_after(&self, pause: Duration) -> (usize, Option<EventFailure>) {
        self.clock.advance(pause);
        self.test.look(&self.parts, self.started).await.unwrap();
        let tests: Option<EventTests> = self.parts.inbox.state(EVENT_TESTS).await.unwrap();
        let asked = self.asked.swap(0, Ordering::Relaxed);
        let shown = tests.map(|tests| tests.shown(None, Timestamp::MIN));
        (asked, shown.and_then(Events::failure))
    }

    async fn fault_after(&self, pause: Duration) -> Option<EventFault> {
        let (asked, trouble) = self.look_after(pause).await;
        assert_eq!(asked, 1);
        trouble.map(|trouble| trouble.fault)
    }
}

#[actix_web::test]
async fn three_silent_rows_and_a_failed_test_event_are_trouble_until_one_arrives() {
    let mut scene = Scene::new(false).await;
    scene.database(|it| it.status = 401);
    scene.find(2).await;
    assert_eq!(scene.look_after(3 * MINUTE).await, (0, None));
    scene.find(1).await;
    // Its event may still come.
    assert_eq!(scene.look_after(MINUTE).await, (0, None));

    let fault = scene.fault_after(MINUTE).await;
    assert_eq!(fault, Some(EventFault::Refused(401)));

    let (asked, trouble) = scene.look_after(29 * MINUTE).await;
    assert_eq!((asked, trouble.is_some()), (0, true));
    scene.database(|it| it.status = 200);
    assert_eq!(scene.fault_after(MINUTE).await, None);
    assert_eq!(scene.look_after(100 * 24 * 60 * MINUTE).await, (0, None));
}

#[actix_web::test]
async fn silent_rows_are_no_trouble_while_test_events_arrive() {
    let mut scene = Scene::new(false).await;
    scene.find(3).await;
    assert_eq!(scene.fault_after(5 * MINUTE).await, None);
    // These rows are known; others ask again.
    assert_eq!(scene.look_after(20 * MINUTE).await, (0, None));
    scene.find(3).await;
    assert_eq!(scene.fault_after(5 * MINUTE).await, None);
}

#[actix_web::test]
async fn a_daily_test_event_that_fails_twice_is_trouble() {
    let scene = Scene::new(true).await;
    assert_eq!(scene.fault_after(5 * MINUTE).await, None);
    assert_eq!(scene.look_after(23 * 60 * MINUTE).await, (0, None));
    scene.database(|it| it.status = 503);
    assert_eq!(scene.fault_after(60 * MINUTE).await, None);
    assert_eq!(scene.look_after(29 * MINUTE).await, (0, None));
    let fault = scene.fault_after(MINUTE).await;
    assert_eq!(fault, Some(EventFault::Refused(503)));
}

#[actix_web::test]
async fn a_missing_trigger_is_a_fault_though_the_test_event_arrives() {
    let mut scene = Scene::new(false).await;
    scene.find(3).await;
    scene.database(|it| it.trigger = json!({ "present": true, "enabled": false, "ours": true }));
    let fault = scene.fault_after(5 * MINUTE).await;
    assert_eq!(fault, Some(EventFault::NoTrigger));
}

#[actix_web::test]
async fn a_database_without_the_functions_is_no_trouble() {
    let mut scene = Scene::new(true).await;
    scene.database(|it| it.has_functions = false);
    scene.find(3).await;
    for _ in 0..3 {
        assert_eq!(scene.look_after(24 * 60 * MINUTE).await, (0, None));
    }
}
