//! What a message carries about its way here: `Return-Path:` and `Received:` in front, and the count of those it came with.
//!
//! Whatever a peer chose (its name, its addresses) is made harmless first: no line end and no control character passes.

use std::fmt::Write as _;
use std::net::IpAddr;

use bytes::Bytes;

use crate::origin::Origin;

/// `Received:` lines a message may come with; more are a loop (RFC 5321 §6.3).
const MOST_HOPS: u32 = 50;
/// The header that counts, in lower case.
const HOP: &[u8] = b"received:";

/// What is written in front of a message.
pub(super) struct Trace<'a> {
    /// Where it comes from.
    pub origin: &'a Origin,
    /// What the peer called itself.
    pub hello: &'a str,
    /// EHLO, not HELO.
    pub extended: bool,
    /// SMTPUTF8 was asked for.
    pub utf8: bool,
    /// Signed in.
    pub signed_in: bool,
    /// Our name.
    pub host: &'a str,
    /// The message's id.
    pub id: &'a str,
    /// Reverse path, empty for `<>`.
    pub sender: &'a str,
    /// The recipient, when there is exactly one: a second one is nobody's business.
    pub only_recipient: Option<&'a str>,
}

impl Trace<'_> {
    /// The header lines, RFC 5321 §4.4.
    pub(super) fn lines(&self) -> Bytes {
        let mut text = String::with_capacity(320);
        let _ = write!(text, "Return-Path: <{}>\r\n", harmless(self.sender));
        let name = match domain_only(self.hello) {
            name if name.is_empty() => "unknown".to_owned(),
            name => name,
        };
        let _ = write!(text, "Received: from {name} ({})\r\n", literal(self.origin.peer.ip()));
        let _ = write!(text, "\tby {} with {} id {}", domain_only(self.host), self.protocol(), self.id);
        if let Some(recipient) = self.only_recipient {
            let _ = write!(text, "\r\n\tfor <{}>", harmless(recipient));
        }
        let now = jiff::Zoned::now();
        let date = jiff::fmt::rfc2822::to_string(&now).unwrap_or_else(|_| "Thu, 01 Jan 1970 00:00:00 +0000".into());
        let _ = write!(text, ";\r\n\t{date}\r\n");
        text.into()
    }

    /// RFC 3848, RFC 6531 §4.3.
    fn protocol(&self) -> String {
        let base = match (self.extended, self.utf8) {
            (false, _) => return "SMTP".into(),
            (true, false) => "ESMTP",
            (true, true) => "UTF8SMTP",
        };
        let (secure, signed_in) = (if self.origin.secure { "S" } else { "" }, if self.signed_in { "A" } else { "" });
        format!("{base}{secure}{signed_in}")
    }
}

fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

fn domain_only(name: &str) -> String {
    name.chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_' | ':' | '[' | ']'))
        .take(255)
        .collect()
}

fn harmless(address: &str) -> String {
    address.chars().filter(|letter| !letter.is_control() && !matches!(letter, '<' | '>')).collect()
}

/// Counts `Received:` lines in a header section that comes in pieces.
#[derive(Default)]
pub(super) struct Hops {
    seen: u32,
    /// Bytes of the current line that match [`HOP`]; `None`: it is another line.
    matched: Option<usize>,
    /// Bytes of the current line, CR aside.
    column: usize,
    started: bool,
    over: bool,
}

impl Hops {
    /// Looks at the next bytes; false when they are one hop too many.
    pub(super) fn pass(&mut self, chunk: &[u8]) -> bool {
        for byte in chunk {
            if self.over {
                break;
            }
            if !std::mem::replace(&mut self.started, true) {
                self.matched = Some(0);
            }
            match *byte {
                // An empty line ends the header section.
                b'\n' if self.column == 0 => self.over = true,
                b'\n' => (self.matched, self.column) = (Some(0), 0),
                b'\r' => {}
                byte => {
                    self.column += 1;
                    self.follow(byte);
                }
            }
        }
        self.seen <= MOST_HOPS
    }

    fn follow(&mut self, byte: u8) {
        let Some(matched) = self.matched else { return };
        self.matched = match HOP.get(matched) {
            Some(wanted) if *wanted == byte.to_ascii_lowercase() => Some(matched + 1),
            _ => None,
        };
        if self.matched == Some(HOP.len()) {
            self.seen += 1;
            self.matched = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(hello: &str, sender: &str, only_recipient: Option<&str>) -> String {
        let mut origin = Origin::inside("smtp");
        origin.peer = "[2001:db8::1]:25".parse().unwrap();
        let trace = Trace {
            origin: &origin,
            hello,
            extended: true,
            utf8: false,
            signed_in: true,
            host: "mx.example",
            id: "id1",
            sender,
            only_recipient,
        };
        String::from_utf8(trace.lines().to_vec()).unwrap()
    }

    #[test]
    fn a_trace_names_the_way_and_nothing_a_peer_smuggled() {
        let text = trace("evil\r\nBcc: x (y)", "a@b\r\nX: y", Some("c@d"));
        assert!(text.starts_with("Return-Path: <a@bX: y>\r\nReceived: from evilBcc:xy ([IPv6:2001:db8::1])\r\n\tby mx.example with ESMTPSA id id1\r\n\tfor <c@d>;\r\n\t"), "{text}");
        assert_eq!(text.matches("\r\n").count(), 5);
        assert!(text.ends_with("\r\n"));
        assert!(trace("", "", None).contains("Return-Path: <>\r\nReceived: from unknown ("));
        assert!(!trace("x", "", None).contains("for <"));
    }

    #[test]
    fn hops_are_counted_in_the_header_only_however_it_is_cut() {
        let header = "Received: a\r\nrEceived:b\r\n\tfolded Received: x\r\nX-Received: no\r\n".repeat(25);
        let body = "\r\nReceived: in the body\r\n".repeat(9);
        for cut in [1, 2, 3, 7, 1000] {
            let mut hops = Hops::default();
            assert!(format!("{header}{body}").as_bytes().chunks(cut).all(|chunk| hops.pass(chunk)));
            assert_eq!(hops.seen, 50, "cut at {cut}");
            let mut hops = Hops::default();
            let looped = format!("{header}Received: once more\n{body}");
            assert!(!looped.as_bytes().chunks(cut).all(|chunk| hops.pass(chunk)), "cut at {cut}");
        }
    }
}
