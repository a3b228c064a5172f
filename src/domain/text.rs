//! Characters that a terminal or a log must not get.

use std::{borrow::Cow, fmt::Write as _};

/// Escapes characters by which a text could move a terminal's cursor, reorder a line, or begin a new one, except those in
/// `keep`. The escapes (`\u001b`) are valid in JSON, so that printed JSON keeps its meaning.
#[must_use]
pub(crate) fn harmless<'t>(text: &'t str, keep: &[char]) -> Cow<'t, str> {
    let is_written_out = |c: char| !keep.contains(&c) && (c.is_control() || is_of_layout(c));
    if !text.contains(is_written_out) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        if is_written_out(c) {
            // A `String` takes everything.
            let _ = write!(harmless, "\\u{:04x}", u32::from(c));
        } else {
            harmless.push(c);
        }
    }
    Cow::Owned(harmless)
}

/// Separators of lines and paragraphs, and all that sets a text's direction.
fn is_of_layout(c: char) -> bool {
    matches!(
        c,
        '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_move_a_cursor_or_reorder_a_line_is_written_out() {
        for (text, shown) in [
            ("Воронка «A» ✅ 👨\u{200d}👩 e\u{301}\u{a0}\\u001b", None),
            ("a\nb\tc", None),
            ("", None),
            ("\u{1b}[2J", Some("\\u001b[2J")),
            (
                "a\rb\u{8}\u{0}\u{7f}",
                Some("a\\u000db\\u0008\\u0000\\u007f"),
            ),
            ("\u{9b}31m\u{85}", Some("\\u009b31m\\u0085")),
            ("\u{202e}x\u{202a}", Some("\\u202ex\\u202a")),
            ("\u{2066}x\u{2069}", Some("\\u2066x\\u2069")),
            ("\u{200e}\u{200f}\u{61c}", Some("\\u200e\\u200f\\u061c")),
            ("a\u{2028}b\u{2029}", Some("a\\u2028b\\u2029")),
        ] {
            assert_eq!(harmless(text, &['\n', '\t']), shown.unwrap_or(text));
        }
        assert_eq!(harmless("a\nb\tc", &[]), "a\\u000ab\\u0009c");
    }

    #[test]
    fn written_out_json_keeps_its_meaning() {
        let value = serde_json::json!({ "name": "\u{1b}[2J\u{9b}\u{202e}\u{7f}\n" });
        let printed = serde_json::to_string_pretty(&value).unwrap();

        let harmless = harmless(&printed, &['\n']);

        assert!(harmless.is_ascii(), "{harmless}");
        let read: serde_json::Value = serde_json::from_str(&harmless).unwrap();
        assert_eq!(read, value);
    }
}
