//! Over real HTTP, on a real inbox.

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use actix_web::dev::ServerHandle;
use futures::future::join_all;
use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use super::{signature::sign, *};
use crate::{
    domain::{HaltCause, RowId, TestClock, WebhookSecret},
    inbox::{Role, State, Sweep},
};

const SECRET: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=";
const OTHER_SECRET: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMi0wMDAyLTAwMDI=";
const TOKEN: &str = "token-of-the-dashboard";
const TOLERANCE: Duration = Duration::from_mins(5);
const WEBHOOK: &str = "/webhooks/supabase";

/// The server with an empty inbox in a temporary folder, and a clock that stands still.
struct Service {
    address: SocketAddr,
    client: Client,
    inbox: Inbox,
    now: Timestamp,
    clock: Arc<TestClock>,
    engine: watch::Sender<SyncState>,
    hangs: Arc<AtomicBool>,
    server: ServerHandle,
    _folder: TempDir,
}

impl Service {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = "2026-11-22T10:00:00Z".parse().unwrap();
        let clock = TestClock::at(now);
        let path = folder.path().join("inbox.db");
        let inbox = Inbox::open(&path, Role::Owner, clock.clone())
            .await
            .unwrap();
        let (engine, sync_status) = watch::channel(SyncState::Working);
        let hangs = Arc::new(AtomicBool::new(false));
        let state = HttpState {
            hangs: Arc::clone(&hangs),
            inbox: inbox.clone(),
            verifier: Verifier {
                secrets: vec![secret(SECRET)],
                token: Some(TOKEN.into()),
                tolerance: TOLERANCE,
            },
            clock: clock.clone(),
            sync_status,
            refusals: RefusalLog::start(),
        };

        let listener = bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let server = serve(listener, state, 2, |_| {}).unwrap();
        let handle = server.handle();
        tokio::spawn(server);
        Self {
            address,
            client: client(),
            inbox,
            now,
            clock,
            engine,
            hangs,
            server: handle,
            _folder: folder,
        }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    fn post(&self, body: &str) -> RequestBuilder {
        self.client
            .post(format!("http://{}{WEBHOOK}", self.address))
            .header("content-type", "application/json")
            .body(body.to_owned())
    }

    fn signed_at(&self, timestamp: Timestamp, body: &str) -> RequestBuilder {
        let signature = sign(&secret(SECRET), "msg_1", timestamp, body.as_bytes());
        self.post(body)
            .header("webhook-id", "msg_1")
            .header("webhook-timestamp", timestamp.as_second())
            .header("webhook-signature", signature)
    }

    fn signed(&self, body: &str) -> RequestBuilder {
        self.signed_at(self.now, body)
    }

    fn with_token(&self, body: &str) -> RequestBuilder {
        self.post(body).bearer_auth(TOKEN)
    }

    /// The head of a signed delivery, as it goes over the wire.
    fn signed_head(&self, body: &str) -> String {
        let request = self.signed(body).build().unwrap();
        let headers = request.headers().iter();
        let headers =
            headers.map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
        format!(
            "POST {WEBHOOK} HTTP/1.1\r\nhost: x\r\n{}content-length: {}\r\n\r\n",
            headers.collect::<String>(),
            body.len()
        )
    }

    /// Serves the pages beside the public port, with one delivery counted.
    fn metrics_page(&self) -> SocketAddr {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("tripwire_webhooks_total", "outcome" => "accepted").increment(1);
        });
        let listener = bind((std::net::Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let page = MetricsPage {
            handle: recorder.handle(),
            inbox: self.inbox.clone(),
            clock: self.clock.clone(),
            sync_status: self.engine.subscribe(),
            tokens: Vec::new(),
        };
        tokio::spawn(serve_metrics(listener, page).unwrap());
        address
    }

    async fn rows(&self) -> HashSet<RowId> {
        let entries = self.inbox.entries(None, 1_000).await.unwrap();
        entries.into_iter().map(|entry| entry.row).collect()
    }
}

