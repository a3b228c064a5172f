//! A client of amoCRM's API v4: contacts, deals and notes as types, and errors that say what to do next.
//!
//! - **The rate.** amoCRM allows an account 7 requests a second, and bans an account that sends more for long. All clones of
//!   an [`AmoCrm`] share one throttle: no more than [`Settings::requests_per_second`] requests go in any 1.05 s, at most 4 of them
//!   at once. A 429 closes the throttle for all requests, then lowers the rate for some minutes. A 401, 402 or 403 closes it until
//!   [`AmoCrm::reset`].
//! - **No request is repeated.** amoCRM has no idempotency keys, so a write that is sent twice may act twice. An error tells
//!   whether the write can have acted ([`AmoError::was_not_applied`]) and what to do ([`AmoError::disposition`]); whether to
//!   look first or to send again is for the caller to decide.
//! - **What cannot be read is unknown, never missing** ([`Unreadable`]). An unreadable item spoils no other item of an answer.
//! - **No error and no log line holds a name, an address, a URL or the token.**
//!
//! Reads of any number of ids ([`AmoCrm::all_contacts`]) go side by side, 249 ids a request. A [`Simulation`] answers writes
//! from memory.
//!
//! ```no_run
//! use std::{num::NonZeroU32, sync::Arc, time::Duration};
//!
//! use amocrm::{AmoCrm, DealId, Email, PipelineId, Settings, StageId, SystemClock, Target, Timeouts};
//! use tokio::time::Instant;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings {
//!     base_url: "https://school.amocrm.ru".parse()?,
//!     token: "a long-lived token".into(),
//!     requests_per_second: NonZeroU32::new(6).unwrap(),
//!     assume_full_window: true,
//!     timeouts: Timeouts {
//!         connect: Duration::from_secs(5),
//!         read: Duration::from_secs(15),
//!         write: Duration::from_secs(20),
//!     },
//!     extra_roots: Vec::new(),
//!     user_agent: "school/1.0",
//!     metrics: "school_amocrm",
//! };
//! let amocrm = AmoCrm::new(settings, Arc::new(SystemClock))?;
//!
//! // The search is a full-text search: a hit is a contact with this text somewhere.
//! let email = Email::parse("Ann Lee <ann@example.org>")?;
//! let search = amocrm.search_email(&email).await?;
//! let deals: Vec<DealId> = search
//!     .hits
//!     .iter()
//!     .filter(|contact| contact.emails.contains(&email))
//!     .flat_map(|contact| contact.deals.clone())
//!     .collect();
//!
//! let target = Target { pipeline: PipelineId::new(31), stage: StageId::WON };
//! let begin_by = Instant::now() + Duration::from_secs(10);
//! if let Err(error) = amocrm.move_deals(&deals, target, begin_by).await {
//!     println!("{error}: {:?}", error.disposition());
//! }
//! # Ok(())
//! # }
//! ```

mod by_ids;
mod email;
mod error;
mod ids;
mod model;
mod peek;
mod phone;
mod simulation;
#[cfg(test)]
mod tests;
mod text;
mod throttle;
mod transport;
mod wire;

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use jiff::Timestamp;
use reqwest::Method;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

pub use email::{Email, NotOneEmail};
pub use error::{AmoError, Disposition, ItemProblem, Problem, Refusal};
pub use ids::{ContactId, DealId, NoteId, PipelineId, StageId};
pub use model::{
    Account, ById, Contact, Deal, Found, NewDeal, NewDealAndContact, NewNote, Note, Page, Pipeline,
    Search, Stage, Target, Unreadable,
};
pub use outbound::{Clock, SharedClock, SystemClock};
pub use peek::Peek;
pub use phone::Phone;
pub use simulation::Simulation;
pub use text::{is_kept, visible};
use transport::{Answered, Read, Transport, Write};
use wire::{Items, Listing, Made};

#[derive(Debug, Clone)]
pub struct Settings {
    /// The account's own host, for example `https://school.amocrm.ru`. Never derived from the token.
    pub base_url: Url,
    pub token: SecretString,
    /// 1 to 7.
    pub requests_per_second: NonZeroU32,
    /// Another process with this token, for example the one before a restart, may have used up the last second.
    pub assume_full_window: bool,
    pub timeouts: Timeouts,
    /// PEM certificates trusted beside the system's (tests with a local authority).
    pub extra_roots: Vec<Vec<u8>>,
    pub user_agent: &'static str,
    /// What the names of the metrics begin with: `{metrics}_requests_total`, `{metrics}_request_seconds`,
    /// `{metrics}_throttle_wait_seconds`.
    pub metrics: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub connect: Duration,
    /// Whole answer to a read.
    pub read: Duration,
    /// Whole answer to a write.
    pub write: Duration,
}

