use std::collections::BTreeSet;

use super::*;

#[tokio::test]
async fn open_work_is_what_may_still_be_written() {
    let t = Fixture::new().await;
    t.store((1..=7).map(delivered).collect::<Vec<_>>()).await;
    let theirs = t.claim().await;
    let noted = noted(14);
    let unsure = placed(15, Some(t.now()));
    let with = |settled, progress| Settled {
        progress,
        ..settled
    };
    let person = Progress {
        person: Some(hash(1)),
        ..chosen(11)
    };
    let ends = vec![
        with(waiting(1, t.in_a_minute()), person),
        with(done(2), chosen(12)),
        with(parked(3), chosen(13)),
        with(waiting(4, t.in_a_minute()), noted),
        with(parked(5), unsure),
    ];
    t.inbox.settle(theirs.token, ends).await.unwrap();
    let marks = vec![mark(6, chosen(16)), mark(7, Progress::default())];
    t.inbox.checkpoint(theirs.token, marks).await.unwrap();
    t.store([delivered(8)]).await;
    let ours = t.claim().await;
    let marks = vec![mark(8, chosen(18))];
    t.inbox.checkpoint(ours.token, marks).await.unwrap();

    let open = t.inbox.open_work().await.unwrap();

    let work = |n, person, contact| OpenWork {
        row: row(n),
        person,
        contact: Some(ContactId::new(contact)),
    };
    let expected = [
        work(1, Some(hash(1)), 11),
        work(6, None, 16),
        work(8, None, 18),
    ];
    assert_eq!(open, expected);
}

#[tokio::test]
async fn entries_are_listed_by_the_newest_change() {
    let t = Fixture::new().await;
    for n in 1..=3 {
        t.settled(parked(n)).await;
        t.clock.advance(MINUTE);
    }
    t.store([delivered(4)]).await;
    t.inbox.revive(Revival::Rows(vec![row(1)])).await.unwrap();
    t.clock.advance(MINUTE);
    t.inbox.revive(Revival::Rows(vec![row(1)])).await.unwrap();
    let all = t.inbox.entries(None, 3).await.unwrap();
    assert_eq!(rows_of(&all), [row(1), row(4), row(3)]);
    let parked = t.inbox.entries(Some(State::Parked), 9).await.unwrap();
    assert_eq!(rows_of(&parked), [row(3), row(2)]);
}

#[tokio::test]
async fn what_was_parked_since_a_look_is_told_oldest_first() {
    let t = Fixture::new().await;
    t.settled(parked(1)).await;
    let looked_at = t.now();
    for n in [3, 2] {
        t.clock.advance(MINUTE);
        t.settled(parked(n)).await;
    }
    t.settled(waiting(4, t.in_a_minute())).await;

    let news = t.inbox.parked_after(looked_at).await.unwrap();

    let rows: Vec<_> = news.iter().map(|stuck| stuck.row).collect();
    assert_eq!(rows, [row(3), row(2)]);
    assert_eq!(news[1].since, t.now());
    assert!(news[1].reason.is_some());
}

#[tokio::test]
async fn what_is_pending_for_long_is_told_except_a_backfill() {
    let t = Fixture::new().await;
    t.store([backfilled(1), delivered(2), delivered(3)]).await;
    let stored_at = t.now();
    t.settled(parked(3)).await;
    t.clock.advance(MINUTE);
    t.store([delivered(4)]).await;

    let late = t.inbox.pending_since(stored_at, 9).await.unwrap();

    let expected = Stuck {
        row: row(2),
        reason: None,
        since: stored_at,
    };
    assert_eq!(late, [expected]);
    let all = t.inbox.pending_since(t.now(), 9).await.unwrap();
    assert_eq!(all.len(), 2);
}

