//! `COPY` and `MOVE` (RFC 4918 §9.8, §9.9), of files and of whole folders; `MKCOL` (§9.3).

use hyper::header::{HeaderName, HeaderValue};
use hyper::{StatusCode, header};

use crate::error::{Error, Kind};
use crate::hub::files::{MakeFolder, RemoveFile, RemoveFolder, Rename, Taken};
use crate::hub::lock::Reach;
use crate::hub::{Copied, Micros, NodeKind, RemoveCopied, TreePath, Verb};
use crate::proto::http::base::Base;
use crate::proto::http::body::Outgoing;
use crate::proto::http::dav::{self, Depth, propfind};
use crate::proto::http::reply::{self, Answer, Refusal};
use crate::proto::http::target::{self, Target};
use crate::proto::http::upload;
use crate::proto::http::visit::Visit;

/// What is asked for.
struct Transfer<'a> {
    from: &'a TreePath,
    to: TreePath,
    /// What is at the source.
    kind: NodeKind,
    /// What is at the destination.
    there: Option<NodeKind>,
    /// What is there may be replaced.
    replace: bool,
    /// A folder comes with all in it.
    deep: bool,
    /// Most files and folders copied.
    most: usize,
    /// The time the client wants on a file that is copied.
    modified: Option<Micros>,
}

/// Answers `COPY` and `MOVE` to the place in `Destination`.
///
/// # Errors
/// Those of the hub; 412 when something is there and `Overwrite: F`; 403 for a folder into itself; 409 when its folder is missing.
pub async fn answer(visit: &Visit<'_>, from: &TreePath, copy: bool, most: usize) -> Answer {
    let to = destination(visit)?;
    let depth = dav::depth(visit, Depth::Infinity)?;
    let replace = overwrite(visit)?;
    let wished = upload::modified(visit)?;
    // Whoever may not take it learns nothing of either place.
    visit.caller.allow(if copy { Verb::Read } else { Verb::Rename }, from)?;
    let (kind, seen) = match visit.caller.stat(from).await {
        Ok(entry) => (entry.node.kind, Some(entry.node.modified)),
        // A file that the caller may move and not see; whether it is there is found out on the way.
        Err(error) if error.kind() == Kind::NotFound && !copy => (NodeKind::File, None),
        Err(error) => return Err(error.into()),
    };
    // What moves to another space keeps its time.
    let modified = wished.or(seen.filter(|_| !copy));
    if depth == Depth::One || (!copy && kind == NodeKind::Folder && depth == Depth::Zero) {
        return Err(Refusal::bad("a folder is moved with Depth: infinity, and copied with that or Depth: 0"));
    }
    if *from == to || to.is_in(from) || from.is_in(&to) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "it cannot come to be in itself, or in the place of a folder it is in",
        ));
    }
    let there = match visit.caller.stat(&to).await {
        Ok(entry) => Some(entry.node.kind),
        Err(error) if error.kind() == Kind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    if there.is_some() && !replace {
        return Err(Refusal::precondition());
    }
    let transfer = Transfer { from, to, kind, there, replace, deep: depth == Depth::Infinity, most, modified };
    let done = match copy {
        true => transfer.copy(visit).await,
        false => transfer.relocate(visit).await,
    };
    match done {
        Ok(copied) if copied.failed.is_empty() => {
            let mut response = transfer.arrived(&copied.place);
            // A file that only gets another name keeps its time.
            if copy && kind == NodeKind::File {
                upload::accept_time(visit, &mut response);
            }
            Ok(response)
        }
        Ok(copied) => Ok(partly(&visit.rules.base, &copied)),
        Err(error) => Err(transfer.refused(visit, error).await),
    }
}

