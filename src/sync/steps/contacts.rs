//! The contacts that are a row's person: by e-mail, else by phone, else the row waits or a contact is made.

use std::collections::HashMap;

use amocrm::Contact;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    super::{
        batch::{Batch, distinct},
        contacts::search::{self, Query, search},
        row::{Contacts, Ended, InHand, Loaded, Matched, RowAt, StepResult, phone_of},
        rules::contact::{AfterMiss, Answer, Miss, by_beginning, by_email, by_phone, with_email},
        rules::eligibility::since,
        rules::timings::later,
        run::SMALLEST_BATCH,
    },
    people::{leave_begun_contacts, lock_contacts},
};
use crate::{
    domain::{ContactId, KeyedHash, MissingContact, Operation, Phone},
    inbox::{DailySearches, Fact, InboxError, Known, Settlement},
};

/// What is known of a row's contacts so far.
struct Lookup {
    recorded: Option<Known>,
    /// By the index, all contacts that have the e-mail; `None`: the index was not asked.
    indexed: Option<Vec<ContactId>>,
    /// By the index no contact without an e-mail has the row's phone.
    phone_is_unknown: bool,
    contacts: Vec<Contact>,
}

type Candidate = RowAt<Lookup>;

impl Candidate {
    /// The contacts that the index names, and the one that was used for this person before.
    fn known_ids(&self) -> Vec<ContactId> {
        let indexed = self.stage.indexed.iter().flatten().copied();
        let recorded = self.stage.recorded.map(|known| known.contact);
        distinct(indexed.chain(recorded))
    }

    /// Those of [`Candidate::known_ids`] that are still this person. A recorded contact may have no e-mail, since it
    /// may have been found by phone.
    fn known_among(&self, contacts: &HashMap<ContactId, Contact>) -> Vec<Contact> {
        let recorded = self.stage.recorded.map(|known| known.contact);
        let is_theirs = |contact: &&Contact| {
            contact.emails.contains(&self.email)
                || (recorded == Some(contact.id) && !contact.has_email)
        };
        let ids = self.known_ids();
        let known = ids.iter().filter_map(|id| contacts.get(id));
        known.filter(is_theirs).cloned().collect()
    }

    /// Contacts that the index names, and that do not have the e-mail any more.
    fn outdated(&self, still: &[Contact]) -> Vec<ContactId> {
        let email = &self.email;
        let has_it = |id| {
            still
                .iter()
                .any(|it| it.id == id && it.emails.contains(email))
        };
        let indexed = self.stage.indexed.iter().flatten().copied();
        indexed.filter(|id| !has_it(*id)).collect()
    }

    /// `read_at`: when the contacts were read by id; `None`: they were found by a search, which may be behind.
    fn matched(
        self,
        batch: &Batch,
        contacts: Vec<Contact>,
        read_at: Option<Instant>,
    ) -> Result<Matched, Ended> {
        let row = lock_contacts(batch, self, &contacts)?;
        Ok(row.map(|it| Contacts {
            found: contacts,
            read_at,
            recorded: it.recorded,
        }))
    }
}

/// The result of the search for contacts.
pub(crate) struct Sought {
    pub(crate) matched: Vec<Matched>,
    /// A contact is to be made with the deal.
    pub(crate) missing: Vec<Loaded>,
    pub(crate) ended: Vec<Ended>,
}

/// Finds the contacts of rows that have no deal yet.
pub(crate) async fn find(batch: &Batch, rows: Vec<Loaded>) -> Result<Sought, InboxError> {
    let mut found = StepResult::default();
    let mut left = with_records(batch, rows).await?;
    let mut missed = Vec::new();
    loop {
        left = found.keep(batch.begin(left));
        if left.is_empty() {
            break;
        }
        let rows = if is_in_the_index(batch, left.len()).await? {
            look_up(batch, std::mem::take(&mut left)).await?
        } else {
            search_next(batch, &mut left, &mut found)
        };
        let sought = by_id(batch, rows, &mut found, &mut missed).await?;
        missed.extend(by_search(batch, sought, &mut found).await?);
    }
    let missed = beyond_the_search(batch, missed, &mut found).await?;
    let to_make = without_contact(batch, missed, &mut found).await?;
    let to_make = before_a_create(batch, to_make, &mut found).await?;

    let matched = std::mem::take(&mut found.next);
    let left = leave_begun_contacts(batch, matched).await?;
    Ok(Sought {
        matched: found.keep(left),
        missing: to_make.into_iter().map(|row| row.to(())).collect(),
        ended: found.ended,
    })
}

/// Adds the contact and deal that were used for these people before.
async fn with_records(batch: &Batch, rows: Vec<Loaded>) -> Result<Vec<Candidate>, InboxError> {
    let people = distinct(rows.iter().filter_map(|row| row.attempt.progress.person));
    let recorded = batch.ctx.inbox.people(people).await?;
    let candidate = |row: Loaded| {
        let person = row.attempt.progress.person;
        row.to(Lookup {
            recorded: person.and_then(|person| recorded.get(&person).copied()),
            indexed: None,
            phone_is_unknown: false,
            contacts: Vec::new(),
        })
    };
    Ok(rows.into_iter().map(candidate).collect())
}

