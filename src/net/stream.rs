//! The bytes of a connection: plain TCP, a Unix socket, TLS over TCP, or an in-memory pipe for tests.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::lasting::Lasting;

/// Reads behind urgent data that are tried at once.
const MARKS: usize = 4;

/// A duplex byte stream.
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<Lasting>>),
    /// In memory, for transcripts.
    Pipe(DuplexStream),
    /// Nothing: during an upgrade, or after one failed.
    Closed,
}

impl Stream {
    /// Waits until the peer sends or leaves, holding nothing but the socket. A pipe cannot be waited for without reading: never.
    ///
    /// # Errors
    /// The socket's.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.readable().await,
            Self::Unix(unix) => unix.readable().await,
            Self::Tls(tls) => tls.get_ref().0.readable().await,
            Self::Pipe(_) => std::future::pending().await,
            Self::Closed => Ok(()),
        }
    }

    /// Waits until the kernel holds something unread, or the end. For who reads past this stream, by its descriptor: what the
    /// stream itself knows of the socket is out of date then. Only for plain TCP; any other is ready at once.
    ///
    /// # Errors
    /// The socket's.
    pub async fn unread(&self) -> io::Result<()> {
        let Self::Tcp(tcp) = self else { return Ok(()) };
        loop {
            tcp.readable().await?;
            let peeked = tcp.try_io(Interest::READABLE, || {
                let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
                rustix::net::recv(tcp, &mut [0; 1], flags).map(drop).map_err(io::Error::from)
            });
            match peeked {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                done => return done,
            }
        }
    }

    /// Takes the plain TCP socket away from the runtime, which hears nothing more of it; the stream is closed until it is given back.
    /// `None` for any other.
    ///
    /// # Errors
    /// The runtime's.
    pub fn detach(&mut self) -> io::Result<Option<OwnedFd>> {
        match std::mem::replace(self, Self::Closed) {
            Self::Tcp(tcp) => Ok(Some(tcp.into_std()?.into())),
            other => {
                *self = other;
                Ok(None)
            }
        }
    }

    /// Shows the runtime a socket that was detached.
    ///
    /// # Errors
    /// No descriptor is left; the runtime's.
    pub fn attach(&mut self, socket: &OwnedFd) -> io::Result<()> {
        *self = Self::Tcp(TcpStream::from_std(socket.try_clone()?.into())?);
        Ok(())
    }

    /// The plain TCP socket below, for `sendfile` and `splice`; `None` under TLS.
    #[must_use]
    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Unix(_) | Self::Tls(_) | Self::Pipe(_) | Self::Closed => None,
        }
    }

    /// The protocol agreed on in the TLS handshake (`h2`), if any.
    #[must_use]
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(tls) => tls.get_ref().1.alpn_protocol(),
            Self::Tcp(_) | Self::Unix(_) | Self::Pipe(_) | Self::Closed => None,
        }
    }

    /// The peer's TLS has begun a record and not completed it.
    #[must_use]
    pub fn is_inside_record(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.get_ref().0.is_inside_record())
    }

    /// TLS version and cipher suite as mail headers and logs name them: `TLSv1.3 TLS13_AES_256_GCM_SHA384`.
    #[must_use]
    pub fn cipher(&self) -> Option<String> {
        let Self::Tls(tls) = self else { return None };
        let session = tls.get_ref().1;
        let version = match session.protocol_version()? {
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            _ => "TLS",
        };
        Some(format!("{version} {:?}", session.negotiated_cipher_suite()?.suite()))
    }
}

impl Stream {
    /// The peer ended its side and nothing it said is unread, as the kernel knows it now. (The runtime learns of it later: a read
    /// that would tell may still say "not yet".) Never true for a pipe.
    #[must_use]
    pub fn has_hung_up(&self) -> bool {
        let socket = match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
            Self::Tls(tls) => tls.get_ref().0.tcp().as_fd(),
            Self::Pipe(_) | Self::Closed => return false,
        };
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(socket, &mut [0; 1], flags) {
            Ok((read, _)) => read == 0,
            Err(error) => !matches!(error, Errno::AGAIN | Errno::INTR),
        }
    }
}

