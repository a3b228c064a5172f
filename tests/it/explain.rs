//! `explain`: one student's story, told by the program beside the running service.

use std::process::{Command, Output};

use sandbox::{Fault, Kind, Page, Point, When, scenario::Missing};
use serde_json::{Value, json};
use tripwire_sync::{domain::RowId, inbox::State};
use uuid::Uuid;

use crate::{
    program::Launch,
    support::{PATIENCE, Wishes, World, sending},
};

const EMAIL: &str = "aigerim@example.kz";
const NAME: &str = "Айгерим";

async fn explain(world: &World, locale: &str, args: &[&str]) -> Output {
    let inbox = world.inbox_path();
    let mut program = Command::new(env!("CARGO_BIN_EXE_tripwire-sync"));
    program
        .arg("explain")
        .args(args)
        .env_clear()
        .env("LC_ALL", locale)
        .env("TIME_ZONE", "UTC")
        .env("DATABASE_URL", format!("sqlite://{}", inbox.display()))
        .current_dir(inbox.parent().unwrap());
    tokio::task::spawn_blocking(move || program.output())
        .await
        .unwrap()
        .unwrap()
}

/// What a successful call prints; it never repeats whom it is about.
async fn told(world: &World, locale: &str, args: &[&str]) -> String {
    let output = explain(world, locale, args).await;
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{out}{err}");
    assert!(!out.contains(EMAIL) && !out.contains(NAME), "{out}");
    out
}

async fn told_as_json(world: &World, whom: &str) -> Value {
    serde_json::from_str(&told(world, "C", &[whom, "--json"]).await).unwrap()
}

/// The text beside a label.
fn beside<'t>(text: &'t str, label: &str) -> &'t str {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{label} ")));
    line.unwrap_or_else(|| panic!("no line {label:?} in:\n{text}"))
        .trim()
}

