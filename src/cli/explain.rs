//! `explain`: the whole history of one student, from the inbox alone.
//!
//! The output never repeats the e-mail that was asked for, since it may be pasted into a chat.

use serde_json::{Value, json};

use super::{
    CommandError, Outcome as Told,
    entries::{open, seconds},
    messages,
    terminal::{Lang, Terminal},
};
use crate::{
    domain::{Email, Halt, KeyedHash, Refusals, Refused, RowId},
    inbox::{
        Entry, HALT, HistoryLine, Inbox, InboxError, Known, Lane, Outcome, PAUSED, Placed,
        Progress, REFUSALS, State, Step,
    },
    sync::rules::timings::DAILY_SEARCHES,
};

/// The row or person that is asked for.
#[derive(Debug)]
pub(super) enum Whom {
    Row(RowId),
    Person(Email),
}

impl Whom {
    /// Complains of what is neither.
    pub(super) fn of(text: &str, terminal: &mut Terminal) -> Result<Self, CommandError> {
        if let Ok(row) = text.trim().parse() {
            return Ok(Self::Row(row));
        }
        Email::parse(text).map(Self::Person).map_err(|_| {
            terminal.complain(terminal.pick(
                "this is neither the id of a row nor an e-mail address",
                "это не номер строки и не адрес e-mail",
            ));
            CommandError::Misused
        })
    }

    pub(super) async fn entries(&self, inbox: &Inbox) -> Result<Vec<Entry>, InboxError> {
        match self {
            Self::Row(row) => Ok(inbox.entry(*row).await?.into_iter().collect()),
            Self::Person(email) => inbox.entries_of(inbox.hasher().email(email)).await,
        }
    }

    /// The hash of the e-mail.
    pub(super) fn hash(&self, inbox: &Inbox) -> Option<KeyedHash> {
        match self {
            Self::Row(_) => None,
            Self::Person(email) => Some(inbox.hasher().email(email)),
        }
    }
}

/// What the inbox knows of one row.
#[derive(Debug)]
struct Story {
    entry: Entry,
    /// The contact and deal last used for this person, by whichever row.
    known: Option<Known>,
    /// An operation was refused for the row.
    refused: Option<Refused>,
    /// amoCRM answered a request about the row with 403, so the row goes after all others.
    is_held: bool,
    history: Vec<HistoryLine>,
}

/// Why nothing is sent at the moment.
#[derive(Debug)]
enum Stopped {
    Halted(Halt),
    Paused(jiff::Timestamp),
}

pub(super) async fn run(whom: &str, as_json: bool, terminal: &mut Terminal) -> Told {
    let whom = Whom::of(whom, terminal)?;
    let inbox = open(terminal).await?;
    let read = read(&inbox, &whom).await;
    inbox.close().await;
    let (stories, stopped) = read?;

    if as_json {
        let list: Vec<Value> = stories
            .iter()
            .map(|story| as_value(story, stopped.as_ref()))
            .collect();
        terminal.say(&serde_json::to_string_pretty(&list)?)?;
    } else {
        for (i, story) in stories.iter().enumerate() {
            if i > 0 {
                terminal.say("")?;
            }
            tell(story, stopped.as_ref(), terminal)?;
        }
    }
    if stories.is_empty() {
        terminal.complain(match whom {
            Whom::Row(_) => terminal.pick(
                "the inbox does not know this row: no webhook came and no sweep saw it, or it was done long ago",
                "такой строки в очереди нет: вебхук не приходил и сверка её не видела, либо она давно обработана",
            ),
            Whom::Person(_) => terminal.pick(
                "the inbox knows no row with this e-mail: none came, or it was not read yet (ask by the row's id), or it was done long ago",
                "строк с таким e-mail в очереди нет: они не приходили, ещё не прочитаны (спросите по номеру строки) или давно обработаны",
            ),
        });
        return Err(CommandError::Told);
    }
    Ok(())
}

