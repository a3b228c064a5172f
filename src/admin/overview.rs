//! How the service is: what is read for it, and the sentence that says it.

use std::time::Duration;

use jiff::Timestamp;
use strum::{IntoStaticStr, VariantArray};

use super::{Shared, chart::Present, views::state_of_many};
use crate::{
    domain::{Halt, SyncState},
    inbox::{Activity, Counts, HALT, InboxError, PAUSED, State},
    sync::{lease::standby, pause::held_by},
    words::Reader,
};

/// Entries wait some seconds until their row settles, and a run takes a while.
const BEHIND_AFTER: Duration = Duration::from_mins(2);

/// All that the top of the page tells.
#[derive(Debug)]
pub(super) struct Overview {
    pub(super) state: SyncState,
    /// The stored halt, with its rows.
    pub(super) halt: Option<Halt>,
    /// Since when the service is paused, also while it is halted.
    pub(super) paused_since: Option<Timestamp>,
    pub(super) counts: Counts,
    /// Since when the oldest live row is due, if that is long ago.
    pub(super) late_since: Option<Timestamp>,
    /// The service that holds the lease, if the database has told it.
    pub(super) holder: Option<String>,
    /// Another service syncs: most buttons must be pressed there.
    pub(super) is_standby: bool,
    pub(super) activity: Activity,
    pub(super) now: Timestamp,
}

impl Overview {
    pub(super) async fn read(admin: &Shared) -> Result<Self, InboxError> {
        let inbox = admin.inbox();
        let standby = standby(inbox).await?;
        let now = admin.clock().now();
        let long_ago = now.checked_sub(BEHIND_AFTER).unwrap_or(now);
        let late = inbox.pending_since(long_ago, 1).await?;
        Ok(Self {
            state: admin.state(),
            halt: inbox.state(HALT).await?,
            paused_since: inbox.state(PAUSED).await?,
            counts: inbox.counts().await?,
            late_since: late.first().map(|stuck| stuck.since),
            holder: held_by(inbox).await?,
            is_standby: standby.is_some(),
            activity: inbox.activity(),
            now,
        })
    }

    pub(super) fn count(&self, state: State) -> u64 {
        self.counts.by_state.get(&state).copied().unwrap_or(0)
    }

    /// For the charts.
    pub(super) fn present(&self) -> Present {
        let waiting = [State::Pending, State::Claimed, State::Waiting];
        Present {
            at: self.now,
            waiting: waiting.map(|state| self.count(state)).iter().sum(),
            parked: self.count(State::Parked),
        }
    }

    /// How long the oldest live row has been due; `None`: not long.
    pub(super) fn behind(&self) -> Option<Duration> {
        let since = self.late_since?;
        let behind = Duration::try_from(self.now.duration_since(since)).ok()?;
        (behind >= BEHIND_AFTER).then_some(behind)
    }

    pub(super) fn sentence(&self, reader: &Reader) -> Sentence {
        let (tone, text) = self.how_it_is(reader);
        let mut text = text;
        let parked = self.count(State::Parked);
        if parked > 0 {
            text += &reader.pick(
                format!(" Parked, and waiting for your decision: {parked}."),
                format!(" Отложено до вашего решения: {parked}."),
            );
        }
        let detail = match (self.state, &self.halt) {
            (SyncState::Halted { .. }, Some(halt)) if !halt.detail.is_empty() => {
                Some(halt.detail.clone())
            }
            _ => None,
        };
        Sentence {
            tone,
            text,
            hint: self.state.hint(reader.lang),
            detail,
        }
    }

