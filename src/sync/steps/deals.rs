//! Which deal: the deals of the contacts are read, the rules choose one, and where none is to be used the miss is confirmed.

use std::time::Duration;

use amocrm::{Contact, Deal, Pipeline};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    super::{
        batch::{Batch, distinct},
        contacts::search::{Query, UNREADABLE, search},
        failure::Failure,
        row::{Chosen, Contacts, DealChoice, InHand, Loaded, Matched, RowAt, StepResult},
        rules::contact::with_email,
        rules::deal::{Decision, Situation, decide},
    },
    rows::{fingerprint, refresh},
};
use crate::{
    domain::{ContactId, DealId, Operation},
    inbox::{Choice, CreateFor, Fact, InboxError, Step},
};

/// The contacts of a row, and their deals.
struct Deals {
    contacts: Contacts,
    read: Vec<Deal>,
    /// Deals of the contacts that have yet to be read.
    unread: Vec<DealId>,
}

type Candidate = RowAt<Deals>;

impl Candidate {
    fn new(row: Matched) -> Self {
        let mut row = row.map(|contacts| Deals {
            contacts,
            read: Vec::new(),
            unread: Vec::new(),
        });
        row.stage.unread = row.deal_ids();
        row
    }

    /// Replaces the contacts. Of their deals, those that `known` does not name have yet to be read.
    fn has_contacts(&mut self, contacts: Vec<Contact>, known: &[DealId]) {
        self.stage.contacts.found = contacts;
        self.stage.unread = self.deal_ids();
        self.stage.unread.retain(|id| !known.contains(id));
    }

    /// The deals of the contacts, and the one that was used for this person before.
    fn deal_ids(&self) -> Vec<DealId> {
        let of_contacts = self.stage.contacts.found.iter();
        let of_contacts = of_contacts.flat_map(|contact| contact.deals.iter().copied());
        let recorded = self.stage.contacts.recorded.map(|known| known.deal);
        distinct(of_contacts.chain(recorded))
    }

    /// The deal to use; `None`: one is to be made.
    fn choose(&mut self, batch: &Batch) -> Option<Deal> {
        let contacts: Vec<_> = self.stage.contacts.found.iter().map(|it| it.id).collect();
        let situation = Situation {
            contacts: &contacts,
            deals: &self.stage.read,
            recorded: self.stage.contacts.recorded.map(|known| known.deal),
            row_created_at: self.row.created_at.unwrap_or_else(|| batch.now()),
        };
        let Decision::Use { deal: id, why } = decide(&batch.ctx.settings.rules, &situation) else {
            return None;
        };
        let place = self.stage.read.iter().position(|deal| deal.id == id)?;
        let deal = self.stage.read.swap_remove(place);
        let first = self.stage.contacts.found.first().map(|contact| contact.id);
        let attempt = &mut self.attempt;
        attempt.log(Fact::DealChosen(id, why));
        attempt.progress.step = Step::Chosen(Choice {
            fingerprint: fingerprint(batch.ctx.inbox.hasher(), &attempt.progress),
            contact: deal.main_contact.or(first),
            deal: id,
            why,
        });
        Some(deal)
    }

    /// Whether the miss is confirmed: the contacts were read in the main store a moment ago.
    fn is_confirmed(&self, fresh_for: Duration) -> bool {
        let read_at = self.stage.contacts.read_at;
        read_at.is_some_and(|at| at.elapsed() < fresh_for)
    }

    /// A new deal for the contact that changed last.
    fn new_deal(&self) -> DealChoice {
        let contacts = &self.stage.contacts.found;
        let newest = contacts.iter().max_by_key(|it| (it.updated_at, it.id));
        let highest = contacts
            .iter()
            .flat_map(|it| it.deals.iter().copied())
            .max();
        DealChoice::New(CreateFor::Contact {
            // A row that was matched has a contact.
            contact: newest.map_or(ContactId::new(0), |it| it.id),
            after_deal: highest.unwrap_or(DealId::new(0)),
        })
    }
}

