//! Dates as HTTP writes them (RFC 9110 §5.6.7) and as JSON does (RFC 3339), from and to the store's microseconds.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;

use crate::hub::Micros;

/// `Sun, 06 Nov 1994 08:49:37 GMT`; `None` for times no calendar holds.
pub fn imf(at: Micros) -> Option<String> {
    let whole = Timestamp::from_second(seconds(at)).ok()?;
    rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&whole).ok()
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
    if let Ok(stamp) = rfc2822::DateTimeParser::new().parse_timestamp(text) {
        return Some(stamp.as_second());
    }
    // The obsolete forms a recipient must still read: RFC 850 and asctime.
    let rest = text.split_once(", ").map_or(text, |(_, rest)| rest);
    let civil = DateTime::strptime("%d-%b-%y %H:%M:%S GMT", rest)
        .or_else(|_| DateTime::strptime("%a %b %e %H:%M:%S %Y", text))
        .ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

/// Reads a time a client wants on its file: seconds since 1970 (also with a fraction), RFC 3339, or an HTTP date.
pub fn wished(text: &str) -> Option<Micros> {
    let text = text.trim();
    if let Ok(whole) = text.parse::<i64>() {
        return whole.checked_mul(1_000_000);
    }
    if let Some((whole, fraction)) = text.split_once('.')
        && let Ok(whole) = whole.parse::<i64>()
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
        return whole.checked_mul(1_000_000)?.checked_add(micros.parse::<i64>().ok()?);
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
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn a_date_is_written_as_it_is_read() {
        assert_eq!(imf(THEN * 1_000_000 + 999_999).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(rfc3339(THEN * 1_000_000), "1994-11-06T08:49:37Z");
        assert_eq!(imf(i64::MAX), None);
    }

    #[test]
    fn a_client_may_say_its_time_in_its_own_way() {
        assert_eq!(wished("784111777"), Some(THEN * 1_000_000));
        assert_eq!(wished("784111777.25"), Some(THEN * 1_000_000 + 250_000));
        assert_eq!(wished("1994-11-06T08:49:37Z"), Some(THEN * 1_000_000));
        assert_eq!(wished("9223372036854775807"), None);
    }
}
