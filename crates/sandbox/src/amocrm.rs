//! amoCRM's API v4 as a server: token, rate limit and ban at the gate, the account behind it.

mod answer;
mod apply;
mod gate;
mod read;
mod records;
mod search_index;
mod world;
mod write;

#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::Value;

use self::{
    answer::{hal, problem},
    gate::Gate,
    write::{Rejection, Write},
};
use super::{
    Access, Clock, DealId, Faults, Joint, Recorded, Recorder, Server, any_port, lock,
    server::{Emulator, Reply, Request, Route, Running},
};

pub use self::{
    records::{Contact, Deal, Field, FieldValue, Note, Pipeline, PipelineIds, Stage},
    world::World,
};

/// How a 429 looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Throttled {
    Html,
    Json,
    /// Seconds, in the header `Retry-After`.
    Header(u64),
    /// Seconds, as `retry_after` in a JSON body.
    Body(u64),
}

/// Filters by custom fields are an add-on that is sold apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldFilter {
    Works,
    /// All contacts are returned.
    Ignored,
    /// 400.
    Refused,
}

/// Every habit of amoCRM that a client must live with, as a switch. The defaults are like the real one.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AmoQuirks {
    /// How long a new or changed contact is unknown to `query`.
    pub index_lag: Duration,
    /// `query` finds parts of any value; `false` = whole values only.
    pub fuzzy_query: bool,
    /// `_links.next` is missing although there is more.
    pub next_link_missing: bool,
    /// Bulk writes are answered in another order than asked.
    pub shuffle_answers: bool,
    /// Requests in any second; `None` = no limit.
    pub rate_limit: Option<u32>,
    pub throttled: Throttled,
    /// So many 429 lead to 403 for everything until [`AmoSandbox::lift_ban`].
    pub ban_after: Option<u32>,
    /// Scales the delay of late commits.
    pub time_scale: f64,
    /// A deleted deal's id stays in its contact.
    pub keeps_deleted_ids: bool,
    /// Most deals embedded in a contact.
    pub embedded_leads_limit: Option<usize>,
    /// Status of the answer to a bulk PATCH with an unknown id (the others are applied).
    pub unknown_deal_status: u16,
    /// A bulk write with a bad item saves the good ones.
    pub rejected_bulk_saves_others: bool,
    /// Notes are stored without outer spaces.
    pub trims_notes: bool,
    /// `/leads/complex` joins a new deal with an open one of the same e-mail.
    pub duplicate_control: bool,
    /// `/leads/complex` answers `_embedded.leads` instead of a bare array.
    pub complex_wrapped: bool,
    pub field_filter: FieldFilter,
    /// `false`: filters by time are ignored.
    pub time_filter: bool,
    /// Before every answer.
    pub latency: Duration,
    /// Longest path and query, in bytes; beyond it 414.
    pub longest_target: usize,
}

impl Default for AmoQuirks {
    fn default() -> Self {
        Self {
            index_lag: Duration::from_secs(2),
            fuzzy_query: true,
            next_link_missing: false,
            shuffle_answers: true,
            rate_limit: Some(7),
            throttled: Throttled::Html,
            ban_after: Some(50),
            time_scale: 1.0,
            keeps_deleted_ids: true,
            embedded_leads_limit: None,
            unknown_deal_status: 400,
            rejected_bulk_saves_others: false,
            trims_notes: true,
            duplicate_control: false,
            complex_wrapped: false,
            field_filter: FieldFilter::Refused,
            time_filter: true,
            latency: Duration::ZERO,
            longest_target: 8_000,
        }
    }
}

impl AmoQuirks {
    /// No rate limit and no index lag; everything else as by default.
    #[must_use]
    pub fn patient() -> Self {
        Self {
            index_lag: Duration::ZERO,
            rate_limit: None,
            ..Self::default()
        }
    }
}

/// A write whose answer was 504, and which happens later.
#[derive(Debug)]
struct Late {
    due_at: Timestamp,
    route: Route,
    request: Request,
}

#[derive(Debug)]
struct State {
    world: World,
    late: Vec<Late>,
}

#[derive(Debug)]
struct Amo {
    clock: Clock,
    /// A lock of its own: the account may be busy for long, and requests that arrive meanwhile are counted at once.
    gate: Mutex<Gate>,
    state: Mutex<State>,
}

/// A handle on a running amoCRM; clones are the same one.
#[derive(Debug, Clone)]
pub struct AmoSandbox {
    amo: Arc<Amo>,
    running: Running,
    joint: Joint,
}

