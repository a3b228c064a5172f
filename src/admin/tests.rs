//! The page as a browser and a program meet it, on a real inbox.

use std::{sync::Arc, time::Duration};

use actix_web::{
    App,
    body::{BoxBody, to_bytes},
    cookie::Cookie,
    dev::ServiceResponse,
    test::{TestRequest, call_service, init_service},
};
use futures::FutureExt;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use super::*;
use crate::{
    domain::{ContactId, DealId, Email, Halt, HaltCause, KeyedHash, RowId, TestClock},
    inbox::{
        Arrival, Choice, Fact, HALT, Mark, Outcome, PAUSED, Placed, Progress, Role, Settled,
        Settlement, Source, State, Step, Why,
    },
    supabase::{self, Supabase},
    sync::lease::{LEASE, LeaseStatus, Record},
    telemetry::captured::Captured,
};

const ADMIN: &str = "the-token-of-the-operator";
const VIEWER: &str = "the-token-of-the-viewers";
const EMAIL: &str = "pupil.of.yours@example.org";
const DEAL: i64 = 4_100_001;
const CONTACT: i64 = 7_200_002;

/// The page of a service whose engine stands still, and whose database does not answer.
struct Fixture {
    admin: Admin,
    inbox: Inbox,
    clock: Arc<TestClock>,
    engine: watch::Sender<SyncState>,
    sweep_now: Arc<Notify>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::at("2026-11-30T09:00:00Z".parse().unwrap());
        let path = folder.path().join("inbox.db");
        let inbox = Inbox::open(&path, Role::Owner, clock.clone())
            .await
            .unwrap();
        let (engine, status) = watch::channel(SyncState::Working);
        let sweep_now = Arc::new(Notify::new());
        // Nothing listens on this port.
        let supabase = supabase::Settings {
            project_url: "http://127.0.0.1:9".parse().unwrap(),
            key: "key".into(),
            jwt: None,
            note_columns: Vec::new(),
            largest_answer: supabase::LARGEST_ANSWER,
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            extra_roots: Vec::new(),
        };
        let service = Service {
            switch: Switch {
                inbox: inbox.clone(),
                supabase: Supabase::new(supabase, clock.clone()).unwrap(),
                clock: clock.clone(),
                timeout: Duration::from_secs(1),
            },
            status,
            sweep_now: Arc::clone(&sweep_now),
        };
        Self {
            admin: Admin::new(&settings(ADMIN), service),
            inbox,
            clock,
            engine,
            sweep_now,
            _folder: folder,
        }
    }

    fn now(&self) -> Timestamp {
        self.admin.shared.clock().now()
    }

    /// As after a start with another token.
    fn with_token(&mut self, token: &str) {
        let service = self.admin.shared.service.clone();
        self.admin = Admin::new(&settings(token), service);
    }

    async fn call(&self, request: TestRequest) -> ServiceResponse<BoxBody> {
        let app = App::new().configure(|cfg| self.admin.routes(cfg));
        let service = init_service(app).await;
        call_service(&service, request.to_request())
            .await
            .map_into_boxed_body()
    }

    async fn log_in(&self, token: &str) -> Person<'_> {
        let request = TestRequest::post().uri("/admin/login");
        let answer = self.call(request.set_form([("token", token)])).await;
        assert_eq!(leads_to(&answer), "/admin");
        let cookie = answer.response().cookies().next().unwrap().into_owned();
        let now = self.now();
        let session = self.admin.shared.keys.session(cookie.value(), now);
        Person {
            page: self,
            cookie,
            mark: session.unwrap().form_mark,
            language: "en",
        }
    }

    /// A student at this end of an attempt, with deal and contact.
    async fn student(&self, n: u128, settlement: Settlement) -> RowId {
        let row = RowId::new(Uuid::from_u128(n));
        let source = Source::Webhook {
            delivery: format!("msg_{n}"),
        };
        self.inbox
            .store(vec![Arrival { row, source }])
            .await
            .unwrap();
        let claim = self.inbox.claim(1, None).await.unwrap().unwrap();
        assert_eq!(claim.entries[0].row, row);
        let progress = Progress {
            person: Some(self.inbox.hasher().email(&Email::parse(EMAIL).unwrap())),
            step: Step::Placed {
                choice: Choice {
                    fingerprint: KeyedHash::new([1; 16]),
                    contact: Some(ContactId::new(CONTACT)),
                    deal: DealId::new(DEAL),
                    why: Why::Open,
                },
                how: Placed::Moved,
                note_resolve_after: None,
            },
            ..Progress::default()
        };
        let facts = vec![Fact::Moved, Fact::from(&settlement)];
        let end = Settled {
            row,
            progress: progress.clone(),
            settlement,
            facts,
        };
        let mark = Mark {
            row,
            progress,
            person: None,
        };
        self.inbox
            .checkpoint(claim.token, vec![mark])
            .await
            .unwrap();
        self.inbox.settle(claim.token, vec![end]).await.unwrap();
        row
    }

    async fn parked(&self, n: u128) -> RowId {
        let reason = "две сделки".to_owned();
        self.student(n, Settlement::Parked { reason }).await
    }

    async fn state_of(&self, row: RowId) -> State {
        self.inbox.entry(row).await.unwrap().unwrap().state
    }

    /// As the engine stores it while another service syncs.
    async fn stand_by(&self) {
        let record = Record {
            status: LeaseStatus::Theirs,
            since: self.now(),
            was_ever_there: true,
        };
        self.inbox.set_state(LEASE, &record).await.unwrap();
        self.inbox
            .set_state("lease_held_by", &"fra-2")
            .await
            .unwrap();
        self.engine.send_replace(SyncState::Standby {
            held_by_another: true,
        });
    }
}

