//! amoCRM's messages, without the personal data from requests that they may repeat.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

use crate::text::visible;

/// Of one text; the rest is left out.
const LONGEST: usize = 200;
/// A longer number may be a phone's.
const LONGEST_NUMBER: usize = 5;
/// A name may be as short as `Ли`.
const SHORTEST_NAME: usize = 2;
const LEFT_OUT: &str = "…";
const QUOTES: [(char, char); 5] = [('"', '"'), ('\'', '\''), ('«', '»'), ('“', '”'), ('`', '`')];

/// The words of what was sent: names, addresses, notes, the token.
#[derive(Debug, Default)]
pub(super) struct Sent(HashSet<String>);

impl Sent {
    pub(super) fn of(body: &impl Serialize) -> Self {
        let mut words = HashSet::new();
        collect(&serde_json::to_value(body).unwrap_or_default(), &mut words);
        Self(words)
    }

    /// One line without quotations, addresses, numbers that may be phones, and words that were sent.
    pub(super) fn without(&self, text: &str) -> String {
        let text = visible(text);
        let unquoted = without_quotations(&text);
        let words: Vec<&str> = unquoted.split_whitespace().collect();
        // A phone may be written in several words.
        let numbers = words.chunk_by(|one, other| is_of_number(one) && is_of_number(other));
        let words = numbers.flat_map(|run| {
            let digits: usize = run.iter().map(|word| digits_of(word)).sum();
            run.iter().map(move |word| {
                let is_sent = parts(word).any(|part| self.0.contains(&part));
                let is_address = word.contains('@') || word.contains("://");
                let is_long_number = digits > LONGEST_NUMBER;
                if is_sent || is_address || is_long_number {
                    LEFT_OUT
                } else {
                    *word
                }
            })
        });
        let line = words.collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}{LEFT_OUT}", &line[..end]),
            None => line,
        }
    }
}

fn digits_of(word: &str) -> usize {
    word.chars().filter(char::is_ascii_digit).count()
}

fn is_of_number(word: &str) -> bool {
    !word.contains(char::is_alphabetic)
}

fn collect(value: &Value, words: &mut HashSet<String>) {
    match value {
        Value::String(text) => {
            words.extend(parts(text).filter(|word| word.chars().count() >= SHORTEST_NAME));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
        Value::Object(fields) => fields.values().for_each(|field| collect(field, words)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn parts(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_lowercase)
}

fn without_quotations(text: &str) -> String {
    let mut left = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let closing = QUOTES.iter().find(|(opening, _)| *opening == c);
        let rest = chars.as_str();
        match closing.and_then(|(_, closing)| rest.split_once(*closing)) {
            Some((_, after)) => {
                left.push_str(LEFT_OUT);
                chars = after.chars();
            }
            None => left.push(c),
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_explanation_is_told_without_the_people() {
        let sent = Sent::of(&json!([{
            "name": "Course - Bo Ray-Li", "price": 990,
            "_embedded": {"contacts": [{"values": ["bo@x.org", "+7 701 234-56-78"]}]},
        }]));
        for (text, told) in [
            ("Код ошибки 244", "Код ошибки 244"),
            (
                "Loss reason can be specified only for lost lead",
                "Loss reason can be specified only for lost lead",
            ),
            ("Request validation failed", "Request validation failed"),
            ("Contact Ray, exists", "Contact … exists"),
            ("Contact RAY exists", "Contact … exists"),
            ("Поле bo@x.org занято", "Поле … занято"),
            ("Поле other@y.kz занято", "Поле … занято"),
            ("Contact \"Ann Lee\" exists", "Contact … exists"),
            ("Контакт «Анна Ли» уже есть", "Контакт … уже есть"),
            ("Phone 77012345678 is taken", "Phone … is taken"),
            (
                "Phone +7 701 234 56 78 is taken",
                "Phone … … … … … is taken",
            ),
            ("Contact Li exists", "Contact … exists"),
            ("Contact Bo, exists", "Contact … exists"),
            ("Phone +7(701)2345678: taken", "Phone … taken"),
            ("see https://x.org/a?b=c now", "see … now"),
            ("Lead 12345 is closed", "Lead 12345 is closed"),
            ("it's broken", "it's broken"),
            ("two\nlines\t and\u{200b} more ", "two lines and more"),
            ("", ""),
        ] {
            assert_eq!(sent.without(text), told, "{text}");
        }
        let long = sent.without(&"слово ".repeat(100));
        assert_eq!(long.chars().count(), LONGEST + 1);
    }
}
