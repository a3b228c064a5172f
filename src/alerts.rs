//! Alerts: a short message to a person when only a person can help, and another one when the trouble is over.
//!
//! This module decides what to say, from what is seen and what was said before. It does not send, sleep or store.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use crate::{
    domain::{
        Backoff, Events, Halt, HaltCause, InboxFault, Refusals, RowId, SyncState, TelegramBot,
        TokenEnd,
    },
    inbox::{DiskSpace, Doubled, Replaced, Stuck},
    words::{Lang, Reader},
};

mod digest;
mod messages;
mod telegram;
mod watch;

pub use self::{
    digest::{Digest, Schedule},
    telegram::{Telegram, TelegramError},
    watch::Watch,
};

/// Alarms in a day. Ends of what was announced come on top, at most one for each.
const ALARMS_A_DAY: usize = 6;
/// Of these, how many may be about what can wait: a flood of them must leave room to say that all has stopped.
const THAT_CAN_WAIT_A_DAY: usize = 4;

/// Less free space than this is told of, whatever the size of the inbox.
const LEAST_FREE: u64 = 64 << 20;

/// How many days before its end a token is announced, from the first message to the last.
const ENDS_ANNOUNCED: [u32; 3] = [30, 7, 1];

/// The bot, the chat, and how often.
#[derive(Debug, Clone)]
pub struct Settings {
    pub bot: TelegramBot,
    /// Tokens that end. A person has to replace each before its end.
    pub tokens: Vec<TokenEnd>,
    /// Of the times in messages.
    pub zone: TimeZone,
    /// `None`: no digests.
    pub digests: Option<Schedule>,
    pub pace: Pace,
}

/// What the alerts ask of the running service beside its state.
pub trait Service: fmt::Debug + Send + Sync {
    /// Whether this service is the one of its project that works. `None`: not known now.
    fn holds_lease(&self) -> Option<bool>;
    /// How many requests went to amoCRM since the start.
    fn requests_sent(&self) -> u64;
}

/// All durations of the alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two looks; a change of the engine's state is looked at when it comes.
    pub look_every: Duration,
    /// What is parked within this time of the first makes one message.
    pub gather: Duration,
    /// An entry that is pending for longer is late, unless sending was stopped meanwhile.
    pub late_after: Duration,
    /// A write may be in doubt for so long before it is told of, as with `late_after`.
    pub unresolved_after: Duration,
    /// A test event that ended longer ago proves nothing: the service that works sends one more often while they fail.
    pub tests_count_for: Duration,
    /// A digest that has been due for longer is left to the service that works.
    pub leave_digest_after: Duration,
    /// For how long sending must work before a halt counts as over.
    pub sure_after: Duration,
    /// The period of the budget. An alarm that lasts is repeated once in each.
    pub day: Duration,
    /// The pause before a message is tried again. The message is dropped when Telegram asks for a longer one.
    pub retry: Backoff,
    /// The first and the longest time without any try, after a message was dropped.
    pub quiet: Backoff,
}

impl Default for Pace {
    fn default() -> Self {
        Self::scaled(1.0)
    }
}

impl Pace {
    #[must_use]
    pub fn scaled(scale: f64) -> Self {
        let d = |real: Duration| real.mul_f64(scale);
        Self {
            look_every: d(Duration::from_secs(30)),
            gather: d(Duration::from_mins(5)),
            late_after: d(Duration::from_mins(15)),
            unresolved_after: d(Duration::from_mins(10)),
            tests_count_for: d(Duration::from_mins(70)),
            leave_digest_after: d(Duration::from_mins(3)),
            sure_after: d(Duration::from_mins(1)),
            day: d(Duration::from_hours(24)),
            retry: Backoff {
                first: d(Duration::from_secs(5)),
                longest: d(Duration::from_mins(1)),
            },
            quiet: Backoff {
                first: d(Duration::from_mins(15)),
                longest: d(Duration::from_hours(6)),
            },
        }
    }
}

/// What there is to see.
#[derive(Debug, Clone)]
pub struct Seen {
    pub now: Timestamp,
    pub state: SyncState,
    /// The stored halt. It is stored a moment after it is in force.
    pub halt: Option<Halt>,
    pub refusals: Refusals,
    /// Parked after [`Said::parked_until`], the first one first.
    pub parked: Vec<Stuck>,
    /// Pending for longer than [`Pace::late_after`], the oldest first.
    pub late: Vec<Stuck>,
    /// Rows with a write that has been in doubt for longer than [`Pace::unresolved_after`].
    pub unresolved: Vec<RowId>,
    pub tokens: Vec<TokenEnd>,
    /// What keeps deliveries from being stored, and since when.
    pub inbox: Option<(InboxFault, Timestamp)>,
    /// Found after [`Said::doubled_until`], the first one first.
    pub doubled: Vec<Doubled>,
    /// The inbox took the place of a damaged one.
    pub replaced: Option<Replaced>,
    /// `None`: not known.
    pub disk: Option<DiskSpace>,
    pub events: Events,
    /// It is due.
    pub digest: Option<Digest>,
}

