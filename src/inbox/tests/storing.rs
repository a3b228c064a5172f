use super::{
    Stored::{Duplicate, New, Reopened},
    *,
};

#[tokio::test]
async fn a_new_delivery_is_pending_at_once_and_carries_its_id() {
    let t = Fixture::new().await;

    assert_eq!(t.store([delivered(1)]).await, [New]);

    let expected = Entry {
        row: row(1),
        lane: Lane::Live,
        state: State::Pending,
        due_at: t.now(),
        attempts: 0,
        delivery: Some("msg_1".to_owned()),
        outcome: None,
        backfill: None,
        reason: None,
        progress: Progress::default(),
        stored_at: t.now(),
        updated_at: t.now(),
    };
    assert_eq!(t.entry(1).await, expected);
    assert_eq!(t.story(1).await, [Fact::Delivery("msg_1".to_owned())]);
    assert_eq!(t.inbox.entry(row(2)).await.unwrap(), None);
}

#[tokio::test]
async fn the_source_names_the_lane() {
    let t = Fixture::new().await;
    t.store([delivered(1), swept(2), backfilled(3)]).await;
    assert_eq!(t.entry(1).await.lane, Lane::Live);
    assert_eq!(t.entry(2).await.lane, Lane::Live);
    assert_eq!(t.entry(3).await.lane, Lane::Backfill);
}

#[tokio::test]
async fn a_second_sighting_of_an_unfinished_entry_changes_nothing() {
    let t = Fixture::new().await;
    t.store([delivered(1), delivered(2), delivered(3), delivered(4)])
        .await;
    let claim = t.claim().await;
    let ends = vec![parked(2), waiting(3, t.in_a_minute())];
    t.inbox.settle(claim.token, ends).await.unwrap();
    let again = Settlement::Again {
        due_at: t.in_a_minute(),
        failed: true,
        reason: None,
    };
    t.inbox
        .settle(claim.token, vec![end(4, again)])
        .await
        .unwrap();
    let before = t.inbox.entries(None, 10).await.unwrap();
    t.clock.advance(MINUTE);

    for arrival in [delivered, swept] {
        let stored = t.store((1..=4).map(arrival).collect::<Vec<_>>()).await;
        assert_eq!(stored, [Duplicate; 4]);
    }
    assert_eq!(t.inbox.entries(None, 10).await.unwrap(), before);

    // A backfill only adds that it asked for the row.
    let stored = t.store((1..=4).map(backfilled).collect::<Vec<_>>()).await;
    assert_eq!(stored, [Duplicate; 4]);
    let asked_for = before.into_iter().map(|entry| Entry {
        backfill: Some(BackfillId(1)),
        ..entry
    });
    let asked_for: Vec<Entry> = asked_for.collect();
    assert_eq!(t.inbox.entries(None, 10).await.unwrap(), asked_for);
}

#[tokio::test]
async fn a_row_that_was_asked_for_stays_so_whatever_is_heard_later() {
    let t = Fixture::new().await;
    let first = t.inbox.begin_backfill().await.unwrap();
    let second = t.inbox.begin_backfill().await.unwrap();
    assert!(first < second);
    t.store([delivered(1), backfilled(1), delivered(1), swept(1)])
        .await;
    assert_eq!(t.entry(1).await.backfill, Some(first));

    let again = Arrival {
        row: row(1),
        source: Source::Backfill(second),
    };
    t.store([again]).await;
    assert_eq!(t.entry(1).await.backfill, Some(second));
}

/// The entry was claimed before the backfill asked for it.
#[tokio::test]
async fn asked_for_while_found_too_old_it_is_looked_at_again() {
    let t = Fixture::new().await;
    t.store([delivered(1), delivered(2)]).await;
    let claim = t.claim().await;
    t.store([backfilled(1)]).await;
    let too_old = |n| end(n, Settlement::Done(Outcome::TooOld));
    let ends = vec![too_old(1), too_old(2)];
    t.inbox.settle(claim.token, ends).await.unwrap();

    let (asked, other) = (t.entry(1).await, t.entry(2).await);
    assert_eq!((asked.state, asked.outcome), (State::Pending, None));
    assert_eq!(
        (other.state, other.outcome),
        (State::Done, Some(Outcome::TooOld))
    );
    assert_eq!(rows_of(&t.claim().await.entries), [row(1)]);
}

