//! The deal is brought to its place: moved, or made there. Each step is stored when it is done.

use std::time::Duration;

use amocrm::{AmoError, Deal, NewDeal, NewDealAndContact, Pipeline};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    super::{
        batch::Batch,
        bulk::{self, Failed, Item},
        failure::Failure,
        row::{Chosen, DealChoice, Ended, InHand, Placed, RowAt, StepResult},
        rules::deal::{Placement, placement, stage_is_unknown},
        rules::note::{contact_name, deal_name},
        rules::timings::later,
    },
    deals::pipeline,
    rows::fingerprint,
};
use crate::{
    domain::{ContactId, DealId, Operation, Price},
    inbox::{self, Create, CreateFor, Fact, InboxError, Move, Step},
};

/// Moves the deals that are there, and makes the others.
pub(crate) async fn move_or_create(
    batch: &Batch,
    rows: Vec<Chosen>,
) -> Result<StepResult<Placed>, InboxError> {
    let (mut placed, rows) = StepResult::after(batch.begin(rows));
    let (mut existing, mut new) = (Vec::new(), Vec::new());
    for row in rows {
        let (row, choice) = row.apart();
        match choice {
            DealChoice::Existing(deal) => existing.push(row.to(deal)),
            DealChoice::New(made_for) => new.push(row.to(made_for)),
        }
    }
    let is_in_doubt = move_deals(batch, existing, &mut placed).await?;
    batch.keep(&placed.next).await?;
    if is_in_doubt {
        // Rows go one at a time from here on.
        let moved = std::mem::take(&mut placed.next);
        placed.next = placed.keep(batch.stay_back(moved));
        new = placed.keep(batch.stay_back(new));
    }
    let moved = std::mem::take(&mut placed.next);
    let new = placed.keep(batch.begin(new));
    create_deals(batch, new, &mut placed).await?;
    batch.keep(&placed.next).await?;
    placed.next.extend(moved);
    Ok(placed)
}

// ---- move ----

/// A row whose deal is there.
type ToMove = RowAt<Deal>;

impl ToMove {
    fn placed(mut self, how: inbox::Placed) -> Placed {
        let progress = &mut self.attempt.progress;
        progress.step.place(how);
        progress.undo = None;
        self.map(|deal| deal.id)
    }

    fn left(mut self) -> Placed {
        self.attempt.progress.moved = None;
        self.placed(inbox::Placed::Left)
    }

    fn moved(mut self) -> Placed {
        let moved = self.attempt.progress.moved;
        self.attempt.log(
            moved.map_or(Fact::Moved, |Move { from, to, .. }| Fact::MovedFrom {
                from,
                to,
            }),
        );
        self.placed(inbox::Placed::Moved)
    }

    /// From now on the deal may have left its stage.
    fn intend(&mut self, batch: &Batch) {
        let target = batch.ctx.settings.rules.target;
        self.attempt.progress.moved = Some(Move {
            deal: self.stage.id,
            pipeline: target.pipeline,
            from: self.stage.stage,
            to: target.stage,
            at: batch.now(),
        });
    }

    /// The move of this attempt was certainly not carried out. An earlier attempt's move of the deal may have been.
    fn not_moved(&mut self) {
        let attempt = &mut self.attempt;
        let before = attempt.entry.progress.moved;
        attempt.progress.moved = before.filter(|it| it.deal == self.stage.id);
    }

    /// The deal stands where an earlier request of this entry, whose answer was lost, was to move it.
    fn has_arrived(&self) -> bool {
        let moved = self.attempt.progress.moved;
        moved.is_some_and(|it| it.deal == self.stage.id && it.to == self.stage.stage)
    }
}

