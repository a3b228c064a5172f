use super::*;
use crate::{
    supabase::{Caller, Trigger},
    words::{Lang, Reader},
};

const NOW: &str = "2026-11-22T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// A project where everything is as it should be, asked as the role.
fn doctor() -> Doctor {
    let columns = [
        "id",
        "email",
        "full_name",
        "created_at",
        "phone",
        "generated_password",
        DEAL,
        CONTACT,
    ];
    Doctor {
        version: Some(VERSION),
        now: Some(at(NOW)),
        columns: names(&columns),
        id_type: Some("uuid".to_owned()),
        rls: true,
        caller: Caller {
            name: Some("tripwire_sync".to_owned()),
            bypasses_rls: false,
            may_select: names(&[
                "id",
                "email",
                "full_name",
                "created_at",
                "phone",
                DEAL,
                CONTACT,
            ]),
            may_update: names(&[DEAL, CONTACT]),
            select_policy: true,
            update_policy: true,
        },
        trigger: Trigger {
            present: true,
            enabled: true,
            insert_only: true,
            ours: true,
        },
        pg_net: Some("0.20.4".to_owned()),
        queued: Some(0),
        vault: Vault {
            url: Some("https://sync.example.org".to_owned()),
            url_path: Some(PATH.to_owned()),
            fingerprints: names(&["aaaa"]),
            unusable: 0,
            error: None,
        },
        ..Doctor::default()
    }
}

fn ours() -> Ours {
    Ours {
        at: at(NOW),
        tolerance: Duration::from_mins(5),
        fingerprints: names(&["aaaa"]),
        takes_bearer: false,
        note_columns: Vec::new(),
        sweeps: true,
        holder: None,
    }
}

fn found(doctor: &Doctor, ours: &Ours, lang: Lang) -> Vec<(Mark, &'static str, String)> {
    let mut findings = Findings::new(Reader::in_utc(lang));
    diagnose(doctor, ours, &mut findings);
    let lines = findings.lines.into_iter();
    lines
        .map(|line| (line.mark, line.what, line.text))
        .collect()
}

/// The findings that are not good, the same in both languages.
fn complaints(doctor: &Doctor, ours: &Ours) -> Vec<(Mark, &'static str, String)> {
    let complaints = |lang| {
        let mut found = found(doctor, ours, lang);
        found.retain(|(mark, ..)| *mark != Mark::Good);
        found
    };
    let (english, russian) = (complaints(Lang::English), complaints(Lang::Russian));
    assert_eq!(english.len(), russian.len());
    for (english, russian) in english.iter().zip(&russian) {
        assert_eq!((english.0, english.1), (russian.0, russian.1));
        assert_ne!(english.2, russian.2);
    }
    english
}

#[test]
fn a_project_set_up_as_it_should_be_has_no_complaint() {
    let whats: Vec<_> = found(&doctor(), &ours(), Lang::English)
        .into_iter()
        .map(|(mark, what, text)| {
            assert_eq!(mark, Mark::Good, "{what}: {text}");
            what
        })
        .collect();
    assert_eq!(
        whats,
        [
            "rights", "trigger", "pg_net", "vault", "vault", "clock", "lease"
        ]
    );
}

type Change = fn(&mut Doctor, &mut Ours);

