//! The project's Data API: `postrust` in place of PostgREST, behind what a hosted project has in front of it.
//!
//! Where it differs from PostgREST 14 in what we use:
//! - 42501 of a valid token is answered with 401, not 403: set right in [`answer`].
//! - `NOTIFY pgrst` is not heard: it is started when the migrations are applied.
//! - an update without a filter is carried out: the platform has safeupdate for that, which is not packaged.
//! - `Bearer sb_…` is refused in other words; nothing of ours sends it.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::ServerHandle,
    http::{StatusCode, uri::PathAndQuery},
    web::{self, Bytes, Data},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::postgres::{Cluster, free_port};

/// A publishable key: it opens the door, and is nobody.
pub(super) const KEY: &str = "sb_publishable_tests-of-tripwire-sync";
/// The project's legacy JWT secret.
pub(super) const JWT_SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters";

/// A program that `scripts/tools` has installed.
pub(super) fn tool(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join("tools")
        .join(name);
    assert!(
        path.exists(),
        "{name} is missing: run scripts/test, or scripts/tools, once"
    );
    path
}

/// Killed when dropped.
struct Postrust {
    child: Child,
    port: u16,
}

impl Postrust {
    fn start(cluster: &Cluster) -> Self {
        // A port that was free a moment ago may be taken by now.
        for _ in 0..5 {
            if let Some(postrust) = Self::try_start(cluster, free_port()) {
                return postrust;
            }
        }
        panic!("postrust does not start on any of five free ports");
    }

    fn try_start(cluster: &Cluster, port: u16) -> Option<Self> {
        let mut child = Command::new(tool("postrust"))
            .env_clear()
            .env("DATABASE_URL", cluster.url("authenticator"))
            .env("PGRST_COMPAT_MODE", "true")
            .env("PGRST_DB_ANON_ROLE", "anon")
            .env("PGRST_DB_SCHEMAS", "public")
            .env("PGRST_DB_EXTRA_SEARCH_PATH", "public,extensions")
            .env("PGRST_DB_MAX_ROWS", "1000")
            .env("PGRST_DB_POOL", "10")
            .env("PGRST_DB_POOL_TIMEOUT", "10")
            .env("PGRST_JWT_SECRET", JWT_SECRET)
            .env("PGRST_SERVER_HOST", "127.0.0.1")
            .env("PGRST_SERVER_PORT", port.to_string())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let postrust = Self { child, port };

        let mut said = String::new();
        while !said.contains("Listening on") {
            if log.read_line(&mut said).unwrap() == 0 {
                errors.read_line(&mut said).unwrap();
                assert!(said.contains("in use"), "{said}");
                return None;
            }
        }
        // Nobody reads the rest, and a full pipe would stop it.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Some(postrust)
    }
}

impl Postrust {
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Postrust {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A request as the gateway saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    /// Of the token; `None`: whoever has none is `anon`.
    pub(super) role: Option<String>,
    /// `None`: there was no answer.
    pub(super) status: Option<u16>,
}

struct Edge {
    upstream: Mutex<String>,
    http: reqwest::Client,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// Stopped when dropped.
pub(super) struct DataApi {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    gateway: ServerHandle,
    edge: Data<Edge>,
    postrust: Mutex<Postrust>,
}

impl DataApi {
    /// Sees the schema as it is now.
    pub(super) fn start(cluster: &Cluster) -> Self {
        let postrust = Postrust::start(cluster);
        let seen = Arc::default();
        let edge = Data::new(Edge {
            upstream: Mutex::new(postrust.url()),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            seen: Arc::clone(&seen),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = edge.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .default_service(web::to(answer))
        })
        .workers(1)
        .disable_signals()
        .listen(listener)
        .unwrap()
        .run();
        let gateway = server.handle();
        tokio::spawn(server);
        Self {
            url,
            seen,
            gateway,
            edge,
            postrust: Mutex::new(postrust),
        }
    }

    /// As `NOTIFY pgrst` has PostgREST do: it sees the schema anew.
    pub(super) fn reload(&self, cluster: &Cluster) {
        let postrust = Postrust::start(cluster);
        *self.edge.upstream.lock().unwrap() = postrust.url();
        *self.postrust.lock().unwrap() = postrust;
    }

    /// The project's URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for DataApi {
    fn drop(&mut self) {
        // Without being polled to its end: whatever is under way ends with the runtime.
        drop(self.gateway.stop(false));
    }
}

async fn answer(request: HttpRequest, body: Bytes, edge: Data<Edge>) -> HttpResponse {
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    let number = {
        let mut seen = edge.seen.lock().unwrap();
        seen.push(Seen {
            method: request.method().to_string(),
            path: request.path().to_owned(),
            role: header("authorization").and_then(role_of),
            status: None,
        });
        seen.len() - 1
    };
    let answer = if header("apikey") == Some(KEY) {
        pass_on(&request, body, &edge).await
    } else {
        HttpResponse::Unauthorized().json(json!({ "message": "Invalid API key" }))
    };
    edge.seen.lock().unwrap()[number].status = Some(answer.status().as_u16());
    answer
}

/// `role` of a bearer's claims, which the server behind us verifies.
fn role_of(authorization: &str) -> Option<String> {
    let claims = authorization.strip_prefix("Bearer ")?.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    Some(claims["role"].as_str()?.to_owned())
}

async fn pass_on(request: &HttpRequest, body: Bytes, edge: &Edge) -> HttpResponse {
    let target = request.uri().path_and_query().map(PathAndQuery::as_str);
    let Some(target) = target.and_then(|target| target.strip_prefix("/rest/v1")) else {
        return HttpResponse::NotFound()
            .json(json!({ "message": "no Route matched with those values" }));
    };
    let method = request
        .method()
        .as_str()
        .parse::<reqwest::Method>()
        .unwrap();
    let upstream = edge.upstream.lock().unwrap().clone();
    let mut passed = edge
        .http
        .request(method, format!("{upstream}{target}"))
        .body(body);
    for (name, value) in request.headers() {
        if !OF_ONE_CONNECTION.contains(&name.as_str()) {
            passed = passed.header(name.as_str(), value.as_bytes());
        }
    }
    let unavailable = || {
        HttpResponse::ServiceUnavailable()
            .body("upstream connect error or disconnect/reset before headers")
    };
    let Ok(answer) = passed.send().await else {
        return unavailable();
    };
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let Ok(body) = answer.bytes().await else {
        return unavailable();
    };

    let is_somebody = request.headers().contains_key("authorization");
    let status = if is_somebody {
        as_postgrest(status, &body)
    } else {
        status
    };
    let mut response = HttpResponse::build(StatusCode::from_u16(status).unwrap());
    for (name, value) in &headers {
        if !OF_ONE_CONNECTION.contains(&name.as_str()) {
            response.append_header((name.as_str(), value.as_bytes()));
        }
    }
    response.body(body)
}

const OF_ONE_CONNECTION: [&str; 5] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "date",
];

/// Who is somebody and may not do it is told 403; who is nobody, 401.
fn as_postgrest(status: u16, body: &[u8]) -> u16 {
    let is_denied = || {
        let error = serde_json::from_slice::<Value>(body).unwrap_or_default();
        error["code"] == "42501"
    };
    if status == 401 && is_denied() {
        403
    } else {
        status
    }
}
