//! The account's list of contacts: read when many are sought, and remembered for a while.
//!
//! The list is read newest first, so a contact that is made meanwhile moves others to a later page, where they are seen
//! again. One that is deleted moves a single other contact over the edge of a page that was read; whoever it is then
//! passes for missing. So who is missing is searched for before anything is made, and who waits is looked for again when
//! the list is forgotten.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::{
    sync::MutexGuard,
    time::{Instant, Interval, MissedTickBehavior},
};

use super::{
    Context,
    directory::Directory,
    failure::{Asked, Failure, Verdict},
    row::{Listed, Loaded, phone_of},
    scan::{Extent, FEW, Scan, Seen},
    triage::later,
};
use crate::{
    amocrm::{AmoCrm, AmoError, Page},
    domain::{Email, Phone},
    inbox::{InboxError, Lane},
};

/// Three pages a second at most: amoCRM calls hasty readings of everything suspicious.
const PAGE_EVERY: Duration = Duration::from_millis(334);
/// A list that took longer is behind already when it is read.
const SLOW: Duration = Duration::from_secs(30);
/// The newest contacts are asked for again by who comes later than this.
const PART_FOR: Duration = Duration::from_mins(1);
/// How long it takes to see whether an import has only begun.
const MORE_MAY_COME: Duration = Duration::from_secs(1);
/// How long somebody of this minute waits for a list that is read for a backfill.
const LIVE_PATIENCE: Duration = Duration::from_secs(3);
/// What falls due so soon is looked up while the list is being read, or shortly after.
const COMING_SOON: Duration = Duration::from_mins(1);

/// The account's list of contacts, as far as it was read for everybody who came to look somebody up.
#[derive(Debug)]
pub(super) struct List {
    directory: Directory,
    scan: Scan,
    /// Three pages a second, whoever asks for them.
    pace: Interval,
    began_at: Instant,
    rests_since: Instant,
    /// Since when it is kept account of who has spent what.
    reckoned_since: Instant,
    /// What has changed since is not in it: who is not found may be there all the same.
    is_behind: bool,
    /// More has changed since than it would take to read it anew.
    is_outrun: bool,
}

impl List {
    pub(super) fn unread(now: Timestamp) -> Self {
        let mut pace = tokio::time::interval(PAGE_EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            directory: Directory::new(now),
            scan: Scan::default(),
            pace,
            began_at: Instant::now(),
            rests_since: Instant::now(),
            reckoned_since: Instant::now(),
            is_behind: false,
            is_outrun: false,
        }
    }

    /// To be read from its beginning. What was spent in advance is owed for as long as a list would have kept.
    fn forget(&mut self, now: Timestamp, whole_for: Duration) {
        if self.reckoned_since.elapsed() > whole_for {
            self.scan = Scan::default();
            self.reckoned_since = Instant::now();
        }
        self.scan = self.scan.anew();
        self.directory = Directory::new(now);
        self.began_at = Instant::now();
        self.is_behind = false;
        self.is_outrun = false;
    }

    /// The end of a list keeps, with what has changed since; its newest part soon is not the newest any more.
    fn is_old(&self, whole_for: Duration) -> bool {
        if self.is_whole() {
            self.is_outrun || self.began_at.elapsed() > whole_for
        } else {
            self.rests_since.elapsed() > PART_FOR
        }
    }

    fn is_whole(&self) -> bool {
        self.scan.over() == Some(Extent::Whole)
    }

    /// Who is not in it does not exist.
    fn knows_all(&self) -> bool {
        self.is_whole() && !self.is_behind
    }

    /// Nobody who has no e-mail has this phone.
    fn knows_nobody_with(&self, phone: &Phone) -> bool {
        self.knows_all() && self.directory.find(phone).is_empty()
    }

    fn listed(&self, email: &Email) -> Listed {
        let contacts = self.directory.find(email);
        if self.knows_all() {
            Listed::Wholly(contacts)
        } else if contacts.is_empty() {
            Listed::No
        } else {
            Listed::Partly(contacts)
        }
    }
}

/// A run that is on its way to the list: whoever reads it meanwhile counts on its entries.
pub(super) struct Expected {
    ctx: Arc<Context>,
    entries: usize,
}

