//! The acts on files and folders that move no bytes: make, remove, rename, touch.

use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::hub::act::{Act, Answer, Claim, Plan, Planned, Sight};
use crate::hub::lock::Reach;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::put::Put;
use crate::hub::settings::Overwrite;
use crate::hub::undo::Was;
use crate::hub::view::Space;
use crate::store::volume::name;
use crate::store::{Batch, Change, Edit, FileRow, Micros, Node, NodeKind, PropertyEdit, RelPath};
use std::collections::HashSet;
use std::sync::Arc;

/// Makes a folder; its parent must be there. `Exists` when something is there.
pub struct MakeFolder {
    /// Where.
    pub path: TreePath,
}

/// Removes a file.
pub struct RemoveFile {
    /// Which. `WrongType` for a folder.
    pub path: TreePath,
    /// Lock tokens the client holds.
    pub tokens: Vec<String>,
}

/// Removes a folder: an empty one, or with `all` everything below it.
pub struct RemoveFolder {
    /// Which. `WrongType` for a file, `NotEmpty` when something is in it and not `all`.
    pub path: TreePath,
    /// With all below it.
    pub all: bool,
    /// Lock tokens the client holds.
    pub tokens: Vec<String>,
}

/// Gives a file or folder another name, in the same space. Answers the name it got.
pub struct Rename {
    /// From.
    pub from: TreePath,
    /// To.
    pub to: TreePath,
    /// What happens when that name is taken.
    pub taken: Taken,
    /// Lock tokens the client holds.
    pub tokens: Vec<String>,
}

/// What a caller wants when the name it asks for is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// What the space's `overwrite` rule says. Where that is `replace`, a file replaces a file; a folder replaces nothing.
    AsRuled,
    /// Keep both where the space does so; else refuse.
    NeverReplace,
    /// Refuse.
    Refuse,
}

/// Sets a modification time.
pub struct SetModified {
    /// Of what.
    pub path: TreePath,
    /// To when.
    pub modified: Micros,
}

