//! A damaged file at the start: what is carried over, what is not, and a death at any point of it.

use std::{collections::BTreeSet, fs};

use super::*;
use crate::{
    domain::{Halt, HaltCause, Operation, Refusals},
    inbox::sqlite::replace::{self, Step},
};

/// SQLite's default.
const PAGE: usize = 4096;
const ROWS: u128 = 400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    ZeroedHeader,
    RandomInTheMiddle,
    Halved,
    HalvedWithinAPage,
    Emptied,
    Text,
    ShortText,
    Table(&'static str),
    ZeroedTable(&'static str),
    Index,
}

impl Damage {
    fn strike(self, file: &mut Vec<u8>, root_of: impl Fn(&str) -> usize) {
        // From a page's root alone all else is found: some leaves behind it stay.
        let page = |name: &str| root_of(name)..root_of(name) + PAGE;
        match self {
            Self::ZeroedHeader => file[..100].fill(0),
            Self::RandomInTheMiddle => {
                let middle = file.len() / 2 / PAGE * PAGE;
                for (byte, n) in file[middle..middle + 4 * PAGE].iter_mut().zip(1_u32..) {
                    *byte = u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap();
                }
            }
            Self::Halved => file.truncate(file.len() / 2 / PAGE * PAGE),
            Self::HalvedWithinAPage => file.truncate(file.len() / 2 + 123),
            Self::Emptied => file.clear(),
            Self::Text => *file = "this is a text and no inbox\n".repeat(500).into_bytes(),
            Self::ShortText => *file = b"no inbox".to_vec(),
            Self::Table(name) => file[page(name)].fill(0xA5),
            Self::ZeroedTable(name) => file[page(name)].fill(0),
            Self::Index => file[page("entry_by_state")].fill(0xA5),
        }
    }
}

fn halt(rows: Vec<RowId>) -> Halt {
    Halt {
        cause: HaltCause::AmocrmForbidden,
        since: "2026-11-22T09:00:00Z".parse().unwrap(),
        probes: 0,
        next_probe: None,
        detail: "403".to_owned(),
        operation: None,
        rows,
    }
}

/// Rows 0 to 9 are parked, 10 to 19 done, 20 waits, the others are pending; sending is halted and paused.
async fn closed_inbox() -> Fixture {
    let t = Fixture::new().await;
    t.store((0..ROWS).map(delivered).collect::<Vec<_>>()).await;
    let claim = t.inbox.claim(21, None).await.unwrap().unwrap();
    let mut ends: Vec<Settled> = (0..10).map(parked).collect();
    ends.extend((10..20).map(done));
    ends.push(waiting(20, t.in_a_minute()));
    t.inbox.settle(claim.token, ends).await.unwrap();
    t.inbox.set_state(HALT, &halt(Vec::new())).await.unwrap();
    t.inbox.set_state(PAUSED, &t.now()).await.unwrap();
    t.inbox.close().await;
    t.clock.advance(MINUTE);
    t
}

impl Fixture {
    async fn strike(&self, damage: Damage) {
        let mut conn = self.connect().await;
        let roots: Vec<(String, i64)> =
            sqlx::query_as("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0")
                .fetch_all(&mut conn)
                .await
                .unwrap();
        conn.close().await.unwrap();
        let mut file = fs::read(self.path()).unwrap();
        damage.strike(&mut file, |name| {
            let (_, root) = roots.iter().find(|(found, _)| found == name).unwrap();
            (usize::try_from(*root).unwrap() - 1) * PAGE
        });
        fs::write(self.path(), file).unwrap();
    }

    async fn restarted(self) -> Self {
        let path = self.path();
        let inbox = Inbox::open_or_replace(&path, self.clock.clone())
            .await
            .unwrap();
        Self { inbox, ..self }
    }

    async fn replaced(&self) -> Option<Replaced> {
        self.inbox.state(REPLACED).await.unwrap()
    }

    fn files(&self) -> BTreeSet<String> {
        let files = fs::read_dir(self.folder.path()).unwrap();
        files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

#[tokio::test]
async fn whatever_the_damage_the_service_starts_and_forgets_no_halt_and_no_pause() {
    // Whether the state can be read, and all unfinished entries.
    let table = [
        (Damage::ZeroedHeader, false, false),
        (Damage::RandomInTheMiddle, true, false),
        (Damage::Halved, false, false),
        (Damage::HalvedWithinAPage, false, false),
        (Damage::Emptied, false, false),
        (Damage::Text, false, false),
        (Damage::ShortText, false, false),
        (Damage::Table("state"), false, true),
        (Damage::ZeroedTable("state"), false, true),
        (Damage::Table("entry"), true, false),
        (Damage::ZeroedTable("entry"), true, false),
        (Damage::Table("hash_key"), true, true),
        (Damage::Table("person"), true, true),
        (Damage::Index, true, true),
    ];
    for (damage, state, entries) in table {
        let t = closed_inbox().await;
        t.strike(damage).await;
        for role in [Role::Guest, Role::Owner] {
            // A guest does not look at all pages.
            let is_met = role == Role::Owner || matches!(damage, Damage::Emptied | Damage::Text);
            let opened = t.open(role).await;
            assert!(!is_met || opened.is_err(), "{damage:?}");
            if let Ok(inbox) = opened {
                inbox.close().await;
            }
        }

        let t = t.restarted().await;
        let replaced = t.replaced().await.unwrap();
        assert_eq!(replaced.is_whole, state && entries, "{damage:?}");
        let paused: Option<Timestamp> = t.inbox.state(PAUSED).await.unwrap();
        let since = if state { t.now() - MINUTE } else { t.now() };
        assert_eq!(paused, Some(since), "{damage:?}");
        let halted: Option<Halt> = t.inbox.state(HALT).await.unwrap();
        assert_eq!(halted, state.then(|| halt(Vec::new())), "{damage:?}");
        let counts = t.inbox.counts().await.unwrap().by_state;
        let carried = [State::Parked, State::Pending].map(|state| counts.get(&state).copied());
        if entries {
            assert_eq!(carried, [Some(10), Some(380)], "{damage:?}");
        }
        assert!(t.files().contains(&replaced.kept_as), "{:?}", t.files());
        assert_eq!(t.store([delivered(10_000)]).await, [Stored::New]);
        t.inbox.close().await;

        // The new file is as good as any.
        let t = t.restarted().await;
        assert_eq!(t.replaced().await, Some(replaced), "{damage:?}");
        assert_eq!(t.state_of(10_000).await, State::Pending);
    }
}

/// Pseudo-random numbers, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[tokio::test]
async fn whichever_bytes_are_damaged_a_replaced_inbox_has_its_halt_or_is_paused() {
    let mut numbers = Numbers(7);
    let mut replaced = 0;
    let t = closed_inbox().await;
    let mut inbox = t.open(Role::Owner).await.unwrap();
    inbox.clear_state(PAUSED).await.unwrap();
    inbox.close().await;
    let sound = fs::read(t.path()).unwrap();
    for round in 0..40 {
        let mut file = sound.clone();
        for _ in 0..=numbers.below(4) {
            let length = 1 << numbers.below(13);
            let from = numbers.below(file.len() - length);
            for byte in &mut file[from..from + length] {
                *byte = u8::try_from(numbers.below(256)).unwrap();
            }
        }
        fs::write(t.path(), file).unwrap();
        t.clock.advance(MINUTE);
        inbox = match Inbox::open_or_replace(&t.path(), t.clock.clone()).await {
            Ok(inbox) => inbox,
            // What SQLite does not call damage, such as a migration of another content, needs a person.
            Err(error) => {
                assert!(matches!(error, InboxError::Open { .. }), "{round}: {error}");
                continue;
            }
        };
        if inbox.state::<Replaced>(REPLACED).await.unwrap().is_some() {
            replaced += 1;
            let halted: Option<Halt> = inbox.state(HALT).await.unwrap();
            let paused: Option<Timestamp> = inbox.state(PAUSED).await.unwrap();
            assert!(
                halted == Some(halt(Vec::new())) || paused.is_some(),
                "{round}"
            );
        }
        inbox.close().await;
    }
    assert!(replaced > 20, "{replaced}");
}

#[tokio::test]
async fn of_entries_in_the_damaged_middle_those_at_both_ends_are_carried_over() {
    let t = closed_inbox().await;
    t.strike(Damage::RandomInTheMiddle).await;
    let t = t.restarted().await;
    assert_eq!(t.state_of(0).await, State::Parked);
    assert_eq!(t.entry(0).await.reason.as_deref(), Some("две сделки"));
    assert_eq!(t.state_of(ROWS - 1).await, State::Pending);
}

#[tokio::test]
async fn what_is_whole_and_was_not_paused_goes_on() {
    let t = Fixture::new().await;
    t.settled(parked(1)).await;
    t.inbox.close().await;
    t.strike(Damage::Index).await;
    let t = t.restarted().await;
    assert_eq!(t.inbox.state::<Timestamp>(PAUSED).await.unwrap(), None);
    assert_eq!(t.state_of(1).await, State::Parked);
    assert_eq!(t.story(1).await, [Fact::CarriedOver]);
    assert_eq!(
        t.inbox.revive(Revival::AllParked).await.unwrap(),
        1,
        "a person may let it go"
    );
    assert_eq!(rows_of(&t.claim().await.entries), [row(1)]);
}

#[tokio::test]
async fn rows_that_a_halt_or_a_refusal_names_have_an_entry() {
    let t = Fixture::new().await;
    let mut refusals = Refusals::default();
    let at = (std::time::Instant::now(), t.now());
    refusals.refuse(Operation::Move, row(7), true, "400", at);
    t.inbox.set_state(REFUSALS, &refusals).await.unwrap();
    t.inbox
        .set_state(HALT, &halt(vec![row(7), row(8)]))
        .await
        .unwrap();
    t.inbox.close().await;
    t.strike(Damage::Table("entry")).await;
    let t = t.restarted().await;
    let carried: Refusals = t.inbox.state(REFUSALS).await.unwrap().unwrap();
    assert!(carried.is_refused(Operation::Move, row(7)));
    for n in [7, 8] {
        assert_eq!(t.state_of(n).await, State::Pending);
    }
}

#[tokio::test]
async fn a_row_keeps_its_steps_its_backfill_and_none_of_its_hashes() {
    let t = Fixture::new().await;
    t.store([backfilled(1)]).await;
    let claim = t.claim().await;
    let done = Progress {
        person: Some(hash(1)),
        phone: Some(hash(2)),
        ..placed(5, None)
    };
    t.inbox
        .checkpoint(claim.token, vec![mark(1, done.clone())])
        .await
        .unwrap();
    t.inbox.close().await;
    t.strike(Damage::Table("hash_key")).await;
    let before = t.inbox.hasher().text("t", "x");
    let t = t.restarted().await;
    assert_ne!(t.inbox.hasher().text("t", "x"), before);
    let entry = t.entry(1).await;
    assert_eq!((entry.lane, entry.state), (Lane::Backfill, State::Pending));
    assert_eq!(entry.backfill, Some(BackfillId(1)));
    assert_eq!(entry.progress, done.without_hashes());
    assert!(entry.progress.step.has_written());
    assert_eq!(
        t.inbox.begin_backfill().await.unwrap(),
        BackfillId(2),
        "no number is used again"
    );
}

#[test]
fn without_its_hashes_progress_says_what_is_done_and_a_lost_create_is_chosen_anew() {
    let at = Timestamp::UNIX_EPOCH;
    let moved = placed(5, Some(at));
    let table = [
        (chosen(5), Progress::default()),
        (
            Progress {
                person: Some(hash(1)),
                ..creating(5, at)
            },
            Progress::default(),
        ),
        (moved.clone(), moved),
    ];
    for (before, after) in table {
        assert_eq!(before.without_hashes(), after);
    }
}

#[tokio::test]
async fn a_death_at_any_point_of_a_replacement_loses_nothing_that_was_carried_over() {
    for dies_after in 0..=Step::ALL.len() {
        let t = closed_inbox().await;
        t.strike(Damage::Index).await;
        let begun = replace::begin(&t.path(), t.now()).await.unwrap();
        // As they lie there after a kill.
        for name in ["inbox.db-wal", "inbox.db-shm"] {
            fs::write(t.folder.path().join(name), "of the damaged file").unwrap();
        }
        let stamp = begun.kept_as.strip_prefix("inbox.db.damaged-").unwrap();
        for step in &Step::ALL[..dies_after] {
            step.take(&t.path(), stamp).unwrap();
        }
        if dies_after < Step::ALL.len() {
            let opened = t.open(Role::Guest).await;
            assert!(opened.is_err(), "{dies_after}: a guest makes no empty file");
        }

        t.clock.advance(MINUTE);
        let t = t.restarted().await;
        assert_eq!(t.replaced().await, Some(begun.clone()), "{dies_after}");
        let halted: Option<Halt> = t.inbox.state(HALT).await.unwrap();
        assert_eq!(halted, Some(halt(Vec::new())), "{dies_after}");
        let counts = t.inbox.counts().await.unwrap().by_state;
        assert_eq!(counts[&State::Parked], 10, "{dies_after}");
        let files = t.files();
        for suffix in ["", "-wal", "-shm"] {
            assert!(
                files.contains(&format!("{}{suffix}", begun.kept_as)),
                "{files:?}"
            );
        }
        let is_left = |name: &String| name.contains(".new-") || name.contains(".building");
        assert!(!files.iter().any(is_left), "{files:?}");
    }
}

#[tokio::test]
async fn a_death_while_the_new_file_is_built_leaves_the_damaged_one_to_be_read_again() {
    let t = closed_inbox().await;
    t.strike(Damage::Index).await;
    for name in ["inbox.db.building", "inbox.db.building-journal"] {
        fs::write(t.folder.path().join(name), "half").unwrap();
    }
    let t = t.restarted().await;
    assert!(t.replaced().await.unwrap().is_whole);
    assert!(!t.files().iter().any(|name| name.contains(".building")));
}

#[tokio::test]
async fn two_damaged_files_are_kept_and_older_ones_removed() {
    let mut t = closed_inbox().await;
    let mut kept = Vec::new();
    for _ in 0..4 {
        t.strike(Damage::Text).await;
        t.clock.advance(MINUTE);
        t = t.restarted().await;
        kept.push(t.replaced().await.unwrap().kept_as);
        t.inbox.close().await;
    }
    let damaged: Vec<String> = t
        .files()
        .into_iter()
        .filter(|it| it.contains("damaged"))
        .collect();
    assert_eq!(damaged, kept[2..]);
}

#[tokio::test]
async fn another_error_than_damage_replaces_nothing() {
    let t = closed_inbox().await;
    t.tamper("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'newer', 1, x'00', 0)")
        .await;
    let opened = Inbox::open_or_replace(&t.path(), t.clock.clone()).await;
    assert!(matches!(opened, Err(InboxError::Open { .. })), "{opened:?}");

    let folder = t.folder.path().join("folder.db");
    fs::create_dir(&folder).unwrap();
    let opened = Inbox::open_or_replace(&folder, t.clock.clone()).await;
    assert!(matches!(opened, Err(InboxError::Open { .. })), "{opened:?}");

    let held = Fixture::new().await;
    let opened = Inbox::open_or_replace(&held.path(), t.clock.clone()).await;
    assert!(matches!(opened, Err(InboxError::AlreadyOwned { .. })));
    for files in [t.files(), held.files()] {
        assert!(!files.iter().any(|name| name.contains("damaged")));
    }
}

#[tokio::test]
async fn an_empty_file_without_a_former_owner_is_a_first_start() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::at(Timestamp::UNIX_EPOCH);
    let path = folder.path().join("inbox.db");
    fs::write(&path, "").unwrap();
    let inbox = Inbox::open_or_replace(&path, clock).await.unwrap();
    assert_eq!(inbox.state::<Replaced>(REPLACED).await.unwrap(), None);
    assert_eq!(inbox.state::<Timestamp>(PAUSED).await.unwrap(), None);
}
