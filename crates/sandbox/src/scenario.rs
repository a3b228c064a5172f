//! A scenario: one student of every kind, and what must have become of each.

mod mix;
mod people;
mod verify;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::{Span, Timestamp, ToSpan};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use serde_json::{Map, Value, json};
use uuid::Uuid;

pub use self::mix::IMPORT_DAY;
use self::people::Person;
use super::{AmoSandbox, ContactId, DealId, PipelineId, PostgrestSandbox, StageId, World};

/// What `AMOCRM_MISSING_CONTACT` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Wait,
    Create,
}

/// Where deals are to go, and where else they may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub pipeline: PipelineId,
    pub target: StageId,
    /// The school's own stages before the target, at least two.
    pub before: Vec<StageId>,
    /// Open stages after the target; none if the target is 142.
    pub beyond: Vec<StageId>,
    pub other_pipeline: PipelineId,
    pub other_stage: StageId,
    pub missing: Missing,
    /// So long ago the rows were inserted.
    pub rows_are_old: Duration,
}

impl Setting {
    /// Makes two pipelines; the target is the stage «Купил продукт».
    #[must_use]
    pub fn build(amo: &AmoSandbox) -> Self {
        amo.world(|world| {
            let names = ["Заявка", "Связались", "Купил продукт", "Учится"];
            let tripwire = world.add_pipeline("Tripwire", &names);
            let other = world.add_pipeline("Основной курс", &["Новая", "Переговоры"]);
            Self {
                pipeline: tripwire.id,
                target: tripwire.stages[2],
                before: tripwire.stages[..2].to_vec(),
                beyond: tripwire.stages[3..].to_vec(),
                other_pipeline: other.id,
                other_stage: other.stages[0],
                missing: Missing::Wait,
                rows_are_old: Duration::ZERO,
            }
        })
    }

    /// The same with 142 as the target: bought means won.
    #[must_use]
    pub fn targeting_won(self) -> Self {
        Self {
            target: StageId::WON,
            beyond: Vec::new(),
            ..self
        }
    }

    #[must_use]
    pub fn creating_missing(self) -> Self {
        Self {
            missing: Missing::Create,
            ..self
        }
    }

    /// The rows are older than a settle delay when they are told of.
    #[must_use]
    pub fn with_settled_rows(self) -> Self {
        Self {
            rows_are_old: Duration::from_mins(1),
            ..self
        }
    }

    /// Contacts with an open deal each that no row is about. Before [`Scenario::mixed`].
    pub fn add_crowd(&self, amo: &AmoSandbox, seed: u64, count: usize) {
        let mut rng = SmallRng::seed_from_u64(seed);
        amo.world(|world| {
            for number in 0..count {
                self.add_stranger(world, &mut rng, number);
            }
        });
    }

    fn add_stranger(&self, world: &mut World, rng: &mut SmallRng, number: usize) {
        let person = Person::invent(rng, "crowd", number);
        let contact = world.add_contact(&person.name, &[&person.email], &[&person.phone]);
        let long_ago = hours_before(world.now(), 300 * 24);
        world.set_contact(contact, |contact| {
            contact.created_at = long_ago;
            contact.updated_at = long_ago;
        });
        world.add_deal(&[contact], self.pipeline, self.before[0], "Заявка с сайта");
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = Case::ALL.to_vec();
        if self.beyond.is_empty() {
            cases.retain(|case| *case != Case::BeyondTarget);
        }
        cases
    }
}

/// A student's contact and deals before the sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Case {
    OpenBeforeTarget,
    OtherPipelineOnly,
    NoDeal,
    LostAndOpen,
    RecentlyLostOnly,
    RecentlyWonOnly,
    OldLostOnly,
    OnTarget,
    BeyondTarget,
    Lookalike,
    TwoContacts,
    DeletedDeal,
    MissingContact,
    PaddedEmail,
    /// Another row of an earlier student with an open deal: the same deal, another note.
    SecondRow,
}

impl Case {
    /// Every kind of student; [`Case::SecondRow`] is a kind of row.
    pub const ALL: [Self; 14] = [
        Self::OpenBeforeTarget,
        Self::OtherPipelineOnly,
        Self::NoDeal,
        Self::LostAndOpen,
        Self::RecentlyLostOnly,
        Self::RecentlyWonOnly,
        Self::OldLostOnly,
        Self::OnTarget,
        Self::BeyondTarget,
        Self::Lookalike,
        Self::TwoContacts,
        Self::DeletedDeal,
        Self::MissingContact,
        Self::PaddedEmail,
    ];
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenBeforeTarget => "open deal before the target",
            Self::OtherPipelineOnly => "deal in another pipeline only",
            Self::NoDeal => "no deal",
            Self::LostAndOpen => "recently lost deal beside an open one",
            Self::RecentlyLostOnly => "recently lost deal only",
            Self::RecentlyWonOnly => "recently won deal only",
            Self::OldLostOnly => "deal lost long ago only",
            Self::OnTarget => "deal on the target",
            Self::BeyondTarget => "deal beyond the target",
            Self::Lookalike => "lookalike e-mail found first",
            Self::TwoContacts => "two contacts, the deal on the second",
            Self::DeletedDeal => "deleted deal only",
            Self::MissingContact => "no contact",
            Self::PaddedEmail => "padded e-mail in mixed case",
            Self::SecondRow => "second row of the same student",
        })
    }
}

