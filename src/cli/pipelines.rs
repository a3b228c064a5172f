//! `pipelines`: the ids that the settings need, beside the names that a person knows.

use serde_json::json;

use super::{CommandError, Outcome, clock, terminal::Terminal};
use crate::{
    amocrm::AmoCrm,
    app::amocrm_settings,
    config::{AmocrmToken, Config},
    domain::HaltCause,
    sync::schedule::Tempo,
};

/// Commands are no match for the service's own budget.
pub(super) const REQUESTS_PER_SECOND: u32 = 1;

/// While amoCRM has forbidden us to ask.
pub(super) fn refuse(terminal: &mut Terminal) -> Outcome {
    terminal.complain(terminal.pick(
        "amoCRM has forbidden access (403): nothing is sent until `tripwire-sync resume`",
        "amoCRM запретила доступ (403): до `tripwire-sync resume` запросов нет",
    ));
    Err(CommandError::Told)
}

pub(super) async fn run(as_json: bool, terminal: &mut Terminal) -> Outcome {
    let access = Config::load_amocrm()?;
    if let Ok(path) = Config::load_inbox_path()
        && super::entries::stored_halt(&path)
            .await?
            .is_some_and(|halt| halt.cause == HaltCause::AmocrmForbidden)
    {
        return refuse(terminal);
    }
    let AmocrmToken::LongLived(token) = access.token;
    let settings = amocrm_settings(
        access.base_url,
        token,
        REQUESTS_PER_SECOND,
        &Tempo::default(),
    );
    let pipelines = AmoCrm::new(settings, clock())?.pipelines().await?;

    if as_json {
        let list: Vec<_> = pipelines
            .iter()
            .map(|pipeline| {
                let stages: Vec<_> = pipeline
                    .stages
                    .iter()
                    .map(|stage| json!({ "id": stage.id, "name": stage.name, "is_unsorted": stage.is_unsorted }))
                    .collect();
                json!({ "id": pipeline.id, "name": pipeline.name, "is_archive": pipeline.is_archive, "stages": stages })
            })
            .collect();
        return Ok(terminal.say(&serde_json::to_string_pretty(&list)?)?);
    }
    let rows: Vec<Vec<String>> = pipelines
        .iter()
        .flat_map(|pipeline| {
            pipeline.stages.iter().map(|stage| {
                vec![
                    pipeline.id.to_string(),
                    pipeline.name.clone(),
                    stage.id.to_string(),
                    stage.name.clone(),
                ]
            })
        })
        .collect();
    let head = terminal.pick(
        ["PIPELINE_ID", "pipeline", "STAGE_ID", "stage"],
        ["PIPELINE_ID", "воронка", "STAGE_ID", "этап"],
    );
    Ok(terminal.table(&head, &rows)?)
}