async fn is_in_the_index(batch: &Batch, emails: usize) -> Result<bool, InboxError> {
    let (ctx, began) = (&batch.ctx, batch.started);
    Ok(batch.is_long && ctx.index_is_ready(&batch.amocrm, began, emails).await?)
}

/// Asks the index for all rows at once.
async fn look_up(batch: &Batch, mut rows: Vec<Candidate>) -> Result<Vec<Candidate>, InboxError> {
    let progress = rows.iter().map(|row| &row.attempt.progress);
    let hashes = progress.flat_map(|it| [it.person, it.phone]).flatten();
    let known = batch.ctx.inbox.indexed(distinct(hashes)).await?;
    for row in &mut rows {
        let progress = &row.attempt.progress;
        let of = |hash: KeyedHash| known.get(&hash).cloned().unwrap_or_default();
        row.stage.indexed = progress.person.map(of);
        row.stage.phone_is_unknown = progress.phone.is_some_and(|it| of(it).is_empty());
    }
    Ok(rows)
}

/// The next rows to search for: of a long run a few at a time, since the index may be complete before the last of them.
fn search_next(
    batch: &Batch,
    left: &mut Vec<Candidate>,
    found: &mut StepResult<Matched>,
) -> Vec<Candidate> {
    if !batch.is_long {
        return std::mem::take(left);
    }
    // The batch was cut for the index, which has fallen behind meanwhile. Rows that need a search go in small batches,
    // so the other rows come again.
    let now = batch.now();
    let too_many = left.split_off(left.len().min(SMALLEST_BATCH));
    let again = |row: Candidate| row.again_at(now, Fact::IndexBehind);
    found.ended.extend(too_many.into_iter().map(again));
    let rest = left.split_off(left.len().min(batch.parallel_searches()));
    std::mem::replace(left, rest)
}

/// Reads the contacts that the index names, and those that were used for these people before, from the main store,
/// which never lags. Returns the rows that have to be searched for; those without a contact go to `missed`.
async fn by_id(
    batch: &Batch,
    rows: Vec<Candidate>,
    found: &mut StepResult<Matched>,
    missed: &mut Vec<Candidate>,
) -> Result<Vec<Candidate>, InboxError> {
    let is_named = |row: &Candidate| !row.known_ids().is_empty();
    let (named, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_named);
    let read_at = Instant::now();
    // After an error only the rows that have such a contact end.
    let asked = batch.read_contacts(named, Candidate::known_ids, &mut found.ended);
    let (named, contacts) = asked.await?.unwrap_or_default();
    let (mut sought, mut outdated) = (Vec::new(), Vec::new());
    for mut row in named.into_iter().chain(others) {
        let known = row.known_among(&contacts);
        let gone = row.outdated(&known);
        let person = row.attempt.progress.person;
        outdated.extend(
            person
                .into_iter()
                .flat_map(|it| gone.iter().map(move |id| (it, *id))),
        );
        // A contact that is gone may have been merged into another one, so its row is searched for. An e-mail that only
        // the index lacks is searched for at the second look.
        let is_answered = row.stage.indexed.is_some() && gone.is_empty();
        let is_first_look = row.attempt.progress.missed_since.is_none();
        if is_answered && !known.is_empty() {
            found.push(row.matched(batch, known, Some(read_at)));
        } else if is_answered && is_first_look {
            missed.push(row);
        } else {
            row.stage.indexed = None;
            row.stage.contacts = known;
            sought.push(row);
        }
    }
    batch.ctx.inbox.forget_indexed(outdated).await?;
    Ok(sought)
}

/// Searches by e-mail. Returns the rows whose e-mail no contact has.
async fn by_search(
    batch: &Batch,
    rows: Vec<Candidate>,
    found: &mut StepResult<Matched>,
) -> Result<Vec<Candidate>, InboxError> {
    let query = |row: &Candidate| Query::Email(row.email.clone());
    let mut missed = Vec::new();
    for (mut row, search) in search(batch, rows, query, &mut found.ended).await? {
        let recorded = std::mem::take(&mut row.stage.contacts);
        let answer = by_email(&row.email, search, recorded);
        missed.extend(unless_found(batch, row, answer, found));
    }
    Ok(missed)
}

/// Returns the row if its contact is missing.
fn unless_found(
    batch: &Batch,
    row: Candidate,
    answer: Answer,
    found: &mut StepResult<Matched>,
) -> Option<Candidate> {
    match answer {
        Answer::Found(contacts) => found.push(row.matched(batch, contacts, None)),
        Answer::CutOff => found.ended.push(row.park(search::CUT_OFF)),
        Answer::Unreadable => found.ended.push(batch.unreadable(row, search::UNREADABLE)),
        Answer::Missing => return Some(row),
    }
    None
}

