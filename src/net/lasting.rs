//! A socket below TLS whose reading outlasts its writing.
//!
//! A TLS 1.3 server sends session tickets after the handshake. A client that only uploads (FTP's data connection) may have sent everything,
//! said close_notify and gone before they arrive; its kernel answers them with RST. The upload is whole all the same: what fails is only our
//! writing, so that failure is held back, and reading goes on to the client's own end of data.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// TCP whose lost peer is noticed by reading; writes after the loss go nowhere until something is read or shut down.
pub struct Lasting {
    tcp: TcpStream,
    /// The peer refused what we wrote last.
    deaf: bool,
}

impl Lasting {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, deaf: false }
    }

    /// Waits until the peer sends or leaves.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.tcp.readable().await
    }

    /// The socket itself.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
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

fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Lasting {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lasting {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.tcp).poll_write(cx, buf);
        this.hold_back(wrote, buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
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
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
