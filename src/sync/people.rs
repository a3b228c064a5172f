//! Whose row it is: recognising people without remembering them, one worker per person, and finding their contacts.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Context,
    deals::Plan,
    failure::Failure,
    list::Listed,
    slice::{Members, Slice, at_once, distinct},
    triage::{later, since},
    work::Work,
};
use crate::{
    amocrm::{AmoError, ById, Contact, Search},
    domain::{ContactId, Email, KeyedHash, MissingContact, Operation, Phone},
    inbox::{DailySearches, InboxError, Known, Settlement},
    supabase::Row,
};

/// Of one slice: the throttle paces them, more in flight would only hold memory.
const PARALLEL_SEARCHES: usize = 8;
/// Of a run of few, which stands in the common line: none of it may come between another's reads and the writes that
/// have to begin soon after them.
const PARALLEL_SEARCHES_OF_FEW: usize = 4;
pub(super) const SEARCH_CUT_OFF: &str =
    "поиск контакта обрезан: похожих слишком много, проверьте вручную";

pub(super) const UNREADABLE_SEARCH: &str = "контакт из поиска";

// ---- one worker per person ----

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Taken {
    Person(KeyedHash),
    Contact(ContactId),
}

/// People and contacts that runs of this process work on.
#[derive(Debug, Clone, Default)]
pub(super) struct Holds(Arc<Mutex<HashSet<Taken>>>);

/// Gives the person or contact free when dropped.
#[derive(Debug)]
pub(super) struct Hold {
    holds: Holds,
    what: Taken,
}

impl Holds {
    fn take(&self, what: Taken) -> Option<Hold> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert(what).then(|| Hold {
            holds: self.clone(),
            what,
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.what);
    }
}

impl Work {
    /// Remembers who the row is about. A choice made for somebody else is dropped while nothing was written.
    pub(super) fn recognise(&mut self, ctx: &Context, row: &Row, email: &Email) {
        let hasher = ctx.inbox.hasher();
        self.progress.person = Some(hasher.email(email));
        self.progress.phone = phone_of(row).map(|phone| hasher.phone(&phone));
        let fingerprint = self.fingerprint(ctx);
        if self
            .progress
            .choice
            .as_ref()
            .is_some_and(|choice| choice.fingerprint != fingerprint)
            && !self.progress.has_written()
        {
            self.tell("e-mail or phone changed, choosing anew");
            self.progress.choice = None;
        }
    }

    /// Changes when the row's e-mail or phone does.
    pub(super) fn fingerprint(&self, ctx: &Context) -> KeyedHash {
        let hash = |hash: Option<KeyedHash>| hash.map(|hash| hash.to_string()).unwrap_or_default();
        let text = format!(
            "{}/{}",
            hash(self.progress.person),
            hash(self.progress.phone)
        );
        ctx.inbox.hasher().text("fingerprint", &text)
    }

    /// What is worth remembering of this person for their next row.
    pub(super) fn known(&self) -> Option<(KeyedHash, Known)> {
        let choice = self.progress.choice.as_ref()?;
        Some((
            self.progress.person?,
            Known {
                contact: choice.contact?,
                deal: choice.deal?,
            },
        ))
    }

    fn hold(&mut self, holds: &Holds, what: Taken) -> bool {
        if self.holds.iter().any(|hold| hold.what == what) {
            return true;
        }
        let hold = holds.take(what);
        let is_free = hold.is_some();
        self.holds.extend(hold);
        is_free
    }
}

pub(super) fn phone_of(row: &Row) -> Option<Phone> {
    row.phone.as_deref().and_then(Phone::parse)
}

impl Slice {
    /// Work on one person is serial: the second row finds what the first made. People are held for a slice, not for the
    /// run, so that their other rows need not wait for strangers.
    pub(super) async fn hold_people(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mut mine = self.beginning(members, |_| true);
        if mine.is_empty() {
            return Ok(());
        }
        // Whoever has begun goes on before anybody else of the same person begins.
        mine.sort_by_key(|&i| !self.works[i].progress.crm_work_is_open());

        let begun = self.ctx.inbox.open_work(self.token).await?;
        let begun_people: HashSet<_> = begun.iter().filter_map(|open| open.person).collect();

        let soon = later(self.now(), self.ctx.tempo.person_busy);
        let later_on = later(self.now(), self.ctx.tempo.second_look / 4);
        for i in mine {
            let ctx = Arc::clone(&self.ctx);
            let work = &mut self.works[i];
            let begun_here = work.progress.crm_work_is_open();
            let Some(person) = work.progress.person else {
                continue;
            };
            let contact = work
                .progress
                .choice
                .as_ref()
                .and_then(|choice| choice.contact);
            if !begun_here && begun_people.contains(&person) {
                work.again_at(later_on, "another row of this person is not finished");
            } else if !work.hold(&ctx.holds, Taken::Person(person))
                || contact.is_some_and(|contact| !work.hold(&ctx.holds, Taken::Contact(contact)))
            {
                work.again_at(soon, "another row of this person is at work");
            }
        }
        Ok(())
    }

