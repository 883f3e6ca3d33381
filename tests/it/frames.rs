//! HTTP/2 frames by hand (RFC 9113 §4, §6), over plain TCP with prior knowledge.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Largest frame everybody takes.
const LARGEST: usize = 16_384;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals without indexing (RFC 7541 §6.2.2).
pub fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            integer(text.len(), &mut block);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn integer(mut value: usize, into: &mut Vec<u8>) {
    if value < 127 {
        return into.push(u8::try_from(value).unwrap());
    }
    into.push(127);
    value -= 127;
    while value >= 128 {
        into.push(u8::try_from(value % 128 + 128).unwrap());
        value /= 128;
    }
    into.push(u8::try_from(value).unwrap());
}

/// The head of a request on a stream.
pub fn request(stream: u32, method: &str, path: &str, headers: &[(&str, &str)], end: bool) -> Vec<u8> {
    let all =
        [&[(":method", method), (":scheme", "http"), (":authority", "stoa"), (":path", path)][..], headers].concat();
    frame(HEADERS, END_HEADERS | if end { END_STREAM } else { 0 }, stream, &block(&all))
}

/// A body in frames of the usual size; its end is said with the last of them or not.
pub fn body(stream: u32, bytes: &[u8], end: bool) -> Vec<u8> {
    let mut pieces = bytes.chunks(LARGEST).peekable();
    if bytes.is_empty() {
        return frame(DATA, u8::from(end), stream, b"");
    }
    let mut all = Vec::new();
    while let Some(piece) = pieces.next() {
        let last = end && pieces.peek().is_none();
        all.extend(frame(DATA, u8::from(last), stream, piece));
    }
    all
}

/// A frame that came.
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection that has begun.
pub struct Connection(pub TcpStream);

impl Connection {
    /// Begins with these settings, and has heard the server's settings and the window of its connection.
    pub fn open(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.set_nodelay(true).unwrap();
        let settings: Vec<u8> =
            settings.iter().flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        let mut connection = Self(stream);
        connection.send(&[PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat());
        connection.until(SETTINGS, 0);
        connection.send(&frame(SETTINGS, ACK, 0, b""));
        connection.until(WINDOW_UPDATE, 0);
        connection
    }

    /// Sends; a server that ended the connection may not take it.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// The next frame; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte));
        let (kind, flags) = (head[3], head[4]);
        let mut payload = vec![0; number(&head[..3]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        if kind == PING && flags & ACK == 0 {
            self.send(&frame(PING, ACK, 0, &payload));
        }
        Some(Frame { kind, flags, stream: number(&head[5..]) & (u32::MAX >> 1), payload })
    }

    /// The next frame of this sort on this stream; panics at the end of the connection.
    pub fn until(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let frame = self.next().expect("the connection goes on");
            if (frame.kind, frame.stream) == (kind, stream) {
                return frame;
            }
        }
    }

    /// Everything to the end of a stream; true when it was answered and ended in good order.
    pub fn answered(&mut self, stream: u32) -> bool {
        while let Some(frame) = self.next() {
            match frame.kind {
                GOAWAY => return false,
                RST_STREAM if frame.stream == stream => return false,
                HEADERS | DATA if frame.stream == stream && frame.flags & END_STREAM != 0 => return true,
                _ => {}
            }
        }
        false
    }
}
