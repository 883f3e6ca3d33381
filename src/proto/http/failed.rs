//! Uploads that were refused, for `stoa trace --conversations`: what a machine asked for, and what it was told.

use hyper::header::{self, HeaderName};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use crate::proto::http::body::Note;
use crate::proto::http::reply::Refusal;
use crate::telemetry::Record;

/// Headers that tell of the body and of its sender, and hold no secret.
const SHOWN: [HeaderName; 6] = [
    header::USER_AGENT,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::TRANSFER_ENCODING,
    header::EXPECT,
];

/// Keeps the conversation of a refused upload.
pub fn keep(refusal: &Refusal, parts: &Parts, note: &Note) {
    let proves = parts.headers.contains_key(header::AUTHORIZATION);
    if !is_failure(&parts.method, refusal.status, proves) {
        return;
    }
    let mut record = Record::default();
    let mut heard = |line: String, hidden| record.heard(line.as_bytes(), hidden, note.started);
    heard(format!("{} {} {:?}", parts.method, note.path, parts.version), false);
    for name in SHOWN {
        if let Some(value) = parts.headers.get(&name) {
            heard(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())), false);
        }
    }
    if proves {
        heard(format!("{}: ", header::AUTHORIZATION), true);
    }
    record.said(format!("{:?} {}\n{}", parts.version, refusal.status, refusal.text).as_bytes());
    let why = format!("{} of {} was refused: {}", parts.method, note.path, refusal.text);
    record.file(&note.origin, &note.account, &why);
}

/// An upload failed; a first request without a password, and a condition that does not hold, are how clients work.
fn is_failure(method: &Method, status: StatusCode, proves: bool) -> bool {
    let brings = matches!(*method, Method::PATCH | Method::POST | Method::PUT);
    let asks = status == StatusCode::UNAUTHORIZED && !proves;
    brings && !asks && status != StatusCode::PRECONDITION_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_that_fail_are_kept_and_what_clients_ask_by_habit_is_not() {
        for (method, status, proves, kept) in [
            (Method::PUT, 507, true, true),
            (Method::PUT, 507, false, true),
            (Method::POST, 403, true, true),
            (Method::PATCH, 413, false, true),
            (Method::PUT, 401, true, true),
            (Method::PUT, 401, false, false),
            (Method::PUT, 412, true, false),
            (Method::GET, 404, true, false),
            (Method::from_bytes(b"PROPFIND").unwrap_or_default(), 403, true, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            assert_eq!(is_failure(&method, status, proves), kept, "{method} {status} {proves}");
        }
    }
}