    /// Takes the contacts found, or puts the entry off when another row works on one of them.
    pub(super) fn hold_contacts(&mut self, i: usize, contacts: Vec<Contact>) {
        let soon = later(self.now(), self.ctx.tempo.person_busy);
        let ctx = Arc::clone(&self.ctx);
        let work = &mut self.works[i];
        if contacts
            .iter()
            .all(|contact| work.hold(&ctx.holds, Taken::Contact(contact.id)))
        {
            work.progress.missed_since = None;
            work.progress.daily_searches = DailySearches::default();
            work.contacts = contacts;
        } else {
            work.again_at(soon, "another row of this contact is at work");
        }
    }

    /// Puts off whoever has found a contact for which an entry outside this slice still has work open. Looked at with
    /// the contacts in hand, so nobody can begin on them afterwards.
    pub(super) async fn leave_begun_contacts(
        &mut self,
        members: &[usize],
    ) -> Result<(), InboxError> {
        let mine: Members = self
            .in_run(members)
            .filter(|&i| !self.works[i].contacts.is_empty())
            .collect();
        if mine.is_empty() {
            return Ok(());
        }
        let begun = self.ctx.inbox.open_work(self.token).await?;
        let begun: HashSet<_> = begun.iter().filter_map(|open| open.contact).collect();
        let later_on = later(self.now(), self.ctx.tempo.second_look / 4);
        for i in mine {
            let work = &mut self.works[i];
            if work
                .contacts
                .iter()
                .any(|contact| begun.contains(&contact.id))
            {
                work.again_at(later_on, "another row of this contact is not finished");
            }
        }
        Ok(())
    }

    // ---- finding contacts ----