impl Stream {
    /// True for a connection through the kernel.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.socket().is_some()
    }

    /// True when there is something to read: bytes, or the peer's end.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.has(PollFlags::IN | PollFlags::RDHUP)
    }

    /// True when the peer refused what was sent to it.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.has(PollFlags::ERR)
    }

    fn has(&self, wanted: PollFlags) -> bool {
        let Some(socket) = self.socket() else { return false };
        let mut asked = [PollFd::from_borrowed_fd(socket, wanted)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = rustix::event::poll(&mut asked, Some(&now));
        asked.iter().any(|one| one.revents().intersects(wanted))
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tcp(tcp) => Some(tcp.as_fd()),
            Self::Unix(unix) => Some(unix.as_fd()),
            Self::Tls(tls) => Some(tls.get_ref().0.tcp().as_fd()),
            Self::Pipe(_) | Self::Closed => None,
        }
    }
}

/// Tells whether the peer of a stream has ended its side, while someone else still reads what came before.
pub struct End(OwnedFd);

impl End {
    /// Nothing more will come than what the kernel holds already.
    #[must_use]
    pub fn came(&self) -> bool {
        let mut asked = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut asked, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

impl Stream {
    /// Watches for the end of the connection. It holds the socket open: drop it with the stream.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        let socket = match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
            Self::Tls(tls) => tls.get_ref().0.tcp().as_fd(),
            Self::Pipe(_) | Self::Closed => return None,
        };
        rustix::io::dup(socket).ok().map(End)
    }

    /// Reads on behind urgent data: a read stops there although more has come, and the runtime takes a short read for the last one.
    pub fn read_behind_mark(&self, into: &mut BytesMut) {
        let Some(tcp) = self.as_tcp() else { return };
        let mut piece = [0; 256];
        for _ in 0..MARKS {
            match rustix::net::recv(tcp, &mut piece, RecvFlags::DONTWAIT) {
                Ok((read, _)) if read > 0 => into.extend_from_slice(piece.get(..read).unwrap_or_default()),
                _ => return,
            }
        }
    }

    /// Urgent bytes come in their place among the others (FTP's Synch, RFC 1123 §4.1.2.12), not beside them.
    pub fn take_urgent_inline(&self) {
        if let Self::Tcp(tcp) = self
            && let Err(error) = rustix::net::sockopt::set_socket_oobinline(tcp, true)
        {
            tracing::debug!(%error, "urgent bytes stay beside the stream");
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(inner) => Pin::new(inner).poll_read(cx, buf),
            Self::Unix(inner) => Pin::new(inner).poll_read(cx, buf),
            Self::Tls(inner) => Pin::new(inner.as_mut()).poll_read(cx, buf),
            Self::Pipe(inner) => Pin::new(inner).poll_read(cx, buf),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(inner) => Pin::new(inner).poll_write(cx, buf),
            Self::Unix(inner) => Pin::new(inner).poll_write(cx, buf),
            Self::Tls(inner) => Pin::new(inner.as_mut()).poll_write(cx, buf),
            Self::Pipe(inner) => Pin::new(inner).poll_write(cx, buf),
            Self::Closed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(inner) => Pin::new(inner).poll_write_vectored(cx, bufs),
            Self::Unix(inner) => Pin::new(inner).poll_write_vectored(cx, bufs),
            Self::Tls(inner) => Pin::new(inner.as_mut()).poll_write_vectored(cx, bufs),
            Self::Pipe(inner) => Pin::new(inner).poll_write_vectored(cx, bufs),
            Self::Closed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        // Under TLS what comes in pieces goes out in one record.
        matches!(self, Self::Tcp(_) | Self::Unix(_) | Self::Tls(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(inner) => Pin::new(inner).poll_flush(cx),
            Self::Unix(inner) => Pin::new(inner).poll_flush(cx),
            Self::Tls(inner) => Pin::new(inner.as_mut()).poll_flush(cx),
            Self::Pipe(inner) => Pin::new(inner).poll_flush(cx),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(inner) => Pin::new(inner).poll_shutdown(cx),
            Self::Unix(inner) => Pin::new(inner).poll_shutdown(cx),
            Self::Tls(inner) => Pin::new(inner.as_mut()).poll_shutdown(cx),
            Self::Pipe(inner) => Pin::new(inner).poll_shutdown(cx),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }
}
