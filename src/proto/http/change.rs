//! What changes the tree beside `PUT`: `DELETE`, `MKCOL`, `MOVE`, `COPY`, and the forms of our own pages.

use hyper::header::HeaderValue;
use hyper::http::uri::Authority;
use hyper::{Response, StatusCode, Uri, header};

use crate::error::{Error, Kind};
use crate::hub::files::{MakeFolder, RemoveFile, RemoveFolder, Rename};
use crate::hub::{TreePath, Verb, WriteOptions};
use crate::proto::http::body::{Note, Outgoing};
use crate::proto::http::condition::{self, Verdict};
use crate::proto::http::form::{self, Form};
use crate::proto::http::multipart::{Piece, Reader};
use crate::proto::http::reply::{self, Answer, Refusal};
use crate::proto::http::target::{self, Target};
use crate::proto::http::visit::Visit;

/// Most files in one form.
const FILES: usize = 1_000;

/// `DELETE` of a file, an empty folder, or with `?all=1` a folder and everything in it.
///
/// # Errors
/// Those of the hub; 412 for a condition.
pub async fn delete(visit: &Visit<'_>, path: &TreePath, folder: bool) -> Answer {
    if condition::any(visit.headers()) {
        let there = match visit.caller.stat(path).await {
            Ok(entry) => Some(entry.node),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        // RFC 9110 §13.2.1: who may not remove it learns nothing of conditions.
        visit.caller.allow(Verb::Delete, path)?;
        if condition::judge(visit.headers(), there.as_ref(), false) != Verdict::Go {
            return Err(Refusal::precondition());
        }
    }
    remove(visit, path, folder, visit.flag("all")).await?;
    Ok(reply::bare(StatusCode::NO_CONTENT))
}

async fn remove(visit: &Visit<'_>, path: &TreePath, folder: bool, all: bool) -> Result<(), Error> {
    if !folder {
        match visit.caller.perform(RemoveFile { path: path.clone(), tokens: Vec::new() }).await {
            Err(error) if error.kind() == Kind::WrongType => {}
            done => return done,
        }
    }
    visit.caller.perform(RemoveFolder { path: path.clone(), all, tokens: Vec::new() }).await
}

/// `MKCOL` (RFC 4918 §9.3): a folder.
///
/// # Errors
/// Those of the hub; 405 when something is there, 415 for a body.
pub async fn make_folder(visit: &mut Visit<'_>, path: &TreePath) -> Answer {
    if visit.intake.next().await?.is_some() {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a folder is made without a body"));
    }
    match visit.caller.perform(MakeFolder { path: path.clone() }).await {
        Ok(()) => {
            let mut response = reply::bare(StatusCode::CREATED);
            reply::set(&mut response, header::LOCATION, &target::url(path, true));
            Ok(response)
        }
        Err(error) if error.kind() == Kind::Exists => {
            let allow = HeaderValue::from_static("GET, HEAD, PUT, DELETE, COPY, MOVE, OPTIONS");
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "it is there already").with(header::ALLOW, allow))
        }
        Err(error) => Err(error.into()),
    }
}

/// `MOVE` and `COPY` (RFC 4918 §9.8, §9.9) to the place in `Destination`.
///
/// # Errors
/// Those of the hub; 412 when something is there and `Overwrite: F`.
pub async fn transfer(visit: &Visit<'_>, from: &TreePath, copy: bool) -> Answer {
    let to = destination(visit)?;
    let replace = visit.header(header::HeaderName::from_static("overwrite")).is_none_or(|word| word != "F");
    let there = visit.caller.stat(&to).await.is_ok();
    let done = if copy {
        visit.caller.copy(from, &to, replace).await.map(|_| ())
    } else {
        let act = Rename { from: from.clone(), to: to.clone(), replace, tokens: Vec::new() };
        visit.caller.perform(act).await
    };
    match done {
        Ok(()) if there => Ok(reply::bare(StatusCode::NO_CONTENT)),
        Ok(()) => {
            let mut response = reply::bare(StatusCode::CREATED);
            reply::set(&mut response, header::LOCATION, &target::url(&to, false));
            Ok(response)
        }
        Err(error) if error.kind() == Kind::Exists && !replace => Err(Refusal::precondition()),
        Err(error) => Err(error.into()),
    }
}

