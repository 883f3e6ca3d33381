//! Pages of other origins (the Fetch standard's CORS): which may read answers with scripts, and change things with a password of their own.
//!
//! Cookies are never offered: `Access-Control-Allow-Credentials` is not said, so another origin's page must bring its own
//! `Authorization`.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::error::Result;
use crate::proto::http::body::Outgoing;
use crate::proto::http::reply;
use crate::proto::http::settings::invalid;

/// Origins that may.
pub struct Cors {
    /// Every page may read.
    any: bool,
    origins: Vec<String>,
}

const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, PUT, POST, PATCH, DELETE, OPTIONS, PROPFIND, MKCOL, COPY, MOVE");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Accept-Ranges, Content-Disposition, Content-Encoding, Content-Length, Content-Range, ETag, Last-Modified, Link, Location, Repr-Digest, Retry-After, Tus-Resumable, Upload-Offset, Upload-Length, Upload-Expires",
);
/// Seconds a browser need not ask again; Chromium takes no more than this.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
/// Longest list of header names that is allowed back.
const LONGEST: usize = 1 << 10;

impl Cors {
    /// Reads a list of origins.
    ///
    /// # Errors
    /// `Invalid`: something that is no origin.
    pub fn new(list: &[String]) -> Result<Self> {
        let mut cors = Self { any: false, origins: Vec::new() };
        for text in list {
            match text.as_str() {
                "*" => cors.any = true,
                origin if is_origin(origin) => cors.origins.push(origin.to_ascii_lowercase()),
                other => {
                    return Err(invalid(format!("cors: `{other}` is no origin; write https://app.example.org or *")));
                }
            }
        }
        Ok(cors)
    }

    fn is_on(&self) -> bool {
        self.any || !self.origins.is_empty()
    }

    /// Is the page that asks of a listed origin? `*` does not count: it is for reading.
    pub fn lists(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = origin(headers) else { return false };
        self.origins.iter().any(|known| known.eq_ignore_ascii_case(origin))
    }

    /// The answer to a browser that asks whether a page's script may (a preflight); `None` when it is something else.
    pub fn preflight(&self, request: &Parts) -> Option<Response<Outgoing>> {
        let headers = &request.headers;
        let asked = request.method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asked || !self.is_on() || origin(headers).is_none() {
            return None;
        }
        let mut response = reply::bare(StatusCode::NO_CONTENT);
        if self.lists(headers) || self.any {
            let answer = response.headers_mut();
            let methods = if self.lists(headers) { METHODS } else { HeaderValue::from_static("GET, HEAD") };
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
            if let Some(wanted) = wanted.filter(|names| names.len() <= LONGEST) {
                answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
            }
        }
        let asked = "Access-Control-Request-Method, Access-Control-Request-Headers";
        response.headers_mut().append(header::VARY, HeaderValue::from_static(asked));
        Some(response)
    }

    /// Says on a response who may read it.
    pub fn tell(&self, request: &HeaderMap, headers: &mut HeaderMap) {
        if !self.is_on() {
            return;
        }
        let listed = self.lists(request);
        if !self.origins.is_empty() {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let allowed = match request.get(header::ORIGIN) {
            Some(origin) if listed => origin.clone(),
            _ if self.any => HeaderValue::from_static("*"),
            _ => return,
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if self.any {
            let resource_policy = HeaderName::from_static("cross-origin-resource-policy");
            headers.insert(resource_policy, HeaderValue::from_static("cross-origin"));
        }
    }
}

fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ORIGIN)?.to_str().ok()
}

/// `scheme://host[:port]` and nothing behind it.
fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|host| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/*?#@".contains(&byte))
    })
}
