//! What a site answers: its files, its indexes, its redirects, its own pages for what fails.

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::{Website, page};
use crate::error::{Error, Kind};
use crate::hub::{Entry, NodeKind, TreePath};
use crate::proto::http::body::{Note, Outgoing};
use crate::proto::http::download;
use crate::proto::http::pager::{self, Cursor, Order};
use crate::proto::http::reply::{self, Answer, Refusal, Reply};
use crate::proto::http::target;
use crate::proto::http::visit::Visit;

const METHODS: &str = "GET, HEAD, OPTIONS";

/// Answers a request to a site. What fails has the site's own page where it brings one.
///
/// # Errors
/// What failed, where nothing of the site says it.
pub async fn answer(visit: &Visit<'_>, site: &Website, note: &mut Note) -> Result<Reply, Refusal> {
    let refusal = match visit.parts.method.as_str() {
        "GET" | "HEAD" => match show(visit, site, note).await {
            Err(refusal) => refusal,
            answer => return answer,
        },
        "OPTIONS" => {
            let mut response = reply::bare(StatusCode::NO_CONTENT);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
            return Ok(response.into());
        }
        _ => Refusal::method(METHODS),
    };
    match own_page(visit, site, refusal.status).await {
        Some(mut response) => {
            refusal.headers.into_iter().for_each(|(name, value)| drop(response.headers_mut().insert(name, value)));
            Ok(response.into())
        }
        None => Err(refusal),
    }
}

/// The site's page for a failure.
async fn own_page(visit: &Visit<'_>, site: &Website, status: StatusCode) -> Option<Response<Outgoing>> {
    let path = site.place(site.errors.get(&status.as_u16())?)?;
    // A 401 must name its challenge, which is said where refusals are written.
    let opened = visit.caller.open(&path).await.ok().filter(|_| status != StatusCode::UNAUTHORIZED)?;
    let mut response = download::as_page(visit, &path, opened, status).await.ok()?;
    reply::set(&mut response, header::CACHE_CONTROL, "no-store");
    Some(response)
}

async fn show(visit: &Visit<'_>, site: &Website, note: &mut Note) -> Result<Reply, Refusal> {
    let raw = visit.parts.uri.path();
    let (path, folder) = target::plain(raw)?;
    if let Some(moved) = redirect(visit, site, raw) {
        return moved.map(Reply::from);
    }
    let place = site.place(&path).ok_or_else(Refusal::missing)?;
    note.path = place.to_string();
    let refusal = match folder {
        true => index(visit, site, &path, &place).await,
        false => file(visit, site, &place).await,
    };
    let refusal = match refusal {
        Err(refusal) if refusal.status == StatusCode::NOT_FOUND => refusal,
        answer => return answer,
    };
    match fallback(visit, site, &path).await {
        Some(answer) => answer,
        None => Err(refusal),
    }
}

/// Where an old place is now.
fn redirect(visit: &Visit<'_>, site: &Website, raw: &str) -> Option<Answer> {
    let found = site.redirects.iter().find_map(|(pattern, to, status)| Some((pattern.catch(raw)?, to, *status)));
    let (caught, to, status) = found?;
    let mut place = to.to.replacen('*', caught, 1);
    // What was caught must not turn a path into another host's URL.
    if to.to.starts_with('/') && place.get(1..).is_some_and(|rest| rest.starts_with(['/', '\\'])) {
        return Some(Err(Refusal::missing()));
    }
    if let Some(query) = visit.parts.uri.query().filter(|_| !to.to.contains('?')) {
        place = format!("{place}?{query}");
    }
    Some(Ok(reply::moved(status, &place)))
}

/// A file, or the way to the folder that the URL meant.
async fn file(visit: &Visit<'_>, site: &Website, place: &TreePath) -> Result<Reply, Refusal> {
    let mark = visit.mark(place);
    let error = match visit.caller.open(place).await {
        Ok(opened) => return download::send(visit, place, opened, mark).await,
        Err(error) => error,
    };
    if !matches!(error.kind(), Kind::NotFound | Kind::WrongType) {
        return Err(error.into());
    }
    let there = visit.caller.stat(place).await;
    if there.is_ok_and(|entry| entry.node.kind == NodeKind::Folder) {
        let query = visit.parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let to = format!("{}/{query}", visit.parts.uri.path());
        return Ok(reply::moved(StatusCode::PERMANENT_REDIRECT, &to).into());
    }
    if site.settings.clean_urls
        && let Some(named) = place.parent().and_then(|parent| parent.join(&format!("{}.html", place.name())).ok())
        && let Ok(opened) = visit.caller.open(&named).await
    {
        // Not kept: a file of the plain name would come before it.
        return download::send(visit, &named, opened, None).await;
    }
    Err(missing())
}

fn missing() -> Refusal {
    Error::new(Kind::NotFound, "there is nothing here").into()
}

/// The first index that is there, or the list.
async fn index(visit: &Visit<'_>, site: &Website, path: &TreePath, place: &TreePath) -> Result<Reply, Refusal> {
    for (number, name) in site.index.iter().enumerate() {
        let Some(file) = name.parts().try_fold(place.clone(), |place, part| place.join(part).ok()) else { continue };
        // Only the first may be kept: another one gives way to it.
        let mark = if number == 0 { visit.mark(&file) } else { None };
        match visit.caller.open(&file).await {
            Ok(opened) => return download::send(visit, &file, opened, mark).await,
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::WrongType) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match site.settings.listing {
        true => list(visit, path, place).await.map(Reply::from),
        false => Err(missing()),
    }
}

async fn list(visit: &Visit<'_>, path: &TreePath, place: &TreePath) -> Answer {
    let mut listing = visit.caller.list(place).await.map_err(|error| match error.kind() {
        Kind::WrongType => missing(),
        _ => error.into(),
    })?;
    let order = Order::read(None, None);
    let cursor = Cursor::read(visit.query("after").as_deref(), visit.query("before").as_deref());
    // Links and special files are the server's own matter.
    let shows = |entry: &Entry| entry.node.kind != NodeKind::Special;
    let rows = pager::read(&mut listing, order, cursor.as_ref(), shows).await?;
    Ok(page::folder(path, &rows))
}

/// The page of an application that reads the path itself: for pages, not for the pictures and scripts that are missing.
async fn fallback(visit: &Visit<'_>, site: &Website, path: &TreePath) -> Option<Result<Reply, Refusal>> {
    let page = site.place(site.fallback.as_ref()?)?;
    let asset = path.name().contains('.') && !reply::wants(visit.headers(), "text/html");
    if asset {
        return None;
    }
    let opened = visit.caller.open(&page).await.ok()?;
    // Not kept: a file of this path would come before it.
    Some(download::send(visit, &page, opened, None).await)
}
