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
        /// What came last.
        spot: Spot,
        /// There was something else between the letters, or the last group was cut.
        damaged: bool,
    },
    /// `7bit`, `8bit`, `binary`.
    Plain,
    /// An encoding we do not know: passed on as it is.
    Unknown,
    /// uuencode, as `x-uuencode` means it.
    Uu(Uu),
    /// RFC 2045 §6.7.
    Quoted {
        /// What was read of an escape.
        escape: Escape,
        /// Blanks that vanish if the line ends here.
        blanks: Vec<u8>,
    },
}

/// Where in base64 the next byte falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// Behind a blank that follows letters.
    Blank,
    /// Behind letters.
    Letters,
    /// Behind the padding.
    Padded,
    /// At the start of a line.
    Start,
}

impl Spot {
    /// Goes on by one byte; false for a letter where none belongs.
    fn follows(&mut self, byte: u8) -> bool {
        let before = *self;
        let (blank, line) = (matches!(byte, b' ' | b'\t'), matches!(byte, b'\r' | b'\n'));
        *self = if byte == b'=' || (before == Self::Padded && (blank || line)) {
            Self::Padded
        } else if line || (before == Self::Start && blank) {
            Self::Start
        } else if blank {
            Self::Blank
        } else {
            Self::Letters
        };
        *self != Self::Letters || matches!(before, Self::Letters | Self::Start)
    }
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
    /// By the header's value; quotes, comments and what else stands around it do not count.
    pub(super) fn named(encoding: &str) -> Self {
        let start = encoding.trim_start_matches(|letter: char| letter.is_whitespace() || "\"'<".contains(letter));
        let word = start.split(['(', ';', ',', ' ', '\t', '\r', '\n', '"', '\'', '>', ':']).next().unwrap_or_default();
        match word.to_ascii_lowercase().as_str() {
            "base64" | "base-64" | "base_64" | "b64" | "x-base64" | "b" => {
                Self::Base64 { bits: 0, count: 0, spot: Spot::Start, damaged: false }
            }
            "quoted-printable" | "quotedprintable" | "quoted_printable" | "quoted-printible" | "qp" | "q" => {
                Self::Quoted { escape: Escape::None, blanks: Vec::new() }
            }
            "x-uuencode" | "uuencode" | "x-uue" | "uue" | "x-uu" | "uu" | "uuencoded" => Self::Uu(Uu::default()),
            "" | "7bit" | "8bit" | "binary" | "7-bit" | "8-bit" | "7bits" | "8bits" | "none" | "raw" => Self::Plain,
            _ => Self::Unknown,
        }
    }

    /// Once all has come: true when it was not of this encoding, so that what came out may be wrong.
    pub(super) fn is_damaged(&self) -> bool {
        match self {
            Self::Plain | Self::Quoted { .. } => false,
            Self::Base64 { damaged, .. } => *damaged,
            Self::Unknown => true,
            Self::Uu(uu) => uu.place != Place::Behind,
        }
    }

    /// The next encoded bytes.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut BytesMut) {
        match self {
            Self::Plain | Self::Unknown => out.put_slice(bytes),
            Self::Uu(uu) => uu.push(bytes, out),
            Self::Base64 { bits, count, spot, damaged } => {
                out.reserve(bytes.len() / 4 * 3 + 3);
                for byte in bytes {
                    *damaged |= !sextet(*byte, bits, count, out) | !spot.follows(*byte);
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
        match self {
            // A single letter of a group says less than a byte.
            Self::Base64 { count, damaged, .. } => *damaged |= *count == 6,
            Self::Uu(uu) => uu.line(out),
            Self::Plain | Self::Quoted { .. } | Self::Unknown => {}
        }
        if let Self::Quoted { escape, blanks } = self {
            match std::mem::replace(escape, Escape::None) {
                Escape::Digit(first) => out.put_slice(&[b'=', first]),
                Escape::Break | Escape::None | Escape::Sign => {}
            }
            blanks.clear();
        }
    }
}

/// A line of uuencode is shorter; what is longer is none.
const LONGEST_UU: usize = 256;

/// How far uuencode has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uu {
    held: Vec<u8>,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before `begin`.
    #[default]
    Before,
    Inside,
    /// Behind `end`.
    Behind,
}

impl Uu {
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LONGEST_UU.saturating_sub(self.held.len());
            self.held.extend_from_slice(piece.get(..room).unwrap_or(piece));
            if piece.ends_with(b"\n") {
                self.line(out);
            }
        }
    }

    fn line(&mut self, out: &mut BytesMut) {
        let line = std::mem::take(&mut self.held);
        let line = line.trim_ascii_end();
        match self.place {
            Place::Before if line.starts_with(b"begin ") => self.place = Place::Inside,
            Place::Inside if line.eq_ignore_ascii_case(b"end") => self.place = Place::Behind,
            Place::Inside => uu_line(line, out),
            Place::Before | Place::Behind => {}
        }
    }
}

