//! A server that says what it is told: whole answers, half answers, or nothing.
//!
//! wiremock gives whole answers only, dates each of them, speaks no TLS and tells no connection from another.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use url::Url;

#[derive(Debug)]
pub(super) struct Server {
    pub(super) url: Url,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    /// Path and query, as on the wire.
    pub(super) target: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    /// Connections are numbered from 0.
    pub(super) connection: usize,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub(super) fn query(&self) -> Vec<(String, String)> {
        let (_, query) = self.target.split_once('?').unwrap_or_default();
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.into_owned().collect()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// These bytes; the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes, then the connection ends.
    ThenClose(Vec<u8>),
    /// The connection stays open, and nothing ever comes.
    Silence,
}

impl Reply {
    pub(super) fn text(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let mut head = format!("HTTP/1.1 {status} Whatever\r\n");
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        if status != 204 {
            write!(head, "content-length: {}\r\n", body.len()).unwrap();
        }
        Self::Bytes(format!("{head}\r\n{body}").into_bytes())
    }

    pub(super) fn json(status: u16, body: &Value) -> Self {
        let headers = [("content-type", "application/hal+json")];
        Self::text(status, &headers, &body.to_string())
    }

    /// What nginx says instead of the API.
    pub(super) fn html(status: u16) -> Self {
        let body = "<html><body><h1>nginx</h1></body></html>";
        Self::text(status, &[("content-type", "text/html")], body)
    }

    pub(super) fn empty() -> Self {
        Self::text(204, &[], "")
    }
}

type Script = Arc<Mutex<VecDeque<Reply>>>;

impl Server {
    pub(super) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::listen(replies, None).await
    }

    pub(super) async fn start_tls(
        replies: impl IntoIterator<Item = Reply>,
        tls: TlsAcceptor,
    ) -> Self {
        Self::listen(replies, Some(tls)).await
    }

    async fn listen(replies: impl IntoIterator<Item = Reply>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let port = listener.local_addr().unwrap().port();
        let script: Script = Arc::new(Mutex::new(replies.into_iter().collect()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let server = Self {
            url: format!("{scheme}://localhost:{port}").parse().unwrap(),
            seen: seen.clone(),
        };
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, seen, tls) = (script.clone(), seen.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, connection, &script, &seen).await,
                        Some(tls) => {
                            serve(tls.accept(stream).await?, connection, &script, &seen).await
                        }
                    }
                });
            }
        });
        server
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn only_seen(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    connection: usize,
    script: &Script,
    seen: &Mutex<Vec<Seen>>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(mut request) = read_request(&mut stream).await? {
        request.connection = connection;
        seen.lock().unwrap().push(request);
        let reply = script.lock().unwrap().pop_front();
        match reply {
            Some(Reply::Bytes(bytes)) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
            Some(Reply::ThenClose(bytes)) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Some(Reply::Silence) => tokio::time::sleep(Duration::from_hours(1)).await,
            // More requests than the test foresaw: it fails on the status.
            None => {
                let Reply::Bytes(bytes) = Reply::html(599) else {
                    unreachable!()
                };
                stream.write_all(&bytes).await?;
            }
        }
    }
    Ok(())
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> io::Result<Option<Seen>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return Ok(None),
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
    let (method, target) = (first.next().unwrap(), first.next().unwrap());
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().unwrap())];
    stream.read_exact(&mut body).await?;
    Ok(Some(Seen {
        method,
        target,
        headers,
        body: String::from_utf8(body).unwrap(),
        connection: 0,
    }))
}
