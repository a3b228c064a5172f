//! Whether contacts are searched for one by one or found in the account's list of them: the arithmetic. Pure.
//!
//! A page of the list costs one request and saves a search for each sought e-mail that is on it. A list read to its end
//! saves all searches: it also knows who is nowhere, and every further contact of whoever was found. So the first
//! question is whether the end is near enough, and one page far down answers it. If it is not, the newest pages are
//! read while they pay.
//!
//! The bound: a scan spends at most a fifth of what searching for everybody would cost, whatever it meets, so both
//! together never cost more than 1.2 times the plain searches.

use std::collections::{BTreeMap, VecDeque};

/// So few are searched for one by one, however large the account.
pub const FEW: usize = 20;
/// The share of the searches' cost that may be spent in vain: one in so many.
const IN_VAIN: usize = 5;
/// A page pays when it saves this many searches. Not one: what was found in a part of the list is sometimes searched
/// for all the same.
const PAYS: usize = 2;
/// So many pages in a row tell what the next one is likely to save.
const GLANCE: usize = 4;
/// Pages on their way at once: a page takes amoCRM a second or so.
const AHEAD: usize = 3;
/// After so many failures in a row the list is given up.
const MOST_FAILURES: u32 = 5;

/// How much of the list was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Who is not in it does not exist, and nobody in it has a contact that is not.
    Whole,
    /// Whoever is not in it is searched for.
    Part,
}

/// What a page showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Sought e-mails that no page had shown before.
    pub hits: usize,
    pub is_empty: bool,
    /// Short, and names no next page.
    pub is_last: bool,
    pub names_next: bool,
}

/// A reading of the list, newest contacts first.
#[derive(Debug, Clone)]
pub struct Scan {
    budget: usize,
    spent: usize,
    left: usize,
    /// The next page in order.
    ahead: u32,
    /// Failed, to be asked for again.
    again: Vec<u32>,
    on_their_way: usize,
    read: BTreeMap<u32, Seen>,
    /// The first page that no other follows.
    end: Option<u32>,
    latest_hits: VecDeque<usize>,
    /// The page that lies just beyond what may be read.
    probe: u32,
    is_probed: bool,
    /// The probe found nothing: the end is within reach.
    is_near: bool,
    /// In a row.
    failures: u32,
}

impl Scan {
    /// `None`: searching for so few costs less.
    #[must_use]
    pub fn new(sought: usize) -> Option<Self> {
        let budget = sought / IN_VAIN;
        (sought > FEW).then(|| Self {
            budget,
            spent: 0,
            left: sought,
            ahead: 1,
            again: Vec::new(),
            on_their_way: 0,
            read: BTreeMap::new(),
            end: None,
            latest_hits: VecDeque::new(),
            probe: u32::try_from(budget).unwrap_or(u32::MAX),
            is_probed: false,
            is_near: false,
            failures: 0,
        })
    }

    /// The requests that it may take.
    #[must_use]
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Set once nothing more is worth asking, and nothing on its way.
    #[must_use]
    pub fn over(&self) -> Option<Extent> {
        self.verdict().filter(|_| self.on_their_way == 0)
    }

    /// The next page to ask for. It is spent, whatever comes of it. `None`: what is on its way decides.
    #[expect(
        clippy::should_implement_trait,
        reason = "it is told the outcome in between"
    )]
    pub fn next(&mut self) -> Option<u32> {
        // The first page alone: an account that ends with it needs no probe.
        let at_once = if self.read.is_empty() { 1 } else { AHEAD };
        if self.verdict().is_some() || self.on_their_way >= at_once {
            return None;
        }
        let page = if let Some(page) = self.again.pop() {
            page
        } else if !self.read.is_empty() && !self.is_probed {
            self.is_probed = true;
            self.probe
        } else if self.end.is_none() {
            self.ahead += 1;
            self.ahead - 1
        } else {
            return None;
        };
        self.spent += 1;
        self.on_their_way += 1;
        Some(page)
    }

    pub fn read(&mut self, page: u32, seen: Seen) {
        self.on_their_way = self.on_their_way.saturating_sub(1);
        self.failures = 0;
        self.left = self.left.saturating_sub(seen.hits);
        if page == self.probe {
            self.is_near |= seen.is_empty;
        } else {
            self.latest_hits.push_back(seen.hits);
            if self.latest_hits.len() > GLANCE {
                self.latest_hits.pop_front();
            }
        }
        // The probe is no page in order, unless the others have come as far.
        if (seen.is_last || seen.is_empty) && page < self.ahead {
            self.end = Some(self.end.map_or(page, |end| end.min(page)));
        }
        self.read.insert(page, seen);
    }

    /// Answers how many requests in a row have failed.
    pub fn failed(&mut self, page: u32) -> u32 {
        self.on_their_way = self.on_their_way.saturating_sub(1);
        self.again.push(page);
        self.failures += 1;
        self.failures
    }

    /// `None`: worth going on.
    fn verdict(&self) -> Option<Extent> {
        if let Some(end) = self.end
            && (1..end).all(|page| self.read.contains_key(&page))
        {
            return Some(self.believed(end));
        }
        let may_go_on = self.spent < self.budget && self.failures < MOST_FAILURES;
        (!may_go_on || !(self.is_near || self.pays())).then_some(Extent::Part)
    }

    /// Nothing after a page that named a next one is not the end, but a server that tires of long lists.
    fn believed(&self, end: u32) -> Extent {
        let is_empty = self.read.get(&end).is_some_and(|seen| seen.is_empty);
        let before = end.checked_sub(1).and_then(|page| self.read.get(&page));
        if is_empty && before.is_some_and(|seen| seen.names_next) {
            Extent::Part
        } else {
            Extent::Whole
        }
    }

    fn pays(&self) -> bool {
        let glance = self.latest_hits.len();
        self.left > 0
            && (glance < GLANCE || self.latest_hits.iter().sum::<usize>() >= PAYS * GLANCE)
    }
}

#[cfg(test)]
mod tests;
