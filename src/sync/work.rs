//! One entry on its way through a run.

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Context,
    deals::Plan,
    list::Listed,
    people::Hold,
    triage::{self, Sight, Triage},
};
use crate::{
    amocrm::{Contact, Deal},
    domain::{DealId, Email, RowId},
    inbox::{Entry, Known, Progress, Settlement},
    supabase::Row,
};

#[derive(Debug)]
pub(super) struct Work {
    pub(super) entry: Entry,
    pub(super) progress: Progress,
    pub(super) row: Option<Row>,
    pub(super) email: Option<Email>,
    /// What the account's list of contacts says of the e-mail.
    pub(super) listed: Listed,
    /// The list knows that no contact without an e-mail has the row's phone.
    pub(super) phone_is_nobodys: bool,
    /// The contacts that are this person.
    pub(super) contacts: Vec<Contact>,
    /// When they were read by id, in the main store; `None`: the search has found them.
    pub(super) contacts_read_at: Option<Instant>,
    /// The deals read for them, or the chosen one alone.
    pub(super) deals: Vec<Deal>,
    /// What we used for this person before.
    pub(super) recorded: Option<Known>,
    pub(super) plan: Option<Plan>,
    /// When what the next write rests on was read.
    pub(super) read_at: Instant,
    /// Keeps others off this person and contact.
    pub(super) holds: Vec<Hold>,
    pub(super) story: Vec<String>,
    end: Option<Settlement>,
    pub(super) is_settled: bool,
}

impl Work {
    pub(super) fn new(entry: Entry) -> Self {
        Self {
            progress: entry.progress.clone(),
            entry,
            row: None,
            email: None,
            listed: Listed::No,
            phone_is_nobodys: false,
            contacts: Vec::new(),
            contacts_read_at: None,
            deals: Vec::new(),
            recorded: None,
            plan: None,
            read_at: Instant::now(),
            holds: Vec::new(),
            story: Vec::new(),
            end: None,
            is_settled: false,
        }
    }

    pub(super) fn id(&self) -> RowId {
        self.entry.row
    }

    pub(super) fn triage(&mut self, ctx: &Context, sight: Sight<'_>, now: Timestamp) -> Triage {
        let known = triage::Known {
            is_asked_for: self.entry.backfill.is_some(),
            stored_at: self.entry.stored_at,
        };
        let (rules, tempo) = (&ctx.upkeep.rows, &ctx.tempo);
        triage::triage(rules, tempo, known, &mut self.progress, sight, now)
    }

    /// The deal of this row, once there is one.
    pub(super) fn chosen(&self) -> Option<DealId> {
        self.progress.choice.as_ref()?.deal
    }

    pub(super) fn ending(&self) -> Option<&Settlement> {
        self.end.as_ref()
    }

    /// Nothing went wrong with it: only its time has not come.
    pub(super) fn is_put_off(&self) -> bool {
        matches!(
            self.ending(),
            Some(Settlement::Again {
                failed: false,
                reason: None,
                ..
            })
        )
    }

    pub(super) fn in_run(&self) -> bool {
        self.end.is_none()
    }

    pub(super) fn end(&mut self, settlement: Settlement) {
        self.end.get_or_insert(settlement);
    }

    /// Back to pending without blame.
    pub(super) fn again_at(&mut self, due_at: Timestamp, why: &str) {
        self.story.push(why.to_owned());
        self.end(Settlement::Again {
            due_at,
            failed: false,
            reason: None,
        });
    }

    /// Lets go of its people, and of all that was read for it.
    pub(super) fn settled(&mut self) {
        self.is_settled = true;
        self.holds = Vec::new();
        self.email = None;
        self.row = None;
        self.contacts = Vec::new();
        self.deals = Vec::new();
        self.story = Vec::new();
    }

    pub(super) fn park(&mut self, reason: impl Into<String>) {
        self.end(Settlement::Parked {
            reason: reason.into(),
        });
    }

    pub(super) fn tell(&mut self, line: impl Into<String>) {
        self.story.push(line.into());
    }

    pub(super) fn event(&self) -> String {
        let end = match &self.end {
            Some(Settlement::Done(outcome)) => format!("done: {outcome:?}").to_lowercase(),
            Some(Settlement::Again {
                reason: Some(reason),
                ..
            }) => format!("again: {reason}"),
            Some(Settlement::Again { .. }) => "again".to_owned(),
            Some(Settlement::Waiting { reason, .. }) => format!("waiting: {reason}"),
            Some(Settlement::Parked { reason }) => format!("parked: {reason}"),
            None => "left".to_owned(),
        };
        self.story
            .iter()
            .map(String::as_str)
            .chain([end.as_str()])
            .collect::<Vec<_>>()
            .join("; ")
    }
}
