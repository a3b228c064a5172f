use super::*;
use crate::domain::{DealId, EventFault, EventTest, EventTests, Operation};
use crate::inbox::Synced;

mod properties;
mod sending;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// Alerts under a clock, before a service whose state a test sets.
#[derive(Debug)]
struct Scene {
    alerts: Alerts,
    now: Timestamp,
    state: SyncState,
    parked: Vec<Stuck>,
    late: Vec<Stuck>,
    unresolved: Vec<RowId>,
    doubled: Vec<Doubled>,
    tokens: Vec<TokenEnd>,
    halt: Option<Halt>,
    refusals: Refusals,
    replaced: Option<Replaced>,
    disk: Option<DiskSpace>,
    events: Events,
    digest: Option<Digest>,
    rows: u128,
}

impl Scene {
    fn new() -> Self {
        Self {
            alerts: Alerts::new(Pace::default(), TimeZone::UTC, Said::default()),
            now: "2026-11-22T10:00:00Z".parse().unwrap(),
            state: SyncState::Working,
            parked: Vec::new(),
            late: Vec::new(),
            unresolved: Vec::new(),
            doubled: Vec::new(),
            tokens: Vec::new(),
            halt: None,
            refusals: Refusals::default(),
            replaced: None,
            disk: None,
            events: Events::Arrive,
            digest: None,
            rows: 0,
        }
    }

    fn halt(&mut self, cause: HaltCause) {
        self.state = SyncState::Halted {
            cause,
            since: self.now,
            next_probe: None,
        };
    }

    fn stuck(&mut self, reason: &str) -> Stuck {
        self.rows += 1;
        Stuck {
            row: RowId::new(uuid::Uuid::from_u128(self.rows)),
            reason: Some(reason.to_owned()),
            since: self.now,
        }
    }

    fn park(&mut self, count: usize, reason: &str) {
        for _ in 0..count {
            let stuck = self.stuck(reason);
            self.parked.push(stuck);
        }
    }

    fn seen(&self) -> Seen {
        let until = self.alerts.said().parked_until();
        let news = self.parked.iter().filter(|stuck| stuck.since > until);
        Seen {
            now: self.now,
            state: self.state,
            halt: self.halt.clone(),
            refusals: self.refusals.clone(),
            parked: news.cloned().collect(),
            late: self.late.clone(),
            unresolved: self.unresolved.clone(),
            doubled: self.doubled_after(self.alerts.said().doubled_until()),
            tokens: self.tokens.clone(),
            inbox: match self.state {
                SyncState::Inbox { fault, since } => Some((fault, since)),
                SyncState::InboxFull { since } => Some((InboxFault::Full, since)),
                _ => None,
            },
            replaced: self.replaced.clone(),
            disk: self.disk,
            events: self.events,
            digest: self.digest.clone(),
        }
    }

    fn doubled_after(&self, until: Timestamp) -> Vec<Doubled> {
        let news = self.doubled.iter().filter(|it| it.found_at > until);
        news.cloned().collect()
    }

    /// Sends all messages that are due.
    fn look(&mut self) -> Vec<Message> {
        let mut said = Vec::new();
        while let Some(message) = self.alerts.look(&self.seen()) {
            self.alerts.told(message.clone());
            said.push(message);
            assert!(said.len() < 12, "it never stops: {said:?}");
        }
        said
    }

    fn look_after(&mut self, pause: Duration) -> Vec<Message> {
        self.now = self.now.checked_add(pause).unwrap();
        self.look()
    }

    fn restart(&mut self) {
        let stored = serde_json::to_string(self.alerts.said()).unwrap();
        let said = serde_json::from_str(&stored).unwrap();
        self.alerts = Alerts::new(Pace::default(), TimeZone::UTC, said);
    }
}

fn kinds(messages: &[Message]) -> Vec<Kind> {
    messages.iter().map(|message| message.kind).collect()
}

fn only(mut messages: Vec<Message>) -> Message {
    assert_eq!(messages.len(), 1, "{messages:#?}");
    messages.remove(0)
}

/// Logs, metrics and the guide name them.
#[test]
fn the_names_of_the_messages_are_these() {
    assert_eq!(
        Kind::VARIANTS,
        [
            "inbox",
            "writable",
            "halted",
            "recovered",
            "in_doubt",
            "parked",
            "late",
            "moving",
            "unresolved",
            "resolved",
            "disk",
            "disk_freed",
            "silent",
            "arriving",
            "expiring",
            "replaced",
            "doubled",
            "digest",
        ]
    );
}

