//! Bytes of an SMTP connection: lines that end at CRLF only, then commands; and content framed by dots, whose end no cut may move.

use bytes::BytesMut;
use stoa::proto::dialogue::{Bare, Framing, Lines};
use stoa::proto::framing::Unframe;
use stoa::proto::line::{Found, LineBuffer};
use stoa::proto::smtp::command::Command;

const LINES: Lines = Lines { longest: 512, bare_lf: false, telnet: false };

/// Panics when something is wrong.
pub fn check(bytes: &[u8]) {
    let (cut, wire) = bytes.split_first().map_or((1, bytes), |(cut, wire)| (usize::from(*cut).max(1), wire));
    let mut buffer = LineBuffer::default();
    for piece in wire.chunks(cut) {
        buffer.room().extend_from_slice(piece);
        buffer.noted();
        loop {
            match buffer.next(LINES) {
                Found::Line(line) => {
                    let _ = Command::parse(&line).map(|command| format!("{command:?}"));
                }
                Found::TooLong => {}
                Found::Nothing => break,
            }
        }
    }
    for bare in [Bare::Keep, Bare::Normalize, Bare::Refuse] {
        assert_eq!(content(wire, bare, wire.len().max(1)), content(wire, bare, cut), "depends on the cut");
    }
}

/// What came, how many bytes it took, whether it ended and whether it was refused.
fn content(wire: &[u8], bare: Bare, cut: usize) -> (Vec<u8>, usize, bool, bool) {
    let mut state = Unframe::new(Framing::Dots { swallow: 0, bare });
    let (mut out, mut used, mut done) = (BytesMut::new(), 0, false);
    for piece in wire.chunks(cut) {
        let (some, ended) = state.feed(piece, &mut out);
        used += some;
        if ended {
            done = true;
            break;
        }
    }
    state.end(&mut out);
    (out.to_vec(), used, done, state.refused)
}
