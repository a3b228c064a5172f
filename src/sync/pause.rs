//! A pause for all services: the database keeps the last `pause` or `resume`, and each service carries it out once.
//!
//! Each inbox remembers what it has carried out, so a pause holds while the database is out of reach and after a restart.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    domain::{Halt, HaltCause, SharedClock},
    inbox::{HALT, Inbox, InboxError, PAUSED, StoredState},
    supabase::{LastPause, PauseAnswer, Supabase, SupabaseError},
};

/// Keys of the engine's own state in the inbox.
const CARRIED_OUT: &str = "pause_carried_out";
const HELD_BY: &str = "lease_held_by";

/// What this inbox has carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct CarriedOut {
    /// By the database's clock.
    changed_at: Timestamp,
    /// The stored pause, if the database ordered it.
    paused_since: Option<Timestamp>,
}

/// Stops the sending of the service on this inbox. An earlier pause keeps its time.
pub async fn pause_here(inbox: &Inbox, now: Timestamp) -> Result<(), InboxError> {
    let pause = move |state: &mut StoredState| match state.get::<Timestamp>(PAUSED)? {
        None => state.set(PAUSED, Some(&now)),
        Some(_) => Ok(()),
    };
    inbox.change_state(&[PAUSED], pause).await?;
    // An engine in this process would rest on.
    inbox.wake();
    Ok(())
}

/// Ends a pause and a halt of the service on this inbox. `false`: nothing was ended, because `may_end` keeps the halt.
pub async fn resume_here(
    inbox: &Inbox,
    may_end: impl FnOnce(&Halt) -> bool + Send + 'static,
) -> Result<bool, InboxError> {
    let resume = move |state: &mut StoredState| {
        let halt: Option<Halt> = state.get(HALT)?;
        if halt.is_some_and(|halt| !may_end(&halt)) {
            return Ok(false);
        }
        state.set::<Timestamp>(PAUSED, None)?;
        state.set::<Halt>(HALT, None)?;
        Ok(true)
    };
    let is_resumed = inbox.change_state(&[PAUSED, HALT], resume).await?;
    if is_resumed {
        inbox.wake();
    }
    Ok(is_resumed)
}

/// Tells the database of a pause or its end, from which all services take it.
#[derive(Debug, Clone)]
pub struct Switch {
    pub inbox: Inbox,
    pub supabase: Supabase,
    pub clock: SharedClock,
    /// How long the database has for its answer.
    pub timeout: Duration,
}