/// Chooses for each row the deal to use, or that one is to be made. What is chosen is stored.
pub(crate) async fn choose(
    batch: &Batch,
    matched: Vec<Matched>,
    missing: Vec<Loaded>,
) -> Result<StepResult<Chosen>, InboxError> {
    let (mut chosen, matched) = StepResult::after(refresh(batch, matched).await?);
    let candidates = matched.into_iter().map(Candidate::new).collect();
    let candidates = read_deals(batch, candidates, &mut chosen).await?;
    let next = chosen.keep(batch.begin(candidates));
    // A target that cannot be used is found before anything is chosen or made for it.
    let known_for = batch.ctx.timings.pipelines_for;
    let candidates = match pipeline(batch, known_for, next, &mut chosen).await? {
        Some((_, candidates)) => candidates,
        None => Vec::new(),
    };
    let mut to_create = Vec::new();
    for mut row in candidates {
        match row.choose(batch) {
            Some(deal) => chosen.next.push(row.to(DealChoice::Existing(deal))),
            None => to_create.push(row),
        }
    }
    confirm_creates(batch, to_create, &mut chosen).await?;
    confirm_new_contacts(batch, missing, &mut chosen).await?;
    // A row without a choice is stored later, with the intent of its create.
    let has_choice = |row: &Chosen| row.attempt.progress.step != Step::Begun;
    if chosen.next.iter().any(has_choice) {
        batch.checkpoint(&chosen.next).await?;
    }
    Ok(chosen)
}

/// Reads deals by id, a hundred a request, for the rows that have unread ones.
async fn read_deals(
    batch: &Batch,
    rows: Vec<Candidate>,
    chosen: &mut StepResult<Chosen>,
) -> Result<Vec<Candidate>, InboxError> {
    let rows = chosen.keep(batch.begin(rows));
    let (wanted, mut read): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| !row.stage.unread.is_empty());
    if wanted.is_empty() {
        return Ok(read);
    }
    let asked_at = Instant::now();
    let unread = |row: &Candidate| row.stage.unread.clone();
    let asked = batch.read_deals(wanted, unread, &mut chosen.ended);
    let Some((wanted, found)) = asked.await? else {
        return Ok(read);
    };
    for mut row in wanted {
        let unread = std::mem::take(&mut row.stage.unread);
        row.stage
            .read
            .extend(unread.iter().filter_map(|id| found.get(id).cloned()));
        row.read_at = row.read_at.min(asked_at);
        read.push(row);
    }
    Ok(read)
}

/// The configured pipeline, read at most `age` ago, and the rows that asked for it. `None`: there are no rows, or their
/// attempts have ended because the pipeline could not be read or used.
pub(crate) async fn pipeline<T: InHand, U>(
    batch: &Batch,
    age: Duration,
    rows: Vec<T>,
    result: &mut StepResult<U>,
) -> Result<Option<(Pipeline, Vec<T>)>, InboxError> {
    if rows.is_empty() {
        return Ok(None);
    }
    match batch.ctx.pipeline(age).await {
        Ok(pipeline) => return Ok(Some((pipeline, rows))),
        Err(Failure::TargetUnusable) => {
            let now = batch.now();
            let again = |row: T| row.again_at(now, Fact::TargetUnusable);
            result.ended.extend(rows.into_iter().map(again));
        }
        Err(failure) => {
            let failed = batch.fail(None, rows, failure);
            result.ended.extend(failed.await?);
        }
    }
    Ok(None)
}

