//! The languages of texts for people.

use std::{borrow::Cow, fmt};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lang {
    English,
    Russian,
}

impl Lang {
    /// By `LC_ALL`, `LC_MESSAGES` or `LANG`.
    #[must_use]
    pub fn of_locale(locale: Option<&str>) -> Self {
        match locale {
            Some(locale) if locale.starts_with("ru") => Self::Russian,
            _ => Self::English,
        }
    }

    pub fn pick<T>(self, english: T, russian: T) -> T {
        match self {
            Self::English => english,
            Self::Russian => russian,
        }
    }
}

/// A text for people that is made where the reader is not known yet. The log gets the English one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wording {
    pub english: Cow<'static, str>,
    pub russian: Cow<'static, str>,
}

impl Wording {
    #[must_use]
    pub fn new(
        english: impl Into<Cow<'static, str>>,
        russian: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            english: english.into(),
            russian: russian.into(),
        }
    }

    #[must_use]
    pub const fn fixed(english: &'static str, russian: &'static str) -> Self {
        Self {
            english: Cow::Borrowed(english),
            russian: Cow::Borrowed(russian),
        }
    }

    /// A value or a command, which no language changes.
    #[must_use]
    pub const fn same(text: &'static str) -> Self {
        Self::fixed(text, text)
    }

    #[must_use]
    pub fn in_lang(&self, lang: Lang) -> &str {
        lang.pick(&self.english, &self.russian)
    }
}

impl fmt::Display for Wording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.english)
    }
}
