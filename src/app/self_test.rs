//! Test events of the service itself (`SELF_TEST`): once a day, and when rows come without an event. The results are in the
//! inbox, where the alerts find them.

use std::time::Duration;

use jiff::Timestamp;
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{Chain, EventFault, EventTest, EventTestTimings, EventTests, Nonce, SharedClock},
    inbox::{EVENT_TESTS, Inbox, InboxError},
    supabase::{Examined, Supabase, SupabaseError, Trigger},
    sync::lease::Lease,
};

/// What the service tests its events with.
#[derive(Debug, Clone, Copy)]
pub struct SelfTest {
    /// Once a day without any reason.
    pub daily: bool,
    /// The dashboard's own webhooks may take the place of the trigger.
    pub takes_bearer: bool,
    pub timings: EventTestTimings,
}

/// The parts of the service that it needs.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) inbox: Inbox,
    pub(super) supabase: Supabase,
    pub(super) clock: SharedClock,
    pub(super) lease: Lease,
    pub(super) stop: CancellationToken,
}

impl SelfTest {
    /// Works in a task of its own until the stop.
    pub(super) fn start(self, parts: Parts) -> JoinHandle<()> {
        tokio::spawn(async move {
            tokio::select! {
                () = self.work(&parts) => {}
                () = parts.stop.cancelled() => {}
            }
        })
    }

    async fn work(self, parts: &Parts) {
        let started = parts.clock.now();
        sleep(self.timings.first_after).await;
        loop {
            // The receiver refuses a test event while the inbox takes no writes; another alert tells of that.
            if parts.lease.is_held() == Some(true)
                && parts.inbox.accepts()
                && let Err(error) = self.look(parts, started).await
            {
                tracing::debug!(error = %Chain(&error), "service.self_test");
            }
            sleep(self.timings.look_every).await;
        }
    }

    /// Sends a test event if one is due.
    async fn look(self, parts: &Parts, started: Timestamp) -> Result<(), InboxError> {
        let stored: Option<EventTests> = match parts.inbox.state(EVENT_TESTS).await {
            // Stored by another version.
            Err(InboxError::Corrupt { .. }) => None,
            stored => stored?,
        };
        let mut tests = stored.unwrap_or_default();
        let now = parts.clock.now();
        let from = tests
            .rows_count_from()
            .max(Some(started))
            .unwrap_or(started);
        let until = now.saturating_sub(self.timings.silent_after).unwrap_or(now);
        let silent = parts.inbox.without_event(from, until).await?;
        let rows_are_silent = silent >= EventTests::SILENT_ROWS;
        if !tests.is_due(now, self.daily, rows_are_silent, &self.timings) {
            return Ok(());
        }
        let test = self.test(&parts.supabase).await;
        tell(test, silent);
        let last_event = parts.inbox.activity().event;
        tests.ended(test, parts.clock.now(), rows_are_silent, last_event);
        parts.inbox.set_state(EVENT_TESTS, &tests).await
    }

    async fn test(self, supabase: &Supabase) -> EventTest {
        let nonce = Nonce::new(rand::random());
        let patience: Duration = self.timings.patience;
        let tested = async {
            let journey = supabase.try_test_event(nonce, patience).await?;
            match journey.result(nonce) {
                // The test event does not need the trigger.
                EventTest::Arrived if self.lacks_trigger(supabase).await? => {
                    Ok(EventTest::Failed(EventFault::NoTrigger))
                }
                result => Ok::<_, SupabaseError>(result),
            }
        };
        tested.await.unwrap_or_else(|error| {
            tracing::debug!(error = %Chain(&error), "service.self_test");
            EventTest::Undecided
        })
    }

    async fn lacks_trigger(self, supabase: &Supabase) -> Result<bool, SupabaseError> {
        let Examined::Told { doctor, .. } = supabase.examine().await? else {
            return Ok(false);
        };
        let Trigger {
            present,
            enabled,
            ours,
            ..
        } = doctor.trigger;
        let webhooks_deliver = self.takes_bearer && !doctor.dashboard_webhooks.is_empty();
        Ok(!(webhooks_deliver || present && enabled && ours))
    }
}

fn tell(test: EventTest, silent: u32) {
    let outcome = test.into_str();
    match test {
        EventTest::Arrived => tracing::info!(outcome, silent, "service.self_test"),
        EventTest::Failed(fault) => {
            tracing::warn!(
                outcome,
                fault = fault.into_str(),
                silent,
                "service.self_test"
            );
        }
        EventTest::Undecided => tracing::warn!(outcome, silent, "service.self_test"),
        EventTest::NotPossible => tracing::debug!(outcome, "service.self_test"),
    }
}

#[cfg(test)]
mod tests;
