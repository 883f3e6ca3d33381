//! `PUT`: everything that can be refused is refused before a byte of the body is taken.

mod ranged;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderName};
use hyper::{Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind};
use crate::hub::{Receipt, TreePath, Upload, Verb, WriteOptions};
use crate::proto::http::body::{Note, Outgoing};
use crate::proto::http::condition::{self, Verdict};
use crate::proto::http::date;
use crate::proto::http::receipt::{self, Once};
use crate::proto::http::reply::{self, Answer, Refusal};
use crate::proto::http::visit::Visit;

use ranged::Part;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const OC_MTIME: HeaderName = HeaderName::from_static("x-oc-mtime");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
const WANT_REPR_DIGEST: HeaderName = HeaderName::from_static("want-repr-digest");
const X_MODIFIED: HeaderName = HeaderName::from_static("x-modified");

/// Answers `PUT` of a file, or of a part of one.
///
/// # Errors
/// Those of the hub; 412 for a condition; 400 for a digest that is not the body's.
pub async fn put(visit: &mut Visit<'_>, path: &TreePath, note: &mut Note) -> Answer {
    sane(visit)?;
    if let Some(part) = Part::read(visit)? {
        return ranged::put(visit, path, part, note).await;
    }
    let expected = digest_of(visit, &REPR_DIGEST)?.or(digest_of(visit, &CONTENT_DIGEST)?);
    let once = Once::of(visit)?;
    let key = once.as_ref().map(|once| once.file(0, ""));
    if let Some(key) = &key
        && let Some(receipt) = receipt::found(visit, key).await?
    {
        receipt::same_body(visit, &receipt, expected).await?;
        return Ok(stored(visit, &receipt));
    }
    let condition = condition(visit, path).await?;
    let options = WriteOptions {
        digest: visit.headers().contains_key(WANT_REPR_DIGEST) || expected.is_some() || once.is_some(),
        once: key,
        ..options(visit, condition)?
    };
    let write = visit.caller.write(path, options).await;
    let mut upload = write.map_err(|error| refused(visit, path, condition.is_some(), error))?;
    go_on_later(visit);
    let taken = take(visit, &mut upload, expected).await;
    note.taken = visit.intake.taken();
    if let Err(refusal) = taken {
        leave(upload, &refusal).await;
        return Err(refusal);
    }
    let receipt = upload.commit().await.map_err(|error| refused(visit, path, condition.is_some(), error))?;
    Ok(stored(visit, &receipt))
}

/// How a file is written, whole or in parts.
fn options(visit: &Visit<'_>, condition: Option<Option<u64>>) -> Result<WriteOptions, Refusal> {
    Ok(WriteOptions {
        size: visit.intake.length().or_else(|| expected_length(visit)),
        modified: modified(visit)?,
        only_if: condition,
        keep_partial: true,
        folders: visit.flag("folders"),
        receipt: true,
        ..WriteOptions::default()
    })
}

/// Who is signed in can go on with what came when a drain cuts it.
fn go_on_later(visit: &mut Visit<'_>) {
    if !visit.caller.is_guest() {
        visit.intake.is_resumable();
    }
}

/// A body that broke off can be gone on with; what was refused is forgotten.
async fn leave(upload: Upload, refusal: &Refusal) {
    match refusal.status == StatusCode::REQUEST_TIMEOUT {
        true => upload.abandon().await,
        false => upload.discard().await,
    }
}

