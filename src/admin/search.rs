//! Finding students: by the id of a row, an e-mail, or the number of a deal or a contact.
//!
//! The e-mail is hashed at once. It is in no address, no log and no answer.

use crate::{
    domain::{Email, KeyedHash, RowId},
    inbox::{Entry, Hasher, Inbox, InboxError},
};

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Row(RowId),
    Person(KeyedHash),
    /// A deal or a contact of amoCRM.
    Number(i64),
}

impl Wanted {
    /// `None`: the text is none of these. A number may be the end of the path of an address in amoCRM.
    pub(super) fn read(text: &str, hasher: &Hasher) -> Option<Self> {
        let text = text.trim();
        if let Ok(row) = text.parse() {
            return Some(Self::Row(row));
        }
        let path = match text.find("://") {
            Some(_) => text.split(['?', '#']).next().unwrap_or_default(),
            None => text,
        };
        let number = path.trim_end_matches('/').rsplit('/').next();
        let number = number.map(|number| number.trim_start_matches(['#', '№', ' ']));
        if let Some(number) = number.and_then(|number| number.parse::<i64>().ok()) {
            return (number > 0).then_some(Self::Number(number));
        }
        let email = Email::parse(text).ok()?;
        Some(Self::Person(hasher.email(&email)))
    }

    /// What the inbox knows of it, the newest change first.
    pub(super) async fn find(self, inbox: &Inbox) -> Result<Vec<Entry>, InboxError> {
        let mut found = match self {
            Self::Row(row) => inbox.entry(row).await?.into_iter().collect(),
            Self::Person(person) => inbox.entries_of(person).await?,
            Self::Number(number) => inbox.entries_with(number).await?,
        };
        found.sort_by_key(|entry| std::cmp::Reverse(entry.updated_at));
        Ok(found)
    }
}
