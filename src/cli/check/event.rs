//! The test event: the database sends it the whole way to the service, and the result names the part of the way that fails.

use std::time::Duration;

use super::findings::{Findings, Mark, Section};
use crate::{
    domain::Nonce,
    supabase::{Answer, Doctor, Journey, Supabase},
    words::Lang,
};

/// Sends a test event, waits for its answer as long as `patience`, and adds a line about it.
pub(super) async fn check(
    supabase: &Supabase,
    doctor: &Doctor,
    patience: Duration,
    findings: &mut Findings,
) {
    let nonce = Nonce::new(rand::random());
    match supabase.try_test_event(nonce, patience).await {
        Ok(journey) => tell(&journey, nonce, doctor, findings),
        Err(error) => findings.on("event").fail(Mark::Warning, &error),
    }
}

/// The line where only the dashboard's own webhooks are set up, which cannot be tried.
pub(super) fn no_test(findings: &mut Findings) {
    findings.on("event").good(
        "not tried: the dashboard's own webhooks send no test event; the next student shows whether they arrive (docs/supabase.md, step 6)",
        "не проверено: собственные вебхуки панели не шлют проверочных событий; придут ли они, покажет следующий ученик (docs/supabase.md, шаг 6)",
    );
}

fn tell(journey: &Journey, nonce: Nonce, doctor: &Doctor, findings: &mut Findings) {
    let mut section = findings.on("event");
    let lang = section.reader.lang;
    match journey {
        Journey::NoFunction => section.warn(
            "not tried: the database has no test event for this role; run the SQL of `tripwire-sync setup-sql` again (docs/supabase.md, step 3)",
            "не проверено: в базе нет проверочного события для этой роли; выполните SQL из `tripwire-sync setup-sql` снова (docs/supabase.md, шаг 3)",
        ),
        Journey::TooSoon => section.warn(
            "not tried: other test events were under way; run this again in ten seconds",
            "не проверено: идёт другая проверка; повторите через десять секунд",
        ),
        Journey::NotSigned { why } => section.bad(
            format!("the test event was not signed: {why}; what to do stands at `vault`"),
            format!("проверочное событие не подписано: {why}; что делать, написано в строке `vault`"),
        ),
        Journey::NotQueued { why } => {
            let advice = why_not_queued(why, doctor, lang);
            section.bad(
                format!("the test event was signed, and pg_net did not take it: {why}; {advice}"),
                format!("проверочное событие подписано, но pg_net его не принял: {why}; {advice}"),
            );
        }
        Journey::Queued {
            ahead,
            is_moving: true,
        } => section.warn(
            format!("the test event is queued and waits behind {ahead} others, which pg_net is sending: run this again later"),
            format!("проверочное событие в очереди, перед ним {ahead}, и pg_net их отправляет: повторите позже"),
        ),
        Journey::Queued { ahead, .. } => {
            let advice = why_not_sent(doctor, lang);
            section.bad(
                format!("the test event is queued behind {ahead} others, and pg_net sends nothing: {advice}"),
                format!("проверочное событие в очереди, перед ним {ahead}, а pg_net ничего не отправляет: {advice}"),
            );
        }
        Journey::Lost => section.bad(
            "the test event left the queue, and pg_net has noted no answer: Postgres was restarted, or pg_net's tables were emptied; run this again",
            "проверочное событие ушло из очереди pg_net, а ответа он не записал: базу перезапустили или таблицы pg_net очистили; повторите",
        ),
        Journey::Answered { noted, after } => {
            let to = address(doctor);
            match noted.status {
                Some(200) => {
                    answered_well(noted.content.as_deref(), nonce, &to, *after, &mut section);
                }
                Some(status) => refused(status, &to, &mut section),
                None => {
                    undelivered(noted.timed_out, noted.error.as_deref(), &to, &mut section);
                }
            }
        }
    }
}

fn why_not_queued(why: &str, doctor: &Doctor, lang: Lang) -> &'static str {
    let sender = &doctor.sender;
    if why.contains("42501") {
        return lang.pick(
            "PUBLIC (up to pg_net 0.11 the role postgres) may not call net.http_post or write net.http_request_queue. Supabase grants it when pg_net is switched off and on again: Database, Extensions, pg_net",
            "PUBLIC (до pg_net 0.11 — роли postgres) нельзя вызывать net.http_post или писать в net.http_request_queue. Supabase выдаёт эти права, если выключить и включить pg_net: Database, Extensions, pg_net",
        );
    }
    if why.contains("55P03") {
        return lang.pick(
            "its queue was locked for half a second: run this again",
            "очередь pg_net была заблокирована полсекунды: повторите",
        );
    }
    if sender.preloaded == Some(false) {
        return not_preloaded(lang);
    }
    lang.pick(
        "is it switched on? Database, Extensions, pg_net. More is in Logs, Postgres",
        "включён ли он? Database, Extensions, pg_net. Подробности в Logs, Postgres",
    )
}

