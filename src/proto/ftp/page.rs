//! Names in a code page of old: a device that knows no UTF-8 reads and writes them in its own, and no file is lost over its name.
//!
//! What the page cannot write is shown as `&#128512;`, and that text means the character again when the client sends it back.

use std::borrow::Cow;

use async_trait::async_trait;
use bytes::Bytes;
use encoding_rs::Encoding;

use crate::proto::dialogue::Feed;

/// A code page in which ASCII is ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page(&'static Encoding);

impl Page {
    /// Reads a label such as `cp1252`, `shift_jis` or `gbk`; `None` for UTF-8.
    ///
    /// # Errors
    /// What it is instead, in words.
    pub fn parse(label: &str) -> Result<Option<Self>, String> {
        let known = Encoding::for_label(label.trim().as_bytes());
        match known.filter(|page| page.is_ascii_compatible() && *page != encoding_rs::REPLACEMENT) {
            Some(page) if page == encoding_rs::UTF_8 => Ok(None),
            Some(page) => Ok(Some(Self(page))),
            None => {
                Err(format!("`{label}` is no code page known here; write utf-8, cp1252, cp1251, shift_jis, gbk, …"))
            }
        }
    }

    /// What the client wrote. Bytes the page does not have are taken as Latin-1: always the same name for the same bytes.
    #[must_use]
    pub fn read(self, bytes: &[u8]) -> String {
        match self.0.decode_without_bom_handling_and_without_replacement(bytes) {
            Some(text) => self.unescape(&text),
            None => bytes.iter().copied().map(char::from).collect(),
        }
    }

    /// As the client can read it.
    #[must_use]
    pub fn write(self, text: &str) -> Cow<'_, [u8]> {
        self.0.encode(text).0
    }

    fn unescape(self, text: &str) -> String {
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some((before, after)) = rest.split_once("&#") {
            out.push_str(before);
            let escaped = after.split_once(';').and_then(|(digits, left)| {
                let letter = digits.parse().ok().and_then(char::from_u32)?;
                // Only what we would have written so ourselves.
                let ours = self.0.encode(letter.encode_utf8(&mut [0; 4])).2 && digits == u32::from(letter).to_string();
                ours.then_some((letter, left))
            });
            if let Some((letter, left)) = escaped {
                out.push(letter);
                rest = left;
            } else {
                out.push_str("&#");
                rest = after;
            }
        }
        out.push_str(rest);
        out
    }
}

/// A listing in a code page. Its pieces end with whole lines, so no letter is cut.
pub struct InPage {
    /// The listing in UTF-8.
    pub feed: Box<dyn Feed>,
    /// What the client reads.
    pub page: Page,
}

#[async_trait]
impl Feed for InPage {
    async fn next(&mut self) -> crate::error::Result<Option<Bytes>> {
        let piece = self.feed.next().await?;
        Ok(piece.map(|piece| self.page.write(&String::from_utf8_lossy(&piece)).into_owned().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(label: &str) -> Page {
        Page::parse(label).unwrap().unwrap()
    }

    #[test]
    fn names_travel_both_ways_and_what_a_page_lacks_comes_back() {
        for (label, name) in [
            ("cp1252", "für € 😀.txt"),
            ("shift_jis", "表 1 ü.pdf"),
            ("gbk", "扫描 ©️.jpg"),
            ("cp1251", "файл &#65; & &#x;"),
        ] {
            let page = page(label);
            assert_eq!(page.read(&page.write(name)), name, "{label}");
        }
        assert_eq!(&*page("cp1252").write("für"), b"f\xfcr");
        assert_eq!(page("shift_jis").read(b"\x95\x5c.txt"), "表.txt", "a second byte may look like a backslash");
    }

    #[test]
    fn every_byte_is_some_name_and_an_escape_makes_nothing_dangerous() {
        for label in ["cp1252", "shift_jis", "gbk", "big5", "euc-kr", "koi8-r"] {
            for byte in 0..=255 {
                assert_eq!(page(label).read(&[byte]), page(label).read(&[byte]), "{label} {byte}");
            }
        }
        assert_eq!(page("cp1252").read(b"a&#47;b&#0;&#10;"), "a&#47;b&#0;&#10;");
        assert!(Page::parse("utf-8").unwrap().is_none());
        assert!(
            Page::parse("utf-16").is_err() && Page::parse("iso-2022-jp").is_err() && Page::parse("klingon").is_err()
        );
    }
}
