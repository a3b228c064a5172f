//! The migration on projects of every kind, and its way back.

use super::{ONE_ROW, count, only, signed_with};
use crate::postgres::{
    Cluster, DOWN, FORMER_MIGRATION, MIGRATION, PG_NET, SqlError, WEBHOOK_SECRET, WEBHOOK_URL,
    vault,
};

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
    let notices = cluster.apply_migration();
    assert_eq!(cluster.schema(), applied);
    // From Postgres 16 on only who made the role may grant it: once is enough.
    assert!(!notices.contains("already a member"), "{notices}");

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
    let plan = cluster
        .sql_as(
            "service_role",
            "set enable_seqscan = off;
             explain select id from public.tripwire_users
              where amocrm_deal_id is null and created_at >= now() - interval '5 minutes'
              order by created_at desc, id desc limit 1000",
        )
        .unwrap();
    let index = "tripwire_users_without_deal_by_time_idx";
    assert!(plan.contains(index) && !plan.contains("Sort"), "{plan}");

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

/// Whole by itself, and all that is left of the one before it: a project may have either, and any number of times.
#[test]
fn a_project_with_the_former_migration_is_upgraded_and_taken_back() {
    let fresh = Cluster::start();
    let before = fresh.schema();
    fresh.apply_migration();
    let current = fresh.schema();

    let cluster = Cluster::start();
    for _ in 0..2 {
        cluster.sql_as("postgres", FORMER_MIGRATION).unwrap();
        cluster.configure_again();
        for _ in 0..2 {
            cluster.apply_migration();
            assert_eq!(cluster.schema(), current);
        }
        cluster
            .sql_as(
                "service_role",
                "select public.tripwire_sync_test_event(repeat('0', 32))",
            )
            .unwrap();
        let asked = ONE_ROW.replace("anna@", &format!("{}@", uuid::Uuid::new_v4().simple()));
        cluster.sql_as("postgres", &asked).unwrap();
        let queued = cluster.queued();
        assert_eq!(queued.len(), 2);
        assert!(
            queued
                .iter()
                .all(|request| signed_with(request, WEBHOOK_SECRET))
        );
        cluster
            .sql_as(
                "supabase_admin",
                "truncate net.http_request_queue; delete from tripwire_sync.test_event",
            )
            .unwrap();
    }
    cluster.sql_as("postgres", DOWN).unwrap();
    assert_eq!(cluster.schema(), before);
}

/// What somebody's table may be like: the change from the newest shape, the columns that the role then reads beside the
/// needed ones, and the type of the ids.
const SHAPES: &[(&str, &str, &str)] = &[
    (
        "drop column user_id cascade, drop column phone, drop column price, drop column generated_password,
         drop column amocrm_deal_id, drop column amocrm_contact_id, drop column status, drop column manager_name,
         drop column granted_by, drop column first_login_at, drop column maintenance_notification_sent,
         drop column maintenance_notification_sent_at",
        "",
        "text",
    ),
    (
        "drop column user_id cascade, drop column phone, drop column amocrm_contact_id, alter column amocrm_deal_id type bigint
           using null, alter column status drop default, alter column status drop not null",
        "manager_name price status",
        "bigint",
    ),
    (
        "drop column amocrm_deal_id, drop column price, force row level security",
        "manager_name phone status",
        "text",
    ),
    (
        "alter column amocrm_deal_id type bigint using null, alter column amocrm_contact_id type bigint using null,
         disable row level security",
        "manager_name phone price status",
        "bigint",
    ),
];

