//! The table `public.tripwire_users` through PostgREST: reading rows and writing the deal's id back.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use reqwest::{Request, header::CONTENT_RANGE};
use secrecy::SecretString;
use tokio::sync::Mutex;
use url::Url;

use self::{
    query::{CONTACT, DEAL, STATUS, Unsynced},
    transport::{Transport, limit, offset, prefer},
};
use crate::domain::{ContactId, DealId, Disposition, HaltCause, Price, RowId, SharedClock};

pub use self::query::Period;

mod bridge;
mod doctor;
mod lease;
mod pause;
mod query;
mod test_event;
mod transport;
mod wire;

#[cfg(test)]
mod tests;

pub use self::doctor::{Caller, Doctor, Examined, Lease, Role, Sender, Trigger, Vault};
pub use self::lease::LeaseAnswer;
pub use self::pause::{LastPause, PauseAnswer};
pub use self::test_event::{Answer, Journey, Noted, RequestId, TestResult};

#[derive(Debug, Clone)]
pub struct Settings {
    /// The project's URL, without `/rest/v1`.
    pub project_url: Url,
    pub key: SecretString,
    pub jwt: Option<SecretString>,
    /// Columns that only the note needs (`phone`, `manager_name`, `price`, `generated_password`); others are not asked for.
    pub note_columns: Vec<&'static str>,
    pub connect_timeout: Duration,
    pub timeout: Duration,
    /// Bytes of one answer.
    pub largest_answer: usize,
    /// PEM certificates trusted beside the system's (tests with a local authority).
    pub extra_roots: Vec<Vec<u8>>,
}

/// What we read of a row. `Debug` shows the id only.
#[derive(Clone)]
pub struct Row {
    pub id: RowId,
    pub email: Option<String>,
    pub full_name: Option<String>,
    pub phone: Option<String>,
    pub manager_name: Option<String>,
    pub price: Option<Price>,
    pub generated_password: Option<SecretString>,
    pub status: Option<String>,
    pub created_at: Option<Timestamp>,
    /// Text in the table; an empty text reads as `None`.
    pub deal_id: Option<String>,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub struct Rows {
    pub rows: Vec<Row>,
    /// PostgREST's clock, from the answer's `Date`.
    pub read_at: Timestamp,
}

/// Which of the columns that we can use are there and readable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    pub present: Vec<&'static str>,
    /// Needed (`id`, `email`, `full_name`, `created_at`, `amocrm_deal_id`) and not there or not readable.
    pub missing: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteBack {
    Written,
    /// No row matched: its deal id is filled already, it is gone, or a policy hides it. A read tells which.
    NoRow,
}

/// What went wrong with one request. No variant carries a URL, a body, a key or a row's values.
#[derive(Debug, thiserror::Error)]
pub enum SupabaseError {
    #[error("Supabase cannot be reached{}", if *.untrusted { ": its certificate is not trusted" } else { "" })]
    NotSent {
        untrusted: bool,
        source: reqwest::Error,
    },
    #[error("Supabase did not answer")]
    NoAnswer { source: reqwest::Error },
    /// It passes by itself: 408, 429, 502 to 504, 520 and above, or a `SQLSTATE` of a disturbance; perhaps with a time to
    /// come back.
    #[error("Supabase is busy ({status}{}{code})", if .code.is_empty() { "" } else { " " })]
    Busy {
        status: u16,
        code: String,
        retry_after: Option<Duration>,
    },
    /// 401, 403: key, token, rights.
    #[error("Supabase refuses key or rights ({status}{}{code})", if .code.is_empty() { "" } else { " " })]
    Refused { status: u16, code: String },
    /// The table, a column or a function is not there (or not yet in the schema cache).
    #[error("Supabase does not know a table, column or function ({status} {code})")]
    Schema { status: u16, code: String },
    /// 402, 540, 25006: paused, unpaid, read only.
    #[error("the Supabase project is not in service ({status}{}{code})", if .code.is_empty() { "" } else { " " })]
    OutOfService { status: u16, code: String },
    /// A value of the row is not accepted: 22P02, PGRST116.
    #[error("Supabase rejects the row ({status} {code})")]
    Row { status: u16, code: String },
    /// The project's own policy, trigger, function or constraint ends the statement.
    #[error("the Supabase project's own code rejects the request ({status} {code}): {culprit}")]
    Theirs {
        status: u16,
        code: String,
        culprit: Culprit,
    },
    #[error("Supabase answered with an unexpected status ({status}{}{code})", if .code.is_empty() { "" } else { " " })]
    Unexpected { status: u16, code: String },
    #[error("Supabase answered something that is not PostgREST ({what})")]
    Malformed { what: &'static str },
    /// Of several rows: fewer may fit into an answer.
    #[error("Supabase's answer is too large")]
    TooLarge,
}

/// What in the project's own database ended a statement, as far as the answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Culprit {
    Policy,
    Trigger,
    /// `RAISE` in a trigger or function.
    Raised,
    /// A trigger, policy or function uses a table, column or function that is missing.
    Missing,
    /// A policy, trigger or function that calls itself.
    Recursion,
    /// The name of the constraint, if the answer names it.
    Constraint(Option<String>),
    Unknown,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy => f.write_str("a row policy"),
            Self::Trigger => f.write_str("a trigger"),
            Self::Raised => f.write_str("a trigger or function raises an error"),
            Self::Missing => f.write_str("a trigger, policy or function uses what is not there"),
            Self::Recursion => f.write_str("a policy, trigger or function calls itself"),
            Self::Constraint(Some(name)) => write!(f, "the constraint {name}"),
            Self::Constraint(None) => f.write_str("a constraint"),
            Self::Unknown => f.write_str("a policy, trigger or function"),
        }
    }
}