/// One thing wrong, one line about it, with what to do.
#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn each_fault_has_its_line_and_says_what_to_do() {
    use Mark::{Advice, Bad, Warning};
    let table: [(Change, Mark, &str, &[&str]); 33] = [
        (
            |it, _| it.columns.retain(|column| column != DEAL),
            Bad,
            "database",
            &["another project of the same school", "step 3"],
        ),
        (
            |it, _| it.version = None,
            Warning,
            "database",
            &["an older one", "code as postgres", "setup-sql` again"],
        ),
        (
            |it, _| it.version = Some(VERSION - 1),
            Warning,
            "database",
            &["an older one"],
        ),
        (
            |it, _| it.id_type = Some("bigint".to_owned()),
            Bad,
            "database",
            &["tripwire_users.id is bigint", "needs uuid"],
        ),
        (
            |it, _| it.caller.may_select.retain(|column| column != "email"),
            Bad,
            "rights",
            &["tripwire_sync", "read email", "step 3"],
        ),
        (
            |it, _| it.caller.may_update.retain(|column| column != DEAL),
            Bad,
            "rights",
            &["write amocrm_deal_id", "step 3"],
        ),
        (
            |it, _| it.caller.may_update.retain(|column| column != CONTACT),
            Warning,
            "rights",
            &["write amocrm_contact_id"],
        ),
        (
            |it, _| it.caller.select_policy = false,
            Bad,
            "rights",
            &["policy for SELECT", "0 rows and no error", "step 3"],
        ),
        (
            |it, _| it.caller.update_policy = false,
            Bad,
            "rights",
            &["policy for UPDATE", "0 rows and no error", "step 3"],
        ),
        (
            |_, ours| ours.note_columns = vec!["generated_password"],
            Warning,
            "rights",
            &[
                "{generated_password}",
                "run: grant select (generated_password) on public.tripwire_users to tripwire_sync;",
            ],
        ),
        (
            |_, ours| ours.note_columns = vec!["price"],
            Warning,
            "rights",
            &["{price}", "no such column"],
        ),
        (
            |it, _| it.trigger.present = false,
            Warning,
            "trigger",
            &["sweep alone", "step 3"],
        ),
        (
            |it, ours| {
                it.trigger.present = false;
                ours.sweeps = false;
            },
            Bad,
            "trigger",
            &["RECONCILE_INTERVAL"],
        ),
        (
            |it, _| it.trigger.enabled = false,
            Warning,
            "trigger",
            &["enable trigger tripwire_sync_notify"],
        ),
        (
            |it, _| it.trigger.insert_only = false,
            Bad,
            "trigger",
            &["more than INSERT", "step 3"],
        ),
        (
            |it, _| it.trigger.ours = false,
            Bad,
            "trigger",
            &["foreign function", "step 3"],
        ),
        (
            |it, _| it.dashboard_webhooks = names(&["notify crm"]),
            Warning,
            "trigger",
            &["notify crm", "not signed", "delete"],
        ),
        (
            |it, _| it.pg_net = None,
            Bad,
            "pg_net",
            &["Database, Extensions, pg_net"],
        ),
        (
            |it, _| it.queued = Some(201),
            Warning,
            "pg_net",
            &["201", "net.worker_restart()"],
        ),
        (
            |it, _| it.vault.error = Some("SQLSTATE 42501".to_owned()),
            Bad,
            "vault",
            &["SQLSTATE 42501", "role postgres"],
        ),
        (
            |it, _| it.vault.url = None,
            Bad,
            "vault",
            &["tripwire_webhook_url", "tripwire-sync setup-sql"],
        ),
        (
            |it, _| it.vault.url = Some("http://sync.example.org".to_owned()),
            Bad,
            "vault",
            &["in the clear", "redirect"],
        ),
        (
            |it, _| it.vault.url = Some("http://127.0.0.1.example.org".to_owned()),
            Bad,
            "vault",
            &["in the clear"],
        ),
        (
            |it, _| it.vault.url_path = Some("/webhook".to_owned()),
            Warning,
            "vault",
            &["https://sync.example.org/webhook,", PATH],
        ),
        (
            |it, _| it.vault.fingerprints.clear(),
            Bad,
            "vault",
            &["tripwire_webhook_secret", "tripwire-sync setup-sql"],
        ),
        (
            |it, _| it.vault.fingerprints = names(&["bbbb"]),
            Bad,
            "vault",
            &["401", "WEBHOOK_SECRET"],
        ),
        (
            |it, ours| {
                it.vault.fingerprints = names(&["aaaa", "bbbb"]);
                ours.fingerprints = names(&["aaaa", "bbbb", "cccc"]);
            },
            Warning,
            "vault",
            &["holds 3", "signs with 2 of them", "Replace the secret, 2"],
        ),
        (
            |it, ours| {
                it.vault.fingerprints = names(&["aaaa", "bbbb"]);
                ours.fingerprints = names(&["bbbb", "aaaa"]);
            },
            Advice,
            "vault",
            &[
                "signs with all 2",
                "take the old one out",
                "Replace the secret, 3",
            ],
        ),
        (
            |it, _| it.vault.fingerprints = names(&["aaaa", "bbbb"]),
            Warning,
            "vault",
            &[
                "signs with 2",
                "holds 1 of them",
                "Last step",
                "Replace the secret, 4",
            ],
        ),
        (
            |it, ours| {
                it.vault.fingerprints = names(&["aaaa", "bbbb"]);
                ours.fingerprints = names(&["bbbb", "cccc"]);
            },
            Warning,
            "vault",
            &["2 secrets", "holds 2", "both have 1", "setup-sql --secret"],
        ),
        (
            |it, _| it.vault.unusable = 1,
            Warning,
            "vault",
            &["no secret (whsec_…): 1"],
        ),
        (
            |it, _| it.now = Some(at("2026-11-22T11:54:59Z")),
            Bad,
            "clock",
            &["-301.0 s", "WEBHOOK_TOLERANCE", "NTP"],
        ),
        (
            |it, _| it.now = Some(at("2026-11-22T12:01:16Z")),
            Warning,
            "clock",
            &["+76.0 s", "300 s", "NTP"],
        ),
    ];
    for (change, mark, what, words) in table {
        let (mut doctor, mut ours) = (doctor(), ours());
        change(&mut doctor, &mut ours);
        let complaints = complaints(&doctor, &ours);
        let [(have_mark, have_what, text)] = &complaints[..] else {
            panic!("{what} {words:?}: {complaints:#?}");
        };
        assert_eq!((*have_mark, *have_what), (mark, what), "{text}");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}

