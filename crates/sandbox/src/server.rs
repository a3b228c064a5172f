//! The HTTP shell that both emulators share: record, refuse, fail on demand, answer.

use std::{
    any::Any,
    collections::HashMap,
    fmt, io,
    net::{Shutdown, SocketAddr, TcpListener},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::{Extensions, ServerHandle},
    http::{StatusCode, header},
    rt::net::TcpStream,
    web::{self, Bytes, Data, PayloadConfig},
};
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Access, Item, Joint, Kind, Page, Recorded, Spoilt, When};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Server {
    Amo,
    Postgrest,
}

/// A request, read whole.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    /// Path and query as they came, in bytes.
    pub(crate) target_length: usize,
    headers: HashMap<String, String>,
    pub(crate) body: Bytes,
}

impl Request {
    fn holds(&self, text: &str) -> bool {
        self.path.contains(text)
            || self.query.iter().any(|(_, value)| value.contains(text))
            || String::from_utf8_lossy(&self.body).contains(text)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    fn read(http: &HttpRequest, body: Bytes) -> Self {
        let query = url::form_urlencoded::parse(http.query_string().as_bytes())
            .into_owned()
            .collect();
        let mut headers: HashMap<String, String> = HashMap::new();
        for (name, value) in http.headers() {
            let Ok(value) = value.to_str() else { continue };
            // A list may come as one header or as several.
            headers
                .entry(name.to_string())
                .and_modify(|all| {
                    all.push_str(", ");
                    all.push_str(value);
                })
                .or_insert_with(|| value.to_owned());
        }
        Self {
            method: http.method().to_string(),
            path: http.path().to_owned(),
            query,
            target_length: http.uri().to_string().len(),
            headers,
            body,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn empty(status: u16) -> Self {
        Self {
            status,
            content_type: None,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    pub(crate) fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Self {
            content_type: Some(content_type),
            body,
            ..Self::empty(status)
        }
    }

    /// What a gateway shows instead of the API.
    pub(crate) fn html(status: u16) -> Self {
        let title = StatusCode::from_u16(status)
            .ok()
            .and_then(|code| code.canonical_reason())
            .unwrap_or("Error");
        let body = format!(
            "<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n<center><h1>{status} {title}</h1>\
             </center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
        );
        Self::new(status, "text/html", body)
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A route by name, and whether it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) name: &'static str,
    pub(crate) access: Access,
}

/// What makes a server amoCRM or PostgREST.
pub(crate) trait Emulator: Send + Sync + 'static {
    const SERVER: Server;

    fn route(&self, request: &Request) -> Route;
    /// Refuses a request that came at `at`, before any work, and before faults are counted. A rate limit counts the request
    /// here, without waiting for `act`.
    fn refuse(&self, request: &Request, at: Instant) -> Option<Reply>;
    fn act(&self, route: Route, request: &Request) -> Reply;
    /// A bulk write of which item `bad_index` is refused.
    fn act_rejecting(
        &self,
        route: Route,
        request: &Request,
        bad_index: usize,
        others_applied: bool,
    ) -> Reply;
    /// The write happens when the clock has gone on by `delay`, scaled.
    fn act_later(&self, route: Route, request: Request, delay: Duration);
    fn error_json(&self, status: u16) -> Reply;
    fn error_with(&self, status: u16, code: &str) -> Reply;
    /// The answer without the last half of its items.
    fn shorten(&self, reply: Reply) -> Reply;
    fn latency(&self) -> Duration;
}

/// Where a redirect fault leads.
pub(crate) const ELSEWHERE: &str = "/sandbox/elsewhere";

struct Shell<E> {
    emulator: Arc<E>,
    joint: Joint,
    stopping: CancellationToken,
}

enum Outcome {
    Reply(Reply),
    Reset,
    Hang,
}

impl<E: Emulator> Shell<E> {
    fn arrived(&self, route: Route, request: &Request, at: Instant) -> u64 {
        self.joint.recorder.arrived(Recorded {
            number: 0,
            server: E::SERVER,
            at,
            time: self.joint.clock.now(),
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            route: route.name,
            is_write: route.access == Access::Write,
            token: request
                .header("authorization")
                .and_then(|value| value.strip_prefix("Bearer "))
                .map(str::to_owned),
            body: request.json().unwrap_or(Value::Null),
            status: None,
            fault: None,
        })
    }

    fn outcome(&self, route: Route, request: &Request, fault: Option<&Kind>) -> Outcome {
        let act = || self.emulator.act(route, request);
        let act_if = |when: &When| {
            if *when == When::After {
                act();
            }
        };
        Outcome::Reply(match fault {
            None => act(),
            Some(Kind::Status {
                when,
                code,
                page,
                retry_after,
            }) => {
                act_if(when);
                let reply = match page {
                    Page::Html => Reply::html(*code),
                    Page::Json => self.emulator.error_json(*code),
                    Page::Code(error) => self.emulator.error_with(*code, error),
                    Page::Empty => Reply::empty(*code),
                };
                match retry_after {
                    Some(seconds) => reply.with("retry-after", seconds.to_string()),
                    None => reply,
                }
            }
            Some(Kind::Reset(when)) => {
                act_if(when);
                return Outcome::Reset;
            }
            Some(Kind::Hang(when)) => {
                act_if(when);
                return Outcome::Hang;
            }
            Some(Kind::LateCommit { delay }) => {
                if route.access == Access::Write {
                    self.emulator.act_later(route, request.clone(), *delay);
                }
                Reply::html(504)
            }
            Some(Kind::MalformedJson) => cut_in_half(act()),
            Some(Kind::HtmlOk) => {
                act();
                Reply::html(200)
            }
            Some(Kind::NoContent) => {
                act();
                Reply::empty(204)
            }
            Some(Kind::ShortAnswer) => self.emulator.shorten(act()),
            Some(Kind::Spoilt { item, how }) => spoilt(act(), *item, *how),
            Some(Kind::SpoiltStage { id }) => without_sort(act(), *id),
            Some(Kind::WithoutDeals) => without_deals(act()),
            Some(Kind::NoRequestIds) => without_request_ids(act()),
            Some(Kind::BulkRejected {
                others_applied,
                bad_index,
            }) => self
                .emulator
                .act_rejecting(route, request, *bad_index, *others_applied),
            Some(Kind::Redirect) => Reply::html(302).with("location", ELSEWHERE),
        })
    }
}

fn cut_in_half(mut reply: Reply) -> Reply {
    let mut half = reply.body.len() / 2;
    while !reply.body.is_char_boundary(half) {
        half -= 1;
    }
    reply.body.truncate(half);
    reply
}

/// The list of the answer, bare or embedded, with one item replaced.
fn spoilt(mut reply: Reply, item: Item, how: Spoilt) -> Reply {
    let Ok(mut body) = serde_json::from_str::<Value>(&reply.body) else {
        return reply;
    };
    let list = match &mut body {
        Value::Array(items) => Some(items),
        body => body
            .get_mut("_embedded")
            .and_then(Value::as_object_mut)
            .and_then(|embedded| embedded.values_mut().find_map(Value::as_array_mut)),
    };
    if let Some(items) = list.filter(|items| !items.is_empty()) {
        let place = match item {
            Item::At(place) => Some(place % items.len()),
            Item::WithId(id) => items.iter().position(|it| it["id"] == id),
        };
        let Some(place) = place else { return reply };
        let odd = serde_json::json!({"odd": [true]});
        match how {
            Spoilt::Null => items[place] = Value::Null,
            Spoilt::AllButTheId | Spoilt::All => {
                for (key, value) in items[place].as_object_mut().into_iter().flatten() {
                    let is_id = matches!(key.as_str(), "id" | "entity_id");
                    if !is_id || how == Spoilt::All {
                        *value = odd.clone();
                    }
                }
            }
        }
        reply.body = body.to_string();
    }
    reply
}

fn without_sort(mut reply: Reply, stage: i64) -> Reply {
    if let Ok(mut body) = serde_json::from_str::<Value>(&reply.body) {
        let pipelines = body["_embedded"]["pipelines"].as_array_mut();
        for pipeline in pipelines.into_iter().flatten() {
            let stages = pipeline["_embedded"]["statuses"].as_array_mut();
            for it in stages.into_iter().flatten() {
                if it["id"] == stage {
                    it["sort"] = Value::Null;
                }
            }
        }
        reply.body = body.to_string();
    }
    reply
}

fn without_deals(mut reply: Reply) -> Reply {
    if let Ok(mut body) = serde_json::from_str::<Value>(&reply.body) {
        let contacts = body["_embedded"]["contacts"].as_array_mut();
        for contact in contacts.into_iter().flatten() {
            contact["_embedded"]["leads"] = Value::Array(Vec::new());
        }
        reply.body = body.to_string();
    }
    reply
}

fn without_request_ids(mut reply: Reply) -> Reply {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("request_id");
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    if let Ok(mut body) = serde_json::from_str(&reply.body) {
        strip(&mut body);
        reply.body = body.to_string();
    }
    reply
}

/// A second handle on the connection's socket, to close it under the server's feet.
struct Socket(std::net::TcpStream);

fn keep_socket(connection: &dyn Any, data: &mut Extensions) {
    let socket = connection
        .downcast_ref::<TcpStream>()
        .and_then(|stream| stream.as_fd().try_clone_to_owned().ok());
    if let Some(socket) = socket {
        data.insert(Socket(std::net::TcpStream::from(socket)));
    }
}

async fn answer<E: Emulator>(
    http: HttpRequest,
    body: Bytes,
    shell: Data<Shell<E>>,
) -> HttpResponse {
    let at = Instant::now();
    let request = Request::read(&http, body);
    let route = shell.emulator.route(&request);
    let number = shell.arrived(route, &request, at);

    // A request is counted on arrival, and answered after the latency.
    let refusal = shell.emulator.refuse(&request, at);
    let latency = shell.emulator.latency();
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }

    let outcome = if let Some(refusal) = refusal {
        Outcome::Reply(refusal)
    } else {
        let faults = &shell.joint.faults;
        let fault = faults.meet(E::SERVER, route.name, route.access, |text| {
            request.holds(text)
        });
        // A search in a large account takes long. On this thread it would delay the counting of requests that arrive
        // meanwhile.
        let working = shell.clone();
        let worked = web::block(move || {
            let outcome = working.outcome(route, &request, fault.as_ref());
            // Last: a test that has seen the fault in the record may look for what the request did.
            if let Some(kind) = fault {
                working.joint.recorder.faulted(number, kind);
            }
            outcome
        })
        .await;
        worked.unwrap_or_else(|_| Outcome::Reply(Reply::html(500)))
    };
    match outcome {
        Outcome::Reply(reply) => {
            shell.joint.recorder.answered(number, reply.status);
            respond(reply, &shell.joint)
        }
        Outcome::Reset => {
            if let Some(Socket(socket)) = http.conn_data::<Socket>() {
                // An error here says that the client has gone first.
                let _ = socket.shutdown(Shutdown::Both);
            }
            HttpResponse::InternalServerError().finish()
        }
        Outcome::Hang => {
            shell.stopping.cancelled().await;
            HttpResponse::ServiceUnavailable().finish()
        }
    }
}

fn respond(reply: Reply, joint: &Joint) -> HttpResponse {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&joint.clock.now()) {
        response.insert_header((header::DATE, date));
    }
    if let Some(content_type) = reply.content_type {
        response.insert_header((header::CONTENT_TYPE, content_type));
    }
    for (name, value) in reply.headers {
        response.insert_header((name, value));
    }
    response.body(reply.body)
}

/// A server that is running; clones are handles on the same one.
#[derive(Clone)]
pub(crate) struct Running {
    address: SocketAddr,
    handle: ServerHandle,
    stopping: CancellationToken,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Running({})", self.address)
    }
}

/// Far more than 250 notes.
const MAX_BODY: usize = 8 * 1024 * 1024;

impl Running {
    /// Needs a tokio runtime around it.
    pub(crate) fn start<E: Emulator>(
        listener: TcpListener,
        emulator: Arc<E>,
        joint: Joint,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let shell = Data::new(Shell {
            emulator,
            joint,
            stopping: stopping.clone(),
        });
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shell.clone())
                .app_data(PayloadConfig::new(MAX_BODY))
                .default_service(web::to(answer::<E>))
        })
        .on_connect(keep_socket)
        .workers(1)
        .disable_signals()
        .listen(listener)?
        .run();
        let handle = server.handle();
        tokio::spawn(server);
        Ok(Self {
            address,
            handle,
            stopping,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.handle.stop(false).await;
    }
}
