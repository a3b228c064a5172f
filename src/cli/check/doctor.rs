//! Compares what the database says about itself with our settings: the findings.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::findings::{Findings, Mark, Section};
use crate::supabase::{Doctor, LastPause, Lease, PauseAnswer, Trigger, Vault};

/// Where the service takes events.
const PATH: &str = "/webhooks/supabase";
/// `pg_net` sends up to 200 at once, every second: a longer queue means that requests wait.
const USUAL_QUEUE: u64 = 200;
/// The clocks may differ by the tolerance divided by this before the difference is a warning.
const WORTH_A_WORD: u32 = 4;
const DEAL: &str = "amocrm_deal_id";
const CONTACT: &str = "amocrm_contact_id";
/// Of the SQL that this program prints.
const VERSION: u32 = 2;
/// Without these there is nothing to sync.
const NEEDED: [&str; 5] = ["id", "email", "full_name", "created_at", DEAL];

/// What our side knows.
#[derive(Debug, Clone)]
pub(super) struct Ours {
    /// Our own time when the doctor looked.
    pub(super) at: Timestamp,
    pub(super) tolerance: Duration,
    /// Of `WEBHOOK_SECRET`.
    pub(super) fingerprints: Vec<String>,
    pub(super) takes_bearer: bool,
    /// Columns that the note wants beside those that are always read.
    pub(super) note_columns: Vec<&'static str>,
    pub(super) sweeps: bool,
    /// The name by which the lease knows the inbox of this machine.
    pub(super) holder: Option<String>,
}

/// Adds all findings of the doctor's answer.
pub(super) fn diagnose(doctor: &Doctor, ours: &Ours, findings: &mut Findings) {
    if doctor.columns.is_empty() || is_lookalike(doctor, findings) {
        return;
    }
    version(doctor.version, findings);
    if let Some(other) = doctor.id_type.as_deref().filter(|name| *name != "uuid") {
        not_uuid(other, findings);
    }
    rights(doctor, &ours.note_columns, findings);
    if trigger(doctor, ours, findings) {
        vault(&doctor.vault, ours, findings);
    }
    if let Some(at) = doctor.now {
        clocks(at, ours, findings);
    }
    lease(doctor.lease.as_ref(), ours.holder.as_deref(), findings);
}

/// The line for a database that has no doctor.
pub(super) fn no_doctor(takes_bearer: bool, findings: &mut Findings) {
    let lang = findings.reader.lang;
    let meanwhile = if takes_bearer {
        lang.pick(
            "until then events come by the dashboard's own webhooks alone, and nothing keeps two services from syncing at once",
            "до этого события приходят только через собственные вебхуки панели, и ничто не мешает двум сервисам работать одновременно",
        )
    } else {
        lang.pick(
            "until then no event comes, and rows are found by the sweep alone",
            "до этого событий нет, строки находит только сверка",
        )
    };
    findings.on("database").warn(
        format!("the service's SQL has not been run in this project, or an older one was: run the SQL of `tripwire-sync setup-sql` (docs/supabase.md, step 3); {meanwhile}"),
        format!("SQL сервиса в этом проекте не выполнен или выполнен старый: выполните SQL из `tripwire-sync setup-sql` (docs/supabase.md, шаг 3); {meanwhile}"),
    );
}

fn version(version: Option<u32>, findings: &mut Findings) {
    if version.is_some_and(|version| version >= VERSION) {
        return;
    }
    findings.on("database").warn(
        "the SQL in this project is an older one: a login that may insert rows can make its functions run code as postgres, and they send no test event. Run the SQL of `tripwire-sync setup-sql` again (docs/supabase.md, step 3)",
        "в этом проекте старый SQL: имеющий право вставлять строки может выполнить через его функции свой код с правами postgres, и проверочных событий они не шлют. Выполните SQL из `tripwire-sync setup-sql` снова (docs/supabase.md, шаг 3)",
    );
}

/// The ids of the table are of another type, so that each event is refused and no row can be named.
pub(super) fn not_uuid(other: &str, findings: &mut Findings) {
    findings.on("database").bad(
        format!("tripwire_users.id is {other}, and the service needs uuid: is this the project of the Tripwire platform?"),
        format!("колонка tripwire_users.id не uuid ({other}), а сервису нужен uuid: это проект платформы Tripwire?"),
    );
}

