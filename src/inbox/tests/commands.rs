use super::*;
use crate::inbox::maintenance::LONGEST_REST;

fn failed(due_at: Timestamp) -> Settlement {
    Settlement::Again {
        due_at,
        failed: true,
        reason: None,
    }
}

#[tokio::test]
async fn live_entries_are_claimed_first_and_by_themselves_and_the_oldest_before_the_newest() {
    let t = Fixture::new().await;
    t.store([backfilled(1), backfilled(2), delivered(3)]).await;
    t.clock.advance(MINUTE);
    t.store([delivered(5), swept(4)]).await;

    let claim = t.inbox.claim(4, None).await.unwrap().unwrap();
    assert_eq!(rows_of(&claim.entries), [row(3), row(5), row(4)]);
    assert_eq!(claim.lane, Lane::Live);
    assert!(claim.entries.iter().all(|e| e.state == State::Claimed));
    let rest = t.inbox.claim(4, None).await.unwrap().unwrap();
    assert_eq!(rows_of(&rest.entries), [row(1), row(2)]);
    assert_eq!(rest.lane, Lane::Backfill);
    assert!(rest.token.0 > claim.token.0);
    assert!(t.inbox.claim(4, None).await.unwrap().is_none());
}

#[tokio::test]
async fn a_claim_may_be_for_one_lane() {
    let t = Fixture::new().await;
    t.store([backfilled(1)]).await;
    assert!(t.inbox.claim(9, Some(Lane::Live)).await.unwrap().is_none());
    t.store([delivered(2)]).await;
    let claim = t.inbox.claim(9, Some(Lane::Backfill)).await.unwrap();
    assert_eq!(rows_of(&claim.unwrap().entries), [row(1)]);
}

