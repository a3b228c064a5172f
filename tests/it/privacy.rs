//! Nothing that the service shows or stores has a student's data or a secret in it, after a day on which all happens.

mod search;

use std::{fmt::Write as _, fs, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use reqwest::{Client, Method, RequestBuilder};
use sandbox::{Fault, Kind, Point, PostgrestQuirks, When, scenario::Missing};
use serde_json::{Value, json};
use tripwire_sync::domain::RowId;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

use self::search::{Haystack, Needle};
use crate::{
    check::set_up,
    program::{Ended, Launch, Service},
    support::{NowForTests, PATIENCE, SECRET, Wishes, World},
};

const AMOCRM_TOKEN: &str = "amocrm-token-Kq3vXw81";
const SUPABASE_KEY: &str = "sb_secret_Yt5nRb72";
const SUPABASE_JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoidHJpcHdpcmVfc3luYyJ9.c2lnLVVtNng";
const BEARER: &str = "bearer-of-the-dashboard-Jf8cLp06";
const BOT: &str = "987654321:AA-bot-Wz2gMs39";
const WATCHER: &str = "push-Nd7hTk45";
/// A signature that no secret has made.
const GUESSED: &str = "v1,Z3Vlc3NlZC1ieS1hLXN0cmFuZ2Vy";

/// The second day is told in more detail, and does not make missing contacts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_day_on_which_all_happens_no_personal_data_and_no_secret_can_be_found() {
    let days = [("info", Missing::Create), ("debug", Missing::Wait)];
    let needles = needles();
    for haystack in join_all(days.map(|(level, missing)| day(level, missing)))
        .await
        .into_iter()
        .flatten()
    {
        haystack.assert_free_of(&needles);
    }
}

/// Parts that all students of this file have in common, and all secrets.
fn needles() -> Vec<Needle> {
    let of_students = [
        "Snezhana.Iglova",
        "Снежана",
        "Иглова",
        "7019988",
        "701 998 8",
        "701-998-8",
        "pass-Hq9s",
    ];
    let of_neighbours = [AMOCRM_TOKEN, SUPABASE_KEY, SUPABASE_JWT];
    let of_ours = [BEARER, BOT, WATCHER, SECRET.trim_start_matches("whsec_")];
    let texts = [&of_students[..], &of_neighbours, &of_ours].concat();
    texts.into_iter().map(Needle::new).collect()
}

fn student(number: usize) -> Value {
    json!({
        "email": format!("Snezhana.Iglova.{number}@example.kz"),
        "full_name": format!("Снежана «{number}» Иглова"),
        "phone": format!("+7 701 998 80 0{number}"),
        "generated_password": format!("pass-Hq9s-{number}"),
    })
}

/// A service with every feature on, and all that it shows.
struct Day {
    world: World,
    service: Service,
    level: &'static str,
    http: Client,
    telegram: MockServer,
    watcher: MockServer,
    /// What strangers are answered, and what the metrics' address says.
    answers: String,
    /// What commands print.
    printed: String,
    students: usize,
}

/// Everything that a day leaves behind.
async fn day(level: &'static str, missing: Missing) -> Vec<Haystack> {
    let mut day = Day::begin(level, missing).await;
    day.of_students(missing).await;
    day.of_refusals().await;
    day.of_a_halt().await;
    day.of_a_pause().await;
    day.of_commands().await;
    day.of_strangers().await;
    day.end().await
}

impl Day {
    async fn begin(level: &'static str, missing: Missing) -> Self {
        let world = World::prepare(Wishes {
            missing,
            since: "2026-01-01T00:00:00Z".parse().unwrap(),
            sweep_every: Some(Duration::from_secs(1)),
            note: "{full_name} {email} {phone} {generated_password}",
            postgrest: PostgrestQuirks {
                key: SUPABASE_KEY.to_owned(),
                jwt: Some(SUPABASE_JWT.to_owned()),
                ..PostgrestQuirks::default()
            },
            ..Wishes::default()
        });
        world.sandbox.amo.set_token(AMOCRM_TOKEN);
        set_up(&world);
        let (telegram, watcher) = (listener().await, listener().await);
        let launch = launch(&world, &["serve"], &telegram, &watcher);
        let service = Service::launch(launch.with("RUST_LOG", level)).await;
        Self {
            world,
            service,
            level,
            http: Client::builder().no_proxy().build().unwrap(),
            telegram,
            watcher,
            answers: String::new(),
            printed: String::new(),
            students: 0,
        }
    }

