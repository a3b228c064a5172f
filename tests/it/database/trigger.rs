//! The trigger: what it sends, and what it survives.

use std::collections::BTreeSet;

use super::{ONE_ROW, OTHER_SECRET, count, only, signed_with};
use crate::postgres::{Cluster, OLDER_PG_NET, WEBHOOK_SECRET, WEBHOOK_URL};

const IMPORT: &str = "insert into public.tripwire_users (full_name, email)
                      select 'Имя ' || n, 'bulk' || n || '@example.org' from generate_series(1, 5000) n";
const LOCK_THE_QUEUE: &str = "begin; lock table net.http_request_queue in access exclusive mode";

#[test]
fn an_insert_queues_one_signed_request_with_ids_only() {
    let cluster = Cluster::start();
    cluster.apply_migration();
    // As pasted: with the end of the line.
    cluster.configure(
        &format!(" {WEBHOOK_URL}\r\n"),
        &format!("{WEBHOOK_SECRET}\n"),
    );
    let inserted = cluster
        .sql_as(
            "postgres",
            &format!("set timezone = 'Asia/Almaty'; {ONE_ROW} returning id"),
        )
        .unwrap();

    let request = only(cluster.queued());
    assert_eq!(request.url, WEBHOOK_URL);
    assert_eq!(request.timeout_milliseconds, 5000);
    let names: Vec<_> = request.headers.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "Content-Type",
            "webhook-id",
            "webhook-signature",
            "webhook-timestamp"
        ]
    );
    assert_eq!(request.headers["Content-Type"], "application/json");
    let id = &request.headers["webhook-id"];
    let uuid = id.strip_prefix("msg_").unwrap();
    assert!(uuid.parse::<uuid::Uuid>().is_ok(), "{id}");
    assert!(signed_with(&request, WEBHOOK_SECRET));
    assert!(!signed_with(&request, OTHER_SECRET));

    let now = cluster
        .sql_as(
            "postgres",
            "select extract(epoch from clock_timestamp())::bigint",
        )
        .unwrap();
    let age =
        now.parse::<i64>().unwrap() - request.headers["webhook-timestamp"].parse::<i64>().unwrap();
    assert!((0..60).contains(&age), "signed {age} s ago");

    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let created_at = body["record"]["created_at"].as_str().unwrap();
    assert!(
        created_at.parse::<jiff::Timestamp>().is_ok(),
        "{created_at}"
    );
    assert_eq!(
        body,
        serde_json::json!({
            "type": "INSERT",
            "table": "tripwire_users",
            "schema": "public",
            "record": {"id": inserted, "created_at": created_at},
            "old_record": null,
        })
    );
}

