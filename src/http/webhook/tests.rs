use actix_web::{
    App,
    test::{TestRequest, call_service, init_service},
};
use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::sync::watch;

use super::*;
use crate::{
    domain::{SyncState, TestClock, WebhookSecret},
    http::{
        RefusalLog, Verifier, routes,
        signature::{ID, SIGNATURE, TIMESTAMP, sign},
    },
    inbox::{Inbox, Role},
    telemetry::captured::Captured,
};

const ROW: &str = "00000000-0000-4000-8000-000000000001";

fn inserted() -> Event {
    Event::Inserted(ROW.parse().unwrap())
}

fn body(edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut event = json!({
        "type": "INSERT",
        "table": "tripwire_users",
        "schema": "public",
        "record": { "id": ROW },
        "old_record": null,
    });
    edit(&mut event);
    event.to_string().into_bytes()
}

#[test]
fn an_insert_tells_its_row() {
    assert_eq!(parse(&body(|_| ())), Ok(inserted()));
}

#[test]
fn unknown_and_missing_members_do_no_harm() {
    let whole_row = body(|event| {
        event["record"]["price"] = json!(9_007_199_254_740_993_i64);
        event["record"]["full_name"] = json!("Иван «Пётр» \"😀\"");
        event["record"]["tags"] = json!([{ "a": [1, 2] }]);
        event["user_id"] = json!("somebody");
    });
    let bare = body(|event| {
        event.as_object_mut().unwrap().remove("old_record");
    });

    assert_eq!(parse(&whole_row), Ok(inserted()));
    assert_eq!(parse(&bare), Ok(inserted()));
}

#[test]
fn other_events_are_none_of_our_business_whatever_their_record() {
    for (member, value, why) in [
        ("schema", "private", NotOurs::Schema),
        ("table", "users", NotOurs::Table),
        ("type", "UPDATE", NotOurs::Type),
        ("type", "DELETE", NotOurs::Type),
        ("type", "insert", NotOurs::Type),
        ("type", "test", NotOurs::Type),
    ] {
        for record in [
            Value::Null,
            json!({}),
            json!({ "id": 17 }),
            json!({ "id": ROW }),
        ] {
            let body = body(|event| {
                event[member] = json!(value);
                event["record"] = record;
            });
            assert_eq!(parse(&body), Ok(Event::Other(why)), "{member} = {value}");
        }
    }
}

#[test]
fn an_insert_without_a_usable_id_is_malformed() {
    for record in [
        Value::Null,
        json!({}),
        json!({ "id": null }),
        json!({ "id": 17 }),
        json!({ "id": "17" }),
        json!({ "id": "" }),
        json!({ "id": { "id": ROW } }),
    ] {
        let body = body(|event| event["record"] = record.clone());
        assert_eq!(parse(&body), Err(Malformed::NoRowId), "{record}");
    }
}

const NONCE: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn a_test_event_tells_its_nonce() {
    let body = body(|event| {
        event["type"] = json!("TEST");
        event["record"] = json!({ "nonce": NONCE });
    });
    assert_eq!(parse(&body), Ok(Event::Test(NONCE.parse().unwrap())));
}

#[test]
fn a_test_event_without_a_usable_nonce_is_malformed() {
    for record in [
        Value::Null,
        json!({}),
        json!({ "id": ROW }),
        json!({ "nonce": null }),
        json!({ "nonce": 17 }),
        json!({ "nonce": NONCE.to_uppercase() }),
        json!({ "nonce": &NONCE[1..] }),
    ] {
        let body = body(|event| {
            event["type"] = json!("TEST");
            event["record"] = record.clone();
        });
        assert_eq!(parse(&body), Err(Malformed::NoNonce), "{record}");
    }
}

#[test]
fn other_json_is_not_an_event() {
    let no_table = body(|event| {
        event.as_object_mut().unwrap().remove("table");
    });
    let scalar_record = body(|event| event["record"] = json!("row"));
    let number_for_type = body(|event| event["type"] = json!(1));
    for body in [
        no_table,
        scalar_record,
        number_for_type,
        b"{}".to_vec(),
        b"null".to_vec(),
    ] {
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(
            matches!(parse(&body), Err(Malformed::NotAnEvent { .. })),
            "{text}"
        );
    }
}

