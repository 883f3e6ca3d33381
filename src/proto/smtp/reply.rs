//! SMTP replies: the one place where the house's words become codes (RFC 5321 §4.2, RFC 3463).

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use crate::error::{Error, Kind};
use crate::proto::dialogue::{Encode, put_line};

/// A reply: code, enhanced status where one belongs, one or more lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    status: &'static str,
    lines: Vec<Cow<'static, str>>,
    /// Replies to the same command for the recipients after the first (LMTP).
    further: Vec<Self>,
}

/// What was being asked when the hub said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// AUTH.
    Auth,
    /// DATA and the message itself.
    Data,
    /// RCPT.
    Recipient,
}

impl Reply {
    /// With an enhanced status code (RFC 2034); its first digit is the code's.
    pub fn new(code: u16, status: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        debug_assert!(status.is_empty() || status.starts_with(&(code / 100).to_string()));
        Self { code, status, lines: vec![text.into()], further: Vec::new() }
    }

    /// Without one: greeting, EHLO, 334 and 354 have none.
    pub fn plain(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code, "", text)
    }

    /// Several lines without enhanced status.
    pub fn lines(code: u16, lines: Vec<Cow<'static, str>>) -> Self {
        Self { code, status: "", lines, further: Vec::new() }
    }

    /// One reply for each recipient, in their order (RFC 2033 §4.2).
    pub fn each(replies: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut replies = replies.into_iter();
        let first = replies.next()?;
        Some(Self { further: replies.collect(), ..first })
    }

    /// Its code, for the access line.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// What the hub's refusal is in this language. No catch-all arm: a new kind must be given its code here.
    #[must_use]
    pub fn refusal(phase: Phase, error: &Error) -> Self {
        let (code, status) = match (phase, error.kind()) {
            (Phase::Auth, Kind::Denied | Kind::Invalid | Kind::NotFound | Kind::Unauthenticated) => (535, "5.7.8"),
            (Phase::Auth, Kind::Throttled) => (454, "4.7.0"),
            (Phase::Recipient, Kind::NotFound) => (550, "5.1.1"),
            (Phase::Recipient, Kind::Invalid) => (553, "5.1.3"),
            // The declared size is larger than all the room there will ever be.
            (Phase::Recipient, Kind::TooLarge) => (552, "5.2.2"),
            (
                Phase::Data,
                Kind::Denied
                | Kind::Exists
                | Kind::Invalid
                | Kind::NotEmpty
                | Kind::NotFound
                | Kind::TooLarge
                | Kind::WrongType,
            ) if error.is_of_the_disk() => (451, "4.3.0"),
            (Phase::Data, Kind::NotFound) => (554, "5.2.1"),
            (Phase::Data, Kind::Invalid) => (554, "5.6.0"),
            (Phase::Data, Kind::TooLarge) => (552, "5.3.4"),
            (Phase::Data | Phase::Recipient, Kind::Denied | Kind::Unauthenticated) => (550, "5.7.1"),
            (Phase::Data | Phase::Recipient, Kind::Throttled) => (450, "4.7.0"),
            (_, Kind::OverQuota) => (452, "4.2.2"),
            (_, Kind::Full) => (452, "4.3.1"),
            (_, Kind::Exists | Kind::NotEmpty | Kind::WrongType) => (554, "5.2.0"),
            (
                _,
                Kind::Cancelled
                | Kind::Conflict
                | Kind::Corrupt
                | Kind::Internal
                | Kind::Locked
                | Kind::TooLarge
                | Kind::Unavailable,
            ) => (451, "4.3.0"),
        };
        Self::new(code, status, error.public().to_owned())
    }
}

impl Encode for Reply {
    fn encode(&self, into: &mut BytesMut) {
        let code = self.code.to_string();
        let last = self.lines.len().saturating_sub(1);
        for (number, line) in self.lines.iter().enumerate() {
            into.put_slice(code.as_bytes());
            into.put_u8(if number == last { b' ' } else { b'-' });
            if !self.status.is_empty() {
                into.put_slice(self.status.as_bytes());
                into.put_u8(b' ');
            }
            put_line(into, line);
        }
        for reply in &self.further {
            reply.encode(into);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(reply: &Reply) -> String {
        let mut bytes = BytesMut::new();
        reply.encode(&mut bytes);
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn no_line_end_escapes_from_a_text() {
        assert_eq!(sent(&Reply::new(550, "5.1.1", "no\r\n250 ok ä")), "550 5.1.1 no??250 ok ?\r\n");
        assert_eq!(sent(&Reply::lines(250, vec!["a".into(), "b".into()])), "250-a\r\n250 b\r\n");
        assert_eq!(sent(&Reply::plain(334, "")), "334 \r\n");
        let each = Reply::each([Reply::new(250, "2.0.0", "a"), Reply::new(452, "4.2.2", "b")]).unwrap();
        assert_eq!(sent(&each), "250 2.0.0 a\r\n452 4.2.2 b\r\n");
    }

    #[test]
    fn every_kind_has_a_code_whose_class_is_its_status() {
        use Kind as K;
        let kinds = [
            K::Cancelled,
            K::Conflict,
            K::Corrupt,
            K::Denied,
            K::Exists,
            K::Full,
            K::Internal,
            K::Invalid,
            K::Locked,
            K::NotEmpty,
            K::NotFound,
            K::OverQuota,
            K::Throttled,
            K::TooLarge,
            K::Unauthenticated,
            K::Unavailable,
            K::WrongType,
        ];
        for kind in kinds {
            for phase in [Phase::Auth, Phase::Data, Phase::Recipient] {
                let error = Error::new(kind, "x");
                let reply = Reply::refusal(phase, &error);
                assert_eq!(reply.code() / 100 == 4, reply.status.starts_with('4'), "{kind:?}");
                assert!(!error.is_transient() || reply.code() / 100 == 4, "{kind:?} may pass later");
            }
        }
    }
}
