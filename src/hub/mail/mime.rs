//! The parts of a message, found while its bytes go by: memory stays bounded however large the message is.
//!
//! Lenient in content (bare LF, missing ends, raw 8-bit names), strict in bounds: depth, parts and header sizes have
//! limits ([`MimeLimits`]), and a message past them is [`Walker::broken`], not refused.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use mailparse::MailHeaderMap;

use super::decode::Decoder;
use super::settings::MimeLimits;

/// Header bytes looked at in a part, at most.
const LONGEST_PART_HEAD: usize = 64 << 10;
/// Longest single header value that is understood.
const LONGEST_VALUE: usize = 4 << 10;
/// Encoded words (`=?`) and pieces of parameters (`*`) in one value: understanding them takes the square of their number.
const MOST_MARKS: usize = 100;
/// Longest boundary; RFC 2046 §5.1.1 allows 70.
const LONGEST_BOUNDARY: usize = 250;
/// A line longer than this is no boundary: it is passed on without waiting for its end.
const LONGEST_MARK: usize = 512;

/// What a part says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// `application/pdf`, lower case.
    pub media: String,
    /// As the sender wrote it, decoded (RFC 2231, RFC 2047, raw 8-bit), not yet safe.
    pub name: Option<String>,
    /// `Content-Disposition: attachment`.
    pub attached: bool,
}

/// What the walker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A part that is no multipart begins.
    Part(Head),
    /// Decoded bytes of it.
    Bytes(Bytes),
    /// It ends.
    End,
}

/// Takes a message in pieces.
pub(super) struct Walker {
    limits: MimeLimits,
    boundaries: Vec<Vec<u8>>,
    place: Place,
    /// Start of the current line, while it may still be a boundary.
    held: Vec<u8>,
    /// The rest of the current line is content, whatever it says.
    midline: bool,
    /// The line end before this line: part of the content unless this line is a boundary.
    line_end: &'static [u8],
    head: Vec<u8>,
    parts: usize,
    decoder: Decoder,
    subject: String,
    broken: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a header section.
    Head,
    /// In the content of a leaf.
    Leaf,
    /// Before the first or after the last part of a multipart.
    Between,
}

impl Walker {
    /// At the first byte of a message.
    pub(super) fn new(limits: MimeLimits) -> Self {
        Self {
            limits,
            boundaries: Vec::new(),
            place: Place::Head,
            held: Vec::new(),
            midline: false,
            line_end: b"",
            head: Vec::new(),
            parts: 0,
            decoder: Decoder::Plain,
            subject: String::new(),
            broken: None,
        }
    }

