//! A volume on a plain directory of the local file system.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Change, Node, Opened, RelPath, Room, Stage, StageId, Touched, Volume};
use crate::error::Result;

/// A directory tree; staging lies on the same file system, outside the tree where that is possible.
pub struct Directory {}

impl Directory {
    /// Opens `root` (made when missing and `create`), with `staging` for invisible bytes; when `staging` is on another
    /// file system, `<root>/.stoa-stage` is used instead.
    pub fn open(_root: &Path, _staging: &Path, _create: bool) -> Result<Self> {
        todo!()
    }
}

#[async_trait]
impl Volume for Directory {
    async fn stat(&self, _path: &RelPath) -> Result<Node> {
        todo!()
    }
    async fn list(&self, _folder: &RelPath, _after: Option<&str>, _limit: usize) -> Result<Vec<Node>> {
        todo!()
    }
    async fn open(&self, _path: &RelPath) -> Result<Opened> {
        todo!()
    }
    async fn stage(&self, _id: &StageId) -> Result<Box<dyn Stage>> {
        todo!()
    }
    async fn fork(&self, _from: &StageId, _to: &StageId) -> Result<()> {
        todo!()
    }
    async fn discard(&self, _id: &StageId) -> Result<()> {
        todo!()
    }
    async fn stages(&self) -> Result<Vec<StageId>> {
        todo!()
    }
    async fn publish(&self, _change: &Change, _body: Option<Bytes>) -> Result<Option<Node>> {
        todo!()
    }
    async fn sync(&self, _changes: &[Change]) -> Result<()> {
        todo!()
    }
    async fn room(&self) -> Result<Room> {
        todo!()
    }
    fn watch(&self) -> Option<mpsc::Receiver<Touched>> {
        todo!()
    }
}

pub(super) async fn read_at(_file: Arc<File>, _offset: u64, _len: usize) -> Result<Bytes> {
    todo!()
}