/// What was said. Stored in the inbox, so that a restart repeats nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Said {
    /// The halt that was announced, and whose end was not.
    halt: Option<SaidHalt>,
    /// The fault of the inbox that was announced, and whose end was not. While it lasts this cannot be stored.
    inbox: Option<SaidInbox>,
    /// Which other troubles were announced, and when, if their end was not.
    troubles: BTreeMap<Trouble, Timestamp>,
    /// Rows in doubt were announced up to this time.
    doubts_until: Option<Timestamp>,
    /// Parked entries were announced up to this time.
    parked_until: Option<Timestamp>,
    /// Doubled deals were announced up to this time.
    doubled_until: Option<Timestamp>,
    /// Which ends of tokens were announced.
    tokens: Vec<SaidEnd>,
    /// Which replacement of a damaged inbox was told.
    replaced_at: Option<Timestamp>,
    /// The end of the last digest. `None`: digests are off.
    digest_until: Option<Timestamp>,
    /// Those raised within the last day.
    alarms: Vec<Alarm>,
}

/// What is announced once, again after each day in which it lasts, and once more when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Trouble {
    Late,
    Unresolved,
    Disk,
    Silence,
}

impl Trouble {
    const ALL: [Self; 4] = [Self::Disk, Self::Silence, Self::Unresolved, Self::Late];

    fn begins(self) -> Kind {
        match self {
            Self::Late => Kind::Late,
            Self::Unresolved => Kind::Unresolved,
            Self::Disk => Kind::Disk,
            Self::Silence => Kind::Silent,
        }
    }

