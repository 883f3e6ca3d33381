//! The headers of tus, read and written.

use hyper::Response;
use hyper::header::{self, HeaderName};

use crate::hub::{Receipt, UploadResource};
use crate::proto::http::body::Outgoing;
use crate::proto::http::receipt;
use crate::proto::http::reply::{self, Refusal};
use crate::proto::http::visit::Visit;
use crate::proto::http::{date, target};

pub const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");

pub(super) const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");

pub(super) const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");

pub(super) const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");

pub(super) const TUS_CHECKSUM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");

pub(super) const UPLOAD_CONCAT: HeaderName = HeaderName::from_static("upload-concat");

pub(super) const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");

pub(super) const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");

pub(super) const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");

pub(super) const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");

pub(super) const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");

pub(super) const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

pub(super) const CHUNK: &str = "application/offset+octet-stream";

/// A number in a header; `None` when the header is not there.
pub(super) fn number(visit: &Visit<'_>, name: &HeaderName) -> Result<Option<u64>, Refusal> {
    let Some(value) = visit.headers().get(name) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    match text.and_then(|text| text.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Refusal::bad(format!("{name} is not a number of bytes"))),
    }
}

pub(super) fn expires(response: &mut Response<Outgoing>, resource: &UploadResource) {
    if let Some(text) = date::imf(resource.expires) {
        reply::set(response, UPLOAD_EXPIRES, &text);
    }
}

/// What a finished upload says beside its offset: where the file is, and its receipt.
pub(super) fn finished(response: &mut Response<Outgoing>, receipt: &Receipt) {
    reply::set(response, UPLOAD_OFFSET, &receipt.bytes.to_string());
    reply::set(response, header::CONTENT_LOCATION, &target::url(&receipt.path, false));
    receipt::head(response, receipt);
}