/// Permission to send. Checked before each request waits, and again right before it is sent.
pub trait Permit: fmt::Debug + Send + Sync {
    fn is_valid(&self) -> bool;
}

/// For a client that need not share the account.
#[derive(Debug)]
struct Always;

impl Permit for Always {
    fn is_valid(&self) -> bool {
        true
    }
}

/// A client for one account; clones share connections and throttle.
#[derive(Debug, Clone)]
pub struct AmoCrm {
    transport: Arc<Transport>,
    requests_per_second: NonZeroU32,
    is_background: bool,
    /// `Some`: the simulation answers the writes, which are not sent.
    simulation: Option<Simulation>,
}

/// Most ids in one read: an answer about all of them is still short of a page, so known to be the last. With ten digits
/// each the URL stays under 8 KB, a server's usual limit.
pub const IDS_PER_READ: usize = PAGE - 1;
/// amoCRM's own cap for deals made together with contacts.
pub const COMPLEX_PER_WRITE: usize = 50;

/// Items of a full page: amoCRM's maximum. Without a limit, or with a greater one, a page has 50.
pub const PAGE: usize = 250;
/// Most pages of a search. A search with more hits is too vague.
const SEARCH_PAGES: u32 = 4;
/// amoCRM answers an empty search with the whole account, and a short one with much of it.
const SHORTEST_SEARCH: usize = 6;

