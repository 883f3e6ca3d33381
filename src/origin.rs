//! Who asks, from where, by which door: travels with every call to log, policy and history.

use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Where a request came from. One word wide: link, session, caller and upload each hold one while they wait.
#[derive(Clone, Debug)]
pub struct Origin(Arc<Whence>);

/// What an [`Origin`] says.
#[derive(Clone, Debug)]
pub struct Whence {
    /// The language spoken: `ftp`, `smtp`, `http`, …; `cli` and `outside` for what no door did.
    pub door: &'static str,
    /// The name of the listener in the configuration (`ftp@0.0.0.0:21`), for logs.
    pub listener: Arc<str>,
    /// The peer's address, after PROXY protocol.
    pub peer: SocketAddr,
    /// Our own address on that connection.
    pub local: SocketAddr,
    /// Number of the connection since start: joins the log lines of one session.
    pub link: u64,
    /// The bytes travel encrypted.
    pub secure: bool,
}

impl Origin {
    /// An origin for work the server does by itself or an operator does on the command line.
    #[must_use]
    pub fn inside(door: &'static str) -> Self {
        let nowhere = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0);
        Self::from(Whence { door, listener: door.into(), peer: nowhere, local: nowhere, link: 0, secure: true })
    }
}

impl From<Whence> for Origin {
    fn from(whence: Whence) -> Self {
        Self(Arc::new(whence))
    }
}

impl Deref for Origin {
    type Target = Whence;

    fn deref(&self) -> &Whence {
        &self.0
    }
}

impl DerefMut for Origin {
    /// A change is seen by this holder alone.
    fn deref_mut(&mut self) -> &mut Whence {
        Arc::make_mut(&mut self.0)
    }
}
