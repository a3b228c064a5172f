//! Errors for the person at the terminal: what has failed in the reader's language, and the chain of causes as the libraries
//! tell it, which no one translates.

use std::{error::Error, io};

use amocrm::AmoError;

use super::room::NoRoom;
use crate::{
    alerts::TelegramError,
    app::{Died, StartError},
    domain::WebhookSecretError,
    inbox::InboxError,
    supabase::SupabaseError,
    sync::{Chain, amocrm_reason, supabase_reason},
    telemetry::LoggingError,
    words::Lang,
};

/// In English the chain of causes says it all. A reason of our own has none.
pub(super) fn told(error: &(dyn Error + 'static), lang: Lang) -> String {
    let is_our_own = matches!(
        error.downcast_ref(),
        Some(NoRoom::Forbidden | NoRoom::AnotherCommand | NoRoom::Unnoticed)
    );
    match lang {
        Lang::English => Chain(error).to_string(),
        Lang::Russian if is_our_own => in_russian(error),
        Lang::Russian => format!("{} ({})", in_russian(error), Chain(error)),
    }
}

/// Without the chain of causes.
pub(super) fn in_russian(error: &(dyn Error + 'static)) -> String {
    if let Some(error) = error.downcast_ref::<AmoError>() {
        amocrm_reason(error)
    } else if let Some(error) = error.downcast_ref::<SupabaseError>() {
        supabase_reason(error)
    } else if let Some(error) = error.downcast_ref::<InboxError>() {
        inbox(error)
    } else if let Some(error) = error.downcast_ref::<StartError>() {
        start(error)
    } else if let Some(error) = error.downcast_ref::<NoRoom>() {
        match error {
            NoRoom::Forbidden => {
                "amoCRM запретила доступ (403): до `tripwire-sync resume` запросы не отправляются"
                    .to_owned()
            }
            NoRoom::AnotherCommand => "другая команда обращается к amoCRM".to_owned(),
            NoRoom::Unnoticed => {
                "сервис не уступил этой команде запрос к amoCRM: он занят или завис, повторите позже"
                    .to_owned()
            }
            NoRoom::Inbox(error) => inbox(error),
        }
    } else if let Some(error) = error.downcast_ref::<TelegramError>() {
        telegram(error)
    } else if let Some(error) = error.downcast_ref::<Died>() {
        died(error).to_owned()
    } else if let Some(error) = error.downcast_ref::<WebhookSecretError>() {
        error.in_russian()
    } else if error.is::<LoggingError>() {
        "не удалось настроить лог".to_owned()
    } else if error.is::<metrics_exporter_prometheus::BuildError>() {
        "не удалось настроить метрики".to_owned()
    } else if error.is::<reqwest::Error>() {
        "HTTP-запрос не удался".to_owned()
    } else if error.is::<io::Error>() {
        "ошибка ввода-вывода".to_owned()
    } else {
        "команда не выполнена".to_owned()
    }
}

fn inbox(error: &InboxError) -> String {
    match error {
        InboxError::AlreadyOwned { path } => {
            format!(
                "файл очереди {} занят другим процессом сервиса",
                path.display()
            )
        }
        InboxError::Open { path, .. } => {
            format!("файл очереди {} не открывается", path.display())
        }
        InboxError::Database { .. } => "сбой файла очереди".to_owned(),
        InboxError::Corrupt { .. } => "запись в файле очереди не читается".to_owned(),
        InboxError::ClaimLost { row } => format!("строку {row} взял другой процесс"),
        InboxError::Busy => "слишком много изменений ждут записи в файл очереди".to_owned(),
        InboxError::Full => "файл очереди заполнен незавершёнными записями".to_owned(),
        InboxError::Closed => "файл очереди закрыт".to_owned(),
        InboxError::Copy { to, .. } => {
            format!("не удалось скопировать файл очереди в {}", to.display())
        }
    }
}

fn start(error: &StartError) -> String {
    match error {
        StartError::Inbox(error) => inbox(error),
        StartError::Listen { address, .. } => {
            format!("не удаётся принимать соединения на {address}")
        }
        StartError::Watchdog(_) => "не удалось запустить сторожевой поток".to_owned(),
        StartError::Client(_) => "не удалось создать HTTP-клиент".to_owned(),
    }
}

fn died(error: &Died) -> &'static str {
    match error {
        Died::Part { .. } => "часть сервиса завершилась сама",
        Died::InboxLost => "файл очереди удалён, заменён или перемещён во время работы",
    }
}

fn telegram(error: &TelegramError) -> String {
    match error {
        TelegramError::Moved { to } => {
            format!("группа стала супергруппой, её id теперь {to}")
        }
        TelegramError::Token { status } => format!("Telegram не принимает токен бота ({status})"),
        TelegramError::Chat { status } => {
            format!("Telegram не находит чат или не пускает в него бота ({status})")
        }
        TelegramError::NotSent(_) => "нет соединения с Telegram".to_owned(),
        TelegramError::NoAnswer(_) => "Telegram не ответил".to_owned(),
        TelegramError::Throttled { .. } => "Telegram ограничил частоту сообщений (429)".to_owned(),
        TelegramError::Unexpected { status } => format!("неожиданный ответ Telegram ({status})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_the_readers_language_with_its_causes() {
        let error = InboxError::AlreadyOwned {
            path: "data/inbox.db".into(),
        };
        let chain = "the inbox data/inbox.db is in use by another process of this service";
        assert_eq!(told(&error, Lang::English), chain);
        assert_eq!(
            told(&error, Lang::Russian),
            format!("файл очереди data/inbox.db занят другим процессом сервиса ({chain})")
        );
        let wrapped = StartError::Inbox(error);
        assert!(told(&wrapped, Lang::Russian).starts_with("файл очереди"));
        let error = AmoError::from(amocrm::Refusal::Unauthorized);
        assert!(told(&error, Lang::Russian).starts_with("amoCRM не принимает токен (401) ("));
        let forbidden = told(&NoRoom::Forbidden, Lang::Russian);
        assert!(!forbidden.contains("amoCRM has"), "{forbidden}");
        let error = io::Error::other("torn");
        assert_eq!(told(&error, Lang::Russian), "ошибка ввода-вывода (torn)");
    }
}
