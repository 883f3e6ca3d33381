//! Publishing: each [`Change`] done in one step that may be done again after a crash.
//!
//! Every change opens the folder it works in without following a link, and then acts on one name in that folder: a
//! link at the name itself is replaced or removed, never followed.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::entries::each_name;
use super::errors::{failed, misplaced};
use super::inner::Inner;
use super::lookup::file_mode;
use super::stage::{Staging, name_of};
use super::stat::{Seen, times};
use super::unnamed;
use super::write::{copy_range, write_at};
use crate::error::{Error, Kind, Result};
use crate::store::{Body, Change, Micros, Node, RelPath, StageId};

/// Times a put is tried again when its folder vanishes in between.
const PLACE_TRIES: u32 = 8;

/// How a file that had to be copied from another file system is called until it is complete.
const COPYING: &str = ".stoa-put-";

impl Inner {
    /// Does one change.
    pub(super) fn publish(&self, change: &Change, body: Option<Bytes>, nearby: &mut Nearby) -> Result<Option<Node>> {
        match change {
            Change::Put { path, body: Body::Inline, modified } => {
                let bytes = body.ok_or_else(|| Error::internal("an inline body is missing from its intent"))?;
                self.put_inline(path, &bytes, *modified, nearby)
            }
            Change::Put { path, body: Body::Staged(id), modified } => self.put_staged(path, id, *modified, nearby),
            Change::Folder { path } => self.root.make_folder(path).map(|_| None).map_err(misplaced),
            Change::Remove { path } => self.remove(path).map(|()| None),
            Change::RemoveFolder { path, all: true } => self.remove_tree(path).map(|()| None),
            Change::RemoveFolder { path, all: false } => self.remove_empty(path).map(|()| None),
            Change::Rename { from, to } => self.rename(from, to),
            Change::SetModified { path, modified } => self.set_modified(path, *modified),
        }
    }

    fn put_inline(
        &self,
        path: &RelPath,
        bytes: &[u8],
        modified: Option<Micros>,
        nearby: &mut Nearby,
    ) -> Result<Option<Node>> {
        let shown = file_name(path)?;
        let temporary = Staging::own_name();
        let seen = match self.unnamed.file(&self.staging) {
            Some(file) => {
                let seen = fill(&file, bytes, modified)?;
                let folder = nearby.folder(self, path)?;
                let name = self.root.locate(folder, shown).map_err(misplaced)?;
                self.own.expect(path);
                if unnamed::link(&file, folder, &*name).is_ok() {
                    return Ok(Some(seen.node(shown)));
                }
                self.own.take(path);
                // Something has the name, or whatever else it is: moving it there replaces that, or says why not.
                unnamed::link(&file, self.staging.fd(), &temporary).map_err(failed)?;
                seen
            }
            None => self.named(&temporary, bytes, modified)?,
        };
        match self.place(&temporary, path, nearby) {
            Ok(Placed::Moved) => Ok(Some(seen.node(shown))),
            Ok(Placed::Gone) => Err(Error::internal("a file was taken out of the staging folder by someone else")),
            Err(error) => {
                let _ = rustix::fs::unlinkat(self.staging.fd(), &temporary, AtFlags::empty());
                Err(error)
            }
        }
    }

