use super::*;
use crate::words::{Lang, Reader};

const NOW: &str = "2026-11-22T12:00:00Z";

fn claims(role: &str, expires_at: &str) -> TokenClaims {
    TokenClaims {
        role: Some(role.to_owned()),
        project: None,
        expires_at: Some(expires_at.parse().unwrap()),
    }
}

fn lasting(role: &str) -> TokenClaims {
    claims(role, "2027-11-22T12:00:00Z")
}

fn judged(key: &Key, token: Option<&TokenClaims>) -> Vec<(Mark, String)> {
    let url = Url::parse("https://abcdefghijklmnopqrst.supabase.co").unwrap();
    let judged = |lang| {
        let mut findings = Findings::new(Reader::in_utc(lang));
        judge(key, token, &url, NOW.parse().unwrap(), &mut findings);
        let lines = findings.lines.into_iter();
        lines.map(|line| (line.mark, line.text)).collect::<Vec<_>>()
    };
    let (english, russian) = (judged(Lang::English), judged(Lang::Russian));
    let marks = |lines: &[(Mark, String)]| lines.iter().map(|(mark, _)| *mark).collect::<Vec<_>>();
    assert_eq!(marks(&english), marks(&russian));
    english
}

#[test]
fn a_key_is_known_by_its_looks() {
    assert_eq!(Key::of("sb_secret_0123"), Key::Secret);
    assert_eq!(Key::of("sb_publishable_0123"), Key::Publishable);
    assert_eq!(Key::of("a-key-of-a-project-of-ones-own"), Key::Other);
    // {"role":"service_role"}
    let legacy = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl";
    let Key::Legacy(claims) = Key::of(legacy) else {
        panic!("it is a JWT");
    };
    assert_eq!(claims.role.as_deref(), Some("service_role"));
}

#[test]
fn every_pair_of_key_and_token_is_judged() {
    use Mark::{Advice, Bad, Good, Warning};
    let ours = lasting(ROLE);
    let legacy = |role: &str| Key::Legacy(lasting(role));
    let table: [(Key, Option<&TokenClaims>, &[Mark], &str); 10] = [
        (
            Key::Publishable,
            Some(&ours),
            &[Good],
            "good until 2027-11-22, for 365 more days",
        ),
        (
            Key::Secret,
            Some(&ours),
            &[Good, Advice],
            "publishable key (sb_publishable_…) would do",
        ),
        (
            Key::Secret,
            None,
            &[Advice],
            "recommended: the role tripwire_sync",
        ),
        (Key::Publishable, None, &[Bad], "tripwire-sync jwt"),
        (
            legacy("service_role"),
            None,
            &[Advice, Warning, Good],
            "legacy key",
        ),
        (legacy("anon"), None, &[Bad, Good], "role anon"),
        (legacy(ROLE), None, &[Bad, Good], "put it into SUPABASE_JWT"),
        (Key::Other, None, &[Good], "taken as it is"),
        (
            Key::Publishable,
            Some(&lasting("anon")),
            &[Bad, Good],
            "role anon",
        ),
        (
            Key::Publishable,
            Some(&lasting("crm")),
            &[Warning, Good],
            "role crm",
        ),
    ];
    for (key, token, marks, words) in table {
        let judged = judged(&key, token);
        let have: Vec<_> = judged.iter().map(|(mark, _)| *mark).collect();
        assert_eq!(have, marks, "{judged:#?}");
        assert!(
            judged.iter().any(|(_, text)| text.contains(words)),
            "{judged:#?}"
        );
    }
}

#[test]
fn a_key_of_another_project_is_noticed() {
    let mut other = lasting("service_role");
    other.project = Some("zzzzzzzzzzzzzzzzzzzz".to_owned());
    let (mark, text) = &judged(&Key::Legacy(other.clone()), None)[0];
    assert_eq!(*mark, Mark::Bad);
    assert!(text.contains("zzzzzzzzzzzzzzzzzzzz"), "{text}");

    other.project = Some("abcdefghijklmnopqrst".to_owned());
    let same = judged(&Key::Legacy(other), None);
    assert!(same.iter().all(|(mark, _)| *mark != Mark::Bad), "{same:#?}");
}

#[test]
fn the_end_of_a_token_is_told_in_time() {
    for (expires_at, mark, words) in [
        ("2026-11-22T11:59:59Z", Mark::Bad, "expired on 2026-11-22"),
        ("2026-11-22T12:00:00Z", Mark::Bad, "expired"),
        (
            "2026-11-22T12:00:01Z",
            Mark::Warning,
            "for 0 more days: make another in time",
        ),
        ("2026-12-22T11:59:59Z", Mark::Warning, "for 29 more days"),
        ("2026-12-22T12:00:00Z", Mark::Good, "for 30 more days"),
    ] {
        let judged = judged(&Key::Publishable, Some(&claims(ROLE, expires_at)));
        let [(have, text)] = &judged[..] else {
            panic!("{judged:#?}");
        };
        assert_eq!(*have, mark, "{text}");
        assert!(
            text.starts_with("SUPABASE_JWT") && text.contains(words),
            "{text}"
        );
    }
}