fn is_lookalike(doctor: &Doctor, findings: &mut Findings) -> bool {
    if doctor.columns.iter().any(|column| column == DEAL) {
        return false;
    }
    lookalike(findings);
    true
}

/// The table lacks the one column that is ours.
pub(super) fn lookalike(findings: &mut Findings) {
    findings.on("database").bad(
        "tripwire_users has no column amocrm_deal_id here: another project of the same school has a table of this name. If SUPABASE_URL is the project of the Tripwire platform, run the SQL of `tripwire-sync setup-sql` (docs/supabase.md, step 3), which adds the column",
        "в tripwire_users здесь нет колонки amocrm_deal_id: таблица с таким именем есть и в другом проекте этой школы. Если SUPABASE_URL — проект платформы Tripwire, выполните SQL из `tripwire-sync setup-sql` (docs/supabase.md, шаг 3): он добавит колонку",
    );
}

fn rights(doctor: &Doctor, note_columns: &[&str], findings: &mut Findings) {
    let mut section = findings.on("rights");
    let lang = section.reader.lang;
    let caller = &doctor.caller;
    let role = caller.name.as_deref().unwrap_or("?");
    let has = |columns: &[String], column: &str| columns.iter().any(|it| it == column);
    let run_again = lang.pick(
        "run the SQL of `tripwire-sync setup-sql` again (docs/supabase.md, step 3)",
        "выполните SQL из `tripwire-sync setup-sql` снова (docs/supabase.md, шаг 3)",
    );
    let before = section.lines.len();

    let unreadable: Vec<&str> = NEEDED
        .into_iter()
        .filter(|column| has(&doctor.columns, column) && !has(&caller.may_select, column))
        .collect();
    if !unreadable.is_empty() {
        let columns = unreadable.join(", ");
        section.bad(
            format!("the role {role} may not read {columns}: {run_again}"),
            format!("роли {role} нельзя читать {columns}: {run_again}"),
        );
    }
    for (column, mark) in [(DEAL, Mark::Bad), (CONTACT, Mark::Warning)] {
        if has(&doctor.columns, column) && !has(&caller.may_update, column) {
            let text = lang.pick(
                format!("the role {role} may not write {column}: {run_again}"),
                format!("роли {role} нельзя записывать {column}: {run_again}"),
            );
            section.add(mark, text);
        }
    }
    if doctor.rls && !caller.bypasses_rls {
        for (is_there, command) in [
            (caller.select_policy, "SELECT"),
            (caller.update_policy, "UPDATE"),
        ] {
            if !is_there {
                section.bad(
                    format!("row level security is on and no policy for {command} holds for the role {role}: it gets 0 rows and no error; {run_again}"),
                    format!("включена RLS, а политики {command} для роли {role} нет: она получает 0 строк без ошибки; {run_again}"),
                );
            }
        }
    }
    if section.lines.len() == before {
        section.good(
            format!("the role {role} may read the table and write the deal's id"),
            format!("роль {role} может читать таблицу и записывать номер сделки"),
        );
    }

    for column in note_columns {
        if has(&doctor.columns, column) && !has(&caller.may_select, column) {
            section.warn(
                format!("NOTE_TEMPLATE names {{{column}}}, which the role {role} may not read; if notes are to hold it, run: grant select ({column}) on public.tripwire_users to {role};"),
                format!("в NOTE_TEMPLATE есть {{{column}}}, а роли {role} эту колонку читать нельзя; если она нужна в примечании, выполните: grant select ({column}) on public.tripwire_users to {role};"),
            );
        } else if !has(&doctor.columns, column) {
            section.warn(
                format!("NOTE_TEMPLATE names {{{column}}}, and the table has no such column: it stays empty"),
                format!("в NOTE_TEMPLATE есть {{{column}}}, а в таблице такой колонки нет: место останется пустым"),
            );
        }
    }
}

