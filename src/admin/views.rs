//! The pages as HTML. All text is escaped by the templates.

use actix_web::http::StatusCode;
use maud::{DOCTYPE, Markup, html};
use strum::VariantArray;

use super::{
    Failure, Shared,
    actions::{Action, Reach},
    chart::{chart, day_label, hour_label, last_day, last_month},
    overview::{Overview, numbers},
    pages::{Entries, Over},
    visitor::Visitor,
};
use crate::{
    domain::{HaltCause, RowId},
    inbox::{Entry, Hour, Outcome, State},
    story::{Links, Story, next_attempt},
    words::Reader,
};

// ---- the frame ----

fn frame(title: &str, reader: &Reader, visitor: Option<&Visitor>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang=(reader.pick("en", "ru")) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) " · tripwire-sync" }
                link rel="stylesheet" href="/admin/style.css";
                link rel="icon" type="image/svg+xml" href="/admin/icon.svg";
                script src="/admin/script.js" defer {}
            }
            body {
                a.skip href="#main" { (reader.pick("Skip to the content", "К содержанию")) }
                header {
                    a.name href="/admin" { "tripwire-sync" }
                    @if let Some(visitor) = visitor { (navigation(visitor)) }
                }
                main id="main" tabindex="-1" { (content) }
            }
        }
    }
}

fn navigation(visitor: &Visitor) -> Markup {
    let reader = &visitor.reader;
    html! {
        nav aria-label=(reader.pick("Pages", "Страницы")) {
            a href="/admin" { (reader.pick("Overview", "Обзор")) }
            a href="/admin/entries" { (reader.pick("Rows", "Строки")) }
            a href="/admin/search" { (reader.pick("Search", "Поиск")) }
        }
        form.logout method="post" action="/admin/logout" {
            (mark(visitor))
            @if !visitor.is_admin() {
                span.role id="role" { (reader.pick("view only", "только просмотр")) }
            }
            button.plain id="logout" type="submit" { (reader.pick("Log out", "Выйти")) }
        }
    }
}

/// Shows that a form is one of this session.
fn mark(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="mark" value=(visitor.session.form_mark); }
}

pub(super) fn login(reader: &Reader, was_wrong: bool) -> Markup {
    let title = reader.pick("Log in", "Вход");
    let content = html! {
        h1 { (title) }
        @if was_wrong {
            p.notice.bad role="alert" id="wrong-token" {
                (reader.pick("This token is not right.", "Неверный токен."))
            }
        }
        form.login id="login-form" method="post" action="/admin/login" {
            label for="token" { (reader.pick("Token", "Токен")) }
            p.help id="token-help" {
                (reader.pick(
                    "ADMIN_TOKEN or VIEWER_TOKEN of the service's settings.",
                    "ADMIN_TOKEN или VIEWER_TOKEN из настроек сервиса.",
                ))
            }
            input id="token" name="token" type="password" autocomplete="current-password" required
                autofocus aria-describedby="token-help";
            button id="login" type="submit" { (reader.pick("Log in", "Войти")) }
        }
    };
    frame(title, reader, None, &content)
}

pub(super) fn failure(failure: &Failure, visitor: Option<&Visitor>, reader: &Reader) -> Markup {
    let title = match failure.status() {
        StatusCode::NOT_FOUND => reader.pick("Not found", "Не найдено"),
        StatusCode::FORBIDDEN => reader.pick("Not allowed", "Нельзя"),
        _ => reader.pick("Not done", "Не сделано"),
    };
    let (english, russian) = failure.texts();
    let content = html! {
        h1 { (title) }
        p.notice.bad id="failure" role="alert" {
            (sentence_case(reader.pick(english, russian)))
            @if let Some(holder) = failure.holder() { ": " (holder) }
            "."
        }
        p { a href="/admin" { (reader.pick("To the overview", "К обзору")) } }
    };
    frame(title, reader, visitor, &content)
}

fn sentence_case(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).collect()
}

