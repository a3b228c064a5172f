//! amoCRM's answers: hal+json for what is there, problem+json for what is not, HTML where a gateway speaks.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::DealId;

use super::{
    super::server::Reply,
    records::{Contact, Deal, Field, Note, Pipeline},
    world::World,
};

pub(super) fn hal(status: u16, body: &Value) -> Reply {
    Reply::new(status, "application/hal+json", body.to_string())
}

pub(super) fn nothing() -> Reply {
    Reply::empty(204)
}

/// An error of the API itself. Titles are English, details are in the account's language.
pub(super) fn problem(status: u16, title: &str, detail: &str) -> Reply {
    problem_with(status, title, detail, json!({}))
}

fn problem_with(status: u16, title: &str, detail: &str, mut body: Value) -> Reply {
    body["title"] = title.into();
    body["type"] = format!("https://httpstatus.es/{status}").into();
    body["status"] = status.into();
    body["detail"] = detail.into();
    Reply::new(status, "application/problem+json", body.to_string())
}

/// The first item's field has a value that the account does not offer.
pub(super) fn not_a_choice(status: u16, field: &str) -> Reply {
    let error = json!({"code": "NotSupportedChoice", "path": field});
    let body = json!({"validation-errors": [{"request_id": "0", "errors": [error]}]});
    problem_with(status, "Bad Request", "Request validation failed", body)
}

/// What is wrong with one item of a bulk write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ItemError {
    pub(super) index: usize,
    /// The client's own, if it sent one.
    pub(super) request_id: Option<String>,
    pub(super) code: &'static str,
    pub(super) path: String,
}

pub(super) fn validation(errors: &[ItemError]) -> Reply {
    let items: Vec<Value> = errors
        .iter()
        .map(|error| {
            let request_id = error
                .request_id
                .clone()
                .unwrap_or_else(|| error.index.to_string());
            let detail = match error.code {
                "NotSupportedChoice" => "Выбранное значение недопустимо.",
                "FieldNotExpected" => "Поле не ожидалось.",
                _ => "Значение недопустимо.",
            };
            json!({"request_id": request_id, "errors": [
                {"code": error.code, "path": error.path, "detail": detail}]})
        })
        .collect();
    problem_with(
        400,
        "Bad Request",
        "Request validation failed",
        json!({"validation-errors": items}),
    )
}

pub(super) fn deals_not_found(status: u16, ids: &[DealId]) -> Reply {
    let errors: serde_json::Map<String, Value> = ids
        .iter()
        .map(|id| (id.to_string(), "Lead not found".into()))
        .collect();
    Reply::new(
        status,
        "application/hal+json",
        json!({"errors": errors}).to_string(),
    )
}

fn seconds(at: Timestamp) -> Value {
    at.as_second().into()
}

fn link(href: &str) -> Value {
    json!({"self": {"href": href}})
}

impl World {
    pub(super) fn link_to(&self, kind: &str, id: i64) -> Value {
        link(&format!("{}/api/v4/{kind}/{id}", self.base_url))
    }

    pub(super) fn account_json(&self) -> Value {
        json!({
            "id": self.account_id, "name": "Школа «Песочница»", "subdomain": "sandbox", "current_user_id": 7_000_001,
            "country": "KZ", "currency": "KZT", "is_unsorted_on": true, "is_loss_reason_enabled": true,
            "is_api_filter_enabled": self.quirks.field_filter == super::FieldFilter::Works,
            "_links": link(&format!("{}/api/v4/account", self.base_url)),
        })
    }

    pub(super) fn pipeline_json(&self, pipeline: &Pipeline) -> Value {
        let stages: Vec<Value> = pipeline
            .stages
            .iter()
            .map(|stage| {
                json!({
                    "id": stage.id, "name": stage.name, "sort": stage.sort,
                    "is_editable": !stage.is_unsorted && !stage.id.is_closed(),
                    "pipeline_id": pipeline.id, "color": "#99ccff", "type": i32::from(stage.is_unsorted),
                    "account_id": self.account_id,
                })
            })
            .collect();
        let is_main = self.pipelines.first().map(|first| first.id) == Some(pipeline.id);
        json!({
            "id": pipeline.id, "name": pipeline.name, "sort": 1, "is_main": is_main, "is_unsorted_on": true,
            "is_archive": pipeline.is_archive, "account_id": self.account_id,
            "_links": self.link_to("leads/pipelines", pipeline.id.get()),
            "_embedded": {"statuses": stages},
        })
    }

