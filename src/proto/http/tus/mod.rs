//! tus 1.0 (<https://tus.io/protocols/resumable-upload>): core, creation, creation-with-upload, creation-defer-length, checksum,
//! termination, expiration, concatenation.
//!
//! An upload is made by `POST` to a folder's own URL or to `/-/uploads`, and lives at `/-/uploads/ID`.

mod headers;
mod metadata;
mod write;

use hyper::header::{self, HeaderValue};
use hyper::{Method, Response, StatusCode};

use crate::error::Kind;
use crate::hub::{Caller, TreePath, UploadWish};
use crate::proto::http::body::{Note, Outgoing};
use crate::proto::http::dav;
use crate::proto::http::reply::{self, Answer, Refusal};
use crate::proto::http::visit::Visit;
pub use headers::TUS_RESUMABLE;
use headers::{
    CHUNK, METHOD_OVERRIDE, TUS_CHECKSUM, TUS_EXTENSION, TUS_MAX_SIZE, TUS_VERSION, UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH,
    UPLOAD_LENGTH, UPLOAD_METADATA, UPLOAD_OFFSET, expires, finished, number,
};
use metadata::Metadata;

const VERSION: &str = "1.0.0";
const EXTENSIONS: &str =
    "creation,creation-with-upload,creation-defer-length,checksum,termination,expiration,concatenation";
/// Longest `Upload-Concat` that is kept to be told again.
const LONGEST_CONCAT: usize = 4 << 10;

/// True for a `POST` that speaks tus.
pub fn creates(visit: &Visit<'_>) -> bool {
    visit.parts.method == Method::POST && visit.headers().contains_key(TUS_RESUMABLE)
}

/// Answers a request to `/-/uploads` (`id` is `None`) or to an upload.
///
/// # Errors
/// Those of tus: 404, 409 for another offset, 412 for another version, 413, 415, 460 for a wrong checksum; those of the hub.
pub async fn own(visit: &mut Visit<'_>, id: Option<&str>, note: &mut Note) -> Answer {
    let method = visit.parts.method.as_str();
    if method == "OPTIONS" {
        return Ok(options(visit));
    }
    // As tusd does: to ask how far an upload is changes nothing, and browsers and monitors ask without the header.
    let asks = id.is_some() && method == "HEAD" && !visit.headers().contains_key(TUS_RESUMABLE);
    let answer = match if asks { Ok(()) } else { version(visit) } {
        Ok(()) => match (id, asked(visit, method)) {
            (None, "POST") => create(visit, None, note).await,
            (None, _) => Err(Refusal::method("OPTIONS, POST")),
            (Some(id), "DELETE") => end(visit, id).await,
            (Some(id), "HEAD") => tell(visit, id).await,
            (Some(id), "PATCH") => write::patch(visit, id, note).await,
            (Some(_), _) => Err(Refusal::method("DELETE, HEAD, OPTIONS, PATCH")),
        },
        Err(refusal) => Err(refusal),
    };
    marked(answer)
}

/// Answers `POST` to a folder by a client that speaks tus.
///
/// # Errors
/// As [`own`].
pub async fn into_folder(visit: &mut Visit<'_>, folder: &TreePath, note: &mut Note) -> Answer {
    let answer = match version(visit) {
        Ok(()) => create(visit, Some(folder), note).await,
        Err(refusal) => Err(refusal),
    };
    marked(answer)
}

/// Every response says which version it is of.
fn marked(answer: Answer) -> Answer {
    match answer {
        Ok(mut response) => {
            reply::set(&mut response, TUS_RESUMABLE, VERSION);
            Ok(response)
        }
        Err(refusal) => Err(refusal.with(TUS_RESUMABLE, HeaderValue::from_static(VERSION))),
    }
}

fn version(visit: &Visit<'_>) -> Result<(), Refusal> {
    if visit.header(TUS_RESUMABLE) == Some(VERSION) {
        return Ok(());
    }
    let text = "this address speaks tus 1.0.0: send Tus-Resumable: 1.0.0";
    let refusal = Refusal::new(StatusCode::PRECONDITION_FAILED, text);
    Err(refusal.with(TUS_VERSION, HeaderValue::from_static(VERSION)))
}

/// tus asks servers to heed an overridden method; ours do on uploads alone, and only of a `POST`, which does nothing here else.
fn asked<'a>(visit: &'a Visit<'_>, method: &'a str) -> &'a str {
    match (method, visit.header(METHOD_OVERRIDE)) {
        ("POST", Some(other @ ("DELETE" | "HEAD" | "PATCH"))) => other,
        _ => method,
    }
}

fn options(visit: &Visit<'_>) -> Response<Outgoing> {
    let mut response = reply::bare(StatusCode::NO_CONTENT);
    reply::set(&mut response, header::ALLOW, "DELETE, HEAD, OPTIONS, PATCH, POST");
    advertise(&visit.caller, &mut response);
    response
}

/// Says what uploads in pieces can be here.
pub fn advertise(caller: &Caller, response: &mut Response<Outgoing>) {
    reply::set(response, TUS_RESUMABLE, VERSION);
    reply::set(response, TUS_VERSION, VERSION);
    reply::set(response, TUS_EXTENSION, EXTENSIONS);
    reply::set(response, TUS_CHECKSUM, write::ALGORITHMS);
    if let Some(most) = caller.largest_file() {
        reply::set(response, TUS_MAX_SIZE, &most.to_string());
    }
}

/// How a new upload stands to others (`Upload-Concat`).
enum Place {
    Alone,
    Part,
    Whole(Vec<String>),
}

