//! A stand-in for `pg_net`'s worker, on the queue of `platform.sql`: nothing of it is packaged by any Linux distribution.
//!
//! Its manners are those measured of 0.20.4: a batch is sent in parallel and ends with its slowest request; its rows
//! leave the queue when the batch commits; nothing is tried again, whatever the answer; but a connection that was used
//! before and ends without an answer makes libcurl send the same request once more, on another. It ends with its server.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    num::NonZero,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use url::Url;

use crate::postgres::{Cluster, Queued, Session};

/// Libcurl's.
const ATTEMPTS: usize = 3;
/// Where the real one is woken by the commit of an insert.
const GLANCE: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Manners {
    /// `pg_net.batch_size`.
    pub(crate) batch: usize,
    /// Of the connections that were used before, each so many-th ends before its answer.
    pub(crate) drop_every: Option<NonZero<usize>>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            batch: 200,
            drop_every: None,
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ending {
    Status(u16),
    TimedOut,
    Failed(io::ErrorKind),
}

#[derive(Debug)]
struct Delivered {
    webhook_id: String,
    ending: Ending,
}

/// What was sent, and the connections that stay open between batches. Outlives its worker.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    manners: Manners,
    /// Addresses that take turns; if there are none, a request goes to its own.
    in_turn: Arc<Mutex<VecDeque<Url>>>,
    /// By host and port.
    idle: Arc<Mutex<BTreeMap<String, Vec<Connection>>>>,
    reused: Arc<AtomicUsize>,
    sent_again: Arc<AtomicUsize>,
    delivered: Arc<Mutex<Vec<Delivered>>>,
}

type Connection = BufReader<TcpStream>;

impl Line {
    pub(crate) fn new(manners: Manners) -> Self {
        Self {
            manners,
            in_turn: Arc::default(),
            idle: Arc::default(),
            reused: Arc::default(),
            sent_again: Arc::default(),
            delivered: Arc::default(),
        }
    }

    /// From now on each request goes to the next of these addresses, as behind a load balancer.
    pub(crate) fn balance(&self, addresses: impl IntoIterator<Item = Url>) {
        *self.in_turn.lock().unwrap() = addresses.into_iter().collect();
    }

    /// How many requests ended in which way.
    pub(crate) fn endings(&self) -> BTreeMap<Ending, usize> {
        let mut endings = BTreeMap::new();
        for delivered in self.delivered.lock().unwrap().iter() {
            *endings.entry(delivered.ending).or_default() += 1;
        }
        endings
    }

    /// How many different events were answered with this status.
    pub(crate) fn events(&self, status: u16) -> usize {
        let delivered = self.delivered.lock().unwrap();
        let answered = delivered
            .iter()
            .filter(|it| it.ending == Ending::Status(status));
        answered
            .map(|it| it.webhook_id.as_str())
            .collect::<BTreeSet<_>>()
            .len()
    }

    pub(crate) fn sent_again(&self) -> usize {
        self.sent_again.load(Ordering::Relaxed)
    }

    /// And the answer's body.
    async fn deliver(self, request: Queued) -> (Ending, Option<String>) {
        let patience = Duration::from_millis(request.timeout_milliseconds);
        let (ending, content) = match tokio::time::timeout(patience, self.attempt(&request)).await {
            Ok(Ok(answer)) => (Ending::Status(answer.status), Some(answer.content)),
            Ok(Err(error)) => (Ending::Failed(error.kind()), None),
            Err(_) => (Ending::TimedOut, None),
        };
        self.delivered.lock().unwrap().push(Delivered {
            webhook_id: request.headers["webhook-id"].clone(),
            ending,
        });
        (ending, content)
    }

    async fn attempt(&self, request: &Queued) -> io::Result<Answer> {
        let url = self.destination(request).map_err(io::Error::other)?;
        let text = text_of(request, &url);
        let peer = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
        for attempt in 1.. {
            let idle = self
                .idle
                .lock()
                .unwrap()
                .entry(peer.clone())
                .or_default()
                .pop();
            let was_used = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => connect(&url).await?,
            };
            match self.exchange(&mut connection, &text, was_used).await {
                Ok(answer) => {
                    let mut idle = self.idle.lock().unwrap();
                    idle.entry(peer).or_default().push(connection);
                    return Ok(answer);
                }
                Err(error) if !was_used || attempt == ATTEMPTS => return Err(error),
                Err(_) => _ = self.sent_again.fetch_add(1, Ordering::Relaxed),
            }
        }
        unreachable!("an attempt ends");
    }

    fn destination(&self, request: &Queued) -> Result<Url, url::ParseError> {
        let mut in_turn = self.in_turn.lock().unwrap();
        if in_turn.is_empty() {
            return request.url.parse();
        }
        in_turn.rotate_left(1);
        Ok(in_turn[0].clone())
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        text: &[u8],
        was_used: bool,
    ) -> io::Result<Answer> {
        connection.write_all(text).await?;
        if was_used && self.drops_this_one() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        read_answer(connection).await
    }

    fn drops_this_one(&self) -> bool {
        let count = self.reused.fetch_add(1, Ordering::Relaxed) + 1;
        let every = self.manners.drop_every;
        every.is_some_and(|every| count.is_multiple_of(every.get()))
    }
}

