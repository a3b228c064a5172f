use serde_json::json;

use super::*;

const RETRY: Disposition = Disposition::Retry { after: None };
const REFUSED: Disposition = Disposition::Refused;

fn retry_in(seconds: u64) -> Disposition {
    Disposition::Retry {
        after: Some(Duration::from_secs(seconds)),
    }
}

fn halt(cause: HaltCause) -> Disposition {
    Disposition::Halt { cause, patience: 3 }
}

fn variant(error: &SupabaseError) -> &'static str {
    match error {
        SupabaseError::NotSent { .. } => "NotSent",
        SupabaseError::NoAnswer { .. } => "NoAnswer",
        SupabaseError::Busy { .. } => "Busy",
        SupabaseError::Refused { .. } => "Refused",
        SupabaseError::Schema { .. } => "Schema",
        SupabaseError::OutOfService { .. } => "OutOfService",
        SupabaseError::Row { .. } => "Row",
        SupabaseError::Theirs { .. } => "Theirs",
        SupabaseError::Unexpected { .. } => "Unexpected",
        SupabaseError::Malformed { .. } => "Malformed",
        SupabaseError::TooLarge => "TooLarge",
    }
}

#[actix_web::test]
async fn each_answer_means_what_the_documents_say() {
    let key = halt(HaltCause::SupabaseKey);
    let schema = halt(HaltCause::SupabaseSchema);
    let project = halt(HaltCause::SupabaseProject);
    let html = "<html>ann@example.org</html>";
    let rows: Vec<(Reply, &str, Disposition)> = vec![
        (reply(401, ""), "Refused", key),
        (reply(401, html), "Refused", key),
        (refusal(401, "PGRST301"), "Refused", key),
        (refusal(401, "PGRST303"), "Refused", key),
        (refusal(401, "42501"), "Refused", key),
        (refusal(403, "42501"), "Refused", key),
        (reply(403, html), "Refused", key),
        (refusal(404, "PGRST202"), "Schema", schema),
        (refusal(404, "PGRST205"), "Schema", schema),
        (refusal(404, "42P01"), "Schema", schema),
        (refusal(404, "42883"), "Schema", schema),
        (refusal(400, "42703"), "Schema", schema),
        (refusal(400, "PGRST204"), "Schema", schema),
        (refusal(406, "PGRST106"), "Schema", schema),
        (reply(402, html), "OutOfService", project),
        (reply(540, ""), "OutOfService", project),
        (refusal(405, "25006"), "OutOfService", project),
        (refusal(400, "22P02"), "Row", REFUSED),
        (refusal(400, "23502"), "Theirs", REFUSED),
        (refusal(409, "23505"), "Theirs", REFUSED),
        (refusal(409, "23503"), "Theirs", REFUSED),
        (refusal(400, "23514"), "Theirs", REFUSED),
        (refusal(406, "PGRST116"), "Row", REFUSED),
        (reply(408, ""), "Busy", RETRY),
        (reply(429, ""), "Busy", RETRY),
        (reply(429, "").with("retry-after", "7"), "Busy", retry_in(7)),
        (
            reply(429, "").with("retry-after", "86400"),
            "Busy",
            retry_in(600),
        ),
        (reply(429, "").with("retry-after", "soon"), "Busy", RETRY),
        (
            reply(429, "")
                .with("retry-after", "Sun, 22 Nov 2026 12:00:30 GMT")
                .with("date", "Sun, 22 Nov 2026 12:00:00 GMT"),
            "Busy",
            retry_in(30),
        ),
        (
            // Their clock is twenty seconds ahead of ours.
            reply(429, "")
                .with("retry-after", "Sun, 22 Nov 2026 12:00:30 GMT")
                .with("date", "Sun, 22 Nov 2026 12:00:20 GMT"),
            "Busy",
            retry_in(10),
        ),
        (
            reply(429, "").with("retry-after", "Sun, 22 Nov 2026 11:00:00 GMT"),
            "Busy",
            retry_in(0),
        ),
        (refusal(500, "57014"), "Busy", RETRY),
        (refusal(500, "55P03"), "Busy", RETRY),
        (refusal(500, "40001"), "Busy", RETRY),
        (refusal(500, "40P01"), "Busy", RETRY),
        (refusal(400, "57014"), "Busy", RETRY),
        (refusal(400, "40001"), "Busy", RETRY),
        (refusal(500, "53300"), "Busy", RETRY),
        (refusal(500, "08006"), "Busy", RETRY),
        (refusal(503, "57P01"), "Busy", RETRY),
        (refusal(400, "P0001"), "Theirs", REFUSED),
        (refusal(500, "P0001"), "Theirs", REFUSED),
        (refusal(400, "42P17"), "Theirs", REFUSED),
        (refusal(500, "42P17"), "Theirs", REFUSED),
        (refusal(500, "54001"), "Theirs", REFUSED),
        (refusal(413, "54001"), "Theirs", REFUSED),
        (refusal(500, "55000"), "Theirs", REFUSED),
        (refusal(503, "XX000"), "Theirs", REFUSED),
        (refusal(500, "42703"), "Schema", schema),
        (reply(500, html), "Unexpected", REFUSED),
        (reply(501, ""), "Unexpected", REFUSED),
        (refusal(503, "PGRST000"), "Busy", RETRY),
        (refusal(503, "PGRST001"), "Busy", RETRY),
        (
            refusal(503, "PGRST002").with("retry-after", "3"),
            "Busy",
            retry_in(3),
        ),
        (refusal(504, "PGRST003"), "Busy", RETRY),
        (reply(502, html), "Busy", RETRY),
        (reply(520, html), "Busy", RETRY),
        (reply(525, html), "Busy", RETRY),
        (reply(544, html), "Busy", RETRY),
        (reply(200, html), "Malformed", REFUSED),
        (reply(200, ""), "Malformed", REFUSED),
        (reply(200, r#"{"id":"x"}"#), "Malformed", REFUSED),
        (reply(404, html), "Unexpected", REFUSED),
        (refusal(405, "PGRST117"), "Unexpected", REFUSED),
        (refusal(400, "PGRST100"), "Unexpected", REFUSED),
        (refusal(400, "21000"), "Theirs", REFUSED),
        (
            reply(302, "").with("location", "/rest/v1/tripwire_users"),
            "Unexpected",
            REFUSED,
        ),
        (reply(418, "{".repeat(200_000)), "Unexpected", REFUSED),
    ];
    let server = Scripted::start(rows.iter().map(|(reply, ..)| reply.clone())).await;
    let client = server.client();
    for (reply, expected, disposition) in rows {
        let error = client.can_see_any_row().await.unwrap_err();

        let name = format!("{} {}", reply.status, reply.body.get(..40).unwrap_or(""));
        assert_eq!(variant(&error), expected, "{name}");
        assert_eq!(error.disposition(), disposition, "{name}");
        if expected != "Malformed" {
            assert!(
                error.to_string().contains(&reply.status.to_string()),
                "{error}"
            );
        }
        for secret in ["example.org", "127.0.0.1", KEY] {
            assert_silent(&error, secret);
        }
    }
}

/// The same codes, about what the project's own code uses.
#[test]
fn what_the_projects_own_code_misses_is_told_apart_from_what_we_miss() {
    let schema = |message: &str, code: &str| {
        let body = format!(r#"{{"code":"{code}","message":{}}}"#, json!(message));
        let error = wire::failure(400, wire::told(body.as_bytes()), None);
        match error {
            SupabaseError::Schema { .. } => None,
            SupabaseError::Theirs { culprit, .. } => Some(culprit),
            other => panic!("{other:?}"),
        }
    };
    let table = [
        ("42703", "column tripwire_users.phone does not exist", None),
        (
            "42703",
            r#"column "amocrm_deal_id" of relation "tripwire_users" does not exist"#,
            None,
        ),
        ("42703", "", None),
        (
            "42703",
            r#"record "new" has no field "updated_on""#,
            Some(Culprit::Trigger),
        ),
        (
            "42703",
            r#"record "old" has no field "x""#,
            Some(Culprit::Trigger),
        ),
        (
            "42703",
            r#"column "who" of relation "audit_log" does not exist"#,
            Some(Culprit::Missing),
        ),
        (
            "42P01",
            r#"relation "public.tripwire_users" does not exist"#,
            None,
        ),
        (
            "42P01",
            r#"relation "audit_log" does not exist"#,
            Some(Culprit::Missing),
        ),
        (
            "42883",
            "function is_owner(uuid) does not exist",
            Some(Culprit::Missing),
        ),
        (
            "42883",
            "function public.tripwire_sync_doctor() does not exist",
            None,
        ),
        (
            "42P17",
            r#"infinite recursion detected in policy for relation "tripwire_users""#,
            Some(Culprit::Policy),
        ),
        ("P0001", "Ann may not buy", Some(Culprit::Raised)),
        (
            "54001",
            "stack depth limit exceeded",
            Some(Culprit::Recursion),
        ),
        (
            "23514",
            r#"new row for relation "tripwire_users" violates check constraint "deal_is_short""#,
            Some(Culprit::Constraint(Some("deal_is_short".to_owned()))),
        ),
        (
            "23514",
            r#"violates check constraint "ann@example.org""#,
            Some(Culprit::Constraint(None)),
        ),
        ("55000", "x", Some(Culprit::Unknown)),
    ];
    for (code, message, culprit) in table {
        assert_eq!(schema(message, code), culprit, "{code} {message}");
    }
}

#[test]
fn only_what_looks_like_a_code_is_kept_of_a_body() {
    for (body, expected) in [
        (
            r#"{"code":"PGRST301","message":"ann@example.org"}"#,
            "PGRST301",
        ),
        (r#"{"code":57014}"#, "57014"),
        (r#"{"code":"ann@example.org"}"#, ""),
        (r#"{"code":"aVeryLongWordThatIsNoCode"}"#, ""),
        (r#"{"message":"42703"}"#, ""),
        (r#"["42703"]"#, ""),
        ("<html>", ""),
        ("", ""),
    ] {
        assert_eq!(wire::told(body.as_bytes()).code, expected, "{body}");
    }
}

#[actix_web::test]
async fn a_refused_connection_means_that_nothing_was_sent() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let client = Supabase::new(settings(url.parse().unwrap()), clock()).unwrap();

    let error = client.can_see_any_row().await.unwrap_err();

    assert!(
        matches!(
            error,
            SupabaseError::NotSent {
                untrusted: false,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.disposition(), RETRY);
    assert_silent(&error, "tripwire_users");
    assert_silent(&error, &url);
}

/// Accepts one connection, reads a little, says `answer` and hangs up. wiremock cannot stop within a body.
async fn hang_up_after(answer: &'static str) -> Url {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    actix_web::rt::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer.as_bytes()).await;
    });
    url.parse().unwrap()
}

#[actix_web::test]
async fn a_lost_answer_is_no_answer() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[{"] {
        let url = hang_up_after(answer).await;
        let client = Supabase::new(settings(url.clone()), clock()).unwrap();

        let error = client.can_see_any_row().await.unwrap_err();

        assert!(matches!(error, SupabaseError::NoAnswer { .. }), "{error:?}");
        assert_eq!(error.disposition(), RETRY);
        assert_silent(&error, "tripwire_users");
        assert_silent(&error, url.as_str());
    }
}

#[actix_web::test]
async fn a_late_answer_is_no_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let mut settings = settings(url);
    settings.timeout = Duration::from_millis(50);
    let client = Supabase::new(settings, clock()).unwrap();

    // The kernel accepts connections, and no task reads from them.
    let error = client.can_see_any_row().await.unwrap_err();

    assert!(matches!(error, SupabaseError::NoAnswer { .. }), "{error:?}");
}
