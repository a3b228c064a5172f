//! Work on one person is serial: the second row finds what the first has made.
//!
//! People are locked for a batch, not for the run, so that a person's other rows need not wait for rows of other
//! people.

use std::collections::HashSet;

use amocrm::Contact;

use super::super::{
    batch::Batch,
    locks::LockKey,
    row::{Ended, InHand, Matched, RowAt, StepResult},
    rules::timings::later,
};
use crate::inbox::{DailySearches, Fact, InboxError, OpenWork};

/// Locks the people of these rows. A row whose person is locked by another row comes again later.
pub(crate) async fn lock<T: InHand>(
    batch: &Batch,
    rows: Vec<T>,
) -> Result<StepResult<T>, InboxError> {
    let mut step = batch.begin(rows);
    if step.next.is_empty() {
        return Ok(step);
    }
    let mut rows = std::mem::take(&mut step.next);
    // A row that has begun goes before others of the same person.
    rows.sort_by_key(|row| !row.attempt().progress.is_open());

    let begun = begun_elsewhere(batch).await?;
    let begun: HashSet<_> = begun.iter().filter_map(|open| open.person).collect();

    let timings = &batch.ctx.timings;
    let soon = later(batch.now(), timings.person_busy);
    let later_on = later(batch.now(), timings.second_look / 4);
    for mut row in rows {
        let progress = &row.attempt().progress;
        let has_begun = progress.is_open();
        let contact = progress.step.contact();
        let person = progress.person;
        // A row that was read has a known person. An undo reads no row, and a damaged inbox may have lost its person.
        if person.is_none() && !progress.is_to_be_undone() {
            step.ended.push(row.again_at(soon, Fact::PersonUnknown));
            continue;
        }
        let keys = [person.map(LockKey::Person), contact.map(LockKey::Contact)];
        let mut keys = keys.into_iter().flatten();
        let result = if !has_begun && person.is_some_and(|person| begun.contains(&person)) {
            Err(row.again_at(later_on, Fact::PersonUnfinished))
        } else if !keys.all(|key| row.attempt_mut().lock(&batch.ctx.locks, key)) {
            Err(row.again_at(soon, Fact::PersonAtWork))
        } else {
            Ok(row)
        };
        step.push(result);
    }
    Ok(step)
}

/// Locks the contacts that were found for a row. If another row has locked one of them, the row comes again later.
pub(crate) fn lock_contacts<S: Send>(
    batch: &Batch,
    mut row: RowAt<S>,
    contacts: &[Contact],
) -> Result<RowAt<S>, Ended> {
    let attempt = &mut row.attempt;
    let mut contacts = contacts.iter();
    if contacts.all(|it| attempt.lock(&batch.ctx.locks, LockKey::Contact(it.id))) {
        attempt.progress.missed_since = None;
        attempt.progress.daily_searches = DailySearches::default();
        return Ok(row);
    }
    let timings = &batch.ctx.timings;
    // In a long run the other row keeps its lock while its whole batch is at work.
    let pause = if batch.is_long {
        timings.second_look / 4
    } else {
        timings.person_busy
    };
    let soon = later(batch.now(), pause);
    Err(row.again_at(soon, Fact::ContactAtWork))
}

/// Puts off rows whose contact has open work of an entry outside this batch. Looked at with the contacts locked, so that
/// no other row can begin on them afterwards.
pub(crate) async fn leave_begun_contacts(
    batch: &Batch,
    rows: Vec<Matched>,
) -> Result<StepResult<Matched>, InboxError> {
    let mut step = StepResult::default();
    if rows.is_empty() {
        return Ok(step);
    }
    let begun = begun_elsewhere(batch).await?;
    let begun: HashSet<_> = begun.iter().filter_map(|open| open.contact).collect();
    let later_on = later(batch.now(), batch.ctx.timings.second_look / 4);
    for row in rows {
        let has_begun = row.stage.found.iter().any(|it| begun.contains(&it.id));
        step.push(if has_begun {
            Err(row.again_at(later_on, Fact::ContactUnfinished))
        } else {
            Ok(row)
        });
    }
    Ok(step)
}

/// Open work of rows outside this batch. Other rows of the same claim are included, since a batch that an error has
/// broken off holds no locks.
async fn begun_elsewhere(batch: &Batch) -> Result<Vec<OpenWork>, InboxError> {
    let mut open = batch.ctx.inbox.open_work().await?;
    open.retain(|open| !batch.rows.contains(&open.row));
    Ok(open)
}
