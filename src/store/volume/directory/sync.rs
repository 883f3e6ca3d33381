//! Making earlier publishes survive a power cut, so that their intents may be forgotten.
//!
//! Files first, then the folders that name them and every folder above: a folder made on the way is only safe when
//! the one above it was synced too. What other programs removed meanwhile needs no sync.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::errors::failed;
use super::inner::{Inner, device_of};
use crate::error::{Error, Result};
use crate::store::{Change, RelPath};

/// From so many files on, their file system is synced as a whole: one by one, each costs a flush of the disk's cache, which whoever waits
/// for a commit stands in line behind.
const MANY: usize = 64;

/// Unwritten bytes in the kernel's memory up to which that is done, also on a file system that is better synced as a whole: what others have written would be waited for too.
const MOST_UNWRITTEN: u64 = 256 << 20;

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
    ///
    /// A file that is not under its path any more may have been renamed since by a change that is not among these: only a sync of the whole
    /// file system reaches it then.
    pub(super) fn sync(&self, changes: &[Change]) -> Result<()> {
        let mut files = BTreeSet::new();
        let mut folders = BTreeSet::new();
        for change in changes {
            note_files(&mut files, change);
            folders.extend(folders_of(change).into_iter().flatten().flat_map(lineage));
        }
        let mut files: Vec<RelPath> = files.into_iter().collect();
        let at_once = self.whole || files.len() >= MANY;
        if self.near && at_once && unwritten().is_some_and(|bytes| bytes <= MOST_UNWRITTEN) {
            files = self.sync_at_once(files)?;
        }
        let mut missing = false;
        for some in files.chunks(OPEN_AT_ONCE) {
            missing |= self.sync_files(some)?;
        }
        if missing {
            rustix::fs::syncfs(self.root.fd()).map_err(failed)?;
        }
        folders
            .iter()
            .try_for_each(|folder| self.open_for_sync(folder, OFlags::DIRECTORY)?.map_or(Ok(()), |fd| flush(&fd)))
    }

    /// Syncs the whole file system; what is left to be synced by itself: files on another one, and all of them when that failed, for the
    /// fault may be another program's. The folders are synced after it, one by one: ext4 without a journal flushes the disk's cache before it
    /// has written everything, and these flush it once more.
    fn sync_at_once(&self, files: Vec<RelPath>) -> Result<Vec<RelPath>> {
        let home = device_of(self.root.fd())?;
        let mut last: Option<(RelPath, bool)> = None;
        let (mut here, mut left) = (Vec::new(), Vec::new());
        for file in files {
            let folder = file.parent().unwrap_or_default();
            let is_home = match &last {
                Some((known, is_home)) if *known == folder => *is_home,
                _ => match self.open_for_sync(&folder, OFlags::DIRECTORY)? {
                    Some(fd) => device_of(&fd)? == home,
                    None => true,
                },
            };
            last = Some((folder, is_home));
            if is_home { here.push(file) } else { left.push(file) }
        }
        if rustix::fs::syncfs(self.root.fd()).is_err() {
            left.extend(here);
        }
        Ok(left)
    }

    /// Begins to write all of them before it waits for any: the first sync then commits the journal for all, and the
    /// others find nothing left to do. One by one, each would wait for a journal commit of its own. True when a file was not there.
    fn sync_files(&self, files: &[RelPath]) -> Result<bool> {
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
        })?;
        Ok(open.len() < files.len())
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

/// Bytes that programs of this machine have written and the kernel has not; `None` where it does not say. A sealed service sees of /proc
/// only processes, and is told of the first memory node instead.
fn unwritten() -> Option<u64> {
    const TOLD: [&str; 2] = ["/proc/meminfo", "/sys/devices/system/node/node0/meminfo"];
    let text = TOLD.iter().find_map(|file| std::fs::read_to_string(file).ok())?;
    let (_, dirty) = text.lines().find_map(|line| line.split_once("Dirty:"))?;
    Some(dirty.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.saturating_mul(1024))
}

/// Keeps the set of files to sync up to date with one more change. A staged file is synced again under its final name, and a renamed file under
/// its new one: syncing only the folders is enough where one journal keeps all changes in order (ext4), and loses content or names where
/// each file has its own log (btrfs).
fn note_files(files: &mut BTreeSet<RelPath>, change: &Change) {
    match change {
        Change::Put { path, .. } | Change::SetModified { path, .. } => {
            files.insert(path.clone());
        }
        Change::Rename { from, to } => {
            files.remove(from);
            files.insert(to.clone());
        }
        Change::Remove { path } => {
            files.remove(path);
        }
        Change::Folder { .. } | Change::RemoveFolder { .. } => {}
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

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_says_what_is_unwritten() {
        assert!(super::unwritten().is_some());
    }
}
