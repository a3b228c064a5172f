//! PostgREST's answers to the requests that we send, and to those that we must not.

use serde_json::{Value, json};

use super::*;

struct Http {
    postgrest: PostgrestSandbox,
    clock: Clock,
    client: reqwest::Client,
}

struct Seen {
    status: u16,
    range: String,
    body: String,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    fn error(&self) -> (u16, String) {
        (
            self.status,
            self.json()["code"].as_str().unwrap_or_default().to_owned(),
        )
    }

    fn ids(&self) -> Vec<u32> {
        let rows = self.json();
        let rows = rows.as_array().into_iter().flatten();
        rows.map(|row| number(row["id"].as_str().unwrap()))
            .collect()
    }
}

fn id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn number(id: &str) -> u32 {
    id[24..].parse().unwrap()
}

impl Http {
    fn start() -> Self {
        let clock = Clock::at("2026-11-22T10:00:00.5Z".parse().unwrap());
        let quirks = PostgrestQuirks::default();
        let postgrest = PostgrestSandbox::start_on(any_port(), clock.clone(), quirks).unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            postgrest,
            clock,
            client: reqwest::Client::new(),
        }
    }

    fn insert(&self, number: u32, mut row: Value) {
        row["id"] = id(number).into();
        self.postgrest.insert_row(&row);
    }

    async fn send(&self, method: &str, query: &str, prefer: &str, body: &str) -> Seen {
        let url = format!("{}/rest/v1/{query}", self.postgrest.url());
        let request = self
            .client
            .request(method.parse().unwrap(), url)
            .header("apikey", self.postgrest.key())
            .header("prefer", prefer)
            .body(body.to_owned());
        see(request).await
    }

    async fn get(&self, query: &str) -> Seen {
        self.send("GET", &format!("tripwire_users?{query}"), "", "")
            .await
    }

    async fn patch(&self, query: &str, body: &Value) -> Seen {
        let prefer = "return=representation, handling=strict, max-affected=1";
        let query = format!("tripwire_users?{query}");
        self.send("PATCH", &query, prefer, &body.to_string()).await
    }
}

async fn see(request: reqwest::RequestBuilder) -> Seen {
    let answer = request.send().await.unwrap();
    let range = answer.headers().get("content-range");
    Seen {
        status: answer.status().as_u16(),
        range: range.map_or(String::new(), |it| it.to_str().unwrap().to_owned()),
        body: answer.text().await.unwrap(),
    }
}

#[tokio::test]
async fn keys_are_checked_as_supabase_does() {
    let http = Http::start();
    let url = format!("{}/rest/v1/tripwire_users?select=id", http.postgrest.url());
    http.postgrest
        .quirks(|quirks| quirks.jwt = Some("head.claims.mac".to_owned()));
    let cases = [
        (None, None, 401, ""),
        (Some("sb_secret_other"), None, 401, ""),
        (
            Some("sb_secret_sandbox"),
            Some("Bearer sb_secret_sandbox"),
            401,
            "PGRST301",
        ),
        (
            Some("sb_secret_sandbox"),
            Some("Bearer a.b.c"),
            401,
            "PGRST301",
        ),
        (
            Some("sb_secret_sandbox"),
            Some("Bearer head.claims.mac"),
            200,
            "",
        ),
        (Some("sb_secret_sandbox"), None, 200, ""),
    ];
    for (apikey, authorization, status, code) in cases {
        let mut request = http.client.get(&url);
        if let Some(key) = apikey {
            request = request.header("apikey", key);
        }
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        assert_eq!(
            see(request).await.error(),
            (status, code.to_owned()),
            "{apikey:?} {authorization:?}"
        );
    }
    let errors = [
        "/rest/v1/tripwire_users: no apikey",
        "a key that is no JWT was sent as Authorization",
    ];
    assert_eq!(http.postgrest.protocol_errors(), errors);
    http.postgrest.stop().await;
}

