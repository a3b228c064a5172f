//! Whether contacts are searched for one by one or found in the account's list of them: the arithmetic. Pure.
//!
//! A page of the list costs one request and saves a search for each sought e-mail that is on it. A list read to its end
//! saves all searches: it also knows who is nowhere, and every further contact of whoever was found. So the first
//! question is whether the end is near enough, and one page far down answers it. If it is not, the newest pages are
//! read while they pay.
//!
//! The bound: what is spent on lists is never more than a fifth of what searching for everybody costs who has come to
//! look somebody up, or is known to come soon. So both together never cost more than 1.2 times the plain searches. A
//! reading belongs to all who come while it lasts: an import that trickles in is looked up as one. What is read for
//! those who are coming is owed by them.

use std::collections::{BTreeMap, VecDeque};

/// So few have no list read for them, however small the account.
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
/// The end is asked for again once it may lie further by one in so many pages.
const PROBE_FURTHER: usize = 8;

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
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// Sought by those who have come so far.
    served: usize,
    /// The requests that it may take by now.
    budget: usize,
    spent: usize,
    /// Sought by who came last, and not found yet.
    left: usize,
    /// So many pages were asked for in order.
    asked: u32,
    /// Failed, to be asked for again.
    again: Vec<u32>,
    on_their_way: Vec<u32>,
    /// In order.
    read: BTreeMap<u32, Seen>,
    /// The first page that no other follows.
    end: Option<u32>,
    latest_hits: VecDeque<usize>,
    /// What lay within reach when the end was last asked for.
    probed: usize,
    /// A page within reach is beyond the end.
    is_near: bool,
    /// Something on its pages could not be read, and may be anybody.
    is_spoilt: bool,
    /// In a row.
    failures: u32,
}

impl Scan {
    /// A list read from its beginning, by who is still to pay for what this one has spent in advance.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self {
            spent: self.spent.saturating_sub(self.served / IN_VAIN),
            ..Self::default()
        }
    }

    /// Somebody comes who seeks so many, of whom the pages read so far have shown `found`; `coming` more are known to be
    /// sought soon. Who reads ahead for those that are coming seeks nobody.
    pub fn join(&mut self, sought: usize, found: usize, coming: usize) {
        self.budget = self.spent + self.credit(sought, coming);
        self.served += sought;
        self.left = sought.saturating_sub(found);
        self.latest_hits.clear();
        if self.read.len() >= GLANCE {
            let each = found / self.read.len();
            self.latest_hits.resize(GLANCE, each);
        }
    }

    /// The requests that it may take for somebody who comes: see [`Scan::join`]. What others have left unspent is not
    /// theirs to wait for.
    #[must_use]
    pub fn credit(&self, sought: usize, coming: usize) -> usize {
        let all = (self.served + sought + coming) / IN_VAIN;
        let theirs = (sought + coming) / IN_VAIN;
        all.saturating_sub(self.spent).min(theirs)
    }

    /// Pages that were read in order.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.read.len()
    }

    /// A request about the list that is not one of its pages.
    pub fn spend(&mut self) {
        self.spent += 1;
    }

    /// Set once nothing more is worth asking, and nothing on its way.
    #[must_use]
    pub fn over(&self) -> Option<Extent> {
        self.verdict().filter(|_| self.on_their_way.is_empty())
    }

    /// Nobody waits any more for what is on its way.
    pub fn break_off(&mut self) {
        self.again.append(&mut self.on_their_way);
    }

    /// It is of no use to ask again.
    pub fn give_up(&mut self) {
        self.failures = MOST_FAILURES;
    }

    /// Whatever else is read: no e-mail is known to be missing.
    pub fn spoil(&mut self) {
        self.is_spoilt = true;
    }

    /// The next page to ask for. It is spent, whatever comes of it. `None`: what is on its way decides.
    #[expect(
        clippy::should_implement_trait,
        reason = "it is told the outcome in between"
    )]
    pub fn next(&mut self) -> Option<u32> {
        // The first page alone: an account that ends with it needs no probe.
        let at_once = if self.read.is_empty() { 1 } else { AHEAD };
        if self.verdict().is_some() || self.on_their_way.len() >= at_once {
            return None;
        }
        let page = if let Some(page) = self.again.pop() {
            page
        } else if !self.read.is_empty() && self.is_worth_probing() {
            self.probed = self.reach();
            self.probe()
        } else if self.end.is_none() {
            self.asked += 1;
            self.asked
        } else {
            return None;
        };
        self.spent += 1;
        self.on_their_way.push(page);
        Some(page)
    }

    pub fn read(&mut self, page: u32, seen: Seen) {
        self.arrived(page);
        self.failures = 0;
        self.left = self.left.saturating_sub(seen.hits);
        // A probe is no page in order, unless the others have come as far.
        if page <= self.asked {
            if seen.is_last || seen.is_empty {
                self.end = Some(self.end.map_or(page, |end| end.min(page)));
            }
            self.latest_hits.push_back(seen.hits);
            if self.latest_hits.len() > GLANCE {
                self.latest_hits.pop_front();
            }
            self.read.insert(page, seen);
        } else {
            self.is_near |= seen.is_empty;
        }
    }

    fn arrived(&mut self, page: u32) {
        if let Some(at) = self.on_their_way.iter().position(|it| *it == page) {
            self.on_their_way.swap_remove(at);
        }
    }

    /// Answers how many requests in a row have failed.
    pub fn failed(&mut self, page: u32) -> u32 {
        self.arrived(page);
        self.again.push(page);
        self.failures += 1;
        self.failures
    }

    /// `None`: worth going on.
    fn verdict(&self) -> Option<Extent> {
        if self.is_spoilt {
            return Some(Extent::Part);
        }
        if let Some(end) = self.end
            && (1..end).all(|page| self.read.contains_key(&page))
        {
            return Some(self.believed(end));
        }
        let may_go_on = self.spent < self.budget && self.failures < MOST_FAILURES;
        let is_worth_it = self.is_near || self.is_worth_probing() || self.pays();
        (!may_go_on || !is_worth_it).then_some(Extent::Part)
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

    /// How far down it could still read in order.
    fn reach(&self) -> usize {
        self.asked as usize + self.budget.saturating_sub(self.spent)
    }

    /// The page that lies just beyond what may be read.
    fn probe(&self) -> u32 {
        u32::try_from(self.reach())
            .unwrap_or(u32::MAX)
            .max(self.asked + 1)
    }

    fn is_worth_probing(&self) -> bool {
        !self.is_near
            && self.end.is_none()
            && self.reach() > self.probed + self.probed / PROBE_FURTHER
    }

    fn pays(&self) -> bool {
        let glance = self.latest_hits.len();
        self.left > 0
            && (glance < GLANCE || self.latest_hits.iter().sum::<usize>() >= PAYS * GLANCE)
    }
}

#[cfg(test)]
mod tests;
