//! The parts of FTP that read numbers, addresses, dates and patterns: no argument panics, and a pattern answers in bounded time.

use stoa::proto::ftp::command::parse;
use stoa::proto::ftp::glob::matches;

const VERBS: [&str; 16] = [
    "PORT ",
    "EPRT ",
    "EPSV ",
    "MFMT ",
    "MDTM ",
    "SITE UTIME ",
    "SITE CHMOD ",
    "SITE ",
    "TYPE ",
    "ALLO ",
    "REST ",
    "OPTS ",
    "HOST ",
    "LIST ",
    "XCRC ",
    "HASH ",
];

/// Panics when something is wrong.
pub fn check(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    if let Some(verb) = VERBS.get(usize::from(*first)) {
        let _ = parse(&[verb.as_bytes(), rest].concat());
        return;
    }
    let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (pattern, name) = rest.split_at(at);
    let name = name.get(1..).unwrap_or_default();
    if matches(pattern, name) {
        assert!(matches(&[pattern, b"*"].concat(), name), "a star behind takes nothing away");
    }
}