#[tokio::test]
async fn a_few_are_claimed_together_or_not_at_all() {
    let t = Fixture::new().await;
    t.store([backfilled(1), delivered(2), delivered(3)]).await;
    assert!(
        t.inbox
            .claim_but(1, Some(Lane::Live), true, Vec::new())
            .await
            .unwrap()
            .is_none()
    );
    let claim = t
        .inbox
        .claim_but(2, Some(Lane::Live), true, vec![row(3)])
        .await
        .unwrap();
    assert_eq!(rows_of(&claim.unwrap().entries), [row(2)]);
    let claim = t
        .inbox
        .claim_but(2, Some(Lane::Live), true, Vec::new())
        .await
        .unwrap();
    assert_eq!(rows_of(&claim.unwrap().entries), [row(3)]);
    assert!(
        t.inbox
            .claim_but(2, Some(Lane::Live), true, Vec::new())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_claim_of_nothing_takes_nothing() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    assert!(t.inbox.claim(0, None).await.unwrap().is_none());
    assert_eq!(t.state_of(1).await, State::Pending);
}

#[tokio::test]
async fn what_is_not_due_is_not_claimed_until_it_is() {
    let t = Fixture::new().await;
    t.settled(waiting(1, t.in_a_minute())).await;
    assert_eq!(t.inbox.next_due().await.unwrap(), Some(t.in_a_minute()));
    assert!(t.inbox.claim(9, None).await.unwrap().is_none());
    t.clock.advance(MINUTE);
    assert_eq!(rows_of(&t.claim().await.entries), [row(1)]);
    assert_eq!(t.inbox.next_due().await.unwrap(), None);
}

#[tokio::test]
async fn an_entry_settled_by_a_clock_that_was_put_back_meanwhile_rests_a_day_at_most() {
    let t = Fixture::new().await;
    t.store([delivered(1), delivered(2), delivered(3)]).await;
    let claim = t.inbox.claim(2, None).await.unwrap().unwrap();
    let released = t.claim().await;
    let years_away = t.now() + 400 * LONGEST_REST;
    let ends = vec![waiting(1, years_away), end(2, failed(years_away))];
    t.inbox.settle(claim.token, ends).await.unwrap();
    t.inbox.release(released.token, years_away).await.unwrap();
    t.clock.advance(LONGEST_REST);
    assert_eq!(rows_of(&t.claim().await.entries), [row(1), row(2), row(3)]);
}

/// The time of its next attempt is by the former clock.
#[tokio::test]
async fn an_entry_that_was_at_work_while_the_clock_was_put_back_is_due_at_once() {
    for is_marked_after in [false, true] {
        let t = Fixture::new().await;
        t.store([delivered(1), delivered(2), delivered(3)]).await;
        let settled = t.inbox.claim(2, None).await.unwrap().unwrap();
        let released = t.claim().await;
        let former = t.in_a_minute();
        t.clock.put_back(Duration::from_hours(24));
        if is_marked_after {
            let marks = vec![mark(1, Progress::default()), mark(2, Progress::default())];
            t.inbox.checkpoint(settled.token, marks).await.unwrap();
        }
        let ends = vec![waiting(1, former), end(2, failed(former))];
        t.inbox.settle(settled.token, ends).await.unwrap();
        t.inbox.release(released.token, former).await.unwrap();
        assert_eq!(rows_of(&t.claim().await.entries), [row(1), row(2), row(3)]);
    }
}

#[tokio::test]
async fn an_entry_that_is_delivered_again_after_the_clock_was_put_back_is_due_all_the_same() {
    let t = Fixture::new().await;
    t.store([backfilled(1)]).await;
    t.clock.put_back(Duration::from_hours(24));
    t.store([delivered(1)]).await;
    let due = async {
        loop {
            if let Some(claim) = t.inbox.claim(1, None).await.unwrap() {
                return claim;
            }
            t.inbox.changed().await;
        }
    };
    let claim = tokio::time::timeout(MINUTE, due).await.unwrap();
    assert_eq!(rows_of(&claim.entries), [row(1)]);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_parked_and_does_not_hold_up_the_others() {
    let t = Fixture::new().await;
    t.store([delivered(1), delivered(2)]).await;
    let newer = r#"{"placed":"teleported"}"#;
    t.tamper(&format!(
        "UPDATE entry SET progress = '{newer}' WHERE delivery = 'msg_1'"
    ))
    .await;
    assert_eq!(rows_of(&t.claim().await.entries), [row(2)]);
    assert_eq!(t.inbox.counts().await.unwrap().by_state[&State::Parked], 1);
    let read = t.inbox.entry(row(1)).await;
    assert!(matches!(
        read,
        Err(InboxError::Corrupt { what: "progress" })
    ));
}

#[tokio::test]
async fn a_checkpoint_stores_progress_and_the_person() {
    let t = Fixture::new().await;
    t.store([delivered(1), delivered(2)]).await;
    let claim = t.claim().await;
    let known = Known {
        contact: ContactId::new(5),
        deal: DealId::new(6),
    };
    let progress = Progress {
        person: Some(hash(1)),
        phone: Some(hash(2)),
        ..creating(5, t.now())
    };
    let marks = vec![
        mark(1, Progress::default()),
        mark(2, Progress::default()),
        Mark {
            person: Some((hash(1), known)),
            ..mark(1, progress.clone())
        },
    ];
    t.inbox.checkpoint(claim.token, marks).await.unwrap();

    let entry = t.entry(1).await;
    assert_eq!((entry.state, entry.progress), (State::Claimed, progress));
    let people = t.inbox.people(vec![hash(1), hash(2)]).await.unwrap();
    assert_eq!(people, HashMap::from([(hash(1), known)]));
}

#[tokio::test]
async fn a_person_is_remembered_by_the_latest_deal() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    let claim = t.claim().await;
    for deal in [6, 7] {
        let known = Known {
            contact: ContactId::new(5),
            deal: DealId::new(deal),
        };
        let person = Some((hash(1), known));
        let marks = vec![Mark {
            person,
            ..mark(1, Progress::default())
        }];
        t.inbox.checkpoint(claim.token, marks).await.unwrap();
    }
    let people = t.inbox.people(vec![hash(1)]).await.unwrap();
    assert_eq!(people[&hash(1)].deal, DealId::new(7));
}

#[tokio::test]
async fn a_checkpoint_under_a_lost_claim_changes_nothing_at_all() {
    let t = Fixture::new().await;
    t.store([delivered(1)]).await;
    let theirs = t.claim().await;
    t.store([delivered(2)]).await;
    let ours = t.claim().await;
    let known = Known {
        contact: ContactId::new(5),
        deal: DealId::new(6),
    };
    let marks = vec![
        Mark {
            person: Some((hash(1), known)),
            ..mark(2, chosen(5))
        },
        mark(1, chosen(5)),
    ];
    let lost = t.inbox.checkpoint(ours.token, marks).await;
    assert!(matches!(lost, Err(InboxError::ClaimLost { row: lost }) if lost == row(1)));
    assert_eq!(t.entry(2).await.progress, Progress::default());
    assert_eq!(t.inbox.people(vec![hash(1)]).await.unwrap(), HashMap::new());
    t.inbox.settle(theirs.token, vec![done(1)]).await.unwrap();
}

#[tokio::test]
async fn each_settlement_leaves_its_mark() {
    let t = Fixture::new().await;
    let later = t.in_a_minute();
    let now = t.now();
    let reason = || "причина".to_owned();
    let again = |failed, reason| Settlement::Again {
        due_at: later,
        failed,
        reason,
    };
    let waiting = Settlement::Waiting {
        due_at: later,
        reason: reason(),
    };
    let parked = Settlement::Parked { reason: reason() };
    let cases = [
        (
            Settlement::Done(Outcome::Skipped),
            (State::Done, now, 0, Some(Outcome::Skipped), None),
        ),
        (
            again(true, Some(reason())),
            (State::Pending, later, 1, None, Some(reason())),
        ),
        (again(false, None), (State::Pending, later, 0, None, None)),
        (waiting, (State::Waiting, later, 0, None, Some(reason()))),
        (parked, (State::Parked, now, 0, None, Some(reason()))),
    ];
    for (n, (settlement, expected)) in (1..).zip(cases) {
        t.settled(end(n, settlement)).await;
        let e = t.entry(n).await;
        assert_eq!(
            (e.state, e.due_at, e.attempts, e.outcome, e.reason),
            expected
        );
        assert_eq!(
            t.story(n).await,
            [Fact::Delivery("msg".to_owned()), Fact::Noted]
        );
    }
}

#[tokio::test]
async fn a_row_is_settled_once() {
    let t = Fixture::new().await;
    t.store([delivered(1), delivered(2)]).await;
    let claim = t.claim().await;
    let twice = vec![done(1), done(2), parked(1)];
    let lost = t.inbox.settle(claim.token, twice).await;
    assert!(matches!(lost, Err(InboxError::ClaimLost { .. })));
    assert_eq!(t.state_of(2).await, State::Claimed);

    t.inbox.settle(claim.token, vec![done(1)]).await.unwrap();
    let lost = t.inbox.settle(claim.token, vec![parked(1)]).await;
    assert!(matches!(lost, Err(InboxError::ClaimLost { .. })));
    assert_eq!(t.state_of(1).await, State::Done);
}

#[tokio::test]
async fn a_run_of_hundreds_is_marked_and_settled_at_once() {
    let t = Fixture::new().await;
    t.store((0..600).map(backfilled).collect::<Vec<_>>()).await;
    let claim = t.claim().await;
    assert_eq!(claim.entries.len(), 600);
    let marks = (0..600).map(|n| mark(n, chosen(5))).collect();
    t.inbox.checkpoint(claim.token, marks).await.unwrap();
    let ends = (0..600).map(done).collect();
    t.inbox.settle(claim.token, ends).await.unwrap();
    let counts = t.inbox.counts().await.unwrap();
    assert_eq!(counts.by_state, HashMap::from([(State::Done, 600)]));
}

#[tokio::test]
async fn rows_are_revived_anew_unless_done_or_claimed() {
    let t = Fixture::new().await;
    let again = Settlement::Again {
        due_at: t.in_a_minute(),
        failed: true,
        reason: None,
    };
    t.settled(end(1, again)).await;
    t.settled(parked(2)).await;
    t.settled(waiting(3, t.in_a_minute())).await;
    t.settled(done(4)).await;
    t.store([delivered(5)]).await;
    t.claim().await;

    let rows = (1..=6).map(row).collect();
    let revived = t.inbox.revive(Revival::Rows(rows)).await.unwrap();

    assert_eq!(revived, 3);
    for n in 1..=3 {
        let e = t.entry(n).await;
        assert_eq!(
            (e.state, e.due_at, e.attempts),
            (State::Pending, t.now(), 0)
        );
        assert_eq!(t.story(n).await.last(), Some(&Fact::Retry));
    }
    assert_eq!(t.state_of(4).await, State::Done);
    assert_eq!(t.state_of(5).await, State::Claimed);
}

#[tokio::test]
async fn all_parked_entries_are_revived_and_no_others() {
    let t = Fixture::new().await;
    t.settled(parked(1)).await;
    t.settled(waiting(2, t.in_a_minute())).await;
    assert_eq!(t.inbox.revive(Revival::AllParked).await.unwrap(), 1);
    assert_eq!(t.state_of(1).await, State::Pending);
    assert_eq!(t.state_of(2).await, State::Waiting);
}

#[tokio::test]
async fn the_waiting_are_revived_by_email_or_phone_and_begin_anew() {
    let t = Fixture::new().await;
    let wait = |n, person, phone| {
        let progress = Progress {
            person: Some(hash(person)),
            phone,
            ..Progress::default()
        };
        Settled {
            progress,
            ..waiting(n, t.in_a_minute())
        }
    };
    t.settled(wait(1, 1, None)).await;
    t.settled(wait(2, 2, Some(hash(20)))).await;
    t.settled(wait(3, 3, Some(hash(30)))).await;
    let not_waiting = Settled {
        progress: Progress {
            person: Some(hash(1)),
            ..Progress::default()
        },
        ..parked(4)
    };
    t.settled(not_waiting).await;
    let awaited = t.inbox.awaited().await.unwrap();
    let everyone = [1, 2, 20, 3, 30].map(hash);
    assert_eq!(awaited, HashSet::from(everyone));

    let seen = Revival::Waiting(vec![hash(1), hash(20)]);
    assert_eq!(t.inbox.revive(seen).await.unwrap(), 2);

    let states = [t.state_of(1).await, t.state_of(2).await];
    assert_eq!(states, [State::Pending; 2]);
    assert_eq!(t.state_of(3).await, State::Waiting);
    assert_eq!(t.state_of(4).await, State::Parked);
}

#[tokio::test]
async fn history_keeps_the_newest_two_hundred_lines() {
    let t = Fixture::new().await;
    t.settled(parked(1)).await;
    for _ in 0..150 {
        t.inbox.revive(Revival::AllParked).await.unwrap();
        let claim = t.claim().await;
        t.inbox.settle(claim.token, vec![parked(1)]).await.unwrap();
    }
    let story = t.story(1).await;
    assert_eq!(story.len(), 200);
    assert_eq!(story[198..], [Fact::Retry, Fact::Noted]);
}

#[tokio::test]
async fn an_entry_that_waited_begins_anew_when_claimed() {
    let t = Fixture::new().await;
    let failed = Settled {
        settlement: Settlement::Again {
            due_at: t.now(),
            failed: true,
            reason: None,
        },
        ..waiting(1, t.now())
    };
    t.settled(failed).await;
    t.settled(waiting(1, t.now())).await;

    let claim = t.claim().await;

    assert_eq!(claim.entries[0].attempts, 0);
}

#[tokio::test]
async fn a_wish_is_withdrawn_as_long_as_nothing_was_sent() {
    let t = Fixture::new().await;
    t.store([delivered(1), delivered(2), delivered(3)]).await;
    let claim = t.claim().await;
    let again = || Settlement::Again {
        due_at: t.in_a_minute(),
        failed: false,
        reason: None,
    };
    let with = |settled, undo| Settled {
        progress: Progress {
            moved: Some(moved(5)),
            undo,
            ..noted(11)
        },
        ..settled
    };
    let ends = vec![
        with(done(1), None),
        with(end(2, again()), None),
        with(end(3, again()), Some(Undo::Sent)),
    ];
    t.inbox.settle(claim.token, ends).await.unwrap();
    let rows: Vec<RowId> = (1..=3).map(row).collect();
    assert_eq!(t.inbox.undo(rows.clone()).await.unwrap(), 3);
    let undo_of = async |n| t.entry(n).await.progress.undo;
    assert_eq!(undo_of(1).await, Some(Undo::Asked));
    assert_eq!(undo_of(2).await, Some(Undo::After));

    assert_eq!(t.inbox.withdraw_undo(rows.clone()).await.unwrap(), 2);

    let withdrawn = t.entry(1).await;
    assert_eq!(
        (withdrawn.state, withdrawn.outcome),
        (State::Done, Some(Outcome::Synced))
    );
    let left = UndoLeft::Withdrawn;
    assert_eq!(withdrawn.progress.undo, Some(Undo::Left(left)));
    assert_eq!(t.story(1).await.last(), Some(&Fact::UndoLeft(left)));
    assert_eq!(
        (t.state_of(2).await, undo_of(2).await),
        (State::Pending, None)
    );
    assert_eq!(
        (t.state_of(3).await, undo_of(3).await),
        (State::Pending, Some(Undo::Sent))
    );
    assert_eq!(t.inbox.undo(rows).await.unwrap(), 3);
}
