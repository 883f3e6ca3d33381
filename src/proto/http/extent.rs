//! How far one request goes: its head and the body that its head announced (RFC 9112 §6, §7.1).
//!
//! hyper is given exactly one request, so that nothing behind it is ever read by other rules than [`head`](super::head)'s. Chunks are
//! followed strictly: what two readers could end at different places ends the connection.

use std::io;

/// Most digits of a chunk's size.
const DIGITS: u8 = 16;
/// Most bytes of all chunk extensions, and of the trailer section, of one body.
const ASIDE: usize = 8 << 10;

/// The body a head announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// So many bytes; 0: none.
    Length(u64),
}

/// What of a request is still to come.
#[derive(Debug)]
pub struct Extent {
    head: usize,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Length(u64),
    Chunked(Chunks),
}

/// Follows a chunked body.
#[derive(Debug)]
struct Chunks {
    at: Place,
    size: u64,
    digits: u8,
    aside: usize,
}

/// Where in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Size,
    /// Blanks that only an extension may follow.
    Blank,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    Over,
}

impl Extent {
    /// A request whose head has so many bytes.
    pub fn new(head: usize, framing: Framing) -> Self {
        let body = match framing {
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Chunks { at: Place::Size, size: 0, digits: 0, aside: 0 }),
        };
        Self { head, body }
    }

    /// Has all of it passed?
    pub fn is_over(&self) -> bool {
        self.head == 0
            && match &self.body {
                Body::Length(left) => *left == 0,
                Body::Chunked(chunks) => chunks.at == Place::Over,
            }
    }

    /// How many of these bytes, the next that came, belong to the request; with what is wrong behind them it begins the next time.
    ///
    /// # Errors
    /// `InvalidData` for chunks that are none.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let head = self.head.min(bytes.len());
        self.head -= head;
        let rest = bytes.get(head..).unwrap_or_default();
        let body = match &mut self.body {
            Body::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= count as u64;
                count
            }
            // What came before the fault is hyper's: it may be the head, which is answered.
            Body::Chunked(chunks) => match chunks.take(rest) {
                Err(_) if head > 0 => 0,
                taken => taken?,
            },
        };
        Ok(head + body)
    }
}

impl Chunks {
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while self.at != Place::Over {
            if self.at == Place::Data {
                let left = bytes.len() - at;
                let count = usize::try_from(self.size).unwrap_or(usize::MAX).min(left);
                self.size -= count as u64;
                at += count;
                if self.size == 0 {
                    self.at = Place::DataCr;
                }
            }
            let Some(byte) = bytes.get(at) else { break };
            self.at = match self.step(*byte) {
                Err(_) if at > 0 => break,
                step => step?,
            };
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> io::Result<Place> {
        Ok(match (self.at, byte) {
            (Place::Size, digit) if digit.is_ascii_hexdigit() => return self.digit(digit),
            (Place::Size | Place::Blank, b';') if self.digits > 0 => Place::Extension,
            (Place::Size | Place::Blank, b' ' | b'\t') if self.digits > 0 => self.aside(Place::Blank)?,
            (Place::Size, b'\r') if self.digits > 0 => Place::SizeLf,
            (Place::Extension, b'\r') => Place::SizeLf,
            (Place::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.aside(Place::Extension)?,
            (Place::SizeLf, b'\n') => {
                self.digits = 0;
                if self.size == 0 { Place::TrailerStart } else { Place::Data }
            }
            (Place::DataCr, b'\r') => Place::DataLf,
            (Place::DataLf, b'\n') => Place::Size,
            (Place::TrailerStart, b'\r') => Place::LastLf,
            (Place::TrailerStart, b'!'..=b'~') | (Place::Trailer, b'\t' | b' '..=b'~' | 0x80..) => {
                self.aside(Place::Trailer)?
            }
            (Place::Trailer, b'\r') => Place::TrailerLf,
            (Place::TrailerLf, b'\n') => Place::TrailerStart,
            (Place::LastLf, b'\n') => Place::Over,
            _ => return Err(wrong("the chunks of the body cannot be read")),
        })
    }

    fn digit(&mut self, digit: u8) -> io::Result<Place> {
        self.digits += 1;
        if self.digits > DIGITS {
            return Err(wrong("a chunk's size has too many digits"));
        }
        let value = char::from(digit).to_digit(16).unwrap_or_default();
        self.size = (self.size << 4) | u64::from(value);
        Ok(Place::Size)
    }

    fn aside(&mut self, place: Place) -> io::Result<Place> {
        self.aside += 1;
        if self.aside > ASIDE {
            return Err(wrong("the body's chunk extensions or trailers are longer than 8 KiB"));
        }
        Ok(place)
    }
}

fn wrong(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEHIND: &[u8] = b"GET /next HTTP/1.1\r\n";

    fn taken(framing: Framing, pieces: &[&[u8]]) -> io::Result<(usize, bool)> {
        let mut extent = Extent::new(0, framing);
        let mut count = 0;
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() && !extent.is_over() {
                let own = extent.take(rest)?;
                count += own;
                rest = &rest[own..];
            }
        }
        Ok((count, extent.is_over()))
    }

    #[test]
    fn a_request_ends_at_one_place_however_it_is_split() {
        for body in [
            &b"0\r\n\r\n"[..],
            b"5\r\nhello\r\n0\r\n\r\n",
            b"A;a=b\r\n0123456789\r\n00\r\n\r\n",
            b"5 ;a=\"b\"\r\n\r\n0\r\n\r\n0\r\nX: y\r\nZ: \xc3\xa9\r\n\r\n",
        ] {
            let whole = [body, BEHIND].concat();
            for first in 0..whole.len() {
                let (one, two) = whole.split_at(first);
                let mut extent = Extent::new(0, Framing::Chunked);
                let mut count = extent.take(one).unwrap();
                if !extent.is_over() {
                    assert_eq!(count, one.len());
                    count += extent.take(two).unwrap();
                }
                assert!(extent.is_over());
                assert_eq!(count, body.len(), "{body:?} at {first}");
            }
        }
        assert_eq!(taken(Framing::Length(3), &[b"ab", b"cd"]).unwrap(), (3, true));
        let mut extent = Extent::new(4, Framing::Length(2));
        assert_eq!((extent.take(b"hea").unwrap(), extent.take(b"dbody").unwrap()), (3, 3));
    }

    #[test]
    fn what_two_readers_could_end_at_different_places_is_refused() {
        for body in [
            &b"\r\n"[..],
            b"x\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b"+5\r\nhello",
            b" 5\r\nhello",
            b"5 \r\nhello",
            b"5\nhello",
            b"5\rhello",
            b"5;a\nhello",
            b"5\r\nhello0\r\n",
            b"5\r\nhello\n0\r\n",
            b"5\r\nhello\r0",
            b"10000000000000005\r\nhello",
            b"0\r\n\n",
            b"0\r\nX: y\n",
            b"0\r\n folded\r\n",
            b"5;\0\r\n",
        ] {
            assert!(taken(Framing::Chunked, &[body]).is_err(), "{body:?}");
        }
        let long = [&b"5;"[..], &[b'x'; ASIDE + 1]].concat();
        assert!(taken(Framing::Chunked, &[&long]).is_err());
    }
}
