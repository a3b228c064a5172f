//! `init`: asks what a service needs, checks each answer against the neighbour at once, and writes `.env`.
//!
//! [`plan`] decides what is asked next and what is written. [`ask`] gives the answers, [`look`] asks the neighbours.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::Args;
use secrecy::SecretString;

use self::{
    ask::{Answers, Ask, Person, Then},
    look::Looks,
    plan::{Fresh, Interview, Seen, Step, Values},
};
use super::{CommandError, Outcome, clock, new_secret, terminal::Terminal};
use crate::config::{self, Config, EnvFile};

mod ask;
mod look;
mod plan;
mod words;

const FILE: &str = ".env";

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Take the answers from a file with lines NAME=value, the names being those of the settings; `-` is a pipe.
    /// Nothing is asked, and nothing is written unless all of it is right
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
}

pub(super) async fn run(options: &Options, terminal: &mut Terminal) -> Outcome {
    let former = EnvFile::read(Path::new(FILE))?;
    let file = former
        .clone()
        .unwrap_or_else(|| EnvFile::empty(terminal.lang()));
    match &options.answers {
        Some(path) => from_file(path, &file, terminal).await,
        None if io::stdin().is_terminal() && io::stderr().is_terminal() => {
            from_person(&file, former.is_some(), terminal).await
        }
        None => {
            terminal.complain(terminal.pick(
                "init asks questions, and this is no terminal: give it the answers with --answers FILE (lines NAME=value; - is a pipe)",
                "`init` задаёт вопросы, а это не терминал: передайте ответы через --answers ФАЙЛ (строки ИМЯ=значение; - означает стандартный ввод)",
            ));
            Err(CommandError::Misused)
        }
    }
}

async fn from_person(file: &EnvFile, is_there: bool, terminal: &mut Terminal) -> Outcome {
    terminal.complain(if is_there {
        terminal.pick(
            ".env is there: its values are proposed, and none is replaced unasked. Ctrl-C leaves it as it is.",
            ".env уже есть: его значения предлагаются и без вопроса не заменяются. Ctrl-C оставит файл как есть.",
        )
    } else {
        terminal.pick(
            "A few questions; each answer is checked at once. .env is written at the end, Ctrl-C writes nothing.",
            "Несколько вопросов; каждый ответ сразу проверяется. Файл .env записывается в конце, Ctrl-C прервёт без записи.",
        )
    });
    let mut interview = interview(file, Values::new(), terminal);
    let mut looks = looks(&interview.values(), terminal);
    let mut person = Person { terminal };
    hold(&mut interview, &mut person, &mut looks).await?;

    let replaced: Vec<String> = interview.replaced().into_iter().collect();
    if !replaced.is_empty() && !person.may_replace(&replaced)? {
        terminal.complain(terminal.pick("Nothing was written.", "Файл не записан."));
        return Err(CommandError::Told);
    }
    write(&interview, file, terminal)?;
    // Of settings that were not asked for.
    if let Err(errors) = Config::from_vars(&interview.values(), false) {
        terminal.complain(&errors.told(terminal.lang()));
    }
    say_what_is_next(&interview.values(), terminal)
}

async fn from_file(path: &Path, file: &EnvFile, terminal: &mut Terminal) -> Outcome {
    let Some(given) = Answers::read(path)? else {
        let text = terminal.pick("there is no such file", "такого файла нет");
        terminal.complain(&format!("{}: {text}", path.display()));
        return Err(CommandError::Misused);
    };
    let (given, unknown): (Values, Values) = given
        .into_iter()
        .partition(|(name, _)| plan::is_setting(name));
    let mut answers = Answers::new(&given, terminal.lang());
    for name in unknown.keys() {
        answers.wrong(
            name,
            terminal.pick("is not a setting", "такой настройки нет"),
        );
    }
    let mut interview = interview(file, given, terminal);
    let mut looks = looks(&interview.values(), terminal);
    hold(&mut interview, &mut answers, &mut looks).await?;
    for name in interview.replaced() {
        answers.wrong(
            &name,
            terminal.pick(
                "has another value in .env, which is not replaced unasked: remove it there, or here",
                "в .env другое значение, без вопроса оно не заменяется: уберите его там или здесь",
            ),
        );
    }
    // Of settings that are not asked for, and of several together.
    if let Err(errors) = Config::from_vars(&interview.values(), false) {
        for problem in errors.problems {
            if !interview.has_failed(&problem.variable) {
                answers.wrong(
                    &problem.variable,
                    &words::wrong_form(&problem, terminal.lang()),
                );
            }
        }
    }
    for line in &answers.told {
        terminal.complain(line);
    }
    if !answers.problems.is_empty() {
        terminal.complain(terminal.pick(
            "These answers are wrong; nothing was written:",
            "Эти ответы не подходят; файл не записан:",
        ));
        for problem in &answers.problems {
            terminal.complain(&format!("  {problem}"));
        }
        return Err(CommandError::Misused);
    }
    write(&interview, file, terminal)?;
    say_what_is_next(&interview.values(), terminal)
}

