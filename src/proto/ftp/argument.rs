//! The arguments of FTP commands: paths, numbers, addresses, times, quoted words. Pure.

use std::net::{Ipv4Addr, SocketAddr};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nom::bytes::complete::take_while_m_n;
use nom::character::complete::{char, digit1, one_of};
use nom::combinator::{all_consuming, map_opt, opt};
use nom::multi::count;
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

use crate::hub::Micros;
use crate::proto::dialogue::Malformed;

pub(super) fn syntax(words: &'static str) -> Malformed {
    Malformed::Syntax(words.into())
}

pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

pub(super) fn word(rest: &[u8]) -> String {
    String::from_utf8_lossy(trim(rest)).to_ascii_uppercase()
}

/// UTF-8, or else Latin-1 as old devices send it: no file is lost over its name.
pub(super) fn text(bytes: &[u8]) -> Result<String, Malformed> {
    if bytes.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return Err(syntax("a name cannot hold NUL, CR or LF"));
    }
    Ok(std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), str::to_owned))
}

/// A path, exactly as it came: blanks at its ends are part of it.
pub(super) fn path(rest: &[u8]) -> Result<String, Malformed> {
    match rest {
        [] => Err(syntax("a path is missing")),
        _ => text(rest),
    }
}

pub(super) fn maybe_path(rest: &[u8]) -> Result<Option<String>, Malformed> {
    if trim(rest).is_empty() { Ok(None) } else { text(rest).map(Some) }
}

/// What follows the flags of `ls` that some clients send: `-la`, `-1`. A flag is letters alone; `-x.tmp` and `-*.tmp` are names and patterns.
pub(super) fn without_flags(mut text: &str) -> &str {
    while let Some(rest) = text.strip_prefix('-') {
        let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
        if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'1') {
            break;
        }
        text = behind.trim_start_matches(' ');
    }
    text
}

/// `yyyymmddhhmmss path`: with MDTM some clients set a time so.
pub(super) fn dated(text: &str) -> Option<(Micros, &str)> {
    let (digits, path) = text.split_once(' ').filter(|(_, path)| !path.is_empty())?;
    let (_, modified) = all_consuming(stamp).parse(digits.as_bytes()).ok()?;
    Some((modified, path))
}

pub(super) fn letter(rest: &[u8], words: &'static str) -> Result<u8, Malformed> {
    match trim(rest) {
        [one] => Ok(one.to_ascii_uppercase()),
        _ => Err(syntax(words)),
    }
}

pub(super) fn number(rest: &[u8], words: &'static str) -> Result<u64, Malformed> {
    all_consuming(decimal).parse(trim(rest)).map(|(_, number)| number).map_err(|_| syntax(words))
}

/// `1024`, or `1024 R 128` with the longest record, which files do not have (RFC 959 §4.1.3).
pub(super) fn allocation(rest: &[u8], words: &'static str) -> Result<u64, Malformed> {
    let record = (char(' '), one_of("Rr"), char(' '), decimal::<u64>);
    let parsed = all_consuming(terminated(decimal, opt(record))).parse(trim(rest));
    parsed.map(|(_, number)| number).map_err(|_| syntax(words))
}

/// A command that takes no argument got none.
pub(super) fn bare_word<T>(rest: &[u8], command: T) -> Result<T, Malformed> {
    if trim(rest).is_empty() { Ok(command) } else { Err(syntax("this command takes no argument")) }
}

pub(super) fn decimal<T: std::str::FromStr>(input: &[u8]) -> IResult<&[u8], T> {
    map_opt(digit1, |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok()).parse(input)
}

/// `h1,h2,h3,h4,p1,p2`, each a byte in decimal. Some devices put another comma behind.
pub(super) fn host_port(input: &[u8]) -> IResult<&[u8], SocketAddr> {
    let numbers = terminated(count(preceded(char(','), decimal::<u8>), 5), opt(char(',')));
    map_opt((decimal::<u8>, numbers), |(first, rest)| {
        let [b, c, d, high, low] = rest.try_into().ok()?;
        let address = Ipv4Addr::new(first, b, c, d);
        Some(SocketAddr::new(address.into(), u16::from_be_bytes([high, low])))
    })
    .parse(input)
}

/// Times outside of these years are refused: ext4, the commonest file system, keeps none of them.
const KEPT_YEARS: std::ops::RangeInclusive<i16> = 1902..=2445;

/// `yyyymmddhhmm[ss[.f]]` in UTC.
pub(super) fn stamp(input: &[u8]) -> IResult<&[u8], Micros> {
    let seconds = opt((digits(2), opt(preceded(one_of("."), take_while_m_n(1, 9, |byte: u8| byte.is_ascii_digit())))));
    let parts = (digits(4), digits(2), digits(2), digits(2), digits(2), seconds);
    map_opt(parts, |(year, month, day, hour, minute, seconds)| {
        let (second, fraction) = seconds.map_or((0, None), |(second, fraction)| (second, fraction));
        let small = |number: i16| i8::try_from(number).ok();
        // A leap second is the last second of its minute here.
        let second = small(second.min(59))?;
        if !KEPT_YEARS.contains(&year) {
            return None;
        }
        let at = DateTime::new(year, small(month)?, small(day)?, small(hour)?, small(minute)?, second, 0).ok()?;
        let whole = at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond();
        Some(whole + fraction.map_or(0, micros))
    })
    .parse(input)
}

