//! Making earlier publishes survive a power cut, so that their intents may be forgotten.
//!
//! Files first, then the folders that name them and every folder above: a folder made on the way is only safe when
//! the one above it was synced too. What other programs removed meanwhile needs no sync.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Inner;
use super::stage::failed;
use crate::error::Result;
use crate::store::{Body, Change, RelPath};

/// Files synced by one thread, before another takes a part: fsyncs that run at once share the disk's journal writes.
const FILES_EACH: usize = 16;

/// Threads that sync at once, at most.
const THREADS: usize = 4;

impl Inner {
    /// Syncs what the changes touched.
    pub(super) fn sync(&self, changes: &[Change]) -> Result<()> {
        let mut files = BTreeSet::new();
        let mut folders = BTreeSet::new();
        for change in changes {
            files.extend(file_of(change));
            folders.extend(folders_of(change).into_iter().flatten().flat_map(lineage));
        }
        let files: Vec<RelPath> = files.into_iter().collect();
        let share = files.len().div_ceil(THREADS).max(FILES_EACH);
        std::thread::scope(|scope| {
            let mut parts = files.chunks(share);
            let mine = parts.next().unwrap_or_default();
            let others: Vec<_> = parts.map(|part| scope.spawn(move || self.sync_files(part))).collect();
            let mut outcome = self.sync_files(mine);
            for other in others {
                let theirs = other.join().unwrap_or_else(|_| Err(crate::error::Error::internal("a sync thread died")));
                outcome = outcome.and(theirs);
            }
            outcome
        })?;
        folders.iter().try_for_each(|folder| self.sync_at(folder, OFlags::DIRECTORY))
    }

    fn sync_files(&self, files: &[RelPath]) -> Result<()> {
        files.iter().try_for_each(|file| self.sync_at(file, OFlags::empty()))
    }

    fn sync_at(&self, path: &RelPath, more: OFlags) -> Result<()> {
        let fd: OwnedFd = match self.root.open(path, OFlags::RDONLY | OFlags::NONBLOCK | more) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NXIO) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        match rustix::fs::fsync(&fd) {
            // A FIFO or a device that took the place meanwhile.
            Ok(()) | Err(Errno::INVAL | Errno::ROFS) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

/// The file whose content or time has to reach the disk. A stage was sealed before; only a time set later is missing.
fn file_of(change: &Change) -> Option<RelPath> {
    match change {
        Change::Put { path, body: Body::Inline, .. }
        | Change::Put { path, modified: Some(_), .. }
        | Change::SetModified { path, .. } => Some(path.clone()),
        Change::Put { .. }
        | Change::Folder { .. }
        | Change::Remove { .. }
        | Change::RemoveFolder { .. }
        | Change::Rename { .. } => None,
    }
}

/// The folders whose names changed.
fn folders_of(change: &Change) -> [Option<RelPath>; 2] {
    match change {
        Change::Put { path, .. } | Change::Remove { path } | Change::RemoveFolder { path, .. } => [path.parent(), None],
        Change::Folder { path } => [Some(path.clone()), None],
        Change::Rename { from, to } => [from.parent(), to.parent()],
        Change::SetModified { .. } => [None, None],
    }
}

/// A folder and all above it.
fn lineage(folder: RelPath) -> impl Iterator<Item = RelPath> {
    std::iter::successors(Some(folder), RelPath::parent)
}
