//! Who asks: session cookie, Bearer token or Basic password; and the guard against requests forged by other sites.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use crate::error::{Error, Kind};
use crate::hub::{Caller, Hub};
use crate::origin::Origin;
use crate::proto::http::base::Base;
use crate::proto::http::reply::Refusal;
use crate::proto::http::serve::Connection;
use crate::proto::http::settings::Rules;

/// A Basic header that was right on this connection: its digest, who it is, and since when.
pub struct Proven {
    digest: [u8; 32],
    caller: Caller,
    since: Instant,
}

/// Who asks, and the session it came by, if any.
pub struct Asker {
    /// A guest, when nothing was shown.
    pub caller: Caller,
    /// The session's token, from the cookie or the Bearer header.
    pub token: Option<String>,
    /// The browser showed it by itself (cookie).
    pub cookie: bool,
}

/// How long a proven Basic header is not asked about again: short, so that a changed password is noticed.
const PROVEN: Duration = Duration::from_secs(30);
/// Longest `Authorization` header that is looked at.
const LONGEST: usize = 4 << 10;

/// A Basic password may be shown here: nobody on the way can read it, or the operator said so.
pub fn basic_allowed(origin: &Origin, in_clear: bool) -> bool {
    origin.secure || in_clear || origin.peer.ip().to_canonical().is_loopback()
}

/// The session cookie's name. With TLS its beginning makes browsers hold it to HTTPS, and where all of the host is ours to this host and
/// path `/`.
pub fn cookie_name(origin: &Origin, base: &Base) -> &'static str {
    match (origin.secure, base.is_root()) {
        (true, true) => "__Host-stoa",
        (true, false) => "__Secure-stoa",
        (false, _) => "stoa",
    }
}

/// The `Set-Cookie` value that opens a session, or ends it with an empty token.
pub fn cookie(origin: &Origin, base: &Base, token: &str, seconds: u64) -> String {
    let secure = if origin.secure { "; Secure" } else { "" };
    let (name, path) = (cookie_name(origin, base), base.cookie_path());
    format!("{name}={token}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

/// Finds out who asks. A cookie past its time makes a guest; a wrong password or token is refused.
///
/// # Errors
/// 401, 403 for Basic in the clear, 429.
pub async fn identify(
    hub: &Hub,
    connection: &Connection,
    origin: &Origin,
    headers: &HeaderMap,
    rules: &Rules,
) -> Result<Asker, Refusal> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let value = value.to_str().ok().filter(|text| text.len() <= LONGEST);
        let Some((scheme, rest)) = value.and_then(|text| text.trim().split_once(' ')) else {
            return Err(Refusal::bad("the Authorization header cannot be read"));
        };
        if scheme.eq_ignore_ascii_case("basic") {
            if !basic_allowed(origin, rules.settings.basic_in_clear) {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "a password may not be sent without TLS; use https, or sign in with a session",
                ));
            }
            let caller = basic(hub, connection, origin, rest.trim()).await?;
            return Ok(Asker { caller, token: None, cookie: false });
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            let token = rest.trim();
            let caller = hub.resume(origin, token).await?;
            return Ok(Asker { caller, token: Some(token.to_owned()), cookie: false });
        }
        return Err(Error::new(Kind::Unauthenticated, "sign in with Basic or Bearer").into());
    }
    if let Some(token) = cookie_of(headers, cookie_name(origin, &rules.base)) {
        match hub.resume(origin, token).await {
            Ok(caller) => return Ok(Asker { caller, token: Some(token.to_owned()), cookie: true }),
            Err(error) if error.kind() == Kind::Unauthenticated => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Asker { caller: hub.guest(origin.clone()), token: None, cookie: false })
}

/// Who asks, when that can be said without asking anyone: a Basic header that was right on this connection, a session used a
/// moment ago, nothing at all (`Some(None)`: a guest). `None`: [`identify`] must say it. The values are those of the only header
/// of each name.
pub fn known(
    hub: &Hub,
    connection: &Connection,
    authorization: Option<&[u8]>,
    cookies: Option<&[u8]>,
    base: &Base,
) -> Option<Option<Caller>> {
    let origin = &connection.origin;
    if let Some(value) = authorization {
        let (scheme, rest) = std::str::from_utf8(value).ok()?.trim().split_once(' ')?;
        if scheme.eq_ignore_ascii_case("basic") {
            return proven(connection, &digest(rest.trim())).map(Some);
        }
        let token = Some(rest.trim()).filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
        return hub.resume_known(origin, token).map(Some);
    }
    let Some(cookies) = cookies else { return Some(None) };
    match cookie_in(std::str::from_utf8(cookies).ok()?, cookie_name(origin, base)) {
        Some(token) => hub.resume_known(origin, token).map(Some),
        None => Some(None),
    }
}

fn digest(encoded: &str) -> [u8; 32] {
    *blake3::hash(encoded.as_bytes()).as_bytes()
}

