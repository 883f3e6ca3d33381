//! Side lanes: the second connection a protocol such as FTP opens for its data.
//!
//! Only the peer of the control connection is taken: a stranger who finds the port first is dropped, and the wait goes on.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::Mutex;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::lent::{self, Lent};
use super::pour::{self, SMALL};
use super::rate::Rates;
use super::{Stream, Tls, spare};
use crate::origin::Origin;
use crate::telemetry::{Seldom, metric};

/// Connections that may wait in the kernel: the peer's own and a few strangers'.
const BACKLOG: i32 = 8;
/// Ports of a range tried before it counts as used up.
const TRIES: u16 = 1_000;
/// What a flood makes the log say is said once in this time.
const SELDOM: Duration = Duration::from_mins(1);
/// A relaxed peer may come from the same network of this size.
const NEIGHBOURS: (u8, u8) = (24, 64);

static UNPROVED: Seldom = Seldom::new(SELDOM);
static STRANGER: Seldom = Seldom::new(SELDOM);
/// Ports of a range that wait now, by the address they wait for.
static WAITING: LazyLock<Mutex<HashMap<IpAddr, usize>>> = LazyLock::new(Mutex::default);

/// From where a data connection is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// From anywhere: whoever finds the port first has it.
    Any,
    /// From the network of the control connection's address (/24, IPv6 /64): clients with several lines.
    Network,
    /// From the address of the control connection only.
    #[default]
    Same,
}

impl Peer {
    fn takes(self, control: IpAddr, from: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Same => control == from,
            Self::Network => {
                let size = if control.is_ipv4() { NEIGHBOURS.0 } else { NEIGHBOURS.1 };
                IpNet::new(control, size).is_ok_and(|network| network.contains(&from))
            }
        }
    }
}

/// What a data connection under TLS has to prove (RFC 4217 §10.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reuse {
    /// Nothing.
    Off,
    /// Nothing, but the log says who did not resume the control connection's session.
    #[default]
    Prefer,
    /// That it is the control connection's own client: it resumes that session, or is refused.
    Require,
}

/// Why a client was not taken: its TLS session is not the control connection's.
#[derive(Debug)]
pub struct NotResumed;

impl std::fmt::Display for NotResumed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the data connection did not resume the TLS session of its control connection")
    }
}

impl std::error::Error for NotResumed {}

/// A listener waiting for the data connection of one control connection.
pub struct Passive {
    /// The port it waits on.
    pub port: u16,
    listener: Option<std::net::TcpListener>,
    /// The control connection that may have it again, and the address it is on.
    again: Option<(u64, IpAddr)>,
    control: IpAddr,
    peer: Peer,
    since: Instant,
    /// The port goes back when the transfer has its connection.
    _lent: Option<Lent>,
    _turn: Turn,
}

/// Where the data connection comes from, whether it speaks TLS and how fast it may be. Opened by the driver when the transfer starts.
pub struct Lane {
    /// Who connects to whom.
    pub way: Way,
    /// Speak TLS (we are the server side of it).
    pub secured: Option<Secured>,
    /// What its bytes are drawn from.
    pub rates: Rates,
    /// How long its peer may take to be there, and again to finish a TLS handshake.
    pub wait: Duration,
    /// Under TLS the end of an upload must be said, not only come.
    pub strict: bool,
}

/// Who connects to whom.
pub enum Way {
    /// We connect to the peer (PORT/EPRT; already checked to be the control peer), from our address on the control connection.
    Active {
        /// Where to.
        to: SocketAddr,
        /// Where from.
        from: IpAddr,
    },
    /// The peer connects to us.
    Passive(Passive),
    /// The peer is here, and a part of the body is on its way already.
    Here(OwnedFd),
}

/// The TLS of a lane.
pub struct Secured {
    /// Certificates and tickets.
    pub tls: Arc<Tls>,
    /// Number of the control connection.
    pub link: u64,
    /// What the client has to prove.
    pub reuse: Reuse,
    /// Only the client has something to say.
    pub uploads: bool,
}