/// A count, then groups of four letters for three bytes. Blanks at the end may be gone.
fn uu_line(line: &[u8], out: &mut BytesMut) {
    let value = |letter: &u8| letter.wrapping_sub(b' ') & 0x3f;
    let Some((count, letters)) = line.split_first() else { return };
    let mut left = usize::from(value(count));
    for four in letters.chunks(4) {
        let at = |index: usize| u32::from(four.get(index).map_or(0, value));
        let [_, first, second, third] = (at(0) << 18 | at(1) << 12 | at(2) << 6 | at(3)).to_be_bytes();
        let bytes = [first, second, third];
        let take = left.min(3);
        out.put_slice(bytes.get(..take).unwrap_or_default());
        left -= take;
    }
    out.put_bytes(0, left);
}

/// Anything outside the alphabet is skipped (RFC 2045 §6.8); padding may also stand in the middle, where some devices
/// glue encoded pieces together. False for what is neither a letter nor a blank.
fn sextet(byte: u8, bits: &mut u32, count: &mut u8, out: &mut BytesMut) -> bool {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        b'=' => {
            (*bits, *count) = (0, 0);
            return true;
        }
        other => return other.is_ascii_whitespace(),
    };
    *bits = (*bits << 6) | u32::from(value);
    *count += 6;
    if *count >= 8 {
        *count -= 8;
        let [.., low] = (*bits >> *count).to_be_bytes();
        out.put_u8(low);
        *bits &= (1 << *count) - 1;
    }
    true
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

    #[test]
    fn uuencode_is_undone_line_by_line() {
        let text = b"a line before\r\nbegin 644 u.pdf\r\n%2&5L;&\\\r\n`\r\nend\r\nbehind";
        assert_eq!(decoded("x-uuencode", &[text]), b"Hello");
        let letters: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(decoded("UUENCODE", &letters), b"Hello");
        assert_eq!(decoded("x-uue", &[b"begin 600 x\n#0V%T\n"]), b"Cat");
    }

    #[test]
    fn what_is_not_of_its_encoding_is_told() {
        let damaged = |encoding: &str, text: &[u8]| {
            let (mut decoder, mut out) = (Decoder::named(encoding), BytesMut::new());
            decoder.push(text, &mut out);
            decoder.finish(&mut out);
            decoder.is_damaged()
        };
        for (encoding, text, expected) in [
            ("\"base64\"", "aGVs\r\nbG8=\r\n", false),
            ("base64", "aGVsbG8", false),
            ("base64", "aGVsb", true),
            ("base64", "aGV!bG8=", true),
            ("base64", " aGVs\r\n bG8= \r\n\r\n", false),
            ("base64", "aGVs bG8=", true),
            ("base64", "aGVsbG8=\r\nand more", true),
            ("uuencode", "begin 644 a\n#0V%T\n`\nend\n", false),
            ("uuencode", "#0V%T\n", true),
            ("x-yenc", "x", true),
            ("7BIT", "x", false),
        ] {
            assert_eq!(damaged(encoding, text.as_bytes()), expected, "{encoding} {text}");
        }
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
            // A count may promise more than its line has.
            prop_assert!(decoded("uuencode", &[b"begin 1 x\n", &bytes]).len() <= 64 * bytes.len() + 64);
        }
    }
}
