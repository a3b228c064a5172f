//! Room in amoCRM's rate for a command. amoCRM counts its requests together with those of a service beside it.

use std::{num::NonZeroU32, path::Path, time::Duration};

use amocrm::AmoCrm;
use tokio::time::{Instant, sleep};

use super::{CommandError, clock, terminal::Terminal};
use crate::{
    app::amocrm_settings,
    config::AmocrmAccess,
    domain::{Halt, HaltCause},
    inbox::{CommandTurn, HALT, Inbox, InboxError, Role},
    sync::rules::timings::Timings,
};

/// The service keeps the rest of the rate.
pub(super) const REQUESTS_PER_SECOND: u32 = 1;

/// A service notices a command within two seconds. One whose engine is kept busy does not, while its runs go on sending.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(50);

/// How long a command waits for another one.
const OTHERS_WITHIN: Duration = Duration::from_secs(30);

/// Room for one request a second, held until it is given back.
#[derive(Debug)]
pub(super) struct Room {
    /// `None`: there is no inbox, so no service works beside this command.
    announced: Option<(Inbox, CommandTurn)>,
    /// The service may have used up the last second.
    is_beside_a_service: bool,
}

/// Why there is no room.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRoom {
    #[error("amoCRM has forbidden access (403): nothing is sent until `tripwire-sync resume`")]
    Forbidden,
    #[error("another command is asking amoCRM")]
    AnotherCommand,
    #[error("the service has made no room for this command: it is busy or hangs, try again")]
    Unnoticed,
    #[error(transparent)]
    Inbox(#[from] InboxError),
}

impl Room {
    /// Waits until the service on this inbox, if there is one, has made room. Before that, waits a limited time for a
    /// command that came first. Fails at once if amoCRM has forbidden access. `None`: no inbox is known.
    pub(super) async fn take(path: Option<&Path>, terminal: &mut Terminal) -> Result<Self, NoRoom> {
        let Some(path) = path.filter(|path| path.exists()) else {
            return Ok(Self {
                announced: None,
                is_beside_a_service: false,
            });
        };
        let inbox = Inbox::open(path, Role::Guest, clock()).await?;
        if is_forbidden(&inbox).await? {
            inbox.close().await;
            return Err(NoRoom::Forbidden);
        }
        let turn = announce(&inbox, terminal).await?;
        let is_beside_a_service = Inbox::is_owned(path)?;
        if is_beside_a_service {
            let give_up_at = Instant::now() + NOTICED_WITHIN;
            while !inbox.is_command_noticed().await? && Inbox::is_owned(path)? {
                if Instant::now() >= give_up_at {
                    inbox.end_command(turn).await?;
                    inbox.close().await;
                    return Err(NoRoom::Unnoticed);
                }
                sleep(GLANCE).await;
            }
        }
        Ok(Self {
            announced: Some((inbox, turn)),
            is_beside_a_service,
        })
    }

    /// A client's settings within this room.
    pub(super) fn within(&self, settings: amocrm::Settings) -> amocrm::Settings {
        amocrm::Settings {
            requests_per_second: NonZeroU32::new(REQUESTS_PER_SECOND).unwrap_or(NonZeroU32::MIN),
            assume_full_window: settings.assume_full_window || self.is_beside_a_service,
            ..settings
        }
    }

    /// If this fails, the service takes back what this command announced as soon as the process has ended.
    pub(super) async fn give_back(self) {
        if let Some((inbox, turn)) = self.announced {
            let _ = inbox.end_command(turn).await;
            inbox.close().await;
        }
    }
}

/// Whether amoCRM has answered a 403, after which nothing may ask it.
pub(super) async fn is_forbidden(inbox: &Inbox) -> Result<bool, InboxError> {
    let halt: Option<Halt> = inbox.state(HALT).await?;
    Ok(halt.is_some_and(|halt| halt.cause == HaltCause::AmocrmForbidden))
}

/// The settings of a client by which a command asks amoCRM: one that has not asked yet.
pub(super) fn client(access: AmocrmAccess) -> amocrm::Settings {
    let (url, token) = (access.base_url, access.token);
    amocrm::Settings {
        assume_full_window: false,
        ..amocrm_settings(url, token, REQUESTS_PER_SECOND, &Timings::default())
    }
}

/// Asks amoCRM within a room, which is given back afterwards.
pub(super) async fn ask<T>(
    path: Option<&Path>,
    client: amocrm::Settings,
    terminal: &mut Terminal,
    questions: impl AsyncFnOnce(&AmoCrm) -> T,
) -> Result<T, CommandError> {
    let room = Room::take(path, terminal).await?;
    let answers = match AmoCrm::new(room.within(client), clock()) {
        Ok(amocrm) => Ok(questions(&amocrm).await),
        Err(error) => Err(error.into()),
    };
    room.give_back().await;
    answers
}

async fn announce(inbox: &Inbox, terminal: &mut Terminal) -> Result<CommandTurn, NoRoom> {
    let give_up_at = Instant::now() + OTHERS_WITHIN;
    let mut has_said_so = false;
    loop {
        if let Some(turn) = inbox.announce_command().await? {
            return Ok(turn);
        }
        if Instant::now() >= give_up_at {
            return Err(NoRoom::AnotherCommand);
        }
        if !std::mem::replace(&mut has_said_so, true) {
            terminal.complain(terminal.pick(
                "another command is asking amoCRM: waiting for its end",
                "другая команда обращается к amoCRM: эта ждёт её завершения",
            ));
        }
        sleep(GLANCE).await;
    }
}
