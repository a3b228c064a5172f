//! A verifier that finds nothing proves nothing: each violation is made once, and must be told.

use super::{
    super::{AmoQuirks, Clock, PostgrestQuirks, Sandbox, postgrest::reference},
    *,
};

const ROWS: usize = 56;

fn school(change: impl FnOnce(Setting) -> Setting) -> School {
    let clock = Clock::at("2026-11-22T10:00:00Z".parse().unwrap());
    let quirks = AmoQuirks::patient();
    let sandbox = Sandbox::start_with(quirks, PostgrestQuirks::default(), clock).unwrap();
    let setting = change(Setting::build(&sandbox.amo));
    setting.add_crowd(&sandbox.amo, 1, 10);
    sandbox.amo.world(|world| {
        let deal = world.deals().next().unwrap().id;
        world.add_note(deal, "common", "Перезвонить");
    });
    School::mixed(7, ROWS, &sandbox.amo, &sandbox.postgrest, &setting)
}

impl School {
    /// What a service without a fault would do.
    fn sync(&self) {
        for pupil in &self.pupils {
            self.sync_one(pupil);
        }
    }

    fn sync_one(&self, pupil: &Pupil) {
        let Setting {
            pipeline, target, ..
        } = self.setting;
        let deal = self.amo.world(|world| {
            let deal = match pupil.expect {
                Expect::Waiting => return None,
                Expect::Left(deal) => deal,
                Expect::Moved(deal) => {
                    world.move_deal(deal, pipeline, target).unwrap();
                    deal
                }
                Expect::Created { contact } => self.create(world, pupil, contact),
                Expect::CreatedWithContact => {
                    let Person { name, email, .. } = &pupil.person;
                    let contact = world.create_contact(name, &[email], &[]);
                    self.create(world, pupil, contact)
                }
            };
            let text = format!(
                "Логин: {}\n[ref {}]",
                pupil.person.email,
                reference(pupil.row)
            );
            world.add_note(deal, "common", &text);
            Some(deal)
        });
        if let Some(deal) = deal {
            let contact = self
                .amo
                .world(|world| world.deal(deal).unwrap().contacts[0]);
            self.patch(pupil, "amocrm_deal_id", deal.to_string().into());
            self.patch(pupil, "amocrm_contact_id", contact.to_string().into());
        }
    }

    fn create(&self, world: &mut World, pupil: &Pupil, contact: ContactId) -> DealId {
        let name = format!("Tripwire - {}", pupil.person.name);
        let deal = world.add_deal(
            &[contact],
            self.setting.pipeline,
            self.setting.target,
            &name,
        );
        world.set_deal(deal, |deal| deal.price = 5000).unwrap();
        deal
    }

    fn patch(&self, pupil: &Pupil, column: &str, value: Value) {
        let column = column.to_owned();
        self.postgrest
            .update_row(pupil.row, |row| row.insert(column, value))
            .unwrap();
    }

    fn first(&self, case: Case) -> &Pupil {
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
        let school = school(setting);
        for case in school.setting.cases() {
            assert!(school.of(case).count() >= ROWS / Case::ALL.len(), "{case}");
        }
        let waiting = school
            .pupils
            .iter()
            .filter(|it| it.expect == Expect::Waiting)
            .count();
        assert_eq!(school.remaining(), ROWS - waiting);
        school.sync();
        assert_eq!(school.remaining(), 0);
        assert_eq!(school.verify(), [""; 0]);
        school.amo.stop().await;
    }
}

#[tokio::test]
async fn equal_seeds_make_equal_schools() {
    let ids = |school: &School| -> Vec<(Uuid, Case)> {
        school.pupils.iter().map(|it| (it.row, it.case)).collect()
    };
    let (one, other) = (school(|it| it), school(|it| it));
    assert_eq!(ids(&one), ids(&other));
    assert_eq!(one.pupils[3].given, other.pupils[3].given);
}

#[tokio::test]
async fn an_untouched_school_has_every_row_undone() {
    let school = school(|it| it);
    let violations = school.verify();
    for pupil in &school.pupils {
        let told = violations
            .iter()
            .any(|it| it.contains(&pupil.row.to_string()));
        assert_eq!(told, pupil.expect != Expect::Waiting, "{}", pupil.case);
    }
}

