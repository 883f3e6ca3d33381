//! Clients that wait while the daemon drains: at sockets that systemd keeps, the kernel takes their connections for the next daemon.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::listen::Bound;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// The sockets at which somebody may wait.
#[derive(Default)]
pub struct Waiting {
    sockets: Vec<OwnedFd>,
}

impl Waiting {
    /// The sockets that stay open when this daemon ends.
    #[must_use]
    pub fn at(bound: &[Bound]) -> Self {
        let passed = bound.iter().filter(|bound| bound.passed);
        Self { sockets: passed.filter_map(|bound| bound.listener.descriptor().ok()).collect() }
    }

    /// Ends when somebody waits there and nobody accepts any more; never where no socket stays.
    pub async fn somebody(&self) {
        while !self.is_somebody_there() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_somebody_there(&self) -> bool {
        let mut asked: Vec<_> =
            self.sockets.iter().map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)).collect();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !asked.is_empty() && rustix::event::poll(&mut asked, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_that_nobody_accepts_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let waiting = Waiting { sockets: vec![listener.try_clone().unwrap().into()] };
        assert!(!waiting.is_somebody_there() && !Waiting::default().is_somebody_there());
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(waiting.is_somebody_there());
        drop(listener.accept().unwrap());
        assert!(!waiting.is_somebody_there());
    }
}
