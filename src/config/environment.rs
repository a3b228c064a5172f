//! The variables of the process, over those of an `.env` file in the current folder.

use std::{
    collections::BTreeMap, env, ffi::OsStr, fs, io, os::unix::fs::PermissionsExt, path::Path,
};

use super::reader::{ConfigErrors, Problem};
use crate::domain::Wording;

pub(super) const FILE: &str = ".env";

/// The permission bits of a file's group and of other accounts.
const OF_OTHERS: u32 = 0o077;

pub(super) fn variables() -> Result<BTreeMap<String, String>, ConfigErrors> {
    // What is not Unicode fails the check of form that follows.
    let text = |os: &OsStr| os.to_string_lossy().into_owned();
    let process = env::vars_os().map(|(name, value)| (text(&name), text(&value)));
    Ok(over(process, file(Path::new(FILE))?))
}

/// The process's value wins over the file's, unless it is empty: an empty variable counts as not set.
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

/// The file may be absent.
pub(super) fn file(path: &Path) -> Result<BTreeMap<String, String>, ConfigErrors> {
    let text = text_of(path)?;
    text.map_or_else(|| Ok(BTreeMap::new()), |text| parse(path, &text))
}

/// `None`: there is no such file.
pub(super) fn text_of(path: &Path) -> Result<Option<String>, ConfigErrors> {
    match fs::read(path) {
        Ok(bytes) => text(path, bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(_) => {
            let wrong = Wording::fixed("cannot be opened", "файл не открывается");
            Err(unreadable(path, wrong))
        }
    }
}

/// Of two lines with one name the first counts, as in other readers of such files. A `$` has no special meaning.
pub(super) fn parse(path: &Path, text: &str) -> Result<BTreeMap<String, String>, ConfigErrors> {
    let mut vars = BTreeMap::new();
    let mut last = None;
    for line in dotenvy::from_read_iter(without_substitution(text).as_bytes()) {
        // The error quotes the line, which may hold a secret.
        let Ok((name, value)) = line else {
            let (place, in_russian) = match last {
                Some(name) => (format!("after {name}"), format!("после {name}")),
                None => ("at its beginning".to_owned(), "в начале".to_owned()),
            };
            let wrong = Wording::new(
                format!("has a line {place} that cannot be read: a value with spaces needs quotes"),
                format!(
                    "строку {in_russian} не удалось прочитать: значение с пробелами пишется в кавычках"
                ),
            );
            return Err(unreadable(path, wrong));
        };
        last = Some(name.clone());
        vars.entry(name).or_insert(value);
    }
    Ok(vars)
}

/// What is wrong with the rights of the settings' file.
pub(super) fn exposed() -> Option<Wording> {
    let mode = fs::metadata(FILE).ok()?.permissions().mode();
    exposed_by(mode)
}

/// By these rights of the file.
pub(super) fn exposed_by(mode: u32) -> Option<Wording> {
    let is_exposed = mode & OF_OTHERS != 0;
    is_exposed.then(|| {
        Wording::new(
            format!("{FILE} holds secrets and is open to other accounts of this machine: chmod 600 {FILE}"),
            format!("{FILE} хранит секреты и доступен другим пользователям этой машины: chmod 600 {FILE}"),
        )
    })
}

/// Editors on Windows put a byte order mark first, or write UTF-16.
fn text(path: &Path, bytes: Vec<u8>) -> Result<String, ConfigErrors> {
    let is_utf_16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
    if is_utf_16 || bytes.contains(&0) {
        let wrong = Wording::fixed(
            "is UTF-16: save it as UTF-8",
            "файл в UTF-16: сохраните его в UTF-8",
        );
        return Err(unreadable(path, wrong));
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| {
        let wrong = Wording::fixed(
            "is not UTF-8: save it as UTF-8",
            "файл не в UTF-8: сохраните его в UTF-8",
        );
        unreadable(path, wrong)
    })?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// Escapes each `$` for which `dotenvy` would substitute another variable's value: a token with a `$` in it would silently
/// lose its end. Removes comments: `dotenvy` takes an apostrophe in some of them for a quote.
fn without_substitution(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let (mut in_single, mut in_double, mut in_comment) = (false, false, false);
    let (mut after_backslash, mut after_blank) = (false, true);
    for c in text.chars() {
        if in_comment && c != '\n' {
            continue;
        }
        in_comment = false;
        let is_escaped = std::mem::take(&mut after_backslash);
        match c {
            _ if is_escaped => {}
            '\'' if !in_double => in_single = !in_single,
            '"' if !in_single => in_double = !in_double,
            '\\' if !in_single => after_backslash = true,
            '#' if after_blank && !in_single && !in_double => {
                in_comment = true;
                continue;
            }
            '$' if !in_single => escaped.push('\\'),
            _ => {}
        }
        escaped.push(c);
        after_blank = c.is_whitespace() && !is_escaped;
    }
    escaped
}

pub(super) fn unreadable(path: &Path, wrong: Wording) -> ConfigErrors {
    ConfigErrors {
        problems: vec![Problem {
            variable: path
                .file_name()
                .unwrap_or(path.as_os_str())
                .to_string_lossy()
                .into_owned(),
            wrong,
            example: Some(Wording::same("SYNC_SINCE=2026-12-01")),
            is_missing: false,
        }],
    }
}
