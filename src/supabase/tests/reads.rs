use secrecy::ExposeSecret;

use super::*;
use crate::domain::Price;

#[actix_web::test]
async fn rows_are_asked_for_by_id_with_the_columns_that_exist() {
    let server = Scripted::start([ok("[]"), ok("[]")]).await;
    let client = server.client_with(|settings| settings.note_columns = vec!["manager_name"]);

    client.rows(&[id(ANN), id(BOB)]).await.unwrap();

    let seen = &server.seen().await[1];
    assert_eq!(
        (&*seen.method, &*seen.path),
        ("GET", "/rest/v1/tripwire_users")
    );
    assert_eq!(
        seen.query(),
        [
            ("select", &*format!("{ALL},manager_name")),
            ("id", &*format!("in.({ANN},{BOB})"))
        ]
    );
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(seen.header("prefer"), None);
}

async fn read_rows(body: String) -> Result<Vec<Row>, SupabaseError> {
    let server = Scripted::start([ok("[]"), ok(body)]).await;
    let rows = server.client().rows(&[id(ANN)]).await?;
    Ok(rows.rows)
}

#[actix_web::test]
async fn a_row_is_read_whole() {
    let body = serde_json::json!([{
        "id": ANN, "email": "Ann@example.org ", "full_name": "Ann Lee", "phone": "+7 701 234-56-78",
        "manager_name": "Max", "price": 990, "generated_password": "s3cret", "status": " Active\n",
        "created_at": "2026-11-20T10:00:00.5+05:00", "amocrm_deal_id": "123", "something": {"new": []}
    }]);

    let rows = read_rows(body.to_string()).await.unwrap();

    let row = &rows[0];
    assert_eq!(row.id, id(ANN));
    assert_eq!(row.email.as_deref(), Some("Ann@example.org "));
    assert_eq!(row.full_name.as_deref(), Some("Ann Lee"));
    assert_eq!(row.phone.as_deref(), Some("+7 701 234-56-78"));
    assert_eq!(row.manager_name.as_deref(), Some("Max"));
    assert_eq!(row.price, Price::of("990"));
    let password = row.generated_password.as_ref().unwrap();
    assert_eq!(password.expose_secret(), "s3cret");
    assert_eq!(row.status.as_deref(), Some("active"));
    assert_eq!(row.created_at, Some(time("2026-11-20T05:00:00.5Z")));
    assert_eq!(row.deal_id.as_deref(), Some("123"));
    let text = format!("{row:?}");
    assert!(text.contains(ANN), "{text}");
    for personal in ["nn@", "Lee", "701", "Max", "s3cret", "990", "123"] {
        assert!(!text.replace(ANN, "").contains(personal), "{text}");
    }
}

#[actix_web::test]
async fn a_read_that_is_not_found_says_nothing_about_rows() {
    let server = Scripted::start([ok("[]"), reply(404, "[]")]).await;
    let client = server.client();

    let error = client.rows(&[id(ANN)]).await.map(|read| read.rows.len());

    assert!(
        matches!(error, Err(SupabaseError::Unexpected { status: 404, .. })),
        "{error:?}"
    );
}

