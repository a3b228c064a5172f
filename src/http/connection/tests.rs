use actix_web::http::header::HeaderName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::advance,
};

use super::*;
use crate::http::places::Places;

const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);

/// A client and its connection; the test is actix and the application.
struct Talk {
    client: DuplexStream,
    stream: OneAtATime<DuplexStream>,
    connection: Connection,
    places: Places,
}

impl Talk {
    fn new() -> Self {
        let (client, server) = duplex(1 << 20);
        let places = Places::new(2);
        let connection = Connection::new(places.enter());
        Self {
            client,
            stream: OneAtATime::new(server, connection.clone()),
            connection,
            places,
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
    }

    /// Everything that is passed on now.
    async fn passed(&mut self) -> Vec<u8> {
        let mut passed = Vec::new();
        while futures::poll!(Box::pin(self.stream.read_buf(&mut passed))).is_ready()
            || futures::poll!(Box::pin(self.stream.read_buf(&mut passed))).is_ready()
        {}
        passed
    }

    async fn answer(&mut self, announced: Body) -> bool {
        let closes = self.connection.answer(announced);
        self.stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
            .await
            .unwrap();
        self.stream.flush().await.unwrap();
        closes
    }

    /// Advances the time. Returns after how many seconds the connection was cut off, and why.
    async fn cut_off(&self) -> (u64, CutOff) {
        let begun = Instant::now();
        let why = self.connection.cut_off().await;
        (begun.elapsed().as_secs(), why)
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_is_passed_on_at_a_time() {
    let mut talk = Talk::new();
    let post = b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n";
    talk.send(&[post, &b"first"[..], GET].concat()).await;

    assert_eq!(talk.passed().await, post);
    talk.connection.announce(Body::Bytes(5));
    assert_eq!(talk.passed().await, b"first");
    assert_eq!(talk.passed().await, b"");
    assert!(!talk.answer(Body::Bytes(5)).await);
    assert_eq!(talk.passed().await, GET);
    talk.connection.announce(Body::Bytes(0));
    assert!(!talk.answer(Body::Bytes(0)).await);
    assert_eq!(talk.passed().await, b"");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_taken_stops_the_next_request() {
    let (client, server) = duplex(GET.len());
    let connection = Connection::new(Places::new(2).enter());
    let stream = OneAtATime::new(server, connection.clone());
    let places = Places::new(1);
    let mut talk = Talk {
        client,
        stream,
        connection,
        places,
    };
    talk.send(GET).await;
    assert_eq!(talk.passed().await, GET);
    talk.connection.announce(Body::Bytes(0));
    talk.connection.answer(Body::Bytes(0));
    let answer = vec![b'x'; 2 * GET.len()];
    let half_taken = futures::poll!(Box::pin(talk.stream.write_all(&answer)));
    assert!(half_taken.is_pending());
    talk.send(GET).await;
    assert_eq!(talk.passed().await, b"");
    assert_eq!(talk.cut_off().await, (11, CutOff::Slow));
}

#[tokio::test(start_paused = true)]
async fn a_request_has_ten_seconds_from_its_first_byte_to_its_last() {
    let head = &GET[..GET.len() - 1];
    let chunked = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    for (bytes, announced, is_answered) in [
        (head, None, false),
        (GET, None, false),
        (GET, Some(Body::Bytes(5)), false),
        (GET, Some(Body::Bytes(5)), true),
        (chunked, Some(Body::Unknown), false),
        (chunked, Some(Body::Unknown), true),
    ] {
        // The first request of a connection, and a later one.
        for is_first in [true, false] {
            let mut talk = Talk::new();
            if !is_first {
                talk.send(GET).await;
                talk.passed().await;
                talk.connection.announce(Body::Bytes(0));
                talk.answer(Body::Bytes(0)).await;
            }
            advance(9 * SECOND).await;
            talk.send(bytes).await;
            talk.passed().await;
            if let Some(body) = announced {
                talk.connection.announce(body);
                if is_answered {
                    assert!(talk.answer(body).await);
                }
            }
            let left = talk.connection.deadline() - Instant::now();
            assert_eq!(left, LIMIT);
            // A client that sends single bytes gets no more time.
            for _ in 0..8 {
                advance(SECOND).await;
                talk.send(b"1").await;
                talk.passed().await;
                if talk.connection.shared.state.borrow().phase == Phase::Complete {
                    break;
                }
            }
            let told = (bytes, announced, is_answered, is_first);
            if announced == Some(Body::Bytes(5)) && !is_answered {
                // The five bytes of the body have come. The service has no time limit.
                advance(60 * SECOND).await;
                assert_eq!(
                    talk.connection
                        .shared
                        .state
                        .borrow()
                        .overdue(Instant::now()),
                    None
                );
            } else {
                let (seconds, why) = talk.cut_off().await;
                assert!((3..=6).contains(&seconds), "{seconds} {told:?}");
                assert_eq!(why, CutOff::Slow, "{told:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_for_a_while() {
    let mut talk = Talk::new();
    assert_eq!(talk.cut_off().await, (10, CutOff::Idle));

    talk.send(GET).await;
    talk.passed().await;
    talk.connection.announce(Body::Bytes(0));
    talk.answer(Body::Bytes(0)).await;
    assert_eq!(talk.cut_off().await, (75, CutOff::Idle));
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_ends_with_an_answer() {
    let mut talk = Talk::new();
    for (age, closes) in [(0, false), (59, false), (1, true)] {
        advance(age * SECOND).await;
        talk.send(GET).await;
        assert_eq!(talk.passed().await, GET);
        talk.connection.announce(Body::Bytes(0));
        assert_eq!(talk.answer(Body::Bytes(0)).await, closes, "{age}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_gets_a_hundred_answers() {
    let mut talk = Talk::new();
    talk.connection.verified();
    for answers in 1..=MOST_UNVERIFIED {
        talk.send(GET).await;
        talk.passed().await;
        talk.connection.announce(Body::Bytes(0));
        let closes = talk.answer(Body::Bytes(0)).await;
        assert_eq!(closes, answers == MOST_UNVERIFIED, "{answers}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_unknown_end_is_the_last_on_its_connection() {
    let mut talk = Talk::new();
    talk.send(GET).await;
    talk.passed().await;
    talk.connection.announce(Body::Unknown);
    talk.send(b"0\r\n\r\n").await;
    assert_eq!(talk.passed().await, b"0\r\n\r\n");
    talk.connection.received();
    assert!(talk.answer(Body::Unknown).await);
}

#[tokio::test(start_paused = true)]
async fn a_connection_goes_when_its_place_is_taken() {
    let mut talk = Talk::new();
    assert_eq!(talk.passed().await, b"");
    advance(SECOND).await;
    let _others = [talk.places.enter(), talk.places.enter()];
    assert_eq!(talk.cut_off().await, (0, CutOff::PlaceTaken));
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_limit() {
    let mut talk = Talk::new();
    talk.send(&vec![b'x'; LONGEST_HEAD]).await;
    assert_eq!(talk.passed().await.len(), LONGEST_HEAD);
    talk.send(b"x").await;
    assert_eq!(talk.passed().await, b"\0");
    talk.send(GET).await;
    assert_eq!(talk.passed().await, b"");
}

#[test]
fn the_end_of_a_head_is_found_in_any_pieces() {
    for (bytes, end) in [
        (&b"GET / HTTP/1.1\r\nhost: x\r\n\r\nrest"[..], Some(27)),
        (b"GET / HTTP/1.1\nhost: x\n\nrest", Some(24)),
        (b"GET / HTTP/1.1\r\n\nrest", Some(17)),
        (b"\r\n\r\n\nGET / HTTP/1.1\r\n\r\nrest", Some(23)),
        (b"\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", None),
        (b"", None),
    ] {
        for size in 1..=bytes.len().max(1) {
            let mut state = HeadEnd::default();
            let (mut taken, mut is_whole) = (0, false);
            for piece in bytes.chunks(size) {
                if !is_whole {
                    let (more, whole) = state.find(piece);
                    taken += more;
                    is_whole = whole;
                }
            }
            let found = is_whole.then_some(taken);
            assert_eq!(found, end, "{size}: {}", bytes.escape_ascii());
        }
    }
}

#[test]
fn a_body_is_announced_by_its_headers() {
    for (headers, expected) in [
        (&[][..], Body::Bytes(0)),
        (&[("content-length", "17")], Body::Bytes(17)),
        (&[("content-length", "seventeen")], Body::Unknown),
        (&[("transfer-encoding", "chunked")], Body::Unknown),
        (
            &[("content-length", "17"), ("transfer-encoding", "chunked")],
            Body::Unknown,
        ),
        (&[("upgrade", "websocket")], Body::Unknown),
    ] {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = header::HeaderValue::from_static(value);
            map.append(HeaderName::from_static(name), value);
        }
        assert_eq!(Body::announced(&map), expected, "{headers:?}");
    }
}
