//! Which rows, by the day of their creation.

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};

use crate::cli::terminal::Terminal;

const WRONG: &str =
    "neither a date (2026-01-31) nor a time with its offset (2026-01-31T18:00:00+05:00)";

/// A date begins at midnight.
pub(super) fn since(text: &str) -> Result<Timestamp, &'static str> {
    moment_or(text, Ok)
}

/// A date is meant with its whole day: the end is the next midnight.
pub(super) fn until(text: &str) -> Result<Timestamp, &'static str> {
    moment_or(text, |day| day.checked_add(1.day()).map_err(|_| WRONG))
}

fn moment_or(
    text: &str,
    day: impl Fn(Date) -> Result<Date, &'static str>,
) -> Result<Timestamp, &'static str> {
    // As a date, the library would also take a time without its offset, and forget the time.
    if text.len() == "2026-01-31".len() {
        midnight(day(text.parse().map_err(|_| WRONG)?)?)
    } else {
        text.parse().map_err(|_| WRONG)
    }
}

fn midnight(day: Date) -> Result<Timestamp, &'static str> {
    let midnight = day.to_zoned(TimeZone::UTC).map_err(|_| WRONG)?;
    Ok(midnight.timestamp())
}

/// In words, with what a bare date was taken for.
pub(super) fn told(
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    terminal: &Terminal,
) -> String {
    let (from, before) = terminal.pick(("created from", "before"), ("созданы с", "до"));
    match (since, until) {
        (None, None) => terminal.pick("of any age", "за всё время").to_owned(),
        (Some(since), None) => format!("{from} {since}"),
        (None, Some(until)) => {
            let before = terminal.pick("created before", "созданы до");
            format!("{before} {until}")
        }
        (Some(since), Some(until)) => format!("{from} {since} {before} {until}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_a_whole_day_in_utc() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(since("2026-01-31"), Ok(time("2026-01-31T00:00:00Z")));
        assert_eq!(until("2026-01-31"), Ok(time("2026-02-01T00:00:00Z")));
        let moment = "2026-01-31T18:00:00+05:00";
        for exactly in [since, until] {
            assert_eq!(exactly(moment), Ok(time("2026-01-31T13:00:00Z")));
            for wrong in [
                "",
                "yesterday",
                "2026-02-30",
                "2026-01-31T18:00:00",
                "31.01.2026",
            ] {
                assert_eq!(exactly(wrong), Err(WRONG), "{wrong:?}");
            }
        }
    }
}
