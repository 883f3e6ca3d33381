//! Looking names up below a directory, without ever leaving it.
//!
//! The kernel does the work (`openat2` with `RESOLVE_BENEATH` and no links of any kind), so that neither `..` nor a
//! symlink swapped in by a racing program can lead out. Where a seccomp filter hides `openat2`, names are walked one
//! at a time with `O_NOFOLLOW`, which holds the same promise more slowly.
//!
//! Paths are canonical text; [`super::variant`] tells which name on the disk one means.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::errors::{refused, special};
use super::stat::Seen;
use super::variant::Searches;
use crate::error::{Error, Kind};
use crate::store::volume::name;
use crate::store::{Node, NodeKind, RelPath};

/// Times a lookup is tried again when the kernel says that a racing rename confused it.
const LOOKUP_TRIES: u32 = 16;

/// A directory that every lookup starts from.
pub(super) struct Root {
    fd: OwnedFd,
    /// The kernel (and its filter) lets us use `openat2`.
    beneath: bool,
    /// … and `RESOLVE_CACHED` with it.
    cached: bool,
    searches: Searches,
}

/// How names are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookups {
    /// In one `openat2` where the kernel has it.
    Probe,
    /// One name at a time.
    Walk,
}

const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    /// Takes an open directory and finds out what the kernel can do with it.
    pub(super) fn new(fd: OwnedFd, lookups: Lookups) -> Self {
        let mut root = Self { fd, beneath: false, cached: false, searches: Searches::default() };
        if lookups == Lookups::Probe {
            root.beneath = root.openat2(b".", PLACE, ResolveFlags::empty()).is_ok();
            root.cached =
                root.beneath && matches!(root.openat2(b".", PLACE, ResolveFlags::CACHED), Ok(_) | Err(Errno::AGAIN));
        }
        root
    }

    /// The directory itself.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Opens what is at `path`, from the disk if need be.
    pub(super) fn open(&self, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if path.as_str().is_ascii() {
            return self.open_exact(path, flags);
        }
        if !has_alias(path) {
            match self.open_exact(path, flags) {
                Err(Errno::NOENT) => {}
                outcome => return outcome,
            }
        }
        self.walk(path, flags)
    }

    /// Opens the names as they are in the path.
    fn open_exact(&self, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if !self.beneath {
            return self.walk(path, flags);
        }
        let disk = disk_path(path);
        let mut tries = 0;
        loop {
            match self.openat2(&disk, flags, ResolveFlags::empty()) {
                Err(Errno::AGAIN | Errno::INTR) if tries < LOOKUP_TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    /// Opens what is at `path` only if that needs no disk; `Errno::AGAIN` otherwise.
    pub(super) fn open_cached(&self, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        if !self.cached || has_alias(path) {
            return Err(Errno::AGAIN);
        }
        match self.openat2(&disk_path(path), flags, ResolveFlags::CACHED) {
            Err(Errno::NOENT) if !path.as_str().is_ascii() => Err(Errno::AGAIN),
            outcome => outcome,
        }
    }

    /// The name on the disk that the last part of a path means in its folder: where nothing is there, the one to make.
    pub(super) fn locate<'a>(&self, folder: &OwnedFd, name: &'a str) -> rustix::io::Result<Cow<'a, [u8]>> {
        self.searches.locate(folder, name)
    }

    /// The name with which an entry of a folder is shown.
    pub(super) fn shown(&self, folder: &OwnedFd, disk: &[u8]) -> rustix::io::Result<String> {
        self.searches.shown(folder, disk)
    }

    /// Opens a folder as a place to look names up from.
    pub(super) fn folder(&self, path: &RelPath) -> rustix::io::Result<OwnedFd> {
        self.open(path, PLACE)
    }

    fn openat2(&self, path: &[u8], flags: OFlags, more: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS | more;
        rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    fn walk(&self, path: &RelPath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut at = None;
        let mut parts = path.parts().peekable();
        while let Some(part) = parts.next() {
            let from = at.as_ref().unwrap_or(&self.fd);
            let flags = if parts.peek().is_some() { PLACE } else { flags };
            at = Some(step(from, &self.locate(from, part)?, flags)?);
        }
        at.map_or_else(|| step(&self.fd, b".", flags), Ok)
    }

    /// Opens a folder, making it and its parents where they are missing. Never through a link.
    pub(super) fn make_folder(&self, path: &RelPath) -> rustix::io::Result<OwnedFd> {
        match self.folder(path) {
            Err(Errno::NOENT) => {}
            outcome => return outcome,
        }
        let mut at = rustix::fs::openat(&self.fd, ".", PLACE, Mode::empty())?;
        for part in path.parts() {
            let name = self.locate(&at, part)?;
            at = make_step(&at, &name)?;
        }
        Ok(at)
    }
}

/// One name down, never through a link. Opening with `O_DIRECTORY` says `ENOTDIR` of a link too: tell them apart.
fn step(from: &OwnedFd, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(from, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOTDIR) => {
            let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Err(if FileType::from_raw_mode(stat.st_mode).is_symlink() { Errno::LOOP } else { Errno::NOTDIR })
        }
        outcome => outcome,
    }
}

fn make_step(from: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        match step(from, name, PLACE) {
            Err(Errno::NOENT) if tries < LOOKUP_TRIES => tries += 1,
            outcome => return outcome,
        }
        match rustix::fs::mkdirat(from, name, folder_mode()) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
}

/// `0750`, less what the umask takes.
pub(super) fn folder_mode() -> Mode {
    Mode::RWXU | Mode::RGRP | Mode::XGRP
}

/// `0640`, less what the umask takes.
pub(super) fn file_mode() -> Mode {
    Mode::RUSR | Mode::WUSR | Mode::RGRP
}

fn disk_path(path: &RelPath) -> Cow<'_, [u8]> {
    if path.is_root() { b".".into() } else { name::bytes(path.as_str()) }
}

fn has_alias(path: &RelPath) -> bool {
    !path.as_str().is_ascii() && path.parts().any(name::is_alias)
}

/// The node behind a descriptor, under the name it was asked for.
pub(super) fn node_of(fd: impl AsFd, path: &RelPath) -> Result<Node, Error> {
    Ok(Seen::of(fd).map_err(refused)?.node(path.name()))
}

/// Turns a descriptor into a file for reading; only a regular file may be one.
pub(super) fn readable(fd: OwnedFd, path: &RelPath) -> Result<(Node, File), Error> {
    let node = node_of(&fd, path)?;
    match node.kind {
        NodeKind::File => Ok((node, File::from(fd))),
        NodeKind::Folder => Err(Error::new(Kind::WrongType, "is a folder")),
        NodeKind::Special => Err(special()),
    }
}
