//! The documents, held against the program that they are about.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use strum::VariantNames;
use tripwire_sync::{
    alerts::Kind,
    config::{Config, GROUPS, Setting, Unset, settings_with_meanings},
    domain::HaltCause,
    inbox::Outcome,
    words::Lang,
};

/// Everything that is written for people.
const DOCUMENTS: [&str; 17] = [
    "README.md",
    "SECURITY.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs/assumptions.md",
    "docs/decisions.md",
    "docs/deploy.md",
    "docs/glossary.md",
    "docs/operation.md",
    "docs/operation.ru.md",
    "docs/operator-page.md",
    "docs/operator-page.ru.md",
    "docs/promises.md",
    "docs/scaling.md",
    "docs/supabase.md",
    "ops/README.md",
    ".env.example",
];

/// Nobody reads what is longer.
const LINES_AT_MOST: [(&str, usize); 2] = [("README.md", 120), ("ARCHITECTURE.md", 150)];

/// Settings of features that this version does not have.
const WITHOUT_EFFECT: [&str; 4] = [
    "AMOCRM_CLIENT_ID",
    "AMOCRM_CLIENT_SECRET",
    "AMOCRM_REDIRECT_URI",
    "AMOCRM_REFRESH_TOKEN",
];

/// Settings for tests: `tls::what_is_deployed_ignores_the_settings_for_tests`.
const FOR_TESTS: [&str; 3] = ["TRIPWIRE_TIME_SCALE", "TRIPWIRE_DIE_AT", "TRIPWIRE_HANG_AT"];

/// What fingerprints are made of, agreed with the database; nothing that a person types.
const FINGERPRINTED: &str = "tripwire-sync doctor";

/// Folders of whoever wrote a document are nobody else's.
const PRIVATE_FOLDERS: [&str; 3] = ["/home/", "/root/", "/tmp/"];

#[test]
fn long_documents_are_split() {
    for (document, most) in LINES_AT_MOST {
        let lines = read(document).lines().count();
        assert!(lines < most, "{document} has {lines} lines");
    }
}

#[test]
fn every_document_is_held_to_these_tests() {
    let mut found: BTreeSet<String> = BTreeSet::from([".env.example".to_owned()]);
    for folder in ["", "docs/", "ops/"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if Path::new(&name)
                .extension()
                .is_some_and(|extension| extension == "md")
            {
                found.insert(format!("{folder}{name}"));
            }
        }
    }
    assert_eq!(found, DOCUMENTS.map(str::to_owned).into());
}

