//! The doctor: it tells `check` what the service's role cannot see, and never fails to answer.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{ONE_ROW, OTHER_SECRET, key_of};
use crate::postgres::{Cluster, Extension, PG_NET, WEBHOOK_SECRET, WEBHOOK_URL};

const ASK: &str = "select public.tripwire_sync_doctor()";

fn ask(cluster: &Cluster, role: &str) -> Value {
    let elsewhere = format!("set timezone = 'Asia/Almaty'; {ASK}");
    serde_json::from_str(&cluster.sql_as(role, &elsewhere).unwrap()).unwrap()
}

/// What it says to `role` after a change that is taken back.
fn ask_after(cluster: &Cluster, role: &str, change: &str) -> Value {
    let answer = cluster
        .sql_as(
            "supabase_admin",
            &format!("begin; {change}; set local role {role}; {ASK}; rollback"),
        )
        .unwrap();
    let line = answer.lines().last().unwrap();
    serde_json::from_str(line).unwrap_or_else(|_| panic!("{change}: {answer}"))
}

fn fingerprint(secret: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key_of(secret)).unwrap();
    mac.update(b"tripwire-sync doctor");
    let bytes = mac.finalize().into_bytes();
    let (first, _) = bytes.split_first_chunk().unwrap();
    format!("{:016x}", u64::from_be_bytes(*first))
}

#[test]
fn it_tells_the_services_role_all_that_check_has_to_know() {
    let cluster = Cluster::configured();
    cluster.sql_as("postgres", ONE_ROW).unwrap();
    cluster
        .sql_as(
            "tripwire_sync",
            "select public.tripwire_sync_lease('a', 60)",
        )
        .unwrap();

    let mut answer = ask(&cluster, "tripwire_sync");
    let now = answer["now"].as_str().unwrap();
    assert!(now.ends_with("+00:00") && now.parse::<jiff::Timestamp>().is_ok());
    let age = cluster
        .sql_as(
            "postgres",
            &format!("select clock_timestamp() - '{now}' between '0 s' and '60 s'"),
        )
        .unwrap();
    assert_eq!(age, "t", "{now}");
    let left = answer["lease"]["seconds_left"].as_f64().unwrap();
    assert!((0.0..=60.0).contains(&left), "{left}");
    answer["now"].take();
    answer["lease"]["seconds_left"].take();

    let columns: Vec<_> = answer["columns"].as_array().unwrap().clone();
    assert_eq!(columns.len(), 25);
    assert_eq!(
        (&columns[0], &columns[24]),
        (&json!("id"), &json!("updated_at"))
    );
    let expected = json!({
        "version": 2,
        "now": null,
        "columns": columns,
        "id_type": "uuid",
        "rls": true,
        "caller": {
            "name": "tripwire_sync",
            "bypasses_rls": false,
            "may_select": ["id", "full_name", "email", "manager_name", "status", "amocrm_deal_id", "amocrm_contact_id",
                           "price", "phone", "created_at"],
            "may_update": ["amocrm_deal_id", "amocrm_contact_id"],
            "select_policy": true,
            "update_policy": true,
        },
        "role": {"exists": true, "granted_to_authenticator": true},
        "trigger": {"present": true, "enabled": true, "insert_only": true, "ours": true},
        "dashboard_webhooks": [],
        "pg_net": null,
        "queued": 1,
        "sender": {
            "update_to": null, "preloaded": false, "other_database": null, "workers": 0,
        },
        "vault": {
            "url": "https://sync.example.org",
            "url_path": "/webhooks/supabase",
            "fingerprints": [fingerprint(WEBHOOK_SECRET)],
            "unusable": 0,
            "error": null,
        },
        "lease": {"held_by": "a", "seconds_left": null},
    });
    assert_eq!(answer, expected);

    // Others hear the same of everything but themselves. (Postgres is a member of service_role, which has a policy.)
    let mut expected = expected;
    for role in ["service_role", "postgres"] {
        let mut answer = ask(&cluster, role);
        answer["now"].take();
        answer["lease"]["seconds_left"].take();
        expected["caller"] = json!({
            "name": role,
            "bypasses_rls": true,
            "may_select": columns,
            "may_update": columns,
            "select_policy": true,
            "update_policy": true,
        });
        assert_eq!(answer, expected, "{role}");
    }
}

