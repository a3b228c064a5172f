//! Facts of the database that our role cannot read itself: `tripwire_sync_doctor()`.

use jiff::Timestamp;
use serde::Deserialize;

use super::{Supabase, SupabaseError, query::DEAL, wire};

const FUNCTION: &str = "tripwire_sync_doctor";

/// The function's answer. A fact that the function could not read is empty, false or `None`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Doctor {
    /// The version of the SQL in the database; `None`: older than the first one with a version.
    pub version: Option<u32>,
    pub now: Option<Timestamp>,
    /// All columns of the table.
    pub columns: Vec<String>,
    /// The type of the column `id`; of a domain, its base type.
    pub id_type: Option<String>,
    pub rls: bool,
    pub caller: Caller,
    pub role: Role,
    pub trigger: Trigger,
    /// The dashboard's own webhooks on the table, by name. They are not signed.
    pub dashboard_webhooks: Vec<String>,
    /// Its version; `None`: not switched on.
    pub pg_net: Option<String>,
    /// Requests to our URL that wait to be sent.
    pub queued: Option<u64>,
    pub sender: Sender,
    pub vault: Vault,
    pub lease: Option<Lease>,
}

/// The role of the request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Caller {
    pub name: Option<String>,
    pub bypasses_rls: bool,
    pub may_select: Vec<String>,
    pub may_update: Vec<String>,
    pub select_policy: bool,
    pub update_policy: bool,
}

/// The role `tripwire_sync`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Role {
    pub exists: bool,
    pub granted_to_authenticator: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a finding of its own"
)]
pub struct Trigger {
    pub present: bool,
    pub enabled: bool,
    pub insert_only: bool,
    /// It calls our function.
    pub ours: bool,
}

/// Why `pg_net` may not take or send an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Sender {
    /// The version of the installed extension, if its SQL in the database is older.
    pub update_to: Option<String>,
    pub preloaded: Option<bool>,
    /// The database that the worker of `pg_net` serves, if it is not this one.
    pub other_database: Option<String>,
    pub workers: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Vault {
    /// Scheme, host and port.
    pub url: Option<String>,
    pub url_path: Option<String>,
    /// Of each usable secret, as [`crate::domain::WebhookSecret::fingerprint`] has it.
    pub fingerprints: Vec<String>,
    /// How many parts of the text are no usable secret.
    pub unusable: u32,
    /// Why Vault could not be read.
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Lease {
    pub held_by: String,
    pub seconds_left: f64,
}

impl Doctor {
    /// What the role of the request lacks to write deal ids, in Russian.
    #[must_use]
    pub fn missing_to_write(&self) -> Option<&'static str> {
        let caller = &self.caller;
        if !caller.may_update.iter().any(|column| column == DEAL) {
            return Some("у роли нет права UPDATE на amocrm_deal_id");
        }
        (self.rls && !caller.bypasses_rls && !caller.update_policy)
            .then_some("у роли нет политики UPDATE")
    }

    /// What the role of the request lacks to read rows, in Russian.
    #[must_use]
    pub fn missing_to_read(&self) -> Option<&'static str> {
        let caller = &self.caller;
        if !caller.may_select.iter().any(|column| column == "id") {
            return Some("у роли нет права SELECT");
        }
        (self.rls && !caller.bypasses_rls && !caller.select_policy)
            .then_some("у роли нет политики SELECT")
    }
}

/// What asking the doctor came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Examined {
    Told {
        doctor: Box<Doctor>,
        /// Our own time when it looked, as nearly as we can know.
        at: Timestamp,
    },
    /// There is no such function, or not for us: the migration was not applied, or is an older one.
    NoDoctor,
}

impl Supabase {
    /// Asks the database about itself. One request.
    pub async fn examine(&self) -> Result<Examined, SupabaseError> {
        let transport = &self.shared.transport;
        let request = transport.request(self.shared.api.rpc(FUNCTION, "{}"));
        let asked_at = transport.now();
        let answer = match transport.ask("doctor", request).await {
            Ok(answer) => answer,
            Err(error) if is_no_function_of_ours(&error) => return Ok(Examined::NoDoctor),
            Err(error) => return Err(error),
        };
        let half = (transport.now().duration_since(asked_at)) / 2;
        let doctor =
            serde_json::from_slice(&answer.body).map_err(|_| SupabaseError::Malformed {
                what: "not what the doctor says",
            })?;
        Ok(Examined::Told {
            doctor: Box::new(doctor),
            at: asked_at.saturating_add(half).unwrap_or(asked_at),
        })
    }
}

/// Whether the function is missing or may not be called: an older migration gave our role no right to it.
pub(super) fn is_no_function_of_ours(error: &SupabaseError) -> bool {
    let is_denied = matches!(error, SupabaseError::Refused { code, .. } if code == "42501");
    is_denied || wire::is_missing_function(error)
}
