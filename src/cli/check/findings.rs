//! What a check saw: one line each.

use crate::words::Reader;

/// How one thing stands. What was not set up is a warning, what was set up wrongly is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Good,
    Warning,
    Bad,
}

impl Mark {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "failed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) what: &'static str,
    pub(super) mark: Mark,
    pub(super) text: String,
}

/// Lines for one reader.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) reader: Reader,
    pub(super) lines: Vec<Line>,
}

impl Findings {
    pub(super) fn new(reader: Reader) -> Self {
        let lines = Vec::new();
        Self { reader, lines }
    }

    pub(super) fn is_bad(&self) -> bool {
        self.lines.iter().any(|line| line.mark == Mark::Bad)
    }

    pub(super) fn good(&mut self, what: &'static str, text: impl Into<String>) {
        self.add(what, Mark::Good, text.into());
    }

    pub(super) fn warn(&mut self, what: &'static str, text: impl Into<String>) {
        self.add(what, Mark::Warning, text.into());
    }

    pub(super) fn bad(&mut self, what: &'static str, text: impl Into<String>) {
        self.add(what, Mark::Bad, text.into());
    }

    pub(super) fn add(&mut self, what: &'static str, mark: Mark, text: String) {
        self.lines.push(Line { what, mark, text });
    }
}
