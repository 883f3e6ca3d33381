//! Where the bytes of a space lie: below the data folder, or in a directory served in place.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::{Error, Kind, Result};
use crate::hub::settings::StorageSettings;
use crate::hub::{TreePath, Volumes};
use crate::store::volume::name;
use crate::store::{Change, Directory, Node, Opened, RelPath, Room, Stage, StageId, Touched, Volume};

/// Directories: our own spaces at `data/tree/<path>`, all staged in `data/stage` (one file system, so that a stage can be
/// put into any of them); others where their `source` says.
pub struct Directories {
    data: PathBuf,
    patience: Duration,
    threads: usize,
}

impl Directories {
    /// Below this data folder.
    #[must_use]
    pub fn new(data: PathBuf, storage: &StorageSettings) -> Arc<Self> {
        Arc::new(Self { data, patience: storage.patience.0, threads: storage.threads })
    }
}

impl Volumes for Directories {
    fn open(&self, space: &TreePath, source: &str) -> Result<Arc<dyn Volume>> {
        let (root, ours) = match source {
            "" => (space.parts().fold(self.data.join("tree"), inside), true),
            source => (PathBuf::from(source), false),
        };
        let directory = Directory::open(&root, &self.data.join("stage"), ours)?;
        Ok(Arc::new(directory.bounded(self.patience, self.threads)))
    }
}

/// The folder of this canonical name: the one there is, in whatever normal form, or the one to make.
fn inside(folder: PathBuf, part: &str) -> PathBuf {
    let exact = folder.join(OsStr::from_bytes(&name::bytes(part)));
    if part.is_ascii() || exact.exists() {
        return exact;
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let same = |name: &OsString| name::equivalent(name.as_bytes()).is_some_and(|text| text == part);
    entries.map(|entry| entry.file_name()).find(same).map_or(exact.clone(), |name| exact.with_file_name(name))
}

/// Volumes that stay closed, for commands that only touch records.
#[must_use]
pub fn closed() -> Arc<dyn Volumes> {
    Arc::new(Closed)
}

struct Closed;

impl Volumes for Closed {
    fn open(&self, _space: &TreePath, _source: &str) -> Result<Arc<dyn Volume>> {
        Ok(Arc::new(Self))
    }
}

fn shut<T>() -> Result<T> {
    Err(Error::new(Kind::Unavailable, "files are not open to a command"))
}

#[async_trait]
impl Volume for Closed {
    async fn stat(&self, _path: &RelPath) -> Result<Node> {
        shut()
    }
    async fn list(&self, _folder: &RelPath, _after: Option<&str>, _limit: usize) -> Result<Vec<Node>> {
        shut()
    }
    async fn open(&self, _path: &RelPath) -> Result<Opened> {
        shut()
    }
    async fn stage(&self, _id: &StageId) -> Result<Box<dyn Stage>> {
        shut()
    }
    async fn fork(&self, _from: &StageId, _to: &StageId) -> Result<()> {
        shut()
    }
    async fn discard(&self, _id: &StageId) -> Result<()> {
        shut()
    }
    async fn stages(&self) -> Result<Vec<StageId>> {
        shut()
    }
    async fn publish(&self, _change: &Change, _body: Option<Bytes>) -> Result<Option<Node>> {
        shut()
    }
    async fn sync(&self, _changes: &[Change]) -> Result<()> {
        shut()
    }
    async fn room(&self) -> Result<Room> {
        shut()
    }
    fn watch(&self) -> Option<mpsc::Receiver<Touched>> {
        None
    }
}
