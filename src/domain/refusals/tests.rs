use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use proptest::{collection::btree_set, prelude::*};
use uuid::Uuid;

use super::*;

fn row(n: u8) -> RowId {
    RowId::new(Uuid::from_u128(n.into()))
}

/// What happens to an operation, row by row.
#[derive(Debug, Clone, Copy)]
enum Step {
    Refuse(u8),
    /// With another answer.
    Otherwise(u8),
    /// Refused together with others; this row is the first of them.
    Bulk(u8),
    Work(u8),
    Resume,
    Drop(u8),
    Restart,
}

use Step::{Bulk, Drop, Otherwise, Refuse, Restart, Resume, Work};

/// The blame of the last refusal after these steps, each a second after the one before, and the suspects of the last success.
fn after(steps: &[Step]) -> (Refusals, Option<Blame>, Vec<RowId>) {
    let mut refusals = Refusals::default();
    let mut blame = None;
    let mut suspects = Vec::new();
    let mut at = Instant::now();
    for step in steps {
        at += Duration::from_secs(1);
        match *step {
            Refuse(n) => {
                let now = Timestamp::UNIX_EPOCH;
                blame = Some(refusals.refuse(Operation::Move, row(n), true, "нет", (at, now)));
            }
            Otherwise(n) => {
                let now = Timestamp::UNIX_EPOCH;
                blame = Some(refusals.refuse(Operation::Move, row(n), true, "сбой", (at, now)));
            }
            Bulk(n) => {
                let now = Timestamp::UNIX_EPOCH;
                blame = Some(refusals.refuse(Operation::Move, row(n), false, "нет", (at, now)));
            }
            Work(n) => suspects = refusals.worked(Operation::Move, row(n), at),
            Resume => refusals.resumed(),
            Drop(n) => refusals.drop_rows(&[row(n)]),
            Restart => {
                let stored = serde_json::to_string(&refusals).unwrap();
                refusals = serde_json::from_str(&stored).unwrap();
            }
        }
    }
    (refusals, blame, suspects)
}

/// As garbage to a read of several rows, and then a 500 to one of one row.
#[test]
fn a_read_that_is_refused_alone_for_another_reason_than_with_others_is_tried_once_more() {
    let (mut refusals, read) = (Refusals::default(), Operation::ReadNotes);
    let times = (Instant::now(), Timestamp::UNIX_EPOCH);
    let later = times.0 + Duration::from_secs(1);
    let refuse = |refusals: &mut Refusals, is_alone, reason| {
        refusals.refuse(read, row(1), is_alone, reason, times)
    };
    assert_eq!(refuse(&mut refusals, false, "garbage"), Blame::Doubt);
    refusals.worked(read, row(2), later);
    assert_eq!(refuse(&mut refusals, true, "500"), Blame::Doubt);
    assert_eq!(refusals.worked(read, row(2), later), [row(1)]);
    assert_eq!(refuse(&mut refusals, true, "404"), Blame::Row);
}

