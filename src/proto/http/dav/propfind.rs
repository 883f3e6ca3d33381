//! `PROPFIND` (RFC 4918 §9.1): properties of a file, or of a folder and all that is directly in it, sent as they are found.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::StatusCode;

use crate::error::Result;
use crate::hub::property::Property;
use crate::hub::{Caller, Entry, Listing, NodeKind, SpaceRoom, TreePath, Verb};
use crate::proto::http::base::Base;
use crate::proto::http::body::{Flow, Outgoing};
use crate::proto::http::dav::live::Live;
use crate::proto::http::dav::xml::{self, Element, Name};
use crate::proto::http::dav::{self, Depth};
use crate::proto::http::reply::{Answer, Refusal};
use crate::proto::http::settings::Types;
use crate::proto::http::visit::Visit;

/// Most properties asked for by name.
const MOST_NAMES: usize = 256;

/// Entries answered in one piece: few, for each may have properties of some size.
const TOGETHER: usize = 128;

/// What is asked of each resource.
enum Wanted {
    /// What is usual, what clients keep, and these.
    All(Vec<Name>),
    /// The names of all it has.
    Names,
    /// These.
    Some(Vec<Name>),
}

/// Answers `PROPFIND`.
///
/// # Errors
/// Those of the hub; 403 for `Depth: infinity`; 400 and 413 for the body.
pub async fn answer(visit: &mut Visit<'_>, path: &TreePath, most: usize) -> Answer {
    let without_root = dav::is_without_root(visit);
    let depth = if without_root { Depth::One } else { dav::depth(visit, Depth::Infinity)? };
    let body = dav::body(visit, most).await?;
    let root = visit.caller.account().map_or_else(TreePath::root, |account| account.root.clone());
    if root != *path && root.is_in(path) {
        let url = visit.rules.base.url(&root, true);
        return Err(Refusal::new(StatusCode::FORBIDDEN, format!("this account begins at {url}; use that address")));
    }
    // Otherwise a client that could sign in would never be asked to: everybody may see the folders on the way to a public one.
    if visit.caller.is_guest() && !visit.caller.is_in_space(path) {
        visit.caller.allow(Verb::Read, path)?;
    }
    let entry = visit.caller.stat(path).await?;
    if depth == Depth::Infinity && entry.node.kind == NodeKind::Folder {
        let text = "a folder is listed one level at a time: say Depth: 0 or Depth: 1";
        return Err(Refusal::new(StatusCode::FORBIDDEN, text).because("<D:propfind-finite-depth/>"));
    }
    let wanted = Wanted::read(body.as_ref())?;
    let brief = is_brief(visit);
    let listing = match entry.node.kind {
        NodeKind::Folder if depth != Depth::Zero => Some(visit.caller.list(path).await?),
        NodeKind::File | NodeKind::Folder | NodeKind::Special => None,
    };
    let hidden = without_root && listing.is_some();
    let mut sheet = Sheet {
        caller: visit.caller.clone(),
        base: visit.rules.base.clone(),
        types: visit.rules.types.clone(),
        wanted,
        brief,
        room: None,
    };
    if sheet.asks(Live::is_quota) {
        sheet.room = visit.caller.room(path).await.ok();
    }
    let walk = Walk {
        sheet,
        folder: path.clone(),
        first: Some(entry),
        hidden,
        listing,
        page: Vec::new().into_iter(),
        over: false,
    };
    Ok(dav::multistatus(Outgoing::flow(walk, None)))
}

/// The client does not want to hear of what is not there (RFC 8144 §2.1; MS-WDV §2.2.1).
fn is_brief(visit: &Visit<'_>) -> bool {
    let says = |name: &'static str, word: &str| {
        let header = visit.header(hyper::header::HeaderName::from_static(name));
        header.is_some_and(|value| value.split([',', ';']).any(|part| part.trim().eq_ignore_ascii_case(word)))
    };
    says("brief", "t") || says("prefer", "return=minimal")
}

