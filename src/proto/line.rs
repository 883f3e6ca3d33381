//! Lines: finding where one ends without ever holding more than its bound.
//!
//! Splitting comes first, parsing second: a language's parser only ever sees one whole line.

use bytes::{Buf, BytesMut};
use memchr::memchr;

use super::dialogue::Lines;

/// Room for a first read, and what an idle connection keeps.
pub const SMALL: usize = 512;
/// Room for the next read after one that filled the buffer: pipelined commands.
const LARGE: usize = 8 << 10;

/// Begins a Telnet sequence (RFC 854).
pub const IAC: u8 = 255;
const WILL: u8 = 251;
const DONT: u8 = 254;
/// Telnet commands start here (RFC 854); a smaller byte after IAC lost its command to the urgent channel.
const SE: u8 = 240;

/// Bytes of a connection on their way to become lines.
#[derive(Default)]
pub struct LineBuffer {
    input: BytesMut,
    /// Bytes already searched for an end.
    searched: usize,
    /// The line is too long: its bytes are dropped as they come.
    skipping: bool,
    /// The last read filled the room it was given.
    busy: bool,
}

/// What the buffer holds next.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A line without its end.
    Line(BytesMut),
    /// A line longer than allowed ended here; its bytes were not kept.
    TooLong,
    /// No line ends in what came so far.
    Nothing,
}

impl LineBuffer {
    /// Takes the next line out.
    pub fn next(&mut self, lines: Lines) -> Found {
        loop {
            let unsearched = self.input.get(self.searched..).unwrap_or_default();
            let Some(at) = memchr(b'\n', unsearched).map(|at| self.searched + at) else {
                self.searched = self.input.len();
                self.bound(lines.longest);
                return Found::Nothing;
            };
            let after_cr = at.checked_sub(1).and_then(|before| self.input.get(before)) == Some(&b'\r');
            if !after_cr && !lines.bare_lf {
                // Content: the parser sees it and decides.
                self.searched = at + 1;
                continue;
            }
            let mut line = self.input.split_to(at + 1);
            self.searched = 0;
            line.truncate(if after_cr { at - 1 } else { at });
            if std::mem::take(&mut self.skipping) || line.len() > lines.longest {
                return Found::TooLong;
            }
            return Found::Line(if lines.telnet { without_telnet(line) } else { line });
        }
    }

    /// Drops what can no longer become a line of allowed length; a CR stays, for the LF that may follow.
    fn bound(&mut self, longest: usize) {
        if self.skipping || self.input.len() > longest.saturating_add(1) {
            self.skipping = true;
            let keep = usize::from(self.input.last() == Some(&b'\r'));
            self.input.advance(self.input.len() - keep);
            self.searched = keep;
        }
    }

    /// No byte of a line has come yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// Gives the room of an empty buffer back.
    pub fn release(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            self.input = BytesMut::new();
        }
    }

    /// Where the next bytes are read to. A connection that must hold room while it is idle holds [`SMALL`] bytes.
    pub fn room(&mut self) -> &mut BytesMut {
        if self.input.is_empty() && !self.busy && self.input.capacity() > SMALL {
            self.input = BytesMut::new();
        }
        let want = if self.busy { LARGE } else { SMALL };
        if self.input.capacity() == self.input.len() {
            self.input.reserve(want);
        }
        &mut self.input
    }

    /// Notes that a read came back, and whether it filled the room.
    pub fn noted(&mut self) {
        self.busy = self.input.len() == self.input.capacity();
    }

    /// The bytes not yet taken, for a transfer on the same connection.
    pub fn take_rest(&mut self) -> BytesMut {
        self.searched = 0;
        self.input.split()
    }

    /// Puts back what a transfer did not use.
    pub fn give_back(&mut self, rest: BytesMut) {
        self.searched = 0;
        self.skipping = false;
        self.input = rest;
    }

    /// Forgets everything: what came before TLS must not be heard after it.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// True when the first bytes are a TLS ClientHello record.
    #[must_use]
    pub fn is_tls_hello(&self) -> bool {
        self.input.starts_with(&[0x16, 0x03])
    }
}

/// RFC 1123 §4.1.2.12: Telnet sequences on the control connection (IP and Synch before ABOR) are not part of the command.
///
/// They come before the verb. In an argument the byte 0xFF is a letter of a name in some code page (`я`, `ÿ`): only a doubled one, as RFC 854
/// asks for, is made one.
fn without_telnet(line: BytesMut) -> BytesMut {
    if memchr(IAC, &line).is_none() {
        return line;
    }
    let mut kept = BytesMut::with_capacity(line.len());
    let mut rest: &[u8] = &line;
    let mut in_argument = false;
    while let Some((first, behind)) = rest.split_first() {
        rest = match (first, behind) {
            (&IAC, [IAC, behind @ ..]) => {
                kept.extend_from_slice(&[IAC]);
                behind
            }
            (&IAC, behind) if !in_argument => behind_command(behind),
            (letter, behind) => {
                in_argument |= *letter == b' ';
                kept.extend_from_slice(&[*letter]);
                behind
            }
        };
    }
    kept
}

