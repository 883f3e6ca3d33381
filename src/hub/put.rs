//! Putting a file in place: the one plan behind FTP STOR, HTTP PUT and a filed attachment.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, Kind, Result};
use crate::hub::act::{Act, Claim, Plan, Planned, Sight};
use crate::hub::caller::special;
use crate::hub::files::signed;
use crate::hub::lock::Reach;
use crate::hub::now;
use crate::hub::path::TreePath;
use crate::hub::policy::Verb;
use crate::hub::settings::Overwrite;
use crate::hub::transfer::Receipt;
use crate::hub::undo::Was;
use crate::hub::view::Space;
use crate::store::volume::name::{self, LONGEST_NAME};
use crate::store::{
    Batch, Body, Change, Edit, Expect, FileRow, Micros, Node, NodeKind, PropertyEdit, ReceiptRow, RelPath, UploadEdit,
};

/// Longest ending of a name, with its dot, that a number is put before.
const LONGEST_EXTENSION: usize = 32;

/// Names tried for `a (2).pdf` before giving up.
const NAMES_TRIED: u32 = 1000;

/// One file to put in place; its bytes are inline or in a sealed stage.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    /// Where it was asked to go.
    pub(crate) path: TreePath,
    /// Its bytes.
    pub(crate) content: Content,
    /// Its length.
    pub(crate) size: u64,
    /// SHA-256 when computed.
    pub(crate) sha256: Option<[u8; 32]>,
    /// Modification time.
    pub(crate) modified: Micros,
    /// Only when what is there has this tag (`Some(None)`: only when nothing is there).
    pub(crate) only_if: Option<Option<u64>>,
    /// Another rule than the space's own.
    pub(crate) rule: Option<Overwrite>,
    /// It is what is there with bytes added at the end.
    pub(crate) appends: bool,
    /// Judge the caller's grants; mail to a mailbox is not a grant.
    pub(crate) judge: bool,
    /// Missing folders are made.
    pub(crate) folders: bool,
    /// Lock tokens the client holds.
    pub(crate) tokens: Vec<String>,
    /// Its properties become those of this file.
    pub(crate) like: Option<TreePath>,
    /// Its name was made up to be the only one of its kind in the world: nobody has to look who else has it.
    pub(crate) unheard: bool,
    /// The history's verb instead of `create` / `overwrite`.
    pub(crate) verb: Option<&'static str>,
    /// The history's detail.
    pub(crate) detail: String,
    /// Of its receipt; empty: none.
    pub(crate) id: String,
    /// What is recorded with it, once.
    pub(crate) closing: Option<Closing>,
}

/// What ends with a put, in the same commit: uploads in pieces, and the question whether a request was done.
#[derive(Clone, Debug)]
pub(crate) struct Closing {
    /// Under which the receipt is kept, of the caller's account.
    pub(crate) key: String,
    /// Which file of the request.
    pub(crate) place: u32,
    /// Method and path.
    pub(crate) request: String,
    /// The upload it was.
    pub(crate) upload: Option<String>,
    /// The parts it was made of.
    pub(crate) parts: Vec<String>,
    /// When the receipt is forgotten.
    pub(crate) expires: Micros,
}

/// Where the bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Inline(Bytes),
    Staged(crate::store::StageId),
}

/// What putting it takes.
pub(crate) struct Placed {
    pub(crate) edits: Vec<Edit>,
    /// What undoes those of them that belong to no path.
    pub(crate) undo: Vec<Edit>,
    pub(crate) planned: Planned,
    pub(crate) path: TreePath,
    /// The path its caller is told: the one asked for, where the other would tell that this was taken.
    pub(crate) told: TreePath,
    pub(crate) created: bool,
}

