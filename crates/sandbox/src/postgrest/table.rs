//! `public.tripwire_users` in memory: columns, rows, what a value compares as.

use std::{cmp::Ordering, collections::BTreeMap};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde_json::{Map, Value, json};
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Uuid,
    Text,
    Boolean,
    Integer,
    Time,
}

/// The table as it was last measured, in column order.
pub(super) const COLUMNS: [(&str, Type); 25] = [
    ("id", Type::Uuid),
    ("user_id", Type::Uuid),
    ("full_name", Type::Text),
    ("email", Type::Text),
    ("granted_by", Type::Uuid),
    ("manager_name", Type::Text),
    ("generated_password", Type::Text),
    ("password_changed", Type::Boolean),
    ("welcome_email_sent", Type::Boolean),
    ("welcome_email_sent_at", Type::Time),
    ("email_opened", Type::Boolean),
    ("first_login_at", Type::Time),
    ("last_active_at", Type::Time),
    ("modules_completed", Type::Integer),
    ("status", Type::Text),
    ("amocrm_deal_id", Type::Text),
    ("amocrm_contact_id", Type::Text),
    ("price", Type::Integer),
    ("onboarding_completed", Type::Boolean),
    ("onboarding_completed_at", Type::Time),
    ("phone", Type::Text),
    ("maintenance_notification_sent", Type::Boolean),
    ("maintenance_notification_sent_at", Type::Time),
    ("created_at", Type::Time),
    ("updated_at", Type::Time),
];

pub(super) type Row = Map<String, Value>;

/// As Postgres writes a `timestamptz` in UTC.
pub(crate) fn timestamptz(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

/// A row with the table's defaults; what `given` names, it keeps, `null` too.
pub(super) fn with_defaults(given: &Value, now: Timestamp) -> (Uuid, Row) {
    let now = timestamptz(now);
    let mut row: Row = COLUMNS
        .iter()
        .map(|(name, _)| ((*name).to_owned(), Value::Null))
        .collect();
    let defaults = json!({
        "password_changed": false, "welcome_email_sent": false, "email_opened": false, "modules_completed": 0,
        "status": "active", "price": 5000, "onboarding_completed": false,
        "maintenance_notification_sent": false, "created_at": now, "updated_at": now,
    });
    for fields in [&defaults, given] {
        for (name, value) in fields.as_object().into_iter().flatten() {
            row.insert(name.clone(), value.clone());
        }
    }
    let id = row["id"].as_str().and_then(|id| id.parse().ok());
    let id = id.unwrap_or_else(Uuid::new_v4);
    row.insert("id".to_owned(), id.hyphenated().to_string().into());
    (id, row)
}

/// A value that can be compared as its column's type compares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Comparable {
    Boolean(bool),
    Integer(i64),
    Time(Timestamp),
    Uuid(Uuid),
    Text(String),
}

/// SQLSTATE and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadValue(pub(super) &'static str, pub(super) String);

impl Comparable {
    pub(super) fn parse(column: Type, text: &str) -> Result<Self, BadValue> {
        let bad = |code, name: &str| {
            BadValue(
                code,
                format!("invalid input syntax for type {name}: \"{text}\""),
            )
        };
        match column {
            Type::Uuid => text
                .parse()
                .map(Self::Uuid)
                .map_err(|_| bad("22P02", "uuid")),
            Type::Integer => text
                .parse()
                .map(Self::Integer)
                .map_err(|_| bad("22P02", "integer")),
            Type::Boolean => text
                .parse()
                .map(Self::Boolean)
                .map_err(|_| bad("22P02", "boolean")),
            Type::Time => parse_time(text)
                .map(Self::Time)
                .ok_or_else(|| bad("22007", "timestamp with time zone")),
            Type::Text => Ok(Self::Text(text.to_owned())),
        }
    }

    /// `None` = SQL's NULL.
    pub(super) fn of(column: Type, value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::String(text) => Self::parse(column, text).ok(),
            other => Self::parse(column, &other.to_string()).ok(),
        }
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let date = || {
        let midnight = text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?;
        Some(midnight.timestamp())
    };
    text.parse().ok().or_else(date)
}

/// Rows in the order of their ids.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) rows: BTreeMap<Uuid, Row>,
}

/// NULL is after everything, as `asc` has it by default.
pub(super) fn compare(column: &str, left: &Row, right: &Row) -> Ordering {
    let column_type = type_of(column).unwrap_or(Type::Text);
    let value = |row: &Row| Comparable::of(column_type, row.get(column).unwrap_or(&Value::Null));
    match (value(left), value(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (left, right) => left.is_none().cmp(&right.is_none()),
    }
}

pub(super) fn type_of(column: &str) -> Option<Type> {
    let found = COLUMNS.iter().find(|(name, _)| *name == column);
    found.map(|(_, column_type)| *column_type)
}

/// The columns in the order asked for: `serde_json` would sort them.
pub(super) fn row_json(row: &Row, columns: &[String]) -> String {
    let fields: Vec<String> = columns
        .iter()
        .map(|column| {
            let value = row.get(column).unwrap_or(&Value::Null);
            format!("{}:{value}", Value::from(column.as_str()))
        })
        .collect();
    format!("{{{}}}", fields.join(","))
}