/// Whether the trigger is there, so that Vault matters.
fn trigger(doctor: &Doctor, ours: &Ours, findings: &mut Findings) -> bool {
    let mut section = findings.on("trigger");
    let lang = section.reader.lang;
    let Trigger {
        present,
        enabled,
        insert_only,
        ours: is_ours,
    } = doctor.trigger;
    let hooks = doctor.dashboard_webhooks.join(", ");

    if !present && ours.takes_bearer && !hooks.is_empty() {
        section.good(
            format!("the service's trigger is absent; the dashboard's webhooks deliver, unsigned: {hooks}"),
            format!("триггера сервиса нет; события шлют вебхуки панели, без подписи: {hooks}"),
        );
    } else if !present {
        let (mark, lasting) = if ours.sweeps {
            (
                Mark::Warning,
                lang.pick(
                    "rows are found by the sweep alone",
                    "строки находит только сверка",
                ),
            )
        } else {
            (
                Mark::Bad,
                lang.pick(
                    "and RECONCILE_INTERVAL is 0, so the service learns of no new row",
                    "а RECONCILE_INTERVAL равен 0, поэтому сервис не узнаёт о новых строках",
                ),
            )
        };
        let text = lang.pick(
            format!("no trigger, no events: {lasting}; run the SQL of `tripwire-sync setup-sql` (docs/supabase.md, step 3)"),
            format!(
                "триггера нет, событий нет: {lasting}; выполните SQL из `tripwire-sync setup-sql` (docs/supabase.md, шаг 3)"
            ),
        );
        section.add(mark, text);
    } else if !is_ours {
        section.bad(
            "tripwire_sync_notify calls a foreign function: run the SQL of `tripwire-sync setup-sql` again (docs/supabase.md, step 3)",
            "tripwire_sync_notify вызывает чужую функцию: выполните SQL из `tripwire-sync setup-sql` снова (docs/supabase.md, шаг 3)",
        );
    } else if !enabled {
        section.warn(
            "switched off, no events come; on again: alter table public.tripwire_users enable trigger tripwire_sync_notify;",
            "выключен, событий нет; включить: alter table public.tripwire_users enable trigger tripwire_sync_notify;",
        );
    } else if insert_only {
        section.good("fires on INSERT only", "срабатывает только на INSERT");
    } else {
        section.bad(
            "fires on more than INSERT, so the service's own writes come back as events: run the SQL of `tripwire-sync setup-sql` again (docs/supabase.md, step 3)",
            "срабатывает не только на INSERT, и изменения самого сервиса возвращаются событиями: выполните SQL из `tripwire-sync setup-sql` снова (docs/supabase.md, шаг 3)",
        );
    }

    if !hooks.is_empty() && (present || !ours.takes_bearer) {
        section.warn(
            format!("the dashboard has webhooks of its own on this table: {hooks}. They are not signed and carry the whole row; if they point here, delete them (Database, Webhooks)"),
            format!("в панели есть свои вебхуки на эту таблицу: {hooks}. Они без подписи и несут всю строку; если они направлены сюда, удалите их (Database, Webhooks)"),
        );
    }
    if present || !hooks.is_empty() {
        sender(doctor, findings);
    }
    present
}

fn sender(doctor: &Doctor, findings: &mut Findings) {
    let mut section = findings.on("pg_net");
    let Some(version) = &doctor.pg_net else {
        section.bad(
            "not switched on, so no event is sent: Database, Extensions, pg_net",
            "выключен, события не отправляются: Database, Extensions, pg_net",
        );
        return;
    };
    match doctor.queued {
        Some(queued) if queued > USUAL_QUEUE => section.warn(
            format!("{version}; {queued} events wait to be sent. If they do not get fewer: select net.worker_restart();"),
            format!("{version}; событий в очереди: {queued}. Если их не становится меньше: select net.worker_restart();"),
        ),
        Some(_) | None => section.add(Mark::Good, version),
    }
}

fn vault(vault: &Vault, ours: &Ours, findings: &mut Findings) {
    let mut section = findings.on("vault");
    let lang = section.reader.lang;
    let address_again = lang.pick(
        "run the SQL of `tripwire-sync setup-sql` (docs/supabase.md, step 3)",
        "выполните SQL из `tripwire-sync setup-sql` (docs/supabase.md, шаг 3)",
    );
    let secret_again = lang.pick(
        "run the SQL of `tripwire-sync setup-sql --secret` (docs/supabase.md, step 3)",
        "выполните SQL из `tripwire-sync setup-sql --secret` (docs/supabase.md, шаг 3)",
    );
    if let Some(error) = &vault.error {
        section.bad(
            format!("the trigger cannot read Vault ({error}), no event is sent: switch it on (Database, Extensions, supabase_vault), then run the SQL of `tripwire-sync setup-sql` as the role postgres, in the dashboard"),
            format!("триггер не может читать Vault ({error}), события не отправляются: включите его (Database, Extensions, supabase_vault), затем выполните SQL из `tripwire-sync setup-sql` от роли postgres, в панели"),
        );
        return;
    }
    address(vault, address_again, &mut section);
    secrets(vault, ours, secret_again, &mut section);
}

