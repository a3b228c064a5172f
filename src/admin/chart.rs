//! The charts: a day by hours and a month by days, drawn as SVG, with a table of the same numbers.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use maud::{Markup, html};

use crate::{inbox::Hour, words::Reader};

const HOURS: i64 = 24;
const DAYS: i64 = 30;

/// Of the drawing.
const WIDTH: u64 = 720;
const HEIGHT: u64 = 180;
const LEFT: u64 = 44;
const TOP: u64 = 12;
const BOTTOM: u64 = 24;

/// One bar of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Point {
    pub(super) from: Timestamp,
    pub(super) synced: u64,
    /// Neither done nor parked at the end of this time. `None`: not known.
    pub(super) waiting: Option<u64>,
    pub(super) parked: Option<u64>,
}

/// How many wait and are parked at this moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Present {
    pub(super) at: Timestamp,
    pub(super) waiting: u64,
    pub(super) parked: u64,
}

/// The last 24 hours, this one included. The hours must be in order.
pub(super) fn last_day(hours: &[Hour], present: Present) -> Vec<Point> {
    let this_hour = present.at.as_second().div_euclid(3600);
    let starts = (this_hour - HOURS + 1..=this_hour + 1).map(|hour| hour.saturating_mul(3600));
    points(hours, present, starts.map(Timestamp::from_second))
}

/// The last 30 days of this zone, today included. The hours must be in order.
pub(super) fn last_month(hours: &[Hour], present: Present, zone: &TimeZone) -> Vec<Point> {
    let today = present.at.to_zoned(zone.clone()).date();
    let starts = (1 - DAYS..=1).map(|days| {
        let date = today.checked_add(SignedDuration::from_hours(24 * days))?;
        Ok(date.to_zoned(zone.clone())?.timestamp())
    });
    points(hours, present, starts)
}

/// One point between each start and the next.
fn points(
    hours: &[Hour],
    present: Present,
    starts: impl Iterator<Item = Result<Timestamp, jiff::Error>>,
) -> Vec<Point> {
    let starts: Vec<Timestamp> = starts.flatten().collect();
    let last = starts.len().saturating_sub(2);
    let spans = starts.iter().zip(starts.iter().skip(1)).enumerate();
    let point = |(nth, (from, until)): (usize, (&Timestamp, &Timestamp))| {
        let before: Vec<&Hour> = hours.iter().filter(|hour| hour.from < *until).collect();
        let within = before.iter().filter(|hour| hour.from >= *from);
        // What was not looked at since is as it was.
        let known =
            |number: fn(&Hour) -> Option<u64>| before.iter().rev().find_map(|hour| number(hour));
        let is_present = nth == last;
        Point {
            from: *from,
            synced: within.map(|hour| hour.synced).sum(),
            waiting: if is_present {
                Some(present.waiting)
            } else {
                known(|hour| hour.waiting)
            },
            parked: if is_present {
                Some(present.parked)
            } else {
                known(|hour| hour.parked)
            },
        }
    };
    spans.map(point).collect()
}

/// What the axis ends at: 1, 2 or 5 with zeros.
fn top_of(points: &[Point]) -> u64 {
    let numbers = points.iter().flat_map(|point| {
        [
            point.synced,
            point.waiting.unwrap_or(0),
            point.parked.unwrap_or(0),
        ]
    });
    let most = numbers.max().unwrap_or(0);
    let mut top = 1_u64;
    for factor in [2, 5, 10].into_iter().cycle() {
        if top >= most {
            break;
        }
        let ones = 10_u64.saturating_pow(top.ilog10());
        top = ones.saturating_mul(factor);
        if top == u64::MAX {
            break;
        }
    }
    top
}

/// Where the points of a chart lie.
struct Scale {
    top: u64,
    count: u64,
}

impl Scale {
    fn y(&self, number: u64) -> u64 {
        let height = HEIGHT - TOP - BOTTOM;
        let part = u128::from(number) * u128::from(height) / u128::from(self.top);
        let part = u64::try_from(part).unwrap_or(height).min(height);
        HEIGHT - BOTTOM - part
    }

    fn step(&self) -> u64 {
        (WIDTH - LEFT) / self.count.max(1)
    }

    fn x(&self, nth: u64) -> u64 {
        LEFT + nth * self.step()
    }