/// Names and values of a request's parameters.
pub type Query = Vec<(&'static str, String)>;

impl AmoCrm {
    /// Fails if no request could be sent with the settings: an unreadable certificate, an address without a host, a token
    /// that no header can carry.
    pub fn new(settings: Settings, clock: SharedClock) -> Result<Self, reqwest::Error> {
        Self::permitted(settings, clock, Arc::new(Always))
    }

    /// As [`AmoCrm::new`], but nothing is sent without the permit.
    pub fn permitted(
        settings: Settings,
        clock: SharedClock,
        permit: Arc<dyn Permit>,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            requests_per_second: settings.requests_per_second,
            transport: Arc::new(Transport::new(settings, clock, permit)?),
            is_background: false,
            simulation: None,
        })
    }

    /// As [`AmoCrm::new`], but no write is sent: the simulation answers them.
    pub fn simulated(
        settings: Settings,
        clock: SharedClock,
        simulation: Simulation,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            simulation: Some(simulation),
            ..Self::new(settings, clock)?
        })
    }

    /// The same client with background priority, for long work: its requests let others go first.
    #[must_use]
    pub fn in_background(&self) -> Self {
        Self {
            is_background: true,
            ..self.clone()
        }
    }

    /// As it is set; after a 429 it is less for a while.
    #[must_use]
    pub fn requests_per_second(&self) -> usize {
        usize::try_from(self.requests_per_second.get()).unwrap_or(usize::MAX)
    }

    /// How many requests this client and its clones have sent.
    #[must_use]
    pub fn requests_sent(&self) -> u64 {
        self.transport.throttle.requests_sent()
    }

    /// When the latest requests were sent, oldest first.
    #[must_use]
    pub fn send_stamps(&self) -> Vec<Instant> {
        self.transport.throttle.stamps()
    }

    /// Leaves so many requests a second to another process, until called with 0, which must not be before its last request
    /// was answered. The rate is never below one.
    pub fn leave_to_others(&self, requests: usize) {
        self.transport.throttle.leave_to_others(requests);
    }

    /// Whether requests are turned away since a refusal (401, 402, 403).
    #[must_use]
    pub fn is_turned_away(&self) -> bool {
        self.transport.throttle.is_turning_away()
    }

    /// Lets a client that was refused (401, 402, 403) send again.
    pub fn reset(&self) {
        self.transport.throttle.reset();
    }

    pub async fn account(&self) -> Result<Account, AmoError> {
        let read = Read {
            route: "account",
            path: "account",
            query: &[],
            is_background: self.is_background,
        };
        let account = self.transport.read::<wire::RawAccount>(&read).await?;
        account
            .value
            .map(Account::from)
            .ok_or(AmoError::Malformed { what: "no account" })
    }

    pub async fn pipelines(&self) -> Result<Found<Pipeline>, AmoError> {
        let pipelines = self
            .page::<wire::Pipelines>("pipelines", "leads/pipelines", Query::new(), 1)
            .await?;
        Ok(Found {
            items: pipelines.items.into_iter().map(Pipeline::from).collect(),
            unreadable: pipelines.unreadable,
        })
    }

    /// Full-text search of contacts with their deals (one request per page, few pages).
    ///
    /// A text under six characters is not sent, and the result is not complete.
    pub async fn search_contacts(&self, text: &str) -> Result<Search, AmoError> {
        let text = text.trim();
        let mut search = Search {
            hits: Vec::new(),
            complete: false,
            unreadable: Unreadable::default(),
        };
        if text.chars().count() < SHORTEST_SEARCH {
            return Ok(search);
        }
        for page in 1..=SEARCH_PAGES {
            let query = vec![("query", text.to_owned()), ("with", "leads".to_owned())];
            let found = self.contact_page("contacts.search", query, page).await?;
            search.hits.extend(found.contacts);
            search.unreadable.extend(found.unreadable);
            if found.is_last {
                search.complete = true;
                break;
            }
        }
        if let Some(simulation) = &self.simulation {
            search.hits.extend(simulation.hits(text));
        }
        Ok(search)
    }

    /// As [`AmoCrm::search_contacts`], for each spelling of an address: its domain may be written in two ways.
    pub async fn search_email(&self, email: &Email) -> Result<Search, AmoError> {
        let mut all = Search {
            hits: Vec::new(),
            complete: true,
            unreadable: Unreadable::default(),
        };
        for spelling in email.spellings() {
            let found = self.search_contacts(spelling).await?;
            all.hits.extend(found.hits);
            all.complete &= found.complete;
            all.unreadable.extend(found.unreadable);
        }
        Ok(all)
    }

    /// As [`AmoCrm::search_contacts`], for the part of an address before the `@`. It finds an address with an invisible
    /// character in its rest, which a search for the visible characters misses.
    pub async fn search_beginning(&self, email: &Email) -> Result<Search, AmoError> {
        self.search_contacts(email.beginning(SHORTEST_SEARCH)).await
    }

    /// Highest ids first; pages from 1. Main store.
    pub async fn newest_contacts(&self, page: u32) -> Result<Page, AmoError> {
        let query = vec![
            ("order[id]", "desc".to_owned()),
            ("with", "leads".to_owned()),
        ];
        self.contact_page("contacts.newest", query, page).await
    }

    /// Lowest ids first; pages from 1. A new contact moves no other to another page. Main store.
    pub async fn oldest_contacts(&self, page: u32) -> Result<Page, AmoError> {
        let query = vec![("order[id]", "asc".to_owned())];
        self.contact_page("contacts.oldest", query, page).await
    }

    /// Latest changes first; pages from 1.
    pub async fn changed_contacts(&self, page: u32) -> Result<Page, AmoError> {
        let query = vec![
            ("order[updated_at]", "desc".to_owned()),
            ("with", "leads".to_owned()),
        ];
        self.contact_page("contacts.changed", query, page).await
    }

    // Writes: not begun after `begin_by`. Answers are in the order of the request; `None` = not in the answer.

    pub async fn move_deals(
        &self,
        deals: &[DealId],
        target: Target,
        begin_by: Instant,
    ) -> Result<Vec<Option<DealId>>, AmoError> {
        if let Some(simulation) = &self.simulation {
            return Ok(simulation.move_deals(deals, target));
        }
        if deals.is_empty() {
            return Ok(Vec::new());
        }
        let write = Write {
            route: "deals.move",
            method: Method::PATCH,
            path: "leads",
            body: wire::moved_deals(deals, target),
            deals,
            begin_by,
            is_background: self.is_background,
        };
        let answer: wire::MovedDeals = self.transport.write(&write).await?;
        answer.in_order(deals).ok_or(AmoError::Malformed {
            what: "neither deals nor errors",
        })
    }

    pub async fn create_deals(
        &self,
        deals: &[NewDeal],
        target: Target,
        begin_by: Instant,
    ) -> Result<Vec<Option<DealId>>, AmoError> {
        if let Some(simulation) = &self.simulation {
            return Ok(simulation.create_deals(deals, target));
        }
        let lists = ["/_embedded/leads"];
        let body = wire::created_deals(deals, target);
        let id = |deal: &Made| Some(DealId::new(deal.id));
        self.create("deals.create", "leads", &lists, body, begin_by, id)
            .await
    }

    /// At most [`COMPLEX_PER_WRITE`].
    pub async fn create_deals_and_contacts(
        &self,
        deals: &[NewDealAndContact],
        target: Target,
        begin_by: Instant,
    ) -> Result<Vec<Option<(DealId, ContactId)>>, AmoError> {
        debug_assert!(deals.len() <= COMPLEX_PER_WRITE);
        if let Some(simulation) = &self.simulation {
            return Ok(simulation.create_deals_and_contacts(deals, target));
        }
        let lists = ["/_embedded/leads", ""];
        let body = wire::created_with_contacts(deals, target);
        // A deal without its contact counts as not answered: its item has to be looked for.
        let ids = |deal: &Made| Some((DealId::new(deal.id), ContactId::new(deal.contact_id?)));
        let (route, path) = ("deals.create_with_contact", "leads/complex");
        self.create(route, path, &lists, body, begin_by, ids).await
    }

    pub async fn add_notes(
        &self,
        notes: &[NewNote],
        begin_by: Instant,
    ) -> Result<Vec<Option<NoteId>>, AmoError> {
        if let Some(simulation) = &self.simulation {
            return Ok(simulation.add_notes(notes));
        }
        let lists = ["/_embedded/notes"];
        let body = wire::added_notes(notes);
        let id = |note: &Made| Some(NoteId::new(note.id));
        self.create("notes.add", "leads/notes", &lists, body, begin_by, id)
            .await
    }

    /// `lists` and `read`: see [`wire::made`]. Nothing is sent without items.
    async fn create<T: Clone>(
        &self,
        route: &'static str,
        path: &str,
        lists: &[&str],
        body: Value,
        begin_by: Instant,
        read: impl Fn(&Made) -> Option<T>,
    ) -> Result<Vec<Option<T>>, AmoError> {
        let count = body.as_array().map_or(0, Vec::len);
        if count == 0 {
            return Ok(Vec::new());
        }
        let write = Write {
            route,
            method: Method::POST,
            path,
            body,
            deals: &[],
            begin_by,
            is_background: self.is_background,
        };
        let answer: Value = self.transport.write(&write).await?;
        wire::made(&answer, lists, count, read).ok_or(AmoError::Malformed {
            what: "JSON of another shape",
        })
    }

    async fn contact_page(
        &self,
        route: &'static str,
        query: Query,
        page: u32,
    ) -> Result<Page, AmoError> {
        let found = self
            .page::<wire::Contacts>(route, "contacts", query, page)
            .await?;
        let mut contacts: Vec<Contact> = alive(found.items).collect();
        if let Some(simulation) = &self.simulation {
            simulation.with_made_deals(&mut contacts);
        }
        Ok(Page {
            is_last: found.is_last,
            names_next: found.names_next,
            date: found.date,
            contacts,
            unreadable: found.unreadable,
        })
    }

    async fn page<E>(
        &self,
        route: &'static str,
        path: &str,
        mut query: Query,
        page: u32,
    ) -> Result<RawPage<E::Item>, AmoError>
    where
        E: Items + DeserializeOwned,
    {
        query.push(("limit", PAGE.to_string()));
        query.push(("page", page.to_string()));
        let read = Read {
            route,
            path,
            query: &query,
            is_background: self.is_background,
        };
        let Answered { value, date } = self.transport.read::<Listing<E>>(&read).await?;
        let Some(listing) = value else {
            return Ok(RawPage {
                items: Vec::new(),
                length: 0,
                unreadable: Unreadable::default(),
                is_last: true,
                names_next: false,
                date,
            });
        };
        let names_next = listing.names_next();
        let entries = listing.embedded.items();
        let length = entries.len();
        let is_last = length < PAGE && !names_next;
        let (items, unreadable) = wire::part(entries);
        Ok(RawPage {
            items,
            length,
            unreadable,
            is_last,
            names_next,
            date,
        })
    }
}

struct RawPage<T> {
    items: Vec<T>,
    /// Of the page, with what could not be read.
    length: usize,
    unreadable: Unreadable,
    is_last: bool,
    names_next: bool,
    date: Option<Timestamp>,
}

fn alive(contacts: Vec<wire::RawContact>) -> impl Iterator<Item = Contact> {
    let alive = contacts.into_iter().filter(|contact| !contact.is_deleted);
    alive.map(Contact::from)
}
