//! Room in amoCRM's rate for a command. amoCRM counts its requests together with those of a service beside it.

use std::{num::NonZeroU32, path::Path, time::Duration};

use tokio::time::{Instant, sleep};

use super::{clock, terminal::Terminal};
use crate::inbox::{CommandTurn, Inbox, InboxError, Role};

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
    #[error("another command is asking amoCRM")]
    AnotherCommand,
    #[error("the service has made no room for this command: it is busy or hangs, try again")]
    Unnoticed,
    #[error(transparent)]
    Inbox(#[from] InboxError),
}

impl Room {
    /// Waits until the service on this inbox, if there is one, has made room. Before that, waits a limited time for a
    /// command that came first.
    pub(super) async fn take(path: &Path, terminal: &mut Terminal) -> Result<Self, NoRoom> {
        if !path.exists() {
            return Ok(Self {
                announced: None,
                is_beside_a_service: false,
            });
        }
        let inbox = Inbox::open(path, Role::Guest, clock()).await?;
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
            assume_full_window: self.is_beside_a_service,
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
