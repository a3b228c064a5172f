//! What the command line says of itself, in the reader's language: help, and mistakes in its use.
//!
//! The English texts are the doc comments of the commands and arguments. The Russian ones are here, in one table, with the
//! words that clap itself adds.

use clap::{
    Arg, Command,
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{config, words::Lang};

mod ru;

/// The command line with its texts in this language.
pub(super) fn in_lang(command: Command, lang: Lang) -> Command {
    let command =
        command.mut_subcommand("serve", |serve| serve.after_long_help(config::help(lang)));
    match lang {
        Lang::English => command,
        Lang::Russian => in_russian(command, ""),
    }
}

/// `name`: of the subcommand; empty for the program itself.
fn in_russian(command: Command, name: &str) -> Command {
    let command = match ru::about(name) {
        Some(about) => command.about(about),
        None => command,
    };
    command
        .mut_args(|arg| arg_in_russian(arg, name))
        .mut_subcommands(|sub| {
            let name = sub.get_name().to_owned();
            in_russian(sub, &name)
        })
}

fn arg_in_russian(arg: Arg, command: &str) -> Arg {
    let id = arg.get_id().to_string();
    let arg = match ru::help(command, &id) {
        Some(help) => arg.help(help),
        None => arg,
    };
    let value = arg.get_action().takes_values().then(|| ru::value(&arg));
    match value.flatten() {
        Some(value) => arg.value_name(value),
        None => arg,
    }
}

/// What clap has to print: help, the version, or a mistake.
pub(super) fn told(error: &clap::Error, lang: Lang) -> String {
    let by_clap = error.render().to_string();
    match lang {
        Lang::English => by_clap,
        Lang::Russian => mistake(error).unwrap_or_else(|| ru::words_of_clap(&by_clap)),
    }
}

/// `None`: it is no mistake, or one that these commands do not produce.
fn mistake(error: &clap::Error) -> Option<String> {
    let arg = || text(error, ContextKind::InvalidArg);
    let wrong = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let given = text(error, ContextKind::InvalidSubcommand)?;
            let meant = suggestion(error, ContextKind::SuggestedSubcommand);
            format!("команды «{given}» нет{meant}")
        }
        ErrorKind::UnknownArgument => {
            let meant = suggestion(error, ContextKind::SuggestedArg);
            format!("параметр «{}» здесь не принимается{meant}", arg()?)
        }
        ErrorKind::MissingRequiredArgument => format!("не указано: {}", arg()?),
        ErrorKind::ArgumentConflict => match text(error, ContextKind::PriorArg) {
            Some(other) if Some(&other) != arg().as_ref() => {
                format!("«{}» нельзя указать вместе с «{other}»", arg()?)
            }
            _ => format!("«{}» можно указать только один раз", arg()?),
        },
        ErrorKind::InvalidValue => {
            let valid = text(error, ContextKind::ValidValue)
                .map(|valid| format!("; возможные значения: {valid}"))
                .unwrap_or_default();
            match text(error, ContextKind::InvalidValue) {
                Some(value) if !value.is_empty() => {
                    let meant = suggestion(error, ContextKind::SuggestedValue);
                    format!(
                        "значение «{value}» не подходит для «{}»{valid}{meant}",
                        arg()?
                    )
                }
                _ => format!("у «{}» не указано значение{valid}", arg()?),
            }
        }
        ErrorKind::ValueValidation => {
            let arg = arg()?;
            let value = text(error, ContextKind::InvalidValue)?;
            let wanted = ru::wanted(&arg);
            format!("значение «{value}» не подходит для «{arg}»: {wanted}")
        }
        ErrorKind::TooManyValues => {
            let value = text(error, ContextKind::InvalidValue)?;
            format!("лишнее значение «{value}» у «{}»", arg()?)
        }
        ErrorKind::InvalidUtf8 => "в командной строке есть текст не в UTF-8".to_owned(),
        _ => return None,
    };
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => plain(usage),
        _ => String::new(),
    };
    let usage = ru::words_of_clap(&usage);
    let usage = Some(usage.trim()).filter(|usage| !usage.is_empty());
    let usage = usage
        .map(|usage| format!("\n\n{usage}"))
        .unwrap_or_default();
    Some(format!("ошибка: {wrong}{usage}\n\nСправка: --help\n"))
}

fn plain(text: &StyledStr) -> String {
    text.to_string()
}

