//! amoCRM's JSON, as far as we read and write it. Lenient: whatever is not needed may be missing, null or new.
//!
//! Its server is written in PHP, so an empty object may come as `[]`.

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

use super::{Account, AmoError, Contact, Deal, Note, Pipeline, Stage};
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

/// The one list that a page carries.
pub(super) trait Items: Send + 'static {
    type Item;
    fn items(self) -> Vec<Self::Item>;
}

macro_rules! embedded {
    ($name:ident, $field:ident: $item:ty) => {
        #[derive(Debug, Deserialize)]
        pub(super) struct $name {
            $field: Vec<$item>,
        }

        impl Items for $name {
            type Item = $item;
            fn items(self) -> Vec<$item> {
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
    id: i64,
    name: Option<String>,
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
    id: i64,
    name: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    is_archive: bool,
    #[serde(rename = "_embedded")]
    embedded: Statuses,
}

#[derive(Debug, Deserialize)]
struct Statuses {
    statuses: Vec<RawStatus>,
}

#[derive(Debug, Deserialize)]
struct RawStatus {
    id: i64,
    name: Option<String>,
    sort: i64,
    /// 1 = the incoming ("unsorted") stage.
    #[serde(rename = "type")]
    kind: Option<i64>,
}

impl From<RawPipeline> for Pipeline {
    fn from(raw: RawPipeline) -> Self {
        let stages = raw.embedded.statuses.into_iter().map(|status| Stage {
            id: StageId::new(status.id),
            name: status.name.unwrap_or_default(),
            sort: status.sort,
            is_unsorted: status.kind == Some(1),
        });
        Self {
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
    pub(super) id: i64,
    #[serde(default, deserialize_with = "time")]
    created_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "time")]
    updated_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "flag")]
    pub(super) is_deleted: bool,
    custom_fields_values: Option<Vec<Field>>,
    #[serde(rename = "_embedded", default, deserialize_with = "php_object")]
    embedded: ContactEmbedded,
}

#[derive(Debug, Default, Deserialize)]
struct ContactEmbedded {
    leads: Option<Vec<Reference>>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    id: i64,
    #[serde(default, deserialize_with = "flag")]
    is_main: bool,
}

#[derive(Debug, Deserialize)]
struct Field {
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
            .flatten()
            .filter(|field| field.field_code.as_deref() == Some(code))
            .flat_map(|field| field.values.as_array().into_iter().flatten())
            .filter_map(|value| match value.get("value")? {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            })
            .filter(|text| !text.trim().is_empty())
            .collect()
    }
}

impl From<RawContact> for Contact {
    fn from(raw: RawContact) -> Self {
        let emails = raw.values("EMAIL");
        let deals = raw.embedded.leads.iter().flatten();
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
    pub(super) id: i64,
    name: Option<String>,
    status_id: i64,
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
    contacts: Option<Vec<Reference>>,
}

impl From<RawDeal> for Deal {
    fn from(raw: RawDeal) -> Self {
        let contacts = raw.embedded.contacts.unwrap_or_default();
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
    id: i64,
    pub(super) entity_id: i64,
    #[serde(default)]
    params: Value,
}

impl From<RawNote> for Note {
    fn from(raw: RawNote) -> Self {
        let text = raw.params.get("text").and_then(Value::as_str);
        Self {
            id: NoteId::new(raw.id),
            deal: DealId::new(raw.entity_id),
            text: text.unwrap_or_default().to_owned(),
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
    Ok(match Value::deserialize(deserializer)? {
        Value::Bool(flag) => flag,
        Value::Number(number) => number.as_i64().is_some_and(|number| number != 0),
        _ => false,
    })
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
