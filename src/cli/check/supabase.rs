//! The Supabase side: what is asked, in five requests at most.

use std::path::Path;

use secrecy::ExposeSecret;

use super::{
    doctor::{self, Ours},
    findings::{Findings, Mark},
    keys::{self, Key},
};
use crate::{
    app::Settings,
    cli::{Outcome, clock, entries},
    config::Config,
    domain::{TokenClaims, WebhookSecret},
    inbox::{Inbox, InboxError, Role},
    supabase::{Examined, Period, Supabase},
    sync::{Chain, lease::HOLDER},
};

const WHAT: &str = "supabase";
/// Among so many entries, last changed first, the last event is looked for.
const LAST_ENTRIES: u32 = 1_000;

/// What the inbox knows that is of interest here.
#[derive(Debug, Default)]
struct Remembered {
    holder: Option<String>,
    /// When the last event came that made an entry.
    last_event: Option<jiff::Timestamp>,
}

pub(super) async fn check(
    config: &Config,
    settings: &Settings,
    findings: &mut Findings,
) -> Outcome {
    let lang = findings.lang;
    let project = &config.supabase;
    let key = Key::of(project.key.expose_secret());
    let token = project.jwt.as_ref();
    let token = token.map(|jwt| TokenClaims::read(jwt.expose_secret()).unwrap_or_default());
    keys::judge(&key, token.as_ref(), &project.url, clock().now(), findings);

    let supabase = Supabase::new(settings.supabase.clone(), clock())?;
    let columns = match supabase.probe().await {
        Ok(columns) => columns,
        Err(error) => {
            let todo = lang.pick(
                "check SUPABASE_URL, SUPABASE_KEY and SUPABASE_JWT",
                "проверьте SUPABASE_URL, SUPABASE_KEY и SUPABASE_JWT",
            );
            findings.bad(WHAT, format!("{}; {todo}", Chain(&error)));
            return Ok(());
        }
    };
    if columns.missing.is_empty() {
        let text = lang.pick(
            "table tripwire_users, columns:",
            "таблица tripwire_users, колонки:",
        );
        findings.good(WHAT, format!("{text} {}", columns.present.join(", ")));
    } else {
        let text = lang.pick(
            "columns missing or not readable:",
            "нет колонок или прав на них:",
        );
        findings.bad(WHAT, format!("{text} {}", columns.missing.join(", ")));
    }
    let remembered = remembered(&settings.inbox_path).await?;
    match supabase.examine().await {
        Ok(Examined::Told { doctor, at }) => {
            let ours = Ours {
                at,
                tolerance: settings.verifier.tolerance,
                fingerprints: config
                    .webhook
                    .secrets
                    .iter()
                    .map(WebhookSecret::fingerprint)
                    .collect(),
                takes_bearer: config.webhook.bearer.is_some(),
                note_columns: settings.supabase.note_columns.clone(),
                sweeps: config.reconcile_interval.is_some(),
                holder: remembered.holder.clone(),
            };
            doctor::diagnose(&doctor, &ours, findings);
        }
        Ok(Examined::NoDoctor) => {
            if columns.missing.contains(&"amocrm_deal_id") {
                doctor::lookalike(findings);
            } else {
                doctor::no_doctor(findings);
            }
        }
        Err(error) => findings.warn(WHAT, Chain(&error).to_string()),
    }
    if columns.missing.is_empty() {
        check_rows(&supabase, settings, findings).await;
        tell_last_event(&remembered, findings);
    }
    Ok(())
}

async fn check_rows(supabase: &Supabase, settings: &Settings, findings: &mut Findings) {
    let lang = findings.lang;
    let ours = Period::since(settings.sync.rows.since);
    match supabase.count_unsynced(ours).await {
        Ok(count) => {
            let text = lang.pick(
                "rows to sync since SYNC_SINCE:",
                "строк к обработке с SYNC_SINCE:",
            );
            findings.good(WHAT, format!("{text} {count}"));
            if count > 0 {
                return;
            }
        }
        Err(error) => findings.bad(WHAT, Chain(&error).to_string()),
    }
    if !matches!(supabase.can_see_any_row().await, Ok(true)) {
        findings.warn(
            WHAT,
            lang.pick(
                "no row can be read: the table is empty, or a policy hides its rows",
                "не видно ни одной строки: таблица пуста или их скрывает политика RLS",
            ),
        );
    }
}

async fn remembered(path: &Path) -> Result<Remembered, InboxError> {
    if !path.exists() {
        return Ok(Remembered::default());
    }
    let inbox = Inbox::open(path, Role::Guest, clock()).await?;
    let holder = inbox.state(HOLDER).await;
    let entries = inbox.entries(None, LAST_ENTRIES).await;
    inbox.close().await;
    Ok(Remembered {
        holder: holder?,
        last_event: entries?
            .iter()
            .filter(|entry| entry.delivery.is_some())
            .map(|entry| entry.stored_at)
            .max(),
    })
}

fn tell_last_event(remembered: &Remembered, findings: &mut Findings) {
    let lang = findings.lang;
    let text = match remembered.last_event {
        Some(at) => lang.pick(
            format!(
                "the last event that brought a row came at {}",
                entries::seconds(at)
            ),
            format!(
                "последнее событие с новой строкой пришло {}",
                entries::seconds(at)
            ),
        ),
        None => lang
            .pick(
                "no event has brought a row yet, as far as the inbox goes back",
                "событий с новой строкой в инбоксе пока нет",
            )
            .to_owned(),
    };
    findings.add("event", Mark::Good, text);
}
