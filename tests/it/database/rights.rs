//! Who may do what: the service's role, and everybody else.

use crate::postgres::{Cluster, WEBHOOK_SECRET, WEBHOOK_URL};

/// What the service asks of PostgREST, as PostgREST asks it of Postgres.
const READS: &[&str] = &[
    // Which columns there are.
    "select id, email, full_name, created_at, amocrm_deal_id, phone, price, status, amocrm_contact_id, manager_name
         from public.tripwire_users limit 1",
    // Rows by id, and whether there is any.
    "select id, email, full_name, created_at, amocrm_deal_id, phone, price, status
         from public.tripwire_users where id = any ('{00000000-0000-4000-8000-000000000001}')",
    "select id from public.tripwire_users limit 1",
    // A page of the sweep, and how many there are.
    "select id from public.tripwire_users
        where amocrm_deal_id is null
          and (created_at >= '2026-11-01' or created_at is null)
          and (status is null or status <> all ('{blocked,inactive}'))
          and id > '00000000-0000-4000-8000-000000000000'
        order by id limit 1000",
    "with source as (select id from public.tripwire_users where amocrm_deal_id is null),
            counted as (select 1 from public.tripwire_users where amocrm_deal_id is null)
       select (select count(*) from counted), count(*) from source",
];

/// How PostgREST writes: the new values as a record of its own, the answer by RETURNING.
fn write_back(row: &str, vacancy: &str, columns: &str) -> String {
    format!(
        r#"with source as (
             update public.tripwire_users
                set {columns}
               from json_to_record('{{"amocrm_deal_id": "31", "amocrm_contact_id": "21"}}')
                    as body (amocrm_deal_id text, amocrm_contact_id text)
              where tripwire_users.id = '{row}' and tripwire_users.amocrm_deal_id {vacancy}
             returning tripwire_users.id, tripwire_users.amocrm_deal_id)
           select count(*) from source"#
    )
}

const BOTH: &str =
    "amocrm_deal_id = body.amocrm_deal_id, amocrm_contact_id = body.amocrm_contact_id";

const EMPTY: &str = "00000000-0000-4000-8000-000000000001";
const BLANK: &str = "00000000-0000-4000-8000-000000000002";
const FILLED: &str = "00000000-0000-4000-8000-000000000003";

/// A row without a deal, one with an empty text instead of it, one with its deal.
fn project_with_rows() -> Cluster {
    let cluster = Cluster::start();
    cluster.apply_migration();
    let rows = format!(
        "insert into public.tripwire_users (id, full_name, email, amocrm_deal_id) values
           ('{EMPTY}', 'Empty', 'empty@example.org', null),
           ('{BLANK}', 'Blank', 'blank@example.org', ''),
           ('{FILLED}', 'Filled', 'filled@example.org', '7')"
    );
    cluster.sql_as("postgres", &rows).unwrap();
    cluster
}

fn refused(cluster: &Cluster, role: &str, sql: &str) {
    let error = cluster.sql_as(role, sql).unwrap_err();
    assert_eq!(error.sqlstate(), "42501", "{role}: {sql}: {error:?}");
}

const RLS: [&str; 3] = [
    "alter table public.tripwire_users enable row level security",
    "alter table public.tripwire_users enable row level security, force row level security",
    "alter table public.tripwire_users disable row level security, no force row level security",
];

#[test]
fn the_services_role_can_ask_everything_that_the_service_asks_with_rls_on_forced_or_off() {
    let cluster = project_with_rows();
    for rls in RLS {
        cluster.sql_as("postgres", rls).unwrap();
        for role in ["tripwire_sync", "service_role"] {
            for read in READS {
                let rows = cluster.sql_as(role, read).unwrap();
                assert_ne!(rows, "", "{role}, {rls}: {read}");
            }
            for (row, vacancy, columns) in [
                (EMPTY, "is null", BOTH),
                (BLANK, "= ''", BOTH),
                (EMPTY, "is null", "amocrm_deal_id = body.amocrm_deal_id"),
            ] {
                let write = write_back(row, vacancy, columns);
                let written = cluster
                    .sql_as(role, &format!("begin; {write}; rollback"))
                    .unwrap();
                assert_eq!(written, "1", "{role}, {rls}: {write}");
            }
        }
    }
}

