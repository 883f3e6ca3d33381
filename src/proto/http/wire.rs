//! The stream as hyper sees it: one HTTP/1 request, and then the end.
//!
//! Between two requests hyper is gone: whoever reads the next head ([`front`](super::front)) has the socket, and an idle connection keeps
//! none of hyper's buffers. What the peer sent beyond the request is kept for the next.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;
use crate::proto::http::extent::Extent;
use crate::proto::http::serve::Connection;

/// What hyper left.
pub struct Left {
    pub stream: Stream,
    /// What the peer sent beyond the request.
    pub rest: BytesMut,
    /// The request was answered and the connection may go on.
    pub goes_on: bool,
}

/// Where the wire puts what is left when hyper is done with it.
pub type Shelf = Arc<Mutex<Option<Left>>>;

/// The stream with its pulse taken.
pub struct Wire {
    stream: Stream,
    /// Read before hyper was asked, or beyond its request.
    read: BytesMut,
    extent: Extent,
    connection: Arc<Connection>,
    shelf: Shelf,
    /// Everything hyper wrote has gone.
    flushed: bool,
    /// hyper was told that nothing more comes.
    told: bool,
}

impl Wire {
    /// `read`: what was read of the peer's already.
    pub fn new(stream: Stream, read: BytesMut, extent: Extent, connection: &Arc<Connection>, shelf: &Shelf) -> Self {
        let (connection, shelf) = (connection.clone(), shelf.clone());
        Self { stream, read, extent, connection, shelf, flushed: true, told: false }
    }

    fn counted(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.flushed = false;
        if let Poll::Ready(Ok(bytes)) = &result {
            self.connection.pulse.said(*bytes);
        }
        result
    }

    /// The request is answered, to the last byte.
    fn is_answered(&self) -> bool {
        self.extent.is_over() && self.flushed && self.connection.pulse.is_quiet()
    }

    /// The next bytes of the request.
    fn poll_own(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let ahead = !self.read.is_empty();
        if ahead {
            let count = self.read.len().min(buf.remaining());
            buf.put_slice(self.read.get(..count).unwrap_or_default());
        } else {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        }
        let came = buf.filled().get(before..).unwrap_or_default();
        if came.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let own = self.extent.take(came)?;
        if ahead {
            let _ = self.read.split_to(own);
        } else {
            self.read.extend_from_slice(came.get(own..).unwrap_or_default());
        }
        buf.set_filled(before + own);
        self.connection.pulse.heard();
        Poll::Ready(Ok(()))
    }

    /// Nothing more for hyper. While it answers it is told nothing: who sent a request and then no more still wants the answer, and who left is
    /// noticed by writing.
    fn poll_end(&mut self) -> Poll<io::Result<()>> {
        self.told = self.is_answered();
        if self.told { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let stream = std::mem::replace(&mut self.stream, Stream::Closed);
        *self.shelf.lock() = Some(Left { stream, rest: std::mem::take(&mut self.read), goes_on: self.told });
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.extent.is_over() { this.poll_end() } else { this.poll_own(cx, buf) }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match this.connection.lent.poll_write(&this.stream, cx, bufs) {
            Some(result) => result,
            None => Pin::new(&mut this.stream).poll_write_vectored(cx, bufs),
        };
        this.counted(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        this.flushed = true;
        if this.is_answered() && !this.told {
            // Reading was put off until now.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.told {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