/// Of several the last one is the nearest.
fn suggestion(error: &clap::Error, kind: ContextKind) -> String {
    let meant = match error.get(kind) {
        Some(ContextValue::Strings(texts)) => texts.last().cloned(),
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let meant = meant.map(|meant| format!("; возможно, имелось в виду «{meant}»"));
    meant.unwrap_or_default()
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) if !texts.is_empty() => Some(texts.join(", ")),
        ContextValue::StyledStr(text) => Some(plain(text)),
        ContextValue::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    /// Latin words that a Russian text may have: names of settings, commands and things outside.
    const NAMES: [&str; 26] = [
        "amocrm",
        "supabase",
        "postgrest",
        "json",
        "sql",
        "vault",
        "jwt",
        "e-mail",
        "http",
        "https",
        "url",
        "id",
        "pem",
        "pkcs",
        "jwk",
        "es256",
        "webhooks",
        "telegram",
        "utc",
        "iana",
        "api",
        "rfc",
        "enter",
        "h",
        "v",
        "n",
    ];

    fn command(lang: Lang) -> Command {
        let mut command = in_lang(Cli::command(), lang);
        command.build();
        command
    }

    fn all(command: &Command) -> Vec<&Command> {
        std::iter::once(command)
            .chain(command.get_subcommands().flat_map(all))
            .collect()
    }

    #[test]
    fn every_command_and_argument_has_its_text_in_both_languages() {
        let mut missing = Vec::new();
        let english = Cli::command();
        for command in all(&english) {
            let name = command.get_name();
            let key = if name == "tripwire-sync" { "" } else { name };
            if command.get_about().is_none() || ru::about(key).is_none() {
                missing.push(name.to_owned());
            }
            for arg in command.get_arguments() {
                let id = arg.get_id().as_str();
                if arg.get_help().is_none() || ru::help(key, id).is_none() {
                    missing.push(format!("{name} {id}"));
                }
                let takes_a_value = arg.get_action().takes_values();
                if takes_a_value && ru::value(arg).is_none() {
                    missing.push(format!("{name} {id}: the value's name"));
                }
            }
        }
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn no_english_word_is_left_in_the_russian_help() {
        let names: Vec<String> = all(&command(Lang::Russian))
            .iter()
            .map(|command| command.get_name().to_owned())
            .collect();
        for name in &names {
            let args: &[&str] = match name.as_str() {
                "tripwire-sync" => &["tripwire-sync", "--help"],
                "help" => continue,
                name => &["tripwire-sync", name, "--help"],
            };
            let error = command(Lang::Russian)
                .try_get_matches_from(args)
                .unwrap_err();
            let help = told(&error, Lang::Russian);
            // What is quoted, and the settings with their examples, are the same in every language.
            let help = help.split("Настройки —").next().unwrap();
            let quoted = help.split('`').step_by(2).collect::<String>();
            let foreign: Vec<&str> = quoted
                .split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'))
                .filter(|word| word.chars().any(|c| c.is_ascii_alphabetic()))
                .filter(|word| !word.chars().any(|c| c.is_alphabetic() && !c.is_ascii()))
                .filter(|word| !word.starts_with("--") && !names.contains(&(*word).to_owned()))
                .filter(|word| !word.chars().any(|c| c == '_' || c.is_ascii_digit()))
                .filter(|word| !NAMES.contains(&word.trim_matches('-').to_lowercase().as_str()))
                .filter(|word| {
                    !["pending", "claimed", "waiting", "parked", "done", "undone"].contains(word)
                })
                .collect();
            assert!(foreign.is_empty(), "{name}: {foreign:?}\n{help}");
        }
    }

    #[test]
    fn mistakes_are_told_in_russian() {
        for (args, told_first) in [
            (
                &["servee"][..],
                "ошибка: команды «servee» нет; возможно, имелось в виду «serve»",
            ),
            (
                &["entries", "--stat"],
                "ошибка: параметр «--stat» здесь не принимается; возможно, имелось в виду «--state»",
            ),
            (&["serve", "x"], "ошибка: параметр «x» здесь не принимается"),
            (
                &["entries", "--state", "lost"],
                "ошибка: значение «lost» не подходит для «--state <СОСТОЯНИЕ>»; возможные значения: pending, claimed",
            ),
            (
                &["entries", "--state"],
                "ошибка: у «--state <СОСТОЯНИЕ>» не указано значение; возможные значения: pending",
            ),
            (
                &["entries", "--limit", "x"],
                "ошибка: значение «x» не подходит для «--limit <ЧИСЛО>»: нужно целое число",
            ),
            (
                &["backfill", "--since", "x"],
                "ошибка: значение «x» не подходит для «--since <ДАТА>»: нужна дата (2026-01-31)",
            ),
            (
                &["jwt", "--expires-in", "1s"],
                "ошибка: значение «1s» не подходит для «--expires-in <СРОК>»: нужен срок",
            ),
            (&["park"], "ошибка: не указано: <СТРОКА>"),
            (
                &["park", "x"],
                "ошибка: значение «x» не подходит для «<СТРОКА>...»: нужен номер строки (UUID)",
            ),
            (&["explain"], "ошибка: не указано: <СТРОКА ИЛИ E-MAIL>"),
            (
                &["check", "--json", "--json"],
                "ошибка: «--json» можно указать только один раз",
            ),
            (
                &["retry", "--parked", "2cba3ef0-3ffc-4f46-9bcc-dc64fa57d4ff"],
                "ошибка: «--parked» нельзя указать вместе с «[СТРОКА]...»",
            ),
            (
                &["check", "--json=1"],
                "ошибка: лишнее значение «1» у «--json»",
            ),
        ] {
            let args = std::iter::once("tripwire-sync").chain(args.iter().copied());
            let error = command(Lang::Russian)
                .try_get_matches_from(args)
                .unwrap_err();
            assert!(error.use_stderr());
            let told = told(&error, Lang::Russian);
            assert!(told.starts_with(told_first), "{told}");
            assert!(
                !told.contains("Usage") && !told.contains("OPTIONS"),
                "{told}"
            );
            assert!(told.ends_with("\n\nСправка: --help\n"), "{told}");
        }
    }

    #[test]
    fn the_english_reader_gets_the_words_of_the_sources() {
        let args = ["tripwire-sync", "servee"];
        let error = command(Lang::English)
            .try_get_matches_from(args)
            .unwrap_err();
        assert_eq!(told(&error, Lang::English), error.render().to_string());
    }
}
