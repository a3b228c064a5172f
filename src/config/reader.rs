//! Reads variables one by one and keeps what is wrong with them.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use super::variable;
use crate::domain::{Lang, Wording};

/// What is wrong with one setting. Holds no value of any variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub variable: String,
    /// In English it continues a sentence that begins with the variable's name: `is not set`. In Russian it follows a colon.
    pub wrong: Wording,
    /// `None` if none would help.
    pub example: Option<Wording>,
    /// The variable is not set (and not: set to something wrong).
    pub(super) is_missing: bool,
}

/// Everything that has to be put right before we start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told(Lang::English))
    }
}

impl ConfigErrors {
    /// All problems, for the person at the terminal.
    #[must_use]
    pub fn told(&self, lang: Lang) -> String {
        let count = self.problems.len();
        let mut text = match (count, lang) {
            (1, Lang::English) => "1 setting is wrong or missing:".to_owned(),
            (_, Lang::English) => format!("{count} settings are wrong or missing:"),
            (_, Lang::Russian) => format!("настройки с ошибкой или без значения: {count}"),
        };
        for problem in &self.problems {
            let colon = lang.pick("", ":");
            let wrong = problem.wrong.in_lang(lang);
            // Writing to a string does not fail.
            let _ = write!(text, "\n  {}{colon} {wrong}", problem.variable);
            if let Some(example) = &problem.example {
                let head = lang.pick("for example", "например");
                let _ = write!(text, "\n      {head}: {}", example.in_lang(lang));
            }
        }
        text
    }
}

impl std::error::Error for ConfigErrors {}

/// There is no value to be had. A problem was noted, unless the value was not needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Absent;

/// Docker's `--env-file` takes quotes for a part of the value. A text with quotes of its own, as "a" and "b", stays.
fn is_between_quotes(text: &str) -> bool {
    let inner = ['"', '\''].iter().find_map(|quote| {
        let inner = text.strip_prefix(*quote)?.strip_suffix(*quote)?;
        Some(!inner.contains(*quote))
    });
    inner.unwrap_or(false)
}

/// Reads on after a problem, and notes all of them.
pub(super) struct Reader<'a> {
    vars: &'a BTreeMap<String, String>,
    /// The names of the settings that were read or found missing.
    pub(super) asked: Vec<&'static str>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Wording>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(vars: &'a BTreeMap<String, String>) -> Self {
        Self {
            vars,
            asked: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Names that are set to something.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let vars = self.vars;
        vars.iter()
            .filter(|(_, value)| !value.trim().is_empty())
            .map(|(name, _)| name.as_str())
    }

    /// Empty or blank is not set.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        Some(self.vars.get(name)?.trim()).filter(|text| !text.is_empty())
    }

    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        form: impl FnOnce(&str) -> Result<T, Wording>,
    ) -> Result<Option<T>, Absent> {
        self.asked.push(name);
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let value = if is_between_quotes(text) {
            Err(Wording::fixed(
                "is between quotes: leave them out",
                "значение в кавычках: уберите их",
            ))
        } else {
            form(text)
        };
        value.map(Some).map_err(|wrong| {
            self.note(name, wrong, false);
            Absent
        })
    }

    pub(super) fn or<T>(
        &mut self,
        name: &'static str,
        form: impl FnOnce(&str) -> Result<T, Wording>,
        default: T,
    ) -> Result<T, Absent> {
        self.optional(name, form)
            .map(|value| value.unwrap_or(default))
    }

    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        form: impl FnOnce(&str) -> Result<T, Wording>,
    ) -> Result<T, Absent> {
        self.needed(name, form, true)
    }

    /// A missing value is a problem only if `is_needed`.
    pub(super) fn needed<T>(
        &mut self,
        name: &'static str,
        form: impl FnOnce(&str) -> Result<T, Wording>,
        is_needed: bool,
    ) -> Result<T, Absent> {
        let value = self.optional(name, form)?;
        if value.is_none() && is_needed {
            self.missing(name, Wording::fixed("is not set", "не задана"));
        }
        value.ok_or(Absent)
    }

    pub(super) fn missing(&mut self, name: &'static str, wrong: Wording) {
        self.asked.push(name);
        self.note(name, wrong, true);
    }

    pub(super) fn warn(&mut self, warning: Wording) {
        self.warnings.push(warning);
    }

    pub(super) fn note(&mut self, name: &str, wrong: Wording, is_missing: bool) {
        self.problems.push(Problem {
            variable: name.to_owned(),
            wrong,
            example: variable::example(name),
            is_missing,
        });
    }

    /// The value, unless there is any problem at all.
    pub(super) fn finish<T>(self, value: Result<T, Absent>) -> Result<T, ConfigErrors> {
        match value {
            Ok(value) if self.problems.is_empty() => Ok(value),
            _ => Err(ConfigErrors {
                problems: self.problems,
            }),
        }
    }
}
