use std::fmt;

use crate::text::visible;

/// RFC 5321: a path of 256 characters, less its brackets.
const LONGEST: usize = 254;

/// The characters between two addresses, or around one, beside white space.
const SEPARATORS: [char; 12] = [',', ';', '<', '>', '(', ')', '[', ']', '"', '«', '»', '“'];
/// What is no end of an address.
const EDGES: [char; 12] = ['.', '\'', '`', '!', '*', '=', '’', '‘', '”', '„', '/', '|'];

/// An e-mail address, cleaned and in lower case; equality is what "the same person" means here.
///
/// A domain has two spellings, `школа.рф` and `xn--80atdl2c.xn--p1ai` (UTS 46): they are equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email {
    /// With the domain in ASCII. The first member, by which addresses are compared.
    ascii: String,
    /// With the domain in Unicode, as people write it: equal wherever `ascii` is, from which it is made.
    unicode: String,
}

/// Why a text does not name one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOneEmail {
    #[error("no address")]
    None,
    #[error("something that only looks like an address")]
    Unsound,
    #[error("several addresses")]
    Several,
}

impl Email {
    /// The one address in this text. Labels (`mailto:`), a name before `<…>`, separators and invisible characters around and
    /// inside it do not count; the same address twice is one. A bare word beside an address may be a part of it that was
    /// torn off (`ivan petrov@x.org`), so such a text is refused.
    pub fn parse(text: &str) -> Result<Self, NotOneEmail> {
        let text = readable(text);
        let mut found: Option<Self> = None;
        for candidate in candidates(&text).ok_or(NotOneEmail::Unsound)? {
            let email = Self::of(candidate).ok_or(NotOneEmail::Unsound)?;
            if found.as_ref().is_some_and(|other| *other != email) {
                return Err(NotOneEmail::Several);
            }
            found = Some(email);
        }
        found.ok_or(NotOneEmail::None)
    }

    /// Every sound address in this text, as a person may type several into one field.
    #[must_use]
    pub fn all(text: &str) -> Vec<Self> {
        let text = readable(text);
        let candidates = candidates(&text).into_iter().flatten();
        candidates.filter_map(Self::of).collect()
    }

    /// From a word with an `@` in it.
    fn of(candidate: &str) -> Option<Self> {
        let (local, domain) = candidate.split_once('@')?;
        if local.is_empty() || domain.contains('@') {
            return None;
        }
        let local = local.to_lowercase();
        let ascii = idna::domain_to_ascii(domain).ok()?;
        let (unicode, sound) = idna::domain_to_unicode(&ascii);
        let is_domain = ascii.contains('.') && ascii.split('.').all(|label| !label.is_empty());
        if sound.is_err() || !is_domain {
            return None;
        }
        let email = Self {
            ascii: format!("{local}@{ascii}"),
            unicode: format!("{local}@{unicode}"),
        };
        (email.ascii.len() <= LONGEST).then_some(email)
    }

    /// The form that is written and stored: with the domain in Unicode.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.unicode
    }

    /// The spellings to search for: Unicode, and ASCII if it differs.
    pub fn spellings(&self) -> impl Iterator<Item = &str> {
        let other = (self.ascii != self.unicode).then_some(self.ascii.as_str());
        std::iter::once(self.unicode.as_str()).chain(other)
    }

    /// The part before the `@`, or more of the address if that part is shorter than the shortest search.
    #[must_use]
    pub fn beginning(&self, at_least: usize) -> &str {
        let at = self.unicode.find('@').unwrap_or(self.unicode.len());
        let end = self
            .unicode
            .char_indices()
            .nth(at_least)
            .map_or(self.unicode.len(), |(end, _)| end);
        &self.unicode[..at.max(end)]
    }
}

/// Without invisible characters, and with HTML entities decoded.
fn readable(text: &str) -> String {
    visible(&html_escape::decode_html_entities(text))
}

/// The words of a text with an `@`, without labels and separators. `None`: other words beside them may be parts of an
/// address.
fn candidates(text: &str) -> Option<Vec<&str>> {
    let (mut plain, mut named) = (Vec::new(), Vec::new());
    let (mut is_clean, mut rest) = (true, text);
    while let Some((before, inner, after)) = bracketed(rest) {
        is_clean &= take(before, &mut plain);
        take(inner, &mut named);
        rest = after;
    }
    is_clean &= take(rest, &mut plain);
    match (is_clean, named.is_empty()) {
        (true, _) => Some([named, plain].concat()),
        // The other words are names.
        (false, false) => Some(named),
        (false, true) => plain.is_empty().then_some(plain),
    }
}