    fn how_it_is(&self, reader: &Reader) -> (Tone, String) {
        let since = |at| reader.time(at);
        match self.state {
            SyncState::Starting => (
                Tone::Quiet,
                reader.pick("The service is starting.", "Сервис запускается.").to_owned(),
            ),
            SyncState::Working => self.working(reader),
            SyncState::Holding => (
                Tone::Stopped,
                reader
                    .pick(
                        "Sending is switched off: events are stored, and nothing goes to amoCRM.",
                        "Отправка выключена: события принимаются, в amoCRM ничего не уходит.",
                    )
                    .to_owned(),
            ),
            SyncState::Paused { since: at } => (
                Tone::Stopped,
                reader.pick(
                    format!("Paused since {}: events are stored, and nothing goes to amoCRM.", since(at)),
                    format!("Пауза с {}: события принимаются, в amoCRM ничего не уходит.", since(at)),
                ),
            ),
            SyncState::Halted { since: at, next_probe, .. } => {
                // Nothing is probed while a pause holds too.
                let next_probe = next_probe.filter(|_| self.paused_since.is_none());
                let paused = self.paused_since.map(|at| {
                    reader.pick(
                        format!(" Paused as well, since {}.", since(at)),
                        format!(" Кроме того, пауза с {}.", since(at)),
                    )
                });
                let next = next_probe.map(|at| {
                    reader.pick(
                        format!(" Next try: {}.", since(at)),
                        format!(" Следующая проверка: {}.", since(at)),
                    )
                });
                let text = reader.pick(
                    format!("Sending is halted since {}: new students are accepted and wait.", since(at)),
                    format!("Отправка остановлена с {}: новые ученики принимаются и ждут.", since(at)),
                );
                let more = paused.or(next);
                (Tone::Bad, text + more.as_deref().unwrap_or_default())
            }
            SyncState::Standby { held_by_another: true } => {
                let holder = self.holder.as_deref().filter(|holder| !holder.is_empty());
                let holder = holder.unwrap_or(reader.pick("another service", "другой сервис"));
                (
                    Tone::Quiet,
                    reader.pick(
                        format!("Standby: this service accepts events, and the service that syncs is {holder}."),
                        format!("Резерв: этот сервис принимает события, синхронизирует сервис {holder}."),
                    ),
                )
            }
            SyncState::Standby { held_by_another: false } => (
                Tone::Bad,
                reader
                    .pick(
                        "Nothing is sent: Supabase does not confirm the lease.",
                        "Ничего не отправляется: Supabase не подтверждает право на отправку.",
                    )
                    .to_owned(),
            ),
            SyncState::Inbox { since: at, .. } => (
                Tone::Bad,
                reader.pick(
                    format!("The inbox cannot be written since {}: events are refused, and nothing is sent.", since(at)),
                    format!("Файл очереди не записывается с {}: события не принимаются, ничего не отправляется.", since(at)),
                ),
            ),
            SyncState::InboxFull { since: at } => (
                Tone::Bad,
                reader.pick(
                    format!("The inbox is full since {}: new rows are refused.", since(at)),
                    format!("Файл очереди заполнен с {}: новые строки не принимаются.", since(at)),
                ),
            ),
        }
    }

    fn working(&self, reader: &Reader) -> (Tone, String) {
        if let Some(behind) = self.behind() {
            let behind = span(behind, reader);
            return (
                Tone::Stopped,
                reader.pick(
                    format!("Working, but behind: the oldest row has waited for {behind}."),
                    format!("Работает с отставанием: самая старая строка ждёт {behind}."),
                ),
            );
        }
        let text = reader.pick("All is well: working.", "Всё в порядке: сервис работает.");
        (Tone::Good, text.to_owned())
    }
}

/// The first sentence of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sentence {
    pub(super) tone: Tone,
    pub(super) text: String,
    /// What a person can do about it.
    pub(super) hint: Option<&'static str>,
    /// What was refused; in Russian, as it is stored.
    pub(super) detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(super) enum Tone {
    Good,
    Quiet,
    Stopped,
    Bad,
}

/// A span, in its two greatest units.
pub(super) fn span(span: Duration, reader: &Reader) -> String {
    let minutes = span.as_secs() / 60;
    let (days, hours, minutes) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
    let unit = |count: u64, english: &str, russian: &str| {
        let name = reader.pick(english, russian);
        (count > 0).then(|| format!("{count} {name}"))
    };
    let units = [
        unit(days, "d", "дн."),
        unit(hours, "h", "ч"),
        unit(minutes, "min", "мин"),
    ];
    let units: Vec<String> = units.into_iter().flatten().take(2).collect();
    if units.is_empty() {
        return reader
            .pick("less than a minute", "меньше минуты")
            .to_owned();
    }
    units.join(" ")
}