/// Each as one change to a configured project, where it shows, and how.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("alter table public.tripwire_users disable row level security", "/rls", "false"),
    ("drop policy tripwire_sync_select on public.tripwire_users", "/caller/select_policy", "false"),
    ("drop policy tripwire_sync_update on public.tripwire_users", "/caller/update_policy", "false"),
    (
        "drop policy tripwire_sync_update on public.tripwire_users;
         create policy theirs on public.tripwire_users for all using (true)",
        "/caller/update_policy",
        "true",
    ),
    (
        "drop policy tripwire_sync_select on public.tripwire_users;
         create policy theirs on public.tripwire_users as restrictive for select to tripwire_sync using (true)",
        "/caller/select_policy",
        "false",
    ),
    (
        "revoke update (amocrm_deal_id, amocrm_contact_id) on public.tripwire_users from tripwire_sync",
        "/caller/may_update",
        "[]",
    ),
    (
        "revoke all on public.tripwire_users from tripwire_sync;
         grant select (generated_password, id) on public.tripwire_users to tripwire_sync",
        "/caller/may_select",
        r#"["id", "generated_password"]"#,
    ),
    ("revoke tripwire_sync from authenticator", "/role/granted_to_authenticator", "false"),
    (
        "drop trigger tripwire_sync_notify on public.tripwire_users",
        "/trigger",
        r#"{"present": false, "enabled": false, "insert_only": false, "ours": false}"#,
    ),
    (
        "alter table public.tripwire_users disable trigger tripwire_sync_notify",
        "/trigger/enabled",
        "false",
    ),
    (
        "alter table public.tripwire_users enable replica trigger tripwire_sync_notify",
        "/trigger/enabled",
        "false",
    ),
    (
        "alter table public.tripwire_users enable always trigger tripwire_sync_notify",
        "/trigger/enabled",
        "true",
    ),
    (
        "create or replace trigger tripwire_sync_notify after insert or update on public.tripwire_users
           for each row execute function tripwire_sync.notify_insert()",
        "/trigger/insert_only",
        "false",
    ),
    (
        "create or replace trigger tripwire_sync_notify after insert on public.tripwire_users
           for each row execute function public.create_tripwire_profile()",
        "/trigger",
        r#"{"present": true, "enabled": true, "insert_only": true, "ours": false}"#,
    ),
    (
        "create schema supabase_functions;
         create function supabase_functions.http_request() returns trigger language plpgsql as 'begin return new; end';
         create trigger b after insert on public.tripwire_users
           for each row execute function supabase_functions.http_request('https://sync.example.org');
         create trigger a after update on public.tripwire_users
           for each row execute function supabase_functions.http_request('https://else.example.org');
         create trigger c after insert on public.tripwire_user_profile
           for each row execute function supabase_functions.http_request('https://sync.example.org')",
        "/dashboard_webhooks",
        r#"["a", "b"]"#,
    ),
    (
        "set local allow_system_table_mods = on;
         insert into pg_extension
         values (99999, 'pg_net', 10, 'extensions'::regnamespace, false, '0.20.4', null, null)",
        "/pg_net",
        r#""0.20.4""#,
    ),
    (
        "insert into net.http_request_queue (method, url, timeout_milliseconds)
         values ('POST', 'https://else.example', 1)",
        "/queued",
        "0",
    ),
    (
        "insert into net.http_request_queue (method, url, timeout_milliseconds)
         select 'POST', 'https://sync.example.org/webhooks/supabase', 1 from generate_series(1, 9);
         insert into net._http_response (id, status_code) select id, 202 from net.http_request_queue limit 5",
        "/queued",
        "4",
    ),
    ("set local pg_net.database_name = 'other'", "/sender/other_database", r#""other""#),
    ("set local pg_net.database_name = 'postgres'", "/sender/other_database", "null"),
    ("revoke pg_monitor from postgres", "/sender/workers", "null"),
    ("revoke pg_monitor from postgres", "/sender/preloaded", "null"),
    (
        "alter table public.tripwire_users drop column id cascade;
         alter table public.tripwire_users add column id bigserial",
        "/id_type",
        r#""bigint""#,
    ),
    (
        "alter table public.tripwire_users drop column id cascade;
         create domain public.row_id as uuid;
         alter table public.tripwire_users add column id public.row_id",
        "/id_type",
        r#""uuid""#,
    ),
    ("alter table public.tripwire_users drop column id cascade", "/id_type", "null"),
    ("delete from vault.secrets", "/queued", "null"),
    (
        "delete from vault.secrets",
        "/vault",
        r#"{"url": null, "url_path": null, "fingerprints": [], "unusable": 0, "error": null}"#,
    ),
    (
        "insert into tripwire_sync.lease (held_by, held_until) values ('a', now() - interval '1 second')",
        "/lease",
        "null",
    ),
    (
        "alter table public.tripwire_users rename column amocrm_deal_id to deal;
         alter table public.tripwire_users drop column status",
        "/columns/14",
        r#""deal""#,
    ),
];

