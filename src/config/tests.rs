use secrecy::ExposeSecret;

use super::*;
use crate::domain::Lang;

mod lookalikes;
mod partial;
mod values;

type Vars = BTreeMap<String, String>;

const WEBHOOK_SECRET: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";
const SUPABASE_KEY: &str = "sb_secret_do-not-tell-1";
const SUPABASE_JWT: &str = "eyJkb25vdA.eyJ0ZWxs.Mg";
const AMOCRM_TOKEN: &str = "eyJ-do-not-tell-3";
const BEARER: &str = "do-not-tell-4-not-at-all";
const ADMIN_TOKEN: &str = "do-not-tell-5-at-all";
const TELEGRAM_TOKEN: &str = "123456789:do-not-tell-6";

const SECRETS: [&str; 7] = [
    WEBHOOK_SECRET,
    SUPABASE_KEY,
    SUPABASE_JWT,
    AMOCRM_TOKEN,
    BEARER,
    ADMIN_TOKEN,
    TELEGRAM_TOKEN,
];

/// Everything that has no default.
const MINIMUM: [(&str, &str); 8] = [
    ("WEBHOOK_SECRET", WEBHOOK_SECRET),
    ("SUPABASE_URL", "https://abcdefghijklmnopqrst.supabase.co"),
    ("SUPABASE_KEY", SUPABASE_KEY),
    ("SYNC_SINCE", "2026-12-01"),
    ("AMOCRM_SUBDOMAIN", "school"),
    ("AMOCRM_ACCESS_TOKEN", AMOCRM_TOKEN),
    ("AMOCRM_TRIPWIRE_PIPELINE_ID", "7412398"),
    ("AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID", "61830474"),
];

