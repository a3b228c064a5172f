//! The engine without a receiver: for a command that works an inbox off.

use amocrm::Simulation;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Died, Settings, StartError, Works};
use crate::{
    domain::{SharedClock, SyncStatus},
    inbox::Inbox,
};

/// The same engine as the service's, at work on an inbox that its owner has opened and will close.
#[derive(Debug)]
pub struct Worker {
    pub status: SyncStatus,
    stop: CancellationToken,
    engine: JoinHandle<()>,
    inbox: Inbox,
}

impl Worker {
    /// With a simulation no write is sent: the simulation answers them, and no lease is asked for.
    pub fn start(
        settings: Settings,
        inbox: &Inbox,
        clock: &SharedClock,
        simulation: Option<Simulation>,
    ) -> Result<Self, StartError> {
        let works = Works::new(
            settings.supabase,
            settings.maintenance,
            settings.sending,
            &settings.timings,
            inbox,
            clock,
            simulation,
        )?;
        Ok(Self {
            status: works.status,
            stop: works.stop,
            engine: tokio::spawn(works.work),
            inbox: inbox.clone(),
        })
    }

    /// Whether the engine has ended before [`Worker::stop`], or works on a file that is lost.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.engine.is_finished() || self.inbox.is_lost()
    }

    /// Lets what is in flight end, as the stop of the service does.
    pub async fn stop(self) -> Result<(), Died> {
        let is_dead = self.is_dead();
        self.stop.cancel();
        match self.engine.await {
            _ if self.inbox.is_lost() => Err(Died::InboxLost),
            Ok(()) if !is_dead => Ok(()),
            Ok(()) | Err(_) => Err(Died::Part { part: "the engine" }),
        }
    }
}
