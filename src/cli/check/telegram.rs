//! The Telegram side: bot and chat. Nothing is sent.

use super::findings::Findings;
use crate::{
    alerts::{Settings, Telegram, TelegramError},
    cli::Outcome,
    cli::failure,
};

const WHAT: &str = "telegram";

pub(super) async fn check(settings: &Settings, findings: &mut Findings) -> Outcome {
    let lang = findings.reader.lang;
    let telegram = Telegram::new(settings)?;
    let bot = match telegram.bot_name().await {
        Ok(name) => name,
        Err(error) => {
            complain(&error, findings);
            return Ok(());
        }
    };
    match telegram.look_at_chat().await {
        Ok(()) => {
            let text = lang.pick(
                "knows the chat of TELEGRAM_CHAT_ID",
                "знает чат из TELEGRAM_CHAT_ID",
            );
            findings.good(WHAT, format!("@{bot} {text}"));
        }
        Err(error) => complain(&error, findings),
    }
    Ok(())
}

fn complain(error: &TelegramError, findings: &mut Findings) {
    let todo = match error {
        TelegramError::Moved { to } => {
            let text = findings.reader.lang.pick(
                "the group became a supergroup; alerts find it by themselves. Set TELEGRAM_CHAT_ID to",
                "группа стала супергруппой; сообщения найдут её сами. Впишите в TELEGRAM_CHAT_ID",
            );
            findings.advise(WHAT, format!("{text} {to}"));
            return;
        }
        TelegramError::Token { .. } => findings.reader.lang.pick(
            "copy TELEGRAM_BOT_TOKEN from @BotFather again",
            "скопируйте TELEGRAM_BOT_TOKEN у @BotFather ещё раз",
        ),
        TelegramError::Chat { .. } => findings.reader.lang.pick(
            "check TELEGRAM_CHAT_ID; add the bot to the group, or write to it first",
            "проверьте TELEGRAM_CHAT_ID; добавьте бота в группу или напишите ему первым",
        ),
        TelegramError::NotSent(_)
        | TelegramError::NoAnswer(_)
        | TelegramError::Throttled { .. }
        | TelegramError::Unexpected { .. } => findings.reader.lang.pick(
            "check the network and TELEGRAM_BASE_URL, and try again",
            "проверьте сеть и TELEGRAM_BASE_URL и попробуйте ещё раз",
        ),
    };
    findings.bad(
        WHAT,
        format!("{}: {todo}", failure::told(error, findings.reader.lang)),
    );
}
