//! A folder as a page, as JSON or as plain names, in bounded memory: a page has some of the rows, the other forms are sent as they are read.

use std::fmt::Write as _;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::{Response, header};

use crate::error::{Error, Kind};
use crate::hub::{Entry, Listing, NodeKind, TreePath, Verb};
use crate::proto::http::base::Base;
use crate::proto::http::body::{Flow, Outgoing};
use crate::proto::http::page::{self, Folder};
use crate::proto::http::pager::{self, Cursor, Order, Page};
use crate::proto::http::reply::{self, Answer};
use crate::proto::http::shown::shown;
use crate::proto::http::visit::{Visit, who};
use crate::proto::http::{condition, date};

/// A folder up to this many entries is sorted as a list of names; a larger one comes in the order of its names.
const SORTED: usize = 2_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Html,
    Json,
    Text,
}

/// Answers `GET` and `HEAD` of a folder.
///
/// # Errors
/// Those of the hub.
pub async fn send(visit: &Visit<'_>, path: &TreePath) -> Answer {
    let format = format(visit);
    let order = Order::read(visit.query("sort").as_deref(), visit.query("order").as_deref());
    let answer = match format {
        Format::Html => page(visit, path, order).await,
        Format::Json | Format::Text => stream(visit, path, format, order).await,
    };
    let mut response = answer.map_err(|error| match error.kind() {
        Kind::WrongType => Error::new(Kind::NotFound, "there is no such folder"),
        _ => error,
    })?;
    reply::set(&mut response, header::VARY, "Accept");
    Ok(response)
}

/// One page of it, as a page.
async fn page(visit: &Visit<'_>, path: &TreePath, order: Order) -> Result<Response<Outgoing>, Error> {
    let rights = visit.caller.seeming_rights(path);
    let cursor = Cursor::read(visit.query("after").as_deref(), visit.query("before").as_deref());
    let (rows, denied) = match visit.caller.list(path).await {
        Ok(mut listing) => (pager::read(&mut listing, order, cursor.as_ref(), |_| true).await?, false),
        // A drop box: its page says that one may add and not look.
        Err(error) if error.kind() == Kind::Denied && rights.has(Verb::Create) => (Page::default(), true),
        Err(error) => return Err(error),
    };
    let (base, who) = (&visit.rules.base, who(&visit.caller));
    let folder = Folder { base, path, who, rights, order, rows: &rows, denied, notice: notice(visit) };
    Ok(reply::html(page::folder(&folder)))
}

/// All of it, sent as it is read.
async fn stream(visit: &Visit<'_>, path: &TreePath, format: Format, order: Order) -> Result<Response<Outgoing>, Error> {
    let (mut entries, listing) = begin(visit, path).await?;
    if format == Format::Text && listing.is_none() {
        entries.sort_by(|a, b| order.compare(a, b));
    }
    let (head, tail, kind) = match format {
        Format::Json => {
            let head = format!("{{\"path\":{},\"entries\":[", serde_json::Value::from(path.to_string()));
            (head, "]}\n".to_owned(), "application/json")
        }
        Format::Html | Format::Text => (String::new(), String::new(), "text/plain; charset=utf-8"),
    };
    let base = visit.rules.base.clone();
    let flow = Pages { base, format, head: Some(head), entries, listing, tail: Some(tail), first: true };
    let body = if visit.is_get() { Outgoing::flow(flow, None) } else { Outgoing::empty() };
    Ok(reply::typed(body, kind))
}

/// `?format=` wins over `Accept`; a page when nothing is said.
fn format(visit: &Visit<'_>) -> Format {
    match visit.query("format").as_deref() {
        Some("html") => Format::Html,
        Some("json") => Format::Json,
        Some("text") => Format::Text,
        _ if reply::wants(visit.headers(), "text/html") => Format::Html,
        _ if reply::wants(visit.headers(), "application/json") => Format::Json,
        _ if reply::wants(visit.headers(), "text/plain") => Format::Text,
        _ => Format::Html,
    }
}

/// What a form did a moment ago, as its redirect says.
fn notice(visit: &Visit<'_>) -> Option<String> {
    if let Some(count) = visit.query("added").and_then(|text| text.parse::<usize>().ok()) {
        return Some(match count {
            0 => "No file was chosen.".to_owned(),
            1 => "One file was added.".to_owned(),
            more => format!("{more} files were added."),
        });
    }
    if let Some(name) = visit.query("renamed") {
        return Some(format!("Renamed to {name}."));
    }
    visit.query("removed").map(|_| "Deleted.".to_owned())
}

/// The first entries; and the listing, when there are more.
async fn begin(visit: &Visit<'_>, path: &TreePath) -> Result<(Vec<Entry>, Option<Listing>), Error> {
    let mut listing = visit.caller.list(path).await?;
    let mut entries = Vec::new();
    while entries.len() < SORTED {
        let page = listing.next_page().await?;
        if page.is_empty() {
            return Ok((entries, None));
        }
        entries.extend(page);
    }
    Ok((entries, Some(listing)))
}

/// A listing on its way out.
struct Pages {
    base: Base,
    format: Format,
    head: Option<String>,
    entries: Vec<Entry>,
    listing: Option<Listing>,
    tail: Option<String>,
    first: bool,
}

#[async_trait]
impl Flow for Pages {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut text = self.head.take().unwrap_or_default();
        let mut entries = std::mem::take(&mut self.entries);
        if entries.is_empty()
            && let Some(listing) = &mut self.listing
        {
            entries = listing.next_page().await.map_err(io::Error::other)?;
        }
        if entries.is_empty() {
            self.listing = None;
        }
        match self.format {
            Format::Json => self.json(&entries, &mut text),
            Format::Html | Format::Text => names(&entries, &mut text),
        }
        if self.listing.is_none() {
            text.push_str(&self.tail.take().unwrap_or_default());
        }
        Ok((!text.is_empty()).then(|| text.into()))
    }
}

impl Pages {
    fn json(&mut self, entries: &[Entry], text: &mut String) {
        for entry in entries {
            if !std::mem::take(&mut self.first) {
                text.push(',');
            }
            let (folder, kind) = match entry.node.kind {
                NodeKind::File => (false, "file"),
                NodeKind::Folder => (true, "folder"),
                NodeKind::Special => (false, "special"),
            };
            let rights = entry.rights.to_string();
            let mut value = serde_json::json!({
                "name": entry.path.name(),
                "type": kind,
                "size": entry.node.size,
                "etag": if folder { None } else { Some(condition::etag(entry.node.tag)) },
                "url": self.base.url(&entry.path, folder),
                "rights": rights.split_whitespace().collect::<Vec<_>>(),
            });
            // A folder on the way to others has no time.
            if let (false, Some(fields)) = (entry.is_virtual(), value.as_object_mut()) {
                fields.insert("modified".to_owned(), date::rfc3339(entry.node.modified).into());
            }
            let _ = write!(text, "{value}");
        }
    }
}

/// One name a line, folders with a slash. Names hold no line ends.
fn names(entries: &[Entry], text: &mut String) {
    for entry in entries {
        text.push_str(&shown(entry.path.name()));
        text.push_str(if entry.node.kind == NodeKind::Folder { "/\n" } else { "\n" });
    }
}
