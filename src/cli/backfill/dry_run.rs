//! `backfill --dry-run`: the engine itself, whose writes are answered from memory.
//!
//! The engine works on a copy of the inbox in a temporary folder, so it knows all that the service knows. Reads go to amoCRM
//! and Supabase, at a command's rate: one request a second.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    time::Duration,
};

use amocrm::Simulation;
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Options, Picker, ask, dates, patiently, progress, progress::span_text, told_to_stop};
use crate::{
    app::{Settings, Worker},
    cli::{
        CommandError, Outcome, clock,
        entries::read_if_there,
        room::{self, NoRoom, REQUESTS_PER_SECOND, Room},
        terminal::Terminal,
    },
    domain::{ContactId, DealId, RowId, StageId, SyncState},
    inbox::{
        self, Arrival, Entry, HALT, Inbox, InboxError, Names, PAUSED, Placed, REFUSALS, RELEASED,
        Revival, Role, Source, State, Step,
    },
    supabase::{Period, SupabaseError},
    sync::Walk,
    words::{self, Lang},
};

/// Rows that share the requests that can be shared.
const TOGETHER: u64 = 50;
/// A dry run that takes longer asks for confirmation first.
const LONG: Duration = Duration::from_mins(2);
/// After so many failures a row is not waited for.
const TRIED_OFTEN: u32 = 3;
/// If no row ends for so long (six hundred requests), the remaining rows are reported as waiting.
const STANDSTILL: Duration = Duration::from_mins(10);
const GLANCE: Duration = Duration::from_millis(500);

/// What would be done for one row. With `--json` the variant is the member `would`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "would", rename_all = "snake_case")]
enum Planned {
    Move {
        deal: DealId,
        from: Option<StageId>,
        to: StageId,
        why: &'static str,
    },
    /// `deal`: `None` = one that would be made for an earlier row.
    Leave {
        deal: Option<DealId>,
        at: Option<StageId>,
        why: &'static str,
    },
    Create {
        contact: Option<ContactId>,
    },
    CreateWithContact,
    /// An earlier attempt has written to amoCRM, and would be finished.
    Finish {
        deal: Option<DealId>,
    },
    Wait,
    Park {
        reason: String,
    },
    #[serde(untagged)]
    End {
        would: inbox::Outcome,
    },
}

pub(super) async fn run(
    options: &Options,
    (period, count): (Period, u64),
    mut settings: Settings,
    walk: Walk,
    terminal: &mut Terminal,
) -> Outcome {
    let path = settings.inbox_path.clone();
    if read_if_there(&path, room::is_forbidden).await? == Some(true) {
        return Err(NoRoom::Forbidden.into());
    }
    // Asked before there is room: the service beside this command gives up a part of its rate for it.
    tell_cost(options, (period, count), terminal)?;
    let room = Room::take(Some(&path), terminal).await?;
    settings = settings.without_periodic_jobs();
    if let Some(sending) = &mut settings.sending {
        sending.amocrm.assume_full_window = false;
        sending.amocrm = room.within(sending.amocrm.clone());
    }
    // A row will have settled by the time it is synced.
    settings.maintenance.rows.settle_delay = Duration::ZERO;
    settings.timings = settings.timings.of_a_dry_run();
    let ended = look_ahead(options, settings, walk, terminal).await;
    room.give_back().await;
    ended
}

/// What the reads take: one for each row, and a few for those that go together.
fn cost(rows: u64) -> Duration {
    let requests = rows + 3 * rows.div_ceil(TOGETHER) + 1;
    Duration::from_secs(requests.div_ceil(u64::from(REQUESTS_PER_SECOND)))
}

fn tell_cost(
    options: &Options,
    (period, count): (Period, u64),
    terminal: &mut Terminal,
) -> Outcome {
    let rows = options.rows_at_most(count);
    let cost = cost(rows);
    let (looked_at, of, takes) = terminal.pick(
        ("rows to look at", "of", "this takes about"),
        ("строк к просмотру", "из", "это займёт около"),
    );
    let period = dates::told(period.since, period.until, terminal);
    let time = span_text(cost, terminal);
    terminal.complain(&format!(
        "{looked_at}: {rows} {of} {count} ({period}); {takes} {time}"
    ));
    if cost > LONG && !options.yes {
        terminal
            .complain(terminal.pick("--limit looks at fewer", "--limit: посмотреть меньше строк"));
        return ask(terminal);
    }
    Ok(())
}

