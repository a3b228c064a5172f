//! amoCRM's JSON, as far as we read and write it. Lenient: whatever is not needed may be missing, null or new.
//!
//! Its server is written in PHP: an empty object may come as `[]`, a list as an object with numbers for keys, a number as text.

mod told;
mod write;

pub(super) use write::{
    AddedNotes, CreatedDeals, CreatedWithContacts, MovedDeals, added_notes, created_deals,
    created_with_contacts, moved_deals, problem,
};

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

use super::{Account, AmoError, Contact, Deal, Note, Pipeline, Stage, Unreadable};
use crate::domain::{ContactId, DealId, Email, NoteId, Phone, PipelineId, StageId};

pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, AmoError> {
    serde_json::from_slice(body).map_err(|error| AmoError::Malformed {
        what: if body.is_empty() {
            "an empty answer"
        } else if error.is_data() {
            "JSON of another shape"
        } else {
            "not JSON"
        },
    })
}

#[expect(
    clippy::expect_used,
    reason = "structs of numbers and text; no maps, no own serializers"
)]
pub(super) fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect("plain structs always become JSON")
}

pub(super) fn is_json_or_empty(body: &[u8]) -> bool {
    body.is_empty() || serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// ```json
/// {"_page":1,"_links":{"next":{"href":"…"}},"_embedded":{"contacts":[…]}}
/// ```
#[derive(Debug, Deserialize)]
pub(super) struct Listing<E> {
    #[serde(rename = "_embedded")]
    pub(super) embedded: E,
    #[serde(rename = "_links", default)]
    links: Value,
}

impl<E> Listing<E> {
    /// Its absence proves nothing: it is sometimes missing although more pages exist.
    pub(super) fn names_next(&self) -> bool {
        self.links.get("next").is_some_and(|next| !next.is_null())
    }
}

/// One entry of a list.
#[derive(Debug)]
pub(super) enum Entry<T> {
    Read(T),
    /// With its id, if that can be read.
    Unreadable(Option<i64>),
    Deleted,
}

/// An item of a list, and the field by which callers know it.
trait Known: DeserializeOwned {
    const ID: &'static str = "id";

    /// Whether what callers compare it by could be read.
    fn is_readable(&self) -> bool {
        true
    }
}

impl Known for RawContact {
    fn is_readable(&self) -> bool {
        !self.is_unreadable("EMAIL")
    }
}
impl Known for RawDeal {}
impl Known for RawPipeline {}
impl Known for RawStatus {}
impl Known for RawNote {
    const ID: &'static str = "entity_id";
}

/// Parts what was read from what could not be.
pub(super) fn part<T>(entries: Vec<Entry<T>>) -> (Vec<T>, Unreadable) {
    let mut items = Vec::with_capacity(entries.len());
    let mut unreadable = Unreadable::default();
    for entry in entries {
        match entry {
            Entry::Read(item) => items.push(item),
            Entry::Unreadable(Some(id)) => {
                unreadable.ids.insert(id);
            }
            Entry::Unreadable(None) => unreadable.without_id = true,
            Entry::Deleted => {}
        }
    }
    (items, unreadable)
}

/// The one list that a page carries.
pub(super) trait Items: Send + 'static {
    type Item;
    fn items(self) -> Vec<Entry<Self::Item>>;
}

macro_rules! embedded {
    ($name:ident, $field:ident: $item:ty) => {
        #[derive(Debug, Deserialize)]
        pub(super) struct $name {
            #[serde(deserialize_with = "each")]
            $field: Vec<Entry<$item>>,
        }

        impl Items for $name {
            type Item = $item;
            fn items(self) -> Vec<Entry<$item>> {
                self.$field
            }
        }
    };
}
embedded!(Contacts, contacts: RawContact);
embedded!(Deals, leads: RawDeal);
embedded!(Notes, notes: RawNote);
embedded!(Pipelines, pipelines: RawPipeline);

