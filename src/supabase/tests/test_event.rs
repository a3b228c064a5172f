//! The test event, as the migration's functions answer.

use super::*;
use std::time::Duration;

use crate::domain::{EventFault, EventTest, Nonce};

fn nonce() -> Nonce {
    "0123456789abcdef0123456789abcdef".parse().unwrap()
}

async fn sent(reply: Reply) -> Result<Result<RequestId, Journey>, SupabaseError> {
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
    let Ok(Ok(id)) = client.send_test_event(nonce()).await else {
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
        assert_eq!(not_signed.unwrap(), Err(Journey::NotSigned { why }));
        let not_queued = sent(raised(status, "TW002", "SQLSTATE 42501")).await;
        let why = "SQLSTATE 42501".to_owned();
        assert_eq!(not_queued.unwrap(), Err(Journey::NotQueued { why }));
        let too_soon = sent(raised(status, "TW003", "another test event")).await;
        assert_eq!(too_soon.unwrap(), Err(Journey::TooSoon));
    }
    let long = sent(raised(400, "TW002", &"ё".repeat(1_000)))
        .await
        .unwrap();
    let why = "ё".repeat(120);
    assert_eq!(long, Err(Journey::NotQueued { why }));
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
        assert!(matches!(answer, Ok(Err(Journey::NoFunction))), "{answer:?}");
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
    let answered = |status, timed_out, error: Option<&str>, content: Option<&str>| {
        TestResult::Answered(Noted {
            status,
            timed_out,
            error: error.map(str::to_owned),
            content: content.map(str::to_owned),
        })
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
        let Ok(Ok(id)) = client.send_test_event(nonce()).await else {
            panic!("it is queued");
        };
        assert_eq!(client.test_result(id).await.unwrap(), expected, "{body}");
    }
}

#[test]
fn each_end_of_the_way_is_a_result() {
    use EventFault::{AnotherServer, NoAnswerNoted, NotQueued, NotSent, NotSigned, Refused};
    let why = String::new;
    let answered = |status: Option<u16>, content: &str| Journey::Answered {
        noted: Noted {
            status,
            timed_out: status.is_none(),
            error: None,
            content: Some(content.to_owned()),
        },
        after: Duration::ZERO,
    };
    let repeated = format!(r#"{{"status":"test","nonce":"{}"}}"#, nonce());
    let of_another = repeated.replace('0', "f");
    let queued = |is_moving| Journey::Queued {
        ahead: 3,
        is_moving,
    };
    let table = [
        (Journey::NoFunction, EventTest::NotPossible),
        (Journey::TooSoon, EventTest::Undecided),
        (queued(true), EventTest::Undecided),
        (queued(false), EventTest::Failed(NotSent)),
        (
            Journey::NotSigned { why: why() },
            EventTest::Failed(NotSigned),
        ),
        (
            Journey::NotQueued { why: why() },
            EventTest::Failed(NotQueued),
        ),
        (Journey::Lost, EventTest::Failed(NoAnswerNoted)),
        (answered(Some(200), &repeated), EventTest::Arrived),
        (
            answered(Some(200), r#"{"status":"ignored"}"#),
            EventTest::Arrived,
        ),
        (
            answered(Some(200), &of_another),
            EventTest::Failed(AnotherServer),
        ),
        (
            answered(Some(200), "<html>"),
            EventTest::Failed(AnotherServer),
        ),
        (answered(Some(401), ""), EventTest::Failed(Refused(401))),
        (
            answered(None, ""),
            EventTest::Failed(EventFault::Unreachable),
        ),
    ];
    for (journey, result) in table {
        assert_eq!(journey.result(nonce()), result, "{journey:?}");
    }
}

#[actix_web::test]
async fn a_test_event_is_followed_to_its_answer() {
    let queued = r#"{"state": "queued", "ahead": 3}"#;
    let answered = r#"{"state": "answered", "status": 200, "timed_out": false, "error": null, "content": null}"#;
    let unknown = r#"{"state": "unknown"}"#;
    // Two looks come within it.
    let moment = Duration::from_secs(2);
    let server = Scripted::start([ok("7"), ok(queued), ok(unknown), ok(answered)]).await;
    let journey = server.client().try_test_event(nonce(), moment).await;
    assert!(
        matches!(
            journey,
            Ok(Journey::Answered {
                noted: Noted {
                    status: Some(200),
                    ..
                },
                ..
            })
        ),
        "{journey:?}"
    );

    let server = Scripted::start([ok("7"), ok(unknown)]).await;
    let journey = server
        .client()
        .try_test_event(nonce(), Duration::ZERO)
        .await;
    assert!(matches!(journey, Ok(Journey::Lost)), "{journey:?}");
}
