//! The bodies of changes, their answers, and what amoCRM says when it rejects one.
//!
//! `request_id` is the item's position in the request: an echo that pairs answers with items (their order is not
//! promised). It is no idempotency key.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::{as_list, entries, number, number_if_any, number_in, told::Sent};
use crate::{DealId, ItemProblem, NewDeal, NewDealAndContact, NewNote, Problem, Target};

/// ```json
/// [{"id":901,"pipeline_id":31,"status_id":142}]
/// ```
/// Exactly these three members: an item without `id` would create a deal, and any further member would be changed too.
pub(crate) fn moved_deals(deals: &[DealId], target: Target) -> Value {
    let item = |id: &DealId| {
        json!({
            "id": id,
            "pipeline_id": target.pipeline,
            "status_id": target.stage,
        })
    };
    deals.iter().map(item).collect()
}

/// ```json
/// [{"name":"Course","pipeline_id":31,"status_id":142,"price":100,"request_id":"0",
///   "_embedded":{"contacts":[{"id":501,"is_main":true}]}}]
/// ```
pub(crate) fn created_deals(deals: &[NewDeal], target: Target) -> Value {
    let items = deals.iter().enumerate();
    items
        .map(|(position, deal)| {
            let contact = json!({"id": deal.contact, "is_main": true});
            created_deal(position, &deal.name, deal.price, target, &contact)
        })
        .collect()
}

/// As [`created_deals`], with a contact that does not exist yet:
///
/// ```json
/// {"name":"Bo Ray","custom_fields_values":[
///   {"field_code":"EMAIL","values":[{"value":"bo@x.org","enum_code":"WORK"}]}]}
/// ```
pub(crate) fn created_with_contacts(deals: &[NewDealAndContact], target: Target) -> Value {
    let field = |code: &str, value: &str| {
        json!({
            "field_code": code,
            "values": [{"value": value, "enum_code": "WORK"}],
        })
    };
    let items = deals.iter().enumerate();
    items
        .map(|(position, deal)| {
            let email = field("EMAIL", deal.email.as_str());
            let phone = deal.phone.as_deref().map(str::trim);
            let phone = phone.filter(|phone| !phone.is_empty());
            let phone = phone.map(|phone| field("PHONE", phone));
            let fields: Value = std::iter::once(email).chain(phone).collect();
            let contact = json!({"name": deal.contact_name, "custom_fields_values": fields});
            created_deal(position, &deal.deal_name, deal.price, target, &contact)
        })
        .collect()
}

/// Never with `_embedded.metadata`: that would put the deal among the unsorted.
fn created_deal(
    position: usize,
    name: &str,
    price: Option<i64>,
    target: Target,
    contact: &Value,
) -> Value {
    let mut deal = json!({
        "name": name,
        "pipeline_id": target.pipeline,
        "status_id": target.stage,
        "request_id": position.to_string(),
        "_embedded": {"contacts": [contact]},
    });
    if let Some(price) = price {
        deal["price"] = price.into();
    }
    deal
}

/// ```json
/// [{"entity_id":901,"note_type":"common","params":{"text":"…"},"request_id":"0"}]
/// ```
pub(crate) fn added_notes(notes: &[NewNote]) -> Value {
    let items = notes.iter().enumerate();
    items
        .map(|(position, note)| {
            json!({
                "entity_id": note.deal,
                "note_type": "common",
                // amoCRM cuts outer spaces off; a later comparison should not depend on it.
                "params": {"text": note.text.trim()},
                "request_id": position.to_string(),
            })
        })
        .collect()
}

/// ```json
/// {"_embedded":{"leads":[{"id":901,"updated_at":1760000900}]},"errors":{"999":"Lead not found"}}
/// ```
#[derive(Debug, Deserialize)]
pub(crate) struct MovedDeals {
    #[serde(rename = "_embedded")]
    embedded: Option<Value>,
    errors: Option<Value>,
}

impl MovedDeals {
    /// In the order of the request. `None`: neither moved deals nor errors were answered.
    pub(crate) fn in_order(self, deals: &[DealId]) -> Option<Vec<Option<DealId>>> {
        if self.embedded.is_none() && self.errors.is_none() {
            return None;
        }
        let embedded = self.embedded.unwrap_or_default();
        let leads = embedded.get("leads").into_iter().flat_map(entries);
        let moved: Vec<i64> = leads
            .filter_map(|lead| number_in(lead.get("id")?))
            .collect();
        let answer = |deal: &DealId| moved.contains(&deal.get()).then_some(*deal);
        Some(deals.iter().map(answer).collect())
    }
}

