//! The test event: sent as the trigger sends its own, and what the database tells of it.

use serde_json::{Value, json};

use super::{count, only, signed_with};
use crate::postgres::{Cluster, WEBHOOK_SECRET, WEBHOOK_URL};

const NONCE: &str = "0123456789abcdef0123456789abcdef";

fn send(cluster: &Cluster) -> String {
    cluster
        .sql_as(
            "tripwire_sync",
            &format!("select public.tripwire_sync_test_event('{NONCE}')"),
        )
        .unwrap()
}

/// The code with which it is refused, and what it says.
fn refused(cluster: &Cluster, change: &str) -> (String, String) {
    let error = cluster
        .sql_as(
            "supabase_admin",
            &format!("begin; {change}; set local role tripwire_sync; select public.tripwire_sync_test_event('{NONCE}'); rollback"),
        )
        .unwrap_err();
    (error.sqlstate().to_owned(), format!("{error:?}"))
}

fn result(cluster: &Cluster, id: &str) -> Value {
    let sql = format!("select public.tripwire_sync_test_result({id})");
    serde_json::from_str(&cluster.sql_as("tripwire_sync", &sql).unwrap()).unwrap()
}

/// Another test event may be sent at once.
fn let_ten_seconds_pass(cluster: &Cluster) {
    cluster
        .sql_as(
            "supabase_admin",
            "update tripwire_sync.test_event set sent_at = sent_at - interval '10 seconds'",
        )
        .unwrap();
}

#[test]
fn it_is_signed_and_queued_like_an_event_of_the_trigger() {
    let cluster = Cluster::configured();
    let id = send(&cluster);
    let request = only(cluster.queued());
    assert_eq!(request.url, WEBHOOK_URL);
    assert!(signed_with(&request, WEBHOOK_SECRET));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        body,
        json!({
            "type": "TEST",
            "table": "tripwire_users",
            "schema": "public",
            "record": { "nonce": NONCE },
            "old_record": null,
        })
    );
    let queued = cluster
        .sql_as("supabase_admin", "select id from net.http_request_queue")
        .unwrap();
    assert_eq!(id, queued);
}

#[test]
fn one_may_be_sent_in_ten_seconds() {
    let cluster = Cluster::configured();
    send(&cluster);
    let (code, said) = refused(&cluster, "select 1");
    assert_eq!(code, "TW003", "{said}");
    let_ten_seconds_pass(&cluster);
    send(&cluster);
    assert_eq!(count(&cluster, "net.http_request_queue"), 2);

    // The clock was put back.
    cluster
        .sql_as(
            "supabase_admin",
            "update tripwire_sync.test_event set sent_at = now() + interval '1 day'",
        )
        .unwrap();
    send(&cluster);
    // One that was not sent does not count.
    let_ten_seconds_pass(&cluster);
    refused(&cluster, "delete from vault.secrets");
    send(&cluster);
}

#[test]
fn it_names_the_part_that_it_does_not_come_past() {
    let cluster = Cluster::configured();
    for (change, code, words) in [
        (
            "delete from vault.secrets where name = 'tripwire_webhook_secret'",
            "TW001",
            "Vault has no usable tripwire_webhook_secret",
        ),
        (
            "delete from vault.secrets where name = 'tripwire_webhook_url'",
            "TW001",
            "Vault has no usable tripwire_webhook_url",
        ),
        ("drop schema vault cascade", "TW001", "SQLSTATE 42P01"),
        (
            "revoke all on schema vault from postgres, service_role cascade",
            "TW001",
            "SQLSTATE 42501",
        ),
        ("drop extension pgcrypto", "TW001", "SQLSTATE 42883"),
        (
            "revoke all on function net.http_post from public",
            "TW002",
            "SQLSTATE 42501",
        ),
        (
            "revoke all on net.http_request_queue from public",
            "TW002",
            "SQLSTATE 42501",
        ),
        (
            "revoke all on schema net from public",
            "TW002",
            "SQLSTATE 42501",
        ),
        ("drop function net.http_post", "TW002", "SQLSTATE 42883"),
        ("drop schema net cascade", "TW002", "SQLSTATE 3F000"),
    ] {
        let (have, said) = refused(&cluster, change);
        assert_eq!(have, code, "{change}: {said}");
        assert!(said.contains(words), "{change}: {said}");
        assert!(!said.contains("whsec_"), "{said}");
    }
    // Nothing of it is left behind.
    send(&cluster);
}

#[test]
fn a_nonce_has_32_hex_digits() {
    let cluster = Cluster::configured();
    for nonce in [
        "null".to_owned(),
        "''".to_owned(),
        format!("'{}'", &NONCE[1..]),
        format!("'{NONCE}0'"),
        format!("'{}'", NONCE.to_uppercase()),
        format!("e'{NONCE}\\n'"),
        format!("'{}'", NONCE.replace('0', "\"")),
    ] {
        let sql = format!("select public.tripwire_sync_test_event({nonce})");
        let error = cluster.sql_as("tripwire_sync", &sql).unwrap_err();
        assert_eq!(error.sqlstate(), "22023", "{nonce}: {error:?}");
    }
    assert_eq!(count(&cluster, "net.http_request_queue"), 0);
}

#[test]
fn its_result_is_told_from_the_queue_to_the_answer() {
    let cluster = Cluster::configured();
    let admin = |sql: &str| cluster.sql_as("supabase_admin", sql).unwrap();
    // Three others wait before it; a fourth was sent, and is kept as pg_net 0.2 keeps it.
    admin(
        "insert into net.http_request_queue (method, url, timeout_milliseconds)
         select 'POST', 'https://else.example', 1 from generate_series(1, 4);
         insert into net._http_response (id, status_code) values (1, 200)",
    );
    let id = send(&cluster);
    assert_eq!(
        result(&cluster, &id),
        json!({"state": "queued", "ahead": 3})
    );

    admin(&format!(
        "insert into net._http_response (id, status_code, timed_out, content) values ({id}, 200, false, repeat('x', 1000))"
    ));
    let answered = |status: Value, timed_out, error: Value, content: Value| json!({"state": "answered", "status": status, "timed_out": timed_out, "error": error, "content": content});
    assert_eq!(
        result(&cluster, &id),
        answered(json!(200), false, json!(null), json!("x".repeat(200)))
    );
    admin(&format!(
        "delete from net.http_request_queue;
         update net._http_response set status_code = null, timed_out = null, error_msg = 'no route', content = null where id = {id}"
    ));
    assert_eq!(
        result(&cluster, &id),
        answered(json!(null), false, json!("no route"), json!(null))
    );
    admin("truncate net._http_response");
    assert_eq!(result(&cluster, &id), json!({"state": "unknown"}));
}

/// Answers of other requests may hold anything.
#[test]
fn of_other_requests_it_tells_nothing() {
    let cluster = Cluster::configured();
    let former = send(&cluster);
    let_ten_seconds_pass(&cluster);
    let id = send(&cluster);
    cluster
        .sql_as(
            "supabase_admin",
            "insert into net._http_response (id, status_code, content) select id, 200, 'private' from generate_series(1, 99) id",
        )
        .unwrap();
    assert_eq!(result(&cluster, &id)["content"], "private");
    for other in [former.as_str(), "99", "0", "-1", "null"] {
        assert_eq!(
            result(&cluster, other),
            json!({"state": "unknown"}),
            "{other}"
        );
    }
}
