//! Reads variables one by one and keeps what is wrong with them.

use std::{collections::BTreeMap, fmt};

use super::variable;

/// What is wrong with one setting. Holds no value of any variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub variable: String,
    /// Continues a sentence that begins with the variable's name: `is not set`.
    pub wrong: String,
    /// Empty if none would help.
    pub example: &'static str,
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
        match self.problems.len() {
            1 => f.write_str("1 setting is wrong or missing:")?,
            count => write!(f, "{count} settings are wrong or missing:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {} {}", problem.variable, problem.wrong)?;
            if !problem.example.is_empty() {
                write!(f, "\n      for example: {}", problem.example)?;
            }
        }
        Ok(())
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
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(vars: &'a BTreeMap<String, String>) -> Self {
        Self {
            vars,
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
        form: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Absent> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let value = if is_between_quotes(text) {
            Err("is between quotes: leave them out".to_owned())
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
        form: impl FnOnce(&str) -> Result<T, String>,
        default: T,
    ) -> Result<T, Absent> {
        self.optional(name, form)
            .map(|value| value.unwrap_or(default))
    }

    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        form: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Absent> {
        self.needed(name, form, true)
    }

    /// A missing value is a problem only if `is_needed`.
    pub(super) fn needed<T>(
        &mut self,
        name: &'static str,
        form: impl FnOnce(&str) -> Result<T, String>,
        is_needed: bool,
    ) -> Result<T, Absent> {
        let value = self.optional(name, form)?;
        if value.is_none() && is_needed {
            self.missing(name, "is not set");
        }
        value.ok_or(Absent)
    }

    pub(super) fn missing(&mut self, name: &'static str, wrong: impl Into<String>) {
        self.note(name, wrong, true);
    }

    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    pub(super) fn note(&mut self, name: &str, wrong: impl Into<String>, is_missing: bool) {
        self.problems.push(Problem {
            variable: name.to_owned(),
            wrong: wrong.into(),
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
