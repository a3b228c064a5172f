//! The template of a note: text with placeholders for what the row holds.

use std::fmt::Write as _;

/// What is written to a deal unless `NOTE_TEMPLATE` says otherwise.
const DEFAULT: &str = "✅ Доступ к Tripwire предоставлен: {full_name}\nЛогин: {email}";

/// What a template may ask for; all but `row_id` are columns of the row.
const PLACEHOLDERS: [&str; 7] = [
    "full_name",
    "email",
    "phone",
    "manager_name",
    "price",
    "generated_password",
    "row_id",
];

/// Columns that are read for the note's sake only.
const NOTE_COLUMNS: [&str; 4] = ["phone", "manager_name", "price", "generated_password"];

/// The template asks for something that no row has.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("has {}; known are {}", self.told(), Self::known())]
pub struct UnknownPlaceholder(String);

impl UnknownPlaceholder {
    #[must_use]
    pub fn in_russian(&self) -> String {
        let known = Self::known();
        match self.quotable() {
            Some(name) => format!("неизвестная подстановка {{{name}}}; известны {known}"),
            None => format!("неизвестная подстановка; известны {known}"),
        }
    }

    fn told(&self) -> String {
        match self.quotable() {
            Some(name) => format!("the unknown placeholder {{{name}}}"),
            None => "an unknown placeholder".to_owned(),
        }
    }

    /// A setting's value is quoted only if it is a plain word: anything else may be a misplaced secret.
    fn quotable(&self) -> Option<&str> {
        let is_word = self.0.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        (is_word && self.0.len() <= 32).then_some(&self.0)
    }

    fn known() -> String {
        PLACEHOLDERS.map(|name| format!("{{{name}}}")).join(" ")
    }
}

/// A template taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteTemplate(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(&'static str),
}

impl NoteTemplate {
    /// A brace that is not closed is text.
    pub fn parse(template: &str) -> Result<Self, UnknownPlaceholder> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some((text, tail)) = rest.split_once('{') {
            let Some((name, after)) = tail.split_once('}') else {
                break;
            };
            let known = PLACEHOLDERS.iter().find(|known| **known == name);
            let field = known.ok_or_else(|| UnknownPlaceholder(name.to_owned()))?;
            parts.push(Part::Text(text.to_owned()));
            parts.push(Part::Field(field));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The columns that the template needs beside those that are always read.
    #[must_use]
    pub fn columns(&self) -> Vec<&'static str> {
        NOTE_COLUMNS
            .into_iter()
            .filter(|column| self.0.contains(&Part::Field(column)))
            .collect()
    }

    /// Fills the template in one pass: a value that looks like a placeholder is not filled again. A missing value becomes a
    /// dash.
    pub fn fill(&self, value: impl Fn(&str) -> Option<String>) -> String {
        let mut filled = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Field(name) => {
                    let value = value(name);
                    // Writing to a String cannot fail.
                    let _ = write!(filled, "{}", value.as_deref().unwrap_or("—"));
                }
            }
        }
        filled
    }
}

impl Default for NoteTemplate {
    #[expect(clippy::expect_used, reason = "a constant, parsed by a test")]
    fn default() -> Self {
        Self::parse(DEFAULT).expect("the default template names known placeholders")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_names_its_columns() {
        let columns = |template| NoteTemplate::parse(template).unwrap().columns();
        assert_eq!(
            columns("{email} {price} {phone} {row_id} {phone}"),
            ["phone", "price"]
        );
        assert_eq!(columns("no placeholder { at all"), [""; 0]);
        assert_eq!(NoteTemplate::default().columns(), [""; 0]);
    }

    #[test]
    fn what_no_row_has_is_told_unless_it_may_be_a_secret() {
        let told = |template| NoteTemplate::parse(template).unwrap_err().to_string();
        assert!(
            told("a {pasword} b").starts_with(
                "has the unknown placeholder {pasword}; known are {full_name} {email}"
            )
        );
        for secret in [
            "{whsec_AbC=}",
            "{}{Bearer x}",
            "{an_endless_word_of_more_than_thirty_two_letters}",
        ] {
            let told = told(secret);
            assert!(
                told.starts_with("has ") && !told.contains("AbC") && !told.contains("Bearer"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_template_is_filled_in_one_pass() {
        let template = NoteTemplate::parse("{full_name} / {price} / {phone} / { alone").unwrap();
        let filled = template.fill(|name| match name {
            "full_name" => Some("Анна {price}".to_owned()),
            "price" => Some("5000".to_owned()),
            _ => None,
        });
        assert_eq!(filled, "Анна {price} / 5000 / — / { alone");
    }
}
