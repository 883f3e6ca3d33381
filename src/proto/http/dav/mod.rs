//! WebDAV class 1, 2 and 3 (RFC 4918) on the tree's own URLs: what its methods have in common.
//!
//! `GET`, `PUT` and `DELETE` are HTTP's own; here are the methods beside them, the `If` header that every method obeys, and the
//! multistatus. Nothing here touches a file or a record: each method is a call of the caller behind the request.

mod live;
mod locking;
mod propfind;
mod proppatch;
mod state;
mod transfer;
mod xml;

use std::fmt::Write as _;

use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::error::{Error, Kind};
use crate::hub::TreePath;
use crate::hub::lock::Reach;
use crate::proto::http::body::Outgoing;
use crate::proto::http::reply::{self, Answer, Refusal};
use crate::proto::http::settings::Settings;
use crate::proto::http::visit::Visit;

const XML_TYPE: &str = "application/xml; charset=utf-8";
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n";
const PROLOGUE: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\">";
const EPILOGUE: &str = "</D:multistatus>\n";

/// `Depth` (RFC 4918 §10.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    Zero,
    One,
    Infinity,
}

/// Judges the `If` header, whatever the method.
///
/// # Errors
/// 400, 412.
pub async fn conditions(visit: &mut Visit<'_>, path: &TreePath) -> Result<(), Refusal> {
    state::judge(visit, path).await
}

/// The same for an upload in pieces, whose URL is not that of the file: lists that name no resource are about the file, and a client that
/// knows no `If` may show a token as `Lock-Token`.
///
/// # Errors
/// As [`conditions`].
pub async fn conditions_of_upload(visit: &mut Visit<'_>, path: &TreePath) -> Result<(), Refusal> {
    state::judge(visit, path).await?;
    if let Some(token) = locking::token(visit).map(str::to_owned) {
        let shown = [visit.caller.tokens(), &[token]].concat();
        visit.caller = visit.caller.clone().holding(shown);
    }
    Ok(())
}

/// Asks a guest to sign in who uses a method of WebDAV's own, where that is set.
///
/// # Errors
/// 401.
pub fn guard(visit: &Visit<'_>) -> Result<(), Refusal> {
    let method = visit.parts.method.as_str();
    let ours = matches!(method, "COPY" | "LOCK" | "MKCOL" | "MOVE" | "PROPFIND" | "PROPPATCH" | "UNLOCK");
    match visit.rules.settings.webdav_sign_in && visit.caller.is_guest() && ours {
        true => Err(Error::new(Kind::Unauthenticated, "sign in to use WebDAV here").into()),
        false => Ok(()),
    }
}

/// Answers WebDAV's own methods; `None` for another one.
pub async fn answer(visit: &mut Visit<'_>, path: &TreePath, settings: &Settings) -> Option<Answer> {
    let most = usize::try_from(settings.xml_body.0).unwrap_or(usize::MAX);
    Some(match visit.parts.method.as_str() {
        "COPY" => transfer::answer(visit, path, true, settings.copy_entries).await,
        "LOCK" => locking::lock(visit, path, most).await,
        "MKCOL" => transfer::make_folder(visit, path).await,
        "MOVE" => transfer::answer(visit, path, false, settings.copy_entries).await,
        "PROPFIND" => propfind::answer(visit, path, most).await,
        "PROPPATCH" => proppatch::answer(visit, path, most).await,
        "UNLOCK" => locking::unlock(visit, path).await,
        _ => return None,
    })
}

/// `OPTIONS`, for whoever asks: clients look here before they sign in.
pub fn options(allow: &'static str) -> Response<Outgoing> {
    let mut response = reply::bare(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    headers.insert(HeaderName::from_static("dav"), HeaderValue::from_static("1, 2, 3"));
    headers.insert(HeaderName::from_static("ms-author-via"), HeaderValue::from_static("DAV"));
    response
}

/// Says of a refusal by a lock which one it was (RFC 4918 §16).
pub fn explain(visit: &Visit<'_>, path: &TreePath, refusal: Refusal) -> Refusal {
    if refusal.status != StatusCode::LOCKED || refusal.because.is_some() {
        return refusal;
    }
    match visit.caller.lock_in_the_way(path, Reach::Tree) {
        Some(lock) => locked(visit, refusal, &lock),
        None => refusal,
    }
}

fn locked(visit: &Visit<'_>, refusal: Refusal, lock: &TreePath) -> Refusal {
    let url = visit.rules.base.url(lock, false);
    refusal.because(format!("<D:lock-token-submitted><D:href>{url}</D:href></D:lock-token-submitted>"))
}

/// The body of a refusal: its condition for programs, its words for people.
pub fn error_body(because: &str, text: &str) -> Response<Outgoing> {
    let text = xml::text(text);
    let body =
        format!("{DECLARATION}<D:error xmlns:D=\"DAV:\">{because}<text xmlns=\"urn:stoa\">{text}</text></D:error>\n");
    xml_body(Outgoing::whole(body))
}

fn depth(visit: &Visit<'_>, otherwise: Depth) -> Result<Depth, Refusal> {
    match visit.header(HeaderName::from_static("depth")).map(str::trim) {
        None => Ok(otherwise),
        Some("0") => Ok(Depth::Zero),
        Some("1") => Ok(Depth::One),
        Some(word) if word.eq_ignore_ascii_case("infinity") => Ok(Depth::Infinity),
        Some(_) => Err(Refusal::bad("Depth is 0, 1 or infinity")),
    }
}

/// `Depth: 1,noroot`, as Office and Windows ask for what is in a folder without the folder itself (MS-WDV §2.2.2).
fn is_without_root(visit: &Visit<'_>) -> bool {
    let depth = visit.header(HeaderName::from_static("depth"));
    depth
        .and_then(|text| text.split_once(','))
        .is_some_and(|(one, word)| one.trim() == "1" && word.trim().eq_ignore_ascii_case("noroot"))
}

/// The request's XML, at most so many bytes of it.
async fn body(visit: &mut Visit<'_>, most: usize) -> Result<Option<xml::Element>, Refusal> {
    let whole = visit.intake.whole(most).await.map_err(|error| match error.kind() {
        Kind::TooLarge => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the XML of a request is at most {most} bytes"))
        }
        _ => error.into(),
    })?;
    xml::read(&whole)
}

fn xml_body(body: Outgoing) -> Response<Outgoing> {
    reply::typed(body, XML_TYPE)
}

fn multistatus(body: Outgoing) -> Response<Outgoing> {
    let mut response = xml_body(body);
    *response.status_mut() = StatusCode::MULTI_STATUS;
    response
}

fn propstat(out: &mut String, props: &str, status: StatusCode, because: Option<&str>) {
    let _ = write!(out, "<D:propstat><D:prop>{props}</D:prop><D:status>{}</D:status>", status_line(status));
    if let Some(because) = because {
        let _ = write!(out, "<D:error>{because}</D:error>");
    }
    out.push_str("</D:propstat>");
}

fn status_line(status: StatusCode) -> String {
    format!("HTTP/1.1 {} {}", status.as_u16(), status.canonical_reason().unwrap_or_default())
}
