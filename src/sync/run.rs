//! One run: entries that were claimed together, taken through the bulk steps side by side.
//!
//! read rows ─▶ (slices) find contacts ─▶ read deals ─▶ decide ─▶ move or create ─▶ note ─▶ write back ─▶ settle
//!
//! A run holds one entry when little happens and thousands on an import day; the steps are the same. Every step takes
//! the entries that are still in the run, and ends those that need not, or cannot, go on.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Context,
    deals::Plan,
    failure::{Failure, Verdict},
    people::Hold,
    triage::{self, Sight, Triage, later, triage},
};
use crate::{
    amocrm::{Contact, Deal},
    domain::{DealId, Email, RowId},
    inbox::{Claim, ClaimToken, Entry, InboxError, Known, Mark, Progress, Settled, Settlement},
    supabase::{self, Row, Rows, Supabase, SupabaseError},
};

/// Entries that go through contacts, deals and writes together, so that no read grows old before its write.
const SLICE: usize = 50;
/// PostgREST answers these at once; more would only queue in its pool of ten.
const PARALLEL_ROW_READS: usize = 4;

/// One entry on its way through the run.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) entry: Entry,
    pub(super) progress: Progress,
    pub(super) row: Option<Row>,
    pub(super) email: Option<Email>,
    /// The contacts that are this person.
    pub(super) contacts: Vec<Contact>,
    /// The deals read for them, or the chosen one alone.
    pub(super) deals: Vec<Deal>,
    /// What we used for this person before.
    pub(super) recorded: Option<Known>,
    pub(super) plan: Option<Plan>,
    /// When what the next write rests on was read.
    pub(super) read_at: Instant,
    /// Keeps others off this person and contact.
    pub(super) holds: Vec<Hold>,
    pub(super) story: Vec<String>,
    end: Option<Settlement>,
    is_settled: bool,
}

impl Work {
    fn new(entry: Entry) -> Self {
        Self {
            progress: entry.progress.clone(),
            entry,
            row: None,
            email: None,
            contacts: Vec::new(),
            deals: Vec::new(),
            recorded: None,
            plan: None,
            read_at: Instant::now(),
            holds: Vec::new(),
            story: Vec::new(),
            end: None,
            is_settled: false,
        }
    }

    pub(super) fn id(&self) -> RowId {
        self.entry.row
    }

    fn known_of_row(&self) -> triage::Known {
        triage::Known {
            lane: self.entry.lane,
            stored_at: self.entry.stored_at,
        }
    }

    /// The deal of this row, once there is one.
    pub(super) fn chosen(&self) -> Option<DealId> {
        self.progress.choice.as_ref()?.deal
    }

    pub(super) fn ending(&self) -> Option<&Settlement> {
        self.end.as_ref()
    }

    pub(super) fn in_run(&self) -> bool {
        self.end.is_none()
    }

    pub(super) fn end(&mut self, settlement: Settlement) {
        self.end.get_or_insert(settlement);
    }

    /// Back to pending without blame.
    pub(super) fn again_at(&mut self, due_at: Timestamp, why: &str) {
        self.story.push(why.to_owned());
        self.end(Settlement::Again {
            due_at,
            failed: false,
            reason: None,
        });
    }

    pub(super) fn park(&mut self, reason: impl Into<String>) {
        self.end(Settlement::Parked {
            reason: reason.into(),
        });
    }

    pub(super) fn tell(&mut self, line: impl Into<String>) {
        self.story.push(line.into());
    }

    fn event(&self) -> String {
        let end = match &self.end {
            Some(Settlement::Done(outcome)) => format!("done: {outcome:?}").to_lowercase(),
            Some(Settlement::Again {
                reason: Some(reason),
                ..
            }) => format!("again: {reason}"),
            Some(Settlement::Again { .. }) => "again".to_owned(),
            Some(Settlement::Waiting { reason, .. }) => format!("waiting: {reason}"),
            Some(Settlement::Parked { reason }) => format!("parked: {reason}"),
            None => "left".to_owned(),
        };
        self.story
            .iter()
            .map(String::as_str)
            .chain([end.as_str()])
            .collect::<Vec<_>>()
            .join("; ")
    }
}