#[tokio::test]
async fn a_webhook_does_not_reopen_what_is_done() {
    let t = Fixture::new().await;
    t.settled(done(1)).await;
    assert_eq!(t.store([delivered(1)]).await, [Duplicate]);
    assert_eq!(t.state_of(1).await, State::Done);
}

#[tokio::test]
async fn a_sweep_reopens_what_is_done_and_its_steps_stay() {
    let t = Fixture::new().await;
    let steps = noted(5);
    let doubts = Progress {
        absent_since: Some(t.now()),
        missed_since: Some(t.now()),
        ..steps.clone()
    };
    t.settled(Settled {
        progress: doubts,
        ..done(1)
    })
    .await;
    t.clock.advance(MINUTE);

    assert_eq!(t.store([swept(1)]).await, [Reopened]);

    let entry = t.entry(1).await;
    assert_eq!(
        (entry.state, entry.outcome, entry.lane),
        (State::Pending, None, Lane::Live)
    );
    assert_eq!((entry.due_at, entry.updated_at), (t.now(), t.now()));
    assert_eq!(entry.stored_at, t.now() - MINUTE);
    assert_eq!(entry.progress, steps);
    let delivery = Fact::Delivery("msg".to_owned());
    assert_eq!(t.story(1).await, [delivery, Fact::Noted, Fact::Sweep]);
}

#[tokio::test]
async fn reopening_forgets_failed_attempts() {
    let t = Fixture::new().await;
    let again = Settlement::Again {
        due_at: t.now(),
        failed: true,
        reason: None,
    };
    t.settled(end(1, again)).await;
    let claim = t.claim().await;
    t.inbox.settle(claim.token, vec![done(1)]).await.unwrap();
    assert_eq!(t.entry(1).await.attempts, 1);
    t.store([swept(1)]).await;
    assert_eq!(t.entry(1).await.attempts, 0);
}

#[tokio::test]
async fn a_backfill_reopens_in_its_own_lane_and_a_sweep_leaves_the_lane() {
    let t = Fixture::new().await;
    t.settled(done(1)).await;
    assert_eq!(t.store([backfilled(1)]).await, [Reopened]);
    assert_eq!(t.entry(1).await.lane, Lane::Backfill);

    let claim = t.claim().await;
    t.inbox.settle(claim.token, vec![done(1)]).await.unwrap();
    assert_eq!(t.store([swept(1)]).await, [Reopened]);
    assert_eq!(t.entry(1).await.lane, Lane::Backfill);
}

#[tokio::test]
async fn a_delivery_lifts_a_pending_backfill_entry_and_a_sweep_does_not() {
    let t = Fixture::new().await;
    t.store([backfilled(1), backfilled(2)]).await;
    let stored = t.store([delivered(1), swept(2)]).await;
    assert_eq!(stored, [Duplicate; 2]);
    assert_eq!(t.entry(1).await.lane, Lane::Live);
    assert_eq!(t.entry(2).await.lane, Lane::Backfill);
}

#[tokio::test]
async fn a_delivery_does_not_lift_an_entry_that_is_to_be_undone() {
    let t = Fixture::new().await;
    let moved = Progress {
        moved: Some(moved(5)),
        ..noted(11)
    };
    t.settled(Settled {
        progress: moved,
        ..done(1)
    })
    .await;
    assert_eq!(t.inbox.undo(vec![row(1)]).await.unwrap(), 1);
    assert_eq!(t.store([delivered(1)]).await, [Duplicate]);
    let entry = t.entry(1).await;
    assert_eq!((entry.lane, entry.state), (Lane::Backfill, State::Pending));
    assert_eq!(entry.progress.undo, Some(Undo::Asked));
}

