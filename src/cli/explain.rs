//! `explain`: the whole history of one student, from the inbox alone.
//!
//! The output never repeats the e-mail that was asked for, since it may be pasted into a chat.

use serde_json::Value;
use url::Url;

use super::{CommandError, Outcome as Told, entries::open, terminal::Terminal};
use crate::{
    config,
    domain::{Email, KeyedHash, RowId},
    inbox::{Entry, Inbox, InboxError},
    story::{self, Links, Story},
};

/// The row or person that is asked for.
#[derive(Debug)]
pub(super) enum Whom {
    Row(RowId),
    Person(Email),
}

impl Whom {
    /// Complains of what is neither.
    pub(super) fn of(text: &str, terminal: &mut Terminal) -> Result<Self, CommandError> {
        if let Ok(row) = text.trim().parse() {
            return Ok(Self::Row(row));
        }
        Email::parse(text).map(Self::Person).map_err(|_| {
            terminal.complain(terminal.pick(
                "this is neither the id of a row nor an e-mail address",
                "это не номер строки и не адрес e-mail",
            ));
            CommandError::Misused
        })
    }

    pub(super) async fn entries(&self, inbox: &Inbox) -> Result<Vec<Entry>, InboxError> {
        match self {
            Self::Row(row) => Ok(inbox.entry(*row).await?.into_iter().collect()),
            Self::Person(email) => inbox.entries_of(inbox.hasher().email(email)).await,
        }
    }

    /// The hash of the e-mail.
    pub(super) fn hash(&self, inbox: &Inbox) -> Option<KeyedHash> {
        match self {
            Self::Row(_) => None,
            Self::Person(email) => Some(inbox.hasher().email(email)),
        }
    }
}

pub(super) async fn run(whom: &str, as_json: bool, terminal: &mut Terminal) -> Told {
    let whom = Whom::of(whom, terminal)?;
    let amocrm = config::amocrm_url();
    let inbox = open(terminal).await?;
    let stories = async { story::read(&inbox, whom.entries(&inbox).await?).await }.await;
    inbox.close().await;
    let stories = stories?;

    if as_json {
        let list = stories.iter().map(|story| story.as_value(amocrm.as_ref()));
        let list: Vec<Value> = list.collect();
        terminal.say(&serde_json::to_string_pretty(&list)?)?;
    } else {
        for (i, story) in stories.iter().enumerate() {
            if i > 0 {
                terminal.say("")?;
            }
            tell(story, amocrm.as_ref(), terminal)?;
        }
    }
    if stories.is_empty() {
        terminal.complain(match whom {
            Whom::Row(_) => terminal.pick(
                "the inbox does not know this row: no webhook came and no sweep saw it, or it was done long ago",
                "такой строки в очереди нет: вебхук о ней не приходил и сверка её не находила, либо она давно обработана",
            ),
            Whom::Person(_) => terminal.pick(
                "the inbox knows no row with this e-mail: none came, or it was not read yet (ask by the row's id), or it was done long ago",
                "строк с таким e-mail в очереди нет: о них ничего не приходило, они ещё не прочитаны (спросите по номеру строки) или давно обработаны",
            ),
        });
        return Err(CommandError::Told);
    }
    Ok(())
}

fn tell(story: &Story, amocrm: Option<&Url>, terminal: &mut Terminal) -> Told {
    let mut lines = story.lines(terminal.reader());
    let Links { deal, contact } = Links::of(&story.entry, amocrm);
    for (label, link) in [
        (terminal.pick("deal in amoCRM", "сделка в amoCRM"), deal),
        (
            terminal.pick("contact in amoCRM", "контакт в amoCRM"),
            contact,
        ),
    ] {
        lines.extend(link.map(|link| (label, link)));
    }
    terminal.pairs("", &lines)?;
    if story.history.is_empty() {
        return Ok(());
    }
    terminal.say(&format!("\n{}", terminal.pick("history", "история")))?;
    for line in &story.history {
        let text = story.told(line, terminal.lang());
        terminal.say(&format!("{}  {text}", terminal.reader().time(line.at)))?;
    }
    Ok(())
}
