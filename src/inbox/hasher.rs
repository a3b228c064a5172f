//! Keyed hashes: recognise a person without storing their e-mail or phone.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::{Email, KeyedHash, Phone};

/// Hashes under the inbox's own random key.
#[derive(Clone)]
pub struct Hasher {
    keyed: Hmac<Sha256>,
}

/// Shows no state: the state would reveal the key.
impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher(…)")
    }
}

impl Hasher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "HMAC pads or hashes the key: no length is refused"
        )]
        let keyed = Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
        Self { keyed }
    }

    #[must_use]
    pub fn email(&self, email: &Email) -> KeyedHash {
        self.of(["email", "", email.as_str()])
    }

    #[must_use]
    pub fn phone(&self, phone: &Phone) -> KeyedHash {
        self.of(["phone", "", phone.as_str()])
    }

    /// The hash of any other text. `domain` keeps it apart from the hashes above.
    #[must_use]
    pub fn text(&self, domain: &str, text: &str) -> KeyedHash {
        self.of(["text", domain, text])
    }

    fn of(&self, parts: [&str; 3]) -> KeyedHash {
        let mut mac = self.keyed.clone();
        for part in parts {
            // The length first: ("ab", "c") and ("a", "bc") are different.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part.as_bytes());
        }
        let digest = mac.finalize().into_bytes();
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        KeyedHash::new(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_in_another_domain_or_under_another_key_is_another_hash() {
        let hasher = Hasher::new(&[1; 32]);
        let email = Email::parse("ann@example.org").unwrap();
        let all = [
            hasher.email(&email),
            hasher.text("email", email.as_str()),
            hasher.text("name", email.as_str()),
            hasher.text("nam", "eann@example.org"),
            hasher.phone(&Phone::parse("+77012345678").unwrap()),
            hasher.text("phone", "7012345678"),
            Hasher::new(&[2; 32]).email(&email),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn the_same_person_is_the_same_hash() {
        let [one, two] = [" Ann@Example.org", "ann@example.ORG"]
            .map(|text| Hasher::new(&[7; 32]).email(&Email::parse(text).unwrap()));
        assert_eq!(one, two);
    }
}
