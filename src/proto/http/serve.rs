//! One connection: HTTP/1 request by request, HTTP/2 as a whole, bounds, deadlines, drain. Shared by the tree and the admin listener.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use crate::net::{Limits, Link, Permit, Stream, Trusted};
use crate::origin::Origin;
use crate::proto::http::body::Outgoing;
use crate::proto::http::extent::Extent;
use crate::proto::http::fast_path::FastPath;
use crate::proto::http::front::{self, Begun, Outcome};
use crate::proto::http::head;
use crate::proto::http::pulse::{Pulse, Window};
use crate::proto::http::second::{self, Gathered};
use crate::proto::http::sendfile::Lent;
use crate::proto::http::signin::Proven;
use crate::proto::http::unsent;
use crate::proto::http::wire::{Left, Shelf, Wire};

/// What an implicit TLS listener offers.
pub const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// hyper's read and write buffers stay below this.
const BUFFER: usize = 128 << 10;
/// How long what is under way may go on when the sign-in it came by has ended: for the refusal of an upload to be read.
const FAREWELL: Duration = Duration::from_millis(500);

/// What all requests of one connection share.
pub struct Connection {
    /// Who and where.
    pub origin: Origin,
    /// Deadlines and rates.
    pub limits: Arc<Limits>,
    /// What it is doing.
    pub pulse: Arc<Pulse>,
    /// The last Basic header that was right.
    pub proven: Mutex<Option<Box<Proven>>>,
    /// The last sign-in that a request came by.
    pub signed: Signed,
    /// Stretches of files its wire sends by the kernel.
    pub lent: Lent,
    /// Its place among the counted connections, and the account it counts for.
    pub permit: Mutex<Permit>,
    /// The peer is a proxy that may say for whom it speaks.
    pub trusted: Option<Arc<Trusted>>,
    /// The daemon drains.
    pub stop: CancellationToken,
}

/// The sign-in by which the last request of a connection came: when it ends, what is under way is cut.
#[derive(Default)]
pub struct Signed {
    ended: Mutex<Option<CancellationToken>>,
    /// It was set since it was last looked at.
    anew: AtomicBool,
}

impl Signed {
    /// Another request came by a sign-in.
    pub fn set(&self, ended: Option<&CancellationToken>) {
        if let Some(ended) = ended {
            *self.ended.lock() = Some(ended.clone());
            self.anew.store(true, Ordering::Release);
        }
    }

    /// The next request says by itself who asks.
    fn forget(&self) {
        *self.ended.lock() = None;
    }

    fn get(&self) -> Option<CancellationToken> {
        self.ended.lock().clone()
    }

    fn is_set_anew(&self) -> bool {
        self.anew.swap(false, Ordering::AcqRel)
    }
}

/// Waits for the end of a sign-in; forever, where nobody signed in.
pub async fn end_of(sign_in: Option<&CancellationToken>) {
    match sign_in {
        Some(sign_in) => sign_in.cancelled().await,
        None => std::future::pending().await,
    }
}

/// What answers requests.
#[async_trait]
pub trait Site: Send + Sync + 'static {
    /// One request, one response; a failure is a response too.
    async fn answer(&self, request: Request<Incoming>, connection: &Arc<Connection>) -> Response<Outgoing>;

    /// What plain requests of this connection may be answered from before hyper is asked.
    fn fast_path(&self, _connection: &Connection) -> Option<&FastPath> {
        None
    }
}

/// Serves a connection to its end. While it is idle, only its socket is kept. Not an `async fn`: what the link brings would stay in the
/// task beside the places it was moved to.
pub fn serve<S: Site>(site: Arc<S>, link: Link) -> impl Future<Output = io::Result<()>> + Send {
    let (connection, stream, stop) = connect(link);
    let talk = Talk { site, connection, stop };
    async move {
        talk.hold(stream).await;
        Ok(())
    }
}

/// What a connection's requests share, and what they come by.
fn connect(link: Link) -> (Arc<Connection>, Stream, CancellationToken) {
    let Link { stream, origin, stop, limits, permit, trusted, .. } = link;
    let connection = Connection {
        origin,
        limits,
        pulse: Pulse::new(),
        proven: Mutex::new(None),
        signed: Signed::default(),
        lent: Lent::new(&stream),
        permit: Mutex::new(permit),
        trusted,
        stop: stop.clone(),
    };
    (Arc::new(connection), stream, stop)
}

/// One connection of one site.
struct Talk<S> {
    site: Arc<S>,
    connection: Arc<Connection>,
    stop: CancellationToken,
}

impl<S: Site> Talk<S> {
    /// The whole conversation.
    async fn hold(&self, mut stream: Stream) {
        if stream.alpn() == Some(b"h2") {
            return Box::pin(self.second(stream, BytesMut::new())).await;
        }
        let mut begun = Begun::default();
        loop {
            // Boxed, so that an idle connection's task does not keep the room for what hyper needs.
            match front::run(
                self.site.fast_path(&self.connection),
                &self.connection,
                &mut stream,
                &mut begun,
                &self.stop,
            )
            .await
            {
                Outcome::Closed => return,
                Outcome::Second(came) => return Box::pin(self.second(stream, came)).await,
                Outcome::Odd(came, extent) => match Box::pin(self.first(stream, came, extent)).await {
                    None => return,
                    Some(left) => {
                        stream = left.stream;
                        begun = left.rest.into();
                    }
                },
            }
        }
    }

