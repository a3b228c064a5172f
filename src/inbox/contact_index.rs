//! The contact index on disk: keyed hashes of e-mails and phones with the contacts that have them.
//!
//! The engine keeps the coverage of the index as a value of its own, which is stored with each change, in the same commit.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::{SqliteConnection, query, query_as};

use super::{
    Inbox, InboxError,
    activity::Counted,
    commands::{clear_state, set_state},
    record::{execute, json},
};
use crate::domain::{ContactId, KeyedHash};

/// Contacts, and the hashes by which they are found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexed {
    pub contacts: Vec<ContactId>,
    /// Each hash with one of these contacts.
    pub known_by: Vec<(KeyedHash, ContactId)>,
}

const FORGET_CONTACTS: &str =
    "DELETE FROM contact_index WHERE contact IN (SELECT value FROM json_each(?1))";

const INSERT: &str = "
    INSERT OR IGNORE INTO contact_index (hash, contact)
    SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?1)";

const FORGET: &str = "
    DELETE FROM contact_index WHERE (hash, contact) IN (
        SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?1)
    )";

pub(super) const LOOK_UP: &str = "
    SELECT lower(hex(hash)), contact FROM contact_index
    WHERE hash IN (SELECT unhex(value) FROM json_each(?1)) ORDER BY contact";

/// Answers how many rows were added or removed.
async fn change(
    conn: &mut SqliteConnection,
    statement: &'static str,
    values: String,
) -> Result<i64, InboxError> {
    let change = query(statement).bind(values);
    execute(conn, "write the contact index", change)
        .await
        .map(signed)
}

fn signed(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

impl Inbox {
    /// Replaces all that the index holds of these contacts, and stores the coverage under its key.
    pub async fn index_contacts<T: Serialize>(
        &self,
        indexed: Indexed,
        key: &'static str,
        coverage: &T,
    ) -> Result<(), InboxError> {
        let contacts = json("contacts", &indexed.contacts)?;
        let known_by = json("hashes", &indexed.known_by)?;
        let coverage = json(key, coverage)?;
        self.write(move |turn| {
            Box::pin(async move {
                let removed = change(turn.conn, FORGET_CONTACTS, contacts).await?;
                let added = change(turn.conn, INSERT, known_by).await?;
                Counted::indexed(added - removed).store(turn.conn).await?;
                set_state(turn.conn, key, &coverage).await
            })
        })
        .await
    }

    /// Takes these out of the index.
    pub async fn forget_indexed(
        &self,
        known_by: Vec<(KeyedHash, ContactId)>,
    ) -> Result<(), InboxError> {
        if known_by.is_empty() {
            return Ok(());
        }
        let known_by = json("hashes", &known_by)?;
        self.write(move |turn| {
            Box::pin(async move {
                let removed = change(turn.conn, FORGET, known_by).await?;
                Counted::indexed(-removed).store(turn.conn).await
            })
        })
        .await
    }

    /// Empties the index and removes its coverage.
    pub async fn drop_contact_index(&self, key: &'static str) -> Result<(), InboxError> {
        self.write(move |turn| {
            Box::pin(async move {
                let empty = query("DELETE FROM contact_index");
                let emptied = execute(turn.conn, "empty the contact index", empty).await?;
                Counted::indexed(-signed(emptied)).store(turn.conn).await?;
                clear_state(turn.conn, key).await
            })
        })
        .await
    }

    /// The contacts that are known by each of these.
    pub async fn indexed(
        &self,
        hashes: Vec<KeyedHash>,
    ) -> Result<HashMap<KeyedHash, Vec<ContactId>>, InboxError> {
        let query = query_as(LOOK_UP).bind(json("hashes", &hashes)?);
        let found: Vec<(KeyedHash, i64)> = self.read("look contacts up", query).await?;
        let mut contacts: HashMap<KeyedHash, Vec<ContactId>> = HashMap::new();
        for (hash, contact) in found {
            let same = contacts.entry(hash).or_default();
            same.push(ContactId::new(contact));
        }
        Ok(contacts)
    }
}
