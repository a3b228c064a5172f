use serde_json::{Value, json};

use super::{Reply, Server, TARGET, client, soon};
use crate::{
    AmoError, ContactId, DealId, Email, ItemProblem, NewDeal, NewDealAndContact, NewNote, NoteId,
};

fn deal(name: &str) -> NewDeal {
    NewDeal {
        name: name.to_owned(),
        price: None,
        contact: ContactId::new(501),
    }
}

fn pair(phone: Option<&str>) -> NewDealAndContact {
    NewDealAndContact {
        deal_name: "Course - Bo".to_owned(),
        price: Some(100),
        contact_name: "Bo Ray".to_owned(),
        email: Email::parse("Bo@x.org").unwrap(),
        phone: phone.map(str::to_owned),
    }
}

fn note(deal: i64, text: &str) -> NewNote {
    NewNote {
        deal: DealId::new(deal),
        text: text.to_owned(),
    }
}

fn leads(items: &Value) -> Reply {
    Reply::json(200, &json!({"_embedded": {"leads": items}}))
}

const DEALS: [DealId; 3] = [DealId::new(901), DealId::new(902), DealId::new(903)];

#[tokio::test]
async fn a_move_names_id_pipeline_and_stage_and_nothing_else() {
    let server = Server::start([leads(&json!([{"id": 902}, {"id": 901}]))]).await;
    let moved = client(&server)
        .move_deals(&DEALS[..2], TARGET, soon())
        .await;
    assert_eq!(moved.unwrap(), [Some(DEALS[0]), Some(DEALS[1])]);
    let seen = server.only_seen();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("PATCH", "/api/v4/leads")
    );
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let expected = json!([
        {"id": 901, "pipeline_id": 31, "status_id": 142},
        {"id": 902, "pipeline_id": 31, "status_id": 142}]);
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn a_created_deal_is_sent_with_its_main_contact() {
    let server = Server::start([leads(&json!([{"id": 903, "request_id": "0"}]))]).await;
    let priced = NewDeal {
        price: Some(0),
        ..deal("Course")
    };
    let created = client(&server)
        .create_deals(&[priced, deal("Other")], TARGET, soon())
        .await;
    assert_eq!(created.unwrap(), [Some(DealId::new(903)), None]);
    let seen = server.only_seen();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("POST", "/api/v4/leads")
    );
    let contacts = json!({"contacts": [{"id": 501, "is_main": true}]});
    let expected = json!([
        {"name": "Course", "pipeline_id": 31, "status_id": 142, "price": 0, "request_id": "0", "_embedded": contacts},
        {"name": "Other", "pipeline_id": 31, "status_id": 142, "request_id": "1", "_embedded": contacts}]);
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn a_deal_with_its_contact_is_sent_in_one_piece() {
    let answer = json!([{"id": 903, "contact_id": 502, "company_id": null, "request_id": ["0"], "merged": false}]);
    let server = Server::start([Reply::json(200, &answer)]).await;
    let created = client(&server)
        .create_deals_and_contacts(&[pair(Some("+7 701"))], TARGET, soon())
        .await;
    assert_eq!(
        created.unwrap(),
        [Some((DealId::new(903), ContactId::new(502)))]
    );
    let seen = server.only_seen();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("POST", "/api/v4/leads/complex")
    );
    let expected = json!([{
        "name": "Course - Bo", "pipeline_id": 31, "status_id": 142, "price": 100, "request_id": "0",
        "_embedded": {"contacts": [{"name": "Bo Ray", "custom_fields_values": [
            {"field_code": "EMAIL", "values": [{"value": "bo@x.org", "enum_code": "WORK"}]},
            {"field_code": "PHONE", "values": [{"value": "+7 701", "enum_code": "WORK"}]}]}]}}]);
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn a_contact_without_a_phone_gets_no_phone_field() {
    for phone in [None, Some(" ")] {
        let server = Server::start([Reply::json(200, &json!([]))]).await;
        client(&server)
            .create_deals_and_contacts(&[pair(phone)], TARGET, soon())
            .await
            .unwrap();
        let body = server.only_seen().json();
        let fields = &body[0]["_embedded"]["contacts"][0]["custom_fields_values"];
        assert_eq!(fields.as_array().unwrap().len(), 1, "{phone:?}");
    }
}

