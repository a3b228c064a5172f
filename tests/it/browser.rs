//! The operator page in a real browser, beside the real service: what people see, what they press, and what a page may not do.

mod audit;
mod driver;
mod pictures;

use sandbox::DealId;
use serde_json::{Value, json};
use tripwire_sync::domain::RowId;
use wiremock::{MockServer, ResponseTemplate, matchers::any};

use self::driver::{Browser, Look};
use crate::{
    program::{Launch, Service},
    support::{EMAIL, Wishes, World},
};

pub(crate) const ADMIN: &str = "token-of-the-operator-0123456789";
pub(crate) const VIEWER: &str = "token-of-the-viewers-0123456789";

/// A service with its page, and one student whose row has no e-mail that could be used.
struct Office {
    world: World,
    service: Service,
    /// It is parked.
    row: RowId,
    deal: DealId,
}

impl Office {
    async fn open() -> Self {
        Self::in_world(World::prepare(Wishes::default())).await
    }

    async fn in_world(world: World) -> Self {
        let deal = world.student(EMAIL);
        let launch = Launch::in_world(&world, &["serve"])
            .with("ADMIN_TOKEN", ADMIN)
            .with("VIEWER_TOKEN", VIEWER);
        let mut service = Service::launch(launch).await;
        let row = world.insert(&json!({ "email": "aigerim(at)example" }));
        assert_eq!(service.deliver(&world, row).await, Some(202));
        service.until_outcome(row, "parked").await;
        Self {
            world,
            service,
            row,
            deal,
        }
    }

    fn page(&self, path: &str) -> String {
        format!("{}/admin{path}", self.service.url)
    }

    fn story(&self) -> String {
        self.page(&format!("/rows/{}", self.row))
    }

    /// As the manager does in the dashboard.
    fn mend_the_row(&self) {
        let postgrest = &self.world.sandbox.postgrest;
        let mended = postgrest.update_row(self.row, |row| row.insert("email".into(), json!(EMAIL)));
        assert!(mended.is_some());
    }

    fn assert_synced(&self) {
        assert_eq!(self.world.stage(self.deal), self.world.setting.target);
        self.world.assert_noted_once(self.row, self.deal);
        let deal = self.world.column(self.row, "amocrm_deal_id");
        assert_eq!(deal, Some(self.deal.to_string()));
    }

    /// Nothing has come of whatever was tried.
    async fn assert_untouched(&self) {
        assert_eq!(self.service.readiness().await["sync"]["state"], "working");
        assert_eq!(
            self.service.program.count_logged("admin.action", |_| true),
            0
        );
        assert!(self.world.amo_writes().is_empty());
    }
}