impl AmoSandbox {
    /// On any free port, by the machine's clock. Needs a tokio runtime around it.
    pub fn start(quirks: AmoQuirks) -> io::Result<Self> {
        Self::start_on(any_port(), Clock::Machine, quirks)
    }

    pub fn start_on(address: SocketAddr, clock: Clock, quirks: AmoQuirks) -> io::Result<Self> {
        Self::start_joined(address, Joint::alone(clock), quirks)
    }

    pub(crate) fn start_joined(
        address: SocketAddr,
        joint: Joint,
        quirks: AmoQuirks,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let mut world = World::new(quirks, joint.clock.clone());
        world.base_url = format!("http://{}", listener.local_addr()?);
        let amo = Arc::new(Amo {
            clock: joint.clock.clone(),
            gate: Mutex::new(Gate::new(quirks)),
            state: Mutex::new(State {
                world,
                late: Vec::new(),
            }),
        });
        let running = Running::start(listener, amo.clone(), joint.clone())?;
        Ok(Self {
            amo,
            running,
            joint,
        })
    }

    #[must_use]
    pub fn url(&self) -> String {
        self.running.url()
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.running.address()
    }

    #[must_use]
    pub fn token(&self) -> String {
        lock(&self.amo.gate).token.clone()
    }

    /// From now on only this token is good: the old one is revoked.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut lock(&self.amo.gate).token);
    }

    /// From now on this token is good too: [`Recorded::token`] tells whose a request was.
    pub fn add_token(&self, token: &str) {
        let mut gate = lock(&self.amo.gate);
        gate.more_tokens.push(token.to_owned());
    }

    pub fn quirks<R>(&self, change: impl FnOnce(&mut AmoQuirks) -> R) -> R {
        change(&mut lock(&self.amo.gate).quirks)
    }

    /// Looks at the account, or changes it. Late commits that are due have happened.
    ///
    /// The account is locked meanwhile: `look` must not ask this handle for anything.
    pub fn world<R>(&self, look: impl FnOnce(&mut World) -> R) -> R {
        look(&mut self.amo.current().world)
    }

    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.joint.recorder.of(Server::Amo)
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
    pub fn max_in_any_second(&self) -> usize {
        self.joint.recorder.max_in_any_second(Server::Amo)
    }

    #[must_use]
    pub fn protocol_errors(&self) -> Vec<String> {
        let mut errors = lock(&self.amo.gate).protocol_errors.clone();
        errors.extend_from_slice(&lock(&self.amo.state).world.protocol_errors);
        errors
    }

    #[must_use]
    pub fn is_banned(&self) -> bool {
        lock(&self.amo.gate).is_banned
    }

    /// 403 for everything, as after too many 429.
    pub fn ban(&self) {
        lock(&self.amo.gate).is_banned = true;
    }

    pub fn lift_ban(&self) {
        let mut gate = lock(&self.amo.gate);
        gate.is_banned = false;
        gate.violations = 0;
    }

    /// Writes that are answered but have not happened yet.
    #[must_use]
    pub fn late_commits(&self) -> usize {
        self.amo.current().late.len()
    }

    pub async fn stop(&self) {
        self.running.stop().await;
    }
}

impl Amo {
    fn quirks(&self) -> AmoQuirks {
        lock(&self.gate).quirks
    }

    /// The state after every late commit that is due.
    fn current(&self) -> std::sync::MutexGuard<'_, State> {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        state.world.quirks = self.quirks();
        let mut due: Vec<Late> = state.late.extract_if(.., |it| it.due_at <= now).collect();
        due.sort_by_key(|it| it.due_at);
        for late in due {
            act(&mut state.world, late.route, &late.request, None);
        }
        state
    }
}

fn id_in(path: &str, before: &str, after: &str) -> Option<i64> {
    path.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
}

