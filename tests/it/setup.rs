//! Setting up the database as a person does: the guide, the SQL of `setup-sql`, a secret replaced, the dashboard's own way.

use std::path::Path;

use serde_json::json;
use tripwire_sync::{domain::WebhookSecret, supabase::Doctor};
use uuid::Uuid;

use crate::{
    database::{ONE_ROW, OTHER_SECRET, only, signed_with},
    postgres::{Cluster, Queued, WEBHOOK_SECRET, WEBHOOK_URL},
    program::{Ended, Launch, Service},
    support::{Wishes, World},
};

const PATH: &str = "/webhooks/supabase";
const VAULT: &str =
    "select name || ' ' || decrypted_secret from vault.decrypted_secrets order by name";

async fn setup_sql(folder: &Path, secrets: &str, url: &str) -> Ended {
    let launch = Launch::new(folder, &["setup-sql", "--url", url]);
    launch.with("WEBHOOK_SECRET", secrets).run().await
}

/// One more student, and the request that the database makes of it.
fn insert(cluster: &Cluster) -> Queued {
    let sql = ONE_ROW.replace("anna@", &format!("{}@", Uuid::new_v4().simple()));
    cluster
        .sql_as("supabase_admin", "delete from net.http_request_queue")
        .unwrap();
    cluster.sql_as("postgres", &sql).unwrap();
    only(cluster.queued())
}

#[tokio::test]
async fn the_printed_sql_sets_a_project_up_and_may_be_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start();
    let ended = setup_sql(folder.path(), WEBHOOK_SECRET, "https://sync.example.org").await;
    ended.assert_code(0);
    assert!(ended.err.contains("The path was added"), "{}", ended.err);
    assert!(ended.err.contains("do not save"), "{}", ended.err);
    assert!(!ended.err.contains("whsec_"), "{}", ended.err);
    let expected =
        format!("tripwire_webhook_secret {WEBHOOK_SECRET}\ntripwire_webhook_url {WEBHOOK_URL}");
    for _ in 0..2 {
        let said = cluster.sql_as("postgres", &ended.out).unwrap();
        assert!(said.ends_with("told by: tripwire-sync check"), "{said}");
        assert_eq!(cluster.sql_as("postgres", VAULT).unwrap(), expected);
    }
    let request = insert(&cluster);
    assert_eq!(request.url, WEBHOOK_URL);
    assert!(signed_with(&request, WEBHOOK_SECRET));

    // Made by hand before, and to another place now.
    let other = setup_sql(folder.path(), OTHER_SECRET, "https://new.example/x").await;
    assert!(other.err.contains("Warning"), "{}", other.err);
    cluster.sql_as("postgres", &other.out).unwrap();
    let expected = format!(
        "tripwire_webhook_secret {OTHER_SECRET}\ntripwire_webhook_url https://new.example/x"
    );
    assert_eq!(cluster.sql_as("postgres", VAULT).unwrap(), expected);
}

#[tokio::test]
async fn a_secret_is_made_where_there_is_none_and_a_bad_address_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start();
    // Nothing else is set, and need not be.
    let args = ["setup-sql", "--url", WEBHOOK_URL];
    let ended = Launch::new(folder.path(), &args).run().await;
    ended.assert_code(0);
    cluster.sql_as("postgres", &ended.out).unwrap();
    let secret = cluster
        .sql_as(
            "postgres",
            "select decrypted_secret from vault.decrypted_secrets where name = 'tripwire_webhook_secret'",
        )
        .unwrap();
    assert!(signed_with(&insert(&cluster), &secret));
    // Not a terminal: told where to find it, and not told.
    assert!(
        ended.err.contains("WEBHOOK_SECRET is not set"),
        "{}",
        ended.err
    );
    assert!(!ended.err.contains(&secret), "{}", ended.err);

    for url in [
        "http://sync.example.org",
        "sync.example.org",
        "https://a b.example",
    ] {
        let refused = setup_sql(folder.path(), WEBHOOK_SECRET, url).await;
        refused.assert_code(2);
        assert_eq!(refused.out, "", "{url}");
    }
    let refused = setup_sql(folder.path(), "whsec_short", WEBHOOK_URL).await;
    refused.assert_code(2);
    assert_eq!(refused.out, "");
}

