//! A socket below TLS whose reading outlasts its writing.
//!
//! A TLS 1.3 server sends session tickets after the handshake. A client that only uploads (FTP's data connection) reads nothing: its kernel,
//! asked to close while the tickets lie unread, sends RST instead of its last bytes, and the end of the file is lost before it left that
//! machine. So on such a connection the tickets are held back until the client has said everything, and go out with our close_notify:
//! who waits for that has them, who is gone misses nothing.
//!
//! Elsewhere a client may be gone when tickets arrive, and answers with RST: what fails is only our writing, so that failure is held back, and
//! reading goes on to the client's own end of data.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::records::Records;

/// TCP whose lost peer is noticed by reading; writes after the loss go nowhere until something is read or shut down.
pub struct Lasting {
    tcp: TcpStream,
    /// The peer refused what we wrote last.
    deaf: bool,
    /// The peer only uploads: what follows the handshake waits until its end.
    quiet: Option<Box<Quiet>>,
    /// Where the peer's records end.
    records: Records,
}

/// What is held back.
#[derive(Default)]
struct Quiet {
    /// Something was read since we wrote last: the next write begins a flight.
    heard: bool,
    /// The handshake is over.
    begun: bool,
    held: Vec<u8>,
    sent: usize,
}

/// Type of a TLS record that is encrypted: application data, and in TLS 1.3 everything after the first handshake messages.
const ENCRYPTED: u8 = 23;
/// Tickets are a kilobyte; a peer that makes us answer more than this without reading has lost us.
const MOST_HELD: usize = 64 << 10;

impl Lasting {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, deaf: false, quiet: None, records: Records::default() }
    }

    /// For a peer that only uploads.
    pub(super) fn quiet(tcp: TcpStream) -> Self {
        Self { tcp, deaf: false, quiet: Some(Box::default()), records: Records::default() }
    }

    /// Waits until the peer sends or leaves.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.tcp.readable().await
    }

    /// The socket itself.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// A record of the peer's has begun and is not complete.
    pub(super) fn is_inside_record(&self) -> bool {
        self.records.is_inside()
    }

    /// Writes that go nowhere are fine while the peer's own words are still being read, and an error afterwards.
    fn hold_back(&mut self, wrote: Poll<io::Result<usize>>, len: usize) -> Poll<io::Result<usize>> {
        match wrote {
            Poll::Ready(Err(error)) if !self.deaf && gone(&error) => {
                self.deaf = true;
                Poll::Ready(Ok(len))
            }
            other => other,
        }
    }
}

impl Quiet {
    /// Takes what may not be sent yet. In TLS 1.3 what a server sends in answer to the client's Finished begins with an encrypted record; no
    /// flight of a handshake does, in no version.
    fn hold(&mut self, bufs: &[io::IoSlice<'_>]) -> Option<io::Result<usize>> {
        let first = bufs.iter().find_map(|piece| piece.first());
        self.begun |= self.heard && first == Some(&ENCRYPTED);
        self.heard = false;
        if !self.begun {
            return None;
        }
        let len: usize = bufs.iter().map(|piece| piece.len()).sum();
        if self.held.len() + len > MOST_HELD {
            return Some(Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the peer asks for too much and reads nothing",
            )));
        }
        for piece in bufs {
            self.held.extend_from_slice(piece);
        }
        Some(Ok(len))
    }
}

fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Lasting {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.tcp).poll_read(cx, buf);
        let came = buf.filled().get(before..).unwrap_or_default();
        this.records.pass(came);
        if let Some(quiet) = &mut this.quiet {
            quiet.heard |= !came.is_empty();
        }
        read
    }
}

impl AsyncWrite for Lasting {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(held) = this.quiet.as_mut().and_then(|quiet| quiet.hold(&[io::IoSlice::new(buf)])) {
            return Poll::Ready(held);
        }
        let wrote = Pin::new(&mut this.tcp).poll_write(cx, buf);
        this.hold_back(wrote, buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(held) = this.quiet.as_mut().and_then(|quiet| quiet.hold(bufs)) {
            return Poll::Ready(held);
        }
        let wrote = Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs);
        this.hold_back(wrote, bufs.iter().map(|piece| piece.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(quiet) = &mut this.quiet {
            while let Some(rest) = quiet.held.get(quiet.sent..).filter(|rest| !rest.is_empty()) {
                quiet.sent += ready!(Pin::new(&mut this.tcp).poll_write(cx, rest))?;
            }
        }
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}
