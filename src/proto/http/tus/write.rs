//! `PATCH`: the next bytes of an upload, checked where a checksum comes with them, and the end of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::headers::{CHUNK, UPLOAD_LENGTH, UPLOAD_OFFSET, expires, finished, number};
use crate::error::{Error, Kind};
use crate::hub::{Receipt, UploadWriter};
use crate::proto::http::body::{Note, Outgoing};
use crate::proto::http::dav;
use crate::proto::http::reply::{self, Answer, Refusal};
use crate::proto::http::visit::Visit;

const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");

/// As `Tus-Checksum-Algorithm` lists them.
pub(super) const ALGORITHMS: &str = "sha1,sha256,md5";

/// A checksum as it is computed.
enum Hasher {
    Md5(md5::Md5),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    fn update(&mut self, chunk: &[u8]) {
        match self {
            Self::Md5(hasher) => hasher.update(chunk),
            Self::Sha1(hasher) => hasher.update(chunk),
            Self::Sha256(hasher) => hasher.update(chunk),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Md5(hasher) => hasher.finalize().to_vec(),
            Self::Sha1(hasher) => hasher.finalize().to_vec(),
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
        }
    }
}

/// What `Upload-Checksum` says of a body.
struct Checksum {
    hasher: Hasher,
    expected: Vec<u8>,
}

impl Checksum {
    fn of(visit: &Visit<'_>) -> Result<Option<Self>, Refusal> {
        let Some(value) = visit.headers().get(UPLOAD_CHECKSUM) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default();
        let bad = || Refusal::bad(format!("Upload-Checksum is one of {ALGORITHMS}, a blank and base64"));
        let (name, encoded) = text.split_once(' ').ok_or_else(bad)?;
        let hasher = match name {
            "md5" => Hasher::Md5(md5::Md5::new()),
            "sha1" => Hasher::Sha1(Sha1::new()),
            "sha256" => Hasher::Sha256(Sha256::new()),
            _ => return Err(bad()),
        };
        Ok(Some(Self { hasher, expected: STANDARD.decode(encoded.trim()).map_err(|_| bad())? }))
    }

    fn holds(self) -> bool {
        self.hasher.finish() == self.expected
    }
}

/// 460, which tus made for this.
fn mismatch(text: &'static str) -> Refusal {
    Refusal::new(StatusCode::from_u16(460).unwrap_or(StatusCode::BAD_REQUEST), text)
}

fn conflict(offset: u64) -> Refusal {
    let refusal = Refusal::new(StatusCode::CONFLICT, format!("the upload is at {offset}; go on there"));
    refusal.with(UPLOAD_OFFSET, HeaderValue::from(offset))
}

/// Answers `PATCH`.
pub(super) async fn patch(visit: &mut Visit<'_>, id: &str, note: &mut Note) -> Answer {
    if visit.header(header::CONTENT_TYPE) != Some(CHUNK) {
        let text = "PATCH of an upload takes application/offset+octet-stream";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let offset = number(visit, &UPLOAD_OFFSET)?.ok_or_else(|| Refusal::bad("Upload-Offset is missing"))?;
    let Some(goal) = visit.caller.upload_goal(id) else { return go_on(visit, id, offset, note).await };
    dav::conditions_of_upload(visit, &goal).await?;
    let answer = go_on(visit, id, offset, note).await;
    answer.map_err(|refusal| dav::explain(visit, &goal, refusal))
}

async fn go_on(visit: &mut Visit<'_>, id: &str, offset: u64, note: &mut Note) -> Answer {
    let mut response = reply::bare(StatusCode::NO_CONTENT);
    let writer = match visit.caller.continue_upload(id).await {
        Ok(writer) => writer,
        Err(error) if error.kind() == Kind::NotFound => {
            let receipt = repeated(visit, id, offset).await?;
            finished(&mut response, &receipt);
            return Ok(response);
        }
        Err(error) => return Err(error.into()),
    };
    if writer.offset() != offset {
        return Err(conflict(writer.offset()));
    }
    write(visit, id, writer, true, &mut response, note).await?;
    Ok(response)
}

/// The first bytes, which came with the creation; or none, of an upload of no bytes.
pub(super) async fn first(
    visit: &mut Visit<'_>,
    id: &str,
    body: bool,
    response: &mut Response<Outgoing>,
    note: &mut Note,
) -> Result<(), Refusal> {
    let writer = visit.caller.continue_upload(id).await?;
    write(visit, id, writer, body, response, note).await
}

/// The last `PATCH` once more, because its answer was lost: it is told what became of the upload, and its bytes are not looked at.
async fn repeated(visit: &mut Visit<'_>, id: &str, offset: u64) -> Result<Receipt, Refusal> {
    let resource = visit.caller.upload_resource(id).await?;
    let Some(receipt) = resource.receipt else { return Err(conflict(resource.offset)) };
    if resource.note.starts_with("final;") {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "a file put together of parts takes no bytes of its own"));
    }
    let mut end = offset;
    while let Some(chunk) = visit.intake.next().await? {
        end = end.saturating_add(chunk.len() as u64);
        if end > receipt.bytes {
            break;
        }
    }
    if end == receipt.bytes { Ok(receipt) } else { Err(conflict(receipt.bytes)) }
}