#[test]
fn without_a_doctor_it_says_by_what_rows_come_meanwhile() {
    for (takes_bearer, words) in [
        (false, "found by the sweep alone"),
        (true, "events come by the dashboard's own webhooks alone"),
    ] {
        let told = |lang| {
            let mut findings = Findings::new(Reader::in_utc(lang));
            no_doctor(takes_bearer, &mut findings);
            findings.lines.remove(0)
        };
        let (english, russian) = (told(Lang::English), told(Lang::Russian));
        assert_eq!((english.mark, russian.mark), (Mark::Warning, Mark::Warning));
        assert!(english.text.contains(words), "{}", english.text);
        assert_ne!(english.text, russian.text);
    }
}

#[test]
fn what_needs_no_mending_is_not_complained_of() {
    let table: [Change; 7] = [
        // service_role needs no policy.
        |it, _| {
            it.caller.bypasses_rls = true;
            it.caller.select_policy = false;
            it.caller.update_policy = false;
        },
        |it, _| {
            it.rls = false;
            it.caller.select_policy = false;
            it.caller.update_policy = false;
        },
        // An older table.
        |it, _| {
            it.columns.retain(|column| column != CONTACT);
            it.caller.may_update.retain(|column| column != CONTACT);
        },
        // The dashboard's way.
        |it, ours| {
            it.trigger = Trigger::default();
            it.dashboard_webhooks = names(&["notify crm"]);
            it.vault = Vault::default();
            ours.takes_bearer = true;
            ours.fingerprints.clear();
        },
        // A local stack.
        |it, _| it.vault.url = Some("http://host.docker.internal:8080".to_owned()),
        |it, _| it.vault.url_path = Some("/sync/webhooks/supabase".to_owned()),
        |it, _| it.queued = None,
    ];
    for (index, change) in table.into_iter().enumerate() {
        let (mut doctor, mut ours) = (doctor(), ours());
        change(&mut doctor, &mut ours);
        assert_eq!(complaints(&doctor, &ours), [], "{index}");
    }
}