#[test]
fn every_insert_by_any_role_is_told_of_once_and_signed() {
    let cluster = Cluster::configured();
    cluster
        .sql_as(
            "postgres",
            "create policy test_insert on public.tripwire_users for insert to anon, authenticated with check (true)",
        )
        .unwrap();
    let names = [
        ("postgres", "Анна «Петрова» Ёлкина 😀"),
        ("service_role", r#"quote '' double " back \ slash"#),
        ("authenticated", "two\nlines\tand a tab"),
        (
            "anon",
            "bell \u{7}, escape \u{1b}, delete \u{7f}, \u{202e}backwards",
        ),
        ("supabase_admin", r#"{"id": null}"#),
    ];
    for (n, (role, name)) in names.into_iter().enumerate() {
        cluster
            .sql_as(
                role,
                &format!(
                    "insert into public.tripwire_users (full_name, email) values ('{name}', 'u{n}@example.org')"
                ),
            )
            .unwrap();
    }
    // PostgREST gives an old row a time of its own, and a client may give none.
    cluster
        .sql_as(
            "service_role",
            "insert into public.tripwire_users (full_name, email, created_at)
             values ('Old', 'old@example.org', '0044-03-15 12:00 BC'), ('None', 'none@example.org', null)",
        )
        .unwrap();
    // The manager's own trigger still does its work beside ours.
    assert_eq!(count(&cluster, "public.tripwire_user_profile"), 7);

    let queued = cluster.queued();
    assert_eq!(queued.len(), 7);
    assert!(queued.iter().all(|r| signed_with(r, WEBHOOK_SECRET)));
    let ids: BTreeSet<_> = queued.iter().map(|r| &r.headers["webhook-id"]).collect();
    assert_eq!(ids.len(), 7);
    for request in &queued {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let mut members: Vec<_> = body["record"].as_object().unwrap().keys().collect();
        members.sort();
        assert_eq!(members, ["created_at", "id"], "ids only");
        assert!(body["record"]["id"].is_string(), "{body}");
    }
}

#[test]
fn an_import_in_one_statement_or_by_copy_is_told_of_row_by_row() {
    let cluster = Cluster::configured();
    let mut importer = cluster.session("postgres");
    importer.sql(IMPORT);
    assert_eq!(count(&cluster, "net.http_request_queue"), 5000);

    importer.sql(
        "copy public.tripwire_users (full_name, email) from stdin;
Айгерим «Айка»\taigerim@example.kz
Boris\tboris@example.kz
\\.
select 1",
    );
    let queued = cluster.queued();
    assert_eq!(queued.len(), 5002);
    assert!(queued.iter().all(|r| signed_with(r, WEBHOOK_SECRET)));
    let told_of: BTreeSet<_> = queued
        .iter()
        .map(|request| {
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            body["record"]["id"].as_str().unwrap().to_owned()
        })
        .collect();
    let rows = importer.sql("select id from public.tripwire_users");
    assert_eq!(told_of, rows.lines().map(str::to_owned).collect());
}

/// What it leaves out differs between versions of `pg_net`: the defaults.
#[test]
fn every_argument_of_http_post_is_given_by_name() {
    let cluster = Cluster::configured();
    cluster
        .sql_as(
            "supabase_admin",
            "drop function net.http_post;
             create table net.calls (url text, body jsonb, params jsonb, headers jsonb, timeout integer);
             create function net.http_post(
               timeout_milliseconds integer, headers jsonb, params jsonb, body jsonb, url text) returns bigint
             language sql security definer
             as 'insert into net.calls values (url, body, params, headers, timeout_milliseconds) returning 1'",
        )
        .unwrap();
    cluster.sql_as("postgres", ONE_ROW).unwrap();
    let call = cluster
        .sql_as(
            "supabase_admin",
            "select url, body ->> 'type', params, headers ->> 'Content-Type', timeout from net.calls",
        )
        .unwrap();
    assert_eq!(
        call,
        format!("{WEBHOOK_URL}|INSERT|{{}}|application/json|5000")
    );
}

#[test]
fn updates_upserts_rollbacks_and_replication_send_nothing() {
    let cluster = Cluster::configured();
    cluster.sql_as("postgres", ONE_ROW).unwrap();
    cluster
        .sql_as("supabase_admin", "truncate net.http_request_queue")
        .unwrap();

    let silent = [
        (
            "service_role",
            "update public.tripwire_users set amocrm_deal_id = '1', amocrm_contact_id = '2'".to_owned(),
        ),
        (
            "postgres",
            format!("{ONE_ROW} on conflict (email) do update set full_name = excluded.full_name"),
        ),
        (
            "postgres",
            "begin; insert into public.tripwire_users (full_name, email) values ('B', 'b@example.org'); rollback"
                .to_owned(),
        ),
        (
            "supabase_admin",
            "set session_replication_role = replica;
             insert into public.tripwire_users (full_name, email) values ('C', 'c@example.org')"
                .to_owned(),
        ),
    ];
    for (role, sql) in silent {
        cluster.sql_as(role, &sql).unwrap();
        assert_eq!(count(&cluster, "net.http_request_queue"), 0, "{sql}");
    }
}

#[test]
fn every_well_formed_secret_signs_while_one_is_being_replaced() {
    let cluster = Cluster::configured();
    let short = "whsec_c2hvcnQ=";
    let cases = [
        (format!("{WEBHOOK_SECRET} {OTHER_SECRET}"), 2),
        (format!("{OTHER_SECRET},{WEBHOOK_SECRET}\n"), 2),
        (format!("  {WEBHOOK_SECRET},  {OTHER_SECRET} "), 2),
        (format!("{WEBHOOK_SECRET} {short} whsec_ nonsense"), 1),
    ];
    for (secrets, signatures) in cases {
        cluster
            .sql_as(
                "postgres",
                &format!(
                    "select vault.update_secret(id, '{secrets}') from vault.secrets where name = 'tripwire_webhook_secret';
                     truncate net.http_request_queue; delete from public.tripwire_users; {ONE_ROW}"
                ),
            )
            .unwrap();
        let request = only(cluster.queued());
        let header = &request.headers["webhook-signature"];
        assert_eq!(header.split(' ').count(), signatures, "{header}");
        assert!(signed_with(&request, WEBHOOK_SECRET));
        assert_eq!(signed_with(&request, OTHER_SECRET), signatures == 2);
    }
}

/// Each as one change to a configured project: who makes it, what, and what the warning says.
const TROUBLES: &[(&str, &str, &str)] = &[
    (
        "postgres",
        "delete from vault.secrets where name = 'tripwire_webhook_url'",
        "tripwire_webhook_url",
    ),
    (
        "postgres",
        "select vault.update_secret(id, 'sync.example.org') from vault.secrets where name = 'tripwire_webhook_url'",
        "tripwire_webhook_url",
    ),
    (
        "postgres",
        "delete from vault.secrets where name = 'tripwire_webhook_secret'",
        "tripwire_webhook_secret",
    ),
    (
        "postgres",
        "select vault.update_secret(id, 'whsec_not base64!') from vault.secrets where name = 'tripwire_webhook_secret'",
        "tripwire_webhook_secret",
    ),
    (
        "postgres",
        "select vault.update_secret(id, 'whsec_c2hvcnQ=') from vault.secrets where name = 'tripwire_webhook_secret'",
        "tripwire_webhook_secret",
    ),
    (
        "supabase_admin",
        "revoke all on schema vault from postgres, service_role cascade",
        "SQLSTATE 42501",
    ),
    (
        "supabase_admin",
        "drop schema vault cascade",
        "SQLSTATE 42P01",
    ),
    (
        "supabase_admin",
        "drop extension pgcrypto",
        "SQLSTATE 42883",
    ),
    (
        "supabase_admin",
        "revoke all on schema net from public",
        "SQLSTATE 42501",
    ),
    (
        "supabase_admin",
        "drop function net.http_post",
        "SQLSTATE 42883",
    ),
    (
        "postgres",
        "select vault.update_secret(id, 'https://[nowhere') from vault.secrets where name = 'tripwire_webhook_url'",
        "SQLSTATE XX000",
    ),
    (
        "supabase_admin",
        "create or replace function net.http_post(
           url text, body jsonb default '{}', params jsonb default '{}',
           headers jsonb default '{}', timeout_milliseconds integer default 5000) returns bigint
         language plpgsql as 'begin raise exception ''% %'', headers, body; end'",
        "SQLSTATE P0001",
    ),
    (
        "supabase_admin",
        "alter table net.http_request_queue add check (url is null)",
        "SQLSTATE 23514",
    ),
    (
        "supabase_admin",
        "revoke all on function net.http_post from public",
        "SQLSTATE 42501",
    ),
    (
        "supabase_admin",
        "revoke all on net.http_request_queue from public",
        "SQLSTATE 42501",
    ),
    (
        "postgres",
        "alter table public.tripwire_users rename column created_at to made_at",
        "SQLSTATE 42703",
    ),
    (
        "postgres",
        "alter table public.tripwire_users drop column created_at cascade",
        "SQLSTATE 42703",
    ),
    (
        "postgres",
        "drop function tripwire_sync.send_event",
        "SQLSTATE 42883",
    ),
    (
        "supabase_admin",
        "drop function tripwire_sync.queue_request",
        "SQLSTATE 42883",
    ),
];

#[test]
fn an_insert_passes_with_one_warning_whatever_is_wrong() {
    let cluster = Cluster::configured();
    for (role, trouble, said) in TROUBLES {
        // The trouble is rolled back with the rest, so that each meets a sound project.
        let reply = cluster
            .run(
                "supabase_admin",
                &format!(
                    "begin; set local role {role}; {trouble}; set local role service_role;
                     {ONE_ROW};
                     insert into public.tripwire_users (full_name, email)
                     select 'Boris', 'boris' || n || '@example.org' from generate_series(1, 9) n;
                     set local role supabase_admin;
                     select count(*) from public.tripwire_users;
                     select count(*) from net.http_request_queue;
                     rollback"
                ),
            )
            .unwrap();
        let counts: Vec<_> = reply.rows.lines().rev().take(2).collect();
        assert_eq!(counts, ["0", "10"], "{trouble}: {reply:?}");
        let notices = reply.notices;
        assert_eq!(
            notices.matches("WARNING:").count(),
            1,
            "{trouble}: {notices}"
        );
        assert!(notices.contains(said), "{trouble}: {notices}");
        for personal in [
            "anna",
            "Anna",
            "boris",
            "7701",
            "pass-phrase",
            "whsec_",
            "msg_",
        ] {
            assert!(!notices.contains(personal), "{trouble}: {notices}");
        }
    }
    assert_eq!(cluster.run("postgres", ONE_ROW).unwrap().notices, "");
    assert_eq!(count(&cluster, "net.http_request_queue"), 1);
}

/// As the platform sets `pg_net` up: since 0.12 it runs as its caller, before that as its owner.
#[test]
fn either_kind_of_pg_net_is_handed_events() {
    for (kind, sender) in [
        ("", "tripwire_sync_sender"),
        (OLDER_PG_NET, "supabase_admin"),
    ] {
        let cluster = Cluster::configured();
        cluster.sql_as("supabase_admin", kind).unwrap();
        cluster
            .sql_as(
                "supabase_admin",
                "create table net.senders as select current_user as name limit 0;
                 grant insert on net.senders to public;
                 create function net.note() returns trigger language plpgsql
                   as 'begin insert into net.senders values (current_user); return new; end';
                 create trigger note before insert on net.http_request_queue for each row execute function net.note()",
            )
            .unwrap();
        assert_eq!(cluster.run("service_role", ONE_ROW).unwrap().notices, "");
        assert!(signed_with(&only(cluster.queued()), WEBHOOK_SECRET));
        let by = cluster
            .sql_as("supabase_admin", "select name from net.senders")
            .unwrap();
        assert_eq!(by, sender);
    }
}

/// A session whose temporary types have names of Postgres's own could make the older kind run its code as a superuser.
#[test]
fn the_older_pg_net_is_not_called_where_temporary_types_could_deceive_it() {
    let cluster = Cluster::configured();
    cluster.sql_as("supabase_admin", OLDER_PG_NET).unwrap();
    for (made, is_sent) in [
        ("create temporary table students (name text)", true),
        ("create domain pg_temp.text as pg_catalog.text", false),
        ("create type pg_temp.jsonb as (a int)", false),
        ("create temporary table int8 (a int)", false),
    ] {
        let row = ONE_ROW.replace("anna@", &format!("{}@", uuid::Uuid::new_v4().simple()));
        let notices = cluster
            .run("postgres", &format!("{made}; {row}"))
            .unwrap()
            .notices;
        let is_silent = !notices.contains("temporary types with names of Postgres's own");
        assert_eq!(is_silent, is_sent, "{made}: {notices}");
    }
    assert_eq!(count(&cluster, "net.http_request_queue"), 1);
}

#[test]
fn a_locked_queue_delays_a_whole_import_by_one_wait_and_no_more() {
    let cluster = Cluster::configured();
    let mut locker = cluster.session("supabase_admin");
    locker.sql(LOCK_THE_QUEUE);
    let mut manager = cluster.session("postgres");

    // A wait without end would be cut off here, and 5,000 waits of half a second would not fit in by far.
    manager.sql("set statement_timeout = '60s'");
    manager.sql(IMPORT);
    assert_eq!(count(&cluster, "public.tripwire_users"), 5000);

    locker.sql("rollback");
    assert_eq!(count(&cluster, "net.http_request_queue"), 0);
    manager.sql(ONE_ROW);
    assert_eq!(
        count(&cluster, "net.http_request_queue"),
        1,
        "the same connection sends again"
    );
}

/// The platform's own limit for such a wait is eight seconds, and at its end the insert would fail.
#[test]
fn a_locked_vault_does_not_fail_an_insert_either() {
    let cluster = Cluster::configured();
    let mut locker = cluster.session("supabase_admin");
    locker.sql("begin; lock table vault.secrets in access exclusive mode");
    let reply = cluster
        .run(
            "service_role",
            &format!("set statement_timeout = '60s'; {ONE_ROW}"),
        )
        .unwrap();
    assert!(reply.notices.contains("SQLSTATE 55P03"), "{reply:?}");
}

#[test]
fn a_cancelled_insert_stays_cancelled() {
    let cluster = Cluster::configured();
    let mut locker = cluster.session("supabase_admin");
    locker.sql(LOCK_THE_QUEUE);

    let error = cluster
        .sql_as(
            "postgres",
            &format!("set statement_timeout = '100ms'; {ONE_ROW}"),
        )
        .unwrap_err();
    assert_eq!(error.sqlstate(), "57014", "{error:?}");
    assert_eq!(count(&cluster, "public.tripwire_users"), 0);
}