async fn look_ahead(
    options: &Options,
    settings: Settings,
    walk: Walk,
    terminal: &mut Terminal,
) -> Outcome {
    let told_to_stop = told_to_stop()?;
    let scratch = Scratch::of(&settings.inbox_path).await?;
    let (rows, picker) = pick(walk, Picker::new(options.limit), &scratch.inbox).await?;
    let target = settings.sending.as_ref();
    let mut foreseen = DryRun {
        left: scratch.prepare(&rows).await?,
        simulation: Simulation::new(clock()),
        target: target.map(|it| it.sync.rules.target.stage),
        totals: BTreeMap::new(),
        rows: Vec::new(),
        picker,
        as_json: options.json,
    };
    let simulation = foreseen.simulation.clone();
    let worker = Worker::start(settings, &scratch.inbox, &clock(), Some(simulation))?;
    let ended = tokio::select! {
        ended = foreseen.follow(&worker, &scratch.inbox, terminal) => ended.map(|()| true),
        () = told_to_stop => Ok(false),
    };
    worker.stop().await?;
    scratch.inbox.close().await;
    let is_whole = ended?;
    foreseen.tell(is_whole, terminal)?;
    if is_whole {
        Ok(())
    } else {
        Err(CommandError::Told)
    }
}

/// The rows to look at, and the counts of those left out.
async fn pick(
    mut walk: Walk,
    mut picker: Picker,
    inbox: &Inbox,
) -> Result<(Vec<RowId>, Picker), CommandError> {
    let mut rows = Vec::new();
    while !picker.is_full() {
        let page = patiently(SupabaseError::disposition, async || walk.next_page().await).await?;
        if page.is_empty() {
            break;
        }
        let states = inbox.states_of(page.clone()).await?;
        rows.extend(picker.pick(page, &states));
    }
    Ok((rows, picker))
}

/// A copy of the inbox, removed when dropped.
struct Scratch {
    inbox: Inbox,
    _folder: TempDir,
}

impl Scratch {
    async fn of(path: &Path) -> Result<Self, CommandError> {
        // A container that is mounted read-only can write beside the inbox alone.
        let folder = tempfile::tempdir().or_else(|error| match path.parent() {
            Some(beside) if beside.is_dir() => tempfile::tempdir_in(beside),
            _ => Err(error),
        })?;
        let file = folder.path().join("dry-run.db");
        if path.exists() {
            Inbox::copy(path, &file).await?;
        }
        let inbox = Inbox::open(&file, Role::Owner, clock()).await?;
        for key in [PAUSED, HALT, REFUSALS, RELEASED] {
            inbox.clear_state(key).await?;
        }
        Ok(Self {
            inbox,
            _folder: folder,
        })
    }

    /// Makes these rows due, and no others. Returns the rows with what is planned for them if an earlier attempt has written
    /// to amoCRM.
    async fn prepare(&self, rows: &[RowId]) -> Result<Vec<(RowId, Option<Planned>)>, InboxError> {
        let mut others = Vec::new();
        for state in [State::Pending, State::Waiting] {
            let entries = self.inbox.entries(Some(state), u32::MAX).await?;
            others.extend(entries.into_iter().map(|entry| entry.row));
        }
        let picked: HashSet<&RowId> = rows.iter().collect();
        others.retain(|row| !picked.contains(row));
        let mut left = Vec::new();
        let mut to_sync = Vec::new();
        for row in rows {
            let entry = self.inbox.entry(*row).await?;
            let written = entry.filter(|entry| entry.progress.has_written());
            let would = written.map(|entry| Planned::Finish {
                deal: entry.progress.step.deal(),
            });
            if would.is_some() {
                others.push(*row);
            } else {
                to_sync.push(*row);
            }
            left.push((*row, would));
        }
        self.inbox.remove(others).await?;
        let source = Source::Backfill(self.inbox.begin_backfill().await?);
        let arrivals = to_sync.iter().map(|row| Arrival {
            row: *row,
            source: source.clone(),
        });
        self.inbox.store(arrivals.collect()).await?;
        self.inbox.revive(Revival::Rows(to_sync)).await?;
        Ok(left)
    }
}

