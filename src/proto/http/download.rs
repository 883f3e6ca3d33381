//! Sending a file: conditions, ranges, and the headers that keep what people uploaded from running in our name.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode, Version};

use crate::error::Error;
use crate::hub::{Download, Held, Mark, Node, TreePath, now};
use crate::proto::http::body::{Flow, Outgoing};
use crate::proto::http::cache::{Audience, Basis, Content, Keep};
use crate::proto::http::coding::{Accepted, Coding};
use crate::proto::http::compress::{self, Compressed};
use crate::proto::http::condition::{self, Conditions, Validator};
use crate::proto::http::file_answer::{FileAnswer, Part};
use crate::proto::http::reply::{self, Answer, Refusal, Reply};
use crate::proto::http::sendfile::LONGEST;
use crate::proto::http::serve::Connection;
use crate::proto::http::settings::Rules;
use crate::proto::http::unsent;
use crate::proto::http::visit::Visit;
use crate::proto::http::{date, mime, range, save_as};

/// Files up to this size are read in one piece where the kernel could send them,
const SMALL: u64 = 64 << 10;
/// and up to this one where it cannot: no more than a frame of a larger one holds.
const MEDIUM: u64 = FRAME;
/// Larger ones in frames of this size (measured: smaller frames cost more calls, larger ones no less time).
const FRAME: u64 = LONGEST as u64;

/// Whatever a browser could run is shown in a sandbox: an origin of its own, no scripts, no forms, no plugins.
const SANDBOX: &str = "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self' data:; \
                       style-src 'self' 'unsafe-inline'; font-src 'self' data:; form-action 'none'; \
                       frame-ancestors 'self'; base-uri 'none'";
/// What is only saved needs no style: a short head leaves more of the line to small files.
const SAVED: &str = "sandbox; default-src 'none'";
/// Viewers of pictures, films and PDF are the browser's own, and some refuse to start in a sandbox.
const VIEWER: &str = "default-src 'none'; img-src 'self' data:; media-src 'self' data:; object-src 'self'; \
                      style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'self'; base-uri 'none'";

/// One form of a file's content: its bytes or those of a file compressed beforehand, and how they are labelled.
struct Form<'a> {
    /// Whose bytes are sent.
    download: Download,
    kind: &'a str,
    validator: Validator,
    coding: Option<Coding>,
    /// The coding is ours, made while it is sent.
    live: bool,
    /// Others get it in another coding.
    varies: bool,
    /// The moment before what is sent was opened.
    mark: Option<Mark>,
    /// The file itself, where one compressed beforehand is sent; and names of such that would come before what is sent.
    others: Vec<Held>,
}

impl<'a> Form<'a> {
    /// The one this client likes best (RFC 9110 §12.5.3).
    async fn choose(visit: &Visit<'a>, path: &TreePath, download: Download, mark: Option<Mark>) -> Self {
        let Rules { settings, codings, .. } = visit.rules;
        let kind = visit.rules.kind(path.name());
        let (validator, size) = (Validator::of(download.node()), download.node().size);
        let shrinks = mime::shrinks(path.name(), kind);
        let stored = shrinks && settings.precompressed;
        let live = shrinks && (settings.compress_least.0..=settings.compress_most.0).contains(&size);
        let mut form = Self {
            download,
            kind,
            validator,
            coding: None,
            live: false,
            varies: stored || (live && !codings.is_empty()),
            mark,
            others: Vec::new(),
        };
        if !form.varies {
            return form;
        }
        let accepted = Accepted::of(visit.headers());
        if stored && form.replace(visit, path, accepted).await {
            return form;
        }
        // What is compressed while it is sent has no parts.
        let exact = [header::RANGE, header::IF_RANGE];
        if live
            && !exact.iter().any(|name| visit.headers().contains_key(name))
            && let Some(coding) = accepted.best(codings.iter().copied())
        {
            form.code(coding, &settings.compress_level.to_string());
            form.live = true;
        }
        form
    }

    /// Takes the bytes of a file compressed beforehand, when there is one that is not older and gives exactly the original's bytes.
    async fn replace(&mut self, visit: &Visit<'_>, path: &TreePath, accepted: Accepted) -> bool {
        let Some(folder) = path.parent() else { return false };
        for coding in accepted.ranked() {
            let Ok(beside) = folder.join(&format!("{}{}", path.name(), coding.suffix())) else { continue };
            let mark = self.mark.as_ref().and_then(|_| visit.mark(&beside));
            let found = visit.caller.open(&beside).await.ok();
            let found = found.filter(|found| found.node().modified >= self.validator.modified);
            let same = match &found {
                Some(found) => visit.rules.siblings.is_the_same(&self.download, found, coding).await,
                None => false,
            };
            let Some(found) = found.filter(|_| same) else {
                match mark.and_then(Mark::hold_name) {
                    Some(held) => self.others.push(held),
                    None => self.mark = None,
                }
                continue;
            };
            let original = self.mark.take().and_then(|mark| mark.hold(&self.download));
            self.mark = mark.filter(|_| original.is_some());
            self.others.extend(original);
            self.code(coding, &format!("{:x}", found.node().tag));
            self.download = found;
            return true;
        }
        false
    }

