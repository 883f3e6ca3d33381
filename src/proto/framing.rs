//! Framing: how a body is cut out of a byte stream, and put into one.
//!
//! All of it works on pieces cut anywhere and never holds a line of content.

use bytes::{BufMut, BytesMut};
use memchr::{memchr, memchr2};

use super::dialogue::{Bare, Framing};

/// Takes framing off incoming bytes.
pub struct Unframe {
    kind: Kind,
    /// A bare CR or LF was seen where that is refused.
    pub refused: bool,
    /// The last bytes that came.
    tail: [u8; 3],
}

enum Kind {
    Raw,
    Ascii { after_cr: bool },
    Dots { at: Dots, bare: Bare },
    Counted(u64),
}

/// Where in the dot grammar (RFC 5321 §4.5.2) the next byte falls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dots {
    /// After CRLF, or before everything.
    LineStart,
    /// Inside a line.
    Text,
    /// After a CR inside a line.
    Cr,
    /// After a dot that starts a line.
    Dot,
    /// After a CR that follows such a dot.
    DotCr,
}

impl Unframe {
    /// For one body.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let kind = match framing {
            Framing::Ascii => Kind::Ascii { after_cr: false },
            Framing::Counted(count) => Kind::Counted(count),
            Framing::Dots { bare, .. } => Kind::Dots { at: Dots::LineStart, bare },
            Framing::Raw => Kind::Raw,
        };
        Self { kind, refused: false, tail: [0; 3] }
    }

    /// True when no byte has to be waited for.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.kind, Kind::Counted(0))
    }

    /// Unframes `input` into `out`: how many bytes were used, and whether the body ended with them. The rest is the next command's.
    pub fn feed(&mut self, input: &[u8], out: &mut BytesMut) -> (usize, bool) {
        for byte in input.iter().skip(input.len().saturating_sub(self.tail.len())) {
            self.tail = [self.tail[1], self.tail[2], *byte];
        }
        match &mut self.kind {
            Kind::Raw => out.extend_from_slice(input),
            Kind::Ascii { after_cr } => ascii_in(after_cr, input, out),
            Kind::Dots { at, bare } => {
                let mut sink = Sink { out, bare: *bare, refused: &mut self.refused };
                return dots_in(at, input, &mut sink);
            }
            Kind::Counted(left) => {
                let used = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                out.extend_from_slice(input.get(..used).unwrap_or_default());
                *left -= used as u64;
                return (used, *left == 0);
            }
        }
        (input.len(), false)
    }

    /// The peer seems to believe that the body is over: it ended with LF.LF, which is content.
    #[must_use]
    pub fn looks_ended(&self) -> bool {
        matches!(self.kind, Kind::Dots { .. }) && self.tail == *b"\n.\n"
    }

    /// The stream ended: what was held back.
    pub fn end(&mut self, out: &mut BytesMut) {
        if let Kind::Ascii { after_cr } = &mut self.kind
            && std::mem::take(after_cr)
        {
            out.put_u8(b'\r');
        }
    }
}

/// FTP TYPE A: CRLF on the wire is LF in the file.
fn ascii_in(after_cr: &mut bool, mut input: &[u8], out: &mut BytesMut) {
    while let Some((&first, _)) = input.split_first() {
        if std::mem::take(after_cr) && first != b'\n' {
            out.put_u8(b'\r');
        }
        let Some(at) = memchr(b'\r', input) else {
            out.extend_from_slice(input);
            return;
        };
        let (text, rest) = input.split_at(at);
        out.extend_from_slice(text);
        *after_cr = true;
        input = rest.get(1..).unwrap_or_default();
    }
}

/// Where unstuffed content goes, with the rule for bare CR and LF.
struct Sink<'a> {
    out: &'a mut BytesMut,
    bare: Bare,
    refused: &'a mut bool,
}

impl Sink<'_> {
    fn end_of_line(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }

    fn bare(&mut self, byte: u8) {
        match self.bare {
            Bare::Keep => self.out.put_u8(byte),
            Bare::Normalize => self.end_of_line(),
            Bare::Refuse => *self.refused = true,
        }
    }
}

/// How many bytes from inside a line on are content just as they are: text, and line ends behind which no dot stands.
fn as_it_stands(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(next) = memchr2(b'\r', b'\n', text.get(at..).unwrap_or_default()) {
        at += next;
        match text.get(at..).unwrap_or_default() {
            [b'\r', b'\n', first, ..] if *first != b'.' => at += 2,
            _ => return at,
        }
    }
    text.len()
}

