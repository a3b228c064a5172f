//! `entries`, `retry`, `park`: the inbox, beside a service that may be running on it.

use std::path::Path;

use serde_json::json;

use super::{CommandError, Outcome, clock, terminal::Terminal};
use crate::{
    config::Config,
    domain::RowId,
    inbox::{Entry, Fact, Inbox, InboxError, Names, Revival, Role, State},
    story,
    sync::lease::{LEASE, LeaseStatus, Record, standby},
    words::{self, Lang},
};

pub(super) async fn list(
    state: Option<State>,
    limit: u32,
    as_json: bool,
    terminal: &mut Terminal,
) -> Outcome {
    let inbox = open(terminal).await?;
    let entries = inbox.entries(state, limit).await?;
    let counts = inbox.counts().await?;
    let lease: Option<Record> = inbox.state(LEASE).await?;
    let holder = standby(&inbox).await?;
    inbox.close().await;
    if as_json {
        let list: Vec<_> = entries.iter().map(as_value).collect();
        return Ok(terminal.say(&serde_json::to_string_pretty(&list)?)?);
    }
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            vec![
                entry.row.to_string(),
                state_in_words(entry.state, terminal).to_owned(),
                entry
                    .progress
                    .step
                    .deal()
                    .map(|deal| deal.to_string())
                    .unwrap_or_default(),
                entry.attempts.to_string(),
                terminal.reader().time(entry.updated_at),
                if entry.state == State::Done {
                    String::new()
                } else {
                    terminal.reader().time(entry.due_at)
                },
                what(entry, terminal),
            ]
        })
        .collect();
    let head = terminal.pick(
        [
            "row",
            "state",
            "deal",
            "failed",
            "changed",
            "next attempt",
            "what",
        ],
        [
            "строка",
            "состояние",
            "сделка",
            "сбоев",
            "изменено",
            "следующая попытка",
            "что",
        ],
    );
    terminal.table(&head, &rows)?;
    let total: Vec<String> = counts
        .each()
        .map(|(state, count)| format!("{} {count}", state_in_words(state, terminal)))
        .collect();
    terminal.say("")?;
    if let Some(lease) = lease {
        let since = terminal.pick("since", "с");
        let standing = standing(&lease, terminal);
        terminal.say(&format!(
            "{standing} ({since} {})",
            terminal.reader().time(lease.since)
        ))?;
        if let Some(holder) = holder.filter(|holder| !holder.is_empty()) {
            let syncs = terminal.pick("the service that syncs:", "синхронизирует сервис:");
            terminal.say(&format!("{syncs} {holder}"))?;
        }
    }
    Ok(terminal.say(&total.join(", "))?)
}

/// How the service on this inbox stood to the lease when it last changed.
fn standing(lease: &Record, terminal: &Terminal) -> &'static str {
    match lease.status {
        LeaseStatus::Unknown => "",
        LeaseStatus::Ours => terminal.pick("this service syncs", "синхронизирует этот сервис"),
        LeaseStatus::Theirs => terminal.pick(
            "standby: another service syncs, this one accepts",
            "в резерве: синхронизирует другой сервис, этот принимает события",
        ),
        LeaseStatus::Unconfirmed => terminal.pick(
            "standby: Supabase does not confirm the lease",
            "в резерве: Supabase не подтверждает право на отправку",
        ),
        LeaseStatus::Alone => terminal.pick(
            "no lease function in Supabase (run the SQL of `tripwire-sync setup-sql`): two services would work at once",
            "в Supabase нет функции tripwire_sync_lease (выполните SQL из `tripwire-sync setup-sql`): два сервиса работали бы одновременно",
        ),
    }
}

fn as_value(entry: &Entry) -> serde_json::Value {
    let mut value = story::entry_value(entry);
    value["due_at"] = json!(entry.due_at);
    value
}

/// In English the name that `--state` takes.
pub(super) fn state_in_words(state: State, terminal: &Terminal) -> &'static str {
    terminal.pick(state.into_str(), words::state(state, Lang::Russian))
}

fn what(entry: &Entry, terminal: &Terminal) -> String {
    match (&entry.outcome, &entry.reason) {
        (Some(outcome), _) => terminal.pick(
            outcome.into_str().to_owned(),
            words::history(&[Fact::Done(*outcome)], &Names::default(), Lang::Russian),
        ),
        (None, Some(reason)) => reason.clone(),
        (None, None) => String::new(),
    }
}

