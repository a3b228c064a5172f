use std::error::Error;

use serde_json::Value;

use super::{captured::Captured, *};

fn logged(format: LogFormat, filter: Option<&str>, colours: bool, act: impl FnOnce()) -> String {
    let captured = Captured::default();
    let subscriber = subscriber(format, filter, colours, captured.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, act);
    captured.text()
}

#[test]
fn a_json_line_has_its_fields_beside_the_message_and_no_colours() {
    let text = logged(LogFormat::Json, None, true, || {
        tracing::info!(delivery = "msg_1", duration_ms = 1.5, "webhook.receive");
    });

    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["message"], "webhook.receive");
    assert_eq!(line["delivery"], "msg_1");
    assert_eq!(line["duration_ms"], 1.5);
    assert_eq!(line["level"], "INFO");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn libraries_are_heard_from_warnings_on_and_ours_from_info_on() {
    let text = logged(LogFormat::Json, None, false, || {
        tracing::info!(target: "sqlx::query", "a query");
        tracing::info!(target: "actix_server::worker", "a worker");
        tracing::debug!(target: "tripwire_sync::sync", "a detail");
        tracing::warn!(target: "sqlx::query", "a slow query");
        tracing::info!(target: "tripwire_sync::sync", "an outcome");
    });

    let messages: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["message"].clone())
        .collect();
    assert_eq!(messages, ["a slow query", "an outcome"]);
}

#[test]
fn what_any_client_makes_the_http_library_say_is_heard_only_on_request() {
    for (filter, lines) in [(None, 0), (Some("debug"), 0), (Some("actix_http=error"), 1)] {
        let text = logged(LogFormat::Json, filter, false, || {
            tracing::error!(target: "actix_http::h1::dispatcher", "stream error");
        });
        assert_eq!(text.lines().count(), lines, "{filter:?}: {text}");
    }
}

#[test]
fn no_value_moves_the_cursor_or_begins_a_line_in_either_format() {
    let evil = "\u{1b}[2J\u{9b}1m\rA\u{202e}B\nERROR forged";
    let act = || tracing::warn!(%evil, debugged = ?evil, evil, "said: {evil}");
    for colours in [false, true] {
        let text = logged(LogFormat::Pretty, None, colours, act);
        let written_out = "\\u001b[2J\\u009b1m\\u000dA\\u202eB\\u000aERROR forged";
        assert!(text.contains(&format!("said: {written_out}")), "{text:?}");
        for c in ["\u{1b}[2J", "\u{9b}", "\r", "\u{202e}"] {
            assert!(!text.contains(c), "{text:?}");
        }
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert_eq!(text.contains("\u{1b}["), colours, "{text:?}");
    }
    let text = logged(LogFormat::Json, None, true, act);
    assert_eq!(text.lines().count(), 1, "{text:?}");
    assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
}

#[test]
fn a_text_line_has_its_fields_after_the_message() {
    let text = logged(LogFormat::Pretty, None, false, || {
        tracing::info!(delivery = "msg_1", attempt = 2, "webhook.receive");
    });
    let end = "webhook.receive delivery=\"msg_1\" attempt=2\n";
    assert!(text.ends_with(end), "{text:?}");
}

#[test]
fn a_filter_adds_to_what_is_usual() {
    let text = logged(
        LogFormat::Pretty,
        Some("tripwire_sync=debug,sqlx=info"),
        false,
        || {
            tracing::debug!(target: "tripwire_sync::sync", "a detail");
            tracing::info!(target: "sqlx::query", "a query");
            tracing::info!(target: "hyper::client", "a connection");
        },
    );

    assert!(
        text.contains("a detail") && text.contains("a query"),
        "{text}"
    );
    assert!(!text.contains("a connection"), "{text}");
}

#[test]
fn a_filter_that_cannot_be_read_is_an_error() {
    let error = subscriber(LogFormat::Json, Some("tripwire_sync=loud"), false, io::sink);
    assert!(error.is_err());
}

#[test]
fn a_panic_is_logged_without_what_it_formatted() {
    let text = logged(LogFormat::Json, None, false, || {
        log_panics();
        let secret = "whsec_secret";
        let formatted = panic::catch_unwind(|| panic!("cannot use {secret}"));
        let literal = panic::catch_unwind(|| panic!("a literal"));
        assert!(formatted.is_err() && literal.is_err());
        drop(panic::take_hook());
    });

    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("telemetry/tests.rs"), "{text}");
    assert!(text.contains("a literal"), "{text}");
    assert!(!text.contains("whsec_secret"), "{text}");
}

#[tokio::test]
async fn metrics_render_with_their_meaning_and_in_buckets() -> Result<(), Box<dyn Error>> {
    let handle = install_metrics()?;
    metrics::counter!("tripwire_webhooks_total", "outcome" => "of_this_test").increment(1);
    metrics::histogram!("tripwire_amocrm_request_seconds").record(0.2);

    let text = handle.render();
    for line in [
        "# HELP tripwire_webhooks_total Deliveries by what became of them",
        "tripwire_webhooks_total{outcome=\"of_this_test\"} 1",
        "tripwire_amocrm_request_seconds_bucket{le=\"0.1\"} 0",
        "tripwire_amocrm_request_seconds_bucket{le=\"0.25\"} 1",
    ] {
        assert!(text.lines().any(|have| have == line), "{line}\n{text}");
    }
    Ok(())
}