/// What an action that is over has come to; nothing for an address to which no action leads.
fn notice(over: &Over, reader: &Reader) -> Markup {
    let rows = over.rows.unwrap_or_default();
    let reached = over.services.as_deref();
    let reached = reached.and_then(|services| reached_services(services, reader));
    let text = match (over.done.as_deref(), rows, reached) {
        (Some("retry" | "retry-parked"), 0, None) => reader
            .pick(
                "Nothing was changed: there is nothing to retry, or it is being worked on.",
                "Ничего не изменено: повторять нечего, или строка уже в работе.",
            )
            .to_owned(),
        (Some("retry" | "retry-parked"), _, None) => reader.pick(
            format!("To be tried again: {rows}."),
            format!("Будут повторены: {rows}."),
        ),
        (Some("park"), 0, None) => reader
            .pick(
                "Nothing was changed: the row is done, parked already, or being worked on.",
                "Ничего не изменено: строка готова, уже отложена или в работе.",
            )
            .to_owned(),
        (Some("park"), _, None) => reader.pick("Parked.", "Отложено.").to_owned(),
        (Some("sweep"), ..) => reader
            .pick(
                "The sweep begins as soon as it can.",
                "Сверка начнётся при первой возможности.",
            )
            .to_owned(),
        (Some("pause"), _, Some(reached)) => {
            format!("{} {reached}", reader.pick("Paused.", "Пауза включена."))
        }
        (Some("resume"), _, Some(reached)) => {
            let goes_on = reader.pick("Sending goes on.", "Отправка продолжается.");
            format!("{goes_on} {reached}")
        }
        _ => return html! {},
    };
    html! { p.notice id="notice" role="status" { (text) } }
}

fn reached_services(services: &str, reader: &Reader) -> Option<&'static str> {
    let reach = [Reach::All, Reach::Here, Reach::Unknown];
    let reach = reach.into_iter().find(|it| it.into_str() == services)?;
    Some(match reach {
        Reach::All => reader.pick(
            "This holds for all services on the project: they ask every 15 seconds.",
            "Это касается всех сервисов проекта: они узнают об этом в течение 15 секунд.",
        ),
        Reach::Here => reader.pick(
            "This holds for this service alone.",
            "Это касается только этого сервиса.",
        ),
        Reach::Unknown => reader.pick(
            "The database does not answer: other services may not know of it. Do it again later.",
            "База не отвечает: другие сервисы могут об этом не знать. Повторите позже.",
        ),
    })
}

// ---- the overview ----

pub(super) fn overview(
    visitor: &Visitor,
    overview: &Overview,
    hours: &[Hour],
    [parked, newest]: [&[Entry]; 2],
    over: &Over,
) -> Markup {
    let reader = &visitor.reader;
    let present = overview.present();
    let day = last_day(hours, present);
    let month = last_month(hours, present, &reader.zone);
    let title = reader.pick("Overview", "Обзор");
    let content = html! {
        h1.hidden { (title) }
        (notice(over, reader))
        (status(overview, reader))
        (counts(overview, reader))
        @if visitor.is_admin() { (buttons(visitor, overview)) }
        (search_box(visitor))
        section id="parked" data-live aria-labelledby="parked-title" {
            h2 id="parked-title" { (reader.pick("Parked: your decision is needed", "Отложены: нужно ваше решение")) }
            (entry_list(parked, reader))
            @if overview.count(State::Parked) > parked.len() as u64 {
                p { a href="/admin/entries?state=parked" { (reader.pick("All parked rows", "Все отложенные строки")) } }
            }
        }
        (chart("chart-day", reader.pick("Last 24 hours", "Последние 24 часа"), &day, &hour_label(reader), reader))
        (chart("chart-month", reader.pick("Last 30 days", "Последние 30 дней"), &month, &day_label(reader), reader))
        section id="newest" data-live aria-labelledby="newest-title" {
            h2 id="newest-title" { (reader.pick("Latest changes", "Последние изменения")) }
            (entry_list(newest, reader))
            p { a href="/admin/entries" { (reader.pick("All rows", "Все строки")) } }
        }
    };
    frame(title, reader, Some(visitor), &content)
}

