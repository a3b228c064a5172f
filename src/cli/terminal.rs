//! What a person sees: two languages, plain lines, tables.

use std::io::{self, Write};

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

    /// Columns as wide as their widest cell.
    pub(super) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        for line in table(head, rows) {
            self.say(&line)?;
        }
        Ok(())
    }
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
            .map(|cell| cell.chars().count());
        cells
            .chain([head[column].chars().count()])
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
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
    fn a_table_is_aligned_by_characters_not_bytes() {
        let rows = vec![
            vec!["1".into(), "Новая".into(), "x".into()],
            vec!["22".into(), "A".into(), String::new()],
        ];
        assert_eq!(
            table(&["id", "name", "why"], &rows),
            ["id  name   why", "1   Новая  x", "22  A"]
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
