//! The contacts that are a row's person: by e-mail, else by phone, else the row waits or a contact is made.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    super::{
        batch::{Batch, at_once, distinct},
        row::{Ended, InHand, Listed, Loaded, Matched, Sought, Stage, StepResult, phone_of},
        triage::{later, since},
    },
    people::{leave_begun_contacts, lock_contacts},
};
use crate::{
    amocrm::{AmoError, ById, Contact, Search},
    domain::{ContactId, Email, MissingContact, Operation, Phone},
    inbox::{DailySearches, InboxError, Known, Settlement},
};

pub(crate) const SEARCH_CUT_OFF: &str =
    "поиск контакта обрезан: похожих слишком много, проверьте вручную";

pub(crate) const UNREADABLE_SEARCH: &str = "контакт из поиска";

/// A row, and what is known of its contacts so far.
struct Candidate {
    loaded: Loaded,
    recorded: Option<Known>,
    contacts: Vec<Contact>,
}

super::super::row::stages!(Candidate);

impl Candidate {
    /// The contacts that the list names, and the one that we used for this person before.
    fn known_ids(&self) -> Vec<ContactId> {
        let recorded = self.recorded.map(|known| known.contact);
        distinct(
            self.loaded
                .listed
                .contacts()
                .iter()
                .copied()
                .chain(recorded),
        )
    }

    /// Those of them that are this person still. One on record needs no e-mail to compare: it may have been found by
    /// phone.
    fn known_among(&self, contacts: &HashMap<ContactId, Contact>) -> Vec<Contact> {
        let recorded = self.recorded.map(|known| known.contact);
        let is_theirs = |contact: &&Contact| {
            contact.emails.contains(&self.loaded.email)
                || (recorded == Some(contact.id) && !contact.has_email)
        };
        let ids = self.known_ids();
        let known = ids.iter().filter_map(|id| contacts.get(id));
        known.filter(is_theirs).cloned().collect()
    }

    /// `read_at`: when the contacts were read by id; `None`: they were found by a search, which may be behind.
    fn matched(
        self,
        batch: &Batch,
        contacts: Vec<Contact>,
        read_at: Option<Instant>,
    ) -> Result<Matched, Ended> {
        let Self {
            loaded, recorded, ..
        } = self;
        Ok(Matched {
            loaded: lock_contacts(batch, loaded, &contacts)?,
            contacts,
            contacts_read_at: read_at,
            recorded,
        })
    }
}

/// Those of the hits that have this e-mail: a search answers with lookalikes too.
pub(crate) fn matching(email: &Email, hits: impl IntoIterator<Item = Contact>) -> Vec<Contact> {
    let mut same: Vec<Contact> = Vec::new();
    for hit in hits {
        if hit.emails.contains(email) && same.iter().all(|known| known.id != hit.id) {
            same.push(hit);
        }
    }
    same
}

/// Finds the contacts of rows that have no deal yet.
pub(crate) async fn find(
    batch: &Batch,
    rows: Vec<Loaded>,
) -> Result<StepResult<Sought>, InboxError> {
    let (mut found, rows) = StepResult::after(batch.begin(rows));
    let (sought, mut missed) = known_contacts(batch, rows, &mut found).await?;
    missed.extend(by_email(batch, sought, &mut found).await?);
    let missed = beyond_the_index(batch, missed, &mut found).await?;
    let to_make = without_contact(batch, missed, &mut found).await?;
    let to_make = by_beginning(batch, to_make, &mut found).await?;

    let matched = std::mem::take(&mut found.next);
    let left = leave_begun_contacts(batch, matched, |row| &row.contacts).await?;
    let matched = found.keep(left).into_iter().map(Sought::Matched);
    let missing = to_make.into_iter().map(|row| Sought::Missing(row.loaded));
    Ok(StepResult {
        next: matched.chain(missing).collect(),
        ended: found.ended,
    })
}

