//! What the database tells about itself.

use super::*;

/// The answer of the migration's function, with a field that this version does not know.
const TOLD: &str = r#"{
  "version": 2,
  "now": "2026-11-22T12:00:00.123456+00:00",
  "columns": ["id", "email"],
  "id_type": "uuid",
  "rls": true,
  "caller": {"name": "tripwire_sync", "bypasses_rls": false, "may_select": ["id"], "may_update": ["amocrm_deal_id"],
             "select_policy": true, "update_policy": false},
  "role": {"exists": true, "granted_to_authenticator": true},
  "trigger": {"present": true, "enabled": true, "insert_only": false, "ours": true, "since": "2026"},
  "dashboard_webhooks": ["notify crm"],
  "pg_net": "0.20.4",
  "queued": 3,
  "sender": {"update_to": "0.21.0", "preloaded": true, "other_database": null, "workers": 1},
  "vault": {"url": "https://sync.example.org", "url_path": "/webhooks/supabase",
            "fingerprints": ["1a2b3c4d5e6f7081"], "unusable": 1, "error": null},
  "lease": {"held_by": "a", "seconds_left": 42.1}
}"#;

#[actix_web::test]
async fn the_doctor_is_asked_once_and_tells_all() {
    let server = Scripted::start([ok(TOLD)]).await;
    let Ok(Examined::Told { doctor, at }) = server.client().examine().await else {
        panic!("it has told");
    };
    let seen = server.seen().await;
    let [seen] = &seen[..] else {
        panic!("one request");
    };
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str(), seen.body.as_str()),
        ("POST", "/rest/v1/rpc/tripwire_sync_doctor", "{}")
    );
    assert_eq!(seen.header("content-type"), Some("application/json"));
    // The clock of this test stands still.
    assert_eq!(at, time("2026-11-22T12:00:00Z"));

    assert_eq!(doctor.now, Some(time("2026-11-22T12:00:00.123456Z")));
    assert_eq!(doctor.caller.may_update, ["amocrm_deal_id"]);
    assert!(doctor.caller.select_policy && !doctor.caller.update_policy);
    assert!(doctor.trigger.present && !doctor.trigger.insert_only);
    assert_eq!(doctor.dashboard_webhooks, ["notify crm"]);
    assert_eq!(
        (doctor.pg_net.as_deref(), doctor.queued),
        (Some("0.20.4"), Some(3))
    );
    assert_eq!(
        (doctor.version, doctor.id_type.as_deref()),
        (Some(2), Some("uuid"))
    );
    assert_eq!(
        doctor.sender,
        Sender {
            update_to: Some("0.21.0".to_owned()),
            preloaded: Some(true),
            other_database: None,
            workers: Some(1),
        }
    );
    assert_eq!(doctor.vault.fingerprints, ["1a2b3c4d5e6f7081"]);
    assert_eq!((doctor.vault.unusable, &doctor.vault.error), (1, &None));
    assert_eq!(doctor.lease.unwrap().held_by, "a");
}

#[actix_web::test]
async fn what_an_older_doctor_does_not_tell_is_not_there() {
    let server = Scripted::start([ok(
        r#"{"columns": ["id"], "caller": {"name": null}, "queued": null, "lease": null}"#,
    )])
    .await;
    let Ok(Examined::Told { doctor, .. }) = server.client().examine().await else {
        panic!("it has told");
    };
    let expected = Doctor {
        columns: vec!["id".to_owned()],
        ..Doctor::default()
    };
    assert_eq!(*doctor, expected);
}

#[actix_web::test]
async fn a_missing_doctor_is_told_from_a_busy_one() {
    for (status, code) in [
        (404, "PGRST202"),
        (404, "42883"),
        (403, "42501"),
        (401, "42501"),
    ] {
        let server = Scripted::start([refusal(status, code)]).await;
        let examined = server.client().examine().await;
        assert!(
            matches!(examined, Ok(Examined::NoDoctor)),
            "{code}: {examined:?}"
        );
    }
    for (status, code) in [
        (401, "PGRST303"),
        (404, "PGRST205"),
        (503, "PGRST002"),
        (500, "57014"),
    ] {
        let server = Scripted::start([refusal(status, code)]).await;
        let examined = server.client().examine().await;
        assert!(examined.is_err(), "{code}: {examined:?}");
    }
    let server = Scripted::start([ok("true")]).await;
    let examined = server.client().examine().await;
    assert!(
        matches!(examined, Err(SupabaseError::Malformed { .. })),
        "{examined:?}"
    );
}
