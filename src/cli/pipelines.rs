//! `pipelines`: the ids that the settings need, beside the names that a person knows.

use amocrm::AmoCrm;
use serde_json::json;

use super::{
    CommandError, Outcome, clock,
    room::{REQUESTS_PER_SECOND, Room},
    terminal::Terminal,
};
use crate::{
    app::amocrm_settings, config::Config, domain::HaltCause, sync::rules::timings::Timings,
};

/// While amoCRM has forbidden us to ask.
pub(super) fn refuse(terminal: &mut Terminal) -> Outcome {
    terminal.complain(terminal.pick(
        "amoCRM has forbidden access (403): nothing is sent until `tripwire-sync resume`",
        "amoCRM запретила доступ (403): до `tripwire-sync resume` запросы не отправляются",
    ));
    Err(CommandError::Told)
}

pub(super) async fn run(as_json: bool, terminal: &mut Terminal) -> Outcome {
    let access = Config::load_amocrm()?;
    let inbox_path = Config::load_inbox_path().ok();
    if let Some(path) = &inbox_path
        && super::entries::stored_halt(path)
            .await?
            .is_some_and(|halt| halt.cause == HaltCause::AmocrmForbidden)
    {
        return refuse(terminal);
    }
    let settings = amocrm_settings(
        access.base_url,
        access.token,
        REQUESTS_PER_SECOND,
        &Timings::default(),
    );
    let room = match &inbox_path {
        Some(path) => Some(Room::take(path, terminal).await?),
        None => None,
    };
    let settings = match &room {
        Some(room) => room.within(settings),
        None => settings,
    };
    let pipelines = AmoCrm::new(settings, clock())?
        .pipelines()
        .await
        .map(|found| found.items);
    if let Some(room) = room {
        room.give_back().await;
    }
    let pipelines = pipelines?;

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
