//! The contact index: which contact of the account has which e-mail, kept in the inbox as keyed hashes.
//!
//! It is filled once, page by page in the order of ids, and kept current by reading what has changed since. A hit is
//! read by id before it is used, so an outdated hash does no harm. A contact that is deleted during the filling can
//! hide another one at the edge of a page: an e-mail that the index lacks is therefore searched for at the row's second
//! look.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use amocrm::{AmoCrm, Contact, Page};
use futures::{StreamExt, stream::FuturesOrdered};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::{
    super::{
        Context,
        failure::{Asked, Failure},
        rules::timings::later,
    },
    FEW,
};
use crate::{
    domain::{ContactId, KeyedHash},
    inbox::{Hasher, InboxError, Indexed},
};

/// The coverage's key in the inbox.
const COVERAGE: &str = "contact_index";
/// Pages among seven requests while rows need the index: amoCRM treats fast reading of a whole account as suspicious,
/// and the searches keep more than half of the rate.
const FAST: u32 = 3;
/// Pages among seven requests while no row needs the index.
const SLOW: u32 = 1;
/// A long run reads the changes again after this time. Older data does no harm: a hit is read by id, and a miss gets a
/// second look.
const CURRENT_FOR: Duration = Duration::from_secs(30);
/// Pages requested at once: amoCRM takes about a second for each.
const AHEAD: usize = 3;
/// Limits the index to two million contacts, which take 200 MB of the inbox.
const MOST_PAGES: u32 = 8_000;
/// The filling of an account that is too large is tried again after this time.
const TOO_LARGE_FOR: Duration = Duration::from_hours(30 * 24);

/// What the index covers. Stored beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Coverage {
    account: i64,
    /// By amoCRM's clock: what has changed since is not in the index.
    as_of: Timestamp,
    filling: Filling,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Filling {
    /// The number of pages that have been read, and the highest id on them.
    Pages {
        read: u32,
        last: ContactId,
    },
    Complete,
    /// The account's contacts could not be read to their end.
    GivenUp {
        again_at: Timestamp,
    },
}

#[derive(Debug, Default)]
struct Status {
    /// The account's id, once amoCRM was asked for it.
    account: Option<i64>,
    coverage: Option<Coverage>,
    /// More has changed than a run may read: a periodic job has to catch up.
    is_behind: bool,
    /// When the last complete reading of changes began.
    caught_up_at: Option<Instant>,
    /// A run needed the index when it was not usable.
    is_wanted: bool,
    budget: Budget,
}

#[derive(Debug, Default)]
pub(crate) struct ContactIndex {
    status: Mutex<Status>,
    /// Held during a reading of changes: other runs wait for its result.
    pass: tokio::sync::Mutex<()>,
    /// Held from reading the coverage until its change is stored.
    storing: tokio::sync::Mutex<()>,
    /// E-mails of runs at work that have no contact yet.
    sought: AtomicUsize,
}

/// Counts a run's e-mails as sought, until dropped.
pub(crate) struct Seeking<'a> {
    index: &'a ContactIndex,
    emails: usize,
}

impl Drop for Seeking<'_> {
    fn drop(&mut self) {
        self.index.sought.fetch_sub(self.emails, Ordering::Relaxed);
    }
}

impl ContactIndex {
    /// Counts these e-mails as sought, until the result is dropped.
    pub(crate) fn seek(&self, emails: usize) -> Seeking<'_> {
        self.sought.fetch_add(emails, Ordering::Relaxed);
        Seeking {
            index: self,
            emails,
        }
    }

    /// Whether many e-mails can be looked up at once, as far as is known without a request.
    pub(crate) fn is_usable(&self) -> bool {
        let status = self.status.lock();
        status.is_complete() && !status.is_behind
    }
}

