//! The account's contacts by e-mail: read from its list when many are sought, and remembered for a while. Ids only.
//!
//! The list is read newest first, so a contact that is made meanwhile moves others to a later page, where they are seen
//! again. One that is deleted moves a single other contact over the edge of a page that was read; whoever it is then
//! passes for missing, and who is missing is looked for again before anything is made.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    failure::{Failure, Verdict},
    scan::{Extent, Scan, Seen},
    slice::Slice,
};
use crate::{
    amocrm::{AmoError, Contact, Page},
    domain::{ContactId, Email},
    inbox::InboxError,
};

/// Three pages a second at most: amoCRM calls hasty readings of everything suspicious.
const PAGE_EVERY: Duration = Duration::from_millis(334);
/// A list that took longer is behind already when it is read.
const SLOW: Duration = Duration::from_secs(30);

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
pub(super) struct Directory {
    hasher: RandomState,
    contacts: Vec<(u64, ContactId)>,
    /// What changed since, by our clock, is not in it.
    as_of: Timestamp,
    read_at: Instant,
}

impl Directory {
    fn new(as_of: Timestamp) -> Self {
        Self {
            hasher: RandomState::new(),
            contacts: Vec::new(),
            as_of,
            read_at: Instant::now(),
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

impl Slice {
    /// Looks everybody up who has yet to be matched with a contact, if they are so many that it pays.
    pub(super) async fn look_up_in_the_list(&mut self) -> Result<(), InboxError> {
        if !self.ctx.settings.contact_scan || self.ctx.gate.closed().is_some() {
            return Ok(());
        }
        let mine: Vec<usize> = (0..self.works.len())
            .filter(|&i| self.works[i].in_run() && self.works[i].progress.choice.is_none())
            .collect();
        let emails: HashSet<Email> = mine
            .iter()
            .filter_map(|&i| self.works[i].email.clone())
            .collect();
        let Some(scan) = Scan::new(emails.len()) else {
            return Ok(());
        };

        let ctx = std::sync::Arc::clone(&self.ctx);
        // Held while it is read: other runs of many wait, and find it done.
        let mut remembered = ctx.directory.lock().await;
        let known = remembered
            .take()
            .filter(|known| known.read_at.elapsed() < ctx.tempo.list_for);
        let (directory, extent) = match self.caught_up(known, &scan).await? {
            Some(known) => (known, Extent::Whole),
            None => self.read_the_list(scan, &emails).await?,
        };
        for i in mine {
            let work = &mut self.works[i];
            let Some(email) = &work.email else { continue };
            let contacts = directory.find(email);
            work.listed = match extent {
                Extent::Whole => Listed::Wholly(contacts),
                Extent::Part if contacts.is_empty() => Listed::No,
                Extent::Part => Listed::Partly(contacts),
            };
        }
        *remembered = (extent == Extent::Whole).then_some(directory);
        Ok(())
    }

    async fn read_the_list(
        &self,
        mut scan: Scan,
        emails: &HashSet<Email>,
    ) -> Result<(Directory, Extent), InboxError> {
        let mut directory = Directory::new(self.now());
        let mut sought = emails.iter().map(|email| directory.key(email)).collect();
        let mut ticks = tokio::time::interval(PAGE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut may_ask = false;
        let mut on_their_way = FuturesUnordered::new();
        let extent = loop {
            if self.ctx.gate.closed().is_some() {
                break Extent::Part;
            }
            if may_ask && let Some(page) = scan.next() {
                may_ask = false;
                let amocrm = self.amocrm.clone();
                on_their_way.push(async move { (page, amocrm.newest_contacts(page).await) });
            }
            if let Some(extent) = scan.over() {
                break extent;
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
                            break Extent::Part;
                        };
                        ticks.reset_after(pause);
                        may_ask = false;
                    }
                },
                _ = ticks.tick(), if !may_ask => may_ask = true,
            }
        };
        drop(on_their_way);
        directory.sort();
        tracing::info!(
            sought = emails.len(),
            left = sought.len(),
            is_whole = extent == Extent::Whole,
            duration_ms =
                u64::try_from(directory.read_at.elapsed().as_millis()).unwrap_or(u64::MAX),
            "contacts.listed"
        );
        if extent == Extent::Whole && directory.read_at.elapsed() > SLOW {
            let budget = self.works.len();
            self.catch_up(&mut directory, budget).await?;
        }
        Ok((directory, extent))
    }

    /// The remembered list with what has changed since; `None` if it has to be read anew.
    async fn caught_up(
        &self,
        known: Option<Directory>,
        scan: &Scan,
    ) -> Result<Option<Directory>, InboxError> {
        let Some(mut known) = known else {
            return Ok(None);
        };
        let is_up_to_date = self.catch_up(&mut known, scan.budget()).await?;
        Ok(is_up_to_date.then_some(known))
    }

    /// Latest changes first, until those are reached that the list has already. `false`: not within so many pages.
    async fn catch_up(&self, directory: &mut Directory, budget: usize) -> Result<bool, InboxError> {
        let began = self.now();
        let until = directory
            .as_of
            .checked_sub(self.ctx.tempo.look_overlap)
            .unwrap_or(Timestamp::MIN);
        let mut pace = tokio::time::interval(PAGE_EVERY);
        for page in (1..).take(budget) {
            pace.tick().await;
            let read = match self.amocrm.changed_contacts(page).await {
                Ok(read) => read,
                Err(error) => {
                    self.ctx.judge(&Failure::from(error), None).await?;
                    return Ok(false);
                }
            };
            directory.add(&read.contacts, &mut HashSet::new());
            let oldest = read.contacts.last();
            if read.is_last || oldest.is_none_or(|oldest| oldest.updated_at < until) {
                directory.sort();
                directory.as_of = began;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How long to wait before the list is asked again; `None`: no use.
    async fn pause_after(
        &self,
        error: AmoError,
        failures: u32,
    ) -> Result<Option<Duration>, InboxError> {
        let verdict = self.ctx.judge(&Failure::from(error), None).await?;
        Ok(match verdict {
            Verdict::Retry { after } => {
                let jitter = (self.ctx.jitter)();
                let pause = self.ctx.tempo.backoff(failures - 1, after, jitter);
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
