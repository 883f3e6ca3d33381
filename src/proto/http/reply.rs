//! From the house's words to HTTP's: status codes, error bodies, the headers every response carries.

use std::borrow::Cow;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::error::{Error, Kind};
use crate::proto::http::base::Base;
use crate::proto::http::body::Outgoing;
use crate::proto::http::download::FileReply;
use crate::proto::http::fast_path::end_of_head;
use crate::proto::http::{dav, page, sites, target};

/// A response that says no.
#[derive(Debug)]
pub struct Refusal {
    /// What HTTP calls it.
    pub status: StatusCode,
    /// What is wrong, in a sentence for the peer.
    pub text: Cow<'static, str>,
    /// Beside the usual ones.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The condition of RFC 4918 §16 that was not met, as XML.
    pub because: Option<Cow<'static, str>>,
}

/// What is answered: a response, or a file whose response is made where all of its header fields are known.
pub enum Reply {
    Made(Response<Outgoing>),
    File(Box<FileReply>),
}

impl From<Response<Outgoing>> for Reply {
    fn from(response: Response<Outgoing>) -> Self {
        Self::Made(response)
    }
}

/// Outcome of a handler that sends no file.
pub type Answer = Result<Response<Outgoing>, Refusal>;

/// Our own pages load their style from here and run nothing.
pub const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; \
                               frame-ancestors 'none'; base-uri 'none'";

/// Seconds a throttled client is asked to wait where nobody said how long.
const RETRY_THROTTLED: u64 = 60;
/// Seconds after which a missing resource may be back.
const RETRY_UNAVAILABLE: &str = "10";

impl Refusal {
    pub fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { status, text: text.into(), headers: Vec::new(), because: None }
    }

    /// The same with the condition of RFC 4918 §16 that was not met.
    #[must_use]
    pub fn because(self, condition: impl Into<Cow<'static, str>>) -> Self {
        Self { because: Some(condition.into()), ..self }
    }

    /// The same with a header more.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// 405 with what would be allowed.
    pub fn method(allow: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not possible here")
            .with(header::ALLOW, HeaderValue::from_static(allow))
    }

    /// 400.
    pub fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 404.
    pub fn missing() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing here")
    }

    /// 412.
    pub fn precondition() -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "it is not (or no longer) what the request's condition says")
    }
}

/// The one translation of the house's kinds.
pub fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Kind::Conflict | Kind::Exists | Kind::NotEmpty | Kind::WrongType => StatusCode::CONFLICT,
        Kind::Corrupt | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Locked => StatusCode::LOCKED,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Full | Kind::OverQuota => StatusCode::INSUFFICIENT_STORAGE,
        Kind::Throttled => StatusCode::TOO_MANY_REQUESTS,
        Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = status(error.kind());
        if status.is_server_error() && error.kind() != Kind::OverQuota {
            tracing::error!(error = %error.detail(), "a request failed");
        }
        let refusal = Self::new(status, error.public().to_owned());
        if error.kind() == Kind::Throttled {
            return refusal.with(header::RETRY_AFTER, retry_after(&error));
        }
        if matches!(error.kind(), Kind::Full | Kind::Unavailable) {
            return refusal.with(header::RETRY_AFTER, HeaderValue::from_static(RETRY_UNAVAILABLE));
        }
        refusal
    }
}

