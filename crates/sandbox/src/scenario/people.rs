//! Invented students.

use rand::{RngExt, rngs::SmallRng, seq::IndexedRandom};

/// Given name, its Latin spelling, and whether it is a woman's.
const NAMES: [(&str, &str, bool); 16] = [
    ("Айгерим", "aigerim", true),
    ("Динара", "dinara", true),
    ("Жанар", "zhanar", true),
    ("Мадина", "madina", true),
    ("Сауле", "saule", true),
    ("Анна", "anna", true),
    ("Ольга", "olga", true),
    ("Полина", "polina", true),
    ("Айдос", "aidos", false),
    ("Болат", "bolat", false),
    ("Ержан", "yerzhan", false),
    ("Нурлан", "nurlan", false),
    ("Тимур", "timur", false),
    ("Артём", "artyom", false),
    ("Семён", "semyon", false),
    ("Пётр", "pyotr", false),
];

/// Without the ending of a woman's.
const SURNAMES: [(&str, &str); 12] = [
    ("Сапаров", "saparov"),
    ("Нурланов", "nurlanov"),
    ("Ахметов", "akhmetov"),
    ("Жумабаев", "zhumabaev"),
    ("Касымов", "kasymov"),
    ("Оразов", "orazov"),
    ("Ёлкин", "yolkin"),
    ("Соловьёв", "solovyov"),
    ("Климов", "klimov"),
    ("Журавлёв", "zhuravlyov"),
    ("Тулегенов", "tulegenov"),
    ("Сейтов", "seitov"),
];

#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) name: String,
    pub(super) email: String,
    pub(super) phone: String,
}

impl Person {
    /// The number makes e-mail and phone unique within the `domain`.
    pub(super) fn invent(rng: &mut SmallRng, domain: &str, number: usize) -> Self {
        let (given, given_latin, is_woman) = *NAMES.choose(rng).unwrap_or(&NAMES[0]);
        let (family, family_latin) = *SURNAMES.choose(rng).unwrap_or(&SURNAMES[0]);
        let ending = if is_woman { ("а", "a") } else { ("", "") };
        let area = if domain == "crowd" { 700 } else { 701 };
        let salt: u32 = rng.random_range(10..100);
        Self {
            name: format!("{given} {family}{}", ending.0),
            email: format!(
                "{given_latin}.{family_latin}{}.{number:06}@{domain}.example",
                ending.1
            ),
            phone: format!("+7 {area} {salt}{number:05}"),
        }
    }
}
