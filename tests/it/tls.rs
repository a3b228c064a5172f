//! The program as it is deployed, without the sandbox, between two neighbours that speak https only. Its dependencies have the
//! features that the tests ask for, so that they are built once.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};
use tripwire_sync::{domain::RowId, inbox::State};

use crate::{
    program::{Launch, Service, until},
    support::{Wishes, World},
};

/// Where `scripts/test` puts it.
fn deployed() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_tripwire-sync"))
        .ancestors()
        .nth(2)
        .unwrap();
    let binary = target.join("deployed/tripwire-sync");
    let Ok(built) = fs::metadata(&binary) else {
        panic!(
            "{} is missing: run `scripts/test --deployed`",
            binary.display()
        );
    };
    let changed = last_change(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(
        built.modified().unwrap() >= changed,
        "{} is older than the sources: run `scripts/test --deployed`",
        binary.display()
    );
    binary
}

fn last_change(folder: &Path) -> SystemTime {
    let times = fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            changed.max(last_change(&path))
        } else {
            changed
        }
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Somebody who issues certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let names = vec![Ipv4Addr::LOCALHOST.to_string()];
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &self.0)
            .unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Speaks https for `server`. Answers its URL.
    async fn stand_before(&self, server: SocketAddr) -> String {
        let acceptor = self.acceptor();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // Who does not trust us breaks off, which is what one of the tests is about.
                    let Ok(mut client) = acceptor.accept(client).await else {
                        return;
                    };
                    let mut server = TcpStream::connect(server).await.unwrap();
                    // So does who has heard enough.
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                });
            }
        });
        format!("https://{address}")
    }
}

/// The deployed program, which trusts `trusted` and nobody else.
async fn serve(
    world: &World,
    supabase: &Authority,
    amocrm: &Authority,
    trusted: &Authority,
) -> Service {
    let roots = world.folder().join("roots.pem");
    fs::write(&roots, trusted.0.pem()).unwrap();
    let sandbox = &world.sandbox;
    let launch = Launch::of(&deployed(), world.folder(), &["serve"])
        .settings(world)
        .without("TRIPWIRE_TIME_SCALE")
        .with(
            "SUPABASE_URL",
            supabase.stand_before(sandbox.postgrest.address()).await,
        )
        .with(
            "AMOCRM_BASE_URL",
            amocrm.stand_before(sandbox.amo.address()).await,
        )
        .with("SSL_CERT_FILE", roots.display());
    Service::launch(launch).await
}

fn one_row(world: &World) -> RowId {
    let setting = &world.setting;
    world.sandbox.amo.world(|account| {
        let contact = account.add_contact("Айгерим Омарова", &["aigerim@example.kz"], &[]);
        account.add_deal(
            &[contact],
            setting.pipeline,
            setting.before[0],
            "Заявка с сайта",
        );
    });
    world.insert(&json!({}))
}

#[tokio::test]
async fn what_is_deployed_has_no_sandbox_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Launch::of(&deployed(), folder.path(), &["demo"])
        .run()
        .await;
    demo.assert_code(2);
    assert!(
        demo.err.contains("unrecognized subcommand 'demo'"),
        "{demo:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deployed_ignores_the_settings_for_tests() {
    let world = World::prepare(Wishes::default());
    // Each would be refused, end the process or stop its work.
    let launch = Launch::of(&deployed(), world.folder(), &["serve"])
        .settings(&world)
        .with("TRIPWIRE_TIME_SCALE", "fast")
        .with("TRIPWIRE_DIE_AT", "before:1")
        .with("TRIPWIRE_HANG_AT", "writer");
    let mut service = Service::launch(launch).await;
    let row = one_row(&world);
    assert_eq!(service.deliver(&world, row).await, Some(202));
    service.until_synced(row).await;
    service.stop().await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_is_synced_over_https() {
    let world = World::prepare(Wishes::default());
    let authority = Authority::new();
    let mut service = serve(&world, &authority, &authority, &authority).await;
    let row = one_row(&world);
    assert_eq!(service.deliver(&world, row).await, Some(202));
    service.until_synced(row).await;
    assert!(world.column(row, "amocrm_deal_id").is_some());
    service.stop().await.assert_code(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untrusted_supabase_is_told_and_tried_again_and_deliveries_go_on() {
    let world = World::prepare(Wishes::default());
    let (trusted, other) = (Authority::new(), Authority::new());
    let service = serve(&world, &other, &trusted, &trusted).await;
    let row = one_row(&world);
    assert_eq!(service.deliver(&world, row).await, Some(202));
    // Who cannot ask for the lease stands by, and asks for it again.
    let is_told = |line: &Value| told_of("Supabase", line);
    until("asked again", || {
        service.program.count_logged("lease.not_answered", is_told) >= 2
    })
    .await;

    assert_accepts_on(service, &world, row, "standby").await;
    assert!(
        world.sandbox.requests().is_empty(),
        "nothing was sent to either"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untrusted_amocrm_is_told_and_tried_again_and_deliveries_go_on() {
    let world = World::prepare(Wishes::default());
    let (trusted, other) = (Authority::new(), Authority::new());
    let mut service = serve(&world, &trusted, &other, &trusted).await;
    let row = one_row(&world);
    assert_eq!(service.deliver(&world, row).await, Some(202));
    for attempt in [1, 2] {
        let line = service
            .program
            .until_logged("sync.attempt", |line| {
                line["outcome"] == "retry" && line["attempt"] == attempt
            })
            .await;
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["reason"], "сертификат amoCRM не прошёл проверку");
    }
    let is_told = |line: &Value| told_of("amoCRM", line);
    assert!(service.program.count_logged("sync.request_failed", is_told) >= 1);

    assert_accepts_on(service, &world, row, "working").await;
    assert!(
        world.sandbox.amo.requests().is_empty(),
        "nothing was sent to it"
    );
}

fn told_of(whom: &str, line: &Value) -> bool {
    let words = format!("{whom} cannot be reached: its certificate is not trusted");
    line["level"] == "WARN" && line["error"].as_str().unwrap().starts_with(&words)
}

async fn assert_accepts_on(service: Service, world: &World, row: RowId, state: &str) {
    assert_eq!(service.readiness().await["sync"]["state"], state);
    let another = world.insert(&json!({ "email": "another@example.kz" }));
    assert_eq!(service.deliver(world, another).await, Some(202));
    service.stop().await.assert_code(0);
    let inbox = world.guest().await;
    for row in [row, another] {
        assert_eq!(
            inbox.entry(row).await.unwrap().unwrap().state,
            State::Pending
        );
    }
}
