//! What would become of rows: real reads, the rules of `sync`, and what the rows before them would have changed.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    amocrm::{AmoCrm, AmoError, Contact, Deal, Pipeline, Target},
    cli::{CommandError, backfill::patiently, clock},
    domain::{ContactId, DealId, Email, MissingContact, Phone, RowId, StageId},
    inbox::{Inbox, Known, Outcome, Progress, Settlement},
    supabase::{Row, Supabase, SupabaseError},
    sync::{
        Settings,
        decide::{Decision, Placement, Situation, Why, decide, placement},
        schedule::Tempo,
        triage::{self, RowRules, Sight, Triage, triage},
    },
};

/// What would be done for one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Would {
    Move {
        deal: DealId,
        from: StageId,
        to: StageId,
        why: Why,
    },
    /// `None`: a deal that would be made for an earlier row.
    Leave {
        deal: Option<DealId>,
        at: StageId,
        why: Why,
    },
    Create {
        contact: ContactId,
    },
    CreateWithContact,
    /// An earlier attempt has written to amoCRM: it is gone on with.
    Finish {
        deal: Option<DealId>,
    },
    Wait,
    Park {
        reason: String,
    },
    End(Outcome),
}

impl Would {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Move { .. } => "move",
            Self::Leave { .. } => "leave",
            Self::Create { .. } => "create",
            Self::CreateWithContact => "create_with_contact",
            Self::Finish { .. } => "finish",
            Self::Wait => "wait",
            Self::Park { .. } => "park",
            Self::End(outcome) => crate::cli::backfill::progress::outcome_name(*outcome),
        }
    }

    pub(super) fn as_value(&self) -> Value {
        let mut value = json!({ "would": self.name() });
        match self {
            Self::Move {
                deal,
                from,
                to,
                why,
            } => {
                value["deal"] = json!(deal);
                value["from"] = json!(from);
                value["to"] = json!(to);
                value["why"] = json!(why.to_string());
            }
            Self::Leave { deal, at, why } => {
                value["deal"] = json!(deal);
                value["at"] = json!(at);
                value["why"] = json!(why.to_string());
            }
            Self::Create { contact } => value["contact"] = json!(contact),
            Self::Finish { deal } => value["deal"] = json!(deal),
            Self::Park { reason } => value["reason"] = json!(reason),
            Self::CreateWithContact | Self::Wait | Self::End(_) => {}
        }
        value
    }
}

/// A row whose deal is to be found.
struct Candidate {
    at: usize,
    row: Row,
    email: Email,
    contacts: Vec<Contact>,
    recorded: Option<Known>,
}

impl Candidate {
    /// Of what a search found, those with the very address.
    fn take(&mut self, hits: Vec<Contact>) {
        for hit in hits {
            if hit.emails.contains(&self.email) && self.contacts.iter().all(|it| it.id != hit.id) {
                self.contacts.push(hit);
            }
        }
    }
}

pub(super) struct Foresight {
    amocrm: AmoCrm,
    supabase: Supabase,
    inbox: Option<Inbox>,
    pipeline: Pipeline,
    rows: RowRules,
    settings: Settings,
    earlier: Earlier,
}

impl Foresight {
    pub(super) fn new(
        amocrm: AmoCrm,
        supabase: Supabase,
        inbox: Option<Inbox>,
        pipeline: Pipeline,
        rows: RowRules,
        settings: Settings,
    ) -> Self {
        Self {
            amocrm,
            supabase,
            inbox,
            pipeline,
            rows,
            earlier: Earlier::new(settings.rules.target),
            settings,
        }
    }

