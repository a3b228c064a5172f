//! Checks both sandboxes after the sync, and reports each violation in words.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    super::{
        ContactId, DealId, NoteId, World,
        amocrm::{Contact, Deal},
        postgrest::reference,
    },
    Expect, Scenario, Setting, Student,
};

impl Scenario {
    /// Every violation; none = each row is where it must be, and nothing else was touched.
    #[must_use]
    pub fn verify(&self) -> Vec<String> {
        let after = self.amo.world(|world| world.clone());
        let mut check = Check {
            scenario: self,
            after: &after,
            rows: self.rows(),
            marks: BTreeMap::new(),
            made: BTreeMap::new(),
            violations: Vec::new(),
        };
        check.read_notes();
        check.read_new_deals();
        for student in &self.students {
            check.student(student);
        }
        check.untouched_deals();
        check.untouched_contacts();
        check.violations
    }
}

struct Check<'a> {
    scenario: &'a Scenario,
    after: &'a World,
    rows: BTreeMap<String, Map<String, Value>>,
    /// Reference of a row → deals with a new note that contains it, one entry a note.
    marks: BTreeMap<String, Vec<DealId>>,
    /// Contact → deals made since, not deleted.
    made: BTreeMap<ContactId, Vec<DealId>>,
    violations: Vec<String>,
}

const REFERENCE: usize = 12;

