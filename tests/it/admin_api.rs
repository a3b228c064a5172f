//! `docs/openapi.yaml` against a running service: each answer is as described, and what is described is answered.

use std::{collections::BTreeSet, fs, path::Path};

use boon::{Compiler, Schemas};
use reqwest::{
    Method, RequestBuilder,
    header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE},
};
use sandbox::DealId;
use serde_json::{Map, Value, json};
use tripwire_sync::domain::RowId;
use yaml_rust2::{Yaml, YamlLoader};

use crate::{
    program::{Launch, Service, until},
    support::{EMAIL, Wishes, World},
};

const ADMIN: &str = "token-of-the-operator-0123456789";
const VIEWER: &str = "token-of-the-viewers-0123456789";

/// The inbox fails in no way that a test could bring about and the service would outlive.
const NOT_BROUGHT_ABOUT: &str = "503";

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A path of the document, a method and a status.
type Answer = (String, String, String);

/// The description, and which of its answers were seen.
struct Api {
    http: reqwest::Client,
    document: Value,
    seen: BTreeSet<Answer>,
}

/// One request, with what is needed to find its description.
struct Call<'c> {
    service: &'c Service,
    method: Method,
    /// As in the document.
    path: &'c str,
    /// What stands for the parameter in the path, and the query.
    filled: String,
    as_whom: Whom<'c>,
    body: Option<Value>,
}

#[derive(Clone, Copy)]
enum Whom<'c> {
    Token(&'c str),
    Cookie(&'c str),
    Stranger,
}

impl<'c> Call<'c> {
    fn get(service: &'c Service, path: &'c str) -> Self {
        Self {
            service,
            method: Method::GET,
            path,
            filled: path.to_owned(),
            as_whom: Whom::Token(ADMIN),
            body: None,
        }
    }

    fn post(service: &'c Service, path: &'c str, body: Value) -> Self {
        Self {
            method: Method::POST,
            body: Some(body),
            ..Self::get(service, path)
        }
    }

    fn action(service: &'c Service, name: &str, row: Option<RowId>) -> Self {
        Self::post(service, "/actions/{name}", json!({ "row": row }))
            .filled(format!("/actions/{name}"))
    }

    fn row(service: &'c Service, row: impl std::fmt::Display) -> Self {
        Self::get(service, "/rows/{row}").filled(format!("/rows/{row}"))
    }

    fn filled(mut self, filled: String) -> Self {
        self.filled = filled;
        self
    }

    fn by(mut self, whom: Whom<'c>) -> Self {
        self.as_whom = whom;
        self
    }

    fn by_viewer(self) -> Self {
        self.by(Whom::Token(VIEWER))
    }

    fn request(&self, http: &reqwest::Client) -> RequestBuilder {
        let url = format!("{}/admin/api{}", self.service.url, self.filled);
        let request = http.request(self.method.clone(), url);
        match self.as_whom {
            Whom::Token(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            Whom::Cookie(cookie) => request.header(COOKIE, cookie),
            Whom::Stranger => request,
        }
    }
}

impl Api {
    fn read() -> Self {
        outbound::install_crypto_provider();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.yaml");
        let yaml = YamlLoader::load_from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let mut document = as_json(&yaml[0]);
        close(&mut document);
        Self {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            document,
            seen: BTreeSet::new(),
        }
    }

    fn operation(&self, path: &str, method: &str) -> Option<&Value> {
        self.document["paths"].get(path)?.get(method)
    }

    /// Sends the request, which must be answered with this status and as described.
    async fn expect(&mut self, status: u16, call: Call<'_>) -> Value {
        let mut request = call.request(&self.http);
        if let Some(body) = &call.body {
            let text = body.to_string();
            request = request.header(CONTENT_TYPE, "application/json").body(text);
            if status == 200 {
                self.assert_described_request(&call, body);
            }
        }
        self.expect_of(status, &call, request).await
    }

    async fn expect_of(&mut self, status: u16, call: &Call<'_>, request: RequestBuilder) -> Value {
        let method = call.method.as_str().to_lowercase();
        let what = format!("{method} {} {status}", call.filled);
        let answer = request.send().await.unwrap();
        let found = answer.status().as_u16();
        let content_type = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let text = answer.text().await.unwrap();
        assert_eq!(found, status, "{what}: {text}");
        let body: Value = serde_json::from_str(&text).unwrap();

        let operation = self.operation(call.path, &method);
        let operation = operation.unwrap_or_else(|| panic!("not described: {what}"));
        let described = &operation["responses"][status.to_string()];
        let described = self.resolved(described);
        let content = described["content"].get(&content_type);
        let content = content.unwrap_or_else(|| panic!("not described: {what} as {content_type}"));
        self.assert_valid(&content["schema"], &body, &what);
        self.seen
            .insert((call.path.to_owned(), method, status.to_string()));
        body
    }

    fn assert_described_request(&self, call: &Call<'_>, body: &Value) {
        let method = call.method.as_str().to_lowercase();
        let operation = self.operation(call.path, &method).unwrap();
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        self.assert_valid(schema, body, &format!("the request of {}", call.filled));
    }

    /// What a reference leads to.
    fn resolved<'v>(&'v self, value: &'v Value) -> &'v Value {
        match value["$ref"].as_str() {
            None => value,
            Some(reference) => {
                let pointer = reference.strip_prefix('#').unwrap();
                self.document.pointer(pointer).unwrap()
            }
        }
    }

    fn assert_valid(&self, schema: &Value, body: &Value, what: &str) {
        // The references within it lead to the document's components.
        let mut schema = schema.as_object().cloned().unwrap();
        schema.insert("components".to_owned(), self.document["components"].clone());
        let name = "http://127.0.0.1/answer.json";
        let mut compiler = Compiler::new();
        compiler.enable_format_assertions();
        compiler.add_resource(name, Value::Object(schema)).unwrap();
        let mut schemas = Schemas::new();
        let root = compiler.compile(name, &mut schemas);
        let root = root.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        let valid = schemas.validate(body, root);
        assert!(valid.is_ok(), "{what}: {}\n{body:#}", valid.unwrap_err());
    }

    /// Each answer that the document promises, but for what no test brings about.
    fn described(&self) -> BTreeSet<Answer> {
        let mut described = BTreeSet::new();
        for (path, operations) in self.document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                for status in operation["responses"].as_object().unwrap().keys() {
                    if status != NOT_BROUGHT_ABOUT {
                        described.insert((path.clone(), method.clone(), status.clone()));
                    }
                }
            }
        }
        described
    }
}