/// Looks in the latest changes, by one request for all rows: they show a new contact before the search does.
async fn beyond_the_search(
    batch: &Batch,
    missed: Vec<Candidate>,
    found: &mut StepResult<Matched>,
) -> Result<Vec<Candidate>, InboxError> {
    let has_waited = |row: &Candidate| row.attempt.progress.missed_since.is_some();
    if !missed.iter().any(has_waited) {
        return Ok(missed);
    }
    let request = batch.amocrm.changed_contacts(1);
    let asked = batch.ask(Operation::ReadChanged, missed, request, &mut found.ended);
    // An unreadable contact is ignored here; before a create the search looks for it.
    let Some((missed, page)) = asked.await? else {
        return Ok(Vec::new());
    };
    let mut left = Vec::new();
    for row in missed {
        let contacts = with_email(&row.email, page.contacts.iter().cloned());
        if contacts.is_empty() {
            left.push(row);
        } else {
            found.push(row.matched(batch, contacts, None));
        }
    }
    Ok(left)
}

/// Rows whose e-mail no contact has: by phone after the second miss, then wait or create. Returns those for which a
/// contact is to be made.
async fn without_contact(
    batch: &Batch,
    missed: Vec<Candidate>,
    found: &mut StepResult<Matched>,
) -> Result<Vec<Candidate>, InboxError> {
    let now = batch.now();
    let (mut phones, mut to_make) = (Vec::new(), Vec::new());
    for mut row in missed {
        let phone = phone_of(&row.row);
        let second_look_at = second_look_at(batch, &mut row, now);
        let miss = Miss {
            policy: batch.ctx.settings.missing_contact,
            phone: phone.as_ref(),
            phone_is_unknown: row.stage.phone_is_unknown,
            second_look_at,
            now,
        };
        match (miss.then(), phone) {
            (AfterMiss::Create, _) => to_make.push(row),
            (AfterMiss::SecondLook, _) => found.ended.push(row.end(Settlement::Waiting {
                due_at: second_look_at,
                reason: "контакт с таким e-mail не найден, поиск повторится".to_owned(),
            })),
            (AfterMiss::SearchPhone, Some(phone)) => phones.push(row.map(|it| (it, phone))),
            (AfterMiss::SearchPhone | AfterMiss::Wait, _) => {
                found.ended.push(wait_for_contact(batch, row, now));
            }
        }
    }
    to_make.extend(search_phones(batch, phones, found).await?);
    Ok(to_make)
}

fn second_look_at(batch: &Batch, row: &mut Candidate, now: Timestamp) -> Timestamp {
    let timings = &batch.ctx.timings;
    let since = since(&mut row.attempt.progress.missed_since, now);
    match (&row.stage.indexed, batch.is_long) {
        (Some(_), _) => later(since, timings.second_look_after_index),
        (None, true) => timings.together(later(since, timings.second_look)),
        (None, false) => later(since, timings.second_look),
    }
}

/// Searches by phone. Returns the rows for which a contact is to be made.
async fn search_phones(
    batch: &Batch,
    rows: Vec<RowAt<(Lookup, Phone)>>,
    found: &mut StepResult<Matched>,
) -> Result<Vec<Candidate>, InboxError> {
    let is_created = batch.ctx.settings.missing_contact == MissingContact::Create;
    let query = |row: &RowAt<(Lookup, Phone)>| Query::Phone(row.stage.1.clone());
    let mut to_make = Vec::new();
    for (row, search) in search(batch, rows, query, &mut found.ended).await? {
        let answer = by_phone(&row.stage.1, search);
        let mut row = row.map(|(lookup, _)| lookup);
        match answer {
            Answer::Missing if is_created => to_make.push(row),
            // A cut-off search means many similar phones: they identify no person.
            Answer::Missing | Answer::CutOff => {
                let now = batch.now();
                found.ended.push(wait_for_contact(batch, row, now));
            }
            answer => {
                if matches!(answer, Answer::Found(_)) {
                    row.attempt.log(Fact::ContactByPhone);
                }
                unless_found(batch, row, answer, found);
            }
        }
    }
    Ok(to_make)
}

/// Before a contact is made, the beginning of the address is searched for.
async fn before_a_create(
    batch: &Batch,
    rows: Vec<Candidate>,
    found: &mut StepResult<Matched>,
) -> Result<Vec<Candidate>, InboxError> {
    let query = |row: &Candidate| Query::Beginning(row.email.clone());
    let mut to_make = Vec::new();
    for (mut row, search) in search(batch, rows, query, &mut found.ended).await? {
        let answer = by_beginning(&row.email, search);
        if matches!(answer, Answer::Found(_)) {
            row.attempt.log(Fact::ContactByBeginning);
        }
        to_make.extend(unless_found(batch, row, answer, found));
    }
    Ok(to_make)
}

fn wait_for_contact(batch: &Batch, mut row: Candidate, now: Timestamp) -> Ended {
    let timings = &batch.ctx.timings;
    let progress = &mut row.attempt.progress;
    if timings.searched_in_vain(&mut progress.daily_searches, now) {
        // After a `retry` the row waits anew.
        progress.daily_searches = DailySearches::default();
        return row.park("контакт за время ожидания не появился");
    }
    row.end(Settlement::Waiting {
        due_at: later(now, timings.search_waiting),
        reason: "ожидает контакт с таким e-mail в amoCRM".to_owned(),
    })
}