/// Ends at CRLF.CRLF (or a first line that is one dot) and nowhere else: a bare LF or CR is content and never makes a line start,
/// so that no two servers can disagree about where a message ends.
fn dots_in(at: &mut Dots, input: &[u8], sink: &mut Sink<'_>) -> (usize, bool) {
    let mut used = 0;
    while let Some(&byte) = input.get(used) {
        if *at == Dots::Text {
            let rest = input.get(used..).unwrap_or_default();
            let run = as_it_stands(rest);
            if run > 0 {
                sink.out.extend_from_slice(rest.get(..run).unwrap_or_default());
                used += run;
                continue;
            }
        }
        if *at == Dots::LineStart && byte != b'.' {
            *at = Dots::Text;
            continue;
        }
        used += 1;
        *at = match (*at, byte) {
            (Dots::LineStart, _) => Dots::Dot,
            (Dots::Text, b'\r') => Dots::Cr,
            (Dots::Text, _) => {
                sink.bare(b'\n');
                Dots::Text
            }
            (Dots::Cr, b'\n') => {
                sink.end_of_line();
                Dots::LineStart
            }
            (Dots::DotCr, b'\n') => return (used, true),
            (Dots::Cr | Dots::DotCr, _) => {
                // The CR was bare; the byte is looked at again as text.
                sink.bare(b'\r');
                used -= 1;
                Dots::Text
            }
            (Dots::Dot, b'\r') => Dots::DotCr,
            (Dots::Dot, _) => {
                // A leading dot before anything else was doubled or is dropped (RFC 5321 §4.5.2).
                used -= 1;
                if byte == b'.' {
                    used += 1;
                    sink.out.put_u8(b'.');
                }
                Dots::Text
            }
        };
    }
    (used, false)
}

/// Puts framing onto outgoing bytes.
pub struct Frame {
    framing: Framing,
    last: u8,
}

