//! Time over rows, both in powers of ten: straight lines grow no faster than rows.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use crate::{
    import::{Figures, Import, span},
    one_by_one::Yardstick,
};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
/// Room for what the lines are called.
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2937}\
    .grid{stroke:#9ca3af;stroke-opacity:.35}.one{stroke:#b45309;fill:#b45309}\
    .few{stroke:#1d4ed8;fill:#1d4ed8}.some{stroke:#0f766e;fill:#0f766e}.many{stroke:#6d28d9;fill:#6d28d9}\
    polyline{fill:none!important;stroke-width:2}text.one,text.few,text.some,text.many{stroke:none}\
    @media(prefers-color-scheme:dark){text{fill:#e5e7eb}.one{stroke:#f59e0b;fill:#f59e0b}\
    .few{stroke:#60a5fa;fill:#60a5fa}.some{stroke:#2dd4bf;fill:#2dd4bf}.many{stroke:#a78bfa;fill:#a78bfa}}";

const CLASSES: [&str; 3] = ["few", "some", "many"];

struct Line {
    class: &'static str,
    name: String,
    /// Rows and seconds.
    points: Vec<(f64, f64)>,
}

/// Logarithms of the least and greatest of an axis.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let logs: Vec<f64> = values.map(f64::log10).collect();
        Self {
            low: logs.iter().copied().fold(f64::INFINITY, f64::min).floor(),
            high: logs.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        (value.log10() - self.low) / (self.high - self.low).max(f64::MIN_POSITIVE)
    }
}

pub(crate) fn draw(measured: &[&(Import, Figures)], yardstick: &Yardstick) -> String {
    let lines = lines(measured, yardstick);
    let points = || lines.iter().flat_map(|line| &line.points);
    let across = Axis::over(points().map(|point| point.0));
    let up = Axis::over(points().map(|point| point.1));
    let x = |rows: f64| LEFT + across.place(rows) * (WIDTH - LEFT - RIGHT);
    let y = |seconds: f64| HEIGHT - BOTTOM - up.place(seconds) * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
         <title>Time of an import over its rows</title><style>{STYLE}</style>\n\
         <text x=\"{LEFT}\" y=\"20\">Time of an import, at 7 requests a second</text>\n"
    );
    for seconds in [1.0, 10.0, 60.0, 600.0, 3600.0, 36_000.0] {
        if (0.0..=1.0).contains(&up.place(seconds)) {
            let (at, right) = (y(seconds), WIDTH - RIGHT);
            let text = span_of(seconds);
            put(
                &mut svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>\n",
                    LEFT - 8.0,
                    at + 4.0
                ),
            );
        }
    }
    let mut counts: Vec<usize> = measured.iter().map(|(import, _)| import.rows).collect();
    counts.dedup();
    for rows in counts {
        put(
            &mut svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{rows}</text>\n",
                x(float(rows)),
                HEIGHT - BOTTOM + 22.0
            ),
        );
    }
    put(
        &mut svg,
        format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">rows</text>\n",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 6.0
        ),
    );
    for line in &lines {
        let class = line.class;
        let places: Vec<String> = line
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)))
            .collect();
        put(
            &mut svg,
            format_args!(
                "<polyline class=\"{class}\" points=\"{}\"/>\n",
                places.join(" ")
            ),
        );
        for point in &line.points {
            put(
                &mut svg,
                format_args!(
                    "<circle class=\"{class}\" r=\"3\" cx=\"{:.1}\" cy=\"{:.1}\"/>",
                    x(point.0),
                    y(point.1)
                ),
            );
        }
        if let Some(last) = line.points.last() {
            put(
                &mut svg,
                format_args!(
                    "\n<text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                    x(last.0) + 10.0,
                    y(last.1) + 4.0,
                    line.name
                ),
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn lines(measured: &[&(Import, Figures)], yardstick: &Yardstick) -> Vec<Line> {
    let mut by_account: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
    let mut slow = BTreeMap::new();
    for (import, figures) in measured {
        let rows = float(import.rows);
        let line = by_account.entry(import.contacts_per_row).or_default();
        line.push((rows, figures.took.as_secs_f64()));
        slow.insert(
            import.rows,
            (rows, yardstick.time_for(import.rows).as_secs_f64()),
        );
    }
    let one_by_one = Line {
        class: "one",
        name: "one by one".to_owned(),
        points: slow.into_values().collect(),
    };
    let ours = by_account.into_iter().zip(CLASSES.iter().cycle());
    let ours = ours.map(|((contacts, points), class)| Line {
        class,
        name: format!("{contacts} contacts for each row"),
        points,
    });
    std::iter::once(one_by_one).chain(ours).collect()
}

fn span_of(seconds: f64) -> String {
    let text = span(Duration::from_secs_f64(seconds));
    text.replace(".0", "")
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows")]
fn float(count: usize) -> f64 {
    count as f64
}

fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text).expect("a string takes everything");
}