    /// A student's row.
    fn insert(&mut self, columns: &Value) -> RowId {
        let mut row = student(self.students);
        self.students += 1;
        for (name, value) in columns.as_object().unwrap() {
            row[name] = value.clone();
        }
        self.world.insert(&row)
    }

    /// A row of a student whose deal waits.
    fn insert_with_deal(&mut self, columns: &Value) -> RowId {
        let student = student(self.students);
        let text = |name: &str| student[name].as_str().unwrap().to_owned();
        let (name, email, phone) = (text("full_name"), text("email"), text("phone"));
        let setting = &self.world.setting;
        self.world.sandbox.amo.world(|account| {
            let contact = account.add_contact(&name, &[&email], &[&phone]);
            account.add_deal(&[contact], setting.pipeline, setting.before[0], &name);
        });
        self.insert(columns)
    }

    async fn deliver(&self, row: RowId) {
        let status = self.service.deliver(&self.world, row).await;
        assert_eq!(status, Some(202));
    }

    async fn until_attempted(&mut self, row: RowId, outcome: &str) {
        let row = row.to_string();
        let is_it = |line: &Value| line["row.id"] == row.as_str() && line["outcome"] == outcome;
        self.service
            .program
            .until_logged("sync.attempt", is_it)
            .await;
    }

    /// Rows of every kind, however the service hears of them.
    async fn of_students(&mut self, missing: Missing) {
        let told = self.insert_with_deal(&json!({}));
        self.deliver(told).await;
        self.until_attempted(told, "synced").await;
        let unheard = self.insert_with_deal(&json!({}));
        self.until_attempted(unheard, "synced").await;

        // The dashboard's own webhook tells the whole row.
        let row = self.insert_with_deal(&json!({}));
        let record = self.world.sandbox.postgrest.row(row).unwrap();
        let request = self.post(&json!({
            "type": "INSERT", "table": "tripwire_users", "schema": "public", "record": record, "old_record": null,
        }));
        let answer = request.bearer_auth(BEARER).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        self.until_attempted(row, "synced").await;

        let without_contact = self.insert(&json!({}));
        self.deliver(without_contact).await;
        let outcome = match missing {
            Missing::Create => "synced",
            Missing::Wait => "waiting",
        };
        self.until_attempted(without_contact, outcome).await;
        let too_old = self.insert_with_deal(&json!({ "created_at": "2025-06-01T00:00:00Z" }));
        self.deliver(too_old).await;
        self.until_attempted(too_old, "too_old").await;
        let email = "Снежана Иглова, 701-998-80-99";
        let unusable = self.insert(&json!({ "email": email }));
        self.deliver(unusable).await;
        self.until_attempted(unusable, "parked").await;
    }

    /// Both neighbours fail, with answers that quote the request.
    async fn of_refusals(&mut self) {
        let rejected = Kind::BulkRejected {
            others_applied: false,
            bad_index: 0,
        };
        let faults = self.world.sandbox.faults();
        for (at, kind) in [
            (Point::amo("contacts.search"), Kind::Reset(When::Before)),
            (Point::amo("leads.list"), Kind::MalformedJson),
            (Point::amo("leads.update"), rejected),
            (Point::amo("notes.create"), Kind::HtmlOk),
            (Point::postgrest("rows.update"), Kind::Reset(When::Before)),
        ] {
            faults.add(Fault::once(at, kind));
        }
        let row = self.insert_with_deal(&json!({}));
        self.deliver(row).await;
        self.until_attempted(row, "synced").await;
        let unmet = self.world.sandbox.faults().unmet();
        assert!(unmet.is_empty(), "{unmet:?}");
    }

    async fn of_a_halt(&mut self) {
        self.world.sandbox.amo.set_token("another-token");
        let row = self.insert_with_deal(&json!({}));
        self.deliver(row).await;
        self.service.until_sync_is("halted").await;
        self.look_from_outside().await;
        self.until_telegram_has_said(2).await;
        self.world.sandbox.amo.set_token(AMOCRM_TOKEN);
        self.run(&["resume"]).await;
        self.until_attempted(row, "synced").await;
        // That it is over.
        self.until_telegram_has_said(3).await;
    }

    async fn of_a_pause(&mut self) {
        self.run(&["pause"]).await;
        self.service.until_sync_is("paused").await;
        let row = self.insert_with_deal(&json!({}));
        self.deliver(row).await;
        self.look_from_outside().await;
        self.run(&["resume"]).await;
        self.until_attempted(row, "synced").await;
    }