fn digits<'a>(how_many: usize) -> impl Parser<&'a [u8], Output = i16, Error = nom::error::Error<&'a [u8]>> {
    map_opt(take_while_m_n(how_many, how_many, |byte: u8| byte.is_ascii_digit()), |digits: &[u8]| {
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

fn micros(fraction: &[u8]) -> Micros {
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(6);
    digits.fold(0, |sum, digit| sum * 10 + Micros::from(digit - b'0'))
}

/// The next word: up to a blank, or between quotes with `""` for a quote in it. What follows has no blank before it.
pub(super) fn quoted_word(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start_matches(' ');
    let Some(mut rest) = text.strip_prefix('"') else {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        return (!word.is_empty()).then(|| (word.to_owned(), rest.trim_start_matches(' ')));
    };
    let mut word = String::new();
    loop {
        let (piece, behind) = rest.split_once('"')?;
        word.push_str(piece);
        match behind.strip_prefix('"') {
            Some(more) => {
                word.push('"');
                rest = more;
            }
            None => return Some((word, behind.trim_start_matches(' '))),
        }
    }
}

/// A path with, behind it, where to begin and end: `"a b" 0 100`, `a 0 100`, `a b`.
pub(super) fn path_and_range(text: &str) -> Result<(String, Range), Malformed> {
    let whole = path(text.as_bytes())?;
    let numbers = |text: &str| -> Option<Range> {
        let mut words = text.split_ascii_whitespace().map(whole_number);
        match (words.next(), words.next(), words.next()) {
            (None, _, _) => Some((0, None)),
            (Some(Some(from)), None, _) => Some((from, None)),
            (Some(Some(from)), Some(Some(to)), None) if from <= to => Some((from, Some(to))),
            _ => None,
        }
    };
    if whole.starts_with('"') {
        let (path, rest) = quoted_word(&whole).filter(|(path, _)| !path.is_empty()).ok_or_else(|| syntax(RANGE))?;
        return numbers(rest).map(|range| (path, range)).ok_or_else(|| syntax(RANGE));
    }
    // Without quotes only two numbers at the end are a range: a name may end with one.
    let mut parts = whole.rsplitn(3, ' ');
    let (to, from, name) = (parts.next(), parts.next(), parts.next());
    match (name, from.and_then(whole_number), to.and_then(whole_number)) {
        (Some(name), Some(from), Some(to)) if from <= to && !name.is_empty() => Ok((name.to_owned(), (from, Some(to)))),
        _ => Ok((whole, (0, None))),
    }
}

/// Digits and nothing else: `str::parse` would take a sign.
fn whole_number(text: &str) -> Option<u64> {
    all_consuming(decimal).parse(text.as_bytes()).ok().map(|(_, number)| number)
}

/// First byte, and the one behind the last; `None`: to the end.
pub(super) type Range = (u64, Option<u64>);

const RANGE: &str = "a path is needed, in quotes when two numbers follow: where to begin and to end";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_may_be_quoted() {
        assert_eq!(quoted_word("a b"), Some(("a".into(), "b")));
        assert_eq!(quoted_word("\"a \"\"b\"  c"), Some(("a \"b".into(), "c")));
        assert_eq!(quoted_word("\"a"), None);
        assert_eq!(quoted_word("  "), None);
    }

    #[test]
    fn a_time_may_stand_before_a_path() {
        assert_eq!(dated("20200101000000 a b"), Some((1_577_836_800_000_000, "a b")));
        assert!(
            [dated("20201301000000 a"), dated("20200101000000"), dated("20200101000000 ")].iter().all(Option::is_none)
        );
    }

    #[test]
    fn flags_are_letters_alone() {
        for (text, rest) in [
            ("-la", ""),
            ("-a -l a dir", "a dir"),
            ("-1 -x", ""),
            ("-la  *.txt", "*.txt"),
            ("-*.tmp", "-*.tmp"),
            ("-a -*.tmp", "-*.tmp"),
            ("-x.tmp", "-x.tmp"),
            ("-", "-"),
            ("- a", "- a"),
            ("--", "--"),
            ("-\u{e9}", "-\u{e9}"),
            ("a -l", "a -l"),
        ] {
            assert_eq!(without_flags(text), rest, "{text}");
        }
    }

    #[test]
    fn a_range_follows_a_path() {
        let read = |text: &str| path_and_range(text).ok();
        assert_eq!(read("a b"), Some(("a b".into(), (0, None))));
        assert_eq!(read("a b 7"), Some(("a b 7".into(), (0, None))));
        assert_eq!(read("a b 0 7"), Some(("a b".into(), (0, Some(7)))));
        assert_eq!(read("\"a b\""), Some(("a b".into(), (0, None))));
        assert_eq!(read("\"a 0 7\" 3"), Some(("a 0 7".into(), (3, None))));
        assert_eq!(read("\"a\" 3 9"), Some(("a".into(), (3, Some(9)))));
        for wrong in ["", "\"a\" 9 3", "\"a\" x", "\"a", "\"\""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
