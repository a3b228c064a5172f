//! The progress of a backfill: how far, how fast, and why it stands still.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    cli::{clock, terminal::Terminal},
    domain::{InboxFault, SyncState},
    inbox::{State, Tally},
};

/// Between two lines where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// An attempt that is due sooner counts as due now.
const GLANCE: Duration = Duration::from_secs(1);
/// The time over which the rate is measured.
const WINDOW: Duration = Duration::from_secs(30);

/// What has become of the rows by now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) total: u64,
    pub(super) done: BTreeMap<&'static str, u64>,
    /// Rows that wait for a contact and are not looked up again soon.
    pub(super) waiting: u64,
    pub(super) parked: u64,
    /// Rows with work left.
    pub(super) open: u64,
    /// When the first of those that are pending falls due.
    pub(super) next_due: Option<Timestamp>,
}

impl Standing {
    pub(super) fn new(total: u64, tally: &Tally) -> Self {
        let mut standing = Self {
            total,
            next_due: tally.next_due,
            ..Self::default()
        };
        for (&(state, outcome), &count) in &tally.by_end {
            match (state, outcome) {
                (State::Done, Some(outcome)) => {
                    standing.done.insert(outcome.into_str(), count);
                }
                (State::Waiting, _) => {
                    standing.waiting += count - tally.waiting_briefly.min(count);
                    standing.open += tally.waiting_briefly.min(count);
                }
                (State::Parked, _) => standing.parked += count,
                (State::Pending | State::Claimed | State::Done, _) => standing.open += count,
            }
        }
        standing
    }

    pub(super) fn is_drained(&self) -> bool {
        self.open == 0
    }

    /// Whether only undecided rows are left.
    pub(super) fn is_open_for(&self, undecided: u64) -> bool {
        self.open > 0 && self.open <= undecided
    }

    pub(super) fn ended(&self) -> u64 {
        self.done.values().sum::<u64>() + self.waiting + self.parked
    }

    /// The time until the next attempt; `None`: now.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let left = self.next_due?.duration_since(clock().now());
        Duration::try_from(left).ok().filter(|left| *left > GLANCE)
    }

    /// Removed from the inbox meanwhile, or asked for by a later backfill, which counts them.
    pub(super) fn elsewhere(&self) -> u64 {
        self.total.saturating_sub(self.ended() + self.open)
    }
}

/// The numbers of ended rows within the window.
#[derive(Debug)]
struct Pace(VecDeque<(Instant, u64)>);

impl Pace {
    fn note(&mut self, now: Instant, ended: u64) {
        self.0.push_back((now, ended));
        // The last one before the window stays: it is where the window begins.
        while self
            .0
            .get(1)
            .is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW)
        {
            self.0.pop_front();
        }
    }

    /// Rows a second.
    #[expect(clippy::cast_precision_loss, reason = "shown to a person")]
    fn rate(&self) -> f64 {
        match (self.0.front(), self.0.back()) {
            (Some((first, before)), Some((last, now))) if last > first => {
                now.saturating_sub(*before) as f64 / last.duration_since(*first).as_secs_f64()
            }
            _ => 0.0,
        }
    }
}

/// `None`: unknown.
#[expect(clippy::cast_precision_loss, reason = "shown to a person")]
fn time_left(open: u64, rate: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(open as f64 / rate).ok()
}

fn rate_text(rate: f64, terminal: &Terminal) -> String {
    let (second, minute) = terminal.pick(("s", "min"), ("с", "мин"));
    if rate >= 1.0 {
        format!("{rate:.0}/{second}")
    } else {
        format!("{:.0}/{minute}", rate * 60.0)
    }
}

/// As exact as it can be known.
pub(super) fn span_text(span: Duration, terminal: &Terminal) -> String {
    let (s, min, h) = terminal.pick(("s", "min", "h"), ("с", "мин", "ч"));
    match span.as_secs() {
        seconds @ ..120 => format!("{seconds} {s}"),
        seconds @ 120..7_200 => format!("{} {min}", seconds.div_ceil(60)),
        seconds => format!("{} {h} {} {min}", seconds / 3600, seconds % 3600 / 60),
    }
}

