//! What a person is told by Telegram while the service works, halts and recovers.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use sandbox::{EventFate, PostgrestQuirks, WebhookTarget};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tripwire_sync::{
    alerts::{self, Pace, Schedule},
    app::{self, SelfTest},
    config::Config,
    domain::{DigestEvery, EventTestTimings, HaltCause, Lang, RowId, TelegramBot},
    inbox::State,
};
use wiremock::{
    Mock, MockServer, Request, ResponseTemplate,
    matchers::{body_partial_json, method, path},
};

use crate::{
    check::{about, set_up},
    clocks::Wrong,
    program::{Ended, Launch},
    support::{NowForTests, PATIENCE, SECRET, Wishes, World, sending},
};

/// A bot that keeps what it is told to say.
pub(crate) struct Bot {
    pub(crate) url: String,
    said: watch::Receiver<Vec<String>>,
    _server: MockServer,
}

impl Bot {
    pub(crate) async fn start() -> Self {
        let (say, said) = watch::channel(Vec::new());
        let server = MockServer::start().await;
        let send_message = move |request: &Request| {
            let message: Value = request.body_json().unwrap();
            say.send_modify(|said| said.push(message["text"].as_str().unwrap().to_owned()));
            ResponseTemplate::new(200).set_body_json(json!({ "ok": true }))
        };
        Mock::given(method("POST"))
            .and(path("/bot123456:token/sendMessage"))
            .and(body_partial_json(json!({ "chat_id": "-100500" })))
            .respond_with(send_message)
            .mount(&server)
            .await;
        Self {
            url: server.uri(),
            said,
            _server: server,
        }
    }

    /// Waits for a message with these words.
    pub(crate) async fn until_said(&mut self, words: &str) {
        let is_said = |said: &Vec<String>| said.iter().any(|text| text.contains(words));
        let wait = tokio::time::timeout(PATIENCE, self.said.wait_for(is_said)).await;
        assert!(wait.is_ok(), "it does not say {words}");
    }

    /// Waits for the n-th message, which must be the last one so far.
    async fn message(&mut self, n: usize) -> String {
        let wait = self.said.wait_for(|said| said.len() >= n);
        let said = tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap()
            .unwrap()
            .clone();
        assert_eq!(said.len(), n, "{said:#?}");
        said[n - 1].clone()
    }
}

/// The usual settings, and whom to tell.
fn telling(world: &World, url: &str) -> app::Settings {
    let moment = Duration::from_millis(20);
    app::Settings {
        telegram: Some(alerts::Settings {
            bot: TelegramBot {
                token: "123456:token".into(),
                chat_id: "-100500".to_owned(),
                base_url: url.parse().unwrap(),
            },
            tokens: Vec::new(),
            zone: jiff::tz::TimeZone::UTC,
            digests: None,
            pace: Pace {
                look_every: moment,
                gather: 10 * moment,
                sure_after: 10 * moment,
                ..Pace::default()
            },
        }),
        ..world.settings()
    }
}

fn with_wrong_token(settings: app::Settings) -> app::Settings {
    let mut settings = settings;
    sending(&mut settings).amocrm.token = "wrong".into();
    sending(&mut settings).sync.amocrm_fingerprint = "wrong".into();
    settings
}

/// Rows that nobody can sync, made long enough ago to be settled.
fn insert_broken(world: &World, count: usize) -> Vec<RowId> {
    let an_hour_ago = Timestamp::now_for_tests() - Duration::from_hours(1);
    let row = json!({ "email": "nobody", "created_at": an_hour_ago });
    (0..count).map(|_| world.insert(&row)).collect()
}

fn add_student(world: &World) -> RowId {
    let (pipeline, stage) = (world.setting.pipeline, world.setting.before[0]);
    world.sandbox.amo.world(|amo| {
        let contact = amo.add_contact("Айгерим", &["aigerim@example.kz"], &[]);
        amo.add_deal(&[contact], pipeline, stage, "Tripwire");
    });
    world.insert(&json!({ "email": "aigerim@example.kz" }))
}

