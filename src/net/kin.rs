//! Session tickets that remember which connection they were made for.
//!
//! RFC 4217 §10.2 asks that nobody but the client of a control connection may open its data connections. A client that resumes the
//! TLS session of its control connection proves it: only it holds that session's secret. So every ticket carries the number of
//! the control connection, encrypted with it, and a handshake that resumes tells whose ticket it was. Clients that want no tickets (curl
//! with TLS 1.2) resume what we remember for them; that carries the number too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::ServerConfig;
use rustls::server::{ProducesTickets, StoresServerSessions};

/// Tickets of one handshake.
#[derive(Debug)]
pub(super) struct Kin {
    tickets: Arc<dyn ProducesTickets>,
    remembered: Arc<dyn StoresServerSessions>,
    /// The control connection that new tickets are for.
    link: u64,
    /// The one the client's ticket was for; 0: it brought none.
    brought: AtomicU64,
}

impl Kin {
    /// For one handshake of this connection, or beside it.
    pub(super) fn of(config: &ServerConfig, link: u64) -> Arc<Self> {
        let (tickets, remembered) = (Arc::clone(&config.ticketer), Arc::clone(&config.session_storage));
        Arc::new(Self { tickets, remembered, link, brought: AtomicU64::new(0) })
    }

    fn marked(&self, plain: &[u8]) -> Vec<u8> {
        [&self.link.to_be_bytes(), plain].concat()
    }

    fn read(&self, whole: &[u8]) -> Option<Vec<u8>> {
        let (link, plain) = whole.split_first_chunk::<8>()?;
        self.brought.store(u64::from_be_bytes(*link), Ordering::Relaxed);
        Some(plain.to_vec())
    }

    /// The client resumed a session of this very control connection.
    pub(super) fn proved(&self) -> bool {
        self.link != 0 && self.brought.load(Ordering::Relaxed) == self.link
    }
}

impl ProducesTickets for Kin {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(&self.marked(plain))
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.read(&self.tickets.decrypt(cipher)?)
    }
}

impl StoresServerSessions for Kin {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.remembered.put(key, self.marked(&value))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.read(&self.remembered.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.read(&self.remembered.take(key)?)
    }

    fn can_cache(&self) -> bool {
        self.remembered.can_cache()
    }
}
