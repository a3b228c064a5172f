//! Where the service sends, for the first line of its log.

use std::net::SocketAddr;

use url::Url;

use super::Sending;
use crate::{domain::VERSION, inbox::Names};

/// Logs account, pipeline and stage. `names`: those that amoCRM gave when it was last read.
pub(super) fn log_start(
    sending: Option<&Sending>,
    names: &Names,
    address: SocketAddr,
    metrics_address: SocketAddr,
) {
    let target = sending.map(|it| it.sync.rules.target);
    tracing::info!(
        version = VERSION,
        %address,
        %metrics_address,
        account = sending.and_then(|it| account_of(&it.amocrm.base_url)),
        pipeline.id = target.map(|it| it.pipeline.get()),
        pipeline.name = target.and_then(|it| names.pipeline(it.pipeline)),
        stage.id = target.map(|it| it.stage.get()),
        stage.name = target.and_then(|it| names.stage_of(it.pipeline, it.stage)),
        "service.started"
    );
}

/// The subdomain, or the host where that is none of amoCRM's.
fn account_of(base_url: &Url) -> Option<String> {
    let host = base_url.host_str()?;
    let account = [".amocrm.ru", ".amocrm.com", ".kommo.com"]
        .iter()
        .find_map(|domain| host.strip_suffix(domain));
    Some(account.unwrap_or(host).to_owned())
}