#[tokio::test]
async fn time_spent_waiting_does_not_make_an_entry_late() {
    let t = Fixture::new().await;
    let oldest = async || t.inbox.counts().await.unwrap().oldest_pending;
    assert_eq!(oldest().await, None);
    t.settled(waiting(1, t.in_a_minute())).await;
    assert_eq!(oldest().await, None);
    t.clock.advance(10 * MINUTE);
    let looked_at = t.now();
    let claim = t.claim().await;
    assert_eq!(oldest().await, Some(looked_at));

    let again = Settlement::Again {
        due_at: t.now(),
        failed: true,
        reason: None,
    };
    t.clock.advance(MINUTE);
    t.inbox
        .settle(claim.token, vec![end(1, again)])
        .await
        .unwrap();
    t.clock.advance(MINUTE);
    t.claim().await;
    assert_eq!(oldest().await, Some(looked_at));
}

#[tokio::test]
async fn a_write_that_was_not_resolved_in_time_is_listed_until_its_row_is_parked_or_done() {
    let t = Fixture::new().await;
    let (then, later) = (t.now(), t.in_a_minute());
    t.store([delivered(1), delivered(2), delivered(3), delivered(4)])
        .await;
    let claim = t.claim().await;
    let marks = vec![
        mark(1, creating(10, then)),
        mark(2, placed(20, Some(then))),
        mark(3, creating(30, later)),
        mark(4, placed(40, None)),
    ];
    t.inbox.checkpoint(claim.token, marks).await.unwrap();
    let listed = async |until, limit| {
        let listed = t.inbox.unresolved_since(until, limit).await.unwrap();
        listed.into_iter().collect::<BTreeSet<_>>()
    };

    assert_eq!(listed(then, 9).await, [row(1), row(2)].into());
    assert_eq!(listed(then, 1).await.len(), 1);
    assert_eq!(listed(later, 9).await, [row(1), row(2), row(3)].into());

    let set_aside = Settled {
        progress: creating(10, then),
        ..parked(1)
    };
    t.inbox
        .settle(claim.token, vec![set_aside, done(2)])
        .await
        .unwrap();
    assert_eq!(listed(then, 9).await, [].into());
}

#[tokio::test]
async fn rows_without_an_event_are_those_that_no_delivery_and_no_backfill_told_of() {
    let t = Fixture::new().await;
    let begin = t.now();
    let count = async |after| t.inbox.without_event(after, t.now()).await.unwrap();
    assert_eq!(count(begin).await, 0);

    t.clock.advance(MINUTE);
    t.store([swept(1), swept(2), swept(3), delivered(4), backfilled(5)])
        .await;
    assert_eq!(count(begin).await, 3);
    assert_eq!(t.inbox.without_event(begin, begin).await.unwrap(), 0);
    assert_eq!(count(t.now()).await, 0);

    // An event that came later than the sweep.
    t.store([delivered(2)]).await;
    assert_eq!(count(begin).await, 2);
}

#[tokio::test]
async fn what_was_synced_in_a_period_is_counted_by_what_told_of_it() {
    let t = Fixture::new().await;
    let begin = t.now();
    assert_eq!(
        t.inbox.synced(begin, begin).await.unwrap(),
        Synced::default()
    );
    t.store([delivered(1), swept(2), backfilled(3)]).await;
    t.clock.advance(MINUTE);
    t.store([delivered(4), swept(5), delivered(6)]).await;
    t.clock.advance(MINUTE);
    let claim = t.inbox.claim(9, None).await.unwrap().unwrap();
    let backfill = t.inbox.claim(9, None).await.unwrap().unwrap();
    let gone = Settled {
        settlement: Settlement::Done(Outcome::Gone),
        ..done(6)
    };
    let ends = vec![done(1), done(2), done(4), parked(5), gone];
    t.inbox.settle(claim.token, ends).await.unwrap();
    t.clock.advance(MINUTE);
    t.inbox.settle(backfill.token, vec![done(3)]).await.unwrap();

    let synced = t.inbox.synced(begin, t.now()).await.unwrap();
    let expected = Synced {
        by_event: 2,
        by_sweep: 1,
        by_backfill: 1,
        longest: Some(2 * MINUTE),
    };
    assert_eq!(synced, expected);
    let of_the_last_minute = t.inbox.synced(begin + 2 * MINUTE, t.now()).await.unwrap();
    let expected = Synced {
        by_backfill: 1,
        ..Synced::default()
    };
    assert_eq!(of_the_last_minute, expected);
}