#[tokio::test]
async fn the_past_is_what_the_case_says() {
    let school = school(|it| it);
    school.amo.world(|world| {
        let now = world.now();
        let age = |case| {
            let person = &school.first(case).person;
            let contact = world.contacts_with_email(&person.email).next().unwrap();
            let deal = world.deal(contact.deals[0]).unwrap();
            now.duration_since(deal.closed_at.unwrap()).as_hours() / 24
        };
        assert_eq!(age(Case::RecentlyLostOnly), 30);
        assert_eq!(age(Case::OldLostOnly), 120);
    });
    let lookalike = school.first(Case::Lookalike);
    let email = &lookalike.person.email;
    let expected = school.expected_deal(Case::Lookalike);
    school.amo.world(|world| {
        let hits: Vec<&super::super::amocrm::Contact> = world
            .contacts()
            .filter(|it| it.emails().iter().any(|it| it.contains(email.as_str())))
            .collect();
        assert_eq!(hits.len(), 2);
        assert_eq!(hits[0].emails(), [format!("jo{email}")]);
        assert_eq!(hits[1].deals, [expected]);
    });
}

type Damage = fn(&School);

/// What is done wrong, and a piece of each violation that it must lead to, in their order.
const DAMAGES: &[(&str, Damage, &[&str])] = &[
    (
        "the row is not patched",
        |school| {
            let pupil = school.first(Case::OnTarget);
            school.patch(pupil, "amocrm_deal_id", Value::Null);
        },
        &["(deal on the target): the row has deal id null"],
    ),
    (
        "the id is a number",
        |school| {
            let deal = school.expected_deal(Case::OnTarget);
            school.patch(
                school.first(Case::OnTarget),
                "amocrm_deal_id",
                deal.get().into(),
            );
        },
        &["(deal on the target): the row has deal id 9"],
    ),
    (
        "the contact's id is missing",
        |school| school.patch(school.first(Case::NoDeal), "amocrm_contact_id", Value::Null),
        &["(no deal): the row has contact id null"],
    ),
    (
        "another column is changed",
        |school| school.patch(school.first(Case::NoDeal), "status", "blocked".into()),
        &["(no deal): the row's column status was changed"],
    ),
    (
        "the row of somebody who waits is patched",
        |school| {
            school.patch(
                school.first(Case::MissingContact),
                "amocrm_deal_id",
                "1".into(),
            );
        },
        &["(no contact): the row has deal id \"1\", not null"],
    ),
    (
        "the row is deleted",
        |school| {
            school
                .postgrest
                .delete_row(school.first(Case::NoDeal).row)
                .unwrap();
        },
        &["(no deal): the row is gone"],
    ),
    (
        "the deal stands on another stage",
        |school| {
            let deal = school.expected_deal(Case::PaddedEmail);
            let (pipeline, stage) = (school.setting.pipeline, school.setting.before[1]);
            school
                .amo
                .world(|world| world.move_deal(deal, pipeline, stage))
                .unwrap();
        },
        &["(padded e-mail in mixed case): deal 9"],
    ),
    (
        "the deal is renamed",
        |school| {
            let deal = school.expected_deal(Case::TwoContacts);
            school
                .amo
                .world(|world| world.set_deal(deal, |deal| deal.name.push('!')))
                .unwrap();
        },
        &["was changed in more than its stage"],
    ),
    (
        "a deal that was to be left is moved",
        |school| {
            let deal = school.expected_deal(Case::BeyondTarget);
            let Setting {
                pipeline, target, ..
            } = school.setting;
            school
                .amo
                .world(|world| world.move_deal(deal, pipeline, target))
                .unwrap();
        },
        &["(deal beyond the target): deal 9"],
    ),
    (
        "two notes",
        |school| {
            let pupil = school.first(Case::Lookalike);
            let deal = school.expected_deal(Case::Lookalike);
            school
                .amo
                .world(|world| world.add_note(deal, "common", &reference(pupil.row)));
        },
        &["(lookalike e-mail found first): deal 9"],
    ),
    (
        "a note on another deal",
        |school| {
            let pupil = school.first(Case::Lookalike);
            let deal = school.expected_deal(Case::OnTarget);
            school
                .amo
                .world(|world| world.add_note(deal, "common", &reference(pupil.row)));
        },
        &["(lookalike e-mail found first): its note is on deal 9"],
    ),
    (
        "a note of nobody",
        |school| {
            let deal = school.expected_deal(Case::OnTarget);
            school
                .amo
                .world(|world| world.add_note(deal, "common", "Привет"));
        },
        &["has the reference of no row"],
    ),
    (
        "a second deal",
        |school| {
            let pupil = school.first(Case::DeletedDeal);
            let Expect::Created { contact } = pupil.expect else {
                panic!("{:?}", pupil.expect)
            };
            school
                .amo
                .world(|world| school.create(world, pupil, contact));
        },
        &["(deleted deal only): 2 deals were made"],
    ),
    (
        "a deal for somebody who has one",
        |school| {
            let pupil = school.first(Case::OnTarget);
            let deal = school.expected_deal(Case::OnTarget);
            school.amo.world(|world| {
                let contact = world.deal(deal).unwrap().contacts[0];
                school.create(world, pupil, contact);
            });
        },
        &["who needs none"],
    ),
    (
        "a deal for nobody",
        |school| {
            let Setting {
                pipeline, target, ..
            } = school.setting;
            school
                .amo
                .world(|world| world.add_deal(&[], pipeline, target, "Сделка"));
        },
        &["was made for no contact"],
    ),
    (
        "a deal made under another name and at no price",
        |school| {
            let pupil = school.first(Case::OldLostOnly);
            let row = school.postgrest.row(pupil.row).unwrap();
            let deal = DealId::new(row["amocrm_deal_id"].as_str().unwrap().parse().unwrap());
            let rename = |deal: &mut super::super::amocrm::Deal| {
                deal.name.clear();
                deal.price = 0;
            };
            school
                .amo
                .world(|world| world.set_deal(deal, rename))
                .unwrap();
        },
        &["was made under another name", "was made at the price 0"],
    ),
    (
        "somebody else's deal is touched",
        |school| {
            let deal = school.before.deals().next().unwrap().id;
            school.amo.world(|world| world.delete_deal(deal)).unwrap();
        },
        &["was touched, and is nobody's"],
    ),
    (
        "somebody's contact is touched",
        |school| {
            let contact = school.before.contacts().next().unwrap().id;
            school
                .amo
                .world(|world| world.set_contact(contact, |it| it.name.push('!')))
                .unwrap();
        },
        &["was touched"],
    ),
    (
        "a contact is doubled",
        |school| {
            let email = &school.first(Case::OnTarget).person.email;
            school
                .amo
                .world(|world| world.add_contact("Двойник", &[email], &[]));
        },
        &["was made, and nobody needs it"],
    ),
    (
        "an old note is changed",
        |school| {
            school.amo.world(|world| {
                let note = world.notes.values_mut().next().unwrap();
                note.text.push('!');
            });
        },
        &["was changed"],
    ),
    (
        "a note vanishes",
        |school| {
            let deal = school.expected_deal(Case::OnTarget);
            school.amo.world(|world| {
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
        let school = school(|it| it);
        school.sync();
        act(&school);
        let violations = school.verify();
        assert_eq!(
            violations.len(),
            expected.len(),
            "{damage}: {violations:#?}"
        );
        for (violation, piece) in violations.iter().zip(*expected) {
            assert!(violation.contains(piece), "{damage}: {violation}");
        }
        school.amo.stop().await;
        school.postgrest.stop().await;
    }
}

#[tokio::test]
async fn a_contact_made_twice_is_told() {
    let school = school(Setting::creating_missing);
    school.sync();
    let email = &school.first(Case::MissingContact).person.email;
    school
        .amo
        .world(|world| world.add_contact("Двойник", &[email], &[]));
    let violations = school.verify();
    assert_eq!(violations.len(), 1, "{violations:#?}");
    assert!(violations[0].contains("(no contact): 2 contacts have its e-mail"));
}

#[tokio::test]
async fn rows_are_created_now() {
    let clock = Clock::at("2026-11-22T10:00:00Z".parse().unwrap());
    let created_at = school(|it| it).pupils[0].given["created_at"].clone();
    let created_at: Timestamp = created_at.as_str().unwrap().parse().unwrap();
    assert_eq!(created_at, clock.now());
}