#[test]
fn a_halt_is_told_at_once_with_what_to_do() {
    let mut scene = Scene::new();
    assert_eq!(scene.look(), []);
    scene.halt(HaltCause::AmocrmToken);

    let message = only(scene.look());

    assert_eq!(message.kind, Kind::Halted);
    assert!(
        message
            .text
            .contains(HaltCause::AmocrmToken.hint(Lang::Russian)),
        "{}",
        message.text
    );
    assert!(message.text.contains("22.11 10:00 UTC"), "{}", message.text);
}

#[test]
fn an_alert_tells_times_in_the_zone_of_the_settings() {
    let mut scene = Scene::new();
    let zone = TimeZone::get("Asia/Almaty").unwrap();
    scene.alerts = Alerts::new(Pace::default(), zone, Said::default());
    scene.halt(HaltCause::AmocrmToken);
    let told = only(scene.look()).text;
    assert!(told.contains("22.11 15:00 UTC+5"), "{told}");
}

#[test]
fn a_halt_is_told_once_however_long_one_looks_and_over_a_restart() {
    let mut scene = Scene::new();
    scene.halt(HaltCause::AmocrmForbidden);
    assert_eq!(scene.look().len(), 1);

    assert_eq!(scene.look_after(HOUR), []);
    scene.restart();
    let halted = std::mem::replace(&mut scene.state, SyncState::Starting);
    assert_eq!(scene.look_after(HOUR), []);
    scene.state = halted;
    assert_eq!(scene.look_after(HOUR), []);
}

#[test]
fn a_halt_that_lasts_is_said_again_after_a_day() {
    let mut scene = Scene::new();
    scene.halt(HaltCause::AmocrmPayment);
    scene.look();

    let again = only(scene.look_after(24 * HOUR));

    assert!(again.text.contains("всё ещё"), "{}", again.text);
    assert_eq!(scene.look_after(23 * HOUR), []);
}

#[test]
fn another_cause_or_another_time_is_another_halt() {
    let mut scene = Scene::new();
    scene.halt(HaltCause::AmocrmToken);
    scene.look();

    scene.halt(HaltCause::SupabaseKey);
    assert_eq!(kinds(&scene.look_after(SECOND)), [Kind::Halted]);
    scene.now = scene.now.checked_add(SECOND).unwrap();
    scene.halt(HaltCause::SupabaseKey);
    assert_eq!(kinds(&scene.look()), [Kind::Halted]);
}

#[test]
fn a_halt_is_over_once_sending_has_gone_on_for_a_minute() {
    let mut scene = Scene::new();
    scene.halt(HaltCause::AmocrmToken);
    scene.look();
    scene.state = SyncState::Working;

    assert_eq!(scene.look_after(SECOND), []);
    assert_eq!(scene.look_after(59 * SECOND), []);
    assert_eq!(kinds(&scene.look_after(SECOND)), [Kind::Recovered]);
    assert_eq!(scene.look_after(HOUR), []);
}

#[test]
fn a_resume_that_changes_nothing_is_no_recovery() {
    let mut scene = Scene::new();
    scene.halt(HaltCause::AmocrmToken);
    scene.look();
    scene.state = SyncState::Working;
    assert_eq!(scene.look_after(SECOND), []);
    scene.halt(HaltCause::AmocrmToken);

    assert_eq!(kinds(&scene.look_after(2 * MINUTE)), [Kind::Halted]);
}

#[test]
fn a_halt_that_was_cured_while_the_service_was_down_is_told_to_be_over() {
    let mut scene = Scene::new();
    scene.halt(HaltCause::AmocrmToken);
    scene.look();
    scene.restart();
    scene.state = SyncState::Starting;
    assert_eq!(scene.look_after(HOUR), []);
    scene.state = SyncState::Working;

    assert_eq!(scene.look(), []);
    assert_eq!(kinds(&scene.look_after(MINUTE)), [Kind::Recovered]);
}

#[test]
fn a_recovery_into_a_pause_says_so() {
    let mut scene = Scene::new();
    scene.halt(HaltCause::AmocrmToken);
    scene.look();
    scene.state = SyncState::Paused { since: scene.now };
    scene.look();

    let message = only(scene.look_after(MINUTE));

    assert!(message.text.contains("resume"), "{}", message.text);
}

