//! The numbers of the last 31 days.

use super::*;

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn each_hour_keeps_what_was_synced_and_what_waited_and_was_parked() {
    let t = Fixture::new().await;
    for n in 1..=5 {
        t.inbox.store(vec![delivered(n)]).await.unwrap();
    }
    let claim = t.inbox.claim(4, None).await.unwrap().unwrap();
    let ends = vec![done(1), done(2), parked(3), waiting(4, t.now())];
    t.inbox.settle(claim.token, ends).await.unwrap();
    t.inbox.keep_hour().await.unwrap();
    let hours = t.inbox.hours(t.now()).await.unwrap();
    let [first] = hours.as_slice() else {
        panic!("{hours:?}");
    };
    assert_eq!(
        (first.synced, first.waiting, first.parked),
        (2, Some(2), Some(1))
    );
    let since = t.now().duration_since(first.from).as_secs();
    assert!((0..3600).contains(&since), "{since}");

    t.clock.advance(HOUR);
    t.inbox.revive(Revival::AllParked).await.unwrap();
    let claim = t.inbox.claim(1, None).await.unwrap().unwrap();
    let row = claim.entries[0].row;
    let end = Settled { row, ..done(1) };
    t.inbox.settle(claim.token, vec![end]).await.unwrap();
    let hours = t.inbox.hours(t.now()).await.unwrap();
    assert_eq!(hours.len(), 2);
    // `keep_hour` did not run in this hour.
    assert_eq!((hours[1].synced, hours[1].waiting), (1, None));
}

#[tokio::test]
async fn hours_are_kept_for_31_days_over_a_restart_and_no_longer() {
    let t = Fixture::new().await;
    t.inbox.keep_hour().await.unwrap();
    t.clock.advance(HOUR * (31 * 24 - 1));
    t.inbox.keep_hour().await.unwrap();
    assert_eq!(t.inbox.hours(t.now()).await.unwrap().len(), 2);
    let t = Fixture::on(t.abandoned()).await;
    assert_eq!(t.inbox.hours(t.now()).await.unwrap().len(), 2);
    t.clock.advance(HOUR);
    t.inbox.keep_hour().await.unwrap();
    assert_eq!(t.inbox.hours(t.now()).await.unwrap().len(), 2);
}

/// What an earlier version has synced is in the charts at once.
#[tokio::test]
async fn an_update_counts_what_is_done_already() {
    let t = Fixture::new().await;
    t.inbox
        .store(vec![delivered(1), delivered(2)])
        .await
        .unwrap();
    let claim = t.inbox.claim(2, None).await.unwrap().unwrap();
    t.inbox
        .settle(claim.token, vec![done(1), done(2)])
        .await
        .unwrap();
    let before = t.inbox.hours(t.now()).await.unwrap();
    let mut conn = t.connect().await;
    for statement in include_str!("../migrations/sqlite/0007_operator_page.sql").split(';') {
        if statement.contains("INSERT INTO hourly") {
            sqlx::query("DELETE FROM hourly")
                .execute(&mut conn)
                .await
                .unwrap();
            let fill = AssertSqlSafe(statement.to_owned());
            sqlx::query(fill).execute(&mut conn).await.unwrap();
        }
    }
    assert_eq!(t.inbox.hours(t.now()).await.unwrap(), before);
}
