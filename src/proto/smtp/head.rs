//! The header section of a message on its way in, edited while it streams: what only we may say is taken out, hops are counted.
//!
//! Nothing is parsed but field names, and no more than one field is held. What is no header section passes as it is.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

/// Bytes of a field that are looked at before it is decided what becomes of it.
const LOOKED_AT: usize = 4096;

/// The field that holds the `From ` line of an mbox which a client sends in front of the message. Postfix gives it the same name.
const MAILBOX_LINE: &[u8] = b"X-Mailbox-Line: ";

/// What becomes of a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Dropped,
}

/// Where in the message the next byte falls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before everything.
    Start,
    /// In the header section.
    Fields,
    /// Behind it.
    Body,
}

/// Fields a submission server adds when they are missing (RFC 6409 §8).
pub(super) struct Missing {
    /// `Date:` with its line end.
    pub date: String,
    /// `Message-ID:` with its line end.
    pub id: String,
}

/// An editor of one message's header section.
pub(super) struct Head {
    /// Our name: `Authentication-Results` of that name are ours to write and nobody else's (RFC 8601 §5).
    host: String,
    /// Present for a message that one of our own people submits; each goes when the field is there.
    missing: Option<(Option<String>, Option<String>)>,
    at: At,
    /// The line that is not whole yet.
    line: BytesMut,
    /// The rest of an overlong line follows.
    inside: bool,
    /// The field that is not whole yet.
    field: BytesMut,
    /// What was decided about the field under way, once it is.
    fate: Option<Fate>,
    hops: u32,
    /// So many `Received:` fields make it a message that goes round in circles (RFC 5321 §6.3).
    most_hops: u32,
}

impl Head {
    /// For a message to this host; `missing`: it is being submitted.
    pub(super) fn new(host: String, missing: Option<Missing>, most_hops: u32) -> Self {
        Self {
            host,
            missing: missing.map(|missing| (Some(missing.date), Some(missing.id))),
            at: At::Start,
            line: BytesMut::new(),
            inside: false,
            field: BytesMut::new(),
            fate: None,
            hops: 0,
            most_hops,
        }
    }

    /// It has been round too often.
    pub(super) fn is_loop(&self) -> bool {
        self.hops >= self.most_hops
    }

    /// Everything that comes now is content.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Body
    }

    /// Edits the next bytes into `out`; what is behind the header section comes back as it is.
    pub(super) fn pass(&mut self, mut chunk: Bytes, out: &mut BytesMut) -> Bytes {
        while self.at != At::Body && !chunk.is_empty() {
            let end = memchr(b'\n', &chunk).map(|at| at + 1);
            let piece = chunk.split_to(end.unwrap_or(chunk.len()));
            if self.inside {
                self.inside = end.is_none();
                self.more(&piece, out);
                continue;
            }
            self.line.extend_from_slice(&piece);
            if end.is_some() || self.line.len() >= LOOKED_AT {
                self.inside = end.is_none();
                let line = self.line.split();
                self.take(&line, out);
            }
        }
        chunk
    }

    /// The message ended: what was held.
    pub(super) fn finish(&mut self, out: &mut BytesMut) {
        if self.at == At::Body {
            return;
        }
        let line = self.line.split();
        if !line.is_empty() {
            self.take(&line, out);
        }
        if self.at != At::Body {
            self.settle(out);
            self.add(out);
        }
    }

    /// A line, or the beginning of an overlong one.
    fn take(&mut self, line: &[u8], out: &mut BytesMut) {
        let starts = self.at == At::Start;
        self.at = At::Fields;
        if matches!(line, b"\r\n" | b"\n") {
            self.settle(out);
            self.add(out);
            self.at = At::Body;
        } else if starts && is_mailbox_line(line) {
            // In the middle of a header section, behind our trace fields, it would end the section for every reader.
            out.extend_from_slice(MAILBOX_LINE);
            return self.more(line, out);
        } else if starts && name_of(line).is_none() {
            // No header section at all (`echo hi | nc`): an empty line keeps our trace fields apart from the text.
            self.add(out);
            out.extend_from_slice(b"\r\n");
            self.at = At::Body;
        } else {
            if !matches!(line.first(), Some(b' ' | b'\t')) {
                self.settle(out);
            }
            return self.more(line, out);
        }
        out.extend_from_slice(line);
    }

    /// More of the field under way.
    fn more(&mut self, bytes: &[u8], out: &mut BytesMut) {
        match self.fate {
            Some(Fate::Kept) => out.extend_from_slice(bytes),
            Some(Fate::Dropped) => {}
            None => {
                self.field.extend_from_slice(bytes);
                if self.field.len() >= LOOKED_AT {
                    self.decide(out);
                }
            }
        }
    }

    /// The field under way is over.
    fn settle(&mut self, out: &mut BytesMut) {
        if !self.field.is_empty() {
            self.decide(out);
        }
        self.fate = None;
    }

    fn decide(&mut self, out: &mut BytesMut) {
        let field = self.field.split();
        let fate = self.fate_of(&field);
        if fate == Fate::Kept {
            out.extend_from_slice(&field);
        }
        self.fate = Some(fate);
    }

    fn fate_of(&mut self, field: &[u8]) -> Fate {
        let Some(name) = name_of(field) else { return Fate::Kept };
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("received") {
            self.hops += 1;
        } else if is("return-path") {
            // RFC 5321 §4.4: the last server writes it, and only it.
            return Fate::Dropped;
        } else if is("authentication-results") {
            let value = memchr(b':', field).and_then(|at| field.get(at + 1..)).unwrap_or_default();
            return if names(value, &self.host) { Fate::Dropped } else { Fate::Kept };
        } else if let Some((date, id)) = &mut self.missing {
            match () {
                () if is("date") => *date = None,
                () if is("message-id") => *id = None,
                () if is("bcc") || is("resent-bcc") => return Fate::Dropped,
                () => {}
            }
        }
        Fate::Kept
    }

    fn add(&mut self, out: &mut BytesMut) {
        if let Some((date, id)) = self.missing.take() {
            for line in [date, id].into_iter().flatten() {
                out.extend_from_slice(line.as_bytes());
            }
        }
    }
}