/// The results so far.
struct DryRun {
    /// Rows that were not reported yet. For some, the plan is known from the beginning.
    left: Vec<(RowId, Option<Planned>)>,
    simulation: Simulation,
    target: Option<StageId>,
    totals: BTreeMap<String, u64>,
    /// Kept for JSON only.
    rows: Vec<Value>,
    picker: Picker,
    as_json: bool,
}

impl DryRun {
    /// Reports each row when the engine is done with it.
    async fn follow(&mut self, worker: &Worker, inbox: &Inbox, terminal: &mut Terminal) -> Outcome {
        let mut told_at = Instant::now();
        let mut glance = interval(GLANCE);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.left.is_empty() {
            glance.tick().await;
            if worker.is_dead() {
                // The stop of the worker reports the cause.
                return Err(CommandError::Told);
            }
            let state = *worker.status.borrow();
            if let SyncState::Halted { .. } = state {
                let why = progress::why(state, terminal).unwrap_or_default();
                terminal.complain(&why);
                return Err(CommandError::Told);
            }
            for (row, would) in std::mem::take(&mut self.left) {
                let would = match would {
                    Some(would) => Some(would),
                    None => self.end_of(inbox.entry(row).await?),
                };
                match would {
                    Some(would) => {
                        told_at = Instant::now();
                        self.note(row, &would, inbox, terminal).await?;
                    }
                    // For example, another row of the same person does not end.
                    None if told_at.elapsed() > STANDSTILL => {
                        self.left.push((row, Some(Planned::Wait)));
                    }
                    None => self.left.push((row, None)),
                }
            }
        }
        Ok(())
    }

    /// `None`: the engine is not done with it.
    fn end_of(&self, entry: Option<Entry>) -> Option<Planned> {
        let entry = entry?;
        let progress = entry.progress;
        let is_second_look_due = progress.daily_searches.next_from.is_none();
        match entry.state {
            State::Claimed => None,
            State::Pending => (entry.attempts >= TRIED_OFTEN).then_some(Planned::Wait),
            State::Waiting if is_second_look_due => None,
            State::Waiting => Some(Planned::Wait),
            State::Parked => Some(Planned::Park {
                reason: entry.reason.unwrap_or_default(),
            }),
            State::Done => Some(match (entry.outcome?, progress.step) {
                (
                    inbox::Outcome::Synced,
                    Step::Placed { choice, how, .. } | Step::Noted { choice, how },
                ) => self.placed(&choice, how),
                (would, _) => Planned::End { would },
            }),
        }
    }

    fn placed(&self, choice: &inbox::Choice, placed: Placed) -> Planned {
        let simulation = &self.simulation;
        let real = Some(choice.deal).filter(|deal| !simulation.is_made_deal(*deal));
        let stage = real.and_then(|deal| simulation.stage_in_amocrm(deal));
        let why = words::why(choice.why, Lang::English);
        match (placed, real, self.target) {
            (Placed::Created, _, _) => match choice.contact {
                Some(contact) if simulation.is_made_contact(contact) => Planned::CreateWithContact,
                contact => Planned::Create { contact },
            },
            (Placed::Moved, Some(deal), Some(to)) => Planned::Move {
                deal,
                from: stage,
                to,
                why,
            },
            (Placed::Moved | Placed::Left, deal, target) => Planned::Leave {
                deal,
                at: deal.map_or(target, |_| stage),
                why,
            },
        }
    }

    async fn note(
        &mut self,
        row: RowId,
        would: &Planned,
        inbox: &Inbox,
        terminal: &mut Terminal,
    ) -> Outcome {
        let mut value = json!(would);
        let name = value["would"].as_str().unwrap_or_default().to_owned();
        *self.totals.entry(name.clone()).or_default() += 1;
        if self.as_json {
            value["row"] = json!(row);
            self.rows.push(value);
            return Ok(());
        }
        let about = about(would, &inbox.names().await?, terminal);
        let what = in_words(&name, terminal);
        let line = format!("{row}  {what:<22}  {about}");
        Ok(terminal.say(line.trim_end())?)
    }

