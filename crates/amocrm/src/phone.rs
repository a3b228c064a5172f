use std::fmt;

/// The last ten digits of a phone number: `+7…` and `8…` are the same person.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Phone(String);

impl Phone {
    /// `None` for fewer than ten digits: too few to identify a person.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let tail = digits.len().checked_sub(10)?;
        Some(Self(digits[tail..].to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Says nothing: a number must not reach a log through `{:?}`.
impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phone(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_is_its_last_ten_digits() {
        assert_eq!(
            Phone::parse("+7 (701) 234-56-78"),
            Phone::parse("8 701 2345678")
        );
        assert_eq!(Phone::parse("234-56-78"), None);
    }

    #[test]
    fn a_phone_says_nothing_in_debug() {
        let phone = Phone::parse("+77012345678").unwrap();
        assert_eq!(format!("{phone:?}"), "Phone(…)");
    }
}