#[test]
fn the_blame_of_a_refusal_depends_on_what_became_of_other_rows() {
    let all_rows = |rows: &[u8]| Blame::AllRows(rows.iter().map(|n| row(*n)).collect());
    let table: &[(&[Step], Blame)] = &[
        (&[Refuse(1)], Blame::Doubt),
        (&[Refuse(1), Refuse(1), Refuse(1), Refuse(1)], Blame::Doubt),
        (&[Refuse(1), Refuse(2)], Blame::Doubt),
        (&[Refuse(1), Refuse(2), Refuse(3)], all_rows(&[1, 2, 3])),
        (
            &[Refuse(1), Refuse(2), Refuse(1), Refuse(3)],
            all_rows(&[1, 2, 3]),
        ),
        (&[Refuse(1), Work(2), Refuse(1)], Blame::Row),
        // A neighbour that answers now so and now otherwise is to blame itself.
        (&[Refuse(1), Work(2), Otherwise(1)], Blame::Doubt),
        (
            &[Refuse(1), Work(2), Otherwise(1), Otherwise(1)],
            Blame::Doubt,
        ),
        (
            &[Refuse(1), Work(2), Otherwise(1), Work(2), Otherwise(1)],
            Blame::Row,
        ),
        // Once: a row whose answers alternate does not hold up the others for ever.
        (
            &[Refuse(1), Work(2), Otherwise(1), Work(2), Refuse(1)],
            Blame::Row,
        ),
        // Such a round counts towards no halt.
        (
            &[Refuse(1), Work(9), Otherwise(1), Refuse(2), Refuse(3)],
            Blame::Doubt,
        ),
        // A bulk write is told in other words than the same refusal alone.
        (&[Bulk(1), Work(2), Otherwise(1)], Blame::Row),
        // The operation works for others: a new refusal is in doubt again, and a blamed row that was dropped begins anew.
        (&[Refuse(1), Work(2), Refuse(2)], Blame::Doubt),
        (&[Refuse(1), Work(2), Refuse(1), Refuse(1)], Blame::Row),
        (
            &[Refuse(1), Work(2), Refuse(1), Drop(1), Refuse(1)],
            Blame::Doubt,
        ),
        // Its own success proves nothing against it.
        (&[Refuse(1), Work(1), Refuse(1)], Blame::Doubt),
        // Success before the first refusal neither.
        (&[Work(2), Refuse(1), Refuse(1)], Blame::Doubt),
        // A success for another row resets the count.
        (
            &[Refuse(1), Refuse(2), Work(3), Refuse(3), Refuse(4)],
            Blame::Doubt,
        ),
        (&[Refuse(1), Refuse(2), Work(3), Refuse(2)], Blame::Row),
        // During a halt the operation works for one of the three rows: the two others are tried once more.
        (
            &[Refuse(1), Refuse(2), Refuse(3), Work(2), Refuse(3)],
            Blame::Row,
        ),
        // A row that was dropped does not count.
        (&[Refuse(1), Refuse(2), Drop(1), Refuse(3)], Blame::Doubt),
        // After a `resume`, a halt needs three new refusals, of the same rows or of others.
        (
            &[Refuse(1), Refuse(2), Refuse(3), Resume, Refuse(1)],
            Blame::Doubt,
        ),
        (
            &[
                Refuse(1),
                Refuse(2),
                Refuse(3),
                Resume,
                Refuse(1),
                Refuse(4),
                Refuse(3),
            ],
            all_rows(&[1, 3, 4]),
        ),
        (
            &[Refuse(1), Refuse(2), Refuse(3), Resume, Work(4), Refuse(1)],
            Blame::Row,
        ),
        // Of several that were refused together, the first is not known to be to blame.
        (&[Bulk(1), Bulk(2), Bulk(3), Bulk(4)], Blame::Doubt),
        (&[Bulk(1), Refuse(1), Refuse(2)], Blame::Doubt),
        (
            &[Bulk(1), Refuse(1), Refuse(2), Refuse(3)],
            all_rows(&[1, 2, 3]),
        ),
        (&[Refuse(1), Work(2), Bulk(1)], Blame::Doubt),
        (&[Refuse(1), Work(2), Bulk(1), Refuse(1)], Blame::Row),
        // Refusals outlive a restart.
        (
            &[Refuse(1), Restart, Refuse(2), Restart, Refuse(3)],
            all_rows(&[1, 2, 3]),
        ),
        (
            &[Refuse(1), Restart, Work(2), Restart, Refuse(1)],
            Blame::Row,
        ),
    ];
    for (steps, blame) in table {
        let (_, last, _) = after(steps);
        assert_eq!(last.as_ref(), Some(blame), "{steps:?}");
    }
}

#[test]
fn a_success_names_the_rows_to_try_again() {
    let table: &[(&[Step], &[u8])] = &[
        (&[Work(1)], &[]),
        (&[Refuse(1), Work(1)], &[]),
        (&[Refuse(1), Work(2)], &[1]),
        (&[Refuse(1), Refuse(2), Refuse(3), Work(2)], &[1, 3]),
        (&[Refuse(1), Work(2), Work(3)], &[]),
    ];
    for (steps, suspects) in table {
        let suspects: Vec<_> = suspects.iter().map(|n| row(*n)).collect();
        assert_eq!(after(steps).2, suspects, "{steps:?}");
    }
}

#[test]
fn one_operation_tells_nothing_about_another() {
    let mut refusals = Refusals::default();
    let at = Instant::now();
    for (n, operation) in [Operation::Move, Operation::Create, Operation::Note]
        .into_iter()
        .enumerate()
    {
        let n = u8::try_from(n).unwrap();
        let blame = refusals.refuse(operation, row(n), true, "нет", (at, Timestamp::UNIX_EPOCH));
        assert_eq!(blame, Blame::Doubt);
    }
    let suspects = refusals.worked(Operation::WriteBack, row(9), at);
    assert_eq!(suspects, []);
    assert!(refusals.is_in_doubt());
}

/// A request that was on its way when everything broke may still be answered with a success.
#[test]
fn a_success_that_was_begun_before_a_refusal_was_known_proves_nothing() {
    let mut refusals = Refusals::default();
    let begun = Instant::now();
    let at = begun + Duration::from_millis(1);
    refusals.refuse(
        Operation::Move,
        row(1),
        true,
        "нет",
        (at, Timestamp::UNIX_EPOCH),
    );

    assert_eq!(refusals.worked(Operation::Move, row(2), begun), []);
    assert!(refusals.is_refused(Operation::Move, row(1)));
    assert_eq!(refusals.worked(Operation::Move, row(2), at), [row(1)]);
}

