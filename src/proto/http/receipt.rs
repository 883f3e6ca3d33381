//! What a writer is told: the same receipt by PUT, form and upload in pieces, now and when the request is repeated.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderName};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind};
use crate::hub::{OnceKey, OnceTurn, Receipt};
use crate::proto::http::base::Base;
use crate::proto::http::body::Outgoing;
use crate::proto::http::reply::{self, Refusal};
use crate::proto::http::visit::Visit;
use crate::proto::http::{condition, date, target};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const RECEIPT: HeaderName = HeaderName::from_static("stoa-receipt");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// 201 with the place for something new, 204 for something replaced; with the receipt as JSON (201, 200) for who asks for that.
pub fn answer(visit: &Visit<'_>, receipt: &Receipt) -> Response<Outgoing> {
    let json = reply::wants(visit.headers(), "application/json");
    let mut response = match json {
        true => reply::typed(Outgoing::whole(format!("{}\n", value(&visit.rules.base, receipt))), "application/json"),
        false => reply::bare(StatusCode::NO_CONTENT),
    };
    if receipt.created {
        *response.status_mut() = StatusCode::CREATED;
        reply::set(&mut response, header::LOCATION, &target::url(&receipt.path, false));
    }
    head(&mut response, receipt);
    response
}

/// The headers of a receipt, beside `Location`.
pub fn head(response: &mut Response<Outgoing>, receipt: &Receipt) {
    // The tag is known while the file is what it was then.
    if receipt.tag != 0 {
        reply::set(response, header::ETAG, &condition::etag(receipt.tag));
    }
    if let Some(modified) = date::last_modified(receipt.modified) {
        reply::set(response, header::LAST_MODIFIED, &modified);
    }
    if let Some(digest) = receipt.sha256 {
        reply::set(response, REPR_DIGEST, &format!("sha-256=:{}:", STANDARD.encode(digest)));
    }
    if !receipt.id.is_empty() {
        reply::set(response, RECEIPT, &receipt.id);
    }
}

/// The receipt as JSON.
pub fn value(base: &Base, receipt: &Receipt) -> Value {
    json!({
        "path": receipt.path.to_string(),
        "url": base.url(&receipt.path, false),
        "bytes": receipt.bytes,
        "created": receipt.created,
        "modified": date::rfc3339(receipt.modified),
        "etag": (receipt.tag != 0).then(|| condition::etag(receipt.tag)),
        "sha256": receipt.sha256.map(|digest| hex(&digest)),
        "receipt": receipt.id,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// A request that may be repeated: its key, and the right to do it.
pub struct Once {
    key: String,
    request: String,
    _turn: OnceTurn,
}

impl Once {
    /// Reads the `Idempotency-Key` of a request for `place`, in quotes or without; `None` when it has none.
    ///
    /// # Errors
    /// 400 for a key that is none, 401 for a guest, 409 while the same request is being done.
    pub fn of(visit: &Visit<'_>) -> Result<Option<Self>, Refusal> {
        let Some(value) = visit.headers().get(IDEMPOTENCY_KEY) else { return Ok(None) };
        let plain = |text: &&str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        let Some(text) = value.to_str().ok().filter(plain) else {
            return Err(Refusal::bad("the Idempotency-Key is not plain text"));
        };
        let text = text.trim();
        let key = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        let turn = visit.caller.begin_once(key)?;
        let request = format!("{} {}", visit.parts.method, visit.parts.uri.path());
        Ok(Some(Self { key: key.to_owned(), request, _turn: turn }))
    }

    /// Names the file that is number `place` of this request; `name` where the request has several.
    pub fn file(&self, place: u32, name: &str) -> OnceKey {
        OnceKey { key: self.key.clone(), place, request: format!("{}{name}", self.request) }
    }
}

/// The receipt of a file that was stored by the same request before.
///
/// # Errors
/// 422 when another request used the key.
pub async fn found(visit: &Visit<'_>, once: &OnceKey) -> Result<Option<Receipt>, Refusal> {
    visit.caller.done_before(once).await.map_err(|error| match error.kind() {
        Kind::Exists => another(),
        _ => error.into(),
    })
}

/// A body that is sent again, compared with what its receipt says.
pub struct Again {
    hasher: Sha256,
    bytes: u64,
}

impl Again {
    pub fn new() -> Self {
        Self { hasher: Sha256::new(), bytes: 0 }
    }

    pub fn push(&mut self, chunk: &[u8]) {
        self.hasher.update(chunk);
        self.bytes += chunk.len() as u64;
    }

    /// # Errors
    /// 422 when it is another body.
    pub fn compare(self, receipt: &Receipt) -> Result<(), Refusal> {
        let digest: [u8; 32] = self.hasher.finalize().into();
        match self.bytes == receipt.bytes && receipt.sha256.is_none_or(|known| known == digest) {
            true => Ok(()),
            false => Err(another()),
        }
    }
}

/// Takes the body of a repeated request and compares it with the receipt and with the digest that is announced.
///
/// # Errors
/// 422 when it is another body, 400 when it is not what its digest says; those of the intake.
pub async fn same_body(visit: &mut Visit<'_>, receipt: &Receipt, announced: Option<[u8; 32]>) -> Result<(), Refusal> {
    if visit.intake.length().is_some_and(|length| length != receipt.bytes) {
        return Err(another());
    }
    if announced.is_some() && announced != receipt.sha256 {
        return Err(another());
    }
    let mut again = Again::new();
    while let Some(chunk) = visit.intake.next().await? {
        if again.bytes > receipt.bytes {
            return Err(another());
        }
        again.push(&chunk);
    }
    let compared = again.compare(receipt);
    if compared.is_err() && announced.is_some() {
        return Err(Refusal::bad("the body is not what its digest says; nothing was stored"));
    }
    compared
}

fn another() -> Refusal {
    Refusal::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "another request was made with this Idempotency-Key; use a fresh key for a different request",
    )
}

/// What a broken form is called.
pub fn broke_off() -> Error {
    Error::new(Kind::Cancelled, "the form broke off")
}
