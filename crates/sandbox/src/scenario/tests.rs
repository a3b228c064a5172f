//! Tests of the verifier: each violation is made once, and must be reported.

use super::{
    super::{AmoQuirks, Clock, PostgrestQuirks, Sandbox, postgrest::reference},
    *,
};

const ROWS: usize = 56;

fn scenario(change: impl FnOnce(Setting) -> Setting) -> Scenario {
    let clock = Clock::at("2026-11-22T10:00:00Z".parse().unwrap());
    let quirks = AmoQuirks::patient();
    let sandbox = Sandbox::start_with(quirks, PostgrestQuirks::default(), clock).unwrap();
    let setting = change(Setting::build(&sandbox.amo));
    setting.add_crowd(&sandbox.amo, 1, 10);
    sandbox.amo.world(|world| {
        let deal = world.deals().next().unwrap().id;
        world.add_note(deal, "common", "Перезвонить");
    });
    Scenario::mixed(7, ROWS, &sandbox.amo, &sandbox.postgrest, &setting)
}

impl Scenario {
    /// What a service without a fault would do.
    fn sync(&self) {
        for student in &self.students {
            self.sync_one(student);
        }
    }

    fn sync_one(&self, student: &Student) {
        let Setting {
            pipeline, target, ..
        } = self.setting;
        let deal = self.amo.world(|world| {
            let deal = match student.expect {
                Expect::Waiting => return None,
                Expect::Left(deal) => deal,
                Expect::Moved(deal) => {
                    world.move_deal(deal, pipeline, target).unwrap();
                    deal
                }
                Expect::Created { contact } => self.create(world, student, contact),
                Expect::CreatedWithContact => {
                    let Person { name, email, .. } = &student.person;
                    let contact = world.create_contact(name, &[email], &[]);
                    self.create(world, student, contact)
                }
            };
            let text = format!(
                "Логин: {}\n[ref {}]",
                student.person.email,
                reference(student.row)
            );
            world.add_note(deal, "common", &text);
            Some(deal)
        });
        if let Some(deal) = deal {
            let contact = self
                .amo
                .world(|world| world.deal(deal).unwrap().contacts[0]);
            self.patch(student, "amocrm_deal_id", deal.to_string().into());
            self.patch(student, "amocrm_contact_id", contact.to_string().into());
        }
    }

    fn create(&self, world: &mut World, student: &Student, contact: ContactId) -> DealId {
        let name = format!("Tripwire - {}", student.person.name);
        let deal = world.add_deal(
            &[contact],
            self.setting.pipeline,
            self.setting.target,
            &name,
        );
        world.set_deal(deal, |deal| deal.price = 5000).unwrap();
        deal
    }

    fn patch(&self, student: &Student, column: &str, value: Value) {
        let column = column.to_owned();
        self.postgrest
            .update_row(student.row, |row| row.insert(column, value))
            .unwrap();
    }

    fn first(&self, case: Case) -> &Student {
        self.of(case).next().unwrap()
    }

