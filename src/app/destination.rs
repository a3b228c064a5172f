//! Where the service sends, for the first line of its log.

use std::net::SocketAddr;

use amocrm::Target;
use url::Url;

use super::Sending;
use crate::{
    domain::{PipelineId, StageId, VERSION},
    inbox::{Inbox, Names},
};

/// Account, pipeline and stage, and the names that these had when they were last read.
#[derive(Debug, Default)]
pub(super) struct Destination {
    account: Option<String>,
    target: Option<Target>,
    names: Names,
}

impl Destination {
    pub(super) async fn read(sending: Option<&Sending>, inbox: &Inbox) -> Self {
        let Some(sending) = sending else {
            return Self::default();
        };
        Self {
            account: account_of(&sending.amocrm.base_url),
            target: Some(sending.sync.rules.target),
            // The engine meets the trouble of an inbox, and logs it.
            names: inbox.names().await.unwrap_or_default(),
        }
    }

    pub(super) fn log_start(&self, address: SocketAddr, metrics_address: SocketAddr) {
        let pipeline = self.target.map(|target| target.pipeline);
        let stage = self.target.map(|target| target.stage);
        let of = pipeline.zip(stage);
        tracing::info!(
            version = VERSION,
            %address,
            %metrics_address,
            account = self.account,
            pipeline.id = pipeline.map(PipelineId::get),
            pipeline.name = pipeline.and_then(|it| self.names.pipeline(it)),
            stage.id = stage.map(StageId::get),
            stage.name = of.and_then(|(pipeline, stage)| self.names.stage_of(pipeline, stage)),
            "service.started"
        );
    }
}

/// The subdomain, or the host where that is none of amoCRM's.
fn account_of(base_url: &Url) -> Option<String> {
    let host = base_url.host_str()?;
    let account = [".amocrm.ru", ".amocrm.com", ".kommo.com"]
        .iter()
        .find_map(|domain| host.strip_suffix(domain));
    Some(account.unwrap_or(host).to_owned())
}
