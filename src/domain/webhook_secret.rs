use std::fmt::{self, Write as _};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;

/// The signed text of an event has dots in it, so no event can be this text.
const FINGERPRINTED: &[u8] = b"tripwire-sync doctor";
/// Hex digits of a fingerprint.
const FINGERPRINT_LENGTH: usize = 16;

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

impl WebhookSecretError {
    #[must_use]
    pub fn in_russian(self) -> String {
        match self {
            Self::NoPrefix => "секрет вебхука начинается с whsec_".to_owned(),
            Self::NotBase64 => "после whsec_ должен быть base64".to_owned(),
            Self::Length { bytes } => {
                format!("секрет вебхука содержит от 24 до 64 байт, а этот {bytes}")
            }
        }
    }
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

    /// As it was parsed.
    #[must_use]
    pub fn to_text(&self) -> SecretString {
        format!("whsec_{}", BASE64_STANDARD.encode(self.key())).into()
    }

    /// Two places that hold the same secret have the same fingerprint, which does not reveal the secret.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        // A key of any length will do, so this does not fail.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key()) else {
            return String::new();
        };
        mac.update(FINGERPRINTED);
        let hex = mac.finalize().into_bytes().iter().fold(
            String::with_capacity(2 * FINGERPRINT_LENGTH),
            |mut hex, byte| {
                // Writing to a string does not fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            },
        );
        hex[..FINGERPRINT_LENGTH].to_owned()
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
    fn a_secret_is_written_as_it_was_read_and_known_by_its_fingerprint() {
        let text = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=";
        let secret = WebhookSecret::parse(text).unwrap();
        assert_eq!(secret.to_text().expose_secret(), text);
        // printf 'tripwire-sync doctor' | openssl dgst -sha256 -hmac tripwire-test-key-0001-0001-0001
        assert_eq!(secret.fingerprint(), "9b93e250f14f3507");
        assert_ne!(secret.fingerprint(), parsed(32).unwrap().fingerprint());
    }

    #[test]
    fn a_secret_says_nothing_in_debug() {
        assert_eq!(format!("{:?}", parsed(32).unwrap()), "WebhookSecret(…)");
    }
}
