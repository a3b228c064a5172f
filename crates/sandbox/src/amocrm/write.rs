//! The bulk writes: what is refused, what is applied, what is answered.

use serde_json::{Map, Value};

use crate::{ContactId, DealId, PipelineId, StageId};

use super::{
    super::server::Reply,
    answer::{ItemError, problem, validation},
    records::{Field, FieldValue},
    world::World,
};

/// A valid item that a fault refuses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rejection {
    pub(super) bad_index: usize,
    pub(super) others_applied: bool,
}

/// Which bulk write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    UpdateDeals,
    CreateDeals,
    CreateComplex,
    AddNotes { of: Option<DealId> },
}

impl Write {
    fn name(self) -> &'static str {
        match self {
            Self::UpdateDeals => "PATCH leads",
            Self::CreateDeals => "POST leads",
            Self::CreateComplex => "POST leads/complex",
            Self::AddNotes { .. } => "POST leads/notes",
        }
    }

    /// Most items in one request.
    fn most(self) -> usize {
        match self {
            Self::CreateComplex => 50,
            Self::UpdateDeals | Self::CreateDeals | Self::AddNotes { .. } => 250,
        }
    }
}

const DEAL_FIELDS: &[&str] = &[
    "name",
    "price",
    "status_id",
    "pipeline_id",
    "loss_reason_id",
    "closed_at",
    "created_at",
    "updated_at",
    "created_by",
    "updated_by",
    "responsible_user_id",
    "custom_fields_values",
    "tags_to_add",
    "tags_to_delete",
    "request_id",
    "_embedded",
];

/// One item and where it stands in the request.
struct Item<'a> {
    index: usize,
    fields: &'a Map<String, Value>,
}

impl Item<'_> {
    fn get(&self, name: &str) -> &Value {
        self.fields.get(name).unwrap_or(&Value::Null)
    }

    fn request_id(&self) -> Option<String> {
        match self.get("request_id") {
            Value::String(id) => Some(id.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }

    fn error(&self, code: &'static str, path: impl Into<String>) -> ItemError {
        ItemError {
            index: self.index,
            request_id: self.request_id(),
            code,
            path: path.into(),
        }
    }
}

/// An item that may be applied.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Update {
        id: DealId,
        target: Option<(PipelineId, StageId)>,
        name: Option<String>,
        price: Option<i64>,
    },
    Create {
        request_id: String,
        deal: NewDeal,
        contact: Option<NewContact>,
        is_complex: bool,
    },
    Note {
        request_id: String,
        deal: DealId,
        note_type: String,
        text: String,
    },
}

#[derive(Debug, Clone)]
pub(super) struct NewDeal {
    pub(super) name: Option<String>,
    pub(super) price: i64,
    pub(super) target: (PipelineId, StageId),
    pub(super) contacts: Vec<ContactId>,
    pub(super) tags: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct NewContact {
    pub(super) name: String,
    pub(super) fields: Vec<Field>,
}

impl World {
    pub(super) fn write(
        &mut self,
        write: Write,
        body: Option<&Value>,
        rejection: Option<Rejection>,
    ) -> Reply {
        let name = write.name();
        let Some(body) = body else {
            self.protocol_error(format!("{name}: the body is not JSON"));
            return problem(400, "Bad Request", "Invalid JSON");
        };
        let Some(items) = body.as_array().filter(|items| !items.is_empty()) else {
            self.protocol_error(format!("{name}: the body is not an array of items"));
            return problem(400, "Bad Request", "Request validation failed");
        };
        if items.len() > write.most() {
            let (count, most) = (items.len(), write.most());
            self.protocol_error(format!(
                "{name}: {count} items in one request, {most} at most"
            ));
            return problem(400, "Bad Request", "Request validation failed");
        }

        let mut changes = Vec::new();
        let mut errors = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match self.check(write, index, item) {
                Ok(change) => changes.push((index, change)),
                Err(error) => errors.push(error),
            }
        }
        let mut others_applied = self.quirks.rejected_bulk_saves_others;
        if let Some(rejection) = rejection {
            others_applied = rejection.others_applied;
            let bad = rejection.bad_index.min(items.len() - 1);
            changes.retain(|(index, _)| *index != bad);
            errors.push(ItemError {
                index: bad,
                request_id: items[bad]["request_id"].as_str().map(str::to_owned),
                code: "NotSupportedChoice",
                path: "status_id".to_owned(),
            });
        }
        if errors.is_empty() || others_applied {
            let reply = self.apply(
                write,
                changes.into_iter().map(|(_, change)| change).collect(),
            );
            if errors.is_empty() {
                return reply;
            }
        }
        validation(&errors)
    }

