//! `backfill --dry-run`: what would be done, by the same rules, from real reads; nothing is written anywhere.
//!
//! At a command's pace, one request a second: a search for each row, and a few requests for many rows together.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use self::foresight::{Foresight, Would};
use super::{Options, Picker, ask, dates, patiently, progress::span_text, told_to_stop};
use crate::{
    amocrm::{AmoCrm, AmoError, Pipeline},
    app::{Sending, Settings},
    cli::{
        CommandError, Outcome, clock,
        entries::stored_halt,
        pipelines,
        room::{REQUESTS_PER_SECOND, Room},
        terminal::Terminal,
    },
    domain::{HaltCause, RowId, StageId},
    inbox::{Inbox, Role},
    supabase::{Supabase, SupabaseError},
    sync::{self, Walk, decide::target_problem},
};

mod foresight;

/// Rows that share the requests that can be shared. More would keep the reader waiting.
const TOGETHER: usize = 25;
/// What takes longer is asked about first.
const LONG: Duration = Duration::from_mins(2);

pub(super) async fn run(
    options: &Options,
    count: u64,
    settings: Settings,
    sending: Sending,
    supabase: Supabase,
    walk: Walk,
    terminal: &mut Terminal,
) -> Outcome {
    if stored_halt(&settings.inbox_path)
        .await?
        .is_some_and(|halt| halt.cause == HaltCause::AmocrmForbidden)
    {
        return pipelines::refuse(terminal);
    }
    tell_cost(options, count, terminal)?;
    let room = Room::take(&settings.inbox_path, terminal).await?;
    let amocrm = AmoCrm::new(room.within(sending.amocrm), clock())?;
    let ended = rehearse(
        options,
        amocrm,
        settings,
        sending.sync,
        supabase,
        walk,
        terminal,
    )
    .await;
    room.give_back().await;
    ended
}

async fn rehearse(
    options: &Options,
    amocrm: AmoCrm,
    settings: Settings,
    rules: sync::Settings,
    supabase: Supabase,
    walk: Walk,
    terminal: &mut Terminal,
) -> Outcome {
    let told_to_stop = told_to_stop()?;
    let pipelines = patiently(AmoError::disposition, async || amocrm.pipelines().await).await?;
    let pipelines = pipelines.items;
    let target = rules.rules.target;
    if let Some(problem) = target_problem(&pipelines, target) {
        let todo = terminal.pick(
            "see `tripwire-sync check`",
            "смотрите `tripwire-sync check`",
        );
        terminal.complain(&format!("{problem}; {todo}"));
        return Err(CommandError::Told);
    }
    let pipeline = pipelines
        .into_iter()
        .find(|pipeline| pipeline.id == target.pipeline)
        .ok_or(CommandError::Told)?;
    // Only a guest, and only where there is one: an inbox is not made for this.
    let inbox = if settings.inbox_path.exists() {
        Some(Inbox::open(&settings.inbox_path, Role::Guest, clock()).await?)
    } else {
        None
    };
    let mut rehearsal = Rehearsal {
        inbox: inbox.clone(),
        foresight: Foresight::new(
            amocrm,
            supabase,
            inbox.clone(),
            pipeline,
            settings.upkeep.rows,
            rules,
        ),
        seen: Seen::default(),
        as_json: options.json,
    };
    let walked = tokio::select! {
        walked = rehearsal.walk(walk, Picker::new(options.limit), terminal) => walked,
        () = told_to_stop => Ok(false),
    };
    if let Some(inbox) = inbox {
        inbox.close().await;
    }
    let is_whole = walked?;
    rehearsal.seen.tell(is_whole, options.json, terminal)?;
    if is_whole {
        Ok(())
    } else {
        Err(CommandError::Told)
    }
}

/// What the reads take: one for each row, and one or two for those that go together.
fn cost(rows: u64) -> Duration {
    let together = u64::try_from(TOGETHER).unwrap_or(u64::MAX);
    let requests = rows
        .saturating_add(rows.div_ceil(together))
        .saturating_add(1);
    Duration::from_secs(requests.div_ceil(u64::from(REQUESTS_PER_SECOND)))
}