#[test]
fn it_sees_every_mistake_that_can_be_made() {
    let cluster = Cluster::configured();
    for (change, place, said) in MISTAKES {
        let answer = ask_after(&cluster, "tripwire_sync", change);
        let said: Value = serde_json::from_str(said).unwrap();
        assert_eq!(answer.pointer(place), Some(&said), "{change}: {answer}");
    }
}

/// What may stand in Vault, and what it tells of it: never what could be a secret.
#[test]
fn it_tells_what_the_trigger_makes_of_vault() {
    let cluster = Cluster::configured();
    let both = format!(" {OTHER_SECRET}, nonsense,{WEBHOOK_SECRET}\n whsec_ ");
    let fingerprints = json!([fingerprint(OTHER_SECRET), fingerprint(WEBHOOK_SECRET)]);
    for (name, value, place, said) in [
        ("url", "sync.example.org", "url", json!(null)),
        ("url", "https://sync.example org", "url_path", json!(null)),
        (
            "url",
            " HTTP://Sync.example:8080/a/b?c=/d \r\n",
            "url",
            json!("HTTP://Sync.example:8080"),
        ),
        (
            "url",
            "https://sync.example/a/b?token=/d#e",
            "url_path",
            json!("/a/b"),
        ),
        (
            "url",
            "https://sync.example?token=d",
            "url",
            json!("https://sync.example"),
        ),
        ("url", "https://sync.example", "url_path", json!("")),
        (
            "url",
            "https://name:pass@word@sync.example/a",
            "url",
            json!("https://sync.example"),
        ),
        ("secret", "whsec_c2hvcnQ=", "unusable", json!(1)),
        ("secret", "whsec_c2hvcnQ=", "fingerprints", json!([])),
        ("secret", &both, "fingerprints", fingerprints),
        ("secret", &both, "unusable", json!(2)),
    ] {
        let change = format!(
            "select vault.update_secret(id, '{value}') from vault.secrets where name = 'tripwire_webhook_{name}'"
        );
        let answer = ask_after(&cluster, "tripwire_sync", &change);
        assert_eq!(answer["vault"][place], said, "{value}: {answer}");
        for secret in ["whsec", "token", "@", "dHJpcHdpcmUt"] {
            assert!(!answer.to_string().contains(secret), "{value}: {answer}");
        }
    }
}

