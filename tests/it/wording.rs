//! Texts for people, held to both languages and to the glossary.

use std::{collections::BTreeSet, fs, path::Path};

/// Names of things outside, which a Russian text writes as they are.
const NAMES: [&str; 30] = [
    "postgrest",
    "amocrm",
    "supabase",
    "postgres",
    "tripwire",
    "vault",
    "salesbot",
    "oauth",
    "telegram",
    "e-mail",
    "env",
    "http",
    "https",
    "uuid",
    "base64",
    "kid",
    "eyj",
    "chmod",
    "ctrl-c",
    "enter",
    "webhooks",
    "database",
    "extensions",
    "logs",
    "school",
    "tripwire-sync",
    "setup-sql",
    "admin",
    "engine",
    "writer",
];

/// Titles in Supabase's dashboard and in the guide, pieces of SQL, and values of settings.
const QUOTED: [&str; 29] = [
    "Project Settings, Data API",
    "Кнопка Connect",
    "tripwire-sync check",
    "tripwire-sync jwt",
    "tripwire-sync resume",
    "tripwire-sync pipelines",
    "tripwire-sync park <",
    "tripwire-sync entries --state parked",
    "Project Settings, API Keys",
    "Project Settings, JWT Keys",
    "SQL editor",
    "SQL Editor",
    "Replace the secret",
    "Another address",
    "select net.wake()",
    "select net.worker_restart()",
    "grant select (",
    ") on public.tripwire_users to ",
    "alter table public.tripwire_users enable trigger",
    "ALTER EXTENSION",
    "true",
    "false",
    "wait",
    "create",
    "weekly",
    "daily",
    "off",
    "json",
    "pretty",
];

/// Calls whose first two arguments are one text in English and in Russian.
const PAIRS: [&str; 8] = [
    "pick(",
    "Wording::fixed(",
    "Wording::new(",
    " fixed(",
    ".good(",
    ".advise(",
    ".warn(",
    ".bad(",
];

/// Calls that show their text to a person as it is.
const SHOWN: [&str; 2] = [".say(", ".complain("];

