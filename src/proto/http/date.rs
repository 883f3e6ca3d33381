//! Dates as HTTP writes them (RFC 9110 §5.6.7) and as JSON does (RFC 3339), from and to the store's microseconds.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::hub::{Micros, now};

/// `Sun, 06 Nov 1994 08:49:37 GMT`; `None` for times no calendar holds.
pub fn imf(at: Micros) -> Option<String> {
    let whole = Timestamp::from_second(seconds(at)).ok()?;
    rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&whole).ok()
}

/// The value of `Last-Modified`: never later than the answer itself (RFC 9110 §8.8.2.1).
pub fn last_modified(at: Micros) -> Option<String> {
    imf(at.min(now()))
}

/// `1994-11-06T08:49:37Z`.
pub fn rfc3339(at: Micros) -> String {
    Timestamp::from_second(seconds(at)).map(|stamp| stamp.to_string()).unwrap_or_default()
}

/// `1994-11-06 08:49`, for people, in UTC.
pub fn short(at: Micros) -> String {
    Timestamp::from_second(seconds(at)).map(|stamp| stamp.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}

/// Whole seconds: all that an HTTP date can carry.
pub fn seconds(at: Micros) -> i64 {
    at.div_euclid(1_000_000)
}

/// Reads an HTTP date in any of the three forms of RFC 9110 §5.6.7, as seconds.
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    if !text.is_ascii() || text.len() > 40 {
        return None;
    }
    match httpdate::parse_http_date(text) {
        Ok(at) => i64::try_from(at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs()).ok(),
        // Times before 1970, which httpdate does not have.
        Err(_) => rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(Timestamp::as_second),
    }
}

/// Reads a time a client wants on its file: seconds since 1970 (also with a fraction), RFC 3339, or an HTTP date.
pub fn wished(text: &str) -> Option<Micros> {
    let text = text.trim();
    if let Ok(whole) = text.parse::<i64>() {
        return whole.checked_mul(1_000_000);
    }
    if let Some((whole, fraction)) = text.split_once('.')
        && let Ok(seconds) = whole.parse::<i64>()
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
        let micros = micros.parse::<i64>().ok()?;
        let micros = if whole.starts_with('-') { -micros } else { micros };
        return seconds.checked_mul(1_000_000)?.checked_add(micros);
    }
    if let Ok(stamp) = text.parse::<Timestamp>() {
        return Some(stamp.as_microsecond());
    }
    parse(text)?.checked_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: i64 = 784_111_777;

    #[test]
    fn the_three_forms_of_a_date_are_one_moment() {
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(THEN));
        assert_eq!(parse("Sunday, 06-Nov-94 08:49:37 GMT"), Some(THEN));
        assert_eq!(parse("Sun Nov  6 08:49:37 1994"), Some(THEN));
        for text in
            ["yesterday", "", "Sun, 06 Nov 1994", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 06 Nov 1994 25:49:37 GMT"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_is_written_as_it_is_read() {
        assert_eq!(imf(THEN * 1_000_000 + 999_999).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(rfc3339(THEN * 1_000_000), "1994-11-06T08:49:37Z");
        assert_eq!(imf(i64::MAX), None);
    }

    #[test]
    fn every_time_is_a_date() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
            (-1_000_000_000, "Sun, 24 Apr 1938 22:13:20 GMT"),
            (2_147_483_648, "Tue, 19 Jan 2038 03:14:08 GMT"),
            (4_294_967_296, "Sun, 07 Feb 2106 06:28:16 GMT"),
            (32_503_680_000, "Wed, 01 Jan 3000 00:00:00 GMT"),
        ] {
            let (imf, read) = (imf(seconds * 1_000_000), parse(text));
            assert_eq!(read, Some(seconds), "{text}");
            assert_eq!(imf.as_deref().and_then(parse), Some(seconds), "{imf:?}");
        }
        assert_eq!(imf(0).as_deref(), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        assert_eq!(imf(-1).as_deref(), Some("Wed, 31 Dec 1969 23:59:59 GMT"));
        assert_eq!((rfc3339(-1), short(-1)), ("1969-12-31T23:59:59Z".into(), "1969-12-31 23:59".into()));
    }

    #[test]
    fn last_modified_is_never_in_the_future() {
        assert_eq!(last_modified(THEN * 1_000_000), imf(THEN * 1_000_000));
        let clamped = last_modified(now() + 3_600_000_000).and_then(|text| parse(&text)).unwrap();
        assert!((seconds(now()) - clamped).abs() <= 1);
    }

    #[test]
    fn a_client_may_say_its_time_in_its_own_way() {
        assert_eq!(wished("784111777"), Some(THEN * 1_000_000));
        assert_eq!(wished("784111777.25"), Some(THEN * 1_000_000 + 250_000));
        assert_eq!(
            (wished("-1"), wished("-1.5"), wished("-0.5")),
            (Some(-1_000_000), Some(-1_500_000), Some(-500_000))
        );
        assert_eq!(wished("2147483648"), Some(2_147_483_648_000_000));
        assert_eq!(wished("1994-11-06T08:49:37Z"), Some(THEN * 1_000_000));
        assert_eq!(wished("9223372036854775807"), None);
    }
}