async fn synced() -> (World, RowId, String) {
    let mut world = World::prepare(Wishes::default());
    let (pipeline, stage) = (world.setting.pipeline, world.setting.before[0]);
    let deal = world.sandbox.amo.world(|amo| {
        let contact = amo.add_contact(NAME, &[EMAIL], &[]);
        amo.add_deal(&[contact], pipeline, stage, NAME)
    });
    world.launch().await;
    let row = world.insert(&json!({ "email": EMAIL }));
    assert_eq!(world.deliver_as(row, "msg_of_the_story").await, 202);
    world.until_state(row, State::Done).await;
    (world, row, deal.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_of_a_synced_row_says_what_was_chosen_and_done() {
    let (world, row, deal) = synced().await;

    let story = told(&world, "C", &[&row.to_string()]).await;

    assert_eq!(beside(&story, "row"), row.to_string());
    assert!(
        beside(&story, "state").starts_with("done: the deal is in place"),
        "{story}"
    );
    assert_eq!(beside(&story, "deal"), deal);
    assert_eq!(beside(&story, "why this one"), "open");
    assert_eq!(
        beside(&story, "deal's place"),
        "moved from «Заявка» to «Купил продукт» (pipeline «Tripwire»)"
    );
    assert_eq!(beside(&story, "note"), "is there");
    assert_eq!(beside(&story, "failed attempts"), "0");
    assert_eq!(beside(&story, "learnt by"), "webhook msg_of_the_story");
    let (_, history) = story.split_once("\nhistory\n").unwrap();
    assert!(
        history.contains(&format!(
            "deal {deal} chosen: open; moved from «Заявка» to «Купил продукт»; noted; done: synced"
        )),
        "{history}"
    );
    assert!(!story.contains("next attempt"), "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_student_is_found_by_e_mail_as_by_row_in_whatever_case() {
    let (world, row, _) = synced().await;

    let by_row = told_as_json(&world, &row.to_string()).await;
    let by_email = told_as_json(&world, " Aigerim@Example.KZ ").await;

    assert_eq!(by_email, by_row);
    assert_eq!(by_email[0]["outcome"], "synced");
    assert_eq!(by_email[0]["placed"], "moved");
    let history = by_email[0]["history"].as_array().unwrap();
    let last = history.last().unwrap()["text"].as_str().unwrap();
    assert!(last.ends_with("done: synced"), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_story_names_stages_and_leads_to_amocrm() {
    let (world, row, deal) = synced().await;
    let id = row.to_string();
    let contact = world.entry(row).await.unwrap().progress.step.contact();
    let [to_deal, to_contact] = [
        format!("{}/leads/detail/{deal}", world.sandbox.amo.url()),
        format!(
            "{}/contacts/detail/{}",
            world.sandbox.amo.url(),
            contact.unwrap()
        ),
    ];

    let told = Launch::in_world(&world, &["explain", &id])
        .with("LC_ALL", "ru_RU.UTF-8")
        .run()
        .await;
    assert_eq!(beside(&told.out, "сделка в amoCRM"), to_deal, "{told:#?}");
    assert_eq!(beside(&told.out, "контакт в amoCRM"), to_contact);
    let moved = "перенесена с этапа «Заявка» на этап «Купил продукт»";
    assert_eq!(
        beside(&told.out, "этап сделки"),
        format!("{moved} (воронка «Tripwire»)")
    );
    let (_, history) = told.out.split_once("\nистория\n").unwrap();
    assert!(history.contains(&format!("сделка {moved}")), "{history}");

    let told = Launch::in_world(&world, &["explain", &id, "--json"])
        .run()
        .await;
    let story: Value = serde_json::from_str(&told.out).unwrap();
    let links = json!({ "deal": to_deal, "contact": to_contact });
    assert_eq!(story[0]["links"], links);
    // Where the settings say no address.
    let links = json!({ "deal": null, "contact": null });
    assert_eq!(told_as_json(&world, &id).await[0]["links"], links);
}

/// The zone's data is in the program: nothing of the machine is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_are_told_in_the_zone_of_the_settings_and_json_stays_in_utc() {
    let (world, row, _) = synced().await;
    let id = row.to_string();
    let explain = async |zone: &str, args: &[&str], code| {
        let args = [&["explain", id.as_str()], args].concat();
        let ended = Launch::in_world(&world, &args)
            .with("TIME_ZONE", zone)
            .with("TZDIR", "/nowhere")
            .run()
            .await;
        ended.assert_code(code);
        ended
    };
    let stored_at = world.entry(row).await.unwrap().stored_at;
    let almaty = stored_at.in_tz("Asia/Almaty").unwrap();
    let told = explain("Asia/Almaty", &[], 0).await;
    let learnt = almaty.strftime("%F %T UTC+5").to_string();
    assert_eq!(beside(&told.out, "learnt at"), learnt, "{told:#?}");

    let told = explain("Asia/Almaty", &["--json"], 0).await;
    let story: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(story[0]["stored_at"], json!(stored_at));

    let told = explain("Asia/Almatty", &[], 2).await;
    assert!(told.err.contains("TIME_ZONE"), "{told:#?}");
    assert!(told.err.contains("was Asia/Almaty meant?"), "{told:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_russian_reader_gets_the_whole_story_in_russian() {
    let (world, row, deal) = synced().await;

    let story = told(&world, "ru_RU.UTF-8", &[&row.to_string()]).await;

    assert_eq!(beside(&story, "сделка"), deal);
    let (_, history) = story.split_once("\nистория\n").unwrap();
    for line in history.lines() {
        let (_at, text) = line.split_once("  ").unwrap();
        let text = text.replace("msg_of_the_story", "");
        assert!(!text.chars().any(|c| c.is_ascii_alphabetic()), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_of_a_waiting_row_says_for_what_and_until_when() {
    let world = World::start(Wishes {
        missing: Missing::Wait,
        ..Wishes::default()
    })
    .await;
    let row = world.insert(&json!({ "email": EMAIL }));
    assert_eq!(world.deliver(row).await, 202);
    // The first miss is looked at again soon; after the second the next attempt is a day away, scaled.
    let entry = world
        .until(row, "missed twice", |entry| {
            entry.state == State::Waiting
                && entry.reason.as_deref() == Some("ожидает контакт с таким e-mail в amoCRM")
        })
        .await;

    let story = told(&world, "C", &[EMAIL]).await;

    assert_eq!(beside(&story, "row"), row.to_string());
    assert!(beside(&story, "state").starts_with("waiting: "), "{story}");
    assert_eq!(Some(beside(&story, "reason")), entry.reason.as_deref());
    let due = beside(&story, "next attempt").replace(' ', "T");
    assert_eq!(due[..16], entry.due_at.to_string()[..16]);
    beside(&story, "no contact since");
    let told = told_as_json(&world, EMAIL).await;
    assert_eq!(told[0]["next_attempt"], json!(entry.due_at));
    assert_eq!(told[0]["deal"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_of_a_parked_row_says_why_and_what_to_do() {
    let world = World::start(Wishes::default()).await;
    let row = world.insert(&json!({ "email": "nobody" }));
    assert_eq!(world.deliver(row).await, 202);
    world.until_state(row, State::Parked).await;

    let story = told(&world, "C", &[&row.to_string()]).await;

    assert!(
        beside(&story, "state").contains("tripwire-sync retry"),
        "{story}"
    );
    assert_eq!(beside(&story, "reason"), "в строке нет правильного e-mail");
    assert!(!story.contains("next attempt"), "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_of_an_open_row_says_that_sending_is_halted() {
    let mut world = World::prepare(Wishes::default());
    let mut settings = world.settings();
    sending(&mut settings).amocrm.token = "wrong".into();
    world.launch_with(settings).await;
    let row = world.insert(&json!({ "email": EMAIL }));
    assert_eq!(world.deliver(row).await, 202);
    world.until_sync_is("halted").await;
    world.until_state(row, State::Pending).await;

    let story = told(&world, "C", &[&row.to_string()]).await;

    assert!(
        beside(&story, "sending").contains("amocrm_token"),
        "{story}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_inbox_does_not_know_is_said_clearly_and_not_repeated() {
    let world = World::start(Wishes::default()).await;

    for whom in [Uuid::nil().to_string(), EMAIL.to_owned()] {
        let output = explain(&world, "C", &[&whom]).await;
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(
            complaint.starts_with("the inbox knows no row")
                || complaint.starts_with("the inbox does not know"),
            "{complaint}"
        );
        assert!(!complaint.contains(&whom), "{complaint}");
        assert_eq!(output.stdout, b"");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_neither_a_row_nor_an_e_mail_is_misuse_and_not_repeated() {
    let world = World::start(Wishes::default()).await;

    let output = explain(&world, "C", &["aigerim@example"]).await;

    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(!complaint.contains("aigerim"), "{complaint}");
}

/// One look, at the row or at the whole, tells that something is in doubt; `park` decides it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doubt_is_told_from_the_first_refusal_on_and_ended_by_park() {
    let world = World::start(Wishes::default()).await;
    world.student(EMAIL);
    let refused = Kind::Status {
        when: When::Before,
        code: 400,
        page: Page::Json,
        retry_after: None,
    };
    world
        .sandbox
        .faults()
        .add(Fault::always(Point::amo("leads.update"), refused));
    let row = world.insert(&json!({ "email": EMAIL }));
    world.deliver(row).await;
    world.until(row, "refused", |it| it.attempts > 0).await;
    let id = row.to_string();

    let story = told_as_json(&world, &id).await[0].clone();
    assert_eq!(story["refused"]["operation"], "move");
    assert_eq!(story["refused"]["works_for_others"], false);
    let story = told(&world, "ru_RU.UTF-8", &[&id]).await;
    let doubt = beside(&story, "под сомнением");
    assert!(doubt.starts_with("перенос сделки: отказ с"), "{doubt}");
    let checked = Launch::in_world(&world, &["check", "--no-event"])
        .run()
        .await;
    assert!(
        checked.out.contains("in doubt since") && checked.out.contains(&id),
        "{checked:#?}"
    );

    let park = || Launch::in_world(&world, &["park", &id]).run();
    let parked = loop {
        let parked = park().await;
        // A row that is being tried this very moment is not taken out of its run.
        if parked.code == Some(0) {
            break parked;
        }
        assert!(parked.err.contains("this very moment"), "{parked:#?}");
    };
    assert!(parked.out.contains("set aside: 1"), "{parked:#?}");
    world.until_state(row, State::Parked).await;
    park().await.assert_code(1);
    let look = async { while told_as_json(&world, &id).await[0]["refused"] != Value::Null {} };
    let looked = tokio::time::timeout(PATIENCE, look).await;
    assert!(
        looked.is_ok(),
        "the engine forgets what a person has decided"
    );
}
