//! The Supabase side on a real Postgres: what the trigger sends and survives, who may sync, and that it can be taken back.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::postgres::{Cluster, DOWN, MIGRATION, Queued, WEBHOOK_SECRET, WEBHOOK_URL};

const OTHER_SECRET: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMi0wMDAyLTAwMDI=";
const ONE_ROW: &str = "insert into public.tripwire_users (full_name, email, phone, generated_password)
                       values ('Anna Petrova', 'anna@example.org', '+77010000000', 'pass-phrase-1')";
const LOCK_THE_QUEUE: &str = "begin; lock table net.http_request_queue in access exclusive mode";

/// Whether one of the request's signatures is right for `secret`, over the very bytes that `pg_net` would send.
fn signed_with(request: &Queued, secret: &str) -> bool {
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    let header = |name: &str| request.headers[name].as_bytes();
    for part in [
        header("webhook-id"),
        b".",
        header("webhook-timestamp"),
        b".",
        &request.body,
    ] {
        mac.update(part);
    }
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    request.headers["webhook-signature"]
        .split(' ')
        .any(|signature| signature == expected)
}

fn only(queued: Vec<Queued>) -> Queued {
    let [request] = <[Queued; 1]>::try_from(queued).unwrap();
    request
}

fn count(cluster: &Cluster, from: &str) -> usize {
    let sql = format!("select count(*) from {from}");
    let count = cluster.sql_as("supabase_admin", &sql).unwrap();
    count.parse().unwrap()
}

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
fn whoever_inserts_whatever_is_told_of_once_and_signed() {
    let cluster = Cluster::configured();
    cluster
        .sql_as(
            "postgres",
            "create policy test_insert on public.tripwire_users for insert to authenticated with check (true)",
        )
        .unwrap();
    let names = [
        ("postgres", "Анна «Петрова» Ёлкина 😀"),
        ("service_role", r#"quote '' double " back \ slash"#),
        ("authenticated", "two\nlines\tand a tab"),
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
    assert_eq!(count(&cluster, "public.tripwire_user_profile"), 5);

    let queued = cluster.queued();
    assert_eq!(queued.len(), 5);
    assert!(queued.iter().all(|r| signed_with(r, WEBHOOK_SECRET)));
    let ids: BTreeSet<_> = queued.iter().map(|r| &r.headers["webhook-id"]).collect();
    assert_eq!(ids.len(), 5);

    let bulk = "insert into public.tripwire_users (full_name, email)
                select 'Имя ' || n, 'bulk' || n || '@example.org' from generate_series(1, 5000) n";
    cluster.sql_as("postgres", bulk).unwrap();
    assert_eq!(count(&cluster, "net.http_request_queue"), 5005);
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

#[test]
fn a_locked_queue_delays_a_transaction_by_one_wait_and_no_more() {
    let cluster = Cluster::configured();
    let mut locker = cluster.session("supabase_admin");
    locker.sql(LOCK_THE_QUEUE);
    let mut manager = cluster.session("postgres");

    // Twenty waits of half a second would not fit into the statement's time.
    manager.sql("set statement_timeout = '6s'");
    let inserted = manager.sql(
        "insert into public.tripwire_users (full_name, email)
         select 'Anna', 'anna' || n || '@example.org' from generate_series(1, 20) n returning 1",
    );
    assert_eq!(inserted.lines().count(), 20);

    locker.sql("rollback");
    assert_eq!(count(&cluster, "net.http_request_queue"), 0);
    manager.sql(ONE_ROW);
    assert_eq!(
        count(&cluster, "net.http_request_queue"),
        1,
        "the same connection sends again"
    );
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

#[test]
fn the_migration_may_be_applied_again_and_taken_back() {
    let cluster = Cluster::start();
    let before = cluster.schema();
    let mut postgrest = cluster.session("authenticator");
    postgrest.sql("listen pgrst");
    let notices = cluster.apply_migration();
    let heard = postgrest.sql("select 1");
    assert!(heard.contains("\"reload schema\""), "{heard}");
    assert!(notices.contains("pg_net is not available"), "{notices}");
    let applied = cluster.schema();
    cluster.apply_migration();
    assert_eq!(cluster.schema(), applied);

    let plan = cluster
        .sql_as(
            "service_role",
            "set enable_seqscan = off;
             explain select id from public.tripwire_users
              where amocrm_deal_id is null and id > gen_random_uuid() order by id limit 500",
        )
        .unwrap();
    assert!(plan.contains("tripwire_users_without_deal_idx"), "{plan}");
    assert!(!plan.contains("Sort"), "{plan}");

    cluster.configure(WEBHOOK_URL, WEBHOOK_SECRET);
    cluster
        .sql_as("service_role", "select public.tripwire_sync_lease('a', 60)")
        .unwrap();
    cluster
        .sql_as(
            "postgres",
            "select vault.create_secret('not ours', 'somebody_elses_secret')",
        )
        .unwrap();
    for _ in 0..2 {
        cluster.sql_as("postgres", DOWN).unwrap();
        assert_eq!(cluster.schema(), before);
    }
    assert_eq!(count(&cluster, "vault.secrets"), 1);

    cluster.apply_migration();
    assert_eq!(cluster.schema(), applied);
}

#[test]
fn the_migration_adds_what_an_older_table_lacks() {
    let cluster = Cluster::start();
    cluster
        .sql_as(
            "postgres",
            "alter table public.tripwire_users drop column amocrm_deal_id, drop column amocrm_contact_id,
               drop column price, drop column phone, drop column generated_password;
             insert into public.tripwire_users (full_name, email) values ('Old', 'old@example.org')",
        )
        .unwrap();
    cluster.apply_migration();
    cluster.configure(WEBHOOK_URL, WEBHOOK_SECRET);
    cluster
        .sql_as(
            "postgres",
            "insert into public.tripwire_users (full_name, email) values ('New', 'new@example.org')",
        )
        .unwrap();

    let rows = cluster
        .sql_as(
            "service_role",
            "select email from public.tripwire_users where amocrm_deal_id is null and amocrm_contact_id is null order by 1",
        )
        .unwrap();
    assert_eq!(rows, "new@example.org\nold@example.org");
    assert!(signed_with(&only(cluster.queued()), WEBHOOK_SECRET));

    cluster.sql_as("postgres", DOWN).unwrap();
    let kept = cluster
        .sql_as(
            "postgres",
            "select count(amocrm_deal_id) + count(amocrm_contact_id) from public.tripwire_users",
        )
        .unwrap();
    assert_eq!(kept, "0", "the columns are still there");
}

#[test]
fn the_migration_refuses_another_projects_table() {
    let cluster = Cluster::start();
    for (change, said) in [
        (
            "alter table public.tripwire_users rename column full_name to metadata",
            "has no column full_name",
        ),
        ("drop table public.tripwire_users cascade", "does not exist"),
    ] {
        cluster.sql_as("postgres", change).unwrap();
        let before = cluster.schema();
        let error = cluster.sql_as("postgres", MIGRATION).unwrap_err();
        assert!(format!("{error:?}").contains(said), "{error:?}");
        assert_eq!(cluster.schema(), before);
    }
}

#[test]
fn the_migration_gives_way_to_a_long_transaction() {
    let cluster = Cluster::start();
    let before = cluster.schema();
    let mut manager = cluster.session("postgres");
    manager.sql(&format!("begin; {ONE_ROW}"));

    let error = cluster.sql_as("postgres", MIGRATION).unwrap_err();
    assert_eq!(error.sqlstate(), "55P03", "{error:?}");
    manager.sql("commit");
    assert_eq!(cluster.schema(), before);
    cluster.apply_migration();
}

#[test]
fn one_holder_has_the_lease_until_it_ends() {
    let cluster = Cluster::start();
    cluster.apply_migration();
    let lease = |holder: &str, seconds: i32| {
        let sql = format!("select public.tripwire_sync_lease('{holder}', {seconds})");
        cluster.sql_as("service_role", &sql).unwrap() == "t"
    };
    let pass = |seconds: i32| {
        let sql = format!(
            "update tripwire_sync.lease set held_until = held_until - make_interval(secs => {seconds})"
        );
        cluster.sql_as("supabase_admin", &sql).unwrap();
    };

    assert!(!lease("a", 0), "nothing to give back");
    assert!(lease("a", 600), "granted");
    assert!(!lease("b", 600), "held by another");
    assert!(!lease("b", 0), "not b's to give back");
    pass(300);
    assert!(lease("a", 600), "renewed");
    pass(500);
    assert!(!lease("b", 600), "the renewal counts");
    pass(101);
    assert!(lease("b", 600), "expired");
    assert!(!lease("a", 600), "b has it now");
    assert!(lease("b", 0), "given back");
    assert!(lease("a", 1), "free again");
    assert!(lease("a", 600), "a longer one in place of a shorter one");
    assert_eq!(count(&cluster, "tripwire_sync.lease"), 1);

    for arguments in [
        "'', 60",
        "null, 60",
        "repeat('x', 201), 60",
        "'a', -1",
        "'a', 3601",
        "'a', null",
    ] {
        let sql = format!("select public.tripwire_sync_lease({arguments})");
        let error = cluster.sql_as("service_role", &sql).unwrap_err();
        assert_eq!(error.sqlstate(), "22023", "{arguments}: {error:?}");
    }
}

#[test]
fn of_two_that_ask_at_once_one_gets_the_lease() {
    let cluster = Cluster::start();
    cluster.apply_migration();
    let mut first = cluster.session("service_role");
    let mut second = cluster.session("service_role");
    for (ending, second_gets_it) in [("rollback", "t"), ("commit", "f")] {
        cluster
            .sql_as("supabase_admin", "truncate tripwire_sync.lease")
            .unwrap();
        first.sql("begin");
        assert_eq!(
            first.sql("select public.tripwire_sync_lease('first', 60)"),
            "t"
        );
        second.send("select public.tripwire_sync_lease('second', 60)");
        while count(&cluster, "pg_locks where not granted") == 0 {}
        first.sql(ending);
        assert_eq!(second.reply(), second_gets_it, "after {ending}");
    }
}

#[test]
fn only_the_service_reaches_what_is_ours_whatever_the_defaults_are() {
    let generous = Cluster::start();
    generous
        .sql_as(
            "postgres",
            "alter default privileges grant all on tables to anon, authenticated, service_role;
             alter default privileges grant all on schemas to anon, authenticated, service_role",
        )
        .unwrap();
    generous.apply_migration();
    only_the_service_reaches_what_is_ours(&generous);

    let strict = Cluster::start();
    strict
        .sql_as(
            "postgres",
            "alter default privileges in schema public revoke all on functions from anon, authenticated, service_role;
             alter default privileges revoke all on functions from public",
        )
        .unwrap();
    strict.apply_migration();
    only_the_service_reaches_what_is_ours(&strict);
}

fn only_the_service_reaches_what_is_ours(cluster: &Cluster) {
    cluster
        .sql_as("service_role", "select public.tripwire_sync_lease('a', 60)")
        .unwrap();
    for role in ["anon", "authenticated"] {
        let error = cluster
            .sql_as(role, "select public.tripwire_sync_lease('a', 60)")
            .unwrap_err();
        assert_eq!(error.sqlstate(), "42501", "{role}: {error:?}");
    }
    let reachable = cluster
        .sql_as(
            "supabase_admin",
            "select rolname from pg_roles
              where rolname in ('anon', 'authenticated', 'service_role')
                and (has_schema_privilege(oid, 'tripwire_sync', 'usage, create')
                  or has_table_privilege(oid, 'tripwire_sync.lease', 'select, insert, update, delete, truncate')
                  or has_function_privilege(oid, 'tripwire_sync.notify_insert()', 'execute'))",
        )
        .unwrap();
    assert_eq!(reachable, "");
    let open = cluster
        .sql_as(
            "supabase_admin",
            "select proname from pg_proc
              where proname in ('notify_insert', 'tripwire_sync_lease')
                and (not prosecdef
                  or proowner <> 'postgres'::regrole
                  or not 'search_path=\"\"' = any (proconfig))",
        )
        .unwrap();
    assert_eq!(open, "");
}

#[test]
fn the_sql_of_the_guide_does_what_the_guide_says() {
    let cluster = Cluster::start();
    cluster.apply_migration();
    let guide = include_str!("../../docs/supabase.md")
        .replace("whsec_…", WEBHOOK_SECRET)
        .replace("whsec_OLD", WEBHOOK_SECRET)
        .replace("whsec_NEW", OTHER_SECRET);
    let answers: Vec<_> = guide
        .split("```sql")
        .skip(1)
        .map(|block| block.split("```").next().unwrap())
        .map(|sql| cluster.sql_as("postgres", sql).unwrap())
        .collect();
    assert_eq!(answers[0], "tripwire_sync_notify|O");
    assert_eq!(answers[2], "1|t");

    cluster.sql_as("postgres", ONE_ROW).unwrap();
    let request = only(cluster.queued());
    assert_eq!(request.url, "https://new.example/webhooks/supabase");
    assert!(signed_with(&request, OTHER_SECRET) && !signed_with(&request, WEBHOOK_SECRET));
}
