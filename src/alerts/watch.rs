//! The task that looks, decides and sends. It only reads the state of the sync, and no other part waits for it.

use std::{pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Alerts, Digest, Kind, Message, Pace, Said, Schedule, Seen, Service, Settings, Telegram,
    TelegramError, has_passed,
};
use crate::{
    domain::{Chain, EventTests, Events, Refusals, SharedClock, SyncState, SyncStatus},
    inbox::{DiskSpace, EVENT_TESTS, HALT, Inbox, InboxError, REFUSALS, REPLACED, State, Writing},
};

/// The key in the inbox under which [`Said`] is stored.
const SAID: &str = "alerts_said";
/// How often one message is tried.
const TRIES: u32 = 3;
/// How long a stop waits for a message that is being sent. The engine takes longer.
const GRACE: Duration = Duration::from_secs(2);
/// More late entries than this need not be counted.
const LATE_LISTED: u32 = 1_000;

/// Watches the service and tells a person.
#[derive(Debug)]
pub struct Watch {
    inbox: Inbox,
    status: SyncStatus,
    writing: watch::Receiver<Writing>,
    clock: SharedClock,
    telegram: Telegram,
    settings: Settings,
    service: Arc<dyn Service>,
    /// Requests to amoCRM are counted from this number and time on.
    counted: (u64, Timestamp),
    stop: CancellationToken,
    /// The inbox is lost: the next message is the last one.
    is_last: bool,
}

/// What became of a message.
enum Sent {
    Taken,
    /// All tries failed. With the pause that Telegram asked for, if any.
    Dropped(Option<Duration>),
    Stopping,
}

