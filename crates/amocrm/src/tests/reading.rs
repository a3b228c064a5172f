use std::num::NonZeroU32;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Reply, Server, client, client_with, server::Seen, settings};
use crate::{
    Account, AmoCrm, AmoError, ById, ContactId, DealId, Email, IDS_PER_READ, Note, NoteId, Phone,
    PipelineId, Settings, StageId, Unreadable, by_ids, wire,
};

fn contacts(items: &[Value]) -> Reply {
    Reply::json(200, &json!({"_page": 1, "_embedded": {"contacts": items}}))
}

fn contact(id: i64) -> Value {
    json!({"id": id, "name": "Ann", "_embedded": {"leads": []}})
}

/// In the order of their ids.
fn ordered<K: Ord, T>(found: ById<K, T>) -> Vec<T> {
    let mut items: Vec<(K, T)> = found.items.into_iter().collect();
    items.sort_by(|(one, _), (other, _)| one.cmp(other));
    items.into_iter().map(|(_, item)| item).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut pairs: Vec<_> = pairs.iter().map(owned).collect();
    pairs.sort();
    pairs
}

fn asked(server: &Server) -> (String, Vec<(String, String)>) {
    let seen = server.only_seen();
    assert_eq!(seen.method, "GET");
    let mut query = seen.query();
    query.sort();
    (seen.path().to_owned(), query)
}

#[tokio::test]
async fn an_account_is_read() {
    let body = json!({"id": 9, "name": "School", "subdomain": "school", "current_user_id": 7});
    let server = Server::start([Reply::json(200, &body)]).await;
    let account = client(&server).account().await.unwrap();
    let expected = Account {
        id: 9,
        name: "School".to_owned(),
        subdomain: "school".to_owned(),
    };
    assert_eq!(account, expected);
    assert_eq!(server.only_seen().target, "/api/v4/account");
}

#[tokio::test]
async fn every_request_carries_the_token_and_our_name() {
    let server = Server::start([Reply::empty()]).await;
    client(&server).search_contacts("ann@x.org").await.unwrap();
    let seen = server.only_seen();
    assert_eq!(seen.header("authorization"), Some("Bearer sekret-token"));
    assert_eq!(seen.header("user-agent"), Some("test/1.0"));
}

#[tokio::test]
async fn pipelines_are_read_with_their_stages() {
    let body = json!({"_total_items": 1, "_embedded": {"pipelines": [
        {"id": 31, "name": "Sales", "is_archive": false, "_embedded": {"statuses": [
            {"id": 310, "name": "Incoming", "sort": 10, "type": 1, "color": "#c1c1c1"},
            {"id": 142, "name": "Won", "sort": 10000, "type": 0}]}},
        {"id": 32, "name": "Old", "is_archive": true, "_embedded": {"statuses": []}}]}});
    let server = Server::start([Reply::json(200, &body)]).await;
    let pipelines = client(&server).pipelines().await.unwrap().items;
    assert_eq!(server.only_seen().path(), "/api/v4/leads/pipelines");
    let [sales, old] = &pipelines[..] else {
        panic!("{pipelines:?}")
    };
    assert_eq!(
        (sales.id, sales.is_archive, old.is_archive),
        (PipelineId::new(31), false, true)
    );
    let stages = sales.stages.iter();
    let stages: Vec<_> = stages
        .map(|stage| (stage.id.get(), stage.sort, stage.is_unsorted))
        .collect();
    assert_eq!(stages, [(310, 10, true), (142, 10000, false)]);
}

#[tokio::test]
async fn a_plus_in_an_address_reaches_amocrm_as_a_plus() {
    let server = Server::start([Reply::empty()]).await;
    client(&server)
        .search_contacts("ann+1&x=y@x.org")
        .await
        .unwrap();
    let target = server.only_seen().target;
    assert!(
        target.contains("query=ann%2B1%26x%3Dy%40x.org&"),
        "{target}"
    );
}