impl Status {
    /// Shows the coverage in the metrics too.
    fn cover(&mut self, coverage: Option<Coverage>) {
        self.coverage = coverage;
        let as_of = self.coverage.as_ref().filter(|_| self.is_complete());
        let as_of = as_of.map_or(0.0, |it| it.as_of.as_duration().as_secs_f64());
        metrics::gauge!("tripwire_contact_index_timestamp_seconds").set(as_of);
        let is_complete = if self.is_complete() { 1.0 } else { 0.0 };
        metrics::gauge!("tripwire_contact_index_complete").set(is_complete);
    }

    fn is_complete(&self) -> bool {
        let filling = self.coverage.as_ref().map(|coverage| &coverage.filling);
        filling == Some(&Filling::Complete)
    }
}

/// How fast the filling may go: it never takes more requests from the rows than the searches that it may save them.
#[derive(Debug, Clone, Copy, Default)]
struct Budget {
    /// The most e-mails that were sought at a time.
    sought: usize,
    /// Pages read fast, with requests that rows could have used.
    spent: usize,
}

impl Budget {
    /// Whether the next page is read fast while this many e-mails are sought.
    fn is_fast(&mut self, sought: usize) -> bool {
        if sought <= FEW as usize {
            *self = Self::default();
            return false;
        }
        self.sought = self.sought.max(sought);
        let is_fast = self.spent < self.sought;
        self.spent += usize::from(is_fast);
        is_fast
    }
}

/// The hashes that a contact is indexed by. A phone counts only if the contact has no e-mail.
pub(crate) fn known_by(hasher: &Hasher, contact: &Contact) -> Vec<KeyedHash> {
    if contact.has_email {
        contact.emails.iter().map(|it| hasher.email(it)).collect()
    } else {
        contact.phones.iter().map(|it| hasher.phone(it)).collect()
    }
}

impl Context {
    /// Loads the stored coverage. A stored index is dropped if the index is switched off.
    pub(crate) async fn recall_index(&self) -> Result<(), InboxError> {
        let Some(stored) = self.inbox.state::<Value>(COVERAGE).await? else {
            self.index.status.lock().cover(None);
            return Ok(());
        };
        // Coverage in the form of another version is dropped, and the index is filled anew.
        let coverage = serde_json::from_value(stored).ok();
        let coverage = coverage.filter(|_| self.settings.contact_scan);
        if coverage.is_none() {
            self.inbox.drop_contact_index(COVERAGE).await?;
        }
        self.index.status.lock().cover(coverage);
        Ok(())
    }

    /// Whether the index can answer for this many e-mails of a run, with all changes up to the run's beginning or
    /// later. Reads the changes if need be.
    pub(crate) async fn index_is_ready(
        &self,
        amocrm: &AmoCrm,
        run_began: Instant,
        emails: usize,
    ) -> Result<bool, InboxError> {
        let index = &self.index;
        if !self.may_index() || index.status.lock().is_behind {
            return Ok(false);
        }
        if !index.status.lock().is_complete() {
            index.status.lock().is_wanted = true;
            return Ok(false);
        }
        let _pass = index.pass.lock().await;
        if let Err(failure) = self.compare_account(amocrm).await {
            self.classify(&failure, Asked::NOTHING).await?;
            return Ok(false);
        }
        {
            let mut status = index.status.lock();
            if !status.is_complete() || status.is_behind {
                status.is_wanted = true;
                return Ok(false);
            }
            let is_fresh = |at: Instant| at >= run_began && at.elapsed() < CURRENT_FOR;
            if status.caught_up_at.is_some_and(is_fresh) {
                return Ok(true);
            }
        }
        match self.catch_up(amocrm, Some(emails)).await {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(failure) => {
                self.classify(&failure, Asked::NOTHING).await?;
            }
        }
        index.status.lock().is_behind = true;
        Ok(false)
    }

    fn may_index(&self) -> bool {
        self.settings.contact_scan && self.sending.blocked().is_none()
    }

