//! Signals: SIGTERM and SIGINT end, SIGHUP reloads, SIGUSR1 opens the log files again.

use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Drain and end.
    End,
    /// Read the configuration again.
    Reload,
    /// Open the log files again.
    Reopen,
}

/// The signals the daemon listens to, from the moment this is made.
pub(super) struct Signals {
    term: unix::Signal,
    int: unix::Signal,
    hup: unix::Signal,
    usr1: unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            term: unix::signal(SignalKind::terminate())?,
            int: unix::signal(SignalKind::interrupt())?,
            hup: unix::signal(SignalKind::hangup())?,
            usr1: unix::signal(SignalKind::user_defined1())?,
        })
    }

    /// The next one, whichever it is.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::End,
            _ = self.int.recv() => Signal::End,
            _ = self.hup.recv() => Signal::Reload,
            _ = self.usr1.recv() => Signal::Reopen,
        }
    }

    /// The next one that says to end; the others are dropped while nothing can be reloaded.
    pub(super) async fn end(&mut self) {
        while self.next().await != Signal::End {}
    }
}
