//! An `.env` file that is changed: comments, order and lines of other programs stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::Path,
};

use super::{ConfigErrors, GROUPS, Setting, Unset, environment};
use crate::domain::{Lang, Wording};

/// The text of a file, and what the service reads in it.
#[derive(Clone)]
pub struct EnvFile {
    text: String,
    values: BTreeMap<String, String>,
}

impl std::fmt::Debug for EnvFile {
    /// Names alone: most values are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl EnvFile {
    /// `None`: there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>, ConfigErrors> {
        let text = environment::text_of(path)?;
        text.map(|text| Self::parse(text, path)).transpose()
    }

    fn parse(text: String, path: &Path) -> Result<Self, ConfigErrors> {
        let values = environment::parse(path, &text)?;
        Ok(Self { text, values })
    }

    /// Every setting with its meaning, and no value.
    #[must_use]
    pub fn empty(lang: Lang) -> Self {
        let head = lang.pick(
            "The settings of tripwire-sync. A line `#NAME=value` shows the default. The file holds secrets.",
            "Настройки tripwire-sync. Строка `#ИМЯ=значение` показывает значение по умолчанию. В файле секреты.",
        );
        let text = format!("# {head}\n{}", settings_with_meanings(lang));
        // A test reads it.
        let values = environment::parse(Path::new(environment::FILE), &text).unwrap_or_default();
        Self { text, values }
    }

    /// An empty value counts as none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }

    #[must_use]
    pub fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The file with these values. Fails, rather than spoil a file of a shape that is not understood.
    pub fn with(&self, changes: &BTreeMap<String, String>) -> Result<Self, ConfigErrors> {
        let path = Path::new(environment::FILE);
        let unsafe_to_change = || {
            let wrong = Wording::fixed(
                "is written in a way that cannot be changed safely: change it by hand",
                "файл записан так, что изменить его безопасно нельзя: измените его вручную",
            );
            environment::unreadable(path, wrong)
        };
        let after = Self::parse(change(&self.text, changes), path)?;
        let mut wanted = self.values.clone();
        wanted.extend(
            changes
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        if after.values == wanted {
            Ok(after)
        } else {
            Err(unsafe_to_change())
        }
    }

    /// Replaces the file at once: a reader sees the former or the new one. It keeps its owner, and no other account may read it.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        // A symbolic link stays one.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            .prefix(".env.")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(folder)?;
        file.write_all(self.text.as_bytes())?;
        if let Ok(former) = fs::metadata(&path) {
            let ours = file.as_file().metadata()?;
            if (former.uid(), former.gid()) != (ours.uid(), ours.gid()) {
                fchown(file.as_file(), Some(former.uid()), Some(former.gid()))?;
            }
        }
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()
    }
}

/// What follows the head of `.env.example`.
#[must_use]
pub fn settings_with_meanings(lang: Lang) -> String {
    let mut text = String::new();
    for group in GROUPS {
        // Writing to a string does not fail.
        let _ = write!(text, "\n# --- {} ---\n\n", group.title.in_lang(lang));
        for Setting {
            name,
            unset,
            meaning,
            ..
        } in group.settings
        {
            let meaning = meaning.in_lang(lang);
            let _ = match unset {
                Unset::Needed => write!(text, "# {meaning}\n{name}=\n"),
                Unset::Off => write!(text, "# {meaning}\n#{name}=\n"),
                Unset::Is(value) | Unset::Long(value) => {
                    write!(text, "# {meaning}\n#{name}={value}\n")
                }
            };
        }
    }
    text
}

/// Gives each name its value: where the name is set, else below its comment `#NAME=`, else at the end.
fn change(text: &str, changes: &BTreeMap<String, String>) -> String {
    let lines = lines(text);
    let set: BTreeSet<&str> = lines.iter().filter_map(|line| line.name()).collect();
    let mut left: BTreeSet<&str> = changes.keys().map(String::as_str).collect();
    let mut after = String::with_capacity(text.len());
    for line in lines {
        if let Some((name, value)) = line.name().and_then(|it| changes.get_key_value(it)) {
            left.remove(name.as_str());
            if line.is_exported() {
                after.push_str("export ");
            }
            assign(&mut after, name, value);
            if let Some(comment) = line.comment() {
                after.extend([" ", comment]);
            }
            after.push('\n');
            continue;
        }
        after.push_str(line.text);
        let below = line.commented_name().filter(|name| !set.contains(name));
        if let Some(name) = below
            && left.remove(name)
        {
            add_line(&mut after, name, &changes[name]);
        }
    }
    for name in left {
        add_line(&mut after, name, &changes[name]);
    }
    after
}

fn add_line(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    assign(text, name, value);
    text.push('\n');
}

fn assign(text: &mut String, name: &str, value: &str) {
    text.extend([name, "=", &quoted(value)]);
}

/// A value as the service, `docker --env-file`, systemd and Fly.io read it, as long as it has no characters that need quotes.
/// Docker takes quotes as a part of the value. Fly.io takes off double quotes, and reads no escapes.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=~".contains(c);
    if value.chars().all(is_plain) {
        return value.to_owned();
    }
    let has_escapes = value.contains(['"', '\\', '$', '\n', '\r']);
    // To `dotenvy` a backslash before the last quote is the beginning of another line.
    if has_escapes && !value.contains(['\'', '\\', '\n', '\r']) {
        return format!("'{value}'");
    }
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '"' | '\\' | '$' => quoted.extend(['\\', c]),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A line, or several if a value between quotes has line breaks. Its end is a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line<'a> {
    text: &'a str,
    /// Where a comment begins.
    comment: Option<usize>,
}

