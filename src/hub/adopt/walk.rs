//! Walking a volume in the order in which the catalog keeps its paths.
//!
//! Paths are compared byte by byte, and `/` sorts behind `-` and `.`: what is in the folder `a` comes behind the file
//! `a.txt`. A folder is therefore held back until the names have passed `a/`; at most one folder for each length of a
//! name can be waiting, so memory is bounded by the depth of the tree and a page of each folder on the way.

use std::collections::VecDeque;

use crate::error::{Kind, Result};
use crate::hub::view::{Space, View};
use crate::store::{Node, NodeKind, RelPath};

/// Nodes read of one folder at once.
const PAGE: usize = 512;

/// The same far below the root.
const DEEP_PAGE: usize = 16;

/// Folders on the way from which the smaller page holds.
const DEEP: usize = 32;

/// A walk over the files of a space, those of spaces mounted inside it left out.
pub(super) struct Walk<'a> {
    view: &'a View,
    space: &'a Space,
    way: Vec<Frame>,
}

struct Frame {
    folder: RelPath,
    page: VecDeque<Node>,
    last: Option<String>,
    ended: bool,
    /// Folders whose names are passed but whose paths are still to come.
    waiting: Vec<String>,
}

impl Frame {
    fn new(folder: RelPath) -> Self {
        Self { folder, page: VecDeque::new(), last: None, ended: false, waiting: Vec::new() }
    }

    /// The folder that comes before the next name.
    fn due(&mut self) -> Option<RelPath> {
        let next = self.page.front().map(|node| node.name.as_bytes());
        let due = self.waiting.last().is_some_and(|folder| {
            next.is_none_or(|next| {
                next > folder.as_bytes().iter().copied().chain([b'/']).collect::<Vec<_>>().as_slice()
            })
        });
        if !due {
            return None;
        }
        self.waiting.pop().and_then(|name| self.folder.join(&name).ok())
    }
}

impl<'a> Walk<'a> {
    /// Begins at a folder.
    pub(super) fn new(view: &'a View, space: &'a Space, folder: RelPath) -> Self {
        Self { view, space, way: vec![Frame::new(folder)] }
    }

    /// The next file in the order of paths.
    pub(super) async fn next(&mut self) -> Result<Option<(RelPath, Node)>> {
        loop {
            let depth = self.way.len();
            let Some(frame) = self.way.last_mut() else { return Ok(None) };
            if frame.page.is_empty() && !frame.ended {
                read(self.space, frame, if depth < DEEP { PAGE } else { DEEP_PAGE }).await?;
            }
            if let Some(folder) = frame.due() {
                self.way.push(Frame::new(folder));
                continue;
            }
            let Some(node) = frame.page.pop_front() else {
                self.way.pop();
                continue;
            };
            let Ok(path) = frame.folder.join(&node.name) else { continue };
            if !belongs(self.view, self.space, &path) {
                continue;
            }
            match node.kind {
                NodeKind::File => return Ok(Some((path, node))),
                NodeKind::Folder => frame.waiting.push(node.name),
                NodeKind::Special => {}
            }
        }
    }
}

/// Reads the next page of a folder. One that has gone meanwhile is empty; so is one we may not read, with a word in the
/// log: what is recorded below it is looked at name by name before anything is believed gone.
async fn read(space: &Space, frame: &mut Frame, limit: usize) -> Result<()> {
    let page = match space.volume.list(&frame.folder, frame.last.as_deref(), limit).await {
        Ok(page) => page,
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::WrongType) => Vec::new(),
        Err(error) if matches!(error.kind(), Kind::Denied | Kind::Invalid) => {
            tracing::warn!(space = space.key, folder = %frame.folder, error = error.detail(), "a folder cannot be read");
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    frame.ended = page.len() < limit;
    frame.last = page.last().map(|node| node.name.clone());
    frame.page = page.into();
    Ok(())
}

/// Does a path of the volume belong to this space, or to another one mounted over it?
pub(super) fn belongs(view: &View, space: &Space, path: &RelPath) -> bool {
    view.space_of(&space.path.with(path)).is_some_and(|(owner, _)| owner.key == space.key)
}