#[test]
fn no_alert_tells_of_what_a_person_did() {
    let mut scene = Scene::new();
    let stuck = scene.stuck("нет соединения с amoCRM");
    scene.late.push(stuck);
    let since = scene.now;
    for state in [
        SyncState::Paused { since },
        SyncState::Holding,
        SyncState::Standby {
            held_by_another: true,
        },
    ] {
        scene.state = state;
        assert_eq!(scene.look_after(24 * HOUR), [], "{state:?}");
    }
}

#[test]
fn what_is_parked_within_minutes_is_one_message_by_reason() {
    let mut scene = Scene::new();
    scene.park(2, "нет годного e-mail");
    assert_eq!(scene.look(), []);
    scene.now = scene.now.checked_add(3 * MINUTE).unwrap();
    scene.park(1, "похожих слишком много");
    assert_eq!(scene.look(), []);

    let message = only(scene.look_after(2 * MINUTE));

    assert_eq!(message.kind, Kind::Parked);
    for part in [
        "отложено записей: 3",
        "e-mail: 2",
        "много: 1",
        "000000000003",
    ] {
        assert!(message.text.contains(part), "{part} in {}", message.text);
    }
    assert_eq!(scene.look_after(HOUR), []);
    scene.restart();
    assert_eq!(scene.look_after(HOUR), []);
}

#[test]
fn what_was_tried_again_in_time_is_not_told() {
    let mut scene = Scene::new();
    scene.park(1, "нет годного e-mail");
    scene.look();
    scene.parked.clear();

    assert_eq!(scene.look_after(HOUR), []);
}

#[test]
fn an_entry_is_late_when_sending_went_on_for_as_long() {
    let mut scene = Scene::new();
    let stuck = scene.stuck("сбой amoCRM (502)");
    scene.late.push(stuck);
    scene.halt(HaltCause::AmocrmPayment);
    scene.look();
    scene.state = SyncState::Working;
    assert_eq!(scene.look_after(3 * HOUR), []);
    assert_eq!(kinds(&scene.look_after(14 * MINUTE)), [Kind::Recovered]);

    let message = only(scene.look_after(MINUTE));

    assert_eq!(message.kind, Kind::Late);
    for part in ["15 мин: 1, самая старая с 22.11 10:00 UTC", "(502): 1"] {
        assert!(message.text.contains(part), "{part} in {}", message.text);
    }
    assert_eq!(scene.look_after(HOUR), []);
    scene.late.clear();
    assert_eq!(kinds(&scene.look_after(SECOND)), [Kind::Moving]);
    assert_eq!(scene.look_after(HOUR), []);
}

#[test]
fn a_write_in_doubt_is_told_once_a_day_and_once_more_when_it_is_resolved() {
    let mut scene = Scene::new();
    scene.unresolved = vec![RowId::new(uuid::Uuid::from_u128(7))];
    assert_eq!(scene.look(), []);
    // The service was just started, and looks for the write first.
    assert_eq!(scene.look_after(9 * MINUTE), []);

    let message = only(scene.look_after(MINUTE));

    assert_eq!(message.kind, Kind::Unresolved);
    for part in ["10 мин", "записей: 1", "000000000007", "explain"] {
        assert!(message.text.contains(part), "{part} in {}", message.text);
    }
    scene.restart();
    assert_eq!(scene.look_after(HOUR), []);
    assert_eq!(kinds(&scene.look_after(23 * HOUR)), [Kind::Unresolved]);

    scene.unresolved.clear();
    scene.state = SyncState::Holding;
    assert_eq!(scene.look_after(HOUR), []);
    scene.state = SyncState::Working;
    assert_eq!(kinds(&scene.look_after(SECOND)), [Kind::Resolved]);
    assert_eq!(scene.look_after(24 * HOUR), []);
}

#[test]
fn a_disk_is_nearly_full_below_64_mib_or_the_size_of_the_inbox() {
    const MIB: u64 = 1 << 20;
    let mut scene = Scene::new();
    // Free space, size of the inbox, what is said.
    let table = [
        (64, 2, None),
        (63, 2, Some(Kind::Disk)),
        (95, 2, None),
        (96, 2, Some(Kind::DiskFreed)),
        (300, 300, None),
        (299, 300, Some(Kind::Disk)),
        (449, 300, None),
        (450, 300, Some(Kind::DiskFreed)),
    ];
    for (free, size, said) in table {
        let (free, size) = (free * MIB, size * MIB);
        scene.disk = Some(DiskSpace { free, size });
        let expected: Vec<_> = said.into_iter().collect();
        assert_eq!(kinds(&scene.look_after(HOUR)), expected, "{free} {size}");
        scene.disk = None;
        assert_eq!(scene.look_after(HOUR), []);
    }
}

