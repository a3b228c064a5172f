use std::sync::Mutex;

use tokio::io::AsyncReadExt as _;

use super::*;
use crate::domain::USER_AGENT;

#[test]
fn each_query_crosses_the_bridge_unchanged() {
    let api = bridge::api("http://127.0.0.1:9/rest/v1");
    let client = outbound::client_builder(USER_AGENT, Duration::from_secs(1), &[])
        .unwrap()
        .build()
        .unwrap();
    let unsynced = |by_status| Unsynced {
        period: Period {
            until: Some(time("2026-12-01T00:00:00Z")),
            ..Period::since(time("2026-11-01T00:00:00Z"))
        },
        by_status,
    };
    let contact = Some(ContactId::new(7));
    let write = |over, contact| query::write_back(&api, id(ANN), over, DealId::new(42), contact);
    for (name, builder) in [
        ("probe", query::columns(&api, &["id", "email"])),
        ("rows", query::rows(&api, &["id"], &[id(ANN), id(BOB)])),
        ("first page", unsynced(false).page(&api, None)),
        ("next page", unsynced(true).page(&api, Some(id(ANN)))),
        ("count", unsynced(true).count(&api)),
        ("write back", write(None, contact)),
        ("write back over an empty text", write(Some(""), None)),
        ("write back over blanks", write(Some(" \t\n\u{a0}&+"), None)),
    ] {
        let old = builder.clone().build().build().unwrap();
        let new = bridge::request(&client, builder);

        assert_eq!(old.method().as_str(), new.method().as_str(), "{name}");
        assert_eq!(old.url().as_str(), new.url().as_str(), "{name}");
        let old_headers: Vec<_> = old
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect();
        let new_headers: Vec<_> = new
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect();
        assert_eq!(old_headers, new_headers, "{name}");
        let old_body = old.body().and_then(|body| body.as_bytes()).unwrap_or(b"");
        let new_body = new.body().and_then(|body| body.as_bytes()).unwrap_or(b"");
        assert_eq!(old_body, new_body, "{name}");
        assert_eq!(new_body.is_empty(), new.method() == "GET", "{name}");
    }
}

#[actix_web::test]
async fn only_a_jwt_is_sent_as_authorization() {
    for (key, jwt, authorization) in [
        (KEY, None, None),
        ("sb_publishable_x", None, None),
        ("eyJnot-a.jwt", None, None),
        (LEGACY_KEY, None, Some(LEGACY_KEY)),
        (KEY, Some(JWT), Some(JWT)),
        (LEGACY_KEY, Some(JWT), Some(JWT)),
    ] {
        let server = Scripted::start([ok("[]")]).await;
        let client = server.client_with(|settings| {
            settings.key = key.into();
            settings.jwt = jwt.map(Into::into);
        });

        client.can_see_any_row().await.unwrap();

        let seen = &server.seen().await[0];
        assert_eq!(seen.header("apikey"), Some(key));
        let expected = authorization.map(|jwt| format!("Bearer {jwt}"));
        assert_eq!(seen.header("authorization"), expected.as_deref(), "{key}");
        assert!(
            seen.header("user-agent")
                .unwrap()
                .starts_with("tripwire-sync/"),
            "the gateway refuses secret keys from browsers"
        );
    }
}

#[test]
fn a_key_that_is_no_header_is_an_error_without_the_key() {
    let mut settings = settings("http://127.0.0.1:9".parse().unwrap());
    settings.key = "sb_secret_broken\nkey".into();

    let error = Supabase::new(settings, clock()).unwrap_err();

    assert_silent(&error, "sb_secret_broken");
}

#[test]
fn the_client_says_nothing_of_its_keys() {
    let mut settings = settings("http://127.0.0.1:9".parse().unwrap());
    settings.jwt = Some(JWT.into());
    assert!(!format!("{settings:?}").contains(KEY));

    let client = Supabase::new(settings, clock()).unwrap();

    let text = format!("{client:?} {:?}", client.shared.transport);
    assert!(!text.contains(KEY) && !text.contains(JWT), "{text}");
}

