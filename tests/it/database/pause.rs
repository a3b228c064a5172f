//! The pause: the last `pause` or `resume`, beside the lease.

use serde_json::{Value, json};

use super::count;
use crate::postgres::Cluster;

fn told(answer: &str) -> Value {
    serde_json::from_str(answer).unwrap()
}

fn changed_at(told: &Value) -> jiff::Timestamp {
    let changed_at = told["last"]["changed_at"].as_str();
    changed_at.unwrap().parse().unwrap()
}

#[test]
fn the_last_pause_or_resume_is_kept_with_a_time_that_only_grows() {
    let cluster = Cluster::start();
    cluster.apply_migration();
    let ask = |argument: &str| {
        let sql = format!("select public.tripwire_sync_pause({argument})");
        told(&cluster.sql_as("tripwire_sync", &sql).unwrap())
    };
    let never = json!({ "last": null, "held_by": null });
    assert_eq!(ask(""), never);
    assert_eq!(ask("null"), never);

    let paused = ask("true");
    assert_eq!(paused["last"]["is_paused"], true);
    let lease = "select public.tripwire_sync_lease('vm-1', 60)";
    cluster.sql_as("tripwire_sync", lease).unwrap();
    let asked = ask("");
    assert_eq!(asked["held_by"], "vm-1");
    assert_eq!(changed_at(&asked), changed_at(&paused));
    let ago = |told: &Value| told["last"]["seconds_ago"].as_f64().unwrap();
    assert!(
        (0.0..60.0).contains(&ago(&asked)) && ago(&asked) > ago(&paused),
        "{asked}"
    );

    // The server's clock was put back since.
    let later = "update tripwire_sync.pause set changed_at = changed_at + interval '1 hour'";
    cluster.sql_as("supabase_admin", later).unwrap();
    let pause = ask("");
    let resumed = ask("false");
    assert_eq!(resumed["last"]["is_paused"], false);
    assert!(changed_at(&resumed) > changed_at(&pause), "{resumed}");
    assert_eq!(count(&cluster, "tripwire_sync.pause"), 1);

    let ended = "update tripwire_sync.lease set held_until = now() - interval '1 second'";
    cluster.sql_as("supabase_admin", ended).unwrap();
    assert_eq!(ask("")["held_by"], Value::Null);
}

#[test]
fn of_two_that_pause_and_resume_at_once_the_second_is_the_later_one() {
    let cluster = Cluster::start();
    cluster.apply_migration();
    let mut first = cluster.session("service_role");
    let mut second = cluster.session("service_role");
    // The row is there, so that the second waits for the first.
    first.sql("select public.tripwire_sync_pause(false)");
    first.sql("begin");
    let paused = told(&first.sql("select public.tripwire_sync_pause(true)"));
    second.send("select public.tripwire_sync_pause(false)");
    while count(&cluster, "pg_locks where not granted") == 0 {}
    first.sql("commit");
    let resumed = told(&second.reply());
    assert_eq!(resumed["last"]["is_paused"], false);
    assert!(changed_at(&resumed) > changed_at(&paused));
}