impl Watch {
    pub fn new(
        settings: &Settings,
        inbox: Inbox,
        status: SyncStatus,
        clock: SharedClock,
        service: Arc<dyn Service>,
        stop: CancellationToken,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            telegram: Telegram::new(&settings.bot)?,
            settings: settings.clone(),
            service,
            counted: (0, clock.now()),
            writing: inbox.writing(),
            inbox,
            status,
            clock,
            stop,
            is_last: false,
        })
    }

    /// Works until stopped, or until it has told that the inbox is lost.
    pub async fn work(mut self) {
        let said = self.inbox.state(SAID).await.unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "alerts.forgotten");
            None
        });
        let mut alerts = Alerts::new(
            self.settings.pace,
            self.settings.zone.clone(),
            said.unwrap_or_default(),
        );
        let before = alerts.said().clone();
        alerts.begin_digests(self.settings.digests.is_some(), self.clock.now());
        if *alerts.said() != before {
            self.remember(alerts.said()).await;
        }
        let mut quiet_until = Instant::now();
        let mut dropped = 0;
        let mut engine_lives = true;
        while !self.stop.is_cancelled() {
            self.leave_digest(&mut alerts).await;
            while !self.stop.is_cancelled()
                && let Some(message) = self.look(&mut alerts).await
            {
                if Instant::now() < quiet_until && !self.is_last {
                    break;
                }
                match self.send(&message).await {
                    Sent::Taken => {
                        dropped = 0;
                        let is_digest = message.kind == Kind::Digest;
                        alerts.told(message);
                        if is_digest {
                            self.count_anew(alerts.said());
                        }
                        self.remember(alerts.said()).await;
                    }
                    Sent::Dropped(asked) => {
                        let quiet = self.settings.pace.quiet;
                        let quiet = quiet
                            .after(dropped)
                            .max(asked.unwrap_or_default())
                            .min(quiet.longest);
                        quiet_until = Instant::now() + quiet;
                        dropped = dropped.saturating_add(1);
                        break;
                    }
                    Sent::Stopping => return,
                }
            }
            if self.is_last {
                return;
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(self.settings.pace.look_every) => {}
                changed = self.status.changed(), if engine_lives => engine_lives = changed.is_ok(),
                // The sender lives in the inbox, which is held here.
                _ = self.writing.changed() => {}
            }
        }
    }

    /// The next message, if any. An inbox that cannot be read is logged by the engine, not here.
    async fn look(&mut self, alerts: &mut Alerts) -> Option<Message> {
        match self.see(alerts.said()).await {
            Ok(seen) => alerts.look(&seen),
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "alerts.blind");
                None
            }
        }
    }

    async fn see(&mut self, said: &Said) -> Result<Seen, InboxError> {
        let now = self.clock.now();
        let writing = *self.writing.borrow_and_update();
        self.is_last = matches!(writing, Writing::Lost { .. });
        let state = writing.over(*self.status.borrow_and_update());
        if matches!(state, SyncState::Inbox { .. }) {
            // The inbox may be unreadable, so the alert about it reads nothing.
            return Ok(Seen {
                now,
                state,
                halt: None,
                refusals: Refusals::default(),
                parked: Vec::new(),
                late: Vec::new(),
                unresolved: Vec::new(),
                doubled: Vec::new(),
                tokens: self.settings.tokens.clone(),
                inbox: writing.fault(),
                replaced: None,
                disk: None,
                events: Events::Unknown,
                digest: None,
            });
        }
        let ago = |pause| now.saturating_sub(pause).unwrap_or(now);
        Ok(Seen {
            now,
            state,
            halt: self.inbox.state(HALT).await?,
            refusals: self.inbox.state(REFUSALS).await?.unwrap_or_default(),
            parked: self.inbox.parked_after(said.parked_until()).await?,
            late: {
                let since = ago(self.settings.pace.late_after);
                self.inbox.pending_since(since, LATE_LISTED).await?
            },
            unresolved: {
                let since = ago(self.settings.pace.unresolved_after);
                self.inbox.unresolved_since(since, LATE_LISTED).await?
            },
            doubled: {
                let until = said.doubled_until();
                self.inbox.doubled_after(until, LATE_LISTED).await?
            },
            tokens: self.settings.tokens.clone(),
            inbox: writing.fault(),
            replaced: self.inbox.state(REPLACED).await?,
            disk: self.disk(),
            events: self.events(ago(self.settings.pace.tests_count_for)).await?,
            digest: self.digest(said, now).await?,
        })
    }

    /// Test events that ended before `since` count no more.
    async fn events(&self, since: Timestamp) -> Result<Events, InboxError> {
        let tests: Option<EventTests> = match self.inbox.state(EVENT_TESTS).await {
            // Stored by another version.
            Err(InboxError::Corrupt { .. }) => return Ok(Events::Unknown),
            tests => tests?,
        };
        let last_event = self.inbox.activity().event;
        Ok(tests.unwrap_or_default().shown(last_event, since))
    }

    /// Where another service of the project works, that one sends the digest. For some minutes this service may yet take the
    /// lease of one that has died.
    async fn leave_digest(&mut self, alerts: &mut Alerts) {
        let now = self.clock.now();
        let due = self.is_digest_due(alerts.said(), now);
        let due = due.and_then(|(schedule, _)| schedule.last(now));
        let is_late =
            due.is_some_and(|due| has_passed(self.settings.pace.leave_digest_after, due, now));
        if is_late && self.service.holds_lease() == Some(false) {
            alerts.skip_digest(now);
            self.count_anew(alerts.said());
            self.remember(alerts.said()).await;
        }
    }

    /// The schedule, and the end of the last one.
    fn is_digest_due(&self, said: &Said, now: Timestamp) -> Option<(&Schedule, Timestamp)> {
        let (schedule, until) = (self.settings.digests.as_ref()?, said.digest_until?);
        schedule.is_due(until, now).then_some((schedule, until))
    }

    async fn digest(&self, said: &Said, now: Timestamp) -> Result<Option<Digest>, InboxError> {
        let Some((_, from)) = self.is_digest_due(said, now) else {
            return Ok(None);
        };
        if self.service.holds_lease() != Some(true) {
            return Ok(None);
        }
        let counts = self.inbox.counts().await?;
        let count = |state| counts.by_state.get(&state).copied().unwrap_or(0);
        let (counted, since) = self.counted;
        let requests = self.service.requests_sent().saturating_sub(counted);
        Ok(Some(Digest {
            from,
            until: now,
            synced: self.inbox.synced(from, now).await?,
            waiting: count(State::Waiting),
            pending: count(State::Pending) + count(State::Claimed),
            parked: count(State::Parked),
            requests: (requests, since),
        }))
    }

    /// Requests are counted for the next digest.
    fn count_anew(&mut self, said: &Said) {
        let from = said.digest_until.unwrap_or(self.counted.1);
        self.counted = (self.service.requests_sent(), from);
    }

    /// Costs the operating system two questions, so no thread of its own.
    fn disk(&self) -> Option<DiskSpace> {
        Inbox::space(self.inbox.path())
            .inspect_err(|error| tracing::debug!(%error, "alerts.blind"))
            .ok()
    }

    async fn send(&self, message: &Message) -> Sent {
        let kind = message.kind.into_str();
        let mut tries = 0;
        loop {
            let Some(sent) = self.send_once(message).await else {
                return Sent::Stopping;
            };
            tries += 1;
            let Err(error) = sent else {
                tracing::info!(kind, "alerts.sent");
                count("sent");
                return Sent::Taken;
            };
            let Some(pause) = pause_before_retry(&self.settings.pace, &error, tries) else {
                tracing::warn!(kind, tries, error = %Chain(&error), "alerts.dropped");
                count("dropped");
                return Sent::Dropped(error.retry_after());
            };
            tracing::debug!(kind, tries, error = %Chain(&error), "alerts.failed");
            tokio::select! {
                () = self.stop.cancelled() => return Sent::Stopping,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// `None`: the service stops, and Telegram does not answer.
    async fn send_once(&self, message: &Message) -> Option<Result<(), TelegramError>> {
        let mut sending = pin!(self.telegram.send(&message.text));
        tokio::select! {
            sent = &mut sending => Some(sent),
            // A message that is being sent is waited for: else it would be sent again after a restart.
            () = self.stop.cancelled() => tokio::time::timeout(GRACE, sending).await.ok(),
        }
    }

    async fn remember(&self, said: &Said) {
        if let Err(error) = self.inbox.set_state(SAID, said).await {
            tracing::warn!(error = %Chain(&error), "alerts.not_remembered");
        }
    }
}

/// `None`: not worth another try.
fn pause_before_retry(pace: &Pace, error: &TelegramError, tries: u32) -> Option<Duration> {
    let asked = error.retry_after().unwrap_or_default();
    let pause = pace.retry.after(tries.saturating_sub(1)).max(asked);
    (error.may_pass() && tries < TRIES && pause <= pace.retry.longest).then_some(pause)
}

fn count(outcome: &'static str) {
    metrics::counter!("tripwire_alerts_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::{
        domain::{Clock as _, DigestEvery, EventFault, EventTest, RowId, TelegramBot, TestClock},
        inbox::{Arrival, Role, Source},
    };

    #[derive(Debug)]
    struct WithLease(Option<bool>);

    impl Service for WithLease {
        fn holds_lease(&self) -> Option<bool> {
            self.0
        }

        fn requests_sent(&self) -> u64 {
            7
        }
    }

    /// A watch over an inbox of its own, of a service that holds the lease or not.
    async fn watch(lease: Option<bool>, clock: &Arc<TestClock>) -> (Watch, tempfile::TempDir) {
        outbound::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.db");
        let inbox = Inbox::open(&path, Role::Owner, clock.clone()).await;
        let settings = Settings {
            bot: TelegramBot {
                token: "123456:token".into(),
                chat_id: "-100500".to_owned(),
                base_url: "http://127.0.0.1:9".parse().unwrap(),
            },
            tokens: Vec::new(),
            zone: TimeZone::UTC,
            digests: Some(Schedule {
                every: DigestEvery::Day,
                zone: TimeZone::UTC,
            }),
            pace: Pace::default(),
        };
        let (_state, status) = watch::channel(SyncState::Working);
        let stop = CancellationToken::new();
        let service = Arc::new(WithLease(lease));
        let watch = Watch::new(
            &settings,
            inbox.unwrap(),
            status,
            clock.clone(),
            service,
            stop,
        );
        (watch.unwrap(), folder)
    }

    #[tokio::test]
    async fn the_holder_of_the_lease_sends_the_digest_and_a_standby_leaves_it() {
        let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
        // Whether it holds the lease, how long after nine it is, whether there is a digest, whether it is left.
        for (lease, after, is_sent, is_left) in [
            (Some(true), Duration::ZERO, true, false),
            (Some(true), hour, true, false),
            // The holder may have died just now.
            (Some(false), minute, false, false),
            (Some(false), hour, false, true),
            (None, hour, false, false),
        ] {
            let clock = TestClock::at("2026-11-22T09:00:00Z".parse().unwrap());
            let (mut watch, _folder) = watch(lease, &clock).await;
            let began = clock.now();
            let mut alerts = Alerts::new(Pace::default(), TimeZone::UTC, Said::default());
            alerts.begin_digests(true, began);
            clock.advance(Duration::from_hours(24) + after);

            watch.leave_digest(&mut alerts).await;
            let digest = watch.digest(alerts.said(), clock.now()).await.unwrap();

            assert_eq!(digest.is_some(), is_sent, "{lease:?} {after:?}");
            if let Some(digest) = digest {
                assert_eq!((digest.from, digest.until), (began, clock.now()));
                assert_eq!(digest.requests, (7, began));
            }
            let until = if is_left { clock.now() } else { began };
            assert_eq!(
                alerts.said().digest_until,
                Some(until),
                "{lease:?} {after:?}"
            );
            // After a digest that was left, requests are counted from its end on.
            let from = if is_left {
                (7, clock.now())
            } else {
                (0, began)
            };
            assert_eq!(watch.counted, from);

            alerts.skip_digest(clock.now());
            watch.count_anew(alerts.said());
            assert_eq!(watch.counted, (7, clock.now()));
        }
    }

    #[tokio::test]
    async fn a_later_event_shows_that_events_arrive_and_a_long_time_shows_nothing() {
        let clock = TestClock::at("2026-11-22T10:00:00Z".parse().unwrap());
        let (watch, _folder) = watch(Some(true), &clock).await;
        let mut tests = EventTests::default();
        let failed = EventTest::Failed(EventFault::NotSent);
        tests.ended(failed, clock.now(), true, None);
        watch.inbox.set_state(EVENT_TESTS, &tests).await.unwrap();
        let events = async |since| watch.events(since).await.unwrap();
        assert!(events(clock.now()).await.failure().is_some());

        clock.advance(Duration::from_mins(1));
        // Another service has tested since, as far as is known.
        assert_eq!(events(clock.now()).await, Events::Unknown);
        let event = Arrival {
            row: RowId::new(uuid::Uuid::nil()),
            source: Source::Webhook {
                delivery: "msg_1".to_owned(),
            },
        };
        watch.inbox.store(vec![event]).await.unwrap();
        assert_eq!(events(Timestamp::MIN).await, Events::Arrive);

        watch
            .inbox
            .set_state(EVENT_TESTS, &"of another version")
            .await
            .unwrap();
        assert_eq!(events(Timestamp::MIN).await, Events::Unknown);
    }

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_for_long() {
        let seconds = Duration::from_secs;
        let throttled = |after: Option<u64>| TelegramError::Throttled {
            retry_after: after.map(seconds),
        };
        let broken = || TelegramError::Unexpected { status: 502 };
        let table = [
            (broken(), 1, Some(5)),
            (broken(), 2, Some(10)),
            (broken(), 3, None),
            (throttled(None), 1, Some(5)),
            (throttled(Some(37)), 1, Some(37)),
            (throttled(Some(1)), 2, Some(10)),
            (throttled(Some(61)), 1, None),
            (throttled(Some(u64::MAX)), 1, None),
            (TelegramError::Token { status: 401 }, 1, None),
            (TelegramError::Chat { status: 403 }, 1, None),
            (TelegramError::Unexpected { status: 418 }, 1, None),
        ];
        for (error, tries, expected) in table {
            let pause = pause_before_retry(&Pace::default(), &error, tries);
            assert_eq!(pause, expected.map(seconds), "{error:?} after {tries}");
        }
    }
}
