//! What PostgREST and the gateways before it answer, read leniently: statuses and codes decide, never message texts.

use std::time::Duration;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{Culprit, Row, SupabaseError, query};
use crate::domain::{Price, RowId};

/// The content of an error body (`{"code":"42703","message":…}`); empty for a gateway's HTML, or without a body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The code is logged and shown to people, so it has to look like one.
    pub(super) code: String,
    /// May hold values of a row: only searched for names of the schema, never shown.
    message: String,
}

pub(super) fn told(body: &[u8]) -> Told {
    let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
        return Told::default();
    };
    let code = body.get("code").and_then(text).unwrap_or_default();
    let sound = code.len() <= 16 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let message = body.get("message").and_then(Value::as_str);
    Told {
        code: if sound { code } else { String::new() },
        message: message.unwrap_or_default().to_owned(),
    }
}

/// The rules of `errors` in the PostgREST documentation, and of Supabase's gateways. A `SQLSTATE` counts under any status:
/// the same error comes with 400 or 500, by the version of PostgREST.
pub(super) fn failure(status: u16, told: Told, retry_after: Option<Duration>) -> SupabaseError {
    let Told { code, message } = told;
    match (status, code.as_str()) {
        (401 | 403, _) => SupabaseError::Refused { status, code },
        (402 | 540, _) | (_, "25006") => SupabaseError::OutOfService { status, code },
        _ if passes(&code) => SupabaseError::Busy {
            status,
            code,
            retry_after,
        },
        (_, "42P01" | "42703" | "42883") if is_ours(&message) => {
            SupabaseError::Schema { status, code }
        }
        (404, "PGRST202" | "PGRST205") | (400, "PGRST204") | (406, "PGRST106") => {
            SupabaseError::Schema { status, code }
        }
        (_, "22P02" | "PGRST116") => SupabaseError::Row { status, code },
        _ if is_sqlstate(&code) => {
            let culprit = culprit(&code, &message);
            SupabaseError::Theirs {
                status,
                code,
                culprit,
            }
        }
        (408 | 429 | 502..=504 | 520..=599, _) => SupabaseError::Busy {
            status,
            code,
            retry_after,
        },
        _ => SupabaseError::Unexpected { status, code },
    }
}

/// `SQLSTATE`s of what ends by itself: a lost connection, a deadlock, too few resources, a cancelled statement, a lock.
fn passes(code: &str) -> bool {
    is_sqlstate(code)
        && (["08", "40", "53", "57"]
            .iter()
            .any(|class| code.starts_with(class))
            || matches!(code, "55P03" | "55006"))
}

fn is_sqlstate(code: &str) -> bool {
    code.len() == 5 && !code.starts_with("PGRST")
}

/// Whether the missing object is one that the service named: our table, its columns, our functions. A trigger that uses a
/// missing table or column fails with the same codes.
fn is_ours(message: &str) -> bool {
    message.is_empty() || message.contains("tripwire_")
}

fn culprit(code: &str, message: &str) -> Culprit {
    match code {
        "42P17" => Culprit::Policy,
        "42703" if message.starts_with("record ") => Culprit::Trigger,
        "42P01" | "42703" | "42883" => Culprit::Missing,
        "54001" => Culprit::Recursion,
        _ if code.starts_with("P0") => Culprit::Raised,
        _ if code.starts_with("23") => Culprit::Constraint(constraint(message)),
        _ => Culprit::Unknown,
    }
}

/// The name in `… violates check constraint "name"`, if it looks like one.
fn constraint(message: &str) -> Option<String> {
    let (_, quoted) = message.split_once("constraint \"")?;
    let (name, _) = quoted.split_once('"')?;
    let sound = name.len() <= 63
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    sound.then(|| name.to_owned())
}

/// Whether the answer says that a column is not there or may not be used.
pub(super) fn is_about_columns(error: &SupabaseError) -> bool {
    match error {
        SupabaseError::Schema { code, .. } | SupabaseError::Refused { code, .. } => {
            matches!(code.as_str(), "42703" | "42501" | "PGRST204")
        }
        _ => false,
    }
}

/// Whether the answer says that a column is not there.
pub(super) fn is_missing_column(error: &SupabaseError) -> bool {
    matches!(error, SupabaseError::Schema { code, .. } if matches!(code.as_str(), "42703" | "PGRST204"))
}

/// Whether the answer says that a function is not there.
pub(super) fn is_missing_function(error: &SupabaseError) -> bool {
    code(error).is_some_and(|code| matches!(code, "PGRST202" | "42883"))
}

/// Whether a value in the query does not fit the column's type: `blocked` need not be a value of an enum.
pub(super) fn is_bad_value(error: &SupabaseError) -> bool {
    code(error) == Some("22P02")
}

/// Such a question cannot be put: the column is no text, or this PostgREST knows no regular expressions.
pub(super) fn is_no_such_operator(error: &SupabaseError) -> bool {
    matches!(code(error), Some("42883" | "PGRST100"))
}

/// Only PostgREST from 12.2 on knows `max-affected`.
pub(super) fn is_unknown_preference(error: &SupabaseError) -> bool {
    code(error) == Some("PGRST122")
}

pub(super) fn code(error: &SupabaseError) -> Option<&str> {
    match error {
        SupabaseError::Busy { code, .. }
        | SupabaseError::Refused { code, .. }
        | SupabaseError::Schema { code, .. }
        | SupabaseError::OutOfService { code, .. }
        | SupabaseError::Row { code, .. }
        | SupabaseError::Theirs { code, .. }
        | SupabaseError::Unexpected { code, .. } => Some(code),
        SupabaseError::NotSent { .. }
        | SupabaseError::NoAnswer { .. }
        | SupabaseError::Malformed { .. }
        | SupabaseError::TooLarge => None,
    }
}

