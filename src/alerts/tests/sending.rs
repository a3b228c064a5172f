//! The client and the task against a bot that answers by a script.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use url::Url;
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

use super::*;
use crate::{
    domain::SystemClock,
    inbox::{Inbox, Role},
    telemetry::captured::Captured,
};

const TOKEN: &str = "123456:very-secret-token";
const PATIENCE: Duration = MINUTE;

/// Answers one request after the other as its script says, then 200.
struct Bot {
    url: Url,
    seen: watch::Receiver<Vec<(String, Value)>>,
    _server: MockServer,
}

impl Bot {
    async fn start(script: impl IntoIterator<Item = (u16, Value)>) -> Self {
        let script: Vec<_> = script.into_iter().collect();
        let server = MockServer::start().await;
        let (seen, receiver) = watch::channel(Vec::new());
        let answer = move |request: &Request| {
            let body = request.body_json().unwrap();
            seen.send_modify(|seen| seen.push((request.url.path().to_owned(), body)));
            let scripted = script.get(seen.borrow().len() - 1).cloned();
            let (status, body) = scripted.unwrap_or((200, json!({ "ok": true })));
            ResponseTemplate::new(status).set_body_json(body)
        };
        Mock::given(any()).respond_with(answer).mount(&server).await;
        Self {
            url: server.uri().parse().unwrap(),
            seen: receiver,
            _server: server,
        }
    }

    /// Waits for so many requests. Answers their texts.
    async fn texts(&mut self, count: usize) -> Vec<String> {
        let wait = self.seen.wait_for(|seen| seen.len() >= count);
        let seen = tokio::time::timeout(PATIENCE, wait).await.unwrap().unwrap();
        let texts = seen
            .iter()
            .map(|(_, body)| body["text"].as_str().unwrap().to_owned());
        texts.collect()
    }
}

/// Reads a message to its end, for the bots that wiremock cannot stand in for: one breaks off within its answer, one gives
/// none.
async fn read(stream: &mut TcpStream) {
    let mut message = Vec::new();
    while !message.ends_with(b"}") {
        assert!(stream.read_buf(&mut message).await.unwrap() > 0);
    }
}

fn bot_at(base_url: Url) -> TelegramBot {
    TelegramBot {
        token: TOKEN.into(),
        chat_id: "-100500".to_owned(),
        base_url,
    }
}

fn settings(base_url: Url) -> Settings {
    let moment = Duration::from_millis(5);
    Settings {
        bot: bot_at(base_url),
        tokens: Vec::new(),
        zone: jiff::tz::TimeZone::UTC,
        digests: None,
        pace: Pace {
            look_every: moment,
            retry: Backoff {
                first: moment,
                ..Pace::default().retry
            },
            quiet: Backoff {
                first: moment,
                longest: moment,
            },
            sure_after: moment,
            ..Pace::default()
        },
    }
}

/// The only service of its project.
#[derive(Debug)]
struct Alone;

impl crate::alerts::Service for Alone {
    fn holds_lease(&self) -> Option<bool> {
        Some(true)
    }

    fn requests_sent(&self) -> u64 {
        0
    }
}

async fn sent_to(script: impl IntoIterator<Item = (u16, Value)>) -> Result<(), TelegramError> {
    let bot = Bot::start(script).await;
    let telegram = Telegram::new(&bot_at(bot.url.clone())).unwrap();
    telegram.send("проверка").await
}

/// An address with no listener.
async fn nowhere() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    url.parse().unwrap()
}

#[tokio::test]
async fn a_message_is_plain_text_to_the_chat() {
    let bot = Bot::start([]).await;
    let url = bot.url.join("/proxy/").unwrap();

    Telegram::new(&bot_at(url))
        .unwrap()
        .send("<b>_*проверка")
        .await
        .unwrap();

    let seen = bot.seen.borrow().clone();
    let body =
        json!({ "chat_id": "-100500", "text": "<b>_*проверка", "disable_web_page_preview": true });
    assert_eq!(seen, [(format!("/proxy/bot{TOKEN}/sendMessage"), body)]);
}

