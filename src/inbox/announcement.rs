//! A command that sends to amoCRM beside the service on the same inbox: it announces itself, so that the service leaves it a
//! request a second. One command at a time.

use std::fs::File;

use serde::{Deserialize, Serialize};

use super::{Inbox, InboxError, commands::StoredState, sqlite};

/// The key of the announcement in the engine's own state.
const COMMAND: &str = "command";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Announcement {
    /// The service has left it a request a second.
    is_noticed: bool,
}

/// The announcement of a command at work. If the process dies, its lock is free, and the service takes the announcement back.
#[derive(Debug)]
pub struct CommandTurn {
    _lock: File,
}

impl Inbox {
    /// Announces a command. `None`: another one is at work.
    pub async fn announce_command(&self) -> Result<Option<CommandTurn>, InboxError> {
        let Some(lock) = sqlite::try_lock(&self.shared.path, sqlite::COMMAND_LOCK)? else {
            return Ok(None);
        };
        let announcement = Announcement { is_noticed: false };
        self.set_state(COMMAND, &announcement).await?;
        Ok(Some(CommandTurn { _lock: lock }))
    }

    /// Whether the service has left room for the announced command.
    pub async fn is_command_noticed(&self) -> Result<bool, InboxError> {
        let announced: Option<Announcement> = self.state(COMMAND).await?;
        Ok(announced.is_some_and(|command| command.is_noticed))
    }

    /// Takes the announcement back.
    pub async fn end_command(&self, turn: CommandTurn) -> Result<(), InboxError> {
        self.clear_state(COMMAND).await?;
        drop(turn);
        Ok(())
    }

    /// Whether a command is at work. Takes back what a dead one announced.
    pub async fn is_command_at_work(&self) -> Result<bool, InboxError> {
        if self.state::<Announcement>(COMMAND).await?.is_none() {
            return Ok(false);
        }
        // While the lock is ours no other command can announce itself.
        let Some(lock) = sqlite::try_lock(&self.shared.path, sqlite::COMMAND_LOCK)? else {
            return Ok(true);
        };
        self.clear_state(COMMAND).await?;
        drop(lock);
        Ok(false)
    }

    /// Records that the service has left room for the command.
    pub async fn notice_command(&self) -> Result<(), InboxError> {
        if self.is_command_noticed().await? {
            return Ok(());
        }
        // The command may have ended meanwhile.
        let notice = |state: &mut StoredState| match state.get::<Announcement>(COMMAND)? {
            Some(_) => state.set(COMMAND, Some(&Announcement { is_noticed: true })),
            None => Ok(()),
        };
        self.change_state(&[COMMAND], notice).await
    }
}
