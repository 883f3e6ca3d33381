//! Mail addresses as peers write them (RFC 5321 §4.1.2), read leniently: a scanner's firmware cannot be updated.
//!
//! Lenient never means routing: a source route is dropped, a quoted local part is taken literally, and whether a domain
//! is ours is asked of the hub alone.

use std::borrow::Cow;
use std::fmt;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while1};
use nom::character::complete::{char, none_of, satisfy};
use nom::combinator::{map, opt, recognize, value, verify};
use nom::multi::{many0, separated_list1};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Longest local part taken; RFC 5321 §4.5.3.1.1 asks for 64, tagged and encoded ones run longer.
pub const LONGEST_LOCAL: usize = 256;
/// Longest domain, RFC 5321 §4.5.3.1.2.
pub const LONGEST_DOMAIN: usize = 255;

/// One mail address. A missing domain is empty: `<postmaster>` (RFC 5321 §4.1.1.3) and devices that know no domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Without quotes and escapes; composed (NFC), so that one name has one spelling.
    pub local: String,
    /// Lower case, in A-label form, without the root's dot; a literal keeps its brackets.
    pub domain: String,
    /// Written with something only SMTPUTF8 (RFC 6531) allows.
    international: bool,
}

impl Address {
    /// From its two parts as they were written.
    #[must_use]
    pub fn new(local: &str, domain: &str) -> Self {
        let international = !local.is_ascii() || !domain.is_ascii();
        Self { local: composed(local).into_owned(), domain: a_labels(domain), international }
    }

    /// Was written with something only SMTPUTF8 (RFC 6531) allows.
    #[must_use]
    pub fn is_international(&self) -> bool {
        self.international
    }
}

impl fmt::Display for Address {
    /// In the form of RFC 5321, quoted where it must be; safe to put into a header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.local.is_empty() && self.local.chars().all(is_atom) {
            f.write_str(&self.local)?;
        } else {
            f.write_str("\"")?;
            for letter in self.local.chars() {
                if matches!(letter, '"' | '\\') {
                    f.write_str("\\")?;
                }
                write!(f, "{letter}")?;
            }
            f.write_str("\"")?;
        }
        if self.domain.is_empty() { Ok(()) } else { write!(f, "@{}", self.domain) }
    }
}

/// `<address>`, `<>` (`None`), a source route before it, or the address without brackets.
///
/// # Errors
/// nom's, when it is none of these.
pub fn path(input: &str) -> IResult<&str, Option<Address>> {
    alt((delimited((char('<'), blanks), preceded(opt(route), opt(mailbox)), (blanks, char('>'))), map(mailbox, Some)))
        .parse(input)
}

/// RFC 5321 appendix F.2: `@one,@two:` is read and ignored.
fn route(input: &str) -> IResult<&str, ()> {
    value((), terminated(separated_list1(char(','), preceded(char('@'), domain)), char(':'))).parse(input)
}

fn mailbox(input: &str) -> IResult<&str, Address> {
    map((alt((quoted, atom)), opt(preceded(char('@'), domain))), |(local, domain)| {
        Address::new(&local, domain.unwrap_or_default())
    })
    .parse(input)
}

fn atom(input: &str) -> IResult<&str, String> {
    map(verify(take_while1(is_atom), |text: &str| text.len() <= LONGEST_LOCAL), str::to_owned).parse(input)
}

fn quoted(input: &str) -> IResult<&str, String> {
    let letter = alt((preceded(char('\\'), satisfy(|letter| !letter.is_control())), none_of("\"\\")));
    map(
        verify(delimited(char('"'), many0(letter), char('"')), |letters: &Vec<char>| letters.len() <= LONGEST_LOCAL),
        |letters| letters.into_iter().collect(),
    )
    .parse(input)
}

/// A name or an address literal such as `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
fn domain(input: &str) -> IResult<&str, &str> {
    let literal = recognize(delimited(tag("["), take_while1(is_literal), tag("]")));
    let name = take_while1(is_domain);
    verify(alt((literal, name)), |text: &str| text.len() <= LONGEST_DOMAIN).parse(input)
}

