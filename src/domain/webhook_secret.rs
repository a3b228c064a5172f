use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretSlice};

/// The key that signs a delivery, written `whsec_<base64>`.
#[derive(Clone)]
pub struct WebhookSecret(SecretSlice<u8>);

/// Why a text is not a secret. Never quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookSecretError {
    #[error("a webhook secret starts with whsec_")]
    NoPrefix,
    #[error("what follows whsec_ is not base64")]
    NotBase64,
    #[error("a webhook secret holds 24 to 64 bytes, this one {bytes}")]
    Length { bytes: usize },
}

impl WebhookSecret {
    pub fn parse(text: &str) -> Result<Self, WebhookSecretError> {
        let encoded = text
            .strip_prefix("whsec_")
            .ok_or(WebhookSecretError::NoPrefix)?;
        let key = BASE64_STANDARD
            .decode(encoded)
            .map_err(|_| WebhookSecretError::NotBase64)?;
        if !(24..=64).contains(&key.len()) {
            return Err(WebhookSecretError::Length { bytes: key.len() });
        }
        Ok(Self(key.into()))
    }

    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: usize) -> Result<WebhookSecret, WebhookSecretError> {
        WebhookSecret::parse(&format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes])))
    }

    #[test]
    fn a_secret_holds_24_to_64_bytes() {
        for bytes in [24, 32, 64] {
            assert_eq!(parsed(bytes).unwrap().key(), vec![7; bytes]);
        }
        for bytes in [0, 23, 65] {
            let error = parsed(bytes).unwrap_err();
            assert_eq!(error, WebhookSecretError::Length { bytes });
        }
    }

    #[test]
    fn what_is_not_a_secret_is_named_and_not_quoted() {
        let no_prefix = WebhookSecret::parse("c2VjcmV0").unwrap_err();
        let not_base64 = WebhookSecret::parse("whsec_c2Vj cmV0").unwrap_err();

        assert_eq!(no_prefix, WebhookSecretError::NoPrefix);
        assert_eq!(not_base64, WebhookSecretError::NotBase64);
        assert!(!format!("{no_prefix} {not_base64}").contains("c2V"));
    }

    #[test]
    fn a_secret_says_nothing_in_debug() {
        assert_eq!(format!("{:?}", parsed(32).unwrap()), "WebhookSecret(…)");
    }
}