#[tokio::test]
async fn each_refusal_says_what_is_wrong() {
    let throttled = json!({ "ok": false, "error_code": 429, "parameters": { "retry_after": 37 } });
    let after = |sent| match sent {
        Err(TelegramError::Throttled { retry_after }) => retry_after,
        other => panic!("{other:?}"),
    };
    assert_eq!(after(sent_to([(429, throttled)]).await), Some(37 * SECOND));
    assert_eq!(after(sent_to([(429, json!("slow down"))]).await), None);
    for status in [401, 404] {
        let sent = sent_to([(status, json!({}))]).await;
        assert!(
            matches!(sent, Err(TelegramError::Token { status: told }) if told == status),
            "{sent:?}"
        );
    }
    for status in [400, 403] {
        let sent = sent_to([(status, json!({}))]).await;
        assert!(
            matches!(sent, Err(TelegramError::Chat { status: told }) if told == status),
            "{sent:?}"
        );
    }
    for status in [302, 500, 502] {
        let sent = sent_to([(status, json!({}))]).await;
        assert!(
            matches!(sent, Err(TelegramError::Unexpected { status: told }) if told == status),
            "{sent:?}"
        );
    }
}

#[tokio::test]
async fn a_group_that_became_a_supergroup_is_written_to_by_its_new_id() {
    let (log, _guard) = capture();
    let moved = json!({
        "ok": false, "error_code": 400,
        "description": "Bad Request: group chat was upgraded to a supergroup chat",
        "parameters": { "migrate_to_chat_id": -1_001_234_567_890_i64 },
    });
    let bot = Bot::start([(400, moved)]).await;
    let telegram = Telegram::new(&bot_at(bot.url.clone())).unwrap();

    telegram.send("первое").await.unwrap();
    telegram.clone().send("второе").await.unwrap();

    let seen = bot.seen.borrow().clone();
    let told = |body: &Value| (body["chat_id"].clone(), body["text"].clone());
    let told: Vec<_> = seen.iter().map(|(_, body)| told(body)).collect();
    let first =
        "первое\n\nГруппа стала супергруппой: впишите в настройки TELEGRAM_CHAT_ID=-1001234567890";
    assert_eq!(
        told,
        [
            (json!("-100500"), json!("первое")),
            (json!("-1001234567890"), json!(first)),
            (json!("-1001234567890"), json!("второе")),
        ]
    );
    let log = log.text();
    assert_eq!(log.matches("alerts.chat_moved").count(), 1, "{log}");
    assert!(log.contains("-1001234567890"), "{log}");
}

#[tokio::test]
async fn a_group_whose_new_id_is_refused_is_tried_by_the_old_one_again() {
    let moved = json!({ "parameters": { "migrate_to_chat_id": -1_001 } });
    let answers = [(400, moved.clone()), (403, json!({})), (400, moved)];
    let bot = Bot::start(answers).await;
    let telegram = Telegram::new(&bot_at(bot.url.clone())).unwrap();

    let refused = telegram.send("первое").await;
    assert!(
        matches!(refused, Err(TelegramError::Chat { status: 403 })),
        "{refused:?}"
    );
    telegram.send("второе").await.unwrap();

    let seen = bot.seen.borrow().clone();
    let chats: Vec<_> = seen
        .iter()
        .map(|(_, body)| body["chat_id"].clone())
        .collect();
    assert_eq!(chats, ["-100500", "-1001", "-100500", "-1001"]);
}

#[tokio::test]
async fn the_bot_and_the_chat_are_looked_at() {
    let me = json!({ "ok": true, "result": { "id": 1, "is_bot": true, "username": "school_bot" } });
    let odd = json!({ "ok": true, "result": { "username": "<b>" } });
    let moved = json!({ "parameters": { "migrate_to_chat_id": -1_001 } });
    let answers = [
        (200, me),
        (200, odd),
        (401, json!({})),
        (200, json!({})),
        (400, json!({})),
        (400, moved),
    ];
    let bot = Bot::start(answers).await;
    let telegram = Telegram::new(&bot_at(bot.url.clone())).unwrap();

    assert_eq!(telegram.bot_name().await.unwrap(), "school_bot");
    let odd = telegram.bot_name().await;
    assert!(
        matches!(odd, Err(TelegramError::Unexpected { status: 200 })),
        "{odd:?}"
    );
    let token = telegram.bot_name().await;
    assert!(
        matches!(token, Err(TelegramError::Token { status: 401 })),
        "{token:?}"
    );
    telegram.look_at_chat().await.unwrap();
    let chat = telegram.look_at_chat().await;
    assert!(
        matches!(chat, Err(TelegramError::Chat { status: 400 })),
        "{chat:?}"
    );
    let moved = telegram.look_at_chat().await;
    assert!(
        matches!(moved, Err(TelegramError::Moved { to: -1_001 })),
        "{moved:?}"
    );

    let seen = bot.seen.borrow().clone();
    assert_eq!(seen[0], (format!("/bot{TOKEN}/getMe"), json!({})));
    assert_eq!(
        seen[3],
        (
            format!("/bot{TOKEN}/getChat"),
            json!({ "chat_id": "-100500" })
        )
    );
}

