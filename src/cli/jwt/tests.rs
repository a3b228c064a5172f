use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as URL};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use serde_json::Value;

use super::{key::KeyError, *};

const SECRET: &str = "a-legacy-secret-of-a-project-40-letters!";

/// The key of RFC 7515, appendix A.3.
const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const D: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";

fn jwk() -> Value {
    json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "kid-1", "x": X, "y": Y, "d": D,
            "use": "sig", "key_ops": ["sign", "verify"], "ext": true })
}

fn jwk_with(name: &str, value: Value) -> String {
    let mut jwk = jwk();
    jwk[name] = value;
    jwk.to_string()
}

fn parsed(text: &str) -> SigningKey {
    SigningKey::parse(text, None).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str, kid: Option<&str>) -> KeyError {
    let Err(error) = SigningKey::parse(text, kid) else {
        panic!("taken for a key: {text}");
    };
    error
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn minted(key: &SigningKey) -> String {
    mint(key, at("2026-11-22T10:00:00Z"), at("2027-11-22T10:00:00Z")).unwrap()
}

/// Header, claims, signed text, signature.
fn taken_apart(token: &str) -> (Value, Value, String, Vec<u8>) {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!("{token}");
    };
    let json = |part: &str| serde_json::from_slice(&URL.decode(part).unwrap()).unwrap();
    let signature = URL.decode(signature).unwrap();
    (
        json(header),
        json(claims),
        format!("{header}.{claims}"),
        signature,
    )
}

#[test]
fn the_shared_secret_signs_as_other_libraries_do() {
    // The example of jwt.io, whose secret is too short for Supabase.
    let key = SigningKey::Shared("your-256-bit-secret".into());
    let signed = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
                  eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ";
    let signature = URL.encode(key.sign(signed.as_bytes()).unwrap());
    assert_eq!(signature, "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c");
}

#[test]
fn a_token_of_the_secret_holds_the_role_and_its_end() {
    // As a file has it, with its newline.
    let token = minted(&parsed(&format!("{SECRET}\n")));
    let (header, claims, _, _) = taken_apart(&token);
    assert_eq!(header, json!({ "alg": "HS256", "typ": "JWT" }));
    assert_eq!(
        claims,
        json!({ "role": "tripwire_sync", "iss": "tripwire-sync", "iat": 1_795_341_300, "exp": 1_826_877_600 })
    );
    // Computed with Python's hmac.
    assert!(
        token.ends_with(".DLbkLcXCCVwPemzlt9W2kX5bygPgGU9eEZOZdKMajYY"),
        "{token}"
    );
}

#[test]
fn a_token_of_a_jwk_is_verified_by_its_public_half_and_names_it() {
    let token = minted(&parsed(&jwk().to_string()));
    let (header, claims, signed, signature) = taken_apart(&token);
    assert_eq!(
        header,
        json!({ "alg": "ES256", "typ": "JWT", "kid": "kid-1" })
    );
    assert_eq!(claims["role"], "tripwire_sync");

    let public = [vec![4], URL.decode(X).unwrap(), URL.decode(Y).unwrap()].concat();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public);
    public.verify(signed.as_bytes(), &signature).unwrap();
    assert!(public.verify(b"something else", &signature).is_err());
}

#[test]
fn a_list_of_one_key_is_that_key() {
    let key = parsed(&json!([jwk()]).to_string());
    assert_eq!((key.algorithm(), key.kid()), ("ES256", Some("kid-1")));
}

#[test]
fn a_pem_signs_too_and_is_told_its_id() {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let random = SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random).unwrap();
    let base64 = BASE64_STANDARD.encode(der.as_ref());
    let (head, tail) = base64.split_at(64);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{head}\n{tail}\n-----END PRIVATE KEY-----\n");

    let Ok(key) = SigningKey::parse(&pem, Some("kid-2")) else {
        panic!("not taken");
    };
    let (header, _, signed, signature) = taken_apart(&minted(&key));
    assert_eq!(header["kid"], "kid-2");
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
    public.verify(signed.as_bytes(), &signature).unwrap();
    assert_eq!(refused(&pem, None), KeyError::NoKid);
}

#[test]
fn what_is_no_key_is_told_by_its_kind_and_not_quoted() {
    let public_only = jwk_with("d", Value::Null);
    let other_curve = jwk_with("crv", json!("P-384"));
    let rsa = json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "AQAB" }).to_string();
    let shared = json!({ "kty": "oct", "k": "c2VjcmV0" }).to_string();
    let short = jwk_with("d", json!("AQAB"));
    let broken = jwk_with("x", json!(Y));
    let no_kid = jwk_with("kid", Value::Null);
    let two = json!([jwk(), jwk()]).to_string();
    let table = [
        ("", KeyError::Empty),
        (" \n", KeyError::Empty),
        ("eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl", KeyError::ApiKey),
        ("sb_secret_0123456789abcdef0123456789", KeyError::ApiKey),
        ("whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", KeyError::ApiKey),
        ("too-short", KeyError::NoSecret),
        (
            "postgresql://postgres:secret@db.example.supabase.co:5432/postgres",
            KeyError::NoSecret,
        ),
        (
            "a secret that has spaces in it is none, however long it is",
            KeyError::NoSecret,
        ),
        ("{", KeyError::NoPrivateJwk),
        ("[]", KeyError::NoPrivateJwk),
        (&public_only, KeyError::NoPrivateJwk),
        (&other_curve, KeyError::NoPrivateJwk),
        (&rsa, KeyError::NoPrivateJwk),
        (&shared, KeyError::NoPrivateJwk),
        (&short, KeyError::NoPrivateJwk),
        (&broken, KeyError::BrokenKey),
        (&no_kid, KeyError::NoKid),
        (&two, KeyError::SeveralKeys),
        (
            "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----",
            KeyError::NoPkcs8,
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            KeyError::NoPkcs8,
        ),
    ];
    for (text, expected) in table {
        let error = refused(text, None);
        assert_eq!(error, expected, "{text}");
        let told = format!("{error} {}", error.in_russian());
        assert!(text.len() < 8 || !told.contains(text), "{told}");
    }
    assert_eq!(refused(SECRET, Some("kid-1")), KeyError::NeedlessKid);
    assert_eq!(
        refused(&jwk().to_string(), Some("kid-2")),
        KeyError::OtherKid
    );
    assert!(SigningKey::parse(&no_kid, Some("kid-2")).is_ok());
}

#[test]
fn pasting_ends_when_nothing_is_missing() {
    let whole = serde_json::to_string_pretty(&jwk()).unwrap();
    let most = &whole[..whole.len() - 1];
    let pem = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----";
    for (text, is_whole) in [
        (SECRET, true),
        (&whole, true),
        (most, false),
        ("{", false),
        (pem, true),
        ("-----BEGIN PRIVATE KEY-----\nAAAA", false),
    ] {
        assert_eq!(key::is_whole(text), is_whole, "{text}");
    }
}

#[test]
fn a_token_lives_from_a_minute_to_ten_years() {
    for (text, days) in [("1d", 1), ("365d", 365), ("3650d", 3650)] {
        assert_eq!(lifetime(text), Ok(Duration::from_hours(24 * days)));
    }
    for text in ["0s", "59s", "11y", "forever", "365"] {
        assert!(lifetime(text).is_err(), "{text}");
    }
}
