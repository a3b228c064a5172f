//! `check`: every setting, both neighbours and Telegram, one line each, with what to do about it.

use clap::Args;
use serde_json::{Value, json};

use self::findings::{Findings, Line};

use super::{
    CommandError, Outcome,
    terminal::{Terminal, aligned},
};
use crate::{app::Settings, config::Config, inbox::Inbox, words::Lang};

mod amocrm;
mod disk;
mod doctor;
mod event;
pub(super) mod findings;
pub(super) mod keys;
mod probe;
mod supabase;
mod telegram;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Do not send a test event from the database to the service
    #[arg(long)]
    no_event: bool,
    /// Instead of all that: what this amoCRM does where its documents are silent, by at most ten reading requests.
    /// The report names no people and no ids
    #[arg(long, conflicts_with = "no_event")]
    probe: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: &Options, terminal: &mut Terminal) -> Outcome {
    if options.probe {
        return probe::run(options.json, terminal).await;
    }
    let config = Config::load(false)?;
    let settings = Settings::from_config(&config);
    let mut findings = Findings::new(terminal.reader().clone());
    let mut section = findings.on("settings");
    section.good("all of sound form", "у всех правильный вид");
    for warning in &config.warnings {
        section.warn(&*warning.english, &*warning.russian);
    }
    for (file, mode) in Inbox::open_to_others(&settings.inbox_path) {
        let file = file.display();
        findings.on("inbox").warn(
            format!("others may read this file: chmod 600 {file} ({mode:04o})"),
            format!(
                "этот файл доступен другим пользователям машины: chmod 600 {file} ({mode:04o})"
            ),
        );
    }
    disk::check(&settings.inbox_path, &mut findings);
    supabase::check(&config, &settings, !options.no_event, &mut findings).await?;
    if let Some(telegram) = &settings.telegram {
        telegram::check(&telegram.bot, &mut findings).await?;
    }
    amocrm::check(&config, settings, &mut findings, terminal).await?;
    print(&findings, options.json, terminal)?;
    if findings.is_bad() {
        Err(CommandError::Told)
    } else {
        Ok(())
    }
}

fn print(findings: &Findings, as_json: bool, terminal: &mut Terminal) -> Outcome {
    let lines = &findings.lines;
    if as_json {
        let list: Vec<Value> = lines
            .iter()
            .map(
                |line| json!({ "what": line.what, "state": line.mark.as_str(), "text": line.text }),
            )
            .collect();
        return Ok(terminal.say(&serde_json::to_string_pretty(&list)?)?);
    }
    for line in in_columns(lines, terminal.lang()) {
        terminal.say(&line)?;
    }
    Ok(())
}

fn in_columns(lines: &[Line], lang: Lang) -> Vec<String> {
    let cells = lines
        .iter()
        .map(|line| [line.mark.word(lang), line.about(lang), &line.text]);
    // The columns stand where they stand in most checks.
    aligned(&cells.collect::<Vec<_>>(), &[7, 9])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Reader;

    #[test]
    fn marks_and_names_are_in_the_readers_language() {
        let mut findings = Findings::new(Reader::in_utc(Lang::English));
        findings.on("stage").good("S", "S");
        findings.on("pg_net").warn("P", "P");
        findings.on("lease").bad("L", "L");
        assert_eq!(
            in_columns(&findings.lines, Lang::English),
            [
                "ok       stage      S",
                "warning  pg_net     P",
                "failed   lease      L"
            ]
        );
        assert_eq!(
            in_columns(&findings.lines, Lang::Russian),
            [
                "в порядке  этап               S",
                "внимание   pg_net             P",
                "ошибка     право на отправку  L"
            ]
        );
    }
}
