//! One student's story: what the inbox knows of a row, as JSON and as lines for a reader.
//!
//! It never repeats the e-mail that was asked for, since it may be pasted into a chat.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use url::Url;

use crate::{
    domain::{Halt, KeyedHash, Refusals, Refused, RowId},
    inbox::{
        Entry, HALT, HistoryLine, Inbox, InboxError, Known, Move, Names, Outcome, PAUSED, Placed,
        Progress, REFUSALS, State, Step, Undo,
    },
    sync::rules::timings::DAILY_SEARCHES,
    words::{self, Lang, Reader},
};

/// What the inbox knows of one row.
#[derive(Debug)]
pub struct Story {
    pub entry: Entry,
    /// The contact and deal last used for this person, by whichever row.
    pub known: Option<Known>,
    /// An operation was refused for the row.
    pub refused: Option<Refused>,
    /// amoCRM answered a request about the row with 403, so the row goes after all others.
    pub is_held: bool,
    /// Why nothing is sent at the moment; `None` for an entry that the service does not touch by itself.
    pub stopped: Option<Stopped>,
    pub history: Vec<HistoryLine>,
    /// Of amoCRM's pipelines and stages.
    pub names: Arc<Names>,
}

/// Where people see a row's deal and contact in amoCRM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Links {
    pub deal: Option<String>,
    pub contact: Option<String>,
}

impl Links {
    /// `amocrm`: the account's address, if it is known.
    #[must_use]
    pub fn of(entry: &Entry, amocrm: Option<&Url>) -> Self {
        let step = &entry.progress.step;
        let link = |path: String| Some(amocrm?.join(&path).ok()?.into());
        Self {
            deal: step
                .deal()
                .and_then(|deal| link(format!("leads/detail/{deal}"))),
            contact: step
                .contact()
                .and_then(|contact| link(format!("contacts/detail/{contact}"))),
        }
    }
}

/// Why nothing is sent at the moment.
#[derive(Debug, Clone)]
pub enum Stopped {
    Halted(Halt),
    Paused(jiff::Timestamp),
}

impl Stopped {
    async fn read(inbox: &Inbox) -> Result<Option<Self>, InboxError> {
        Ok(match inbox.state(HALT).await? {
            Some(halt) => Some(Self::Halted(halt)),
            None => inbox.state(PAUSED).await?.map(Self::Paused),
        })
    }
}

/// The story of one row, if the inbox knows the row.
pub async fn of(inbox: &Inbox, row: RowId) -> Result<Option<Story>, InboxError> {
    let entry = inbox.entry(row).await?;
    Ok(read(inbox, entry.into_iter().collect()).await?.pop())
}

/// The stories of these entries, in their order.
pub async fn read(inbox: &Inbox, entries: Vec<Entry>) -> Result<Vec<Story>, InboxError> {
    let people: Vec<KeyedHash> = entries
        .iter()
        .filter_map(|entry| entry.progress.person)
        .collect();
    let known = inbox.people(people).await?;
    let refusals: Refusals = inbox.state(REFUSALS).await?.unwrap_or_default();
    let names = Arc::new(inbox.names().await?);
    let stopped = Stopped::read(inbox).await?;
    let mut stories = Vec::new();
    for entry in entries {
        let person = entry.progress.person;
        stories.push(Story {
            known: person.and_then(|person| known.get(&person).copied()),
            refused: refusals.of_row(entry.row).cloned(),
            is_held: refusals.held().contains(&entry.row),
            stopped: stopped.clone().filter(|_| is_open(&entry)),
            history: inbox.history(entry.row).await?,
            names: Arc::clone(&names),
            entry,
        });
    }
    Ok(stories)
}

impl Story {
    /// A line of the history.
    #[must_use]
    pub fn told(&self, line: &HistoryLine, lang: Lang) -> String {
        words::history(&line.facts, &self.names, lang)
    }

