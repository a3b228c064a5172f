//! What an error of a neighbour means for the entries of its request, and the text of the error for an operator.

use std::time::Duration;

use amocrm::{AmoError, Refusal};

use super::{Context, rules::timings::INBOX_TROUBLE};
pub(crate) use crate::domain::Chain;
use crate::{
    domain::{Disposition, HaltCause, Operation, RowId},
    inbox::InboxError,
    supabase::{Culprit, SupabaseError},
};

/// Why a neighbour's answer is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Amocrm(#[from] AmoError),
    #[error(transparent)]
    Supabase(#[from] SupabaseError),
    /// It could not be used without the inbox.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// amoCRM's pipelines lack the target, and sending has stopped.
    #[error("the target stage cannot be used")]
    TargetUnusable,
}

/// What a request was about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// `None`: about no row.
    pub(super) operation: Option<Operation>,
    pub(super) rows: &'a [RowId],
    /// The attempt was about one row and no other.
    pub(super) is_alone: bool,
}

impl Asked<'_> {
    pub(super) const NOTHING: Asked<'static> = Asked {
        operation: None,
        rows: &[],
        is_alone: false,
    };
}

/// What happens to an entry whose request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Sending has stopped, or the request waited in the queue for too long: the entry is tried again, without counting
    /// a failure.
    NotItsFault,
    Retry {
        after: Option<Duration>,
    },
    /// The entry waits, without a time limit, until other rows tell whether the refusal concerns it alone.
    InDoubt,
    /// The entry is parked once no write of it may still land.
    Park,
    /// The entry is parked at once: a write in doubt stays on record, and is looked for when a person retries the row.
    SetAside,
}

impl Failure {
    pub(super) fn disposition(&self) -> Disposition {
        match self {
            Self::Amocrm(error) => match error.disposition() {
                amocrm::Disposition::Retry { after } => Disposition::Retry { after },
                amocrm::Disposition::Refused => Disposition::Refused,
                amocrm::Disposition::Halt(refusal) => Disposition::Halt {
                    cause: match refusal {
                        Refusal::Unauthorized => HaltCause::AmocrmToken,
                        Refusal::PaymentRequired => HaltCause::AmocrmPayment,
                        Refusal::Forbidden => HaltCause::AmocrmForbidden,
                    },
                    patience: 1,
                },
            },
            Self::Supabase(error) => error.disposition(),
            Self::Inbox(_) => Disposition::Retry {
                after: Some(INBOX_TROUBLE),
            },
            Self::TargetUnusable => Disposition::Retry { after: None },
        }
    }

    pub(super) fn log(&self) {
        if let Self::Inbox(error) = self {
            tracing::error!(error = %Chain(error), "sync.inbox");
        } else {
            tracing::warn!(error = %Chain(self), "sync.request_failed");
        }
    }

    /// In the operator's language: classes and codes, never values.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Amocrm(error) => amocrm_reason(error),
            Self::Supabase(error) => supabase_reason(error),
            Self::Inbox(error) => error.to_string(),
            Self::TargetUnusable => "целевой этап недоступен".to_owned(),
        }
    }
}

/// In Russian: classes and codes, never values.
pub(crate) fn amocrm_reason(error: &AmoError) -> String {
    match error {
        AmoError::TooLate => "запрос к amoCRM не дождался своей очереди".to_owned(),
        AmoError::NotPermitted => "у сервиса сейчас нет права отправлять".to_owned(),
        AmoError::TurnedAway => "amoCRM запретила другой запрос (403)".to_owned(),
        AmoError::NotSent {
            untrusted: true, ..
        } => "сертификат amoCRM не прошёл проверку".to_owned(),
        AmoError::NotSent { .. } => "нет соединения с amoCRM".to_owned(),
        AmoError::NoAnswer { .. } => "amoCRM не ответила".to_owned(),
        AmoError::Throttled { .. } => "amoCRM ограничила частоту запросов (429)".to_owned(),
        AmoError::Refused(Refusal::Unauthorized) => "amoCRM не принимает токен (401)".to_owned(),
        AmoError::Refused(Refusal::PaymentRequired) => {
            "подписка amoCRM не оплачена (402)".to_owned()
        }
        AmoError::Refused(Refusal::Forbidden) => "amoCRM запретила доступ (403)".to_owned(),
        AmoError::Rejected { status, problem } => {
            format!("amoCRM отклонила запрос ({status}): {problem}")
        }
        AmoError::Server { status } => format!("сбой amoCRM ({status})"),
        AmoError::Moved {
            status,
            host: Some(host),
        } => format!("amoCRM перенаправляет на {host} ({status})"),
        AmoError::Moved { status, host: None } => format!("amoCRM перенаправляет ({status})"),
        AmoError::Unexpected { status } => format!("неожиданный ответ amoCRM ({status})"),
        AmoError::Malformed { what } => format!("ответ amoCRM не удалось прочитать ({what})"),
    }
}