    async fn of_commands(&mut self) {
        let row = self.insert_with_deal(&json!({}));
        self.deliver(row).await;
        self.until_attempted(row, "synced").await;
        let email = student(self.students - 1)["email"]
            .as_str()
            .unwrap()
            .to_owned();
        let row = row.to_string();
        for args in [
            &["backfill", "--yes", "--since", "2025-01-01", "--json"][..],
            &["check"],
            &["entries"],
            &["entries", "--json"],
            &["explain", &row],
            &["explain", &email],
            &["explain", &email, "--json"],
            &["backup", "copy.db"],
            &["pipelines"],
            &["retry", "--parked"],
            &["forget", &email],
            &[
                "setup-sql",
                "--url",
                "https://sync.example.org/webhooks/supabase",
            ],
        ] {
            self.run(args).await;
        }
    }

    /// Requests that cannot prove their sender, with a student's data wherever there is a place for it.
    async fn of_strangers(&mut self) {
        let body = student(0);
        let email = body["email"].as_str().unwrap().to_owned();
        let signed = |request: RequestBuilder, id: &str, signature: &str| {
            let now = Timestamp::now_for_tests().as_second().to_string();
            let request = request.header("webhook-id", id);
            request
                .header("webhook-timestamp", now)
                .header("webhook-signature", signature)
        };
        let long = json!({ "record": "Иглова".repeat(10_000) });
        for request in [
            self.post(&body),
            signed(self.post(&body), "msg_1", GUESSED),
            signed(self.post(&body), &email, GUESSED),
            signed(self.post(&body), "msg_2", &email),
            self.post(&body).bearer_auth(&email),
            self.post(&body).bearer_auth(BEARER),
            self.post(&long).bearer_auth(BEARER),
            self.post(&body).header("content-type", "text/plain"),
            self.post(&body)
                .bearer_auth(BEARER)
                .body(format!("{{{email}")),
            self.http.get(format!("{}/{email}", self.service.url)),
            self.http
                .get(format!("{}/admin?email={email}", self.service.url))
                .bearer_auth(&email),
        ] {
            self.ask(request).await;
        }
        self.look_from_outside().await;
    }

    /// What a stranger is answered, and what the metrics' address says.
    async fn look_from_outside(&mut self) {
        let Service {
            url, metrics_url, ..
        } = &self.service;
        let paths = ["/", "/healthz", "/readyz", "/metrics", "/nowhere"];
        let mut requests = Vec::new();
        for base in [url, metrics_url] {
            requests.extend(paths.map(|path| self.http.get(format!("{base}{path}"))));
        }
        let delete = format!("{url}/webhooks/supabase");
        requests.push(self.http.request(Method::DELETE, delete));
        for request in requests {
            self.ask(request).await;
        }
    }

    async fn ask(&mut self, request: RequestBuilder) {
        let answer = request.send().await.unwrap();
        let head = format!("{} {:?}\n", answer.status(), answer.headers());
        self.answers += &head;
        self.answers += &answer.text().await.unwrap();
    }

    fn post(&self, body: &Value) -> RequestBuilder {
        let url = format!("{}/webhooks/supabase", self.service.url);
        let request = self
            .http
            .post(url)
            .header("content-type", "application/json");
        request.body(body.to_string())
    }

    async fn run(&mut self, args: &[&str]) {
        let launch = launch(&self.world, args, &self.telegram, &self.watcher);
        let ended = launch.run().await;
        ended.assert_code(0);
        self.printed += &ended.words();
    }