    /// Asks for the account's id once per process. The index of another account is dropped.
    async fn compare_account(&self, amocrm: &AmoCrm) -> Result<(), Failure> {
        if self.index.status.lock().account.is_some() {
            return Ok(());
        }
        let account = amocrm.account().await?.id;
        let _storing = self.index.storing.lock().await;
        let coverage = self.index.status.lock().coverage.clone();
        if coverage.is_some_and(|it| it.account != account) {
            tracing::warn!("index.of_another_account");
            self.inbox.drop_contact_index(COVERAGE).await?;
            self.index.status.lock().cover(None);
        }
        self.index.status.lock().account = Some(account);
        Ok(())
    }

    // ---- keeping ----

    /// When the index has to be filled, or has to catch up; `None`: it is not needed, or is current.
    pub(crate) async fn index_due(&self) -> Result<Option<Timestamp>, InboxError> {
        if !self.may_index() {
            return Ok(None);
        }
        let now = self.now();
        {
            let status = self.index.status.lock();
            match status.coverage.as_ref().map(|it| &it.filling) {
                Some(Filling::Complete) => return Ok(status.is_behind.then_some(now)),
                Some(Filling::Pages { .. }) => return Ok(Some(now)),
                Some(Filling::GivenUp { again_at }) if *again_at > now => return Ok(None),
                Some(Filling::GivenUp { .. }) | None if status.is_wanted => return Ok(Some(now)),
                Some(Filling::GivenUp { .. }) | None => {}
            }
        }
        Ok((self.inbox.unmatched(FEW + 1).await? > FEW).then_some(now))
    }

    /// Fills the index, or lets it catch up, until it is complete and current.
    pub(in crate::sync) async fn keep_index(&self) -> Result<(), Failure> {
        let index = &self.index;
        {
            let _pass = index.pass.lock().await;
            self.compare_account(&self.amocrm).await?;
            index.status.lock().is_wanted = false;
        }
        if !index.status.lock().is_complete() && !self.fill_index().await? {
            return Ok(());
        }
        let _pass = index.pass.lock().await;
        let caught_up = self.catch_up(&self.amocrm.in_background(), None).await;
        caught_up.map(drop)
    }

    /// Reads the account's contacts from where the last reading ended. `false`: sending has stopped, or the filling was
    /// given up.
    async fn fill_index(&self) -> Result<bool, Failure> {
        let began = Instant::now();
        let Some((mut next, mut names_next)) = self.resume_filling().await? else {
            return Ok(false);
        };
        let mut next_at = Instant::now();
        let mut pages = FuturesOrdered::new();
        loop {
            if !self.may_index() {
                return Ok(false);
            }
            if next > MOST_PAGES {
                self.give_up_filling("too many contacts", TOO_LARGE_FOR)
                    .await?;
                return Ok(false);
            }
            let page = tokio::select! {
                Some(page) = pages.next() => page,
                () = sleep_until(next_at), if pages.len() < AHEAD => {
                    let sought = self.emails_sought().await?;
                    let is_fast = self.index.status.lock().budget.is_fast(sought);
                    next_at = Instant::now() + self.page_every(if is_fast { FAST } else { SLOW });
                    let amocrm = if is_fast { self.amocrm.clone() } else { self.amocrm.in_background() };
                    let number = next;
                    pages.push_back(async move { (number, amocrm.oldest_contacts(number).await) });
                    next += 1;
                    continue;
                }
            };
            let (number, page) = page;
            let page = page?;
            let is_end = page.is_last;
            // A server that limits long lists answers with an empty page although the page before has named it.
            let is_tired = is_end && page.contacts.is_empty() && names_next;
            if is_tired || !page.unreadable.is_none() {
                let why = if is_tired {
                    "a list without an end"
                } else {
                    "an unreadable contact"
                };
                self.give_up_filling(why, self.timings.search_waiting)
                    .await?;
                return Ok(false);
            }
            names_next = page.names_next;
            self.store_page(number, &page).await?;
            if is_end {
                let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(pages = number, duration_ms, "index.filled");
                return Ok(true);
            }
        }
    }

