//! The answer to `GET` and `HEAD` of a file, decided once: its header fields, its validators, and the part that is sent.
//!
//! [`download`](super::download) makes it. The fast path and hyper (HTTP/1 and HTTP/2) send it: both take the part from
//! [`FileAnswer::select`], and status and header fields from [`FileAnswer::head`].

use std::ops::Range;

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
};

use crate::hub::now;
use crate::proto::http::condition::{Conditions, Validator, Verdict};
use crate::proto::http::range::{self, Asked};
use crate::proto::http::reply::Refusal;

/// One form of a file, ready to be sent.
pub struct FileAnswer {
    /// The fields of the 200, without `Content-Length` and `Date`.
    pub headers: HeaderMap,
    /// What names this form.
    pub validator: Validator,
    /// Bytes of this form; `None` while it is compressed as it is sent.
    pub length: Option<u64>,
    /// Parts of it can be asked for.
    pub ranges: bool,
    /// The path for the access line.
    pub path: String,
}

/// The part of a file that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// 200.
    Whole,
    /// 304.
    Unmodified,
    /// 206.
    Range(Range<u64>),
    /// 206 with several ranges, which this boundary separates.
    Ranges(Vec<Range<u64>>, String),
}

impl FileAnswer {
    /// What a request's conditions and ranges select.
    ///
    /// # Errors
    /// 412, 416.
    pub fn select(&self, asked: &Conditions<'_>, is_get: bool) -> Result<Part, Refusal> {
        match asked.judge(Some(&self.validator), true) {
            Verdict::Failed => return Err(Refusal::precondition()),
            Verdict::NotModified => return Ok(Part::Unmodified),
            Verdict::Go => {}
        }
        // RFC 9110 §14.2: a range is defined for GET only.
        let wanted = asked.range().filter(|_| is_get && self.ranges && asked.range_holds(&self.validator, now()));
        let (Some(wanted), Some(size)) = (wanted, self.length) else { return Ok(Part::Whole) };
        match range::read(wanted, size) {
            Asked::Whole => Ok(Part::Whole),
            Asked::Nothing => Err(not_satisfiable(size)),
            Asked::Parts(parts) => Ok(match <[Range<u64>; 1]>::try_from(parts) {
                Ok([only]) => Part::Range(only),
                Err(several) => Part::Ranges(several, uuid::Uuid::now_v7().simple().to_string()),
            }),
        }
    }

    /// Status and header fields of the answer, without `Date`. The length of several ranges is known to their body.
    pub fn head(&self, part: &Part) -> (StatusCode, HeaderMap) {
        match part {
            Part::Unmodified => {
                let kept = self.headers.iter().filter(|(name, _)| !describes_content(name));
                (StatusCode::NOT_MODIFIED, kept.map(|(name, value)| (name.clone(), value.clone())).collect())
            }
            Part::Whole => {
                let mut headers = self.headers.clone();
                headers.extend(self.length.map(|length| (CONTENT_LENGTH, length.into())));
                (StatusCode::OK, headers)
            }
            Part::Range(range) => {
                let mut headers = self.headers.clone();
                headers.extend(self.range_fields(range));
                (StatusCode::PARTIAL_CONTENT, headers)
            }
            Part::Ranges(_, boundary) => {
                let mut headers = self.headers.clone();
                if let Ok(kind) = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}")) {
                    headers.insert(CONTENT_TYPE, kind);
                }
                (StatusCode::PARTIAL_CONTENT, headers)
            }
        }
    }

    /// The fields that a single range adds.
    pub fn range_fields(&self, range: &Range<u64>) -> Vec<(HeaderName, HeaderValue)> {
        let place = range::content_range(range, self.length.unwrap_or_default());
        let place = HeaderValue::try_from(place).ok().map(|place| (CONTENT_RANGE, place));
        place.into_iter().chain([(CONTENT_LENGTH, (range.end - range.start).into())]).collect()
    }
}

fn not_satisfiable(size: u64) -> Refusal {
    let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "the file has no such bytes");
    match HeaderValue::try_from(format!("bytes */{size}")) {
        Ok(size) => refusal.with(CONTENT_RANGE, size),
        Err(_) => refusal,
    }
}

/// RFC 9110 §15.4.5: fields about the content, or about the page it is shown as, are left out of a 304.
fn describes_content(name: &HeaderName) -> bool {
    let of_page = *name == REFERRER_POLICY || *name == "cross-origin-opener-policy";
    of_page || name.as_str().starts_with("content-") || *name == ACCEPT_RANGES
}
