//! What `init` asks, in which order, and what it makes of the answers: without a terminal, a file or a network.

use std::collections::{BTreeMap, BTreeSet};

use amocrm::{Pipeline, PipelineId, StageId};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::words;
use crate::{
    config::{Config, GROUPS},
    words::Lang,
};

pub(super) const BASE_URL: &str = "AMOCRM_BASE_URL";
pub(super) const SUBDOMAIN: &str = "AMOCRM_SUBDOMAIN";
pub(super) const TOKEN: &str = "AMOCRM_ACCESS_TOKEN";
pub(super) const PIPELINE: &str = "AMOCRM_TRIPWIRE_PIPELINE_ID";
pub(super) const STAGE: &str = "AMOCRM_TRIPWIRE_STAGE_BOUGHT_ID";
pub(super) const URL: &str = "SUPABASE_URL";
pub(super) const KEY: &str = "SUPABASE_KEY";
pub(super) const JWT: &str = "SUPABASE_JWT";
pub(super) const SECRET: &str = "WEBHOOK_SECRET";
pub(super) const SINCE: &str = "SYNC_SINCE";
pub(super) const ZONE: &str = "TIME_ZONE";
pub(super) const BOT: &str = "TELEGRAM_BOT_TOKEN";
pub(super) const CHAT: &str = "TELEGRAM_CHAT_ID";
pub(super) const ADMIN: &str = "ADMIN_TOKEN";
pub(super) const VIEWER: &str = "VIEWER_TOKEN";

/// The names of settings with their values.
pub(super) type Values = BTreeMap<String, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Neighbour {
    Amocrm,
    Supabase,
    Telegram,
}

impl Neighbour {
    /// The answers without which the neighbour cannot be asked. The first one names the neighbour's address, or the like.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Amocrm => &[SUBDOMAIN, TOKEN],
            Self::Supabase => &[URL, KEY],
            Self::Telegram => &[BOT, CHAT],
        }
    }
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Ask(&'static str),
    Look(Neighbour),
}

/// In this order, so that a refusal is heard right after the answers that it is about.
const STEPS: &[Step] = &[
    Step::Ask(SUBDOMAIN),
    Step::Ask(TOKEN),
    Step::Look(Neighbour::Amocrm),
    Step::Ask(PIPELINE),
    Step::Ask(STAGE),
    Step::Ask(URL),
    Step::Ask(KEY),
    Step::Ask(JWT),
    Step::Look(Neighbour::Supabase),
    Step::Ask(SINCE),
    Step::Ask(ZONE),
    Step::Ask(BOT),
    Step::Ask(CHAT),
    Step::Look(Neighbour::Telegram),
    Step::Ask(ADMIN),
];

/// May be left out.
const OPTIONAL: [&str; 4] = [JWT, BOT, CHAT, ADMIN];

/// Answers an optional question that has a proposal.
pub(super) const LEAVE_OUT: &str = "-";

/// How an answer is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Not shown while it is typed.
    Hidden,
    YesNo,
    /// One of these, by its id.
    Choice(Vec<Choice>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) id: i64,
    pub(super) name: String,
}

#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Taken if nothing is answered.
    pub(super) proposal: Option<SecretString>,
    pub(super) is_optional: bool,
}

/// Texts that are made, not asked for. Time and chance come from outside.
#[derive(Debug, Clone)]
pub(super) struct Fresh {
    pub(super) webhook_secret: SecretString,
    pub(super) admin_token: SecretString,
    pub(super) viewer_token: SecretString,
    pub(super) today: String,
    /// Of this machine.
    pub(super) zone: String,
}

/// What became of a question.
#[derive(Debug, Clone)]
enum Answer {
    Value(SecretString),
    /// It was left out.
    Nothing,
    /// It was wrong, and is not asked again.
    Wrong,
}

/// What a neighbour said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Good {
        /// Of amoCRM.
        pipelines: Vec<Pipeline>,
    },
    /// These answers are to be given again.
    Wrong {
        names: Vec<&'static str>,
        why: String,
    },
}

/// The answers so far.
#[derive(Debug)]
pub(super) struct Interview {
    lang: Lang,
    fresh: Fresh,
    /// What is in the settings' file.
    known: BTreeMap<String, SecretString>,
    /// What is not asked for, and was given all the same.
    beside: BTreeMap<String, SecretString>,
    answers: BTreeMap<&'static str, Answer>,
    /// Answers that were refused: the next proposals.
    refused: BTreeMap<&'static str, SecretString>,
    pipelines: Vec<Pipeline>,
    looked: Vec<Neighbour>,
}

