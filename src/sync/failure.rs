//! What an error of a neighbour means for the entries it met, and how it is told to a person.

use std::time::Duration;

use super::Context;
pub(crate) use crate::domain::Chain;
use crate::{
    amocrm::AmoError,
    domain::{Disposition, HaltCause, RowId},
    inbox::InboxError,
    supabase::SupabaseError,
};

/// A request that failed, whoever was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Amocrm(#[from] AmoError),
    #[error(transparent)]
    Supabase(#[from] SupabaseError),
}

/// What happens to an entry whose request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Sending has stopped, or its turn came too late: again, as if nothing had been tried.
    NotItsFault,
    Retry {
        after: Option<Duration>,
    },
    Park,
}

impl Failure {
    fn disposition(&self) -> Disposition {
        match self {
            Self::Amocrm(error) => error.disposition(),
            Self::Supabase(error) => error.disposition(),
        }
    }

    /// In the operator's language: classes and codes, never values.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Amocrm(error) => amocrm_reason(error),
            Self::Supabase(error) => supabase_reason(error),
        }
    }
}

fn amocrm_reason(error: &AmoError) -> String {
    match error {
        AmoError::TooLate => "очередь запросов к amoCRM не дошла вовремя".to_owned(),
        AmoError::NotPermitted => "у сервиса сейчас нет права отправлять".to_owned(),
        AmoError::NotSent {
            untrusted: true, ..
        } => "сертификату amoCRM нельзя доверять".to_owned(),
        AmoError::NotSent { .. } => "нет соединения с amoCRM".to_owned(),
        AmoError::NoAnswer { .. } => "amoCRM не ответила".to_owned(),
        AmoError::Throttled { .. } => "amoCRM просит реже (429)".to_owned(),
        AmoError::Unauthorized => "amoCRM не принимает токен (401)".to_owned(),
        AmoError::PaymentRequired => "подписка amoCRM не оплачена (402)".to_owned(),
        AmoError::Forbidden => "amoCRM запретила доступ (403)".to_owned(),
        AmoError::Rejected { status, problem } => {
            format!("amoCRM отклонила запрос ({status}): {problem}")
        }
        AmoError::Server { status } => format!("сбой amoCRM ({status})"),
        AmoError::Unexpected { status } => format!("неожиданный ответ amoCRM ({status})"),
        AmoError::Malformed { what } => format!("непонятный ответ amoCRM ({what})"),
    }
}

pub(super) fn supabase_reason(error: &SupabaseError) -> String {
    let told = |what: &str, status: u16, code: &str| {
        format!("{what} ({})", format!("{status} {code}").trim_end())
    };
    match error {
        SupabaseError::NotSent {
            untrusted: true, ..
        } => "сертификату Supabase нельзя доверять".to_owned(),
        SupabaseError::NotSent { .. } => "нет соединения с Supabase".to_owned(),
        SupabaseError::NoAnswer { .. } => "Supabase не ответил".to_owned(),
        SupabaseError::Busy { status, code, .. } => told("Supabase занят", *status, code),
        SupabaseError::Refused { status, code } => {
            told("Supabase не принимает ключ или права", *status, code)
        }
        SupabaseError::Schema { status, code } => {
            told("в Supabase нет таблицы, колонки или функции", *status, code)
        }
        SupabaseError::OutOfService { status, code } => {
            told("проект Supabase не работает", *status, code)
        }
        SupabaseError::Row { status, code } => told("Supabase отклоняет строку", *status, code),
        SupabaseError::Unexpected { status, code } => {
            told("неожиданный ответ Supabase", *status, code)
        }
        SupabaseError::Malformed { what } => format!("непонятный ответ Supabase ({what})"),
        SupabaseError::TooLarge => "строка слишком велика для ответа Supabase".to_owned(),
    }
}

impl Context {
    /// What the failure means for its entries; stops all sending when no entry is to blame.
    ///
    /// `row`: whose write back failed. The row had just been read, so a refusal needs no second one to be believed, and
    /// until this very write back works no more deals are moved whose rows cannot tell of it.
    pub(super) async fn judge(
        &self,
        failure: &Failure,
        row: Option<RowId>,
    ) -> Result<Verdict, InboxError> {
        if matches!(
            failure,
            Failure::Amocrm(AmoError::TooLate | AmoError::NotPermitted)
        ) {
            return Ok(Verdict::NotItsFault);
        }
        tracing::warn!(error = %Chain(failure), "sync.request_failed");
        if let Failure::Amocrm(
            AmoError::NoAnswer { .. } | AmoError::Server { .. } | AmoError::Unexpected { .. },
        ) = failure
        {
            self.lease.doubt();
        }
        Ok(match failure.disposition() {
            Disposition::Retry { after } => Verdict::Retry { after },
            Disposition::Park => Verdict::Park,
            Disposition::Halt { cause, patience } => {
                let is_refused = row.is_some() && !matches!(cause, HaltCause::SupabaseSchema);
                let patience = if is_refused { 1 } else { patience };
                if self
                    .gate
                    .strike(cause, patience, failure.reason(), row)
                    .await?
                {
                    Verdict::NotItsFault
                } else {
                    Verdict::Retry { after: None }
                }
            }
        })
    }
}
