//! Accepting: from a waiting connection to a [`Link`] in its handler's hands.
//!
//! One loop for each listener on each worker. It never waits for a peer: a PROXY header and a TLS handshake happen in the
//! connection's own task, and what has no place is closed at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::drain::{Links, Parting};
use super::limit::{Gate, Refusal};
use super::local::{LOCAL, Listening};
use super::{Handler, Link, Stream, Tls, TlsMode, Trusted, proxy};
use crate::origin::{Origin, Whence};
use crate::telemetry::{Record, Seldom, metric};

/// How long the loop rests when the process or the machine has no descriptor left.
const BACK_OFF: Duration = Duration::from_millis(50);
/// What a flood makes the log say is said once in this time.
const SELDOM: Duration = Duration::from_mins(1);

static FULL: Seldom = Seldom::new(SELDOM);
static REFUSED: Seldom = Seldom::new(SELDOM);
static BAD_PROXY: Seldom = Seldom::new(SELDOM);
static NEXT_LINK: AtomicU64 = AtomicU64::new(1);

/// A language behind one or more listeners, with what its connections need. A reload swaps the handler.
pub struct Service {
    /// The language's name, on every log line and metric.
    pub door: &'static str,
    handler: ArcSwap<Arc<dyn Handler>>,
    mode: TlsMode,
    tls: Option<Arc<Tls>>,
    gate: Arc<Gate>,
    trusted: ArcSwap<Trusted>,
}

impl Service {
    /// A service; its TLS has the handler's ALPN protocols.
    #[must_use]
    pub fn new(
        door: &'static str,
        handler: Arc<dyn Handler>,
        mode: TlsMode,
        tls: &Arc<Tls>,
        gate: &Arc<Gate>,
    ) -> Arc<Self> {
        let tls = match mode {
            TlsMode::None => None,
            TlsMode::Implicit | TlsMode::Upgrade => Some(tls.with_alpn(handler.alpn())),
        };
        Arc::new(Self {
            door,
            handler: ArcSwap::from_pointee(handler),
            mode,
            tls,
            gate: Arc::clone(gate),
            trusted: ArcSwap::default(),
        })
    }

    /// Connections from now on are served by this handler; those that run keep theirs.
    pub fn swap(&self, handler: Arc<dyn Handler>) {
        self.handler.store(Arc::new(handler));
    }

    /// These peers may say for whom they speak, from now on.
    pub fn trust(&self, trusted: Trusted) {
        self.trusted.store(Arc::new(trusted));
    }

    /// A connection that was accepted: counted, or closed at once.
    fn welcome(self: &Arc<Self>, stream: Stream, address: Option<SocketAddr>, listener: &Arc<str>, links: &Links) {
        let peer = canonical(address.unwrap_or(LOCAL));
        let behind_proxy = self.gate.trusts(peer.ip());
        let trusted = Some(self.trusted.load_full());
        let trusted = trusted.filter(|trusted| address.map_or(trusted.has_local(), |_| trusted.has(peer.ip())));
        let uncounted = behind_proxy || trusted.is_some() || address.is_none();
        let permit = self.gate.admit().and_then(|mut permit| match uncounted {
            // The address to count is the one the proxy will name; a proxy of many clients has many connections.
            true => Ok(permit),
            false => permit.address(peer.ip()).map(|()| permit),
        });
        let permit = match permit {
            Ok(permit) => permit,
            Err(refusal) => return self.refuse(&stream, peer, refusal),
        };
        let Some(local) = stream.as_tcp().map_or(Some(LOCAL), |tcp| tcp.local_addr().ok()) else { return };
        let origin = Origin::from(Whence {
            door: self.door,
            listener: Arc::clone(listener),
            peer,
            local: canonical(local),
            link: NEXT_LINK.fetch_add(1, Ordering::Relaxed),
            secure: false,
        });
        let span = tracing::info_span!("link", link = origin.link, door = self.door, peer = %peer);
        let limits = self.gate.limits();
        let link = Link {
            stream,
            origin,
            stop: links.part(!limits.total.0.is_zero()),
            limits,
            tls: self.tls.clone(),
            permit,
            trusted,
        };
        let service = Arc::clone(self);
        links.spawn(service.attend(link, behind_proxy, links.parting()).instrument(span));
    }

