//! The test event, as the migration's functions answer.

use super::*;
use crate::domain::Nonce;

fn nonce() -> Nonce {
    "0123456789abcdef0123456789abcdef".parse().unwrap()
}

async fn sent(reply: Reply) -> Result<TestEvent, SupabaseError> {
    Scripted::start([reply])
        .await
        .client()
        .send_test_event(nonce())
        .await
}

fn raised(status: u16, code: &str, message: &str) -> Reply {
    let body = serde_json::json!({"code": code, "details": null, "hint": null, "message": message});
    reply(status, body.to_string())
}

#[actix_web::test]
async fn a_test_event_is_asked_for_by_its_nonce_and_looked_for_by_its_id() {
    let server = Scripted::start([ok("7"), ok(r#"{"state": "queued", "ahead": 3}"#)]).await;
    let client = server.client();
    let Ok(TestEvent::Queued(id)) = client.send_test_event(nonce()).await else {
        panic!("it is queued");
    };
    let result = client.test_result(id).await.unwrap();
    assert_eq!(result, TestResult::Queued { ahead: 3 });

    let asked: Vec<_> = server
        .seen()
        .await
        .into_iter()
        .map(|seen| (seen.method, seen.path, seen.body))
        .collect();
    let post = |path: &str, body: &str| ("POST".to_owned(), path.to_owned(), body.to_owned());
    assert_eq!(
        asked,
        [
            post(
                "/rest/v1/rpc/tripwire_sync_test_event",
                r#"{"nonce":"0123456789abcdef0123456789abcdef"}"#
            ),
            post("/rest/v1/rpc/tripwire_sync_test_result", r#"{"id":7}"#),
        ]
    );
}

/// PostgREST answers an error code that it does not know with 400; others may choose another status.
#[actix_web::test]
async fn what_the_function_refuses_is_told_by_its_code_under_any_status() {
    for status in [400, 404, 500] {
        let not_signed = sent(raised(status, "TW001", "Vault has no usable secret")).await;
        let why = "Vault has no usable secret".to_owned();
        assert_eq!(not_signed.unwrap(), TestEvent::NotSigned { why });
        let not_queued = sent(raised(status, "TW002", "SQLSTATE 42501")).await;
        let why = "SQLSTATE 42501".to_owned();
        assert_eq!(not_queued.unwrap(), TestEvent::NotQueued { why });
        let too_soon = sent(raised(status, "TW003", "another test event")).await;
        assert_eq!(too_soon.unwrap(), TestEvent::TooSoon);
    }
    let long = sent(raised(400, "TW002", &"ё".repeat(1_000)))
        .await
        .unwrap();
    let why = "ё".repeat(120);
    assert_eq!(long, TestEvent::NotQueued { why });
}

#[actix_web::test]
async fn older_sql_is_told_from_a_database_that_is_busy() {
    for (status, code) in [
        (404, "PGRST202"),
        (404, "42883"),
        (403, "42501"),
        (401, "42501"),
    ] {
        let answer = sent(refusal(status, code)).await;
        assert!(matches!(answer, Ok(TestEvent::NoFunction)), "{answer:?}");
    }
    for (status, code) in [(401, "PGRST303"), (503, "PGRST002"), (500, "57014")] {
        let answer = sent(refusal(status, code)).await;
        let error = answer.unwrap_err();
        assert_silent(&error, "ann@example.org");
    }
    for body in ["true", "null", "\"7\"", "<html>"] {
        let answer = sent(ok(body)).await;
        assert!(
            matches!(answer, Err(SupabaseError::Malformed { .. })),
            "{body}: {answer:?}"
        );
    }
}

#[actix_web::test]
async fn each_result_is_read() {
    let answered =
        |status, timed_out, error: Option<&str>, content: Option<&str>| TestResult::Answered {
            status,
            timed_out,
            error: error.map(str::to_owned),
            content: content.map(str::to_owned),
        };
    for (body, expected) in [
        (r#"{"state": "unknown"}"#, TestResult::Unknown),
        (r#"{"state": "something new"}"#, TestResult::Unknown),
        (
            r#"{"state": "queued", "ahead": 0}"#,
            TestResult::Queued { ahead: 0 },
        ),
        (
            r#"{"state": "answered", "status": 200, "timed_out": false, "error": null, "content": "{}"}"#,
            answered(Some(200), false, None, Some("{}")),
        ),
        (
            r#"{"state": "answered", "status": null, "timed_out": true, "error": "Timeout of 5000 ms reached", "content": null}"#,
            answered(None, true, Some("Timeout of 5000 ms reached"), None),
        ),
    ] {
        let server = Scripted::start([ok("7"), ok(body)]).await;
        let client = server.client();
        let Ok(TestEvent::Queued(id)) = client.send_test_event(nonce()).await else {
            panic!("it is queued");
        };
        assert_eq!(client.test_result(id).await.unwrap(), expected, "{body}");
    }
}
