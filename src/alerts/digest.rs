//! The digest: what the service has done in a day or a week, whether or not anything went wrong.

use std::time::Duration;

use jiff::{Timestamp, civil::Weekday, tz::TimeZone};

use crate::{domain::DigestEvery, inbox::Synced, words::Reader};

/// The hour of the day.
const AT: i8 = 9;

/// When digests are sent.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub every: DigestEvery,
    pub zone: TimeZone,
}

impl Schedule {
    /// The last time at which a digest was to be sent: a Monday or any day, at nine.
    pub(super) fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let mut day = now.to_zoned(self.zone.clone()).date();
        // Today, or one of the seven days before.
        for _ in 0..=7 {
            let nine = day.at(AT, 0, 0, 0).to_zoned(self.zone.clone()).ok()?;
            let is_its_day = self.every == DigestEvery::Day || day.weekday() == Weekday::Monday;
            if is_its_day && nine.timestamp() <= now {
                return Some(nine.timestamp());
            }
            day = day.yesterday().ok()?;
        }
        None
    }

    /// Whether one is to be sent, the last one being of `until`. What was missed is sent once.
    #[must_use]
    pub fn is_due(&self, until: Timestamp, now: Timestamp) -> bool {
        self.last(now).is_some_and(|last| last > until)
    }
}

/// The facts of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Digest {
    pub from: Timestamp,
    pub until: Timestamp,
    pub synced: Synced,
    /// For a contact.
    pub waiting: u64,
    /// Pending or claimed.
    pub pending: u64,
    pub parked: u64,
    /// Requests to amoCRM, counted since this time; a restart counts anew.
    pub requests: (u64, Timestamp),
}

impl Digest {
    pub(super) fn text(&self, reader: &Reader) -> String {
        let time = |at| reader.minute(at);
        let Synced {
            by_event,
            by_sweep,
            by_backfill,
            longest,
        } = self.synced;
        let (requests, counted_from) = self.requests;
        let counted = if counted_from > self.from {
            format!(" (с запуска {})", time(counted_from))
        } else {
            String::new()
        };
        let longest = longest.map_or(String::new(), |longest| {
            format!("\nСамая долгая обработка: {}", in_words(longest))
        });
        format!(
            "📊 tripwire-sync: итоги с {} по {}\n\n\
             Обработано учеников: {}\n\
             • по событию: {by_event}\n\
             • найдено сверкой: {by_sweep}\n\
             • командой backfill: {by_backfill}{longest}\n\n\
             Сейчас в очереди: {}\n\
             Ожидают контакт в amoCRM: {}\n\
             Нужно ваше решение: {}\n\n\
             Запросов к amoCRM: {requests}{counted}",
            time(self.from),
            time(self.until),
            by_event + by_sweep + by_backfill,
            self.pending,
            self.waiting,
            self.parked,
        )
    }
}

/// The two largest units.
fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} с"),
        (0, 0, _) => format!("{minutes} мин {} с", seconds % 60),
        (0, _, _) => format!("{hours} ч {} мин", minutes % 60),
        _ => format!("{days} д {} ч", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Lang;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_digest_is_due_once_at_nine_of_the_zone_and_a_missed_one_later() {
        let schedule = |every, zone| Schedule {
            every,
            zone: TimeZone::get(zone).unwrap(),
        };
        // 23 and 30 November 2026 are Mondays. In Almaty it is five hours later than in UTC.
        let weekly = schedule(DigestEvery::Week, "Asia/Almaty");
        let daily = schedule(DigestEvery::Day, "Asia/Almaty");
        let utc = schedule(DigestEvery::Day, "UTC");
        let table = [
            (
                &weekly,
                "2026-11-23T04:00:00Z",
                "2026-11-30T03:59:59Z",
                false,
            ),
            (
                &weekly,
                "2026-11-23T04:00:00Z",
                "2026-11-30T04:00:00Z",
                true,
            ),
            (
                &weekly,
                "2026-11-30T04:00:00Z",
                "2026-11-30T04:00:30Z",
                false,
            ),
            // Sent on Monday evening: it was missed at nine.
            (
                &weekly,
                "2026-11-23T14:00:00Z",
                "2026-11-29T23:00:00Z",
                false,
            ),
            (
                &weekly,
                "2026-11-23T14:00:00Z",
                "2026-12-02T11:00:00Z",
                true,
            ),
            // After three weeks without the service.
            (
                &weekly,
                "2026-11-09T04:00:00Z",
                "2026-12-02T11:00:00Z",
                true,
            ),
            (
                &daily,
                "2026-11-24T04:00:00Z",
                "2026-11-25T03:00:00Z",
                false,
            ),
            (&daily, "2026-11-24T04:00:00Z", "2026-11-25T04:00:00Z", true),
            (&utc, "2026-11-24T09:00:00Z", "2026-11-25T08:59:00Z", false),
            (&utc, "2026-11-24T09:00:00Z", "2026-11-25T09:00:00Z", true),
            // The clock was put back.
            (
                &daily,
                "2027-11-24T04:00:00Z",
                "2026-11-25T04:00:00Z",
                false,
            ),
        ];
        for (schedule, until, now, expected) in table {
            let is_due = schedule.is_due(time(until), time(now));
            assert_eq!(is_due, expected, "{until} {now} {schedule:?}");
        }
    }

    /// Clocks go forward at two: nine is nine.
    #[test]
    fn the_hour_is_that_of_the_wall_also_in_summer() {
        let schedule = Schedule {
            every: DigestEvery::Day,
            zone: TimeZone::get("Europe/Berlin").unwrap(),
        };
        for (now, last) in [
            ("2026-03-28T12:00:00Z", "2026-03-28T08:00:00Z"),
            ("2026-03-29T12:00:00Z", "2026-03-29T07:00:00Z"),
        ] {
            assert_eq!(schedule.last(time(now)), Some(time(last)));
        }
    }

    #[test]
    fn the_text_counts_and_says_since_when_requests_were_counted() {
        let mut digest = Digest {
            from: time("2026-11-23T04:00:00Z"),
            until: time("2026-11-30T04:00:00Z"),
            synced: Synced {
                by_event: 40,
                by_sweep: 2,
                by_backfill: 0,
                longest: Some(Duration::from_secs(65)),
            },
            waiting: 1,
            pending: 0,
            parked: 3,
            requests: (210, time("2026-11-23T04:00:00Z")),
        };
        let reader = Reader {
            lang: Lang::Russian,
            zone: TimeZone::get("Asia/Almaty").unwrap(),
        };
        assert_eq!(
            digest.text(&reader),
            "📊 tripwire-sync: итоги с 23.11 09:00 UTC+5 по 30.11 09:00 UTC+5\n\n\
             Обработано учеников: 42\n• по событию: 40\n• найдено сверкой: 2\n• командой backfill: 0\n\
             Самая долгая обработка: 1 мин 5 с\n\n\
             Сейчас в очереди: 0\nОжидают контакт в amoCRM: 1\nНужно ваше решение: 3\n\n\
             Запросов к amoCRM: 210"
        );
        digest.requests.1 = time("2026-11-27T09:05:00Z");
        assert!(
            digest
                .text(&reader)
                .ends_with("210 (с запуска 27.11 14:05 UTC+5)")
        );
    }

    #[test]
    fn a_span_of_time_is_told_in_two_units() {
        for (seconds, words) in [
            (0, "0 с"),
            (59, "59 с"),
            (60, "1 мин 0 с"),
            (3_725, "1 ч 2 мин"),
            (200_000, "2 д 7 ч"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
