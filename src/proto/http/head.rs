//! The head of an HTTP/1 request, read strictly (RFC 9112 §2–6) before anything acts on it.
//!
//! What two readers could understand differently is refused here: bare LF, two lengths, a length beside chunks, codings nobody knows, a
//! blank before a colon, two hosts. So no proxy before us and no library behind us finds a second request in the first. A request that is
//! also [`Plain`] can be answered without asking hyper, which reads the same bytes again otherwise.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use hyper::{StatusCode, Uri};

use crate::proto::http::admit::Outline;
use crate::proto::http::condition::Conditions;
use crate::proto::http::extent::Framing;
use crate::proto::http::target::LONGEST_URI;

/// Most header lines.
pub const LINES: usize = 100;
/// Most bytes.
pub const LONGEST: usize = 32 << 10;
/// Empty lines before a request that are passed over (RFC 9112 §2.2), in bytes.
const BLANK: usize = 8;
/// Room for the method and the version beside the longest target.
const WORDS: usize = 64;
/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the bytes that came are.
#[derive(Debug, PartialEq, Eq)]
pub enum Look<'a> {
    /// The beginning of something.
    Part,
    /// A request's whole head.
    Whole(Head<'a>),
    /// The preface of HTTP/2.
    Second,
    /// Nothing that can be answered but by this, and the end of the connection.
    Wrong(Wrong),
}

/// Why a head is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    pub status: StatusCode,
    pub text: &'static str,
}

/// A request's head.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Bytes of it, with its empty line.
    pub length: usize,
    /// The request target as it came.
    pub target: &'a str,
    /// What follows it.
    pub framing: Framing,
    /// What it asks, when that is nothing special.
    pub plain: Option<Plain<'a>>,
}

/// A `GET` or `HEAD` of a file, whole, in part, or if it changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plain<'a> {
    /// `HEAD` rather than `GET`.
    pub head: bool,
    /// The request target as it came: no query in it.
    pub target: &'a str,
    /// The `Host` header's value.
    pub host: &'a [u8],
    /// `Connection: close`.
    pub close: bool,
    pub authorization: Option<&'a [u8]>,
    pub cookie: Option<&'a [u8]>,
    pub codings: Option<&'a [u8]>,
    pub none_match: Option<&'a [u8]>,
    pub modified_since: Option<&'a [u8]>,
    pub range: Option<&'a [u8]>,
    /// Header lines, and their bytes with `: ` and CRLF.
    pub lines: usize,
    pub bytes: usize,
}

impl<'a> Plain<'a> {
    /// The request in numbers; `target` is its path below the prefix.
    pub fn outline(&self, target: &'a str) -> Outline<'a> {
        Outline { target, lines: self.lines, bytes: self.bytes, host: self.host }
    }

    /// What makes it conditional or partial.
    pub fn conditions(&self) -> Conditions<'a> {
        Conditions {
            if_modified_since: self.modified_since.map(Cow::Borrowed),
            if_none_match: self.none_match.map(Cow::Borrowed),
            range: self.range.map(Cow::Borrowed),
            ..Conditions::default()
        }
    }
}

/// Looks at what came of a connection's next request; the first `before` bytes were looked at before. `first`: the connection may turn out
/// to speak HTTP/2.
pub fn look(bytes: &[u8], before: usize, first: bool) -> Look<'_> {
    if first && bytes.first() == Some(&b'P') {
        if bytes.starts_with(PREFACE) {
            return Look::Second;
        }
        if PREFACE.starts_with(bytes) {
            return Look::Part;
        }
    }
    match whole(bytes, before) {
        Ok(Some(head)) => Look::Whole(head),
        Ok(None) => Look::Part,
        Err(wrong) => Look::Wrong(wrong),
    }
}

fn whole(bytes: &[u8], before: usize) -> Result<Option<Head<'_>>, Wrong> {
    let blank = bytes.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2;
    if blank > BLANK {
        return Err(bad("there are only empty lines where a request is expected"));
    }
    let text = bytes.get(blank..).unwrap_or_default();
    match text {
        [] | b"\r" => return Ok(None),
        [first, ..] if !is_token(*first) => return Err(bad("this is not an HTTP request")),
        _ => {}
    }
    let (end, lines) = ends(text, before.saturating_sub(blank))?;
    match end {
        Some(end) if end <= LONGEST => read(text.get(..end).unwrap_or_default(), blank).map(Some),
        None if text.len() <= LONGEST => {
            if memchr::memchr(b'\n', text).is_none() && text.len() > LONGEST_URI + WORDS {
                return Err(Wrong { status: StatusCode::URI_TOO_LONG, text: "the URL is longer than 8 KiB" });
            }
            // A line more is there: what cannot become a head is refused without waiting for the rest.
            let mut room = [MaybeUninit::uninit(); LINES];
            let early = (lines > 0).then(|| httparse::Request::new(&mut []).parse_with_uninit_headers(text, &mut room));
            match early {
                Some(Err(error)) => Err(unreadable(error, text)),
                _ => Ok(None),
            }
        }
        _ => Err(Wrong { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text: "the head is longer than 32 KiB" }),
    }
}

