//! Comparing tree, records, usage, intents, history and mail numbering, for an operator: every difference is named by its path, and mended
//! on request.

use std::collections::HashSet;

use crate::error::Result;
use crate::hub::Hub;
use crate::hub::act::Planned;
use crate::hub::adopt::compare::{Rows, agree};
use crate::hub::adopt::settle::is_same;
use crate::hub::adopt::walk::Walk;
use crate::hub::view::{Space, SpaceRole, View};
use crate::store::{Body, Change, RelPath};

/// Intents and messages read at once.
const PAGE: usize = 500;

/// What a comparison found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Files looked at.
    pub files: u64,
    /// Differences that a repair mends.
    pub differences: u64,
    /// What only a backup mends.
    pub beyond_repair: u64,
}

/// What became of a change whose bytes are nowhere any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    InPlace,
    Lost,
}

/// What is said of a lost file.
pub(crate) const LOST: &str = "its acknowledged content is lost; the path is released, and what is on the disk counts";

struct Report<'a> {
    hub: &'a Hub,
    tell: &'a mut (dyn FnMut(String) + Send),
    found: Compared,
}

impl Hub {
    /// Compares everything, telling each difference; with `repair` makes the records equal what is on the disk and lets go of what cannot be
    /// put in place any more. No daemon may run meanwhile.
    ///
    /// # Errors
    /// What the disk or the catalog says.
    pub async fn verify(&self, repair: bool, tell: &mut (dyn FnMut(String) + Send)) -> Result<Compared> {
        let view = self.view();
        let mut report = Report { hub: self, tell, found: Compared::default() };
        report.intents(&view).await?;
        if repair {
            self.replay().await?;
        }
        for space in &view.spaces {
            report.files(&view, space).await?;
            report.usage(space).await?;
            if space.role == SpaceRole::Mailbox {
                report.numbering(space).await?;
            }
            if repair {
                self.rescan(&space.key).await?;
            }
        }
        report.history().await?;
        Ok(report.found)
    }

    /// What became of a change whose bytes are nowhere any more; `None` where they can still be put in place.
    pub(crate) async fn without_bytes(&self, planned: &Planned) -> Result<Option<Fate>> {
        let Change::Put { path, body, .. } = &planned.change else { return Ok(None) };
        let gone = match body {
            Body::Inline => planned.body.is_none(),
            Body::Staged(id) => !planned.space.volume.stages().await?.contains(id),
        };
        match gone {
            false => Ok(None),
            true if self.is_in_place(&planned.space, path).await? => Ok(Some(Fate::InPlace)),
            true => Ok(Some(Fate::Lost)),
        }
    }

    /// Is what a path's record says on the disk?
    pub(crate) async fn is_in_place(&self, space: &Space, path: &RelPath) -> Result<bool> {
        let row = self.catalog().file(&space.key, path.as_str()).await?;
        let node = space.volume.stat(path).await.ok();
        Ok(row.zip(node).is_some_and(|(row, node)| is_same(&row, &node)))
    }
}

impl Report<'_> {
    fn differs(&mut self, place: &str, what: &str) {
        self.found.differences += 1;
        (self.tell)(format!("{place}: {what}"));
    }

    async fn intents(&mut self, view: &View) -> Result<()> {
        let mut after = i64::MIN;
        let mut told = HashSet::new();
        loop {
            let page = self.hub.catalog().intents(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            for row in page {
                let change = Change::decode(&row.change)?;
                let Some(space) = view.space(&row.space).cloned() else {
                    self.differs(&row.space, "an acknowledged change waits for this space, which is not configured");
                    continue;
                };
                let place = space.path.with(change.path()).to_string();
                let planned = Planned { space, change, body: row.body, was: None };
                let what = match self.hub.without_bytes(&planned).await? {
                    Some(Fate::Lost) => LOST,
                    Some(Fate::InPlace) => "an acknowledged change is in place already; it is let go",
                    None => "an acknowledged change is not known to be in place; it is put in place",
                };
                if told.insert(place.clone()) {
                    self.differs(&place, what);
                }
            }
        }
    }

    async fn files(&mut self, view: &View, space: &Space) -> Result<()> {
        let root = RelPath::root();
        let (mut walk, mut rows) = (Walk::new(view, space, root.clone()), Rows::new(self.hub, space, &root));
        let (mut there, mut known) = (walk.next().await?, rows.next().await?);
        loop {
            let order = match (&there, &known) {
                (None, None) => return Ok(()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((path, _)), Some(row)) => path.as_str().cmp(row.path.as_str()),
            };
            if let (true, Some((path, node))) = (order.is_le(), &there) {
                self.found.files += 1;
                let place = space.path.with(path).to_string();
                match known.as_ref().filter(|_| order.is_eq()) {
                    None => self.differs(&place, "on the disk, but not recorded"),
                    Some(row) if !is_same(row, node) => {
                        let what = format!("recorded with {} bytes, but on the disk are {}", row.size, node.size);
                        let what =
                            if row.size == node.size { "changed since it was recorded".to_owned() } else { what };
                        self.differs(&place, &what);
                    }
                    Some(_) => {}
                }
            }
            if let (true, Some(row)) = (order.is_gt(), &known) {
                self.differs(
                    &format!("{}/{}", space.key.trim_end_matches('/'), row.path),
                    "recorded, but not on the disk",
                );
            }
            if order.is_le() {
                there = walk.next().await?;
            }
            if order.is_ge() {
                known = rows.next().await?;
            }
        }
    }

    async fn usage(&mut self, space: &Space) -> Result<()> {
        if let Some((counted, held)) = agree(self.hub, space).await? {
            let what = format!(
                "its usage is counted as {} bytes in {} files, but its records hold {} in {}",
                counted.bytes, counted.files, held.bytes, held.files
            );
            self.differs(&space.key, &what);
        }
        Ok(())
    }

    /// A number is given once, and below the next one.
    async fn numbering(&mut self, space: &Space) -> Result<()> {
        for folder in self.hub.catalog().mail_folders(&space.key).await? {
            let (mut after, mut names) = (0, HashSet::new());
            loop {
                let page = self.hub.catalog().messages(&space.key, &folder.folder, after, PAGE, false).await?;
                let Some(last) = page.last() else { break };
                after = last.uid;
                for message in page {
                    let place = format!("{}/{} number {}", space.key, folder.folder, message.uid);
                    if message.uid >= folder.next {
                        self.beyond(&place, "is not below the next number, so it could be given twice");
                    }
                    if !names.insert(message.name) {
                        self.beyond(&place, "means a message that has another number too");
                    }
                }
            }
        }
        Ok(())
    }

    async fn history(&mut self) -> Result<()> {
        for (node, seq) in self.hub.verify_history().await?.broken {
            self.beyond(&format!("history of {node}, line {seq}"), "is not as it was written");
        }
        Ok(())
    }

    fn beyond(&mut self, place: &str, what: &str) {
        self.found.beyond_repair += 1;
        (self.tell)(format!("{place}: {what}; restore it from a backup"));
    }
}
