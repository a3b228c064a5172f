//! What a client sees of the account over HTTP.

use serde_json::{Value, json};

use super::{super::any_port, *};

/// A running account with one pipeline, and a client that has the token.
struct Http {
    amo: AmoSandbox,
    clock: Clock,
    client: reqwest::Client,
    pipeline: PipelineIds,
}

impl Http {
    fn start(quirks: AmoQuirks) -> Self {
        let clock = Clock::at("2026-11-22T10:00:00Z".parse().unwrap());
        let amo = AmoSandbox::start_on(any_port(), clock.clone(), quirks).unwrap();
        let pipeline =
            amo.world(|world| world.add_pipeline("Tripwire", &["Заявка", "Купил продукт"]));
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            amo,
            clock,
            client: reqwest::Client::new(),
            pipeline,
        }
    }

    async fn get(&self, path: &str) -> (u16, Option<Value>) {
        let request = self.client.get(format!("{}/api/v4/{path}", self.amo.url()));
        let answer = request.bearer_auth(self.amo.token()).send().await.unwrap();
        let status = answer.status().as_u16();
        (
            status,
            serde_json::from_str(&answer.text().await.unwrap()).ok(),
        )
    }

    /// The ids on a page; none for 204.
    async fn ids(&self, path: &str) -> Vec<i64> {
        let (_, body) = self.get(path).await;
        let body = body.unwrap_or_default();
        let items = body["_embedded"]
            .as_object()
            .and_then(|it| it.values().next().cloned());
        let items = items.unwrap_or_default();
        let items = items.as_array().into_iter().flatten();
        items.map(|it| it["id"].as_i64().unwrap()).collect()
    }
}

#[tokio::test]
async fn the_server_wants_its_token_and_tells_the_time_of_its_clock() {
    let http = Http::start(AmoQuirks::default());
    let url = format!("{}/api/v4/account", http.amo.url());
    let answer = http
        .client
        .get(&url)
        .bearer_auth(http.amo.token())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["date"], "Sun, 22 Nov 2026 10:00:00 GMT");
    assert_eq!(answer.headers()["content-type"], "application/hal+json");
    http.amo.set_token("other");
    let answer = http
        .client
        .get(&url)
        .bearer_auth("sandbox-token")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(http.amo.protocol_errors(), [""; 0]);
    assert_eq!(http.client.get(&url).send().await.unwrap().status(), 401);
    assert_eq!(
        http.amo.protocol_errors(),
        ["/api/v4/account: no Authorization"]
    );
    let seen: Vec<_> = http
        .amo
        .requests()
        .iter()
        .map(|it| (it.number, it.route, it.status))
        .collect();
    let route = "account";
    assert_eq!(
        seen,
        [
            (1, route, Some(200)),
            (2, route, Some(401)),
            (3, route, Some(401))
        ]
    );
    http.amo.stop().await;
}

#[tokio::test]
async fn the_eighth_request_of_a_second_is_refused_and_refusals_lead_to_a_ban() {
    let http = Http::start(AmoQuirks {
        throttled: Throttled::Body(300),
        ban_after: Some(3),
        ..AmoQuirks::default()
    });
    for _ in 0..7 {
        assert_eq!(http.get("account").await.0, 200);
    }
    for _ in 0..3 {
        let (status, body) = http.get("account").await;
        assert_eq!((status, &body.unwrap()["retry_after"]), (429, &json!(300)));
    }
    assert_eq!(http.get("account").await, (403, None));
    assert!(http.amo.is_banned());
    assert_eq!(http.amo.max_in_any_second(), 11);
    http.amo.lift_ban();
    assert_eq!(http.get("account").await.0, 429);
    http.amo.stop().await;
}

#[tokio::test]
async fn requests_are_counted_when_they_come_however_busy_the_account_is() {
    let http = Http::start(AmoQuirks {
        rate_limit: Some(1),
        ..AmoQuirks::default()
    });
    let (held, is_held) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel();
    let amo = http.amo.clone();
    let holding = tokio::task::spawn_blocking(move || {
        amo.world(|_| {
            held.send(()).unwrap();
            released.recv().unwrap();
        });
    });
    is_held.await.unwrap();

    let requests = [Box::pin(http.get("account")), Box::pin(http.get("account"))];
    let answers = async {
        let ((refused, _), _, other) = futures::future::select_all(requests).await;
        release.send(()).unwrap();
        let (let_in, _) = other.into_iter().next().unwrap().await;
        (refused, let_in)
    };
    let answers = tokio::time::timeout(Duration::from_secs(20), answers).await;
    assert_eq!(answers, Ok((429, 200)));
    holding.await.unwrap();
    http.amo.stop().await;
}