    pub(super) fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// In the order of `rows`.
    pub(super) async fn of(&mut self, rows: &[RowId]) -> Result<Vec<(RowId, Would)>, CommandError> {
        let mut foreseen: Vec<(RowId, Would)> = Vec::new();
        let mut candidates = Vec::new();
        let mut read = self.read_rows(rows).await?;
        for (at, id) in rows.iter().enumerate() {
            let would = match read.remove(id) {
                None => Would::End(Outcome::Gone),
                Some(None) => Would::Wait,
                Some(Some(row)) => match self.look_at(&row).await? {
                    Ok(email) => {
                        candidates.push(Candidate {
                            at,
                            row,
                            email,
                            contacts: Vec::new(),
                            recorded: None,
                        });
                        Would::Wait
                    }
                    Err(would) => would,
                },
            };
            foreseen.push((*id, would));
        }
        self.recall(&mut candidates).await?;
        let mut decidable = Vec::new();
        for mut candidate in candidates {
            match self.find_contacts(&mut candidate).await? {
                None => decidable.push(candidate),
                Some(would) => foreseen[candidate.at].1 = would,
            }
        }
        let deals = self.read_deals(&decidable).await?;
        for candidate in decidable {
            let would = self.decide(&candidate, &deals);
            foreseen[candidate.at].1 = would;
        }
        Ok(foreseen)
    }

    /// Asks again for those missing, since an answer may be cut short. `None`: too large to be read.
    async fn read_rows(&self, ids: &[RowId]) -> Result<HashMap<RowId, Option<Row>>, CommandError> {
        let mut rows = HashMap::new();
        let mut lists = vec![ids.to_vec()];
        while let Some(mut left) = lists.pop() {
            if left.is_empty() {
                continue;
            }
            let read = patiently(SupabaseError::disposition, async || {
                self.supabase.rows(&left).await
            });
            match (read.await, left.as_slice()) {
                (Ok(read), _) if read.rows.is_empty() => {}
                (Ok(read), _) => {
                    rows.extend(read.rows.into_iter().map(|row| (row.id, Some(row))));
                    left.retain(|id| !rows.contains_key(id));
                    lists.push(left);
                }
                (Err(SupabaseError::TooLarge), [one]) => {
                    rows.insert(*one, None);
                }
                (Err(SupabaseError::TooLarge), several) => {
                    let (one, other) = several.split_at(several.len() / 2);
                    lists.extend([one.to_vec(), other.to_vec()]);
                }
                (Err(error), _) => return Err(error.into()),
            }
        }
        Ok(rows)
    }

    /// What the row itself, and what was begun for it, say already.
    async fn look_at(&self, row: &Row) -> Result<Result<Email, Would>, CommandError> {
        let entry = match &self.inbox {
            Some(inbox) => inbox.entry(row.id).await?,
            None => None,
        };
        let now = clock().now();
        let mut progress: Progress = entry.map(|entry| entry.progress).unwrap_or_default();
        let known = triage::Known {
            is_asked_for: true,
            stored_at: now,
        };
        // It will have settled by the time it is synced.
        let rules = RowRules {
            settle_delay: std::time::Duration::ZERO,
            ..self.rows
        };
        let sight = Sight::Present { row, read_at: now };
        let triage = triage(&rules, &Tempo::default(), known, &mut progress, sight, now);
        Ok(match triage {
            Triage::Proceed(_) if progress.has_written() => Err(Would::Finish {
                deal: progress.choice.and_then(|choice| choice.deal),
            }),
            Triage::Proceed(email) => Ok(email),
            Triage::End(Settlement::Done(outcome)) => Err(Would::End(outcome)),
            Triage::End(Settlement::Parked { reason }) => Err(Would::Park { reason }),
            Triage::End(Settlement::Again { .. } | Settlement::Waiting { .. }) => Err(Would::Wait),
            Triage::Unclear(reason) => Err(Would::Park {
                reason: reason.to_owned(),
            }),
        })
    }

