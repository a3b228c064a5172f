//! amoCRM's JSON, as far as the client reads and writes it. Lenient: members that are not needed may be missing, null or
//! new.
//!
//! Its server is written in PHP: an empty object may come as `[]`, a list as an object with numbers for keys, a number as text.

mod php;
mod told;
mod write;

#[cfg(test)]
mod tests;

pub(super) use write::{
    Made, MovedDeals, added_notes, created_deals, created_with_contacts, made, moved_deals, problem,
};

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use self::php::{
    Filled, as_list, each, entries, flag, list, note_text, number, number_if_any, number_in,
    php_object, text, time,
};
use crate::{
    Account, AmoError, Contact, ContactId, Deal, DealId, Email, Note, NoteId, Phone, Pipeline,
    PipelineId, Stage, StageId, Unreadable,
};

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
    #[serde(rename = "_links", default, deserialize_with = "names_next")]
    names_next: bool,
}

impl<E> Listing<E> {
    /// Its absence proves nothing: it is sometimes missing although more pages exist.
    pub(super) fn names_next(&self) -> bool {
        self.names_next
    }
}

/// Whether `{"next":{"href":"…"}}` names a next page. What has another shape names none.
fn names_next<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    struct Links {
        next: Option<serde::de::IgnoredAny>,
    }
    let links = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(links.get()).is_ok_and(|links: Links| links.next.is_some()))
}

/// One entry of a list.
#[derive(Debug)]
pub(super) enum Entry<T> {
    Read(T),
    /// Read in part, with its id. The rest is unknown.
    Cut(T, i64),
    /// Not readable, with its id if that can be read.
    Unreadable(Option<i64>),
    Deleted,
}

/// An item of a list, and the field by which callers know it.
trait Known: DeserializeOwned {
    const ID: &'static str = "id";

    /// Whether the values by which callers compare the item could be read.
    fn is_readable(&self) -> bool {
        true
    }

    /// The id, if not all values by which callers compare the item were read.
    fn cut(&self) -> Option<i64> {
        None
    }
}

impl Known for RawContact {
    fn is_readable(&self) -> bool {
        let mut fields = self.custom_fields_values.iter();
        !fields.any(|field| matches!(field, Field::Email(None)))
    }

    fn cut(&self) -> Option<i64> {
        // A phone counts only where there is no e-mail.
        let emails = self.emails();
        let is_cut = emails.is_cut || (emails.texts.is_empty() && self.phones().is_cut);
        (is_cut && !self.is_deleted).then_some(self.id)
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
            Entry::Cut(item, id) => {
                items.push(item);
                unreadable.ids.insert(id);
            }
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
    /// The item's own id.
    fn id(item: &Self::Item) -> i64;
    /// The id by which callers know the item.
    fn key(item: &Self::Item) -> i64;
    fn items(self) -> Vec<Entry<Self::Item>>;
}

macro_rules! embedded {
    ($name:ident, $field:ident: $item:ty, by $key:ident) => {
        #[derive(Debug, Deserialize)]
        pub(super) struct $name {
            #[serde(deserialize_with = "each")]
            $field: Vec<Entry<$item>>,
        }

        impl Items for $name {
            type Item = $item;
            fn id(item: &$item) -> i64 {
                item.id
            }
            fn key(item: &$item) -> i64 {
                item.$key
            }
            fn items(self) -> Vec<Entry<$item>> {
                self.$field
            }
        }
    };
}
embedded!(Contacts, contacts: RawContact, by id);
embedded!(Deals, leads: RawDeal, by id);
embedded!(Notes, notes: RawNote, by entity_id);
embedded!(Pipelines, pipelines: RawPipeline, by id);

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
            Entry::Read(status) | Entry::Cut(status, _) => Some(Stage {
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
    id: i64,
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

/// A field. Its values are read only if its code is known.
#[derive(Debug)]
enum Field {
    /// `None`: filled in, and cannot be read.
    Email(Option<Filled>),
    Phone(Filled),
    Other,
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Shape<'a> {
            #[serde(default, deserialize_with = "text")]
            field_code: Option<String>,
            /// Of many shapes.
            #[serde(default, borrow)]
            values: Option<&'a RawValue>,
        }
        let Shape { field_code, values } = Shape::deserialize(deserializer)?;
        let filled = || values.map_or_else(|| Some(Filled::default()), Filled::read);
        Ok(match field_code.as_deref() {
            Some("EMAIL") => Self::Email(filled()),
            Some("PHONE") => Self::Phone(filled().unwrap_or_default()),
            _ => Self::Other,
        })
    }
}

impl RawContact {
    fn emails(&self) -> Filled {
        Filled::all(self.custom_fields_values.iter().filter_map(|it| match it {
            Field::Email(filled) => filled.as_ref(),
            Field::Phone(_) | Field::Other => None,
        }))
    }

    fn phones(&self) -> Filled {
        Filled::all(self.custom_fields_values.iter().filter_map(|it| match it {
            Field::Phone(filled) => Some(filled),
            Field::Email(_) | Field::Other => None,
        }))
    }
}

impl From<RawContact> for Contact {
    fn from(raw: RawContact) -> Self {
        let (emails, phones) = (raw.emails(), raw.phones());
        let deals = raw.embedded.leads.iter();
        Self {
            id: ContactId::new(raw.id),
            emails: emails
                .texts
                .iter()
                .flat_map(|text| Email::all(text))
                .collect(),
            has_email: !emails.texts.is_empty() || emails.is_cut,
            phones: phones
                .texts
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
    id: i64,
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
    entity_id: i64,
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

/// `{"retry_after":300}` in the body of a 429.
pub(super) fn retry_after(body: &[u8]) -> Option<Duration> {
    match serde_json::from_slice::<Value>(body)
        .ok()?
        .get("retry_after")?
    {
        Value::String(text) => outbound::seconds(text),
        value => outbound::seconds(&value.to_string()),
    }
}
