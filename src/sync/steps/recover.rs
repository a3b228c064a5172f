//! What an interrupted attempt may have left behind: a row joins the others where it stopped. Writes whose answers never
//! came are looked for, and forgotten only once an empty look is decisive.

use amocrm::{AmoError, Contact, Deal, Found, Unreadable};
use tokio::time::Instant;

use super::{
    super::{
        batch::{Batch, distinct},
        contacts::search::{Query, UNREADABLE, search},
        fate::Look,
        note::as_sent,
        row::{Chosen, DealChoice, Ended, InHand, Loaded, Noted, Placed, StepResult},
        rules::contact::with_email,
    },
    note::{has_our_note, hidden_notes, with_note},
    rows::refresh,
};
use crate::{
    domain::{ContactId, DealId, KeyedHash, Operation},
    inbox::{self, Fact, InboxError, Intent},
};

const CREATES: [Operation; 2] = [Operation::Create, Operation::CreateWithContact];

/// Pages of the newest contacts that are searched for one that we may have made.
const NEWEST_PAGES: u32 = 4;

/// Rows that have begun, by the stage at which they go on.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    pub(crate) chosen: Vec<Chosen>,
    pub(crate) placed: Vec<Placed>,
    pub(crate) noted: Vec<Noted>,
    pub(crate) ended: Vec<Ended>,
}

impl Resumed {
    fn keep<T>(&mut self, part: StepResult<T>) -> Vec<T> {
        self.ended.extend(part.ended);
        part.next
    }

    fn push_noted(&mut self, row: Result<Noted, Ended>) {
        match row {
            Ok(row) => self.noted.push(row),
            Err(ended) => self.ended.push(ended),
        }
    }
}

/// Takes up rows for which an earlier attempt has chosen.
pub(crate) async fn resume(batch: &Batch, rows: Vec<Loaded>) -> Result<Resumed, InboxError> {
    let mut resumed = Resumed::default();
    let rows = resumed.keep(refresh(batch, rows).await?);
    let rows = resumed.keep(batch.begin(rows));

    let (mut with_deal, mut creates) = (Vec::new(), Vec::new());
    for row in rows {
        let progress = &row.attempt.progress;
        match (row.attempt.deal(), &progress.intent) {
            (Some(deal), _) if progress.noted => {
                resumed.push_noted(with_note(batch, Placed { loaded: row, deal }));
            }
            (Some(deal), _) => with_deal.push((row, deal)),
            (None, Some(Intent::Create { .. })) => creates.push(row),
            (None, _) => resumed
                .ended
                .push(anew(batch, row, Fact::CreateNeverHappened)),
        }
    }
    let mut with_note_in_doubt = Vec::new();
    for (row, deal) in read_chosen(batch, with_deal, &mut resumed).await? {
        let progress = &row.attempt.progress;
        match (progress.placed, &progress.intent) {
            (Some(_), Some(Intent::Note { .. })) => with_note_in_doubt.push(Placed {
                loaded: row,
                deal: deal.id,
            }),
            (Some(_), _) => resumed.placed.push(Placed {
                loaded: row,
                deal: deal.id,
            }),
            (None, _) => resumed.chosen.push(Chosen {
                loaded: row,
                deal: DealChoice::Existing(deal),
            }),
        }
    }
    resolve_notes(batch, with_note_in_doubt, &mut resumed).await?;
    let has_contact = |row: &Loaded| {
        let choice = row.attempt.progress.choice.as_ref();
        choice.is_some_and(|choice| choice.contact.is_some())
    };
    let (for_contact, with_contact) = creates.into_iter().partition(has_contact);
    resolve_creates(batch, for_contact, &mut resumed).await?;
    resolve_creates_with_contact(batch, with_contact, &mut resumed).await?;
    Ok(resumed)
}

/// Nothing was written: the next attempt chooses anew.
fn anew(batch: &Batch, mut row: Loaded, why: Fact) -> Ended {
    row.attempt.progress.choice = None;
    row.again_at(batch.now(), why)
}