#[test]
fn every_text_for_people_is_there_in_both_languages() {
    let mut wrong = Vec::new();
    let mut pairs = 0;
    for (file, code) in sources() {
        for call in PAIRS {
            for arguments in calls(&code, call) {
                let [english, russian, ..] = &arguments[..] else {
                    continue;
                };
                let (english, russian) = (literals(english), literals(russian));
                let is_text = english.iter().any(|text| has_words(text));
                if !is_text || russian.is_empty() {
                    continue;
                }
                pairs += 1;
                let stays = english.concat() == russian.concat();
                let is_russian = russian.iter().any(|text| text.chars().any(is_cyrillic));
                if english.iter().any(|text| text.chars().any(is_cyrillic))
                    || !(is_russian || stays)
                {
                    wrong.push(format!("{file}: {english:?} {russian:?}"));
                }
                let foreign: BTreeSet<String> =
                    russian.iter().flat_map(|text| foreign(text)).collect();
                if !stays && !foreign.is_empty() {
                    wrong.push(format!("{file}: {foreign:?} in {russian:?}"));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(pairs > 300, "only {pairs} pairs are found");
}

#[test]
fn what_is_shown_is_shown_in_the_readers_language() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        for call in SHOWN {
            for arguments in calls(&code, call) {
                let Some(shown) = arguments.first() else {
                    continue;
                };
                let is_picked = shown.contains("pick(") || shown.contains("told(");
                let is_told = literals(shown).iter().any(|text| !foreign(text).is_empty());
                if !is_picked && is_told {
                    wrong.push(format!("{file}: {shown}"));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// The second table of the glossary.
#[test]
fn the_words_that_the_glossary_replaces_are_gone() {
    let glossary = fs::read_to_string(root().join("docs/glossary.md")).unwrap();
    let (_, table) = glossary.split_once("| not | but |\n").unwrap();
    let replaced: Vec<String> = table
        .lines()
        .skip(1)
        .map_while(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|cell| cell.split(", ").map(str::to_owned))
        .collect();
    assert!(replaced.len() > 20, "{replaced:?}");
    let mut wrong = Vec::new();
    let mut texts = 0;
    for (file, code) in sources() {
        for text in literals(&code) {
            if !text.chars().any(is_cyrillic) {
                continue;
            }
            texts += 1;
            let plain = format!(" {} ", words(&text).join(" "));
            for word in &replaced {
                if plain.contains(&format!(" {word} ")) {
                    wrong.push(format!("{file}: {word} in {text}"));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(texts > 400, "only {texts} texts are found");
}

/// The reader of sources would pass everything if it read nothing.
#[test]
fn texts_are_found_in_every_shape() {
    let code = "let a = lang.pick(\"it \\\"is\\\", {x}\", // \"no\"\n format!(\"да, {}\", f('\"', \"z\")));\n\
                t.say(&format!(\"left: {n}\"));";
    let pairs = calls(code, "pick(");
    assert_eq!(pairs.len(), 1);
    assert_eq!(literals(&pairs[0][0]), ["it \\\"is\\\", {x}"]);
    assert_eq!(literals(&pairs[0][1]), ["да, {}", "z"]);
    assert_eq!(
        foreign("да, sweep amoCRM --all `retry` {x} A_B"),
        ["sweep".to_owned()].into()
    );
    assert!(has_words("left: {n}") && !has_words("{left}: {}"));
    assert_eq!(calls(code, ".say(").len(), 1);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `src` that is not for tests alone, without the tests at its end.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") && !name.contains("tests") {
                let code = fs::read_to_string(&path).unwrap();
                let code = code
                    .split("#[cfg(test)]\nmod tests {")
                    .next()
                    .unwrap()
                    .to_owned();
                let file = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((file, code));
            }
        }
    }
    found
}

/// A piece of code: what of it is the inside of a string, and what a comment.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Code,
    Text,
    Comment,
}

fn kinds(code: &str) -> Vec<(char, Kind)> {
    let chars: Vec<char> = code.chars().collect();
    let mut kinds = Vec::with_capacity(chars.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let (length, kind) = match rest {
            ['/', '/', ..] => {
                let end = rest.iter().position(|c| *c == '\n');
                (end.unwrap_or(rest.len()), Kind::Comment)
            }
            ['\'', '\\', _, '\'', ..] => (4, Kind::Comment),
            ['\'', _, '\'', ..] => (3, Kind::Comment),
            ['"', ..] => {
                let mut end = 1;
                while end < rest.len() && rest[end] != '"' {
                    end += if rest[end] == '\\' { 2 } else { 1 };
                }
                kinds.push(('"', Kind::Code));
                kinds.extend(
                    rest[1..end.min(rest.len())]
                        .iter()
                        .map(|c| (*c, Kind::Text)),
                );
                kinds.push(('"', Kind::Code));
                at += end + 1;
                continue;
            }
            _ => (1, Kind::Code),
        };
        kinds.extend(rest[..length].iter().map(|c| (*c, kind)));
        at += length;
    }
    kinds
}

/// The strings of a piece of code, each on one line.
fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside: Option<String> = None;
    for (c, kind) in kinds(code) {
        match (c, kind) {
            ('"', Kind::Code) => match inside.take() {
                Some(text) => found.push(text),
                None => inside = Some(String::new()),
            },
            (c, Kind::Text) => inside.get_or_insert_default().push(c),
            _ => {}
        }
    }
    found
}

/// The arguments of each call, as code.
fn calls(code: &str, call: &str) -> Vec<Vec<String>> {
    let kinds = kinds(code);
    let name: Vec<char> = call.chars().collect();
    let is_here = |at: usize| {
        let here = kinds.get(at..at + name.len());
        here.is_some_and(|here| {
            here.iter()
                .zip(&name)
                .all(|((c, kind), n)| c == n && *kind == Kind::Code)
        })
    };
    (0..kinds.len())
        .filter(|at| is_here(*at))
        .map(|at| arguments(&kinds[at + name.len()..]))
        .collect()
}

fn arguments(kinds: &[(char, Kind)]) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let mut depth = 0_u32;
    for (c, kind) in kinds.iter().filter(|(_, kind)| *kind != Kind::Comment) {
        if *kind == Kind::Code {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth == 0 => break,
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => {
                    arguments.push(String::new());
                    continue;
                }
                _ => {}
            }
        }
        if let Some(last) = arguments.last_mut() {
            last.push(*c);
        }
    }
    arguments.retain(|argument| !argument.trim().is_empty());
    arguments
}

fn is_cyrillic(c: char) -> bool {
    ('\u{400}'..='\u{4ff}').contains(&c)
}

/// Without what is quoted as code, placeholders and escapes.
fn prose(text: &str) -> String {
    let unquoted: String = text.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let mut depth = 0_u32;
    let plain: String = unquoted
        .replace("\\n", " ")
        .chars()
        .filter(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => return depth == 0,
            }
            false
        })
        .collect();
    plain
}

fn words(text: &str) -> Vec<String> {
    prose(text)
        .to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Whether it says something: a Latin or Cyrillic word of three letters.
fn has_words(text: &str) -> bool {
    prose(text)
        .split(|c: char| !c.is_alphabetic())
        .any(|word| word.chars().count() > 2)
}

/// Latin words of a Russian text that are no names.
fn foreign(text: &str) -> BTreeSet<String> {
    let text = QUOTED
        .iter()
        .fold(text.to_owned(), |text, quoted| text.replace(quoted, " "));
    let prose = prose(&text);
    prose
        .split(|c: char| !(c.is_alphanumeric() || "_-./:@".contains(c)))
        .filter(|word| !word.starts_with("--"))
        .map(|word| word.trim_matches(['-', '.', ':', '/']))
        .filter(|word| word.chars().filter(char::is_ascii_lowercase).count() > 1)
        .filter(|word| !word.contains(['_', '/', '.', '@', ':']) && !word.chars().any(is_cyrillic))
        .filter(|word| !NAMES.contains(&word.to_lowercase().as_str()))
        .map(str::to_owned)
        .collect()
}