#[tokio::test]
async fn a_search_asks_for_full_pages_with_deals() {
    let server = Server::start([Reply::empty()]).await;
    let search = client(&server).search_contacts(" ann@x.org ").await;
    assert!(search.unwrap().complete);
    let expected = pairs(&[
        ("limit", "250"),
        ("page", "1"),
        ("query", "ann@x.org"),
        ("with", "leads"),
    ]);
    assert_eq!(asked(&server), ("/api/v4/contacts".into(), expected));
}

#[tokio::test]
async fn a_short_search_is_not_sent_and_knows_nothing() {
    let server = Server::start([]).await;
    for text in ["", "   ", "a@b.c", " ann@  "] {
        let search = client(&server).search_contacts(text).await.unwrap();
        assert!(search.hits.is_empty() && !search.complete, "{text:?}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_search_is_read_page_by_page_until_a_short_one() {
    // No page names a next one: that alone must not end it.
    let full: Vec<_> = (0..250).map(contact).collect();
    let server = Server::start([contacts(&full), contacts(&[contact(900)])]).await;
    let search = client(&server).search_contacts("ann@x.org").await.unwrap();
    assert_eq!((search.hits.len(), search.complete), (251, true));
    let pages = server.seen().into_iter().map(|seen| seen.query());
    let pages: Vec<_> = pages
        .filter_map(|query| query.into_iter().find(|(name, _)| name == "page"))
        .map(|(_, page)| page)
        .collect();
    assert_eq!(pages, ["1", "2"]);
}

#[tokio::test]
async fn a_short_page_that_names_a_next_one_is_not_the_last() {
    let first = json!({
        "_links": {"next": {"href": "https://other.example/"}},
        "_embedded": {"contacts": [contact(1)]},
    });
    let server = Server::start([Reply::json(200, &first), Reply::empty()]).await;
    let search = client(&server).search_contacts("ann@x.org").await.unwrap();
    assert_eq!((search.hits.len(), search.complete), (1, true));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_search_cut_off_at_its_page_cap_says_so() {
    let full: Vec<_> = (0..250).map(contact).collect();
    let server = Server::start(std::iter::repeat_n(contacts(&full), 5)).await;
    let search = client(&server).search_contacts("ann@x.org").await.unwrap();
    assert!(!search.complete);
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn contacts_are_read_by_id() {
    let server = Server::start([contacts(&[contact(2)])]).await;
    let ids = [ContactId::new(1), ContactId::new(2)];
    let found = ordered(client(&server).all_contacts(&ids).await.unwrap());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, ContactId::new(2));
    let expected = pairs(&[
        ("filter[id][]", "1"),
        ("filter[id][]", "2"),
        ("limit", "250"),
        ("page", "1"),
        ("with", "leads"),
    ]);
    assert_eq!(asked(&server), ("/api/v4/contacts".into(), expected));
    let target = server.only_seen().target;
    assert!(target.contains("filter[id][]=1"), "{target}");
}

#[tokio::test]
async fn as_many_long_ids_as_one_read_may_have_fit_into_a_url() {
    let server = Server::start([Reply::empty()]).await;
    let ids: Vec<_> = (9_999_999_000..)
        .take(IDS_PER_READ)
        .map(DealId::new)
        .collect();
    client(&server).all_notes(&ids).await.unwrap();
    let length = server.only_seen().target.len();
    assert!((7_000..8_000).contains(&length), "{length} bytes");
}

#[tokio::test]
async fn no_ids_ask_for_no_contact_instead_of_all() {
    let server = Server::start([]).await;
    let client = client(&server);
    assert!(client.all_contacts(&[]).await.unwrap().items.is_empty());
    assert!(client.all_deals(&[]).await.unwrap().items.is_empty());
    assert!(client.all_notes(&[]).await.unwrap().items.is_empty());
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn contacts_that_were_not_asked_for_are_left_out() {
    let server = Server::start([contacts(&[contact(1), contact(2)])]).await;
    let found = client(&server).all_contacts(&[ContactId::new(2)]).await;
    let ids: Vec<_> = found.unwrap().items.into_keys().collect();
    assert_eq!(ids, [ContactId::new(2)]);
}

#[tokio::test]
async fn a_filter_that_is_ignored_does_not_lead_through_the_whole_account() {
    let full: Vec<_> = (0..250).map(contact).collect();
    let server = Server::start(std::iter::repeat_n(contacts(&full), 3)).await;
    let found = client(&server).all_contacts(&[ContactId::new(2)]).await;
    assert!(
        matches!(found, Err(AmoError::Malformed { .. })),
        "{found:?}"
    );
    assert_eq!(server.seen().len(), 1);
}

/// A short page that names a next one.
fn more(name: &str, items: &[Value]) -> Reply {
    let next = json!({"next": {"href": "https://x.org/next"}});
    Reply::json(200, &json!({"_links": next, "_embedded": {name: items}}))
}

fn note(id: i64) -> Value {
    json!({"id": id, "entity_id": 2, "params": {"text": "a"}})
}

/// Not held up by the throttle.
fn quick_client(server: &Server) -> AmoCrm {
    client_with(Settings {
        requests_per_second: NonZeroU32::new(1_000).unwrap(),
        ..settings(&server.url)
    })
}

/// For any answers of amoCRM, the pages of a list have an end, and a list that may be incomplete is an error.
#[tokio::test]
async fn no_list_leads_through_pages_without_end() {
    type Expected = Result<usize, &'static str>;
    let pages = |n: usize, page: &dyn Fn(i64) -> Reply| (0..).take(n).map(page).collect();
    let full_of_notes = |from: i64| (from..from + 250).map(note).collect::<Vec<_>>();
    let table: [(&str, Vec<Reply>, Expected, usize); 6] = [
        (
            "the same page again and again",
            pages(9, &|_| more("notes", &full_of_notes(0))),
            Err("a page that brings nothing new"),
            2,
        ),
        (
            "empty pages that name a next one",
            pages(9, &|_| more("notes", &[])),
            Err("a page that brings nothing new"),
            1,
        ),
        (
            "one new note a page, for ever",
            pages(120, &|n| more("notes", &[note(n)])),
            Err("a list without an end"),
            100,
        ),
        (
            "pages that overlap by one, and end",
            pages(3, &|n| {
                let notes = [note(n), note(n + 1)];
                if n < 2 {
                    more("notes", &notes)
                } else {
                    Reply::json(200, &json!({"_embedded": {"notes": notes}}))
                }
            }),
            Ok(6),
            3,
        ),
        (
            "full pages, then one with nothing",
            vec![
                more("notes", &full_of_notes(0)),
                more("notes", &full_of_notes(250)),
                Reply::empty(),
            ],
            Ok(500),
            3,
        ),
        (
            "pages of others' notes",
            pages(9, &|n| more("notes", &[json!({"id": n, "entity_id": 3})])),
            Err("a list that ignores its filter"),
            1,
        ),
    ];
    for (what, replies, expected, requests) in table {
        let server = Server::start(replies).await;
        let found = quick_client(&server).all_notes(&[DealId::new(2)]).await;
        match (found, expected) {
            (Ok(found), Ok(count)) => assert_eq!(found.items.len(), count, "{what}"),
            (Err(AmoError::Malformed { what: why }), Err(wanted)) => {
                assert_eq!(why, wanted, "{what}");
            }
            (found, _) => panic!("{what}: {found:?}"),
        }
        assert_eq!(server.seen().len(), requests, "{what}");
    }
}

#[tokio::test]
async fn newest_and_changed_contacts_are_ordered_by_amocrm() {
    let full: Vec<_> = (0..250).map(contact).collect();
    let replies = [contacts(&full), contacts(&[contact(1)])];
    let server = Server::start(replies).await;
    let client = client(&server);
    let newest = client.newest_contacts(1).await.unwrap();
    let changed = client.changed_contacts(3).await.unwrap();
    assert_eq!((newest.contacts.len(), newest.is_last), (250, false));
    assert_eq!((changed.contacts.len(), changed.is_last), (1, true));
    let queries: Vec<_> = server.seen().iter().map(Seen::query).collect();
    let has = |index: usize, name: &str, value: &str| {
        assert!(
            queries[index].contains(&(name.to_owned(), value.to_owned())),
            "{queries:?}"
        );
    };
    has(0, "order[id]", "desc");
    has(0, "page", "1");
    has(0, "with", "leads");
    has(1, "order[updated_at]", "desc");
    has(1, "page", "3");
    has(1, "with", "leads");
}

#[tokio::test]
async fn a_contact_is_read_with_all_its_sound_addresses_phones_and_deals() {
    let item = json!({
        "id": 501, "name": "Ann Lee", "created_at": 1_760_000_000, "updated_at": 1_760_000_100,
        "closest_task_at": null, "is_deleted": false,
        "custom_fields_values": [
            {"field_id": 11, "field_name": "Почта", "field_code": "EMAIL", "values": [
                {"value": " Ann@X.org ", "enum_code": "WORK"}, {"value": "nonsense"}, {"value": "a2@x.org"}]},
            {"field_id": 12, "field_code": "PHONE", "values": [{"value": "+7 (701) 234-56-78"}, {"value": 77_012_345_679_i64}]},
            {"field_id": 13, "field_code": null, "field_name": "Email", "values": [{"value": "other@x.org"}]},
            {"field_id": 14, "field_type": "file", "values": {"odd": [1]}}],
        "_embedded": {"tags": [], "leads": [{"id": 901, "_links": {}}, {"id": 902}]}});
    let server = Server::start([contacts(&[item])]).await;
    let id = ContactId::new(501);
    let found = client(&server).all_contacts(&[id]).await.unwrap();
    let contact = &found.items[&id];
    let emails = ["ann@x.org", "a2@x.org"].map(|text| Email::parse(text).unwrap());
    assert_eq!(contact.emails, emails);
    assert!(contact.has_email);
    let phones = ["7012345678", "7012345679"].map(|text| Phone::parse(text).unwrap());
    assert_eq!(contact.phones, phones);
    assert_eq!(contact.deals, [901, 902].map(DealId::new));
    assert_eq!(contact.created_at.as_second(), 1_760_000_000);
    assert_eq!(contact.updated_at.as_second(), 1_760_000_100);
}

#[tokio::test]
async fn a_contact_without_anything_but_its_id_is_still_a_contact() {
    let bare = json!({"id": 501});
    let php = json!({"id": 502, "name": null, "created_at": null, "custom_fields_values": null, "_embedded": []});
    let server = Server::start([contacts(&[bare, php])]).await;
    let found = client(&server)
        .all_contacts(&[501, 502].map(ContactId::new))
        .await;
    for contact in ordered(found.unwrap()) {
        assert!(!contact.has_email && contact.emails.is_empty() && contact.deals.is_empty());
        assert_eq!(contact.created_at, Timestamp::UNIX_EPOCH);
    }
}

/// What PHP makes of lists, empty objects and numbers.
#[tokio::test]
async fn an_item_is_read_in_every_shape_that_php_gives_it() {
    let email = json!({"field_code": "EMAIL", "values": [{"value": "ann@x.org"}]});
    let by_place = json!({"field_code": "EMAIL", "values": {"3": {"value": "ann@x.org"}}});
    let leads = json!([{"id": 901}, {"id": 902}]);
    for (id, fields, leads) in [
        (json!(501), json!([email]), leads.clone()),
        (
            json!("501"),
            json!([email]),
            json!([{"id": "901"}, {"id": "902"}]),
        ),
        (
            json!(501),
            json!({"0": email}),
            json!({"2": {"id": 901}, "10": {"id": 902}}),
        ),
        (
            json!(501),
            json!({"7": by_place, "9": {"field_code": 4, "values": {}}}),
            leads,
        ),
    ] {
        let item = json!({"id": id, "custom_fields_values": fields, "_embedded": {"leads": leads}});
        for items in [json!([item]), json!({"0": item}), json!({"5": item})] {
            let body = json!({"_embedded": {"contacts": items}});
            let server = Server::start([Reply::json(200, &body)]).await;
            let ids = [ContactId::new(501)];
            let found = ordered(client(&server).all_contacts(&ids).await.unwrap());
            assert_eq!(found.len(), 1, "{body}");
            assert_eq!(
                found[0].emails,
                [Email::parse("ann@x.org").unwrap()],
                "{body}"
            );
            assert_eq!(found[0].deals, [901, 902].map(DealId::new), "{body}");
        }
    }
    for empty in [json!({}), json!([]), Value::Null] {
        let item = json!({"id": 501, "custom_fields_values": empty, "_embedded": {"leads": empty}});
        let server = Server::start([contacts(&[item])]).await;
        let ids = [ContactId::new(501)];
        let found = ordered(client(&server).all_contacts(&ids).await.unwrap());
        assert!(!found[0].has_email && found[0].deals.is_empty());
    }
    let none = json!({"_embedded": {"contacts": {}}});
    let server = Server::start([Reply::json(200, &none)]).await;
    assert_eq!(
        client(&server).newest_contacts(1).await.unwrap().contacts,
        []
    );
}

/// An answer that is no list must not count as empty: a second contact would be created.
#[tokio::test]
async fn what_is_no_list_does_not_pass_for_empty() {
    for items in [Value::Null, json!("none"), json!({"contacts": []})] {
        let body = json!({"_embedded": {"contacts": items}});
        let server = Server::start([Reply::json(200, &body)]).await;
        let found = client(&server).newest_contacts(1).await;
        assert!(
            matches!(found, Err(AmoError::Malformed { .. })),
            "{body}: {found:?}"
        );
    }
}

fn unreadable(ids: &[i64], without_id: bool) -> Unreadable {
    Unreadable {
        ids: ids.iter().copied().collect(),
        without_id,
    }
}

/// An unreadable item is unknown, not missing, and does not spoil the others.
#[tokio::test]
async fn an_item_that_cannot_be_read_is_unknown_and_the_others_are_read() {
    let table = [
        (Value::Null, unreadable(&[], true)),
        (json!([]), unreadable(&[], true)),
        (json!("one"), unreadable(&[], true)),
        (json!({"name": "Ann"}), unreadable(&[], true)),
        (json!({"id": "one"}), unreadable(&[], true)),
        (json!({"id": 1.5}), unreadable(&[], true)),
        (
            json!({"id": 1, "custom_fields_values": "EMAIL"}),
            unreadable(&[1], false),
        ),
        (
            json!({"id": "1", "custom_fields_values": {"EMAIL": []}}),
            unreadable(&[1], false),
        ),
        (
            json!({"id": 1, "custom_fields_values": [null]}),
            unreadable(&[1], false),
        ),
        (
            json!({"id": 1, "_embedded": {"leads": 5}}),
            unreadable(&[1], false),
        ),
        (
            json!({"id": 1, "_embedded": {"leads": [{}]}}),
            unreadable(&[1], false),
        ),
        (
            json!({"id": 1, "_embedded": {"leads": [null]}}),
            unreadable(&[1], false),
        ),
        (
            json!({"id": 1, "_embedded": "leads"}),
            unreadable(&[1], false),
        ),
        // Deleted, regardless of its other members.
        (
            json!({"id": 1, "is_deleted": true, "_embedded": 5}),
            Unreadable::default(),
        ),
    ];
    for (item, expected) in table {
        for place in 0..3 {
            let mut items = vec![contact(2), contact(3)];
            items.insert(place, item.clone());
            let server = Server::start([contacts(&items)]).await;
            let found = client(&server).newest_contacts(1).await.unwrap();
            let ids: Vec<i64> = found.contacts.iter().map(|it| it.id.get()).collect();
            assert_eq!(ids, [2, 3], "{item}");
            assert_eq!(found.unreadable, expected, "{item}");
        }
    }
}

/// A contact with an unreadable address may have any e-mail.
#[tokio::test]
async fn a_contact_whose_email_cannot_be_read_is_unknown() {
    for values in [json!("ann@x.org"), json!(5), json!({"value": "ann@x.org"})] {
        let field = json!({"field_code": "EMAIL", "values": values});
        let item = json!({"id": 1, "custom_fields_values": [field]});
        let server = Server::start([contacts(&[item])]).await;
        let found = client(&server)
            .all_contacts(&[ContactId::new(1)])
            .await
            .unwrap();
        assert_eq!(found.unreadable, unreadable(&[1], false), "{values}");
    }
}

#[tokio::test]
async fn an_unsound_address_is_still_an_address() {
    for (value, has_email) in [
        (json!("nonsense"), true),
        (json!("  "), false),
        (Value::Null, false),
    ] {
        let item = json!({"id": 1, "custom_fields_values": [
            {"field_code": "EMAIL", "values": [{"value": value}]}]});
        let server = Server::start([contacts(&[item])]).await;
        let id = ContactId::new(1);
        let found = client(&server).all_contacts(&[id]).await.unwrap();
        let contact = &found.items[&id];
        assert_eq!(
            (contact.emails.len(), contact.has_email),
            (0, has_email),
            "{value}"
        );
    }
}

#[tokio::test]
async fn a_deleted_contact_is_not_found() {
    let deleted = json!({"id": 1, "is_deleted": true});
    let server = Server::start([contacts(&[deleted, contact(2)])]).await;
    let found = client(&server).newest_contacts(1).await.unwrap();
    assert_eq!(found.contacts.len(), 1);
    assert_eq!(found.contacts[0].id, ContactId::new(2));
}

#[tokio::test]
async fn deals_are_read_by_id_without_the_deleted() {
    let body = json!({"_embedded": {"leads": [
        {"id": 901, "name": "Course", "price": 100, "status_id": 142, "pipeline_id": 31,
         "created_at": 1_760_000_000, "updated_at": 1_760_000_500, "closed_at": 1_760_000_400, "is_deleted": false,
         "_embedded": {"contacts": [{"id": 500, "is_main": false}, {"id": 501, "is_main": true}]}},
        {"id": 902, "status_id": 311, "pipeline_id": 31, "closed_at": null},
        {"id": 903, "status_id": 311, "pipeline_id": 31, "is_deleted": true}]}});
    let server = Server::start([Reply::json(200, &body)]).await;
    let ids = [901, 902, 903].map(DealId::new);
    let found = ordered(client(&server).all_deals(&ids).await.unwrap());
    let [course, bare] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(
        (course.name.as_str(), course.pipeline.get(), course.stage),
        ("Course", 31, StageId::WON)
    );
    assert_eq!(
        course.closed_at.map(Timestamp::as_second),
        Some(1_760_000_400)
    );
    assert_eq!(course.contacts, [500, 501].map(ContactId::new));
    assert_eq!(course.main_contact, Some(ContactId::new(501)));
    assert_eq!((bare.closed_at, bare.main_contact), (None, None));
    let (path, query) = asked(&server);
    assert_eq!(path, "/api/v4/leads");
    assert!(query.contains(&("with".into(), "contacts".into())));
    assert!(query.contains(&("limit".into(), "250".into())));
}

#[tokio::test]
async fn notes_are_read_to_the_end_in_the_order_of_their_ids() {
    let note = |id: i64| json!({"id": id, "entity_id": 901, "note_type": "common", "params": {"text": "Bought"}});
    let notes = |items: Vec<Value>| Reply::json(200, &json!({"_embedded": {"notes": items}}));
    let odd = json!({"id": 1000, "entity_id": 901, "note_type": "common", "params": []});
    let server = Server::start([notes((0..250).map(note).collect()), notes(vec![odd])]).await;
    let found = client(&server)
        .all_notes(&[DealId::new(901)])
        .await
        .unwrap()
        .items;
    assert_eq!(found.len(), 251);
    let expected = Note {
        id: NoteId::new(0),
        deal: DealId::new(901),
        text: "Bought".to_owned(),
    };
    assert_eq!(found[0], expected);
    assert_eq!(found[250].text, "", "not plain text");
    let seen = server.seen();
    assert_eq!(seen[0].path(), "/api/v4/leads/notes");
    let mut query = seen[1].query();
    query.sort();
    let expected = pairs(&[
        ("filter[entity_id][]", "901"),
        ("filter[note_type][]", "common"),
        ("limit", "250"),
        ("order[id]", "asc"),
        ("page", "2"),
    ]);
    assert_eq!(query, expected);
}

#[tokio::test]
async fn a_deal_or_note_that_cannot_be_read_is_known_by_its_id() {
    let deals = json!({"_embedded": {"leads": [
        {"id": 901, "pipeline_id": 31},
        {"id": 902, "status_id": 311, "pipeline_id": 31},
        null]}});
    let server = Server::start([Reply::json(200, &deals)]).await;
    let found = client(&server)
        .all_pages::<wire::Deals>(&by_ids::DEALS, &[901, 902])
        .await
        .unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.unreadable, unreadable(&[901], true));

    let notes = json!({"_embedded": {"notes": [
        {"id": 1, "entity_id": 901, "params": {"text": ["Bought"]}},
        {"id": 2, "entity_id": 902, "params": "Bought"},
        {"id": 3, "entity_id": 902, "params": {"text": "Bought"}}]}});
    let server = Server::start([Reply::json(200, &notes)]).await;
    let found = client(&server)
        .all_notes(&[901, 902].map(DealId::new))
        .await
        .unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.unreadable, unreadable(&[901, 902], false));
}

/// Without its id, every id without an answer would be unknown.
#[tokio::test]
async fn an_item_without_an_id_is_asked_for_in_halves_until_its_id_is_known() {
    let server = Server::start([
        contacts(&[contact(2), Value::Null, contact(3)]),
        contacts(&[Value::Null, contact(2)]),
        contacts(&[Value::Null]),
        contacts(&[contact(2)]),
        contacts(&[contact(3)]),
    ])
    .await;
    let ids = [1, 2, 3, 4].map(ContactId::new);
    let found = client(&server).all_contacts(&ids).await.unwrap();
    let mut known: Vec<i64> = found.items.keys().map(|id| id.get()).collect();
    known.sort_unstable();
    assert_eq!(known, [2, 3]);
    assert_eq!(
        found.unreadable,
        unreadable(&[1], false),
        "the fourth is missing"
    );
}

/// A stage that cannot be read may be the very target.
#[tokio::test]
async fn a_pipeline_says_whether_all_of_its_stages_could_be_read() {
    let pipeline = |statuses: Value| {
        let statuses = json!({"statuses": statuses});
        json!({"id": 31, "name": "Sales", "is_archive": false, "_embedded": statuses})
    };
    let stage = json!({"id": 310, "name": "New", "sort": 10});
    let body = json!({"_embedded": {"pipelines": [
        pipeline(json!([stage, null])), pipeline(json!([stage])), 7]}});
    let server = Server::start([Reply::json(200, &body)]).await;
    let found = client(&server).pipelines().await.unwrap();
    let whole: Vec<bool> = found.items.iter().map(|it| it.is_whole).collect();
    assert_eq!(whole, [false, true]);
    assert!(found.unreadable.without_id);
}

#[tokio::test]
async fn nothing_found_is_an_empty_list() {
    let missing = json!({"title": "Not Found", "status": 404});
    let replies = [
        Reply::empty(),
        Reply::json(404, &missing),
        Reply::text(404, &[], ""),
    ];
    for reply in replies {
        let server = Server::start([reply]).await;
        let found = client(&server).all_contacts(&[ContactId::new(1)]).await;
        assert!(found.unwrap().items.is_empty());
    }
}

#[tokio::test]
async fn a_page_in_html_is_no_proof_that_no_contact_was_found() {
    let server = Server::start([Reply::html(404)]).await;
    let found = client(&server).all_contacts(&[ContactId::new(1)]).await;
    assert!(
        matches!(found, Err(AmoError::Unexpected { status: 404 })),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_path_in_the_base_url_is_kept() {
    let server = Server::start([Reply::empty()]).await;
    for end in ["proxy/crm", "proxy/crm/"] {
        let mut settings = super::settings(&server.url);
        settings.base_url = server.url.join(end).unwrap();
        let _ = super::client_with(settings)
            .all_contacts(&[ContactId::new(1)])
            .await;
    }
    for seen in server.seen() {
        assert_eq!(seen.path(), "/proxy/crm/api/v4/contacts");
    }
}
