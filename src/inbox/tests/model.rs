//! Any sequence of commands, against the same rules written down over a map.

use proptest::{collection::vec, prelude::*};

use super::*;

const ROWS: u128 = 6;

#[derive(Debug, Clone)]
enum Step {
    Store(Vec<Arrival>),
    Claim(u32, Option<Lane>),
    /// Under the claim of this number (of those handed out so far).
    Checkpoint(usize, Vec<u128>, Progress),
    Settle(usize, Vec<u128>, Ending, Progress),
    Revive(Revival),
    Purge,
    Wait,
    Restart,
}

/// A settlement without its times.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Done,
    Failed,
    Postponed,
    Waiting,
    Parked,
}

impl Ending {
    fn at(self, now: Timestamp) -> Settlement {
        let due_at = now + MINUTE;
        let reason = "причина".to_owned();
        match self {
            Self::Done => Settlement::Done(Outcome::Synced),
            Self::Failed => Settlement::Again {
                due_at,
                failed: true,
                reason: Some(reason),
            },
            Self::Postponed => Settlement::Again {
                due_at: now,
                failed: false,
                reason: None,
            },
            Self::Waiting => Settlement::Waiting { due_at, reason },
            Self::Parked => Settlement::Parked { reason },
        }
    }
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    claim: Option<ClaimToken>,
}

#[derive(Debug, Default)]
struct Model {
    /// In the order of storing.
    kept: Vec<Kept>,
    people: HashMap<KeyedHash, (Known, Timestamp)>,
}

impl Model {
    fn find(&mut self, row: RowId) -> Option<&mut Kept> {
        self.kept.iter_mut().find(|kept| kept.entry.row == row)
    }

    fn store(&mut self, now: Timestamp, arrival: &Arrival) -> Stored {
        let asked_for = match arrival.source {
            Source::Backfill(backfill) => Some(backfill),
            Source::Webhook { .. } | Source::Sweep | Source::ShortSweep => None,
        };
        let Some(Kept { entry, .. }) = self.find(arrival.row) else {
            let (lane, delivery) = match &arrival.source {
                Source::Webhook { delivery } => (Lane::Live, Some(delivery.clone())),
                Source::Sweep | Source::ShortSweep => (Lane::Live, None),
                Source::Backfill(_) => (Lane::Backfill, None),
            };
            let entry = Entry {
                row: arrival.row,
                lane,
                state: State::Pending,
                due_at: now,
                attempts: 0,
                delivery,
                outcome: None,
                backfill: asked_for,
                reason: None,
                progress: Progress::default(),
                stored_at: now,
                updated_at: now,
            };
            self.kept.push(Kept { entry, claim: None });
            return Stored::New;
        };
        entry.backfill = asked_for.or(entry.backfill);
        if let Source::Webhook { delivery } = &arrival.source {
            entry.delivery.get_or_insert_with(|| delivery.clone());
        }
        match (&arrival.source, entry.state, entry.lane) {
            (Source::Webhook { .. }, State::Pending, Lane::Backfill) => {
                entry.lane = Lane::Live;
                entry.updated_at = now;
                Stored::Duplicate
            }
            (Source::Sweep | Source::ShortSweep | Source::Backfill(_), State::Done, _) => {
                if asked_for.is_some() {
                    entry.lane = Lane::Backfill;
                }
                entry.state = State::Pending;
                (entry.due_at, entry.updated_at) = (now, now);
                entry.attempts = 0;
                entry.outcome = None;
                entry.reason = None;
                entry.progress.absent_since = None;
                entry.progress.missed_since = None;
                entry.progress.daily_searches = DailySearches::default();
                Stored::Reopened
            }
            _ => Stored::Duplicate,
        }
    }

    fn claim(&mut self, now: Timestamp, limit: u32, only: Option<Lane>) -> Vec<RowId> {
        let mut due: Vec<(Lane, Timestamp, usize)> = self
            .kept
            .iter()
            .enumerate()
            .filter(|(_, kept)| matches!(kept.entry.state, State::Pending | State::Waiting))
            .filter(|(_, kept)| only.is_none_or(|only| kept.entry.lane == only))
            .filter(|(_, kept)| kept.entry.due_at <= now)
            .map(|(index, kept)| (kept.entry.lane, kept.entry.due_at, index))
            .collect();
        due.sort();
        let lane = due.first().map(|(lane, ..)| *lane);
        due.retain(|due| Some(due.0) == lane);
        due.truncate(limit as usize);
        due.into_iter()
            .map(|(.., index)| {
                let entry = &mut self.kept[index].entry;
                if entry.state == State::Waiting {
                    entry.attempts = 0;
                }
                entry.state = State::Claimed;
                entry.updated_at = now;
                entry.row
            })
            .collect()
    }

