//! Lasting refusals: whether they concern one row or all, in memory and in the inbox.

use std::time::Instant;

use amocrm::AmoError;
use parking_lot::Mutex;

use super::{
    Context,
    failure::{Asked, Chain, Failure, Verdict},
    sending::Blocked,
};
use crate::{
    domain::{Blame, Disposition, Halt, HaltCause, Operation, Refusals, RowId, Side},
    inbox::{Inbox, InboxError, REFUSALS, RELEASED, Revival, State, StoredState},
    supabase::{Doctor, Examined, SupabaseError},
};

/// The most rows that are read to tell whether a refused read concerns one row.
const CONTROL_ROWS: u32 = 5;

/// The refusals that are not decided yet.
#[derive(Debug)]
pub(super) struct Doubts {
    inbox: Inbox,
    known: Mutex<Refusals>,
    /// What is on disk. Locked while it is written, so that a later state is not overwritten by an earlier one.
    stored: tokio::sync::Mutex<Refusals>,
}

impl Doubts {
    pub(super) fn new(inbox: Inbox) -> Self {
        Self {
            inbox,
            known: Mutex::default(),
            stored: tokio::sync::Mutex::default(),
        }
    }

    /// Takes over what a former process has stored. `is_halted`: sending is still stopped since.
    pub(super) async fn recall(&self, is_halted: bool) -> Result<(), InboxError> {
        let mut stored = self.stored.lock().await;
        *stored = match self.inbox.state(REFUSALS).await {
            // Another version has stored these. They are dropped: what is refused will be refused again.
            Err(error @ InboxError::Corrupt { .. }) => {
                tracing::warn!(error = %Chain(&error), "sync.inbox");
                None
            }
            stored => stored?,
        }
        .unwrap_or_default();
        let mut known = self.known.lock();
        known.clone_from(&stored);
        if known.have_stopped_sending() && !is_halted {
            known.resumed();
        }
        Ok(())
    }

    pub(super) fn look(&self) -> Refusals {
        self.known.lock().clone()
    }

    pub(super) fn are_none(&self) -> bool {
        self.known.lock().is_empty()
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.known.lock().is_in_doubt()
    }

    /// In force at once; [`Doubts::store`] puts it on disk.
    fn change<T>(&self, change: impl FnOnce(&mut Refusals) -> T) -> T {
        change(&mut self.known.lock())
    }

    /// In force at once, and on disk.
    async fn update<T>(&self, change: impl FnOnce(&mut Refusals) -> T) -> Result<T, InboxError> {
        let changed = self.change(change);
        self.store().await?;
        Ok(changed)
    }

    /// Puts on disk what has changed since the last time.
    async fn store(&self) -> Result<(), InboxError> {
        let mut stored = self.stored.lock().await;
        let latest = self.look();
        if latest != *stored {
            self.inbox.set_state(REFUSALS, &latest).await?;
            *stored = latest;
        }
        Ok(())
    }
}

impl Context {
    /// The operation worked for the row, in a request begun at `begun`.
    pub(super) async fn worked(
        &self,
        operation: Operation,
        row: RowId,
        begun: Instant,
    ) -> Result<(), InboxError> {
        if self.doubts.are_none() {
            return Ok(());
        }
        let worked = |refusals: &mut Refusals| refusals.worked(operation, row, begun);
        let suspects = self.doubts.update(worked).await?;
        if !suspects.is_empty() {
            self.inbox.revive(Revival::Suspects(suspects)).await?;
        }
        Ok(())
    }

    /// A write of the row whose answer never came was found to have landed.
    pub(super) async fn landed(
        &self,
        row: RowId,
        operations: &[Operation],
    ) -> Result<(), InboxError> {
        let landed = |refusals: &mut Refusals| refusals.landed(row, operations);
        self.doubts.update(landed).await
    }

    /// These rows are done, parked or waiting: nothing is in doubt about them.
    pub(super) async fn is_decided(&self, rows: &[RowId]) -> Result<(), InboxError> {
        self.doubts.update(|it| it.drop_rows(rows)).await
    }

    /// A person has resumed.
    pub(super) async fn begin_anew(&self) -> Result<(), InboxError> {
        self.doubts.update(Refusals::resumed).await
    }