    pub(super) fn contact_json(&self, contact: &Contact, with_leads: bool) -> Value {
        let mut embedded = json!({"tags": [], "companies": []});
        if with_leads {
            let keeps_deleted = self.quirks.keeps_deleted_ids;
            let is_shown =
                |id: &&DealId| keeps_deleted || self.deals.get(id).is_some_and(|it| !it.is_deleted);
            let leads: Vec<Value> = contact
                .deals
                .iter()
                .filter(is_shown)
                .take(self.quirks.embedded_leads_limit.unwrap_or(usize::MAX))
                .map(|id| json!({"id": id, "_links": self.link_to("leads", id.get())}))
                .collect();
            embedded["leads"] = leads.into();
        }
        let (first_name, last_name) = contact
            .name
            .split_once(' ')
            .unwrap_or((contact.name.as_str(), ""));
        json!({
            "id": contact.id, "name": contact.name, "first_name": first_name, "last_name": last_name,
            "responsible_user_id": 7_000_001, "group_id": 0, "created_by": 7_000_001, "updated_by": 0,
            "created_at": seconds(contact.created_at), "updated_at": seconds(contact.updated_at),
            "closest_task_at": null, "is_deleted": contact.is_deleted, "is_unsorted": false,
            "custom_fields_values": fields_json(&contact.fields), "account_id": self.account_id,
            "_links": self.link_to("contacts", contact.id.get()),
            "_embedded": embedded,
        })
    }

    pub(super) fn deal_json(&self, deal: &Deal, with_contacts: bool) -> Value {
        let tags: Vec<Value> = deal
            .tags
            .iter()
            .map(|name| json!({"id": 5, "name": name, "color": null}))
            .collect();
        let mut embedded = json!({"tags": tags, "companies": []});
        if with_contacts {
            let contacts: Vec<Value> = deal
                .contacts
                .iter()
                .enumerate()
                .map(|(index, id)| {
                    json!({"id": id, "is_main": index == 0, "_links": self.link_to("contacts", id.get())})
                })
                .collect();
            embedded["contacts"] = contacts.into();
        }
        json!({
            "id": deal.id, "name": deal.name, "price": deal.price, "responsible_user_id": 7_000_001,
            "group_id": 0, "status_id": deal.stage, "pipeline_id": deal.pipeline, "loss_reason_id": null,
            "created_by": 0, "updated_by": 0, "created_at": seconds(deal.created_at),
            "updated_at": seconds(deal.updated_at), "closed_at": deal.closed_at.map(seconds),
            "closest_task_at": null, "is_deleted": deal.is_deleted, "custom_fields_values": null,
            "score": null, "account_id": self.account_id, "labor_cost": null,
            "_links": self.link_to("leads", deal.id.get()),
            "_embedded": embedded,
        })
    }

    pub(super) fn note_json(&self, note: &Note) -> Value {
        let params = if note.note_type == "common" {
            json!({"text": note.text})
        } else {
            json!({"service": "Песочница", "text": note.text})
        };
        json!({
            "id": note.id, "entity_id": note.deal, "created_by": 0, "updated_by": 0,
            "created_at": seconds(note.created_at), "updated_at": seconds(note.created_at),
            "responsible_user_id": 7_000_001, "group_id": 0, "note_type": note.note_type, "params": params,
            "account_id": self.account_id, "_links": self.link_to("leads/notes", note.id.get()),
        })
    }
}

fn fields_json(fields: &[Field]) -> Value {
    if fields.is_empty() {
        return Value::Null;
    }
    let fields: Vec<Value> = fields
        .iter()
        .map(|field| {
            let (id, field_type) = match field.code.as_deref() {
                Some("EMAIL") => (1_103, "multitext"),
                Some("PHONE") => (1_101, "multitext"),
                _ => (1_205, "text"),
            };
            let values: Vec<Value> = field
                .values
                .iter()
                .map(|value| match &value.enum_code {
                    Some(code) => {
                        json!({"value": value.value, "enum_id": 2_201, "enum_code": code})
                    }
                    None => json!({"value": value.value}),
                })
                .collect();
            json!({
                "field_id": id, "field_name": field.name, "field_code": field.code,
                "field_type": field_type, "values": values,
            })
        })
        .collect();
    fields.into()
}