/// The line that begins a message in an mbox, quoted or not.
fn is_mailbox_line(line: &[u8]) -> bool {
    let quotes = line.iter().take_while(|byte| **byte == b'>').count();
    name_of(line).is_none() && line.get(quotes..).is_some_and(|line| line.starts_with(b"From "))
}

/// The name of a header field (RFC 5322 §2.2); `None` when the line does not begin one.
fn name_of(line: &[u8]) -> Option<&[u8]> {
    let (name, _) = line.split_at_checked(memchr(b':', line)?)?;
    let name = name.trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

/// True when an `Authentication-Results` value is of this host, or hides whose it is (RFC 8601 §2.2: CFWS, then the id).
fn names(mut value: &[u8], host: &str) -> bool {
    let mut depth = 0_u32;
    while let Some((&first, rest)) = value.split_first() {
        match (first, depth) {
            (b'\\', 1..) => value = rest.get(1..).unwrap_or_default(),
            (b'(', _) => (depth, value) = (depth + 1, rest),
            (b')', 1..) => (depth, value) = (depth - 1, rest),
            (_, 1..) | (b' ' | b'\t' | b'\r' | b'\n', 0) => value = rest,
            (_, 0) => {
                let quoted = first == b'"';
                let id = if quoted { rest } else { value };
                let ends = |byte: &u8| match quoted {
                    true => *byte == b'"',
                    false => matches!(byte, b';' | b' ' | b'\t' | b'\r' | b'\n' | b'('),
                };
                let id: Vec<u8> = id.iter().take_while(|byte| !ends(byte)).filter(|b| **b != b'\\').copied().collect();
                return id.eq_ignore_ascii_case(host.as_bytes());
            }
        }
    }
    depth > 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edit(head: impl Fn() -> Head, text: &str) -> (String, bool) {
        let mut results = [1, 2, 3, 7, 100_000].map(|cut| {
            let (mut head, mut out) = (head(), BytesMut::new());
            for piece in text.as_bytes().chunks(cut) {
                let rest = head.pass(Bytes::copy_from_slice(piece), &mut out);
                out.extend_from_slice(&rest);
            }
            head.finish(&mut out);
            (String::from_utf8(out.to_vec()).unwrap(), head.is_loop())
        });
        for other in &results[1..] {
            assert_eq!(&results[0], other, "depends on the cut");
        }
        std::mem::take(&mut results[0])
    }

    fn passed(text: &str) -> String {
        edit(|| Head::new("mx.example".into(), None, 50), text).0
    }

    #[test]
    fn what_only_we_may_say_is_taken_out() {
        let ours = "Authentication-Results: mx.example; spf=pass\r\nauthentication-RESULTS :\r\n\t(c (d\\)) ) MX.example 1;\r\n dkim=pass\r\nAuthentication-Results: \"mx.example\"; x\r\n";
        let theirs = "Authentication-Results: other.example; spf=pass\r\nX-Return-Path: a\r\n";
        let body = "\r\nReturn-Path: <body>\r\nAuthentication-Results: mx.example; x\r\n";
        let text = format!("Return-Path: <evil>\r\n\tfolded\r\n{theirs}{ours}Subject: a\r\n b\r\n{body}");
        assert_eq!(passed(&text), format!("{theirs}Subject: a\r\n b\r\n{body}"));
        let hidden = format!("Authentication-Results: ({}) mx.example; x\r\nA: b\r\n\r\n", "x".repeat(5000));
        assert_eq!(passed(&hidden), "A: b\r\n\r\n");
    }

    #[test]
    fn everything_else_passes_as_it_came() {
        let long = format!("X: {}\r\nTo: {}\r\n\r\nbody", "y".repeat(20_000), "a@b,\r\n ".repeat(2000));
        for text in ["", "\r\n", "\r\nno header", "A: b", "A: b\nC: d\n\nx", "A: b\r\n??\r\n\r\n", &long] {
            assert_eq!(passed(text), text);
        }
    }

    #[test]
    fn text_without_a_header_is_kept_apart_from_our_trace() {
        assert_eq!(passed("hello\r\nA: b\r\n"), "\r\nhello\r\nA: b\r\n");
        assert_eq!(passed(" x"), "\r\n x");
        assert_eq!(passed("http://a b: c\r\n"), "http://a b: c\r\n");
    }

    #[test]
    fn the_line_of_an_mbox_becomes_a_field() {
        for line in ["From me Tue", "From a@b Tue May 10 11:28:07 2005", ">From me", ">>From me Tue 11:28"] {
            let rest = "\r\nReturn-Path: <x>\r\nA: b\r\n\r\nFrom here\r\n";
            let kept = "\r\nA: b\r\n\r\nFrom here\r\n";
            assert_eq!(passed(&format!("{line}{rest}")), format!("X-Mailbox-Line: {line}{kept}"));
        }
        let field = "From : me@here\r\n\r\nx";
        assert_eq!(passed(field), field);
        assert_eq!(passed("A: b\r\nFrom me Tue\r\n\r\n"), "A: b\r\nFrom me Tue\r\n\r\n");
    }

    #[test]
    fn a_submission_is_completed_and_keeps_its_secrets() {
        let own = || {
            let missing = Missing { date: "Date: now\r\n".into(), id: "Message-ID: <1@us>\r\n".into() };
            Head::new("us".into(), Some(missing), 50)
        };
        let done = |text: &str| edit(own, text).0;
        assert_eq!(done("A: b\r\nBcc: x,\r\n y\r\n\r\nt"), "A: b\r\nDate: now\r\nMessage-ID: <1@us>\r\n\r\nt");
        assert_eq!(done("date: d\r\n\r\n"), "date: d\r\nMessage-ID: <1@us>\r\n\r\n");
        assert_eq!(done("Message-Id: m\r\nDate: d\r\n\r\nx"), "Message-Id: m\r\nDate: d\r\n\r\nx");
        assert_eq!(done("text"), "Date: now\r\nMessage-ID: <1@us>\r\n\r\ntext");
        assert_eq!(done("A: b\r\n"), "A: b\r\nDate: now\r\nMessage-ID: <1@us>\r\n");
    }

    #[test]
    fn hops_are_counted_in_the_header_only() {
        let hop = "Received: a\r\n\tfolded Received: x\r\nX-Received: no\r\n";
        let text = |hops: usize| format!("{}\r\n{}", hop.repeat(hops), "Received: in the body\r\n".repeat(99));
        assert!(!edit(|| Head::new("us".into(), None, 50), &text(49)).1);
        assert!(edit(|| Head::new("us".into(), None, 50), &text(50)).1);
        assert!(edit(|| Head::new("us".into(), None, 9), &text(9)).1);
    }

    proptest! {
        #[test]
        fn any_bytes_pass_the_same_at_every_cut(text in "(Received|Return-Path|[ :a\r\n\t(;]){0,40}") {
            passed(&text);
        }
    }
}
