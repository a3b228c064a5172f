//! What a student paid, as the row says it.

/// Up to here a float represents every whole number.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// A price in the row's own words: `4990`, `145.90`, `4990,50`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price(String);

impl Price {
    /// `None`: the text is blank.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In whole units of the currency, halves upwards: amoCRM keeps no others. `None`: it is no number.
    ///
    /// A comma with one or two digits after it is a decimal point. With three it may part thousands, so the price is unknown.
    #[must_use]
    pub fn whole(&self) -> Option<i64> {
        let digits: String = self.0.chars().filter(|c| !c.is_whitespace()).collect();
        if let Ok(whole) = digits.parse() {
            return Some(whole);
        }
        let number = match digits.split_once(',') {
            None => digits,
            Some((units, part)) if matches!(part.len(), 1 | 2) => format!("{units}.{part}"),
            Some(_) => return None,
        };
        let rounded = number.parse::<f64>().ok()?.round();
        #[expect(clippy::cast_possible_truncation, reason = "its range was looked at")]
        (rounded.abs() <= LARGEST_WHOLE).then_some(rounded as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_rounded_and_said_as_it_is() {
        for (text, whole) in [
            ("990", Some(990)),
            ("990.00", Some(990)),
            ("990.5", Some(991)),
            ("145.90", Some(146)),
            ("145.49", Some(145)),
            ("0.40", Some(0)),
            ("0.5", Some(1)),
            ("4990,50", Some(4991)),
            ("4990,4", Some(4990)),
            ("4 990", Some(4990)),
            ("4\u{a0}990,50", Some(4991)),
            ("9.9e2", Some(990)),
            ("-10.5", Some(-11)),
            ("9007199254740993", Some(9_007_199_254_740_993)),
            // Thousands or thousandths: ambiguous.
            ("4,990", None),
            ("1,234,56", None),
            ("1,234.50", None),
            ("4990,", None),
            (",", None),
            ("about 990", None),
            ("990 ₸", None),
            ("NaN", None),
            ("inf", None),
            ("1e300", None),
        ] {
            let price = Price::of(&format!(" {text}\n")).unwrap();
            assert_eq!((price.as_str(), price.whole()), (text, whole));
        }
        assert_eq!(Price::of("  "), None);
    }
}
