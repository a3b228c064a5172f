//! Variables that are nearly ours.

use super::*;

#[test]
fn the_hint_stands_beside_the_setting_that_is_missing() {
    for (missing, lookalike) in [
        ("SUPABASE_KEY", "SUPABASE_SERVICE_KEY"),
        ("SUPABASE_KEY", "SUPABASE_SERVICE_ROLE_KEY"),
        ("SUPABASE_URL", "SUPABASE_UPL"),
        ("SYNC_SINCE", "SYNC_SINSE"),
        ("SYNC_SINCE", "TRIPWIRE_SYNC_SINCE"),
        ("AMOCRM_ACCESS_TOKEN", "AMOCRM_TOKEN"),
        ("AMOCRM_ACCESS_TOKEN", "ACCESS_TOKEN"),
        ("AMOCRM_SUBDOMAIN", "AMO_SUBDOMAIN"),
        ("AMOCRM_SUBDOMAIN", "AMOCRM_SUBDOMIAN"),
        ("AMOCRM_TRIPWIRE_PIPELINE_ID", "AMOCRM_PIPELINE_ID"),
        ("AMOCRM_TRIPWIRE_PIPELINE_ID", "TRIPWIRE_PIPELINE_ID"),
        ("AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID", "AMOCRM_STAGE_ID"),
        ("WEBHOOK_SECRET", "WEBHOOK_SECRETS"),
        ("SYNC_SINCE", "sync_since"),
    ] {
        let errors = without(&[missing], &[(lookalike, "do-not-tell")]).unwrap_err();

        assert_eq!(named(&errors), [missing], "{lookalike}");
        let wrong = &errors.problems[0].wrong.english;
        assert!(wrong.contains(lookalike), "{wrong}");
        assert!(!wrong.contains("do-not-tell"), "{wrong}");
    }
}

#[test]
fn a_slip_in_an_optional_setting_is_a_problem() {
    for (lookalike, meant) in [
        ("SETTLE_DELEY", "SETTLE_DELAY"),
        ("AMO_BATCH_SIZE", "AMOCRM_BATCH_SIZE"),
        ("AMOCRM_NOTE_TEMPLATE", "NOTE_TEMPLATE"),
        ("RETENTION_DAY", "RETENTION_DAYS"),
        ("AMOCRM_MISSING_CONTACTS", "AMOCRM_MISSING_CONTACT"),
    ] {
        let errors = read(&[(lookalike, "1")]).unwrap_err();

        assert_eq!(named(&errors), [lookalike]);
        assert!(errors.problems[0].wrong.english.contains(meant), "{errors}");
    }
}

#[test]
fn beside_the_right_one_it_is_a_warning() {
    for (lookalike, meant) in [
        ("SUPABASE_SERVICE_KEY", "SUPABASE_KEY"),
        ("SUPABASE_ANON_KEY", "SUPABASE_KEY"),
        ("AMOCRM_TOKEN", "AMOCRM_ACCESS_TOKEN"),
        ("SYNC_SINSE", "SYNC_SINCE"),
    ] {
        let config = read(&[(lookalike, "do-not-tell")]).unwrap();

        let [warning] = &config.warnings[..] else {
            panic!("{lookalike}: {:?}", config.warnings);
        };
        assert!(
            [&warning.english, &warning.russian]
                .iter()
                .all(|told| told.contains(lookalike) && told.contains(meant)),
            "{warning}"
        );
        assert!(!format!("{warning:?}").contains("do-not-tell"), "{warning}");
    }
}

#[test]
fn what_is_merely_related_to_an_optional_setting_is_a_warning() {
    for lookalike in ["BASE_URL", "SUPABASE_JWT_SECRET", "TELEGRAM_TOKEN"] {
        let config = read(&[(lookalike, "x")]).unwrap();

        assert_eq!(
            config.warnings.len(),
            1,
            "{lookalike}: {:?}",
            config.warnings
        );
    }
}

#[test]
fn variables_of_others_are_left_in_peace() {
    let others = [
        "PATH",
        "HOME",
        "HOST",
        "HOSTNAME",
        "USER",
        "LANG",
        "TERM",
        "PWD",
        "SHELL",
        "TZ",
        "POST",
        "PORTS",
        "LOGNAME",
        "RUST_BACKTRACE",
        "RUST_LOG_STYLE",
        "CARGO_HOME",
        "CARGO_PKG_NAME",
        "FLY_APP_NAME",
        "FLY_REGION",
        "PRIMARY_REGION",
        "KEY",
        "URL",
        "TOKEN",
        "JWT",
        "ENABLED",
        "SUPABASE_ACCESS_TOKEN",
        "SSL_CERT_FILE",
        "HTTP_PROXY",
        "NODE_ENV",
        "EDITOR",
        "SSH_AUTH_SOCK",
        "KUBERNETES_PORT",
        "REDIS_URL",
        "LOG_LEVEL",
    ];
    let all: Vec<_> = others.iter().map(|name| (*name, "x")).collect();

    let config = read(&all).unwrap();

    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn no_setting_of_ours_is_taken_for_another() {
    let all: Vec<_> = variable::OAUTH.iter().map(|name| (*name, "abc")).collect();

    let config = read(&all).unwrap();

    assert!(
        config
            .warnings
            .iter()
            .all(|warning| warning.english.starts_with("OAuth"))
    );
}
