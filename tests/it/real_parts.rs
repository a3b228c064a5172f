//! End to end on real parts: Postgres, the Supabase CLI, a Data API with the role's token, and the service as a process.
//!
//! Stand-ins are amoCRM (the sandbox), `pg_net` and Vault (`platform.sql`, `delivery_worker`), and the edge (`api`).

mod api;
mod check;
mod failover;
mod stack;
mod supabase_cli;

use std::{iter, num::NonZero, sync::Arc, time::Duration};

use sandbox::{
    AmoQuirks,
    scenario::{Case, Missing},
};
use tokio::sync::Semaphore;
use tripwire_sync::inbox::State;

use self::{stack::Stack, supabase_cli::SupabaseCli};
use crate::{
    delivery_worker::{DeliveryWorker, Ending, Line, Manners},
    postgres::{Cluster, PG_NET, free_port},
    program::{Launch, Service, until, until_drained},
    support::{SECRET, Wishes},
};

const OTHER_SECRET: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMi0wMDAyLTAwMDI=";

fn pushed() -> Cluster {
    let cluster = Cluster::start();
    SupabaseCli::new().push(&cluster);
    cluster
}

/// Where a service will listen, so that it can be told before it runs and again after it was restarted.
fn any_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

fn webhook_url(address: &str) -> String {
    format!("http://{address}/webhooks/supabase")
}

/// Five batches of `pg_net`.
const ROWS: usize = 1_000;
const BATCH: usize = ROWS / 5;

/// Rows come in several statements. With one batch delivered, a second under way and a third still queued, Postgres
/// crashes: what was under way and what was queued is lost with `pg_net`'s unlogged tables, the rows are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_rows_and_a_crash_of_postgres_leave_every_row_with_its_deal() {
    let wishes = Wishes {
        amo: AmoQuirks {
            index_lag: Duration::ZERO,
            ..AmoQuirks::default()
        },
        time_scale: 0.1,
        missing: Missing::Create,
        sweep_every: Some(Duration::from_secs(2)),
        requests_per_second: 7,
        ..Wishes::default()
    };
    let mut stack = Stack::on(pushed(), wishes).await;
    let cases = Case::ALL.into_iter().cycle().take(ROWS);
    let scenario = stack.scenario(cases);
    let address = any_address();
    let serve = stack
        .launch(&["serve"])
        .with("BIND_ADDR", &address)
        .with("AMOCRM_MISSING_CONTACT", "create");
    let service = Service::launch(serve).await;
    stack.cluster.configure(&webhook_url(&address), SECRET);

    let line = Line::new(Manners {
        batch: BATCH,
        drop_every: NonZero::new(17),
    });
    let batches = Arc::new(Semaphore::new(0));
    let worker = DeliveryWorker::start(&stack.cluster, &line).work(batches.clone());
    for half_a_batch in 0..6 {
        let first = half_a_batch * BATCH / 2;
        stack.insert(&scenario, first..first + BATCH / 2);
    }
    batches.add_permits(1);
    stack.until_written_back(1).await;
    assert_eq!(line.events(202), BATCH);
    batches.add_permits(1);
    until("a second batch is under way", || line.events(202) > BATCH).await;

    let queued = stack.cluster.queued().len();
    stack.cluster.crash();
    worker.abort();
    stack.cluster.recover();
    assert!(queued >= BATCH, "{queued}");
    assert_eq!(stack.cluster.queued().len(), 0, "the queue is lost");

    batches.add_permits(ROWS);
    let worker = DeliveryWorker::start(&stack.cluster, &line).work(batches.clone());
    stack.insert(&scenario, 3 * BATCH..4 * BATCH);
    stack.insert(&scenario, 4 * BATCH..ROWS);
    stack.until_written_back(ROWS).await;
    worker.abort();

    let inbox = stack.world.guest().await;
    until_drained(&inbox).await;
    let counts = inbox.counts().await.unwrap();
    assert_eq!(counts.by_state.get(&State::Parked), None);
    inbox.close().await;
    service.stop().await.assert_code(0);
    stack.assert_synced(&scenario);
    let mut endings: Vec<_> = line.endings().into_keys().collect();
    // Of test events: rows whose events the crash has lost look as if none arrived.
    endings.retain(|ending| *ending != Ending::Status(200));
    assert_eq!(endings, [Ending::Status(202)]);
    assert!(line.sent_again() > 0, "no event came twice");
}