    /// The corners of a line through the numbers that are known.
    fn line(&self, numbers: impl Iterator<Item = Option<u64>>) -> String {
        let corners = (0..).zip(numbers).filter_map(|(nth, number)| {
            let x = self.x(nth) + self.step() / 2;
            Some(format!("{x},{}", self.y(number?)))
        });
        let mut corners: Vec<String> = corners.collect();
        // A line from a point to itself is drawn as a dot.
        if let [only] = corners.as_slice() {
            corners.push(only.clone());
        }
        corners.join(" ")
    }
}

/// A chart with its legend and its table. `id`: unique on the page.
pub(super) fn chart(
    id: &str,
    title: &str,
    points: &[Point],
    label: &dyn Fn(Timestamp) -> String,
    reader: &Reader,
) -> Markup {
    let synced: u64 = points.iter().map(|point| point.synced).sum();
    let now = points.last();
    let waiting = now.and_then(|point| point.waiting).unwrap_or(0);
    let parked = now.and_then(|point| point.parked).unwrap_or(0);
    let summary = reader.pick(
        format!("{synced} synced; now {waiting} waiting, {parked} parked"),
        format!("Синхронизировано: {synced}; сейчас ждут: {waiting}, отложено: {parked}"),
    );
    html! {
        section.chart id=(id) data-live aria-labelledby={ (id) "-title" } {
            h2 id={ (id) "-title" } { (title) }
            p.help { (summary) "." }
            (drawing(title, &summary, points, label))
            (legend(reader))
            details id={ (id) "-numbers" } {
                summary { (reader.pick("Numbers", "Числа")) }
                div.scroll tabindex="0" role="region" aria-label=(title) { (table(title, points, label, reader)) }
            }
        }
    }
}

fn drawing(
    title: &str,
    summary: &str,
    points: &[Point],
    label: &dyn Fn(Timestamp) -> String,
) -> Markup {
    let scale = Scale {
        top: top_of(points),
        count: points.len() as u64,
    };
    let floor = HEIGHT - BOTTOM;
    let bar = (scale.step() * 3 / 5).max(1);
    // Five or six labels have room.
    let every = points.len().div_ceil(5).max(1);
    html! {
        svg role="img" aria-label={ (title) ". " (summary) } viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } {
            line.axis x1=(LEFT) x2=(WIDTH) y1=(floor) y2=(floor) {}
            line.axis x1=(LEFT) x2=(WIDTH) y1=(TOP) y2=(TOP) {}
            text x=(LEFT - 6) y=(floor) text-anchor="end" { "0" }
            text x=(LEFT - 6) y=(TOP + 8) text-anchor="end" { (scale.top) }
            @for (nth, point) in (0..).zip(points) {
                @if point.synced > 0 {
                    @let y = scale.y(point.synced).min(floor - 1);
                    rect.synced x=(scale.x(nth) + (scale.step() - bar) / 2) y=(y) width=(bar) height=(floor - y) {}
                }
                @if nth % every as u64 == 0 {
                    text x=(scale.x(nth) + scale.step() / 2) y=(HEIGHT - 6) text-anchor="middle" { (label(point.from)) }
                }
            }
            polyline.waiting points=(scale.line(points.iter().map(|point| point.waiting))) {}
            polyline.parked points=(scale.line(points.iter().map(|point| point.parked))) {}
        }
    }
}

fn names(reader: &Reader) -> [&'static str; 3] {
    reader.pick(
        ["synced", "waiting", "parked"],
        ["синхронизировано", "ждут", "отложено"],
    )
}

fn legend(reader: &Reader) -> Markup {
    let [synced, waiting, parked] = names(reader);
    html! {
        div.legend aria-hidden="true" {
            span { svg viewBox="0 0 24 12" { rect.synced x="0" y="1" width="24" height="10" {} } " " (synced) }
            span { svg viewBox="0 0 24 12" { polyline.waiting points="0,6 24,6" {} } " " (waiting) }
            span { svg viewBox="0 0 24 12" { polyline.parked points="0,6 24,6" {} } " " (parked) }
        }
    }
}

fn table(
    title: &str,
    points: &[Point],
    label: &dyn Fn(Timestamp) -> String,
    reader: &Reader,
) -> Markup {
    let number = |number: Option<u64>| number.map_or("–".to_owned(), |number| number.to_string());
    html! {
        table {
            caption.hidden { (title) }
            thead { tr {
                th scope="col" { (reader.pick("from", "с")) }
                @for name in names(reader) { th scope="col" { (name) } }
            } }
            tbody {
                @for point in points.iter().rev() {
                    tr {
                        th scope="row" { (label(point.from)) }
                        td { (point.synced) }
                        td { (number(point.waiting)) }
                        td { (number(point.parked)) }
                    }
                }
            }
        }
    }
}

