use std::{fs, path::Path};

use super::*;
use crate::words::{Lang, Reader};

const OLD: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=";
const NEW: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMi0wMDAyLTAwMDI=";

fn endpoint() -> Endpoint {
    Endpoint::parse("https://sync.example.org").unwrap()
}

fn secrets(texts: &[&str]) -> Secrets {
    let known: Vec<_> = texts
        .iter()
        .map(|text| WebhookSecret::parse(text).unwrap())
        .collect();
    Secrets::of(&known)
}

fn told(secrets: &Secrets, is_read_by_a_person: bool) -> String {
    let terminal = Terminal::new(Reader::in_utc(Lang::English));
    about_secrets(secrets, is_read_by_a_person, &terminal).join("\n")
}

/// The first of `MIGRATIONS` is whole: tests on a real Postgres show that it does what all before it did.
#[test]
fn every_migration_from_the_whole_one_on_is_in_it_and_in_order() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("supabase/migrations");
    let mut files: Vec<(String, String)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    files.sort();
    files.retain(|(name, _)| name.as_str() >= MIGRATIONS[0].0);
    let embedded: Vec<_> = MIGRATIONS
        .iter()
        .map(|(name, sql)| ((*name).to_owned(), (*sql).to_owned()))
        .collect();
    assert_eq!(embedded, files);

    let sql = sql(&endpoint());
    let mut rest = sql.as_str();
    for (name, migration) in &files {
        let Some((_, after)) = rest.split_once(migration.trim_end()) else {
            panic!("{name} is missing, or not in order");
        };
        rest = after;
    }
    assert!(rest.contains(endpoint().as_str()), "the address comes last");
    assert!(!sql.contains("schema_migrations"));
}

#[test]
fn the_secret_is_in_a_text_of_its_own_once_and_in_no_block() {
    assert!(!sql(&endpoint()).contains("whsec_d"));
    for endpoint in [None, Some(endpoint())] {
        let sql = secret_sql(&secrets(&[OLD, NEW]).text, endpoint.as_ref());
        assert_eq!(sql.matches(OLD).count(), 1, "{sql}");
        assert!(sql.contains(&format!("'{OLD} {NEW}'")), "{sql}");
        assert!(!sql.contains('$'), "{sql}");
        let statements = sql.matches(';').count() - SECRET.description.matches(';').count() * 2;
        assert_eq!(statements, 1 + usize::from(endpoint.is_some()), "{sql}");
    }
}

#[test]
fn all_known_secrets_sign_and_an_unknown_one_is_made() {
    assert_eq!(secrets(&[OLD]).text.expose_secret(), OLD);
    let both = secrets(&[OLD, NEW]);
    assert_eq!(both.text.expose_secret(), format!("{OLD} {NEW}"));
    assert!(told(&both, true).contains("2 secrets"));

    let (one, other) = (secrets(&[]), secrets(&[]));
    assert!(one.is_new && WebhookSecret::parse(one.text.expose_secret()).is_ok());
    assert_ne!(one.text.expose_secret(), other.text.expose_secret());
}

#[test]
fn a_secret_is_shown_only_to_the_person_who_needs_it() {
    let new = secrets(&[]);
    let line = format!("\nWEBHOOK_SECRET={}", new.text.expose_secret());
    assert!(told(&new, true).ends_with(&line), "{}", told(&new, true));
    assert!(!told(&new, false).contains("whsec_d") && !told(&new, false).contains(&line[1..]));

    let known = secrets(&[OLD, NEW]);
    for is_read_by_a_person in [true, false] {
        let told = told(&known, is_read_by_a_person);
        assert!(
            !told.contains("whsec_") && told.contains("keep neither the query"),
            "{told}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn a_literal_ends_where_it_should(text in "[a'\\\\$]{0,12}") {
        let literal = literal(&text);
        let inner = literal.strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
        assert_eq!(inner.replace("''", ""), text.replace('\'', ""));
        assert_eq!(inner.replace("''", "'"), text);
    }
}
