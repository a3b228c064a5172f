//! `forget`: removes every trace of a student from the inbox.

use super::{
    CommandError, Outcome,
    entries::{open, release},
    explain::Whom,
    terminal::Terminal,
};
use crate::{domain::RowId, inbox::State};

pub(super) async fn run(whom: &str, terminal: &mut Terminal) -> Outcome {
    let whom = Whom::of(whom, terminal)?;
    let inbox = open(terminal).await?;
    let entries = whom.entries(&inbox).await?;
    let rows: Vec<RowId> = entries.iter().map(|entry| entry.row).collect();
    let at_work = entries.iter().filter(|it| it.state == State::Claimed);
    let at_work = at_work.count() as u64;
    let hashes = entries
        .iter()
        .flat_map(|entry| [entry.progress.person, entry.progress.phone])
        .flatten()
        .chain(whom.hash(&inbox))
        .collect();
    release(&inbox, &rows).await?;
    let forgotten = inbox.forget(rows, hashes).await?;
    inbox.close().await;

    if at_work > 0 {
        terminal.complain(terminal.pick(
            "a row of this student is being worked on this very moment: run the command again",
            "строка этого ученика прямо сейчас в работе: повторите команду",
        ));
        return Err(CommandError::Told);
    }
    if forgotten == 0 {
        terminal.complain(terminal.pick(
            "the inbox knows nothing of this student",
            "в очереди нет ничего об этом ученике",
        ));
        return Err(CommandError::Told);
    }
    terminal.say(terminal.pick(
        "forgotten: entry, history, hashes of e-mail and phone\n\
         What remains elsewhere: the row in Supabase (while it has no deal id, the service takes it up again), contact, deal and\n\
         note in amoCRM; logs, backups of the inbox and alerts, which name ids only.",
        "забыто: запись, история, хеши e-mail и телефона\n\
         Что остаётся в других местах: строка в Supabase (пока в ней нет номера сделки, сервис возьмёт её снова), контакт, сделка и\n\
         примечание в amoCRM; логи, копии очереди и оповещения: в них только номера.",
    ))?;
    Ok(())
}