/// Both ends of the agreement: what the migration's function says is what `check` reads.
#[tokio::test]
async fn the_database_tells_check_what_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start();
    let both = format!("{WEBHOOK_SECRET},{OTHER_SECRET}");
    let sql = setup_sql(folder.path(), &both, WEBHOOK_URL).await.out;
    cluster.sql_as("postgres", &sql).unwrap();
    cluster
        .sql_as(
            "service_role",
            "select public.tripwire_sync_lease('laptop', 60)",
        )
        .unwrap();
    let told = cluster
        .sql_as("tripwire_sync", "select public.tripwire_sync_doctor()")
        .unwrap();
    let Doctor {
        now,
        columns,
        rls,
        caller,
        role,
        trigger,
        dashboard_webhooks,
        pg_net: _,
        queued: _,
        vault,
        lease,
    } = serde_json::from_str(&told).unwrap();
    assert!(now.is_some() && rls && columns.len() == 25, "{told}");
    assert_eq!(caller.name.as_deref(), Some("tripwire_sync"));
    assert!(!caller.bypasses_rls && caller.select_policy && caller.update_policy);
    assert!(caller.may_select.iter().any(|column| column == "email"));
    let mut may_update = caller.may_update;
    may_update.sort();
    assert_eq!(may_update, ["amocrm_contact_id", "amocrm_deal_id"]);
    assert!(role.exists && role.granted_to_authenticator, "{told}");
    assert!(trigger.present && trigger.enabled && trigger.insert_only && trigger.ours);
    assert_eq!(dashboard_webhooks, Vec::<String>::new());
    let fingerprints = [WEBHOOK_SECRET, OTHER_SECRET]
        .map(|secret| WebhookSecret::parse(secret).unwrap().fingerprint());
    assert_eq!(vault.fingerprints, fingerprints);
    assert_eq!((vault.unusable, vault.error), (0, None));
    let (url, path) = (vault.url.unwrap(), vault.url_path.unwrap());
    assert_eq!(format!("{url}{path}"), WEBHOOK_URL);
    let lease = lease.unwrap();
    assert_eq!(lease.held_by, "laptop");
    assert!(lease.seconds_left > 0.0 && lease.seconds_left <= 60.0);
}

/// The very requests of a real database, handed to the real receiver in `pg_net`'s place.
async fn deliver(service: &Service, request: &Queued) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut post = client
        .post(format!("{}{PATH}", service.url))
        .body(request.body.clone());
    for (name, value) in &request.headers {
        post = post.header(name, value);
    }
    post.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_replaced_without_losing_an_event() {
    let world = World::prepare(Wishes::default());
    let cluster = Cluster::start();
    let both = format!("{WEBHOOK_SECRET} {OTHER_SECRET}");
    let (old, new) = (WEBHOOK_SECRET, OTHER_SECRET);
    let mut service: Option<Service> = None;
    let mut signed = (false, false);
    // What is done, with what is in `.env` then: as "Replace the secret" says.
    for (secrets, runs_sql) in [
        (old, true),
        (&both, false),
        (&both, true),
        (new, false),
        (new, true),
    ] {
        if runs_sql {
            let sql = setup_sql(world.folder(), secrets, WEBHOOK_URL).await.out;
            cluster.sql_as("postgres", &sql).unwrap();
            signed = (secrets != new, secrets != old);
        }
        if !runs_sql || service.is_none() {
            if let Some(service) = service.take() {
                service.stop().await.assert_code(0);
            }
            let launch = Launch::in_world(&world, &["serve"]).with("AMOCRM_ENABLED", false);
            service = Some(Service::launch(launch.with("WEBHOOK_SECRET", secrets)).await);
        }
        let request = insert(&cluster);
        assert_eq!(
            (signed_with(&request, old), signed_with(&request, new)),
            signed
        );
        let status = deliver(service.as_ref().unwrap(), &request).await;
        assert_eq!(status, 202, "{secrets} {runs_sql}");
    }
    // And it was replaced: the old one is worth nothing now.
    let sql = setup_sql(world.folder(), old, WEBHOOK_URL).await.out;
    cluster.sql_as("postgres", &sql).unwrap();
    let service = service.unwrap();
    assert_eq!(deliver(&service, &insert(&cluster)).await, 401);
    service.stop().await.assert_code(0);
}