    fn holds(&mut self, token: ClaimToken, rows: &[RowId]) -> bool {
        rows.iter().all(|row| {
            self.find(*row)
                .is_some_and(|kept| kept.claim == Some(token))
        })
    }

    fn settle(&mut self, now: Timestamp, row: RowId, settlement: &Settlement, steps: &Progress) {
        let Some(Kept { entry, claim }) = self.find(row) else {
            panic!("settles a row that is not there");
        };
        *claim = None;
        entry.updated_at = now;
        entry.progress = steps.clone();
        entry.reason = None;
        match settlement {
            Settlement::Done(outcome) => {
                entry.state = State::Done;
                entry.outcome = Some(*outcome);
            }
            Settlement::Again {
                due_at,
                failed,
                reason,
            } => {
                entry.state = State::Pending;
                entry.due_at = *due_at;
                entry.attempts += u32::from(*failed);
                entry.reason.clone_from(reason);
            }
            Settlement::Waiting { due_at, reason } => {
                entry.state = State::Waiting;
                entry.due_at = *due_at;
                entry.reason = Some(reason.clone());
            }
            Settlement::Parked { reason } => {
                entry.state = State::Parked;
                entry.reason = Some(reason.clone());
            }
        }
    }

    fn revive(&mut self, now: Timestamp, whom: &Revival) -> u64 {
        let mut revived = 0;
        for Kept { entry, .. } in &mut self.kept {
            let meant = match whom {
                Revival::Rows(rows) => {
                    rows.contains(&entry.row)
                        && !matches!(entry.state, State::Done | State::Claimed)
                }
                Revival::Suspects(rows) => {
                    rows.contains(&entry.row) && entry.state == State::Pending
                }
                Revival::AllParked => entry.state == State::Parked,
                Revival::Waiting(keys) => {
                    let known = [entry.progress.person, entry.progress.phone];
                    let awaited = known.iter().flatten().any(|key| keys.contains(key));
                    entry.state == State::Waiting && awaited
                }
            };
            if !meant {
                continue;
            }
            revived += 1;
            entry.state = State::Pending;
            (entry.due_at, entry.updated_at) = (now, now);
            entry.attempts = 0;
        }
        revived
    }

    fn purge(&mut self, before: Timestamp) -> u64 {
        let count = self.kept.len();
        self.kept
            .retain(|Kept { entry, .. }| entry.state != State::Done || entry.updated_at >= before);
        let people: HashSet<_> = self
            .kept
            .iter()
            .filter_map(|kept| kept.entry.progress.person)
            .collect();
        self.people
            .retain(|person, (_, used_at)| *used_at >= before || people.contains(person));
        (count - self.kept.len()) as u64
    }

    fn restart(&mut self, now: Timestamp) {
        for Kept { entry, claim } in &mut self.kept {
            if claim.take().is_some() {
                entry.state = State::Pending;
                (entry.due_at, entry.updated_at) = (now, now);
            }
        }
    }
}

fn one_row() -> impl Strategy<Value = u128> {
    0..ROWS
}

fn few_rows() -> impl Strategy<Value = Vec<u128>> {
    proptest::sample::subsequence((0..ROWS).collect::<Vec<_>>(), 1..=3)
}

fn arrival() -> impl Strategy<Value = Arrival> {
    (
        one_row(),
        prop::sample::select(vec![delivered, swept, backfilled]),
    )
        .prop_map(|(n, source)| source(n))
}

fn lane() -> impl Strategy<Value = Option<Lane>> {
    prop::option::weighted(0.3, prop::sample::select(vec![Lane::Live, Lane::Backfill]))
}

fn key() -> impl Strategy<Value = KeyedHash> {
    (0..3_u8).prop_map(hash)
}

/// Each step, with and without a write that may be in flight.
fn begun() -> impl Strategy<Value = Progress> {
    let at = Timestamp::UNIX_EPOCH;
    prop_oneof![
        Just(Progress::default()),
        (1..4_i64).prop_map(chosen),
        (1..4_i64).prop_map(move |contact| creating(contact, at)),
        Just(creating_with_contact(at)),
        (1..4_i64, any::<bool>())
            .prop_map(move |(contact, unsure)| placed(contact, unsure.then_some(at))),
        (1..4_i64).prop_map(noted),
    ]
}