impl Put {
    /// Plans it; `taken` are the places other puts of the same batch go to.
    pub(crate) async fn place(&self, sight: &Sight<'_>, taken: &HashSet<TreePath>) -> Result<Placed> {
        let (space, rel) = sight.place(&self.path)?;
        if self.unheard {
            // A name nobody heard of can only be locked from above, which is seen soon enough.
            sight.unlocked(&self.path, &self.tokens, Reach::Content)?;
            let paths = (self.path.clone(), self.path.clone());
            return Ok(self.record(sight, space, rel, paths, Was::nothing()));
        }
        let there = sight.look(&space, &rel).await?;
        let unseeing = self.is_unseeing(sight);
        self.precondition(there.as_ref().filter(|node| !unseeing || node.kind == NodeKind::Folder))?;
        match there.as_ref().map(|node| node.kind) {
            Some(NodeKind::Folder) => return Err(Error::new(Kind::WrongType, "a folder has this name")),
            Some(NodeKind::Special) if !unseeing => return Err(special()),
            Some(NodeKind::File | NodeKind::Special) => {}
            None => sight.makes_no_alias(&space, &rel).await?,
        }
        if there.is_none() && !self.folders {
            sight.parent_exists(&space, &rel).await?;
        }
        let occupied = there.is_some() || taken.contains(&self.path);
        let filled = there.as_ref().is_some_and(|node| sight.caller.fills(node, &self.path, &self.tokens));
        let (rel, replaces) = if filled && !taken.contains(&self.path) {
            self.allow(sight, Verb::Create)?;
            (rel, true)
        } else {
            self.settle_name(sight, &space, rel, occupied, taken).await?
        };
        let path = space.path.with(&rel);
        let guard = sight.unlocked(&path, &self.tokens, if replaces { Reach::Content } else { Reach::Member })?;
        // Where no file is there is no row, unless another program took the file a moment ago: the guard tells then.
        let old = match replaces || sight.again {
            true => sight.hub.catalog().file(&space.key, rel.as_str()).await?,
            false => None,
        };
        let was = match self.like.is_some() {
            true => Was { absent: !replaces, ..Was::of(sight, &space, &rel, old).await? },
            false => Was { file: old, properties: None, absent: !replaces },
        };
        let told = if unseeing { self.path.clone() } else { path.clone() };
        let mut placed = self.record(sight, space, rel, (path, told), was);
        placed.edits.push(guard);
        placed.edits.extend(self.properties(sight, &placed.planned.space, &placed.path));
        Ok(placed)
    }

    /// Those of the file it is a copy of.
    fn properties(&self, sight: &Sight<'_>, space: &Space, path: &TreePath) -> Option<Edit> {
        let (other, from) = sight.view.space_of(self.like.as_ref()?)?;
        let to = path.below(&space.path)?;
        let from = (other.key.clone(), from.as_str().to_owned());
        Some(Edit::Property(PropertyEdit::Copy { from, to: (space.key.clone(), to.as_str().to_owned()) }))
    }

    fn precondition(&self, there: Option<&Node>) -> Result<()> {
        match self.only_if {
            Some(wanted) if wanted != there.map(|node| node.tag) => {
                Err(Error::new(Kind::Conflict, "it was changed by someone else meanwhile"))
            }
            _ => Ok(()),
        }
    }

    /// Applies the overwrite rule: the name it gets, and whether it replaces what has it.
    async fn settle_name(
        &self,
        sight: &Sight<'_>,
        space: &Space,
        rel: RelPath,
        occupied: bool,
        taken: &HashSet<TreePath>,
    ) -> Result<(RelPath, bool)> {
        if !occupied {
            self.allow(sight, Verb::Create)?;
            return Ok((rel, false));
        }
        let rule = match self.is_unseeing(sight) {
            true => Overwrite::KeepBoth,
            false => self.rule.unwrap_or(space.overwrite),
        };
        match rule {
            Overwrite::Replace if !taken.contains(&self.path) => {
                self.allow(sight, if self.appends { Verb::Append } else { Verb::Overwrite })?;
                Ok((rel, true))
            }
            Overwrite::Refuse => {
                self.allow(sight, Verb::Create)?;
                Err(Error::new(Kind::Exists, "the name is taken and files here are never replaced"))
            }
            Overwrite::Replace | Overwrite::KeepBoth => {
                self.allow(sight, Verb::Create)?;
                Ok((Self::free_name(sight, space, &rel, taken).await?, false))
            }
        }
    }

    /// Its caller may not learn whether the name was taken.
    fn is_unseeing(&self, sight: &Sight<'_>) -> bool {
        self.judge && sight.view.adds_unseeing(sight.caller.account(), &self.path)
    }

    fn allow(&self, sight: &Sight<'_>, verb: Verb) -> Result<()> {
        if !self.judge {
            return Ok(());
        }
        sight.view.allow(sight.caller.account(), verb, &self.path)
    }

