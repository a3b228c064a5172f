//! The account's rules.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{ContactId, PipelineId, StageId};

use super::{
    super::server::Reply,
    write::{Rejection, Write},
    *,
};

struct Scenario {
    world: World,
    clock: Clock,
    pipeline: PipelineId,
    stages: Vec<StageId>,
    unsorted: StageId,
}

fn scenario(quirks: AmoQuirks) -> Scenario {
    let clock = Clock::at("2026-11-22T10:00:00Z".parse().unwrap());
    let mut world = World::new(quirks, clock.clone());
    let pipeline = world.add_pipeline("Tripwire", &["Заявка", "Купил продукт", "Учится"]);
    Scenario {
        world,
        clock,
        pipeline: pipeline.id,
        stages: pipeline.stages,
        unsorted: pipeline.unsorted,
    }
}

impl Scenario {
    fn deal(&mut self, stage: usize) -> DealId {
        let contact = self
            .world
            .add_contact("Айгерим Сапарова", &["aigerim@school.kz"], &[]);
        let (pipeline, stage) = (self.pipeline, self.stages[stage]);
        self.world.add_deal(&[contact], pipeline, stage, "Курс")
    }

    fn write(&mut self, write: Write, body: &Value) -> Reply {
        self.world.write(write, Some(body), None)
    }

    fn moved(&self, deal: DealId, stage: StageId) -> Value {
        json!({"id": deal, "pipeline_id": self.pipeline, "status_id": stage})
    }
}

fn body(reply: &Reply) -> Value {
    serde_json::from_str(&reply.body).unwrap()
}

#[test]
fn ids_of_different_kinds_are_far_apart() {
    let mut scenario = scenario(AmoQuirks::default());
    let deal = scenario.deal(0);
    let contact = scenario.world.deal(deal).unwrap().contacts[0];
    let note = scenario.world.add_note(deal, "common", "Привет");
    assert_eq!(contact.get() / 1_000_000, 5);
    assert_eq!(deal.get() / 1_000_000, 9);
    assert_eq!(note.get() / 1_000_000, 71);
}

#[test]
fn a_deal_is_closed_on_142_and_143_and_open_again_elsewhere() {
    let mut scenario = scenario(AmoQuirks::default());
    let deal = scenario.deal(0);
    let steps = [
        (StageId::WON, true),
        (StageId::LOST, true),
        (scenario.stages[1], false),
    ];
    for (stage, is_closed) in steps {
        let change = scenario.moved(deal, stage);
        assert_eq!(
            scenario.write(Write::UpdateDeals, &json!([change])).status,
            200
        );
        let now = scenario.world.deal(deal).unwrap();
        assert_eq!((now.stage, now.closed_at.is_some()), (stage, is_closed));
    }
    assert_eq!(scenario.world.protocol_errors, [""; 0]);
}

#[test]
fn a_stage_that_cannot_be_a_target_is_refused_with_the_clients_own_id() {
    let mut scenario = scenario(AmoQuirks::default());
    let other = scenario.world.add_pipeline("Другая", &["Новая"]);
    let deal = scenario.deal(0);
    let targets = [
        (scenario.pipeline, scenario.unsorted),
        (scenario.pipeline, other.stages[0]),
        (scenario.pipeline, StageId::new(1)),
    ];
    for (pipeline, stage) in targets {
        let item =
            json!({"id": deal, "pipeline_id": pipeline, "status_id": stage, "request_id": "r7"});
        let reply = scenario.write(Write::UpdateDeals, &json!([item]));
        assert_eq!(reply.status, 400);
        assert_eq!(reply.content_type, Some("application/problem+json"));
        let problem = &body(&reply)["validation-errors"][0];
        assert_eq!(problem["request_id"], "r7");
        assert_eq!(problem["errors"][0]["code"], "NotSupportedChoice");
        assert_eq!(problem["errors"][0]["path"], "status_id");
    }
    assert_eq!(scenario.world.deal(deal).unwrap().stage, scenario.stages[0]);
}

#[test]
fn a_bad_item_spoils_the_others_or_not() {
    for saves_others in [false, true] {
        let mut scenario = scenario(AmoQuirks {
            rejected_bulk_saves_others: saves_others,
            ..AmoQuirks::default()
        });
        let (good, bad) = (scenario.deal(0), scenario.deal(0));
        let bulk = json!([
            scenario.moved(good, scenario.stages[1]),
            scenario.moved(bad, scenario.unsorted)
        ]);
        let reply = scenario.write(Write::UpdateDeals, &bulk);
        assert_eq!(body(&reply)["validation-errors"][0]["request_id"], "1");
        let is_moved = scenario.world.deal(good).unwrap().stage == scenario.stages[1];
        assert_eq!(is_moved, saves_others);
    }
}