impl Expected {
    pub(super) fn of(ctx: &Arc<Context>, lane: Lane, entries: usize) -> Self {
        // A few do not have it read, and a backfill is never at work beside another.
        let entries = if lane == Lane::Live && entries > FEW {
            entries
        } else {
            0
        };
        ctx.expected.fetch_add(entries, Ordering::Relaxed);
        Self {
            ctx: Arc::clone(ctx),
            entries,
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let entries = self.entries;
        self.ctx.expected.fetch_sub(entries, Ordering::Relaxed);
    }
}

impl Context {
    /// Looks these rows up, if they are so many that it pays, or the list is remembered.
    pub(super) async fn look_up_in_the_list(
        &self,
        rows: Vec<&mut Loaded>,
        lane: Lane,
        expected: Expected,
    ) -> Result<(), InboxError> {
        if !self.may_read_the_list() {
            return Ok(());
        }
        let emails: Vec<Email> = rows.iter().map(|row| row.email.clone()).collect();
        let emails: HashSet<&Email> = emails.iter().collect();
        let list = if emails.len() > FEW {
            self.list_for_many(&emails, lane, expected).await?
        } else {
            drop(expected);
            self.list_for_few(&emails, lane).await?
        };
        let Some(list) = list else {
            return Ok(());
        };
        for row in rows {
            row.listed = list.listed(&row.email);
            let phone = phone_of(&row.row);
            row.phone_is_nobodys = phone.is_some_and(|it| list.knows_nobody_with(&it));
        }
        Ok(())
    }

    fn may_read_the_list(&self) -> bool {
        self.settings.contact_scan && self.gate.closed().is_none()
    }

    /// Read on for as many as are worth it. `None`: somebody else reads it for too long.
    async fn list_for_many(
        &self,
        emails: &HashSet<&Email>,
        lane: Lane,
        expected: Expected,
    ) -> Result<Option<MutexGuard<'_, List>>, InboxError> {
        let _backfill = match lane {
            Lane::Live => None,
            Lane::Backfill => Some(self.backfill_looks_up.lock().await),
        };
        let Some(mut list) = self.take_list(lane).await else {
            return Ok(None);
        };
        drop(expected);
        let mut coming = self.coming(lane).await?;
        self.read_on(&mut list, emails, coming).await?;
        // The first of an import cannot afford the list: while more and more come, they do not search yet.
        while !list.is_whole() && self.may_read_the_list() {
            tokio::time::sleep(MORE_MAY_COME).await;
            let before = emails.len() + coming;
            coming = self.coming(lane).await?;
            if coming < before {
                break;
            }
            self.read_on(&mut list, &HashSet::new(), coming).await?;
        }
        Ok(Some(list))
    }

