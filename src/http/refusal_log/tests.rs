use std::net::Ipv4Addr;

use serde_json::Value;

use super::*;
use crate::{
    http::{signature::SignatureError, webhook::Malformed},
    telemetry::captured::Captured,
};

fn client(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn too_old(seconds: u64) -> WebhookError {
    let by = Duration::from_secs(seconds);
    SignatureError::TooOld { by }.into()
}

fn not_json(column: usize) -> WebhookError {
    Malformed::NotJson { column }.into()
}

fn lines_of(tallies: &mut Tallies) -> Vec<(String, u64, Option<IpAddr>)> {
    let taken = tallies.take().into_iter();
    taken
        .map(|tally| (tally.error.reason(), tally.count, tally.client))
        .collect()
}

#[test]
fn a_kind_is_one_line_with_its_count_and_the_details_of_the_first() {
    let unsigned = || WebhookError::from(SignatureError::Unsigned);
    let mut tallies = Tallies::default();

    let firsts = [
        tallies.note(too_old(301), Some(client(1))),
        tallies.note(unsigned(), Some(client(2))),
        tallies.note(too_old(999), Some(client(3))),
        tallies.note(not_json(7), Some(client(4))),
        tallies.note(WebhookError::TooSlow, None),
        tallies.note(not_json(8), Some(client(5))),
        tallies.note(unsigned(), Some(client(6))),
        tallies.note(too_old(302), Some(client(7))),
    ];

    assert_eq!(firsts.map(usize::from).iter().sum::<usize>(), 1);
    assert!(firsts[0]);
    let expected = [
        (
            "it was signed 301 s ago, which is too long",
            3,
            Some(client(1)),
        ),
        (
            "it carries neither a signature nor a token",
            2,
            Some(client(2)),
        ),
        ("the body is not JSON (column 7)", 2, Some(client(4))),
        ("the body did not arrive in time", 1, None),
    ];
    assert_eq!(
        lines_of(&mut tallies),
        expected.map(|(reason, count, client)| (reason.to_owned(), count, client))
    );
    assert_eq!(lines_of(&mut tallies), []);
    assert!(tallies.note(unsigned(), Some(client(8))), "the first again");
}

/// Level, count and client of each line.
fn told(captured: &Captured) -> Vec<String> {
    let text = captured.text();
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["message"], "webhook.refused");
        let client = line["client"].as_str().unwrap_or("-");
        format!(
            "{} {} {client}",
            line["level"].as_str().unwrap(),
            line["count"]
        )
    });
    lines.collect()
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_a_line_a_second_and_its_end_is_told() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(captured.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let log = RefusalLog::start();
    let flood = |last: u8| {
        for _ in 0..1_000 {
            log.note(SignatureError::Unsigned.into(), Some(client(last)));
        }
    };

    log.note(SignatureError::Unsigned.into(), Some(client(1)));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(told(&captured), ["WARN 1 192.0.2.1"], "the first at once");

    for tenth in 2..10 {
        flood(tenth);
        log.note(WebhookError::NotAccepting, Some(client(tenth)));
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(told(&captured).len(), 1, "the second is not over");
    sleep(INTERVAL).await;
    assert_eq!(
        told(&captured)[1..],
        ["WARN 8000 192.0.2.2", "ERROR 8 192.0.2.2"]
    );

    sleep(INTERVAL * 10).await;
    assert_eq!(told(&captured).len(), 3, "silence is not logged");
    log.note(WebhookError::TooLarge { longest: 1 }, None);
    log.flush();
    assert_eq!(told(&captured)[3..], ["WARN 1 -"]);
    // The task has nothing left to say, and ends with its log.
    drop(log);
    sleep(INTERVAL * 2).await;
    assert_eq!(told(&captured).len(), 4);
}
