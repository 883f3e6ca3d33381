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
use crate::error::{Error, Result};
use crate::store::{Body, Change, RelPath};

/// Files held open at once while they are synced.
const OPEN_AT_ONCE: usize = 256;

/// Files synced by one thread, before another takes a part: the flushes of syncs that run at once become one.
const FILES_EACH: usize = 32;

/// Threads that sync at once, at most.
const THREADS: usize = 8;

/// Bytes of a file whose writing is begun ahead of its sync; what comes behind them is written by the sync itself.
const AHEAD: u64 = 64 << 10;

/// What one page of the kernel's memory holds at least.
const PAGE: usize = 4096;

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
        files.chunks(OPEN_AT_ONCE).try_for_each(|some| self.sync_files(some))?;
        folders
            .iter()
            .try_for_each(|folder| self.open_for_sync(folder, OFlags::DIRECTORY)?.map_or(Ok(()), |fd| flush(&fd)))
    }

    /// Begins to write all of them before it waits for any: the first sync then commits the journal for all, and the
    /// others find nothing left to do. One by one, each would wait for a journal commit of its own.
    fn sync_files(&self, files: &[RelPath]) -> Result<()> {
        let mut open = Vec::with_capacity(files.len());
        for file in files {
            open.extend(self.open_for_sync(file, OFlags::empty())?);
        }
        open.iter().for_each(begin_writing);
        let share = open.len().div_ceil(THREADS).max(FILES_EACH);
        std::thread::scope(|scope| {
            let mut parts = open.chunks(share);
            let mine = parts.next().unwrap_or_default();
            let others: Vec<_> = parts.map(|part| scope.spawn(move || flush_each(part))).collect();
            let mut outcome = flush_each(mine);
            for other in others {
                let theirs = other.join().unwrap_or_else(|_| Err(Error::internal("a sync thread died")));
                outcome = outcome.and(theirs);
            }
            outcome
        })
    }

    /// `None` for what other programs removed or replaced meanwhile.
    fn open_for_sync(&self, path: &RelPath, more: OFlags) -> Result<Option<OwnedFd>> {
        match self.root.open(path, OFlags::RDONLY | OFlags::NONBLOCK | more) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NXIO) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

fn flush_each(files: &[OwnedFd]) -> Result<()> {
    files.iter().try_for_each(flush)
}

fn flush(fd: &OwnedFd) -> Result<()> {
    match rustix::fs::fsync(fd) {
        // A FIFO or a device that took the place meanwhile.
        Ok(()) | Err(Errno::INVAL | Errno::ROFS) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Asks the kernel to begin writing a file's first bytes, without waiting. Only a hint, so its failure is nothing.
///
/// `DONTNEED` starts the write of what is dirty in its range, and lets go of those pages that lie whole in the range
/// and are clean. A range from the second byte of one page to the first of the next holds no page whole, so everything
/// stays in memory for whoever reads the mail.
fn begin_writing(fd: &OwnedFd) {
    let size = rustix::fs::fstat(fd).map_or(0, |stat| stat.st_size.cast_unsigned());
    for start in (0..size.min(AHEAD)).step_by(2 * PAGE) {
        let len = std::num::NonZeroU64::new(PAGE as u64);
        if rustix::fs::fadvise(fd, start + 1, len, rustix::fs::Advice::DontNeed).is_err() {
            return;
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