#[test]
fn a_secret_that_only_one_side_has_finished_replacing_is_told_from_a_wrong_one() {
    for (theirs, known, mark) in [
        (&["aaaa"][..], &["aaaa"][..], Mark::Good),
        (&["aaaa", "bbbb"], &["bbbb", "aaaa"], Mark::Advice),
        (&["aaaa", "bbbb"], &["bbbb"], Mark::Warning),
        (&["aaaa"], &["aaaa", "bbbb"], Mark::Warning),
        (&["aaaa"], &["bbbb"], Mark::Bad),
        (&["aaaa"], &[], Mark::Bad),
    ] {
        let (mut doctor, mut ours) = (doctor(), ours());
        doctor.vault.fingerprints = names(theirs);
        ours.fingerprints = names(known);
        let found = found(&doctor, &ours, Lang::English);
        let (have, _, text) = found.iter().rfind(|(_, what, _)| *what == "vault").unwrap();
        assert_eq!(*have, mark, "{theirs:?} {known:?}: {text}");
    }
}

/// The guide says after each step what `check` says then: one state, one sentence.
#[test]
fn the_states_of_a_replacement_are_told_in_the_words_of_the_guide() {
    let guide = include_str!("../../../../docs/supabase.md");
    let (_, section) = guide.split_once("\n## Replace the secret\n").unwrap();
    let states = [
        (&["aaaa"][..], &["aaaa", "bbbb"][..]),
        (&["aaaa", "bbbb"], &["aaaa", "bbbb"]),
        (&["aaaa", "bbbb"], &["bbbb"]),
        (&["bbbb"], &["bbbb"]),
    ];
    for (step, (theirs, known)) in (1..).zip(states) {
        let row = format!("\n| {step} | ");
        let (_, row) = section.split_once(&row).unwrap();
        let said = row.lines().next().unwrap().rsplit('`').nth(1).unwrap();
        let (mut doctor, mut ours) = (doctor(), ours());
        doctor.vault.fingerprints = names(theirs);
        ours.fingerprints = names(known);
        let found = found(&doctor, &ours, Lang::English);
        let (.., text) = found.iter().rfind(|(_, what, _)| *what == "vault").unwrap();
        assert!(text.contains(said), "{step}: {said}: {text}");
    }
}

#[test]
fn the_holder_of_the_lease_is_named_and_we_know_ourselves() {
    let (mut doctor, mut ours) = (doctor(), ours());
    let told = |doctor: &Doctor, ours: &Ours| {
        let found = found(doctor, ours, Lang::English);
        let (mark, what, text) = found.last().unwrap();
        assert_eq!((*mark, *what), (Mark::Good, "lease"));
        text.clone()
    };
    assert!(told(&doctor, &ours).contains("no service is syncing"));
    doctor.lease = Some(Lease {
        held_by: "fly-1".to_owned(),
        seconds_left: 42.1,
    });
    let other = told(&doctor, &ours);
    assert!(other.contains("fly-1 for 42 s"), "{other}");
    ours.holder = Some("fly-1".to_owned());
    assert!(told(&doctor, &ours).contains("this inbox"));
    doctor.lease = Some(Lease {
        held_by: "fly-1".to_owned(),
        seconds_left: -1.0,
    });
    assert!(told(&doctor, &ours).contains("no service is syncing"));
}

#[test]
fn a_table_that_could_not_be_looked_at_is_not_called_a_lookalike() {
    let mut doctor = doctor();
    doctor.columns.clear();
    assert_eq!(found(&doctor, &ours(), Lang::English), []);
}

#[test]
fn a_pause_of_all_services_and_a_missing_function_are_warned_of() {
    let answer = |is_paused| PauseAnswer {
        last: Some(LastPause {
            is_paused,
            changed_at: at(NOW),
            seconds_ago: 1.0,
        }),
        held_by: None,
    };
    let never = PauseAnswer {
        last: None,
        held_by: None,
    };
    for (answer, mark, words) in [
        (Some(answer(true)), Mark::Warning, "12:00:00 UTC"),
        (Some(answer(false)), Mark::Good, ""),
        (Some(never), Mark::Good, ""),
        (None, Mark::Advice, "setup-sql"),
    ] {
        for lang in [Lang::English, Lang::Russian] {
            let mut findings = Findings::new(Reader::in_utc(lang));
            pause(answer.as_ref(), &mut findings);
            let line = &findings.lines[0];
            assert_eq!(line.mark, mark);
            assert!(line.text.contains(words), "{}", line.text);
        }
    }
}
