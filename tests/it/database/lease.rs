//! The lease: of several services, one syncs.

use super::count;
use crate::postgres::Cluster;

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
