//! The Supabase side: what is asked, and in which order.

use std::path::Path;

use secrecy::ExposeSecret;

use super::{
    doctor::{self, Ours},
    event,
    findings::Findings,
    keys::{self, Key},
};
use crate::{
    app::Settings,
    cli::{Outcome, clock, failure},
    config::Config,
    domain::{TokenClaims, WebhookSecret},
    inbox::{Heard, Inbox, InboxError, Role},
    supabase::{Doctor, Examined, Period, Supabase, SupabaseError},
    sync::lease::HOLDER,
};

const WHAT: &str = "supabase";
/// After so many rows in a row without an event, deliveries probably do not arrive.
const SILENT: u64 = 3;

/// What the inbox knows that is of interest here.
#[derive(Debug, Default)]
struct Remembered {
    holder: Option<String>,
    heard: Heard,
}

pub(super) async fn check(
    config: &Config,
    settings: &Settings,
    sends_event: bool,
    findings: &mut Findings,
) -> Outcome {
    let lang = findings.reader.lang;
    let project = &config.supabase;
    let key = Key::of(project.key.expose_secret());
    let token = project.jwt.as_ref();
    let token = token.map(|jwt| TokenClaims::read(jwt.expose_secret()).unwrap_or_default());
    keys::judge(&key, token.as_ref(), &project.url, clock().now(), findings);

    let supabase = Supabase::new(settings.supabase.clone(), clock())?;
    let columns = match supabase.probe().await {
        Ok(columns) => columns,
        Err(error) => {
            // The request came through to the database, so neither address nor keys are to blame.
            let todo = if matches!(error, SupabaseError::Theirs { .. }) {
                lang.pick(
                    "mend that policy, trigger or function in the dashboard's SQL editor; the statement is in Logs, Postgres",
                    "исправьте эту политику, триггер или функцию в SQL Editor; сам запрос — в Logs, Postgres",
                )
            } else {
                lang.pick(
                    "check SUPABASE_URL, SUPABASE_KEY and SUPABASE_JWT",
                    "проверьте SUPABASE_URL, SUPABASE_KEY и SUPABASE_JWT",
                )
            };
            findings.bad(
                WHAT,
                format!("{}; {todo}", failure::told(&error, findings.reader.lang)),
            );
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
    let mut knows_id_type = false;
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
            // Older SQL has been warned of already.
            if doctor.version.is_some() {
                match supabase.pause(None, settings.supabase.timeout).await {
                    Ok(answer) => doctor::pause(answer.as_ref(), findings),
                    Err(error) => {
                        findings.warn("pause", failure::told(&error, findings.reader.lang));
                    }
                }
            }
            knows_id_type = doctor.id_type.is_some();
            if sends_event && doctor.version.is_some() && columns.missing.is_empty() {
                send_event(&supabase, &doctor, &ours, settings, findings).await;
            }
        }
        Ok(Examined::NoDoctor) => {
            if columns.missing.contains(&"amocrm_deal_id") {
                doctor::lookalike(findings);
            } else {
                doctor::no_doctor(config.webhook.bearer.is_some(), findings);
            }
        }
        Err(error) => findings.warn(WHAT, failure::told(&error, findings.reader.lang)),
    }
    if columns.missing.is_empty() {
        check_rows(&supabase, settings, knows_id_type, findings).await;
    }
    tell_heard(&remembered.heard, findings);
    Ok(())
}

async fn send_event(
    supabase: &Supabase,
    doctor: &Doctor,
    ours: &Ours,
    settings: &Settings,
    findings: &mut Findings,
) {
    if ours.takes_bearer && ours.fingerprints.is_empty() {
        event::no_test(findings);
    } else {
        event::check(supabase, doctor, settings.timings.test_event, findings).await;
    }
}

/// `knows_id_type`: the doctor has told the type, and the finding about it is there.
async fn check_rows(
    supabase: &Supabase,
    settings: &Settings,
    knows_id_type: bool,
    findings: &mut Findings,
) {
    let lang = findings.reader.lang;
    let ours = Period::since(settings.maintenance.rows.since);
    match supabase.count_unsynced(ours).await {
        Ok(count) => {
            let text = lang.pick(
                "rows to sync since SYNC_SINCE:",
                "строк к обработке с SYNC_SINCE:",
            );
            findings.good(WHAT, format!("{text} {count}"));
        }
        Err(error) => findings.bad(WHAT, failure::told(&error, findings.reader.lang)),
    }
    match supabase.has_uuids().await {
        Ok(Some(is_uuid)) if is_uuid || knows_id_type => {}
        Ok(Some(_)) => doctor::not_uuid(lang.pick("another type", "другого типа"), findings),
        Ok(None) | Err(_) => findings.warn(
            WHAT,
            lang.pick(
                "no row can be read: the table is empty, or a policy hides its rows",
                "не видно ни одной строки: таблица пуста или их скрывает политика RLS",
            ),
        ),
    }
}

async fn remembered(path: &Path) -> Result<Remembered, InboxError> {
    if !path.exists() {
        return Ok(Remembered::default());
    }
    let inbox = Inbox::open(path, Role::Guest, clock()).await?;
    let holder = inbox.state(HOLDER).await;
    let heard = inbox.heard().await;
    inbox.close().await;
    Ok(Remembered {
        holder: holder?,
        heard: heard?,
    })
}

/// Reports how the entries came: all of them, and the newest.
fn tell_heard(heard: &Heard, findings: &mut Findings) {
    const WHAT: &str = "events";
    let lang = findings.reader.lang;
    let Heard {
        entries,
        by_delivery,
        last_by_delivery,
        since_by_sweep,
    } = *heard;
    if entries == 0 {
        findings.good(WHAT, lang.pick("the inbox is empty", "очередь пуста"));
        return;
    }
    let told = match last_by_delivery {
        Some(at) => {
            let at = findings.reader.time(at);
            lang.pick(
                format!("{by_delivery} of {entries} rows in the inbox were told of by an event, the newest at {at}"),
                format!("строк в очереди: {entries}, о {by_delivery} пришло событие, о самой новой {at}"),
            )
        }
        None => lang.pick(
            format!("none of the {entries} rows in the inbox was told of by an event"),
            format!("строк в очереди: {entries}, ни об одной не пришло событие"),
        ),
    };
    if since_by_sweep < SILENT {
        findings.good(WHAT, told);
        return;
    }
    findings.warn(
        WHAT,
        lang.pick(
            format!("{told}; the {since_by_sweep} rows since then arrived without an event and were found by the sweep (docs/supabase.md, step 6)"),
            format!("{told}; после неё без события найдено сверкой строк: {since_by_sweep} (docs/supabase.md, шаг 6)"),
        ),
    );
}
