//! What the account keeps: pipelines, contacts, deals, notes.

use jiff::Timestamp;

use crate::{ContactId, DealId, NoteId, PipelineId, StageId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    pub id: PipelineId,
    pub name: String,
    pub is_archive: bool,
    /// Unsorted first, then the school's own, then 142 and 143.
    pub stages: Vec<Stage>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub id: StageId,
    pub name: String,
    pub sort: i64,
    pub is_unsorted: bool,
}

impl Pipeline {
    #[must_use]
    pub fn stage(&self, id: StageId) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.id == id)
    }
}

/// The ids of a pipeline just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineIds {
    pub id: PipelineId,
    pub unsorted: StageId,
    /// In the order in which they were named.
    pub stages: Vec<StageId>,
}

/// One value of a field that can hold several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldValue {
    pub value: String,
    pub enum_code: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    /// `EMAIL` and `PHONE` have one, a school's own fields have none.
    pub code: Option<String>,
    pub values: Vec<FieldValue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    pub id: ContactId,
    pub name: String,
    pub fields: Vec<Field>,
    /// Every deal ever linked, deleted ones too.
    pub deals: Vec<DealId>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub is_deleted: bool,
    /// The texts in the search index, each with the time from which the search finds it.
    pub(super) index: Vec<(Timestamp, IndexText)>,
}

/// What a search compares with, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndexText {
    pub(super) values: Vec<String>,
    pub(super) phones: Vec<String>,
}

impl Contact {
    #[must_use]
    pub fn emails(&self) -> Vec<&str> {
        self.values_of("EMAIL")
    }

    #[must_use]
    pub fn phones(&self) -> Vec<&str> {
        self.values_of("PHONE")
    }

    fn values_of(&self, code: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|field| field.code.as_deref() == Some(code))
            .flat_map(|field| &field.values)
            .map(|value| value.value.as_str())
            .collect()
    }

    pub(super) fn index_text(&self) -> IndexText {
        let values = self.fields.iter().flat_map(|field| &field.values);
        IndexText {
            values: std::iter::once(&self.name)
                .chain(values.map(|value| &value.value))
                .map(|text| text.to_lowercase())
                .collect(),
            phones: self.phones().into_iter().map(digits).collect(),
        }
    }

    /// Whether a search for `query` (in lower case) finds the contact.
    pub(super) fn is_hit(&self, query: &str, now: Timestamp, fuzzy: bool) -> bool {
        let visible = self.index.iter().rev().find(|(since, _)| *since <= now);
        let Some((_, text)) = visible else {
            return false;
        };
        let number = phone_number(query);
        number.is_some_and(|number| text.phones.iter().any(|phone| phone.contains(&number)))
            || text.values.iter().any(|value| {
                if fuzzy {
                    value.contains(query)
                } else {
                    value.trim() == query.trim()
                }
            })
    }
}

/// The digits of a query that looks like a phone.
pub(super) fn phone_number(query: &str) -> Option<String> {
    let looks_like_one = query
        .chars()
        .all(|c| c.is_ascii_digit() || " +-()".contains(c));
    (looks_like_one && !query.is_empty()).then(|| digits(query))
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// amoCRM's API calls it a lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deal {
    pub id: DealId,
    pub name: String,
    pub price: i64,
    pub pipeline: PipelineId,
    pub stage: StageId,
    /// The first is the main one.
    pub contacts: Vec<ContactId>,
    pub tags: Vec<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    pub is_deleted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub id: NoteId,
    pub deal: DealId,
    pub note_type: String,
    pub text: String,
    pub created_at: Timestamp,
}

pub(super) fn multi_field(name: &str, code: &str, values: &[&str]) -> Field {
    let value = |value: &&str| FieldValue {
        value: (*value).to_owned(),
        enum_code: Some("WORK".to_owned()),
    };
    Field {
        name: name.to_owned(),
        code: Some(code.to_owned()),
        values: values.iter().map(value).collect(),
    }
}