impl Interview {
    pub(super) fn new(lang: Lang, fresh: Fresh, known: &Values, beside: Values) -> Self {
        let secret = |(name, value): (String, String)| (name, SecretString::from(value));
        let is_set = |(_, value): &(&String, &String)| !value.trim().is_empty();
        // An empty line of a template answers nothing.
        let is_given = |(_, value): &(String, String)| !value.trim().is_empty();
        let known = known
            .iter()
            .filter(is_set)
            .map(|(name, value)| secret((name.clone(), value.clone())));
        Self {
            lang,
            fresh,
            known: known.collect(),
            beside: beside.into_iter().filter(is_given).map(secret).collect(),
            answers: BTreeMap::new(),
            refused: BTreeMap::new(),
            pipelines: Vec::new(),
            looked: Vec::new(),
        }
    }

    /// `None`: all is asked.
    pub(super) fn next(&self) -> Option<Step> {
        STEPS.iter().copied().find(|step| match *step {
            Step::Ask(name) => !self.answers.contains_key(name) && self.is_asked(name),
            Step::Look(neighbour) => {
                let has = |name: &&str| matches!(self.answers.get(*name), Some(Answer::Value(_)));
                !self.looked.contains(&neighbour) && neighbour.needs().iter().all(has)
            }
        })
    }

    fn is_asked(&self, name: &'static str) -> bool {
        match name {
            CHAT => !matches!(self.answers.get(BOT), Some(Answer::Nothing)),
            ADMIN => [&self.known, &self.beside]
                .iter()
                .all(|set| !set.contains_key(ADMIN)),
            _ => true,
        }
    }

    pub(super) fn question(&self, name: &'static str) -> Question {
        let kind = match name {
            TOKEN | KEY | JWT | BOT => Kind::Hidden,
            ADMIN => Kind::YesNo,
            PIPELINE if !self.pipelines.is_empty() => Kind::Choice(self.pipeline_choices()),
            STAGE if !self.pipelines.is_empty() => Kind::Choice(self.stage_choices()),
            _ => Kind::Text,
        };
        let proposal = self.proposal(name).filter(|proposal| match &kind {
            Kind::Choice(choices) => choice(proposal.expose_secret(), choices).is_some(),
            Kind::Text | Kind::Hidden | Kind::YesNo => true,
        });
        Question {
            name,
            kind,
            proposal,
            is_optional: OPTIONAL.contains(&name),
        }
    }

    fn proposal(&self, name: &'static str) -> Option<SecretString> {
        let known = match name {
            SUBDOMAIN => self
                .known
                .get(BASE_URL)
                .or_else(|| self.known.get(SUBDOMAIN)),
            name => self.known.get(name),
        };
        let known = self.refused.get(name).or(known).cloned();
        known.or_else(|| match name {
            SINCE => Some(self.fresh.today.clone().into()),
            ZONE => Some(self.fresh.zone.clone().into()),
            ADMIN => Some(self.lang.pick("y", "д").into()),
            _ => None,
        })
    }

    fn pipeline_choices(&self) -> Vec<Choice> {
        let alive = self
            .pipelines
            .iter()
            .filter(|pipeline| !pipeline.is_archive);
        let choice = |pipeline: &Pipeline| Choice {
            id: pipeline.id.get(),
            name: pipeline.name.clone(),
        };
        alive.map(choice).collect()
    }

    /// Those that a purchase can lead to.
    fn stage_choices(&self) -> Vec<Choice> {
        let chosen = self
            .value(PIPELINE)
            .and_then(|id| id.parse().ok().map(PipelineId::new));
        let pipeline = self
            .pipelines
            .iter()
            .find(|pipeline| Some(pipeline.id) == chosen);
        let stages = pipeline.into_iter().flat_map(|pipeline| &pipeline.stages);
        let possible = stages.filter(|stage| !stage.is_unsorted && stage.id != StageId::LOST);
        let choice = |stage: &amocrm::Stage| Choice {
            id: stage.id.get(),
            name: stage.name.clone(),
        };
        possible.map(choice).collect()
    }

