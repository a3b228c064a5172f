//! The Telegram side: bot and chat. Nothing is sent.

use super::findings::{Findings, Mark, Section};
use crate::{
    alerts::{Telegram, TelegramError},
    cli::{Outcome, failure},
    domain::TelegramBot,
};

pub(super) async fn check(bot: &TelegramBot, findings: &mut Findings) -> Outcome {
    let mut section = findings.on("telegram");
    match Telegram::new(bot)?.look().await {
        Ok(bot) => section.good(
            format!("@{bot} knows the chat of TELEGRAM_CHAT_ID"),
            format!("@{bot} знает чат из TELEGRAM_CHAT_ID"),
        ),
        Err(error) => complain(&error, &mut section),
    }
    Ok(())
}

fn complain(error: &TelegramError, section: &mut Section<'_>) {
    let reader = section.reader;
    let todo = match error {
        TelegramError::Moved { to } => {
            section.advise(
                format!("the group became a supergroup; alerts find it by themselves. Set TELEGRAM_CHAT_ID to {to}"),
                format!("группа стала супергруппой; сообщения найдут её сами. Впишите в TELEGRAM_CHAT_ID {to}"),
            );
            return;
        }
        TelegramError::Token { .. } => reader.pick(
            "copy TELEGRAM_BOT_TOKEN from @BotFather again",
            "скопируйте TELEGRAM_BOT_TOKEN у @BotFather ещё раз",
        ),
        TelegramError::Chat { .. } => reader.pick(
            "check TELEGRAM_CHAT_ID; add the bot to the group, or write to it first",
            "проверьте TELEGRAM_CHAT_ID; добавьте бота в группу или напишите ему первым",
        ),
        TelegramError::NotSent(_)
        | TelegramError::NoAnswer(_)
        | TelegramError::Throttled { .. }
        | TelegramError::Unexpected { .. } => reader.pick(
            "check the network and TELEGRAM_BASE_URL, and try again",
            "проверьте сеть и TELEGRAM_BASE_URL и попробуйте ещё раз",
        ),
    };
    let told = failure::told(error, reader.lang);
    section.add(Mark::Bad, format!("{told}: {todo}"));
}