/// The states with their numbers, in the order of an entry's life.
pub(super) fn numbers<'t>(
    overview: &'t Overview,
    reader: &'t Reader,
) -> impl Iterator<Item = (State, &'static str, u64)> + 't {
    State::VARIANTS
        .iter()
        .map(|&state| (state, state_of_many(state, reader), overview.count(state)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{HaltCause, InboxFault},
        words::Lang,
    };

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_796_000_000 + 60 * minutes).unwrap()
    }

    fn overview(state: SyncState) -> Overview {
        Overview {
            state,
            halt: None,
            paused_since: None,
            counts: Counts::default(),
            late_since: None,
            holder: Some("fra-2".to_owned()),
            is_standby: false,
            activity: Activity::default(),
            now: at(0),
        }
    }

    fn every_state() -> Vec<SyncState> {
        let since = at(-10);
        vec![
            SyncState::Starting,
            SyncState::Working,
            SyncState::Holding,
            SyncState::Paused { since },
            SyncState::Halted {
                cause: HaltCause::AmocrmForbidden,
                since,
                next_probe: None,
            },
            SyncState::Standby {
                held_by_another: true,
            },
            SyncState::Standby {
                held_by_another: false,
            },
            SyncState::Inbox {
                fault: InboxFault::Unwritable,
                since,
            },
            SyncState::InboxFull { since },
        ]
    }

    #[test]
    fn each_state_has_one_sentence_in_each_language() {
        let (english, russian) = (Reader::in_utc(Lang::English), Reader::in_utc(Lang::Russian));
        let mut seen = std::collections::HashSet::new();
        for state in every_state() {
            let overview = overview(state);
            let (in_english, in_russian) =
                (overview.sentence(&english), overview.sentence(&russian));
            assert_eq!(in_english.tone, in_russian.tone);
            assert_eq!(in_english.hint.is_some(), in_russian.hint.is_some());
            assert!(!in_english.text.chars().any(is_russian), "{in_english:?}");
            assert!(in_russian.text.chars().any(is_russian), "{in_russian:?}");
            let hint = in_english.hint.unwrap_or_default();
            assert!(!hint.chars().any(is_russian), "{hint}");
            assert!(seen.insert(in_english.text) && seen.insert(in_russian.text));
        }
    }

    fn is_russian(c: char) -> bool {
        matches!(c, 'а'..='я' | 'А'..='Я' | 'ё' | 'Ё')
    }

    #[test]
    fn a_working_service_says_how_far_it_is_behind() {
        let reader = Reader::in_utc(Lang::English);
        for (minutes, text) in [
            (0, "All is well: working."),
            (1, "All is well: working."),
            (
                2,
                "Working, but behind: the oldest row has waited for 2 min.",
            ),
            (
                25 * 60 + 3,
                "Working, but behind: the oldest row has waited for 1 d 1 h.",
            ),
        ] {
            let mut overview = overview(SyncState::Working);
            overview.late_since = Some(at(-minutes));
            assert_eq!(overview.sentence(&reader).text, text);
        }
    }

    #[test]
    fn a_pause_during_a_halt_is_said_in_place_of_a_check_that_does_not_come() {
        let mut overview = overview(SyncState::Halted {
            cause: HaltCause::AmocrmToken,
            since: at(-60),
            next_probe: Some(at(5)),
        });
        let reader = Reader::in_utc(Lang::English);
        assert!(overview.sentence(&reader).text.contains("Next try"));
        overview.paused_since = Some(at(-1));
        let text = overview.sentence(&reader).text;
        assert!(
            text.contains("Paused as well, since") && !text.contains("Next try"),
            "{text}"
        );
    }

    #[test]
    fn what_is_parked_is_said_whatever_the_state() {
        for state in every_state() {
            let mut overview = overview(state);
            overview.counts.by_state.insert(State::Parked, 3);
            let text = overview.sentence(&Reader::in_utc(Lang::Russian)).text;
            assert!(text.ends_with("Отложено до вашего решения: 3."), "{text}");
        }
    }
}