    /// Drops the rows that a person has parked or forgotten meanwhile, and ends a halt that was about them.
    pub(super) async fn review_doubts(&self) -> Result<(), InboxError> {
        // Also while nothing is in doubt: a wish that is kept would meet a later doubt about the row.
        let released: Option<Vec<RowId>> = self.inbox.state(RELEASED).await?;
        if let Some(released) = released {
            self.is_decided(&released).await?;
            // A person may have released further rows meanwhile.
            let drop_them = move |state: &mut StoredState| {
                let mut left: Vec<RowId> = state.get(RELEASED)?.unwrap_or_default();
                left.retain(|row| !released.contains(row));
                state.set(RELEASED, Some(&left).filter(|left| !left.is_empty()))
            };
            self.inbox.change_state(&[RELEASED], drop_them).await?;
        }
        let rows = self.doubts.look().rows();
        if !rows.is_empty() {
            let states = self.inbox.states_of(rows.clone()).await?;
            let is_open =
                |row: &RowId| matches!(states.get(row), Some(State::Pending | State::Claimed));
            let decided: Vec<RowId> = rows.into_iter().filter(|row| !is_open(row)).collect();
            if !decided.is_empty() {
                self.is_decided(&decided).await?;
            }
        }
        self.doubts.store().await?;
        match self.sending.blocked() {
            Some(Blocked::Halted { halt, .. }) if self.is_decided_halt(&halt) => {
                self.sending.lift(&halt).await
            }
            _ => Ok(()),
        }
    }

    /// Whether the halt was about an operation that has worked since for one of its rows, or whose row was set aside.
    pub(super) fn is_decided_halt(&self, halt: &Halt) -> bool {
        let Some(operation) = halt.operation else {
            return false;
        };
        let refusals = self.doubts.look();
        let mut rows = halt.rows.iter();
        !rows.all(|row| refusals.is_refused(operation, *row))
    }

    /// amoCRM answered a request about these rows with 403.
    pub(super) async fn forbidden(
        &self,
        failure: &Failure,
        rows: &[RowId],
    ) -> Result<Verdict, InboxError> {
        let at = Instant::now();
        let blame = self.doubts.change(|refusals| refusals.forbid(rows, at));
        let verdict = match blame {
            Blame::Row | Blame::Doubt => {
                self.amocrm.reset();
                Verdict::SetAside
            }
            Blame::AllRows(rows) => {
                // The halt comes first, so that nothing is sent even if the inbox fails.
                let cause = HaltCause::AmocrmForbidden;
                let detail = failure.reason();
                self.sending.halt(cause, detail, None, rows.clone()).await?;
                self.sending.name_banned(rows).await?;
                Verdict::NotItsFault
            }
        };
        self.doubts.store().await?;
        Ok(verdict)
    }

    /// The client did not send a request, because another one was answered with 403. Stops all sending, if the caller
    /// of the other request has not done so yet.
    pub(super) async fn turned_away(&self, failure: &Failure) -> Result<Verdict, InboxError> {
        if self.sending.blocked().is_none() && self.amocrm.is_turned_away() {
            return self.forbidden(failure, &[]).await;
        }
        Ok(Verdict::NotItsFault)
    }

    /// Handles an error of amoCRM about no row. `true`: all sending has stopped.
    async fn stops(&self, error: AmoError) -> Result<bool, InboxError> {
        let failure = Failure::from(error);
        match failure.disposition() {
            Disposition::Halt {
                cause: HaltCause::AmocrmForbidden,
                ..
            } => {
                self.forbidden(&failure, &[]).await?;
                Ok(true)
            }
            Disposition::Halt { cause, patience } => {
                self.sending
                    .record_failure(cause, patience, failure.reason())
                    .await
            }
            Disposition::Retry { .. } | Disposition::Refused => Ok(false),
        }
    }

    /// A lasting refusal.
    pub(super) async fn refused(
        &self,
        failure: &Failure,
        asked: Asked<'_>,
    ) -> Result<Verdict, InboxError> {
        let Asked {
            operation,
            rows,
            is_alone,
        } = asked;
        let is_halted = matches!(self.sending.blocked(), Some(Blocked::Halted { .. }));
        if !is_halted && self.concerns_all_rows(failure, operation, rows).await? {
            return Ok(Verdict::NotItsFault);
        }
        let (Some(operation), [row, ..]) = (operation, rows) else {
            return Ok(Verdict::Park);
        };
        let cause = halt_cause(failure, operation);
        self.refused_row(operation, *row, is_alone, &failure.reason(), cause)
            .await
    }

