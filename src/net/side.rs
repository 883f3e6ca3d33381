//! Side lanes: the second connection a protocol such as FTP opens for its data.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Stream, Tls};
use crate::origin::Origin;

/// A listener waiting for the data connection of one control connection.
pub struct Passive {
    /// The port it waits on.
    pub port: u16,
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
    /// Binds a random free port of the range on the address the control connection came in on. Only a peer with the control peer's address is
    /// taken.
    ///
    /// # Errors
    /// When every port of the range is taken.
    pub async fn bind(_origin: &Origin, _ports: std::ops::RangeInclusive<u16>) -> std::io::Result<Self> {
        todo!()
    }
}

impl Lane {
    /// Waits for, or makes, the data connection, with its TLS handshake.
    ///
    /// # Errors
    /// `TimedOut` after `deadline`; the socket's; the handshake's.
    pub async fn open(self, _deadline: Duration) -> std::io::Result<Stream> {
        todo!()
    }
}
