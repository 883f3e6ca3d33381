//! The parts of a message, found while its bytes go by: memory stays bounded however large the message is.
//!
//! Lenient in content (bare LF, missing ends, damaged heads, raw 8-bit names), strict in bounds: depth, parts and header sizes have limits
//! ([`MimeLimits`]), and a message past them is [`Walker::broken`], not refused. Where a part may have been missed or misread,
//! [`Walker::doubt`] says so, and the whole message is filed as well.

use bytes::{Bytes, BytesMut};

use super::decode::Decoder;
use super::fields::{Fields, Line};
use super::parameters::Parameters;
use super::settings::MimeLimits;

/// Header bytes looked at in a part, at most.
const LONGEST_PART_HEAD: usize = 64 << 10;
/// Longest boundary; RFC 2046 §5.1.1 allows 70.
const LONGEST_BOUNDARY: usize = 250;
/// A line longer than this is no boundary: it is passed on without waiting for its end.
const LONGEST_MARK: usize = 512;
/// Boundaries of multiparts that are over, remembered at most.
const MOST_CLOSED: usize = 100;
/// Multiparts, the innermost first, whose boundaries are looked for where they do not belong.
const SUSPECTED: usize = 4;

/// Fields by which a part is known where its boundary is not.
const HEADS: [&[u8]; 3] = [b"content-type:", b"content-disposition:", b"content-transfer-encoding:"];

/// Parts that hold a piece of a message, or say where their content is: only with the message's own head can they be put together.
const ELSEWHERE_TYPES: [&str; 2] = ["message/external-body", "message/partial"];

const DAMAGED_HEAD: &str = "the head of one of its parts is damaged";
const DAMAGED_BODY: &str = "one of its parts is not in the encoding that it says";
const ELSEWHERE: &str = "the content of one of its parts is not in it, or not all of it";
const CONTRADICTION: &str = "one of its parts says two different things of itself";
const LONG_HEAD: &str = "the head of one of its parts is longer than what is looked at";
const NO_BLANK_LINE: &str = "no empty line ends the head of one of its parts";
const NO_BOUNDARY: &str = "one of its multiparts has no boundary";
const NO_PARTS: &str = "one of its multiparts has no parts";
const STRAY: &str = "there may be a part where none belongs";

/// What a part says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// `application/pdf`, lower case.
    pub media: String,
    /// As the sender wrote it, decoded (RFC 2231, RFC 2047, raw 8-bit), not yet safe.
    pub name: Option<String>,
    /// `Content-Disposition: attachment`.
    pub attached: bool,
    /// `Content-ID`, by which a text may show it.
    pub id: Option<String>,
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
    levels: Vec<Level>,
    /// Boundaries of multiparts that are over.
    closed: Vec<Vec<u8>>,
    place: Place,
    /// Start of the current line, while it may still be a boundary.
    held: Vec<u8>,
    /// The rest of the current line is content, whatever it says.
    midline: bool,
    /// Header lines have no place in this leaf.
    plain: bool,
    /// The line end before this line: part of the content unless this line is a boundary.
    line_end: &'static [u8],
    head: Vec<u8>,
    parts: usize,
    decoder: Decoder,
    subject: String,
    broken: Option<&'static str>,
    doubt: Option<&'static str>,
}

