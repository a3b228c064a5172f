//! The rows in Supabase: read before the first write, and again when they have grown old.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use tokio::time::Instant;

use super::super::{
    batch::{Batch, at_once},
    failure::Verdict,
    row::{Attempt, Ended, InHand, Loaded, RowAt, StepResult, phone_of},
    rules::eligibility::{self, absent, eligibility},
};
use crate::{
    domain::{Disposition, Email, KeyedHash, Operation, RowId},
    inbox::{Fact, Hasher, InboxError, Progress, Settlement, Step},
    supabase::{self, Row, Rows, Supabase, SupabaseError},
};

/// PostgREST answers this many reads at once; more would only wait for its pool of ten connections.
const PARALLEL_ROW_READS: usize = 4;

/// A row as it was read.
#[derive(Debug)]
struct SeenRow {
    row: Row,
    /// By PostgREST's clock.
    read_at: Timestamp,
    asked_at: Instant,
}

/// Reads the rows of claimed entries, and ends those that are not to be synced, or not yet.
pub(crate) async fn load(
    batch: &Batch,
    claimed: Vec<Box<Attempt>>,
) -> Result<StepResult<Loaded>, InboxError> {
    read(batch, claimed, |mut attempt, read| {
        match see(batch, &mut attempt, &read) {
            Ok(email) => {
                recognise(batch, &mut attempt, &read.row, &email);
                Ok(Loaded {
                    attempt,
                    row: read.row,
                    email,
                    read_at: read.asked_at,
                    stage: (),
                })
            }
            Err(end) => Err(attempt.end(end)),
        }
    })
    .await
}

/// Reads rows again whose last read is too long ago.
pub(crate) async fn refresh<S: Send>(
    batch: &Batch,
    rows: Vec<RowAt<S>>,
) -> Result<StepResult<RowAt<S>>, InboxError> {
    let half = batch.ctx.timings.fresh_for / 2;
    let (old, fresh): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|row| row.read_at.elapsed() > half);
    let mut result = StepResult {
        next: fresh,
        ended: Vec::new(),
    };
    if old.is_empty() {
        return Ok(result);
    }
    let now = batch.now();
    let again = read(batch, old, |mut row, read| {
        match see(batch, &mut row.attempt, &read) {
            Ok(email) if email != row.email => Err(row.again_at(now, Fact::EmailChanged)),
            Ok(email) => {
                let before = row.attempt.progress.step.clone();
                recognise(batch, &mut row.attempt, &read.row, &email);
                row.row = read.row;
                row.read_at = read.asked_at;
                if row.attempt.progress.step != before {
                    return Err(row.end(Settlement::Again {
                        due_at: now,
                        failed: false,
                        reason: None,
                    }));
                }
                Ok(row)
            }
            Err(end) => Err(row.end(end)),
        }
    })
    .await?;
    result.next.extend(again.next);
    result.ended.extend(again.ended);
    Ok(result)
}

/// Ends these rows: no row of the table can be read.
pub(super) async fn none_is_visible<T: InHand>(
    batch: &Batch,
    rows: Vec<T>,
) -> Result<Vec<Ended>, InboxError> {
    let verdict = if batch.ctx.see_why_no_row().await? {
        Verdict::NotItsFault
    } else {
        Verdict::Retry { after: None }
    };
    let reason = "ни одна строка не видна: проверьте права и политику";
    let ended = rows.into_iter();
    Ok(ended
        .map(|row| batch.end_by(row, &verdict, reason))
        .collect())
}

/// Records which person the row is about. A choice made for another person is dropped if nothing can have been written yet.
fn recognise(batch: &Batch, attempt: &mut Attempt, row: &Row, email: &Email) {
    let hasher = batch.ctx.inbox.hasher();
    attempt.progress.person = Some(hasher.email(email));
    attempt.progress.phone = phone_of(row).map(|phone| hasher.phone(&phone));
    if let Step::Chosen(choice) = &attempt.progress.step
        && choice.fingerprint != fingerprint(hasher, &attempt.progress)
        && !attempt.progress.has_written()
    {
        attempt.log(Fact::PersonChanged);
        attempt.progress.step = Step::Begun;
    }
}

/// Changes when the row's e-mail or phone does.
pub(crate) fn fingerprint(hasher: &Hasher, progress: &Progress) -> KeyedHash {
    let hash = |hash: Option<KeyedHash>| hash.map(|hash| hash.to_string()).unwrap_or_default();
    let text = format!("{}/{}", hash(progress.person), hash(progress.phone));
    hasher.text("fingerprint", &text)
}