impl Wanted {
    fn read(body: Option<&Element>) -> Result<Self, Refusal> {
        let Some(root) = body else { return Ok(Self::All(Vec::new())) };
        let bad = || Refusal::bad("the body is not a propfind with one of allprop, propname and prop");
        if root.name.in_dav() != Some("propfind") {
            return Err(bad());
        }
        let names = |element: &Element| element.children().map(|child| child.name.clone()).collect::<Vec<_>>();
        let wanted = match (root.child("allprop"), root.child("propname"), root.child("prop")) {
            (Some(_), None, None) => Self::All(root.child("include").map(names).unwrap_or_default()),
            (None, Some(_), None) => Self::Names,
            (None, None, Some(prop)) => Self::Some(names(prop)),
            _ => return Err(bad()),
        };
        match &wanted {
            Self::All(names) | Self::Some(names) if names.len() > MOST_NAMES => Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("more than {MOST_NAMES} properties are asked for"),
            )),
            _ => Ok(wanted),
        }
    }
}

/// What is asked, and by whom.
struct Sheet {
    caller: Caller,
    base: Base,
    types: Types,
    wanted: Wanted,
    brief: bool,
    /// That of the folder's space, where a quota is asked for.
    room: Option<SpaceRoom>,
}

impl Sheet {
    /// Is a live property of such a kind asked for by name?
    fn asks(&self, such: impl Fn(Live) -> bool) -> bool {
        match &self.wanted {
            Wanted::All(names) | Wanted::Some(names) => names.iter().filter_map(Live::of).any(such),
            Wanted::Names => false,
        }
    }

    /// Could anything a client keeps be asked for?
    fn asks_kept(&self) -> bool {
        match &self.wanted {
            Wanted::All(_) | Wanted::Names => true,
            Wanted::Some(names) => names.iter().any(|name| Live::of(name).is_none()),
        }
    }

    /// The room of an entry's space.
    async fn room_of(&self, entry: &Entry) -> Option<SpaceRoom> {
        self.room.as_ref()?;
        match self.caller.is_space(&entry.path) {
            true => self.caller.room(&entry.path).await.ok(),
            false => self.room.clone(),
        }
    }

    /// One `response`.
    async fn write(&self, out: &mut String, entry: &Entry, kept: &[Property]) {
        let url = self.base.url(&entry.path, entry.node.kind == NodeKind::Folder);
        let _ = write!(out, "<D:response><D:href>{url}</D:href>");
        let room = self.room_of(entry).await;
        let resource =
            Resource { entry, base: &self.base, types: &self.types, kept, caller: &self.caller, room: room.as_ref() };
        let (mut there, mut missing) = (String::new(), String::new());
        match &self.wanted {
            Wanted::Some(names) => {
                let absent = names.iter().filter(|name| !resource.write(name, &mut there));
                absent.for_each(|name| name.write_empty(&mut missing));
            }
            Wanted::All(more) => {
                resource.write_usual(&mut there);
                // What is there in any case is not said twice.
                let said =
                    |name: &Name| Live::of(name).is_some_and(|one| !one.is_quota()) || resource.kept(name).is_some();
                let absent = more.iter().filter(|name| !said(name) && !resource.write(name, &mut there));
                absent.for_each(|name| name.write_empty(&mut missing));
            }
            Wanted::Names => resource.write_names(&mut there),
        }
        if !there.is_empty() || missing.is_empty() || self.brief {
            dav::propstat(out, &there, StatusCode::OK, None);
        }
        if !missing.is_empty() && !self.brief {
            dav::propstat(out, &missing, StatusCode::NOT_FOUND, None);
        }
        out.push_str("</D:response>");
    }
}

/// A file or folder with all that can be said of it.
struct Resource<'a> {
    entry: &'a Entry,
    base: &'a Base,
    types: &'a Types,
    /// What clients keep beside it.
    kept: &'a [Property],
    caller: &'a Caller,
    room: Option<&'a SpaceRoom>,
}