/// Answers whether a move that went alone has failed: what follows stays back while an operation is in doubt.
async fn move_deals(
    batch: &Batch,
    rows: Vec<ToMove>,
    placed: &mut StepResult<Placed>,
) -> Result<bool, InboxError> {
    let Some((pipeline, rows)) = know_the_stages(batch, rows, placed).await? else {
        return Ok(false);
    };
    let mut is_in_doubt = false;
    let mut to_move = not_in_place(batch, &pipeline, rows, placed);
    begin_writes(batch, &to_move);
    for row in &mut to_move {
        row.intend(batch);
    }
    batch.checkpoint(&to_move).await?;
    let target = batch.ctx.settings.rules.target;
    let begun = Instant::now();
    let latest = begun + batch.ctx.timings.fresh_for;
    let items = items_by(batch, latest, to_move, |row| row.stage.id);
    let request = |deals: Vec<DealId>, begin_by| {
        let amocrm = batch.amocrm.clone();
        async move { amocrm.move_deals(&deals, target, begin_by).await }
    };
    for sent in bulk::write(&batch.ctx.batch_size, Operation::Move, items, request).await {
        match sent {
            Ok(answers) => {
                for (row, answer) in answers {
                    moved(batch, row, answer, begun.into_std(), placed).await?;
                }
            }
            Err(Failed {
                rows,
                error: error @ AmoError::Rejected { .. },
                may_have_landed,
            }) if rows.len() > 1 => {
                if error.is_about_stage() && target_is_gone(batch).await? {
                    let soon = later(batch.now(), batch.ctx.timings.person_busy);
                    let again = |row: ToMove| row.again_at(soon, Fact::TargetUnusable);
                    placed.ended.extend(rows.into_iter().map(again));
                } else {
                    let rows = if is_in_doubt {
                        placed.keep(batch.stay_back(rows))
                    } else {
                        rows
                    };
                    let moved = move_one_by_one(batch, rows, may_have_landed, &pipeline, placed);
                    is_in_doubt |= moved.await?;
                }
            }
            Err(failed) => placed.ended.extend(move_failed(batch, failed).await?),
        }
    }
    Ok(is_in_doubt)
}

/// A move that was certainly not carried out leaves nothing to be recognised later.
async fn move_failed(batch: &Batch, failed: Failed<ToMove>) -> Result<Vec<Ended>, InboxError> {
    let Failed {
        mut rows,
        error,
        may_have_landed,
    } = failed;
    let is_rejected = matches!(error, AmoError::Rejected { .. });
    let is_certain = error.was_not_applied() || (is_rejected && rows.len() == 1);
    if is_certain && !may_have_landed {
        rows.iter_mut().for_each(ToMove::not_moved);
    }
    batch.fail(Operation::Move, rows, error).await
}

/// The configured pipeline, read again when a deal stands on a stage that we have never seen.
async fn know_the_stages(
    batch: &Batch,
    rows: Vec<ToMove>,
    placed: &mut StepResult<Placed>,
) -> Result<Option<(Pipeline, Vec<ToMove>)>, InboxError> {
    let known_for = batch.ctx.timings.pipelines_for;
    let Some((known, rows)) = pipeline(batch, known_for, rows, placed).await? else {
        return Ok(None);
    };
    if rows.iter().any(|row| stage_is_unknown(&known, &row.stage)) {
        return pipeline(batch, Duration::ZERO, rows, placed).await;
    }
    Ok(Some((known, rows)))
}

/// The rows whose deal has to be moved; the others are in their place.
fn not_in_place(
    batch: &Batch,
    pipeline: &Pipeline,
    rows: Vec<ToMove>,
    placed: &mut StepResult<Placed>,
) -> Vec<ToMove> {
    let target = batch.ctx.settings.rules.target;
    let mut to_move = Vec::new();
    for row in rows {
        if !pipeline.is_whole && stage_is_unknown(pipeline, &row.stage) {
            // The pipeline was answered, and not this stage of it.
            let what = format!("этап {}", row.stage.stage);
            placed.ended.push(batch.unreadable(row, &what));
        } else if placement(target, pipeline, &row.stage) == Placement::Leave {
            placed.next.push(if row.has_arrived() {
                row.moved()
            } else {
                row.left()
            });
        } else {
            to_move.push(row);
        }
    }
    to_move
}

/// Whether pipeline and stage, read again, are not the account's any more; then sending has stopped.
async fn target_is_gone(batch: &Batch) -> Result<bool, InboxError> {
    match batch.ctx.pipeline(Duration::ZERO).await {
        Err(Failure::Inbox(error)) => Err(error),
        answer => Ok(matches!(answer, Err(Failure::TargetUnusable))),
    }
}

async fn moved(
    batch: &Batch,
    row: ToMove,
    answer: Option<DealId>,
    begun: std::time::Instant,
    placed: &mut StepResult<Placed>,
) -> Result<(), InboxError> {
    if answer.is_none() {
        // Absolute values: the next attempt reads where the deal stands, and moves it again if need be.
        let reason = "amoCRM не подтвердила перенос сделки";
        placed.ended.push(batch.retry(row, reason));
        return Ok(());
    }
    let id = row.id();
    placed.next.push(row.moved());
    batch.ctx.worked(Operation::Move, id, begun).await
}

