//! `check --probe`: what a live amoCRM does where its documents are silent. At most ten requests, none of them a write.

use std::path::Path;

use amocrm::{AmoCrm, AmoError, Contact, Deal, Disposition, IDS_PER_READ, PAGE, Peek, Query};
use serde_json::json;

use self::judge::{Answer, Finding, Known, Seen, Verdict};
use crate::{
    cli::{CommandError, Outcome, clock, entries::read_if_there, room, terminal::Terminal},
    config::Config,
    domain::Chain,
    inbox::{self, InboxError, State},
    sync::amocrm_reason,
};

mod judge;

/// Whatever the answers are.
const MOST_REQUESTS: usize = 10;
/// Entries whose notes are looked for.
const ENTRIES: u32 = 100;

pub(super) async fn run(as_json: bool, terminal: &mut Terminal) -> Outcome {
    let access = Config::load_amocrm()?;
    let inbox_path = Config::load_inbox_path()?;
    let notes = known_notes(&inbox_path).await?;
    let client = room::client(access);
    let asked = room::ask(Some(&inbox_path), client, terminal, async |amocrm| {
        let seen = ask(amocrm, notes).await;
        (seen, amocrm.requests_sent())
    });
    let (seen, requests) = asked.await?;
    if let Answer::Failed(error) = &seen.changed
        && matches!(error.disposition(), Disposition::Halt(_))
    {
        let told = terminal.pick(Chain(error).to_string(), amocrm_reason(error));
        terminal.complain(&told);
        return Err(CommandError::Told);
    }
    let findings = judge::all(&seen, terminal.lang());
    print(&findings, requests, as_json, terminal)?;
    let is_bad = |it: &Finding| it.verdict == Verdict::Contradicted && it.assumption.is_relied_on();
    if findings.iter().any(is_bad) {
        return Err(CommandError::Told);
    }
    Ok(())
}

/// The notes that this inbox's service has written, by deal.
async fn known_notes(path: &Path) -> Result<Vec<Known>, InboxError> {
    let entries = read_if_there(path, async |inbox| {
        inbox.entries(Some(State::Done), ENTRIES).await
    });
    let synced = entries.await?.unwrap_or_default().into_iter();
    let synced = synced.filter(|entry| entry.outcome == Some(inbox::Outcome::Synced));
    let noted = synced.filter_map(|entry| {
        let deal = entry.progress.step.deal()?;
        Some(Known {
            deal,
            row: entry.row,
        })
    });
    Ok(noted.collect())
}

/// Sends no more than it may, and nothing after a refusal or a 429.
struct Asker<'a> {
    amocrm: &'a AmoCrm,
    left: usize,
}

impl Asker<'_> {
    async fn ask<T>(
        &mut self,
        request: impl AsyncFnOnce(&AmoCrm) -> Result<Peek<T>, AmoError>,
    ) -> Answer<T> {
        let Some(left) = self.left.checked_sub(1) else {
            return Answer::NotAsked;
        };
        self.left = left;
        match request(self.amocrm).await {
            Ok(page) => Answer::Page(page),
            Err(error) => {
                let is_refusal = matches!(error.disposition(), Disposition::Halt(_));
                if is_refusal || matches!(error, AmoError::Throttled { .. }) {
                    self.left = 0;
                }
                Answer::Failed(error)
            }
        }
    }

    async fn contacts(&mut self, query: Query, page: u32) -> Answer<Contact> {
        self.ask(async |amocrm: &AmoCrm| amocrm.peek_contacts(query, page).await)
            .await
    }

    async fn deals(&mut self, query: Query) -> Answer<Deal> {
        self.ask(async |amocrm: &AmoCrm| amocrm.peek_deals(query, 1).await)
            .await
    }
}

/// Each request is one that the service itself sends, or the same with a filter that it could use.
async fn ask(amocrm: &AmoCrm, known: Vec<Known>) -> Seen {
    let mut asker = Asker {
        amocrm,
        left: MOST_REQUESTS,
    };
    let mut seen = Seen {
        known,
        ..Seen::default()
    };
    lists(&mut asker, &mut seen).await;
    selections(&mut asker, &mut seen).await;
    by_ids(&mut asker, &mut seen).await;
    seen
}

fn param(name: &'static str, value: impl Into<String>) -> (&'static str, String) {
    (name, value.into())
}

async fn lists(asker: &mut Asker<'_>, seen: &mut Seen) {
    let descending = |order| vec![param(order, "desc"), param("with", "leads")];
    let ascending = || vec![param("order[id]", "asc")];
    seen.changed = asker.contacts(descending("order[updated_at]"), 1).await;
    seen.our_time = clock().now();
    seen.newest = asker.contacts(descending("order[id]"), 1).await;
    seen.oldest = asker.contacts(ascending(), 1).await;
    if seen.oldest.items().len() >= PAGE {
        seen.second = asker.contacts(ascending(), 2).await;
    }
}

