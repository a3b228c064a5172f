use wiremock::matchers::query_param_contains;

use super::*;

#[actix_web::test]
async fn one_request_learns_the_columns_where_all_are_there() {
    let server = Scripted::start([ok("[]")]).await;

    let columns = server
        .client_with(|settings| {
            settings.note_columns = vec!["phone", "manager_name", "generated_password"];
        })
        .probe()
        .await
        .unwrap();

    let seen = server.seen().await;
    assert_eq!(
        seen[0].query(),
        [
            (
                "select",
                "id,email,full_name,created_at,amocrm_deal_id,phone,price,status,amocrm_contact_id,\
                 manager_name,generated_password"
            ),
            // No row is read: the first may be of any size.
            ("id", "is.null"),
            ("id", "not.is.null"),
            ("limit", "1")
        ]
    );
    assert_eq!(columns.missing, [""; 0]);
    assert_eq!(columns.present.join(","), seen[0].select());
}

#[actix_web::test]
async fn a_refused_column_is_found_by_asking_for_each() {
    for refused in [
        refusal(400, "42703"),
        refusal(403, "42501"),
        refusal(400, "PGRST204"),
    ] {
        let server = Scripted::start([
            refused.clone(),
            ok("[]"),        // id
            refused.clone(), // email
            ok("[]"),        // full_name
            ok("[]"),        // created_at
            ok("[]"),        // amocrm_deal_id
            ok("[]"),        // phone
            refused,         // price
            ok("[]"),        // status
            ok("[]"),        // amocrm_contact_id
        ])
        .await;

        let columns = server.client().probe().await.unwrap();

        assert_eq!(columns.missing, ["email"]);
        assert_eq!(
            columns.present,
            [
                "id",
                "full_name",
                "created_at",
                "amocrm_deal_id",
                "phone",
                "status",
                "amocrm_contact_id"
            ]
        );
        let asked: Vec<_> = server
            .seen()
            .await
            .iter()
            .map(|s| s.select().to_owned())
            .collect();
        assert_eq!(asked[1..].join(","), asked[0]);
    }
}

#[actix_web::test]
async fn a_closed_table_is_not_a_table_without_columns() {
    let server = Scripted::start([refusal(403, "42501"), refusal(403, "42501")]).await;

    let error = server.client().probe().await.unwrap_err();

    assert!(
        matches!(error, SupabaseError::Refused { status: 403, .. }),
        "{error:?}"
    );
}

#[actix_web::test]
async fn an_outage_while_learning_is_an_outage() {
    let server = Scripted::start([refusal(400, "42703"), ok("[]"), reply(503, "")]).await;

    let error = server.client().probe().await.unwrap_err();

    assert!(matches!(error, SupabaseError::Busy { .. }), "{error:?}");
}

#[actix_web::test]
async fn reads_fail_while_a_needed_column_is_missing_and_go_on_when_it_is_there() {
    let mut answers = vec![refusal(400, "42703"), ok("[]"), refusal(400, "42703")];
    answers.extend(vec![ok("[]"); 7]);
    // Added by a person: learnt anew by the next read.
    answers.extend([ok("[]"), ok("[]")]);
    let server = Scripted::start(answers).await;
    let client = server.client();

    let error = client.rows(&[id(ANN)]).await.unwrap_err();
    assert!(matches!(error, SupabaseError::Schema { .. }), "{error:?}");
    client.rows(&[id(ANN)]).await.unwrap();

    assert_eq!(server.seen().await.len(), 12);
}

#[actix_web::test]
async fn a_vanished_column_is_learnt_once_and_for_all() {
    let mut answers = vec![ok("[]"), ok("[]"), refusal(400, "42703")];
    answers.push(refusal(400, "42703"));
    answers.extend(vec![ok("[]"); 5]);
    answers.push(refusal(400, "42703")); // phone
    answers.extend(vec![ok("[]"); 3]);
    answers.extend([ok("[]"), ok("[]")]);
    let server = Scripted::start(answers).await;
    let client = server.client();
    client.rows(&[id(ANN)]).await.unwrap();

    client.rows(&[id(ANN)]).await.unwrap();
    client.rows(&[id(ANN)]).await.unwrap();

    let seen = server.seen().await;
    assert_eq!(seen[1].select(), ALL);
    for read in &seen[seen.len() - 2..] {
        assert_eq!(read.select(), ALL.replace("phone,", ""));
    }
}

#[actix_web::test]
async fn a_column_that_stays_refused_ends_the_read() {
    let server = Scripted::start([
        ok("[]"),
        refusal(400, "42703"),
        ok("[]"),
        refusal(400, "42703"),
    ])
    .await;

    let error = server.client().rows(&[id(ANN)]).await.unwrap_err();

    assert!(matches!(error, SupabaseError::Schema { .. }), "{error:?}");
}

#[actix_web::test]
async fn many_readers_learn_of_a_vanished_column_once() {
    let server = Scripted::start([ok("[]"), ok("[]")]).await;
    let client = server.client();
    let ids = [id(ANN)];
    client.rows(&ids).await.unwrap();
    let lacking = query_param_contains("select", "phone");
    for mock in [
        Mock::given(lacking).respond_with(refusal(400, "42703")),
        Mock::given(any()).respond_with(ok("[]")),
    ] {
        mock.mount(&server.server).await;
    }

    let reads = futures::future::join_all((0..8).map(|_| client.rows(&ids))).await;

    assert!(reads.iter().all(Result::is_ok));
    let seen = server.seen().await;
    let probes = seen.iter().filter(|seen| {
        seen.query().contains(&("limit", "1")) && seen.select().starts_with("id,email,")
    });
    assert_eq!(probes.count(), 2);
}

#[actix_web::test]
async fn many_readers_learn_the_columns_once() {
    let server = Scripted::start(vec![ok("[]"); 5]).await;
    let client = server.client();
    let ids = [id(ANN)];

    let reads = futures::future::join_all((0..4).map(|_| client.rows(&ids))).await;

    assert!(reads.iter().all(Result::is_ok));
    let seen = server.seen().await;
    let probes = seen.iter().filter(|s| s.query().contains(&("limit", "1")));
    assert_eq!(probes.count(), 1);
}