#[test]
fn the_migration_fits_a_table_of_any_shape_and_leaves_it_as_it_was() {
    for (change, optional, ids) in SHAPES {
        let cluster = Cluster::start();
        cluster
            .sql_as(
                "postgres",
                &format!(
                    "alter table public.tripwire_users {change};
                     insert into public.tripwire_users (full_name, email) values ('Old', 'old@example.org')"
                ),
            )
            .unwrap();
        let before = cluster.schema();
        let had: Vec<_> = columns(&cluster);
        cluster.apply_migration();
        let applied = cluster.schema();
        cluster.apply_migration();
        assert_eq!(cluster.schema(), applied, "{change}");
        cluster.configure(WEBHOOK_URL, WEBHOOK_SECRET);
        cluster
            .sql_as(
                "postgres",
                "insert into public.tripwire_users (full_name, email) values ('New', 'new@example.org')",
            )
            .unwrap();
        assert!(signed_with(&only(cluster.queued()), WEBHOOK_SECRET));

        let readable = cluster
            .sql_as(
                "postgres",
                "select string_agg(attname, ' ' order by attname) from pg_attribute
                  where attrelid = 'public.tripwire_users'::regclass and attnum > 0 and not attisdropped
                    and has_column_privilege('tripwire_sync', attrelid, attnum, 'select')",
            )
            .unwrap();
        let mut expected: Vec<_> = "amocrm_contact_id amocrm_deal_id created_at email full_name id"
            .split(' ')
            .chain(optional.split_whitespace())
            .collect();
        expected.sort_unstable();
        assert_eq!(readable, expected.join(" "), "{change}");

        // As PostgREST does it: the record has the type of the column.
        let written = cluster
            .sql_as(
                "tripwire_sync",
                &format!(
                    r#"with source as (
                         update public.tripwire_users set amocrm_deal_id = body.amocrm_deal_id
                           from json_to_record('{{"amocrm_deal_id": "31"}}') as body (amocrm_deal_id {ids})
                          where tripwire_users.amocrm_deal_id is null
                         returning tripwire_users.id, tripwire_users.amocrm_deal_id)
                       select amocrm_deal_id from source"#
                ),
            )
            .unwrap();
        assert_eq!(written, "31\n31", "{change}");

        cluster.sql_as("postgres", DOWN).unwrap();
        for added in columns(&cluster).iter().filter(|name| !had.contains(name)) {
            let kept = format!("alter table public.tripwire_users drop column {added}");
            cluster.sql_as("postgres", &kept).unwrap();
        }
        assert_eq!(cluster.schema(), before, "{change}");
    }
}

fn columns(cluster: &Cluster) -> Vec<String> {
    let names = cluster
        .sql_as(
            "postgres",
            "select attname from pg_attribute
              where attrelid = 'public.tripwire_users'::regclass and attnum > 0 and not attisdropped",
        )
        .unwrap();
    names.lines().map(str::to_owned).collect()
}

/// Whoever made the role first, and whatever others gave it: both ways lead through.
#[test]
fn others_may_have_used_the_role() {
    let cluster = Cluster::start();
    cluster
        .sql_as(
            "postgres",
            "create table public.invoices (id int);
             create policy theirs on public.tripwire_user_profile for select to anon using (false)",
        )
        .unwrap();
    let before = cluster.schema();
    cluster
        .sql_as("postgres", "create role tripwire_sync nologin noinherit")
        .unwrap();
    cluster.apply_migration();
    cluster
        .sql_as(
            "postgres",
            "grant select on public.invoices, public.tripwire_user_profile to tripwire_sync;
             grant select (generated_password) on public.tripwire_users to tripwire_sync;
             alter default privileges grant select on tables to tripwire_sync;
             alter policy theirs on public.tripwire_user_profile to anon, tripwire_sync;
             grant create on schema public to tripwire_sync;
             grant tripwire_sync to postgres;
             set role tripwire_sync;
             create function public.theirs() returns int language sql return 1;
             reset role;
             revoke tripwire_sync from postgres",
        )
        .unwrap();

    let used = cluster.schema();
    let error = cluster.sql_as("postgres", DOWN).unwrap_err();
    assert!(format!("{error:?}").contains("not ours"), "{error:?}");
    assert_eq!(cluster.schema(), used);

    // The statements of its hint, by the role that it was run by.
    cluster.sql_as("postgres", &hint(&error)).unwrap();
    cluster
        .sql_as("postgres", "drop function public.theirs()")
        .unwrap();
    cluster.sql_as("postgres", DOWN).unwrap();
    assert_eq!(cluster.schema(), before);
}

/// The statements at the end of a hint.
fn hint(error: &SqlError) -> String {
    let text = format!("{error:?}");
    let (_, hint) = text.split_once("HINT:  ").unwrap();
    let (_, statements) = hint.lines().next().unwrap().split_once(": ").unwrap();
    statements.to_owned()
}

#[test]
fn it_can_be_taken_back_when_the_table_is_gone() {
    let cluster = Cluster::start();
    cluster.apply_migration();
    let drop = "drop table public.tripwire_users cascade";
    cluster.sql_as("postgres", drop).unwrap();
    cluster.sql_as("postgres", DOWN).unwrap();
    assert_eq!(
        count(
            &cluster,
            "pg_roles where rolname in ('tripwire_sync', 'authenticator')"
        ),
        1
    );
    assert_eq!(
        count(&cluster, "pg_proc where proname ~ 'tripwire_sync'"),
        0
    );
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
        refuses(&cluster, change, said);
    }
}

fn refuses(cluster: &Cluster, change: &str, said: &str) {
    cluster.sql_as("postgres", change).unwrap();
    let before = cluster.schema();
    let error = cluster.sql_as("postgres", MIGRATION).unwrap_err();
    assert!(format!("{error:?}").contains(said), "{error:?}");
    assert_eq!(cluster.schema(), before, "{change}");
}

