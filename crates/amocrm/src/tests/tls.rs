use std::{sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use super::{Reply, Server, client, client_with, settings, soon, words_of};
use crate::{AmoError, DealId, Disposition, NewNote};

/// An authority of this test's own, and a server's key and certificate from it.
fn authority() -> (Vec<u8>, TlsAcceptor) {
    outbound::install_crypto_provider();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();

    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let root = authority.pem().into_bytes();
    (root, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn an_authority_among_the_extra_roots_is_trusted() {
    let (root, acceptor) = authority();
    let server = Server::start_tls([Reply::empty()], acceptor).await;
    let mut settings = settings(&server.url);
    settings.extra_roots = vec![root];
    let search = client_with(settings).search_contacts("ann@x.org").await;
    assert!(search.unwrap().complete);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_unknown_authority_is_not_trusted_and_nothing_is_sent() {
    let (_, acceptor) = authority();
    let server = Server::start_tls([], acceptor).await;
    let note = NewNote {
        deal: DealId::new(901),
        text: "Bought".to_owned(),
    };
    let error = client(&server)
        .add_notes(&[note], soon())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            AmoError::NotSent {
                untrusted: true,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        "amoCRM cannot be reached: its certificate is not trusted"
    );
    assert_eq!(error.disposition(), Disposition::Retry { after: None });
    assert!(error.was_not_applied());
    assert!(server.seen().is_empty());
    assert!(!words_of(&error).contains("https://"));
}

#[tokio::test]
async fn a_certificate_for_another_host_is_not_trusted() {
    let (root, acceptor) = authority();
    let server = Server::start_tls([], acceptor).await;
    let mut settings = settings(&server.url);
    settings.extra_roots = vec![root];
    settings.base_url.set_host(Some("127.0.0.1")).unwrap();
    let error = client_with(settings).account().await.unwrap_err();
    assert!(
        matches!(
            error,
            AmoError::NotSent {
                untrusted: true,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_handshake_that_never_ends_was_not_sent() {
    // This server waits for the end of a request head, which never comes over TLS.
    let server = Server::start([]).await;
    let mut settings = settings(&server.url);
    settings.timeouts.connect = Duration::from_millis(200);
    settings.base_url.set_scheme("https").unwrap();
    let error = client_with(settings).account().await.unwrap_err();
    assert!(
        matches!(
            error,
            AmoError::NotSent {
                untrusted: false,
                ..
            }
        ),
        "{error:?}"
    );
}
