//! Comparing folders with the records: both sides are read in one order, page by page, and merged.
//!
//! The merge looks without any lock and only gathers suspects; [`Settler`] decides about each of them.

use std::collections::{BTreeSet, VecDeque};

use crate::error::{Kind, Result};
use crate::hub::Hub;
use crate::hub::adopt::Rescan;
use crate::hub::adopt::settle::{Found, GROUP, Settler, is_same, line};
use crate::hub::adopt::walk::{Walk, belongs};
use crate::hub::files::forget;
use crate::hub::view::{Space, View};
use crate::store::{Batch, Edit, FileRow, Node, NodeKind, RelPath, Usage};

/// Rows read, and paths looked at, at once.
const PAGE: usize = 1000;

/// Lines of history that one comparison writes about single files; the rest is summed up in one line.
const LINES: u64 = 1000;

/// Compares the whole space and sets its usage right.
pub(super) async fn everything(hub: &Hub, space: &Space) -> Result<Rescan> {
    let view = hub.view();
    let mut settler = settler(hub, &view, space);
    let files = below(&mut settler, &RelPath::root()).await?;
    let found = std::mem::take(&mut settler.found);
    sum_up(hub, space, &found).await?;
    let corrected = reconcile(hub, space).await?;
    let Found { created, overwritten, deleted, .. } = found;
    if found.total() > 0 {
        tracing::info!(space = space.key, files, created, overwritten, deleted, "compared with the disk");
    }
    Ok(Rescan { files, created, overwritten, deleted, corrected })
}

/// Settles touched paths; returns those that may still be being written.
pub(super) async fn touched(hub: &Hub, space: &Space, paths: BTreeSet<RelPath>) -> Result<Vec<RelPath>> {
    let view = hub.view();
    let mut settler = settler(hub, &view, space);
    let mut suspects = Vec::new();
    let mut covered: Option<RelPath> = None;
    let paths: Vec<RelPath> = paths.into_iter().filter(|path| belongs(&view, space, path)).collect();
    for paths in paths.chunks(PAGE) {
        let nodes = space.volume.stat_each(paths).await;
        for (path, node) in paths.iter().zip(nodes) {
            if covered.as_ref().is_some_and(|folder| path.is_in(folder)) {
                continue;
            }
            let (suspect, wide) = look(hub, space, path, node).await?;
            if suspect {
                suspects.push(path.clone());
            }
            if wide {
                below(&mut settler, path).await?;
                covered = Some(path.clone());
            }
            if suspects.len() >= GROUP {
                settler.group(&std::mem::take(&mut suspects)).await?;
            }
        }
    }
    settler.group(&suspects).await?;
    let found = std::mem::take(&mut settler.found);
    sum_up(hub, space, &found).await?;
    Ok(found.fresh)
}

/// What a touched path asks for: to be settled itself, and to have all below it compared.
async fn look(hub: &Hub, space: &Space, path: &RelPath, there: Result<Node>) -> Result<(bool, bool)> {
    let ours = match &there {
        Ok(node) => node.kind == NodeKind::File && hub.inner.own.is(&space.key, path.as_str(), Some(node.tag)),
        Err(error) => error.kind() == Kind::NotFound && hub.inner.own.is(&space.key, path.as_str(), None),
    };
    if ours {
        return Ok((false, false));
    }
    let row = hub.catalog().file(&space.key, path.as_str()).await?;
    match there {
        Ok(node) if node.kind == NodeKind::Folder => Ok((row.is_some(), true)),
        Ok(node) if row.as_ref().is_some_and(|row| is_same(row, &node)) => Ok((false, false)),
        // A file that is new here may have taken the place of a folder.
        Ok(_) => Ok((true, row.is_none() && holds(hub, space, path).await?)),
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::WrongType) => {
            Ok((row.is_some(), row.is_none() && holds(hub, space, path).await?))
        }
        Err(error) => Err(error),
    }
}

/// Are files recorded below this path?
async fn holds(hub: &Hub, space: &Space, path: &RelPath) -> Result<bool> {
    Ok(!hub.catalog().files_below(&space.key, path.as_str(), "", 1).await?.is_empty())
}

fn settler<'a>(hub: &'a Hub, view: &'a View, space: &'a Space) -> Settler<'a> {
    Settler { hub, view, space, lines: LINES, found: Found::default() }
}