    /// Another coding is another tag.
    fn code(&mut self, coding: Coding, how: &str) {
        self.coding = Some(coding);
        self.validator.tag = condition::coded_etag(&self.validator.file, coding, how);
    }
}

/// A file's answer, and the body of the part that is sent.
pub struct FileReply {
    pub answer: FileAnswer,
    pub part: Part,
    pub body: Outgoing,
    /// How it can be sent again.
    pub keep: Option<Keep>,
}

/// Answers `GET` and `HEAD` of a file.
///
/// # Errors
/// 412, 416, what the disk says.
pub async fn send(
    visit: &Visit<'_>,
    path: &TreePath,
    download: Download,
    mark: Option<Mark>,
) -> Result<Reply, Refusal> {
    let original = download.node().clone();
    let mut form = Form::choose(visit, path, download, mark).await;
    let mut answer = FileAnswer {
        headers: fields(visit, path, &form),
        validator: form.validator.clone(),
        length: (!form.live).then_some(form.download.node().size),
        ranges: !form.live,
        path: path.to_string(),
    };
    let part = answer.select(&Conditions::of(visit.headers()), visit.is_get())?;
    if form.coding.is_none() && part != Part::Unmodified {
        digest(visit, path, &original, &mut answer.headers).await;
    }
    let (body, keep) = match &part {
        Part::Unmodified => (Outgoing::empty(), None),
        Part::Whole => whole(visit, &mut form, &mut answer).await?,
        Part::Range(range) => (content(visit, form.download, range.clone()).await?, None),
        Part::Ranges(ranges, boundary) => {
            let parts = Parts::new(Stretch::new(visit, form.download, 0..0), ranges, form.kind, boundary);
            let length = parts.length();
            (Outgoing::flow(parts, Some(length)), None)
        }
    };
    Ok(Reply::File(Box::new(FileReply { answer, part, body, keep })))
}

/// A file as the page of a failure: all of it, whatever the request's conditions and ranges are about.
///
/// # Errors
/// What the disk says.
pub async fn as_page(visit: &Visit<'_>, path: &TreePath, download: Download, status: StatusCode) -> Answer {
    let size = download.node().size;
    let mut response = Response::new(content(visit, download, 0..size).await?);
    *response.status_mut() = status;
    let kind = visit.rules.kind(path.name());
    reply::set(&mut response, header::CONTENT_TYPE, kind);
    contain(visit, kind, response.headers_mut());
    Ok(response)
}

/// All of it, to be sent again when its marks say that it may.
async fn whole(
    visit: &Visit<'_>,
    form: &mut Form<'_>,
    answer: &mut FileAnswer,
) -> Result<(Outgoing, Option<Keep>), Refusal> {
    let size = form.download.node().size;
    let body = match form.coding.filter(|_| form.live) {
        Some(coding) => compressed(visit, form.download.clone(), coding).await?,
        None => content(visit, form.download.clone(), 0..size).await?,
    };
    answer.length = body.length();
    // A time that is still to come is said as that of the answer, another one each second.
    let passed = form.validator.modified <= now();
    let held = form.mark.take().filter(|_| passed).and_then(|mark| mark.hold(&form.download));
    let (Some(sent), Some(audience)) = (held, visit.audience()) else { return Ok((body, None)) };
    let content = match body.bytes() {
        Some(bytes) => Content::Whole(bytes),
        None if form.live => return Ok((body, None)),
        None => Content::File(form.download.file(), size),
    };
    let audience = Audience { codings: if form.varies { audience.codings } else { 0 }, ..audience };
    let held = Basis { sent, others: std::mem::take(&mut form.others) };
    Ok((body, Some(Keep { held, content, audience, varies: form.varies })))
}

/// The body in a coding of ours: at once when it is small, else while it is sent, and of unknown length.
async fn compressed(visit: &Visit<'_>, download: Download, coding: Coding) -> Result<Outgoing, Refusal> {
    let (size, level) = (download.node().size, visit.rules.settings.compress_level);
    if size > SMALL || !visit.is_get() {
        return Ok(Outgoing::flow(Compressed::new(download, coding, level), None));
    }
    let bytes = content(visit, download, 0..size).await?.bytes().unwrap_or_default();
    let packed = compress::whole(coding, level, bytes).await.map_err(Error::internal)?;
    Ok(Outgoing::whole(packed))
}

