//! What a message carries about its way here: `Return-Path:` and `Received:` in front.
//!
//! Whatever a peer chose (its name, its addresses) is made harmless first: no line end and no control character passes.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::origin::Origin;

/// How a peer speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Speech {
    /// EHLO.
    #[default]
    Extended,
    /// LHLO, RFC 2033.
    Local,
    /// HELO.
    Plain,
}

/// What is written in front of a message.
pub(super) struct Trace<'a> {
    /// Where it comes from.
    pub origin: &'a Origin,
    /// What the peer called itself.
    pub hello: &'a str,
    /// Its name in the DNS, when somebody we trust said so.
    pub name: Option<&'a str>,
    /// HELO, EHLO or LHLO.
    pub speech: Speech,
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
    /// The header lines, RFC 5321 §4.4; the first one is Return-Path.
    pub(super) fn lines(&self) -> String {
        let mut text = String::with_capacity(320);
        let _ = write!(text, "Return-Path: <{}>\r\n", harmless(self.sender));
        let name = match domain_only(self.hello) {
            name if name.is_empty() => "unknown".into(),
            name => name,
        };
        let known = self.name.map(|name| format!("{} ", domain_only(name))).unwrap_or_default();
        let _ = write!(text, "Received: from {name} ({known}{})\r\n", literal(self.origin.peer.ip()));
        let _ = write!(text, "\tby {} with {} id {}", domain_only(self.host), self.protocol(), self.id);
        if let Some(recipient) = self.only_recipient {
            let _ = write!(text, "\r\n\tfor <{}>", harmless(recipient));
        }
        let _ = write!(text, ";\r\n\t{}\r\n", date());
        text
    }

    /// RFC 3848, RFC 6531 §4.3.
    fn protocol(&self) -> String {
        let base = match (self.speech, self.utf8) {
            (Speech::Plain, _) => return "SMTP".into(),
            (Speech::Extended, false) => "ESMTP",
            (Speech::Extended, true) => "UTF8SMTP",
            (Speech::Local, false) => "LMTP",
            (Speech::Local, true) => "UTF8LMTP",
        };
        let (secure, signed_in) = (if self.origin.secure { "S" } else { "" }, if self.signed_in { "A" } else { "" });
        format!("{base}{secure}{signed_in}")
    }
}

/// For whom a message was, as a header line.
pub(super) fn envelope_to(address: &str) -> String {
    format!("X-Envelope-To: <{}>\r\n", harmless(address))
}

/// Now, RFC 5322 §3.3.
pub(super) fn date() -> String {
    let now = jiff::Zoned::now();
    jiff::fmt::rfc2822::to_string(&now).unwrap_or_else(|_| "Thu, 01 Jan 1970 00:00:00 +0000".into())
}

fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

fn domain_only(name: &str) -> Cow<'_, str> {
    const LONGEST: usize = 255;
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_' | ':' | '[' | ']');
    match name.len() <= LONGEST && name.chars().all(fits) {
        true => name.into(),
        false => name.chars().filter(|letter| fits(*letter)).take(LONGEST).collect(),
    }
}

fn harmless(address: &str) -> Cow<'_, str> {
    let fits = |letter: char| !letter.is_control() && !matches!(letter, '<' | '>');
    match address.chars().all(fits) {
        true => address.into(),
        false => address.chars().filter(|letter| fits(*letter)).collect(),
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
            name: None,
            speech: Speech::Extended,
            utf8: false,
            signed_in: true,
            host: "mx.example",
            id: "id1",
            sender,
            only_recipient,
        };
        String::from_utf8(trace.lines().into_bytes()).unwrap()
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
}
