//! One connection: HTTP/1 request by request, HTTP/2 as a whole, bounds, deadlines, drain. Shared by the tree and the admin listener.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::net::{Limits, Link, Permit, Stream, Trusted};
use crate::origin::Origin;
use crate::proto::http::body::Outgoing;
use crate::proto::http::express::Express;
use crate::proto::http::extent::Extent;
use crate::proto::http::front::{self, Begun, Outcome};
use crate::proto::http::head;
use crate::proto::http::pulse::{Pulse, Window};
use crate::proto::http::sendfile::Lent;
use crate::proto::http::signin::Proven;
use crate::proto::http::wire::{Left, Shelf, Wire};

/// What an implicit TLS listener offers.
pub const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

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
    /// The peer is a proxy that may say for whom it speaks.
    pub trusted: Option<Arc<Trusted>>,
}

/// What answers requests.
#[async_trait]
pub trait Site: Send + Sync + 'static {
    /// One request, one response; a failure is a response too.
    async fn answer(&self, request: Request<Incoming>, connection: &Arc<Connection>) -> Response<Outgoing>;

    /// What plain requests of this connection may be answered from before hyper is asked.
    fn express(&self, _connection: &Connection) -> Option<&Express> {
        None
    }
}

/// Serves a connection to its end. While it is idle, only its socket is kept.
pub async fn serve<S: Site>(site: Arc<S>, link: Link) -> io::Result<()> {
    let Link { mut stream, origin, stop, limits, permit, trusted, .. } = link;
    let connection = Arc::new(Connection {
        origin,
        limits,
        pulse: Pulse::new(),
        proven: Mutex::new(None),
        lent: Lent::new(&stream),
        permit: Mutex::new(permit),
        trusted,
    });
    let talk = Talk { site, connection, stop };
    if stream.alpn() == Some(b"h2") {
        Box::pin(talk.second(stream, BytesMut::new())).await;
        return Ok(());
    }
    let mut begun = Begun::default();
    loop {
        let Talk { site, connection, stop } = &talk;
        // Boxed, so that an idle connection's task does not keep the room for what hyper needs.
        match front::run(site.express(connection), connection, &mut stream, begun, stop).await {
            Outcome::Closed => return Ok(()),
            Outcome::Second(came) => {
                Box::pin(talk.second(stream, came)).await;
                return Ok(());
            }
            Outcome::Odd(came, extent) => match Box::pin(talk.first(stream, came, extent)).await {
                None => return Ok(()),
                Some(left) => {
                    stream = left.stream;
                    begun = left.rest.into();
                }
            },
        }
    }
}

/// One connection of one site.
struct Talk<S> {
    site: Arc<S>,
    connection: Arc<Connection>,
    stop: CancellationToken,
}

impl<S: Site> Talk<S> {
    /// One request of HTTP/1 and its response; what is left, unless the connection is over.
    async fn first(&self, stream: Stream, came: BytesMut, extent: Extent) -> Option<Left> {
        let shelf = Shelf::default();
        let wire = Wire::new(stream, came, extent, &self.connection, &shelf);
        let site = (self.site.clone(), self.connection.clone());
        let service = service_fn(move |request| answer(site.clone(), request, false));
        let result = self.drive(first().serve_connection(TokioIo::new(wire), service)).await;
        if let Some(Err(error)) = &result {
            tracing::debug!(%error, "connection ended");
        }
        let mut left = shelf.lock().take()?;
        if result?.is_ok() && left.goes_on {
            return Some(left);
        }
        if self.connection.pulse.is_unread() {
            linger(&mut left.stream).await;
        }
        None
    }

    /// All of an HTTP/2 connection.
    async fn second(&self, stream: Stream, came: BytesMut) {
        let wire = Wire::new(stream, came, Extent::endless(), &self.connection, &Shelf::default());
        let site = (self.site.clone(), self.connection.clone());
        let service = service_fn(move |request| answer(site.clone(), request, true));
        if let Some(Err(error)) = self.drive(second().serve_connection(TokioIo::new(wire), service)).await {
            tracing::debug!(%error, "connection ended");
        }
    }

    /// Runs hyper under the deadlines and until the drain; `None` when the peer was too slow.
    async fn drive<C: GracefulConnection>(&self, running: C) -> Option<Result<(), C::Error>> {
        let (pulse, limits) = (&self.connection.pulse, &self.connection.limits);
        let mut running = pin!(running);
        let mut window = Window::default();
        let mut parting = false;
        loop {
            tokio::select! {
                biased;
                result = running.as_mut() => return Some(result),
                () = self.stop.cancelled(), if !parting => {
                    parting = true;
                    running.as_mut().graceful_shutdown();
                }
                () = tokio::time::sleep(pulse.pause(limits)) => {
                    if pulse.is_over(limits, &mut window) {
                        tracing::debug!("closed: the peer was idle, slow or here for too long");
                        return None;
                    }
                }
            }
        }
    }
}

/// Not an `async fn`: the request counts from here on, not from when its answer is first asked for.
fn answer<S: Site>(
    (site, connection): (Arc<S>, Arc<Connection>),
    request: Request<Incoming>,
    second: bool,
) -> impl Future<Output = Result<Response<Outgoing>, Infallible>> {
    let thinking = connection.pulse.think(second);
    async move {
        let response = site.answer(request, &connection).await;
        drop(thinking);
        Ok(response)
    }
}

fn first() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // `Pulse` keeps the time of heads: hyper never waits for one.
        .header_read_timeout(None)
        .max_headers(head::LINES)
        .max_buf_size(BUFFER)
        // Pipelined flushing copies every body byte and takes away back-pressure (hyper 1.12 `proto/h1/io.rs`).
        .pipeline_flush(false);
    builder
}

fn second() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS)
        .max_header_list_size(u32::try_from(head::LONGEST).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// A refused upload is still being sent: closing now would reset the connection, and the refusal might never be read.
pub async fn linger(stream: &mut Stream) {
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