impl Transfer<'_> {
    async fn copy(&self, visit: &Visit<'_>) -> Result<Copied, Error> {
        let caller = &visit.caller;
        if self.kind == NodeKind::Special {
            // Before anything at the destination is touched.
            return Err(Error::new(Kind::WrongType, "a link or a special file is not copied"));
        }
        if self.kind != NodeKind::Folder && self.there.is_some_and(|there| there != NodeKind::Folder) {
            return caller
                .copy(self.from, &self.to, self.replace, self.modified)
                .await
                .map(|receipt| Copied::at(receipt.path));
        }
        if self.kind == NodeKind::Folder {
            caller.allow(Verb::List, self.from)?;
        }
        let place = self.free_place(visit).await?;
        match self.kind {
            NodeKind::Folder => caller.copy_folder(self.from, &place, self.deep, self.most).await,
            _ => caller.copy(self.from, &place, self.replace, self.modified).await.map(|got| Copied::at(got.path)),
        }
    }

    async fn relocate(&self, visit: &Visit<'_>) -> Result<Copied, Error> {
        let caller = &visit.caller;
        if !caller.is_one_space(self.from, &self.to) {
            return self.carry_over(visit).await;
        }
        // A file takes a file's place in one step; anything else must be gone first (RFC 4918 §9.9.3).
        let to = match (self.kind, self.there) {
            (_, None) | (NodeKind::File, Some(NodeKind::File)) => self.to.clone(),
            _ => {
                passes_locks(visit, self.from)?;
                self.free_place(visit).await?
            }
        };
        let taken = if self.replace { Taken::AsRuled } else { Taken::Refuse };
        let act = Rename { from: self.from.clone(), to, taken, tokens: Vec::new() };
        caller.perform(act).await.map(Copied::at)
    }

    /// To another space: a copy, then the end of the original.
    async fn carry_over(&self, visit: &Visit<'_>) -> Result<Copied, Error> {
        visit.caller.allow(Verb::Delete, self.from)?;
        passes_locks(visit, self.from)?;
        let before = visit.caller.stat(self.from).await?.node;
        let mut copied = self.copy(visit).await?;
        if copied.failed.is_empty() {
            copied.sources.insert(self.from.clone(), before.tag);
            let copied = std::mem::take(&mut copied.sources);
            visit.caller.perform(RemoveCopied { path: self.from.clone(), copied }).await?;
        }
        Ok(copied)
    }

    /// A place where nothing is. Where the space keeps both that is another name; where it replaces, what is at the destination is
    /// removed, once it is clear that something else may come there.
    async fn free_place(&self, visit: &Visit<'_>) -> Result<TreePath, Error> {
        let Some(kind) = self.there else { return Ok(self.to.clone()) };
        visit.caller.allow(Verb::Create, &self.to)?;
        if let Some(place) = visit.caller.place_beside(&self.to).await? {
            return Ok(place);
        }
        remove(visit, &self.to, kind).await?;
        Ok(self.to.clone())
    }

    /// The folder of the destination is missing.
    async fn is_nowhere(&self, visit: &Visit<'_>) -> bool {
        match self.to.parent() {
            Some(folder) => visit.caller.stat(&folder).await.is_err(),
            None => false,
        }
    }

    fn arrived(&self, place: &TreePath) -> hyper::Response<Outgoing> {
        if self.there.is_some() && *place == self.to {
            return reply::bare(StatusCode::NO_CONTENT);
        }
        let mut response = reply::bare(StatusCode::CREATED);
        reply::set(&mut response, header::LOCATION, &target::url(place, self.kind == NodeKind::Folder));
        response
    }

    async fn refused(&self, visit: &Visit<'_>, error: Error) -> Refusal {
        match error.kind() {
            Kind::Locked => {
                let other = visit.caller.lock_in_the_way(&self.to, Reach::Tree);
                let other = other.or_else(|| visit.caller.lock_in_the_way(self.from, Reach::Tree));
                dav::locked(visit, error.into(), other.as_ref().unwrap_or(&self.to))
            }
            // RFC 4918 §9.8.5: the folder it should come into.
            Kind::NotFound
                if visit.caller.seeming_rights(&self.to).has(Verb::Create) && self.is_nowhere(visit).await =>
            {
                Refusal::new(StatusCode::CONFLICT, "the folder it should come into is not there; make it first")
            }
            Kind::Exists if !self.replace => Refusal::precondition(),
            _ => error.into(),
        }
    }
}

/// Would everything at a path let itself be moved?
fn passes_locks(visit: &Visit<'_>, path: &TreePath) -> Result<(), Error> {
    match visit.caller.lock_in_the_way(path, Reach::Tree) {
        Some(_) => Err(Error::new(Kind::Locked, "it, or something in it, is locked")),
        None => Ok(()),
    }
}

async fn remove(visit: &Visit<'_>, path: &TreePath, kind: NodeKind) -> Result<(), Error> {
    let (path, tokens) = (path.clone(), Vec::new());
    match kind {
        NodeKind::File | NodeKind::Special => visit.caller.perform(RemoveFile { path, tokens }).await,
        NodeKind::Folder => visit.caller.perform(RemoveFolder { path, all: true, tokens }).await,
    }
}

/// What could not be copied, each with its status.
fn partly(base: &Base, copied: &Copied) -> hyper::Response<Outgoing> {
    let mut out = dav::PROLOGUE.to_owned();
    for (path, error) in &copied.failed {
        propfind::status_alone(&mut out, &base.url(path, false), reply::status(error.kind()), error.public());
    }
    out.push_str(dav::EPILOGUE);
    dav::multistatus(Outgoing::whole(out))
}

/// `Destination`: a path, or a URL of this server.
fn destination(visit: &Visit<'_>) -> Result<TreePath, Refusal> {
    let text = visit.headers().get("destination").map(HeaderValue::as_bytes).unwrap_or_default();
    let uri = target::reference(text).ok_or_else(|| Refusal::bad("Destination is not a URL"))?;
    let Some(path) = visit.here(&uri) else {
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, "Destination is on another server"));
    };
    match target::read(path)? {
        Target::Tree { path, .. } if !path.is_root() => Ok(path),
        Target::Everything | Target::Own(_) | Target::Tree { .. } => {
            Err(Refusal::new(StatusCode::FORBIDDEN, "Destination cannot be there"))
        }
    }
}

fn overwrite(visit: &Visit<'_>) -> Result<bool, Refusal> {
    match visit.header(HeaderName::from_static("overwrite")).map(str::trim) {
        None | Some("T" | "t") => Ok(true),
        Some("F" | "f") => Ok(false),
        Some(_) => Err(Refusal::bad("Overwrite is T or F")),
    }
}

/// Answers `MKCOL`: a folder.
///
/// # Errors
/// Those of the hub; 405 when something is there, 409 when its own folder is missing, 415 for a body.
pub async fn make_folder(visit: &mut Visit<'_>, path: &TreePath) -> Answer {
    visit.caller.allow_seemingly(Verb::Create, path)?;
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
            let allow = HeaderValue::from_static(
                "GET, HEAD, PUT, DELETE, COPY, MOVE, PROPFIND, PROPPATCH, LOCK, UNLOCK, OPTIONS",
            );
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "it is there already").with(header::ALLOW, allow))
        }
        Err(error) if error.kind() == Kind::NotFound && visit.caller.seeming_rights(path).has(Verb::Create) => {
            Err(Refusal::new(StatusCode::CONFLICT, "its folder is not there; make it first"))
        }
        Err(error) => Err(error.into()),
    }
}
