//! `PUT` with `Content-Range`: parts of a file in order, kept out of sight until the last one is here.
//!
//! RFC 9110 §14.5 leaves partial PUT to agreement. Ours: a part goes on exactly where what is kept ends, or before; nothing of the file
//! that is there is changed by a part, it is replaced whole by the last one. The same broken uploads can be gone on with by FTP.

use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::{CONTENT_DIGEST, REPR_DIGEST, condition, digest_of, go_on_later, leave, options, refused, stored};
use crate::error::{Error, Kind};
use crate::hub::{TreePath, Upload, Verb, WriteMode, WriteOptions};
use crate::proto::http::body::Note;
use crate::proto::http::reply::{self, Answer, Refusal};
use crate::proto::http::visit::Visit;

const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

/// What `Content-Range` says of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// `bytes */TOTAL`: nothing, how much is here?
    Question,
    /// `bytes FIRST-LAST/TOTAL`.
    Bytes {
        /// First byte.
        first: u64,
        /// Bytes of the part.
        count: u64,
        /// Bytes of the whole.
        total: u64,
    },
}

impl Part {
    /// Reads the header; `None` when there is none, or when the part is the whole.
    pub(super) fn read(visit: &Visit<'_>) -> Result<Option<Self>, Refusal> {
        let Some(value) = visit.headers().get(header::CONTENT_RANGE) else { return Ok(None) };
        let part = value.to_str().ok().and_then(Self::parse).ok_or_else(|| {
            Refusal::bad("Content-Range of a PUT is `bytes FIRST-LAST/TOTAL` with all three known, or `bytes */TOTAL`")
        })?;
        let length = visit.intake.length();
        match part {
            Self::Question if length != Some(0) => Err(Refusal::bad("`bytes */TOTAL` is asked without a body")),
            Self::Bytes { count, .. } if length.is_some_and(|length| length != count) => {
                Err(Refusal::bad("the body is not as long as its Content-Range says"))
            }
            Self::Bytes { first: 0, count, total } if count == total && length.is_some() => Ok(None),
            part => Ok(Some(part)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
        let total = number(total)?;
        if range == "*" {
            return Some(Self::Question);
        }
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        (first <= last && last < total).then(|| Self::Bytes { first, count: last - first + 1, total })
    }
}

/// Answers `PUT` of a part.
///
/// # Errors
/// Those of the hub; 409 with `Upload-Offset` for a part that does not go on where what is kept ends.
pub(super) async fn put(visit: &mut Visit<'_>, path: &TreePath, part: Part, note: &mut Note) -> Answer {
    if visit.caller.is_guest() {
        visit.caller.allow(Verb::Create, path)?;
        return Err(
            Error::new(Kind::Unauthenticated, "a part is kept for who signs in; send the whole, or use tus").into()
        );
    }
    let here = visit.caller.resumable(path).unwrap_or(0);
    let Part::Bytes { first, count, total } = part else {
        let mut response = reply::bare(StatusCode::NO_CONTENT);
        reply::set(&mut response, UPLOAD_OFFSET, &here.to_string());
        return Ok(response);
    };
    if visit.headers().contains_key(REPR_DIGEST) {
        return Err(Refusal::bad("a part has a Content-Digest; Repr-Digest is that of the whole"));
    }
    if first > here {
        return Err(out_of_place(here));
    }
    let condition = condition(visit, path).await?;
    let options = WriteOptions { mode: WriteMode::Continue(first), size: Some(total), ..options(visit, condition)? };
    let write = visit.caller.write(path, options).await;
    let mut upload = write.map_err(|error| match error.kind() {
        // Another request took what was kept a moment ago.
        Kind::Invalid => out_of_place(0),
        _ => refused(visit, path, condition.is_some(), error),
    })?;
    go_on_later(visit);
    let taken = take(visit, &mut upload, count).await;
    note.taken = visit.intake.taken();
    if let Err(refusal) = taken {
        leave(upload, &refusal).await;
        return Err(refusal);
    }
    if first + count < total {
        let kept = upload.set_aside().await?;
        let mut response = reply::bare(StatusCode::ACCEPTED);
        reply::set(&mut response, UPLOAD_OFFSET, &kept.to_string());
        return Ok(response);
    }
    let receipt = upload.commit().await.map_err(|error| refused(visit, path, condition.is_some(), error))?;
    Ok(stored(visit, &receipt))
}

/// Moves the part into the upload: exactly as many bytes as it says, with the digest it says.
async fn take(visit: &mut Visit<'_>, upload: &mut Upload, count: u64) -> Result<(), Refusal> {
    let expected = digest_of(visit, &CONTENT_DIGEST)?;
    let mut hasher = expected.map(|_| Sha256::new());
    let mut left = count;
    while let Some(chunk) = visit.intake.next().await? {
        let size = chunk.len() as u64;
        left = left.checked_sub(size).ok_or_else(|| Refusal::bad("the body is longer than its Content-Range says"))?;
        if let Some(hasher) = &mut hasher {
            hasher.update(&chunk);
        }
        upload.push(chunk).await?;
    }
    if left > 0 {
        return Err(Refusal::bad("the body is shorter than its Content-Range says"));
    }
    match hasher.map(|hasher| <[u8; 32]>::from(hasher.finalize())) == expected {
        true => Ok(()),
        false => Err(Refusal::bad("the part is not what its digest says; it was not kept")),
    }
}

fn out_of_place(here: u64) -> Refusal {
    let text = format!("a part goes on where what is kept ends: {here} bytes are here");
    let refusal = Refusal::new(StatusCode::CONFLICT, text);
    refusal.with(UPLOAD_OFFSET, HeaderValue::from(here))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_says_where_it_belongs() {
        assert_eq!(Part::parse("bytes 5-9/10"), Some(Part::Bytes { first: 5, count: 5, total: 10 }));
        assert_eq!(Part::parse("bytes */10"), Some(Part::Question));
        for text in
            ["bytes 5-9/*", "bytes 9-5/10", "bytes 5-10/10", "bytes -5/10", "bytes +1-2/5", "5-9/10", "items 0-1/2"]
        {
            assert_eq!(Part::parse(text), None, "{text}");
        }
    }
}
