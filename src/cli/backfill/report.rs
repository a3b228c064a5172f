//! What a backfill came to.

use std::time::Duration;

use serde_json::json;
use strum::IntoStaticStr;

use super::progress::{Standing, span_text};
use crate::{
    cli::{CommandError, Outcome, terminal::Terminal},
    inbox::BackfillId,
};

/// How the work on rows ended, be it a backfill or an undo.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(in crate::cli) enum End {
    DryRun,
    #[default]
    Drained,
    Interrupted,
    /// Another machine syncs, and knows nothing of our inbox.
    Standby,
    /// The remaining rows were refused. Only another row can tell whether they or all rows are refused.
    InDoubt,
}

impl End {
    /// What a person does about rows that are not finished.
    pub(in crate::cli) fn advice(self, terminal: &Terminal) -> Option<&'static str> {
        match self {
            Self::DryRun | Self::Drained => None,
            Self::Interrupted => Some(terminal.pick(
                "interrupted: what is not finished stays in the inbox; run this again, or let `tripwire-sync serve` finish it",
                "прервано: незавершённое осталось в очереди; запустите команду ещё раз или дайте закончить `tripwire-sync serve`",
            )),
            Self::Standby => Some(terminal.pick(
                "another machine does the syncing, and will not look at this inbox: run this there, or stop the service there \
                 and run this again",
                "синхронизирует сервис на другой машине, и эту очередь он не видит: запустите команду там или остановите тот \
                 сервис и повторите здесь",
            )),
            Self::InDoubt => Some(terminal.pick(
                "refused again and again: whether for these rows alone, other rows will tell while `tripwire-sync serve` runs; \
                 see `tripwire-sync check`, or set them aside with `tripwire-sync park`",
                "отказ повторяется: только ли этим строкам, покажут другие строки, пока работает `tripwire-sync serve`; \
                 см. `tripwire-sync check` или отложите их: `tripwire-sync park`",
            )),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Totals {
    /// `None`: there was nothing to do.
    pub(super) backfill: Option<BackfillId>,
    pub(super) standing: Standing,
    pub(super) parked_before: u64,
    pub(super) waiting_before: u64,
    pub(super) took: Duration,
    pub(super) end: End,
}

pub(super) fn nothing_to_do(as_json: bool, terminal: &mut Terminal) -> Outcome {
    if as_json {
        return tell(&Totals::default(), as_json, terminal);
    }
    Ok(terminal.say(terminal.pick(
        "nothing to do: no row without a deal",
        "делать нечего: строк без сделки нет",
    ))?)
}

/// Fails when a person has something left to do.
pub(super) fn tell(totals: &Totals, as_json: bool, terminal: &mut Terminal) -> Outcome {
    if as_json {
        terminal.say(&serde_json::to_string_pretty(&as_value(totals))?)?;
    } else {
        let head = terminal.pick(["what", "rows"], ["что", "строк"]);
        terminal.table(&head, &lines(totals, terminal))?;
        let took = terminal.pick("time", "время");
        terminal.say(&format!("{took}: {}", span_text(totals.took, terminal)))?;
    }
    for advice in advice(totals, terminal) {
        terminal.complain(advice);
    }
    if totals.end == End::Drained && totals.standing.parked == 0 {
        Ok(())
    } else {
        Err(CommandError::Told)
    }
}

fn as_value(totals: &Totals) -> serde_json::Value {
    let standing = &totals.standing;
    json!({
        "end": totals.end.into_str(),
        "backfill": totals.backfill.map(BackfillId::number),
        "rows": standing.total,
        "done": standing.done,
        "waiting": standing.waiting,
        "parked": standing.parked,
        "open": standing.open,
        "elsewhere": standing.elsewhere(),
        "before": { "waiting": totals.waiting_before, "parked": totals.parked_before },
        "seconds": totals.took.as_secs(),
    })
}

/// Lines with zero are left out, except the most important ones.
fn lines(totals: &Totals, terminal: &Terminal) -> Vec<Vec<String>> {
    let standing = &totals.standing;
    let done = |name| standing.done.get(name).copied().unwrap_or(0);
    let lines = [
        (terminal.pick("synced", "обработаны"), done("synced"), true),
        (
            terminal.pick("had a deal already", "номер сделки уже есть"),
            done("already_linked"),
            false,
        ),
        (
            terminal.pick("left out by their status", "пропущены по статусу"),
            done("skipped"),
            false,
        ),
        (
            terminal.pick("too old", "слишком старые"),
            done("too_old"),
            false,
        ),
        (terminal.pick("removed", "удалены"), done("gone"), false),
        (
            terminal.pick(
                "left alone: undone before",
                "не тронуты: сделка возвращена раньше",
            ),
            done("undone"),
            false,
        ),
        (
            terminal.pick("waiting for a contact", "ожидают контакт"),
            standing.waiting,
            true,
        ),
        (
            terminal.pick("parked for a person", "отложены до вашего решения"),
            standing.parked,
            true,
        ),
        (
            terminal.pick("not finished", "не завершены"),
            standing.open,
            false,
        ),
        (
            terminal.pick(
                "counted elsewhere (removed from the inbox, or asked for again)",
                "учтены не здесь (убраны из очереди или взяты другой командой)",
            ),
            standing.elsewhere(),
            false,
        ),
        (
            terminal.pick(
                "left alone: waiting for a contact before",
                "не тронуты: ожидали контакт и раньше",
            ),
            totals.waiting_before,
            false,
        ),
        (
            terminal.pick("left alone: parked before", "не тронуты: отложены раньше"),
            totals.parked_before,
            false,
        ),
    ];
    lines
        .into_iter()
        .filter(|(_, count, always)| *always || *count > 0)
        .map(|(what, count, _)| vec![what.to_owned(), count.to_string()])
        .collect()
}

fn advice(totals: &Totals, terminal: &Terminal) -> Vec<&'static str> {
    let mut advice: Vec<_> = totals.end.advice(terminal).into_iter().collect();
    if totals.standing.waiting > 0 {
        advice.push(terminal.pick(
            "a row that waits goes on by itself when its contact appears, while `tripwire-sync serve` runs",
            "строки, которые ожидают контакт, обработаются сами, когда он появится, если работает `tripwire-sync serve`",
        ));
    }
    if totals.standing.parked + totals.parked_before > 0 {
        advice.push(terminal.pick(
            "parked: see `tripwire-sync entries --state parked`, then `tripwire-sync retry --parked`",
            "отложенные: `tripwire-sync entries --state parked`, затем `tripwire-sync retry --parked`",
        ));
    }
    advice
}