    /// Takes an answer. `Err`: why it is none, in the reader's language.
    pub(super) fn answer(
        &mut self,
        name: &'static str,
        given: Option<SecretString>,
    ) -> Result<(), String> {
        let question = self.question(name);
        let given = given.map(|text| SecretString::from(text.expose_secret().trim()));
        let given = given.filter(|text| !text.expose_secret().is_empty());
        let is_left_out = given
            .as_ref()
            .is_some_and(|text| text.expose_secret() == LEAVE_OUT);
        let given = given
            .or(question.proposal)
            .filter(|_| !(question.is_optional && is_left_out));
        let Some(given) = given else {
            if question.is_optional {
                self.answers.insert(name, Answer::Nothing);
                return Ok(());
            }
            return Err(words::is_needed(self.lang).to_owned());
        };
        let value = self.sound(name, &question.kind, given.expose_secret());
        self.refused.insert(name, given);
        let answer = value?.map_or(Answer::Nothing, |value| Answer::Value(value.into()));
        self.answers.insert(name, answer);
        Ok(())
    }

    /// The value of the setting. `None`: the answer was no.
    fn sound(
        &mut self,
        name: &'static str,
        kind: &Kind,
        given: &str,
    ) -> Result<Option<String>, String> {
        match kind {
            Kind::YesNo => {
                let is_wanted = yes(given).ok_or_else(|| words::yes_or_no(self.lang).to_owned())?;
                let token = || self.fresh.admin_token.expose_secret().to_owned();
                Ok(is_wanted.then(token))
            }
            Kind::Choice(choices) => match choice(given, choices) {
                Some(id) => Ok(Some(id.to_string())),
                None => Err(words::no_choice(choices, self.lang)),
            },
            Kind::Text | Kind::Hidden if name == SUBDOMAIN => {
                let (setting, value) = account(given);
                well_formed(setting, &value, self.lang)?;
                Ok(Some(value))
            }
            Kind::Text | Kind::Hidden => {
                well_formed(name, given, self.lang)?;
                Ok(Some(given.to_owned()))
            }
        }
    }

    /// The answer was wrong, and there will be no other.
    pub(super) fn give_up(&mut self, name: &'static str) {
        self.answers.insert(name, Answer::Wrong);
    }

    /// Whether the answer was wrong, and the reason is told.
    pub(super) fn has_failed(&self, name: &str) -> bool {
        let name = if name == BASE_URL { SUBDOMAIN } else { name };
        matches!(self.answers.get(name), Some(Answer::Wrong))
    }

    /// Takes what a neighbour said.
    pub(super) fn seen(&mut self, neighbour: Neighbour, seen: &Seen) {
        match seen {
            Seen::Good { pipelines } => {
                self.looked.push(neighbour);
                if neighbour == Neighbour::Amocrm {
                    self.pipelines.clone_from(pipelines);
                }
            }
            Seen::Wrong { names, .. } => {
                for name in names {
                    self.answers.remove(name);
                }
            }
        }
    }

    fn value(&self, name: &str) -> Option<&str> {
        match self.answers.get(name)? {
            Answer::Value(value) => Some(value.expose_secret()),
            Answer::Nothing | Answer::Wrong => None,
        }
    }

    /// Every setting that is to have a value, as far as the answers go. It may lack some.
    pub(super) fn values(&self) -> Values {
        let plain = |(name, value): (&String, &SecretString)| {
            (name.clone(), value.expose_secret().to_owned())
        };
        let mut values: Values = self.known.iter().map(plain).collect();
        values.extend(self.beside.iter().map(plain));
        for (name, answer) in &self.answers {
            let value = match answer {
                Answer::Value(value) => value.expose_secret(),
                Answer::Nothing => {
                    // A chat is of no use without its bot.
                    let names = if *name == BOT {
                        &[BOT, CHAT][..]
                    } else {
                        &[*name]
                    };
                    for name in names
                        .iter()
                        .filter(|name| !self.beside.contains_key(**name))
                    {
                        values.entry((*name).to_owned()).and_modify(String::clear);
                    }
                    continue;
                }
                Answer::Wrong => continue,
            };
            if *name == SUBDOMAIN {
                let (setting, value) = account(value);
                if setting == SUBDOMAIN && values.contains_key(BASE_URL) {
                    // It would win over the subdomain.
                    values.insert(BASE_URL.to_owned(), String::new());
                }
                values.insert(setting.to_owned(), value);
            } else {
                values.insert((*name).to_owned(), value.to_owned());
            }
        }
        if self.value(ADMIN).is_some() {
            let viewer = self.fresh.viewer_token.expose_secret();
            values
                .entry(VIEWER.to_owned())
                .or_insert_with(|| viewer.to_owned());
        }
        if !values.contains_key("WEBHOOK_BEARER_TOKEN") {
            let secret = self.fresh.webhook_secret.expose_secret();
            values
                .entry(SECRET.to_owned())
                .or_insert_with(|| secret.to_owned());
        }
        values
    }

