//! What a lasting refusal concerns: one row, or all of them.
//!
//! A refused row is *in doubt*. If the operation then works for another row, the refused row is tried once more, and is to
//! blame if it is refused again; another reason gives it one more try, unless it is compared with the one of a bulk write. If
//! the operation is refused for three different rows, it is refused for all rows.
//!
//! Rows whose requests amoCRM answered with 403 are *held*: a 403 may be a ban, so they are tried last and alone.

use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};

use super::{RowId, Side};

/// After refusals for so many different rows, with no success between, all rows are refused.
const ALL_ROWS_AFTER: usize = 3;

/// A request to amoCRM or Supabase for one row.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    IntoStaticStr,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Operation {
    /// Reading the row in Supabase.
    Read,
    /// Searching for contacts by e-mail.
    Search,
    /// Searching for a contact by phone.
    SearchPhone,
    /// Searching for a contact by the beginning of its e-mail.
    SearchBeginning,
    /// Reading contacts by their ids.
    ReadContacts,
    /// Reading the newest contacts.
    ReadNewest,
    /// Reading the contacts that changed last.
    ReadChanged,
    /// Reading deals by their ids.
    ReadDeals,
    /// Reading the notes of deals.
    ReadNotes,
    /// Moving the deal.
    Move,
    /// Creating the deal for a contact.
    Create,
    /// Creating the deal and its contact.
    CreateWithContact,
    /// Adding the note.
    Note,
    /// Writing the deal's id into the row.
    WriteBack,
}

impl Operation {
    /// The name in Russian.
    #[must_use]
    pub fn in_russian(self) -> &'static str {
        match self {
            Self::Read => "чтение строки",
            Self::Search => "поиск контакта",
            Self::SearchPhone => "поиск контакта по телефону",
            Self::SearchBeginning => "поиск контакта по началу e-mail",
            Self::ReadContacts => "чтение контакта",
            Self::ReadNewest => "чтение новых контактов",
            Self::ReadChanged => "чтение изменённых контактов",
            Self::ReadDeals => "чтение сделки",
            Self::ReadNotes => "чтение примечаний",
            Self::Move => "перенос сделки",
            Self::Create => "создание сделки",
            Self::CreateWithContact => "создание сделки с контактом",
            Self::Note => "примечание",
            Self::WriteBack => "запись номера сделки",
        }
    }

    #[must_use]
    pub fn side(self) -> Side {
        match self {
            Self::Read | Self::WriteBack => Side::Supabase,
            _ => Side::Amocrm,
        }
    }

    /// Whether it changes something.
    #[must_use]
    pub fn is_write(self) -> bool {
        self.is_amocrm_write() || self == Self::WriteBack
    }

    fn is_amocrm_write(self) -> bool {
        matches!(
            self,
            Self::Move | Self::Create | Self::CreateWithContact | Self::Note
        )
    }
}

/// A row for which an operation was refused, and has not worked since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub operation: Operation,
    pub row: RowId,
    /// The neighbour's answer, in Russian, without personal data.
    pub reason: String,
    pub since: Timestamp,
    /// The operation has worked for another row since.
    pub works_for_others: bool,
    /// It was refused again after that.
    #[serde(default)]
    is_blamed: bool,
    #[serde(default)]
    told: Told,
    /// Counts towards a halt: the row was refused alone, after the last `resume`.
    #[serde(default)]
    counts: bool,
    /// When this process learnt of it; `None`: a former process did.
    #[serde(skip)]
    known_at: Option<Instant>,
}

/// How the reason of a refusal came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    /// For several rows at once.
    #[default]
    WithOthers,
    Alone,
    /// Alone, after another reason.
    Otherwise,
}

impl Refused {
    fn is_in_doubt(&self) -> bool {
        !self.works_for_others
    }

    /// Two different answers tell of a neighbour that fails, and nothing of the row. This is believed once. A bulk write is
    /// refused in other words than the same write of one row; a read is not.
    fn is_new_reason(&self, reason: &str) -> bool {
        let is_comparable = match self.told {
            Told::WithOthers => !self.operation.is_write(),
            Told::Alone => true,
            Told::Otherwise => false,
        };
        is_comparable && !self.is_blamed && self.reason != reason
    }

