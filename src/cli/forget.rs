//! `forget`: removes a student from the inbox.

use super::{CommandError, Outcome, entries::open, explain::Whom, terminal::Terminal};
use crate::{domain::RowId, sync::lease::standby};

pub(super) async fn run(whom: &str, terminal: &mut Terminal) -> Outcome {
    let whom = Whom::of(whom, terminal)?;
    let inbox = open(terminal).await?;
    let entries = whom.entries(&inbox).await?;
    let rows: Vec<RowId> = entries.iter().map(|entry| entry.row).collect();
    let people = entries.iter().filter_map(|entry| entry.progress.person);
    let people = people.chain(whom.hash(&inbox)).collect();
    let forgotten = inbox.forget(rows.clone(), people).await?;
    let standby = standby(&inbox).await?;
    if forgotten.is_some() {
        // The engine names them no more.
        inbox.let_go(&rows).await?;
    }
    inbox.close().await;

    let Some(forgotten) = forgotten else {
        terminal.complain(terminal.pick(
            "a row of this student is at work, or a write of it may still reach amoCRM; nothing was removed: run the command again in a minute, while the service runs",
            "строка этого ученика в работе, или её изменение ещё может дойти до amoCRM; ничего не удалено: повторите команду через минуту, при работающем сервисе",
        ));
        return Err(CommandError::Told);
    };
    if let Some(holder) = standby {
        let told = terminal.pick(
            "this service stands by, and another one syncs; run the command there as well:",
            "этот сервис в резерве, синхронизирует другой; выполните команду и там:",
        );
        terminal.complain(format!("{told} {holder}").trim_end());
    }
    if forgotten == 0 {
        terminal.complain(terminal.pick(
            "the inbox knows nothing of this student",
            "в очереди нет ничего об этом ученике",
        ));
        return Err(CommandError::Told);
    }
    terminal.say(terminal.pick(
        "forgotten: entry, history, and the hash of the e-mail, in the contact index too\n\
         What remains elsewhere: the row in Supabase (while it has no deal id, the service takes it up again), contact, deal and\n\
         note in amoCRM; the hash of the phone in the contact index; logs, alerts, backups and damaged copies of the inbox, which hold ids and\n\
         hashes only.",
        "удалено: запись очереди, история и хеш e-mail, также в указателе контактов\n\
         Что остаётся в других местах: строка в Supabase (пока в ней нет номера сделки, сервис возьмёт её снова), контакт, сделка и\n\
         примечание в amoCRM; хеш телефона в указателе контактов; логи, оповещения, копии и повреждённые файлы очереди: в них только номера\n\
         и хеши.",
    ))?;
    Ok(())
}
