use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantNames};
use tokio::sync::watch;

use super::{HaltCause, Lang};

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
    /// What a person can do about it; `None` when there is nothing to do.
    #[must_use]
    pub fn hint(self, lang: Lang) -> Option<&'static str> {
        Some(match self {
            Self::Starting | Self::Working => return None,
            Self::Standby { held_by_another: true } => lang.pick(
                "Another service syncs: this one accepts events, and goes on by itself if that one stops",
                "Синхронизирует другой сервис: этот принимает события и продолжит сам, если тот остановится",
            ),
            Self::Standby { held_by_another: false } => lang.pick(
                "Supabase does not confirm the lease (tripwire_sync_lease): sending goes on by itself once it answers",
                "Supabase не подтверждает право на отправку (tripwire_sync_lease): она возобновится сама, когда он ответит",
            ),
            Self::Holding => lang.pick(
                "Sending is switched off by AMOCRM_ENABLED=false: rows are kept, and go once it is switched on",
                "Отправка выключена настройкой AMOCRM_ENABLED=false: записи копятся и обработаются после включения",
            ),
            Self::Paused { .. } => lang.pick(
                "Sending was paused by hand, or after the inbox was damaged: `tripwire-sync resume` goes on",
                "Отправка приостановлена вручную или после повреждения файла очереди: продолжить можно командой tripwire-sync resume",
            ),
            Self::Halted { cause, .. } => cause.hint(lang),
            Self::Inbox { fault, .. } => fault.hint(lang),
            Self::InboxFull { .. } => InboxFault::Full.hint(lang),
        })
    }
}

impl InboxFault {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(self, lang: Lang) -> &'static str {
        match self {
            Self::Unwritable => lang.pick(
                "The inbox (inbox.db) cannot be written: make room on the disk, check its mode and the rights; events are taken again by themselves",
                "Файл очереди (inbox.db) не записывается: освободите место на диске, проверьте права и режим диска; приём возобновится сам",
            ),
            Self::Full => lang.pick(
                "The inbox (inbox.db) has reached its bounds and holds no done entry that could be removed: look at what is parked (tripwire-sync entries --state parked) and at what waits; events are taken again by themselves",
                "Файл очереди (inbox.db) достиг предела, и готовых записей, которые можно убрать, в нём нет: разберите отложенные (tripwire-sync entries --state parked) и ожидающие записи; приём возобновится сам",
            ),
            Self::FileLost => lang.pick(
                "The inbox (inbox.db) was removed, replaced or moved while it was open: the service ends, and opens what it finds there at its start. If the file is whole, put it back while the service is stopped",
                "Файл очереди (inbox.db) удалён, заменён или перемещён на ходу: сервис завершается и при запуске откроет файл, который найдёт по прежнему пути. Если файл цел, верните его на место при остановленном сервисе",
            ),
        }
    }
}

impl HaltCause {
    /// What ends the halt.
    #[must_use]
    pub fn hint(self, lang: Lang) -> &'static str {
        match self {
            Self::AmocrmToken => lang.pick(
                "amoCRM does not take the token: make a new one, put it into the settings, and start the service again",
                "amoCRM не принимает токен: выпустите новый, замените его в настройках и перезапустите сервис",
            ),
            Self::AmocrmPayment => lang.pick(
                "The amoCRM subscription is not paid: once it is, sending goes on by itself",
                "Подписка amoCRM не оплачена: после оплаты отправка возобновится сама",
            ),
            Self::AmocrmForbidden => lang.pick(
                "amoCRM has forbidden access (403): find out why from amoCRM's support, then run tripwire-sync resume",
                "amoCRM закрыла доступ (403): выясните причину в поддержке amoCRM, затем выполните tripwire-sync resume",
            ),
            Self::AmocrmStage => lang.pick(
                "Pipeline or stage of the settings cannot be used: compare their ids with those of tripwire-sync pipelines",
                "Воронка или этап из настроек не подходят: сверьте их номера с выводом tripwire-sync pipelines",
            ),
            Self::AmocrmAccount => lang.pick(
                "amoCRM refuses all rows: check the account's address (AMOCRM_SUBDOMAIN), its plan, and the rights of the user whose token it is. To set one row aside: tripwire-sync park <row>",
                "amoCRM отказывает всем строкам: проверьте адрес аккаунта (AMOCRM_SUBDOMAIN), тариф и права пользователя, который выпустил токен. Чтобы отложить одну строку: tripwire-sync park <строка>",
            ),
            Self::SupabaseKey => lang.pick(
                "Supabase does not take the key, or refuses a right: check SUPABASE_KEY and SUPABASE_JWT, and the grant and policy for SELECT",
                "Supabase не принимает ключ или отказывает в правах: проверьте SUPABASE_KEY и SUPABASE_JWT, право и политику SELECT",
            ),
            Self::SupabaseSchema => lang.pick(
                "Supabase lacks a table or a column: run the SQL of `tripwire-sync setup-sql`",
                "В Supabase нет нужной таблицы или колонки: выполните SQL из `tripwire-sync setup-sql`",
            ),
            Self::SupabaseProject => lang.pick(
                "The Supabase project is stopped, not paid, read-only, or answers unlike Supabase: check SUPABASE_URL, and the project in Supabase's dashboard",
                "Проект Supabase остановлен, не оплачен, открыт только для чтения или отвечает не как Supabase: проверьте SUPABASE_URL и сам проект в панели Supabase",
            ),
            Self::SupabaseDatabase => lang.pick(
                "A policy, a trigger or a function of the database itself breaks off the reading of the table: mend it in Supabase's dashboard (SQL Editor; more in Logs, Postgres)",
                "Чтение таблицы прерывает политика, триггер или функция самой базы: исправьте её в панели Supabase (SQL Editor; подробности в Logs, Postgres)",
            ),
            Self::SupabaseWriteBack => lang.pick(
                "Supabase does not let the deal id be written: give the role the grant and the policy for UPDATE, and check the table's triggers and constraints. To set one row aside: tripwire-sync park <row>",
                "Supabase не даёт записать номер сделки: дайте роли право и политику UPDATE и проверьте триггеры и ограничения таблицы. Чтобы отложить одну строку: tripwire-sync park <строка>",
            ),
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