fn address(vault: &Vault, again: &str, section: &mut Section<'_>) {
    let Some(url) = &vault.url else {
        section.bad(
            format!("tripwire_webhook_url is missing or no address, no event is sent: {again}"),
            format!("tripwire_webhook_url нет или это не адрес, события не отправляются: {again}"),
        );
        return;
    };
    let path = vault.url_path.as_deref().unwrap_or_default();
    if !url.starts_with("https://") && !is_this_machine(url) {
        section.bad(
            format!("events go to {url}{path} in the clear, and a redirect to https:// would lose them: {again}"),
            format!("события идут на {url}{path} без шифрования, а перенаправление на https:// их потеряло бы: {again}"),
        );
    } else if path.ends_with(PATH) {
        section.good(
            format!("events go to {url}{path}"),
            format!("события идут на {url}{path}"),
        );
    } else {
        section.warn(
            format!("events go to {url}{path}, and the service takes them at {PATH}: right only if your proxy leads there; else {again}"),
            format!("события идут на {url}{path}, а сервис принимает их на {PATH}: верно, только если туда ведёт ваш прокси; иначе {again}"),
        );
    }
}

fn is_this_machine(origin: &str) -> bool {
    let Some(rest) = origin.strip_prefix("http://") else {
        return false;
    };
    ["localhost", "127.0.0.1", "[::1]", "host.docker.internal"]
        .iter()
        .any(|name| {
            rest.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })
}

/// An event carries a signature by each secret in Vault, and one that we know is enough.
fn secrets(vault: &Vault, ours: &Ours, again: &str, section: &mut Section<'_>) {
    let theirs: BTreeSet<&String> = vault.fingerprints.iter().collect();
    let known: BTreeSet<&String> = ours.fingerprints.iter().collect();
    let common = theirs.intersection(&known).count();

    if theirs.is_empty() {
        section.bad(
            format!("tripwire_webhook_secret is missing or no secret, no event is sent: {again}"),
            format!(
                "tripwire_webhook_secret нет или это не секрет, события не отправляются: {again}"
            ),
        );
    } else if common == 0 {
        section.bad(
            format!("the database signs with a secret that WEBHOOK_SECRET does not hold, every event is refused (401): {again}, with the .env of the service beside it"),
            format!("база подписывает секретом, которого нет в WEBHOOK_SECRET, все события отклоняются (401): {again}, рядом с .env сервиса"),
        );
    } else if common == theirs.len() && common == known.len() {
        if common == 1 {
            section.good(
                "signs with the secret that WEBHOOK_SECRET holds",
                "подписывает тем секретом, что в WEBHOOK_SECRET",
            );
        } else {
            section.advise(
                format!("the secret is being replaced: the database signs with all {common} that WEBHOOK_SECRET holds. Next: take the old one out of WEBHOOK_SECRET and restart the service (docs/supabase.md, Replace the secret, 3)"),
                format!("идёт замена секрета: база подписывает всеми {common}, что есть в WEBHOOK_SECRET. Дальше: уберите старый из WEBHOOK_SECRET и перезапустите сервис (docs/supabase.md, Replace the secret, 3)"),
            );
        }
    } else {
        replacing(theirs.len(), known.len(), common, section);
    }
    if vault.unusable > 0 {
        let count = vault.unusable;
        section.warn(
            format!("tripwire_webhook_secret has parts that are no secret (whsec_…): {count}; {again}"),
            format!("в tripwire_webhook_secret есть части, которые не секрет (whsec_…): {count}; {again}"),
        );
    }
}

