//! Which deal, and what becomes of it: design rules through the real thing, for both kinds of target.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use sandbox::{
    ContactId, DealId, Fault, Kind, PipelineId, Point, StageId, When,
    scenario::{Missing, Scenario},
};
use serde_json::json;
use tripwire_sync::{
    domain::RowId,
    inbox::{Outcome, State, Step},
};

use crate::support::{EMAIL, NAME, NowForTests, Wishes, World, rows_of};

const DAY: i64 = 24;

/// One deal as it stands before we come.
struct Past {
    pipeline: PipelineId,
    stage: StageId,
    /// Last changed so many days ago, and closed if it is closed.
    days: i64,
}

/// What must become of a student.
#[derive(Clone, Copy)]
enum Becomes {
    /// The n-th of the deals is moved to the target.
    Moved(usize),
    /// The n-th of the deals is used and stays where it stands.
    Left(usize),
    Created,
}

struct Student {
    rule: &'static str,
    row: RowId,
    deals: Vec<(DealId, StageId)>,
    becomes: Becomes,
}

struct Class<'w> {
    world: &'w World,
    students: Vec<Student>,
}

impl Class<'_> {
    fn enrol(&mut self, rule: &'static str, past: &[Past], becomes: Becomes) {
        let email = format!("student{}@example.kz", self.students.len());
        let now = Timestamp::now_for_tests();
        let deals = self.world.sandbox.amo.world(|world| {
            let contact = world.add_contact(NAME, &[&email], &[]);
            let add = |past: &Past| {
                let deal = world.add_deal(&[contact], past.pipeline, past.stage, "Заявка");
                let then = now - (past.days * DAY).hours();
                world.set_deal(deal, |deal| {
                    deal.updated_at = then;
                    deal.closed_at = past.stage.is_closed().then_some(then);
                });
                (deal, past.stage)
            };
            past.iter().map(add).collect()
        });
        let row = self.world.insert(&json!({"email": email}));
        self.students.push(Student {
            rule,
            row,
            deals,
            becomes,
        });
    }
}

impl Student {
    async fn became_what_it_should(&self, world: &World) {
        let rule = self.rule;
        world.until_done(self.row, Outcome::Synced).await;
        let used = world.column(self.row, "amocrm_deal_id");
        let used = DealId::new(
            used.unwrap_or_else(|| panic!("{rule}: no deal"))
                .parse()
                .unwrap(),
        );
        world.assert_noted_once(self.row, used);
        let mut expected = self.deals.clone();
        match self.becomes {
            Becomes::Moved(n) => {
                assert_eq!(used, expected[n].0, "{rule}");
                expected[n].1 = world.setting.target;
            }
            Becomes::Left(n) => assert_eq!(used, expected[n].0, "{rule}"),
            Becomes::Created => {
                assert!(expected.iter().all(|(deal, _)| *deal != used), "{rule}");
                assert_eq!(world.stage(used), world.setting.target, "{rule}");
            }
        }
        for (deal, stage) in expected {
            assert_eq!(world.stage(deal), stage, "{rule}: deal {deal}");
        }
    }
}

async fn every_deal_rule_holds(target_is_won: bool) {
    let mut world = World::prepare(Wishes {
        target_is_won,
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    });
    let setting = world.setting.clone();
    let unknown = StageId::new(999_999);
    let [first, second] = [setting.before[0], setting.before[1]];
    let here = |stage, days| Past {
        pipeline: setting.pipeline,
        stage,
        days,
    };
    let elsewhere = |days| Past {
        pipeline: setting.other_pipeline,
        stage: setting.other_stage,
        days,
    };
    let (won, lost, target) = (StageId::WON, StageId::LOST, setting.target);

    let mut class = Class {
        world: &world,
        students: Vec::new(),
    };
    let mut rule = |rule, past: &[Past], becomes| class.enrol(rule, past, becomes);
    rule("open: moved", &[here(first, 3)], Becomes::Moved(0));
    rule(
        "open: the latest change",
        &[here(first, 2), here(first, 9), here(second, 5)],
        Becomes::Moved(0),
    );
    rule(
        "open: then the highest id",
        &[here(first, 4), here(first, 4)],
        Becomes::Moved(1),
    );
    rule(
        "open goes before recently closed",
        &[here(first, 60), here(won, 1), here(lost, 1)],
        Becomes::Moved(0),
    );
    rule(
        "won goes before lost",
        &[here(lost, 1), here(won, 30)],
        Becomes::Left(1),
    );
    rule("lost: moved", &[here(lost, 80)], Becomes::Moved(0));
    rule("won: left", &[here(won, 80)], Becomes::Left(0));
    rule(
        "lost long ago: another purchase",
        &[here(lost, 91)],
        Becomes::Created,
    );
    rule(
        "won long ago: another purchase",
        &[here(won, 91)],
        Becomes::Created,
    );
    rule("on the target: left", &[here(target, 1)], Becomes::Left(0));
    rule(
        "on a stage that no list names: left",
        &[here(unknown, 1)],
        Becomes::Left(0),
    );
    rule(
        "another pipeline: not ours",
        &[elsewhere(1)],
        Becomes::Created,
    );
    rule(
        "another pipeline's newer deal: not ours",
        &[elsewhere(1), here(first, 50)],
        Becomes::Moved(1),
    );
    if let Some(beyond) = setting.beyond.first() {
        rule(
            "after the target: never backwards",
            &[here(*beyond, 1)],
            Becomes::Left(0),
        );
        rule(
            "the latest change counts, not the nearest stage",
            &[here(first, 5), here(*beyond, 1)],
            Becomes::Left(1),
        );
    }
    let students = class.students;
    world.launch().await;

    for student in students {
        student.became_what_it_should(&world).await;
    }
}

