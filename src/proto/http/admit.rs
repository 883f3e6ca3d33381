//! What is judged of every request before anybody asks who sends it: its size, its name and its scheme. Both the fast path and hyper's
//! requests pass here.

use hyper::StatusCode;

use crate::proto::http::reply::Refusal;
use crate::proto::http::settings::Rules;

/// A request in numbers.
pub struct Outline<'a> {
    /// Path and query.
    pub target: &'a str,
    /// Header lines, and their bytes with `: ` and CRLF.
    pub lines: usize,
    pub bytes: usize,
    /// The `Host` that is asked for.
    pub host: &'a [u8],
}

/// The number of the site that a request is for.
///
/// # Errors
/// 414, 431, 421.
pub fn site(rules: &Rules, outline: &Outline<'_>) -> Result<u16, Refusal> {
    let settings = &rules.settings;
    if outline.target.len() as u64 > settings.uri_length.0 {
        let words = format!("the URL is longer than {} ([http] uri_length)", settings.uri_length);
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, words));
    }
    let bytes = (outline.bytes + outline.target.len()) as u64;
    if bytes > settings.head_size.0 || outline.lines > settings.head_lines {
        let words = format!(
            "the request's head is larger than {} or has more than {} lines ([http] head_size, head_lines)",
            settings.head_size, settings.head_lines
        );
        return Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, words));
    }
    rules.sites.number(outline.host).ok_or_else(|| {
        let words = "this server has nothing under that name ([http] hosts, [[site]] host)";
        Refusal::new(StatusCode::MISDIRECTED_REQUEST, words)
    })
}

/// The request is answered with the way to the same place by TLS.
pub fn must_use_tls(rules: &Rules, secure: bool, path: &str) -> bool {
    rules.settings.redirect_to_https && !secure && path != "/-/health"
}