async fn connect(url: &Url) -> io::Result<Connection> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// In the real one's order and spelling.
fn text_of(request: &Queued, url: &Url) -> Vec<u8> {
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut head = format!(
        "POST {} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n",
        url.path()
    );
    for (name, value) in &request.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    let tail = format!(
        "User-Agent: pg_net/0.20.4\r\nContent-Length: {}\r\n\r\n",
        request.body.len()
    );
    [head.as_bytes(), tail.as_bytes(), &request.body].concat()
}

struct Answer {
    status: u16,
    content: String,
}

/// To its end, so that the connection can be used again. A redirect is not followed: it would lose the body.
async fn read_answer(connection: &mut Connection) -> io::Result<Answer> {
    let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut line = String::new();
    connection.read_line(&mut line).await?;
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(broken)?;
    let mut length = 0;
    loop {
        line.clear();
        connection.read_line(&mut line).await?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut content = vec![0; length];
    connection.read_exact(&mut content).await?;
    let content = String::from_utf8_lossy(&content).into_owned();
    Ok(Answer { status, content })
}

/// On one server, until that stops.
pub(crate) struct DeliveryWorker {
    session: Session,
    line: Line,
}

/// The server is gone, and the batch with it.
#[derive(Debug)]
pub(crate) struct ServerGone;

struct Batch(Vec<(i64, Queued)>);

impl DeliveryWorker {
    pub(crate) fn start(cluster: &Cluster, line: &Line) -> Self {
        Self {
            session: cluster.session("supabase_admin"),
            line: line.clone(),
        }
    }

    /// Works through the queue as it fills. Each batch needs a permit, where the real one rests for a second.
    pub(crate) fn work(self, batches: Arc<Semaphore>) -> JoinHandle<ServerGone> {
        tokio::spawn(self.work_through(batches))
    }

    async fn work_through(mut self, batches: Arc<Semaphore>) -> ServerGone {
        loop {
            let Ok(permit) = batches.acquire().await else {
                return ServerGone;
            };
            permit.forget();
            loop {
                match self.batch().await {
                    // As the real one, it asks again: no event comes with a new row.
                    Ok(0) => tokio::time::sleep(GLANCE).await,
                    Ok(_) => break,
                    Err(gone) => return gone,
                }
            }
        }
    }

    /// Until nothing is queued.
    pub(crate) async fn drain(&mut self) {
        while self.batch().await.unwrap() > 0 {}
    }

    /// Answers how many requests there were.
    async fn batch(&mut self) -> Result<usize, ServerGone> {
        let Batch(requests) = self.take()?;
        let count = requests.len();
        let mut under_way = JoinSet::new();
        for (id, request) in requests {
            let delivery = self.line.clone().deliver(request);
            under_way.spawn(async move {
                let (ending, content) = delivery.await;
                response(id, ending, content.as_deref())
            });
        }
        let responses = under_way.join_all().await;
        self.commit(&responses)?;
        Ok(count)
    }

    /// Others see the rows until the batch is committed.
    fn take(&mut self) -> Result<Batch, ServerGone> {
        let take = format!(
            "begin;
             with batch as (
               delete from net.http_request_queue
                where id in (select id from net.http_request_queue order by id limit {})
               returning *)
             select jsonb_build_object('id', id, 'url', url, 'headers', headers, 'timeout', timeout_milliseconds,
                      'body', translate(encode(body, 'base64'), e'\\n', ''))
               from batch order by id",
            self.line.manners.batch
        );
        let rows = self.sql(&take)?;
        let id_of = |row: &str| serde_json::from_str::<Value>(row).unwrap()["id"].as_i64();
        let requests = rows
            .lines()
            .map(|row| (id_of(row).unwrap(), Queued::parse(row)));
        Ok(Batch(requests.collect()))
    }

    fn commit(&mut self, responses: &[Value]) -> Result<(), ServerGone> {
        let responses = Value::from(responses).to_string().replace('\'', "''");
        self.sql(&format!(
            "insert into net._http_response (id, status_code, timed_out, error_msg, content)
             select * from jsonb_to_recordset('{responses}')
               as response (id bigint, status_code integer, timed_out boolean, error_msg text, content text);
             commit"
        ))?;
        Ok(())
    }

    fn sql(&mut self, sql: &str) -> Result<String, ServerGone> {
        tokio::task::block_in_place(|| self.session.try_sql(sql)).ok_or(ServerGone)
    }
}

fn response(id: i64, ending: Ending, content: Option<&str>) -> Value {
    match ending {
        Ending::Status(status) => {
            json!({ "id": id, "status_code": status, "timed_out": false, "content": content })
        }
        Ending::TimedOut => json!({ "id": id, "timed_out": true, "error_msg": "Timeout reached" }),
        Ending::Failed(kind) => json!({ "id": id, "error_msg": kind.to_string() }),
    }
}