    /// One connection's life. Not an `async fn`: the link would stay in the task beside the box it was moved into, for as long as the
    /// connection is idle. What is large is boxed, and gone before the long part.
    fn attend(self: Arc<Self>, link: Link, behind_proxy: bool, parting: Parting) -> impl Future<Output = ()> + Send {
        let counted = Counted::new(self.door);
        let begun = match behind_proxy || self.mode == TlsMode::Implicit {
            true => Begun::Preparing(Box::pin(Arc::clone(&self).prepare(link, behind_proxy))),
            false => Begun::Ready(Box::new(link)),
        };
        async move {
            let ready = match begun {
                Begun::Ready(link) => Some(link),
                Begun::Preparing(preparing) => preparing.await,
            };
            if let Some(link) = ready {
                let handler = Arc::clone(&self.handler.load());
                let bounds = Bounds::of(&link);
                let serving = handler.serve(*link);
                let result = match bounds {
                    None => serving.await,
                    Some(bounds) => Box::pin(bounds.hold(serving)).await,
                };
                match result {
                    Ok(()) => tracing::debug!(target: "stoa::net", "closed"),
                    Err(error) => tracing::debug!(target: "stoa::net", "closed: {error}"),
                }
            }
            drop(counted);
            parting.done();
        }
    }

    /// The PROXY header and the handshake of an implicit TLS listener.
    async fn prepare(self: Arc<Self>, mut link: Link, behind_proxy: bool) -> Option<Box<Link>> {
        if behind_proxy {
            self.unwrap_proxy(&mut link).await?;
        }
        if self.mode == TlsMode::Implicit
            && let Err(error) = link.secure().await
        {
            tracing::debug!(target: "stoa::net", "TLS handshake failed: {error}");
            // A browser that does not know our certificate is no machine in trouble.
            if self.handler.load().alpn().is_empty() {
                Record::default().file(&link.origin, "", &format!("TLS from the first byte failed: {error}"));
            }
            return None;
        }
        Some(Box::new(link))
    }

    async fn unwrap_proxy(&self, link: &mut Link) -> Option<()> {
        let named = match proxy::read(&mut link.stream, link.limits.handshake.0).await {
            Ok(named) => named,
            Err(error) => {
                if let Some(times) = BAD_PROXY.now() {
                    let (proxy, listener) = (link.origin.peer, &link.origin.listener);
                    tracing::warn!(target: "stoa::net", %proxy, %listener, times, "closed a connection of a PROXY protocol sender: {error}");
                }
                return None;
            }
        };
        if let Some((peer, local)) = named {
            link.origin.peer = canonical(peer);
            link.origin.local = canonical(local);
            link.trusted = Some(self.trusted.load_full()).filter(|trusted| trusted.has(link.origin.peer.ip()));
            if let Err(refusal) = link.permit.address(link.origin.peer.ip()) {
                self.refuse(&link.stream, link.origin.peer, refusal);
                return None;
            }
        }
        Some(())
    }

    /// Closed at once, with the language's word for "busy" where nothing encrypted is expected.
    fn refuse(&self, stream: &Stream, peer: SocketAddr, refusal: Refusal) {
        metric::link_refused(self.door, refusal.word());
        if let Some(times) = REFUSED.now() {
            tracing::warn!(target: "stoa::net", door = self.door, %peer, times, "refused: {refusal}");
        }
        let words = self.handler.load().busy();
        if let (true, Some(tcp)) = (self.mode != TlsMode::Implicit && !words.is_empty(), stream.as_tcp()) {
            // As much as fits without waiting: a new connection's buffer is empty.
            let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
            let _ = rustix::net::send(tcp, words, flags);
        }
    }
}

/// A link on its way to its handler.
enum Begun {
    Ready(Box<Link>),
    Preparing(Pin<Box<dyn Future<Output = Option<Box<Link>>> + Send>>),
}