    /// What is to be written: values that differ from those of the file.
    pub(super) fn changes(&self) -> Values {
        let known = |name: &str| {
            self.known
                .get(name)
                .map_or("", |value| value.expose_secret())
        };
        let mut values = self.values();
        values.retain(|name, value| known(name).trim() != value.as_str());
        values
    }

    /// Which of the changes replace a value.
    pub(super) fn replaced(&self) -> BTreeSet<String> {
        let changes = self.changes().into_keys();
        changes
            .filter(|name| self.known.contains_key(name))
            .collect()
    }
}

/// The setting that tells where the account is, and its value. A person may paste the address of the page that is open.
fn account(answer: &str) -> (&'static str, String) {
    if !answer.contains(['.', ':', '/']) {
        return (SUBDOMAIN, answer.to_owned());
    }
    let with_scheme = if answer.contains("://") {
        answer.to_owned()
    } else {
        format!("https://{answer}")
    };
    let Ok(url) = Url::parse(&with_scheme) else {
        return (BASE_URL, answer.to_owned());
    };
    let host = url.host_str().unwrap_or_default();
    match host.strip_suffix(".amocrm.ru") {
        Some(name) if url.scheme() == "https" && !name.contains('.') => {
            (SUBDOMAIN, name.to_owned())
        }
        // Without path and query.
        _ => (BASE_URL, url.origin().ascii_serialization()),
    }
}

fn well_formed(name: &str, value: &str, lang: Lang) -> Result<(), String> {
    match Config::wrong_form(name, value) {
        Some(problem) => Err(words::wrong_form(&problem, lang)),
        None => Ok(()),
    }
}

/// By id, or by number in the list.
fn choice(given: &str, choices: &[Choice]) -> Option<i64> {
    let given: i64 = given.parse().ok()?;
    let by_id = choices.iter().find(|choice| choice.id == given);
    let position = usize::try_from(given)
        .ok()
        .and_then(|number| number.checked_sub(1));
    let chosen = by_id.or_else(|| choices.get(position?));
    chosen.map(|choice| choice.id)
}

pub(super) fn yes(given: &str) -> Option<bool> {
    match given.to_lowercase().as_str() {
        "y" | "yes" | "д" | "да" => Some(true),
        "n" | "no" | "н" | "нет" => Some(false),
        _ => None,
    }
}

/// Whether a name is one that may stand in a file of answers.
pub(super) fn is_setting(name: &str) -> bool {
    GROUPS
        .iter()
        .flat_map(|group| group.settings)
        .any(|setting| setting.name == name)
}

