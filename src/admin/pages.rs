//! The pages: what each address answers to a browser.

use std::future::ready;

use actix_web::{
    HttpRequest, HttpResponse, Route,
    cookie::{Cookie, SameSite, time::Duration as CookieAge},
    http::{
        StatusCode,
        header::{self, ContentType},
    },
    web,
};
use jiff::Timestamp;
use maud::Markup;
use serde::Deserialize;

use super::{
    Failure, Handled, Shared,
    actions::{self, Action, Done},
    look,
    overview::Overview,
    search::Wanted,
    session::LASTS,
    views,
    visitor::{COOKIE, Visitor, comes_from_elsewhere, reader, role_of_token},
};
use crate::{
    domain::RowId,
    inbox::{Entry, InboxError, State},
    story,
    sync::lease::standby,
};

/// Entries on a page.
const PAGE: u32 = 50;
/// Older entries are found by a search.
const MOST_PAGES: u32 = 1_000;
/// Entries of a list on the first page.
const FEW: u32 = 10;

type Admin = web::Data<Shared>;

pub(super) fn routes(cfg: &mut web::ServiceConfig) {
    cfg.route("", look().to(overview))
        .route("/", look().to(async || see_other("/admin")))
        .route(
            "/style.css",
            asset("text/css; charset=utf-8", include_str!("style.css")),
        )
        .route(
            "/script.js",
            asset("text/javascript; charset=utf-8", include_str!("script.js")),
        )
        .route(
            "/icon.svg",
            asset("image/svg+xml", include_str!("icon.svg")),
        )
        .route("/login", look().to(login_form))
        .route("/login", web::post().to(login))
        .route("/logout", web::post().to(logout))
        .route("/entries", look().to(entries))
        .route("/rows/{row}", look().to(row))
        .route("/search", look().to(search_form))
        .route("/search", web::post().to(search))
        .route("/actions/{name}", look().to(ask))
        .route("/actions/{name}", web::post().to(act))
        .default_service(web::to(nothing));
}

fn see_other(to: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header((header::LOCATION, to))
        .finish()
}

fn html(status: StatusCode, page: Markup) -> HttpResponse {
    HttpResponse::build(status)
        .content_type(ContentType::html())
        .body(page.into_string())
}

/// For a visitor with a session; another one is sent to the login.
async fn page(
    request: HttpRequest,
    admin: Admin,
    answer: impl AsyncFnOnce(&Shared, &HttpRequest, &Visitor) -> Handled,
) -> HttpResponse {
    let Some(visitor) = Visitor::of(&request, &admin) else {
        return see_other("/admin/login");
    };
    let answered = answer(&admin, &request, &visitor).await;
    answered.unwrap_or_else(|failure| {
        html(
            failure.status(),
            views::failure(&failure, Some(&visitor), &visitor.reader),
        )
    })
}

fn asset(content_type: &'static str, text: &'static str) -> Route {
    look().to(move || ready(HttpResponse::Ok().content_type(content_type).body(text)))
}

async fn nothing(request: HttpRequest, admin: Admin) -> HttpResponse {
    page(request, admin, async |_, _, _| Err(Failure::NotFound)).await
}

// ---- login ----

