//! The HTTP side: takes deliveries, and reports the state of the service.
//!
//! It knows the inbox, and of the engine only the state that the engine reports.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use actix_web::{
    HttpRequest, HttpResponse, Resource, Route,
    dev::Server,
    guard,
    http::{
        StatusCode,
        header::{self, CacheControl, CacheDirective, HeaderValue},
    },
    web,
};
use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;
use serde_json::{Value, json};
use strum::VariantNames;
use tokio::net::TcpSocket;

mod connection;
mod places;
mod refusal_log;
mod server;
pub mod signature;
mod webhook;

use connection::Connection;
pub use refusal_log::RefusalLog;
pub use signature::Verifier;
pub use webhook::LONGEST_BODY;

use crate::{
    domain::{Lang, Refusals, SharedClock, SyncState, SyncStatus, TokenEnd},
    inbox::{Inbox, InboxError, REFUSALS},
};

/// `pg_net` opens 200 connections at once; the 128 that std asks for would make some of them wait a second and more.
const BACKLOG: u32 = 2048;

/// The size of a socket's kernel buffers, each way. By default they hold far more of what a client sends before it is read.
const SOCKET_BUFFER: u32 = 32 * 1024;

/// Of the metrics page: a scraper and a person.
const METRICS_PLACES: usize = 64;

const SHUTDOWN_TIMEOUT_SECONDS: u64 = 8;

#[derive(Debug, Clone)]
pub struct HttpState {
    /// Whether a loop of the service has not come round for too long.
    pub hangs: Arc<AtomicBool>,
    pub inbox: Inbox,
    pub verifier: Verifier,
    pub clock: SharedClock,
    pub sync_status: SyncStatus,
    pub refusals: RefusalLog,
}

/// The state behind the pages beside the public port. A request reads the current states; all other metrics were counted
/// before.
#[derive(Debug, Clone)]
pub struct MetricsPage {
    pub handle: PrometheusHandle,
    pub inbox: Inbox,
    pub clock: SharedClock,
    pub sync_status: SyncStatus,
    /// The configured tokens that have an end.
    pub tokens: Vec<TokenEnd>,
}

/// Listens with room for a burst of connections. Needs a Tokio runtime.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit both.
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Serves until its handle is told to stop. The caller handles signals. `pages`: what else is served on the public port.
pub fn serve(
    listener: TcpListener,
    state: HttpState,
    workers: usize,
    pages: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> io::Result<Server> {
    webhook::register_metrics();
    let state = web::Data::from(Arc::new(state));
    let size = server::Size {
        workers,
        places: places::of_this_machine(),
        shutdown_timeout_seconds: SHUTDOWN_TIMEOUT_SECONDS,
    };
    server::start(listener, size, move |cfg| {
        cfg.app_data(state.clone())
            .configure(&pages)
            .configure(routes);
    })
}

/// Serves `/metrics` and the whole of `/readyz` on a listener that need not be public.
pub fn serve_metrics(listener: TcpListener, page_of: MetricsPage) -> io::Result<Server> {
    let started = unix_seconds(Some(page_of.clock.now()));
    metrics::gauge!("tripwire_start_timestamp_seconds").set(started);
    let page_of = web::Data::new(page_of);
    let size = server::Size {
        workers: 1,
        places: METRICS_PLACES,
        shutdown_timeout_seconds: 1,
    };
    server::start(listener, size, move |cfg| {
        cfg.app_data(page_of.clone())
            .service(page("/metrics").route(look().to(metrics)))
            .service(page("/readyz").route(look().to(full_readyz)))
            .default_service(web::to(not_found));
    })
}

/// Everything on the public port. Nothing here redirects: the sender would follow with a GET, without the body.
pub fn routes(cfg: &mut web::ServiceConfig) {
    let webhook = web::resource("/webhooks/supabase")
        .route(web::post().to(webhook::receive))
        .default_service(web::to(async || method_not_allowed("POST")));
    cfg.app_data(web::Data::new(webhook::LongBodies::default()))
        .service(webhook)
        .service(page("/healthz").route(look().to(healthz)))
        .service(page("/readyz").route(look().to(readyz)))
        .default_service(web::to(not_found));
}

fn page(path: &str) -> Resource {
    web::resource(path).default_service(web::to(async || method_not_allowed("GET, HEAD")))
}

fn look() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

async fn healthz(state: web::Data<HttpState>) -> HttpResponse {
    if state.hangs.load(Ordering::Relaxed) {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "a loop of the service has not come round for two minutes",
        );
    }
    HttpResponse::Ok()
        .insert_header(CacheControl(vec![CacheDirective::NoStore]))
        .json(json!({ "status": "ok" }))
}

/// The public part of the state is its name.
async fn readyz(state: web::Data<HttpState>) -> HttpResponse {
    let name = shown(&state.inbox, &state.sync_status).into_str();
    readiness(&state.inbox, json!({ "sync": { "state": name } }))
}