/// A chosen deal that vanished or left the pipeline is not ours to write to.
async fn read_chosen(
    batch: &Batch,
    rows: Vec<(Loaded, DealId)>,
    resumed: &mut Resumed,
) -> Result<Vec<(Loaded, Deal)>, InboxError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let asked_at = Instant::now();
    let ids = distinct(rows.iter().map(|(_, deal)| *deal));
    let found = match batch.amocrm.all_deals(&ids).await {
        Ok(found) => found,
        Err(error) => {
            let rows = rows.into_iter().map(|(row, _)| row).collect();
            resumed
                .ended
                .extend(batch.fail(Operation::ReadDeals, rows, error).await?);
            return Ok(Vec::new());
        }
    };
    let asked = rows.iter().map(|(row, _)| row);
    batch.answered(Operation::ReadDeals, asked).await?;
    let pipeline = batch.ctx.settings.rules.target.pipeline;
    let mut read = Vec::new();
    for (mut row, id) in rows {
        let deal = found.get(&id);
        if deal.is_none() && found.unreadable.may_be(id.get()) {
            let ended = batch.unreadable(row, &format!("сделка {id}"));
            resumed.ended.push(ended);
            continue;
        }
        if let Some(deal) = deal.filter(|deal| deal.pipeline == pipeline) {
            row.read_at = row.read_at.min(asked_at);
            read.push((row, deal.clone()));
        } else if row.attempt.progress.has_written() {
            let reason = format!("сделка {id} удалена или ушла из воронки после нашей записи");
            resumed.ended.push(row.park(reason));
        } else {
            let ended = anew(batch, row, Fact::DealGone);
            resumed.ended.push(ended);
        }
    }
    Ok(read)
}

async fn resolve_notes(
    batch: &Batch,
    rows: Vec<Placed>,
    resumed: &mut Resumed,
) -> Result<(), InboxError> {
    let rows = resumed.keep(batch.begin(rows));
    if rows.is_empty() {
        return Ok(());
    }
    let deals = distinct(rows.iter().map(|row| row.deal));
    // What is seen is older than the answer that tells it.
    let look = Look::begin(&batch.ctx);
    let notes = match batch.amocrm.all_notes(&deals).await {
        Ok(notes) => notes,
        Err(error) => {
            resumed
                .ended
                .extend(batch.fail(Operation::ReadNotes, rows, error).await?);
            return Ok(());
        }
    };
    batch.answered(Operation::ReadNotes, &rows).await?;
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for mut row in rows {
        let id = row.id();
        let Some(Intent::Note { decisive_from }) = row.attempt().progress.intent else {
            absent.push(row);
            continue;
        };
        if has_our_note(&notes.items, row.deal, id) {
            row.attempt_mut().log(Fact::NoteFound);
            batch.ctx.landed(id, &[Operation::Note]).await?;
            match with_note(batch, row) {
                Ok(row) => found.push(row),
                Err(ended) => resumed.ended.push(ended),
            }
        } else if let Some(what) = hidden_notes(&notes, row.deal) {
            resumed.ended.push(batch.unreadable(row, &what));
        } else if let Some(until) = batch.ctx.fate_is_open_until(id, decisive_from, look) {
            row.attempt_mut().progress.is_decisive_from(until);
            let ended = row.again_at(until, Fact::NoteInDoubt);
            resumed.ended.push(ended);
        } else {
            row.attempt_mut().progress.intent = None;
            match batch.ctx.doubts.look().blamed(id, &[Operation::Note]) {
                Some(reason) => resumed.ended.push(row.park(reason)),
                None => absent.push(row),
            }
        }
    }
    batch.keep(&found).await?;
    batch.keep(&absent).await?;
    resumed.noted.extend(found);
    resumed.placed.extend(absent);
    Ok(())
}

/// The open create of a row.
#[derive(Debug, Clone, Copy)]
struct OpenCreate {
    decisive_from: jiff::Timestamp,
    name: KeyedHash,
    after_deal: DealId,
    after_contact: Option<ContactId>,
}

fn open_create(row: &Loaded) -> Option<OpenCreate> {
    match row.attempt.progress.intent {
        Some(Intent::Create {
            decisive_from,
            name,
            after_deal,
            after_contact,
        }) => Some(OpenCreate {
            decisive_from,
            name,
            after_deal,
            after_contact,
        }),
        Some(Intent::Note { .. }) | None => None,
    }
}

