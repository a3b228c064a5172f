//! The same as JSON, for programs. `docs/openapi.yaml` describes it.

use actix_web::{
    Error, HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
    web,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Failure, Handled, Shared,
    actions::{self, Action, Done},
    chart::{last_day, last_month},
    look,
    overview::Overview,
    pages::{Page, page_of_entries},
    search::Wanted,
    session::Role,
    visitor::{comes_from_elsewhere, role_of_program},
};
use crate::{
    domain::RowId,
    http::{method_not_allowed, problem},
    inbox::Entry,
    story::{self, Links},
    words::{Lang, Reader},
};

type Admin = web::Data<Shared>;

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    let reading = |path: &str| {
        web::resource(path).default_service(web::to(async || method_not_allowed("GET, HEAD")))
    };
    let writing = |path: &str| {
        web::resource(path).default_service(web::to(async || method_not_allowed("POST")))
    };
    cfg.service(reading("/state").route(look().to(state)))
        .service(reading("/activity").route(look().to(activity)))
        .service(reading("/entries").route(look().to(entries)))
        .service(reading("/rows/{row}").route(look().to(row)))
        .service(writing("/search").route(web::post().to(search)))
        .service(writing("/actions/{name}").route(web::post().to(act)))
        .default_service(web::to(async || {
            problem(StatusCode::NOT_FOUND, "there is nothing at this address")
        }));
}

fn unknown(detail: &str) -> HttpResponse {
    let mut answer = problem(StatusCode::UNAUTHORIZED, detail);
    let scheme = HeaderValue::from_static("Bearer");
    answer
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, scheme);
    answer
}

fn failed(failure: &Failure) -> HttpResponse {
    let (detail, _) = failure.texts();
    match failure.holder() {
        Some(holder) => problem(failure.status(), &format!("{detail}: {holder}")),
        None => problem(failure.status(), detail),
    }
}

/// For a request that changes nothing: by token or by cookie.
async fn read(
    request: HttpRequest,
    admin: Admin,
    answer: impl AsyncFnOnce(&Shared, Role) -> Result<Value, Failure>,
) -> HttpResponse {
    let Some(role) = role_of_program(&request, &admin, true).await else {
        return unknown("needs the token: `Authorization: Bearer …`, or the cookie of the page");
    };
    let answered = answer(&admin, role).await;
    answered.map_or_else(
        |failure| failed(&failure),
        |value| HttpResponse::Ok().json(value),
    )
}

/// For a POST: by token alone, since a browser sends a cookie by itself.
async fn post(
    request: HttpRequest,
    admin: Admin,
    answer: impl AsyncFnOnce(&Shared, Role) -> Handled,
) -> HttpResponse {
    if comes_from_elsewhere(request.headers()) {
        return failed(&Failure::StaleForm);
    }
    let Some(role) = role_of_program(&request, &admin, false).await else {
        return unknown("needs the token: `Authorization: Bearer …`");
    };
    answer(&admin, role)
        .await
        .unwrap_or_else(|failure| failed(&failure))
}

async fn state(request: HttpRequest, admin: Admin) -> HttpResponse {
    read(request, admin, async |admin, role| {
        let overview = Overview::read(admin).await?;
        Ok(state_value(&overview, role))
    })
    .await
}

fn state_value(overview: &Overview, role: Role) -> Value {
    let sentence = overview.sentence(&Reader::in_utc(Lang::English));
    let counts: Value = overview
        .counts
        .named()
        .map(|(state, count)| (state.to_owned(), json!(count)))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "role": role.into_str(),
        "at": overview.now,
        "sync": overview.state,
        "sentence": sentence.text,
        "hint": sentence.hint,
        "detail": sentence.detail,
        "halted_rows": overview.halt.as_ref().map(|halt| &halt.rows),
        "standby": overview.is_standby,
        "lease_held_by": overview.holder,
        "counts": counts,
        "oldest_pending": overview.counts.oldest_pending,
        "last_event": overview.activity.event,
        "last_sweep": overview.activity.any_sweep(),
    })
}

async fn activity(request: HttpRequest, admin: Admin) -> HttpResponse {
    read(request, admin, async |admin, _| {
        let overview = Overview::read(admin).await?;
        let hours = admin.inbox().hours(overview.now).await?;
        let present = overview.present();
        Ok(json!({
            "hours": last_day(&hours, present),
            "days": last_month(&hours, present, &admin.zone),
        }))
    })
    .await
}

async fn entries(request: HttpRequest, admin: Admin, page: web::Query<Page>) -> HttpResponse {
    read(request, admin, async |admin, _| {
        let state = page.state()?;
        let found = page_of_entries(admin, state, page.number()).await?;
        Ok(json!({
            "state": state,
            "page": found.page,
            "pages": found.pages,
            "total": found.total,
            "entries": found.list.iter().map(|entry| entry_value(entry, admin)).collect::<Vec<_>>(),
        }))
    })
    .await
}

async fn row(request: HttpRequest, admin: Admin, row: web::Path<RowId>) -> HttpResponse {
    read(request, admin, async |admin, _| {
        let story = story::of(admin.inbox(), *row).await?;
        let story = story.ok_or(Failure::NotFound)?;
        Ok(story.as_value(admin.amocrm.as_ref()))
    })
    .await
}

#[derive(Deserialize)]
struct Search {
    query: String,
}

async fn search(request: HttpRequest, admin: Admin, search: web::Json<Search>) -> HttpResponse {
    post(request, admin, async |admin, _| {
        let inbox = admin.inbox();
        let wanted = Wanted::read(&search.query, inbox.hasher()).ok_or(Failure::NotUnderstood)?;
        let found = wanted.find(inbox).await?;
        let entries = found.iter().map(|entry| entry_value(entry, admin));
        Ok(HttpResponse::Ok().json(json!({ "entries": entries.collect::<Vec<_>>() })))
    })
    .await
}

#[derive(Debug, Default, Deserialize)]
struct Order {
    row: Option<RowId>,
    /// Since when the 403 lasts that is to be ended.
    halted_since: Option<jiff::Timestamp>,
}

/// A body is needed only where a row is meant.
async fn act(
    request: HttpRequest,
    admin: Admin,
    name: web::Path<String>,
    order: Result<web::Json<Order>, Error>,
) -> HttpResponse {
    let order = match order {
        Err(_) if !has_body(&request) => Ok(Order::default()),
        order => order.map(web::Json::into_inner),
    };
    post(request, admin, async |admin, role| {
        let order = match order {
            Ok(order) => order,
            Err(error) => return Ok(error.error_response()),
        };
        let action = Action::read(&name, order.row, order.halted_since).ok_or(Failure::NotFound)?;
        let done = actions::carry_out(action, role, admin).await?;
        Ok(HttpResponse::Ok().json(done_value(action, done)))
    })
    .await
}

fn has_body(request: &HttpRequest) -> bool {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH);
    length.is_some_and(|length| length != "0") || headers.contains_key(header::TRANSFER_ENCODING)
}

fn done_value(action: Action, done: Done) -> Value {
    let (rows, services) = match done {
        Done::Rows(rows) => (Some(rows), None),
        Done::Switched(reach) => (None, Some(reach.into_str())),
        Done::Sweeping => (None, None),
    };
    json!({ "action": action.name(), "rows": rows, "services": services })
}

fn entry_value(entry: &Entry, admin: &Shared) -> Value {
    let mut value = story::entry_value(entry);
    value["links"] = json!(Links::of(entry, admin.amocrm.as_ref()));
    value
}