/// What is told beside the public port: the state with its reason and times, what a person can do about it, whether events
/// arrive, and whether the service looks for rows. Ages in whole seconds; `null`: never, as far as is known.
async fn full_readyz(page: web::Data<MetricsPage>) -> HttpResponse {
    let state = shown(&page.inbox, &page.sync_status);
    let activity = page.inbox.activity();
    let now = page.clock.now();
    let age = |at: Timestamp| now.duration_since(at).as_secs().max(0);
    let mut report = json!({
        "sync": state,
        "last_event_age_seconds": activity.event.map(age),
        "last_sweep_age_seconds": activity.any_sweep().map(age),
    });
    if let Some(hint) = state.hint(Lang::Russian) {
        report["sync"]["hint"] = json!(hint);
    }
    readiness(&page.inbox, report)
}

/// Only the inbox decides the status code: during a halt the service still takes deliveries.
fn readiness(inbox: &Inbox, mut report: Value) -> HttpResponse {
    let (status, inbox) = if inbox.accepts() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    };
    report["inbox"] = json!(inbox);
    HttpResponse::build(status)
        .insert_header(CacheControl(vec![CacheDirective::NoStore]))
        .json(report)
}

/// The state of the service: the engine's, or the inbox's where that has one.
fn shown(inbox: &Inbox, engine: &SyncStatus) -> SyncState {
    let writing = *inbox.writing().borrow();
    writing.over(*engine.borrow())
}

async fn metrics(page: web::Data<MetricsPage>) -> HttpResponse {
    Collector::default().collect();
    show_states(&page);
    show_times(&page);
    // If the inbox or its disk cannot be read, the other metrics are still served.
    if let Err(error) = show_inbox(&page).await {
        tracing::warn!(%error, "metrics.inbox");
    }
    match page.inbox.disk_space().await {
        Ok(space) => {
            metrics::gauge!("tripwire_inbox_size_bytes").set(number(space.size));
            metrics::gauge!("tripwire_inbox_disk_free_bytes").set(number(space.free));
        }
        Err(error) => tracing::warn!(%error, "metrics.disk"),
    }
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(page.handle.render())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floating point; counts stay far below 2^52"
)]
fn number(count: u64) -> f64 {
    count as f64
}

/// Seconds since 1970, as Prometheus wants times; 0 for *never*.
fn unix_seconds(at: Option<Timestamp>) -> f64 {
    at.map_or(0.0, |at| at.as_duration().as_secs_f64())
}

fn show_states(page: &MetricsPage) {
    let now = shown(&page.inbox, &page.sync_status).into_str();
    for &state in SyncState::VARIANTS {
        let is_it = if state == now { 1.0 } else { 0.0 };
        metrics::gauge!("tripwire_sync_state", "state" => state).set(is_it);
    }
    let accepts = if page.inbox.accepts() { 1.0 } else { 0.0 };
    metrics::gauge!("tripwire_inbox_accepts").set(accepts);
}

fn show_times(page: &MetricsPage) {
    let activity = page.inbox.activity();
    metrics::gauge!("tripwire_last_event_timestamp_seconds").set(unix_seconds(activity.event));
    for (kind, at) in [("short", activity.short_sweep), ("full", activity.sweep)] {
        metrics::gauge!("tripwire_last_sweep_timestamp_seconds", "kind" => kind)
            .set(unix_seconds(at));
    }
    for token in &page.tokens {
        metrics::gauge!("tripwire_token_expiry_timestamp_seconds", "token" => token.name)
            .set(unix_seconds(Some(token.expires_at)));
    }
}

/// Each query is answered from an index or a short table.
async fn show_inbox(page: &MetricsPage) -> Result<(), InboxError> {
    let counts = page.inbox.counts().await?;
    for (state, count) in counts.named() {
        metrics::gauge!("tripwire_inbox_entries", "state" => state).set(number(count));
    }
    let age = counts
        .oldest_pending
        .map(|at| page.clock.now().duration_since(at).as_secs_f64());
    metrics::gauge!("tripwire_inbox_oldest_pending_seconds").set(age.unwrap_or(0.0).max(0.0));

    let counters = page.inbox.counters().await?;
    for (by, count) in counters.found {
        metrics::counter!("tripwire_rows_found_total", "by" => by).absolute(count);
    }
    metrics::gauge!("tripwire_contact_index_hashes").set(number(counters.indexed));

    let refusals: Option<Refusals> = page.inbox.state(REFUSALS).await?;
    let in_doubt = refusals.map_or(0, |refusals| refusals.in_doubt().len());
    metrics::gauge!("tripwire_rows_in_doubt").set(number(in_doubt as u64));
    Ok(())
}

/// A request has proved that its sender may be here: its connection keeps its place before those of strangers.
pub(crate) fn verified(request: &HttpRequest) {
    if let Some(connection) = request.conn_data::<Connection>() {
        connection.verified();
    }
}

async fn not_found() -> HttpResponse {
    problem(StatusCode::NOT_FOUND, "nothing is at this path")
}

pub(crate) fn method_not_allowed(allowed: &'static str) -> HttpResponse {
    let mut answer = problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "the header Allow names the methods of this path",
    );
    let allowed = HeaderValue::from_static(allowed);
    answer.headers_mut().insert(header::ALLOW, allowed);
    answer
}

/// An error as `application/problem+json` (RFC 9457). The detail is the same for all requests of a kind: the rest is in the log.
pub(crate) fn problem(status: StatusCode, detail: &str) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("application/problem+json")
        .json(json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": detail,
        }))
}

#[cfg(test)]
mod tests;