    fn counts(&self) -> bool {
        self.is_in_doubt() && self.counts
    }
}

/// What a refusal concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blame {
    /// Not known yet: the row waits.
    Doubt,
    Row,
    /// Refused for these rows, one after the other.
    AllRows(Vec<RowId>),
}

/// Rows whose requests amoCRM answered with 403.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    rows: Vec<RowId>,
    /// A write has worked since.
    may_go: bool,
    /// The last request of a held row was answered with 403, and no write has worked since.
    was_refused: bool,
    /// When this process learnt of the last 403; `None`: a former process did.
    #[serde(skip)]
    known_at: Option<Instant>,
}

/// All refusals that are not decided yet. Stored in the inbox; there is no time limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusals {
    refused: Vec<Refused>,
    held: Held,
}

impl Refusals {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.held.rows.is_empty()
    }

    /// The refused rows, the first one first.
    #[must_use]
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// The rows that amoCRM answered with 403.
    #[must_use]
    pub fn held(&self) -> &[RowId] {
        &self.held.rows
    }

    /// Whether rows are to be sent one at a time.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.refused.iter().any(Refused::is_in_doubt)
    }

    #[must_use]
    pub fn is_refused(&self, operation: Operation, row: RowId) -> bool {
        self.refused
            .iter()
            .any(|it| it.operation == operation && it.row == row && it.is_in_doubt())
    }

    /// What was refused for the row, if anything.
    #[must_use]
    pub fn of_row(&self, row: RowId) -> Option<&Refused> {
        self.refused.iter().find(|it| it.row == row)
    }

    /// Whether a held row may be tried: alone, when nothing else is due.
    #[must_use]
    pub fn held_may_go(&self) -> bool {
        self.held.may_go
    }

    /// Rows that are tried once more, alone, because the operation works for others.
    #[must_use]
    pub fn suspects(&self) -> Vec<RowId> {
        let suspects = self.refused.iter().filter(|it| it.works_for_others);
        suspects.map(|it| it.row).collect()
    }

    /// The rows in doubt, oldest first. They go after all others: another refusal of the same row proves nothing new.
    #[must_use]
    pub fn in_doubt(&self) -> Vec<RowId> {
        let in_doubt = self.refused.iter().filter(|it| it.is_in_doubt());
        in_doubt.map(|it| it.row).collect()
    }

    /// Why the row is to be parked, once it is known that none of these writes has landed.
    #[must_use]
    pub fn blamed(&self, row: RowId, operations: &[Operation]) -> Option<&str> {
        let mut of_row = self.refused.iter().filter(|it| it.row == row);
        let blamed = of_row.find(|it| it.is_blamed && operations.contains(&it.operation))?;
        Some(&blamed.reason)
    }

    /// Every row that is named here.
    #[must_use]
    pub fn rows(&self) -> Vec<RowId> {
        let refused = self.refused.iter().map(|it| it.row);
        refused.chain(self.held.rows.iter().copied()).collect()
    }

    /// The operation was refused for the row. `is_alone`: in an attempt about no other row. `at`: when the answer was read.
    pub fn refuse(
        &mut self,
        operation: Operation,
        row: RowId,
        is_alone: bool,
        reason: &str,
        (at, now): (Instant, Timestamp),
    ) -> Blame {
        let known = |it: &Refused| it.operation == operation && it.row == row;
        match self.refused.iter().position(known) {
            // It is not known which row of a bulk request was refused.
            Some(i) if self.refused[i].works_for_others && !is_alone => return Blame::Doubt,
            Some(i)
                if self.refused[i].works_for_others && self.refused[i].is_new_reason(reason) =>
            {
                let again = &mut self.refused[i];
                again.told = Told::Otherwise;
                again.works_for_others = false;
                again.counts = false;
                again.known_at = Some(at);
                reason.clone_into(&mut again.reason);
                return Blame::Doubt;
            }
            Some(i) if self.refused[i].works_for_others => {
                let blamed = &mut self.refused[i];
                blamed.is_blamed = true;
                reason.clone_into(&mut blamed.reason);
                return Blame::Row;
            }
            Some(i) => {
                let again = &mut self.refused[i];
                again.counts |= is_alone;
                if is_alone && again.told == Told::WithOthers {
                    again.told = Told::Alone;
                }
                again.known_at = Some(at);
                reason.clone_into(&mut again.reason);
            }
            None => self.refused.push(Refused {
                operation,
                row,
                reason: reason.to_owned(),
                since: now,
                works_for_others: false,
                is_blamed: false,
                told: if is_alone {
                    Told::Alone
                } else {
                    Told::WithOthers
                },
                counts: is_alone,
                known_at: Some(at),
            }),
        }
        let counted: Vec<RowId> = self
            .refused
            .iter()
            .filter(|it| it.operation == operation && it.counts())
            .map(|it| it.row)
            .collect();
        if counted.len() < ALL_ROWS_AFTER {
            Blame::Doubt
        } else {
            Blame::AllRows(counted)
        }
    }

    /// Records that the operation worked for the row, in a request begun at `begun`. Returns the rows to try once more, at
    /// once. A request begun before a refusal was known proves nothing about that refusal.
    pub fn worked(&mut self, operation: Operation, row: RowId, begun: Instant) -> Vec<RowId> {
        let is_newer = self.held.known_at.is_none_or(|at| at <= begun);
        if operation.is_amocrm_write() && is_newer {
            self.held.was_refused = false;
            self.held.may_go |= !self.held.rows.is_empty() && !self.held.rows.contains(&row);
        }
        let precedes = |it: &Refused| it.known_at.is_none_or(|at| at <= begun);
        self.refused
            .retain(|it| !(it.operation == operation && it.row == row && precedes(it)));
        let mut suspects = Vec::new();
        for it in &mut self.refused {
            if it.operation == operation && it.row != row && it.is_in_doubt() && precedes(it) {
                it.works_for_others = true;
                suspects.push(it.row);
            }
        }
        suspects
    }

    /// Records that these writes for the row have reached amoCRM after all.
    pub fn landed(&mut self, row: RowId, operations: &[Operation]) {
        self.refused
            .retain(|it| !(it.row == row && operations.contains(&it.operation)));
    }

    /// amoCRM answered a request about these rows with 403. [`Blame::Row`]: the one row alone is to blame.
    pub fn forbid(&mut self, rows: &[RowId], at: Instant) -> Blame {
        self.held.known_at = Some(at);
        if let [row] = rows
            && self.held.may_go
            && !self.held.was_refused
            && self.held.rows.contains(row)
        {
            self.held.rows.retain(|held| held != row);
            self.held.was_refused = true;
            return Blame::Row;
        }
        // A held row is no longer in doubt: it goes after all others.
        self.refused.retain(|it| !rows.contains(&it.row));
        for row in rows {
            if !self.held.rows.contains(row) {
                self.held.rows.push(*row);
            }
        }
        self.held.may_go = false;
        self.held.was_refused = false;
        Blame::AllRows(self.held.rows.clone())
    }

    /// A person has resumed: refusals count anew, and held rows wait for a write that works.
    pub fn resumed(&mut self) {
        for it in &mut self.refused {
            it.counts = false;
        }
        self.held.may_go = false;
        self.held.was_refused = false;
    }

    /// Whether these refusals must have caused a halt. If none is stored, a person has ended it while no process was
    /// running.
    #[must_use]
    pub fn have_stopped_sending(&self) -> bool {
        let mut counted = self.refused.iter().filter(|it| it.counts());
        let is_all_rows = counted.any(|it| {
            let same = |other: &&Refused| other.operation == it.operation && other.counts();
            self.refused.iter().filter(same).count() >= ALL_ROWS_AFTER
        });
        is_all_rows || !self.held.rows.is_empty()
    }

    /// These rows are done, parked or gone.
    pub fn drop_rows(&mut self, rows: &[RowId]) {
        self.refused.retain(|it| !rows.contains(&it.row));
        self.held.rows.retain(|row| !rows.contains(row));
    }
}

#[cfg(test)]
mod tests;