/// Compares a folder and all below it; how many files are there.
async fn below(settler: &mut Settler<'_>, folder: &RelPath) -> Result<u64> {
    let (hub, view, space) = (settler.hub, settler.view, settler.space);
    let mut walk = Walk::new(view, space, folder.clone());
    let mut rows = Rows::new(hub, space, folder);
    let mut suspects = Vec::new();
    let mut files = 0_u64;
    let mut there = walk.next().await?;
    let mut known = rows.next().await?;
    loop {
        let order = match (&there, &known) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((path, _)), Some(row)) => path.as_str().cmp(row.path.as_str()),
        };
        let same = match (&there, &known) {
            (Some((_, node)), Some(row)) => order.is_eq() && is_same(row, node),
            _ => false,
        };
        if order.is_le() {
            files += 1;
            if let Some((path, _)) = there.take().filter(|_| !same) {
                suspects.push(path);
            }
            there = walk.next().await?;
        }
        if order.is_ge() {
            if order.is_gt() {
                suspects.extend(known.take().and_then(|row| RelPath::new(&row.path).ok()));
            }
            known = rows.next().await?;
        }
        if suspects.len() >= GROUP {
            settler.group(&std::mem::take(&mut suspects)).await?;
        }
    }
    settler.group(&suspects).await?;
    Ok(files)
}

/// The rows below a folder, in the order of their paths.
pub(super) struct Rows<'a> {
    hub: &'a Hub,
    space: &'a Space,
    folder: &'a RelPath,
    page: VecDeque<FileRow>,
    after: String,
    ended: bool,
}

impl<'a> Rows<'a> {
    pub(super) fn new(hub: &'a Hub, space: &'a Space, folder: &'a RelPath) -> Self {
        Self { hub, space, folder, page: VecDeque::new(), after: String::new(), ended: false }
    }

    pub(super) async fn next(&mut self) -> Result<Option<FileRow>> {
        if self.page.is_empty() && !self.ended {
            let page = self.hub.catalog().files_below(&self.space.key, self.folder.as_str(), &self.after, PAGE).await?;
            self.ended = page.len() < PAGE;
            if let Some(last) = page.last() {
                self.after.clone_from(&last.path);
            }
            self.page = page.into();
            for row in &mut self.page {
                respell(self.hub, self.space, row).await?;
            }
        }
        Ok(self.page.pop_front())
    }
}

/// Records of earlier versions have names as they were typed: puts the path of a row into its canonical form.
async fn respell(hub: &Hub, space: &Space, row: &mut FileRow) -> Result<()> {
    let Ok(path) = RelPath::new(&row.path) else { return Ok(()) };
    if path.as_str() == row.path {
        return Ok(());
    }
    let _alone = space.gate.write().await;
    let mut edits = if hub.catalog().file(&space.key, path.as_str()).await?.is_some() {
        forget(space, row).to_vec()
    } else {
        let (from, to) = (row.path.clone(), path.as_str().to_owned());
        vec![Edit::MoveFiles { space: space.key.clone(), from, to }]
    };
    edits.push(line(
        "rename",
        &space.path.with(&path).to_string(),
        row.size,
        "recorded under its canonical name".into(),
    ));
    hub.catalog().commit(Batch { edits }).await?;
    path.as_str().clone_into(&mut row.path);
    Ok(())
}

/// One line for all that got none of their own.
async fn sum_up(hub: &Hub, space: &Space, found: &Found) -> Result<()> {
    let (bytes, files) = found.untold;
    if files == 0 {
        return Ok(());
    }
    let detail = format!("{files} more files changed by other programs");
    hub.catalog().commit(Batch { edits: vec![line("adopt", &space.key, bytes, detail)] }).await
}

/// Makes the usage equal the rows. Commits go on while it looks; only a suspicion stops them for a moment.
async fn reconcile(hub: &Hub, space: &Space) -> Result<bool> {
    if agree(hub, space).await?.is_none() {
        return Ok(false);
    }
    let _alone = space.gate.write().await;
    let Some((counted, held)) = agree(hub, space).await? else { return Ok(false) };
    tracing::warn!(
        space = space.key,
        counted_bytes = counted.bytes,
        counted_files = counted.files,
        bytes = held.bytes,
        files = held.files,
        "the usage did not equal the files and is set right"
    );
    let edit = Edit::SetUsage { space: space.key.clone(), bytes: held.bytes, files: held.files };
    hub.catalog().commit(Batch { edits: vec![edit] }).await?;
    Ok(true)
}

/// What is counted and what the rows sum up to, when they differ.
pub(super) async fn agree(hub: &Hub, space: &Space) -> Result<Option<(Usage, Usage)>> {
    let counted = hub.catalog().usage(&space.key).await?;
    let held = hub.catalog().sum_below(&space.key, "").await?;
    Ok((counted != held).then_some((counted, held)))
}
