//! The amoCRM side: account, pipeline, stage.

use amocrm::{Account, AmoCrm, Target};
use secrecy::ExposeSecret;

use super::{
    findings::{Findings, Mark},
    keys,
};
use crate::{
    app::Settings,
    cli::{Outcome, clock, entries::read_if_there, failure, room::Room, terminal::Terminal},
    config::Config,
    domain::{Halt, HaltCause, Refusals, Refused, StageId, TokenEnd},
    inbox::{HALT, REFUSALS},
    sync::rules::deal::target_problem,
    words::Lang,
};

pub(super) async fn check(
    config: &Config,
    settings: Settings,
    findings: &mut Findings,
    terminal: &mut Terminal,
) -> Outcome {
    let (Some(amocrm), Some(sending)) = (&config.amocrm, settings.sending) else {
        findings.on("amocrm").warn(
            "AMOCRM_ENABLED=false: nothing is sent",
            "AMOCRM_ENABLED=false: отправка выключена",
        );
        return Ok(());
    };
    let end = TokenEnd::read("AMOCRM_ACCESS_TOKEN", amocrm.token.expose_secret());
    keys::judge_end(end, clock().now(), findings);
    let mut section = findings.on("amocrm");
    let stored = read_if_there(&settings.inbox_path, async |inbox| {
        let halt: Option<Halt> = inbox.state(HALT).await?;
        let refusals: Option<Refusals> = inbox.state(REFUSALS).await?;
        Ok((halt, refusals.unwrap_or_default()))
    });
    let (halt, refusals) = stored.await?.unwrap_or_default();
    if let Some(halt) = halt {
        let (lang, since) = (section.reader.lang, halt.since);
        let text = lang.pick("sending has been stopped since", "отправка остановлена с");
        let rows: Vec<String> = halt.rows.iter().map(ToString::to_string).collect();
        let detail = format!("{text} {since}: {} {}", halt.detail, rows.join(" "));
        section.add(Mark::Bad, detail.trim_end());
        if halt.cause == HaltCause::AmocrmForbidden {
            return Ok(());
        }
    }
    for Refused {
        row,
        operation,
        since,
        reason,
        ..
    } in refusals.refused()
    {
        let (name, in_russian) = (operation.into_str(), operation.in_russian());
        section.warn(
            format!("in doubt since {since}: {name}: {reason}; {row}"),
            format!("под сомнением с {since}: {in_russian}: {reason}; {row}"),
        );
    }
    let held = refusals.held().len();
    if held > 0 {
        section.warn(
            format!("held since a 403, until a write works for another row: {held}"),
            format!("ждут после 403, пока не обработана другая строка: {held}"),
        );
    }
    let room = match Room::take(Some(&settings.inbox_path), terminal).await {
        Ok(room) => room,
        Err(error) => {
            let told = failure::told(&error, section.reader.lang);
            section.warn(
                format!("not asked: {told}"),
                format!("не проверена: {told}"),
            );
            return Ok(());
        }
    };
    let mut client = sending.amocrm;
    client.assume_full_window = false;
    let amocrm = AmoCrm::new(room.within(client), clock())?;
    ask(&amocrm, sending.sync.rules.target, findings).await;
    room.give_back().await;
    Ok(())
}

/// Account, pipeline and stage.
async fn ask(amocrm: &AmoCrm, target: Target, findings: &mut Findings) {
    let mut section = findings.on("amocrm");
    match amocrm.account().await {
        Ok(Account {
            name, subdomain, ..
        }) => section.good(
            format!("account «{name}» ({subdomain})"),
            format!("аккаунт «{name}» ({subdomain})"),
        ),
        Err(error) => {
            let told = failure::told(&error, section.reader.lang);
            section.bad(
                format!("{told}; check AMOCRM_SUBDOMAIN and AMOCRM_ACCESS_TOKEN"),
                format!("{told}; проверьте AMOCRM_SUBDOMAIN и AMOCRM_ACCESS_TOKEN"),
            );
            return;
        }
    }
    match amocrm.pipelines().await {
        Ok(pipelines) => check_target(&pipelines.items, target, findings),
        Err(error) => section.fail(Mark::Bad, &error),
    }
}

fn check_target(pipelines: &[amocrm::Pipeline], target: Target, findings: &mut Findings) {
    let mut section = findings.on("stage");
    if let Some(problem) = target_problem(pipelines, target) {
        let lang = section.reader.lang;
        let trouble = lang.pick(trouble(pipelines, target), problem);
        let choice = choice(pipelines, target, lang);
        section.bad(
            format!("{trouble}; {choice}; see `tripwire-sync pipelines`"),
            format!("{trouble}; {choice}; смотрите `tripwire-sync pipelines`"),
        );
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
        let (pipeline, stage) = (&pipeline.name, &stage.name);
        section.good(
            format!("pipeline «{pipeline}», stage «{stage}»"),
            format!("воронка «{pipeline}», этап «{stage}»"),
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
