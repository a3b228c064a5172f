//! What a client sees of each kind of fault.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;

struct Client {
    sandbox: Sandbox,
    clock: Clock,
    http: reqwest::Client,
    deals: [DealId; 4],
    bulk: Value,
}

#[derive(Debug, PartialEq)]
enum Seen {
    Answer(u16, String),
    /// The connection was closed.
    Nothing,
    /// The client gave up.
    TimedOut,
}

impl Seen {
    fn status(&self) -> u16 {
        match self {
            Self::Answer(status, _) => *status,
            Self::Nothing | Self::TimedOut => 0,
        }
    }

    fn json(&self) -> Option<Value> {
        match self {
            Self::Answer(_, body) => serde_json::from_str(body).ok(),
            Self::Nothing | Self::TimedOut => None,
        }
    }
}

impl Client {
    fn start() -> Self {
        let clock = Clock::at("2026-11-22T10:00:00Z".parse().unwrap());
        let sandbox = Sandbox::start_with(
            AmoQuirks::patient(),
            PostgrestQuirks::default(),
            clock.clone(),
        )
        .unwrap();
        let (deals, bulk) = sandbox.amo.world(|world| {
            let pipeline = world.add_pipeline("Tripwire", &["Заявка"]);
            let stage = pipeline.stages[0];
            let deals = [(); 4].map(|()| world.add_deal(&[], pipeline.id, stage, "Курс"));
            let bulk =
                deals.map(|id| json!({"id": id, "pipeline_id": pipeline.id, "status_id": 142}));
            (deals, json!(bulk))
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_millis(300))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self {
            sandbox,
            clock,
            http,
            deals,
            bulk,
        }
    }

    fn fails(&self, kind: Kind) {
        let at = Point::amo("leads.update");
        self.sandbox.faults().add(Fault::once(at, kind));
    }

    async fn see(&self, request: reqwest::RequestBuilder) -> Seen {
        match request.send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                Seen::Answer(status, answer.text().await.unwrap())
            }
            Err(error) if error.is_timeout() => Seen::TimedOut,
            Err(_) => Seen::Nothing,
        }
    }

    /// Moves all deals to 142.
    async fn write(&self) -> Seen {
        let amo = &self.sandbox.amo;
        let request = self
            .http
            .patch(format!("{}/api/v4/leads", amo.url()))
            .bearer_auth(amo.token())
            .header("content-type", "application/json")
            .body(self.bulk.to_string());
        self.see(request).await
    }

    fn moved(&self) -> [bool; 4] {
        self.sandbox.amo.world(|world| {
            self.deals
                .map(|id| world.deal(id).unwrap().stage == StageId::WON)
        })
    }

    async fn done(&self) {
        assert_eq!(self.sandbox.amo.protocol_errors(), [""; 0]);
        assert_eq!(self.sandbox.faults().unmet(), []);
        self.sandbox.stop().await;
    }
}

const NONE: [bool; 4] = [false; 4];
const ALL: [bool; 4] = [true; 4];

#[tokio::test]
async fn an_error_status_comes_before_or_after_the_effect() {
    let client = Client::start();
    for (when, moved) in [(When::Before, NONE), (When::After, ALL)] {
        client.fails(Kind::status(when, 502));
        let seen = client.write().await;
        assert_eq!((seen.status(), seen.json()), (502, None), "an HTML page");
        assert_eq!(client.moved(), moved);
    }
    client.fails(Kind::Status {
        when: When::Before,
        code: 500,
        page: Page::Json,
        retry_after: Some(7),
    });
    assert_eq!(client.write().await.json().unwrap()["status"], 500);
    client.done().await;
}

#[tokio::test]
async fn a_reset_closes_the_connection_before_or_after_the_effect() {
    let client = Client::start();
    for (when, moved) in [(When::Before, NONE), (When::After, ALL)] {
        client.fails(Kind::Reset(when));
        assert_eq!(client.write().await, Seen::Nothing);
        assert_eq!(client.moved(), moved);
    }
    assert_eq!(
        client.write().await.status(),
        200,
        "the next connection is fine"
    );
    let record = client.sandbox.requests();
    let told: Vec<_> = record
        .iter()
        .map(|it| (it.status, it.fault.clone()))
        .collect();
    let reset = |when| (None, Some(Kind::Reset(when)));
    assert_eq!(
        told,
        [reset(When::Before), reset(When::After), (Some(200), None)]
    );
    client.done().await;
}