/// Before a create, the miss is confirmed in the main store: a person may have made a deal just now.
async fn confirm_creates(
    batch: &Batch,
    rows: Vec<Candidate>,
    chosen: &mut StepResult<Chosen>,
) -> Result<(), InboxError> {
    let half = batch.ctx.timings.fresh_for / 2;
    let rows = chosen.keep(batch.begin(rows));
    let (confirmed, rows): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| row.is_confirmed(half));
    let create = |row: Candidate| {
        let deal = row.new_deal();
        row.to(deal)
    };
    chosen.next.extend(confirmed.into_iter().map(create));
    if rows.is_empty() {
        return Ok(());
    }
    let ids = |row: &Candidate| row.stage.contacts.found.iter().map(|it| it.id).collect();
    let asked = batch.read_contacts(rows, ids, &mut chosen.ended);
    let Some((rows, fresh)) = asked.await? else {
        return Ok(());
    };
    let mut confirmed = Vec::new();
    for mut row in rows {
        let contacts = row.stage.contacts.found.iter();
        let still: Vec<_> = contacts
            .filter_map(|it| fresh.get(&it.id).cloned())
            .collect();
        if still.is_empty() {
            // amoCRM's search still finds a contact that is gone; the search has to catch up first.
            let ended = batch.retry(row, "контакт из поиска уже удалён");
            chosen.ended.push(ended);
            continue;
        }
        let mut known = row.deal_ids();
        if row.read_at.elapsed() > half {
            row.stage.read.clear();
            known.clear();
        }
        row.has_contacts(still, &known);
        confirmed.push(row);
    }
    // The requests so far may have taken as long as the rows stay fresh.
    let rows = chosen.keep(refresh(batch, confirmed).await?);
    let rows = read_deals(batch, rows, chosen).await?;
    for mut row in rows {
        let deal = row.choose(batch).map(DealChoice::Existing);
        let deal = deal.unwrap_or_else(|| row.new_deal());
        chosen.next.push(row.to(deal));
    }
    Ok(())
}

/// Before a contact is made with its deal, confirms that this person is not among the newest contacts, and that one
/// more search finds no contact.
async fn confirm_new_contacts(
    batch: &Batch,
    rows: Vec<Loaded>,
    chosen: &mut StepResult<Chosen>,
) -> Result<(), InboxError> {
    let rows = chosen.keep(batch.begin(rows));
    if rows.is_empty() {
        return Ok(());
    }
    let request = batch.amocrm.newest_contacts(1);
    let asked = batch.ask(Operation::ReadNewest, rows, request, &mut chosen.ended);
    let Some((rows, newest)) = asked.await? else {
        return Ok(());
    };
    // The search may not show a contact that is newer than `shown_until` yet. It shows an older one.
    let lag = batch.ctx.timings.look_overlap;
    let shown_until = batch.now().checked_sub(lag).unwrap_or(Timestamp::MIN);
    let contacts = newest.contacts.iter();
    let old = contacts.filter(|contact| contact.created_at < shown_until);
    let oldest = old.map(|it| it.id.get()).max();
    let is_new = |id: &i64| oldest.is_none_or(|oldest| *id > oldest);
    let may_hide_any = newest.unreadable.without_id || newest.unreadable.ids.iter().any(is_new);
    let highest = newest.contacts.iter().map(|contact| contact.id).max();
    let highest = highest.unwrap_or(ContactId::new(0));
    let query = |row: &Loaded| Query::Email(row.email.clone());
    let mut confirmed = Vec::new();
    for (row, found) in search(batch, rows, query, &mut chosen.ended).await? {
        let seen = newest.contacts.iter().cloned().chain(found.hits);
        if !with_email(&row.email, seen).is_empty() || !found.complete {
            chosen
                .ended
                .push(batch.retry(row, "контакт появился во время обработки"));
        } else if may_hide_any || !found.unreadable.is_none() {
            chosen.ended.push(batch.unreadable(row, UNREADABLE));
        } else {
            confirmed.push(row);
        }
    }
    // Searching for a whole batch may have taken as long as a row stays fresh.
    let next = chosen.keep(refresh(batch, confirmed).await?);
    let made_for = CreateFor::NewContact {
        after_contact: highest,
    };
    let create = |row: Loaded| row.to(DealChoice::New(made_for));
    chosen.next.extend(next.into_iter().map(create));
    Ok(())
}