#[test]
fn broken_json_is_told_apart_and_never_quoted() {
    let nested = format!("{{\"unknown\": {}", "[".repeat(100_000));
    let mut trailing = body(|_| ());
    trailing.extend_from_slice(b" secret");
    for body in [
        b"".as_slice(),
        b"{",
        b"{\"type\": secret}",
        b"{\"type\": \"\xff\"}",
        b"\xef\xbb\xbf{}",
        nested.as_bytes(),
        &trailing,
    ] {
        let error = parse(body).unwrap_err();
        assert!(matches!(error, Malformed::NotJson { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}

#[test]
fn json_may_be_announced_with_parameters_and_in_any_case() {
    for (announced, verdict) in [
        ("application/json", true),
        ("application/json; charset=utf-8", true),
        ("Application/JSON ;charset=utf-8", true),
        ("application/jsonp", false),
        ("application/problem+json", false),
        ("text/plain", false),
        ("", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, announced.parse().unwrap());
        assert_eq!(is_json(&headers), verdict, "{announced}");
    }
    assert!(!is_json(&HeaderMap::new()));
}

/// In this thread, so that log and metrics are those of this test alone.
#[tokio::test]
async fn each_delivery_is_told_and_counted_and_what_is_refused_is_not_quoted() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(captured.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let recorder = PrometheusBuilder::new().build_recorder();
    let _counting = metrics::set_default_local_recorder(&recorder);
    register_metrics();

    receive_one_of_each_kind().await;

    let log = captured.text();
    for leak in [
        "ann@example.org",
        "ann/example",
        "a-wrong-token",
        "v1,",
        "dHJpcHdpcmU",
    ] {
        assert!(!log.contains(leak), "{leak}: {log}");
    }
    let told: Vec<String> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["message"].as_str().unwrap().starts_with("webhook."))
        .map(|line| {
            ["level", "delivery", "client", "outcome", "reason"]
                .map(|field| line[field].as_str().unwrap_or("-"))
                .join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            "INFO msg_1 - accepted -",
            "INFO msg_1 - duplicate -",
            "INFO msg_1 - ignored not an insert",
            "INFO msg_1 - test -",
            "WARN - 192.0.2.1 refused_stale it was signed 360 s ago, which is too long",
            "WARN - 192.0.2.1 refused_stale it was signed 360 s in the future, which is too far",
            "WARN - 192.0.2.1 refused_signature no signature matches: another secret, or changed on the way",
            "WARN - 192.0.2.1 malformed the body is not an event of Supabase (column 27)",
            "WARN - 192.0.2.1 refused_signature its bearer token is another one",
            "WARN - 192.0.2.1 refused_signature the header webhook-id is there more than once",
            "WARN - 192.0.2.1 unsupported_type the content type is not application/json",
            "WARN - 192.0.2.1 too_large the body is longer than 16384 bytes",
            "ERROR - - unavailable the inbox is closed",
        ]
    );

    let rendered = recorder.handle().render();
    let mut counts: Vec<&str> = rendered
        .lines()
        .filter_map(|line| line.strip_prefix("tripwire_webhooks_total"))
        .collect();
    counts.sort_unstable();
    assert_eq!(
        counts,
        [
            "{outcome=\"accepted\"} 1",
            "{outcome=\"duplicate\"} 1",
            "{outcome=\"ignored\"} 1",
            "{outcome=\"malformed\"} 1",
            "{outcome=\"refused_signature\"} 3",
            "{outcome=\"refused_stale\"} 2",
            "{outcome=\"test\"} 1",
            "{outcome=\"too_large\"} 1",
            "{outcome=\"unavailable\"} 1",
            "{outcome=\"unsupported_type\"} 1",
        ]
    );
}

async fn receive_one_of_each_kind() {
    let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
    let secret =
        WebhookSecret::parse("whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::at(now);
    let inbox = Inbox::open(&folder.path().join("inbox.db"), Role::Owner, clock.clone())
        .await
        .unwrap();
    let state = web::Data::new(HttpState {
        hangs: std::sync::Arc::default(),
        inbox: inbox.clone(),
        verifier: Verifier {
            secrets: vec![secret.clone()],
            token: Some("the-token".into()),
            tolerance: Duration::from_mins(5),
        },
        clock,
        sync_status: watch::channel(SyncState::Working).1,
        refusals: RefusalLog::start(),
    });
    let refusals = state.refusals.clone();
    let app = init_service(App::new().app_data(state).configure(routes)).await;
    let post = |body: &[u8]| {
        TestRequest::post()
            .uri("/webhooks/supabase")
            .insert_header(("content-type", "application/json"))
            .set_payload(body.to_vec())
    };
    let signed = |at: Timestamp, body: &[u8]| {
        post(body)
            .insert_header((ID, "msg_1"))
            .insert_header((TIMESTAMP, at.as_second()))
            .insert_header((SIGNATURE, sign(&secret, "msg_1", at, body)))
    };
    let personal = body(|event| event["record"]["email"] = json!("ann@example.org"));
    let update = body(|event| event["type"] = json!("UPDATE"));
    let test = body(|event| {
        event["type"] = json!("TEST");
        event["record"] = json!({ "nonce": NONCE });
    });

    for delivery in [
        signed(now, &personal),
        signed(now, &personal),
        signed(now, &update),
        signed(now, &test),
        signed(now - Duration::from_mins(6), &personal),
        signed(now + Duration::from_mins(6), &personal),
        signed(now, &personal).set_payload("ann@example.org"),
        signed(now, b"{\"type\": \"ann@example.org\"}"),
        post(&personal).insert_header(("authorization", "Bearer a-wrong-token")),
        signed(now, &personal).append_header((ID, "ann@example.org")),
        post(&personal).insert_header(("content-type", "ann/example")),
        post(&vec![b' '; LONGEST_BODY + 1]),
    ] {
        let delivery = delivery.peer_addr(([192, 0, 2, 1], 40_000).into());
        call_service(&app, delivery.to_request()).await;
        refusals.flush();
    }
    inbox.close().await;
    call_service(&app, signed(now, &personal).to_request()).await;
    refusals.flush();
}
