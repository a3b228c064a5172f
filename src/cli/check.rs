//! `check`: every setting and both neighbours, one line each, with what to do about it.

use serde_json::{Value, json};

use super::{
    CommandError, Outcome, clock, entries::stored_halt, pipelines::REQUESTS_PER_SECOND,
    terminal::Terminal,
};
use crate::{
    amocrm::{self, AmoCrm, Target},
    app::Settings,
    config::{AmocrmConfig, Config},
    domain::{HaltCause, StageId},
    supabase::Supabase,
    sync::{Chain, decide::target_problem},
};

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    Warning,
    Bad,
}

impl Mark {
    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "failed",
        }
    }
}

#[derive(Debug)]
struct Line {
    what: &'static str,
    mark: Mark,
    text: String,
}

#[derive(Debug, Default)]
struct Findings(Vec<Line>);

impl Findings {
    fn good(&mut self, what: &'static str, text: impl Into<String>) {
        self.0.push(Line {
            what,
            mark: Mark::Good,
            text: text.into(),
        });
    }

    fn warn(&mut self, what: &'static str, text: impl Into<String>) {
        self.0.push(Line {
            what,
            mark: Mark::Warning,
            text: text.into(),
        });
    }

    fn bad(&mut self, what: &'static str, text: impl Into<String>) {
        self.0.push(Line {
            what,
            mark: Mark::Bad,
            text: text.into(),
        });
    }
}

pub(super) async fn run(as_json: bool, terminal: &mut Terminal) -> Outcome {
    let config = Config::load(false)?;
    let settings = Settings::from_config(&config);
    let mut findings = Findings::default();
    findings.good(
        "settings",
        terminal.pick("all of sound form", "все заданы верно по форме"),
    );
    for warning in &config.warnings {
        findings.warn("settings", warning.clone());
    }
    check_supabase(&settings, terminal, &mut findings).await?;
    check_amocrm(&config, settings, terminal, &mut findings).await?;
    print(&findings, as_json, terminal)?;
    if findings.0.iter().any(|line| line.mark == Mark::Bad) {
        Err(CommandError::Told)
    } else {
        Ok(())
    }
}

fn print(findings: &Findings, as_json: bool, terminal: &mut Terminal) -> Outcome {
    if as_json {
        let list: Vec<Value> = findings
            .0
            .iter()
            .map(
                |line| json!({ "what": line.what, "state": line.mark.as_str(), "text": line.text }),
            )
            .collect();
        return Ok(terminal.say(&serde_json::to_string_pretty(&list)?)?);
    }
    for line in &findings.0 {
        terminal.say(&format!(
            "{:<7}  {:<9}  {}",
            line.mark.as_str(),
            line.what,
            line.text
        ))?;
    }
    Ok(())
}

async fn check_supabase(
    settings: &Settings,
    terminal: &Terminal,
    findings: &mut Findings,
) -> Outcome {
    const WHAT: &str = "supabase";
    let supabase = Supabase::new(settings.supabase.clone(), clock())?;
    let columns = match supabase.probe().await {
        Ok(columns) => columns,
        Err(error) => {
            let todo = terminal.pick(
                "check SUPABASE_URL and SUPABASE_KEY",
                "проверьте SUPABASE_URL и SUPABASE_KEY",
            );
            findings.bad(WHAT, format!("{}; {todo}", Chain(&error)));
            return Ok(());
        }
    };
    if columns.missing.is_empty() {
        let text = terminal.pick(
            "table tripwire_users, columns:",
            "таблица tripwire_users, колонки:",
        );
        findings.good(WHAT, format!("{text} {}", columns.present.join(", ")));
    } else {
        let text = terminal.pick(
            "columns missing or not readable (another table of this name? apply the migration):",
            "нет колонок или прав на них (другая таблица с тем же именем? примените миграцию):",
        );
        findings.bad(WHAT, format!("{text} {}", columns.missing.join(", ")));
        return Ok(());
    }
    match supabase.count_unsynced(settings.sync.rows.since).await {
        Ok(count) => {
            let text = terminal.pick(
                "rows to sync since SYNC_SINCE:",
                "строк к обработке с SYNC_SINCE:",
            );
            findings.good(WHAT, format!("{text} {count}"));
        }
        Err(error) => findings.bad(WHAT, Chain(&error).to_string()),
    }
    if !matches!(supabase.can_see_any_row().await, Ok(true)) {
        findings.warn(
            WHAT,
            terminal.pick(
                "no row can be read: the table is empty, or a policy hides its rows",
                "не видно ни одной строки: таблица пуста или их скрывает политика RLS",
            ),
        );
    }
    Ok(())
}

