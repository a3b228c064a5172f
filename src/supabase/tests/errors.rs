use super::*;

const RETRY: Disposition = Disposition::Retry { after: None };

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
        (refusal(400, "22P02"), "Row", Disposition::Park),
        (refusal(400, "23502"), "Row", Disposition::Park),
        (refusal(409, "23505"), "Row", Disposition::Park),
        (refusal(409, "23503"), "Row", Disposition::Park),
        (refusal(400, "23514"), "Row", Disposition::Park),
        (refusal(406, "PGRST116"), "Row", Disposition::Park),
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
        (reply(200, html), "Malformed", RETRY),
        (reply(200, ""), "Malformed", RETRY),
        (reply(200, r#"{"id":"x"}"#), "Malformed", RETRY),
        (reply(404, html), "Unexpected", RETRY),
        (refusal(405, "PGRST117"), "Unexpected", RETRY),
        (refusal(400, "PGRST100"), "Unexpected", RETRY),
        (refusal(400, "21000"), "Unexpected", RETRY),
        (
            reply(302, "").with("location", "/rest/v1/tripwire_users"),
            "Unexpected",
            RETRY,
        ),
        (reply(418, "{".repeat(200_000)), "Unexpected", RETRY),
    ];
    let server = Scripted::start(rows.iter().map(|(reply, ..)| reply.clone()));
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
    server.seen();
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
        assert_eq!(wire::error_code(body.as_bytes()), expected, "{body}");
    }
}

#[actix_web::test]
async fn nobody_at_home_means_that_nothing_was_sent() {
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

/// Accepts one connection, reads a little, says `answer` and hangs up.
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

    // Connections are taken by the kernel; nobody ever reads from them.
    let error = client.can_see_any_row().await.unwrap_err();

    assert!(matches!(error, SupabaseError::NoAnswer { .. }), "{error:?}");
}