/// The state of a replacement in which the two sides hold different secrets, and its next step.
fn replacing(theirs: usize, known: usize, common: usize, section: &mut Section<'_>) {
    if common == theirs {
        section.warn(
            format!("the secret is being replaced: WEBHOOK_SECRET holds {known}, the database signs with {theirs} of them. Next: run the SQL of `tripwire-sync setup-sql --secret` (docs/supabase.md, Replace the secret, 2)"),
            format!("идёт замена секрета: в WEBHOOK_SECRET секретов {known}, база подписывает {theirs} из них. Дальше: выполните SQL из `tripwire-sync setup-sql --secret` (docs/supabase.md, Replace the secret, 2)"),
        );
    } else if common == known {
        section.warn(
            format!("the secret is being replaced: the database signs with {theirs}, WEBHOOK_SECRET holds {known} of them. Last step: run the SQL of `tripwire-sync setup-sql --secret` (docs/supabase.md, Replace the secret, 4)"),
            format!("идёт замена секрета: база подписывает {theirs}, в WEBHOOK_SECRET {known} из них. Последний шаг: выполните SQL из `tripwire-sync setup-sql --secret` (docs/supabase.md, Replace the secret, 4)"),
        );
    } else {
        section.warn(
        format!("the database signs with {theirs} secrets, WEBHOOK_SECRET holds {known}, both have {common}: run the SQL of `tripwire-sync setup-sql --secret` with the .env of the service beside it (docs/supabase.md, Replace the secret)"),
        format!("база подписывает {theirs} секретами, в WEBHOOK_SECRET их {known}, общих {common}: выполните SQL из `tripwire-sync setup-sql --secret`, имея рядом .env сервиса (docs/supabase.md, Replace the secret)"),
    );
    }
}

/// The database stamps its events by its own clock, and we refuse what is too old or too new by ours.
fn clocks(theirs: Timestamp, ours: &Ours, findings: &mut Findings) {
    let mut section = findings.on("clock");
    let lang = section.reader.lang;
    let ahead: SignedDuration = theirs.duration_since(ours.at);
    let apart = ahead.unsigned_abs();
    let seconds = ahead.as_secs_f64();
    let tolerance = ours.tolerance.as_secs();
    let text = lang.pick(
        format!("the database is {seconds:+.1} s from this machine"),
        format!("часы базы отличаются от часов этой машины на {seconds:+.1} с"),
    );
    let why = lang.pick(
        format!("events more than {tolerance} s off are refused (WEBHOOK_TOLERANCE): let this machine keep its time by NTP"),
        format!("события с разницей больше {tolerance} с отклоняются (WEBHOOK_TOLERANCE): включите на этой машине синхронизацию времени (NTP)"),
    );
    if apart > ours.tolerance {
        section.add(Mark::Bad, format!("{text}; {why}"));
    } else if apart > ours.tolerance / WORTH_A_WORD {
        section.add(Mark::Warning, format!("{text}; {why}"));
    } else {
        section.add(Mark::Good, text);
    }
}

fn lease(lease: Option<&Lease>, holder: Option<&str>, findings: &mut Findings) {
    let mut section = findings.on("lease");
    let Some(Lease {
        held_by,
        seconds_left,
    }) = lease.filter(|lease| lease.seconds_left > 0.0)
    else {
        section.good(
            "it is free: no service is syncing right now",
            "свободно: сейчас ни один сервис не отправляет",
        );
        return;
    };
    if holder == Some(held_by) {
        section.good(
            format!("held by the service with this inbox, for {seconds_left:.0} s more"),
            format!("у сервиса с этой очередью, ещё {seconds_left:.0} с"),
        );
    } else {
        section.good(
            format!("held by {held_by} for {seconds_left:.0} s more: that service syncs, others only accept"),
            format!("у {held_by}, ещё {seconds_left:.0} с: отправляет тот сервис, остальные только принимают"),
        );
    }
}

/// Whether a pause holds for all services, and whether there is one.
pub(super) fn pause(answer: Option<&PauseAnswer>, findings: &mut Findings) {
    let mut section = findings.on("pause");
    match answer {
        None => section.advise(
            "the database has no function tripwire_sync_pause, so a pause holds for one machine only: run the SQL of `tripwire-sync setup-sql`",
            "в базе нет функции tripwire_sync_pause, поэтому пауза действует только на одной машине: выполните SQL из `tripwire-sync setup-sql`",
        ),
        Some(PauseAnswer {
            last: Some(LastPause { is_paused: true, changed_at, .. }),
            ..
        }) => {
            let since = section.reader.time(*changed_at);
            section.warn(
                format!("all services are paused since {since}: go on with `tripwire-sync resume`"),
                format!("все сервисы на паузе с {since}: продолжить — `tripwire-sync resume`"),
            );
        }
        Some(_) => section.good("there is none", "нет"),
    }
}

#[cfg(test)]
mod tests;