async fn read(inbox: &Inbox, whom: &Whom) -> Result<(Vec<Story>, Option<Stopped>), InboxError> {
    let entries = whom.entries(inbox).await?;
    let people: Vec<KeyedHash> = entries
        .iter()
        .filter_map(|entry| entry.progress.person)
        .collect();
    let known = inbox.people(people).await?;
    let refusals: Refusals = inbox.state(REFUSALS).await?.unwrap_or_default();
    let mut stories = Vec::new();
    for entry in entries {
        let person = entry.progress.person;
        stories.push(Story {
            known: person.and_then(|person| known.get(&person).copied()),
            refused: refusals.of_row(entry.row).cloned(),
            is_held: refusals.held().contains(&entry.row),
            history: inbox.history(entry.row).await?,
            entry,
        });
    }
    let stopped = match inbox.state(HALT).await? {
        Some(halt) => Some(Stopped::Halted(halt)),
        None => inbox.state(PAUSED).await?.map(Stopped::Paused),
    };
    Ok((stories, stopped))
}

fn as_value(story: &Story, stopped: Option<&Stopped>) -> Value {
    let entry = &story.entry;
    let progress = &entry.progress;
    let step = &progress.step;
    let choice = step.choice();
    json!({
        "row": entry.row,
        "reference": entry.row.reference(),
        "state": entry.state,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "lane": entry.lane,
        "delivery": entry.delivery,
        "stored_at": entry.stored_at,
        "updated_at": entry.updated_at,
        "next_attempt": next_attempt(entry),
        "failed_attempts": entry.attempts,
        "absent_since": progress.absent_since,
        "missed_since": progress.missed_since,
        "daily_searches": progress.daily_searches.in_vain,
        "contact": step.contact(),
        "deal": choice.map(|choice| choice.deal),
        "why": step.why().map(|why| messages::why(why, Lang::English)),
        "placed": step.placed(),
        "noted": step.is_noted(),
        "intent": step.resolve_after().map(|resolve_after| {
            let write = if matches!(step, Step::Creating(_)) { "create" } else { "note" };
            json!({ "write": write, "decisive_from": resolve_after })
        }),
        "known": story.known.map(|known| json!({ "contact": known.contact, "deal": known.deal })),
        "stopped": stopped.filter(|_| is_open(entry)).map(|stopped| match stopped {
            Stopped::Halted(halt) => json!({ "reason": halt.cause, "since": halt.since }),
            Stopped::Paused(since) => json!({ "reason": "paused", "since": since }),
        }),
        "refused": story.refused.as_ref().map(|refused| json!({
            "operation": refused.operation,
            "reason": refused.reason,
            "since": refused.since,
            "works_for_others": refused.works_for_others,
        })),
        "held": story.is_held,
        "history": story.history.iter().map(|line| json!({
            "at": line.at,
            "text": messages::history(&line.facts, Lang::English),
        })).collect::<Vec<_>>(),
    })
}

/// Whether the service will touch it by itself.
fn is_open(entry: &Entry) -> bool {
    match entry.state {
        State::Pending | State::Claimed | State::Waiting => true,
        State::Parked | State::Done => false,
    }
}

fn next_attempt(entry: &Entry) -> Option<jiff::Timestamp> {
    match entry.state {
        State::Pending | State::Waiting => Some(entry.due_at),
        State::Claimed | State::Parked | State::Done => None,
    }
}

fn tell(story: &Story, stopped: Option<&Stopped>, terminal: &mut Terminal) -> Told {
    let mut lines = Lines {
        terminal,
        lines: Vec::new(),
    };
    lines.entry(&story.entry, stopped);
    lines.doubt(story);
    lines.progress(&story.entry.progress);
    let chosen = story.entry.progress.step.choice();
    let others = story
        .known
        .filter(|known| chosen.map(|choice| choice.deal) != Some(known.deal));
    if let Some(known) = others {
        lines.known(known);
    }
    lines.origin(&story.entry);
    let lines = lines.lines;
    let width = lines
        .iter()
        .map(|(label, _)| label.chars().count())
        .max()
        .unwrap_or_default();
    for (label, text) in lines {
        terminal.say(&format!("{label:<width$}  {text}"))?;
    }
    if story.history.is_empty() {
        return Ok(());
    }
    terminal.say(&format!("\n{}", terminal.pick("history", "история")))?;
    for line in &story.history {
        let text = messages::history(&line.facts, terminal.lang());
        terminal.say(&format!("{}  {text}", seconds(line.at)))?;
    }
    Ok(())
}

/// Labels and texts, what matters most first.
struct Lines<'t> {
    terminal: &'t Terminal,
    lines: Vec<(&'static str, String)>,
}

