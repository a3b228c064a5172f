//! `undo`: deals that the service moved go back to the stages that they came from.
//!
//! The command stores the wish in the inbox. The owner of the inbox carries it out, as it does a backfill: a service that
//! runs beside this command, else an engine of the command.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
};

use amocrm::AmoError;
use clap::Args;
use jiff::Timestamp;
use tokio::time::Instant;

use self::report::{Change, Result as Became};
use super::{
    CommandError, Outcome,
    backfill::{self, End, GLANCE, Hands},
    dates::{self, When},
    entries::{open, refuse_on_standby},
    explain::Whom,
    room,
    terminal::Terminal,
    told_to_stop,
};
use crate::{
    app::Settings,
    config::Config,
    domain::{DealId, Refusals, RowId, SyncState},
    inbox::{
        BackfillId, Entry, Inbox, InboxError, Move, PlacedFor, REFUSALS, State, Undo, UndoLeft,
    },
    sync::rules::undo::{WayBack, is_placed_later, undoable, way_back},
};

mod report;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Ids of rows, or e-mail addresses
    #[arg(
        value_name = "ROW OR E-MAIL",
        required_unless_present_any = ["backfill", "since"],
        conflicts_with_all = ["backfill", "since"]
    )]
    whom: Vec<String>,
    /// All rows of this backfill, by the number that `backfill` printed
    #[arg(long, value_name = "N", conflicts_with = "since")]
    backfill: Option<i64>,
    /// All deals moved since then: a date or a time, in `TIME_ZONE` unless it has an offset
    #[arg(long, value_name = "DATE")]
    since: Option<When>,
    /// Only deals moved until then: a date, to the end of that day, or before a time
    #[arg(long, value_name = "DATE", requires = "since")]
    until: Option<When>,
    /// Say for each row what would be done, and write nothing anywhere
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print the rows as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: &Options, terminal: &mut Terminal) -> Outcome {
    let (_, settings) = backfill::begin(terminal)?;
    let inbox = open(terminal).await?;
    refuse_on_standby(&inbox, terminal).await?;
    let changes = select(options, &inbox, terminal).await?;
    let names = inbox.names().await?;
    if options.dry_run {
        let placed = inbox.placed(deals_to_undo(&changes)).await?;
        inbox.close().await;
        let changes = foresee(changes, &placed, &settings, terminal).await?;
        return report::tell(&changes, &names, End::DryRun, options.json, terminal);
    }
    let rows: Vec<RowId> = report::rows_to_undo(&changes);
    if rows.is_empty() {
        inbox.close().await;
        return report::tell(&changes, &names, End::Drained, options.json, terminal);
    }
    report::say_what_it_means(&changes, terminal);
    inbox.close().await;
    if !options.yes {
        backfill::ask(terminal)?;
    }
    carry_out(changes, rows, settings, options.json, terminal).await
}

/// What the inbox says of each row that is asked for.
async fn select(
    options: &Options,
    inbox: &Inbox,
    terminal: &mut Terminal,
) -> Result<Vec<Change>, CommandError> {
    let zone = terminal.reader().zone.clone();
    let mut changes = Vec::new();
    if let Some(number) = options.backfill {
        let entries = inbox.entries_of_backfill(BackfillId(number)).await?;
        changes.extend(entries.iter().map(Change::of));
    } else if let Some(since) = options.since {
        let since = since.begins(&zone);
        let until = options.until.map_or(Timestamp::MAX, |it| it.ends(&zone));
        dates::in_order(since, until, terminal)?;
        let entries = inbox.placed_since(since).await?;
        let of_the_period = entries.iter().filter(|entry| {
            // A move of an earlier version, and a create, have no time of their own.
            let moved = entry.progress.placing_move();
            let at = moved.map_or(entry.updated_at, |moved| moved.at);
            since <= at && at < until
        });
        changes.extend(of_the_period.map(Change::of));
    } else {
        for whom in &options.whom {
            let whom = Whom::of(whom, terminal)?;
            let entries = whom.entries(inbox).await?;
            if entries.is_empty() {
                changes.push(Change::unknown(match whom {
                    Whom::Row(row) => Some(row),
                    Whom::Person(_) => None,
                }));
            }
            changes.extend(entries.iter().map(Change::of));
        }
    }
    let mut seen = HashSet::new();
    changes.retain(|change| change.row.is_none_or(|row| seen.insert(row)));
    Ok(changes)
}

fn deals_to_undo(changes: &[Change]) -> Vec<DealId> {
    let to_undo = changes.iter().filter(|it| it.result == Became::ToUndo);
    to_undo.filter_map(|change| change.deal).collect()
}

