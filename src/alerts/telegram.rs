//! Telegram's Bot API, as far as one call goes.
//!
//! The token is a part of the address, so no address may reach an error or a log.

use std::time::Duration;

use reqwest::{StatusCode, header::CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::Settings;
use crate::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(15);
/// The answer that matters here has about a hundred bytes.
const LONGEST_ANSWER: usize = 16 << 10;

/// A bot that writes to one chat.
#[derive(Debug, Clone)]
pub struct Telegram {
    http: reqwest::Client,
    base_url: Url,
    bot_token: SecretString,
    chat_id: String,
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
            Self::Token { .. } | Self::Chat { .. } => false,
        }
    }

    /// How long Telegram wants to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } => *retry_after,
            Self::NotSent(_)
            | Self::NoAnswer(_)
            | Self::Token { .. }
            | Self::Chat { .. }
            | Self::Unexpected { .. } => None,
        }
    }
}

/// `{"ok":false,"error_code":429,"description":"…","parameters":{"retry_after":37}}`
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    retry_after: Option<u64>,
}

impl Telegram {
    pub fn new(settings: &Settings) -> Result<Self, reqwest::Error> {
        let http = tls::client_builder(CONNECT_TIMEOUT, &[])?
            .timeout(TIMEOUT)
            .build()
            .map_err(reqwest::Error::without_url)?;
        Ok(Self {
            http,
            base_url: settings.base_url.clone(),
            bot_token: settings.bot_token.clone(),
            chat_id: settings.chat_id.clone(),
        })
    }

    /// Sends one message, once.
    pub async fn send(&self, text: &str) -> Result<(), TelegramError> {
        let body = json!({
            "chat_id": self.chat_id,
            "text": text,
            "disable_web_page_preview": true,
        });
        let mut response = self
            .http
            .post(self.address())
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string())
            .send()
            .await
            .map_err(failure)?;
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::TOO_MANY_REQUESTS => Err(TelegramError::Throttled {
                retry_after: retry_after(&mut response).await,
            }),
            // An unknown token is an unknown path.
            status @ (StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND) => {
                Err(TelegramError::Token {
                    status: status.as_u16(),
                })
            }
            status @ (StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN) => {
                Err(TelegramError::Chat {
                    status: status.as_u16(),
                })
            }
            status => Err(TelegramError::Unexpected {
                status: status.as_u16(),
            }),
        }
    }

    fn address(&self) -> Url {
        let mut url = self.base_url.clone();
        let root = self.base_url.path().trim_end_matches('/');
        let token = self.bot_token.expose_secret();
        url.set_path(&format!("{root}/bot{token}/sendMessage"));
        url
    }
}

async fn retry_after(response: &mut reqwest::Response) -> Option<Duration> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_ANSWER {
            return None;
        }
    }
    let refusal: Refusal = serde_json::from_slice(&body).ok()?;
    refusal.parameters.retry_after.map(Duration::from_secs)
}

fn failure(error: reqwest::Error) -> TelegramError {
    let error = error.without_url();
    if error.is_connect() || error.is_builder() {
        TelegramError::NotSent(error)
    } else {
        TelegramError::NoAnswer(error)
    }
}
