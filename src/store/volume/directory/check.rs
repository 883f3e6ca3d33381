//! Would the file system refuse a change? Asked before the commit, so that nothing has to be undone.
//!
//! The kernel is asked with the process's own rights (`faccessat2` with `AT_EACCESS`), which also tells of read-only mounts and immutable
//! folders. A kernel that cannot say is taken for a yes: the publish itself tells then.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::entries::each_name;
use super::errors::{failed, misplaced};
use super::inner::{Inner, device_of};
use super::publish::file_name;
use super::stat::{Seen, times};
use crate::error::{Error, Kind, Result};
use crate::store::{Change, RelPath};

/// Entries of a folder that are looked at before it is removed with all below it. What is beyond may be refused when it is erased, out
/// of sight.
const LOOKED_AT: usize = 100_000;

/// An entry may not be removed or changed, whoever asks.
const FIXED: StatxAttributes = StatxAttributes::IMMUTABLE.union(StatxAttributes::APPEND);

impl Inner {
    /// The refusal that is certain to come, if one is.
    pub(super) fn check(&self, change: &Change) -> Result<()> {
        if self.is_lost() {
            return Err(Error::new(Kind::Unavailable, "the folder of this space was removed on the server; try again"));
        }
        match change {
            Change::Put { path, .. } => self.may_add(path, FileType::RegularFile),
            Change::Folder { path } => self.may_add(path, FileType::Directory),
            Change::Remove { path } => self.may_take(path),
            Change::RemoveFolder { path, all } => self.may_take(path).and_then(|()| self.may_empty(path, *all)),
            Change::Rename { from, to } => self.may_move(from, to),
            Change::SetModified { path, .. } => self.may_touch(path),
        }
    }

