//! What a round came to: figures, and whatever is not as it must be.

use std::{collections::BTreeMap, fmt, ops::AddAssign, path::PathBuf, time::Duration};

use sandbox::{Kind, When};

use super::Plan;

/// Violations in a report: a whole round gone wrong says the same of every row.
const SHOWN: usize = 20;

#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) rounds: usize,
    pub(crate) rows: usize,
    /// Rows that no acknowledged webhook told about: the sweep has found them.
    pub(crate) swept: usize,
    /// Rows that nobody ever posted a webhook for.
    pub(crate) untold: usize,
    pub(crate) posts: usize,
    pub(crate) acknowledged: usize,
    /// No answer, or 503.
    pub(crate) lost: usize,
    pub(crate) kills: usize,
    pub(crate) stops: usize,
    pub(crate) amo_requests: usize,
    pub(crate) postgrest_requests: usize,
    /// By server and kind.
    pub(crate) faults: BTreeMap<String, usize>,
    /// As they arrived.
    pub(crate) most_in_a_second: usize,
    /// By the service's own log.
    pub(crate) most_sent_in_a_second: usize,
    /// 429 that nobody ordered: the machine let requests arrive in a crowd, or the service sent too many.
    pub(crate) crowded: usize,
    pub(crate) wrong: usize,
    pub(crate) took: Duration,
}

impl Figures {
    pub(crate) fn count_posts(&mut self, statuses: impl Iterator<Item = Option<u16>>) {
        for status in statuses {
            self.posts += 1;
            match status {
                Some(202) => self.acknowledged += 1,
                _ => self.lost += 1,
            }
        }
    }

    pub(crate) fn count_fault(&mut self, server: &str, kind: &Kind) {
        *self
            .faults
            .entry(format!("{server} {}", name(kind)))
            .or_default() += 1;
    }
}

impl AddAssign<&Self> for Figures {
    fn add_assign(&mut self, other: &Self) {
        self.rounds += other.rounds;
        self.rows += other.rows;
        self.swept += other.swept;
        self.untold += other.untold;
        self.posts += other.posts;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.kills += other.kills;
        self.stops += other.stops;
        self.amo_requests += other.amo_requests;
        self.postgrest_requests += other.postgrest_requests;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
        self.most_in_a_second = self.most_in_a_second.max(other.most_in_a_second);
        self.most_sent_in_a_second = self.most_sent_in_a_second.max(other.most_sent_in_a_second);
        self.crowded += other.crowded;
        self.wrong += other.wrong;
        self.took += other.took;
    }
}

fn name(kind: &Kind) -> String {
    let when = |when: &When| match when {
        When::Before => "before",
        When::After => "after",
    };
    match kind {
        Kind::Status { when: at, code, .. } => format!("{code} {}", when(at)),
        Kind::Reset(at) => format!("dropped {}", when(at)),
        Kind::Hang(at) => format!("held {}", when(at)),
        Kind::LateCommit { .. } => "late commit".to_owned(),
        Kind::MalformedJson => "cut answer".to_owned(),
        Kind::HtmlOk => "page".to_owned(),
        Kind::NoContent => "no content".to_owned(),
        Kind::ShortAnswer => "short answer".to_owned(),
        Kind::SpoiltStage { .. } => "unreadable stage".to_owned(),
        Kind::WithoutDeals => "stale index".to_owned(),
        Kind::Spoilt { .. } => "unreadable item".to_owned(),
        Kind::NoRequestIds => "no request ids".to_owned(),
        Kind::BulkRejected { .. } => "bulk rejected".to_owned(),
        Kind::Redirect => "redirect".to_owned(),
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rounds,
            rows,
            swept,
            untold,
            wrong,
            ..
        } = self;
        writeln!(
            f,
            "  rows      {rows} in {rounds} round(s), {untold} never told about, {swept} found by the sweep"
        )?;
        let Self {
            posts,
            acknowledged,
            lost,
            ..
        } = self;
        writeln!(
            f,
            "  webhooks  {posts} sent, {acknowledged} acknowledged, {lost} lost"
        )?;
        writeln!(f, "  upsets    {} kills, {} stops", self.kills, self.stops)?;
        writeln!(
            f,
            "  requests  amoCRM {}, PostgREST {}",
            self.amo_requests, self.postgrest_requests
        )?;
        writeln!(
            f,
            "  pace      at most {} sent and {} arrived in any second, {} answered with a 429 that was not ordered",
            self.most_sent_in_a_second, self.most_in_a_second, self.crowded
        )?;
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        writeln!(f, "  faults    {}", faults.join(", "))?;
        writeln!(f, "  time      {:.1} s", self.took.as_secs_f64())?;
        write!(f, "  wrong     {wrong}")
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) plan: Plan,
    pub(crate) figures: Figures,
    pub(crate) violations: Vec<String>,
    /// Logs, inbox and requests of a round that went wrong.
    pub(crate) kept: Option<PathBuf>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan {
            seed,
            rows,
            missing,
            requests_per_second,
            batch_size,
            ..
        } = self.plan;
        let target = if self.plan.target_is_won {
            "won"
        } else {
            "a stage"
        };
        writeln!(
            f,
            "seed {seed}, {rows} rows: the target is {target}, a missing contact {missing:?}, \
             {requests_per_second} requests/s, batches of {batch_size}"
        )?;
        write!(f, "{}", self.figures)?;
        for violation in self.violations.iter().take(SHOWN) {
            write!(f, "\n  ! {violation}")?;
        }
        let others = self.violations.len().saturating_sub(SHOWN);
        if others > 0 {
            write!(f, "\n  ! and {others} more")?;
        }
        if let Some(kept) = &self.kept {
            write!(f, "\n  kept in {}", kept.display())?;
        }
        Ok(())
    }
}