    /// As [`Context::refused`], once the checks without other rows have found nothing. `is_alone`: as in [`Asked`].
    /// `cause`: of the halt if the refusal concerns all rows.
    async fn refused_row(
        &self,
        operation: Operation,
        row: RowId,
        is_alone: bool,
        reason: &str,
        cause: HaltCause,
    ) -> Result<Verdict, InboxError> {
        let is_halted = matches!(self.sending.blocked(), Some(Blocked::Halted { .. }));
        if is_halted && !self.doubts.look().is_refused(operation, row) {
            // The request was in flight when sending stopped.
            return Ok(Verdict::NotItsFault);
        }
        let times = (Instant::now(), self.now());
        let blame = self
            .doubts
            .change(|refusals| refusals.refuse(operation, row, is_alone, reason, times));
        tracing::warn!(row.id = %row, operation = operation.into_str(), reason, ?blame, "sync.refused");
        let verdict = match blame {
            Blame::Row => Verdict::Park,
            Blame::Doubt if operation == Operation::Read => {
                self.read_another(row).await?;
                Verdict::InDoubt
            }
            Blame::Doubt => Verdict::InDoubt,
            Blame::AllRows(rows) => {
                let detail = format!("{}: {reason}", operation.in_russian());
                self.sending
                    .halt(cause, detail, Some(operation), rows)
                    .await?;
                Verdict::NotItsFault
            }
        };
        self.doubts.store().await?;
        Ok(verdict)
    }

