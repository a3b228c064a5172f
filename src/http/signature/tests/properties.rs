use actix_web::http::header::HeaderName;
use proptest::prelude::*;

use super::*;

/// Changes one byte, and keeps the text valid.
fn flipped(text: &str, at: prop::sample::Index, by: u8) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let at = at.index(bytes.len());
    bytes[at] ^= by;
    String::from_utf8(bytes).ok()
}

proptest! {
    #[test]
    fn one_changed_byte_anywhere_refuses(
        part in 0..4_u8,
        at: prop::sample::Index,
        by in 1..=u8::MAX,
    ) {
        let mut delivery = Delivery::genuine();
        let text = match part {
            0 => {
                let at = at.index(delivery.body.len());
                delivery.body[at] ^= by;
                None
            }
            1 => Some(&mut delivery.id),
            2 => Some(&mut delivery.timestamp),
            _ => Some(&mut delivery.signatures),
        };
        if let Some(text) = text {
            let Some(changed) = flipped(text, at, by) else { return Ok(()) };
            *text = changed;
        }
        prop_assert!(delivery.verify().is_err(), "{delivery:?}");
    }

    #[test]
    fn what_we_sign_we_believe(
        key in prop::collection::vec(any::<u8>(), 24..=64),
        id in "[!-\\-/-~]{1,256}",
        second in 0..=253_402_207_200_i64,
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let secret = WebhookSecret::parse(&format!("whsec_{}", BASE64_STANDARD.encode(key))).unwrap();
        let now = Timestamp::from_second(second).unwrap();
        let signature = sign(&secret, &id, now, &body);
        let timestamp = second.to_string();
        let headers = SignedHeaders::new(&id, &timestamp, &signature).unwrap();
        prop_assert_eq!(verify(&[secret], &headers, &body, now, Duration::ZERO), Ok(()));
    }

    #[test]
    fn no_headers_make_it_panic_or_believe(
        values in prop::collection::vec(
            (
                prop::sample::select(vec![ID, TIMESTAMP, SIGNATURE, "authorization"]),
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    "[0-9]{0,20}".prop_map(String::into_bytes),
                    "(v1,[A-Za-z0-9+/=]{0,50} ?){0,12}".prop_map(String::into_bytes),
                    "(?i:bearer)[ \t]?[a-z]{0,9}".prop_map(String::into_bytes),
                ],
            ),
            0..8,
        ),
        body in prop::collection::vec(any::<u8>(), 0..50),
        now in Timestamp::MIN.as_second()..=Timestamp::MAX.as_second(),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        let now = Timestamp::from_second(now).unwrap();
        let verifier = verifier(Some("a token that nobody guesses"));
        prop_assert!(check(&verifier, &headers, &body, now).is_err());
    }
}