fn client() -> Client {
    // Fails when another test of this process was first.
    outbound::install_crypto_provider();
    Client::builder().no_proxy().build().unwrap()
}

fn secret(text: &str) -> WebhookSecret {
    WebhookSecret::parse(text).unwrap()
}

fn row(number: u32) -> RowId {
    format!("00000000-0000-4000-8000-{number:012}")
        .parse()
        .unwrap()
}

fn inserted(row: RowId) -> String {
    json!({
        "type": "INSERT",
        "table": "tripwire_users",
        "schema": "public",
        "record": { "id": row },
        "old_record": null,
    })
    .to_string()
}

async fn json(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), json(response).await)
}

/// An error with the right headers, whose body names the kind of its fault and no more.
async fn assert_is_problem(response: Response, status: u16, of: &str) {
    assert_eq!(response.status(), status, "{of}");
    let content_type = response.headers()["content-type"].clone();
    assert_eq!(content_type, "application/problem+json", "{of}");
    let body = json(response).await;
    assert_eq!(body["status"], status, "{of}");
    assert_eq!(body["type"], "about:blank", "{of}");
    let detail = body["detail"].as_str().unwrap_or_default();
    assert!(detail.len() > 10, "{of}: {body}");
    assert_eq!(body.as_object().unwrap().len(), 4, "{of}: {body}");
}

#[tokio::test]
async fn a_signed_insert_is_stored_before_it_is_accepted() {
    let service = Service::start().await;

    let answered = answer(service.signed(&inserted(row(1)))).await;

    assert_eq!(answered, (202, json!({ "status": "accepted" })));
    let entry = service.inbox.entry(row(1)).await.unwrap().unwrap();
    assert_eq!(entry.state, State::Pending);
    assert_eq!(entry.delivery.as_deref(), Some("msg_1"));
}

#[tokio::test]
async fn the_same_row_again_is_a_duplicate() {
    let service = Service::start().await;
    service.signed(&inserted(row(1))).send().await.unwrap();

    let answered = answer(service.signed(&inserted(row(1)))).await;

    assert_eq!(answered, (202, json!({ "status": "duplicate" })));
    assert_eq!(service.rows().await.len(), 1);
}

#[tokio::test]
async fn an_unsigned_insert_with_the_token_is_accepted_under_a_name_of_ours() {
    let service = Service::start().await;

    let request = service.with_token(&inserted(row(1)));
    let answered = answer(request).await;

    assert_eq!(answered, (202, json!({ "status": "accepted" })));
    let entry = service.inbox.entry(row(1)).await.unwrap().unwrap();
    let delivery = entry.delivery.unwrap();
    let id = delivery.strip_prefix("bearer-").unwrap();
    assert!(id.parse::<RowId>().is_ok(), "{delivery}");
}

#[tokio::test]
async fn what_cannot_prove_its_sender_is_refused_and_not_stored() {
    let service = Service::start().await;
    let body = inserted(row(1));
    let now = service.now;
    let over = TOLERANCE + Duration::from_secs(1);
    let with_signature = |signature: String| {
        service
            .post(&body)
            .header("webhook-id", "msg_1")
            .header("webhook-timestamp", now.as_second())
            .header("webhook-signature", signature)
    };
    let genuine = sign(&secret(SECRET), "msg_1", now, body.as_bytes());
    let by_another = sign(&secret(OTHER_SECRET), "msg_1", now, body.as_bytes());

    for (of, request) in [
        ("no headers", service.post(&body)),
        ("another secret", with_signature(by_another)),
        ("another body", service.signed(&body).body(inserted(row(2)))),
        ("too old", service.signed_at(now - over, &body)),
        ("too new", service.signed_at(now + over, &body)),
        ("v2 only", with_signature(genuine.replace("v1,", "v2,"))),
        (
            "two ids",
            service.signed(&body).header("webhook-id", "msg_1"),
        ),
        ("another token", service.post(&body).bearer_auth("guess")),
        (
            "token and bad signature",
            with_signature("v1,AAAA".to_owned()).bearer_auth(TOKEN),
        ),
    ] {
        let response = request.send().await.unwrap();
        assert_is_problem(response, 401, of).await;
    }

    assert_eq!(service.rows().await, HashSet::new());
    assert_eq!(answer(with_signature(genuine)).await.0, 202);
}