/// What is before, in and after the first `<…>` with an address in it.
fn bracketed(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('<')?;
    let (inner, after) = rest.split_once('>')?;
    inner.contains('@').then_some((before, inner, after))
}

/// Adds the words with an `@`. Answers whether there are no others, but for labels.
fn take<'a>(text: &'a str, found: &mut Vec<&'a str>) -> bool {
    let mut is_clean = true;
    for word in text.split(|c: char| c.is_whitespace() || SEPARATORS.contains(&c)) {
        let Some(at) = word.find('@') else {
            is_clean &= word.ends_with(':') || !word.contains(char::is_alphanumeric);
            continue;
        };
        // `a@x.org?subject=…`
        let end = word[at..]
            .find(['?', '#'])
            .map_or(word.len(), |end| at + end);
        // `mailto:a@x.org`, `e-mail:a@x.org`
        for part in word[..end].split(':').filter(|part| part.contains('@')) {
            let part = part.trim_matches(EDGES);
            let several: Vec<&str> = part.split(['/', '|']).collect();
            if several.iter().all(|one| one.contains('@')) {
                found.extend(several.iter().map(|one| one.trim_matches(EDGES)));
            } else {
                // A `/` or `|` may be a part of an address.
                found.push(part);
            }
        }
    }
    is_clean
}