impl<'a> Line<'a> {
    /// The variable that is set here.
    fn name(self) -> Option<&'a str> {
        let text = self.text.trim_start();
        let text = match text.strip_prefix("export") {
            Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
            _ => text,
        };
        let (name, _) = text.split_once('=')?;
        Some(name.trim_end()).filter(|name| is_name(name))
    }

    fn is_exported(self) -> bool {
        self.text.trim_start().starts_with("export") && self.name() != Some("export")
    }

    /// The variable of a line `#NAME=value`.
    fn commented_name(self) -> Option<&'a str> {
        let (name, _) = self.text.strip_prefix('#')?.split_once('=')?;
        Some(name).filter(|name| is_name(name))
    }

    fn comment(self) -> Option<&'a str> {
        Some(self.text[self.comment?..].trim_end())
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let (mut start, mut comment) = (0, None);
    let (mut in_single, mut in_double) = (false, false);
    let (mut after_backslash, mut after_blank) = (false, true);
    for (at, c) in text.char_indices() {
        let is_escaped = std::mem::take(&mut after_backslash);
        if c == '\n' && !in_single && !in_double {
            lines.push(Line {
                text: &text[start..=at],
                comment,
            });
            (start, comment, after_blank) = (at + 1, None, true);
            continue;
        }
        if comment.is_some() {
            continue;
        }
        match c {
            _ if is_escaped => {}
            '\'' if !in_double => in_single = !in_single,
            '"' if !in_single => in_double = !in_double,
            '\\' if !in_single => after_backslash = true,
            '#' if after_blank && !in_single && !in_double => comment = Some(at),
            _ => {}
        }
        after_blank = c.is_whitespace() && !is_escaped;
    }
    if start < text.len() {
        lines.push(Line {
            text: &text[start..],
            comment,
        });
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> EnvFile {
        EnvFile::parse(text.to_owned(), Path::new(".env")).unwrap()
    }

    fn changes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        pairs.collect()
    }

    #[test]
    fn a_value_goes_where_its_name_stands() {
        for (before, after) in [
            ("", "A=1\n"),
            ("B=2", "B=2\nA=1\n"),
            ("# a\nA=0\nB=2\n", "# a\nA=1\nB=2\n"),
            (
                "  export A = '0'  # why\r\nB=2\n",
                "export A=1 # why\nB=2\n",
            ),
            (
                "# what A means\n#A=7\n\nB=2\n",
                "# what A means\n#A=7\nA=1\n\nB=2\n",
            ),
            ("#A=7\nA=0\n", "#A=7\nA=1\n"),
            ("A=0\nA=3\n", "A=1\nA=1\n"),
            ("A=\"0\n0\"\nB=2", "A=1\nB=2"),
            ("B='x\nA=0\ny'\n", "B='x\nA=0\ny'\nA=1\n"),
            ("# it's\nA=0\n# \"\n", "# it's\nA=1\n# \"\n"),
            ("A=0#1\n", "A=1\n"),
        ] {
            let file = parse(before).with(&changes(&[("A", "1")])).unwrap();
            assert_eq!(file.text(), after, "{before}");
            assert_eq!(file.get("A"), Some("1"));
        }
    }

    #[test]
    fn a_new_file_has_each_setting_once_below_its_meaning() {
        let russian = EnvFile::empty(Lang::Russian);
        assert_eq!(russian.values(), EnvFile::empty(Lang::English).values());
        assert!(!russian.values().is_empty());
        let file = EnvFile::empty(Lang::English);
        let file = file.with(&changes(&[
            ("AMOCRM_SUBDOMAIN", "school"),
            ("DIGEST", "off"),
        ]));
        let file = file.unwrap();
        assert!(
            file.text()
                .contains("`.amocrm.ru`\nAMOCRM_SUBDOMAIN=school\n")
        );
        assert!(file.text().contains("\n#DIGEST=weekly\nDIGEST=off\n"));
        assert_eq!(file.get("DIGEST"), Some("off"));
        assert_eq!(file.get("WEBHOOK_SECRET"), None);
    }

    #[test]
    fn a_file_is_replaced_whole_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real"), folder.path().join(".env"));
        fs::write(&path, "A=0\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let file = EnvFile::read(&link).unwrap().unwrap();
        file.with(&changes(&[("A", "1")]))
            .unwrap()
            .save(&link)
            .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "A=1\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            2,
            "no file is left behind"
        );
    }

    fn value() -> impl Strategy<Value = String> {
        let special = prop::sample::select(vec![
            " ", "#", "$", "\"", "'", "\\", "\n", "\r", "=", "${HOME}", "\t", "я", "\u{feff}", "n",
        ]);
        let any = "[^\0]".prop_map(String::from);
        let piece = prop_oneof![special.prop_map(str::to_owned), any];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_back(value in value(), other in value()) {
            let file = parse("# it's a \"file\"\nC='3'\n");
            let wanted = changes(&[("A", &value), ("B", &other)]);
            let file = file.with(&wanted).unwrap();
            let again = file.with(&changes(&[("B", &value), ("C", &other)])).unwrap();
            prop_assert_eq!(&again.values["A"], &value);
            prop_assert_eq!(&again.values["B"], &value);
            prop_assert_eq!(&again.values["C"], &other);
        }
    }
}
