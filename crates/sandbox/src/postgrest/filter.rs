//! The few filters that we use, by the letter of PostgREST's grammar; any other is refused.

use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use super::table::{BadValue, Comparable, Row, type_of};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filter {
    Compare {
        column: String,
        is_negated: bool,
        test: Test,
    },
    Or(Vec<Filter>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    Eq(Comparable),
    Gt(Comparable),
    Gte(Comparable),
    Lt(Comparable),
    In(Vec<Comparable>),
    IsNull,
    /// `~` with the one regular expression that we use.
    IsBlank,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FilterError {
    /// Not the grammar, or not the part that we use.
    Unparsable(String),
    UnknownColumn(String),
    BadValue(BadValue),
}

impl Filter {
    /// One query parameter: `id=eq.…`, or `or=(…)`.
    pub(super) fn parse(key: &str, value: &str) -> Result<Self, FilterError> {
        if key != "or" {
            return parse_condition(key, value);
        }
        let inner = value
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'))
            .ok_or_else(|| FilterError::Unparsable(value.to_owned()))?;
        split_list(inner)
            .into_iter()
            .map(|part| match part.split_once('.') {
                Some((column, condition)) => parse_condition(column, condition),
                None => Err(FilterError::Unparsable(part.to_owned())),
            })
            .collect::<Result<_, _>>()
            .map(Self::Or)
    }

    pub(super) fn columns(&self) -> Vec<&str> {
        match self {
            Self::Compare { column, .. } => vec![column],
            Self::Or(parts) => parts.iter().flat_map(Self::columns).collect(),
        }
    }

    /// The only rows that can match, where the filter names them.
    pub(super) fn ids(&self) -> Option<BTreeSet<Uuid>> {
        let Self::Compare {
            column,
            is_negated: false,
            test,
        } = self
        else {
            return None;
        };
        let ids = match test {
            Test::Eq(id) => std::slice::from_ref(id),
            Test::In(ids) => ids.as_slice(),
            Test::Gt(_) | Test::Gte(_) | Test::Lt(_) | Test::IsNull | Test::IsBlank => {
                return None;
            }
        };
        let of = |id: &Comparable| match id {
            Comparable::Uuid(id) => Some(*id),
            _ => None,
        };
        ids.iter()
            .map(of)
            .collect::<Option<_>>()
            .filter(|_| column == "id")
    }

    pub(super) fn matches(&self, row: &Row) -> bool {
        match self {
            Self::Or(parts) => parts.iter().any(|part| part.matches(row)),
            Self::Compare {
                column,
                is_negated,
                test,
            } => {
                let value = type_of(column).and_then(|column_type| {
                    Comparable::of(column_type, row.get(column).unwrap_or(&Value::Null))
                });
                let holds = match (test, &value) {
                    (Test::IsNull, value) => value.is_none(),
                    // SQL: what is compared with NULL is neither true nor false, negated or not.
                    (_, None) => return false,
                    (Test::Eq(wanted), Some(value)) => value == wanted,
                    (Test::Gt(bound), Some(value)) => value > bound,
                    (Test::Gte(bound), Some(value)) => value >= bound,
                    (Test::Lt(bound), Some(value)) => value < bound,
                    (Test::In(wanted), Some(value)) => wanted.contains(value),
                    (Test::IsBlank, Some(_)) => {
                        let text = row.get(column).and_then(Value::as_str);
                        text.is_some_and(|text| text.trim().is_empty())
                    }
                };
                holds != *is_negated
            }
        }
    }
}

fn parse_condition(column: &str, condition: &str) -> Result<Filter, FilterError> {
    let unparsable = || FilterError::Unparsable(condition.to_owned());
    let (is_negated, rest) = match condition.strip_prefix("not.") {
        Some(rest) => (true, rest),
        None => (false, condition),
    };
    let (operator, operand) = rest.split_once('.').ok_or_else(unparsable)?;
    let column_type =
        type_of(column).ok_or_else(|| FilterError::UnknownColumn(column.to_owned()))?;
    let value = |text: &str| Comparable::parse(column_type, text).map_err(FilterError::BadValue);
    let test = match operator {
        "eq" => Test::Eq(value(operand)?),
        "gt" => Test::Gt(value(operand)?),
        "gte" => Test::Gte(value(operand)?),
        "lt" => Test::Lt(value(operand)?),
        "is" if operand == "null" => Test::IsNull,
        "match"
            if unquote(operand).starts_with("^[[:space:]") && unquote(operand).ends_with("]*$") =>
        {
            Test::IsBlank
        }
        "in" => {
            let list = operand
                .strip_prefix('(')
                .and_then(|rest| rest.strip_suffix(')'))
                .ok_or_else(unparsable)?;
            let values = split_list(list).into_iter().map(unquote);
            Test::In(values.map(|text| value(&text)).collect::<Result<_, _>>()?)
        }
        _ => return Err(unparsable()),
    };
    Ok(Filter::Compare {
        column: column.to_owned(),
        is_negated,
        test,
    })
}

/// At the commas that are neither in parentheses nor in quotes.
fn split_list(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut is_quoted, mut start) = (0_u32, false, 0);
    for (at, c) in text.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth = depth.saturating_sub(1),
            ',' if !is_quoted && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if start < text.len() {
        parts.push(&text[start..]);
    }
    parts
}

fn unquote(text: &str) -> String {
    let inner = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(text).to_owned()
}