fn tell_cost(options: &Options, count: u64, terminal: &mut Terminal) -> Outcome {
    let rows = options.rows_at_most(count);
    let cost = cost(rows);
    let (looked_at, of, takes) = terminal.pick(
        ("rows to look at", "of", "this takes about"),
        ("строк к просмотру", "из", "это займёт около"),
    );
    let period = dates::told(options.since, options.until, terminal);
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

struct Rehearsal {
    inbox: Option<Inbox>,
    foresight: Foresight,
    seen: Seen,
    as_json: bool,
}

/// What was foreseen by now.
#[derive(Debug, Default)]
struct Seen {
    totals: BTreeMap<&'static str, u64>,
    /// Kept for JSON only.
    rows: Vec<Value>,
    parked_before: u64,
    waiting_before: u64,
}

impl Rehearsal {
    /// `true`: to the end.
    async fn walk(
        &mut self,
        mut walk: Walk,
        mut picker: Picker,
        terminal: &mut Terminal,
    ) -> Result<bool, CommandError> {
        while !picker.is_full() {
            let page =
                patiently(SupabaseError::disposition, async || walk.next_page().await).await?;
            if page.is_empty() {
                break;
            }
            let states = match &self.inbox {
                Some(inbox) => inbox.states_of(page.clone()).await?,
                None => std::collections::HashMap::default(),
            };
            let rows = picker.pick(page, &states);
            (self.seen.parked_before, self.seen.waiting_before) = (picker.parked, picker.waiting);
            for together in rows.chunks(TOGETHER) {
                let foreseen = self.foresight.of(together).await?;
                for (row, would) in foreseen {
                    self.note(row, &would, terminal)?;
                }
            }
        }
        Ok(true)
    }

    fn note(&mut self, row: RowId, would: &Would, terminal: &mut Terminal) -> Outcome {
        *self.seen.totals.entry(would.name()).or_default() += 1;
        if self.as_json {
            let mut value = would.as_value();
            value["row"] = json!(row);
            self.seen.rows.push(value);
            return Ok(());
        }
        let pipeline = self.foresight.pipeline();
        let (what, about) = told(would, pipeline, terminal);
        let line = format!("{row}  {what:<22}  {about}");
        Ok(terminal.say(line.trim_end())?)
    }
}

impl Seen {
    fn tell(&self, is_whole: bool, as_json: bool, terminal: &mut Terminal) -> Outcome {
        if as_json {
            let value = json!({
                "end": if is_whole { "drained" } else { "interrupted" },
                "would": self.totals,
                "before": { "waiting": self.waiting_before, "parked": self.parked_before },
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
                self.waiting_before,
                (
                    "left alone: waiting already",
                    "не тронуты: уже ждут контакта",
                ),
            ),
            (
                self.parked_before,
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

fn in_words(name: &'static str, terminal: &Terminal) -> &'static str {
    let (english, russian) = match name {
        "move" => ("move the deal", "перенести сделку"),
        "leave" => ("leave the deal, note", "сделка на месте"),
        "create" => ("create a deal", "создать сделку"),
        "create_with_contact" => ("create contact, deal", "создать контакт, сделку"),
        "finish" => ("finish what was begun", "закончить начатое"),
        "wait" => ("wait for a contact", "ждать контакта"),
        "park" => ("park for a person", "отложить до человека"),
        "already_linked" => ("has a deal by now", "уже со сделкой"),
        "skipped" => ("leave out by status", "пропустить по статусу"),
        "gone" => ("removed by now", "уже удалена"),
        other => (other, other),
    };
    terminal.pick(english, russian)
}

fn told(would: &Would, pipeline: &Pipeline, terminal: &Terminal) -> (&'static str, String) {
    let what = in_words(would.name(), terminal);
    let (deal, contact) = terminal.pick(("deal", "contact"), ("сделка", "контакт"));
    let stage = |id: StageId| {
        let known = pipeline.stages.iter().find(|stage| stage.id == id);
        known.map_or_else(|| id.to_string(), |stage| format!("«{}»", stage.name))
    };
    let about = match would {
        Would::Move {
            deal: id, from, to, ..
        } => format!("{deal} {id}: {} → {}", stage(*from), stage(*to)),
        Would::Leave {
            deal: Some(id), at, ..
        } => format!("{deal} {id}: {}", stage(*at)),
        Would::Leave { deal: None, .. } => terminal
            .pick("the one of an earlier row", "от предыдущей строки")
            .to_owned(),
        Would::Create { contact: id } => format!("{contact} {id}"),
        Would::Finish { deal: Some(id) } => format!("{deal} {id}"),
        Would::Park { reason } => reason.clone(),
        Would::Finish { deal: None } | Would::CreateWithContact | Would::Wait | Would::End(_) => {
            String::new()
        }
    };
    (what, about)
}
