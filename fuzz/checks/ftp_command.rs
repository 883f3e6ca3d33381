//! Bytes of a control connection, cut at a place the input chooses: lines, then commands. Where the cut falls never matters.

use stoa::proto::dialogue::Lines;
use stoa::proto::ftp::command::parse;
use stoa::proto::line::{Found, LineBuffer};

const LINES: Lines = Lines { longest: 128, bare_lf: true, telnet: true };

/// Panics when something is wrong.
pub fn check(bytes: &[u8]) {
    let (cut, wire) = bytes.split_first().map_or((1, bytes), |(cut, wire)| (usize::from(*cut).max(1), wire));
    let whole = heard(wire, wire.len().max(1));
    assert_eq!(whole, heard(wire, cut), "depends on the cut");
    for line in whole.iter().flatten() {
        // What is understood is printable in a log without its secrets.
        let _ = parse(line).map(|command| format!("{command:?}"));
    }
}

fn heard(wire: &[u8], cut: usize) -> Vec<Option<Vec<u8>>> {
    let (mut buffer, mut all) = (LineBuffer::default(), Vec::new());
    for piece in wire.chunks(cut) {
        buffer.room().extend_from_slice(piece);
        buffer.noted();
        loop {
            match buffer.next(LINES) {
                Found::Line(line) => all.push(Some(line.to_vec())),
                Found::TooLong => all.push(None),
                Found::Nothing => break,
            }
        }
    }
    all
}
