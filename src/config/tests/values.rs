//! Each variable: what it accepts, and what it does not.

use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn good_values_are_taken() {
    type Check = fn(&Config) -> bool;
    let rows: &[(&str, &str, Check)] = &[
        ("BIND_ADDR", "127.0.0.1:80", |c| {
            c.bind_addr.to_string() == "127.0.0.1:80"
        }),
        ("BIND_ADDR", "[::]:8080", |c| c.bind_addr.is_ipv6()),
        ("PORT", "3000", |c| {
            c.bind_addr.to_string() == "0.0.0.0:3000"
        }),
        ("METRICS_ADDR", "0.0.0.0:0", |c| c.metrics_addr.port() == 0),
        ("WEBHOOK_TOLERANCE", "90s", |c| {
            c.webhook.tolerance == Duration::from_secs(90)
        }),
        ("WEBHOOK_TOLERANCE", "1h 30m", |c| {
            c.webhook.tolerance == Duration::from_mins(90)
        }),
        ("WEBHOOK_BEARER_TOKEN", BEARER, |c| {
            c.webhook.bearer.as_ref().unwrap().expose_secret() == BEARER
        }),
        ("SUPABASE_URL", " https://api.school.kz/supabase ", |c| {
            c.supabase.url.as_str() == "https://api.school.kz/supabase"
        }),
        ("SUPABASE_URL", "http://127.0.0.1:54321", |c| {
            c.supabase.url.port() == Some(54321)
        }),
        ("SUPABASE_KEY", SUPABASE_JWT, |c| {
            c.supabase.key.expose_secret() == SUPABASE_JWT
        }),
        ("SUPABASE_JWT", SUPABASE_JWT, |c| {
            c.supabase.jwt.as_ref().unwrap().expose_secret() == SUPABASE_JWT
        }),
        ("SYNC_SINCE", "2026-12-01T09:00:00+05:00", |c| {
            c.sync_since == time("2026-12-01T04:00:00Z")
        }),
        ("SYNC_SINCE", "2026-12-01T09:00:00.5Z", |c| {
            c.sync_since == time("2026-12-01T09:00:00.5Z")
        }),
        ("SETTLE_DELAY", "0", |c| c.settle_delay.is_zero()),
        ("SETTLE_DELAY", "500ms", |c| {
            c.settle_delay == Duration::from_millis(500)
        }),
        ("RECONCILE_INTERVAL", "0", |c| {
            c.reconcile_interval.is_none()
        }),
        ("RECONCILE_INTERVAL", "0s", |c| {
            c.reconcile_interval.is_none()
        }),
        ("RECONCILE_INTERVAL", "1h", |c| {
            c.reconcile_interval == Some(Duration::from_hours(1))
        }),
        ("AMOCRM_ENABLED", "TRUE", |c| c.amocrm.is_some()),
        ("AMOCRM_ENABLED", "false", |c| c.amocrm.is_none()),
        ("AMOCRM_SUBDOMAIN", "my-school", |c| {
            send(c).base_url.as_str() == "https://my-school.amocrm.ru/"
        }),
        ("AMOCRM_BASE_URL", "https://school.kommo.com", |c| {
            send(c).base_url.as_str() == "https://school.kommo.com/"
        }),
        ("AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID", "142", |c| {
            send(c).stage == StageId::WON
        }),
        ("AMOCRM_MISSING_CONTACT", "Create", |c| {
            send(c).missing_contact == MissingContact::Create
        }),
        ("AMOCRM_MISSING_CONTACT", "wait", |c| {
            send(c).missing_contact == MissingContact::Wait
        }),
        ("AMOCRM_REUSE_CLOSED_DAYS", "0", |c| {
            send(c).reuse_closed.is_zero()
        }),
        ("AMOCRM_REQUESTS_PER_SECOND", "1", |c| {
            send(c).requests_per_second == 1
        }),
        ("AMOCRM_REQUESTS_PER_SECOND", "7", |c| {
            send(c).requests_per_second == 7
        }),
        ("AMOCRM_BATCH_SIZE", "1", |c| send(c).batch_size == 1),
        ("AMOCRM_BATCH_SIZE", "250", |c| send(c).batch_size == 250),
        ("AMOCRM_CONTACT_SCAN", "false", |c| !send(c).contact_scan),
        ("NOTE_TEMPLATE", r"{row_id}\n{price} {", |c| {
            c.note_template == NoteTemplate::parse("{row_id}\n{price} {").unwrap()
        }),
        ("ADMIN_TOKEN", "0123456789abcdef", |c| c.admin.is_some()),
        ("DATABASE_URL", "sqlite://inbox.db", |c| {
            c.inbox_path.as_os_str() == "inbox.db"
        }),
        ("DATABASE_URL", "sqlite:///data/inbox.db", |c| {
            c.inbox_path.as_os_str() == "/data/inbox.db"
        }),
        ("DATABASE_URL", "sqlite:data/a.db", |c| {
            c.inbox_path.as_os_str() == "data/a.db"
        }),
        ("RETENTION_DAYS", "1", |c| {
            c.retention == Duration::from_hours(24)
        }),
        (
            "HEARTBEAT_URL",
            "https://kuma.example.kz/api/push/Zm9v?status=up&msg=OK",
            |c| {
                let url = &c.heartbeat.as_ref().unwrap().url;
                url.expose_secret()
                    .ends_with("/api/push/Zm9v?status=up&msg=OK")
            },
        ),
        ("HEARTBEAT_INTERVAL", "90s", |c| c.heartbeat.is_none()),
        ("DIGEST", "daily", |c| c.digest == Some(DigestEvery::Day)),
        ("DIGEST", "Weekly", |c| c.digest == Some(DigestEvery::Week)),
        ("DIGEST", "off", |c| c.digest.is_none()),
        ("TIME_ZONE", "Asia/Almaty", |c| {
            c.zone.iana_name() == Some("Asia/Almaty")
        }),
        ("TIME_ZONE", "utc", |c| c.zone.iana_name() == Some("UTC")),
        ("SELF_TEST", "OFF", |c| !c.self_test),
        ("SELF_TEST", "daily", |c| c.self_test),
        ("LOG_FORMAT", "pretty", |c| {
            c.log.format == LogFormat::Pretty
        }),
        ("RUST_LOG", "warn,tripwire_sync=debug", |c| {
            c.log.filter == "warn,tripwire_sync=debug"
        }),
    ];
    for (name, value, is_right) in rows {
        let config = read(&[(name, value)]).unwrap_or_else(|errors| panic!("{name}: {errors}"));
        assert!(is_right(&config), "{name}={value}");
    }
    for name in variable::NAMES {
        let is_tested = rows.iter().any(|(tested, ..)| tested == name)
            || MINIMUM.iter().any(|(tested, _)| tested == name)
            || name.starts_with("TELEGRAM_")
            || *name == variable::VIEWER_TOKEN
            || has_no_effect(name);
        assert!(is_tested, "{name}");
    }
}

