//! `check` on real parts: what it says of the way of a test event, whole and broken.

use std::{iter, sync::Arc};

use sandbox::Case;
use tokio::sync::Semaphore;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::any};

use super::{any_address, stack::Stack, webhook_url};
use crate::{
    check::about,
    delivery_worker::{DeliveryWorker, Line, Manners},
    postgres::{Cluster, FORMER_MIGRATION, PG_NET},
    program::{Launch, Service},
    support::{SECRET, Wishes},
};

const OTHER_SECRET: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMi0wMDAyLTAwMDI=";
/// A second in place of the ten that `check` waits, where nothing comes.
const SOON: f64 = 0.1;
/// Long enough on a busy machine, where something comes.
const IN_TIME: f64 = 1.0;

/// A project as the platform has it, `pg_net` preloaded, with a service that takes its events.
struct Project {
    stack: Stack,
    service: Service,
    address: String,
}

impl Project {
    async fn start(time_scale: f64) -> Self {
        let cluster = Cluster::start_with(&["shared_preload_libraries=pg_net"], &[PG_NET]);
        cluster.apply_migration();
        let wishes = Wishes {
            time_scale,
            ..Wishes::default()
        };
        let stack = Stack::on(cluster, wishes).await;
        let address = any_address();
        let serve = stack.launch(&["serve"]).with("BIND_ADDR", &address);
        let service = Service::launch(serve).await;
        stack.cluster.configure(&webhook_url(&address), SECRET);
        Self {
            stack,
            service,
            address,
        }
    }

    fn admin(&self, sql: &str) {
        self.stack.cluster.sql_as("supabase_admin", sql).unwrap();
    }

    fn send_to(&self, url: &str) {
        self.admin(&format!(
            "select vault.update_secret(id, '{url}') from vault.secrets where name = 'tripwire_webhook_url'"
        ));
    }

    /// Its line about the test event, and its exit code.
    async fn check(&self) -> (String, i32) {
        self.admin("delete from tripwire_sync.test_event");
        let ended = self.launch().run().await;
        assert!(!ended.words().contains("whsec_"), "{ended:#?}");
        let line = about(&ended.out, "event").unwrap_or_else(|| panic!("{ended:#?}"));
        (line, ended.code.unwrap())
    }

    fn launch(&self) -> Launch {
        let check = self
            .stack
            .launch(&["check"])
            .with("BIND_ADDR", &self.address);
        check.with("AMOCRM_ENABLED", false)
    }

    async fn finds(&self, broken: &str, mended: &str, start: &str, words: &[&str]) {
        self.admin(broken);
        let (line, code) = self.check().await;
        assert!(
            line.starts_with(&format!("{start:<7}  event ")),
            "{broken}: {line}"
        );
        assert_eq!(code, i32::from(start == "failed"), "{broken}: {line}");
        for word in words {
            assert!(line.contains(word), "{word}: {line}");
        }
        self.admin(mended);
        self.admin("delete from net.http_request_queue; delete from net._http_response");
    }
}

