//! The nouns that every part shares: ids, what may be remembered of a person, time, and what to do after an error.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};
use uuid::Uuid;

mod backoff;
mod chain;
mod event_tests;
mod halt;
mod heartbeat;
mod lang;
mod nonce;
mod note_template;
mod price;
mod refusals;
mod sync_state;
mod telegram_bot;
#[cfg(test)]
mod test_clock;
mod test_hooks;
mod text;
mod token;
mod webhook_secret;

pub use amocrm::{ContactId, DealId, Email, NotOneEmail, NoteId, Phone, PipelineId, StageId};
pub(crate) use amocrm::{is_kept, visible};
pub use backoff::Backoff;
pub(crate) use chain::Chain;
pub use event_tests::{EventFailure, EventFault, EventTest, EventTestTimings, EventTests, Events};
pub use halt::Halt;
pub use heartbeat::Heartbeat;
pub use lang::{Lang, Wording};
pub use nonce::{Nonce, NotANonce};
pub use note_template::{NoteTemplate, UnknownPlaceholder};
pub use outbound::{Clock, SharedClock, SystemClock};
pub use price::Price;
pub use refusals::{Blame, Operation, Refusals, Refused};
pub use sync_state::{InboxFault, SyncState, SyncStatus};
pub use telegram_bot::TelegramBot;
#[cfg(test)]
pub use test_clock::TestClock;
pub use test_hooks::{DieAt, HangAt, TestHooks};
pub(crate) use text::harmless;
pub use token::{TokenClaims, TokenEnd};
pub use webhook_secret::{WebhookSecret, WebhookSecretError};

/// The version of this program, with commit and date where the build knows them.
pub const VERSION: &str = env!("TRIPWIRE_VERSION");

/// The user agent of all requests. Stable, and never a browser's: Supabase refuses secret keys from browsers.
pub const USER_AGENT: &str = concat!("tripwire-sync/", env!("CARGO_PKG_VERSION"));

/// What happens to a row whose e-mail no contact has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingContact {
    Wait,
    Create,
}

/// How often a digest is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestEvery {
    Day,
    Week,
}

/// Primary key of a row in `public.tripwire_users`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RowId(Uuid);

impl RowId {
    #[must_use]
    pub fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The last 12 hex digits: the mark that ties a note in amoCRM to its row.
    #[must_use]
    pub fn reference(self) -> String {
        let hex = self.0.simple().to_string();
        hex[hex.len() - 12..].to_owned()
    }
}

impl From<RowId> for Uuid {
    fn from(id: RowId) -> Self {
        id.0
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for RowId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// HMAC-SHA256 under the inbox's own key, cut to 128 bits: recognises a person again without remembering them. Its text is
/// 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyedHash(#[serde(with = "uuid::serde::simple")] Uuid);

impl KeyedHash {
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyedHash {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// What happens next with the work that met an error. The client that saw the error decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Nothing is wrong with the entry: try again, not before `after` when the peer named a time.
    Retry { after: Option<Duration> },
    /// The neighbour will refuse the same request again. Requests for other rows show whether it refuses this row or every
    /// row: see [`Refusals`].
    Refused,
    /// No entry is to blame: stop sending and tell a person, at the `patience`-th such failure in a row.
    Halt { cause: HaltCause, patience: u32 },
}

/// Why all sending has stopped. Stored, so a restart obeys it. `into_str`: the name used in logs, metrics and `/readyz`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum HaltCause {
    /// amoCRM 401: the token is wrong, expired or revoked.
    AmocrmToken,
    /// amoCRM 402: the subscription is not paid.
    AmocrmPayment,
    /// amoCRM 403: banned or without rights. Never probed: retrying makes a ban permanent.
    AmocrmForbidden,
    /// The configured pipeline or stage is not in the account, archived, or cannot be a target.
    AmocrmStage,
    /// The account is not at this address, or refuses an operation for different rows.
    AmocrmAccount,
    /// Supabase 401 or 403: key, token or rights.
    SupabaseKey,
    /// The table, a needed column or a function is not there.
    SupabaseSchema,
    /// The project is paused, unpaid or read only, or what answers is no Supabase.
    SupabaseProject,
    /// A policy, trigger or function of the project itself ends every read of the table.
    SupabaseDatabase,
    /// Reads work, the write back does not: a policy or grant is missing, or a trigger or constraint refuses it.
    SupabaseWriteBack,
}

/// The neighbour that a halt is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Amocrm,
    Supabase,
}

impl HaltCause {
    #[must_use]
    pub fn side(self) -> Side {
        match self {
            Self::AmocrmToken
            | Self::AmocrmPayment
            | Self::AmocrmForbidden
            | Self::AmocrmStage
            | Self::AmocrmAccount => Side::Amocrm,
            Self::SupabaseKey
            | Self::SupabaseSchema
            | Self::SupabaseProject
            | Self::SupabaseDatabase
            | Self::SupabaseWriteBack => Side::Supabase,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Logs, metrics, answers and the inbox hold these names, so each stays as it is.
    #[test]
    fn the_names_of_halts_operations_and_states_are_these() {
        let halts = [
            "amocrm_token",
            "amocrm_payment",
            "amocrm_forbidden",
            "amocrm_stage",
            "amocrm_account",
            "supabase_key",
            "supabase_schema",
            "supabase_project",
            "supabase_database",
            "supabase_write_back",
        ];
        assert_eq!(HaltCause::VARIANTS, halts);
        let operations = [
            "read",
            "search",
            "search_phone",
            "search_beginning",
            "read_contacts",
            "read_newest",
            "read_changed",
            "read_deals",
            "read_notes",
            "move",
            "create",
            "create_with_contact",
            "note",
            "write_back",
        ];
        assert_eq!(Operation::VARIANTS, operations);
        for name in halts {
            let halt: HaltCause = serde_json::from_value(json!(name)).unwrap();
            assert_eq!(halt.into_str(), name);
        }
        for name in operations {
            let operation: Operation = serde_json::from_value(json!(name)).unwrap();
            assert_eq!(operation.into_str(), name);
        }
        assert_eq!(
            EventFault::VARIANTS,
            [
                "no_trigger",
                "not_signed",
                "not_queued",
                "not_sent",
                "no_answer_noted",
                "unreachable",
                "refused",
                "another_server",
            ]
        );
        assert_eq!(
            EventTest::VARIANTS,
            ["arrived", "failed", "undecided", "not_possible"]
        );
        assert_eq!(
            SyncState::VARIANTS,
            [
                "starting",
                "working",
                "holding",
                "paused",
                "halted",
                "standby",
                "inbox",
                "inbox_full",
            ]
        );
    }

    #[test]
    fn a_reference_is_the_last_twelve_hex_digits() {
        let id: RowId = "00000000-0000-4000-8000-00ABcdef0001".parse().unwrap();
        assert_eq!(id.reference(), "00abcdef0001");
    }
}