impl Frame {
    /// For one body.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self { framing, last: b'\n' }
    }

    /// True when bytes go out as they are.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.framing, Framing::Counted(_) | Framing::Raw)
    }

    /// Appends `input`, framed.
    pub fn feed(&mut self, input: &[u8], out: &mut BytesMut) {
        match self.framing {
            Framing::Counted(_) | Framing::Raw => out.extend_from_slice(input),
            Framing::Ascii | Framing::Dots { .. } => self.lines(input, out),
        }
    }

    fn lines(&mut self, mut input: &[u8], out: &mut BytesMut) {
        let stuffed = matches!(self.framing, Framing::Dots { .. });
        while let Some(&first) = input.first() {
            if stuffed && self.last == b'\n' && first == b'.' {
                out.put_u8(b'.');
            }
            let end = memchr(b'\n', input).map_or(input.len(), |at| at + 1);
            let (line, rest) = input.split_at(end);
            if let [text @ .., b'\n'] = line {
                out.extend_from_slice(text);
                let before = text.last().copied().unwrap_or(self.last);
                if before != b'\r' {
                    out.put_u8(b'\r');
                }
                out.put_u8(b'\n');
            } else {
                out.extend_from_slice(line);
            }
            self.last = line.last().copied().unwrap_or(self.last);
            input = rest;
        }
    }

    /// What ends the body on the wire.
    pub fn end(&mut self, out: &mut BytesMut) {
        if matches!(self.framing, Framing::Dots { .. }) {
            if self.last != b'\n' {
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b".\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dots(bare: Bare) -> Framing {
        Framing::Dots { swallow: 0, bare }
    }

    /// Content, what follows it, whether it ended and whether it was refused; the same for every cut.
    fn unframe(framing: Framing, input: &[u8]) -> (Vec<u8>, Vec<u8>, bool, bool) {
        let mut results = [1, 2, 3, 7, 1000].map(|cut| {
            let (mut state, mut out, mut used, mut done) = (Unframe::new(framing), BytesMut::new(), 0, false);
            for piece in input.chunks(cut) {
                let (some, ended) = state.feed(piece, &mut out);
                used += some;
                if ended {
                    done = true;
                    break;
                }
            }
            state.end(&mut out);
            (out.to_vec(), input[used..].to_vec(), done, state.refused)
        });
        for other in &results[1..] {
            assert_eq!(&results[0], other, "depends on the cut");
        }
        std::mem::take(&mut results[0])
    }

    fn content(input: &[u8]) -> Option<(String, String)> {
        let (out, rest, done, _) = unframe(dots(Bare::Normalize), input);
        done.then(|| (String::from_utf8(out).unwrap(), String::from_utf8(rest).unwrap()))
    }

    #[test]
    fn data_ends_at_crlf_dot_crlf_only() {
        assert_eq!(content(b"a\r\n.\r\nQUIT\r\n"), Some(("a\r\n".into(), "QUIT\r\n".into())));
        assert_eq!(content(b".\r\nNOOP"), Some((String::new(), "NOOP".into())));
        assert_eq!(content(b"\r\n.\r\n"), Some(("\r\n".into(), String::new())));
        for smuggled in
            ["\n.\n", "\n.\r\n", "\r.\r\n", "\r\n.\n", "\r\n.\r", "\r\n\r.\r\n", "\r\n.\r\r\n", "\r\n.\0\r\n"]
        {
            let text = format!("a{smuggled}MAIL FROM:<x@y>\r\n");
            assert_eq!(content(text.as_bytes()), None, "{smuggled:?} ended the data");
        }
    }

    #[test]
    fn doubled_dots_are_undone_and_bare_ends_normalised() {
        let (out, rest) = content(b"..a\r\n.b\r\n...\r\nx\ny\rz\n.\n..q\r\n.\r\n").unwrap();
        assert_eq!(out, ".a\r\nb\r\n..\r\nx\r\ny\r\nz\r\n.\r\n..q\r\n");
        assert_eq!(rest, "");
    }

    #[test]
    fn a_client_that_believes_it_has_ended_is_seen() {
        for (text, believes) in
            [("a\n.\n", true), ("a\r\n.\n", true), ("a\n.", false), ("a\r\n", false), ("a.\n", false)]
        {
            let (mut state, mut out) = (Unframe::new(dots(Bare::Normalize)), BytesMut::new());
            for piece in text.as_bytes().chunks(1) {
                assert!(!state.feed(piece, &mut out).1);
            }
            assert_eq!(state.looks_ended(), believes, "{text:?}");
        }
    }

    #[test]
    fn bare_ends_can_be_kept_or_refused() {
        assert_eq!(unframe(dots(Bare::Keep), b"a\nb\rc\r\n.\r\n").0, b"a\nb\rc\r\n");
        assert!(unframe(dots(Bare::Refuse), b"a\nb\r\n.\r\n").3);
        assert!(!unframe(dots(Bare::Refuse), b"a\r\nb\r\n.\r\n").3);
    }

    #[test]
    fn ascii_turns_crlf_into_lf_and_back() {
        assert_eq!(unframe(Framing::Ascii, b"a\r\nb\rc\r\r\n\r").0, b"a\nb\rc\r\n\r");
        let (mut frame, mut out) = (Frame::new(Framing::Ascii), BytesMut::new());
        for piece in [&b"a\nb\r"[..], b"\nc\r\nd"] {
            frame.feed(piece, &mut out);
        }
        assert_eq!(&out[..], b"a\r\nb\r\nc\r\nd");
    }

    #[test]
    fn counted_bytes_leave_the_next_command_alone() {
        assert_eq!(unframe(Framing::Counted(3), b"abcNOOP\r\n"), (b"abc".to_vec(), b"NOOP\r\n".to_vec(), true, false));
    }

    proptest! {
        #[test]
        fn what_is_stuffed_comes_back(lines in proptest::collection::vec("[.a-c]{0,4}", 0..8)) {
            let text = lines.iter().fold(String::new(), |text, line| text + line + "\r\n");
            let (mut frame, mut wire) = (Frame::new(dots(Bare::Keep)), BytesMut::new());
            frame.feed(text.as_bytes(), &mut wire);
            frame.end(&mut wire);
            let (out, rest, done, _) = unframe(dots(Bare::Keep), &wire);
            prop_assert_eq!((out, rest, done), (text.into_bytes(), vec![], true));
        }

        #[test]
        fn no_bytes_make_dots_depend_on_the_cut(input in "[.\r\na]{0,24}") {
            unframe(dots(Bare::Normalize), input.as_bytes());
        }
    }
}
