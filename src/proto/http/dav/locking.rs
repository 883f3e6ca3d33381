//! `LOCK` and `UNLOCK` (RFC 4918 §9.10, §9.11), over the locks that every door honours.

use hyper::header::HeaderName;
use hyper::{StatusCode, header};

use crate::error::{Error, Kind};
use crate::hub::lock::Wish;
use crate::hub::{LockRow, TreePath, Verb};
use crate::proto::http::body::Outgoing;
use crate::proto::http::dav::live;
use crate::proto::http::dav::xml::Element;
use crate::proto::http::dav::{self, Depth, state};
use crate::proto::http::reply::{self, Answer, Refusal};
use crate::proto::http::target;
use crate::proto::http::visit::Visit;

const LOCK_TOKEN: HeaderName = HeaderName::from_static("lock-token");
const TIMEOUT: HeaderName = HeaderName::from_static("timeout");

/// Answers `LOCK`: takes one, or without a body refreshes the one in `If`.
///
/// # Errors
/// Those of the hub; 400 and 413 for the body; 412 when there is nothing to refresh; 423 with the place of a lock in the way.
pub async fn lock(visit: &mut Visit<'_>, path: &TreePath, most: usize) -> Answer {
    if visit.caller.is_guest() {
        return Err(Error::new(Kind::Unauthenticated, "sign in first").into());
    }
    let depth = dav::depth(visit, Depth::Infinity)?;
    let body = dav::body(visit, most).await?;
    let Some(body) = body else { return refresh(visit, path).await };
    if depth == Depth::One {
        return Err(Refusal::bad("a lock has Depth: 0 or Depth: infinity"));
    }
    let wish = wish(visit, &body, depth == Depth::Infinity)?;
    let hub = visit.caller.hub().clone();
    match hub.lock(&visit.caller, path, wish).await {
        Ok((row, created)) => Ok(granted(visit, path, &row, created)),
        Err(error) => Err(refused(visit, path, error)),
    }
}

fn wish(visit: &Visit<'_>, body: &Element, deep: bool) -> Result<Wish, Refusal> {
    let bad = || Refusal::bad("the body is not a lockinfo for a write lock, exclusive or shared");
    if body.name.in_dav() != Some("lockinfo") {
        return Err(bad());
    }
    let scope = body.child("lockscope").ok_or_else(bad)?;
    let shared = match (scope.child("exclusive"), scope.child("shared")) {
        (Some(_), None) => false,
        (None, Some(_)) => true,
        _ => return Err(bad()),
    };
    body.child("locktype").and_then(|kind| kind.child("write")).ok_or_else(bad)?;
    let owner = body.child("owner").map(Element::inside).unwrap_or_default();
    Ok(Wish { deep, shared, owner, seconds: seconds(visit) })
}

/// The first time in `Timeout` that says something (RFC 4918 §10.7); `None` for as long as may be.
fn seconds(visit: &Visit<'_>) -> Option<u64> {
    let list = visit.header(TIMEOUT)?;
    list.split(',').map(str::trim).find_map(|word| {
        let (unit, count) = word.split_at_checked("Second-".len())?;
        // RFC 4918 §10.7 lets clients ask for 2^32 - 1; whoever asks for more means the same.
        unit.eq_ignore_ascii_case("Second-").then(|| count.parse().unwrap_or(u64::from(u32::MAX)))
    })
}

async fn refresh(visit: &Visit<'_>, path: &TreePath) -> Answer {
    let tokens = state::tokens(visit);
    let [token] = &tokens[..] else {
        return Err(Refusal::bad("LOCK without a body refreshes the one lock whose token is in the If header"));
    };
    let hub = visit.caller.hub();
    match hub.refresh_lock(&visit.caller, path, token, seconds(visit)).await {
        Ok(_) => Ok(discovery(visit, path, StatusCode::OK)),
        Err(error) if error.kind() == Kind::NotFound => {
            let refusal = Refusal::new(StatusCode::PRECONDITION_FAILED, error.public().to_owned());
            Err(refusal.because("<D:lock-token-matches-request-uri/>"))
        }
        Err(error) => Err(error.into()),
    }
}

fn granted(visit: &Visit<'_>, path: &TreePath, row: &LockRow, created: bool) -> hyper::Response<Outgoing> {
    let mut response = discovery(visit, path, if created { StatusCode::CREATED } else { StatusCode::OK });
    reply::set(&mut response, LOCK_TOKEN, &format!("<{}>", row.token));
    if created {
        reply::set(&mut response, header::LOCATION, &target::url(path, false));
    }
    response
}

fn discovery(visit: &Visit<'_>, path: &TreePath, status: StatusCode) -> hyper::Response<Outgoing> {
    let active = live::active(&visit.caller, &visit.rules.base, path);
    let body =
        format!("{}<D:prop xmlns:D=\"DAV:\"><D:lockdiscovery>{active}</D:lockdiscovery></D:prop>\n", dav::DECLARATION);
    let mut response = dav::xml_body(Outgoing::whole(body));
    *response.status_mut() = status;
    response
}

fn refused(visit: &Visit<'_>, path: &TreePath, error: Error) -> Refusal {
    match error.kind() {
        // RFC 4918 §9.10.6.
        Kind::NotFound if visit.caller.seeming_rights(path).has(Verb::Create) => {
            Refusal::new(StatusCode::CONFLICT, "its folder is not there; make it first")
        }
        Kind::Locked => {
            let other = visit.caller.hub().locks_on(path).first().and_then(|row| TreePath::parse(&row.path).ok());
            let other = other.filter(|place| !visit.caller.rights(place).is_empty());
            let url = visit.rules.base.url(other.as_ref().unwrap_or(path), false);
            let because = format!("<D:no-conflicting-lock><D:href>{url}</D:href></D:no-conflicting-lock>");
            Refusal::from(error).because(because)
        }
        _ => error.into(),
    }
}

/// The token in `Lock-Token` (RFC 4918 §10.5).
pub fn token<'a>(visit: &'a Visit<'_>) -> Option<&'a str> {
    visit.header(LOCK_TOKEN).map(str::trim).and_then(|text| text.strip_prefix('<')?.strip_suffix('>'))
}

/// Answers `UNLOCK`.
///
/// # Errors
/// 400 without a `Lock-Token`, 409 when there is no such lock here, 403 when it is somebody else's.
pub async fn unlock(visit: &Visit<'_>, path: &TreePath) -> Answer {
    if visit.caller.is_guest() || visit.caller.seeming_rights(path).is_empty() {
        visit.caller.allow(Verb::Overwrite, path)?;
    }
    let Some(token) = token(visit) else { return Err(Refusal::bad("Lock-Token is missing: <opaquelocktoken:…>")) };
    match visit.caller.hub().unlock(&visit.caller, path, token).await {
        Ok(()) => Ok(reply::bare(StatusCode::NO_CONTENT)),
        Err(error) if error.kind() == Kind::NotFound => {
            let refusal = Refusal::new(StatusCode::CONFLICT, error.public().to_owned());
            Err(refusal.because("<D:lock-token-matches-request-uri/>"))
        }
        Err(error) => Err(error.into()),
    }
}
