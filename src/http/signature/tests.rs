use actix_web::http::header::HeaderName;

use super::*;

mod properties;

const TOLERANCE: Duration = Duration::from_mins(5);

/// Computed with the reference libraries of Standard Webhooks for JavaScript and Python, and with Postgres.
const VECTORS: [Vector; 3] = [
    Vector {
        secret: "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=",
        id: "msg_tw_0001",
        timestamp: "1795330000",
        body: r#"{"type": "INSERT", "table": "tripwire_users", "record": {"id": "00000000-0000-4000-8000-000000000001", "email": "a@example.com", "amocrm_deal_id": null}, "schema": "public", "old_record": null}"#,
        signature: "v1,T+E7oiDikB+8o44RVXWfynigTopS4qZbRXMwbQ71aX8=",
    },
    Vector {
        secret: "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMi0wMDAyLTAwMDI=",
        id: "msg_tw_0002",
        timestamp: "1795330123",
        body: r#"{"type": "INSERT", "table": "tripwire_users", "record": {"id": "00000000-0000-4000-8000-000000000002", "email": "ivan@example.com", "full_name": "Иван «Пётр» Ёлкин \"😀\"", "amocrm_deal_id": null}, "schema": "public", "old_record": null}"#,
        signature: "v1,+gJNcVTWWaNnTBh820YExm8YJHhi3/k9Fk7zBRTla1A=",
    },
    Vector {
        secret: "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==",
        id: "msg_tw_0003",
        timestamp: "1795330999",
        body: "{}",
        signature: "v1,GKuweHVB3a4rHYZa+QzYGVEo7AUv2VTS6MLUozCd2yo=",
    },
];

#[derive(Debug, Clone, Copy)]
struct Vector {
    secret: &'static str,
    id: &'static str,
    timestamp: &'static str,
    body: &'static str,
    signature: &'static str,
}

impl Vector {
    fn secret(&self) -> WebhookSecret {
        WebhookSecret::parse(self.secret).unwrap()
    }

    fn signed_at(&self) -> Timestamp {
        Timestamp::from_second(self.timestamp.parse().unwrap()).unwrap()
    }
}

/// A genuine delivery that a test then spoils in one place.
#[derive(Debug, Clone)]
struct Delivery {
    secrets: Vec<WebhookSecret>,
    id: String,
    timestamp: String,
    signatures: String,
    body: Vec<u8>,
    now: Timestamp,
}

impl Delivery {
    fn genuine() -> Self {
        let [vector, ..] = VECTORS;
        Self {
            secrets: vec![vector.secret()],
            id: vector.id.to_owned(),
            timestamp: vector.timestamp.to_owned(),
            signatures: vector.signature.to_owned(),
            body: vector.body.as_bytes().to_vec(),
            now: vector.signed_at(),
        }
    }

    fn verify(&self) -> Result<(), SignatureError> {
        let headers = SignedHeaders::new(&self.id, &self.timestamp, &self.signatures)?;
        verify(&self.secrets, &headers, &self.body, self.now, TOLERANCE)
    }
}