impl SupabaseError {
    /// Lists every variant, so a new one does not compile without a decision.
    #[deny(clippy::wildcard_enum_match_arm)]
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        let halt = |cause| Disposition::Halt { cause, patience: 3 };
        match self {
            Self::NotSent { .. } | Self::NoAnswer { .. } => Disposition::Retry { after: None },
            Self::Busy { retry_after, .. } => Disposition::Retry {
                after: *retry_after,
            },
            Self::Refused { .. } => halt(HaltCause::SupabaseKey),
            Self::Schema { .. } => halt(HaltCause::SupabaseSchema),
            Self::OutOfService { .. } => halt(HaltCause::SupabaseProject),
            Self::Row { .. }
            | Self::Theirs { .. }
            | Self::Malformed { .. }
            | Self::TooLarge
            | Self::Unexpected { .. } => Disposition::Refused,
        }
    }
}

impl SupabaseError {
    /// The `SQLSTATE`, or PostgREST's own code, that the answer named.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        wire::code(self).filter(|code| !code.is_empty())
    }

    /// Whether the answer stays the same until a person changes something.
    #[must_use]
    pub fn lasts(&self) -> bool {
        !matches!(self.disposition(), Disposition::Retry { .. })
    }
}

/// Bytes: more than a page of the widest rows that make sense.
pub const LARGEST_ANSWER: usize = 16 << 20;
/// Most ids in one `in.(…)`.
pub const IDS_PER_READ: usize = 100;
/// Rows in one page of a sweep: Supabase cuts longer answers short without a word.
const IDS_PER_PAGE: u32 = 1000;
/// Columns without which there is nothing to sync.
const REQUIRED: [&str; 5] = ["id", "email", "full_name", "created_at", DEAL];
/// Columns that are used if they exist: for matching, for the price of a new deal, to skip a row, and for the contact of the
/// deal.
const OPTIONAL: [&str; 4] = ["phone", "price", STATUS, CONTACT];
const AT_MOST_ONE: &str = "return=representation, handling=strict, max-affected=1";
const REPRESENTATION: &str = "return=representation";

/// A client for one project; clones share connections and what was learnt of the table's columns.
#[derive(Clone)]
pub struct Supabase {
    shared: Arc<Shared>,
    /// Write backs are not sent.
    is_simulated: bool,
}

struct Shared {
    transport: Transport,
    api: postgrest::Postgrest,
    wanted: Vec<&'static str>,
    /// `None`: not learnt yet, or a needed column is missing. The lock is held while one task learns the columns for all.
    columns: Mutex<Option<Arc<Columns>>>,
}