    pub(super) async fn find_contacts(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |work| work.progress.choice.is_none());
        if mine.is_empty() {
            return Ok(());
        }
        let sought = self.known_contacts(&mine).await?;
        let mut missed: Members = self
            .in_run(&mine)
            .filter(|i| !sought.contains(i) && self.works[*i].contacts.is_empty())
            .collect();
        for (i, found) in self.search_all(&sought).await {
            if found.is_ok() {
                self.answered(Operation::Search, &[i]).await?;
            }
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    let failure = Failure::from(error);
                    self.fail(Some(Operation::Search), &[i], &failure).await?;
                    continue;
                }
            };
            let mut contacts = self.works[i].matching(found.hits);
            for known in std::mem::take(&mut self.works[i].contacts) {
                if contacts.iter().all(|contact| contact.id != known.id) {
                    contacts.push(known);
                }
            }
            if !contacts.is_empty() {
                self.hold_searched(i, contacts);
            } else if !found.complete {
                self.works[i].park(SEARCH_CUT_OFF);
            } else if found.unreadable.is_none() {
                missed.push(i);
            } else {
                self.unreadable(i, UNREADABLE_SEARCH);
            }
        }
        self.look_beyond_the_index(&mut missed).await?;
        self.without_contact(&missed).await?;
        self.leave_begun_contacts(&mine).await
    }

    /// Reads the contacts that the list names, and those that we used for these people before: from the main store,
    /// which never lags. Answers who has to be searched for.
    async fn known_contacts(&mut self, mine: &[usize]) -> Result<Members, InboxError> {
        let people = distinct(mine.iter().filter_map(|&i| self.works[i].progress.person));
        let recorded = self.ctx.inbox.people(people).await?;
        for &i in mine {
            let work = &mut self.works[i];
            work.recorded = work
                .progress
                .person
                .and_then(|person| recorded.get(&person).copied());
        }
        let ids = distinct(mine.iter().flat_map(|&i| self.works[i].known_ids()));
        let read_at = Instant::now();
        let contacts = match self.amocrm.all_contacts(&ids).await {
            Ok(contacts) => {
                let asked = |i: &usize| !self.works[*i].known_ids().is_empty();
                let asked: Members = mine.iter().copied().filter(asked).collect();
                self.answered(Operation::ReadContacts, &asked).await?;
                contacts
            }
            // Only those who have one wait for it.
            Err(error) => {
                let waiting: Members = mine
                    .iter()
                    .copied()
                    .filter(|&i| !self.works[i].known_ids().is_empty())
                    .collect();
                let failure = Failure::from(error);
                self.fail(Some(Operation::ReadContacts), &waiting, &failure)
                    .await?;
                ById::default()
            }
        };
        let mut sought = Members::new();
        for i in self.in_run(mine).collect::<Members>() {
            let is_unknown =
                |id: &ContactId| contacts.get(id).is_none() && contacts.unreadable.may_be(id.get());
            if let Some(id) = self.works[i].known_ids().into_iter().find(is_unknown) {
                self.unreadable(i, &format!("контакт {id}"));
                continue;
            }
            let work = &mut self.works[i];
            let found = work.known_among(&contacts.items);
            // Whoever was listed, and is not there any more, may have become part of somebody else.
            let is_complete = match &work.listed {
                Listed::No => false,
                Listed::Partly(ids) | Listed::Wholly(ids) => {
                    ids.is_empty() || found.iter().any(|contact| ids.contains(&contact.id))
                }
            };
            work.contacts_read_at = Some(read_at);
            if is_complete && !found.is_empty() {
                self.hold_contacts(i, found);
            } else {
                work.contacts = found;
            }
            if !is_complete {
                sought.push(i);
            }
        }
        Ok(sought)
    }

    pub(super) async fn search_all(
        &self,
        mine: &[usize],
    ) -> Vec<(usize, Result<Search, AmoError>)> {
        let mut searches = Vec::new();
        for i in self.in_run(mine) {
            let amocrm = self.amocrm.clone();
            if let Some(email) = self.works[i].email.clone() {
                searches.push(async move { (i, amocrm.search_email(&email).await) });
            }
        }
        at_once(self.parallel_searches(), searches).await
    }

    fn parallel_searches(&self) -> usize {
        if self.is_long {
            PARALLEL_SEARCHES
        } else {
            PARALLEL_SEARCHES_OF_FEW
        }
    }

    /// A contact made a moment ago is in the list of changes before the search finds it: one request for all.
    async fn look_beyond_the_index(&mut self, missed: &mut Members) -> Result<(), InboxError> {
        if !missed
            .iter()
            .any(|&i| self.works[i].progress.missed_since.is_some())
        {
            return Ok(());
        }
        let page = match self.amocrm.changed_contacts(1).await {
            // What cannot be read shows no contact; before a create the search looks for it.
            Ok(page) => {
                self.answered(Operation::ReadChanged, missed).await?;
                page.contacts
            }
            Err(error) => {
                let failure = Failure::from(error);
                self.fail(Some(Operation::ReadChanged), missed, &failure)
                    .await?;
                missed.clear();
                return Ok(());
            }
        };
        for i in std::mem::take(missed) {
            let contacts = self.works[i].matching(page.iter().cloned());
            if contacts.is_empty() {
                missed.push(i);
            } else {
                self.hold_searched(i, contacts);
            }
        }
        Ok(())
    }

    /// Rows whose e-mail nobody has: by phone after the second miss, then wait or create.
    async fn without_contact(&mut self, missed: &[usize]) -> Result<(), InboxError> {
        let create = self.ctx.settings.missing_contact == MissingContact::Create;
        let now = self.now();
        let mut by_phone = Vec::new();
        for &i in missed {
            let tempo = self.ctx.tempo;
            let work = &mut self.works[i];
            let phone = work.row.as_ref().and_then(phone_of);
            let since = since(&mut work.progress.missed_since, now);
            let second_look_at = later(since, tempo.second_look);
            match phone {
                None if create => {
                    work.plan = Some(Plan::CreateWithContact {
                        after_contact: None,
                    });
                }
                _ if now < second_look_at => work.end(Settlement::Waiting {
                    due_at: if self.is_long {
                        tempo.together(second_look_at)
                    } else {
                        second_look_at
                    },
                    reason: "контакт с таким e-mail не найден, проверим ещё раз".to_owned(),
                }),
                Some(_) if work.phone_is_nobodys && !create => self.wait_for_contact(i),
                Some(phone) => by_phone.push((i, phone)),
                None => self.wait_for_contact(i),
            }
        }

        let mut searches = Vec::new();
        for (i, phone) in by_phone {
            let amocrm = self.amocrm.clone();
            searches.push(async move {
                let found = amocrm.search_contacts(phone.as_str()).await;
                (i, phone, found)
            });
        }
        for (i, phone, found) in at_once(self.parallel_searches(), searches).await {
            if found.is_ok() {
                self.answered(Operation::SearchPhone, &[i]).await?;
            }
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    let failure = Failure::from(error);
                    self.fail(Some(Operation::SearchPhone), &[i], &failure)
                        .await?;
                    continue;
                }
            };
            let mut same: Vec<_> = found
                .hits
                .into_iter()
                .filter(|hit| !hit.has_email && hit.phones.contains(&phone))
                .collect();
            // Another one with this phone would make it doubtful whose it is.
            if !found.unreadable.is_none() {
                self.unreadable(i, UNREADABLE_SEARCH);
            } else if found.complete && same.len() == 1 {
                self.works[i].tell("contact found by phone");
                self.hold_searched(i, std::mem::take(&mut same));
            } else if create && found.complete {
                self.works[i].plan = Some(Plan::CreateWithContact {
                    after_contact: None,
                });
            } else {
                self.wait_for_contact(i);
            }
        }
        self.search_beginnings(missed).await
    }

    /// What a search or the list of changes shows of a contact may be behind the main store.
    fn hold_searched(&mut self, i: usize, contacts: Vec<Contact>) {
        self.works[i].contacts_read_at = None;
        self.hold_contacts(i, contacts);
    }

    /// Before a contact is made, the beginning of the address is searched for. However many hits there are, one that
    /// matches is the person.
    async fn search_beginnings(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine: Members = self
            .in_run(members)
            // The whole list was compared by what is visible.
            .filter(|&i| {
                let work = &self.works[i];
                work.plan.is_some() && !matches!(work.listed, Listed::Wholly(_))
            })
            .collect();
        let mut searches = Vec::new();
        for i in mine {
            let amocrm = self.amocrm.clone();
            if let Some(email) = self.works[i].email.clone() {
                searches.push(async move { (i, amocrm.search_beginning(&email).await) });
            }
        }
        for (i, found) in at_once(self.parallel_searches(), searches).await {
            if found.is_ok() {
                self.answered(Operation::SearchBeginning, &[i]).await?;
            }
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    let failure = Failure::from(error);
                    self.fail(Some(Operation::SearchBeginning), &[i], &failure)
                        .await?;
                    continue;
                }
            };
            let same = self.works[i].matching(found.hits);
            if same.is_empty() && !found.unreadable.is_none() {
                self.works[i].plan = None;
                self.unreadable(i, UNREADABLE_SEARCH);
            } else if !same.is_empty() {
                let work = &mut self.works[i];
                work.tell("contact found by the beginning of its e-mail");
                work.plan = None;
                self.hold_searched(i, same);
            }
        }
        Ok(())
    }

    fn wait_for_contact(&mut self, i: usize) {
        let now = self.now();
        let tempo = &self.ctx.tempo;
        let work = &mut self.works[i];
        let since = since(&mut work.progress.missed_since, now);
        if tempo.searched_in_vain(&mut work.progress.daily_searches, now) {
            // A person who retries it has it wait anew.
            work.progress.daily_searches = DailySearches::default();
            work.park("контакт так и не появился");
        } else {
            let is_listed = matches!(work.listed, Listed::Wholly(_));
            let missed_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            work.end(Settlement::Waiting {
                due_at: later(now, tempo.search_waiting_after(is_listed, missed_for)),
                reason: "ждём контакт с таким e-mail в amoCRM".to_owned(),
            });
        }
    }
}