impl Resource<'_> {
    fn kept(&self, name: &Name) -> Option<&Property> {
        let key = name.key();
        self.kept.iter().find(|one| one.name == key)
    }

    /// Writes one property; false when it has none of this name.
    fn write(&self, name: &Name, out: &mut String) -> bool {
        if let (Some(live), Some(local)) = (Live::of(name), name.in_dav()) {
            return self.write_live(local, live, out);
        }
        let Some(property) = self.kept(name) else { return false };
        out.push_str(&property.value);
        true
    }

    fn write_live(&self, name: &str, live: Live, out: &mut String) -> bool {
        let Some(value) = live.value(self.entry, self.caller, (self.base, self.types), self.room) else { return false };
        let _ = match value.is_empty() {
            true => write!(out, "<D:{name}/>"),
            false => write!(out, "<D:{name}>{value}</D:{name}>"),
        };
        true
    }

    fn write_usual(&self, out: &mut String) {
        for (name, live) in Live::usual() {
            self.write_live(name, live, out);
        }
        for property in self.kept {
            out.push_str(&property.value);
        }
    }

    fn write_names(&self, out: &mut String) {
        for (name, live) in Live::names() {
            if live.is_of(self.entry) {
                Name::dav(name).write_empty(out);
            }
        }
        for property in self.kept {
            Name::from_key(&property.name).write_empty(out);
        }
    }
}

/// The folder's responses, piece by piece.
struct Walk {
    sheet: Sheet,
    folder: TreePath,
    /// The resource itself, until it is sent.
    first: Option<Entry>,
    /// It was not asked for.
    hidden: bool,
    listing: Option<Listing>,
    /// What is left of the listing's page.
    page: std::vec::IntoIter<Entry>,
    over: bool,
}

impl Walk {
    async fn piece(&mut self) -> Result<Option<String>> {
        if let Some(entry) = self.first.take() {
            let kept = match self.sheet.asks_kept() {
                true => self.sheet.caller.properties(&self.folder).await?,
                false => Vec::new(),
            };
            let mut out = dav::PROLOGUE.to_owned();
            if !self.hidden {
                self.sheet.write(&mut out, &entry, &kept).await;
            }
            return Ok(Some(out));
        }
        if let Some(listing) = &mut self.listing {
            if self.page.as_slice().is_empty() {
                self.page = listing.next_page().await?.into_iter();
            }
            let entries: Vec<Entry> = self.page.by_ref().take(TOGETHER).collect();
            if !entries.is_empty() {
                return self.entries(&entries).await.map(Some);
            }
            self.listing = None;
        }
        let end = (!self.over).then(|| dav::EPILOGUE.to_owned());
        self.over = true;
        Ok(end)
    }

    async fn entries(&self, entries: &[Entry]) -> Result<String> {
        let kept = match self.sheet.asks_kept() {
            true => self.sheet.caller.properties_of(&self.folder, entries).await?,
            false => HashMap::new(),
        };
        let mut out = String::with_capacity(entries.len() * 1_024);
        for entry in entries {
            let kept = kept.get(entry.path.name()).map(Vec::as_slice).unwrap_or_default();
            self.sheet.write(&mut out, entry, kept).await;
        }
        Ok(out)
    }
}

#[async_trait]
impl Flow for Walk {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.piece().await.map(|piece| piece.map(Bytes::from)).map_err(io::Error::other)
    }
}

/// A `response` that is a status alone.
pub fn status_alone(out: &mut String, url: &str, status: StatusCode, text: &str) {
    let _ = write!(
        out,
        "<D:response><D:href>{url}</D:href><D:status>{}</D:status><D:responsedescription>{}</D:responsedescription></D:response>",
        dav::status_line(status),
        xml::text(text)
    );
}
