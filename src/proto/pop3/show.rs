//! What is shown of a maildrop: scan listings, unique ids, the top of a message; made piece by piece as the wire takes them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::maildrop::Message;
use crate::error::{Error, Kind, Result};
use crate::hub::Download;
use crate::proto::dialogue::Feed;

/// Bytes of a listing made at once.
const PIECE: usize = 16 << 10;
/// Bytes of a message read at once while its top is looked for: most headers fit.
const HEAD: usize = 16 << 10;

/// What a listing says of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// `LIST`: its size.
    Octets,
    /// `UIDL`: its unique id.
    Unique,
}

impl Column {
    /// `n value`, without line end.
    pub(super) fn line(self, index: usize, message: &Message) -> String {
        match self {
            Self::Octets => format!("{} {}", index + 1, message.octets),
            Self::Unique => format!("{} {}", index + 1, message.unique),
        }
    }
}

/// A listing of all messages not marked as deleted.
pub(super) struct Scan {
    pub(super) messages: Arc<[Message]>,
    pub(super) deleted: BTreeSet<usize>,
    pub(super) column: Column,
    pub(super) next: usize,
}

#[async_trait]
impl Feed for Scan {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut piece = String::new();
        while let Some(message) = self.messages.get(self.next)
            && piece.len() < PIECE
        {
            if !self.deleted.contains(&self.next) {
                let _ = write!(piece, "{}\r\n", self.column.line(self.next, message));
            }
            self.next += 1;
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }
}

/// `TOP`: the header, the empty line, and so many lines of the body.
pub(super) struct Top {
    download: Download,
    at: u64,
    cut: Cut,
}

impl Top {
    /// Of this message.
    pub(super) fn new(download: Download, lines: u64) -> Self {
        Self { download, at: 0, cut: Cut { lines, body: false, line_is_empty: true, over: false } }
    }
}

#[async_trait]
impl Feed for Top {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let size = self.download.node().size;
        if self.cut.over || self.at >= size {
            return Ok(None);
        }
        let mut piece = self.download.read_at(self.at, HEAD).await?;
        if piece.is_empty() {
            return Err(Error::new(Kind::Conflict, "the message became shorter while it was sent"));
        }
        self.at += piece.len() as u64;
        let kept = self.cut.find(&piece);
        piece.truncate(kept);
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }
}

/// Finds where the top of a message ends, in pieces cut anywhere.
struct Cut {
    /// Lines of the body still to come.
    lines: u64,
    /// The empty line went by.
    body: bool,
    /// Nothing but a CR was seen since the last line end.
    line_is_empty: bool,
    over: bool,
}

impl Cut {
    /// How much of this piece belongs to the top.
    fn find(&mut self, piece: &[u8]) -> usize {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            let line = piece.get(start..end).unwrap_or_default();
            let empty = self.line_is_empty && matches!(line, b"" | b"\r");
            self.line_is_empty = true;
            start = end + 1;
            match self.body {
                true => self.lines = self.lines.saturating_sub(1),
                false => self.body = empty,
            }
            if self.body && self.lines == 0 {
                self.over = true;
                return start;
            }
        }
        self.line_is_empty &= matches!(piece.get(start..), None | Some(b"" | b"\r"));
        piece.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(message: &str, lines: u64) -> String {
        let results = [1, 2, 3, 7, 1000].map(|cut| {
            let mut state = Cut { lines, body: false, line_is_empty: true, over: false };
            let mut out = Vec::new();
            for piece in message.as_bytes().chunks(cut) {
                let kept = state.find(piece);
                out.extend_from_slice(&piece[..kept]);
                if state.over {
                    break;
                }
            }
            String::from_utf8(out).unwrap()
        });
        assert!(results.iter().all(|one| *one == results[0]), "{message:?} depends on the cut: {results:?}");
        results[0].clone()
    }

    #[test]
    fn the_top_is_the_header_the_empty_line_and_lines_of_the_body() {
        let message = "A: 1\r\nB: 2\r\n\r\none\r\n\r\nthree\r\nfour";
        assert_eq!(top(message, 0), "A: 1\r\nB: 2\r\n\r\n");
        assert_eq!(top(message, 1), "A: 1\r\nB: 2\r\n\r\none\r\n");
        assert_eq!(top(message, 2), "A: 1\r\nB: 2\r\n\r\none\r\n\r\n");
        assert_eq!(top(message, 4), message);
        assert_eq!(top(message, u64::MAX), message);
        assert_eq!(top("A: 1\n\none\ntwo\n", 1), "A: 1\n\none\n");
        assert_eq!(top("\r\nbody\r\nmore\r\n", 1), "\r\nbody\r\n");
        assert_eq!(top("no empty line\r\nat all\r\n", 0), "no empty line\r\nat all\r\n");
        assert_eq!(top("a\r\nb\r\r\nc\r\n\r\nd\r\n", 0), "a\r\nb\r\r\nc\r\n\r\n");
        assert_eq!(top("", 3), "");
    }
}
