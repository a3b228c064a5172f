//! Commands that need only a part, and where variables come from.

use proptest::prelude::*;

use super::*;

#[test]
fn the_inbox_alone_needs_nothing_else() {
    let default = Config::inbox_path_from_vars(&Vars::new()).unwrap();
    assert_eq!(default, PathBuf::from("data/inbox.db"));

    let set = vars(&[
        ("DATABASE_URL", "sqlite:///tmp/a.db"),
        ("SYNC_SINCE", "never"),
        ("SUPABASE_SERVICE_KEY", "x"),
    ]);
    let path = Config::inbox_path_from_vars(&set).unwrap();
    assert_eq!(path, PathBuf::from("/tmp/a.db"));

    let bad = vars(&[("DATABASE_URL", "postgres://u:p@h/d")]);
    let errors = Config::inbox_path_from_vars(&bad).unwrap_err();
    assert_eq!(named(&errors), ["DATABASE_URL"]);
    let bad = vars(&[("TIME_ZONE", "Asia/Almatty")]);
    let errors = Config::inbox_path_from_vars(&bad).unwrap_err();
    assert_eq!(named(&errors), ["TIME_ZONE"]);
    let told = errors.to_string();
    assert!(told.contains("was Asia/Almaty meant?"), "{told}");
}

#[test]
fn amocrm_alone_needs_its_address_and_token() {
    let set = vars(&[
        ("AMOCRM_SUBDOMAIN", "school"),
        ("AMOCRM_ACCESS_TOKEN", AMOCRM_TOKEN),
        // The very thing that is about to be looked up.
        ("AMOCRM_TRIPWIRE_PIPELINE_ID", "123456"),
        ("AMOCRM_ENABLED", "false"),
    ]);
    let access = Config::amocrm_from_vars(&set).unwrap();
    assert_eq!(access.base_url.as_str(), "https://school.amocrm.ru/");
    assert!(!format!("{access:?}").contains(AMOCRM_TOKEN));

    let errors = Config::amocrm_from_vars(&Vars::new()).unwrap_err();
    assert_eq!(named(&errors), ["AMOCRM_SUBDOMAIN", "AMOCRM_ACCESS_TOKEN"]);
}

#[test]
fn supabase_alone_needs_its_address_and_key() {
    let set = vars(&[
        ("SUPABASE_URL", "https://abcdefghijklmnopqrst.supabase.co"),
        ("SUPABASE_KEY", SUPABASE_KEY),
        ("SYNC_SINCE", "never"),
    ]);
    let supabase = Config::supabase_from_vars(&set).unwrap();
    assert!(supabase.jwt.is_none());
    assert!(!format!("{supabase:?}").contains(SUPABASE_KEY));

    let errors = Config::supabase_from_vars(&Vars::new()).unwrap_err();
    assert_eq!(named(&errors), ["SUPABASE_URL", "SUPABASE_KEY"]);
    let misspelt = vars(&[
        ("SUPABASE_URI", "https://x.supabase.co"),
        ("SUPABASE_KEY", SUPABASE_KEY),
    ]);
    let errors = Config::supabase_from_vars(&misspelt).unwrap_err();
    assert!(errors.to_string().contains("SUPABASE_URI is"), "{errors}");
}

#[test]
fn the_webhook_secrets_alone_need_nothing_else() {
    assert!(
        Config::webhook_secrets_from_vars(&Vars::new())
            .unwrap()
            .is_empty()
    );

    let secret = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=";
    let two = format!("{secret} {secret}");
    let set = vars(&[("WEBHOOK_SECRET", &two), ("SYNC_SINCE", "never")]);
    let secrets = Config::webhook_secrets_from_vars(&set).unwrap();
    assert_eq!(secrets.len(), 2);

    let bad = vars(&[("WEBHOOK_SECRET", "whsec_short")]);
    let errors = Config::webhook_secrets_from_vars(&bad).unwrap_err();
    assert_eq!(named(&errors), ["WEBHOOK_SECRET"]);
    // If a misspelt name were ignored, the command would make a new secret, which differs from that of the service.
    let misspelt = vars(&[("WEBHOK_SECRET", secret)]);
    let errors = Config::webhook_secrets_from_vars(&misspelt).unwrap_err();
    assert_eq!(named(&errors), ["WEBHOK_SECRET"]);
}

fn file(text: impl AsRef<[u8]>) -> Result<Vars, ConfigErrors> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    std::fs::write(&path, text).unwrap();
    environment::file(&path)
}

#[test]
fn a_file_of_settings_is_read() {
    let text = "# a comment\nSYNC_SINCE=2026-12-01\nexport PORT=3000\n\
                NOTE_TEMPLATE='{full_name} \\n {email}'\nSYNC_SINCE=2027-01-01\n";

    let read = file(text).unwrap();

    assert_eq!(
        read,
        vars(&[
            ("SYNC_SINCE", "2026-12-01"),
            ("PORT", "3000"),
            ("NOTE_TEMPLATE", "{full_name} \\n {email}"),
        ])
    );
}