/// The caller whose Basic header was right on this connection a moment ago.
fn proven(connection: &Connection, digest: &[u8; 32]) -> Option<Caller> {
    let proven = connection.proven.lock();
    let proven = proven.as_ref().filter(|proven| proven.digest == *digest && proven.since.elapsed() < PROVEN)?;
    Some(proven.caller.clone())
}

/// Basic (RFC 7617). The last right header of a connection is remembered for a moment.
async fn basic(hub: &Hub, connection: &Connection, origin: &Origin, encoded: &str) -> Result<Caller, Refusal> {
    let digest = digest(encoded);
    if let Some(caller) = proven(connection, &digest) {
        return Ok(caller.at(origin.clone()));
    }
    let decoded = STANDARD.decode(encoded).ok();
    let pair = decoded.as_deref().and_then(|bytes| {
        let colon = memchr::memchr(b':', bytes)?;
        let (name, password) = bytes.split_at_checked(colon)?;
        Some((std::str::from_utf8(name).ok()?, password.get(1..)?))
    });
    let Some((name, password)) = pair else {
        return Err(Refusal::bad("the Basic credentials cannot be read"));
    };
    let caller = hub.login(origin, name, password).await?;
    *connection.proven.lock() = Some(Box::new(Proven { digest, caller: caller.clone(), since: Instant::now() }));
    Ok(caller)
}

/// The value of one cookie.
fn cookie_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    lines.into_iter().find_map(|line| cookie_in(line, name))
}

fn cookie_in<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, value)| *key == name && !value.is_empty() && value.len() <= LONGEST)
        .map(|(_, value)| value)
}

/// Refuses a request that changes something and was made by another site's page.
///
/// # Errors
/// 403.
pub fn guard(request: &Parts, host: &str, cookie: bool, listed: bool) -> Result<(), Refusal> {
    let safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&request.method);
    // A listed origin's page brings a password of its own; what the browser shows by itself never counts for it.
    if safe || (listed && !cookie) || is_same_origin(request, host, cookie) {
        return Ok(());
    }
    Err(Refusal::new(StatusCode::FORBIDDEN, "the request was made by another site's page"))
}

/// What the browser says of the page that asks. Programs say nothing, which is enough unless they show a cookie.
fn is_same_origin(request: &Parts, host: &str, cookie: bool) -> bool {
    let headers = &request.headers;
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return !cookie };
    let page = origin.to_str().ok().and_then(|text| text.split_once("://")).map(|(_, rest)| rest);
    page.is_some_and(|page| !host.is_empty() && page.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    const HOST: &str = "stoa.example:8443";

    fn request(method: &str, pairs: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().method(method).uri("/a").header("host", "stoa.example:8443");
        for (name, value) in pairs {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn another_sites_page_changes_nothing() {
        for pairs in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("origin", "https://stoa.example:8443")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[],
        ] {
            assert!(guard(&request("DELETE", pairs), HOST, true, false).is_err(), "{pairs:?}");
        }
        let listed = |cookie| guard(&request("PUT", &[("origin", "https://evil.example")]), HOST, cookie, true).is_ok();
        assert!(
            guard(&request("PUT", &[("origin", "https://evil.example")]), HOST, false, false).is_err(),
            "also with Basic"
        );
        assert!(listed(false) && !listed(true), "a listed origin brings its own password");
    }

    #[test]
    fn our_own_pages_and_programs_do() {
        assert!(guard(&request("POST", &[("sec-fetch-site", "same-origin")]), HOST, true, false).is_ok());
        assert!(guard(&request("POST", &[("origin", "https://stoa.example:8443")]), HOST, true, false).is_ok());
        assert!(guard(&request("PUT", &[]), HOST, false, false).is_ok());
        assert!(guard(&request("GET", &[("sec-fetch-site", "cross-site")]), HOST, true, false).is_ok());
    }

    #[test]
    fn one_cookie_is_found_among_many() {
        let parts = request("GET", &[("cookie", "a=1; stoa=tok-1; stoa2=x")]);
        assert_eq!(cookie_of(&parts.headers, "stoa"), Some("tok-1"));
        assert_eq!(cookie_of(&parts.headers, "__Host-stoa"), None);
    }

    #[test]
    fn the_cookie_is_held_to_this_host_under_tls() {
        let origin = Origin::inside("http");
        let value = cookie(&origin, &Base::default(), "t", 9);
        assert!(value.starts_with("__Host-stoa=t; Path=/; Max-Age=9;") && value.ends_with("; Secure"), "{value}");
        assert!(value.contains("HttpOnly") && value.contains("SameSite=Lax"));
        let value = cookie(&origin, &Base::new("/files").unwrap(), "t", 9);
        assert!(value.starts_with("__Secure-stoa=t; Path=/files; ") && value.ends_with("; Secure"), "{value}");
    }
}
