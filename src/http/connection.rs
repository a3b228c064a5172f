//! One connection: one request at a time, and none that takes for ever.
//!
//! actix reads ahead. It takes further requests while the client leaves the answers unread, so they pile up, and its time
//! limit covers the head of the first request only. [`OneAtATime`] stands between actix and the socket. It passes on one
//! head, then the body that this head announces, and nothing more until the answer has left. So it knows when a request
//! begins and ends, and what a client sends beyond it stays in the client's own buffers.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use actix_web::http::header::{self, HeaderMap};
use strum::{IntoStaticStr, VariantArray};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep},
};

use super::places::Place;

/// From the first byte of a request to its last, and again for the answer to be taken.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// The time beyond the limit for the answer 408.
const GRACE: Duration = Duration::from_secs(1);

/// Between two requests. `pg_net` reuses connections; a proxy in front of us should close first.
const IDLE: Duration = Duration::from_secs(75);

/// After this time the next answer closes the connection, so that its place becomes free.
const LIFE: Duration = Duration::from_mins(1);

/// How often a connection checks its limits and the number of connections.
const LOOK: Duration = Duration::from_millis(100);

/// Senders use some 500 bytes.
const LONGEST_HEAD: usize = 16 * 1024;

/// Read from the socket at a time.
const PIECE: usize = 4 * 1024;

/// Bytes passed on before actix must use them.
const AT_ONCE: usize = 16 * 1024;

/// The same for a body whose end only actix knows: actix would also take all further requests that follow that end.
const AT_ONCE_UNKNOWN: usize = 256;

/// After so many answers without a verified request, a connection ends.
const MOST_UNVERIFIED: u32 = 100;

/// How a request announces its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Bytes(u64),
    /// Its end is known to actix alone, so nothing may follow on this connection.
    Unknown,
}

impl Body {
    pub(super) fn announced(headers: &HeaderMap) -> Self {
        if headers.contains_key(header::TRANSFER_ENCODING) || headers.contains_key(header::UPGRADE)
        {
            return Self::Unknown;
        }
        let Some(length) = headers.get(header::CONTENT_LENGTH) else {
            return Self::Bytes(0);
        };
        let length = length.to_str().ok().and_then(|length| length.parse().ok());
        length.map_or(Self::Unknown, Self::Bytes)
    }
}

/// Why a connection is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(super) enum CutOff {
    /// A request or its answer takes too long.
    Slow,
    /// No request has come.
    Idle,
    /// Another connection needs the place.
    PlaceTaken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between two requests.
    Idle,
    Head {
        end: HeadEnd,
        length: usize,
    },
    /// The head is with actix, and the body has not been announced to us.
    HeadPassed,
    Body(Body),
    Complete,
}

#[derive(Debug)]
struct State {
    opened: Instant,
    phase: Phase,
    is_answered: bool,
    /// The answer to this request is the last one.
    closes: bool,
    /// Answers since the last verified request.
    unverified: u32,
    /// When the phase began that has a limit; `None`: the service is at work.
    limited_since: Option<Instant>,
    /// The reader that waits until more may be passed on.
    reader: Option<Waker>,
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            opened: now,
            phase: Phase::Idle,
            is_answered: false,
            closes: false,
            unverified: 0,
            limited_since: Some(now),
            reader: None,
        }
    }

    fn begin(&mut self, now: Instant) {
        self.phase = Phase::Head {
            end: HeadEnd::default(),
            length: 0,
        };
        self.limited_since = Some(now);
    }

    /// A request that was passed on together with the last one changes nothing.
    fn announce(&mut self, body: Body) {
        if self.closes {
            return;
        }
        self.phase = Phase::Body(body);
        if body == Body::Bytes(0) {
            self.complete();
        }
        self.wake();
    }

    fn complete(&mut self) {
        self.phase = Phase::Complete;
        // What was answered before its end stays under the limit of the request.
        if !self.is_answered {
            self.limited_since = None;
        }
    }

    /// Returns whether this answer is the last one. It is if the connection is old, if its client is unverified and has sent
    /// many requests or its place is needed, or if the end of the request is unknown.
    fn answer(&mut self, announced: Body, is_place_needed: bool, now: Instant) -> bool {
        if self.closes {
            return true;
        }
        self.is_answered = true;
        self.unverified += 1;
        if self.phase == Phase::Complete {
            self.limited_since = Some(now);
        }
        self.closes = self.phase != Phase::Complete
            || announced == Body::Unknown
            || is_place_needed
            || self.unverified >= MOST_UNVERIFIED
            || now.duration_since(self.opened) >= LIFE;
        self.closes
    }

    /// Everything that was to be sent has left.
    fn flushed(&mut self, now: Instant) {
        if self.is_answered && self.phase == Phase::Complete && !self.closes {
            self.phase = Phase::Idle;
            self.is_answered = false;
            self.limited_since = Some(now);
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// A new connection has as long for its first byte as a request has.
    fn overdue(&self, now: Instant) -> Option<CutOff> {
        let since = self.limited_since?;
        let (limit, why) = match self.phase {
            Phase::Idle if since == self.opened => (LIMIT, CutOff::Idle),
            Phase::Idle => (IDLE, CutOff::Idle),
            _ => (LIMIT + GRACE, CutOff::Slow),
        };
        (now.duration_since(since) >= limit).then_some(why)
    }
}

/// What the requests of a connection know of it.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    place: Place,
    state: RefCell<State>,
}

impl Connection {
    pub(super) fn new(place: Place) -> Self {
        let state = RefCell::new(State::new(Instant::now()));
        Self {
            shared: Rc::new(Shared { place, state }),
        }
    }

