//! The account's contacts by e-mail: read from its list when many are sought, and remembered for a while. Ids only.
//!
//! The list is read newest first, so a contact that is made meanwhile moves others to a later page, where they are seen
//! again. One that is deleted moves a single other contact over the edge of a page that was read; whoever it is then
//! passes for missing, and who is missing is looked for again before anything is made.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::{
    sync::MutexGuard,
    time::{Instant, MissedTickBehavior},
};

use super::{
    Context,
    failure::{Failure, Verdict},
    scan::{Extent, FEW, Scan, Seen},
    slice::Slice,
    triage::later,
};
use crate::{
    amocrm::{AmoError, Contact, Page},
    domain::{ContactId, Email},
    inbox::{InboxError, Lane},
};

/// Three pages a second at most: amoCRM calls hasty readings of everything suspicious.
const PAGE_EVERY: Duration = Duration::from_millis(334);
/// A list that took longer is behind already when it is read.
const SLOW: Duration = Duration::from_secs(30);
/// The newest contacts are asked for again by who comes later than this.
const PART_FOR: Duration = Duration::from_mins(1);
/// What falls due so soon is looked up while the list is being read, or shortly after.
const COMING_SOON: Duration = Duration::from_mins(1);

/// What the list says of an e-mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listed {
    /// Nothing: it is searched for.
    No,
    /// It has these contacts, and perhaps others: the list was not read to its end.
    Partly(Vec<ContactId>),
    /// It has these contacts, and no others.
    Wholly(Vec<ContactId>),
}

impl Listed {
    pub(super) fn contacts(&self) -> &[ContactId] {
        match self {
            Self::No => &[],
            Self::Partly(contacts) | Self::Wholly(contacts) => contacts,
        }
    }
}

/// Sixteen bytes an e-mail, so that an account of half a million fits. What has the same hash is told apart when the
/// contact itself is read.
#[derive(Debug)]
struct Directory {
    hasher: RandomState,
    contacts: Vec<(u64, ContactId)>,
    /// What changed since, by our clock, is not in it.
    as_of: Timestamp,
}

impl Directory {
    fn new(as_of: Timestamp) -> Self {
        Self {
            hasher: RandomState::new(),
            contacts: Vec::new(),
            as_of,
        }
    }

    fn key(&self, email: &Email) -> u64 {
        self.hasher.hash_one(email)
    }

    /// Takes a page over; answers whom of the sought it shows, and seeks them no more.
    fn add(&mut self, page: &[Contact], sought: &mut HashSet<u64>) -> usize {
        let mut hits = 0;
        for contact in page {
            for email in &contact.emails {
                let key = self.key(email);
                hits += usize::from(sought.remove(&key));
                self.contacts.push((key, contact.id));
            }
        }
        hits
    }

    fn sort(&mut self) {
        self.contacts.sort_unstable();
        self.contacts.dedup();
    }

    /// After [`Directory::sort`].
    fn find(&self, email: &Email) -> Vec<ContactId> {
        let key = self.key(email);
        let first = self.contacts.partition_point(|(other, _)| *other < key);
        let same = self.contacts[first..].iter();
        same.take_while(|(other, _)| *other == key)
            .map(|(_, contact)| *contact)
            .collect()
    }
}

/// The account's list of contacts, as far as it was read for everybody who came to look somebody up.
#[derive(Debug)]
pub(super) struct List {
    directory: Directory,
    scan: Scan,
    began_at: Instant,
    rests_since: Instant,
    /// More has changed since than was read.
    is_behind: bool,
}

impl List {
    pub(super) fn unread(now: Timestamp) -> Self {
        Self {
            directory: Directory::new(now),
            scan: Scan::default(),
            began_at: Instant::now(),
            rests_since: Instant::now(),
            is_behind: false,
        }
    }

    /// To be read from its beginning. What was spent in advance stays spent.
    fn forget(&mut self, now: Timestamp) {
        let scan = self.scan.anew();
        *self = Self {
            scan,
            ..Self::unread(now)
        };
    }

    /// The end of a list keeps, with what has changed since; its newest part soon is not the newest any more.
    fn is_old(&self, whole_for: Duration) -> bool {
        if self.is_whole() {
            self.began_at.elapsed() > whole_for
        } else {
            self.rests_since.elapsed() > PART_FOR
        }
    }