    /// The page to go on with, and whether it was there before. Deleted contacts have moved others to earlier pages, so the
    /// filling goes back to a page that begins with a known contact. `None`: sending has stopped.
    async fn resume_filling(&self) -> Result<Option<(u32, bool)>, Failure> {
        let coverage = self.index.status.lock().coverage.clone();
        let Some(Filling::Pages { read, last }) = coverage.map(|it| it.filling) else {
            return Ok(Some((1, false)));
        };
        let mut number = read.max(1);
        while number > 1 {
            if !self.may_index() {
                return Ok(None);
            }
            let page = self.amocrm.in_background().oldest_contacts(number).await?;
            let begins = page.contacts.first().map(|contact| contact.id);
            if begins.is_some_and(|id| id <= last) {
                break;
            }
            number -= 1;
        }
        Ok(Some((number, true)))
    }

    /// The time between two pages, if pages take `share` of seven requests.
    fn page_every(&self, share: u32) -> Duration {
        let rate = u32::try_from(self.amocrm.requests_per_second()).unwrap_or(u32::MAX);
        Duration::from_secs(7) / share / rate
    }

    /// E-mails that would be looked up in the index soon.
    async fn emails_sought(&self) -> Result<usize, InboxError> {
        let pending = self.inbox.unmatched(u32::MAX).await?;
        let pending = usize::try_from(pending).unwrap_or(usize::MAX);
        Ok(pending.saturating_add(self.index.sought.load(Ordering::Relaxed)))
    }

    /// Stores a page of the filling.
    async fn store_page(&self, number: u32, page: &Page) -> Result<(), InboxError> {
        let _storing = self.index.storing.lock().await;
        let coverage = {
            let mut status = self.index.status.lock();
            let account = status.account.unwrap_or_default();
            let before = status.coverage.as_ref();
            let (as_of, before) = match before.map(|it| (it.as_of, &it.filling)) {
                Some((as_of, Filling::Pages { last, .. })) => (as_of, *last),
                _ => (page.date.unwrap_or_else(|| self.now()), ContactId::new(0)),
            };
            let highest = page.contacts.iter().map(|contact| contact.id).max();
            let filling = if page.is_last {
                // What has changed during the filling has yet to be read.
                status.is_behind = true;
                Filling::Complete
            } else {
                Filling::Pages {
                    read: number,
                    last: highest.map_or(before, |id| id.max(before)),
                }
            };
            Coverage {
                account,
                as_of,
                filling,
            }
        };
        self.store_index(&page.contacts, coverage).await
    }

    async fn store_index(
        &self,
        contacts: &[Contact],
        coverage: Coverage,
    ) -> Result<(), InboxError> {
        let hasher = self.inbox.hasher();
        let pairs = contacts.iter().flat_map(|contact| {
            let known = known_by(hasher, contact).into_iter();
            known.map(|hash| (hash, contact.id))
        });
        let indexed = Indexed {
            contacts: contacts.iter().map(|contact| contact.id).collect(),
            known_by: pairs.collect(),
        };
        self.inbox
            .index_contacts(indexed, COVERAGE, &coverage)
            .await?;
        self.index.status.lock().cover(Some(coverage));
        Ok(())
    }

    async fn give_up_filling(&self, why: &str, pause: Duration) -> Result<(), InboxError> {
        tracing::warn!(why, "index.given_up");
        let _storing = self.index.storing.lock().await;
        let account = self.index.status.lock().account.unwrap_or_default();
        self.inbox.drop_contact_index(COVERAGE).await?;
        let coverage = Coverage {
            account,
            as_of: self.now(),
            filling: Filling::GivenUp {
                again_at: later(self.now(), pause),
            },
        };
        self.store_index(&[], coverage).await
    }