/// What must have become of a student.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// This deal stands on the target.
    Moved(DealId),
    /// This deal stands where it stood.
    Left(DealId),
    /// A deal was made for this contact.
    Created { contact: ContactId },
    /// A deal was made, and its contact too.
    CreatedWithContact,
    /// Nothing happened.
    Waiting,
}

/// A row and what is expected of it.
#[derive(Debug, Clone)]
pub struct Student {
    pub row: Uuid,
    pub case: Case,
    pub expect: Expect,
    /// As inserted.
    given: Map<String, Value>,
    /// The names of the deal and the contact, and the e-mail and phone by which they are found.
    person: Person,
}

/// A seeded mix of students in both sandboxes, and a copy of the account before the sync.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub setting: Setting,
    pub students: Vec<Student>,
    amo: AmoSandbox,
    postgrest: PostgrestSandbox,
    before: World,
}

impl Scenario {
    /// Every case in turn until there are `rows`, then shuffled; the rows are inserted last, created now.
    #[must_use]
    pub fn mixed(
        seed: u64,
        rows: usize,
        amo: &AmoSandbox,
        postgrest: &PostgrestSandbox,
        setting: &Setting,
    ) -> Self {
        let mut cases: Vec<Case> = setting.cases().into_iter().cycle().take(rows).collect();
        cases.shuffle(&mut SmallRng::seed_from_u64(seed));
        Self::of_cases(seed, cases, amo, postgrest, setting)
    }

    /// One row for each of these, in this order.
    #[must_use]
    pub fn of_cases(
        seed: u64,
        cases: impl IntoIterator<Item = Case>,
        amo: &AmoSandbox,
        postgrest: &PostgrestSandbox,
        setting: &Setting,
    ) -> Self {
        let cases = cases.into_iter().collect();
        Self::enrol_among(seed, cases, 0, amo, postgrest, setting)
    }

    fn enrol_among(
        seed: u64,
        cases: Vec<Case>,
        crowd: usize,
        amo: &AmoSandbox,
        postgrest: &PostgrestSandbox,
        setting: &Setting,
    ) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut students: Vec<Student> = amo.world(|world| {
            let mut enrolling = Enrolling {
                world,
                setting,
                rng: &mut rng,
                mover: None,
            };
            let rows = cases.len();
            let mut students = Vec::with_capacity(rows);
            for (number, case) in cases.into_iter().enumerate() {
                for stranger in crowd * number / rows..crowd * (number + 1) / rows {
                    setting.add_stranger(enrolling.world, enrolling.rng, stranger);
                }
                students.push(enrolling.enrol(case, number));
            }
            students
        });
        let before = amo.world(|world| world.clone());
        for student in &mut students {
            let given = std::mem::take(&mut student.given);
            student.row = postgrest.insert_row(&Value::Object(given));
            student.given = postgrest.row(student.row).unwrap_or_default();
        }
        Self {
            setting: setting.clone(),
            students,
            amo: amo.clone(),
            postgrest: postgrest.clone(),
            before,
        }
    }

    /// Students of one case.
    pub fn of(&self, case: Case) -> impl Iterator<Item = &Student> {
        self.students
            .iter()
            .filter(move |student| student.case == case)
    }

    /// How many rows that should have a deal's id have none yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        let rows: BTreeMap<String, Map<String, Value>> = self.rows();
        let awaited = self
            .students
            .iter()
            .filter(|it| it.expect != Expect::Waiting);
        awaited
            .filter(|it| {
                rows.get(&it.row.to_string())
                    .is_none_or(|row| row["amocrm_deal_id"].is_null())
            })
            .count()
    }

    fn rows(&self) -> BTreeMap<String, Map<String, Value>> {
        let rows = self.postgrest.rows().into_iter();
        rows.map(|row| (row["id"].as_str().unwrap_or_default().to_owned(), row))
            .collect()
    }
}

/// Builds one student's past.
struct Enrolling<'a> {
    world: &'a mut World,
    setting: &'a Setting,
    rng: &'a mut SmallRng,
    /// The last student with an open deal and without a second row.
    mover: Option<(Person, DealId)>,
}