    /// `a.pdf` → `a (2).pdf`, the first that is free on the disk, in the catalog and in this batch.
    pub(crate) async fn free_name(
        sight: &Sight<'_>,
        space: &Space,
        rel: &RelPath,
        taken: &HashSet<TreePath>,
    ) -> Result<RelPath> {
        let folder = rel.parent().unwrap_or_default();
        for number in 2..NAMES_TRIED {
            let candidate = folder.join(&numbered(rel.name(), number))?;
            let free = !taken.contains(&space.path.with(&candidate))
                && sight.look(space, &candidate).await?.is_none()
                && sight.hub.catalog().file(&space.key, candidate.as_str()).await?.is_none();
            if free {
                return Ok(candidate);
            }
        }
        Err(Error::new(Kind::Exists, "the name and every numbered name after it are taken"))
    }

    /// The row, the usage, the history line and the publish.
    fn record(
        &self,
        sight: &Sight<'_>,
        space: Arc<Space>,
        rel: RelPath,
        (path, told): (TreePath, TreePath),
        was: Was,
    ) -> Placed {
        let (replaces, old) = (!was.absent, &was.file);
        let (counted, files, expect) = match old {
            Some(row) => (row.size, 0, Expect::Version(row.version)),
            None => (0, 1, Expect::Absent),
        };
        let row = FileRow {
            space: space.key.clone(),
            path: rel.as_str().to_owned(),
            size: self.size,
            modified: self.modified,
            version: old.as_ref().map_or(1, |row| row.version),
            owner: sight.caller.name().to_owned(),
            sha256: self.sha256,
        };
        let verb = self.verb.unwrap_or(if replaces { "overwrite" } else { "create" });
        let mut edits = vec![
            Edit::PutFile(row, expect),
            self.usage(sight, &space, signed(self.size) - signed(counted), files),
            sight.line(verb, &path, self.size, self.says()),
        ];
        let undo = self.close(sight, &told, !replaces, &mut edits);
        let (body, inline) = match &self.content {
            Content::Inline(bytes) => (Body::Inline, Some(bytes.clone())),
            Content::Staged(id) => (Body::Staged(id.clone()), None),
        };
        let change = Change::Put { path: rel, body, modified: Some(self.modified) };
        let planned = Planned { space, change, body: inline, was: Some(was) };
        Placed { edits, undo, planned, path, told, created: !replaces }
    }

    /// Its part of the quota, leaving alone what is promised to uploads other than those it ends.
    fn usage(&self, sight: &Sight<'_>, space: &Space, bytes: i64, files: i64) -> Edit {
        let uploads = &sight.hub.inner.uploads;
        let own = self.closing.iter().flat_map(|closing| closing.upload.iter().chain(&closing.parts));
        let own = own.map(|id| uploads.promised(id)).fold(0, u64::saturating_add);
        let others = uploads.reserved(&space.key).saturating_sub(own);
        let max_bytes = space.max_bytes.map(|most| most.saturating_sub(others));
        Edit::Usage { space: space.key.clone(), bytes, files, max_bytes, max_files: space.max_files }
    }

    /// The history's detail.
    fn says(&self) -> String {
        match (self.detail.as_str(), self.id.as_str()) {
            (detail, "") => detail.to_owned(),
            ("", id) => format!("receipt {id}"),
            (detail, id) => format!("{detail}; receipt {id}"),
        }
    }

    /// The edits that make it happen once; what undoes them.
    fn close(&self, sight: &Sight<'_>, path: &TreePath, created: bool, edits: &mut Vec<Edit>) -> Vec<Edit> {
        let Some(closing) = &self.closing else { return Vec::new() };
        let mut undo = Vec::new();
        for id in closing.upload.iter().chain(&closing.parts) {
            edits.push(Edit::Upload(UploadEdit::Close(id.clone())));
            undo.extend(sight.hub.inner.uploads.row(id).map(|row| Edit::Upload(UploadEdit::Put(row))));
        }
        let row = ReceiptRow {
            account: sight.caller.name().to_owned(),
            key: closing.key.clone(),
            place: closing.place,
            request: closing.request.clone(),
            id: self.id.clone(),
            path: path.to_string(),
            bytes: self.size,
            modified: self.modified,
            sha256: self.sha256,
            created,
            expires: closing.expires,
        };
        let (account, key) = (row.account.clone(), row.key.clone());
        undo.push(Edit::Upload(UploadEdit::Withdraw { account, key, place: row.place }));
        edits.push(Edit::Upload(UploadEdit::Receipt { row, now: now() }));
        undo
    }
}

/// `a.pdf`, 2 → `a (2).pdf`; `.profile`, 2 → `.profile (2)`. A stem that leaves no room for the number is shortened.
pub(crate) fn numbered(name: &str, number: u32) -> String {
    let name = name::without_alias(name);
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= LONGEST_EXTENSION => name.split_at(dot),
        _ => (&*name, ""),
    };
    let tail = format!(" ({number}){extension}");
    let room = LONGEST_NAME.saturating_sub(name::bytes(&tail).len());
    format!("{}{tail}", name::shortened(stem, room))
}