/// `pg_net` at work, until it is aborted.
fn pg_net(cluster: &Cluster) -> tokio::task::JoinHandle<crate::delivery_worker::ServerGone> {
    let line = Line::new(Manners::default());
    DeliveryWorker::start(cluster, &line).work(Arc::new(Semaphore::new(100_000)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_event_that_is_not_signed_or_not_queued_says_so() {
    let project = Project::start(SOON).await;
    for (broken, mended, words) in [
        (
            "delete from vault.secrets where name = 'tripwire_webhook_secret'",
            &*format!("select vault.create_secret('{SECRET}', 'tripwire_webhook_secret')"),
            &[
                "not signed: Vault has no usable tripwire_webhook_secret",
                "`vault`",
            ][..],
        ),
        (
            "revoke all on schema vault from postgres, service_role cascade",
            "grant usage on schema vault to postgres",
            &["not signed: SQLSTATE 42501", "`vault`"],
        ),
        (
            "revoke execute on function net.http_post from public",
            "grant execute on function net.http_post to public",
            &["did not take it: SQLSTATE 42501", "off and on"],
        ),
        (
            "revoke all on net.http_request_queue from public",
            "grant all on net.http_request_queue to public",
            &["did not take it: SQLSTATE 42501", "net.http_request_queue"],
        ),
        (
            "alter function net.http_post rename to http_post_away",
            "alter function net.http_post_away rename to http_post",
            &[
                "did not take it: SQLSTATE 42883",
                "Database, Extensions, pg_net",
            ],
        ),
    ] {
        project.finds(broken, mended, "failed", words).await;
    }
    project.service.stop().await.assert_code(0);
}

/// The worker of `pg_net` is gone, or is slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_event_that_is_queued_and_not_sent_says_why() {
    let project = Project::start(SOON).await;
    let stack = &project.stack;
    for (broken, mended, words) in [
        (
            "set allow_system_table_mods = on;
             update pg_extension set extversion = '0.14.0' where extname = 'pg_net'",
            "set allow_system_table_mods = on;
             update pg_extension set extversion = '0.20.4' where extname = 'pg_net'",
            &[
                "its program is 0.20.4 and its SQL older",
                "ALTER EXTENSION pg_net UPDATE",
            ][..],
        ),
        (
            "insert into net.http_request_queue (method, url, timeout_milliseconds)
             select 'POST', 'https://else.example', 1 from generate_series(1, 3)",
            "select 1",
            &[
                "queued behind 3 others",
                "it has no worker",
                "net.worker_restart()",
            ],
        ),
    ] {
        project.finds(broken, mended, "failed", words).await;
    }

    project.admin("alter database postgres set pg_net.database_name = 'other'");
    stack.api.reload(&stack.cluster);
    project
        .finds(
            "select 1",
            "alter database postgres reset pg_net.database_name",
            "failed",
            &["queued behind 0 others", "serves the database other"],
        )
        .await;
    stack.api.reload(&stack.cluster);

    // Sent in time to come.
    project.admin(
        "insert into net.http_request_queue (method, url, timeout_milliseconds)
         select 'POST', 'https://else.example', 1 from generate_series(1, 20000)",
    );
    let mut slow = stack.cluster.session("supabase_admin");
    slow.send(
        "do $$ begin
           while exists (select from net.http_request_queue) loop
             delete from net.http_request_queue where id in (select id from net.http_request_queue order by id limit 5);
             commit;
             perform pg_sleep(0.01);
           end loop;
         end $$",
    );
    project
        .finds(
            "select 1",
            "select 1",
            "warning",
            &["waits behind", "which pg_net is sending"],
        )
        .await;
    slow.reply();
    project.service.stop().await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_event_that_is_sent_says_where_it_arrived() {
    let project = Project::start(IN_TIME).await;
    let stack = &project.stack;
    let here = webhook_url(&project.address);
    let worker = pg_net(&stack.cluster);
    let nothing = "select 1";
    project
        .finds(
            nothing,
            nothing,
            "ok",
            &["came from the database to the service and was verified"],
        )
        .await;
    let other_secret = format!(
        "select vault.update_secret(id, '{OTHER_SECRET}') from vault.secrets where name = 'tripwire_webhook_secret'"
    );
    let secret = other_secret.replace(OTHER_SECRET, SECRET);
    project
        .finds(
            &other_secret,
            &secret,
            "failed",
            &[&here, "answered with 401", "WEBHOOK_SECRET"],
        )
        .await;

    let elsewhere = MockServer::start().await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(200).set_body_string("<h1>Welcome</h1>"))
        .mount(&elsewhere)
        .await;
    let other = format!("{}/hook", elsewhere.uri());
    project.send_to(&other);
    project
        .finds(
            nothing,
            nothing,
            "failed",
            &[&other, "is not the service", "Another address"],
        )
        .await;
    let nobody = format!("http://{}/hook", any_address());
    project.send_to(&nobody);
    project
        .finds(
            nothing,
            nothing,
            "failed",
            &[&nobody, "did not arrive (connection refused)"],
        )
        .await;
    project.send_to(&format!("http://{}/elsewhere", project.address));
    project
        .finds(
            nothing,
            nothing,
            "failed",
            &["/elsewhere", "answered with 404", "final address"],
        )
        .await;

    project.send_to(&here);
    project.finds(nothing, nothing, "ok", &[]).await;
    worker.abort();
    project.service.stop().await.assert_code(0);
}

/// Where `pg_net` is not preloaded it has no worker, and real versions refuse each call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pg_net_that_is_not_preloaded_is_told() {
    let cluster = Cluster::start_with(&[], &[PG_NET]);
    cluster.apply_migration();
    cluster.configure("http://127.0.0.1:9/webhooks/supabase", SECRET);
    cluster
        .sql_as(
            "supabase_admin",
            "create or replace function net.http_post(
               url text, body jsonb default '{}', params jsonb default '{}',
               headers jsonb default '{}', timeout_milliseconds integer default 5000) returns bigint
             language plpgsql as 'begin raise object_not_in_prerequisite_state; end'",
        )
        .unwrap();
    let stack = Stack::on(cluster, Wishes::default()).await;
    let check = stack.launch(&["check"]).with("AMOCRM_ENABLED", false);
    let ended = check.run().await;
    ended.assert_code(1);
    let line = about(&ended.out, "event").unwrap_or_else(|| panic!("{ended:#?}"));
    for words in [
        "did not take it: SQLSTATE 55000",
        "not in shared_preload_libraries",
        "restart the project",
    ] {
        assert!(line.contains(words), "{line}");
    }
}

/// Set up by the present release's predecessor: everything works, and `check` says what to run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_with_the_former_sql_is_warned_of_and_upgraded_by_one_run() {
    let cluster = Cluster::start_with(&["shared_preload_libraries=pg_net"], &[PG_NET]);
    cluster.sql_as("postgres", FORMER_MIGRATION).unwrap();
    let address = any_address();
    cluster.configure(&webhook_url(&address), SECRET);
    let wishes = Wishes {
        time_scale: IN_TIME,
        ..Wishes::default()
    };
    let stack = Stack::on(cluster, wishes).await;
    let scenario = stack.scenario(iter::repeat_n(Case::OpenBeforeTarget, 4));
    let serve = stack.launch(&["serve"]).with("BIND_ADDR", &address);
    let service = Service::launch(serve).await;
    let worker = pg_net(&stack.cluster);
    let complaints = async || {
        let ended = stack
            .launch(&["check"])
            .with("BIND_ADDR", &address)
            .run()
            .await;
        ended.assert_code(0);
        let lines = ended.out.lines().filter(|line| !line.starts_with("ok "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };

    stack.insert(&scenario, 0..2);
    stack.until_written_back(2).await;
    let told = complaints().await;
    let [line] = &told[..] else {
        panic!("{told:#?}");
    };
    assert!(
        line.starts_with("warning  database   the SQL in this project is an older one"),
        "{line}"
    );

    let print = ["setup-sql", "--url", &webhook_url(&address)];
    let printed = Launch::new(stack.world.folder(), &print).run().await;
    stack.cluster.sql_as("postgres", &printed.out).unwrap();
    stack.api.reload(&stack.cluster);
    assert_eq!(complaints().await, Vec::<String>::new());
    stack.insert(&scenario, 2..4);
    stack.until_written_back(4).await;
    worker.abort();
    service.stop().await.assert_code(0);
    stack.assert_synced(&scenario);
}