fn settings(token: &str) -> Settings {
    Settings {
        admin_token: token.into(),
        viewer_token: Some(VIEWER.into()),
        amocrm: Some("https://school.amocrm.ru".parse().unwrap()),
        zone: TimeZone::UTC,
    }
}

/// A browser with a session.
struct Person<'t> {
    page: &'t Fixture,
    cookie: Cookie<'static>,
    mark: String,
    language: &'static str,
}

impl Person<'_> {
    fn request(&self, request: TestRequest, path: &str) -> TestRequest {
        request
            .uri(path)
            .cookie(self.cookie.clone())
            .insert_header(("accept-language", self.language))
    }

    async fn get(&self, path: &str) -> ServiceResponse<BoxBody> {
        self.page.call(self.request(TestRequest::get(), path)).await
    }

    async fn see(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        text(answer).await
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> ServiceResponse<BoxBody> {
        let mut form = form.to_vec();
        form.push(("mark", &self.mark));
        let request = self.request(TestRequest::post(), path).set_form(form);
        self.page.call(request).await
    }
}

async fn text(answer: ServiceResponse<BoxBody>) -> String {
    let bytes = to_bytes(answer.into_body()).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn leads_to(answer: &ServiceResponse<BoxBody>) -> &str {
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    header(answer, "location")
}

fn header<'t>(answer: &'t ServiceResponse<BoxBody>, name: &str) -> &'t str {
    answer.headers().get(name).unwrap().to_str().unwrap()
}

/// Texts that a person sees or hears, tags left out.
fn visible(html: &str) -> String {
    let mut seen = String::new();
    for part in html.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap();
        if tag.starts_with("style") || tag.starts_with("script") {
            continue;
        }
        let label = tag.split_once("aria-label=\"");
        let label = label.and_then(|(_, rest)| rest.split('"').next());
        seen += label.unwrap_or_default();
        seen += "\n";
        seen += text;
        seen += "\n";
    }
    seen
}

async fn json(answer: ServiceResponse<BoxBody>) -> Value {
    serde_json::from_str(&text(answer).await).unwrap()
}

// ---- login ----

#[tokio::test]
async fn the_cookie_is_for_this_page_alone_and_encrypted_where_the_connection_is() {
    let page = Fixture::new().await;
    for (headers, is_secure) in [
        (vec![], false),
        (vec![("x-forwarded-proto", "https")], true),
        (vec![("x-forwarded-proto", "http")], false),
        (vec![("forwarded", "for=1.2.3.4;proto=https")], true),
    ] {
        let mut request = TestRequest::post()
            .uri("/admin/login")
            .set_form([("token", ADMIN)]);
        for header in headers {
            request = request.insert_header(header);
        }
        let answer = page.call(request).await;
        let cookie = header(&answer, "set-cookie");
        for part in [
            "HttpOnly",
            "SameSite=Strict",
            "Path=/admin",
            "Max-Age=43200",
        ] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert_eq!(cookie.contains("Secure"), is_secure, "{cookie}");
        assert!(!cookie.contains(ADMIN), "{cookie}");
    }
}