/// ```json
/// {"id":9,"name":"School","subdomain":"school","current_user_id":7,"country":"RU", …}
/// ```
#[derive(Debug, Deserialize)]
pub(super) struct RawAccount {
    #[serde(deserialize_with = "number")]
    id: i64,
    #[serde(default, deserialize_with = "text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "text")]
    subdomain: Option<String>,
}

impl From<RawAccount> for Account {
    fn from(raw: RawAccount) -> Self {
        Self {
            id: raw.id,
            name: raw.name.unwrap_or_default(),
            subdomain: raw.subdomain.unwrap_or_default(),
        }
    }
}

/// ```json
/// {"id":31,"name":"Sales","is_archive":false,"_embedded":{"statuses":[
///   {"id":310,"name":"Incoming","sort":10,"type":1},{"id":311,"name":"New","sort":20,"type":0},
///   {"id":142,"name":"Won","sort":10000,"type":0}]}}
/// ```
#[derive(Debug, Deserialize)]
pub(super) struct RawPipeline {
    #[serde(deserialize_with = "number")]
    id: i64,
    #[serde(default, deserialize_with = "text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    is_archive: bool,
    #[serde(rename = "_embedded")]
    embedded: Statuses,
}

#[derive(Debug, Deserialize)]
struct Statuses {
    #[serde(deserialize_with = "each")]
    statuses: Vec<Entry<RawStatus>>,
}

#[derive(Debug, Deserialize)]
struct RawStatus {
    #[serde(deserialize_with = "number")]
    id: i64,
    #[serde(default, deserialize_with = "text")]
    name: Option<String>,
    #[serde(deserialize_with = "number")]
    sort: i64,
    /// 1 = the incoming ("unsorted") stage.
    #[serde(rename = "type", default, deserialize_with = "number_if_any")]
    kind: Option<i64>,
}

impl From<RawPipeline> for Pipeline {
    fn from(raw: RawPipeline) -> Self {
        let statuses = raw.embedded.statuses;
        let is_whole = !statuses.iter().any(|it| matches!(it, Entry::Unreadable(_)));
        let stages = statuses.into_iter().filter_map(|status| match status {
            Entry::Read(status) => Some(Stage {
                id: StageId::new(status.id),
                name: status.name.unwrap_or_default(),
                sort: status.sort,
                is_unsorted: status.kind == Some(1),
            }),
            Entry::Unreadable(_) | Entry::Deleted => None,
        });
        Self {
            is_whole,
            id: PipelineId::new(raw.id),
            name: raw.name.unwrap_or_default(),
            is_archive: raw.is_archive,
            stages: stages.collect(),
        }
    }
}

/// ```json
/// {"id":501,"created_at":1760000000,"updated_at":1760000100,"is_deleted":false,
///  "custom_fields_values":[{"field_id":11,"field_code":"EMAIL","values":[{"value":"ann@x.org","enum_code":"WORK"}]}],
///  "_embedded":{"leads":[{"id":901}]}}
/// ```
/// `custom_fields_values` is `null` when nothing is filled in; names of fields are localised, codes are not.
#[derive(Debug, Deserialize)]
pub(super) struct RawContact {
    #[serde(deserialize_with = "number")]
    pub(super) id: i64,
    #[serde(default, deserialize_with = "time")]
    created_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "time")]
    updated_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "flag")]
    pub(super) is_deleted: bool,
    #[serde(default, deserialize_with = "list")]
    custom_fields_values: Vec<Field>,
    #[serde(rename = "_embedded", default, deserialize_with = "php_object")]
    embedded: ContactEmbedded,
}

#[derive(Debug, Default, Deserialize)]
struct ContactEmbedded {
    #[serde(default, deserialize_with = "list")]
    leads: Vec<Reference>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    #[serde(deserialize_with = "number")]
    id: i64,
    #[serde(default, deserialize_with = "flag")]
    is_main: bool,
}