/// A message that is tried again would arrive twice.
#[tokio::test]
async fn a_message_is_taken_though_the_rest_of_the_answer_is_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bot = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
        stream.write_all(answer).await.unwrap();
    });

    let telegram = Telegram::new(&bot_at(url.parse().unwrap())).unwrap();
    telegram.send("проверка").await.unwrap();
    bot.await.unwrap();
}

#[tokio::test]
async fn no_connection_is_told_without_the_address() {
    let telegram = Telegram::new(&bot_at(nowhere().await)).unwrap();

    let error = telegram.send("проверка").await.unwrap_err();

    assert!(matches!(error, TelegramError::NotSent(_)), "{error:?}");
    assert!(
        !format!("{error:?} {telegram:?}").contains("secret"),
        "{error:?} {telegram:?}"
    );
}

/// The task beside an inbox, with the state of the engine in a test's hand.
struct Service {
    state: watch::Sender<SyncState>,
    inbox: Inbox,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Service {
    async fn start(settings: &Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inbox.db");
        let inbox = Inbox::open(&path, Role::Owner, Arc::new(SystemClock))
            .await
            .unwrap();
        let (state, status) = watch::channel(halted());
        let stop = CancellationToken::new();
        let watch = Watch::new(
            settings,
            inbox.clone(),
            status,
            Arc::new(SystemClock),
            Arc::new(Alone),
            stop.clone(),
        );
        let task = tokio::spawn(watch.unwrap().work());
        Self {
            state,
            inbox,
            stop,
            task,
            _folder: folder,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap();
        self.inbox.close().await;
    }
}

fn halted() -> SyncState {
    SyncState::Halted {
        cause: HaltCause::AmocrmToken,
        since: Timestamp::UNIX_EPOCH,
        next_probe: None,
    }
}

/// What is logged until the answer is dropped, by this thread.
fn capture() -> (Captured, tracing::subscriber::DefaultGuard) {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(captured.clone())
        .finish();
    (captured, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn a_message_that_fails_thrice_is_dropped_and_said_anew_later() {
    let (log, _guard) = capture();
    let mut bot = Bot::start([500, 502, 503, 429].map(|status| (status, json!({})))).await;
    let service = Service::start(&settings(bot.url.clone())).await;

    // Three tries and a drop; then a try that fails and one that does not.
    let halts = bot.texts(5).await;
    service.state.send(SyncState::Working).unwrap();
    let all = bot.texts(6).await;
    service.stop().await;

    assert!(halts.iter().all(|text| text == &halts[0]), "{halts:#?}");
    assert!(all[5].contains("снова работает"), "{}", all[5]);
    assert_eq!(all.len(), 6, "{all:#?}");
    let log = log.text();
    assert_eq!(log.matches("alerts.dropped").count(), 1, "{log}");
    assert!(
        log.contains("unexpected answer from Telegram (503)"),
        "{log}"
    );
    assert!(
        !log.contains("very-secret") && !log.contains("/bot"),
        "{log}"
    );
}

#[tokio::test]
async fn a_bot_that_cannot_be_reached_is_complained_about_without_its_token() {
    let (log, _guard) = capture();
    let mut settings = settings(nowhere().await);
    settings.pace.quiet = Backoff {
        first: HOUR,
        longest: HOUR,
    };
    let service = Service::start(&settings).await;

    let dropped = async {
        while !log.text().contains("alerts.dropped") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.unwrap();
    service.stop().await;

    let log = log.text();
    assert!(log.contains("no connection to Telegram"), "{log}");
    assert!(
        !log.contains("very-secret") && !log.contains("/bot"),
        "{log}"
    );
}

#[tokio::test]
async fn a_bot_that_never_answers_does_not_hold_up_a_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = Service::start(&settings(url.parse().unwrap())).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    read(&mut stream).await;

    let asked = std::time::Instant::now();
    service.stop().await;

    assert!(asked.elapsed() < 10 * SECOND, "{:?}", asked.elapsed());
}
