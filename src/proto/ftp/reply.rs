//! FTP replies: the codes of RFC 959 and its successors, and the one place where the house's errors become codes.

use std::borrow::Cow;
use std::error::Error as _;

use bytes::{BufMut, BytesMut};

use super::page::Page;
use crate::error::{Error, Kind};
use crate::net::side::NotResumed;
use crate::proto::dialogue::{Encode, NoLane};

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    text: Cow<'static, str>,
    /// More lines follow, which are not here.
    begins: bool,
    /// Lines between the first and the last.
    body: Option<Body>,
    /// Written in this code page; `None`: in UTF-8.
    page: Option<Page>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Body {
    lines: Vec<String>,
    end: &'static str,
}

impl Reply {
    /// A line.
    #[must_use]
    pub fn new(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, text: text.into(), begins: false, body: None, page: None }
    }

    /// Several lines: `211-first`, the body with a blank before each line (so that none can look like the end), `211 end`.
    #[must_use]
    pub fn many(code: u16, first: impl Into<Cow<'static, str>>, lines: Vec<String>, end: &'static str) -> Self {
        Self { code, text: first.into(), begins: false, body: Some(Body { lines, end }), page: None }
    }

    /// The first line of a reply whose others follow as they are made: `213-text`.
    #[must_use]
    pub fn first(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { begins: true, ..Self::new(code, text) }
    }

    /// A name could hold anything: nothing in it may end a line.
    fn put_clean(&self, text: &str, into: &mut BytesMut) {
        let clean = |byte: u8| if byte < b' ' || byte == 127 { b'?' } else { byte };
        match self.page {
            Some(page) => into.extend(page.write(text).iter().copied().map(clean)),
            None => into.extend(text.bytes().map(clean)),
        }
    }

    /// The same in a code page.
    #[must_use]
    pub fn in_page(self, page: Page) -> Self {
        Self { page: Some(page), ..self }
    }

    /// Its code and its first line's text.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {}", self.code, self.text)
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }
}

impl From<&Error> for Reply {
    fn from(error: &Error) -> Self {
        Self::new(code_of(error), error.public().to_owned())
    }
}

fn code_of(error: &Error) -> u16 {
    if let Some(NoLane(error)) = error.source().and_then(|source| source.downcast_ref::<NoLane>()) {
        // RFC 4217 §15: 522 when the security of the data connection is not what the server's policy asks for.
        return if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<NotResumed>) {
            522
        } else {
            425
        };
    }
    match error.kind() {
        Kind::Cancelled => 426,
        Kind::Conflict | Kind::Locked | Kind::Throttled => 450,
        Kind::Corrupt | Kind::Internal | Kind::Unavailable => 451,
        Kind::Full => 452,
        Kind::Denied | Kind::Exists | Kind::NotEmpty | Kind::NotFound | Kind::WrongType => 550,
        Kind::Invalid => 553,
        Kind::OverQuota | Kind::TooLarge => 552,
        Kind::Unauthenticated => 530,
    }
}

impl Encode for Reply {
    fn encode(&self, into: &mut BytesMut) {
        let code = self.code.to_string();
        into.extend_from_slice(code.as_bytes());
        into.put_u8(if self.begins || self.body.is_some() { b'-' } else { b' ' });
        self.put_clean(&self.text, into);
        into.extend_from_slice(b"\r\n");
        let Some(body) = &self.body else { return };
        for line in &body.lines {
            into.put_u8(b' ');
            self.put_clean(line, into);
            into.extend_from_slice(b"\r\n");
        }
        into.extend_from_slice(code.as_bytes());
        into.put_u8(b' ');
        self.put_clean(body.end, into);
        into.extend_from_slice(b"\r\n");
    }
}

/// RFC 959 appendix II: a path between quotes, its own quotes doubled.
#[must_use]
pub fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut bytes = BytesMut::new();
        reply.encode(&mut bytes);
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn no_text_can_end_a_reply_early() {
        assert_eq!(wire(&Reply::new(550, "a\r\n226 b")), "550 a??226 b\r\n");
        let many = Reply::many(211, "x", vec!["211 fake".into()], "End");
        assert_eq!(wire(&many), "211-x\r\n 211 fake\r\n211 End\r\n");
    }

    #[test]
    fn quotes_in_a_path_are_doubled() {
        assert_eq!(quoted("/a\"b"), "\"/a\"\"b\"");
    }

    #[test]
    fn a_missing_data_connection_is_425() {
        let error = Error::new(Kind::Unavailable, "none").with(NoLane(std::io::ErrorKind::TimedOut.into()));
        assert_eq!(Reply::from(&error).code(), 425);
    }
}
