use std::{net::TcpListener, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Reply, Server, TARGET, client, client_with, error_of, settings, soon};
use crate::{AmoError, ContactId, DealId, Disposition, ItemProblem, NewNote, Problem, Refusal};

const RETRY: Disposition = Disposition::Retry { after: None };
const REFUSED: Disposition = Disposition::Refused;

fn bought() -> NewNote {
    NewNote {
        deal: DealId::new(901),
        text: "Bought".to_owned(),
    }
}

/// As JSON of the API and as a page of the gateway: the status alone decides.
fn both_ways(status: u16) -> [Reply; 2] {
    let body = json!({"title": "Whatever", "status": status, "detail": "Что-то не так"});
    [Reply::json(status, &body), Reply::html(status)]
}

#[tokio::test]
async fn a_refused_token_halts() {
    for reply in both_ways(401) {
        let error = error_of(reply).await;
        assert!(
            matches!(error, AmoError::Refused(Refusal::Unauthorized)),
            "{error:?}"
        );
        assert_eq!(
            error.disposition(),
            Disposition::Halt(Refusal::Unauthorized)
        );
        assert!(error.was_not_applied());
    }
}

#[tokio::test]
async fn an_unpaid_account_halts() {
    for reply in both_ways(402) {
        let error = error_of(reply).await;
        assert!(
            matches!(error, AmoError::Refused(Refusal::PaymentRequired)),
            "{error:?}"
        );
        assert_eq!(
            error.disposition(),
            Disposition::Halt(Refusal::PaymentRequired)
        );
        assert!(error.was_not_applied());
    }
}

#[tokio::test]
async fn a_ban_halts() {
    for reply in both_ways(403) {
        let error = error_of(reply).await;
        assert!(
            matches!(error, AmoError::Refused(Refusal::Forbidden)),
            "{error:?}"
        );
        assert_eq!(error.disposition(), Disposition::Halt(Refusal::Forbidden));
        assert!(error.was_not_applied());
    }
}

#[tokio::test]
async fn a_failing_server_is_tried_again_where_it_is_known_to_pass() {
    let table = [
        (500, REFUSED),
        (501, REFUSED),
        (502, RETRY),
        (503, RETRY),
        (504, RETRY),
        (507, REFUSED),
        (520, RETRY),
        (524, RETRY),
    ];
    for (status, disposition) in table {
        for reply in both_ways(status) {
            let error = error_of(reply).await;
            assert!(
                matches!(error, AmoError::Server { status: told } if told == status),
                "{error:?}"
            );
            assert_eq!(error.disposition(), disposition, "{status}");
            assert!(!error.was_not_applied());
        }
    }
}

#[tokio::test]
async fn a_status_that_the_api_does_not_name_lasts_but_for_a_timeout() {
    for (status, disposition) in [(304, REFUSED), (404, REFUSED), (408, RETRY)] {
        let error = error_of(Reply::html(status)).await;
        assert!(
            matches!(error, AmoError::Unexpected { status: told } if told == status),
            "{error:?}"
        );
        assert_eq!(error.disposition(), disposition);
        assert!(!error.was_not_applied());
    }
}

/// The error names the host, so that a person can correct the settings. The client sends no request there.
#[tokio::test]
async fn a_redirect_names_the_host_it_leads_to() {
    let table = [
        (
            "https://new.amocrm.ru/api/v4/contacts",
            Some("new.amocrm.ru"),
        ),
        ("//other.kommo.com/x", Some("other.kommo.com")),
        (
            "https://ann:secret@new.amocrm.ru:8443/?t=1",
            Some("new.amocrm.ru"),
        ),
        ("/login", None),
        ("http://[", None),
        ("", None),
    ];
    for status in [301, 302, 303, 307, 308] {
        for (location, expected) in table {
            let error = error_of(Reply::text(status, &[("Location", location)], "")).await;
            let AmoError::Moved { host, status: told } = &error else {
                panic!("{error:?}")
            };
            assert_eq!(*told, status);
            assert_eq!(host.as_deref(), expected, "{location}");
            assert_eq!(error.disposition(), REFUSED);
            assert!(!error.was_not_applied());
        }
    }
}

#[tokio::test]
async fn a_rejected_request_will_be_rejected_again() {
    for status in [400, 405, 409, 413, 422] {
        for reply in both_ways(status) {
            let error = error_of(reply).await;
            assert!(
                matches!(&error, AmoError::Rejected { status: told, problem } if *told == status && problem.items.is_empty()),
                "{error:?}"
            );
            assert_eq!(error.disposition(), REFUSED);
            assert!(
                !error.was_not_applied(),
                "the sound items of a batch may be applied"
            );
        }
    }
}

