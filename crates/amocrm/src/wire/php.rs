//! JSON as PHP writes it, read piece by piece: as a tree of values an answer would take twenty times its memory.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Value, value::RawValue};

use super::{Entry, Known};

/// So many values of one kind are read of a contact. A person has a few; a contact with more is known in part.
pub(super) const MOST_VALUES: usize = 100;
/// Bytes of one value. An address has 254 at most, and stands among names and separators.
pub(super) const LONGEST_VALUE: usize = 1_000;

// ---- scalars ----

/// A number, text, flag or nothing. A list or object is passed over and comes as an empty list.
fn scalar<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let json = Box::<RawValue>::deserialize(deserializer)?;
    scalar_in(&json).map_err(D::Error::custom)
}

fn scalar_in(json: &RawValue) -> Result<Value, serde_json::Error> {
    if json.get().starts_with(['[', '{']) {
        return Ok(Value::Array(Vec::new()));
    }
    serde_json::from_str(json.get())
}

/// Unix seconds, as a number or as digits. Anything else counts as not given.
pub(super) fn time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    let seconds = match scalar(deserializer)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    Ok(seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()))
}

pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(match scalar(deserializer)? {
        Value::Bool(flag) => flag,
        Value::Number(number) => number.as_i64().is_some_and(|number| number != 0),
        Value::String(text) => matches!(text.as_str(), "1" | "true"),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    })
}

/// An id or a place in an order, as a number or as digits.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    number_in(&scalar(deserializer)?).ok_or_else(|| D::Error::custom("no number"))
}

pub(super) fn number_if_any<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<i64>, D::Error> {
    Ok(number_in(&scalar(deserializer)?))
}

pub(super) fn number_in(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `None` if the value is no text.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(as_text(scalar(deserializer)?))
}

fn as_text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

// ---- objects ----

/// An object; `null` and `[]` stand for one without fields.
pub(super) fn php_object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    struct Fields<T>(PhantomData<T>);
    impl<'de, T: Default + Deserialize<'de>> Visitor<'de> for Fields<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_unit<E>(self) -> Result<T, E> {
            Ok(T::default())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<T, A::Error> {
            match items.next_element::<IgnoredAny>()? {
                None => Ok(T::default()),
                Some(_) => Err(A::Error::custom("a list")),
            }
        }

        fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(fields))
        }
    }
    deserializer.deserialize_any(Fields(PhantomData))
}

/// `{"text":"…"}`; a note without parameters has an empty text. An unreadable text is an error, since the note may be ours.
pub(super) fn note_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut fields: BTreeMap<String, Box<RawValue>> = php_object(deserializer)?;
    if fields.is_empty() {
        return Ok(String::new());
    }
    let text = fields.remove("text");
    let text = text.and_then(|json| as_text(scalar_in(&json).ok()?));
    text.ok_or_else(|| D::Error::custom("no text"))
}

// ---- lists ----

/// `[a, b]`, or `{"0": a, "10": b}`. `None` for `null`.
fn items<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Items<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
        type Value = Option<Vec<T>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut read = Vec::new();
            while let Some(item) = items.next_element()? {
                read.push(item);
            }
            Ok(Some(read))
        }

        fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut placed = Vec::new();
            while let Some(key) = items.next_key::<String>()? {
                let place: u32 = key.parse().map_err(|_| A::Error::custom("no list"))?;
                placed.push((place, items.next_value()?));
            }
            placed.sort_by_key(|(place, _)| *place);
            Ok(Some(placed.into_iter().map(|(_, item)| item).collect()))
        }
    }
    deserializer.deserialize_any(Items(PhantomData))
}

/// A part of an item, which may be absent: `null` stands for an empty list too.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(items(deserializer)?.unwrap_or_default())
}

/// The list of an answer, or `{}` for an empty one, read item by item. Any other value is an error: it must not count as an
/// empty list.
pub(super) fn each<'de, D, T>(deserializer: D) -> Result<Vec<Entry<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Known,
{
    items(deserializer)?.ok_or_else(|| D::Error::custom("no list"))
}

impl<'de, T: Known> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        struct Bare {
            #[serde(default, deserialize_with = "number_if_any")]
            id: Option<i64>,
            #[serde(default, deserialize_with = "number_if_any")]
            entity_id: Option<i64>,
            #[serde(default, deserialize_with = "flag")]
            is_deleted: bool,
        }
        // One item at a time, so that one that cannot be read spoils no other.
        let item = Box::<RawValue>::deserialize(deserializer)?;
        let is_object = item.get().starts_with('{');
        if let Some(read) = serde_json::from_str::<T>(item.get())
            .ok()
            .filter(|read| is_object && read.is_readable())
        {
            return Ok(match read.cut() {
                Some(id) => Self::Cut(read, id),
                None => Self::Read(read),
            });
        }
        let bare: Bare = Some(item.get())
            .filter(|_| is_object)
            .and_then(|item| serde_json::from_str(item).ok())
            .unwrap_or_default();
        Ok(if bare.is_deleted {
            Self::Deleted
        } else if T::ID == "id" {
            Self::Unreadable(bare.id)
        } else {
            Self::Unreadable(bare.entity_id)
        })
    }
}

/// The entries of a list, if it is one.
pub(super) fn entries(value: &Value) -> impl Iterator<Item = &Value> {
    as_list(value).into_iter().flatten()
}

pub(super) fn as_list(value: &Value) -> Option<Vec<&Value>> {
    match value {
        Value::Array(items) => Some(items.iter().collect()),
        Value::Object(items) => {
            let placed = items
                .iter()
                .map(|(key, item)| Some((key.parse::<u32>().ok()?, item)));
            let mut placed: Vec<_> = placed.collect::<Option<_>>()?;
            placed.sort_by_key(|(place, _)| *place);
            Some(placed.into_iter().map(|(_, item)| item).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

// ---- values of a contact's field ----

/// What is filled in under a code, without blanks.
#[derive(Debug, Clone, Default)]
pub(super) struct Filled {
    pub(super) texts: Vec<String>,
    /// Some values were left out: there are too many, or one is too long.
    pub(super) is_cut: bool,
}

impl Filled {
    /// `None`: no list.
    pub(super) fn read(values: &RawValue) -> Option<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(values.get());
        let values: Option<Vec<&RawValue>> = items(&mut deserializer).ok()?;
        let mut filled = Self::default();
        for value in values.unwrap_or_default() {
            filled.add(value);
        }
        Some(filled)
    }

    pub(super) fn all<'a>(several: impl Iterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for filled in several {
            all.is_cut |= filled.is_cut;
            for text in &filled.texts {
                all.push(text.clone());
            }
        }
        all
    }

    fn push(&mut self, text: String) {
        if text.trim().is_empty() {
            return;
        }
        if text.len() > LONGEST_VALUE || self.texts.len() == MOST_VALUES {
            self.is_cut = true;
        } else {
            self.texts.push(text);
        }
    }

    fn add(&mut self, item: &RawValue) {
        #[derive(Deserialize)]
        struct Shape {
            #[serde(default, deserialize_with = "text")]
            value: Option<String>,
        }
        let is_object = item.get().starts_with('{');
        let shape = serde_json::from_str::<Shape>(item.get()).ok();
        let text = shape.filter(|_| is_object).and_then(|it| it.value);
        self.push(text.unwrap_or_default());
    }
}
