//! Characters that people do not see, or that amoCRM does not keep.

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory},
};

/// Without invisible characters: format characters (zero-width ones, soft hyphens, marks of byte order and direction), other
/// ignorable ones, and controls that are no blanks.
#[must_use]
pub fn visible(text: &str) -> String {
    let category = CodePointMapData::<GeneralCategory>::new();
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let is_invisible = |c: char| {
        ignorable.contains(c)
            || category.get(c) == GeneralCategory::Format
            || (c.is_control() && !c.is_whitespace())
    };
    text.chars().filter(|c| !is_invisible(*c)).collect()
}

/// Whether amoCRM keeps this character: it cuts a text at the first one beyond the Basic Multilingual Plane (emoji).
#[must_use]
pub fn is_kept(c: char) -> bool {
    u32::from(c) <= 0xFFFF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_invisible_characters_are_left_out() {
        for (text, seen) in [
            ("\u{feff}Анна\u{200b} Ли\u{ad}", "Анна Ли"),
            ("a\u{0}b\u{7f}c\u{85}", "abc\u{85}"),
            ("line\nline\ttab\u{a0}", "line\nline\ttab\u{a0}"),
            ("✅\u{fe0f} ё е\u{301}", "✅ ё е\u{301}"),
            ("\u{202e}evil\u{202c}", "evil"),
        ] {
            assert_eq!(visible(text), seen, "{text:?}");
        }
    }

    #[test]
    fn what_is_beyond_the_first_plane_is_not_kept() {
        for (c, kept) in [
            ('a', true),
            ('Ж', true),
            ('✅', true),
            ('\u{ffff}', true),
            ('\u{10000}', false),
            ('🎉', false),
            ('𝐀', false),
        ] {
            assert_eq!(is_kept(c), kept, "{c}");
        }
    }
}
