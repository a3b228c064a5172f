//! What can sign a token, told apart by its content.

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use hmac::{Hmac, KeyInit, Mac};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::Sha256;

/// Supabase takes no shorter secret.
const SHORTEST_SECRET: usize = 32;
/// Bytes of a number of the curve P-256.
const COORDINATE: usize = 32;

pub(super) enum SigningKey {
    /// The project's legacy secret: its text is the key, as it stands.
    Shared(SecretString),
    Es256 {
        pair: Box<EcdsaKeyPair>,
        kid: String,
    },
}

/// Why a text is no key. Never quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("no key was given")]
    Empty,
    #[error(
        "this is an API key or a token: it was signed with the JWT secret, which is what is wanted here (dashboard: Project Settings, JWT Keys)"
    )]
    ApiKey,
    #[error(
        "this is not the JWT secret of a Supabase project: one line of {SHORTEST_SECRET} characters or more"
    )]
    NoSecret,
    #[error(
        "this is JSON, but not a private ES256 key (kty EC, crv P-256, x, y and d), as `supabase gen signing-key --algorithm ES256` prints it"
    )]
    NoPrivateJwk,
    #[error("there are several keys in this file: leave the one to sign with")]
    SeveralKeys,
    #[error("the parts of this key do not belong together")]
    BrokenKey,
    #[error(
        "this PEM is not a PKCS#8 private key of the curve P-256; `openssl pkcs8 -topk8 -nocrypt -in KEY` makes one of an EC key"
    )]
    NoPkcs8,
    #[error(
        "the key does not tell its id: give it with --kid, as the dashboard shows it (Project Settings, JWT Keys)"
    )]
    NoKid,
    #[error("--kid is only for an ES256 key; a token of the legacy secret carries none")]
    NeedlessKid,
    #[error("--kid and the key tell different ids")]
    OtherKid,
}

impl KeyError {
    pub(super) fn in_russian(self) -> String {
        match self {
            Self::Empty => "ключ не передан",
            Self::ApiKey => "это API-ключ или токен: нужен JWT-секрет, которым он подписан (панель: Project Settings, JWT Keys)",
            Self::NoSecret => "это не JWT-секрет проекта Supabase: одна строка, не короче 32 символов",
            Self::NoPrivateJwk => "это JSON, но не закрытый ключ ES256 (kty EC, crv P-256, x, y и d), какой печатает `supabase gen signing-key --algorithm ES256`",
            Self::SeveralKeys => "в файле несколько ключей: оставьте тот, которым подписывать",
            Self::BrokenKey => "части этого ключа не подходят друг к другу",
            Self::NoPkcs8 => "это PEM, но не закрытый ключ PKCS#8 кривой P-256; из ключа EC его делает `openssl pkcs8 -topk8 -nocrypt -in KEY`",
            Self::NoKid => "в ключе нет его id: передайте его через --kid, как он показан в панели (Project Settings, JWT Keys)",
            Self::NeedlessKid => "--kid нужен только ключу ES256; у токена старого секрета его нет",
            Self::OtherKid => "--kid и сам ключ называют разные id",
        }
        .to_owned()
    }
}

/// The system gave no randomness.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("signing failed")]
pub(super) struct SigningFailed;

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
    d: SecretString,
    kid: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Jwks {
    One(Jwk),
    /// `supabase gen signing-key --append` keeps them so.
    Listed(Vec<Jwk>),
}

/// Whether nothing of a pasted key is missing: only JSON and PEM have more than one line.
pub(super) fn is_whole(text: &str) -> bool {
    let text = text.trim();
    match text.bytes().next() {
        Some(b'{' | b'[') => serde_json::from_str::<serde_json::Value>(text).is_ok(),
        Some(b'-') => text.matches("-----").count() >= 4,
        _ => true,
    }
}

