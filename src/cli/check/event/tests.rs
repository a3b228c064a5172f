use super::*;
use crate::{
    supabase::{Noted, Sender, Vault},
    words::Reader,
};

const NONCE: &str = "0123456789abcdef0123456789abcdef";

fn doctor() -> Doctor {
    Doctor {
        vault: Vault {
            url: Some("https://sync.example.org".to_owned()),
            url_path: Some("/webhooks/supabase".to_owned()),
            ..Vault::default()
        },
        sender: Sender {
            preloaded: Some(true),
            workers: Some(1),
            ..Sender::default()
        },
        ..Doctor::default()
    }
}

/// The line about it, in English; in Russian it has the same mark and other words.
fn told(journey: &Journey, doctor: &Doctor) -> (Mark, String) {
    let told = |lang| {
        let mut findings = Findings::new(Reader::in_utc(lang));
        tell(journey, NONCE.parse().unwrap(), doctor, &mut findings);
        let [line] = &findings.lines[..] else {
            panic!("{journey:?}: {:?}", findings.lines);
        };
        assert_eq!(line.what, "event");
        (line.mark, line.text.clone())
    };
    let (english, russian) = (told(Lang::English), told(Lang::Russian));
    assert_eq!(english.0, russian.0);
    assert_ne!(english.1, russian.1);
    english
}

fn not_queued(why: &str) -> Journey {
    Journey::NotQueued {
        why: why.to_owned(),
    }
}

fn queued(ahead: u64, is_moving: bool) -> Journey {
    Journey::Queued { ahead, is_moving }
}

fn answered(status: impl Into<Option<u16>>, content: &str) -> Journey {
    Journey::Answered {
        noted: Noted {
            status: status.into(),
            timed_out: false,
            error: None,
            content: Some(content.to_owned()),
        },
        after: Duration::from_millis(400),
    }
}

fn failed(timed_out: bool, error: &str) -> Journey {
    Journey::Answered {
        noted: Noted {
            status: None,
            timed_out,
            error: Some(error.to_owned()),
            content: None,
        },
        after: Duration::from_secs(5),
    }
}

#[test]
fn each_part_of_the_way_has_its_line_and_says_what_to_do() {
    use Mark::{Bad, Good, Warning};
    let verified = format!(r#"{{"status":"test","nonce":"{NONCE}"}}"#);
    let of_another = verified.replace('0', "f");
    let table: &[(Journey, Mark, &[&str])] = &[
        (answered(200, &verified), Good, &["was verified, in 0.4 s"]),
        (
            answered(200, r#"{"status":"ignored","reason":"not an insert"}"#),
            Warning,
            &["an older version"],
        ),
        (
            answered(200, &of_another),
            Bad,
            &[
                "https://sync.example.org/webhooks/supabase",
                "is not the service",
            ],
        ),
        (
            answered(200, "<html>welcome"),
            Bad,
            &["is not the service", "Another address"],
        ),
        (answered(200, ""), Bad, &["is not the service"]),
        (answered(202, &verified), Bad, &["202"]),
        (
            answered(401, ""),
            Bad,
            &["answered with 401", "WEBHOOK_SECRET", "clock"],
        ),
        (
            answered(404, ""),
            Bad,
            &["answered with 404", "final address"],
        ),
        (answered(405, ""), Bad, &["answered with 405", "redirect"]),
        (answered(503, ""), Bad, &["answered with 503", "inbox"]),
        (answered(502, ""), Bad, &["answered with 502", "proxy"]),
        (
            failed(true, "Timeout of 5000 ms reached"),
            Bad,
            &["no answer within 5 s"],
        ),
        (
            failed(false, "Couldn't connect\nto server"),
            Bad,
            &["(Couldn't connectto server)", "does the service run"],
        ),
        (Journey::Lost, Bad, &["left the queue", "restarted"]),
        (queued(40, true), Warning, &["waits behind 40"]),
        (
            queued(40, false),
            Bad,
            &["behind 40", "net.wake()", "net.worker_restart()"],
        ),
        (
            Journey::NotSigned {
                why: "SQLSTATE 42P01".to_owned(),
            },
            Bad,
            &["not signed: SQLSTATE 42P01", "`vault`"],
        ),
        (
            not_queued("SQLSTATE 42501"),
            Bad,
            &["did not take it: SQLSTATE 42501", "off and on"],
        ),
        (
            not_queued("SQLSTATE 55P03"),
            Bad,
            &["locked", "run this again"],
        ),
        (
            not_queued("SQLSTATE 42883"),
            Bad,
            &["Database, Extensions, pg_net"],
        ),
        (Journey::TooSoon, Warning, &["ten seconds"]),
        (Journey::NoFunction, Warning, &["setup-sql` again"]),
    ];
    for (journey, mark, words) in table {
        let (have, text) = told(journey, &doctor());
        assert_eq!(have, *mark, "{text}");
        for word in *words {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}

#[test]
fn what_the_doctor_saw_of_pg_net_names_the_cause() {
    type Change = fn(&mut Sender);
    let table: [(Change, Journey, &str); 5] = [
        (
            |it| it.preloaded = Some(false),
            queued(0, false),
            "not in shared_preload_libraries",
        ),
        (
            |it| it.preloaded = Some(false),
            not_queued("SQLSTATE 55000"),
            "not in shared_preload_libraries",
        ),
        (
            |it| it.other_database = Some("other".to_owned()),
            queued(0, false),
            "serves the database other",
        ),
        (
            |it| it.update_to = Some("0.21.0".to_owned()),
            queued(0, false),
            "ALTER EXTENSION pg_net UPDATE",
        ),
        (|it| it.workers = Some(0), queued(0, false), "no worker"),
    ];
    for (change, journey, words) in table {
        let mut doctor = doctor();
        change(&mut doctor.sender);
        let (mark, text) = told(&journey, &doctor);
        assert_eq!(mark, Mark::Bad);
        assert!(text.contains(words), "{words}: {text}");
    }
    // Facts that the doctor could not see do not change the finding.
    let mut doctor = doctor();
    doctor.sender = Sender::default();
    assert!(told(&queued(0, false), &doctor).1.contains("sleeps"));
}