#[cfg(test)]
mod tests {
    use amocrm::Stage;

    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        pairs.collect()
    }

    fn interview(known: &[(&str, &str)], beside: &[(&str, &str)]) -> Interview {
        let fresh = Fresh {
            webhook_secret: "whsec_new".into(),
            admin_token: "admin".into(),
            viewer_token: "viewer".into(),
            today: "2026-12-01".to_owned(),
            zone: "Asia/Almaty".to_owned(),
        };
        Interview::new(Lang::English, fresh, &values(known), values(beside))
    }

    fn stage(id: i64, name: &str, is_unsorted: bool) -> Stage {
        let (name, id) = (name.to_owned(), StageId::new(id));
        Stage {
            id,
            name,
            sort: 1,
            is_unsorted,
        }
    }

    fn account_seen() -> Seen {
        let pipeline = |id, is_archive| Pipeline {
            id: PipelineId::new(id),
            name: format!("pipeline {id}"),
            is_archive,
            stages: vec![
                stage(310, "Incoming", true),
                stage(311, "New", false),
                stage(312, "Bought", false),
                stage(142, "Won", false),
                stage(143, "Lost", false),
            ],
            is_whole: true,
        };
        Seen::Good {
            pipelines: vec![pipeline(31, false), pipeline(32, true), pipeline(33, false)],
        }
    }

    const GOOD: Seen = Seen::Good {
        pipelines: Vec::new(),
    };

    fn seen(neighbour: Neighbour) -> Seen {
        if neighbour == Neighbour::Amocrm {
            account_seen()
        } else {
            GOOD
        }
    }

    /// What a person answers, by name; Enter where there is nothing.
    fn play(interview: &mut Interview, answers: &[(&'static str, &str)]) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(step) = interview.next() {
            steps.push(step);
            match step {
                Step::Ask(name) => {
                    let given = answers.iter().find(|(of, _)| *of == name);
                    let given = given.map(|(_, answer)| SecretString::from(*answer));
                    if let Err(why) = interview.answer(name, given) {
                        panic!("{name} {why}");
                    }
                }
                Step::Look(neighbour) => interview.seen(neighbour, &seen(neighbour)),
            }
        }
        steps
    }

    const ANSWERS: &[(&str, &str)] = &[
        (SUBDOMAIN, " school "),
        (TOKEN, "amo-token"),
        (PIPELINE, "2"),
        (STAGE, "312"),
        (URL, "https://abcdefghijklmnopqrst.supabase.co"),
        (KEY, "sb_secret_x1"),
    ];

    #[test]
    fn each_neighbour_is_asked_right_after_the_answers_about_it() {
        use Neighbour::{Amocrm, Supabase, Telegram};
        let mut alone = interview(&[], &[]);
        let steps = play(&mut alone, ANSWERS);
        assert_eq!(
            steps,
            [
                Step::Ask(SUBDOMAIN),
                Step::Ask(TOKEN),
                Step::Look(Amocrm),
                Step::Ask(PIPELINE),
                Step::Ask(STAGE),
                Step::Ask(URL),
                Step::Ask(KEY),
                Step::Ask(JWT),
                Step::Look(Supabase),
                Step::Ask(SINCE),
                Step::Ask(ZONE),
                Step::Ask(BOT),
                Step::Ask(ADMIN),
            ]
        );
        let answers = [ANSWERS, &[(BOT, "1:aa"), (CHAT, "7"), (ADMIN, "n")]].concat();
        let mut with_alerts = interview(&[], &[]);
        let steps = play(&mut with_alerts, &answers);
        assert_eq!(
            steps[11..],
            [
                Step::Ask(BOT),
                Step::Ask(CHAT),
                Step::Look(Telegram),
                Step::Ask(ADMIN)
            ]
        );

        let wanted = values(&[
            (SUBDOMAIN, "school"),
            (TOKEN, "amo-token"),
            (PIPELINE, "33"),
            (STAGE, "312"),
            (URL, "https://abcdefghijklmnopqrst.supabase.co"),
            (KEY, "sb_secret_x1"),
            (SECRET, "whsec_new"),
            (SINCE, "2026-12-01"),
            (ZONE, "Asia/Almaty"),
            (BOT, "1:aa"),
            (CHAT, "7"),
        ]);
        assert_eq!(with_alerts.changes(), wanted);
        let changes = alone.changes();
        assert_eq!(
            (changes[ADMIN].as_str(), changes[VIEWER].as_str()),
            ("admin", "viewer")
        );
    }

    #[test]
    fn what_is_in_the_file_is_proposed_and_stays() {
        let known = [
            ANSWERS,
            &[
                (SUBDOMAIN, "school"),
                (PIPELINE, "33"),
                (SECRET, "whsec_old"),
                (SINCE, "2026-01-01"),
                (ZONE, "Europe/Moscow"),
                (BOT, "1:aa"),
                (CHAT, "7"),
                (ADMIN, "mine"),
                ("OTHER", "x"),
            ],
        ]
        .concat();
        let mut same = interview(&known, &[]);
        play(&mut same, &[]);
        assert_eq!(same.changes(), Values::new());

        let mut other = interview(&known, &[]);
        play(&mut other, &[(TOKEN, "another"), (BOT, LEAVE_OUT)]);
        assert_eq!(
            other.changes(),
            values(&[(TOKEN, "another"), (BOT, ""), (CHAT, "")])
        );
        assert_eq!(
            other.replaced(),
            [TOKEN, BOT, CHAT].map(str::to_owned).into()
        );

        // A pipeline that the account no longer has is not proposed.
        let mut gone = interview(&[(PIPELINE, "32")], &[]);
        gone.seen(Neighbour::Amocrm, &account_seen());
        assert!(gone.question(PIPELINE).proposal.is_none());
    }

    #[test]
    fn only_stages_that_a_purchase_leads_to_can_be_chosen() {
        let mut it = interview(&[], &[]);
        it.seen(Neighbour::Amocrm, &account_seen());
        let ids = |question: Question| match question.kind {
            Kind::Choice(choices) => choices.iter().map(|choice| choice.id).collect::<Vec<_>>(),
            kind => panic!("{kind:?}"),
        };
        assert_eq!(ids(it.question(PIPELINE)), [31, 33]);
        assert!(
            it.answer(PIPELINE, Some("32".into())).is_err(),
            "in the archive"
        );
        assert!(it.answer(PIPELINE, Some("31".into())).is_ok());
        assert_eq!(ids(it.question(STAGE)), [311, 312, 142]);
        for (given, is_good) in [
            ("310", false),
            ("143", false),
            ("0", false),
            ("4", false),
            ("x", false),
            ("3", true),
            ("311", true),
        ] {
            assert_eq!(
                it.answer(STAGE, Some(given.into())).is_ok(),
                is_good,
                "{given}"
            );
        }
    }

    #[test]
    fn a_refused_answer_is_asked_again_and_proposed() {
        let mut it = interview(&[], &[]);
        for (name, answer) in &ANSWERS[..2] {
            it.answer(name, Some((*answer).into())).unwrap();
        }
        let wrong = Seen::Wrong {
            names: vec![TOKEN],
            why: "refused".to_owned(),
        };
        it.seen(Neighbour::Amocrm, &wrong);
        assert_eq!(it.next(), Some(Step::Ask(TOKEN)));
        let proposal = it.question(TOKEN).proposal.unwrap();
        assert_eq!(proposal.expose_secret(), "amo-token");
        it.answer(TOKEN, Some("better".into())).unwrap();
        assert_eq!(it.next(), Some(Step::Look(Neighbour::Amocrm)));

        // From a file there is no other answer: what depends on it is left out.
        it.give_up(TOKEN);
        assert_eq!(it.next(), Some(Step::Ask(PIPELINE)));
        assert!(it.has_failed(TOKEN));
    }

    #[test]
    fn an_answer_of_the_wrong_form_is_none() {
        let mut it = interview(&[], &[]);
        for (name, given) in [
            (SUBDOMAIN, "two words"),
            (TOKEN, "Bearer x"),
            (URL, "postgres://x"),
            (SINCE, "soon"),
            (BOT, "x"),
            (JWT, "x"),
            (PIPELINE, "-1"),
            (ADMIN, "perhaps"),
            (KEY, ""),
            (PIPELINE, ""),
        ] {
            let why = it.answer(name, Some(given.into())).unwrap_err();
            assert!(
                !why.is_empty() && (given.len() < 3 || !why.contains(given)),
                "{name}: {why}"
            );
            assert!(!it.answers.contains_key(name));
        }
    }

    #[test]
    fn an_account_is_told_from_whatever_address_is_pasted() {
        for (given, setting, value) in [
            ("school", SUBDOMAIN, "school"),
            ("school.amocrm.ru", SUBDOMAIN, "school"),
            (
                "https://school.amocrm.ru/leads/pipeline/31?x=1",
                SUBDOMAIN,
                "school",
            ),
            (
                "https://school.kommo.com/",
                BASE_URL,
                "https://school.kommo.com",
            ),
            ("school.amocrm.com", BASE_URL, "https://school.amocrm.com"),
            ("http://127.0.0.1:4000", BASE_URL, "http://127.0.0.1:4000"),
            ("a.b.amocrm.ru", BASE_URL, "https://a.b.amocrm.ru"),
        ] {
            assert_eq!(account(given), (setting, value.to_owned()), "{given}");
        }
        let mut it = interview(&[(BASE_URL, "https://school.kommo.com")], &[]);
        let proposal = it.question(SUBDOMAIN).proposal.unwrap();
        assert_eq!(proposal.expose_secret(), "https://school.kommo.com");
        it.answer(SUBDOMAIN, Some("school".into())).unwrap();
        let changes = it.values();
        assert_eq!(
            (changes[BASE_URL].as_str(), changes[SUBDOMAIN].as_str()),
            ("", "school")
        );
    }

    #[test]
    fn every_question_has_words_in_both_languages() {
        for step in STEPS {
            if let Step::Ask(name) = step {
                let (english, russian) = (
                    words::about(name, Lang::English),
                    words::about(name, Lang::Russian),
                );
                assert!(
                    !english.0.is_empty() && english.0 != russian.0 && english.1 != russian.1,
                    "{name}"
                );
            }
        }
    }
}
