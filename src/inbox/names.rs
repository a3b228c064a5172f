//! The names of pipelines and stages, as last read from amoCRM, so that a story can tell them. They are no personal data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Inbox, InboxError};
use crate::domain::{PipelineId, StageId};

const NAMES: &str = "amocrm_names";

/// Also of pipelines and stages that are gone by now: the history names them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The configured one, in which deals are moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<PipelineId>,
    pipelines: BTreeMap<PipelineId, PipelineNames>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PipelineNames {
    name: String,
    stages: BTreeMap<StageId, String>,
}

impl Names {
    /// `target`: the pipeline in which deals are moved.
    #[must_use]
    pub fn in_pipeline(self, target: PipelineId) -> Self {
        Self {
            target: Some(target),
            ..self
        }
    }

    pub fn learn(
        &mut self,
        pipeline: PipelineId,
        name: &str,
        stages: impl IntoIterator<Item = (StageId, String)>,
    ) {
        let known = self.pipelines.entry(pipeline).or_default();
        name.clone_into(&mut known.name);
        known.stages.extend(stages);
    }

    #[must_use]
    pub fn pipeline(&self, pipeline: PipelineId) -> Option<&str> {
        Some(self.pipelines.get(&pipeline)?.name.as_str())
    }

    /// A stage of the pipeline in which deals are moved, or were, before the settings named another one.
    #[must_use]
    pub fn stage(&self, stage: StageId) -> Option<&str> {
        let former = || {
            // All pipelines have the closed stages.
            let mut pipelines = self.pipelines.keys().filter(|_| !stage.is_closed());
            pipelines.find_map(|pipeline| self.stage_of(*pipeline, stage))
        };
        let now = self.target.and_then(|target| self.stage_of(target, stage));
        now.or_else(former)
    }

    #[must_use]
    pub fn stage_of(&self, pipeline: PipelineId, stage: StageId) -> Option<&str> {
        let stages = &self.pipelines.get(&pipeline)?.stages;
        stages.get(&stage).map(String::as_str)
    }
}

impl Inbox {
    /// None, if no pipeline was read yet, or if another version has stored them in another form.
    pub async fn names(&self) -> Result<Names, InboxError> {
        match self.state(NAMES).await {
            Err(InboxError::Corrupt { .. }) => Ok(Names::default()),
            names => Ok(names?.unwrap_or_default()),
        }
    }

    pub async fn keep_names(&self, names: &Names) -> Result<(), InboxError> {
        if self.names().await? == *names {
            return Ok(());
        }
        self.set_state(NAMES, names).await
    }
}