/// `Destination`: a path, or a URL of this server.
fn destination(visit: &Visit<'_>) -> Result<TreePath, Refusal> {
    let text = visit.header(header::HeaderName::from_static("destination")).unwrap_or_default();
    let uri: Uri = text.parse().map_err(|_| Refusal::bad("Destination is not a URL"))?;
    let host = visit.parts.uri.authority().map(Authority::as_str).or_else(|| visit.header(header::HOST));
    if uri.authority().is_some_and(|there| host.is_none_or(|host| !there.as_str().eq_ignore_ascii_case(host))) {
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, "Destination is on another server"));
    }
    match target::read(uri.path())? {
        Target::Tree { path, .. } if !path.is_root() => Ok(path),
        Target::Everything | Target::Own(_) | Target::Tree { .. } => {
            Err(Refusal::new(StatusCode::FORBIDDEN, "Destination cannot be there"))
        }
    }
}

/// The forms of a folder's page: upload, new folder, delete.
///
/// # Errors
/// Those of the hub; 400 for a form that is not ours.
pub async fn post(visit: &mut Visit<'_>, folder: &TreePath, note: &mut Note) -> Answer {
    let kind = visit.header(header::CONTENT_TYPE).unwrap_or_default().to_owned();
    if let Some(reader) = Reader::new(&kind) {
        let count = files(visit, folder, reader, note).await?;
        return Ok(back(folder, &format!("added={count}")));
    }
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "POST to a folder takes the forms of its page; a file is sent by PUT",
        ));
    }
    let form = Form::read(&visit.intake.whole(form::LARGEST).await?);
    let name = form.field("name").trim();
    if name.is_empty() {
        return Err(Refusal::bad("a name is missing"));
    }
    let path = folder.join(name)?;
    match form.field("do") {
        "folder" => {
            visit.caller.perform(MakeFolder { path: path.clone() }).await?;
            Ok(reply::see_other(&target::url(&path, true)))
        }
        "delete" => {
            remove(visit, &path, false, false).await?;
            Ok(back(folder, "removed=1"))
        }
        _ => Err(Refusal::bad("the form cannot be read")),
    }
}

fn back(folder: &TreePath, said: &str) -> Response<Outgoing> {
    reply::see_other(&format!("{}?{said}", target::url(folder, true)))
}

/// Stores each file of an upload form as it arrives; says how many. Those stored before a failure stay.
async fn files(
    visit: &mut Visit<'_>,
    folder: &TreePath,
    mut reader: Reader,
    note: &mut Note,
) -> Result<usize, Refusal> {
    let mut upload = None;
    let mut count = 0;
    loop {
        match reader.next()? {
            Piece::Hungry => match visit.intake.next().await? {
                Some(bytes) => reader.feed(&bytes),
                None => return Err(Error::new(Kind::Cancelled, "the form broke off").into()),
            },
            Piece::Part { file: Some(file), .. } => {
                // Some browsers send the path the file had on its own machine.
                let name = file.rsplit(['/', '\\']).next().unwrap_or_default();
                if !name.is_empty() {
                    if count == FILES {
                        return Err(Error::new(Kind::TooLarge, "too many files in one form").into());
                    }
                    upload = Some(visit.caller.write(&folder.join(name)?, WriteOptions::default()).await?);
                }
            }
            Piece::Part { file: None, .. } => {}
            Piece::Bytes(bytes) => {
                if let Some(upload) = &mut upload {
                    upload.push(bytes).await?;
                }
            }
            Piece::End => {
                if let Some(upload) = upload.take() {
                    upload.commit().await?;
                    count += 1;
                }
                note.taken = visit.intake.taken();
            }
            Piece::Done => return Ok(count),
        }
    }
}