fn status(overview: &Overview, reader: &Reader) -> Markup {
    let sentence = overview.sentence(reader);
    let activity = overview.activity;
    let time = |at: Option<jiff::Timestamp>| {
        at.map_or_else(
            || reader.pick("not yet", "ещё не было").to_owned(),
            |at| reader.time(at),
        )
    };
    html! {
        section.status.(sentence.tone.into_str()) id="status" data-live aria-label=(reader.pick("State", "Состояние")) {
            p.sentence id="sentence" { (sentence.text) }
            @if let Some(hint) = sentence.hint { p id="hint" { (hint) "." } }
            @if let Some(detail) = &sentence.detail { p id="detail" { (reader.pick("Details", "Подробности")) ": " (detail) } }
            @if let Some(halt) = &overview.halt { (halted_rows(&halt.rows, reader)) }
            p.help {
                (reader.pick("Last event", "Последнее событие")) ": " (time(activity.event)) ". "
                (reader.pick("Last sweep", "Последняя сверка")) ": " (time(activity.any_sweep())) ". "
                (reader.pick("As of", "По состоянию на")) " " (reader.time(overview.now)) "."
            }
        }
    }
}

fn halted_rows(rows: &[RowId], reader: &Reader) -> Markup {
    html! {
        @if !rows.is_empty() {
            p { (reader.pick("Rows", "Строки")) ": "
                @for row in rows.iter().take(5) { a href=(row_address(*row)) { (row) } " " }
            }
        }
    }
}

fn counts(overview: &Overview, reader: &Reader) -> Markup {
    html! {
        section id="counts" data-live aria-labelledby="counts-title" {
            h2.hidden id="counts-title" { (reader.pick("Rows by state", "Строки по состояниям")) }
            ul.counts {
                @for (state, name, count) in numbers(overview, reader) {
                    li { a id={ "count-" (state.into_str()) } href={ "/admin/entries?state=" (state.into_str()) } {
                        strong { (count) } " " span { (name) }
                    } }
                }
            }
        }
    }
}

fn buttons(visitor: &Visitor, overview: &Overview) -> Markup {
    let reader = &visitor.reader;
    html! {
        section id="actions" data-live aria-label=(reader.pick("Actions", "Действия")) {
            div.buttons {
                // Both always: other services may be paused while this one is not, and the other way round.
                (button(visitor, Action::Pause))
                (button(visitor, Action::Resume { seen: None }))
                @if !overview.is_standby {
                    (button(visitor, Action::Sweep))
                    @if overview.count(State::Parked) > 0 { (button(visitor, Action::RetryParked)) }
                }
            }
        }
    }
}

/// A form of one button: what asks first leads to its question.
fn button(visitor: &Visitor, action: Action) -> Markup {
    let reader = &visitor.reader;
    let (name, label) = (action.name(), label(action, reader));
    let method = if action.is_asked() { "get" } else { "post" };
    html! {
        form method=(method) action={ "/admin/actions/" (name) } {
            @if !action.is_asked() { (mark(visitor)) }
            @if let Some(row) = action.row() { input type="hidden" name="row" value=(row); }
            button id={ "action-" (name) } type="submit" { (label) }
        }
    }
}

fn label(action: Action, reader: &Reader) -> &'static str {
    match action {
        Action::Retry(_) => reader.pick("Retry now", "Повторить сейчас"),
        Action::Park(_) => reader.pick("Park", "Отложить"),
        Action::RetryParked => reader.pick("Retry all parked", "Повторить все отложенные"),
        Action::Pause => reader.pick("Pause", "Пауза"),
        Action::Resume { .. } => reader.pick("Resume", "Продолжить"),
        Action::Sweep => reader.pick("Sweep now", "Начать сверку"),
    }
}