#[tokio::test]
async fn the_sql_of_the_guide_does_what_the_guide_says() {
    let guide = include_str!("../../docs/supabase.md");
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start();
    let sql = setup_sql(folder.path(), WEBHOOK_SECRET, WEBHOOK_URL)
        .await
        .out;
    cluster.sql_as("postgres", &sql).unwrap();

    let answers: Vec<(String, String)> = guide
        .replace("whsec_OLD", WEBHOOK_SECRET)
        .replace("whsec_NEW", OTHER_SECRET)
        .split("```sql")
        .skip(1)
        .map(|block| block.split("```").next().unwrap().trim().to_owned())
        .map(|sql| {
            let answer = cluster.sql_as("postgres", &sql).unwrap();
            if sql.contains("whsec_") && sql.contains(WEBHOOK_SECRET) {
                let request = insert(&cluster);
                assert!(
                    signed_with(&request, WEBHOOK_SECRET) && signed_with(&request, OTHER_SECRET)
                );
            } else if sql.contains("https://new.example") {
                let request = insert(&cluster);
                assert_eq!(request.url, "https://new.example/webhooks/supabase");
                assert!(
                    signed_with(&request, OTHER_SECRET) && !signed_with(&request, WEBHOOK_SECRET)
                );
            }
            (sql, answer)
        })
        .collect();
    assert_eq!(answers[0].1, "tripwire_sync_notify|O");
    assert!(
        answers
            .iter()
            .any(|(sql, _)| sql.contains("grant select (generated_password)"))
    );
    let (last, _) = answers.last().unwrap();
    assert!(last.contains("disable trigger"), "{last}");
    let before = cluster.queued().len();
    cluster
        .sql_as("postgres", &ONE_ROW.replace("anna@", "last@"))
        .unwrap();
    assert_eq!(cluster.queued().len(), before);
    // Let out and in again, and still the service's.
    cluster
        .sql_as(
            "tripwire_sync",
            "select generated_password from public.tripwire_users",
        )
        .unwrap();
}

/// Hints name its steps by their numbers.
#[test]
fn the_steps_that_the_program_names_are_those_of_the_guide() {
    let guide = include_str!("../../docs/supabase.md");
    for heading in [
        "\n## 3. Run the SQL\n",
        "\n## 4. A role of its own for the service\n",
        "\n## 6. See one arrive\n",
        "\n## Replace the secret\n",
    ] {
        assert!(guide.contains(heading), "{heading}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboards_own_webhook_is_taken_and_nothing_of_its_row_is_kept() {
    const TOKEN: &str = "a-long-random-text-of-the-dashboard";
    let world = World::prepare(Wishes::default());
    let row = world.insert(&json!({}));
    let secrets = ["anna@example.org", "+77010000000", "pass-phrase-1", TOKEN];
    // As `supabase_functions.http_request` sends it.
    let body = json!({
        "type": "INSERT", "table": "tripwire_users", "schema": "public", "old_record": null, "user_id": null,
        "record": {
            "id": row, "email": secrets[0], "full_name": "Anna Petrova", "phone": secrets[1],
            "generated_password": secrets[2], "amocrm_deal_id": null, "price": 5000,
        },
    });
    let launch = || {
        Launch::in_world(&world, &["serve"])
            .with("AMOCRM_ENABLED", false)
            .with("RUST_LOG", "trace")
    };
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |service: &Service, token: &str| {
        let request = client
            .post(format!("{}{PATH}", service.url))
            .bearer_auth(token)
            .header("content-type", "application/json")
            .body(body.to_string());
        request.send().await.unwrap().status().as_u16()
    };

    let without = Service::launch(launch()).await;
    assert_eq!(post(&without, TOKEN).await, 401, "off unless set");
    without.stop().await.assert_code(0);

    let with = launch()
        .without("WEBHOOK_SECRET")
        .with("WEBHOOK_BEARER_TOKEN", TOKEN);
    let service = Service::launch(with).await;
    assert_eq!(post(&service, "another").await, 401);
    assert_eq!(post(&service, TOKEN).await, 202);
    let ended = service.stop().await;
    ended.assert_code(0);
    assert!(ended.err.contains(&row.to_string()), "{ended:#?}");

    let mut kept = ended.words().into_bytes();
    for file in std::fs::read_dir(world.inbox_path().parent().unwrap()).unwrap() {
        kept.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let kept = String::from_utf8_lossy(&kept);
    assert!(kept.contains("bearer-"), "the inbox was looked at");
    for secret in secrets.into_iter().chain(["Petrova"]) {
        assert!(!kept.contains(secret), "{secret}");
    }
}