    fn check(&mut self, write: Write, index: usize, item: &Value) -> Result<Change, ItemError> {
        let empty = Map::new();
        let item = Item {
            index,
            fields: item.as_object().unwrap_or(&empty),
        };
        match write {
            Write::UpdateDeals => self.check_update(&item),
            Write::CreateDeals => self.check_create(&item, false),
            Write::CreateComplex => self.check_create(&item, true),
            Write::AddNotes { of } => self.check_note(&item, of),
        }
    }

    fn check_update(&mut self, item: &Item<'_>) -> Result<Change, ItemError> {
        let Some(id) = item.get("id").as_i64() else {
            self.protocol_error("PATCH leads: an item without an id, which would create a lead");
            return Err(item.error("NotBlank", "id"));
        };
        if let Some(key) = item
            .fields
            .keys()
            .find(|key| *key != "id" && !DEAL_FIELDS.contains(&key.as_str()))
        {
            self.protocol_error(format!("PATCH leads: unknown field {key}"));
            return Err(item.error("FieldNotExpected", key));
        }
        if item.fields.contains_key("updated_at") {
            self.protocol_error("PATCH leads: updated_at is amoCRM's own");
        }
        let current = self.deals.get(&DealId::new(id)).map(|deal| deal.pipeline);
        let target = self.check_target("PATCH leads", item, current)?;
        Ok(Change::Update {
            id: DealId::new(id),
            target,
            name: item.get("name").as_str().map(str::to_owned),
            price: item.get("price").as_i64(),
        })
    }

    /// `current`: the pipeline that the deal is in.
    fn check_target(
        &mut self,
        what: &str,
        item: &Item<'_>,
        current: Option<PipelineId>,
    ) -> Result<Option<(PipelineId, StageId)>, ItemError> {
        let pipeline = item.get("pipeline_id").as_i64().map(PipelineId::new);
        let stage = item.get("status_id").as_i64().map(StageId::new);
        if pipeline.is_some() != stage.is_some() {
            self.protocol_error(format!("{what}: pipeline_id and status_id belong together"));
        }
        let Some(pipeline) = pipeline.or(current.filter(|_| stage.is_some())) else {
            return Ok(None);
        };
        let Some(found) = self.pipeline(pipeline) else {
            return Err(item.error("NotSupportedChoice", "pipeline_id"));
        };
        let stage = match stage {
            Some(stage) => found.stage(stage).filter(|stage| !stage.is_unsorted),
            None => found.stages.iter().find(|stage| !stage.is_unsorted),
        };
        match stage {
            Some(stage) => Ok(Some((pipeline, stage.id))),
            None => Err(item.error("NotSupportedChoice", "status_id")),
        }
    }

