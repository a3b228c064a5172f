//! `init`: what it asks and writes, of a terminal and of a file, between both sandboxes.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::json;
use tripwire_sync::config::Config;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path},
};

use crate::{
    program::{BINARY, Ended, Launch},
    support::{PATIENCE, Wishes, World},
};

/// Answers that are right for this world.
fn answers(world: &World) -> String {
    format!(
        "# of a test\nAMOCRM_BASE_URL={}\nAMOCRM_ACCESS_TOKEN={}\nAMOCRM_TRIPWIRE_PIPELINE_ID={}\n\
         AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID={}\nSUPABASE_URL={}\nSUPABASE_KEY={}\nSYNC_SINCE=2026-12-01\n\
         NOTE_TEMPLATE='{{full_name}} # $5 \"x\"'\nWEBHOOK_SECRET=\nWEBHOOK_BEARER_TOKEN=\n",
        world.sandbox.amo.url(),
        world.sandbox.amo.token(),
        world.setting.pipeline,
        world.setting.target,
        world.sandbox.postgrest.url(),
        world.sandbox.postgrest.key(),
    )
}

async fn from_file(world: &World, answers: &str) -> Ended {
    fs::write(world.folder().join("answers"), answers).unwrap();
    let launch = Launch::new(world.folder(), &["init", "--answers", "answers"]);
    launch.run().await
}