    fn ends(self) -> Kind {
        match self {
            Self::Late => Kind::Moving,
            Self::Unresolved => Kind::Resolved,
            Self::Disk => Kind::DiskFreed,
            Self::Silence => Kind::Arriving,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Alarm {
    at: Timestamp,
    #[serde(alias = "about_entries")]
    can_wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct SaidHalt {
    cause: HaltCause,
    since: Timestamp,
    at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct SaidInbox {
    fault: InboxFault,
    since: Timestamp,
    at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SaidEnd {
    token: String,
    expires_at: Timestamp,
    /// So many days ahead.
    days: u32,
}

impl SaidEnd {
    fn is_of(&self, end: &TokenEnd) -> bool {
        self.token == end.name && self.expires_at == end.expires_at
    }
}

impl Said {
    /// Entries parked later than this are news.
    #[must_use]
    pub fn parked_until(&self) -> Timestamp {
        self.parked_until.unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Deals found doubled later than this are news.
    #[must_use]
    pub fn doubled_until(&self) -> Timestamp {
        self.doubled_until.unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// `into_str`: the name used in logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Kind {
    Inbox,
    Writable,
    Halted,
    Recovered,
    InDoubt,
    Parked,
    Late,
    Moving,
    Unresolved,
    Resolved,
    Disk,
    DiskFreed,
    Silent,
    Arriving,
    Expiring,
    Replaced,
    Doubled,
    Digest,
}

impl Kind {
    /// `None`: the message ends an alarm, or is a digest.
    fn alarm(self, at: Timestamp) -> Option<Alarm> {
        let can_wait = match self {
            Self::Inbox | Self::Halted | Self::Expiring | Self::Replaced => false,
            Self::InDoubt
            | Self::Doubled
            | Self::Parked
            | Self::Late
            | Self::Unresolved
            | Self::Disk
            | Self::Silent => true,
            Self::Writable
            | Self::Recovered
            | Self::Moving
            | Self::Resolved
            | Self::DiskFreed
            | Self::Arriving
            | Self::Digest => return None,
        };
        Some(Alarm { at, can_wait })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: Kind,
    /// Plain text, Russian, no personal data.
    pub text: String,
    /// What will have been said once this is.
    then: Said,
}

/// Decides what to say, one message at a time.
#[derive(Debug)]
pub struct Alerts {
    pace: Pace,
    reader: Reader,
    said: Said,
    /// Since when sending has been going on, as far as this process has seen.
    working_since: Option<Timestamp>,
    /// Since when there has been no halt.
    free_since: Option<Timestamp>,
    /// Since when the inbox has been without fault.
    writable_since: Option<Timestamp>,
}

impl Alerts {
    #[must_use]
    pub fn new(pace: Pace, zone: TimeZone, said: Said) -> Self {
        Self {
            pace,
            reader: Reader {
                lang: Lang::Russian,
                zone,
            },
            said,
            working_since: None,
            free_since: None,
            writable_since: None,
        }
    }

    #[must_use]
    pub fn said(&self) -> &Said {
        &self.said
    }

    /// The next message, if any. It counts as said only after [`Alerts::told`].
    pub fn look(&mut self, seen: &Seen) -> Option<Message> {
        self.follow(seen);
        let news = [
            self.inbox(seen),
            self.writable(seen),
            self.replaced(seen),
            self.halted(seen),
            self.recovered(seen),
            self.in_doubt(seen),
            self.doubled(seen),
            self.parked(seen),
        ];
        let troubles = Trouble::ALL.map(|trouble| self.trouble(trouble, seen));
        news.into_iter()
            .chain(troubles)
            .chain([self.expiring(seen), self.digest(seen)])
            .flatten()
            .find_map(|message| self.within_budget(message, seen.now))
    }

    /// Begins the period of the first digest. A time in the future was stored before the clock was put back.
    fn begin_digests(&mut self, are_on: bool, now: Timestamp) {
        let until = self.said.digest_until.map_or(now, |until| until.min(now));
        self.said.digest_until = are_on.then_some(until);
    }

    /// Leaves a digest to the service that works.
    fn skip_digest(&mut self, now: Timestamp) {
        self.said.digest_until = Some(now);
    }

    pub fn told(&mut self, message: Message) {
        self.said = message.then;
    }

    fn follow(&mut self, seen: &Seen) {
        if seen.inbox.is_some() {
            self.writable_since = None;
        } else {
            self.writable_since.get_or_insert(seen.now);
        }
        match seen.state {
            SyncState::Starting => {}
            // The service is meant to send, so late rows are worth a message.
            SyncState::Working
            | SyncState::InboxFull { .. }
            | SyncState::Standby {
                held_by_another: false,
            } => {
                self.working_since.get_or_insert(seen.now);
                self.free_since.get_or_insert(seen.now);
            }
            SyncState::Holding
            | SyncState::Paused { .. }
            | SyncState::Standby {
                held_by_another: true,
            } => {
                self.working_since = None;
                self.free_since.get_or_insert(seen.now);
            }
            // An inbox with a fault hides whether there is a halt.
            SyncState::Halted { .. } | SyncState::Inbox { .. } => {
                self.working_since = None;
                self.free_since = None;
            }
        }
    }

    /// `change`: what will have been said beside all that was.
    fn message(&self, kind: Kind, text: String, change: impl FnOnce(&mut Said)) -> Message {
        let mut then = self.said.clone();
        change(&mut then);
        Message { kind, text, then }
    }

    fn replaced(&self, seen: &Seen) -> Option<Message> {
        let replaced = seen.replaced.as_ref()?;
        if self.said.replaced_at == Some(replaced.at) {
            return None;
        }
        let text = messages::replaced(replaced, &self.reader);
        Some(self.message(Kind::Replaced, text, |said| {
            said.replaced_at = Some(replaced.at);
        }))
    }

    fn inbox(&self, seen: &Seen) -> Option<Message> {
        let (fault, since) = seen.inbox?;
        // A fault that comes and goes is one fault.
        let before = self.said.inbox.filter(|said| said.fault == fault);
        if before.is_some_and(|said| !has_passed(self.pace.day, said.at, seen.now)) {
            return None;
        }
        let since = before.map_or(since, |said| said.since);
        let inbox = SaidInbox {
            fault,
            since,
            at: seen.now,
        };
        let text = messages::inbox(fault, since, before.is_some(), &self.reader);
        Some(self.message(Kind::Inbox, text, |said| said.inbox = Some(inbox)))
    }

    fn writable(&self, seen: &Seen) -> Option<Message> {
        let inbox = self.said.inbox?;
        if !has_passed(self.pace.sure_after, self.writable_since?, seen.now) {
            return None;
        }
        let text = messages::writable(inbox.since, &self.reader);
        Some(self.message(Kind::Writable, text, |said| said.inbox = None))
    }

    fn halted(&self, seen: &Seen) -> Option<Message> {
        let SyncState::Halted { cause, since, .. } = seen.state else {
            return None;
        };
        let before = self
            .said
            .halt
            .filter(|said| (said.cause, said.since) == (cause, since));
        if before.is_some_and(|said| !has_passed(self.pace.day, said.at, seen.now)) {
            return None;
        }
        let halt = SaidHalt {
            cause,
            since,
            at: seen.now,
        };
        let (stored, is_known) = (seen.halt.as_ref(), before.is_some());
        let text = messages::halted(cause, since, stored, is_known, &self.reader);
        Some(self.message(Kind::Halted, text, |said| said.halt = Some(halt)))
    }

    /// A token that has ended is not announced: the halt is.
    fn expiring(&self, seen: &Seen) -> Option<Message> {
        let is_said = |end: &TokenEnd, days| {
            let mut said = self.said.tokens.iter().filter(|said| said.is_of(end));
            said.any(|said| said.days <= days)
        };
        let (end, days) = seen.tokens.iter().find_map(|end| {
            let days = days_ahead(end.left(seen.now))?;
            (!is_said(end, days)).then_some((end, days))
        })?;
        // Announcements of tokens that were replaced meanwhile are dropped.
        let mut tokens = self.said.tokens.clone();
        tokens.retain(|said| !said.is_of(end) && seen.tokens.iter().any(|end| said.is_of(end)));
        tokens.push(SaidEnd {
            token: end.name.to_owned(),
            expires_at: end.expires_at,
            days,
        });
        let text = messages::expiring(*end, seen.now, &self.reader);
        Some(self.message(Kind::Expiring, text, |said| said.tokens = tokens))
    }

    fn recovered(&self, seen: &Seen) -> Option<Message> {
        let halt = self.said.halt?;
        if !has_passed(self.pace.sure_after, self.free_since?, seen.now) {
            return None;
        }
        let text = messages::recovered(halt.cause, halt.since, seen.state, &self.reader);
        Some(self.message(Kind::Recovered, text, |said| said.halt = None))
    }

    /// What is decided within some minutes is not worth a message.
    fn in_doubt(&self, seen: &Seen) -> Option<Message> {
        if matches!(seen.state, SyncState::Halted { .. }) {
            return None;
        }
        let until = self.said.doubts_until.unwrap_or(Timestamp::UNIX_EPOCH);
        let refused = seen.refusals.refused().iter();
        let news: Vec<_> = refused
            .filter(|it| !it.works_for_others && it.since > until)
            .collect();
        let first = news.iter().map(|it| it.since).min()?;
        if !has_passed(self.pace.gather, first, seen.now) {
            return None;
        }
        let text = messages::in_doubt(&news);
        Some(self.message(Kind::InDoubt, text, |said| {
            said.doubts_until = news.iter().map(|it| it.since).max();
        }))
    }

    fn doubled(&self, seen: &Seen) -> Option<Message> {
        let first = seen.doubled.first()?;
        if !has_passed(self.pace.gather, first.found_at, seen.now) {
            return None;
        }
        let text = messages::doubled(&seen.doubled);
        Some(self.message(Kind::Doubled, text, |said| {
            said.doubled_until = seen.doubled.iter().map(|it| it.found_at).max();
        }))
    }

    fn parked(&self, seen: &Seen) -> Option<Message> {
        let first = seen.parked.first()?;
        if !has_passed(self.pace.gather, first.since, seen.now) {
            return None;
        }
        // An entry that is being parked now may be committed with an earlier time than the entries just read.
        let all_there = self.pace.gather / 10;
        let ready: Vec<&Stuck> = seen
            .parked
            .iter()
            .filter(|stuck| has_passed(all_there, stuck.since, seen.now))
            .collect();
        let until = ready.iter().map(|stuck| stuck.since).max()?;
        let text = messages::parked(&ready);
        Some(self.message(Kind::Parked, text, |said| said.parked_until = Some(until)))
    }

    /// Its beginning, or its end.
    fn trouble(&self, trouble: Trouble, seen: &Seen) -> Option<Message> {
        let said_at = self.said.troubles.get(&trouble).copied();
        if self.is_there(trouble, seen) {
            if said_at.is_some_and(|at| !has_passed(self.pace.day, at, seen.now)) {
                return None;
            }
            let text = match trouble {
                Trouble::Late => messages::late(&seen.late, self.pace.late_after, &self.reader),
                Trouble::Unresolved => {
                    messages::unresolved(&seen.unresolved, self.pace.unresolved_after)
                }
                Trouble::Disk => messages::disk(seen.disk?),
                Trouble::Silence => messages::silent(seen.events.failure()?, &self.reader),
            };
            return Some(self.message(trouble.begins(), text, |said| {
                said.troubles.insert(trouble, seen.now);
            }));
        }
        if said_at.is_none() || !Self::is_over(trouble, seen) {
            return None;
        }
        let text = match trouble {
            Trouble::Late => messages::moving(),
            Trouble::Unresolved => messages::resolved(),
            Trouble::Disk => messages::disk_freed(seen.disk?),
            Trouble::Silence => messages::arriving(),
        };
        Some(self.message(trouble.ends(), text, |said| {
            said.troubles.remove(&trouble);
        }))
    }

    fn is_there(&self, trouble: Trouble, seen: &Seen) -> bool {
        match trouble {
            Trouble::Late => !seen.late.is_empty() && self.has_worked(self.pace.late_after, seen),
            Trouble::Unresolved => {
                !seen.unresolved.is_empty() && self.has_worked(self.pace.unresolved_after, seen)
            }
            Trouble::Disk => seen.disk.is_some_and(|disk| disk.free < needed(disk)),
            // A standby sends no test events: what it knows is old.
            Trouble::Silence => {
                let is_standby = matches!(seen.state, SyncState::Standby { .. });
                seen.events.failure().is_some() && !is_standby
            }
        }
    }

    /// What is not there need not be over: sending may be stopped.
    fn is_over(trouble: Trouble, seen: &Seen) -> bool {
        match trouble {
            Trouble::Late => seen.late.is_empty() && seen.state == SyncState::Working,
            Trouble::Unresolved => seen.unresolved.is_empty() && seen.state == SyncState::Working,
            // Some more than needed, so that a disk at the edge is not told of again and again.
            Trouble::Disk => seen
                .disk
                .is_some_and(|disk| disk.free / 3 >= needed(disk) / 2),
            Trouble::Silence => seen.events == Events::Arrive,
        }
    }

    /// Whether sending went on all along.
    fn has_worked(&self, time: Duration, seen: &Seen) -> bool {
        self.working_since
            .is_some_and(|since| has_passed(time, since, seen.now))
    }

    fn digest(&self, seen: &Seen) -> Option<Message> {
        let digest = seen.digest.as_ref()?;
        Some(
            self.message(Kind::Digest, digest.text(&self.reader), |said| {
                said.digest_until = Some(digest.until);
            }),
        )
    }

    /// `None`: held back. A message that is held back is not said: it is made anew, up to date, when there is room again.
    fn within_budget(&self, mut message: Message, now: Timestamp) -> Option<Message> {
        let Some(alarm) = message.kind.alarm(now) else {
            return Some(message);
        };
        let alarms = &mut message.then.alarms;
        alarms.retain(|alarm| !has_passed(self.pace.day, alarm.at, now));
        if self.room_at(alarms, alarm.can_wait).is_some() {
            return None;
        }
        alarms.push(alarm);
        if let Some(room_at) = self.room_at(alarms, alarm.can_wait) {
            message
                .text
                .push_str(&messages::held_back(room_at, &self.reader));
        }
        Some(message)
    }

    /// When the budget next has room for an alarm. `None`: now.
    fn room_at(&self, alarms: &[Alarm], can_wait: bool) -> Option<Timestamp> {
        let first_of = |of: &[Timestamp], budget| {
            let is_used_up = of.len() >= budget;
            of.iter().min().filter(|_| is_used_up).copied()
        };
        let all: Vec<_> = alarms.iter().map(|alarm| alarm.at).collect();
        let waiting = alarms.iter().filter(|alarm| alarm.can_wait);
        let waiting: Vec<_> = waiting.map(|alarm| alarm.at).collect();
        let first = first_of(&all, ALARMS_A_DAY)
            .max(first_of(&waiting, THAT_CAN_WAIT_A_DAY).filter(|_| can_wait))?;
        Some(first.saturating_add(self.pace.day).unwrap_or(first))
    }
}

/// What the disk should have left: a copy of the inbox, and some room for its log.
fn needed(disk: DiskSpace) -> u64 {
    disk.size.max(LEAST_FREE)
}

/// Which announcement is due with so much time left. `None`: none yet, or the token has ended.
fn days_ahead(left: Duration) -> Option<u32> {
    const DAY: Duration = Duration::from_hours(24);
    if left.is_zero() {
        return None;
    }
    ENDS_ANNOUNCED.into_iter().rfind(|days| left < DAY * *days)
}

fn has_passed(pause: Duration, since: Timestamp, now: Timestamp) -> bool {
    since.checked_add(pause).is_ok_and(|due| due <= now)
}

#[cfg(test)]
mod tests;