fn check<'a>(
    verifier: &Verifier,
    headers: &'a HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<Proof<'a>, SignatureError> {
    verifier.verify(verifier.credentials(headers)?, body, now)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let value = HeaderValue::from_str(value).unwrap();
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

#[test]
fn the_published_vectors_verify() {
    for vector in VECTORS {
        let headers = SignedHeaders::new(vector.id, vector.timestamp, vector.signature).unwrap();
        let body = vector.body.as_bytes();

        let verdict = verify(
            &[vector.secret()],
            &headers,
            body,
            vector.signed_at(),
            TOLERANCE,
        );

        assert_eq!(verdict, Ok(()), "{}", vector.id);
    }
}

#[test]
fn signing_gives_the_published_signatures() {
    for vector in VECTORS {
        let body = vector.body.as_bytes();
        let signature = sign(&vector.secret(), vector.id, vector.signed_at(), body);
        assert_eq!(signature, vector.signature);
    }
}

#[test]
fn any_signature_may_match_any_secret() {
    let good = VECTORS[0].signature;
    let other = VECTORS[1].signature;
    for signatures in [
        format!("{other} {good}"),
        format!("{good} {other}"),
        format!("v1a,AAAA v2,AAAA v1,not-base64 v1, {good}"),
        format!("  {good}  "),
    ] {
        let delivery = Delivery {
            secrets: vec![VECTORS[1].secret(), VECTORS[0].secret()],
            signatures: signatures.clone(),
            ..Delivery::genuine()
        };
        assert_eq!(delivery.verify(), Ok(()), "{signatures}");
    }
}

#[test]
fn a_signature_by_another_secret_is_refused() {
    let delivery = Delivery {
        secrets: vec![VECTORS[1].secret(), VECTORS[2].secret()],
        ..Delivery::genuine()
    };
    assert_eq!(delivery.verify(), Err(SignatureError::WrongSignature));
}

#[test]
fn a_signed_delivery_without_a_secret_of_ours_is_refused_as_such() {
    let delivery = Delivery {
        secrets: Vec::new(),
        ..Delivery::genuine()
    };
    assert_eq!(delivery.verify(), Err(SignatureError::NoSecret));
}

#[test]
fn other_versions_prove_nothing() {
    let base64 = VECTORS[0].signature.strip_prefix("v1,").unwrap();
    for signatures in [
        format!("v2,{base64}"),
        format!("v1a,{base64}"),
        format!("V1,{base64}"),
        base64.to_owned(),
        String::new(),
    ] {
        let delivery = Delivery {
            signatures,
            ..Delivery::genuine()
        };
        assert_eq!(delivery.verify(), Err(SignatureError::UnknownVersion));
    }
}

#[test]
fn only_the_first_eight_signatures_are_looked_at() {
    let good = VECTORS[0].signature;
    let bad = format!("{} ", VECTORS[1].signature);
    let with_bad_before = |count| Delivery {
        signatures: bad.repeat(count) + good,
        ..Delivery::genuine()
    };

    assert_eq!(with_bad_before(7).verify(), Ok(()));
    assert_eq!(
        with_bad_before(8).verify(),
        Err(SignatureError::WrongSignature)
    );
}

#[test]
fn a_delivery_may_be_as_old_or_as_new_as_the_tolerance() {
    let signed_at = VECTORS[0].signed_at();
    let (exact, over) = (TOLERANCE, TOLERANCE + Duration::from_secs(1));
    for (now, verdict) in [
        (signed_at + exact, Ok(())),
        (signed_at - exact, Ok(())),
        (signed_at + over, Err(SignatureError::TooOld { by: over })),
        (signed_at - over, Err(SignatureError::TooNew { by: over })),
    ] {
        let delivery = Delivery {
            now,
            ..Delivery::genuine()
        };
        assert_eq!(delivery.verify(), verdict, "{now}");
    }
}

#[test]
fn a_late_delivery_by_another_secret_is_refused_for_its_secret() {
    let delivery = Delivery {
        secrets: vec![VECTORS[1].secret()],
        now: VECTORS[0].signed_at() + TOLERANCE * 2,
        ..Delivery::genuine()
    };
    assert_eq!(delivery.verify(), Err(SignatureError::WrongSignature));
}

#[test]
fn the_timestamp_is_verified_as_it_was_written() {
    let genuine = Delivery::genuine();
    let padded = format!("00{}", genuine.timestamp);
    let signature = mac(&genuine.secrets[0], &genuine.id, &padded, &genuine.body);
    let signature = BASE64_STANDARD.encode(signature.finalize().into_bytes());

    let signed_with_zeros = Delivery {
        timestamp: padded.clone(),
        signatures: format!("v1,{signature}"),
        ..genuine.clone()
    };
    let zeros_added_later = Delivery {
        timestamp: padded,
        ..genuine
    };

    assert_eq!(signed_with_zeros.verify(), Ok(()));
    assert_eq!(
        zeros_added_later.verify(),
        Err(SignatureError::WrongSignature)
    );
}

#[test]
fn the_farthest_timestamps_are_compared_without_overflow() {
    let secret = VECTORS[0].secret();
    for now in [Timestamp::MIN, Timestamp::MAX] {
        for timestamp in ["0", "999999999999"] {
            let signature = mac(&secret, "msg", timestamp, b"{}").finalize();
            let delivery = Delivery {
                id: "msg".to_owned(),
                timestamp: timestamp.to_owned(),
                signatures: format!("v1,{}", BASE64_STANDARD.encode(signature.into_bytes())),
                body: b"{}".to_vec(),
                now,
                ..Delivery::genuine()
            };
            let is_age = matches!(
                delivery.verify(),
                Err(SignatureError::TooOld { .. } | SignatureError::TooNew { .. })
            );
            assert!(is_age, "{now} {timestamp}");
        }
    }
}

#[test]
fn a_timestamp_is_one_to_twelve_digits() {
    for timestamp in [
        "",
        " 1795330000",
        "+1795330000",
        "-1",
        "1795330000.0",
        "12abc",
        "1e9",
        "١٢٣",
        "1795330000000",
    ] {
        let delivery = Delivery {
            timestamp: timestamp.to_owned(),
            ..Delivery::genuine()
        };
        assert_eq!(
            delivery.verify(),
            Err(SignatureError::BadTimestamp),
            "{timestamp:?}"
        );
    }
}

#[test]
fn an_id_is_short_and_visible_and_has_no_dot() {
    let too_long = "x".repeat(LONGEST_ID + 1);
    for id in [
        "", " ", "a b", "a\tb", "ключ", "a\u{7f}", ".", "msg.1", "msg_1.", &too_long,
    ] {
        let delivery = Delivery {
            id: id.to_owned(),
            ..Delivery::genuine()
        };
        assert_eq!(delivery.verify(), Err(SignatureError::BadId), "{id:?}");
    }
    assert!(SignedHeaders::new(&"x".repeat(LONGEST_ID), "1", "").is_ok());
}

/// Cuts the signed text at other dots: the timestamp becomes a part of the id, and a part of the body the timestamp.
#[test]
fn a_signature_fits_no_other_cut_of_what_was_signed() {
    let genuine = Delivery {
        body: b"1795330001.{}".to_vec(),
        ..Delivery::genuine()
    };
    let signature = sign(&genuine.secrets[0], &genuine.id, genuine.now, &genuine.body);
    let genuine = Delivery {
        signatures: signature,
        ..genuine
    };
    assert_eq!(genuine.verify(), Ok(()));

    let cut_anew = Delivery {
        id: format!("{}.{}", genuine.id, genuine.timestamp),
        timestamp: "1795330001".to_owned(),
        body: b"{}".to_vec(),
        ..genuine
    };
    assert_eq!(cut_anew.verify(), Err(SignatureError::BadId));
}

#[test]
fn each_header_is_there_once() {
    let vector = VECTORS[0];
    let genuine = [
        (ID, vector.id),
        (TIMESTAMP, vector.timestamp),
        (SIGNATURE, vector.signature),
    ];
    assert!(SignedHeaders::of(&headers(&genuine)).is_ok());

    for (index, (header, value)) in genuine.into_iter().enumerate() {
        let mut without = genuine.to_vec();
        without.remove(index);
        assert_eq!(
            SignedHeaders::of(&headers(&without)).unwrap_err(),
            SignatureError::Missing { header }
        );

        let mut twice = genuine.to_vec();
        twice.push((header, value));
        assert_eq!(
            SignedHeaders::of(&headers(&twice)).unwrap_err(),
            SignatureError::Repeated { header }
        );
    }
}

#[test]
fn an_unreadable_header_is_refused_without_a_guess() {
    let mut headers = headers(&[(ID, "msg"), (TIMESTAMP, "1")]);
    let value = HeaderValue::from_bytes(b"v1,\xff").unwrap();
    headers.insert(HeaderName::from_static(SIGNATURE), value);
    assert_eq!(
        SignedHeaders::of(&headers).unwrap_err(),
        SignatureError::NotText { header: SIGNATURE }
    );
}

fn verifier(token: Option<&str>) -> Verifier {
    Verifier {
        secrets: vec![VECTORS[0].secret()],
        token: token.map(SecretString::from),
        tolerance: TOLERANCE,
    }
}

#[test]
fn a_token_is_believed_only_where_one_is_set_and_equal() {
    use SignatureError::{NoToken, Repeated, Unsigned, WrongToken};
    let authorization = "authorization";
    let twice = [
        (authorization, "Bearer s3cret"),
        (authorization, "Bearer s3cret"),
    ];
    for (token, headers, verdict) in [
        (
            Some("s3cret"),
            headers(&[(authorization, "Bearer s3cret")]),
            Ok(Proof::Token),
        ),
        (
            Some("s3cret"),
            headers(&[(authorization, "bearer  s3cret")]),
            Ok(Proof::Token),
        ),
        (
            Some("s3cret"),
            headers(&[(authorization, "Bearer s3cre")]),
            Err(WrongToken),
        ),
        (
            Some("s3cret"),
            headers(&[(authorization, "Bearer s3cret2")]),
            Err(WrongToken),
        ),
        (
            Some("s3cret"),
            headers(&[(authorization, "Bearer ")]),
            Err(WrongToken),
        ),
        (
            Some("s3cret"),
            headers(&[(authorization, "s3cret")]),
            Err(Unsigned),
        ),
        (
            Some("s3cret"),
            headers(&[(authorization, "Basic s3cret")]),
            Err(Unsigned),
        ),
        (
            Some("s3cret"),
            headers(&twice),
            Err(Repeated {
                header: authorization,
            }),
        ),
        (Some("s3cret"), headers(&[]), Err(Unsigned)),
        (
            None,
            headers(&[(authorization, "Bearer s3cret")]),
            Err(NoToken),
        ),
        (None, headers(&[(authorization, "Bearer ")]), Err(NoToken)),
        (None, headers(&[]), Err(Unsigned)),
    ] {
        let verdict_now = check(&verifier(token), &headers, b"{}", Timestamp::UNIX_EPOCH);
        assert_eq!(verdict_now, verdict, "{token:?} {headers:?}");
    }
}

#[test]
fn a_token_does_not_excuse_a_bad_signature() {
    let vector = VECTORS[0];
    let body = vector.body.as_bytes();
    let verifier = verifier(Some("s3cret"));
    let with_token = |more: &[(&'static str, &str)]| {
        let mut pairs = vec![("authorization", "Bearer s3cret")];
        pairs.extend_from_slice(more);
        headers(&pairs)
    };

    let wrong = with_token(&[
        (ID, vector.id),
        (TIMESTAMP, vector.timestamp),
        (SIGNATURE, VECTORS[1].signature),
    ]);
    let partial = with_token(&[(ID, vector.id)]);

    assert_eq!(
        check(&verifier, &wrong, body, vector.signed_at()),
        Err(SignatureError::WrongSignature)
    );
    assert_eq!(
        check(&verifier, &partial, body, vector.signed_at()),
        Err(SignatureError::Missing { header: TIMESTAMP })
    );
}

#[test]
fn a_good_signature_names_the_delivery() {
    let vector = VECTORS[0];
    let headers = headers(&[
        (ID, vector.id),
        (TIMESTAMP, vector.timestamp),
        (SIGNATURE, vector.signature),
    ]);
    assert_eq!(
        check(
            &verifier(None),
            &headers,
            vector.body.as_bytes(),
            vector.signed_at()
        ),
        Ok(Proof::Signature { id: vector.id })
    );
}

#[test]
fn secrets_and_tokens_say_nothing_in_debug() {
    let text = format!("{:?}", verifier(Some("s3cret")));
    let leaks = ["s3cret", "dHJpcHdpcmU", "tripwire-test-key", "116, 114"];
    assert!(leaks.iter().all(|leak| !text.contains(leak)), "{text}");
}
