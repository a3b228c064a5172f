//! The bot that writes to a person.

use secrecy::SecretString;
use url::Url;

#[derive(Debug, Clone)]
pub struct TelegramBot {
    pub token: SecretString,
    pub chat_id: String,
    pub base_url: Url,
}