/// One address holds at most half of a range's ports, so that it cannot keep everybody else out.
struct Turn(Option<IpAddr>);

impl Turn {
    fn take(address: IpAddr, ports: usize) -> io::Result<Self> {
        let mut waiting = WAITING.lock();
        let count = waiting.entry(address).or_default();
        if *count >= ports.div_ceil(2) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "this address holds half of the ports already"));
        }
        *count += 1;
        Ok(Self(Some(address)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(address) = self.0 else { return };
        let mut waiting = WAITING.lock();
        if let Some(count) = waiting.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&address);
            }
        }
    }
}

impl Passive {
    /// Takes a port systemd passed, or binds a random free port of the range on the address the control connection came in on; a range that
    /// starts with 0 means any port.
    ///
    /// # Errors
    /// `AddrInUse`: every port of the range is taken, or half of them by this client's address.
    pub fn bind(origin: &Origin, ports: RangeInclusive<u16>, peer: Peer) -> io::Result<Self> {
        let bound = Self::bound(origin, &ports, peer);
        if bound.is_err() {
            metric::data_connection_failed("ports");
        }
        bound
    }

    fn bound(origin: &Origin, ports: &RangeInclusive<u16>, peer: Peer) -> io::Result<Self> {
        let control = origin.peer.ip().to_canonical();
        let turn = match (lent::count(), *ports.start()) {
            (0, 0) => Turn(None),
            (0, _) => Turn::take(control, ports.len())?,
            (lent, _) => Turn::take(control, lent)?,
        };
        let local = origin.local.ip().to_canonical();
        let any = *ports.start() == 0;
        let (listener, lent) = match lent::lend() {
            Some(lent) => {
                let lent = lent?;
                (lent.handle()?, Some(lent))
            }
            None => match spare::take(origin.link, local).filter(|_| any) {
                Some(listener) => (listener, None),
                None => (listen_near(local, ports)?, None),
            },
        };
        let port = listener.local_addr()?.port();
        let again = (any && lent.is_none()).then_some((origin.link, local));
        let since = Instant::now();
        Ok(Self { port, listener: Some(listener), again, control, peer, since, _lent: lent, _turn: turn })
    }

    fn listener(&self) -> io::Result<&std::net::TcpListener> {
        self.listener.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The peer's connection, where it is there already.
    fn waiting(&self) -> Option<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = self.listener().ok()?;
        while let Ok((stream, Some(from))) = rustix::net::acceptfrom_with(listener, flags) {
            if SocketAddr::try_from(from).is_ok_and(|from| self.knows(from)) {
                return Some(stream);
            }
        }
        None
    }

    /// Most clients are there already when their transfer starts: the runtime only hears of the listener when it must wait.
    async fn accept(self) -> io::Result<TcpStream> {
        if let Some(stream) = self.waiting() {
            return TcpStream::from_std(stream.into());
        }
        let listener = TcpListener::from_std(self.listener()?.try_clone()?)?;
        loop {
            let (stream, from) = listener.accept().await?;
            if self.knows(from) {
                return Ok(stream);
            }
        }
    }

    fn knows(&self, from: SocketAddr) -> bool {
        let known = self.peer.takes(self.control, from.ip().to_canonical());
        if !known {
            metric::data_connection_failed("stranger");
            if let Some(times) = STRANGER.now() {
                tracing::warn!(
                    stranger = %from, client = %self.control, port = self.port, times,
                    "data connection from another address dropped; a client behind several addresses needs `data_peer` in [ftp]"
                );
            }
        }
        known
    }

    /// It has waited this long, and nobody ever came.
    #[must_use]
    pub fn in_vain_for(&self) -> Option<Duration> {
        let waiting = rustix::net::accept(self.listener().ok()?);
        waiting.is_err_and(|error| error == rustix::io::Errno::AGAIN).then(|| self.since.elapsed())
    }
}