/// After a rejected bulk move: each deal is looked at again, and moved alone if it still needs it. Answers whether one failed.
async fn move_one_by_one(
    batch: &Batch,
    rows: Vec<ToMove>,
    may_have_landed: bool,
    pipeline: &Pipeline,
    placed: &mut StepResult<Placed>,
) -> Result<bool, InboxError> {
    let target = batch.ctx.settings.rules.target;
    let looked_at = Instant::now();
    let deal = |row: &ToMove| vec![row.stage.id];
    let asked = batch.read_deals(rows, deal, &mut placed.ended);
    let Some((mut rows, standing)) = asked.await? else {
        return Ok(false);
    };
    let mut has_failed = false;
    rows.reverse();
    while let Some(mut row) = rows.pop() {
        let id = row.stage.id;
        let deal = standing.get(&id);
        let Some(deal) = deal.filter(|deal| deal.pipeline == target.pipeline) else {
            let reason = "сделка исчезла перед переносом";
            placed.ended.push(batch.retry(row, reason));
            continue;
        };
        if deal.stage == target.stage {
            // The bulk move, or a person, has moved it.
            placed.next.push(row.moved());
            continue;
        }
        row.stage = deal.clone();
        let mut to_move = not_in_place(batch, pipeline, vec![row], placed);
        let Some(mut row) = to_move.pop() else {
            continue;
        };
        begin_writes(batch, std::slice::from_ref(&row));
        row.intend(batch);
        batch.checkpoint(std::slice::from_ref(&row)).await?;
        let mut next = placed.keep(batch.begin(vec![row]));
        let Some(mut row) = next.pop() else { continue };
        row.read_at = looked_at;
        let begin_by = looked_at + batch.ctx.timings.fresh_for;
        let begun = Instant::now().into_std();
        match batch.amocrm.move_deals(&[id], target, begin_by).await {
            Ok(answer) => {
                let answer = answer.first().copied().flatten();
                moved(batch, row, answer, begun, placed).await?;
            }
            Err(error) => {
                let failed = Failed {
                    rows: vec![row],
                    error,
                    may_have_landed,
                };
                placed.ended.extend(move_failed(batch, failed).await?);
                rows = placed.keep(batch.stay_back(rows));
                has_failed = true;
            }
        }
    }
    Ok(has_failed)
}

// ---- create ----

async fn create_deals(
    batch: &Batch,
    rows: Vec<ToCreate>,
    placed: &mut StepResult<Placed>,
) -> Result<(), InboxError> {
    if rows.is_empty() {
        return Ok(());
    }
    let (resolve_after, begin_by) = begin_writes(batch, &rows);
    let mut rows = rows;
    for row in &mut rows {
        row.intend(batch, resolve_after);
    }
    batch.checkpoint(&rows).await?;

    let target = batch.ctx.settings.rules.target;
    let (mut for_contacts, mut with_contacts) = (Vec::new(), Vec::new());
    for row in rows {
        match row.stage {
            CreateFor::Contact { contact, .. } => for_contacts.push(row.to(contact)),
            CreateFor::NewContact { .. } => with_contacts.push(row),
        }
    }

    let items = items_by(batch, begin_by, for_contacts, new_deal);
    let request = |deals: Vec<NewDeal>, begin_by| {
        let amocrm = batch.amocrm.clone();
        async move { amocrm.create_deals(&deals, target, begin_by).await }
    };
    let made = send(batch, Operation::Create, items, request, &mut placed.ended);
    let made = made.await?.into_iter();
    let made = made.map(|(row, deal)| created(row, deal, None));
    placed.next.extend(made);

    let items = items_by(batch, begin_by, with_contacts, deal_and_contact);
    let request = |deals: Vec<NewDealAndContact>, begin_by| {
        let amocrm = batch.amocrm.clone();
        async move {
            amocrm
                .create_deals_and_contacts(&deals, target, begin_by)
                .await
        }
    };
    let operation = Operation::CreateWithContact;
    let made = send(batch, operation, items, request, &mut placed.ended).await?;
    let made = made.into_iter();
    let made = made.map(|(row, (deal, contact))| created(row, deal, Some(contact)));
    placed.next.extend(made);
    Ok(())
}

/// A row whose deal is to be made.
type ToCreate = RowAt<CreateFor>;

impl ToCreate {
    /// From now on the deal may exist.
    fn intend(&mut self, batch: &Batch, resolve_after: Timestamp) {
        let progress = &mut self.attempt.progress;
        progress.step = Step::Creating(Create {
            fingerprint: fingerprint(batch.ctx.inbox.hasher(), progress),
            made_for: self.stage,
            name: batch.ctx.name_hash(&deal_name(&self.row)),
            resolve_after,
        });
    }
}

