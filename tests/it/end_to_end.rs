//! From the manager's insert on a real Postgres, through the real program, to the deal and back to the row.

use sandbox::DealId;
use serde_json::{Value, json};
use tripwire_sync::{domain::RowId, inbox::State};

use crate::{
    postgres::{Cluster, Queued},
    program::{Launch, Service},
    support::{SECRET, Wishes, World},
};

/// Every column, as the manager's dashboard fills them.
const INSERT: &str = "
    insert into public.tripwire_users (
      id, user_id, full_name, email, granted_by, manager_name, generated_password, password_changed,
      welcome_email_sent, welcome_email_sent_at, email_opened, first_login_at, last_active_at, modules_completed,
      status, amocrm_deal_id, amocrm_contact_id, price, onboarding_completed, onboarding_completed_at, phone,
      maintenance_notification_sent, maintenance_notification_sent_at, created_at, updated_at
    ) values (
      gen_random_uuid(), '5f0c1c5e-0000-4000-8000-000000000001', 'Айгерим «Айка» Омарова', ' Aigerim@Example.kz', gen_random_uuid(),
      'Гульнара Есенова', 'pass-phrase-1', false, true, now(), false, null, null, 0, 'active', null, null, 5000,
      false, null, '+7 701 234 56 78', false, null, now(), now()
    )";

const HER_LOGIN: &str =
    "insert into auth.users (id) values ('5f0c1c5e-0000-4000-8000-000000000001')";

struct Place {
    cluster: Cluster,
    world: World,
    deal: DealId,
}

impl Place {
    /// A project with our migration and an account with her deal.
    fn prepare() -> Self {
        let world = World::prepare(Wishes::default());
        let setting = &world.setting;
        let deal = world.sandbox.amo.world(|account| {
            let contact = account.add_contact("Айгерим", &["aigerim@example.kz"], &[]);
            account.add_deal(
                &[contact],
                setting.pipeline,
                setting.before[0],
                "Заявка с сайта",
            )
        });
        let cluster = Cluster::start();
        cluster.apply_migration();
        cluster.sql_as("supabase_admin", HER_LOGIN).unwrap();
        Self {
            cluster,
            world,
            deal,
        }
    }

    fn send_webhooks_to(&self, url: &str) {
        self.cluster
            .configure(&format!("{url}/webhooks/supabase"), SECRET);
    }

    /// What PostgREST would tell of the table, in the sandbox.
    fn publish(&self) -> RowId {
        let rows = self
            .cluster
            .sql_as(
                "postgres",
                "select to_jsonb(t) from public.tripwire_users t",
            )
            .unwrap();
        let row: Value = serde_json::from_str(&rows).unwrap();
        assert_eq!(row.as_object().unwrap().len(), 25, "{row}");
        RowId::new(self.world.sandbox.postgrest.insert_row(&row))
    }

    /// Moved once, with one note, and known to the row.
    fn assert_synced(&self, row: RowId) {
        let target = self.world.setting.target;
        let (deals, stage, notes) = self.world.sandbox.amo.world(|account| {
            let notes: Vec<String> = account
                .notes_of(self.deal)
                .map(|note| note.text.clone())
                .collect();
            (
                account.deals().count(),
                account.deal(self.deal).unwrap().stage,
                notes,
            )
        });
        assert_eq!((deals, stage), (1, target));
        let [note] = <[String; 1]>::try_from(notes).unwrap();
        assert!(
            note.starts_with("✅ Доступ к Tripwire предоставлен: Айгерим «Айка» Омарова\n"),
            "{note}"
        );
        assert!(note.contains(&row.reference()), "{note}");
        assert_eq!(
            self.world.column(row, "amocrm_deal_id"),
            Some(self.deal.to_string())
        );
        assert!(self.world.column(row, "amocrm_contact_id").is_some());
    }
}

/// Byte for byte what `pg_net` would send. Answers status and body.
async fn post(request: &Queued) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut sent = client.post(&request.url).body(request.body.clone());
    for (name, value) in &request.headers {
        sent = sent.header(name, value);
    }
    let answer = sent.send().await.unwrap();
    let status = answer.status().as_u16();
    (
        status,
        serde_json::from_str(&answer.text().await.unwrap()).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_on_a_real_postgres_moves_the_deal_and_comes_back_into_the_row() {
    let place = Place::prepare();
    let mut service = Service::start(&place.world).await;
    place.send_webhooks_to(&service.url);
    place.cluster.sql_as("postgres", INSERT).unwrap();
    let row = place.publish();

    let [request] = <[Queued; 1]>::try_from(place.cluster.queued()).unwrap();
    assert_eq!(post(&request).await, (202, json!({ "status": "accepted" })));
    service.until_synced(row).await;
    place.assert_synced(row);

    // `pg_net` sends once; whoever sends it again changes nothing.
    let asked = || {
        let requests = place.world.sandbox.requests().into_iter();
        requests.filter(|it| it.route != "rpc.lease").count()
    };
    let before = asked();
    assert_eq!(
        post(&request).await,
        (202, json!({ "status": "duplicate" }))
    );
    service.stop().await.assert_code(0);
    assert_eq!(asked(), before);
    assert_eq!(
        place.world.sandbox.amo.protocol_errors(),
        Vec::<String>::new()
    );
}

/// The trigger fails in its own way; the insert passes, nothing is sent, and the sweep finds the row.
async fn the_sweep_makes_up_for(how: &str) {
    let place = Place::prepare();
    place.send_webhooks_to("https://sync.example.org");
    place.cluster.sql_as("supabase_admin", how).unwrap();

    let reply = place.cluster.run("postgres", INSERT).unwrap();
    assert!(reply.notices.contains("WARNING"), "{}", reply.notices);
    assert_eq!(place.cluster.queued().len(), 0);
    let row = place.publish();

    // The first sweep is at the start.
    let sweeping = Launch::in_world(&place.world, &["serve"]).with("RECONCILE_INTERVAL", "5m");
    let mut service = Service::launch(sweeping).await;
    service.until_synced(row).await;
    let metrics = service.metrics().await;
    let unheard = "tripwire_webhooks_total{outcome=\"accepted\"} 0";
    assert!(metrics.lines().any(|line| line == unheard), "{metrics}");
    service.stop().await.assert_code(0);
    place.assert_synced(row);
    let inbox = place.world.guest().await;
    assert_eq!(inbox.entry(row).await.unwrap().unwrap().state, State::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_its_secret_the_trigger_lets_the_insert_pass_and_the_sweep_syncs() {
    the_sweep_makes_up_for("revoke all on schema vault from postgres, service_role cascade").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_pg_net_the_trigger_lets_the_insert_pass_and_the_sweep_syncs() {
    the_sweep_makes_up_for("drop function net.http_post").await;
}
