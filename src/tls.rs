//! What both neighbours' HTTP clients share: one crypto provider, whom to trust, and no surprises on the wire.

use std::{error::Error, io, time::Duration};

/// How we call ourselves. Stable, and never a browser's name: Supabase refuses secret keys from those.
pub const USER_AGENT: &str = concat!("tripwire-sync/", env!("CARGO_PKG_VERSION"));

/// Shorter than what servers usually allow (60 to 75 s): a write on a connection that the server is just closing
/// ends as "no answer".
const IDLE: Duration = Duration::from_secs(30);

/// Makes ring the provider of the whole process. May be called again and again.
pub fn install_crypto_provider() {
    // An error means that a provider is installed already, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The ground of every HTTP client here: HTTP/1 over pooled connections, nothing followed, repeated or proxied
/// on its own, so that one call is one request.
///
/// `extra_roots` are PEM bundles, trusted beside the system's own authorities.
pub fn client_builder(
    connect_timeout: Duration,
    extra_roots: &[Vec<u8>],
) -> Result<reqwest::ClientBuilder, reqwest::Error> {
    install_crypto_provider();
    let mut roots = Vec::new();
    for bundle in extra_roots {
        roots.extend(reqwest::Certificate::from_pem_bundle(bundle)?);
    }
    Ok(reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .http1_only()
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(IDLE)
        .tls_certs_merge(roots))
}

/// Whether the request failed because the peer's certificate was refused.
#[must_use]
pub fn is_untrusted(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // An `io::Error` leaves out the error that it wraps when asked for its source.
        cause = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}