    /// A file of the staging folder with these bytes, or none.
    fn named(&self, temporary: &str, bytes: &[u8], modified: Option<Micros>) -> Result<Seen> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.staging.fd(), temporary, flags, file_mode()).map_err(failed)?;
        let filled = fill(&File::from(file), bytes, modified);
        if filled.is_err() {
            let _ = rustix::fs::unlinkat(self.staging.fd(), temporary, AtFlags::empty());
        }
        filled
    }

    fn put_staged(
        &self,
        path: &RelPath,
        id: &StageId,
        modified: Option<Micros>,
        nearby: &mut Nearby,
    ) -> Result<Option<Node>> {
        let name = file_name(path)?;
        let stage = name_of(id)?;
        if let Some(at) = modified {
            match rustix::fs::utimensat(self.staging.fd(), stage, &times(at), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let placed = self.place(stage, path, nearby)?;
        let there = self.look(path)?;
        if matches!(placed, Placed::Gone) && there.is_none() {
            tracing::warn!(path = %path, stage, "neither the staged bytes nor the file are there: another program took the file");
        }
        Ok(there.map(|seen| seen.node(name)))
    }

    /// Moves a file of the staging folder to its place, making missing folders.
    fn place(&self, stage: &str, path: &RelPath, nearby: &mut Nearby) -> Result<Placed> {
        let shown = file_name(path)?;
        let mut tries = 0;
        loop {
            let folder = nearby.folder(self, path)?;
            let name = self.root.locate(folder, shown).map_err(misplaced)?;
            match rustix::fs::renameat(self.staging.fd(), stage, folder, &*name) {
                Ok(()) => return Ok(Placed::Moved),
                Err(Errno::NOENT) if self.is_gone(stage)? => return Ok(Placed::Gone),
                Err(Errno::NOENT) if tries < PLACE_TRIES => {
                    tries += 1;
                    *nearby = Nearby::default();
                }
                Err(Errno::XDEV) => return self.copy_across(stage, folder, &name),
                Err(error) => return Err(misplaced(error)),
            }
        }
    }

    fn is_gone(&self, stage: &str) -> Result<bool> {
        match Seen::at(self.staging.fd(), stage) {
            Ok(_) => Ok(false),
            Err(Errno::NOENT) => Ok(true),
            Err(error) => Err(failed(error)),
        }
    }

    /// The folder lies on another file system than its volume: copy beside the place, sync, then move.
    fn copy_across(&self, stage: &str, folder: &OwnedFd, name: &[u8]) -> Result<Placed> {
        let reading = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = match rustix::fs::openat(self.staging.fd(), stage, reading, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(Placed::Gone),
            Err(error) => return Err(failed(error)),
        };
        let meta = source.metadata()?;
        // The same name on each try, so that a crash leaves at most one, which the replay uses again.
        let temporary = format!("{COPYING}{:016x}", Seen::of(&source).map_err(failed)?.inode);
        let writing = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = File::from(rustix::fs::openat(folder, &temporary, writing, file_mode()).map_err(failed)?);
        let outcome = copy_range(&source, &target, 0, meta.len()).and_then(|()| {
            target.set_modified(meta.modified()?)?;
            rustix::fs::fsync(&target).map_err(failed)?;
            rustix::fs::renameat(folder, &temporary, folder, name).map_err(misplaced)
        });
        if let Err(error) = outcome {
            let _ = rustix::fs::unlinkat(folder, &temporary, AtFlags::empty());
            return Err(error);
        }
        let _ = rustix::fs::unlinkat(self.staging.fd(), stage, AtFlags::empty());
        Ok(Placed::Moved)
    }

    fn remove(&self, path: &RelPath) -> Result<()> {
        let Some((folder, name)) = self.found(path)? else { return Ok(()) };
        match rustix::fs::unlinkat(&folder, &*name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => match Seen::at(&folder, &*name) {
                Ok(seen) if seen.kind.is_dir() => Err(Error::new(Kind::WrongType, "is a folder")),
                _ => Err(failed(error)),
            },
        }
    }

    fn rename(&self, from: &RelPath, to: &RelPath) -> Result<Option<Node>> {
        let shown = file_name(to)?;
        file_name(from)?;
        if from == to {
            return Ok(self.look(to)?.map(|seen| seen.node(shown)));
        }
        if to.is_in(from) {
            return Err(Error::new(Kind::Invalid, "a folder cannot be moved into itself"));
        }
        let source = match self.found(from)? {
            Some((folder, old)) => at_name(&folder, &old)?.map(|seen| (folder, old, seen)),
            None => None,
        };
        let Some((source, old, seen)) = source else {
            // A replay: it was moved before the crash (and perhaps taken away since).
            return Ok(self.look(to)?.map(|seen| seen.node(shown)));
        };
        let target = self.parent_made(to)?;
        let new = self.root.locate(&target, shown).map_err(misplaced)?;
        let moved = match seen.kind.is_dir() {
            // An empty folder at the target would be replaced silently.
            true => match rustix::fs::renameat_with(&source, &*old, &target, &*new, RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS) if at_name(&target, &new)?.is_none() => {
                    rustix::fs::renameat(&source, &*old, &target, &*new)
                }
                outcome => outcome,
            },
            false => rustix::fs::renameat(&source, &*old, &target, &*new),
        };
        match moved {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(self.look(to)?.map(|seen| seen.node(shown))),
            Err(Errno::EXIST) if at_name(&target, &new)?.is_some_and(|seen| !seen.kind.is_dir()) => {
                return Err(misplaced(Errno::NOTDIR));
            }
            Err(Errno::EXIST) => return Err(Error::new(Kind::Exists, "a folder of this name is there")),
            Err(Errno::XDEV) => {
                return Err(Error::new(Kind::Invalid, "the two folders lie on different disks of the server"));
            }
            Err(error) => return Err(misplaced(error)),
        }
        if !seen.kind.is_dir() {
            drop_twin((&source, &old), (&target, &new))?;
        }
        Ok(at_name(&target, &new)?.map(|seen| seen.node(shown)))
    }

    fn set_modified(&self, path: &RelPath, modified: Micros) -> Result<Option<Node>> {
        let Some((folder, name)) = self.found(path)? else { return Ok(None) };
        match rustix::fs::utimensat(&folder, &*name, &times(modified), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(Errno::NOENT) => Ok(at_name(&folder, &name)?.map(|seen| seen.node(path.name()))),
            Err(error) => Err(failed(error)),
        }
    }

    /// What is at a path; `None` for nothing.
    fn look(&self, path: &RelPath) -> Result<Option<Seen>> {
        match self.found(path)? {
            Some((folder, name)) => at_name(&folder, &name),
            None => Ok(None),
        }
    }

    /// The folder a path is in, and its name there; `None` when there is no such folder (or it is a file or a link), or no such name.
    pub(super) fn found<'a>(&self, path: &'a RelPath) -> Result<Option<(OwnedFd, Cow<'a, [u8]>)>> {
        let Some(folder) = self.parent_found(path)? else { return Ok(None) };
        if path.is_root() {
            return Ok(Some((folder, b".".into())));
        }
        match self.root.locate(&folder, path.name()) {
            Ok(name) => Ok(Some((folder, name))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// The folder a path is in; `None` when there is no such folder (or it is a file or a link).
    pub(super) fn parent_found(&self, path: &RelPath) -> Result<Option<OwnedFd>> {
        match self.root.folder(&path.parent().unwrap_or_default()) {
            Ok(folder) => Ok(Some(folder)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn parent_made(&self, path: &RelPath) -> Result<OwnedFd> {
        self.root.make_folder(&path.parent().unwrap_or_default()).map_err(misplaced)
    }
}

/// The folder the last file was put in: of many files published together most go to the same one.
#[derive(Default)]
pub(super) struct Nearby {
    last: Option<(RelPath, OwnedFd)>,
}

impl Nearby {
    /// The folder a path is in, made when missing.
    fn folder<'a>(&'a mut self, inner: &'a Inner, path: &RelPath) -> Result<&'a OwnedFd> {
        let wanted = path.parent().unwrap_or_default();
        if wanted.is_root() {
            return Ok(inner.root.fd());
        }
        let last = match self.last.take() {
            Some(last) if last.0 == wanted => last,
            _ => {
                let made = inner.root.make_folder(&wanted).map_err(misplaced)?;
                (wanted, made)
            }
        };
        Ok(&self.last.insert(last).1)
    }
}

/// Writes a new file; what the kernel says of it then stays true when it moves or gets its name.
fn fill(file: &File, bytes: &[u8], modified: Option<Micros>) -> Result<Seen> {
    write_at(file, bytes, 0)?;
    if let Some(at) = modified {
        rustix::fs::futimens(file, &times(at)).map_err(failed)?;
    }
    Seen::of(file).map_err(failed)
}

/// What became of a file of the staging folder.
enum Placed {
    /// It was not there (any more).
    Gone,
    /// It is in its place.
    Moved,
}

/// rename(2) succeeds and does nothing when both names are hard links of one file: the old name is removed then. It is kept where the
/// disk has one entry for both names because it does not tell capitals from small letters.
fn drop_twin((source, old): (&OwnedFd, &[u8]), (target, new): (&OwnedFd, &[u8])) -> Result<()> {
    let (Some(left), Some(there)) = (at_name(source, old)?, at_name(target, new)?) else { return Ok(()) };
    if left.inode != there.inode || !has_entry(target, new)? {
        return Ok(());
    }
    match rustix::fs::unlinkat(source, old, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Does the folder have an entry with exactly these bytes?
fn has_entry(folder: &OwnedFd, name: &[u8]) -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(folder, ".", flags, Mode::empty()).map_err(failed)?;
    let mut found = false;
    each_name(&folder, |entry, _| {
        found = entry == name;
        !found
    })
    .map_err(failed)?;
    Ok(found)
}

fn at_name(folder: impl AsFd, name: &[u8]) -> Result<Option<Seen>> {
    match Seen::at(folder, name) {
        Ok(seen) => Ok(Some(seen)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The name a change works on; the root of a volume has none and is never replaced, moved or removed.
pub(super) fn file_name(path: &RelPath) -> Result<&str> {
    match path.is_root() {
        true => Err(Error::new(Kind::Invalid, "the root of a space cannot be replaced, moved or removed")),
        false => Ok(path.name()),
    }
}