impl Lines<'_> {
    fn add(&mut self, english: &'static str, russian: &'static str, text: impl Into<String>) {
        let label = self.terminal.pick(english, russian);
        self.lines.push((label, text.into()));
    }

    fn add_time(
        &mut self,
        english: &'static str,
        russian: &'static str,
        at: Option<jiff::Timestamp>,
    ) {
        if let Some(at) = at {
            self.add(english, russian, seconds(at));
        }
    }

    fn entry(&mut self, entry: &Entry, stopped: Option<&Stopped>) {
        self.add("row", "строка", entry.row.to_string());
        self.add("state", "состояние", state(entry, self.terminal));
        if let Some(reason) = &entry.reason {
            self.add("reason", "причина", reason);
        }
        if let Some(stopped) = stopped.filter(|_| is_open(entry)) {
            self.add("sending", "отправка", told_stopped(stopped, self.terminal));
        }
        self.add_time("next attempt", "следующая попытка", next_attempt(entry));
        let attempts = entry.attempts.to_string();
        self.add("failed attempts", "неудачных попыток", attempts);
    }

    fn doubt(&mut self, story: &Story) {
        if let Some(refused) = &story.refused {
            let (operation, in_russian) =
                (refused.operation.as_str(), refused.operation.in_russian());
            let since = seconds(refused.since);
            let text = if refused.works_for_others {
                self.terminal.pick(
                    format!("{operation} was refused, and works for others: tried once more, then parked"),
                    format!("{in_russian}: отказ, а у других проходит; ещё одна попытка, затем строка будет отложена"),
                )
            } else {
                self.terminal.pick(
                    format!("{operation} is refused since {since}; whether for this row or for all, other rows will tell. `tripwire-sync park` sets it aside"),
                    format!("{in_russian}: отказ с {since}; этой строке или всем, покажут другие строки. Отложить: `tripwire-sync park`"),
                )
            };
            self.add("in doubt", "сомнение", text);
        }
        if story.is_held {
            let text = self.terminal.pick(
                "amoCRM answered with 403: goes last, once a write has worked for another row; at once with `tripwire-sync retry`",
                "amoCRM ответила 403: пойдёт последней, когда запись удастся для другой строки; сразу — `tripwire-sync retry`",
            );
            self.add("held", "ждёт", text);
        }
    }

    fn progress(&mut self, progress: &Progress) {
        self.add_time("row absent since", "строки нет с", progress.absent_since);
        self.add_time("no contact since", "контакта нет с", progress.missed_since);
        let searches = progress.daily_searches.in_vain;
        if searches > 0 {
            let text = self.terminal.pick(
                format!("{searches} of {DAILY_SEARCHES}, then it is parked"),
                format!("{searches} из {DAILY_SEARCHES}, потом строка будет отложена"),
            );
            self.add("daily searches", "ежедневных поисков", text);
        }
        let step = &progress.step;
        if *step != Step::Begun {
            self.choice(step);
            self.add(
                "deal's place",
                "этап сделки",
                placed(step.placed(), self.terminal),
            );
            let noted = if step.is_noted() {
                self.terminal.pick("is there", "есть")
            } else {
                self.terminal.pick("not yet", "ещё нет")
            };
            self.add("note", "примечание", noted);
        }
        if let Some(resolve_after) = step.resolve_after() {
            let in_flight = in_flight(step, resolve_after, self.terminal);
            self.add("in flight", "без ответа", in_flight);
        }
    }

    fn choice(&mut self, step: &Step) {
        let contact = step.contact().map(|contact| contact.to_string());
        let contact = contact.unwrap_or_else(|| {
            let new = (
                "new, made with the deal",
                "новый, создаётся вместе со сделкой",
            );
            self.terminal.pick(new.0, new.1).to_owned()
        });
        self.add("contact", "контакт", contact);
        let deal = step.choice().map(|choice| choice.deal.to_string());
        let deal = deal.unwrap_or_else(|| {
            self.terminal
                .pick("to be created", "будет создана")
                .to_owned()
        });
        self.add("deal", "сделка", deal);
        if let Some(why) = step.why() {
            let why = messages::why(why, self.terminal.lang());
            self.add("why this one", "почему она", why);
        }
    }

    fn known(&mut self, known: Known) {
        let (contact, deal) = self
            .terminal
            .pick(("contact", "deal"), ("контакт", "сделка"));
        self.add(
            "known of the person",
            "известно о человеке",
            format!("{contact} {}, {deal} {}", known.contact, known.deal),
        );
    }

    fn origin(&mut self, entry: &Entry) {
        self.add("learnt by", "узнали", source(entry, self.terminal));
        self.add("learnt at", "когда узнали", seconds(entry.stored_at));
        self.add("last change", "изменено", seconds(entry.updated_at));
        self.add(
            "mark in the note",
            "метка в примечании",
            entry.row.reference(),
        );
    }
}