#[tokio::test]
async fn every_rule_about_deals_holds_for_a_stage_of_the_schools_own() {
    every_deal_rule_holds(false).await;
}

#[tokio::test]
async fn every_rule_about_deals_holds_when_bought_means_won() {
    every_deal_rule_holds(true).await;
}

#[tokio::test]
async fn a_mixed_school_comes_right_when_bought_means_won_and_missing_contacts_are_made() {
    let mut world = World::prepare(Wishes {
        target_is_won: true,
        missing: Missing::Create,
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    });
    let (amo, postgrest) = (&world.sandbox.amo, &world.sandbox.postgrest);
    let scenario = Scenario::mixed(5, 42, amo, postgrest, &world.setting);
    world.launch().await;
    for row in rows_of(&scenario) {
        world.until_done(row, Outcome::Synced).await;
    }

    assert_eq!(scenario.verify(), Vec::<String>::new());
    assert_eq!(world.sandbox.amo.protocol_errors(), Vec::<String>::new());
}

#[tokio::test]
async fn the_second_row_of_a_person_finds_the_deal_that_the_first_made() {
    let mut world = World::prepare(Wishes {
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    });
    world.contact(EMAIL);
    let rows = [
        world.insert(&json!({})),
        world.insert(&json!({"email": " AIGERIM@example.kz"})),
    ];
    world.launch().await;

    let first = world.until_synced_once(rows[0]).await;
    let second = world.until_synced_once(rows[1]).await;
    assert_eq!(first, second);
    assert_eq!(world.deals_of(EMAIL), [first]);
    assert_eq!(world.notes(first).len(), 2);
}

#[tokio::test]
async fn the_second_row_of_a_person_without_contact_finds_the_contact_that_the_first_made() {
    let mut wishes = Wishes {
        missing: Missing::Create,
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    };
    wishes.amo.index_lag = Duration::from_mins(10);
    let mut world = World::prepare(wishes);
    let rows = [world.insert(&json!({})), world.insert(&json!({}))];
    world.launch().await;

    let first = world.until_synced_once(rows[0]).await;
    assert_eq!(world.until_synced_once(rows[1]).await, first);
    assert_eq!(world.deals_of(EMAIL), [first]);
    assert_eq!(world.sandbox.amo.world(|world| world.contacts().count()), 1);
}

#[tokio::test]
async fn two_rows_whose_emails_belong_to_one_contact_make_one_deal() {
    let mut world = World::prepare(Wishes {
        sweep_every: Some(Duration::from_hours(9)),
        ..Wishes::brisk()
    });
    let emails = ["work@example.kz", "home@example.kz"];
    world
        .sandbox
        .amo
        .world(|world| world.add_contact(NAME, &emails, &[]));
    let rows = emails.map(|email| world.insert(&json!({"email": email})));
    world.launch().await;

    let first = world.until_synced_once(rows[0]).await;
    assert_eq!(world.until_synced_once(rows[1]).await, first);
    assert_eq!(world.deals_of(emails[0]), [first]);
}

/// The second row comes while the create of the first hangs in another run.
#[tokio::test]
async fn a_row_waits_while_another_of_its_contact_is_at_work() {
    let world = World::start(Wishes::brisk()).await;
    let emails = ["work@example.kz", "home@example.kz"];
    world
        .sandbox
        .amo
        .world(|world| world.add_contact(NAME, &emails, &[]));
    let rows = emails.map(|email| world.insert(&json!({"email": email})));
    let create = Point::amo("leads.create");
    world
        .sandbox
        .faults()
        .add(Fault::once(create, Kind::Hang(When::Before)));
    world.deliver(rows[0]).await;
    world
        .until_asked("leads.create", 1, |it| it.fault.is_some())
        .await;
    world.deliver(rows[1]).await;

    let second = world.until_synced_once(rows[1]).await;
    assert_eq!(world.until_synced_once(rows[0]).await, second);
    assert_eq!(world.deals_of(emails[0]), [second]);
}