#[tokio::test]
async fn a_hang_lasts_until_the_client_gives_up_and_does_not_hold_up_the_stop() {
    let client = Client::start();
    client.fails(Kind::Hang(When::Before));
    client.fails(Kind::Hang(When::After));
    assert_eq!(client.write().await, Seen::TimedOut);
    assert_eq!(client.moved(), NONE);
    assert_eq!(client.write().await, Seen::TimedOut);
    assert_eq!(client.moved(), ALL);
    tokio::time::timeout(Duration::from_secs(5), client.done())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_late_commit_appears_when_the_clock_has_gone_on() {
    let client = Client::start();
    client.sandbox.amo.quirks(|quirks| quirks.time_scale = 0.1);
    let delay = Duration::from_secs(30);
    client.fails(Kind::LateCommit { delay });
    assert_eq!(client.write().await.status(), 504);
    client.clock.advance(Duration::from_millis(2999));
    assert_eq!(
        (client.moved(), client.sandbox.amo.late_commits()),
        (NONE, 1)
    );
    client.clock.advance(Duration::from_millis(1));
    assert_eq!(
        (client.moved(), client.sandbox.amo.late_commits()),
        (ALL, 0)
    );
    client.done().await;
}

#[tokio::test]
async fn a_success_that_is_not_the_api_has_had_its_effect() {
    let lies = [
        (Kind::MalformedJson, 200),
        (Kind::HtmlOk, 200),
        (Kind::NoContent, 204),
    ];
    for (kind, status) in lies {
        let client = Client::start();
        client.fails(kind);
        let seen = client.write().await;
        assert_eq!((seen.status(), seen.json()), (status, None));
        assert_eq!(client.moved(), ALL);
        client.done().await;
    }
}

#[tokio::test]
async fn a_short_answer_lacks_half_of_what_was_done() {
    let client = Client::start();
    client.fails(Kind::ShortAnswer);
    let answer = client.write().await.json().unwrap();
    assert_eq!(answer["_embedded"]["leads"].as_array().unwrap().len(), 2);
    assert_eq!(client.moved(), ALL);
    client.done().await;
}

#[tokio::test]
async fn a_rejected_bulk_names_the_bad_item() {
    for (others_applied, moved) in [(false, NONE), (true, [true, true, false, true])] {
        let client = Client::start();
        client.fails(Kind::BulkRejected {
            others_applied,
            bad_index: 2,
        });
        let seen = client.write().await;
        assert_eq!(seen.status(), 400);
        assert_eq!(
            seen.json().unwrap()["validation-errors"][0]["request_id"],
            "2"
        );
        assert_eq!(client.moved(), moved);
        client.done().await;
    }
}

#[tokio::test]
async fn following_a_redirect_with_the_token_is_written_down() {
    let client = Client::start();
    client.fails(Kind::Redirect);
    assert_eq!(client.write().await.status(), 302);
    assert_eq!(client.sandbox.amo.protocol_errors(), [""; 0]);
    let amo = &client.sandbox.amo;
    let elsewhere = format!("{}{}", amo.url(), server::ELSEWHERE);
    client
        .see(client.http.get(elsewhere).bearer_auth(amo.token()))
        .await;
    assert_eq!(
        amo.protocol_errors(),
        ["a redirect was followed with the token"]
    );
    client.sandbox.stop().await;
}

#[tokio::test]
async fn both_servers_share_one_numbered_record_and_one_script() {
    let client = Client::start();
    let postgrest = &client.sandbox.postgrest;
    let fault = Fault::once(
        Point::postgrest("rows.read"),
        Kind::status(When::Before, 503),
    );
    client.sandbox.faults().add(fault);
    assert_eq!(client.write().await.status(), 200);
    let url = format!("{}/rest/v1/tripwire_users?select=id", postgrest.url());
    let read = client.http.get(url).header("apikey", postgrest.key());
    assert_eq!(client.see(read).await.status(), 503);
    let record = client.sandbox.requests();
    let told: Vec<_> = record
        .iter()
        .map(|it| (it.number, it.server, it.route))
        .collect();
    let expected = [
        (1, Server::Amo, "leads.update"),
        (2, Server::Postgrest, "rows.read"),
    ];
    assert_eq!(told, expected);
    client.done().await;
}
