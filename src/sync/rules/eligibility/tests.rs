use super::*;
use crate::{
    domain::{ContactId, DealId, KeyedHash},
    inbox::{Choice, Create, CreateFor, Placed, Step, Why},
};

const SINCE: i64 = 1_790_000_000;

/// Whether a person asked for the row by a backfill.
const TOLD: bool = false;
const ASKED_FOR: bool = true;

fn at(seconds_after_since: i64) -> Timestamp {
    Timestamp::from_second(SINCE + seconds_after_since).unwrap()
}

fn rules() -> RowRules {
    RowRules {
        since: at(0),
        settle_delay: Duration::from_secs(5),
    }
}

fn row() -> Row {
    Row {
        id: "00000000-0000-4000-8000-000000000001".parse().unwrap(),
        email: Some(" Ann@Example.org".into()),
        full_name: None,
        phone: None,
        manager_name: None,
        price: None,
        generated_password: None,
        status: Some("active".into()),
        created_at: Some(at(60)),
        deal_id: None,
    }
}

fn written(deal: Option<i64>) -> Progress {
    let (fingerprint, contact) = (KeyedHash::new([0; 16]), ContactId::new(501));
    let step = match deal {
        Some(deal) => Step::Placed {
            choice: Choice {
                fingerprint,
                contact: Some(contact),
                deal: DealId::new(deal),
                why: Why::Open,
            },
            how: Placed::Moved,
            note_resolve_after: None,
        },
        None => Step::Creating(Create {
            fingerprint,
            made_for: CreateFor::Contact {
                contact,
                after_deal: DealId::new(0),
            },
            name: fingerprint,
            resolve_after: at(0),
        }),
    };
    Progress {
        step,
        ..Progress::default()
    }
}

fn known(is_asked_for: bool) -> Known {
    Known {
        is_asked_for,
        stored_at: at(199),
    }
}

type Seen = Result<Email, Settlement>;

fn see(row: &Row, is_asked_for: bool, mut progress: Progress) -> Seen {
    let known = known(is_asked_for);
    eligibility(&rules(), known, &mut progress, row, at(100), at(200))
}

fn done(outcome: Outcome) -> Seen {
    Err(Settlement::Done(outcome))
}

#[test]
fn a_row_is_ours_by_its_age_status_and_deal_id() {
    let status = |status: &str| Row {
        status: Some(status.into()),
        ..row()
    };
    let created = |seconds| Row {
        created_at: Some(at(seconds)),
        ..row()
    };
    let filled = |deal: &str| Row {
        deal_id: Some(deal.into()),
        ..row()
    };
    let proceed = Ok(Email::parse("ann@example.org").unwrap());
    let fresh = Progress::default;

    let table: Vec<(&str, Row, bool, Progress, Seen)> = vec![
        ("a new row", row(), TOLD, fresh(), proceed.clone()),
        (
            "a row without a time counts as new",
            Row {
                created_at: None,
                ..row()
            },
            TOLD,
            fresh(),
            proceed.clone(),
        ),
        (
            "created at the very start",
            created(0),
            TOLD,
            fresh(),
            proceed.clone(),
        ),
        (
            "created before",
            created(-1),
            TOLD,
            fresh(),
            done(Outcome::TooOld),
        ),
        (
            "created before, asked for by a person",
            created(-1),
            ASKED_FOR,
            fresh(),
            proceed.clone(),
        ),
        (
            "created before, but already begun",
            created(-1),
            TOLD,
            written(Some(901)),
            proceed.clone(),
        ),
        (
            "blocked",
            status("blocked"),
            TOLD,
            fresh(),
            done(Outcome::Skipped),
        ),
        (
            "inactive, in whatever spelling",
            status(" Inactive "),
            ASKED_FOR,
            fresh(),
            done(Outcome::Skipped),
        ),
        (
            "completed",
            status("completed"),
            TOLD,
            fresh(),
            proceed.clone(),
        ),
        (
            "blocked after we began",
            status("blocked"),
            TOLD,
            written(Some(901)),
            proceed,
        ),
        (
            "filled before us",
            filled("77"),
            TOLD,
            fresh(),
            done(Outcome::AlreadyLinked),
        ),
        (
            "filled with ours",
            filled(" 901 "),
            TOLD,
            written(Some(901)),
            done(Outcome::Synced),
        ),
    ];
    for (what, row, is_asked_for, progress, expected) in table {
        assert_eq!(see(&row, is_asked_for, progress), expected, "{what}");
    }
}