/// The seconds a throttled client is asked to wait: those that its message says, where it says any.
pub fn retry_after(error: &Error) -> HeaderValue {
    let wait = error.wait().map_or(RETRY_THROTTLED, |wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
    HeaderValue::from(wait)
}

/// The refusal as a response: a page for a browser, a sentence for anything else, the way to the sign-in page for a
/// browser that is not signed in. `basic` says whether a Basic password would be taken on this connection, `bare` that nothing of
/// ours is under this name.
pub fn render(
    refusal: Refusal,
    request: &Parts,
    base: &Base,
    who: Option<&str>,
    basic: bool,
    bare: bool,
) -> Response<Outgoing> {
    let html = wants(&request.headers, "text/html");
    let reading = request.method == Method::GET || request.method == Method::HEAD;
    if refusal.status == StatusCode::UNAUTHORIZED && html && reading && who.is_none() && !bare {
        let next = request.uri.path_and_query().map_or("/", |whole| whole.as_str());
        return see_other(&format!("/-/login?next={}", target::escape(next)));
    }
    let mut response = match &refusal.because {
        _ if html && bare => sites::refusal(base, refusal.status, &refusal.text),
        _ if html => self::html(page::refusal(base, refusal.status, &refusal.text, who)),
        Some(because) => dav::error_body(because, &refusal.text),
        None => text(format!("{}\n", refusal.text)),
    };
    *response.status_mut() = refusal.status;
    if refusal.status == StatusCode::UNAUTHORIZED {
        let challenge = if basic { "Basic realm=\"Stoa\", charset=\"UTF-8\"" } else { "Bearer realm=\"Stoa\"" };
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    for (name, value) in refusal.headers {
        response.headers_mut().insert(name, value);
    }
    response
}

/// True when the `Accept` header names this type.
pub fn wants(headers: &HeaderMap, kind: &str) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|range| range.split(';').next().is_some_and(|named| named.trim().eq_ignore_ascii_case(kind)))
}

/// A page of ours.
pub fn html(markup: maud::Markup) -> Response<Outgoing> {
    typed(Outgoing::whole(markup.into_string()), "text/html; charset=utf-8")
}

/// Plain text.
pub fn text(text: impl Into<String>) -> Response<Outgoing> {
    typed(Outgoing::whole(text.into()), "text/plain; charset=utf-8")
}

/// Something of ours, not to be stored by anyone between.
pub fn typed(body: Outgoing, kind: &'static str) -> Response<Outgoing> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    response
}

/// A status without a body.
pub fn bare(status: StatusCode) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::empty());
    *response.status_mut() = status;
    response
}

/// 303: go there with `GET`.
pub fn see_other(place: &str) -> Response<Outgoing> {
    moved(StatusCode::SEE_OTHER, place)
}

/// A redirect of another sort.
pub fn moved(status: StatusCode, place: &str) -> Response<Outgoing> {
    let mut response = bare(status);
    set(&mut response, header::LOCATION, place);
    set(&mut response, header::CACHE_CONTROL, "no-store");
    response
}

/// Sets a header whose value we made ourselves; one that no header can carry is left out.
pub fn set(response: &mut Response<Outgoing>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// What every response carries.
const HARD: [(HeaderName, &str); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Adds what every response carries.
pub fn harden(headers: &mut HeaderMap) {
    for (name, value) in HARD {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// A whole response to what is no request, and the last one of its connection.
pub fn refusal(status: StatusCode, text: &str) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut whole = format!("HTTP/1.1 {} {reason}\r\nconnection: close\r\n", status.as_u16()).into_bytes();
    for (name, value) in HARD {
        whole.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    let about = "cache-control: no-store\r\ncontent-type: text/plain; charset=utf-8\r\n";
    whole.extend_from_slice(format!("{about}content-length: {}\r\n", text.len() + 1).as_bytes());
    whole.extend_from_slice(&end_of_head());
    whole.extend_from_slice(format!("{text}\n").as_bytes());
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_told_from_a_program() {
        let mut headers = HeaderMap::new();
        assert!(!wants(&headers, "text/html"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json;q=0.9, Text/HTML"));
        assert!(wants(&headers, "text/html") && wants(&headers, "application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        assert!(!wants(&headers, "text/html"));
    }

    #[test]
    fn what_may_pass_by_itself_says_when() {
        let refusal = Refusal::from(Error::new(Kind::Throttled, "later"));
        assert_eq!(refusal.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refusal.headers.iter().any(|(name, _)| name == header::RETRY_AFTER));
    }
}