impl Sight<'_> {
    /// The space of a path and the path inside it; the root of a space cannot be changed as if it were a file.
    pub(crate) fn place(&self, path: &TreePath) -> Result<(Arc<Space>, RelPath)> {
        match self.view.space_of(path) {
            Some((space, rel)) if !rel.is_root() => Ok((space.clone(), rel)),
            Some(_) => Err(Error::new(Kind::Denied, "this folder is the root of a space and stays as it is")),
            None => Err(nowhere()),
        }
    }

    /// A new name in a space in which the caller is granted nothing is answered as if that space were not there.
    fn known(&self, from: &Space, path: &TreePath) -> Result<()> {
        let account = self.caller.account();
        if !self.view.verbs(account, path).is_empty() {
            return Ok(());
        }
        Err(match self.view.apparent_space(account, path) {
            _ if !self.view.is_hidden(account, path) => nowhere(),
            Some(space) if space.key != from.key => elsewhere(),
            _ if self.view.space(&path.to_string()).is_some() => Error::new(Kind::Exists, "the new name is taken"),
            _ => Error::new(Kind::NotFound, "the folder does not exist"),
        })
    }

    /// What is there, or nothing.
    pub(crate) async fn look(&self, space: &Space, rel: &RelPath) -> Result<Option<Node>> {
        match space.volume.stat(rel).await {
            Ok(node) => Ok(Some(node)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is there; `NotFound` in plain words.
    pub(crate) async fn find(&self, space: &Space, rel: &RelPath) -> Result<Node> {
        self.look(space, rel).await?.ok_or_else(|| Error::new(Kind::NotFound, "no such file or folder"))
    }

    /// The folder a new name goes into must be there.
    pub(crate) async fn parent_exists(&self, space: &Space, rel: &RelPath) -> Result<()> {
        let Some(parent) = rel.parent().filter(|parent| !parent.is_root()) else { return Ok(()) };
        let unseeing = || self.view.adds_unseeing(self.caller.account(), &space.path.with(rel));
        match self.look(space, &parent).await? {
            Some(node) if node.kind == NodeKind::Folder => Ok(()),
            Some(_) if !unseeing() => Err(Error::new(Kind::WrongType, "a part of the path is a file, not a folder")),
            Some(_) | None => Err(Error::new(Kind::NotFound, "the folder does not exist")),
        }
    }

    /// An alias (`store::volume::name`) names what is there already; nothing new can have one.
    pub(crate) async fn makes_no_alias(&self, space: &Space, rel: &RelPath) -> Result<()> {
        let mut at = RelPath::root();
        for part in rel.parts() {
            at = at.join(part)?;
            if name::is_alias(part) && self.look(space, &at).await?.is_none() {
                let text =
                    format!("this spelling means a name in another Unicode form; write {}", name::without_alias(part));
                return Err(Error::new(Kind::Invalid, text));
            }
        }
        Ok(())
    }

    /// A folder with a space mounted below it cannot move or go.
    fn holds_no_space(&self, path: &TreePath) -> Result<()> {
        match self.view.spaces.iter().find(|space| space.path.is_in(path)) {
            Some(space) if !self.view.verbs(self.caller.account(), &space.path).is_empty() => {
                Err(Error::new(Kind::Denied, format!("the space {} is below this folder", space.key)))
            }
            // Its name is none of the caller's business.
            Some(_) => Err(Error::new(Kind::Denied, "this folder cannot be removed or moved")),
            None => Ok(()),
        }
    }
}

fn elsewhere() -> Error {
    Error::new(Kind::Invalid, "a rename stays within one space; copy it there and delete it here")
}

fn nowhere() -> Error {
    Error::new(Kind::Denied, "no space is here: files live in one of the folders shown")
}

/// The edits that forget a file's row.
pub(crate) fn forget(space: &Space, row: &FileRow) -> [Edit; 2] {
    [
        Edit::RemoveFile { space: row.space.clone(), path: row.path.clone(), version: row.version },
        usage(space, -signed(row.size), -1),
    ]
}

/// A usage edit under the space's own limits.
pub(crate) fn usage(space: &Space, bytes: i64, files: i64) -> Edit {
    Edit::Usage { space: space.key.clone(), bytes, files, max_bytes: space.max_bytes, max_files: space.max_files }
}

/// Sizes on a disk never reach 2^63.
pub(crate) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Properties go with their file, also where nothing was counted for it yet.
fn no_properties(space: &Space, rel: &RelPath) -> Edit {
    Edit::Property(PropertyEdit::Clear { space: space.key.clone(), path: rel.as_str().to_owned() })
}

/// Nothing is in the folder, not even what no listing shows.
async fn is_empty(space: &Space, folder: &RelPath) -> Result<()> {
    if !space.volume.list(folder, None, 1).await?.is_empty() {
        return Err(Error::new(Kind::NotEmpty, "the folder is not empty"));
    }
    match space.volume.hides(folder).await? {
        true => Err(Error::new(
            Kind::NotEmpty,
            "the folder is not empty: it holds entries whose names are reserved for the server (`.stoa…`)",
        )),
        false => Ok(()),
    }
}

fn one_change(
    space: Arc<Space>,
    edits: Vec<Edit>,
    (change, was): (Change, Option<Was>),
    (undo, answer): (Vec<Edit>, Answer<()>),
) -> Plan<()> {
    let changes = vec![Planned { space, change, body: None, was }];
    Plan { batch: Batch { edits }, changes, wide: false, undo, answer }
}

/// Who may add and see nothing is told of folders only: the answer for any other name is the same whether a file has it or not, so no
/// folder can be made.
fn unseeing(there: Result<Option<Node>>) -> Error {
    match there {
        Ok(Some(node)) if node.kind == NodeKind::Folder => Error::new(Kind::Exists, "the folder is there already"),
        _ => Error::new(Kind::Denied, "whoever may only add files here may not make folders"),
    }
}

#[async_trait]
impl Act for MakeFolder {
    type Yield = ();

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim { verb: Verb::Create, path: &self.path, also: None })
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<()>> {
        if sight.view.space(&self.path.to_string()).is_some() {
            return Err(Error::new(Kind::Exists, "the folder is there already"));
        }
        let (space, rel) = sight.place(&self.path)?;
        if sight.view.adds_unseeing(sight.caller.account(), &self.path) {
            return Err(unseeing(sight.look(&space, &rel).await));
        }
        let guard = sight.unlocked(&self.path, &[], Reach::Member)?;
        match sight.look(&space, &rel).await? {
            Some(node) if node.kind == NodeKind::Folder => {
                return Err(Error::new(Kind::Exists, "the folder is there already"));
            }
            Some(_) => return Err(Error::new(Kind::Exists, "a file has this name")),
            None => sight.makes_no_alias(&space, &rel).await?,
        }
        sight.parent_exists(&space, &rel).await?;
        let edits = vec![guard, sight.line("mkdir", &self.path, 0, "")];
        Ok(one_change(space, edits, (Change::Folder { path: rel }, None), (Vec::new(), sight.ending(Vec::new()))))
    }
}

#[async_trait]
impl Act for RemoveFile {
    type Yield = ();

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim { verb: Verb::Delete, path: &self.path, also: None })
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<()>> {
        let (space, rel) = sight.place(&self.path)?;
        let guard = sight.unlocked(&self.path, &self.tokens, Reach::Member)?;
        let node = sight.find(&space, &rel).await?;
        if node.kind == NodeKind::Folder {
            return Err(Error::new(Kind::WrongType, "this is a folder, not a file"));
        }
        let (mut edits, locks) = sight.ended_locks(&self.path);
        edits.push(guard);
        let row = sight.hub.catalog().file(&space.key, rel.as_str()).await?;
        let was = Was::of(sight, &space, &rel, row.clone()).await?;
        match row {
            Some(row) => edits.extend(forget(&space, &row)),
            None => edits.push(no_properties(&space, &rel)),
        }
        edits.push(sight.line("delete", &self.path, node.size, ""));
        Ok(one_change(space, edits, (Change::Remove { path: rel }, Some(was)), sight.end_locks(locks)))
    }
}

