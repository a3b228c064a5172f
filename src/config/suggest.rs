//! Finds unknown variables that look like one of our settings.

use std::collections::BTreeSet;

use super::{hooks, reader::Reader, variable};
use crate::domain::Wording;

/// How sure we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    /// Shares its words with one of ours: `SUPABASE_SERVICE_KEY`. May belong to another program.
    Related,
    /// A slip of the fingers, or another prefix: `AMOCRM_SUBDOMIAN`, `AMO_SUBDOMAIN`.
    Misspelt,
}

/// Says for each such variable which of the settings that were read it looks like.
///
/// A misspelt name is a problem if our setting is not set: `SETTLE_DELEY` does not mean that the default is wanted. A
/// related name is a hint in the problem of a missing setting, and else a warning.
pub(super) fn point_out(reader: &mut Reader<'_>) {
    let known = [variable::NAMES, hooks::NAMES].concat();
    for name in reader.names() {
        if known.contains(&name) {
            continue;
        }
        let Some((likeness, meant)) = nearest(name, &reader.asked) else {
            continue;
        };
        let missing = reader
            .problems
            .iter_mut()
            .find(|problem| problem.variable == meant && problem.is_missing);
        if let Some(problem) = missing {
            problem.wrong = Wording::new(
                format!(
                    "{}; {name} is, which is not a setting of this program: was this meant?",
                    problem.wrong.english
                ),
                format!(
                    "{}; задана {name}, такой настройки нет: имелась в виду эта?",
                    problem.wrong.russian
                ),
            );
        } else if likeness == Likeness::Misspelt && reader.text(meant).is_none() {
            let wrong = Wording::new(
                format!("is not a setting of this program: was {meant} meant?"),
                format!("такой настройки нет: имелась в виду {meant}?"),
            );
            reader.note(name, wrong, false);
        } else {
            reader.warn(Wording::new(
                format!("{name} is not a setting of this program and is not used; {meant} is"),
                format!(
                    "{name} — не настройка этой программы и не используется; используется {meant}"
                ),
            ));
        }
    }
}

/// A setting for tests is never what a person meant.
fn nearest(name: &str, ours: &[&'static str]) -> Option<(Likeness, &'static str)> {
    ours.iter()
        .filter(|known| !hooks::NAMES.contains(known))
        .filter_map(|known| Some((likeness(name, known)?, distance(name, known), *known)))
        .max_by_key(|(likeness, distance, _)| (*likeness, std::cmp::Reverse(*distance)))
        .map(|(likeness, _, known)| (likeness, known))
}

fn distance(name: &str, known: &str) -> usize {
    strsim::damerau_levenshtein(&name.to_uppercase(), known)
}

fn likeness(name: &str, known: &str) -> Option<Likeness> {
    // Short names differ from each other by little: `HOST` is no slip of `PORT`.
    let slips = (known.len() / 5).min(3);
    if distance(name, known) <= slips {
        return Some(Likeness::Misspelt);
    }
    let upper = name.to_uppercase();
    let known = Words::after_prefix(known);
    // `TRIPWIRE_PIPELINE_ID` may have a prefix of ours, or lack it.
    [Words::after_prefix(&upper), Words::all(&upper)]
        .iter()
        .filter_map(|name| name.likeness(&known))
        .max()
}

/// A name taken apart: the prefix that a whole family shares, and the rest.
struct Words<'a> {
    prefix: &'a str,
    words: BTreeSet<&'a str>,
}

impl<'a> Words<'a> {
    fn all(name: &'a str) -> Self {
        let words = name.split('_').filter(|word| !word.is_empty()).collect();
        Self { prefix: "", words }
    }

    fn after_prefix(name: &'a str) -> Self {
        let (prefix, rest) = match name.split_once('_') {
            Some(("AMO" | "AMOCRM", rest)) => ("AMOCRM", rest),
            Some((prefix @ ("SUPABASE" | "TRIPWIRE" | "TELEGRAM" | "WEBHOOK"), rest)) => {
                (prefix, rest)
            }
            _ => ("", name),
        };
        Self {
            prefix,
            ..Self::all(rest)
        }
    }

    fn likeness(&self, known: &Self) -> Option<Likeness> {
        let is_same_family = !self.prefix.is_empty() && self.prefix == known.prefix;
        if self.words == known.words {
            return match self.words.len() {
                _ if is_same_family => Some(Likeness::Misspelt),
                0 | 1 => None,
                // `SUPABASE_ACCESS_TOKEN` is for Supabase's own tools, and not for amoCRM.
                _ if !self.prefix.is_empty() && !known.prefix.is_empty() => None,
                // A `BASE_URL` may belong to another program.
                2 if self.prefix.is_empty() => Some(Likeness::Related),
                _ => Some(Likeness::Misspelt),
            };
        }
        let is_part = self.words.is_subset(&known.words) || known.words.is_subset(&self.words);
        (is_same_family && is_part && !self.words.is_empty()).then_some(Likeness::Related)
    }
}
