//! `demo`: the whole main job on this machine, against the emulators of amoCRM and PostgREST.
//!
//! Reads no environment and no `.env`, and talks to 127.0.0.1 only.

mod render;

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sandbox::{
    AmoQuirks, DealId, PipelineId, PostgrestQuirks, Recorded, Sandbox, StageId, WebhookTarget,
    scenario::{Scenario, Setting},
};
use secrecy::SecretString;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use self::render::{tell_deal, tell_requests};
use super::{
    CommandError, Outcome, clock, entries::state_in_words, new_secret, sandbox::variables,
    terminal::Terminal, told_to_stop,
};
use crate::{
    app::{App, Settings},
    config::Config,
    inbox::State,
    telemetry,
};

/// The rate that amoCRM allows. The demo shows that the service uses all of it.
const REQUESTS_PER_SECOND: u32 = 7;
const SETTLE_DELAY: &str = "500ms";
/// How often the demo looks whether something has happened.
const GLANCE: Duration = Duration::from_millis(20);
/// One row takes about two seconds.
const PATIENCE: Duration = Duration::from_mins(1);
const SEED: u64 = 20_261_122;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Sync this many mixed rows at once and show the progress
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rows: Option<u32>,
    /// Leave everything running, and print the addresses
    #[arg(long)]
    keep: bool,
}

/// Where bought deals go in the sandbox, with names.
struct Shop {
    pipeline: PipelineId,
    bought: StageId,
    names: BTreeMap<StageId, String>,
}

/// The operator page of this demo: its tokens are good for nothing else.
struct OperatorPage {
    admin_token: String,
    viewer_token: String,
}

impl OperatorPage {
    fn new() -> Self {
        let token = || Uuid::new_v4().simple().to_string();
        Self {
            admin_token: token(),
            viewer_token: token(),
        }
    }
}

/// The service with both neighbours.
struct Stage {
    sandbox: Sandbox,
    app: App,
    secret: String,
    page: OperatorPage,
    /// Gone when the demo ends.
    _folder: tempfile::TempDir,
}

pub(super) async fn run(options: &Options, terminal: &mut Terminal) -> Outcome {
    telemetry::init_logging(telemetry::LogFormat::Pretty, Some("warn"))?;
    if options.keep {
        return show(options, terminal).await;
    }
    let told_to_stop = told_to_stop()?;
    tokio::select! {
        outcome = show(options, terminal) => outcome,
        // The other future is dropped, and the temporary folder with it.
        () = told_to_stop => Err(CommandError::Told),
    }
}

async fn show(options: &Options, terminal: &mut Terminal) -> Outcome {
    match options.rows {
        None => one_row(options.keep, terminal).await,
        Some(rows) => many_rows(rows, options.keep, terminal).await,
    }
}

impl Stage {
    async fn set(
        sandbox: Sandbox,
        pipeline: PipelineId,
        bought: StageId,
    ) -> Result<Self, CommandError> {
        let folder = tempfile::tempdir()?;
        let secret = new_secret();
        let page = OperatorPage::new();
        let mut settings = settings(&sandbox, pipeline, bought, &secret, &page)?;
        settings.inbox_path = folder.path().join("inbox.db");
        let app = App::start(settings, clock(), telemetry::install_metrics()?).await?;
        sandbox.postgrest.on_insert(WebhookTarget {
            url: format!("http://{}/webhooks/supabase", app.address),
            secret: SecretString::from(secret.clone()),
        });
        Ok(Self {
            sandbox,
            app,
            secret,
            page,
            _folder: folder,
        })
    }

    async fn end(self, keep: bool, terminal: &mut Terminal) -> Outcome {
        if keep {
            self.tell_addresses(terminal)?;
            self.app.run_until(told_to_stop()?).await?;
        } else {
            self.app.run_until(std::future::ready(())).await?;
        }
        self.sandbox.stop().await;
        Ok(())
    }