    /// Another program removed the root or the staging folder: nothing can be made in a folder without a name.
    pub(super) fn is_lost(&self) -> bool {
        let gone = |fd: &OwnedFd| rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_nlink == 0);
        gone(self.root.fd()) || gone(self.staging.fd())
    }

    /// The nearest folder above a path that is there, and whether that is the one it is in.
    fn above(&self, path: &RelPath) -> Result<(OwnedFd, bool)> {
        let mut folder = path.parent().unwrap_or_default();
        let mut direct = true;
        loop {
            match self.root.folder(&folder) {
                Ok(fd) => return Ok((fd, direct)),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(misplaced(error)),
            }
            direct = false;
            folder = folder.parent().ok_or_else(|| failed(Errno::NOENT))?;
        }
    }

    /// The name of a path in its folder, as the disk has it.
    fn on_disk<'a>(&self, folder: &OwnedFd, path: &'a RelPath) -> Result<std::borrow::Cow<'a, [u8]>> {
        self.root.locate(folder, file_name(path)?).map_err(failed)
    }

    /// A name may come to a folder, in the place of a file that is there.
    fn may_add(&self, path: &RelPath, kind: FileType) -> Result<()> {
        let (folder, direct) = self.above(path)?;
        may_change(&folder)?;
        if !direct {
            return Ok(());
        }
        let name = &*self.on_disk(&folder, path)?;
        match Seen::at(&folder, name) {
            Ok(seen) if seen.kind.is_dir() && !kind.is_dir() => Err(misplaced(Errno::ISDIR)),
            Ok(seen) if kind.is_dir() && !seen.kind.is_dir() => Err(misplaced(Errno::NOTDIR)),
            Ok(_) if !kind.is_dir() => is_loose(&folder, name),
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// A name may go.
    fn may_take(&self, path: &RelPath) -> Result<()> {
        let Some(folder) = self.parent_found(path)? else { return Ok(()) };
        may_change(&folder)?;
        let outcome = self.on_disk(&folder, path).and_then(|name| is_loose(&folder, &name));
        match outcome {
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// A folder is empty, or everything below it may go.
    fn may_empty(&self, path: &RelPath, all: bool) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let top = match self.root.open(path, flags) {
            Ok(top) => top,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if !all {
            let mut empty = true;
            each_name(&top, |_, _| {
                empty = false;
                false
            })
            .map_err(failed)?;
            return if empty { Ok(()) } else { Err(failed(Errno::NOTEMPTY)) };
        }
        // It moves out of sight first, which changes its own `..`.
        may_change(&top)?;
        let mut left = LOOKED_AT;
        may_erase(&top, &mut left)
    }

    fn may_move(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        self.may_take(from)?;
        let Some(folder) = self.parent_found(from)? else { return Ok(()) };
        let Ok(seen) = Seen::at(&folder, &*self.on_disk(&folder, from)?) else { return Ok(()) };
        let (goal, direct) = self.above(to)?;
        may_change(&goal)?;
        if from.parent() != to.parent() {
            if device_of(&folder)? != device_of(&goal)? {
                return Err(misplaced(Errno::XDEV));
            }
            if seen.kind.is_dir() {
                may_change(&self.root.folder(from).map_err(failed)?)?;
            }
        }
        if !direct {
            return Ok(());
        }
        let name = &*self.on_disk(&goal, to)?;
        match Seen::at(&goal, name) {
            Ok(there) if there.kind.is_dir() && !seen.kind.is_dir() => Err(misplaced(Errno::ISDIR)),
            Ok(_) => is_loose(&goal, name),
            Err(_) => Ok(()),
        }
    }

    /// Its own time is set again: the kernel tells whether that may be.
    fn may_touch(&self, path: &RelPath) -> Result<()> {
        let Some(folder) = self.parent_found(path)? else { return Ok(()) };
        let name = match path.is_root() {
            true => std::borrow::Cow::Borrowed(&b"."[..]),
            false => self.on_disk(&folder, path)?,
        };
        let Ok(seen) = Seen::at(&folder, &*name) else { return Ok(()) };
        let (seconds, nanos) = seen.modified;
        let mut same = times(0);
        same.last_modification.tv_sec = seconds;
        same.last_modification.tv_nsec = nanos.into();
        match rustix::fs::utimensat(&folder, &*name, &same, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Names may come and go in a folder.
pub(super) fn may_change(folder: impl AsFd) -> Result<()> {
    match rustix::fs::accessat(folder, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) | Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The entry is not fixed by an attribute or by something mounted on it, nor is its folder one that only takes more.
fn is_loose(folder: &OwnedFd, name: &[u8]) -> Result<()> {
    let none: &[u8] = b"";
    let own = attributes(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    let around = attributes(folder, none, AtFlags::EMPTY_PATH).unwrap_or(StatxAttributes::empty());
    if own.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(failed(Errno::BUSY));
    }
    match own.intersects(FIXED) || around.contains(StatxAttributes::APPEND) {
        true => Err(failed(Errno::PERM)),
        false => Ok(()),
    }
}

fn attributes(folder: &OwnedFd, name: &[u8], flags: AtFlags) -> rustix::io::Result<StatxAttributes> {
    let stat = rustix::fs::statx(folder, name, flags | AtFlags::NO_AUTOMOUNT, StatxFlags::TYPE)?;
    Ok(stat.stx_attributes)
}

/// Everything below a folder may be removed. Folders are held open one in another; deeper than that is left to the erasing.
fn may_erase(top: &OwnedFd, left: &mut usize) -> Result<()> {
    const DEEPEST: usize = 64;
    let mut waiting = vec![names_of(top, left)?];
    let mut open = vec![top.try_clone().map_err(Error::from)?];
    while let (Some(names), Some(folder)) = (waiting.last_mut(), open.last()) {
        let Some((name, kind)) = names.pop() else {
            waiting.pop();
            open.pop();
            continue;
        };
        match is_loose(folder, &name) {
            Err(error) if error.kind() != Kind::NotFound => return Err(error),
            _ => {}
        }
        if kind.is_file() || open.len() >= DEEPEST {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let below = match rustix::fs::openat(folder, name.as_slice(), flags, Mode::empty()) {
            Ok(below) => below,
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => continue,
            Err(error) => return Err(failed(error)),
        };
        may_change(&below)?;
        waiting.push(names_of(&below, left)?);
        open.push(below);
    }
    Ok(())
}

fn names_of(folder: &OwnedFd, left: &mut usize) -> Result<Vec<(Vec<u8>, FileType)>> {
    let mut names = Vec::new();
    each_name(folder, |name, kind| {
        let more = *left > 0;
        if more {
            *left -= 1;
            names.push((name.to_vec(), kind));
        }
        more
    })
    .map_err(failed)?;
    Ok(names)
}
