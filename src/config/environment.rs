//! The variables of the process, over those of an `.env` file in the current folder.

use std::{collections::BTreeMap, env, ffi::OsStr, path::Path};

use super::reader::{ConfigErrors, Problem};

pub(super) fn variables() -> Result<BTreeMap<String, String>, ConfigErrors> {
    // What is not Unicode fails the check of form that follows.
    let text = |os: &OsStr| os.to_string_lossy().into_owned();
    let process = env::vars_os().map(|(name, value)| (text(&name), text(&value)));
    Ok(over(process, file(Path::new(".env"))?))
}

/// The process wins, except where it has an empty value: that is not set.
pub(super) fn over(
    process: impl Iterator<Item = (String, String)>,
    file: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut vars = file;
    vars.extend(process.filter(|(_, value)| !value.trim().is_empty()));
    vars
}

/// The first of these that is set and not empty.
pub(super) fn first_of(names: &[&str]) -> Option<String> {
    let set = names
        .iter()
        .filter_map(|name| env::var_os(name)?.into_string().ok());
    set.into_iter().find(|value| !value.is_empty())
}

/// No file is no problem. Of two lines with one name the first counts, as in every reader of such files.
pub(super) fn file(path: &Path) -> Result<BTreeMap<String, String>, ConfigErrors> {
    let lines = match dotenvy::from_path_iter(path) {
        Ok(lines) => lines,
        Err(error) if error.not_found() => return Ok(BTreeMap::new()),
        Err(_) => return Err(unreadable("cannot be opened".to_owned())),
    };
    let mut vars = BTreeMap::new();
    let mut last = None;
    for line in lines {
        // The error quotes the line, which may hold a secret.
        let Ok((name, value)) = line else {
            let place = match last {
                Some(name) => format!("after {name}"),
                None => "at its beginning".to_owned(),
            };
            return Err(unreadable(format!(
                "has a line {place} that cannot be read: a value with spaces needs quotes"
            )));
        };
        last = Some(name.clone());
        vars.entry(name).or_insert(value);
    }
    Ok(vars)
}

fn unreadable(wrong: String) -> ConfigErrors {
    ConfigErrors {
        problems: vec![Problem {
            variable: ".env".to_owned(),
            wrong,
            example: "SYNC_SINCE=2026-12-01",
            is_missing: false,
        }],
    }
}