async fn write(
    visit: &mut Visit<'_>,
    id: &str,
    mut writer: UploadWriter,
    body: bool,
    response: &mut Response<Outgoing>,
    note: &mut Note,
) -> Result<(), Refusal> {
    let mut checksum = Checksum::of(visit)?;
    if let Some(length) = number(visit, &UPLOAD_LENGTH)?.filter(|length| writer.length() != Some(*length)) {
        writer.set_length(length).await?;
    }
    match checksum {
        Some(_) => writer.on_trial(),
        None => visit.intake.is_resumable(),
    }
    let taken = if body { take(visit, &mut writer, checksum.as_mut()).await } else { Ok(()) };
    note.taken = visit.intake.taken();
    if let Err(error) = taken {
        // What came so far stays, unless it was to be checked.
        drop(writer);
        return Err(error.into());
    }
    if checksum.is_some_and(|checksum| !checksum.holds()) {
        writer.rewind().await?;
        return Err(mismatch("the bytes are not what their checksum says; they were not kept"));
    }
    let offset = writer.keep().await?;
    if writer.length() == Some(offset) && !writer.is_part() {
        let receipt = finish(visit, id, writer).await?;
        note.path = receipt.path.to_string();
        finished(response, &receipt);
        return Ok(());
    }
    drop(writer);
    reply::set(response, UPLOAD_OFFSET, &offset.to_string());
    let resource = visit.caller.upload_resource(id).await?;
    expires(response, &resource);
    Ok(())
}

/// Takes the body until its end, or until another request wants the upload.
async fn take(
    visit: &mut Visit<'_>,
    writer: &mut UploadWriter,
    mut checksum: Option<&mut Checksum>,
) -> Result<(), Error> {
    loop {
        let chunk = tokio::select! {
            biased;
            () = writer.wanted_elsewhere() => {
                return Err(Error::new(Kind::Cancelled, "another request goes on with this upload"));
            }
            chunk = visit.intake.next() => chunk?,
        };
        let Some(chunk) = chunk else { return Ok(()) };
        if let Some(checksum) = &mut checksum {
            checksum.hasher.update(&chunk);
        }
        writer.push(chunk).await?;
    }
}

/// Makes the file. One that is not what was announced can never be it: the upload ends.
async fn finish(visit: &Visit<'_>, id: &str, mut writer: UploadWriter) -> Result<Receipt, Refusal> {
    match writer.finish().await {
        Err(error) if error.kind() == Kind::Corrupt => {
            drop(writer);
            visit.caller.end_upload(id).await?;
            Err(mismatch("the file is not what its sha256 says; nothing was stored"))
        }
        Err(error) => Err(error.into()),
        Ok(receipt) => Ok(receipt),
    }
}