/// One item of the answer to a create.
#[derive(Debug, Deserialize)]
pub(crate) struct Made {
    #[serde(deserialize_with = "number")]
    pub(crate) id: i64,
    #[serde(default, deserialize_with = "number_if_any")]
    pub(crate) contact_id: Option<i64>,
    /// Several positions when amoCRM has glued deals that we sent apart.
    #[serde(default, deserialize_with = "positions")]
    request_id: Vec<usize>,
}

/// The answers to `count` creates, in the order of the request. `lists` are the places (JSON pointers) where the list may
/// stand. An item that cannot be read, or of which `read` makes nothing, counts as not answered. `None`: there is no list.
///
/// ```json
/// {"_embedded":{"leads":[{"id":903,"request_id":"0"}]}}
/// ```
/// ```json
/// {"_embedded":{"notes":[{"id":77,"entity_id":901,"request_id":"0"}]}}
/// ```
/// For deals with contacts a bare list, in some descriptions wrapped like other answers:
///
/// ```json
/// [{"id":903,"contact_id":502,"company_id":null,"request_id":["0"],"merged":false}]
/// ```
pub(crate) fn made<T: Clone>(
    answer: &Value,
    lists: &[&str],
    count: usize,
    read: impl Fn(&Made) -> Option<T>,
) -> Option<Vec<Option<T>>> {
    let list = lists.iter().find_map(|list| answer.pointer(list))?;
    let mut ordered = vec![None; count];
    for item in as_list(list)? {
        let Ok(item) = Made::deserialize(item) else {
            continue;
        };
        for position in &item.request_id {
            if let Some(slot @ None) = ordered.get_mut(*position) {
                *slot = read(&item);
            }
        }
    }
    Some(ordered)
}

/// A `request_id`: text, a number, or a list of them. Any other value pairs with no item.
fn positions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Array(several) => several.iter().filter_map(position).collect(),
        one => position(&one).into_iter().collect(),
    })
}

fn position(request_id: &Value) -> Option<usize> {
    match request_id {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => usize::try_from(number.as_u64()?).ok(),
        _ => None,
    }
}

/// The problem in a 4xx, in one of these shapes, or an empty one. The keys of `errors` are deals, or codes of amoCRM's.
///
/// ```json
/// {"validation-errors":[{"request_id":"0","errors":[
///    {"code":"NotSupportedChoice","path":"status_id","detail":"…"}]}],"title":"Bad Request","status":400}
/// ```
/// ```json
/// {"errors":{"999":"Lead not found"}}
/// ```
/// ```json
/// {"title":"Bad Request","detail":"Код ошибки 244","status":400}
/// ```
pub(crate) fn problem(body: &[u8], deals: &[DealId], sent: &impl Serialize) -> Problem {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Problem::default();
    };
    let sent = Sent::of(sent);
    let told = |value: Option<&Value>| match value {
        Some(Value::String(text)) => sent.without(text),
        Some(Value::Number(number)) => sent.without(&number.to_string()),
        _ => String::new(),
    };
    let mut items = Vec::new();
    for item in body.get("validation-errors").into_iter().flat_map(entries) {
        let index = item.get("request_id").and_then(position);
        let errors = item.get("errors").into_iter().flat_map(entries);
        items.extend(errors.map(|error| ItemProblem {
            index,
            code: word(error.get("code")),
            path: word(error.get("path")),
            detail: told(error.get("detail")),
        }));
    }
    let errors = body.get("errors").and_then(Value::as_object);
    items.extend(errors.into_iter().flatten().map(|(key, text)| {
        let id = key.parse().ok().map(DealId::new);
        let index = deals.iter().position(|deal| Some(*deal) == id);
        // Another long number may be a phone.
        let is_telling = index.is_some() || sent.without(key) == *key;
        ItemProblem {
            index,
            code: word(is_telling.then(|| Value::from(key.as_str())).as_ref()),
            path: String::new(),
            detail: told(Some(text)),
        }
    }));
    // Older parts of the API wrap what they say.
    let whole = body.get("response").unwrap_or(&body);
    let texts = ["detail", "error"].map(|field| told(whole.get(field)));
    let text = texts.into_iter().find(|text| !text.is_empty());
    let said = [told(whole.get("error_code")), text.unwrap_or_default()];
    let detail = said.join(" ").trim().to_owned();
    Problem { items, detail }
}

/// A code or a path. Anything that could be a value (it has other characters) is left out of errors and logs.
fn word(value: Option<&Value>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
    match value.and_then(Value::as_str) {
        Some(text) if text.len() <= 100 && text.chars().all(is_plain) => text.to_owned(),
        _ => "?".to_owned(),
    }
}
