//! Settling suspects: each is looked at again, on the disk and in the records, under the lock that commits use.

use crate::error::{Kind, Result};
use crate::hub::adopt::walk::belongs;
use crate::hub::files::signed;
use crate::hub::view::{Space, View};
use crate::hub::{Hub, now};
use crate::store::{Batch, Edit, Expect, FileRow, HistoryLine, Micros, Node, NodeKind, RelPath};

/// Paths settled in one commit.
pub(super) const GROUP: usize = 128;

/// Times a group is settled again when others commit in between.
const TRIES: u32 = 4;

/// A file changed this recently may still be being written.
const FRESH: Micros = 2_000_000;

/// The door of changes made by other programs.
const OUTSIDE: &str = "outside";

/// What was found and adopted.
#[derive(Default)]
pub(super) struct Found {
    pub(super) created: u64,
    pub(super) overwritten: u64,
    pub(super) deleted: u64,
    /// Bytes of files that got no line of their own, and how many.
    pub(super) untold: (u64, u64),
    /// Files that may still be being written.
    pub(super) fresh: Vec<RelPath>,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.created += other.created;
        self.overwritten += other.overwritten;
        self.deleted += other.deleted;
        self.untold.0 += other.untold.0;
        self.untold.1 += other.untold.1;
        self.fresh.extend(other.fresh);
    }

    pub(super) fn total(&self) -> u64 {
        self.created + self.overwritten + self.deleted
    }
}

/// Settles suspects of one space.
pub(super) struct Settler<'a> {
    pub(super) hub: &'a Hub,
    pub(super) view: &'a View,
    pub(super) space: &'a Space,
    /// Lines of history still to be written one by one.
    pub(super) lines: u64,
    pub(super) found: Found,
}

impl Settler<'_> {
    /// Settles a group of paths in one commit.
    pub(super) async fn group(&mut self, paths: &[RelPath]) -> Result<()> {
        for paths in paths.chunks(GROUP) {
            let mut tries = 1;
            let found = loop {
                match self.once(paths).await {
                    Err(error) if error.kind() == Kind::Conflict && tries < TRIES => tries += 1,
                    outcome => break outcome?,
                }
            };
            self.lines = self.lines.saturating_sub(found.total());
            self.found.add(found);
        }
        Ok(())
    }

    async fn once(&self, paths: &[RelPath]) -> Result<Found> {
        let locks = self.hub.inner.paths.lock_many(&self.space.key, paths);
        let _held = self.hub.patiently(async { (self.space.gate.read().await, locks.await) }).await?;
        let mut found = Found::default();
        let mut batch = Batch::default();
        let (mut bytes, mut files) = (0_i64, 0_i64);
        let mut recorded = Vec::new();
        for path in paths {
            let Some(change) = self.judge(path).await? else { continue };
            let tell = found.total() < self.lines;
            recorded.push((path, change.node.as_ref().map(|node| node.tag)));
            bytes = bytes.saturating_add(change.bytes());
            files += change.files();
            self.record(change, tell, &mut batch, &mut found);
        }
        if batch.edits.is_empty() {
            return Ok(found);
        }
        // What is on the disk is counted, limit or not: a quota stops uploads, it cannot undo another program's write.
        let space = self.space.key.clone();
        batch.push(Edit::Usage { space, bytes, files, max_bytes: None, max_files: None });
        self.hub.catalog().commit(batch).await?;
        for (path, tag) in recorded {
            self.hub.inner.own.left(&self.space.key, path.as_str(), tag);
        }
        Ok(found)
    }

    /// What differs at one path; nothing while a publish is still to come there.
    async fn judge(&self, path: &RelPath) -> Result<Option<Difference>> {
        if self.hub.inner.pending.is_awaited(&self.space.key, path) {
            return Ok(None);
        }
        let row = self.hub.catalog().file(&self.space.key, path.as_str()).await?;
        let node = match belongs(self.view, self.space, path) {
            true => self.look(path).await?,
            false => None,
        };
        Ok(match (row, node) {
            (None, None) => None,
            (Some(row), Some(node)) if is_same(&row, &node) => None,
            (row, node) => Some(Difference { path: path.clone(), row, node }),
        })
    }

    /// The file at a path; a folder is none.
    async fn look(&self, path: &RelPath) -> Result<Option<Node>> {
        match self.space.volume.stat(path).await {
            Ok(node) => Ok(Some(node).filter(|node| node.kind == NodeKind::File)),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::WrongType) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn record(&self, change: Difference, tell: bool, batch: &mut Batch, found: &mut Found) {
        let Difference { path, row, node } = change;
        let size = node.as_ref().map(|node| node.size).or(row.as_ref().map(|row| row.size)).unwrap_or_default();
        let verb = match (&row, &node) {
            (_, None) => {
                found.deleted += 1;
                "delete"
            }
            (None, Some(_)) => {
                found.created += 1;
                "create"
            }
            (Some(_), Some(_)) => {
                found.overwritten += 1;
                "overwrite"
            }
        };
        let expect = row.as_ref().map_or(Expect::Absent, |row| Expect::Version(row.version));
        match (node, row) {
            (Some(node), row) => {
                if now().saturating_sub(node.modified) < FRESH {
                    found.fresh.push(path.clone());
                }
                batch.push(Edit::PutFile(self.row(&path, &node, row.map_or(1, |row| row.version)), expect));
            }
            (None, Some(row)) => {
                batch.push(Edit::RemoveFile { space: row.space, path: row.path, version: row.version });
            }
            (None, None) => {}
        }
        if tell {
            batch.push(line(verb, &self.space.path.with(&path).to_string(), size, String::new()));
        } else {
            found.untold.0 = found.untold.0.saturating_add(size);
            found.untold.1 += 1;
        }
    }

    fn row(&self, path: &RelPath, node: &Node, version: i64) -> FileRow {
        FileRow {
            space: self.space.key.clone(),
            path: path.as_str().to_owned(),
            size: node.size,
            modified: node.modified,
            version,
            owner: String::new(),
            sha256: None,
        }
    }
}

/// A path where the disk and the records differ.
struct Difference {
    path: RelPath,
    row: Option<FileRow>,
    node: Option<Node>,
}

impl Difference {
    fn bytes(&self) -> i64 {
        let size = self.node.as_ref().map_or(0, |node| node.size);
        signed(size) - signed(self.row.as_ref().map_or(0, |row| row.size))
    }

    fn files(&self) -> i64 {
        i64::from(self.node.is_some()) - i64::from(self.row.is_some())
    }
}

/// A line of history about another program.
pub(super) fn line(verb: &str, path: &str, bytes: u64, detail: String) -> Edit {
    Edit::History(HistoryLine {
        at: now(),
        door: OUTSIDE.to_owned(),
        verb: verb.to_owned(),
        path: path.to_owned(),
        bytes,
        result: "ok".to_owned(),
        detail,
        ..HistoryLine::default()
    })
}

/// Is the file as it was recorded? Some file systems keep whole seconds, or two of them.
pub(crate) fn is_same(row: &FileRow, node: &Node) -> bool {
    let coarse = node.modified % 1_000_000 == 0 && row.modified.abs_diff(node.modified) < 2_000_000;
    row.size == node.size && (row.modified == node.modified || coarse)
}
