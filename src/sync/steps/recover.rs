//! What an interrupted attempt may have left behind: a row joins the others where it stopped. Writes in doubt are
//! looked for, and forgotten only once a look that finds nothing resolves them.

use amocrm::{AmoError, Contact, Deal, Found, Unreadable};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    super::{
        Context,
        batch::{Batch, distinct},
        contacts::search::{Query, UNREADABLE, search},
        in_flight::Look,
        row::{Chosen, DealChoice, Ended, InHand, Loaded, Noted, Placed, RowAt, StepResult},
        rules::contact::with_email,
        rules::eligibility::{already_filled, is_skipped},
        rules::note::as_sent,
        rules::timings::later,
    },
    note::{has_our_note, hidden_notes, with_note},
    rows::{fingerprint, refresh},
};
use crate::{
    domain::{ContactId, DealId, KeyedHash, Operation},
    inbox::{self, Create, CreateFor, Fact, GivenUp, InboxError, Step, Undo},
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
}

/// Takes up rows for which an earlier attempt has chosen.
pub(crate) async fn resume(batch: &Batch, rows: Vec<Loaded>) -> Result<Resumed, InboxError> {
    let mut resumed = Resumed::default();
    let rows = resumed.keep(refresh(batch, rows).await?);
    let rows = resumed.keep(batch.begin(rows));

    let (mut with_deal, mut for_contact, mut with_contact) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        match &row.attempt.progress.step {
            Step::Begun => resumed.ended.push(anew(batch, row, Fact::BrokenOff)),
            Step::Creating(create) => {
                let create = create.clone();
                match create.made_for {
                    CreateFor::Contact { .. } => for_contact.push(row.to(create)),
                    CreateFor::NewContact { .. } => with_contact.push(row.to(create)),
                }
            }
            Step::Noted { choice, .. } if !is_moved_again(&row) => {
                let choice = choice.clone();
                resumed.noted.push(row.to(choice));
            }
            Step::Chosen(choice) | Step::Placed { choice, .. } | Step::Noted { choice, .. } => {
                let deal = choice.deal;
                with_deal.push(row.to(deal));
            }
        }
    }
    let mut with_note_in_doubt = Vec::new();
    let look = Look::begin(&batch.ctx);
    for row in read_chosen(batch, with_deal, &mut resumed).await? {
        match row.attempt.progress.step {
            Step::Placed {
                note_resolve_after, ..
            } if !is_moved_again(&row) => match note_resolve_after {
                Some(after) => with_note_in_doubt.push(row.map(|deal| (deal.id, after))),
                None => resumed.placed.push(row.map(|deal| deal.id)),
            },
            _ => match resolve_move(batch, row, look) {
                Ok(row) => resumed.chosen.push(row.map(DealChoice::Existing)),
                Err(ended) => resumed.ended.push(ended),
            },
        }
    }
    resolve_notes(batch, with_note_in_doubt, &mut resumed).await?;
    resolve_creates(batch, for_contact, &mut resumed).await?;
    resolve_creates_with_contact(batch, with_contact, &mut resumed).await?;
    Ok(resumed)
}

/// The deal stands where an undo has brought it, and a person wants it in its place.
fn is_moved_again<S>(row: &RowAt<S>) -> bool {
    row.attempt.progress.undo == Some(Undo::Again)
}

/// Nothing was written: the next attempt chooses anew.
fn anew<S: Send>(batch: &Batch, mut row: RowAt<S>, why: Fact) -> Ended {
    row.attempt.progress.step = Step::Begun;
    row.again_at(batch.now(), why)
}

/// Reads the chosen deals. A row ends if its deal has vanished or left the pipeline.
async fn read_chosen(
    batch: &Batch,
    rows: Vec<RowAt<DealId>>,
    resumed: &mut Resumed,
) -> Result<Vec<RowAt<Deal>>, InboxError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let asked_at = Instant::now();
    let asked = batch.read_deals(rows, |row| vec![row.stage], &mut resumed.ended);
    let Some((rows, found)) = asked.await? else {
        return Ok(Vec::new());
    };
    let pipeline = batch.ctx.settings.rules.target.pipeline;
    let mut read = Vec::new();
    for mut row in rows {
        let id = row.stage;
        let deal = found.get(&id);
        if let Some(deal) = deal.filter(|deal| deal.pipeline == pipeline) {
            row.read_at = row.read_at.min(asked_at);
            read.push(row.to(deal.clone()));
        } else if row.attempt.progress.step.has_written() {
            let reason = format!(
                "сделка {id} удалена или ушла из воронки после того, как сервис её изменил"
            );
            resumed.ended.push(row.park(reason));
        } else {
            row.attempt.progress.moved = None;
            let ended = anew(batch, row, Fact::DealGone);
            resumed.ended.push(ended);
        }
    }
    Ok(read)
}