    /// The contacts that we used for these people before.
    async fn recall(&self, candidates: &mut [Candidate]) -> Result<(), CommandError> {
        let Some(inbox) = &self.inbox else {
            return Ok(());
        };
        let hash = |candidate: &Candidate| inbox.hasher().email(&candidate.email);
        let known = inbox.people(candidates.iter().map(hash).collect()).await?;
        let ids: HashSet<ContactId> = known.values().map(|known| known.contact).collect();
        let ids: Vec<ContactId> = ids.into_iter().collect();
        let contacts = patiently(AmoError::disposition, async || {
            self.amocrm.all_contacts(&ids).await
        })
        .await?;
        for candidate in candidates {
            candidate.recorded = known.get(&hash(candidate)).copied();
            let contact = candidate
                .recorded
                .and_then(|known| contacts.get(&known.contact));
            // One found by phone has no e-mail to compare.
            candidate.contacts.extend(
                contact
                    .filter(|it| !it.has_email || it.emails.contains(&candidate.email))
                    .cloned(),
            );
        }
        Ok(())
    }

    /// `None`: there are some.
    async fn find_contacts(
        &mut self,
        candidate: &mut Candidate,
    ) -> Result<Option<Would>, CommandError> {
        let found = patiently(AmoError::disposition, async || {
            self.amocrm.search_email(&candidate.email).await
        })
        .await?;
        candidate.take(found.hits);
        if !candidate.contacts.is_empty() || self.earlier.people.contains_key(&candidate.email) {
            return Ok(None);
        }
        if !found.complete {
            let reason = "поиск контакта обрезан: похожих слишком много".to_owned();
            return Ok(Some(Would::Park { reason }));
        }
        if !found.unreadable.is_none() {
            let reason = "ответ amoCRM не читается: контакт из поиска".to_owned();
            return Ok(Some(Would::Park { reason }));
        }
        let phone = candidate.row.phone.as_deref().and_then(Phone::parse);
        if let Some(phone) = phone {
            let found = self.search(phone.as_str()).await?;
            let mut same: Vec<Contact> = found
                .hits
                .into_iter()
                .filter(|hit| !hit.has_email && hit.phones.contains(&phone))
                .collect();
            if found.complete && same.len() == 1 {
                candidate.contacts.append(&mut same);
                return Ok(None);
            }
            if !found.complete {
                return Ok(Some(Would::Wait));
            }
        }
        if self.settings.missing_contact == MissingContact::Wait {
            return Ok(Some(Would::Wait));
        }
        let found = patiently(AmoError::disposition, async || {
            self.amocrm.search_beginning(&candidate.email).await
        })
        .await?;
        candidate.take(found.hits);
        if !candidate.contacts.is_empty() {
            return Ok(None);
        }
        self.earlier
            .made_with_contact(&candidate.email, clock().now());
        Ok(Some(Would::CreateWithContact))
    }

    async fn search(&self, text: &str) -> Result<crate::amocrm::Search, CommandError> {
        let found = patiently(AmoError::disposition, async || {
            self.amocrm.search_contacts(text).await
        });
        Ok(found.await?)
    }

    async fn read_deals(
        &self,
        candidates: &[Candidate],
    ) -> Result<HashMap<DealId, Deal>, CommandError> {
        let of_contacts = candidates.iter().flat_map(|it| {
            it.contacts
                .iter()
                .flat_map(|contact| &contact.deals)
                .copied()
        });
        let recorded = candidates.iter().filter_map(|it| Some(it.recorded?.deal));
        let ids: HashSet<DealId> = of_contacts.chain(recorded).collect();
        let ids: Vec<DealId> = ids.into_iter().collect();
        let deals = patiently(AmoError::disposition, async || {
            self.amocrm.all_deals(&ids).await
        });
        Ok(deals.await?.items)
    }