/// `a::b::c` in backticks is a test as the runner prints it, or a module.
#[test]
fn every_test_and_module_that_is_named_exists() {
    let mut wrong = Vec::new();
    let mut tests = 0;
    for document in DOCUMENTS {
        for path in quoted(&read(document)).filter(|quoted| is_path(quoted)) {
            if is_test(&path) {
                tests += 1;
            } else if !is_module(&path) {
                wrong.push(format!("{document}: {path}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(tests > 20, "only {tests} tests are named");
}

#[test]
fn every_promise_names_its_test() {
    let text = read("docs/promises.md");
    let promises: Vec<&str> = text
        .lines()
        .filter(|line| {
            line.starts_with("| ") && !line.starts_with("| promise") && !line.starts_with("| ---")
        })
        .collect();
    assert!(promises.len() > 5, "the table is gone");
    for promise in promises {
        let named = quoted(promise).filter(|quoted| is_path(quoted) && is_test(quoted));
        assert!(named.count() > 0, "no test holds us to: {promise}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        let folder = root().join(document);
        let folder = folder.parent().unwrap();
        let text = read(document);
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            if target.starts_with("http") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() {
                root().join(document)
            } else {
                folder.join(file)
            };
            let leads_there = file.exists()
                && (heading.is_empty()
                    || headings(&fs::read_to_string(&file).unwrap()).contains(heading));
            if !leads_there {
                wrong.push(format!("{document}: {target}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_file_that_is_named_exists() {
    let beginnings = [
        "docs/",
        "src/",
        "crates/",
        "scripts/",
        "supabase/",
        "tests/",
        "deploy/",
    ];
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        for file in quoted(&read(document)) {
            let is_a_file = beginnings.iter().any(|folder| file.starts_with(folder))
                && !file.contains(char::is_whitespace);
            if is_a_file && !root().join(&file).exists() {
                wrong.push(format!("{document}: {file}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_command_and_option_that_is_named_exists() {
    let commands = commands();
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for document in DOCUMENTS {
        for line in read(document).lines() {
            for rest in after_each(
                line,
                &["tripwire-sync ", "cargo run -- ", "cargo run --release -- "],
            ) {
                // Prose goes on after the closing backtick.
                let words = rest
                    .split(['`', '"', ';', '|', ')', ','])
                    .next()
                    .unwrap_or_default();
                let mut words = words.split_whitespace();
                let Some(command) = words
                    .next()
                    .filter(|word| is_word(word) && !word.starts_with('-'))
                else {
                    continue;
                };
                let Some(options) = commands.get(command) else {
                    wrong.push(format!("{document}: {line}"));
                    continue;
                };
                named.insert(command.to_owned());
                for option in words.filter(|word| word.starts_with("--")) {
                    if !options.contains(option) {
                        wrong.push(format!("{document}: {command} {option}"));
                    }
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(named.len() > 5, "{named:?}");
}

/// Hints and complaints send people to commands.
#[test]
fn every_command_that_the_program_names_exists() {
    let commands = commands();
    let mut named = BTreeSet::new();
    for text in strings_of_the_program() {
        if text == FINGERPRINTED {
            continue;
        }
        for rest in after_each(&text, &["tripwire-sync "]) {
            let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '-'));
            let command = &rest[..end.unwrap_or(rest.len())];
            if !command.is_empty() {
                assert!(commands.contains_key(command), "{text}");
                named.insert(command.to_owned());
            }
        }
    }
    assert!(named.len() > 3, "{named:?}");
}

#[test]
fn the_readme_lists_the_commands_that_there_are() {
    let readme = read("README.md");
    let (_, table) = readme.split_once("\n| command |").unwrap();
    let listed: BTreeSet<String> = table
        .lines()
        .skip(2)
        .map_while(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|cell| quoted(cell).collect::<Vec<_>>())
        .filter_map(|usage| usage.split_whitespace().next().map(str::to_owned))
        .collect();
    assert_eq!(listed, commands().into_keys().collect());
}

#[test]
fn readme_example_file_and_help_tell_the_same_settings() {
    let readme = read("README.md");
    let (_, table) = readme
        .split_once("\n| name | default | meaning |\n")
        .unwrap();
    let table: Vec<&str> = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let settings: Vec<&Setting> = GROUPS.iter().flat_map(|group| group.settings).collect();
    let expected: Vec<String> = settings.iter().map(|setting| row_of(setting)).collect();
    assert_eq!(table.join("\n"), expected.join("\n"), "README.md");

    assert_eq!(read(".env.example"), example_file(), ".env.example");

    let help = help(&["serve", "--help"]);
    for Setting {
        name,
        unset,
        meaning,
        ..
    } in settings
    {
        assert!(
            help.contains(&format!("\n  {name}")) && help.contains(&*meaning.english),
            "{name}: {help}"
        );
        if let Unset::Is(value) = unset {
            assert!(
                help.contains(&format!("  {name} [{value}]\n")),
                "{name}: {help}"
            );
        }
    }
}

#[test]
fn every_setting_that_a_document_names_is_known() {
    let known = known_settings();
    assert!(known.contains("WEBHOOK_SECRET") && known.len() > 30);
    for document in DOCUMENTS {
        let text = read(document);
        let unknown: Vec<String> = quoted(&text)
            .map(|text| text.split('=').next().unwrap_or_default().to_owned())
            .filter(|text| is_setting(text) && !known.contains(text))
            .filter(|text| !WITHOUT_EFFECT.contains(&text.as_str()))
            .collect();
        assert_eq!(unknown, Vec::<String>::new(), "{document}");
    }
}

#[test]
fn settings_for_tests_are_named_in_one_source_and_in_no_document() {
    let source = read("src/config/hooks.rs");
    for name in FOR_TESTS {
        assert!(source.contains(name), "{name} is not there");
        assert!(!known_settings().contains(name), "{name} is for everybody");
        for document in DOCUMENTS {
            assert!(!read(document).contains(name), "{document} names {name}");
        }
    }
}

/// A setting at the default that the README tells must change nothing.
#[test]
fn the_defaults_in_the_readme_are_the_defaults() {
    let defaults = defaults_in_the_readme();
    assert!(defaults.len() > 10, "{defaults:?}");
    let usual = format!("{:?}", Config::from_vars(&minimum(), false).unwrap());
    for (name, default) in defaults {
        let mut vars = minimum();
        vars.insert(name.clone(), default.clone());
        let config = Config::from_vars(&vars, false).unwrap();
        assert_eq!(format!("{config:?}"), usual, "{name}={default}");
    }
}

#[test]
fn what_the_readme_calls_needed_is_needed() {
    for name in minimum().keys() {
        let mut vars = minimum();
        vars.remove(name);
        assert!(Config::from_vars(&vars, false).is_err(), "{name}");
        let row = readme_row(name);
        assert!(row.contains("**needed**"), "{row}");
    }
}

#[test]
fn the_example_file_lacks_nothing_but_what_must_be_filled_in() {
    let mut vars = minimum();
    for (name, value) in example_lines() {
        if !value.is_empty() && !vars.contains_key(&name) {
            vars.insert(name, value);
        }
    }
    let config = Config::from_vars(&vars, false);
    assert!(config.is_ok(), "{}", config.unwrap_err());
}

#[test]
fn every_event_of_the_log_is_explained() {
    let areas = [
        "service",
        "settings",
        "webhook",
        "sync",
        "sweep",
        "look",
        "inbox",
        "index",
        "pause",
        "heartbeat",
        "alerts",
        "metrics",
        "systemd",
        "admin",
    ];
    let events: BTreeSet<String> = strings_of_the_program()
        .into_iter()
        .filter(|text| {
            text.split_once('.').is_some_and(|(area, event)| {
                areas.contains(&area) && is_word(event) && event != "db"
            })
        })
        .collect();
    assert!(events.len() > 15, "{events:?}");
    assert_explained("docs/operation.md", &events);
}

#[test]
fn every_outcome_halt_and_metric_is_explained() {
    let strings = strings_of_the_program();
    let metrics = strings
        .iter()
        .filter(|text| text.starts_with("tripwire_") && is_counted(text));
    let halts = names(HaltCause::VARIANTS);
    let report = read("src/sync/report.rs");
    let (_, unfinished) = report.split_once("fn outcome_name").unwrap();
    let mut outcomes = strings_in(unfinished);
    outcomes.extend(names(Outcome::VARIANTS));
    assert!(outcomes.contains("synced") && outcomes.contains("parked"));

    let kinds = names(Kind::VARIANTS);
    let told = outcomes.iter().chain(&kinds);
    let all: BTreeSet<String> = metrics.chain(&halts).chain(told).cloned().collect();
    assert!(
        all.contains("tripwire_attempts_total")
            && all.contains("tripwire_amocrm_requests_total")
            && all.contains("amocrm_forbidden")
    );
    assert_explained("docs/operation.md", &all);

    let ends = ["_total", "_seconds", "_entries", "_state"];
    let invented: Vec<String> = quoted(&read("docs/operation.md"))
        .map(|text| text.split('{').next().unwrap_or_default().to_owned())
        .filter(|text| text.starts_with("tripwire_") && ends.iter().any(|end| text.ends_with(end)))
        .filter(|text| !strings.contains(text))
        .collect();
    assert_eq!(invented, Vec::<String>::new());
}

/// The table that people look into first.
#[test]
fn every_alert_has_a_row_that_says_what_to_do() {
    let document = sections("docs/operation.md")
        .into_iter()
        .find(|it| it.heading == "What to do on each alert")
        .unwrap();
    assert!(document.rows.len() < 30, "more than a screen");

    let prometheus = read("ops/alerts.yml");
    let of_prometheus = prometheus
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let kinds = names(Kind::VARIANTS);
    let mut without_row: BTreeSet<String> = of_prometheus.map(str::to_owned).collect();
    assert!(without_row.len() > 10, "{without_row:?}");
    without_row.extend(kinds.iter().cloned());

    let messages: BTreeSet<String> = ["src/alerts/messages.rs", "src/alerts/digest.rs"]
        .into_iter()
        .flat_map(|source| words(&read(source)).collect::<Vec<_>>())
        .collect();
    for row in &document.rows {
        let alert = row.split(" | ").next().unwrap();
        let names: Vec<String> = quoted(alert).collect();
        for name in &names {
            without_row.remove(name);
        }
        let is_message = names.first().is_some_and(|name| kinds.contains(name));
        if is_message {
            let said = told_in_russian(alert);
            assert!(!said.is_empty(), "{alert}");
            let invented = said
                .iter()
                .flat_map(|text| words(text))
                .find(|word| !messages.contains(word));
            assert_eq!(invented, None, "{alert}");
        }
    }
    assert_eq!(without_row, BTreeSet::new());
}

/// Between the gaps, where the reasons name a deal.
#[test]
fn every_reason_for_parking_is_one_that_the_program_gives() {
    let sources = sources_of_the_program();
    for document in ["docs/operation.md", "docs/operation.ru.md"] {
        let text = read(document);
        let reasons: Vec<&str> = text
            .lines()
            .skip_while(|line| *line != "tripwire-sync retry --parked")
            .skip_while(|line| !line.starts_with("| ---"))
            .skip(1)
            .map_while(|line| line.strip_prefix("| ")?.split(" | ").next())
            .collect();
        assert!(reasons.len() > 10, "{reasons:?}");
        let pieces = reasons.iter().flat_map(|reason| reason.split(['…', ',']));
        for piece in pieces.map(str::trim).filter(|piece| !piece.is_empty()) {
            assert!(
                sources.iter().any(|text| text.contains(piece)),
                "{document}: {piece}"
            );
        }
    }
}

/// Neither form can be changed alone, as far as names, commands, tables and links go.
#[test]
fn both_languages_of_the_operation_tell_the_same() {
    let english = sections("docs/operation.md");
    let russian = sections("docs/operation.ru.md");
    let outline = |sections: &[Section]| -> Vec<usize> {
        let levels = sections.iter().map(|section| section.level);
        levels.collect()
    };
    assert!(english.len() > 15, "{english:?}");
    assert_eq!(outline(&english), outline(&russian));
    for (english, russian) in english.iter().zip(&russian) {
        let at = format!("{} / {}", english.heading, russian.heading);
        assert_eq!(english.blocks, russian.blocks, "{at}");
        assert_eq!(english.names, russian.names, "{at}");
        assert_eq!(english.rows.len(), russian.rows.len(), "{at}");
        assert_eq!(english.steps, russian.steps, "{at}");
        assert_eq!(english.links, russian.links, "{at}");
        assert_eq!(english.said, russian.said, "{at}");
    }
}

#[test]
fn no_document_tells_where_it_was_written() {
    for document in DOCUMENTS {
        let text = read(document).to_lowercase();
        for word in PRIVATE_FOLDERS {
            assert!(!text.contains(word), "{document} says {word}");
        }
    }
}

// ---- reading documents ----

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What stands in backticks, outside of blocks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found.into_iter()
}

/// As they are linked to.
fn headings(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            words
                .chars()
                .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// What a section of a document holds, whatever its language.
#[derive(Debug, Default)]
struct Section {
    level: usize,
    heading: String,
    blocks: Vec<String>,
    /// What stands in backticks, but for texts in Russian.
    names: BTreeSet<String>,
    /// Of tables, without their heads.
    rows: Vec<String>,
    /// Points of lists.
    steps: usize,
    /// A link inside the document as the number of its section.
    links: BTreeSet<String>,
    /// What the program says in Russian.
    said: BTreeSet<String>,
}

/// The first one is what stands before the first heading.
fn sections(document: &str) -> Vec<Section> {
    let text = read(document);
    let mut sections = vec![Section::default()];
    let mut anchors = vec![String::new()];
    let mut in_block = false;
    let mut is_body = false;
    for line in text.lines() {
        let section = sections.last_mut().unwrap();
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            section.blocks.push(line.to_owned());
            continue;
        }
        if line.starts_with('#') {
            anchors.extend(headings(line));
            sections.push(Section {
                level: line.bytes().take_while(|byte| *byte == b'#').count(),
                heading: line.trim_start_matches('#').trim().to_owned(),
                ..Section::default()
            });
            continue;
        }
        if !line.starts_with('|') {
            is_body = false;
        } else if line.starts_with("| ---") {
            is_body = true;
        } else if is_body {
            section.rows.push(line.to_owned());
            section.said.extend(told_in_russian(line));
        }
        let is_step = line.starts_with("- ")
            || line
                .split_once(". ")
                .is_some_and(|(number, _)| number.parse::<u8>().is_ok());
        section.steps += usize::from(is_step);
        section
            .names
            .extend(quoted(line).filter(|name| !is_russian(name)));
        let targets = line
            .split("](")
            .skip(1)
            .filter_map(|it| it.split(')').next());
        section.links.extend(targets.map(str::to_owned));
    }
    for section in &mut sections {
        let links = std::mem::take(&mut section.links);
        section.links = links
            .into_iter()
            .map(|link| match link.strip_prefix('#') {
                Some(anchor) => format!("{:?}", anchors.iter().position(|it| it == anchor)),
                None => link.replace("operation.ru.md", "operation.md"),
            })
            .collect();
    }
    sections
}

/// What stands in «such quotes».
fn told_in_russian(line: &str) -> Vec<String> {
    line.split('«')
        .skip(1)
        .filter_map(|rest| rest.split_once('»'))
        .map(|(said, _)| said.to_owned())
        .collect()
}

fn is_russian(text: &str) -> bool {
    text.chars().any(|c| matches!(c, 'а'..='я' | 'А'..='Я'))
}

/// In Russian, in small letters.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphabetic())
        .filter(|word| is_russian(word))
        .map(str::to_lowercase)
}

fn after_each<'t>(line: &'t str, words: &[&str]) -> Vec<&'t str> {
    words
        .iter()
        .flat_map(|word| line.split(word).skip(1))
        .collect()
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'-')
}

fn is_setting(text: &str) -> bool {
    let is_shouted = text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    text.len() > 3 && is_shouted && (text.contains('_') || text == "PORT")
}

fn assert_explained(document: &str, names: &BTreeSet<String>) {
    let text = read(document);
    let told: BTreeSet<String> = quoted(&text)
        .map(|text| text.split('{').next().unwrap_or_default().to_owned())
        .collect();
    let missing: Vec<&String> = names.difference(&told).collect();
    assert!(missing.is_empty(), "{document} lacks {missing:?}");
}

// ---- tests and modules ----

fn is_path(text: &str) -> bool {
    let parts: Vec<&str> = text.split("::").collect();
    parts.len() > 1
        && parts
            .iter()
            .all(|part| part.starts_with(|c: char| c.is_ascii_lowercase()))
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b':')
}

/// Whether a runner would print it so, a package's own tests after the name of the package.
fn is_test(path: &str) -> bool {
    let Some((modules, name)) = path.rsplit_once("::") else {
        return false;
    };
    files_of(modules)
        .iter()
        .any(|file| fs::read_to_string(root().join(file)).is_ok_and(|text| has_test(&text, name)))
}

/// The file of the module itself, or the one that it stands in. The path may begin with the name of a package.
fn files_of(modules: &str) -> Vec<String> {
    let path = modules.replace("::", "/");
    let outer = path.strip_suffix("/tests").map(str::to_owned);
    let mut files = Vec::new();
    for path in [Some(path), outer].into_iter().flatten() {
        files.extend([format!("src/{path}.rs"), format!("tests/it/{path}.rs")]);
        if let Some((package, module)) = path.split_once('/') {
            files.push(format!("crates/{package}/src/{module}.rs"));
        }
    }
    files
}

fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = [format!("fn {name}("), format!("async fn {name}(")];
    lines.iter().enumerate().any(|(at, line)| {
        declared.iter().any(|start| line.starts_with(start))
            && lines[..at]
                .iter()
                .rev()
                .take_while(|line| !line.is_empty() && **line != "}")
                .any(|line| line.starts_with("#[test]") || line.contains("::test"))
    })
}

fn is_module(path: &str) -> bool {
    files_of(path).iter().any(|file| root().join(file).exists())
}

// ---- the program ----

/// Every command with its options, as `--help` lists them.
fn commands() -> BTreeMap<String, BTreeSet<String>> {
    let listed = help(&["--help"]);
    let (_, listed) = listed.split_once("Commands:\n").unwrap();
    listed
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .map(|command| {
            let text = help(&[command, "--help"]);
            let options = text
                .split(|c: char| c.is_whitespace() || c == ',' || c == '|' || c == '<' || c == '>')
                .filter(|word| word.starts_with("--"))
                .map(str::to_owned);
            (command.to_owned(), options.collect())
        })
        .collect()
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tripwire-sync"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Every string literal of the program; comments and tests may hold some more, which does no harm here.
fn strings_of_the_program() -> BTreeSet<String> {
    let sources = sources_of_the_program();
    sources.iter().flat_map(|text| strings_in(text)).collect()
}

fn sources_of_the_program() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_for_tests = path.to_string_lossy().contains("tests");
            if path.is_dir() {
                folders.push(path);
            } else if !is_for_tests {
                found.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

fn strings_in(code: &str) -> BTreeSet<String> {
    code.lines()
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// Described is not enough: some code has to count. The packages are told what the names of their metrics begin with.
fn is_counted(metric: &str) -> bool {
    let mut folders = ["src", "crates/amocrm/src", "crates/outbound/src"]
        .map(|it| root().join(it))
        .to_vec();
    let beginnings = ["tripwire_amocrm", "tripwire_supabase", "tripwire_watcher"];
    let name = match beginnings.iter().find_map(|it| metric.strip_prefix(it)) {
        Some(end) => format!("format!(\"{{metrics}}{end}\")"),
        None => format!("\"{metric}\""),
    };
    let uses = ["counter!(", "gauge!(", "histogram!("].map(|with| format!("metrics::{with}{name}"));
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(path).unwrap();
                let text: String = text.split_whitespace().collect();
                if uses.iter().any(|with| text.contains(with)) {
                    return true;
                }
            }
        }
    }
    false
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

// ---- settings ----

/// The least that a service needs.
fn minimum() -> BTreeMap<String, String> {
    [
        (
            "WEBHOOK_SECRET",
            "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=",
        ),
        ("SUPABASE_URL", "https://abcdefghijklmnopqrst.supabase.co"),
        ("SUPABASE_KEY", "sb_secret_0123456789"),
        ("SYNC_SINCE", "2026-12-01"),
        ("AMOCRM_SUBDOMAIN", "school"),
        ("AMOCRM_ACCESS_TOKEN", "a-long-lived-token"),
        ("AMOCRM_TRIPWIRE_PIPELINE_ID", "7412398"),
        ("AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID", "61830474"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn known_settings() -> BTreeSet<String> {
    let settings = GROUPS.iter().flat_map(|group| group.settings);
    settings.map(|setting| setting.name.to_owned()).collect()
}

/// One line of the README's table.
fn row_of(setting: &Setting) -> String {
    let default = match setting.unset {
        Unset::Needed => "**needed**".to_owned(),
        Unset::Off => "none".to_owned(),
        Unset::Is(value) => format!("`{value}`"),
        Unset::Long(_) => "see `.env.example`".to_owned(),
    };
    format!("| `{}` | {default} | {} |", setting.name, setting.meaning)
}

fn example_file() -> String {
    let head = "# Copy to `.env` and fill in what is needed. A line `#NAME=value` shows the default.\n\
        # `tripwire-sync check` tells what is missing or wrong. The file holds secrets: chmod 600 .env\n";
    format!("{head}{}", settings_with_meanings(Lang::English))
}

/// `NAME=value` and `#NAME=value`, the value without its quotes.
fn example_lines() -> impl Iterator<Item = (String, String)> {
    let text = read(".env.example");
    let lines: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('='))
        .filter(|(name, _)| is_setting(name))
        .map(|(name, value)| {
            let value = value.trim_matches('"').replace("\\n", "\n");
            (name.to_owned(), value)
        })
        .collect();
    lines.into_iter()
}

fn readme_row(name: &str) -> String {
    let readme = read("README.md");
    let row = readme
        .lines()
        .find(|line| line.starts_with("| `") && line.contains(&format!("`{name}`")));
    row.unwrap_or_else(|| panic!("{name} has no row"))
        .to_owned()
}

/// From rows of one name whose second cell is a value in backticks.
fn defaults_in_the_readme() -> Vec<(String, String)> {
    let readme = read("README.md");
    readme
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            let default = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            is_setting(name).then(|| (name.to_owned(), default.to_owned()))
        })
        .collect()
}
