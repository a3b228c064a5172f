use super::*;

async fn ask(server: &Scripted, seconds: u32) -> Result<LeaseAnswer, SupabaseError> {
    let within = Duration::from_secs(5);
    server.client().lease("me", seconds, within).await
}

#[actix_web::test]
async fn the_lease_is_asked_for_by_name_and_seconds() {
    let server = Scripted::start([ok("true"), ok("false")]).await;

    assert_eq!(ask(&server, 80).await.unwrap(), LeaseAnswer::Granted);
    assert_eq!(ask(&server, 0).await.unwrap(), LeaseAnswer::Refused);

    let seen = server.seen().await;
    assert_eq!(seen[0].method, "POST");
    assert_eq!(seen[0].path, "/rest/v1/rpc/tripwire_sync_lease");
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    assert_eq!(seen[0].header("apikey"), Some(KEY));
    let said = |seen: &Seen| serde_json::from_str::<serde_json::Value>(&seen.body).unwrap();
    assert_eq!(
        said(&seen[0]),
        serde_json::json!({"holder": "me", "seconds": 80})
    );
    assert_eq!(
        said(&seen[1]),
        serde_json::json!({"holder": "me", "seconds": 0})
    );
}

#[actix_web::test]
async fn a_missing_function_is_told_from_one_that_we_may_not_call() {
    let missing = Scripted::start([refusal(404, "PGRST202"), refusal(404, "42883")]).await;
    for _ in 0..2 {
        let answer = ask(&missing, 80).await.unwrap();
        assert_eq!(answer, LeaseAnswer::NoFunction);
    }
    let denied = Scripted::start([refusal(403, "42501"), refusal(401, "42501")]).await;
    for _ in 0..2 {
        let error = ask(&denied, 80).await.unwrap_err();
        assert!(matches!(error, SupabaseError::Refused { .. }), "{error:?}");
    }
}

#[actix_web::test]
async fn anything_but_true_or_false_is_no_lease() {
    for body in ["", "null", "1", r#"["true"]"#, "<html>true</html>"] {
        let error = ask(&Scripted::start([ok(body)]).await, 80)
            .await
            .unwrap_err();
        assert!(matches!(error, SupabaseError::Malformed { .. }), "{body}");
    }
}