#[actix_web::test]
async fn the_rest_path_follows_whatever_the_project_url_ends_with() {
    for path in ["", "/", "/proxy", "/proxy/"] {
        let server = Scripted::start([ok("[]")]).await;
        let base = server.url.join(path).unwrap();
        let client = server.client_with(|settings| settings.project_url = base);

        client.can_see_any_row().await.unwrap();

        let prefix = path.trim_end_matches('/');
        let expected = format!("{prefix}/rest/v1/tripwire_users");
        assert_eq!(server.seen().await[0].path, expected);
    }
}

// --- what is told of a request ---

#[actix_web::test]
async fn a_request_is_counted_by_route_and_status() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let server = Scripted::start([ok("[]"), ok("[]"), reply(503, "")]).await;
    let client = server.client();

    client.rows(&[id(ANN)]).await.unwrap();
    client.can_see_any_row().await.unwrap_err();
    let nobody = settings("http://127.0.0.1:1".parse().unwrap());
    let nobody = Supabase::new(nobody, clock()).unwrap();
    nobody.can_see_any_row().await.unwrap_err();

    let text = metrics.render();
    for (route, status) in [
        ("probe", "200"),
        ("rows", "200"),
        ("any", "503"),
        ("any", "not_sent"),
    ] {
        let line =
            format!(r#"tripwire_supabase_requests_total{{route="{route}",status="{status}"}} 1"#);
        assert!(text.contains(&line), "{line} in\n{text}");
    }
}

#[actix_web::test]
async fn a_log_line_names_the_route_and_nothing_of_the_request() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter("tripwire_sync=trace")
        .with_writer(move || Shared(Arc::clone(&writer)))
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let row = format!(r#"[{{"id":"{ANN}","email":"ann@example.org"}},{{"email":"x"}}]"#);
    let server = Scripted::start([ok("[]"), ok(row), ok("[]"), ok("[]")]).await;
    let client = server.client();

    client.rows(&[id(ANN)]).await.unwrap();
    let deal = DealId::new(42);
    client.write_back(id(ANN), deal, None).await.unwrap();

    let text = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert!(
        text.contains("write_back") && text.contains("duration_ms"),
        "{text}"
    );
    assert!(text.contains("unreadable=1"), "{text}");
    for secret in ["http", "127.0.0.1", "/rest", "example.org", KEY, "select"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
}

/// A log that can be read back.
struct Shared(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The crate `postgrest` brings an HTTP client with known faults. If that client connected, its connection would be the
/// first.
#[tokio::test]
async fn the_older_client_opens_no_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rest_url = format!("http://{}/rest/v1", listener.local_addr().unwrap());
    let api = bridge::api(&rest_url);
    let client = outbound::client_builder(USER_AGENT, Duration::from_secs(1), &[])
        .unwrap()
        .build()
        .unwrap();
    let unsynced = Unsynced {
        period: Period::since(time("2026-11-01T00:00:00Z")),
        by_status: true,
    };
    let mut requests: Vec<_> = [
        query::columns(&api, &["id"]),
        query::no_row(&api, &["id"]),
        query::rows(&api, &["id"], &[id(ANN)]),
        query::rows_but(&api, &[id(ANN)]),
        unsynced.page(&api, None),
        unsynced.page_of_blank(&api, None),
        unsynced.count(&api),
        query::write_back(&api, id(ANN), None, DealId::new(42), None),
    ]
    .into_iter()
    .map(|builder| bridge::request(&client, builder))
    .collect();
    // Background tasks of the older client, if any, get their turns.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }

    let ours = tokio::spawn(client.execute(requests.remove(0)));
    let (mut first, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(first.read_buf(&mut head).await.unwrap() > 0);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains("user-agent: tripwire-sync/"), "{head}");
    drop((first, listener));
    ours.await.unwrap().unwrap_err();
}