pub(super) async fn retry(rows: Vec<RowId>, parked: bool, terminal: &mut Terminal) -> Outcome {
    let inbox = open(terminal).await?;
    refuse_on_standby(&inbox, terminal).await?;
    let revived = if rows.is_empty() && !parked {
        let parked = inbox.counts().await?.by_state.get(&State::Parked).copied();
        inbox.close().await;
        return Err(ask_which(parked.unwrap_or(0), terminal));
    } else if parked {
        inbox.revive(Revival::AllParked).await?
    } else {
        inbox.retry(rows).await?
    };
    inbox.close().await;
    Ok(terminal.say(&format!(
        "{} {revived}",
        terminal.pick("to be tried again:", "будут повторены:")
    ))?)
}

/// Says what `retry` may be asked for.
fn ask_which(parked: u64, terminal: &mut Terminal) -> CommandError {
    let text = match parked {
        0 => terminal.pick(
            "which rows? None is parked. One that waits: `tripwire-sync retry <row id>`".to_owned(),
            "какие строки? Отложенных нет. Одну из ожидающих: `tripwire-sync retry <строка>`"
                .to_owned(),
        ),
        parked => terminal.pick(
            format!(
                "which rows? Parked: {parked}\n\
                 all of them:  `tripwire-sync retry --parked`\n\
                 one or some:  `tripwire-sync retry <row id> …`\n\
                 the list:     `tripwire-sync entries --state parked`"
            ),
            format!(
                "какие строки? Отложено: {parked}\n\
                 все сразу:        `tripwire-sync retry --parked`\n\
                 одну или больше:  `tripwire-sync retry <строка> …`\n\
                 список:           `tripwire-sync entries --state parked`"
            ),
        ),
    };
    terminal.complain(&text);
    CommandError::Misused
}

pub(super) async fn park(rows: Vec<RowId>, terminal: &mut Terminal) -> Outcome {
    let inbox = open(terminal).await?;
    refuse_on_standby(&inbox, terminal).await?;
    let asked = rows.len() as u64;
    let parked = inbox.park(rows).await?;
    inbox.close().await;
    terminal.say(&format!(
        "{} {parked}",
        terminal.pick("set aside:", "отложено:")
    ))?;
    if parked < asked {
        terminal.complain(terminal.pick(
            "the others are unknown, done, set aside already, or being worked on this very moment: see `tripwire-sync explain`",
            "остальных строк нет в очереди, они готовы, уже отложены или сейчас в работе: см. `tripwire-sync explain`",
        ));
        return Err(CommandError::Told);
    }
    Ok(())
}

/// Reads from this inbox, beside a service that may run on it. `None`: there is no inbox.
pub(super) async fn read_if_there<T>(
    path: &Path,
    read: impl AsyncFnOnce(&Inbox) -> Result<T, InboxError>,
) -> Result<Option<T>, InboxError> {
    if !path.exists() {
        return Ok(None);
    }
    let inbox = Inbox::open(path, Role::Guest, clock()).await?;
    let found = read(&inbox).await;
    inbox.close().await;
    found.map(Some)
}

/// Fails on a standby: what is asked for must be asked of the service that syncs.
pub(super) async fn refuse_on_standby(inbox: &Inbox, terminal: &mut Terminal) -> Outcome {
    let Some(holder) = standby(inbox).await? else {
        return Ok(());
    };
    inbox.close().await;
    let told = terminal.pick(
        "this service stands by, and another one syncs; nothing was done. Run the command there:",
        "этот сервис в резерве, синхронизирует другой; ничего не сделано. Выполните команду там:",
    );
    terminal.complain(format!("{told} {holder}").trim_end());
    Err(CommandError::Told)
}

/// The inbox that the settings name; a wrong path is not made into an empty inbox.
pub(super) async fn open(terminal: &mut Terminal) -> Result<Inbox, CommandError> {
    let path = Config::load_inbox_path()?;
    if !path.exists() {
        let what = terminal.pick("there is no inbox at", "нет файла очереди:");
        terminal.complain(&format!("{what} {} (DATABASE_URL)", path.display()));
        return Err(CommandError::Told);
    }
    Ok(Inbox::open(&path, Role::Guest, clock()).await?)
}