#[async_trait]
impl Act for RemoveFolder {
    type Yield = ();

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim { verb: Verb::Delete, path: &self.path, also: None })
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<()>> {
        let (space, rel) = sight.place(&self.path)?;
        // First: what is in a space inside, locked or not, must not change the answer.
        sight.holds_no_space(&self.path)?;
        let guard = sight.unlocked(&self.path, &self.tokens, Reach::Tree)?;
        if sight.find(&space, &rel).await?.kind != NodeKind::Folder {
            return Err(Error::new(Kind::WrongType, "this is not a folder"));
        }
        if !self.all {
            is_empty(&space, &rel).await?;
        }
        let held = sight.hub.catalog().sum_below(&space.key, rel.as_str()).await?;
        let (mut edits, locks) = sight.ended_locks(&self.path);
        // The rows below it are removed once it is gone: see `Hub::follow_up`.
        edits.extend([guard, sight.line("rmdir", &self.path, held.bytes, format!("{} files", held.files))]);
        let change = Change::RemoveFolder { path: rel, all: self.all };
        Ok(Plan { wide: true, ..one_change(space, edits, (change, None), sight.end_locks(locks)) })
    }
}

#[async_trait]
impl Act for Rename {
    type Yield = TreePath;

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim { verb: Verb::Rename, path: &self.from, also: None })
    }

    fn paths(&self) -> Vec<&TreePath> {
        vec![&self.from, &self.to]
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<TreePath>> {
        let (space, from) = sight.place(&self.from)?;
        sight.known(&space, &self.to)?;
        let (goal, to) = sight.place(&self.to)?;
        if goal.key != space.key {
            return Err(elsewhere());
        }
        sight.holds_no_space(&self.from)?;
        sight.holds_no_space(&self.to)?;
        let moved = sight.find(&space, &from).await?;
        if from == to {
            return Ok(unchanged(self.to.clone()));
        }
        let folder = moved.kind == NodeKind::Folder;
        if folder && to.is_in(&from) {
            return Err(Error::new(Kind::Invalid, "a folder cannot move into itself"));
        }
        sight.parent_exists(&space, &to).await?;
        let (to, mut edits, was) = self.clear_the_way(sight, &space, to, folder).await?;
        let path = space.path.with(&to);
        for path in [&self.from, &path] {
            edits.push(sight.unlocked(path, &self.tokens, Reach::Tree)?);
        }
        edits.push(Edit::MoveFiles {
            space: space.key.clone(),
            from: from.as_str().to_owned(),
            to: to.as_str().to_owned(),
        });
        edits.push(sight.line("rename", &self.from, moved.size, format!("to {path}")));
        // What is locked is the name, not what has it (RFC 4918 §7.6).
        let (ends, locks) = sight.ended_locks(&self.from);
        edits.extend(ends);
        let (undo, ending) = sight.end_locks(locks);
        let answer = Box::new(move |nodes: &[Option<Node>]| {
            ending(nodes);
            path
        });
        let changes = vec![Planned { space, change: Change::Rename { from, to }, body: None, was: Some(was) }];
        Ok(Plan { batch: Batch { edits }, changes, wide: folder, undo, answer })
    }
}

