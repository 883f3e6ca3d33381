//! Who asks, from where and for which host, when a trusted proxy stands between: `X-Forwarded-*` or `Forwarded` (RFC 7239).
//!
//! A client can send these headers too. So they count only from a listener's trusted peers, only the kind that those proxies are said to
//! write is looked at, and of a chain of addresses the last one that no trusted proxy has.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{FORWARDED, HOST, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use serde::{Deserialize, Serialize};

use crate::net::Trusted;
use crate::origin::Origin;
use crate::proto::http::serve::Connection;

/// Which headers a trusted proxy writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// `Forwarded`.
    Forwarded,
    /// `X-Forwarded-For`, `-Proto` and `-Host`.
    #[default]
    XForwarded,
}

/// A request with what is known of its way here.
pub struct Arrival {
    /// Who and where.
    pub origin: Origin,
    /// The host that was asked for, with its port.
    pub host: String,
}

const X_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Hops of a chain that are looked at.
const HOPS: usize = 32;

/// What a proxy said of one hop.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hop {
    peer: Option<SocketAddr>,
    secure: Option<bool>,
    host: Option<String>,
}

impl Arrival {
    /// Of a request on this connection.
    pub fn of(request: &Parts, connection: &Connection, dialect: Dialect) -> Self {
        let headers = &request.headers;
        let asked = request.uri.authority().map(hyper::http::uri::Authority::as_str);
        let asked = asked.or_else(|| headers.get(HOST)?.to_str().ok()).unwrap_or_default();
        let mut arrival = Self { origin: connection.origin.clone(), host: asked.to_owned() };
        if let Some(trusted) = &connection.trusted {
            let hop = match dialect {
                Dialect::Forwarded => forwarded(headers, trusted),
                Dialect::XForwarded => x_forwarded(headers, trusted),
            };
            arrival.origin.peer = hop.peer.unwrap_or(arrival.origin.peer);
            arrival.origin.secure = hop.secure.unwrap_or(arrival.origin.secure);
            arrival.host = hop.host.unwrap_or(arrival.host);
        }
        let length = without_usual_port(&arrival.host, arrival.origin.secure).len();
        arrival.host.truncate(length);
        arrival
    }
}

/// The host as browsers write it in `Origin` and URLs: the port that its scheme means anyway is left out.
/// Some proxies pass it on (`$host:$server_port` of nginx).
fn without_usual_port(host: &str, secure: bool) -> &str {
    host.strip_suffix(if secure { ":443" } else { ":80" }).unwrap_or(host)
}

/// The items of all lines of a header, the last first.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<&str> = lines.flat_map(|line| quoted_split(line, ',')).collect();
    all.into_iter().rev().take(HOPS).collect()
}

fn x_forwarded(headers: &HeaderMap, trusted: &Trusted) -> Hop {
    let mut peer = None;
    for item in items(headers, &X_FOR) {
        let Some(address) = node(item.trim()) else { break };
        peer = Some(address);
        if !trusted.has(address.ip()) {
            break;
        }
    }
    let last = |name| items(headers, &name).first().map(|text| text.trim().to_owned());
    Hop { peer, secure: last(X_PROTO).map(|text| is_secure(&text)), host: last(X_HOST).filter(|text| !text.is_empty()) }
}

fn forwarded(headers: &HeaderMap, trusted: &Trusted) -> Hop {
    let mut nearest = Hop::default();
    for item in items(headers, &FORWARDED) {
        let hop = element(item);
        let Some(address) = hop.peer else { break };
        nearest = hop;
        if !trusted.has(address.ip()) {
            break;
        }
    }
    nearest
}

/// `for=192.0.2.60;proto=https;host=example.org`
fn element(text: &str) -> Hop {
    let mut hop = Hop::default();
    for pair in quoted_split(text, ';') {
        let Some((key, value)) = pair.split_once('=') else { continue };
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        match key.trim().to_ascii_lowercase().as_str() {
            "for" => hop.peer = node(value),
            "proto" => hop.secure = Some(is_secure(value)),
            "host" => hop.host = Some(value.to_owned()),
            _ => {}
        }
    }
    hop
}

/// Splits at a sign outside quotes.
fn quoted_split(text: &str, sign: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == sign && !quoted
    })
}

fn is_secure(proto: &str) -> bool {
    proto.eq_ignore_ascii_case("https")
}

/// RFC 7239 §6: an address, perhaps with a port, IPv6 in brackets; bare IPv6 as `X-Forwarded-For` has it.
fn node(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address.to_canonical(), 0));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(SocketAddr::new(address.ip().to_canonical(), address.port()));
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok()?;
    Some(SocketAddr::new(bare.to_canonical(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn trusted() -> Trusted {
        Trusted::new(&["10.0.0.0/8".into(), "fd00::/8".into()]).unwrap()
    }

    #[test]
    fn the_port_that_the_scheme_means_is_not_part_of_the_host() {
        for (host, secure, bare) in [
            ("a.org:443", true, "a.org"),
            ("a.org:80", false, "a.org"),
            ("a.org:443", false, "a.org:443"),
            ("a.org:80", true, "a.org:80"),
            ("a.org:8443", true, "a.org:8443"),
            ("[::1]:443", true, "[::1]"),
            ("a.org", true, "a.org"),
        ] {
            assert_eq!(without_usual_port(host, secure), bare, "{host}");
        }
    }

    #[test]
    fn of_a_chain_the_last_address_that_is_no_proxys_counts() {
        for (chain, peer) in [
            (&["203.0.113.7"][..], Some("203.0.113.7:0")),
            (&["198.51.100.1, 203.0.113.7, 10.0.0.2"], Some("203.0.113.7:0")),
            (&["198.51.100.1", "203.0.113.7, 10.0.0.2, 10.0.0.3"], Some("203.0.113.7:0")),
            (&["10.0.0.9, 10.0.0.2"], Some("10.0.0.9:0")),
            (&["198.51.100.1, unknown"], None),
            (&["198.51.100.1, unknown, 10.0.0.2"], Some("10.0.0.2:0")),
            (&["2001:db8::1, fd00::2"], Some("[2001:db8::1]:0")),
            (&["203.0.113.7:51234"], Some("203.0.113.7:51234")),
            (&["::ffff:203.0.113.7"], Some("203.0.113.7:0")),
            (&[""], None),
        ] {
            let lines: Vec<_> = chain.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let hop = x_forwarded(&headers(&lines), &trusted());
            assert_eq!(hop.peer.map(|peer| peer.to_string()).as_deref(), peer, "{chain:?}");
        }
    }

    #[test]
    fn what_the_nearest_proxy_says_of_scheme_and_host_counts() {
        let hop = x_forwarded(
            &headers(&[("x-forwarded-proto", "https, http"), ("x-forwarded-host", "evil.example, a.org")]),
            &trusted(),
        );
        assert_eq!((hop.secure, hop.host.as_deref()), (Some(false), Some("a.org")));
    }

    #[test]
    fn forwarded_is_read_with_its_quotes() {
        let line =
            "for=192.0.2.43;proto=http, for=\"[2001:db8:cafe::17]:4711\";proto=HTTPS;host=\"a,b;c.org\", for=10.0.0.3";
        let hop = forwarded(&headers(&[("forwarded", line)]), &trusted());
        assert_eq!(hop.peer.unwrap().to_string(), "[2001:db8:cafe::17]:4711");
        assert_eq!((hop.secure, hop.host.as_deref()), (Some(true), Some("a,b;c.org")));
        let hop = forwarded(&headers(&[("forwarded", "for=_hidden;proto=https")]), &trusted());
        assert_eq!(hop, Hop::default());
    }
}