fn vars(pairs: &[(&str, &str)]) -> Vars {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

/// The minimum with some of its values replaced or added.
fn with(changes: &[(&str, &str)]) -> Vars {
    let mut all = vars(&MINIMUM);
    all.extend(vars(changes));
    all
}

fn read(changes: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::from_vars(&with(changes), false)
}

fn without(names: &[&str], changes: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let mut vars = with(changes);
    vars.retain(|name, _| !names.contains(&name.as_str()));
    Config::from_vars(&vars, false)
}

fn named(errors: &ConfigErrors) -> Vec<&str> {
    let problems = errors.problems.iter();
    problems.map(|problem| problem.variable.as_str()).collect()
}

/// Whether the setting only causes a warning.
fn has_no_effect(name: &str) -> bool {
    variable::OAUTH.contains(&name)
}

fn send(config: &Config) -> &AmocrmConfig {
    config.amocrm.as_ref().unwrap()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn the_minimum_gives_the_defaults() {
    let config = read(&[]).unwrap();

    assert_eq!(config.bind_addr.to_string(), "0.0.0.0:8080");
    assert_eq!(config.metrics_addr.to_string(), "127.0.0.1:9464");
    assert_eq!(config.webhook.secrets.len(), 1);
    assert!(config.webhook.bearer.is_none());
    assert_eq!(config.webhook.tolerance, Duration::from_mins(5));
    assert_eq!(config.supabase.key.expose_secret(), SUPABASE_KEY);
    assert!(config.supabase.jwt.is_none());
    assert_eq!(config.sync_since, time("2026-12-01T00:00:00Z"));
    assert_eq!(config.settle_delay, Duration::from_secs(5));
    assert_eq!(config.reconcile_interval, Some(Duration::from_mins(5)));
    let amocrm = send(&config);
    assert_eq!(amocrm.base_url.as_str(), "https://school.amocrm.ru/");
    assert_eq!(amocrm.token.expose_secret(), AMOCRM_TOKEN);
    assert_eq!(amocrm.pipeline, PipelineId::new(7_412_398));
    assert_eq!(amocrm.stage, StageId::new(61_830_474));
    assert_eq!(amocrm.missing_contact, MissingContact::Wait);
    assert_eq!(amocrm.reuse_closed, Duration::from_hours(90 * 24));
    assert_eq!(amocrm.requests_per_second, 6);
    assert_eq!(amocrm.batch_size, 50);
    assert!(amocrm.contact_scan);
    let template = "✅ Доступ к Tripwire предоставлен: {full_name}\nЛогин: {email}";
    assert_eq!(config.note_template, NoteTemplate::parse(template).unwrap());
    assert_eq!(config.inbox_path, PathBuf::from("data/inbox.db"));
    assert_eq!(config.retention, Duration::from_hours(90 * 24));
    assert!(config.telegram.is_none());
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.filter, "info");
    assert_eq!(config.hooks, TestHooks::default());
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn a_person_at_a_terminal_gets_a_readable_log() {
    for (changes, expected) in [
        (&[][..], LogFormat::Pretty),
        (&[("LOG_FORMAT", "json")], LogFormat::Json),
    ] {
        let config = Config::from_vars(&with(changes), true).unwrap();
        assert_eq!(config.log.format, expected);
    }
}

#[test]
fn a_setting_that_is_needed_and_not_there_is_a_problem() {
    for (name, _) in MINIMUM {
        let errors = without(&[name], &[]).unwrap_err();

        assert_eq!(named(&errors), [name]);
        assert!(
            errors.problems[0].wrong.english.contains("is not set"),
            "{errors}"
        );
        assert!(errors.problems[0].example.is_some(), "{name}");
        // Blank is not set.
        let blank = read(&[(name, " \t")]).unwrap_err();
        assert_eq!(blank, errors);
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let nothing = Config::from_vars(&Vars::new(), false).unwrap_err();
    assert_eq!(
        named(&nothing),
        [
            "WEBHOOK_SECRET",
            "SUPABASE_URL",
            "SUPABASE_KEY",
            "SYNC_SINCE",
            "AMOCRM_SUBDOMAIN",
            "AMOCRM_ACCESS_TOKEN",
            "AMOCRM_TRIPWIRE_PIPELINE_ID",
            "AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID",
        ]
    );

    let mut changes: Vec<_> = variable::NAMES
        .iter()
        .filter(|name| !has_no_effect(name))
        .map(|name| (*name, "that is no value"))
        .collect();
    // Nearly any text is a template and a filter.
    changes.retain(|(name, _)| *name != variable::NOTE_TEMPLATE);
    changes.push((variable::NOTE_TEMPLATE, "{surname}"));
    changes.retain(|(name, _)| *name != variable::RUST_LOG);
    changes.push((variable::RUST_LOG, "tripwire_sync=loud"));
    let nonsense = read(&changes).unwrap_err();
    let mut expected: Vec<_> = changes.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    let mut found = named(&nonsense);
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn the_list_of_problems_reads_well() {
    let errors = without(&["SYNC_SINCE"], &[("RETENTION_DAYS", "soon")]).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "2 settings are wrong or missing:\
         \n  SYNC_SINCE is not set\
         \n      for example: 2026-12-01 or 2026-12-01T09:00:00+05:00\
         \n  RETENTION_DAYS is not a whole number from 1 to 36500\
         \n      for example: 90"
    );
    assert_eq!(
        errors.told(Lang::Russian),
        "настройки с ошибкой или без значения: 2\
         \n  SYNC_SINCE: не задана\
         \n      например: 2026-12-01 или 2026-12-01T09:00:00+05:00\
         \n  RETENTION_DAYS: нужно целое число от 1 до 36500\
         \n      например: 90"
    );
    let errors = without(&["SYNC_SINCE"], &[]).unwrap_err();
    assert!(errors.to_string().starts_with("1 setting is wrong"));
}

#[test]
fn no_secret_is_in_what_is_printed_of_a_config() {
    let config = read(&[
        ("WEBHOOK_BEARER_TOKEN", BEARER),
        ("SUPABASE_JWT", SUPABASE_JWT),
        ("ADMIN_TOKEN", ADMIN_TOKEN),
        ("TELEGRAM_BOT_TOKEN", TELEGRAM_TOKEN),
        ("TELEGRAM_CHAT_ID", "-100"),
    ])
    .unwrap();

    let text = format!("{config:?} {config:#?}");

    assert!(text.contains("school.amocrm.ru"), "{text}");
    for secret in SECRETS {
        assert!(!text.contains(secret), "{text}");
    }
    // Neither the decoded key.
    assert!(
        !text.contains("secret-secret") && !text.contains("115, 101, 99"),
        "{text}"
    );
}

#[test]
fn no_value_is_in_what_is_printed_of_a_problem() {
    // Each secret where another value belongs, and spoilt where it belongs itself.
    for secret in SECRETS {
        for name in variable::NAMES {
            for value in [
                secret.to_owned(),
                format!("{secret} {secret}"),
                format!("{{{secret}}}"),
            ] {
                let errors = match read(&[(name, &value)]) {
                    Ok(config) => {
                        let told = format!("{:?}", config.warnings);
                        assert!(!told.contains(secret), "{name}");
                        continue;
                    }
                    Err(errors) => errors,
                };
                let text = format!("{errors} {errors:?}");
                assert!(!text.contains(secret), "{text}");
            }
        }
    }
}

#[test]
fn each_setting_has_an_example() {
    for name in variable::NAMES {
        let has_one = variable::example(name).is_some();
        assert_eq!(has_one, !has_no_effect(name), "{name}");
    }
}