    fn is_whole(&self) -> bool {
        self.scan.over() == Some(Extent::Whole)
    }

    fn listed(&self, email: &Email) -> Listed {
        let contacts = self.directory.find(email);
        if self.is_whole() && !self.is_behind {
            Listed::Wholly(contacts)
        } else if contacts.is_empty() {
            Listed::No
        } else {
            Listed::Partly(contacts)
        }
    }
}

impl Slice {
    /// Looks everybody up who has yet to be matched with a contact, if they are so many that it pays.
    pub(super) async fn look_up_in_the_list(&mut self, lane: Lane) -> Result<(), InboxError> {
        let mine: Vec<usize> = (0..self.works.len())
            .filter(|&i| self.works[i].in_run() && self.works[i].progress.choice.is_none())
            .collect();
        let emails: HashSet<&Email> = mine
            .iter()
            .filter_map(|&i| self.works[i].email.as_ref())
            .collect();
        if emails.len() <= FEW || !self.ctx.may_read_the_list() {
            return Ok(());
        }
        let ctx = Arc::clone(&self.ctx);
        let Some(mut list) = ctx.take_list(lane, emails.len()).await else {
            return Ok(());
        };
        let coming = ctx.coming(lane).await?;
        ctx.read_on(&mut list, &emails, coming).await?;
        for i in mine {
            let work = &mut self.works[i];
            if let Some(email) = &work.email {
                work.listed = list.listed(email);
            }
        }
        Ok(())
    }
}

impl Context {
    fn may_read_the_list(&self) -> bool {
        self.settings.contact_scan && self.gate.closed().is_none()
    }