impl SigningKey {
    pub(super) fn parse(text: &str, kid: Option<&str>) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.is_empty() {
            Err(KeyError::Empty)
        } else if text.starts_with(['{', '[']) {
            of_jwk(text, kid)
        } else if text.starts_with("-----BEGIN") {
            of_pem(text, kid)
        } else {
            shared(text, kid)
        }
    }

    pub(super) fn algorithm(&self) -> &'static str {
        match self {
            Self::Shared(_) => "HS256",
            Self::Es256 { .. } => "ES256",
        }
    }

    pub(super) fn kid(&self) -> Option<&str> {
        match self {
            Self::Shared(_) => None,
            Self::Es256 { kid, .. } => Some(kid),
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed> {
        match self {
            Self::Shared(secret) => {
                let mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes());
                let mut mac = mac.map_err(|_| SigningFailed)?;
                mac.update(message);
                Ok(mac.finalize().into_bytes().to_vec())
            }
            Self::Es256 { pair, .. } => {
                let signature = pair.sign(&SystemRandom::new(), message);
                Ok(signature.map_err(|_| SigningFailed)?.as_ref().to_vec())
            }
        }
    }
}

fn shared(text: &str, kid: Option<&str>) -> Result<SigningKey, KeyError> {
    let is_other = ["eyJ", "sb_", "whsec_", "sbp_"]
        .iter()
        .any(|start| text.starts_with(start));
    if is_other {
        return Err(KeyError::ApiKey);
    }
    if text.len() < SHORTEST_SECRET || text.contains(char::is_whitespace) || text.contains("://") {
        return Err(KeyError::NoSecret);
    }
    if kid.is_some() {
        return Err(KeyError::NeedlessKid);
    }
    Ok(SigningKey::Shared(text.into()))
}

fn of_jwk(text: &str, kid: Option<&str>) -> Result<SigningKey, KeyError> {
    let jwk = match serde_json::from_str(text).map_err(|_| KeyError::NoPrivateJwk)? {
        Jwks::One(jwk) => jwk,
        Jwks::Listed(mut listed) => match (listed.pop(), listed.is_empty()) {
            (Some(jwk), true) => jwk,
            (Some(_), false) => return Err(KeyError::SeveralKeys),
            (None, _) => return Err(KeyError::NoPrivateJwk),
        },
    };
    if jwk.kty != "EC" || jwk.crv != "P-256" {
        return Err(KeyError::NoPrivateJwk);
    }
    let number = |text: &str| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        bytes.ok().filter(|bytes| bytes.len() == COORDINATE)
    };
    let (Some(x), Some(y), Some(d)) = (
        number(&jwk.x),
        number(&jwk.y),
        number(jwk.d.expose_secret()),
    ) else {
        return Err(KeyError::NoPrivateJwk);
    };
    // As X9.62 writes a point that is not compressed.
    let public = [&[4][..], &x, &y].concat();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &d,
        &public,
        &SystemRandom::new(),
    );
    let pair = pair.map_err(|_| KeyError::BrokenKey)?;
    es256(pair, jwk.kid.as_deref(), kid)
}

fn of_pem(text: &str, kid: Option<&str>) -> Result<SigningKey, KeyError> {
    let inner = text
        .strip_prefix("-----BEGIN PRIVATE KEY-----")
        .and_then(|text| text.strip_suffix("-----END PRIVATE KEY-----"))
        .ok_or(KeyError::NoPkcs8)?;
    let base64: String = inner.split_whitespace().collect();
    let der = BASE64_STANDARD
        .decode(base64)
        .map_err(|_| KeyError::NoPkcs8)?;
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &SystemRandom::new());
    es256(pair.map_err(|_| KeyError::NoPkcs8)?, None, kid)
}

/// Without its id PostgREST would not know by which of the project's keys to verify.
fn es256(
    pair: EcdsaKeyPair,
    own: Option<&str>,
    given: Option<&str>,
) -> Result<SigningKey, KeyError> {
    if own.zip(given).is_some_and(|(own, given)| own != given) {
        return Err(KeyError::OtherKid);
    }
    let kid = own.or(given).filter(|kid| !kid.is_empty());
    Ok(SigningKey::Es256 {
        pair: Box::new(pair),
        kid: kid.ok_or(KeyError::NoKid)?.to_owned(),
    })
}