/// What follows a Telnet command whose IAC was taken.
fn behind_command(rest: &[u8]) -> &[u8] {
    match rest {
        [WILL..=DONT, _option, behind @ ..] => behind,
        [SE..=u8::MAX, behind @ ..] => behind,
        // The command byte travelled as urgent data and is not in the stream.
        rest => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Lines = Lines { longest: 10, bare_lf: false, telnet: false };
    const LOOSE: Lines = Lines { longest: 10, bare_lf: true, telnet: true };

    fn all(lines: Lines, input: &[u8], cut: usize) -> Vec<Result<Vec<u8>, ()>> {
        let mut buffer = LineBuffer::default();
        let mut found = Vec::new();
        for piece in input.chunks(cut) {
            buffer.room();
            buffer.input.extend_from_slice(piece);
            buffer.noted();
            loop {
                match buffer.next(lines) {
                    Found::Line(line) => found.push(Ok(line.to_vec())),
                    Found::TooLong => found.push(Err(())),
                    Found::Nothing => break,
                }
            }
            assert!(buffer.input.len() <= lines.longest + 1, "holds more than its bound");
        }
        found
    }

    #[test]
    fn only_crlf_ends_a_strict_line() {
        for cut in 1..9 {
            let found = all(STRICT, b"a\nb\rc\r\n\r\n\r\r\nrest", cut);
            assert_eq!(found, [Ok(b"a\nb\rc".to_vec()), Ok(vec![]), Ok(b"\r".to_vec())]);
        }
    }

    #[test]
    fn a_bare_lf_ends_a_loose_line() {
        for cut in 1..9 {
            assert_eq!(all(LOOSE, b"a\nb\r\nc", cut), [Ok(b"a".to_vec()), Ok(b"b".to_vec())]);
        }
    }

    #[test]
    fn a_long_line_is_skipped_and_told_once() {
        for cut in [1, 2, 3, 7, 1000] {
            let found = all(STRICT, b"0123456789\r\n0123456789a\r\nxxxxxxxxxxxxxxxxxx\rxxxxxxx\nxxxxxx\r\nok\r\n", cut);
            assert_eq!(found, [Ok(b"0123456789".to_vec()), Err(()), Err(()), Ok(b"ok".to_vec())]);
        }
    }

    #[test]
    fn telnet_sequences_are_no_part_of_a_command() {
        let found = all(LOOSE, b"\xff\xf4\xff\xf2ABOR\r\n\xffABOR\r\na\xff\xffb\r\n\xff\xfb\x01N\r\nx\xff\r\n", 100);
        let want: Vec<_> = ["ABOR", "ABOR"].iter().map(|line| Ok(line.as_bytes().to_vec())).collect();
        assert_eq!(found[..2], want);
        assert_eq!(found[2..], [Ok(b"a\xffb".to_vec()), Ok(b"N".to_vec()), Ok(b"x".to_vec())]);
    }

    #[test]
    fn in_an_argument_no_letter_is_lost() {
        for (line, wanted) in [
            (&b"MKD \xff"[..], &b"MKD \xff"[..]),
            (b"MKD \xf1\xf2\xe0\xf2\xfc\xff.doc", b"MKD \xf1\xf2\xe0\xf2\xfc\xff.doc"),
            (b"MKD \xff\xff", b"MKD \xff"),
            (b"MKD a\xff\xff\xffb", b"MKD a\xff\xffb"),
            (b"MKD \xff\xf0\xec", b"MKD \xff\xf0\xec"),
            (b"\xff\xf4\xff\xf2MKD \xff b", b"MKD \xff b"),
            (b"\xff\xfb", b""),
            (b"\xff", b""),
        ] {
            assert_eq!(without_telnet(BytesMut::from(line)), wanted, "{line:?}");
        }
    }

    #[test]
    fn an_idle_buffer_is_small_again() {
        let mut buffer = LineBuffer::default();
        buffer.room().extend_from_slice(&[b'x'; 600]);
        buffer.noted();
        let lines = Lines { longest: 4096, ..STRICT };
        assert_eq!(buffer.next(lines), Found::Nothing);
        buffer.room().extend_from_slice(b"\r\n");
        buffer.noted();
        assert!(matches!(buffer.next(lines), Found::Line(_)));
        buffer.busy = false;
        assert!(buffer.room().capacity() <= SMALL * 2);
    }
}
