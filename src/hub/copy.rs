//! Copies of files and of whole folders: each file is an upload of its own, judged, counted and written down as any other.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::hub::act::{Act, Claim, Plan, Sight};
use crate::hub::files::{MakeFolder, RemoveFile, RemoveFolder};
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::property::CopyProperties;
use crate::hub::put::Put;
use crate::hub::settings::Overwrite;
use crate::hub::view::Space;
use crate::hub::{Caller, Micros, NodeKind, Receipt, WriteOptions};
use crate::store::volume::name;
use crate::store::{Node, RelPath};

/// Bytes copied at once.
const PIECE: usize = 1 << 20;

/// Most failures that are told one by one.
const TOLD: usize = 1_000;

/// Why a copy of a folder is not all of it.
const HIDDEN: &str = "the folder holds entries whose names are reserved for the server (`.stoa…`); they are not copied";

/// What became of a folder's copy.
#[derive(Debug)]
pub struct Copied {
    /// Where the copy is: another place than asked for where the space keeps both.
    pub place: TreePath,
    /// Files and folders that are there now.
    pub count: usize,
    /// Places where nothing could be put, and why: the first thousand.
    pub failed: Vec<(TreePath, Error)>,
    /// What was copied, with the tag it was listed with.
    pub sources: HashMap<TreePath, u64>,
}

/// Removes a file or a folder that was copied to another space, unless something in it is not what was copied: nothing that came or
/// changed meanwhile is dropped.
pub struct RemoveCopied {
    /// Which.
    pub path: TreePath,
    /// What was copied of it.
    pub copied: HashMap<TreePath, u64>,
}

/// Entries compared at once.
const PAGE: usize = 1_000;

#[async_trait]
impl Act for RemoveCopied {
    type Yield = ();

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim { verb: Verb::Delete, path: &self.path, also: None })
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<()>> {
        let (space, rel) = sight.place(&self.path)?;
        let node = sight.find(&space, &rel).await?;
        let (path, tokens) = (self.path.clone(), Vec::new());
        if node.kind != NodeKind::Folder {
            self.was_copied(&path, &node)?;
            return RemoveFile { path, tokens }.plan(sight).await;
        }
        self.all_was_copied(&space, rel).await?;
        RemoveFolder { path, all: true, tokens }.plan(sight).await
    }
}

impl RemoveCopied {
    fn was_copied(&self, path: &TreePath, node: &Node) -> Result<()> {
        match self.copied.get(path) {
            Some(tag) if node.kind == NodeKind::Folder || *tag == node.tag => Ok(()),
            _ => {
                Err(Error::new(Kind::Conflict, "it changed while it was moved; the source stays, and so does the copy"))
            }
        }
    }