/// Looks at the deals in amoCRM, beside a service if there is one.
async fn foresee(
    mut changes: Vec<Change>,
    placed: &[PlacedFor],
    settings: &Settings,
    terminal: &mut Terminal,
) -> Result<Vec<Change>, CommandError> {
    let deals = deals_to_undo(&changes);
    if deals.is_empty() {
        return Ok(changes);
    }
    let client = room::client(Config::load_amocrm()?);
    let path = Some(settings.inbox_path.as_path());
    let read = room::ask(path, client, terminal, async |amocrm| {
        let pipelines = amocrm.pipelines().await?;
        Ok::<_, AmoError>((pipelines, amocrm.all_deals(&deals).await?))
    });
    let (pipelines, found) = read.await??;
    let is_whole =
        pipelines.unreadable.is_none() && pipelines.items.iter().all(|pipeline| pipeline.is_whole);
    for change in &mut changes {
        let (Became::ToUndo, Some(moved)) = (&change.result, change.moved) else {
            continue;
        };
        let is_others = change
            .row
            .is_some_and(|row| is_placed_later(&moved, row, placed));
        let deal = found.get(&moved.deal);
        let is_hidden = deal.is_none() && found.unreadable.may_be(moved.deal.get());
        change.result = match way_back(&moved, change.is_sent, deal, &pipelines.items, is_whole) {
            _ if is_hidden => Became::Unreadable,
            WayBack::StageUnknown => Became::Unreadable,
            WayBack::Leave(why) => Became::Left(why),
            WayBack::Move if is_others => Became::Left(UndoLeft::MovedSince),
            WayBack::Move | WayBack::Arrived => Became::ToUndo,
        };
    }
    Ok(changes)
}

// ---- carrying it out ----

async fn carry_out(
    mut changes: Vec<Change>,
    rows: Vec<RowId>,
    settings: Settings,
    as_json: bool,
    terminal: &mut Terminal,
) -> Outcome {
    // From here on a signal stops the command in order. Up to the question it ends the process.
    let mut told_to_stop = pin!(told_to_stop()?);
    let path = settings.inbox_path.clone();
    let (mut inbox, mut is_ours) = backfill::open(&path).await?;
    inbox.undo(rows.clone()).await?;
    let end = loop {
        let hands = backfill::hands(&settings, &inbox, is_ours, terminal)?;
        let end = follow(hands, &inbox, &rows, &settings, terminal, &mut told_to_stop);
        if let Some(end) = end.await? {
            break end;
        }
        inbox.close().await;
        (inbox, is_ours) = backfill::open(&path).await?;
    };
    if end == End::Standby {
        inbox.withdraw_undo(rows.clone()).await?;
    }
    let entries = entries_by_row(&inbox, &rows).await?;
    let names = inbox.names().await?;
    inbox.close().await;
    for change in &mut changes {
        if change.result == Became::ToUndo {
            let entry = change.row.and_then(|row| entries.get(&row));
            change.result = Became::of(entry);
        }
    }
    report::tell(&changes, &names, end, as_json, terminal)
}

async fn entries_by_row(
    inbox: &Inbox,
    rows: &[RowId],
) -> Result<HashMap<RowId, Entry>, InboxError> {
    let entries = inbox.entries_of_rows(rows).await?;
    Ok(entries
        .into_iter()
        .map(|entry| (entry.row, entry))
        .collect())
}

/// Waits until all rows are done or none can go on. `None`: the service that did the work is gone.
async fn follow(
    mut hands: Hands,
    inbox: &Inbox,
    rows: &[RowId],
    settings: &Settings,
    terminal: &mut Terminal,
    told_to_stop: &mut (impl Future<Output = ()> + Unpin),
) -> Result<Option<End>, CommandError> {
    let timings = settings.timings;
    let mut standby_since: Option<Instant> = None;
    let mut last_said: Option<String> = None;
    let end = loop {
        let entries = inbox.entries_of_rows(rows).await?;
        let is_open = |entry: &&Entry| !matches!(entry.state, State::Done | State::Parked);
        let open: Vec<&Entry> = entries.iter().filter(is_open).collect();
        if open.is_empty() {
            break Some(End::Drained);
        }
        let ended = (rows.len() - open.len()) as u64;
        let Some(state) = hands.state(inbox).await? else {
            break None;
        };
        if hands.is_gone(ended, settings)? {
            break None;
        }
        let refusals: Refusals = inbox.state(REFUSALS).await?.unwrap_or_default();
        let is_undecided = |entry: &&Entry| backfill::is_undecided(&refusals, entry);
        if state == SyncState::Working && open.iter().all(is_undecided) {
            break Some(End::InDoubt);
        }
        let is_theirs = matches!(
            state,
            SyncState::Standby {
                held_by_another: true
            }
        );
        standby_since = is_theirs.then(|| standby_since.unwrap_or_else(Instant::now));
        if standby_since
            .is_some_and(|since| since.elapsed() > backfill::patience_with_a_lease(&timings))
        {
            break Some(End::Standby);
        }
        let trouble = open.iter().find_map(|entry| entry.reason.clone());
        let why = backfill::why(state, terminal).or(trouble);
        if why.is_some() && why != last_said {
            terminal.complain(why.as_deref().unwrap_or_default());
            last_said = why;
        }
        tokio::select! {
            () = tokio::time::sleep(GLANCE) => {}
            () = &mut *told_to_stop => break Some(End::Interrupted),
        }
    };
    hands.let_go().await?;
    Ok(end)
}

impl Change {
    fn of(entry: &Entry) -> Self {
        let undoable = undoable(entry);
        Self {
            row: Some(entry.row),
            deal: entry.progress.step.deal(),
            moved: undoable.ok(),
            is_sent: entry.progress.undo == Some(Undo::Sent),
            result: match undoable {
                Ok(Move { .. }) => Became::ToUndo,
                Err(why) => Became::Left(why),
            },
        }
    }

    /// `None`: an e-mail was asked for, which is not repeated.
    fn unknown(row: Option<RowId>) -> Self {
        Self {
            row,
            deal: None,
            moved: None,
            is_sent: false,
            result: Became::Left(UndoLeft::Unknown),
        }
    }
}
