//! The nouns that every part shares: ids, what may be remembered of a person, time, and what to do after an error.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

mod backoff;
mod chain;
mod email;
mod halt;
mod heartbeat;
mod nonce;
mod note_template;
mod price;
mod refusals;
mod sync_state;
mod test_hooks;
mod text;
mod token;
mod webhook_secret;

pub use backoff::Backoff;
pub(crate) use chain::Chain;
pub use email::{Email, NotOneEmail};
pub use halt::Halt;
pub use heartbeat::Heartbeat;
pub use nonce::{Nonce, NotANonce};
pub use note_template::{NoteTemplate, UnknownPlaceholder};
pub use price::Price;
pub use refusals::{Blame, Operation, Refusals, Refused};
pub use sync_state::{InboxFault, SyncState, SyncStatus};
pub use test_hooks::{DieAt, HangAt, TestHooks};
pub(crate) use text::{harmless, is_kept, visible};
pub use token::{TokenClaims, TokenEnd};
pub use webhook_secret::{WebhookSecret, WebhookSecretError};

/// What happens to a row whose e-mail no contact has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingContact {
    Wait,
    Create,
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

macro_rules! amocrm_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(i64);

        impl $name {
            #[must_use]
            pub const fn new(id: i64) -> Self {
                Self(id)
            }

            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

amocrm_id!(
    /// A contact in amoCRM.
    ContactId
);
amocrm_id!(
    /// A deal in amoCRM (its API calls it a lead).
    DealId
);
amocrm_id!(
    /// A note on a deal.
    NoteId
);
amocrm_id!(
    /// A pipeline of deals.
    PipelineId
);
amocrm_id!(
    /// A stage of a pipeline. 142 and 143 exist in every pipeline, so a stage means nothing without its pipeline.
    StageId
);

impl StageId {
    /// Closed and won, the same id in every pipeline.
    pub const WON: Self = Self::new(142);
    /// Closed and lost, the same id in every pipeline.
    pub const LOST: Self = Self::new(143);

    #[must_use]
    pub fn is_closed(self) -> bool {
        self == Self::WON || self == Self::LOST
    }
}

/// The last ten digits of a phone number: `+7…` and `8…` are the same person.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Phone(String);

impl Phone {
    /// `None` when there are fewer than ten digits: too little to tell people apart.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let tail = digits.len().checked_sub(10)?;
        Some(Self(digits[tail..].to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Says nothing: see [`Email`].
impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phone(…)")
    }
}

/// HMAC-SHA256 under the inbox's own key, cut to 128 bits: recognises a person again without remembering them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyedHash([u8; 16]);

impl KeyedHash {
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not 32 hex digits.
#[derive(Debug, thiserror::Error)]
#[error("a keyed hash is 32 hex digits")]
pub struct NotAKeyedHash;

impl FromStr for KeyedHash {
    type Err = NotAKeyedHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uuid = Uuid::try_parse(text).map_err(|_| NotAKeyedHash)?;
        Ok(Self(uuid.into_bytes()))
    }
}

impl Serialize for KeyedHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyedHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What happens next with the work that met an error. The client that saw the error decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Nothing is wrong with the entry: try again, not before `after` when the peer named a time.
    Retry { after: Option<Duration> },
    /// The neighbour will refuse the same again. Whether it refuses this row or every row, other rows tell: [`Refusals`].
    Refused,
    /// No entry is to blame: stop sending and tell a person, at the `patience`-th such failure in a row.
    Halt { cause: HaltCause, patience: u32 },
}

/// Why all sending has stopped. Stored, so a restart obeys it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

    /// The name used in logs, metrics and `/readyz`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AmocrmToken => "amocrm_token",
            Self::AmocrmPayment => "amocrm_payment",
            Self::AmocrmForbidden => "amocrm_forbidden",
            Self::AmocrmStage => "amocrm_stage",
            Self::AmocrmAccount => "amocrm_account",
            Self::SupabaseKey => "supabase_key",
            Self::SupabaseSchema => "supabase_schema",
            Self::SupabaseProject => "supabase_project",
            Self::SupabaseDatabase => "supabase_database",
            Self::SupabaseWriteBack => "supabase_write_back",
        }
    }
}

/// Wall-clock time, passed in so that tests can set it.
pub trait Clock: fmt::Debug + Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

pub type SharedClock = Arc<dyn Clock>;

/// A clock that stands where a test puts it.
#[cfg(test)]
#[derive(Debug)]
pub struct TestClock(std::sync::Mutex<Timestamp>);

#[cfg(test)]
impl TestClock {
    #[must_use]
    pub fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self(std::sync::Mutex::new(now)))
    }

    pub fn advance(&self, by: Duration) {
        let mut now = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *now = now.saturating_add(by).unwrap_or(Timestamp::MAX);
    }
}

#[cfg(test)]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_is_its_last_ten_digits() {
        assert_eq!(
            Phone::parse("+7 (701) 234-56-78"),
            Phone::parse("8 701 2345678")
        );
        assert_eq!(Phone::parse("234-56-78"), None);
    }

    #[test]
    fn a_reference_is_the_last_twelve_hex_digits() {
        let id: RowId = "00000000-0000-4000-8000-00ABcdef0001".parse().unwrap();
        assert_eq!(id.reference(), "00abcdef0001");
    }

    #[test]
    fn personal_values_say_nothing_in_debug() {
        let text = format!(
            "{:?} {:?}",
            Email::parse("ann@example.org"),
            Phone::parse("+77012345678")
        );
        assert!(!text.contains("ann") && !text.contains("701"), "{text}");
    }
}