    fn tell(&self, is_whole: bool, terminal: &mut Terminal) -> Outcome {
        if self.as_json {
            let value = json!({
                "end": if is_whole { "drained" } else { "interrupted" },
                "would": self.totals,
                "before": { "waiting": self.picker.waiting, "parked": self.picker.parked },
                "rows": self.rows,
            });
            return Ok(terminal.say(&serde_json::to_string_pretty(&value)?)?);
        }
        let mut lines: Vec<Vec<String>> = self
            .totals
            .iter()
            .map(|(name, count)| vec![in_words(name, terminal).to_owned(), count.to_string()])
            .collect();
        let before = [
            (
                self.picker.waiting,
                (
                    "left alone: waiting already",
                    "не тронуты: уже ожидают контакт",
                ),
            ),
            (
                self.picker.parked,
                ("left alone: parked already", "не тронуты: уже отложены"),
            ),
        ];
        for (count, (english, russian)) in before.into_iter().filter(|(count, _)| *count > 0) {
            lines.push(vec![
                terminal.pick(english, russian).to_owned(),
                count.to_string(),
            ]);
        }
        terminal.say("")?;
        let head = terminal.pick(
            ["what would be done", "rows"],
            ["что было бы сделано", "строк"],
        );
        terminal.table(&head, &lines)?;
        terminal.complain(terminal.pick("nothing was written", "ничего не записано"));
        Ok(())
    }
}

fn in_words<'n>(name: &'n str, terminal: &Terminal) -> &'n str {
    let (english, russian) = match name {
        "move" => ("move the deal", "перенести сделку"),
        "leave" => ("leave the deal, note", "сделка на месте"),
        "create" => ("create a deal", "создать сделку"),
        "create_with_contact" => ("create contact, deal", "создать контакт, сделку"),
        "finish" => ("finish what was begun", "закончить начатое"),
        "wait" => ("wait for a contact", "ожидать контакт"),
        "park" => ("park for a person", "отложить до вашего решения"),
        "already_linked" => ("has a deal by now", "номер сделки уже есть"),
        "skipped" => ("leave out by status", "пропустить по статусу"),
        "gone" => ("removed by now", "строка уже удалена"),
        other => (other, other),
    };
    terminal.pick(english, russian)
}

fn about(would: &Planned, names: &Names, terminal: &Terminal) -> String {
    let stage = |id: Option<StageId>| match id {
        None => "?".to_owned(),
        Some(id) => names
            .stage(id)
            .map_or_else(|| id.to_string(), |name| format!("«{name}»")),
    };
    let (deal, contact) = terminal.pick(("deal", "contact"), ("сделка", "контакт"));
    match would {
        Planned::Move {
            deal: id, from, to, ..
        } => format!("{deal} {id}: {} → {}", stage(*from), stage(Some(*to))),
        Planned::Leave {
            deal: Some(id), at, ..
        } => format!("{deal} {id}: {}", stage(*at)),
        Planned::Leave { deal: None, .. } => terminal
            .pick("the one of an earlier row", "от предыдущей строки")
            .to_owned(),
        Planned::Create { contact: Some(id) } => format!("{contact} {id}"),
        Planned::Finish { deal: Some(id) } => format!("{deal} {id}"),
        Planned::Park { reason } => reason.clone(),
        Planned::Create { contact: None }
        | Planned::Finish { deal: None }
        | Planned::CreateWithContact
        | Planned::Wait
        | Planned::End { .. } => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_its_name_and_its_members_also_those_that_are_not_known() {
        let deal = DealId::new(41);
        let unknown = Planned::Leave {
            deal: None,
            at: None,
            why: "open",
        };
        let ended = Planned::End {
            would: inbox::Outcome::AlreadyLinked,
        };
        for (planned, expected) in [
            (
                unknown,
                json!({ "would": "leave", "deal": null, "at": null, "why": "open" }),
            ),
            (
                Planned::Create { contact: None },
                json!({ "would": "create", "contact": null }),
            ),
            (
                Planned::CreateWithContact,
                json!({ "would": "create_with_contact" }),
            ),
            (
                Planned::Finish { deal: Some(deal) },
                json!({ "would": "finish", "deal": 41 }),
            ),
            (ended, json!({ "would": "already_linked" })),
        ] {
            assert_eq!(json!(planned), expected);
        }
    }
}