#[tokio::test]
async fn a_list_is_read_page_by_page_until_204() {
    let http = Http::start(AmoQuirks::patient());
    let ids: Vec<i64> = http.amo.world(|world| {
        let ids = (0..5).map(|n| world.add_contact(&format!("Ученик {n}"), &[], &[]).get());
        ids.collect()
    });
    let (status, body) = http.get("contacts?limit=2&page=1&order%5Bid%5D=asc").await;
    let body = body.unwrap();
    assert_eq!((status, &body["_page"]), (200, &json!(1)));
    let next = body["_links"]["next"]["href"].as_str().unwrap();
    let next = next.split("/api/v4/").nth(1).unwrap();
    assert_eq!(http.ids(next).await, ids[2..4]);
    let last = "contacts?limit=2&page=3&order[id]=asc";
    assert_eq!(http.ids(last).await, ids[4..]);
    assert_eq!(
        http.get(last).await.1.unwrap()["_links"]["next"],
        Value::Null
    );
    assert_eq!(http.get("contacts?limit=2&page=4").await, (204, None));
    assert_eq!(
        http.ids("contacts?limit=2&order[id]=desc").await,
        [ids[4], ids[3]]
    );
    http.amo.quirks(|quirks| quirks.next_link_missing = true);
    let body = http.get("contacts?limit=2&page=1").await.1.unwrap();
    assert_eq!(body["_links"]["next"], Value::Null);
    assert_eq!(http.amo.protocol_errors(), [""; 0]);
    http.amo.stop().await;
}

#[tokio::test]
async fn filters_take_raw_and_encoded_and_numbered_brackets() {
    let http = Http::start(AmoQuirks::patient());
    let (pipeline, stage) = (http.pipeline.id, http.pipeline.stages[0]);
    let (contact, deals) = http.amo.world(|world| {
        let contact = world.add_contact("Ержан", &["er+zhan@x.org"], &[]);
        let deals = [(); 3].map(|()| world.add_deal(&[contact], pipeline, stage, "Курс").get());
        world.delete_deal(DealId::new(deals[1])).unwrap();
        (contact, deals)
    });
    let [first, gone, last] = deals;
    assert_eq!(
        http.ids(&format!("leads?filter[id][]={first}&filter[id][]={gone}"))
            .await,
        [first]
    );
    assert_eq!(
        http.ids(&format!("leads?filter%5Bid%5D%5B0%5D={last}"))
            .await,
        [last]
    );
    assert_eq!(
        http.ids(&format!(
            "leads?filter[pipeline_id][]={pipeline}&order[id]=desc"
        ))
        .await,
        [last, first]
    );
    assert_eq!(http.ids("leads?filter[pipeline_id][]=1").await, [0; 0]);
    let since = http.clock.now().as_second();
    assert_eq!(
        http.ids(&format!("leads?filter[created_at][from]={since}"))
            .await,
        [first, last]
    );
    assert_eq!(
        http.ids(&format!("leads?filter[created_at][from]={}", since + 1))
            .await,
        [0; 0]
    );
    assert_eq!(
        http.ids("contacts?query=er%2Bzhan@x.org").await,
        [contact.get()]
    );
    assert_eq!(http.ids("contacts?query=er+zhan@x.org").await, [0; 0]);
    assert_eq!(http.get(&format!("leads/{gone}")).await, (204, None));
    let (_, found) = http.get(&format!("contacts/{contact}?with=leads")).await;
    let embedded = &found.unwrap()["_embedded"]["leads"];
    let embedded: Vec<i64> = embedded
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["id"].as_i64().unwrap())
        .collect();
    assert_eq!(embedded, deals, "a deleted deal's id stays");
    assert_eq!(http.amo.protocol_errors(), [""; 0]);
    http.amo.stop().await;
}