#[test]
fn events_that_do_not_arrive_are_told_with_the_fault_and_so_is_their_end() {
    let mut scene = Scene::new();
    let mut tests = EventTests::default();
    let failed = EventTest::Failed(EventFault::Refused(401));
    tests.ended(failed, scene.now, true, None);
    scene.events = tests.shown(None, Timestamp::MIN);
    scene.state = SyncState::Standby {
        held_by_another: true,
    };
    assert_eq!(scene.look(), []);
    // Events are received while nothing is sent.
    scene.state = SyncState::Paused { since: scene.now };

    let message = only(scene.look());

    assert_eq!(message.kind, Kind::Silent);
    for part in ["22.11 10:00 UTC", "(401)", "tripwire-sync check"] {
        assert!(message.text.contains(part), "{part} in {}", message.text);
    }
    scene.restart();
    assert_eq!(scene.look_after(23 * HOUR), []);
    // No test event has ended for long: that is no end.
    scene.events = Events::Unknown;
    assert_eq!(scene.look(), []);
    scene.events = Events::Arrive;
    assert_eq!(kinds(&scene.look()), [Kind::Arriving]);
    assert_eq!(scene.look_after(24 * HOUR), []);
}

#[test]
fn a_digest_begins_where_the_last_one_ended_over_restarts() {
    let mut scene = Scene::new();
    let began = scene.now;
    scene.alerts.begin_digests(true, began);
    assert_eq!(scene.alerts.said().digest_until, Some(began));

    scene.now = began.checked_add(HOUR).unwrap();
    scene.restart();
    scene.alerts.begin_digests(true, scene.now);
    assert_eq!(scene.alerts.said().digest_until, Some(began));
    scene.digest = Some(Digest {
        from: began,
        until: scene.now,
        synced: Synced::default(),
        waiting: 0,
        pending: 0,
        parked: 0,
        requests: (0, began),
    });
    let digest = scene.alerts.look(&scene.seen()).unwrap();
    assert_eq!(digest.kind, Kind::Digest);
    scene.alerts.told(digest);
    assert_eq!(scene.alerts.said().digest_until, Some(scene.now));

    // The clock was put back; then digests are switched off.
    scene.alerts.begin_digests(true, began);
    assert_eq!(scene.alerts.said().digest_until, Some(began));
    scene.alerts.begin_digests(false, began);
    assert_eq!(scene.alerts.said().digest_until, None);
}

#[test]
fn a_message_that_was_not_taken_is_said_again_up_to_date() {
    let mut scene = Scene::new();
    scene.park(1, "нет годного e-mail");
    scene.now = scene.now.checked_add(HOUR).unwrap();
    let lost = scene.alerts.look(&scene.seen()).unwrap();
    scene.park(1, "нет годного e-mail");

    let message = only(scene.look_after(HOUR));

    assert!(lost.text.contains("записей: 1"), "{}", lost.text);
    assert!(message.text.contains("записей: 2"), "{}", message.text);
}

#[test]
fn the_fourth_alarm_about_entries_says_that_more_are_held_back() {
    let mut scene = Scene::new();
    let mut messages = Vec::new();
    for _ in 0..9 {
        scene.park(1, "нет годного e-mail");
        messages.extend(scene.look_after(10 * MINUTE));
    }

    assert_eq!(messages.len(), 4);
    let is_last: Vec<bool> = messages
        .iter()
        .map(|m| m.text.contains("не раньше 23.11 10:10 UTC"))
        .collect();
    assert_eq!(is_last, [false, false, false, true]);

    scene.halt(HaltCause::AmocrmForbidden);
    assert_eq!(
        kinds(&scene.look()),
        [Kind::Halted],
        "it has room of its own"
    );

    scene.now = "2026-11-23T10:09:59Z".parse().unwrap();
    assert_eq!(scene.look(), []);
    let rest = only(scene.look_after(SECOND));
    assert!(rest.text.contains("записей: 5"), "{}", rest.text);
}