async fn log_in(browser: &Browser, office: &Office, token: &str) {
    browser.go(&office.page("")).await;
    assert_eq!(browser.address().await, "/admin/login");
    browser.type_into("#token", token).await;
    browser.follow("#login").await;
    browser.find("#sentence").await;
    assert_eq!(browser.address().await, "/admin");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_student_is_found_mended_and_retried_and_the_page_shows_the_end_by_itself() {
    let office = Office::open().await;
    let browser = Browser::open(Look::ENGLISH).await;
    log_in(&browser, &office, ADMIN).await;
    assert_eq!(browser.text("#count-parked strong").await, "1");

    browser.follow("#count-parked").await;
    let entry = format!("li[data-row='{}'] a.row", office.row);
    browser.follow(&entry).await;
    browser.until("#story", "parked").await;

    office.mend_the_row();
    browser.follow("#action-retry").await;
    browser.until("#notice", "To be tried again: 1").await;
    // The page renews itself.
    browser.until("#story", "done").await;
    browser.until("h1", "done").await;
    office.assert_synced();
    let deal = browser.find("#deal-link").await.attr("href").await.unwrap();
    assert!(
        deal.unwrap()
            .ends_with(&format!("/leads/detail/{}", office.deal))
    );
    assert_eq!(
        browser.count("#action-retry").await,
        0,
        "there is nothing to retry"
    );

    // The row was read by now: it is found by each of its marks.
    for whom in [
        EMAIL.to_owned(),
        office.row.to_string(),
        office.deal.to_string(),
    ] {
        browser.go(&office.page("/search")).await;
        browser.type_into("#query", &whom).await;
        browser.follow("#find").await;
        assert_eq!(
            browser.address().await,
            format!("/admin/rows/{}", office.row)
        );
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    let ended = office.service.stop().await;
    assert!(!ended.words().contains(EMAIL), "{}", ended.words());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_everything_works_and_a_russian_browser_gets_it_in_russian() {
    let mut office = Office::open().await;
    let browser = Browser::open(Look::RUSSIAN.without_scripts()).await;
    log_in(&browser, &office, ADMIN).await;
    browser
        .until("#sentence", "Отложено до вашего решения: 1")
        .await;

    browser.follow("#action-pause").await;
    browser
        .until("#question", "В amoCRM больше ничего не уйдёт")
        .await;
    browser.follow("#cancel").await;
    office.assert_untouched().await;
    browser.follow("#action-pause").await;
    browser.follow("#confirm").await;
    office.service.until_sync_is("paused").await;
    browser.go(&office.page("")).await;
    browser.until("#sentence", "Пауза с").await;
    browser.follow("#action-resume").await;
    browser.follow("#confirm").await;
    office.service.until_sync_is("working").await;

    office.mend_the_row();
    browser.go(&office.story()).await;
    browser.follow("#action-retry").await;
    browser.until("#notice", "Будут повторены: 1").await;
    office.service.until_synced(office.row).await;
    browser.go(&office.story()).await;
    browser.until("#story", "готово").await;
    office.assert_synced();
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_has_no_buttons_and_no_forged_form_changes_anything() {
    let office = Office::open().await;
    let browser = Browser::open(Look::ENGLISH).await;
    log_in(&browser, &office, ADMIN).await;
    let admins: String = browser.ask(MARK).await;
    browser.follow("#logout").await;
    log_in(&browser, &office, VIEWER).await;
    let viewers: String = browser.ask(MARK).await;
    assert_ne!(admins, viewers);

    for page in [office.page(""), office.page("/entries"), office.story()] {
        browser.go(&page).await;
        browser.until("#role", "view only").await;
        assert_eq!(
            browser.count("form[action*='/actions/']").await,
            0,
            "{page}"
        );
    }
    browser.go(&office.page("/actions/pause")).await;
    browser.until("#failure", "nothing can be changed").await;
    assert_eq!(browser.count("#confirm").await, 0);

    // A form that an administrator was seen with, the same with the viewer's own mark, and none.
    for mark in [&admins, &viewers, ""] {
        for action in ["pause", "resume", "sweep", "retry", "park", "retry-parked"] {
            browser.go(&office.page("")).await;
            let forge = format!(
                "document.body.insertAdjacentHTML('beforeend', `<form method=post action='/admin/actions/{action}'>\
                 <input type=hidden name=mark value='{mark}'><input type=hidden name=row value='{row}'>\
                 <button id=forged>forged</button></form>`)",
                row = office.row,
            );
            let _: Value = browser.ask(&forge).await;
            browser.follow("#forged").await;
            browser.find("#failure").await;
        }
    }
    let by_script =
        "return fetch('/admin/api/actions/pause', { method: 'POST' }).then((it) => it.status)";
    assert_eq!(browser.ask::<u16>(by_script).await, 401);
    office.assert_untouched().await;
    browser.close().await;
}

const MARK: &str = "return document.querySelector('input[name=mark]').value";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_on_another_site_changes_nothing_even_with_the_right_mark() {
    let office = Office::open().await;
    let browser = Browser::open(Look::ENGLISH).await;
    log_in(&browser, &office, ADMIN).await;
    let mark: String = browser.ask(MARK).await;

    let elsewhere = MockServer::start().await;
    let form = format!(
        "<form method=post action='{}'><input name=mark value='{mark}'><button id=press>Win</button></form>",
        office.page("/actions/pause"),
    );
    let page = ResponseTemplate::new(200).set_body_raw(form, "text/html");
    wiremock::Mock::given(any())
        .respond_with(page)
        .mount(&elsewhere)
        .await;

    // Another port is another site for a form, and the same one for a cookie.
    browser.go(&elsewhere.uri()).await;
    browser.follow("#press").await;
    browser.until("#failure", "out of date").await;
    office.assert_untouched().await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_told_and_no_script_sees_the_cookie_which_a_logout_ends() {
    let office = Office::open().await;
    let browser = Browser::open(Look::ENGLISH).await;
    browser.go(&office.page("")).await;
    browser
        .type_into("#token", "not-the-token-0123456789")
        .await;
    browser.follow("#login").await;
    browser.until("#wrong-token", "not right").await;
    assert_eq!(browser.count("#sentence").await, 0);

    log_in(&browser, &office, ADMIN).await;
    assert_eq!(browser.ask::<String>("return document.cookie").await, "");
    let cookie = browser.cookie("tripwire_admin").await.unwrap();
    assert_eq!(cookie["httpOnly"], true);
    assert_eq!(cookie["sameSite"], "Strict");
    assert_eq!(cookie["path"], "/admin");

    browser.follow("#logout").await;
    assert!(browser.cookie("tripwire_admin").await.is_none());
    browser.go(&office.story()).await;
    assert_eq!(browser.address().await, "/admin/login");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_renews_itself_keeps_what_is_typed_and_where_the_focus_is() {
    let mut office = Office::open().await;
    let browser = Browser::open(Look::ENGLISH).await;
    log_in(&browser, &office, ADMIN).await;
    browser.type_into("#query", "half of an addr").await;
    let _: Value = browser
        .ask("document.getElementById('action-sweep').focus()")
        .await;

    let row = office
        .world
        .insert(&json!({ "email": "another(at)example" }));
    assert_eq!(office.service.deliver(&office.world, row).await, Some(202));
    office.service.until_outcome(row, "parked").await;
    browser.until("#count-parked", "2").await;

    let typed: String = browser
        .ask("return document.getElementById('query').value")
        .await;
    assert_eq!(typed, "half of an addr");
    let focused: String = browser.ask("return document.activeElement.id").await;
    assert_eq!(focused, "action-sweep");
    browser.close().await;
}