#[test]
fn a_dollar_sign_is_a_dollar_sign() {
    for (line, value) in [
        ("a$b", "a$b"),
        ("$50", "$50"),
        ("50$", "50$"),
        ("$", "$"),
        ("${HOME}", "${HOME}"),
        ("a$HOME$$b", "a$HOME$$b"),
        (
            "\"$50 and ${PATH}\" # costs $5, isn't it",
            "$50 and ${PATH}",
        ),
        ("'$50 \\$'", "$50 \\$"),
        ("\"\\$50\"", "$50"),
        ("\"\\\\$50\"", "\\$50"),
        ("'it'\"'s $5\"", "it's $5"),
        ("a#$b", "a#$b"),
        ("a\\ #$b", "a #$b"),
        ("$5  # don't", "$5"),
        ("$5 # don't", "$5"),
    ] {
        let text = format!("# don't $read this\nHOME=/root\nNOTE_TEMPLATE={line}\nPORT=3000\n");
        let read = file(text).unwrap_or_else(|errors| panic!("{line}: {errors}"));
        assert_eq!(read["NOTE_TEMPLATE"], value, "{line}");
        assert_eq!(read["PORT"], "3000", "{line}");
    }
}

proptest! {
    #[test]
    fn whatever_stands_between_quotes_is_the_value(
        texts in proptest::collection::vec(r"[ -~а-я\n]{0,20}", 1..5)
    ) {
        let lines = texts.iter().enumerate().map(|(n, text)| {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            format!("A{n}=\"{escaped}\" # it's $5\n")
        });
        let read = file(lines.collect::<String>()).unwrap();
        for (n, text) in texts.iter().enumerate() {
            prop_assert_eq!(&read[&format!("A{n}")], text);
        }
    }
}

#[test]
fn a_file_in_another_encoding_is_read_or_named() {
    let text = "SYNC_SINCE=2026-12-01\nNOTE_TEMPLATE=Доступ\n";
    let marked = format!("\u{feff}{text}");
    assert_eq!(file(marked).unwrap(), file(text).unwrap());

    let utf_16 = |swap: bool| -> Vec<u8> {
        let units = text.encode_utf16();
        units
            .flat_map(|unit| {
                if swap {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            })
            .collect()
    };
    let cp_1251 = b"NOTE_TEMPLATE=\xc4\xee\xf1\xf2\xf3\xef\n";
    for (bytes, told) in [
        (
            [&[0xFF, 0xFE][..], &utf_16(false)].concat(),
            "is UTF-16: save it as UTF-8",
        ),
        (
            [&[0xFE, 0xFF][..], &utf_16(true)].concat(),
            "is UTF-16: save it as UTF-8",
        ),
        (utf_16(false), "is UTF-16: save it as UTF-8"),
        (utf_16(true), "is UTF-16: save it as UTF-8"),
        (cp_1251.to_vec(), "is not UTF-8: save it as UTF-8"),
    ] {
        let errors = file(bytes).unwrap_err();
        assert_eq!(named(&errors), [".env"]);
        assert!(errors.to_string().contains(told), "{errors}");
    }
}

#[test]
fn a_file_that_others_may_open_is_warned_of() {
    for (mode, is_exposed) in [
        (0o100_600, false),
        (0o100_400, false),
        (0o100_700, false),
        (0o100_640, true),
        (0o100_604, true),
        (0o100_620, true),
        (0o100_601, true),
        (0o100_644, true),
    ] {
        let told = environment::exposed_by(mode);
        assert_eq!(told.is_some(), is_exposed, "{mode:o}");
    }
}

#[test]
fn no_file_is_no_problem() {
    let folder = tempfile::tempdir().unwrap();

    let read = environment::file(&folder.path().join(".env"));

    assert_eq!(read, Ok(Vars::new()));
}

#[test]
fn a_line_that_cannot_be_read_is_told_by_its_place() {
    let text = format!("PORT=3000\nSUPABASE_KEY={SUPABASE_KEY} {SUPABASE_KEY}\n");
    let errors = file(&text).unwrap_err();
    assert_eq!(named(&errors), [".env"]);
    let told = format!("{errors} {errors:?}");
    assert!(told.contains("after PORT"), "{told}");
    assert!(!told.contains(SUPABASE_KEY), "{told}");

    let errors = file(format!("{SUPABASE_KEY} {SUPABASE_KEY}\n")).unwrap_err();
    let told = format!("{errors} {errors:?}");
    assert!(told.contains("at its beginning"), "{told}");
    assert!(!told.contains(SUPABASE_KEY), "{told}");
}

#[test]
fn the_process_wins_over_the_file_unless_it_is_blank() {
    let process = vars(&[("PORT", "1"), ("SYNC_SINCE", " ")]);
    let file = vars(&[
        ("PORT", "2"),
        ("SYNC_SINCE", "2026-12-01"),
        ("RUST_LOG", "debug"),
    ]);

    let both = environment::over(process.into_iter(), file);

    assert_eq!(
        both,
        vars(&[
            ("PORT", "1"),
            ("SYNC_SINCE", "2026-12-01"),
            ("RUST_LOG", "debug")
        ])
    );
}
