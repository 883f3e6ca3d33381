//! Side lanes: the second connection a protocol such as FTP opens for its data.
//!
//! Only the peer of the control connection is taken: a stranger who finds the port first is dropped, and the wait goes on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::lent::{self, Lent};
use super::{Stream, Tls};
use crate::origin::Origin;

/// Connections that may wait in the kernel: the peer's own and a few strangers'.
const BACKLOG: u32 = 8;
/// Ports of a range tried before it counts as used up.
const TRIES: u16 = 1_000;

/// A name behind which we can be reached is looked up this long.
const LOOKUP: Duration = Duration::from_secs(5);

/// A listener waiting for the data connection of one control connection.
pub struct Passive {
    /// The port it waits on.
    pub port: u16,
    listener: TcpListener,
    peer: IpAddr,
    /// The port goes back when the transfer has its connection.
    _lent: Option<Lent>,
}

/// Where the data connection comes from, and whether it speaks TLS. Opened by the driver when the transfer starts.
pub enum Lane {
    /// We connect to the peer (PORT/EPRT; already checked to be the control peer).
    Active {
        /// Where to.
        to: SocketAddr,
        /// Speak TLS (we are the server side of it).
        tls: Option<Arc<Tls>>,
    },
    /// The peer connects to us.
    Passive {
        /// Who waits.
        listener: Passive,
        /// Speak TLS.
        tls: Option<Arc<Tls>>,
    },
}

impl Passive {
    /// Takes a port systemd passed, or binds a random free port of the range on the address the control connection came in on; a range that starts with 0 means any port.
    /// Only a peer with the control peer's address is taken.
    ///
    /// # Errors
    /// When every port of the range is taken.
    pub fn bind(origin: &Origin, ports: RangeInclusive<u16>) -> io::Result<Self> {
        let peer = origin.peer.ip().to_canonical();
        if let Some(lent) = lent::lend() {
            let lent = lent?;
            let listener = lent.handle()?;
            return Ok(Self { port: listener.local_addr()?.port(), listener, peer, _lent: Some(lent) });
        }
        let local = origin.local.ip().to_canonical();
        let listener = match listen_in(local, &ports) {
            // Behind a PROXY header our own address is the balancer's.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => listen_in(any(local), &ports)?,
            other => other?,
        };
        Ok(Self { port: listener.local_addr()?.port(), listener, peer, _lent: None })
    }

    async fn accept(self) -> io::Result<TcpStream> {
        loop {
            let (stream, from) = self.listener.accept().await?;
            if from.ip().to_canonical() == self.peer {
                return Ok(stream);
            }
            tracing::warn!(stranger = %from, peer = %self.peer, port = self.port, "data connection from another address dropped");
        }
    }
}

impl Lane {
    /// Waits for, or makes, the data connection, with its TLS handshake.
    ///
    /// # Errors
    /// `TimedOut` after `deadline`; the socket's; the handshake's.
    pub async fn open(self, deadline: Duration) -> io::Result<Stream> {
        let (connected, tls) = match self {
            Self::Active { to, tls } => (timeout(deadline, TcpStream::connect(to)).await, tls),
            Self::Passive { listener, tls } => (timeout(deadline, listener.accept()).await, tls),
        };
        let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        match tls {
            None => Ok(Stream::Tcp(stream)),
            Some(tls) => tls.accept(Stream::Tcp(stream), deadline).await,
        }
    }
}

/// The IPv4 address a client is told to connect to: `configured` (an address or a name) or, when that is empty, the one it connected to.
/// A client on this very machine is always told the latter.
///
/// # Errors
/// When there is no IPv4 address, or the name has none.
pub async fn announced(configured: &str, origin: &Origin) -> io::Result<Ipv4Addr> {
    let here = origin.local.ip().to_canonical();
    if configured.is_empty() || origin.peer.ip().to_canonical().is_loopback() {
        return match here {
            IpAddr::V4(address) => Ok(address),
            IpAddr::V6(_) => Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "the connection uses IPv6")),
        };
    }
    if let Ok(address) = configured.parse() {
        return Ok(address);
    }
    let looked_up = timeout(LOOKUP, tokio::net::lookup_host((configured, 0)));
    let mut found = looked_up.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let first = found.find_map(|address| match address.ip().to_canonical() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    first.ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no IPv4 address"))
}

fn any(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Starts at a random port of the range, so that nobody can guess the next one.
fn listen_in(address: IpAddr, ports: &RangeInclusive<u16>) -> io::Result<TcpListener> {
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

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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
        let first = Passive::bind(&origin([127, 0, 0, 1]), 0..=0).unwrap();
        let only = first.port..=first.port;
        assert!(Passive::bind(&origin([127, 0, 0, 1]), only.clone()).is_err());
        drop(first);
        assert_eq!(Passive::bind(&origin([127, 0, 0, 1]), only.clone()).unwrap().port, *only.start());
    }

    #[tokio::test]
    async fn a_stranger_is_dropped_and_the_peer_still_served() {
        let listener = Passive::bind(&origin([127, 0, 0, 2]), 0..=0).unwrap();
        let to = SocketAddr::new([127, 0, 0, 1].into(), listener.port);
        let opening = tokio::spawn(Lane::Passive { listener, tls: None }.open(Duration::from_secs(10)));
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
        let listener = Passive::bind(&origin([127, 0, 0, 1]), 0..=0).unwrap();
        let opened = Lane::Passive { listener, tls: None }.open(Duration::from_millis(20)).await;
        assert_eq!(opened.err().map(|error| error.kind()), Some(io::ErrorKind::TimedOut));
    }
}
