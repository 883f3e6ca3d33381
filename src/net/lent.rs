//! Listeners that systemd opened for passive data connections, lent to one transfer at a time.
//!
//! A sealed service cannot open a port of its own. Its ports listen all the time, so whoever connected while a port was
//! not lent is dropped before it is lent again.

use std::io;
use std::net::TcpListener;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Strangers dropped from one port at most before it is lent.
const STRANGERS: usize = 64;

static PORTS: OnceLock<Mutex<Vec<TcpListener>>> = OnceLock::new();
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// A port on loan; it goes back when this is dropped.
pub(super) struct Lent {
    listener: Option<TcpListener>,
}

/// Takes over the listeners passed as `ftp-data`; once, at start. With none, passive ports are bound as needed.
pub fn offer(listeners: Vec<TcpListener>) {
    if listeners.is_empty() {
        return;
    }
    let count = listeners.len();
    if PORTS.set(Mutex::new(listeners)).is_ok() {
        COUNT.store(count, Ordering::Relaxed);
    } else {
        tracing::warn!("passive data ports were offered twice; the first offer stands");
    }
}

/// Ports that were ever offered.
pub(super) fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// A free port; `None` when none was ever offered, an error when all are lent.
pub(super) fn lend() -> Option<io::Result<Lent>> {
    let ports = PORTS.get()?;
    let mut free = ports.lock();
    if free.is_empty() {
        return Some(Err(io::ErrorKind::AddrInUse.into()));
    }
    let index = getrandom::u32().map_or(0, |number| number as usize) % free.len();
    let listener = free.swap_remove(index);
    drop(free);
    let lent = Lent { listener: Some(listener) };
    Some(lent.drain().map(|()| lent))
}

impl Lent {
    /// A handle for waiting on it.
    pub(super) fn handle(&self) -> io::Result<TcpListener> {
        self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?.try_clone()
    }

    /// Drops who connected while nobody waited.
    fn drain(&self) -> io::Result<()> {
        let Some(listener) = &self.listener else { return Ok(()) };
        listener.set_nonblocking(true)?;
        for _ in 0..STRANGERS {
            match listener.accept() {
                Ok((stranger, _)) => drop(stranger),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(listener), Some(ports)) = (self.listener.take(), PORTS.get()) {
            ports.lock().push(listener);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpStream;

    #[test]
    fn a_lent_port_forgets_strangers_and_comes_back() {
        assert!(lend().is_none(), "nothing was offered yet");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        offer(vec![listener]);
        let mut stranger = TcpStream::connect(address).unwrap();
        let lent = lend().unwrap().unwrap();
        assert_eq!(stranger.read(&mut [0; 1]).unwrap_or(0), 0, "dropped before the loan");
        assert!(lend().unwrap().is_err(), "the only port is lent");
        drop(lent);
        assert!(lend().unwrap().is_ok());
    }
}
