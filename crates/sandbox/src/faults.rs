//! Faults: a script of them, and random ones by a seed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{Server, lock};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The request has no effect.
    Before,
    /// The effect is there, only the answer is not.
    After,
}

/// The body of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    Html,
    Json,
    /// The neighbour's error with this code, under any status. Of amoCRM's codes, `NotSupportedChoice` is about the stage.
    Code(&'static str),
    Empty,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Status {
        when: When,
        code: u16,
        page: Page,
        /// Seconds, as a header.
        retry_after: Option<u64>,
    },
    /// The connection is closed without an answer.
    Reset(When),
    /// The answer never comes.
    Hang(When),
    /// 504 now; the effect appears `delay × time_scale` later by the sandbox's clock.
    LateCommit { delay: Duration },
    /// The effect is there, the JSON is cut in half.
    MalformedJson,
    /// The effect is there, the answer is a web page with status 200.
    HtmlOk,
    /// The effect is there, the answer is 204 where a body is due.
    NoContent,
    /// The effect is there for all, the answer lacks the last half of its items (at least one).
    ShortAnswer,
    /// The effect is there for all, no item of the answer says which it is.
    NoRequestIds,
    /// The effect is there, one item of the answer's list cannot be read.
    Spoilt { item: Item, how: Spoilt },
    /// The stage with this id has no place in its pipeline.
    SpoiltStage { id: i64 },
    /// The contacts of the answer name no deals: the search index is behind the main store.
    WithoutDeals,
    /// 400 `validation-errors` about one item of a bulk write.
    BulkRejected {
        others_applied: bool,
        bad_index: usize,
    },
    /// 302 to another path of the same server; coming there with a token is a protocol error.
    Redirect,
}

/// Which item of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// The position, modulo the number of items.
    At(usize),
    WithId(i64),
}

/// How an item of an answer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoilt {
    Null,
    /// Its id can be read, nothing else.
    AllButTheId,
    All,
}

impl Kind {
    /// 500 with an HTML page.
    #[must_use]
    pub fn server_error(when: When) -> Self {
        Self::status(when, 500)
    }

