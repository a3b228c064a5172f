//! What a check saw: one line each.

use std::error::Error;

use crate::{
    cli::failure,
    words::{Lang, Reader},
};

/// How one thing stands. What was not set up is a warning, what was set up wrongly is bad. What works and could be better is
/// advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Mark {
    Good,
    Advice,
    Warning,
    Bad,
}

impl Mark {
    pub(in crate::cli) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Advice => "advice",
            Self::Warning => "warning",
            Self::Bad => "failed",
        }
    }

    pub(in crate::cli) fn word(self, lang: Lang) -> &'static str {
        lang.pick(
            self.as_str(),
            match self {
                Self::Good => "в порядке",
                Self::Advice => "совет",
                Self::Warning => "внимание",
                Self::Bad => "ошибка",
            },
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Line {
    pub(in crate::cli) what: &'static str,
    pub(in crate::cli) mark: Mark,
    pub(in crate::cli) text: String,
}

/// What the lines are about, in Russian. Names that are not here are the same in both languages.
const IN_RUSSIAN: [(&str, &str); 15] = [
    ("amocrm", "amoCRM"),
    ("clock", "часы"),
    ("database", "база"),
    ("event", "событие"),
    ("events", "события"),
    ("inbox", "очередь"),
    ("key", "ключ"),
    ("lease", "право на отправку"),
    ("pause", "пауза"),
    ("rights", "права"),
    ("settings", "настройки"),
    ("stage", "этап"),
    ("supabase", "Supabase"),
    ("token", "токен"),
    ("trigger", "триггер"),
];

impl Line {
    pub(in crate::cli) fn about(&self, lang: Lang) -> &'static str {
        let in_russian = IN_RUSSIAN.iter().find(|(name, _)| *name == self.what);
        lang.pick(self.what, in_russian.map_or(self.what, |(_, word)| word))
    }
}

/// Lines for one reader.
#[derive(Debug)]
pub(in crate::cli) struct Findings {
    pub(in crate::cli) reader: Reader,
    pub(in crate::cli) lines: Vec<Line>,
}

impl Findings {
    pub(in crate::cli) fn new(reader: Reader) -> Self {
        let lines = Vec::new();
        Self { reader, lines }
    }

    pub(in crate::cli) fn is_bad(&self) -> bool {
        self.lines.iter().any(|line| line.mark == Mark::Bad)
    }

    pub(super) fn on(&mut self, what: &'static str) -> Section<'_> {
        Section {
            what,
            reader: &self.reader,
            lines: &mut self.lines,
        }
    }
}

/// Adds lines about one thing.
#[derive(Debug)]
pub(super) struct Section<'a> {
    what: &'static str,
    pub(super) reader: &'a Reader,
    pub(super) lines: &'a mut Vec<Line>,
}

impl Section<'_> {
    pub(super) fn good(&mut self, english: impl Into<String>, russian: impl Into<String>) {
        self.choose(Mark::Good, english.into(), russian.into());
    }

    pub(super) fn advise(&mut self, english: impl Into<String>, russian: impl Into<String>) {
        self.choose(Mark::Advice, english.into(), russian.into());
    }

    pub(super) fn warn(&mut self, english: impl Into<String>, russian: impl Into<String>) {
        self.choose(Mark::Warning, english.into(), russian.into());
    }

    pub(super) fn bad(&mut self, english: impl Into<String>, russian: impl Into<String>) {
        self.choose(Mark::Bad, english.into(), russian.into());
    }

    fn choose(&mut self, mark: Mark, english: String, russian: String) {
        self.add(mark, self.reader.pick(english, russian));
    }

    pub(super) fn fail(&mut self, mark: Mark, error: &(dyn Error + 'static)) {
        self.add(mark, failure::told(error, self.reader.lang));
    }

    /// A text that is in the reader's language already.
    pub(super) fn add(&mut self, mark: Mark, text: impl Into<String>) {
        let (what, text) = (self.what, text.into());
        self.lines.push(Line { what, mark, text });
    }
}