async fn lines_of_history(t: &Fixture) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM history")
        .fetch_one(&mut t.connect().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_purge_takes_old_done_entries_with_their_history_and_people() {
    let t = Fixture::new().await;
    let progress = |person| Progress {
        person: Some(hash(person)),
        ..Progress::default()
    };
    let known = Known {
        contact: ContactId::new(5),
        deal: DealId::new(6),
    };
    for n in 1..=3 {
        t.store([delivered(n)]).await;
        let claim = t.claim().await;
        let person = u8::try_from(n).unwrap();
        let marks = vec![Mark {
            person: Some((hash(person), known)),
            ..mark(n, progress(person))
        }];
        t.inbox.checkpoint(claim.token, marks).await.unwrap();
        let ending = if n == 2 { parked(n) } else { done(n) };
        let ends = vec![Settled {
            progress: progress(person),
            ..ending
        }];
        t.inbox.settle(claim.token, ends).await.unwrap();
        t.clock.advance(MINUTE);
    }
    let third = t.entry(3).await.updated_at;

    assert_eq!(t.inbox.purge_done(third).await.unwrap(), 1);

    assert_eq!(t.inbox.entry(row(1)).await.unwrap(), None);
    assert_eq!(lines_of_history(&t).await, 2 * 2);
    assert_eq!(t.state_of(2).await, State::Parked);
    assert_eq!(t.state_of(3).await, State::Done);
    let people = t.inbox.people([1, 2, 3].map(hash).to_vec()).await.unwrap();
    let kept: HashSet<_> = people.into_keys().collect();
    assert_eq!(kept, HashSet::from([hash(2), hash(3)]));
}

#[tokio::test]
async fn a_forgotten_person_leaves_no_trace_unless_a_row_is_claimed() {
    let t = Fixture::new().await;
    t.settled(parked(1)).await;
    let person = Progress {
        person: Some(hash(2)),
        ..Progress::default()
    };
    t.settled(Settled {
        progress: person,
        ..done(2)
    })
    .await;
    t.store([delivered(3)]).await;
    t.claim().await;
    assert_eq!(t.inbox.entries_of(hash(2)).await.unwrap().len(), 1);
    let contacts = [5, 6].map(ContactId::new);
    let indexed = Indexed {
        contacts: contacts.to_vec(),
        known_by: vec![(hash(2), contacts[0]), (hash(7), contacts[1])],
    };
    t.inbox
        .index_contacts(indexed, "coverage", &1)
        .await
        .unwrap();

    // One that is claimed keeps all.
    let forgotten = t.inbox.forget(vec![row(1), row(3)], vec![hash(2)]).await;
    assert_eq!(forgotten.unwrap(), None);
    assert_eq!(t.state_of(1).await, State::Parked);

    let forgotten = t.inbox.forget(vec![row(1)], vec![hash(2)]).await;
    assert_eq!(forgotten.unwrap(), Some(3));
    let index = t.inbox.indexed(vec![hash(2), hash(7)]).await.unwrap();
    assert_eq!(index.into_keys().collect::<Vec<_>>(), [hash(7)]);
    let left = t.inbox.entries(None, 9).await.unwrap();
    assert_eq!(rows_of(&left), [row(3)]);
    assert_eq!(lines_of_history(&t).await, 1);
}

#[tokio::test]
async fn a_row_whose_write_may_still_land_is_not_forgotten() {
    let t = Fixture::new().await;
    let (lands, landed) = (t.in_a_minute(), t.now() - MINUTE);
    for (progress, is_forgotten) in [
        (creating(5, lands), false),
        (creating(5, landed), true),
        (placed(5, Some(lands)), false),
        (placed(5, Some(landed)), true),
        (placed(5, None), true),
    ] {
        // Whatever a person has done with the entry since.
        for parks in [false, true] {
            let t = Fixture::new().await;
            let again = Settlement::Again {
                due_at: t.in_a_minute(),
                failed: true,
                reason: None,
            };
            t.settled(Settled {
                progress: progress.clone(),
                ..end(1, again)
            })
            .await;
            if parks {
                assert_eq!(t.inbox.park(vec![row(1)]).await.unwrap(), 1);
            }
            let forgotten = t.inbox.forget(vec![row(1)], Vec::new()).await;
            assert_eq!(forgotten.unwrap().is_some(), is_forgotten, "{progress:?}");
        }
    }
}

#[tokio::test]
async fn the_engine_keeps_values_of_its_own() {
    let t = Fixture::new().await;
    let read = async || t.inbox.state::<Vec<u32>>("looks").await;
    assert_eq!(read().await.unwrap(), None);
    t.inbox.set_state("looks", &[1, 2]).await.unwrap();
    t.inbox.set_state("looks", &[3]).await.unwrap();
    assert_eq!(read().await.unwrap(), Some(vec![3]));
    t.inbox.set_state("looks", &"other").await.unwrap();
    let unreadable = read().await;
    assert!(matches!(
        unreadable,
        Err(InboxError::Corrupt { what: "looks" })
    ));
    t.inbox.clear_state("looks").await.unwrap();
    assert_eq!(read().await.unwrap(), None);
}

#[tokio::test]
async fn a_backfill_is_counted_by_its_own_rows() {
    let t = Fixture::new().await;
    let id = t.inbox.begin_backfill().await.unwrap();
    t.store((1..=6).map(backfilled).collect::<Vec<_>>()).await;
    let claim = t.claim().await;
    let (soon, later) = (t.now() + MINUTE / 2, t.now() + MINUTE * 60);
    let again = Settlement::Again {
        due_at: t.in_a_minute(),
        failed: false,
        reason: None,
    };
    let ends = vec![
        done(1),
        end(2, Settlement::Done(Outcome::Gone)),
        parked(3),
        waiting(4, soon),
        waiting(5, later),
        end(6, again),
    ];
    t.inbox.settle(claim.token, ends).await.unwrap();
    t.settled(done(7)).await;

    let tally = t.inbox.tally(id, t.now()).await.unwrap();
    assert_eq!(
        (tally.waiting_briefly, tally.next_due),
        (0, Some(t.in_a_minute()))
    );
    let tally = t.inbox.tally(id, t.in_a_minute()).await.unwrap();

    let expected = [
        ((State::Done, Some(Outcome::Synced)), 1),
        ((State::Done, Some(Outcome::Gone)), 1),
        ((State::Parked, None), 1),
        ((State::Waiting, None), 2),
        ((State::Pending, None), 1),
    ];
    assert_eq!(tally.by_end, HashMap::from(expected));
    assert_eq!((tally.waiting_briefly, tally.next_due), (1, Some(soon)));
}

#[tokio::test]
async fn states_are_told_of_rows_that_have_an_entry() {
    let t = Fixture::new().await;
    t.settled(parked(1)).await;
    t.store([delivered(2), delivered(3)]).await;

    let states = t.inbox.states_of(vec![row(1), row(2), row(9)]).await;

    let expected = [(row(1), State::Parked), (row(2), State::Pending)];
    assert_eq!(states.unwrap(), HashMap::from(expected));
}

#[tokio::test]
async fn an_inbox_of_an_earlier_version_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("inbox.db"));
    let mut earlier = options.create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql(include_str!("earlier.sql"))
        .execute(&mut earlier)
        .await
        .unwrap();
    earlier.close().await.unwrap();
    let written_at: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
    let t = Fixture::on((TestClock::at(written_at), folder)).await;

    let with_person = |progress| Progress {
        person: Some(hash(1)),
        ..progress
    };
    let with = |how, progress: Progress| match progress.step {
        Step::Placed {
            choice,
            note_resolve_after,
            ..
        } => at(Step::Placed {
            choice,
            how,
            note_resolve_after,
        }),
        Step::Noted { choice, .. } => at(Step::Noted { choice, how }),
        step => at(step),
    };
    let in_doubt = Progress {
        phone: Some(hash(2)),
        absent_since: Some(written_at),
        missed_since: Some(written_at),
        daily_searches: DailySearches {
            in_vain: 3,
            next_from: Some(written_at),
        },
        alone: true,
        unreadable: 2,
        ..with_person(Progress::default())
    };
    let expected = [
        in_doubt,
        chosen(5),
        with_person(creating(5, written_at)),
        with_person(creating_with_contact(written_at)),
        placed(5, None),
        with(Placed::Created, placed(5, Some(written_at))),
        with(Placed::Left, noted(5)),
    ];
    for (n, expected) in (1..).zip(expected) {
        let entry = t.entry(n).await;
        assert_eq!(entry.state, State::Waiting);
        assert_eq!(entry.progress, expected, "{n}");
        let told = [
            format!("delivery msg_{n}"),
            "deal 1 chosen: open; moved; noted; again: нет соединения с amoCRM".to_owned(),
        ];
        assert_eq!(t.story(n).await, told.map(Fact::Earlier));
    }
    // And they can be worked on.
    t.clock.advance(MINUTE);
    let claim = t.claim().await;
    let settled = claim.entries.iter().map(|entry| Settled {
        row: entry.row,
        progress: entry.progress.clone(),
        ..done(1)
    });
    t.inbox
        .settle(claim.token, settled.collect())
        .await
        .unwrap();
    assert_eq!(t.entry(6).await.outcome, Some(Outcome::Synced));
}