/// Where the empty line ends, and how many lines ended in what was not looked at before.
fn ends(text: &[u8], before: usize) -> Result<(Option<usize>, usize), Wrong> {
    let mut lines = 0;
    for at in memchr::memchr_iter(b'\n', text.get(before..).unwrap_or_default()) {
        let at = at + before;
        let line = text.get(..at).unwrap_or_default();
        match line.strip_suffix(b"\r") {
            None => return Err(bad("a line of the head ends in a bare LF; lines end in CRLF")),
            Some(line) if line.last() == Some(&b'\n') => return Ok((Some(at + 1), lines + 1)),
            Some(_) => lines += 1,
        }
    }
    Ok((None, lines))
}

/// Reads a head that is all there.
fn read(text: &[u8], blank: usize) -> Result<Head<'_>, Wrong> {
    let mut lines = [MaybeUninit::uninit(); LINES];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(text, &mut lines) {
        Ok(httparse::Status::Complete(length)) if length == text.len() => {}
        Ok(_) => return Err(bad("the head ends where it should not")),
        Err(error) => return Err(unreadable(error, text)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(bad("the head cannot be read"));
    };
    if target.len() > LONGEST_URI {
        return Err(Wrong { status: StatusCode::URI_TOO_LONG, text: "the URL is longer than 8 KiB" });
    }
    let said = Said::of(request.headers);
    let old = minor == 0;
    let framing = said.framing(old)?;
    let host = said.host(old)?;
    said.expected(old)?;
    let plain = said.plain(method, target).filter(|_| !old && framing == Framing::Length(0));
    let plain = plain.map(|plain| Plain { host, ..plain });
    Ok(Head { length: blank + text.len(), target, framing, plain })
}

/// The same of a request that HTTP/2 brought; its lines are names in lower case and values.
pub fn plain<'a>(
    method: &str,
    target: &'a str,
    host: &'a [u8],
    lines: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Option<Plain<'a>> {
    let mut said = Said::default();
    for (name, value) in lines {
        // RFC 9113 §8.2.2: `te` can only say that trailers are welcome.
        said.add(if name == "te" { "" } else { name }, name.len(), value);
    }
    let plain = said.plain(method, target)?;
    Some(Plain { host, ..plain })
}

/// Is the target one at all? Those that something is kept for are.
pub fn proper(target: &str) -> Result<(), Wrong> {
    let uri: Uri = target.parse().map_err(|_| bad("the URL has characters that no URL has"))?;
    match uri.authority() {
        Some(there) if there.as_str().contains('@') => Err(bad("the URL names a user; sign in with a header")),
        _ => Ok(()),
    }
}

/// A header that comes once.
#[derive(Clone, Copy, Default)]
struct Once<'a> {
    value: Option<&'a [u8]>,
    again: bool,
}

impl<'a> Once<'a> {
    fn put(&mut self, value: &'a [u8]) {
        self.again |= self.value.replace(value).is_some();
    }
}

/// The headers that say how a request is to be read, and what it asks.
#[derive(Default)]
struct Said<'a> {
    authorization: Once<'a>,
    codings: Once<'a>,
    coding: Once<'a>,
    connection: Once<'a>,
    cookie: Once<'a>,
    expect: Once<'a>,
    host: Once<'a>,
    length: Once<'a>,
    modified_since: Once<'a>,
    none_match: Once<'a>,
    range: Once<'a>,
    /// Something that only hyper and the site understand.
    special: bool,
    lines: usize,
    bytes: usize,
}

/// Headers that change what is answered, beside those of [`Said`].
const SPECIAL: [&str; 10] = [
    "http2-settings",
    "if",
    "if-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "te",
    "trailer",
    "upgrade",
    "want-repr-digest",
];

