//! A real browser: Debian's Chromium in a profile of its own, driven through chromedriver. It reaches 127.0.0.1 and nothing
//! else.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{
    By, ChromiumLikeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver, WebElement,
    extensions::query::{ElementPollerWithTimeout, IntoElementPoller},
    prelude::{ElementQueryable, ElementWaitable},
    support::base64_decode,
};

use crate::{
    program::{Launch, Program},
    support::PATIENCE,
};

/// Answers when something of the page is on the screen.
const PAINTED: &str = r#"
    const done = arguments[0];
    new PerformanceObserver((seen, observer) => {
        if (seen.getEntriesByName("first-contentful-paint").length === 0) return;
        observer.disconnect();
        done(true);
    }).observe({ type: "paint", buffered: true });"#;
/// Between two looks at a page that changes by itself.
const GLANCE: Duration = Duration::from_millis(50);
/// The page renews itself every 15 seconds.
const CHANGES_WITHIN: Duration = Duration::from_secs(45);
/// Of a picture.
const TALLEST: u32 = 1_700;
const PHONE: (u32, u32) = (390, 844);
const DESK: (u32, u32) = (1280, 900);

/// What a person's browser is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// As in `Accept-Language`.
    pub(crate) languages: &'static str,
    pub(crate) is_dark: bool,
    pub(crate) is_phone: bool,
    pub(crate) runs_scripts: bool,
}

impl Look {
    pub(crate) const ENGLISH: Self = Self {
        languages: "en-US,en",
        is_dark: false,
        is_phone: false,
        runs_scripts: true,
    };
    pub(crate) const RUSSIAN: Self = Self {
        languages: "ru-RU,ru,en-US,en",
        ..Self::ENGLISH
    };

    pub(crate) fn dark(self) -> Self {
        Self {
            is_dark: true,
            ..self
        }
    }

    pub(crate) fn on_a_phone(self) -> Self {
        Self {
            is_phone: true,
            ..self
        }
    }

    pub(crate) fn without_scripts(self) -> Self {
        Self {
            runs_scripts: false,
            ..self
        }
    }

    fn size(self) -> (u32, u32) {
        if self.is_phone { PHONE } else { DESK }
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let screen = if self.is_phone { "phone" } else { "desk" };
        let colours = if self.is_dark { "dark" } else { "light" };
        write!(f, "{} {screen} {colours}", self.languages)
    }
}

/// One window. It ends with the test: first the session, then chromedriver, and with it whatever is left of Chromium.
pub(crate) struct Browser {
    driver: WebDriver,
    _chromedriver: Program,
    _folder: TempDir,
}

impl Browser {
    pub(crate) async fn open(look: Look) -> Self {
        outbound::install_crypto_provider();
        let folder = tempfile::tempdir().unwrap();
        let (chromedriver, url) = start_chromedriver(folder.path()).await;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .unwrap();
        let driver = WebDriver::builder(url, capabilities(look, folder.path()))
            .poller(Arc::new(ElementPollerWithTimeout::new(
                CHANGES_WITHIN,
                GLANCE,
            )))
            .client(client)
            .await
            .unwrap();
        let browser = Self {
            driver,
            _chromedriver: chromedriver,
            _folder: folder,
        };
        browser.show_as(look).await;
        browser
    }

    /// Screen and colours, which take effect at once. The languages and scripts of a browser do not change.
    pub(crate) async fn show_as(&self, look: Look) {
        let (width, height) = look.size();
        let screen = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": look.is_phone,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", screen)
            .await;
        let scheme = if look.is_dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    async fn devtools(&self, method: &str, parameters: Value) -> Value {
        self.driver
            .cdp()
            .send_raw(method, parameters)
            .await
            .unwrap()
    }

    /// Ends the session in order.
    pub(crate) async fn close(self) {
        self.driver.quit().await.unwrap();
    }

    pub(crate) async fn go(&self, url: &str) {
        self.driver.goto(url).await.unwrap();
    }

    /// Path and query of the page that is shown.
    pub(crate) async fn address(&self) -> String {
        let url = self.driver.current_url().await.unwrap();
        url[url::Position::BeforePath..].to_owned()
    }

    pub(crate) async fn source(&self) -> String {
        self.driver.source().await.unwrap()
    }

    /// The first element that fits, as soon as there is one.
    pub(crate) async fn find(&self, selector: &str) -> WebElement {
        let found = self.driver.query(By::Css(selector)).first().await;
        match found {
            Ok(element) => element,
            Err(error) => panic!("no {selector}: {error}\n{}", self.source().await),
        }
    }

    /// How many elements fit now.
    pub(crate) async fn count(&self, selector: &str) -> usize {
        self.driver.find_all(By::Css(selector)).await.unwrap().len()
    }

    pub(crate) async fn text(&self, selector: &str) -> String {
        self.find(selector).await.text().await.unwrap()
    }