    fn tell_addresses(&self, terminal: &mut Terminal) -> std::io::Result<()> {
        terminal.say("")?;
        terminal.say(terminal.pick(
            "Left running; Ctrl-C ends it.",
            "Всё продолжает работать; остановить — Ctrl-C.",
        ))?;
        let http = |address| format!("http://{address}");
        let metrics = format!("{}/metrics", http(self.app.metrics_address));
        let (amo, postgrest) = (&self.sandbox.amo, &self.sandbox.postgrest);
        let pairs = [
            (
                terminal.pick("operator page", "страница оператора"),
                format!("{}/admin", http(self.app.address)),
            ),
            (
                terminal.pick("its token", "её токен"),
                self.page.admin_token.clone(),
            ),
            (
                terminal.pick("view only", "токен для просмотра"),
                self.page.viewer_token.clone(),
            ),
            (terminal.pick("service", "сервис"), http(self.app.address)),
            (terminal.pick("metrics", "метрики"), metrics),
            ("amoCRM", amo.url()),
            (terminal.pick("amoCRM token", "токен amoCRM"), amo.token()),
            ("PostgREST", postgrest.url()),
            (
                terminal.pick("PostgREST key", "ключ PostgREST"),
                postgrest.key(),
            ),
            (
                terminal.pick("webhook secret", "секрет вебхука"),
                self.secret.clone(),
            ),
        ];
        terminal.pairs("  ", &pairs)
    }
}

/// The settings of a service beside this sandbox. A variable that is not named here has its default: the environment is not read.
fn settings(
    sandbox: &Sandbox,
    pipeline: PipelineId,
    bought: StageId,
    secret: &str,
    page: &OperatorPage,
) -> Result<Settings, CommandError> {
    let any_port = || "127.0.0.1:0".to_owned();
    let mut variables = variables(sandbox, pipeline, bought, secret);
    variables.extend([
        ("BIND_ADDR", any_port()),
        ("METRICS_ADDR", any_port()),
        ("SETTLE_DELAY", SETTLE_DELAY.to_owned()),
        (
            "AMOCRM_REQUESTS_PER_SECOND",
            REQUESTS_PER_SECOND.to_string(),
        ),
        ("ADMIN_TOKEN", page.admin_token.clone()),
        ("VIEWER_TOKEN", page.viewer_token.clone()),
    ]);
    let variables = variables.into_iter();
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let mut settings = Settings::from_config(&Config::from_vars(&variables.collect(), false)?);
    if let Some(sending) = &mut settings.sending {
        // No request has gone to this amoCRM yet.
        sending.amocrm.assume_full_window = false;
        sending.sync.inspect_every = None;
    }
    if let Some(operator_page) = &mut settings.operator_page {
        // This amoCRM has no pages.
        operator_page.amocrm = None;
    }
    settings.self_test = None;
    settings.tells_systemd = false;
    Ok(settings)
}

// ---- one row ----

async fn one_row(keep: bool, terminal: &mut Terminal) -> Outcome {
    let sandbox = Sandbox::start(AmoQuirks::default(), PostgrestQuirks::default())?;
    let (shop, deal) = open_shop(&sandbox);
    let stage = Stage::set(sandbox, shop.pipeline, shop.bought).await?;

    terminal.say(terminal.pick(
        "A student pays. In amoCRM there is a deal with her e-mail:",
        "Ученица оплатила курс. В amoCRM есть сделка с её e-mail:",
    ))?;
    tell_deal(&stage.sandbox, &shop, deal, terminal)?;
    terminal.say("")?;
    terminal.say(terminal.pick(
        "The manager creates the student: a row appears, its trigger signs and posts a webhook.",
        "Менеджер заводит ученицу: появляется строка, триггер подписывает и шлёт вебхук.",
    ))?;

    let began = Instant::now();
    let row = stage.sandbox.postgrest.insert_row(&json!({
        "id": Uuid::new_v4(),
        "email": "Aigerim.Omarova@Example.kz",
        "full_name": "Айгерим Омарова",
        "phone": "+7 701 234 56 78",
        "price": 5000,
        "status": "active",
        "manager_name": "Данияр",
        "created_at": clock().now(),
    }));
    let mut told = 0;
    while deal_id_of(&stage.sandbox, row).is_none() {
        told = tell_requests(&stage.sandbox, told, terminal)?;
        if began.elapsed() > PATIENCE {
            terminal.complain(terminal.pick(
                "the row did not get its deal in time",
                "строка не получила сделку вовремя",
            ));
            return Err(CommandError::Told);
        }
        tokio::time::sleep(GLANCE).await;
    }
    tell_requests(&stage.sandbox, told, terminal)?;

    terminal.say("")?;
    terminal.say(terminal.pick(
        "The deal now, with its note:",
        "Сделка теперь, с примечанием:",
    ))?;
    tell_deal(&stage.sandbox, &shop, deal, terminal)?;
    terminal.say("")?;
    terminal.say(terminal.pick("The row now:", "Строка теперь:"))?;
    let patched = stage.sandbox.postgrest.row(row).unwrap_or_default();
    for column in ["id", "amocrm_deal_id", "amocrm_contact_id"] {
        let value = patched
            .get(column)
            .map(ToString::to_string)
            .unwrap_or_default();
        terminal.say(&format!("  {column:<18} {value}"))?;
    }
    terminal.say("")?;
    let done = terminal.pick("Done in", "Готово за");
    let second = terminal.pick("s", "с");
    terminal.say(&format!(
        "{done} {:.1} {second}",
        began.elapsed().as_secs_f64()
    ))?;
    if keep {
        add_unfinished(&stage, terminal).await?;
    }
    stage.end(keep, terminal).await
}