/// `contact`: if it was made with the deal.
fn created<S: Send>(mut row: RowAt<S>, deal: DealId, contact: Option<ContactId>) -> Placed {
    row.attempt.log(Fact::DealCreated(deal));
    let step = &mut row.attempt.progress.step;
    if let Step::Creating(create) = step {
        *step = create.made(deal, contact);
    }
    row.to(deal)
}

fn new_deal(row: &RowAt<ContactId>) -> NewDeal {
    let (contact, row) = (row.stage, &row.row);
    NewDeal {
        name: deal_name(row),
        price: row.price.as_ref().and_then(Price::whole),
        contact,
    }
}

fn deal_and_contact(row: &ToCreate) -> NewDealAndContact {
    let (email, row) = (row.email.clone(), &row.row);
    NewDealAndContact {
        deal_name: deal_name(row),
        price: row.price.as_ref().and_then(Price::whole),
        contact_name: contact_name(row),
        email,
        phone: row.phone.clone().filter(|phone| !phone.trim().is_empty()),
    }
}

// ---- what the writes share ----

/// Answers from when on an empty look will prove that a write never happened, and until when it may begin.
pub(crate) fn begin_writes<T: InHand>(batch: &Batch, rows: &[T]) -> (Timestamp, Instant) {
    let (timings, now) = (&batch.ctx.timings, Instant::now());
    let after = timings.resolve_delay();
    let ids = rows.iter().map(InHand::id);
    batch.ctx.in_flight.begin(ids, now + after);
    (later(batch.now(), after), now + timings.begin_within)
}

/// Sends creates or notes. Returns the rows with what was made for each; the others have ended.
pub(crate) async fn send<T: InHand, B: Clone, M, F>(
    batch: &Batch,
    operation: Operation,
    items: Vec<Item<T, B>>,
    request: impl Fn(Vec<B>, Instant) -> F,
    ended: &mut Vec<Ended>,
) -> Result<Vec<(T, M)>, InboxError>
where
    F: Future<Output = Result<Vec<Option<M>>, AmoError>>,
{
    let begun = Instant::now().into_std();
    let mut made = Vec::new();
    for sent in bulk::write(&batch.ctx.batch_size, operation, items, request).await {
        let answers = match sent {
            Ok(answers) => answers,
            Err(Failed { rows, error, .. }) => {
                ended.extend(write_failed(batch, operation, rows, error).await?);
                continue;
            }
        };
        for (row, answer) in answers {
            let Some(answer) = answer else {
                let reason = format!("amoCRM не подтвердила {}", operation.in_russian());
                ended.push(batch.retry(row, &reason));
                continue;
            };
            batch.ctx.worked(operation, row.id(), begun).await?;
            made.push((row, answer));
        }
    }
    Ok(made)
}

/// A create or a note that failed: what is certain closes the intent, what is not leaves it to be looked for.
pub(crate) async fn write_failed<T: InHand>(
    batch: &Batch,
    operation: Operation,
    mut rows: Vec<T>,
    error: AmoError,
) -> Result<Vec<Ended>, InboxError> {
    let now = batch.now();
    let is_rejected = matches!(error, AmoError::Rejected { .. });
    let is_not_applied = error.was_not_applied() || (is_rejected && rows.len() == 1);
    for row in &mut rows {
        let id = row.id();
        let progress = &mut row.attempt_mut().progress;
        if is_not_applied {
            progress.step.forget_write();
        } else if is_rejected {
            // Some of the batch may have been carried out, but nothing more can land: look at once, then go alone.
            progress.alone = true;
            progress.step.set_resolve_after(now);
            batch.ctx.in_flight.end(id);
        }
    }
    batch.fail(operation, rows, error).await
}

/// The rows with what is to be sent for each, until then.
pub(crate) fn items_by<S: Send, B>(
    batch: &Batch,
    latest: Instant,
    rows: Vec<RowAt<S>>,
    body: impl Fn(&RowAt<S>) -> B,
) -> Vec<Item<RowAt<S>, B>> {
    let fresh_for = batch.ctx.timings.fresh_for;
    let item = |row: RowAt<S>| Item {
        body: body(&row),
        // What it rests on is read again first when it is older.
        begin_by: latest.min(row.read_at + fresh_for),
        goes_alone: row.attempt.progress.alone,
        row,
    };
    rows.into_iter().map(item).collect()
}