async fn selections(asker: &mut Asker<'_>, seen: &mut Seen) {
    seen.since = judge::middle_change(seen.changed.items());
    if let Some(since) = seen.since {
        let query = vec![
            param("filter[updated_at][from]", since.as_second().to_string()),
            param("order[updated_at]", "desc"),
        ];
        seen.filtered = asker.contacts(query, 1).await;
    }
    seen.sought = judge::newest_with_email(seen.newest.items());
    if let Some(sought) = &seen.sought {
        let query = vec![
            param("query", sought.email.as_str()),
            param("with", "leads"),
        ];
        seen.found = asker.contacts(query, 1).await;
    }
}

async fn by_ids(asker: &mut Asker<'_>, seen: &mut Seen) {
    let both = || seen.newest.items().iter().chain(seen.changed.items());
    let contacts = both().map(|contact| contact.id.get());
    seen.contacts = contacts.take(IDS_PER_READ).collect();
    let deals = both().flat_map(|contact| &contact.deals).copied();
    seen.named = deals.take(IDS_PER_READ).collect();

    if let Some(query) = ids("filter[id][]", seen.contacts.iter().copied()) {
        seen.by_id = asker.contacts(query, 1).await;
    }
    if let Some(query) = ids("filter[id][]", seen.named.iter().map(|it| it.get())) {
        seen.deals = asker.deals(query).await;
    }
    let absent = judge::absent(&seen.named, seen.deals.items());
    if seen.deals.page().is_some()
        && let Some(mut query) = ids("filter[id][]", absent.iter().map(|it| it.get()))
    {
        query.push(param("with", "only_deleted"));
        seen.deleted = asker.deals(query).await;
    }
    let there = seen.deals.items().iter().map(|deal| deal.id);
    let ours = seen.known.iter().map(|it| it.deal);
    seen.noted = ours.chain(there).take(IDS_PER_READ).collect();
    if let Some(mut query) = ids("filter[entity_id][]", seen.noted.iter().map(|it| it.get())) {
        query.push(param("filter[note_type][]", "common"));
        query.push(param("order[id]", "asc"));
        let notes = asker.ask(async |amocrm: &AmoCrm| amocrm.peek_notes(query, 1).await);
        seen.notes = notes.await;
    }
}

/// `None` for no ids: an empty filter would match the whole account.
fn ids(filter: &'static str, ids: impl Iterator<Item = i64>) -> Option<Query> {
    let query: Query = ids.map(|id| (filter, id.to_string())).collect();
    (!query.is_empty()).then_some(query)
}

fn print(findings: &[Finding], requests: u64, as_json: bool, terminal: &mut Terminal) -> Outcome {
    let lang = terminal.lang();
    if as_json {
        let list: Vec<_> = findings
            .iter()
            .map(|it| {
                json!({
                    "what": it.assumption.into_str(), "state": it.verdict.into_str(), "text": it.text(lang),
                    "means": it.means(lang),
                })
            })
            .collect();
        return Ok(terminal.say(&serde_json::to_string_pretty(&list)?)?);
    }
    let version = env!("CARGO_PKG_VERSION");
    let day = clock().now().strftime("%Y-%m-%d").to_string();
    terminal.say(&terminal.pick(
        format!("tripwire-sync {version}, {day}: what this amoCRM does where its documents are silent ({requests} requests, none a write). The report names no people and no ids: it may be passed on."),
        format!("tripwire-sync {version}, {day}: как ведёт себя эта amoCRM там, где документация молчит (запросов: {requests}, только чтение). В отчёте нет ни людей, ни номеров: его можно передать."),
    ))?;
    for finding in findings {
        let (state, what) = (finding.verdict.word(lang), finding.assumption.into_str());
        terminal.say(&format!("{state:<12}  {what:<16}  {}", finding.text(lang)))?;
        if let Some(means) = finding.means(lang) {
            terminal.say(&format!("{:<12}  {:<16}  → {means}", "", ""))?;
        }
    }
    let count = |verdict| findings.iter().filter(|it| it.verdict == verdict).count();
    let (good, bad, open) = (
        count(Verdict::Confirmed),
        count(Verdict::Contradicted),
        count(Verdict::Unknown),
    );
    Ok(terminal.say(&terminal.pick(
        format!("{good} confirmed, {bad} contradicted, {open} could not be told. docs/assumptions.md says what each is used for."),
        format!("Подтверждено: {good}, опровергнуто: {bad}, не удалось узнать: {open}. Где что используется: docs/assumptions.md."),
    ))?)
}
