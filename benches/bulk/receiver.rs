//! How many signed events a second the receiver stores, beside as many that it verifies, parses and stores nothing of.
//!
//! Both go to one service, in turn, over the same connections: so what one second of the machine is worth is the same for
//! both. An event of another type than `INSERT` is verified, parsed, answered and not stored.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tripwire_sync::{
    domain::{Clock, SystemClock, WebhookSecret},
    http::signature,
};
use uuid::Uuid;

use crate::stand::{SECRET, Stand};

const CONNECTIONS: usize = 64;
const BODY: usize = 700;
/// Each kind has so many turns.
const TURNS: usize = 5;
const TURN: Duration = Duration::from_secs(2);

pub(crate) struct Received {
    stored: Kind,
    not_stored: Kind,
}

#[derive(Default)]
struct Kind {
    took: Duration,
    latencies: Vec<Duration>,
}

pub(crate) async fn run() -> Received {
    let further = [
        ("AMOCRM_ENABLED", "false".to_owned()),
        (
            "RUST_LOG",
            "info,tripwire_sync::http::webhook=warn".to_owned(),
        ),
    ];
    let stand = Stand::set(Duration::ZERO, "5s", further).await;
    let address = stand.address();
    let mut connections = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        connections.push(Some(Connection::to(address).await));
    }
    let (mut stored, mut not_stored) = (Kind::default(), Kind::default());
    turn(&mut connections, "INSERT").await;
    for _ in 0..TURNS {
        not_stored.add(turn(&mut connections, "UPDATE").await);
        stored.add(turn(&mut connections, "INSERT").await);
    }
    stand.end().await;
    Received { stored, not_stored }
}

/// Sends events of one type over all connections, one after the other on each.
async fn turn(connections: &mut [Option<Connection>], event: &'static str) -> Kind {
    let began = Instant::now();
    let senders = connections.iter_mut().map(|connection| {
        let mut own = connection.take().expect("a connection");
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < TURN {
                latencies.push(own.send(event).await);
            }
            (own, latencies)
        })
    });
    let senders: Vec<_> = senders.collect();
    let ended = join_all(senders).await;
    let mut kind = Kind::default();
    for (connection, ended) in connections.iter_mut().zip(ended) {
        let (own, latencies) = ended.expect("a sender to its end");
        *connection = Some(own);
        kind.latencies.extend(latencies);
    }
    kind.took = began.elapsed();
    kind
}

struct Connection {
    address: SocketAddr,
    secret: WebhookSecret,
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    async fn to(address: SocketAddr) -> Self {
        Self {
            address,
            secret: WebhookSecret::parse(SECRET).expect("a sound secret"),
            stream: connect(address).await,
            answer: Vec::with_capacity(1_024),
        }
    }

    async fn send(&mut self, event: &str) -> Duration {
        let request = self.request(event);
        let began = Instant::now();
        let sent = self.stream.write_all(request.as_bytes()).await;
        sent.expect("the service takes it");
        let head = self.receive().await;
        let took = began.elapsed();
        assert!(
            head.starts_with("http/1.1 202") || head.starts_with("http/1.1 200"),
            "{head}"
        );
        // After a minute the service closes a connection with an answer.
        if head.contains("connection: close") {
            self.stream = connect(self.address).await;
        }
        took
    }

    fn request(&self, event: &str) -> String {
        let row = Uuid::new_v4();
        let mut body = format!(
            r#"{{"type":"{event}","table":"tripwire_users","schema":"public","record":{{"id":"{row}","created_at":"2026-11-22T09:39:56+00:00","note":""#
        );
        let end = r#""},"old_record":null}"#;
        let padding = BODY.saturating_sub(body.len() + end.len());
        body.extend(std::iter::repeat_n('x', padding));
        body.push_str(end);
        let (id, now) = (format!("msg_{row}"), SystemClock.now());
        let signature = signature::sign(&self.secret, &id, now, body.as_bytes());
        format!(
            "POST /webhooks/supabase HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nwebhook-id: {id}\r\nwebhook-timestamp: {}\r\nwebhook-signature: {signature}\r\n\r\n{body}",
            body.len(),
            now.as_second(),
        )
    }

    /// The head of the answer, in lower case, once its body has come too.
    async fn receive(&mut self) -> String {
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await;
            assert!(read.expect("an answer") > 0, "closed without an answer");
            let Some(end) = self.answer.windows(4).position(|it| it == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&self.answer[..end]).to_lowercase();
            let mut lines = head.lines();
            let length = lines.find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|it| it.parse().ok()).unwrap_or_default();
            if self.answer.len() >= end + 4 + length {
                return head;
            }
        }
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await;
    let stream = stream.expect("the service listens");
    stream.set_nodelay(true).expect("a socket option");
    stream
}

impl Kind {
    fn add(&mut self, turn: Self) {
        self.took += turn.took;
        self.latencies.extend(turn.latencies);
    }

    #[expect(clippy::cast_precision_loss, reason = "a count")]
    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    fn at_99_percent(&self) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = sorted.len() * 99 / 100;
        sorted.get(at).copied().unwrap_or_default()
    }
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stored, not_stored) = (self.stored.per_second(), self.not_stored.per_second());
        write!(
            f,
            "receiver, {CONNECTIONS} connections, bodies of {BODY} bytes: {stored:.0} events a second stored, 99 % within \
             {:.1} ms; {not_stored:.0} without storing, {:.1} ms: {:.0} %",
            self.stored.at_99_percent().as_secs_f64() * 1e3,
            self.not_stored.at_99_percent().as_secs_f64() * 1e3,
            stored / not_stored * 100.0
        )
    }
}
