use std::{fmt, str::FromStr};

use serde::Serialize;

/// Tells one test event from another: 128 bits, written as 32 hex digits in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(u128);

const DIGITS: usize = 32;

/// The text is not 32 hex digits in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a nonce is 32 hex digits in lower case")]
pub struct NotANonce;

impl Nonce {
    #[must_use]
    pub fn new(random: u128) -> Self {
        Self(random)
    }
}

impl FromStr for Nonce {
    type Err = NotANonce;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != DIGITS || !is_hex {
            return Err(NotANonce);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| NotANonce)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

impl Serialize for Nonce {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_read_as_it_is_written() {
        for random in [0, 1, 0x0123_4567_89ab_cdef, u128::MAX] {
            let nonce = Nonce::new(random);
            assert_eq!(nonce.to_string().len(), DIGITS);
            assert_eq!(nonce.to_string().parse(), Ok(nonce));
        }
    }

    #[test]
    fn other_texts_are_no_nonce() {
        let sound = "0123456789abcdef0123456789abcdef";
        assert!(sound.parse::<Nonce>().is_ok());
        for text in [
            "",
            &sound[1..],
            &sound.to_uppercase(),
            &format!("{sound}0"),
            &format!("+{}", &sound[1..]),
            &sound.replace('0', "g"),
            &format!(" {}", &sound[1..]),
        ] {
            assert_eq!(text.parse::<Nonce>(), Err(NotANonce), "{text:?}");
        }
    }
}