    /// Why its parts cannot be told, when they cannot.
    pub(super) fn broken(&self) -> Option<&'static str> {
        self.broken
    }

    /// The message's subject, decoded; known once its header is past.
    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// The next bytes of the message.
    pub(super) fn feed(&mut self, mut chunk: &[u8], found: &mut Vec<Found>) {
        let mut out = BytesMut::new();
        while !chunk.is_empty() && self.broken.is_none() {
            let end = memchr::memchr(b'\n', chunk);
            let (piece, rest) = chunk.split_at(end.map_or(chunk.len(), |at| at + 1));
            chunk = rest;
            if self.midline {
                self.midline = end.is_none();
                self.content(piece, &mut out);
            } else if self.held.is_empty() && end.is_some() {
                self.line(piece, &mut out, found);
            } else {
                self.held.extend_from_slice(piece);
                if end.is_some() {
                    let line = std::mem::take(&mut self.held);
                    self.line(&line, &mut out, found);
                } else if self.held.len() > LONGEST_MARK {
                    let start = std::mem::take(&mut self.held);
                    self.midline = true;
                    self.content(&start, &mut out);
                }
            }
        }
        flush(&mut out, found);
    }

    /// The message is over.
    pub(super) fn finish(&mut self, found: &mut Vec<Found>) {
        let mut out = BytesMut::new();
        let line = std::mem::take(&mut self.held);
        if !line.is_empty() && self.broken.is_none() {
            self.line(&line, &mut out, found);
        }
        if self.place == Place::Head {
            self.end_head(found);
        }
        self.end_leaf(self.boundaries.is_empty(), &mut out, found);
    }

    /// A whole line, short enough to be anything.
    fn line(&mut self, line: &[u8], out: &mut BytesMut, found: &mut Vec<Found>) {
        let boundary = if line.len() <= LONGEST_MARK { self.boundary(line) } else { None };
        if let Some((depth, last)) = boundary {
            if self.place == Place::Head {
                self.end_head(found);
            }
            self.end_leaf(false, out, found);
            self.boundaries.truncate(if last { depth } else { depth + 1 });
            self.place = if last { Place::Between } else { Place::Head };
            self.head.clear();
            return;
        }
        if self.place == Place::Head && matches!(line, b"\n" | b"\r\n" | b"\r") {
            self.end_head(found);
        } else {
            self.content(line, out);
        }
    }

    /// Which of the open multiparts this line delimits, and whether it closes it.
    fn boundary(&self, line: &[u8]) -> Option<(usize, bool)> {
        let mark = line.strip_prefix(b"--")?.trim_ascii_end();
        let closing = mark.strip_suffix(b"--");
        let depth = self.boundaries.iter().rposition(|boundary| mark == boundary || closing == Some(boundary))?;
        let last = self.boundaries.get(depth).is_some_and(|boundary| mark != boundary);
        Some((depth, last))
    }

    /// A line, or a piece of a long one, that is no boundary.
    fn content(&mut self, piece: &[u8], out: &mut BytesMut) {
        match self.place {
            Place::Between => {}
            Place::Head => {
                let longest = usize::try_from(self.limits.head.0).unwrap_or(usize::MAX);
                let longest = if self.parts == 0 { longest } else { longest.min(LONGEST_PART_HEAD) };
                if self.head.len() + piece.len() <= longest {
                    self.head.extend_from_slice(piece);
                }
            }
            Place::Leaf => {
                // A long line may have been cut between CR and LF.
                if self.line_end == b"\r" && piece == b"\n" {
                    self.line_end = b"\r\n";
                    return;
                }
                let (text, line_end) = split_line_end(piece);
                self.decoder.push(std::mem::take(&mut self.line_end), out);
                self.decoder.push(text, out);
                self.line_end = line_end;
            }
        }
    }

    /// A header section is over: what does it begin?
    fn end_head(&mut self, found: &mut Vec<Found>) {
        let section = std::mem::take(&mut self.head);
        let headers = mailparse::parse_headers(&section).map(|(headers, _)| headers).unwrap_or_default();
        if self.parts == 0 {
            self.subject = value(&headers, "Subject").unwrap_or_default();
        }
        self.parts += 1;
        if self.parts > self.limits.parts {
            self.broken = Some("it has more parts than mail.mime_parts allows");
            return;
        }
        let kind = value(&headers, "Content-Type").map(|text| mailparse::parse_content_type(&text)).unwrap_or_default();
        let boundary = kind.params.get("boundary").filter(|text| !text.is_empty() && text.len() <= LONGEST_BOUNDARY);
        if let (true, Some(boundary)) = (kind.mimetype.starts_with("multipart/"), boundary) {
            if self.boundaries.len() >= self.limits.depth {
                self.broken = Some("its parts are nested deeper than mail.mime_depth allows");
                return;
            }
            self.boundaries.push(boundary.trim_end().as_bytes().to_vec());
            self.place = Place::Between;
            return;
        }
        let shown = value(&headers, "Content-Disposition").map(|text| mailparse::parse_content_disposition(&text));
        let shown = shown.unwrap_or_default();
        let name = parameter(&shown.params, "filename").or_else(|| parameter(&kind.params, "name"));
        let encoding = value(&headers, "Content-Transfer-Encoding").unwrap_or_default();
        self.decoder = Decoder::named(&encoding);
        self.line_end = b"";
        self.place = Place::Leaf;
        let attached = shown.disposition == mailparse::DispositionType::Attachment;
        found.push(Found::Part(Head { media: kind.mimetype, name, attached }));
    }

    fn end_leaf(&mut self, keep_line_end: bool, out: &mut BytesMut, found: &mut Vec<Found>) {
        let line_end = std::mem::take(&mut self.line_end);
        if self.place != Place::Leaf {
            return;
        }
        if keep_line_end {
            self.decoder.push(line_end, out);
        }
        self.decoder.finish(out);
        flush(out, found);
        found.push(Found::End);
        self.place = Place::Between;
    }
}

fn flush(out: &mut BytesMut, found: &mut Vec<Found>) {
    if !out.is_empty() {
        found.push(Found::Bytes(out.split().freeze()));
    }
}

fn split_line_end(piece: &[u8]) -> (&[u8], &'static [u8]) {
    match piece {
        [text @ .., b'\r', b'\n'] => (text, b"\r\n"),
        [text @ .., b'\n'] => (text, b"\n"),
        [text @ .., b'\r'] => (text, b"\r"),
        text => (text, b""),
    }
}

/// A header's value, decoded; `None` when it is missing or longer than anybody honest writes.
fn value(headers: &[mailparse::MailHeader<'_>], name: &str) -> Option<String> {
    headers
        .get_first_header(name)
        .filter(|header| is_bearable(header.get_value_raw()))
        .map(mailparse::MailHeader::get_value)
}

/// A parameter in its extended form (RFC 2231) or its plain one; where both are there, the extended one counts (RFC 6266 §4.3).
fn parameter(known: &BTreeMap<String, String>, key: &str) -> Option<String> {
    // The parser leaves it as it is when both are there, or when it does not know the charset.
    let raw = known.get(&format!("{key}*"));
    raw.and_then(|raw| extended(raw)).or_else(|| known.get(key).cloned())
}

fn extended(raw: &str) -> Option<String> {
    let read = |raw: &str| {
        let mut parsed = mailparse::parse_content_disposition(&format!("attachment; filename*={raw}"));
        parsed.params.remove("filename").filter(|name| !name.is_empty())
    };
    let (_, rest) = raw.split_once('\'')?;
    read(raw).or_else(|| read(&format!("utf-8'{rest}")))
}

fn is_bearable(raw: &[u8]) -> bool {
    let stars = memchr::memchr_iter(b'*', raw).count();
    raw.len() <= LONGEST_VALUE && stars + memchr::memmem::find_iter(raw, b"=?").count() <= MOST_MARKS
}