/// When an answer was made, by the peer's clock. Its `Date` has whole seconds only: if our own clock shows the same second,
/// it adds the fraction.
pub(super) fn read_at(date: Option<Timestamp>, ours: Timestamp) -> Timestamp {
    match date {
        Some(theirs) if theirs.as_second() == ours.as_second() => ours,
        Some(theirs) => theirs,
        None => ours,
    }
}

/// The total in `Content-Range: 0-0/57` or `*/0`.
pub(super) fn total(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.trim().parse().ok()
}

/// The rows of a JSON array. Rows that cannot be read are left out.
pub(super) fn rows(body: &[u8]) -> Result<Vec<Row>, SupabaseError> {
    objects(body, row)
}

pub(super) fn ids(body: &[u8]) -> Result<Vec<RowId>, SupabaseError> {
    objects(body, id)
}

/// Whether the first row has a uuid for its id.
pub(super) fn has_uuids(body: &[u8]) -> Result<Option<bool>, SupabaseError> {
    let rows = array(body)?;
    Ok(rows.first().map(|row| id(row).is_some()))
}

/// The first row's deal id, if it is a blank text.
pub(super) fn blank(body: &[u8]) -> Result<Option<String>, SupabaseError> {
    let rows = array(body)?;
    let row = rows.first().copied().and_then(object);
    Ok(match row.as_ref().and_then(|row| row.get(query::DEAL)) {
        Some(Value::String(text)) if text.trim().is_empty() => Some(text.clone()),
        _ => None,
    })
}

/// How many rows a write gave back.
pub(super) fn count(body: &[u8]) -> Result<usize, SupabaseError> {
    Ok(array(body)?.len())
}

fn array(body: &[u8]) -> Result<Vec<&RawValue>, SupabaseError> {
    serde_json::from_slice(body).map_err(|_| SupabaseError::Malformed {
        what: "not a JSON array",
    })
}

fn objects<T>(body: &[u8], read: impl Fn(&RawValue) -> Option<T>) -> Result<Vec<T>, SupabaseError> {
    let values = array(body)?;
    let read: Vec<T> = values.iter().copied().filter_map(read).collect();
    if read.is_empty() && !values.is_empty() {
        // An empty result would mean that there are no rows.
        return Err(SupabaseError::Malformed {
            what: "rows without an id",
        });
    }
    if read.len() < values.len() {
        tracing::warn!(
            unreadable = values.len() - read.len(),
            "rows without a readable id are left out"
        );
    }
    Ok(read)
}

fn object(value: &RawValue) -> Option<Map<String, Value>> {
    serde_json::from_str(value.get()).ok()
}

fn id(row: &RawValue) -> Option<RowId> {
    id_of(&object(row)?)
}

fn id_of(row: &Map<String, Value>) -> Option<RowId> {
    row.get("id")?.as_str()?.parse().ok()
}

/// As it is spelled: a number type would lose the `0` of `145.90`.
#[derive(Default, Deserialize)]
struct Spelled<'a> {
    #[serde(borrow)]
    price: Option<&'a RawValue>,
}

fn price(row: &RawValue) -> Option<Price> {
    let spelled = serde_json::from_str::<Spelled<'_>>(row.get()).ok()?.price?;
    match serde_json::from_str(spelled.get()).ok()? {
        Value::String(text) => Price::of(&text),
        Value::Number(_) => Price::of(spelled.get()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn row(raw: &RawValue) -> Option<Row> {
    let row = object(raw)?;
    let text = |column: &str| row.get(column).and_then(text);
    Some(Row {
        id: id_of(&row)?,
        email: text("email"),
        full_name: text("full_name"),
        phone: text("phone"),
        manager_name: text("manager_name"),
        price: price(raw),
        generated_password: text("generated_password").map(Into::into),
        status: text(query::STATUS).map(|status| status.trim().to_lowercase()),
        created_at: text("created_at").and_then(|time| time_of(&time)),
        deal_id: row
            .get(query::DEAL)
            .and_then(deal_id)
            .map(|deal| deal.trim().to_owned()),
    })
}

/// Text or a number as text; blank is nothing.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Any value except null and a blank text counts as a deal id, even nonsense: the write back never overwrites it.
fn deal_id(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(_) | Value::Number(_) => text(value),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => Some(value.to_string()),
    }
}

/// RFC 3339 with any offset; without one (a `timestamp without time zone`, a `date`) it is UTC.
fn time_of(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    let local: DateTime = text.parse().ok()?;
    Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_clock_decides_and_ours_fills_in_the_fraction() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let date = Some(at("1994-11-06T08:49:37Z"));
        let table = [
            (date, "1994-11-06T08:49:37.9Z", "1994-11-06T08:49:37.9Z"),
            (date, "1994-11-06T08:49:38.1Z", "1994-11-06T08:49:37Z"),
            (date, "1994-11-06T08:47:00Z", "1994-11-06T08:49:37Z"),
            (None, "1994-11-06T08:47:00Z", "1994-11-06T08:47:00Z"),
        ];
        for (date, ours, expected) in table {
            assert_eq!(read_at(date, at(ours)), at(expected), "{date:?} {ours}");
        }
    }
}
