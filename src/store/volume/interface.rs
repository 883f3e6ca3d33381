//! The seam below the hub for bytes: what a volume and its stages do.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::change::{Change, StageId};
use super::node::{Fingerprint, Node};
use super::opened::Opened;
use super::path::RelPath;
use crate::error::Result;
use crate::store::Micros;

/// Free and total bytes of the file system below a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes an unprivileged process may still write.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What the watcher of a volume saw other programs do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Something at this path (file or folder) may have been made, changed or removed.
    Path(RelPath),
    /// Events were lost: compare everything.
    Everything,
}

/// A tree of files and folders. Every method may be called from many tasks at once and never blocks the caller's thread on a disk.
#[async_trait]
pub trait Volume: Send + Sync + 'static {
    /// What is at this path. `NotFound`, or `WrongType` when a parent is a file.
    async fn stat(&self, path: &RelPath) -> Result<Node>;

    /// The same of several paths, in order: cheaper, where many of them are in one folder.
    async fn stat_each(&self, paths: &[RelPath]) -> Vec<Result<Node>> {
        let mut nodes = Vec::with_capacity(paths.len());
        for path in paths {
            nodes.push(self.stat(path).await);
        }
        nodes
    }

    /// Names in a folder in byte order, after `after`, at most `limit`.
    async fn list(&self, folder: &RelPath, after: Option<&str>, limit: usize) -> Result<Vec<Node>>;

    /// Does a folder hold entries that [`Volume::list`] never shows? A folder is empty only if it lists nothing and hides nothing.
    async fn hides(&self, _folder: &RelPath) -> Result<bool> {
        Ok(false)
    }

    /// Opens a file for reading. `WrongType` for anything else.
    async fn open(&self, path: &RelPath) -> Result<Opened>;

    /// Opens a stage for appending; makes it when there is none (its length says which).
    async fn stage(&self, id: &StageId) -> Result<Box<dyn Stage>>;

    /// The same bytes under a second stage id, for one message to many mailboxes.
    async fn fork(&self, from: &StageId, to: &StageId) -> Result<()>;

    /// Forgets a stage; fine when there is none.
    async fn discard(&self, id: &StageId) -> Result<()>;

    /// Stages that exist, for the sweep at start.
    async fn stages(&self) -> Result<Vec<StageId>>;

    /// Does the change. Returns the node that is now there, for `Put`, `Rename` and `SetModified`.
    async fn publish(&self, change: &Change, body: Option<Bytes>) -> Result<Option<Node>>;

    /// Does the change on this thread, which may wait for a disk, and which others wait for; `None`: not possible here, [`Volume::publish`]
    /// it. Asked of volumes that say [`Volume::is_near`].
    fn publish_here(&self, _change: &Change, _body: Option<Bytes>) -> Option<Result<Option<Node>>> {
        None
    }

    /// Is it on a disk of this machine? One that is far away may keep its caller waiting for ever.
    fn is_near(&self) -> bool {
        false
    }

    /// Does several changes in order, each with an outcome of its own.
    async fn publish_each(&self, changes: Vec<(Change, Option<Bytes>)>) -> Vec<Result<Option<Node>>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for (change, body) in changes {
            outcomes.push(self.publish(&change, body).await);
        }
        outcomes
    }

    /// Would the file system refuse this change? What can be known without doing it: permissions, a read-only or immutable place, something
    /// of the wrong kind in the way. A change that passes may still fail.
    async fn check(&self, _change: &Change) -> Result<()> {
        Ok(())
    }

    /// Was its own folder removed by another program? Then the volume has to be opened anew.
    fn is_lost(&self) -> bool {
        false
    }

    /// Makes earlier publishes of these paths (file content, names, folders) survive a power cut.
    async fn sync(&self, changes: &[Change]) -> Result<()>;

    /// Room on the disk.
    async fn room(&self) -> Result<Room>;

    /// Starts telling what other programs (and we) change; `None` where the platform cannot. Bounded: overflow becomes `Everything`.
    fn watch(&self) -> Option<mpsc::Receiver<Touched>>;

    /// A number that is different once the file at this path was changed, replaced, moved or removed, by whomever; what was read
    /// between two equal numbers is what a read would give now. `None` where that cannot be known: not watched, a file system that other
    /// machines write to, or changes that are just being taken in. (Writes through a shared mapping are noticed when the file is closed.)
    fn stamp(&self, _path: &RelPath) -> Option<u64> {
        None
    }

    /// What is at this path, told without the disk: the same again while the content is the same. For the moments in which
    /// [`Volume::stamp`] takes changes in. `None` where it cannot be told so.
    fn fingerprint(&self, _path: &RelPath) -> Option<Fingerprint> {
        None
    }
}

/// Invisible bytes that can be appended to. Dropping it keeps the bytes until `Volume::discard`.
#[async_trait]
pub trait Stage: Send + Sync {
    /// How many bytes it holds.
    fn len(&self) -> u64;

    /// True before the first byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends; in the page cache on return.
    async fn append(&mut self, chunk: Bytes) -> Result<()>;

    /// Appends `len` bytes of another file, by reflink or in the kernel where it can.
    async fn append_file(&mut self, from: &File, len: u64) -> Result<()>;

    /// Cuts it back to `len` bytes.
    async fn truncate(&mut self, len: u64) -> Result<()>;

    /// Makes the bytes survive a power cut (`fdatasync`), with this modification time if it is known: a replay tells by it that the file is
    /// in place. After an error the stage must be discarded.
    async fn seal(&mut self, modified: Option<Micros>) -> Result<()>;

    /// Reads back, for a digest or for parsing.
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes>;

    /// The descriptor.
    fn file(&self) -> Arc<File>;

    /// Appends what a non-blocking descriptor holds, `most` bytes at most, inside the kernel; a burst of a bounded time. `None`: not here,
    /// or too many do so already; read and [`Stage::append`] instead.
    async fn soak(&mut self, _from: &Arc<OwnedFd>, _most: u64) -> Result<Option<Soaked>> {
        Ok(None)
    }
}

/// What one [`Stage::soak`] brought.
#[derive(Debug)]
pub struct Soaked {
    /// Bytes appended.
    pub bytes: u64,
    /// Why it ended.
    pub then: Then,
}

/// Why a [`Stage::soak`] ended.
#[derive(Debug)]
pub enum Then {
    /// Its time or its bytes are used up: there may be more.
    More,
    /// Nothing is there now.
    Dry,
    /// Nothing will come any more.
    End,
    /// The descriptor failed; what came before is appended.
    Broken(std::io::Error),
}