#[test]
fn a_deal_id_is_written_once_whatever_the_service_asks_for() {
    let cluster = project_with_rows();
    for rls in &RLS[..2] {
        cluster.sql_as("postgres", rls).unwrap();
        let overwrite = "with source as (
                           update public.tripwire_users set amocrm_deal_id = '31' where id is not null returning id)
                         select id from source order by id";
        let written = cluster
            .sql_as("tripwire_sync", &format!("begin; {overwrite}; rollback"))
            .unwrap();
        assert_eq!(written, format!("{EMPTY}\n{BLANK}"), "{rls}");
    }
}

#[test]
fn without_its_policies_the_role_sees_and_writes_nothing() {
    let cluster = project_with_rows();
    let write = write_back(EMPTY, "is null", BOTH);
    for (policy, rows, written) in [
        ("tripwire_sync_update", "3", "0"),
        ("tripwire_sync_select", "0", "0"),
    ] {
        cluster
            .sql_as(
                "postgres",
                &format!("drop policy {policy} on public.tripwire_users"),
            )
            .unwrap();
        let answers = cluster
            .sql_as(
                "tripwire_sync",
                &format!("begin; select count(id) from public.tripwire_users; {write}; rollback"),
            )
            .unwrap();
        assert_eq!(answers, format!("{rows}\n{written}"), "without {policy}");
    }
}

#[test]
fn the_services_role_can_do_nothing_else() {
    let cluster = project_with_rows();
    cluster.configure(WEBHOOK_URL, WEBHOOK_SECRET);
    for rls in RLS {
        cluster.sql_as("postgres", rls).unwrap();
        for sql in [
            "select * from public.tripwire_users",
            "select user_id from public.tripwire_users",
            "select generated_password from public.tripwire_users",
            "select id from public.tripwire_users where last_active_at is null",
            "select id from public.tripwire_users order by updated_at",
            "update public.tripwire_users set amocrm_deal_id = '1' returning *",
            "update public.tripwire_users set email = 'x' where id is null",
            "update public.tripwire_users set status = 'active' where id is null",
            "update public.tripwire_users set id = id where id is null",
            "insert into public.tripwire_users (full_name, email) values ('x', 'x')",
            "insert into public.tripwire_users (amocrm_deal_id) values ('x')",
            "delete from public.tripwire_users where id is null",
            "truncate public.tripwire_users",
            "alter table public.tripwire_users disable row level security",
            "alter table public.tripwire_users disable trigger tripwire_sync_notify",
            "drop policy tripwire_sync_update on public.tripwire_users",
            "create trigger mine before insert on public.tripwire_users for each row execute function public.create_tripwire_profile()",
            "select * from public.tripwire_user_profile",
            "select * from auth.users",
            "select * from vault.decrypted_secrets",
            "select * from vault.secrets",
            "select vault.create_secret('x')",
            "select * from tripwire_sync.lease",
            "select tripwire_sync.read_vault()",
            "select tripwire_sync.macs('whsec_', 'x')",
            "select tripwire_sync.queue_request('https://sync.example.org', '{}', '{}')",
            "select tripwire_sync.send_event('INSERT', '{}')",
            "select * from tripwire_sync.test_event",
            "update net._http_response set status_code = 200 where false; select * from vault.secrets",
            "create table public.mine ()",
            "create schema mine",
            "create role mine",
        ] {
            refused(&cluster, "tripwire_sync", sql);
        }
    }
}