#[test]
fn an_unknown_deal_is_told_and_the_others_are_moved() {
    for status in [200, 400] {
        let mut scenario = scenario(AmoQuirks {
            unknown_deal_status: status,
            ..AmoQuirks::default()
        });
        let deal = scenario.deal(0);
        let gone = scenario.deal(0);
        scenario.world.delete_deal(gone).unwrap();
        let bulk = json!([
            scenario.moved(gone, scenario.stages[1]),
            scenario.moved(deal, scenario.stages[1])
        ]);
        let reply = scenario.write(Write::UpdateDeals, &bulk);
        assert_eq!(reply.status, status);
        assert_eq!(
            body(&reply),
            json!({"errors": {gone.to_string(): "Lead not found"}})
        );
        assert_eq!(scenario.world.deal(deal).unwrap().stage, scenario.stages[1]);
    }
}

#[test]
fn what_the_documents_forbid_is_written_down() {
    let too_many = |count: usize| Value::from(vec![json!({"name": "Курс"}); count]);
    let deal = 9_200_001;
    let stage = 44_003;
    let cases = [
        (Write::UpdateDeals, json!({"id": deal}), "not an array"),
        (
            Write::UpdateDeals,
            json!([{"status_id": stage, "pipeline_id": 3301}]),
            "without an id",
        ),
        (
            Write::UpdateDeals,
            json!([{"id": deal, "status_id": stage}]),
            "belong together",
        ),
        (
            Write::UpdateDeals,
            json!([{"id": deal, "pipeline_id": 3301}]),
            "belong together",
        ),
        (
            Write::UpdateDeals,
            json!([{"id": deal, "score": 1}]),
            "unknown field score",
        ),
        (
            Write::UpdateDeals,
            json!([{"id": deal, "updated_at": 1}]),
            "amoCRM's own",
        ),
        (Write::CreateDeals, too_many(251), "251 items"),
        (
            Write::CreateDeals,
            json!([{"title": "Курс"}]),
            "unknown field title",
        ),
        (
            Write::CreateDeals,
            json!([{"_embedded": {"contacts": [{"name": "Ержан"}]}}]),
            "without an id",
        ),
        (Write::CreateComplex, too_many(51), "51 items"),
        (
            Write::CreateComplex,
            json!([{"_embedded": {"metadata": {}}}]),
            "Unsorted",
        ),
        (
            Write::CreateComplex,
            json!([{"_embedded": {"contacts": [{}, {}]}}]),
            "more than one contact",
        ),
        (
            Write::AddNotes { of: None },
            json!([{"note_type": "common"}]),
            "without entity_id",
        ),
        (
            Write::AddNotes { of: None },
            json!([{"entity_id": 1, "note_type": "common"}]),
            "does not exist",
        ),
        (
            Write::AddNotes { of: None },
            json!([{"entity_id": deal, "params": {"text": "x"}}]),
            "note_type",
        ),
        (
            Write::AddNotes { of: None },
            json!([{"entity_id": deal, "note_type": "common", "params": {"text": " "}}]),
            "without text",
        ),
    ];
    for (write, body, expected) in cases {
        let mut scenario = scenario(AmoQuirks::default());
        assert_eq!(scenario.deal(0).get(), deal);
        scenario.write(write, &body);
        let errors = scenario.world.protocol_errors;
        assert!(
            errors.len() == 1 && errors[0].contains(expected),
            "{body}: {errors:?}"
        );
    }
}

#[test]
fn a_deal_and_its_new_contact_are_made_together_and_never_joined_by_default() {
    let item = |request_id: &str, scenario: &Scenario| {
        json!({"name": "Tripwire - Болат", "pipeline_id": scenario.pipeline, "status_id": scenario.stages[1],
            "price": 5000, "request_id": request_id, "_embedded": {"contacts": [{"name": "Болат Нурланов",
            "custom_fields_values": [
                {"field_code": "EMAIL", "values": [{"value": "bolat@school.kz", "enum_code": "WORK"}]},
                {"field_code": "PHONE", "values": [{"value": "+77010000001"}]}]}]}})
    };
    for joins in [false, true] {
        let mut scenario = scenario(AmoQuirks {
            duplicate_control: joins,
            ..AmoQuirks::default()
        });
        let first = body(&scenario.write(Write::CreateComplex, &json!([item("r1", &scenario)])));
        let second = body(&scenario.write(Write::CreateComplex, &json!([item("r2", &scenario)])));
        assert_eq!(first[0]["request_id"], json!(["r1"]));
        assert_eq!(second[0]["merged"], joins);
        assert_eq!(first[0]["id"] == second[0]["id"], joins);
        let expected = if joins { 1 } else { 2 };
        assert_eq!(
            scenario
                .world
                .contacts_with_email(" Bolat@School.kz")
                .count(),
            expected
        );
        let contact = ContactId::new(first[0]["contact_id"].as_i64().unwrap());
        let contact = scenario.world.contact(contact).unwrap();
        assert_eq!(contact.phones(), ["+77010000001"]);
        assert_eq!(contact.deals.len(), 1);
        assert_eq!(scenario.world.protocol_errors, [""; 0]);
    }
}