    /// Reads a row other than the refused one, to tell at once whether the refusal concerns all rows.
    async fn read_another(&self, row: RowId) -> Result<(), InboxError> {
        let begun = Instant::now();
        match self.control_read(&[row]).await? {
            Ok(Some(other)) => self.worked(Operation::Read, other, begun).await,
            Err(error) if error.lasts() => {
                let failure = Failure::from(error);
                let cause = halt_cause(&failure, Operation::Read);
                let operation = Some(Operation::Read);
                self.sending
                    .halt(cause, failure.reason(), operation, vec![row])
                    .await
            }
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Reads a row other than these: of those that the inbox knows, the done ones first, else any row of the table.
    /// Returns the first that can be read; `None` when there is no other row.
    pub(super) async fn control_read(
        &self,
        not: &[RowId],
    ) -> Result<Result<Option<RowId>, SupabaseError>, InboxError> {
        let mut known = self.inbox.entries(Some(State::Done), CONTROL_ROWS).await?;
        known.extend(self.inbox.entries(None, 2 * CONTROL_ROWS).await?);
        let refused = self.doubts.look().rows();
        let rows = known.into_iter().map(|entry| entry.row);
        let rows = rows.filter(|row| !not.contains(row) && !refused.contains(row));
        let mut answer = Ok(None);
        for row in rows.take(CONTROL_ROWS as usize) {
            match self.supabase.rows(&[row]).await {
                // The row may have been removed since.
                Ok(read) if read.rows.is_empty() => {}
                Ok(_) => return Ok(Ok(Some(row))),
                Err(error) => answer = Err(error),
            }
        }
        if answer.is_err() {
            return Ok(answer);
        }
        let another = match self.supabase.another_row(not).await {
            Ok(Some(another)) => another,
            answer => return Ok(answer),
        };
        let read = self.supabase.rows(&[another]).await;
        Ok(read.map(|read| read.rows.first().map(|row| row.id)))
    }

    /// Whether some row can be read again, after a halt over a read of these.
    pub(super) async fn can_read_again(&self, rows: &[RowId]) -> Result<bool, InboxError> {
        let begun = Instant::now();
        match self.control_read(rows).await? {
            Ok(Some(other)) => {
                self.worked(Operation::Read, other, begun).await?;
                Ok(true)
            }
            Ok(None) => Ok(self.supabase.rows(rows).await.is_ok()),
            Err(_) => Ok(false),
        }
    }

    /// Checks, without trying other rows, whether a refusal concerns all of them. `true`: it does, and sending has
    /// stopped.
    async fn concerns_all_rows(
        &self,
        failure: &Failure,
        operation: Option<Operation>,
        rows: &[RowId],
    ) -> Result<bool, InboxError> {
        match failure {
            Failure::Amocrm(error) if error.is_about_stage() => {
                match self.pipeline(std::time::Duration::ZERO).await {
                    Err(Failure::TargetUnusable) => Ok(true),
                    Err(Failure::Amocrm(error)) => self.stops(error).await,
                    Err(Failure::Inbox(error)) => Err(error),
                    Ok(_) | Err(Failure::Supabase(_)) => Ok(false),
                }
            }
            Failure::Amocrm(error) if error.is_no_api() => match self.amocrm.account().await {
                Err(error) if error.is_no_api() => {
                    let cause = HaltCause::AmocrmAccount;
                    let detail = Failure::from(error).reason();
                    self.sending.halt(cause, detail, None, Vec::new()).await?;
                    Ok(true)
                }
                Err(error) => self.stops(error).await,
                Ok(_) => Ok(false),
            },
            Failure::Amocrm(_)
            | Failure::Supabase(SupabaseError::TooLarge)
            | Failure::Inbox(_)
            | Failure::TargetUnusable => Ok(false),
            Failure::Supabase(error) => match operation {
                Some(Operation::WriteBack) => self.may_not_write_back(rows, error).await,
                // A request about one row: reads of other rows will tell.
                _ if rows.len() == 1 => Ok(false),
                // A request about many or all rows fails if one of them does. A request for the columns alone depends
                // on none.
                _ => match self.supabase.probe().await {
                    Err(error) if error.lasts() => {
                        let failure = Failure::from(error);
                        let cause = halt_cause(&failure, Operation::Read);
                        let detail = failure.reason();
                        self.sending.halt(cause, detail, None, Vec::new()).await?;
                        Ok(true)
                    }
                    _ => Ok(false),
                },
            },
        }
    }

    /// Whether the database says that our role may not write deal ids.
    async fn may_not_write_back(
        &self,
        rows: &[RowId],
        error: &SupabaseError,
    ) -> Result<bool, InboxError> {
        let Some(missing) = self.missing_right(Doctor::missing_to_write).await else {
            return Ok(false);
        };
        let detail = format!("{missing} ({error})");
        self.halt_write_back(rows, detail).await?;
        Ok(true)
    }

    async fn halt_write_back(&self, rows: &[RowId], detail: String) -> Result<(), InboxError> {
        let (operation, cause) = (Operation::WriteBack, HaltCause::SupabaseWriteBack);
        let times = (Instant::now(), self.now());
        self.doubts.change(|refusals| {
            // Dropped first, so that a row whose refusal was thought to concern it alone is in doubt again.
            refusals.drop_rows(rows);
            for row in rows {
                refusals.refuse(operation, *row, true, &detail, times);
            }
        });
        self.sending
            .halt(cause, detail, Some(operation), rows.to_vec())
            .await?;
        self.doubts.store().await
    }

    /// The write back matched no row although the row is there and has no deal id.
    pub(super) async fn write_back_matched_nothing(
        &self,
        row: RowId,
    ) -> Result<(Verdict, String), InboxError> {
        let reason = "запись amocrm_deal_id ничего не меняет: проверьте политику UPDATE и триггеры";
        let cause = HaltCause::SupabaseWriteBack;
        if self.sending.blocked().is_none()
            && let Some(missing) = self.missing_right(Doctor::missing_to_write).await
        {
            self.halt_write_back(&[row], missing.to_owned()).await?;
            return Ok((Verdict::NotItsFault, missing.to_owned()));
        }
        let refused = self.refused_row(Operation::WriteBack, row, true, reason, cause);
        let verdict = refused.await?;
        Ok((verdict, reason.to_owned()))
    }

    /// To be called when no row can be read: stops sending if the database says that our role may not read rows.
    pub(super) async fn see_why_no_row(&self) -> Result<bool, InboxError> {
        let Some(missing) = self.missing_right(Doctor::missing_to_read).await else {
            return Ok(false);
        };
        let cause = HaltCause::SupabaseKey;
        self.sending
            .halt(cause, missing.to_owned(), None, Vec::new())
            .await?;
        Ok(true)
    }

    /// Whether rows can be read, as far as the database tells.
    pub(super) async fn may_read(&self) -> bool {
        match self.supabase.can_see_any_row().await {
            // An error of the project's own code may concern the first row only.
            Ok(true) | Err(SupabaseError::Theirs { .. } | SupabaseError::Row { .. }) => true,
            // The table may be empty.
            Ok(false) => self.missing_right(Doctor::missing_to_read).await.is_none(),
            Err(_) => false,
        }
    }

    /// What our role lacks; `None` also where the database does not tell.
    async fn missing_right(&self, of: fn(&Doctor) -> Option<&'static str>) -> Option<&'static str> {
        match self.supabase.examine().await {
            Ok(Examined::Told { doctor, .. }) => of(&doctor),
            Ok(Examined::NoDoctor) | Err(_) => None,
        }
    }
}

/// The cause of the halt if a refusal concerns all rows.
fn halt_cause(failure: &Failure, operation: Operation) -> HaltCause {
    match failure {
        Failure::Supabase(error) if operation.side() == Side::Supabase => match error {
            SupabaseError::OutOfService { .. } => HaltCause::SupabaseProject,
            SupabaseError::Schema { .. } => HaltCause::SupabaseSchema,
            SupabaseError::Refused { code, .. } if code != "42501" => HaltCause::SupabaseKey,
            _ if operation == Operation::WriteBack => HaltCause::SupabaseWriteBack,
            SupabaseError::Refused { .. } => HaltCause::SupabaseKey,
            SupabaseError::Theirs { .. } | SupabaseError::Row { .. } => HaltCause::SupabaseDatabase,
            _ => HaltCause::SupabaseProject,
        },
        _ => HaltCause::AmocrmAccount,
    }
}