fn as_json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Hash(members) => {
            let members = members.iter().map(|(name, value)| {
                let name = name.as_str().expect("names are text").to_owned();
                (name, as_json(value))
            });
            Value::Object(members.collect())
        }
        Yaml::Array(items) => items.iter().map(as_json).collect(),
        Yaml::String(text) => json!(text),
        Yaml::Integer(number) => json!(number),
        Yaml::Boolean(flag) => json!(flag),
        Yaml::Null => Value::Null,
        other => panic!("{other:?} has no place in the description"),
    }
}

/// No answer has a member that the document does not name; readers of it may expect further ones.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(close);
            let is_object = members.get("type").is_some_and(|it| {
                it == "object"
                    || it
                        .as_array()
                        .is_some_and(|types| types.contains(&json!("object")))
            });
            if is_object && members.contains_key("properties") {
                members
                    .entry("additionalProperties")
                    .or_insert(Value::Bool(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn launch(world: &World) -> Launch {
    Launch::in_world(world, &["serve"])
        .with("ADMIN_TOKEN", ADMIN)
        .with("VIEWER_TOKEN", VIEWER)
}

async fn delivered(service: &mut Service, world: &World, email: &str, outcome: &str) -> RowId {
    let row = world.insert(&json!({ "email": email }));
    assert_eq!(service.deliver(world, row).await, Some(202));
    service.until_outcome(row, outcome).await;
    row
}

/// The cookie of a session, as a browser gets it.
async fn cookie(api: &Api, service: &Service) -> String {
    let no_redirects = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let answer = no_redirects
        .post(format!("{}/admin/login", service.url))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(format!("token={VIEWER}"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 303, "{:?}", api.seen);
    let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_service_answers_as_the_description_says_and_nothing_else() {
    let mut api = Api::read();
    let world = World::prepare(Wishes::default());
    let deal = world.student(EMAIL);
    let mut service = Service::launch(launch(&world)).await;
    let synced = delivered(&mut service, &world, EMAIL, "synced").await;
    let parked = delivered(&mut service, &world, "aigerim(at)example", "parked").await;
    let waiting = delivered(&mut service, &world, "absent@example.kz", "waiting").await;

    let cookie = cookie(&api, &service).await;
    read(&mut api, &service, &cookie, [synced, parked, waiting], deal).await;
    activity(&mut api, &service).await;

    // What is refused.
    refused(&mut api, &service, &cookie, parked).await;

    // What is done.
    let retried = api
        .expect(200, Call::action(&service, "retry", Some(parked)))
        .await;
    assert_eq!(retried["rows"], 1);
    let is_parked = |line: &Value| line["row.id"] == json!(parked) && line["outcome"] == "parked";
    until("it is parked again", || {
        service.program.count_logged("sync.attempt", is_parked) == 2
    })
    .await;
    let rows = api
        .expect(200, Call::action(&service, "park", Some(waiting)))
        .await;
    assert_eq!(rows["rows"], 1);
    api.expect(200, Call::action(&service, "retry-parked", None))
        .await;
    let without_body = Call {
        body: None,
        ..Call::action(&service, "sweep", None)
    };
    api.expect(200, without_body).await;
    let paused = api.expect(200, Call::action(&service, "pause", None)).await;
    assert_eq!(paused["services"], "all");
    service.until_sync_is("paused").await;
    let state = api.expect(200, Call::get(&service, "/state")).await;
    assert_eq!(state["sync"]["state"], "paused");
    let pending = world.insert(&json!({ "email": "later@example.kz" }));
    assert_eq!(service.deliver(&world, pending).await, Some(202));
    let story = api.expect(200, Call::row(&service, pending)).await;
    assert_eq!(story["state"], "pending");
    api.expect(200, Call::action(&service, "resume", None))
        .await;
    service.until_sync_is("working").await;

    // A second machine, which stands by.
    let other = launch(&world).with(
        "DATABASE_URL",
        format!("sqlite://{}", world.folder().join("other.db").display()),
    );
    let standby = Service::launch(other).await;
    standby.until_sync_is("standby").await;
    let state = api.expect(200, Call::get(&standby, "/state")).await;
    assert_eq!(
        (&state["standby"], &state["sync"]["state"]),
        (&json!(true), &json!("standby"))
    );
    api.expect(409, Call::action(&standby, "sweep", None)).await;
    standby.stop().await.assert_code(0);

    // And a halt.
    world.sandbox.amo.ban();
    world.student("banned@example.kz");
    let row = world.insert(&json!({ "email": "banned@example.kz" }));
    assert_eq!(service.deliver(&world, row).await, Some(202));
    service.until_sync_is("halted").await;
    let state = api.expect(200, Call::get(&service, "/state")).await;
    assert_eq!(state["sync"]["state"], "halted");
    api.expect(200, Call::row(&service, row)).await;

    let described = api.described();
    let not_seen: Vec<&Answer> = described.difference(&api.seen).collect();
    assert!(
        not_seen.is_empty(),
        "described, and never answered: {not_seen:#?}"
    );
}

/// What is read, by each who may: a row that is synced, one that is parked, and one that waits.
async fn read(api: &mut Api, service: &Service, cookie: &str, rows: [RowId; 3], deal: DealId) {
    let state = api.expect(200, Call::get(service, "/state")).await;
    assert_eq!(state["sync"]["state"], "working");
    assert_eq!(state["role"], "admin");
    assert_eq!(state["counts"]["parked"], 1);
    let state = api
        .expect(200, Call::get(service, "/state").by_viewer())
        .await;
    assert_eq!(state["role"], "viewer");
    let by_cookie = Call::get(service, "/state").by(Whom::Cookie(cookie));
    assert_eq!(api.expect(200, by_cookie).await["role"], "viewer");
    let [synced, parked, _] = rows;
    for row in rows {
        let story = api.expect(200, Call::row(service, row)).await;
        assert_eq!(story["row"], json!(row));
    }
    for (query, total) in [
        ("", 3),
        ("?state=done", 1),
        ("?state=parked&page=1", 1),
        ("?page=9&state=", 3),
    ] {
        let call = Call::get(service, "/entries").filled(format!("/entries{query}"));
        let list = api.expect(200, call).await;
        assert_eq!(list["total"], total, "{query}");
        assert_eq!(list["entries"].as_array().unwrap().len(), total, "{query}");
    }
    for (query, row) in [
        (EMAIL.to_owned(), synced),
        (deal.to_string(), synced),
        (parked.to_string(), parked),
    ] {
        let call = Call::post(service, "/search", json!({ "query": query })).by_viewer();
        let found = api.expect(200, call).await;
        assert_eq!(found["entries"][0]["row"], json!(row), "{query}");
    }
}

/// What the charts show.
async fn activity(api: &mut Api, service: &Service) {
    if api.operation("/activity", "get").is_none() {
        return;
    }
    let activity = api.expect(200, Call::get(service, "/activity")).await;
    assert!(activity.to_string().contains("synced"), "{activity}");
    api.expect(401, Call::get(service, "/activity").by(Whom::Stranger))
        .await;
}

async fn refused(api: &mut Api, service: &Service, cookie: &str, row: RowId) {
    let wrong = Whom::Token("not-the-token-0123456789");
    for whom in [Whom::Stranger, wrong] {
        api.expect(401, Call::get(service, "/state").by(whom)).await;
        api.expect(401, Call::get(service, "/entries").by(whom))
            .await;
        api.expect(401, Call::row(service, row).by(whom)).await;
    }
    // A browser sends a cookie by itself: for what is posted it proves nothing.
    for whom in [Whom::Stranger, wrong, Whom::Cookie(cookie)] {
        let search = Call::post(service, "/search", json!({ "query": EMAIL })).by(whom);
        api.expect(401, search).await;
        let act = Call::action(service, "retry", Some(row)).by(whom);
        api.expect(401, act).await;
    }
    for name in ["retry", "park", "retry-parked", "pause", "resume", "sweep"] {
        let act = Call::action(service, name, Some(row)).by_viewer();
        api.expect(403, act).await;
    }
    let search = Call::post(service, "/search", json!({ "query": EMAIL }));
    let elsewhere = search
        .request(&api.http)
        .header("sec-fetch-site", "cross-site")
        .json(&search.body);
    api.expect_of(403, &search, elsewhere).await;

    let page = Call::get(service, "/entries").filled("/entries?page=first".to_owned());
    api.expect(400, page).await;
    let unknown = Call::get(service, "/entries").filled("/entries?state=unknown".to_owned());
    api.expect(404, unknown).await;
    api.expect(404, Call::row(service, uuid::Uuid::nil())).await;
    api.expect(404, Call::row(service, "no-row")).await;
    api.expect(404, Call::action(service, "unknown", None))
        .await;
    api.expect(404, Call::action(service, "retry", None)).await;
    for body in [json!({ "query": "nonsense" }), json!({}), json!([])] {
        api.expect(400, Call::post(service, "/search", body)).await;
    }
    let long = json!({ "query": "x".repeat(9 * 1024) });
    api.expect(413, Call::post(service, "/search", long.clone()))
        .await;
    let pause = Call::post(service, "/actions/{name}", long).filled("/actions/pause".to_owned());
    api.expect(413, pause).await;
    // What is not understood is not taken for an order without a row.
    for body in [json!({ "row": "no-row" }), json!("pause")] {
        let pause =
            Call::post(service, "/actions/{name}", body).filled("/actions/pause".to_owned());
        api.expect(400, pause).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_described_and_takes_no_other_method() {
    let api = Api::read();
    let paths = api.document["paths"].as_object().unwrap();
    let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/api.rs");
    let source = fs::read_to_string(source).unwrap();
    let (_, routes) = source.split_once("fn routes(").unwrap();
    let (routes, _) = routes.split_once("\n}").unwrap();
    let routes = routes.split("(\"/").skip(1);
    let routes: Vec<String> = routes
        .map(|rest| format!("/{}", rest.split('"').next().unwrap()))
        .collect();
    let routes: BTreeSet<&str> = routes.iter().map(String::as_str).collect();
    assert_eq!(described, routes);

    let world = World::prepare(Wishes::default());
    let service = Service::launch(launch(&world)).await;
    for (path, operations) in paths {
        let operations: &Map<String, Value> = operations.as_object().unwrap();
        let filled = path.replace("{row}", "no-row").replace("{name}", "pause");
        for method in METHODS {
            if operations.contains_key(method) {
                continue;
            }
            let call = Call {
                method: method.to_uppercase().parse().unwrap(),
                ..Call::get(&service, path).filled(filled.clone())
            };
            let answer = call.request(&api.http).send().await.unwrap();
            assert_eq!(answer.status(), 405, "{method} {path}");
            api.assert_valid(
                &json!({ "$ref": "#/components/schemas/Problem" }),
                &serde_json::from_str(&answer.text().await.unwrap()).unwrap(),
                path,
            );
        }
    }
    let nothing = Call::get(&service, "").filled("/nothing".to_owned());
    let answer = nothing.request(&api.http).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    service.stop().await.assert_code(0);
}