#[tokio::test]
async fn rows_are_filtered_ordered_and_cut_off() {
    let http = Http::start();
    http.insert(
        1,
        json!({"email": "a@x.org", "created_at": "2026-11-01T00:00:00+00:00"}),
    );
    http.insert(
        2,
        json!({"email": "b@x.org", "created_at": null, "status": null}),
    );
    http.insert(3, json!({"email": "c@x.org", "status": "blocked"}));
    http.insert(4, json!({"email": "d@x.org", "amocrm_deal_id": "900"}));
    let cases: [(String, &[u32]); 9] = [
        (format!("id=eq.{}", id(2)), &[2]),
        (format!("id=in.({},{})", id(4), id(1)), &[1, 4]),
        (format!("id=in.(\"{}\")", id(3)), &[3]),
        (format!("id=gt.{}", id(2)), &[3, 4]),
        ("amocrm_deal_id=is.null".to_owned(), &[1, 2, 3]),
        ("created_at=gte.2026-11-02".to_owned(), &[3, 4]),
        (
            "or=(created_at.gte.2026-11-02T00:00:00Z,created_at.is.null)".to_owned(),
            &[2, 3, 4],
        ),
        (
            "or=(status.is.null,status.not.in.(blocked,inactive))".to_owned(),
            &[1, 2, 4],
        ),
        ("status=not.in.(blocked)".to_owned(), &[1, 4]),
    ];
    for (filter, expected) in cases {
        let seen = http.get(&format!("select=id&{filter}&order=id.asc")).await;
        assert_eq!(
            (seen.status, seen.ids().as_slice()),
            (200, expected),
            "{filter}"
        );
    }
    http.postgrest.quirks(|quirks| quirks.max_rows = 3);
    let seen = http.get("select=id&order=id.asc").await;
    assert_eq!(
        (seen.status, seen.range.as_str()),
        (200, "0-2/*"),
        "cut off without a word"
    );
    assert_eq!(
        http.get("select=id&order=id.desc&limit=2").await.ids(),
        [4, 3]
    );
    assert_eq!(http.postgrest.protocol_errors(), [""; 0]);
    http.postgrest.stop().await;
}