#[test]
fn every_setting_says_that_it_is_between_quotes() {
    for quote in ['"', '\''] {
        for name in variable::NAMES {
            if has_no_effect(name) {
                continue;
            }
            let value = format!(" {quote}true{quote}\n");
            let errors = read(&[(name, &value)]).unwrap_err().to_string();
            let told = format!("{name} is between quotes: leave them out");
            assert!(errors.contains(&told), "{name}: {errors}");
        }
    }
}

#[test]
fn quotes_within_a_value_are_a_part_of_it() {
    for note in [
        "«{full_name}» и «{email}»",
        "«{full_name}»",
        "\"{full_name}\", \"{email}\"",
        "Логин: \"{email}\"",
        "'",
        "'{email}",
    ] {
        let config = read(&[("NOTE_TEMPLATE", note)]).unwrap();
        assert_eq!(config.note_template, NoteTemplate::parse(note).unwrap());
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn bad_values_are_named_and_not_quoted() {
    let long = "a".repeat(64);
    let rows: &[(&str, &[&str])] = &[
        (
            "BIND_ADDR",
            &[
                "8080",
                ":8080",
                "localhost:8080",
                "0.0.0.0",
                "0.0.0.0:99999",
            ],
        ),
        ("METRICS_ADDR", &["off", "9464"]),
        ("PORT", &["http", "-1", "65536", "80.5"]),
        (
            "WEBHOOK_SECRET",
            &[
                "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0",
                "whsec_",
                "whsec_c2VjcmV0",
                "whsec_not*base64",
                // No padding, which the alphabet demands.
                "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0cw",
                "v1,whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0",
                "whsec_your_secret_here",
                ",",
            ],
        ),
        (
            "WEBHOOK_TOLERANCE",
            &["5", "0", "0s", "soon", "-5m", "1000y"],
        ),
        (
            "WEBHOOK_BEARER_TOKEN",
            &[
                "two words",
                "Bearer abc",
                "ключ",
                "your_token_here",
                "your_token_that_is_long_enough_here",
                "changeme",
                "a",
                "twenty-three-characters",
            ],
        ),
        (
            "SUPABASE_URL",
            &[
                "abcdefgh.supabase.co",
                "postgres://abcdefgh.supabase.co",
                "postgresql://postgres:word@db.abcdefgh.supabase.co:5432/postgres",
                "https://db.abcdefgh.supabase.co",
                "https://aws-0-eu-central-1.pooler.supabase.com",
                "https://supabase.com/dashboard/project/abcdefgh",
                "https://abcdefgh.supabase.co/rest/v1/",
                "https://abcdefgh.supabase.co?apikey=x",
                "https://user:word@abcdefgh.supabase.co",
                "https://your-project.supabase.co",
                "https://",
            ],
        ),
        (
            "SUPABASE_KEY",
            &["sb_secret_a b", "your_key_here", "<key>", "Bearer eyJ"],
        ),
        (
            "SUPABASE_JWT",
            &["sb_secret_x", "eyJa.eyJb", "eyJa..c", "a.b.c"],
        ),
        (
            "SYNC_SINCE",
            &[
                "yesterday",
                "2026-13-01",
                "01.12.2026",
                "2026-12-01T09:00:00",
                "2026-12-01 09:00",
                "1764547200",
            ],
        ),
        ("SETTLE_DELAY", &["5", "five", "-1s", "1M", "1h 5M"]),
        ("RECONCILE_INTERVAL", &["5", "off", "never"]),
        (
            "HEARTBEAT_URL",
            &["hc-ping.com/1b2c3d4e", "ftp://watcher.example.kz/1b2c3d4e"],
        ),
        ("HEARTBEAT_INTERVAL", &["5", "59s", "0"]),
        ("DIGEST", &["monthly", "9:00", "true"]),
        (
            "TIME_ZONE",
            &["Almaty/Asia", "UTC+5", "+05:00", "5", "Etc/Unknown"],
        ),
        ("SELF_TEST", &["weekly", "true"]),
        ("AMOCRM_ENABLED", &["maybe", "2"]),
        (
            "AMOCRM_SUBDOMAIN",
            &[
                "school.amocrm.ru",
                "https://school.amocrm.ru",
                "your_company",
                "my school",
                "школа",
                "school_1",
                &long,
            ],
        ),
        (
            "AMOCRM_BASE_URL",
            &[
                "school.amocrm.ru",
                "https://school.amocrm.ru/api/v4",
                "ftp://school.amocrm.ru",
                "https://your_company.amocrm.ru",
                "https://school.amocrm.ru/?a",
            ],
        ),
        (
            "AMOCRM_ACCESS_TOKEN",
            &["your_access_token_here", "Bearer eyJ", "eyJ a", "xxx"],
        ),
        (
            "AMOCRM_TRIPWIRE_PIPELINE_ID",
            &["123456", "0", "-7", "Tripwire", "7.5", "your_id"],
        ),
        (
            "AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID",
            &["789012", "0", "bought"],
        ),
        ("AMOCRM_MISSING_CONTACT", &["ignore", "true"]),
        ("AMOCRM_REUSE_CLOSED_DAYS", &["90d", "-1", "36501"]),
        ("AMOCRM_REQUESTS_PER_SECOND", &["0", "8", "6.5", "fast"]),
        ("AMOCRM_BATCH_SIZE", &["0", "251", "-50"]),
        ("AMOCRM_CONTACT_SCAN", &["sometimes"]),
        (
            "NOTE_TEMPLATE",
            &["{name}", "{full_name} {Email}", "{}", "{ email }"],
        ),
        (
            "DATABASE_URL",
            &[
                "postgres://user:word@host/db",
                "postgresql://host/db",
                "data/inbox.db",
                "sqlite:",
                "sqlite://",
                "sqlite:///data/",
                "sqlite::memory:",
                "sqlite://data/inbox.db?mode=rwc",
                "mysql://host/db",
            ],
        ),
        ("RETENTION_DAYS", &["0", "90d", "forever"]),
        (
            "TELEGRAM_BASE_URL",
            &["api.telegram.org", "https://api.telegram.org/bot"],
        ),
        ("ADMIN_TOKEN", &["0123456789abcde", "two words of a token"]),
        ("LOG_FORMAT", &["xml", "json,pretty"]),
        ("RUST_LOG", &["info,,=x=y", "tripwire_sync=loud"]),
    ];
    for (name, values) in rows {
        for value in *values {
            let Err(errors) = read(&[(name, value)]) else {
                panic!("{name}={value} is taken");
            };
            assert_eq!(named(&errors), [*name], "{value}: {errors}");
            let problem = &errors.problems[0];
            assert!(!problem.wrong.english.contains("is not set"), "{problem:?}");
            assert!(
                value.len() < 8 || !problem.wrong.english.contains(value),
                "{problem:?}"
            );
        }
    }
    for name in variable::NAMES {
        let is_tested = rows.iter().any(|(tested, _)| tested == name)
            || name.starts_with("TELEGRAM_")
            || *name == variable::VIEWER_TOKEN
            || has_no_effect(name);
        assert!(is_tested, "{name}");
    }
}

#[test]
fn a_value_of_the_instructions_is_called_a_placeholder() {
    for (name, value) in [
        ("AMOCRM_SUBDOMAIN", "your_company"),
        ("AMOCRM_ACCESS_TOKEN", "your_access_token_here"),
        ("AMOCRM_TRIPWIRE_PIPELINE_ID", "123456"),
        ("AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID", "789012"),
    ] {
        let errors = read(&[(name, value)]).unwrap_err();
        assert!(errors.to_string().contains("placeholder"), "{errors}");
    }
}

#[test]
fn postgres_is_refused_by_name() {
    let errors = read(&[("DATABASE_URL", "postgres://u:p@h/d")]).unwrap_err();

    assert!(
        errors.to_string().contains("this version does not support"),
        "{errors}"
    );
}

#[test]
fn several_secrets_may_sign() {
    let other = "whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI=";
    for between in [" ", ",", ", ", "\n", " , "] {
        let both = format!("{WEBHOOK_SECRET}{between}{other}");
        let config = read(&[("WEBHOOK_SECRET", &both)]).unwrap();
        let keys: Vec<_> = config
            .webhook
            .secrets
            .iter()
            .map(WebhookSecret::key)
            .collect();
        assert_eq!(
            keys,
            [
                &b"secret-secret-secret-secret"[..],
                b"other-other-other-other-other"
            ]
        );
    }
    let errors = read(&[("WEBHOOK_SECRET", &format!("{WEBHOOK_SECRET} whsec_x"))]).unwrap_err();
    assert!(errors.to_string().contains("no. 2 of 2"), "{errors}");
}

#[test]
fn a_bearer_token_may_stand_alone() {
    let config = without(&["WEBHOOK_SECRET"], &[("WEBHOOK_BEARER_TOKEN", BEARER)]).unwrap();

    assert_eq!(config.webhook.secrets.len(), 0);
    assert!(config.webhook.bearer.is_some());
}

#[test]
fn a_bad_secret_is_not_called_missing() {
    let errors = read(&[("WEBHOOK_SECRET", "whsec_x")]).unwrap_err();

    assert_eq!(errors.problems.len(), 1);
    assert!(!errors.to_string().contains("is not set"), "{errors}");
}

#[test]
fn a_port_replaces_only_the_port() {
    for (addr, expected, warnings) in [
        (None, "0.0.0.0:3000", 0),
        (Some("127.0.0.1:3000"), "127.0.0.1:3000", 0),
        (Some("127.0.0.1:8080"), "127.0.0.1:3000", 1),
    ] {
        let mut changes = vec![("PORT", "3000")];
        changes.extend(addr.map(|addr| ("BIND_ADDR", addr)));
        let config = read(&changes).unwrap();
        assert_eq!(config.bind_addr.to_string(), expected);
        assert_eq!(config.warnings.len(), warnings, "{:?}", config.warnings);
    }
}

#[test]
fn telegram_needs_both_bot_and_chat() {
    let token = ("TELEGRAM_BOT_TOKEN", TELEGRAM_TOKEN);
    let chat = ("TELEGRAM_CHAT_ID", "-1001234567890");

    let telegram = read(&[token, chat]).unwrap().telegram.unwrap();
    assert_eq!(telegram.token.expose_secret(), TELEGRAM_TOKEN);
    assert_eq!(telegram.chat_id, "-1001234567890");
    assert_eq!(telegram.base_url.as_str(), "https://api.telegram.org/");
    let channel = read(&[token, ("TELEGRAM_CHAT_ID", "@school")]).unwrap();
    assert_eq!(channel.telegram.unwrap().chat_id, "@school");
    let base_url = ("TELEGRAM_BASE_URL", "http://127.0.0.1:9");
    let local = read(&[token, chat, base_url]).unwrap().telegram.unwrap();
    assert_eq!(local.base_url.port(), Some(9));

    assert_eq!(named(&read(&[token]).unwrap_err()), ["TELEGRAM_CHAT_ID"]);
    assert_eq!(named(&read(&[chat]).unwrap_err()), ["TELEGRAM_BOT_TOKEN"]);
    for bad in ["school", "@", "12.5"] {
        let errors = read(&[token, ("TELEGRAM_CHAT_ID", bad)]).unwrap_err();
        assert_eq!(named(&errors), ["TELEGRAM_CHAT_ID"], "{bad}");
    }
    for bad in [
        "123456789",
        ":key",
        "bot:key",
        "123456789:",
        "your_token:here",
    ] {
        let errors = read(&[chat, ("TELEGRAM_BOT_TOKEN", bad)]).unwrap_err();
        assert_eq!(named(&errors), ["TELEGRAM_BOT_TOKEN"], "{bad}");
    }
}

#[test]
fn what_is_held_back_needs_no_amocrm() {
    let amocrm: Vec<_> = variable::NAMES
        .iter()
        .copied()
        .filter(|name| name.starts_with("AMOCRM_") && *name != "AMOCRM_ENABLED")
        .collect();

    let config = without(&amocrm, &[("AMOCRM_ENABLED", "false")]).unwrap();

    assert!(config.amocrm.is_none());
    // Values that are given are checked all the same.
    let errors = read(&[
        ("AMOCRM_ENABLED", "false"),
        ("AMOCRM_TRIPWIRE_PIPELINE_ID", "123456"),
        ("AMOCRM_BATCH_SIZE", "0"),
    ])
    .unwrap_err();
    assert_eq!(
        named(&errors),
        ["AMOCRM_TRIPWIRE_PIPELINE_ID", "AMOCRM_BATCH_SIZE"]
    );
}

#[test]
fn oauth_is_not_supported_and_says_so() {
    let oauth: Vec<_> = variable::OAUTH.iter().map(|name| (*name, "abc")).collect();

    let errors = without(&["AMOCRM_ACCESS_TOKEN"], &oauth).unwrap_err();
    assert_eq!(named(&errors), ["AMOCRM_ACCESS_TOKEN"]);
    assert!(errors.to_string().contains("OAuth"), "{errors}");

    // Beside a token it does no harm.
    let config = read(&oauth).unwrap();
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    let mut held = oauth;
    held.push(("AMOCRM_ENABLED", "false"));
    assert!(without(&["AMOCRM_ACCESS_TOKEN"], &held).is_ok());
}

#[test]
fn a_base_url_makes_the_subdomain_needless() {
    let base_url = ("AMOCRM_BASE_URL", "http://127.0.0.1:9000");

    let config = without(&["AMOCRM_SUBDOMAIN"], &[base_url]).unwrap();
    assert_eq!(send(&config).base_url.as_str(), "http://127.0.0.1:9000/");

    let config = read(&[base_url]).unwrap();
    assert_eq!(send(&config).base_url.as_str(), "http://127.0.0.1:9000/");
}

#[test]
fn keys_in_clear_text_are_warned_of() {
    for (url, warnings) in [
        ("http://school.kz", 1),
        ("https://school.kz", 0),
        ("http://localhost:54321", 0),
        ("http://[::1]:54321", 0),
    ] {
        for name in ["SUPABASE_URL", "AMOCRM_BASE_URL", "TELEGRAM_BASE_URL"] {
            let told = read(&[(name, url)]).unwrap().warnings;
            assert_eq!(told.len(), warnings, "{name}={url}");
            assert!(
                told.iter().all(|told| told.english.starts_with(name)),
                "{told:?}"
            );
        }
    }
}

#[test]
fn a_publishable_key_is_warned_of_unless_a_jwt_goes_with_it() {
    let key = ("SUPABASE_KEY", "sb_publishable_x");

    assert_eq!(read(&[key]).unwrap().warnings.len(), 1);
    let both = read(&[key, ("SUPABASE_JWT", SUPABASE_JWT)]).unwrap();
    assert!(both.warnings.is_empty(), "{:?}", both.warnings);
}

#[test]
fn the_tokens_of_the_page_are_long_and_differ_and_the_viewers_is_not_alone() {
    let (admin, viewer) = ("ADMIN_TOKEN", "VIEWER_TOKEN");
    let config = read(&[(admin, ADMIN_TOKEN)]).unwrap().admin.unwrap();
    assert_eq!(config.admin_token.expose_secret(), ADMIN_TOKEN);
    assert!(config.viewer_token.is_none());
    let both = read(&[(admin, ADMIN_TOKEN), (viewer, "0123456789abcdef")]);
    assert!(both.unwrap().admin.unwrap().viewer_token.is_some());
    assert!(read(&[(admin, " ")]).unwrap().admin.is_none());

    for (settings, wrong, why) in [
        (vec![(admin, "0123456789abcde")], admin, "shorter than 16"),
        (vec![(admin, "0123456789 abcdef")], admin, "holds a space"),
        (vec![(viewer, "0123456789abcdef")], admin, "VIEWER_TOKEN is"),
        (
            vec![(admin, ADMIN_TOKEN), (viewer, ADMIN_TOKEN)],
            viewer,
            "the same as ADMIN_TOKEN",
        ),
        (
            vec![(admin, ADMIN_TOKEN), (viewer, "short")],
            viewer,
            "shorter than 16",
        ),
    ] {
        let errors = read(&settings).unwrap_err();
        assert_eq!(named(&errors), [wrong], "{settings:?}");
        assert!(errors.to_string().contains(why), "{errors}");
    }
}