/// Why the other services may not know of a pause or its end.
#[derive(Debug, thiserror::Error)]
pub enum NotShared {
    #[error(transparent)]
    Supabase(#[from] SupabaseError),
    #[error(transparent)]
    Inbox(#[from] InboxError),
}

impl Switch {
    /// To be called once this service has carried it out. `false`: the database has no such function.
    pub async fn share(&self, is_paused: bool) -> Result<bool, NotShared> {
        let asked = self.clock.now();
        let answer = self.supabase.pause(Some(is_paused), self.timeout).await?;
        let Some(answer) = answer else {
            return Ok(false);
        };
        carry_out(&self.inbox, &answer, asked).await?;
        Ok(true)
    }
}

/// Carries out the last pause or resume, unless this inbox has done so. `asked`: before the database was asked. `true`:
/// something may have changed.
pub async fn carry_out(
    inbox: &Inbox,
    answer: &PauseAnswer,
    asked: Timestamp,
) -> Result<bool, InboxError> {
    if held_by(inbox).await? != answer.held_by {
        match &answer.held_by {
            Some(holder) => inbox.set_state(HELD_BY, holder).await?,
            None => inbox.clear_state(HELD_BY).await?,
        }
    }
    let Some(last) = answer.last else {
        return Ok(false);
    };
    let known: Option<CarriedOut> = inbox.state(CARRIED_OUT).await?;
    if known.is_some_and(|known| known.changed_at >= last.changed_at) {
        return Ok(false);
    }
    // The command on this machine and the service may do this at the same time.
    let keys = &[CARRIED_OUT, PAUSED, HALT];
    let change = move |state: &mut StoredState| change(state, &last, asked);
    let is_changed = inbox.change_state(keys, change).await?;
    if is_changed {
        tracing::info!(is_paused = last.is_paused, at = %last.changed_at, "pause.carried_out");
    }
    Ok(is_changed)
}

/// A resume ends a pause and a halt that began before it: a person has not seen a later one. It ends no 403 either, since
/// the person may have been on another machine, and asking on makes a ban permanent.
fn change(state: &mut StoredState, last: &LastPause, asked: Timestamp) -> Result<bool, InboxError> {
    let known: Option<CarriedOut> = state.get(CARRIED_OUT)?;
    if known.is_some_and(|known| known.changed_at >= last.changed_at) {
        return Ok(false);
    }
    let ago = SignedDuration::try_from_secs_f64(last.seconds_ago.max(0.0));
    let at = ago.ok().and_then(|ago| asked.checked_sub(ago).ok());
    // By this machine's clock. A time that cannot be told ends nothing.
    let at = at.unwrap_or(Timestamp::MIN);
    let paused: Option<Timestamp> = state.get(PAUSED)?;
    let ordered = known.and_then(|known| known.paused_since);
    let is_ordered = paused.is_some() && paused == ordered;
    let mut paused_since = None;
    if last.is_paused {
        match paused {
            None => {
                state.set(PAUSED, Some(&at))?;
                paused_since = Some(at);
            }
            Some(_) => paused_since = ordered.filter(|_| is_ordered),
        }
    } else {
        if is_ordered || paused.is_some_and(|since| since <= at) {
            state.set::<Timestamp>(PAUSED, None)?;
        }
        let halt: Option<Halt> = state.get(HALT)?;
        let ends = |halt: Halt| halt.since <= at && halt.cause != HaltCause::AmocrmForbidden;
        if halt.is_some_and(ends) {
            state.set::<Halt>(HALT, None)?;
        }
    }
    let carried_out = CarriedOut {
        changed_at: last.changed_at,
        paused_since,
    };
    state.set(CARRIED_OUT, Some(&carried_out))?;
    Ok(true)
}

/// Whether the database has told this inbox of a pause or a holder before. Then the function's absence is an outage.
pub(super) async fn is_known(inbox: &Inbox) -> Result<bool, InboxError> {
    let carried_out: Option<CarriedOut> = inbox.state(CARRIED_OUT).await?;
    Ok(carried_out.is_some() || held_by(inbox).await?.is_some())
}

/// The name of the service that held the lease when the database was last asked.
pub async fn held_by(inbox: &Inbox) -> Result<Option<String>, InboxError> {
    inbox.state(HELD_BY).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{domain::SystemClock, inbox::Role};

    fn second(n: i32) -> Timestamp {
        Timestamp::from_second(1_000_000 + i64::from(n)).unwrap()
    }

    /// The database's clock is an hour ahead of ours.
    fn told(is_paused: bool, at: i32, asked: i32) -> PauseAnswer {
        PauseAnswer {
            last: Some(LastPause {
                is_paused,
                changed_at: second(at + 3_600),
                seconds_ago: f64::from(asked - at),
            }),
            held_by: Some("another".to_owned()),
        }
    }

    fn halt(since: i32) -> Halt {
        Halt {
            cause: HaltCause::AmocrmToken,
            since: second(since),
            probes: 0,
            next_probe: None,
            detail: String::new(),
            operation: None,
            rows: Vec::new(),
        }
    }

    struct Machine {
        inbox: Inbox,
        _folder: tempfile::TempDir,
    }

    impl Machine {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("inbox.db");
            let inbox = Inbox::open(&path, Role::Owner, Arc::new(SystemClock)).await;
            Self {
                inbox: inbox.unwrap(),
                _folder: folder,
            }
        }

        async fn hears(&self, is_paused: bool, at: i32, asked: i32) -> bool {
            let answer = told(is_paused, at, asked);
            carry_out(&self.inbox, &answer, second(asked))
                .await
                .unwrap()
        }

        async fn paused(&self) -> Option<Timestamp> {
            self.inbox.state(PAUSED).await.unwrap()
        }

        async fn halt(&self) -> Option<Halt> {
            self.inbox.state(HALT).await.unwrap()
        }
    }

    #[tokio::test]
    async fn a_pause_and_its_end_are_carried_out_once_each() {
        let machine = Machine::new().await;
        assert!(machine.hears(true, 10, 15).await);
        assert_eq!(machine.paused().await, Some(second(10)));
        assert_eq!(held_by(&machine.inbox).await.unwrap().unwrap(), "another");
        assert!(!machine.hears(true, 10, 30).await);
        let mut answer = told(true, 10, 35);
        for holder in [None, Some("a third".to_owned())] {
            answer.held_by = holder;
            let changed = carry_out(&machine.inbox, &answer, second(35)).await;
            assert!(!changed.unwrap());
            assert_eq!(held_by(&machine.inbox).await.unwrap(), answer.held_by);
        }

        assert!(machine.hears(false, 40, 45).await);
        assert_eq!(machine.paused().await, None);
        // A pause of this service alone, which the database does not know of, stays.
        machine.inbox.set_state(PAUSED, &second(50)).await.unwrap();
        assert!(!machine.hears(false, 40, 60).await);
        assert_eq!(machine.paused().await, Some(second(50)));
    }

    #[tokio::test]
    async fn an_answer_that_was_overtaken_changes_nothing() {
        let machine = Machine::new().await;
        assert!(machine.hears(false, 20, 21).await);
        assert!(!machine.hears(true, 10, 21).await);
        assert_eq!(machine.paused().await, None);
    }

    #[tokio::test]
    async fn a_resume_ends_what_began_before_it_and_nothing_later() {
        for (began, stays) in [(10, false), (20, false), (21, true), (30, true)] {
            let machine = Machine::new().await;
            machine.inbox.set_state(HALT, &halt(began)).await.unwrap();
            machine
                .inbox
                .set_state(PAUSED, &second(began))
                .await
                .unwrap();
            assert!(machine.hears(false, 20, 35).await);
            assert_eq!(machine.halt().await.is_some(), stays, "{began}");
            assert_eq!(machine.paused().await.is_some(), stays, "{began}");
        }
    }

    #[tokio::test]
    async fn a_resume_ends_no_403_since_the_person_may_not_know_of_it() {
        let machine = Machine::new().await;
        let banned = Halt {
            cause: HaltCause::AmocrmForbidden,
            ..halt(5)
        };
        machine.inbox.set_state(HALT, &banned).await.unwrap();
        assert!(machine.hears(false, 20, 35).await);
        assert_eq!(machine.halt().await, Some(banned));
    }

    #[tokio::test]
    async fn a_pause_that_the_database_ordered_ends_by_its_resume_whatever_the_clocks_say() {
        let machine = Machine::new().await;
        assert!(machine.hears(true, 100, 101).await);
        // The clock was put back, or the request was slow: by it the resume came before the pause.
        let mut answer = told(false, 110, 120);
        answer.last = answer.last.map(|last| LastPause {
            seconds_ago: 60.0,
            ..last
        });
        let changed = carry_out(&machine.inbox, &answer, second(120)).await;
        assert!(changed.unwrap());
        assert_eq!(machine.paused().await, None);

        // A pause that the database ordered again is still its own.
        assert!(machine.hears(true, 130, 131).await);
        assert!(machine.hears(true, 140, 141).await);
        assert!(machine.hears(false, 150, 190).await);
        assert_eq!(machine.paused().await, None);
    }

    #[tokio::test]
    async fn a_pause_ends_no_halt_and_keeps_the_time_of_an_earlier_pause() {
        let machine = Machine::new().await;
        machine.inbox.set_state(HALT, &halt(5)).await.unwrap();
        machine.inbox.set_state(PAUSED, &second(7)).await.unwrap();
        assert!(machine.hears(true, 20, 35).await);
        assert_eq!(machine.paused().await, Some(second(7)));
        assert_eq!(machine.halt().await, Some(halt(5)));
    }
}