#[test]
fn a_403_holds_its_rows_until_a_write_has_worked_for_another() {
    let at = Instant::now();
    let all_rows = |rows: &[u8]| Blame::AllRows(rows.iter().map(|n| row(*n)).collect());
    let mut refusals = Refusals::default();
    assert_eq!(refusals.forbid(&[row(1), row(2)], at), all_rows(&[1, 2]));
    refusals.resumed();
    assert_eq!(refusals.held(), [row(1), row(2)]);
    assert!(!refusals.held_may_go());
    // A read, a write to Supabase, or a write for a held row does not release held rows.
    refusals.worked(Operation::WriteBack, row(9), at);
    refusals.worked(Operation::Search, row(9), at);
    refusals.worked(Operation::Note, row(1), at);
    assert!(!refusals.held_may_go());

    refusals.worked(Operation::Note, row(9), at);
    assert!(refusals.held_may_go());
    assert_eq!(refusals.forbid(&[row(1)], at), Blame::Row);
    assert_eq!(refusals.held(), [row(2)]);
    // The next 403 stops everything, for any row.
    assert_eq!(refusals.forbid(&[row(2)], at), all_rows(&[2]));
    assert!(!refusals.held_may_go());
}

#[test]
fn a_403_of_a_row_that_was_not_held_concerns_all_rows() {
    let at = Instant::now();
    let mut refusals = Refusals::default();
    refusals.forbid(&[row(1)], at);
    refusals.resumed();
    refusals.worked(Operation::Move, row(9), at);
    let all = Blame::AllRows(vec![row(1), row(7)]);
    assert_eq!(refusals.forbid(&[row(7)], at), all);
    assert_eq!(refusals.forbid(&[], at), all, "a request about no row");

    // After a write that worked, the next held row may be to blame again.
    refusals.resumed();
    refusals.worked(Operation::Move, row(9), at);
    assert_eq!(refusals.forbid(&[row(1)], at), Blame::Row);
    refusals.worked(Operation::Move, row(9), at);
    assert_eq!(refusals.forbid(&[row(7)], at), Blame::Row);
    assert!(refusals.is_empty());
}

/// An import as the engine takes it: one row at a time while in doubt, refused rows last, in a halt its rows in turn.
struct Import {
    refusals: Refusals,
    pending: VecDeque<u8>,
    halted: Option<Vec<RowId>>,
    at: Instant,
    tried: u32,
    done: BTreeSet<u8>,
    parked: BTreeSet<u8>,
    /// Rows whose operation was refused before any other step.
    ahead: BTreeSet<u8>,
}

impl Import {
    fn of(rows: u8) -> Self {
        Self {
            refusals: Refusals::default(),
            pending: (0..rows).collect(),
            halted: None,
            at: Instant::now(),
            tried: 0,
            done: BTreeSet::new(),
            parked: BTreeSet::new(),
            ahead: BTreeSet::new(),
        }
    }

    fn next(&self) -> Option<u8> {
        if let Some(rows) = &self.halted {
            let turn = self.tried as usize % rows.len();
            return self.pending.iter().copied().find(|n| row(*n) == rows[turn]);
        }
        let last = self.refusals.in_doubt();
        let fresh = self.pending.iter().find(|n| !last.contains(&row(**n)));
        fresh.or(self.pending.front()).copied()
    }

    fn step(&mut self, works: impl Fn(u8) -> bool) {
        self.at += Duration::from_secs(1);
        self.tried += 1;
        let Some(n) = self.next() else { return };
        self.pending.retain(|it| *it != n);
        if works(n) {
            self.refusals.worked(Operation::Move, row(n), self.at);
            self.refusals.drop_rows(&[row(n)]);
            self.done.insert(n);
            self.halted = None;
            return;
        }
        self.ahead.insert(n);
        let now = Timestamp::UNIX_EPOCH;
        let blame = self
            .refusals
            .refuse(Operation::Move, row(n), true, "нет", (self.at, now));
        match blame {
            Blame::Row => {
                self.parked.insert(n);
                self.refusals.drop_rows(&[row(n)]);
                return;
            }
            Blame::AllRows(rows) => self.halted = Some(rows),
            Blame::Doubt => {}
        }
        self.pending.push_back(n);
    }
}

