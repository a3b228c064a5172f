//! What a person sees: two languages, plain lines, tables.

use std::io::{self, Write};

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
        let widths = pairs.iter().map(|(label, _)| label.width());
        let width = widths.max().unwrap_or_default();
        for (label, text) in pairs {
            self.say(&format!("{indent}{}  {text}", padded(label, width)))?;
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

/// Filled with spaces to a width on the screen, where an ideograph takes two columns and an accent none.
pub(super) fn padded(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(missing))
}

fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    // A cell has no lines.
    let rows: Vec<Vec<_>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| harmless(cell, &[])).collect())
        .collect();
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.width());
        cells
            .chain([head[column].width()])
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| padded(cell, width))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let body = rows
        .iter()
        .map(|row| line(row.iter().map(AsRef::as_ref).collect()));
    std::iter::once(line(head.to_vec())).chain(body).collect()
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
