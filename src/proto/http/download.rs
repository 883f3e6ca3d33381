//! Sending a file: conditions, ranges, and the headers that keep what people uploaded from running in our name.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode, Version};

use crate::hub::{Download, Mark, Node, TreePath};
use crate::proto::http::body::{Flow, Outgoing};
use crate::proto::http::cache::{Audience, Content, Keep};
use crate::proto::http::condition::{self, Verdict};
use crate::proto::http::range::{self, Asked};
use crate::proto::http::reply::{self, Answer, Refusal};
use crate::proto::http::sendfile::LONGEST;
use crate::proto::http::serve::Connection;
use crate::proto::http::visit::Visit;
use crate::proto::http::{date, mime, target};

/// Files up to this size are read in one piece.
const SMALL: u64 = 64 << 10;
/// Larger ones in frames of this size (measured: smaller frames cost more calls, larger ones no less time).
const FRAME: u64 = LONGEST as u64;

/// Whatever a browser could run is shown in a sandbox: an origin of its own, no scripts, no forms, no plugins.
const SANDBOX: &str = "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self' data:; \
                       style-src 'self' 'unsafe-inline'; font-src 'self' data:; form-action 'none'; \
                       frame-ancestors 'self'; base-uri 'none'";
/// Viewers of pictures, films and PDF are the browser's own, and some refuse to start in a sandbox.
const VIEWER: &str = "default-src 'none'; img-src 'self' data:; media-src 'self' data:; object-src 'self'; \
                      style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'self'; base-uri 'none'";

/// Answers `GET` and `HEAD` of a file.
///
/// # Errors
/// 412, 416, what the disk says.
pub async fn send(visit: &Visit<'_>, path: &TreePath, download: Download, mark: Option<Mark>) -> Answer {
    let node = download.node().clone();
    match condition::judge(visit.headers(), Some(&node), true) {
        Verdict::Failed => return Err(Refusal::precondition()),
        Verdict::NotModified => return Ok(not_modified(visit, &node)),
        Verdict::Go => {}
    }
    // RFC 9110 §14.2: a range is defined for GET only.
    let wanted = visit.only(header::RANGE).filter(|_| visit.is_get() && condition::range_holds(visit.headers(), &node));
    let mut response = match wanted.map_or(Asked::Whole, |text| range::read(text, node.size)) {
        Asked::Nothing => {
            let size = HeaderValue::from_str(&format!("bytes */{}", node.size)).ok();
            let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "the file has no such bytes");
            return Err(match size {
                Some(size) => refusal.with(header::CONTENT_RANGE, size),
                None => refusal,
            });
        }
        Asked::Whole => whole(visit, path, download, mark).await?,
        Asked::Parts(parts) => partial(visit, path, download, &parts).await?,
    };
    describe(visit, path, &node, &mut response);
    Ok(response)
}

/// All of it, to be sent again when `mark` says that it may.
async fn whole(visit: &Visit<'_>, path: &TreePath, download: Download, mark: Option<Mark>) -> Answer {
    let size = download.node().size;
    let file = download.clone();
    let body = content(visit, download, 0..size).await?;
    let held = mark.and_then(|mark| mark.hold(&file));
    let mut response = Response::new(body);
    if let Some(held) = held {
        let content = match response.body().bytes() {
            Some(bytes) => Content::Whole(bytes),
            None => Content::File(file.file(), size),
        };
        let audience = if visit.caller.is_guest() { Audience::Guest } else { Audience::Account };
        response.extensions_mut().insert(Keep::new(held, content, audience, path.to_string()));
    }
    Ok(response)
}

/// One part as itself, several as `multipart/byteranges` (RFC 9110 §14.6).
async fn partial(visit: &Visit<'_>, path: &TreePath, download: Download, parts: &[Range<u64>]) -> Answer {
    let size = download.node().size;
    let mut response = match parts {
        [only] => {
            let mut response = Response::new(content(visit, download, only.clone()).await?);
            reply::set(&mut response, header::CONTENT_RANGE, &range::content_range(only, size));
            response
        }
        several => {
            let boundary = uuid::Uuid::now_v7().simple().to_string();
            let stretch = Stretch::new(visit, download, 0..0);
            let flow = Parts::new(stretch, several, mime::of(path.name()), &boundary);
            let length = flow.length();
            let mut response = Response::new(Outgoing::flow(flow, Some(length)));
            let kind = format!("multipart/byteranges; boundary={boundary}");
            reply::set(&mut response, header::CONTENT_TYPE, &kind);
            response
        }
    };
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    Ok(response)
}