    /// Waits until an element shows these words. The page may replace it at any time.
    pub(crate) async fn until(&self, selector: &str, words: &str) {
        let look = "return document.querySelector(arguments[0])?.innerText ?? ''";
        let mut poller = ElementPollerWithTimeout::new(CHANGES_WITHIN, GLANCE).start();
        loop {
            let shown = self.driver.execute(look, vec![json!(selector)]).await;
            // A page that is being left answers with an error.
            let shown = shown.and_then(|shown| shown.convert::<String>());
            if shown.is_ok_and(|shown| shown.contains(words)) {
                return;
            }
            let goes_on = poller.tick().await;
            assert!(
                goes_on,
                "{selector} never shows {words:?}: {}",
                self.source().await
            );
        }
    }

    pub(crate) async fn type_into(&self, selector: &str, text: &str) {
        let field = self.find(selector).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Keys, to whichever element has the focus. Chromium drops those that come before it has painted the page.
    pub(crate) async fn press(&self, keys: &str) {
        self.driver
            .execute_async(PAINTED, Vec::new())
            .await
            .unwrap();
        let chain = self.driver.action_chain().send_keys(keys);
        chain.perform().await.unwrap();
    }

    /// Clicks, and waits for the page that this leads to.
    pub(crate) async fn follow(&self, selector: &str) {
        let element = self.find(selector).await;
        element.click().await.unwrap();
        // The old page is gone when its elements are.
        let gone = element.wait_until().stale().await;
        assert!(
            gone.is_ok(),
            "{selector} leads nowhere: {}",
            self.source().await
        );
    }

    /// What the browser keeps under this name, for the page that is shown.
    pub(crate) async fn cookie(&self, name: &str) -> Option<Value> {
        let cookies = self.driver.get_all_cookies().await.unwrap();
        let cookie = cookies.into_iter().find(|cookie| cookie.name == name)?;
        Some(serde_json::to_value(cookie).unwrap())
    }

    /// What a script in the page finds out.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, script: &str) -> T {
        let answer = self.driver.execute(script, Vec::new()).await.unwrap();
        answer.convert().unwrap()
    }

    /// What the browser has complained of since the last call: among other things, all that the page's own policy forbids.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.driver.browser_log().await.unwrap();
        log.into_iter()
            .map(|entry| format!("{}: {}", entry.level, entry.message))
            .collect()
    }

    /// The page, also what lies below the window, up to a height that still fits beside a text.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        let size =
            "const root = document.documentElement; return [root.clientWidth, root.scrollHeight]";
        let (width, height): (u32, u32) = self.ask(size).await;
        let scale = if width > PHONE.0 { 0.6 } else { 0.8 };
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height.min(TALLEST), "scale": scale });
        let wish = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let answer = self.devtools("Page.captureScreenshot", wish).await;
        base64_decode(answer["data"].as_str().unwrap()).unwrap()
    }
}

async fn start_chromedriver(folder: &Path) -> (Program, String) {
    let mut chromedriver = Launch::of(&program("chromedriver"), folder, &["--port=0"])
        .with("PATH", search_path().to_string_lossy())
        .with("HOME", folder.display())
        .with("TMPDIR", folder.display())
        .spawn();
    let words = "was started successfully on port ";
    chromedriver.until_said(words).await;
    let said = chromedriver.said();
    let (_, port) = said.split_once(words).unwrap();
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    (chromedriver, format!("http://127.0.0.1:{port}"))
}

fn search_path() -> OsString {
    env::var_os("PATH").unwrap_or_default()
}

fn program(name: &str) -> PathBuf {
    env::split_paths(&search_path())
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is not in PATH: scripts/tools installs it"))
}

fn capabilities(look: Look, folder: &Path) -> thirtyfour::Capabilities {
    let mut wished = DesiredCapabilities::chrome();
    wished
        .set_binary(program("chromium").to_str().unwrap())
        .unwrap();
    let (width, height) = look.size();
    for argument in [
        "--headless=new",
        // Chromium's own sandbox does not work as root; the pages are ours.
        "--no-sandbox",
        // Where the shared memory is small, as in containers.
        "--disable-dev-shm-usage",
        "--disable-gpu",
        // Chromium ends when chromedriver does.
        "--remote-debugging-pipe",
        // No request leaves the machine.
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        "--no-proxy-server",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        &format!("--user-data-dir={}", folder.join("profile").display()),
        &format!("--lang={}", look.languages.split(',').next().unwrap()),
        &format!("--window-size={width},{height}"),
    ] {
        wished.add_arg(argument).unwrap();
    }
    let mut preferences = json!({ "intl.accept_languages": look.languages });
    if !look.runs_scripts {
        let refused = 2;
        preferences["profile.managed_default_content_settings.javascript"] = json!(refused);
    }
    wished
        .add_experimental_option("prefs", preferences)
        .unwrap();
    wished
        .set_browser_log_level(LoggingPrefsLogLevel::Warning)
        .unwrap();
    wished.into()
}
