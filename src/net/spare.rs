//! Listeners of passive data connections that are used again: by the next transfer of the same control connection, and only for a moment.
//!
//! A client that moves many small files asks for a port each time. Nobody but itself knows the port it had, so it may have it again; who connected
//! while nobody waited is dropped first. Ports of a configured range are not kept: others may need them.

use std::cell::RefCell;
use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};

use rustix::net::SocketFlags;

/// Kept by one worker at most.
const MOST: usize = 64;
/// Kept so long at most, and a beat more.
const KEPT: Duration = Duration::from_secs(2);
/// Strangers dropped at most; with more the listener is given up.
const STRANGERS: usize = 8;

struct Spare {
    link: u64,
    address: IpAddr,
    listener: TcpListener,
    since: Instant,
}

thread_local! {
    static SPARES: RefCell<Vec<Spare>> = const { RefCell::new(Vec::new()) };
}

/// Keeps a listener for the next transfer of a control connection; the oldest goes where there are too many.
pub(super) fn keep(link: u64, address: IpAddr, listener: TcpListener) {
    let gone = SPARES.try_with(|spares| {
        let mut spares = spares.borrow_mut();
        let first = if spares.len() < MOST { None } else { Some(spares.remove(0)) };
        spares.push(Spare { link, address, listener, since: Instant::now() });
        first
    });
    drop(gone);
}

/// The listener this control connection had, with nobody waiting in it.
pub(super) fn take(link: u64, address: IpAddr) -> Option<TcpListener> {
    let kept = SPARES.try_with(|spares| {
        let mut spares = spares.borrow_mut();
        let place = spares.iter().rposition(|spare| spare.link == link && spare.address == address)?;
        Some(spares.remove(place).listener)
    });
    kept.ok().flatten().filter(is_quiet)
}

/// Closes what was kept too long.
pub(super) fn expire() {
    let _ = SPARES.try_with(|spares| spares.borrow_mut().retain(|spare| spare.since.elapsed() < KEPT));
}

/// Drops who connected while nobody waited; false when they do not end.
fn is_quiet(listener: &TcpListener) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    (0..STRANGERS).any(|_| rustix::net::accept_with(listener, flags).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpStream};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn listener() -> (u16, TcpListener) {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        (listener.local_addr().unwrap().port(), listener)
    }

    #[test]
    fn a_listener_is_for_its_own_connection_and_forgets_who_came_meanwhile() {
        let (port, one) = listener();
        keep(1, HERE, one);
        let mut late = TcpStream::connect((HERE, port)).unwrap();
        assert!(take(2, HERE).is_none());
        assert!(take(1, Ipv4Addr::UNSPECIFIED.into()).is_none());
        let again = take(1, HERE).unwrap();
        assert_eq!(again.local_addr().unwrap().port(), port);
        assert_eq!(late.read(&mut [0; 1]).unwrap_or(0), 0, "dropped");
        assert!(take(1, HERE).is_none(), "it is taken once");
    }

    #[test]
    fn only_so_many_are_kept() {
        for link in 0..=MOST as u64 {
            keep(link, HERE, listener().1);
        }
        assert!(take(0, HERE).is_none(), "the oldest went");
        assert!(take(MOST as u64, HERE).is_some());
        expire();
        assert!(take(1, HERE).is_some(), "fresh ones stay");
    }
}
