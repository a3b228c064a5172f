//! The engine: claims what is due, brings it into step in runs, and knows when not to.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

mod closing;
mod deals;
pub mod decide;
mod duties;
mod engine;
mod failure;
mod fate;
pub mod gate;
mod intents;
pub mod note;
mod people;
mod report;
mod run;
pub mod schedule;
mod sweep;
pub mod triage;
mod waiting;
mod writes;

pub(crate) use self::failure::Chain;
use self::{
    decide::{Rules, target_problem},
    failure::Failure,
    fate::InFlight,
    gate::Gate,
    people::Holds,
    schedule::Tempo,
    triage::RowRules,
};
pub use self::{engine::Engine, sweep::Swept};
use crate::{
    amocrm::{AmoCrm, Pipeline},
    domain::{HaltCause, KeyedHash, NoteTemplate, SharedClock, SyncState},
    inbox::{Inbox, InboxError},
    supabase::Supabase,
};

/// What to do with a row whose e-mail no contact has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingContact {
    Wait,
    Create,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub rules: Rules,
    pub rows: RowRules,
    pub missing_contact: MissingContact,
    pub note: NoteTemplate,
    /// Items in one bulk write.
    pub batch_size: usize,
    /// `None` = no sweeps.
    pub sweep_every: Option<Duration>,
    /// Accept and store, send nothing.
    pub hold: bool,
    /// Each changes with any setting that a halt over this neighbour may be about. Only ever hashed.
    pub amocrm_fingerprint: Option<String>,
    pub supabase_fingerprint: String,
    pub retention: Duration,
}

/// A number from 0 to 1, so that retries do not march in step.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// Everything that a run needs.
pub(crate) struct Context {
    inbox: Inbox,
    amocrm: AmoCrm,
    supabase: Supabase,
    clock: SharedClock,
    settings: Settings,
    tempo: Tempo,
    jitter: Jitter,
    gate: Gate,
    holds: Holds,
    in_flight: InFlight,
    settled: watch::Sender<u64>,
    pipelines: Mutex<Option<(Instant, Pipeline)>>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What the engine is made of.
pub struct Parts {
    pub inbox: Inbox,
    pub amocrm: AmoCrm,
    pub supabase: Supabase,
    pub clock: SharedClock,
    pub settings: Settings,
    pub tempo: Tempo,
    pub jitter: Jitter,
    pub stop: CancellationToken,
    pub state: watch::Sender<SyncState>,
    /// Counts settled attempts, for whoever watches.
    pub settled: watch::Sender<u64>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Context {
    fn new(parts: Parts) -> Self {
        let Parts {
            inbox,
            amocrm,
            supabase,
            clock,
            settings,
            tempo,
            jitter,
            stop,
            state,
            settled,
        } = parts;
        let gate = Gate::new(
            inbox.clone(),
            clock.clone(),
            tempo,
            settings.hold,
            stop,
            state,
        );
        Self {
            inbox,
            amocrm,
            supabase,
            clock,
            settings,
            tempo,
            jitter,
            gate,
            holds: Holds::default(),
            in_flight: InFlight::default(),
            settled,
            pipelines: Mutex::default(),
        }
    }

    /// The configured pipeline, read at most hourly. `Err(None)`: it cannot be used, and all sending has stopped.
    async fn pipeline(&self) -> Result<Result<Pipeline, Option<Failure>>, InboxError> {
        let known = self
            .pipelines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((_, pipeline)) =
            known.filter(|(read_at, _)| read_at.elapsed() < self.tempo.pipelines_for)
        {
            return Ok(Ok(pipeline));
        }
        let pipelines = match self.amocrm.pipelines().await {
            Ok(pipelines) => pipelines,
            Err(error) => return Ok(Err(Some(Failure::from(error)))),
        };
        let target = self.settings.rules.target;
        let problem = target_problem(&pipelines, target);
        match pipelines
            .into_iter()
            .find(|pipeline| pipeline.id == target.pipeline)
        {
            Some(pipeline) if problem.is_none() => {
                *self
                    .pipelines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) =
                    Some((Instant::now(), pipeline.clone()));
                Ok(Ok(pipeline))
            }
            _ => {
                self.gate
                    .strike(HaltCause::AmocrmStage, 1, problem.unwrap_or_default(), None)
                    .await?;
                Ok(Err(None))
            }
        }
    }

    fn forget_pipelines(&self) {
        *self
            .pipelines
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// By which a deal that we made is known again, whatever name it has.
    fn name_hash(&self, name: &str) -> KeyedHash {
        self.inbox.hasher().text("deal name", name.trim())
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