    /// Reads the changed contacts, the latest first, until one whose change the index has already. `pages`: the most
    /// pages, for rows that wait; `None`: no limit, in the background. To be called with `pass` held. `false`: it would
    /// have taken more pages, or sending has stopped.
    async fn catch_up(&self, amocrm: &AmoCrm, pages: Option<usize>) -> Result<bool, Failure> {
        let began = Instant::now();
        let mut since = None;
        let most = pages.map_or(u32::MAX, |pages| u32::try_from(pages).unwrap_or(u32::MAX));
        for number in 1..=most {
            if !self.may_index() {
                return Ok(false);
            }
            let asked_at = Instant::now();
            let page = amocrm.changed_contacts(number).await?;
            let since = *since.get_or_insert_with(|| page.date.unwrap_or_else(|| self.now()));
            if !page.unreadable.is_none() {
                let pause = self.timings.search_waiting;
                self.give_up_filling("an unreadable contact", pause).await?;
                return Ok(false);
            }
            if self.learn(&page, since).await? {
                let mut status = self.index.status.lock();
                status.is_behind = false;
                status.caught_up_at = Some(began);
                return Ok(true);
            }
            let share = if pages.is_some() { FAST } else { SLOW };
            sleep_until(asked_at + self.page_every(share)).await;
        }
        tracing::info!(pages, "index.behind");
        Ok(false)
    }

    /// Stores a page of changes; the pages before it are stored already. `since`: the time of the first page. Returns
    /// whether the index now has all changes until `since`.
    pub(crate) async fn learn(&self, page: &Page, since: Timestamp) -> Result<bool, InboxError> {
        let _storing = self.index.storing.lock().await;
        let coverage = self.index.status.lock().coverage.clone();
        let Some(mut coverage) = coverage.filter(|it| it.filling == Filling::Complete) else {
            return Ok(false);
        };
        let until = coverage.as_of.checked_sub(self.timings.look_overlap);
        let until = until.unwrap_or(Timestamp::MIN);
        let oldest = page.contacts.last();
        let is_caught_up = page.is_last || oldest.is_some_and(|contact| contact.updated_at < until);
        if is_caught_up {
            coverage.as_of = coverage.as_of.max(since);
        }
        self.store_index(&page.contacts, coverage).await?;
        Ok(is_caught_up)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A run searches with what the filling leaves of seven requests a second, and looks up what is left at its end.
        #[test]
        fn filling_and_searches_cost_at_most_twice_the_plain_searches(
            emails in 1_usize..3_000,
            pages in 1_usize..3_000,
            settles_for in 0_usize..300,
            others in proptest::collection::vec((0_usize..300, 1_usize..500), 0..4),
        ) {
            let mut budget = Budget::default();
            let (mut left, mut read, mut fast, mut searched) = (emails, 0, 0, 0);
            let mut all = emails;
            let mut seconds = 0;
            while left > 0 && read < pages {
                for (_, more) in others.iter().filter(|(at, _)| *at == seconds) {
                    left += more;
                    all += more;
                }
                let mut requests = 7;
                for _ in 0..3 {
                    if read < pages && budget.is_fast(left) {
                        read += 1;
                        fast += 1;
                        requests -= 1;
                    }
                }
                if seconds >= settles_for {
                    let now = left.min(requests);
                    left -= now;
                    searched += now;
                }
                seconds += 1;
            }
            prop_assert!(fast + searched <= 2 * all, "{fast} pages, {searched} searches of {all}");
            // Three requests of seven at most: four are left for the searches.
            let plain = all.div_ceil(7).max(1);
            let last = others.iter().map(|(at, _)| *at).max().unwrap_or(0).max(settles_for);
            prop_assert!(seconds <= last + plain * 7 / 4 + 2, "{seconds} s");
        }
    }

    #[test]
    fn a_few_emails_never_hasten_the_filling() {
        let few = FEW as usize;
        let mut budget = Budget::default();
        assert!(!budget.is_fast(few));
        for _ in 0..=few {
            assert!(budget.is_fast(few + 1));
        }
        assert!(!budget.is_fast(few + 1), "as many pages as e-mails");
        assert!(budget.is_fast(few + 2));
    }
}