    pub(super) fn announce(&self, body: Body) {
        self.shared.state.borrow_mut().announce(body);
    }

    /// The body was read to its end.
    pub(super) fn received(&self) {
        self.shared.state.borrow_mut().complete();
    }

    /// When the last byte of the request must have come.
    pub(super) fn deadline(&self) -> Instant {
        let since = self.shared.state.borrow().limited_since;
        since.unwrap_or_else(Instant::now) + LIMIT
    }

    pub(super) fn verified(&self) {
        self.shared.place.verified();
        self.shared.state.borrow_mut().unverified = 0;
    }

    /// Answers whether the connection ends with this answer.
    pub(super) fn answer(&self, announced: Body) -> bool {
        let is_place_needed = self.shared.place.answered();
        let mut state = self.shared.state.borrow_mut();
        state.answer(announced, is_place_needed, Instant::now())
    }

    pub(super) async fn cut_off(&self) -> CutOff {
        let overdue = async {
            loop {
                if let Some(why) = self.shared.state.borrow().overdue(Instant::now()) {
                    return why;
                }
                self.shared.place.make_room();
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            why = overdue => why,
            () = self.shared.place.taken() => CutOff::PlaceTaken,
        }
    }
}

/// A stream that passes on one request at a time.
#[derive(Debug)]
pub(super) struct OneAtATime<S> {
    stream: S,
    connection: Connection,
    /// Read, and not yet passed on.
    piece: Piece,
    /// Bytes passed on since actix last got `Pending`. actix reads until then, and only then uses what it has read.
    passed: usize,
}

#[derive(Debug)]
struct Piece {
    bytes: Box<[u8; PIECE]>,
    from: usize,
    to: usize,
}

impl Piece {
    fn unused(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }
}

impl<S> OneAtATime<S> {
    pub(super) fn new(stream: S, connection: Connection) -> Self {
        let piece = Piece {
            bytes: Box::new([0; PIECE]),
            from: 0,
            to: 0,
        };
        Self {
            stream,
            connection,
            piece,
            passed: 0,
        }
    }

    pub(super) fn connection(&self) -> Connection {
        self.connection.clone()
    }
}

impl<S: AsyncRead + Unpin> OneAtATime<S> {
    /// Ready with nothing to use: the client has closed its side.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.piece.unused().is_empty() {
            let mut buffer = ReadBuf::new(self.piece.bytes.as_mut_slice());
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let length = buffer.filled().len();
            (self.piece.from, self.piece.to) = (0, length);
        }
        Poll::Ready(Ok(()))
    }

    fn pass(&mut self, length: usize, buffer: &mut ReadBuf<'_>) {
        let to = self.piece.from + length;
        buffer.put_slice(&self.piece.bytes[self.piece.from..to]);
        self.piece.from = to;
        self.passed += length;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for OneAtATime<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.passed >= AT_ONCE {
            self.passed = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let shared = Rc::clone(&self.connection.shared);
        let phase = shared.state.borrow().phase;
        if matches!(phase, Phase::HeadPassed | Phase::Complete) {
            shared.state.borrow_mut().reader = Some(cx.waker().clone());
            self.passed = 0;
            return Poll::Pending;
        }
        let Poll::Ready(read) = self.poll_piece(cx) else {
            shared.place.waits();
            return Poll::Pending;
        };
        read?;
        let room = self.piece.unused().len().min(buffer.remaining());
        if room == 0 {
            return Poll::Ready(Ok(()));
        }

        let mut state = shared.state.borrow_mut();
        if state.phase == Phase::Idle {
            state.begin(Instant::now());
        }
        match state.phase {
            Phase::Head { mut end, length } => {
                let (taken, is_whole) = end.find(&self.piece.unused()[..room]);
                let length = length + taken;
                state.phase = if is_whole {
                    Phase::HeadPassed
                } else {
                    Phase::Head { end, length }
                };
                if length > LONGEST_HEAD {
                    state.phase = Phase::HeadPassed;
                    // A NUL is not allowed in a head: actix answers 400 and closes.
                    buffer.put_slice(b"\0");
                } else {
                    self.pass(taken, buffer);
                }
            }
            Phase::Body(Body::Bytes(left)) => {
                let taken = usize::try_from(left).map_or(room, |left| left.min(room));
                let left = left - taken as u64;
                state.phase = Phase::Body(Body::Bytes(left));
                if left == 0 {
                    state.complete();
                }
                self.pass(taken, buffer);
            }
            // The rest of an answered body is dropped. It is still read from the socket, since the client may read the
            // answer only after it has sent all.
            Phase::Body(Body::Unknown) if state.is_answered => {
                self.piece.from = self.piece.to;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Phase::Body(Body::Unknown) => {
                self.pass(room.min(AT_ONCE_UNKNOWN), buffer);
                self.passed = AT_ONCE;
            }
            Phase::Idle | Phase::HeadPassed | Phase::Complete => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for OneAtATime<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// actix flushes when all it had to write was taken.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        let mut state = self.connection.shared.state.borrow_mut();
        state.flushed(Instant::now());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Finds the blank line that ends a head, across reads. Lines are those of actix's parser: they end with LF, with or without
/// CR, and blank lines before the head do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct HeadEnd {
    has_begun: bool,
    /// Nothing but a CR stands in this line so far.
    is_blank: bool,
}

impl HeadEnd {
    /// How many of these bytes belong to the head, and whether they end it.
    fn find(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.has_begun && self.is_blank => return (at + 1, true),
                b'\n' => self.is_blank = true,
                b'\r' => {}
                _ => {
                    self.has_begun = true;
                    self.is_blank = false;
                }
            }
        }
        (bytes.len(), false)
    }
}

#[cfg(test)]
mod tests;