#[tokio::test]
async fn a_deal_that_a_manager_makes_between_search_and_create_is_used() {
    let mut wishes = Wishes::brisk();
    // Every request is on its way long enough for a manager to come in between.
    wishes.amo.latency = Duration::from_millis(150);
    let world = World::start(wishes).await;
    let contact: ContactId = world.contact(EMAIL);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world
        .until_asked("contacts.search", 1, |it| it.status.is_some())
        .await;
    let deal = world.deal(contact, world.setting.before[0]);

    assert_eq!(world.until_synced_once(row).await, deal);
    assert_eq!(world.deals_of(EMAIL), [deal]);
    assert_eq!(world.asked("leads.create"), 0);
}

#[tokio::test]
async fn a_chosen_deal_that_is_lost_before_the_move_is_decided_anew() {
    let world = World::start(Wishes::brisk()).await;
    let chosen = world.student(EMAIL);
    let move_it = Point::amo("leads.update");
    world
        .sandbox
        .faults()
        .add(Fault::always(move_it, Kind::server_error(When::Before)));
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world
        .until(row, "chosen", |entry| {
            entry.progress.step != Step::Begun && entry.attempts > 0
        })
        .await;
    world.sandbox.amo.world(|world| world.delete_deal(chosen));
    world.sandbox.faults().clear();

    let made = world.until_synced_once(row).await;
    assert_ne!(made, chosen);
    let entry = world.entry(row).await.unwrap();
    assert_eq!(entry.progress.moved, None, "of the deal that is gone");
}

#[tokio::test]
async fn a_chosen_deal_that_leaves_the_pipeline_after_our_write_is_parked_and_named() {
    let world = World::start(Wishes::brisk()).await;
    let chosen = world.student(EMAIL);
    let note = Point::amo("notes.create");
    world
        .sandbox
        .faults()
        .add(Fault::always(note, Kind::server_error(When::Before)));
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world
        .until(row, "moved", |entry| {
            entry.progress.step.placed().is_some() && entry.attempts > 0
        })
        .await;
    let (pipeline, stage) = (world.setting.other_pipeline, world.setting.other_stage);
    world
        .sandbox
        .amo
        .world(|world| world.move_deal(chosen, pipeline, stage));
    world.sandbox.faults().clear();

    let entry = world.until_state(row, State::Parked).await;
    assert!(entry.reason.unwrap().contains(&chosen.to_string()));
    assert_eq!(world.stage(chosen), stage);
}

// ---- where a deal came from ----

async fn origin_of(world: &World, row: RowId) -> Option<(i64, i64, i64)> {
    let inbox = world.guest().await;
    let entry = inbox.entry(row).await.unwrap().unwrap();
    inbox.close().await;
    let moved = entry.progress.placing_move()?;
    Some((moved.deal.get(), moved.from.get(), moved.to.get()))
}

#[tokio::test]
async fn the_stage_that_a_deal_came_from_is_stored_with_the_move() {
    let world = World::start(Wishes::brisk()).await;
    let deal = world.student(EMAIL);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_synced_once(row).await;

    let (from, to) = (world.setting.before[0], world.setting.target);
    let origin = Some((deal.get(), from.get(), to.get()));
    assert_eq!(origin_of(&world, row).await, origin);
}

#[tokio::test]
async fn a_move_whose_answer_was_lost_is_recognised_with_its_origin() {
    let world = World::start(Wishes::brisk()).await;
    let deal = world.student(EMAIL);
    let answer = Fault::once(Point::amo("leads.update"), Kind::server_error(When::After));
    world.sandbox.faults().add(answer);
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world.until_synced_once(row).await;

    let (from, to) = (world.setting.before[0], world.setting.target);
    let origin = Some((deal.get(), from.get(), to.get()));
    assert_eq!(origin_of(&world, row).await, origin);
}

#[tokio::test]
async fn a_deal_that_people_move_after_a_refused_move_is_not_taken_for_one_of_ours() {
    let world = World::start(Wishes::brisk()).await;
    let deal = world.student(EMAIL);
    let refused = Kind::status(When::Before, 429);
    world
        .sandbox
        .faults()
        .add(Fault::always(Point::amo("leads.update"), refused));
    let row = world.insert(&json!({}));
    world.deliver(row).await;
    world
        .until(row, "chosen", |entry| {
            entry.progress.step != Step::Begun && entry.attempts > 0
        })
        .await;
    let (pipeline, target) = (world.setting.pipeline, world.setting.target);
    world
        .sandbox
        .amo
        .world(|world| world.move_deal(deal, pipeline, target));
    world.sandbox.faults().clear();

    world.until_synced_once(row).await;
    assert_eq!(origin_of(&world, row).await, None);
}
