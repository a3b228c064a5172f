//! Each page as people with a phone, a dark screen, a keyboard or a screen reader have it.

use serde::Deserialize;

use super::{ADMIN, Browser, Look, Office, log_in};

/// Answers what is wrong with the page that is shown.
const AUDIT: &str = include_str!("audit.js");

/// What has the focus, and whether that can be seen.
const FOCUS: &str = include_str!("focus.js");

/// Every kind of page, by its address below `/admin`.
fn pages(office: &Office) -> Vec<String> {
    [
        "",
        "/entries",
        "/entries?state=parked",
        "/entries?state=done",
        &format!("/rows/{}", office.row),
        "/search",
        "/actions/pause",
        "/actions/retry-parked",
        "/nothing",
    ]
    .map(|path| office.page(path))
    .into()
}

async fn audit(browser: &Browser, look: Look, what: &str, faults: &mut Vec<String>) {
    for look in [
        look,
        look.dark(),
        look.on_a_phone(),
        look.on_a_phone().dark(),
    ] {
        browser.show_as(look).await;
        let found: Vec<String> = browser.ask(AUDIT).await;
        faults.extend(found.iter().map(|fault| format!("{what}, {look}: {fault}")));
    }
}

async fn every_page_is_fit(look: Look) {
    let office = Office::open().await;
    let browser = Browser::open(look).await;
    let mut faults = Vec::new();
    browser.go(&office.page("")).await;
    audit(&browser, look, "login", &mut faults).await;
    browser
        .type_into("#token", "not-the-token-0123456789")
        .await;
    browser.follow("#login").await;
    audit(&browser, look, "wrong token", &mut faults).await;
    log_in(&browser, &office, ADMIN).await;
    for page in pages(&office) {
        browser.go(&page).await;
        audit(&browser, look, &page, &mut faults).await;
    }
    for whom in ["nonsense", "absent@example.kz"] {
        browser.go(&office.page("/search")).await;
        browser.type_into("#query", whom).await;
        browser.follow("#find").await;
        audit(&browser, look, whom, &mut faults).await;
    }
    // What the status of an answer tells is no complaint about the page.
    let complaints = browser.complaints().await.into_iter();
    faults.extend(complaints.filter(|it| !it.contains("the server responded with a status of 4")));
    assert_eq!(faults, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_is_fit_for_phones_dark_screens_and_screen_readers_in_english() {
    every_page_is_fit(Look::ENGLISH).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_is_fit_for_phones_dark_screens_and_screen_readers_in_russian() {
    every_page_is_fit(Look::RUSSIAN).await;
}

#[derive(Debug, Deserialize)]
struct Focus {
    /// Among all that can have it, in the order of the page; `None`: nothing has it.
    place: Option<usize>,
    of: usize,
    name: String,
    is_shown: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_reached_by_the_keyboard_in_order_and_the_focus_is_seen() {
    let office = Office::open().await;
    let browser = Browser::open(Look::ENGLISH).await;
    log_in(&browser, &office, ADMIN).await;
    let tab = "\u{e004}";
    let enter = "\u{e007}";
    for page in [office.page(""), office.page("/entries"), office.story()] {
        browser.go(&page).await;
        let mut reached = Vec::new();
        loop {
            browser.press(tab).await;
            let focus: Focus = browser.ask(FOCUS).await;
            let Some(place) = focus.place else { break };
            assert!(
                focus.is_shown,
                "{page}: the focus on {} cannot be seen",
                focus.name
            );
            reached.push(place);
            if reached.len() == focus.of {
                break;
            }
        }
        let in_order: Vec<usize> = (0..reached.len()).collect();
        assert!(reached.len() > 4, "{page}: {reached:?}");
        assert_eq!(reached, in_order, "{page}");
    }

    // The first of all leads past the rest.
    browser.go(&office.page("")).await;
    browser.press(tab).await;
    browser.press(enter).await;
    // The browser follows the link a moment after the key.
    browser.find("main:focus").await;
    browser.close().await;
}
