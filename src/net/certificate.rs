//! The two fields of X.509 the daemon must know: when a certificate ends, to warn before clients refuse it; and whom it is for.

use std::net::IpAddr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// RFC 5280 §4.1: the version stands in an explicit tag 0, the extensions in 3.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const OCTETS: u8 = 0x04;
/// The object identifier of subjectAltName, 2.5.29.17, with tag and length.
const SUBJECT_ALT_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];
/// RFC 5280 §4.2.1.6.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// `notAfter` of a DER certificate; `None` when it is not where RFC 5280 §4.1 puts it.
pub(super) fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (validity, _) = from_validity(der)?;
    let (_, _not_before, rest) = element(validity)?;
    let (tag, until, _) = element(rest)?;
    time(tag, std::str::from_utf8(until).ok()?)
}

/// Names and addresses a certificate is for, in lower case, wildcards as `*.example.org`. The common name does not count (RFC 9525).
pub(super) fn names(der: &[u8]) -> Vec<String> {
    alternatives(der).unwrap_or_default()
}

fn alternatives(der: &[u8]) -> Option<Vec<String>> {
    let (_, mut rest) = from_validity(der)?;
    let extensions = loop {
        let (tag, content, after) = element(rest)?;
        rest = after;
        if tag == EXTENSIONS {
            break content;
        }
    };
    let (mut extensions, _) = expect(extensions, SEQUENCE)?;
    while let Some((extension, after)) = expect(extensions, SEQUENCE) {
        extensions = after;
        let Some(mut value) = extension.strip_prefix(SUBJECT_ALT_NAME) else { continue };
        // A flag `critical` may stand before the value.
        while let Some((tag, content, after)) = element(value) {
            if tag == OCTETS {
                return expect(content, SEQUENCE).map(|(list, _)| general_names(list));
            }
            value = after;
        }
    }
    None
}

fn general_names(mut list: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((tag, content, after)) = element(list) {
        list = after;
        match tag {
            DNS_NAME => names.extend(std::str::from_utf8(content).map(str::to_ascii_lowercase)),
            IP_ADDRESS => {
                let four = <[u8; 4]>::try_from(content).map(IpAddr::from);
                let address = four.or_else(|_| <[u8; 16]>::try_from(content).map(IpAddr::from));
                names.extend(address.map(|address| address.to_string()));
            }
            _ => {}
        }
    }
    names
}

/// The content of `validity`, and what follows it.
fn from_validity(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, after)) = expect(rest, VERSION) {
        rest = after;
    }
    let (_serial, rest) = expect(rest, INTEGER)?;
    let (_signature, rest) = expect(rest, SEQUENCE)?;
    let (_issuer, rest) = expect(rest, SEQUENCE)?;
    expect(rest, SEQUENCE)
}

/// The element at the front when it has this tag, and what follows it.
fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// X.690 §8.1: tag, length, content.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// RFC 5280 §4.1.2.5: `YYMMDDHHMMSSZ`, where 50 and above mean 19YY, or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let full = match tag {
        UTC_TIME if text.len() == 13 => {
            let century = if text.get(..2)?.parse::<u8>().ok()? >= 50 { "19" } else { "20" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME if text.len() == 15 => text.to_owned(),
        _ => return None,
    };
    let moment = DateTime::strptime("%Y%m%d%H%M%S", full.strip_suffix('Z')?).ok()?;
    moment.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["x.example".into()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 3, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_last_day_is_read_in_both_notations() {
        for year in [2030, 2049, 2050, 4096] {
            assert_eq!(not_after(&certificate(year)).unwrap().to_string(), format!("{year}-03-01T00:00:00Z"));
        }
    }

    #[test]
    fn whom_it_is_for_is_read_with_wildcards_and_addresses() {
        let names: Vec<String> = ["Www.A.org", "*.b.org", "10.0.0.7", "::1"].map(String::from).into();
        let params = rcgen::CertificateParams::new(names).unwrap();
        let der = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec();
        assert_eq!(super::names(&der), ["www.a.org", "*.b.org", "10.0.0.7", "::1"]);
        let bare = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        let der = bare.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec();
        assert!(super::names(&der).is_empty());
    }

    #[test]
    fn no_cut_or_flip_of_a_certificate_panics() {
        let der = certificate(2030);
        for at in 0..der.len() {
            assert_eq!(not_after(&der[..at]).filter(|_| at < 100), None);
            let mut flipped = der.clone();
            flipped[at] ^= 0xff;
            let _ = (not_after(&flipped), super::names(&flipped), super::names(&der[..at]));
        }
    }
}