/// The beginning of an hour, in the reader's zone.
pub(super) fn hour_label(reader: &Reader) -> impl Fn(Timestamp) -> String {
    let zone = reader.zone.clone();
    move |at| at.to_zoned(zone.clone()).strftime("%H:%M").to_string()
}

/// A day, in the reader's zone.
pub(super) fn day_label(reader: &Reader) -> impl Fn(Timestamp) -> String {
    let (zone, form) = (reader.zone.clone(), reader.pick("%m/%d", "%d.%m"));
    move |at| at.to_zoned(zone.clone()).strftime(form).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Lang;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn present(at: &str) -> Present {
        Present {
            at: time(at),
            waiting: 7,
            parked: 1,
        }
    }

    fn hour(from: &str, synced: u64, waiting: Option<u64>) -> Hour {
        Hour {
            from: time(from),
            synced,
            waiting,
            parked: waiting,
        }
    }

    #[test]
    fn a_day_has_24_hours_that_keep_what_was_last_seen() {
        let hours = [
            hour("2026-11-28T05:00:00Z", 9, Some(3)),
            hour("2026-11-29T10:00:00Z", 2, None),
            hour("2026-11-30T08:00:00Z", 4, Some(5)),
            hour("2026-11-30T09:00:00Z", 1, Some(6)),
        ];
        let day = last_day(&hours, present("2026-11-30T09:30:00Z"));
        assert_eq!(day.len(), 24);
        let at = |nth: usize| (day[nth].from, day[nth].synced, day[nth].waiting);
        assert_eq!(at(0), (time("2026-11-29T10:00:00Z"), 2, Some(3)));
        assert_eq!(at(21), (time("2026-11-30T07:00:00Z"), 0, Some(3)));
        assert_eq!(at(22), (time("2026-11-30T08:00:00Z"), 4, Some(5)));
        assert_eq!(at(23), (time("2026-11-30T09:00:00Z"), 1, Some(7)));
        let nothing = last_day(&[], present("2026-11-30T09:30:00Z"));
        assert_eq!((nothing.len(), nothing[0].waiting), (24, None));
    }

    #[test]
    fn a_month_has_30_days_of_the_readers_zone() {
        let hours = [
            hour("2026-11-29T18:00:00Z", 1, None),
            hour("2026-11-29T19:00:00Z", 2, Some(4)),
            hour("2026-11-30T01:00:00Z", 4, None),
        ];
        // A day begins at 19:00 UTC there.
        let zone = TimeZone::fixed(jiff::tz::offset(5));
        let month = last_month(&hours, present("2026-11-30T09:30:00Z"), &zone);
        assert_eq!(month.len(), 30);
        assert_eq!(month[0].from, time("2026-10-31T19:00:00Z"));
        let of = |nth: usize| (month[nth].synced, month[nth].waiting);
        assert_eq!((of(28), of(29)), ((1, None), (6, Some(7))));
    }

    #[test]
    fn the_axis_ends_at_a_round_number() {
        for (most, top) in [
            (0, 1),
            (1, 1),
            (2, 2),
            (3, 5),
            (6, 10),
            (11, 20),
            (21, 50),
            (51, 100),
            (4_000, 5_000),
        ] {
            let mut points = last_day(&[], present("2026-11-30T09:30:00Z"));
            for point in &mut points {
                (point.synced, point.waiting, point.parked) = (0, None, None);
            }
            points[3].synced = most;
            assert_eq!(top_of(&points), top, "{most}");
        }
    }

    #[test]
    fn a_chart_tells_its_numbers_in_words_and_in_a_table() {
        let hours = [hour("2026-11-30T08:00:00Z", 4, Some(5))];
        let points = last_day(&hours, present("2026-11-30T09:30:00Z"));
        let reader = Reader::in_utc(Lang::English);
        let drawn = chart("day", "24 hours", &points, &hour_label(&reader), &reader).into_string();
        for part in [
            "aria-label=\"24 hours. 4 synced; now 7 waiting, 1 parked\"",
            "<th scope=\"row\">08:00</th><td>4</td><td>5</td><td>5</td>",
            "<polyline class=\"waiting\"",
        ] {
            assert!(drawn.contains(part), "{part}\n{drawn}");
        }
        assert!(
            !drawn.contains("NaN") && !drawn.contains("style="),
            "{drawn}"
        );
    }
}
