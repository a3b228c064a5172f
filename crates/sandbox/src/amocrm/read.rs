//! The lists: filters, order, pages.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    ops::RangeInclusive,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{ContactId, DealId, NoteId, PipelineId};

use super::{
    super::server::{Reply, Request},
    FieldFilter,
    answer::{hal, nothing, problem},
    world::World,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OrderBy {
    Id,
    CreatedAt,
    UpdatedAt,
}

/// A list request, understood.
#[derive(Debug)]
struct List {
    query: Option<String>,
    ids: Vec<i64>,
    pipelines: Vec<PipelineId>,
    entities: Vec<DealId>,
    note_types: Vec<String>,
    created: RangeInclusive<i64>,
    updated: RangeInclusive<i64>,
    email_filter: Vec<String>,
    order: OrderBy,
    descending: bool,
    page: usize,
    limit: usize,
    with: Vec<String>,
    only_entity: Option<DealId>,
}

impl Default for List {
    fn default() -> Self {
        Self {
            query: None,
            ids: Vec::new(),
            pipelines: Vec::new(),
            entities: Vec::new(),
            note_types: Vec::new(),
            created: 0..=i64::MAX,
            updated: 0..=i64::MAX,
            email_filter: Vec::new(),
            order: OrderBy::Id,
            descending: false,
            page: 1,
            limit: 50,
            with: Vec::new(),
            only_entity: None,
        }
    }
}

/// `filter[id][]` and `filter[id][0]` are `filter[id]`.
fn plain_key(key: &str) -> &str {
    let index = key
        .strip_suffix(']')
        .and_then(|rest| rest.rsplit_once('['))
        .filter(|(_, index)| index.chars().all(|c| c.is_ascii_digit()));
    index.map_or(key, |(plain, _)| plain)
}

const CONTACTS: &[&str] = &[
    "query",
    "filter[id]",
    "filter[created_at][from]",
    "filter[created_at][to]",
    "filter[updated_at][from]",
    "filter[updated_at][to]",
    "order[id]",
    "order[updated_at]",
];
const DEALS: &[&str] = &[
    "filter[id]",
    "filter[pipeline_id]",
    "filter[created_at][from]",
    "filter[created_at][to]",
    "filter[updated_at][from]",
    "filter[updated_at][to]",
    "order[id]",
    "order[created_at]",
    "order[updated_at]",
];
const NOTES: &[&str] = &[
    "filter[id]",
    "filter[entity_id]",
    "filter[note_type]",
    "filter[updated_at][from]",
    "filter[updated_at][to]",
    "order[id]",
    "order[updated_at]",
];

impl World {
    pub(super) fn list_contacts(&mut self, request: &Request) -> Reply {
        let list = match self.understand(request, CONTACTS) {
            Ok(list) => list,
            Err(refusal) => return refusal,
        };
        let hits = list.query.as_deref().map(|query| self.search(query));
        let is_hit = |id: ContactId| {
            hits.as_ref()
                .is_none_or(|hits| hits.binary_search(&id).is_ok())
        };
        let found = named(&self.contacts, &list.ids, ContactId::new)
            .filter(|it| !it.is_deleted && is_hit(it.id))
            .filter(|it| list.is_within(it.created_at, it.updated_at))
            .filter(|it| {
                list.email_filter.is_empty()
                    || it
                        .emails()
                        .iter()
                        .any(|email| list.email_filter.iter().any(|f| f == email))
            })
            .map(|it| (it.id, it.created_at, it.updated_at));
        let window = list.window(found);
        let with_leads = list.with.iter().any(|with| with == "leads");
        let show = |world: &Self, id| {
            let contact = world.contacts.get(&id)?;
            Some(world.contact_json(contact, with_leads))
        };
        self.page(&list, request, "contacts", &window, show)
    }

    pub(super) fn list_deals(&mut self, request: &Request) -> Reply {
        let list = match self.understand(request, DEALS) {
            Ok(list) => list,
            Err(refusal) => return refusal,
        };
        let only_deleted = list.with.iter().any(|with| with == "only_deleted");
        let found = named(&self.deals, &list.ids, DealId::new)
            .filter(|it| it.is_deleted == only_deleted)
            .filter(|it| list.pipelines.is_empty() || list.pipelines.contains(&it.pipeline))
            .filter(|it| list.is_within(it.created_at, it.updated_at))
            .map(|it| (it.id, it.created_at, it.updated_at));
        let window = list.window(found);
        let with_contacts = list.with.iter().any(|with| with == "contacts");
        let show = |world: &Self, id| {
            let deal = world.deals.get(&id)?;
            Some(world.deal_json(deal, with_contacts))
        };
        self.page(&list, request, "leads", &window, show)
    }

    pub(super) fn list_notes(&mut self, of: Option<DealId>, request: &Request) -> Reply {
        let mut list = match self.understand(request, NOTES) {
            Ok(list) => list,
            Err(refusal) => return refusal,
        };
        list.only_entity = of;
        let found = named(&self.notes, &list.ids, NoteId::new)
            .filter(|it| list.only_entity.is_none_or(|deal| deal == it.deal))
            .filter(|it| list.entities.is_empty() || list.entities.contains(&it.deal))
            .filter(|it| list.note_types.is_empty() || list.note_types.contains(&it.note_type))
            .filter(|it| list.is_within(it.created_at, it.created_at))
            .map(|it| (it.id, it.created_at, it.created_at));
        let window = list.window(found);
        let show = |world: &Self, id| Some(world.note_json(world.notes.get(&id)?));
        self.page(&list, request, "notes", &window, show)
    }

    pub(super) fn list_pipelines(&self) -> Reply {
        let pipelines: Vec<Value> = self
            .pipelines
            .iter()
            .map(|pipeline| self.pipeline_json(pipeline))
            .collect();
        hal(
            200,
            &json!({"_total_items": pipelines.len(), "_links": {}, "_embedded": {"pipelines": pipelines}}),
        )
    }

    pub(super) fn one_pipeline(&self, id: i64) -> Reply {
        match self.pipeline(PipelineId::new(id)) {
            Some(pipeline) => hal(200, &self.pipeline_json(pipeline)),
            None => problem(404, "Not Found", "Pipeline not found"),
        }
    }

    pub(super) fn one_contact(&mut self, id: i64, request: &Request) -> Reply {
        let with_leads = request
            .param("with")
            .is_some_and(|with| with.contains("leads"));
        match self.contacts.get(&ContactId::new(id)) {
            Some(contact) if !contact.is_deleted => {
                hal(200, &self.contact_json(contact, with_leads))
            }
            _ => nothing(),
        }
    }

    pub(super) fn one_deal(&mut self, id: i64, request: &Request) -> Reply {
        let with_contacts = request
            .param("with")
            .is_some_and(|with| with.contains("contacts"));
        match self.deals.get(&DealId::new(id)) {
            Some(deal) if !deal.is_deleted => hal(200, &self.deal_json(deal, with_contacts)),
            _ => nothing(),
        }
    }

    /// Parses a list request. amoCRM ignores unknown parameters; the sandbox also records them as protocol errors.
    fn understand(&mut self, request: &Request, known: &[&str]) -> Result<List, Reply> {
        let mut list = List::default();
        let path = &request.path;
        for (key, value) in &request.query {
            let key = plain_key(key);
            if key.starts_with("filter[custom_fields_values]") {
                match self.quirks.field_filter {
                    FieldFilter::Works => list.email_filter.push(value.clone()),
                    FieldFilter::Ignored => {}
                    FieldFilter::Refused => {
                        let detail = "Invalid filter for current account";
                        return Err(problem(400, "Bad Request", detail));
                    }
                }
                continue;
            }
            let is_common = ["page", "limit", "with"].contains(&key);
            if (!is_common && !known.contains(&key)) || list.take(key, value).is_none() {
                self.protocol_error(format!("{path}: parameter {key} is unknown or malformed"));
            }
        }
        if list
            .query
            .as_deref()
            .is_some_and(|query| query.trim().is_empty())
        {
            self.protocol_error(format!("{path}: an empty query returns the whole account"));
            list.query = None;
        }
        if !self.quirks.time_filter {
            let any = List::default();
            (list.created, list.updated) = (any.created, any.updated);
        }
        if list.limit > 250 {
            self.protocol_error(format!("{path}: limit {} is above 250", list.limit));
            list.limit = 250;
        }
        if list.page == 1 && list.ids.len() > list.limit {
            let (ids, limit) = (list.ids.len(), list.limit);
            self.protocol_error(format!("{path}: {ids} ids, but a page of {limit}"));
        }
        Ok(list)
    }

    fn page<Id: Copy>(
        &self,
        list: &List,
        request: &Request,
        kind: &str,
        window: &[Id],
        show: impl Fn(&Self, Id) -> Option<Value>,
    ) -> Reply {
        let items: Vec<Value> = window
            .iter()
            .take(list.limit)
            .filter_map(|id| show(self, *id))
            .collect();
        if items.is_empty() {
            return nothing();
        }
        let has_more = window.len() > list.limit;
        let mut links = json!({"self": {"href": self.page_href(request, list.page)}});
        if has_more && !self.quirks.next_link_missing {
            links["next"] = json!({"href": self.page_href(request, list.page + 1)});
        }
        hal(
            200,
            &json!({"_page": list.page, "_links": links, "_embedded": {kind: items}}),
        )
    }

    fn page_href(&self, request: &Request, page: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(request.query.iter().filter(|(key, _)| key != "page"));
        query.append_pair("page", &page.to_string());
        format!("{}{}?{}", self.base_url, request.path, query.finish())
    }
}

/// The items with these ids, each once; without ids, all. With ids, the time does not depend on the size of the account.
fn named<'a, Id: Ord + Copy, T>(
    all: &'a BTreeMap<Id, T>,
    ids: &[i64],
    id: impl Fn(i64) -> Id,
) -> Box<dyn DoubleEndedIterator<Item = &'a T> + 'a> {
    if ids.is_empty() {
        return Box::new(all.values());
    }
    let ids: BTreeSet<Id> = ids.iter().map(|number| id(*number)).collect();
    Box::new(ids.into_iter().filter_map(|id| all.get(&id)))
}