pub(super) struct Run {
    pub(super) ctx: Arc<Context>,
    pub(super) token: ClaimToken,
    pub(super) works: Vec<Work>,
    pub(super) started: Instant,
}

/// Positions of entries in the run.
pub(super) type Members = Vec<usize>;

impl Run {
    pub(super) fn new(ctx: Arc<Context>, claim: Claim) -> Self {
        let works = claim.entries.into_iter().map(Work::new).collect();
        Self {
            ctx,
            token: claim.token,
            works,
            started: Instant::now(),
        }
    }

    /// Takes every entry to its end. An error leaves entries unsettled: [`Run::give_back`] returns them.
    pub(super) async fn go(&mut self) -> Result<(), InboxError> {
        let all: Members = (0..self.works.len()).collect();
        self.read_rows(&all).await?;
        self.settle().await?;

        let left: Members = self.in_run(&all).collect();
        for slice in left.chunks(SLICE) {
            self.hold_people(slice).await?;
            self.find_contacts(slice).await?;
            self.refresh_rows(slice).await?;
            self.read_deals(slice).await?;
            self.resolve_intents(slice).await?;
            self.decide(slice).await?;
            self.move_deals(slice).await?;
            self.create_deals(slice).await?;
            self.note(slice).await?;
            self.write_back(slice).await?;
            self.settle().await?;
        }
        Ok(())
    }

    /// Returns whatever is still claimed, with what is known of it by now.
    pub(super) async fn give_back(&mut self) -> Result<(), InboxError> {
        let soon = later(self.now(), self.ctx.tempo.retry_first);
        for work in self.works.iter_mut().filter(|work| work.in_run()) {
            work.again_at(soon, "run broken off");
        }
        self.settle().await
    }

