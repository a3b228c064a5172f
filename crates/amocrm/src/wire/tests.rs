use std::fmt::Write as _;

use super::*;

fn contacts(items: &[String]) -> String {
    format!(r#"{{"_embedded":{{"contacts":[{}]}}}}"#, items.join(","))
}

fn contact(id: i64, values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values
        .map(|value| format!(r#"{{"value":"{value}","enum_id":1,"enum_code":"WORK"}}"#))
        .collect();
    format!(
        r#"{{"id":{id},"custom_fields_values":[{{"field_code":"EMAIL","values":[{}]}}]}}"#,
        values.join(",")
    )
}

fn read(body: &str) -> (Vec<Contact>, Unreadable) {
    let listing: Listing<Contacts> = decode(body.as_bytes()).unwrap();
    let (items, unreadable) = part(listing.embedded.items());
    (items.into_iter().map(Contact::from).collect(), unreadable)
}

/// A contact with addresses that were not read may have any e-mail, so it counts as unreadable when no contact is found.
#[test]
fn a_contact_with_more_than_can_be_read_is_known_in_part() {
    let many = |n: usize| (0..n).map(|n| format!("a{n}@x.org"));
    let long = format!("{}@x.org", "a".repeat(php::LONGEST_VALUE));
    let blanks = std::iter::repeat_n("  ".to_owned(), 2 * php::MOST_VALUES);
    let table: [(Vec<String>, usize, bool); 6] = [
        (many(3).collect(), 3, false),
        (many(php::MOST_VALUES).collect(), php::MOST_VALUES, false),
        (many(php::MOST_VALUES + 1).collect(), php::MOST_VALUES, true),
        (vec![long.clone()], 0, true),
        (many(1).chain([long]).collect(), 1, true),
        (blanks.chain(many(1)).collect(), 1, false),
    ];
    for (values, count, is_cut) in table {
        let described = format!("{} values, {count} read", values.len());
        let (contacts, unreadable) = read(&contacts(&[contact(7, values.into_iter())]));
        assert_eq!(contacts[0].emails.len(), count, "{described}");
        assert!(contacts[0].has_email, "{described}");
        assert_eq!(unreadable.may_be(7), is_cut, "{described}");
    }
}

/// In KiB, the most that this process ever took.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

/// Each test has a process of its own.
#[test]
#[cfg(target_os = "linux")]
fn ten_contacts_with_ten_thousand_addresses_each_cost_little_more_than_their_text() {
    // The body is built in place: the memory for building it must not hide the memory for reading it.
    let mut body = String::with_capacity(8 << 20);
    for id in 0..10 {
        body += if id == 0 {
            r#"{"_embedded":{"contacts":["#
        } else {
            ","
        };
        write!(
            body,
            r#"{{"id":{id},"custom_fields_values":[{{"field_code":"EMAIL","values":["#
        )
        .unwrap();
        for n in 0..10_000 {
            let comma = if n == 0 { "" } else { "," };
            write!(body, r#"{comma}{{"value":"student{n}@school{id}.example.kz","enum_id":1,"enum_code":"WORK"}}"#).unwrap();
        }
        body += "]}]}";
    }
    body += "]}}";
    assert!(body.len() > 7 << 20, "{}", body.len());
    let before = peak();
    let (contacts, unreadable) = read(&body);
    let grown = peak() - before;
    assert_eq!((contacts.len(), unreadable.ids.len()), (10, 10));
    assert!(grown < 16 << 10, "{grown} KiB");
}