/// Two more students, so that the operator page has one of each kind to show: of one the e-mail is wrong, the other one has no
/// contact in amoCRM yet.
async fn add_unfinished(stage: &Stage, terminal: &mut Terminal) -> Outcome {
    terminal.say("")?;
    terminal.say(terminal.pick(
        "Two more students come: one with a wrong e-mail, one whom amoCRM does not know yet.",
        "Добавлены ещё два ученика: у одного e-mail с ошибкой, другого ещё нет в amoCRM.",
    ))?;
    for (name, email) in [
        ("Тимур Касымов", "timur.kasymov(at)example.kz"),
        ("Дана Ахметова", "dana.akhmetova@example.kz"),
    ] {
        stage.sandbox.postgrest.insert_row(&json!({
            "id": Uuid::new_v4(),
            "email": email,
            "full_name": name,
            "status": "active",
            "manager_name": "Данияр",
            "created_at": clock().now(),
        }));
    }
    let began = Instant::now();
    let counts = loop {
        let counts = stage.app.inbox.counts().await?;
        let is_there = |state| counts.by_state.get(&state).is_some_and(|count| *count > 0);
        if (is_there(State::Parked) && is_there(State::Waiting)) || began.elapsed() > PATIENCE {
            break counts;
        }
        tokio::time::sleep(GLANCE).await;
    };
    let count = |state| counts.by_state.get(&state).copied().unwrap_or_default();
    let (done, waiting, parked) = (
        count(State::Done),
        count(State::Waiting),
        count(State::Parked),
    );
    terminal.say(&terminal.pick(
        format!("  done {done}, waiting for a contact {waiting}, parked {parked}"),
        format!("  готово {done}, ожидает контакт {waiting}, отложено {parked}"),
    ))?;
    Ok(())
}

fn open_shop(sandbox: &Sandbox) -> (Shop, DealId) {
    sandbox.amo.world(|world| {
        let names = ["Новая заявка", "Связались", "Купил продукт", "Учится"];
        let tripwire = world.add_pipeline("Tripwire", &names);
        let names = world
            .pipeline(tripwire.id)
            .map(|pipeline| {
                pipeline
                    .stages
                    .iter()
                    .map(|stage| (stage.id, stage.name.clone()))
                    .collect()
            })
            .unwrap_or_default();
        // The search answers with this one too: its address contains hers.
        let lookalike =
            world.add_contact("Мадина Сагитова", &["not.aigerim.omarova@example.kz"], &[]);
        world.add_deal(
            &[lookalike],
            tripwire.id,
            tripwire.stages[0],
            "Заявка с сайта",
        );
        let contact = world.add_contact(
            "Айгерим Омарова",
            &["aigerim.omarova@example.kz"],
            &["+77012345678"],
        );
        let deal = world.add_deal(
            &[contact],
            tripwire.id,
            tripwire.stages[1],
            "Заявка с сайта",
        );
        (
            Shop {
                pipeline: tripwire.id,
                bought: tripwire.stages[2],
                names,
            },
            deal,
        )
    })
}

fn deal_id_of(sandbox: &Sandbox, row: Uuid) -> Option<String> {
    Some(
        sandbox
            .postgrest
            .row(row)?
            .get("amocrm_deal_id")?
            .as_str()?
            .to_owned(),
    )
}