/// The texts that `setup-sql` prints are all that the database needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pasted_twice_the_printed_texts_set_up_all_that_an_insert_needs() {
    let (cluster, address) = (Cluster::start_with(&[], &[PG_NET]), any_address());
    let operator = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        for print in [
            &["setup-sql", "--url", &webhook_url(&address)][..],
            &["setup-sql", "--secret"],
        ] {
            let printed = Launch::new(operator.path(), print).with("WEBHOOK_SECRET", SECRET);
            let printed = printed.run().await;
            printed.assert_code(0);
            cluster.sql_as("postgres", &printed.out).unwrap();
        }
    }

    // So that the test event has its ten seconds.
    let wishes = Wishes {
        time_scale: 1.0,
        ..Wishes::default()
    };
    let stack = Stack::on(cluster, wishes).await;
    let scenario = stack.scenario(iter::repeat_n(Case::OpenBeforeTarget, 3));
    let serve = stack.launch(&["serve"]).with("BIND_ADDR", &address);
    let service = Service::launch(serve).await;
    stack.insert(&scenario, 0..3);
    let line = Line::new(Manners::default());
    let worker = DeliveryWorker::start(&stack.cluster, &line);
    let worker = worker.work(Arc::new(Semaphore::new(ROWS)));
    stack.until_written_back(3).await;
    assert_eq!(line.events(202), 3);
    // With no more rights than the service has, the doctor misses nothing.
    let check = stack.launch(&["check"]).with("BIND_ADDR", &address);
    let found = check.run().await;
    found.assert_code(0);
    let wanting = found.out.lines().filter(|line| !line.starts_with("ok "));
    assert_eq!(
        wanting.collect::<Vec<_>>(),
        Vec::<&str>::new(),
        "{}",
        found.out
    );
    worker.abort();
    service.stop().await.assert_code(0);
    stack.assert_synced(&scenario);
}