#[test]
fn the_migration_refuses_ids_that_are_no_uuids() {
    let cluster = Cluster::start();
    for (name, change) in [
        (
            "bigint",
            "add column id bigint generated always as identity",
        ),
        ("integer", "add column id serial"),
        ("text", "add column id text default 'x'"),
        ("character varying", "add column id varchar(36)"),
        ("integer", "add column id public.number"),
    ] {
        let change = format!(
            "create domain public.number as int;
             drop view if exists public.ids;
             alter table public.tripwire_users drop column id cascade;
             alter table public.tripwire_users {change}"
        );
        let change = change.replace(
            "create domain public.number as int;",
            "do $$ begin create domain public.number as int; exception when duplicate_object then null; end $$;",
        );
        refuses(
            &cluster,
            &change,
            &format!("id is of the type {name}, and the service needs uuid"),
        );
    }
}

#[test]
fn a_domain_over_uuid_is_a_uuid() {
    let cluster = Cluster::start();
    cluster
        .sql_as(
            "postgres",
            "create domain public.inner_id as uuid;
             create domain public.row_id as public.inner_id;
             alter table public.tripwire_user_profile drop column tripwire_user_id cascade;
             drop trigger trigger_create_tripwire_profile on public.tripwire_users;
             alter table public.tripwire_users alter column id type public.row_id",
        )
        .unwrap();
    cluster.apply_migration();
    cluster.configure(WEBHOOK_URL, WEBHOOK_SECRET);
    let id = cluster
        .sql_as("postgres", &format!("{ONE_ROW} returning id"))
        .unwrap();
    let request = only(cluster.queued());
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["record"]["id"], id);
}

/// A session that writes all the time, with breaks shorter than a second.
#[test]
fn the_migration_and_its_way_back_wait_for_a_busy_table() {
    for sql in [MIGRATION, DOWN] {
        let cluster = Cluster::start();
        cluster.apply_migration();
        let mut manager = cluster.session("postgres");
        manager.sql(&format!("begin; {ONE_ROW}"));
        let mut operator = cluster.session("postgres");
        operator.send(&format!("{sql}\n; select 'done'"));
        // It has given way, so that others get through, and will stand in line again.
        let resting = "pg_stat_activity where wait_event = 'PgSleep'";
        while count(&cluster, resting) == 0 {}
        manager.sql("commit");
        assert_eq!(operator.reply(), "done");
    }
}

#[test]
fn the_migration_gives_up_on_a_transaction_that_stays_open_and_changes_nothing() {
    let cluster = Cluster::start();
    let before = cluster.schema();
    let mut manager = cluster.session("postgres");
    manager.sql(&format!("begin; {ONE_ROW}"));

    let impatient = MIGRATION.replace("interval '30 seconds'", "interval '0 seconds'");
    assert_ne!(impatient, MIGRATION);
    let error = cluster.sql_as("postgres", &impatient).unwrap_err();
    assert_eq!(error.sqlstate(), "55P03", "{error:?}");
    let said = format!("{error:?}");
    assert!(
        said.contains("nothing was changed") && said.contains("Run this again"),
        "{said}"
    );
    manager.sql("commit");
    assert_eq!(cluster.schema(), before);
    cluster.apply_migration();
}

const WITHOUT_VAULT: &str = "drop schema vault cascade";

#[test]
fn the_migration_switches_on_the_extensions_where_it_may() {
    let cluster = Cluster::start_with(&[], &[PG_NET, vault(true)]);
    cluster.sql_as("supabase_admin", WITHOUT_VAULT).unwrap();
    for _ in 0..2 {
        let notices = cluster.apply_migration();
        assert!(!notices.contains("not available"), "{notices}");
        assert!(!notices.contains("could not be switched on"), "{notices}");
    }
    let extensions = "select string_agg(extname, ' ' order by extname) from pg_extension where extname <> 'plpgsql'";
    assert_eq!(
        cluster.sql_as("postgres", extensions).unwrap(),
        "pg_net pgcrypto supabase_vault"
    );
    cluster.configure(WEBHOOK_URL, WEBHOOK_SECRET);
    cluster.sql_as("postgres", ONE_ROW).unwrap();
    assert!(signed_with(&only(cluster.queued()), WEBHOOK_SECRET));
}

#[test]
fn where_vault_may_not_be_switched_on_the_migration_says_what_to_press() {
    for extensions in [&[][..], &[vault(false)]] {
        let cluster = Cluster::start_with(&[], extensions);
        cluster.sql_as("supabase_admin", WITHOUT_VAULT).unwrap();
        let notices = cluster.apply_migration();
        assert!(
            notices.contains("switch on Database, Extensions, supabase_vault"),
            "{notices}"
        );
        let passed = cluster.run("postgres", ONE_ROW).unwrap();
        assert!(passed.notices.contains("WARNING"), "{}", passed.notices);
    }
}