    fn expected_deal(&self, case: Case) -> DealId {
        match self.first(case).expect {
            Expect::Moved(deal) | Expect::Left(deal) => deal,
            other => panic!("{case}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn every_case_occurs_and_a_flawless_sync_is_found_flawless() {
    let settings: [fn(Setting) -> Setting; 3] =
        [|it| it, Setting::targeting_won, Setting::creating_missing];
    for setting in settings {
        let scenario = scenario(setting);
        for case in scenario.setting.cases() {
            assert!(
                scenario.of(case).count() >= ROWS / Case::ALL.len(),
                "{case}"
            );
        }
        let waiting = scenario
            .students
            .iter()
            .filter(|it| it.expect == Expect::Waiting)
            .count();
        assert_eq!(scenario.remaining(), ROWS - waiting);
        scenario.sync();
        assert_eq!(scenario.remaining(), 0);
        assert_eq!(scenario.verify(), [""; 0]);
        scenario.amo.stop().await;
    }
}

#[tokio::test]
async fn equal_seeds_make_equal_schools() {
    let ids = |scenario: &Scenario| -> Vec<(Uuid, Case)> {
        scenario
            .students
            .iter()
            .map(|it| (it.row, it.case))
            .collect()
    };
    let (one, other) = (scenario(|it| it), scenario(|it| it));
    assert_eq!(ids(&one), ids(&other));
    assert_eq!(one.students[3].given, other.students[3].given);
}

#[tokio::test]
async fn an_untouched_school_has_every_row_undone() {
    let scenario = scenario(|it| it);
    let violations = scenario.verify();
    for student in &scenario.students {
        let told = violations
            .iter()
            .any(|it| it.contains(&student.row.to_string()));
        assert_eq!(told, student.expect != Expect::Waiting, "{}", student.case);
    }
}

#[tokio::test]
async fn the_past_is_what_the_case_says() {
    let scenario = scenario(|it| it);
    scenario.amo.world(|world| {
        let now = world.now();
        let age = |case| {
            let person = &scenario.first(case).person;
            let contact = world.contacts_with_email(&person.email).next().unwrap();
            let deal = world.deal(contact.deals[0]).unwrap();
            now.duration_since(deal.closed_at.unwrap()).as_hours() / 24
        };
        assert_eq!(age(Case::RecentlyLostOnly), 30);
        assert_eq!(age(Case::OldLostOnly), 120);
    });
    let lookalike = scenario.first(Case::Lookalike);
    let email = &lookalike.person.email;
    let expected = scenario.expected_deal(Case::Lookalike);
    scenario.amo.world(|world| {
        let hits: Vec<&super::super::amocrm::Contact> = world
            .contacts()
            .filter(|it| it.emails().iter().any(|it| it.contains(email.as_str())))
            .collect();
        assert_eq!(hits.len(), 2);
        assert_eq!(hits[0].emails(), [format!("jo{email}")]);
        assert_eq!(hits[1].deals, [expected]);
    });
}

type Damage = fn(&Scenario);

/// Each damage, and a part of each violation that the verifier must report for it, in order.
const DAMAGES: &[(&str, Damage, &[&str])] = &[
    (
        "the row is not patched",
        |scenario| {
            let student = scenario.first(Case::OnTarget);
            scenario.patch(student, "amocrm_deal_id", Value::Null);
        },
        &["(deal on the target): the row has deal id null"],
    ),
    (
        "the id is a number",
        |scenario| {
            let deal = scenario.expected_deal(Case::OnTarget);
            scenario.patch(
                scenario.first(Case::OnTarget),
                "amocrm_deal_id",
                deal.get().into(),
            );
        },
        &["(deal on the target): the row has deal id 9"],
    ),
    (
        "the contact's id is missing",
        |scenario| {
            scenario.patch(
                scenario.first(Case::NoDeal),
                "amocrm_contact_id",
                Value::Null,
            );
        },
        &["(no deal): the row has contact id null"],
    ),
    (
        "another column is changed",
        |scenario| scenario.patch(scenario.first(Case::NoDeal), "status", "blocked".into()),
        &["(no deal): the row's column status was changed"],
    ),
    (
        "the row of somebody who waits is patched",
        |scenario| {
            scenario.patch(
                scenario.first(Case::MissingContact),
                "amocrm_deal_id",
                "1".into(),
            );
        },
        &["(no contact): the row has deal id \"1\", not null"],
    ),
    (
        "the row is deleted",
        |scenario| {
            scenario
                .postgrest
                .delete_row(scenario.first(Case::NoDeal).row)
                .unwrap();
        },
        &["(no deal): the row is gone"],
    ),
    (
        "the deal stands on another stage",
        |scenario| {
            let deal = scenario.expected_deal(Case::PaddedEmail);
            let (pipeline, stage) = (scenario.setting.pipeline, scenario.setting.before[1]);
            scenario
                .amo
                .world(|world| world.move_deal(deal, pipeline, stage))
                .unwrap();
        },
        &["(padded e-mail in mixed case): deal 9"],
    ),
    (
        "the deal is renamed",
        |scenario| {
            let deal = scenario.expected_deal(Case::TwoContacts);
            scenario
                .amo
                .world(|world| world.set_deal(deal, |deal| deal.name.push('!')))
                .unwrap();
        },
        &["was changed in more than its stage"],
    ),
    (
        "a deal that was to be left is moved",
        |scenario| {
            let deal = scenario.expected_deal(Case::BeyondTarget);
            let Setting {
                pipeline, target, ..
            } = scenario.setting;
            scenario
                .amo
                .world(|world| world.move_deal(deal, pipeline, target))
                .unwrap();
        },
        &["(deal beyond the target): deal 9"],
    ),
    (
        "two notes",
        |scenario| {
            let student = scenario.first(Case::Lookalike);
            let deal = scenario.expected_deal(Case::Lookalike);
            scenario
                .amo
                .world(|world| world.add_note(deal, "common", &reference(student.row)));
        },
        &["(lookalike e-mail found first): deal 9"],
    ),
    (
        "a note on another deal",
        |scenario| {
            let student = scenario.first(Case::Lookalike);
            let deal = scenario.expected_deal(Case::OnTarget);
            scenario
                .amo
                .world(|world| world.add_note(deal, "common", &reference(student.row)));
        },
        &["(lookalike e-mail found first): its note is on deal 9"],
    ),
    (
        "a note of nobody",
        |scenario| {
            let deal = scenario.expected_deal(Case::OnTarget);
            scenario
                .amo
                .world(|world| world.add_note(deal, "common", "Привет"));
        },
        &["has the reference of no row"],
    ),
    (
        "a second deal",
        |scenario| {
            let student = scenario.first(Case::DeletedDeal);
            let Expect::Created { contact } = student.expect else {
                panic!("{:?}", student.expect)
            };
            scenario
                .amo
                .world(|world| scenario.create(world, student, contact));
        },
        &["(deleted deal only): 2 deals were made"],
    ),
    (
        "a deal for somebody who has one",
        |scenario| {
            let student = scenario.first(Case::OnTarget);
            let deal = scenario.expected_deal(Case::OnTarget);
            scenario.amo.world(|world| {
                let contact = world.deal(deal).unwrap().contacts[0];
                scenario.create(world, student, contact);
            });
        },
        &["who needs none"],
    ),
    (
        "a deal for nobody",
        |scenario| {
            let Setting {
                pipeline, target, ..
            } = scenario.setting;
            scenario
                .amo
                .world(|world| world.add_deal(&[], pipeline, target, "Сделка"));
        },
        &["was made for no contact"],
    ),
    (
        "a deal made under another name and at no price",
        |scenario| {
            let student = scenario.first(Case::OldLostOnly);
            let row = scenario.postgrest.row(student.row).unwrap();
            let deal = DealId::new(row["amocrm_deal_id"].as_str().unwrap().parse().unwrap());
            let rename = |deal: &mut super::super::amocrm::Deal| {
                deal.name.clear();
                deal.price = 0;
            };
            scenario
                .amo
                .world(|world| world.set_deal(deal, rename))
                .unwrap();
        },
        &["was made under another name", "was made at the price 0"],
    ),
    (
        "somebody else's deal is touched",
        |scenario| {
            let deal = scenario.before.deals().next().unwrap().id;
            scenario.amo.world(|world| world.delete_deal(deal)).unwrap();
        },
        &["was touched, and is nobody's"],
    ),
    (
        "somebody's contact is touched",
        |scenario| {
            let contact = scenario.before.contacts().next().unwrap().id;
            scenario
                .amo
                .world(|world| world.set_contact(contact, |it| it.name.push('!')))
                .unwrap();
        },
        &["was touched"],
    ),
    (
        "a contact is doubled",
        |scenario| {
            let email = &scenario.first(Case::OnTarget).person.email;
            scenario
                .amo
                .world(|world| world.add_contact("Двойник", &[email], &[]));
        },
        &["was made, and nobody needs it"],
    ),
    (
        "an old note is changed",
        |scenario| {
            scenario.amo.world(|world| {
                let note = world.notes.values_mut().next().unwrap();
                note.text.push('!');
            });
        },
        &["was changed"],
    ),
    (
        "a note vanishes",
        |scenario| {
            let deal = scenario.expected_deal(Case::OnTarget);
            scenario.amo.world(|world| {
                let note = world.notes_of(deal).next().unwrap().id;
                world.notes.remove(&note).unwrap();
            });
        },
        &["(deal on the target): deal 9"],
    ),
];

#[tokio::test]
async fn every_violation_is_told() {
    for (damage, act, expected) in DAMAGES {
        let scenario = scenario(|it| it);
        scenario.sync();
        act(&scenario);
        let violations = scenario.verify();
        assert_eq!(
            violations.len(),
            expected.len(),
            "{damage}: {violations:#?}"
        );
        for (violation, piece) in violations.iter().zip(*expected) {
            assert!(violation.contains(piece), "{damage}: {violation}");
        }
        scenario.amo.stop().await;
        scenario.postgrest.stop().await;
    }
}

#[tokio::test]
async fn a_contact_made_twice_is_told() {
    let scenario = scenario(Setting::creating_missing);
    scenario.sync();
    let email = &scenario.first(Case::MissingContact).person.email;
    scenario
        .amo
        .world(|world| world.add_contact("Двойник", &[email], &[]));
    let violations = scenario.verify();
    assert_eq!(violations.len(), 1, "{violations:#?}");
    assert!(violations[0].contains("(no contact): 2 contacts have its e-mail"));
}

#[tokio::test]
async fn rows_are_created_now() {
    let clock = Clock::at("2026-11-22T10:00:00Z".parse().unwrap());
    let created_at = scenario(|it| it).students[0].given["created_at"].clone();
    let created_at: Timestamp = created_at.as_str().unwrap().parse().unwrap();
    assert_eq!(created_at, clock.now());
}