#[derive(Debug, Deserialize)]
struct Field {
    #[serde(default, deserialize_with = "text")]
    field_code: Option<String>,
    /// Of many shapes; looked into only for the codes that we know.
    #[serde(default)]
    values: Value,
}

impl RawContact {
    /// What is filled in under a code, without blanks.
    fn values(&self, code: &str) -> Vec<String> {
        self.custom_fields_values
            .iter()
            .filter(|field| field.field_code.as_deref() == Some(code))
            .flat_map(|field| entries(&field.values))
            .filter_map(|value| match value.get("value")? {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            })
            .filter(|text| !text.trim().is_empty())
            .collect()
    }
}

impl RawContact {
    /// The field with this code is filled in, and its values cannot be read.
    fn is_unreadable(&self, code: &str) -> bool {
        let mut fields = self.custom_fields_values.iter();
        fields.any(|field| {
            let is_it = field.field_code.as_deref() == Some(code);
            is_it && !field.values.is_null() && as_list(&field.values).is_none()
        })
    }
}

impl From<RawContact> for Contact {
    fn from(raw: RawContact) -> Self {
        let emails = raw.values("EMAIL");
        let deals = raw.embedded.leads.iter();
        Self {
            id: ContactId::new(raw.id),
            emails: emails.iter().flat_map(|text| Email::all(text)).collect(),
            has_email: !emails.is_empty(),
            phones: raw
                .values("PHONE")
                .iter()
                .filter_map(|text| Phone::parse(text))
                .collect(),
            deals: deals.map(|deal| DealId::new(deal.id)).collect(),
            created_at: raw.created_at.unwrap_or(Timestamp::UNIX_EPOCH),
            updated_at: raw.updated_at.unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }
}

/// ```json
/// {"id":901,"name":"Course","price":100,"status_id":142,"pipeline_id":31,"created_at":1760000000,
///  "updated_at":1760000500,"closed_at":1760000500,"is_deleted":false,
///  "_embedded":{"contacts":[{"id":501,"is_main":true}]}}
/// ```
#[derive(Debug, Deserialize)]
pub(super) struct RawDeal {
    #[serde(deserialize_with = "number")]
    pub(super) id: i64,
    #[serde(default, deserialize_with = "text")]
    name: Option<String>,
    #[serde(deserialize_with = "number")]
    status_id: i64,
    #[serde(deserialize_with = "number")]
    pipeline_id: i64,
    #[serde(default, deserialize_with = "time")]
    created_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "time")]
    updated_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "time")]
    closed_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "flag")]
    is_deleted: bool,
    #[serde(rename = "_embedded", default, deserialize_with = "php_object")]
    embedded: DealEmbedded,
}

#[derive(Debug, Default, Deserialize)]
struct DealEmbedded {
    #[serde(default, deserialize_with = "list")]
    contacts: Vec<Reference>,
}

impl From<RawDeal> for Deal {
    fn from(raw: RawDeal) -> Self {
        let contacts = raw.embedded.contacts;
        let main = contacts.iter().find(|contact| contact.is_main);
        Self {
            id: DealId::new(raw.id),
            name: raw.name.unwrap_or_default(),
            pipeline: PipelineId::new(raw.pipeline_id),
            stage: StageId::new(raw.status_id),
            created_at: raw.created_at.unwrap_or(Timestamp::UNIX_EPOCH),
            updated_at: raw.updated_at.unwrap_or(Timestamp::UNIX_EPOCH),
            // Open deals have null, or 0 in old accounts.
            closed_at: raw
                .closed_at
                .filter(|closed| *closed > Timestamp::UNIX_EPOCH),
            is_deleted: raw.is_deleted,
            main_contact: main.map(|contact| ContactId::new(contact.id)),
            contacts: contacts
                .iter()
                .map(|contact| ContactId::new(contact.id))
                .collect(),
        }
    }
}