fn state(entry: &Entry, terminal: &Terminal) -> &'static str {
    match (entry.state, entry.outcome) {
        (State::Pending, _) => terminal.pick("pending: is to be tried", "в очереди: будет попытка"),
        (State::Claimed, _) => terminal.pick("claimed: is being worked on", "в работе"),
        (State::Waiting, _) => terminal.pick(
            "waiting: goes on when the contact appears in amoCRM",
            "ждёт: продолжится, когда контакт появится в amoCRM",
        ),
        (State::Parked, _) => terminal.pick(
            "parked: a person must look, then `tripwire-sync retry`",
            "отложена: нужно ваше решение, затем `tripwire-sync retry`",
        ),
        (State::Done, Some(Outcome::Synced)) => terminal.pick(
            "done: the deal is in place, noted, and its id is in the row",
            "готово: сделка на месте, примечание есть, номер сделки записан в строку",
        ),
        (State::Done, Some(Outcome::AlreadyLinked)) => terminal.pick(
            "done: the row had a deal id already, amoCRM was not touched",
            "готово: номер сделки уже был в строке, amoCRM не трогали",
        ),
        (State::Done, Some(Outcome::Skipped)) => terminal.pick(
            "done: skipped, the student is blocked or inactive",
            "готово: пропущена, ученик заблокирован или неактивен",
        ),
        (State::Done, Some(Outcome::TooOld)) => terminal.pick(
            "done: created before SYNC_SINCE; with an earlier SYNC_SINCE the sweep takes it",
            "готово: создана раньше SYNC_SINCE; с более ранним SYNC_SINCE её возьмёт сверка",
        ),
        (State::Done, Some(Outcome::Gone)) => terminal.pick(
            "done: the row was removed from the table",
            "готово: строка удалена из таблицы",
        ),
        (State::Done, None) => terminal.pick("done", "готово"),
    }
}

fn placed(placed: Option<Placed>, terminal: &Terminal) -> &'static str {
    match placed {
        None => terminal.pick("not settled yet", "ещё не определён"),
        Some(Placed::Moved) => terminal.pick("moved to the target", "перенесена на нужный этап"),
        Some(Placed::Left) => terminal.pick(
            "left: it stood at or after the target",
            "не трогали: уже на нужном этапе или дальше",
        ),
        Some(Placed::Created) => terminal.pick("created on the target", "создана на нужном этапе"),
    }
}

fn in_flight(step: &Step, resolve_after: jiff::Timestamp, terminal: &Terminal) -> String {
    let what = match step {
        Step::Creating(_) => terminal.pick("the deal's creation", "создание сделки"),
        _ => terminal.pick("the note", "примечание"),
    };
    let then = terminal.pick(
        "looked for before anything is repeated; not finding it is proof from",
        "сначала ищем, потом повторяем; если не найдено, это доказывает отсутствие с",
    );
    format!("{what}: {then} {}", seconds(resolve_after))
}

fn told_stopped(stopped: &Stopped, terminal: &Terminal) -> String {
    match stopped {
        Stopped::Halted(halt) => {
            let since = terminal.pick("halted since", "остановлена с");
            let what = terminal.pick(halt.cause.as_str(), halt.cause.hint());
            let rows: Vec<String> = halt.rows.iter().map(ToString::to_string).collect();
            let text = format!(
                "{since} {}: {what}. {} {}",
                seconds(halt.since),
                halt.detail,
                rows.join(" ")
            );
            text.trim_end().to_owned()
        }
        Stopped::Paused(since) => format!(
            "{} {}: tripwire-sync resume",
            terminal.pick("paused since", "на паузе с"),
            seconds(*since)
        ),
    }
}

fn source(entry: &Entry, terminal: &Terminal) -> String {
    match (&entry.delivery, entry.lane) {
        (Some(delivery), _) => format!("{} {delivery}", terminal.pick("webhook", "вебхук")),
        (None, Lane::Live) => terminal
            .pick("sweep of the table", "сверка таблицы")
            .to_owned(),
        (None, Lane::Backfill) => "backfill".to_owned(),
    }
}