impl Work {
    /// Those that are this person: the search answers with lookalikes too.
    pub(super) fn matching(&self, hits: impl IntoIterator<Item = Contact>) -> Vec<Contact> {
        let Some(email) = &self.email else {
            return Vec::new();
        };
        let mut seen = HashSet::new();
        hits.into_iter()
            .filter(|hit| hit.emails.contains(email) && seen.insert(hit.id))
            .collect()
    }

    /// Who the list says they are, and who they were before.
    fn known_ids(&self) -> Vec<ContactId> {
        let recorded = self.recorded.map(|known| known.contact);
        distinct(self.listed.contacts().iter().copied().chain(recorded))
    }

    /// Those of them that are this person still. One on record needs no e-mail to compare: it may have been found by
    /// phone.
    fn known_among(&self, contacts: &HashMap<ContactId, Contact>) -> Vec<Contact> {
        let recorded = self.recorded.map(|known| known.contact);
        let is_theirs = |contact: &&Contact| {
            let has_email = |email| contact.emails.contains(email);
            self.email.as_ref().is_some_and(has_email)
                || (recorded == Some(contact.id) && !contact.has_email)
        };
        let ids = self.known_ids();
        let known = ids.iter().filter_map(|id| contacts.get(id));
        known.filter(is_theirs).cloned().collect()
    }
}