fn written(world: &World) -> Option<String> {
    fs::read_to_string(world.folder().join(".env")).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_answers_becomes_settings_that_a_service_starts_with() {
    let world = World::prepare(Wishes::default());
    let ended = from_file(&world, &answers(&world)).await;
    ended.assert_code(0);
    for words in [
        "amoCRM: account «",
        "table tripwire_users",
        "Next:",
        "tripwire-sync check",
    ] {
        assert!(ended.words().contains(words), "{words}: {ended:#?}");
    }
    for secret in [
        world.sandbox.amo.token(),
        world.sandbox.postgrest.key(),
        "whsec_".to_owned(),
    ] {
        assert!(!ended.words().contains(&secret), "{ended:#?}");
    }
    let path = world.folder().join(".env");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = written(&world).unwrap();
    assert!(
        text.contains("\n# the stage that a deal is brought to"),
        "{text}"
    );
    assert!(
        text.contains("NOTE_TEMPLATE='{full_name} # $5 \"x\"'\n"),
        "{text}"
    );

    // What is written is enough for every command.
    let check = Launch::new(world.folder(), &["check", "--no-event"])
        .run()
        .await;
    assert!(
        check
            .out
            .contains("pipeline «Tripwire», stage «Купил продукт»"),
        "{check:#?}"
    );
    let reads = world
        .sandbox
        .requests()
        .iter()
        .all(|request| !request.is_write);
    assert!(reads, "init and check write nothing to the neighbours");

    // Again: nothing is new.
    let again = from_file(&world, &answers(&world)).await;
    again.assert_code(0);
    assert!(
        again.out.contains("holds all of this already"),
        "{again:#?}"
    );
    assert_eq!(written(&world).unwrap(), text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_wrong_answers_of_a_file_are_told_at_once_and_nothing_is_written() {
    let world = World::prepare(Wishes::default());
    let (token, key) = (world.sandbox.amo.token(), world.sandbox.postgrest.key());
    let stage = format!("BOUGHT_ID={}", world.setting.target);
    let wrong = answers(&world)
        .replace(&token, "wrong-token-value")
        .replace(&key, "wrong-key-value")
        .replace(
            "SYNC_SINCE=2026-12-01",
            "SYNC_SINCE=soon\nRETENTION_DAYS=x\nAMOCRM_SUBDOMIAN=school\nTELEGRAM_CHAT_ID=7",
        );
    let ended = from_file(&world, &wrong).await;
    ended.assert_code(2);
    for words in [
        "  AMOCRM_ACCESS_TOKEN does not work: amoCRM refuses the token (401)",
        "  SUPABASE_KEY, SUPABASE_JWT does not work",
        "  SYNC_SINCE is neither a date nor",
        "  RETENTION_DAYS is not a whole number",
        "  AMOCRM_SUBDOMIAN is not a setting",
        "  TELEGRAM_BOT_TOKEN is not set",
    ] {
        assert_eq!(ended.err.matches(words).count(), 1, "{words}: {ended:#?}");
    }
    assert!(!ended.words().contains("-value"), "{ended:#?}");
    assert_eq!(written(&world), None);

    let ended = from_file(&world, &answers(&world).replace(&stage, "BOUGHT_ID=4711")).await;
    ended.assert_code(2);
    assert!(
        ended
            .err
            .contains("AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID is none of these: ")
            && ended.err.contains("«Купил продукт»"),
        "{ended:#?}"
    );
    assert!(!ended.err.contains("«Неразобранное»"), "{ended:#?}");
    assert_eq!(written(&world), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_there_is_not_replaced_unasked() {
    let world = World::prepare(Wishes::default());
    let path = world.folder().join(".env");
    let former = "# mine\nSYNC_SINCE=2026-11-01 # the day\nOTHER='of another program'\n";
    fs::write(&path, former).unwrap();
    let ended = from_file(&world, &answers(&world)).await;
    ended.assert_code(2);
    assert!(
        ended.err.contains("  SYNC_SINCE has another value in .env"),
        "{ended:#?}"
    );
    assert_eq!(written(&world).unwrap(), former);

    let ended = from_file(
        &world,
        &answers(&world).replace("SYNC_SINCE=2026-12-01\n", ""),
    )
    .await;
    ended.assert_code(0);
    let text = written(&world).unwrap();
    assert!(text.starts_with(former), "{text}");
    assert!(text.contains("\nWEBHOOK_SECRET=whsec_"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bot_and_chat_are_tried_and_nothing_is_sent() {
    let world = World::prepare(Wishes::default());
    let telegram = MockServer::start().await;
    for (called, answer) in [
        (
            "getMe",
            ResponseTemplate::new(200)
                .set_body_json(json!({ "ok": true, "result": { "username": "school_bot" } })),
        ),
        (
            "getChat",
            ResponseTemplate::new(400).set_body_json(json!({ "ok": false })),
        ),
    ] {
        let asked = Mock::given(method("POST")).and(path(format!("/bot123456:token/{called}")));
        asked.respond_with(answer).expect(1).mount(&telegram).await;
    }
    let bot = format!(
        "TELEGRAM_BASE_URL={}\nTELEGRAM_BOT_TOKEN=123456:token\nTELEGRAM_CHAT_ID=-100500\n",
        telegram.uri()
    );
    let ended = from_file(&world, &format!("{}{bot}", answers(&world))).await;
    ended.assert_code(2);
    let told =
        "  TELEGRAM_CHAT_ID does not work: Telegram does not let the bot write to this chat (400)";
    assert!(ended.err.contains(told), "{ended:#?}");
    assert!(!ended.words().contains("123456:token"), "{ended:#?}");
    assert_eq!(written(&world), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_terminal_and_without_answers_nothing_is_asked() {
    let world = World::prepare(Wishes::default());
    let ended = Launch::new(world.folder(), &["init"]).run().await;
    ended.assert_code(2);
    assert!(ended.err.contains("--answers"), "{ended:#?}");
    assert_eq!(world.sandbox.requests().len(), 0);

    // A ban is not asked through.
    world.sandbox.amo.ban();
    let ended = from_file(&world, &answers(&world)).await;
    ended.assert_code(1);
    assert!(ended.err.contains("(403)"), "{ended:#?}");
    assert_eq!(
        (world.sandbox.amo.requests().len(), written(&world)),
        (1, None)
    );
}

/// `init` on a terminal of its own, which `script` makes.
struct Typed {
    child: Child,
    keys: ChildStdin,
    screen: mpsc::Receiver<String>,
    seen: String,
    /// Up to here the screen was waited for.
    read_to: usize,
}

impl Typed {
    fn start(world: &World, locale: &str) -> Self {
        let mut child = Command::new("script")
            .args([
                "--quiet",
                "--return",
                "--command",
                &format!("{BINARY} init"),
                "/dev/null",
            ])
            .current_dir(world.folder())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TERM", "xterm")
            .env("LANG", locale)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, screen) = mpsc::channel();
        let mut out = child.stdout.take().unwrap();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut chunk = [0; 1024];
            while let Ok(count @ 1..) = out.read(&mut chunk) {
                bytes.extend_from_slice(&chunk[..count]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if said.send(text).is_err() {
                    break;
                }
            }
        });
        let keys = child.stdin.take().unwrap();
        Self {
            child,
            keys,
            screen,
            seen: String::new(),
            read_to: 0,
        }
    }

    fn until(&mut self, words: &str) {
        loop {
            if let Some(at) = self.seen[self.read_to..].find(words) {
                self.read_to += at + words.len();
                return;
            }
            match self.screen.recv_timeout(PATIENCE) {
                Ok(seen) => self.seen = seen,
                Err(error) => panic!("never on the screen: {words}: {error}: {}", self.seen),
            }
        }
    }

    /// Types an answer once the question is on the screen.
    fn answer(&mut self, question: &str, answer: &str) {
        self.until(question);
        self.keys
            .write_all(format!("{answer}\r").as_bytes())
            .unwrap();
    }

    fn end(mut self) -> (Option<i32>, String) {
        while let Ok(seen) = self.screen.recv_timeout(PATIENCE) {
            self.seen = seen;
        }
        (
            self.child.wait().unwrap().code(),
            std::mem::take(&mut self.seen),
        )
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        drop(self.child.kill());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_asked_again_with_the_reason_until_the_neighbours_agree() {
    let world = World::prepare(Wishes::default());
    let env = world.folder().join(".env");
    fs::write(&env, "# mine\nSYNC_SINCE=2026-11-01\n").unwrap();
    let mut init = Typed::start(&world, "ru_RU.UTF-8");
    init.answer("AMOCRM_SUBDOMAIN", &world.sandbox.amo.url());
    init.answer("AMOCRM_ACCESS_TOKEN", "wrong-token-value");
    init.until("✗ AMOCRM_ACCESS_TOKEN: не подходит");
    init.answer("AMOCRM_ACCESS_TOKEN", &world.sandbox.amo.token());
    init.until("✓ amoCRM: аккаунт «Школа «Песочница»»");
    init.until("1  Tripwire");
    init.answer("AMOCRM_TRIPWIRE_PIPELINE_ID", "1");
    init.until("3  Купил продукт");
    init.answer("AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID", "3");
    init.answer("SUPABASE_URL", "postgres://db");
    init.until("✗ SUPABASE_URL");
    init.answer("SUPABASE_URL", &world.sandbox.postgrest.url());
    init.answer("SUPABASE_KEY", &world.sandbox.postgrest.key());
    init.answer("SUPABASE_JWT", "");
    init.until("✓ Supabase: таблица tripwire_users");
    init.answer("SYNC_SINCE", "2026-12-01");
    init.answer("TIME_ZONE", "Asia/Almaty");
    init.answer("TELEGRAM_BOT_TOKEN", "");
    init.answer("ADMIN_TOKEN", "н");
    init.answer("Заменить в .env", "д");
    let (code, screen) = init.end();
    assert_eq!(code, Some(0), "{screen}");
    for words in ["Файл .env записан", "Дальше:", "tripwire-sync setup-sql"] {
        assert!(screen.contains(words), "{words}: {screen}");
    }
    let text = written(&world).unwrap();
    assert!(
        text.starts_with("# mine\nSYNC_SINCE=2026-12-01\n"),
        "{text}"
    );
    assert!(text.contains("\nTIME_ZONE=Asia/Almaty\n"), "{text}");
    let check = Launch::new(world.folder(), &["check", "--no-event"])
        .run()
        .await;
    assert!(check.out.contains("stage «Купил продукт»"), "{check:#?}");

    // Both tries together kept to one request a second: without that, the second would come at once.
    let requests = world.sandbox.amo.requests();
    assert!(requests[2].at - requests[0].at >= Duration::from_millis(1_500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interview_that_is_broken_off_leaves_the_file_as_it_was() {
    let world = World::prepare(Wishes::default());
    let env = world.folder().join(".env");
    let former = "AMOCRM_SUBDOMAIN=school\n";
    fs::write(&env, former).unwrap();
    for question in ["AMOCRM_SUBDOMAIN", "AMOCRM_ACCESS_TOKEN"] {
        let mut init = Typed::start(&world, "C.UTF-8");
        if question == "AMOCRM_ACCESS_TOKEN" {
            init.answer("AMOCRM_SUBDOMAIN", &world.sandbox.amo.url());
        }
        init.until(question);
        init.until(":");
        // Ctrl-C
        init.keys.write_all(b"\x03").unwrap();
        let (code, screen) = init.end();
        assert_ne!(code, Some(0), "{screen}");
        assert_eq!(written(&world).unwrap(), former);
    }
    assert_eq!(world.sandbox.requests().len(), 0);
    let left = fs::read_dir(world.folder()).unwrap().count();
    assert_eq!(left, 1, "no file is left behind");
}

/// The names of a file of answers are those of the settings: what `.env.example` lists can be answered.
#[test]
fn every_setting_can_be_an_answer() {
    let known = tripwire_sync::config::GROUPS
        .iter()
        .flat_map(|group| group.settings);
    for setting in known {
        assert_eq!(
            Config::wrong_form(setting.name, ""),
            None,
            "{}",
            setting.name
        );
    }
}