/// The statements of the guide's "Replace the secret", in their order.
fn statements_of_the_replacement() -> Vec<String> {
    let guide = include_str!("../../docs/supabase.md");
    let (_, section) = guide.split_once("## Replace the secret\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks = section.split("```sql").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap())
        .map(|sql| {
            sql.replace("whsec_OLD", SECRET)
                .replace("whsec_NEW", OTHER_SECRET)
        })
        .collect()
}

/// Nothing sweeps here: what is not answered with 202 is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_is_replaced_as_the_guide_says_and_no_event_is_refused() {
    let stack = Stack::on(pushed(), Wishes::default()).await;
    let scenario = stack.scenario(iter::repeat_n(Case::OpenBeforeTarget, 8));
    let address = any_address();
    let serve = |secret| {
        let serve = stack.launch(&["serve"]).with("BIND_ADDR", &address);
        Service::launch(serve.with("WEBHOOK_SECRET", secret))
    };
    let line = Line::new(Manners::default());
    let mut worker = DeliveryWorker::start(&stack.cluster, &line);
    let mut rows = 0;
    let mut two_students = async || {
        stack.insert(&scenario, rows..rows + 2);
        rows += 2;
        worker.drain().await;
        assert_eq!(line.events(202), rows);
    };
    let [sign_with_both, sign_with_the_new_one] =
        <[String; 2]>::try_from(statements_of_the_replacement()).unwrap();

    let service = serve(SECRET).await;
    stack.cluster.configure(&webhook_url(&address), SECRET);
    two_students().await;
    stack.cluster.sql_as("postgres", &sign_with_both).unwrap();
    two_students().await;
    service.stop().await.assert_code(0);
    let service = serve(OTHER_SECRET).await;
    two_students().await;
    let sql = &sign_with_the_new_one;
    stack.cluster.sql_as("postgres", sql).unwrap();
    two_students().await;

    stack.until_written_back(rows).await;
    service.stop().await.assert_code(0);
    stack.assert_synced(&scenario);
    let endings: Vec<_> = line.endings().into_keys().collect();
    assert_eq!(endings, [Ending::Status(202)]);
}

#[test]
fn the_supabase_cli_applies_the_migrations_once_and_its_advisors_and_linter_have_no_complaint() {
    let (cli, cluster) = (SupabaseCli::new(), Cluster::start());
    // Where it is on offer, the platform's own person installs it.
    cluster
        .sql_as("supabase_admin", "create extension plpgsql_check")
        .unwrap();
    let before = cli.advice(&cluster);
    // The manager's own objects have their faults: the advisors are awake.
    assert!(!before.is_empty());

    let said = cli.push(&cluster);
    assert!(said.contains("Applying migration"), "{said}");
    let applied = cluster.schema();
    assert_eq!(
        cli.advice(&cluster),
        before,
        "the new findings are about our objects"
    );
    let lint = [
        "db",
        "lint",
        "--schema",
        "public,tripwire_sync",
        "--level",
        "warning",
        "--fail-on",
        "warning",
    ];
    let linted = cli.on(&cluster, &lint);
    assert!(linted.succeeded, "{}{}", linted.out, linted.err);

    let said = cli.push(&cluster);
    assert!(said.contains("up to date"), "{said}");
    assert_eq!(cluster.schema(), applied);
}

/// Whichever service is told of a row, the one that has the lease brings it into step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_services_with_two_inboxes_one_syncs_and_the_other_takes_over() {
    let wishes = Wishes {
        sweep_every: Some(Duration::from_millis(500)),
        ..Wishes::default()
    };
    let stack = Stack::on(pushed(), wishes).await;
    let scenario = stack.scenario(iter::repeat_n(Case::OpenBeforeTarget, 6));
    let launch = |args: &[&str], name: &str| {
        let inbox = stack.world.folder().join(format!("{name}.db"));
        let launch = stack.launch(args);
        launch.with("DATABASE_URL", format!("sqlite://{}", inbox.display()))
    };
    let serve = |name: &str| Service::launch(launch(&["serve"], name));
    let line = Line::new(Manners::default());
    let mut worker = DeliveryWorker::start(&stack.cluster, &line);
    let mut rows = 0;
    let mut two_students_for = async |service: &Service| {
        stack.send_webhooks_to(service);
        stack.insert(&scenario, rows..rows + 2);
        rows += 2;
        worker.drain().await;
        assert_eq!(line.events(202), rows);
    };

    let first = serve("first").await;
    stack.cluster.configure(&first.url, SECRET);
    first.until_sync_is("working").await;
    let second = serve("second").await;
    second.until_sync_is("standby").await;
    two_students_for(&second).await;
    stack.until_written_back(2).await;
    let metrics = second.metrics().await;
    let has_written = metrics.contains("tripwire_amocrm_requests_total{");
    assert!(!has_written, "{metrics}");

    // A pause on the standby, and its end, reach the service that syncs.
    for (command, state) in [("pause", "paused"), ("resume", "working")] {
        launch(&[command], "second").run().await.assert_code(0);
        first.until_sync_is(state).await;
    }

    // A clean stop gives it back at once.
    first.stop().await.assert_code(0);
    second.until_sync_is("working").await;
    two_students_for(&second).await;
    stack.until_written_back(4).await;

    // A dead one has it until it ends.
    let third = serve("third").await;
    third.until_sync_is("standby").await;
    second.kill().await;
    two_students_for(&third).await;
    third.until_sync_is("working").await;
    stack.until_written_back(6).await;
    third.stop().await.assert_code(0);
    stack.assert_synced(&scenario);
}