/// A rename to the name it has: nothing is done or written down.
fn unchanged(path: TreePath) -> Plan<TreePath> {
    let batch = Batch { edits: Vec::new() };
    Plan { batch, changes: Vec::new(), wide: false, undo: Vec::new(), answer: Box::new(|_| path) }
}

impl Rename {
    /// The name it gets, and what must be forgotten because something else has that name. The rule is that of [`Put`].
    async fn clear_the_way(
        &self,
        sight: &Sight<'_>,
        space: &Space,
        to: RelPath,
        folder: bool,
    ) -> Result<(RelPath, Vec<Edit>, Was)> {
        let account = sight.caller.account();
        let Some(there) = sight.look(space, &to).await? else {
            sight.view.allow(account, Verb::Create, &self.to)?;
            sight.makes_no_alias(space, &to).await?;
            return Ok((to, Vec::new(), Was::nothing()));
        };
        if space.overwrite == Overwrite::KeepBoth && self.taken != Taken::Refuse {
            sight.view.allow(account, Verb::Create, &self.to)?;
            let free = Put::free_name(sight, space, &to, &HashSet::new()).await?;
            return Ok((free, Vec::new(), Was::nothing()));
        }
        if folder || there.kind != NodeKind::File || self.taken != Taken::AsRuled {
            return Err(Error::new(Kind::Exists, "the new name is taken"));
        }
        sight.view.allow(account, Verb::Overwrite, &self.to)?;
        if space.overwrite == Overwrite::Refuse {
            return Err(Error::new(Kind::Exists, "the new name is taken and files here are never replaced"));
        }
        let row = sight.hub.catalog().file(&space.key, to.as_str()).await?;
        let was = Was::of(sight, space, &to, row.clone()).await?;
        Ok((to, row.map(|row| forget(space, &row).to_vec()).unwrap_or_default(), was))
    }
}

#[async_trait]
impl Act for SetModified {
    type Yield = ();

    fn claim(&self) -> Option<Claim<'_>> {
        Some(Claim { verb: Verb::Overwrite, path: &self.path, also: None })
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<()>> {
        let (space, rel) = sight.place(&self.path)?;
        let mut edits = vec![sight.unlocked(&self.path, &[], Reach::Content)?];
        if sight.find(&space, &rel).await?.kind == NodeKind::Special {
            return Err(Error::new(Kind::WrongType, "a link or a special file keeps its time"));
        }
        let row = sight.hub.catalog().file(&space.key, rel.as_str()).await?;
        let was = Was { file: row.clone(), ..Was::default() };
        if let Some(row) = row {
            let expect = crate::store::Expect::Version(row.version);
            edits.push(Edit::PutFile(FileRow { modified: self.modified, ..row }, expect));
        }
        edits.push(sight.line("touch", &self.path, 0, ""));
        let change = Change::SetModified { path: rel, modified: self.modified };
        Ok(one_change(space, edits, (change, Some(was)), (Vec::new(), sight.ending(Vec::new()))))
    }
}