impl fmt::Debug for Supabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supabase").finish_non_exhaustive()
    }
}

impl Supabase {
    /// Fails when the URL or a key cannot be sent at all, or no TLS client can be made.
    pub fn new(settings: Settings, clock: SharedClock) -> Result<Self, reqwest::Error> {
        let rest_url = format!(
            "{}/rest/v1",
            settings.project_url.as_str().trim_end_matches('/')
        );
        let transport = Transport::new(&settings, &rest_url, clock)?;
        let mut wanted: Vec<_> = REQUIRED.into_iter().chain(OPTIONAL).collect();
        for column in settings.note_columns {
            if !wanted.contains(&column) {
                wanted.push(column);
            }
        }
        Ok(Self {
            shared: Arc::new(Shared {
                transport,
                api: bridge::api(&rest_url),
                wanted,
                columns: Mutex::new(None),
            }),
            is_simulated: false,
        })
    }

    /// The same client, whose write backs are not sent: each is answered as written.
    #[must_use]
    pub fn simulated(self) -> Self {
        Self {
            is_simulated: true,
            ..self
        }
    }

    /// Learns which columns there are. Reads call this when the columns are not known yet, or one has vanished.
    pub async fn probe(&self) -> Result<Columns, SupabaseError> {
        let mut known = self.shared.columns.lock().await;
        *known = None;
        let columns = self.learn().await?;
        if columns.missing.is_empty() {
            *known = Some(Arc::new(columns.clone()));
        }
        Ok(columns)
    }

    /// At most [`IDS_PER_READ`] ids; missing or hidden ones are simply absent.
    pub async fn rows(&self, ids: &[RowId]) -> Result<Rows, SupabaseError> {
        let Shared { transport, api, .. } = &*self.shared;
        let answer = self.read("rows", |columns| {
            let readable = columns.present.iter().copied();
            let readable: Vec<_> = readable.filter(|column| *column != CONTACT).collect();
            transport.request(query::rows(api, &readable, ids))
        });
        let answer = answer.await?;
        let rows = wire::rows(&answer.body)?;
        let read_at = wire::read_at(outbound::date(&answer.headers), transport.now());
        Ok(Rows { rows, read_at })
    }

    /// Whether any row at all can be read: tells a missing row from missing rights.
    pub async fn can_see_any_row(&self) -> Result<bool, SupabaseError> {
        self.has_uuids().await.map(|has| has.is_some())
    }

    /// The id of some row other than these; `None` when no other row can be read.
    pub async fn another_row(&self, not: &[RowId]) -> Result<Option<RowId>, SupabaseError> {
        let transport = &self.shared.transport;
        let query = query::rows_but(&self.shared.api, not);
        let request = limit(transport.request(query), 1);
        let answer = transport.ask("another", request).await?;
        Ok(wire::ids(&answer.body)?.first().copied())
    }

    /// Whether the table's ids are uuids, by the row that comes first; `None` when no row can be read.
    pub async fn has_uuids(&self) -> Result<Option<bool>, SupabaseError> {
        let transport = &self.shared.transport;
        let query = query::columns(&self.shared.api, &["id"]);
        let answer = transport
            .ask("any", limit(transport.request(query), 1))
            .await?;
        wire::has_uuids(&answer.body)
    }

    /// Ids of rows to sync (of this period; no deal id; status not blocked or inactive), in id order.
    /// An empty page is the end; a short one is not.
    pub async fn unsynced(
        &self,
        period: Period,
        after: Option<RowId>,
    ) -> Result<Vec<RowId>, SupabaseError> {
        let Shared { transport, api, .. } = &*self.shared;
        let answer = self.read_unsynced("unsynced", period, |unsynced| {
            limit(transport.request(unsynced.page(api, after)), IDS_PER_PAGE)
        });
        wire::ids(&answer.await?.body)
    }