fn progress() -> impl Strategy<Value = Progress> {
    (
        prop::option::of(key()),
        prop::option::of(key()),
        begun(),
        any::<bool>(),
        prop::option::of((1..4_i64).prop_map(moved)),
    )
        .prop_map(|(person, phone, begun, missed, moved)| {
            let at = Timestamp::UNIX_EPOCH;
            Progress {
                person,
                phone,
                absent_since: missed.then_some(at),
                missed_since: missed.then_some(at),
                daily_searches: DailySearches {
                    in_vain: missed.into(),
                    next_from: missed.then_some(at),
                },
                moved,
                ..begun
            }
        })
}

proptest! {
    #[test]
    fn progress_is_read_as_it_was_written(progress in progress()) {
        let stored = serde_json::to_string(&progress).unwrap();
        prop_assert_eq!(serde_json::from_str::<Progress>(&stored).unwrap(), progress);
    }
}

fn revival() -> impl Strategy<Value = Revival> {
    prop_oneof![
        few_rows().prop_map(|rows| Revival::Rows(rows.into_iter().map(row).collect())),
        few_rows().prop_map(|rows| Revival::Suspects(rows.into_iter().map(row).collect())),
        Just(Revival::AllParked),
        vec(key(), 1..3).prop_map(Revival::Waiting),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    use Ending::{Done, Failed, Parked, Postponed, Waiting};
    let ending = prop::sample::select(vec![Done, Failed, Postponed, Waiting, Parked]);
    prop_oneof![
        6 => vec(arrival(), 1..6).prop_map(Step::Store),
        6 => (0..4_u32, lane()).prop_map(|(limit, only)| Step::Claim(limit, only)),
        4 => (0..3_usize, few_rows(), progress())
            .prop_map(|(back, rows, steps)| Step::Checkpoint(back, rows, steps)),
        8 => (0..3_usize, few_rows(), ending, progress())
            .prop_map(|(back, rows, ending, steps)| Step::Settle(back, rows, ending, steps)),
        3 => revival().prop_map(Step::Revive),
        1 => Just(Step::Purge),
        4 => Just(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// The real inbox and the model, side by side.
struct Pair {
    real: Fixture,
    model: Model,
    tokens: Vec<ClaimToken>,
}

impl Pair {
    /// Prefers the newest claims and the rows that they hold, so that guards also pass.
    fn under_claim(&mut self, back: usize, rows: &[u128]) -> Option<(ClaimToken, Vec<RowId>)> {
        let token = *self.tokens.iter().rev().nth(back)?;
        let held: Vec<RowId> = self
            .model
            .kept
            .iter()
            .filter(|kept| kept.claim == Some(token))
            .map(|kept| kept.entry.row)
            .take(rows.len())
            .collect();
        let rows = match rows[0] {
            0 => rows.iter().copied().map(row).collect(),
            _ if held.is_empty() => rows.iter().copied().map(row).collect(),
            _ => held,
        };
        Some((token, rows))
    }

    async fn take(&mut self, step: Step) {
        let now = self.real.now();
        match step {
            Step::Store(arrivals) => {
                let expected: Vec<Stored> = arrivals
                    .iter()
                    .map(|arrival| self.model.store(now, arrival))
                    .collect();
                assert_eq!(self.real.store(arrivals).await, expected);
            }
            Step::Claim(limit, only) => {
                let expected = self.model.claim(now, limit, only);
                let claim = self.real.inbox.claim(limit, only).await.unwrap();
                let rows = claim.as_ref().map_or(Vec::new(), |c| rows_of(&c.entries));
                assert_eq!(rows, expected);
                if let Some(Claim { token, .. }) = claim {
                    assert!(self.tokens.last().is_none_or(|last| last.0 < token.0));
                    self.tokens.push(token);
                    for row in rows {
                        self.model.find(row).unwrap().claim = Some(token);
                    }
                }
            }
            Step::Checkpoint(back, rows, progress) => {
                let Some((token, rows)) = self.under_claim(back, &rows) else {
                    return;
                };
                let known = Known {
                    contact: ContactId::new(1),
                    deal: DealId::new(i64::try_from(self.tokens.len()).unwrap()),
                };
                let marks: Vec<Mark> = rows
                    .iter()
                    .map(|row| Mark {
                        row: *row,
                        progress: progress.clone(),
                        person: progress.person.map(|person| (person, known)),
                    })
                    .collect();
                let expected = self.model.holds(token, &rows);
                let marked = self.real.inbox.checkpoint(token, marks).await;
                assert_guarded(marked, expected);
                if !expected {
                    return;
                }
                for row in rows {
                    let entry = &mut self.model.find(row).unwrap().entry;
                    entry.progress = progress.clone();
                    entry.updated_at = now;
                }
                if let Some(person) = progress.person {
                    self.model.people.insert(person, (known, now));
                }
            }
            Step::Settle(back, rows, ending, progress) => {
                let Some((token, rows)) = self.under_claim(back, &rows) else {
                    return;
                };
                let settlement = ending.at(now);
                let ends = rows
                    .iter()
                    .map(|row| Settled {
                        row: *row,
                        progress: progress.clone(),
                        settlement: settlement.clone(),
                        facts: vec![Fact::Noted],
                    })
                    .collect();
                let expected = self.model.holds(token, &rows);
                let settled = self.real.inbox.settle(token, ends).await;
                assert_guarded(settled, expected);
                if expected {
                    for row in rows {
                        self.model.settle(now, row, &settlement, &progress);
                    }
                }
            }
            Step::Revive(whom) => {
                let expected = self.model.revive(now, &whom);
                assert_eq!(self.real.inbox.revive(whom).await.unwrap(), expected);
            }
            Step::Purge => {
                let before = now - 2 * MINUTE;
                let expected = self.model.purge(before);
                let purged = self.real.inbox.purge_done(before).await.unwrap();
                assert_eq!(purged, expected);
            }
            Step::Wait => self.real.clock.advance(MINUTE),
            Step::Restart => {
                self.model.restart(now);
                self.real.inbox.close().await;
                self.real.inbox = self.real.open(Role::Owner).await.unwrap();
            }
        }
    }

    /// Compares the answers of all queries with those of the model.
    async fn compare(&self) {
        let (inbox, model) = (&self.real.inbox, &self.model);
        for n in 0..ROWS {
            let expected = model.kept.iter().find(|kept| kept.entry.row == row(n));
            let entry = inbox.entry(row(n)).await.unwrap();
            assert_eq!(entry.as_ref(), expected.map(|kept| &kept.entry));
        }
        let entries = || model.kept.iter().map(|kept| &kept.entry);
        let in_state = |state: State| entries().filter(move |entry| entry.state == state);

        let mut counts = HashMap::new();
        for entry in entries() {
            *counts.entry(entry.state).or_insert(0) += 1;
        }
        assert_eq!(inbox.counts().await.unwrap().by_state, counts);

        let due = in_state(State::Pending).chain(in_state(State::Waiting));
        let next_due = due.map(|entry| entry.due_at).min();
        assert_eq!(inbox.next_due().await.unwrap(), next_due);

        let unmatched =
            in_state(State::Pending).filter(|entry| entry.progress.step.contact().is_none());
        let unmatched = unmatched.count();
        assert_eq!(inbox.unmatched(2).await.unwrap() as usize, unmatched.min(2));
        let awaited: HashSet<KeyedHash> = in_state(State::Waiting)
            .flat_map(|entry| [entry.progress.person, entry.progress.phone])
            .flatten()
            .collect();
        assert_eq!(inbox.awaited().await.unwrap(), awaited);

        let open: Vec<RowId> = model
            .kept
            .iter()
            .map(|kept| &kept.entry)
            .filter(|entry| entry.progress.step.is_open())
            .filter(|entry| match entry.state {
                State::Done | State::Parked => false,
                State::Pending | State::Claimed | State::Waiting => true,
            })
            .map(|entry| entry.row)
            .collect();
        let found = inbox.open_work().await.unwrap();
        let found: Vec<RowId> = found.into_iter().map(|work| work.row).collect();
        assert_eq!(found, open);

        let people = inbox.people((0..3).map(hash).collect()).await.unwrap();
        let known = model.people.iter().map(|(key, (known, _))| (*key, *known));
        assert_eq!(people, known.collect());
    }
}

fn assert_guarded(answer: Result<(), InboxError>, holds: bool) {
    match answer {
        Ok(()) => assert!(holds, "a change without a claim"),
        Err(InboxError::ClaimLost { .. }) => assert!(!holds, "a claim that was held is lost"),
        Err(other) => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_sequence_of_commands_ends_as_the_rules_say(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair {
                real: Fixture::new().await,
                model: Model::default(),
                tokens: Vec::new(),
            };
            for step in steps {
                pair.take(step).await;
                pair.compare().await;
            }
        });
    }
}