/// The bytes of one range: read now when they are few, else frame by frame as the wire takes them.
async fn content(visit: &Visit<'_>, download: Download, range: Range<u64>) -> Result<Outgoing, Refusal> {
    let length = range.end.saturating_sub(range.start);
    let at_once = match (is_lendable(visit), unsent::is_little()) {
        (true, _) => SMALL,
        (false, true) => MEDIUM,
        (false, false) => unsent::SMALLEST,
    };
    if length > at_once || !visit.is_get() {
        return Ok(Outgoing::flow(Stretch::new(visit, download, range), Some(length)));
    }
    let bytes = match usize::try_from(length) {
        Ok(0) | Err(_) => Bytes::new(),
        Ok(length) => download.read_at(range.start, length).await?,
    };
    if bytes.len() as u64 != length {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the file became shorter while it was read"));
    }
    Ok(Outgoing::whole(bytes).counted())
}

/// Rights can change at any moment: a cache asks each time, and gets a 304; unless a rule says otherwise of what everyone may read.
fn cache_control(visit: &Visit<'_>, path: &TreePath) -> HeaderValue {
    if !visit.caller.is_guest() {
        return HeaderValue::from_static("private, no-cache");
    }
    let rule = match visit.site {
        Some(site) => site.cache.of(&site.path_of(path)),
        None => visit.rules.cache.of(&path.to_string()),
    };
    rule.cloned().unwrap_or(HeaderValue::from_static("no-cache"))
}

/// The fields of a 200, beside those that every response carries.
fn fields(visit: &Visit<'_>, path: &TreePath, form: &Form<'_>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    let mut put = |name: HeaderName, value: &str| {
        headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
    };
    put(header::ETAG, &form.validator.tag);
    if let Some(modified) = date::last_modified(form.validator.modified) {
        put(header::LAST_MODIFIED, &modified);
    }
    put(header::CONTENT_TYPE, form.kind);
    if let Some(coding) = form.coding {
        put(header::CONTENT_ENCODING, coding.name());
    }
    if form.varies {
        put(header::VARY, "Accept-Encoding");
    }
    if !form.live {
        put(header::ACCEPT_RANGES, "bytes");
    }
    if visit.flag("download") {
        put(header::CONTENT_DISPOSITION, &save_as::attachment(path.name()));
    }
    headers.insert(header::CACHE_CONTROL, cache_control(visit, path));
    contain(visit, form.kind, &mut headers);
    headers
}

/// What people uploaded does not run in our name, unless a site says that it speaks for itself.
fn contain(visit: &Visit<'_>, kind: &str, headers: &mut HeaderMap) {
    let policy = match visit.site.filter(|site| site.settings.trusted) {
        Some(site) => site.policy.clone(),
        None if mime::is_saved(kind) => Some(HeaderValue::from_static(SAVED)),
        None if mime::is_inert(kind) => Some(HeaderValue::from_static(VIEWER)),
        None => Some(HeaderValue::from_static(SANDBOX)),
    };
    if let Some(policy) = policy {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
}

/// `Repr-Digest` for who wants it (RFC 9530 §4), where the store knows it: nothing is read for it.
async fn digest(visit: &Visit<'_>, path: &TreePath, node: &Node, headers: &mut HeaderMap) {
    let wanted = visit.header(HeaderName::from_static("want-repr-digest"));
    if !wanted.is_some_and(wants_sha256) {
        return;
    }
    if let Ok(Some(digest)) = visit.caller.digest(path, node).await {
        let value = format!("sha-256=:{}:", STANDARD.encode(digest));
        let value = HeaderValue::from_str(&value).ok();
        headers.extend(value.map(|value| (HeaderName::from_static("repr-digest"), value)));
    }
}

/// `sha-256=5`; 0 is "not acceptable".
fn wants_sha256(list: &str) -> bool {
    let named = |item: &str| item.trim().split_once('=').map(|(name, weight)| (name == "sha-256", weight != "0"));
    list.split(',').filter_map(named).any(|(known, wanted)| known && wanted)
}

/// The kernel can send files to this peer.
fn is_lendable(visit: &Visit<'_>) -> bool {
    // HTTP/2 puts heads of its own between the bytes.
    visit.connection.lent.is_able() && visit.parts.version != Version::HTTP_2
}

/// A stretch of a file.
struct Stretch {
    download: Download,
    range: Range<u64>,
    /// The connection, when it sends files by the kernel.
    lender: Option<Arc<Connection>>,
    /// Bytes of the next piece, for HTTP/2: each may be larger than the one before, which was taken.
    step: Option<u64>,
}

impl Stretch {
    fn new(visit: &Visit<'_>, download: Download, range: Range<u64>) -> Self {
        let step = (visit.parts.version == Version::HTTP_2).then_some(unsent::SMALLEST);
        Self { download, range, lender: is_lendable(visit).then(|| visit.connection.clone()), step }
    }
}

#[async_trait]
impl Flow for Stretch {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let most = self.step.map_or(FRAME, |step| if unsent::is_little() { step } else { unsent::SMALLEST });
        self.step = self.step.map(|step| step.saturating_mul(4).min(FRAME));
        let left = self.range.end.saturating_sub(self.range.start).min(most);
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
