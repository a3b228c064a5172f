//! Tells an outside watcher that the service works (`HEARTBEAT_URL`): when it hears nothing, something is wrong.
//!
//! It is told while the engine turns, the inbox can be written, and the service works or stands by for one that does. A
//! pause, a halt, a lease that Supabase does not confirm and `AMOCRM_ENABLED=false` are silence, for then rows wait; so is a
//! process that is gone.

use std::time::Duration;

use outbound::{Failure, log_request};
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Chain, Heartbeat, SyncState, SyncStatus, USER_AGENT},
    inbox::Writing,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the whole answer.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct OutsideWatcher {
    /// Asked by GET. A stranger that knows it can pretend that all is well.
    pub url: SecretString,
    /// Longer than the engine takes to come round, which is a quarter of a minute.
    pub every: Duration,
}

/// What the service has to say for itself.
#[derive(Debug)]
pub(super) struct Signs {
    pub(super) engine: Heartbeat,
    pub(super) status: SyncStatus,
    pub(super) writing: watch::Receiver<Writing>,
}

impl Signs {
    /// Completes when the service is well, and the inbox can be written.
    async fn until_well(&mut self) {
        loop {
            let (status, writing) = (*self.status.borrow(), *self.writing.borrow());
            let writes = writing == Writing::Works;
            if writes && is_well(status) {
                return;
            }
            let (status, writing) = (self.status.changed(), self.writing.changed());
            tokio::select! {
                Ok(()) = status => {}
                Ok(()) = writing => {}
                // Both have ended: the service stops.
                else => std::future::pending().await,
            }
        }
    }
}

/// Rows are synced, here or by the service that holds the lease.
fn is_well(state: SyncState) -> bool {
    matches!(
        state,
        SyncState::Working
            | SyncState::Standby {
                held_by_another: true
            }
    )
}

impl OutsideWatcher {
    /// Works in a task of its own until the stop.
    pub(super) fn start(
        self,
        signs: Signs,
        stop: CancellationToken,
    ) -> Result<JoinHandle<()>, reqwest::Error> {
        let http = outbound::client_builder(USER_AGENT, CONNECT_TIMEOUT, &[])?
            .timeout(TIMEOUT)
            .build()?;
        Ok(tokio::spawn(self.work(http, signs, stop)))
    }

    async fn work(self, http: Client, mut signs: Signs, stop: CancellationToken) {
        let watching = async {
            let mut turns = None;
            loop {
                signs.until_well().await;
                // An engine that hangs keeps the state that it had.
                let now = Some(signs.engine.count());
                if now != turns {
                    self.tell(&http).await;
                }
                turns = now;
                sleep(self.every).await;
            }
        };
        tokio::select! {
            () = watching => {}
            () = stop.cancelled() => {}
        }
    }

    async fn tell(&self, http: &Client) {
        let began = Instant::now();
        let answer = http.get(self.url.expose_secret()).send().await;
        let status = match &answer {
            Ok(answer) => answer.status().as_u16().to_string(),
            Err(_) => "no_answer".to_owned(),
        };
        let (peer, metrics) = ("the outside watcher", "tripwire_watcher");
        let took = began.elapsed();
        log_request(peer, metrics, "heartbeat", status.clone(), took, None);
        match answer.map_err(Failure::from) {
            Ok(answer) if answer.status().is_success() => {}
            Ok(_) => tracing::warn!(status, "heartbeat.refused"),
            Err(Failure::NotSent { source, .. } | Failure::NoAnswer { source }) => {
                tracing::warn!(error = %Chain(&source), "heartbeat.refused");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_service_is_well_while_rows_are_synced_here_or_by_another() {
        let since = Timestamp::UNIX_EPOCH;
        let standby = |held_by_another| SyncState::Standby { held_by_another };
        for (state, expected) in [
            (SyncState::Working, true),
            (standby(true), true),
            (standby(false), false),
            (SyncState::Starting, false),
            (SyncState::Paused { since }, false),
            (SyncState::Holding, false),
            (SyncState::InboxFull { since }, false),
        ] {
            assert_eq!(is_well(state), expected, "{state:?}");
        }
    }
}
