//! The tests that also run on a real project: `pg_prove` over `supabase/tests`, on a project with the migration.

use crate::postgres::Cluster;

#[test]
fn every_object_is_as_pgtap_wants_it() {
    let cluster = Cluster::configured();
    cluster
        .sql_as(
            "supabase_admin",
            "create extension pgtap with schema extensions",
        )
        .unwrap_or_else(|error| {
            panic!(
                "the server has no pgTAP (Debian: apt-get install postgresql-15-pgtap): {error:?}"
            )
        });
    let report = cluster
        .prove(&["event", "lease", "role", "doctor"].map(|part| format!("supabase/tests/{part}_test.sql")))
        .unwrap_or_else(|error| {
            panic!(
                "pg_prove does not run (Debian: apt-get install libtap-parser-sourcehandler-pgtap-perl): {error}"
            )
        });
    assert!(report.contains("\nResult: PASS"), "{report}");
}
