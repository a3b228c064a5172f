//! The log of refused deliveries: one line a second for each kind, however many there are.
//!
//! An unverified sender decides how many requests are refused, so their number must not decide how much is written. No
//! content of a refused request is trusted or logged.

use std::{mem, net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::mpsc, time::sleep};
use tracing::{error, field::display, warn};

use super::webhook::WebhookError;

const INTERVAL: Duration = Duration::from_secs(1);

/// Clones write to one log.
#[derive(Debug, Clone)]
pub struct RefusalLog {
    tallies: Arc<Mutex<Tallies>>,
    wake: mpsc::Sender<()>,
}

impl RefusalLog {
    /// Needs a Tokio runtime, which gets a task that writes the lines. The task ends with the last clone.
    #[must_use]
    pub fn start() -> Self {
        let (wake, mut woken) = mpsc::channel(1);
        let log = Self {
            tallies: Arc::default(),
            wake,
        };
        let tallies = Arc::clone(&log.tallies);
        tokio::spawn(async move {
            // The first refusal is written at once. Those of the next second are summed up when it ends, so none is lost.
            while woken.recv().await.is_some() {
                write(&tallies);
                sleep(INTERVAL).await;
            }
        });
        log
    }

    pub(super) fn note(&self, error: WebhookError, client: Option<IpAddr>) {
        if self.tallies.lock().note(error, client) {
            // A full channel has woken the task already.
            let _ = self.wake.try_send(());
        }
    }

    /// Writes the pending lines at once: a stop does not wait for the end of the second.
    pub fn flush(&self) {
        write(&self.tallies);
    }
}

fn write(tallies: &Mutex<Tallies>) {
    let tallies = tallies.lock().take();
    for tally in tallies {
        tally.log();
    }
}

/// What was refused since the last lines, by kind, in the order of arrival.
#[derive(Debug, Default)]
struct Tallies(Vec<Tally>);

#[derive(Debug)]
struct Tally {
    /// The first one's, for its details.
    error: WebhookError,
    /// The first one's: behind a proxy, the proxy.
    client: Option<IpAddr>,
    count: u64,
}

impl Tallies {
    /// Returns whether this is the first refusal since the last lines.
    fn note(&mut self, error: WebhookError, client: Option<IpAddr>) -> bool {
        let is_first = self.0.is_empty();
        match self.0.iter_mut().find(|tally| tally.error.is_like(&error)) {
            Some(tally) => tally.count += 1,
            None => self.0.push(Tally {
                error,
                client,
                count: 1,
            }),
        }
        is_first
    }

    fn take(&mut self) -> Vec<Tally> {
        mem::take(&mut self.0)
    }
}

impl Tally {
    fn log(&self) {
        let outcome = self.error.outcome();
        let reason = self.error.reason();
        let client = self.client.map(display);
        let count = self.count;
        if self.error.is_ours() {
            error!(outcome, reason, count, client, "webhook.refused");
        } else {
            warn!(outcome, reason, count, client, "webhook.refused");
        }
    }
}

#[cfg(test)]
mod tests;