/// Asked of the catalogues, so that nothing is left out that the list above does not think of.
#[test]
fn the_services_role_has_no_other_right() {
    let cluster = project_with_rows();
    let columns = |privilege: &str| {
        cluster
            .sql_as(
                "supabase_admin",
                &format!(
                    "select string_agg(attname, ' ' order by attname) from pg_attribute
                      where attrelid = 'public.tripwire_users'::regclass and attnum > 0 and not attisdropped
                        and has_column_privilege('tripwire_sync', attrelid, attnum, '{privilege}')"
                ),
            )
            .unwrap()
    };
    assert_eq!(
        columns("select"),
        "amocrm_contact_id amocrm_deal_id created_at email full_name id manager_name phone price status"
    );
    assert_eq!(columns("update"), "amocrm_contact_id amocrm_deal_id");
    assert_eq!(columns("insert, references"), "");
    assert_eq!(
        columns("select with grant option, update with grant option"),
        ""
    );

    // pg_net's tables are everybody's: that is why only ids leave.
    let tables = cluster
        .sql_as(
            "supabase_admin",
            "select oid::regclass from pg_class
              where relkind in ('r', 'v', 'm', 'f', 'p') and relnamespace <> all (
                array['pg_catalog', 'information_schema', 'net']::regnamespace[])
                and (has_any_column_privilege('tripwire_sync', oid, 'select, insert, update, references')
                  or has_table_privilege('tripwire_sync', oid, 'select, insert, update, delete, truncate, references, trigger'))",
        )
        .unwrap();
    assert_eq!(tables, "tripwire_users");
    let granted_to_it = cluster
        .sql_as(
            "supabase_admin",
            "select proname from pg_proc, aclexplode(proacl) where grantee = 'tripwire_sync'::regrole order by 1",
        )
        .unwrap();
    assert_eq!(
        granted_to_it,
        "tripwire_sync_doctor\ntripwire_sync_lease\ntripwire_sync_pause\ntripwire_sync_test_event\ntripwire_sync_test_result"
    );

    let role = cluster
        .sql_as(
            "supabase_admin",
            "select rolcanlogin, rolinherit, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,
                    (select string_agg(rolname, ' ' order by rolname) from pg_roles as other
                      where pg_has_role(other.oid, tripwire_sync.oid, 'member') and not other.rolsuper),
                    (select count(*) from pg_auth_members where member = tripwire_sync.oid),
                    (select count(*) from pg_shdepend
                      where refclassid = 'pg_authid'::regclass and refobjid = tripwire_sync.oid and deptype = 'o')
               from pg_roles as tripwire_sync where rolname = 'tripwire_sync'",
        )
        .unwrap();
    assert_eq!(role, "f|f|f|f|f|f|f|authenticator tripwire_sync|0|0");
}

/// Code that a stranger makes `pg_net` run runs as this role.
#[test]
fn the_role_that_hands_events_to_pg_net_can_do_nothing() {
    let cluster = project_with_rows();
    cluster.configure(WEBHOOK_URL, WEBHOOK_SECRET);
    for sql in [
        "select id from public.tripwire_users",
        "select * from vault.decrypted_secrets",
        "select tripwire_sync.read_vault()",
        "select public.tripwire_sync_lease('a', 1)",
        "select public.tripwire_sync_pause(true)",
        "select public.tripwire_sync_doctor()",
        "alter function tripwire_sync.queue_request(text, jsonb, jsonb) reset search_path",
        "create or replace function tripwire_sync.queue_request(endpoint text, payload jsonb, headers jsonb)
           returns bigint language sql as 'select 1'",
        "create table public.mine ()",
        "set role postgres",
    ] {
        let as_it = format!("set role tripwire_sync_sender; {sql}");
        refused(&cluster, "supabase_admin", &as_it.replace("set role postgres", "set session authorization tripwire_sync_sender; set role postgres"));
    }
    let has = cluster
        .sql_as(
            "supabase_admin",
            "select rolcanlogin, rolinherit, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,
                    (select count(*) from pg_auth_members where roleid = sender.oid or member = sender.oid),
                    (select string_agg(pg_describe_object(classid, objid, objsubid), ' ') from pg_shdepend
                      where refclassid = 'pg_authid'::regclass and refobjid = sender.oid)
               from pg_roles as sender where rolname = 'tripwire_sync_sender'",
        )
        .unwrap();
    assert_eq!(
        has,
        "f|f|f|f|f|f|f|0|function tripwire_sync.queue_request(text,jsonb,jsonb)"
    );
}

/// The platform refuses an UPDATE or DELETE without a WHERE, for requests of the Data API also inside functions.
#[test]
fn no_function_of_ours_changes_rows_without_saying_which() {
    let cluster = project_with_rows();
    let bodies = cluster
        .sql_as(
            "supabase_admin",
            "select string_agg(prosrc, ';') from pg_proc
              where pronamespace = 'tripwire_sync'::regnamespace or proname ~ '^tripwire_sync_'",
        )
        .unwrap();
    let mut changes = 0;
    for statement in bodies.split(';') {
        let words: Vec<_> = statement.split_whitespace().collect();
        let begins = |word: &str| words.contains(&word) && !words.contains(&"conflict");
        if begins("update") || begins("delete") {
            changes += 1;
            assert!(words.contains(&"where"), "{statement}");
        }
    }
    assert!(changes >= 2, "the reader of bodies finds nothing");
}

