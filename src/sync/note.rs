//! The texts that we put into amoCRM: the note with the access data, and the name of a new deal.

use secrecy::ExposeSecret;

use crate::{
    domain::{NoteTemplate, RowId},
    supabase::Row,
};

/// No maximum is documented; one public client stops at this many characters.
const MAX_NOTE_CHARS: usize = 9_000;
/// Keeps a deal's name readable, and equal to what amoCRM stores.
const MAX_NAME_CHARS: usize = 250;

/// The text of a row's note, ending with the reference by which it is found again.
#[must_use]
pub fn note(template: &NoteTemplate, row: &Row) -> String {
    let text = template.fill(|name| field(row, name));
    let text: String = text.trim().chars().take(MAX_NOTE_CHARS).collect();
    format!("{}\n[{}]", text.trim_end(), row.id.reference())
}

fn field(row: &Row, name: &str) -> Option<String> {
    let text = |value: &Option<String>| {
        value
            .as_deref()
            .map(str::trim)
            .filter(|v| !v.is_empty())
            .map(str::to_owned)
    };
    match name {
        "full_name" => text(&row.full_name),
        "email" => text(&row.email),
        "phone" => text(&row.phone),
        "manager_name" => text(&row.manager_name),
        "price" => row.price.map(|price| price.to_string()),
        "generated_password" => row
            .generated_password
            .as_ref()
            .map(|password| password.expose_secret().to_owned()),
        _ => Some(row.id.to_string()),
    }
}

/// Whether a note is the one we wrote for this row.
#[must_use]
pub fn is_ours(note: &str, row: RowId) -> bool {
    note.trim_end().ends_with(&format!("[{}]", row.reference()))
}

/// The name of a deal that we make: one line, single spaces, so that it is found again by exact name.
#[must_use]
pub fn deal_name(row: &Row) -> String {
    let name = field(row, "full_name")
        .or_else(|| field(row, "email"))
        .unwrap_or_default();
    let one_line = format!("Tripwire - {name}")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    one_line
        .chars()
        .take(MAX_NAME_CHARS)
        .collect::<String>()
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            id: "00000000-0000-4000-8000-00abcdef0001".parse().unwrap(),
            email: Some("ann@example.org".into()),
            full_name: Some(" Анна {email}\n Ли ".into()),
            phone: None,
            manager_name: Some("  ".into()),
            price: Some(5000),
            generated_password: Some("s3cret".into()),
            status: None,
            created_at: None,
            deal_id: None,
        }
    }

    #[test]
    fn a_note_is_filled_in_one_pass_and_ends_with_the_reference() {
        let template =
            NoteTemplate::parse("{full_name} / {price} / {manager_name} / {generated_password}")
                .unwrap();
        assert_eq!(
            note(&template, &row()),
            "Анна {email}\n Ли / 5000 / — / s3cret\n[00abcdef0001]"
        );
    }

    #[test]
    fn a_note_is_known_by_the_reference_at_its_end() {
        let id = row().id;
        assert!(is_ours("anything\n[00abcdef0001]", id));
        assert!(is_ours("trimmed by a server [00abcdef0001] ", id));
        assert!(!is_ours("[00abcdef0001] quoted by a person", id));
        assert!(!is_ours("anything\n[00abcdef0002]", id));
    }

    #[test]
    fn a_very_long_note_keeps_its_reference() {
        let mut row = row();
        row.full_name = Some("я".repeat(20_000));
        let text = note(&NoteTemplate::parse("{full_name}").unwrap(), &row);
        assert!(is_ours(&text, row.id) && text.chars().count() < 9_100);
    }

    #[test]
    fn a_deal_is_named_in_one_line_of_bounded_length() {
        assert_eq!(deal_name(&row()), "Tripwire - Анна {email} Ли");
        let mut long = row();
        long.full_name = Some("я ".repeat(400));
        assert!(deal_name(&long).chars().count() <= 250);
        long.full_name = None;
        assert_eq!(deal_name(&long), "Tripwire - ann@example.org");
    }
}
