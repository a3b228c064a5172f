use super::*;

const STRICT: &str = "return=representation, handling=strict, max-affected=1";

fn written() -> Reply {
    ok(format!(r#"[{{"id":"{ANN}","amocrm_deal_id":"42"}}]"#))
}

async fn write(client: &Supabase) -> Result<WriteBack, SupabaseError> {
    let contact = Some(ContactId::new(7));
    client.write_back(id(ANN), DealId::new(42), contact).await
}

#[actix_web::test]
async fn a_deal_id_is_written_over_null_only() {
    let server = Scripted::start([ok("[]"), written()]).await;

    let outcome = write(&server.client()).await.unwrap();

    assert_eq!(outcome, WriteBack::Written);
    let seen = &server.seen().await[1];
    assert_eq!(seen.method, "PATCH");
    assert_eq!(
        seen.query(),
        [
            ("id", &*format!("eq.{ANN}")),
            ("amocrm_deal_id", "is.null"),
            ("select", "id,amocrm_deal_id")
        ]
    );
    assert_eq!(seen.header("prefer"), Some(STRICT));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({"amocrm_deal_id": "42", "amocrm_contact_id": "7"})
    );
}

#[actix_web::test]
async fn without_a_contact_the_deal_id_is_all() {
    let server = Scripted::start([written()]).await;
    let client = server.client();

    client
        .write_back(id(ANN), DealId::new(42), None)
        .await
        .unwrap();

    assert_eq!(server.seen().await[0].body, r#"{"amocrm_deal_id":"42"}"#);
}

#[actix_web::test]
async fn without_a_column_for_it_the_contact_is_left_out() {
    let mut answers = vec![refusal(400, "42703")];
    answers.extend(vec![ok("[]"); 8]);
    answers.extend([refusal(400, "42703"), written()]);
    let server = Scripted::start(answers).await;

    write(&server.client()).await.unwrap();

    let seen = server.seen().await;
    assert_eq!(seen.last().unwrap().body, r#"{"amocrm_deal_id":"42"}"#);
}

#[actix_web::test]
async fn a_contact_that_may_not_be_written_does_not_hold_up_the_deal_id() {
    for refused in [
        refusal(403, "42501"),
        refusal(400, "PGRST204"),
        refusal(400, "42703"),
    ] {
        let server = Scripted::start([ok("[]"), refused, written(), written()]).await;
        let client = server.client();

        assert_eq!(write(&client).await.unwrap(), WriteBack::Written);
        assert_eq!(write(&client).await.unwrap(), WriteBack::Written);

        let seen = server.seen().await;
        assert!(seen[1].body.contains("amocrm_contact_id"));
        for later in &seen[2..] {
            assert_eq!(later.body, r#"{"amocrm_deal_id":"42"}"#);
        }
    }
}

#[actix_web::test]
async fn a_deal_id_that_may_not_be_written_is_a_refusal() {
    let server = Scripted::start([ok("[]"), refusal(403, "42501"), refusal(403, "42501")]).await;

    let error = write(&server.client()).await.unwrap_err();

    assert!(matches!(error, SupabaseError::Refused { .. }), "{error:?}");
}

fn cell(deal: &str) -> Reply {
    ok(format!(r#"[{{"id":"{ANN}","amocrm_deal_id":{deal}}}]"#))
}

#[actix_web::test]
async fn no_row_is_told_after_a_look_at_what_is_there() {
    let nothing = || reply(404, " []\n");
    for (first, look) in [
        (ok("[]"), ok("[]")),
        (ok("[]"), cell("null")),
        (ok("[]"), cell("41")),
        (ok("[]"), cell(r#""41""#)),
        (ok("[]"), cell("{}")),
        (nothing(), cell(r#""41""#)),
    ] {
        let server = Scripted::start([first, look]).await;
        let client = server.client();

        let outcome = client.write_back(id(ANN), DealId::new(42), None).await;

        assert_eq!(outcome.unwrap(), WriteBack::NoRow);
        let seen = server.seen().await;
        assert_eq!((seen.len(), &*seen[1].method), (2, "GET"));
        assert!(seen[1].query().contains(&("select", "id,amocrm_deal_id")));
        assert!(seen[1].query().contains(&("id", &format!("in.({ANN})"))));
    }
}

#[actix_web::test]
async fn a_blank_text_is_written_over_and_nothing_else() {
    for blank in ["", " ", "\t\r\n", "\u{a0}", "   "] {
        let server = Scripted::start([
            ok("[]"),
            cell(&format!("{blank:?}").replace("\\u{a0}", "\u{a0}")),
            written(),
        ])
        .await;
        let client = server.client();

        let outcome = client.write_back(id(ANN), DealId::new(42), None).await;

        assert_eq!(outcome.unwrap(), WriteBack::Written, "{blank:?}");
        let seen = server.seen().await;
        assert_eq!((seen.len(), &*seen[2].method), (3, "PATCH"));
        // The filter is by value, so an id that is filled in meanwhile is not overwritten.
        assert!(
            seen[2]
                .query()
                .contains(&("amocrm_deal_id", &format!("eq.{blank}")))
        );
        assert!(seen[2].query().contains(&("id", &format!("eq.{ANN}"))));
    }
}

#[actix_web::test]
async fn an_older_postgrest_gets_the_write_without_its_new_preferences() {
    let server = Scripted::start([refusal(400, "PGRST122"), written()]).await;
    let client = server.client();

    let outcome = client.write_back(id(ANN), DealId::new(42), None).await;

    assert_eq!(outcome.unwrap(), WriteBack::Written);
    let seen = server.seen().await;
    assert_eq!(seen[0].header("prefer"), Some(STRICT));
    assert_eq!(seen[1].header("prefer"), Some("return=representation"));
    assert_eq!(seen[0].query(), seen[1].query());
    assert_eq!(seen[0].body, seen[1].body);
}