    /// Held while it is read: others who come wait, and go on where it ends. While it is read for a backfill, somebody of
    /// this minute waits no longer than it takes to search instead: `None`.
    async fn take_list(&self, lane: Lane, sought: usize) -> Option<MutexGuard<'_, List>> {
        let list = if lane == Lane::Live && self.list_is_for_backfill.load(Ordering::Relaxed) {
            let seconds = sought / self.amocrm.requests_per_second().max(1);
            let patience = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
            tokio::time::timeout(patience, self.list.lock())
                .await
                .ok()?
        } else {
            self.list.lock().await
        };
        let is_for_backfill = lane == Lane::Backfill;
        self.list_is_for_backfill
            .store(is_for_backfill, Ordering::Relaxed);
        Some(list)
    }

    /// Entries that will be looked up soon. Whoever is live counts on the live ones only, so as not to wait for a list
    /// that is worth its pages to a backfill alone.
    async fn coming(&self, lane: Lane) -> Result<usize, InboxError> {
        let soon = later(self.now(), self.settings.rows.settle_delay + COMING_SOON);
        let mut coming = self.inbox.unmatched(soon, Lane::Live).await?;
        if lane == Lane::Backfill {
            coming += self.inbox.unmatched(soon, Lane::Backfill).await?;
        }
        Ok(usize::try_from(coming).unwrap_or(usize::MAX))
    }

    /// While rows are too young to be written about, the list is read for them, if so many are coming that it pays.
    pub(super) async fn read_ahead(&self) -> Result<(), InboxError> {
        if !self.may_read_the_list() {
            return Ok(());
        }
        let coming = self.coming(Lane::Live).await?;
        // Who else reads it does so for these as well.
        if coming > FEW
            && let Ok(mut list) = self.list.try_lock()
        {
            self.list_is_for_backfill.store(false, Ordering::Relaxed);
            self.read_on(&mut list, &HashSet::new(), coming).await?;
        }
        Ok(())
    }

    /// Reads on, as far as it pays for these and those that are coming.
    async fn read_on(
        &self,
        list: &mut List,
        emails: &HashSet<&Email>,
        coming: usize,
    ) -> Result<(), InboxError> {
        if list.is_old(self.tempo.list_for) {
            list.forget(self.now());
        }
        if list.is_whole() {
            if !emails.is_empty() {
                self.catch_up(list, emails.len() + coming).await?;
            }
            list.scan.join(emails.len(), 0, coming);
            return Ok(());
        }
        let found = emails
            .iter()
            .filter(|it| !list.directory.find(it).is_empty());
        list.scan.join(emails.len(), found.count(), coming);
        if list.scan.over().is_none() {
            self.read_pages(list, emails).await?;
            list.rests_since = Instant::now();
            if list.is_whole() && list.began_at.elapsed() > SLOW {
                self.catch_up(list, coming).await?;
            }
        }
        Ok(())
    }

    async fn read_pages(
        &self,
        list: &mut List,
        emails: &HashSet<&Email>,
    ) -> Result<(), InboxError> {
        let List {
            directory, scan, ..
        } = list;
        let amocrm = self.amocrm.patient();
        let unseen = emails.iter().filter(|it| directory.find(it).is_empty());
        let mut sought = unseen.map(|email| directory.key(email)).collect();
        let began = Instant::now();
        let mut ticks = tokio::time::interval(PAGE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut may_ask = false;
        let mut on_their_way = FuturesUnordered::new();
        while scan.over().is_none() {
            if self.gate.closed().is_some() {
                // Nobody knows what becomes of the pages on their way.
                list.forget(self.now());
                return Ok(());
            }
            if may_ask && let Some(page) = scan.next() {
                may_ask = false;
                let amocrm = amocrm.clone();
                on_their_way.push(async move { (page, amocrm.newest_contacts(page).await) });
            }
            tokio::select! {
                Some((number, answer)) = on_their_way.next() => match answer {
                    Ok(read) => {
                        let hits = directory.add(&read.contacts, &mut sought);
                        scan.read(number, seen(&read, hits));
                    }
                    Err(error) => {
                        let failures = scan.failed(number);
                        let Some(pause) = self.pause_after(error, failures).await? else {
                            list.forget(self.now());
                            return Ok(());
                        };
                        ticks.reset_after(pause);
                        may_ask = false;
                    }
                },
                _ = ticks.tick(), if !may_ask => may_ask = true,
            }
        }
        drop(on_their_way);
        directory.sort();
        tracing::info!(
            sought = emails.len(),
            left = sought.len(),
            pages = scan.pages(),
            is_whole = scan.over() == Some(Extent::Whole),
            duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "contacts.listed"
        );
        Ok(())
    }

    /// Latest changes first, until those are reached that the list has already, but no more pages than the list has: it
    /// is behind then.
    async fn catch_up(&self, list: &mut List, sought: usize) -> Result<(), InboxError> {
        let List {
            directory,
            scan,
            is_behind,
            ..
        } = list;
        *is_behind = true;
        let began = self.now();
        let until = directory
            .as_of
            .checked_sub(self.tempo.look_overlap)
            .unwrap_or(Timestamp::MIN);
        let amocrm = self.amocrm.patient();
        let mut pace = tokio::time::interval(PAGE_EVERY);
        for page in (1..).take(scan.credit(sought).min(scan.pages())) {
            pace.tick().await;
            scan.spend();
            let read = match amocrm.changed_contacts(page).await {
                Ok(read) => read,
                Err(error) => {
                    self.judge(&Failure::from(error), None).await?;
                    break;
                }
            };
            directory.add(&read.contacts, &mut HashSet::new());
            let oldest = read.contacts.last();
            if read.is_last || oldest.is_none_or(|oldest| oldest.updated_at < until) {
                directory.as_of = began;
                *is_behind = false;
                break;
            }
        }
        directory.sort();
        Ok(())
    }

    /// How long to wait before the list is asked again; `None`: no use.
    async fn pause_after(
        &self,
        error: AmoError,
        failures: u32,
    ) -> Result<Option<Duration>, InboxError> {
        let verdict = self.judge(&Failure::from(error), None).await?;
        Ok(match verdict {
            Verdict::Retry { after } => {
                let jitter = (self.jitter)();
                let pause = self.tempo.backoff(failures - 1, after, jitter);
                Some(pause.max(PAGE_EVERY))
            }
            Verdict::NotItsFault | Verdict::Park => None,
        })
    }
}

fn seen(page: &Page, hits: usize) -> Seen {
    Seen {
        hits,
        is_empty: page.contacts.is_empty() && page.is_last,
        is_last: page.is_last,
        names_next: page.names_next,
    }
}