#[tokio::test]
async fn columns_come_in_the_order_asked_for() {
    let http = Http::start();
    http.insert(1, json!({"email": "a@x.org", "price": 5000}));
    let seen = http.get("select=price,id,email").await;
    let expected = format!(r#"[{{"price":5000,"id":"{}","email":"a@x.org"}}]"#, id(1));
    assert_eq!(seen.body, expected);
    let created_at = http.get("select=created_at").await.json()[0]["created_at"].clone();
    assert_eq!(created_at, "2026-11-22T10:00:00.500000+00:00");
    http.postgrest.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_read_has_postgrests_codes() {
    let http = Http::start();
    http.postgrest.quirks(|quirks| {
        quirks.absent_columns = vec!["phone".to_owned()];
        quirks.unreadable_columns = vec!["generated_password".to_owned()];
    });
    let cases = [
        ("tripwire_users?select=nothing", 400, "42703"),
        ("tripwire_users?select=id,phone", 400, "42703"),
        ("tripwire_users?select=id&phone=is.null", 400, "42703"),
        ("tripwire_users?select=generated_password", 403, "42501"),
        ("tripwire_users?select=id&id=eq.7", 400, "22P02"),
        (
            "tripwire_users?select=id&created_at=gte.today",
            400,
            "22007",
        ),
        ("tripwire_users?select=id&email=ilike.*x*", 400, "PGRST100"),
        ("tripwire_users?select=id&order=id.up", 400, "PGRST100"),
        ("other?select=id", 404, "PGRST205"),
    ];
    for (query, status, code) in cases {
        let seen = http.send("GET", query, "", "").await;
        assert_eq!(seen.error(), (status, code.to_owned()), "{query}");
    }
    http.postgrest
        .quirks(|quirks| quirks.lease = LeaseFunction::Missing);
    let seen = http.send("POST", "rpc/tripwire_sync_lease", "", "{}").await;
    assert_eq!(seen.error(), (404, "PGRST202".to_owned()));
    assert_eq!(
        http.postgrest.protocol_errors().len(),
        3,
        "what we never use"
    );
    http.postgrest.quirks(|quirks| quirks.is_denied = true);
    assert_eq!(
        http.get("select=id").await.error(),
        (403, "42501".to_owned())
    );
    http.postgrest.stop().await;
}

#[tokio::test]
async fn counts_come_in_the_content_range() {
    let http = Http::start();
    for number in 1..=5 {
        http.insert(number, json!({}));
    }
    let count = |query: &'static str| http.send("HEAD", query, "count=exact", "");
    let seen = count("tripwire_users?select=id").await;
    assert_eq!(
        (seen.status, seen.range.as_str(), seen.body.as_str()),
        (200, "0-4/5", "")
    );
    let seen = count("tripwire_users?select=id&limit=1").await;
    assert_eq!((seen.status, seen.range.as_str()), (206, "0-0/5"));
    let seen = count("tripwire_users?select=id&amocrm_deal_id=eq.1").await;
    assert_eq!((seen.status, seen.range.as_str()), (200, "*/0"));
    let seen = count("tripwire_users?select=id&offset=50").await;
    assert_eq!((seen.status, seen.range.as_str()), (416, "*/5"));
    let seen = http.get("select=id&offset=50").await;
    assert_eq!(
        (seen.status, seen.body.as_str(), seen.range.as_str()),
        (200, "[]", "*/*")
    );
    http.postgrest.stop().await;
}

#[tokio::test]
async fn a_write_back_answers_with_the_row_or_with_none() {
    let http = Http::start();
    http.insert(1, json!({"email": "a@x.org"}));
    let query = format!(
        "id=eq.{}&amocrm_deal_id=is.null&select=id,amocrm_deal_id",
        id(1)
    );
    let change = json!({"amocrm_deal_id": 9_200_001});
    http.clock.advance(Duration::from_mins(1));
    let seen = http.patch(&query, &change).await;
    let expected = json!([{"id": id(1), "amocrm_deal_id": "9200001"}]);
    assert_eq!(
        (seen.status, seen.json()),
        (200, expected),
        "the column is text"
    );
    assert_eq!(seen.range, "0-0/*");
    let row = http.postgrest.row(id(1).parse::<Uuid>().unwrap()).unwrap();
    assert_eq!(row["updated_at"], "2026-11-22T10:01:00.500000+00:00");
    let seen = http.patch(&query, &change).await;
    assert_eq!(
        (seen.status, seen.body.as_str(), seen.range.as_str()),
        (200, "[]", "*/*")
    );
    let minimal = format!("tripwire_users?id=eq.{}&select=id", id(1));
    assert_eq!(http.send("PATCH", &minimal, "", "{}").await.status, 204);
    assert_eq!(http.postgrest.protocol_errors(), [""; 0]);
    http.postgrest.stop().await;
}

#[tokio::test]
async fn policies_hide_rows_without_an_error() {
    let http = Http::start();
    http.insert(1, json!({}));
    let one = format!("id=eq.{}&select=id", id(1));
    let change = json!({"amocrm_deal_id": "1"});
    for (policies, seen) in [(Policies::HideAll, 0), (Policies::NoUpdate, 1)] {
        http.postgrest.quirks(|quirks| quirks.policies = policies);
        assert_eq!(http.get(&one).await.ids().len(), seen);
        let patched = http.patch(&one, &change).await;
        assert_eq!((patched.status, patched.ids().len()), (200, 0));
    }
    http.postgrest.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_write_back_changes_nothing() {
    let http = Http::start();
    http.insert(1, json!({}));
    http.insert(2, json!({}));
    let change = json!({"amocrm_deal_id": "1"});
    let cases = [
        ("select=id", change.clone(), "21000"),
        ("select=id&status=eq.active", change.clone(), "PGRST124"),
        (
            "select=id&status=eq.active",
            json!({"deal": "1"}),
            "PGRST204",
        ),
        ("select=deal&status=eq.active", change.clone(), "42703"),
        (
            "select=id&status=eq.active",
            json!({"user_id": "1"}),
            "22P02",
        ),
        ("select=id&status=eq.active", json!([]), "PGRST102"),
    ];
    for (query, body, code) in cases {
        let seen = http.patch(query, &body).await;
        assert_eq!(seen.error(), (400, code.to_owned()), "{query} {body}");
    }
    http.postgrest
        .quirks(|quirks| quirks.knows_max_affected = false);
    let one = format!("select=id&id=eq.{}", id(1));
    assert_eq!(
        http.patch(&one, &change).await.error(),
        (400, "PGRST122".to_owned())
    );
    assert!(
        http.postgrest
            .rows()
            .iter()
            .all(|row| row["amocrm_deal_id"].is_null())
    );
    let without_strict = "return=representation, max-affected=1";
    let seen = http
        .send(
            "PATCH",
            &format!("tripwire_users?{one}"),
            without_strict,
            &change.to_string(),
        )
        .await;
    assert_eq!(seen.ids(), [1]);
    http.postgrest.stop().await;
}

#[tokio::test]
async fn a_lease_is_held_by_one_until_it_ends_or_is_given_back() {
    let http = Http::start();
    let take = async |holder: &str, seconds: u32| {
        let body = json!({"holder": holder, "seconds": seconds}).to_string();
        http.send("POST", "rpc/tripwire_sync_lease", "", &body)
            .await
            .body
    };
    assert_eq!(take("a", 0).await, "false");
    assert_eq!(take("a", 60).await, "true");
    assert_eq!(take("b", 60).await, "false");
    assert_eq!(take("b", 0).await, "false");
    assert_eq!(take("a", 60).await, "true");
    http.clock.advance(Duration::from_mins(1));
    assert_eq!(take("b", 60).await, "true");
    assert_eq!(take("b", 0).await, "true");
    assert_eq!(take("a", 60).await, "true");
    http.postgrest
        .quirks(|quirks| quirks.lease = LeaseFunction::Denied);
    assert!(take("a", 60).await.contains("42501"));
    http.postgrest.stop().await;
}

#[tokio::test]
async fn the_last_pause_or_resume_is_told_with_the_holder_of_the_lease() {
    let http = Http::start();
    let tell = async |body: &str| {
        let answer = http.send("POST", "rpc/tripwire_sync_pause", "", body).await;
        serde_json::from_str::<Value>(&answer.body).unwrap()
    };
    assert_eq!(tell("{}").await, json!({"last": null, "held_by": null}));
    let paused = tell(r#"{"paused": true}"#).await;
    assert_eq!(paused["last"]["is_paused"], true);
    let resumed = tell(r#"{"paused": false}"#).await;
    assert_eq!(resumed["last"]["is_paused"], false);
    let at = |told: &Value| {
        told["last"]["changed_at"]
            .as_str()
            .unwrap()
            .parse::<Timestamp>()
            .unwrap()
    };
    assert!(at(&resumed) > at(&paused), "{paused} {resumed}");

    let lease = json!({"holder": "a", "seconds": 60}).to_string();
    http.send("POST", "rpc/tripwire_sync_lease", "", &lease)
        .await;
    http.clock.advance(Duration::from_secs(9));
    let asked = tell(r#"{"paused": null}"#).await;
    assert_eq!(asked["held_by"], "a");
    assert_eq!(at(&asked), at(&resumed));
    assert!(
        asked["last"]["seconds_ago"].as_f64().unwrap() > 8.9,
        "{asked}"
    );

    http.postgrest.quirks(|quirks| quirks.has_pause = false);
    assert_eq!(tell("{}").await["code"], "PGRST202");
    http.postgrest.stop().await;
}

#[tokio::test]
async fn an_insert_posts_a_delivery_once() {
    let http = Http::start();
    // Any server will do as the receiver; this one writes down what came.
    let receiver = PostgrestSandbox::start(PostgrestQuirks::default()).unwrap();
    http.postgrest.on_insert(WebhookTarget {
        url: format!("{}/webhooks/supabase", receiver.url()),
        secret: "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=".into(),
    });
    http.insert(1, json!({"email": "a@x.org"}));
    let deliveries = http.postgrest.deliveries().await;
    assert_eq!(deliveries.len(), 1);
    assert_eq!(
        (deliveries[0].row.to_string(), deliveries[0].status),
        (id(1), Some(401))
    );
    http.postgrest.lose_webhooks();
    http.insert(2, json!({}));
    let came = receiver.requests();
    assert_eq!(came.len(), 1);
    assert_eq!(came[0].body["record"]["id"], id(1));
    assert_eq!(
        came[0].body["record"].as_object().unwrap().len(),
        2,
        "id and created_at only"
    );
    receiver.stop().await;
    http.postgrest.stop().await;
}

#[tokio::test]
async fn the_doctor_tells_what_the_sandbox_is_and_does() {
    let http = Http::start();
    let told = async || {
        let seen = http
            .send("POST", "rpc/tripwire_sync_doctor", "", "{}")
            .await;
        seen.json()
    };
    let healthy = told().await;
    assert_eq!(healthy["now"], "2026-11-22T10:00:00.500000+00:00");
    assert_eq!(healthy["caller"]["name"], "service_role");
    assert_eq!(healthy["caller"]["bypasses_rls"], true);
    assert_eq!(healthy["vault"]["url"], Value::Null);
    assert_eq!(healthy["lease"], Value::Null);

    let lease = json!({ "holder": "a", "seconds": 60 }).to_string();
    http.postgrest.quirks(|quirks| {
        quirks.lease = LeaseFunction::Present;
        quirks.policies = Policies::NoUpdate;
        quirks.absent_columns = vec!["price".to_owned()];
        quirks.unreadable_columns = vec!["phone".to_owned()];
        quirks.behind.unwritable_columns = vec!["amocrm_contact_id".to_owned()];
    });
    http.send("POST", "rpc/tripwire_sync_lease", "", &lease)
        .await;
    http.postgrest.on_insert(WebhookTarget {
        url: "https://sync.example.org:8443/webhooks/supabase".to_owned(),
        secret: "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE= whsec_short".into(),
    });
    let told = told().await;
    let has = |list: &Value, column: &str| {
        let list = list.as_array().unwrap();
        list.iter().any(|it| it == column)
    };
    assert!(!has(&told["columns"], "price") && has(&told["columns"], "phone"));
    let caller = &told["caller"];
    assert!(!has(&caller["may_select"], "phone") && has(&caller["may_select"], "email"));
    assert!(!has(&caller["may_update"], "amocrm_contact_id"));
    assert_eq!(
        (
            &caller["select_policy"],
            &caller["update_policy"],
            &told["rls"]
        ),
        (&json!(true), &json!(false), &json!(true))
    );
    assert_eq!(caller["bypasses_rls"], false);
    assert_eq!(
        told["lease"],
        json!({ "held_by": "a", "seconds_left": 60.0 })
    );
    assert_eq!(
        told["vault"],
        json!({ "url": "https://sync.example.org:8443", "url_path": "/webhooks/supabase",
                // printf 'tripwire-sync doctor' | openssl dgst -sha256 -hmac tripwire-test-key-0001-0001-0001
                "fingerprints": ["9b93e250f14f3507"],
                "unusable": 1, "error": null })
    );
    // What it tells is so.
    http.insert(1, json!({ "email": "a@example.org" }));
    let query = format!("tripwire_users?id=eq.{}&select=id", id(1));
    let body = json!({ "amocrm_contact_id": "1" }).to_string();
    assert_eq!(
        http.send("PATCH", &query, "", &body).await.error(),
        (403, "42501".to_owned())
    );

    http.postgrest
        .quirks(|quirks| quirks.behind.has_doctor = false);
    let seen = http
        .send("POST", "rpc/tripwire_sync_doctor", "", "{}")
        .await;
    assert_eq!(seen.error(), (404, "PGRST202".to_owned()));
    http.postgrest.stop().await;
}
