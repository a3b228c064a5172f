//! The Supabase side: what is asked, and in which order.

use secrecy::ExposeSecret;

use super::{
    doctor::{self, Ours},
    event,
    findings::{Findings, Mark},
    keys::{self, Key},
};
use crate::{
    app::Settings,
    cli::{Outcome, clock, entries::read_if_there, failure},
    config::Config,
    domain::{TokenClaims, WebhookSecret},
    inbox::Heard,
    supabase::{Doctor, Examined, Period, Supabase, SupabaseError},
    sync::lease::HOLDER,
};

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
    let project = &config.supabase;
    let key = Key::of(project.key.expose_secret());
    let token = project.jwt.as_ref();
    let token = token.map(|jwt| TokenClaims::read(jwt.expose_secret()).unwrap_or_default());
    keys::judge(&key, token.as_ref(), &project.url, clock().now(), findings);

    let mut section = findings.on("supabase");
    let supabase = Supabase::new(settings.supabase.clone(), clock())?;
    let columns = match supabase.probe().await {
        Ok(columns) => columns,
        Err(error) => {
            let told = failure::told(&error, section.reader.lang);
            // The request came through to the database, so neither address nor keys are to blame.
            if matches!(error, SupabaseError::Theirs { .. }) {
                section.bad(
                    format!("{told}; mend that policy, trigger or function in the dashboard's SQL editor; the statement is in Logs, Postgres"),
                    format!("{told}; исправьте эту политику, триггер или функцию в SQL Editor; сам запрос — в Logs, Postgres"),
                );
            } else {
                section.bad(
                    format!("{told}; check SUPABASE_URL, SUPABASE_KEY and SUPABASE_JWT"),
                    format!("{told}; проверьте SUPABASE_URL, SUPABASE_KEY и SUPABASE_JWT"),
                );
            }
            return Ok(());
        }
    };
    if columns.missing.is_empty() {
        let present = columns.present.join(", ");
        section.good(
            format!("table tripwire_users, columns: {present}"),
            format!("таблица tripwire_users, колонки: {present}"),
        );
    } else {
        let missing = columns.missing.join(", ");
        section.bad(
            format!("columns missing or not readable: {missing}"),
            format!("нет колонок или прав на них: {missing}"),
        );
    }
    let remembered = read_if_there(&settings.inbox_path, async |inbox| {
        Ok(Remembered {
            holder: inbox.state(HOLDER).await?,
            heard: inbox.heard().await?,
        })
    });
    let remembered = remembered.await?.unwrap_or_default();
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
                    Err(error) => findings.on("pause").fail(Mark::Warning, &error),
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
        Err(error) => findings.on("supabase").fail(Mark::Warning, &error),
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
    let mut section = findings.on("supabase");
    let ours = Period::since(settings.maintenance.rows.since);
    match supabase.count_unsynced(ours).await {
        Ok(count) => section.good(
            format!("rows to sync since SYNC_SINCE: {count}"),
            format!("строк к обработке с SYNC_SINCE: {count}"),
        ),
        Err(error) => section.fail(Mark::Bad, &error),
    }
    match supabase.has_uuids().await {
        Ok(Some(is_uuid)) if is_uuid || knows_id_type => {}
        Ok(Some(_)) => doctor::not_uuid(
            section.reader.pick("another type", "другого типа"),
            findings,
        ),
        Ok(None) | Err(_) => section.warn(
            "no row can be read: the table is empty, or a policy hides its rows",
            "не видно ни одной строки: таблица пуста или их скрывает политика RLS",
        ),
    }
}

/// Reports how the entries came: all of them, and the newest.
fn tell_heard(heard: &Heard, findings: &mut Findings) {
    let mut section = findings.on("events");
    let Heard {
        entries,
        by_delivery,
        last_by_delivery,
        since_by_sweep,
    } = *heard;
    if entries == 0 {
        section.good("the inbox is empty", "очередь пуста");
        return;
    }
    let told = match last_by_delivery {
        Some(at) => {
            let at = section.reader.time(at);
            section.reader.pick(
                format!("{by_delivery} of {entries} rows in the inbox were told of by an event, the newest at {at}"),
                format!("строк в очереди: {entries}, о {by_delivery} пришло событие, о самой новой {at}"),
            )
        }
        None => section.reader.pick(
            format!("none of the {entries} rows in the inbox was told of by an event"),
            format!("строк в очереди: {entries}, ни об одной не пришло событие"),
        ),
    };
    if since_by_sweep < SILENT {
        section.add(Mark::Good, told);
        return;
    }
    section.warn(
        format!("{told}; the {since_by_sweep} rows since then arrived without an event and were found by the sweep (docs/supabase.md, step 6)"),
        format!("{told}; после неё без события найдено сверкой строк: {since_by_sweep} (docs/supabase.md, шаг 6)"),
    );
}
