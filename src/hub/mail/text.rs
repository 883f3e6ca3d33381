//! What the text of a message says, as far as filing must know it: how many words a person wrote, and which pictures it shows.

use std::collections::HashSet;

/// Pictures remembered, at most; those beyond are attachments.
const MOST_PICTURES: usize = 1000;
/// Longest `Content-ID`, and the most of a text that is held for what comes next.
const LONGEST_ID: usize = 250;
/// Longest line whose beginning is looked at for a signature or a quotation.
const LONGEST_LINE: usize = 8;
/// So many bytes beyond ASCII in one word are two words, or more: of Chinese, two or three characters each.
const BEYOND_A_WORD: usize = 18;
/// Stands before the id of a picture in a text.
const PICTURE: &[u8] = b"cid:";

/// Reads the texts of one message as they pass.
#[derive(Default)]
pub(super) struct Texts {
    /// Words of the part that has the most: alternatives say the same.
    most: usize,
    part: Part,
    shown: HashSet<Vec<u8>>,
}

/// One text.
#[derive(Default)]
struct Part {
    html: bool,
    words: usize,
    /// Letters of the word being read.
    word: usize,
    /// Bytes beyond ASCII in it: languages without blanks have many.
    beyond: usize,
    /// In an entity such as `&nbsp;`.
    entity: bool,
    /// In a tag.
    tag: bool,
    /// In `<style>` or `<script>`.
    hidden: bool,
    name: Vec<u8>,
    line: Vec<u8>,
    /// Behind `-- `.
    signature: bool,
    /// What may be the beginning of a `cid:` and its id.
    held: Vec<u8>,
}

impl Texts {
    /// A text begins.
    pub(super) fn begin(&mut self, html: bool) {
        self.end();
        self.part = Part { html, ..Part::default() };
    }

    /// Its decoded bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.part.html {
            self.pictures(bytes);
        }
        for byte in bytes {
            self.part.take(*byte);
        }
    }

    /// It is over.
    pub(super) fn end(&mut self) {
        if self.part.html {
            self.pictures(b" ");
        }
        self.part.end_word();
        self.most = self.most.max(self.part.words);
        self.part = Part::default();
    }

    /// Words in the longest text, without its signature and what it quotes.
    pub(super) fn words(&self) -> usize {
        self.most
    }

    /// Does a text show the picture of this `Content-ID`?
    pub(super) fn shows(&self, id: &str) -> bool {
        let id = id.trim().trim_start_matches('<').trim_end_matches('>');
        !id.is_empty() && self.shown.contains(id.as_bytes())
    }

    /// Remembers what stands behind each `cid:`.
    fn pictures(&mut self, bytes: &[u8]) {
        let held = &mut self.part.held;
        held.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(at) = find_word(held, from) {
            let id = held.get(at + PICTURE.len()..).unwrap_or_default();
            let end = id
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\'' | b'>' | b')' | b'<') || byte.is_ascii_whitespace());
            match end {
                Some(end) => {
                    let id: Vec<u8> = percent_encoding::percent_decode(id.get(..end).unwrap_or_default()).collect();
                    if self.shown.len() < MOST_PICTURES {
                        self.shown.insert(id);
                    }
                    from = at + PICTURE.len() + end;
                }
                None if id.len() > LONGEST_ID => from = at + PICTURE.len(),
                // Its end is still to come.
                None => {
                    held.drain(..at);
                    return;
                }
            }
        }
        let keep = held.len().saturating_sub(PICTURE.len() - 1).max(from);
        held.drain(..keep);
    }
}

fn find_word(text: &[u8], from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    rest.windows(PICTURE.len()).position(|four| four.eq_ignore_ascii_case(PICTURE)).map(|at| from + at)
}

impl Part {
    fn take(&mut self, byte: u8) {
        match byte {
            b'<' if self.html => {
                self.end_word();
                self.tag = true;
                self.name.clear();
            }
            b'>' if self.tag => self.end_tag(),
            _ if self.tag => {
                if self.name.len() < LONGEST_LINE {
                    self.name.push(byte.to_ascii_lowercase());
                }
            }
            b'&' if self.html => {
                self.end_word();
                self.entity = true;
            }
            b';' if self.entity => self.entity = false,
            b'\n' => {
                self.entity = false;
                self.signature |= matches!(self.line.as_slice(), b"-- " | b"-- \r" | b"--" | b"--\r");
                self.end_word();
                self.line.clear();
            }
            _ => {
                if self.line.len() < LONGEST_LINE {
                    self.line.push(byte);
                }
                match byte.is_ascii_alphanumeric() || byte >= 0x80 {
                    true if self.entity => {}
                    true => {
                        self.word += 1;
                        self.beyond += usize::from(byte >= 0x80);
                    }
                    false => {
                        self.entity = false;
                        self.end_word();
                    }
                }
            }
        }
    }

    fn end_tag(&mut self) {
        self.tag = false;
        let is = |word: &[u8]| self.name.starts_with(word);
        self.hidden = (self.hidden || is(b"style") || is(b"script") || is(b"title")) && !is(b"/");
    }

    fn end_word(&mut self) {
        let quoted = !self.html && self.line.starts_with(b">");
        if self.word > 0 && !self.hidden && !self.signature && !quoted {
            self.words += (self.beyond / BEYOND_A_WORD).max(1);
        }
        (self.word, self.beyond) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(html: bool, text: &str, cut: usize) -> Texts {
        let mut texts = Texts::default();
        texts.begin(html);
        text.as_bytes().chunks(cut).for_each(|piece| texts.push(piece));
        texts.end();
        texts
    }

    #[test]
    fn words_are_counted_and_pictures_seen() {
        for cut in [1, 2, 3, 1000] {
            assert_eq!(read(true, "<p>&nbsp; &nbsp;</p>", cut).words(), 0);
            let plain = "Two words.\r\n> quoted by us\r\n-- \r\nBob, Ltd.\r\n";
            assert_eq!(read(false, plain, cut).words(), 2, "{cut}");
            let html = "<style>p { color: red }</style><p class=\"a b\">Grüße an <b>alle</b></p><img src=\"CID:logo%40here\"><div style='background:url(cid:back)'>";
            let texts = read(true, html, cut);
            assert_eq!(texts.words(), 3, "{cut}");
            assert!(
                texts.shows("<logo@here>") && texts.shows(" <back> ") && !texts.shows("<other>") && !texts.shows("")
            );
            assert!(read(true, "<img src=cid:last", cut).shows("<last>"));
        }
    }
}