impl List {
    /// `None`: malformed.
    fn take(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "query" => self.query = Some(value.to_owned()),
            "page" => self.page = value.parse().ok().filter(|page| *page > 0)?,
            "limit" => self.limit = value.parse().ok().filter(|limit| *limit > 0)?,
            "with" => self.with.extend(value.split(',').map(str::to_owned)),
            "filter[id]" => self.ids.push(value.parse().ok()?),
            "filter[pipeline_id]" => self.pipelines.push(PipelineId::new(value.parse().ok()?)),
            "filter[entity_id]" => self.entities.push(DealId::new(value.parse().ok()?)),
            "filter[note_type]" => self.note_types.push(value.to_owned()),
            "filter[created_at][from]" => {
                self.created = value.parse().ok()?..=*self.created.end();
            }
            "filter[created_at][to]" => {
                self.created = *self.created.start()..=value.parse().ok()?;
            }
            "filter[updated_at][from]" => {
                self.updated = value.parse().ok()?..=*self.updated.end();
            }
            "filter[updated_at][to]" => {
                self.updated = *self.updated.start()..=value.parse().ok()?;
            }
            "order[id]" => self.order_by(OrderBy::Id, value)?,
            "order[created_at]" => self.order_by(OrderBy::CreatedAt, value)?,
            "order[updated_at]" => self.order_by(OrderBy::UpdatedAt, value)?,
            _ => return None,
        }
        Some(())
    }

    fn order_by(&mut self, order: OrderBy, direction: &str) -> Option<()> {
        self.order = order;
        self.descending = match direction {
            "asc" => false,
            "desc" => true,
            _ => return None,
        };
        Some(())
    }

    /// The ids on the page, and one more if more follow. `found` is in the order of ids, so that a list in this order needs
    /// no sort of a large account.
    fn window<Id: Ord + Copy>(
        &self,
        found: impl DoubleEndedIterator<Item = (Id, Timestamp, Timestamp)>,
    ) -> Vec<Id> {
        let first = (self.page - 1).saturating_mul(self.limit);
        let cut =
            |ids: &mut dyn Iterator<Item = Id>| ids.skip(first).take(self.limit + 1).collect();
        if self.order == OrderBy::Id {
            let mut ids = found.map(|(id, ..)| id);
            return if self.descending {
                cut(&mut ids.rev())
            } else {
                cut(&mut ids)
            };
        }
        let dated = found.map(|(id, created_at, updated_at)| match self.order {
            OrderBy::CreatedAt => (created_at, id),
            OrderBy::Id | OrderBy::UpdatedAt => (updated_at, id),
        });
        let most = first.saturating_add(self.limit + 1);
        if self.descending {
            let dated = least(most, dated.rev().map(Reverse));
            cut(&mut dated.into_iter().map(|Reverse((_, id))| id))
        } else {
            cut(&mut least(most, dated).into_iter().map(|(_, id)| id))
        }
    }

    fn is_within(&self, created_at: Timestamp, updated_at: Timestamp) -> bool {
        self.created.contains(&created_at.as_second())
            && self.updated.contains(&updated_at.as_second())
    }
}

/// The `most` least, in order. A sort of a whole large account would delay the requests that follow.
fn least<T: Ord>(most: usize, all: impl Iterator<Item = T>) -> Vec<T> {
    let mut heap = BinaryHeap::new();
    for it in all {
        if heap.len() < most {
            heap.push(it);
        } else if let Some(mut greatest) = heap.peek_mut()
            && it < *greatest
        {
            *greatest = it;
        }
    }
    heap.into_sorted_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_least_are_the_first_of_all_in_order(all: Vec<u8>, most in 0_usize..20) {
            let mut sorted = all.clone();
            sorted.sort_unstable();
            sorted.truncate(most);
            proptest::prop_assert_eq!(least(most, all.into_iter()), sorted);
        }
    }
}