/// As [`amocrm_reason`].
pub(crate) fn supabase_reason(error: &SupabaseError) -> String {
    let told = |what: &str, status: u16, code: &str| {
        format!("{what} ({})", format!("{status} {code}").trim_end())
    };
    match error {
        SupabaseError::NotSent {
            untrusted: true, ..
        } => "сертификат Supabase не прошёл проверку".to_owned(),
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
        SupabaseError::Theirs {
            status,
            code,
            culprit,
        } => told(
            &format!("Supabase: запрос прерывает {}", in_russian(culprit)),
            *status,
            code,
        ),
        SupabaseError::Unexpected { status, code } => {
            told("неожиданный ответ Supabase", *status, code)
        }
        SupabaseError::Malformed { what } => {
            format!("ответ Supabase не удалось прочитать ({what})")
        }
        SupabaseError::TooLarge => "строка слишком велика для ответа Supabase".to_owned(),
    }
}

fn in_russian(culprit: &Culprit) -> String {
    match culprit {
        Culprit::Policy => "политика строк (RLS), которая ссылается на себя".to_owned(),
        Culprit::Trigger => "триггер, которому не хватает колонки".to_owned(),
        Culprit::Raised => "ошибка из триггера или функции (RAISE)".to_owned(),
        Culprit::Missing => {
            "триггер, политика или функция, которой не хватает таблицы, колонки или функции"
                .to_owned()
        }
        Culprit::Recursion => {
            "политика, триггер или функция, которая вызывает сама себя".to_owned()
        }
        Culprit::Constraint(Some(name)) => format!("ограничение {name}"),
        Culprit::Constraint(None) => "ограничение таблицы".to_owned(),
        Culprit::Unknown => "политика, триггер или функция базы".to_owned(),
    }
}

impl Context {
    /// What the failure means for the rows of its request. Stops all sending when no row is to blame.
    pub(super) async fn classify(
        &self,
        failure: &Failure,
        asked: Asked<'_>,
    ) -> Result<Verdict, InboxError> {
        match failure {
            Failure::Inbox(error) => return Err(error.clone()),
            Failure::Amocrm(AmoError::TooLate | AmoError::NotPermitted)
            | Failure::TargetUnusable => return Ok(Verdict::NotItsFault),
            Failure::Amocrm(AmoError::TurnedAway) => return self.turned_away(failure).await,
            Failure::Amocrm(_) | Failure::Supabase(_) => {}
        }
        failure.log();
        if let Failure::Amocrm(
            AmoError::NoAnswer { .. } | AmoError::Server { .. } | AmoError::Unexpected { .. },
        ) = failure
        {
            self.lease.doubt();
        }
        match failure.disposition() {
            Disposition::Retry { after } => Ok(Verdict::Retry { after }),
            Disposition::Halt {
                cause: HaltCause::AmocrmForbidden,
                ..
            } => self.forbidden(failure, asked.rows).await,
            // The row of a write back could be read a moment ago: other rows tell whether the refusal concerns all.
            Disposition::Halt { cause, patience }
                if asked.operation != Some(Operation::WriteBack) =>
            {
                let is_halted = self
                    .sending
                    .record_failure(cause, patience, failure.reason())
                    .await?;
                Ok(if is_halted {
                    Verdict::NotItsFault
                } else {
                    Verdict::Retry { after: None }
                })
            }
            Disposition::Halt { .. } | Disposition::Refused => self.refused(failure, asked).await,
        }
    }
}
