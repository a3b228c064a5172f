//! What a person sees: two languages, plain lines, tables.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use unicode_width::UnicodeWidthStr as _;

use crate::{
    domain::harmless,
    words::{Lang, Reader},
};

/// The control characters that our own texts may contain.
const OURS: [char; 2] = ['\n', '\t'];

/// Results go to standard output, complaints to standard error. Texts may contain names from amoCRM and Supabase, so control
/// characters are escaped.
#[derive(Debug)]
pub(super) struct Terminal {
    reader: Reader,
    out: io::Stdout,
    err: io::Stderr,
}

impl Terminal {
    pub(super) fn new(reader: Reader) -> Self {
        Self {
            reader,
            out: io::stdout(),
            err: io::stderr(),
        }
    }

    /// The text in the reader's language.
    pub(super) fn pick<T>(&self, english: T, russian: T) -> T {
        self.reader.pick(english, russian)
    }

    pub(super) fn lang(&self) -> Lang {
        self.reader.lang
    }

    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    pub(super) fn say(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{}", harmless(line, &OURS))
    }

    pub(super) fn complain(&mut self, line: &str) {
        // A failure to write to standard error has no other place to be reported.
        let _ = writeln!(self.err, "{}", harmless(line, &OURS));
    }

    /// Labels as wide as the widest of them, each with its text, behind `indent`.
    pub(super) fn pairs(&mut self, indent: &str, pairs: &[(&str, String)]) -> io::Result<()> {
        let rows = pairs.iter().map(|(label, text)| [*label, text]);
        for line in aligned(&rows.collect::<Vec<_>>(), &[]) {
            self.say(&format!("{indent}{line}"))?;
        }
        Ok(())
    }

    /// Columns as wide as their widest cell.
    pub(super) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        for line in table(head, rows) {
            self.say(&line)?;
        }
        Ok(())
    }
}

/// The lines of a table whose columns are as wide as their widest cell, and at least as wide as `least` says. The width is that
/// on the screen, where an ideograph takes two columns and an accent none.
pub(super) fn aligned<R: AsRef<[C]>, C: AsRef<str>>(rows: &[R], least: &[usize]) -> Vec<String> {
    let mut widths = least.to_vec();
    for row in rows.iter().map(AsRef::as_ref) {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.as_ref().width().max(*width);
        }
    }
    let line = |row: &R| {
        let cells = row.as_ref().iter().map(AsRef::as_ref).zip(&widths);
        let filled = |(cell, width): (&str, &usize)| {
            let missing = width.saturating_sub(cell.width());
            format!("{cell}{}", " ".repeat(missing))
        };
        let cells: Vec<String> = cells.map(filled).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    // A cell has no lines.
    let rows = rows
        .iter()
        .map(|row| row.iter().map(|cell| harmless(cell, &[])).collect());
    let head = head.iter().map(|cell| Cow::from(*cell)).collect();
    let rows: Vec<Vec<_>> = std::iter::once(head).chain(rows).collect();
    aligned(&rows, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_by_the_width_on_the_screen() {
        let rows = vec![
            vec!["1".into(), "Новая".into(), "x".into()],
            vec!["22".into(), "A".into(), String::new()],
        ];
        assert_eq!(
            table(&["id", "name", "why"], &rows),
            ["id  name   why", "1   Новая  x", "22  A"]
        );
        // An ideograph is two columns wide, a combining accent none.
        let rows = vec![
            vec!["1".into(), "学校".into(), "x".into()],
            vec!["2".into(), "Андреи\u{306}".into(), "y".into()],
            vec!["3".into(), "✅ да".into(), "z".into()],
        ];
        assert_eq!(
            table(&["id", "name", "why"], &rows),
            [
                "id  name    why",
                "1   学校    x",
                "2   Андреи\u{306}  y",
                "3   ✅ да   z"
            ]
        );
    }

    #[test]
    fn a_cell_stays_in_its_line_and_column() {
        let rows = vec![
            vec!["1".into(), "A\nB\u{1b}[2J".into(), "x".into()],
            vec!["2".into(), "C".into(), "y".into()],
        ];
        assert_eq!(
            table(&["id", "name", "why"], &rows),
            [
                "id  name               why",
                "1   A\\u000aB\\u001b[2J  x",
                "2   C                  y"
            ]
        );
    }
}