/// ```json
/// {"id":77,"entity_id":901,"note_type":"common","params":{"text":"…"}}
/// ```
#[derive(Debug, Deserialize)]
pub(super) struct RawNote {
    #[serde(deserialize_with = "number")]
    id: i64,
    #[serde(deserialize_with = "number")]
    pub(super) entity_id: i64,
    #[serde(default, deserialize_with = "note_text")]
    params: String,
}

impl From<RawNote> for Note {
    fn from(raw: RawNote) -> Self {
        Self {
            id: NoteId::new(raw.id),
            deal: DealId::new(raw.entity_id),
            text: raw.params,
        }
    }
}

// Lenient parts.

/// Unix seconds, as a number or as digits. Anything else counts as not given.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let seconds = match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    Ok(seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()))
}

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(is_set(&Value::deserialize(deserializer)?))
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_i64().is_some_and(|number| number != 0),
        Value::String(text) => matches!(text.as_str(), "1" | "true"),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// An id or a place in an order, as a number or as digits.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    number_in(&Value::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("no number"))
}

fn number_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(number_in(&Value::deserialize(deserializer)?))
}

fn number_in(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What is no text is not given.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    })
}

/// `{"text":"…"}`; a note without parameters has no text. A text that cannot be read may be ours.
fn note_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(String::new()),
        Value::Array(none) if none.is_empty() => Ok(String::new()),
        Value::Object(none) if none.is_empty() => Ok(String::new()),
        params => match params.get("text") {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            _ => Err(D::Error::custom("no text")),
        },
    }
}

/// What was asked for: a list, or `{}` for an empty one, read item by item. Anything else must not pass for "there are
/// none".
fn each<'de, D, T>(deserializer: D) -> Result<Vec<Entry<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Known,
{
    let value = Value::deserialize(deserializer)?;
    let items = as_list(&value).ok_or_else(|| D::Error::custom("no list"))?;
    let entry = |item: &Value| match T::deserialize(item) {
        Ok(read) if read.is_readable() => Entry::Read(read),
        _ if item.get("is_deleted").is_some_and(is_set) => Entry::Deleted,
        _ => Entry::Unreadable(item.get(T::ID).and_then(number_in)),
    };
    Ok(items.into_iter().map(entry).collect())
}

/// The answers to a write, item by item: what cannot be read is not answered.
fn answers<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    let items = as_list(&value).ok_or_else(|| D::Error::custom("no list"))?;
    let items = items
        .into_iter()
        .filter_map(|item| T::deserialize(item).ok());
    Ok(items.collect())
}

/// A part of an item, which may be absent: `null` stands for an empty list too.
fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(Vec::new());
    }
    let items = as_list(&value).ok_or_else(|| D::Error::custom("no list"))?;
    let items = items.into_iter().map(T::deserialize);
    items.collect::<Result<_, _>>().map_err(D::Error::custom)
}

/// The entries of a list, if it is one.
fn entries(value: &Value) -> impl Iterator<Item = &Value> {
    as_list(value).into_iter().flatten()
}

/// `[a, b]`, or `{"0": a, "10": b}`.
fn as_list(value: &Value) -> Option<Vec<&Value>> {
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

/// An object; `null` and `[]` stand for one without fields.
fn php_object<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + DeserializeOwned,
{
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(T::default()),
        Value::Array(items) if items.is_empty() => Ok(T::default()),
        value => serde_json::from_value(value).map_err(D::Error::custom),
    }
}

/// `{"retry_after":300}` in the body of a 429.
pub(super) fn retry_after(body: &[u8]) -> Option<Duration> {
    match serde_json::from_slice::<Value>(body)
        .ok()?
        .get("retry_after")?
    {
        Value::String(text) => seconds(text),
        value => seconds(&value.to_string()),
    }
}

/// A number of seconds; absurdly many are cut by the caller.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().parse().ok()?;
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}