fn interview(file: &EnvFile, beside: Values, terminal: &Terminal) -> Interview {
    let token = || SecretString::from(BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let zone = config::machine_zone();
    let fresh = Fresh {
        webhook_secret: new_secret().into(),
        admin_token: token(),
        viewer_token: token(),
        today: clock().now().strftime("%Y-%m-%d").to_string(),
        zone: zone.iana_name().unwrap_or("UTC").to_owned(),
    };
    Interview::new(terminal.lang(), fresh, file.values(), beside)
}

fn looks(values: &Values, terminal: &Terminal) -> Looks {
    Looks {
        reader: terminal.reader().clone(),
        inbox_path: Config::inbox_path_from_vars(values).ok(),
        has_asked_amocrm: false,
    }
}

/// Until all is asked and no neighbour objects.
async fn hold(interview: &mut Interview, ask: &mut impl Ask, looks: &mut Looks) -> Outcome {
    while let Some(step) = interview.next() {
        match step {
            Step::Ask(name) => {
                let given = ask.ask(&interview.question(name))?;
                if let Err(why) = interview.answer(name, given)
                    && ask.wrong(name, &why) == Then::GoOn
                {
                    interview.give_up(name);
                }
            }
            Step::Look(neighbour) => {
                let seen = looks.look(neighbour, &interview.values(), ask).await?;
                interview.seen(neighbour, &seen);
                if let Seen::Wrong { names, why } = seen
                    && ask.wrong(&names.join(", "), &why) == Then::GoOn
                {
                    for name in names {
                        interview.give_up(name);
                    }
                }
            }
        }
    }
    Ok(())
}

fn write(interview: &Interview, file: &EnvFile, terminal: &mut Terminal) -> Outcome {
    let changes = interview.changes();
    if changes.is_empty() {
        let text = terminal.pick(
            "\n.env holds all of this already.",
            "\nВ .env всё это уже есть.",
        );
        return Ok(terminal.say(text)?);
    }
    let now = EnvFile::read(Path::new(FILE))?;
    if now.is_some_and(|now| now.text() != file.text()) {
        terminal.complain(terminal.pick(
            "\n.env was changed while the questions were asked: nothing is written; run the command again",
            "\nФайл .env изменён, пока задавались вопросы: ничего не записано; запустите команду ещё раз",
        ));
        return Err(CommandError::Told);
    }
    file.with(&changes)?.save(Path::new(FILE))?;
    let names: Vec<&str> = changes.keys().map(String::as_str).collect();
    let text = terminal.pick(
        "\n.env is written, and only you may read it:",
        "\nФайл .env записан, прочесть его можете только вы:",
    );
    Ok(terminal.say(&format!("{text} {}", names.join(", ")))?)
}

fn say_what_is_next(values: &Values, terminal: &mut Terminal) -> Outcome {
    let has = |name: &str| values.get(name).is_some_and(|value| !value.is_empty());
    let lacks_token = values
        .get(plan::KEY)
        .is_some_and(|key| key.starts_with("sb_publishable_"))
        && !has(plan::JWT);
    let mut steps = vec![
        terminal.pick(
            "deploy the service with this .env (docs/deploy.md); its https address takes the events",
            "разверните сервис с этим .env (docs/deploy.md); на его https-адрес приходят события",
        ),
        terminal.pick(
            "tripwire-sync setup-sql --url https://ADDRESS/webhooks/supabase, then setup-sql --secret: paste each into Supabase's SQL Editor (docs/supabase.md)",
            "tripwire-sync setup-sql --url https://АДРЕС/webhooks/supabase, затем setup-sql --secret: вставьте каждый текст в SQL Editor Supabase (docs/supabase.md)",
        ),
    ];
    if lacks_token {
        steps.push(terminal.pick(
            "tripwire-sync jwt: put the token into SUPABASE_JWT, for the publishable key alone cannot read the table",
            "tripwire-sync jwt: впишите токен в SUPABASE_JWT — с одним публичным ключом таблицу не прочесть",
        ));
    }
    steps.push(terminal.pick(
        "tripwire-sync check: tells what is missing or wrong",
        "tripwire-sync check: покажет, чего не хватает и что не так",
    ));
    terminal.say(terminal.pick("Next:", "Дальше:"))?;
    for (number, step) in (1..).zip(steps) {
        terminal.say(&format!("  {number}. {step}"))?;
    }
    Ok(())
}
