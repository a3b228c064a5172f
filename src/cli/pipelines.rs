//! `pipelines`: the ids that the settings need, beside the names that a person knows.

use serde_json::json;

use super::{Outcome, room, terminal::Terminal};
use crate::config::Config;

pub(super) async fn run(as_json: bool, terminal: &mut Terminal) -> Outcome {
    let client = room::client(Config::load_amocrm()?);
    let inbox_path = Config::load_inbox_path().ok();
    let pipelines = room::ask(inbox_path.as_deref(), client, terminal, async |amocrm| {
        amocrm.pipelines().await
    });
    let pipelines = pipelines.await??.items;

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