proptest! {
    /// Up to two bad rows are found, at any position. Three in a row need a person.
    #[test]
    fn with_bad_rows_among_good_ones_every_good_row_comes_right(
        rows in 4_u8..40,
        bad in btree_set(0_u8..40, 1..=2),
    ) {
        let bad: BTreeSet<u8> = bad.into_iter().filter(|n| *n < rows).collect();
        let mut import = Import::of(rows);
        let go_on = |import: &mut Import| for _ in 0..u32::from(rows) * 4 {
            import.step(|n| !bad.contains(&n));
        };
        go_on(&mut import);
        prop_assert_eq!(import.done.len() + bad.len(), usize::from(rows));
        prop_assert!(import.parked.is_subset(&bad));

        // Bad rows at the end stay in doubt until the next purchase.
        import.pending.push_back(100);
        go_on(&mut import);
        prop_assert_eq!(&import.parked, &bad);
        prop_assert!(import.refusals.is_empty());
    }

    #[test]
    fn with_all_refused_at_most_three_rows_are_tried_and_none_is_parked(
        rows in 1_u8..40,
        steps in 1_u32..400,
    ) {
        let mut import = Import::of(rows);
        for _ in 0..steps {
            import.step(|_| false);
        }
        prop_assert!(import.ahead.len() <= ALL_ROWS_AFTER);
        prop_assert!(import.parked.is_empty());
        prop_assert!(import.done.is_empty());
    }

    /// While nothing works for some time, rows that work alone wait, and none of them is parked.
    #[test]
    fn no_row_is_parked_that_works_alone(
        rows in 1_u8..40,
        bad in btree_set(0_u8..40, 0..=2),
        begins in 0_u32..40,
        lasts in 0_u32..40,
    ) {
        let bad: BTreeSet<u8> = bad.into_iter().filter(|n| *n < rows).collect();
        let mut import = Import::of(rows);
        for step in 0..400_u32 {
            let is_out = (begins..begins + lasts).contains(&step);
            import.step(|n| !is_out && !bad.contains(&n));
        }
        prop_assert!(import.parked.is_subset(&bad));
        let good = (0..rows).filter(|n| !bad.contains(n)).collect::<BTreeSet<_>>();
        prop_assert!(import.done.is_superset(&good) || import.halted.is_some());
        // A halt ends by itself as soon as one of its rows works.
        if let Some(rows) = &import.halted {
            prop_assert!(rows.iter().all(|it| bad.iter().any(|n| row(*n) == *it)));
        }
    }
}

/// The answer of the write may come after the 403, but amoCRM accepted the request before.
#[test]
fn a_write_that_was_begun_before_a_403_lets_no_held_row_go() {
    let begun = Instant::now();
    let at = begun + Duration::from_millis(1);
    let mut refusals = Refusals::default();
    refusals.forbid(&[row(1)], at);
    refusals.worked(Operation::Move, row(9), begun);
    assert!(!refusals.held_may_go());
    refusals.worked(Operation::Move, row(9), at);
    assert!(refusals.held_may_go());
}

#[test]
fn a_row_that_is_refused_and_then_forbidden_is_held_and_nothing_else() {
    let at = Instant::now();
    let now = Timestamp::UNIX_EPOCH;
    let mut refusals = Refusals::default();
    refusals.refuse(Operation::Move, row(1), true, "нет", (at, now));
    refusals.worked(Operation::Move, row(2), at);
    refusals.forbid(&[row(1)], at);
    refusals.resumed();
    assert_eq!(refusals.suspects(), []);
    assert_eq!(refusals.in_doubt(), []);
    assert_eq!(refusals.held(), [row(1)]);
}

#[test]
fn a_blame_holds_for_its_own_write_and_only_until_that_has_landed() {
    let at = Instant::now();
    let now = Timestamp::UNIX_EPOCH;
    let mut refusals = Refusals::default();
    for _ in 0..2 {
        refusals.refuse(Operation::Create, row(1), true, "нет прав", (at, now));
        refusals.worked(Operation::Create, row(2), at);
    }
    assert_eq!(
        refusals.blamed(row(1), &[Operation::Create]),
        Some("нет прав")
    );
    assert_eq!(refusals.blamed(row(1), &[Operation::Note]), None);
    refusals.landed(row(1), &[Operation::Create]);
    assert!(refusals.is_empty());
}

#[test]
fn what_must_have_stopped_sending_is_known_after_a_restart() {
    let (refusals, ..) = after(&[Refuse(1), Refuse(2), Restart]);
    assert!(!refusals.have_stopped_sending());
    let (refusals, ..) = after(&[Refuse(1), Refuse(2), Refuse(3), Restart]);
    assert!(refusals.have_stopped_sending());
    let (refusals, ..) = after(&[Refuse(1), Refuse(2), Refuse(3), Resume]);
    assert!(!refusals.have_stopped_sending());
}