fn not_preloaded(lang: Lang) -> &'static str {
    lang.pick(
        "pg_net is not in shared_preload_libraries, so it has no worker: restart the project; if that does not help, ask Supabase's support",
        "pg_net нет в shared_preload_libraries, у него нет рабочего процесса: перезапустите проект, а если не поможет, напишите в поддержку Supabase",
    )
}

/// What the doctor saw of the worker, the surest cause first.
fn why_not_sent(doctor: &Doctor, lang: Lang) -> String {
    let sender = &doctor.sender;
    if sender.preloaded == Some(false) {
        return not_preloaded(lang).to_owned();
    }
    if let Some(other) = &sender.other_database {
        return lang.pick(
            format!("its worker serves the database {other} (pg_net.database_name)"),
            format!("его рабочий процесс обслуживает базу {other} (pg_net.database_name)"),
        );
    }
    if let Some(version) = &sender.update_to {
        return lang.pick(
            format!("its program is {version} and its SQL older, so no event wakes it. Only Supabase may update the SQL: upgrade the project, or ask the support for ALTER EXTENSION pg_net UPDATE"),
            format!("программа версии {version}, а её SQL старше, поэтому события её не будят. Обновить SQL может только Supabase: обновите проект или попросите поддержку выполнить ALTER EXTENSION pg_net UPDATE"),
        );
    }
    let restart = "select net.worker_restart();";
    if sender.workers == Some(0) {
        return lang.pick(
            format!("it has no worker: {restart} If that does not help, restart the project"),
            format!(
                "у него нет рабочего процесса: {restart} Если не поможет, перезапустите проект"
            ),
        );
    }
    lang.pick(
        format!("its worker sleeps: select net.wake(); or {restart} If that does not help, restart the project"),
        format!("его рабочий процесс спит: select net.wake(); или {restart} Если не поможет, перезапустите проект"),
    )
}

fn answered_well(
    content: Option<&str>,
    nonce: Nonce,
    to: &str,
    after: Duration,
    section: &mut Section<'_>,
) {
    let seconds = after.as_secs_f64();
    match Answer::read(content, nonce) {
        Answer::Ours => section.good(
            format!("a test event came from the database to the service and was verified, in {seconds:.1} s"),
            format!("проверочное событие дошло от базы до сервиса и прошло проверку за {seconds:.1} с"),
        ),
        Answer::Older => section.warn(
            format!("the test event reached {to}, where an older version of the service runs: it was verified and ignored"),
            format!("проверочное событие дошло до {to}, где работает старая версия сервиса: событие прошло проверку, но не учтено"),
        ),
        Answer::Another => section.bad(
            format!("the test event was sent to {to}, and what answered there is not the service: set the address (docs/supabase.md, Another address)"),
            format!("проверочное событие ушло на {to}, но ответил там не этот сервис: задайте адрес (docs/supabase.md, Another address)"),
        ),
    }
}

fn refused(status: u16, to: &str, section: &mut Section<'_>) {
    let lang = section.reader.lang;
    let advice = match status {
        401 => lang.pick(
            "WEBHOOK_SECRET of that service is not the one in Vault, or a clock is off: see `vault` and `clock` here, and restart the service with the right .env",
            "WEBHOOK_SECRET того сервиса не совпадает с Vault или расходятся часы: смотрите здесь `vault` и `clock` и перезапустите сервис с верным .env",
        ),
        404 | 405 => lang.pick(
            "that is not where the service takes events, or a redirect leads away from it: set the final address (docs/supabase.md, Another address)",
            "сервис принимает события не там или туда ведёт перенаправление: задайте окончательный адрес (docs/supabase.md, Another address)",
        ),
        503 => lang.pick(
            "the service cannot write its inbox: see its log",
            "сервис не может записывать в свою очередь: смотрите его лог",
        ),
        _ => lang.pick(
            "look at the service and at the proxy in front of it",
            "проверьте сервис и прокси перед ним",
        ),
    };
    section.bad(
        format!("the test event was sent to {to} and answered with {status}: {advice}"),
        format!("проверочное событие ушло на {to} и получило ответ {status}: {advice}"),
    );
}

fn undelivered(timed_out: bool, error: Option<&str>, to: &str, section: &mut Section<'_>) {
    let why = if timed_out {
        let told = section
            .reader
            .pick("no answer within 5 s", "нет ответа 5 с");
        told.to_owned()
    } else {
        let error = error.unwrap_or_default();
        error.chars().filter(|c| !c.is_control()).collect()
    };
    section.bad(
        format!("the test event was sent to {to} and did not arrive ({why}): does the service run, and can it be reached from the internet?"),
        format!("проверочное событие ушло на {to} и не дошло ({why}): работает ли сервис и доступен ли он из интернета?"),
    );
}

fn address(doctor: &Doctor) -> String {
    let vault = &doctor.vault;
    let parts = [&vault.url, &vault.url_path];
    parts.into_iter().flatten().map(String::as_str).collect()
}

#[cfg(test)]
mod tests;
