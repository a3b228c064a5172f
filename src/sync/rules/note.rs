//! The texts that we put into amoCRM: the note with the access data, and the name of a new deal.

use secrecy::ExposeSecret;

use crate::{
    domain::{Email, NoteTemplate, RowId, is_kept, visible},
    supabase::Row,
};

/// No maximum is documented; one public client stops at this many characters.
const MAX_NOTE_CHARS: usize = 9_000;
/// Keeps a deal's name readable, and equal to what amoCRM stores.
const MAX_NAME_CHARS: usize = 250;

/// The text of a row's note; the mark by which it is found again stands alone on the last line.
#[must_use]
pub fn note(template: &NoteTemplate, row: &Row) -> String {
    let text = template.fill(|name| field(row, name));
    let kept = text.trim().chars().filter(|c| is_kept(*c));
    let text: String = kept.take(MAX_NOTE_CHARS).collect();
    format!("{}\n{}", text.trim_end(), mark(row.id))
}

fn mark(row: RowId) -> String {
    format!("[{}]", row.reference())
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
        "email" => login(row).or_else(|| text(&row.email)),
        "phone" => text(&row.phone),
        "manager_name" => text(&row.manager_name),
        "price" => row.price.as_ref().map(|price| price.as_str().to_owned()),
        "generated_password" => row
            .generated_password
            .as_ref()
            .map(|password| password.expose_secret().chars().map(shown).collect()),
        _ => Some(row.id.to_string()),
    }
}

/// Keeps a mark in place of a dropped character, so that a password does not get shorter unseen.
fn shown(c: char) -> char {
    if is_kept(c) {
        c
    } else {
        char::REPLACEMENT_CHARACTER
    }
}

/// Whether a note is the one that we wrote for this row. amoCRM may have trimmed or escaped it, and a person may have
/// added lines to it. A mark that is quoted inside a line does not count.
#[must_use]
pub fn is_ours(note: &str, row: RowId) -> bool {
    let text = without_tags(&html_escape::decode_html_entities(note));
    let mark = mark(row);
    text.split(['\n', '\r', '\u{2028}', '\u{2029}'])
        .any(|line| visible(line).trim() == mark)
}

/// The text with a line break in place of each tag, such as `<br>` or `</p>`.
fn without_tags(text: &str) -> String {
    let mut left = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tag)) = rest.split_once('<') {
        left.push_str(before);
        let is_tag = tag.starts_with(|c: char| c == '/' || c.is_ascii_alphabetic());
        match tag.split_once('>') {
            Some((_, after)) if is_tag => {
                left.push('\n');
                rest = after;
            }
            _ => {
                left.push('<');
                rest = tag;
            }
        }
    }
    left + rest
}

/// The name of a deal that we make.
#[must_use]
pub fn deal_name(row: &Row) -> String {
    one_line(&format!("Tripwire - {}", person(row)))
}

/// The name of a contact that we make.
#[must_use]
pub fn contact_name(row: &Row) -> String {
    one_line(&person(row))
}

/// The student's name or, where the row has none, the address.
fn person(row: &Row) -> String {
    let name = field(row, "full_name").map(|name| one_line(&name));
    name.filter(|name| !name.is_empty())
        .or_else(|| address(row))
        .unwrap_or_default()
}

/// The address in the row's own spelling, unless the cell holds more than an address.
fn login(row: &Row) -> Option<String> {
    let said = visible(row.email.as_deref()?);
    let email = Email::parse(&said).ok()?;
    let is_bare = email
        .spellings()
        .any(|spelling| spelling == said.trim().to_lowercase());
    Some(if is_bare { said.trim() } else { email.as_str() }.to_owned())
}

fn address(row: &Row) -> Option<String> {
    let email = Email::parse(row.email.as_deref()?).ok()?;
    Some(email.as_str().to_owned())
}

/// A deal's name as we sent it, though amoCRM may have escaped it.
#[must_use]
pub fn as_sent(deal_name: &str) -> String {
    one_line(&html_escape::decode_html_entities(deal_name))
}

