//! Who may know whom, held against the sources.

use std::{collections::BTreeSet, fs, path::Path};

/// Each module with the modules that it may name. What nobody may name can be replaced without a look around.
const KNOWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("tls", &[]),
    ("telemetry", &["domain"]),
    ("config", &["domain", "telemetry"]),
    ("inbox", &["domain"]),
    ("http", &["domain", "inbox"]),
    ("amocrm", &["domain", "tls"]),
    ("supabase", &["domain", "tls"]),
    ("sync", &["domain", "inbox", "amocrm", "supabase"]),
    ("alerts", &["domain", "inbox", "tls"]),
    ("sandbox", &["domain"]),
    ("app", EVERYBODY),
    ("cli", EVERYBODY),
];

const EVERYBODY: &[&str] = &[
    "domain",
    "tls",
    "telemetry",
    "config",
    "inbox",
    "http",
    "amocrm",
    "supabase",
    "sync",
    "alerts",
    "sandbox",
    "app",
];

/// Whose words only these modules speak: above them nobody sees a status code, a statement or a variable.
/// `app` and `cli` name error types in passing.
const SPOKEN_BY: &[(&str, &[&str])] = &[
    (
        "reqwest",
        &[
            "amocrm", "supabase", "alerts", "tls", "sandbox", "app", "cli",
        ],
    ),
    ("actix_web", &["http", "sandbox", "app"]),
    ("sqlx", &["inbox"]),
    ("rustls", &["tls", "sandbox"]),
    ("clap", &["cli"]),
    // Whoever signs tokens could make any: the service cannot.
    ("ring", &["cli", "tls", "sandbox"]),
    ("dotenvy", &["config"]),
];

/// The words by which a program reads the environment.
const ENVIRONMENT: [&str; 2] = ["env::var", "env::set_var"];

/// Modules that the deployed image is built without.
const BEHIND_THE_FEATURE: [(&str, &str); 3] =
    [("lib", "sandbox"), ("cli", "demo"), ("cli", "play")];

/// Files that may have pieces behind the feature: to scale time, to stop the clock, to die on command.
const MAY_NAME_THE_FEATURE: [&str; 9] = [
    "src/app.rs",
    "src/cli.rs",
    "src/config.rs",
    "src/config/form.rs",
    "src/config/variable.rs",
    "src/domain.rs",
    "src/inbox.rs",
    "src/inbox/writer.rs",
    "src/lib.rs",
];

#[test]
fn every_module_is_in_the_table() {
    let declared: BTreeSet<String> = sources()
        .iter()
        .filter(|source| source.name == "src/lib.rs")
        .flat_map(Source::modules)
        .collect();
    let listed: BTreeSet<String> = KNOWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(declared, listed);
}