#[tokio::test]
async fn the_words_of_each_rule_of_an_earlier_version_are_read_as_the_rule() {
    let t = Fixture::new().await;
    t.settled(Settled {
        progress: chosen(11),
        ..parked(1)
    })
    .await;
    for (words, why) in [
        ("recorded for this person", Why::Recorded),
        ("open", Why::Open),
        ("recently closed, on the target stage", Why::ClosedOnTarget),
        ("recently won", Why::ClosedWon),
        ("recently lost", Why::ClosedLost),
        ("no usable deal", Why::NoDeal),
        ("no contact", Why::NoContact),
        ("a rule of a later version", Why::Open),
    ] {
        t.tamper(&format!(
            "UPDATE entry SET progress = json_set(progress, '$.choice.why', '{words}')"
        ))
        .await;
        assert_eq!(t.entry(1).await.progress.step.why(), Some(why));
    }
}

#[tokio::test]
async fn the_rows_for_which_a_deal_was_placed_come_with_its_time() {
    let t = Fixture::new().await;
    t.store((1..=4).map(delivered).collect::<Vec<_>>()).await;
    let claim = t.claim().await;
    let with = |n, progress| Settled {
        progress,
        ..done(n)
    };
    let of_a_move = Progress {
        moved: Some(moved(5)),
        ..noted(11)
    };
    let undone = Progress {
        undo: Some(Undo::Back),
        ..noted(13)
    };
    let ends = vec![
        with(1, of_a_move),
        with(2, placed(12, None)),
        with(3, undone),
        with(4, chosen(14)),
    ];
    t.clock.advance(MINUTE);
    t.inbox.settle(claim.token, ends).await.unwrap();

    let placed = t.inbox.placed(vec![DealId::new(1)]).await.unwrap();

    let of = |n, at| PlacedFor {
        row: row(n),
        deal: DealId::new(1),
        at,
    };
    assert_eq!(placed, [of(1, moved(5).at), of(2, t.now())]);
    assert_eq!(t.inbox.placed(vec![DealId::new(2)]).await.unwrap(), []);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_does_not_hide_those_that_can_be_undone() {
    let t = Fixture::new().await;
    t.store([backfilled(1), backfilled(2), backfilled(3)]).await;
    let claim = t.claim().await;
    let end = |n| Settled {
        progress: noted(11),
        ..done(n)
    };
    let ends = (1..=3).map(end).collect();
    t.inbox.settle(claim.token, ends).await.unwrap();
    for (n, progress) in [(2, "{"), (3, r#"{"placed":"moved","noted":7}"#)] {
        t.tamper(&format!(
            "UPDATE entry SET progress = '{progress}' WHERE row_id = '{}'",
            row(n)
        ))
        .await;
    }
    let since = t.inbox.placed_since(Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(rows_of(&since), [row(1)]);
    let of_one = t.inbox.entries_of_backfill(BackfillId(1)).await.unwrap();
    assert_eq!(rows_of(&of_one), [row(1)]);
}
