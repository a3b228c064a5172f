//! What `tripwire_sync_doctor()` tells of this database, from what the sandbox itself is and does.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};
use url::Url;

use super::{
    super::server::{Reply, Request},
    EventFate, Policies, State,
    commands::{JSON, function_missing},
    table::{COLUMNS, timestamptz},
};
use crate::webhook::fingerprint;

/// The side of a database that no request for rows shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fault of its own, set up by a test"
)]
pub struct Behind {
    /// `false` = the migration is not applied: 404 PGRST202.
    pub has_doctor: bool,
    /// `false` = an earlier migration: it tells no version, and has no test event.
    pub is_current: bool,
    pub id_type: String,
    pub has_trigger: bool,
    pub trigger_is_enabled: bool,
    pub trigger_is_insert_only: bool,
    pub trigger_is_ours: bool,
    pub dashboard_webhooks: Vec<String>,
    pub pg_net: Option<String>,
    pub queued: u64,
    pub vault_url: Option<String>,
    /// As one text, in which several are parted by spaces.
    pub vault_secret: Option<String>,
    /// SQLSTATE of reading Vault.
    pub vault_error: Option<String>,
    /// Columns without the right to write: 42501.
    pub unwritable_columns: Vec<String>,
    /// How many seconds the database's clock is ahead, as far as the doctor tells.
    pub clock_ahead: i64,
    pub event: EventFate,
}

impl Default for Behind {
    /// The migration is applied and Vault is empty.
    fn default() -> Self {
        Self {
            has_doctor: true,
            is_current: true,
            id_type: "uuid".to_owned(),
            has_trigger: true,
            trigger_is_enabled: true,
            trigger_is_insert_only: true,
            trigger_is_ours: true,
            dashboard_webhooks: Vec::new(),
            pg_net: Some("0.20.4".to_owned()),
            queued: 0,
            vault_url: None,
            vault_secret: None,
            vault_error: None,
            unwritable_columns: Vec::new(),
            clock_ahead: 0,
            event: EventFate::Verified,
        }
    }
}

impl State {
    pub(super) fn tell(&mut self, request: &Request, now: Timestamp) -> Reply {
        let behind = &self.quirks.behind;
        if !behind.has_doctor {
            return function_missing("tripwire_sync_doctor");
        }
        let columns: Vec<&str> = COLUMNS
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| self.has(name))
            .collect();
        let except = |denied: &[String]| -> Vec<&str> {
            let columns = columns.iter().copied();
            columns
                .filter(|column| !denied.iter().any(|it| it == column))
                .collect()
        };
        let policies = self.quirks.policies;
        let role = role_of(request);
        let ahead = jiff::SignedDuration::from_secs(behind.clock_ahead);
        let mut told = json!({
            "version": 2,
            "id_type": behind.id_type,
            "sender": {
                "update_to": null, "preloaded": true, "other_database": null, "workers": 1,
            },
            "now": timestamptz(now.saturating_add(ahead).unwrap_or(now)),
            "columns": columns,
            "rls": policies != Policies::Open,
            "caller": {
                "name": role,
                "bypasses_rls": policies == Policies::Open && role == "service_role",
                "may_select": except(&self.quirks.unreadable_columns),
                "may_update": except(&behind.unwritable_columns),
                "select_policy": policies != Policies::HideAll,
                "update_policy": policies == Policies::Open,
            },
            "role": { "exists": true, "granted_to_authenticator": true },
            "trigger": {
                "present": behind.has_trigger,
                "enabled": behind.has_trigger && behind.trigger_is_enabled,
                "insert_only": behind.has_trigger && behind.trigger_is_insert_only,
                "ours": behind.has_trigger && behind.trigger_is_ours,
            },
            "dashboard_webhooks": behind.dashboard_webhooks,
            "pg_net": behind.pg_net,
            "queued": behind.pg_net.as_ref().map(|_| behind.queued),
            "vault": behind.vault(),
            "lease": self.lease.as_ref().filter(|(_, until)| *until > now).map(|(holder, until)| {
                json!({ "held_by": holder, "seconds_left": until.duration_since(now).as_secs_f64() })
            }),
        });
        if !behind.is_current
            && let Some(told) = told.as_object_mut()
        {
            told.retain(|member, _| !["version", "id_type", "sender"].contains(&member.as_str()));
        }
        Reply::new(200, JSON, told.to_string())
    }
}

impl Behind {
    fn vault(&self) -> Value {
        if let Some(error) = &self.vault_error {
            let error = format!("SQLSTATE {error}");
            return json!({ "url": null, "url_path": null, "fingerprints": [], "unusable": 0, "error": error });
        }
        let url = self.vault_url.as_ref().and_then(|url| Url::parse(url).ok());
        let fingerprints: Vec<_> = self
            .vault_secret
            .iter()
            .flat_map(|text| text.split([' ', ',', '\n']))
            .filter(|secret| !secret.is_empty())
            .map(fingerprint)
            .collect();
        let usable: Vec<&String> = fingerprints.iter().flatten().collect();
        json!({
            "url": url.as_ref().map(|url| url.origin().ascii_serialization()),
            "url_path": url.as_ref().map(Url::path),
            "unusable": fingerprints.len() - usable.len(),
            "fingerprints": usable,
            "error": null,
        })
    }
}

/// Of the token that is sent, or that the gateway puts in place of an opaque key.
fn role_of(request: &Request) -> String {
    let claims = || -> Option<Value> {
        let token = request.header("authorization")?.strip_prefix("Bearer ")?;
        let claims = BASE64_URL_SAFE_NO_PAD
            .decode(token.split('.').nth(1)?)
            .ok()?;
        serde_json::from_slice(&claims).ok()
    };
    let role = claims().and_then(|claims| claims["role"].as_str().map(str::to_owned));
    role.unwrap_or_else(|| "service_role".to_owned())
}
