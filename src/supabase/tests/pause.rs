use super::*;

async fn ask(
    server: &Scripted,
    paused: Option<bool>,
) -> Result<Option<PauseAnswer>, SupabaseError> {
    server.client().pause(paused, Duration::from_secs(5)).await
}

#[actix_web::test]
async fn a_pause_is_set_ended_and_asked_for() {
    let paused = r#"{"last": {"is_paused": true, "changed_at": "2026-11-30T10:00:00.000001+00:00", "seconds_ago": 0.25}, "held_by": "a"}"#;
    let never = r#"{"last": null, "held_by": null}"#;
    let server = Scripted::start([ok(paused), ok(never), ok(never)]).await;

    let answer = ask(&server, Some(true)).await.unwrap().unwrap();
    let last = answer.last.unwrap();
    assert!(last.is_paused);
    assert_eq!(last.changed_at.to_string(), "2026-11-30T10:00:00.000001Z");
    assert_eq!(answer.held_by.as_deref(), Some("a"));
    for paused in [Some(false), None] {
        let answer = ask(&server, paused).await.unwrap().unwrap();
        assert_eq!((answer.last, answer.held_by), (None, None));
    }

    let seen = server.seen().await;
    let bodies = [r#"{"paused":true}"#, r#"{"paused":false}"#, "{}"];
    for (n, body) in bodies.into_iter().enumerate() {
        assert_eq!(seen[n].path, "/rest/v1/rpc/tripwire_sync_pause");
        assert_eq!(seen[n].body, body);
    }
}

#[actix_web::test]
async fn a_missing_function_of_the_pause_is_no_error() {
    let missing = Scripted::start([refusal(404, "PGRST202"), refusal(404, "42883")]).await;
    for _ in 0..2 {
        assert_eq!(ask(&missing, None).await.unwrap(), None);
    }
    let denied = Scripted::start([refusal(403, "42501")]).await;
    ask(&denied, None).await.unwrap_err();
}

#[actix_web::test]
async fn an_answer_that_cannot_be_read_is_no_resume() {
    for body in [
        "",
        "true",
        r#"{"last": 1}"#,
        r#"{"last": {"is_paused": false}}"#,
    ] {
        let error = ask(&Scripted::start([ok(body)]).await, None)
            .await
            .unwrap_err();
        assert!(matches!(error, SupabaseError::Malformed { .. }), "{body}");
    }
}