async fn login_form(request: HttpRequest, admin: Admin) -> HttpResponse {
    if Visitor::of(&request, &admin).is_some() {
        return see_other("/admin");
    }
    html(
        StatusCode::OK,
        views::login(&reader(&request, &admin), false),
    )
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

async fn login(request: HttpRequest, admin: Admin, login: web::Form<Login>) -> HttpResponse {
    let reader = reader(&request, &admin);
    if comes_from_elsewhere(request.headers()) {
        let failure = Failure::StaleForm;
        return html(failure.status(), views::failure(&failure, None, &reader));
    }
    let role = role_of_token(login.token.trim(), &admin).await;
    let now = admin.clock().now();
    let cookie = role.and_then(|role| admin.keys.cookie(role, now, rand::random()));
    let (Some(role), Some(cookie)) = (role, cookie) else {
        return html(StatusCode::FORBIDDEN, views::login(&reader, true));
    };
    tracing::info!(role = role.into_str(), "admin.login");
    let mut answer = see_other("/admin");
    let age = CookieAge::try_from(LASTS).unwrap_or(CookieAge::ZERO);
    // A header of this length is always one.
    let _ = answer.add_cookie(&session_cookie(&request, cookie, age));
    answer
}

#[derive(Deserialize)]
struct Mark {
    #[serde(default)]
    mark: String,
}

async fn logout(request: HttpRequest, admin: Admin, form: web::Form<Mark>) -> HttpResponse {
    page(request, admin, async |_, request, visitor| {
        visitor.sent_form(request, &form.mark)?;
        let mut answer = see_other("/admin/login");
        let _ = answer.add_cookie(&session_cookie(request, String::new(), CookieAge::ZERO));
        Ok(answer)
    })
    .await
}

/// A proxy in front says whether the browser's connection is encrypted. A sender that lies harms its own cookie alone.
fn session_cookie(request: &HttpRequest, value: String, age: CookieAge) -> Cookie<'static> {
    Cookie::build(COOKIE, value)
        .path("/admin")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(request.connection_info().scheme() == "https")
        .max_age(age)
        .finish()
}

// ---- what there is to see ----

/// What an action that is over has come to, in the address that the browser is sent to.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Over {
    pub(super) done: Option<String>,
    pub(super) rows: Option<u64>,
    pub(super) services: Option<String>,
}

impl Over {
    /// The address that shows what an action has come to.
    fn address(action: Action, done: Done) -> String {
        let page = action
            .row()
            .map_or_else(|| "/admin".to_owned(), |row| format!("/admin/rows/{row}"));
        let name = action.name();
        match done {
            Done::Rows(rows) => format!("{page}?done={name}&rows={rows}"),
            Done::Sweeping => format!("{page}?done={name}"),
            Done::Switched(reach) => format!("{page}?done={name}&services={}", reach.into_str()),
        }
    }
}

async fn overview(request: HttpRequest, admin: Admin, over: web::Query<Over>) -> HttpResponse {
    page(request, admin, async |admin, _, visitor| {
        let overview = Overview::read(admin).await?;
        let inbox = admin.inbox();
        let parked = inbox.entries(Some(State::Parked), FEW).await?;
        let newest = inbox.entries(None, FEW).await?;
        let hours = inbox.hours(overview.now).await?;
        let lists = [parked.as_slice(), newest.as_slice()];
        let content = views::overview(visitor, &overview, &hours, lists, &over);
        Ok(html(StatusCode::OK, content))
    })
    .await
}

/// Which entries are asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    state: Option<String>,
    page: Option<u32>,
}

impl Page {
    /// Empty: entries in any state.
    pub(super) fn state(&self) -> Result<Option<State>, Failure> {
        let Some(name) = self.state.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        name.parse().map(Some).map_err(|_| Failure::NotFound)
    }

    /// The first page is 1.
    pub(super) fn number(&self) -> u32 {
        self.page.unwrap_or(1).clamp(1, MOST_PAGES)
    }
}

/// A page of entries, the newest change first.
#[derive(Debug)]
pub(super) struct Entries {
    pub(super) page: u32,
    pub(super) pages: u32,
    /// Entries in this state.
    pub(super) total: u64,
    pub(super) list: Vec<Entry>,
}