async fn resolve_creates(
    batch: &Batch,
    rows: Vec<Loaded>,
    resumed: &mut Resumed,
) -> Result<(), InboxError> {
    let rows = resumed.keep(batch.begin(rows));
    let contact_of = |row: &Loaded| row.attempt.progress.choice.as_ref()?.contact;
    let contacts = distinct(rows.iter().filter_map(contact_of));
    if contacts.is_empty() {
        return Ok(());
    }
    let look = Look::begin(&batch.ctx);
    let found = match batch.amocrm.all_contacts(&contacts).await {
        Ok(found) => found,
        Err(error) => {
            resumed
                .ended
                .extend(batch.fail(Operation::ReadContacts, rows, error).await?);
            return Ok(());
        }
    };
    batch.answered(Operation::ReadContacts, &rows).await?;
    let mut lost = Vec::new();
    for row in rows {
        let Some(id) = contact_of(&row) else { continue };
        match found.get(&id) {
            None if found.unreadable.may_be(id.get()) => {
                let ended = batch.unreadable(row, &format!("контакт {id}"));
                resumed.ended.push(ended);
            }
            contact => lost.push((row, contact.cloned())),
        }
    }
    recover_creates(batch, look, lost, resumed).await
}

async fn resolve_creates_with_contact(
    batch: &Batch,
    rows: Vec<Loaded>,
    resumed: &mut Resumed,
) -> Result<(), InboxError> {
    let rows = resumed.keep(batch.begin(rows));
    if rows.is_empty() {
        return Ok(());
    }
    let earlier = rows
        .iter()
        .filter_map(|row| open_create(row)?.after_contact);
    let look = Look::begin(&batch.ctx);
    let newest = match newest_contacts(batch, earlier.min()).await {
        Ok(newest) => newest,
        Err(error) => {
            resumed
                .ended
                .extend(batch.fail(Operation::ReadNewest, rows, error).await?);
            return Ok(());
        }
    };
    let (mut lost, mut to_search) = (Vec::new(), Vec::new());
    for row in rows {
        let same = with_email(&row.email, newest.items.iter().cloned());
        if same.is_empty() {
            let query = Query::Email(row.email.clone());
            to_search.push((row, query));
        } else {
            lost.push((row, latest(same)));
        }
    }
    for (row, found) in search(batch, to_search, &mut resumed.ended).await? {
        let same = with_email(&row.email, found.hits);
        let may_be_hidden = !newest.unreadable.is_none() || !found.unreadable.is_none();
        if same.is_empty() && may_be_hidden {
            let ended = batch.unreadable(row, UNREADABLE);
            resumed.ended.push(ended);
        } else {
            lost.push((row, latest(same)));
        }
    }
    recover_creates(batch, look, lost, resumed).await
}

fn latest(contacts: Vec<Contact>) -> Option<Contact> {
    contacts.into_iter().max_by_key(|contact| contact.id)
}

/// The newest contacts down to one that was there before, as far as the page cap reaches.
async fn newest_contacts(
    batch: &Batch,
    after: Option<ContactId>,
) -> Result<Found<Contact>, AmoError> {
    let mut newest = Vec::new();
    let mut unreadable = Unreadable::default();
    for page in 1..=NEWEST_PAGES {
        let read = batch.amocrm.newest_contacts(page).await?;
        let oldest = read.contacts.last();
        let is_reached = oldest.is_none_or(|last| after.is_some_and(|after| last.id <= after));
        newest.extend(read.contacts);
        let is_new = |id: &i64| after.is_none_or(|after| *id > after.get());
        unreadable.without_id |= read.unreadable.without_id;
        let new_ids = read.unreadable.ids.into_iter().filter(is_new);
        unreadable.ids.extend(new_ids);
        if is_reached || read.is_last {
            break;
        }
    }
    Ok(Found {
        items: newest,
        unreadable,
    })
}