impl Check<'_> {
    fn read_notes(&mut self) {
        let references: BTreeSet<String> = self
            .scenario
            .students
            .iter()
            .map(|it| reference(it.row))
            .collect();
        let before = &self.scenario.before.notes;
        for (id, note) in before {
            if self.after.notes.get(id) != Some(note) {
                let deal = note.deal;
                self.violations
                    .push(format!("note {id} on deal {deal} was changed"));
            }
        }
        let is_new = |id: &&NoteId| !before.contains_key(id);
        for id in self.after.notes.keys().filter(is_new) {
            let note = &self.after.notes[id];
            let found: BTreeSet<&str> = (0..note.text.len())
                .filter_map(|at| note.text.get(at..at + REFERENCE))
                .filter(|text| references.contains(*text))
                .collect();
            if found.is_empty() {
                let deal = note.deal;
                self.violations.push(format!(
                    "note {id} on deal {deal} has the reference of no row"
                ));
            }
            for reference in found {
                self.marks
                    .entry(reference.to_owned())
                    .or_default()
                    .push(note.deal);
            }
        }
    }

    fn read_new_deals(&mut self) {
        for deal in self.after.deals() {
            if self.scenario.before.deals.contains_key(&deal.id) {
                continue;
            }
            if deal.contacts.is_empty() {
                self.violations
                    .push(format!("deal {} was made for no contact", deal.id));
            }
            for contact in &deal.contacts {
                self.made.entry(*contact).or_default().push(deal.id);
            }
        }
    }

    fn student(&mut self, student: &Student) {
        let mut problems = Vec::new();
        let deal = match student.expect {
            Expect::Moved(deal) => {
                self.moved(deal, &mut problems);
                Some(deal)
            }
            Expect::Left(deal) => {
                // `untouched_deals` checks that the deal was not changed.
                Some(deal)
            }
            Expect::Created { contact } => self.created(student, contact, &mut problems),
            Expect::CreatedWithContact => self.created_with_contact(student, &mut problems),
            Expect::Waiting => None,
        };
        let was_expected = student.expect != Expect::Waiting;
        if deal.is_some() || !was_expected {
            self.row(student, deal, &mut problems);
            self.notes(student, deal, &mut problems);
        }
        let name = format!("row {} ({})", student.row, student.case);
        let told = problems
            .into_iter()
            .map(|problem| format!("{name}: {problem}"));
        self.violations.extend(told);
    }

    fn moved(&self, id: DealId, problems: &mut Vec<String>) {
        let Setting {
            pipeline, target, ..
        } = self.scenario.setting;
        let (Some(before), Some(after)) = (self.scenario.before.deal(id), self.after.deal(id))
        else {
            problems.push(format!("deal {id} is gone"));
            return;
        };
        if (after.pipeline, after.stage) != (pipeline, target) {
            let (pipeline, stage) = (after.pipeline, after.stage);
            problems.push(format!(
                "deal {id} stands on stage {stage} of pipeline {pipeline}, not on {target}"
            ));
        }
        let as_before = Deal {
            pipeline: before.pipeline,
            stage: before.stage,
            updated_at: before.updated_at,
            closed_at: before.closed_at,
            ..after.clone()
        };
        if as_before != *before {
            problems.push(format!("deal {id} was changed in more than its stage"));
        }
    }

    fn created(
        &self,
        student: &Student,
        contact: ContactId,
        problems: &mut Vec<String>,
    ) -> Option<DealId> {
        let made = self.made.get(&contact).map_or(&[][..], Vec::as_slice);
        let [id] = made else {
            let made = made.len();
            problems.push(format!(
                "{made} deals were made for contact {contact}, not one"
            ));
            return None;
        };
        let deal = self.after.deal(*id)?;
        let Setting {
            pipeline, target, ..
        } = self.scenario.setting;
        if (deal.pipeline, deal.stage) != (pipeline, target) {
            let (pipeline, stage) = (deal.pipeline, deal.stage);
            problems.push(format!(
                "deal {id} was made on stage {stage} of pipeline {pipeline}, not on {target}"
            ));
        }
        if deal.name != format!("Tripwire - {}", student.person.name) {
            problems.push(format!("deal {id} was made under another name"));
        }
        if Some(deal.price) != student.given["price"].as_i64() {
            problems.push(format!("deal {id} was made at the price {}", deal.price));
        }
        Some(*id)
    }

    fn created_with_contact(
        &self,
        student: &Student,
        problems: &mut Vec<String>,
    ) -> Option<DealId> {
        let contacts: Vec<&Contact> = self
            .after
            .contacts_with_email(&student.person.email)
            .collect();
        let [contact] = contacts.as_slice() else {
            problems.push(format!(
                "{} contacts have its e-mail, not one",
                contacts.len()
            ));
            return None;
        };
        if contact.name != student.person.name {
            problems.push(format!(
                "contact {} was made under another name",
                contact.id
            ));
        }
        self.created(student, contact.id, problems)
    }

    fn row(&self, student: &Student, deal: Option<DealId>, problems: &mut Vec<String>) {
        let Some(row) = self.rows.get(&student.row.to_string()) else {
            problems.push("the row is gone".to_owned());
            return;
        };
        let expected = deal.map_or(Value::Null, |deal| deal.to_string().into());
        if row["amocrm_deal_id"] != expected {
            problems.push(format!(
                "the row has deal id {}, not {expected}",
                row["amocrm_deal_id"]
            ));
        }
        let main_contact = deal
            .and_then(|deal| self.after.deal(deal)?.contacts.first().copied())
            .filter(|_| self.scenario.postgrest.has_column("amocrm_contact_id"));
        let expected = main_contact.map_or(Value::Null, |contact| contact.to_string().into());
        if row["amocrm_contact_id"] != expected {
            problems.push(format!(
                "the row has contact id {}, not {expected}",
                row["amocrm_contact_id"]
            ));
        }
        let ours = ["amocrm_deal_id", "amocrm_contact_id", "updated_at"];
        for (column, value) in student
            .given
            .iter()
            .filter(|(name, _)| !ours.contains(&name.as_str()))
        {
            if row.get(column) != Some(value) {
                problems.push(format!("the row's column {column} was changed"));
            }
        }
    }

    fn notes(&self, student: &Student, deal: Option<DealId>, problems: &mut Vec<String>) {
        let noted = self
            .marks
            .get(&reference(student.row))
            .map_or(&[][..], Vec::as_slice);
        let (right, wrong): (Vec<DealId>, Vec<DealId>) =
            noted.iter().partition(|id| Some(**id) == deal);
        if let Some(deal) = deal.filter(|_| right.len() != 1) {
            problems.push(format!(
                "deal {deal} has {} notes with its reference, not one",
                right.len()
            ));
        }
        for deal in wrong {
            problems.push(format!("its note is on deal {deal}"));
        }
    }

    /// Reports old deals that must not have been moved, and new ones that must not have been made.
    fn untouched_deals(&mut self) {
        let students = &self.scenario.students;
        let moved: BTreeSet<DealId> = students
            .iter()
            .filter_map(|student| match student.expect {
                Expect::Moved(deal) => Some(deal),
                Expect::Left(_)
                | Expect::Created { .. }
                | Expect::CreatedWithContact
                | Expect::Waiting => None,
            })
            .collect();
        let left: BTreeMap<DealId, &Student> = students
            .iter()
            .filter_map(|student| match student.expect {
                Expect::Left(deal) => Some((deal, student)),
                Expect::Moved(_)
                | Expect::Created { .. }
                | Expect::CreatedWithContact
                | Expect::Waiting => None,
            })
            .collect();
        for (id, before) in &self.scenario.before.deals {
            if moved.contains(id) || self.after.deals.get(id) == Some(before) {
                continue;
            }
            self.violations.push(match left.get(id) {
                Some(student) => format!(
                    "row {} ({}): deal {id} was to be left alone",
                    student.row, student.case
                ),
                None => format!("deal {id} was touched, and is nobody's"),
            });
        }
        let awaited = self.contacts_that_get_a_deal();
        for (contact, deals) in self.made.iter().filter(|(id, _)| !awaited.contains(*id)) {
            for deal in deals {
                self.violations.push(format!(
                    "deal {deal} was made for contact {contact}, who needs none"
                ));
            }
        }
    }

    fn contacts_that_get_a_deal(&self) -> BTreeSet<ContactId> {
        let mut awaited = BTreeSet::new();
        for student in &self.scenario.students {
            match student.expect {
                Expect::Created { contact } => {
                    awaited.insert(contact);
                }
                Expect::CreatedWithContact => {
                    let made = self.after.contacts_with_email(&student.person.email);
                    awaited.extend(made.map(|contact| contact.id));
                }
                Expect::Moved(_) | Expect::Left(_) | Expect::Waiting => {}
            }
        }
        awaited
    }

    /// Reports changes to old contacts other than a new deal, and new contacts where none was missing.
    fn untouched_contacts(&mut self) {
        let awaited = self.contacts_that_get_a_deal();
        for (id, after) in &self.after.contacts {
            match self.scenario.before.contacts.get(id) {
                None if awaited.contains(id) => {}
                None => self
                    .violations
                    .push(format!("contact {id} was made, and nobody needs it")),
                Some(before) => {
                    let mut as_before = after.clone();
                    as_before.deals.clone_from(&before.deals);
                    if as_before != *before {
                        self.violations.push(format!("contact {id} was touched"));
                    }
                }
            }
        }
    }
}
