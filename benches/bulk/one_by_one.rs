//! The yardstick: the same work, a student at a time, as a first integration does it when it is written with care.
//!
//! Search the contact, read its deals, move or create, note, write back. No batches, no memory, no doubts.

use std::{
    fmt,
    time::{Duration, Instant},
};

use reqwest::Method;
use sandbox::{
    Sandbox, Server,
    scenario::{Scenario, Setting},
};
use serde_json::{Value, json};

use crate::{REQUESTS_PER_SECOND, import::span, stand};

const ROWS: usize = 100;
const SEED: u64 = 20_261_122;

/// What the plan cost on a hundred rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Yardstick {
    requests: usize,
    took: Duration,
}

impl Yardstick {
    /// Its requests, at the rate that amoCRM allows.
    #[expect(clippy::cast_precision_loss, reason = "counts of rows and requests")]
    pub(crate) fn time_for(&self, rows: usize) -> Duration {
        let requests = rows as f64 * self.requests as f64 / ROWS as f64;
        Duration::from_secs_f64(requests / f64::from(REQUESTS_PER_SECOND))
    }
}

impl fmt::Display for Yardstick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, took } = self;
        let took = span(*took);
        write!(
            f,
            "{ROWS} rows in {took} with {requests} requests to amoCRM"
        )
    }
}

pub(crate) async fn run() -> Yardstick {
    let (sandbox, setting) = stand::neighbours(Duration::ZERO);
    let scenario =
        Scenario::import_day_among(SEED, ROWS, ROWS, &sandbox.amo, &sandbox.postgrest, &setting);
    let client = Client::new(&sandbox, &setting);
    let began = Instant::now();
    for student in &scenario.students {
        let row = sandbox
            .postgrest
            .row(student.row)
            .expect("the row is there");
        client.sync(&Value::Object(row)).await;
    }
    let took = began.elapsed();
    let asked = sandbox.requests();
    let requests = asked.iter().filter(|it| it.server == Server::Amo).count();
    sandbox.stop().await;
    Yardstick { requests, took }
}

struct Client<'a> {
    http: reqwest::Client,
    sandbox: &'a Sandbox,
    setting: &'a Setting,
    pace: tokio::sync::Mutex<tokio::time::Interval>,
}

impl<'a> Client<'a> {
    fn new(sandbox: &'a Sandbox, setting: &'a Setting) -> Self {
        // A little slower than amoCRM allows, so that no second ever holds eight.
        let pause = Duration::from_millis(1_050) / REQUESTS_PER_SECOND;
        Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client"),
            sandbox,
            setting,
            pace: tokio::sync::Mutex::new(tokio::time::interval(pause)),
        }
    }

    async fn sync(&self, row: &Value) {
        let Some(contact) = self.contact(row).await else {
            return;
        };
        let deal = match self.deal(&contact).await {
            Some(deal) => deal,
            None => self.create(row, &contact).await,
        };
        if deal["status_id"] != json!(self.setting.target.get()) {
            let to = json!([{
                "id": deal["id"],
                "pipeline_id": self.setting.pipeline.get(),
                "status_id": self.setting.target.get(),
            }]);
            self.amo(Method::PATCH, "leads", &[], &to).await;
        }
        let text = format!("Доступ предоставлен, логин: {}", row["email"]);
        let note = json!([{
            "entity_id": deal["id"],
            "note_type": "common",
            "params": {"text": text},
        }]);
        self.amo(Method::POST, "leads/notes", &[], &note).await;
        self.write_back(row, &deal).await;
    }

    async fn contact(&self, row: &Value) -> Option<Value> {
        let email = row["email"].as_str()?.trim().to_lowercase();
        let query = [("query", email.as_str()), ("with", "leads")];
        let found = self
            .amo(Method::GET, "contacts", &query, &Value::Null)
            .await;
        let contacts = found["_embedded"]["contacts"].as_array()?.clone();
        contacts
            .into_iter()
            .find(|contact| has_email(contact, &email))
    }

    /// The first open one in the pipeline.
    async fn deal(&self, contact: &Value) -> Option<Value> {
        let ids: Vec<String> = contact["_embedded"]["leads"]
            .as_array()?
            .iter()
            .map(|deal| deal["id"].to_string())
            .collect();
        if ids.is_empty() {
            return None;
        }
        let query: Vec<(&str, &str)> = ids.iter().map(|id| ("filter[id][]", id.as_str())).collect();
        let found = self.amo(Method::GET, "leads", &query, &Value::Null).await;
        let deals = found["_embedded"]["leads"].as_array()?.clone();
        deals.into_iter().find(|deal| {
            deal["pipeline_id"] == json!(self.setting.pipeline.get())
                && ![json!(142), json!(143)].contains(&deal["status_id"])
        })
    }

    async fn create(&self, row: &Value, contact: &Value) -> Value {
        let name = row["full_name"].as_str().unwrap_or_default();
        let deal = json!([{
            "name": format!("Tripwire - {name}"),
            "pipeline_id": self.setting.pipeline.get(),
            "status_id": self.setting.target.get(),
            "_embedded": {"contacts": [{"id": contact["id"]}]},
        }]);
        let made = self.amo(Method::POST, "leads", &[], &deal).await;
        let id = made["_embedded"]["leads"][0]["id"].clone();
        json!({"id": id, "status_id": self.setting.target.get()})
    }

    async fn write_back(&self, row: &Value, deal: &Value) {
        let id = row["id"].as_str().unwrap_or_default();
        let url = format!(
            "{}/rest/v1/tripwire_users?id=eq.{id}&select=id,amocrm_deal_id",
            self.sandbox.postgrest.url()
        );
        let written = self
            .http
            .patch(url)
            .header("apikey", self.sandbox.postgrest.key())
            .header("content-type", "application/json")
            .header("prefer", "return=representation")
            .body(json!({"amocrm_deal_id": deal["id"].to_string()}).to_string())
            .send()
            .await;
        let status = written.expect("PostgREST answers").status();
        assert!(status.is_success(), "{status}");
    }

    async fn amo(&self, method: Method, path: &str, query: &[(&str, &str)], body: &Value) -> Value {
        self.pace.lock().await.tick().await;
        let mut url = url::Url::parse(&format!("{}/api/v4/{path}", self.sandbox.amo.url()))
            .expect("an address of the sandbox");
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self
            .http
            .request(method, url)
            .bearer_auth(self.sandbox.amo.token());
        if !body.is_null() {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = request.send().await.expect("amoCRM answers");
        let status = answer.status();
        assert!(status.is_success(), "{path}: {status}");
        let text = answer.text().await.expect("an answer to the end");
        // 204 for a search that found nobody.
        serde_json::from_str(&text).unwrap_or_default()
    }
}

fn has_email(contact: &Value, email: &str) -> bool {
    let fields = contact["custom_fields_values"].as_array();
    let mut values = fields
        .into_iter()
        .flatten()
        .filter(|field| field["field_code"] == "EMAIL")
        .filter_map(|field| field["values"].as_array())
        .flatten();
    values.any(|value| {
        let text = value["value"].as_str().unwrap_or_default();
        text.trim().to_lowercase() == email
    })
}