/// `contacts.search` is `contacts.list` with a `query`.
fn name_route(request: &Request) -> &'static str {
    let Some(path) = request.path.strip_prefix("/api/v4/") else {
        return "unknown";
    };
    match (request.method.as_str(), path) {
        ("GET", "account") => "account",
        ("GET", "leads/pipelines") => "pipelines.list",
        ("GET", "contacts") if request.param("query").is_some() => "contacts.search",
        ("GET", "contacts") => "contacts.list",
        ("GET", "leads") => "leads.list",
        ("PATCH", "leads") => "leads.update",
        ("POST", "leads") => "leads.create",
        ("POST", "leads/complex") => "leads.complex",
        ("GET", "leads/notes") => "notes.list",
        ("POST", "leads/notes") => "notes.create",
        ("GET", path) if id_in(path, "leads/pipelines/", "").is_some() => "pipelines.one",
        ("GET", path) if id_in(path, "contacts/", "").is_some() => "contacts.one",
        ("GET", path) if id_in(path, "leads/", "").is_some() => "leads.one",
        ("GET", path) if id_in(path, "leads/", "/notes").is_some() => "notes.list",
        ("POST", path) if id_in(path, "leads/", "/notes").is_some() => "notes.create",
        _ => "unknown",
    }
}

fn act(world: &mut World, route: Route, request: &Request, rejection: Option<Rejection>) -> Reply {
    let path = request.path.strip_prefix("/api/v4/").unwrap_or_default();
    let of_deal = id_in(path, "leads/", "/notes").map(DealId::new);
    let last_id = path.rsplit('/').next().and_then(|id| id.parse().ok());
    let mut write = |write| world.write(write, request.json().as_ref(), rejection);
    match route.name {
        "leads.update" => write(Write::UpdateDeals),
        "leads.create" => write(Write::CreateDeals),
        "leads.complex" => write(Write::CreateComplex),
        "notes.create" => write(Write::AddNotes { of: of_deal }),
        "account" => hal(200, &world.account_json()),
        "pipelines.list" => world.list_pipelines(),
        "pipelines.one" => world.one_pipeline(last_id.unwrap_or_default()),
        "contacts.search" | "contacts.list" => world.list_contacts(request),
        "contacts.one" => world.one_contact(last_id.unwrap_or_default(), request),
        "leads.list" => world.list_deals(request),
        "leads.one" => world.one_deal(last_id.unwrap_or_default(), request),
        "notes.list" => world.list_notes(of_deal, request),
        _ => {
            let (method, path) = (&request.method, &request.path);
            world.protocol_error(format!("{method} {path} is no route of the sandbox"));
            problem(404, "Not Found", "Cannot find this route")
        }
    }
}

impl Emulator for Amo {
    const SERVER: Server = Server::Amo;

    fn route(&self, request: &Request) -> Route {
        let access = match request.method.as_str() {
            "GET" | "HEAD" => Access::Read,
            _ => Access::Write,
        };
        Route {
            name: name_route(request),
            access,
        }
    }

    fn refuse(&self, request: &Request, at: Instant) -> Option<Reply> {
        lock(&self.gate).refuse(request, at)
    }

    fn act(&self, route: Route, request: &Request) -> Reply {
        act(&mut self.current().world, route, request, None)
    }

    fn act_rejecting(
        &self,
        route: Route,
        request: &Request,
        bad_index: usize,
        others_applied: bool,
    ) -> Reply {
        if route.access == Access::Read {
            return self.error_json(400);
        }
        let rejection = Rejection {
            bad_index,
            others_applied,
        };
        act(&mut self.current().world, route, request, Some(rejection))
    }

    fn act_later(&self, route: Route, request: Request, delay: Duration) {
        let delay = delay.mul_f64(self.quirks().time_scale);
        let due_at = self
            .clock
            .now()
            .saturating_add(delay)
            .unwrap_or(Timestamp::MAX);
        lock(&self.state).late.push(Late {
            due_at,
            route,
            request,
        });
    }

    fn error_json(&self, status: u16) -> Reply {
        problem(status, "Error", "Что-то пошло не так")
    }

    fn error_with(&self, status: u16, code: &str) -> Reply {
        if code == "NotSupportedChoice" {
            return answer::not_a_choice(status, "status_id");
        }
        problem(status, code, "Что-то пошло не так")
    }

    fn shorten(&self, mut reply: Reply) -> Reply {
        if let Ok(mut body) = serde_json::from_str::<Value>(&reply.body) {
            let bare = body.is_array().then_some(&mut body);
            let list = match bare {
                Some(list) => Some(list),
                None => embedded_list(&mut body),
            };
            if let Some(items) = list.and_then(Value::as_array_mut) {
                items.truncate(items.len() / 2);
            }
            reply.body = body.to_string();
        }
        reply
    }

    fn latency(&self) -> Duration {
        self.quirks().latency
    }
}

fn embedded_list(body: &mut Value) -> Option<&mut Value> {
    body.get_mut("_embedded")?
        .as_object_mut()?
        .values_mut()
        .next()
}