    /// Ids of rows to sync, the latest by creation first and `skip` of them passed over, as of PostgREST's clock.
    /// An empty page is the end; a short one is not.
    pub async fn latest_unsynced(
        &self,
        period: Period,
        skip: usize,
    ) -> Result<(Vec<RowId>, Timestamp), SupabaseError> {
        let Shared { transport, api, .. } = &*self.shared;
        let answer = self.read_unsynced("latest", period, |unsynced| {
            let request = limit(transport.request(unsynced.latest(api)), IDS_PER_PAGE);
            offset(request, skip)
        });
        let answer = answer.await?;
        let read_at = wire::read_at(outbound::date(&answer.headers), transport.now());
        Ok((wire::ids(&answer.body)?, read_at))
    }

    /// As [`Supabase::unsynced`], for rows whose deal id is a blank text instead of NULL: a form or an import leaves one. No
    /// index helps, so the whole table is read. Empty if the column is a number, or PostgREST knows no regular expressions.
    pub async fn unsynced_blank(
        &self,
        period: Period,
        after: Option<RowId>,
    ) -> Result<Vec<RowId>, SupabaseError> {
        let Shared { transport, api, .. } = &*self.shared;
        let answer = self.read_unsynced("unsynced_blank", period, |unsynced| {
            limit(
                transport.request(unsynced.page_of_blank(api, after)),
                IDS_PER_PAGE,
            )
        });
        match answer.await {
            Err(error) if wire::is_no_such_operator(&error) => Ok(Vec::new()),
            answer => wire::ids(&answer?.body),
        }
    }

    /// How many rows `unsynced` would walk over.
    pub async fn count_unsynced(&self, period: Period) -> Result<u64, SupabaseError> {
        let Shared { transport, api, .. } = &*self.shared;
        let answer = self.read_unsynced("count", period, |unsynced| {
            transport.request(unsynced.count(api))
        });
        let answer = match answer.await {
            // The range begins at the first row, so it can only be that there is none.
            Err(SupabaseError::Unexpected { status: 416, .. }) => return Ok(0),
            answer => answer?,
        };
        let total = answer.header(&CONTENT_RANGE).and_then(wire::total);
        total.ok_or(SupabaseError::Malformed {
            what: "no total in its Content-Range",
        })
    }

    /// Fills the deal id (and the contact's, where the table has a column for it) if it is still empty.
    pub async fn write_back(
        &self,
        id: RowId,
        deal: DealId,
        contact: Option<ContactId>,
    ) -> Result<WriteBack, SupabaseError> {
        if self.is_simulated {
            return Ok(WriteBack::Written);
        }
        let mut contact = contact;
        if contact.is_some() && !self.columns(None).await?.present.contains(&CONTACT) {
            contact = None;
        }
        let write = |over: Option<&str>, contact| {
            query::write_back(&self.shared.api, id, over, deal, contact)
        };

        let mut outcome = self.fill(write(None, contact)).await;
        if let Err(error) = &outcome
            && contact.is_some()
            && wire::is_about_columns(error)
        {
            // The contact column cannot be written, or is gone. The deal id is written without it.
            contact = None;
            outcome = self.fill(write(None, contact)).await;
            if outcome.is_ok() {
                self.forget(CONTACT).await;
            }
        }
        if outcome? == WriteBack::Written {
            return Ok(WriteBack::Written);
        }
        // A blank text, left by a form or an import, counts as no deal id, so the write back replaces it.
        match self.blank(id).await? {
            Some(blank) => self.fill(write(Some(&blank), contact)).await,
            None => Ok(WriteBack::NoRow),
        }
    }

    /// The blank text in place of the deal id, if there is one.
    async fn blank(&self, id: RowId) -> Result<Option<String>, SupabaseError> {
        let query = query::rows(&self.shared.api, &["id", DEAL], &[id]);
        let transport = &self.shared.transport;
        let answer = transport.ask("rows", transport.request(query)).await?;
        wire::blank(&answer.body)
    }

    async fn fill(&self, query: postgrest::Builder) -> Result<WriteBack, SupabaseError> {
        let transport = &self.shared.transport;
        let strict = prefer(transport.request(query.clone()), AT_MOST_ONE);
        let answer = match transport.change("write_back", strict).await {
            Err(error) if wire::is_unknown_preference(&error) => {
                let plain = prefer(transport.request(query), REPRESENTATION);
                transport.change("write_back", plain).await?
            }
            answer => answer?,
        };
        Ok(match wire::count(&answer.body)? {
            0 => WriteBack::NoRow,
            _ => WriteBack::Written,
        })
    }

