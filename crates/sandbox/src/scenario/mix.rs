//! The students of an ordinary import day, in stated shares.

use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};

use super::{AmoSandbox, Case, PostgrestSandbox, Scenario, Setting};

/// The number of each case in a hundred rows: nearly all have a deal to be moved, and every other case occurs.
pub const IMPORT_DAY: [(Case, usize); 15] = [
    (Case::OpenBeforeTarget, 75),
    (Case::PaddedEmail, 2),
    (Case::Lookalike, 2),
    (Case::TwoContacts, 2),
    (Case::LostAndOpen, 1),
    (Case::RecentlyLostOnly, 1),
    (Case::NoDeal, 4),
    (Case::OtherPipelineOnly, 1),
    (Case::OldLostOnly, 1),
    (Case::DeletedDeal, 1),
    (Case::RecentlyWonOnly, 2),
    (Case::OnTarget, 2),
    (Case::BeyondTarget, 1),
    (Case::SecondRow, 2),
    (Case::MissingContact, 3),
];

impl Scenario {
    /// [`IMPORT_DAY`] as often as it takes, then shuffled; the rows are inserted last, created now.
    #[must_use]
    pub fn import_day(
        seed: u64,
        rows: usize,
        amo: &AmoSandbox,
        postgrest: &PostgrestSandbox,
        setting: &Setting,
    ) -> Self {
        Self::import_day_among(seed, rows, 0, amo, postgrest, setting)
    }

    /// The same, their contacts spread evenly among `crowd` others with an open deal each that no row is about.
    #[must_use]
    pub fn import_day_among(
        seed: u64,
        rows: usize,
        crowd: usize,
        amo: &AmoSandbox,
        postgrest: &PostgrestSandbox,
        setting: &Setting,
    ) -> Self {
        let hundred = IMPORT_DAY
            .into_iter()
            .flat_map(|(case, share)| std::iter::repeat_n(case, share));
        let mut cases: Vec<Case> = hundred.cycle().take(rows).collect();
        cases.shuffle(&mut SmallRng::seed_from_u64(seed));
        Self::enrol_among(seed, cases, crowd, amo, postgrest, setting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_of_a_hundred() {
        let sum: usize = IMPORT_DAY.iter().map(|(_, share)| share).sum();
        assert_eq!(sum, 100);
    }
}