#[test]
fn the_sixth_halt_of_a_day_is_the_last_but_its_end_is_told() {
    let mut scene = Scene::new();
    let mut said = Vec::new();
    for _ in 0..8 {
        scene.halt(HaltCause::SupabaseProject);
        said.extend(scene.look());
        scene.state = SyncState::Working;
        said.extend(scene.look_after(MINUTE));
        said.extend(scene.look_after(MINUTE));
    }

    assert_eq!(kinds(&said), [Kind::Halted, Kind::Recovered].repeat(6));
    assert!(said[10].text.contains("не раньше"), "{}", said[10].text);
    assert!(!said[8].text.contains("не раньше"), "{}", said[8].text);
}

#[test]
fn the_end_of_a_token_is_told_three_times_and_never_twice() {
    const DAY: Duration = Duration::from_hours(24);
    let mut scene = Scene::new();
    scene.tokens = vec![TokenEnd {
        name: "SUPABASE_JWT",
        expires_at: scene.now.checked_add(40 * DAY + HOUR).unwrap(),
    }];
    let mut told = Vec::new();
    for day in 0..45_u64 {
        if day % 3 == 0 {
            scene.restart();
        }
        for message in scene.look() {
            assert_eq!(message.kind, Kind::Expiring);
            assert!(
                message.text.contains("tripwire-sync jwt"),
                "{}",
                message.text
            );
            told.push(day);
        }
        scene.now = scene.now.checked_add(DAY).unwrap();
    }
    // The first look with less than 30 days, 7 days and one day left; nothing once it has ended.
    assert_eq!(told, [11, 34, 40]);

    // A new token is announced anew, and the announcements of the old one are forgotten.
    scene.tokens[0].expires_at = scene.now.checked_add(20 * DAY).unwrap();
    assert!(only(scene.look()).text.contains("осталось дней: 20"));
    assert_eq!(scene.alerts.said().tokens.len(), 1);
    scene.restart();
    assert_eq!(scene.look(), []);
}

fn refused(scene: &mut Scene, row: u128) {
    let row = RowId::new(uuid::Uuid::from_u128(row));
    let (operation, now) = (Operation::Create, scene.now);
    let at = std::time::Instant::now();
    let reason = "amoCRM отклонила запрос (400): Код ошибки 244";
    scene
        .refusals
        .refuse(operation, row, true, reason, (at, now));
}

#[test]
fn what_stays_in_doubt_is_told_within_ten_minutes_and_once() {
    let mut scene = Scene::new();
    refused(&mut scene, 1);
    assert_eq!(scene.look(), []);
    scene.now = scene.now.checked_add(6 * MINUTE).unwrap();
    let said = scene.look();
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].kind, Kind::InDoubt);
    for told in ["создание сделки", "244", "000000000001", "park"] {
        assert!(said[0].text.contains(told), "{}", said[0].text);
    }
    assert_eq!(scene.look(), []);

    // Another one is news.
    refused(&mut scene, 2);
    scene.now = scene.now.checked_add(6 * MINUTE).unwrap();
    let said = scene.look();
    assert_eq!(said.len(), 1);
    assert!(said[0].text.contains("000000000002"), "{}", said[0].text);
    assert!(!said[0].text.contains("000000000001"), "{}", said[0].text);
}

#[test]
fn what_is_decided_within_minutes_is_not_told_as_in_doubt() {
    let mut scene = Scene::new();
    refused(&mut scene, 1);
    let other = RowId::new(uuid::Uuid::from_u128(2));
    scene
        .refusals
        .worked(Operation::Create, other, std::time::Instant::now());
    scene.now = scene.now.checked_add(6 * MINUTE).unwrap();
    assert_eq!(scene.look(), []);
}

#[test]
fn a_halt_names_its_rows_and_what_was_refused() {
    let mut scene = Scene::new();
    scene.halt(HaltCause::AmocrmAccount);
    scene.halt = Some(Halt {
        cause: HaltCause::AmocrmAccount,
        since: scene.now,
        probes: 0,
        next_probe: None,
        detail: "amoCRM перенаправляет на new.amocrm.ru (301)".to_owned(),
        operation: Some(Operation::Move),
        rows: (1..=7)
            .map(|n| RowId::new(uuid::Uuid::from_u128(n)))
            .collect(),
    });
    let said = scene.look();
    let text = &said[0].text;
    for told in ["new.amocrm.ru", "000000000001", "000000000005", "и ещё 2"] {
        assert!(text.contains(told), "{text}");
    }
    assert!(!text.contains("000000000006"), "{text}");
}

