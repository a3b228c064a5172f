//! A search for texts in whatever a program may have made of them.

use std::fmt::Write as _;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// A text that must not be found, in each form in which it could be written.
#[derive(Debug)]
pub(super) struct Needle {
    text: String,
    /// In lower case; looked for in any.
    folded: Vec<String>,
    /// Base64, which has a meaning of its own for each case.
    exact: Vec<String>,
}

impl Needle {
    pub(super) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        assert!(text.chars().count() >= 6, "{text} could be found by chance");
        let (mut folded, mut exact) = (Vec::new(), Vec::new());
        for text in [text.clone(), text.to_lowercase(), text.to_uppercase()] {
            let forms = [
                text.clone(),
                text.replace('"', "\\\""),
                percent(&text, "%20"),
                percent(&text, "+"),
                escaped(&text, |unit| format!("\\u{unit:04x}")),
                escaped(&text, |unit| format!("\\\\u{unit:04x}")),
                escaped(&text, |unit| format!("\\u{{{unit:x}}}")),
                hex(text.as_bytes()),
            ];
            folded.extend(forms.map(|form| form.to_lowercase()));
            exact.extend(base64s(text.as_bytes()));
        }
        Self {
            text,
            folded,
            exact,
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn is_in(&self, haystack: &Haystack) -> bool {
        self.folded.iter().any(|it| haystack.folded.contains(it))
            || self.exact.iter().any(|it| haystack.exact.contains(it))
    }

    /// Each form is found in the middle of this haystack.
    pub(super) fn assert_found_in(&self, haystack: &Haystack) {
        let middle: String = haystack.exact.chars().take(500).collect();
        let upper = self.folded.iter().map(|form| form.to_uppercase());
        let forms = self.folded.iter().chain(&self.exact).cloned().chain(upper);
        for form in forms {
            let text = format!("{middle}{form}{middle}");
            let planted = Haystack::new(haystack.name.clone(), text.as_bytes());
            assert!(self.is_in(&planted), "{form} in {}", haystack.name);
        }
    }
}

/// As in a URL or a form.
fn percent(text: &str, space: &str) -> String {
    let mut form = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => form.push_str(space),
            b'-' | b'.' | b'_' | b'~' => form.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => form.push(char::from(byte)),
            _ => write!(form, "%{byte:02X}").unwrap(),
        }
    }
    form
}

/// As in JSON or a debug text, with everything but ASCII written out.
fn escaped(text: &str, write_out: impl Fn(u16) -> String) -> String {
    let mut form = String::new();
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => form.push(char::from(byte)),
            _ => form.push_str(&write_out(unit)),
        }
    }
    form
}

fn hex(bytes: &[u8]) -> String {
    let mut form = String::new();
    for byte in bytes {
        write!(form, "{byte:02x}").unwrap();
    }
    form
}

/// The letters that do not depend on what comes before and after, at each of the three places in a group.
fn base64s(bytes: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let padded = [&vec![0; before], bytes].concat();
        let letters = (before * 8).div_ceil(6)..padded.len() * 8 / 6;
        for encoded in [
            STANDARD_NO_PAD.encode(&padded),
            URL_SAFE_NO_PAD.encode(&padded),
        ] {
            forms.push(encoded[letters.clone()].to_owned());
        }
    }
    forms
}

/// What a stranger could get to see.
#[derive(Debug)]
pub(super) struct Haystack {
    name: String,
    exact: String,
    folded: String,
}

impl Haystack {
    pub(super) fn new(name: impl Into<String>, bytes: &[u8]) -> Self {
        let exact = String::from_utf8_lossy(bytes).into_owned();
        Self {
            name: name.into(),
            folded: exact.to_lowercase(),
            exact,
        }
    }

    #[track_caller]
    pub(super) fn assert_holds(&self, text: &str) {
        assert!(self.exact.contains(text), "no {text} in {}", self.name);
    }

    /// It has none of these, and would show each.
    pub(super) fn assert_free_of(&self, needles: &[Needle]) {
        for needle in needles {
            if needle.is_in(self) {
                let line = self
                    .exact
                    .lines()
                    .find(|line| needle.is_in(&Self::new("a line", line.as_bytes())));
                panic!("{} is in {}: {line:?}", needle.text, self.name);
            }
            needle.assert_found_in(self);
        }
    }
}
