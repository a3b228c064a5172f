//! What the demo prints of amoCRM and PostgREST: the state of a deal, and every request in plain words.

use sandbox::{DealId, Recorded, Sandbox, Server};

use super::Shop;
use crate::cli::terminal::Terminal;

pub(super) fn tell_deal(
    sandbox: &Sandbox,
    shop: &Shop,
    id: DealId,
    terminal: &mut Terminal,
) -> std::io::Result<()> {
    let (deal, notes) = sandbox.amo.world(|world| {
        let notes: Vec<String> = world.notes_of(id).map(|note| note.text.clone()).collect();
        (world.deal(id).cloned(), notes)
    });
    let Some(deal) = deal else { return Ok(()) };
    let stage = shop
        .names
        .get(&deal.stage)
        .map(String::as_str)
        .unwrap_or_default();
    let at = terminal.pick("stage", "этап");
    terminal.say(&format!("  {id}  «{}»  {at} «{stage}»", deal.name))?;
    for line in notes.iter().flat_map(|note| note.lines()) {
        terminal.say(&format!("    | {line}"))?;
    }
    Ok(())
}

/// One line for each request to a neighbour since the last call.
pub(super) fn tell_requests(
    sandbox: &Sandbox,
    told: usize,
    terminal: &mut Terminal,
) -> std::io::Result<usize> {
    let all = sandbox.requests();
    let first = all.first().map(|request| request.at);
    for request in all.iter().skip(told) {
        let since = first
            .map(|first| request.at.duration_since(first).as_secs_f64())
            .unwrap_or_default();
        let second = terminal.pick("s", "с");
        let line = format!(
            "  {since:>5.2} {second}  {:<9} {}",
            peer(request),
            what(request, terminal)
        );
        terminal.say(&line)?;
    }
    Ok(all.len())
}

fn peer(request: &Recorded) -> &'static str {
    match request.server {
        Server::Amo => "amoCRM",
        Server::Postgrest => "PostgREST",
    }
}

fn what(request: &Recorded, terminal: &Terminal) -> String {
    let (english, russian) = match (request.server, request.method.as_str(), request.route) {
        (Server::Postgrest, "PATCH", _) => (
            "write the deal's id into the row",
            "записать номер сделки в строку",
        ),
        (Server::Postgrest, ..) => what_is_read(request),
        (Server::Amo, "PATCH", _) => ("move the deal", "перенести сделку"),
        (Server::Amo, "POST", route) if route.contains("note") => {
            ("add the note", "добавить примечание")
        }
        (Server::Amo, "POST", _) => ("create the deal", "создать сделку"),
        (Server::Amo, _, "account") => ("ask for the account", "запросить аккаунт"),
        (Server::Amo, _, "contacts.list") => (
            "read the contact with its deals",
            "прочитать контакт со сделками",
        ),
        (Server::Amo, _, route) if route.contains("pipeline") => {
            ("read pipelines and stages", "прочитать воронки и этапы")
        }
        (Server::Amo, _, route) if route.contains("contact") => {
            ("find the contact by e-mail", "найти контакт по e-mail")
        }
        (Server::Amo, _, route) if route.contains("note") => {
            ("look for an earlier note", "поискать прежнее примечание")
        }
        (Server::Amo, ..) => ("read the contact's deals", "прочитать сделки контакта"),
    };
    terminal.pick(english, russian).to_owned()
}

/// The filters tell one read of rows from another.
fn what_is_read(request: &Recorded) -> (&'static str, &'static str) {
    let asks = |column, by: &str| {
        request
            .param(column)
            .is_some_and(|filter| filter.starts_with(by))
    };
    if asks("id", "in.") || asks("id", "eq.") {
        ("read the row", "прочитать строку")
    } else if asks("amocrm_deal_id", "is.null") {
        (
            "sweep: rows without a deal's id",
            "сверка: строки без номера сделки",
        )
    } else if request.param("select") == Some("id") {
        (
            "see that rows can be read at all",
            "проверить, видны ли строки",
        )
    } else {
        (
            "learn which columns there are",
            "узнать, какие колонки есть",
        )
    }
}