#[test]
fn doubled_deals_are_gathered_and_told_once() {
    let mut scene = Scene::new();
    for n in 1..=8 {
        scene.doubled.push(Doubled {
            row: RowId::new(uuid::Uuid::from_u128(n)),
            deal: DealId::new(70),
            late: vec![DealId::new(60), DealId::new(61)],
            found_at: scene.now,
        });
        scene.now += jiff::SignedDuration::from_secs(1);
    }
    assert_eq!(scene.look(), []);
    let message = only(scene.look_after(5 * MINUTE));
    assert_eq!(message.kind, Kind::Doubled);
    for told in ["записей: 8", "сделка строки 70, лишняя 60, 61", "и ещё 2"]
    {
        assert!(message.text.contains(told), "{}", message.text);
    }
    assert_eq!(scene.look_after(48 * HOUR), []);
    scene.restart();
    assert_eq!(scene.look_after(HOUR), []);
}

#[test]
fn a_replaced_inbox_is_told_once_and_says_whether_a_person_must_resume() {
    for is_whole in [true, false] {
        let mut scene = Scene::new();
        scene.replaced = Some(Replaced {
            at: scene.now,
            is_whole,
            parked: 3,
            others: 5,
            kept_as: "inbox.db.damaged-20261122T100000.000Z".to_owned(),
        });
        let message = only(scene.look());
        assert_eq!(message.kind, Kind::Replaced);
        assert_eq!(
            message.text.contains("tripwire-sync resume"),
            !is_whole,
            "{}",
            message.text
        );
        assert!(message.text.contains("inbox.db.damaged-2026"));
        scene.restart();
        assert_eq!(kinds(&scene.look_after(HOUR)), []);
    }
}

#[test]
fn an_inbox_that_cannot_be_written_is_told_once_and_each_day_until_it_can() {
    let mut scene = Scene::new();
    assert_eq!(scene.look(), []);
    let since = scene.now;
    let unwritable = SyncState::Inbox {
        fault: InboxFault::Unwritable,
        since,
    };
    scene.state = unwritable;

    let first = only(scene.look());
    assert_eq!(first.kind, Kind::Inbox);
    assert!(
        first
            .text
            .contains(InboxFault::Unwritable.hint(Lang::Russian))
    );
    assert!(first.text.contains("22.11 10:00 UTC"), "{}", first.text);
    assert_eq!(scene.look_after(23 * HOUR), []);

    // Writing worked for a moment: the fault has not ended, and the next failure is no new fault.
    scene.state = SyncState::Working;
    assert_eq!(scene.look_after(SECOND), []);
    scene.state = SyncState::Inbox {
        fault: InboxFault::Unwritable,
        since: scene.now,
    };
    assert_eq!(scene.look_after(MINUTE), []);
    let again = only(scene.look_after(HOUR));
    assert!(again.text.contains("всё ещё"), "{}", again.text);
    assert!(again.text.contains("22.11 10:00 UTC"), "{}", again.text);

    scene.state = SyncState::Working;
    assert_eq!(scene.look(), []);
    let over = only(scene.look_after(MINUTE));
    assert_eq!(over.kind, Kind::Writable);
    assert_eq!(scene.look_after(HOUR), []);
}

#[test]
fn every_fault_of_the_inbox_is_told_after_another() {
    let mut scene = Scene::new();
    let since = scene.now;
    for fault in [
        InboxFault::Full,
        InboxFault::Unwritable,
        InboxFault::FileLost,
    ] {
        scene.state = match fault {
            InboxFault::Full => SyncState::InboxFull { since },
            _ => SyncState::Inbox { fault, since },
        };
        let message = only(scene.look());
        assert!(
            message.text.contains(fault.hint(Lang::Russian)),
            "{}",
            message.text
        );
    }
}

#[test]
fn a_halt_is_not_called_over_because_the_inbox_hides_it() {
    let mut scene = Scene::new();
    scene.halt(HaltCause::AmocrmToken);
    let halted = scene.state;
    assert_eq!(kinds(&scene.look()), [Kind::Halted]);
    scene.state = SyncState::Inbox {
        fault: InboxFault::Unwritable,
        since: scene.now,
    };
    assert_eq!(kinds(&scene.look_after(MINUTE)), [Kind::Inbox]);
    assert_eq!(scene.look_after(HOUR), []);
    scene.state = halted;
    scene.look();
    assert_eq!(kinds(&scene.look_after(MINUTE)), [Kind::Writable]);
    scene.state = SyncState::Working;
    scene.look();
    assert_eq!(kinds(&scene.look_after(MINUTE)), [Kind::Recovered]);
}