    /// One request of HTTP/1 and its response; what is left, unless the connection is over.
    async fn first(&self, stream: Stream, came: BytesMut, extent: Extent) -> Option<Left> {
        self.connection.signed.forget();
        let shelf = Shelf::default();
        let wire = Wire::new(stream, came, extent, &self.connection, &shelf);
        let site = (self.site.clone(), self.connection.clone());
        let service = service_fn(move |request| answer(site.clone(), request, false));
        let result = self.drive(first().serve_connection(TokioIo::new(wire), service), |_| Poll::Ready(Ok(()))).await;
        if let Some(Err(error)) = &result {
            tracing::debug!(%error, "connection ended");
        }
        let mut left = shelf.lock().take()?;
        if result?.is_ok() && left.goes_on {
            return Some(left);
        }
        if self.connection.pulse.is_unread() {
            tokio::select! {
                () = linger(&mut left.stream, &self.connection.limits) => {}
                () = self.stop.cancelled() => {}
            }
        }
        None
    }

    /// All of an HTTP/2 connection.
    async fn second(&self, stream: Stream, came: BytesMut) {
        let gathered = Gathered::new(stream, came, &self.connection);
        let guest = self.site.fast_path(&self.connection).map(|path| path.hub.guest(self.connection.origin.clone()));
        let (site, connection) = (self.site.clone(), self.connection.clone());
        let service = service_fn(move |request| {
            let ready = guest.as_ref().zip(site.fast_path(&connection));
            let ready = ready.and_then(|(guest, path)| second::at_once(path, guest, &request, &connection));
            let later = match ready {
                Some(response) => Err(response),
                None => Ok(answer((site.clone(), connection.clone()), request, true)),
            };
            async move {
                match later {
                    Ok(later) => later.await,
                    Err(response) => Ok(response),
                }
            }
        });
        let running = second::builder(&self.connection.limits).serve_connection(TokioIo::new(gathered.wire()), service);
        if let Some(Err(error)) = self.drive(running, |cx| gathered.poll_push(cx)).await {
            tracing::debug!(%error, "connection ended");
        }
    }

    /// Runs hyper under the deadlines and until the drain, and `push` after each of its turns; `None` when the peer was too slow, or left.
    async fn drive<C: GracefulConnection>(
        &self,
        running: C,
        push: impl Fn(&mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Option<Result<(), C::Error>> {
        let (pulse, limits) = (&self.connection.pulse, &self.connection.limits);
        let mut running = pin!(running);
        let mut window = Window::default();
        let (mut parting, mut revoked) = (false, false);
        loop {
            let signed = self.connection.signed.get();
            let pause = if revoked { FAREWELL } else { pulse.pause(limits) };
            tokio::select! {
                biased;
                result = poll_fn(|cx| match (running.as_mut().poll(cx), push(cx)) {
                    (Poll::Ready(result), _) => Poll::Ready(Some(Some(result))),
                    (Poll::Pending, Poll::Ready(Err(_))) => Poll::Ready(Some(None)),
                    (Poll::Pending, _) if self.connection.signed.is_set_anew() => Poll::Ready(None),
                    (Poll::Pending, _) => Poll::Pending,
                }) => if let Some(result) = result { return result; },
                () = end_of(signed.as_ref()), if !revoked => {
                    revoked = true;
                    running.as_mut().graceful_shutdown();
                }
                () = self.stop.cancelled(), if !parting => {
                    parting = true;
                    running.as_mut().graceful_shutdown();
                }
                () = tokio::time::sleep(pause) => {
                    if revoked {
                        tracing::debug!("closed: the sign-in has ended");
                        return None;
                    }
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
        unsent::answered();
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

/// A refused upload is still being sent: closing now would reset the connection, and the refusal might never be read.
pub async fn linger(stream: &mut Stream, limits: &Limits) {
    let read = async {
        let mut scrap = vec![0; 16 << 10];
        let mut left = limits.linger_size.0;
        while left > 0 {
            match tokio::time::timeout(limits.linger_quiet.0, stream.read(&mut scrap)).await {
                Ok(Ok(count @ 1..)) => left = left.saturating_sub(count as u64),
                _ => break,
            }
        }
    };
    let _ = tokio::time::timeout(limits.linger.0, read).await;
}

#[cfg(test)]
impl Link {
    /// One over nothing.
    fn nowhere() -> Self {
        Self {
            stream: Stream::Closed,
            origin: Origin::inside("http"),
            stop: CancellationToken::new(),
            limits: Arc::default(),
            tls: None,
            permit: Permit::uncounted(),
            trusted: None,
        }
    }
}

#[cfg(test)]
impl Connection {
    /// One over nothing.
    pub fn nowhere() -> Arc<Self> {
        connect(Link::nowhere()).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;

    #[async_trait]
    impl Site for Nowhere {
        async fn answer(&self, _request: Request<Incoming>, _connection: &Arc<Connection>) -> Response<Outgoing> {
            Response::new(Outgoing::empty())
        }
    }

    /// An idle connection keeps all of it: what only a request needs must be boxed, and gone by then.
    #[tokio::test]
    async fn what_an_idle_connection_keeps_is_small() {
        let conversation = serve(Arc::new(Nowhere), Link::nowhere());
        let sizes = (size_of_val(&conversation), size_of::<Connection>(), size_of::<Pulse>());
        assert!(sizes.0 <= 1024 && sizes.1 <= 256 && sizes.2 <= 96, "{sizes:?}");
        conversation.await.unwrap();
    }
}
