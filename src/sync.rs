//! The engine: claims due entries and syncs their rows in runs, unless sending is blocked.

use std::{sync::Arc, time::Duration};

use amocrm::{AmoCrm, AmoError, Pipeline};
use jiff::Timestamp;
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

mod batch;
mod bulk;
mod contacts;
mod doubts;
mod engine;
mod failure;
mod hold;
mod in_flight;
mod late_creates;
pub mod lease;
mod locks;
pub mod pause;
mod periodic;
mod report;
mod row;
pub mod rules;
mod run;
pub mod sending;
mod steps;
mod sweep;
mod waiting;

pub(crate) use self::failure::{Chain, amocrm_reason, supabase_reason};
use self::{
    batch::Batch,
    bulk::BatchSize,
    contacts::index::ContactIndex,
    doubts::Doubts,
    failure::Failure,
    in_flight::InFlight,
    lease::Lease,
    locks::PersonLocks,
    row::Loaded,
    rules::deal::{Rules, target_problem},
    rules::eligibility::RowRules,
    rules::timings::{INBOX_TROUBLE, Timings},
    run::{ASKING_BATCHES, Turn},
    sending::Sending,
    steps::{deals, note as notes, people, place, recover, write_back},
};
pub use self::{engine::Engine, hold::Hold, sweep::Walk};
use crate::{
    domain::{
        Disposition, HaltCause, Heartbeat, KeyedHash, MissingContact, NoteTemplate, SharedClock,
        SyncState,
    },
    inbox::{Inbox, InboxError, Step},
    supabase::Supabase,
};

/// Settings of the rows and the inbox. They apply also while nothing is sent.
#[derive(Debug, Clone)]
pub struct Maintenance {
    pub rows: RowRules,
    /// `None` = no sweeps.
    pub sweep_every: Option<Duration>,
    /// Sweep after another service has held the lease, even if `sweep_every` is `None`.
    pub sweep_after_another: bool,
    /// Done entries older than this are removed.
    pub retention: Duration,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub rules: Rules,
    pub missing_contact: MissingContact,
    pub note: NoteTemplate,
    /// Items in one bulk write.
    pub batch_size: usize,
    /// Whether an index of the account's contacts may be kept.
    pub contact_scan: bool,
    /// How often token, pipeline and stage are checked, whether or not a row needs them; `None` = only when one does.
    pub inspect_every: Option<Duration>,
    /// For each neighbour, all settings that a halt over it may be about. Used only as hashes.
    pub amocrm_fingerprint: SecretString,
    pub supabase_fingerprint: SecretString,
}

/// A number from 0 to 1, which spreads retries over time.
pub type Jitter = fn() -> f64;

/// Everything that a run needs.
#[derive(Debug)]
pub(crate) struct Context {
    inbox: Inbox,
    amocrm: AmoCrm,
    supabase: Supabase,
    clock: SharedClock,
    maintenance: Maintenance,
    settings: Settings,
    timings: Timings,
    jitter: Jitter,
    sweep_now: Arc<Notify>,
    heartbeat: Heartbeat,
    sending: Sending,
    doubts: Doubts,
    lease: Lease,
    locks: PersonLocks,
    in_flight: InFlight,
    index: ContactIndex,
    /// Permits of batches of long runs to ask amoCRM.
    turns: Arc<Semaphore>,
    write_backs: Arc<Semaphore>,
    batch_size: BatchSize,
    settled: watch::Sender<u64>,
    /// When the last short sweep was answered, by PostgREST's clock.
    swept_until: Mutex<Option<Timestamp>>,
    /// The configured pipeline as last read, and when it was asked for.
    pipeline: Mutex<Option<(Instant, Pipeline)>>,
}

/// What the engine is made of.
#[derive(Debug)]
pub struct Parts {
    pub inbox: Inbox,
    pub amocrm: AmoCrm,
    pub supabase: Supabase,
    pub clock: SharedClock,
    pub maintenance: Maintenance,
    pub settings: Settings,
    pub timings: Timings,
    pub jitter: Jitter,
    /// The permit of `amocrm`.
    pub lease: Lease,
    pub stop: CancellationToken,
    /// A person wants a sweep at once.
    pub sweep_now: Arc<Notify>,
    /// Beats in each turn of the engine, at least every quarter of a minute.
    pub heartbeat: Heartbeat,
    pub state: watch::Sender<SyncState>,
    /// Counts settled attempts.
    pub settled: watch::Sender<u64>,
}

impl Context {
    fn new(parts: Parts) -> Self {
        let sending = Sending::new(
            parts.inbox.clone(),
            parts.clock.clone(),
            parts.timings,
            parts.lease.clone(),
            parts.stop,
            parts.state,
        );
        Self {
            sending,
            doubts: Doubts::new(parts.inbox.clone()),
            batch_size: BatchSize::new(parts.settings.batch_size),
            inbox: parts.inbox,
            amocrm: parts.amocrm,
            supabase: parts.supabase,
            clock: parts.clock,
            maintenance: parts.maintenance,
            settings: parts.settings,
            timings: parts.timings,
            jitter: parts.jitter,
            sweep_now: parts.sweep_now,
            heartbeat: parts.heartbeat,
            lease: parts.lease,
            settled: parts.settled,
            locks: PersonLocks::default(),
            in_flight: InFlight::default(),
            index: ContactIndex::default(),
            turns: Arc::new(Semaphore::new(ASKING_BATCHES)),
            write_backs: Arc::new(Semaphore::new(write_back::PARALLEL_WRITE_BACKS)),
            swept_until: Mutex::default(),
            pipeline: Mutex::default(),
        }
    }