/// RFC 6532 §3.1: comparing needs one form.
fn composed(text: &str) -> Cow<'_, str> {
    if is_nfc(text) { Cow::Borrowed(text) } else { text.nfc().collect::<String>().into() }
}

/// `Bücher.example.` is `xn--bcher-kva.example` (RFC 5891): one domain has one spelling. What is no such name stays as it was written.
fn a_labels(domain: &str) -> String {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    if domain.is_ascii() {
        return domain.to_ascii_lowercase();
    }
    idna::domain_to_ascii(domain).unwrap_or_else(|_| composed(&domain.to_lowercase()).into_owned())
}

fn blanks(input: &str) -> IResult<&str, ()> {
    value((), many0(char(' '))).parse(input)
}

/// RFC 5322 atext and the dot, plus what RFC 6531 adds.
fn is_atom(letter: char) -> bool {
    let atext = matches!(letter, '!' | '#'..='\'' | '*' | '+' | '-' | '/' | '=' | '?' | '^'..='`' | '{'..='~' | '.');
    letter.is_ascii_alphanumeric() || atext || is_beyond_ascii(letter)
}

fn is_domain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.') || is_beyond_ascii(letter)
}

fn is_literal(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, ':' | '.' | '-')
}

fn is_beyond_ascii(letter: char) -> bool {
    !letter.is_ascii() && !letter.is_control() && !letter.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Address> {
        let (rest, address) = path(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(rest, "", "{text}");
        address
    }

    #[expect(clippy::unnecessary_wraps, reason = "compared with what was read")]
    fn address(local: &str, domain: &str) -> Option<Address> {
        Some(Address::new(local, domain))
    }

    #[test]
    fn addresses_are_read_as_devices_write_them() {
        assert_eq!(read("<>"), None);
        assert_eq!(read("<a@B.example.>"), address("a", "b.example"));
        assert_eq!(read("< a@b >"), address("a", "b"));
        assert_eq!(read("a@b"), address("a", "b"));
        assert_eq!(read("<postmaster>"), address("postmaster", ""));
        assert_eq!(read("<@x,@y.example:u@d>"), address("u", "d"));
        assert_eq!(read("<\"a b\\\"c\"@d>"), address("a b\"c", "d"));
        assert_eq!(read("<a@[192.0.2.1]>"), address("a", "[192.0.2.1]"));
        assert_eq!(read("<a@[IPv6:2001:DB8::1]>"), address("a", "[ipv6:2001:db8::1]"));
        assert_eq!(read("<.a..b.@c>"), address(".a..b.", "c"));
        assert_eq!(read("<jürgen@bücher.example>"), address("jürgen", "bücher.example"));
        assert_eq!(read("<jürgen@bücher.example>").unwrap().to_string(), "jürgen@xn--bcher-kva.example");
        assert_eq!(read("<scans+2026@d>"), address("scans+2026", "d"));
    }

    #[test]
    fn one_name_has_one_spelling() {
        assert_eq!(read("<ju\u{308}rgen@BU\u{308}CHER.example>"), read("<jürgen@bücher.example.>"));
        let (written, encoded) = (read("<a@bücher.example>").unwrap(), read("<a@XN--bcher-kva.example>").unwrap());
        assert_eq!(written.domain, encoded.domain);
        assert!(written.is_international() && !encoded.is_international());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "<", "<a", "<@x:>x", "<a@>", "<a@[1>", "<a b@c>", "<\"a@b>", "<a@b@c>", "<a,b@c>", "<@x,y:u@d>"]
        {
            let whole = path(text).is_ok_and(|(rest, _)| rest.is_empty());
            assert!(!whole, "{text}");
        }
        assert!(path(&format!("<{}@d>", "a".repeat(257))).is_err());
        assert!(path(&format!("<a@{}>", "d".repeat(256))).is_err());
    }

    #[test]
    fn an_address_is_written_so_that_it_reads_back() {
        for text in ["<a.b@c>", "<\"a b\"@c>", "<\"a\\\\\\\"\"@c>", "<\"\"@c>", "<x>"] {
            let first = read(text);
            let again = first.as_ref().map(|address| format!("<{address}>")).unwrap();
            assert_eq!(read(&again), first, "{text}");
        }
    }
}