pub(super) fn confirmation(visitor: &Visitor, action: Action, overview: &Overview) -> Markup {
    let reader = &visitor.reader;
    let title = label(action, reader);
    let back = action
        .row()
        .map_or_else(|| "/admin".to_owned(), row_address);
    let content = html! {
        h1 { (title) }
        p id="question" { (question(action, overview, reader)) }
        @if let Some(row) = action.row() { p { (reader.pick("Row", "Строка")) ": " code { (row) } } }
        div.buttons {
            form method="post" action={ "/admin/actions/" (action.name()) } {
                (mark(visitor))
                @if let Some(row) = action.row() { input type="hidden" name="row" value=(row); }
                @if let (Action::Resume { .. }, Some(halt)) = (action, &overview.halt) {
                    input type="hidden" name="seen" value=(halt.since);
                }
                button id="confirm" type="submit" { (title) }
            }
            a.button id="cancel" href=(back) { (reader.pick("Cancel", "Отмена")) }
        }
    };
    frame(title, reader, Some(visitor), &content)
}

fn question(action: Action, overview: &Overview, reader: &Reader) -> String {
    match action {
        Action::Retry(_) => reader.pick(
            "The row is tried again at once.",
            "Строка будет обработана ещё раз, сразу.",
        ).to_owned(),
        Action::Park(_) => reader.pick(
            "The row is set aside: the service does not touch it until it is retried.",
            "Строка будет отложена: сервис не тронет её, пока вы не нажмёте «Повторить сейчас».",
        ).to_owned(),
        Action::RetryParked => {
            let parked = overview.count(State::Parked);
            reader.pick(
                format!("All parked rows are tried again at once: {parked}."),
                format!("Все отложенные строки будут обработаны ещё раз, сразу: {parked}."),
            )
        }
        Action::Pause => reader.pick(
            "Nothing more goes to amoCRM, from any service on the project, until you resume. Events are still accepted.",
            "В amoCRM больше ничего не уйдёт ни из одного сервиса проекта, пока вы не продолжите. События по-прежнему принимаются.",
        ).to_owned(),
        Action::Resume { .. } => resume_question(overview, reader),
        Action::Sweep => reader.pick(
            "The table is gone through at once.",
            "Таблица будет сверена сразу.",
        ).to_owned(),
    }
}

/// Asking amoCRM again while it forbids access makes a ban permanent.
fn resume_question(overview: &Overview, reader: &Reader) -> String {
    let is_forbidden = overview
        .halt
        .as_ref()
        .is_some_and(|halt| halt.cause == HaltCause::AmocrmForbidden);
    let goes_on = reader.pick(
        "Sending to amoCRM goes on, on all services of the project; a halt ends as well.",
        "Отправка в amoCRM продолжится во всех сервисах проекта; остановка тоже снимается.",
    );
    if overview.is_standby {
        let elsewhere = reader.pick(
            "This service stands by. If amoCRM has forbidden access (403), that halt is ended only on the service that syncs.",
            "Этот сервис в резерве. Если amoCRM закрыла доступ (403), остановка снимается только на сервисе, который синхронизирует.",
        );
        return format!("{goes_on} {elsewhere}");
    }
    if !is_forbidden {
        return goes_on.to_owned();
    }
    let warning = reader.pick(
        "amoCRM has forbidden access (403). Find out why from its support first: asking on may make the ban permanent.",
        "amoCRM закрыла доступ (403). Сначала выясните причину в её поддержке: новые запросы могут сделать блокировку постоянной.",
    );
    format!("{warning} {goes_on}")
}

// ---- lists and search ----

fn search_box(visitor: &Visitor) -> Markup {
    let reader = &visitor.reader;
    html! {
        form.search id="search" role="search" method="post" action="/admin/search" {
            (mark(visitor))
            label for="query" {
                (reader.pick(
                    "Find a student: row id, e-mail, number of the deal or contact",
                    "Найти ученика: номер строки, e-mail, номер сделки или контакта",
                ))
            }
            div.line {
                input id="query" name="query" type="search" required autocomplete="off" spellcheck="false" maxlength="320";
                button id="find" type="submit" { (reader.pick("Find", "Найти")) }
            }
        }
    }
}

