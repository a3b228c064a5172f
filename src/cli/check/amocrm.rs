//! The amoCRM side: account, pipeline, stage.

use amocrm::{AmoCrm, Target};
use secrecy::ExposeSecret;

use super::{findings::Findings, keys};
use crate::{
    app::Settings,
    cli::{
        Outcome, clock,
        entries::{stored_halt, stored_refusals},
        failure,
        room::Room,
        terminal::Terminal,
    },
    config::Config,
    domain::{HaltCause, StageId, TokenEnd},
    sync::rules::deal::target_problem,
    words::Lang,
};

pub(super) async fn check(
    config: &Config,
    settings: Settings,
    findings: &mut Findings,
    terminal: &mut Terminal,
) -> Outcome {
    const WHAT: &str = "amocrm";
    let lang = findings.reader.lang;
    let (Some(amocrm), Some(sending)) = (&config.amocrm, settings.sending) else {
        findings.warn(
            WHAT,
            lang.pick(
                "AMOCRM_ENABLED=false: nothing is sent",
                "AMOCRM_ENABLED=false: отправка выключена",
            ),
        );
        return Ok(());
    };
    let end = TokenEnd::read("AMOCRM_ACCESS_TOKEN", amocrm.token.expose_secret());
    keys::judge_end(end, clock().now(), findings);
    if let Some(halt) = stored_halt(&settings.inbox_path).await? {
        let text = lang.pick("sending has been stopped since", "отправка остановлена с");
        let rows: Vec<String> = halt.rows.iter().map(ToString::to_string).collect();
        let rows = rows.join(" ");
        let detail = format!("{text} {}: {} {rows}", halt.since, halt.detail);
        findings.bad(WHAT, detail.trim_end());
        if halt.cause == HaltCause::AmocrmForbidden {
            return Ok(());
        }
    }
    let refusals = stored_refusals(&settings.inbox_path).await?;
    for refused in refusals.refused() {
        let (operation, in_russian) =
            (refused.operation.into_str(), refused.operation.in_russian());
        let text = lang.pick(
            format!("in doubt since {}: {operation}", refused.since),
            format!("под сомнением с {}: {in_russian}", refused.since),
        );
        let row = refused.row;
        findings.warn(WHAT, format!("{text}: {}; {row}", refused.reason));
    }
    if !refusals.held().is_empty() {
        let text = lang.pick(
            "held since a 403, until a write works for another row:",
            "ждут после 403, пока не обработана другая строка:",
        );
        findings.warn(WHAT, format!("{text} {}", refusals.held().len()));
    }
    let room = match Room::take(&settings.inbox_path, terminal).await {
        Ok(room) => room,
        Err(error) => {
            let text = lang.pick("not asked:", "не проверена:");
            findings.warn(
                WHAT,
                format!("{text} {}", failure::told(&error, findings.reader.lang)),
            );
            return Ok(());
        }
    };
    let amocrm = AmoCrm::new(room.within(sending.amocrm), clock())?;
    ask(&amocrm, sending.sync.rules.target, findings).await;
    room.give_back().await;
    Ok(())
}

/// Account, pipeline and stage.
async fn ask(amocrm: &AmoCrm, target: Target, findings: &mut Findings) {
    const WHAT: &str = "amocrm";
    let lang = findings.reader.lang;
    match amocrm.account().await {
        Ok(account) => {
            let text = lang.pick("account", "аккаунт");
            findings.good(
                WHAT,
                format!("{text} «{}» ({})", account.name, account.subdomain),
            );
        }
        Err(error) => {
            let todo = lang.pick(
                "check AMOCRM_SUBDOMAIN and AMOCRM_ACCESS_TOKEN",
                "проверьте AMOCRM_SUBDOMAIN и AMOCRM_ACCESS_TOKEN",
            );
            findings.bad(
                WHAT,
                format!("{}; {todo}", failure::told(&error, findings.reader.lang)),
            );
            return;
        }
    }
    match amocrm.pipelines().await {
        Ok(pipelines) => check_target(&pipelines.items, target, findings),
        Err(error) => findings.bad(WHAT, failure::told(&error, findings.reader.lang)),
    }
}

fn check_target(pipelines: &[amocrm::Pipeline], target: Target, findings: &mut Findings) {
    const WHAT: &str = "stage";
    let lang = findings.reader.lang;
    if let Some(problem) = target_problem(pipelines, target) {
        let todo = lang.pick(
            "see `tripwire-sync pipelines`",
            "смотрите `tripwire-sync pipelines`",
        );
        let trouble = lang.pick(trouble(pipelines, target), problem);
        let choice = choice(pipelines, target, lang);
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
        let (of, at) = lang.pick(("pipeline", "stage"), ("воронка", "этап"));
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

/// The pipelines or stages that exist, by id and name.
fn choice(pipelines: &[amocrm::Pipeline], target: Target, lang: Lang) -> String {
    let pipeline = pipelines
        .iter()
        .find(|pipeline| pipeline.id == target.pipeline && !pipeline.is_archive);
    let (what, names): (_, Vec<String>) = match pipeline {
        Some(pipeline) => (
            lang.pick("its stages:", "её этапы:"),
            pipeline
                .stages
                .iter()
                .filter(|stage| !stage.is_unsorted && stage.id != StageId::LOST)
                .map(|stage| format!("{} «{}»", stage.id, stage.name))
                .collect(),
        ),
        None => (
            lang.pick("its pipelines:", "воронки:"),
            pipelines
                .iter()
                .filter(|pipeline| !pipeline.is_archive)
                .map(|pipeline| format!("{} «{}»", pipeline.id, pipeline.name))
                .collect(),
        ),
    };
    format!("{what} {}", names.join(", "))
}