#[test]
fn no_module_names_one_that_it_may_not_know() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((_, known)) = KNOWS.iter().find(|(name, _)| *name == source.module()) else {
            continue;
        };
        for (line, named) in source.names_of_modules() {
            if named != source.module() && !known.contains(&named.as_str()) {
                wrong.push(format!("{}:{line} names {named}", source.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_foreign_vocabulary_stays_where_it_is_spoken() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (word, speakers) in SPOKEN_BY {
            if speakers.contains(&source.module()) {
                continue;
            }
            for line in source.lines_with(&format!("{word}::")) {
                wrong.push(format!("{}:{line} speaks {word}", source.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn only_config_reads_the_environment() {
    let mut wrong = Vec::new();
    let mut readers = BTreeSet::new();
    for source in sources() {
        for line in ENVIRONMENT.iter().flat_map(|word| source.lines_with(word)) {
            if source.module() == "config" {
                readers.insert(source.name.clone());
            } else {
                wrong.push(format!("{}:{line} reads the environment", source.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(
        readers,
        BTreeSet::from(["src/config/environment.rs".to_owned()])
    );
}

#[test]
fn the_sandbox_is_behind_its_feature_and_nothing_else_is() {
    let all = sources();
    let naming: BTreeSet<&str> = all
        .iter()
        .filter(|source| source.text.contains("feature = \"sandbox\""))
        .map(|source| source.name.as_str())
        .collect();
    assert_eq!(naming, BTreeSet::from(MAY_NAME_THE_FEATURE));

    for (within, module) in BEHIND_THE_FEATURE {
        let source = all
            .iter()
            .find(|source| source.name == format!("src/{within}.rs"))
            .unwrap();
        let gated = [format!("mod {module};"), format!("pub mod {module};")]
            .iter()
            .any(|line| {
                source
                    .text
                    .contains(&format!("#[cfg(feature = \"sandbox\")]\n{line}"))
            });
        assert!(gated, "{}: mod {module} is not gated", source.name);
    }

    // Else the build without it would fail, or the image would carry it.
    let users = [
        "src/cli/demo.rs",
        "src/cli/demo/telling.rs",
        "src/cli/play.rs",
    ];
    let wrong: Vec<String> = all
        .iter()
        .filter(|source| source.module() != "sandbox" && !users.contains(&source.name.as_str()))
        .flat_map(|source| {
            let named = source.names_of_modules().into_iter();
            named
                .filter(|(_, named)| named == "sandbox")
                .map(|(line, _)| format!("{}:{line} names the sandbox", source.name))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn nothing_unwraps_outside_tests() {
    let wrong: Vec<String> = sources()
        .iter()
        .flat_map(|source| {
            let lines = source.lines_with(".unwrap()").into_iter();
            lines
                .map(|line| format!("{}:{line} unwraps", source.name))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

/// The reader of sources would pass everything if it read nothing.
#[test]
fn names_of_modules_are_found_in_every_shape() {
    let source = Source {
        name: "src/sync/run.rs".to_owned(),
        text: [
            "use crate::{",
            "    amocrm::{Contact, Deal},",
            "    domain::RowId,",
            "};",
            "use crate::inbox::Claim;",
            "pub(in crate::sync) const A: u8 = 1;",
            "fn f(_: super::super::http::Verifier, _: super::decide::Why) {}",
            "// crate::config is only talked about here",
        ]
        .join("\n"),
    };
    let found: Vec<(usize, String)> = source.names_of_modules();
    let expected = [
        (2, "amocrm"),
        (3, "domain"),
        (5, "inbox"),
        (6, "sync"),
        (7, "http"),
    ];
    assert_eq!(found, expected.map(|(line, name)| (line, name.to_owned())));
}

#[test]
fn test_code_is_cut_off_and_nothing_more() {
    let cut = without_tests("a\n#[cfg(test)]\nmod tests {\n    b\n}\n");
    assert_eq!(cut, "a\n");
    let kept = without_tests("#[cfg(test)]\nmod tests;\nfn a() {}\n");
    assert_eq!(kept, "#[cfg(test)]\nmod tests;\nfn a() {}\n");
    let names: Vec<String> = sources().into_iter().map(|source| source.name).collect();
    assert!(names.iter().all(|name| !name.contains("tests")));
    assert!(!names.contains(&"src/telemetry/captured.rs".to_owned()));
    assert!(names.contains(&"src/sync/engine.rs".to_owned()));
}

/// A file of the program, without its tests.
struct Source {
    /// From the repository's root.
    name: String,
    text: String,
}

/// All files below `src` but those that are only compiled for tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    files.sort();
    let all: Vec<Source> = files
        .iter()
        .map(|path| Source {
            name: path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
            text: without_tests(&fs::read_to_string(path).unwrap()),
        })
        .collect();
    let for_tests: Vec<String> = all.iter().flat_map(Source::modules_for_tests).collect();
    all.into_iter()
        .filter(|source| {
            let stem = source.name.trim_end_matches(".rs");
            !for_tests
                .iter()
                .any(|module| stem == module || stem.starts_with(&format!("{module}/")))
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Inline test modules stand at the end of their file.
fn without_tests(text: &str) -> String {
    let end = text
        .match_indices("#[cfg(test)]\nmod ")
        .find(|(at, _)| {
            text[*at..]
                .lines()
                .nth(1)
                .is_some_and(|line| line.ends_with('{'))
        })
        .map_or(text.len(), |(at, _)| at);
    text[..end].to_owned()
}

impl Source {
    /// `sync` for `src/sync/run.rs` and `src/sync.rs`.
    fn module(&self) -> &str {
        let path = self.name.trim_start_matches("src/").trim_end_matches(".rs");
        path.split('/').next().unwrap_or(path)
    }

    /// How many `super` lead from here to the root.
    fn depth(&self) -> usize {
        self.name.matches('/').count()
    }

    /// The modules that this file declares.
    fn modules(&self) -> Vec<String> {
        self.text.lines().filter_map(declared).collect()
    }

    /// The paths of declared modules that are compiled for tests alone.
    fn modules_for_tests(&self) -> Vec<String> {
        let folder = match self.name.as_str() {
            "src/lib.rs" | "src/main.rs" => "src",
            name => name.trim_end_matches(".rs"),
        };
        let lines: Vec<&str> = self.text.lines().collect();
        lines
            .windows(2)
            .filter(|pair| pair[0] == "#[cfg(test)]")
            .filter_map(|pair| declared(pair[1]))
            .map(|module| format!("{folder}/{module}"))
            .collect()
    }

    /// Line numbers, from 1. Comments may talk about anything.
    fn lines_with(&self, word: &str) -> Vec<usize> {
        self.code_lines()
            .filter(|(_, line)| {
                line.match_indices(word).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    word.starts_with('.') || !before.is_some_and(is_in_a_name)
                })
            })
            .map(|(number, _)| number)
            .collect()
    }

    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Modules of this crate that the code names, with the line of each.
    fn names_of_modules(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let up = "super::".repeat(self.depth());
        let mut tree: Option<usize> = None;
        for (number, line) in self.code_lines() {
            let mut rest = line;
            if let Some(depth) = tree {
                tree = read_tree(rest, depth, number, &mut found);
                continue;
            }
            while let Some((at, root)) = first_of(rest, &["crate::", &up]) {
                let before = rest[..at].chars().next_back();
                rest = &rest[at + root.len()..];
                if before.is_some_and(|c| is_in_a_name(c) || c == ':') {
                    continue;
                }
                if let Some(inner) = rest.strip_prefix('{') {
                    tree = read_tree(inner, 1, number, &mut found);
                    break;
                }
                found.push((number, leading_name(rest)));
            }
        }
        found
    }
}

/// Reads a line of `use crate::{…}` at this depth of braces; `None` when the statement ends here.
fn read_tree(
    line: &str,
    mut depth: usize,
    number: usize,
    found: &mut Vec<(usize, String)>,
) -> Option<usize> {
    let mut at_a_start = true;
    for (at, c) in line.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return None;
                }
            }
            ',' => at_a_start = true,
            c if is_in_a_name(c) && at_a_start && depth == 1 => {
                found.push((number, leading_name(&line[at..])));
                at_a_start = false;
            }
            _ => {}
        }
    }
    Some(depth)
}

/// `name` of `mod name;`, whatever its visibility.
fn declared(line: &str) -> Option<String> {
    let (visibility, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
    let is_visibility = visibility.is_empty() || visibility.starts_with("pub");
    is_visibility.then(|| name.to_owned())
}

fn first_of<'w>(text: &str, words: &[&'w str]) -> Option<(usize, &'w str)> {
    let found = words
        .iter()
        .filter_map(|word| Some((text.find(word)?, *word)));
    found.min_by_key(|(at, _)| *at)
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|c| is_in_a_name(*c)).collect()
}

fn is_in_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
