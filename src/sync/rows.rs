//! The rows: read before the first write, and again when they have grown old.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    failure::{Failure, Verdict},
    slice::{Members, Slice, at_once},
    triage::{Sight, Triage},
};
use crate::{
    domain::{Disposition, Operation, RowId},
    inbox::InboxError,
    supabase::{self, Row, Rows, Supabase, SupabaseError},
};

/// PostgREST answers these at once; more would only queue in its pool of ten.
const PARALLEL_ROW_READS: usize = 4;

impl Slice {
    pub(super) async fn read_rows(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |_| true);
        let mut chunks: Vec<Members> = mine
            .chunks(supabase::IDS_PER_READ)
            .map(<[usize]>::to_vec)
            .collect();
        let mut absent = Members::new();
        while !chunks.is_empty() {
            let mut reads = Vec::new();
            for chunk in std::mem::take(&mut chunks) {
                let supabase = self.ctx.supabase.clone();
                let ids: Vec<RowId> = chunk.iter().map(|&i| self.works[i].id()).collect();
                reads.push(async move { (chunk, Instant::now(), rows_of(&supabase, &ids).await) });
            }
            for (chunk, asked_at, answer) in at_once(PARALLEL_ROW_READS, reads).await {
                match answer {
                    Ok(read) => {
                        let mut by_id: HashMap<RowId, Row> =
                            read.rows.into_iter().map(|row| (row.id, row)).collect();
                        for i in chunk {
                            match by_id.remove(&self.works[i].id()) {
                                Some(row) => {
                                    let (id, begun) = (row.id, asked_at.into_std());
                                    self.see(i, row, read.read_at, asked_at);
                                    self.ctx.worked(Operation::Read, id, begun).await?;
                                }
                                None => absent.push(i),
                            }
                        }
                    }
                    // One row that is too large, or that a policy trips over, must not hide the others.
                    Err(error) if chunk.len() > 1 && self.is_of_one_row(&error).await => {
                        let (left, right) = chunk.split_at(chunk.len() / 2);
                        chunks.extend([left.to_vec(), right.to_vec()]);
                    }
                    Err(error) => {
                        let failure = Failure::from(error);
                        self.fail(Some(Operation::Read), &chunk, &failure).await?;
                    }
                }
            }
        }
        self.see_absent(&absent).await
    }

    /// Whether a read of several rows was refused for the sake of one of them: the columns can be asked for.
    async fn is_of_one_row(&self, error: &SupabaseError) -> bool {
        match error.disposition() {
            _ if matches!(error, SupabaseError::TooLarge) => true,
            Disposition::Refused => self.ctx.supabase.probe().await.is_ok(),
            Disposition::Retry { .. } | Disposition::Halt { .. } => false,
        }
    }

    /// Reads the rows of a slice again when they have grown old on the way to it.
    pub(super) async fn refresh_rows(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let half = self.ctx.tempo.fresh_for / 2;
        let old: Members = self
            .in_run(members)
            .filter(|&i| self.works[i].read_at.elapsed() > half)
            .collect();
        if old.is_empty() {
            Ok(())
        } else {
            self.read_rows(&old).await
        }
    }

    fn see(&mut self, i: usize, row: Row, read_at: Timestamp, asked_at: Instant) {
        let (ctx, now) = (Arc::clone(&self.ctx), self.now());
        let work = &mut self.works[i];
        let sight = Sight::Present { row: &row, read_at };
        match work.triage(&ctx, sight, now) {
            Triage::Proceed(email)
                if work.email.as_ref().is_some_and(|before| *before != email) =>
            {
                work.again_at(now, "the e-mail changed on the way");
            }
            Triage::Proceed(email) => {
                work.recognise(&ctx, &row, &email);
                work.email = Some(email);
                work.row = Some(row);
                work.read_at = asked_at;
            }
            Triage::End(settlement) => work.end(settlement),
            Triage::Unclear(reason) => self.apply(i, &Verdict::Retry { after: None }, reason),
        }
    }

    async fn see_absent(&mut self, absent: &[usize]) -> Result<(), InboxError> {
        if absent.is_empty() {
            return Ok(());
        }
        let others_visible = match self.ctx.supabase.can_see_any_row().await {
            Ok(visible) => visible,
            Err(error) => return self.fail(None, absent, &Failure::from(error)).await,
        };
        if !others_visible && self.ctx.see_why_no_row().await? {
            for &i in absent {
                self.apply(i, &Verdict::NotItsFault, "ни одна строка не видна");
            }
            return Ok(());
        }
        let now = self.now();
        for &i in absent {
            let ctx = Arc::clone(&self.ctx);
            let work = &mut self.works[i];
            let sight = Sight::Absent { others_visible };
            match work.triage(&ctx, sight, now) {
                Triage::End(settlement) => work.end(settlement),
                Triage::Unclear(reason) => self.apply(i, &Verdict::Retry { after: None }, reason),
                Triage::Proceed(_) => {}
            }
        }
        Ok(())
    }
}

impl Slice {
    /// Not one row of the table can be read, these among them.
    pub(super) async fn no_row_is_visible(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let verdict = if self.ctx.see_why_no_row().await? {
            Verdict::NotItsFault
        } else {
            Verdict::Retry { after: None }
        };
        for &i in members {
            self.apply(i, &verdict, "ни одна строка не видна: права или политика");
        }
        Ok(())
    }
}

/// PostgREST cuts an answer off without a word: a row is absent only when it was not among the missing that an answer
/// was all about.
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
