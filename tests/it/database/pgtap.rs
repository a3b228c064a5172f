//! The tests that also run on a real project: `pg_prove` over `supabase/tests`, on a project with the migration.

use crate::postgres::{Cluster, FORMER_MIGRATION, OLDER_PG_NET, WEBHOOK_SECRET, WEBHOOK_URL};

#[test]
fn every_object_is_as_pgtap_wants_it() {
    let report = prove(
        &Cluster::configured(),
        &["event", "lease", "pause", "role", "doctor", "attack"],
    );
    assert!(report.contains("\nResult: PASS"), "{report}");
}

#[test]
fn no_attack_succeeds_with_the_older_kind_of_pg_net_either() {
    let cluster = Cluster::configured();
    cluster.sql_as("supabase_admin", OLDER_PG_NET).unwrap();
    let report = prove(&cluster, &["attack"]);
    assert!(report.contains("\nResult: PASS"), "{report}");
}

/// Else the test would not know an attack.
#[test]
fn the_attack_succeeds_against_the_former_migration() {
    let cluster = Cluster::start();
    cluster.sql_as("postgres", FORMER_MIGRATION).unwrap();
    cluster.configure(WEBHOOK_URL, WEBHOOK_SECRET);
    let report = prove(&cluster, &["attack"]);
    for failed in [
        "types do nothing to: insert",
        "types do nothing to: select public.tripwire_sync_doctor()",
        "types that pg_net has kept do nothing",
        "trigger on the queue does nothing to: insert",
    ] {
        let is_it = |line: &&str| line.contains("Failed test") && line.contains(failed);
        assert!(
            report.lines().any(|line| is_it(&line)),
            "{failed}: {report}"
        );
    }
    assert!(report.contains("\nResult: FAIL"), "{report}");
}

fn prove(cluster: &Cluster, parts: &[&str]) -> String {
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
    let files: Vec<String> = parts
        .iter()
        .map(|part| format!("supabase/tests/{part}_test.sql"))
        .collect();
    cluster
        .prove(&files)
        .unwrap_or_else(|error| {
            panic!(
                "pg_prove does not run (Debian: apt-get install libtap-parser-sourcehandler-pgtap-perl): {error}"
            )
        })
}