#[tokio::test]
async fn a_note_is_sent_trimmed() {
    let answer = json!({"_embedded": {"notes": [{"id": 77, "entity_id": 901, "request_id": "0"}]}});
    let server = Server::start([Reply::json(200, &answer)]).await;
    let added = client(&server)
        .add_notes(&[note(901, " Bought\n")], soon())
        .await;
    assert_eq!(added.unwrap(), [Some(NoteId::new(77))]);
    let seen = server.only_seen();
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("POST", "/api/v4/leads/notes")
    );
    let expected = json!([
        {"entity_id": 901, "note_type": "common", "params": {"text": "Bought"}, "request_id": "0"}]);
    assert_eq!(seen.json(), expected);
}

#[tokio::test]
async fn nothing_to_write_is_not_sent() {
    let server = Server::start([]).await;
    let client = client(&server);
    assert_eq!(client.move_deals(&[], TARGET, soon()).await.unwrap(), []);
    assert_eq!(client.create_deals(&[], TARGET, soon()).await.unwrap(), []);
    let created = client.create_deals_and_contacts(&[], TARGET, soon()).await;
    assert_eq!(created.unwrap(), []);
    assert_eq!(client.add_notes(&[], soon()).await.unwrap(), []);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn answers_are_paired_by_request_id_never_by_position() {
    let ids = |ids: [Option<i64>; 3]| ids.map(|id| id.map(DealId::new)).to_vec();
    let table = [
        (
            json!([{"id": 3, "request_id": "2"}, {"id": 1, "request_id": "0"}, {"id": 2, "request_id": "1"}]),
            ids([Some(1), Some(2), Some(3)]),
        ),
        (
            json!([{"id": 3, "request_id": 2}, {"id": 1, "request_id": 0}]),
            ids([Some(1), None, Some(3)]),
        ),
        (
            json!([{"id": 1}, {"id": 2, "request_id": null}, {"id": 3, "request_id": "x"}]),
            ids([None, None, None]),
        ),
        (
            json!([{"id": 9, "request_id": "9"}]),
            ids([None, None, None]),
        ),
        (json!([]), ids([None, None, None])),
    ];
    for (answer, expected) in table {
        let server = Server::start([leads(&answer)]).await;
        let deals = [deal("a"), deal("b"), deal("c")];
        let created = client(&server).create_deals(&deals, TARGET, soon()).await;
        assert_eq!(created.unwrap(), expected, "{answer}");
    }
}

#[tokio::test]
async fn deals_with_contacts_are_answered_in_several_shapes() {
    let both = [
        Some((DealId::new(1), ContactId::new(11))),
        Some((DealId::new(2), ContactId::new(12))),
    ];
    let glued = [Some((DealId::new(1), ContactId::new(11))); 2];
    let first = [both[0], None];
    let table = [
        (
            json!([{"id": 2, "contact_id": 12, "request_id": ["1"]}, {"id": 1, "contact_id": 11, "request_id": ["0"]}]),
            both,
        ),
        (
            json!({"_embedded": {"leads": [
                {"id": 1, "contact_id": 11, "request_id": "0"}, {"id": 2, "contact_id": 12, "request_id": 1}]}}),
            both,
        ),
        (
            json!([{"id": 1, "contact_id": 11, "request_id": ["0", "1"], "merged": true}]),
            glued,
        ),
        (
            json!([{"id": 1, "contact_id": 11, "request_id": [0]}, {"id": 2, "contact_id": null, "request_id": ["1"]}]),
            first,
        ),
    ];
    for (answer, expected) in table {
        let server = Server::start([Reply::json(200, &answer)]).await;
        let deals = [pair(None), pair(None)];
        let created = client(&server)
            .create_deals_and_contacts(&deals, TARGET, soon())
            .await;
        assert_eq!(created.unwrap(), expected, "{answer}");
    }
}

#[tokio::test]
async fn a_move_that_missed_a_deal_is_a_success_for_the_others() {
    let answers = [
        json!({"_embedded": {"leads": [{"id": 901}, {"id": 903}]}, "errors": {"902": "Lead not found"}}),
        json!({"_embedded": {"leads": [{"id": 903}, {"id": 901}]}}),
    ];
    for answer in answers {
        let server = Server::start([Reply::json(200, &answer)]).await;
        let moved = client(&server).move_deals(&DEALS, TARGET, soon()).await;
        assert_eq!(
            moved.unwrap(),
            [Some(DEALS[0]), None, Some(DEALS[2])],
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_move_answered_only_with_errors_certainly_moved_no_deal() {
    let answer = json!({"errors": {"901": "Lead not found"}});
    let server = Server::start([Reply::json(200, &answer)]).await;
    let moved = client(&server)
        .move_deals(&DEALS[..1], TARGET, soon())
        .await;
    assert_eq!(moved.unwrap(), [None]);
}

#[tokio::test]
async fn answers_are_read_in_every_shape_that_php_gives_them() {
    for items in [
        json!([{"id": "902", "request_id": "1"}, {"id": 901, "request_id": 0}]),
        json!({"0": {"id": 901, "request_id": "0"}, "7": {"id": "902", "request_id": ["1"]}}),
    ] {
        let server = Server::start([leads(&items), leads(&items)]).await;
        let client = client(&server);
        let both = [Some(DealId::new(901)), Some(DealId::new(902))];
        let moved = client.move_deals(&DEALS[..2], TARGET, soon()).await;
        assert_eq!(moved.unwrap(), both, "{items}");
        let made = client
            .create_deals(&[deal("a"), deal("b")], TARGET, soon())
            .await;
        assert_eq!(made.unwrap(), both, "{items}");
    }
}

#[tokio::test]
async fn a_move_answered_with_neither_is_malformed() {
    let server = Server::start([Reply::json(200, &json!({"ok": true}))]).await;
    let moved = client(&server).move_deals(&DEALS, TARGET, soon()).await;
    assert!(
        matches!(moved, Err(AmoError::Malformed { .. })),
        "{moved:?}"
    );
}

#[tokio::test]
async fn a_move_rejected_for_missing_deals_names_their_positions() {
    let answer = json!({"errors": {"903": "Lead not found", "902": "Lead not found"}});
    let server = Server::start([Reply::json(400, &answer)]).await;
    let moved = client(&server).move_deals(&DEALS, TARGET, soon()).await;
    let Err(AmoError::Rejected {
        status: 400,
        problem,
    }) = moved
    else {
        panic!("{moved:?}")
    };
    let missing = |index: usize| ItemProblem {
        index: Some(index),
        code: DEALS[index].to_string(),
        path: String::new(),
        detail: "Lead not found".to_owned(),
    };
    assert_eq!(problem.items.len(), 2);
    assert!(problem.items.contains(&missing(1)) && problem.items.contains(&missing(2)));
}

#[tokio::test]
async fn a_created_item_that_cannot_be_read_is_not_answered_and_the_others_are() {
    for odd in [json!({"request_id": "0"}), Value::Null, json!("903")] {
        let answer = json!([odd, {"id": 904, "request_id": "1"}]);
        let server = Server::start([leads(&answer)]).await;
        let created = client(&server)
            .create_deals(&[deal("a"), deal("b")], TARGET, soon())
            .await
            .unwrap();
        assert_eq!(created, [None, Some(DealId::new(904))], "{odd}");
    }
}

#[tokio::test]
async fn a_write_answered_with_nothing_is_malformed() {
    let server = Server::start([Reply::empty()]).await;
    let added = client(&server)
        .add_notes(&[note(901, "Bought")], soon())
        .await;
    assert!(
        matches!(added, Err(AmoError::Malformed { .. })),
        "{added:?}"
    );
}

#[tokio::test]
async fn a_write_to_a_missing_place_is_rejected_not_empty() {
    let server = Server::start([Reply::json(404, &json!({"status": 404}))]).await;
    let added = client(&server)
        .add_notes(&[note(901, "Bought")], soon())
        .await;
    assert!(
        matches!(added, Err(AmoError::Rejected { status: 404, .. })),
        "{added:?}"
    );
}

#[tokio::test]
async fn a_write_is_not_begun_after_its_limit() {
    let server = Server::start([]).await;
    let past = tokio::time::Instant::now() - std::time::Duration::from_millis(1);
    let added = client(&server)
        .add_notes(&[note(901, "Bought")], past)
        .await;
    assert!(matches!(added, Err(AmoError::TooLate)), "{added:?}");
    assert!(server.seen().is_empty());
}
