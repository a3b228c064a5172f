//! The client against a server on this machine that gives the answers of a script, in order.

mod failures;
mod permit;
mod reading;
mod server;
mod telling;
mod tls;
mod writing;

use std::{error::Error, fmt::Write as _, num::NonZeroU32, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;
use url::Url;

use crate::{
    AmoCrm, AmoError, Clock, PipelineId, Settings, SharedClock, StageId, Target, Timeouts,
};
use server::{Reply, Server};

const TOKEN: &str = "sekret-token";
const TARGET: Target = Target {
    pipeline: PipelineId::new(31),
    stage: StageId::WON,
};

fn settings(base_url: &Url) -> Settings {
    Settings {
        base_url: base_url.clone(),
        token: TOKEN.into(),
        requests_per_second: NonZeroU32::new(7).unwrap(),
        assume_full_window: false,
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(5),
            write: Duration::from_secs(5),
        },
        extra_roots: Vec::new(),
        user_agent: "test/1.0",
        metrics: "test_amocrm",
    }
}

/// A clock that stands.
#[derive(Debug)]
struct Standing(Timestamp);

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        self.0
    }
}

fn clock() -> SharedClock {
    Arc::new(Standing("2026-11-22T12:00:00Z".parse().unwrap()))
}

fn client(server: &Server) -> AmoCrm {
    client_with(settings(&server.url))
}

fn client_with(settings: Settings) -> AmoCrm {
    AmoCrm::new(settings, clock()).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// The error of a search answered with `reply`.
async fn error_of(reply: Reply) -> AmoError {
    let server = Server::start([reply]).await;
    let searched = client(&server).search_contacts("ann+1@x.org").await;
    searched.expect_err("the reply is an error")
}

/// Everything that a log could say about an error.
fn words_of(error: &AmoError) -> String {
    let mut words = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(words, " {error} {error:?}").unwrap();
        cause = error.source();
    }
    words
}
