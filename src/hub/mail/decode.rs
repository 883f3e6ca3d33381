//! Content-Transfer-Encoding undone as bytes go by (RFC 2045 §6). Never fails: what is no encoding passes or is skipped.

use bytes::{BufMut, BytesMut};

/// Blanks at a line's end that are remembered in case text follows them.
const MOST_BLANKS: usize = 1024;

/// One part's decoding under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    /// RFC 2045 §6.8.
    Base64 {
        /// Bits not yet given out.
        bits: u32,
        /// How many.
        count: u8,
    },
    /// `7bit`, `8bit`, `binary`, and whatever we do not know.
    Plain,
    /// RFC 2045 §6.7.
    Quoted {
        /// What was read of an escape.
        escape: Escape,
        /// Blanks that vanish if the line ends here.
        blanks: Vec<u8>,
    },
}

/// How far an escape of quoted-printable has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// `=` and CR.
    Break,
    /// `=` and one digit.
    Digit(u8),
    /// No escape.
    None,
    /// `=`.
    Sign,
}

impl Decoder {
    /// By the header's value; comments and what else stands behind it do not count.
    pub(super) fn named(encoding: &str) -> Self {
        let word = encoding.trim_start().split(['(', ';', ' ', '\t']).next().unwrap_or_default();
        match word.to_ascii_lowercase().as_str() {
            "base64" => Self::Base64 { bits: 0, count: 0 },
            "quoted-printable" => Self::Quoted { escape: Escape::None, blanks: Vec::new() },
            _ => Self::Plain,
        }
    }

    /// The next encoded bytes.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut BytesMut) {
        match self {
            Self::Plain => out.put_slice(bytes),
            Self::Base64 { bits, count } => {
                out.reserve(bytes.len() / 4 * 3 + 3);
                for byte in bytes {
                    sextet(*byte, bits, count, out);
                }
            }
            Self::Quoted { escape, blanks } => {
                for byte in bytes {
                    quoted(*byte, escape, blanks, out);
                }
            }
        }
    }

    /// No more come.
    pub(super) fn finish(&mut self, out: &mut BytesMut) {
        if let Self::Quoted { escape, blanks } = self {
            match std::mem::replace(escape, Escape::None) {
                Escape::Digit(first) => out.put_slice(&[b'=', first]),
                Escape::Break | Escape::None | Escape::Sign => {}
            }
            blanks.clear();
        }
    }
}

/// Anything outside the alphabet is skipped (RFC 2045 §6.8); padding may also stand in the middle, where some devices
/// glue encoded pieces together.
fn sextet(byte: u8, bits: &mut u32, count: &mut u8, out: &mut BytesMut) {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        b'=' => {
            (*bits, *count) = (0, 0);
            return;
        }
        _ => return,
    };
    *bits = (*bits << 6) | u32::from(value);
    *count += 6;
    if *count >= 8 {
        *count -= 8;
        let [.., low] = (*bits >> *count).to_be_bytes();
        out.put_u8(low);
        *bits &= (1 << *count) - 1;
    }
}

fn quoted(byte: u8, escape: &mut Escape, blanks: &mut Vec<u8>, out: &mut BytesMut) {
    match std::mem::replace(escape, Escape::None) {
        Escape::Sign => match byte {
            b'\r' => *escape = Escape::Break,
            b'\n' => {}
            b' ' | b'\t' => *escape = Escape::Sign,
            digit if digit.is_ascii_hexdigit() => *escape = Escape::Digit(digit),
            other => {
                out.put_u8(b'=');
                plain(other, escape, blanks, out);
            }
        },
        Escape::Digit(first) => {
            if let (Some(high), Some(low)) = (hex(first), hex(byte)) {
                out.put_u8(high << 4 | low);
            } else {
                out.put_slice(&[b'=', first]);
                plain(byte, escape, blanks, out);
            }
        }
        Escape::Break if byte == b'\n' => {}
        Escape::Break | Escape::None => plain(byte, escape, blanks, out),
    }
}

fn plain(byte: u8, escape: &mut Escape, blanks: &mut Vec<u8>, out: &mut BytesMut) {
    match byte {
        b' ' | b'\t' if blanks.len() < MOST_BLANKS => blanks.push(byte),
        // RFC 2045 §6.7 rule 3: blanks before a line end were added on the way.
        b'\r' | b'\n' => {
            blanks.clear();
            out.put_u8(byte);
        }
        byte => {
            out.put_slice(blanks);
            blanks.clear();
            if byte == b'=' { *escape = Escape::Sign } else { out.put_u8(byte) }
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn decoded(encoding: &str, pieces: &[&[u8]]) -> Vec<u8> {
        let mut decoder = Decoder::named(encoding);
        let mut out = BytesMut::new();
        for piece in pieces {
            decoder.push(piece, &mut out);
        }
        decoder.finish(&mut out);
        out.to_vec()
    }

    #[test]
    fn quoted_printable_follows_its_rules_and_survives_nonsense() {
        let table: &[(&str, &str)] = &[
            ("a=20b", "a b"),
            ("soft=\r\nbreak", "softbreak"),
            ("soft=  \nbreak", "softbreak"),
            ("trailing  \r\nx", "trailing\r\nx"),
            ("a  b", "a  b"),
            ("=c3=A4", "ä"),
            ("1=2", "1=2"),
            ("a=zb", "a=zb"),
            ("end=", "end"),
        ];
        for (text, expected) in table {
            assert_eq!(decoded("Quoted-Printable", &[text.as_bytes()]), expected.as_bytes(), "{text:?}");
            let letters: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(decoded("quoted-printable", &letters), expected.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn base64_skips_what_is_not_its_own() {
        assert_eq!(decoded("base64", &[b"aGVs\r\nbG8=", b"\r\n"]), b"hello");
        assert_eq!(decoded("BASE64 ", &[b"aGVsbG8=aGVsbG8="]), b"hellohello");
        assert_eq!(decoded("base64", &[b"aG!Vs\0bG8"]), b"hello");
        assert_eq!(decoded("base64", &[b"a"]), b"");
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 1_usize..70) {
            let encoded = STANDARD.encode(&bytes);
            let lines: Vec<&[u8]> = encoded.as_bytes().chunks(cut).flat_map(|line| [line, b"\r\n".as_slice()]).collect();
            prop_assert_eq!(decoded("base64", &lines), bytes);
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for encoding in ["base64", "quoted-printable", "x"] {
                let out = decoded(encoding, &[&bytes]);
                prop_assert!(out.len() <= bytes.len() + 2);
            }
        }
    }
}
