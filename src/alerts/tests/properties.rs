//! Any events in any order: few messages, and none lost.

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Debug, Clone)]
enum Happening {
    Nothing,
    Halt(HaltCause),
    Work,
    Pause,
    Park(usize),
    Late(bool),
    InDoubt(bool),
    FreeSpace(u64),
    Silence(bool),
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => Just(Happening::Nothing),
        2 => prop_oneof![Just(HaltCause::AmocrmToken), Just(HaltCause::SupabaseKey)].prop_map(Happening::Halt),
        2 => Just(Happening::Work),
        1 => Just(Happening::Pause),
        3 => (1..40_usize).prop_map(Happening::Park),
        1 => any::<bool>().prop_map(Happening::Late),
        1 => any::<bool>().prop_map(Happening::InDoubt),
        1 => (0..200_u64).prop_map(Happening::FreeSpace),
        1 => any::<bool>().prop_map(Happening::Silence),
        1 => Just(Happening::Restart),
    ]
}

fn pause() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (1..600_u64).prop_map(Duration::from_secs),
        1 => (600..40_000_u64).prop_map(Duration::from_secs),
    ]
}

impl Scene {
    fn happens(&mut self, happening: &Happening) {
        match happening {
            Happening::Nothing => {}
            Happening::Halt(cause) => self.halt(*cause),
            Happening::Work => self.state = SyncState::Working,
            Happening::Pause => self.state = SyncState::Paused { since: self.now },
            Happening::Park(count) => self.park(*count, "нет годного e-mail"),
            Happening::Late(false) => self.late.clear(),
            Happening::Late(true) => {
                let stuck = self.stuck("сбой amoCRM (502)");
                self.late.push(stuck);
            }
            Happening::InDoubt(is_there) => {
                let row = RowId::new(uuid::Uuid::from_u128(1));
                self.unresolved = is_there.then_some(row).into_iter().collect();
            }
            Happening::FreeSpace(mib) => {
                let (free, size) = (mib << 20, 0);
                self.disk = Some(DiskSpace { free, size });
            }
            Happening::Silence(is_there) => {
                let mut tests = EventTests::default();
                if *is_there {
                    let failed = EventTest::Failed(EventFault::NotSent);
                    tests.ended(failed, self.now, true, None);
                }
                self.events = tests.shown(None, Timestamp::MIN);
            }
            Happening::Restart => self.restart(),
        }
    }
}

fn count(said: &[(Timestamp, Kind)], kind: Kind) -> usize {
    said.iter().filter(|(_, of)| *of == kind).count()
}

/// The number in "отложено записей: 12".
fn told_parked(message: &Message) -> usize {
    let (_, rest) = message.text.split_once("отложено записей: ").unwrap();
    rest.lines().next().unwrap().parse().unwrap()
}

proptest! {
    #[test]
    fn a_day_has_six_alarms_at_most_and_everything_parked_is_told_once(
        script in vec((pause(), happening()), 1..150)
    ) {
        let mut scene = Scene::new();
        let mut said = Vec::new();
        let mut parked = 0;
        for (pause, happening) in &script {
            scene.now = scene.now.checked_add(*pause).unwrap();
            scene.happens(happening);
            let had_room = alarms_of_a_day(&said, scene.now) < ALARMS_A_DAY;
            let messages = scene.look();
            if let (Happening::Halt(_), true) = (happening, had_room) {
                prop_assert_eq!(messages[0].kind, Kind::Halted, "a halt comes first, and at once");
            }
            for message in messages {
                if message.kind == Kind::Parked {
                    parked += told_parked(&message);
                }
                prop_assert!(message.text.chars().count() < 4_096);
                said.push((scene.now, message.kind));
                for (end, beginning) in [
                    (Kind::Recovered, Kind::Halted),
                    (Kind::Moving, Kind::Late),
                    (Kind::Resolved, Kind::Unresolved),
                    (Kind::DiskFreed, Kind::Disk),
                    (Kind::Arriving, Kind::Silent),
                ] {
                    prop_assert!(count(&said, end) <= count(&said, beginning));
                }
                prop_assert!(alarms_of_a_day(&said, scene.now) <= ALARMS_A_DAY);
            }
        }
        // A quiet day later there is room for all that was held back.
        let rest = scene.look_after(25 * HOUR);
        parked += rest.iter().filter(|message| message.kind == Kind::Parked).map(told_parked).sum::<usize>();
        prop_assert_eq!(parked, scene.parked.len());
    }
}

fn alarms_of_a_day(said: &[(Timestamp, Kind)], now: Timestamp) -> usize {
    said.iter()
        .filter(|(at, kind)| {
            let is_alarm = kind.alarm(*at).is_some();
            is_alarm && at.checked_add(24 * HOUR).unwrap() > now
        })
        .count()
}