    /// The configured pipeline, read at most `age` ago.
    async fn pipeline(&self, age: Duration) -> Result<Pipeline, Failure> {
        let asked_at = Instant::now();
        if let Some((known_at, pipeline)) = &*self.pipeline.lock()
            && *known_at + age > asked_at
        {
            return Ok(pipeline.clone());
        }
        let pipelines = match self.amocrm.pipelines().await {
            Ok(pipelines) => pipelines,
            Err(error) => {
                let failure = Failure::from(error);
                self.pipelines_failed(&failure).await?;
                return Err(failure);
            }
        };
        let target = self.settings.rules.target;
        let is_whole =
            pipelines.unreadable.is_none() && pipelines.items.iter().all(|it| it.is_whole);
        let pipelines = pipelines.items;
        self.keep_names(&pipelines).await?;
        let problem = target_problem(&pipelines, target);
        if problem.is_some() && !is_whole {
            // The part that could not be read may be the target stage.
            let what = "a pipeline that cannot be read";
            let failure = Failure::from(AmoError::Malformed { what });
            self.pipelines_failed(&failure).await?;
            return Err(failure);
        }
        let usable = pipelines
            .into_iter()
            .find(|pipeline| pipeline.id == target.pipeline && problem.is_none());
        {
            let mut known = self.pipeline.lock();
            if let Some((known_at, newer)) = &*known
                && *known_at > asked_at
            {
                return Ok(newer.clone());
            }
            *known = usable.clone().map(|pipeline| (asked_at, pipeline));
        }
        if usable.is_none() {
            self.sending
                .record_failure(HaltCause::AmocrmStage, 1, problem.unwrap_or_default())
                .await?;
        }
        usable.ok_or(Failure::TargetUnusable)
    }

    async fn keep_names(&self, pipelines: &[Pipeline]) -> Result<(), InboxError> {
        let target = self.settings.rules.target.pipeline;
        let mut names = self.inbox.names().await?.in_pipeline(target);
        for pipeline in pipelines {
            let stages = pipeline.stages.iter();
            let stages = stages.map(|stage| (stage.id, stage.name.clone()));
            names.learn(pipeline.id, &pipeline.name, stages);
        }
        self.inbox.keep_names(&names).await
    }

    /// All rows need the pipelines, so repeated refusals to list them stop sending.
    async fn pipelines_failed(&self, failure: &Failure) -> Result<(), InboxError> {
        if failure.disposition() == Disposition::Refused {
            let (cause, detail) = (HaltCause::AmocrmStage, failure.reason());
            self.sending.record_failure(cause, 3, detail).await?;
        }
        Ok(())
    }

    /// Checks token, pipeline and stage, so that a wrong setting shows before the next row needs it.
    async fn inspect(&self) -> Result<(), Failure> {
        match self.pipeline(Duration::ZERO).await {
            Ok(_) | Err(Failure::TargetUnusable) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// The keyed hash of a deal's name, by which the recovery recognises a deal that we made.
    fn name_hash(&self, name: &str) -> KeyedHash {
        self.inbox.hasher().text("deal name", name.trim())
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The inbox failed: waits a little. `true`: the service stops.
    async fn trouble(&self, error: &InboxError) -> bool {
        tracing::error!(error = %Chain(error), "sync.inbox");
        tokio::select! {
            () = tokio::time::sleep(INBOX_TROUBLE) => false,
            () = self.sending.stopping() => true,
        }
    }
}

// ---- the steps of a batch ----

/// Takes rows from their first read to the deal ids that are written back to them.
///
/// Each step ends the attempts of some rows: done, waiting for a contact, parked, or to be tried again. `settle` stores
/// these ends and passes the other rows on. After an error some rows are still claimed.
async fn sync_batch(batch: &Batch, turn: Turn, rows: Vec<Loaded>) -> Result<(), InboxError> {
    // While rows go one at a time, this batch could not write, and its searches would hold up the row that goes alone.
    let rows = batch.settle(batch.stay_back(rows)).await?;
    let rows = batch.settle(people::lock(batch, rows).await?).await?;
    let (begun, fresh) = rows
        .into_iter()
        .partition(|row: &Loaded| row.attempt.progress.step != Step::Begun);

    let sought = steps::contacts::find(batch, fresh).await?;
    batch.end(sought.ended).await?;
    // An earlier attempt may have left rows in the middle: they join the others where they stopped.
    let resumed = recover::resume(batch, begun).await?;
    batch.end(resumed.ended).await?;
    let mut chosen = batch
        .settle(deals::choose(batch, sought.matched, sought.missing).await?)
        .await?;
    chosen.extend(resumed.chosen);

    if let Some(canary) = turn.canary {
        canary.cancelled().await;
    }
    let chosen = batch.settle(batch.stay_back(chosen)).await?;
    let mut placed = batch
        .settle(place::move_or_create(batch, chosen).await?)
        .await?;
    placed.extend(batch.settle(batch.stay_back(resumed.placed)).await?);
    let mut noted = batch.settle(notes::add(batch, placed).await?).await?;
    noted.extend(batch.settle(batch.stay_back(resumed.noted)).await?);
    // The next batch may ask amoCRM while this one writes to its rows.
    drop(turn.asking);
    batch.end(write_back::fill(batch, noted).await?).await?;
    drop(turn.finished);
    Ok(())
}
