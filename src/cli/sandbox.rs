//! `sandbox`: amoCRM and PostgREST alone, for trying things against them by hand.

use clap::Args;
use sandbox::{
    AmoQuirks, PipelineId, PostgrestQuirks, Sandbox, StageId, WebhookTarget,
    scenario::{Scenario, Setting},
};
use secrecy::{ExposeSecret, SecretString};

use super::{Outcome, new_secret, terminal::Terminal, told_to_stop};
use crate::domain::WebhookSecret;

const SEED: u64 = 1;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Rows to begin with, of every kind
    #[arg(long, default_value_t = 12)]
    rows: usize,
    /// Post a signed webhook for each row to this URL (with --secret)
    #[arg(long, requires = "secret")]
    webhook_url: Option<String>,
    /// The `whsec_…` to sign with
    #[arg(long, requires = "webhook_url")]
    secret: Option<SecretString>,
}

pub(super) async fn run(options: &Options, terminal: &mut Terminal) -> Outcome {
    outbound::install_crypto_provider();
    let sandbox = Sandbox::start(AmoQuirks::default(), PostgrestQuirks::default())?;
    let setting = Setting::build(&sandbox.amo);
    let secret = match &options.secret {
        Some(secret) => secret.expose_secret().to_owned(),
        None => new_secret(),
    };
    WebhookSecret::parse(&secret)?;
    if let Some(url) = &options.webhook_url {
        sandbox.postgrest.on_insert(WebhookTarget {
            url: url.clone(),
            secret: secret.clone().into(),
        });
    }
    let _school = Scenario::mixed(
        SEED,
        options.rows,
        &sandbox.amo,
        &sandbox.postgrest,
        &setting,
    );
    terminal.say(terminal.pick(
        "# settings for a service beside it; Ctrl-C ends it",
        "# настройки для сервиса рядом; остановить — Ctrl-C",
    ))?;
    for (name, value) in variables(&sandbox, setting.pipeline, setting.target, &secret) {
        terminal.say(&format!("{name}={value}"))?;
    }
    told_to_stop()?.await;
    sandbox.stop().await;
    Ok(())
}

/// The settings of a service beside the sandbox, with `stage` as the one that a purchase leads to.
pub(super) fn variables(
    sandbox: &Sandbox,
    pipeline: PipelineId,
    stage: StageId,
    secret: &str,
) -> Vec<(&'static str, String)> {
    vec![
        ("WEBHOOK_SECRET", secret.to_owned()),
        ("AMOCRM_BASE_URL", sandbox.amo.url()),
        ("AMOCRM_ACCESS_TOKEN", sandbox.amo.token()),
        ("AMOCRM_TRIPWIRE_PIPELINE_ID", pipeline.to_string()),
        ("AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID", stage.to_string()),
        ("SUPABASE_URL", sandbox.postgrest.url()),
        ("SUPABASE_KEY", sandbox.postgrest.key()),
        ("SYNC_SINCE", "2020-01-01".to_owned()),
    ]
}