#[tokio::test]
async fn what_is_signed_but_makes_no_sense_is_refused_and_not_stored() {
    let service = Service::start().await;
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"type":"INSERT","table":"tripwire_users","schema":"public","record":{}}"#,
        r#"{"type":"INSERT","table":"tripwire_users","schema":"public","record":{"id":"17"}}"#,
    ] {
        let response = service.signed(body).send().await.unwrap();
        assert_is_problem(response, 400, body).await;
    }
    assert_eq!(service.rows().await, HashSet::new());
}

#[tokio::test]
async fn what_is_not_announced_as_json_is_refused_and_not_stored() {
    let service = Service::start().await;
    let url = format!("http://{}{WEBHOOK}", service.address);
    let untyped = service.client.post(&url).body("{}");
    let text = service
        .client
        .post(&url)
        .header("content-type", "text/plain")
        .body("{}");
    for request in [untyped, text] {
        let response = request.send().await.unwrap();
        assert_is_problem(response, 415, "content type").await;
    }
    assert_eq!(service.rows().await, HashSet::new());
}

#[tokio::test]
async fn a_body_may_be_as_long_as_the_limit() {
    let service = Service::start().await;
    let body = inserted(row(1));
    let of_length = |length: usize| body.clone() + " ".repeat(length - body.len()).as_str();
    for (longest, request) in [
        (LONGEST_BODY, Service::signed as fn(&Service, &str) -> _),
        (16 * LONGEST_BODY, Service::with_token),
    ] {
        let response = request(&service, &of_length(longest)).send().await.unwrap();
        assert_eq!(response.status(), 202, "{longest}");
        let response = request(&service, &of_length(longest + 1)).send().await;
        assert_is_problem(response.unwrap(), 413, "one byte more").await;
    }
}

/// Only a right token gets the greater limit. With a wrong one, the limit is the same as without a token.
#[tokio::test]
async fn a_body_that_is_refused_by_its_head_is_not_read() {
    let service = Service::start().await;
    let json = "content-type: application/json";
    let id = "webhook-id: msg_1\r\nwebhook-timestamp: 1\r\nwebhook-signature: v1,AAAA";
    for (status, headers, length) in [
        (413, json.to_owned(), 100_000_000_000),
        (413, json.to_owned(), LONGEST_BODY + 1),
        (413, format!("{json}\r\n{id}"), LONGEST_BODY + 1),
        (
            413,
            format!("{json}\r\nauthorization: Bearer wrong"),
            LONGEST_BODY + 1,
        ),
        (
            413,
            format!("{json}\r\nauthorization: Bearer {TOKEN}"),
            16 * LONGEST_BODY + 1,
        ),
        (415, "content-type: text/plain".to_owned(), 10),
        (401, json.to_owned(), LONGEST_BODY),
        (401, format!("{json}\r\nauthorization: Bearer wrong"), 10),
        (401, format!("{json}\r\nwebhook-id: msg_1"), 10),
    ] {
        let head = format!(
            "POST {WEBHOOK} HTTP/1.1\r\nhost: x\r\n{headers}\r\ncontent-length: {length}\r\n\r\n"
        );
        let answered = talk(service.address, head.clone().into_bytes()).await;
        assert!(
            answered.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head}{answered}"
        );
        assert!(answered.contains("connection: close"), "{answered}");
    }
}

#[tokio::test]
async fn a_body_that_grows_too_long_is_refused() {
    let service = Service::start().await;
    let longer = inserted(row(1)) + " ".repeat(LONGEST_BODY).as_str();
    let head = service.signed_head(&longer).replace(
        &format!("content-length: {}", longer.len()),
        "transfer-encoding: chunked",
    );
    let chunk = format!("{:x}\r\n{longer}\r\n", longer.len());
    let answered = talk(service.address, (head + &*chunk).into_bytes()).await;
    assert!(answered.starts_with("HTTP/1.1 413 "), "{answered}");
    assert_eq!(service.rows().await, HashSet::new());
}