/// A row whose deal a lost move has brought to its place is finished, as after an answer. A row that has become another one
/// since goes back to its beginning, once the move cannot land any more; an unchanged one is moved again.
fn resolve_move(batch: &Batch, mut row: RowAt<Deal>, look: Look) -> Result<RowAt<Deal>, Ended> {
    let progress = &mut row.attempt.progress;
    let Some(moved) = progress.move_in_doubt() else {
        return Ok(row);
    };
    if row.stage.stage == moved.to {
        let Some(filled) = &row.row.deal_id else {
            return Ok(row);
        };
        progress.step.place(inbox::Placed::Moved);
        let settlement = already_filled(progress, filled);
        return Err(row.end(settlement));
    }
    let now_for = fingerprint(batch.ctx.inbox.hasher(), progress);
    let is_same = progress
        .step
        .choice()
        .is_some_and(|it| it.fingerprint == now_for);
    if is_same && row.row.deal_id.is_none() && !is_skipped(&row.row) {
        return Ok(row);
    }
    let resolve_after = later(moved.at, batch.ctx.timings.resolve_delay());
    if let Some(until) = batch.ctx.may_land_until(row.id(), resolve_after, look) {
        let at = moved.at.min(batch.now());
        row.attempt.progress.moved = Some(inbox::Move { at, ..moved });
        return Err(row.again_at(until, Fact::MoveInDoubt));
    }
    row.attempt.progress.moved = None;
    Err(anew(batch, row, Fact::MoveNeverHappened))
}

