//! Listing a folder page by page: the volume's names and the spaces mounted there, as one caller may see them.

use crate::error::Result;
use crate::hub::caller::{Caller, Entry, folder_node};
use crate::hub::path::TreePath;
use crate::hub::policy::Verbs;
use crate::hub::view::View;
use crate::store::Node;

/// Names fetched at once.
const PAGE: usize = 1000;

/// A folder's entries in byte order of the names. Memory stays bounded however large the folder is.
pub struct Listing {
    caller: Caller,
    folder: TreePath,
    after: Option<String>,
    done: bool,
}

impl Listing {
    pub(super) fn new(caller: Caller, folder: TreePath) -> Self {
        Self { caller, folder, after: None, done: false }
    }

    /// The folder being listed.
    #[must_use]
    pub fn folder(&self) -> &TreePath {
        &self.folder
    }

    /// The next entries; empty at the end.
    ///
    /// # Errors
    /// What the volume says.
    pub async fn next_page(&mut self) -> Result<Vec<Entry>> {
        while !self.done {
            let view = self.caller.hub().view();
            let nodes = self.nodes(&view).await?;
            let entries = self.entries(&view, nodes);
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    }

    /// One page of the volume with the mounts that fall into it.
    async fn nodes(&mut self, view: &View) -> Result<Vec<Node>> {
        let mut nodes = match view.space_of(&self.folder) {
            Some((space, rel)) => match space.volume.list(&rel, self.after.as_deref(), PAGE).await {
                Err(error) if error.kind() == crate::error::Kind::NotFound => Vec::new(),
                outcome => outcome?,
            },
            None => Vec::new(),
        };
        self.done = nodes.len() < PAGE;
        let last = if self.done { None } else { nodes.last().map(|node| node.name.clone()) };
        for mount in view.mounts_in(self.caller.account(), &self.folder) {
            let begun = self.after.as_deref().is_none_or(|after| mount.as_str() > after);
            let reached = last.as_deref().is_none_or(|last| mount.as_str() <= last);
            if begun && reached && !nodes.iter().any(|node| node.name == mount) {
                nodes.push(folder_node(&mount));
            }
        }
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        self.after = last;
        Ok(nodes)
    }

    /// Drops what is another space that the caller has no part in.
    fn entries(&self, view: &View, nodes: Vec<Node>) -> Vec<Entry> {
        let account = self.caller.account();
        let here = view.verbs(account, &self.folder);
        let mounts: Vec<&TreePath> = view
            .spaces
            .iter()
            .map(|space| &space.path)
            .filter(|path| path.is_in(&self.folder) && **path != self.folder)
            .collect();
        nodes
            .into_iter()
            .filter_map(|node| {
                let path = self.folder.join(&node.name).ok()?;
                let rights = match mounts.iter().any(|mount| mount.is_in(&path)) {
                    true => view.verbs(account, &path),
                    false => here,
                };
                let known = rights != Verbs::NONE || !view.mounts_in(account, &path).is_empty();
                known.then_some(Entry { path, node, rights })
            })
            .collect()
    }
}