/// The one right that a person may add, by the line that the guide and `check` show.
#[test]
fn the_password_is_readable_only_where_a_person_grants_it() {
    let cluster = project_with_rows();
    let password = "select id, generated_password from public.tripwire_users";
    cluster.apply_migration();
    refused(&cluster, "tripwire_sync", password);

    cluster
        .sql_as(
            "postgres",
            "grant select (generated_password) on public.tripwire_users to tripwire_sync",
        )
        .unwrap();
    cluster.sql_as("tripwire_sync", password).unwrap();
    cluster.apply_migration();
    cluster.sql_as("tripwire_sync", password).unwrap();

    cluster
        .sql_as(
            "postgres",
            "revoke select (generated_password) on public.tripwire_users from tripwire_sync",
        )
        .unwrap();
    cluster.apply_migration();
    refused(&cluster, "tripwire_sync", password);
}

#[test]
fn rights_that_it_should_not_have_go_when_the_migration_is_run_again() {
    let cluster = project_with_rows();
    let sound = cluster.schema();
    for too_much in [
        "grant all on public.tripwire_users to tripwire_sync",
        "grant select on public.tripwire_users to tripwire_sync",
        "grant select (user_id), update (email), insert (email) on public.tripwire_users to tripwire_sync",
        "grant select (email), update (amocrm_deal_id) on public.tripwire_users to tripwire_sync with grant option",
        "grant usage on schema tripwire_sync to tripwire_sync; grant all on tripwire_sync.lease to tripwire_sync",
        "grant execute on function tripwire_sync.read_vault() to tripwire_sync",
        "drop policy tripwire_sync_update on public.tripwire_users;
         create policy tripwire_sync_update on public.tripwire_users using (true)",
        "revoke all on public.tripwire_users from tripwire_sync;
         revoke all on function public.tripwire_sync_doctor() from tripwire_sync;
         revoke tripwire_sync from authenticator",
    ] {
        cluster.sql_as("postgres", too_much).unwrap();
        assert_ne!(cluster.schema(), sound, "{too_much}");
        cluster.apply_migration();
        assert_eq!(cluster.schema(), sound, "{too_much}");
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
    cluster.configure(WEBHOOK_URL, WEBHOOK_SECRET);
    for call in [
        "select public.tripwire_sync_lease('a', 60)",
        "select public.tripwire_sync_pause()",
        "select public.tripwire_sync_pause(true)",
        "select public.tripwire_sync_doctor()",
        "begin; select public.tripwire_sync_test_event(repeat('0', 32)); rollback",
        "select public.tripwire_sync_test_result(1)",
    ] {
        for role in ["tripwire_sync", "service_role"] {
            cluster.sql_as(role, call).unwrap();
        }
        for role in ["anon", "authenticated"] {
            refused(cluster, role, call);
        }
    }
    let reachable = cluster
        .sql_as(
            "supabase_admin",
            "select rolname from pg_roles
              where rolname in ('anon', 'authenticated', 'service_role', 'tripwire_sync')
                and (has_schema_privilege(oid, 'tripwire_sync', 'usage, create')
                  or has_table_privilege(oid, 'tripwire_sync.lease', 'select, insert, update, delete, truncate')
                  or has_table_privilege(oid, 'tripwire_sync.test_event', 'select, insert, update, delete, truncate')
                  or exists (
                    select from pg_proc
                     where pronamespace = 'tripwire_sync'::regnamespace
                       and has_function_privilege(pg_roles.oid, pg_proc.oid, 'execute')))",
        )
        .unwrap();
    assert_eq!(reachable, "");
    let open = cluster
        .sql_as(
            "supabase_admin",
            "select proname from pg_proc
              where (pronamespace = 'tripwire_sync'::regnamespace or proname ~ '^tripwire_sync_')
                and (prosecdef <> (proname not in ('read_vault', 'macs', 'send_event'))
                  or proowner <> case proname when 'queue_request' then 'tripwire_sync_sender' else 'postgres' end::regrole
                  or not 'search_path=pg_catalog, pg_temp' = any (proconfig))",
        )
        .unwrap();
    assert_eq!(open, "");
}