    async fn until_telegram_has_said(&self, messages: usize) {
        let said = async {
            while received(&self.telegram).await.len() < messages {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let said = tokio::time::timeout(PATIENCE, said).await;
        assert!(said.is_ok(), "{:?}", received(&self.telegram).await);
    }

    /// The service stops, and another process of it works through a whole day in which nothing comes.
    async fn end(self) -> Vec<Haystack> {
        let Self {
            world,
            service,
            level,
            telegram,
            watcher,
            answers,
            printed,
            ..
        } = self;
        let file = |name: &str| fs::read(world.folder().join(name)).unwrap();
        let open = [file("inbox.db"), file("inbox.db-wal")].concat();
        let Ended { err: by_day, .. } = service.stop().await;
        let by_night = night(&world, level, &telegram, &watcher).await;

        let mut kept = Vec::new();
        for entry in fs::read_dir(world.folder()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                kept.extend(fs::read(path).unwrap());
            }
        }
        let haystack = |what: &str, bytes: &[u8]| Haystack::new(format!("{what}, {level}"), bytes);
        let haystacks = vec![
            haystack("the log", by_day.as_bytes()),
            haystack("the log of the night", by_night.as_bytes()),
            haystack("answers", answers.as_bytes()),
            haystack("what commands print", printed.as_bytes()),
            haystack(
                "Telegram",
                received_without(&telegram, BOT).await.as_bytes(),
            ),
            haystack(
                "the watcher",
                received_without(&watcher, WATCHER).await.as_bytes(),
            ),
            haystack("the open inbox", &open),
            haystack("all files", &kept),
        ];
        for (haystack, text) in haystacks.iter().zip([
            "sync.halted",
            "service.started",
            "problem+json",
            "synced",
            "отложено",
            "user-agent",
            "bearer-",
            "bearer-",
        ]) {
            haystack.assert_holds(text);
        }
        haystacks[2].assert_holds("tripwire_insert_to_write_back_seconds_count");
        let noted = world.sandbox.amo.world(|account| {
            let mut notes = account.notes();
            notes.any(|note| note.text.contains("pass-Hq9s"))
        });
        assert!(noted, "the data went where it belongs");
        prove_that_files_are_searched(&world).await;
        haystacks
    }
}

/// A day of the engine in a quarter of a minute: the pipeline is inspected each hour.
async fn night(world: &World, level: &str, telegram: &MockServer, watcher: &MockServer) -> String {
    let hours = world.asked("pipelines.list") + 24;
    let launch = launch(world, &["serve"], telegram, watcher)
        .with("RUST_LOG", level)
        .with("RECONCILE_INTERVAL", "0")
        .with("TRIPWIRE_TIME_SCALE", 0.000_2);
    let service = Service::launch(launch).await;
    world.until_asked("pipelines.list", hours, |_| true).await;
    service.stop().await.err
}

/// A value that is stored in the inbox is found in its files.
async fn prove_that_files_are_searched(world: &World) {
    let inbox = world.guest().await;
    for needle in needles() {
        inbox.set_state("planted", &needle.text()).await.unwrap();
        let log = fs::read(world.folder().join("inbox.db-wal")).unwrap();
        let planted = Haystack::new("the open inbox", &log);
        assert!(needle.is_in(&planted), "{needle:?}");
    }
    inbox.close().await;
}

fn launch(world: &World, args: &[&str], telegram: &MockServer, watcher: &MockServer) -> Launch {
    let missing = match world.wishes.missing {
        Missing::Create => "create",
        Missing::Wait => "wait",
    };
    Launch::in_world(world, args)
        .with("AMOCRM_MISSING_CONTACT", missing)
        .with("SUPABASE_JWT", SUPABASE_JWT)
        .with("WEBHOOK_BEARER_TOKEN", BEARER)
        .with("TELEGRAM_BOT_TOKEN", BOT)
        .with("TELEGRAM_CHAT_ID", "-100500")
        .with("TELEGRAM_BASE_URL", telegram.uri())
        .with("HEARTBEAT_URL", format!("{}/{WATCHER}", watcher.uri()))
        .with("AMOCRM_ACCESS_TOKEN", AMOCRM_TOKEN)
}

/// A server that agrees to everything and keeps what it is told.
async fn listener() -> MockServer {
    let server = MockServer::start().await;
    let agreed = ResponseTemplate::new(200)
        .set_body_json(json!({ "ok": true, "result": { "username": "bot", "id": -100_500 } }));
    Mock::given(any()).respond_with(agreed).mount(&server).await;
    server
}

async fn received(server: &MockServer) -> Vec<wiremock::Request> {
    server.received_requests().await.unwrap()
}

/// All that it was told, but for the secret that must be in the path of each request.
async fn received_without(server: &MockServer, secret: &str) -> String {
    let mut told = String::new();
    for request in received(server).await {
        let path = request.url.path().replacen(secret, "", 1);
        assert_ne!(path, request.url.path(), "{request:?}");
        let query = request.url.query();
        let body = String::from_utf8_lossy(&request.body);
        let headers = request.headers;
        writeln!(told, "{path} {query:?} {headers:?} {body}").unwrap();
    }
    told
}