impl Place {
    fn of(visit: &Visit<'_>) -> Result<Self, Refusal> {
        match visit.header(UPLOAD_CONCAT).map(str::trim) {
            None => Ok(Self::Alone),
            Some("partial") => Ok(Self::Part),
            Some(text) => {
                let bad = || Refusal::bad("Upload-Concat is `partial` or `final;URL URL …`");
                let urls = text.strip_prefix("final;").ok_or_else(bad)?;
                let ids =
                    urls.split_ascii_whitespace().map(|url| url.rsplit('/').next().unwrap_or_default().to_owned());
                Ok(Self::Whole(ids.collect()))
            }
        }
    }
}

/// `POST`: makes an upload; with a body its first bytes too.
async fn create(visit: &mut Visit<'_>, folder: Option<&TreePath>, note: &mut Note) -> Answer {
    let place = Place::of(visit)?;
    let wish = wish(visit, folder, &place)?;
    note.path = wish.path.to_string();
    if !wish.part {
        dav::conditions_of_upload(visit, &wish.path).await?;
    }
    let answer = make(visit, &wish, place, note).await;
    answer.map_err(|refusal| dav::explain(visit, &wish.path, refusal))
}

/// What the headers of a creation ask for.
fn wish(visit: &Visit<'_>, folder: Option<&TreePath>, place: &Place) -> Result<UploadWish, Refusal> {
    let length = number(visit, &UPLOAD_LENGTH)?;
    let deferred = visit.header(UPLOAD_DEFER_LENGTH) == Some("1");
    match (place, length, deferred) {
        (Place::Whole(_), Some(_), _) => return Err(Refusal::bad("a file put together has the length of its parts")),
        (Place::Whole(_), None, _) | (_, Some(_), false) | (_, None, true) => {}
        (_, Some(_), true) | (_, None, false) => {
            return Err(Refusal::bad("say Upload-Length, or Upload-Defer-Length: 1"));
        }
    }
    let metadata = visit.header(UPLOAD_METADATA).unwrap_or_default();
    let said = Metadata::read(metadata)?;
    let part = matches!(place, Place::Part);
    let concat = visit.header(UPLOAD_CONCAT).filter(|text| text.len() <= LONGEST_CONCAT);
    Ok(UploadWish {
        path: said.path(folder, part)?,
        length,
        part,
        folders: visit.flag("folders") || said.is_nested(),
        modified: said.modified(),
        sha256: said.sha256()?,
        note: match place {
            Place::Whole(_) => concat.unwrap_or("final;").to_owned(),
            Place::Alone | Place::Part => metadata.to_owned(),
        },
    })
}

async fn make(visit: &mut Visit<'_>, wish: &UploadWish, place: Place, note: &mut Note) -> Answer {
    if let Place::Whole(parts) = place {
        let (id, receipt) = visit.caller.join_uploads(wish, &parts).await?;
        let mut response = made(&id);
        finished(&mut response, &receipt);
        return Ok(response);
    }
    let resource = visit.caller.begin_upload(wish).await.map_err(|error| missing_folder(visit, &wish.path, error))?;
    let mut response = made(&resource.id);
    expires(&mut response, &resource);
    let first = visit.header(header::CONTENT_TYPE) == Some(CHUNK);
    if first || wish.length == Some(0) {
        write::first(visit, &resource.id, first, &mut response, note).await?;
    }
    Ok(response)
}

/// As `PUT` answers a missing folder.
fn missing_folder(visit: &Visit<'_>, path: &TreePath, error: crate::error::Error) -> Refusal {
    if error.kind() == Kind::NotFound && visit.caller.seeming_rights(path).has(crate::hub::Verb::Create) {
        return Refusal::new(StatusCode::CONFLICT, "its folder is not there; make it first, or add ?folders=1");
    }
    error.into()
}

/// 201 with the upload's address.
fn made(id: &str) -> Response<Outgoing> {
    let mut response = reply::bare(StatusCode::CREATED);
    reply::set(&mut response, header::LOCATION, &format!("/-/uploads/{id}"));
    response
}

/// `HEAD`: how far it is.
async fn tell(visit: &Visit<'_>, id: &str) -> Answer {
    let resource = visit.caller.upload_resource(id).await?;
    let mut response = reply::bare(StatusCode::OK);
    reply::set(&mut response, header::CACHE_CONTROL, "no-store");
    if let Some(receipt) = &resource.receipt {
        finished(&mut response, receipt);
    } else {
        reply::set(&mut response, UPLOAD_OFFSET, &resource.offset.to_string());
        expires(&mut response, &resource);
    }
    match resource.length {
        Some(length) => reply::set(&mut response, UPLOAD_LENGTH, &length.to_string()),
        None => reply::set(&mut response, UPLOAD_DEFER_LENGTH, "1"),
    }
    match (resource.part, resource.note.as_str()) {
        (true, _) => reply::set(&mut response, UPLOAD_CONCAT, "partial"),
        (false, note) if note.starts_with("final;") => reply::set(&mut response, UPLOAD_CONCAT, note),
        (false, _) => {}
    }
    if resource.receipt.is_none() && !resource.note.is_empty() {
        reply::set(&mut response, UPLOAD_METADATA, &resource.note);
    }
    Ok(response)
}

/// `DELETE`: ends it.
async fn end(visit: &Visit<'_>, id: &str) -> Answer {
    visit.caller.end_upload(id).await?;
    Ok(reply::bare(StatusCode::NO_CONTENT))
}
