//! The Supabase side on a real Postgres.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::postgres::{Cluster, Queued};

mod doctor;
mod lease;
mod migration;
mod pause;
mod pgtap;
mod rights;
mod test_event;
mod trigger;

pub(crate) const OTHER_SECRET: &str = "whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMi0wMDAyLTAwMDI=";
pub(crate) const ONE_ROW: &str = "insert into public.tripwire_users (full_name, email, phone, generated_password)
                       values ('Anna Petrova', 'anna@example.org', '+77010000000', 'pass-phrase-1')";

fn count(cluster: &Cluster, from: &str) -> usize {
    let sql = format!("select count(*) from {from}");
    let count = cluster.sql_as("supabase_admin", &sql).unwrap();
    count.parse().unwrap()
}

/// Whether one of the request's signatures is right for `secret`, over the very bytes that `pg_net` would send.
pub(crate) fn signed_with(request: &Queued, secret: &str) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key_of(secret)).unwrap();
    let header = |name: &str| request.headers[name].as_bytes();
    for part in [
        header("webhook-id"),
        b".",
        header("webhook-timestamp"),
        b".",
        &request.body,
    ] {
        mac.update(part);
    }
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    request.headers["webhook-signature"]
        .split(' ')
        .any(|signature| signature == expected)
}

pub(crate) fn only(queued: Vec<Queued>) -> Queued {
    let [request] = <[Queued; 1]>::try_from(queued).unwrap();
    request
}

fn key_of(secret: &str) -> Vec<u8> {
    let encoded = secret.strip_prefix("whsec_").unwrap();
    STANDARD.decode(encoded).unwrap()
}