/// A multipart that is open.
struct Level {
    boundary: Vec<u8>,
    /// `multipart/digest`: its parts are messages unless they say something else.
    digest: bool,
    /// A part of it was found.
    parts: bool,
    /// There was something before its first part.
    text: bool,
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
            levels: Vec::new(),
            closed: Vec::new(),
            place: Place::Head,
            held: Vec::new(),
            midline: false,
            plain: false,
            line_end: b"",
            head: Vec::new(),
            parts: 0,
            decoder: Decoder::Plain,
            subject: String::new(),
            broken: None,
            doubt: None,
        }
    }

    /// Why its parts cannot be told, when they cannot.
    pub(super) fn broken(&self) -> Option<&'static str> {
        self.broken
    }

    /// Why a part may have been missed or misread, when one may.
    pub(super) fn doubt(&self) -> Option<&'static str> {
        self.doubt
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
                    self.inside(&start, &mut out, found);
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
        self.cut_head(found);
        self.end_leaf(self.levels.is_empty(), &mut out, found);
        self.leave(0);
    }

    /// A whole line.
    fn line(&mut self, line: &[u8], out: &mut BytesMut, found: &mut Vec<Found>) {
        let Some((depth, last)) = self.boundary(line) else { return self.inside(line, out, found) };
        self.cut_head(found);
        self.end_leaf(false, out, found);
        // A head that was cut may have begun multiparts inside.
        self.leave(depth + 1);
        if let Some(level) = self.levels.last_mut() {
            level.parts |= !last;
        }
        if last {
            self.leave(depth);
        }
        self.place = if last { Place::Between } else { Place::Head };
        self.head.clear();
    }

    /// Which of the open multiparts this line delimits, and whether it closes it.
    fn boundary(&self, line: &[u8]) -> Option<(usize, bool)> {
        let short = Some(line).filter(|line| line.len() <= LONGEST_MARK)?;
        let mark = short.strip_prefix(b"--")?.trim_ascii_end();
        let closing = mark.strip_suffix(b"--");
        let mut levels = self.levels.iter();
        let depth = levels.rposition(|level| mark == level.boundary || closing == Some(&level.boundary))?;
        let last = self.levels.get(depth).is_some_and(|level| mark != level.boundary);
        Some((depth, last))
    }

    /// Multiparts deeper than this are over.
    fn leave(&mut self, depth: usize) {
        for level in self.levels.drain(depth.min(self.levels.len())..) {
            if level.text && !level.parts {
                self.doubt.get_or_insert(NO_PARTS);
            }
            if self.closed.len() < MOST_CLOSED {
                self.closed.push(level.boundary);
            }
        }
    }

    /// A line that is no boundary, or the beginning of a long one.
    fn inside(&mut self, line: &[u8], out: &mut BytesMut, found: &mut Vec<Found>) {
        if self.place != Place::Head {
            self.suspect(line);
            return self.content(line, out);
        }
        let at_start = self.parts == 0 && self.head.is_empty();
        // Of a long line only the beginning is known, however it arrives.
        match Line::of(line.get(..LONGEST_MARK).unwrap_or(line)) {
            Line::Empty => self.end_head(found),
            Line::Field { .. } | Line::Folded => self.content(line, out),
            Line::Envelope if at_start => self.content(line, out),
            Line::Envelope | Line::Other => {
                if !at_start {
                    self.doubt.get_or_insert(NO_BLANK_LINE);
                }
                // This is content, or a boundary of the multipart that just began.
                self.end_head(found);
                self.line(line, out, found);
            }
        }
    }

    /// A head that ends without an empty line.
    fn cut_head(&mut self, found: &mut Vec<Found>) {
        if self.place == Place::Head {
            if self.parts > 0 && !self.head.is_empty() {
                self.doubt.get_or_insert(NO_BLANK_LINE);
            }
            self.end_head(found);
        }
    }

    /// A line outside of heads that looks as if a part began there.
    fn suspect(&mut self, line: &[u8]) {
        let text = line.get(..LONGEST_MARK).unwrap_or(line).trim_ascii();
        let plain = text.trim_ascii_start().strip_prefix(b">").unwrap_or(text).trim_ascii_start();
        let stray = match self.place {
            Place::Between => (plain.starts_with(b"--") && plain.len() > 2) || begins(plain, b"content-"),
            _ => self.plain && HEADS.iter().any(|name| begins(plain, name)),
        };
        let open = self.levels.iter().rev().take(SUSPECTED).map(|level| &level.boundary);
        let mut known = open.chain(self.closed.iter().rev().take(SUSPECTED));
        if stray || (memchr::memmem::find(text, b"--").is_some() && known.any(|boundary| is_like(plain, boundary))) {
            self.doubt.get_or_insert(STRAY);
        }
        if self.place == Place::Between
            && !text.is_empty()
            && let Some(level) = self.levels.last_mut()
        {
            level.text = true;
        }
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
                } else {
                    self.doubt.get_or_insert(LONG_HEAD);
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
        let fields = Fields::parse(&std::mem::take(&mut self.head));
        if self.parts == 0 {
            self.subject = fields.text("subject").unwrap_or_default();
        }
        self.parts += 1;
        if self.parts > self.limits.parts {
            self.broken = Some("it has more parts than mail.mime_parts allows");
            return;
        }
        self.judge(&fields);
        let kind = Parameters::parse(fields.get("content-type").unwrap_or_default());
        let media = self.media(&kind.value);
        if media.starts_with("multipart/") && self.begin_level(&kind, &media) {
            return;
        }
        if ELSEWHERE_TYPES.contains(&media.as_str()) {
            self.doubt.get_or_insert(ELSEWHERE);
        }
        let shown = Parameters::parse(fields.get("content-disposition").unwrap_or_default());
        let names = [shown.get("filename"), kind.get("name"), kind.get("filename"), shown.get("name")];
        self.decoder = Decoder::named(&fields.text("content-transfer-encoding").unwrap_or_default());
        self.line_end = b"";
        self.place = Place::Leaf;
        self.plain = !media.starts_with("message/");
        let (name, id) = (names.into_iter().flatten().next(), fields.text("content-id"));
        found.push(Found::Part(Head { media, name, attached: shown.value == "attachment", id }));
    }

    fn judge(&mut self, fields: &Fields) {
        if fields.damaged {
            self.doubt.get_or_insert(DAMAGED_HEAD);
        }
        // It says how it is encoded, and not what it is: it may be more than a text.
        let encoding = Decoder::named(&fields.text("content-transfer-encoding").unwrap_or_default());
        if self.parts > 1 && fields.get("content-type").is_none() && encoding != Decoder::Plain {
            self.doubt.get_or_insert(DAMAGED_HEAD);
        }
        let saying = ["content-type", "content-disposition", "content-transfer-encoding"];
        if saying.iter().any(|name| fields.is_contradicted(name)) {
            self.doubt.get_or_insert(CONTRADICTION);
        }
    }

    /// The media type of a part, or what it is where it does not say so (RFC 2045 §5.2, RFC 2046 §5.1.5).
    fn media(&self, said: &str) -> String {
        let digest = self.levels.last().is_some_and(|level| level.digest);
        match said {
            "" if digest => "message/rfc822".into(),
            "" | "text" => "text/plain".into(),
            said if said.contains('/') => said.into(),
            _ => "application/octet-stream".into(),
        }
    }

    /// False when it has no boundary that can be used.
    fn begin_level(&mut self, kind: &Parameters, media: &str) -> bool {
        let boundary = kind.exact("boundary").unwrap_or_default();
        let boundary = boundary.trim_ascii_end();
        if boundary.is_empty() || boundary.len() > LONGEST_BOUNDARY {
            self.doubt.get_or_insert(NO_BOUNDARY);
            return false;
        }
        if self.levels.len() >= self.limits.depth {
            self.broken = Some("its parts are nested deeper than mail.mime_depth allows");
            return true;
        }
        let (boundary, digest) = (boundary.to_vec(), media == "multipart/digest");
        self.levels.push(Level { boundary, digest, parts: false, text: false });
        self.place = Place::Between;
        true
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
        if self.decoder.is_damaged() {
            self.doubt.get_or_insert(DAMAGED_BODY);
        }
        flush(out, found);
        found.push(Found::End);
        self.place = Place::Between;
    }
}

fn begins(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// Is this the boundary, but for case, blanks before it, words behind it, or a missing line end before it?
fn is_like(text: &[u8], boundary: &[u8]) -> bool {
    let mark = [b"--", boundary].concat();
    let behind = || text.get(mark.len()..).unwrap_or_default();
    let begun = begins(text, &mark) && matches!(behind(), [] | [b'-', b'-', ..] | [b' ' | b'\t', ..]);
    let ended = text.strip_suffix(b"--").unwrap_or(text);
    begun || text.ends_with(&mark) || ended.ends_with(&mark)
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
