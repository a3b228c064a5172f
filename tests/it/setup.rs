//! Setting up the database as a person does: the guide, the SQL of `setup-sql`, a secret replaced, the dashboard's own way.

use std::path::Path;

use serde_json::json;
use tripwire_sync::{domain::WebhookSecret, supabase::Doctor};
use uuid::Uuid;

use crate::{
    database::{ONE_ROW, OTHER_SECRET, only, signed_with},
    postgres::{Cluster, Queued, WEBHOOK_SECRET, WEBHOOK_URL, vault},
    program::{Ended, Launch, Service},
    support::{Wishes, World},
};

const PATH: &str = "/webhooks/supabase";
const VAULT: &str =
    "select name || ' ' || decrypted_secret from vault.decrypted_secrets order by name";

async fn setup_sql(folder: &Path, args: &[&str], secrets: &str) -> Ended {
    let launch = Launch::new(folder, &[&["setup-sql"], args].concat());
    launch.with("WEBHOOK_SECRET", secrets).run().await
}

/// As the guide says: all but the secret, then the secret.
async fn set_up(cluster: &Cluster, folder: &Path, secrets: &str, url: &str) {
    for args in [&["--url", url][..], &["--secret"]] {
        let ended = setup_sql(folder, args, secrets).await;
        ended.assert_code(0);
        cluster.sql_as("postgres", &ended.out).unwrap();
    }
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
    let whole = ["--url", "https://sync.example.org"];
    let whole = setup_sql(folder.path(), &whole, WEBHOOK_SECRET).await;
    whole.assert_code(0);
    assert!(whole.err.contains("The path was added"), "{}", whole.err);
    let secret = setup_sql(folder.path(), &["--secret"], WEBHOOK_SECRET).await;
    secret.assert_code(0);
    assert!(secret.err.contains("keep neither"), "{}", secret.err);
    for words in [&whole.out, &whole.err, &secret.err] {
        assert!(!words.contains("whsec_d"), "{words}");
    }

    let said = cluster.sql_as("postgres", &whole.out).unwrap();
    assert!(said.ends_with("tripwire-sync setup-sql --secret"), "{said}");
    for answer in ["made ", "replaced"] {
        let said = cluster.sql_as("postgres", &secret.out).unwrap();
        assert!(said.starts_with(answer), "{said}");
        let said = cluster.sql_as("postgres", &whole.out).unwrap();
        assert!(said.ends_with("told by: tripwire-sync check"), "{said}");
        let expected =
            format!("tripwire_webhook_secret {WEBHOOK_SECRET}\ntripwire_webhook_url {WEBHOOK_URL}");
        assert_eq!(cluster.sql_as("postgres", VAULT).unwrap(), expected);
    }
    let request = insert(&cluster);
    assert_eq!(request.url, WEBHOOK_URL);
    assert!(signed_with(&request, WEBHOOK_SECRET));

    // Another secret, and another place.
    let both = ["--secret", "--url", "https://new.example/x"];
    let both = setup_sql(folder.path(), &both, OTHER_SECRET).await;
    assert!(both.err.contains("Warning"), "{}", both.err);
    let said = cluster.sql_as("postgres", &both.out).unwrap();
    assert_eq!(said, "replaced\nreplaced");
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
    let print = async |args: &[&str]| Launch::new(folder.path(), args).run().await;
    let whole = print(&["setup-sql", "--url", WEBHOOK_URL]).await;
    whole.assert_code(0);
    cluster.sql_as("postgres", &whole.out).unwrap();
    let ended = print(&["setup-sql", "--secret"]).await;
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
        for args in [&["--url", url][..], &["--secret", "--url", url]] {
            let refused = setup_sql(folder.path(), args, WEBHOOK_SECRET).await;
            refused.assert_code(2);
            assert_eq!(refused.out, "", "{url}");
        }
    }
    for (args, secret) in [(&["--secret"][..], "whsec_short"), (&[], WEBHOOK_SECRET)] {
        let refused = setup_sql(folder.path(), args, secret).await;
        refused.assert_code(2);
        assert_eq!(refused.out, "");
    }
}

/// What a database remembers of the statements that it ran: not the secret, neither of a first run nor of a second.
#[tokio::test]
async fn the_statistics_of_the_database_keep_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        "shared_preload_libraries=pg_stat_statements",
        "pg_stat_statements.track=all",
    ];
    let cluster = Cluster::start_with(&settings, &[]);
    cluster
        .sql_as("supabase_admin", "create extension pg_stat_statements")
        .unwrap();
    for secret in [WEBHOOK_SECRET, OTHER_SECRET] {
        set_up(&cluster, folder.path(), secret, WEBHOOK_URL).await;
        assert!(signed_with(&insert(&cluster), secret));
    }
    let kept = cluster
        .sql_as("supabase_admin", "select query from pg_stat_statements")
        .unwrap();
    assert!(
        kept.contains("vault.create_secret(wanted.content"),
        "{kept}"
    );
    for secret in [WEBHOOK_SECRET, OTHER_SECRET] {
        assert!(!kept.contains(secret));
    }
}

#[tokio::test]
async fn without_vault_the_printed_sql_says_what_to_press_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start();
    cluster
        .sql_as("supabase_admin", "drop schema vault cascade")
        .unwrap();
    let before = cluster.schema();
    let sql = setup_sql(folder.path(), &["--url", WEBHOOK_URL], WEBHOOK_SECRET).await;
    let error = cluster.sql_as("postgres", &sql.out).unwrap_err();
    let said = format!("{error:?}");
    assert!(
        said.contains("switch on Database, Extensions, supabase_vault, and run this SQL again"),
        "{said}"
    );
    assert_eq!(cluster.schema(), before);

    let cluster = Cluster::start_with(&[], &[vault(true)]);
    cluster
        .sql_as("supabase_admin", "drop schema vault cascade")
        .unwrap();
    set_up(&cluster, folder.path(), WEBHOOK_SECRET, WEBHOOK_URL).await;
    assert!(signed_with(&insert(&cluster), WEBHOOK_SECRET));
}

/// Both ends of the agreement: what the migration's function says is what `check` reads.
#[tokio::test]
async fn the_database_tells_check_what_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start();
    let both = format!("{WEBHOOK_SECRET},{OTHER_SECRET}");
    set_up(&cluster, folder.path(), &both, WEBHOOK_URL).await;
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
        version,
        now,
        columns,
        id_type,
        rls,
        caller,
        role,
        trigger,
        dashboard_webhooks,
        pg_net: _,
        queued: _,
        sender: _,
        vault,
        lease,
    } = serde_json::from_str(&told).unwrap();
    assert!(now.is_some() && rls && columns.len() == 25, "{told}");
    assert_eq!((version, id_type.as_deref()), (Some(2), Some("uuid")));
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
    let whole = setup_sql(world.folder(), &["--url", WEBHOOK_URL], "").await;
    cluster.sql_as("postgres", &whole.out).unwrap();
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
            let sql = setup_sql(world.folder(), &["--secret"], secrets).await.out;
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
    let sql = setup_sql(world.folder(), &["--secret"], old).await.out;
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
    set_up(&cluster, folder.path(), WEBHOOK_SECRET, WEBHOOK_URL).await;

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