/// A page behind the last one is the last one.
pub(super) async fn page_of_entries(
    admin: &Shared,
    state: Option<State>,
    page: u32,
) -> Result<Entries, InboxError> {
    let inbox = admin.inbox();
    let counts = inbox.counts().await?.by_state;
    let counted = counts
        .iter()
        .filter(|(it, _)| state.is_none_or(|state| state == **it));
    let total = counted.map(|(_, count)| count).sum::<u64>();
    let pages = u32::try_from(total.div_ceil(u64::from(PAGE))).unwrap_or(u32::MAX);
    let pages = pages.clamp(1, MOST_PAGES);
    let page = page.min(pages);
    let list = inbox.entries_from(state, (page - 1) * PAGE, PAGE).await?;
    Ok(Entries {
        page,
        pages,
        total,
        list,
    })
}

async fn entries(request: HttpRequest, admin: Admin, asked: web::Query<Page>) -> HttpResponse {
    page(request, admin, async |admin, _, visitor| {
        let state = asked.state()?;
        let found = page_of_entries(admin, state, asked.number()).await?;
        Ok(html(StatusCode::OK, views::entries(visitor, state, &found)))
    })
    .await
}

async fn row(
    request: HttpRequest,
    admin: Admin,
    row: web::Path<RowId>,
    over: web::Query<Over>,
) -> HttpResponse {
    page(request, admin, async |admin, _, visitor| {
        let inbox = admin.inbox();
        let story = story::of(inbox, *row).await?.ok_or(Failure::NotFound)?;
        let is_standby = standby(inbox).await?.is_some();
        let content = views::row(admin, visitor, &story, is_standby, &over);
        Ok(html(StatusCode::OK, content))
    })
    .await
}

async fn search_form(request: HttpRequest, admin: Admin) -> HttpResponse {
    page(request, admin, async |_, _, visitor| {
        Ok(html(StatusCode::OK, views::search(visitor, None)))
    })
    .await
}

#[derive(Deserialize)]
struct Search {
    query: String,
    #[serde(default)]
    mark: String,
}

async fn search(request: HttpRequest, admin: Admin, form: web::Form<Search>) -> HttpResponse {
    page(request, admin, async |admin, request, visitor| {
        visitor.sent_form(request, &form.mark)?;
        let inbox = admin.inbox();
        let Some(wanted) = Wanted::read(&form.query, inbox.hasher()) else {
            let content = views::search(visitor, Some(Err(Failure::NotUnderstood)));
            return Ok(html(StatusCode::BAD_REQUEST, content));
        };
        let found = wanted.find(inbox).await?;
        if let [entry] = found.as_slice() {
            return Ok(see_other(&format!("/admin/rows/{}", entry.row)));
        }
        Ok(html(
            StatusCode::OK,
            views::search(visitor, Some(Ok(&found))),
        ))
    })
    .await
}

// ---- the buttons ----

#[derive(Debug, Default, Deserialize)]
struct Meant {
    row: Option<RowId>,
}

/// Asks before an action is carried out.
async fn ask(
    request: HttpRequest,
    admin: Admin,
    name: web::Path<String>,
    meant: web::Query<Meant>,
) -> HttpResponse {
    page(request, admin, async |admin, _, visitor| {
        let action = Action::read(&name, meant.row, None).ok_or(Failure::NotFound)?;
        if !visitor.is_admin() {
            return Err(Failure::Forbidden);
        }
        let overview = Overview::read(admin).await?;
        Ok(html(
            StatusCode::OK,
            views::confirmation(visitor, action, &overview),
        ))
    })
    .await
}

#[derive(Deserialize)]
struct Order {
    row: Option<RowId>,
    /// The halt that the person was asked about.
    seen: Option<Timestamp>,
    #[serde(default)]
    mark: String,
}

async fn act(
    request: HttpRequest,
    admin: Admin,
    name: web::Path<String>,
    order: web::Form<Order>,
) -> HttpResponse {
    page(request, admin, async |admin, request, visitor| {
        visitor.may_change(request, &order.mark)?;
        let action = Action::read(&name, order.row, order.seen).ok_or(Failure::NotFound)?;
        let done = actions::carry_out(action, visitor.session.role, admin).await?;
        Ok(see_other(&Over::address(action, done)))
    })
    .await
}