/// The bytes of one range: read now when they are few, else frame by frame as the wire takes them.
async fn content(visit: &Visit<'_>, download: Download, range: Range<u64>) -> Result<Outgoing, Refusal> {
    let length = range.end.saturating_sub(range.start);
    if length > SMALL || !visit.is_get() {
        return Ok(Outgoing::flow(Stretch::new(visit, download, range), Some(length)));
    }
    let bytes = match usize::try_from(length) {
        Ok(0) | Err(_) => Bytes::new(),
        Ok(length) => download.read_at(range.start, length).await?,
    };
    if bytes.len() as u64 != length {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the file became shorter while it was read"));
    }
    Ok(Outgoing::whole(bytes))
}

/// Headers of a file that was not sent again.
fn not_modified(visit: &Visit<'_>, node: &Node) -> Response<Outgoing> {
    let mut response = reply::bare(StatusCode::NOT_MODIFIED);
    validators(visit, node, &mut response);
    response
}

fn validators(visit: &Visit<'_>, node: &Node, response: &mut Response<Outgoing>) {
    reply::set(response, header::ETAG, &condition::etag(node.tag));
    if let Some(modified) = date::imf(node.modified) {
        reply::set(response, header::LAST_MODIFIED, &modified);
    }
    // Rights can change at any moment: a cache asks each time, and gets a 304.
    let cache = if visit.caller.is_guest() { "no-cache" } else { "private, no-cache" };
    reply::set(response, header::CACHE_CONTROL, cache);
}

fn describe(visit: &Visit<'_>, path: &TreePath, node: &Node, response: &mut Response<Outgoing>) {
    let kind = mime::of(path.name());
    validators(visit, node, response);
    let headers = response.headers_mut();
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let policy = if mime::is_inert(kind) { VIEWER } else { SANDBOX };
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    if visit.flag("download") {
        let value = format!("attachment; filename*=UTF-8''{}", target::escape(path.name()));
        reply::set(response, header::CONTENT_DISPOSITION, &value);
    }
}

/// A stretch of a file.
struct Stretch {
    download: Download,
    range: Range<u64>,
    /// The connection, when it sends files by the kernel.
    lender: Option<Arc<Connection>>,
}

impl Stretch {
    fn new(visit: &Visit<'_>, download: Download, range: Range<u64>) -> Self {
        // HTTP/2 puts heads of its own between the bytes.
        let able = visit.connection.lent.is_able() && visit.parts.version != Version::HTTP_2;
        Self { download, range, lender: able.then(|| visit.connection.clone()) }
    }
}

#[async_trait]
impl Flow for Stretch {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let left = self.range.end.saturating_sub(self.range.start).min(FRAME);
        if left == 0 {
            return Ok(None);
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX);
        if let Some(connection) = &self.lender {
            let bytes = connection.lent.lend(&self.download.file(), self.range.start, length).await?;
            self.range.start += left;
            return Ok(Some(bytes));
        }
        let bytes = self.download.read_at(self.range.start, length).await.map_err(io::Error::other)?;
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent"));
        }
        self.range.start += bytes.len() as u64;
        Ok(Some(bytes))
    }
}

/// Several stretches with a head before each.
struct Parts {
    stretch: Stretch,
    rest: VecDeque<(Bytes, Range<u64>)>,
    tail: Option<Bytes>,
}

impl Parts {
    fn new(stretch: Stretch, ranges: &[Range<u64>], kind: &str, boundary: &str) -> Self {
        let size = stretch.download.node().size;
        let rest = ranges
            .iter()
            .map(|range| {
                let place = range::content_range(range, size);
                let head = format!("\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {place}\r\n\r\n");
                (Bytes::from(head), range.clone())
            })
            .collect();
        let tail = Some(Bytes::from(format!("\r\n--{boundary}--\r\n")));
        Self { stretch, rest, tail }
    }

    fn length(&self) -> u64 {
        let parts: u64 = self.rest.iter().map(|(head, range)| head.len() as u64 + (range.end - range.start)).sum();
        parts + self.tail.as_ref().map_or(0, |tail| tail.len() as u64)
    }
}

#[async_trait]
impl Flow for Parts {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(bytes) = self.stretch.next().await? {
            return Ok(Some(bytes));
        }
        Ok(match self.rest.pop_front() {
            Some((head, range)) => {
                self.stretch.range = range;
                Some(head)
            }
            None => self.tail.take(),
        })
    }
}
