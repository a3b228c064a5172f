//! The part of PostgREST, behind Supabase's gateway, that we use: one table, reads, one kind of PATCH, four functions.

mod commands;
mod doctor;
mod filter;
mod table;
mod test_event;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use uuid::Uuid;

pub use self::doctor::Behind;
use self::table::{Table, with_defaults};
pub use self::test_event::EventFate;
use super::{
    Access, Clock, Faults, Joint, Recorded, Recorder, Server, WebhookTarget, any_port, lock,
    server::{ELSEWHERE, Emulator, Reply, Request, Route, Running},
    webhook::{Delivery, Sender},
};

/// What row level security lets us do. Nothing of it is an error: rows are just not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policies {
    Open,
    /// No row can be seen, so none can be changed.
    HideAll,
    /// Rows can be seen, no row can be changed.
    NoUpdate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseFunction {
    /// The migration is not applied: 404 PGRST202.
    Missing,
    Present,
    /// The key's role may not call it: 42501.
    Denied,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PostgrestQuirks {
    pub key: String,
    /// A minted JWT that is accepted in `Authorization`.
    pub jwt: Option<String>,
    /// Columns that this project's table has not.
    pub absent_columns: Vec<String>,
    /// Columns without the right to read: naming one is 42501.
    pub unreadable_columns: Vec<String>,
    /// Rows over which a policy of the project's own raises an error.
    pub raising_rows: Vec<Uuid>,
    /// Rows that a trigger of the project's own leaves as they are.
    pub unchangeable_rows: Vec<Uuid>,
    /// Longer answers are cut off without a word.
    pub max_rows: usize,
    pub policies: Policies,
    /// 42501 for everything.
    pub is_denied: bool,
    /// `false` = a server before `max-affected`, which refuses it under `handling=strict`.
    pub knows_max_affected: bool,
    pub lease: LeaseFunction,
    /// `false`: the migration of the pause is not applied.
    pub has_pause: bool,
    pub behind: Behind,
    /// Before every answer.
    pub latency: Duration,
    /// Scales the delay of late commits.
    pub time_scale: f64,
}

impl Default for PostgrestQuirks {
    fn default() -> Self {
        Self {
            key: "sb_secret_sandbox".to_owned(),
            jwt: None,
            absent_columns: Vec::new(),
            unreadable_columns: Vec::new(),
            raising_rows: Vec::new(),
            unchangeable_rows: Vec::new(),
            max_rows: 1000,
            policies: Policies::Open,
            is_denied: false,
            knows_max_affected: true,
            lease: LeaseFunction::Present,
            has_pause: true,
            behind: Behind::default(),
            latency: Duration::ZERO,
            time_scale: 1.0,
        }
    }
}

#[derive(Debug)]
struct Late {
    due_at: Timestamp,
    route: Route,
    request: Request,
}

#[derive(Debug)]
struct State {
    quirks: PostgrestQuirks,
    table: Table,
    lease: Option<(String, Timestamp)>,
    /// The last pause (`true`) or resume, and when it came.
    pause: Option<(bool, Timestamp)>,
    /// The nonce of the last test event.
    test_event: Option<String>,
    protocol_errors: Vec<String>,
    late: Vec<Late>,
}

#[derive(Debug)]
struct Postgrest {
    clock: Clock,
    state: Mutex<State>,
}

/// A handle on a running PostgREST; clones are the same one.
#[derive(Debug, Clone)]
pub struct PostgrestSandbox {
    postgrest: Arc<Postgrest>,
    running: Running,
    joint: Joint,
    hook: Arc<Mutex<Option<Sender>>>,
}

impl PostgrestSandbox {
    /// On any free port, by the machine's clock. Needs a tokio runtime around it.
    pub fn start(quirks: PostgrestQuirks) -> io::Result<Self> {
        Self::start_on(any_port(), Clock::Machine, quirks)
    }

    pub fn start_on(
        address: SocketAddr,
        clock: Clock,
        quirks: PostgrestQuirks,
    ) -> io::Result<Self> {
        Self::start_joined(address, Joint::alone(clock), quirks)
    }

    pub(crate) fn start_joined(
        address: SocketAddr,
        joint: Joint,
        quirks: PostgrestQuirks,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let postgrest = Arc::new(Postgrest {
            clock: joint.clock.clone(),
            state: Mutex::new(State {
                quirks,
                table: Table::default(),
                lease: None,
                pause: None,
                test_event: None,
                protocol_errors: Vec::new(),
                late: Vec::new(),
            }),
        });
        let running = Running::start(listener, postgrest.clone(), joint.clone())?;
        Ok(Self {
            postgrest,
            running,
            joint,
            hook: Arc::default(),
        })
    }

    /// The project's URL: `/rest/v1` is below it.
    #[must_use]
    pub fn url(&self) -> String {
        self.running.url()
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.running.address()
    }

    #[must_use]
    pub fn key(&self) -> String {
        lock(&self.postgrest.state).quirks.key.clone()
    }

    pub fn quirks<R>(&self, change: impl FnOnce(&mut PostgrestQuirks) -> R) -> R {
        change(&mut lock(&self.postgrest.state).quirks)
    }

    /// Inserts a row with the table's defaults, and sets off the webhook if there is one.
    ///
    /// Columns that `row` names are kept as given, `id` and `created_at` too.
    #[expect(clippy::must_use_candidate, reason = "called for its effect")]
    pub fn insert_row(&self, row: &Value) -> Uuid {
        let now = self.postgrest.clock.now();
        let (id, row) = with_defaults(row, now);
        let created_at = row["created_at"].clone();
        self.postgrest.current().table.rows.insert(id, row);
        if let Some(sender) = &*lock(&self.hook) {
            sender.send(id, &created_at, now);
        }
        id
    }

    #[must_use]
    pub fn row(&self, id: impl Into<Uuid>) -> Option<Map<String, Value>> {
        let id = id.into();
        self.postgrest.current().table.rows.get(&id).cloned()
    }

    /// In the order of ids.
    #[must_use]
    pub fn rows(&self) -> Vec<Map<String, Value>> {
        let state = self.postgrest.current();
        state.table.rows.values().cloned().collect()
    }

    /// `None`: no such row.
    pub fn delete_row(&self, id: impl Into<Uuid>) -> Option<Map<String, Value>> {
        let id = id.into();
        self.postgrest.current().table.rows.remove(&id)
    }

    /// `None`: no such row.
    pub fn update_row<R>(
        &self,
        id: impl Into<Uuid>,
        change: impl FnOnce(&mut Map<String, Value>) -> R,
    ) -> Option<R> {
        let id = id.into();
        let mut state = self.postgrest.current();
        state.table.rows.get_mut(&id).map(change)
    }

    /// From now on an insert posts a signed delivery, once, as the trigger and `pg_net` do.
    pub fn on_insert(&self, target: WebhookTarget) {
        self.quirks(|quirks| {
            quirks.behind.vault_url = Some(target.url.clone());
            quirks.behind.vault_secret = Some(target.secret.expose_secret().to_owned());
        });
        *lock(&self.hook) = Some(Sender::new(target));
    }

    /// From now on inserts are silent: every delivery is lost.
    pub fn lose_webhooks(&self) {
        *lock(&self.hook) = None;
    }

    /// Sends a row's delivery (again), and waits for the answer. `None`: no such row, or no target.
    pub async fn deliver(&self, id: impl Into<Uuid>) -> Option<Delivery> {
        let id = id.into();
        let created_at = self.row(id)?["created_at"].clone();
        let sender = lock(&self.hook).clone()?;
        let now = self.postgrest.clock.now();
        Some(sender.deliver(id, &created_at, now).await)
    }

    /// Waits until no delivery is under way, and tells what became of all so far.
    pub async fn deliveries(&self) -> Vec<Delivery> {
        let sender = lock(&self.hook).clone();
        match sender {
            Some(sender) => sender.all().await,
            None => Vec::new(),
        }
    }

    /// The holder of the lease, if it is held.
    #[must_use]
    pub fn lease_holder(&self) -> Option<String> {
        let now = self.postgrest.clock.now();
        let state = self.postgrest.current();
        let lease = state.lease.as_ref().filter(|(_, until)| *until > now);
        lease.map(|(holder, _)| holder.clone())
    }

    /// Gives the lease to a holder until a time; `None`: to no holder.
    pub fn set_lease(&self, lease: Option<(&str, Timestamp)>) {
        let lease = lease.map(|(holder, until)| (holder.to_owned(), until));
        self.postgrest.current().lease = lease;
    }

    /// The last pause (`true`) or resume, if there was one.
    #[must_use]
    pub fn last_pause(&self) -> Option<bool> {
        lock(&self.postgrest.state)
            .pause
            .map(|(is_paused, _)| is_paused)
    }

    #[must_use]
    pub fn has_column(&self, column: &str) -> bool {
        lock(&self.postgrest.state).has(column)
    }

    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.joint.recorder.of(Server::Postgrest)
    }

    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.joint.recorder
    }

    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.joint.faults
    }

    #[must_use]
    pub fn protocol_errors(&self) -> Vec<String> {
        lock(&self.postgrest.state).protocol_errors.clone()
    }

    pub async fn stop(&self) {
        self.running.stop().await;
    }
}