async fn resolve_notes(
    batch: &Batch,
    rows: Vec<RowAt<(DealId, Timestamp)>>,
    resumed: &mut Resumed,
) -> Result<(), InboxError> {
    let rows = resumed.keep(batch.begin(rows));
    if rows.is_empty() {
        return Ok(());
    }
    let deals = distinct(rows.iter().map(|row| row.stage.0));
    // Begun before the request: the answer may show a state as old as that.
    let look = Look::begin(&batch.ctx);
    let request = batch.amocrm.all_notes(&deals);
    let asked = batch.ask(Operation::ReadNotes, rows, request, &mut resumed.ended);
    let Some((rows, notes)) = asked.await? else {
        return Ok(());
    };
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for row in rows {
        let (id, (deal, resolve_after)) = (row.id(), row.stage);
        let mut row = row.to(deal);
        if has_our_note(&notes.items, deal, id) {
            row.attempt_mut().log(Fact::NoteFound);
            batch.ctx.landed(id, &[Operation::Note]).await?;
            match with_note(batch, row) {
                Ok(row) => found.push(row),
                Err(ended) => resumed.ended.push(ended),
            }
        } else if let Some(what) = hidden_notes(&notes, deal) {
            resumed.ended.push(batch.unreadable(row, &what));
        } else if let Some(until) = batch.ctx.may_land_until(id, resolve_after, look) {
            row.attempt_mut().progress.step.set_resolve_after(until);
            let ended = row.again_at(until, Fact::NoteInDoubt);
            resumed.ended.push(ended);
        } else {
            row.attempt_mut().progress.step.forget_write();
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

/// A create in doubt, and the contact whose deal it makes; `None`: the contact was not found.
type Lost = RowAt<(Create, Option<Contact>)>;

async fn resolve_creates(
    batch: &Batch,
    rows: Vec<RowAt<Create>>,
    resumed: &mut Resumed,
) -> Result<(), InboxError> {
    let rows = resumed.keep(batch.begin(rows));
    if rows.is_empty() {
        return Ok(());
    }
    let contact_of = |create: &Create| match create.made_for {
        CreateFor::Contact { contact, .. } => Some(contact),
        CreateFor::NewContact { .. } => None,
    };
    let look = Look::begin(&batch.ctx);
    let ids = |row: &RowAt<Create>| contact_of(&row.stage).into_iter().collect();
    let asked = batch.read_contacts(rows, ids, &mut resumed.ended);
    let Some((rows, found)) = asked.await? else {
        return Ok(());
    };
    let contact = |create: &Create| found.get(&contact_of(create)?).cloned();
    let lost = |row: RowAt<Create>| {
        let contact = contact(&row.stage);
        row.map(|create| (create, contact))
    };
    let lost = rows.into_iter().map(lost).collect();
    recover_creates(batch, look, lost, resumed).await
}

async fn resolve_creates_with_contact(
    batch: &Batch,
    rows: Vec<RowAt<Create>>,
    resumed: &mut Resumed,
) -> Result<(), InboxError> {
    let rows = resumed.keep(batch.begin(rows));
    if rows.is_empty() {
        return Ok(());
    }
    let earlier = rows.iter().filter_map(|row| match row.stage.made_for {
        CreateFor::NewContact { after_contact } => Some(after_contact),
        CreateFor::Contact { .. } => None,
    });
    let look = Look::begin(&batch.ctx);
    let request = newest_contacts(batch, earlier.min());
    let asked = batch.ask(Operation::ReadNewest, rows, request, &mut resumed.ended);
    let Some((rows, newest)) = asked.await? else {
        return Ok(());
    };
    let (mut lost, mut to_search) = (Vec::new(), Vec::new());
    for row in rows {
        let same = with_email(&row.email, newest.items.iter().cloned());
        if same.is_empty() {
            to_search.push(row);
        } else {
            lost.push(row.map(|create| (create, latest(same))));
        }
    }
    let query = |row: &RowAt<Create>| Query::Email(row.email.clone());
    for (row, found) in search(batch, to_search, query, &mut resumed.ended).await? {
        let same = with_email(&row.email, found.hits);
        let may_be_hidden = !newest.unreadable.is_none() || !found.unreadable.is_none();
        if same.is_empty() && may_be_hidden {
            let ended = batch.unreadable(row, UNREADABLE);
            resumed.ended.push(ended);
        } else {
            lost.push(row.map(|create| (create, latest(same))));
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

/// Finds for each row, among the deals of its contact, the one that its create in doubt has made.
async fn recover_creates(
    batch: &Batch,
    look: Look,
    lost: Vec<Lost>,
    resumed: &mut Resumed,
) -> Result<(), InboxError> {
    if lost.is_empty() {
        return Ok(());
    }
    let asked = batch.read_deals(lost, newer_deals, &mut resumed.ended);
    let Some((lost, deals)) = asked.await? else {
        return Ok(());
    };
    let (mut found, mut given_up) = (Vec::new(), Vec::new());
    for lost in lost {
        let newer = newer_deals(&lost).into_iter();
        let made = newer.filter_map(|id| deals.get(&id));
        let made = made.filter(|deal| is_named(&batch.ctx, lost.stage.0.name, deal));
        let mut made: Vec<DealId> = made.map(|deal| deal.id).collect();
        made.sort_unstable();
        let deal = match made.as_slice() {
            [] | [_] => made.first().copied(),
            several => match batch.amocrm.all_notes(several).await {
                Ok(notes) => {
                    let ours = |deal: &&DealId| has_our_note(&notes.items, **deal, lost.id());
                    several.iter().find(ours).or(several.first()).copied()
                }
                Err(error) => {
                    let failed = batch.fail(Operation::ReadNotes, vec![lost], error);
                    resumed.ended.extend(failed.await?);
                    continue;
                }
            },
        };
        if deal.is_some() {
            batch.ctx.landed(lost.id(), &CREATES).await?;
        }
        match create_resolved(batch, lost, look, deal, &mut given_up) {
            Ok(row) => found.push(row),
            Err(ended) => resumed.ended.push(ended),
        }
    }
    let look_at = later(batch.now(), batch.ctx.timings.late_look);
    batch.ctx.inbox.give_up(given_up, look_at).await?;
    batch.keep(&found).await?;
    resumed.placed.extend(found);
    Ok(())
}

/// The deals of the contact that were not there before the create.
fn newer_deals(lost: &Lost) -> Vec<DealId> {
    let (create, contact) = &lost.stage;
    let after = match create.made_for {
        CreateFor::Contact { after_deal, .. } => Some(after_deal),
        CreateFor::NewContact { .. } => None,
    };
    let deals = contact.iter().flat_map(|it| it.deals.iter().copied());
    deals.filter(|id| Some(*id) > after).collect()
}

/// Whether the deal is in the pipeline and has the name that a create gave it.
pub(in crate::sync) fn is_named(ctx: &Context, name: KeyedHash, deal: &Deal) -> bool {
    let has_name = |read: &str| ctx.name_hash(read) == name;
    deal.pipeline == ctx.settings.rules.target.pipeline
        && (has_name(&deal.name) || has_name(&as_sent(&deal.name)))
}

/// A create that is resolved as never carried out is added to `given_up`.
fn create_resolved(
    batch: &Batch,
    lost: Lost,
    look: Look,
    deal: Option<DealId>,
    given_up: &mut Vec<GivenUp>,
) -> Result<Placed, Ended> {
    let (mut row, (create, contact)) = lost.apart();
    let (id, step) = (row.id(), &mut row.attempt.progress.step);
    if let Some(deal) = deal {
        *step = create.made(deal, contact.map(|contact| contact.id));
        row.attempt.log(Fact::DealFound(deal));
        // By another service, which has noted the deal too, or by a person.
        if let Some(filled) = &row.row.deal_id {
            let settlement = already_filled(&row.attempt.progress, filled);
            return Err(row.end(settlement));
        }
        return Ok(row.to(deal));
    }
    if let Some(until) = batch.ctx.may_land_until(id, create.resolve_after, look) {
        step.set_resolve_after(until);
        return Err(row.again_at(until, Fact::CreateInDoubt));
    }
    given_up.push(GivenUp {
        row: id,
        name: create.name,
        made_for: create.made_for,
    });
    Err(match batch.ctx.doubts.look().blamed(id, &CREATES) {
        Some(reason) => {
            *step = Step::Begun;
            row.park(reason)
        }
        None => anew(batch, row, Fact::CreateNeverHappened),
    })
}
