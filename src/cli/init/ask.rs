//! Where the answers come from: a person at a terminal, or a file.

use std::{collections::BTreeMap, io, path::Path};

use dialoguer::Input;
use secrecy::{ExposeSecret, SecretString};

use super::{
    plan::{self, Kind, LEAVE_OUT, Question, Values},
    words,
};
use crate::{
    cli::terminal::Terminal,
    config::{ConfigErrors, EnvFile},
    words::Lang,
};

/// What follows a wrong answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    AskAgain,
    /// There will be no other answer.
    GoOn,
}

pub(super) trait Ask {
    /// `None`: nothing was answered.
    fn ask(&mut self, question: &Question) -> io::Result<Option<SecretString>>;

    fn tell(&mut self, text: &str);

    /// Reports a wrong answer; see [`words::about_setting`].
    fn wrong(&mut self, name: &str, why: &str) -> Then;

    /// Whether values of the settings' file may be replaced.
    fn may_replace(&mut self, names: &[String]) -> io::Result<bool>;
}

#[derive(Debug)]
pub(super) struct Person<'t> {
    pub(super) terminal: &'t mut Terminal,
}

impl Person<'_> {
    /// A number, or an id.
    fn list(&mut self, choices: &[plan::Choice]) {
        for (number, choice) in (1..).zip(choices) {
            let line = format!("  {number:>3}  {}  ({})", choice.name, choice.id);
            self.terminal.complain(&line);
        }
    }

    fn hidden(&mut self, prompt: &str, question: &Question) -> io::Result<String> {
        let hint = match (question.proposal.is_some(), question.is_optional) {
            (true, true) => self.terminal.pick(
                " (not shown; Enter keeps the present one, - leaves it out)",
                " (не показывается; Enter — оставить прежний, - — убрать)",
            ),
            (true, false) => self.terminal.pick(
                " (not shown; Enter keeps the present one)",
                " (не показывается; Enter — оставить прежний)",
            ),
            (false, true) => self.terminal.pick(
                " (not shown; Enter leaves it out)",
                " (не показывается; Enter — пропустить)",
            ),
            (false, false) => self.terminal.pick(" (not shown)", " (не показывается)"),
        };
        self.terminal.complain(&format!("{prompt}{hint}:"));
        rpassword::read_password()
    }
}

impl Ask for Person<'_> {
    fn ask(&mut self, question: &Question) -> io::Result<Option<SecretString>> {
        let (prompt, help) = words::about(question.name, self.terminal.lang());
        self.terminal.complain(&format!("\n{help}"));
        if let Kind::Choice(choices) = &question.kind {
            self.list(choices);
        }
        let prompt = format!("{prompt} — {}", question.name);
        let text = match question.kind {
            Kind::Hidden => self.hidden(&prompt, question)?,
            Kind::Text | Kind::YesNo | Kind::Choice(_) => {
                let mut input = Input::<String>::new().with_prompt(prompt).allow_empty(true);
                if let Some(proposal) = &question.proposal {
                    input = input.default(proposal.expose_secret().to_owned());
                }
                input.interact_text().map_err(io::Error::from)?
            }
        };
        Ok(Some(text.into()))
    }

    fn tell(&mut self, text: &str) {
        self.terminal.complain(text);
    }

    fn wrong(&mut self, name: &str, why: &str) -> Then {
        let told = words::about_setting(name, why, self.terminal.lang());
        self.terminal.complain(&format!("✗ {told}"));
        Then::AskAgain
    }

    fn may_replace(&mut self, names: &[String]) -> io::Result<bool> {
        let prompt = self
            .terminal
            .pick("Replace in .env: y or n", "Заменить в .env: д или н");
        let question = format!("\n{prompt} ({})", names.join(", "));
        loop {
            let answer = Input::<String>::new()
                .with_prompt(&question)
                .interact_text();
            if let Some(answer) = plan::yes(&answer.map_err(io::Error::from)?) {
                return Ok(answer);
            }
        }
    }
}

/// Lines `NAME=value`. Keeps what is wrong, so that all of it is told at once.
#[derive(Debug)]
pub(super) struct Answers {
    lang: Lang,
    file: BTreeMap<String, SecretString>,
    pub(super) problems: Vec<String>,
    pub(super) told: Vec<String>,
}

impl Answers {
    /// `-` is standard input.
    pub(super) fn read(path: &Path) -> Result<Option<Values>, ConfigErrors> {
        let path = if path.as_os_str() == LEAVE_OUT {
            Path::new("/dev/stdin")
        } else {
            path
        };
        let file = EnvFile::read(path)?;
        Ok(file.map(|file| file.values().clone()))
    }

    pub(super) fn new(values: &Values, lang: Lang) -> Self {
        let secret = |(name, value): (&String, &String)| (name.clone(), value.as_str().into());
        Self {
            lang,
            file: values.iter().map(secret).collect(),
            problems: Vec::new(),
            told: Vec::new(),
        }
    }
}

impl Ask for Answers {
    fn ask(&mut self, question: &Question) -> io::Result<Option<SecretString>> {
        let name = match question.name {
            plan::SUBDOMAIN if self.file.contains_key(plan::BASE_URL) => plan::BASE_URL,
            // The page is on if the file names its token.
            plan::ADMIN => return Ok(Some("n".into())),
            name => name,
        };
        Ok(self.file.get(name).cloned())
    }

    fn tell(&mut self, text: &str) {
        self.told.push(text.to_owned());
    }

    fn wrong(&mut self, name: &str, why: &str) -> Then {
        self.problems
            .push(words::about_setting(name, why, self.lang));
        Then::GoOn
    }

    fn may_replace(&mut self, _names: &[String]) -> io::Result<bool> {
        Ok(false)
    }
}