/// Sends these bytes, keeps its side open, and reads the head of the answer.
async fn talk(address: SocketAddr, bytes: Vec<u8>) -> String {
    let talk = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut answer = [0; 2048];
        let length = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

#[tokio::test]
async fn other_events_are_answered_kindly_and_not_stored() {
    let service = Service::start().await;
    for (member, value, reason) in [
        ("table", "users", "another table"),
        ("schema", "private", "another schema"),
        ("type", "UPDATE", "not an insert"),
    ] {
        let mut event: Value = serde_json::from_str(&inserted(row(1))).unwrap();
        event[member] = json!(value);

        let answered = answer(service.signed(&event.to_string())).await;

        assert_eq!(
            answered,
            (200, json!({ "status": "ignored", "reason": reason }))
        );
    }
    assert_eq!(service.rows().await, HashSet::new());
}

#[tokio::test]
async fn a_test_event_is_verified_like_any_other_answered_with_its_nonce_and_not_stored() {
    let service = Service::start().await;
    let nonce = "0123456789abcdef0123456789abcdef";
    let event = json!({
        "type": "TEST", "table": "tripwire_users", "schema": "public",
        "record": { "nonce": nonce }, "old_record": null,
    })
    .to_string();

    let answered = answer(service.signed(&event)).await;
    assert_eq!(answered, (200, json!({ "status": "test", "nonce": nonce })));

    let other = event.replace(nonce, &nonce.replace('0', "f"));
    let forged = service.signed(&event).body(other);
    assert_eq!(answer(forged).await.0, 401);
    let unusable = event.replace(nonce, "1");
    assert_eq!(answer(service.signed(&unusable)).await.0, 400);
    assert_eq!(service.rows().await, HashSet::new());

    // A test event must not be accepted while an insert would be refused.
    service.inbox.close().await;
    assert_eq!(answer(service.signed(&event)).await.0, 503);
}

#[tokio::test]
async fn two_hundred_at_once_are_all_stored() {
    let service = Service::start().await;
    let rows: HashSet<RowId> = (0..200).map(row).collect();

    let answers = join_all(
        rows.iter()
            .map(|row| answer(service.signed(&inserted(*row)))),
    )
    .await;

    for answered in answers {
        assert_eq!(answered, (202, json!({ "status": "accepted" })));
    }
    assert_eq!(service.rows().await, rows);
}

/// Requests are answered in order, for any split of the bytes. A chunked body is the last one on its connection.
#[tokio::test]
async fn requests_that_come_at_once_are_answered_one_after_the_other() {
    let service = Service::start().await;
    let (first, second, third) = (inserted(row(1)), inserted(row(2)), inserted(row(3)));
    let chunked = service.signed_head(&third).replace(
        &format!("content-length: {}", third.len()),
        "transfer-encoding: chunked",
    );
    let all = [
        "\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        &service.signed_head(&first),
        &first,
        "GET /nothing HTTP/1.1\nhost: x\n\n",
        &service.signed_head(&second),
        &second,
        &chunked,
        &format!("{:x}\r\n{third}\r\n0\r\n\r\n", third.len()),
    ]
    .concat();
    for piece in [all.len(), 7, 1] {
        let address = service.address;
        let bytes = all.clone().into_bytes();
        let talk = move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in bytes.chunks(piece) {
                stream.write_all(piece).unwrap();
            }
            let mut answers = String::new();
            stream.read_to_string(&mut answers).unwrap();
            answers
        };
        let answers = tokio::task::spawn_blocking(talk).await.unwrap();
        let statuses: Vec<&str> = answers
            .split("HTTP/1.1 ")
            .skip(1)
            .map(|answer| &answer[..3])
            .collect();
        assert_eq!(statuses, ["200", "202", "404", "202", "202"], "{answers}");
        assert_eq!(answers.matches("connection: close").count(), 1);
    }
    assert_eq!(
        service.rows().await,
        HashSet::from([row(1), row(2), row(3)])
    );
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let service = Service::start().await;
    let head = format!("GET /healthz HTTP/1.1\r\nx: {}", "y".repeat(20_000));
    let answered = talk(service.address, head.into_bytes()).await;
    assert!(answered.starts_with("HTTP/1.1 400 "), "{answered}");
}

