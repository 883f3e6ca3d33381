//! What the calls of one directory share: its root, its staging folder and what is remembered of it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::entries;
use super::errors::{failed, refused, special};
use super::list::Listings;
use super::lookup::{Root, node_of, readable};
use super::own::OwnNames;
use super::stage::Staging;
use super::stamp::Stamps;
use super::stat::Seen;
use super::unnamed::Unnamed;
use crate::error::{Error, Result};
use crate::store::{Node, NodeKind, Opened, RelPath, Room};

/// For `stat`: a place in the tree, not its content.
pub(super) const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW);

/// For reading: never waits for the other end of a FIFO.
pub(super) const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW);

/// What the pool's threads share.
pub(super) struct Inner {
    pub(super) root: Root,
    pub(super) staging: Arc<Staging>,
    pub(super) unnamed: Unnamed,
    pub(super) listings: Listings,
    pub(super) stamps: Stamps,
    pub(super) own: OwnNames,
    /// Nothing here is ever waited for: the file system is memory.
    pub(super) memory: bool,
    /// The file system is on a disk of this machine, or in its memory.
    pub(super) near: bool,
    /// Names that were removed or replaced are only surely so once the whole file system is synced (btrfs).
    pub(super) whole: bool,
    /// On the disk that has the data folder, and so the catalog.
    pub(super) beside: bool,
    /// Its room when it was asked last, where that was plenty.
    pub(super) room: Mutex<Option<(Instant, Room)>>,
}

impl Inner {
    pub(super) fn stat(&self, path: &RelPath) -> Result<Node> {
        node_of(self.root.open(path, LOOK).map_err(refused)?, path)
    }

    /// Asks the folder for its names, one after the other.
    pub(super) fn stat_each(&self, paths: &[RelPath]) -> Vec<Result<Node>> {
        let mut last: Option<(RelPath, OwnedFd)> = None;
        let one = |path: &RelPath| {
            let Some(folder) = path.parent() else { return self.stat(path) };
            let here = match last.take() {
                Some(last) if last.0 == folder => last,
                _ => {
                    let fd = self.root.folder(&folder).map_err(refused)?;
                    (folder, fd)
                }
            };
            self.node_at(&last.insert(here).1, path)
        };
        paths.iter().map(one).collect()
    }

    /// The node of a path in the folder it is in.
    pub(super) fn node_at(&self, folder: &OwnedFd, path: &RelPath) -> Result<Node> {
        let name = self.root.locate(folder, path.name()).map_err(refused)?;
        Ok(Seen::at(folder, &*name).map_err(refused)?.node(path.name()))
    }

    pub(super) fn ask_room(&self) -> Result<Room> {
        let stat = rustix::fs::fstatvfs(self.root.fd()).map_err(failed)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Room { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }

    pub(super) fn open(&self, path: &RelPath) -> Result<Opened> {
        match self.root.open(path, READ) {
            Ok(fd) => opened(fd, path),
            Err(error) => Err(self.cannot_open(path, error)),
        }
    }

    /// Why a file could not be opened: a link says `ELOOP`, a socket `ENXIO`.
    pub(super) fn cannot_open(&self, path: &RelPath, error: Errno) -> Error {
        let there = matches!(error, Errno::LOOP | Errno::NXIO | Errno::NODEV).then(|| self.stat(path));
        match there {
            Some(Ok(node)) if node.kind == NodeKind::Special => special(),
            _ => refused(error),
        }
    }

    pub(super) fn hides(&self, folder: &RelPath) -> Result<bool> {
        let fd = self.root.open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK).map_err(refused)?;
        entries::hides_entries(&fd).map_err(refused)
    }
}

pub(super) fn device_of(fd: &OwnedFd) -> Result<u64> {
    rustix::fs::fstat(fd).map(|stat| stat.st_dev).map_err(failed)
}

/// What failed for all of them failed for each.
pub(super) fn each_failed<T>(error: &Error, count: usize) -> Vec<Result<T>> {
    (0..count).map(|_| Err(Error::new(error.kind(), error.public().to_owned()))).collect()
}

pub(super) fn opened(fd: OwnedFd, path: &RelPath) -> Result<Opened> {
    readable(fd, path).map(|(node, file)| Opened { node, file: Arc::new(file) })
}

/// The kernel would have to go to the disk (or is too old to say): ask again on the pool.
pub(super) fn is_cold(errno: Errno) -> bool {
    matches!(errno, Errno::AGAIN | Errno::INTR)
}