/// Visible characters, single spaces, bounded length: amoCRM stores the name as it is sent, and its deal is found again
/// by the exact name.
fn one_line(text: &str) -> String {
    let text: String = visible(text).chars().filter(|c| is_kept(*c)).collect();
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words.join(" ").chars().take(MAX_NAME_CHARS).collect();
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Price;

    fn row() -> Row {
        Row {
            id: "00000000-0000-4000-8000-00abcdef0001".parse().unwrap(),
            email: Some("ann@example.org".into()),
            full_name: Some(" Анна {email}\n Ли ".into()),
            phone: None,
            manager_name: Some("  ".into()),
            price: Price::of("5000"),
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
    fn a_note_is_known_by_its_mark_however_it_comes_back() {
        let (id, mark) = (row().id, "[00abcdef0001]");
        for ours in [
            format!("text\n{mark}"),
            mark.to_owned(),
            format!("text\r\n{mark}\r\n"),
            format!("text\n \u{a0}{mark}\t \n\n"),
            format!("text\n{mark}\u{200b}"),
            format!("text\n{mark}\n\nзвонила, всё получила"),
            format!("text\n{mark}\n[000000000000]"),
            format!("a &lt;b&gt; &amp;\n{mark}"),
            "text\n&#91;00abcdef0001&#93;".to_owned(),
            "text&#10;&#x5B;00abcdef0001&rsqb;".to_owned(),
            format!("text<br>{mark}"),
            format!("<p>text<br />{mark}</p>"),
            format!("text&lt;br/&gt;{mark}&nbsp;"),
            format!("text<BR clear=\"all\">{mark}<span></span>"),
            format!("<div>a < b</div><div><b>{mark}</b></div>"),
        ] {
            assert!(is_ours(&ours, id), "{ours}");
        }
        for not_ours in [
            format!("{mark} quoted by a person"),
            format!("see {mark}"),
            format!("text\n> {mark}"),
            format!("«{mark}»"),
            "text\n[00abcdef0002]".to_owned(),
            "text\n[00abcdef0001".to_owned(),
            "text\n00abcdef0001".to_owned(),
            String::new(),
        ] {
            assert!(!is_ours(&not_ours, id), "{not_ours}");
        }
    }

    #[test]
    fn nothing_is_written_that_amocrm_cuts_a_text_at() {
        let mut row = row();
        row.full_name = Some("🎉 Анна 𝐋i 👩‍🎓".to_owned());
        row.manager_name = Some("🦊".to_owned());
        row.generated_password = Some("p🔑w".into());
        let template =
            NoteTemplate::parse("✅ 🔥 {full_name}|{manager_name}|{generated_password}").unwrap();
        let text = note(&template, &row);
        assert_eq!(text, "✅   Анна i \u{200d}||p\u{fffd}w\n[00abcdef0001]");
        assert_eq!(deal_name(&row), "Tripwire - Анна i");
        assert_eq!(contact_name(&row), "Анна i");
        row.full_name = row.manager_name.clone();
        assert_eq!(deal_name(&row), "Tripwire - ann@example.org");
        assert_eq!(contact_name(&row), "ann@example.org");
    }

    #[test]
    fn a_deals_name_is_known_however_it_comes_back() {
        for name in ["Том & Ли", "\"Ли\" <Анна>", "  О'Нил\n🎉 ", "a  b"] {
            let mut row = row();
            row.full_name = Some(name.to_owned());
            let sent = deal_name(&row);
            assert_eq!(as_sent(&sent), sent);
            assert_eq!(as_sent(&html_escape::encode_quoted_attribute(&sent)), sent);
            assert_eq!(as_sent(&html_escape::encode_text(&sent)), sent);
        }
    }

    #[test]
    fn a_contact_is_named_like_its_deal() {
        for (name, called) in [
            (" Анна\n  Ли\u{200b}\u{0} ", "Анна Ли"),
            ("\u{200b}", "ann@example.org"),
            ("\t\n", "ann@example.org"),
        ] {
            let mut row = row();
            row.full_name = Some(name.to_owned());
            assert_eq!(contact_name(&row), called);
            assert_eq!(deal_name(&row), format!("Tripwire - {called}"));
        }
        let mut row = row();
        row.full_name = Some("я ".repeat(400));
        assert_eq!(contact_name(&row).chars().count(), 249);
    }

    #[test]
    fn a_note_says_the_login_as_the_row_does() {
        for (cell, said) in [
            (" Ann@Example.org\n", "Ann@Example.org"),
            ("ann@xn--80atdl2c.xn--p1ai", "ann@xn--80atdl2c.xn--p1ai"),
            ("ann@Школа.рф", "ann@Школа.рф"),
            ("ann\u{200b}@example.org", "ann@example.org"),
            ("mailto:Ann@example.org", "ann@example.org"),
            ("Анна <ann@example.org>", "ann@example.org"),
        ] {
            let mut row = row();
            row.email = Some(cell.to_owned());
            let text = note(&NoteTemplate::parse("{email}").unwrap(), &row);
            assert_eq!(text, format!("{said}\n[00abcdef0001]"));
        }
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
