//! The bulk writes: what they do once nothing is wrong with them, and what is answered.

use serde_json::{Value, json};

use crate::{ContactId, DealId, PipelineId, StageId};

use super::{
    super::server::Reply,
    answer::{deals_not_found, hal},
    records::Deal,
    world::World,
    write::{Change, NewContact, NewDeal, Write},
};

impl World {
    pub(super) fn apply(&mut self, write: Write, changes: Vec<Change>) -> Reply {
        let mut answers = Vec::new();
        let mut missing = Vec::new();
        for change in changes {
            match change {
                Change::Update {
                    id,
                    target,
                    name,
                    price,
                } => match self.apply_update(id, target, name, price) {
                    Some(answer) => answers.push(answer),
                    None => missing.push(id),
                },
                Change::Create {
                    request_id,
                    deal,
                    contact,
                    is_complex,
                } => answers.push(self.apply_create(&request_id, deal, contact, is_complex)),
                Change::Note {
                    request_id,
                    deal,
                    note_type,
                    text,
                } => {
                    let text = if self.quirks.trims_notes {
                        text.trim()
                    } else {
                        &text
                    };
                    let id = self.add_note(deal, &note_type, text);
                    answers.push(json!({
                        "id": id, "entity_id": deal, "request_id": request_id,
                        "_links": self.link_to("leads/notes", id.get()),
                    }));
                }
            }
        }
        if !missing.is_empty() {
            return deals_not_found(self.quirks.unknown_deal_status, &missing);
        }
        let answers = self.shuffled(answers);
        let kind = match write {
            Write::UpdateDeals | Write::CreateDeals => "leads",
            Write::AddNotes { .. } => "notes",
            Write::CreateComplex if self.quirks.complex_wrapped => "leads",
            Write::CreateComplex => return hal(200, &answers.into()),
        };
        hal(
            200,
            &json!({"_links": {"self": {"href": self.base_url}}, "_embedded": {kind: answers}}),
        )
    }

    fn apply_update(
        &mut self,
        id: DealId,
        target: Option<(PipelineId, StageId)>,
        name: Option<String>,
        price: Option<i64>,
    ) -> Option<Value> {
        let (pipeline, stage) = match target {
            Some(target) => target,
            None => self.deal(id).map(|deal| (deal.pipeline, deal.stage))?,
        };
        self.move_deal(id, pipeline, stage)?;
        let updated_at = self.set_deal(id, |deal| {
            deal.name = name.unwrap_or_else(|| std::mem::take(&mut deal.name));
            deal.price = price.unwrap_or(deal.price);
            deal.updated_at
        })?;
        Some(json!({
            "id": id, "updated_at": updated_at.as_second(), "_links": self.link_to("leads", id.get()),
        }))
    }

    fn apply_create(
        &mut self,
        request_id: &str,
        new: NewDeal,
        contact: Option<NewContact>,
        is_complex: bool,
    ) -> Value {
        if is_complex
            && self.quirks.duplicate_control
            && let Some((deal, contact)) = self.duplicate_of(&new, contact.as_ref())
        {
            return json!({
                "id": deal, "contact_id": contact, "company_id": null, "request_id": [request_id], "merged": true,
            });
        }
        let mut contacts = new.contacts;
        if let Some(contact) = contact {
            let lag = self.quirks.index_lag;
            contacts.insert(0, self.insert_contact(&contact.name, contact.fields, lag));
        }
        let now = self.now();
        let main_contact = contacts.first().copied();
        let (pipeline, stage) = new.target;
        let id = self.insert_deal(Deal {
            id: DealId::new(0),
            name: new.name.unwrap_or_else(|| "Сделка".to_owned()),
            price: new.price,
            pipeline,
            stage,
            contacts,
            tags: new.tags,
            created_at: now,
            updated_at: now,
            closed_at: stage.is_closed().then_some(now),
            is_deleted: false,
        });
        if is_complex {
            return json!({
                "id": id, "contact_id": main_contact, "company_id": null, "request_id": [request_id], "merged": false,
            });
        }
        json!({"id": id, "request_id": request_id, "_links": self.link_to("leads", id.get())})
    }

    /// Duplicate control: an open deal of the pipeline whose main contact has the e-mail.
    fn duplicate_of(
        &self,
        new: &NewDeal,
        contact: Option<&NewContact>,
    ) -> Option<(DealId, ContactId)> {
        let email = contact?
            .fields
            .iter()
            .find(|field| field.code.as_deref() == Some("EMAIL"))?
            .values
            .first()?;
        let known = self.contacts_with_email(&email.value).next()?;
        let found = self.deals().find(|deal| {
            deal.contacts.first() == Some(&known.id)
                && deal.pipeline == new.target.0
                && !deal.stage.is_closed()
        })?;
        Some((found.id, known.id))
    }
}