    /// For programs: names and times are the same in every language and zone. `amocrm`: the account's address, if it is known.
    #[must_use]
    pub fn as_value(&self, amocrm: Option<&Url>) -> Value {
        let entry = &self.entry;
        let progress = &entry.progress;
        let step = &progress.step;
        let mut value = entry_value(entry);
        value["reference"] = json!(entry.row.reference());
        value["lane"] = json!(entry.lane);
        value["delivery"] = json!(entry.delivery);
        value["absent_since"] = json!(progress.absent_since);
        value["missed_since"] = json!(progress.missed_since);
        value["daily_searches"] = json!(progress.daily_searches.in_vain);
        value["why"] = json!(step.why().map(|why| words::why(why, Lang::English)));
        value["placed"] = json!(step.placed());
        value["noted"] = json!(step.is_noted());
        value["intent"] = json!(step.resolve_after().map(|resolve_after| {
            let write = if matches!(step, Step::Creating(_)) {
                "create"
            } else {
                "note"
            };
            json!({ "write": write, "decisive_from": resolve_after })
        }));
        let known = self.known;
        value["known"] =
            json!(known.map(|known| json!({ "contact": known.contact, "deal": known.deal })));
        value["stopped"] = json!(self.stopped.as_ref().map(|stopped| match stopped {
            Stopped::Halted(halt) => json!({ "reason": halt.cause, "since": halt.since }),
            Stopped::Paused(since) => json!({ "reason": "paused", "since": since }),
        }));
        value["refused"] = json!(self.refused.as_ref().map(|refused| json!({
            "operation": refused.operation,
            "reason": refused.reason,
            "since": refused.since,
            "works_for_others": refused.works_for_others,
        })));
        value["held"] = json!(self.is_held);
        let told = |line: &HistoryLine| self.told(line, Lang::English);
        let lines = self.history.iter();
        let lines = lines.map(|line| json!({ "at": line.at, "text": told(line) }));
        value["history"] = lines.collect();
        value["links"] = json!(Links::of(entry, amocrm));
        value
    }

    /// For a person: labels and texts, what matters most first.
    #[must_use]
    pub fn lines(&self, reader: &Reader) -> Vec<(&'static str, String)> {
        let mut lines = Lines {
            reader,
            lines: Vec::new(),
        };
        lines.entry(self);
        lines.doubt(self);
        lines.progress(&self.entry.progress, &self.names);
        let chosen = self.entry.progress.step.deal();
        let others = self.known.filter(|known| chosen != Some(known.deal));
        if let Some(known) = others {
            lines.known(known);
        }
        lines.origin(&self.entry);
        lines.lines
    }
}

/// What every list of entries tells programs of one.
#[must_use]
pub fn entry_value(entry: &Entry) -> Value {
    let step = &entry.progress.step;
    json!({
        "row": entry.row,
        "state": entry.state,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "contact": step.contact(),
        "deal": step.deal(),
        "failed_attempts": entry.attempts,
        "stored_at": entry.stored_at,
        "updated_at": entry.updated_at,
        "next_attempt": next_attempt(entry),
    })
}

/// Whether the service will touch it by itself.
fn is_open(entry: &Entry) -> bool {
    match entry.state {
        State::Pending | State::Claimed | State::Waiting => true,
        State::Parked | State::Done => false,
    }
}

/// When the service tries it again; `None`: it does not, or is at it.
#[must_use]
pub fn next_attempt(entry: &Entry) -> Option<jiff::Timestamp> {
    match entry.state {
        State::Pending | State::Waiting => Some(entry.due_at),
        State::Claimed | State::Parked | State::Done => None,
    }
}

/// Collects the lines of a story.
struct Lines<'t> {
    reader: &'t Reader,
    lines: Vec<(&'static str, String)>,
}

