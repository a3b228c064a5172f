//! All parts together: a real Postgres, the Data API on it, amoCRM's sandbox, and the service as the one role.

use std::{fs, ops::Range};

use sandbox::scenario::{Case, Scenario};
use serde_json::{Map, Value};
use tripwire_sync::domain::RowId;

use super::api::{DataApi, JWT_SECRET, KEY};
use crate::{
    postgres::Cluster,
    program::{Launch, Service, until},
    support::{Wishes, World},
};

pub(super) const ROLE: &str = "tripwire_sync";

pub(super) struct Stack {
    pub(super) cluster: Cluster,
    /// Of it, amoCRM; in its PostgREST nobody is interested.
    pub(super) world: World,
    pub(super) api: DataApi,
    jwt: String,
}

impl Stack {
    /// On a cluster with our migrations.
    pub(super) async fn on(cluster: Cluster, wishes: Wishes) -> Self {
        let world = World::prepare(wishes);
        let api = DataApi::start(&cluster);
        let jwt = mint(&world).await;
        Self {
            cluster,
            world,
            api,
            jwt,
        }
    }

    /// Our program beside this project, as the role and nobody else.
    pub(super) fn launch(&self, args: &[&str]) -> Launch {
        Launch::in_world(&self.world, args)
            .with("SUPABASE_URL", self.api.url())
            .with("SUPABASE_KEY", KEY)
            .with("SUPABASE_JWT", &self.jwt)
    }

    /// One row for each of these cases, not inserted yet.
    pub(super) fn scenario(&self, cases: impl IntoIterator<Item = Case>) -> Scenario {
        let World {
            sandbox, setting, ..
        } = &self.world;
        Scenario::of_cases(15, cases, &sandbox.amo, &sandbox.postgrest, setting)
    }

    /// The rows of the scenario, from `range`, in one statement of the manager's backend.
    pub(super) fn insert(&self, scenario: &Scenario, range: Range<usize>) {
        let rows: Vec<Value> = scenario.students[range]
            .iter()
            .map(|student| {
                let mut row = self.world.sandbox.postgrest.row(student.row).unwrap();
                row.retain(|column, _| FILLED.contains(&column.as_str()));
                Value::Object(row)
            })
            .collect();
        let columns = FILLED.join(", ");
        let rows = Value::from(rows).to_string().replace('\'', "''");
        let sql = format!(
            "insert into public.tripwire_users ({columns})
             select {columns} from jsonb_populate_recordset(null::public.tripwire_users, '{rows}')"
        );
        self.cluster.sql_as("service_role", &sql).unwrap();
    }

    /// In place of the address that is in Vault.
    pub(super) fn send_webhooks_to(&self, service: &Service) {
        let url = format!("{}/webhooks/supabase", service.url);
        let sql = format!(
            "select vault.update_secret(id, '{url}') from vault.secrets where name = 'tripwire_webhook_url'"
        );
        self.cluster.sql_as("postgres", &sql).unwrap();
    }

    /// Patient for as long as it goes on.
    pub(super) async fn until_written_back(&self, rows: usize) {
        let mut session = self.cluster.session("supabase_admin");
        let mut written = 0;
        while written < rows {
            let before = written;
            until(
                &format!("more than {before} of {rows} rows are written back"),
                || {
                    let count =
                        session.sql("select count(amocrm_deal_id) from public.tripwire_users");
                    written = count.parse().unwrap();
                    written > before
                },
            )
            .await;
        }
    }

    /// Everything is as it must be, and the service was nobody but the role.
    pub(super) fn assert_synced(&self, scenario: &Scenario) {
        self.publish();
        assert_eq!(scenario.verify(), Vec::<String>::new());
        let World { sandbox, .. } = &self.world;
        assert_eq!(sandbox.amo.protocol_errors(), Vec::<String>::new());
        self.assert_role_alone();
    }

    /// Brings what Postgres says of the rows to where the scenario looks for it.
    fn publish(&self) {
        let rows = self
            .cluster
            .sql_as(
                "supabase_admin",
                "select to_jsonb(t) from public.tripwire_users t",
            )
            .unwrap();
        for row in rows.lines() {
            let row: Map<String, Value> = serde_json::from_str(row).unwrap();
            let id: RowId = row["id"].as_str().unwrap().parse().unwrap();
            let known = self.world.sandbox.postgrest.update_row(id, |published| {
                for column in WRITTEN_BACK {
                    published.insert(column.to_owned(), row[column].clone());
                }
            });
            assert!(known.is_some(), "{id} is nobody's row");
        }
    }

    /// Every request was the role's, and none was refused for want of a right.
    fn assert_role_alone(&self) {
        let seen = self.api.seen();
        for path in ["tripwire_users", "rpc/tripwire_sync_lease"] {
            let path = format!("/rest/v1/{path}");
            assert!(seen.iter().any(|seen| seen.path == path), "{path}");
        }
        for seen in seen {
            assert_eq!(seen.role.as_deref(), Some(ROLE), "{seen:?}");
            // Scaled, one test event follows another too soon for the database.
            let is_too_soon = seen.path.ends_with("/tripwire_sync_test_event");
            // Before the SQL is run again.
            let is_unknown =
                seen.path.ends_with("/tripwire_sync_pause") && seen.status == Some(404);
            let is_refused = matches!(seen.status, Some(400..=499));
            assert!(!is_refused || is_too_soon || is_unknown, "{seen:?}");
        }
    }
}

/// What the manager's backend gives; the rest is the table's.
const FILLED: [&str; 5] = ["id", "email", "full_name", "phone", "manager_name"];
const WRITTEN_BACK: [&str; 2] = ["amocrm_deal_id", "amocrm_contact_id"];

/// The operator's step: on a machine that has the project's secret, and never where the service runs.
async fn mint(world: &World) -> String {
    let operator = tempfile::tempdir().unwrap();
    let key = operator.path().join("jwt-secret");
    fs::write(&key, JWT_SECRET).unwrap();
    let mint = ["jwt", "--key-file", key.to_str().unwrap()];
    let minted = Launch::new(world.folder(), &mint).run().await;
    minted.assert_code(0);
    minted.out.trim().to_owned()
}