    fn decide(&mut self, candidate: &Candidate, read: &HashMap<DealId, Deal>) -> Would {
        let now = clock().now();
        let mut contacts: Vec<ContactId> = candidate.contacts.iter().map(|it| it.id).collect();
        let recorded = self.earlier.people.get(&candidate.email).copied();
        let recorded = recorded.or(candidate.recorded);
        let made = recorded.filter(|known| known.contact.get() < 0);
        contacts.extend(made.map(|known| known.contact));
        let known_deals = candidate
            .contacts
            .iter()
            .flat_map(|contact| contact.deals.iter().copied())
            .chain(recorded.map(|known| known.deal));
        let ids: HashSet<DealId> = known_deals.collect();
        let deals: Vec<Deal> = ids
            .iter()
            .filter_map(|id| read.get(id))
            .map(|deal| self.earlier.as_it_would_stand(deal))
            .chain(self.earlier.made_for(&contacts))
            .collect();
        let situation = Situation {
            contacts: &contacts,
            deals: &deals,
            recorded: recorded.map(|known| known.deal),
            row_created_at: candidate.row.created_at.unwrap_or(now),
        };
        let target = self.settings.rules.target;
        match decide(&self.settings.rules, &situation) {
            Decision::Use { deal: id, why } => {
                let Some(deal) = deals.iter().find(|deal| deal.id == id) else {
                    return Would::Wait;
                };
                let contact = deal.main_contact.or(contacts.first().copied());
                self.earlier.used(&candidate.email, contact, id);
                match placement(target, &self.pipeline, deal) {
                    Placement::Move => {
                        self.earlier.moved.insert(id, now);
                        Would::Move {
                            deal: id,
                            from: deal.stage,
                            to: target.stage,
                            why,
                        }
                    }
                    Placement::Leave => Would::Leave {
                        deal: Some(id).filter(|id| id.get() > 0),
                        at: deal.stage,
                        why,
                    },
                }
            }
            Decision::Create => {
                let newest = candidate.contacts.iter();
                let newest = newest.max_by_key(|contact| (contact.updated_at, contact.id));
                let Some(contact) = newest.map(|contact| contact.id) else {
                    return Would::Wait;
                };
                self.earlier.made(&candidate.email, contact, now);
                Would::Create { contact }
            }
        }
    }
}

/// What the rows looked at before would have changed by the time of the next. What would be made has an id below zero.
struct Earlier {
    target: Target,
    moved: HashMap<DealId, Timestamp>,
    deals: Vec<Deal>,
    people: HashMap<Email, Known>,
}

impl Earlier {
    fn new(target: Target) -> Self {
        Self {
            target,
            moved: HashMap::new(),
            deals: Vec::new(),
            people: HashMap::new(),
        }
    }

    fn used(&mut self, email: &Email, contact: Option<ContactId>, deal: DealId) {
        if let Some(contact) = contact {
            self.people.insert(email.clone(), Known { contact, deal });
        }
    }

    fn made_with_contact(&mut self, email: &Email, now: Timestamp) {
        let contact = ContactId::new(self.next_id());
        self.made(email, contact, now);
    }

    fn made(&mut self, email: &Email, contact: ContactId, now: Timestamp) {
        let deal = Deal {
            id: DealId::new(self.next_id()),
            name: String::new(),
            pipeline: self.target.pipeline,
            stage: self.target.stage,
            created_at: now,
            updated_at: now,
            closed_at: self.target.stage.is_closed().then_some(now),
            is_deleted: false,
            contacts: vec![contact],
            main_contact: Some(contact),
        };
        self.used(email, Some(contact), deal.id);
        self.deals.push(deal);
    }

    fn next_id(&self) -> i64 {
        -1 - i64::try_from(self.deals.len()).unwrap_or(i64::MAX - 1)
    }

    fn made_for(&self, contacts: &[ContactId]) -> Vec<Deal> {
        let made = self.deals.iter();
        made.filter(|deal| deal.contacts.iter().any(|it| contacts.contains(it)))
            .cloned()
            .collect()
    }

    fn as_it_would_stand(&self, deal: &Deal) -> Deal {
        let Some(&at) = self.moved.get(&deal.id) else {
            return deal.clone();
        };
        Deal {
            stage: self.target.stage,
            updated_at: at,
            closed_at: self.target.stage.is_closed().then_some(at),
            ..deal.clone()
        }
    }
}