impl Enrolling<'_> {
    fn enrol(&mut self, case: Case, number: usize) -> Student {
        let earlier = self.mover.take_if(|_| case == Case::SecondRow);
        let (person, expect) = if let Some((person, deal)) = earlier {
            (person, Expect::Moved(deal))
        } else {
            let person = Person::invent(self.rng, "student", number);
            let expect = self.build(case, &person);
            (person, expect)
        };
        if let (Case::OpenBeforeTarget, Expect::Moved(deal)) = (case, expect) {
            self.mover = Some((person.clone(), deal));
        }
        let id = uuid::Builder::from_random_bytes(self.rng.random()).into_uuid();
        let email = match case {
            Case::PaddedEmail => format!(" {} ", capitals(&person.email)),
            _ => person.email.clone(),
        };
        let mut row = json!({
            "id": id.to_string(), "email": email, "full_name": person.name, "phone": person.phone,
            "manager_name": "Гульнара Есенова",
        });
        if !self.setting.rows_are_old.is_zero() {
            let inserted_at = self.world.now() - self.setting.rows_are_old;
            row["created_at"] = json!(inserted_at.to_string());
        }
        Student {
            row: id,
            case,
            expect,
            given: row.as_object().cloned().unwrap_or_default(),
            person,
        }
    }

    fn build(&mut self, case: Case, person: &Person) -> Expect {
        let Setting {
            pipeline, target, ..
        } = *self.setting;
        let start = self.setting.before[0];
        if case == Case::MissingContact {
            return match self.setting.missing {
                Missing::Wait => Expect::Waiting,
                Missing::Create => Expect::CreatedWithContact,
            };
        }
        if case == Case::Lookalike {
            let other = self.contact("Жоанна Двойник", &format!("jo{}", person.email), 300.days());
            self.deal(other, pipeline, start, 20.days());
        }
        let email = match case {
            Case::PaddedEmail => format!("  {}", capitals(&person.email)),
            _ => person.email.clone(),
        };
        let contact = self.contact(&person.name, &email, 200.days());
        match case {
            Case::MissingContact | Case::NoDeal => Expect::Created { contact },
            Case::OpenBeforeTarget | Case::Lookalike | Case::PaddedEmail | Case::SecondRow => {
                Expect::Moved(self.deal(contact, pipeline, start, 3.days()))
            }
            Case::OtherPipelineOnly => {
                let Setting {
                    other_pipeline,
                    other_stage,
                    ..
                } = *self.setting;
                self.deal(contact, other_pipeline, other_stage, 3.days());
                Expect::Created { contact }
            }
            Case::LostAndOpen => {
                let open = self.deal(contact, pipeline, self.setting.before[1], 40.days());
                // This deal was changed last, and its id is higher: only its stage rules it out.
                self.deal(contact, pipeline, StageId::LOST, 2.days());
                Expect::Moved(open)
            }
            Case::RecentlyLostOnly => {
                Expect::Moved(self.deal(contact, pipeline, StageId::LOST, 30.days()))
            }
            Case::RecentlyWonOnly => {
                Expect::Left(self.deal(contact, pipeline, StageId::WON, 30.days()))
            }
            Case::OldLostOnly => {
                self.deal(contact, pipeline, StageId::LOST, 120.days());
                Expect::Created { contact }
            }
            Case::OnTarget => Expect::Left(self.deal(contact, pipeline, target, 3.days())),
            Case::BeyondTarget => {
                let beyond = self.setting.beyond.last().copied().unwrap_or(target);
                Expect::Left(self.deal(contact, pipeline, beyond, 3.days()))
            }
            Case::TwoContacts => {
                let second = self.contact(&person.name, &email, 100.days());
                Expect::Moved(self.deal(second, pipeline, start, 3.days()))
            }
            Case::DeletedDeal => {
                let deal = self.deal(contact, pipeline, start, 3.days());
                self.world.delete_deal(deal);
                Expect::Created { contact }
            }
        }
    }

    fn contact(&mut self, name: &str, email: &str, ago: Span) -> ContactId {
        let id = self.world.add_contact(name, &[email], &[]);
        let then = self.time(ago);
        self.world.set_contact(id, |contact| {
            contact.created_at = then;
            contact.updated_at = then;
        });
        id
    }

    /// Adds a deal that was last changed (and closed, if its stage is closed) so long `ago`.
    fn deal(
        &mut self,
        contact: ContactId,
        pipeline: PipelineId,
        stage: StageId,
        ago: Span,
    ) -> DealId {
        let id = self
            .world
            .add_deal(&[contact], pipeline, stage, "Заявка с сайта");
        let (then, before) = (self.time(ago), self.time(180.days()));
        self.world.set_deal(id, |deal| {
            deal.created_at = before;
            deal.updated_at = then;
            deal.closed_at = stage.is_closed().then_some(then);
        });
        id
    }

    fn time(&self, ago: Span) -> Timestamp {
        // Arithmetic on timestamps has no days, only hours.
        hours_before(self.world.now(), i64::from(ago.get_days()) * 24)
    }
}

fn hours_before(now: Timestamp, hours: i64) -> Timestamp {
    now.saturating_sub(hours.hours()).unwrap_or(Timestamp::MIN)
}

/// Every other letter.
fn capitals(email: &str) -> String {
    let letters = email.chars().enumerate();
    letters
        .map(|(at, c)| {
            if at % 2 == 0 {
                c.to_ascii_uppercase()
            } else {
                c
            }
        })
        .collect()
}