#[tokio::test]
async fn a_success_that_is_not_the_api_is_malformed() {
    let replies = [
        Reply::html(200),
        Reply::text(200, &[], ""),
        Reply::text(200, &[], r#"{"_embedded":{"contacts":[{"id":1}"#),
        Reply::json(200, &json!({"_page": 1})),
        Reply::json(200, &json!({"_embedded": {"leads": []}})),
    ];
    for reply in replies {
        let error = error_of(reply).await;
        assert!(matches!(error, AmoError::Malformed { .. }), "{error:?}");
        assert_eq!(error.disposition(), REFUSED);
        assert!(!error.was_not_applied());
    }
}

#[tokio::test]
async fn an_endless_success_is_malformed() {
    let body = " ".repeat((8 << 20) + 1);
    let error = error_of(Reply::text(200, &[], &body)).await;
    assert!(matches!(error, AmoError::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn an_endless_problem_is_a_problem_without_details() {
    let body = " ".repeat(1 << 20);
    let error = error_of(Reply::text(400, &[], &body)).await;
    assert!(
        matches!(error, AmoError::Rejected { status: 400, .. }),
        "{error:?}"
    );
}

fn problems(items: &Value) -> Reply {
    let body = json!({"validation-errors": items, "title": "Bad Request", "status": 400});
    Reply::json(400, &body)
}

async fn problem_of(reply: Reply) -> (Problem, Disposition) {
    match error_of(reply).await {
        error @ AmoError::Rejected { .. } => {
            let disposition = error.disposition();
            let AmoError::Rejected { problem, .. } = error else {
                unreachable!()
            };
            (problem, disposition)
        }
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_validation_error_tells_position_code_and_path() {
    let error = json!({"code": "FieldNotExpected", "path": "custom_fields_values.0.enum_code", "detail": "Поле ann@x.org занято"});
    for (request_id, index) in [
        (json!("7"), Some(7)),
        (json!(7), Some(7)),
        (json!("r7"), None),
        (Value::Null, None),
    ] {
        let reply = problems(&json!([{"request_id": request_id, "errors": [error]}]));
        let (problem, disposition) = problem_of(reply).await;
        let expected = ItemProblem {
            index,
            code: "FieldNotExpected".to_owned(),
            path: "custom_fields_values.0.enum_code".to_owned(),
            detail: "Поле … занято".to_owned(),
        };
        assert_eq!(problem.items, [expected]);
        assert_eq!(disposition, REFUSED);
    }
}

#[tokio::test]
async fn a_stage_that_is_no_choice_is_told_from_other_fields() {
    let table = [
        ("NotSupportedChoice", "status_id", true),
        ("NotSupportedChoice", "pipeline_id", true),
        ("NotSupportedChoice", "0.status_id", true),
        ("NotSupportedChoice", "leads.3.pipeline_id", true),
        ("NotSupportedChoice", "responsible_user_id", false),
        ("NotSupportedChoice", "old_status_id", false),
        ("FieldMissing", "status_id", false),
    ];
    for (code, path, is_about_stage) in table {
        let item = |code: &str, path: &str| json!({"request_id": "0", "errors": [{"code": code, "path": path}]});
        let reply = problems(&json!([item("TooFew", "name"), item(code, path)]));
        let error = error_of(reply).await;
        assert_eq!(error.is_about_stage(), is_about_stage, "{code} {path}");
        assert_eq!(error.disposition(), REFUSED);
    }
}

#[tokio::test]
async fn a_problem_in_an_odd_shape_is_a_problem_without_details() {
    for items in [
        json!(null),
        json!({}),
        json!("x"),
        json!([1, {"errors": 2}]),
    ] {
        let (problem, _) = problem_of(problems(&items)).await;
        assert_eq!(problem, Problem::default(), "{items}");
    }
}

#[tokio::test]
async fn values_do_not_pass_for_codes_and_paths() {
    let reply = problems(&json!([{"request_id": "0", "errors": [
        {"code": "bo ray", "path": "bo@x.org"}, {"code": "x".repeat(101)}]}]));
    let (problem, _) = problem_of(reply).await;
    assert_eq!(problem.to_string(), "? ?, ? ?");
}

#[tokio::test]
async fn what_amocrm_says_of_a_request_is_told() {
    for (body, told) in [
        (
            json!({"title": "Bad Request", "status": 400, "detail": "Код ошибки 244"}),
            "Код ошибки 244",
        ),
        (json!({"title": "Bad Request", "status": 400}), "no details"),
        (
            json!({"error_code": 244, "error": "Forbidden"}),
            "244 Forbidden",
        ),
        (
            json!({"response": {"error_code": "244", "error": "Нет прав"}}),
            "244 Нет прав",
        ),
        (
            json!({"detail": "Контакт ann@x.org уже есть"}),
            "Контакт … уже есть",
        ),
        (
            json!({"errors": {"1002": "Loss reason can be specified only for lost lead"}}),
            "1002 (Loss reason can be specified only for lost lead)",
        ),
        (
            json!({"errors": {"Ann Lee": "Phone +77012345678 is taken"}}),
            "? (Phone … is taken)",
        ),
        (json!({"errors": {"1": 7, "2": null}}), "1 (7), 2"),
        (
            json!({"errors": {"77012345678": "is taken"}}),
            "? (is taken)",
        ),
        (json!({"detail": 77_012_345_678_i64}), "…"),
        (
            json!({"validation-errors": {"0": {"errors": {"2": {"code": "TooFew", "path": "name"}}}}}),
            "name TooFew",
        ),
        (json!({"errors": []}), "no details"),
        (json!("Bad Request"), "no details"),
    ] {
        let (problem, disposition) = problem_of(Reply::json(400, &body)).await;
        assert_eq!(problem.to_string(), told, "{body}");
        assert_eq!(disposition, REFUSED);
    }
}

#[test]
fn a_long_problem_is_told_in_short() {
    let item = |position: usize| ItemProblem {
        index: Some(position),
        code: "TooFew".to_owned(),
        path: format!("name.{position}"),
        detail: String::new(),
    };
    let problem = |count| Problem {
        items: (0..count).map(item).collect(),
        detail: String::new(),
    };
    assert_eq!(problem(0).to_string(), "no details");
    assert_eq!(problem(2).to_string(), "name.0 TooFew, name.1 TooFew");
    assert!(problem(250).to_string().ends_with(" and 245 more"));
}

// 429

#[tokio::test]
async fn a_429_names_its_wait_in_several_ways() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let date = "Sun, 22 Nov 2026 12:02:00 GMT";
    let late = "Sun, 22 Nov 2026 11:59:00 GMT";
    let there = "Sun, 22 Nov 2026 12:01:30 GMT";
    let table: [(&[(&str, &str)], &str, _); 11] = [
        (&[("Retry-After", "30")], "", seconds(30)),
        (&[("Retry-After", date)], "", seconds(120)),
        (&[("Retry-After", date), ("Date", there)], "", seconds(30)),
        (&[("Retry-After", late)], "", seconds(0)),
        (&[("Retry-After", "999999")], "", seconds(600)),
        (
            &[("Retry-After", "30")],
            r#"{"retry_after":40}"#,
            seconds(30),
        ),
        (
            &[("Retry-After", "soon")],
            r#"{"retry_after":40}"#,
            seconds(40),
        ),
        (&[], r#"{"retry_after":300}"#, seconds(300)),
        (&[], r#"{"retry_after":"300"}"#, seconds(300)),
        (&[("Retry-After", "-5")], r#"{"retry_after":null}"#, None),
        (&[], "<html>429</html>", None),
    ];
    for (headers, body, expected) in table {
        let error = error_of(Reply::text(429, headers, body)).await;
        let AmoError::Throttled { retry_after } = error else {
            panic!("{error:?}")
        };
        assert_eq!(retry_after, expected, "{headers:?} {body}");
        assert_eq!(error.disposition(), Disposition::Retry { after: expected });
        assert!(error.was_not_applied());
    }
}

#[tokio::test]
async fn after_a_429_no_request_is_sent() {
    let throttled = Reply::text(429, &[("Retry-After", "30")], "");
    let server = Server::start([throttled]).await;
    let client = client(&server);
    let error = client.add_notes(&[bought()], soon()).await.unwrap_err();
    assert!(matches!(error, AmoError::Throttled { .. }), "{error:?}");
    let asked = Instant::now();
    let error = client
        .clone()
        .move_deals(&[DealId::new(1)], TARGET, asked + Duration::from_secs(20))
        .await
        .unwrap_err();
    assert!(matches!(error, AmoError::TooLate), "{error:?}");
    assert_eq!(error.disposition(), RETRY);
    assert!(error.was_not_applied());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_ban_turns_every_request_away_until_the_reset() {
    let unsent = std::iter::repeat_n(Reply::empty(), 10);
    let server = Server::start(std::iter::once(Reply::html(403)).chain(unsent)).await;
    let mut settings = settings(&server.url);
    settings.requests_per_second = std::num::NonZeroU32::MIN;
    let client = client_with(settings);
    let ids = [ContactId::new(1)];
    let asked = (0..10).map(|_| client.all_contacts(&ids));
    let answers = futures::future::join_all(asked).await;
    // One request was sent and refused. The others were not sent, so none of them counts as refused.
    let refused =
        |it: &&Result<_, AmoError>| matches!(it, Err(AmoError::Refused(Refusal::Forbidden)));
    assert_eq!(answers.iter().filter(refused).count(), 1);
    let unasked = |it: &&Result<_, AmoError>| matches!(it, Err(AmoError::TurnedAway));
    assert_eq!(answers.iter().filter(unasked).count(), 9);
    assert_eq!(server.seen().len(), 1);
    // Later requests are turned away too, until `reset`.
    let later = client.all_contacts(&ids).await;
    assert!(matches!(later, Err(AmoError::TurnedAway)), "{later:?}");
    assert_eq!(server.seen().len(), 1);
    client.reset();
    client.all_contacts(&ids).await.unwrap();
}

// Connections

#[tokio::test]
async fn a_connection_that_is_refused_was_not_sent() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", unused.local_addr().unwrap());
    drop(unused);
    let client = client_with(settings(&url.parse().unwrap()));
    let error = client.add_notes(&[bought()], soon()).await.unwrap_err();
    assert!(
        matches!(
            error,
            AmoError::NotSent {
                untrusted: false,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.disposition(), RETRY);
    assert!(error.was_not_applied());
}

async fn assert_no_answer(reply: Reply) {
    let server = Server::start([reply]).await;
    let mut settings = settings(&server.url);
    settings.timeouts.write = Duration::from_millis(300);
    let written = client_with(settings).add_notes(&[bought()], soon()).await;
    let error = written.unwrap_err();
    assert!(matches!(error, AmoError::NoAnswer { .. }), "{error:?}");
    assert_eq!(error.disposition(), RETRY);
    assert!(!error.was_not_applied());
    assert_eq!(server.seen().len(), 1, "sent once, never repeated");
}

#[tokio::test]
async fn a_connection_dropped_before_the_answer_is_no_answer() {
    assert_no_answer(Reply::ThenClose(Vec::new())).await;
}

#[tokio::test]
async fn a_connection_dropped_within_the_head_is_no_answer() {
    assert_no_answer(Reply::ThenClose(b"HTTP/1.1 200 OK\r\ncontent-".to_vec())).await;
}

#[tokio::test]
async fn a_connection_dropped_within_the_body_is_no_answer() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"_embedded\":".to_vec();
    assert_no_answer(Reply::ThenClose(half)).await;
}

#[tokio::test]
async fn a_server_that_never_answers_is_no_answer() {
    assert_no_answer(Reply::Silence).await;
}

#[tokio::test]
async fn a_body_that_never_ends_in_time_is_no_answer() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec();
    assert_no_answer(Reply::Bytes(half)).await;
}

#[tokio::test]
async fn a_failure_is_known_by_its_head_even_if_its_body_breaks() {
    let half = |status| {
        let head = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 100\r\n\r\n<html");
        Reply::ThenClose(head.into_bytes())
    };
    let error = error_of(half(429)).await;
    assert!(matches!(error, AmoError::Throttled { .. }), "{error:?}");
    let error = error_of(half(400)).await;
    assert!(matches!(error, AmoError::Rejected { .. }), "{error:?}");
    let error = error_of(half(502)).await;
    assert!(
        matches!(error, AmoError::Server { status: 502 }),
        "{error:?}"
    );
}

#[tokio::test]
async fn reads_have_a_time_limit_of_their_own() {
    let server = Server::start([Reply::Silence]).await;
    let mut settings = settings(&server.url);
    settings.timeouts.read = Duration::from_millis(100);
    settings.timeouts.write = Duration::from_hours(1);
    let error = client_with(settings).account().await.unwrap_err();
    assert!(
        matches!(&error, AmoError::NoAnswer { source } if source.is_timeout()),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_write_on_a_connection_that_the_server_drops_is_not_repeated() {
    let replies = [Reply::empty(), Reply::ThenClose(Vec::new())];
    let server = Server::start(replies).await;
    let client = client(&server);
    client.all_contacts(&[ContactId::new(1)]).await.unwrap();
    let error = client.add_notes(&[bought()], soon()).await.unwrap_err();
    assert!(matches!(error, AmoError::NoAnswer { .. }), "{error:?}");
    let connections: Vec<_> = server.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0], "the connection was used again");
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_token_stays_here() {
    let elsewhere = Server::start([Reply::empty()]).await;
    let target = elsewhere.url.to_string();
    for status in [301, 302, 307, 308] {
        let reply = Reply::text(status, &[("Location", &target)], "");
        let server = Server::start([reply]).await;
        let error = client(&server)
            .add_notes(&[bought()], soon())
            .await
            .unwrap_err();
        assert!(
            matches!(error, AmoError::Moved { status: told, .. } if told == status),
            "{error:?}"
        );
        assert_eq!(server.seen().len(), 1);
    }
    assert!(elsewhere.seen().is_empty());
}