    fn check_create(&mut self, item: &Item<'_>, is_complex: bool) -> Result<Change, ItemError> {
        let what = if is_complex {
            "POST leads/complex"
        } else {
            "POST leads"
        };
        let known = |key: &&String| DEAL_FIELDS.contains(&key.as_str());
        if let Some(key) = item.fields.keys().find(|key| !known(key)) {
            self.protocol_error(format!("{what}: unknown field {key}"));
            return Err(item.error("FieldNotExpected", key));
        }
        let main = self.pipelines.first().map(|pipeline| pipeline.id);
        let target = match self.check_target(what, item, main)? {
            Some((_, StageId::LOST)) => return Err(item.error("NotSupportedChoice", "status_id")),
            Some(target) => target,
            None => main
                .and_then(|main| {
                    let stages = &self.pipeline(main)?.stages;
                    let first = stages.iter().find(|stage| !stage.is_unsorted)?;
                    Some((main, first.id))
                })
                .ok_or_else(|| item.error("NotSupportedChoice", "pipeline_id"))?,
        };
        let embedded = item.get("_embedded");
        if embedded.get("metadata").is_some() {
            self.protocol_error(format!("{what}: metadata sends the lead to Unsorted"));
        }
        let list = |name: &str| embedded[name].as_array().cloned().unwrap_or_default();
        let tags = list("tags");
        let tags = tags
            .iter()
            .filter_map(|tag| Some(tag["name"].as_str()?.to_owned()));
        let mut deal = NewDeal {
            name: item.get("name").as_str().map(str::to_owned),
            price: item.get("price").as_i64().unwrap_or(0),
            target,
            contacts: Vec::new(),
            tags: tags.collect(),
        };
        let contacts = list("contacts");
        if is_complex && contacts.len() > 1 {
            self.protocol_error("POST leads/complex: more than one contact for a lead");
            return Err(item.error("TooMany", "_embedded.contacts"));
        }
        let mut new_contact = None;
        for (position, contact) in contacts.iter().enumerate() {
            let path = format!("_embedded.contacts.{position}");
            match contact["id"].as_i64().map(ContactId::new) {
                Some(id) if self.contact(id).is_some_and(|known| !known.is_deleted) => {
                    let is_main = contact["is_main"].as_bool() == Some(true);
                    let at = if is_main { 0 } else { deal.contacts.len() };
                    deal.contacts.insert(at, id);
                }
                Some(_) => return Err(item.error("NotSupportedChoice", format!("{path}.id"))),
                None if is_complex => new_contact = Some(self.check_contact(item, contact, &path)?),
                None => {
                    self.protocol_error("POST leads: a contact without an id");
                    return Err(item.error("NotBlank", format!("{path}.id")));
                }
            }
        }
        Ok(Change::Create {
            request_id: item.request_id().unwrap_or_else(|| item.index.to_string()),
            deal,
            contact: new_contact,
            is_complex,
        })
    }

    fn check_contact(
        &mut self,
        item: &Item<'_>,
        contact: &Value,
        path: &str,
    ) -> Result<NewContact, ItemError> {
        let mut fields = Vec::new();
        let values = contact["custom_fields_values"].as_array();
        for (position, field) in values.into_iter().flatten().enumerate() {
            let code = match (field["field_code"].as_str(), field["field_id"].as_i64()) {
                (Some("EMAIL"), _) | (None, Some(1_103)) => "EMAIL",
                (Some("PHONE"), _) | (None, Some(1_101)) => "PHONE",
                _ => {
                    let path = format!("{path}.custom_fields_values.{position}.field_id");
                    self.protocol_error("POST leads/complex: a field that the account has not");
                    return Err(item.error("NotSupportedChoice", path));
                }
            };
            let values = field["values"].as_array().into_iter().flatten();
            let values: Vec<FieldValue> = values
                .filter_map(|value| {
                    Some(FieldValue {
                        value: value["value"].as_str()?.to_owned(),
                        enum_code: Some(value["enum_code"].as_str().unwrap_or("WORK").to_owned()),
                    })
                })
                .collect();
            if values.is_empty() {
                let path = format!("{path}.custom_fields_values.{position}.values");
                return Err(item.error("TooFew", path));
            }
            fields.push(Field {
                name: if code == "EMAIL" {
                    "Email"
                } else {
                    "Телефон"
                }
                .to_owned(),
                code: Some(code.to_owned()),
                values,
            });
        }
        Ok(NewContact {
            name: contact["name"].as_str().unwrap_or_default().to_owned(),
            fields,
        })
    }

    fn check_note(&mut self, item: &Item<'_>, of: Option<DealId>) -> Result<Change, ItemError> {
        let Some(deal) = of.or(item.get("entity_id").as_i64().map(DealId::new)) else {
            self.protocol_error("POST leads/notes: an item without entity_id");
            return Err(item.error("NotBlank", "entity_id"));
        };
        if self.deal(deal).is_none_or(|known| known.is_deleted) {
            self.protocol_error(format!("POST leads/notes: lead {deal} does not exist"));
            return Err(item.error("NotSupportedChoice", "entity_id"));
        }
        let note_type = item.get("note_type").as_str().unwrap_or_default();
        let text = item.get("params")["text"].as_str().unwrap_or_default();
        if note_type != "common" {
            self.protocol_error(format!("POST leads/notes: note_type {note_type:?}"));
            return Err(item.error("NotSupportedChoice", "note_type"));
        }
        if text.trim().is_empty() {
            self.protocol_error("POST leads/notes: a note without text");
            return Err(item.error("NotBlank", "params.text"));
        }
        Ok(Change::Note {
            request_id: item.request_id().unwrap_or_else(|| item.index.to_string()),
            deal,
            note_type: note_type.to_owned(),
            text: text.to_owned(),
        })
    }
}
