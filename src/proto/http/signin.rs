//! Who asks: session cookie, Bearer token or Basic password; and the guard against requests forged by other sites.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use zeroize::Zeroizing;

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

/// How long a proven Basic header is not asked about again. A changed account is noticed at once.
const PROVEN: Duration = Duration::from_secs(30);
/// Longest `Authorization` header that is looked at.
const LONGEST: usize = 4 << 10;

/// A password may be shown here, by Basic or in the form: nobody on the way can read it, or the operator said so.
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

/// What a request shows of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// Nothing: a guest.
    None,
    /// A name and a password, encoded.
    Basic(&'a str),
    Bearer(&'a str),
    /// The session cookie, which a browser shows by itself.
    Cookie(&'a str),
}

impl<'a> Credentials<'a> {
    /// Reads the fields. An `Authorization` that is empty, unfinished, too long or of an unknown scheme counts as none.
    pub fn read(authorization: Option<&'a [u8]>, cookies: impl Iterator<Item = &'a [u8]>, cookie: &str) -> Self {
        let from_cookie = || {
            let mut lines = cookies.filter_map(|line| std::str::from_utf8(line).ok());
            lines.find_map(|line| cookie_in(line, cookie)).map_or(Self::None, Self::Cookie)
        };
        authorization.and_then(Self::of_authorization).unwrap_or_else(from_cookie)
    }

    /// Those of a request that hyper read.
    pub fn of(headers: &'a HeaderMap, cookie: &str) -> Self {
        // Only here is the time taken to decode it: the fast path knows only what was right before.
        let whole = |value: &&[u8]| match Credentials::of_authorization(value) {
            Some(Credentials::Basic(encoded)) => decoded(encoded).is_some(),
            other => other.is_some(),
        };
        let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).filter(whole);
        Self::read(authorization, headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes), cookie)
    }

    fn of_authorization(value: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= LONGEST)?;
        let (scheme, rest) = text.trim().split_once([' ', '\t'])?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic(rest));
        }
        (scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty()).then_some(Self::Bearer(rest))
    }

    /// Who it is, when that can be said without asking anyone: a password that was right on this connection, a session used a moment ago,
    /// nothing at all (`Some(None)`: a guest). `None`: [`Credentials::identify`] must say it.
    ///
    /// # Errors
    /// 403 for Basic in the clear.
    pub fn known(
        self,
        hub: &Hub,
        connection: &Connection,
        origin: &Origin,
        rules: &Rules,
    ) -> Result<Option<Option<Caller>>, Refusal> {
        Ok(match self {
            Self::None => Some(None),
            Self::Basic(_) if !basic_allowed(origin, rules.settings.basic_in_clear) => {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "a password may not be sent without TLS; use https, or sign in with a session",
                ));
            }
            Self::Basic(encoded) => proven(connection, &digest(encoded), origin).map(Some),
            Self::Bearer(token) | Self::Cookie(token) => hub.resume_known(origin, token).map(Some),
        })
    }

    /// Finds out who it is. A cookie past its time makes a guest; a wrong password or token is refused.
    ///
    /// # Errors
    /// 401, 403 for Basic in the clear, 429.
    pub async fn identify(
        self,
        hub: &Hub,
        connection: &Connection,
        origin: &Origin,
        rules: &Rules,
    ) -> Result<Asker, Refusal> {
        let caller = match self.known(hub, connection, origin, rules)? {
            Some(known) => known.map(|caller| caller.at(origin.clone())),
            None => self.ask(hub, connection, origin).await?,
        };
        Ok(match (caller, self) {
            (None, _) | (Some(_), Self::None) => {
                Asker { caller: hub.guest(origin.clone()), token: None, cookie: false }
            }
            (Some(caller), Self::Basic(_)) => Asker { caller, token: None, cookie: false },
            (Some(caller), Self::Bearer(token)) => Asker { caller, token: Some(token.to_owned()), cookie: false },
            (Some(caller), Self::Cookie(token)) => Asker { caller, token: Some(token.to_owned()), cookie: true },
        })
    }

    async fn ask(self, hub: &Hub, connection: &Connection, origin: &Origin) -> Result<Option<Caller>, Refusal> {
        match self {
            Self::None => Ok(None),
            Self::Basic(encoded) => basic(hub, connection, origin, encoded).await.map(Some),
            Self::Bearer(token) => Ok(Some(hub.resume(origin, token).await?)),
            Self::Cookie(token) => match hub.resume(origin, token).await {
                Err(error) if error.kind() == Kind::Unauthenticated => Ok(None),
                resumed => Ok(Some(resumed?)),
            },
        }
    }
}

fn digest(encoded: &str) -> [u8; 32] {
    *blake3::hash(encoded.as_bytes()).as_bytes()
}

/// The caller whose Basic header was right on this connection a moment ago, if the account still admits it from where this request
/// comes: a proxy's connection carries requests of many.
fn proven(connection: &Connection, digest: &[u8; 32], origin: &Origin) -> Option<Caller> {
    let proven = connection.proven.lock();
    let proven = proven.as_ref().filter(|proven| proven.digest == *digest && proven.since.elapsed() < PROVEN)?;
    proven.caller.again(origin)
}

/// Basic (RFC 7617). The last right header of a connection is remembered for a moment.
async fn basic(hub: &Hub, connection: &Connection, origin: &Origin, encoded: &str) -> Result<Caller, Refusal> {
    let Some((name, password)) = decoded(encoded) else {
        return Err(Error::new(Kind::Unauthenticated, "the Basic credentials cannot be read").into());
    };
    let caller = hub.login(origin, &name, &password).await?;
    let proven = Proven { digest: digest(encoded), caller: caller.clone(), since: Instant::now() };
    *connection.proven.lock() = Some(Box::new(proven));
    Ok(caller)
}

/// The name and the password.
fn decoded(encoded: &str) -> Option<(String, Zeroizing<Vec<u8>>)> {
    let bytes = Zeroizing::new(STANDARD.decode(encoded).ok()?);
    let (name, password) = bytes.split_at_checked(memchr::memchr(b':', &bytes)?)?;
    Some((std::str::from_utf8(name).ok()?.to_owned(), password.get(1..)?.to_vec().into()))
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
        assert_eq!(Credentials::of(&parts.headers, "stoa"), Credentials::Cookie("tok-1"));
        assert_eq!(Credentials::of(&parts.headers, "__Host-stoa"), Credentials::None);
    }

    #[test]
    fn an_authorization_that_shows_nobody_counts_as_none() {
        let long = format!("Bearer {}", "x".repeat(LONGEST));
        for text in [
            "",
            " ",
            "Basic",
            "Basic ",
            "Basic !!!",
            "Basic YWxpY2U=",
            "Basic YWxpY2U6eA",
            "Basic /zp4",
            "Bearer",
            "Bearer  ",
            "Digest username=\"alice\"",
            "Negotiate YII=",
            "nonsense",
            &long,
        ] {
            let parts = request("GET", &[("authorization", text), ("cookie", "stoa=t")]);
            assert_eq!(Credentials::of(&parts.headers, "stoa"), Credentials::Cookie("t"), "{text}");
        }
        let shown = |text| {
            let parts = request("GET", &[("authorization", text), ("cookie", "stoa=t")]);
            format!("{:?}", Credentials::of(&parts.headers, "stoa"))
        };
        assert_eq!(shown("basic  YWxpY2U6eA=="), "Basic(\"YWxpY2U6eA==\")");
        assert_eq!(shown("BEARER t "), "Bearer(\"t\")");
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