impl Drop for Passive {
    fn drop(&mut self) {
        if let (Some((link, address)), Some(listener)) = (self.again, self.listener.take()) {
            spare::keep(link, address, listener);
        }
    }
}

impl Lane {
    /// Sends a small file that is in memory to a peer that is there already, in plain and without the runtime hearing of the connection:
    /// how many bytes went out. When these are all, the connection is closed; else the usual way goes on from there.
    pub fn send_at_once(&mut self, file: &File, offset: u64, len: u64) -> u64 {
        let Way::Passive(listener) = &self.way else { return 0 };
        if self.secured.is_some() || !self.rates.is_free() || len > SMALL as u64 {
            return 0;
        }
        let mut buffer = [0; SMALL];
        let Some(bytes) = pour::in_memory(file, offset, len, &mut buffer) else { return 0 };
        let Some(peer) = listener.waiting() else { return 0 };
        let sent = rustix::net::send(&peer, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).unwrap_or(0);
        if sent < bytes.len() {
            self.way = Way::Here(peer);
        }
        sent as u64
    }

    /// Waits for, or makes, the data connection, with its TLS handshake.
    ///
    /// # Errors
    /// `TimedOut` after `wait`; the socket's; the handshake's; [`NotResumed`].
    pub async fn open(self) -> io::Result<Stream> {
        let wait = self.wait;
        let connected = match self.way {
            Way::Active { to, from } => timeout(wait, connect(from, to)).await,
            Way::Passive(listener) => timeout(wait, listener.accept()).await,
            Way::Here(peer) => Ok(TcpStream::from_std(peer.into())),
        };
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let tcp = connected.inspect_err(|error| {
            metric::data_connection_failed(match error.kind() {
                io::ErrorKind::TimedOut => "nobody",
                io::ErrorKind::ConnectionRefused => "refused",
                _ => "other",
            });
        })?;
        // Plain bytes go one way, and the end of the connection sends the last of them.
        let Some(secured) = self.secured else { return Ok(Stream::Tcp(tcp)) };
        tcp.set_nodelay(true)?;
        secured.shake(Stream::Tcp(tcp), wait).await
    }
}

impl Secured {
    async fn shake(self, tcp: Stream, wait: Duration) -> io::Result<Stream> {
        let shaken = self.tls.accept_beside(tcp, wait, self.link, self.uploads).await;
        let (stream, proved) = shaken.map_err(|error| {
            metric::data_connection_failed("tls");
            io::Error::new(io::ErrorKind::InvalidData, error)
        })?;
        match self.reuse {
            Reuse::Prefer if !proved => {
                if let Some(times) = UNPROVED.now() {
                    tracing::info!(
                        link = self.link,
                        times,
                        "{NotResumed}; [ftp] require_reuse = \"require\" would refuse it"
                    );
                }
            }
            Reuse::Require if !proved => {
                metric::data_connection_failed("not_resumed");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, NotResumed));
            }
            Reuse::Off | Reuse::Prefer | Reuse::Require => {}
        }
        Ok(stream)
    }
}

/// From the address the client knows us by. Behind a PROXY header that is not ours: then from any.
async fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    match socket.bind(SocketAddr::new(from, 0)) {
        Err(error) if error.kind() != io::ErrorKind::AddrNotAvailable => return Err(error),
        Ok(()) | Err(_) => {}
    }
    socket.connect(to).await
}

fn listen_near(local: IpAddr, ports: &RangeInclusive<u16>) -> io::Result<std::net::TcpListener> {
    match listen_in(local, ports) {
        // Behind a PROXY header our own address is the balancer's.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => listen_in(any(local), ports),
        other => other,
    }
}