/// How long a link may be served, where there is a limit.
struct Bounds {
    stop: CancellationToken,
    total: Duration,
    grace: Duration,
}

impl Bounds {
    fn of(link: &Link) -> Option<Box<Self>> {
        let total = link.limits.total.0;
        (!total.is_zero()).then(|| Box::new(Self { stop: link.stop.clone(), total, grace: link.limits.drain.0 }))
    }

    /// Serves, but asks the link to part after `total` and leaves after `grace` more.
    async fn hold(self: Box<Self>, serving: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        tokio::pin!(serving);
        if let Ok(result) = tokio::time::timeout(self.total, &mut serving).await {
            return result;
        }
        self.stop.cancel();
        let late = || io::Error::new(io::ErrorKind::TimedOut, "open longer than [limits] total");
        tokio::time::timeout(self.grace, serving).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Counts a link while it lives, a panic included.
struct Counted {
    door: &'static str,
}

impl Counted {
    fn new(door: &'static str) -> Self {
        metric::link_opened(door);
        tracing::debug!(target: "stoa::net", "connected");
        Self { door }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metric::link_closed(self.door);
        // The unwinding of a panic drops us; the task's runner stops it there, and only this connection ends.
        if std::thread::panicking() {
            metric::link_panicked(self.door);
            tracing::error!(target: "stoa::net", door = self.door, "a fault of ours ended this connection");
        }
    }
}

/// Accepts until `links` stops. Errors of one connection are passed over; lack of descriptors makes it rest, never spin.
pub(super) async fn accept(listener: Listening, name: Arc<str>, service: Arc<Service>, links: Links) {
    let stopped = links.stopped();
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => service.welcome(stream, peer, &name, &links),
            Err(error) if of_one_connection(&error) => {
                tracing::debug!(target: "stoa::net", listener = %name, "a connection left before it was accepted: {error}");
            }
            Err(error) => {
                metric::link_refused(service.door, "descriptors");
                if let Some(times) = FULL.now() {
                    tracing::error!(
                        target: "stoa::net", listener = %name, times,
                        "cannot accept connections: {error}; raise LimitNOFILE or lower [limits] connections"
                    );
                }
                tokio::select! {
                    () = &mut stopped => return,
                    () = tokio::time::sleep(BACK_OFF) => {}
                }
            }
        }
    }
}

/// accept(2): network errors already pending on the new connection are reported here and mean nothing for the listener.
fn of_one_connection(error: &io::Error) -> bool {
    const PASSING: [Errno; 12] = [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::INTR,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::NOPROTOOPT,
        Errno::NONET,
        Errno::OPNOTSUPP,
        Errno::PROTO,
        Errno::TIMEDOUT,
    ];
    Errno::from_io_error(error).is_some_and(|errno| PASSING.contains(&errno))
}

/// `::ffff:10.0.0.1` is `10.0.0.1` in every rule and every log line.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::net::{Limits, Permit, TlsSettings};

    struct Nothing;

    #[async_trait]
    impl Handler for Nothing {
        async fn serve(&self, _link: Link) -> io::Result<()> {
            Ok(())
        }
    }

    /// An idle connection keeps its whole task: what the handshake and the PROXY header need must not stay in it.
    #[tokio::test]
    async fn a_links_task_is_small() {
        let data = tempfile::tempdir().unwrap();
        let tls = Tls::open(&TlsSettings::default(), data.path(), &[]).unwrap();
        let gate = Gate::new(Limits::default()).unwrap();
        let service = Service::new("ftp", Arc::new(Nothing), TlsMode::Implicit, &tls, &gate);
        let link = Link {
            stream: Stream::Closed,
            origin: Origin::inside("ftp"),
            stop: CancellationToken::new(),
            limits: gate.limits(),
            tls: None,
            permit: Permit::uncounted(),
            trusted: None,
        };
        let parting = Links::new(CancellationToken::new()).parting();
        let task = service.attend(link, false, parting);
        assert!(size_of_val(&task) <= 176, "{} bytes", size_of_val(&task));
        task.await;
    }
}