#[test]
fn a_row_filled_with_another_deal_after_we_wrote_is_parked_with_both_named() {
    let filled = Row {
        deal_id: Some("77".into()),
        ..row()
    };
    let Err(Settlement::Parked { reason }) = see(&filled, TOLD, written(Some(901))) else {
        panic!()
    };
    assert!(reason.contains("77") && reason.contains("901"), "{reason}");
    let personal = Row {
        deal_id: Some("Анна".into()),
        ..row()
    };
    let Err(Settlement::Parked { reason }) = see(&personal, TOLD, written(Some(901))) else {
        panic!()
    };
    assert!(!reason.contains("Анна"), "{reason}");
}

#[test]
fn a_row_filled_while_our_create_is_in_doubt_goes_on_to_where_that_is_looked_for() {
    let filled = Row {
        deal_id: Some("77".into()),
        ..row()
    };
    let proceed = see(&row(), TOLD, written(None));
    assert!(proceed.is_ok(), "{proceed:?}");
    assert_eq!(see(&filled, TOLD, written(None)), proceed);
}

#[test]
fn a_row_is_left_alone_until_it_has_settled() {
    let young = |age: i64| Row {
        created_at: Some(at(100 - age)),
        ..row()
    };
    let due = |row: &Row| match see(row, TOLD, Progress::default()) {
        Err(Settlement::Again {
            due_at,
            failed: false,
            ..
        }) => Some(due_at),
        Ok(_) => None,
        Err(end) => panic!("{end:?}"),
    };
    // Read at 100 by PostgREST's clock, while ours says 200.
    assert_eq!(due(&young(0)), Some(at(205)));
    assert_eq!(due(&young(3)), Some(at(202)));
    assert_eq!(due(&young(5)), None);
    // The age of a row from the future counts from when its entry was stored: at 199, and it is 200 now.
    assert_eq!(due(&young(-1)), Some(at(204)));
    assert_eq!(due(&young(-3_600)), Some(at(204)));
}

#[test]
fn a_row_from_the_future_does_not_rest_by_a_clock_that_was_put_back() {
    let row = Row {
        created_at: Some(at(101)),
        ..row()
    };
    let stored_later = Known {
        stored_at: at(86_400),
        ..known(TOLD)
    };
    let mut progress = Progress::default();
    let seen = eligibility(
        &rules(),
        stored_later,
        &mut progress,
        &row,
        at(100),
        at(200),
    );
    assert!(seen.is_ok(), "{seen:?}");
}

#[test]
fn a_row_without_a_sound_email_is_parked() {
    for email in [
        None,
        Some(String::new()),
        Some("   ".into()),
        Some("ann".into()),
    ] {
        let row = Row { email, ..row() };
        assert!(matches!(
            see(&row, TOLD, Progress::default()),
            Err(Settlement::Parked { .. })
        ));
    }
}

#[test]
fn a_row_is_gone_when_absent_twice_a_minute_apart_while_others_can_be_seen() {
    let mut progress = Progress::default();
    let mut look = |now| absent(&Timings::default(), &mut progress, at(now));
    let Settlement::Again {
        due_at,
        failed: false,
        ..
    } = look(10)
    else {
        panic!()
    };
    assert_eq!(due_at, at(70));
    let Settlement::Again { due_at, .. } = look(69) else {
        panic!()
    };
    assert_eq!(due_at, at(70));
    assert_eq!(look(70), Settlement::Done(Outcome::Gone));
}

#[test]
fn a_row_that_came_back_is_not_gone() {
    let mut progress = Progress {
        absent_since: Some(at(0)),
        ..Progress::default()
    };
    let known = known(TOLD);
    let seen = eligibility(&rules(), known, &mut progress, &row(), at(100), at(200));
    assert!(seen.is_ok());
    assert_eq!(progress.absent_since, None);
}