fn any(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Starts at a random port of the range, so that nobody can guess the next one.
fn listen_in(address: IpAddr, ports: &RangeInclusive<u16>) -> io::Result<std::net::TcpListener> {
    let (first, last) = (*ports.start(), *ports.end());
    if first == 0 {
        return listen_on(SocketAddr::new(address, 0));
    }
    let count = u32::from(last.saturating_sub(first)) + 1;
    let start = getrandom::u32().map_err(|error| io::Error::other(error.to_string()))? % count;
    let mut outcome = Err(io::ErrorKind::AddrInUse.into());
    for step in 0..count.min(u32::from(TRIES)) {
        let port = u32::from(first) + (start + step) % count;
        let port = u16::try_from(port).map_err(io::Error::other)?;
        outcome = listen_on(SocketAddr::new(address, port));
        match &outcome {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            _ => return outcome,
        }
    }
    outcome
}

fn listen_on(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A port of a range may still remember its last connection; one the kernel picks does not.
    if address.port() != 0 {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn origin(peer: [u8; 4]) -> Origin {
        let mut origin = Origin::inside("ftp");
        origin.peer = SocketAddr::new(peer.into(), 1);
        origin
    }

    #[tokio::test]
    async fn a_port_of_the_range_is_taken_until_none_is_left() {
        let bind = |peer, ports| Passive::bind(&origin(peer), ports, Peer::Same);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let only = free..=free;
        let first = bind([127, 0, 0, 1], only.clone()).unwrap();
        assert!(bind([127, 0, 0, 1], only.clone()).is_err());
        drop(first);
        assert_eq!(bind([127, 0, 0, 1], only.clone()).unwrap().port, *only.start());
    }

    #[test]
    fn one_address_holds_half_of_a_range_at_most() {
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let held: Vec<Turn> = (0..3).map(|_| Turn::take(one, 5).unwrap()).collect();
        assert!(Turn::take(one, 5).is_err());
        drop(Turn::take(other, 5).unwrap());
        drop(held);
        drop(Turn::take(one, 1).unwrap());
    }

    #[test]
    fn who_is_a_stranger_is_a_choice() {
        let [control, near, far]: [IpAddr; 3] = [[10, 0, 0, 7].into(), [10, 0, 0, 8].into(), [10, 0, 1, 7].into()];
        assert!(Peer::Same.takes(control, control) && !Peer::Same.takes(control, near));
        assert!(Peer::Network.takes(control, near) && !Peer::Network.takes(control, far));
        assert!(Peer::Any.takes(control, far));
    }

    #[tokio::test]
    async fn a_port_knows_whether_somebody_came() {
        let waiting = Passive::bind(&origin([127, 0, 0, 1]), 0..=0, Peer::Same).unwrap();
        assert!(waiting.in_vain_for().is_some());
        let _client = TcpStream::connect(("127.0.0.1", waiting.port)).await.unwrap();
        assert!(waiting.in_vain_for().is_none());
    }

    fn plain(listener: Passive, wait: Duration) -> Lane {
        Lane { way: Way::Passive(listener), secured: None, rates: Rates::default(), wait, strict: false }
    }

    #[tokio::test]
    async fn a_stranger_is_dropped_and_the_peer_still_served() {
        let listener = Passive::bind(&origin([127, 0, 0, 2]), 0..=0, Peer::Same).unwrap();
        let to = SocketAddr::new([127, 0, 0, 1].into(), listener.port);
        let opening = tokio::spawn(plain(listener, Duration::from_secs(20)).open());
        let mut stranger = TcpStream::connect(to).await.unwrap();
        assert_eq!(stranger.read(&mut [0; 8]).await.unwrap_or(0), 0);
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut peer = socket.connect(to).await.unwrap();
        peer.write_all(b"x").await.unwrap();
        let mut lane = opening.await.unwrap().unwrap();
        assert_eq!(lane.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn nobody_coming_ends_at_the_deadline() {
        let listener = Passive::bind(&origin([127, 0, 0, 1]), 0..=0, Peer::Same).unwrap();
        let opened = plain(listener, Duration::from_millis(20)).open().await;
        assert_eq!(opened.err().map(|error| error.kind()), Some(io::ErrorKind::TimedOut));
    }
}
