//! Settings for tests. The program that is deployed knows none of them.

use super::reader::{Absent, Reader};
use crate::domain::{DieAt, HangAt, TestHooks, Wording};

const TIME_SCALE: &str = "TRIPWIRE_TIME_SCALE";
const DIE_AT: &str = "TRIPWIRE_DIE_AT";
const HANG_AT: &str = "TRIPWIRE_HANG_AT";

/// The names that this build reads.
pub(super) const NAMES: &[&str] = if cfg!(feature = "sandbox") {
    &[TIME_SCALE, DIE_AT, HANG_AT]
} else {
    &[]
};

pub(super) fn read(reader: &mut Reader<'_>) -> Result<TestHooks, Absent> {
    if NAMES.is_empty() {
        return Ok(TestHooks::default());
    }
    let time_scale = reader.or(TIME_SCALE, time_scale, 1.0);
    let die_at = reader.optional(DIE_AT, die_at);
    let hang_at = reader.optional(HANG_AT, hang_at);
    Ok(TestHooks {
        time_scale: time_scale?,
        die_at: die_at?,
        hang_at: hang_at?,
    })
}

fn time_scale(text: &str) -> Result<f64, Wording> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= 1.0 => Ok(scale),
        _ => Err(Wording::fixed(
            "is not a number above 0, at most 1",
            "нужно число больше 0 и не больше 1",
        )),
    }
}

fn die_at(text: &str) -> Result<DieAt, Wording> {
    let parsed = text.split_once(':').and_then(|(when, commit)| {
        let committed = match when {
            "before" => false,
            "after" => true,
            _ => return None,
        };
        Some(DieAt {
            commit: commit.parse().ok().filter(|commit| *commit > 0)?,
            committed,
        })
    });
    parsed.ok_or(Wording::fixed(
        "is not before:N or after:N",
        "нужно before:N или after:N",
    ))
}

fn hang_at(text: &str) -> Result<HangAt, Wording> {
    match text {
        "writer" => Ok(HangAt::Writer),
        "engine" => Ok(HangAt::Engine),
        _ => Err(Wording::fixed(
            "is not writer or engine",
            "нужно writer или engine",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hook_is_set_by_its_variable() {
        let vars = [
            (TIME_SCALE, "0.01"),
            (DIE_AT, "after:3"),
            (HANG_AT, "writer"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let set = TestHooks {
            time_scale: 0.01,
            die_at: Some(DieAt {
                commit: 3,
                committed: true,
            }),
            hang_at: Some(HangAt::Writer),
        };
        for (vars, expected) in [(&vars[..], set), (&[], TestHooks::default())] {
            let vars = vars.iter().cloned().collect();
            assert_eq!(read(&mut Reader::new(&vars)), Ok(expected));
        }
    }

    #[test]
    fn a_hook_of_another_form_is_a_problem() {
        for (name, values) in [
            (TIME_SCALE, &["0", "-1", "1.01", "NaN", "inf", "fast"][..]),
            (DIE_AT, &["3", "before", "after:0", "after:x", "during:1"]),
            (HANG_AT, &["Writer", "sweep", "engine,writer"]),
        ] {
            for value in values {
                let vars = [(name.to_owned(), (*value).to_owned())].into();
                let mut reader = Reader::new(&vars);
                assert_eq!(read(&mut reader), Err(Absent), "{name}={value}");
                assert_eq!(reader.problems[0].variable, name, "{value}");
            }
        }
    }
}
