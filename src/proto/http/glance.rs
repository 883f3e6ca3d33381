//! A quick look at the head of a request: is it a plain `GET` or `HEAD` that asks for nothing special?
//!
//! Whatever is not certainly plain is left to hyper, which reads the same bytes again.

use std::mem::MaybeUninit;

/// Header lines looked at; a request with more is not plain.
const LINES: usize = 32;

/// A plain request for a whole file.
#[derive(Debug, PartialEq, Eq)]
pub struct Glance<'a> {
    /// `HEAD` rather than `GET`.
    pub head: bool,
    /// The request target as it came: no query in it.
    pub target: &'a str,
    /// `Connection: close`.
    pub close: bool,
    /// The `Authorization` header's value.
    pub authorization: Option<&'a [u8]>,
    /// The `Cookie` header's value.
    pub cookie: Option<&'a [u8]>,
    /// Bytes of the head, with its empty line.
    pub length: usize,
}

/// Reads the beginning of `bytes`; `None` when it is not a whole head, or not plain.
pub fn glance(bytes: &[u8]) -> Option<Glance<'_>> {
    let mut lines = [MaybeUninit::uninit(); LINES];
    let mut request = httparse::Request::new(&mut []);
    let Ok(httparse::Status::Complete(length)) = request.parse_with_uninit_headers(bytes, &mut lines) else {
        return None;
    };
    let head = match request.method? {
        "GET" => false,
        "HEAD" => true,
        _ => return None,
    };
    let target = request.path.filter(|path| path.starts_with('/') && !path.contains('?'))?;
    if request.version? != 1 {
        return None;
    }
    let mut seen = Glance { head, target, close: false, authorization: None, cookie: None, length };
    let mut hosts = 0;
    for line in request.headers.iter() {
        match Meaning::of(line.name) {
            Meaning::None => {}
            Meaning::Special => return None,
            Meaning::Host => hosts += 1,
            Meaning::Connection => match line.value {
                value if value.eq_ignore_ascii_case(b"close") => seen.close = true,
                value if value.eq_ignore_ascii_case(b"keep-alive") => {}
                _ => return None,
            },
            Meaning::Authorization => once(&mut seen.authorization, line.value)?,
            Meaning::Cookie => once(&mut seen.cookie, line.value)?,
        }
    }
    (hosts == 1).then_some(seen)
}

fn once<'a>(place: &mut Option<&'a [u8]>, value: &'a [u8]) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// What a header line means for a plain request.
enum Meaning {
    /// Nothing.
    None,
    /// The request is not plain.
    Special,
    Authorization,
    Connection,
    Cookie,
    Host,
}

/// Headers that change what is answered, or how the request is framed.
const SPECIAL: [&str; 14] = [
    "content-length",
    "expect",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "range",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "want-repr-digest",
];

impl Meaning {
    fn of(name: &str) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.as_bytes().first().map(u8::to_ascii_lowercase) {
            Some(b'a') if is("authorization") => Self::Authorization,
            Some(b'c') if is("connection") => Self::Connection,
            Some(b'c') if is("cookie") => Self::Cookie,
            Some(b'h') if is("host") => Self::Host,
            Some(b'c' | b'e' | b'h' | b'i' | b'o' | b'r' | b't' | b'u' | b'w') if SPECIAL.iter().any(|one| is(one)) => {
                Self::Special
            }
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browsers_request_is_plain() {
        let text =
            b"GET /a%20b.txt HTTP/1.1\r\nHost: stoa\r\nUser-Agent: x\r\nAccept: */*\r\nCookie: stoa=1\r\n\r\nGET /next";
        let seen = glance(text).unwrap();
        assert_eq!(
            (seen.target, seen.head, seen.close, seen.cookie),
            ("/a%20b.txt", false, false, Some(&b"stoa=1"[..]))
        );
        assert_eq!(&text[seen.length..], b"GET /next");
        let seen = glance(b"HEAD / HTTP/1.1\r\nhost: a\r\nconnection: Close\r\n\r\n").unwrap();
        assert!(seen.head && seen.close);
    }

    #[test]
    fn everything_else_is_hypers() {
        for text in [
            "GET /a HTTP/1.1\r\nHost: a\r\n",
            "GET /a HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET /a HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\ncontent-length: 3\r\n\r\nabc",
            "GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"a\"\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET /a HTTP/1.1\nHost: a\nX\n\n",
            "\x16\x03\x01\x02\x00",
            "",
        ] {
            assert_eq!(glance(text.as_bytes()), None, "{text:?}");
        }
    }
}
