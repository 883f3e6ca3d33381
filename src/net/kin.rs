//! Session tickets that remember which connection they were made for.
//!
//! RFC 4217 §10.2 asks that nobody but the client of a control connection may open its data connections. A client that resumes the
//! TLS session of its control connection proves it: only it holds that session's secret. So every ticket carries the number of
//! the control connection, encrypted with it, and a handshake that resumes tells whose ticket it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::server::ProducesTickets;

/// Tickets of one handshake.
#[derive(Debug)]
pub(super) struct Kin {
    inner: Arc<dyn ProducesTickets>,
    /// The control connection that new tickets are for.
    link: u64,
    /// The one the client's ticket was for; 0: it brought none.
    brought: AtomicU64,
}

impl Kin {
    pub(super) fn new(inner: Arc<dyn ProducesTickets>, link: u64) -> Arc<Self> {
        Arc::new(Self { inner, link, brought: AtomicU64::new(0) })
    }

    /// The client resumed a session of this very control connection.
    pub(super) fn proved(&self) -> bool {
        self.link != 0 && self.brought.load(Ordering::Relaxed) == self.link
    }
}

impl ProducesTickets for Kin {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(&[&self.link.to_be_bytes(), plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let whole = self.inner.decrypt(cipher)?;
        let (link, plain) = whole.split_first_chunk::<8>()?;
        self.brought.store(u64::from_be_bytes(*link), Ordering::Relaxed);
        Some(plain.to_vec())
    }
}
