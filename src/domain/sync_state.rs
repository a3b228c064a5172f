use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};
use tokio::sync::watch;

use super::HaltCause;

/// The state of the engine. The engine sends every change; the HTTP side only reads it. `into_str`: the name used in logs,
/// metrics and `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, IntoStaticStr, VariantNames)]
#[serde(tag = "state", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum SyncState {
    /// The process is up, the engine has not decided yet.
    Starting,
    Working,
    /// `AMOCRM_ENABLED=false`: everything is stored, nothing is sent.
    Holding,
    /// A person has stopped sending by `pause`.
    Paused {
        since: Timestamp,
    },
    /// A neighbour refuses requests for a reason that only a person can remove.
    Halted {
        #[serde(rename = "reason")]
        cause: HaltCause,
        since: Timestamp,
        /// `None` = never tried again by itself.
        next_probe: Option<Timestamp>,
    },
    /// The lease is not ours: nothing is sent.
    Standby {
        /// `true`: another service syncs. `false`: our lease could not be renewed.
        held_by_another: bool,
    },
    /// The inbox takes no writes: deliveries are refused and nothing is sent. Known to the inbox, not to the engine.
    Inbox {
        #[serde(rename = "reason")]
        fault: InboxFault,
        since: Timestamp,
    },
    /// The inbox has reached its bounds: new rows are refused. What it holds is worked off.
    InboxFull {
        since: Timestamp,
    },
}

/// What is wrong with the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InboxFault {
    /// No write has worked for a minute: a full disk, a disk that is read-only, a right that is missing.
    Unwritable,
    /// The file was removed, replaced or moved while it was open; the process ends.
    FileLost,
    /// Its bounds are reached, and nothing finished is left to make room.
    Full,
}

pub type SyncStatus = watch::Receiver<SyncState>;

impl SyncState {
    /// What a person can do about it, in Russian; `None` when there is nothing to do.
    #[must_use]
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::Starting | Self::Working => None,
            Self::Standby {
                held_by_another: true,
            } => Some(
                "Синхронизирует другой сервис: этот принимает события и продолжит сам, если тот остановится",
            ),
            Self::Standby {
                held_by_another: false,
            } => Some(
                "Supabase не подтверждает право на отправку (tripwire_sync_lease): она возобновится сама, когда он ответит",
            ),
            Self::Holding => Some(
                "Отправка выключена настройкой AMOCRM_ENABLED=false: записи копятся и обработаются после включения",
            ),
            Self::Paused { .. } => Some(
                "Отправка приостановлена вручную или после повреждения файла очереди: продолжить можно командой tripwire-sync resume",
            ),
            Self::Halted { cause, .. } => Some(cause.hint()),
            Self::Inbox { fault, .. } => Some(fault.hint()),
            Self::InboxFull { .. } => Some(InboxFault::Full.hint()),
        }
    }
}

impl InboxFault {
    /// What a person can do about it, in Russian.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Unwritable => {
                "Файл очереди (inbox.db) не записывается: освободите место на диске, проверьте права и режим диска; приём возобновится сам"
            }
            Self::Full => {
                "Файл очереди (inbox.db) достиг предела, и готовых записей, которые можно убрать, в нём нет: разберите отложенные (tripwire-sync entries --state parked) и ожидающие записи; приём возобновится сам"
            }
            Self::FileLost => {
                "Файл очереди (inbox.db) удалён, заменён или перемещён на ходу: сервис завершается и при запуске откроет файл, который найдёт по прежнему пути. Если файл цел, верните его на место при остановленном сервисе"
            }
        }
    }
}

impl HaltCause {
    /// What ends the halt, in Russian.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::AmocrmToken => {
                "amoCRM не принимает токен: выпустите новый, замените его в настройках и перезапустите сервис"
            }
            Self::AmocrmPayment => {
                "Подписка amoCRM не оплачена: после оплаты отправка возобновится сама"
            }
            Self::AmocrmForbidden => {
                "amoCRM закрыла доступ (403): выясните причину в поддержке amoCRM, затем выполните tripwire-sync resume"
            }
            Self::AmocrmStage => {
                "Воронка или этап из настроек не подходят: сверьте их номера с выводом tripwire-sync pipelines"
            }
            Self::AmocrmAccount => {
                "amoCRM отказывает всем строкам: проверьте адрес аккаунта (AMOCRM_SUBDOMAIN), тариф и права пользователя, который выпустил токен. Чтобы отложить одну строку: tripwire-sync park <строка>"
            }
            Self::SupabaseKey => {
                "Supabase не принимает ключ или отказывает в правах: проверьте SUPABASE_KEY и SUPABASE_JWT, право и политику SELECT"
            }
            Self::SupabaseSchema => {
                "В Supabase нет нужной таблицы или колонки: выполните SQL из `tripwire-sync setup-sql`"
            }
            Self::SupabaseProject => {
                "Проект Supabase остановлен, не оплачен, открыт только для чтения или отвечает не как Supabase: проверьте SUPABASE_URL и сам проект в панели Supabase"
            }
            Self::SupabaseDatabase => {
                "Чтение таблицы прерывает политика, триггер или функция самой базы: исправьте её в панели Supabase (SQL Editor; подробности в Logs, Postgres)"
            }
            Self::SupabaseWriteBack => {
                "Supabase не даёт записать номер сделки: дайте роли право и политику UPDATE и проверьте триггеры и ограничения таблицы. Чтобы отложить одну строку: tripwire-sync park <строка>"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_halt_names_its_cause_as_the_reason() {
        let halted = SyncState::Halted {
            cause: HaltCause::AmocrmForbidden,
            since: Timestamp::UNIX_EPOCH,
            next_probe: None,
        };

        assert_eq!(
            serde_json::to_value(halted).unwrap(),
            json!({
                "state": "halted",
                "reason": "amocrm_forbidden",
                "since": "1970-01-01T00:00:00Z",
                "next_probe": null,
            })
        );
    }

    #[test]
    fn the_name_of_a_state_is_the_one_in_its_json() {
        let since = Timestamp::UNIX_EPOCH;
        for state in [
            SyncState::Starting,
            SyncState::Working,
            SyncState::Holding,
            SyncState::Paused { since },
            SyncState::Halted {
                cause: HaltCause::AmocrmToken,
                since,
                next_probe: Some(since),
            },
            SyncState::Standby {
                held_by_another: true,
            },
            SyncState::Inbox {
                fault: InboxFault::Unwritable,
                since,
            },
        ] {
            let json = serde_json::to_value(state).unwrap();
            assert_eq!(json["state"], state.into_str());
            assert!(SyncState::VARIANTS.contains(&state.into_str()));
        }
    }
}