/// What keeps rows from moving, and what a person can do about it.
pub(in crate::cli) fn why(state: SyncState, terminal: &Terminal) -> Option<String> {
    let text = match state {
        SyncState::Starting | SyncState::Working => return None,
        SyncState::Holding => terminal
            .pick(
                "AMOCRM_ENABLED=false: nothing is sent",
                "AMOCRM_ENABLED=false: отправка выключена",
            )
            .to_owned(),
        SyncState::Paused { .. } => terminal
            .pick(
                "paused: `tripwire-sync resume`",
                "пауза: `tripwire-sync resume`",
            )
            .to_owned(),
        SyncState::Halted { cause, .. } => {
            let halted = terminal.pick("halted", "остановлено");
            let cause = terminal.pick(cause.into_str(), cause.hint(terminal.lang()));
            format!("{halted}: {cause}")
        }
        SyncState::Standby {
            held_by_another: false,
        } => terminal
            .pick(
                "Supabase does not confirm the right to send",
                "Supabase не подтверждает право на отправку",
            )
            .to_owned(),
        SyncState::Standby {
            held_by_another: true,
        } => terminal
            .pick(
                "another machine does the syncing",
                "синхронизирует сервис на другой машине",
            )
            .to_owned(),
        SyncState::Inbox { fault, .. } => {
            let english = match fault {
                InboxFault::Unwritable => "the inbox file cannot be written",
                InboxFault::Full => "the inbox file is full",
                InboxFault::FileLost => "the inbox file was removed, replaced or moved",
            };
            terminal
                .pick(english, fault.hint(terminal.lang()))
                .to_owned()
        }
        SyncState::InboxFull { .. } => terminal
            .pick(
                "the inbox file is full",
                InboxFault::Full.hint(terminal.lang()),
            )
            .to_owned(),
    };
    Some(text)
}

pub(super) fn service_is_gone(terminal: &Terminal) -> String {
    terminal
        .pick(
            "the service has stopped; if it does not come back, this command goes on by itself",
            "сервис остановлен; если он не запустится, команда продолжит сама",
        )
        .to_owned()
}

pub(super) fn nobody_knows(terminal: &Terminal) -> String {
    terminal
        .pick(
            "nothing moves: `/readyz` on the METRICS_ADDR of the service tells why",
            "обработка не движется: причину покажет `/readyz` на METRICS_ADDR сервиса",
        )
        .to_owned()
}

/// A bar on a terminal, else a line now and then.
#[derive(Debug)]
pub(super) struct Progress {
    total: u64,
    bar: Option<ProgressBar>,
    /// Standard output is for the totals alone.
    as_json: bool,
    pace: Pace,
    told_at: Option<Instant>,
    told: Option<String>,
}