impl Lines<'_> {
    fn add(&mut self, english: &'static str, russian: &'static str, text: impl Into<String>) {
        let label = self.reader.pick(english, russian);
        self.lines.push((label, text.into()));
    }

    fn add_time(
        &mut self,
        english: &'static str,
        russian: &'static str,
        at: Option<jiff::Timestamp>,
    ) {
        if let Some(at) = at {
            self.add(english, russian, self.reader.time(at));
        }
    }

    fn entry(&mut self, story: &Story) {
        let entry = &story.entry;
        self.add("row", "строка", entry.row.to_string());
        self.add("state", "состояние", state(entry, self.reader));
        if let Some(reason) = &entry.reason {
            self.add("reason", "причина", reason);
        }
        if let Some(stopped) = &story.stopped {
            self.add("sending", "отправка", told_stopped(stopped, self.reader));
        }
        self.add_time("next attempt", "следующая попытка", next_attempt(entry));
        let attempts = entry.attempts.to_string();
        self.add("failed attempts", "неудачных попыток", attempts);
    }

    fn doubt(&mut self, story: &Story) {
        if let Some(refused) = &story.refused {
            let (operation, in_russian) =
                (refused.operation.into_str(), refused.operation.in_russian());
            let since = self.reader.time(refused.since);
            let text = if refused.works_for_others {
                self.reader.pick(
                    format!("{operation} was refused, and works for other rows: tried once more, then parked"),
                    format!("{in_russian}: отказ, а для других строк удаётся; после ещё одной попытки строка будет отложена"),
                )
            } else {
                self.reader.pick(
                    format!("{operation} is refused since {since}; whether for this row or for all, other rows will tell. `tripwire-sync park` sets it aside"),
                    format!("{in_russian}: отказ с {since}; одной строке или всем, покажут другие строки. Отложить: `tripwire-sync park`"),
                )
            };
            self.add("in doubt", "под сомнением", text);
        }
        if story.is_held {
            let text = self.reader.pick(
                "amoCRM answered with 403: goes last, once a write has worked for another row; at once with `tripwire-sync retry`",
                "amoCRM ответила 403: строка обработается последней, после удачи с другой строкой; сразу — `tripwire-sync retry`",
            );
            self.add("held", "ждёт", text);
        }
    }

    fn progress(&mut self, progress: &Progress, names: &Names) {
        self.add_time("row absent since", "строки нет с", progress.absent_since);
        self.add_time("no contact since", "контакта нет с", progress.missed_since);
        let searches = progress.daily_searches.in_vain;
        if searches > 0 {
            let text = self.reader.pick(
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
                placed(progress, names, self.reader),
            );
            let noted = if step.is_noted() {
                self.reader.pick("is there", "есть")
            } else {
                self.reader.pick("not yet", "ещё нет")
            };
            self.add("note", "примечание", noted);
        }
        if let Some(resolve_after) = step.resolve_after() {
            let in_flight = in_flight(step, resolve_after, self.reader);
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
            self.reader.pick(new.0, new.1).to_owned()
        });
        self.add("contact", "контакт", contact);
        let deal = step.deal().map(|deal| deal.to_string());
        let deal = deal.unwrap_or_else(|| {
            self.reader
                .pick("to be created", "будет создана")
                .to_owned()
        });
        self.add("deal", "сделка", deal);
        if let Some(why) = step.why() {
            let why = words::why(why, self.reader.lang);
            self.add("why this one", "почему эта сделка", why);
        }
    }

    fn known(&mut self, known: Known) {
        let (contact, deal) = self.reader.pick(("contact", "deal"), ("контакт", "сделка"));
        self.add(
            "known of the person",
            "выбрано для этого ученика",
            format!("{contact} {}, {deal} {}", known.contact, known.deal),
        );
    }

    fn origin(&mut self, entry: &Entry) {
        self.add("learnt by", "источник", source(entry, self.reader));
        self.add(
            "learnt at",
            "когда замечена",
            self.reader.time(entry.stored_at),
        );
        self.add(
            "last change",
            "изменено",
            self.reader.time(entry.updated_at),
        );
        self.add(
            "mark in the note",
            "метка в примечании",
            entry.row.reference(),
        );
    }
}

fn state(entry: &Entry, reader: &Reader) -> &'static str {
    match (entry.state, entry.outcome) {
        (State::Pending, _) => reader.pick("pending: is to be tried", "в очереди: будет попытка"),
        (State::Claimed, _) => reader.pick("claimed: is being worked on", "в работе"),
        (State::Waiting, _) => reader.pick(
            "waiting: goes on when the contact appears in amoCRM",
            "ожидает: обработается сама, когда контакт появится в amoCRM",
        ),
        (State::Parked, _) => reader.pick(
            "parked: a person must look, then `tripwire-sync retry`",
            "отложена: нужно ваше решение, затем `tripwire-sync retry`",
        ),
        (State::Done, Some(Outcome::Synced)) => reader.pick(
            "done: the deal is in place, noted, and its id is in the row",
            "готово: сделка на месте, примечание есть, номер сделки записан в строку",
        ),
        (State::Done, Some(Outcome::AlreadyLinked)) => reader.pick(
            "done: the row had a deal id already, amoCRM was not touched",
            "готово: номер сделки уже был в строке, в amoCRM ничего не изменено",
        ),
        (State::Done, Some(Outcome::Skipped)) => reader.pick(
            "done: skipped, the student is blocked or inactive",
            "готово: пропущена, ученик заблокирован или неактивен",
        ),
        (State::Done, Some(Outcome::TooOld)) => reader.pick(
            "done: created before SYNC_SINCE; with an earlier SYNC_SINCE the sweep takes it",
            "готово: создана раньше SYNC_SINCE; с более ранним SYNC_SINCE её возьмёт сверка",
        ),
        (State::Done, Some(Outcome::Gone)) => reader.pick(
            "done: the row was removed from the table",
            "готово: строка удалена из таблицы",
        ),
        (State::Done, Some(Outcome::Undone)) => reader.pick(
            "done: the deal was moved back at your command; the note and the id in the row stay. `tripwire-sync retry` moves it forward again",
            "готово: сделка возвращена на исходный этап; примечание и номер сделки в строке остались. Перенести снова: `tripwire-sync retry`",
        ),
        (State::Done, None) => reader.pick("done", "готово"),
    }
}

