//! Telegram's Bot API, as far as three calls go: `sendMessage`, `getMe`, `getChat`.
//!
//! The token is a part of the address, so no address may reach an error or a log.

use std::{sync::Arc, time::Duration};

use outbound::{Failure, read_up_to};
use parking_lot::Mutex;
use reqwest::{StatusCode, header::CONTENT_TYPE};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use crate::domain::{TelegramBot, USER_AGENT, harmless};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(15);
/// The answer that matters here has about a hundred bytes.
const LONGEST_ANSWER: usize = 16 << 10;

/// A bot that writes to one chat.
#[derive(Debug, Clone)]
pub struct Telegram {
    http: reqwest::Client,
    bot: TelegramBot,
    /// The configured id, until Telegram names another.
    chat_id: Arc<Mutex<String>>,
}

/// Why a message was not taken, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum TelegramError {
    #[error("no connection to Telegram")]
    NotSent(#[source] reqwest::Error),
    #[error("no answer from Telegram")]
    NoAnswer(#[source] reqwest::Error),
    #[error("Telegram asks for fewer messages (429)")]
    Throttled { retry_after: Option<Duration> },
    #[error("Telegram does not know the bot's token ({status})")]
    Token { status: u16 },
    #[error("Telegram does not let the bot write to this chat ({status})")]
    Chat { status: u16 },
    /// A group that became a supergroup.
    #[error("the chat's id is {to} now")]
    Moved { to: i64 },
    #[error("unexpected answer from Telegram ({status})")]
    Unexpected { status: u16 },
}

impl TelegramError {
    /// Whether the same message may be taken a little later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::NoAnswer(_) | Self::Throttled { .. } => true,
            Self::Unexpected { status } => *status >= 500,
            Self::Token { .. } | Self::Chat { .. } | Self::Moved { .. } => false,
        }
    }

    /// The pause that Telegram asks for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } => *retry_after,
            Self::NotSent(_)
            | Self::NoAnswer(_)
            | Self::Token { .. }
            | Self::Chat { .. }
            | Self::Moved { .. }
            | Self::Unexpected { .. } => None,
        }
    }
}

/// `{"ok":false,"error_code":429,"description":"…","parameters":{"retry_after":37}}`, or with
/// `{"migrate_to_chat_id":-1001234567890}`.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    retry_after: Option<u64>,
    migrate_to_chat_id: Option<i64>,
}

/// `{"ok":true,"result":{"id":123456,"is_bot":true,"username":"school_alerts_bot"}}`
#[derive(Debug, Deserialize)]
struct Me {
    result: Bot,
}

#[derive(Debug, Deserialize)]
struct Bot {
    username: String,
}

impl Telegram {
    pub fn new(bot: &TelegramBot) -> Result<Self, reqwest::Error> {
        let http = outbound::client_builder(USER_AGENT, CONNECT_TIMEOUT, &[])?
            .timeout(TIMEOUT)
            .build()
            .map_err(reqwest::Error::without_url)?;
        Ok(Self {
            http,
            bot: bot.clone(),
            chat_id: Arc::new(Mutex::new(bot.chat_id.clone())),
        })
    }

    /// Sends one message, once. If Telegram names another id of the chat, the client uses that id from now on and says so in
    /// the message.
    pub async fn send(&self, text: &str) -> Result<(), TelegramError> {
        match self.send_to(self.chat_id(), text).await {
            Err(TelegramError::Moved { to }) => {
                tracing::warn!(chat.id = to, "alerts.chat_moved");
                let text = format!(
                    "{text}\n\nГруппа стала супергруппой: впишите в настройки TELEGRAM_CHAT_ID={to}"
                );
                self.send_to(to.to_string(), &text).await?;
                *self.chat_id.lock() = to.to_string();
                Ok(())
            }
            sent => sent,
        }
    }

    async fn send_to(&self, chat_id: String, text: &str) -> Result<(), TelegramError> {
        // Names and reasons come from amoCRM and Supabase.
        let text = harmless(text, &['\n']);
        let message = json!({ "chat_id": chat_id, "text": text, "disable_web_page_preview": true });
        self.call("sendMessage", &message).await.map(drop)
    }

    /// Whether Telegram knows the bot, and the bot the chat. Returns the bot's name, without its `@`.
    pub async fn look(&self) -> Result<String, TelegramError> {
        let name = self.bot_name().await?;
        self.look_at_chat().await?;
        Ok(name)
    }

    pub(super) async fn bot_name(&self) -> Result<String, TelegramError> {
        let answer = self.call("getMe", &json!({})).await?;
        let me: Option<Me> = serde_json::from_slice(&answer).ok();
        let name = me.map(|me| me.result.username);
        // It is shown to people, so it has to look like a name.
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        name.filter(|name| name.len() <= 64 && name.chars().all(is_name))
            .ok_or(TelegramError::Unexpected { status: 200 })
    }

    pub(super) async fn look_at_chat(&self) -> Result<(), TelegramError> {
        let chat = json!({ "chat_id": self.chat_id() });
        self.call("getChat", &chat).await.map(drop)
    }

    fn chat_id(&self) -> String {
        self.chat_id.lock().clone()
    }

    async fn call(&self, method: &str, body: &Value) -> Result<Vec<u8>, TelegramError> {
        let sent = self
            .http
            .post(self.address(method))
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string())
            .send()
            .await;
        let mut response = sent.map_err(Failure::from)?;
        let status = response.status();
        let answer = read_up_to(&mut response, LONGEST_ANSWER).await.prefix();
        if status.is_success() {
            // The message is sent, even if the rest of the answer is lost.
            return Ok(answer);
        }
        // A refusal that cannot be read counts as one without parameters.
        let refusal: Option<Refusal> = serde_json::from_slice(&answer).ok();
        let Parameters {
            retry_after,
            migrate_to_chat_id,
        } = refusal.unwrap_or_default().parameters;
        let told = status.as_u16();
        Err(match (status, migrate_to_chat_id) {
            (StatusCode::TOO_MANY_REQUESTS, _) => TelegramError::Throttled {
                retry_after: retry_after.map(Duration::from_secs),
            },
            // The token is part of the path, so a wrong one is answered with 404.
            (StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND, _) => {
                TelegramError::Token { status: told }
            }
            (StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN, Some(to)) => {
                TelegramError::Moved { to }
            }
            (StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN, None) => {
                TelegramError::Chat { status: told }
            }
            _ => TelegramError::Unexpected { status: told },
        })
    }

    fn address(&self, method: &str) -> Url {
        let mut url = self.bot.base_url.clone();
        let root = self.bot.base_url.path().trim_end_matches('/');
        let token = self.bot.token.expose_secret();
        url.set_path(&format!("{root}/bot{token}/{method}"));
        url
    }
}

impl From<Failure> for TelegramError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent { source, .. } => Self::NotSent(source),
            Failure::NoAnswer { source } => Self::NoAnswer(source),
        }
    }
}