    /// A few do not have it read, nor wait for it. One that is remembered to its end answers them all for a page of what has
    /// changed, if they are enough for that page.
    async fn list_for_few(
        &self,
        emails: &HashSet<&Email>,
        lane: Lane,
    ) -> Result<Option<MutexGuard<'_, List>>, InboxError> {
        let _backfill = match lane {
            Lane::Live => None,
            Lane::Backfill => match self.backfill_looks_up.try_lock() {
                Ok(turn) => Some(turn),
                Err(_) => return Ok(None),
            },
        };
        let Ok(mut list) = self.list.try_lock() else {
            return Ok(None);
        };
        let remembers_all = list.is_whole() && !list.is_old(self.tempo.list_for);
        if !remembers_all || list.scan.credit(emails.len(), 0) == 0 {
            return Ok(None);
        }
        // Somebody may wait for them.
        self.catch_up(&mut list, &self.amocrm, emails.len(), 0)
            .await?;
        list.scan.join(emails.len(), 0, 0);
        Ok(Some(list))
    }

    /// Held while it is read: others who come wait, and go on where it ends. While a backfill reads it, or is about to,
    /// somebody of this minute does not wait for long, and is searched for instead: `None`.
    async fn take_list(&self, lane: Lane) -> Option<MutexGuard<'_, List>> {
        if lane == Lane::Backfill || self.backfill_looks_up.try_lock().is_ok() {
            return Some(self.list.lock().await);
        }
        let list = tokio::time::timeout(LIVE_PATIENCE, self.list.lock());
        list.await.ok()
    }

    /// Entries that will be looked up soon. Whoever is live counts on the live ones only, so as not to wait for a list
    /// that is worth its pages to a backfill alone.
    async fn coming(&self, lane: Lane) -> Result<usize, InboxError> {
        let soon = later(self.now(), self.upkeep.rows.settle_delay + COMING_SOON);
        let mut coming = self.inbox.unmatched(soon, Lane::Live).await?;
        if lane == Lane::Backfill {
            coming += self.inbox.unmatched(soon, Lane::Backfill).await?;
        }
        let coming = usize::try_from(coming).unwrap_or(usize::MAX);
        Ok(coming.saturating_add(self.expected.load(Ordering::Relaxed)))
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
            list.forget(self.now(), self.tempo.list_for);
        }
        if list.is_whole() {
            if !emails.is_empty() {
                self.catch_up(list, &self.amocrm.patient(), emails.len(), coming)
                    .await?;
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
                self.catch_up(list, &self.amocrm.patient(), 0, coming)
                    .await?;
            }
        }
        Ok(())
    }

    /// As far as it pays.
    async fn read_pages(
        &self,
        list: &mut List,
        emails: &HashSet<&Email>,
    ) -> Result<(), InboxError> {
        let List {
            directory,
            scan,
            pace,
            ..
        } = list;
        // Of a reading that was cut off.
        scan.break_off();
        let amocrm = self.amocrm.patient();
        let unseen = emails.iter().filter(|it| directory.find(it).is_empty());
        let mut sought = unseen.map(|email| directory.key(email)).collect();
        let began = Instant::now();
        let mut may_ask = false;
        let mut on_their_way = FuturesUnordered::new();
        let mut outcome = Ok(());
        while scan.over().is_none() && self.gate.closed().is_none() {
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
                        if !read.unreadable.is_none() {
                            scan.spoil();
                        }
                    }
                    Err(error) => {
                        let failures = scan.failed(number);
                        match self.pause_after(error, failures).await {
                            Ok(Some(pause)) => pace.reset_after(pause),
                            Ok(None) => scan.give_up(),
                            Err(error) => {
                                outcome = Err(error);
                                break;
                            }
                        }
                        may_ask = false;
                    }
                },
                _ = pace.tick(), if !may_ask => may_ask = true,
            }
        }
        drop(on_their_way);
        scan.break_off();
        directory.sort();
        tracing::info!(
            sought = emails.len(),
            left = sought.len(),
            pages = scan.pages(),
            is_whole = scan.over() == Some(Extent::Whole),
            duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "contacts.listed"
        );
        outcome
    }

    /// Latest changes first, until those are reached that the list has already, but no more pages than the list has.
    async fn catch_up(
        &self,
        list: &mut List,
        amocrm: &AmoCrm,
        sought: usize,
        coming: usize,
    ) -> Result<(), InboxError> {
        let List {
            directory,
            scan,
            pace,
            is_behind,
            is_outrun,
            ..
        } = list;
        *is_behind = true;
        let began = self.now();
        let until = directory
            .as_of
            .checked_sub(self.tempo.look_overlap)
            .unwrap_or(Timestamp::MIN);
        let mut outcome = Ok(());
        let pages = scan.credit(sought, coming).min(scan.pages());
        for page in (1..).take(pages) {
            pace.tick().await;
            if self.gate.closed().is_some() {
                break;
            }
            scan.spend();
            let read = match amocrm.changed_contacts(page).await {
                Ok(read) => read,
                Err(error) => {
                    outcome = self
                        .judge(&Failure::from(error), Asked::NOTHING)
                        .await
                        .map(drop);
                    break;
                }
            };
            directory.add(&read.contacts, &mut HashSet::new());
            if !read.unreadable.is_none() {
                break;
            }
            let oldest = read.contacts.last();
            if read.is_last || oldest.is_none_or(|oldest| oldest.updated_at < until) {
                directory.as_of = began;
                *is_behind = false;
                break;
            }
            *is_outrun = usize::try_from(page).is_ok_and(|page| page >= scan.pages());
        }
        directory.sort();
        outcome
    }

    /// How long to wait before the list is asked again; `None`: no use.
    async fn pause_after(
        &self,
        error: AmoError,
        failures: u32,
    ) -> Result<Option<Duration>, InboxError> {
        let verdict = self.judge(&Failure::from(error), Asked::NOTHING).await?;
        Ok(match verdict {
            Verdict::Retry { after } => {
                let jitter = (self.jitter)();
                let pause = self.tempo.backoff(failures - 1, after, jitter);
                Some(pause.max(PAGE_EVERY))
            }
            Verdict::NotItsFault | Verdict::InDoubt | Verdict::Park | Verdict::SetAside => None,
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
