//! Ends the process when a loop hangs: Fly and Docker restart what exits, and not what answers badly.
//!
//! The watchdog has a thread of its own, since a blocked runtime runs no task. It counts ticks and reads no clock: after a
//! suspend of the machine, the loops get the whole time again. It also says that all is well: as long as all loops come round.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use crate::domain::Heartbeat;

/// Ticks without a heartbeat, until a loop hangs.
const TICKS: u32 = 120;
/// How long the last log line may take: what reads the log may be what hangs.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A loop that must come round, and what it is called.
#[derive(Debug)]
pub(super) struct Loop {
    name: &'static str,
    heartbeat: Heartbeat,
}

impl Loop {
    pub(super) fn new(name: &'static str, heartbeat: Heartbeat) -> Self {
        Self { name, heartbeat }
    }
}

/// What the watchdog has seen of a loop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Pulse {
    count: u64,
    /// Ticks since it changed.
    ticks: u32,
}

impl Pulse {
    /// After one more tick.
    fn next(self, count: u64) -> Self {
        let ticks = if count == self.count {
            self.ticks.saturating_add(1)
        } else {
            0
        };
        Self { count, ticks }
    }
}

/// The loop that hangs, once any loop was silent for too long. Each loop waits for those before it, so the first silent one
/// is to blame.
fn hanging(pulses: &[Pulse]) -> Option<usize> {
    if pulses.iter().all(|pulse| pulse.ticks < TICKS) {
        return None;
    }
    pulses.iter().position(|pulse| pulse.ticks >= TICKS / 2)
}

/// The counts of all loops when they had last come round.
#[derive(Debug)]
struct Round(Vec<u64>);

impl Round {
    fn of(loops: usize) -> Self {
        Self(vec![0; loops])
    }

    /// Whether each loop has come round since this was last the case.
    fn is_complete(&mut self, pulses: &[Pulse]) -> bool {
        let is_complete = pulses
            .iter()
            .zip(&self.0)
            .all(|(it, then)| it.count != *then);
        if is_complete {
            self.0 = pulses.iter().map(|it| it.count).collect();
        }
        is_complete
    }
}

/// Watches until it is dropped.
#[derive(Debug)]
pub(super) struct Watchdog {
    _stop: mpsc::Sender<()>,
}

impl Watchdog {
    /// `hang_after`: how long a loop may take to come round. Each of the loops waits for those before it. `came_round`: called
    /// each time that all of them have come round.
    pub(super) fn start(
        loops: Vec<Loop>,
        hang_after: Duration,
        hangs: Arc<AtomicBool>,
        came_round: fn(),
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let tick = hang_after / TICKS;
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                let mut pulses = vec![Pulse::default(); loops.len()];
                let mut round = Round::of(loops.len());
                while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                    for (it, pulse) in loops.iter().zip(&mut pulses) {
                        *pulse = pulse.next(it.heartbeat.count());
                    }
                    if let Some(it) = hanging(&pulses).and_then(|nth| loops.get(nth)) {
                        hangs.store(true, Ordering::Relaxed);
                        end(it.name);
                    }
                    if round.is_complete(&pulses) {
                        came_round();
                    }
                }
            })?;
        Ok(Self { _stop: stop })
    }
}

fn end(part: &'static str) -> ! {
    let (said, was_said) = mpsc::channel();
    let saying = thread::Builder::new().spawn(move || {
        tracing::error!(part, "service.hangs");
        let _ = said.send(());
    });
    if saying.is_ok() {
        let _ = was_said.recv_timeout(LAST_WORDS);
    }
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_hangs_after_two_minutes_of_ticks_without_a_heartbeat() {
        let after = |counts: &[u64]| {
            let mut pulses = counts.iter().scan(Pulse::default(), |pulse, count| {
                *pulse = pulse.next(*count);
                Some(*pulse)
            });
            pulses.any(|pulse| hanging(&[pulse]).is_some())
        };
        let silent = |count, ticks| vec![count; ticks];
        let table = [
            // It never came round.
            (silent(0, 119), false),
            (silent(0, 120), true),
            // The first tick sees a count that is new.
            (silent(7, 120), false),
            (silent(7, 121), true),
            // It comes round just in time, for ever.
            (
                [silent(1, 120), silent(2, 120), silent(3, 120)].concat(),
                false,
            ),
            ([silent(1, 120), silent(2, 121)].concat(), true),
            // A count that runs over is a change like any other.
            ([silent(u64::MAX, 120), silent(0, 120)].concat(), false),
        ];
        for (counts, hangs) in table {
            assert_eq!(after(&counts), hangs, "{counts:?}");
        }
    }

    #[test]
    fn the_loop_that_the_others_wait_for_is_named() {
        let silent_for = |ticks| Pulse { count: 1, ticks };
        let table = [
            ([119, 119], None),
            ([120, 0], Some(0)),
            ([0, 120], Some(1)),
            ([1, 120], Some(1)),
            // The second one had its last turn a little earlier.
            ([118, 120], Some(0)),
        ];
        for (ticks, named) in table {
            assert_eq!(hanging(&ticks.map(silent_for)), named, "{ticks:?}");
        }
    }

    #[test]
    fn a_round_is_complete_when_every_loop_has_come_round() {
        let mut round = Round::of(2);
        let mut is_complete = |counts: [u64; 2]| {
            let pulses = counts.map(|count| Pulse { count, ticks: 0 });
            round.is_complete(&pulses)
        };
        let table = [
            ([0, 0], false),
            ([5, 0], false),
            ([6, 1], true),
            ([6, 1], false),
            // One of them hangs, whichever it is.
            ([90, 1], false),
            ([90, 2], true),
            ([90, 50], false),
            ([91, 50], true),
        ];
        for (counts, expected) in table {
            assert_eq!(is_complete(counts), expected, "{counts:?}");
        }
    }

    #[test]
    fn a_machine_that_was_suspended_gives_the_loops_their_whole_time() {
        let almost = Pulse {
            count: 3,
            ticks: 118,
        };
        // A suspend of any length is one tick.
        let awake = almost.next(3);
        assert_eq!(hanging(&[awake]), None);
        assert_eq!(awake.next(4), Pulse { count: 4, ticks: 0 });
    }
}
