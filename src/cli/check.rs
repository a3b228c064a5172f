//! `check`: every setting, both neighbours and Telegram, one line each, with what to do about it.

use clap::Args;
use serde_json::{Value, json};

use self::findings::Findings;
use super::{CommandError, Outcome, terminal::Terminal};
use crate::{app::Settings, config::Config, inbox::Inbox};

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
    findings.good(
        "settings",
        terminal.pick("all of sound form", "у всех правильный вид"),
    );
    for warning in &config.warnings {
        findings.warn("settings", warning.in_lang(terminal.lang()).to_owned());
    }
    for (file, mode) in Inbox::open_to_others(&settings.inbox_path) {
        let text = terminal.pick(
            "others may read this file: chmod 600",
            "этот файл доступен другим пользователям машины: chmod 600",
        );
        findings.warn("inbox", format!("{text} {} ({mode:04o})", file.display()));
    }
    disk::check(&settings.inbox_path, &mut findings);
    supabase::check(&config, &settings, !options.no_event, &mut findings).await?;
    if let Some(telegram) = &settings.telegram {
        telegram::check(telegram, &mut findings).await?;
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
    for line in lines {
        terminal.say(&format!(
            "{:<7}  {:<9}  {}",
            line.mark.as_str(),
            line.what,
            line.text
        ))?;
    }
    Ok(())
}