impl<'a> Said<'a> {
    fn of(lines: &[httparse::Header<'a>]) -> Self {
        let mut said = Self::default();
        for line in lines {
            said.add(line.name, line.name.len(), line.value);
        }
        said
    }

    fn add(&mut self, name: &str, length: usize, value: &'a [u8]) {
        self.lines += 1;
        self.bytes += length + value.len() + 4;
        if let Some(place) = self.place(name) {
            place.put(value);
        }
    }

    fn place(&mut self, name: &str) -> Option<&mut Once<'a>> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.as_bytes().first()?.to_ascii_lowercase() {
            b'a' if is("accept-encoding") => Some(&mut self.codings),
            b'a' if is("authorization") => Some(&mut self.authorization),
            b'c' if is("connection") => Some(&mut self.connection),
            b'c' if is("content-length") => Some(&mut self.length),
            b'c' if is("cookie") => Some(&mut self.cookie),
            b'e' if is("expect") => Some(&mut self.expect),
            b'h' if is("host") => Some(&mut self.host),
            b'i' if is("if-modified-since") => Some(&mut self.modified_since),
            b'i' if is("if-none-match") => Some(&mut self.none_match),
            b'r' if is("range") => Some(&mut self.range),
            b't' if is("transfer-encoding") => Some(&mut self.coding),
            b'h' | b'i' | b'o' | b't' | b'u' | b'w' => {
                self.special |= SPECIAL.iter().any(|one| is(one));
                None
            }
            _ => None,
        }
    }

    /// RFC 9112 §6.3, without its leniences.
    fn framing(&self, old: bool) -> Result<Framing, Wrong> {
        if self.length.again {
            return Err(bad("Content-Length comes twice"));
        }
        let Some(coding) = self.coding.value else {
            return self.length.value.map_or(Ok(Framing::Length(0)), length);
        };
        if old {
            return Err(bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        if self.length.value.is_some() {
            return Err(bad("a request has either Content-Length or Transfer-Encoding"));
        }
        if self.coding.again {
            return Err(bad("Transfer-Encoding comes twice"));
        }
        if coding.eq_ignore_ascii_case(b"chunked") {
            return Ok(Framing::Chunked);
        }
        let mut codings = coding.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).rev();
        let last = codings.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
        match last && codings.all(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"chunked")) {
            true => Err(Wrong {
                status: StatusCode::NOT_IMPLEMENTED,
                text: "the only transfer coding this server knows is chunked",
            }),
            false => Err(bad("a request's last transfer coding, and no other, is chunked")),
        }
    }

    /// RFC 9112 §3.2: exactly one, and a proper one.
    fn host(&self, old: bool) -> Result<&'a [u8], Wrong> {
        match self.host {
            Once { again: true, .. } => Err(bad("Host comes twice")),
            Once { value: None, .. } if old => Ok(b""),
            Once { value: None, .. } => Err(bad("the request does not say for which Host it is")),
            Once { value: Some(host), .. } if is_host(host) => Ok(host),
            Once { .. } => Err(bad("Host is a name or an address, and perhaps a port")),
        }
    }

    fn expected(&self, old: bool) -> Result<(), Wrong> {
        match self.expect.value {
            Some(value) if !old && (self.expect.again || !value.eq_ignore_ascii_case(b"100-continue")) => {
                Err(Wrong { status: StatusCode::EXPECTATION_FAILED, text: "only 100-continue can be expected here" })
            }
            _ => Ok(()),
        }
    }

    fn plain(&self, method: &str, target: &'a str) -> Option<Plain<'a>> {
        let head = match method {
            "GET" => false,
            "HEAD" => true,
            _ => return None,
        };
        let close = match self.connection.value {
            None => false,
            Some(value) if value.eq_ignore_ascii_case(b"keep-alive") => false,
            Some(value) if value.eq_ignore_ascii_case(b"close") => true,
            Some(_) => return None,
        };
        let asked = [
            self.authorization,
            self.codings,
            self.connection,
            self.cookie,
            self.modified_since,
            self.none_match,
            self.range,
        ];
        let usual = target.starts_with('/')
            && !target.contains('?')
            && !self.special
            && self.length.value.is_none()
            && self.expect.value.is_none()
            && asked.iter().all(|once| !once.again);
        usual.then_some(Plain {
            head,
            target,
            host: b"",
            close,
            authorization: self.authorization.value,
            cookie: self.cookie.value,
            codings: self.codings.value,
            none_match: self.none_match.value,
            modified_since: self.modified_since.value,
            range: self.range.value,
            lines: self.lines,
            bytes: self.bytes,
        })
    }
}

/// Digits and nothing else.
fn length(value: &[u8]) -> Result<Framing, Wrong> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = text.and_then(|text| text.parse().ok());
    length.map(Framing::Length).ok_or_else(|| bad("Content-Length is not a number"))
}