/// The last 12 hex digits of a row's id: what ties a note to its row.
pub(super) fn reference(row: Uuid) -> String {
    let hex = row.simple().to_string();
    hex[hex.len() - 12..].to_owned()
}

impl Postgrest {
    /// The state after every late commit that is due.
    fn current(&self) -> MutexGuard<'_, State> {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let mut due: Vec<Late> = state.late.extract_if(.., |it| it.due_at <= now).collect();
        due.sort_by_key(|it| it.due_at);
        for late in due {
            state.act(late.route, &late.request, now);
        }
        state
    }
}

pub(super) fn error(status: u16, code: &str, message: &str, details: Option<&str>) -> Reply {
    let body = json!({"code": code, "details": details, "hint": null, "message": message});
    Reply::new(status, "application/json; charset=utf-8", body.to_string())
        .with("proxy-status", format!("PostgREST; error={code}"))
}

/// Kong, in front of PostgREST.
fn gateway_401(message: &str) -> Reply {
    let body = json!({"message": message, "hint": "Double check your Supabase `anon` or `service_role` API key."});
    Reply::new(401, "application/json; charset=utf-8", body.to_string())
}

impl Emulator for Postgrest {
    const SERVER: Server = Server::Postgrest;

    fn route(&self, request: &Request) -> Route {
        let (name, access) = match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/rest/v1/tripwire_users") => ("rows.read", Access::Read),
            ("HEAD", "/rest/v1/tripwire_users") => ("rows.count", Access::Read),
            ("PATCH", "/rest/v1/tripwire_users") => ("rows.update", Access::Write),
            ("POST", "/rest/v1/rpc/tripwire_sync_lease") => ("rpc.lease", Access::Write),
            ("POST", "/rest/v1/rpc/tripwire_sync_pause") => {
                let asked = request.json().unwrap_or_default();
                let is_change = asked["paused"].is_boolean();
                (
                    "rpc.pause",
                    if is_change {
                        Access::Write
                    } else {
                        Access::Read
                    },
                )
            }
            ("POST", "/rest/v1/rpc/tripwire_sync_doctor") => ("rpc.doctor", Access::Read),
            ("POST", "/rest/v1/rpc/tripwire_sync_test_event") => ("rpc.test_event", Access::Read),
            ("POST", "/rest/v1/rpc/tripwire_sync_test_result") => ("rpc.test_result", Access::Read),
            ("GET" | "HEAD", _) => ("unknown", Access::Read),
            _ => ("unknown", Access::Write),
        };
        Route { name, access }
    }

    fn refuse(&self, request: &Request, _: Instant) -> Option<Reply> {
        let mut state = lock(&self.state);
        let State {
            quirks,
            protocol_errors,
            ..
        } = &mut *state;
        let apikey = request.header("apikey");
        let bearer = request
            .header("authorization")
            .map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
        if request.path == ELSEWHERE {
            if apikey.is_some() || bearer.is_some() {
                protocol_errors.push("a redirect was followed with the key".to_owned());
            }
            return Some(Reply::html(404));
        }
        match apikey {
            None => {
                protocol_errors.push(format!("{}: no apikey", request.path));
                return Some(gateway_401("No API key found in request"));
            }
            Some(key) if key != quirks.key => return Some(gateway_401("Invalid API key")),
            Some(_) => {}
        }
        let bearer = bearer?;
        let jwt_error = |message: &str| {
            Some(error(401, "PGRST301", message, None).with("www-authenticate", "Bearer"))
        };
        if bearer.starts_with("sb_") {
            protocol_errors.push("a key that is no JWT was sent as Authorization".to_owned());
            return jwt_error("Expected 3 parts in JWT; got 1");
        }
        let is_legacy_key = quirks.key == bearer;
        if is_legacy_key || quirks.jwt.as_deref() == Some(bearer) {
            return None;
        }
        jwt_error("No suitable key or wrong key type")
    }

    fn act(&self, route: Route, request: &Request) -> Reply {
        let now = self.clock.now();
        self.current().act(route, request, now)
    }

    fn act_rejecting(&self, _: Route, _: &Request, _: usize, _: bool) -> Reply {
        self.error_json(400)
    }

    fn act_later(&self, route: Route, request: Request, delay: Duration) {
        let mut state = lock(&self.state);
        let delay = delay.mul_f64(state.quirks.time_scale);
        let due_at = self
            .clock
            .now()
            .saturating_add(delay)
            .unwrap_or(Timestamp::MAX);
        state.late.push(Late {
            due_at,
            route,
            request,
        });
    }

    fn error_json(&self, status: u16) -> Reply {
        match status {
            400 => error(400, "22P02", "invalid input syntax", None),
            401 => error(401, "PGRST303", "JWT expired", None),
            403 => error(
                403,
                "42501",
                "permission denied for table tripwire_users",
                None,
            ),
            404 => error(
                404,
                "PGRST205",
                "Could not find the table in the schema cache",
                None,
            ),
            405 => error(
                405,
                "25006",
                "cannot execute UPDATE in a read-only transaction",
                None,
            ),
            409 => error(
                409,
                "23505",
                "duplicate key value violates unique constraint",
                None,
            ),
            500 => error(
                500,
                "57014",
                "canceling statement due to statement timeout",
                None,
            ),
            503 => error(
                503,
                "PGRST002",
                "Could not query the database for the schema cache. Retrying.",
                None,
            ),
            504 => error(
                504,
                "PGRST003",
                "Timed out acquiring connection from connection pool.",
                None,
            ),
            _ => Reply::html(status),
        }
    }

    fn error_with(&self, status: u16, code: &str) -> Reply {
        error(status, code, "something is wrong with tripwire_users", None)
    }

    fn shorten(&self, mut reply: Reply) -> Reply {
        if let Ok(Value::Array(mut rows)) = serde_json::from_str(&reply.body) {
            rows.truncate(rows.len() / 2);
            reply.body = Value::Array(rows).to_string();
        }
        reply
    }

    fn latency(&self) -> Duration {
        lock(&self.state).quirks.latency
    }
}
