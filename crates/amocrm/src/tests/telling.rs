//! What errors, logs and metrics say, and what they must not.

use std::{io, net::TcpListener, sync::Arc};

use serde_json::json;
use tokio::time::Instant;

use super::{Reply, Server, TOKEN, client, client_with, clock, error_of, settings, soon, words_of};
use crate::{AmoCrm, ContactId, DealId, NewNote};

#[tokio::test]
async fn no_error_tells_an_address_a_url_or_the_token() {
    let broken = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec();
    let detail = json!({"detail": "ann@x.org sekret-token", "validation-errors": [
        {"request_id": "0", "errors": [{"code": "ann@x.org", "path": "https://x.org/"}]}]});
    let replies = [
        Reply::ThenClose(Vec::new()),
        Reply::ThenClose(b"ann@x.org sekret-token\r\n\r\n".to_vec()),
        Reply::ThenClose(broken),
        Reply::json(400, &detail),
        Reply::json(401, &detail),
        Reply::json(429, &detail),
        Reply::json(500, &detail),
        Reply::json(200, &detail),
    ];
    let mut errors = Vec::new();
    for reply in replies {
        errors.push(error_of(reply).await);
    }
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = format!("http://{}", unused.local_addr().unwrap());
    drop(unused);
    let client = client_with(settings(&refused.parse().unwrap()));
    errors.push(client.search_contacts("ann@x.org").await.unwrap_err());
    for error in errors {
        let words = words_of(&error);
        for secret in ["ann@", "x.org", "http://", "https://", "api/v4", TOKEN] {
            assert!(!words.contains(secret), "{secret} in {words}");
        }
    }
}

#[tokio::test]
async fn a_client_in_debug_does_not_tell_the_token() {
    let server = Server::start([]).await;
    let text = format!("{:?}", client(&server));
    assert!(!text.contains(TOKEN), "{text}");
}

#[test]
fn what_no_request_could_be_sent_with_is_found_at_the_start() {
    let sound = || settings(&"https://school.amocrm.ru".parse().unwrap());
    assert!(AmoCrm::new(sound(), clock()).is_ok());

    let mut token = sound();
    token.token = "sekret\ntoken".into();
    let error = AmoCrm::new(token, clock()).unwrap_err();
    assert!(error.is_builder() && !format!("{error:?}").contains("sekret"));

    let mut address = sound();
    address.base_url = "mailto:ann@x.org".parse().unwrap();
    let error = AmoCrm::new(address, clock()).unwrap_err();
    assert!(error.is_builder() && !format!("{error:?}").contains("ann"));

    let mut roots = sound();
    roots.extra_roots = vec![b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----".to_vec()];
    let error = AmoCrm::new(roots, clock()).unwrap_err();
    assert!(error.is_builder());
}

#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_tells_route_status_and_request_id_and_no_personal_data() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::start([Reply::text(401, &[("X-Request-Id", "req-7")], "")]).await;
    client(&server)
        .search_contacts("ann@x.org")
        .await
        .unwrap_err();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for told in ["contacts.search", "401", "req-7", "duration_ms"] {
        assert!(text.contains(told), "{told} not in {text}");
    }
    for secret in ["ann@", "ann%40", "x.org", "api/v4", TOKEN] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_outcome() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let replies = [Reply::empty(), Reply::ThenClose(Vec::new())];
    let server = Server::start(replies).await;
    let client = client(&server);
    client.search_contacts("ann@x.org").await.unwrap();
    let note = NewNote {
        deal: DealId::new(901),
        text: "Bought".to_owned(),
    };
    client.add_notes(&[note], soon()).await.unwrap_err();
    let text = handle.render();
    for line in [
        r#"test_amocrm_requests_total{route="contacts.search",status="204"} 1"#,
        r#"test_amocrm_requests_total{route="notes.add",status="no_answer"} 1"#,
        r#"test_amocrm_request_seconds_count{route="notes.add"} 1"#,
        "test_amocrm_throttle_wait_seconds_count 2",
    ] {
        assert!(text.contains(line), "{line} not in {text}");
    }
}

#[tokio::test]
async fn every_send_leaves_its_stamp() {
    let server = Server::start(std::iter::repeat_n(Reply::empty(), 5)).await;
    let client = client(&server);
    let before = Instant::now();
    for _ in 0..5 {
        client.all_contacts(&[ContactId::new(1)]).await.unwrap();
    }
    let stamps = client.send_stamps();
    assert_eq!(client.requests_sent(), stamps.len() as u64);
    assert_eq!(stamps.len(), 5);
    assert!(stamps.is_sorted() && stamps[0] >= before);
}