#[test]
fn it_answers_in_the_same_form_whatever_is_broken() {
    let cluster = Cluster::configured();
    let form = |answer: &Value| {
        let mut keys: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
        for part in ["caller", "role", "trigger", "sender", "vault"] {
            let members = answer[part].as_object().unwrap().keys();
            keys.extend(members.map(|member| format!("{part}.{member}")));
        }
        keys
    };
    let sound = form(&ask(&cluster, "tripwire_sync"));
    assert_eq!(sound.len(), 14 + 6 + 2 + 4 + 4 + 5, "{sound:?}");

    for (havoc, error) in [
        ("drop schema vault cascade", json!("SQLSTATE 42P01")),
        (
            "revoke all on schema vault from postgres, service_role cascade",
            json!("SQLSTATE 42501"),
        ),
        ("drop extension pgcrypto", json!("SQLSTATE 42883")),
        (
            "drop function tripwire_sync.read_vault",
            json!("SQLSTATE 42883"),
        ),
        ("drop schema net cascade", json!(null)),
        (
            "revoke all on net.http_request_queue from public",
            json!(null),
        ),
        ("drop table tripwire_sync.lease", json!(null)),
        ("drop table public.tripwire_users cascade", json!(null)),
        ("drop schema tripwire_sync cascade", json!("SQLSTATE 3F000")),
        (
            "drop schema vault, net, tripwire_sync, extensions cascade; drop table public.tripwire_users cascade",
            json!("SQLSTATE 3F000"),
        ),
        (
            "set local default_transaction_read_only = on; set transaction read only",
            json!(null),
        ),
    ] {
        for role in ["tripwire_sync", "service_role"] {
            let answer = ask_after(&cluster, role, havoc);
            assert_eq!(form(&answer), sound, "{havoc}: {answer}");
            assert_eq!(answer["vault"]["error"], error, "{havoc}");
            assert_eq!(answer["caller"]["name"], role, "{havoc}");
        }
    }

    // Without the role, asked by the other one.
    let gone = "drop owned by tripwire_sync; drop role tripwire_sync";
    let answer = ask_after(&cluster, "service_role", gone);
    assert_eq!(
        answer["role"],
        json!({"exists": false, "granted_to_authenticator": false})
    );
    assert_eq!(answer["vault"]["url"], json!("https://sync.example.org"));
}

/// A server upgraded without `ALTER EXTENSION pg_net UPDATE`, and one that is not.
#[test]
fn it_tells_a_newer_program_of_pg_net_from_its_sql() {
    let newer = Extension {
        version: "0.21.0",
        ..PG_NET
    };
    let settings = ["shared_preload_libraries=pg_stat_statements"];
    let cluster = Cluster::start_with(&settings, &[newer]);
    cluster.apply_migration();
    let answer = ask(&cluster, "tripwire_sync");
    assert_eq!(answer["pg_net"], json!("0.21.0"));
    assert_eq!(answer["sender"]["update_to"], json!(null));
    assert_eq!(answer["sender"]["preloaded"], json!(false));
    let older = "set local allow_system_table_mods = on;
                 update pg_extension set extversion = '0.20.4' where extname = 'pg_net'";
    let answer = ask_after(&cluster, "tripwire_sync", older);
    assert_eq!(answer["pg_net"], json!("0.20.4"));
    assert_eq!(answer["sender"]["update_to"], json!("0.21.0"));
}

#[test]
fn a_locked_table_keeps_it_from_nothing_but_that_table() {
    let cluster = Cluster::configured();
    for (table, place) in [
        ("net.http_request_queue", "/queued"),
        ("tripwire_sync.lease", "/lease"),
        ("vault.secrets", "/vault/url"),
    ] {
        let mut locker = cluster.session("supabase_admin");
        locker.sql(&format!(
            "begin; lock table {table} in access exclusive mode"
        ));
        // A wait without end would be cut off, and that would fail.
        let answer = cluster
            .sql_as(
                "tripwire_sync",
                &format!("set statement_timeout = '60s'; {ASK}"),
            )
            .unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer.pointer(place), Some(&json!(null)), "{answer}");
        assert_eq!(answer["trigger"]["ours"], json!(true));
    }
    let answer = ask(&cluster, "tripwire_sync");
    assert_eq!(answer["vault"]["url_path"], json!("/webhooks/supabase"));
    assert!(WEBHOOK_URL.ends_with("/webhooks/supabase"));
}