/// What a `PUT` may not carry.
fn sane(visit: &Visit<'_>) -> Result<(), Refusal> {
    let encoded = visit.header(header::CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"));
    if encoded {
        let text = "a body is stored as it comes; send it without Content-Encoding";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    Ok(())
}

/// The request's conditions, judged now; and what must still be there at the commit.
async fn condition(visit: &Visit<'_>, path: &TreePath) -> Result<Option<Option<u64>>, Refusal> {
    if !condition::any(visit.headers()) {
        return Ok(None);
    }
    let there = match visit.caller.stat(path).await {
        Ok(entry) => Some(entry.node),
        Err(error) if error.kind() == Kind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    // RFC 9110 §13.2.1: who may not write learns nothing of conditions.
    visit.caller.allow_seemingly(if there.is_some() { Verb::Overwrite } else { Verb::Create }, path)?;
    match condition::judge(visit.headers(), there.as_ref(), false) {
        Verdict::Failed | Verdict::NotModified => Err(Refusal::precondition()),
        Verdict::Go => Ok(Some(there.map(|node| node.tag))),
    }
}

/// The length macOS announces when it sends a file in chunks.
fn expected_length(visit: &Visit<'_>) -> Option<u64> {
    visit.header(HeaderName::from_static("x-expected-entity-length"))?.trim().parse().ok()
}

/// The time the client wants on its file.
pub fn modified(visit: &Visit<'_>) -> Result<Option<i64>, Refusal> {
    let Some(text) = visit.header(X_MODIFIED).or_else(|| visit.header(OC_MTIME)) else { return Ok(None) };
    match date::wished(text) {
        Some(at) => Ok(Some(at)),
        None => Err(Refusal::bad("X-Modified is seconds since 1970, an RFC 3339 time or an HTTP date")),
    }
}

/// The SHA-256 the client says its body has (RFC 9530). Other algorithms are not looked at.
fn digest_of(visit: &Visit<'_>, name: &HeaderName) -> Result<Option<[u8; 32]>, Refusal> {
    let Some(list) = visit.header(name.clone()) else { return Ok(None) };
    let Some(value) = list.split(',').find_map(|item| item.trim().strip_prefix("sha-256=")) else { return Ok(None) };
    let encoded = value.trim().strip_prefix(':').and_then(|rest| rest.strip_suffix(':'));
    let bytes = encoded.and_then(|text| STANDARD.decode(text).ok());
    match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
        Some(digest) => Ok(Some(digest)),
        None => Err(Refusal::bad("the digest is not `sha-256=:BASE64:` of 32 bytes")),
    }
}

/// Moves the body into the upload and compares its digest, before anything is committed.
async fn take(visit: &mut Visit<'_>, upload: &mut Upload, expected: Option<[u8; 32]>) -> Result<(), Refusal> {
    let mut hasher = expected.map(|_| Sha256::new());
    while let Some(chunk) = visit.intake.next().await? {
        if let Some(hasher) = &mut hasher {
            hasher.update(&chunk);
        }
        upload.push(chunk).await?;
    }
    let found = hasher.map(|hasher| <[u8; 32]>::from(hasher.finalize()));
    if found != expected {
        return Err(Refusal::bad("the body is not what its digest says; nothing was stored"));
    }
    Ok(())
}

/// A write's refusal in HTTP's terms.
fn refused(visit: &Visit<'_>, path: &TreePath, conditional: bool, error: Error) -> Refusal {
    if conditional && error.kind() == Kind::Conflict {
        return Refusal::precondition();
    }
    // RFC 9110 §9.3.4 leaves it open; RFC 4918 §9.7.1 asks for 409 when the folder is missing.
    if error.kind() == Kind::NotFound && visit.caller.seeming_rights(path).has(Verb::Create) {
        return Refusal::new(StatusCode::CONFLICT, "its folder is not there; make it first, or add ?folders=1");
    }
    error.into()
}

/// The receipt, and what the sync clients of ownCloud's kind look for.
fn stored(visit: &Visit<'_>, receipt: &Receipt) -> Response<Outgoing> {
    let mut response = receipt::answer(visit, receipt);
    accept_time(visit, &mut response);
    response
}

/// Says that the time a client wanted is on the file, in the words of ownCloud's kind.
pub fn accept_time(visit: &Visit<'_>, response: &mut Response<Outgoing>) {
    if visit.headers().contains_key(OC_MTIME) {
        reply::set(response, OC_MTIME, "accepted");
    }
}
