//! Times that a person types: a day, or a time, by the wall clock of the person's zone unless an offset is given.

use std::str::FromStr;

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, DateTime},
    tz::TimeZone,
};

use super::{CommandError, Outcome, terminal::Terminal};

const WRONG: &str =
    "neither a date (2026-01-31) nor a time (2026-01-31T18:00, 2026-01-31T18:00:00+05:00)";

/// As typed: the zone is known later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Day(Date),
    ByTheWall(DateTime),
    Exactly(Timestamp),
}

impl FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // As a date, the library would also take a time, and forget it.
        if text.len() == "2026-01-31".len() {
            return text.parse().map(Self::Day).map_err(|_| WRONG);
        }
        // As a time by the wall, it would forget the offset.
        if let Ok(exactly) = text.parse() {
            return Ok(Self::Exactly(exactly));
        }
        let has_offset = text
            .get("2026-01-31".len()..)
            .is_none_or(|time| time.contains(['+', '-', 'Z', 'z', '[']));
        let by_the_wall = text.parse().ok().filter(|_| !has_offset);
        by_the_wall.map(Self::ByTheWall).ok_or(WRONG)
    }
}

impl When {
    /// The beginning of the day, or the time.
    pub(super) fn begins(self, zone: &TimeZone) -> Timestamp {
        match self {
            Self::Day(day) => wall(day.to_datetime(jiff::civil::Time::midnight()), zone),
            Self::ByTheWall(time) => wall(time, zone),
            Self::Exactly(time) => time,
        }
    }

    /// The end of the day, which is the next midnight, or the time.
    pub(super) fn ends(self, zone: &TimeZone) -> Timestamp {
        match self {
            Self::Day(day) => {
                let next = day.checked_add(1.day()).unwrap_or(Date::MAX);
                Self::Day(next).begins(zone)
            }
            Self::ByTheWall(_) | Self::Exactly(_) => self.begins(zone),
        }
    }
}

/// In the hour that the clocks leave out, the time after it.
fn wall(time: DateTime, zone: &TimeZone) -> Timestamp {
    let time = zone.to_ambiguous_timestamp(time).compatible();
    time.unwrap_or(Timestamp::MAX)
}

/// Fails unless a period begins before it ends.
pub(super) fn in_order(since: Timestamp, until: Timestamp, terminal: &mut Terminal) -> Outcome {
    if since < until {
        return Ok(());
    }
    terminal.complain(terminal.pick(
        "--since is not before --until",
        "--since не раньше, чем --until",
    ));
    Err(CommandError::Misused)
}

/// In words, with what a bare date was taken for.
pub(super) fn told(
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    terminal: &Terminal,
) -> String {
    let time = |at| terminal.reader().time(at);
    match (since, until) {
        (None, None) => terminal.pick("of any age", "за всё время").to_owned(),
        (Some(since), None) => {
            let from = terminal.pick("created from", "созданы с");
            format!("{from} {}", time(since))
        }
        (None, Some(until)) => {
            let before = terminal.pick("created before", "созданы до");
            format!("{before} {}", time(until))
        }
        (Some(since), Some(until)) => {
            let (from, before) = terminal.pick(("created from", "before"), ("созданы с", "до"));
            format!("{from} {} {before} {}", time(since), time(until))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_a_whole_day_of_the_zone() {
        let almaty = TimeZone::get("Asia/Almaty").unwrap();
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let utc = TimeZone::UTC;
        let table = [
            (
                "2026-01-31",
                &utc,
                "2026-01-31T00:00:00Z",
                "2026-02-01T00:00:00Z",
            ),
            (
                "2026-01-31",
                &almaty,
                "2026-01-30T19:00:00Z",
                "2026-01-31T19:00:00Z",
            ),
            // The clocks go forward: a day of 23 hours.
            (
                "2026-03-29",
                &berlin,
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
            ),
            (
                "2026-01-31T18:00",
                &almaty,
                "2026-01-31T13:00:00Z",
                "2026-01-31T13:00:00Z",
            ),
            (
                "2026-01-31 18:00:30",
                &utc,
                "2026-01-31T18:00:30Z",
                "2026-01-31T18:00:30Z",
            ),
            (
                "2026-01-31T18:00:00+03:00",
                &almaty,
                "2026-01-31T15:00:00Z",
                "2026-01-31T15:00:00Z",
            ),
            (
                "2026-01-31T18:00:00Z",
                &almaty,
                "2026-01-31T18:00:00Z",
                "2026-01-31T18:00:00Z",
            ),
            // An hour that there is not.
            (
                "2026-03-29T02:30",
                &berlin,
                "2026-03-29T01:30:00Z",
                "2026-03-29T01:30:00Z",
            ),
        ];
        for (text, zone, begins, ends) in table {
            let when: When = text.parse().unwrap();
            assert_eq!(when.begins(zone).to_string(), begins, "{text}");
            assert_eq!(when.ends(zone).to_string(), ends, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in [
            "",
            "yesterday",
            "2026-02-30",
            "31.01.2026",
            "2026-01-31T25:00",
            "2026-01-31T18:00+05",
            "2026-01-31T18:00[Asia/Almaty]",
            "18:00",
            "двадцать д",
        ] {
            let when = wrong.parse::<When>();
            assert!(
                // An offset to the hour is one.
                matches!(when, Err(WRONG)) || wrong.ends_with("+05"),
                "{wrong:?}: {when:?}"
            );
        }
    }

    #[test]
    fn the_end_of_all_days_is_no_panic() {
        for text in ["9999-12-31", "-009999-01-01"] {
            if let Ok(when) = text.parse::<When>() {
                let _ = when.ends(&TimeZone::get("America/Los_Angeles").unwrap());
            }
        }
    }
}
