//! A folder as a page, as JSON or as plain names: sent page by page, so that memory stays bounded.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::header;

use crate::error::{Error, Kind};
use crate::hub::{Entry, Listing, NodeKind, TreePath, Verb};
use crate::proto::http::base::Base;
use crate::proto::http::body::{Flow, Outgoing};
use crate::proto::http::page::{self, Folder, Order, Sum};
use crate::proto::http::reply::{self, Answer};
use crate::proto::http::shown::shown;
use crate::proto::http::visit::{Visit, who};
use crate::proto::http::{condition, date};

/// A folder up to this many entries is sorted as asked; a larger one comes in the order of its names.
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
    let rights = visit.caller.rights(path);
    let (entries, listing, denied) = match begin(visit, path).await {
        Ok((entries, listing)) => (entries, listing, false),
        // A drop box: its page says that one may add and not look.
        Err(error) if error.kind() == Kind::Denied && format == Format::Html && rights.has(Verb::Create) => {
            (Vec::new(), None, true)
        }
        Err(error) if error.kind() == Kind::WrongType => {
            return Err(Error::new(Kind::NotFound, "there is no such folder").into());
        }
        Err(error) => return Err(error.into()),
    };
    let whole = listing.is_none();
    let entries = if whole && format != Format::Json { sorted(entries, order) } else { entries };
    let (head, tail, kind) = match format {
        Format::Html => {
            let folder = Folder {
                base: &visit.rules.base,
                path,
                who: who(&visit.caller),
                rights,
                order: whole.then_some(order),
                sum: whole.then(|| Sum::of(&entries)),
                denied,
                notice: notice(visit),
            };
            let (head, tail) = page::folder(&folder);
            (head, tail, "text/html; charset=utf-8")
        }
        Format::Json => {
            let head = format!("{{\"path\":{},\"entries\":[", serde_json::Value::from(path.to_string()));
            (head, "]}\n".to_owned(), "application/json")
        }
        Format::Text => (String::new(), String::new(), "text/plain; charset=utf-8"),
    };
    let base = visit.rules.base.clone();
    let flow = Pages { base, format, head: Some(head), entries, listing, tail: Some(tail), first: true };
    let body = if visit.is_get() { Outgoing::flow(flow, None) } else { Outgoing::empty() };
    let mut response = reply::typed(body, kind);
    reply::set(&mut response, header::VARY, "Accept");
    Ok(response)
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

/// Folders first, then by what was asked for, then by name.
fn sorted(mut entries: Vec<Entry>, order: Order) -> Vec<Entry> {
    let by_name = |a: &Entry, b: &Entry| {
        let fold = |entry: &Entry| entry.path.name().to_lowercase();
        fold(a).cmp(&fold(b)).then_with(|| a.path.name().cmp(b.path.name()))
    };
    entries.sort_by(|a, b| {
        let folders = |entry: &Entry| entry.node.kind != NodeKind::Folder;
        let wanted = match order {
            Order { by: "size", .. } => a.node.size.cmp(&b.node.size),
            Order { by: "time", .. } => a.node.modified.cmp(&b.node.modified),
            Order { .. } => by_name(a, b),
        };
        let wanted = if order.down { wanted.reverse() } else { wanted };
        folders(a)
            .cmp(&folders(b))
            .then(wanted)
            .then_with(|| if wanted == Ordering::Equal { by_name(a, b) } else { wanted })
    });
    entries
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
            Format::Html => text.push_str(&page::rows(&self.base, &entries)),
            Format::Json => self.json(&entries, &mut text),
            Format::Text => names(&entries, &mut text),
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
            let value = serde_json::json!({
                "name": entry.path.name(),
                "type": kind,
                "size": entry.node.size,
                "modified": date::rfc3339(entry.node.modified),
                "etag": if folder { None } else { Some(condition::etag(entry.node.tag)) },
                "url": self.base.url(&entry.path, folder),
                "rights": rights.split_whitespace().collect::<Vec<_>>(),
            });
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