/// Puts one file, as its own act.
pub(crate) struct PutFile(pub(crate) Put);

#[async_trait]
impl Act for PutFile {
    type Yield = Receipt;

    /// Which verb it needs depends on what is there: it judges while planning.
    fn claim(&self) -> Option<Claim<'_>> {
        None
    }

    fn paths(&self) -> Vec<&TreePath> {
        vec![&self.0.path]
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<Receipt>> {
        let Placed { edits, undo, planned, told, created, .. } = self.0.place(sight, &HashSet::new()).await?;
        let mut receipt = self.0.receipt(told, created);
        Ok(Plan {
            batch: Batch { edits },
            changes: vec![planned],
            wide: false,
            undo,
            answer: Box::new(move |nodes| {
                receipt.tag = tag(nodes.first());
                receipt
            }),
        })
    }
}

/// Puts several files: all of them, or none.
pub(crate) struct PutFiles(pub(crate) Vec<Put>);

#[async_trait]
impl Act for PutFiles {
    type Yield = Vec<Receipt>;

    /// As for one file.
    fn claim(&self) -> Option<Claim<'_>> {
        None
    }

    fn paths(&self) -> Vec<&TreePath> {
        self.0.iter().map(|put| &put.path).collect()
    }

    async fn plan(&self, sight: &Sight<'_>) -> Result<Plan<Vec<Receipt>>> {
        let (mut edits, mut changes) = (Vec::new(), Vec::with_capacity(self.0.len()));
        let (mut taken, mut receipts) = (HashSet::new(), Vec::with_capacity(self.0.len()));
        let mut undo = Vec::new();
        for put in &self.0 {
            let placed = put.place(sight, &taken).await?;
            edits.extend(placed.edits);
            undo.extend(placed.undo);
            changes.push(placed.planned);
            taken.insert(placed.path.clone());
            receipts.push(put.receipt(placed.told, placed.created));
        }
        let answer = move |nodes: &[Option<Node>]| {
            for (place, receipt) in receipts.iter_mut().enumerate() {
                receipt.tag = tag(nodes.get(place));
            }
            receipts
        };
        Ok(Plan { batch: Batch { edits }, changes, wide: false, undo, answer: Box::new(answer) })
    }
}

impl Put {
    /// What is told of it; its tag is known once it is in place.
    fn receipt(&self, path: TreePath, created: bool) -> Receipt {
        Receipt {
            path,
            bytes: self.size,
            sha256: self.sha256,
            tag: 0,
            modified: self.modified,
            created,
            id: self.id.clone(),
        }
    }
}

fn tag(node: Option<&Option<Node>>) -> u64 {
    node.and_then(Option::as_ref).map_or(0, |node| node.tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_names_keep_their_extension() {
        assert_eq!(numbered("a.pdf", 2), "a (2).pdf");
        assert_eq!(numbered("archive.tar.gz", 3), "archive.tar (3).gz");
        assert_eq!(numbered(".profile", 2), ".profile (2)");
        assert_eq!(numbered("README", 2), "README (2)");
        assert_eq!(numbered("e\u{fffd}CC\u{fffd}81", 2), "\u{e9} (2)", "an alias is not made anew");
    }

    #[test]
    fn a_numbered_name_fits_and_ends_between_characters() {
        let family = "\u{1f469}\u{200d}\u{1f680}";
        for name in [
            "a".repeat(255),
            format!("{}.pdf", "a".repeat(251)),
            format!("{}.tar.gz", "\u{e9}".repeat(124)),
            format!("x{}.txt", family.repeat(22)),
            format!("{}.bin", "\u{fffd}FF".repeat(251)),
            format!("a.{}", "b".repeat(253)),
        ] {
            for number in [2, 10, 999] {
                let numbered = numbered(&name, number);
                assert_eq!(RelPath::root().join(&numbered).unwrap().as_str(), numbered);
                assert!(numbered.contains(&format!(" ({number})")), "{numbered}");
            }
        }
        let name = format!("xxxxx{}.txt", family.repeat(22));
        assert_eq!(numbered(&name, 2), format!("xxxxx{} (2).txt", family.repeat(22)));
        assert_eq!(numbered(&name, 10), format!("xxxxx{} (10).txt", family.repeat(21)), "not a part of a character");
    }
}