/// Reads the contacts that the list names, and those that we used for these people before: from the main store, which
/// never lags. Answers the rows that have to be searched for, and those that the list knows to have no contact.
async fn known_contacts(
    batch: &Batch,
    rows: Vec<Loaded>,
    found: &mut StepResult<Matched>,
) -> Result<(Vec<Candidate>, Vec<Candidate>), InboxError> {
    let people = distinct(rows.iter().filter_map(|row| row.attempt.progress.person));
    let recorded = batch.ctx.inbox.people(people).await?;
    let candidate = |loaded: Loaded| {
        let person = loaded.attempt.progress.person;
        Candidate {
            recorded: person.and_then(|person| recorded.get(&person).copied()),
            loaded,
            contacts: Vec::new(),
        }
    };
    let mut rows: Vec<Candidate> = rows.into_iter().map(candidate).collect();
    let ids = distinct(rows.iter().flat_map(Candidate::known_ids));
    let read_at = Instant::now();
    let contacts = match batch.amocrm.all_contacts(&ids).await {
        Ok(contacts) => {
            let asked = rows.iter().filter(|row| !row.known_ids().is_empty());
            batch.answered(Operation::ReadContacts, asked).await?;
            contacts
        }
        // Only rows that have such a contact wait for it.
        Err(error) => {
            let (waiting, others) = rows
                .into_iter()
                .partition(|row| !row.known_ids().is_empty());
            rows = others;
            found
                .ended
                .extend(batch.fail(Operation::ReadContacts, waiting, error).await?);
            ById::default()
        }
    };
    let (mut sought, mut missed) = (Vec::new(), Vec::new());
    for mut row in rows {
        let is_unknown =
            |id: &ContactId| contacts.get(id).is_none() && contacts.unreadable.may_be(id.get());
        if let Some(id) = row.known_ids().into_iter().find(is_unknown) {
            let ended = batch.unreadable(row, &format!("контакт {id}"));
            found.ended.push(ended);
            continue;
        }
        let known = row.known_among(&contacts.items);
        // A contact that was listed, and is not there any more, may have become part of another one.
        let is_complete = match &row.loaded.listed {
            Listed::No => false,
            Listed::Partly(ids) | Listed::Wholly(ids) => {
                ids.is_empty() || known.iter().any(|contact| ids.contains(&contact.id))
            }
        };
        if !is_complete {
            row.contacts = known;
            sought.push(row);
        } else if known.is_empty() {
            missed.push(row);
        } else {
            found.push(row.matched(batch, known, Some(read_at)));
        }
    }
    Ok((sought, missed))
}

/// Answers the rows whose e-mail no contact has.
async fn by_email(
    batch: &Batch,
    rows: Vec<Candidate>,
    found: &mut StepResult<Matched>,
) -> Result<Vec<Candidate>, InboxError> {
    let queries = rows.into_iter().map(|row| {
        let query = Query::Email(row.loaded.email.clone());
        (row, query)
    });
    let mut missed = Vec::new();
    for (mut row, search) in search(batch, queries.collect(), &mut found.ended).await? {
        let mut contacts = matching(&row.loaded.email, search.hits);
        for known in std::mem::take(&mut row.contacts) {
            if contacts.iter().all(|contact| contact.id != known.id) {
                contacts.push(known);
            }
        }
        if !contacts.is_empty() {
            found.push(row.matched(batch, contacts, None));
        } else if !search.complete {
            found.ended.push(row.park(SEARCH_CUT_OFF));
        } else if search.unreadable.is_none() {
            missed.push(row);
        } else {
            found.ended.push(batch.unreadable(row, UNREADABLE_SEARCH));
        }
    }
    Ok(missed)
}

/// A contact made a moment ago is in the list of changes before the search finds it: one request for all.
async fn beyond_the_index(
    batch: &Batch,
    missed: Vec<Candidate>,
    found: &mut StepResult<Matched>,
) -> Result<Vec<Candidate>, InboxError> {
    let has_waited = |row: &Candidate| row.loaded.attempt.progress.missed_since.is_some();
    if !missed.iter().any(has_waited) {
        return Ok(missed);
    }
    let page = match batch.amocrm.changed_contacts(1).await {
        // What cannot be read shows no contact; before a create the search looks for it.
        Ok(page) => {
            batch.answered(Operation::ReadChanged, &missed).await?;
            page.contacts
        }
        Err(error) => {
            found
                .ended
                .extend(batch.fail(Operation::ReadChanged, missed, error).await?);
            return Ok(Vec::new());
        }
    };
    let mut left = Vec::new();
    for row in missed {
        let contacts = matching(&row.loaded.email, page.iter().cloned());
        if contacts.is_empty() {
            left.push(row);
        } else {
            found.push(row.matched(batch, contacts, None));
        }
    }
    Ok(left)
}

