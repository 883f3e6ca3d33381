//! HTTP/2: what is ready is answered in the connection's own turn, and what many streams say in one turn goes out together.
//!
//! hyper writes and flushes each frame by itself, which under TLS makes a record and a system call of each. Here frames are gathered, and
//! go out when the turn ends or when there are enough of them for a large write.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use hyper::body::{Body, Incoming};
use hyper::header::HOST;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::hub::Caller;
use crate::net::{Limits, Stream};
use crate::proto::http::body::Outgoing;
use crate::proto::http::fast_path::FastPath;
use crate::proto::http::head;
use crate::proto::http::serve::Connection;
use crate::proto::http::unsent::{self, Watched};

/// Streams the peer reset before we took them (CVE-2023-44487).
const RESETS: usize = 20;
/// What one connection may hold unsent in a stream.
const SEND_BUFFER: usize = 256 << 10;
/// What one stream, and all of them together, may send us before we took it.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes gathered at most: four records of TLS.
const GATHERED: usize = 64 << 10;

thread_local! {
    /// Room for what a connection gathers, between turns that have something to say.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// hyper, as we want it.
pub fn builder(limits: &Arc<Limits>) -> http2::Builder<Eager> {
    let mut builder = http2::Builder::new(Eager { limits: limits.clone() });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams.max(1))
        .max_pending_accept_reset_streams(RESETS)
        .max_header_list_size(u32::try_from(head::LONGEST).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Runs each stream at once, as far as it goes without waiting; only one that must wait gets a task of its own.
#[derive(Clone)]
pub struct Eager {
    limits: Arc<Limits>,
}

impl<F> Executor<F> for Eager
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut stream = Watched::new(stream, self.limits.clone());
        // Whom to wake is known when the task asks again, first thing.
        if stream.turn(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(stream);
        }
    }
}

/// The response to a request that is nothing special, when it is ready.
pub fn at_once(
    fast_path: &FastPath,
    guest: &Caller,
    request: &Request<Incoming>,
    connection: &Arc<Connection>,
) -> Option<Response<Outgoing>> {
    let uri = request.uri();
    let host = match uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => request.headers().get(HOST).map_or(&b""[..], |host| host.as_bytes()),
    };
    if !request.body().is_end_stream() || memchr::memchr(b'@', host).is_some() {
        return None;
    }
    let lines = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let plain = head::plain(request.method().as_str(), uri.path_and_query()?.as_str(), host, lines)?;
    let response = fast_path.ready(&plain, connection, guest, false)?.response(connection);
    drop(connection.pulse.think(true));
    unsent::answered();
    response
}

/// The stream as hyper sees it.
pub struct Wire(Arc<Gathered>);

/// The same as the connection's turn sees it.
pub struct Gathered {
    inner: Mutex<Inner>,
    connection: Arc<Connection>,
}

struct Inner {
    stream: Stream,
    /// Read before hyper was asked.
    came: BytesMut,
    unsent: Vec<u8>,
    /// How much of it has gone.
    sent: usize,
}

impl Gathered {
    /// Over a stream of which `came` was read already.
    pub fn new(stream: Stream, came: BytesMut, connection: &Arc<Connection>) -> Arc<Self> {
        let inner = Inner { stream, came, unsent: Vec::new(), sent: 0 };
        Arc::new(Self { inner: Mutex::new(inner), connection: connection.clone() })
    }

    /// What hyper is given.
    pub fn wire(self: &Arc<Self>) -> Wire {
        Wire(self.clone())
    }

    /// Sends what was gathered.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_push(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.lock().poll_push(cx, &self.connection)
    }
}

impl Inner {
    fn poll_push(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<io::Result<()>> {
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            connection.pulse.said(sent);
            self.sent += sent;
        }
        if self.unsent.capacity() > 0 {
            self.unsent.clear();
            self.sent = 0;
            ROOM.set(std::mem::take(&mut self.unsent));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn gather(&mut self, pieces: &[IoSlice<'_>]) -> usize {
        if self.unsent.capacity() == 0 {
            self.unsent = ROOM.take();
        }
        let before = self.unsent.len();
        for piece in pieces {
            let room = GATHERED.saturating_sub(self.unsent.len()).min(piece.len());
            self.unsent.extend_from_slice(piece.get(..room).unwrap_or_default());
        }
        self.unsent.len() - before
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Gathered { inner, connection } = &*self.0;
        let mut inner = inner.lock();
        let before = buf.filled().len();
        if inner.came.is_empty() {
            ready!(Pin::new(&mut inner.stream).poll_read(cx, buf))?;
        } else {
            let count = inner.came.len().min(buf.remaining());
            buf.put_slice(&inner.came.split_to(count));
        }
        if buf.filled().len() > before {
            connection.pulse.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Gathered { inner, connection } = &*self.0;
        let mut inner = inner.lock();
        if inner.unsent.len() >= GATHERED {
            ready!(inner.poll_push(cx, connection))?;
        }
        Poll::Ready(Ok(inner.gather(bufs)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// At the end of the turn, with everything else.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Gathered { inner, connection } = &*self.0;
        let mut inner = inner.lock();
        ready!(inner.poll_push(cx, connection))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn frames_of_one_turn_go_out_together() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let stream = Stream::Pipe(ours);
        let gathered = Gathered::new(stream, BytesMut::from(&b"came"[..]), &Connection::nowhere());
        let mut wire = gathered.wire();
        let mut came = [0; 4];
        wire.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"came");
        for frame in [&b"one "[..], b"two "] {
            wire.write_all(frame).await.unwrap();
            wire.flush().await.unwrap();
        }
        let mut got = vec![0; 2 * GATHERED];
        let early = poll_fn(|cx| Poll::Ready(pin!(theirs.read(&mut got)).poll(cx).is_ready())).await;
        assert!(!early, "the turn is not over");
        poll_fn(|cx| gathered.poll_push(cx)).await.unwrap();
        let count = theirs.read(&mut got).await.unwrap();
        assert_eq!(&got[..count], b"one two ");
        // More than is gathered goes out by itself.
        wire.write_all(&vec![7; GATHERED + 1]).await.unwrap();
        theirs.read_exact(&mut got[..GATHERED]).await.unwrap();
        wire.shutdown().await.unwrap();
        assert_eq!(theirs.read(&mut got).await.unwrap(), 1);
    }
}