// ---- many rows ----

async fn many_rows(rows: u32, keep: bool, terminal: &mut Terminal) -> Outcome {
    let sandbox = Sandbox::start(AmoQuirks::default(), PostgrestQuirks::default())?;
    let setting = Setting::build(&sandbox.amo);
    let stage = Stage::set(sandbox, setting.pipeline, setting.target).await?;

    let began = Instant::now();
    let count = usize::try_from(rows).unwrap_or(usize::MAX);
    let scenario = Scenario::mixed(
        SEED,
        count,
        &stage.sandbox.amo,
        &stage.sandbox.postgrest,
        &setting,
    );
    terminal.say(&terminal.pick(
        format!("{rows} rows inserted; syncing at {REQUESTS_PER_SECOND} requests a second"),
        format!(
            "добавлено строк: {rows}; обработка идёт, запросов в секунду: {REQUESTS_PER_SECOND}"
        ),
    ))?;
    let everything_ended = watch(&stage, u64::from(rows), terminal).await?;

    let violations = scenario.verify();
    let counts = stage.app.inbox.counts().await?;
    let by_state: Vec<String> = counts
        .each()
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{} {count}", state_in_words(state, terminal)))
        .collect();
    terminal.say("")?;
    let seconds = began.elapsed().as_secs_f64();
    let second = terminal.pick("s", "с");
    let pairs = [
        (
            terminal.pick("time", "время"),
            format!("{seconds:.1} {second}"),
        ),
        (terminal.pick("entries", "записи"), by_state.join(", ")),
        (
            terminal.pick("amoCRM requests", "запросов к amoCRM"),
            requests_in_words(&stage.sandbox, rows, terminal),
        ),
        (
            terminal.pick("rows not right", "неверных строк"),
            violations.len().to_string(),
        ),
    ];
    terminal.pairs("  ", &pairs)?;
    for violation in &violations {
        terminal.complain(violation);
    }
    stage.end(keep, terminal).await?;
    if violations.is_empty() && everything_ended {
        Ok(())
    } else {
        Err(CommandError::Told)
    }
}

fn requests_in_words(sandbox: &Sandbox, rows: u32, terminal: &Terminal) -> String {
    let requests = sandbox.amo.requests();
    let is_refused = |request: &&Recorded| request.status == Some(429);
    let refused = requests.iter().filter(is_refused).count();
    let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
    let per_row = f64::from(count) / f64::from(rows);
    let most = sandbox.amo.max_in_any_second();
    terminal.pick(
        format!("{count} ({per_row:.2} per row, at most {most} in any second, {refused} refused with 429)"),
        format!("{count} (на строку {per_row:.2}, за любую секунду не больше {most}, отказов 429: {refused})"),
    )
}

/// Shows the progress until every row is done, waits for its contact, or is parked. `false`: it took too long.
async fn watch(stage: &Stage, rows: u64, terminal: &mut Terminal) -> Result<bool, CommandError> {
    let on_terminal = std::io::stderr().is_terminal();
    let bar = if on_terminal {
        ProgressBar::new(rows)
    } else {
        ProgressBar::hidden()
    };
    let template = terminal.pick(
        "{bar:40} {pos}/{len}  {per_sec}  ETA {eta}",
        "{bar:40} {pos}/{len}  {per_sec}  осталось {eta}",
    );
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let patience = PATIENCE + Duration::from_secs(rows);
    let second = terminal.pick("s", "с");
    let began = Instant::now();
    let mut next_line = began + Duration::from_secs(2);
    loop {
        let counts = stage.app.inbox.counts().await?;
        let ended: u64 = [State::Done, State::Waiting, State::Parked]
            .iter()
            .filter_map(|state| counts.by_state.get(state))
            .sum();
        bar.set_position(ended);
        if !on_terminal && (Instant::now() >= next_line || ended >= rows) {
            next_line = Instant::now() + Duration::from_secs(2);
            terminal.say(&format!(
                "  {:>5.1} {second}  {ended}/{rows}",
                began.elapsed().as_secs_f64()
            ))?;
        }
        if ended >= rows || began.elapsed() > patience {
            bar.finish_and_clear();
            return Ok(ended >= rows);
        }
        tokio::time::sleep(GLANCE).await;
    }
}