#[tokio::test]
async fn the_first_delivery_of_an_entry_is_kept_whatever_brought_it() {
    let t = Fixture::new().await;
    let other = |n| Arrival {
        row: row(n),
        source: Source::Webhook {
            delivery: "another".to_owned(),
        },
    };
    t.store([swept(1), backfilled(2), delivered(3)]).await;
    t.store([delivered(1), other(1), delivered(2), other(3)])
        .await;
    t.store([other(1), swept(4), delivered(4), other(4)]).await;
    for (n, delivery) in [(1, "msg_1"), (2, "msg_2"), (3, "msg_3"), (4, "msg_4")] {
        assert_eq!(t.entry(n).await.delivery.as_deref(), Some(delivery), "{n}");
    }
    // One that is done stays so.
    t.settled(done(5)).await;
    t.store([other(5)]).await;
    assert_eq!(t.entry(5).await.state, State::Done);
}

#[tokio::test]
async fn what_came_by_deliveries_is_counted_over_the_whole_inbox() {
    let t = Fixture::new().await;
    assert_eq!(t.inbox.heard().await.unwrap(), Heard::default());
    t.store((1..=2).map(delivered).collect::<Vec<_>>()).await;
    let last = t.now();
    t.clock.advance(MINUTE);
    // More rows than a list of entries shows. A row of a backfill says nothing about the trigger.
    t.store((3..=1_502).map(swept).collect::<Vec<_>>()).await;
    t.store([backfilled(1_503)]).await;
    let heard = Heard {
        entries: 1_503,
        by_delivery: 2,
        last_by_delivery: Some(last),
        since_by_sweep: 1_500,
    };
    assert_eq!(t.inbox.heard().await.unwrap(), heard);

    t.store([delivered(1_500)]).await;
    let heard = t.inbox.heard().await.unwrap();
    assert_eq!((heard.by_delivery, heard.since_by_sweep), (3, 2));
}

#[tokio::test]
async fn arrivals_of_one_row_in_one_call_are_answered_in_turn() {
    let t = Fixture::new().await;
    t.settled(done(1)).await;
    let stored = t
        .store([
            delivered(1),
            swept(1),
            backfilled(1),
            backfilled(2),
            delivered(2),
            swept(2),
        ])
        .await;
    assert_eq!(
        stored,
        [Duplicate, Reopened, Duplicate, New, Duplicate, Duplicate]
    );
    assert_eq!(t.entry(1).await.lane, Lane::Live);
    assert_eq!(t.entry(2).await.lane, Lane::Live);
    assert_eq!(t.story(2).await, [Fact::Backfill]);
}

#[tokio::test]
async fn each_call_of_one_group_gets_the_answers_to_its_own_arrivals() {
    let t = Fixture::new().await;
    t.settled(done(1)).await;
    let before = t.inbox.shared.signals.commits.load(Ordering::Relaxed);
    let (first, state, second, third) = tokio::join!(
        t.inbox.store(vec![delivered(1), swept(2)]),
        t.inbox.clear_state("nothing"),
        t.inbox.store(vec![swept(1)]),
        t.inbox.store(vec![delivered(2), swept(1), delivered(3)]),
    );
    assert_eq!(first.unwrap(), [Duplicate, New]);
    state.unwrap();
    assert_eq!(second.unwrap(), [Reopened]);
    assert_eq!(third.unwrap(), [Duplicate, Duplicate, New]);
    let commits = t.inbox.shared.signals.commits.load(Ordering::Relaxed) - before;
    assert_eq!(commits, 1);
    assert_eq!(t.entry(2).await.delivery.as_deref(), Some("msg_2"));
    assert_eq!(t.story(2).await, [Fact::Sweep]);
}

#[tokio::test]
async fn storing_nothing_answers_nothing() {
    let t = Fixture::new().await;
    assert_eq!(t.store([]).await, []);
}
