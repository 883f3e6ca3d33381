//! One connection through hyper: versions 1.1 and 2, bounds, deadlines, drain. Shared by the tree and the admin listener.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::net::{Limits, Link, Permit, Stream};
use crate::origin::Origin;
use crate::proto::http::body::Outgoing;
use crate::proto::http::express::{self, Express, Outcome};
use crate::proto::http::pulse::{Pulse, Window};
use crate::proto::http::sendfile::Lent;
use crate::proto::http::signin::Proven;

/// What an implicit TLS listener offers.
pub const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// Most header lines of a request.
const HEADERS: usize = 100;
/// Most bytes of a request's head.
const HEAD: usize = 32 << 10;
/// hyper's read and write buffers stay below this.
const BUFFER: usize = 128 << 10;
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 100;
/// HTTP/2 streams the peer reset before we took them (CVE-2023-44487).
const RESETS: usize = 20;
/// What one HTTP/2 connection may hold unsent in a stream.
const SEND_BUFFER: usize = 256 << 10;
/// What one HTTP/2 stream, and all of them together, may send us before we took it.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How long, and over how many bytes, a refused upload is read so that its sender sees the refusal.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 4 << 20;

/// What all requests of one connection share.
pub struct Connection {
    /// Who and where.
    pub origin: Origin,
    /// Deadlines and rates.
    pub limits: Arc<Limits>,
    /// What it is doing.
    pub pulse: Arc<Pulse>,
    /// The last Basic header that was right.
    pub proven: Mutex<Option<Proven>>,
    /// Stretches of files its wire sends by the kernel.
    pub lent: Lent,
    /// Its place among the counted connections, and the account it counts for.
    pub permit: Mutex<Permit>,
}

/// What answers requests.
#[async_trait]
pub trait Site: Send + Sync + 'static {
    /// One request, one response; a failure is a response too.
    async fn answer(&self, request: Request<Incoming>, connection: &Arc<Connection>) -> Response<Outgoing>;

    /// What plain requests may be answered from before hyper is asked.
    fn express(&self) -> Option<&Express> {
        None
    }
}

/// Serves a connection to its end. While it is idle for longer, only its socket is kept.
pub async fn serve<S: Site>(site: Arc<S>, link: Link) -> io::Result<()> {
    let Link { mut stream, origin, stop, limits, permit, .. } = link;
    let pulse = Pulse::new();
    let connection = Arc::new(Connection {
        origin,
        limits: limits.clone(),
        pulse: pulse.clone(),
        proven: Mutex::new(None),
        lent: Lent::new(&stream),
        permit: Mutex::new(permit),
    });
    loop {
        let begun = match site.express().filter(|_| stream.alpn() != Some(b"h2")) {
            Some(express) => match express::run(express, &connection, &mut stream, &stop).await {
                Outcome::Closed => return Ok(()),
                Outcome::Over(begun) => begun,
            },
            None if wait(&connection, &stream, &stop).await => BytesMut::new(),
            None => return Ok(()),
        };
        pulse.park(false);
        // Boxed, so that a parked connection's task does not keep the room for it.
        match Box::pin(converse(&site, &connection, stream, begun, &stop)).await {
            End::Closed => return Ok(()),
            End::Parked(parked) => stream = parked,
        }
    }
}

/// Waits for the peer, holding nothing but the socket; false when the connection is over.
async fn wait(connection: &Connection, stream: &Stream, stop: &CancellationToken) -> bool {
    let (pulse, limits) = (&connection.pulse, &connection.limits);
    let mut window = Window::default();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return false,
            _ = stream.readable() => return true,
            () = tokio::time::sleep(pulse.pause(limits)) => {
                if pulse.is_over(limits, &mut window) {
                    return false;
                }
            }
        }
    }
}

/// How hyper's part of a connection ended.
enum End {
    /// For good.
    Closed,
    /// The peer is there and silent.
    Parked(Stream),
}

/// Requests and responses, until the connection closes or is put away.
async fn converse<S: Site>(
    site: &Arc<S>,
    connection: &Arc<Connection>,
    stream: Stream,
    begun: BytesMut,
    stop: &CancellationToken,
) -> End {
    let (pulse, limits) = (&connection.pulse, &connection.limits);
    let shelf = Arc::new(Mutex::new(None));
    let wire = Wire { stream, begun, connection: connection.clone(), shelf: shelf.clone() };
    let (site, shared) = (site.clone(), connection.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (site, connection) = (site.clone(), shared.clone());
        async move {
            let _thinking = connection.pulse.think(request.version() == Version::HTTP_2);
            Ok::<_, Infallible>(site.answer(request, &connection).await)
        }
    });
    let mut running = Box::pin(builder().serve_connection(TokioIo::new(wire), service).into_owned());
    let mut window = Window::default();
    let mut parting = false;
    let result = loop {
        tokio::select! {
            biased;
            result = running.as_mut() => break result,
            () = stop.cancelled(), if !parting => {
                parting = true;
                running.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(pulse.pause(limits)) => {
                if pulse.is_over(limits, &mut window) {
                    tracing::debug!("closed: the peer was idle, slow or here for too long");
                    return End::Closed;
                }
                // The wire now says that the peer is gone, and hyper lets go of it.
                pulse.park(pulse.may_park(limits));
            }
        }
    };
    drop(running);
    if let Err(error) = &result {
        tracing::debug!(%error, "connection ended");
    }
    let stream = shelf.lock().take();
    match stream {
        Some(stream) if result.is_ok() && pulse.is_parked() => End::Parked(stream),
        Some(stream) if pulse.is_unread() => {
            linger(stream).await;
            End::Closed
        }
        _ => End::Closed,
    }
}
fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `Pulse` keeps the time of heads: hyper's would also cut an idle keep-alive after the greeting time.
        .header_read_timeout(None)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER)
        // Pipelined flushing copies every body byte and takes away back-pressure (hyper 1.12 `proto/h1/io.rs`).
        .pipeline_flush(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS)
        .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// A refused upload is still being sent: closing now would reset the connection, and the refusal might never be read.
async fn linger(mut stream: Stream) {
    let read = async {
        let mut scrap = vec![0; 16 << 10];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut scrap).await {
                Ok(0) | Err(_) => break,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, read).await;
}

/// The stream with its pulse taken; given back on the shelf when hyper is done with it.
struct Wire {
    stream: Stream,
    /// What was read of the peer's before hyper was asked.
    begun: BytesMut,
    connection: Arc<Connection>,
    shelf: Arc<Mutex<Option<Stream>>>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        *self.shelf.lock() = Some(std::mem::replace(&mut self.stream, Stream::Closed));
    }
}

impl Wire {
    fn counted(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &result {
            self.connection.pulse.said(*bytes);
        }
        result
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.begun.is_empty() {
            let count = this.begun.len().min(buf.remaining());
            buf.put_slice(&this.begun.split_to(count));
            this.connection.pulse.heard();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        let pulse = &this.connection.pulse;
        if result.is_pending() && pulse.is_parked() {
            return Poll::Ready(Ok(()));
        }
        pulse.park(false);
        if buf.filled().len() > before {
            pulse.heard();
        }
        result
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match this.connection.lent.poll_write(&this.stream, cx, bufs) {
            Some(result) => result,
            None => Pin::new(&mut this.stream).poll_write_vectored(cx, bufs),
        };
        this.counted(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.pulse.is_parked() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