    async fn all_was_copied(&self, space: &Space, folder: RelPath) -> Result<()> {
        let mut waiting = vec![folder];
        while let Some(folder) = waiting.pop() {
            let mut after: Option<String> = None;
            loop {
                let page = space.volume.list(&folder, after.as_deref(), PAGE).await?;
                let ended = page.len() < PAGE;
                for node in &page {
                    let path = folder.join(&node.name)?;
                    self.was_copied(&space.path.with(&path), node)?;
                    if node.kind == NodeKind::Folder {
                        waiting.push(path);
                    }
                }
                after = page.last().map(|node| node.name.clone());
                if ended {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Caller {
    /// Copies a file with its properties. Needs `read` there and `create` or `overwrite` here.
    ///
    /// # Errors
    /// As [`Caller::open`] and [`Caller::write`]; `Exists` when something is there and not `replace`.
    pub async fn copy(
        &self,
        from: &TreePath,
        to: &TreePath,
        replace: bool,
        modified: Option<Micros>,
    ) -> Result<Receipt> {
        let to = &self.new_place(from, to, true).await?;
        let source = self.open(from).await?;
        let size = source.node().size;
        let only_if = if replace { None } else { Some(None) };
        let options =
            WriteOptions { size: Some(size), only_if, like: Some(from.clone()), modified, ..WriteOptions::default() };
        let mut upload = self.write(to, options).await.map_err(|error| match error.kind() {
            Kind::Conflict => Error::new(Kind::Exists, "the new name is taken"),
            _ => error,
        })?;
        let mut at = 0;
        while at < size {
            let piece = source.read_at(at, PIECE).await?;
            if piece.is_empty() {
                return Err(Error::new(Kind::Conflict, "the file became shorter while it was copied"));
            }
            at += piece.len() as u64;
            upload.push(piece).await?;
        }
        upload.commit().await
    }

    /// Where a copy or a move can go without touching what is there: `path` itself while it is free, the first free numbered name
    /// after it where the space keeps both, `None` where what is there would have to be replaced.
    ///
    /// # Errors
    /// The verdict's; `Exists` where the space never replaces; those of the volume.
    pub async fn place_beside(&self, path: &TreePath) -> Result<Option<TreePath>> {
        let view = self.hub().view();
        let sight = Sight { hub: self.hub(), view: &view, caller: self, again: false };
        let (space, rel) = sight.place(path)?;
        if sight.look(&space, &rel).await?.is_none() {
            return Ok(Some(path.clone()));
        }
        match space.overwrite {
            Overwrite::KeepBoth => {}
            Overwrite::Refuse => {
                return Err(Error::new(Kind::Exists, "the name is taken and nothing here is ever replaced"));
            }
            Overwrite::Replace => return Ok(None),
        }
        self.allow(Verb::Create, path)?;
        let free = Put::free_name(&sight, &space, &rel, &HashSet::new()).await?;
        Ok(Some(space.path.with(&free)))
    }

    /// Copies a folder to a place where nothing is: itself, and with `deep` all in it that the caller may list and read. Goes on when
    /// some of it cannot be copied; ends when there is more than `most`.
    ///
    /// # Errors
    /// The verdict's; `Exists`; `Invalid` for a folder into itself; `TooLarge`: what is copied so far stays.
    pub async fn copy_folder(&self, from: &TreePath, to: &TreePath, deep: bool, most: usize) -> Result<Copied> {
        if to.is_in(from) || from.is_in(to) {
            return Err(Error::new(Kind::Invalid, "a folder cannot be copied into itself"));
        }
        self.allow(Verb::List, from)?;
        let to = &self.new_place(from, to, true).await?;
        let mut copied = Copied::at(to.clone());
        self.copy_one_folder(from, to).await?;
        copied.count += 1;
        let mut waiting = if deep { vec![(from.clone(), to.clone())] } else { Vec::new() };
        while let Some((folder, goal)) = waiting.pop() {
            let mut listing = match self.list(&folder).await {
                Ok(listing) => listing,
                Err(error) => {
                    copied.fail(goal, error);
                    continue;
                }
            };
            if self.hides(&folder).await? {
                copied.fail(goal.clone(), Error::new(Kind::Denied, HIDDEN));
            }
            loop {
                let entries = listing.next_page().await?;
                if entries.is_empty() {
                    break;
                }
                for entry in entries {
                    if copied.count + copied.failed.len() >= most {
                        let text = format!("more than {most} files and folders are not copied at once");
                        return Err(Error::new(Kind::TooLarge, text));
                    }
                    let place = self.new_place(&entry.path, &goal.join(entry.path.name())?, false).await?;
                    let outcome = match entry.node.kind {
                        NodeKind::File => self.copy(&entry.path, &place, false, None).await.map(drop),
                        NodeKind::Folder => self.copy_one_folder(&entry.path, &place).await,
                        NodeKind::Special => Err(Error::new(Kind::WrongType, "a link or a special file is not copied")),
                    };
                    match outcome {
                        Ok(()) => {
                            copied.count += 1;
                            copied.sources.insert(entry.path.clone(), entry.node.tag);
                            if entry.node.kind == NodeKind::Folder {
                                waiting.push((entry.path, place));
                            }
                        }
                        Err(error) => copied.fail(place, error),
                    }
                }
            }
        }
        Ok(copied)
    }

    /// Where a copy under the same name goes. An alias (`store::volume::name`) stands for an entry that is there, so a copy cannot have
    /// it: it gets the first free numbered name, or with `plain` the name without a number while that is free. In the copy of a folder the
    /// other entry gets that one.
    async fn new_place(&self, from: &TreePath, to: &TreePath, plain: bool) -> Result<TreePath> {
        let view = self.hub().view();
        let same = from.name() == to.name() && name::is_alias(to.name());
        if !same || !view.verbs(self.account(), to).has(Verb::Create) {
            return Ok(to.clone());
        }
        let sight = Sight { hub: self.hub(), view: &view, caller: self, again: false };
        let (space, rel) = sight.place(to)?;
        let unseeing = view.adds_unseeing(self.account(), to);
        if !unseeing && sight.look(&space, &rel).await?.is_some() {
            return Ok(to.clone());
        }
        let name = rel.parent().unwrap_or_default().join(&name::without_alias(to.name()))?;
        match unseeing || (plain && sight.look(&space, &name).await?.is_none()) {
            true => Ok(space.path.with(&name)),
            false => Ok(space.path.with(&Put::free_name(&sight, &space, &name, &HashSet::new()).await?)),
        }
    }

    /// Does a folder hold entries that no listing shows?
    async fn hides(&self, folder: &TreePath) -> Result<bool> {
        match self.hub().view().space_of(folder) {
            Some((space, rel)) => space.volume.hides(&rel).await,
            None => Ok(false),
        }
    }

    async fn copy_one_folder(&self, from: &TreePath, to: &TreePath) -> Result<()> {
        self.perform(MakeFolder { path: to.clone() }).await?;
        if self.properties(from).await?.is_empty() {
            return Ok(());
        }
        self.perform(CopyProperties { from: from.clone(), to: to.clone() }).await
    }
}

impl Copied {
    /// Nothing yet.
    #[must_use]
    pub fn at(place: TreePath) -> Self {
        Self { place, count: 0, failed: Vec::new(), sources: HashMap::new() }
    }

    fn fail(&mut self, place: TreePath, error: Error) {
        if self.failed.len() < TOLD {
            self.failed.push((place, error));
        }
    }
}