/// Rows whose e-mail no contact has: by phone after the second miss, then wait or create. Answers those for which a
/// contact is to be made.
async fn without_contact(
    batch: &Batch,
    missed: Vec<Candidate>,
    found: &mut StepResult<Matched>,
) -> Result<Vec<Candidate>, InboxError> {
    let create = batch.ctx.settings.missing_contact == MissingContact::Create;
    let tempo = &batch.ctx.tempo;
    let now = batch.now();
    let (mut by_phone, mut to_make) = (Vec::new(), Vec::new());
    for mut row in missed {
        let phone = phone_of(&row.loaded.row);
        let since = since(&mut row.loaded.attempt.progress.missed_since, now);
        let second_look_at = later(since, tempo.second_look);
        match phone {
            None if create => to_make.push(row),
            _ if now < second_look_at => found.ended.push(row.end(Settlement::Waiting {
                due_at: if batch.is_long {
                    tempo.together(second_look_at)
                } else {
                    second_look_at
                },
                reason: "контакт с таким e-mail не найден, проверим ещё раз".to_owned(),
            })),
            Some(_) if row.loaded.phone_is_nobodys && !create => {
                found.ended.push(wait_for_contact(batch, row, now));
            }
            Some(phone) => by_phone.push((row, Query::Phone(phone))),
            None => found.ended.push(wait_for_contact(batch, row, now)),
        }
    }
    for (mut row, search) in search(batch, by_phone, &mut found.ended).await? {
        let phone = phone_of(&row.loaded.row);
        let mut same = search.hits;
        same.retain(|hit| {
            !hit.has_email && phone.as_ref().is_some_and(|it| hit.phones.contains(it))
        });
        // Another contact with this phone would make it doubtful whose it is.
        if !search.unreadable.is_none() {
            found.ended.push(batch.unreadable(row, UNREADABLE_SEARCH));
        } else if search.complete && same.len() == 1 {
            row.loaded.attempt.log("contact found by phone");
            found.push(row.matched(batch, same, None));
        } else if create && search.complete {
            to_make.push(row);
        } else {
            let now = batch.now();
            found.ended.push(wait_for_contact(batch, row, now));
        }
    }
    Ok(to_make)
}

/// Before a contact is made, the beginning of the address is searched for. However many hits there are, one that matches
/// is the person.
async fn by_beginning(
    batch: &Batch,
    rows: Vec<Candidate>,
    found: &mut StepResult<Matched>,
) -> Result<Vec<Candidate>, InboxError> {
    // The whole list was compared by what is visible.
    let is_in_whole_list = |row: &Candidate| matches!(row.loaded.listed, Listed::Wholly(_));
    let (mut to_make, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_in_whole_list);
    let queries = rows.into_iter().map(|row| {
        let query = Query::Beginning(row.loaded.email.clone());
        (row, query)
    });
    for (mut row, search) in search(batch, queries.collect(), &mut found.ended).await? {
        let same = matching(&row.loaded.email, search.hits);
        if !same.is_empty() {
            let line = "contact found by the beginning of its e-mail";
            row.loaded.attempt.log(line);
            found.push(row.matched(batch, same, None));
        } else if search.unreadable.is_none() {
            to_make.push(row);
        } else {
            found.ended.push(batch.unreadable(row, UNREADABLE_SEARCH));
        }
    }
    Ok(to_make)
}

fn wait_for_contact(batch: &Batch, mut row: Candidate, now: Timestamp) -> Ended {
    let tempo = &batch.ctx.tempo;
    let is_listed = matches!(row.loaded.listed, Listed::Wholly(_));
    let progress = &mut row.loaded.attempt.progress;
    let since = since(&mut progress.missed_since, now);
    if tempo.searched_in_vain(&mut progress.daily_searches, now) {
        // A person who retries the row has it wait anew.
        progress.daily_searches = DailySearches::default();
        return row.park("контакт так и не появился");
    }
    let missed_for = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    row.end(Settlement::Waiting {
        due_at: later(now, tempo.search_waiting_after(is_listed, missed_for)),
        reason: "ждём контакт с таким e-mail в amoCRM".to_owned(),
    })
}

/// What amoCRM is asked for.
#[derive(Debug)]
pub(crate) enum Query {
    Email(Email),
    /// The part of an address before the `@`.
    Beginning(Email),
    Phone(Phone),
}

impl Query {
    fn operation(&self) -> Operation {
        match self {
            Self::Email(_) => Operation::Search,
            Self::Beginning(_) => Operation::SearchBeginning,
            Self::Phone(_) => Operation::SearchPhone,
        }
    }

    async fn ask(&self, batch: &Batch) -> Result<Search, AmoError> {
        match self {
            Self::Email(email) => batch.amocrm.search_email(email).await,
            Self::Beginning(email) => batch.amocrm.search_beginning(email).await,
            Self::Phone(phone) => batch.amocrm.search_contacts(phone.as_str()).await,
        }
    }
}

/// Searches for each row, side by side. Rows whose search failed go to `ended`.
pub(crate) async fn search<T: Stage>(
    batch: &Batch,
    queries: Vec<(T, Query)>,
    ended: &mut Vec<Ended>,
) -> Result<Vec<(T, Search)>, InboxError> {
    let searches = queries.into_iter().map(|(row, query)| async move {
        let answer = query.ask(batch).await;
        (row, query.operation(), answer)
    });
    let mut found = Vec::new();
    for (row, operation, answer) in at_once(batch.parallel_searches(), searches.collect()).await {
        match answer {
            Ok(search) => {
                batch.answered(operation, [&row]).await?;
                found.push((row, search));
            }
            Err(error) => ended.extend(batch.fail(operation, vec![row], error).await?),
        }
    }
    Ok(found)
}