#[test]
fn each_value_is_read_leniently() {
    fn read(column: &str, value: &str) -> Row {
        let body = format!(r#"[{{"id":"{ANN}","{column}":{value}}}]"#);
        wire::rows(body.as_bytes()).unwrap().remove(0)
    }
    for (value, expected) in [
        ("null", None),
        (r#""""#, None),
        (r#""  ""#, None),
        (r#""123""#, Some("123")),
        (r#"" 123 ""#, Some("123")),
        ("123", Some("123")),
        ("9007199254740993", Some("9007199254740993")),
        // Nonsense, but not empty: the row must not count as unsynced.
        ("false", Some("false")),
        (r#"{"a":1}"#, Some(r#"{"a":1}"#)),
    ] {
        let deal = read("amocrm_deal_id", value).deal_id;
        assert_eq!(deal.as_deref(), expected, "{value}");
    }
    for (value, said) in [
        ("null", None),
        ("990", Some("990")),
        ("990.00", Some("990.00")),
        ("145.90", Some("145.90")),
        ("0.40", Some("0.40")),
        (r#""4990,50""#, Some("4990,50")),
        (r#"" 990.00 ""#, Some("990.00")),
        (r#""about 990""#, Some("about 990")),
        (r#""""#, None),
        ("true", None),
        ("[1]", None),
    ] {
        let price = read("price", value).price;
        assert_eq!(price.as_ref().map(Price::as_str), said, "{value}");
    }
    for (value, expected) in [
        ("null", None),
        (r#""2026-11-20T10:00:00Z""#, Some("2026-11-20T10:00:00Z")),
        (
            r#""2026-11-20T10:00:00.123456+00:00""#,
            Some("2026-11-20T10:00:00.123456Z"),
        ),
        (
            r#""2026-11-20T10:00:00-08:30""#,
            Some("2026-11-20T18:30:00Z"),
        ),
        (
            r#""2026-11-20T10:00:00.25""#,
            Some("2026-11-20T10:00:00.25Z"),
        ),
        (r#""2026-11-20 10:00:00""#, Some("2026-11-20T10:00:00Z")),
        (r#""2026-11-20""#, Some("2026-11-20T00:00:00Z")),
        (r#""yesterday""#, None),
        ("[]", None),
    ] {
        let created_at = read("created_at", value).created_at;
        assert_eq!(created_at, expected.map(time), "{value}");
    }
    assert_eq!(
        read("phone", "77012345678").phone.as_deref(),
        Some("77012345678")
    );
    assert_eq!(read("full_name", r#"" ""#).full_name, None);
    assert_eq!(read("email", "[1]").email, None);
    assert_eq!(
        read("status", r#""BLOCKED ""#).status.as_deref(),
        Some("blocked")
    );
}

#[actix_web::test]
async fn an_unreadable_row_does_not_hide_the_others() {
    let body =
        format!(r#"[{{"email":"x@example.org"}},7,{{"id":5}},{{"id":"{BOB}","email":{{}}}}]"#);

    let rows = read_rows(body).await.unwrap();

    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [id(BOB)]);
}

#[actix_web::test]
async fn rows_without_any_id_are_not_an_empty_answer() {
    let error = read_rows(r#"[{"email":"x@example.org"}]"#.to_owned())
        .await
        .unwrap_err();

    assert!(
        matches!(error, SupabaseError::Malformed { .. }),
        "{error:?}"
    );
}

#[actix_web::test]
async fn rows_are_as_old_as_the_date_of_the_answer() {
    for (date, expected) in [
        (
            Some("Fri, 20 Nov 2026 10:00:00 GMT"),
            "2026-11-20T10:00:00Z",
        ),
        // Without a usable `Date`, our own clock counts.
        (Some("yesterday"), "2026-11-22T12:00:00Z"),
    ] {
        let mut answer = ok("[]");
        answer.headers.extend(date.map(|date| ("date", date)));
        let server = Scripted::start([ok("[]"), answer]).await;

        let rows = server.client().rows(&[id(ANN)]).await.unwrap();

        assert_eq!(rows.read_at, time(expected), "{date:?}");
    }
}

#[actix_web::test]
async fn one_row_is_enough_to_see_any() {
    let server = Scripted::start([ok(format!(r#"[{{"id":"{ANN}"}}]"#)), ok("[]")]).await;
    let client = server.client();

    assert!(client.can_see_any_row().await.unwrap());
    assert!(!client.can_see_any_row().await.unwrap());

    assert_eq!(
        server.seen().await[0].query(),
        [("select", "id"), ("limit", "1")]
    );
}

const SINCE: &str = "2026-11-01T00:00:00Z";

fn since() -> Period {
    Period::since(time(SINCE))
}

const CREATED: (&str, &str) = (
    "or",
    "(created_at.gte.2026-11-01T00:00:00Z,created_at.is.null)",
);
const NOT_EXCLUDED: (&str, &str) = ("or", "(status.is.null,status.not.in.(blocked,inactive))");

#[actix_web::test]
async fn a_sweep_walks_by_id_until_an_empty_page() {
    let page = format!(r#"[{{"id":"{ANN}"}},{{"id":"{BOB}"}}]"#);
    let server = Scripted::start([ok("[]"), ok(page), ok("[]")]).await;
    let client = server.client();

    let first = client.unsynced(since(), None).await.unwrap();
    let second = client.unsynced(since(), Some(first[1])).await.unwrap();

    assert_eq!(first, [id(ANN), id(BOB)]);
    assert_eq!(second, []);
    let seen = server.seen().await;
    let filters = [
        ("select", "id"),
        ("amocrm_deal_id", "is.null"),
        CREATED,
        NOT_EXCLUDED,
        ("order", "id.asc"),
    ];
    assert_eq!(
        seen[1].query(),
        [&filters[..], &[("limit", "1000")]].concat()
    );
    let after = format!("gt.{BOB}");
    assert_eq!(
        seen[2].query(),
        [&filters[..], &[("id", &*after), ("limit", "1000")]].concat()
    );
    assert_eq!(seen[1].header("range"), None);
}

#[actix_web::test]
async fn a_period_is_asked_for_by_its_bounds() {
    let until = Some(time("2026-12-01T00:00:00Z"));
    let everything = Period {
        since: None,
        ..since()
    };
    let dated = |period| Period {
        with_undated: false,
        ..period
    };
    let both = Period { until, ..since() };
    for (period, bounds) in [
        (
            since(),
            &["(created_at.gte.2026-11-01T00:00:00Z,created_at.is.null)"][..],
        ),
        (everything, &[]),
        (dated(everything), &["(created_at.not.is.null)"]),
        (
            both,
            &[
                "(created_at.gte.2026-11-01T00:00:00Z,created_at.is.null)",
                "(created_at.lt.2026-12-01T00:00:00Z,created_at.is.null)",
            ],
        ),
        (
            dated(both),
            &[
                "(created_at.gte.2026-11-01T00:00:00Z)",
                "(created_at.lt.2026-12-01T00:00:00Z)",
                "(created_at.not.is.null)",
            ],
        ),
    ] {
        let server = Scripted::start([ok("[]"), ok("[]")]).await;
        server.client().unsynced(period, None).await.unwrap();
        let seen = server.seen().await;
        let query = seen[1].query();
        let asked: Vec<&str> = query
            .iter()
            .filter(|asked| asked.0 == "or" && **asked != NOT_EXCLUDED)
            .map(|(_, condition)| *condition)
            .collect();
        assert_eq!(asked, bounds, "{period:?}");
    }
}

#[actix_web::test]
async fn a_sweep_does_without_a_status_that_is_not_there() {
    let mut answers = vec![refusal(400, "42703")];
    answers.extend(vec![ok("[]"); 7]);
    answers.extend([refusal(400, "42703"), ok("[]"), ok("[]")]);
    let server = Scripted::start(answers).await;

    server.client().unsynced(since(), None).await.unwrap();

    let seen = server.seen().await;
    assert_eq!(
        seen.last().unwrap().query(),
        [
            ("select", "id"),
            ("amocrm_deal_id", "is.null"),
            CREATED,
            ("order", "id.asc"),
            ("limit", "1000")
        ]
    );
}

#[actix_web::test]
async fn a_status_that_knows_no_such_word_is_left_to_the_reader() {
    let server = Scripted::start([ok("[]"), refusal(400, "22P02"), ok("[]")]).await;

    server.client().unsynced(since(), None).await.unwrap();

    let seen = server.seen().await;
    assert!(seen[1].query().contains(&NOT_EXCLUDED));
    assert!(!seen[2].query().contains(&NOT_EXCLUDED));
}

#[actix_web::test]
async fn a_count_is_the_total_of_the_range() {
    for (answer, expected) in [
        (reply(206, "[{}]").with("content-range", "0-0/57"), 57),
        (ok("[]").with("content-range", "*/0"), 0),
        (refusal(416, "PGRST103").with("content-range", "*/0"), 0),
        (refusal(416, "PGRST103"), 0),
    ] {
        let server = Scripted::start([ok("[]"), answer]).await;

        let count = server.client().count_unsynced(since()).await.unwrap();

        assert_eq!(count, expected);
        let seen = &server.seen().await[1];
        assert_eq!(
            seen.query(),
            [
                ("select", "id"),
                ("amocrm_deal_id", "is.null"),
                CREATED,
                NOT_EXCLUDED
            ]
        );
        assert_eq!(seen.header("prefer"), Some("count=exact"));
        assert_eq!(seen.header("range"), Some("0-0"));
    }
}

#[actix_web::test]
async fn a_count_without_a_total_is_not_zero() {
    for answer in [
        ok("[]"),
        ok("[]").with("content-range", "*/*"),
        ok("[]").with("content-range", "0-14"),
    ] {
        let server = Scripted::start([ok("[]"), answer]).await;

        let error = server.client().count_unsynced(since()).await.unwrap_err();

        assert!(
            matches!(error, SupabaseError::Malformed { .. }),
            "{error:?}"
        );
    }
}

#[actix_web::test]
async fn ids_of_another_type_are_noticed() {
    for (body, expected) in [
        (format!(r#"[{{"id":"{ANN}"}}]"#), Some(true)),
        (r#"[{"id":17}]"#.to_owned(), Some(false)),
        (r#"[{"id":"17"}]"#.to_owned(), Some(false)),
        (r#"[{"id":null}]"#.to_owned(), Some(false)),
        ("[]".to_owned(), None),
    ] {
        let server = Scripted::start([ok(body.clone())]).await;
        assert_eq!(
            server.client().has_uuids().await.unwrap(),
            expected,
            "{body}"
        );
    }
}