/// `check` beside a Telegram that answers `getMe` and `getChat` like this.
async fn checked(me: (u16, Value), chat: (u16, Value)) -> (Ended, Option<String>) {
    let world = World::prepare(Wishes::default());
    set_up(&world);
    let telegram = MockServer::start().await;
    for (called, (status, body)) in [("getMe", me), ("getChat", chat)] {
        Mock::given(method("POST"))
            .and(path(format!("/bot123456:token/{called}")))
            .respond_with(ResponseTemplate::new(status).set_body_json(body))
            .mount(&telegram)
            .await;
    }
    let ended = Launch::in_world(&world, &["check"])
        .with("TELEGRAM_BOT_TOKEN", "123456:token")
        .with("TELEGRAM_CHAT_ID", "-100500")
        .with("TELEGRAM_BASE_URL", telegram.uri())
        .run()
        .await;
    assert!(!ended.words().contains("123456:token"), "{ended:#?}");
    let line = about(&ended.out, "telegram");
    (ended, line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_looks_at_bot_and_chat_and_writes_nothing() {
    let me = (
        200,
        json!({ "ok": true, "result": { "username": "school_bot" } }),
    );
    let good = (200, json!({ "ok": true, "result": { "id": -100_500 } }));
    let moved = json!({ "ok": false, "parameters": { "migrate_to_chat_id": -1_001_234 } });
    for (me, chat, code, told) in [
        (
            me.clone(),
            good.clone(),
            0,
            "ok       telegram   @school_bot knows the chat of TELEGRAM_CHAT_ID",
        ),
        (
            me.clone(),
            (400, moved),
            0,
            "advice   telegram   the group became a supergroup; alerts find it by themselves. Set TELEGRAM_CHAT_ID to -1001234",
        ),
        (
            me.clone(),
            (400, json!({ "ok": false })),
            1,
            "failed   telegram   Telegram does not let the bot write to this chat (400): check TELEGRAM_CHAT_ID; add the bot to the \
             group, or write to it first",
        ),
        (
            (401, json!({ "ok": false })),
            good.clone(),
            1,
            "failed   telegram   Telegram does not know the bot's token (401): copy TELEGRAM_BOT_TOKEN from @BotFather again",
        ),
        (
            (502, json!("Bad Gateway")),
            good,
            1,
            "failed   telegram   unexpected answer from Telegram (502): check the network and TELEGRAM_BASE_URL, and try again",
        ),
    ] {
        let (ended, line) = checked(me, chat).await;
        assert_eq!(line.as_deref(), Some(told), "{ended:#?}");
        ended.assert_code(code);
    }
}

#[test]
fn whom_to_tell_is_taken_from_the_settings() {
    let mut vars: BTreeMap<String, String> = [
        ("WEBHOOK_SECRET", SECRET),
        ("SUPABASE_URL", "https://abcdefghijklmnopqrst.supabase.co"),
        ("SUPABASE_KEY", "sb_secret_key"),
        ("SYNC_SINCE", "2026-12-01"),
        ("AMOCRM_ENABLED", "false"),
        ("TELEGRAM_BOT_TOKEN", "123456:token"),
        ("TELEGRAM_CHAT_ID", "-100500"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let told = |vars: &BTreeMap<String, String>| {
        let config = Config::from_vars(vars, false).unwrap();
        app::Settings::from_config(&config).telegram
    };

    let telegram = told(&vars).unwrap();
    assert_eq!(telegram.bot.chat_id, "-100500");
    assert_eq!(telegram.bot.base_url.as_str(), "https://api.telegram.org/");
    assert_eq!(telegram.pace, Pace::default());
    vars.retain(|name, _| !name.starts_with("TELEGRAM"));
    assert!(told(&vars).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_halt_and_its_end_are_told_once_each_over_restarts() {
    let mut bot = Bot::start().await;
    let mut world = World::prepare(Wishes::default());
    let settings = telling(&world, &bot.url);
    let row = add_student(&world);

    world.launch_with(with_wrong_token(settings.clone())).await;
    assert_eq!(world.deliver(row).await, 202);
    let halted = bot.message(1).await;
    world.stop().await;
    world.launch_with(with_wrong_token(settings.clone())).await;
    world.until_sync_is("halted").await;
    world.stop().await;

    world.launch_with(settings.clone()).await;
    let recovered = bot.message(2).await;
    world.until_state(row, State::Done).await;
    world.stop().await;
    world.launch_with(settings).await;
    let broken = insert_broken(&world, 1)[0];
    assert_eq!(world.deliver(broken).await, 202);
    let parked = bot.message(3).await;

    assert!(
        halted.contains(HaltCause::AmocrmToken.hint(Lang::Russian)),
        "{halted}"
    );
    assert!(recovered.contains("снова работает"), "{recovered}");
    assert!(parked.contains("отложено записей: 1"), "{parked}");
    for message in [halted, recovered, parked] {
        assert!(
            !message.contains("aigerim") && !message.contains("nobody"),
            "{message}"
        );
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_parked_entries_are_one_message() {
    let mut bot = Bot::start().await;
    let mut world = World::prepare(Wishes {
        sweep_every: Some(Duration::from_hours(1)),
        ..Wishes::default()
    });
    let rows = insert_broken(&world, 30);
    world.launch_with(telling(&world, &bot.url)).await;

    let parked = bot.message(1).await;
    world.sandbox.amo.ban();
    let student = add_student(&world);
    assert_eq!(world.deliver(student).await, 202);
    let halted = bot.message(2).await;

    assert!(parked.contains("отложено записей: 30"), "{parked}");
    assert!(
        parked.contains("в строке нет правильного e-mail: 30"),
        "{parked}"
    );
    let named = rows.iter().filter(|row| parked.contains(&row.to_string()));
    assert_eq!(named.count(), 5, "{parked}");
    assert!(
        halted.contains(HaltCause::AmocrmForbidden.hint(Lang::Russian)),
        "{halted}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_trigger_and_its_end_are_told() {
    let mut bot = Bot::start().await;
    let mut world = World::prepare(Wishes {
        sweep_every: Some(Duration::from_millis(100)),
        ..Wishes::default()
    });
    let refused = EventFate::Failed("Couldn't resolve host name".to_owned());
    let postgrest = &world.sandbox.postgrest;
    postgrest.on_insert(WebhookTarget {
        url: "http://127.0.0.1:9/webhooks/supabase".to_owned(),
        secret: SECRET.into(),
    });
    postgrest.quirks(|quirks| quirks.behind.event = refused);
    let moment = Duration::from_millis(20);
    let settings = app::Settings {
        self_test: Some(SelfTest {
            daily: false,
            takes_bearer: false,
            timings: EventTestTimings {
                first_after: moment,
                look_every: moment,
                again_after: moment,
                rows_gap: moment,
                silent_after: moment,
                ..EventTestTimings::scaled(1.0, moment)
            },
        }),
        ..telling(&world, &bot.url)
    };
    world.launch_with(settings).await;
    for _ in 0..3 {
        add_student(&world);
    }

    let silent = bot.message(1).await;
    let quirks = |change: fn(&mut PostgrestQuirks)| world.sandbox.postgrest.quirks(change);
    quirks(|quirks| quirks.behind.event = EventFate::Verified);
    let arriving = bot.message(2).await;

    assert!(silent.contains("не доходят до сервиса"), "{silent}");
    assert!(silent.contains("tripwire-sync check"), "{silent}");
    assert!(!silent.contains("127.0.0.1"), "{silent}");
    assert!(arriving.contains("снова доходят"), "{arriving}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_digest_is_sent_once_and_a_missed_one_at_the_next_start() {
    let mut bot = Bot::start().await;
    let mut world = World::prepare(Wishes::default());
    let mut settings = telling(&world, &bot.url);
    settings.telegram.as_mut().unwrap().digests = Some(Schedule {
        every: DigestEvery::Day,
        zone: TimeZone::UTC,
    });
    world.launch_with(settings.clone()).await;
    let student = add_student(&world);
    assert_eq!(world.deliver(student).await, 202);
    world.until_state(student, State::Done).await;
    world.stop().await;

    // At nine it was down.
    for (days, said, synced) in [(1, 1, 1), (1, 1, 1), (2, 2, 0)] {
        let clock = Wrong::by(SignedDuration::from_hours(24 * days));
        world.launch_at(settings.clone(), clock).await;
        let digest = bot.message(said).await;
        for told in ["итоги", &format!("по событию: {synced}"), "(с запуска "]
        {
            assert!(digest.contains(told), "{told} in {digest}");
        }
        assert!(!digest.contains("aigerim"), "{digest}");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_synced_while_telegram_does_not_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut world = World::prepare(Wishes::default());
    world.launch_with(telling(&world, &url)).await;
    let broken = insert_broken(&world, 1)[0];
    assert_eq!(world.deliver(broken).await, 202);
    // An alert is on its way, and nobody takes it.
    let accepted = tokio::time::timeout(PATIENCE, silent.accept()).await;
    let _open = accepted.unwrap().unwrap();

    let student = add_student(&world);
    assert_eq!(world.deliver(student).await, 202);

    world.until_state(student, State::Done).await;
    assert!(world.column(student, "amocrm_deal_id").is_some());
    world.stop().await;
}