pub(super) fn search(visitor: &Visitor, found: Option<Result<&Vec<Entry>, Failure>>) -> Markup {
    let reader = &visitor.reader;
    let title = reader.pick("Search", "Поиск");
    let content = html! {
        h1 { (title) }
        (search_box(visitor))
        @match found {
            None => {},
            Some(Err(failure)) => {
                @let (english, russian) = failure.texts();
                p.notice.bad id="failure" role="alert" { (sentence_case(reader.pick(english, russian))) "." }
            },
            Some(Ok(found)) => {
                section id="found" aria-labelledby="found-title" {
                    h2 id="found-title" { (reader.pick("Found", "Найдено")) ": " (found.len()) }
                    @if found.is_empty() {
                        p id="nothing-found" {
                            (reader.pick(
                                "The inbox knows no such student: no event came, the row was not read yet (search by its id), or it was done long ago.",
                                "В очереди такого ученика нет: события не было, строка ещё не прочитана (ищите по её номеру) или давно обработана.",
                            ))
                        }
                    } @else {
                        (entry_list(found, reader))
                    }
                }
            },
        }
    };
    frame(title, reader, Some(visitor), &content)
}

pub(super) fn entries(visitor: &Visitor, state: Option<State>, found: &Entries) -> Markup {
    let reader = &visitor.reader;
    let title = reader.pick("Rows", "Строки");
    let address = |state: Option<State>, page: u32| {
        let state = state.map_or("", |it| it.into_str());
        format!("/admin/entries?state={state}&page={page}")
    };
    let content = html! {
        h1 { (title) }
        nav.filter id="filter" aria-label=(reader.pick("State", "Состояние")) {
            @for it in std::iter::once(None).chain(State::VARIANTS.iter().copied().map(Some)) {
                @let name = it.map_or(reader.pick("all", "все"), |it| state_of_many(it, reader));
                a href=(address(it, 1)) aria-current=[(it == state).then_some("page")] { (name) }
            }
        }
        section id="entries" data-live aria-label=(title) {
            p.help { (reader.pick("In all", "Всего")) ": " (found.total) }
            (entry_list(&found.list, reader))
            @if found.pages > 1 {
                nav.pages id="pages" aria-label=(reader.pick("Pages of the list", "Страницы списка")) {
                    @if found.page > 1 {
                        a id="previous" rel="prev" href=(address(state, found.page - 1)) { (reader.pick("← Newer", "← Новее")) }
                    }
                    span { (reader.pick("page", "страница")) " " (found.page) " / " (found.pages) }
                    @if found.page < found.pages {
                        a id="next" rel="next" href=(address(state, found.page + 1)) { (reader.pick("Older →", "Старее →")) }
                    }
                }
            }
        }
    };
    frame(title, reader, Some(visitor), &content)
}

fn row_address(row: RowId) -> String {
    format!("/admin/rows/{row}")
}

fn entry_list(entries: &[Entry], reader: &Reader) -> Markup {
    html! {
        @if entries.is_empty() {
            p.help { (reader.pick("None.", "Нет.")) }
        } @else {
            ul.entries {
                @for entry in entries { (entry_item(entry, reader)) }
            }
        }
    }
}

fn entry_item(entry: &Entry, reader: &Reader) -> Markup {
    let deal = entry.progress.step.deal();
    html! {
        li.entry data-row=(entry.row) {
            (badge(entry, reader))
            a.row href=(row_address(entry.row)) { (entry.row) }
            @if let Some(deal) = deal { span { (reader.pick("deal", "сделка")) " " (deal) } }
            span.help { (reader.pick("changed", "изменена")) " " (reader.time(entry.updated_at)) }
            @if let Some(at) = next_attempt(entry) {
                span.help { (reader.pick("next attempt", "следующая попытка")) " " (reader.time(at)) }
            }
            @if let Some(reason) = &entry.reason { p.reason { (reason) } }
        }
    }
}

