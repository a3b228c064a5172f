//! Pages as they come: for a look at amoCRM's habits, not for work. Nothing is left out that a filter should have kept away.

use jiff::Timestamp;

use crate::{AmoCrm, AmoError, Contact, Deal, Note, Query, RawPage, wire};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peek<T> {
    /// Those that could be read, deleted ones too.
    pub items: Vec<T>,
    /// How many items the page has, with those that could not be read.
    pub length: usize,
    /// The page names a next one.
    pub names_next: bool,
    /// amoCRM's time of the answer (`Date`), if it was sent.
    pub date: Option<Timestamp>,
}

impl<T> Peek<T> {
    fn of<R: Into<T>>(page: RawPage<R>) -> Self {
        Self {
            items: page.items.into_iter().map(Into::into).collect(),
            length: page.length,
            names_next: page.names_next,
            date: page.date,
        }
    }
}

impl AmoCrm {
    /// One request, with these parameters and the greatest page; pages from 1.
    pub async fn peek_contacts(&self, query: Query, page: u32) -> Result<Peek<Contact>, AmoError> {
        let page = self.page::<wire::Contacts>("contacts.peek", "contacts", query, page);
        page.await.map(Peek::of)
    }

    /// As [`AmoCrm::peek_contacts`].
    pub async fn peek_deals(&self, query: Query, page: u32) -> Result<Peek<Deal>, AmoError> {
        let page = self.page::<wire::Deals>("deals.peek", "leads", query, page);
        page.await.map(Peek::of)
    }

    /// As [`AmoCrm::peek_contacts`].
    pub async fn peek_notes(&self, query: Query, page: u32) -> Result<Peek<Note>, AmoError> {
        let page = self.page::<wire::Notes>("notes.peek", "leads/notes", query, page);
        page.await.map(Peek::of)
    }
}