    /// Another process holds this row now: whatever we know of it is void.
    pub(super) fn let_go(&mut self, row: RowId) {
        for work in self.works.iter_mut().filter(|work| work.id() == row) {
            work.is_settled = true;
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.ctx.clock.now()
    }

    pub(super) fn in_run<'s>(&'s self, members: &'s [usize]) -> impl Iterator<Item = usize> + 's {
        members.iter().copied().filter(|&i| self.works[i].in_run())
    }

    /// The entries of a step that is about to begin: none once sending has been stopped.
    pub(super) fn beginning(
        &mut self,
        members: &[usize],
        wanted: impl Fn(&Work) -> bool,
    ) -> Members {
        let mine: Members = self
            .in_run(members)
            .filter(|&i| wanted(&self.works[i]))
            .collect();
        if self.ctx.gate.closed().is_none() {
            return mine;
        }
        let now = self.now();
        for &i in &mine {
            self.works[i].again_at(now, "sending stopped");
        }
        Vec::new()
    }

    /// Ends entries whose request failed, as the client that saw the error says. Only a request about one entry alone
    /// can tell that this entry will never work.
    pub(super) async fn fail(
        &mut self,
        members: &[usize],
        failure: &Failure,
    ) -> Result<(), InboxError> {
        let verdict = match self.ctx.judge(failure, None).await? {
            Verdict::Park if members.len() > 1 => Verdict::Retry { after: None },
            verdict => verdict,
        };
        let reason = failure.reason();
        for &i in members {
            self.apply(i, &verdict, &reason);
        }
        Ok(())
    }

    pub(super) fn apply(&mut self, i: usize, verdict: &Verdict, reason: &str) {
        let now = self.now();
        let ctx = Arc::clone(&self.ctx);
        let work = &mut self.works[i];
        match verdict {
            Verdict::NotItsFault => work.again_at(later(now, ctx.tempo.person_busy), reason),
            Verdict::Park => work.park(reason),
            Verdict::Retry { after } => {
                let age = ctx
                    .inbox
                    .working_clock()
                    .saturating_sub(work.entry.opened_at_work);
                // A write whose fate is open is looked for first.
                if age > ctx.tempo.park_after && work.progress.intent.is_none() {
                    work.park(format!("не удаётся слишком долго: {reason}"));
                } else {
                    let pause = ctx
                        .tempo
                        .backoff(work.entry.attempts, *after, (ctx.jitter)());
                    work.end(Settlement::Again {
                        due_at: later(now, pause),
                        failed: true,
                        reason: Some(reason.to_owned()),
                    });
                }
            }
        }
    }

    // ---- rows ----

    async fn read_rows(&mut self, members: &[usize]) -> Result<(), InboxError> {
        let mine = self.beginning(members, |_| true);
        let mut reads = Vec::new();
        for chunk in mine.chunks(supabase::IDS_PER_READ) {
            let chunk = chunk.to_vec();
            let supabase = self.ctx.supabase.clone();
            let ids: Vec<RowId> = chunk.iter().map(|&i| self.works[i].id()).collect();
            reads.push(async move { (chunk, Instant::now(), rows_of(&supabase, &ids).await) });
        }
        let answers = at_once(PARALLEL_ROW_READS, reads).await;

        let mut absent = Members::new();
        for (chunk, asked_at, answer) in answers {
            match answer {
                Ok(read) => {
                    let mut by_id: HashMap<RowId, Row> =
                        read.rows.into_iter().map(|row| (row.id, row)).collect();
                    for i in chunk {
                        match by_id.remove(&self.works[i].id()) {
                            Some(row) => self.see(i, row, read.read_at, asked_at),
                            None => absent.push(i),
                        }
                    }
                }
                Err(error) => self.fail(&chunk, &Failure::from(error)).await?,
            }
        }
        self.see_absent(&absent).await
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
        match triage(
            &ctx.settings.rows,
            &ctx.tempo,
            work.known_of_row(),
            &mut work.progress,
            sight,
            now,
        ) {
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
            Err(error) => return self.fail(absent, &Failure::from(error)).await,
        };
        let now = self.now();
        for &i in absent {
            let ctx = Arc::clone(&self.ctx);
            let work = &mut self.works[i];
            let sight = Sight::Absent { others_visible };
            match triage(
                &ctx.settings.rows,
                &ctx.tempo,
                work.known_of_row(),
                &mut work.progress,
                sight,
                now,
            ) {
                Triage::End(settlement) => work.end(settlement),
                Triage::Unclear(reason) => self.apply(i, &Verdict::Retry { after: None }, reason),
                Triage::Proceed(_) => {}
            }
        }
        Ok(())
    }

    // ---- storing ----

    /// Stores progress before the run goes on.
    pub(super) async fn checkpoint(&self, members: &[usize]) -> Result<(), InboxError> {
        if members.is_empty() {
            return Ok(());
        }
        let marks = members
            .iter()
            .map(|&i| {
                let work = &self.works[i];
                Mark {
                    row: work.id(),
                    progress: work.progress.clone(),
                    person: work.known(),
                }
            })
            .collect();
        self.ctx.inbox.checkpoint(self.token, marks).await
    }

    /// Stores the ends reached so far, and lets go of their people.
    async fn settle(&mut self) -> Result<(), InboxError> {
        let ended: Members = (0..self.works.len())
            .filter(|&i| self.works[i].end.is_some() && !self.works[i].is_settled)
            .collect();
        if ended.is_empty() {
            return Ok(());
        }
        let ends = ended
            .iter()
            .filter_map(|&i| {
                let work = &self.works[i];
                Some(Settled {
                    row: work.id(),
                    progress: work.progress.clone(),
                    settlement: work.end.clone()?,
                    event: work.event(),
                })
            })
            .collect();
        self.ctx.inbox.settle(self.token, ends).await?;
        let count = u64::try_from(ended.len()).unwrap_or(u64::MAX);
        for i in ended {
            self.works[i].is_settled = true;
            self.works[i].holds.clear();
            self.report(i);
        }
        self.ctx
            .settled
            .send_modify(|settled| *settled = settled.wrapping_add(count));
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

/// Awaits all, at most `limit` of them at a time.
pub(super) async fn at_once<F: Future>(limit: usize, futures: Vec<F>) -> Vec<F::Output> {
    stream::iter(futures)
        .buffer_unordered(limit)
        .collect()
        .await
}

/// Distinct values, in order of appearance.
pub(super) fn distinct<T: Copy + Eq + std::hash::Hash>(
    values: impl IntoIterator<Item = T>,
) -> Vec<T> {
    let mut seen = HashSet::new();
    values
        .into_iter()
        .filter(|value| seen.insert(*value))
        .collect()
}
