//! Files to plain sockets by the kernel, although hyper only knows bytes.
//!
//! A body lends a stretch of its file to the wire and gives hyper a frame of the same length that is only a token: a slice of one static
//! array. hyper writes frames without copying them, so the wire meets the token by its address and sends the file instead. Where
//! a token does not arrive as lent, the connection is cut: its bytes must never reach a peer.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::net::{Stream, pour};

/// Longest stretch lent at once: larger ones cost no less, and hold up the other links of the thread.
pub const LONGEST: usize = 256 << 10;

static TOKEN: [u8; LONGEST] = [0; LONGEST];

/// Stretches lent to one connection's wire, in the order they are to be sent.
pub struct Lent {
    /// The wire can send by the kernel.
    able: bool,
    pieces: Mutex<VecDeque<Piece>>,
}

struct Piece {
    file: Arc<File>,
    offset: u64,
    left: usize,
}

impl Lent {
    /// For a connection over this stream; under TLS nothing can be lent.
    pub fn new(stream: &Stream) -> Self {
        Self { able: stream.as_tcp().is_some(), pieces: Mutex::default() }
    }

    /// Can stretches be lent?
    pub fn is_able(&self) -> bool {
        self.able
    }

    /// Lends a stretch of at most [`LONGEST`] bytes; the frame that stands for it goes to hyper next.
    pub async fn lend(&self, file: &Arc<File>, offset: u64, len: usize) -> io::Result<Bytes> {
        let token = TOKEN.get(..len).ok_or(io::ErrorKind::InvalidInput)?;
        // The wire must not wait for the disk: it serves other links too.
        pour::warm(file, offset, len).await?;
        self.pieces.lock().push_back(Piece { file: file.clone(), offset, left: len });
        Ok(Bytes::from_static(token))
    }

    /// Writes what hyper gives, tokens by what they stand for; `None` when nothing is lent and the bytes are just bytes.
    pub fn poll_write(
        &self,
        stream: &Stream,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Option<Poll<io::Result<usize>>> {
        if !self.able {
            return None;
        }
        let mut pieces = self.pieces.lock();
        let piece = pieces.front_mut()?;
        let tcp = stream.as_tcp()?;
        let Some(at) = slices.iter().position(|slice| is_token(slice)) else {
            return Some(Poll::Ready(Err(lost())));
        };
        let (before, rest) = slices.split_at(at);
        if before.iter().any(|slice| !slice.is_empty()) {
            return Some(pour::poll_write_before(tcp, cx, before));
        }
        if rest.first().is_none_or(|token| token.len() != piece.left) {
            return Some(Poll::Ready(Err(lost())));
        }
        let sent = pour::poll_send_file(tcp, cx, &piece.file, piece.offset, piece.left);
        if let Poll::Ready(Ok(sent)) = &sent {
            piece.offset += *sent as u64;
            piece.left = piece.left.saturating_sub(*sent);
            if piece.left == 0 {
                pieces.pop_front();
            }
        }
        Some(sent)
    }
}

fn is_token(slice: &[u8]) -> bool {
    let Range { start, end } = TOKEN.as_ptr_range();
    !slice.is_empty() && slice.as_ptr() >= start && slice.as_ptr() < end
}

fn lost() -> io::Error {
    io::Error::other("a stretch of a file that was lent did not arrive at the wire as it was lent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_taken_for_it() {
        assert!(is_token(&TOKEN[10..20]) && is_token(&TOKEN[LONGEST - 1..]));
        assert!(!is_token(&TOKEN[..0]) && !is_token(&[0; 16]));
    }
}