    /// Reads unsynced rows of this period, by their status if the table has one.
    async fn read_unsynced(
        &self,
        route: &'static str,
        period: Period,
        build: impl Fn(Unsynced) -> Request + Send + Sync,
    ) -> Result<transport::Answer, SupabaseError> {
        let build = &build;
        let read = |by_status| {
            self.read(route, move |columns| {
                build(Unsynced {
                    period,
                    by_status: by_status && columns.present.contains(&STATUS),
                })
            })
        };
        let by_status = self.columns(None).await?.present.contains(&STATUS);
        match read(by_status).await {
            // The status is an enum that lacks one of the two values. The status is checked again when the row is read.
            Err(error) if by_status && wire::is_bad_value(&error) => read(false).await,
            outcome => outcome,
        }
    }

    /// Reads with the columns that there are. If one has vanished, learns anew and reads once more.
    async fn read(
        &self,
        route: &'static str,
        build: impl Fn(&Columns) -> Request + Send + Sync,
    ) -> Result<transport::Answer, SupabaseError> {
        let columns = self.columns(None).await?;
        needed(&columns)?;
        let transport = &self.shared.transport;
        match transport.ask(route, build(&columns)).await {
            Err(error) if wire::is_missing_column(&error) => {
                let columns = self.columns(Some(&columns)).await?;
                needed(&columns)?;
                transport.ask(route, build(&columns)).await
            }
            outcome => outcome,
        }
    }

    /// Learns the columns if they are not known. Stale ones are learnt anew, unless another reader has replaced them already.
    async fn columns(&self, stale: Option<&Arc<Columns>>) -> Result<Arc<Columns>, SupabaseError> {
        let mut known = self.shared.columns.lock().await;
        let is_stale = |columns| stale.is_some_and(|stale| Arc::ptr_eq(columns, stale));
        if let Some(columns) = known.as_ref().filter(|columns| !is_stale(columns)) {
            return Ok(Arc::clone(columns));
        }
        *known = None;
        let columns = Arc::new(self.learn().await?);
        if columns.missing.is_empty() {
            *known = Some(Arc::clone(&columns));
        }
        Ok(columns)
    }

    async fn forget(&self, column: &str) {
        if let Some(columns) = &mut *self.shared.columns.lock().await {
            Arc::make_mut(columns)
                .present
                .retain(|name| *name != column);
        }
    }

    /// One request if all is well; else one for each column, since no code says which one it was.
    async fn learn(&self) -> Result<Columns, SupabaseError> {
        let wanted = &self.shared.wanted;
        match self.can_read(wanted).await {
            Ok(()) => {
                return Ok(Columns {
                    present: wanted.clone(),
                    missing: Vec::new(),
                });
            }
            Err(error) if wire::is_about_columns(&error) => {}
            Err(error) => return Err(error),
        }
        let mut columns = Columns::default();
        for column in wanted {
            match self.can_read(&[column]).await {
                Ok(()) => columns.present.push(column),
                // Without `id`, the table is closed to our role, or is another table.
                Err(error) if *column == "id" => return Err(error),
                Err(error) if wire::is_about_columns(&error) => {
                    if REQUIRED.contains(column) {
                        columns.missing.push(column);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(columns)
    }

    async fn can_read(&self, columns: &[&str]) -> Result<(), SupabaseError> {
        let transport = &self.shared.transport;
        let query = query::no_row(&self.shared.api, columns);
        let answer = transport
            .ask("probe", limit(transport.request(query), 1))
            .await?;
        wire::count(&answer.body).map(drop)
    }
}

/// Fails if a required column is missing.
fn needed(columns: &Columns) -> Result<(), SupabaseError> {
    if columns.missing.is_empty() {
        return Ok(());
    }
    Err(SupabaseError::Schema {
        status: 400,
        code: "42703".to_owned(),
    })
}
