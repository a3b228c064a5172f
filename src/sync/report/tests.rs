use super::*;

#[test]
fn an_attempt_is_told_if_it_sent_something_or_ended_something() {
    let again = |failed| Settlement::Again {
        due_at: Timestamp::UNIX_EPOCH,
        failed,
        reason: None,
    };
    let waiting = Settlement::Waiting {
        due_at: Timestamp::UNIX_EPOCH,
        reason: "a".to_owned(),
    };
    let parked = Settlement::Parked {
        reason: String::new(),
    };
    let (nothing, sent): (&[Fact], &[Fact]) =
        (&[Fact::PersonAtWork], &[Fact::OneAtATime, Fact::Noted]);
    for (end, before, history, level) in [
        (
            &Settlement::Done(Outcome::Skipped),
            None,
            nothing,
            Level::INFO,
        ),
        (&parked, None, nothing, Level::ERROR),
        (&again(true), None, nothing, Level::WARN),
        (&again(false), None, nothing, Level::DEBUG),
        (&again(false), None, sent, Level::INFO),
        (&waiting, None, nothing, Level::INFO),
        (&waiting, Some("b"), nothing, Level::INFO),
        (&waiting, Some("a"), nothing, Level::DEBUG),
    ] {
        assert_eq!(
            super::level(end, before, history),
            level,
            "{end:?} {before:?} {history:?}"
        );
    }
}