/// Says nothing: an address must not reach a log through `{:?}`.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, NotOneEmail> {
        Email::parse(text).map(|email| email.as_str().to_owned())
    }

    #[test]
    fn what_people_and_programs_put_around_an_address_does_not_count() {
        for text in [
            "ann@example.org",
            " Ann@Example.ORG\n",
            "mailto:ann@example.org",
            "MAILTO:ann@example.org?subject=Hello%20there",
            "<ann@example.org>",
            "Анна Ли <ann@example.org>",
            "\"Ли, Анна\" <ann@example.org>",
            "ann@example.org,",
            "ann@example.org;",
            "ann@example.org.",
            "e-mail: ann@example.org",
            "e-mail:ann@example.org",
            "(ann@example.org)",
            "'ann@example.org'",
            "«ann@example.org»",
            "ann@example.org, Ann@example.org",
            "ann@example.org / ann@example.org",
            "\u{feff}ann@example.org",
            "ann@\u{200b}example.org",
            "an\u{ad}n@example.org",
            "\u{202a}ann@example.org\u{202c}",
            "a\u{2060}nn@exam\u{200d}ple.org",
            "ann\u{180e}@example.org",
            "ann@example.org\u{0}",
            "ann@example.org\u{a0}",
            "\u{3000}ann@example.org",
            "почта: ann@example.org",
            "mailto:ann@example.org?subject=Re:bob@example.org",
            "ann@example.org <ann@example.org>",
            "Ли, Анна <ann@example.org>",
            "&lt;ann@example.org&gt;",
            "ann&#64;example.org",
        ] {
            assert_eq!(parsed(text), Ok("ann@example.org".to_owned()), "{text:?}");
        }
    }

    #[test]
    fn what_is_part_of_an_address_stays() {
        for text in [
            "o'neil@example.org",
            "ann+tripwire@example.org",
            "ann.li_2@sub.example.org",
            "a!b#c?d@example.org",
            "ann/li@example.org",
            "a|b@example.org",
            "анна@example.org",
        ] {
            assert_eq!(parsed(text), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_text_that_names_no_one_person_is_refused() {
        let long = format!("{}@example.org", "a".repeat(243));
        for (text, why) in [
            ("", NotOneEmail::None),
            ("  ", NotOneEmail::None),
            ("ann", NotOneEmail::None),
            ("\u{200b}", NotOneEmail::None),
            ("@example.org", NotOneEmail::Unsound),
            ("ann@", NotOneEmail::Unsound),
            ("ann@example", NotOneEmail::Unsound),
            ("ann@.org", NotOneEmail::Unsound),
            ("ann@example..org", NotOneEmail::Unsound),
            ("ann@@example.org", NotOneEmail::Unsound),
            ("ann@example@org.kz", NotOneEmail::Unsound),
            ("ann@example.org @ann", NotOneEmail::Unsound),
            // A part that was torn off is no name.
            ("a n@example.org", NotOneEmail::Unsound),
            ("ivan petrov@example.org", NotOneEmail::Unsound),
            ("ivan,petrov@example.org", NotOneEmail::Unsound),
            ("ann@example.co m", NotOneEmail::Unsound),
            ("ann@example.org рабочая", NotOneEmail::Unsound),
            (&long, NotOneEmail::Unsound),
            ("ann@example.org, bob@example.org", NotOneEmail::Several),
            ("ann@example.org bob@example.org", NotOneEmail::Several),
            ("ann@example.org:bob@example.org", NotOneEmail::Several),
            (
                "Анна <ann@example.org>, Боб <bob@example.org>",
                NotOneEmail::Several,
            ),
            ("ann@example.org/bob@example.org", NotOneEmail::Several),
            ("ann@example.org\nbob@example.org", NotOneEmail::Several),
        ] {
            assert_eq!(parsed(text), Err(why), "{text:?}");
        }
        assert!(parsed(&long[1..]).is_ok());
        let huge = format!("{}@example.org", "a".repeat(70_000));
        assert_eq!(parsed(&huge), Err(NotOneEmail::Unsound));
    }

    #[test]
    fn of_a_field_with_several_addresses_each_counts_and_nothing_else() {
        let all = |text: &str| -> Vec<String> {
            let all = Email::all(text).into_iter();
            all.map(|email| email.as_str().to_owned()).collect()
        };
        let two = ["ann@example.org", "bob@example.org"];
        for text in [
            "ann@example.org,bob@example.org",
            "ann@example.org; Bob@example.org;",
            "ann@example.org / bob@example.org",
            "Анна <ann@example.org>\nБоб <bob@example.org>",
            "ann@example.org, cy@@example.org, bob@example.org",
        ] {
            assert_eq!(all(text), two, "{text:?}");
        }
        for text in [
            "нет",
            "ivan petrov@example.org",
            "ivan,petrov@example.org",
            "a@b",
        ] {
            assert_eq!(all(text), Vec::<String>::new(), "{text:?}");
        }
        assert_eq!(all("o&#039;neil@example.org"), ["o'neil@example.org"]);
        assert_eq!(all("tom&amp;ann@example.org"), ["tom&ann@example.org"]);
    }

    #[test]
    fn the_two_spellings_of_a_domain_are_one_address() {
        let unicode = Email::parse("Анна@Школа.РФ").unwrap();
        let ascii = Email::parse("анна@xn--80atdl2c.xn--p1ai").unwrap();
        assert_eq!(unicode, ascii);
        for email in [&unicode, &ascii] {
            assert_eq!(email.as_str(), "анна@школа.рф");
            let spellings: Vec<_> = email.spellings().collect();
            assert_eq!(spellings, ["анна@школа.рф", "анна@xn--80atdl2c.xn--p1ai"]);
        }
        // Full-width and composed letters are mapped as browsers do.
        for same in ["анна@ｓchool.example", "анна@school。example"] {
            let plain = Email::parse("анна@school.example").unwrap();
            assert_eq!(Email::parse(same), Ok(plain), "{same}");
        }
        let plain = Email::parse("ann@example.org").unwrap();
        assert_eq!(plain.spellings().collect::<Vec<_>>(), ["ann@example.org"]);
    }

    #[test]
    fn an_address_begins_with_the_part_before_the_at_or_as_much_as_is_asked_for() {
        for (address, beginning) in [
            ("aigerim@example.org", "aigerim"),
            ("aigeri@example.org", "aigeri"),
            ("aiger@example.org", "aiger@"),
            ("al@школа.рф", "al@шко"),
            ("анна@example.org", "анна@e"),
        ] {
            assert_eq!(Email::parse(address).unwrap().beginning(6), beginning);
        }
        assert_eq!(Email::parse("a@b.kz").unwrap().beginning(60), "a@b.kz");
    }

    #[test]
    fn an_address_says_nothing_in_debug() {
        assert_eq!(
            format!("{:?}", Email::parse("ann@example.org")),
            "Ok(Email(…))"
        );
    }
}
