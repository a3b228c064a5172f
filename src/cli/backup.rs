//! `backup`: a copy of the inbox, beside a service that may be running on it.

use std::path::Path;

use super::{CommandError, Outcome, terminal::Terminal};
use crate::{config::Config, inbox::Inbox};

pub(super) async fn run(file: &Path, terminal: &mut Terminal) -> Outcome {
    let path = Config::load_inbox_path()?;
    if !path.exists() {
        let what = terminal.pick("there is no inbox at", "нет файла очереди:");
        terminal.complain(&format!("{what} {} (DATABASE_URL)", path.display()));
        return Err(CommandError::Told);
    }
    let bytes = Inbox::copy(&path, file).await?;
    let copied = terminal.pick("copied, bytes:", "скопировано, байт:");
    let keep = terminal.pick(
        "Keep it as you keep secrets: it can confirm whether a guessed e-mail or phone is in it.",
        "Храните как секрет: по копии можно проверить, есть ли в ней угаданный e-mail или телефон.",
    );
    terminal.say(&format!("{copied} {bytes}, {}", file.display()))?;
    Ok(terminal.say(keep)?)
}
