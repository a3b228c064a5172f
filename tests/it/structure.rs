//! Which module may name which, and which words stay in few files. Cargo keeps the packages apart, this table the modules.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each module with the others that it may name.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("telemetry", &["domain"]),
    ("config", &["domain", "telemetry"]),
    ("inbox", &["domain"]),
    ("http", &["domain", "inbox"]),
    ("supabase", &["domain"]),
    ("sync", &["domain", "inbox", "supabase"]),
    ("alerts", &["domain", "inbox", "words"]),
    ("words", &["domain", "inbox"]),
    ("story", &["domain", "inbox", "sync", "words"]),
    (
        "admin",
        &["domain", "http", "inbox", "story", "sync", "words"],
    ),
    ("app", ALL),
    ("cli", ALL),
];

const ALL: &[&str] = &[
    "admin",
    "domain",
    "telemetry",
    "config",
    "inbox",
    "http",
    "supabase",
    "sync",
    "alerts",
    "words",
    "story",
    "app",
];

/// Words with the beginnings of the paths in which they may stand. `app` and `cli` name error types in passing.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("amocrm::", &["domain.rs", "sync", "app", "cli"]),
    (
        "outbound::",
        &["app", "domain.rs", "supabase", "alerts", "cli/sandbox.rs"],
    ),
    ("reqwest::", &["supabase", "alerts", "app", "cli"]),
    ("actix_web::", &["http", "admin", "app"]),
    ("sqlx::", &["inbox"]),
    ("rustix::", &["inbox", "sync/lease.rs"]),
    ("clap::", &["cli"]),
    // With it any token could be signed: the service cannot.
    ("ring::", &["cli"]),
    ("dotenvy::", &["config"]),
    ("env::var", &["config/environment.rs"]),
    // The crate reads what systemd puts into the environment, which is no setting.
    ("sd_notify::", &["app/systemd.rs"]),
    ("metrics_process::", &["telemetry.rs", "http.rs"]),
    // Else the program would not build without the sandbox, or would carry it where it is deployed.
    ("sandbox::", &["cli.rs", "cli/demo", "cli/sandbox.rs"]),
    ("feature = \"sandbox\"", &["cli.rs", "config/hooks.rs"]),
    (".unwrap()", &[]),
];

#[test]
fn every_module_is_in_the_table() {
    let lib = fs::read_to_string(src().join("lib.rs")).unwrap();
    let declared: BTreeSet<&str> = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    let listed: BTreeSet<&str> = MAY_NAME.iter().map(|(module, _)| *module).collect();
    assert_eq!(declared, listed);
}

#[test]
fn no_module_names_one_that_it_may_not_name() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let module = file.split(['/', '.']).next().unwrap();
        let Some((_, may_name)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
            continue;
        };
        for named in modules_named(&file, &code) {
            if named != module && !may_name.contains(&named.as_str()) {
                wrong.push(format!("{file} names {named}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn words_stay_where_they_belong() {
    let mut wrong = Vec::new();
    let sources = sources();
    for (word, places) in ONLY_IN {
        let (inside, outside): (Vec<_>, Vec<_>) = sources
            .iter()
            .filter(|(_, code)| has_word(code, word))
            .map(|(file, _)| file)
            .partition(|file| places.iter().any(|place| file.starts_with(place)));
        wrong.extend(outside.iter().map(|file| format!("{file}: {word}")));
        // A word that is found nowhere would pass for ever.
        assert!(places.is_empty() || !inside.is_empty(), "{word} is gone");
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// The reader of sources would pass everything if it read nothing.
#[test]
fn modules_are_found_in_every_shape() {
    let code = "use crate::{\n    supabase::{Doctor, Row},\n    domain::RowId,\n};\nuse crate::inbox::Claim;\n\
                fn f(_: super::super::http::Verifier, _: super::rules::deal::Why) {}\n";
    let named = modules_named("sync/run.rs", code);
    assert_eq!(
        named,
        ["domain", "http", "inbox", "supabase"]
            .map(str::to_owned)
            .into()
    );
    let files: BTreeSet<String> = sources().into_iter().map(|(file, _)| file).collect();
    assert!(files.contains("sync/engine.rs") && !files.contains("sync/sending/tests.rs"));
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file below `src` with its code: without comments, and without what is compiled for tests alone.
fn sources() -> Vec<(String, String)> {
    let mut folders = vec![src()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file = path
                .strip_prefix(src())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            if file.ends_with("tests")
                || file.ends_with("tests.rs")
                || file.ends_with("captured.rs")
            {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            sources.push((file, code.collect::<Vec<_>>().join("\n")));
        }
    }
    sources
}

/// The modules of this package that the code of a file names.
fn modules_named(file: &str, code: &str) -> BTreeSet<String> {
    // So many `super` lead to the root.
    let root = "super::".repeat(1 + file.matches('/').count());
    let code = code.replace(&root, "crate::");
    let mut named = BTreeSet::new();
    for path in code.split("crate::").skip(1) {
        let Some(list) = path.strip_prefix('{') else {
            named.insert(first_name(path));
            continue;
        };
        // `use crate::{a::{b, c}, d}` names a and d.
        let mut depth = 0;
        for item in list.split_inclusive(['{', '}', ',']) {
            if depth == 0 {
                named.insert(first_name(item.trim_start()));
            }
            match item.chars().next_back() {
                Some('{') => depth += 1,
                Some('}') if depth == 0 => break,
                Some('}') => depth -= 1,
                _ => {}
            }
        }
    }
    named.remove("");
    named
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|c| is_in_a_name(*c)).collect()
}

fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        word.starts_with('.') || !before.is_some_and(is_in_a_name)
    })
}

fn is_in_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