async fn check_amocrm(
    config: &Config,
    settings: Settings,
    terminal: &Terminal,
    findings: &mut Findings,
) -> Outcome {
    const WHAT: &str = "amocrm";
    if matches!(config.amocrm, AmocrmConfig::Hold) {
        findings.warn(
            WHAT,
            terminal.pick(
                "AMOCRM_ENABLED=false: nothing is sent",
                "AMOCRM_ENABLED=false: отправка выключена",
            ),
        );
        return Ok(());
    }
    if let Some(halt) = stored_halt(&settings.inbox_path).await? {
        let text = terminal.pick("sending has been stopped since", "отправка остановлена с");
        findings.bad(WHAT, format!("{text} {}: {}", halt.since, halt.detail));
        if halt.cause == HaltCause::AmocrmForbidden {
            return Ok(());
        }
    }
    let amocrm = AmoCrm::new(slowly(settings.amocrm), clock())?;
    match amocrm.account().await {
        Ok(account) => {
            let text = terminal.pick("account", "аккаунт");
            findings.good(
                WHAT,
                format!("{text} «{}» ({})", account.name, account.subdomain),
            );
        }
        Err(error) => {
            let todo = terminal.pick(
                "check AMOCRM_SUBDOMAIN and AMOCRM_ACCESS_TOKEN",
                "проверьте AMOCRM_SUBDOMAIN и AMOCRM_ACCESS_TOKEN",
            );
            findings.bad(WHAT, format!("{}; {todo}", Chain(&error)));
            return Ok(());
        }
    }
    match amocrm.pipelines().await {
        Ok(pipelines) => check_target(&pipelines, settings.sync.rules.target, terminal, findings),
        Err(error) => findings.bad(WHAT, Chain(&error).to_string()),
    }
    Ok(())
}

fn check_target(
    pipelines: &[amocrm::Pipeline],
    target: Target,
    terminal: &Terminal,
    findings: &mut Findings,
) {
    const WHAT: &str = "stage";
    if let Some(problem) = target_problem(pipelines, target) {
        let todo = terminal.pick(
            "see `tripwire-sync pipelines`",
            "смотрите `tripwire-sync pipelines`",
        );
        let trouble = terminal.pick(trouble(pipelines, target), problem);
        let choice = choice(pipelines, target, terminal);
        findings.bad(WHAT, format!("{trouble}; {choice}; {todo}"));
        return;
    }
    let pipeline = pipelines
        .iter()
        .find(|pipeline| pipeline.id == target.pipeline);
    let stage = pipeline.and_then(|pipeline| {
        pipeline
            .stages
            .iter()
            .find(|stage| stage.id == target.stage)
    });
    if let (Some(pipeline), Some(stage)) = (pipeline, stage) {
        let (of, at) = terminal.pick(("pipeline", "stage"), ("воронка", "этап"));
        findings.good(
            WHAT,
            format!("{of} «{}», {at} «{}»", pipeline.name, stage.name),
        );
    }
}

/// In English what `target_problem` says in Russian, which is what is stored and sent to the operator.
fn trouble(pipelines: &[amocrm::Pipeline], target: Target) -> String {
    let Target { pipeline, stage } = target;
    match pipelines.iter().find(|known| known.id == pipeline) {
        None => format!("the account has no pipeline {pipeline}"),
        Some(known) if known.is_archive => format!("pipeline {pipeline} is in the archive"),
        Some(known) if known.stages.iter().any(|known| known.id == stage) => {
            format!("stage {stage} is none that a purchase leads to")
        }
        Some(_) => format!("pipeline {pipeline} has no stage {stage}"),
    }
}

/// What there is instead, by id and name.
fn choice(pipelines: &[amocrm::Pipeline], target: Target, terminal: &Terminal) -> String {
    let pipeline = pipelines
        .iter()
        .find(|pipeline| pipeline.id == target.pipeline && !pipeline.is_archive);
    let (what, names): (_, Vec<String>) = match pipeline {
        Some(pipeline) => (
            terminal.pick("its stages:", "её этапы:"),
            pipeline
                .stages
                .iter()
                .filter(|stage| !stage.is_unsorted && stage.id != StageId::LOST)
                .map(|stage| format!("{} «{}»", stage.id, stage.name))
                .collect(),
        ),
        None => (
            terminal.pick("its pipelines:", "воронки:"),
            pipelines
                .iter()
                .filter(|pipeline| !pipeline.is_archive)
                .map(|pipeline| format!("{} «{}»", pipeline.id, pipeline.name))
                .collect(),
        ),
    };
    format!("{what} {}", names.join(", "))
}

fn slowly(settings: amocrm::Settings) -> amocrm::Settings {
    let requests_per_second =
        std::num::NonZeroU32::new(REQUESTS_PER_SECOND).unwrap_or(std::num::NonZeroU32::MIN);
    amocrm::Settings {
        requests_per_second,
        assume_full_window: false,
        ..settings
    }
}