fn badge(entry: &Entry, reader: &Reader) -> Markup {
    let text = match entry.outcome {
        Some(outcome) => outcome_name(outcome, reader),
        None => state_name(entry.state, reader),
    };
    html! { span.badge.(entry.state.into_str()) { (text) } }
}

pub(super) fn state_name(state: State, reader: &Reader) -> &'static str {
    crate::words::state(state, reader.lang)
}

/// Of a number of rows.
pub(super) fn state_of_many(state: State, reader: &Reader) -> &'static str {
    match state {
        State::Waiting => reader.pick("waiting for a contact", "ожидают контакт"),
        State::Parked => reader.pick("parked", "отложены"),
        State::Done => reader.pick("done", "готовы"),
        State::Pending | State::Claimed => state_name(state, reader),
    }
}

fn outcome_name(outcome: Outcome, reader: &Reader) -> &'static str {
    match outcome {
        Outcome::Synced => reader.pick("done", "готово"),
        Outcome::AlreadyLinked => {
            reader.pick("done: had a deal id", "готово: номер сделки уже был")
        }
        Outcome::Skipped => reader.pick("skipped", "пропущена"),
        Outcome::TooOld => reader.pick("too old", "слишком старая"),
        Outcome::Gone => reader.pick("removed from the table", "удалена из таблицы"),
        Outcome::Undone => reader.pick("undone", "сделка возвращена"),
    }
}

// ---- one student ----

pub(super) fn row(
    admin: &Shared,
    visitor: &Visitor,
    story: &Story,
    is_standby: bool,
    over: &Over,
) -> Markup {
    let reader = &visitor.reader;
    let entry = &story.entry;
    let title = reader.pick("Student", "Ученик");
    let content = html! {
        h1 id="title" data-live { (title) " " (badge(entry, reader)) }
        (notice(over, reader))
        (links(admin, entry, reader))
        section id="story" data-live aria-labelledby="story-title" {
            h2 id="story-title" { (reader.pick("Story", "Что известно")) }
            dl {
                @for (label, text) in story.lines(reader) {
                    div { dt { (label) } dd { (text) } }
                }
            }
        }
        // There also when it is empty: the buttons go and come with the state.
        div id="actions" data-live {
            @if visitor.is_admin() && !is_standby && entry.state != State::Done {
                section aria-label=(reader.pick("Actions", "Действия")) {
                    div.buttons {
                        @if entry.state != State::Claimed { (button(visitor, Action::Retry(entry.row))) }
                        @if matches!(entry.state, State::Pending | State::Waiting) { (button(visitor, Action::Park(entry.row))) }
                    }
                }
            }
        }
        section id="history" data-live aria-labelledby="history-title" {
            h2 id="history-title" { (reader.pick("History", "История")) }
            ol.history {
                @for line in story.history.iter().rev() {
                    li { time datetime=(line.at) { (reader.time(line.at)) } " " span { (story.told(line, reader.lang)) } }
                }
            }
        }
    };
    frame(title, reader, Some(visitor), &content)
}

fn links(admin: &Shared, entry: &Entry, reader: &Reader) -> Markup {
    let links = Links::of(entry, admin.amocrm.as_ref());
    let step = &entry.progress.step;
    let deal = step.deal().zip(links.deal);
    let contact = step.contact().zip(links.contact);
    html! {
        div.links id="links" data-live {
            @if let Some((deal, link)) = deal {
                a id="deal-link" href=(link) rel="noreferrer" { (reader.pick("Deal", "Сделка")) " " (deal) " " (reader.pick("in amoCRM", "в amoCRM")) }
                " "
            }
            @if let Some((contact, link)) = contact {
                a id="contact-link" href=(link) rel="noreferrer" { (reader.pick("Contact", "Контакт")) " " (contact) " " (reader.pick("in amoCRM", "в amoCRM")) }
            }
        }
    }
}