#[tokio::test]
async fn without_a_session_every_page_leads_to_the_login() {
    let page = Fixture::new().await;
    let row = page.parked(1).await;
    for path in [
        "/admin",
        "/admin/entries",
        &format!("/admin/rows/{row}"),
        "/admin/search",
        "/admin/actions/pause",
        "/admin/nothing",
    ] {
        let answer = page.call(TestRequest::get().uri(path)).await;
        assert_eq!(leads_to(&answer), "/admin/login", "{path}");
    }
    for path in [
        "/admin/login",
        "/admin/style.css",
        "/admin/script.js",
        "/admin/icon.svg",
    ] {
        let answer = page.call(TestRequest::get().uri(path)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_session_ends_after_twelve_hours_by_logging_out_and_by_a_new_token() {
    let mut page = Fixture::new().await;
    let person = page.log_in(ADMIN).await;
    page.clock.advance(Duration::from_secs(12 * 3600 - 1));
    person.see("/admin").await;
    page.clock.advance(Duration::from_secs(1));
    assert_eq!(leads_to(&person.get("/admin").await), "/admin/login");

    let person = page.log_in(ADMIN).await;
    let answer = person.post("/admin/logout", &[]).await;
    assert_eq!(leads_to(&answer), "/admin/login");
    let cookie = answer.response().cookies().next().unwrap();
    assert_eq!((cookie.value(), cookie.path()), ("", Some("/admin")));
    assert!(cookie.max_age().unwrap().is_zero());

    let (cookie, mark) = (person.cookie, person.mark);
    page.with_token("another-token-of-the-operator");
    let person = Person {
        page: &page,
        cookie,
        mark,
        language: "en",
    };
    assert_eq!(leads_to(&person.get("/admin").await), "/admin/login");
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_locks_nobody_out() {
    let page = Fixture::new().await;
    for token in ["", "wrong", "the-token-of-the-operato"] {
        let request = TestRequest::post()
            .uri("/admin/login")
            .set_form([("token", token)]);
        let answer = page.call(request).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert_eq!(answer.response().cookies().count(), 0);
        assert!(text(answer).await.contains("wrong-token"));
    }
    page.log_in(ADMIN).await.see("/admin").await;
}

#[tokio::test]
async fn every_answer_forbids_what_the_page_does_not_need() {
    let page = Fixture::new().await;
    let person = page.log_in(ADMIN).await;
    for path in [
        "/admin",
        "/admin/login",
        "/admin/style.css",
        "/admin/rows/nonsense",
        "/admin/nothing",
        "/admin/api/state",
        "/admin/api/nothing",
        "/admin/entries?page=-1",
    ] {
        let answer = person.get(path).await;
        let header = |name| header(&answer, name);
        let policy = header("content-security-policy");
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{path}"
        );
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
    }
    // Nothing inline, and nothing from elsewhere.
    let html = person.see("/admin").await;
    for forbidden in ["<style", " style=", "onclick", "src=\"http", "javascript:"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
}

// ---- what there is to see ----

#[tokio::test]
async fn the_overview_says_how_it_is_and_lists_what_is_parked() {
    let page = Fixture::new().await;
    let row = page.parked(1).await;
    let html = page.log_in(ADMIN).await.see("/admin").await;
    for part in [
        "All is well: working. Parked, and waiting for your decision: 1.",
        &format!("href=\"/admin/rows/{row}\""),
        "две сделки",
        "action-retry-parked",
        "action-pause",
        "action-resume",
        "action-sweep",
    ] {
        assert!(html.contains(part), "{part}\n{html}");
    }
    let halt = Halt {
        cause: HaltCause::AmocrmForbidden,
        since: page.now(),
        probes: 0,
        next_probe: None,
        detail: "доступ закрыт".to_owned(),
        operation: None,
        rows: vec![row],
    };
    page.inbox.set_state(HALT, &halt).await.unwrap();
    page.engine.send_replace(SyncState::Halted {
        cause: halt.cause,
        since: halt.since,
        next_probe: None,
    });
    let person = page.log_in(ADMIN).await;
    let html = person.see("/admin").await;
    for part in [
        "Sending is halted since",
        "403",
        "доступ закрыт",
        "action-resume",
    ] {
        assert!(html.contains(part), "{part}\n{html}");
    }
    let question = person.see("/admin/actions/resume").await;
    assert!(
        question.contains("may make the ban permanent"),
        "{question}"
    );
}

#[tokio::test]
async fn a_403_is_ended_only_by_a_person_who_was_asked_about_it() {
    let page = Fixture::new().await;
    let halt = |cause, since| Halt {
        cause,
        since,
        probes: 0,
        next_probe: None,
        detail: String::new(),
        operation: None,
        rows: Vec::new(),
    };
    let stored = async || page.inbox.state::<Halt>(HALT).await.unwrap();
    let person = page.log_in(ADMIN).await;

    // The question was about a token. Meanwhile amoCRM has answered with 403.
    let seen = page.now().to_string();
    page.clock.advance(Duration::from_mins(1));
    let ban = halt(HaltCause::AmocrmForbidden, page.now());
    page.inbox.set_state(HALT, &ban).await.unwrap();
    for form in [vec![], vec![("seen", seen.as_str())]] {
        let answer = person.post("/admin/actions/resume", &form).await;
        assert_eq!(answer.status(), StatusCode::CONFLICT);
        assert_eq!(stored().await.as_ref(), Some(&ban));
    }
    let question = person.see("/admin/actions/resume").await;
    let seen = ban.since.to_string();
    assert!(
        question.contains(&format!("name=\"seen\" value=\"{seen}\"")),
        "{question}"
    );
    let answer = person
        .post("/admin/actions/resume", &[("seen", &seen)])
        .await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    assert_eq!(stored().await, None);

    // Any other halt ends: the service asks again by itself.
    let token = halt(HaltCause::AmocrmToken, page.now());
    page.inbox.set_state(HALT, &token).await.unwrap();
    person.post("/admin/actions/resume", &[]).await;
    assert_eq!(stored().await, None);
}

#[tokio::test]
async fn a_student_has_a_story_with_links_and_a_history() {
    let page = Fixture::new().await;
    let row = page.parked(1).await;
    let html = page
        .log_in(VIEWER)
        .await
        .see(&format!("/admin/rows/{row}"))
        .await;
    for part in [
        &format!("https://school.amocrm.ru/leads/detail/{DEAL}"),
        &format!("https://school.amocrm.ru/contacts/detail/{CONTACT}"),
        "две сделки",
        "moved",
        &row.to_string(),
    ] {
        assert!(html.contains(part), "{part}\n{html}");
    }
    let unknown = format!("/admin/rows/{}", Uuid::from_u128(9));
    let answer = page.log_in(VIEWER).await.get(&unknown).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn lists_are_cut_into_pages_within_bounds() {
    let page = Fixture::new().await;
    for n in 1..=120 {
        page.parked(n).await;
    }
    let person = page.log_in(VIEWER).await;
    let rows = |html: &str| html.matches("data-row=").count();
    for (query, shown, says) in [
        ("", 50, "page 1 / 3"),
        ("?state=parked&page=2", 50, "page 2 / 3"),
        ("?state=&page=3", 20, "page 3 / 3"),
        ("?page=99", 20, "page 3 / 3"),
        ("?page=0", 50, "page 1 / 3"),
        ("?page=4294967295", 20, "page 3 / 3"),
        ("?state=done", 0, "In all: 0"),
    ] {
        let html = person.see(&format!("/admin/entries{query}")).await;
        let said = visible(&html).replace('\n', "");
        assert_eq!(rows(&html), shown, "{query}");
        assert!(said.contains(says), "{query}: {said}");
    }
    for (query, status) in [
        ("?page=-1", StatusCode::BAD_REQUEST),
        ("?page=99999999999", StatusCode::BAD_REQUEST),
        ("?state=nonsense", StatusCode::NOT_FOUND),
    ] {
        let answer = person.get(&format!("/admin/entries{query}")).await;
        assert_eq!(answer.status(), status, "{query}");
    }
}

#[tokio::test]
async fn a_student_is_found_by_row_email_deal_and_contact() {
    let page = Fixture::new().await;
    let row = page.parked(1).await;
    let person = page.log_in(VIEWER).await;
    let here = format!("/admin/rows/{row}");
    for query in [
        row.to_string(),
        format!("  {}  ", row.to_string().to_uppercase()),
        EMAIL.to_owned(),
        format!(" {} ", EMAIL.to_uppercase()),
        DEAL.to_string(),
        CONTACT.to_string(),
        format!("#{DEAL}"),
        format!("https://school.amocrm.ru/leads/detail/{DEAL}"),
        format!("https://school.amocrm.ru/leads/detail/{DEAL}?compact=yes"),
        format!("https://school.amocrm.ru/contacts/detail/{CONTACT}/#tab"),
    ] {
        let answer = person.post("/admin/search", &[("query", &query)]).await;
        assert_eq!(leads_to(&answer), here, "{query}");
    }
    for query in [
        "other@example.org",
        "12345",
        &Uuid::from_u128(5).to_string(),
    ] {
        let answer = person.post("/admin/search", &[("query", query)]).await;
        assert_eq!(answer.status(), StatusCode::OK, "{query}");
        let html = text(answer).await;
        assert!(html.contains("nothing-found") && !html.contains(query));
    }
    for query in ["", "nonsense", "-5", "0", "a b@c", "99999999999999999999"] {
        let answer = person.post("/admin/search", &[("query", query)]).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}");
    }
    page.parked(2).await;
    let answer = person.post("/admin/search", &[("query", EMAIL)]).await;
    let html = text(answer).await;
    assert_eq!(html.matches("data-row=").count(), 2);
    assert!(!html.contains(EMAIL));
}

/// Also a search that fails, and one without a session.
#[tokio::test]
async fn an_email_that_was_looked_for_is_in_no_answer_and_no_log() {
    let log = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let page = Fixture::new().await;
    page.parked(1).await;
    page.parked(2).await;
    let person = page.log_in(ADMIN).await;
    let too_long = EMAIL.repeat(1_000);
    let mut answers = Vec::new();
    for query in [EMAIL, "pupil.of.yours@example.org x", &too_long] {
        answers.push(person.post("/admin/search", &[("query", query)]).await);
        let forged = [("query", query), ("mark", "forged")];
        let request = person.request(TestRequest::post(), "/admin/search");
        answers.push(page.call(request.set_form(forged)).await);
        let api = TestRequest::post().uri("/admin/api/search");
        let api = api.insert_header(("authorization", format!("Bearer {VIEWER}")));
        let query = serde_json::json!({ "query": query });
        answers.push(page.call(api.set_json(query)).await);
    }
    for answer in answers {
        let headers = format!("{:?}", answer.headers());
        let said = headers + text(answer).await.as_str();
        assert!(!said.contains("pupil.of.yours"), "{said}");
    }
    let said = log.text();
    assert!(said.contains("admin.login"), "{said}");
    for secret in ["pupil.of.yours", ADMIN, VIEWER] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test]
async fn what_is_stored_is_shown_as_text() {
    let page = Fixture::new().await;
    let reason = "<script>alert(1)</script>\"'><img src=x>".to_owned();
    let row = page.student(1, Settlement::Parked { reason }).await;
    let person = page.log_in(ADMIN).await;
    for path in ["/admin", "/admin/entries", &format!("/admin/rows/{row}")] {
        let html = person.see(path).await;
        assert!(html.contains("&lt;script&gt;alert(1)"), "{html}");
        assert!(
            !html.contains("<script>") && !html.contains("<img"),
            "{html}"
        );
    }
}

/// Ids, names and stored reasons are the same in both.
#[tokio::test]
async fn every_page_is_in_one_language_as_the_browser_wishes() {
    let page = Fixture::new().await;
    let row = page.parked(1).await;
    let done = Settlement::Done(Outcome::Synced);
    let finished = page.student(2, done).await;
    let not_found = "/admin/nothing".to_owned();
    let paths = [
        "/admin".to_owned(),
        "/admin?done=pause&services=unknown".to_owned(),
        "/admin/entries".to_owned(),
        format!("/admin/rows/{row}"),
        format!("/admin/rows/{finished}?done=retry&rows=0"),
        "/admin/search".to_owned(),
        "/admin/actions/pause".to_owned(),
        "/admin/actions/resume".to_owned(),
        "/admin/actions/retry-parked".to_owned(),
        format!("/admin/actions/park?row={row}"),
        not_found.clone(),
    ];
    for token in [ADMIN, VIEWER] {
        let mut person = page.log_in(token).await;
        for path in &paths {
            person.language = "en-US,en;q=0.9";
            let english = text(person.get(path).await).await;
            let seen = visible(&english).replace("две сделки", "");
            assert!(english.contains("lang=\"en\""), "{path}");
            assert!(!seen.chars().any(is_russian), "{path}\n{seen}");

            person.language = "ru-RU,ru;q=0.9,en;q=0.8";
            let russian = text(person.get(path).await).await;
            assert!(russian.contains("lang=\"ru\""), "{path}");
            let seen = visible(&russian);
            for line in seen.lines() {
                assert!(!is_english(line), "{path}: {line}\n{seen}");
            }
        }
    }
    let login = TestRequest::get().uri("/admin/login");
    let login = login.insert_header(("accept-language", "ru"));
    let html = text(page.call(login).await).await;
    assert!(html.contains("Вход") && html.contains("Войти"), "{html}");
}

fn is_russian(c: char) -> bool {
    matches!(c, 'а'..='я' | 'А'..='Я' | 'ё' | 'Ё')
}

/// A text in which an English word is not a name.
fn is_english(text: &str) -> bool {
    const NAMES: [&str; 13] = [
        "UTC",
        "tripwire-sync",
        "amoCRM",
        "Supabase",
        "e-mail",
        "ADMIN_TOKEN",
        "VIEWER_TOKEN",
        "retry",
        "msg_1",
        "msg_2",
        "park",
        "resume",
        "backfill",
    ];
    let words = text.split(|c: char| c.is_whitespace() || "`,.:()·".contains(c));
    let is_word = |word: &str| {
        word.len() > 1
            && word
                .chars()
                .all(|c| c.is_ascii_alphabetic() || c == '-' || c == '_')
            && !NAMES.contains(&word)
    };
    words.into_iter().any(is_word)
}

#[tokio::test]
async fn the_charts_count_what_was_synced_in_each_hour() {
    let page = Fixture::new().await;
    page.student(1, Settlement::Done(Outcome::Synced)).await;
    page.parked(2).await;
    page.inbox.keep_hour().await.unwrap();
    page.clock.advance(Duration::from_hours(25));
    page.student(3, Settlement::Done(Outcome::Synced)).await;
    let html = page.log_in(VIEWER).await.see("/admin").await;
    for part in [
        "1 synced; now 0 waiting, 1 parked.",
        "2 synced; now 0 waiting, 1 parked.",
        "id=\"chart-day\"",
        "id=\"chart-month\"",
    ] {
        assert!(html.contains(part), "{part}\n{html}");
    }
    let activity = page
        .call(api(TestRequest::get(), "/activity", VIEWER))
        .await;
    let activity = json(activity).await;
    let (hours, days) = (&activity["hours"], &activity["days"]);
    assert_eq!(
        (hours[23]["synced"].as_u64(), hours[0]["synced"].as_u64()),
        (Some(1), Some(0))
    );
    assert_eq!(hours[0]["parked"], 1);
    assert_eq!(
        (days[28]["synced"].as_u64(), days[29]["synced"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(days[0]["parked"], Value::Null);
}

// ---- the buttons ----

#[tokio::test]
async fn each_button_does_what_it_says() {
    let page = Fixture::new().await;
    let (one, other) = (page.parked(1).await, page.parked(2).await);
    let person = page.log_in(ADMIN).await;
    let one_of = |row: RowId| row.to_string();

    let answer = person
        .post("/admin/actions/retry", &[("row", &one_of(one))])
        .await;
    let here = format!("/admin/rows/{one}?done=retry&rows=1");
    assert_eq!(leads_to(&answer), here);
    assert_eq!(page.state_of(one).await, State::Pending);
    assert!(person.see(&here).await.contains("To be tried again: 1."));

    person
        .post("/admin/actions/park", &[("row", &one_of(one))])
        .await;
    assert_eq!(page.state_of(one).await, State::Parked);

    let answer = person.post("/admin/actions/retry-parked", &[]).await;
    assert_eq!(leads_to(&answer), "/admin?done=retry-parked&rows=2");
    assert_eq!(page.state_of(other).await, State::Pending);

    let is_woken = || page.inbox.changed().now_or_never().is_some();
    is_woken();
    let answer = person.post("/admin/actions/pause", &[]).await;
    assert!(is_woken(), "the engine rests on");
    // The database of this test does not answer.
    assert_eq!(leads_to(&answer), "/admin?done=pause&services=unknown");
    let paused = page.inbox.state::<Timestamp>(PAUSED).await.unwrap();
    assert_eq!(paused, Some(page.now()));
    person.post("/admin/actions/resume", &[]).await;
    assert!(is_woken(), "the engine rests on");
    let paused = page.inbox.state::<Timestamp>(PAUSED).await.unwrap();
    assert_eq!(paused, None);

    let answer = person.post("/admin/actions/sweep", &[]).await;
    assert_eq!(leads_to(&answer), "/admin?done=sweep");
    // Completes at once: the wish is kept until the engine looks.
    page.sweep_now.notified().await;

    for (path, status) in [
        ("/admin/actions/retry", StatusCode::NOT_FOUND),
        ("/admin/actions/nonsense", StatusCode::NOT_FOUND),
    ] {
        assert_eq!(person.post(path, &[]).await.status(), status, "{path}");
    }
}

#[tokio::test]
async fn what_starts_or_stops_more_than_a_row_is_asked_first() {
    let page = Fixture::new().await;
    page.parked(1).await;
    let person = page.log_in(ADMIN).await;
    let html = person.see("/admin").await;
    for (action, is_asked) in [("pause", true), ("retry-parked", true), ("sweep", false)] {
        let method = if is_asked { "get" } else { "post" };
        let form = format!("<form method=\"{method}\" action=\"/admin/actions/{action}\">");
        assert!(html.contains(&form), "{html}");
        if is_asked {
            let question = person.see(&format!("/admin/actions/{action}")).await;
            assert!(question.contains("id=\"confirm\""), "{question}");
        }
    }
    // A look at the question changes nothing.
    assert_eq!(page.inbox.state::<Timestamp>(PAUSED).await.unwrap(), None);
}

#[tokio::test]
async fn a_forged_form_changes_nothing() {
    let page = Fixture::new().await;
    let row = page.parked(1).await;
    let person = page.log_in(ADMIN).await;
    let another = page.log_in(ADMIN).await;
    let row_text = row.to_string();
    let forged = |mark: Option<&str>, header: Option<(&'static str, &'static str)>| {
        let mut form = vec![("row", row_text.clone())];
        form.extend(mark.map(|mark| ("mark", mark.to_owned())));
        let mut request = person.request(TestRequest::post(), "/admin/actions/retry");
        if let Some(header) = header {
            request = request.insert_header(header);
        }
        request.set_form(form)
    };
    for request in [
        forged(None, None),
        forged(Some(""), None),
        forged(Some(&another.mark), None),
        forged(Some(&person.mark), Some(("sec-fetch-site", "cross-site"))),
        forged(Some(&person.mark), Some(("origin", "https://evil.example"))),
    ] {
        let answer = page.call(request).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    }
    let login = TestRequest::post()
        .uri("/admin/login")
        .insert_header(("sec-fetch-site", "cross-site"))
        .set_form([("token", ADMIN)]);
    assert_eq!(page.call(login).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(page.state_of(row).await, State::Parked);
    let honest = forged(Some(&person.mark), Some(("sec-fetch-site", "same-origin")));
    assert_eq!(page.call(honest).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(page.state_of(row).await, State::Pending);
}

#[tokio::test]
async fn a_viewer_sees_no_button_and_changes_nothing() {
    let page = Fixture::new().await;
    let row = page.parked(1).await;
    let viewer = page.log_in(VIEWER).await;
    for path in ["/admin", &format!("/admin/rows/{row}")] {
        let html = viewer.see(path).await;
        assert!(!html.contains("/admin/actions/"), "{html}");
        assert!(html.contains("view only"), "{html}");
    }
    let row_text = row.to_string();
    for action in ["retry", "park", "retry-parked", "pause", "resume", "sweep"] {
        let path = format!("/admin/actions/{action}");
        let asked = viewer.get(&format!("{path}?row={row}")).await;
        assert_eq!(asked.status(), StatusCode::FORBIDDEN, "{action}");
        let answer = viewer.post(&path, &[("row", &row_text)]).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{action}");
        let api = TestRequest::post().uri(&format!("/admin/api/actions/{action}"));
        let api = api.insert_header(("authorization", format!("Bearer {VIEWER}")));
        let api = api.set_json(serde_json::json!({ "row": row }));
        let answer = page.call(api).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{action}");
    }
    assert_eq!(page.state_of(row).await, State::Parked);
    assert_eq!(page.inbox.state::<Timestamp>(PAUSED).await.unwrap(), None);
}

#[tokio::test]
async fn a_standby_names_the_service_that_syncs_and_has_no_buttons_but_the_pause() {
    let page = Fixture::new().await;
    let row = page.parked(1).await;
    page.stand_by().await;
    let person = page.log_in(ADMIN).await;
    let html = person.see("/admin").await;
    assert!(html.contains("the service that syncs is fra-2"), "{html}");
    assert!(html.contains(&row.to_string()));
    assert!(html.contains("action-pause") && html.contains("action-resume"));
    let question = person.see("/admin/actions/resume").await;
    assert!(
        question.contains("only on the service that syncs"),
        "{question}"
    );
    let row_page = person.see(&format!("/admin/rows/{row}")).await;
    for button in ["action-retry", "action-park", "action-sweep"] {
        assert!(!html.contains(button) && !row_page.contains(button));
    }
    let row_text = row.to_string();
    for action in ["retry", "park", "retry-parked", "sweep"] {
        let path = format!("/admin/actions/{action}");
        let answer = person.post(&path, &[("row", &row_text)]).await;
        assert_eq!(answer.status(), StatusCode::CONFLICT, "{action}");
        assert!(text(answer).await.contains("fra-2"));
    }
    assert_eq!(page.state_of(row).await, State::Parked);
    let answer = person.post("/admin/actions/pause", &[]).await;
    assert_eq!(leads_to(&answer), "/admin?done=pause&services=unknown");
}

// ---- the API ----

fn api(request: TestRequest, path: &str, token: &str) -> TestRequest {
    request
        .uri(&format!("/admin/api{path}"))
        .insert_header(("authorization", format!("Bearer {token}")))
}

#[tokio::test]
async fn the_api_shows_what_the_page_shows() {
    let page = Fixture::new().await;
    let row = page.parked(1).await;
    let state = page.call(api(TestRequest::get(), "/state", VIEWER)).await;
    let state = json(state).await;
    assert_eq!(state["role"], "viewer");
    assert_eq!(state["sync"]["state"], "working");
    assert_eq!(state["counts"]["parked"], 1);

    let list = api(TestRequest::get(), "/entries?state=parked", VIEWER);
    let list = json(page.call(list).await).await;
    assert_eq!(list["total"], 1);
    let entry = &list["entries"][0];
    assert_eq!(entry["row"], row.to_string());
    assert_eq!(
        (&entry["deal"], &entry["contact"]),
        (&DEAL.into(), &CONTACT.into())
    );

    let story = api(TestRequest::get(), &format!("/rows/{row}"), VIEWER);
    let story = json(page.call(story).await).await;
    assert_eq!(story["reason"], "две сделки");
    let link = format!("https://school.amocrm.ru/leads/detail/{DEAL}");
    assert_eq!(story["links"]["deal"], link);

    let search = api(TestRequest::post(), "/search", VIEWER);
    let search = search.set_json(serde_json::json!({ "query": EMAIL }));
    let found = json(page.call(search).await).await;
    assert_eq!(found["entries"][0]["row"], row.to_string());

    let retry = api(TestRequest::post(), "/actions/retry", ADMIN);
    let retry = retry.set_json(serde_json::json!({ "row": row }));
    let done = json(page.call(retry).await).await;
    assert_eq!(
        (&done["action"], &done["rows"]),
        (&"retry".into(), &1.into())
    );
    assert_eq!(page.state_of(row).await, State::Pending);
    let pause = page
        .call(api(TestRequest::post(), "/actions/pause", ADMIN))
        .await;
    assert_eq!(json(pause).await["services"], "unknown");
}

#[tokio::test]
async fn the_api_needs_a_token_and_tells_what_is_wrong() {
    let page = Fixture::new().await;
    let person = page.log_in(ADMIN).await;
    let json_of = |request: TestRequest| request.set_json(serde_json::json!({ "query": "1" }));
    // A cookie is enough to look, and never to change anything.
    assert_eq!(
        person.get("/admin/api/state").await.status(),
        StatusCode::OK
    );
    let forged = json_of(person.request(TestRequest::post(), "/admin/api/search"));
    let basic = TestRequest::get()
        .uri("/admin/api/state")
        .insert_header(("authorization", format!("Basic {ADMIN}")));
    let huge = "x".repeat(LONGEST_BODY + 1);
    let huge =
        api(TestRequest::post(), "/search", ADMIN).set_json(serde_json::json!({ "query": huge }));
    for (request, status) in [
        (TestRequest::get().uri("/admin/api/state"), 401),
        (api(TestRequest::get(), "/state", "wrong"), 401),
        (basic, 401),
        (forged, 401),
        (json_of(api(TestRequest::post(), "/search", VIEWER)), 200),
        (
            api(TestRequest::post(), "/search", ADMIN).set_payload("{"),
            400,
        ),
        (huge, 413),
        (api(TestRequest::get(), "/rows/nonsense", ADMIN), 404),
        (api(TestRequest::get(), "/nothing", ADMIN), 404),
        (api(TestRequest::post(), "/actions/retry", ADMIN), 404),
        (api(TestRequest::post(), "/state", ADMIN), 405),
        (api(TestRequest::get(), "/actions/pause", ADMIN), 405),
    ] {
        let answer = page.call(request).await;
        assert_eq!(answer.status().as_u16(), status, "{:?}", answer.request());
        if status != 200 {
            let kind = header(&answer, "content-type");
            assert_eq!(kind, "application/problem+json");
            let problem = json(answer).await;
            assert_eq!(problem["status"], status);
            assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
        }
    }
}
