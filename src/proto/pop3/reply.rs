//! POP3 replies: the one place where the house's words become `-ERR` and its codes (RFC 1939, RFC 2449 §8, RFC 3206).

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use crate::error::{Error, Kind};
use crate::proto::dialogue::{Encode, put_line};

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+ challenge`, RFC 5034.
    Challenge(&'static str),
    /// `-ERR [code] text`; an empty code is none.
    Err {
        /// Response code, RFC 2449 §8.
        code: &'static str,
        /// For people.
        text: Cow<'static, str>,
    },
    /// `+OK text` and lines that end with one dot. They are ours: none begins with a dot.
    Lines {
        /// For people.
        text: Cow<'static, str>,
        /// Without their ends.
        lines: Vec<Cow<'static, str>>,
    },
    /// `+OK text`.
    Ok(Cow<'static, str>),
}

impl Reply {
    /// It went well.
    pub fn ok(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Ok(text.into())
    }

    /// It did not, and no code says more.
    pub fn err(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Err { code: "", text: text.into() }
    }

    /// It did not, and the operator must do something first.
    pub fn permanent(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Err { code: "SYS/PERM", text: text.into() }
    }

    /// What the hub's refusal is in this language. No catch-all arm: a new kind must be given its code here.
    ///
    /// `AUTH` makes a client ask for the password again, `SYS/TEMP` makes it come back later without asking (RFC 3206).
    #[must_use]
    pub fn refusal(error: &Error) -> Self {
        let code = match error.kind() {
            Kind::Unauthenticated => "AUTH",
            Kind::Locked => "IN-USE",
            Kind::Cancelled | Kind::Conflict | Kind::Full | Kind::OverQuota | Kind::Throttled | Kind::Unavailable => {
                "SYS/TEMP"
            }
            Kind::Corrupt | Kind::Denied | Kind::Internal => "SYS/PERM",
            Kind::Exists | Kind::Invalid | Kind::NotEmpty | Kind::NotFound | Kind::TooLarge | Kind::WrongType => "",
        };
        Self::Err { code, text: error.public().to_owned().into() }
    }

    /// The same with what it means in front.
    #[must_use]
    pub fn about(self, what: &str) -> Self {
        match self {
            Self::Err { code, text } => Self::Err { code, text: format!("{what}: {text}").into() },
            other => other,
        }
    }

    /// `+OK`, `-ERR` or `-ERR code`, for the access line.
    #[must_use]
    pub fn word(&self) -> String {
        match self {
            Self::Challenge(_) | Self::Lines { .. } | Self::Ok(_) => "+OK".into(),
            Self::Err { code: "", .. } => "-ERR".into(),
            Self::Err { code, .. } => format!("-ERR {code}"),
        }
    }
}

impl Encode for Reply {
    fn encode(&self, into: &mut BytesMut) {
        match self {
            Self::Challenge(text) => {
                into.put_slice(b"+ ");
                into.put_slice(text.as_bytes());
                into.put_slice(b"\r\n");
            }
            Self::Err { code: "", text } => line(into, "-ERR ", text),
            Self::Err { code, text } => line(into, &format!("-ERR [{code}] "), text),
            Self::Lines { text, lines } => {
                line(into, "+OK ", text);
                for one in lines {
                    line(into, "", one);
                }
                line(into, "", ".");
            }
            Self::Ok(text) => line(into, "+OK ", text),
        }
    }
}

fn line(into: &mut BytesMut, status: &str, text: &str) {
    into.put_slice(status.as_bytes());
    put_line(into, text);
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
    fn replies_are_one_line_unless_they_are_lists() {
        assert_eq!(sent(&Reply::ok("a\r\n+OK ü")), "+OK a??+OK ?\r\n");
        assert_eq!(sent(&Reply::err("no")), "-ERR no\r\n");
        assert_eq!(sent(&Reply::Challenge("")), "+ \r\n");
        assert_eq!(sent(&Reply::Lines { text: "b".into(), lines: vec!["TOP".into()] }), "+OK b\r\nTOP\r\n.\r\n");
        assert!(sent(&Reply::ok("x".repeat(1000))).len() <= 512);
    }

    #[test]
    fn clients_can_tell_a_wrong_password_from_a_bad_day() {
        let refusal = |kind| sent(&Reply::refusal(&Error::new(kind, "x")));
        assert_eq!(refusal(Kind::Unauthenticated), "-ERR [AUTH] x\r\n");
        assert_eq!(refusal(Kind::Locked), "-ERR [IN-USE] x\r\n");
        assert_eq!(refusal(Kind::Throttled), "-ERR [SYS/TEMP] x\r\n");
        assert_eq!(refusal(Kind::Internal), "-ERR [SYS/PERM] x\r\n");
        assert_eq!(refusal(Kind::NotFound), "-ERR x\r\n");
    }
}
