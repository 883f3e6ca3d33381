//! `XCLIENT`: what a trusted machine in front of us (a proxy, a test) says of the client behind it.
//!
//! Postfix's extension, <https://www.postfix.org/XCLIENT_README.html>. Only networks the operator named may use it; a sign-in is never
//! taken from it.

use std::net::IpAddr;

use crate::proto::dialogue::Malformed;

/// Attributes taken, as EHLO lists them.
pub(super) const ATTRIBUTES: &str = "XCLIENT NAME ADDR PORT PROTO HELO";
/// Longest value kept.
const LONGEST_VALUE: usize = 255;

/// What was said; `None`: not said, or that it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xclient {
    /// The client's address.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
    /// Its name in the DNS.
    pub name: Option<String>,
    /// What it called itself.
    pub helo: Option<String>,
    /// It said EHLO (`ESMTP`), not HELO (`SMTP`).
    pub extended: Option<bool>,
}

impl Xclient {
    /// Reads the attributes behind the verb.
    ///
    /// # Errors
    /// Which one is wrong.
    pub(super) fn parse(rest: &str) -> Result<Self, Malformed> {
        let mut all = Self::default();
        let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty()).peekable();
        if words.peek().is_none() {
            return Err(wrong("XCLIENT needs an attribute"));
        }
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| wrong("the form is XCLIENT NAME=value"))?;
            let value = xtext(value).ok_or_else(|| wrong("a value of XCLIENT is not xtext (RFC 3461)"))?;
            let known = !matches!(value.to_ascii_uppercase().as_str(), "[UNAVAILABLE]" | "[TEMPUNAVAIL]");
            let value = known.then_some(value);
            match key.to_ascii_uppercase().as_str() {
                "ADDR" => all.address = value.map(|text| address(&text)).transpose()?,
                "PORT" => {
                    let port = value.map(|text| text.parse()).transpose();
                    all.port = port.map_err(|_| wrong("PORT is a number up to 65535"))?;
                }
                "NAME" => all.name = value,
                "HELO" => all.helo = value,
                "PROTO" => all.extended = value.map(|text| !text.eq_ignore_ascii_case("SMTP")),
                "LOGIN" => return Err(wrong("a sign-in is not taken from XCLIENT; use AUTH")),
                _ => return Err(wrong("an attribute of XCLIENT that was not offered")),
            }
        }
        Ok(all)
    }
}

fn wrong(text: &'static str) -> Malformed {
    Malformed::Syntax(text.into())
}

fn address(text: &str) -> Result<IpAddr, Malformed> {
    let plain = match text.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPV6:") => text.get(5..).unwrap_or_default(),
        _ => text,
    };
    plain.parse().map_err(|_| wrong("ADDR is an address like 192.0.2.1 or IPV6:2001:db8::1"))
}

/// RFC 3461 §4: `+XX` is a byte.
fn xtext(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        rest = more;
        if first != b'+' {
            bytes.push(first);
            continue;
        }
        let (digits, more) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = more;
    }
    let text = String::from_utf8(bytes).ok()?;
    let plain = text.len() <= LONGEST_VALUE && !text.chars().any(char::is_control);
    plain.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read() {
        let all = Xclient::parse("ADDR=IPV6:2001:db8::1 PORT=25 NAME=[UNAVAILABLE] HELO=a+2Bb proto=esmtp").unwrap();
        assert_eq!(all.address, "2001:db8::1".parse().ok());
        assert_eq!((all.port, all.name, all.helo, all.extended), (Some(25), None, Some("a+b".into()), Some(true)));
        assert_eq!(Xclient::parse("ADDR=[TEMPUNAVAIL]").unwrap(), Xclient::default());
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for text in
            ["", "ADDR", "ADDR=x", "PORT=65536", "LOGIN=root", "X=y", "HELO=+", "HELO=+0", "HELO=+0D+0A", "NAME=+zz"]
        {
            assert!(Xclient::parse(text).is_err(), "{text}");
        }
    }
}
