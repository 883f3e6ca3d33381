//! One request with what every handler needs of it.

use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, Uri, Version};

use crate::hub::{Caller, Mark, TreePath, now};
use crate::proto::http::body::{Intake, Note, Outgoing};
use crate::proto::http::cache::Audience;
use crate::proto::http::serve::Connection;
use crate::proto::http::settings::Rules;
use crate::proto::http::sites::{TREE, Website};
use crate::proto::http::{coding, date, form};

/// A request whose asker is known.
pub struct Visit<'a> {
    /// Method, URL, headers.
    pub parts: &'a Parts,
    /// What it shares with the other requests of its connection.
    pub connection: &'a Arc<Connection>,
    /// Who asks.
    pub caller: Caller,
    /// The session's token, if it came by one.
    pub token: Option<String>,
    /// The body still to be taken in.
    pub intake: Intake,
    /// The host that was asked for, with its port.
    pub host: &'a str,
    /// What the door was told.
    pub rules: &'a Rules,
    /// The site it is for; `None`: the tree.
    pub site: Option<&'a Website>,
}

impl Visit<'_> {
    /// A header as text; one that is not text does not count.
    pub fn header(&self, name: impl Into<HeaderName>) -> Option<&str> {
        self.headers().get(name.into())?.to_str().ok()
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// A value of the query.
    pub fn query(&self, key: &str) -> Option<String> {
        form::pairs(self.parts.uri.query().unwrap_or_default()).find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// A switch of the query: `?all`, `?all=1`.
    pub fn flag(&self, key: &str) -> bool {
        self.query(key).is_some_and(|value| matches!(value.as_str(), "" | "1" | "true" | "yes"))
    }

    /// For whom the answer may be kept: for a `GET` of a whole file in the form that the fast path knows.
    pub fn audience(&self) -> Option<Audience> {
        let usual = matches!(self.parts.version, Version::HTTP_11 | Version::HTTP_2);
        let plain = usual && self.is_get() && self.parts.uri.query().is_none();
        let particular = PARTICULAR.iter().any(|name| self.headers().contains_key(*name));
        let codings = coding::plain_of(self.headers()).filter(|_| plain && !particular)?;
        Some(Audience {
            site: self.site.map_or(TREE, |site| site.number),
            account: !self.caller.is_guest(),
            secure: self.caller.origin().secure,
            codings,
        })
    }

    /// The moment before a file is opened, where the answer may be kept.
    pub fn mark(&self, path: &TreePath) -> Option<Mark> {
        self.audience().and_then(|_| self.caller.mark(path))
    }

    /// The path of a URL of this server; `None` when it is of another one.
    pub fn here<'u>(&self, uri: &'u Uri) -> Option<&'u str> {
        let bare = |authority: &str| {
            let host = authority.rsplit('@').next().unwrap_or_default();
            host.trim_end_matches(":443").trim_end_matches(":80").to_ascii_lowercase()
        };
        let ours = uri.authority().is_none_or(|there| bare(self.host) == bare(there.as_str()));
        self.rules.base.inside(uri.path()).filter(|_| ours)
    }

    /// `GET` rather than `HEAD`.
    pub fn is_get(&self) -> bool {
        self.parts.method == Method::GET
    }
}

/// Headers whose answers are for them alone.
const PARTICULAR: [&str; 6] = ["if", "if-match", "if-range", "origin", "range", "want-repr-digest"];

/// Name of a caller's account, unless a guest.
pub fn who(caller: &Caller) -> Option<&str> {
    (!caller.is_guest()).then(|| caller.name())
}

/// The method as the access line and the metrics know it: a bounded set.
pub fn verb(method: &Method) -> &'static str {
    const KNOWN: &[&str] = &[
        "COPY",
        "DELETE",
        "GET",
        "HEAD",
        "LOCK",
        "MKCOL",
        "MOVE",
        "OPTIONS",
        "PATCH",
        "POST",
        "PROPFIND",
        "PROPPATCH",
        "PUT",
        "UNLOCK",
    ];
    KNOWN.iter().find(|known| **known == method.as_str()).copied().unwrap_or("OTHER")
}

/// A method that means something to HTTP or WebDAV, though perhaps nothing here (RFC 9110 §9.1: 405, not 501).
pub fn is_known(method: &str) -> bool {
    const ELSEWHERE: &[&str] = &["CONNECT", "TRACE"];
    ELSEWHERE.contains(&method) || Method::from_bytes(method.as_bytes()).is_ok_and(|method| verb(&method) != "OTHER")
}

/// The last touches: a `Date` that no `Last-Modified` is behind, no body for `HEAD`, the access line at its end.
pub fn finish(mut response: Response<Outgoing>, method: &Method, mut note: Note) -> Response<Outgoing> {
    note.status = response.status();
    if response.headers().contains_key(header::LAST_MODIFIED)
        && let Some(date) = date::imf(now()).and_then(|text| HeaderValue::try_from(text).ok())
    {
        // hyper's own was made when it began to read the request.
        response.headers_mut().insert(header::DATE, date);
    }
    if *method == Method::HEAD {
        if let Some(length) = response.body().length().filter(|_| response.status() != 304) {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        *response.body_mut() = Outgoing::empty();
    }
    response.map(|body| body.noted(note))
}