/// `uri-host [ ":" port ]` (RFC 3986 §3.2.2); nothing is proper too.
fn is_host(value: &[u8]) -> bool {
    let end = match value.first() {
        Some(b'[') => memchr::memchr(b']', value).map_or(0, |at| at + 1),
        _ => memchr::memchr(b':', value).unwrap_or(value.len()),
    };
    let (host, port) = value.split_at(end);
    let port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    port && match host {
        [b'[', address @ .., b']'] => {
            !address.is_empty() && address.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        }
        [b'[', ..] => false,
        name => name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte)),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn bad(text: &'static str) -> Wrong {
    Wrong { status: StatusCode::BAD_REQUEST, text }
}

fn unreadable(error: httparse::Error, text: &[u8]) -> Wrong {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => Wrong {
            status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            text: "the request has more than 100 header lines",
        },
        Error::HeaderName => bad("a header's name has other characters than names have, or blanks around it"),
        Error::HeaderValue => bad("a header's value has control characters"),
        Error::NewLine => bad("a line of the head does not end in CRLF"),
        Error::Version if is_version(text) => Wrong {
            status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            text: "this server speaks HTTP/1.0, HTTP/1.1 and HTTP/2",
        },
        Error::Status | Error::Token | Error::Version => bad("the request line is not `METHOD /path HTTP/1.1`"),
    }
}

/// The request line names a version, though none of ours.
fn is_version(text: &[u8]) -> bool {
    let line = text.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    let version = words.next().and_then(|word| word.strip_prefix(b"HTTP/"));
    words.next().is_none()
        && matches!(version, Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &[u8]) -> Head<'_> {
        match look(text, 0, true) {
            Look::Whole(head) => head,
            other => panic!("{other:?}"),
        }
    }

    fn status(text: &str) -> u16 {
        match look(text.as_bytes(), 0, true) {
            Look::Wrong(wrong) => wrong.status.as_u16(),
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_browsers_request_is_plain() {
        let text =
            b"GET /a%20b.txt HTTP/1.1\r\nHost: stoa\r\nUser-Agent: x\r\nAccept: */*\r\nCookie: stoa=1\r\n\r\nGET /next";
        let seen = head(text);
        let plain = seen.plain.unwrap();
        assert_eq!((plain.target, plain.head, plain.close), ("/a%20b.txt", false, false));
        assert_eq!((plain.cookie, plain.host), (Some(&b"stoa=1"[..]), &b"stoa"[..]));
        assert_eq!(&text[seen.length..], b"GET /next");
        let plain = head(b"\r\nHEAD / HTTP/1.1\r\nhost: a\r\nconnection: Close\r\n\r\n").plain.unwrap();
        assert!(plain.head && plain.close);
    }

    #[test]
    fn what_is_special_is_hypers() {
        for text in [
            "GET /a HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nIf-Range: \"a\"\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\ncontent-length: 3\r\n\r\nabc",
            "GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nIf-Match: \"a\"\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
        ] {
            assert_eq!(head(text.as_bytes()).plain, None, "{text:?}");
        }
    }

    #[test]
    fn a_head_in_pieces_is_judged_once_it_is_there() {
        let text = b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(look(&text[..cut], 0, true), Look::Part, "{cut}");
            for before in 0..=cut {
                assert!(matches!(look(text, before, true), Look::Whole(_)), "{before}");
            }
        }
        assert_eq!(look(b"PRI * HTTP/2.0\r\n\r\nSM\r", 0, true), Look::Part);
        assert_eq!(look(PREFACE, 0, true), Look::Second);
        assert!(matches!(look(PREFACE, 0, false), Look::Wrong(_)), "only a connection's beginning");
    }

    #[test]
    fn what_can_be_no_request_is_refused_at_once() {
        for text in [
            "\x16\x03\x01\x02\x00",
            "\n",
            "GET /a HTTP/1.1\n",
            "GET /a HTTP/1.1\r\nHost : a\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\n folded\r\n",
            "GET /a\r\n",
            "GET  /a HTTP/1.1\r\n",
            "GET /a b HTTP/1.1\r\n",
            "get\t/a HTTP/1.1\r\n",
            "GET /a http/1.1\r\n",
            "\r\n\r\n\r\n\r\n\r\n",
        ] {
            assert_eq!(status(text), 400, "{text:?}");
        }
        assert_eq!(status("GET /a HTTP/2.0\r\n"), 505);
        assert_eq!(status(&format!("GET /{}", "a".repeat(LONGEST_URI + WORDS))), 414);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(LONGEST))), 431);
        let many = "A: b\r\n".repeat(LINES);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")), 431);
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for host in ["", "a", "a.example:8080", "10.0.0.1", "[::1]:80", "xn--bcher-kva.example", "a_b"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in ["a b", "a/b", "user@a", "a:b", "a:123456", "[::1", "::1", "[]", "[::1]x", "b\u{fc}cher"] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