    #[must_use]
    pub fn status(when: When, code: u16) -> Self {
        Self::Status {
            when,
            code,
            page: Page::Html,
            retry_after: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// Which request a fault meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub server: Server,
    /// For example `leads.update`; `None` = any.
    pub route: Option<String>,
    pub access: Option<Access>,
    /// Only requests whose path, query or body holds this.
    pub about: Option<String>,
    /// The n-th matching request from now, counted from 1.
    pub nth: u32,
}

impl Point {
    #[must_use]
    pub fn any(server: Server) -> Self {
        Self {
            server,
            route: None,
            access: None,
            about: None,
            nth: 1,
        }
    }

    #[must_use]
    pub fn amo(route: &str) -> Self {
        Self {
            route: Some(route.to_owned()),
            ..Self::any(Server::Amo)
        }
    }

    #[must_use]
    pub fn postgrest(route: &str) -> Self {
        Self {
            route: Some(route.to_owned()),
            ..Self::any(Server::Postgrest)
        }
    }

    #[must_use]
    pub fn writes(self) -> Self {
        Self {
            access: Some(Access::Write),
            ..self
        }
    }

    #[must_use]
    pub fn reads(self) -> Self {
        Self {
            access: Some(Access::Read),
            ..self
        }
    }

    #[must_use]
    pub fn nth(self, nth: u32) -> Self {
        Self { nth, ..self }
    }

    #[must_use]
    pub fn about(self, text: &str) -> Self {
        Self {
            about: Some(text.to_owned()),
            ..self
        }
    }

    fn matches(
        &self,
        server: Server,
        route: &str,
        access: Access,
        holds: impl Fn(&str) -> bool,
    ) -> bool {
        self.server == server
            && self.about.as_deref().is_none_or(holds)
            && self.route.as_deref().is_none_or(|wanted| wanted == route)
            && self.access.is_none_or(|wanted| wanted == access)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub at: Point,
    pub kind: Kind,
    /// From the n-th matching request on, this many; `u32::MAX` = for ever.
    pub times: u32,
}

impl Fault {
    #[must_use]
    pub fn once(at: Point, kind: Kind) -> Self {
        Self { at, kind, times: 1 }
    }

    #[must_use]
    pub fn always(at: Point, kind: Kind) -> Self {
        Self {
            at,
            kind,
            times: u32::MAX,
        }
    }
}

/// Random faults: at most one a request, each with its own probability.
///
/// The n-th request that a server accepts gets the n-th draw, so equal seeds and equal traffic give equal faults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomFaults {
    pub seed: u64,
    /// Writes: the effect is there, the connection is closed.
    pub drop_answer_after_write: f64,
    /// Any request: the connection is closed before anything happens.
    pub drop_before: f64,
    /// Any request: 500, 502 or 504 before anything happens.
    pub server_error: f64,
    /// Writes: 502 or 504, and the effect is there.
    pub server_error_after_write: f64,
    /// Writes: 504 now, the effect within [`late_commit_delay`](Self::late_commit_delay).
    pub late_commit: f64,
    pub late_commit_delay: Duration,
    /// Bulk writes.
    pub short_answer: f64,
    pub malformed: f64,
    pub html_ok: f64,
}

impl RandomFaults {
    #[must_use]
    pub fn none(seed: u64) -> Self {
        Self {
            seed,
            drop_answer_after_write: 0.0,
            drop_before: 0.0,
            server_error: 0.0,
            server_error_after_write: 0.0,
            late_commit: 0.0,
            late_commit_delay: Duration::from_secs(10),
            short_answer: 0.0,
            malformed: 0.0,
            html_ok: 0.0,
        }
    }

    /// A bad day: about one request in ten fails in one way or another.
    #[must_use]
    pub fn bad_day(seed: u64) -> Self {
        Self {
            drop_answer_after_write: 0.03,
            drop_before: 0.01,
            server_error: 0.02,
            server_error_after_write: 0.01,
            late_commit: 0.01,
            short_answer: 0.01,
            malformed: 0.01,
            html_ok: 0.005,
            ..Self::none(seed)
        }
    }

    fn draw(&self, rng: &mut SmallRng, access: Access) -> Option<Kind> {
        // Both numbers are drawn for every request: the sequence does not depend on what it met.
        let mut luck: f64 = rng.random();
        let variant: usize = rng.random_range(0..6);
        let is_write = access == Access::Write;
        let error = |when, codes: [u16; 3]| Kind::Status {
            when,
            code: codes[variant % 3],
            page: if variant < 3 { Page::Html } else { Page::Json },
            retry_after: None,
        };
        let late = Kind::LateCommit {
            delay: self.late_commit_delay,
        };
        let table = [
            (self.drop_before, true, Kind::Reset(When::Before)),
            (
                self.server_error,
                true,
                error(When::Before, [500, 502, 504]),
            ),
            (self.malformed, true, Kind::MalformedJson),
            (self.html_ok, true, Kind::HtmlOk),
            (
                self.drop_answer_after_write,
                is_write,
                Kind::Reset(When::After),
            ),
            (
                self.server_error_after_write,
                is_write,
                error(When::After, [502, 504, 504]),
            ),
            (self.late_commit, is_write, late),
            (self.short_answer, is_write, Kind::ShortAnswer),
        ];
        for (probability, applies, kind) in table {
            if luck < probability {
                return applies.then_some(kind);
            }
            luck -= probability;
        }
        None
    }
}

#[derive(Debug, Default)]
struct Script {
    faults: Vec<Fault>,
    random: Vec<(Server, RandomFaults, SmallRng)>,
}

/// A handle on the script; clones share it. Scripted faults go before random ones.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Script>>);

impl Faults {
    pub fn add(&self, fault: Fault) {
        lock(&self.0).faults.push(fault);
    }

    /// From now on `server` has this luck.
    pub fn random(&self, server: Server, random: RandomFaults) {
        let mut script = lock(&self.0);
        script.random.retain(|(of, ..)| *of != server);
        script
            .random
            .push((server, random, SmallRng::seed_from_u64(random.seed)));
    }

    /// From now on nothing goes wrong.
    pub fn clear(&self) {
        *lock(&self.0) = Script::default();
    }

    /// Scripted faults that no request has met yet.
    #[must_use]
    pub fn unmet(&self) -> Vec<Fault> {
        let script = lock(&self.0);
        let finite = script.faults.iter().filter(|fault| fault.times < u32::MAX);
        finite.cloned().collect()
    }

    /// `holds`: whether path, query or body of the request hold a text.
    pub(crate) fn meet(
        &self,
        server: Server,
        route: &str,
        access: Access,
        holds: impl Fn(&str) -> bool,
    ) -> Option<Kind> {
        let mut script = lock(&self.0);
        let mut met = None;
        for fault in &mut script.faults {
            if !fault.at.matches(server, route, access, &holds) {
                continue;
            }
            if fault.at.nth > 1 {
                fault.at.nth -= 1;
            } else if met.is_none() && fault.times > 0 {
                if fault.times < u32::MAX {
                    fault.times -= 1;
                }
                met = Some(fault.kind.clone());
            }
        }
        script.faults.retain(|fault| fault.times > 0);
        let luck = script
            .random
            .iter_mut()
            .find(|(of, ..)| *of == server)
            .and_then(|(_, random, rng)| random.draw(rng, access));
        met.or(luck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(faults: &Faults, server: Server, route: &str, access: Access) -> Option<Kind> {
        faults.meet(server, route, access, |_| false)
    }

    #[test]
    fn a_fault_about_a_text_meets_only_requests_that_hold_it() {
        let faults = Faults::default();
        let kind = Kind::HtmlOk;
        let point = Point::any(Server::Amo).about("ann");
        faults.add(Fault::always(point, kind.clone()));
        for (text, met) in [("ann", Some(kind)), ("bo", None)] {
            let access = Access::Read;
            let fault = faults.meet(Server::Amo, "leads.list", access, |about| about == text);
            assert_eq!(fault, met, "{text}");
        }
    }

    fn writes(faults: &Faults, count: usize) -> Vec<Option<Kind>> {
        (0..count)
            .map(|_| meet(faults, Server::Amo, "leads.update", Access::Write))
            .collect()
    }

    #[test]
    fn a_fault_meets_the_nth_request_that_matches_and_then_so_many() {
        let faults = Faults::default();
        faults.add(Fault {
            at: Point::amo("leads.update").nth(2),
            kind: Kind::NoContent,
            times: 2,
        });
        assert_eq!(meet(&faults, Server::Amo, "leads.list", Access::Read), None);
        assert_eq!(
            meet(&faults, Server::Postgrest, "leads.update", Access::Write),
            None
        );
        let hit = Some(Kind::NoContent);
        assert_eq!(writes(&faults, 4), [None, hit.clone(), hit, None]);
        assert_eq!(faults.unmet(), []);
    }

    #[test]
    fn two_faults_at_one_point_meet_one_request_after_the_other() {
        let faults = Faults::default();
        faults.add(Fault::once(Point::any(Server::Amo).writes(), Kind::HtmlOk));
        faults.add(Fault::once(Point::any(Server::Amo), Kind::MalformedJson));
        assert_eq!(
            writes(&faults, 3),
            [Some(Kind::HtmlOk), Some(Kind::MalformedJson), None]
        );
    }

    #[test]
    fn bad_luck_is_the_same_for_the_same_seed_and_another_for_another() {
        let lucky = |seed| {
            let faults = Faults::default();
            faults.random(Server::Amo, RandomFaults::bad_day(seed));
            writes(&faults, 500)
        };
        assert_eq!(lucky(7), lucky(7));
        assert_ne!(lucky(7), lucky(8));
        let share = lucky(7).iter().flatten().count();
        assert!(
            (25..=90).contains(&share),
            "about one in ten, not {share} of 500"
        );
    }

    #[test]
    fn what_needs_a_write_never_meets_a_read() {
        let faults = Faults::default();
        let only_writes = RandomFaults {
            drop_answer_after_write: 0.5,
            late_commit: 0.3,
            short_answer: 0.2,
            ..RandomFaults::none(1)
        };
        faults.random(Server::Amo, only_writes);
        for _ in 0..100 {
            assert_eq!(meet(&faults, Server::Amo, "leads.list", Access::Read), None);
        }
        assert!(writes(&faults, 100).iter().all(Option::is_some));
    }
}