fn see(batch: &Batch, attempt: &mut Attempt, read: &SeenRow) -> Result<Email, Settlement> {
    let known = eligibility::Known {
        is_asked_for: attempt.entry.backfill.is_some(),
        stored_at: attempt.entry.stored_at,
    };
    let (rules, progress) = (&batch.ctx.maintenance.rows, &mut attempt.progress);
    let (row, read_at) = (&read.row, read.read_at);
    eligibility(rules, known, progress, row, read_at, batch.now())
}

/// Reads the rows, and passes each to `seen`. A row that is absent ends, or is looked for again.
async fn read<P: InHand, T>(
    batch: &Batch,
    rows: Vec<P>,
    seen: impl Fn(P, SeenRow) -> Result<T, Ended>,
) -> Result<StepResult<T>, InboxError> {
    let (mut result, rows) = StepResult::after(batch.begin(rows));
    let mut chunks = in_chunks(rows, supabase::IDS_PER_READ);
    let mut absent = Vec::new();
    while !chunks.is_empty() {
        let reads = std::mem::take(&mut chunks).into_iter().map(|chunk| {
            let supabase = batch.ctx.supabase.clone();
            let ids: Vec<RowId> = chunk.iter().map(InHand::id).collect();
            async move { (chunk, Instant::now(), rows_of(&supabase, &ids).await) }
        });
        for (mut chunk, asked_at, answer) in at_once(PARALLEL_ROW_READS, reads).await {
            match answer {
                Ok(read) => {
                    let rows = read.rows.into_iter();
                    let mut by_id: HashMap<RowId, Row> = rows.map(|row| (row.id, row)).collect();
                    for row in chunk {
                        let Some(found) = by_id.remove(&row.id()) else {
                            absent.push(row);
                            continue;
                        };
                        let (id, begun) = (found.id, asked_at.into_std());
                        let read = SeenRow {
                            row: found,
                            read_at: read.read_at,
                            asked_at,
                        };
                        result.push(seen(row, read));
                        batch.ctx.worked(Operation::Read, id, begun).await?;
                    }
                }
                // One row that is too large, or that makes a policy fail, must not hide the others.
                Err(error) if chunk.len() > 1 && is_of_one_row(batch, &error).await => {
                    let rest = chunk.split_off(chunk.len() / 2);
                    chunks.extend([chunk, rest]);
                }
                Err(error) => {
                    result
                        .ended
                        .extend(batch.fail(Operation::Read, chunk, error).await?);
                }
            }
        }
    }
    result.ended.extend(see_absent(batch, absent).await?);
    Ok(result)
}

/// Whether a read of several rows was refused because of one of them: a read of the columns alone works.
async fn is_of_one_row(batch: &Batch, error: &SupabaseError) -> bool {
    match error.disposition() {
        _ if matches!(error, SupabaseError::TooLarge) => true,
        Disposition::Refused => batch.ctx.supabase.probe().await.is_ok(),
        Disposition::Retry { .. } | Disposition::Halt { .. } => false,
    }
}

async fn see_absent<P: InHand>(batch: &Batch, rows: Vec<P>) -> Result<Vec<Ended>, InboxError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    match batch.ctx.supabase.can_see_any_row().await {
        Ok(true) => {}
        Ok(false) => return none_is_visible(batch, rows).await,
        Err(error) => return batch.fail(None, rows, error).await,
    }
    let (timings, now) = (&batch.ctx.timings, batch.now());
    let end = |mut row: P| {
        let settlement = absent(timings, &mut row.attempt_mut().progress, now);
        row.end(settlement)
    };
    Ok(rows.into_iter().map(end).collect())
}

/// Asks for the missing rows again until an answer has none of them, since PostgREST cuts answers off silently. Only
/// then are they absent.
async fn rows_of(supabase: &Supabase, ids: &[RowId]) -> Result<Rows, SupabaseError> {
    let mut read = supabase.rows(ids).await?;
    let mut missing = ids.to_vec();
    let mut found = read.rows.len();
    while found > 0 {
        let seen: HashSet<RowId> = read.rows.iter().map(|row| row.id).collect();
        missing.retain(|id| !seen.contains(id));
        if missing.is_empty() {
            break;
        }
        let more = supabase.rows(&missing).await?.rows;
        found = more.len();
        read.rows.extend(more);
    }
    Ok(read)
}

fn in_chunks<T>(rows: Vec<T>, size: usize) -> Vec<Vec<T>> {
    let mut rows = rows.into_iter().peekable();
    let mut chunks = Vec::new();
    while rows.peek().is_some() {
        chunks.push(rows.by_ref().take(size).collect());
    }
    chunks
}