fn placed(progress: &Progress, names: &Names, reader: &Reader) -> String {
    if let Some(Move {
        pipeline, from, to, ..
    }) = progress.placing_move()
    {
        let moved = words::moved(from, to, names, reader.lang);
        return match names.pipeline(pipeline) {
            Some(name) => format!("{moved} ({} «{name}»)", reader.pick("pipeline", "воронка")),
            None => moved,
        };
    }
    let placed = match progress.step.placed() {
        _ if progress.undo == Some(Undo::Back) => reader.pick(
            "moved back where it came from",
            "возвращена на исходный этап",
        ),
        None => reader.pick("not settled yet", "ещё не определён"),
        Some(Placed::Moved) => reader.pick("moved to the target", "перенесена на нужный этап"),
        Some(Placed::Left) => reader.pick(
            "left: it stood at or after the target",
            "не перенесена: уже на нужном этапе или дальше",
        ),
        Some(Placed::Created) => reader.pick("created on the target", "создана на нужном этапе"),
    };
    placed.to_owned()
}

fn in_flight(step: &Step, resolve_after: jiff::Timestamp, reader: &Reader) -> String {
    let what = match step {
        Step::Creating(_) => reader.pick("the deal's creation", "создание сделки"),
        _ => reader.pick("the note", "примечание"),
    };
    let then = reader.pick(
        "looked for before anything is repeated; not finding it is proof from",
        "перед повтором сервис проверяет результат; если его нет, это станет точно известно с",
    );
    format!("{what}: {then} {}", reader.time(resolve_after))
}

fn told_stopped(stopped: &Stopped, reader: &Reader) -> String {
    match stopped {
        Stopped::Halted(halt) => {
            let since = reader.pick("halted since", "остановлена с");
            let what = reader.pick(halt.cause.into_str(), halt.cause.hint(Lang::Russian));
            let rows: Vec<String> = halt.rows.iter().map(ToString::to_string).collect();
            let text = format!(
                "{since} {}: {what}. {} {}",
                reader.time(halt.since),
                halt.detail,
                rows.join(" ")
            );
            text.trim_end().to_owned()
        }
        Stopped::Paused(since) => format!(
            "{} {}: tripwire-sync resume",
            reader.pick("paused since", "на паузе с"),
            reader.time(*since)
        ),
    }
}

fn source(entry: &Entry, reader: &Reader) -> String {
    match (&entry.delivery, entry.backfill) {
        (Some(delivery), _) => format!("{} {delivery}", reader.pick("webhook", "вебхук")),
        (None, None) => reader
            .pick("sweep of the table", "сверка таблицы")
            .to_owned(),
        (None, Some(_)) => "backfill".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        domain::{ContactId, DealId, KeyedHash, RowId},
        inbox::{Choice, Lane, Why},
    };

    #[test]
    fn links_need_the_address_and_the_ids() {
        let amocrm = Url::parse("https://school.amocrm.ru").unwrap();
        let entry = |step| Entry {
            row: RowId::new(uuid::Uuid::nil()),
            lane: Lane::Live,
            state: State::Done,
            due_at: Timestamp::UNIX_EPOCH,
            attempts: 0,
            delivery: None,
            stored_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            outcome: None,
            backfill: None,
            reason: None,
            progress: Progress {
                step,
                ..Progress::default()
            },
        };
        let none = Links {
            deal: None,
            contact: None,
        };
        assert_eq!(Links::of(&entry(Step::Begun), Some(&amocrm)), none);
        let chosen = entry(Step::Chosen(Choice {
            fingerprint: KeyedHash::new([0; 16]),
            contact: Some(ContactId::new(7)),
            deal: DealId::new(41),
            why: Why::Open,
        }));
        assert_eq!(Links::of(&chosen, None), none);
        let links = Links::of(&chosen, Some(&amocrm));
        let deal = "https://school.amocrm.ru/leads/detail/41";
        assert_eq!(links.deal.as_deref(), Some(deal));
        let contact = "https://school.amocrm.ru/contacts/detail/7";
        assert_eq!(links.contact.as_deref(), Some(contact));
    }
}