/// The client never reads: its requests after the first answer stay in the client's own buffers.
#[tokio::test]
async fn a_client_that_never_reads_is_not_served_on() {
    let service = Service::start().await;
    let address = service.address;
    let flood = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
        let patience = Duration::from_millis(200);
        stream.set_write_timeout(Some(patience)).unwrap();
        let mut sent = 0;
        // Ends when the service has stopped reading and both kernels' buffers are full.
        while let Ok(taken) = stream.write(&request) {
            sent += taken;
            assert!(sent < 64 << 20, "the service reads without being read");
        }
        sent
    };
    tokio::task::spawn_blocking(flood).await.unwrap();
    assert_eq!(answer(service.signed(&inserted(row(1)))).await.0, 202);
}

#[tokio::test]
async fn clients_that_dribble_keep_no_other_waiting() {
    let service = Service::start().await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut dribbling: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(service.address).unwrap())
        .collect();

    for byte in request.chunks(1) {
        for stream in &mut dribbling {
            stream.write_all(byte).unwrap();
        }
        let answered = answer(service.signed(&inserted(row(1)))).await;
        assert_eq!(answered.0, 202);
    }

    let mut status = [0; 12];
    dribbling[0].read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
}

#[tokio::test]
async fn without_an_inbox_the_sender_is_told_to_come_back() {
    let service = Service::start().await;
    service.inbox.close().await;

    let response = service.signed(&inserted(row(1))).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "30");
    assert_is_problem(response, 503, "webhook").await;

    let metrics = service.metrics_page();
    let in_full = client().get(format!("http://{metrics}/readyz"));
    for readyz in [service.get("/readyz"), in_full] {
        let (status, body) = answer(readyz).await;
        assert_eq!((status, &body["inbox"]), (503, &json!("unavailable")));
    }
    let (status, body) = answer(service.get("/healthz")).await;
    assert_eq!((status, body), (200, json!({ "status": "ok" })));
}

#[tokio::test]
async fn a_loop_that_hangs_is_no_health() {
    let service = Service::start().await;
    service.hangs.store(true, Ordering::Relaxed);
    let response = service.get("/healthz").send().await.unwrap();
    assert_is_problem(response, 503, "/healthz").await;
}

#[tokio::test]
async fn a_halted_engine_is_told_and_no_reason_to_refuse() {
    let service = Service::start().await;
    let working = json!({ "inbox": "ok", "sync": { "state": "working" } });
    assert_eq!(answer(service.get("/readyz")).await, (200, working.clone()));
    let metrics = service.metrics_page();
    let in_full = || client().get(format!("http://{metrics}/readyz"));
    let never = json!({
        "inbox": "ok",
        "sync": { "state": "working" },
        "last_event_age_seconds": null,
        "last_sweep_age_seconds": null,
    });
    assert_eq!(answer(in_full()).await, (200, never));

    service.engine.send_replace(SyncState::Halted {
        cause: HaltCause::AmocrmForbidden,
        since: service.now,
        next_probe: None,
    });

    let (status, mut body) = answer(in_full()).await;
    let hint = body["sync"]["hint"].take();
    assert!(hint.as_str().unwrap().contains("resume"), "{hint}");
    let halted = json!({
        "inbox": "ok",
        "sync": {
            "state": "halted",
            "reason": "amocrm_forbidden",
            "since": "2026-11-22T10:00:00Z",
            "next_probe": null,
            "hint": null,
        },
        "last_event_age_seconds": null,
        "last_sweep_age_seconds": null,
    });
    assert_eq!((status, body), (200, halted));
    assert_eq!(answer(service.signed(&inserted(row(1)))).await.0, 202);
}