impl Progress {
    pub(super) fn new(total: u64, as_json: bool) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {wide_msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            total,
            bar,
            as_json,
            pace: Pace(VecDeque::new()),
            told_at: None,
            told: None,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn show(
        &mut self,
        standing: &Standing,
        why: Option<String>,
        terminal: &mut Terminal,
    ) -> io::Result<()> {
        let now = Instant::now();
        let ended = standing.ended();
        self.pace.note(now, ended);
        if let Some(bar) = &self.bar {
            bar.set_position(ended);
            bar.set_message(why.unwrap_or_else(|| self.speed(standing, terminal)));
            return Ok(());
        }
        let is_due = self
            .told_at
            .is_none_or(|at| now.duration_since(at) >= LINE_EVERY);
        if is_due || why != self.told || standing.is_drained() {
            let state = why
                .clone()
                .unwrap_or_else(|| self.speed(standing, terminal));
            let line = format!("{ended}/{}  {state}", self.total);
            let line = line.trim_end();
            if self.as_json {
                terminal.complain(line);
            } else {
                terminal.say(line)?;
            }
            (self.told_at, self.told) = (Some(now), why);
        }
        Ok(())
    }

    fn speed(&self, standing: &Standing, terminal: &Terminal) -> String {
        let rate = self.pace.rate();
        match time_left(standing.open, rate) {
            Some(left) if standing.open > 0 => {
                let still = terminal.pick("left", "осталось");
                let (rate, left) = (rate_text(rate, terminal), span_text(left, terminal));
                terminal.pick(
                    format!("{rate}, {left} {still}"),
                    format!("{rate}, {still} {left}"),
                )
            }
            _ => standing.due_in().map_or_else(String::new, |left| {
                let next = terminal.pick("next attempt in", "следующая попытка через");
                format!("{next} {}", span_text(left, terminal))
            }),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::{
        inbox::Outcome,
        words::{Lang, Reader},
    };

    fn after(began: Instant, seconds: u64) -> Instant {
        began + Duration::from_secs(seconds)
    }

    #[test]
    fn the_rate_is_that_of_the_last_half_minute() {
        let began = Instant::now();
        let mut pace = Pace(VecDeque::new());
        assert!(pace.rate().abs() < f64::EPSILON);
        pace.note(began, 0);
        assert!(pace.rate().abs() < f64::EPSILON);
        for second in 1..=10 {
            pace.note(after(began, second), second * 80);
        }
        assert!((pace.rate() - 80.0).abs() < 0.01, "{}", pace.rate());
        // Then it stands still.
        for second in 11..=45 {
            pace.note(after(began, second), 800);
        }
        assert!(pace.rate().abs() < f64::EPSILON, "{}", pace.rate());
        assert!(pace.0.len() <= 32, "{}", pace.0.len());
    }

    #[test]
    fn time_and_rate_are_told_as_exactly_as_they_are_known() {
        let terminal = Terminal::new(Reader::in_utc(Lang::English));
        let span = |seconds| span_text(Duration::from_secs(seconds), &terminal);
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (121, "3 min"),
            (7_199, "120 min"),
            (7_200, "2 h 0 min"),
            (90_061, "25 h 1 min"),
        ] {
            assert_eq!(span(seconds), text);
        }
        assert_eq!(rate_text(81.4, &terminal), "81/s");
        assert_eq!(rate_text(0.2, &terminal), "12/min");
        assert_eq!(time_left(400, 80.0), Some(Duration::from_secs(5)));
        assert_eq!(time_left(400, 0.0), None);
        assert_eq!(time_left(0, 0.0), None);
        let russian = Terminal::new(Reader::in_utc(Lang::Russian));
        assert_eq!(span_text(Duration::from_secs(5), &russian), "5 с");
    }

    #[test]
    fn a_row_that_is_looked_up_again_at_once_is_not_done_with() {
        let by_end = HashMap::from([
            ((State::Done, Some(Outcome::Synced)), 5),
            ((State::Done, Some(Outcome::Gone)), 1),
            ((State::Waiting, None), 4),
            ((State::Parked, None), 2),
            ((State::Pending, None), 3),
            ((State::Claimed, None), 1),
        ]);
        let tally = Tally {
            by_end,
            waiting_briefly: 3,
            next_due: None,
        };
        let standing = Standing::new(20, &tally);
        let expected = Standing {
            total: 20,
            done: BTreeMap::from([("synced", 5), ("gone", 1)]),
            waiting: 1,
            parked: 2,
            open: 7,
            next_due: None,
        };
        assert_eq!(standing, expected);
        assert_eq!((standing.ended(), standing.elsewhere()), (9, 4));
        assert!(!standing.is_drained());
    }

    #[test]
    fn every_state_in_which_nothing_moves_says_why() {
        let since = jiff::Timestamp::UNIX_EPOCH;
        let terminal = Terminal::new(Reader::in_utc(Lang::English));
        let halted = SyncState::Halted {
            cause: crate::domain::HaltCause::AmocrmForbidden,
            since,
            next_probe: None,
        };
        for (state, words) in [
            (SyncState::Holding, "AMOCRM_ENABLED"),
            (SyncState::Paused { since }, "tripwire-sync resume"),
            (halted, "amocrm_forbidden"),
            (
                SyncState::Standby {
                    held_by_another: true,
                },
                "another machine",
            ),
            (
                SyncState::Standby {
                    held_by_another: false,
                },
                "Supabase",
            ),
        ] {
            let told = why(state, &terminal).unwrap();
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(why(SyncState::Working, &terminal), None);
    }
}