#[tokio::test]
async fn careless_reads_are_written_down() {
    let http = Http::start(AmoQuirks::patient());
    http.amo
        .world(|world| world.add_contact("Айгуль", &[], &[]));
    let many = "&filter[id][]=1".repeat(51);
    let cases = [
        ("contacts?query=".to_owned(), "whole account"),
        ("contacts?limit=251".to_owned(), "above 250"),
        (
            "contacts?filter[email]=a".to_owned(),
            "filter[email] is unknown",
        ),
        (
            "leads?order[id]=up".to_owned(),
            "order[id] is unknown or malformed",
        ),
        (format!("contacts?page=1{many}"), "51 ids, but a page of 50"),
        ("leads/1/links".to_owned(), "no route"),
        (
            format!("contacts?query={}", "x".repeat(8000)),
            "bytes of path and query",
        ),
    ];
    for (number, (path, expected)) in (1..).zip(cases) {
        http.get(&path).await;
        let errors = http.amo.protocol_errors();
        let of_this = errors.iter().filter(|error| error.contains(expected));
        assert_eq!(
            (errors.len(), of_this.count()),
            (number, 1),
            "{path}: {errors:?}"
        );
    }
    http.amo.stop().await;
}

#[tokio::test]
async fn the_field_filter_is_sold_apart() {
    let http = Http::start(AmoQuirks::patient());
    let ids: Vec<i64> = http.amo.world(|world| {
        ["a@x.org", "b@x.org"]
            .map(|email| world.add_contact("Кто-то", &[email], &[]).get())
            .into()
    });
    let path = "contacts?filter[custom_fields_values][1103][]=a@x.org";
    assert_eq!(
        http.get(path).await.1.unwrap()["detail"],
        "Invalid filter for current account"
    );
    http.amo
        .quirks(|quirks| quirks.field_filter = FieldFilter::Ignored);
    assert_eq!(http.ids(path).await, ids);
    http.amo
        .quirks(|quirks| quirks.field_filter = FieldFilter::Works);
    assert_eq!(http.ids(path).await, ids[..1]);
    http.amo.stop().await;
}

#[tokio::test]
async fn notes_are_listed_by_deal_and_type() {
    let http = Http::start(AmoQuirks::patient());
    let (pipeline, stage) = (http.pipeline.id, http.pipeline.stages[0]);
    let (deals, notes) = http.amo.world(|world| {
        let deals = [(); 2].map(|()| world.add_deal(&[], pipeline, stage, "Курс"));
        let notes = [
            world.add_note(deals[0], "common", "Раз").get(),
            world.add_note(deals[0], "service_message", "Два").get(),
            world.add_note(deals[1], "common", "Три").get(),
        ];
        (deals, notes)
    });
    let by_both = format!(
        "leads/notes?filter[entity_id][]={}&filter[entity_id][]={}&filter[note_type][]=common&order[id]=asc",
        deals[0], deals[1]
    );
    assert_eq!(http.ids(&by_both).await, [notes[0], notes[2]]);
    assert_eq!(
        http.ids(&format!("leads/{}/notes", deals[0])).await,
        notes[..2]
    );
    assert_eq!(http.get("leads/1/notes").await, (204, None));
    assert_eq!(http.amo.protocol_errors(), [""; 0]);
    http.amo.stop().await;
}

#[tokio::test]
async fn pipelines_are_listed_with_their_stages() {
    let http = Http::start(AmoQuirks::patient());
    let id = http.pipeline.id;
    let (_, list) = http.get("leads/pipelines").await;
    let list = list.unwrap();
    assert_eq!(list["_total_items"], 1);
    let (_, one) = http.get(&format!("leads/pipelines/{id}")).await;
    let one = one.unwrap();
    assert_eq!(list["_embedded"]["pipelines"][0], one);
    let stages: Vec<_> = one["_embedded"]["statuses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["id"].clone(), it["type"].clone()))
        .collect();
    let expected = [
        (json!(http.pipeline.unsorted), json!(1)),
        (json!(http.pipeline.stages[0]), json!(0)),
        (json!(http.pipeline.stages[1]), json!(0)),
        (json!(142), json!(0)),
        (json!(143), json!(0)),
    ];
    assert_eq!(stages, expected);
    assert_eq!(http.get("leads/pipelines/1").await.0, 404);
    http.amo.stop().await;
}