#[tokio::test]
async fn beside_the_public_port_the_ages_of_the_last_event_and_sweep_are_told() {
    let service = Service::start().await;
    let metrics = service.metrics_page();
    let ages = async || {
        let in_full = client().get(format!("http://{metrics}/readyz"));
        let (_, body) = answer(in_full).await;
        [
            body["last_event_age_seconds"].clone(),
            body["last_sweep_age_seconds"].clone(),
        ]
    };
    // A test event and one that is refused are no events about a row.
    let test = r#"{"type":"TEST","nonce":"0123456789abcdef0123456789abcdef"}"#;
    answer(service.signed(test)).await;
    answer(service.post(&inserted(row(1)))).await;
    assert_eq!(ages().await, [json!(null), json!(null)]);

    service.clock.advance(Duration::from_secs(10));
    service.inbox.swept(Sweep::All);
    service.clock.advance(Duration::from_secs(30));
    assert_eq!(answer(service.signed(&inserted(row(1)))).await.0, 202);
    service.clock.advance(Duration::from_secs(5));
    assert_eq!(ages().await, [json!(5), json!(35)]);

    // A known row's event shows that events arrive.
    assert_eq!(answer(service.signed(&inserted(row(1)))).await.0, 202);
    service.inbox.swept(Sweep::Short);
    assert_eq!(ages().await, [json!(0), json!(0)]);
    let public = answer(service.get("/readyz")).await.1;
    let told = json!({ "inbox": "ok", "sync": { "state": "working" } });
    assert_eq!(public, told);
}

#[tokio::test]
async fn the_public_port_tells_a_state_by_its_name_and_nothing_else_of_it() {
    let service = Service::start().await;
    let since = service.now;
    for state in [
        SyncState::Starting,
        SyncState::Holding,
        SyncState::Paused { since },
        SyncState::Halted {
            cause: HaltCause::AmocrmToken,
            since,
            next_probe: Some(since),
        },
        SyncState::Standby {
            held_by_another: true,
        },
    ] {
        service.engine.send_replace(state);
        let told = json!({ "inbox": "ok", "sync": { "state": state.into_str() } });
        assert_eq!(answer(service.get("/readyz")).await, (200, told));
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_and_nothing_redirects() {
    let service = Service::start().await;
    for path in [
        "/",
        "/webhooks",
        "/webhooks/supabase/",
        "//healthz",
        "/healthz/",
        "/metrics",
    ] {
        let response = service.get(path).send().await.unwrap();
        assert_is_problem(response, 404, path).await;
    }
    let url = |path| format!("http://{}{path}", service.address);
    for (request, allowed) in [
        (service.get(WEBHOOK), "POST"),
        (service.client.put(url(WEBHOOK)), "POST"),
        (service.client.post(url("/healthz")), "GET, HEAD"),
        (service.client.delete(url("/readyz")), "GET, HEAD"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["allow"], allowed);
        assert_is_problem(response, 405, allowed).await;
    }
    let head = service.client.head(url("/healthz")).send().await.unwrap();
    assert_eq!(head.status(), 200);
}

#[tokio::test]
async fn metrics_have_a_listener_of_their_own() {
    let service = Service::start().await;
    let address = service.metrics_page();
    let get = |path: &str| client().get(format!("http://{address}{path}")).send();

    let text = get("/metrics").await.unwrap().text().await.unwrap();
    let line = "tripwire_webhooks_total{outcome=\"accepted\"} 1";
    assert!(text.lines().any(|have| have == line), "{text}");
    assert_is_problem(get("/healthz").await.unwrap(), 404, "/healthz").await;
}

#[tokio::test]
async fn stopping_does_not_wait_for_idle_connections() {
    let service = Service::start().await;
    answer(service.get("/healthz")).await;

    let stopped = tokio::time::timeout(Duration::from_secs(2), service.server.stop(true)).await;

    assert!(stopped.is_ok());
    assert!(service.get("/healthz").send().await.is_err());
}
