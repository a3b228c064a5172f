//! What an undo means, and what it came to.

use std::collections::BTreeMap;

use serde_json::json;
use strum::IntoStaticStr;

use crate::{
    cli::{CommandError, Outcome, backfill::End, terminal::Terminal},
    domain::{DealId, RowId},
    inbox::{self, Entry, Move, Names, State, Undo, UndoLeft},
    words,
};

/// A row, and what becomes of its deal.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// `None`: no row is known for the e-mail that was asked for.
    pub(super) row: Option<RowId>,
    pub(super) deal: Option<DealId>,
    /// `None`: nothing is undone.
    pub(super) moved: Option<Move>,
    /// The way back may have been sent before.
    pub(super) is_sent: bool,
    pub(super) result: Result,
}

#[derive(Debug, Clone, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(super) enum Result {
    ToUndo,
    Undone,
    Left(UndoLeft),
    Parked(String),
    /// The wish is stored, and is not carried out yet.
    Open,
    /// amoCRM's answer for it cannot be read.
    Unreadable,
}

impl Result {
    pub(super) fn of(entry: Option<&Entry>) -> Self {
        let Some(entry) = entry else {
            return Self::Left(UndoLeft::Unknown);
        };
        match (entry.state, entry.outcome, entry.progress.undo) {
            (State::Done, Some(inbox::Outcome::Undone), _) => Self::Undone,
            (State::Done, _, Some(Undo::Left(why))) => Self::Left(why),
            // It was at work at the moment of the command.
            (State::Done, ..) => Self::Left(UndoLeft::NotFinished),
            (State::Parked, ..) => Self::Parked(entry.reason.clone().unwrap_or_default()),
            (State::Pending | State::Claimed | State::Waiting, ..) => Self::Open,
        }
    }
}

pub(super) fn rows_to_undo(changes: &[Change]) -> Vec<RowId> {
    let to_undo = changes.iter().filter(|it| it.result == Result::ToUndo);
    to_undo.filter_map(|change| change.row).collect()
}

/// Before the question.
pub(super) fn say_what_it_means(changes: &[Change], terminal: &mut Terminal) {
    let to_undo = rows_to_undo(changes).len();
    let deals = terminal.pick("deals to be moved back", "сделок будет возвращено");
    terminal.complain(&format!("{deals}: {to_undo}"));
    let mut left: BTreeMap<UndoLeft, u64> = BTreeMap::new();
    for change in changes {
        if let Result::Left(why) = change.result {
            *left.entry(why).or_default() += 1;
        }
    }
    for (why, count) in left {
        let stay = terminal.pick("left where they stand", "останутся на месте");
        let why = words::undo_left(why, terminal.lang());
        terminal.complain(&format!("{stay}: {count} ({why})"));
    }
    terminal.complain(terminal.pick(
        "A deal goes back only if it still stands where the service put it. The row keeps its deal id, and the note stays on \
         the deal. Every deal that is moved sets off the account's own automations (messages, tasks, bots), as if a manager \
         had moved it. Look first with --dry-run.",
        "Сделка вернётся, только если она всё ещё стоит там, куда её перенёс сервис. Номер сделки останется в строке, а \
         примечание — в сделке. Каждый перенос запустит автоматизации аккаунта (сообщения, задачи, Salesbot), как если бы \
         сделку перенёс менеджер. Сначала посмотрите с --dry-run.",
    ));
}

/// Fails when something that was asked for is not undone.
pub(super) fn tell(
    changes: &[Change],
    names: &Names,
    end: End,
    as_json: bool,
    terminal: &mut Terminal,
) -> Outcome {
    let mut totals: BTreeMap<&'static str, u64> = BTreeMap::new();
    for change in changes {
        *totals.entry(change.result.into_str()).or_default() += 1;
    }
    if as_json {
        let rows: Vec<_> = changes.iter().map(as_value).collect();
        let value = json!({ "end": end.into_str(), "totals": totals, "rows": rows });
        terminal.say(&serde_json::to_string_pretty(&value)?)?;
    } else if changes.is_empty() {
        terminal.say(terminal.pick(
            "nothing to do: no such row in the inbox",
            "делать нечего: таких строк в очереди нет",
        ))?;
    } else {
        let head = terminal.pick(
            ["row", "deal", "moved", "from", "what"],
            ["строка", "сделка", "перенесена", "с этапа", "что"],
        );
        let lines: Vec<Vec<String>> = changes.iter().map(|it| line(it, names, terminal)).collect();
        terminal.table(&head, &lines)?;
    }
    if let Some(advice) = end.advice(terminal) {
        terminal.complain(advice);
    } else if totals.contains_key("parked") {
        terminal.complain(terminal.pick(
            "parked: see `tripwire-sync explain`; `tripwire-sync retry` tries the undo again",
            "отложенные: `tripwire-sync explain`; `tripwire-sync retry` повторит возврат",
        ));
    }
    let is_whole = match end {
        End::DryRun => true,
        End::Drained => changes.iter().all(|change| is_settled(&change.result)),
        End::Interrupted | End::Standby | End::InDoubt => false,
    };
    if is_whole {
        Ok(())
    } else {
        Err(CommandError::Told)
    }
}

/// A deal that is left for a reason that another try does not change is no failure, but a row that is not known is.
fn is_settled(result: &Result) -> bool {
    match result {
        Result::Undone => true,
        Result::Left(why) => !matches!(
            why,
            UndoLeft::Unknown | UndoLeft::NotFinished | UndoLeft::Withdrawn
        ),
        Result::ToUndo | Result::Parked(_) | Result::Open | Result::Unreadable => false,
    }
}

fn as_value(change: &Change) -> serde_json::Value {
    let reason = match &change.result {
        Result::Left(why) => Some(json!(why)),
        Result::Parked(reason) => Some(json!(reason)),
        _ => None,
    };
    json!({
        "row": change.row,
        "deal": change.deal,
        "moved_at": change.moved.map(|moved| moved.at),
        "from": change.moved.map(|moved| moved.from),
        "to": change.moved.map(|moved| moved.to),
        "result": change.result.into_str(),
        "reason": reason,
    })
}

fn line(change: &Change, names: &Names, terminal: &Terminal) -> Vec<String> {
    let moved = change.moved;
    let from = moved.map(|moved| match names.stage(moved.from) {
        Some(name) => name.to_owned(),
        None => moved.from.to_string(),
    });
    vec![
        change.row.map(|row| row.to_string()).unwrap_or_default(),
        change.deal.map(|deal| deal.to_string()).unwrap_or_default(),
        moved
            .map(|moved| terminal.reader().time(moved.at))
            .unwrap_or_default(),
        from.unwrap_or_default(),
        what(&change.result, terminal),
    ]
}

fn what(result: &Result, terminal: &Terminal) -> String {
    match result {
        Result::ToUndo => terminal
            .pick("would be moved back", "будет возвращена")
            .to_owned(),
        Result::Undone => terminal.pick("moved back", "возвращена").to_owned(),
        Result::Left(why) => {
            let left = terminal.pick("left", "не тронута");
            format!("{left}: {}", words::undo_left(*why, terminal.lang()))
        }
        Result::Parked(reason) => {
            let parked = terminal.pick("parked", "отложена");
            format!("{parked}: {reason}")
        }
        Result::Open => terminal.pick("not finished", "не завершена").to_owned(),
        Result::Unreadable => terminal
            .pick("amoCRM's answer cannot be read", "ответ amoCRM не читается")
            .to_owned(),
    }
}