#[test]
fn a_new_deal_hangs_on_its_contact_and_answers_by_request_id() {
    let mut scenario = scenario(AmoQuirks::default());
    let contact = scenario
        .world
        .add_contact("Динара Ким", &["dinara@school.kz"], &[]);
    let items: Vec<Value> = (0..20)
        .map(|n| {
            json!({"name": format!("Сделка {n}"), "pipeline_id": scenario.pipeline, "status_id": 142,
                "request_id": format!("r{n}"), "_embedded": {"contacts": [{"id": contact, "is_main": true}]}})
        })
        .collect();
    let reply = body(&scenario.write(Write::CreateDeals, &items.into()));
    let answers = reply["_embedded"]["leads"].as_array().unwrap();
    let in_order = (0..20).map(|n| format!("r{n}"));
    let answered: Vec<&str> = answers
        .iter()
        .map(|it| it["request_id"].as_str().unwrap())
        .collect();
    assert!(!in_order.eq(answered), "answers come in another order");
    for answer in answers {
        let deal = scenario
            .world
            .deal(DealId::new(answer["id"].as_i64().unwrap()))
            .unwrap();
        let number = answer["request_id"]
            .as_str()
            .unwrap()
            .trim_start_matches('r');
        assert_eq!(deal.name, format!("Сделка {number}"));
        assert!(deal.closed_at.is_some());
    }
    assert_eq!(scenario.world.contact(contact).unwrap().deals.len(), 20);
}

#[test]
fn a_note_is_stored_without_outer_spaces() {
    let mut scenario = scenario(AmoQuirks::default());
    let deal = scenario.deal(0);
    let note = json!([{"entity_id": deal, "note_type": "common", "params": {"text": " Логин \n"}, "request_id": "n1"}]);
    let reply = body(&scenario.write(Write::AddNotes { of: None }, &note));
    assert_eq!(reply["_embedded"]["notes"][0]["request_id"], "n1");
    let texts: Vec<&str> = scenario
        .world
        .notes_of(deal)
        .map(|it| it.text.as_str())
        .collect();
    assert_eq!(texts, ["Логин"]);
}

#[test]
fn one_item_can_be_refused_on_demand() {
    for others_applied in [false, true] {
        let mut scenario = scenario(AmoQuirks::default());
        let deals = [scenario.deal(0), scenario.deal(0)];
        let bulk = json!(deals.map(|deal| scenario.moved(deal, scenario.stages[1])));
        let rejection = Rejection {
            bad_index: 0,
            others_applied,
        };
        let reply = scenario
            .world
            .write(Write::UpdateDeals, Some(&bulk), Some(rejection));
        assert_eq!(body(&reply)["validation-errors"][0]["request_id"], "0");
        let is_moved = deals.map(|it| scenario.world.deal(it).unwrap().stage == scenario.stages[1]);
        assert_eq!(is_moved, [false, others_applied]);
    }
}

#[test]
fn the_search_is_careless() {
    let mut scenario = scenario(AmoQuirks::default());
    let world = &mut scenario.world;
    let ann = world.add_contact("Анна Ли", &["Ann@x.org "], &["+7 (701) 222-33-44"]);
    let joann = world.add_contact("Жоанна Ли", &["joann@x.org"], &[]);
    let noted = world.add_contact("Пётр", &[], &[]);
    world
        .add_text_field(noted, "Комментарий", "Муж ann@X.org")
        .unwrap();
    let gone = world.add_contact("Анна", &["ann@x.org"], &[]);
    world.delete_contact(gone).unwrap();
    assert_eq!(world.search("ann@x.org"), [ann, joann, noted]);
    assert_eq!(world.search("701222"), [ann]);
    assert_eq!(world.search("(701) 222"), [ann]);
    assert_eq!(world.search("ли"), [ann, joann]);
    world.quirks.fuzzy_query = false;
    assert_eq!(world.search("ann@x.org"), [ann]);
}

#[test]
fn the_index_lags_behind_and_the_old_text_is_found_meanwhile() {
    let mut scenario = scenario(AmoQuirks::default());
    let id = scenario
        .world
        .create_contact("Айдос", &["aidos@x.org"], &[]);
    assert_eq!(scenario.world.search("aidos@x.org"), []);
    scenario.clock.advance(Duration::from_secs(2));
    assert_eq!(scenario.world.search("aidos@x.org"), [id]);
    scenario.world.edit_contact(id, |contact| {
        contact.fields = vec![super::records::multi_field(
            "Email",
            "EMAIL",
            &["new@x.org"],
        )];
    });
    assert_eq!(scenario.world.search("aidos@x.org"), [id]);
    assert_eq!(scenario.world.search("new@x.org"), []);
    scenario.clock.advance(Duration::from_secs(2));
    assert_eq!(scenario.world.search("aidos@x.org"), []);
    assert_eq!(scenario.world.search("new@x.org"), [id]);
}

#[test]
fn time_is_counted_in_whole_seconds() {
    let clock = Clock::at("2026-11-22T10:00:00.9Z".parse().unwrap());
    let world = World::new(AmoQuirks::default(), clock);
    let whole: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
    assert_eq!(world.now(), whole);
}
