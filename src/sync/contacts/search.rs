//! Searches for contacts, in parallel.

use amocrm::{AmoError, Search};

use super::super::{
    batch::{Batch, at_once},
    row::{Ended, InHand},
};
use crate::{
    domain::{Email, Operation, Phone},
    inbox::{Fact, InboxError},
};

pub(crate) const CUT_OFF: &str =
    "слишком много похожих контактов: поиск не закончен, проверьте вручную";

pub(crate) const UNREADABLE: &str = "контакт из поиска";

/// What amoCRM is asked for.
#[derive(Debug)]
pub(crate) enum Query {
    Email(Email),
    /// The part of an address before the `@`.
    Beginning(Email),
    Phone(Phone),
}

impl Query {
    fn operation(&self) -> Operation {
        match self {
            Self::Email(_) => Operation::Search,
            Self::Beginning(_) => Operation::SearchBeginning,
            Self::Phone(_) => Operation::SearchPhone,
        }
    }

    async fn ask(&self, batch: &Batch) -> Result<Search, AmoError> {
        match self {
            Self::Email(email) => batch.amocrm.search_email(email).await,
            Self::Beginning(email) => batch.amocrm.search_beginning(email).await,
            Self::Phone(phone) => batch.amocrm.search_contacts(phone.as_str()).await,
        }
    }
}

/// Searches for each row. Rows whose search failed go to `ended`, and those whose search had not begun when sending was blocked:
/// the searches of a batch may take a minute.
pub(crate) async fn search<T: InHand>(
    batch: &Batch,
    rows: Vec<T>,
    query: impl Fn(&T) -> Query,
    ended: &mut Vec<Ended>,
) -> Result<Vec<(T, Search)>, InboxError> {
    let searches = rows.into_iter().map(|row| {
        let query = query(&row);
        async move {
            let answer = if batch.is_blocked() {
                None
            } else {
                Some(query.ask(batch).await)
            };
            (row, query.operation(), answer)
        }
    });
    let mut found = Vec::new();
    for (row, operation, answer) in at_once(batch.parallel_searches(), searches).await {
        match answer {
            None => ended.push(row.again_at(batch.now(), Fact::SendingStopped)),
            Some(Ok(search)) => {
                batch.answered(operation, [&row]).await?;
                found.push((row, search));
            }
            Some(Err(error)) => ended.extend(batch.fail(operation, vec![row], error).await?),
        }
    }
    Ok(found)
}
