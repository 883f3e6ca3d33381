//! Encoded words (RFC 2047), as they should be written and as they are.
//!
//! Words may touch text, stand inside quotes, hold blanks, name a language (RFC 2231 §5), or lack their end. The bytes of adjacent words
//! of one charset are joined before they become text: a character may begin in one word and end in the next.

use bytes::BytesMut;

use super::charset;
use super::decode::Decoder;

/// Longest name of a charset.
const LONGEST_CHARSET: usize = 64;
/// Where the end of a word outside of quotes is looked for.
const LONGEST_WORD: usize = 4 << 10;

/// A text with its encoded words decoded.
pub(super) fn decode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut run = Run::default();
    let mut rest = text;
    while let Some(at) = rest.find("=?") {
        let (before, from) = rest.split_at(at);
        let Some((word, behind)) = Word::begin(from) else {
            run.end(&mut out);
            out.push_str(before);
            out.push_str("=?");
            rest = from.get(2..).unwrap_or_default();
            continue;
        };
        // Blanks between two words are not part of the text.
        if !before.trim().is_empty() || run.charset.is_empty() {
            run.end(&mut out);
            out.push_str(before);
        }
        run.add(&word, &mut out);
        rest = behind;
    }
    run.end(&mut out);
    out.push_str(rest);
    out
}

/// The length of the word that a text begins with.
pub(super) fn length(text: &[u8]) -> Option<usize> {
    let text = text.strip_prefix(b"=?")?;
    let mut marks = memchr::memchr_iter(b'?', text);
    let (charset, encoding) = (marks.next()?, marks.next()?);
    let rest = text.get(encoding + 1..)?;
    let closed = memchr::memmem::find(rest.get(..LONGEST_WORD).unwrap_or(rest), b"?=")?;
    (charset <= LONGEST_CHARSET && encoding == charset + 2).then_some(2 + encoding + 1 + closed + 2)
}

struct Word<'a> {
    charset: &'a str,
    base64: bool,
    text: &'a str,
}

impl<'a> Word<'a> {
    /// The word a text begins with, and what is behind it. One without an end goes to the end.
    fn begin(text: &'a str) -> Option<(Self, &'a str)> {
        let (charset, rest) = text.strip_prefix("=?")?.split_once('?')?;
        let (encoding, rest) = rest.split_once('?')?;
        let name = charset.split('*').next().unwrap_or_default().trim();
        let plain = |letter: char| letter.is_ascii_graphic() && letter != '=';
        if name.is_empty() || charset.len() > LONGEST_CHARSET || !name.chars().all(plain) {
            return None;
        }
        let base64 = match encoding {
            "B" | "b" => true,
            "Q" | "q" => false,
            _ => return None,
        };
        let (text, behind) = rest.split_once("?=").unwrap_or((rest.trim_end_matches('?'), ""));
        Some((Self { charset: name, base64, text }, behind))
    }
}

/// Adjacent words of one charset.
#[derive(Default)]
struct Run<'a> {
    charset: &'a str,
    bytes: Vec<u8>,
    /// Base64 that did not end with a whole group: the next word may go on with it.
    open: String,
}

impl<'a> Run<'a> {
    fn add(&mut self, word: &Word<'a>, out: &mut String) {
        if !self.charset.eq_ignore_ascii_case(word.charset) {
            self.end(out);
            self.charset = word.charset;
        }
        if !word.base64 {
            self.close();
            self.bytes.extend(quoted(word.text));
            return;
        }
        self.open.extend(word.text.chars().filter(|letter| !letter.is_whitespace()));
        if self.open.len().is_multiple_of(4) || self.open.ends_with('=') {
            self.close();
        }
    }

    fn close(&mut self) {
        let open = std::mem::take(&mut self.open);
        self.bytes.extend(undone("base64", open.as_bytes()));
    }

    fn end(&mut self, out: &mut String) {
        self.close();
        if !self.charset.is_empty() {
            out.push_str(&charset::decode(self.charset, &std::mem::take(&mut self.bytes)));
            self.charset = "";
        }
    }
}

/// RFC 2047 §4.2: quoted-printable in which `_` is a blank, and blanks at the end are real.
fn quoted(text: &str) -> Vec<u8> {
    let spelled = text.replace(['_', ' '], "=20");
    undone("quoted-printable", spelled.as_bytes())
}

fn undone(encoding: &str, text: &[u8]) -> Vec<u8> {
    let (mut decoder, mut out) = (Decoder::named(encoding), BytesMut::new());
    decoder.push(text, &mut out);
    decoder.finish(&mut out);
    out.to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_decoded_however_they_are_written() {
        let table = [
            ("plain", "plain"),
            ("=?UTF-8?Q?nuotrauk=C4?= =?UTF-8?Q?=85.pdf?=", "nuotrauką.pdf"),
            ("=?UTF-8?Q?nuotrauk=C4?=\t \t=?utf-8?B?hS5wZGY=?=", "nuotrauką.pdf"),
            ("=?UTF-8?Q?a?= =?iso-8859-1?Q?=E4?= b", "aä b"),
            ("=?iso-8859-1?Q?Plan_7A?=.pdf", "Plan 7A.pdf"),
            ("Scan_=?UTF-8?B?w6Q=?=.pdf", "Scan_ä.pdf"),
            ("=?UTF-8*de?Q?M=C3=A4rz.pdf?=", "März.pdf"),
            ("=?cp850?Q?M=84rz.pdf?=", "März.pdf"),
            ("=?utf-8?Q?two words =C3=A4?=", "two words ä"),
            ("=?utf-8?Q?end_?=x", "end x"),
            ("=?utf-8?B?w5xiZXJzaWNodCBNYWkg?= =?utf-8?B?MjAyNi5wZGY=?=", "Übersicht Mai 2026.pdf"),
            ("=?utf-8?B?w5xiZX?= =?utf-8?B?JzLnBkZg==?=", "Übers.pdf"),
            ("=?shift_jis?B?kA==?= =?shift_jis?B?vw==?=.pdf", "請.pdf"),
            ("=?utf-8?B?w6QucGRm", "ä.pdf"),
            ("=?x-nonsense?Q?M=E4rz?=", "März"),
            ("a =?=?=? b", "a =?=?=? b"),
            ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
            ("=?utf-8?Q??=", ""),
        ];
        for (written, meant) in table {
            assert_eq!(decode(written), meant, "{written}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_bearable(text in "(=\\?|\\?=|utf-8|iso-2022-jp|\\?Q\\?|\\?B\\?|[ -~ä]){0,40}") {
            prop_assert!(decode(&text).len() <= text.len() * 3 + 3);
        }
    }
}
