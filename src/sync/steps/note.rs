//! One note with the access data on each deal.

use amocrm::{Found, NewNote, Note};

use super::{
    super::{
        batch::{Batch, distinct},
        row::{InHand, Noted, Placed, StepResult},
        rules::note::{is_ours, note},
    },
    place::{begin_writes, items_by, send},
    rows::refresh,
};
use crate::{
    domain::{DealId, Operation, RowId},
    inbox::{self, Fact, InboxError},
};

/// Adds the note of each row, unless it is there.
pub(crate) async fn add(batch: &Batch, rows: Vec<Placed>) -> Result<StepResult<Noted>, InboxError> {
    let (mut noted, rows) = StepResult::after(batch.begin(rows));
    // A deal that is moved forward again after an undo kept its note.
    let (with, rows): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| row.attempt().progress.step.is_noted());
    for row in with {
        noted.push(with_note(batch, row));
    }
    let rows = find_earlier_notes(batch, rows, &mut noted).await?;
    // The way here may have taken as long as a row stays fresh.
    let rows = noted.keep(refresh(batch, rows).await?);
    let mut rows = noted.keep(batch.begin(rows));
    if rows.is_empty() {
        return Ok(noted);
    }

    let (resolve_after, begin_by) = begin_writes(batch, &rows);
    for row in &mut rows {
        row.attempt_mut().progress.step.begin_note(resolve_after);
    }
    batch.checkpoint(&rows).await?;

    let template = &batch.ctx.settings.note;
    let items = items_by(batch, begin_by, rows, |row| NewNote {
        deal: row.stage,
        text: note(template, &row.row),
    });
    let request = |notes: Vec<NewNote>, begin_by| {
        let amocrm = batch.amocrm.clone();
        async move { amocrm.add_notes(&notes, begin_by).await }
    };
    let made = send(batch, Operation::Note, items, request, &mut noted.ended);
    for (mut row, _) in made.await? {
        row.attempt_mut().log(Fact::Noted);
        noted.push(with_note(batch, row));
    }
    batch.keep(&noted.next).await?;
    Ok(noted)
}

/// A deal that needed no move may have been noted in an earlier life of ours, whose inbox is lost; one that an earlier
/// attempt moved or made, by another service that had the lease since then. Answers the rows without a note.
async fn find_earlier_notes(
    batch: &Batch,
    rows: Vec<Placed>,
    step: &mut StepResult<Noted>,
) -> Result<Vec<Placed>, InboxError> {
    let may_be_noted = |row: &Placed| {
        let attempt = row.attempt();
        attempt.progress.step.placed() == Some(inbox::Placed::Left)
            || attempt.entry.progress.step.has_written()
            || attempt.entry.progress.moved.is_some()
    };
    let (doubtful, mut without): (Vec<_>, Vec<_>) = rows.into_iter().partition(may_be_noted);
    if doubtful.is_empty() {
        return Ok(without);
    }
    let deals = distinct(doubtful.iter().map(|row| row.stage));
    let request = batch.amocrm.all_notes(&deals);
    let asked = batch.ask(Operation::ReadNotes, doubtful, request, &mut step.ended);
    let Some((doubtful, notes)) = asked.await? else {
        return Ok(without);
    };
    let mut found = StepResult::default();
    for mut row in doubtful {
        if has_our_note(&notes.items, row.stage, row.id()) {
            row.attempt_mut().log(Fact::NoteWasThere);
            found.push(with_note(batch, row));
        } else if let Some(what) = hidden_notes(&notes, row.stage) {
            step.ended.push(batch.unreadable(row, &what));
        } else {
            without.push(row);
        }
    }
    batch.keep(&found.next).await?;
    step.next.extend(found.next);
    step.ended.extend(found.ended);
    Ok(without)
}

/// The row once its note is there.
pub(crate) fn with_note(batch: &Batch, mut row: Placed) -> Result<Noted, super::super::row::Ended> {
    let step = &mut row.attempt.progress.step;
    step.note();
    match step.choice().cloned() {
        Some(choice) => Ok(row.to(choice)),
        // No placed row is without one.
        None => Err(row.again_at(batch.now(), Fact::BrokenOff)),
    }
}

/// The notes of the deal that could not be read, one of which may be ours.
pub(crate) fn hidden_notes(notes: &Found<Note>, deal: DealId) -> Option<String> {
    let may_be_hidden = notes.unreadable.may_be(deal.get());
    may_be_hidden.then(|| format!("примечание к сделке {deal}"))
}

pub(crate) fn has_our_note(notes: &[Note], deal: DealId, row: RowId) -> bool {
    let of_deal = notes.iter().filter(|note| note.deal == deal);
    of_deal.into_iter().any(|note| is_ours(&note.text, row))
}