/// For each row, the deal among its contact's that an unanswered create has made.
async fn recover_creates(
    batch: &Batch,
    look: Look,
    lost: Vec<(Loaded, Option<Contact>)>,
    resumed: &mut Resumed,
) -> Result<(), InboxError> {
    if lost.is_empty() {
        return Ok(());
    }
    let newer = |row: &Loaded, contact: Option<&Contact>| -> Vec<DealId> {
        let after = open_create(row).map(|create| create.after_deal);
        let deals = contact
            .into_iter()
            .flat_map(|contact| contact.deals.iter().copied());
        deals
            .filter(|id| after.is_some_and(|after| *id > after))
            .collect()
    };
    let all_newer = lost
        .iter()
        .flat_map(|(row, contact)| newer(row, contact.as_ref()));
    let ids = distinct(all_newer);
    let deals = match batch.amocrm.all_deals(&ids).await {
        Ok(deals) => deals,
        Err(error) => {
            let rows = lost.into_iter().map(|(row, _)| row).collect();
            resumed
                .ended
                .extend(batch.fail(Operation::ReadDeals, rows, error).await?);
            return Ok(());
        }
    };
    let asked = lost.iter().map(|(row, _)| row);
    batch.answered(Operation::ReadDeals, asked).await?;
    let mut found = Vec::new();
    for (row, contact) in lost {
        let newer = newer(&row, contact.as_ref());
        let is_unknown =
            |id: &&DealId| deals.get(id).is_none() && deals.unreadable.may_be(id.get());
        if let Some(id) = newer.iter().find(is_unknown) {
            let ended = batch.unreadable(row, &format!("сделка {id}"));
            resumed.ended.push(ended);
            continue;
        }
        let made = newer.into_iter().filter_map(|id| deals.get(&id));
        let made = made.filter(|deal| is_the_created(batch, &row, deal));
        let mut made: Vec<DealId> = made.map(|deal| deal.id).collect();
        made.sort_unstable();
        let deal = match made.as_slice() {
            [] | [_] => made.first().copied(),
            several => match batch.amocrm.all_notes(several).await {
                Ok(notes) => {
                    let ours = |deal: &&DealId| has_our_note(&notes.items, **deal, row.id());
                    several.iter().find(ours).or(several.first()).copied()
                }
                Err(error) => {
                    let failed = batch.fail(Operation::ReadNotes, vec![row], error);
                    resumed.ended.extend(failed.await?);
                    continue;
                }
            },
        };
        if deal.is_some() {
            batch.ctx.landed(row.id(), &CREATES).await?;
        }
        let contact = contact.map(|contact| contact.id);
        match create_resolved(batch, row, look, contact, deal) {
            Ok(row) => found.push(row),
            Err(ended) => resumed.ended.push(ended),
        }
    }
    batch.keep(&found).await?;
    resumed.placed.extend(found);
    Ok(())
}

fn is_the_created(batch: &Batch, row: &Loaded, deal: &Deal) -> bool {
    let Some(create) = open_create(row) else {
        return false;
    };
    let has_name = |read: &str| batch.ctx.name_hash(read) == create.name;
    deal.pipeline == batch.ctx.settings.rules.target.pipeline
        && (has_name(&deal.name) || has_name(&as_sent(&deal.name)))
}

fn create_resolved(
    batch: &Batch,
    mut row: Loaded,
    look: Look,
    contact: Option<ContactId>,
    deal: Option<DealId>,
) -> Result<Placed, Ended> {
    let id = row.id();
    let open_until = open_create(&row)
        .and_then(|create| batch.ctx.fate_is_open_until(id, create.decisive_from, look));
    let progress = &mut row.attempt.progress;
    if let Some(until) = open_until {
        progress.is_decisive_from(until);
    }
    if let (Some(deal), Some(choice)) = (deal, progress.choice.as_mut()) {
        choice.deal = Some(deal);
        choice.contact = choice.contact.or(contact);
        progress.placed = Some(inbox::Placed::Created);
        progress.intent = None;
        row.attempt.log(Fact::DealFound(deal));
        return Ok(Placed { loaded: row, deal });
    }
    if let Some(until) = open_until {
        return Err(row.again_at(until, Fact::CreateInDoubt));
    }
    progress.intent = None;
    progress.choice = None;
    Err(match batch.ctx.doubts.look().blamed(id, &CREATES) {
        Some(reason) => row.park(reason),
        None => row.again_at(batch.now(), Fact::CreateNeverHappened),
    })
}
